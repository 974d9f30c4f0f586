/**
 * The exercise, done by oneself: a learner's own pool, put through the cases in
 * which something is broken, and held to the rules of every pool.
 *
 * Each test runs in a thread of its own (`lab_worker.ts`), so that an endless
 * loop can be ended and one test leaves nothing to the next.
 *
 * @module
 */

import { toFileUrl } from "@std/path";
import { delay } from "./clock.ts";
import { firstLineOf, messageOf } from "./errors.ts";
import {
  inTemporaryFolder,
  LAB_CASES,
  type LabSide,
  runSide,
  withBench,
} from "./lab.ts";
import type { LabCase } from "./lab_bench.ts";
import {
  type Faults,
  type PoolClass,
  type Probe,
  PROBES,
  type Rule,
  RULES,
  Trial,
} from "./lab_trial.ts";

/** Something that a learner's pool is put to the test of. */
export interface Test {
  /** The name of a case of the lab, or of a rule that holds in all of them. */
  readonly name: string;
  readonly title: string;
  /** What a pool must do. */
  readonly demand: string;
  /** The case, if it is one. */
  readonly lab?: LabCase;
  readonly probes: readonly Probe[];
}

/** What a learner's pool goes through. */
export const TESTS: readonly Test[] = [
  ...LAB_CASES.filter(({ name }) => name.startsWith("break-")).map((lab) => ({
    ...{ name: lab.name, title: lab.title, demand: lab.demand ?? "", lab },
    probes: PROBES[lab.name] ?? [],
  })),
  ...Object.entries(RULES).map(([name, rule]) => ({ name, ...rule })),
];

/** What one test showed of a learner's pool. */
export interface Check {
  readonly test: Test;
  readonly isHeld: boolean;
  /** What was seen, in a sentence. */
  readonly seen: string;
  /** The run of the case; undefined if it came to no end, or it is a rule. */
  readonly side?: LabSide;
}

/** What all tests showed. */
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
  readonly testName: string;
  readonly folder: string;
}

/** What the thread answers. */
export type CheckAnswer =
  | { readonly kind: "loaded"; readonly className: string }
  | { readonly kind: "unusable"; readonly message: string }
  | {
    readonly kind: "checked";
    readonly isHeld: boolean;
    readonly seen: string;
    readonly side?: LabSide;
    readonly faults?: Faults;
    /** Whether it had to be ended. */
    readonly isEndless?: true;
  };

const METHODS = ["acquire", "release", "stats", "close"] as const;

/**
 * The class of a module that has all methods of a pool.
 *
 * @throws {PoolModuleError} if there is none, or more than one.
 */
function poolClassOf(exports: Record<string, unknown>): PoolClass {
  const classes = [...new Set(Object.values(exports))].filter((
    value,
  ): value is PoolClass =>
    typeof value === "function" &&
    /^class\b/.test(Function.prototype.toString.call(value))
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
      : `its class ${nearly.name} has no method ${
        missing(nearly).join(", ")
      }; a field that holds a function is none`,
  );
}

/** Loads the pool of a module; in the thread. */
export async function loadPool(
  url: string,
): Promise<
  { readonly answer: CheckAnswer; readonly Pool?: PoolClass }
> {
  try {
    const Pool = poolClassOf(await import(url));
    return { answer: { kind: "loaded", className: Pool.name }, Pool };
  } catch (error) {
    return { answer: { kind: "unusable", message: whyUnusable(error) } };
  }
}

/** In one line why a module cannot be loaded. */
function whyUnusable(error: unknown): string {
  const message = messageOf(error);
  if (/lockfile|lock file/i.test(message)) {
    return "it imports a package: a pool may import files of its own, and " +
      "what Deno has built in";
  }
  const place = /file:\S*\/(\S+:\d+):\d+/.exec(message)?.[1];
  const line = firstLineOf(error).replace(/\s+at file:.*/, "");
  return place === undefined ? line : `${line} (${place})`;
}

