/**
 * Virtual time: a clock that stands still until it is told to move on, and then
 * jumps from event to event. Hours pass in milliseconds, and the same program
 * does the same thing each time.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import type { Clock, Timer } from "./clock.ts";
import { type Due, DueHeap } from "./deadlines.ts";

class VirtualTimer implements Timer, Due {
  dueMs = 0;
  sequence = 0;
  position = -1;
  readonly callback: () => void;
  readonly #heap: DueHeap<VirtualTimer>;

  constructor(heap: DueHeap<VirtualTimer>, callback: () => void) {
    this.#heap = heap;
    this.callback = callback;
  }

  clear(): void {
    this.#heap.remove(this);
  }

  // No process waits for a virtual timer, so these two have nothing to do.
  unref(): void {}
  ref(): void {}
}

/**
 * A clock whose time passes only when one of its methods is called.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const clock = new VirtualClock();
 * const rung: number[] = [];
 * clock.setTimer(() => rung.push(clock.now()), 60_000);
 * clock.advance(3_600_000);
 * assertEquals(rung, [60_000]);
 * ```
 */
export class VirtualClock implements Clock {
  readonly #timers = new DueHeap<VirtualTimer>();
  #nowMs = 0;

  now(): number {
    return this.#nowMs;
  }

  coarseNow(): number {
    return this.#nowMs;
  }

  setTimer(callback: () => void, delayMs: number): Timer {
    const timer = new VirtualTimer(this.#timers, callback);
    this.#timers.add(timer, this.#nowMs + Math.max(0, delayMs));
    return timer;
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size;
  }

  /**
   * Jumps to the next timer that is due by `untilMs` and fires it. With none
   * left it jumps to `untilMs`, if that is finite, and gives false.
   */
  step(untilMs = Infinity): boolean {
    const timer = this.#timers.first;
    if (timer === undefined || timer.dueMs > untilMs) {
      if (untilMs !== Infinity) this.#nowMs = Math.max(this.#nowMs, untilMs);
      return false;
    }
    this.#timers.remove(timer);
    this.#nowMs = timer.dueMs;
    timer.callback();
    return true;
  }

  /** Lets `durationMs` milliseconds pass, in one go. */
  advance(durationMs: number): void {
    const untilMs = this.#nowMs + durationMs;
    while (this.step(untilMs));
  }

  /**
   * Lets `durationMs` milliseconds pass, and after each timer lets every promise
   * that can settle do so before the next one fires.
   */
  async advanceAsync(durationMs: number): Promise<void> {
    const untilMs = this.#nowMs + durationMs;
    do await settled(); while (this.step(untilMs));
    await settled();
  }
}

/** Resolves when no promise is left that can settle without time passing. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
