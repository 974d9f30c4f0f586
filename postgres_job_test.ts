/**
 * The baseline job on a real PostgreSQL.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { ConnectionPool } from "./pool.ts";
import { SERVER, TestServer } from "./postgres_testing.ts";
import { projectCommand, temporaryFolder } from "./testing.ts";
import { runDemoQueries } from "./workload.ts";

let server: TestServer;

Deno.test.beforeAll(async () => {
  server = await TestServer.start();
});

Deno.test.afterAll(() => server[Symbol.asyncDispose]());

const permissions: Deno.PermissionOptions = {
  ...SERVER,
  write: [".tmp"],
  run: [Deno.execPath()],
};

function jobTest(name: string, fn: () => Promise<void>): void {
  Deno.test({
    name,
    permissions,
    async fn() {
      await query("DROP TABLE IF EXISTS events");
      await fn();
    },
  });
}

async function query(sql: string): Promise<Record<string, unknown>[]> {
  await using pool = new ConnectionPool({ database: server.url() });
  return await pool.use((connection) => connection.query(sql));
}

async function run(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
  const command = projectCommand([...args, "--output", "-"], { env });
  const { code, stdout, stderr } = await command.output();
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

jobTest(
  "the job says the same on PostgreSQL as on SQLite, but for the version",
  async () => {
    const [sqlite, postgres, byVariable] = [
      await run(["--db", ":memory:"]),
      await run(["--db", server.url()]),
      await run([], { DATABASE_URL: server.url() }),
    ];
    const hide = (text: string): string =>
      text.replace(/"(sqlite|postgres)_version": "[\d.]+"/, "VERSION")
        .replace(/"wait_ms": \{[^}]*\}/, "WAITS");
    assertEquals(hide(postgres.stdout), hide(sqlite.stdout), postgres.stderr);
    assertMatch(postgres.stdout, /"postgres_version": "\d+\.\d+"/);
    assert(!postgres.stderr.includes(server.password), postgres.stderr);
    const { rows } = JSON.parse(byVariable.stdout);
    assertEquals(rows[0].id, 8);
  },
);

jobTest(
  "two jobs at once share a table that neither found, and tell their rows apart",
  async () => {
    await using folder = await temporaryFolder();
    const jobs = await Promise.all(["a", "b"].map(async (name) => {
      const labels = Array.from({ length: 5000 }, (_, i) => `${name} ${i}`);
      const input = folder.file(`${name}.txt`);
      await Deno.writeTextFile(input, labels.join("\n"));
      const { code, stdout, stderr } = await run([
        ...["--input", input, "--db", server.url()],
      ]);
      assertEquals(code, 0, stderr);
      const { rows } = JSON.parse(stdout);
      assertEquals(rows.map(({ label }: { label: string }) => label), labels);
      return rows as { id: number; label: string }[];
    }));
    const stored = await query("SELECT id, label FROM events ORDER BY id");
    const told = jobs.flat().sort((a, b) => a.id - b.id);
    assertEquals(told as unknown[], stored);
  },
);

jobTest(
  "rows that others insert in the midst of a batch are not taken for the job's own",
  async () => {
    await using pool = new ConnectionPool({ database: server.url() });
    await runDemoQueries(pool, ["first"]);
    // Each insert by the job brings one by somebody else.
    await query(
      "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " +
        "IF NEW.label LIKE 'mine%' THEN INSERT INTO events (label) " +
        "VALUES ('other'); END IF; RETURN NEW; END $$",
    );
    await query(
      "CREATE TRIGGER meddle BEFORE INSERT ON events FOR EACH ROW " +
        "EXECUTE FUNCTION meddle()",
    );
    const labels = ["mine 1", "mine 2", "mine 3"];
    const { rows } = await runDemoQueries(pool, labels);
    assertEquals(rows.map(({ label }) => label), labels);
    assertEquals((await query("SELECT FROM events")).length, 7);
    await query("DROP FUNCTION meddle CASCADE");
  },
);

jobTest(
  "a job that fails leaves neither row nor table",
  async () => {
    await using folder = await temporaryFolder();
    const input = folder.file("labels.txt");
    const bytes = new TextEncoder().encode("good\n".repeat(3000));
    await Deno.writeFile(input, new Uint8Array([...bytes, 0xff, 10]));
    const { code, stderr } = await run([
      "--input",
      input,
      "--db",
      server.url(),
    ]);
    assertEquals(code, 1);
    assertMatch(stderr, /line 3001/);
    const found = await query("SELECT to_regclass('events') AS found");
    assertEquals(found, [{ found: null }]);
  },
);

jobTest(
  "Ctrl-C in the midst of the input leaves no row, and ends what the server does",
  async () => {
    const command = projectCommand(
      ["--input", "-", "--output", "-", "--db", server.url()],
      { stdin: "piped", stdout: "null", stderr: "piped" },
    );
    const job = command.spawn();
    const writer = job.stdin.getWriter();
    await writer.write(new TextEncoder().encode("label\n".repeat(5000)));
    const atWork =
      "SELECT FROM pg_stat_activity WHERE state LIKE 'idle in tr%'";
    while ((await query(atWork)).length === 0);
    job.kill("SIGINT");
    const [{ code }, stderr] = await Promise.all([
      job.status,
      new Response(job.stderr).text(),
    ]);
    await writer.abort().catch(() => {});
    assertEquals(code, 130, stderr);
    assertMatch(stderr, /nothing was changed/);
    const found = await query("SELECT to_regclass('events') AS found");
    assertEquals(found, [{ found: null }]);
  },
);

jobTest(
  "a label that PostgreSQL cannot keep is refused before anything is written",
  async () => {
    await using pool = new ConnectionPool({ database: server.url() });
    await assertRejects(
      () => runDemoQueries(pool, ["good", "a\0b"]),
      Error,
      "NUL",
    );
    const { rows } = await runDemoQueries(pool, ["é", "🦕", "\\u0000", '"']);
    assertEquals(rows.map(({ label }) => label), ["é", "🦕", "\\u0000", '"']);
  },
);
