/**
 * The workbench of the lab: what a case is, and what one run of it has at hand:
 * a database, a pool, a time line, and an end to all waiting.
 *
 * @module
 */

import { Database } from "@db/sqlite";
import { join } from "@std/path";
import { type Clock, delay, systemClock } from "./clock.ts";
import type { Connection, Driver, Row } from "./driver.ts";
import { messageOf } from "./errors.ts";
import { PostgresDriver } from "./postgres.ts";
import { SqliteDriver } from "./sqlite.ts";
import { settled, VirtualClock } from "./virtual_clock.ts";

/** Something that happened in a run. */
export interface LabEvent {
  /** Milliseconds since the run began. */
  readonly at_ms: number;
  /** What happened, in a few words. */
  readonly event: string;
}

/** Numbers in the order of time, one for each 100 ms. */
export type Series = readonly number[];

/** A row of a table; its first cell is what the row is about. */
export type FigureRow = {
  readonly [column: string]: number | string | null | Series;
};

/** A figure that was measured: one, one in the course of time, or a table. */
export type Figure =
  | number
  | string
  | boolean
  | null
  | Series
  | readonly FigureRow[];

/** Figures by name; a name ends in its unit. */
export type Figures = { readonly [name: string]: Figure };

/** What a borrower needs of a connection. */
export interface Borrowed {
  /** Runs a statement and gives its rows. */
  query(sql: string): Promise<Row[]>;
  /** Runs a statement for its effect. */
  execute(sql: string): Promise<unknown>;
  /** Closes the connection itself. */
  close(): unknown;
}

/** A connection as a pool opens it. */
export interface Opened extends Borrowed {
  /** Rejects if the connection does not answer. */
  ping(): Promise<void>;
  close(): Promise<void>;
  /** Whether a transaction is open. */
  readonly inTransaction: boolean;
  /** Whether it has been closed. */
  readonly isClosed: boolean;
}

/** What the constructor of a pool is given. */
export interface LabPoolOptions {
  /** The name of the database; `:memory:` is one that lives in a connection. */
  readonly database: string;
  /** How many connections may be open at once. */
  readonly poolSize: number;
  /** How long `acquire` waits for a connection, in milliseconds. */
  readonly acquireTimeoutMs: number;
  /** How long a statement waits for a lock, in milliseconds. */
  readonly timeoutMs: number;
  /** How often to try to connect before giving up. */
  readonly maxAttempts: number;
  /** Opens a connection; rejects if the database cannot be reached. */
  connect(): Promise<Opened>;
}

/** What every pool of the lab can do: a specimen, the real one, a learner's. */
export interface LabPool {
  /** Gives a connection as soon as one is free. */
  acquire(): Promise<Borrowed>;
  /** Takes a connection back. */
  release(connection: Borrowed): unknown;
  /** How many connections are open, idle and in use; `peak` if it is kept. */
  stats(): {
    readonly open: number;
    readonly idle: number;
    readonly inUse: number;
    readonly peak?: number;
  };
  /** Closes all connections. */
  close(): unknown;
  /** Lends a connection to `fn`, if the pool has a way of its own. */
  use?<T>(fn: (connection: Borrowed) => Promise<T>): Promise<T>;
  /** Closes idle connections until `target` are left, if it can. */
  shrink?(target: number): unknown;
}

/** What a case asks of a pool, beside what all pools are given. */
export interface PoolRequest {
  readonly database?: string;
  readonly poolSize: number;
  readonly maxOverflow?: number;
  readonly acquireTimeoutMs?: number;
  readonly timeoutMs?: number;
  readonly maxAttempts?: number;
  /** Guards that the real pool has, and that are off unless asked for. */
  readonly leakDetectionMs?: number;
  readonly detectNestedAcquire?: boolean;
  /** Whether a specimen leaves the waiting for a lock to SQLite. */
  readonly waitsInSqlite?: boolean;
}

