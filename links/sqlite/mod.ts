/**
 * Stands in for `@db/sqlite` on machines that cannot reach the registry: the
 * same signatures, for the part of the package this project uses, on top of
 * Deno's built-in `node:sqlite`.
 *
 * Known differences from the published package:
 *
 * - `parseJson` is accepted and ignored: JSON columns are always read as text.
 * - Without `int64`, an integer that a `number` cannot hold throws a
 *   `RangeError` on reading, where the published package truncates to 32 bits.
 * - Column names are read again when their number changes, not at every call.
 * - Values by position are refused by a statement whose parameters have names.
 * - Using a finalized statement or a closed database throws, always.
 * - A statement that fails, or whose iteration is abandoned, is reset at once.
 *
 * @module
 */

import { DatabaseSync, type StatementSync } from "node:sqlite";
import { fileURLToPath } from "node:url";

/** A value that can be bound to one parameter of a statement. */
export type BindValue =
  | number
  | string
  | symbol
  | bigint
  | boolean
  | null
  | undefined
  | Date
  | Uint8Array
  | BindValue[]
  | { [key: string]: BindValue };

/** All the parameters of a statement: by position, or by name. */
export type BindParameters = BindValue[] | Record<string, BindValue>;

/** The arguments of a call that binds: the values, or one {@linkcode BindParameters}. */
export type RestBindParameters = BindValue[] | [BindParameters];

/** How to open a {@linkcode Database}. */
export interface DatabaseOpenOptions {
  /** Refuse writes, and refuse a file that does not exist. Default `false`. */
  readonly?: boolean;
  /** Create the file when it does not exist. Default `true`. */
  create?: boolean;
  /** Open a private database in memory, whatever the path. Default `false`. */
  memory?: boolean;
  /** Read an integer that a `number` cannot hold as a `bigint`. Default `false`. */
  int64?: boolean;
  /** Accepted for compatibility; JSON columns are always read as text. */
  parseJson?: boolean;
  /** Accepted for compatibility; column names are always cached. */
  unsafeConcurrency?: boolean;
}

/** The version of the SQLite library in use, such as `3.53.2`. */
export const SQLITE_VERSION: string = sqliteVersion();

const SQLITE_CANTOPEN = 14;
const SQLITE_MISUSE = 21;
const SQLITE_RANGE = 25;

/**
 * A failure to open a database or to use the API properly. A statement that
 * SQLite refuses or fails to run throws a plain `Error` with SQLite's message.
 */
export class SqliteError extends Error {
  override name = "SqliteError";

  /** SQLite's primary result code. */
  code: number;

  /**
   * @param code SQLite's primary result code.
   * @param message What went wrong; {@linkcode Error.message} has the code in front.
   */
  constructor(code: number = 1, message: string = "Unknown Error") {
    super(`${code}: ${message}`);
    this.code = code;
  }
}

/** The values `node:sqlite` takes, as this module hands them over. */
type NativeInput = null | number | bigint | string | Uint8Array;

/** A row as an array of columns, still with a `bigint` for every integer. */
type NativeRow = unknown[];

/** The statement methods used here, typed for rows returned as arrays. */
interface NativeStatement extends
  Pick<
    StatementSync,
    "columns" | "run" | "setReadBigInts"
  > {
  setReturnArrays(enabled: boolean): void;
  all(...args: NativeInput[]): NativeRow[];
  get(...args: NativeInput[]): NativeRow | undefined;
  iterate(...args: NativeInput[]): IterableIterator<NativeRow>;
}

/** Gives {@linkcode Statement} the connection inside a {@linkcode Database}. */
let nativeOf: (db: Database) => DatabaseSync;

/**
 * A connection to a database. Its busy timeout is 0: a lock held elsewhere
 * fails the statement at once with "database is locked".
 */
export class Database {
  static {
    nativeOf = (db) => db.#native;
  }

  readonly #native: DatabaseSync;
  readonly #path: string;
  readonly #counters = new Map<string, NativeStatement>();

  /** Whether integers that a `number` cannot hold are read as `bigint`. */
  readonly int64: boolean;

  /**
   * Opens the database.
   *
   * @param path A file, a `file:` URL, or `:memory:`.
   * @throws {SqliteError} With code 14 if the file cannot be opened.
   */
  constructor(path: string | URL, options: DatabaseOpenOptions = {}) {
    this.#path = path instanceof URL ? fileURLToPath(path) : path;
    this.int64 = options.int64 ?? false;
    const location = options.memory ? ":memory:" : this.#path;
    const readOnly = options.readonly ?? false;
    if (options.create === false && !readOnly) refuseMissing(location);
    try {
      this.#native = new DatabaseSync(location, { readOnly, timeout: 0 });
    } catch (error) {
      const { message } = error as NativeError;
      throw message.startsWith("unable to open database file")
        ? cannotOpen()
        : error;
    }
  }

