import {
  assert,
  assertEquals,
  assertLess,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import { ConnectionConfig, type ConnectionOptions } from "./config.ts";
import { LockTimeoutError } from "./errors.ts";
import { healthCheck } from "./health.ts";
import { LabelError } from "./labels.ts";
import { ConnectionPool } from "./pool.ts";
import {
  FILES,
  MEMORY,
  type TemporaryFolder,
  temporaryFolder,
} from "./testing.ts";
import {
  FileError,
  reportPool,
  run,
  runDemoQueries,
  type RunOptions,
  type RunSummary,
} from "./workload.ts";
import type { LabelRow } from "./events_table.ts";

const permissions = FILES;

/** Runs the job on `text`, in files inside `folder`. */
async function runOn(
  folder: TemporaryFolder,
  text: string | Uint8Array,
  { database, ...options }: Partial<RunOptions> & ConnectionOptions = {},
): Promise<RunSummary> {
  const input = folder.file("labels.txt");
  await Deno.writeFile(
    input,
    typeof text === "string" ? new TextEncoder().encode(text) : text,
  );
  return await run({
    input,
    output: folder.file("out.json"),
    config: new ConnectionConfig({ database: database ?? folder.file("a.db") }),
    ...options,
  });
}

/** What the job has written. */
async function written(folder: TemporaryFolder): Promise<{
  rows_inserted: number;
  rows: LabelRow[];
  health: Record<string, unknown>;
  pool_stats: Record<string, unknown>;
}> {
  return JSON.parse(await Deno.readTextFile(folder.file("out.json")));
}

/** The rows in the database, in order; undefined without a table. */
async function rowsIn(path: string): Promise<LabelRow[] | undefined> {
  await using pool = new ConnectionPool({ database: path });
  return await pool.use(async (connection) => {
    const tables = "SELECT name FROM sqlite_schema WHERE name = 'events'";
    if ((await connection.query(tables)).length === 0) return undefined;
    const rows = await connection.query("SELECT * FROM events ORDER BY id");
    return rows as unknown as LabelRow[];
  });
}

async function countIn(path: string): Promise<unknown> {
  await using pool = new ConnectionPool({ database: path });
  const rows = await pool.use((connection) =>
    connection.query("SELECT count(*) AS count FROM events")
  );
  return rows[0]?.["count"];
}

async function change(path: string, sql: string): Promise<void> {
  await using pool = new ConnectionPool({ database: path });
  await pool.use((connection) => connection.execute(sql));
}

function rowsOf(labels: readonly string[], firstId = 1): LabelRow[] {
  return labels.map((label, i) => ({ id: firstId + i, label }));
}

async function namesIn(folder: TemporaryFolder): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder.path)) names.push(name);
  return names.sort();
}

/** Checks that a failed job has left no trace beside its input. */
async function assertUntouched(
  folder: TemporaryFolder,
  rows: LabelRow[] | undefined,
  output?: string,
): Promise<void> {
  assertEquals(await rowsIn(folder.file("a.db")), rows);
  const names = ["a.db", "labels.txt"];
  if (output !== undefined) {
    names.push("out.json");
    assertEquals(await Deno.readTextFile(folder.file("out.json")), output);
  }
  assertEquals(await namesIn(folder), names);
}

// More than a batch, so that some are in the database when the rest goes wrong.
const MANY = Array.from({ length: 20_000 }, (_, i) => `label ${i}`);

Deno.test({
  name: "run() inserts the labels and writes the rows with the pool's numbers",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const summary = await runOn(folder, "a\n\n b \n");
    const { rows, ...rest } = await written(folder);
    assertEquals(rows, rowsOf(["a", "b"]));
    assertEquals<unknown>(rest, summary);
    assertEquals(summary.rows_inserted, 2);
    assertEquals(summary.health.status, "healthy");
    const { wait_ms, ...counts } = summary.pool_stats;
    assertEquals<unknown>(counts, {
      created: 1,
      reused: 1,
      idle: 0,
      pool_size: 5,
      peak: 1,
      max_overflow: 10,
      in_use: 0,
      open: 0,
      waiting: 0,
      discarded: 0,
      timeouts: 0,
      connect_failures: 0,
    });
    assertEquals(Object.keys(wait_ms), ["mean", "p50", "p95", "p99", "max"]);
    assertEquals(await rowsIn(folder.file("a.db")), rows);
    assertEquals(await namesIn(folder), ["a.db", "labels.txt", "out.json"]);
  },
});