/** Makes the pool that a run is about. */
export type MakePool = (
  options: LabPoolOptions,
  request: PoolRequest,
  bench: Bench,
) => LabPool;

/** The settings of the lab: what `--help` says, and how they are written. */
export const SETTINGS = {
  poolSize: ["pool-size", "N", "Connections that the pool may open"],
  tasks: ["tasks", "N", "Tasks that want a connection"],
  timeoutMs: ["timeout", "TIME", "How long to wait for a lock"],
  acquireTimeoutMs: [
    ...["acquire-timeout", "TIME", "How long to wait for a connection"],
  ],
  holdMs: ["hold", "TIME", "How long another process holds the lock"],
  outageMs: ["outage", "TIME", "How long the database is down"],
  maxAttempts: ["max-attempts", "N", "How often to try to connect"],
  target: ["target", "N", "Idle connections that shrinking leaves"],
  rows: ["rows", "N", "Rows that are inserted and not committed"],
  releases: ["releases", "N", "How often one connection is given back"],
  errorRate: ["error-rate", "P", "The part of the tasks that throws"],
  queries: ["queries", "N", "Queries to measure"],
  clients: ["clients", "N", "Clients that lose their connection"],
  burst: ["burst", "N", "Requests that come at once"],
  seed: ["seed", "N", "The same seed, the same chance"],
} as const satisfies Record<string, readonly string[]>;

/** The name of a setting. */
export type SettingName = keyof typeof SETTINGS;

/** A setting of a case: its default, and what it may be. */
export interface Setting {
  readonly standard: number;
  readonly least: number;
  readonly most: number;
  readonly isWhole: boolean;
}

/** What a case may be told. */
export type CaseSettings = { readonly [name in SettingName]?: Setting };

/** What a case is told. */
export type CaseValues = { readonly [name in SettingName]?: number };

/** Where a guard is to be read. */
export interface Guard {
  readonly file: string;
  /** The name of the function or class. */
  readonly symbol: string;
}

/** Both runs of a case, as far as its words depend on them. */
export interface Measured<F extends Figures> {
  readonly without: F;
  readonly with: F;
  /** A setting as it was in both. */
  readonly setting: (name: SettingName) => number;
}

/** A case of the lab. */
export interface LabCase<F extends Figures = Figures> {
  readonly name: string;
  readonly title: string;
  /** What somebody believes who has not seen the guard. */
  readonly assumption: string;
  /** What to predict, and the answers; `{name}` stands for a setting. */
  readonly question: string;
  readonly choices: readonly [string, string, string];
  readonly settings: CaseSettings;
  /** Whether it can run on a server too; else it is about SQLite. */
  readonly onServer?: boolean;
  /** Whether it starts another process. */
  readonly startsProcess?: boolean;
  /** Whether its time is virtual. */
  readonly isVirtual?: boolean;
  /** What both columns are called, where it is not about a pool. */
  readonly columns?: readonly [string, string];
  readonly guard: Guard;
  /** The same on a server, where it is another. */
  readonly guardOnServer?: Guard;
  /** What a pool must do to hold; where a learner's is put to the test. */
  readonly demand?: string;
  /** One flag to change, and what to look at. */
  readonly experiment: { readonly flag: string; readonly look: string };
  /** Runs it once, and gives what was measured. */
  run(bench: Bench): Promise<F>;
  /** Whether a guard was in place, as far as these figures show. */
  holds(figures: F): boolean;
  /** What came of a run, in a sentence. */
  outcome(figures: F): string;
  /** Which of the choices was right: 0, 1 or 2. */
  answer(measured: Measured<F>): number;
  /** Why, in sentences that quote the figures. */
  explain(measured: Measured<F>): string;
}

/** How long something may take that should happen at once, in milliseconds. */
export const PATIENCE_MS = 400;

