/**
 * One way to do the exercise of the lab, from what `lab:start` writes: it shows
 * that `lab:check` can be made green without the real pool.
 *
 * @module
 */

import { delay, systemClock } from "./clock.ts";

/** A connection, as far as it is needed here. */
interface Connection {
  query(sql: string): Promise<Record<string, unknown>[]>;
  execute(sql: string): Promise<unknown>;
  ping(): Promise<void>;
  close(): Promise<void>;
  readonly inTransaction: boolean;
  readonly isClosed: boolean;
}

interface Options {
  readonly database: string;
  readonly poolSize: number;
  readonly acquireTimeoutMs: number;
  readonly timeoutMs: number;
  readonly maxAttempts: number;
  connect(): Promise<Connection>;
}

interface Waiter {
  serve(connection: Connection): void;
  fail(error: unknown): void;
}

/** A loan: it ends with its release, whoever still has it. */
class Loan {
  connection: Connection | undefined;
  readonly #timeoutMs: number;

  constructor(connection: Connection, timeoutMs: number) {
    this.connection = connection;
    this.#timeoutMs = timeoutMs;
  }

  query(sql: string): Promise<Record<string, unknown>[]> {
    return this.#patiently((connection) => connection.query(sql));
  }

  execute(sql: string): Promise<unknown> {
    return this.#patiently((connection) => connection.execute(sql));
  }

  async close(): Promise<void> {
    await this.connection?.close();
  }

  async #patiently<T>(step: (connection: Connection) => Promise<T>) {
    const endMs = systemClock.now() + this.#timeoutMs;
    for (;;) {
      if (this.connection === undefined) throw new Error("It was given back");
      try {
        return await step(this.connection);
      } catch (error) {
        const isLocked = /locked/.test(String(error));
        if (!isLocked || systemClock.now() > endMs) throw error;
        await delay(10);
      }
    }
  }
}

/** A pool with every guard that the lab looks for. */
export class SolvedPool {
  readonly #options: Options;
  readonly #limit: number;
  readonly #all = new Set<Connection>();
  readonly #idle: Connection[] = [];
  readonly #waiters: Waiter[] = [];
  #isConnecting = false;
  #isClosed = false;

  constructor(options: Options) {
    const { poolSize, database } = options;
    if (!(Number.isInteger(poolSize) && poolSize >= 1)) {
      throw new RangeError(`poolSize must be an integer >= 1, not ${poolSize}`);
    }
    this.#options = options;
    this.#limit = database === ":memory:" ? 1 : poolSize;
  }

  async acquire(): Promise<Loan> {
    const { acquireTimeoutMs, timeoutMs } = this.#options;
    if (this.#isClosed) throw new Error("The pool is closed");
    const connection = this.#idle.pop() ?? await this.#wait(acquireTimeoutMs);
    return new Loan(connection, timeoutMs);
  }

  #wait(ms: number): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        serve: (connection) => {
          timer.clear();
          resolve(connection);
        },
        fail: (error) => {
          timer.clear();
          reject(error);
        },
      };
      const timer = systemClock.setTimer(() => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        reject(new Error(`No connection within ${ms} ms`));
      }, ms);
      this.#waiters.push(waiter);
      this.#open();
    });
  }

  /** One connect at a time, for all who wait. */
  async #open(): Promise<void> {
    if (this.#isConnecting) return;
    this.#isConnecting = true;
    let failures = 0;
    while (this.#waiters.length > 0 && this.#all.size < this.#limit) {
      try {
        const connection = await this.#options.connect();
        failures = 0;
        if (this.#isClosed) {
          await connection.close();
          break;
        }
        this.#all.add(connection);
        this.#offer(connection);
      } catch (error) {
        if (++failures >= this.#options.maxAttempts) {
          for (const waiter of this.#waiters.splice(0)) waiter.fail(error);
          break;
        }
        await delay(20 * 2 ** (failures - 1));
      }
    }
    this.#isConnecting = false;
  }

  #offer(connection: Connection): void {
    const waiter = this.#waiters.shift();
    if (waiter !== undefined) waiter.serve(connection);
    else this.#idle.push(connection);
  }

  async release(loan: Loan): Promise<void> {
    const { connection } = loan;
    if (connection === undefined) throw new Error("It was given back before");
    loan.connection = undefined;
    try {
      if (connection.inTransaction) await connection.execute("ROLLBACK");
      await connection.ping();
      this.#offer(connection);
    } catch {
      this.#all.delete(connection);
      if (!connection.isClosed) await connection.close();
      await this.#open();
    }
  }

  stats(): { open: number; idle: number; inUse: number } {
    const open = this.#all.size;
    const idle = this.#idle.length;
    return { open, idle, inUse: open - idle };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    for (const waiter of this.#waiters.splice(0)) {
      waiter.fail(new Error("The pool is closed"));
    }
    this.#idle.length = 0;
    for (const connection of this.#all) {
      this.#all.delete(connection);
      if (!connection.isClosed) await connection.close();
    }
  }
}