Deno.test({
  name:
    "run() writes its keys in the promised order, for those who compare text",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await runOn(folder, "a\n");
    const { rows, health, pool_stats, ...rest } = await written(folder);
    const text = await Deno.readTextFile(folder.file("out.json"));
    assertEquals(Object.keys(JSON.parse(text)), [
      "rows_inserted",
      "rows",
      "health",
      "pool_stats",
    ]);
    assertEquals(Object.keys(rest), ["rows_inserted"]);
    assertEquals(Object.keys(rows[0] ?? {}), ["id", "label"]);
    assertEquals(Object.keys(health), ["status", "sqlite_version"]);
    const firstKeys = Object.keys(pool_stats).slice(0, 5);
    assertEquals(firstKeys, ["created", "reused", "idle", "pool_size", "peak"]);
    assert(text.endsWith("}\n"));
  },
});

Deno.test({
  name: "run() needs no file for its database, as :memory: is one connection",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const summary = await runOn(folder, "a\nb\n", { database: ":memory:" });
    assertEquals(summary.rows_inserted, 2);
    assertEquals(summary.health.status, "healthy");
    assertEquals(summary.pool_stats.created, 1);
    assertEquals((await written(folder)).rows, rowsOf(["a", "b"]));
    assertEquals(await namesIn(folder), ["labels.txt", "out.json"]);
  },
});

Deno.test({
  name: "run() reports the settings of its pool",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const config = new ConnectionConfig({ poolSize: 2, maxOverflow: 0 });
    const { pool_stats } = await runOn(folder, "a\n", { config });
    assertEquals([pool_stats.pool_size, pool_stats.max_overflow], [2, 0]);
  },
});

Deno.test({
  name: "run() echoes the very bytes that it writes to the file",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const echoed: Uint8Array<ArrayBuffer>[] = [];
    const echo = new WritableStream<Uint8Array>({
      write(chunk) {
        echoed.push(new Uint8Array(chunk));
      },
    });
    await runOn(folder, MANY.join("\n"), { echo });
    const text = await new Blob(echoed).text();
    assert(text === await Deno.readTextFile(folder.file("out.json")));
  },
});

Deno.test({
  name: "run() on an empty input writes a valid summary of nothing",
  permissions,
  async fn() {
    for (const text of ["", "\n \n", "\ufeff"]) {
      await using folder = await temporaryFolder();
      const summary = await runOn(folder, text);
      assertEquals(summary.rows_inserted, 0);
      const { rows_inserted, rows, health } = await written(folder);
      assertEquals([rows_inserted, rows], [0, []]);
      assertEquals(health["status"], "healthy");
      assertEquals(await rowsIn(folder.file("a.db")), []);
    }
  },
});

Deno.test({
  name: "run() reports only its own rows, though the table had others before",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await runOn(folder, "a\nb\n");
    const summary = await runOn(folder, "b\nc\n");
    assertEquals(summary.rows_inserted, 2);
    assertEquals((await written(folder)).rows, rowsOf(["b", "c"], 3));
    assertEquals(
      await rowsIn(folder.file("a.db")),
      rowsOf(["a", "b", "b", "c"]),
    );
    // Gaps and negative ids as well.
    await change(folder.file("a.db"), "UPDATE events SET id = id - 100");
    await runOn(folder, "d\n");
    assertEquals((await written(folder)).rows, rowsOf(["d"], -95));
  },
});

Deno.test({
  name: "run() keeps ids exact beyond the exact integers of JavaScript",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await runOn(folder, "a\n");
    await change(
      folder.file("a.db"),
      "UPDATE events SET id = 9007199254740995",
    );
    assertEquals((await runOn(folder, "b\nc\n")).rows_inserted, 2);
    const text = await Deno.readTextFile(folder.file("out.json"));
    assertStringIncludes(text, '{"id":9007199254740996,"label":"b"}');
    assertStringIncludes(text, '{"id":9007199254740997,"label":"c"}');
    assertEquals(JSON.parse(text).rows.length, 2);
  },
});

