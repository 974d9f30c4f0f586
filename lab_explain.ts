/**
 * The cases of the lab that answer a question by experiment: why `using`, why a
 * pool, why backoff, and how many connections.
 *
 * @module
 */

import type { Connection } from "./driver.ts";
import { AcquireTimeoutError } from "./errors.ts";
import type { Bench, LabCase } from "./lab_bench.ts";
import { count, define, many, time } from "./lab_cases.ts";
import { ConnectionPool } from "./pool.ts";
import { seededRandom } from "./random.ts";
import { type PolicyResult, retrySteps } from "./retry_models.ts";
import { readScenario } from "./scenario.ts";
import { simulation } from "./simulate.ts";
import { percent, short } from "./terminal.ts";

const REQUEST_EVERY_MS = 100;
const WORK_MS = 20;
const SHIFT_MS = 60_000;

const explainContextManagers = define({
  name: "explain-context-managers",
  title: "Why `using`? What a leak comes to",
  assumption: "A release at the end of the task gives the connection back.",
  question:
    "A request comes every 100 ms, and one in ten throws in its midst. " +
    "The pool has 5 connections and 10 more. What is left of it after a minute?",
  choices: [
    "It is slower, by one request in ten",
    "Nothing: no request is served any more",
    "Those that threw have failed, and nobody else",
  ],
  settings: {
    errorRate: { standard: 0.1, least: 0, most: 1, isWhole: false },
    poolSize: count(5, 1, 1000),
    seed: count(1, 0, 4_294_967_295),
  },
  isVirtual: true,
  columns: ["acquire and release", "using"],
  guard: {
    file: "pooled_connection.ts",
    symbol: "PooledConnection[Symbol.dispose]",
  },
  experiment: {
    flag: "--pool-size 50",
    look: "when the pool is exhausted: later, and all the same",
  },
  async run(bench: Bench) {
    const { clock } = bench;
    const errorRate = bench.setting("errorRate");
    const poolSize = bench.setting("poolSize");
    const random = seededRandom(bench.setting("seed"));
    const pool = new ConnectionPool({ database: bench.database, poolSize }, {
      clock,
      driver: bench.driver(bench.database, 5000),
    });
    const limit = poolSize + pool.config.maxOverflow;
    let served = 0;
    let threw = 0;
    let refused = 0;
    let exhaustedMs: number | null = null;
    let firstRefusalMs: number | null = null;
    const work = async (connection: {
      query(sql: string): Promise<unknown>;
    }, throws: boolean): Promise<void> => {
      await connection.query("SELECT 1");
      await new Promise<void>((resolve) => clock.setTimer(resolve, WORK_MS));
      if (throws) throw new Error("a bug in the task");
    };
    const byHand = async (throws: boolean): Promise<void> => {
      const connection = await pool.acquire();
      await work(connection, throws);
      connection.release();
    };
    const withUsing = async (throws: boolean): Promise<void> => {
      using connection = await pool.acquire();
      await work(connection, throws);
    };
    const task = bench.isGuarded ? withUsing : byHand;
    const serve = async (throws: boolean): Promise<void> => {
      try {
        await task(throws);
        served++;
      } catch (error) {
        if (error instanceof AcquireTimeoutError) {
          refused++;
          if (firstRefusalMs === null) {
            firstRefusalMs = bench.now();
            bench.note("the first request gives up after 30 s in the queue");
          }
          return;
        }
        // The pool closes under those who wait when the minute is over.
        if (bench.now() >= SHIFT_MS) return;
        threw++;
        if (threw === 1) bench.note("the first request throws in its midst");
        const { inUse } = pool.stats();
        if (inUse === limit && exhaustedMs === null && !bench.isGuarded) {
          exhaustedMs = bench.now();
          bench.note(
            `${many(limit, "connection")} lost: the pool is exhausted`,
          );
        }
      }
    };
    bench.begin();
    bench.note("a request comes every 100 ms");
    const requests = SHIFT_MS / REQUEST_EVERY_MS;
    const all: Promise<void>[] = [];
    for (let i = 0; i < requests; i++) {
      all.push(serve(random() < errorRate));
      await bench.pass(REQUEST_EVERY_MS);
    }
    const { inUse, open, waiting } = pool.stats();
    bench.note(`a minute is over: ${inUse} in use, ${waiting} waiting`);
    const closing = pool.close({ timeoutMs: 0 });
    await bench.pass(0);
    await closing;
    await Promise.all(all);
    return {
      ...{ requests, served, threw_by_themselves: threw },
      ...{ refused_after_30_s: refused, still_waiting: waiting },
      ...{ connections_lost: inUse, connections_open: open, limit },
      exhausted_after_ms: exhaustedMs as number | null,
    };
  },
  holds: ({ connections_lost, refused_after_30_s, still_waiting }) =>
    connections_lost + refused_after_30_s + still_waiting === 0,
  outcome: (figures) =>
    `${figures.served} of ${figures.requests} requests served, ${figures.threw_by_themselves} threw, ${
      figures.refused_after_30_s + figures.still_waiting
    } starved`,
  answer: ({ without: { exhausted_after_ms, connections_lost } }) =>
    exhausted_after_ms !== null ? 1 : connections_lost > 0 ? 0 : 2,
  explain: ({ without, with: kept }) =>
    `A release that stands after the work is not reached by a task that throws. ${
      without.exhausted_after_ms === null
        ? `${without.connections_lost} of ${without.limit} connections were lost within the minute`
        : `All ${without.limit} connections were gone after ${
          short(without.exhausted_after_ms / 1000)
        } s; from then on ${
          without.refused_after_30_s + without.still_waiting
        } requests waited in vain, in code without a bug, and each error came 30 s late`
    }. With using, ${kept.threw_by_themselves} requests threw as well, and ${kept.connections_lost} connections were lost; ${
      many(kept.connections_open, "connection")
    } served everybody. The block ends, and so does the loan, whatever ends the block.`,
});

