/**
 * How the program is called: its commands and flags, their help, and what a line
 * of arguments asks for. Reads and prints nothing.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { hidePassword, nearest } from "./config.ts";
import { LAB_CASES } from "./lab.ts";
import { type LabCase, type SettingName, SETTINGS } from "./lab_bench.ts";
import { RETRY_MODELS } from "./retry_models.ts";
import { SCENARIO_FIELDS } from "./scenario.ts";

/** A wrong way to call the program; exit code 2. */
export class UsageError extends Error {
  override readonly name: string = "UsageError";
}

/** A flag of a command. */
export interface Flag {
  /** Without its dashes. */
  readonly name: string;
  /** What stands for the value in the help; none if it takes no value. */
  readonly value?: string;
  /** Its short form. */
  readonly letter?: string;
  /** The option of the configuration that it sets. */
  readonly field?: string;
  /** Whether it may be given several times. */
  readonly repeats?: boolean;
  /** Lines of the help. */
  readonly help: readonly string[];
}

const COMMON_FLAGS: readonly Flag[] = [
  { name: "help", letter: "h", help: ["Show this help"] },
  { name: "version", letter: "V", help: ["Show the versions"] },
];

/** The flags of the job. */
export const RUN_FLAGS: readonly Flag[] = [
  {
    name: "input",
    letter: "i",
    value: "FILE",
    help: [
      "Labels, one a line, in UTF-8; - for standard input",
      "(data/sample_input.txt)",
    ],
  },
  {
    name: "output",
    letter: "o",
    value: "FILE",
    help: [
      "Summary as JSON, beside standard output; - for none",
      "(data/output_summary.json)",
    ],
  },
  {
    name: "db",
    value: "DATABASE",
    field: "database",
    help: [
      "A path, sqlite:PATH, :memory: or a postgres:// URL",
      "(DATABASE_URL if it is set, else :memory:)",
    ],
  },
  {
    name: "pool-size",
    value: "N",
    field: "poolSize",
    help: ["Connections kept open when idle, at least 1 (5)"],
  },
  {
    name: "max-overflow",
    value: "N",
    field: "maxOverflow",
    help: ["More that may be open in a burst, at least 0 (10)"],
  },
  {
    name: "timeout",
    value: "DURATION",
    field: "timeoutMs",
    help: ["How long to wait for a lock or a connect (5s)"],
  },
  {
    name: "max-attempts",
    value: "N",
    field: "retry.maxAttempts",
    help: ["How often to try to open the database (3)"],
  },
  {
    name: "log-level",
    value: "LEVEL",
    help: [
      "What to say on standard error: debug, info, warn or",
      "error (info)",
    ],
  },
  ...COMMON_FLAGS,
];

const OUTPUT_FLAGS: readonly Flag[] = [
  { name: "json", help: ["Print the result as JSON"] },
  {
    name: "report",
    value: "FILE",
    help: ["Write it as a page of HTML too, readable offline"],
  },
  ...COMMON_FLAGS,
];

const SIMULATE_FLAGS: readonly Flag[] = [
  ...SCENARIO_FIELDS.map(({ flag, field, value, help, repeats, sweeps }) => ({
    ...{ name: flag, field, value, help, repeats: repeats || sweeps },
  })),
  {
    name: "slo",
    value: "CONDITIONS",
    help: [
      "Name the smallest pool that meets p99<50ms,errors<0.1%",
      "(mean, p50 to p999, max, wait-p99, errors, utilization<,",
      "throughput>)",
    ],
  },
  {
    name: "scenario",
    value: "FILE",
    help: ["Settings as JSON; a flag overrides it"],
  },
  {
    name: "save-scenario",
    value: "FILE",
    help: ["Write the settings as JSON"],
  },
  ...OUTPUT_FLAGS,
];

