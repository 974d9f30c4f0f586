/**
 * Settings: their names, units, defaults and rules. A configuration is checked
 * once, when it is made, and never changes afterwards.
 *
 * @module
 */

import { ConfigError, type ConfigProblem } from "./errors.ts";
import { parsePostgresUrl, PostgresUrlError } from "./postgres_url.ts";
import {
  DEFAULT_RETRY_POLICY,
  RETRY_RULES,
  type RetryPolicy,
} from "./retry.ts";
import {
  BOOLEAN,
  checkRecord,
  durationFrom,
  hidePassword,
  integerFrom,
  isRecord,
  nearest,
  oneOf,
  type Rule,
  show,
} from "./rules.ts";

export { hidePassword, nearest } from "./rules.ts";

/** When a pool checks that a connection still works. */
export type Validation = "release" | "borrow" | "both" | "never";

/** Where the database is. */
export type DatabaseTarget =
  | { readonly kind: "memory" }
  | { readonly kind: "sqlite"; readonly path: string }
  | { readonly kind: "postgres"; readonly url: string };

/** What a pool is told; every option has a default. */
export interface ConnectionOptions {
  /**
   * A path, `:memory:`, `sqlite:PATH`, or a `postgres://` URL. Default:
   * `:memory:`, which needs no permission and leaves nothing behind.
   */
  readonly database?: string;
  /**
   * How long to wait for a lock that another connection holds, and for a
   * connect, in milliseconds; 0 does not wait. Default: 5000, long enough for
   * another process to finish its transaction.
   */
  readonly timeoutMs?: number;
  /**
   * How many connections are kept open when nobody uses them. Default: 5;
   * SQLite has one writer and few readers gain from more.
   */
  readonly poolSize?: number;
  /**
   * How many more than `poolSize` may be open at once; they are closed on
   * return. Default: 10, so that a burst is served and then forgotten.
   */
  readonly maxOverflow?: number;
  /**
   * How long `acquire` waits in all, in milliseconds; 0 does not wait.
   * Default: 30000, about what a person or a proxy in front waits for.
   */
  readonly acquireTimeoutMs?: number;
  /**
   * How many callers may wait at once; 0 lets nobody wait. Default: 10000, a
   * bound on memory rather than a policy.
   */
  readonly maxWaiting?: number;
  /** How many connections are kept ready in advance. Default: 0. */
  readonly minIdle?: number;
  /**
   * How many connects may be under way at once. Default: 1. A connection that
   * comes back in the meantime often serves the queue sooner than another
   * connect would, and a database that has just come back is not stormed.
   */
  readonly maxConnecting?: number;
  /**
   * How often a database that is down is tried again, in milliseconds, at
   * least 1. Default: 1000: one connect a second harms nobody.
   */
  readonly probeIntervalMs?: number;
  /** Close a connection that was idle for so long, in ms. Default: 0, never. */
  readonly idleTimeoutMs?: number;
  /**
   * Close a connection so long after it was opened, in milliseconds, up to a
   * tenth sooner so that not all expire together. Default: 0, never.
   */
  readonly maxLifetimeMs?: number;
  /** Close a connection after so many uses. Default: 0, never. */
  readonly maxUses?: number;
  /** Ping a connection that was idle for so long, in ms. Default: 0, never. */
  readonly keepaliveMs?: number;
  /**
   * Report a connection held for so long, in milliseconds, with the stack of
   * its acquire. Default: 0, off, since each acquire then records its stack.
   */
  readonly leakDetectionMs?: number;
  /**
   * When a connection is pinged: on `release`, on `borrow`, on `both` or
   * `never`. Default: `release` for SQLite, where a ping costs less than a
   * microsecond; `borrow` for a server, where it costs a round trip.
   */
  readonly validate?: Validation;
  /**
   * A connection used less than so many milliseconds ago is handed out without
   * a ping. Default: 500. It matters only when validating on borrow.
   */
  readonly validationBypassMs?: number;
  /**
   * Whether to measure how long connections are held. Default: false, since it
   * reads the clock twice for each use, which costs as much as all the rest.
   */
  readonly measureUse?: boolean;
  /**
   * Whether an acquire fails at once when it could never be served, since every
   * connection is held by a function lent to by `use` or `transaction` that
   * waits for another one itself. Default: false. It follows each task through
   * `AsyncLocalStorage`, and a task that such a function began and does not
   * wait for counts as part of it.
   */
  readonly detectNestedAcquire?: boolean;
  /** How failed connects are repeated. Default: three attempts, full jitter. */
  readonly retry?: Partial<RetryPolicy>;
}

const DURATION = durationFrom(0);

