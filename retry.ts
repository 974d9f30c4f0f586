/**
 * Trying again: how long to wait between attempts, as a pure function, and the
 * loop that uses it.
 *
 * @module
 */

import { type Clock, delay, systemClock } from "./clock.ts";
import { messageOf, RetryError } from "./errors.ts";

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
  /** Ends the waiting at once; no further attempt is made. */
  readonly signal?: AbortSignal;
  /**
   * Whether trying again could help. Default: always. An error for which it
   * says no is thrown as it is.
   */
  readonly isTransient?: (error: unknown) => boolean;
  /** Told of each failure that is followed by a wait, before the wait. */
  readonly onRetry?: (notice: RetryNotice) => void;
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
 * @param fn is given the number of the attempt, from 1.
 * @param policy what it leaves out is taken from `DEFAULT_RETRY_POLICY`.
 * @throws {RetryError} when every attempt failed; its `cause` is the last error.
 * @throws the signal's reason when aborted, and any permanent error as it is.
 */
export async function retry<T>(
  fn: (attempt: number) => T | Promise<T>,
  policy: Partial<RetryPolicy> = {},
  options: RetryOptions = {},
): Promise<T> {
  const complete: RetryPolicy = { ...DEFAULT_RETRY_POLICY, ...policy };
  const { signal, clock = systemClock, random = Math.random } = options;
  const startMs = clock.now();
  const delaysMs: number[] = [];
  for (let attempt = 1;; attempt++) {
    signal?.throwIfAborted();
    try {
      return await fn(attempt);
    } catch (error) {
      signal?.throwIfAborted();
      if (options.isTransient?.(error) === false) throw error;
      if (attempt >= complete.maxAttempts) {
        const elapsedMs = clock.now() - startMs;
        throw new RetryError(error, { attempts: attempt, delaysMs, elapsedMs });
      }
      const delayMs = backoffDelayMs(
        complete,
        attempt,
        random,
        delaysMs.at(-1),
      );
      options.onRetry?.({
        attempt,
        maxAttempts: complete.maxAttempts,
        delayMs,
        error,
      });
      delaysMs.push(delayMs);
      await delay(
        delayMs,
        signal === undefined ? { clock } : { clock, signal },
      );
    }
  }
}

/** One line for a log: what failed, and when it is tried again. */
export function describeRetry(what: string, notice: RetryNotice): string {
  const { attempt, maxAttempts, delayMs, error } = notice;
  return `${what}: attempt ${attempt} of ${maxAttempts} failed (${
    messageOf(error)
  }), trying again in ${Math.ceil(delayMs)} ms`;
}