Deno.test({
  name: "run() refuses a table whose ids do not tell its own rows from others",
  permissions,
  async fn() {
    const tables = [
      "CREATE TABLE events (id INTEGER, label TEXT)",
      "CREATE TABLE events (id TEXT DEFAULT 'x', label TEXT);" +
      "INSERT INTO events VALUES ('y', 'old')",
      "CREATE TABLE events (id INTEGER PRIMARY KEY, label TEXT);" +
      "INSERT INTO events VALUES (9223372036854775807, 'x')",
      "CREATE TABLE events (name TEXT)",
      "CREATE VIEW events AS SELECT 1 AS id, 'a' AS label",
    ];
    for (const sql of tables) {
      await using folder = await temporaryFolder();
      await change(folder.file("a.db"), sql);
      const before = await countIn(folder.file("a.db"));
      await assertRejects(() => runOn(folder, "a\nb\n"), Error, "", sql);
      assertEquals(await countIn(folder.file("a.db")), before);
      assertEquals(await namesIn(folder), ["a.db", "labels.txt"]);
    }
  },
});

Deno.test({
  name: "run() takes any label through the database and back without a change",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const odd = [
      '"',
      "\\",
      '\\"',
      "'",
      "''; DROP TABLE events; --",
      "\u0001\u0002\u001f\u007f\u0085",
      "a\tb",
      "a\rb",
      "😀👩‍👩‍👧",
      "e\u0301",
      "a\u2028\u2029b",
      "a\ufeffb",
      "\u{10ffff}\ufffd\uffff",
      "null",
      "true",
      "1",
      "1e5",
      "007",
      "-0",
      "{}",
      '{"a":1}',
      "[]",
      "%s ? :a $b @c",
      "x".repeat(100_000),
    ].map((label) => label.trim());
    const labels = Array.from(
      { length: 50_000 },
      (_, i) => i < odd.length ? odd[i]! : `${odd[i % (odd.length - 1)]} ${i}`,
    );
    const summary = await runOn(folder, labels.join("\n"));
    assertEquals(summary.rows_inserted, labels.length);
    const { rows } = await written(folder);
    const stored = await rowsIn(folder.file("a.db")) ?? [];
    for (const actual of [rows, stored]) {
      assertEquals(actual.length, labels.length);
      const wrong = actual.findIndex(({ id, label }, i) =>
        id !== i + 1 || label !== labels[i]
      );
      assertEquals(wrong, -1, JSON.stringify(actual[wrong]));
    }
  },
});

Deno.test({
  name: "run() takes labels of megabytes, which fill a batch by themselves",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const labels = ["a", "b".repeat(3e6), "c", "日".repeat(1e6), "d"];
    await runOn(folder, labels.join("\n"));
    const { rows } = await written(folder);
    assert(JSON.stringify(rows) === JSON.stringify(rowsOf(labels)));
  },
});

Deno.test({
  name: "run() refuses bad UTF-8 by line number and inserts nothing",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const good = new TextEncoder().encode(MANY.join("\n") + "\n");
    const bad = new Uint8Array([...good, 0xff, 0x0a]);
    const error = await assertRejects(() => runOn(folder, bad), LabelError);
    assertStringIncludes(error.message, `line ${MANY.length + 1} `);
    assertStringIncludes(error.message, folder.file("labels.txt"));
    await assertUntouched(folder, undefined);
  },
});

Deno.test({
  name: "run() that fails leaves the rows and the summary of the last run",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await runOn(folder, "a\nb\n");
    const output = await Deno.readTextFile(folder.file("out.json"));
    await assertRejects(
      () => runOn(folder, MANY.join("\n") + "\n\0"),
      LabelError,
      `line ${MANY.length + 1} holds a NUL`,
    );
    await assertUntouched(folder, rowsOf(["a", "b"]), output);
  },
});

Deno.test({
  name: "run() aborted at any stage rolls back and leaves no output",
  permissions,
  async fn() {
    for (const stage of ["before", "inserted", "written"]) {
      await using folder = await temporaryFolder();
      await runOn(folder, "a\n");
      const output = await Deno.readTextFile(folder.file("out.json"));
      const controller = new AbortController();
      const { signal } = controller;
      const reason = new Error("enough");
      if (stage === "before") controller.abort(reason);
      const error = await assertRejects(() =>
        runOn(folder, MANY.join("\n"), {
          signal,
          onProgress(phase) {
            if (phase === stage) controller.abort(reason);
          },
        })
      );
      assertStrictEquals(error, reason, stage);
      await assertUntouched(folder, rowsOf(["a"]), output);
    }
  },
});

