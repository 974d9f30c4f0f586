/**
 * The SQLite driver.
 *
 * SQLite's own way to wait for a lock blocks the whole program, also the part
 * of it that holds the lock. So its busy timeout stays at 0, and what finds the
 * database locked is tried again from here, without blocking.
 *
 * @module
 */

import { Database, SqliteError, type Statement } from "@db/sqlite";
import { type Clock, delay, systemClock, type Timer } from "./clock.ts";
import type {
  Connection,
  Done,
  Driver,
  ExecuteResult,
  QueryOptions,
  Row,
  SqlParameter,
  SqlParameters,
} from "./driver.ts";
import { LockTimeoutError, messageOf, ReleaseError } from "./errors.ts";
import { backoffDelayMs, type RetryPolicy } from "./retry.ts";

/** What a `SqliteDriver` is told. */
export interface SqliteOptions {
  /** The file, which is made if it is missing, or `:memory:`. */
  readonly path: string;
  /**
   * How long to wait for a lock, in milliseconds; 0 does not wait. Whoever waits
   * longer gets a `LockTimeoutError`.
   */
  readonly timeoutMs: number;
  /** What the waiting is measured with. Default: real time. */
  readonly clock?: Clock;
  /**
   * Gives numbers from 0 up to, but not including, 1, which vary how soon a lock
   * is tried again. Default: `Math.random`.
   */
  readonly random?: () => number;
}

// A lock is mostly held for about a millisecond, so the first look comes soon;
// 25 ms is as long as anybody should sit beside a lock that is free again.
const LOCK_POLLING: RetryPolicy = {
  maxAttempts: Infinity,
  baseDelayMs: 1,
  factor: 2,
  maxDelayMs: 25,
  jitter: "equal",
};

// More than a program of usual size has statements; what is used least goes.
const MOST_STATEMENTS = 128;

// To look after the file costs several times what a statement does.
const FILE_CHECK_MS = 100;

// What every holder may rely on.
const SETTINGS = "PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 0; " +
  "PRAGMA query_only = OFF";

/**
 * Opens connections to one SQLite database: in WAL mode, with foreign keys
 * enforced.
 */
export class SqliteDriver implements Driver<SqliteConnection> {
  /** The file, or `:memory:`. */
  readonly path: string;
  /** How long a lock is waited for, in milliseconds. */
  readonly timeoutMs: number;
  /** What the waiting is measured with. */
  readonly clock: Clock;
  /** What varies how soon a lock is tried again. */
  readonly random: () => number;
  /** Whether it is `:memory:`, where each connection is a database of its own. */
  readonly isSingleton: boolean;
  /** The writers of this pool, who wait for one another. */
  readonly writers: WriterQueue;
  /** Which file was found at the path when last looked for; "" if none. */
  fileIdentity = "";
  #fileCheckedMs = -Infinity;

  /** Opens nothing yet. */
  constructor(options: SqliteOptions) {
    this.path = options.path;
    this.timeoutMs = options.timeoutMs;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? Math.random;
    this.isSingleton = options.path === ":memory:";
    this.writers = new WriterQueue(this);
  }

  /**
   * Opens the file, and waits without blocking while it is locked. Giving up on
   * that calls `done` with a `LockTimeoutError`.
   */
  connect(
    done: (error: unknown, connection?: SqliteConnection) => void,
  ): (() => void) | void {
    let database: Database;
    try {
      database = new Database(this.path, { int64: true, parseJson: false });
    } catch (error) {
      return done(this.explain(error));
    }
    const fail = (error: unknown): void => {
      database.close();
      done(error);
    };
    try {
      this.checkFile({ isUrgent: true });
    } catch (error) {
      return fail(error);
    }
    let timer: Timer | undefined;
    let attempt = 0;
    const setUp = (): void => {
      try {
        setUpDatabase(database, this.isSingleton);
        done(undefined, new SqliteConnection(this, database));
      } catch (error) {
        if (!isBusy(error)) return fail(this.explain(error));
        timer = this.clock.setTimer(setUp, this.pollDelayMs(++attempt));
      }
    };
    setUp();
    return () => {
      timer?.clear();
      fail(new LockTimeoutError(this.path, this.timeoutMs));
    };
  }