const RETRY_FLAGS: readonly Flag[] = [
  {
    name: "model",
    value: "MODEL",
    help: [`${RETRY_MODELS.join(", ")} (contention)`],
  },
  {
    name: "policy",
    value: "LIST",
    repeats: true,
    help: [
      "none,fixed:1s,exp,full,equal,decorrelated, each perhaps",
      "with base..cap, such as exp:100ms..5s (all that tell",
      "something in the model)",
    ],
  },
  {
    name: "clients",
    value: "N",
    help: ["(100; 1000 of reconnect; 33600 requests of overload)"],
  },
  { name: "replications", value: "N", help: ["(100 of contention, else 5)"] },
  { name: "seed", value: "N", help: ["The same seed, the same result (1)"] },
  {
    name: "budget",
    value: "P",
    help: ["Retries for each success that overload allows (0.1)"],
  },
  ...OUTPUT_FLAGS,
];

const SERVER_FLAG: Flag = {
  name: "db",
  value: "URL",
  help: ["A postgres:// URL, for cases that can run on a server"],
};

const SETTING_FLAGS: readonly (Flag & { readonly field: SettingName })[] =
  (Object.keys(SETTINGS) as SettingName[]).map((field) => {
    const [name, value, help] = SETTINGS[field];
    return { name, value, field, help: [help] };
  });

const LAB_FLAGS: readonly Flag[] = [
  {
    name: "interactive",
    letter: "i",
    help: ["Ask for a prediction first, and say whether it was right"],
  },
  SERVER_FLAG,
  ...SETTING_FLAGS,
  ...OUTPUT_FLAGS,
];

const CHECK_FLAGS: readonly Flag[] = [
  { name: "json", help: ["Print the result as JSON"] },
  ...COMMON_FLAGS,
];

const NOTES_FLAGS: readonly Flag[] = [
  {
    name: "output",
    letter: "o",
    value: "FILE",
    help: ["Where the notes go; - for standard output (notes.md)"],
  },
  { ...SERVER_FLAG, help: ["A postgres:// URL, to measure a server too"] },
  ...COMMON_FLAGS,
];

/** What the program can be asked to do. */
export type CommandName =
  | "run"
  | "simulate"
  | "simulate retry"
  | "lab"
  | "lab check"
  | "lab start"
  | "notes";

/** A command of the program. */
interface Command {
  readonly flags: readonly Flag[];
  readonly help: (operand?: string) => string;
  /** What its one word beside the flags stands for, if it takes one. */
  readonly operand?: string;
}

/** Every command: its flags, its help, and whether it takes a word. */
export const COMMANDS: Readonly<Record<CommandName, Command>> = {
  run: { flags: RUN_FLAGS, help: runHelp },
  simulate: { flags: SIMULATE_FLAGS, help: simulateHelp },
  "simulate retry": { flags: RETRY_FLAGS, help: retryHelp },
  lab: { flags: LAB_FLAGS, help: labHelp, operand: "case" },
  "lab check": { flags: CHECK_FLAGS, help: checkHelp, operand: "file" },
  "lab start": { flags: COMMON_FLAGS, help: startHelp, operand: "folder" },
  notes: { flags: NOTES_FLAGS, help: notesHelp },
};

const COMMAND_NAMES = Object.keys(COMMANDS) as CommandName[];

function flagRows(flags: readonly Flag[]): string {
  return flags.flatMap(({ name, letter, value, help }) => {
    const short = letter ? `-${letter}, ` : "    ";
    const left = `  ${short}--${name}${value ? ` ${value}` : ""}`;
    const rows = help.flatMap(narrow).map((line, i) =>
      `${(i === 0 && left.length < 28 ? left : "").padEnd(28)}${line}`
    );
    return left.length < 28 ? rows : [left, ...rows];
  }).join("\n");
}

const HELP_COLUMNS = 52;

/** A line of the help in as many as fit into 80 columns. */
function narrow(line: string): string[] {
  if (line.length <= HELP_COLUMNS) return [line];
  const at = line.lastIndexOf(" ", HELP_COLUMNS);
  return [line.slice(0, at), ...narrow(line.slice(at + 1))];
}

