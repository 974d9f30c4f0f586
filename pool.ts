/**
 * The pool as its users see it: promises, `using`, transactions. What it decides
 * is decided in `pool_core.ts`.
 *
 * @module
 */

import { type Clock, systemClock } from "./clock.ts";
import {
  ConnectionConfig,
  type ConnectionOptions,
  hidePassword,
} from "./config.ts";
import type { Connection, Driver } from "./driver.ts";
import { ConfigError, ReleaseError } from "./errors.ts";
import { SqliteDriver } from "./sqlite.ts";
import { PooledConnection } from "./pooled_connection.ts";
import {
  type CloseReport,
  PoolCore,
  type PoolEvents,
  type PoolStats,
  type Slot,
  Waiter,
} from "./pool_core.ts";

/** What a pool takes from outside. */
export interface PoolDependencies {
  /** How to reach the database. Default: as `config.database` says. */
  readonly driver?: Driver<Connection>;
  /** Default: real time. */
  readonly clock?: Clock;
  /** Gives numbers from 0 up to, but not including, 1. Default: `Math.random`. */
  readonly random?: () => number;
  /** Called as things happen. */
  readonly events?: PoolEvents;
}

/** What one `acquire` may ask for. */
export interface AcquireOptions {
  /** Takes the request back; the promise is rejected with its reason. */
  readonly signal?: AbortSignal;
  /** How long to wait, in milliseconds, instead of `acquireTimeoutMs`. */
  readonly timeoutMs?: number;
}

/** What one `close` may ask for. */
export interface CloseOptions {
  /**
   * How long to wait for connections that are still in use, in milliseconds.
   * Default: 5000.
   */
  readonly timeoutMs?: number;
}

const CLOSE_TIMEOUT_MS = 5000;

class PromisedWaiter extends Waiter<Connection> {
  readonly #pool: ConnectionPool;
  readonly #resolve: (connection: PooledConnection) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #signal: AbortSignal | undefined;

  constructor(
    pool: ConnectionPool,
    signal: AbortSignal | undefined,
    resolve: (connection: PooledConnection) => void,
    reject: (reason: unknown) => void,
  ) {
    super();
    this.#pool = pool;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
    signal?.addEventListener("abort", this.#abort);
  }

  served(slot: Slot<Connection>): void {
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#resolve(new PooledConnection(this.#pool, slot));
  }

  failed(error: Error): void {
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#reject(error);
  }

  readonly #abort = (): void => {
    this.#signal?.removeEventListener("abort", this.#abort);
    if (this.core?.abandon(this)) this.#reject(this.#signal?.reason);
  };
}

/** A request that is answered before it could wait, or not at all. */
class InstantWaiter extends Waiter<Connection> {
  slot: Slot<Connection> | undefined;

  served(slot: Slot<Connection>): void {
    this.slot = slot;
  }

  failed(): void {}
}

/** A pool of connections to one database. */
export class ConnectionPool {
  /** The settings it was made with. */
  readonly config: ConnectionConfig;
  readonly #core: PoolCore<Connection>;
  readonly #acquireTimeoutMs: number;

