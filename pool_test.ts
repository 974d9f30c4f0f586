/**
 * The pool, and every case of the exercise: alter, break, fix.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertNotStrictEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { ConnectionConfig, type ConnectionOptions } from "./config.ts";
import {
  AcquireTimeoutError,
  ConfigError,
  ConnectError,
  LockTimeoutError,
  PoolClosedError,
  ReleaseError,
  TooManyWaitersError,
} from "./errors.ts";
import { holdLock } from "./lock_holder.ts";
import { type AcquireOptions, ConnectionPool } from "./pool.ts";
import type { PooledConnection } from "./pooled_connection.ts";
import type { RetryNotice } from "./retry.ts";
import { SqliteDriver } from "./sqlite.ts";
import {
  type FakeConnection,
  FakeDriver,
  fakePool,
  FILES,
  FILES_AND_PROCESSES,
  MEMORY,
  PermanentError,
  runProject,
  temporaryFolder,
} from "./testing.ts";
import { settled, VirtualClock } from "./virtual_clock.ts";

const NONE = "none" as const;

function raw(connection: PooledConnection): FakeConnection {
  return connection.raw as FakeConnection;
}

// Alter 1: the timeout.

Deno.test(
  "alter 1: --timeout reaches the configuration, in seconds or with a unit",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    for (
      const [text, timeoutMs] of [["0.001", 1], ["250ms", 250], [
        "2s",
        2000,
      ]] as const
    ) {
      const { code, stderr } = await runProject(
        ...["run", "--timeout", text, "--log-level", "debug"],
        ...["--output", folder.file("summary.json")],
      );
      assertEquals(code, 0, stderr);
      assertStringIncludes(stderr, `"timeoutMs":${timeoutMs},`);
    }
  },
);

Deno.test(
  "alter 1: 0.001 s against a lock of another process fails fast and loses nothing",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const database = folder.file("events.db");
    const output = folder.file("summary.json");
    const job = [
      "run",
      "--db",
      database,
      "--output",
      output,
      "--timeout",
      "0.001",
    ];
    assertEquals((await runProject(...job)).code, 0);
    const before = await Deno.readTextFile(output);
    {
      await using _lock = await holdLock(database);
      const { code, stdout, stderr } = await runProject(...job);
      assertEquals([code, stdout], [1, ""]);
      assertMatch(
        stderr,
        /^Error: The database is locked: .* longer than 1 ms\n$/,
      );
      assertStringIncludes(stderr, database);
      assertEquals(await Deno.readTextFile(output), before);
    }
    // The seven rows of the first run are there, and seven more can be added.
    const { code, stdout } = await runProject(...job);
    assertEquals(code, 0);
    assertEquals(JSON.parse(stdout).rows.map((row: { id: number }) => row.id), [
      ...[8, 9, 10, 11, 12, 13, 14],
    ]);
  },
);

Deno.test(
  "alter 1: the program goes on while the pool waits for the lock of another process",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("locked.db");
    await using lock = await holdLock(path);
    const clock = new VirtualClock();
    const driver = new SqliteDriver({ path, timeoutMs: 5000, clock });
    const pool = new ConnectionPool({ database: path }, { driver, clock });
    let outcome: unknown = "waiting";
    const writing = pool.transaction(() => "written").then(
      (result) => outcome = result,
      (error) => outcome = error,
    );
    let ticks = 0;
    const tick = (): void => {
      ticks++;
      clock.setTimer(tick, 5);
    };
    clock.setTimer(tick, 5);
    // A wait inside SQLite would keep this program here for five real seconds,
    // and virtual time, which only this program moves, would stand still.
    await clock.advanceAsync(4990);
    assertEquals([outcome, ticks], ["waiting", 998]);
    await clock.advanceAsync(10);
    await writing;
    assertInstanceOf(outcome, LockTimeoutError);
    await lock.release();
    assertEquals(await pool.transaction(() => "written"), "written");
    await pool.close();
  },
);

// Alter 2: the peak.

Deno.test(
  "alter 2: the peak is the most connections ever out at once, through bursts and releases",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 2, maxOverflow: 6 });
    assertEquals(pool.stats().peak, 0);
    const first = [
      await pool.acquire(),
      await pool.acquire(),
      await pool.acquire(),
    ];
    assertEquals([pool.stats().inUse, pool.stats().peak], [3, 3]);
    for (const connection of first) connection.release();
    assertEquals([pool.stats().inUse, pool.stats().peak], [0, 3]);
    // Seven one after the other are never more than one at once.
    for (let i = 0; i < 7; i++) await pool.use(() => {});
    assertEquals(pool.stats().peak, 3);
    const burst = await Promise.all(
      Array.from({ length: 5 }, () => pool.acquire()),
    );
    burst[0]?.release();
    burst[0] = await pool.acquire();
    assertEquals([pool.stats().inUse, pool.stats().peak], [5, 5]);
    for (const connection of burst) connection.release();
    assertEquals((await pool.close(), pool.stats().peak), 5);
  },
);

Deno.test(
  "alter 2: the peak counts hand-overs to waiters, and never exceeds the limit",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 3 });
    await Promise.all(
      Array.from({ length: 100 }, () => pool.use(() => settled())),
    );
    const { peak, acquired, inUse } = pool.stats();
    assertEquals({ peak, acquired, inUse }, {
      peak: 3,
      acquired: 100,
      inUse: 0,
    });
    await pool.close();
  },
);

// Alter 3: shrink.

Deno.test(
  "alter 3: shrink() closes idle connections down to a target, never one in use",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const pool = new ConnectionPool({ database: folder.file("shrink.db") });
    const out = await Promise.all([1, 2, 3, 4, 5].map(() => pool.acquire()));
    const [held, ...returned] = out as [
      PooledConnection,
      ...PooledConnection[],
    ];
    for (const connection of returned) connection.release();
    assertEquals([pool.stats().idle, pool.stats().inUse], [4, 1]);
    assertEquals(pool.shrink(1), 3);
    assertEquals([pool.stats().idle, pool.stats().inUse], [1, 1]);
    assertEquals(pool.shrink(1), 0);
    assertEquals(pool.shrink(0), 1);
    assertEquals([pool.stats().idle, pool.stats().inUse], [0, 1]);
    assertEquals(await held.query("SELECT 1 AS one"), [{ one: 1 }]);
    held.release();
    assertEquals(pool.stats().idle, 1);
    await pool.close();
  },
);

Deno.test(
  "alter 3: shrink() keeps the connections used last, and refuses a target that is no count",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, driver } = fakePool({ poolSize: 3 });
    const out = await Promise.all([1, 2, 3].map(() => pool.acquire()));
    for (const connection of out) connection.release();
    assertEquals(pool.shrink(1), 2);
    assertEquals(driver.connections.map((c) => c.calls.close), [1, 1, 0]);
    for (const wrong of [-1, 1.5, NaN, Infinity]) {
      assertThrows(
        () => pool.shrink(wrong),
        ConfigError,
        "'target' must be an integer >= 0",
      );
    }
    await pool.close();
  },
);

// Break and fix 1: an impossible size.

Deno.test(
  "break/fix 1: a pool size that is no whole number from 1 on is refused by the configuration",
  {
    permissions: NONE,
  },
  () => {
    for (const poolSize of [0, -1, 1.5, NaN, Infinity, "5", null, [], true]) {
      const options = { poolSize } as unknown as ConnectionOptions;
      for (const make of [ConnectionConfig, ConnectionPool]) {
        const error = assertThrows(() => new make(options), ConfigError);
        assertStringIncludes(
          error.message,
          "'poolSize' must be an integer >= 1",
        );
        assertEquals(error.problems.map(({ field }) => field), ["poolSize"]);
      }
    }
  },
);

Deno.test(
  "break/fix 1: on the command line an impossible pool size is wrong usage, exit 2",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const output = folder.file("summary.json");
    for (const size of ["0", "-1", "1.5", "NaN", "five"]) {
      const { code, stdout, stderr } = await runProject(
        ...["--pool-size", size, "--output", output],
      );
      assertEquals([code, stdout], [2, ""], size);
      assertMatch(stderr, /^Error: --pool-size must be [^\n]*\n$/);
    }
    await assertRejects(() => Deno.stat(output), Deno.errors.NotFound);
  },
);

// Break and fix 2: a path that cannot be.

Deno.test(
  "break/fix 2: an impossible path is tried with growing waits, then fails and names the path",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("no such folder/events.db");
    const clock = new VirtualClock();
    const notices: RetryNotice[] = [];
    const failures: number[] = [];
    const pool = new ConnectionPool({
      database: path,
      retry: { maxAttempts: 4, baseDelayMs: 100, jitter: "none" },
    }, {
      clock,
      events: {
        connectRetry: (notice) => {
          notices.push(notice);
          failures.push(clock.now());
        },
      },
    });
    const acquired = pool.acquire().catch((error) => error);
    await clock.advanceAsync(60_000);
    const error = await acquired;
    assertInstanceOf(error, ConnectError);
    assertEquals(
      error.message,
      `Failed after 4 attempts: unable to open database file: ${path}`,
    );
    assertEquals(error.delaysMs, [100, 200, 400]);
    assertEquals([error.attempts, error.elapsedMs], [4, 700]);
    assertEquals(notices.map(({ delayMs }) => delayMs), [100, 200, 400]);
    assertEquals(failures, [0, 100, 300]);
    assertEquals(pool.stats().connectFailures, 4);
    assertEquals([...Deno.readDirSync(folder.path)], []);
    await pool.close();
  },
);

Deno.test(
  "break/fix 2: on the command line it fails after 3 attempts, says what it waits for, and creates nothing",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("missing/events.db");
    const { code, stdout, stderr } = await runProject(
      ...["--db", path, "--output", folder.file("out/summary.json")],
    );
    assertEquals([code, stdout], [1, ""]);
    const lines = stderr.trimEnd().split("\n");
    assertEquals(lines.length, 3);
    assertMatch(
      lines[0] ?? "",
      /attempt 1 of 3 failed .* trying again in \d+ ms$/,
    );
    assertMatch(
      lines[1] ?? "",
      /attempt 2 of 3 failed .* trying again in \d+ ms$/,
    );
    assertEquals(
      lines[2],
      `Error: Failed after 3 attempts: unable to open database file: ${path}`,
    );
    assertEquals([...Deno.readDirSync(folder.path)], []);
  },
);

// Break and fix 3: a connection closed by hand.

Deno.test(
  "break/fix 3: a connection closed by hand is discarded on release, and the next one works",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const ways: ((connection: PooledConnection) => unknown)[] = [
      (connection) => connection.close(),
      (connection) => (connection.raw as { close(): void }).close(),
    ];
    for (const [i, closeByHand] of ways.entries()) {
      const reasons: unknown[] = [];
      const pool = new ConnectionPool({ database: folder.file(`${i}.db`) }, {
        events: { discard: ({ reason }) => reasons.push(reason) },
      });
      const broken = await pool.acquire();
      await closeByHand(broken);
      await assertRejects(() => broken.query("SELECT 1"), Error, "is closed");
      broken.release();
      const { discarded, idle, open, created } = pool.stats();
      assertEquals({ discarded, idle, open, created }, {
        discarded: 1,
        idle: 0,
        open: 0,
        created: 1,
      });
      assertEquals(reasons.length, 1);
      using next = await pool.acquire();
      assertEquals(await next.query("SELECT 1 AS one"), [{ one: 1 }]);
      assertEquals(pool.stats().created, 2);
      next.release();
      await pool.close();
    }
  },
);

Deno.test(
  "break/fix 3: a ping that fails on release discards the connection, though it looks open",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool();
    const broken = await pool.acquire();
    const connection = raw(broken);
    connection.onPing = (done) => done(new Error("no answer"));
    broken.release();
    assertEquals([pool.stats().discarded, pool.stats().open], [1, 0]);
    assertEquals(connection.calls.close, 1);
    const next = await pool.acquire();
    assertNotStrictEquals(raw(next), connection);
    next.release();
    await pool.close();
  },
);

// Giving back.

Deno.test(
  "release() rolls back an open transaction before anybody else gets the connection",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    await using pool = new ConnectionPool({
      database: folder.file("rollback.db"),
    });
    {
      using connection = await pool.acquire();
      await connection.execute("CREATE TABLE t (x)");
      await connection.execute("BEGIN");
      await connection.execute("INSERT INTO t VALUES (1)");
    }
    using next = await pool.acquire();
    assertEquals([next.inTransaction, pool.stats().reused], [false, 1]);
    assertEquals(await next.query("SELECT count(*) AS n FROM t"), [{ n: 0 }]);
  },
);

Deno.test(
  "release() throws for a connection released before, and for one of another pool",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool();
    const { pool: other } = fakePool();
    const connection = await pool.acquire();
    assertThrows(
      () => other.release(connection),
      ReleaseError,
      "not come from this pool",
    );
    connection.release();
    assertThrows(() => connection.release(), ReleaseError, "released before");
    assertThrows(
      () => pool.release(connection),
      ReleaseError,
      "released before",
    );
    assertThrows(() => pool.release({} as PooledConnection), ReleaseError);
    assertEquals([pool.stats().idle, pool.stats().inUse], [1, 0]);
    await Promise.all([pool.close(), other.close()]);
  },
);

Deno.test(
  "a connection refuses every use after its release, also when somebody else has it now",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool();
    const stale = await pool.acquire();
    const connection = raw(stale);
    stale.release();
    const next = await pool.acquire();
    assertStrictEquals(raw(next), connection);
    const uses: (() => Promise<unknown>)[] = [
      () => stale.query("SELECT 1"),
      () => stale.execute("SELECT 1"),
      () => stale.iterate("SELECT 1").next(),
      () => stale.transaction(() => {}),
      () => stale.ping(),
      () => stale.close(),
    ];
    for (const use of uses) {
      await assertRejects(
        use,
        ReleaseError,
        "after it was released",
      );
    }
    assertThrows(() => stale.raw, ReleaseError);
    assertThrows(() => stale.inTransaction, ReleaseError);
    // The block that holds it may end after it was released by hand.
    stale[Symbol.dispose]();
    assertEquals(pool.stats().inUse, 1);
    next.release();
    await pool.close();
  },
);

Deno.test(
  "using and await using give a connection back, however the block ends",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 1 });
    await assertRejects(
      async () => {
        using _connection = await pool.acquire();
        throw new Error("in the block");
      },
      Error,
      "in the block",
    );
    {
      await using _connection = await pool.acquire();
    }
    await assertRejects(() =>
      pool.use(() => Promise.reject(new Error("in use")))
    );
    const { inUse, idle, created } = pool.stats();
    assertEquals({ inUse, idle, created }, { inUse: 0, idle: 1, created: 1 });
    await pool.close();
  },
);

Deno.test(
  "a reset that fails costs the connection, not its place in the pool",
  {
    permissions: NONE,
  },
  async () => {
    for (const isThrown of [false, true]) {
      const { pool } = fakePool({ poolSize: 1 });
      const connection = await pool.acquire();
      raw(connection).onReset = (done) => {
        if (isThrown) throw new Error("reset");
        done(new Error("reset"));
      };
      const waiting = pool.acquire();
      connection.release();
      // The waiter is woken although nothing came back.
      (await waiting).release();
      assertEquals([pool.stats().created, pool.stats().discarded], [2, 1]);
      await pool.close();
    }
  },
);

// Waiting.

Deno.test(
  "a waiter is woken when the reset of what comes back fails",
  { permissions: NONE },
  async () => {
    const { pool } = fakePool({ poolSize: 1 });
    const held = await pool.acquire();
    raw(held).onReset = (done) => done(new Error("reset"));
    const waiting = pool.acquire();
    held.release();
    (await waiting).release();
    assertEquals([pool.stats().discarded, pool.stats().created], [1, 2]);
    await pool.close();
  },
);

Deno.test(
  "waiters are served in the order they came, and nobody overtakes them",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 1 });
    const held = await pool.acquire();
    const order: number[] = [];
    const tasks = [1, 2, 3, 4].map((n) =>
      pool.use(() => {
        order.push(n);
      })
    );
    held.release();
    // It comes when the connection is on its way to the first of the queue.
    const late = pool.use(() => {
      order.push(5);
    });
    await Promise.all([...tasks, late]);
    assertEquals(order, [1, 2, 3, 4, 5]);
    await pool.close();
  },
);

Deno.test(
  "an acquire that times out says how the pool stands, and takes nothing with it",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool({ acquireTimeoutMs: 100 });
    const held = [await pool.acquire(), await pool.acquire()];
    const failed = pool.acquire().catch((error) => error);
    const patient = pool.acquire({ timeoutMs: 1000 });
    await clock.advanceAsync(99);
    assertEquals(pool.stats().waiting, 2);
    await clock.advanceAsync(1);
    const error = await failed;
    assertInstanceOf(error, AcquireTimeoutError);
    assertStringIncludes(error.message, "within 100 ms");
    assertStringIncludes(
      error.message,
      "2 in use, 0 idle, 0 connecting, 2 waiting",
    );
    assertEquals([pool.stats().timeouts, pool.stats().waiting], [1, 1]);
    for (const connection of held) connection.release();
    (await patient).release();
    assertEquals([pool.stats().idle, pool.stats().inUse], [2, 0]);
    await pool.close();
  },
);

Deno.test(
  "acquires with timeouts of their own end in time among those with the usual one",
  { permissions: NONE },
  async () => {
    const { pool, clock } = fakePool({
      poolSize: 1,
      maxOverflow: 0,
      acquireTimeoutMs: 100,
    });
    const held = await pool.acquire();
    const ended: [string, number][] = [];
    const wait = (name: string, options?: AcquireOptions): void => {
      pool.acquire(options).then(
        (connection) => connection.release(),
        () => ended.push([name, clock.now()]),
      );
    };
    wait("usual at 0");
    wait("shorter", { timeoutMs: 30 });
    wait("longer", { timeoutMs: 500 });
    await clock.advanceAsync(50);
    wait("usual at 50");
    const left = new AbortController();
    wait("aborted", { signal: left.signal });
    left.abort();
    await clock.advanceAsync(1000);
    assertEquals(ended, [
      ["shorter", 30],
      ["aborted", 50],
      ["usual at 0", 100],
      ["usual at 50", 150],
      ["longer", 500],
    ]);
    held.release();
    // With nobody waiting, no timer of the queue is left.
    assertEquals(pool.stats().waiting, 0);
    await pool.close();
    assertEquals(clock.pending, 0);
  },
);

Deno.test(
  "an aborted acquire ends at once with the reason of its signal, and takes nothing with it",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 1 });
    const held = await pool.acquire();
    const abort = new AbortController();
    const aborted = pool.acquire({ signal: abort.signal }).catch((error) =>
      error
    );
    const next = pool.acquire();
    abort.abort("changed my mind");
    assertEquals(await aborted, "changed my mind");
    assertEquals([pool.stats().aborted, pool.stats().waiting], [1, 1]);
    held.release();
    (await next).release();
    const late = pool.acquire({ signal: abort.signal }).catch((error) => error);
    assertEquals(await late, "changed my mind");
    assertEquals([pool.stats().idle, pool.stats().inUse], [1, 0]);
    await pool.close();
  },
);

Deno.test(
  "a connect that its waiter no longer wants ends among the idle, and is closed by nobody",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new FakeDriver();
    driver.isManual = true;
    const { pool, clock } = fakePool({ acquireTimeoutMs: 50 }, { driver });
    const abort = new AbortController();
    const aborted = pool.acquire({ signal: abort.signal }).catch((error) =>
      error
    );
    abort.abort(new Error("gone"));
    await aborted;
    const timedOut = pool.acquire().catch((error) => error);
    await clock.advanceAsync(50);
    assertInstanceOf(await timedOut, AcquireTimeoutError);
    assertEquals(driver.pending.length, 1);
    const connection = driver.pending[0]?.succeed();
    assertEquals(pool.stats().idle, 1);
    const next = await pool.acquire();
    assertStrictEquals(raw(next), connection);
    next.release();
    await pool.close();
  },
);

Deno.test(
  "a waiter takes a connection that comes back while a slow connect is under way",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new FakeDriver();
    const { pool } = fakePool({}, { driver });
    const held = await pool.acquire();
    driver.isManual = true;
    const waiting = pool.acquire();
    const connection = raw(held);
    held.release();
    assertStrictEquals(raw(await waiting), connection);
    (await waiting).release();
    driver.pending[0]?.succeed();
    assertEquals(pool.stats().idle, 2);
    await pool.close();
  },
);

Deno.test(
  "maxWaiting turns away the one too many at once, and 0 lets nobody wait",
  {
    permissions: NONE,
  },
  async () => {
    for (const maxWaiting of [0, 2]) {
      const { pool } = fakePool({ poolSize: 1, maxWaiting });
      const held = await pool.acquire();
      const waiting = Array.from({ length: maxWaiting }, () => pool.acquire());
      const error = await assertRejects(
        () => pool.acquire(),
        TooManyWaitersError,
      );
      assertStringIncludes(error.message, `at most ${maxWaiting} may wait`);
      assertEquals(pool.stats().rejected, 1);
      held.release();
      for (const acquired of waiting) (await acquired).release();
      await pool.close();
    }
  },
);

Deno.test(
  "tryAcquire() gives what can be had at once, or nothing, and never waits",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool({ poolSize: 1 });
    const first = pool.tryAcquire();
    assert(first !== undefined);
    assertEquals(pool.tryAcquire(), undefined);
    first.release();
    const second = pool.tryAcquire();
    assert(second !== undefined);
    second.release();
    assertEquals([pool.stats().created, pool.stats().waiting], [1, 0]);
    await pool.close();
    assertEquals(pool.tryAcquire(), undefined);
    assertEquals(clock.pending, 0);
  },
);

// Size and age.

Deno.test(
  "connections beyond poolSize are opened in a burst and closed on return",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool({
      poolSize: 2,
      maxOverflow: 3,
      acquireTimeoutMs: 1,
    });
    const out = await Promise.all([1, 2, 3, 4, 5].map(() => pool.acquire()));
    const sixth = pool.acquire().catch((error) => error);
    await clock.advanceAsync(1);
    assertInstanceOf(await sixth, AcquireTimeoutError);
    for (const connection of out) connection.release();
    const { open, idle, retired, discarded } = pool.stats();
    assertEquals({ open, idle, retired, discarded }, {
      open: 2,
      idle: 2,
      retired: 3,
      discarded: 0,
    });
    await pool.close();
  },
);

Deno.test(
  "the connection used last is handed out first, so that the others can rest",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 3 });
    const out = await Promise.all([1, 2, 3].map(() => pool.acquire()));
    const last = raw(out[1] as PooledConnection);
    for (const i of [0, 2, 1]) out[i]?.release();
    for (let i = 0; i < 3; i++) {
      await pool.use((connection) => assertStrictEquals(raw(connection), last));
    }
    await pool.close();
  },
);

Deno.test("minIdle connections are opened in advance and replaced", {
  permissions: NONE,
}, async () => {
  const { pool, driver } = fakePool({ poolSize: 3, minIdle: 2 });
  assertEquals([pool.stats().idle, driver.attempts], [2, 2]);
  const connection = await pool.acquire();
  assertEquals([pool.stats().idle, pool.stats().open], [2, 3]);
  await connection.close();
  connection.release();
  assertEquals([pool.stats().idle, pool.stats().open], [2, 2]);
  await pool.close();
});

Deno.test("minIdle does not storm a database that refuses for good", {
  permissions: NONE,
}, async () => {
  const driver = new FakeDriver();
  driver.failure = new PermanentError("wrong password");
  const { pool, clock } = fakePool({ minIdle: 2, probeIntervalMs: 1000 }, {
    driver,
  });
  await clock.advanceAsync(60_000);
  assert(
    driver.attempts >= 60 && driver.attempts <= 121,
    `${driver.attempts} attempts`,
  );
  driver.failure = undefined;
  await clock.advanceAsync(1000);
  assertEquals(pool.stats().idle, 2);
  await pool.close();
});

Deno.test(
  "idle connections are closed after idleTimeoutMs, but not those that minIdle keeps",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool({
      poolSize: 3,
      minIdle: 1,
      idleTimeoutMs: 1000,
    });
    const out = await Promise.all([1, 2, 3].map(() => pool.acquire()));
    for (const connection of out) connection.release();
    await clock.advanceAsync(999);
    assertEquals(pool.stats().idle, 3);
    await clock.advanceAsync(1);
    assertEquals(pool.stats().idle, 1);
    await clock.advanceAsync(10_000);
    assertEquals(pool.stats().idle, 1);
    await pool.close();
  },
);

Deno.test(
  "a connection is replaced before maxLifetimeMs, and not while it is in use",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock, driver } = fakePool({
      poolSize: 1,
      maxLifetimeMs: 1000,
    });
    const held = await pool.acquire();
    await clock.advanceAsync(5000);
    assertEquals(raw(held).calls.close, 0);
    held.release();
    assertEquals([pool.stats().idle, pool.stats().retired], [0, 1]);
    await pool.use(() => {});
    await clock.advanceAsync(1000);
    assertEquals([pool.stats().idle, driver.connections.length], [0, 2]);
    await pool.close();
  },
);

Deno.test(
  "connections that were opened together do not all expire at the same moment",
  {
    permissions: NONE,
  },
  async () => {
    const clock = new VirtualClock();
    let draws = 0;
    const pool = new ConnectionPool({
      ...{ database: "fake.db", poolSize: 20, maxLifetimeMs: 10_000 },
    }, { driver: new FakeDriver(), clock, random: () => draws++ % 20 / 20 });
    const out = await Promise.all(
      Array.from({ length: 20 }, () => pool.acquire()),
    );
    for (const connection of out) connection.release();
    const retired: number[] = [];
    for (let ms = 0; ms < 10_000; ms += 50) {
      await clock.advanceAsync(50);
      retired.push(pool.stats().retired);
    }
    // None before nine tenths of its time, none after it, and one by one.
    assertEquals([retired[178], retired[199]], [0, 20]);
    const steps = retired.map((count, i) => count - (retired[i - 1] ?? 0));
    assertEquals(Math.max(...steps), 1);
    await pool.close();
  },
);

Deno.test(
  "minIdle connections do not grow stale: they are replaced, and checked while they rest",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock, driver } = fakePool({
      ...{ poolSize: 2, minIdle: 2, maxLifetimeMs: 1000, keepaliveMs: 100 },
    });
    await clock.advanceAsync(5000);
    assert(
      driver.connections.length >= 10,
      `${driver.connections.length} opened`,
    );
    assert(
      driver.connections.every(({ calls }) => calls.ping >= 8 || !calls.close),
    );
    assertEquals([pool.stats().idle, pool.stats().discarded], [2, 0]);
    await pool.close();
  },
);

Deno.test(
  "a waiter is served although what comes back is too old, used up or broken",
  {
    permissions: NONE,
  },
  async () => {
    for (
      const options of [{ maxUses: 1 }, { maxLifetimeMs: 10 }, { poolSize: 2 }]
    ) {
      const { pool, clock } = fakePool({ poolSize: 1, ...options });
      const held = await pool.acquire();
      const others = options.poolSize ? [await pool.acquire()] : [];
      await clock.advanceAsync(10);
      const waiting = pool.acquire();
      if (options.poolSize) await held.close();
      held.release();
      (await waiting).release();
      for (const other of others) other.release();
      await pool.close();
    }
  },
);

Deno.test("maxUses closes a connection after so many uses", {
  permissions: NONE,
}, async () => {
  const { pool } = fakePool({ poolSize: 1, maxUses: 3 });
  for (let i = 0; i < 7; i++) await pool.use(() => {});
  assertEquals([pool.stats().created, pool.stats().retired], [3, 2]);
  await pool.close();
});

Deno.test(
  "keepaliveMs pings idle connections, discards the dead, and does not prolong their rest",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock, driver } = fakePool({
      ...{
        poolSize: 2,
        keepaliveMs: 100,
        idleTimeoutMs: 1000,
        validate: "never",
      },
    });
    const out = [await pool.acquire(), await pool.acquire()];
    for (const connection of out) connection.release();
    const [first, second] = driver.connections as [
      FakeConnection,
      FakeConnection,
    ];
    await clock.advanceAsync(250);
    assertEquals([first.calls.ping, second.calls.ping], [2, 2]);
    second.onPing = (done) => done(new Error("dead"));
    await clock.advanceAsync(100);
    // Whatever broke the second broke the first, which is older, as well.
    assertEquals([pool.stats().discarded, pool.stats().idle], [2, 0]);
    await pool.use(() => {});
    await clock.advanceAsync(999);
    assertEquals(pool.stats().idle, 1);
    await clock.advanceAsync(1);
    assertEquals(pool.stats().idle, 0);
    await pool.close();
  },
);

Deno.test(
  "resize() changes the limits at work: more waiters served, or fewer connections kept",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 1 });
    const first = await pool.acquire();
    const waiting = [pool.acquire(), pool.acquire()];
    pool.resize({ poolSize: 3 });
    const out = [first, ...await Promise.all(waiting)];
    pool.resize({ poolSize: 1 });
    for (const connection of out) connection.release();
    assertEquals([pool.stats().open, pool.stats().poolSize], [1, 1]);
    pool.resize({ maxOverflow: 4 });
    assertEquals([pool.stats().poolSize, pool.stats().maxOverflow], [1, 4]);
    assertThrows(() => pool.resize({ poolSize: 0 }), ConfigError, "'poolSize'");
    assertThrows(
      () => pool.resize({ maxOverflow: -1 }),
      ConfigError,
      "'maxOverflow'",
    );
    assertEquals(pool.stats().poolSize, 1);
    await pool.close();
  },
);

// Checks.

Deno.test(
  "validate borrow pings before handing out, save what worked a moment ago",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock, driver } = fakePool({
      ...{ poolSize: 1, validate: "borrow", validationBypassMs: 500 },
    });
    await pool.use(() => {});
    await pool.use(() => {});
    const first = driver.connections[0] as FakeConnection;
    assertEquals(first.calls.ping, 0);
    await clock.advanceAsync(500);
    await pool.use((connection) => assertStrictEquals(raw(connection), first));
    assertEquals(first.calls.ping, 1);
    await clock.advanceAsync(500);
    first.onPing = (done) => done(new Error("dead"));
    await pool.use((connection) =>
      assertNotStrictEquals(raw(connection), first)
    );
    assertEquals([pool.stats().discarded, pool.stats().created], [1, 2]);
    await pool.close();
  },
);

Deno.test(
  "a waiter is not kept from an idle connection by another one's reset that hangs",
  { permissions: NONE },
  async () => {
    const { pool, clock } = fakePool({
      ...{ poolSize: 2, validate: "borrow", validationBypassMs: 100 },
    });
    const [resting, hanging] = [await pool.acquire(), await pool.acquire()];
    const rested = raw(resting);
    resting.release();
    await clock.advanceAsync(200);
    raw(hanging).onReset = () => {};
    hanging.release();
    using served = await pool.acquire({ timeoutMs: 1 });
    assertStrictEquals(raw(served), rested);
    await clock.advanceAsync(10_000);
  },
);

Deno.test(
  "a driver that throws where it should answer costs a connection, and nobody waits for ever",
  { permissions: NONE },
  async () => {
    const { pool, driver } = fakePool({ poolSize: 1 });
    const connection = await pool.acquire();
    Object.defineProperty(raw(connection), "isBroken", {
      get: () => {
        throw new Error("cannot tell");
      },
    });
    connection.release();
    assertEquals(pool.stats().discarded, 1);
    driver.failure = new Error("down");
    driver.isTransient = () => {
      throw new Error("cannot tell");
    };
    const error = await assertRejects(() => pool.acquire(), ConnectError);
    assertStrictEquals(error.cause, driver.failure);
    await pool.close();
  },
);

Deno.test(
  "an idle connection that the server closes is discarded when it happens, one in use on its return",
  { permissions: NONE },
  async () => {
    const driver = new FakeDriver();
    const lost: ((error: unknown) => void)[] = [];
    const connect = driver.connect.bind(driver);
    driver.connect = (done, ...rest: unknown[]) => {
      lost.push(rest[0] as (error: unknown) => void);
      return connect(done);
    };
    const { pool } = fakePool({ poolSize: 2 }, { driver });
    const [idle, held] = [await pool.acquire(), await pool.acquire()];
    const heldRaw = raw(held);
    idle.release();
    lost[0]?.(new Error("terminated"));
    const { open, discarded } = pool.stats();
    assertEquals({ open, discarded }, { open: 1, discarded: 1 });
    await heldRaw.close(() => {});
    lost[1]?.(new Error("terminated"));
    assertEquals(pool.stats().inUse, 1);
    held.release();
    assertEquals([pool.stats().open, pool.stats().discarded], [0, 2]);
    await pool.close();
  },
);

// When the database is down.

Deno.test(
  "a check that throws instead of failing costs the connection, not its place",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 1 });
    for (let i = 0; i < 20; i++) {
      const connection = await pool.acquire();
      raw(connection).onPing = () => {
        throw new Error("in the check");
      };
      connection.release();
    }
    const { created, discarded, open } = pool.stats();
    assertEquals({ created, discarded, open }, {
      created: 20,
      discarded: 20,
      open: 0,
    });
    await pool.close();
  },
);

Deno.test(
  "a permanent error is not retried, and everybody who waits is told at once",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new FakeDriver();
    driver.isManual = true;
    const { pool, clock } = fakePool({}, { driver });
    const waiting = [1, 2, 3].map(() => pool.acquire().catch((error) => error));
    const cause = new PermanentError("wrong password");
    driver.pending[0]?.fail(cause);
    for (const error of await Promise.all(waiting)) {
      assertInstanceOf(error, ConnectError);
      assertEquals(error.message, "Failed after 1 attempt: wrong password");
      assertStrictEquals(error.cause, cause);
    }
    assertEquals([driver.attempts, clock.now()], [1, 0]);
    await pool.close();
  },
);

Deno.test(
  "while the database is down one connect at a time probes it, and waiters are told why",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new FakeDriver();
    driver.failure = new Error("connection refused");
    const { pool, clock } = fakePool({
      ...{ poolSize: 10, maxConnecting: 10, probeIntervalMs: 1000 },
    }, { driver });
    const outcomes: unknown[] = [];
    // 100 clients come each 100 ms for ten seconds.
    for (let i = 0; i < 100; i++) {
      for (let j = 0; j < 100; j++) {
        pool.acquire().then(
          (c) => c.release(),
          (error) => outcomes.push(error),
        );
      }
      await clock.advanceAsync(100);
    }
    assert(driver.attempts <= 24, `${driver.attempts} attempts`);
    assert(outcomes.length >= 8900, `${outcomes.length} answered`);
    for (const error of outcomes) {
      assertInstanceOf(error, ConnectError);
      assertStrictEquals(error.cause, driver.failure);
    }
    await pool.close();
  },
);

Deno.test(
  "after an outage the waiters are served within a probe interval, and no stampede connects",
  { permissions: NONE },
  async () => {
    const driver = new FakeDriver();
    driver.failure = new Error("connection refused");
    const { pool, clock } = fakePool({
      ...{ poolSize: 10, maxConnecting: 10, probeIntervalMs: 1000 },
    }, { driver });
    const gone = pool.acquire().catch(() => {});
    await clock.advanceAsync(10_000);
    await gone;
    driver.failure = undefined;
    const { attempts } = driver;
    const served = Promise.all(
      Array.from({ length: 1000 }, () => pool.use(() => {})),
    );
    await clock.advanceAsync(1000);
    await served;
    assert(driver.attempts - attempts <= 10);
    await pool.close();
  },
);

Deno.test(
  "a connect that never ends gives up its place after timeoutMs, and a late one is closed",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new FakeDriver();
    driver.isManual = true;
    const { pool, clock } = fakePool({
      ...{ timeoutMs: 100, retry: { maxAttempts: 2, jitter: "none" } },
    }, { driver });
    const acquired = pool.acquire().catch((error) => error);
    await clock.advanceAsync(1000);
    const error = await acquired;
    assertInstanceOf(error, ConnectError);
    assertStringIncludes(error.message, "Failed after 2 attempts");
    assertStringIncludes(error.message, "did not answer within 100 ms");
    assertEquals(driver.pending.map(({ isCancelled }) => isCancelled), [
      true,
      true,
    ]);
    const late = driver.pending[0]?.succeed();
    assertEquals([late?.calls.close, pool.stats().open], [1, 0]);
    await pool.close();
  },
);

// The end.

Deno.test(
  "close() waits for connections in use, answers the queue at once, and leaves nothing",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock, driver } = fakePool();
    const held = [await pool.acquire(), await pool.acquire()];
    const waiting = pool.acquire().catch((error) => error);
    let report: unknown = "closing";
    const closing = pool.close().then((result) => report = result);
    assertInstanceOf(await waiting, PoolClosedError);
    await assertRejects(() => pool.acquire(), PoolClosedError);
    await clock.advanceAsync(100);
    assertEquals(report, "closing");
    for (const connection of held) connection.release();
    await closing;
    assertEquals(report, { forced: 0, unfinished: 0, holders: [] });
    assertEquals(driver.connections.map((c) => c.calls.close), [1, 1]);
    const { open, idle, inUse, waiting: left, opening, checking } = pool
      .stats();
    assertEquals([open, idle, inUse, left, opening, checking], [
      0,
      0,
      0,
      0,
      0,
      0,
    ]);
    assertEquals(clock.pending, 0);
    assertEquals(await pool.close(), { forced: 0, unfinished: 0, holders: [] });
  },
);

Deno.test(
  "close() takes connections by force after its timeout, and their holders learn it",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool();
    const held = await pool.acquire();
    const connection = raw(held);
    const closing = pool.close({ timeoutMs: 250 });
    await clock.advanceAsync(250);
    assertEquals(await closing, { forced: 1, unfinished: 0, holders: [] });
    assertEquals(connection.calls.close, 1);
    await assertRejects(
      () => held.query("SELECT 1"),
      PoolClosedError,
      "by force",
    );
    held.release();
    assertEquals([pool.stats().open, clock.pending], [0, 0]);
  },
);

Deno.test(
  "an acquire after close() fails at once, without waiting out its timeout",
  { permissions: NONE },
  async () => {
    const { pool, clock } = fakePool({ acquireTimeoutMs: 30_000 });
    const held = await pool.acquire();
    const closing = pool.close();
    const startMs = clock.now();
    await assertRejects(() => pool.acquire(), PoolClosedError);
    assertStrictEquals(pool.tryAcquire(), undefined);
    held.release();
    await closing;
    await assertRejects(() => pool.acquire(), PoolClosedError);
    assertEquals(clock.now(), startMs);
  },
);

Deno.test("close() does not hang on a connection whose own close hangs", {
  permissions: NONE,
}, async () => {
  const { pool, clock } = fakePool();
  const held = await pool.acquire();
  raw(held).onClose = () => {};
  held.release();
  const closing = pool.close({ timeoutMs: 100 });
  await clock.advanceAsync(100);
  assertEquals(await closing, { forced: 0, unfinished: 1, holders: [] });
  assertEquals(clock.pending, 0);
});

// SQLite in memory.

Deno.test(
  "all users of a pool on :memory: see one database, and nothing wipes it",
  {
    permissions: MEMORY,
  },
  async () => {
    await using pool = new ConnectionPool({
      ...{
        database: ":memory:",
        idleTimeoutMs: 1,
        maxUses: 1,
        maxLifetimeMs: 1,
      },
    });
    await pool.use((c) => c.execute("CREATE TABLE t (x)"));
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        pool.use(async (c) => {
          await c.execute("INSERT INTO t VALUES (?)", [i]);
        })),
    );
    assertEquals(pool.shrink(0), 0);
    const rows = await pool.use((c) => c.query("SELECT count(*) AS n FROM t"));
    assertEquals(rows, [{ n: 20 }]);
    const { created, peak, limit } = pool.stats();
    assertEquals({ created, peak, limit }, { created: 1, peak: 1, limit: 1 });
  },
);
