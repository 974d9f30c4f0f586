/**
 * The pool on a real PostgreSQL to which all kinds of things happen.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { systemClock } from "./clock.ts";
import type { ConnectionOptions } from "./config.ts";
import { ConnectError, messageOf, QueryTimeoutError } from "./errors.ts";
import { ConnectionPool } from "./pool.ts";
import type { PoolEvents } from "./pool_report.ts";
import type { PooledConnection } from "./pooled_connection.ts";
import { PostgresDriver } from "./postgres.ts";
import type { PostgresConnection } from "./postgres_connection.ts";
import { SERVER, TestServer } from "./postgres_testing.ts";
import { type Random, seededRandom } from "./random.ts";

let server: TestServer;

Deno.test.beforeAll(async () => {
  server = await TestServer.start();
});

Deno.test.afterAll(() => server[Symbol.asyncDispose]());

function serverTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, permissions: SERVER, fn });
}

function poolOf(
  options: ConnectionOptions = {},
  events: PoolEvents = {},
): ConnectionPool {
  return new ConnectionPool({ database: server.url(), ...options }, { events });
}

/** Runs statements on a connection that no test counts. */
async function aside<T>(
  fn: (connection: PooledConnection) => Promise<T>,
): Promise<T> {
  await using pool = poolOf();
  return await pool.use(fn);
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => systemClock.setTimer(resolve, ms));
}

// Until the server or the system tells of something, there is nothing to await.
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await wait(1);
}

serverTest(
  "a restart under load loses no committed row, and is no stampede",
  async () => {
    await using pool = poolOf({
      ...{ poolSize: 10, maxOverflow: 0, probeIntervalMs: 100 },
    });
    await pool.use((c) => c.execute("CREATE TABLE restarted (id int)"));
    const committed = new Set<number>();
    let next = 0;
    let isOver = false;
    let failures = 0;
    const insert = async (): Promise<void> => {
      const id = next++;
      await pool.use((c) =>
        c.execute("INSERT INTO restarted VALUES ($1)", [id])
      );
      committed.add(id);
    };
    const workers = Array.from({ length: 30 }, async () => {
      while (!isOver) {
        try {
          await insert();
        } catch {
          failures++;
          await wait(5);
        }
      }
    });
    await until(() => committed.size > 200);
    const before = pool.stats();
    const startMs = systemClock.now();
    await server.tell("restart");
    const downMs = systemClock.now() - startMs;
    // A probe under way may bring an answer from before.
    await until(() => pool.stats().opening === 0);
    try {
      // Whoever comes from now on is served, within one probe of the database.
      await Promise.all(Array.from({ length: 30 }, insert));
    } finally {
      isOver = true;
      await Promise.all(workers);
    }
    await until(() => pool.stats().opening === 0);
    const after = pool.stats();
    assert(failures > 0, "the restart was not felt");
    assert(after.created - before.created <= 20, `${after.created} connects`);
    // Three attempts, then one a probe, which comes after 50 ms at the least.
    const probes = after.connectFailures - before.connectFailures;
    assert(probes <= 3 + downMs / 50 + 3, `${probes} probes in ${downMs} ms`);
    const rows = await pool.use((c) => c.query("SELECT id FROM restarted"));
    const found = new Set(rows.map(({ id }) => id));
    for (const id of committed) assert(found.has(id), `row ${id} is lost`);
  },
);

serverTest(
  "connections that the server ends while idle are gone at once, and nobody is handed one",
  async () => {
    await using pool = poolOf({ poolSize: 3 });
    const held = await Promise.all([1, 2, 3].map(() => pool.acquire()));
    const pids = await Promise.all(
      held.map((c) => c.query("SELECT pg_backend_pid() AS pid")),
    );
    for (const connection of held) connection.release();
    await until(() => pool.stats().idle === 3);
    await aside((c) =>
      c.query("SELECT pg_terminate_backend(p) FROM unnest($1::int[]) p", [
        pids.map(([row]) => Number(row?.["pid"])),
      ])
    );
    await until(() => pool.stats().discarded === 3);
    assertEquals(pool.stats().open, 0);
    assertEquals(await pool.use((c) => c.query("SELECT 1 AS a")), [{ a: 1 }]);
  },
);