function simulateHelp(): string {
  return `Simulate the pool under virtual time: what will a size or a timeout do?

Usage: deno task simulate [FLAGS]
       deno task simulate retry [FLAGS]    (see simulate retry --help)

Flags of simulate (default):
${flagRows(SIMULATE_FLAGS)}

A DIST is constant:20ms, exp:20ms, uniform:10ms,30ms, lognormal:20ms,1 (mean,
sigma of the log), gamma:MEAN,SHAPE, pareto:MEAN,ALPHA or empirical:FILE.
A LIST is a value, several (4,8,16) or a range (1..20, 10..100:10), which makes
a sweep. A TIME is a number of seconds, or has a unit: 250ms, 2s, 1m.

Examples:
  deno task simulate --arrivals poisson:200/s --service exp:20ms --pool-size 5
  deno task simulate --pool-size 4..12 --slo 'p99<150ms,errors<0.1%'
  deno task simulate --outage 10s+5s --duration 60s --report outage.html
  deno task simulate --usl 1000,0.02,0.0005 --arrivals poisson:12500/s \\
    --arrivals burst:2000@5s --pool-size 44,200 --duration 20s
`;
}

function retryHelp(): string {
  return `Compare retry policies where many clients fail at once.

Usage: deno task simulate retry [FLAGS]

Flags of simulate retry (default):
${flagRows(RETRY_FLAGS)}

Models:
  contention  writers of one row, of whom one at a time succeeds
  reconnect   a database that is down for 30 s, and everybody comes back
  overload    a stall of 10 s, and retries that keep the load up after it

Examples:
  deno task simulate retry --model reconnect
  deno task simulate retry --model overload --policy full,exp:100ms..5s
`;
}

/** The flags of a case, each with its default. */
function settingRows(lab: LabCase): Flag[] {
  return SETTING_FLAGS.flatMap((flag) => {
    const setting = lab.settings[flag.field];
    if (setting === undefined) return [];
    const { standard, least, most } = setting;
    const unit = flag.value === "TIME" ? "ms" : "";
    const text = `${standard}${unit}; ${least} to ${most}${unit}`;
    return [{ ...flag, help: [`${flag.help} (${text})`] }];
  });
}

function labHelp(name?: string): string {
  const lab = LAB_CASES.find((lab) => lab.name === name);
  const settings = lab === undefined ? SETTING_FLAGS : settingRows(lab);
  const flags = LAB_FLAGS.filter((flag) =>
    !SETTING_FLAGS.some(({ name }) => name === flag.name) &&
    (lab === undefined || lab.onServer || flag !== SERVER_FLAG)
  );
  return `${
    lab === undefined
      ? "Break the pool on purpose, and see why each guard is there."
      : `${lab.name}: ${lab.title}`
  }

Usage: deno task lab                     list the cases
       deno task lab CASE [FLAGS]        run one, without its guard and with it
       deno task lab all [FLAGS]         run all, and count
       deno task lab:start DIR           begin a pool of your own
       deno task lab:check FILE          put it through the cases

Flags${lab === undefined ? "" : ` of ${lab.name} (default; limits)`}:
${flagRows([...settings, ...flags])}
${
    lab === undefined
      ? `
Each case has settings of its own; \`deno task lab CASE --help\` tells which, and
their defaults.`
      : ""
  }
A TIME is a number of seconds, or has a unit: 250ms, 2s.

Examples:
  deno task lab ${lab?.name ?? "break-double-release"} --interactive
  deno task lab ${
    lab === undefined
      ? "break-thundering-herd --tasks 400"
      : `${lab.name} ${lab.experiment.flag}`
  }
  deno task lab ${lab?.name ?? "all"} --report lab.html
`;
}

function checkHelp(): string {
  return `Put a pool of your own through every case in which something breaks.

Usage: deno task lab:check FILE [FLAGS]

FILE is a module that exports a class with acquire, release, stats and close;
\`deno task lab:start DIR\` writes one to begin with, which says all about it. It
runs with the permissions of this task.

Flags:
${flagRows(CHECK_FLAGS)}

Exit codes: 0 all guards hold, 1 some do not, 2 wrong usage
`;
}

