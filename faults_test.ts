/**
 * Real faults on real files: killed processes, lost files, full disks, and an
 * hour of trouble squeezed into virtual time.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import { delay } from "./clock.ts";
import { ConnectionPool } from "./pool.ts";
import { SqliteDriver } from "./sqlite.ts";
import {
  FakeDriver,
  FILES,
  FILES_AND_PROCESSES,
  temporaryFolder,
} from "./testing.ts";
import { VirtualClock } from "./virtual_clock.ts";

const NONE = "none" as const;

const KILLED = `
import { ConnectionPool } from MODULE;
const pool = new ConnectionPool({ database: PATH });
await pool.transaction(async (connection) => {
  await connection.execute("CREATE TABLE t (x)");
  await connection.execute("INSERT INTO t VALUES ('committed')");
});
const connection = await pool.acquire();
await connection.execute("BEGIN IMMEDIATE");
// More than SQLite keeps in memory, so that some of it is in the log already.
await connection.execute(
  "INSERT INTO t SELECT hex(randomblob(1000)) FROM json_each(?)",
  [JSON.stringify(Array.from({ length: 5000 }, (_, i) => i))],
);
console.log("in the middle");
await new Promise((resolve) => setTimeout(resolve, 60_000));
`;

Deno.test(
  "a process killed in the middle of a transaction leaves all or nothing",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("a.db");
    const module = JSON.stringify(new URL("./mod.ts", import.meta.url).href);
    const code = KILLED.replace("MODULE", module).replace(
      "PATH",
      JSON.stringify(path),
    );
    const child = new Deno.Command(Deno.execPath(), {
      args: ["eval", code],
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGKILL");
    await child.status;
    await reader.cancel();
    await using pool = new ConnectionPool({ database: path });
    using connection = await pool.acquire();
    assertEquals(await connection.query("SELECT x FROM t"), [{
      x: "committed",
    }]);
    assertEquals(await connection.query("PRAGMA integrity_check"), [
      { integrity_check: "ok" },
    ]);
  },
);

Deno.test(
  "a database file deleted or replaced under the pool is noticed, and nothing is written to nowhere",
  {
    permissions: FILES,
  },
  async () => {
    for (const isReplaced of [false, true]) {
      await using folder = await temporaryFolder();
      const path = folder.file("a.db");
      const clock = new VirtualClock();
      const driver = new SqliteDriver({ path, timeoutMs: 100, clock });
      const pool = new ConnectionPool({ database: path }, { driver, clock });
      const create = "CREATE TABLE IF NOT EXISTS t (x)";
      const held = await Promise.all([1, 2, 3].map(() => pool.acquire()));
      await held[0]?.execute(create);
      held[0]?.release();
      held[1]?.release();
      for (const suffix of ["", "-wal", "-shm"]) {
        await Deno.remove(path + suffix);
      }
      if (isReplaced) await Deno.writeFile(path, new Uint8Array());
      // Whoever finds out is told, in a transaction at once, else within 100 ms.
      await assertRejects(
        () => pool.transaction((c) => c.execute("INSERT INTO t VALUES (1)")),
        Error,
        "deleted or replaced",
      );
      clock.advance(100);
      await assertRejects(
        async () => await held[2]?.execute("INSERT INTO t VALUES (2)"),
        Error,
        "deleted or replaced",
      );
      held[2]?.release();
      // Nobody after them is given what is lost.
      await pool.transaction(async (connection) => {
        await connection.execute(create);
        await connection.execute("INSERT INTO t VALUES (3)");
      });
      await pool.close();
      assertEquals(pool.stats().discarded, 3);
      await using after = new ConnectionPool({ database: path });
      assertEquals(await after.use((c) => c.query("SELECT x FROM t")), [{
        x: 3,
      }]);
    }
  },
);

Deno.test(
  "a full disk rolls the transaction back, and the connection goes on",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    await using pool = new ConnectionPool({ database: folder.file("a.db") });
    using connection = await pool.acquire();
    await connection.execute("CREATE TABLE t (x)");
    await connection.execute("INSERT INTO t VALUES ('before')");
    // SQLite gives the same error for a file that may not grow.
    await connection.query("PRAGMA max_page_count = 20");
    await assertRejects(
      () =>
        connection.transaction(async () => {
          for (let i = 0; i < 100; i++) {
            await connection.execute(
              "INSERT INTO t VALUES (hex(randomblob(1000)))",
            );
          }
        }),
      Error,
      "database or disk is full",
    );
    assertEquals(connection.inTransaction, false);
    await connection.execute("INSERT INTO t VALUES ('after')");
    const rows = await connection.query("SELECT x FROM t");
    assertEquals(rows, [{ x: "before" }, { x: "after" }]);
  },
);

Deno.test(
  "an hour of load with outages, broken connections and impatient callers leaks nothing",
  {
    permissions: NONE,
  },
  async () => {
    const seed = 20261123;
    let state = seed;
    // A linear congruential generator (Numerical Recipes).
    const random = (): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
    const clock = new VirtualClock();
    const driver = new FakeDriver();
    const pool = new ConnectionPool({
      ...{
        database: "fake.db",
        poolSize: 5,
        maxOverflow: 5,
        acquireTimeoutMs: 500,
      },
      ...{ idleTimeoutMs: 10_000, maxLifetimeMs: 300_000, keepaliveMs: 2000 },
      ...{ minIdle: 1, probeIntervalMs: 1000 },
    }, { driver, clock, random });
    const outcomes = { served: 0, refused: 0 };
    const request = async (): Promise<void> => {
      try {
        using connection = await pool.acquire();
        await delay(random() * 200, { clock });
        if (random() < 0.01) await connection.close();
        outcomes.served++;
      } catch {
        outcomes.refused++;
      }
    };
    const hourMs = 3_600_000;
    let requests = 0;
    const arrive = (): void => {
      if (clock.now() >= hourMs) return;
      requests++;
      void request();
      clock.setTimer(arrive, -Math.log(1 - random()) * 100);
    };
    arrive();
    for (let minute = 0; minute < 60; minute++) {
      // Ten seconds of each tenth minute the database is away.
      driver.failure = minute % 10 === 9 ? new Error("down") : undefined;
      await clock.advanceAsync(10_000);
      driver.failure = undefined;
      await clock.advanceAsync(50_000);
      assert(pool.stats().open <= 10, `seed ${seed}`);
    }
    await clock.advanceAsync(60_000);
    assertEquals(outcomes.served + outcomes.refused, requests, `seed ${seed}`);
    assert(
      outcomes.served > 0.95 * requests,
      `${outcomes.served} of ${requests}`,
    );
    const { inUse, waiting, idle, created, discarded, retired } = pool.stats();
    assertEquals({ inUse, waiting, idle }, { inUse: 0, waiting: 0, idle: 1 });
    assertEquals(created - discarded - retired, 1);
    await pool.close();
    assertEquals(clock.pending, 0);
  },
);
