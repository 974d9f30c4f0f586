/**
 * A second process that holds the write lock of a SQLite file, as another
 * program on the same machine would.
 *
 * @module
 */

import { messageOf } from "./errors.ts";

/** Another process that holds a lock on a database file. */
export interface LockHolder extends AsyncDisposable {
  /** Resolves when the lock is free again, by itself or by `release`. */
  readonly freed: Promise<void>;
  /** Lets the lock go and waits until the process has ended. */
  release(): Promise<void>;
}

// It sleeps in a wait that nothing can wake, so as to need no timer; and at the
// end of its input it ends, so that nothing outlives who started it.
const PROGRAM = `
import { DatabaseSync } from "node:sqlite";
const database = new DatabaseSync(PATH);
database.exec("PRAGMA journal_mode = WAL");
database.exec("BEGIN IMMEDIATE");
console.log("locked");
if (HOLD_MS === null) for await (const _ of Deno.stdin.readable);
else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HOLD_MS);
database.exec("ROLLBACK");
database.close();
console.log("free");
`;

/**
 * Starts a process that locks the database at `path` for writing, and waits
 * until it has the lock.
 *
 * @param options.forMs how long it holds the lock, in milliseconds. Default:
 * until `release`.
 * @throws if the process ends before it has the lock.
 */
export async function holdLock(
  path: string,
  { forMs }: { forMs?: number } = {},
): Promise<LockHolder> {
  if (Deno.build.standalone) {
    throw new Error(
      "Cannot start the process that is to hold a lock from a compiled " +
        "program: run it with `deno task`",
    );
  }
  const code = PROGRAM.replace("PATH", () => JSON.stringify(path))
    .replaceAll("HOLD_MS", String(forMs ?? null));
  let child;
  try {
    child = new Deno.Command(Deno.execPath(), {
      args: ["eval", "--no-config", "--no-lock", code],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
  } catch (error) {
    throw new Error(
      `Cannot start the process that is to hold a lock: ${messageOf(error)}`,
      { cause: error },
    );
  }
  const { stdin, stdout, status } = child;
  const output = stdout.getReader();
  if ((await output.read()).done) {
    await stdin.close();
    const { code } = await status;
    throw new Error(
      `Cannot lock '${path}': the process that was to do it ended with ${code}`,
    );
  }
  const freed = output.read().then(() => {});
  let released: Promise<void> | undefined;
  const release = async (): Promise<void> => {
    // One that sleeps does not hear that its input has ended. Whichever it is,
    // it may have come to its end already.
    try {
      if (forMs === undefined) await stdin.close();
      else child.kill("SIGKILL");
    } catch {
      // Then there is nothing left to end.
    }
    await freed;
    await output.cancel();
    await status;
    if (forMs !== undefined) await stdin.close().catch(() => {});
  };
  const once = (): Promise<void> => released ??= release();
  return { freed, release: once, [Symbol.asyncDispose]: once };
}
