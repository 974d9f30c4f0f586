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
  Row,
  SqlParameter,
  SqlParameters,
} from "./driver.ts";
import { LockTimeoutError, messageOf, ReleaseError } from "./errors.ts";
import { backoffDelayMs, type RetryPolicy } from "./retry.ts";

/** What a `SqliteDriver` is told. */
export interface SqliteOptions {
  /** The file, or `:memory:`. */
  readonly path: string;
  /** How long to wait for a lock, in milliseconds. */
  readonly timeoutMs: number;
  /** Default: real time. */
  readonly clock?: Clock;
  /** Default: `Math.random`. */
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

/** Opens connections to one SQLite database. */
export class SqliteDriver implements Driver<SqliteConnection> {
  readonly path: string;
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly random: () => number;
  readonly isSingleton: boolean;
  /** The writers of this pool, who wait for one another. */
  readonly writers: WriterQueue;
  /** Which file was found at the path when last looked for; "" if none. */
  fileIdentity = "";
  #fileCheckedMs = -Infinity;

  constructor(options: SqliteOptions) {
    this.path = options.path;
    this.timeoutMs = options.timeoutMs;
    this.clock = options.clock ?? systemClock;
    this.random = options.random ?? Math.random;
    this.isSingleton = options.path === ":memory:";
    this.writers = new WriterQueue(this);
  }

