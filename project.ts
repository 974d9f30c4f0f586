/**
 * The command line: flags, printing and exit codes. The only file that prints
 * or exits.
 *
 * @module
 */

import { basename, dirname, join, resolve } from "@std/path";
import { cpus } from "node:os";
import { systemClock, today } from "./clock.ts";
import {
  commandLine,
  type CommandName,
  COMMANDS,
  type Invocation,
  parse,
  quoted,
  RUN_FLAGS,
  UsageError,
} from "./command_line.ts";
import {
  ConnectionConfig,
  type ConnectionOptions,
  hidePassword,
  nearest,
  parseDuration,
} from "./config.ts";
import settings from "./deno.json" with { type: "json" };
import { ConfigError, messageOf } from "./errors.ts";
import {
  choicesOf,
  LAB_CASES,
  type LabOptions,
  type LabRun,
  runCase,
  settingsOf,
} from "./lab.ts";
import {
  type CaseValues,
  type LabCase,
  reach,
  type SettingName,
  SETTINGS,
} from "./lab_bench.ts";
import {
  type Check,
  checkPool,
  type CheckReport,
  TEMPLATE,
  TEMPLATE_FILE,
} from "./lab_check.ts";
import {
  allJson,
  casesJson,
  casesText,
  checkJson,
  checkText,
  labHtml,
  letterOf,
  questionText,
  runText,
  scoreText,
} from "./lab_report.ts";
import { NOTE_CASES, notesText } from "./notes.ts";
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

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;
// 128 and the number of the signal, as shells have it.
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

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

const LOG_LEVELS = ["debug", "info", "warn", "error"] as const;
type LogLevel = typeof LOG_LEVELS[number];

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

/** Writes a file; without a text it only tries whether that can be done. */
async function writeWhole(path: string, text?: string): Promise<void> {
  try {
    await using file = await WholeFile.create(path);
    if (text === undefined) return;
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
      ? jsonOf(simulationJson(report))
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
    switches.has("json") ? jsonOf(result) : retryText(result),
  );
  if (page !== undefined) {
    await writeWhole(page, await retryHtml(result, commandLine(args)));
    log.say("info", `Report written to ${page}`);
  }
}

/** Lines of standard input, each when it is wanted. */
class Answers {
  readonly #reader = Deno.stdin.readable.getReader();
  readonly #decoder = new TextDecoder();
  #text = "";

