/**
 * The SQLite driver, on real files and with real locks.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
} from "@std/assert";
import { LockTimeoutError, ReleaseError } from "./errors.ts";
import { ConnectionPool } from "./pool.ts";
import type { PooledConnection } from "./pooled_connection.ts";
import { SqliteDriver } from "./sqlite.ts";
import {
  FILES,
  FILES_AND_PROCESSES,
  holdLock,
  MEMORY,
  temporaryFolder,
} from "./testing.ts";
import { settled, VirtualClock } from "./virtual_clock.ts";

/** A pool on a real file, whose waiting happens in virtual time. */
function filePool(
  path: string,
  timeoutMs = 5000,
): { pool: ConnectionPool; clock: VirtualClock } {
  const clock = new VirtualClock();
  const driver = new SqliteDriver({ path, timeoutMs, clock });
  const pool = new ConnectionPool({ database: path, timeoutMs }, {
    driver,
    clock,
  });
  return { pool, clock };
}

async function withMemory(
  fn: (connection: PooledConnection) => Promise<void>,
): Promise<void> {
  await using pool = new ConnectionPool();
  await pool.use(fn);
}

// Values.

Deno.test(
  "integers come back exact: as numbers up to 53 bits, as bigints beyond",
  {
    permissions: MEMORY,
  },
  () =>
    withMemory(async (connection) => {
      const values = [
        ...[0, 1, -1, 2 ** 31 - 1, 2 ** 31, -(2 ** 31) - 1, 2 ** 40],
        ...[Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER],
        ...[2n ** 53n, 2n ** 53n + 1n, -(2n ** 53n) - 1n],
        ...[2n ** 63n - 1n, -(2n ** 63n)],
      ];
      await connection.execute(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)",
      );
      for (const value of values) {
        await connection.execute("INSERT INTO t (x) VALUES (?)", [value]);
        const [row] = await connection.query("SELECT ? AS x, typeof(?) AS t", [
          value,
          value,
        ]);
        assertEquals(row, { x: value, t: "integer" });
      }
      const rows = await connection.query("SELECT x FROM t ORDER BY id");
      assertEquals(rows.map(({ x }) => x), values);
      // A bigint that a number can hold is the same integer.
      assertEquals(await connection.query("SELECT ? AS x", [7n]), [{ x: 7 }]);
    }),
);

Deno.test(
  "reals, texts, blobs, nulls, booleans and dates come back as SQLite keeps them",
  {
    permissions: MEMORY,
  },
  () =>
    withMemory(async (connection) => {
      const blob = new Uint8Array([0, 255, 0, 1]);
      const date = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 6));
      const pairs = [
        [1.5, 1.5],
        [-1e-300, -1e-300],
        [-0, 0],
        ["", ""],
        ["naïve 🙂 'quoted' \"twice\" \n", "naïve 🙂 'quoted' \"twice\" \n"],
        [blob, blob],
        [new Uint8Array(0), new Uint8Array(0)],
        [null, null],
        [true, 1],
        [false, 0],
        [date, "2026-01-02T03:04:05.006Z"],
      ] as const;
      for (const [given, kept] of pairs) {
        const byPosition = await connection.query("SELECT ? AS x", [given]);
        const byName = await connection.query("SELECT :v AS x", { v: given });
        assertEquals([byPosition, byName], [[{ x: kept }], [{ x: kept }]]);
      }
    }),
);

Deno.test("a value that SQLite would bend without a word is refused", {
  permissions: MEMORY,
}, () =>
  withMemory(async (connection) => {
    const wrong: [unknown, string][] = [
      [undefined, "parameter 1 as it is undefined; use null"],
      ["a\0b", "parameter 1 as it holds a NUL character"],
      [2 ** 53, "use a bigint"],
      [1e300, "use a bigint"],
      [2n ** 63n, "needs more than 64 bits"],
    ];
    for (const [value, message] of wrong) {
      const parameters = [value] as [number];
      await assertRejects(
        () => connection.query("SELECT ? AS x", parameters),
        RangeError,
        message,
      );
      await assertRejects(
        () => connection.execute("SELECT :v AS x", { v: parameters[0] }),
        RangeError,
      );
    }
  }));

// Statements.

