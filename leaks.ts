/**
 * Leak detection: who holds which connection, since when, and from where.
 *
 * @module
 */

import type { Clock } from "./clock.ts";
import { Deadline, DeadlineQueue } from "./deadlines.ts";
import type { Connection } from "./driver.ts";
import type { Holder } from "./errors.ts";
import type { PoolEvents } from "./pool_report.ts";
import type { PooledConnection } from "./pooled_connection.ts";
import type { Slot } from "./slot.ts";

/** A loan that is being watched. It knows nothing that keeps the loan alive. */
interface WatchedLoan {
  readonly slot: Slot<Connection>;
  readonly sinceMs: number;
  readonly stack: string;
  readonly deadline: Deadline;
  isReported: boolean;
}

/** Watches the loans of one pool while leak detection is on. */
export class LeakDetector {
  readonly #clock: Clock;
  readonly #afterMs: number;
  readonly #events: PoolEvents;
  readonly #reclaim: (slot: Slot<Connection>) => void;
  readonly #deadlines: DeadlineQueue;
  readonly #loans = new Map<Slot<Connection>, WatchedLoan>();
  readonly #forgotten = new FinalizationRegistry<WatchedLoan>((loan) => {
    if (this.#loans.get(loan.slot) !== loan) return;
    this.#forget(loan);
    this.#events.leakReclaim?.(this.#holderOf(loan));
    this.#reclaim(loan.slot);
  });

  /**
   * @param afterMs how long a loan may last before it is reported, in
   * milliseconds.
   * @param reclaim takes a connection back whose holder is gone.
   */
  constructor(
    clock: Clock,
    afterMs: number,
    events: PoolEvents,
    reclaim: (slot: Slot<Connection>) => void,
  ) {
    this.#clock = clock;
    this.#afterMs = afterMs;
    this.#events = events;
    this.#reclaim = reclaim;
    this.#deadlines = new DeadlineQueue(clock, { background: true });
  }

  /** Watches a loan that has just begun, for an acquire made at `stack`. */
  begin(
    connection: PooledConnection,
    slot: Slot<Connection>,
    stack: string,
  ): void {
    const sinceMs = this.#clock.now();
    const loan: WatchedLoan = {
      slot,
      sinceMs,
      stack,
      deadline: new Deadline(() => {
        loan.isReported = true;
        this.#events.leak?.(this.#holderOf(loan));
      }),
      isReported: false,
    };
    this.#loans.set(slot, loan);
    this.#deadlines.set(loan.deadline, sinceMs + this.#afterMs);
    this.#forgotten.register(connection, loan, connection);
  }

  /** Ends the watch over a loan that was given back. */
  end(connection: PooledConnection, slot: Slot<Connection>): void {
    this.#forgotten.unregister(connection);
    const loan = this.#loans.get(slot);
    if (loan === undefined) return;
    this.#forget(loan);
    if (loan.isReported) this.#events.leakEnd?.(this.#holderOf(loan));
  }

  /** Who holds connections now, longest first. */
  holders(): Holder[] {
    return [...this.#loans.values()].map((loan) => this.#holderOf(loan));
  }

  /** Ends the watch over all loans. */
  close(): void {
    this.#deadlines.clearAll();
    this.#loans.clear();
  }

  #forget(loan: WatchedLoan): void {
    this.#loans.delete(loan.slot);
    this.#deadlines.clear(loan.deadline);
  }

  #holderOf({ sinceMs, stack }: WatchedLoan): Holder {
    return { heldMs: this.#clock.now() - sinceMs, stack };
  }
}

/** The stack above `caller`, without a heading. */
export function stackAbove(caller: (...args: never[]) => unknown): string {
  const trace = { stack: "" };
  Error.captureStackTrace(trace, caller);
  return trace.stack.replace(/^[^\n]*\n\s*/, "");
}
