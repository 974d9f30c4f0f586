/**
 * Nested acquires: a task that holds a connection and waits for another one. If
 * all holders do so, none of them is ever served.
 *
 * @module
 */

import { AsyncLocalStorage } from "node:async_hooks";
import type { Connection } from "./driver.ts";
import type { Slot } from "./slot.ts";

/** What a task has acquired, and what the task that began it has. */
export interface TaskLoan {
  readonly outer: TaskLoan | undefined;
  slot: Slot<Connection> | undefined;
  /** Tells this loan of the slot from a later one. */
  use: number;
}

/** Follows which task holds what, and who of them waits. */
export class NestingDetector {
  readonly #tasks = new AsyncLocalStorage<TaskLoan>();
  readonly #waiting = new Set<TaskLoan>();

  /** Notes that the task now running acquires a connection. */
  begin(): TaskLoan {
    const loan: TaskLoan = {
      outer: this.#tasks.getStore(),
      slot: undefined,
      use: 0,
    };
    // What the task does from here on happens inside this loan.
    this.#tasks.enterWith(loan);
    return loan;
  }

  /** Notes that the acquire has to wait. */
  wait(loan: TaskLoan): void {
    this.#waiting.add(loan);
  }

  /** Notes that the acquire was answered, with a connection or without. */
  answer(loan: TaskLoan, slot?: Slot<Connection>): void {
    this.#waiting.delete(loan);
    loan.slot = slot;
    loan.use = slot?.uses ?? 0;
  }

  /** How many connections are held by tasks that wait. */
  countBlocked(): number {
    const blocked = new Set<Slot<Connection>>();
    for (const waiting of this.#waiting) {
      for (let loan = waiting.outer; loan !== undefined; loan = loan.outer) {
        const { slot, use } = loan;
        if (slot?.state === "inUse" && slot.uses === use) blocked.add(slot);
      }
    }
    return blocked.size;
  }
}
