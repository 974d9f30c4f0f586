/**
 * The command line: flags, printing and exit codes. The only file that prints
 * or exits.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { basename, dirname, join, resolve } from "@std/path";
import { systemClock } from "./clock.ts";
import {
  ConnectionConfig,
  type ConnectionOptions,
  hidePassword,
  nearest,
  parseDuration,
} from "./config.ts";
import settings from "./deno.json" with { type: "json" };
import { ConfigError, messageOf } from "./errors.ts";
import type { PoolEvents } from "./pool_report.ts";
import { describeRetry } from "./retry.ts";
import { diagnose, parseSlo, recommend, theoryBeside } from "./diagnosis.ts";
import {
  type Report,
  retryHtml,
  retryText,
  simulationHtml,
  simulationJson,
  simulationText,
} from "./report.ts";
import {
  RETRY_MODELS,
  type RetryExperiment,
  retrySteps,
} from "./retry_models.ts";
import {
  parseScenario,
  readScenario,
  type Scenario,
  SCENARIO_FIELDS,
  ScenarioError,
  type ScenarioValue,
} from "./scenario.ts";
import { simulation } from "./simulate.ts";
import { settled } from "./virtual_clock.ts";
import { WholeFile } from "./whole_file.ts";
import { run, type RunOptions } from "./workload.ts";

/** A wrong way to call the program; exit code 2. */
class UsageError extends Error {
  override readonly name: string = "UsageError";
}

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
// 128 and the number of the signal, as shells have it.
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
type LogLevel = typeof LOG_LEVELS[number];

interface Flag {
  readonly name: string;
  /** What stands for the value in the help; none if it takes no value. */
  readonly value?: string;
  readonly letter?: string;
  /** The option of the configuration that it sets. */
  readonly field?: string;
  /** Whether it may be given several times. */
  readonly repeats?: boolean;
  readonly help: readonly string[];
}

const COMMON_FLAGS: readonly Flag[] = [
  { name: "help", letter: "h", help: ["Show this help"] },
  { name: "version", letter: "V", help: ["Show the versions"] },
];