const VALIDATIONS: readonly Validation[] = [
  "release",
  "borrow",
  "both",
  "never",
];

const OPTION_RULES = {
  timeoutMs: DURATION,
  poolSize: integerFrom(1),
  maxOverflow: integerFrom(0),
  acquireTimeoutMs: DURATION,
  maxWaiting: integerFrom(0),
  minIdle: integerFrom(0),
  maxConnecting: integerFrom(1),
  probeIntervalMs: durationFrom(1),
  idleTimeoutMs: DURATION,
  maxLifetimeMs: DURATION,
  maxUses: integerFrom(0),
  keepaliveMs: DURATION,
  leakDetectionMs: DURATION,
  validate: oneOf(VALIDATIONS),
  validationBypassMs: DURATION,
  measureUse: BOOLEAN,
  detectNestedAcquire: BOOLEAN,
} satisfies Record<
  Exclude<keyof ConnectionOptions, "database" | "retry">,
  Rule
>;

/** The settings of a pool: complete, checked and frozen. */
export class ConnectionConfig implements Required<ConnectionOptions> {
  /** As in `ConnectionOptions`. */
  readonly database: string;
  /** As in `ConnectionOptions`. */
  readonly timeoutMs: number;
  /** As in `ConnectionOptions`. */
  readonly poolSize: number;
  /** As in `ConnectionOptions`. */
  readonly maxOverflow: number;
  /** As in `ConnectionOptions`. */
  readonly acquireTimeoutMs: number;
  /** As in `ConnectionOptions`. */
  readonly maxWaiting: number;
  /** As in `ConnectionOptions`. */
  readonly minIdle: number;
  /** As in `ConnectionOptions`. */
  readonly maxConnecting: number;
  /** As in `ConnectionOptions`. */
  readonly probeIntervalMs: number;
  /** As in `ConnectionOptions`. */
  readonly idleTimeoutMs: number;
  /** As in `ConnectionOptions`. */
  readonly maxLifetimeMs: number;
  /** As in `ConnectionOptions`. */
  readonly maxUses: number;
  /** As in `ConnectionOptions`. */
  readonly keepaliveMs: number;
  /** As in `ConnectionOptions`. */
  readonly leakDetectionMs: number;
  /** As in `ConnectionOptions`. */
  readonly validate: Validation;
  /** As in `ConnectionOptions`. */
  readonly validationBypassMs: number;
  /** As in `ConnectionOptions`. */
  readonly measureUse: boolean;
  /** As in `ConnectionOptions`. */
  readonly detectNestedAcquire: boolean;
  /** As in `ConnectionOptions`. */
  readonly retry: Readonly<RetryPolicy>;
  // Not a property, so that `{ ...config, poolSize: 1 }` gives options again.
  readonly #target: DatabaseTarget;