  /** Whether the connection is open. */
  get open(): boolean {
    return this.#native.isOpen;
  }

  /** The path of the file, as given to the constructor. */
  get path(): string {
    return this.#path;
  }

  /** The number of rows the latest INSERT, UPDATE or DELETE changed. */
  get changes(): number {
    return this.#counter("changes()");
  }

  /** The number of rows changed since the connection was opened. */
  get totalChanges(): number {
    return this.#counter("total_changes()");
  }

  /** The rowid of the latest row inserted; 0 before the first. */
  get lastInsertRowId(): number {
    return this.#counter("last_insert_rowid()");
  }

  /** Whether each statement is a transaction of its own: no BEGIN is pending. */
  get autocommit(): boolean {
    return !this.#native.isTransaction;
  }

  /** Whether a transaction is under way. `false` once closed. */
  get inTransaction(): boolean {
    return this.#native.isOpen && this.#native.isTransaction;
  }

  /**
   * Compiles one SQL statement. Any text after its end is ignored.
   *
   * @throws {Error} If the SQL does not compile.
   * @throws {SqliteError} With code 21 if the database is closed.
   */
  // The published package's own default for a row whose columns are not declared.
  // deno-lint-ignore no-explicit-any
  prepare<T extends object = Record<string, any>>(sql: string): Statement<T> {
    return new Statement<T>(this, sql);
  }

  /**
   * Runs SQL and discards any rows: a whole script, or with parameters a
   * single statement.
   *
   * @returns {@linkcode Database.changes}, afterwards.
   * @throws {Error} If a statement does not compile or fails.
   * @throws {SqliteError} With code 21 if the database is closed.
   */
  exec(sql: string, ...params: RestBindParameters): number {
    if (params.length > 0) return this.prepare(sql).run(...params);
    try {
      this.#native.exec(sql);
    } catch (error) {
      throw asPublished(withoutPosition(error, sql));
    }
    return this.changes;
  }

  /** Closes the connection and its statements. Does nothing if already closed. */
  close(): void {
    if (!this.#native.isOpen) return;
    this.#counters.clear();
    this.#native.close();
  }

  #counter(expression: string): number {
    let statement = this.#counters.get(expression);
    if (statement === undefined) {
      statement = compile(this, `SELECT ${expression}`);
      this.#counters.set(expression, statement);
    }
    return Number(statement.get()?.[0]);
  }
}

/**
 * A compiled statement. Each call binds its own parameters; one left out is
 * NULL. Numbers without a fraction are bound as integers, `true` and `false`
 * as 1 and 0, a `Date` as ISO 8601 text, other objects as JSON text.
 *
 * The methods that run it throw an `Error` with SQLite's message if it fails,
 * and a {@linkcode SqliteError} with code 25 for a parameter too many, or 21
 * if the statement is finalized or its database closed.
 */
// deno-lint-ignore no-explicit-any
export class Statement<TStatement extends object = Record<string, any>> {
  #native: NativeStatement | undefined;
  readonly #sql: string;
  #parameters: readonly (string | undefined)[] | undefined;
  #names: string[] = [];
  #hasProto = false;

  /**
   * Compiles the statement. Use {@linkcode Database.prepare}.
   *
   * @throws {Error} If the SQL does not compile.
   */
  constructor(db: Database, sql: string) {
    this.#native = compile(db, sql);
    this.#sql = sql;
  }

  /** How many parameters it has. */
  get bindParameterCount(): number {
    return this.#parameterNames().length;
  }

  /**
   * The name of parameter number `i`, from 1, with the `:`, `@`, `$` or `?` that
   * begins it.
   *
   * @throws {TypeError} If it has none.
   */
  bindParameterName(i: number): string {
    const name = this.#parameterNames()[i - 1];
    if (name === undefined) throw new TypeError(`Parameter ${i} has no name`);
    return name;
  }

  /**
   * The number of the parameter `name`, from 1, or 0 if there is none. A name
   * that begins with none of `:`, `@` and `$` is taken to begin with `:`.
   */
  bindParameterIndex(name: string): number {
    const full = /^[:@$]/.test(name) ? name : `:${name}`;
    return this.#parameterNames().indexOf(full) + 1;
  }

