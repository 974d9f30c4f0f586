/**
 * Time as a dependency. Everything that waits or measures takes a `Clock`, so
 * that tests and simulations can run it under virtual time. This is the only
 * file that touches real time.
 *
 * @module
 */

/** A timer that has been set and has not fired yet. */
export interface Timer {
  /** Stops the timer for good; harmless once it has fired. */
  clear(): void;
  /** Lets the program end although the timer is still to fire. */
  unref(): void;
  /** Undoes `unref`: the program stays alive until the timer has fired. */
  ref(): void;
}

/** A source of time. */
export interface Clock {
  /**
   * Milliseconds since some fixed moment, with a fraction, never going
   * backwards. Only differences mean anything.
   */
  now(): number;
  /**
   * The same, read once for all that happens in one turn of the event loop or
   * between two of its microtasks. It lags behind `now` by no more than the
   * time that code has run since then without a pause, and costs a fraction:
   * for the waits of many callers at once.
   */
  coarseNow(): number;
  /** Calls `callback` once, `delayMs` milliseconds from now. */
  setTimer(callback: () => void, delayMs: number): Timer;
}

// setTimeout takes a 32-bit count and fires at once beyond it, so a longer
// delay fires early and its owner, who knows the deadline, sets it again.
const LONGEST_DELAY_MS = 2 ** 31 - 1;

class SystemTimer implements Timer {
  readonly #id: ReturnType<typeof setTimeout>;

  constructor(callback: () => void, delayMs: number) {
    this.#id = setTimeout(
      callback,
      // setTimeout cuts fractions off and would fire before the deadline.
      Math.min(Math.ceil(delayMs), LONGEST_DELAY_MS),
    );
  }

  clear(): void {
    clearTimeout(this.#id);
  }

  unref(): void {
    this.#id.unref();
  }

  ref(): void {
    this.#id.ref();
  }
}

let coarseMs = 0;
let isCoarseRead = false;
const endCoarse = (): void => {
  isCoarseRead = false;
};

/** Real, monotonic time. */
export const systemClock: Clock = {
  now: () => performance.now(),
  coarseNow: () => {
    if (!isCoarseRead) {
      isCoarseRead = true;
      coarseMs = performance.now();
      // It runs after the microtasks that are due already, before those that
      // these bring about.
      queueMicrotask(endCoarse);
    }
    return coarseMs;
  },
  setTimer: (callback, delayMs) => new SystemTimer(callback, delayMs),
};

/**
 * Waits `delayMs` milliseconds of `clock`. An aborted `signal` ends the wait at
 * once, by throwing the signal's reason.
 */
export function delay(
  delayMs: number,
  { clock = systemClock, signal }: { clock?: Clock; signal?: AbortSignal } = {},
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const timer = clock.setTimer(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, delayMs);
    const abort = (): void => {
      timer.clear();
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** The day that it is here, as 2026-11-24. */
export function today(): string {
  const now = new Date();
  const two = (n: number): string => String(n).padStart(2, "0");
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${
    two(now.getDate())
  }`;
}
