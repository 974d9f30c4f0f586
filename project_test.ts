import {
  assert,
  assertEquals,
  assertLessOrEqual,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { join, resolve } from "@std/path";
import { ConnectionPool } from "./pool.ts";
import {
  FILES_AND_PROCESSES,
  projectCommand,
  type ProjectRun,
  runProject,
  type TemporaryFolder,
  temporaryFolder,
} from "./testing.ts";

const permissions = FILES_AND_PROCESSES;
const permissionsToLink: Deno.PermissionOptionsObject = {
  ...FILES_AND_PROCESSES,
  run: [Deno.execPath(), "ln"],
};
const isWindows = Deno.build.os === "windows";

interface Piped {
  /** What it is given on standard input; without it, nothing. */
  readonly stdin?: string | Uint8Array;
  readonly env?: Record<string, string>;
}

/** Runs the program to its end. */
async function runPiped(
  args: readonly string[],
  { stdin = "", env = {} }: Piped,
): Promise<ProjectRun> {
  const child = projectCommand(args, {
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
    env,
  }).spawn();
  const writer = child.stdin.getWriter();
  const bytes = typeof stdin === "string"
    ? new TextEncoder().encode(stdin)
    : stdin;
  const [{ code, stdout, stderr }] = await Promise.all([
    child.output(),
    writer.write(bytes).then(() => writer.close()),
  ]);
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

/** Does the same for each item, a few at a time. */
async function forEach<T>(
  items: readonly T[],
  fn: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (const item of rest) await fn(item);
  };
  const ends = await Promise.allSettled([
    worker(),
    worker(),
    worker(),
    worker(),
  ]);
  for (const end of ends) if (end.status === "rejected") throw end.reason;
}

/** A folder with a few labels in it. */
async function folderWithLabels(): Promise<TemporaryFolder> {
  const folder = await temporaryFolder();
  await Deno.writeTextFile(folder.file("labels.txt"), "a\nb\n");
  return folder;
}

/** Names and contents of all files below a folder. */
async function contentOf(path: string): Promise<Record<string, string>> {
  const content: Record<string, string> = {};
  for await (const entry of Deno.readDir(path)) {
    const below = `${path}/${entry.name}`;
    if (entry.isDirectory) {
      content[`${entry.name}/`] = "";
      for (const [name, text] of Object.entries(await contentOf(below))) {
        content[`${entry.name}/${name}`] = text;
      }
    } else content[entry.name] = await Deno.readTextFile(below);
  }
  return content;
}

async function labelsIn(database: string): Promise<unknown[]> {
  await using pool = new ConnectionPool({ database });
  return await pool.use(async (connection) => {
    const rows = await connection.query("SELECT label FROM events ORDER BY id");
    return rows.map((row) => row["label"]);
  });
}

/** Checks that a run failed with one line that says what is wrong. */
function assertFailed(
  run: ProjectRun,
  code: number,
  says: readonly RegExp[],
  context: string,
): void {
  const { stdout, stderr } = run;
  assertEquals(stdout, "", context);
  assertMatch(stderr, /^[^\n]+\n$/, context);
  for (const pattern of says) assertMatch(stderr, pattern, context);
  // A stack is for programmers.
  assert(!/\.ts:\d+/.test(stderr), stderr);
  assertEquals(run.code, code, `${context}: ${stderr}`);
}

Deno.test({
  name: "project.ts prints the summary that it writes, with the promised keys",
  permissions,
  async fn() {
    await using folder = await folderWithLabels();
    const output = folder.file("out.json");
    const { code, stdout, stderr } = await runProject(
      ...["run", "--input", folder.file("labels.txt"), "--output", output],
      ...["--db", folder.file("a.db"), "--pool-size", "2"],
      ...["--max-overflow", "0", "--timeout", "250ms", "--max-attempts", "1"],
    );
    assertEquals(code, 0, stderr);
    assertEquals(stdout, await Deno.readTextFile(output));
    const summary = JSON.parse(stdout);
    const { created, reused, idle, pool_size, peak } = summary.pool_stats;
    assertEquals(Object.keys(summary), [
      "rows_inserted",
      "rows",
      "health",
      "pool_stats",
    ]);
    assertEquals(summary.rows_inserted, 2);
    assertEquals(
      JSON.stringify(summary.rows),
      '[{"id":1,"label":"a"},{"id":2,"label":"b"}]',
    );
    assertEquals(Object.keys(summary.health), ["status", "sqlite_version"]);
    assertEquals(summary.health.status, "healthy");
    assertEquals(Object.keys(summary.pool_stats).slice(0, 5), [
      "created",
      "reused",
      "idle",
      "pool_size",
      "peak",
    ]);
    assertEquals([created, reused, idle, pool_size, peak], [1, 1, 0, 2, 1]);
    assertEquals(summary.pool_stats.max_overflow, 0);
    assertMatch(stderr, /^2 rows inserted [^\n]+\n$/);
    assertEquals(await labelsIn(folder.file("a.db")), ["a", "b"]);
  },
});

Deno.test({
  name: "project.ts without a command word means run, and runs append",
  permissions,
  async fn() {
    await using folder = await folderWithLabels();
    const flags = ["-i", folder.file("labels.txt"), "-o", folder.file("out")];
    const db = `--db=sqlite:${folder.file("a.db")}`;
    const first = await runProject(...flags, db);
    const second = await runProject("run", db, ...flags);
    assertEquals([first.code, second.code], [0, 0]);
    const ids = [first, second].map(({ stdout }) =>
      JSON.parse(stdout).rows.map((row: { id: number }) => row.id)
    );
    assertEquals(ids, [[1, 2], [3, 4]]);
    assertEquals(JSON.parse(second.stdout).rows_inserted, 2);
    assertEquals(await labelsIn(folder.file("a.db")), ["a", "b", "a", "b"]);
  },
});

Deno.test({
  name: "project.ts takes its defaults from the sample input",
  permissions,
  async fn() {
    const { code, stdout, stderr } = await runProject("--output", "-");
    assertEquals(code, 0, stderr);
    const sample = await Deno.readTextFile("data/sample_input.txt");
    assertEquals(
      JSON.parse(stdout).rows.map((row: { label: string }) => row.label),
      sample.trim().split("\n"),
    );
  },
});

Deno.test({
  name:
    "project.ts --input - and --output - work as a filter, and leave no file",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const { code, stdout, stderr } = await runPiped(
      ["--input", "-", "--output", "-"],
      { stdin: "\ufeffa\r\n\r\n b 😀", env: { TMPDIR: folder.path } },
    );
    assertEquals(code, 0, stderr);
    assertEquals(JSON.parse(stdout).rows, [
      { id: 1, label: "a" },
      { id: 2, label: "b 😀" },
    ]);
    assertEquals(await contentOf(folder.path), {});
  },
});