Deno.test(
  "execute() counts the rows it changed, and runs all statements of a script",
  {
    permissions: MEMORY,
  },
  () =>
    withMemory(async (connection) => {
      await connection.execute(
        "CREATE TABLE a (x); CREATE TABLE b (x); -- end",
      );
      const insert = await connection.execute(
        "INSERT INTO a VALUES (1), (2), (?)",
        [3],
      );
      assertEquals(insert, { changes: 3 });
      assertEquals(await connection.execute("CREATE TABLE c (x)"), {
        changes: 0,
      });
      assertEquals(await connection.execute("DELETE FROM a WHERE x > 1"), {
        changes: 2,
      });
      assertEquals(await connection.query("SELECT * FROM b"), []);
    }),
);

Deno.test("several statements where one is expected are refused, not cut", {
  permissions: MEMORY,
}, () =>
  withMemory(async (connection) => {
    await connection.execute("CREATE TABLE t (x)");
    const two = "INSERT INTO t VALUES (?); INSERT INTO t VALUES (2)";
    await assertRejects(
      () => connection.execute(two, [1]),
      SyntaxError,
      "several",
    );
    await assertRejects(
      () => connection.query("SELECT 1; SELECT 2"),
      SyntaxError,
    );
    // A semicolon in a text or a comment ends nothing.
    await connection.execute("INSERT INTO t VALUES ('a;b'); -- c; d");
    const insert = "/* one; */ -- two; \nINSERT INTO t VALUES (?)";
    assertEquals(await connection.execute(insert, [3]), { changes: 1 });
    const script = "INSERT INTO t VALUES (4); INSERT INTO t VALUES (5)";
    assertEquals(await connection.execute(script), { changes: 2 });
    assertEquals(await connection.execute("SELECT 1; SELECT 2"), {
      changes: 0,
    });
    const rows = await connection.query("SELECT x FROM t");
    assertEquals(rows.map(({ x }) => x), ["a;b", 3, 4, 5]);
  }));

Deno.test(
  "a failed statement says why, and the connection goes on as if nothing had been",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const { pool, clock } = filePool(folder.file("a.db"));
    const insert = "INSERT INTO t VALUES (?)";
    await pool.use(async (connection) => {
      await assertRejects(
        () => connection.query("SELEC 1"),
        Error,
        "syntax error",
      );
      await connection.execute("CREATE TABLE t (x UNIQUE)");
      await connection.execute(insert, [1]);
      await assertRejects(
        () => connection.execute(insert, [1]),
        Error,
        "UNIQUE",
      );
      await connection.execute(insert, [2]);
    });
    await pool.use((connection) => connection.execute(insert, [3]));
    assertEquals([pool.stats().discarded, clock.pending], [0, 0]);
    await pool.close();
    // Committed, which only another connection can tell.
    const { pool: other } = filePool(folder.file("a.db"));
    const rows = await other.use((connection) =>
      connection.query("SELECT x FROM t")
    );
    assertEquals(rows.map(({ x }) => x), [1, 2, 3]);
    await other.close();
  },
);

Deno.test(
  "more statements than a connection keeps work, also when they take turns",
  {
    permissions: MEMORY,
  },
  () =>
    withMemory(async (connection) => {
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 300; i++) {
          assertEquals(await connection.query(`SELECT ${i} AS x`), [{ x: i }]);
        }
      }
    }),
);

Deno.test(
  "iterate() gives rows one by one, beside other uses of the same statement",
  {
    permissions: MEMORY,
  },
  () =>
    withMemory(async (connection) => {
      const sql = "SELECT value AS x FROM json_each(?)";
      const list = JSON.stringify([1, 2, 3, 4]);
      const seen: unknown[] = [];
      for await (const { x } of connection.iterate(sql, [list])) {
        seen.push(x);
        assertEquals((await connection.query(sql, ["[9]"])).length, 1);
      }
      assertEquals(seen, [1, 2, 3, 4]);
    }),
);

Deno.test(
  "iterate() left half way holds no lock, and one that outlives its loan ends",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const { pool } = filePool(folder.file("a.db"));
    const connection = await pool.acquire();
    await connection.execute(
      "CREATE TABLE t (x); INSERT INTO t VALUES (1), (2), (3)",
    );
    for await (const _ of connection.iterate("SELECT x FROM t")) break;
    // A reader left in the middle would keep this from truncating the log.
    const [checkpoint] = await connection.query(
      "PRAGMA wal_checkpoint(TRUNCATE)",
    );
    assertEquals(checkpoint, { busy: 0, log: 0, checkpointed: 0 });
    const rows = connection.iterate("SELECT x FROM t");
    assertEquals((await rows.next()).value, { x: 1 });
    connection.release();
    await assertRejects(() => rows.next(), ReleaseError);
    await pool.close();
  },
);

