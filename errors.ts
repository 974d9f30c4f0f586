/**
 * The errors that callers catch, and the one way in which an error of unknown
 * origin becomes a line of text.
 *
 * @module
 */

/** One setting that breaks its rule. */
export interface ConfigProblem {
  /** The name of the option, such as `poolSize`. */
  readonly field: string;
  /** What the option must be, such as `must be an integer >= 1`. */
  readonly rule: string;
  /** The value that was given, as text, with passwords hidden. */
  readonly value: string;
}

/**
 * A configuration that cannot work. It names every wrong option at once, each
 * with its rule and the value that was given.
 */
export class ConfigError extends RangeError {
  /** The name of the class, for logs. */
  override readonly name: string = "ConfigError";
  /** Every option that breaks its rule, in the order of the documentation. */
  readonly problems: readonly ConfigProblem[];

  /** Made where the error arises. */
  constructor(problems: readonly ConfigProblem[]) {
    super(
      `Cannot create configuration as ${
        problems.map(({ field, rule, value }) =>
          `'${field}' ${rule}: current value is ${value}`
        ).join("; ")
      }`,
    );
    this.problems = problems;
  }
}

/** What a pool knew of itself when it could not serve somebody. */
export interface PoolState {
  /** Connections that exist: idle, in use, being checked. */
  readonly open: number;
  /** Connections held by callers. */
  readonly inUse: number;
  /** Connections ready to be handed out. */
  readonly idle: number;
  /** Callers in the queue. */
  readonly waiting: number;
  /** Connects under way. */
  readonly opening: number;
  /** The most connections that may be open at once. */
  readonly limit: number;
}

/** Somebody who holds a connection, known while leak detection is on. */
export interface Holder {
  /** How long the connection has been held, in milliseconds. */
  readonly heldMs: number;
  /** The stack of the acquire that got it. */
  readonly stack: string;
}

function describeState(state: PoolState): string {
  return `${state.inUse} in use, ${state.idle} idle, ${state.opening} connecting, ` +
    `${state.waiting} waiting, limit ${state.limit}`;
}

/** No connection came free before the deadline of an acquire. */
export class AcquireTimeoutError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "AcquireTimeoutError";
  /** How long this acquire was willing to wait, in milliseconds. */
  readonly timeoutMs: number;
  /** The state of the pool when the deadline passed. */
  readonly state: PoolState;
  /** Who holds the connections; empty while leak detection is off. */
  readonly holders: readonly Holder[];

  /** Made where the error arises. */
  constructor(
    timeoutMs: number,
    state: PoolState,
    holders: readonly Holder[] = [],
    options?: ErrorOptions,
  ) {
    const held = holders.map((holder) =>
      `\nHeld for ${Math.round(holder.heldMs)} ms by ${holder.stack}`
    ).join("");
    const cause = options?.cause === undefined
      ? ""
      : `; the last connect failed: ${messageOf(options.cause)}`;
    super(
      `No connection came free within ${timeoutMs} ms (${
        describeState(state)
      })${cause}${held}`,
      options,
    );
    this.timeoutMs = timeoutMs;
    this.state = state;
    this.holders = holders;
  }
}

/**
 * An acquire that could never be served: every connection is held by a task
 * that itself waits for another one.
 */
export class NestedAcquireError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "NestedAcquireError";
  /** The state of the pool when it was found out. */
  readonly state: PoolState;

  /** Made where the error arises. */
  constructor(state: PoolState) {
    super(
      "Cannot wait for a connection as all of them are held by tasks that wait " +
        `for another one themselves (${
          describeState(state)
        }); pass the connection ` +
        "that a task holds on to what it calls, or raise 'maxOverflow'",
    );
    this.state = state;
  }
}

/** The pool is closed, or closing, and serves nobody any more. */
export class PoolClosedError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "PoolClosedError";

  /** Made where the error arises. */
  constructor(message = "Cannot use the pool as it is closed") {
    super(message);
  }
}

/** As many callers wait as `maxWaiting` allows, so one more is turned away. */
export class TooManyWaitersError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "TooManyWaitersError";
  /** The state of the pool when the caller was turned away. */
  readonly state: PoolState;

  /** Made where the error arises. */
  constructor(maxWaiting: number, state: PoolState) {
    super(
      `Cannot wait for a connection as at most ${maxWaiting} may wait (${
        describeState(state)
      }); raise 'maxWaiting' or 'poolSize', or ask less often`,
    );
    this.state = state;
  }
}

/** What was tried before giving up. */
export interface RetryHistory {
  /** How many times it was tried. */
  readonly attempts: number;
  /** The waits between the attempts, in milliseconds, in their order. */
  readonly delaysMs: readonly number[];
  /** From the first attempt to giving up, in milliseconds. */
  readonly elapsedMs: number;
}

/** Every attempt failed; `cause` is the failure of the last one. */
export class RetryError extends Error implements RetryHistory {
  /** The name of the class, for logs. */
  override readonly name: string = "RetryError";
  readonly attempts: number;
  readonly delaysMs: readonly number[];
  readonly elapsedMs: number;

  /** Made where the error arises. */
  constructor(cause: unknown, history: RetryHistory) {
    const { attempts } = history;
    super(
      `Failed after ${attempts} ${attempts === 1 ? "attempt" : "attempts"}: ${
        messageOf(cause)
      }`,
      { cause },
    );
    this.attempts = attempts;
    this.delaysMs = history.delaysMs;
    this.elapsedMs = history.elapsedMs;
  }
}

/** The database could not be opened or reached. */
export class ConnectError extends RetryError {
  /** The name of the class, for logs. */
  override readonly name: string = "ConnectError";
}

/**
 * A connection was released twice, was never this pool's, or was used after it
 * had been released.
 */
export class ReleaseError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "ReleaseError";
}

/** Another connection kept the database locked for longer than `timeoutMs`. */
export class LockTimeoutError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "LockTimeoutError";
  /** How long the lock was waited for, in milliseconds. */
  readonly timeoutMs: number;

  /** Made where the error arises. */
  constructor(
    database: string,
    timeoutMs: number,
    { advice, ...options }: ErrorOptions & { advice?: string } = {},
  ) {
    super(
      `The database is locked: another connection kept its lock on ${database} ` +
        `for longer than ${timeoutMs} ms${advice ? `; ${advice}` : ""}`,
      options,
    );
    this.timeoutMs = timeoutMs;
  }
}

/** A statement took longer than it was given. */
export class QueryTimeoutError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "QueryTimeoutError";
  /** How long it was given, in milliseconds. */
  readonly timeoutMs: number;

  /** Made where the error arises. */
  constructor(timeoutMs: number, options?: ErrorOptions) {
    super(`The statement took longer than ${timeoutMs} ms`, options);
    this.timeoutMs = timeoutMs;
  }
}

/** The text of anything that was thrown, an `Error` or not. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The first line of what was thrown, for a place that has room for one. */
export function firstLineOf(error: unknown): string {
  return messageOf(error).split("\n")[0] ?? "";
}
