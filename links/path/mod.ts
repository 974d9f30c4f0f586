/**
 * Stands in for `@std/path` on machines that cannot reach the registry: the
 * same signatures, for the part of the package this project uses, on top of
 * Deno's built-in `node:path` and `node:url`. Paths follow the conventions of
 * the operating system it runs on.
 *
 * @module
 */

import * as node from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

/** What separates the parts of a path: `/`, or `\` on Windows. */
export const SEPARATOR: "/" | "\\" = node.sep;

/** Returns the last part of a path, without `suffix` if it ends so. */
export function basename(path: string | URL, suffix = ""): string {
  return node.basename(toPath(path), suffix);
}

/** Returns all of a path but its last part; `.` if it has only one. */
export function dirname(path: string | URL): string {
  return node.dirname(toPath(path));
}

/** Returns the extension of a path, with its dot; `""` if it has none. */
export function extname(path: string | URL): string {
  return node.extname(toPath(path));
}

/**
 * Converts a `file:` URL to a path.
 *
 * @throws {TypeError} If it is not a `file:` URL.
 */
export function fromFileUrl(url: string | URL): string {
  return fileURLToPath(url);
}

/** Tells whether a path starts at the root of the file system. */
export function isAbsolute(path: string): boolean {
  return node.isAbsolute(path);
}

/** Joins parts with the separator and normalizes the result. */
export function join(path: string | URL, ...paths: string[]): string {
  return node.join(toPath(path), ...paths);
}

/** Resolves `.`, `..` and repeated separators, without looking at any file. */
export function normalize(path: string | URL): string {
  return node.normalize(toPath(path));
}

/** Returns the path that leads from one path to another; `""` if they are the same. */
export function relative(from: string, to: string): string {
  return node.relative(from, to);
}

/** Joins parts into an absolute path, starting from the current directory. */
export function resolve(...pathSegments: string[]): string {
  return node.resolve(...pathSegments);
}

/**
 * Converts an absolute path to a `file:` URL.
 *
 * @throws {TypeError} If the path is not absolute.
 */
export function toFileUrl(path: string): URL {
  if (!node.isAbsolute(path)) {
    throw new TypeError(`Not an absolute path: "${path}"`);
  }
  return pathToFileURL(path);
}

function toPath(path: string | URL): string {
  return path instanceof URL ? fileURLToPath(path) : path;
}
