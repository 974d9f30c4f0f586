/**
 * The lab as a person calls it: the list, a case, the score, a prediction, the
 * page, the exercise and the notes.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { commandLine, COMMANDS } from "./command_line.ts";
import { LAB_CASES, type LabResult } from "./lab.ts";
import {
  callProject,
  projectCommand,
  type ProjectRun,
  SERVER_VARIABLES,
  temporaryFolder,
} from "./testing.ts";

const permissions: Deno.PermissionOptionsObject = {
  run: [Deno.execPath()],
  read: true,
  write: [".tmp"],
};

// As the task `lab` grants them.
const GRANTED = [
  ...["--allow-read", "--allow-write", "--allow-run", "--allow-net"],
  `--allow-env=${SERVER_VARIABLES}`,
];

/** Calls the lab, with an empty folder for temporary files, empty afterwards. */
async function lab(
  args: readonly string[],
  { input = "" } = {},
): Promise<ProjectRun> {
  await using folder = await temporaryFolder();
  const path = await Deno.realPath(folder.path);
  const ran = await callProject(["lab", ...args], {
    ...{ permissions: GRANTED, input, env: { TMPDIR: path } },
  });
  assertEquals([...Deno.readDirSync(path)], [], "something is left behind");
  return ran;
}

function assertNarrow(text: string): void {
  for (const line of text.split("\n")) {
    // As many code points as columns: a block is one, in three bytes.
    assert([...line].length <= 80, line);
  }
}

Deno.test("lab lists every case with its title, and tells what to do next", {
  permissions,
}, async () => {
  const { code, stdout, stderr } = await lab([]);
  assertEquals([code, stderr], [0, ""]);
  for (const { name, title } of LAB_CASES) {
    assertMatch(stdout, new RegExp(`^  ${name} +.{4}`, "m"));
    assert(stdout.includes(title), title);
  }
  assert(stdout.includes("deno task lab break-double-release\n"));
  assertNarrow(stdout);
  const { cases } = JSON.parse((await lab(["--json"])).stdout);
  assertEquals(
    cases.map((one: { case: string }) => one.case),
    LAB_CASES.map(({ name }) => name),
  );
});

Deno.test(
  "lab CASE asks for a prediction, shows both runs side by side, and says what to try",
  { permissions },
  async () => {
    const { code, stdout, stderr } = await lab(["break-double-release"]);
    assertEquals([code, stderr], [0, ""]);
    assertNarrow(stdout);
    for (
      const part of [
        "Assumed: ",
        "  a  ",
        "without the guard ",
        " ┃ ",
        " │ ",
        "Answer: ",
        "Guard:  PooledConnection.surrender in pooled_connection.ts",
        "Try:    deno task lab break-double-release --releases 1",
      ]
    ) assert(stdout.includes(part), part);
  },
);

Deno.test(
  "lab all runs every case, ends with a score, and gives one page that stands alone",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const page = folder.file("lab.html");
    const { code, stdout, stderr } = await lab(["all", "--report", page]);
    assertEquals([code, stderr], [0, `Report written to ${page}\n`]);
    assertMatch(stdout, /Score: 17 of 17 guards made a difference\.\n$/);
    assertNarrow(stdout);
    const html = await Deno.readTextFile(page);
    for (const { name } of LAB_CASES) {
      assert(html.includes(`<section id="${name}">`), name);
    }
    assertEquals(/<script|https?:\/\/(?!www\.w3\.org)/.test(html), false);
    assertEquals(html.match(/<svg/g)?.length, 3);
  },
);

Deno.test(
  "what a page says of its command tells no password",
  { permissions: "none" },
  () => {
    const url = "postgres://me:secret@localhost/shop";
    const line = commandLine(["lab", "explain-pooling", "--db", url]);
    assertEquals(line.includes("secret"), false);
    assertMatch(line, /^deno task lab explain-pooling --db .*localhost/);
  },
);

Deno.test(
  "a report that cannot be written is refused before the cases are run",
  { permissions },
  async () => {
    const { code, stdout, stderr } = await lab([
      ...["break-leak", "--report", ".tmp"],
    ]);
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, /^Error: Cannot write '\.tmp': .*folder.*\n$/);
  },
);

