/**
 * What can be simulated: the settings of a scenario, how they are written on the
 * command line and in a JSON file, and the points of a sweep.
 *
 * @module
 */

import { type Arrivals, parseArrivals } from "./arrivals.ts";
import { ConnectionConfig, parseDuration } from "./config.ts";
import {
  type Distribution,
  type LoadNumbers,
  parseDistribution,
} from "./distributions.ts";
import { ConfigError, messageOf } from "./errors.ts";
import {
  type RetryPolicy,
  retryPolicy,
  type RetryPolicyName,
} from "./retry.ts";
import { isRecord, nearest, show } from "./rules.ts";
import type { DatabaseTraits, Span } from "./simulated_database.ts";
import type { Usl } from "./theory.ts";

/** A value as it may stand in a scenario. */
export type ScenarioValue = string | number | readonly (string | number)[];

/**
 * A scenario: each setting as it is written behind its flag. A bare number of a
 * time is in seconds; a list, such as `[4, 8]`, `"4,8"` or `"1..20"`, makes a
 * sweep. Settings that are left out have the defaults that the help names.
 */
export type Scenario = { readonly [field in FieldName]?: ScenarioValue };

/** One thing that is wrong with a scenario. */
export interface ScenarioProblem {
  /** The setting, such as `poolSize`. */
  readonly field: string;
  /** What it must be, and what it is. */
  readonly text: string;
}

/** A scenario that cannot be simulated. */
export class ScenarioError extends RangeError {
  /** The name of the class. */
  override readonly name: string = "ScenarioError";
  /** All that is wrong. */
  readonly problems: readonly ScenarioProblem[];

  /** Makes the error for these problems. */
  constructor(problems: readonly ScenarioProblem[]) {
    const texts = problems.map(({ field, text }) => `'${field}' ${text}`);
    super(`Cannot simulate this scenario as ${texts.join("; ")}`);
    this.problems = problems;
  }
}

type Parse = (text: string, load: LoadNumbers | undefined) => unknown;

/** What kind a setting is of. */
interface Field {
  /** What stands for the value in the help. */
  readonly value: string;
  readonly help: readonly string[];
  /** The default as it would be written; none if the setting is off. */
  readonly standard?: string;
  readonly parse: Parse;
  /** Whether it may be given several times, all of which count. */
  readonly repeats?: true;
  /** Whether it may be a list, which makes a sweep. */
  readonly sweeps?: true;
}

const MOST_POINTS = 1000;

function duration(text: string): number {
  return parseDuration(text);
}

function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (value >= least && value <= most) return value;
    throw new SyntaxError(
      `must be a whole number from ${least} to ${most}: current value is ${
        show(text)
      }`,
    );
  };
}

function probability(text: string): number {
  const match = /^(\d+\.?\d*|\.\d+)(e-\d+)?(%)?$/i.exec(text);
  const value = Number((match?.[1] ?? "x") + (match?.[2] ?? "")) /
    (match?.[3] ? 100 : 1);
  if (value >= 0 && value <= 1) return value;
  throw new SyntaxError(
    `must be a probability from 0 to 1, such as 0.01 or 1%: current value is ${
      show(text)
    }`,
  );
}