  /**
   * A file that cannot be opened may be there a moment later: on a volume that
   * is being mounted, under a folder that is being made. Anything else stays as
   * it is.
   */
  isTransient(error: unknown): boolean {
    return /unable to open database file|disk I\/O error/.test(
      messageOf(error),
    );
  }

  /**
   * Looks which file is at the path, unless it was looked at a moment ago. SQLite
   * does not: it goes on writing to a file that was deleted or replaced, and
   * what it writes is lost without a word.
   *
   * @throws what `Deno.statSync` does, unless there is no file at all.
   */
  checkFile({ isUrgent = false } = {}): void {
    if (this.isSingleton) return;
    const nowMs = this.clock.now();
    if (!isUrgent && nowMs - this.#fileCheckedMs < FILE_CHECK_MS) return;
    this.#fileCheckedMs = nowMs;
    try {
      const { dev, ino } = Deno.statSync(this.path);
      this.fileIdentity = `${dev}:${ino}`;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      this.fileIdentity = "";
    }
  }

  /** Whether somebody else kept the database locked, and nothing was written. */
  isConflict(error: unknown): boolean {
    return error instanceof LockTimeoutError;
  }

  /** How long to leave a locked database alone, in milliseconds. */
  pollDelayMs(attempt: number): number {
    return backoffDelayMs(LOCK_POLLING, attempt, this.random);
  }

  /** The same error with the file in its message, where that is what matters. */
  explain(error: unknown): unknown {
    if (isStale(error)) {
      return new Error(
        "Cannot write as others have written since this transaction first read; " +
          BEGIN_ADVICE,
        { cause: error },
      );
    }
    const text = messageOf(error).replace(/^\d+: /, "");
    const isOfTheFile =
      /unable to open|not a database|malformed|readonly database|disk is full|disk I\/O/
        .test(text);
    if (!isOfTheFile) return error;
    const isNamed = text.endsWith(`: ${this.path}`);
    return new Error(isNamed ? text : `${text}: ${this.path}`, {
      cause: error,
    });
  }
}

function setUpDatabase(database: Database, isMemory: boolean): void {
  // Checks the file's header too, which opening does not.
  const mode = database.prepare("PRAGMA journal_mode").value<[string]>()?.[0];
  database.exec(SETTINGS);
  if (isMemory || mode === "wal") return;
  try {
    // Readers and a writer go on beside each other only in this mode.
    database.exec("PRAGMA journal_mode = WAL");
  } catch (error) {
    // What can only be read can be read in any mode.
    if (!/readonly/.test(messageOf(error))) throw error;
  }
}

function isBusy(error: unknown): boolean {
  return !isStale(error) &&
    (error instanceof SqliteError && error.code === 5 ||
      /^(5: )?database is locked$/.test(messageOf(error)));
}

/**
 * Whether a transaction would write on top of what it has not read, which no
 * waiting can cure (SQLITE_BUSY_SNAPSHOT). `node:sqlite` tells; of the published
 * package it looks like any lock.
 */
function isStale(error: unknown): boolean {
  return (error as { errcode?: unknown } | undefined)?.errcode === 517;
}

const BEGIN_ADVICE = "begin it with transaction(), or with BEGIN IMMEDIATE";

/** Somebody in the queue of writers. */
interface WriterTurn {
  readonly connection: SqliteConnection;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
  readonly timer: Timer;
}

/**
 * SQLite has one writer at a time. The writers of one pool take turns in the
 * order they came, instead of finding the database locked by one another.
 */
class WriterQueue {
  readonly #driver: SqliteDriver;
  readonly #turns: WriterTurn[] = [];
  #owner: SqliteConnection | undefined;

  constructor(driver: SqliteDriver) {
    this.#driver = driver;
  }

  /** Waits for the turn of `connection`, at most `timeoutMs` milliseconds. */
  enter(
    connection: SqliteConnection,
    timeoutMs: number,
  ): Promise<void> | void {
    if (this.#owner === undefined) {
      this.#owner = connection;
      return;
    }
    return new Promise((resolve, reject) => {
      const { path, clock } = this.#driver;
      const timer = clock.setTimer(() => {
        this.leave(connection, new LockTimeoutError(path, timeoutMs));
      }, timeoutMs);
      this.#turns.push({ connection, resolve, reject, timer });
    });
  }

  /** Whether it is the turn of `connection`. */
  isOwner(connection: SqliteConnection): boolean {
    return this.#owner === connection;
  }

