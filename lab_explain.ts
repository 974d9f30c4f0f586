/**
 * The cases of the lab that answer a question by experiment: why `using`, why a
 * pool, why backoff, and how many connections.
 *
 * @module
 */

import type { Connection } from "./driver.ts";
import { AcquireTimeoutError } from "./errors.ts";
import type { Bench, LabCase, Series } from "./lab_bench.ts";
import { count, define, many, time } from "./lab_cases.ts";
import { ConnectionPool } from "./pool.ts";
import { seededRandom } from "./random.ts";
import { type PolicyResult, retrySteps } from "./retry_models.ts";
import { readScenario } from "./scenario.ts";
import { type PointResult, simulation } from "./simulate.ts";
import { percent, short } from "./terminal.ts";

const REQUEST_EVERY_MS = 100;
const WORK_MS = 20;
const SHIFT_MS = 60_000;

const explainContextManagers = define({
  name: "explain-context-managers",
  title: "Why `using`? What a leak comes to",
  assumption: "A release at the end of the task gives the connection back.",
  question:
    "A request comes every 100 ms, and {errorRate} of them throw in their " +
    "midst. The pool has {poolSize} connections and 10 more. What is left of " +
    "it after a minute?",
  choices: [
    "Fewer connections, and still it serves all others",
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
  // With connections to spare a leak is there, and not felt yet.
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
        } requests waited in vain, in code without a bug: ${without.refused_after_30_s} were told so, after 30 s, and ${without.still_waiting} still waited at the end`
    }. With using, ${kept.threw_by_themselves} requests threw as well, and ${kept.connections_lost} connections were lost; ${
      many(kept.connections_open, "connection")
    } served everybody. The block ends, and so does the loan, whatever ends the block.`,
});

const ROUNDS = 5;
const WARM_UP_MS = 50;
// Queries between which an interruption is heard.
const CHUNK = 200;