  /**
   * Makes a pool. Nothing is opened before somebody asks, `minIdle` excepted.
   *
   * @throws {ConfigError} if a setting is wrong.
   */
  constructor(
    config: ConnectionConfig | ConnectionOptions = {},
    dependencies: PoolDependencies = {},
  ) {
    this.config = config instanceof ConnectionConfig
      ? config
      : new ConnectionConfig(config);
    this.#acquireTimeoutMs = this.config.acquireTimeoutMs;
    const { clock = systemClock, random = Math.random, events } = dependencies;
    this.#core = new PoolCore(this.config, {
      driver: dependencies.driver ?? driverFor(this.config, clock, random),
      clock,
      random,
      ...(events && { events }),
    });
    this.#core.warm();
  }

  /**
   * Gives a connection as soon as one is free. Whoever came first is served
   * first.
   *
   * @throws {AcquireTimeoutError} if none came free in time.
   * @throws {ConnectError} if the database cannot be reached.
   * @throws {TooManyWaitersError} if too many wait already.
   * @throws {PoolClosedError} if the pool is closed, or closes meanwhile.
   * @throws the reason of the signal when it is aborted.
   */
  acquire(options?: AcquireOptions): Promise<PooledConnection> {
    const signal = options?.signal;
    if (signal?.aborted) return Promise.reject(signal.reason);
    const slot = this.#core.take();
    if (slot !== undefined) {
      return Promise.resolve(new PooledConnection(this, slot));
    }
    const timeoutMs = options?.timeoutMs ?? this.#acquireTimeoutMs;
    return new Promise((resolve, reject) => {
      checkNumber("timeoutMs", timeoutMs, { integer: false });
      const waiter = new PromisedWaiter(this, signal, resolve, reject);
      this.#core.enqueue(waiter, timeoutMs);
    });
  }

  /** Gives a connection if one can be had at once. */
  tryAcquire(): PooledConnection | undefined {
    const waiter = new InstantWaiter();
    this.#core.tryTake(waiter);
    const { slot } = waiter;
    return slot === undefined ? undefined : new PooledConnection(this, slot);
  }

  /**
   * Takes a connection back. An open transaction is rolled back, and what is
   * broken is thrown away.
   *
   * @throws {ReleaseError} if it was released before, or is not of this pool.
   */
  release(connection: PooledConnection): void {
    if (
      !(connection instanceof PooledConnection) ||
      !PooledConnection.isOf(connection, this)
    ) {
      throw new ReleaseError(
        "Cannot release a connection that does not come from this pool",
      );
    }
    this.#core.release(PooledConnection.surrender(connection));
  }

  /** Lends a connection to `fn`, and takes it back whatever happens. */
  async use<T>(
    fn: (connection: PooledConnection) => T | Promise<T>,
    options?: AcquireOptions,
  ): Promise<T> {
    using connection = await this.acquire(options);
    return await fn(connection);
  }

  /**
   * Runs `fn` in a transaction that may write: committed if it returns, rolled
   * back if it throws.
   */
  async transaction<T>(
    fn: (connection: PooledConnection) => T | Promise<T>,
    options?: AcquireOptions,
  ): Promise<T> {
    using connection = await this.acquire(options);
    return await connection.transaction(fn);
  }

  /**
   * Closes idle connections, those used longest ago first, until `target` are
   * left. A connection in use is never touched.
   *
   * @returns how many it closed.
   */
  shrink(target: number): number {
    checkNumber("target", target, { integer: true });
    return this.#core.shrink(target);
  }

  /**
   * Changes the limits while the pool is at work. What is too many is closed
   * at once if it is idle, else when it comes back.
   *
   * @throws {ConfigError} if a limit is wrong; then nothing changes.
   */
  resize(limits: { poolSize?: number; maxOverflow?: number }): void {
    const { poolSize, maxOverflow } = this.#core.stats();
    const { minIdle } = this.config;
    const checked = new ConnectionConfig({
      poolSize,
      maxOverflow,
      minIdle,
      ...limits,
    });
    this.#core.resize(checked.poolSize, checked.maxOverflow);
  }

  /** The numbers of the pool at this moment. */
  stats(): PoolStats {
    return this.#core.stats();
  }

  /**
   * Ends the pool. Nobody is served any more, and who waits is told so.
   * Connections in use are waited for, then closed by force. Closing again
   * gives the same answer.
   */
  close(options: CloseOptions = {}): Promise<CloseReport> {
    const timeoutMs = options.timeoutMs ?? CLOSE_TIMEOUT_MS;
    return new Promise((resolve) => {
      checkNumber("timeoutMs", timeoutMs, { integer: false });
      this.#core.close(timeoutMs, resolve);
    });
  }

  /** Closes the pool at the end of an `await using` block. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function driverFor(
  config: ConnectionConfig,
  clock: Clock,
  random: () => number,
): Driver<Connection> {
  const { target, timeoutMs } = config;
  if (target.kind === "postgres") {
    throw new ConfigError([{
      field: "database",
      rule: "must be a path, ':memory:' or 'sqlite:PATH' " +
        "(PostgreSQL is not supported in this version)",
      value: hidePassword(config.database),
    }]);
  }
  const path = target.kind === "memory" ? ":memory:" : target.path;
  return new SqliteDriver({ path, timeoutMs, clock, random });
}

function checkNumber(
  field: string,
  value: number,
  { integer }: { integer: boolean },
): void {
  const isRight = integer
    ? Number.isSafeInteger(value)
    : Number.isFinite(value);
  if (isRight && value >= 0) return;
  const rule = `must be ${integer ? "an integer" : "a finite number"} >= 0`;
  throw new ConfigError([{ field, rule, value: String(value) }]);
}
