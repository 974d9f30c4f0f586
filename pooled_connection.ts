/**
 * A connection on loan: what `acquire` gives and `release` takes back.
 *
 * @module
 */

import type {
  Connection,
  Dialect,
  ExecuteResult,
  QueryOptions,
  Row,
  SqlParameters,
} from "./driver.ts";
import { PoolClosedError, ReleaseError } from "./errors.ts";
import type { Slot } from "./slot.ts";

/** Where a loan goes back to. */
export interface Lender {
  /** Takes the connection back. */
  release(connection: PooledConnection): void;
}

/**
 * A connection while it is on loan. Each loan has an object of its own, so one
 * that was given back can never be used by mistake while somebody else has the
 * connection.
 *
 * The usual way to hold one is `using connection = await pool.acquire()`, which
 * gives it back at the end of the block, however the block ends.
 */
export class PooledConnection {
  readonly #lender: Lender;
  #slot: Slot<Connection> | undefined;

  /** Made by `ConnectionPool.acquire`. */
  constructor(lender: Lender, slot: Slot<Connection>) {
    this.#lender = lender;
    this.#slot = slot;
  }

  /** Whether `connection` comes from `lender`. For the pool. */
  static isOf(connection: PooledConnection, lender: Lender): boolean {
    return connection.#lender === lender;
  }

  /** Ends the loan. For the pool. */
  static surrender(connection: PooledConnection): Slot<Connection> {
    const slot = connection.#slot;
    if (slot === undefined) {
      throw new ReleaseError(
        "Cannot release a connection that was released before",
      );
    }
    connection.#slot = undefined;
    return slot;
  }

  get #connection(): Connection {
    const slot = this.#slot;
    if (slot === undefined) {
      throw new ReleaseError("Cannot use a connection after it was released");
    }
    if (slot.state !== "inUse") {
      throw new PoolClosedError(
        "Cannot use a connection that was closed by force with its pool",
      );
    }
    return slot.connection;
  }

  /** Whether it was given back. */
  get isReleased(): boolean {
    return this.#slot === undefined;
  }

  /** The driver's own object, for what this class does not offer. */
  get raw(): unknown {
    return this.#connection.raw;
  }

  /** The SQL that the database speaks. */
  get dialect(): Dialect {
    return this.#connection.dialect;
  }

  /** Whether a transaction is open. */
  get inTransaction(): boolean {
    return this.#connection.inTransaction;
  }

  /** Runs a statement and gives all its rows. */
  // deno-lint-ignore require-await -- a wrong use must reject, not throw.
  async query<T extends Row = Row>(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<T[]> {
    return this.#connection.query(sql, parameters, options) as Promise<T[]>;
  }

  /** Runs a statement, or without parameters several, for the effect. */
  // deno-lint-ignore require-await -- a wrong use must reject, not throw.
  async execute(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<ExecuteResult> {
    return this.#connection.execute(sql, parameters, options);
  }

  /** Runs a statement and gives its rows one by one. */
  async *iterate<T extends Row = Row>(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): AsyncIterableIterator<T> {
    const rows = this.#connection.iterate(sql, parameters, options);
    for await (const row of rows) {
      yield row as T;
      // Throws if the loan has ended while the caller looked at the row.
      void this.#connection;
    }
  }

  /**
   * Runs `fn` in a transaction that may write: committed if it returns, rolled
   * back if it throws. Inside another transaction it is a savepoint.
   */
  async transaction<T>(
    fn: (connection: PooledConnection) => T | Promise<T>,
  ): Promise<T> {
    await this.#connection.begin();
    let result: T;
    try {
      result = await fn(this);
      await this.#connection.commit();
    } catch (error) {
      await this.#rollBack();
      throw error;
    }
    return result;
  }

  async #rollBack(): Promise<void> {
    // Given back in the midst of its transaction, it was rolled back then.
    if (this.#slot?.state !== "inUse") return;
    const { connection } = this.#slot;
    try {
      await connection.rollback();
    } catch {
      // What cannot be rolled back is not fit for anybody; closing rolls it
      // back, and the error that led here is the one that matters.
      await new Promise<void>((resolve) => connection.close(() => resolve()));
    }
  }

  /** Asks the database for a sign of life; rejects if there is none. */
  ping(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#connection.ping((error) =>
        error === undefined ? resolve() : reject(error)
      );
    });
  }

  /**
   * Closes the connection itself. It must still be released; the pool then
   * throws it away.
   */
  close(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#connection.close((error) =>
        error === undefined ? resolve() : reject(error)
      );
    });
  }

  /**
   * Gives the connection back.
   *
   * @throws {ReleaseError} if it was given back before.
   */
  release(): void {
    this.#lender.release(this);
  }

  /** Gives the connection back, unless that was done before. */
  [Symbol.dispose](): void {
    if (this.#slot !== undefined) this.release();
  }

  /** Gives the connection back, unless that was done before. */
  // deno-lint-ignore require-await -- the protocol asks for a promise.
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
  }
}