const explainPooling = define({
  name: "explain-pooling",
  title: "Pooled, or a connection for each query?",
  assumption: "To open a connection costs little, for SQLite at any rate.",
  question:
    "A row is read, again and again: on a connection of its own each time, " +
    "and through the pool. How many times as fast is the pool?",
  choices: [
    "At most twice",
    "Twice to ten times",
    "More than ten times",
  ],
  settings: { queries: count(1000, ROUNDS, 10_000) },
  onServer: true,
  columns: ["a connection for each query", "pooled"],
  guard: { file: "pool_core.ts", symbol: "PoolCore.take" },
  experiment: {
    flag: "--queries 5000",
    look:
      "how far the rounds are apart; or, with --db and a postgres:// URL, " +
      "at a server, where a connection is a process",
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
    } ${many(without.queries, "query", "queries")} opened ${
      many(without.connections_opened, "connection")
    } without a pool, and ${kept.connections_opened} with it.`,
});

async function timeQueries(bench: Bench, database: string, queries: number) {
  const isServer = database === bench.server;
  const perRound = Math.max(1, Math.floor(queries / ROUNDS));
  const sql = `SELECT label FROM ${bench.table} WHERE label = 'user_login'`;
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
  await using atTheEnd = new AsyncDisposableStack();
  atTheEnd.defer(() => close(companion));
  if (isServer) await bench.makeTable();
  else await companion.execute(`CREATE TABLE ${bench.table} (label TEXT)`);
  await companion.execute(
    `INSERT INTO ${bench.table} VALUES ('user_login'), ('user_logout')`,
  );
  await using pool = new ConnectionPool({ database }, { driver });
  const once = bench.isGuarded
    ? () => pool.use((connection) => connection.query(sql))
    : async () => {
      const connection = await open();
      await connection.query(sql);
      await close(connection);
    };
  // What is run often is compiled at last, and should be before it is measured.
  const warmUntilMs = bench.now() + WARM_UP_MS;
  do await once(); while (bench.now() < warmUntilMs);
  await pool.close();
  await using measured = new ConnectionPool({ database }, { driver });
  const timed = bench.isGuarded
    ? () => measured.use((connection) => connection.query(sql))
    : once;
  // The second database goes on where the first has ended.
  if (bench.events.length === 0) bench.begin();
  const connectedBefore = bench.connected;
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
  const opened = bench.connected - connectedBefore;
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

type PolicyRow = {
  readonly policy: string;
  readonly attempts_while_down?: number | null;
  readonly most_per_100_ms_after_it?: number;
  readonly drained_after_ms?: number | null;
  readonly overload_ends_after_ms: number | null;
  readonly attempts_per_100_ms?: Series;
  readonly overload_attempts_per_100_ms?: Series;
};

type BackoffFigures = {
  readonly clients: number;
  readonly attempts_in_the_first_100_ms: number;
  readonly most_per_100_ms_after_it: number;
  readonly drained_after_ms: number | null;
  readonly overload_ends_after_ms: number | null;
  readonly policies: readonly PolicyRow[];
};

const FIXED = "fixed:1s";
const EXPONENTIAL = "exp:100ms..5s";
const JITTERED = "full:100ms..5s";

const explainBackoff = define<BackoffFigures>({
  name: "explain-backoff",
  title: "Why exponential backoff, why jitter, why a budget?",
  assumption: "To try again after a fixed delay is enough.",
  question:
    "A database is down for 30 s, and {clients} clients try again until it " +
    "is back. What does exponential backoff alone, without jitter, change?",
  choices: [
    "It spreads the clients, so that they do not come all at once",
    "It makes for fewer attempts, but they still come all at once",
    "Both",
  ],
  settings: { clients: count(1000, 2, 5000), seed: count(1, 0, 4_294_967_295) },
  columns: ["a fixed delay", "exponent, jitter, budget"],
  guard: { file: "retry.ts", symbol: "backoffDelayMs" },
  experiment: {
    flag: "--clients 20",
    look: "the drain: a crowd that fits through the door needs no jitter",
  },
  async run(bench: Bench): Promise<BackoffFigures> {
    const clients = bench.setting("clients");
    const seed = bench.setting("seed");
    const names = bench.isGuarded ? [JITTERED] : [FIXED, EXPONENTIAL];
    const experiment = { policies: names, replications: 1, seed };
    const { policies: storms } = await bench.take(
      retrySteps({ ...experiment, model: "reconnect", clients }),
    );
    const { policies: overloads } = await bench.take(
      retrySteps({ ...experiment, model: "overload" }),
    );
    const rowOf = (storm: PolicyResult): PolicyRow => ({
      policy: TITLES[storm.policy] ?? storm.policy,
      attempts_while_down: storm.attempts_while_down_per_client,
      most_per_100_ms_after_it: storm.peak_per_100ms,
      drained_after_ms: storm.drain_ms,
      overload_ends_after_ms: named(overloads, storm.policy).drain_ms,
      attempts_per_100_ms: storm.attempts_per_100ms,
    });
    const rows = storms.map(rowOf);
    if (bench.isGuarded) {
      const alone = first(rows);
      const budgeted = named(overloads, `${JITTERED}, budget`);
      rows[0] = {
        ...alone,
        overload_attempts_per_100_ms:
          named(overloads, JITTERED).attempts_per_100ms,
      };
      // A budget bounds the retries of calls; whoever must reconnect has none.
      rows.push({
        policy: "... and a budget",
        overload_ends_after_ms: budgeted.drain_ms,
        overload_attempts_per_100_ms: budgeted.attempts_per_100ms,
      }, {
        policy: "no retries at all",
        overload_ends_after_ms: named(overloads, "no retries").drain_ms,
      });
    }
    const storm = first(storms);
    const [attemptsAtFirst = 0] = storm.attempts_per_100ms;
    bench.note("all clients lose their connection", 0);
    bench.note(`${many(attemptsAtFirst, "attempt")} in the first 100 ms`, 100);
    bench.note("the database is back", OUTAGE_MS);
    bench.note(
      `at most ${storm.peak_per_100ms} attempts in any 100 ms from here on`,
      OUTAGE_MS,
    );
    if (storm.drain_ms !== null) {
      bench.note("all are connected again", OUTAGE_MS + storm.drain_ms);
    }
    return {
      clients,
      attempts_in_the_first_100_ms: attemptsAtFirst,
      most_per_100_ms_after_it: storm.peak_per_100ms,
      drained_after_ms: storm.drain_ms,
      overload_ends_after_ms: (rows[1] ?? first(rows)).overload_ends_after_ms,
      policies: rows,
    };
  },
  holds: ({ most_per_100_ms_after_it, overload_ends_after_ms, clients }) =>
    most_per_100_ms_after_it < clients / 4 && overload_ends_after_ms !== null,
  outcome: (figures) =>
    `Up to ${figures.most_per_100_ms_after_it} attempts in 100 ms once it is back, all connected ${
      after(figures.drained_after_ms)
    }; an overload that retries feed ${
      figures.overload_ends_after_ms === null
        ? "never ends"
        : `ends ${after(figures.overload_ends_after_ms)}`
    }`,
  answer: ({ without: { policies } }) => {
    const [fixed, exponential] = policies;
    const most = (row?: PolicyRow): number =>
      row?.most_per_100_ms_after_it ?? 0;
    const each = (row?: PolicyRow): number => row?.attempts_while_down ?? 0;
    const spreads = most(exponential) < most(fixed) / 2;
    const saves = each(exponential) < each(fixed);
    return spreads ? saves ? 2 : 0 : 1;
  },
  explain: ({ without, with: kept }) => {
    const [fixed, exponential] = without.policies;
    const [jittered, budgeted, none] = kept.policies;
    const crowd = (row?: PolicyRow): string =>
      `${row?.most_per_100_ms_after_it} in 100 ms, all connected ${
        after(row?.drained_after_ms)
      }`;
    return `A fixed delay of 1 s cost each client ${
      short(fixed?.attempts_while_down)
    } attempts while the database was down, and then all came together: ${
      crowd(fixed)
    }. The exponent (100 ms to 5 s) bounds the traffic, ${
      short(exponential?.attempts_while_down)
    } attempts, and does not break up the crowd: ${
      crowd(exponential)
    }. Full jitter breaks it up, at ${
      short(jittered?.attempts_while_down)
    } attempts each, as its waits are shorter (${kept.attempts_in_the_first_100_ms} in the first 100 ms): ${
      crowd(jittered)
    }.${
      (jittered?.drained_after_ms ?? Infinity) >
          (fixed?.drained_after_ms ?? Infinity)
        ? " So few clients fit through the door at once, and the fixed delay was done sooner."
        : ""
    } What jitter does not do is bound the load that retries add: an overload that ${
      ended(none?.overload_ends_after_ms)
    } without retries ${
      ended(jittered?.overload_ends_after_ms)
    } with up to three each, however jittered. With a budget of one retry for ten successes (RetryBudget in retry.ts) it ${
      ended(budgeted?.overload_ends_after_ms)
    }. What a budget does not do is serve those whom it turns away.`;
  },
});

/** What the policies are called in the lab. */
const TITLES: Readonly<Record<string, string>> = {
  [FIXED]: "fixed delay",
  [EXPONENTIAL]: "exponent alone",
  [JITTERED]: "exponent, jitter",
};

/** The result of the policy whose name begins so. */
function named(results: readonly PolicyResult[], name: string): PolicyResult {
  const matching = results.filter(({ policy }) => policy.startsWith(name));
  return first(matching);
}

function after(ms: number | null = null): string {
  if (ms === null) return "never";
  return ms < 1000 ? `after ${short(ms)} ms` : `after ${short(ms / 1000)} s`;
}

function ended(ms: number | null = null): string {
  return ms === null ? "never ended" : `ended ${after(ms)}`;
}

function first<T>(list: readonly T[]): T {
  const [one] = list;
  if (one === undefined) throw new Error("The experiment gave nothing");
  return one;
}

const BURST_AT_S = 3;
const RUN_S = 8;
const SWEET = 44;
const TOO_LARGE = 200;
const SWEEP = [8, 16, 32, SWEET, 64, 100, TOO_LARGE];

type SizeRow = {
  readonly pool_size: number;
  readonly served_per_s: number;
  readonly part_timed_out: number;
  readonly part_turned_away: number;
  readonly mean_wait_ms: number;
  readonly mean_query_ms: number;
  readonly p99_latency_ms: number;
  readonly still_waiting: number;
};

type SizingFigures = {
  readonly pool_size: number;
  readonly served_per_s: number;
  readonly part_not_served: number;
  readonly mean_query_ms: number;
  readonly p99_latency_ms: number;
  readonly waiting_at_the_end: number;
  readonly mean_waiting_in_each_100_ms: Series;
  readonly sweep?: readonly SizeRow[];
};

const explainSizing = define<SizingFigures>({
  name: "explain-sizing",
  title: "How many connections? Too few, too many, enough",
  assumption: "More connections do more at once, so a large pool is safe.",
  question: "A database does most with some 44 busy connections, and 12,500 " +
    "requests come each second. After three seconds {burst} come at once. What " +
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
  guard: { file: "pool_core.ts", symbol: "PoolCore.#isNeeded" },
  experiment: {
    flag: "--burst 0",
    look: "the pool of 200: at a steady load nobody sees that it is too large",
  },
  async run(bench: Bench): Promise<SizingFigures> {
    const burst = bench.setting("burst");
    const size = bench.isGuarded ? SWEET : TOO_LARGE;
    // Whoever guards measures before the size is set.
    const sizes = bench.isGuarded ? SWEEP : [size];
    const { points } = await bench.take(simulation(readScenario({
      arrivals: [
        "poisson:12500/s",
        ...(burst > 0 ? [`burst:${burst}@${BURST_AT_S}s`] : []),
      ],
      usl: "1000,0.02,0.0005",
      poolSize: sizes.join(","),
      acquireTimeout: `${bench.setting("acquireTimeoutMs")}ms`,
      // Kept warm, lest opening them be mistaken for what this is about.
      minIdle: `${Math.min(...SWEEP)}`,
      maxConnecting: "50",
      duration: `${RUN_S}s`,
      ...{ warmup: "1s", replications: "1", seed: `${bench.setting("seed")}` },
    })));
    const point = first(points.filter(({ pool_size }) => pool_size === size));
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
    const row = sizeRowOf(point);
    bench.note(
      `the run ends; ${short(row.still_waiting)} wait`,
      RUN_S * 1000,
    );
    return {
      pool_size: size,
      served_per_s: row.served_per_s,
      part_not_served: partNotServed(point),
      mean_query_ms: row.mean_query_ms,
      p99_latency_ms: row.p99_latency_ms,
      waiting_at_the_end: row.still_waiting,
      mean_waiting_in_each_100_ms: waiting,
      ...(bench.isGuarded ? { sweep: points.map(sizeRowOf) } : {}),
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
  explain: ({ without, with: kept, setting }) => {
    const sweep = kept.sweep ?? [];
    const small = first(sweep);
    // The smallest of those that serve all, and as soon as any of them.
    const good = sweep.filter((row) =>
      row.part_timed_out + row.part_turned_away < 0.001
    );
    const soonest = Math.min(...good.map((row) => row.p99_latency_ms));
    const best = good.find((row) => row.p99_latency_ms <= 1.05 * soonest);
    return `Too small, ${small.pool_size} connections: ${
      percent(small.part_timed_out)
    } of the requests waited longer than ${
      short(setting("acquireTimeoutMs"))
    } ms, ${
      percent(small.part_turned_away)
    } found the queue full, and those that were served waited ${
      short(small.mean_wait_ms)
    } ms on average for a query of ${
      short(small.mean_query_ms)
    } ms, while the database had more to give. ${
      best === undefined
        ? "None of the sizes tried served all"
        : `Of the sizes tried ${best.pool_size} was the sweet spot: the smallest that serves all, and as soon as any, with a p99 of ${
          short(best.p99_latency_ms)
        } ms`
    }. Too large, ${without.pool_size}: ` +
      (without.waiting_at_the_end >= 100
        ? `the burst filled all of them, and busy at once they slow one another down, so that a query took ${
          short(without.mean_query_ms)
        } ms instead of ${
          short(kept.mean_query_ms)
        }: less was done than came in. So the queue never drained: ${
          short(without.waiting_at_the_end)
        } waited at the end, and ${
          percent(without.part_not_served)
        } was not served.`
        : `${percent(without.part_not_served)} was not served, a query took ${
          short(without.mean_query_ms)
        } ms: so few of them are busy that nothing shows that it is too large.`);
  },
});

function partNotServed({ offered, served }: PointResult): number {
  return (offered - served) / offered;
}

function sizeRowOf(point: PointResult): SizeRow {
  const { time_line, latency_ms, wait_ms } = point;
  // Requests stop coming then, and even what is too slow drains at last.
  const last = Math.floor(RUN_S * 1000 / time_line.interval_ms) - 1;
  return {
    pool_size: point.pool_size,
    served_per_s: point.throughput_per_s,
    part_timed_out: point.timed_out / point.offered,
    part_turned_away: point.rejected / point.offered,
    mean_wait_ms: wait_ms.mean,
    mean_query_ms: latency_ms.mean - wait_ms.mean,
    p99_latency_ms: latency_ms.p99,
    still_waiting: time_line.waiting[last] ?? 0,
  };
}

/** The four questions, in the order of the exercise. */
export const EXPLAIN_CASES: readonly LabCase[] = [
  ...[explainContextManagers, explainPooling, explainBackoff, explainSizing],
];