const ROUNDS = 5;
// Queries between which an interruption is heard.
const CHUNK = 200;

const explainPooling = define({
  name: "explain-pooling",
  title: "Pooled, or a connection for each query?",
  assumption: "To open a connection costs little, for SQLite at any rate.",
  question:
    "A row is read by its id, again and again: on a connection of its " +
    "own each time, and through the pool. How many times as fast is the pool?",
  choices: [
    "At most twice",
    "Twice to ten times",
    "More than ten times",
  ],
  settings: { queries: count(1000, ROUNDS, 100_000) },
  onServer: true,
  columns: ["a connection for each query", "pooled"],
  guard: { file: "pool_core.ts", symbol: "PoolCore.take" },
  experiment: {
    flag: "--db postgres://me@localhost/shop",
    look: "the same on a server, where a connection is a process over there",
  },
  async run(bench: Bench) {
    const queries = bench.setting("queries");
    const sqlite = await timeQueries(bench, bench.file("lab.db"), queries);
    if (bench.server === undefined) {
      return { ...sqlite, server_us_per_query: null as number | null };
    }
    // A server takes milliseconds where SQLite takes microseconds.
    const server = await timeQueries(
      bench,
      bench.server,
      Math.max(ROUNDS, queries / 20),
    );
    return { ...sqlite, server_us_per_query: server.sqlite_us_per_query };
  },
  holds: ({ connections_opened }) => connections_opened <= 1,
  outcome: ({ sqlite_us_per_query, server_us_per_query, ...figures }) =>
    `${short(sqlite_us_per_query)} µs for each query (${
      short(figures.fastest_round_us)
    } to ${short(figures.slowest_round_us)}), ${
      many(figures.connections_opened, "connection")
    }${
      server_us_per_query === null
        ? ""
        : `; on the server ${short(server_us_per_query)} µs`
    }`,
  answer: ({ without, with: kept }) => {
    const times = without.sqlite_us_per_query / kept.sqlite_us_per_query;
    return times <= 2 ? 0 : times <= 10 ? 1 : 2;
  },
  explain: ({ without, with: kept }) =>
    `On a SQLite file, where opening is as cheap as it gets, a query took ${
      short(without.sqlite_us_per_query)
    } µs on a connection of its own and ${
      short(kept.sqlite_us_per_query)
    } µs through the pool, with the acquire, the release and the ping that it makes: ${
      short(without.sqlite_us_per_query / kept.sqlite_us_per_query)
    } times as fast. ${
      without.server_us_per_query === null || kept.server_us_per_query === null
        ? "No server was at hand; --db names one."
        : `On the server it took ${short(without.server_us_per_query)} µs and ${
          short(kept.server_us_per_query)
        } µs: ${
          short(without.server_us_per_query / kept.server_us_per_query)
        } times as fast.`
    } A pool also bounds how many connections there are: without one, a burst of ${
      without.connections_opened.toLocaleString("en")
    } requests is as many connections.`,
});

