/**
 * A file that is written whole or not at all.
 *
 * @module
 */

import { dirname, join, resolve } from "@std/path";

/**
 * Collects what is written in a temporary file, which takes the place of its
 * target on `finish`. Without `finish` nothing is left of it, and what stood
 * there before stays.
 */
export class WholeFile implements AsyncDisposable {
  /** Where it goes; undefined if nowhere. */
  readonly #target: string | undefined;
  /** Whether it is copied there: a device or a pipe cannot be replaced. */
  readonly #isCopied: boolean;
  readonly #temporary: string;
  readonly #file: Deno.FsFile;
  readonly #madeFolders: readonly string[];
  readonly #encoder = new TextEncoder();
  #isInPlace = false;

  private constructor(
    file: Deno.FsFile,
    temporary: string,
    target?: string,
    { isCopied = false, madeFolders = [] as readonly string[] } = {},
  ) {
    this.#file = file;
    this.#temporary = temporary;
    this.#target = target;
    this.#isCopied = isCopied;
    this.#madeFolders = madeFolders;
  }

  /**
   * Begins the file at `path`, or one that goes nowhere. Folders that are
   * missing are made.
   *
   * @throws whatever the file system says, and `IsADirectory` for a folder.
   */
  static async create(path?: string): Promise<WholeFile> {
    const present = path === undefined ? undefined : await statIfPresent(path);
    if (present?.isDirectory) {
      throw new Deno.errors.IsADirectory("it is a folder; name a file");
    }
    if (path === undefined || (present !== undefined && !present.isFile)) {
      const temporary = await Deno.makeTempFile();
      const file = await Deno.open(temporary, { read: true, write: true });
      return new WholeFile(file, temporary, path, { isCopied: true });
    }
    if (present !== undefined) {
      // What may not be written to may not be replaced either.
      (await Deno.open(path, { write: true })).close();
    }
    // A link stays a link; what it points to is replaced, or made.
    const target = await followLinks(path);
    const folder = dirname(target);
    const madeFolders = await makeFolder(folder);
    try {
      // Beside the target, since a rename works within one file system only.
      const temporary = join(folder, `.${crypto.randomUUID()}.tmp`);
      const options = { read: true, write: true, createNew: true };
      const file = await Deno.open(temporary, options);
      const whole = new WholeFile(file, temporary, target, { madeFolders });
      try {
        if (present?.mode) await Deno.chmod(temporary, present.mode & 0o777);
      } catch (error) {
        await whole[Symbol.asyncDispose]();
        throw error;
      }
      return whole;
    } catch (error) {
      await removeFolders(madeFolders);
      throw error;
    }
  }

  /** Adds text to the end. */
  async write(text: string): Promise<void> {
    const bytes = this.#encoder.encode(text);
    for (let at = 0; at < bytes.length;) {
      at += await this.#file.write(bytes.subarray(at));
    }
  }

  /** Puts the file in its place. */
  async finish(): Promise<void> {
    if (this.#target === undefined) return;
    if (this.#isCopied) {
      using target = await Deno.open(this.#target, { write: true });
      await this.copyTo(target.writable);
      return;
    }
    // On the disk before it has the name, or a power cut could leave the name
    // with nothing behind it.
    await this.#file.syncData();
    await Deno.rename(this.#temporary, this.#target);
    this.#isInPlace = true;
  }

  /**
   * Copies all that was written to `stream`, which stays open. An aborted
   * `signal` ends that early, and is no error.
   */
  async copyTo(
    stream: WritableStream<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    const writer = stream.getWriter();
    // A reader that takes nothing more would hold a write for ever.
    const aborted = Promise.withResolvers<void>();
    const abort = (): void => aborted.resolve();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const buffer = new Uint8Array(64 * 1024);
      await this.#file.seek(0, Deno.SeekMode.Start);
      while (!signal?.aborted) {
        const read = await this.#file.read(buffer);
        if (read === null) break;
        await Promise.race([
          writer.write(buffer.subarray(0, read)),
          aborted.promise,
        ]);
      }
    } finally {
      signal?.removeEventListener("abort", abort);
      writer.releaseLock();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#file.close();
    if (this.#isInPlace) return;
    await Deno.remove(this.#temporary);
    await removeFolders(this.#madeFolders);
  }
}

async function statIfPresent(path: string): Promise<Deno.FileInfo | undefined> {
  try {
    return await Deno.stat(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Where a path leads, whether something is there or not. */
async function followLinks(path: string): Promise<string> {
  let target = path;
  // As many as Linux follows; a circle of links was refused by then.
  for (let links = 0; links < 40; links++) {
    try {
      if (!(await Deno.lstat(target)).isSymlink) break;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) break;
      throw error;
    }
    target = resolve(dirname(target), await Deno.readLink(target));
  }
  return target;
}

/** Makes a folder with those above it, and gives the ones made, inmost first. */
async function makeFolder(path: string): Promise<string[]> {
  const missing: string[] = [];
  for (
    let folder = path;
    await statIfPresent(folder) === undefined;
    folder = dirname(folder)
  ) missing.push(folder);
  await Deno.mkdir(path, { recursive: true });
  return missing;
}

async function removeFolders(folders: readonly string[]): Promise<void> {
  for (const folder of folders) {
    try {
      await Deno.remove(folder);
    } catch {
      // Somebody else has put something into it meanwhile; then it is theirs.
      return;
    }
  }
}