// Opening.

Deno.test("a file database is opened in WAL mode with foreign keys enforced", {
  permissions: FILES,
}, async () => {
  await using folder = await temporaryFolder();
  const { pool } = filePool(folder.file("a.db"));
  await pool.use(async (connection) => {
    assertEquals(await connection.query("PRAGMA journal_mode"), [{
      journal_mode: "wal",
    }]);
    await connection.execute("CREATE TABLE p (id PRIMARY KEY)");
    await connection.execute("CREATE TABLE c (p REFERENCES p (id))");
    await assertRejects(
      () => connection.execute("INSERT INTO c VALUES (1)"),
      Error,
      "FOREIGN KEY",
    );
  });
  await pool.close();
});

Deno.test(
  "a file that is no database fails at once, with its name, and stays as it is",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("letter.txt");
    const text = "Dear Sir or Madam, this is no database. ".repeat(100);
    await Deno.writeTextFile(path, text);
    const { pool } = filePool(path);
    await assertRejects(
      () => pool.acquire(),
      Error,
      `Failed after 1 attempt: file is not a database: ${path}`,
    );
    assertEquals(await Deno.readTextFile(path), text);
    await pool.close();
  },
);

// Transactions.

Deno.test(
  "transaction() commits what returns, rolls back what throws, and nests by savepoints",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const { pool } = filePool(folder.file("a.db"));
    const insert = "INSERT INTO t VALUES (?)";
    await pool.use((connection) => connection.execute("CREATE TABLE t (x)"));
    const result = await pool.transaction(async (connection) => {
      await connection.execute(insert, [1]);
      const inner = connection.transaction(async () => {
        await connection.execute(insert, [2]);
        await connection.transaction(() => connection.execute(insert, [3]));
        throw new Error("inner");
      });
      await assertRejects(() => inner, Error, "inner");
      await connection.transaction(() => connection.execute(insert, [4]));
      return "done";
    });
    assertEquals(result, "done");
    const reason = new Error("outer");
    const failing = pool.transaction(async (connection) => {
      await connection.execute(insert, [5]);
      throw reason;
    });
    assertStrictEquals(await failing.catch((error) => error), reason);
    const rows = await pool.use((connection) =>
      connection.query("SELECT x FROM t")
    );
    assertEquals(rows, [{ x: 1 }, { x: 4 }]);
    await pool.close();
  },
);

Deno.test(
  "a connection released in the midst of its own transaction is rolled back, and says so",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const { pool } = filePool(folder.file("a.db"));
    await pool.use((connection) => connection.execute("CREATE TABLE t (x)"));
    const connection = await pool.acquire();
    await assertRejects(
      () =>
        connection.transaction(async () => {
          await connection.execute("INSERT INTO t VALUES (1)");
          connection.release();
        }),
      ReleaseError,
    );
    assertEquals(await pool.use((c) => c.query("SELECT x FROM t")), []);
    // The next writer is not kept waiting.
    await pool.transaction((c) => c.execute("INSERT INTO t VALUES (2)"));
    await pool.close();
  },
);

// Locks.

Deno.test(
  "the writers of a pool take turns in their order, and no reader waits for them",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const { pool, clock } = filePool(folder.file("a.db"));
    await pool.use((connection) =>
      connection.execute("CREATE TABLE t (x INTEGER)")
    );
    const order: number[] = [];
    const writers = Array.from(
      { length: 10 },
      (_, i) =>
        pool.transaction(async (connection) => {
          await connection.execute("INSERT INTO t VALUES (?)", [i]);
          for (let turn = 0; turn < 3; turn++) {
            await settled();
          }
          order.push(i);
        }),
    );
    await settled();
    const rows = await pool.use((connection) =>
      connection.query("SELECT count(*) AS n FROM t")
    );
    assertEquals(rows, [{ n: 0 }]);
    await Promise.all(writers);
    assertEquals(order, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // They handed the turn on; nobody found the database locked and slept.
    assertEquals(clock.now(), 0);
    await pool.close();
  },
);