async function timeQueries(bench: Bench, database: string, queries: number) {
  const isServer = database === bench.server;
  const perRound = Math.max(1, Math.floor(queries / ROUNDS));
  const sql = isServer
    ? "SELECT 1 AS label"
    : "SELECT label FROM events WHERE id = 7";
  const driver = bench.driver(database, 5000);
  const open = (): Promise<Connection> =>
    new Promise((resolve, reject) =>
      driver.connect((error, connection) => {
        if (connection === undefined) reject(error);
        else resolve(connection);
      }, () => {})
    );
  const close = (connection: Connection): Promise<void> =>
    new Promise((resolve) => connection.close(() => resolve()));
  // As in a program at work, somebody else has the file open too: the last to
  // close it would have to tidy up, each time.
  const companion = await open();
  if (!isServer) {
    await companion.execute(
      "CREATE TABLE events (id INTEGER PRIMARY KEY, label)",
    );
    await companion.execute(
      "INSERT INTO events (label) VALUES ('a'), ('b'), ('c'), ('d'), ('e'), ('f'), ('g')",
    );
  }
  const pool = new ConnectionPool({ database }, { driver });
  const once = bench.isGuarded
    ? () => pool.use((connection) => connection.query(sql))
    : async () => {
      const connection = await open();
      await connection.query(sql);
      await close(connection);
    };
  // What is run often is compiled first, and should be.
  for (let i = 0; i < Math.min(perRound, 50); i++) await once();
  await pool.close();
  await using measured = new ConnectionPool({ database }, { driver });
  const timed = bench.isGuarded
    ? () => measured.use((connection) => connection.query(sql))
    : once;
  bench.begin();
  const rounds: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    let ms = 0;
    for (let left = perRound; left > 0; left -= CHUNK) {
      const startMs = bench.now();
      for (let k = Math.min(left, CHUNK); k > 0; k--) await timed();
      ms += bench.now() - startMs;
      await bench.breathe();
    }
    const us = ms * 1000 / perRound;
    rounds.push(us);
    bench.note(
      `${perRound.toLocaleString("en")} queries${
        isServer ? " on the server" : ""
      }: ${short(us)} µs each`,
    );
  }
  const opened = bench.connected;
  await close(companion);
  rounds.sort((a, b) => a - b);
  return {
    queries: perRound * ROUNDS,
    connections_opened: opened,
    sqlite_us_per_query: rounds[Math.floor(ROUNDS / 2)] ?? NaN,
    fastest_round_us: rounds[0] ?? NaN,
    slowest_round_us: rounds.at(-1) ?? NaN,
  };
}

const OUTAGE_MS = 30_000;

type BackoffFigures = {
  readonly clients: number;
  readonly attempts_of_each_while_down: number | null;
  readonly peak_per_100ms: number;
  readonly drained_after_ms: number | null;
  readonly attempts_per_100_ms: readonly number[];
  readonly overload_recovered_after_ms: number | null;
  readonly exponent_alone_attempts_of_each_while_down?: number | null;
  readonly exponent_alone_peak_per_100ms?: number;
  readonly exponent_alone_drained_after_ms?: number | null;
  readonly exponent_alone_attempts_per_100_ms?: readonly number[];
  readonly no_budget_overload_recovered_after_ms?: number | null;
};

