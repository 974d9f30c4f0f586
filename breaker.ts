/**
 * The circuit breaker of a pool: how soon a database that fails is tried again,
 * and when those who wait for it are to be told.
 *
 * @module
 */

import type { RetryHistory } from "./errors.ts";
import { backoffDelayMs, type RetryPolicy } from "./retry.ts";

/** What follows from a connect that failed. */
export interface BreakerVerdict extends RetryHistory {
  /** How long to wait before the next connect, in milliseconds. */
  readonly delayMs: number;
  /** Whether there is no hope left for those who wait. */
  readonly isExhausted: boolean;
}

/**
 * Counts failed connects in a row. The first ones are repeated as the retry
 * policy says. Once its attempts are used up, or after an error that will come
 * again, one probe in each interval has to do, until a connect succeeds.
 */
export class ConnectBreaker {
  readonly #policy: RetryPolicy;
  readonly #probeIntervalMs: number;
  readonly #random: () => number;
  #failures = 0;
  #sinceMs = 0;
  #delaysMs: number[] = [];
  #lastError: unknown;

  /** @param probeIntervalMs the longest time between two probes. */
  constructor(
    policy: RetryPolicy,
    probeIntervalMs: number,
    random: () => number,
  ) {
    this.#policy = policy;
    this.#probeIntervalMs = probeIntervalMs;
    this.#random = random;
  }

  /** Whether the last connect failed, in a way that may pass. */
  get isFailing(): boolean {
    return this.#failures > 0;
  }

  /** What the last connect that failed failed with. */
  get lastError(): unknown {
    return this.#lastError;
  }

  /** Notes that a connect begins. */
  begin(nowMs: number): void {
    if (this.#failures === 0) this.#sinceMs = nowMs;
  }

  /** Notes that a connect succeeded. */
  succeed(): void {
    this.#failures = 0;
    this.#delaysMs = [];
  }

  /** Notes that a connect failed. */
  fail(error: unknown, isTransient: boolean, nowMs: number): BreakerVerdict {
    this.#lastError = error;
    const attempts = ++this.#failures;
    const delaysMs = this.#delaysMs;
    const isExhausted = !isTransient || attempts >= this.#policy.maxAttempts;
    // After an error that will come again nothing is left to count.
    if (!isTransient) this.succeed();
    // Half of the interval is left to chance, so that many pools part ways.
    const delayMs = isExhausted
      ? this.#probeIntervalMs * (0.5 + 0.5 * this.#random())
      : backoffDelayMs(this.#policy, attempts, this.#random, delaysMs.at(-1));
    if (!isExhausted) delaysMs.push(delayMs);
    const elapsedMs = nowMs - this.#sinceMs;
    return { attempts, delaysMs, elapsedMs, delayMs, isExhausted };
  }
}