function startHelp(): string {
  return `Begin a pool of your own: writes a module to be completed.

Usage: deno task lab:start DIR

DIR is made if it is missing. Nothing that is there is overwritten.

Flags:
${flagRows(COMMON_FLAGS)}
`;
}

function notesHelp(): string {
  return `Answer the four questions anew, with figures measured on this machine.

Usage: deno task notes [FLAGS]

Flags:
${flagRows(NOTES_FLAGS)}
`;
}

function runHelp(): string {
  return `SQL Connection Simulator: a connection pool to use, to learn from and to size.

Usage: deno task run [FLAGS]
       deno run --allow-read --allow-write project.ts [run] [FLAGS]

Commands:
  run    Insert labels through the pool in one transaction, and print the rows
         and the numbers of the pool as JSON (the default)
  simulate
         Drive the same pool under virtual time, and tell what a pool size, a
         timeout or a fault will do (see simulate --help)
  simulate retry
         Compare retry policies (see simulate retry --help)
  lab    Break the pool on purpose, and see why each guard is there (see
         lab --help)
  notes  Write notes.md anew, from what is measured (see notes --help)

Flags of run (default):
${flagRows(RUN_FLAGS)}

A DURATION is a number of seconds, or has a unit: 0.5, 250ms, 2s, 1m.

A postgres:// URL has the parameters that psql knows, such as sslmode and
connect_timeout; PGPASSWORD and its like fill in what the URL leaves out.

Examples:
  deno task run --input data/sample_input.txt
  deno task run --db events.db --output - --timeout 250ms
  deno task run --db postgres://me@localhost/shop --pool-size 2
  sort labels.txt | deno task run --input - --db events.db --pool-size 2

Exit codes:
  0    done
  1    failed; a line on standard error says why, and nothing was changed
       unless it says so
  2    wrong usage
  130  interrupted with Ctrl-C; nothing was changed, or a line says otherwise
  143  terminated; the same
`;
}

/** What the command line asks for. */
export interface Invocation {
  readonly command: CommandName;
  /** The word beside the flags, if the command takes one. */
  readonly operand: string | undefined;
  /** The values of the flags; of several the first. */
  readonly values: ReadonlyMap<string, string>;
  /** All values of the flags that may be given several times. */
  readonly lists: ReadonlyMap<string, readonly string[]>;
  /** The flags without a value that are given. */
  readonly switches: ReadonlySet<string>;
}

/** The command that the first words name: of several the one of most words. */
function commandOf(args: readonly string[]): CommandName {
  const named = COMMAND_NAMES.filter((name) =>
    name.split(" ").every((word, i) => args[i] === word)
  );
  return named.toSorted((a, b) => b.length - a.length)[0] ?? "run";
}

/**
 * What a line of arguments asks for.
 *
 * @throws {UsageError} if it is wrong.
 */
export function parse(args: readonly string[]): Invocation {
  const command = commandOf(args);
  const { flags, operand } = COMMANDS[command];
  const words = command === "run" ? 0 : command.split(" ").length;
  const valued = flags.filter((flag) => flag.value !== undefined);
  const plain = flags.filter((flag) => flag.value === undefined);
  const names = valued.map((flag) => flag.name);
  const alias = Object.fromEntries(
    flags.flatMap(({ name, letter }) => letter ? [[name, letter]] : []),
  );
  const parsed: Record<string, unknown> & { _: (string | number)[] } =
    parseArgs(
      tidy(args.slice(words), flags),
      {
        string: ["_", ...names],
        boolean: plain.map((flag) => flag.name),
        collect: names,
        alias,
      },
    );
  const given = parsed._.map(String);
  if (command === "run") {
    const [word = "run"] = given.splice(0, 1);
    if (COMMAND_NAMES.some((name) => name !== "run" && name === word)) {
      throw new UsageError(`'${word}' must come before its flags`);
    }
    if (word !== "run") throw unknownCommand(word);
  }
  const word = operand === undefined ? undefined : given.shift();
  if (given.length > 0) {
    throw new UsageError(
      operand !== undefined
        ? `Cannot take '${given[0]}': name one ${operand} at a time`
        : `Cannot take '${
          given[0]
        }': every value belongs to a flag, such as --${names[0]} ${given[0]}`,
    );
  }
  const values = new Map<string, string>();
  const lists = new Map<string, readonly string[]>();
  for (const { name, repeats, value = "" } of valued) {
    const given = parsed[name] as string[];
    if (given.length > 1 && !repeats) {
      throw new UsageError(`--${name} is given twice`);
    }
    if (given.includes("")) {
      throw new UsageError(
        `--${name} needs a value, such as --${name} ${example(name, value)}`,
      );
    }
    if (given[0] === undefined) continue;
    values.set(name, given[0]);
    lists.set(name, given);
  }
  const switches = new Set(
    plain.map(({ name }) => name).filter((name) => parsed[name] === true),
  );
  return { command, operand: word, values, lists, switches };
}