const explainBackoff = define<BackoffFigures>({
  name: "explain-backoff",
  title: "Why exponential backoff, why jitter, why a budget?",
  assumption: "To try again after a fixed delay is enough.",
  question:
    "A database is down for 30 s, and 1000 clients try again until it " +
    "is back. What does exponential backoff alone, without jitter, change?",
  choices: [
    "It spreads the clients, so that they do not come all at once",
    "It makes for fewer attempts, but they still come all at once",
    "Both",
  ],
  settings: { clients: count(1000, 2, 5000), seed: count(1, 0, 4_294_967_295) },
  columns: ["a fixed delay", "jitter and budget"],
  guard: { file: "retry.ts", symbol: "backoffDelayMs" },
  experiment: {
    flag: "--clients 20",
    look: "the drain: a crowd that fits through the door needs no jitter",
  },
  async run(bench: Bench): Promise<BackoffFigures> {
    const clients = bench.setting("clients");
    const seed = bench.setting("seed");
    const storm = async (policy: string): Promise<PolicyResult> => {
      const { policies } = await bench.take(retrySteps({
        ...{ model: "reconnect", policies: [policy], clients, seed },
        replications: 1,
      }));
      return first(policies);
    };
    const { policies: overload } = await bench.take(retrySteps({
      model: "overload",
      policies: [bench.isGuarded ? "full" : "fixed:1s"],
      ...{ replications: 1, seed },
    }));
    // One row with the retries alone, one with them and a budget.
    const recovery = overload.find(({ policy }) =>
      bench.isGuarded ? policy.includes("budget") : policy === "fixed:1s"
    );
    const unbudgeted = overload.find(({ policy }) => policy === "full");
    const main = await storm(bench.isGuarded ? "full:100ms..5s" : "fixed:1s");
    const line = main.attempts_per_100ms;
    bench.note("all clients lose their connection", 0);
    bench.note(`${line[0]} attempts in the first 100 ms`, 100);
    bench.note("the database is back", OUTAGE_MS);
    bench.note(
      `at most ${main.peak_per_100ms} attempts in any 100 ms from here on`,
      OUTAGE_MS,
    );
    if (main.drain_ms !== null) {
      bench.note("all are connected again", OUTAGE_MS + main.drain_ms);
    }
    const common = {
      clients,
      attempts_of_each_while_down: main.attempts_while_down_per_client,
      peak_per_100ms: main.peak_per_100ms,
      drained_after_ms: main.drain_ms,
      attempts_per_100_ms: line,
      overload_recovered_after_ms: recovery?.drain_ms ?? null,
    };
    if (!bench.isGuarded) return common;
    const exponent = await storm("exp:100ms..5s");
    return {
      ...common,
      exponent_alone_attempts_of_each_while_down:
        exponent.attempts_while_down_per_client,
      exponent_alone_peak_per_100ms: exponent.peak_per_100ms,
      exponent_alone_drained_after_ms: exponent.drain_ms,
      exponent_alone_attempts_per_100_ms: exponent.attempts_per_100ms,
      no_budget_overload_recovered_after_ms: unbudgeted?.drain_ms ?? null,
    };
  },
  holds: ({ peak_per_100ms, overload_recovered_after_ms, clients }) =>
    peak_per_100ms < clients / 4 && overload_recovered_after_ms !== null,
  outcome: (figures) =>
    `Up to ${figures.peak_per_100ms} attempts in 100 ms once it is back; drained ${
      after(figures.drained_after_ms)
    }; an overload that retries feed ${
      figures.overload_recovered_after_ms === null
        ? "never ends"
        : `ends ${after(figures.overload_recovered_after_ms)}`
    }`,
  answer: ({ without, with: kept }) => {
    const spreads = (kept.exponent_alone_peak_per_100ms ?? 0) <
      without.peak_per_100ms / 2;
    const saves = (kept.exponent_alone_attempts_of_each_while_down ?? 0) <
      (without.attempts_of_each_while_down ?? 0);
    return spreads ? saves ? 2 : 0 : 1;
  },
  explain: ({ without, with: kept }) =>
    `A fixed delay of 1 s cost each client ${
      short(without.attempts_of_each_while_down)
    } attempts while the database was down, and all came back together: ${without.peak_per_100ms} in 100 ms, drained ${
      after(without.drained_after_ms)
    }. The exponent (100 ms to 5 s) bounds the traffic, ${
      short(kept.exponent_alone_attempts_of_each_while_down)
    } attempts, and does not break up the crowd: ${kept.exponent_alone_peak_per_100ms} in 100 ms, drained ${
      after(kept.exponent_alone_drained_after_ms)
    }. Full jitter breaks up the crowd, ${kept.peak_per_100ms} in 100 ms, drained ${
      after(kept.drained_after_ms)
    }, and does not bound the load that retries add: in an overload that outlives its cause full jitter alone ${
      recovered(kept.no_budget_overload_recovered_after_ms)
    }. With a budget of one retry for ten successes it ${
      recovered(kept.overload_recovered_after_ms)
    }. What a budget does not do is serve those whom it turns away.`,
});