Deno.test("a statement of its own waits for a transaction of the same pool", {
  permissions: FILES,
}, async () => {
  await using folder = await temporaryFolder();
  const { pool, clock } = filePool(folder.file("a.db"));
  const insert = "INSERT INTO t VALUES (?)";
  await pool.use((connection) => connection.execute("CREATE TABLE t (x)"));
  const order: string[] = [];
  const transaction = pool.transaction(async (connection) => {
    await connection.execute(insert, [1]);
    for (let turn = 0; turn < 3; turn++) await settled();
    order.push("transaction");
  });
  await settled();
  const single = pool.use((connection) => connection.execute(insert, [2])).then(
    () => {
      order.push("single");
    },
  );
  await Promise.all([transaction, single]);
  assertEquals(order, ["transaction", "single"]);
  assertEquals(clock.now(), 0);
  await pool.close();
});

Deno.test(
  "a lock of another process is waited for until it goes, however often it was tried",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("a.db");
    const { pool, clock } = filePool(path, 60_000);
    await pool.use((connection) => connection.execute("CREATE TABLE t (x)"));
    await using lock = await holdLock(path);
    const writes = Promise.all([
      pool.use((connection) => connection.execute("INSERT INTO t VALUES (1)")),
      pool.transaction((connection) =>
        connection.execute("INSERT INTO t VALUES (2)")
      ),
    ]);
    await clock.advanceAsync(30_000);
    assertEquals(pool.stats().inUse, 2);
    await lock.release();
    await clock.advanceAsync(25);
    await writes;
    const rows = await pool.use((connection) =>
      connection.query("SELECT x FROM t")
    );
    assertEquals(rows, [{ x: 1 }, { x: 2 }]);
    await pool.close();
  },
);

Deno.test(
  "a writer that waits longer than timeoutMs for another of its pool is told so",
  {
    permissions: FILES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const { pool, clock } = filePool(folder.file("a.db"), 100);
    let finish = (): void => {};
    const slow = pool.transaction(() =>
      new Promise<void>((resolve) => finish = resolve)
    );
    await settled();
    const waiting = pool.transaction(() => {}).catch((error) => error);
    await clock.advanceAsync(100);
    assertInstanceOf(await waiting, LockTimeoutError);
    finish();
    await slow;
    await pool.transaction(() => {});
    await pool.close();
  },
);

Deno.test(
  "a statement that waits for a lock dies with its loan, and harms nobody's later",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("a.db");
    const { pool, clock } = filePool(path);
    await pool.use((connection) => connection.execute("CREATE TABLE t (x)"));
    await using lock = await holdLock(path);
    const connection = await pool.acquire();
    const lost = connection.execute("INSERT INTO t VALUES (1)").catch((error) =>
      error
    );
    await clock.advanceAsync(50);
    connection.release();
    await lock.release();
    await clock.advanceAsync(100);
    assertInstanceOf(await lost, ReleaseError);
    assertEquals(await pool.use((c) => c.query("SELECT x FROM t")), []);
    await pool.close();
  },
);

Deno.test(
  "four processes write to one file at once: no busy error, no lost row",
  {
    permissions: FILES_AND_PROCESSES,
  },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("a.db");
    const module = new URL("./mod.ts", import.meta.url).href;
    const code = `
    import { ConnectionPool } from ${JSON.stringify(module)};
    await using pool = new ConnectionPool({ database: ${
      JSON.stringify(path)
    }, timeoutMs: 60000 });
    await pool.use((c) => c.execute("CREATE TABLE IF NOT EXISTS t (x)"));
    await Promise.all(Array.from({ length: 100 }, (_, i) => i % 2 === 0
      ? pool.use((c) => c.execute("INSERT INTO t VALUES (?)", [i]))
      : pool.transaction((c) => c.execute("INSERT INTO t VALUES (?)", [i]))));
  `;
    const runs = await Promise.all(
      [1, 2, 3, 4].map(() =>
        new Deno.Command(Deno.execPath(), {
          args: ["eval", code],
          stderr: "piped",
        }).output()
      ),
    );
    for (const { success, stderr } of runs) {
      assert(success, new TextDecoder().decode(stderr));
    }
    const { pool } = filePool(path);
    await pool.use(async (connection) => {
      assertEquals(await connection.query("SELECT count(*) AS n FROM t"), [{
        n: 400,
      }]);
      assertEquals(await connection.query("PRAGMA integrity_check"), [
        { integrity_check: "ok" },
      ]);
    });
    await pool.close();
  },
);