Deno.test({
  name: "run() refuses to replace its own input",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const input = folder.file("labels.txt");
    await Deno.writeTextFile(input, "a\n");
    const config = new ConnectionConfig();
    await assertRejects(
      () => run({ input, output: `./${input}`, config }),
      Error,
      "it is the input",
    );
    assertEquals(await Deno.readTextFile(input), "a\n");
  },
});

Deno.test({
  name:
    "run() aborted just before its commit does not commit without an output",
  permissions,
  async fn() {
    // Closing the pool takes until the next timer, which may come too late to
    // keep the commit back, so this needs a few rounds.
    for (let round = 0; round < 10; round++) {
      await using folder = await temporaryFolder();
      const controller = new AbortController();
      const { signal } = controller;
      const error = await assertRejects(() =>
        runOn(folder, "a\nb\n", {
          signal,
          onProgress: (phase) => phase === "written" && controller.abort(),
        })
      );
      assertStrictEquals(error, signal.reason);
      await assertUntouched(folder, undefined);
    }
  },
});

Deno.test({
  name: "run() can be aborted while it waits for a lock",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await runOn(folder, "a\n");
    const output = await Deno.readTextFile(folder.file("out.json"));
    const database = folder.file("a.db");
    await using other = new ConnectionPool({ database });
    const controller = new AbortController();
    const { signal } = controller;
    const config = new ConnectionConfig({ database, timeoutMs: 60_000 });
    await other.transaction(async () => {
      let isOver = false;
      const job = runOn(folder, "b\n", { signal, config })
        .catch((error) => error)
        .finally(() => {
          isOver = true;
        });
      // It stands at the lock as soon as it has begun its output file.
      const isAtWork = async (): Promise<boolean> =>
        (await namesIn(folder)).some((name) => name.endsWith(".tmp"));
      while (!isOver && !await isAtWork());
      controller.abort();
      const startMs = performance.now();
      assertStrictEquals(await job, signal.reason);
      assertLess(performance.now() - startMs, 30_000);
    });
    await other.close();
    await assertUntouched(folder, rowsOf(["a"]), output);
  },
});

Deno.test({
  name: "run() gives up on a lock after timeoutMs, and says so",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const database = folder.file("a.db");
    await using other = new ConnectionPool({ database });
    const config = new ConnectionConfig({ database, timeoutMs: 1 });
    await other.transaction(() =>
      assertRejects(
        () => runOn(folder, "a\n", { config }),
        LockTimeoutError,
        database,
      )
    );
    await other.close();
    await assertUntouched(folder, undefined);
  },
});

Deno.test({
  name: "run() tells how far it is, with numbers that only rise",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const told: Record<string, number[]> = { inserted: [], written: [] };
    await runOn(folder, MANY.join("\n"), {
      onProgress: (phase, rows) => told[phase]?.push(rows),
    });
    for (const numbers of Object.values(told)) {
      assert(numbers.length > 1);
      assertEquals(numbers, [...numbers].sort((a, b) => a - b));
      assertEquals(numbers.at(-1), MANY.length);
    }
  },
});

Deno.test({
  name: "run() names the input or output that cannot be used, and why",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const file = folder.file("x");
    await Deno.writeTextFile(file, "a\n");
    const missing = folder.file("none");
    const output = folder.file("made/out.json");
    const cases: [Partial<RunOptions>, string, string][] = [
      [{ input: missing }, `Cannot read '${missing}'`, "no such file"],
      [{ input: folder.path }, `Cannot read '${folder.path}'`, "folder"],
      [{ output: folder.path }, `Cannot write '${folder.path}'`, "folder"],
      [{ output: `${file}/y` }, `Cannot write '${file}/y'`, "irectory"],
    ];
    for (const [options, what, why] of cases) {
      const config = new ConnectionConfig();
      const error = await assertRejects(
        () => run({ input: file, output, config, ...options }),
        FileError,
      );
      assertStringIncludes(error.message, what);
      assertStringIncludes(error.message, why);
    }
    assertEquals(await namesIn(folder), ["x"]);
  },
});

Deno.test({
  name: "run() that cannot open its database leaves no output and no folder",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const config = new ConnectionConfig({
      database: folder.file("none/a.db"),
      retry: { maxAttempts: 1 },
    });
    const output = folder.file("made/out.json");
    await assertRejects(
      () => runOn(folder, "a\n", { config, output }),
      Error,
      folder.file("none/a.db"),
    );
    assertEquals(await namesIn(folder), ["labels.txt"]);
  },
});