const RUN_FLAGS: readonly Flag[] = [
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

type CommandName = "run" | "simulate" | "simulate retry";

const COMMANDS: Readonly<
  Record<CommandName, { flags: readonly Flag[]; help: () => string }>
> = {
  run: { flags: RUN_FLAGS, help: runHelp },
  simulate: { flags: SIMULATE_FLAGS, help: simulateHelp },
  "simulate retry": { flags: RETRY_FLAGS, help: retryHelp },
};

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
interface Invocation {
  readonly command: CommandName;
  readonly values: ReadonlyMap<string, string>;
  /** All values of the flags that may be given several times. */
  readonly lists: ReadonlyMap<string, readonly string[]>;
  readonly switches: ReadonlySet<string>;
}

/** The command that the words before the first flag name. */
function commandOf(args: readonly string[]): CommandName {
  if (args[0] === "simulate") {
    return args[1] === "retry" ? "simulate retry" : "simulate";
  }
  return "run";
}

function parse(args: readonly string[]): Invocation {
  const command = commandOf(args);
  const { flags } = COMMANDS[command];
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
    if (word === "simulate") {
      throw new UsageError("'simulate' must come before its flags");
    }
    if (word !== "run") throw unknownCommand(word);
  }
  const rest = given;
  if (rest.length > 0) {
    throw new UsageError(
      `Cannot take '${rest[0]}': every value belongs to a flag, such as --${
        names[0]
      } ${rest[0]}`,
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
  return { command, values, lists, switches };
}

function example(name: string, value: string): string {
  const kinds: Record<string, string> = {
    DIST: "exp:20ms",
    TIME: "30s",
    FILE: "result.json",
    P: "0.01",
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
    "db": "events.db",
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
  const commands = ["run", "simulate"];
  const near = nearest(command, commands);
  return new UsageError(
    `Unknown command '${command}'${
      near
        ? `: did you mean '${near}'?`
        : `: there are ${commands.join(" and ")}`
    }`,
  );
}

// Within what a timer of the platform can take.
const LONGEST_TIMEOUT_MS = 500 * 3_600_000;

/** The settings that the flags name. */
function configure(values: ReadonlyMap<string, string>): ConnectionConfig {
  const number = (name: string): number | undefined => {
    const text = values.get(name);
    if (text === undefined) return undefined;
    if (/^[+-]?(\d+\.?\d*|\.\d+)$/.test(text)) return Number(text);
    throw new UsageError(
      `--${name} must be a whole number: current value is ${
        JSON.stringify(text)
      }`,
    );
  };
  const duration = (name: string): number | undefined => {
    const text = values.get(name);
    try {
      return text === undefined ? undefined : parseDuration(text);
    } catch (error) {
      throw new UsageError(`--${name} ${messageOf(error)}`);
    }
  };
  const retry = { maxAttempts: number("max-attempts") };
  const timeoutMs = duration("timeout");
  if (timeoutMs !== undefined && timeoutMs > LONGEST_TIMEOUT_MS) {
    throw new UsageError(
      `--timeout must be at most 500h: current value is '${
        values.get("timeout")
      }'`,
    );
  }
  const given = {
    database: values.get("db") ?? databaseUrl(),
    poolSize: number("pool-size"),
    maxOverflow: number("max-overflow"),
    timeoutMs,
    // Locks and connects have their own limits, and nobody else is here.
    acquireTimeoutMs: LONGEST_TIMEOUT_MS,
    retry,
  };
  // An option that is undefined counts as left out.
  return new ConnectionConfig(given as ConnectionOptions);
}

/** The database that the environment names, where it may be asked. */
function databaseUrl(): string | undefined {
  const descriptor = { name: "env", variable: "DATABASE_URL" } as const;
  const { state } = Deno.permissions.querySync(descriptor);
  return state === "granted"
    ? Deno.env.get(descriptor.variable) || undefined
    : undefined;
}

/** What is wrong with the settings, in terms of the flags that gave them. */
function describeProblems(
  { problems }: ConfigError,
  values: ReadonlyMap<string, string>,
): string {
  return problems.map(({ field, rule, value }) => {
    const flag = RUN_FLAGS.find((flag) => flag.field === field)?.name ?? field;
    const isGiven = flag !== "db" || values.has("db");
    const source = isGiven ? `--${flag}` : "DATABASE_URL";
    return `${source} ${rule}: current value is ${value}`;
  }).join("; ");
}

/**
 * Gives up what only a server needs, so that a job on SQLite reaches no network
 * whatever the task grants.
 */
function dropServerPermissions(log: Log): void {
  const names = ["net", "env"] as const;
  for (const name of names) Deno.permissions.revokeSync({ name });
  log.say("debug", `Permissions given up: ${names.join(", ")}`);
}

// As often as an eye can tell one number from the next.
const PROGRESS_MS = 100;

/** Lines on standard error, from a level on. */
class Log {
  readonly #least: number;
  readonly #encoder = new TextEncoder();
  readonly #showsProgress: boolean;
  #isLineOpen = false;
  #progressMs = -Infinity;

  constructor(level: LogLevel) {
    this.#least = LOG_LEVELS.indexOf(level);
    this.#showsProgress = Deno.stderr.isTerminal() && level !== "error";
  }

  say(level: LogLevel, text: string): void {
    if (LOG_LEVELS.indexOf(level) < this.#least) return;
    this.endProgress();
    const isLoud = Deno.stderr.isTerminal() && !Deno.noColor;
    const color = { debug: 90, info: 0, warn: 33, error: 31 }[level];
    const line = text.replaceAll("\n", " ");
    this.#write(
      isLoud && color ? `\x1b[${color}m${line}\x1b[0m\n` : `${line}\n`,
    );
  }

  /** Shows how far the work is, on a terminal only, on one line. */
  progress(text: string): void {
    if (!this.#showsProgress) return;
    const nowMs = systemClock.now();
    if (nowMs - this.#progressMs < PROGRESS_MS) return;
    this.#progressMs = nowMs;
    this.#isLineOpen = true;
    this.#write(`\r${text}\x1b[K`);
  }

  endProgress(): void {
    if (this.#isLineOpen) this.#write("\r\x1b[K");
    this.#isLineOpen = false;
  }

  #write(text: string): void {
    const bytes = this.#encoder.encode(text);
    for (let at = 0; at < bytes.length;) {
      at += Deno.stderr.writeSync(bytes.subarray(at));
    }
  }
}

function readLogLevel(values: ReadonlyMap<string, string>): LogLevel {
  const text = values.get("log-level") ?? "info";
  const level = LOG_LEVELS.find((level) => level === text);
  if (level !== undefined) return level;
  const near = nearest(text, LOG_LEVELS);
  throw new UsageError(
    `--log-level must be one of ${LOG_LEVELS.join(", ")}: current value is ${
      JSON.stringify(text)
    }${near ? ` (did you mean ${near}?)` : ""}`,
  );
}

/** Refuses one file in two roles: reading it while it is replaced loses it. */
async function refuseSameFile(
  roles: readonly (readonly [string, string | undefined])[],
): Promise<void> {
  const seen = new Map<string, string>();
  for (const [flag, path] of roles) {
    if (path === undefined || path === "-") continue;
    for (const identity of await identities(path)) {
      const other = seen.get(identity);
      if (other !== undefined && other !== flag) {
        throw new UsageError(
          `${flag} must not be the same file as ${other}: current value is '${path}'`,
        );
      }
      seen.set(identity, flag);
    }
  }
}

async function identities(path: string): Promise<string[]> {
  const names = [resolve(path)];
  try {
    const { dev, ino, isFile } = await Deno.stat(path);
    // A device may well be read and written at once.
    if (!isFile) return [];
    // One file may have several names.
    if (ino !== null) names.push(`${dev}:${ino}`);
  } catch {
    // What does not exist yet may still be named through different folders.
    try {
      names.push(join(await Deno.realPath(dirname(path)), basename(path)));
    } catch {
      // Nor does its folder, and so it has no other name.
    }
  }
  return names;
}

async function runCommand(
  values: ReadonlyMap<string, string>,
  signal: AbortSignal,
): Promise<void> {
  const log = new Log(readLogLevel(values));
  const config = configure(values);
  const input = values.get("input") ?? "data/sample_input.txt";
  const output = values.get("output") ?? "data/output_summary.json";
  const { target } = config;
  await refuseSameFile([
    ["--input", input],
    ["--output", output],
    ["--db", target.kind === "sqlite" ? target.path : undefined],
  ]);
  // The published package for SQLite asks for FFI and the environment.
  const mayBeNeeded = Deno.permissions.querySync({ name: "ffi" }).state;
  if (target.kind !== "postgres" && mayBeNeeded !== "granted") {
    dropServerPermissions(log);
  }
  const database = hidePassword(config.database);
  const events: PoolEvents = {
    connectRetry: (notice) =>
      log.say("warn", describeRetry(`Cannot open ${database}`, notice)),
  };
  const options: RunOptions = {
    input,
    output,
    config,
    signal,
    events,
    echo: Deno.stdout.writable,
    onEcho: () => log.endProgress(),
    onProgress: (phase, rows) =>
      log.progress(`${rows.toLocaleString("en")} rows ${phase}`),
  };
  log.say("debug", `Configuration: ${JSON.stringify(config)}`);
  try {
    const { rows_inserted: rows } = await run(options);
    const where = output === "-" ? "" : `; summary written to ${output}`;
    if (signal.aborted) log.say("warn", "Interrupted when the work was done");
    log.say(
      "info",
      `${rows} ${
        rows === 1 ? "row" : "rows"
      } inserted into ${database}${where}`,
    );
  } finally {
    log.endProgress();
  }
}

/** Reads the numbers of a file that a scenario names, one a line. */
function loadNumbers(path: string): number[] {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    throw new Error(`Cannot read '${path}': ${messageOf(error)}`);
  }
  return text.replace(/^\uFEFF/, "").split(/\r?\n/).flatMap((line, i) => {
    const written = line.replace(/#.*/, "").trim();
    if (written === "") return [];
    const value = Number(written);
    if (Number.isFinite(value)) return [value];
    throw new UsageError(
      `'${path}' must have a number in each line: line ${i + 1} is ${
        JSON.stringify(written.slice(0, 40))
      }`,
    );
  });
}

async function writeWhole(path: string, text: string): Promise<void> {
  try {
    await using file = await WholeFile.create(path);
    await file.write(text);
    await file.finish();
  } catch (error) {
    throw new Error(`Cannot write '${path}': ${messageOf(error)}`);
  }
}

/** Takes the steps of long work, between which Ctrl-C is heard. */
async function takeSteps<T>(
  what: string,
  steps: Generator<number, T>,
  log: Log,
  signal: AbortSignal,
): Promise<T> {
  try {
    for (;;) {
      const step = steps.next();
      if (step.done) return step.value;
      log.progress(`${what}: ${Math.floor(step.value * 100)} %`);
      await settled();
      signal.throwIfAborted();
    }
  } finally {
    log.endProgress();
  }
}

/** The command that gives the same result again, for any POSIX shell. */
function commandLine(args: readonly string[]): string {
  const quoted = args.map((arg) =>
    /^[\w@%+=:,./-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`
  );
  const [command = "", ...rest] = quoted;
  return ["deno task", command, ...rest].join(" ");
}

async function simulateCommand(
  args: readonly string[],
  { values, lists, switches }: Invocation,
  signal: AbortSignal,
): Promise<void> {
  const log = new Log("info");
  const file = values.get("scenario");
  let scenario: Record<string, ScenarioValue | undefined> = {};
  if (file !== undefined) {
    let text: string;
    try {
      text = await Deno.readTextFile(file);
    } catch (error) {
      throw new Error(`Cannot read '${file}': ${messageOf(error)}`);
    }
    scenario = { ...parseScenario(text) };
  }
  for (const { flag, field } of SCENARIO_FIELDS) {
    const given = lists.get(flag);
    if (given === undefined) continue;
    const [only] = given;
    scenario[field] = given.length === 1 && only !== undefined ? only : given;
  }
  const plan = readScenario(scenario as Scenario, loadNumbers);
  const slo = values.get("slo");
  let clauses;
  try {
    clauses = slo === undefined ? undefined : parseSlo(slo);
  } catch (error) {
    throw new UsageError(`--slo ${messageOf(error)}`);
  }
  const page = values.get("report");
  const saved = values.get("save-scenario");
  await refuseSameFile([["--report", page], ["--save-scenario", saved]]);
  await refuseSameFile([["--report", page], ["--scenario", file]]);
  if (saved !== undefined) {
    const text = JSON.stringify(plan.scenario, null, 2) + "\n";
    await writeWhole(saved, text);
  }
  const result = await takeSteps("Simulated", simulation(plan), log, signal);
  const recommendation = clauses === undefined
    ? null
    : await takeSteps("Searched", recommend(result, clauses), log, signal);
  const report: Report = {
    result,
    theory: theoryBeside(result),
    findings: diagnose(result),
    recommendation,
    command: commandLine(args),
  };
  await print(
    switches.has("json")
      ? JSON.stringify(simulationJson(report), null, 2) + "\n"
      : simulationText(report),
  );
  if (page !== undefined) {
    await writeWhole(page, await simulationHtml(report));
    log.say("info", `Report written to ${page}`);
  }
}

async function retryCommand(
  args: readonly string[],
  { values, lists, switches }: Invocation,
  signal: AbortSignal,
): Promise<void> {
  const log = new Log("info");
  const model = RETRY_MODELS.find((name) =>
    name === (values.get("model") ?? "contention")
  );
  if (model === undefined) {
    const given = values.get("model") ?? "";
    const near = nearest(given, RETRY_MODELS);
    throw new UsageError(
      `--model must be one of ${RETRY_MODELS.join(", ")}: current value is ${
        JSON.stringify(given)
      }${near ? ` (did you mean ${near}?)` : ""}`,
    );
  }
  const count = (name: string, least: number, most: number) => {
    const text = values.get(name);
    if (text === undefined) return {};
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= least && value <= most) return { [name]: value };
    throw new UsageError(
      `--${name} must be a whole number from ${least} to ${most}: current value is ${
        JSON.stringify(text)
      }`,
    );
  };
  const budget = values.get("budget");
  if (budget !== undefined && !/^(0|1|0?\.\d+)$/.test(budget)) {
    throw new UsageError(
      `--budget must be a number from 0 to 1: current value is ${
        JSON.stringify(budget)
      }`,
    );
  }
  const policies = lists.get("policy")?.flatMap((text) => text.split(","));
  const experiment: RetryExperiment = {
    model,
    ...(policies === undefined ? {} : { policies }),
    ...(budget === undefined ? {} : { budget: Number(budget) }),
    ...count("clients", 1, 1_000_000),
    ...count("replications", 1, 10_000),
    ...count("seed", 0, 4_294_967_295),
  };
  const page = values.get("report");
  let result;
  try {
    result = await takeSteps("Simulated", retrySteps(experiment), log, signal);
  } catch (error) {
    if (error instanceof SyntaxError) {
      throw new UsageError(`--policy ${error.message}`);
    }
    throw error;
  }
  await print(
    switches.has("json")
      ? JSON.stringify(result, null, 2) + "\n"
      : retryText(result),
  );
  if (page !== undefined) {
    await writeWhole(page, await retryHtml(result, commandLine(args)));
    log.say("info", `Report written to ${page}`);
  }
}

function describeScenario({ problems }: ScenarioError): string {
  return problems.map(({ field, text }) => {
    const known = SCENARIO_FIELDS.find((one) => one.field === field);
    return `${known ? `--${known.flag}` : `'${field}'`} ${text}`;
  }).join("; ");
}

async function main(args: readonly string[]): Promise<number> {
  const interruption = new AbortController();
  let exitCode: number = EXIT_FAILED;
  const listeners = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    const listener = (): void => {
      exitCode = EXIT_CODES[signal];
      interruption.abort();
      // The next one ends the program at once.
      Deno.removeSignalListener(signal, listener);
    };
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  const log = new Log("error");
  let values: Invocation["values"] = new Map();
  try {
    const invocation = parse(args);
    values = invocation.values;
    const { command, switches } = invocation;
    const { signal } = interruption;
    if (switches.has("help")) await print(COMMANDS[command].help());
    else if (switches.has("version")) await print(versions());
    else if (command === "simulate") {
      await simulateCommand(args, invocation, signal);
    } else if (command === "simulate retry") {
      await retryCommand(args, invocation, signal);
    } else await runCommand(values, signal);
    return interruption.signal.aborted ? exitCode : 0;
  } catch (error) {
    if (interruption.signal.aborted && error === interruption.signal.reason) {
      log.say("error", "Interrupted: nothing was changed");
      return exitCode;
    }
    // Whoever reads standard output, such as `head`, has seen enough.
    if (error instanceof Deno.errors.BrokenPipe) return 0;
    const isConfig = error instanceof ConfigError;
    const isScenario = error instanceof ScenarioError;
    const isUsage = isConfig || isScenario || error instanceof UsageError;
    const text = isConfig
      ? describeProblems(error, values)
      : isScenario
      ? describeScenario(error)
      : hidePassword(messageOf(error));
    log.say("error", `Error: ${text}${isUsage ? " (see --help)" : ""}`);
    return isUsage ? EXIT_USAGE : EXIT_FAILED;
  } finally {
    for (const remove of listeners) remove();
  }
}

function versions(): string {
  return `sql-connection-simulator ${settings.version} (deno ${Deno.version.deno})\n`;
}

async function print(text: string): Promise<void> {
  const writer = Deno.stdout.writable.getWriter();
  await writer.write(new TextEncoder().encode(text));
  writer.releaseLock();
}

if (import.meta.main) Deno.exit(await main(Deno.args));