Deno.test(
  "lab --json gives the documented keys, for one case and for all",
  { permissions },
  async () => {
    const { stdout } = await lab(["break-closed-connection", "--json"]);
    const result: LabResult = JSON.parse(stdout);
    assertEquals(Object.keys(result), [
      ...["case", "title", "assumption", "without_guard", "with_guard"],
      ...["explanation", "guard"],
    ]);
    assertEquals(Object.keys(result.guard), ["file", "symbol"]);
    assertEquals(result.without_guard.figures["failed"], 5);
  },
);

Deno.test(
  "lab --interactive waits for a choice, and says whether it was right and why",
  { permissions },
  async () => {
    const args = ["break-open-transaction", "-i"];
    const right = await lab(args, { input: "what?\nC\n" });
    assertEquals(right.code, 0);
    assertEquals(right.stdout.match(/Your prediction/g)?.length, 2);
    assert(right.stdout.includes("Answer with a or b or c.\n"));
    assert(right.stdout.includes("You are right: c) Neither."));
    // The question is answered before anything of the result is shown.
    assert(
      right.stdout.indexOf("Your prediction") <
        right.stdout.indexOf("Ada begins"),
    );
    const wrong = await lab(args, { input: "a\n" });
    assert(wrong.stdout.includes("You said a, and it is c) Neither."));
    const gone = await lab(args);
    assertEquals(gone.code, 1);
    assertMatch(gone.stderr, /^Error: .*the input has ended\n$/);
  },
);

Deno.test(
  "lab interrupted in the midst of a case leaves neither file nor process",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const path = await Deno.realPath(folder.path);
    const child = projectCommand(
      ["lab", "break-thundering-herd", "--outage", "3s"],
      {
        ...{ permissions: GRANTED, env: { TMPDIR: path } },
        ...{ stdout: "piped", stderr: "piped" },
      },
    ).spawn();
    // It is under way when its folder is there.
    let hasEnded = false;
    child.status.then(() => hasEnded = true);
    while ([...Deno.readDirSync(path)].length === 0 && !hasEnded) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    // A terminal and the task that runs it tell of the same Ctrl-C, each.
    child.kill("SIGINT");
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    assertEquals(code, 130);
    assertMatch(new TextDecoder().decode(stderr), /^Interrupted: /);
    assertEquals([...Deno.readDirSync(path)], []);
  },
);

for (
  const [args, problem] of [
    [["brek-leak"], "did you mean 'break-leak'?"],
    [["double-release"], "did you mean 'break-double-release'?"],
    [["alter-peak", "--report", "-"], "--report must name a file"],
    [["chek"], "did you mean 'check'?"],
    [["nothing-like-it"], "`deno task lab` lists them"],
    [["break-leak", "--acquire-timout", "1s"], "--acquire-timeout?"],
    [["break-leak", "--tasks", "3"], "which takes --acquire-timeout"],
    [["all", "--tasks", "3"], "--tasks changes one case: name it"],
    [["alter-peak", "--tasks", "0"], "whole number from 1 to 200"],
    [["alter-peak", "--tasks", "2.5"], "whole number from 1 to 200"],
    [["break-leak", "--acquire-timeout", "1h"], "from 0ms to 5000ms"],
    [["break-leak", "--acquire-timeout", "soon"], "must be a duration"],
    [["break-leak", "--db", "lab.db"], "must be the URL of a server"],
    [["alter-timeout", "--db", "postgres://h/d"], "it is about SQLite"],
    [["break-leak", "break-size"], "name one case at a time"],
    [["break-leak", "--json", "-i"], "--interactive must not be given"],
    [["--tasks", "3"], "--tasks needs a case"],
    [["check"], "needs a file"],
    [["start"], "needs a folder"],
    [["check", "a.ts", "b.ts"], "name one file at a time"],
  ] as const
) {
  Deno.test(`exit 2 and one line for lab ${args.join(" ")}`, {
    permissions,
  }, async () => {
    const { code, stdout, stderr } = await lab(args);
    assertEquals([code, stdout], [2, ""]);
    assert(stderr.includes(problem), stderr);
    assertEquals(stderr.trimEnd().split("\n").length, 1);
  });
}

Deno.test(
  "the help of each command of the lab fits into 80 columns, and that of a case has its defaults",
  { permissions },
  async () => {
    for (const args of [["--help"], ["check", "--help"], ["start", "-h"]]) {
      const { code, stdout } = await lab(args);
      assertEquals(code, 0);
      assertNarrow(stdout);
    }
    const { stdout } = await lab(["alter-peak", "--help"]);
    assert(
      stdout.includes("--tasks N") && stdout.includes("(7; 1 to 200)"),
      stdout,
    );
    assertEquals(stdout.includes("--hold"), false);
    assertEquals(stdout.includes("--db"), false);
  },
);