  connect(
    done: (error: unknown, connection?: SqliteConnection) => void,
  ): (() => void) | void {
    let database: Database;
    try {
      database = new Database(this.path, { int64: true, parseJson: false });
    } catch (error) {
      return done(this.explain(error));
    }
    this.checkFile({ isUrgent: true });
    const fail = (error: unknown): void => {
      database.close();
      done(error);
    };
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

  isConflict(error: unknown): boolean {
    return error instanceof LockTimeoutError;
  }

  /** How long to leave a locked database alone, in milliseconds. */
  pollDelayMs(attempt: number): number {
    return backoffDelayMs(LOCK_POLLING, attempt, this.random);
  }

  /** The same error with the file in its message, where that is what matters. */
  explain(error: unknown): unknown {
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
  database.exec("PRAGMA foreign_keys = ON");
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
  return error instanceof SqliteError && error.code === 5 ||
    /^(5: )?database is locked$/.test(messageOf(error));
}

/** Somebody in the queue of writers. */
interface WriterTurn {
  readonly connection: SqliteConnection;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
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

  /** Waits for the turn of `connection`, until `deadlineMs` of the clock. */
  enter(
    connection: SqliteConnection,
    deadlineMs: number,
  ): Promise<void> | void {
    if (this.#owner === undefined) {
      this.#owner = connection;
      return;
    }
    return new Promise((resolve, reject) => {
      const { path, timeoutMs, clock } = this.#driver;
      const timer = clock.setTimer(() => {
        this.leave(connection, new LockTimeoutError(path, timeoutMs));
      }, deadlineMs - clock.now());
      this.#turns.push({ connection, resolve, reject, timer });
    });
  }

  /** Whether it is the turn of `connection`. */
  isOwner(connection: SqliteConnection): boolean {
    return this.#owner === connection;
  }

  /** Ends the turn of `connection`, or its waiting for one, with `reason`. */
  leave(connection: SqliteConnection, reason?: Error): void {
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
}

const COMMENT = /--[^\n]*|\/\*[\s\S]*?\*\//.source;
const QUOTED = /'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]/.source;
const CHANGES_ROWS = new RegExp(
  `^(?:\\s|${COMMENT})*(?:insert|update|delete|replace|with)\\b`,
  "i",
);
const NOT_CODE = new RegExp(`${QUOTED}|${COMMENT}`, "g");

/** Whether anything but comments follows the end of the first statement. */
function hasSeveralStatements(sql: string): boolean {
  return sql.includes(";") && /;\s*[^\s;]/.test(sql.replace(NOT_CODE, " "));
}

/** A connection to a SQLite database. */
export class SqliteConnection implements Connection {
  readonly raw: Database;
  readonly #driver: SqliteDriver;
  readonly #statements = new Map<string, KeptStatement>();
  readonly #ping: Statement;
  readonly #fileIdentity: string;
  #lastSql: string | undefined;
  #lastKept: KeptStatement | undefined;
  /** What `begin` has opened and nobody has closed: savepoints, or "". */
  #marks: string[] = [];
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

  query(sql: string, parameters?: SqlParameters): Promise<Row[]> {
    return this.#patiently(() =>
      this.#with(
        sql,
        ({ statement }) =>
          parameters === undefined
            ? statement.all()
            : statement.all(checked(parameters)),
      )
    );
  }

  execute(sql: string, parameters?: SqlParameters): Promise<ExecuteResult> {
    // Only `exec` runs all of several statements; a prepared one would leave
    // out all but the first, and say nothing.
    const isScript = parameters === undefined && hasSeveralStatements(sql);
    return this.#patiently(() => {
      this.#checkFile({ isUrgent: false });
      if (isScript) {
        const before = this.raw.totalChanges;
        this.raw.exec(sql);
        return { changes: this.raw.totalChanges - before };
      }
      return this.#with(sql, ({ statement, countsChanges }) => {
        const changes = parameters === undefined
          ? statement.run()
          : statement.run(checked(parameters));
        return { changes: countsChanges ? changes : 0 };
      });
    });
  }

  async *iterate(
    sql: string,
    parameters: SqlParameters = [],
  ): AsyncIterableIterator<Row> {
    // Not a kept statement: running that again would start this one anew.
    if (!this.raw.open) throw new Error("The connection is closed");
    const statement = this.raw.prepare(sql);
    const loan = this.#loan;
    let rows: IterableIterator<Row> | undefined;
    try {
      let row = await this.#patiently(() => {
        rows = statement.iter(checked(parameters));
        return rows.next();
      });
      while (!row.done) {
        yield row.value;
        this.#checkLoan(loan);
        row = (rows as IterableIterator<Row>).next();
      }
    } finally {
      // A statement left half way would hold its snapshot of the database.
      rows?.return?.();
      if (this.raw.open) finalize(statement);
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
    await this.#patiently(() => {
      this.#checkFile({ isUrgent: true });
      this.#run("BEGIN IMMEDIATE");
    }, { isWriter: true });
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
      if (hasSeveralStatements(sql)) {
        throw new SyntaxError(
          "Cannot run several statements here, as all but the first would be left " +
            "out; give them to execute() without parameters, or one by one",
        );
      }
      kept = {
        statement: this.raw.prepare(sql),
        // The others leave SQLite's count of the last change as it was.
        countsChanges: CHANGES_ROWS.test(sql),
      };
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
    { isWriter = false } = {},
  ): Promise<T> {
    if (isWriter) return this.#inTurn(operation, true);
    try {
      return Promise.resolve(operation());
    } catch (error) {
      if (isBusy(error)) return this.#inTurn(operation, false);
      return Promise.reject(this.#explain(error));
    }
  }

  async #inTurn<T>(operation: () => T, keepsTurn: boolean): Promise<T> {
    const { writers, clock, path, timeoutMs } = this.#driver;
    const deadlineMs = clock.now() + timeoutMs;
    const loan = this.#loan;
    const hadTurn = writers.isOwner(this);
    if (!hadTurn) {
      const turn = writers.enter(this, deadlineMs);
      if (turn !== undefined) await turn;
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
            throw new LockTimeoutError(path, timeoutMs, { cause: error });
          }
          const delayMs = Math.min(leftMs, this.#driver.pollDelayMs(attempt));
          await delay(delayMs, { clock });
          this.#checkLoan(loan);
        }
      }
    } finally {
      // After a reset the turn may be that of the next holder's transaction.
      if (!isKept && this.#loan === loan) writers.leave(this);
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

type Bindings = SqlParameter[] | Record<string, SqlParameter>;

// The packages below take these values and bend them without a word.
function checked(parameters: SqlParameters): Bindings {
  let isBent = false;
  if (Array.isArray(parameters)) {
    for (let i = 0; i < parameters.length; i++) {
      if (check(parameters[i], i + 1)) isBent = true;
    }
  } else {
    for (const [name, value] of Object.entries(parameters)) {
      if (check(value, `'${name}'`)) isBent = true;
    }
  }
  if (!isBent) return parameters as Bindings;
  const straight = (value: SqlParameter): SqlParameter =>
    value === 0 ? 0 : value;
  return Array.isArray(parameters)
    ? parameters.map(straight)
    : Object.fromEntries(
      Object.entries(parameters).map((
        [name, value],
      ) => [name, straight(value)]),
    );
}

/** Whether `value` is -0, which must be given as 0. */
function check(value: unknown, at: number | string): boolean {
  const refuse = (why: string): never => {
    throw new RangeError(`Cannot bind parameter ${at} as ${why}`);
  };
  switch (typeof value) {
    case "string":
      if (value.includes("\0")) {
        refuse(
          "it holds a NUL character, at which SQLite ends a text; use a Uint8Array",
        );
      }
      return false;
    case "number":
      if (Number.isInteger(value) && !Number.isSafeInteger(value)) {
        refuse(
          `${value} is beyond the exact integers of a number; use a bigint`,
        );
      }
      return Object.is(value, -0);
    case "bigint":
      if (BigInt.asIntN(64, value) !== value) {
        refuse(`${value} needs more than 64 bits`);
      }
      return false;
    case "undefined":
      return refuse("it is undefined; use null for NULL");
    default:
      return false;
  }
}