  /** Runs to completion and discards any rows. Returns {@linkcode Database.changes}. */
  run(...args: RestBindParameters): number {
    const native = this.#usable();
    try {
      return Number(native.run(...toNative(args)).changes);
    } catch (error) {
      throw asPublished(error);
    }
  }

  /** Returns all the rows, as arrays of columns. */
  // deno-lint-ignore no-explicit-any
  values<T extends unknown[] = any[]>(...args: RestBindParameters): T[] {
    const rows = this.#rows(args);
    for (const row of rows) toValues(row);
    return rows as T[];
  }

  /** Returns all the rows, as objects keyed by column name. */
  all<T extends object = TStatement>(...args: RestBindParameters): T[] {
    const rows: unknown[] = this.#rows(args);
    for (let i = 0; i < rows.length; i++) {
      rows[i] = this.#toObject(rows[i] as NativeRow);
    }
    return rows as T[];
  }

  /** Returns the first row as an array of columns, or `undefined` if none. */
  value<T extends Array<unknown>>(...args: RestBindParameters): T | undefined {
    const row = this.#row(args);
    return row && (toValues(row) as T);
  }

  /** Returns the first row as an object, or `undefined` if none. */
  get<T extends object = TStatement>(
    ...args: RestBindParameters
  ): T | undefined {
    const row = this.#row(args);
    return row && (this.#toObject(row) as T);
  }

  /**
   * Yields the rows one by one, as objects. The statement holds its read lock
   * until the last row is taken or the iteration is abandoned.
   */
  // deno-lint-ignore no-explicit-any
  *iter(...args: RestBindParameters): IterableIterator<any> {
    const native = this.#usable();
    try {
      // Leaving this loop early closes the native iterator, which resets.
      for (const row of native.iterate(...toNative(args))) {
        yield this.#toObject(row);
      }
    } catch (error) {
      throw asPublished(error);
    }
  }

  /** The names of the columns, in order. Empty if it returns no rows. */
  columnNames(): string[] {
    return columnNames(this.#usable());
  }

  /** Makes the statement unusable. Does nothing the second time. */
  finalize(): void {
    // `node:sqlite` frees a statement when it is collected or its database closed.
    this.#native = undefined;
  }

  /** Finalizes the statement at the end of a `using` scope. */
  [Symbol.dispose](): void {
    this.finalize();
  }

  #parameterNames(): readonly (string | undefined)[] {
    return this.#parameters ??= parameterNames(this.#sql);
  }

  #usable(): NativeStatement {
    if (this.#native === undefined) throw misuse();
    return this.#native;
  }

  #rows(args: RestBindParameters): NativeRow[] {
    const native = this.#usable();
    try {
      return native.all(...toNative(args));
    } catch (error) {
      throw asPublished(error);
    }
  }

  #row(args: RestBindParameters): NativeRow | undefined {
    const native = this.#usable();
    try {
      return native.get(...toNative(args));
    } catch (error) {
      throw asPublished(error);
    }
  }

  #toObject(row: NativeRow): Record<string, unknown> {
    // Reading the names costs more than a lookup by id, so they are kept until
    // a changed schema shows in the number of columns.
    if (this.#names.length !== row.length) {
      this.#names = columnNames(this.#usable());
      this.#hasProto = this.#names.includes("__proto__");
    }
    const names = this.#names;
    if (this.#hasProto) {
      // Assigning this name would replace the prototype of the row.
      return Object.fromEntries(row.map((v, i) => [names[i]!, toValue(v)]));
    }
    const object: Record<string, unknown> = {};
    for (let i = 0; i < row.length; i++) {
      object[names[i]!] = toValue(row[i]);
    }
    return object;
  }
}

function sqliteVersion(): string {
  // Asked of the library: `process.versions` may name another version.
  const db = new DatabaseSync(":memory:");
  const row = db.prepare("SELECT sqlite_version() AS version").get();
  db.close();
  return String(row?.["version"]);
}

/** Compiles `sql` to return rows as arrays, the cheapest form `node:sqlite` has. */
function compile(db: Database, sql: string): NativeStatement {
  try {
    // The cast is for `setReturnArrays`, which Deno has but its types do not.
    const native = nativeOf(db).prepare(sql) as unknown as NativeStatement;
    native.setReturnArrays(true);
    native.setReadBigInts(db.int64);
    return native;
  } catch (error) {
    throw asPublished(error);
  }
}