Deno.test(
  "lab:start writes the template once and never over it, and lab:check fails on it",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const dir = folder.file("a/b");
    const started = await lab(["start", dir]);
    assertEquals(started.code, 0);
    assert(started.stdout.includes(`deno task lab:check ${dir}/my_pool.ts`));
    const file = `${dir}/my_pool.ts`;
    await Deno.writeTextFile(file, "// mine\n", { append: true });
    const again = await lab(["start", dir]);
    assertEquals(again.code, 1);
    assertMatch(again.stderr, /it is there already; name another folder\n$/);
    assert((await Deno.readTextFile(file)).endsWith("// mine\n"));

    const checked = await lab(["check", file]);
    assertEquals(checked.code, 1);
    assertMatch(checked.stdout, /FAILS {2}break-pool-size/);
    assertMatch(checked.stdout, /\d of 14 hold\.\n/);
    assertNarrow(checked.stdout);
    const missing = await lab(["check", `${dir}/none.ts`]);
    assertEquals(missing.code, 1);
    assertMatch(missing.stderr, /^Error: Cannot read '.*none\.ts': .*\n$/);
  },
);

Deno.test("lab:check is green, exit 0, for a pool that holds", {
  permissions,
}, async () => {
  const { code, stdout } = await lab(["check", "lab_solution.ts", "--json"]);
  const { held, of, checks } = JSON.parse(stdout);
  assertEquals([code, held, of, checks.length], [0, 14, 14, 14]);
});

/** The commands of the lab that a text names. */
function commandsIn(text: string): string[][] {
  return [...text.matchAll(/deno task (lab\S*|notes)([^\n`]*)/g)].map(
    ([, task = "", rest = ""]) => [task, ...rest.trim().split(/\s+/)],
  );
}

for (const file of ["notes.md", "README.md"]) {
  Deno.test(`${file} names only cases and flags that exist`, {
    permissions,
  }, async () => {
    const text = await Deno.readTextFile(file);
    const commands = commandsIn(text);
    assert(commands.length >= 4, `${commands.length} commands`);
    for (const [task = "", ...words] of commands) {
      const command = task.replace(":", " ") as keyof typeof COMMANDS;
      assert(command in COMMANDS, task);
      const flags = COMMANDS[command].flags.map(({ name }) => name);
      for (const word of words) {
        if (!word.startsWith("--")) continue;
        assert(flags.includes(word.slice(2).replace(/=.*/, "")), word);
      }
      const [name] = words;
      if (task === "lab" && name !== undefined && /^[a-z-]+$/.test(name)) {
        const isKnown = name === "all" || name.startsWith("--") ||
          LAB_CASES.some((one) => one.name === name);
        assert(isKnown, name);
      }
    }
  });
}

Deno.test(
  "notes.md was written by its task: from measurements, with the day and the processor",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const path = folder.file("notes.md");
    const { code, stderr } = await callProject(["notes", "--output", path], {
      permissions: [...GRANTED, "--allow-sys=cpus"],
    });
    assertEquals([code, stderr], [0, `Notes written to ${path}\n`]);
    const [fresh, committed] = await Promise.all(
      [path, "notes.md"].map((file) => Deno.readTextFile(file)),
    );
    const headings = (text = ""): string[] => text.match(/^#.*$/gm) ?? [];
    assertEquals(headings(fresh), headings(committed));
    assertEquals(headings(fresh).length, 5);
    const measured = /measured on \d{4}-\d\d-\d\d, on\s+\d+\s+cores\s+of\s+\S+/;
    assertMatch(fresh ?? "", measured);
    assertMatch(committed ?? "", measured);
    // What is measured in virtual time is the same on every machine.
    const virtual = (text = ""): string[] =>
      text.match(/^\| (peak|exhausted|served|drained|waiting).*$/gm) ?? [];
    assertEquals(virtual(fresh), virtual(committed));
    assert(virtual(fresh).length >= 5);
    const format = await new Deno.Command(Deno.execPath(), {
      args: ["fmt", "--check", path],
    }).output();
    assertEquals(format.code, 0);
  },
);