serverTest(
  "a connection that the server ends in use fails its statement, and is discarded",
  async () => {
    await using pool = poolOf({ poolSize: 1, maxOverflow: 0 });
    await pool.use(async (connection) => {
      const [row] = await connection.query("SELECT pg_backend_pid() AS pid");
      const sleeping = assertRejects(
        () => connection.query("SELECT pg_sleep(60)"),
        Error,
        "administrator command",
      );
      await aside((c) =>
        c.query("SELECT pg_terminate_backend($1)", [Number(row?.["pid"])])
      );
      await sleeping;
      await assertRejects(
        () => connection.query("SELECT 1"),
        Error,
        "closed: terminating",
      );
    });
    assertEquals(await pool.use((c) => c.query("SELECT 1 AS a")), [{ a: 1 }]);
    assertEquals(pool.stats().discarded, 1);
  },
);

serverTest(
  "when others have taken all connections of the server, the pool waits for its turn",
  async () => {
    const driver = new PostgresDriver({ url: server.url(), timeoutMs: 5000 });
    const others: PostgresConnection[] = [];
    const connect = (): Promise<PostgresConnection | undefined> =>
      new Promise((resolve) => driver.connect((_error, c) => resolve(c)));
    for (let one; (one = await connect()) !== undefined;) others.push(one);
    assert(others.length > 40, `${others.length}`);
    const impatient = poolOf();
    const error = await assertRejects(() => impatient.acquire(), ConnectError);
    assertEquals(error.attempts, 3);
    assertStringIncludes(error.message, "too many clients");
    await impatient.close();
    let retries = 0;
    const patient = poolOf({
      retry: { maxAttempts: 100, baseDelayMs: 5, maxDelayMs: 20 },
    }, {
      connectRetry: () => {
        // One place comes free while the pool tries.
        if (++retries === 2) others.pop()?.close(() => {});
      },
    });
    const rows = await patient.use((c) => c.query("SELECT 1 AS a"));
    assertEquals(rows, [{ a: 1 }]);
    assert(retries >= 2);
    await patient.close();
    await Promise.all(
      others.map((c) =>
        new Promise<void>((resolve) => c.close(() => resolve()))
      ),
    );
  },
);

serverTest(
  "what nobody but the user can mend is told at once, after one connect",
  async () => {
    const wrongs: [string, string][] = [
      [server.url(undefined, { password: "wrong" }), "password authentication"],
      [server.url("?sslmode=disable&dbname=none"), "does not exist"],
    ];
    for (const [database, says] of wrongs) {
      await using pool = poolOf({ database });
      const error = await assertRejects(() => pool.acquire(), ConnectError);
      assertStringIncludes(error.message, says);
      assertEquals([error.attempts, pool.stats().connectFailures], [1, 1]);
    }
  },
);

serverTest(
  "an unknown host is named in the error, after the attempts of the policy",
  async () => {
    const database = "postgres://me@host.invalid/db";
    await using pool = poolOf({ database, retry: { maxAttempts: 2 } });
    const error = await assertRejects(() => pool.acquire(), ConnectError);
    assertStringIncludes(error.message, "host.invalid");
    assertEquals(error.attempts, 2);
  },
);

serverTest(
  "a transaction whose function throws is rolled back, and its connection clean",
  async () => {
    await using pool = poolOf({ poolSize: 1, maxOverflow: 0 });
    await assertRejects(
      () =>
        pool.transaction(async (c) => {
          await c.execute("CREATE TABLE thrown (a int)");
          throw new Error("enough");
        }),
      Error,
      "enough",
    );
    using left = await pool.acquire();
    await left.execute("BEGIN; CREATE TABLE thrown (a int)");
    left.release();
    const found = await pool.use((c) =>
      c.query("SELECT to_regclass('thrown') AS found, pg_backend_pid() AS pid")
    );
    assertEquals(found[0]?.["found"], null);
    assertEquals(pool.stats().created, 1);
  },
);

serverTest(
  "temporary tables, settings and roles are never seen by the next user of the pool",
  async () => {
    await using pool = poolOf({ poolSize: 1, maxOverflow: 0 });
    await pool.use(async (c) => {
      await c.execute("CREATE TEMP TABLE mine (a int)");
      await c.execute("SET search_path = pg_catalog");
      await c.query("SELECT set_config('work_mem', '1MB', false)");
      await c.execute("LISTEN news");
    });
    const [row] = await pool.use((c) =>
      c.query(
        "SELECT to_regclass('pg_temp.mine') AS mine, " +
          "current_setting('search_path') AS path, " +
          "current_setting('work_mem') AS memory, " +
          "(SELECT count(*) FROM pg_listening_channels()) AS channels",
      )
    );
    const path = '"$user", public';
    assertEquals(row, { mine: null, path, memory: "4MB", channels: 0 });
    assertEquals(pool.stats().created, 1);
  },
);

