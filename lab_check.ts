/**
 * The exercise, done by oneself: a learner's own pool, put through the cases in
 * which something is broken.
 *
 * Each case runs in a thread of its own (`lab_worker.ts`), so that an endless
 * loop can be ended and one case leaves nothing to the next.
 *
 * @module
 */

import { toFileUrl } from "@std/path";
import { delay } from "./clock.ts";
import { messageOf } from "./errors.ts";
import { inTemporaryFolder, LAB_CASES, type LabSide, runSide } from "./lab.ts";
import type {
  LabCase,
  LabPool,
  LabPoolOptions,
  MakePool,
  Opened,
} from "./lab_bench.ts";

/** The cases that a learner's pool goes through. */
export const CHECKED_CASES: readonly LabCase[] = LAB_CASES.filter(({ name }) =>
  name.startsWith("break-")
);

/** What one case showed of a learner's pool. */
export interface Check {
  readonly lab: LabCase;
  readonly isHeld: boolean;
  /** What was seen, in a sentence. */
  readonly seen: string;
  /** The run; undefined if it came to no end. */
  readonly side?: LabSide;
}

/** What all cases showed. */
export interface CheckReport {
  readonly file: string;
  readonly className: string;
  readonly checks: readonly Check[];
}

/** A module that has no pool in it, or cannot be loaded. */
export class PoolModuleError extends Error {
  override readonly name: string = "PoolModuleError";
}

/** What the thread is told. */
export interface CheckRequest {
  readonly url: string;
  readonly caseName: string;
  readonly folder: string;
}

/** What the thread answers. */
export type CheckAnswer =
  | { readonly kind: "unusable"; readonly message: string }
  | {
    readonly kind: "checked";
    readonly className: string;
    readonly isHeld: boolean;
    readonly seen: string;
    readonly side?: LabSide;
  };

const METHODS = ["acquire", "release", "stats", "close"] as const;

type PoolClass = new (options: LabPoolOptions) => LabPool;

/**
 * The class of a module that has all methods of a pool.
 *
 * @throws {PoolModuleError} if there is none, or more than one.
 */
function poolClassOf(exports: Record<string, unknown>): PoolClass {
  const classes = [...new Set(Object.values(exports))].filter((
    value,
  ): value is PoolClass =>
    typeof value === "function" && value.prototype !== undefined
  );
  const missing = (one: PoolClass): string[] =>
    METHODS.filter((name) => typeof one.prototype[name] !== "function");
  const pools = classes.filter((one) => missing(one).length === 0);
  const [pool, ...others] = pools;
  if (pool !== undefined && others.length === 0) return pool;
  if (others.length > 0) {
    throw new PoolModuleError(
      `it exports several classes with the methods of a pool, ${
        pools.map(({ name }) => name).join(" and ")
      }; export one`,
    );
  }
  const [nearly] = classes;
  throw new PoolModuleError(
    nearly === undefined
      ? `it exports no class; export one with ${METHODS.join(", ")}`
      : `its class ${nearly.name} has no ${missing(nearly).join(", ")}`,
  );
}

/** What is wrong with the numbers of a pool, if anything is. */
function faultOf(stats: ReturnType<LabPool["stats"]>): string | undefined {
  const { open, idle, inUse } = stats ?? {};
  const numbers = { open, idle, inUse };
  for (const [name, value] of Object.entries(numbers)) {
    if (!Number.isInteger(value) || value < 0) {
      return `stats() must count '${name}': current value is ${value}`;
    }
  }
  return idle + inUse <= open
    ? undefined
    : `stats() does not add up: ${idle} idle and ${inUse} in use, but ${open} open`;
}