/** Puts a pool to one test; in the thread. */
export async function checkPoolClass(
  Pool: PoolClass,
  { testName, folder }: CheckRequest,
): Promise<CheckAnswer> {
  const test = TESTS.find(({ name }) => name === testName);
  if (test === undefined) throw new Error(`No test ${testName}`);
  const faults: { [rule in Rule]?: string } = {};
  const answer = (
    isHeld: boolean,
    seen: string,
    side?: LabSide,
  ): CheckAnswer => ({
    ...{ kind: "checked", isHeld, seen, faults },
    ...(side === undefined ? {} : { side }),
  });
  /** Runs a step with a pool of its own to watch. */
  const tried = async <T>(step: (trial: Trial) => Promise<T>): Promise<T> => {
    const trial = new Trial(Pool);
    try {
      return await step(trial);
    } finally {
      for (const rule of Object.keys(trial.faults) as Rule[]) {
        faults[rule] ??= trial.faults[rule] ?? "";
      }
    }
  };
  let side: LabSide | undefined;
  try {
    const { lab } = test;
    if (lab !== undefined) {
      side = await tried((trial) =>
        runSide(lab, trial.makePool, true, { folder })
      );
      if (!lab.holds(side.figures)) return answer(false, side.outcome, side);
    }
    for (const probe of test.probes) {
      const fault = await tried((trial) =>
        withBench(
          {},
          trial.makePool,
          true,
          { folder },
          (bench) => probe(bench, trial),
        )
      );
      if (fault !== undefined) return answer(false, fault, side);
    }
    return answer(true, side?.outcome ?? "", side);
  } catch (error) {
    return answer(false, `It threw${placeOf(error)}: ${firstLineOf(error)}`);
  }
}

const LAB_FILES =
  /^(links\/.*|lab|lab_(?!solution)\w+|clock|virtual_clock|sqlite|postgres\w*)\.ts$/;

/** Where in a learner's module something was thrown, if that is known. */
function placeOf(error: unknown): string {
  const lines = error instanceof Error ? error.stack?.split("\n") ?? [] : [];
  const here = import.meta.url.replace(/[^/]*$/, "");
  for (const line of lines) {
    const url = /(file:\S*?):(\d+):\d+/.exec(line);
    const [, path = "", number] = url ?? [];
    // The lab calls the pool, and the pool the lab's connections: neither is to
    // blame.
    const isLab = path.startsWith(here) &&
      LAB_FILES.test(path.slice(here.length));
    if (path !== "" && !isLab) {
      return `, in ${decodeURIComponent(path.replace(/.*\//, ""))}:${number}`;
    }
  }
  return "";
}

/** What a pool comes to that throws where nobody can catch it. */
export function outOfTurn(error: unknown): CheckAnswer {
  return {
    ...{ kind: "checked", isHeld: false },
    seen: `It threw where nobody could catch it${placeOf(error)}: ${
      firstLineOf(error)
    }`,
  };
}

// When so many had to be ended, the rest would be as well, and take a minute.
const MOST_ENDLESS = 2;
// Twice what the slowest test may take that goes well.
const LONGEST_TEST_MS = 8000;
const LONGEST_LOAD_MS = 3000;

/** The answers of a thread, until the last one or its time is over. */
async function checkInThread(
  request: CheckRequest,
  longestMs: number,
  signal: AbortSignal,
): Promise<{ readonly className: string; readonly answer: CheckAnswer }> {
  const { href } = new URL("./lab_worker.ts", import.meta.url);
  const worker = new Worker(href, { type: "module" });
  const enough = new AbortController();
  const within = AbortSignal.any([signal, enough.signal]);
  let className: string | undefined;
  const answered = new Promise<CheckAnswer>((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<CheckAnswer>) => {
      if (data.kind === "loaded") className = data.className;
      else resolve(data);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      resolve(outOfTurn(new Error(event.message)));
    };
    worker.postMessage(request);
  });
  const late = async (): Promise<CheckAnswer> => {
    const loadMs = Math.min(LONGEST_LOAD_MS, longestMs);
    await delay(loadMs, { signal: within });
    if (className === undefined) {
      return {
        kind: "unusable",
        message: `it has not loaded within ${loadMs / 1000} s: something in ` +
          "it waits or loops where it is imported",
      };
    }
    await delay(longestMs - loadMs, { signal: within });
    return {
      ...{ kind: "checked", isHeld: false, isEndless: true },
      seen: `It came to no end within ${longestMs / 1000} s: ` +
        "perhaps a loop, or something that is never answered",
    };
  };
  try {
    const waiting = late();
    waiting.catch(() => {});
    const answer = await Promise.race([answered, waiting]);
    return { className: className ?? "", answer };
  } finally {
    enough.abort();
    worker.terminate();
  }
}

/**
 * Puts the pool of a module to every test, one after the other, and yields what
 * each showed.
 *
 * @throws {PoolModuleError} if the module has no pool in it.
 */
