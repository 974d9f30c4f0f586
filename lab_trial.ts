/**
 * What a learner's pool is put through beside the cases of the lab: connections
 * that fail on demand, and rules that hold in every case.
 *
 * @module
 */

import { delay, systemClock } from "./clock.ts";
import { messageOf } from "./errors.ts";
import {
  type Bench,
  type Borrowed,
  type LabPool,
  type LabPoolOptions,
  lend,
  type MakePool,
  type Opened,
  type Watched,
} from "./lab_bench.ts";
import { many } from "./lab_cases.ts";
import { short } from "./terminal.ts";
import { settled } from "./virtual_clock.ts";

/** The class of a learner's pool. */
export type PoolClass = new (options: LabPoolOptions) => LabPool;

/** A rule that holds in every case. */
export type Rule = "limit" | "stats" | "close";

/** How a rule was broken. */
export type Faults = { readonly [rule in Rule]?: string };

/** Gives what is wrong, if anything is. */
export type Probe = (bench: Bench, trial: Trial) => Promise<string | undefined>;

const CLOSE_LIMIT_MS = 1000;
// How long a pool may take to put its numbers right, and others their turn.
const SETTLING_TURNS = 20;

/** A connection to a real database, over a line that can be made to fail. */
class TriedConnection implements Opened {
  readonly #inner: Opened;
  readonly #trial: Trial;
  #isCut = false;
  #isClosing = false;

  constructor(inner: Opened, trial: Trial) {
    this.#inner = inner;
    this.#trial = trial;
  }

  /** From now on it answers nothing, and does not know that it is closed. */
  cut(): void {
    this.#isCut = true;
  }

  get inTransaction(): boolean {
    return this.#inner.inTransaction;
  }

  get isClosed(): boolean {
    return this.#isClosing;
  }

  async query(sql: string): ReturnType<Opened["query"]> {
    await this.#pass(sql);
    return await this.#inner.query(sql);
  }

  async execute(sql: string): Promise<unknown> {
    await this.#pass(sql);
    return await this.#inner.execute(sql);
  }

  async ping(): Promise<void> {
    await this.#pass("");
    await this.#inner.ping();
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await settled();
    if (!this.#inner.isClosed) await this.#inner.close();
  }

  /** No statement is answered at once, as if it were far away. */
  async #pass(sql: string): Promise<void> {
    await settled();
    if (this.#isClosing) throw new Error("The connection is closed");
    if (this.#isCut) throw new Error("The connection was lost");
    if (sql !== "" && this.#trial.isLocked) {
      this.#trial.lockedOut++;
      throw new Error("database is locked");
    }
    if (this.#trial.refuses?.test(sql)) throw new Error(`Refused: ${sql}`);
  }
}

/** One run of a learner's pool, and what is to be watched in it. */
export class Trial {
  /** Whether connects fail. */
  isDown = false;
  /** How long a connect takes, in milliseconds, beside the database's time. */
  connectMs = 0;
  /** Whether statements fail as they do beside a lock. */
  isLocked = false;
  /** Statements that fail. */
  refuses: RegExp | undefined;
  /** How many statements failed beside the lock. */
  lockedOut = 0;
  /** When each connect was tried, in milliseconds of the system's clock. */
  readonly connectsAtMs: number[] = [];
  readonly #Pool: PoolClass;
  readonly #connections: TriedConnection[] = [];
  readonly #faults: { [rule in Rule]?: string } = {};

  /** @param Pool what is tried. */
  constructor(Pool: PoolClass) {
    this.#Pool = Pool;
  }

  /** Which rules were broken so far. */
  get faults(): Faults {
    return this.#faults;
  }

  /** Cuts every connection that there is. */
  cutAll(): void {
    for (const connection of this.#connections) connection.cut();
  }

  /** How many connections are open. */
  get open(): number {
    return this.#connections.filter(({ isClosed }) => !isClosed).length;
  }

  #blame(rule: Rule, fault: string): void {
    this.#faults[rule] ??= fault;
  }

  /** Makes the pool of a run; a bench calls it. */
  readonly makePool: MakePool = (options) => {
    const own: TriedConnection[] = [];
    const limit = options.database === ":memory:" ? 1 : options.poolSize;
    let underWay = 0;
    const open = (): number => own.filter(({ isClosed }) => !isClosed).length;
    const connect = async (): Promise<Opened> => {
      this.connectsAtMs.push(systemClock.now());
      underWay++;
      const count = open() + underWay;
      // Of an impossible size another case tells.
      if (limit >= 1 && count > limit) {
        this.#blame(
          "limit",
          `${
            many(count, "connection")
          } were open or under way at once, with a ` +
            `poolSize of ${options.poolSize}${
              limit === options.poolSize ? "" : `, to '${options.database}'`
            }`,
        );
      }
      try {
        await (this.connectMs > 0 ? delay(this.connectMs) : settled());
        if (this.isDown) throw new Error("unable to open database file");
        const inner = await options.connect();
        const connection = new TriedConnection(inner, this);
        own.push(connection);
        this.#connections.push(connection);
        return connection;
      } finally {
        underWay--;
      }
    };
    return this.#watched(new this.#Pool({ ...options, connect }), open);
  };

  /** The pool, whose numbers are looked at whenever it is at rest. */
  #watched(pool: LabPool, open: () => number): LabPool {
    const loans: Borrowed[] = [];
    let pending = 0;
    let isClosed = false;
    const look = async (): Promise<void> => {
      for (let turns = 0;; turns++) {
        // Who is under way is counted by every pool in its own way.
        if (pending > 0 || isClosed) return;
        const fault = faultOf(pool.stats(), loans.length, open());
        if (fault === undefined) return;
        if (turns === SETTLING_TURNS) return this.#blame("stats", fault);
        await settled();
      }
    };
    const during = async <T>(step: () => Promise<T>): Promise<T> => {
      pending++;
      try {
        return await step();
      } finally {
        pending--;
      }
    };
    return {
      acquire: async () => {
        const connection = await during(async () => await pool.acquire());
        loans.push(connection);
        await look();
        return connection;
      },
      release: async (connection) => {
        const at = loans.indexOf(connection);
        await during(async () => {
          if (at >= 0) loans.splice(at, 1);
          await pool.release(connection);
        });
        await look();
      },
      stats: () => pool.stats(),
      close: async () => {
        isClosed = true;
        const closing = (async () => await pool.close())();
        const enough = new AbortController();
        try {
          await Promise.race([
            closing,
            delay(CLOSE_LIMIT_MS, { signal: enough.signal }).then(() => {
              this.#blame(
                "close",
                `close() came to no end within ${CLOSE_LIMIT_MS} ms`,
              );
            }),
          ]);
        } catch (error) {
          this.#blame("close", `close() failed: ${messageOf(error)}`);
        } finally {
          enough.abort();
        }
        for (let turns = 0; open() > 0 && turns < SETTLING_TURNS; turns++) {
          await settled();
        }
        if (open() > 0) {
          this.#blame(
            "close",
            `close() left ${many(open(), "connection")} open`,
          );
        }
      },
    };
  }
}

