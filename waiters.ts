/**
 * The queue of those who wait for a connection.
 *
 * @module
 */

import type { Clock } from "./clock.ts";
import { Deadline, type DeadlineQueue } from "./deadlines.ts";
import type { Resource } from "./driver.ts";
import type { Slot } from "./slot.ts";

/** A request for a connection that could not be served at once. */
export abstract class Waiter<C extends Resource> {
  /** The queue it stands in, until it is answered. */
  queue: WaiterQueue<C> | undefined;
  next: Waiter<C> | undefined;
  previous: Waiter<C> | undefined;
  /** Since when it waits, in the milliseconds of the clock. */
  sinceMs = 0;
  /** How long it may wait, in milliseconds. */
  timeoutMs = 0;
  /** Its own deadline, where the one of the queue does not fit. */
  deadline: Deadline | undefined;

  get isQueued(): boolean {
    return this.queue !== undefined;
  }

  /** Takes the request back, and says whether it was still unanswered. */
  abandon(): boolean {
    return this.queue?.owner.abandon(this) ?? false;
  }

  /** Called once, when a connection is handed over. */
  abstract served(slot: Slot<C>): void;
  /** Called once, when there will be none. */
  abstract failed(error: Error): void;
}

/** Who answers a queue. */
export interface WaiterQueueOwner<C extends Resource> {
  /** Takes out and answers a waiter whose time is up. */
  timeOut(waiter: Waiter<C>): void;
  /** Takes out a waiter on its own request, unless it was answered before. */
  abandon(waiter: Waiter<C>): boolean;
}

/**
 * Waiters in the order in which they came: a list linked both ways, as any of
 * them may leave it. Whoever is taken out of it is somebody's to answer.
 */
export class WaiterQueue<C extends Resource> {
  /** Who answers those who wait here. */
  readonly owner: WaiterQueueOwner<C>;
  readonly #clock: Clock;
  readonly #deadlines: DeadlineQueue;
  readonly #usualTimeoutMs: number;
  #first: Waiter<C> | undefined;
  #last: Waiter<C> | undefined;
  #size = 0;
  /**
   * The deadline of the first waiter. It serves all who wait for the usual time,
   * as they fall due in the order in which they came.
   */
  readonly #deadline = new Deadline(() => this.#timeOut());

  /**
   * @param usualTimeoutMs how long most of them wait. Another time costs a
   * deadline of its own.
   */
  constructor(
    owner: WaiterQueueOwner<C>,
    clock: Clock,
    deadlines: DeadlineQueue,
    usualTimeoutMs: number,
  ) {
    this.owner = owner;
    this.#clock = clock;
    this.#deadlines = deadlines;
    this.#usualTimeoutMs = usualTimeoutMs;
  }

  /** How many wait. */
  get size(): number {
    return this.#size;
  }

  /** Whoever has waited longest. */
  get first(): Waiter<C> | undefined {
    return this.#first;
  }

  /** Adds a waiter, who may be answered before `bound` sets its deadline. */
  add(waiter: Waiter<C>): void {
    waiter.sinceMs = this.#clock.coarseNow();
    waiter.queue = this;
    waiter.previous = this.#last;
    if (this.#last === undefined) this.#first = waiter;
    else this.#last.next = waiter;
    this.#last = waiter;
    this.#size++;
  }

  /** Bounds how long a waiter waits, in milliseconds; with 0 it is over now. */
  bound(waiter: Waiter<C>, timeoutMs: number): void {
    waiter.timeoutMs = timeoutMs;
    if (timeoutMs <= 0) return this.owner.timeOut(waiter);
    let deadline = this.#deadline;
    if (timeoutMs !== this.#usualTimeoutMs) {
      deadline = new Deadline(() => this.owner.timeOut(waiter));
      waiter.deadline = deadline;
    } else if (deadline.isSet) return;
    this.#deadlines.set(deadline, waiter.sinceMs + timeoutMs);
  }

  /** Takes a waiter out. */
  remove(waiter: Waiter<C>): void {
    const { previous, next } = waiter;
    if (previous === undefined) this.#first = next;
    else previous.next = next;
    if (next === undefined) this.#last = previous;
    else next.previous = previous;
    waiter.next = waiter.previous = undefined;
    waiter.queue = undefined;
    if (waiter.deadline !== undefined) this.#deadlines.clear(waiter.deadline);
    // The program may end when nobody waits any more.
    if (--this.#size === 0) this.#deadlines.clear(this.#deadline);
  }

  /**
   * Takes out, one by one, those who wait at this moment. Those who come
   * meanwhile are not among them, and some may be served in between.
   */
  *drain(): IterableIterator<Waiter<C>> {
    const waiters: Waiter<C>[] = [];
    for (let one = this.#first; one !== undefined; one = one.next) {
      waiters.push(one);
    }
    for (const waiter of waiters) {
      if (!waiter.isQueued) continue;
      this.remove(waiter);
      yield waiter;
    }
  }

  #timeOut(): void {
    const nowMs = this.#clock.now();
    const late: Waiter<C>[] = [];
    for (let one = this.#first; one !== undefined; one = one.next) {
      if (one.deadline !== undefined) continue;
      const dueMs = one.sinceMs + one.timeoutMs;
      if (dueMs > nowMs) {
        this.#deadlines.set(this.#deadline, dueMs);
        break;
      }
      late.push(one);
    }
    // To answer one may answer others.
    for (const waiter of late) if (waiter.isQueued) this.owner.timeOut(waiter);
  }
}
