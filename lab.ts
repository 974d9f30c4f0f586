/**
 * The lab: each case takes the same steps on a pool without a guard and on the
 * real one, and tells what was seen in words made of what was measured.
 *
 * @module
 */

import { ConnectionConfig } from "./config.ts";
import { firstLineOf, messageOf } from "./errors.ts";
import {
  Bench,
  type Borrowed,
  type CaseValues,
  type Figures,
  type Guard,
  type LabCase,
  type LabEvent,
  type LabPool,
  type LabPoolOptions,
  type MakePool,
  type Opened,
  type SettingName,
} from "./lab_bench.ts";
import { EXERCISE_CASES, FURTHER_CASES } from "./lab_cases.ts";
import { EXPLAIN_CASES } from "./lab_explain.ts";
import { ConnectionPool } from "./pool.ts";
import type { PoolEvents } from "./pool_report.ts";
import { short } from "./terminal.ts";

/**
 * A specimen, to be broken: a pool as one writes it on the first day. A list of
 * what is free, a list of who waits, and trust in everybody. Each thing that is
 * missing here is a case of the lab.
 */
class NaivePool implements LabPool {
  readonly #size: number;
  readonly #connect: () => Promise<Opened>;
  readonly #all: Borrowed[] = [];
  readonly #free: Borrowed[] = [];
  readonly #waiting: ((connection: Borrowed) => void)[] = [];

  constructor({ poolSize, connect }: LabPoolOptions) {
    this.#size = poolSize;
    this.#connect = connect;
  }