/** What is wrong with the numbers of a pool that is at rest, if anything is. */
function faultOf(
  stats: ReturnType<LabPool["stats"]>,
  loans: number,
  alive: number,
): string | undefined {
  const { open, idle, inUse } = stats ?? {};
  for (const [name, value] of Object.entries({ open, idle, inUse })) {
    if (!Number.isInteger(value) || value < 0) {
      return `stats() must count '${name}': current value is ${value}`;
    }
  }
  if (inUse !== loans) {
    return `stats() said ${inUse} in use when ${loans} were lent`;
  }
  if (idle + inUse !== open) {
    return `stats() does not add up: ${idle} idle and ${inUse} in use, but ${open} open`;
  }
  // One that its holder closed may be counted until it is looked at.
  return open < alive
    ? `stats() said ${open} open when there were ${alive}`
    : undefined;
}

const WAIT_MS = 200;
const LONG_MS = 1000;

/** A bench's pool whose connections are tried. */
function poolOf(
  bench: Bench,
  options: Parameters<Bench["pool"]>[0],
): LabPool {
  return bench.pool({
    acquireTimeoutMs: LONG_MS,
    database: bench.file("trial.db"),
    ...options,
  });
}

async function works(connection: Borrowed): Promise<boolean> {
  try {
    await connection.query("SELECT 1");
    return true;
  } catch {
    return false;
  }
}

/** Gives back; a pool may refuse what is not as it was. */
async function giveBack(pool: LabPool, connection: Borrowed): Promise<void> {
  try {
    await pool.release(connection);
  } catch {
    // As the template allows.
  }
}

/** How a promise fared, as a part of a sentence. */
function fared(watched: Watched<unknown>): string {
  return watched.state === "failed"
    ? `failed after ${short(watched.ms)} ms: ${messageOf(watched.error)}`
    : watched.state === "done"
    ? `succeeded after ${short(watched.ms)} ms`
    : `was still waiting after ${short(watched.ms)} ms`;
}