/** Runs one case against the pool of a module; in the thread. */
export async function checkCase(request: CheckRequest): Promise<CheckAnswer> {
  let Pool: PoolClass;
  try {
    Pool = poolClassOf(await import(request.url));
  } catch (error) {
    return { kind: "unusable", message: messageOf(error) };
  }
  const lab = CHECKED_CASES.find(({ name }) => name === request.caseName);
  if (lab === undefined) throw new Error(`No case ${request.caseName}`);
  const className = Pool.name;
  let fault: string | undefined;
  const makePool: MakePool = (options) => {
    const opened: Opened[] = [];
    const connect = async (): Promise<Opened> => {
      const connection = await options.connect();
      opened.push(connection);
      return connection;
    };
    const pool = new Pool({ ...options, connect });
    const look = (): void => {
      fault ??= faultOf(pool.stats());
    };
    return {
      acquire: () => pool.acquire(),
      async release(connection) {
        await pool.release(connection);
        look();
      },
      stats: () => pool.stats(),
      async close() {
        await pool.close();
        look();
        const left = opened.filter(({ isClosed }) => !isClosed).length;
        if (left > 0) {
          fault ??= `close() left ${left} of ${opened.length} connections open`;
        }
      },
    };
  };
  try {
    const side = await runSide(lab, makePool, true, {
      folder: request.folder,
    });
    const guardHolds = lab.holds(side.figures);
    const seen = guardHolds && fault !== undefined
      ? `The guard holds, but ${fault}`
      : side.outcome;
    const isHeld = guardHolds && fault === undefined;
    return { kind: "checked", className, isHeld, seen, side };
  } catch (error) {
    const seen = `It threw: ${messageOf(error).split("\n")[0]}`;
    return { kind: "checked", className, isHeld: false, seen };
  }
}

/** What a pool comes to that throws where nobody can catch it. */
export function outOfTurn(error: unknown): CheckAnswer {
  const where = error instanceof Error
    ? /\((?:file:\S*\/)?([^/()]+:\d+):\d+\)|at (?:file:\S*\/)([^/()]+:\d+):\d+/
      .exec(error.stack ?? "")
    : null;
  const place = where?.[1] ?? where?.[2];
  const seen = `It threw where nobody could catch it${
    place === undefined ? "" : `, in ${place}`
  }: ${messageOf(error)}`;
  return { kind: "checked", className: "", isHeld: false, seen };
}

// Twice what the slowest case may take that goes well.
const LONGEST_CASE_MS = 8000;

async function checkInThread(
  request: CheckRequest,
  longestMs: number,
  signal: AbortSignal,
): Promise<CheckAnswer> {
  const { href } = new URL("./lab_worker.ts", import.meta.url);
  const worker = new Worker(href, { type: "module" });
  const enough = new AbortController();
  try {
    return await Promise.race([
      new Promise<CheckAnswer>((resolve) => {
        worker.onmessage = ({ data }: MessageEvent<CheckAnswer>) =>
          resolve(data);
        worker.onerror = (event) => {
          event.preventDefault();
          resolve(outOfTurn(new Error(event.message)));
        };
        worker.postMessage(request);
      }),
      delay(longestMs, {
        signal: AbortSignal.any([signal, enough.signal]),
      }).then((): CheckAnswer => ({
        ...{ kind: "checked", className: "", isHeld: false },
        seen: `It came to no end within ${
          longestMs / 1000
        } s: perhaps an endless loop`,
      })),
    ]);
  } finally {
    enough.abort();
    worker.terminate();
  }
}

/**
 * Puts the pool of a module through every case in which something is broken,
 * one after the other, and yields what each showed.
 *
 * @throws {PoolModuleError} if the module has no pool in it.
 */