  /** Ends the turn of `connection`, or its waiting for one, with `reason`. */
  leave(connection: SqliteConnection, reason?: unknown): void {
    const index = this.#turns.findIndex((turn) =>
      turn.connection === connection
    );
    if (index >= 0) {
      const [turn] = this.#turns.splice(index, 1);
      turn?.timer.clear();
      turn?.reject(reason ?? new ReleaseError("The connection was released"));
    }
    if (this.#owner !== connection) return;
    const next = this.#turns.shift();
    this.#owner = next?.connection;
    next?.timer.clear();
    next?.resolve();
  }
}

interface KeptStatement {
  readonly statement: Statement;
  readonly countsChanges: boolean;
  readonly marksSession: boolean;
  /** The names of parameters that were last found to be the right ones. */
  names: readonly string[] | undefined;
}

const NOT_CODE =
  /'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)/g;
const CHANGES_ROWS = /^\s*(?:insert|update|delete|replace|with)\b/i;
// What outlasts the transaction, and is this connection's own: settings, but
// not what PRAGMA merely asks or writes to the file; attached files; temporary
// tables and the like.
const MARKS_SESSION = new RegExp(
  "(?:^|;)\\s*(?:attach\\b|detach\\b|" +
    "create\\s+(?:temp(?:orary)?\\s|[^;(]*\\btemp\\s*\\.)|" +
    'pragma\\s+(?:[\\w"]+\\s*\\.\\s*)?' +
    "(?!(?:table_\\w+|index_\\w+|foreign_key_\\w+|integrity_check|quick_check|" +
    "wal_checkpoint|optimize|incremental_vacuum|user_version|application_id)\\b)" +
    '[\\w"]+\\s*[=(])',
  "i",
);

/** A text without its comments and without what stands in quotes. */
function codeOf(sql: string): string {
  return sql.replace(NOT_CODE, (part) => /^[-/]/.test(part) ? " " : '""');
}

/** Whether anything but comments follows the end of the first statement. */
function hasSeveralStatements(code: string): boolean {
  return /;\s*[^\s;]/.test(code);
}

/**
 * A connection to a SQLite database.
 *
 * Whoever changes its settings with PRAGMA, attaches a file or makes a temporary
 * table has it to the end of the loan; then it is closed, and the next holder
 * gets another. The one connection to `:memory:` cannot be closed: what the
 * driver itself sets is set again, and the rest stays. What is done through
 * `raw` goes unnoticed.
 */
export class SqliteConnection implements Connection {
  readonly dialect = "sqlite";
  readonly raw: Database;
  readonly #driver: SqliteDriver;
  readonly #statements = new Map<string, KeptStatement>();
  readonly #ping: Statement;
  readonly #fileIdentity: string;
  #lastSql: string | undefined;
  #lastKept: KeptStatement | undefined;
  /** What `begin` has opened and nobody has closed: savepoints, or "". */
  #marks: string[] = [];
  /** Whether its holder has left something on it that a rollback leaves there. */
  #isMarked = false;
  /** Grows with each reset: what waits for a lock must not outlive its loan. */
  #loan = 0;

  /** Made by `SqliteDriver.connect`. */
  constructor(driver: SqliteDriver, database: Database) {
    this.#driver = driver;
    this.raw = database;
    this.#ping = database.prepare("SELECT 1");
    this.#fileIdentity = driver.fileIdentity;
  }

  get isBroken(): boolean {
    return !this.raw.open || this.#fileIdentity !== this.#driver.fileIdentity;
  }

  get inTransaction(): boolean {
    return this.raw.inTransaction;
  }

