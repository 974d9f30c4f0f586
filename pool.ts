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
import { ConfigError, NestedAcquireError, ReleaseError } from "./errors.ts";
import { LeakDetector, stackAbove } from "./leaks.ts";
import { NestingDetector } from "./nesting.ts";
import { PoolCore } from "./pool_core.ts";
import {
  type CloseReport,
  guarded,
  type PoolEvents,
  type PoolStats,
} from "./pool_report.ts";
import { PooledConnection } from "./pooled_connection.ts";
import { PostgresDriver } from "./postgres.ts";
import { PostgresUrlError } from "./postgres_url.ts";
import { retry, RetryBudget, type RetryPolicy } from "./retry.ts";
import type { Slot } from "./slot.ts";
import { SqliteDriver } from "./sqlite.ts";
import { Waiter } from "./waiters.ts";

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
  /**
   * Bounds the re-runs of transactions, and may be shared with other pools.
   * Default: one of the pool's own.
   */
  readonly budget?: RetryBudget;
}

/** What one `acquire` may ask for. */
export interface AcquireOptions {
  /** Takes the request back; the promise is rejected with its reason. */
  readonly signal?: AbortSignal;
  /** How long to wait, in milliseconds, instead of `acquireTimeoutMs`. */
  readonly timeoutMs?: number;
}

/** What one `transaction` may ask for. */
export interface TransactionOptions extends AcquireOptions {
  /**
   * How often to run the whole function again when the database was busy or
   * could not serialize it, and so committed nothing. Default: not at all, as
   * only its author knows whether it does anything beside the transaction.
   */
  readonly retry?: Partial<RetryPolicy>;
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

type Lend = (slot: Slot<Connection>, stack?: string) => PooledConnection;

/** Settles the promise of one `acquire`. */
class PromisedWaiter extends Waiter<Connection> implements EventListenerObject {
  readonly #lend: Lend;
  readonly #stack: string | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #resolve: (connection: PooledConnection) => void;
  readonly #reject: (reason: unknown) => void;

  constructor(
    lend: Lend,
    stack: string | undefined,
    signal: AbortSignal | undefined,
    resolve: (connection: PooledConnection) => void,
    reject: (reason: unknown) => void,
  ) {
    super();
    this.#lend = lend;
    this.#stack = stack;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#reject = reject;
    signal?.addEventListener("abort", this);
  }

  served(slot: Slot<Connection>): void {
    this.#signal?.removeEventListener("abort", this);
    this.#resolve(this.#lend(slot, this.#stack));
  }

  failed(error: unknown): void {
    this.#signal?.removeEventListener("abort", this);
    this.#reject(error);
  }

  /** The signal was aborted. */
  handleEvent(): void {
    if (this.abandon()) this.failed(this.#signal?.reason);
  }
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
  readonly #driver: Driver<Connection>;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #budget: RetryBudget;
  readonly #leaks: LeakDetector | undefined;
  readonly #nesting: NestingDetector | undefined;

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
    const { clock = systemClock, random = Math.random } = dependencies;
    this.#clock = clock;
    this.#random = random;
    this.#driver = dependencies.driver ?? driverFor(this.config, clock, random);
    this.#budget = dependencies.budget ?? new RetryBudget();
    const events = guarded(dependencies.events ?? {});
    const { leakDetectionMs, detectNestedAcquire } = this.config;
    if (leakDetectionMs > 0) {
      this.#leaks = new LeakDetector(clock, leakDetectionMs, events, (slot) => {
        this.#core.release(slot);
      });
    }
    if (detectNestedAcquire) this.#nesting = new NestingDetector();
    this.#core = new PoolCore(this.config, {
      driver: this.#driver,
      clock,
      random,
      events,
      holders: () => this.#leaks?.holders() ?? [],
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
    let timeoutMs = this.config.acquireTimeoutMs;
    let signal: AbortSignal | undefined;
    if (options !== undefined) {
      if (options.timeoutMs !== undefined) {
        timeoutMs = options.timeoutMs;
        const error = wrongNumber("timeoutMs", timeoutMs, { integer: false });
        if (error !== undefined) return Promise.reject(error);
      }
      signal = options.signal;
      if (signal?.aborted) return Promise.reject(signal.reason);
    }
    const stack = this.#leaks && stackAbove(this.acquire);
    const slot = this.#core.take();
    if (slot !== undefined) return Promise.resolve(this.#lend(slot, stack));
    return new Promise((resolve, reject) => {
      const lend = this.#lend;
      const waiter = new PromisedWaiter(lend, stack, signal, resolve, reject);
      this.#core.enqueue(waiter, timeoutMs);
      if (waiter.isQueued && this.#nesting) {
        this.#failIfHopeless(waiter, this.#nesting);
      }
    });
  }

