/**
 * Stands in for `@std/cli` on machines that cannot reach the registry: the
 * same signatures, for the part of the package this project uses.
 *
 * @module
 */

export * from "./parse_args.ts";