Deno.test({
  name: "project.ts makes of an empty input a valid summary, not an error",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const output = folder.file("made/on/the/way/out.json");
    await Deno.writeTextFile(folder.file("empty"), "");
    const { code, stdout } = await runProject(
      ...["--input", folder.file("empty"), "--output", output],
    );
    assertEquals(code, 0);
    const { rows_inserted, rows, health } = JSON.parse(stdout);
    assertEquals([rows_inserted, rows], [0, []]);
    assertEquals(health.status, "healthy");
    assertEquals(await Deno.readTextFile(output), stdout);
  },
});

Deno.test({
  name: "project.ts takes a line of 10 MB",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    const label = "x".repeat(10_000_000);
    const { code, stdout, stderr } = await runPiped(
      ["--input", "-", "--output", folder.file("out.json")],
      { stdin: `a\n${label}\nb` },
    );
    assertEquals(code, 0, stderr);
    const { rows_inserted, rows } = JSON.parse(stdout);
    assertEquals(rows_inserted, 3);
    assert(rows[1].label === label);
  },
});

Deno.test({
  name: "project.ts replaces no device, but writes to it",
  permissions: { ...permissions, read: [".", "/dev/null"] },
  ignore: isWindows,
  async fn() {
    const { code, stderr } = await runProject("--output", "/dev/null");
    assertEquals(code, 0, stderr);
    assert((await Deno.stat("/dev/null")).isCharDevice);
  },
});

