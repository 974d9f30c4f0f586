/**
 * Trying again: how long to wait between attempts, as a pure function, and the
 * loop that uses it.
 *
 * @module
 */

import { type Clock, delay, systemClock } from "./clock.ts";
import {
  ConfigError,
  type ConfigProblem,
  messageOf,
  RetryError,
} from "./errors.ts";
import {
  checkRecord,
  durationFrom,
  integerFrom,
  numberFrom,
  oneOf,
  type Rule,
  show,
} from "./rules.ts";

/** How a delay is varied, so that clients which failed together part ways. */
export type Jitter = "none" | "full" | "equal" | "decorrelated";

/** Every `Jitter`. */
export const JITTERS: readonly Jitter[] = [
  "none",
  "full",
  "equal",
  "decorrelated",
];

/** How often to try and how long to wait in between. */
export interface RetryPolicy {
  /** How many times to try in all; 1 does not retry. */
  readonly maxAttempts: number;
  /** The wait after the first failure, before jitter, in milliseconds. */
  readonly baseDelayMs: number;
  /** What each wait is multiplied by to give the next; 1 keeps it fixed. */
  readonly factor: number;
  /** The longest wait, in milliseconds. */
  readonly maxDelayMs: number;
  /** How the waits are varied. */
  readonly jitter: Jitter;
}

/** What the parts of a policy must be. */
export const RETRY_RULES: Record<keyof RetryPolicy, Rule> = {
  maxAttempts: integerFrom(1),
  baseDelayMs: durationFrom(0),
  factor: numberFrom(1),
  maxDelayMs: durationFrom(0),
  jitter: oneOf(JITTERS),
};

/**
 * Three attempts outlast a hiccup without hiding an outage. 10 ms is the time
 * of a connect, and 5 s is as long as a person waits before asking why. Full
 * jitter spreads clients best: of all policies it needs the fewest attempts.
 */
export const DEFAULT_RETRY_POLICY: RetryPolicy = Object.freeze({
  maxAttempts: 3,
  baseDelayMs: 10,
  factor: 2,
  maxDelayMs: 5000,
  jitter: "full",
});

/**
 * How long to wait after failure number `attempt` (counted from 1), in
 * milliseconds.
 *
 * With e = min(maxDelayMs, baseDelayMs * factor^(attempt - 1)) and r from
 * `random`, the wait is e (`none`), r * e (`full`), or e/2 + r * e/2 (`equal`).
 * `decorrelated` draws from baseDelayMs to three times the previous delay and
 * caps that. The formulas are those of Marc Brooker, "Exponential Backoff And
 * Jitter", AWS Architecture Blog, 2015.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const policy = { ...DEFAULT_RETRY_POLICY, jitter: "none" } as const;
 * assertEquals([1, 2, 3].map((n) => backoffDelayMs(policy, n, Math.random)), [10, 20, 40]);
 * ```
 *
 * @param random gives numbers from 0 up to, but not including, 1.
 * @param previousDelayMs the delay before this one; used by `decorrelated`.
 */
export function backoffDelayMs(
  policy: RetryPolicy,
  attempt: number,
  random: () => number,
  previousDelayMs: number = policy.baseDelayMs,
): number {
  const { baseDelayMs, factor, maxDelayMs, jitter } = policy;
  if (jitter === "decorrelated") {
    const widest = Math.max(baseDelayMs, 3 * previousDelayMs);
    return Math.min(
      maxDelayMs,
      baseDelayMs + random() * (widest - baseDelayMs),
    );
  }
  // 0 times an overflown power would be NaN.
  const exponential = baseDelayMs === 0
    ? 0
    : Math.min(maxDelayMs, baseDelayMs * factor ** (attempt - 1));
  if (jitter === "full") return random() * exponential;
  if (jitter === "equal") return exponential / 2 + random() * exponential / 2;
  return exponential;
}

/** The usual policies by the names that the field has for them. */
export type RetryPolicyName =
  | "none"
  | "fixed"
  | "exponential"
  | "full"
  | "equal"
  | "decorrelated";

/**
 * A policy by its usual name: `none` tries again at once, `fixed` always waits
 * `baseDelayMs`, `exponential` doubles without jitter, and the others are the
 * exponential one with that jitter.
 *
 * @throws {ConfigError} if there is no such name, or a change breaks its rule.
 */