  query(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<Row[]> {
    return this.#patiently(() =>
      this.#with(sql, (kept) => {
        if (kept.countsChanges) this.#checkFile({ isUrgent: false });
        return kept.statement.all(bound(kept, parameters));
      }), options);
  }

  execute(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<ExecuteResult> {
    // Only `exec` runs all of several statements; a prepared one would leave
    // out all but the first, and say nothing.
    const script = parameters === undefined && sql.includes(";")
      ? codeOf(sql)
      : "";
    const isScript = hasSeveralStatements(script);
    return this.#patiently(() => {
      this.#checkFile({ isUrgent: false });
      if (isScript) {
        this.#isMarked ||= MARKS_SESSION.test(script);
        const before = this.raw.totalChanges;
        this.raw.exec(sql);
        return { changes: this.raw.totalChanges - before };
      }
      return this.#with(sql, (kept) => {
        const changes = kept.statement.run(bound(kept, parameters));
        return { changes: kept.countsChanges ? changes : 0 };
      });
    }, options);
  }

  async *iterate(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): AsyncIterableIterator<Row> {
    // Not a kept statement: running that again would start this one anew.
    if (!this.raw.open) throw new Error("The connection is closed");
    const kept = this.#compile(sql);
    const loan = this.#loan;
    let rows: IterableIterator<Row> | undefined;
    try {
      let row = await this.#patiently(() => {
        this.#checkFile({ isUrgent: false });
        this.#isMarked ||= kept.marksSession;
        rows = kept.statement.iter(bound(kept, parameters));
        return rows.next();
      }, options);
      while (!row.done) {
        yield row.value;
        this.#checkLoan(loan);
        options?.signal?.throwIfAborted();
        row = (rows as IterableIterator<Row>).next();
      }
    } finally {
      // A statement left half way would hold its snapshot of the database.
      rows?.return?.();
      if (this.raw.open) finalize(kept.statement);
    }
  }

  async begin(): Promise<void> {
    if (this.raw.inTransaction) {
      const name = `level_${this.#marks.length}`;
      await this.execute(`SAVEPOINT ${name}`);
      this.#marks.push(name);
      return;
    }
    // BEGIN alone would take the lock only at the first write, where it fails
    // at once if somebody else has written meanwhile.
    await this.#patiently(
      () => {
        this.#checkFile({ isUrgent: true });
        this.#run("BEGIN IMMEDIATE");
      },
      undefined,
      { isWriter: true },
    );
    this.#marks = [""];
  }

  async commit(): Promise<void> {
    const name = this.#marks.at(-1);
    await this.execute(name ? `RELEASE ${name}` : "COMMIT");
    this.#marks.pop();
    if (!this.raw.inTransaction) this.#driver.writers.leave(this);
  }

  async rollback(): Promise<void> {
    const name = this.#marks.pop();
    // Some errors, such as a full disk, have rolled everything back already.
    if (this.raw.inTransaction) {
      await this.execute(
        name ? `ROLLBACK TO ${name}; RELEASE ${name}` : "ROLLBACK",
      );
    }
    if (!this.raw.inTransaction) this.#driver.writers.leave(this);
  }

  ping(done: Done): void {
    try {
      this.#checkFile({ isUrgent: false });
      this.#ping.value();
    } catch (error) {
      return done(this.#explain(error));
    }
    done();
  }

  reset(done: Done): void {
    this.#loan++;
    this.#marks.length = 0;
    if (this.raw.inTransaction) {
      try {
        this.#run("ROLLBACK");
      } catch (error) {
        return done(error);
      }
    }
    this.#driver.writers.leave(this);
    if (this.#isMarked && !this.#driver.isSingleton) {
      return done(
        new Error(
          "The connection has settings, attached files or temporary tables of " +
            "its last holder",
        ),
      );
    }
    try {
      if (this.#isMarked) this.raw.exec(SETTINGS);
    } catch (error) {
      return done(error);
    }
    this.#isMarked = false;
    done();
  }

  close(done: Done): void {
    this.#loan++;
    this.#driver.writers.leave(this);
    this.#statements.clear();
    this.#lastSql = this.#lastKept = undefined;
    try {
      this.raw.close();
    } catch (error) {
      return done(error);
    }
    done();
  }

  #run(sql: string): void {
    this.#with(sql, ({ statement }) => statement.run());
  }

  /** Lends a kept statement to `use`; one that fails is not kept. */
  #with<T>(sql: string, use: (kept: KeptStatement) => T): T {
    const kept = this.#prepare(sql);
    if (kept.marksSession) this.#isMarked = true;
    try {
      return use(kept);
    } catch (error) {
      // The published package leaves it in the middle of its step, where it
      // would keep what the connection writes next from being committed.
      this.#statements.delete(sql);
      this.#lastSql = this.#lastKept = undefined;
      finalize(kept.statement);
      throw error;
    }
  }

  #prepare(sql: string): KeptStatement {
    if (sql === this.#lastSql && this.#lastKept) return this.#lastKept;
    let kept = this.#statements.get(sql);
    if (kept !== undefined) {
      // To the end of the line of those to be dropped.
      this.#statements.delete(sql);
    } else {
      kept = this.#compile(sql);
      if (this.#statements.size >= MOST_STATEMENTS) {
        const [oldest, { statement }] = this.#statements.entries().next()
          .value as [string, KeptStatement];
        this.#statements.delete(oldest);
        finalize(statement);
      }
    }
    this.#statements.set(sql, kept);
    this.#lastSql = sql;
    this.#lastKept = kept;
    return kept;
  }

  #compile(sql: string): KeptStatement {
    const code = codeOf(sql);
    if (hasSeveralStatements(code)) {
      throw new SyntaxError(
        "Cannot run several statements here, as all but the first would be left " +
          "out; give them to execute() without parameters, or one by one",
      );
    }
    if (/^[\s;]*$/.test(code)) {
      throw new SyntaxError(
        "Cannot run a text without a statement: it has nothing but blanks and " +
          "comments",
      );
    }
    return {
      statement: this.raw.prepare(sql),
      // The others leave SQLite's count of the last change as it was.
      countsChanges: CHANGES_ROWS.test(code),
      marksSession: MARKS_SESSION.test(code),
      names: undefined,
    };
  }

  /** The same error, in words that say what is the matter. */
  #explain(error: unknown): unknown {
    return this.raw.open
      ? this.#driver.explain(error)
      : new Error("The connection is closed", { cause: error });
  }

  #checkFile(options: { isUrgent: boolean }): void {
    this.#driver.checkFile(options);
    if (this.#fileIdentity === this.#driver.fileIdentity) return;
    throw new Error(
      `The database file was deleted or replaced while it was open: ${this.#driver.path}`,
    );
  }

  #checkLoan(loan: number): void {
    if (this.#loan === loan) return;
    throw new ReleaseError(
      "The connection was released while a statement was at work",
    );
  }

  /** Runs `operation`, and waits for its turn where the database is locked. */
  #patiently<T>(
    operation: () => T,
    options?: QueryOptions,
    { isWriter = false } = {},
  ): Promise<T> {
    if (isWriter) return this.#inTurn(operation, options, true);
    const signal = options?.signal;
    if (signal?.aborted) return Promise.reject(signal.reason);
    try {
      return Promise.resolve(operation());
    } catch (error) {
      if (isBusy(error)) return this.#inTurn(operation, options, false);
      return Promise.reject(this.#explain(error));
    }
  }

  async #inTurn<T>(
    operation: () => T,
    options: QueryOptions | undefined,
    keepsTurn: boolean,
  ): Promise<T> {
    const { writers, clock, path } = this.#driver;
    const { signal, timeoutMs = this.#driver.timeoutMs } = options ?? {};
    const deadlineMs = clock.now() + timeoutMs;
    const loan = this.#loan;
    const hadTurn = writers.isOwner(this);
    if (!hadTurn) {
      const turn = writers.enter(this, timeoutMs);
      if (turn !== undefined) await this.#turnOrAbort(turn, signal);
    }
    let isKept = hadTurn;
    try {
      for (let attempt = 1;; attempt++) {
        try {
          const result = operation();
          isKept ||= keepsTurn;
          return result;
        } catch (error) {
          if (!isBusy(error)) throw this.#explain(error);
          const leftMs = deadlineMs - clock.now();
          if (leftMs <= 0) {
            // One begun by hand may have read what others have changed since.
            const advice = this.raw.inTransaction && !hadTurn
              ? BEGIN_ADVICE
              : undefined;
            throw new LockTimeoutError(path, timeoutMs, {
              cause: error,
              ...(advice && { advice }),
            });
          }
          const delayMs = Math.min(leftMs, this.#driver.pollDelayMs(attempt));
          await delay(delayMs, { clock, ...(signal && { signal }) });
          this.#checkLoan(loan);
        }
      }
    } finally {
      // After a reset the turn may be that of the next holder's transaction.
      if (!isKept && this.#loan === loan) writers.leave(this);
    }
  }

  /** Waits for the turn to write, or until the signal takes the request back. */
  async #turnOrAbort(
    turn: Promise<void>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const abort = (): void => this.#driver.writers.leave(this, signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      await turn;
      // The turn may have come first; then it was passed on.
      signal?.throwIfAborted();
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }
}

// SQLite reports the error of a statement's last step once more when it is
// finalized; by then it has been told.
function finalize(statement: Statement): void {
  try {
    statement.finalize();
  } catch {
    // It is freed all the same.
  }
}

type Value = Exclude<SqlParameter, readonly SqlParameter[]>;
type Bindings = Value[] | Record<string, Value>;

/** The parameters as the packages take them, which bend others without a word. */
function bound(
  kept: KeptStatement,
  parameters: SqlParameters = [],
): Bindings {
  let isBent = false;
  if (Array.isArray(parameters)) {
    const count = kept.statement.bindParameterCount;
    if (parameters.length !== count) {
      throw new RangeError(
        `Cannot run the statement as 'parameters' must have length ${count}: ` +
          `current length is ${parameters.length}`,
      );
    }
    for (let i = 0; i < count; i++) {
      if (check(parameters[i], i + 1)) isBent = true;
    }
    return isBent ? parameters.map(straight) : parameters;
  }
  if (typeof parameters !== "object" || parameters === null) {
    throw new TypeError(
      "Cannot run the statement as 'parameters' must be an array or an object: " +
        `current value is ${parameters}`,
    );
  }
  const named = parameters as Record<string, Value>;
  const names = Object.keys(named);
  // To ask the package for each name costs as much as the statement itself.
  if (!isSame(names, kept.names)) {
    checkNames(kept.statement, names);
    kept.names = names;
  }
  for (const name of names) if (check(named[name], name)) isBent = true;
  if (!isBent) return named;
  return Object.fromEntries(
    names.map((name) => [name, straight(named[name] as Value)]),
  );
}

function straight(value: Value): Value {
  return value === 0 ? 0 : value;
}

function isSame(
  a: readonly string[],
  b: readonly string[] | undefined,
): boolean {
  if (a.length !== b?.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Refuses names unless each parameter of the statement has just one of them. */
function checkNames(statement: Statement, names: readonly string[]): void {
  const missing = new Set<number>();
  for (let i = 1; i <= statement.bindParameterCount; i++) missing.add(i);
  for (const name of names) {
    const index = statement.bindParameterIndex(name);
    if (missing.delete(index)) continue;
    refuse(name, index === 0 ? "the statement has none" : "it is given twice");
  }
  for (const index of missing) {
    refuse(nameOf(statement, index), "it is missing; use null for NULL");
  }
}

function nameOf(statement: Statement, index: number): string | number {
  try {
    return statement.bindParameterName(index);
  } catch {
    return index; // A `?` has no name.
  }
}

/** Whether `value` is -0, which must be given as 0. */
function check(value: unknown, at: number | string): boolean {
  switch (typeof value) {
    case "string":
      if (value.includes("\0")) {
        refuse(
          at,
          "it holds a NUL character, at which SQLite ends a text; use a Uint8Array",
        );
      }
      if (!value.isWellFormed()) {
        refuse(
          at,
          "it holds half of a surrogate pair, which is no character; use a Uint8Array",
        );
      }
      return false;
    case "number":
      if (Number.isSafeInteger(value)) return Object.is(value, -0);
      if (Number.isInteger(value)) {
        refuse(
          at,
          `${value} is beyond the exact integers of a number; use a bigint`,
        );
      }
      if (Number.isNaN(value)) {
        refuse(at, "it is NaN, which SQLite keeps as NULL; use null");
      }
      return false;
    case "bigint":
      if (BigInt.asIntN(64, value) !== value) {
        refuse(at, `${value} needs more than 64 bits`);
      }
      return false;
    case "boolean":
      return false;
    case "undefined":
      return refuse(at, "it is undefined; use null for NULL");
    case "object":
      if (value === null || value instanceof Uint8Array) return false;
      if (value instanceof Date) {
        if (Number.isNaN(value.getTime())) {
          refuse(at, "it is an invalid date; use null for NULL");
        }
        return false;
      }
  }
  const kind = Object.prototype.toString.call(value).slice(8, -1);
  throw new TypeError(
    `Cannot bind parameter ${quoted(at)} as it is of the kind ${kind}; use a ` +
      "Uint8Array for bytes and JSON.stringify() for the rest",
  );
}

function refuse(at: number | string, why: string): never {
  throw new RangeError(`Cannot bind parameter ${quoted(at)} as ${why}`);
}

function quoted(at: number | string): string {
  return typeof at === "string" ? `'${at}'` : `${at}`;
}