function after(ms: number | null = null): string {
  return ms === null ? "never" : `after ${short(ms / 1000)} s`;
}

function recovered(ms: number | null = null): string {
  return ms === null ? "never recovered" : `recovered ${after(ms)}`;
}

function first<T>(list: readonly T[]): T {
  const [one] = list;
  if (one === undefined) throw new Error("The experiment gave nothing");
  return one;
}

const BURST_AT_S = 3;
const RUN_S = 8;
const TOO_SMALL = 8;
const SWEET = 44;
const TOO_LARGE = 200;

type SizingFigures = {
  readonly pool_size: number;
  readonly served_per_s: number;
  readonly part_not_served: number;
  readonly mean_latency_ms: number;
  readonly p99_latency_ms: number;
  readonly waiting_at_the_end: number;
  readonly mean_waiting_in_each_100_ms: readonly number[];
  readonly too_small_part_not_served?: number;
  readonly too_small_mean_wait_ms?: number;
};

const explainSizing = define<SizingFigures>({
  name: "explain-sizing",
  title: "How many connections? Too few, too many, enough",
  assumption: "More connections do more at once, so a large pool is safe.",
  question: "A database does most with some 44 busy connections, and 12,500 " +
    "requests come each second. After three seconds 2,000 come at once. What " +
    "becomes of the burst in a pool of 200?",
  choices: [
    "It is served sooner than in a pool of 44",
    "As in a pool of 44, more connections being idle",
    "It never drains",
  ],
  settings: {
    burst: count(2000, 0, 20_000),
    acquireTimeoutMs: time(1000),
    seed: count(1, 0, 4_294_967_295),
  },
  columns: [`pool of ${TOO_LARGE}`, `pool of ${SWEET}`],
  guard: { file: "pool_core.ts", symbol: "PoolCore.limit" },
  experiment: {
    flag: "--burst 0",
    look: "the pool of 200: at a steady load nobody sees that it is too large",
  },
  async run(bench: Bench): Promise<SizingFigures> {
    const burst = bench.setting("burst");
    const size = bench.isGuarded ? SWEET : TOO_LARGE;
    const others = bench.isGuarded ? [16, 32, 64, 100] : [TOO_SMALL];
    const sizes = [size, ...others];
    const { points } = await bench.take(simulation(readScenario({
      arrivals: [
        "poisson:12500/s",
        ...(burst > 0 ? [`burst:${burst}@${BURST_AT_S}s`] : []),
      ],
      usl: "1000,0.02,0.0005",
      poolSize: sizes.join(","),
      acquireTimeout: `${bench.setting("acquireTimeoutMs")}ms`,
      // Kept warm, lest opening them be mistaken for what this is about.
      minIdle: `${Math.min(size, TOO_SMALL)}`,
      maxConnecting: "50",
      duration: `${RUN_S}s`,
      ...{ warmup: "1s", replications: "1", seed: `${bench.setting("seed")}` },
    })));
    const point = first(points);
    const { waiting, interval_ms } = point.time_line;
    const at = (i: number): number => i * interval_ms;
    bench.note("12,500 requests a second", 0);
    const most = Math.max(...waiting);
    const peakAt = waiting.indexOf(most);
    if (burst > 0) {
      bench.note(
        `${burst.toLocaleString("en")} come at once`,
        BURST_AT_S * 1000,
      );
    }
    bench.note(`${short(most)} wait, the most`, at(peakAt));
    const calmAt = waiting.findIndex((n, i) => i > peakAt && n < 10);
    if (calmAt >= 0 && at(calmAt) < RUN_S * 1000) {
      bench.note("fewer than 10 wait again", at(calmAt));
    }
    // Requests stop coming then, and even what is too slow drains at last.
    const last = waiting[Math.floor(RUN_S * 1000 / interval_ms) - 1] ?? 0;
    bench.note(`the run ends; ${short(last)} wait`, RUN_S * 1000);
    const p99s = Object.fromEntries(
      points.slice(1).map(({ pool_size, latency_ms }) => [
        `p99_ms_of_pool_${pool_size}`,
        latency_ms.p99,
      ]),
    );
    const small = points.find(({ pool_size }) => pool_size === TOO_SMALL);
    return {
      pool_size: size,
      served_per_s: point.throughput_per_s,
      part_not_served: (point.offered - point.served) / point.offered,
      mean_latency_ms: point.latency_ms.mean,
      p99_latency_ms: point.latency_ms.p99,
      waiting_at_the_end: last,
      mean_waiting_in_each_100_ms: waiting,
      ...p99s,
      ...(small === undefined ? {} : {
        too_small_part_not_served: (small.offered - small.served) /
          small.offered,
        too_small_mean_wait_ms: small.wait_ms.mean,
      }),
    };
  },
  holds: ({ part_not_served, waiting_at_the_end }) =>
    part_not_served < 0.01 && waiting_at_the_end < 100,
  outcome: (figures) =>
    `${
      Math.round(figures.served_per_s).toLocaleString("en")
    } served a second, ${percent(figures.part_not_served)} not served, p99 ${
      short(figures.p99_latency_ms)
    } ms, ${short(figures.waiting_at_the_end)} waiting at the end`,
  answer: ({ without, with: kept }) =>
    without.waiting_at_the_end >= 100
      ? 2
      : without.p99_latency_ms < kept.p99_latency_ms * 0.9
      ? 0
      : 1,
  explain: ({ without, with: kept }) =>
    `Too small, ${TOO_SMALL} connections: ${
      percent(without.too_small_part_not_served ?? NaN)
    } of the requests were not served in time, and those that were waited ${
      short(without.too_small_mean_wait_ms)
    } ms on average, while the database had more to give. Enough, ${kept.pool_size}: ${
      Math.round(kept.served_per_s).toLocaleString("en")
    } served a second, p99 ${
      short(kept.p99_latency_ms)
    } ms. Too large, ${without.pool_size}: ` +
    (without.waiting_at_the_end >= 100
      ? `the burst filled all of them, and busy at once they slow one another down, below what comes in. So the queue never drained: ${
        short(without.waiting_at_the_end)
      } waited at the end, and ${
        percent(without.part_not_served)
      } was not served.`
      : `${
        percent(without.part_not_served)
      } was not served, and nothing shows that it is too large, as so few of them are busy; a burst would.`),
});

/** The four questions, in the order of the exercise. */
export const EXPLAIN_CASES: readonly LabCase[] = [
  ...[explainContextManagers, explainPooling, explainBackoff, explainSizing],
];