Deno.test({
  name: "project.ts --help lists every flag and fits a terminal of 80 columns",
  permissions,
  async fn() {
    const { code, stdout, stderr } = await runProject("--help");
    assertEquals([code, stderr], [0, ""]);
    const flags = [
      "input",
      "output",
      "db",
      "pool-size",
      "max-overflow",
      "timeout",
      "max-attempts",
      "log-level",
      "help",
      "version",
    ];
    const listed = stdout.match(/^ +(-\w, )?--[\w-]+/gm) ?? [];
    assertEquals(
      listed.map((text) => text.replace(/.*--/, "")),
      flags,
    );
    for (const line of stdout.split("\n")) assertLessOrEqual(line.length, 80);
    await forEach(
      [["-h"], ["run", "--help"], ["--db", "x", "-h"]],
      async (args) => {
        assertEquals(await runProject(...args), { code, stdout, stderr });
      },
    );
  },
});

Deno.test({
  name: "project.ts --version names its own version and that of Deno",
  permissions,
  async fn() {
    const { version } = JSON.parse(await Deno.readTextFile("deno.json"));
    const { code, stdout, stderr } = await runProject("--version");
    assertEquals([code, stderr], [0, ""]);
    assertMatch(stdout, /^[^\n]+\n$/);
    assertStringIncludes(stdout, version);
    assertStringIncludes(stdout, Deno.version.deno);
    assertEquals((await runProject("-V")).stdout, stdout);
  },
});

Deno.test({
  name: "project.ts answers wrong usage with exit code 2 and a line that helps",
  permissions,
  async fn() {
    const cases: [string[], ...RegExp[]][] = [
      [["--pool-size", "abc"], /--pool-size/, /"abc"/],
      [["--pool-size", "0"], /--pool-size/, />= 1/, /\b0\b/],
      [["--pool-size", "-1"], /--pool-size/, />= 1/, /-1/],
      [["--pool-size", "1.5"], /--pool-size/, /1\.5/],
      [["--pool-size=1e3"], /--pool-size/, /1e3/],
      [["--max-overflow", "-1"], /--max-overflow/, />= 0/],
      [["--max-attempts", "0"], /--max-attempts/, />= 1/],
      [["--timeout", "-1"], /--timeout/, /-1/],
      [["--timeout=-.5"], /--timeout/, /-\.5/],
      [["--timeout", "soon"], /--timeout/, /soon/],
      [["--timeout", "9999h"], /--timeout/],
      [["--log-level", "inf"], /--log-level/, /did you mean info\?/],
      [["--db", "mysql://h/x"], /--db/, /mysql/],
      [["--db", "postgres://h/x?sslmod=require"], /--db/, /sslmode/],
      [["--db", "file:x.db"], /--db/],
      [["--pool-size", "0", "--max-overflow", "-1"], /pool-size.*max-overflow/],
      [["--ouput", "x"], /'--ouput'/, /--output\?/],
      [["--poolsize=3"], /'--poolsize'/, /--pool-size\?/],
      [["--no-db=x"], /--no-db/],
      [["--banana"], /'--banana'/],
      [["-x"], /'-x'/],
      [["--_", "x"], /--_/],
      [["-_", "x"], /-_/],
      [["--db", "x", "--db", "y"], /--db/, /twice/],
      [["-i", "x", "--input", "y"], /--input/, /twice/],
      [["--input"], /--input/, /value/],
      [["--input", "--db", "x"], /--input/, /value/],
      [["--db", ""], /--db/, /value/],
      [["--db="], /--db/, /value/],
      [["run", "extra"], /'extra'/],
      [["run", "--db", "x", "extra", "more"], /'extra'/],
      [["rum"], /'rum'/, /'run'\?/],
      [["banana"], /'banana'/],
      [["--help", "--banana"], /'--banana'/],
    ];
    await forEach(cases, async ([args, ...says]) => {
      assertFailed(await runProject(...args), 2, says, args.join(" "));
    });
  },
});