function atLeast(least: number, example: string): (text: string) => number {
  return (text) => {
    const value = /^(\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : NaN;
    if (value >= least) return value;
    throw new SyntaxError(
      `must be a number >= ${least} such as ${example}: current value is ${
        show(text)
      }`,
    );
  };
}

function usl(text: string): Usl {
  const numbers = text.split(",").map((part) =>
    /^\s*(\d+\.?\d*|\.\d+)(e-?\d+)?(\/s)?\s*$/i.test(part)
      ? parseFloat(part)
      : NaN
  );
  const [lambda = NaN, alpha = NaN, beta = NaN] = numbers;
  if (numbers.length === 3 && lambda > 0 && alpha >= 0 && beta >= 0) {
    if (alpha <= 1 && beta <= 1) return { lambda: lambda / 1000, alpha, beta };
  }
  throw new SyntaxError(
    "must be queries a second of one connection, contention and coherency, " +
      `such as 1000,0.02,0.0005: current value is ${show(text)}`,
  );
}

function span(text: string, example: string): Span {
  const [start = "", length = "", ...more] = text.split("+");
  try {
    const startMs = parseDuration(start);
    const lengthMs = parseDuration(length);
    if (more.length === 0 && lengthMs > 0) {
      return { startMs, endMs: startMs + lengthMs };
    }
  } catch {
    // What is wrong with either time is said below.
  }
  throw new SyntaxError(
    `must be a start and a length > 0 such as ${example}: current value is ${
      show(text)
    }`,
  );
}

function slowdown(text: string): Span & { readonly factor: number } {
  const match = /^(.*),x(\d+\.?\d*|\.\d+)$/.exec(text);
  const factor = Number(match?.[2]);
  if (match === null || !(factor > 0)) {
    throw new SyntaxError(
      `must be a start, a length and a factor > 0 such as 10s+5s,x10: current value is ${
        show(text)
      }`,
    );
  }
  return { ...span(match[1] ?? "", "10s+5s,x10"), factor };
}

/** A retry policy as it was written, such as `exp:100ms..5s`. */
export interface NamedPolicy {
  /** As it was written, or is to be read. */
  readonly text: string;
  /** The policy, by its name or as its numbers. */
  readonly policy: RetryPolicy;
}

const POLICY_NAMES: Readonly<Record<string, RetryPolicyName>> = {
  none: "none",
  fixed: "fixed",
  exp: "exponential",
  exponential: "exponential",
  full: "full",
  equal: "equal",
  decorrelated: "decorrelated",
};

/**
 * The retry policy that a text such as `full`, `fixed:1s` or `exp:100ms..5s`
 * names: a name, and after a colon the base and, behind two dots, the cap.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const { policy } = parsePolicy("exp:100ms..5s");
 * assertEquals([policy.baseDelayMs, policy.maxDelayMs], [100, 5000]);
 * ```
 *
 * @param changes what holds where the text does not say otherwise.
 * @throws {SyntaxError} if the text names none.
 */
export function parsePolicy(
  text: string,
  changes: Partial<RetryPolicy> = {},
): NamedPolicy {
  const [, written = "", numbers] = /^([^:]*)(?::(.*))?$/s.exec(text.trim()) ??
    [];
  const name = Object.hasOwn(POLICY_NAMES, written)
    ? POLICY_NAMES[written]
    : undefined;
  if (name === undefined) {
    const near = nearest(written, Object.keys(POLICY_NAMES));
    throw new SyntaxError(
      "must be one of none, fixed:1s, exp, full, equal, decorrelated, each with " +
        `its numbers if wanted, such as full:100ms..5s: current value is ${
          show(text)
        }${near ? ` (did you mean ${near}?)` : ""}`,
    );
  }
  if (numbers === undefined) {
    if (name === "none") {
      return { text: written, policy: retryPolicy(name, without(changes)) };
    }
    return { text: written, policy: retryPolicy(name, changes) };
  }
  if (name === "none") {
    throw new SyntaxError(
      `must have no numbers after 'none': current value is ${show(text)}`,
    );
  }
  const [base = "", cap, ...more] = numbers.split("..");
  try {
    const baseDelayMs = parseDuration(base);
    const maxDelayMs = cap === undefined
      ? Math.max(baseDelayMs, changes.maxDelayMs ?? 5000)
      : parseDuration(cap);
    if (more.length > 0 || maxDelayMs < baseDelayMs) {
      throw new SyntaxError("must not end before it begins");
    }
    return {
      text: text.trim(),
      policy: retryPolicy(name, { ...changes, baseDelayMs, maxDelayMs }),
    };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new SyntaxError(
      `must have a base and perhaps a cap, such as 100ms..5s: current value is ${
        show(text)
      }`,
    );
  }
}

function without(changes: Partial<RetryPolicy>): Partial<RetryPolicy> {
  const { baseDelayMs: _, ...rest } = changes;
  return rest;
}

function oneOfWords(...words: string[]): (text: string) => string {
  return (text) => {
    if (words.includes(text)) return text;
    const near = nearest(text, words);
    throw new SyntaxError(
      `must be one of ${words.join(", ")}: current value is ${show(text)}${
        near ? ` (did you mean ${near}?)` : ""
      }`,
    );
  };
}

const COUNT_LIMIT = 1_000_000_000;
const distribution: Parse = parseDistribution;

/** The name of a setting of a scenario. */
export type FieldName =
  | "name"
  | "arrivals"
  | "service"
  | "connect"
  | "ping"
  | "requests"
  | "duration"
  | "warmup"
  | "replications"
  | "seed"
  | "instances"
  | "poolSize"
  | "maxOverflow"
  | "acquireTimeout"
  | "maxWaiting"
  | "minIdle"
  | "maxConnecting"
  | "connectTimeout"
  | "idleTimeout"
  | "maxLifetime"
  | "maxAttempts"
  | "validate"
  | "retry"
  | "clientRetries"
  | "retryBudget"
  | "clientTimeout"
  | "cores"
  | "usl"
  | "maxConnections"
  | "outage"
  | "slow"
  | "connectFailure"
  | "queryFailure"
  | "drop"
  | "leak";

/** All settings, in the order of the help. */
const FIELDS: Readonly<Record<FieldName, Field>> = {
  name: {
    value: "TEXT",
    help: ["What the report is called (no name)"],
    standard: "",
    parse: (text: string) => text,
  },
  arrivals: {
    value: "PROCESS",
    help: [
      "poisson:200/s, constant:200/s, burst:50@10s,",
      "closed:50,exp:1s (clients, think time) or trace:FILE",
      "(seconds, one a line); several add up (poisson:200/s)",
    ],
    standard: "poisson:200/s",
    parse: parseArrivals as Parse,
    repeats: true,
  },
  service: {
    value: "DIST",
    help: ["How long a query takes when it is alone (exp:20ms)"],
    standard: "exp:20ms",
    parse: distribution,
  },
  connect: {
    value: "DIST",
    help: ["How long opening a connection takes (constant:10ms)"],
    standard: "constant:10ms",
    parse: distribution,
  },
  ping: {
    value: "DIST",
    help: ["How long the answer to a ping takes (constant:0)"],
    standard: "constant:0",
    parse: distribution,
  },
  requests: {
    value: "N",
    help: ["How many requests in each replication (20000)"],
    parse: integer(1, COUNT_LIMIT),
  },
  duration: {
    value: "TIME",
    help: ["Or for how long they come"],
    parse: duration,
  },
  warmup: {
    value: "TIME",
    help: ["Whoever comes in that time does not count (0)"],
    standard: "0",
    parse: duration,
  },
  replications: {
    value: "N",
    help: ["Independent runs, from which intervals come (5)"],
    standard: "5",
    parse: integer(1, 1000),
  },
  seed: {
    value: "N",
    help: ["The same seed gives the same result (1)"],
    standard: "1",
    parse: integer(0, 4_294_967_295),
  },
  instances: {
    value: "N",
    help: ["Pools that share the database and the load (1)"],
    standard: "1",
    parse: integer(1, 1000),
  },
  poolSize: {
    value: "LIST",
    help: ["Connections kept open when idle (5)"],
    standard: "5",
    parse: integer(1, 1_000_000),
    sweeps: true,
  },
  maxOverflow: {
    value: "LIST",
    help: ["More in a burst; here 0, so that a size is a size (0)"],
    standard: "0",
    parse: integer(0, 1_000_000),
    sweeps: true,
  },
  acquireTimeout: {
    value: "LIST",
    help: ["How long a request may wait (30s)"],
    standard: "30s",
    parse: duration,
    sweeps: true,
  },
  maxWaiting: {
    value: "LIST",
    help: ["How many may wait; more are turned away (10000)"],
    standard: "10000",
    parse: integer(0, COUNT_LIMIT),
    sweeps: true,
  },
  minIdle: {
    value: "LIST",
    help: ["Idle connections kept warm, from the start on (0)"],
    standard: "0",
    parse: integer(0, 1_000_000),
    sweeps: true,
  },
  maxConnecting: {
    value: "LIST",
    help: ["Connects under way at once (1)"],
    standard: "1",
    parse: integer(1, 1_000_000),
    sweeps: true,
  },
  connectTimeout: {
    value: "LIST",
    help: ["How long a connect or a ping may take (5s)"],
    standard: "5s",
    parse: duration,
    sweeps: true,
  },
  idleTimeout: {
    value: "LIST",
    help: ["After which an idle connection is closed; 0: never (0)"],
    standard: "0",
    parse: duration,
    sweeps: true,
  },
  maxLifetime: {
    value: "LIST",
    help: ["After which a connection is replaced; 0: never (0)"],
    standard: "0",
    parse: duration,
    sweeps: true,
  },
  maxAttempts: {
    value: "LIST",
    help: ["Connects in a row before the pool probes only (3)"],
    standard: "3",
    parse: integer(1, 1_000_000),
    sweeps: true,
  },
  validate: {
    value: "LIST",
    help: ["When to ping: release, borrow, both or never (release)"],
    standard: "release",
    parse: oneOfWords("release", "borrow", "both", "never"),
    sweeps: true,
  },
  retry: {
    value: "LIST",
    help: [
      "How long clients and connects wait before they try again:",
      "none, fixed:1s, exp, full, equal or decorrelated, perhaps",
      "with base..cap (full:10ms..5s)",
    ],
    standard: "full:10ms..5s",
    parse: (text: string) => parsePolicy(text),
    sweeps: true,
  },
  clientRetries: {
    value: "LIST",
    help: ["How often a client tries again after a failure (0)"],
    standard: "0",
    parse: integer(0, 1000),
    sweeps: true,
  },
  retryBudget: {
    value: "LIST",
    help: ["Retries for each request that a budget allows, as 0.1"],
    parse: probability,
    sweeps: true,
  },
  clientTimeout: {
    value: "LIST",
    help: ["After which a client gives up; its query runs on"],
    parse: duration,
    sweeps: true,
  },
  cores: {
    value: "N",
    help: ["Cores of the database, which all queries share"],
    parse: atLeast(0.01, "8"),
  },
  usl: {
    value: "L,A,B",
    help: [
      "Or the Universal Scalability Law: queries a second of one",
      "connection (from it comes the mean of --service),",
      "contention and coherency, such as 1000,0.02,0.0005",
    ],
    parse: usl,
  },
  maxConnections: {
    value: "N",
    help: ["Connections beyond which the database refuses"],
    parse: integer(1, 1_000_000),
  },
  outage: {
    value: "START+LENGTH",
    help: ["The database is away, such as 10s+5s; may be repeated"],
    parse: (text: string) => span(text, "10s+5s"),
    repeats: true,
  },
  slow: {
    value: "S+L,xF",
    help: ["It is slower, such as 10s+5s,x10; may be repeated"],
    parse: slowdown,
    repeats: true,
  },
  connectFailure: {
    value: "P",
    help: ["The chance that a connect fails (0)"],
    standard: "0",
    parse: probability,
  },
  queryFailure: {
    value: "P",
    help: ["The chance that a query fails (0)"],
    standard: "0",
    parse: probability,
  },
  drop: {
    value: "DIST",
    help: ["How long a connection lives until it breaks (for ever)"],
    parse: distribution,
  },
  leak: {
    value: "P",
    help: ["The chance that a client never gives a connection back (0)"],
    standard: "0",
    parse: probability,
  },
};

/** The settings of a scenario as flags, in the order of the help. */
export const SCENARIO_FIELDS: readonly {
  readonly field: FieldName;
  readonly flag: string;
  readonly value: string;
  readonly help: readonly string[];
  readonly repeats: boolean;
  readonly sweeps: boolean;
}[] = Object.entries(FIELDS).map(([field, entry]: [string, Field]) => ({
  field: field as FieldName,
  flag: flagOf(field),
  value: entry.value,
  help: entry.help,
  repeats: entry.repeats ?? false,
  sweeps: entry.sweeps ?? false,
}));

function flagOf(field: string): string {
  return field.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** What one point of a sweep has of its own. */
export interface Point {
  /** The configuration of the pool. */
  readonly config: ConnectionConfig;
  /** How long clients wait before they try again. */
  readonly retry: NamedPolicy;
  /** How often a client tries again. */
  readonly clientRetries: number;
  /** Retries for each request that the budget allows, if there is one. */
  readonly retryBudget: number | undefined;
  /** After which a client gives up, if it does. */
  readonly clientTimeoutMs: number | undefined;
  /** The settings that the sweep varies, as they were written. */
  readonly varied: { readonly [field: string]: string };
}

/** A scenario that can be simulated. */
export interface Plan extends DatabaseTraits {
  /** The scenario with its defaults, as it could be written. */
  readonly scenario: Scenario;
  /** What it is called. */
  readonly name: string;
  /** How requests come. */
  readonly arrivals: readonly Arrivals[];
  /** How long a query takes when it is alone. */
  readonly service: Distribution;
  /** How many requests come, at most. */
  readonly requests: number;
  /** Until when they come. */
  readonly durationMs: number;
  /** Whoever comes before it does not count. */
  readonly warmupMs: number;
  /** How many independent runs there are. */
  readonly replications: number;
  /** From which all chance comes. */
  readonly seed: number;
  /** How many pools share the database. */
  readonly instances: number;
  /** The chance that a query fails. */
  readonly queryFailure: number;
  /** The chance that a client never gives a connection back. */
  readonly leak: number;
  /** The points of the sweep. */
  readonly points: readonly Point[];
}

const STANDARD_REQUESTS = 20_000;
const MOST_SOURCES = 16;

/**
 * Reads a scenario: checks every setting, fills in the defaults and spreads the
 * sweep out.
 *
 * @param load reads the numbers of a file; without it no file may be named.
 * @throws {ScenarioError} naming all that is wrong.
 */
export function readScenario(scenario: unknown, load?: LoadNumbers): Plan {
  if (!isRecord(scenario)) {
    const text = `must be an object of settings: current value is ${
      show(scenario)
    }`;
    throw new ScenarioError([{ field: "scenario", text }]);
  }
  const problems: ScenarioProblem[] = [];
  const written: Record<string, ScenarioValue> = {};
  const lists: Record<string, { text: string; value: unknown }[]> = {};
  for (const key of Object.keys(scenario)) {
    if (Object.hasOwn(FIELDS, key)) continue;
    const near = nearest(key, Object.keys(FIELDS));
    problems.push({
      field: key,
      text: `is no setting of a scenario${
        near ? ` (did you mean '${near}'?)` : ""
      }`,
    });
  }
  for (const [field, entry] of Object.entries(FIELDS) as [string, Field][]) {
    const given = scenario[field] ?? entry.standard;
    if (given === undefined) continue;
    try {
      const texts = textsOf(given, entry, field);
      lists[field] = texts.map((text) => ({
        text,
        value: entry.parse(text, load),
      }));
      const [only] = texts;
      written[field] = texts.length === 1 && only !== undefined ? only : texts;
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      problems.push({ field, text: error.message });
    }
  }
  if (problems.length > 0) throw new ScenarioError(problems);
  const all = <T>(field: FieldName): T[] =>
    (lists[field] ?? []).map(({ value }) => value as T);
  const one = <T>(field: FieldName): T => all<T>(field)[0] as T;
  const plan: Omit<Plan, "points"> = {
    scenario: written as Scenario,
    name: one("name"),
    arrivals: all("arrivals"),
    service: one("service"),
    connect: one("connect"),
    ping: one("ping"),
    requests: one<number | undefined>("requests") ??
      (lists["duration"] === undefined ? STANDARD_REQUESTS : Infinity),
    durationMs: one<number | undefined>("duration") ?? Infinity,
    warmupMs: one("warmup"),
    replications: one("replications"),
    seed: one("seed"),
    instances: one("instances"),
    cores: one("cores"),
    usl: one("usl"),
    maxConnections: one("maxConnections"),
    outages: all("outage"),
    slowdowns: all("slow"),
    connectFailure: one("connectFailure"),
    queryFailure: one("queryFailure"),
    drop: one("drop"),
    leak: one("leak"),
  };
  const { usl } = plan;
  const checked = usl === undefined
    ? plan
    : { ...plan, service: scaled(plan.service, 1 / usl.lambda) };
  checkTogether(checked, problems);
  if (problems.length > 0) throw new ScenarioError(problems);
  return { ...checked, points: pointsOf(lists) };
}

/** The same distribution with another mean. */
function scaled(distribution: Distribution, meanMs: number): Distribution {
  const { text, kind, scv, sample } = distribution;
  const factor = meanMs / distribution.meanMs;
  return {
    text,
    kind,
    scv,
    meanMs,
    sample: (random) => sample(random) * factor,
  };
}

function textsOf(given: unknown, entry: Field, field: string): string[] {
  const values: unknown[] = Array.isArray(given) ? given : [given];
  if (values.length === 0) {
    throw new SyntaxError("must have a value: current value is an empty list");
  }
  const texts = values.flatMap((value) => {
    if (typeof value !== "string" && typeof value !== "number") {
      throw new SyntaxError(
        `must be a text or a number: current value is ${show(value)}`,
      );
    }
    const text = String(value);
    if (!entry.sweeps) return [field === "name" ? text : text.trim()];
    return text.split(",").flatMap((part) => expand(part.trim()));
  });
  if (texts.length > 1 && !entry.repeats && !entry.sweeps) {
    throw new SyntaxError(
      `must be one value, not ${texts.length}: it makes no sweep`,
    );
  }
  if (texts.length > MOST_POINTS) tooManyPoints(texts.length);
  return texts;
}

/** The numbers of a range such as `1..20`, or `10..100:10` in steps. */
function expand(text: string): string[] {
  const match = /^(\d+)\.\.(\d+)(?::(\d+))?$/.exec(text);
  if (match === null) return [text];
  const [first, last, step] = [match[1], match[2], match[3] ?? 1].map(Number);
  if (first === undefined || last === undefined || !step) {
    throw new SyntaxError(
      `must have a step > 0: current value is ${show(text)}`,
    );
  }
  if (last < first) {
    throw new SyntaxError(
      `must be a range that goes up, such as 1..20: current value is ${
        show(text)
      }`,
    );
  }
  const count = Math.floor((last - first) / step) + 1;
  if (count > MOST_POINTS) tooManyPoints(count);
  return Array.from({ length: count }, (_, i) => String(first + i * step));
}

function tooManyPoints(count: number): never {
  throw new SyntaxError(
    `must make at most ${MOST_POINTS} points, and makes ${count}: use steps, such as 10..100:10`,
  );
}

function checkTogether(
  plan: Omit<Plan, "points">,
  problems: ScenarioProblem[],
): void {
  const { arrivals, requests, durationMs, warmupMs, service } = plan;
  if (plan.scenario.requests !== undefined && durationMs !== Infinity) {
    problems.push({
      field: "duration",
      text: "must not be given together with 'requests': leave one out",
    });
  }
  if (durationMs <= 0) {
    const text = "must be longer than 0: current value is 0";
    problems.push({ field: "duration", text });
  }
  if (durationMs > 0 && durationMs <= warmupMs) {
    problems.push({
      field: "warmup",
      text: "must be shorter than 'duration', or nothing is left to count",
    });
  }
  if (arrivals.length > MOST_SOURCES) {
    const text =
      `must be at most ${MOST_SOURCES}: there are ${arrivals.length}`;
    problems.push({ field: "arrivals", text });
  }
  if (
    plan.usl !== undefined && !(service.meanMs > 0 && service.meanMs < Infinity)
  ) {
    const text = "must have a mean > 0 for 'usl' to set";
    problems.push({ field: "service", text });
  }
  if (plan.usl !== undefined && plan.cores !== undefined) {
    const text = "must not be given together with 'usl': leave one out";
    problems.push({ field: "cores", text });
  }
  const isEndless = arrivals.some((source) =>
    source.kind === "closed" && source.think.meanMs === 0
  );
  if (requests === Infinity && isEndless && service.meanMs === 0) {
    problems.push({
      field: "arrivals",
      text:
        "must think, or queries must take time, or infinitely many requests come at once: give 'requests'",
    });
  }
}

/** The fields of the pool's configuration, by the settings they come from. */
const CONFIG_FIELDS: Readonly<Record<string, FieldName>> = {
  poolSize: "poolSize",
  maxOverflow: "maxOverflow",
  acquireTimeoutMs: "acquireTimeout",
  maxWaiting: "maxWaiting",
  minIdle: "minIdle",
  maxConnecting: "maxConnecting",
  timeoutMs: "connectTimeout",
  idleTimeoutMs: "idleTimeout",
  maxLifetimeMs: "maxLifetime",
  validate: "validate",
  "retry.maxAttempts": "maxAttempts",
};

function pointsOf(
  lists: Readonly<Record<string, { text: string; value: unknown }[]>>,
): Point[] {
  const swept = SCENARIO_FIELDS.filter(({ sweeps }) => sweeps)
    .map(({ field }) => field).filter((field) => lists[field] !== undefined);
  const count = swept.reduce(
    (product, field) => product * (lists[field]?.length ?? 1),
    1,
  );
  if (count > MOST_POINTS) {
    const field = swept.find((name) => (lists[name]?.length ?? 1) > 1) ??
      "poolSize";
    const text = `must make at most ${MOST_POINTS} points together with the ` +
      `other lists, and makes ${count}`;
    throw new ScenarioError([{ field, text }]);
  }
  return Array.from({ length: count }, (_, index) => {
    // The first list varies slowest.
    let rest = index;
    const chosen: Record<string, { text: string; value: unknown }> = {};
    for (const field of swept.toReversed()) {
      const list = lists[field] ?? [];
      const choice = list[rest % list.length];
      rest = Math.floor(rest / list.length);
      if (choice !== undefined) chosen[field] = choice;
    }
    const varied = swept.filter((field) => (lists[field]?.length ?? 0) > 1);
    return pointOf(
      (field) => chosen[field]?.value,
      Object.fromEntries(
        varied.map((name) => [name, chosen[name]?.text ?? ""]),
      ),
    );
  });
}

function pointOf(
  value: (field: FieldName) => unknown,
  varied: { readonly [field: string]: string },
): Point {
  const retry = value("retry") as NamedPolicy;
  const options = Object.fromEntries(
    Object.entries(CONFIG_FIELDS)
      .filter(([name]) => !name.includes("."))
      .map(([name, field]) => [name, value(field)]),
  );
  try {
    return {
      config: new ConnectionConfig({
        ...options,
        retry: { ...retry.policy, maxAttempts: value("maxAttempts") as number },
      }),
      retry,
      clientRetries: value("clientRetries") as number,
      retryBudget: value("retryBudget") as number | undefined,
      clientTimeoutMs: value("clientTimeout") as number | undefined,
      varied,
    };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    throw new ScenarioError(error.problems.map(({ field, rule, value }) => ({
      field: CONFIG_FIELDS[field] ?? field,
      text: `${rule}: current value is ${value}`,
    })));
  }
}

/**
 * A scenario from the text of a JSON file.
 *
 * @throws {ScenarioError} if it is no JSON, or no object.
 */
export function parseScenario(text: string): Scenario {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    const problem = `must be JSON: ${messageOf(error)}`;
    throw new ScenarioError([{ field: "scenario", text: problem }]);
  }
  if (!isRecord(parsed)) {
    const problem = "must be a JSON object of settings";
    throw new ScenarioError([{ field: "scenario", text: problem }]);
  }
  const { $schema: _, ...scenario } = parsed;
  return scenario as Scenario;
}

/** The JSON Schema of a scenario file. */
export function scenarioSchema(): Record<string, unknown> {
  const one = { type: ["string", "number"] };
  const several = {
    anyOf: [one, { type: "array", items: one, minItems: 1 }],
  };
  return {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    title: "A scenario for the SQL Connection Simulator",
    description:
      "Each setting as it is written behind its flag; a bare number of a time is in seconds.",
    type: "object",
    additionalProperties: false,
    properties: {
      $schema: { type: "string" },
      ...Object.fromEntries(
        SCENARIO_FIELDS.map(({ field, help, repeats, sweeps }) => [field, {
          description: help.join(" "),
          ...(repeats || sweeps ? several : one),
        }]),
      ),
    },
  };
}