/** How a promise fared that was waited for in vain no longer than allowed. */
export type Watched<T> =
  | { readonly state: "done"; readonly value: T; readonly ms: number }
  | { readonly state: "failed"; readonly error: unknown; readonly ms: number }
  | { readonly state: "pending"; readonly ms: number };

/** What a run is given. */
export interface BenchOptions {
  /** An empty folder for its files. */
  readonly folder: string;
  /** The URL of a server; without one it is SQLite. */
  readonly server?: string;
  readonly settings: CaseValues;
  readonly isVirtual: boolean;
  /** Whether the guard of the case is in place. */
  readonly isGuarded: boolean;
  readonly makePool: MakePool;
  readonly signal: AbortSignal;
}

const CONNECT_TIMEOUT_MS = 5000;
const CLOSE_TIMEOUT_MS = 1000;

/** One run of a case. */
export class Bench implements AsyncDisposable {
  /** What time it is, in virtual time if the case asks for it. */
  readonly clock: Clock;
  /** What happened. */
  readonly events: LabEvent[] = [];
  /** Whether the guard of the case is in place. */
  readonly isGuarded: boolean;
  /** The URL of the server, if the case runs on one. */
  readonly server: string | undefined;
  /** A table of this run alone, for its labels. */
  readonly table: string;
  /** When each connect was tried, since the beginning, in milliseconds. */
  readonly connectsAtMs: number[] = [];
  /** How many connects succeeded. */
  connected = 0;
  readonly #options: BenchOptions;
  readonly #opened: Opened[] = [];
  readonly #pools: LabPool[] = [];
  #hasTable = false;
  #startMs: number;

  /** Begins a run; nothing is opened yet. */
  constructor(options: BenchOptions) {
    this.#options = options;
    this.isGuarded = options.isGuarded;
    this.server = options.server;
    this.clock = options.isVirtual ? new VirtualClock() : systemClock;
    this.#startMs = this.clock.now();
    // A server keeps the tables of others too.
    this.table = options.server === undefined
      ? "events"
      : `lab_${crypto.randomUUID().slice(0, 8)}`;
  }

  /** A setting of the case. */
  setting(name: SettingName): number {
    const value = this.#options.settings[name];
    if (value === undefined) throw new Error(`The case has no setting ${name}`);
    return value;
  }

  /** A path in the folder of the run. */
  file(name: string): string {
    return join(this.#options.folder, name);
  }

  /** The database of the run. */
  get database(): string {
    return this.server ?? this.file("lab.db");
  }

  /** Milliseconds since the run began. */
  now(): number {
    return this.clock.now() - this.#startMs;
  }

  /** The run begins now; what came before was preparation. */
  begin(): void {
    this.#startMs = this.clock.now();
    this.connectsAtMs.length = 0;
    this.connected = 0;
  }

  /** Notes what has just happened, or happened at `atMs`. */
  note(event: string, atMs: number = this.now()): void {
    this.events.push({ at_ms: Math.round(atMs * 1000) / 1000, event });
  }

  /** Lets time pass. */
  async pass(ms: number): Promise<void> {
    this.#options.signal.throwIfAborted();
    if (this.clock instanceof VirtualClock) await this.clock.advanceAsync(ms);
    else await delay(ms, { signal: this.#options.signal });
  }

  /**
   * Lets a promise go on beside the steps of a case, which will wait for it
   * unless they fail before.
   */
  beside<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => {});
    return promise;
  }

  /** Takes the steps of long work, between which an interruption is heard. */
  async take<T>(steps: Generator<unknown, T>): Promise<T> {
    for (;;) {
      const step = steps.next();
      if (step.done) return step.value;
      await this.breathe();
    }
  }

  /** Lets others have their turn. */
  async breathe(): Promise<void> {
    await settled();
    this.#options.signal.throwIfAborted();
  }

  /**
   * Calls `begin` and waits for what it promises, but no longer than `ms`: what
   * would wait for ever is found pending.
   */
  async watch<T>(
    begin: () => Promise<T>,
    ms: number = PATIENCE_MS,
  ): Promise<Watched<T>> {
    const startMs = this.now();
    const beginning = async (): Promise<T> => await begin();
    return await within(
      beginning().then(
        (value) =>
          ({ state: "done", value, ms: this.now() - startMs }) as const,
        (error: unknown) =>
          ({ state: "failed", error, ms: this.now() - startMs }) as const,
      ),
      ms,
      { state: "pending", ms } as const,
      this.#options.signal,
    );
  }

  /** Opens a connection as plain as the database offers it. */
  async connect(database: string = this.database): Promise<Opened> {
    this.connectsAtMs.push(this.now());
    const connection = await this.#open(database);
    this.connected++;
    this.#opened.push(connection);
    return connection;
  }

  // deno-lint-ignore require-await -- what throws must reject.
  async #open(database: string = this.database): Promise<Opened> {
    return this.server === undefined
      ? new PlainSqlite(database)
      : PlainServer.open(this.server, this.clock);
  }

