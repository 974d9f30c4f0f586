/**
 * Nested acquires: a task that holds a connection and waits for another one. If
 * all holders do so, none of them is ever served.
 *
 * @module
 */

import { AsyncLocalStorage } from "node:async_hooks";
import type { Connection } from "./driver.ts";
import type { PooledConnection } from "./pooled_connection.ts";
import type { Waiter } from "./waiters.ts";

/** A task that holds a connection, inside another one that perhaps does too. */
interface HoldingTask {
  readonly connection: PooledConnection;
  readonly outer: HoldingTask | undefined;
}

/**
 * Follows which task holds what, and who of them waits.
 *
 * A task is what a function does that was lent a connection by `use` or
 * `transaction`. One that merely called `acquire` cannot be told from its
 * caller, who may well go on and give connections back; so it never counts as
 * stuck, and at worst times out.
 */
export class NestingDetector {
  readonly #tasks = new AsyncLocalStorage<HoldingTask>();
  readonly #waiting = new Map<Waiter<Connection>, HoldingTask>();

  /** Runs `fn` as a task that holds `connection`. */
  run<T>(connection: PooledConnection, fn: () => T): T {
    return this.#tasks.run({ connection, outer: this.#tasks.getStore() }, fn);
  }

  /** Notes that the task now running waits. */
  wait(waiter: Waiter<Connection>): void {
    const task = this.#tasks.getStore();
    if (task !== undefined) this.#waiting.set(waiter, task);
  }

  /** How many connections are held by tasks that wait. */
  countBlocked(): number {
    const blocked = new Set<PooledConnection>();
    for (const [waiter, waiting] of this.#waiting) {
      if (!waiter.isQueued) {
        this.#waiting.delete(waiter);
        continue;
      }
      let task: HoldingTask | undefined = waiting;
      for (; task !== undefined; task = task.outer) {
        if (!task.connection.isReleased) blocked.add(task.connection);
      }
    }
    return blocked.size;
  }
}