Deno.test({
  name: "runDemoQueries() inserts labels and gives them back with their ids",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    for (const database of [":memory:", folder.file("a.db")]) {
      await using pool = new ConnectionPool({ database });
      const labels = ["a", "", " b ", '"\\\u0001😀'];
      assertEquals(await runDemoQueries(pool, labels), {
        rows_inserted: 4,
        rows: rowsOf(labels),
      });
      assertEquals(await runDemoQueries(pool, new Set(["c"])), {
        rows_inserted: 1,
        rows: rowsOf(["c"], 5),
      });
      assertEquals(await runDemoQueries(pool, []), {
        rows_inserted: 0,
        rows: [],
      });
      const { inUse, peak } = pool.stats();
      assertEquals([inUse, peak], [0, 1]);
    }
  },
});

Deno.test({
  name:
    "runDemoQueries() takes labels as they come, and keeps none if they fail",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const database = folder.file("a.db");
    await using pool = new ConnectionPool({ database });
    async function* labels(failure?: Error): AsyncIterableIterator<string> {
      yield* MANY;
      await Promise.resolve();
      if (failure) throw failure;
    }
    const failure = new Error("cut off");
    const error = await assertRejects(() =>
      runDemoQueries(pool, labels(failure))
    );
    assertStrictEquals(error, failure);
    assertEquals(await rowsIn(database), undefined);
    const { rows_inserted, rows } = await runDemoQueries(pool, labels());
    assertEquals([rows_inserted, rows.length], [20_000, 20_000]);
    assertEquals(rows.at(-1), { id: 20_000, label: "label 19999" });
  },
});

Deno.test({
  name: "runDemoQueries() refuses labels that SQLite would change, all or none",
  permissions: MEMORY,
  async fn() {
    await using pool = new ConnectionPool();
    for (const label of ["a\0b", "\ud800", "x\udc00y", null, undefined]) {
      await assertRejects(
        () => runDemoQueries(pool, ["good", label as string]),
        Error,
        "",
        JSON.stringify(label),
      );
    }
    assertEquals((await runDemoQueries(pool, ["a"])).rows, rowsOf(["a"]));
  },
});

Deno.test({
  name: "runDemoQueries() from many callers at once mixes no rows",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await using pool = new ConnectionPool({ database: folder.file("a.db") });
    const results = await Promise.all(
      Array.from(
        { length: 20 },
        (_, caller) => runDemoQueries(pool, [`${caller} a`, `${caller} b`]),
      ),
    );
    for (const [caller, { rows }] of results.entries()) {
      assertEquals(rows.map((row) => row.label), [
        `${caller} a`,
        `${caller} b`,
      ]);
    }
    const ids = results.flatMap(({ rows }) => rows.map((row) => row.id));
    assertEquals(new Set(ids).size, 40);
  },
});

Deno.test({
  name:
    "healthCheck() gives the version of SQLite for a connection that answers",
  permissions: MEMORY,
  async fn() {
    await using pool = new ConnectionPool();
    const health = await pool.use(healthCheck);
    assert(health.status === "healthy");
    assert("sqlite_version" in health);
    const { sqlite_version: version } = health;
    assert(/^3\.\d+\.\d+$/.test(version), version);
  },
});

Deno.test({
  name: "healthCheck() finds a dead connection unhealthy, and does not throw",
  permissions: MEMORY,
  async fn() {
    await using pool = new ConnectionPool();
    const released = await pool.acquire();
    released.release();
    const closed = await pool.acquire();
    await closed.close();
    for (const connection of [released, closed]) {
      const health = await healthCheck(connection);
      assert(health.status === "unhealthy");
      assert(health.error.length > 0);
    }
    closed.release();
    assertEquals((await pool.use(healthCheck)).status, "healthy");
  },
});

Deno.test({
  name:
    "reportPool() rounds waits to microseconds, which is as far as clocks go",
  permissions: MEMORY,
  async fn() {
    const pool = new ConnectionPool();
    await pool.close();
    const stats = pool.stats();
    const waitMs = { ...stats.waitMs, mean: 1 / 3, max: 2 / 3 };
    const { wait_ms } = reportPool({ ...stats, waitMs });
    assertEquals([wait_ms.mean, wait_ms.max], [0.333, 0.667]);
  },
});