/** What each case is followed by, once its own steps have gone well. */
export const PROBES: Readonly<Record<string, readonly Probe[]>> = {
  "break-pool-size": [
    (bench) => {
      for (const size of [-1, 1.5, NaN]) {
        try {
          poolOf(bench, { poolSize: size });
        } catch {
          continue;
        }
        return Promise.resolve(`A pool of ${size} connections was made`);
      }
      return Promise.resolve(undefined);
    },
  ],
  "break-bad-path": [
    async (bench, trial) => {
      const maxAttempts = 5;
      trial.isDown = true;
      const pool = poolOf(bench, {
        ...{ poolSize: 2, maxAttempts, acquireTimeoutMs: 3 * LONG_MS },
      });
      const got = await bench.watch(() => pool.acquire(), 2 * LONG_MS);
      if (got.state !== "failed") {
        return `While no connect succeeded an acquire ${fared(got)}`;
      }
      const { connectsAtMs: atMs } = trial;
      if (atMs.length !== maxAttempts) {
        return `${atMs.length} connects were tried, with a maxAttempts of ${maxAttempts}`;
      }
      const waits = atMs.slice(1).map((ms, i) => ms - (atMs[i] ?? ms));
      if ((waits.at(-1) ?? 0) < 2 * (waits[0] ?? 0)) {
        return `The waits between the attempts did not grow: ${
          waits.map(short).join(", ")
        } ms`;
      }
      trial.isDown = false;
      const both = await Promise.all(
        [1, 2].map(() => bench.watch(() => pool.acquire())),
      );
      const served = both.filter(({ state }) => state === "done").length;
      return served === 2
        ? undefined
        : `After a connect that failed only ${served} of 2 connections could be had`;
    },
  ],
  "break-closed-connection": [
    async (bench, trial) => {
      const pool = poolOf(bench, { poolSize: 2 });
      const lent = [await pool.acquire(), await pool.acquire()];
      trial.cutAll();
      for (const connection of lent) await giveBack(pool, connection);
      const next = await Promise.all(
        [1, 2].map(() =>
          bench.watch(async () => await works(await pool.acquire()))
        ),
      );
      const good = next.filter((one) => one.state === "done" && one.value);
      return good.length === 2
        ? undefined
        : `Two connections came back that do not answer, though they say that they are open: ${good.length} of the next 2 tasks got one that works`;
    },
    async (bench, trial) => {
      const pool = poolOf(bench, { poolSize: 1 });
      const first = await pool.acquire();
      const waiting = bench.watch(
        async () => await works(await pool.acquire()),
        LONG_MS / 2,
      );
      await settled();
      trial.cutAll();
      await giveBack(pool, first);
      const got = await waiting;
      return got.state === "done" && got.value
        ? undefined
        : `A dead connection came back while a task waited for one, and the task ${
          got.state === "done" ? "was given the dead one" : fared(got)
        }`;
    },
  ],
  "break-open-transaction": [
    async (bench, trial) => {
      const pool = poolOf(bench, { poolSize: 1 });
      const first = await pool.acquire();
      await first.execute("BEGIN");
      trial.refuses = /ROLLBACK/i;
      await giveBack(pool, first);
      trial.refuses = undefined;
      const got = await bench.watch(async () => {
        const next = await pool.acquire();
        await next.execute("BEGIN");
        await next.execute("COMMIT");
      });
      return got.state === "done"
        ? undefined
        : `After a rollback that failed the next task ${fared(got)}`;
    },
  ],
  "break-leak": [
    async (bench) => {
      const pool = poolOf(bench, { poolSize: 1, acquireTimeoutMs: WAIT_MS });
      const held = await pool.acquire();
      const got = await bench.watch(() => pool.acquire(), 3 * WAIT_MS);
      const isInTime = got.ms >= 0.9 * WAIT_MS && got.ms <= 1.8 * WAIT_MS;
      if (got.state !== "failed" || !isInTime) {
        return `With an acquireTimeoutMs of ${WAIT_MS} an acquire ${
          fared(got)
        }`;
      }
      const next = bench.watch(() => pool.acquire(), WAIT_MS);
      await settled();
      await giveBack(pool, held);
      const served = await next;
      return served.state === "done"
        ? undefined
        : `A connection came back after a waiter had given up, and the next acquire ${
          fared(served)
        }`;
    },
  ],
  "break-double-release": [
    async (bench) => {
      const pool = poolOf(bench, { poolSize: 1 });
      const first = await pool.acquire();
      await pool.release(first);
      await pool.acquire();
      return await works(first)
        ? "A borrower could still use what it had given back, and somebody else had by then"
        : undefined;
    },
  ],
  "break-memory-database": [
    async (bench) => {
      const pool = poolOf(bench, { database: ":memory:", poolSize: 3 });
      await lend(pool, (one) => one.execute("CREATE TABLE kept (label TEXT)"));
      // Nobody has it for a while.
      await bench.pass(20);
      const got = await bench.watch(() =>
        lend(pool, (one) => one.query("SELECT * FROM kept"))
      );
      return got.state === "done"
        ? undefined
        : `When nobody had the connection for a while, the next task ${
          fared(got)
        }`;
    },
  ],
  "break-blocking-lock": [
    async (bench, trial) => {
      const pool = poolOf(bench, { poolSize: 1, timeoutMs: WAIT_MS });
      const connection = await pool.acquire();
      const wrong = await bench.watch(() => connection.execute("SELEKT 1"));
      if (wrong.state !== "failed" || wrong.ms > WAIT_MS / 2) {
        return `A statement that is no SQL ${fared(wrong)}`;
      }
      for (const step of ["execute", "query"] as const) {
        trial.isLocked = true;
        const long = await bench.watch(
          () => connection[step]("SELECT 1"),
          3 * WAIT_MS,
        );
        if (trial.lockedOut > WAIT_MS / 2) {
          return `Beside a lock the statement was tried ${trial.lockedOut} times within ${
            short(long.ms)
          } ms, without a wait in between`;
        }
        trial.lockedOut = 0;
        const isInTime = long.ms >= 0.7 * WAIT_MS && long.ms <= 2 * WAIT_MS;
        if (long.state !== "failed" || !isInTime) {
          return `With a timeoutMs of ${WAIT_MS}, beside a lock that stays, ${step}() ${
            fared(long)
          }`;
        }
        const brief = bench.watch(() => connection[step]("SELECT 1"));
        await bench.pass(WAIT_MS / 4);
        trial.isLocked = false;
        const got = await brief;
        if (got.state !== "done") {
          return `When the lock was free after ${WAIT_MS / 4} ms, ${step}() ${
            fared(got)
          }`;
        }
      }
      return undefined;
    },
  ],
};