  async acquire(): Promise<Borrowed> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#all.length < this.#size) {
      const connection = await this.#connect();
      this.#all.push(connection);
      return connection;
    }
    return await new Promise((resolve) => this.#waiting.push(resolve));
  }

  release(connection: Borrowed): void {
    const next = this.#waiting.shift();
    if (next !== undefined) next(connection);
    else this.#free.push(connection);
  }

  async shrink(target: number): Promise<void> {
    while (this.#all.length > target) await this.#all.pop()?.close();
  }

  stats(): { open: number; idle: number; inUse: number } {
    const open = this.#all.length;
    const idle = this.#free.length;
    return { open, idle, inUse: open - idle };
  }

  async close(): Promise<void> {
    for (const connection of this.#all) await connection.close();
  }
}

const makeNaive: MakePool = (options, { maxOverflow = 0, waitsInSqlite }) =>
  new NaivePool({
    ...options,
    poolSize: options.poolSize + maxOverflow,
    async connect() {
      const connection = await options.connect();
      if (waitsInSqlite) {
        await connection.query(`PRAGMA busy_timeout = ${options.timeoutMs}`);
      }
      return connection;
    },
  });

/** The real pool; a run is over when it is over, and waits for no holder. */
class LabConnectionPool extends ConnectionPool {
  override close(): ReturnType<ConnectionPool["close"]> {
    return super.close({ timeoutMs: 0 });
  }
}

const makeReal: MakePool = (options, request, bench) => {
  const { database, timeoutMs } = options;
  const config = new ConnectionConfig({
    database,
    timeoutMs,
    poolSize: options.poolSize,
    maxOverflow: request.maxOverflow ?? 0,
    acquireTimeoutMs: options.acquireTimeoutMs,
    leakDetectionMs: request.leakDetectionMs ?? 0,
    detectNestedAcquire: request.detectNestedAcquire ?? false,
    ...(request.maxAttempts === undefined ? {} : {
      // Equal jitter waits at least half of what is due, so that a case knows
      // how long it takes.
      retry: {
        ...{ maxAttempts: request.maxAttempts, baseDelayMs: 20 },
        jitter: "equal",
      },
    }),
  });
  const { target } = config;
  const path = target.kind === "sqlite" ? target.path : database;
  return new LabConnectionPool(config, {
    driver: bench.driver(path, timeoutMs),
    clock: bench.clock,
    events: notes(bench),
  });
};

/** What the pool tells of itself that belongs into a time line. */
function notes(bench: Bench): PoolEvents {
  return {
    connectRetry: ({ attempt, delayMs }) =>
      bench.note(
        `pool: connect ${attempt} failed, the next in ${short(delayMs)} ms`,
      ),
    discard: ({ id, reason }) =>
      bench.note(
        `pool: connection ${id} is thrown away: ${firstLineOf(reason)}`,
      ),
    leak: ({ heldMs, stack }) =>
      bench.note(
        `pool: held for ${short(heldMs)} ms by ${
          /at (?:async )?(\w+)/.exec(stack)?.[1] ?? "somebody"
        }`,
      ),
  };
}

/** One of the two runs of a case. */
export interface LabSide {
  /** What happened, in its order. */
  readonly events: readonly LabEvent[];
  /** What came of it, in a sentence. */
  readonly outcome: string;
  /** What was measured. */
  readonly figures: Figures;
}

/** What a case gives; the same as JSON. */
export interface LabResult {
  readonly case: string;
  readonly title: string;
  /** What somebody believes who has not seen the guard. */
  readonly assumption: string;
  readonly without_guard: LabSide;
  readonly with_guard: LabSide;
  /** Why, in sentences that quote the figures. */
  readonly explanation: string;
  /** Where the guard is to be read. */
  readonly guard: Guard;
}

/** A case that was run. */
export interface LabRun {
  readonly lab: LabCase;
  readonly result: LabResult;
  /** Whether it showed a difference: without the guard wrong, with it right. */
  readonly isShown: boolean;
  /** What it was told, with its defaults filled in. */
  readonly settings: CaseValues;
  /** Whether a server was used. */
  readonly usedServer: boolean;
  /** Which of the choices, as they are shown, was right. */
  readonly answer: number;
}

/** How to run a case. */
export interface LabOptions {
  /** What differs from the defaults of the case. */
  readonly settings?: CaseValues;
  /** The URL of a server, for cases that can run on one. */
  readonly server?: string | undefined;
  /** Where a temporary folder may be made. Default: where the system says. */
  readonly folder?: string | undefined;
  /** Ends it; nothing is left behind. */
  readonly signal?: AbortSignal;
}

/** Every case, as they are listed: alter, break, explain. */
export const LAB_CASES: readonly LabCase[] = [
  ...EXERCISE_CASES,
  ...FURTHER_CASES,
  ...EXPLAIN_CASES,
];

/**
 * The choices of a case as they are shown. Whoever wrote the cases tends to put
 * the right one in the same place, so they are turned.
 */
export function choicesOf(lab: LabCase): string[] {
  const turn = LAB_CASES.indexOf(lab) % 3;
  return [...lab.choices.slice(turn), ...lab.choices.slice(0, turn)];
}

/** Runs `use` with a new folder, and removes it afterwards. */
export async function inTemporaryFolder<T>(
  dir: string | undefined,
  use: (path: string) => Promise<T>,
): Promise<T> {
  let path: string;
  try {
    path = await Deno.makeTempDir({
      prefix: "lab_",
      ...(dir === undefined ? {} : { dir }),
    });
  } catch (error) {
    throw new Error(
      `Cannot make a temporary folder${
        dir === undefined ? ", see TMPDIR" : ` in '${dir}'`
      }: ${messageOf(error)}`,
      { cause: error },
    );
  }
  try {
    return await use(path);
  } finally {
    await Deno.remove(path, { recursive: true });
  }
}

/** What a case is told, with its defaults filled in. */
export function settingsOf(
  lab: LabCase,
  given: CaseValues = {},
): CaseValues {
  return { ...standardOf(lab), ...given };
}

function standardOf({ settings = {} }: Partial<LabCase>): CaseValues {
  return Object.fromEntries(
    Object.entries(settings).map(([name, { standard }]) => [name, standard]),
  );
}

/** Calls `use` with a bench for one run, in a folder that is removed. */
export async function withBench<T>(
  lab: Partial<LabCase>,
  makePool: MakePool,
  isGuarded: boolean,
  { settings, server, folder, signal = new AbortController().signal }:
    LabOptions,
  use: (bench: Bench, path: string) => Promise<T>,
): Promise<T> {
  return await inTemporaryFolder(folder, async (path) => {
    await using bench = new Bench({
      folder: path,
      ...(server === undefined ? {} : { server }),
      settings: { ...standardOf(lab), ...settings },
      isVirtual: lab.isVirtual ?? false,
      ...{ isGuarded, makePool, signal },
    });
    signal.throwIfAborted();
    return await use(bench, path);
  });
}

/**
 * Runs the steps of a case once, on pools that `makePool` makes, in a folder of
 * its own that is removed at the end.
 */
export async function runSide(
  lab: LabCase,
  makePool: MakePool,
  isGuarded: boolean,
  options: LabOptions,
): Promise<LabSide> {
  return await withBench(
    lab,
    makePool,
    isGuarded,
    options,
    async (bench, path) => {
      const measured = await lab.run(bench);
      // The name of the folder is chance, and tells nobody anything.
      const plain = (text: string): string => text.replaceAll(`${path}/`, "");
      const figures = Object.fromEntries(
        Object.entries(measured).map(([name, figure]) => [
          name,
          typeof figure === "string" ? plain(figure) : figure,
        ]),
      );
      const events = bench.events
        .map(({ at_ms, event }) => ({ at_ms, event: plain(event) }))
        .toSorted((a, b) => a.at_ms - b.at_ms);
      return { events, outcome: lab.outcome(figures), figures };
    },
  );
}

const WARM_UP_LOANS = 100;

/**
 * Lends the connections of a pool for a while: code that runs for the first time
 * is compiled meanwhile, and what that takes is no cost of the guard.
 */
async function warmUp(
  lab: LabCase,
  makePool: MakePool,
  isGuarded: boolean,
  options: LabOptions,
): Promise<void> {
  await withBench(
    lab,
    makePool,
    isGuarded,
    options,
    async (bench) => {
      await bench.makeTable();
      const pool = bench.pool({ poolSize: 2 });
      for (let i = 0; i < WARM_UP_LOANS; i++) {
        const connection = await pool.acquire();
        await connection.execute("BEGIN");
        await connection.query(`SELECT * FROM ${bench.table}`);
        await connection.execute("COMMIT");
        await pool.release(connection);
      }
    },
  );
}

/** Runs a case without its guard and with it. */
export async function runCase(
  lab: LabCase,
  options: LabOptions = {},
): Promise<LabRun> {
  if (!lab.isVirtual) {
    await warmUp(lab, makeNaive, false, options);
    await warmUp(lab, makeReal, true, options);
  }
  const without = await runSide(lab, makeNaive, false, options);
  const guarded = await runSide(lab, makeReal, true, options);
  const settings = settingsOf(lab, options.settings);
  const measured = {
    without: without.figures,
    with: guarded.figures,
    setting: (name: SettingName): number => settings[name] ?? NaN,
  };
  return {
    lab,
    settings,
    usedServer: options.server !== undefined,
    result: {
      ...{ case: lab.name, title: lab.title, assumption: lab.assumption },
      without_guard: without,
      with_guard: guarded,
      explanation: lab.explain(measured),
      guard: options.server === undefined
        ? lab.guard
        : lab.guardOnServer ?? lab.guard,
    },
    isShown: !lab.holds(without.figures) && lab.holds(guarded.figures),
    answer: choicesOf(lab).indexOf(lab.choices[lab.answer(measured)] ?? ""),
  };
}