  /** Makes an empty table for labels, outside of what is measured. */
  async makeTable(): Promise<void> {
    const connection = await this.#open();
    try {
      await connection.execute(`CREATE TABLE ${this.table} (label TEXT)`);
      this.#hasTable = true;
    } finally {
      await connection.close();
    }
  }

  /** How many labels somebody sees who has nothing to do with the pool. */
  async countLabels(): Promise<number> {
    const connection = await this.#open();
    try {
      return await countIn(connection, this.table);
    } finally {
      await connection.close();
    }
  }

  /** Makes the pool that the run is about. */
  pool(request: PoolRequest): LabPool {
    const { database = this.database } = request;
    const pool = this.#options.makePool(
      {
        database,
        poolSize: request.poolSize,
        acquireTimeoutMs: request.acquireTimeoutMs ?? PATIENCE_MS / 2,
        timeoutMs: request.timeoutMs ?? CONNECT_TIMEOUT_MS,
        maxAttempts: request.maxAttempts ?? 3,
        connect: () => this.connect(database),
      },
      request,
      this,
    );
    this.#pools.push(pool);
    return pool;
  }

  /** The driver of the database, whose connects are counted. */
  driver(database: string, timeoutMs: number): Driver<Connection> {
    const { clock } = this;
    const inner: Driver<Connection> = database !== this.server
      ? new SqliteDriver({ path: database, timeoutMs, clock })
      : new PostgresDriver({ url: database, timeoutMs, clock });
    return {
      isSingleton: inner.isSingleton ?? false,
      isTransient: (error) => inner.isTransient(error),
      isConflict: (error) => inner.isConflict?.(error) ?? false,
      connect: (done, lost) => {
        this.connectsAtMs.push(this.now());
        return inner.connect((error, connection) => {
          if (connection !== undefined) this.connected++;
          done(error, connection);
        }, lost);
      },
    };
  }

  /** Closes every pool and connection of the run, and drops its table. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const pool of this.#pools) {
      // A specimen may well fail to close, or never end.
      const closing = Promise.resolve().then(() => pool.close()).catch(
        () => {},
      );
      if (this.clock instanceof VirtualClock) await this.clock.advanceAsync(0);
      await within(closing, CLOSE_TIMEOUT_MS, undefined);
    }
    for (const connection of this.#opened) await closeQuietly(connection);
    if (this.server === undefined || !this.#hasTable) return;
    const connection = await PlainServer.open(this.server, this.clock);
    try {
      await connection.execute(`DROP TABLE IF EXISTS ${this.table}`);
    } finally {
      await closeQuietly(connection);
    }
  }
}

/** Tries whether a server can be reached, before a case depends on it. */
export async function reach(server: string): Promise<void> {
  try {
    const connection = await PlainServer.open(server, systemClock);
    await connection.close();
  } catch (error) {
    throw new Error(`Cannot reach the server of --db: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** What `promise` gives, or `otherwise` if that takes longer than `ms`. */
async function within<T, U>(
  promise: Promise<T>,
  ms: number,
  otherwise: U,
  signal?: AbortSignal,
): Promise<T | U> {
  const enough = new AbortController();
  const signals = signal ? [enough.signal, signal] : [enough.signal];
  const waiting = delay(ms, { signal: AbortSignal.any(signals) })
    .then(() => otherwise);
  try {
    return await Promise.race([promise, waiting]);
  } finally {
    // Nobody hears of it any more, and a rejection unheard would be an error.
    waiting.catch(() => {});
    enough.abort();
  }
}

/** How many rows `connection` sees in `table`. */
export async function countIn(
  connection: Borrowed,
  table: string,
): Promise<number> {
  const [row] = await connection.query(`SELECT count(*) AS n FROM ${table}`);
  return Number(row?.["n"]);
}

/** Lends a connection to `fn` and takes it back, the pool's way or by hand. */
export async function lend<T>(
  pool: LabPool,
  fn: (connection: Borrowed) => Promise<T>,
): Promise<T> {
  if (pool.use !== undefined) return await pool.use(fn);
  const connection = await pool.acquire();
  try {
    return await fn(connection);
  } finally {
    await pool.release(connection);
  }
}

async function closeQuietly(connection: Opened): Promise<void> {
  try {
    if (!connection.isClosed) await connection.close();
  } catch {
    // It was broken on purpose; what matters is that it is gone.
  }
}

/** SQLite without anything that this project adds to it. */
class PlainSqlite implements Opened {
  readonly #database: Database;

  constructor(path: string) {
    this.#database = new Database(path, { int64: true });
  }

  get inTransaction(): boolean {
    return this.#database.open && this.#database.inTransaction;
  }

  get isClosed(): boolean {
    return !this.#database.open;
  }

  query(sql: string): Promise<Row[]> {
    return this.#run(sql, (statement) => statement.all());
  }

  execute(sql: string): Promise<unknown> {
    return this.#run(sql, (statement) => statement.run());
  }

  async ping(): Promise<void> {
    await this.query("SELECT 1");
  }

  // deno-lint-ignore require-await -- what throws must reject.
  async close(): Promise<void> {
    this.#database.close();
  }

  // deno-lint-ignore require-await -- what throws must reject.
  async #run<T>(
    sql: string,
    step: (statement: ReturnType<Database["prepare"]>) => T,
  ): Promise<T> {
    // Without this the published package may take a closed database for open.
    if (!this.#database.open) throw new Error("The connection is closed");
    const statement = this.#database.prepare(sql);
    try {
      return step(statement);
    } finally {
      statement.finalize();
    }
  }
}

/** A connection to a server, with callbacks turned into promises. */
class PlainServer implements Opened {
  readonly #connection: Connection;
  #isClosed = false;

  private constructor(connection: Connection) {
    this.#connection = connection;
  }

  static open(url: string, clock: Clock): Promise<PlainServer> {
    const driver = new PostgresDriver({
      ...{ url, timeoutMs: CONNECT_TIMEOUT_MS, clock },
    });
    return new Promise((resolve, reject) => {
      driver.connect((error, connection) => {
        if (connection === undefined) reject(error);
        else resolve(new PlainServer(connection));
      }, () => {});
    });
  }

  get inTransaction(): boolean {
    return this.#connection.inTransaction;
  }

  get isClosed(): boolean {
    return this.#isClosed || this.#connection.isBroken;
  }

  query(sql: string): Promise<Row[]> {
    return this.#connection.query(sql);
  }

  execute(sql: string): Promise<unknown> {
    return this.#connection.execute(sql);
  }

  ping(): Promise<void> {
    return promised((done) => this.#connection.ping(done));
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return promised((done) => this.#connection.close(done));
  }
}

function promised(
  call: (done: (error?: unknown) => void) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => error === undefined ? resolve() : reject(error));
  });
}