serverTest(
  "whatever is cancelled at whatever moment, each query gets its own answer",
  async () => {
    const seed = 20_260;
    const random = seededRandom(seed);
    await using pool = poolOf({ poolSize: 2, maxOverflow: 0, timeoutMs: 2000 });
    const round = async (i: number): Promise<void> => {
      const sleepMs = random() * 4;
      const giveUpMs = random() * 4;
      const abort = new AbortController();
      const isTimeout = random() < 0.5;
      if (!isTimeout) {
        systemClock.setTimer(() => abort.abort(new Error("enough")), giveUpMs);
      }
      const limit = isTimeout
        ? { timeoutMs: giveUpMs }
        : { signal: abort.signal };
      const sql = "SELECT pg_sleep($1::float / 1000), $2::int AS i";
      try {
        const rows = await pool.use((c) => c.query(sql, [sleepMs, i], limit));
        assertEquals(rows[0]?.["i"], i, `seed ${seed}`);
      } catch (error) {
        const isExpected = error instanceof QueryTimeoutError ||
          messageOf(error) === "enough";
        if (!isExpected) throw error;
      }
      const rows = await pool.use((c) => c.query("SELECT $1::int AS i", [i]));
      assertEquals(rows, [{ i }], `seed ${seed}`);
    };
    for (let i = 0; i < 100; i++) {
      await Promise.all([round(3 * i), round(3 * i + 1), round(3 * i + 2)]);
    }
  },
);

serverTest(
  "a commit whose answer is lost is not run again, as it may have happened",
  async () => {
    await aside((c) => c.execute("CREATE TABLE once (a int)"));
    using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr as Deno.NetAddr;
    const proxy = relayUntilCommit(listener);
    const database = server.url().replace(`:${server.port}/`, `:${port}/`);
    const pool = poolOf({ database });
    let runs = 0;
    await assertRejects(() =>
      pool.transaction(async (c) => {
        runs++;
        await c.execute("INSERT INTO once VALUES (1)");
      }, { retry: { maxAttempts: 5 } })
    );
    assertEquals(runs, 1);
    await pool.close();
    await proxy;
    const rows = await aside((c) => c.query("SELECT a FROM once"));
    assertEquals(rows, [{ a: 1 }]);
  },
);

/** Passes one connection on, and cuts it when the answer to COMMIT comes. */
async function relayUntilCommit(listener: Deno.TcpListener): Promise<void> {
  const client = await listener.accept();
  const upstream = await Deno.connect({
    hostname: "127.0.0.1",
    port: server.port,
  });
  let isCommitted = false;
  const up = (async () => {
    const text = new TextDecoder("latin1");
    for await (const chunk of client.readable.values({ preventCancel: true })) {
      if (text.decode(chunk).includes("COMMIT")) isCommitted = true;
      await upstream.write(chunk);
    }
  })().catch(() => {});
  const buffer = new Uint8Array(65_536);
  for (let n; (n = await upstream.read(buffer)) !== null;) {
    if (isCommitted) break;
    await client.write(buffer.subarray(0, n));
  }
  upstream.close();
  client.close();
  await up;
}

// A minute of it: POSTGRES_TRANSFERS=400 deno task test postgres_faults_test.ts
const TRANSFERS = Number(Deno.env.get("POSTGRES_TRANSFERS") ?? 5);
const TASKS = 200;
const ACCOUNTS = 20;