export async function* checkPool(
  file: string,
  {
    folder,
    signal = new AbortController().signal,
    tests = TESTS,
    longestTestMs = LONGEST_TEST_MS,
  }: {
    folder?: string;
    signal?: AbortSignal;
    tests?: readonly Test[];
    longestTestMs?: number;
  } = {},
): AsyncGenerator<Check, CheckReport> {
  if (Deno.build.standalone) {
    throw new PoolModuleError(
      `Cannot check '${file}' from a compiled program: use \`deno task lab:check\``,
    );
  }
  const url = toFileUrl(await realPath(file)).href;
  const checks: Check[] = [];
  const broken = new Map<string, string>();
  let name = "";
  let endless = 0;
  for (const test of tests) {
    signal.throwIfAborted();
    if (endless === MOST_ENDLESS) {
      const seen = `Not tried, as ${MOST_ENDLESS} before it came to no end`;
      const check = { test, isHeld: false, seen };
      checks.push(check);
      yield check;
      continue;
    }
    // Of this thread, as one that is ended can remove nothing.
    const { className, answer } = await inTemporaryFolder(
      folder,
      (path) =>
        checkInThread(
          { url, testName: test.name, folder: path },
          longestTestMs,
          signal,
        ),
    );
    if (answer.kind !== "checked") {
      const why = answer.kind === "unusable" ? answer.message : "no answer";
      throw new PoolModuleError(`Cannot check '${file}': ${why}`);
    }
    name ||= className;
    if (answer.isEndless) endless++;
    for (const [rule, fault] of Object.entries(answer.faults ?? {})) {
      if (broken.has(rule)) continue;
      broken.set(rule, rule === test.name ? fault : `In ${test.name} ${fault}`);
    }
    const { side } = answer;
    // A rule is broken wherever it is broken; it comes last.
    const fault = broken.get(test.name);
    const isHeld = answer.isHeld && fault === undefined;
    const seen = answer.isHeld ? fault ?? answer.seen : answer.seen;
    const check = { test, isHeld, seen, ...(side ? { side } : {}) };
    checks.push(check);
    yield check;
  }
  return { file, className: name, checks };
}

async function realPath(file: string): Promise<string> {
  let path;
  try {
    path = await Deno.realPath(file);
  } catch (error) {
    throw new PoolModuleError(`Cannot read '${file}': ${messageOf(error)}`);
  }
  if ((await Deno.stat(path)).isDirectory) {
    throw new PoolModuleError(
      `Cannot check '${file}' as it is a folder: name the file in it`,
    );
  }
  if (!/\.[mc]?[jt]s$/.test(path)) {
    throw new PoolModuleError(
      `Cannot check '${file}' as its name must end in .ts or .js`,
    );
  }
  return path;
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
 * and says which guards hold. Some hold by chance, as nothing is lent twice yet,
 * and will fail when you begin to keep connections. Add one guard after the
 * other until all do. What each is there for, you see with
 *
 *     deno task lab NAME_OF_THE_CASE
 *
 * Nothing is imported, and nothing needs to be. \`deno check THIS_FILE\` finds
 * mistakes in the types; what you print goes to standard error.
 */

/** A connection as you lend it: your own object, or what connect gave. */
export interface Borrowed {
  /** Runs a statement and gives its rows. */
  query(sql: string): Promise<Record<string, unknown>[]>;
  /** Runs a statement for its effect. */
  execute(sql: string): Promise<unknown>;
  /** Closes it; a borrower may do that. */
  close(): Promise<void>;
}

/** A connection to a database. */
export interface Connection extends Borrowed {
  // While another process has the database locked, query and execute fail at
  // once, with "database is locked".

  /** Rejects if the connection does not answer. */
  ping(): Promise<void>;
  /** Whether a transaction is open on it. */
  readonly inTransaction: boolean;
  /** Whether it was closed. One that was lost does not know; ping finds out. */
  readonly isClosed: boolean;
}

/** What your pool is given. */
export interface Options {
  /** The database; each connection to ":memory:" is one of its own. */
  readonly database: string;
  /**
   * The most connections that may be open at once, those under way included: an
   * integer from 1 on.
   */
  readonly poolSize: number;
  /** How long acquire may take at most, in milliseconds. */
  readonly acquireTimeoutMs: number;
  /** How long a statement may wait for a lock, in milliseconds. */
  readonly timeoutMs: number;
  /**
   * How often to try to connect before giving up, with waits of 20 ms, 40 ms,
   * 80 ms and so on in between.
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

  /** Gives a connection as soon as one is free. */
  async acquire(): Promise<Borrowed> {
    return await this.#options.connect();
  }

  /** Takes a connection back. It may throw for one that is not to be had back. */
  async release(connection: Borrowed): Promise<void> {
    await connection.close();
  }

  /** How many connections are open, and of these idle and in use, right now. */
  stats(): { open: number; idle: number; inUse: number } {
    return { open: 0, idle: 0, inUse: 0 };
  }

  /**
   * Closes every connection, also those in use and those under way. Whoever
   * waits, and whoever comes later, is told at once.
   */
  async close(): Promise<void> {}
}
`;