  readonly #lend: Lend = (slot, stack) => {
    const connection = new PooledConnection(this, slot);
    if (stack !== undefined) this.#leaks?.begin(connection, slot, stack);
    return connection;
  };

  #failIfHopeless(waiter: PromisedWaiter, nesting: NestingDetector): void {
    nesting.wait(waiter);
    const state = this.#core.state();
    // A holder that is not blocked gives its connection back, and all go on.
    const isHopeless = state.inUse === state.limit &&
      nesting.countBlocked() === state.inUse;
    if (isHopeless && waiter.abandon()) {
      waiter.failed(new NestedAcquireError(state));
    }
  }

  /** Gives a connection if one can be had at once. */
  tryAcquire(): PooledConnection | undefined {
    const waiter = new InstantWaiter();
    this.#core.tryTake(waiter);
    const { slot } = waiter;
    if (slot === undefined) return undefined;
    return this.#lend(slot, this.#leaks && stackAbove(this.tryAcquire));
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
    const slot = PooledConnection.surrender(connection);
    this.#leaks?.end(connection, slot);
    this.#core.release(slot);
  }

  /** Lends a connection to `fn`, and takes it back whatever happens. */
  async use<T>(
    fn: (connection: PooledConnection) => T | Promise<T>,
    options?: AcquireOptions,
  ): Promise<T> {
    using connection = await this.acquire(options);
    const call = (): T | Promise<T> => fn(connection);
    return await (this.#nesting ? this.#nesting.run(connection, call) : call());
  }

  /**
   * Runs `fn` in a transaction that may write: committed if it returns, rolled
   * back if it throws. With `retry` it may run several times, each time on a
   * connection acquired anew; none is held in between.
   *
   * @throws {RetryError} when it was run again and failed to the last; its
   * `cause` is the last error.
   */
  async transaction<T>(
    fn: (connection: PooledConnection) => T | Promise<T>,
    options: TransactionOptions = {},
  ): Promise<T> {
    const once = (): Promise<T> =>
      this.use((connection) => connection.transaction(fn), options);
    if (options.retry === undefined) return await once();
    return await retry(once, options.retry, {
      ...(options.signal && { signal: options.signal }),
      // The database has said that it committed nothing. A reply to a commit
      // that was lost says no such thing.
      isTransient: (error) => this.#driver.isConflict?.(error) ?? false,
      budget: this.#budget,
      clock: this.#clock,
      random: this.#random,
    });
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
      minIdle,
      poolSize: limits.poolSize ?? poolSize,
      maxOverflow: limits.maxOverflow ?? maxOverflow,
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
      this.#core.close(timeoutMs, (report) => {
        this.#leaks?.close();
        resolve(report);
      });
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
    try {
      return new PostgresDriver({ url: target.url, timeoutMs, clock });
    } catch (error) {
      if (!(error instanceof PostgresUrlError)) throw error;
      // The URL is right in itself, but a variable that adds to it is not.
      const value = hidePassword(config.database);
      const rule = error.message;
      throw new ConfigError([{ field: "database", rule, value }]);
    }
  }
  const path = target.kind === "memory" ? ":memory:" : target.path;
  return new SqliteDriver({ path, timeoutMs, clock, random });
}

function checkNumber(...args: Parameters<typeof wrongNumber>): void {
  const error = wrongNumber(...args);
  if (error !== undefined) throw error;
}

function wrongNumber(
  field: string,
  value: number,
  { integer }: { integer: boolean },
): ConfigError | undefined {
  const isRight = integer
    ? Number.isSafeInteger(value)
    : Number.isFinite(value);
  if (isRight && value >= 0) return undefined;
  const rule = `must be ${integer ? "an integer" : "a finite number"} >= 0`;
  return new ConfigError([{ field, rule, value: String(value) }]);
}