// What stands in quotes, comments, words and numbers have no parameters in them.
const TOKEN =
  /'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|[\w\u0080-\uffff][\w$\u0080-\uffff]*|(\?\d*|[:@$](?:[\w$\u0080-\uffff]|::)+(?:\([^\s)]*\))?)|;/g;

/** The parameters of a statement in the order of their numbers. */
function parameterNames(sql: string): (string | undefined)[] {
  const names: (string | undefined)[] = [];
  for (const [token, parameter] of sql.matchAll(TOKEN)) {
    if (token === ";") break;
    if (parameter === undefined || names.includes(parameter)) continue;
    if (parameter === "?") names.push(undefined);
    else if (parameter.startsWith("?")) {
      const number = Number(parameter.slice(1));
      while (names.length < number) names.push(undefined);
      names[number - 1] ??= parameter;
    } else names.push(parameter);
  }
  return names;
}

function columnNames(native: NativeStatement): string[] {
  return native.columns().map((column) => column.name);
}

/** Converts the arguments of a call to the form `node:sqlite` takes. */
function toNative(args: RestBindParameters): NativeInput[] {
  const first = args[0];
  if (!isContainer(first)) return args.map(toNativeValue);
  if (Array.isArray(first)) return first.map(toNativeValue);
  const named: Record<string, NativeInput> = {};
  for (const [name, value] of Object.entries(first)) {
    named[name] = toNativeValue(value);
  }
  // `node:sqlite` takes named parameters as its first argument.
  return [named as unknown as NativeInput];
}

function isContainer(
  value: unknown,
): value is BindValue[] | { [key: string]: BindValue } {
  return typeof value === "object" && value !== null &&
    !(value instanceof Uint8Array) && !(value instanceof Date);
}

function toNativeValue(value: BindValue): NativeInput {
  switch (typeof value) {
    case "number":
      // `node:sqlite` binds every number as REAL, and every bigint as INTEGER.
      return Number.isInteger(value) ? BigInt(value) : value;
    case "string":
    case "bigint":
      return value;
    case "boolean":
      return value ? 1n : 0n;
    case "undefined":
      return null;
    case "object":
      if (value === null || value instanceof Uint8Array) return value;
      if (value instanceof Date) return value.toISOString();
      return JSON.stringify(value);
    default:
      throw new Error(`Cannot bind a value of type ${typeof value}`);
  }
}

/** Turns a safe `bigint` into a `number`; any other value stays as it is. */
function toValue(value: unknown): unknown {
  if (typeof value !== "bigint") return value;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

/** Applies {@linkcode toValue} to every column, in place. */
function toValues(row: NativeRow): NativeRow {
  for (let i = 0; i < row.length; i++) row[i] = toValue(row[i]);
  return row;
}

/** Throws unless a file is at `path`: `node:sqlite` has no mode that would not create it. */
function refuseMissing(path: string): void {
  if (path === ":memory:") return;
  try {
    Deno.statSync(path);
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory;
    throw missing ? cannotOpen() : error;
  }
}

function cannotOpen(): SqliteError {
  return new SqliteError(SQLITE_CANTOPEN, "unable to open database file");
}

function misuse(): SqliteError {
  return new SqliteError(SQLITE_MISUSE, "SQLite3 API misuse");
}

/** The property `node:sqlite` adds to the errors that have a result code. */
type NativeError = Error & { errcode?: number };

/** Replaces the errors for which the published package has a class of its own. */
function asPublished(error: unknown): unknown {
  const { errcode, message } = error as NativeError;
  if (errcode === SQLITE_RANGE) return new SqliteError(SQLITE_RANGE, message);
  if (
    message === "database is not open" ||
    message === "statement has been finalized" ||
    // Running SQL that has nothing in it but blanks and comments.
    message === "not an error"
  ) return misuse();
  return error;
}

/** Cuts "in <sql> at offset <n>", which `exec` appends to SQLite's message. */
function withoutPosition(error: unknown, sql: string): unknown {
  if (!(error instanceof Error)) return error;
  const end = error.message.search(/ at offset \d+$/);
  if (end === -1) return error;
  const message = error.message.slice(0, end);
  // SQLite's own message may have an " in " too: the one to cut at is followed
  // by the rest of the script.
  let start = message.indexOf(" in ");
  while (start !== -1 && !sql.endsWith(message.slice(start + 4))) {
    start = message.indexOf(" in ", start + 1);
  }
  if (start !== -1) error.message = message.slice(0, start);
  return error;
}