serverTest(
  "200 tasks on 10 connections move money while connections are killed, and none is lost",
  async () => {
    const seed = 4;
    const random = seededRandom(seed);
    await aside((c) =>
      c.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY, balance int NOT NULL); " +
          "CREATE TABLE journal (id int PRIMARY KEY, source int, target int, " +
          "amount int); INSERT INTO accounts SELECT i, 1000 FROM " +
          `generate_series(0, ${ACCOUNTS - 1}) i`,
      )
    );
    const options = encodeURIComponent("-c deadlock_timeout=20ms");
    await using pool = poolOf({
      database: server.url(
        `?sslmode=disable&application_name=bank&options=${options}`,
      ),
      ...{ poolSize: 10, maxOverflow: 0, probeIntervalMs: 50 },
    });
    await using killers = poolOf({ poolSize: 1, maxOverflow: 0 });
    let done = 0;
    let failures = 0;
    let kills = 0;
    const transfer = async (id: number): Promise<void> => {
      const [source, target] = pickTwo(random);
      const amount = Math.ceil(random() * 10);
      const isSerializable = id % 2 === 0;
      await pool.transaction(async (c) => {
        if (isSerializable) {
          await c.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
        }
        // A commit whose answer was lost may have happened.
        const known = await c.query("SELECT FROM journal WHERE id = $1", [id]);
        if (known.length > 0) return;
        const move = "UPDATE accounts SET balance = balance + $1 WHERE id = $2";
        await c.execute(move, [-amount, source]);
        await c.execute(move, [amount, target]);
        const note = "INSERT INTO journal VALUES ($1, $2, $3, $4)";
        await c.execute(note, [id, source, target, amount]);
      }, { retry: { maxAttempts: 10, baseDelayMs: 2, maxDelayMs: 50 } });
    };
    const tasks = Array.from({ length: TASKS }, async (_, task) => {
      for (let i = 0; i < TRANSFERS; i++) {
        const id = task * TRANSFERS + i;
        for (let isDone = false; !isDone;) {
          try {
            await transfer(id);
            isDone = true;
          } catch {
            failures++;
            await wait(random() * 10);
          }
        }
        if (++done % 50 === 0) {
          kills++;
          await killers.use((c) =>
            c.query(
              "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE " +
                "application_name = 'bank' ORDER BY random() LIMIT 1",
            )
          );
        }
      }
    });
    await Promise.all(tasks);
    assert(kills > 0 && failures > 0, `${kills} kills, ${failures} failures`);
    const { discarded, inUse, waiting } = pool.stats();
    assert(discarded > 0);
    assertEquals([inUse, waiting], [0, 0]);
    const [sums] = await aside((c) =>
      c.query(
        "SELECT sum(balance) AS total, (SELECT count(*) FROM journal) AS n " +
          "FROM accounts",
      )
    );
    assertEquals(sums, { total: 1000 * ACCOUNTS, n: TASKS * TRANSFERS });
    const wrong = await aside((c) =>
      c.query(
        "SELECT id FROM accounts WHERE balance <> 1000 " +
          "+ (SELECT coalesce(sum(amount), 0) FROM journal WHERE target = accounts.id) " +
          "- (SELECT coalesce(sum(amount), 0) FROM journal WHERE source = accounts.id)",
      )
    );
    assertEquals(wrong, [], `seed ${seed}`);
  },
);

function pickTwo(random: Random): [number, number] {
  const source = Math.floor(random() * ACCOUNTS);
  const step = 1 + Math.floor(random() * (ACCOUNTS - 1));
  return [source, (source + step) % ACCOUNTS];
}

serverTest(
  "a transaction that the database could not serialize is run again on demand only",
  async () => {
    await using pool = poolOf();
    await pool.use((c) =>
      c.execute("CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)")
    );
    // The first two go on only when both have read.
    let readers = 0;
    const increment = async (c: PooledConnection): Promise<void> => {
      await c.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
      const [row] = await c.query("SELECT n FROM counter");
      readers++;
      await until(() => readers >= 2);
      await c.execute("UPDATE counter SET n = $1", [Number(row?.["n"]) + 1]);
    };
    const both = await Promise.allSettled([
      pool.transaction(increment),
      pool.transaction(increment),
    ]);
    const [failed] = both.filter(({ status }) => status === "rejected");
    assert(failed?.status === "rejected");
    assertInstanceOf(failed.reason, Error);
    assertEquals((failed.reason as { code?: string }).code, "40001");
    const retry = { maxAttempts: 20, baseDelayMs: 1 };
    await Promise.all(
      [1, 2, 3].map(() => pool.transaction(increment, { retry })),
    );
    const rows = await pool.use((c) => c.query("SELECT n FROM counter"));
    assertEquals(rows, [{ n: 4 }]);
  },
);