function example(name: string, value: string): string {
  const kinds: Record<string, string> = {
    DIST: "exp:20ms",
    TIME: "30s",
    FILE: "result.json",
    P: "0.01",
    DATABASE: "events.db",
    URL: "postgres://me@localhost/shop",
  };
  const examples: Record<string, string> = {
    "arrivals": "poisson:200/s",
    "report": "report.html",
    "slo": "'p99<50ms,errors<0.1%'",
    "usl": "1000,0.02,0.0005",
    "outage": "10s+5s",
    "slow": "10s+5s,x10",
    "retry": "full:10ms..5s",
    "validate": "borrow",
    "model": "reconnect",
    "policy": "full,exp:100ms..5s",
    "acquire-timeout": "500ms",
    "client-timeout": "500ms",
    "name": "checkout",
    "input": "data/sample_input.txt",
    "output": "data/output_summary.json",
    "timeout": "250ms",
    "log-level": "debug",
  };
  return examples[name] ?? kinds[value] ?? "5";
}

// `parseArgs` takes whatever begins with a dash for a flag, be it -1 or the -
// of standard input, and an empty value for a word of its own.
function tidy(args: readonly string[], flags: readonly Flag[]): string[] {
  const spell = ({ name, letter }: Flag): string[] =>
    letter ? [`--${name}`, `-${letter}`] : [`--${name}`];
  const spellings = new Set(flags.flatMap(spell));
  const valued = new Set(flags.filter(({ value }) => value).flatMap(spell));
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string;
    if (arg === "--") return [...joined, ...args.slice(i)];
    // `parseArgs` knows more spellings than the help, such as --no-db.
    if (/^-./.test(arg) && !spellings.has(arg.replace(/=.*/s, ""))) {
      refuseFlag(arg, flags);
    }
    const next = args[i + 1];
    if (valued.has(arg) && next !== undefined && /^($|-$|-\.?\d)/.test(next)) {
      joined.push(`${arg}=${next}`);
      i++;
    } else joined.push(arg);
  }
  return joined;
}

function refuseFlag(arg: string, flags: readonly Flag[]): never {
  const name = arg.replace(/^--?/, "").replace(/=.*/s, "");
  const near = nearest(name, flags.map((flag) => flag.name));
  throw new UsageError(
    `Unknown flag '${arg.replace(/=.*/s, "")}'${
      near ? `: did you mean --${near}?` : ""
    }`,
  );
}

function unknownCommand(command: string): UsageError {
  const commands = COMMAND_NAMES.filter((name) => !name.includes(" "));
  const near = nearest(command, commands);
  return new UsageError(
    `Unknown command '${command}'${
      near ? `: did you mean '${near}'?` : `: there are ${commands.join(", ")}`
    }`,
  );
}

/** An argument as a shell takes it. */
export function quoted(arg: string): string {
  return /^[\w@%+=:,./-]+$/.test(arg)
    ? arg
    : `'${arg.replaceAll("'", "'\\''")}'`;
}

/** The command that gives the same result again, for any POSIX shell. */
export function commandLine(args: readonly string[]): string {
  // What is kept or passed on must tell no password.
  const [command = "", ...rest] = args.map((arg) => quoted(hidePassword(arg)));
  return ["deno task", command, ...rest].join(" ");
}
