/**
 * Many deadlines on one timer. A timer of the platform costs twenty times as
 * much as a whole acquire and release, so nothing here sets one for each
 * waiter.
 *
 * @module
 */

import type { Clock, Timer } from "./clock.ts";

/** Something that is due at a time. It stands in one `DueHeap` at most. */
export interface Due {
  /** When it is due, in the milliseconds of the clock. */
  dueMs: number;
  /** Breaks ties, so that what was added first comes first. */
  sequence: number;
  /** Its place in the heap; -1 while it is in none. */
  position: number;
}

/**
 * A binary heap of things in the order of (due, sequence). Unlike the usual
 * one it removes from the middle in O(log n), for which each item remembers its
 * position: most deadlines are taken back, not met.
 */
export class DueHeap<T extends Due> {
  readonly #items: T[] = [];
  #sequence = 0;

  /** How many there are. */
  get size(): number {
    return this.#items.length;
  }

  /** The one that is due first. */
  get first(): T | undefined {
    return this.#items[0];
  }

  /** Adds an item, due at `dueMs`. */
  add(item: T, dueMs: number): void {
    item.dueMs = dueMs;
    item.sequence = this.#sequence++;
    this.#items.push(item);
    this.#rise(item, this.#items.length - 1);
  }

  /** Takes an item out, and says whether it was in. */
  remove(item: T): boolean {
    const { position } = item;
    if (position < 0) return false;
    item.position = -1;
    const last = this.#items.pop() as T;
    if (last !== item) {
      this.#rise(last, position);
      this.#sink(last, last.position);
    }
    return true;
  }

  #rise(item: T, position: number): void {
    const items = this.#items;
    while (position > 0) {
      const above = (position - 1) >> 1;
      const parent = items[above] as T;
      if (!isBefore(item, parent)) break;
      items[position] = parent;
      parent.position = position;
      position = above;
    }
    items[position] = item;
    item.position = position;
  }

  #sink(item: T, position: number): void {
    const items = this.#items;
    for (;;) {
      let below = 2 * position + 1;
      if (below >= items.length) break;
      const right = below + 1;
      if (
        right < items.length && isBefore(items[right] as T, items[below] as T)
      ) below = right;
      const child = items[below] as T;
      if (!isBefore(child, item)) break;
      items[position] = child;
      child.position = position;
      position = below;
    }
    items[position] = item;
    item.position = position;
  }
}

function isBefore(a: Due, b: Due): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.sequence < b.sequence);
}

/** A deadline, and what happens when it passes. */
export class Deadline implements Due {
  dueMs = 0;
  sequence = 0;
  position = -1;
  /** Called when the deadline has passed. */
  readonly onDue: () => void;

  constructor(onDue: () => void) {
    this.onDue = onDue;
  }

  /** Whether it is still to come. */
  get isSet(): boolean {
    return this.position >= 0;
  }
}

/** What a `DeadlineQueue` needs to know of a deadline. */
export interface DeadlineItem extends Due {
  /** Called when the deadline has passed. */
  onDue(): void;
}

/** The deadlines of one owner, on one timer. */
export class DeadlineQueue {
  readonly #clock: Clock;
  readonly #background: boolean;
  readonly #heap = new DueHeap<DeadlineItem>();
  #timer: Timer | undefined;
  #timerDueMs = 0;

  /**
   * @param background whether the program may end while deadlines are still to
   * come.
   */
  constructor(clock: Clock, { background }: { background: boolean }) {
    this.#clock = clock;
    this.#background = background;
  }

  /** Sets a deadline; one that was set before is moved. */
  set(deadline: DeadlineItem, dueMs: number): void {
    this.#heap.remove(deadline);
    this.#heap.add(deadline, dueMs);
    if (this.#timer !== undefined && this.#timerDueMs <= dueMs) {
      if (this.#heap.size === 1 && !this.#background) this.#timer.ref();
    } else {
      this.#arm(dueMs, this.#clock.now());
    }
  }

  /** Takes a deadline back, and says whether it was set. */
  clear(deadline: DeadlineItem): boolean {
    if (!this.#heap.remove(deadline)) return false;
    // The timer stays: the next deadline is likely to come after it, and to
    // unref costs a thirtieth of setting a new one.
    if (this.#heap.size === 0 && !this.#background) this.#timer?.unref();
    return true;
  }

  /** Takes all deadlines back. */
  clearAll(): void {
    for (let first; (first = this.#heap.first);) this.#heap.remove(first);
    this.#timer?.clear();
    this.#timer = undefined;
  }

  #arm(dueMs: number, nowMs: number): void {
    this.#timer?.clear();
    this.#timerDueMs = dueMs;
    this.#timer = this.#clock.setTimer(this.#fire, Math.max(0, dueMs - nowMs));
    if (this.#background) this.#timer.unref();
  }

  readonly #fire = (): void => {
    this.#timer = undefined;
    const nowMs = this.#clock.now();
    for (let first; (first = this.#heap.first) && first.dueMs <= nowMs;) {
      this.#heap.remove(first);
      first.onDue();
    }
    // What was due may have set a timer itself.
    const next = this.#heap.first;
    if (
      next !== undefined &&
      (this.#timer === undefined || this.#timerDueMs > next.dueMs)
    ) this.#arm(next.dueMs, nowMs);
  };
}
