/**
 * The seam between the pool and a database: what every database must offer.
 *
 * The first half, `Driver` and `Resource`, is all that the pool itself needs;
 * it works with callbacks, so that a driver which answers at once costs no turn
 * of the event loop, and a simulation needs no promise at all. The second half,
 * `Connection`, is what the holders of a connection use.
 *
 * @module
 */

/**
 * What a driver calls when it is done: with an error, or with nothing. It must
 * be called exactly once, at once or later: a connection whose `Done` is never
 * called keeps its place in the pool for ever.
 */
export type Done = (error?: unknown) => void;

/** A connection as the pool sees it. */
export interface Resource {
  /** Whether it is known to be unusable: closed by hand, or by the server. */
  readonly isBroken: boolean;
  /** Asks the database for a sign of life. */
  ping(done: Done): void;
  /**
   * Makes it as good as new for the next holder: an open transaction is rolled
   * back, and what the last holder still has under way is given up.
   */
  reset(done: Done): void;
  /** Closes it; harmless when it is closed already. */
  close(done: Done): void;
}

/** A way to open connections to one database. */
export interface Driver<C extends Resource = Resource> {
  /**
   * Opens a connection and calls `done` exactly once, at once or later.
   *
   * @param lost may be called when a connection that is open is found to be gone
   * while nobody asks it anything; `isBroken` must tell so by then.
   * @returns nothing, or a function that gives up; `done` may still be called.
   */
  connect(
    done: (error: unknown, connection?: C) => void,
    lost: (error: unknown) => void,
  ): (() => void) | void;
  /** Whether an error of `connect` might not come again. */
  isTransient(error: unknown): boolean;
  /**
   * Whether an error of a transaction says that the database committed nothing
   * since others were in the way, so that it may well succeed if run again.
   */
  isConflict?(error: unknown): boolean;
  /**
   * Whether all users must share one connection that is never given up, as
   * with SQLite's `:memory:`, where each connection is a database of its own.
   */
  readonly isSingleton?: boolean;
}

/** A value that can be given to a statement as a parameter. */
export type SqlParameter =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | Date
  // An array of PostgreSQL; SQLite has none.
  | readonly SqlParameter[];

/** The parameters of a statement: by position, or by name. */
export type SqlParameters =
  | readonly SqlParameter[]
  | Readonly<Record<string, SqlParameter>>;

/** A row: its columns by name. */
export type Row = Record<string, unknown>;

/** What one statement may ask for. */
export interface QueryOptions {
  /** Gives the statement up; its promise is rejected with the reason. */
  readonly signal?: AbortSignal;
  /**
   * How long the statement may take, in milliseconds. Default: as long as it
   * takes, but for a lock no longer than the pool's `timeoutMs` with SQLite.
   */
  readonly timeoutMs?: number;
}

/** What a statement that gives no rows did. */
export interface ExecuteResult {
  /** How many rows it inserted, updated or deleted. */
  readonly changes: number;
}

/** A kind of SQL. */
export type Dialect = "sqlite" | "postgres";

/** A connection as its holder sees it. */
export interface Connection extends Resource {
  /** The driver's own object, for what this interface does not offer. */
  readonly raw: unknown;
  /** The SQL that it speaks. */
  readonly dialect: Dialect;
  /** Whether a transaction is open. */
  readonly inTransaction: boolean;
  /** Runs a statement and gives all its rows. */
  query(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<Row[]>;
  /** Runs a statement for its effect. */
  execute(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<ExecuteResult>;
  /** Runs a statement and gives its rows one by one. */
  iterate(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): AsyncIterableIterator<Row>;
  /** Opens a transaction that may write, or a savepoint inside one. */
  begin(): Promise<void>;
  /** Makes what happened since the last `begin` permanent. */
  commit(): Promise<void>;
  /** Undoes what happened since the last `begin`. */
  rollback(): Promise<void>;
}
