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
  readonly help: readonly string[];
}

const FLAGS: readonly Flag[] = [
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
  { name: "help", letter: "h", help: ["Show this help"] },
  { name: "version", letter: "V", help: ["Show the versions"] },
];

const COMMANDS: readonly string[] = ["run"];

function help(): string {
  const rows = FLAGS.flatMap(({ name, letter, value, help }) => {
    const short = letter ? `-${letter}, ` : "    ";
    const left = `  ${short}--${name}${value ? ` ${value}` : ""}`;
    return help.map((line, i) => `${(i === 0 ? left : "").padEnd(28)}${line}`);
  });
  return `SQL Connection Simulator: a connection pool to use, to learn from and to size.

Usage: deno task run [FLAGS]
       deno run --allow-read --allow-write project.ts [run] [FLAGS]

Commands:
  run    Insert labels through the pool in one transaction, and print the rows
         and the numbers of the pool as JSON (the default)

Flags of run (default):
${rows.join("\n")}

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
  readonly command: string;
  readonly values: ReadonlyMap<string, string>;
  readonly switches: ReadonlySet<string>;
}

function parse(args: readonly string[]): Invocation {
  const valued = FLAGS.filter((flag) => flag.value !== undefined);
  const plain = FLAGS.filter((flag) => flag.value === undefined);
  const names = valued.map((flag) => flag.name);
  const alias = Object.fromEntries(
    FLAGS.flatMap(({ name, letter }) => letter ? [[name, letter]] : []),
  );
  const parsed: Record<string, unknown> & { _: (string | number)[] } =
    parseArgs(
      tidy(args),
      {
        string: ["_", ...names],
        boolean: plain.map((flag) => flag.name),
        collect: names,
        alias,
      },
    );
  const [command = "run", ...rest] = parsed._.map(String);
  if (!COMMANDS.includes(command)) throw unknownCommand(command);
  if (rest.length > 0) {
    throw new UsageError(
      `Cannot take '${
        rest[0]
      }': every value belongs to a flag, such as --input ${rest[0]}`,
    );
  }
  const values = new Map<string, string>();
  for (const name of names) {
    const given = parsed[name] as string[];
    if (given.length > 1) throw new UsageError(`--${name} is given twice`);
    if (given[0] === "") {
      throw new UsageError(
        `--${name} needs a value, such as --${name} ${example(name)}`,
      );
    }
    if (given[0] !== undefined) values.set(name, given[0]);
  }
  const switches = new Set(
    plain.map(({ name }) => name).filter((name) => parsed[name] === true),
  );
  return { command, values, switches };
}

function example(name: string): string {
  const examples: Record<string, string> = {
    "input": "data/sample_input.txt",
    "output": "data/output_summary.json",
    "db": "events.db",
    "timeout": "250ms",
    "log-level": "debug",
  };
  return examples[name] ?? "5";
}

// `parseArgs` takes whatever begins with a dash for a flag, be it -1 or the -
// of standard input, and an empty value for a word of its own.
function tidy(args: readonly string[]): string[] {
  const spell = ({ name, letter }: Flag): string[] =>
    letter ? [`--${name}`, `-${letter}`] : [`--${name}`];
  const spellings = new Set(FLAGS.flatMap(spell));
  const valued = new Set(FLAGS.filter(({ value }) => value).flatMap(spell));
  const joined: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] as string;
    if (arg === "--") return [...joined, ...args.slice(i)];
    // `parseArgs` knows more spellings than the help, such as --no-db.
    if (/^-./.test(arg) && !spellings.has(arg.replace(/=.*/s, ""))) {
      refuseFlag(arg);
    }
    const next = args[i + 1];
    if (valued.has(arg) && next !== undefined && /^($|-$|-\.?\d)/.test(next)) {
      joined.push(`${arg}=${next}`);
      i++;
    } else joined.push(arg);
  }
  return joined;
}

function refuseFlag(arg: string): never {
  const name = arg.replace(/^--?/, "").replace(/=.*/s, "");
  const near = nearest(name, FLAGS.map((flag) => flag.name));
  throw new UsageError(
    `Unknown flag '${arg.replace(/=.*/s, "")}'${
      near ? `: did you mean --${near}?` : ""
    }`,
  );
}

function unknownCommand(command: string): UsageError {
  const near = nearest(command, COMMANDS);
  return new UsageError(
    `Unknown command '${command}'${
      near ? `: did you mean '${near}'?` : `: there is ${COMMANDS.join(", ")}`
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
    const flag = FLAGS.find((flag) => flag.field === field)?.name ?? field;
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
    const { switches } = invocation;
    if (switches.has("help")) await print(help());
    else if (switches.has("version")) await print(versions());
    else await runCommand(values, interruption.signal);
    return interruption.signal.aborted ? exitCode : 0;
  } catch (error) {
    if (interruption.signal.aborted && error === interruption.signal.reason) {
      log.say("error", "Interrupted: nothing was changed");
      return exitCode;
    }
    // Whoever reads standard output, such as `head`, has seen enough.
    if (error instanceof Deno.errors.BrokenPipe) return 0;
    const isConfig = error instanceof ConfigError;
    const isUsage = isConfig || error instanceof UsageError;
    const text = isConfig
      ? describeProblems(error, values)
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