export async function* checkPool(
  file: string,
  {
    folder,
    signal = new AbortController().signal,
    cases = CHECKED_CASES,
    longestCaseMs = LONGEST_CASE_MS,
  }: {
    folder?: string;
    signal?: AbortSignal;
    cases?: readonly LabCase[];
    longestCaseMs?: number;
  } = {},
): AsyncGenerator<Check, CheckReport> {
  if (Deno.build.standalone) {
    throw new PoolModuleError(
      `Cannot check '${file}' from a compiled program: use \`deno task lab:check\``,
    );
  }
  const url = toFileUrl(await realPath(file)).href;
  const checks: Check[] = [];
  let className = "";
  for (const lab of cases) {
    signal.throwIfAborted();
    // Of this thread, as one that is ended can remove nothing.
    const answer = await inTemporaryFolder(
      folder,
      (path) =>
        checkInThread(
          { url, caseName: lab.name, folder: path },
          longestCaseMs,
          signal,
        ),
    );
    if (answer.kind === "unusable") {
      throw new PoolModuleError(`Cannot check '${file}': ${answer.message}`);
    }
    className ||= answer.className;
    const { isHeld, seen, side } = answer;
    const check = { lab, isHeld, seen, ...(side ? { side } : {}) };
    checks.push(check);
    yield check;
  }
  return { file, className, checks };
}

async function realPath(file: string): Promise<string> {
  try {
    return await Deno.realPath(file);
  } catch (error) {
    throw new PoolModuleError(`Cannot read '${file}': ${messageOf(error)}`);
  }
}

/** The name of the file that the exercise begins with. */
export const TEMPLATE_FILE = "my_pool.ts";

/** What the exercise begins with. */
export const TEMPLATE = `/**
 * A connection pool, to be written by you.
 *
 * It works already, as long as nothing goes wrong. Find out what can:
 *
 *     deno task lab:check THIS_FILE
 *
 * runs every case of the lab in which something breaks against the class below,
 * and says which guards hold. Add one guard after the other until all do. What
 * each is there for, you see with \`deno task lab NAME_OF_THE_CASE\`.
 *
 * Nothing is imported, and nothing needs to be.
 */

/** A connection to a database. */
export interface Connection {
  /** Runs a statement and gives its rows. */
  query(sql: string): Promise<Record<string, unknown>[]>;
  /**
   * Runs a statement for its effect. While another process has the database
   * locked it fails at once with "database is locked".
   */
  execute(sql: string): Promise<unknown>;
  /** Rejects if the connection does not answer. */
  ping(): Promise<void>;
  /** Closes it. */
  close(): Promise<void>;
  /** Whether a transaction is open on it. */
  readonly inTransaction: boolean;
  /** Whether it was closed, by whomever. */
  readonly isClosed: boolean;
}

/** What your pool is given. */
export interface Options {
  /** The database; each connection to ":memory:" is one of its own. */
  readonly database: string;
  /** The most connections that may be open at once: an integer from 1 on. */
  readonly poolSize: number;
  /** How long acquire may wait for a connection, in milliseconds. */
  readonly acquireTimeoutMs: number;
  /** How long a statement may wait for a lock, in milliseconds. */
  readonly timeoutMs: number;
  /**
   * How often to try to connect before giving up, each time after a longer
   * wait: 20 ms, 40 ms, 80 ms and so on.
   */
  readonly maxAttempts: number;
  /** Opens a connection; rejects while the database cannot be reached. */
  connect(): Promise<Connection>;
}

/** Your pool. */
export class MyPool {
  readonly #options: Options;

  constructor(options: Options) {
    this.#options = options;
  }

  /**
   * Gives a connection as soon as one is free. What it gives need not be what
   * \`connect\` gave: an object of your own with query, execute and close does.
   */
  async acquire(): Promise<Connection> {
    return await this.#options.connect();
  }

  /** Takes a connection back. It may throw when that is wrong. */
  async release(connection: Connection): Promise<void> {
    await connection.close();
  }

  /** How many connections are open, and of these idle and in use. */
  stats(): { open: number; idle: number; inUse: number } {
    return { open: 0, idle: 0, inUse: 0 };
  }

  /** Closes every connection, also those that are in use. */
  async close(): Promise<void> {}
}
`;
