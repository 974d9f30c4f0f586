/**
 * Programs in processes of their own: what one contender teaches the compiler
 * about a shared function, or leaves on the heap, must not reach the next.
 *
 * @module
 */

import { fromFileUrl } from "@std/path";

/** The top folder of the project. */
export const ROOT: string = fromFileUrl(new URL("..", import.meta.url));

const HERE = fromFileUrl(new URL(".", import.meta.url));

/**
 * Runs a worker, a program in this folder that prints one JSON value, and gives
 * that value.
 */
export async function runWorker<T>(
  file: string,
  args: readonly string[],
  flags: readonly string[] = [],
): Promise<T> {
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--config",
      `${HERE}deno.json`,
      "--frozen",
      "--no-prompt",
      "-A",
      ...flags,
      `${HERE}${file}`,
      ...args,
    ],
  }).output();
  const decoder = new TextDecoder();
  if (!success) {
    throw new Error(
      `${file} ${args.join(" ")} failed: ${decoder.decode(stderr)}`,
    );
  }
  return JSON.parse(decoder.decode(stdout)) as T;
}

/** What a program has cost. */
export interface Cost {
  readonly seconds: number;
  /** The most memory it ever held; absent where the system does not tell. */
  readonly peakMiB?: number;
}

// Only what happens between the last look and the end escapes.
const LOOK_EVERY_MS = 10;

/** Runs `deno` in the top folder to its end and says what it has cost. */
export async function costOf(args: readonly string[]): Promise<Cost> {
  const startMs = performance.now();
  // The output goes nowhere: reading it here would take time from the program.
  await using child = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let isOver = false;
  const ending = child.status.finally(() => isOver = true);
  const complaints = child.stderr.text();
  let peakMiB: number | undefined;
  while (!isOver) {
    peakMiB = await readPeakMiB(child.pid) ?? peakMiB;
    await Promise.race([ending, pause(LOOK_EVERY_MS)]);
  }
  const seconds = (performance.now() - startMs) / 1000;
  const { success } = await ending;
  if (!success) throw new Error(`deno ${args[0]} failed: ${await complaints}`);
  await complaints;
  return peakMiB === undefined ? { seconds } : { seconds, peakMiB };
}

/** Linux keeps the high-water mark of each process; others have no such file. */
async function readPeakMiB(pid: number): Promise<number | undefined> {
  try {
    const status = await Deno.readTextFile(`/proc/${pid}/status`);
    const match = /^VmHWM:\s+(\d+) kB$/m.exec(status);
    return match?.[1] === undefined ? undefined : Number(match[1]) / 1024;
  } catch {
    return undefined;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A folder that is gone at the end of its block. */
export class TemporaryFolder implements AsyncDisposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "pool-bench-" });

  /** The path of a file in it. */
  file(name: string): string {
    return `${this.path}/${name}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path, { recursive: true });
  }
}