/** What is demanded of every pool, and tried on its own. */
export const RULES: Readonly<
  Record<
    Rule | "order",
    {
      readonly title: string;
      readonly demand: string;
      readonly probes: readonly Probe[];
    }
  >
> = {
  limit: {
    title: "Never more connections than poolSize",
    demand: "Count the connects under way as well, before anything is awaited.",
    probes: [
      async (bench, trial) => {
        trial.connectMs = 5;
        const pool = poolOf(bench, { poolSize: 2 });
        const tasks = Array.from(
          { length: 6 },
          () =>
            bench.watch(() =>
              lend(pool, async (connection) => {
                await connection.query("SELECT 1");
                await bench.pass(5);
              })
            ),
        );
        const ends = await Promise.all(tasks);
        const served = ends.filter(({ state }) => state === "done").length;
        return served === ends.length
          ? undefined
          : `${served} of ${ends.length} tasks that came at once were served, with a poolSize of 2`;
      },
    ],
  },
  stats: {
    title: "Numbers that are true",
    demand:
      "Let stats() count what is open, and of that what is idle and what is lent.",
    probes: [
      async (bench) => {
        const pool = poolOf(bench, { poolSize: 2 });
        const [one, two] = [await pool.acquire(), await pool.acquire()];
        await pool.release(one);
        await pool.release(two);
        return undefined;
      },
    ],
  },
  order: {
    title: "Who came first is served first",
    demand: "Let those who wait be served in the order in which they came.",
    probes: [
      async (bench) => {
        const pool = poolOf(bench, { poolSize: 1 });
        const first = await pool.acquire();
        const order: number[] = [];
        const waiting = [1, 2, 3].map((n) =>
          bench.watch(() => lend(pool, () => Promise.resolve(order.push(n))))
        );
        await settled();
        await pool.release(first);
        await Promise.all(waiting);
        return order.join() === "1,2,3"
          ? undefined
          : `Three waited, and were served in the order ${order.join(", ")}`;
      },
    ],
  },
  close: {
    title: "An end that leaves nothing",
    demand:
      "Let close() close every connection, also one that is lent or still opening; let who waits, and who comes later, fail at once.",
    probes: [
      async (bench) => {
        const pool = poolOf(bench, { poolSize: 1 });
        await pool.acquire();
        const waiting = bench.watch(() => pool.acquire());
        await settled();
        await pool.close();
        const waited = await waiting;
        if (waited.state !== "failed") {
          return `Who waited when the pool was closed ${fared(waited)}`;
        }
        const late = await bench.watch(() => pool.acquire());
        return late.state === "failed" && late.ms < WAIT_MS
          ? undefined
          : `Who came after the pool was closed ${fared(late)}`;
      },
      async (bench, trial) => {
        trial.connectMs = 30;
        const pool = poolOf(bench, { poolSize: 1 });
        bench.beside(pool.acquire());
        await settled();
        await pool.close();
        await bench.pass(3 * trial.connectMs);
        return trial.open === 0
          ? undefined
          : "A connection that was opening when the pool was closed stayed open";
      },
    ],
  },
};