  /** The next line; undefined at the end of the input. */
  async line(signal: AbortSignal): Promise<string | undefined> {
    signal.throwIfAborted();
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = this.#text.slice(0, end);
        this.#text = this.#text.slice(end + 1);
        return line.trim();
      }
      const { done, value } = await this.#read(signal);
      if (done) return this.#text.trim() || undefined;
      this.#text += this.#decoder.decode(value, { stream: true });
    }
  }

  /** Reads what there is, unless it is interrupted before. */
  async #read(
    signal: AbortSignal,
  ): Promise<ReadableStreamReadResult<Uint8Array>> {
    let abort = (): void => {};
    const interrupted = new Promise<never>((_, reject) => {
      abort = () => reject(signal.reason);
      signal.addEventListener("abort", abort);
    });
    try {
      return await Promise.race([this.#reader.read(), interrupted]);
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }
}

/** Asks what will happen, until one of the choices is named. */
async function predict(
  lab: LabCase,
  settings: CaseValues,
  answers: Answers,
  signal: AbortSignal,
): Promise<number> {
  await print(questionText(lab, settingsOf(lab, settings)));
  const letters = choicesOf(lab).map((_, i) => letterOf(i));
  for (;;) {
    await print(`\nYour prediction (${letters.join(", ")}): `);
    const line = await answers.line(signal);
    if (line === undefined) {
      await print("\n");
      throw new Error("Cannot go on without a prediction: the input has ended");
    }
    const choice = letters.indexOf(line.toLowerCase());
    if (choice >= 0) return choice;
    await print(`Answer with ${letters.join(" or ")}.\n`);
  }
}

/** The settings of a case that the flags name. */
function labSettings(
  lab: LabCase | undefined,
  values: ReadonlyMap<string, string>,
): CaseValues {
  const settings: { [name in SettingName]?: number } = {};
  for (const field of Object.keys(SETTINGS) as SettingName[]) {
    const [flag, kind] = SETTINGS[field];
    const text = values.get(flag);
    if (text === undefined) continue;
    const setting = lab?.settings[field];
    if (lab === undefined) {
      throw new UsageError(`--${flag} changes one case: name it`);
    }
    if (setting === undefined) {
      const takes = (Object.keys(lab.settings) as SettingName[])
        .map((name) => `--${SETTINGS[name][0]}`);
      throw new UsageError(
        `--${flag} changes nothing in ${lab.name}, which takes ${
          takes.join(", ")
        }`,
      );
    }
    settings[field] = readSetting(flag, kind, text, setting);
  }
  return settings;
}

function readSetting(
  flag: string,
  kind: string,
  text: string,
  { least, most, isWhole }: { least: number; most: number; isWhole: boolean },
): number {
  let value = NaN;
  if (kind === "TIME") {
    try {
      value = parseDuration(text);
    } catch (error) {
      throw new UsageError(`--${flag} ${messageOf(error)}`);
    }
  } else if (/^[+-]?(\d+\.?\d*|\.\d+)$/.test(text)) value = Number(text);
  const isRight = value >= least && value <= most &&
    (!isWhole || Number.isInteger(value));
  if (isRight) return value;
  const unit = kind === "TIME" ? "ms" : "";
  throw new UsageError(
    `--${flag} must be a ${
      kind === "TIME" ? "time" : isWhole ? "whole number" : "number"
    } from ${least}${unit} to ${most}${unit}: current value is ${
      JSON.stringify(text)
    }`,
  );
}

/** The server that the cases are to run on. */
function labServer(values: ReadonlyMap<string, string>): string | undefined {
  const database = values.get("db");
  if (database === undefined) return undefined;
  if (new ConnectionConfig({ database }).target.kind === "postgres") {
    return database;
  }
  throw new UsageError(
    `--db must be the URL of a server, which begins with postgres, as on SQLite ` +
      `each case makes a database of its own: current value is ${
        JSON.stringify(database)
      }`,
  );
}

function labCase(name: string): LabCase {
  const lab = LAB_CASES.find((lab) => lab.name === name);
  if (lab !== undefined) return lab;
  const names = [
    ...LAB_CASES.map(({ name }) => name),
    ...["all", "check", "start"],
  ];
  // Many know only what it is about.
  const near = nearest(name, names) ??
    names.find((one) => one.endsWith(`-${name}`));
  throw new UsageError(
    `Unknown case '${name}': ${
      near ? `did you mean '${near}'?` : "`deno task lab` lists them"
    }`,
  );
}

/** Gives up what the cases do not need, whatever the task grants. */
function dropLabPermissions(
  labs: readonly LabCase[],
  server: string | undefined,
): void {
  // The published package for SQLite asks for FFI and the environment.
  if (Deno.permissions.querySync({ name: "ffi" }).state === "granted") return;
  if (server === undefined) {
    for (const name of ["net", "env"] as const) {
      Deno.permissions.revokeSync({ name });
    }
  }
  if (!labs.some(({ startsProcess }) => startsProcess)) {
    Deno.permissions.revokeSync({ name: "run" });
  }
}

async function labCommand(
  args: readonly string[],
  { operand, values, switches }: Invocation,
  signal: AbortSignal,
): Promise<number> {
  const isJson = switches.has("json");
  const isInteractive = switches.has("interactive");
  if (operand === undefined) {
    const [flag] = [
      ...values.keys(),
      ...(isInteractive ? ["interactive"] : []),
    ];
    if (flag !== undefined) {
      throw new UsageError(
        `--${flag} needs a case: \`deno task lab\` lists them`,
      );
    }
    await print(isJson ? jsonOf(casesJson()) : casesText());
    return 0;
  }
  if (isJson && isInteractive) {
    throw new UsageError("--interactive must not be given with --json");
  }
  const one = operand === "all" ? undefined : labCase(operand);
  const labs = one === undefined ? LAB_CASES : [one];
  const settings = labSettings(one, values);
  const server = labServer(values);
  if (server !== undefined && one !== undefined && !one.onServer) {
    throw new UsageError(
      `--db changes nothing in ${one.name}: it is about SQLite`,
    );
  }
  const file = values.get("report");
  if (file === "-") throw new UsageError("--report must name a file");
  // Better now than when all cases have run.
  if (file !== undefined) await writeWhole(file);
  if (server !== undefined) await reach(server);
  dropLabPermissions(labs, server);
  const log = new Log("info");
  const answers = isInteractive ? new Answers() : undefined;
  const predictions = new Map<string, number>();
  const runs: LabRun[] = [];
  for (const lab of labs) {
    if (!isJson && runs.length > 0) await print(`\n${"─".repeat(78)}\n\n`);
    if (answers !== undefined) {
      predictions.set(lab.name, await predict(lab, settings, answers, signal));
      await print("\n");
    }
    log.progress(`Running ${lab.name}`);
    let run;
    try {
      run = await runCase(lab, {
        ...{ settings, signal },
        server: lab.onServer ? server : undefined,
      });
    } finally {
      log.endProgress();
    }
    runs.push(run);
    if (isJson) continue;
    await print(runText(run, predictions.get(lab.name)));
  }
  const isAll = one === undefined;
  if (isJson) {
    await print(jsonOf(isAll ? allJson(runs) : runs[0]?.result));
  } else if (isAll) {
    await print(`\n${"─".repeat(78)}\n\n${scoreText(runs, predictions)}`);
  }
  if (file !== undefined) {
    await writeWhole(file, await labHtml(runs, commandLine(args)));
    log.say("info", `Report written to ${file}`);
  }
  // A case that is altered may well show no difference; as they are, all do.
  return isAll && runs.some(({ isShown }) => !isShown) ? EXIT_FAILED : 0;
}

async function checkCommand(
  { operand, switches }: Invocation,
  signal: AbortSignal,
): Promise<number> {
  if (operand === undefined) {
    throw new UsageError(
      "lab:check needs a file, such as my_lab/my_pool.ts; `deno task lab:start my_lab` writes it",
    );
  }
  const log = new Log("info");
  const steps = checkPool(operand, { signal });
  let report: CheckReport;
  try {
    log.progress("Checking");
    for (let n = 1;; n++) {
      const step: IteratorResult<Check, CheckReport> = await steps.next();
      if (step.done) {
        report = step.value;
        break;
      }
      log.progress(`Checked ${n}: ${step.value.test.name}`);
    }
  } finally {
    log.endProgress();
  }
  await print(
    switches.has("json") ? jsonOf(checkJson(report)) : checkText(report),
  );
  return report.checks.every(({ isHeld }) => isHeld) ? 0 : EXIT_FAILED;
}

async function startCommand({ operand }: Invocation): Promise<void> {
  if (operand === undefined) {
    throw new UsageError("lab:start needs a folder, such as my_lab");
  }
  const path = join(operand, TEMPLATE_FILE);
  try {
    await Deno.mkdir(operand, { recursive: true });
  } catch (error) {
    throw new Error(`Cannot make the folder '${operand}': ${messageOf(error)}`);
  }
  try {
    await Deno.writeTextFile(path, TEMPLATE, { createNew: true });
  } catch (error) {
    throw new Error(
      error instanceof Deno.errors.AlreadyExists
        ? `Cannot write '${path}': it is there already; name another folder`
        : `Cannot write '${path}': ${messageOf(error)}`,
    );
  }
  await print(
    `${path} is written: a pool that works as long as nothing goes wrong.\n` +
      `Find out what can:\n\n  deno task lab:check ${quoted(path)}\n`,
  );
}

async function notesCommand(
  { values }: Invocation,
  signal: AbortSignal,
): Promise<void> {
  const server = labServer(values);
  if (server !== undefined) await reach(server);
  const output = values.get("output") ?? "notes.md";
  // Better now than when all has been measured.
  if (output !== "-") await writeWhole(output);
  const log = new Log("info");
  const runs: LabRun[] = [];
  try {
    for (const lab of NOTE_CASES) {
      log.progress(`Measuring for ${lab.name}`);
      const options: LabOptions = {
        signal,
        server: lab.onServer ? server : undefined,
      };
      runs.push(await runCase(lab, options));
    }
  } finally {
    log.endProgress();
  }
  const [{ model = "an unknown processor" } = {}] = cpus();
  const text = notesText(runs, {
    ...{ date: today(), deno: Deno.version.deno },
    processor: `${cpus().length} cores of ${model}`,
    hasServer: server !== undefined,
  });
  if (output === "-") return await print(text);
  await writeWhole(output, text);
  log.say("info", `Notes written to ${output}`);
}

function jsonOf(value: unknown): string {
  return JSON.stringify(value, null, 2) + "\n";
}

function describeScenario({ problems }: ScenarioError): string {
  return problems.map(({ field, text }) => {
    const known = SCENARIO_FIELDS.find((one) => one.field === field);
    return `${known ? `--${known.flag}` : `'${field}'`} ${text}`;
  }).join("; ");
}

/** Does what is asked for, and gives the exit code. */
async function carryOut(
  args: readonly string[],
  invocation: Invocation,
  signal: AbortSignal,
): Promise<number> {
  const { command, operand, switches, values } = invocation;
  if (switches.has("help")) await print(COMMANDS[command].help(operand));
  else if (switches.has("version")) await print(versions());
  else {
    const commands: Record<CommandName, () => Promise<number | void>> = {
      run: () => runCommand(values, signal),
      simulate: () => simulateCommand(args, invocation, signal),
      "simulate retry": () => retryCommand(args, invocation, signal),
      lab: () => labCommand(args, invocation, signal),
      "lab check": () => checkCommand(invocation, signal),
      "lab start": () => startCommand(invocation),
      notes: () => notesCommand(invocation, signal),
    };
    return await commands[command]() ?? 0;
  }
  return 0;
}

const SAME_SIGNAL_MS = 1000;

async function main(args: readonly string[]): Promise<number> {
  const interruption = new AbortController();
  let exitCode: number = EXIT_FAILED;
  let firstSignalMs: number | undefined;
  const listeners = (["SIGINT", "SIGTERM"] as const).map((signal) => {
    const listener = (): void => {
      exitCode = EXIT_CODES[signal];
      // A terminal and the task both tell of one Ctrl-C; whoever presses it
      // again wants an end at once.
      const nowMs = systemClock.now();
      firstSignalMs ??= nowMs;
      if (nowMs - firstSignalMs > SAME_SIGNAL_MS) Deno.exit(exitCode);
      interruption.abort();
    };
    Deno.addSignalListener(signal, listener);
    return () => Deno.removeSignalListener(signal, listener);
  });
  const log = new Log("error");
  let values: Invocation["values"] = new Map();
  try {
    const invocation = parse(args);
    values = invocation.values;
    const code = await carryOut(args, invocation, interruption.signal);
    return interruption.signal.aborted ? exitCode : code;
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