  /**
   * Checks `options` and fills in the defaults.
   *
   * ```ts
   * import { assertEquals } from "@std/assert";
   *
   * const config = new ConnectionConfig({ poolSize: 2, timeoutMs: 250 });
   * assertEquals([config.poolSize, config.maxOverflow], [2, 10]);
   * ```
   *
   * @throws {ConfigError} naming every wrong or unknown option at once.
   */
  constructor(options: ConnectionOptions = {}) {
    const problems: ConfigProblem[] = [];
    checkRecord(
      "options",
      options,
      ["database", "retry"],
      OPTION_RULES,
      problems,
    );
    const given: ConnectionOptions = isRecord(options) ? options : {};
    checkRecord("retry", orDefault(given.retry, {}), [], RETRY_RULES, problems);
    const givenRetry = isRecord(given.retry) ? given.retry : {};

    this.database = orDefault(given.database, ":memory:");
    const target = parseDatabase(this.database);
    if (typeof target === "string") {
      const value = show(this.database);
      problems.push({ field: "database", rule: target, value });
    }
    this.#target = typeof target === "string" ? { kind: "memory" } : target;
    this.timeoutMs = given.timeoutMs ?? 5000;
    this.poolSize = given.poolSize ?? 5;
    this.maxOverflow = given.maxOverflow ?? 10;
    this.acquireTimeoutMs = given.acquireTimeoutMs ?? 30_000;
    this.maxWaiting = given.maxWaiting ?? 10_000;
    this.minIdle = given.minIdle ?? 0;
    this.maxConnecting = given.maxConnecting ?? 1;
    this.probeIntervalMs = given.probeIntervalMs ?? 1000;
    this.idleTimeoutMs = given.idleTimeoutMs ?? 0;
    this.maxLifetimeMs = given.maxLifetimeMs ?? 0;
    this.maxUses = given.maxUses ?? 0;
    this.keepaliveMs = given.keepaliveMs ?? 0;
    this.leakDetectionMs = given.leakDetectionMs ?? 0;
    this.validate = given.validate ??
      (this.#target.kind === "postgres" ? "borrow" : "release");
    this.validationBypassMs = given.validationBypassMs ?? 500;
    this.measureUse = given.measureUse ?? false;
    this.detectNestedAcquire = given.detectNestedAcquire ?? false;
    this.retry = Object.freeze({
      ...DEFAULT_RETRY_POLICY,
      ...defined(givenRetry),
    });
    if (
      OPTION_RULES.poolSize.holds(this.poolSize) &&
      OPTION_RULES.minIdle.holds(this.minIdle) && this.minIdle > this.poolSize
    ) {
      problems.push({
        field: "minIdle",
        rule: `must be <= poolSize (${this.poolSize})`,
        value: show(this.minIdle),
      });
    }
    if (problems.length > 0) throw new ConfigError(problems);
    Object.freeze(this.#target);
    Object.freeze(this);
  }

  /**
   * What `database` says, taken apart. The URL of a server may hold a password,
   * so it is there for whoever asks for it, and never shown.
   */
  get target(): DatabaseTarget {
    return this.#target;
  }

  /** The settings for `JSON.stringify`, with any password hidden. */
  toJSON(): Required<ConnectionOptions> {
    const database = hidePassword(this.database);
    return { ...this, database };
  }

  /** The settings for `console.log` in Deno, with any password hidden. */
  [Symbol.for("Deno.customInspect")](inspect: typeof Deno.inspect): string {
    return `ConnectionConfig ${inspect(this.toJSON())}`;
  }
}

// Unlike ?? this leaves null to be refused.
function orDefault<T>(value: T | undefined, fallback: T): T {
  return value === undefined ? fallback : value;
}

// An option that is present but undefined counts as left out, as everywhere in
// JavaScript; a spread would let it overwrite the default.
function defined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<T>;
}

/** A server; its URL is no property, lest it be shown with its password. */
class ServerTarget {
  readonly kind = "postgres";
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  get url(): string {
    return this.#url;
  }

  // Asked for hidden properties, it would call the getter.
  [Symbol.for("Deno.customInspect")](inspect: typeof Deno.inspect): string {
    return inspect({ ...this, url: hidePassword(this.#url) });
  }
}

/**
 * Says which database `text` names, or, as a plain string, the rule that it
 * breaks.
 */
function parseDatabase(text: unknown): DatabaseTarget | string {
  if (typeof text !== "string" || text.trim() === "") {
    return "must be a path, ':memory:', 'sqlite:PATH' or a 'postgres://' URL";
  }
  if (text.includes("\0")) return "must not contain a NUL character";
  if (/^postgres(ql)?:\/\//i.test(text)) {
    try {
      // What the environment adds is looked at when the pool is made.
      parsePostgresUrl(text, () => undefined, nearest);
      return new ServerTarget(text);
    } catch (error) {
      if (error instanceof PostgresUrlError) return error.message;
      throw error;
    }
  }
  const path = text.replace(/^sqlite:(?!\/\/[^/])/, "");
  if (path === ":memory:") return { kind: "memory" };
  if (path === "-") return "must be a path, and '-' is no name for a database";
  if (path === "") return "must name a file after 'sqlite:'";
  if (/^file:/i.test(path)) return "must be a plain path, not a 'file:' URI";
  // A scheme of one letter is a drive, as in C:\data.db.
  if (/^[a-z][a-z0-9+.-]+:/i.test(path)) {
    return "must be a path, ':memory:', 'sqlite:PATH' or a 'postgres://' URL";
  }
  return { kind: "sqlite", path };
}

const UNIT_MS: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/**
 * The milliseconds that a duration such as `250ms`, `2s`, `1m` or `1.5h` names.
 * A bare number is taken in `bareUnit`; on the command line that is seconds.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([parseDuration("250ms"), parseDuration("0.001")], [250, 1]);
 * ```
 *
 * @throws {SyntaxError} if the text is not a duration.
 */
export function parseDuration(
  text: string,
  bareUnit: "ms" | "s" = "s",
): number {
  const match = /^\s*(\d+\.?\d*|\.\d+)\s*(us|ms|s|m|h)?\s*$/.exec(text);
  if (match === null) {
    throw new SyntaxError(
      "must be a duration >= 0 such as 5, 0.25, 250ms, 2s or 1m: current value is " +
        JSON.stringify(text),
    );
  }
  // Rounded to a nanosecond, since 0.001 * 1000 and the like are not exact.
  const ms = Number(match[1]) * (UNIT_MS[match[2] ?? bareUnit] ?? NaN);
  return Math.round(ms * 1e6) / 1e6;
}