export function retryPolicy(
  name: RetryPolicyName,
  changes: Partial<RetryPolicy> = {},
): RetryPolicy {
  const named: Record<RetryPolicyName, Partial<RetryPolicy>> = {
    none: { jitter: "none", baseDelayMs: 0 },
    fixed: { jitter: "none", factor: 1 },
    exponential: { jitter: "none" },
    full: { jitter: "full" },
    equal: { jitter: "equal" },
    decorrelated: { jitter: "decorrelated" },
  };
  const isKnown = oneOf(Object.keys(named));
  if (!isKnown.holds(name)) {
    const value = show(name);
    throw new ConfigError([{ field: "name", rule: isKnown.text, value }]);
  }
  return complete({ ...named[name], ...changes });
}

function complete(policy: Partial<RetryPolicy>): RetryPolicy {
  const problems: ConfigProblem[] = [];
  checkRecord("retry", policy, [], RETRY_RULES, problems);
  if (problems.length > 0) throw new ConfigError(problems);
  const standard = DEFAULT_RETRY_POLICY;
  return {
    maxAttempts: policy.maxAttempts ?? standard.maxAttempts,
    baseDelayMs: policy.baseDelayMs ?? standard.baseDelayMs,
    factor: policy.factor ?? standard.factor,
    maxDelayMs: policy.maxDelayMs ?? standard.maxDelayMs,
    jitter: policy.jitter ?? standard.jitter,
  };
}

/**
 * Bounds what retries add to the load, whatever the number of clients: a token
 * bucket into which each call puts a fraction of a token and from which each
 * retry takes a whole one. While most calls succeed it is full and never felt.
 * When all fail, it lets through `ratio` retries for each call, where three
 * attempts each would triple the load of a database that is down already.
 *
 * After the retry budgets of Finagle (Twitter, 2016).
 */
export class RetryBudget {
  readonly #ratio: number;
  readonly #capacity: number;
  #tokens: number;

  /**
   * Makes a full bucket.
   *
   * @param options.ratio retries for each call in the long run. Default: 0.1.
   * @param options.capacity retries that may come in a burst. Default: 10, so
   * that a client with few calls can retry at all.
   */
  constructor(
    { ratio = 0.1, capacity = 10 }: { ratio?: number; capacity?: number } = {},
  ) {
    if (!(ratio >= 0 && capacity >= 0)) {
      throw new RangeError(
        "Cannot create budget as 'ratio' and 'capacity' must be numbers >= 0: " +
          `current values are ${ratio} and ${capacity}`,
      );
    }
    this.#ratio = ratio;
    this.#capacity = capacity;
    this.#tokens = capacity;
  }