Deno.test({
  name: "project.ts answers bad files with exit code 1 and changes nothing",
  permissions,
  async fn() {
    await using folder = await folderWithLabels();
    const bytes = new TextEncoder();
    const files: Record<string, string | number[]> = {
      "bad": [...bytes.encode("a\nb\n"), 0xff, 0x0a, 0x63],
      "utf-16": [0xff, 0xfe, 0x61, 0, 0x0a, 0],
      "nul": "a\nb\0\n",
      "text": "this is no database, but long enough to have a header",
      "out.json": "old",
    };
    for (const [name, content] of Object.entries(files)) {
      const data = typeof content === "string"
        ? bytes.encode(content)
        : Uint8Array.from(content);
      await Deno.writeFile(folder.file(name), data);
    }
    await Deno.mkdir(folder.file("folder"));
    const before = await contentOf(folder.path);
    const path = (name: string): string => folder.file(name);
    const cases: [string[], ...RegExp[]][] = [
      [["--input", path("none")], /none'/, /no such file/i],
      [["--input", path("folder")], /folder'/, /it is a folder/],
      [["--input", path("bad")], /bad'/, /line 3\b/, /UTF-8/],
      [["--input", path("utf-16")], /utf-16'/, /line 1\b/],
      [["--input", path("nul")], /nul'/, /line 2\b/, /NUL/],
      [["--output", path("folder")], /folder'/, /it is a folder/],
      [["--output", path("text/out")], /text\/out'/, /directory/i],
      [["--output", path("text/made/out")], /text\/made\/out'/, /directory/i],
      [["--output", path("n".repeat(300))], /nnn'/, /too long/],
      [["--db", path("text")], /not a database/, /text$/m],
      [["--db", path("folder"), "--max-attempts", "1"], /folder$/m],
      [["--db", path("no/a.db"), "--max-attempts", "1"], /no\/a\.db$/m],
    ];
    await forEach(cases, async ([args, ...says]) => {
      // What comes twice is left out.
      const has = (flag: string): boolean => args.includes(flag);
      const run = await runProject(
        ...args,
        ...(has("--input") ? [] : ["--input", path("labels.txt")]),
        ...(has("--output") ? [] : ["--output", path("out.json")]),
      );
      assertFailed(run, 1, says, args.join(" "));
    });
    assertEquals(await contentOf(folder.path), before);
  },
});

Deno.test({
  name: "project.ts refuses one file in two roles, by whatever names",
  permissions: permissionsToLink,
  ignore: isWindows,
  async fn() {
    await using folder = await folderWithLabels();
    const labels = folder.file("labels.txt");
    const link = folder.file("link");
    const { success } = await new Deno.Command("ln", {
      args: ["-s", "labels.txt", link],
    }).output();
    assert(success);
    await Deno.link(labels, folder.file("hard"));
    const sameLabels = [
      labels,
      `./${labels}`,
      resolve(labels),
      link,
      folder.file("hard"),
    ];
    const output = folder.file("out.json");
    const cases: [string[], ...RegExp[]][] = sameLabels.flatMap((name) => [
      [["-i", labels, "-o", name], /--output.*--input/],
      [["-i", labels, "-o", output, "--db", name], /--db.*--input/],
      [["-i", name, "-o", output, "--db", `sqlite:${labels}`], /--db.*--input/],
    ]);
    // Neither is there yet, and one is named through a link to the folder.
    await using elsewhere = await temporaryFolder();
    const throughLink = elsewhere.file("folder");
    await new Deno.Command("ln", {
      args: ["-s", resolve(folder.path), throughLink],
    }).output();
    for (const database of [output, join(throughLink, "out.json")]) {
      cases.push([
        ["-i", labels, "-o", output, "--db", database],
        /--db.*--output/,
      ]);
    }
    const before = await contentOf(folder.path);
    await forEach(cases, async ([args, ...says]) => {
      assertFailed(await runProject(...args), 2, says, args.join(" "));
    });
    assertEquals(await contentOf(folder.path), before);
  },
});

Deno.test({
  name: "project.ts shows a password nowhere, also when it talks a lot",
  permissions,
  async fn() {
    await using folder = await folderWithLabels();
    const flags = ["--output", folder.file("out.json"), "--log-level", "debug"];
    const cases = [
      ["--db", "postgres://u:hunter2@h/x"],
      ["--db", "postgres://u:hunter2@h:99999/x"],
      ["--db", "postgres://u@h/x?password=hunter2"],
      ["--db=mysql://u:hunter2@h/x"],
      ["--pool-size", "postgres://u:hunter2@h/x"],
      ["--dbb=postgres://u:hunter2@h/x"],
      ["postgres://u:hunter2@h/x"],
      ["run", "postgres://u:hunter2@h/x"],
      ["--input", "postgres://u:hunter2@h/x"],
    ];
    await forEach(cases, async (args) => {
      const { code, stdout, stderr } = await runProject(...args, ...flags);
      assert(code !== 0);
      assert(!`${stdout}${stderr}`.includes("hunter2"), stderr);
    });
    assertEquals(Object.keys(await contentOf(folder.path)), ["labels.txt"]);
  },
});

Deno.test({
  name: "project.ts --log-level decides what is said beside the results",
  permissions,
  async fn() {
    const flags = ["--output", "-", "--log-level"];
    // The published package needs what is else given up.
    const givesUp = !Deno.args.includes("--allow-ffi");
    await forEach(["debug", "info", "warn", "error"], async (level) => {
      const { code, stdout, stderr } = await runProject(...flags, level);
      assertEquals(code, 0);
      assertEquals(JSON.parse(stdout).rows_inserted, 7);
      const lines = stderr.split("\n").length - 1;
      assertEquals(
        lines,
        { debug: givesUp ? 3 : 2, info: 1 }[level] ?? 0,
        stderr,
      );
      if (level === "debug" && givesUp) {
        assertMatch(stderr, /given up: net, env/);
      }
    });
    const { stderr } = await runProject("--log-level", "error", "-i", "none");
    assertMatch(stderr, /^[^\n]+none[^\n]+\n$/);
  },
});

Deno.test({
  name: "project.ts gives up on a locked database after --timeout",
  permissions,
  async fn() {
    await using folder = await folderWithLabels();
    const database = folder.file("a.db");
    await using pool = new ConnectionPool({ database });
    await pool.transaction(async () => {
      const args = [
        ...["--input", folder.file("labels.txt"), "--db", database],
        ...["--output", folder.file("out.json"), "--timeout", "0.05"],
      ];
      const run = await runProject(...args);
      assertFailed(run, 1, [/locked/, /a\.db/, /\b50 ms/], "locked");
    });
    await pool.close();
    const names = Object.keys(await contentOf(folder.path));
    assertEquals(names.sort(), ["a.db", "labels.txt"]);
  },
});

/** Waits until the program has begun its output file, which it does first. */
async function untilAtWork(
  child: Deno.ChildProcess,
  folder: TemporaryFolder,
): Promise<void> {
  let isOver = false;
  child.status.then(() => {
    isOver = true;
  });
  while (!isOver) {
    for await (const { name } of Deno.readDir(folder.path)) {
      if (name.endsWith(".tmp")) return;
    }
  }
}

/** Waits for the end of a child, and ends it if it does not end by itself. */
async function endOf(child: Deno.ChildProcess): Promise<ProjectRun> {
  // Far more than it takes, so that a hanging child fails and hangs nobody.
  const timer = setTimeout(() => child.kill("SIGKILL"), 10_000);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

// More than a pipe holds, so that one end must wait for the other.
const MANY = "a long enough label\n".repeat(50_000);

const INTERRUPTED = [/interrupted/i, /nothing was changed/];

Deno.test({
  name: "project.ts interrupted while it waits for a lock changes nothing",
  permissions,
  ignore: isWindows,
  async fn() {
    for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
      await using folder = await folderWithLabels();
      const database = folder.file("a.db");
      const args = [
        ...["--input", folder.file("labels.txt"), "--db", database],
        ...["--output", folder.file("out.json")],
      ];
      assertEquals((await runProject(...args)).code, 0);
      const output = await Deno.readTextFile(folder.file("out.json"));
      await using pool = new ConnectionPool({ database });
      await pool.transaction(async () => {
        const child = projectCommand([...args, "--timeout", "1h"], {
          stdout: "piped",
          stderr: "piped",
        }).spawn();
        await untilAtWork(child, folder);
        child.kill(signal);
        assertFailed(await endOf(child), code, INTERRUPTED, signal);
      });
      await pool.close();
      assertEquals(await labelsIn(database), ["a", "b"]);
      const { "a.db": _, ...files } = await contentOf(folder.path);
      assertEquals(files, { "labels.txt": "a\nb\n", "out.json": output });
    }
  },
});

Deno.test({
  name:
    "project.ts interrupted while its input has nothing to say ends at once",
  permissions,
  ignore: isWindows,
  async fn() {
    await using folder = await folderWithLabels();
    const database = folder.file("a.db");
    const child = projectCommand(
      ["--input", "-", "--db", database, "--output", folder.file("out.json")],
      { stdin: "piped", stdout: "piped", stderr: "piped" },
    ).spawn();
    const writer = child.stdin.getWriter();
    // All but what fits into a pipe has been read when this has been written,
    // and the rest is when another run of the program is over.
    await writer.write(new TextEncoder().encode(MANY));
    await runProject("--version");
    child.kill("SIGINT");
    const run = await endOf(child);
    await writer.close().catch(() => {});
    assertFailed(run, 130, INTERRUPTED, "streaming");
    const names = Object.keys(await contentOf(folder.path));
    // Whether the database was open by then is chance; that it is empty is not.
    const others = names.filter((name) => !name.startsWith("a.db"));
    assertEquals(others, ["labels.txt"]);
    await using pool = new ConnectionPool({ database });
    const tables = await pool.use((connection) =>
      connection.query("SELECT name FROM sqlite_schema")
    );
    assertEquals(tables, []);
  },
});

Deno.test({
  name:
    "project.ts does its work also for a reader who has seen enough, as head",
  permissions,
  async fn() {
    await using folder = await temporaryFolder();
    await Deno.writeTextFile(folder.file("labels.txt"), MANY);
    const child = projectCommand([
      ...["--input", folder.file("labels.txt"), "--db", folder.file("a.db")],
      ...["--output", folder.file("out.json")],
    ], { stdout: "piped", stderr: "piped" }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await reader.cancel();
    const stderr = await new Response(child.stderr).text();
    assertEquals((await child.status).code, 0, stderr);
    assert(!/error/i.test(stderr), stderr);
    const summary = JSON.parse(
      await Deno.readTextFile(folder.file("out.json")),
    );
    assertEquals(summary.rows.length, 50_000);
    assertEquals((await labelsIn(folder.file("a.db"))).length, 50_000);
  },
});

Deno.test({
  name: "project.ts interrupted after its commit does not claim the opposite",
  permissions,
  ignore: isWindows,
  async fn() {
    await using folder = await temporaryFolder();
    const output = folder.file("out.json");
    await Deno.writeTextFile(folder.file("labels.txt"), MANY);
    const child = projectCommand([
      ...["--input", folder.file("labels.txt"), "--db", folder.file("a.db")],
      ...["--output", output],
    ], { stdout: "piped", stderr: "piped" }).spawn();
    const reader = child.stdout.getReader();
    // It prints what is in its place already.
    await reader.read();
    assert((await Deno.stat(output)).isFile);
    child.kill("SIGINT");
    await reader.cancel();
    const stderr = await new Response(child.stderr).text();
    await child.status;
    assert(!stderr.includes("nothing was changed"), stderr);
    assertEquals((await labelsIn(folder.file("a.db"))).length, 50_000);
  },
});