  /** How many retries it would let through now. */
  get available(): number {
    return Math.floor(this.#tokens);
  }

  /** Notes a call. */
  deposit(): void {
    this.#tokens = Math.min(this.#capacity, this.#tokens + this.#ratio);
  }

  /** Takes the token for a retry, and says whether there was one. */
  withdraw(): boolean {
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}

/** A failed attempt that is about to be repeated. */
export interface RetryNotice {
  /** How many attempts have failed so far. */
  readonly attempt: number;
  /** How many there will be at most. */
  readonly maxAttempts: number;
  /** The wait until the next one, in milliseconds. */
  readonly delayMs: number;
  /** What the attempt threw. */
  readonly error: unknown;
}

/** What `retry` can be told beside its policy. */
export interface RetryOptions {
  /** Ends everything at once; no further attempt is made. */
  readonly signal?: AbortSignal;
  /**
   * Whether trying again could help. Default: always. An error for which it
   * says no is thrown as it is.
   */
  readonly isTransient?: (error: unknown) => boolean;
  /** Told of each failure that is followed by a wait, before the wait. */
  readonly onRetry?: (notice: RetryNotice) => void;
  /**
   * When to give up, in milliseconds from the start: a wait that would end
   * later is not begun. An attempt under way is bounded by `attemptTimeoutMs`.
   * Default: no limit.
   */
  readonly timeoutMs?: number;
  /**
   * How long one attempt may take, in milliseconds. Then its signal is aborted
   * and it counts as failed. Default: no limit.
   */
  readonly attemptTimeoutMs?: number;
  /** A budget shared with others. Default: none. */
  readonly budget?: RetryBudget;
  /** Default: real time. */
  readonly clock?: Clock;
  /** Default: `Math.random`. */
  readonly random?: () => number;
}

/**
 * Calls `fn` until it succeeds, at most `policy.maxAttempts` times, and gives
 * what it returns. There is no wait after the last failure.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * let failures = 2;
 * const answer = await retry(() => {
 *   if (failures-- > 0) throw new Error("not yet");
 *   return 42;
 * }, { baseDelayMs: 0 });
 * assertEquals(answer, 42);
 * ```
 *
 * @param fn is given the number of the attempt, from 1, and a signal that is
 * aborted when the attempt has taken too long or everything is to end.
 * @param policy what it leaves out is taken from `DEFAULT_RETRY_POLICY`.
 * @throws {ConfigError} if the policy breaks a rule; then nothing is called.
 * @throws {RetryError} when it gave up; its `cause` is the last error.
 * @throws the signal's reason when aborted, and any permanent error as it is.
 */
export async function retry<T>(
  fn: (attempt: number, signal: AbortSignal) => T | Promise<T>,
  policy: Partial<RetryPolicy> = {},
  options: RetryOptions = {},
): Promise<T> {
  const completePolicy = complete(policy);
  const { signal, budget, timeoutMs = Infinity } = options;
  const { clock = systemClock, random = Math.random } = options;
  const startMs = clock.now();
  const delaysMs: number[] = [];
  budget?.deposit();
  for (let attempt = 1;; attempt++) {
    signal?.throwIfAborted();
    try {
      return await attemptOnce(fn, attempt, clock, options);
    } catch (error) {
      signal?.throwIfAborted();
      if (options.isTransient?.(error) === false) throw error;
      const elapsedMs = clock.now() - startMs;
      const delayMs = backoffDelayMs(
        completePolicy,
        attempt,
        random,
        delaysMs.at(-1),
      );
      // Turned round, so that a limit that is no number does not lift itself.
      const isLast = attempt >= completePolicy.maxAttempts ||
        !(elapsedMs + delayMs <= timeoutMs);
      if (isLast || budget?.withdraw() === false) {
        throw new RetryError(error, { attempts: attempt, delaysMs, elapsedMs });
      }
      const { maxAttempts } = completePolicy;
      options.onRetry?.({ attempt, maxAttempts, delayMs, error });
      delaysMs.push(delayMs);
      await delay(
        delayMs,
        signal === undefined ? { clock } : { clock, signal },
      );
    }
  }
}

/** One attempt, with a signal of its own. */
async function attemptOnce<T>(
  fn: (attempt: number, signal: AbortSignal) => T | Promise<T>,
  attempt: number,
  clock: Clock,
  { signal, attemptTimeoutMs }: RetryOptions,
): Promise<T> {
  const controller = new AbortController();
  if (signal === undefined && attemptTimeoutMs === undefined) {
    return await fn(attempt, controller.signal);
  }
  const abort = (): void => controller.abort(signal?.reason);
  signal?.addEventListener("abort", abort, { once: true });
  const timer = attemptTimeoutMs === undefined
    ? undefined
    : clock.setTimer(() => {
      const message =
        `Attempt ${attempt} took longer than ${attemptTimeoutMs} ms`;
      controller.abort(new DOMException(message, "TimeoutError"));
    }, attemptTimeoutMs);
  try {
    // An attempt that does not heed its signal is left alone; whatever becomes
    // of it comes too late.
    return await new Promise<T>((resolve, reject) => {
      controller.signal.addEventListener("abort", () => {
        reject(controller.signal.reason);
      }, { once: true });
      (async () => await fn(attempt, controller.signal))().then(
        resolve,
        reject,
      );
    });
  } finally {
    timer?.clear();
    signal?.removeEventListener("abort", abort);
  }
}

/** One line for a log: what failed, and when it is tried again. */
export function describeRetry(what: string, notice: RetryNotice): string {
  const { attempt, maxAttempts, delayMs, error } = notice;
  return `${what}: attempt ${attempt} of ${maxAttempts} failed (${
    messageOf(error)
  }), trying again in ${Math.ceil(delayMs)} ms`;
}
