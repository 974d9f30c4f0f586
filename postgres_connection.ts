/**
 * A connection to a PostgreSQL server: statements one at a time, transactions,
 * cancelling, and what has to happen between two holders.
 *
 * @module
 */

import type { Clock, Timer } from "./clock.ts";
import type {
  Connection,
  Done,
  ExecuteResult,
  QueryOptions,
  Row,
  SqlParameters,
} from "./driver.ts";
import { messageOf, QueryTimeoutError, ReleaseError } from "./errors.ts";
import {
  boundValues,
  type PgClient,
  type PgError,
  type PgQuery,
  type PgResult,
  sqlStateOf,
} from "./postgres_client.ts";
import { CLEAN_SESSION, leavesTraces } from "./postgres_session.ts";

const QUERY_CANCELED = "57014";

// Rows that `iterate` fetches at a time.
const FETCH_ROWS = 500;

// How long the server may take to end a connection that says goodbye.
const CLOSE_TIMEOUT_MS = 1000;

const CHANGES_ROWS = /^(INSERT|UPDATE|DELETE|MERGE|COPY)$/;
const GIVES_ROWS = /^\s*(select|values|table|with)\b/i;

/** A statement, from the call to its answer. */
interface Job {
  readonly request: PgQuery;
  readonly resolve: (results: PgResult[]) => void;
  readonly reject: (error: unknown) => void;
}

/** What a connection needs to know of where it comes from. */
export interface PostgresOrigin {
  readonly clock: Clock;
  /** How long the cancelling of a query may take, in milliseconds. */
  readonly timeoutMs: number;
  /** Asks the server to cancel what this connection is doing. */
  requestCancel(
    processId: number | null,
    secretKey: number | null,
  ): Promise<void>;
  /** Tells the pool that the connection is gone. */
  lost(error: unknown): void;
}

/** A connection to a PostgreSQL server. */
export class PostgresConnection implements Connection {
  readonly dialect = "postgres";
  readonly raw: PgClient;
  readonly #origin: PostgresOrigin;
  /** Why it is of no more use, if it is not. */
  #broken: unknown;
  #hasEnded = false;
  #dateStyle = "";
  /** What must be set again after each cleaning. */
  #settings = "";
  /** Whether the holder may have changed more than rows. */
  #isDirty = false;
  #savepoints = 0;
  #cursors = 0;
  /** Grows with each reset: a use must not outlive its loan. */
  #loan = 0;

  /** What was asked for and not sent yet. */
  readonly #jobs: Job[] = [];
  /** What was sent and is not answered yet. */
  #active: Job | undefined;
  /** The request to cancel what is at work. */
  #cancelling: Promise<void> | undefined;
  #cancelTimer: Timer | undefined;
  #isWorking = false;
  /** Called once, when nothing is at work any more. */
  #onRest: (() => void) | undefined;

  /** Made by `PostgresDriver.connect`, around a client that is not connected. */
  constructor(client: PgClient, origin: PostgresOrigin) {
    this.raw = client;
    this.#origin = origin;
    client.on("error", (error) => this.#break(error));
    client.on("end", () => {
      this.#hasEnded = true;
      this.#break(new Error("The server closed the connection"));
    });
    client.connection.on("parameterStatus", (message) => {
      if (message.parameterName === "DateStyle") {
        this.#dateStyle = message.parameterValue;
      }
    });
  }

  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  get inTransaction(): boolean {
    const status = this.raw.getTransactionStatus();
    return status === "T" || status === "E";
  }

  /** Connects, and sees to what every holder relies on. */
  async open(): Promise<void> {
    await this.raw.connect();
    // A date in another style could be read only by who knows which one it is.
    if (this.#dateStyle === "" || this.#dateStyle.startsWith("ISO")) return;
    this.#settings = "; SET datestyle TO ISO";
    await this.#run("SET datestyle TO ISO");
  }

  /** What keeps the server from being of the kind `wish`, if anything does. */
  async whyNot(wish: string): Promise<string | undefined> {
    if (wish === "any") return undefined;
    const [row] = await this.query(
      "SELECT pg_is_in_recovery() AS standby, " +
        "current_setting('transaction_read_only') = 'on' AS readonly",
    );
    const isStandby = row?.["standby"] === true;
    const isReadOnly = isStandby || row?.["readonly"] === true;
    const suits: Readonly<Record<string, boolean>> = {
      "read-write": !isReadOnly,
      "read-only": isReadOnly,
      "primary": !isStandby,
      "standby": isStandby,
    };
    return suits[wish] ? undefined : `it is no ${wish} server`;
  }

  async query(
    sql: string,
    parameters: SqlParameters = [],
    options?: QueryOptions,
  ): Promise<Row[]> {
    const [result] = await this.#submit(one(sql, parameters), options);
    return result?.rows ?? [];
  }

  async execute(
    sql: string,
    parameters?: SqlParameters,
    options?: QueryOptions,
  ): Promise<ExecuteResult> {
    const request = parameters ? one(sql, parameters) : { text: sql };
    let changes = 0;
    for (const result of await this.#submit(request, options)) {
      if (CHANGES_ROWS.test(result.command ?? "")) {
        changes += result.rowCount ?? 0;
      }
    }
    return { changes };
  }

  async *iterate(
    sql: string,
    parameters: SqlParameters = [],
    options?: QueryOptions,
  ): AsyncIterableIterator<Row> {
    if (!GIVES_ROWS.test(sql)) {
      yield* await this.query(sql, parameters, options);
      return;
    }
    const name = `rows_${++this.#cursors}`;
    // Outside a transaction a cursor lasts only if its rows are set aside.
    const hold = this.inTransaction ? "" : "WITH HOLD ";
    const loan = this.#loan;
    await this.#submit(
      one(`DECLARE ${name} NO SCROLL CURSOR ${hold}FOR ${sql}`, parameters),
      options,
    );
    try {
      for (let isDone = false; !isDone;) {
        const rows = await this.query(
          `FETCH ${FETCH_ROWS} FROM ${name}`,
          [],
          options,
        );
        isDone = rows.length < FETCH_ROWS;
        for (const row of rows) {
          yield row;
          this.#checkLoan(loan);
        }
      }
    } finally {
      // The end of its transaction, or of the loan, has closed it.
      const isOpen = this.#loan === loan && !this.isBroken &&
        this.raw.getTransactionStatus() === (hold === "" ? "T" : "I");
      if (isOpen) await this.#run(`CLOSE ${name}`);
    }
  }

  async begin(): Promise<void> {
    if (this.inTransaction) {
      await this.#run(`SAVEPOINT level_${this.#savepoints + 1}`);
      this.#savepoints++;
    } else {
      await this.#run("BEGIN");
      this.#savepoints = 0;
    }
  }

  async commit(): Promise<void> {
    if (this.#savepoints > 0) {
      await this.#run(`RELEASE SAVEPOINT level_${this.#savepoints}`);
      this.#savepoints--;
      return;
    }
    const [result] = await this.#run("COMMIT");
    // That is how the server answers, and not with an error.
    if (result?.command !== "ROLLBACK") return;
    throw new Error(
      "The transaction was rolled back, not committed, as a statement in it had " +
        "failed; let its error leave the function, or put what may fail into a " +
        "transaction() of its own inside",
    );
  }

  async rollback(): Promise<void> {
    if (!this.inTransaction) return;
    if (this.#savepoints === 0) {
      await this.#run("ROLLBACK");
      return;
    }
    const name = `level_${this.#savepoints--}`;
    await this.#run(
      `ROLLBACK TO SAVEPOINT ${name}; RELEASE SAVEPOINT ${name}`,
    );
  }

  ping(done: Done): void {
    this.#run("SELECT 1").then(() => done(), done);
  }

  reset(done: Done): void {
    this.#loan++;
    if (!this.#isWorking) return this.#clean(done);
    // Nobody waited for it, or somebody gave it up; nobody will have its answer.
    const error = new ReleaseError(
      "The connection was released while a statement was at work",
    );
    for (const job of this.#jobs.splice(0)) job.reject(error);
    this.#onRest = () => this.#clean(done);
    this.#stop(this.#active, error);
  }

  #clean(done: Done): void {
    if (this.isBroken) return done(this.#broken);
    this.#savepoints = 0;
    const statements = [
      ...(this.inTransaction ? ["ROLLBACK"] : []),
      ...(this.#isDirty ? [CLEAN_SESSION + this.#settings] : []),
    ];
    if (statements.length === 0) return done();
    this.#run(statements.join("; ")).then(() => {
      this.#isDirty = false;
      done();
    }, done);
  }

  close(done: Done): void {
    this.#loan++;
    if (this.#hasEnded) return done();
    // The server would go on with it, for nobody.
    if (this.#active !== undefined) this.#cancel();
    this.#broken ??= new Error("close() was called");
    const timer = this.#origin.clock.setTimer(
      () => this.raw.connection.stream.destroy(),
      CLOSE_TIMEOUT_MS,
    );
    this.raw.end().then(() => {
      timer.clear();
      done();
    }, (error) => {
      timer.clear();
      done(error);
    });
  }

  #run(sql: string): Promise<PgResult[]> {
    return this.#submit({ text: sql });
  }

  /** Runs a statement when its turn comes, and stops it when it is told to. */
  #submit(
    request: PgQuery,
    { signal, timeoutMs }: QueryOptions = {},
  ): Promise<PgResult[]> {
    return new Promise((resolve, reject) => {
      if (this.isBroken) throw this.#describeBreak();
      signal?.throwIfAborted();
      if (!this.#isDirty && leavesTraces(request.text)) this.#isDirty = true;
      if (signal === undefined && timeoutMs === undefined) {
        return this.#push({ request, resolve, reject });
      }
      const end = (): void => {
        timer?.clear();
        signal?.removeEventListener("abort", abort);
      };
      const job: Job = {
        request,
        resolve: (results) => {
          end();
          resolve(results);
        },
        reject: (error) => {
          end();
          reject(error);
        },
      };
      const abort = (): void => this.#stop(job, signal?.reason);
      signal?.addEventListener("abort", abort);
      const timer = timeoutMs === undefined
        ? undefined
        : this.#origin.clock.setTimer(
          () => this.#stop(job, new QueryTimeoutError(timeoutMs)),
          timeoutMs,
        );
      this.#push(job);
    });
  }

  #push(job: Job): void {
    this.#jobs.push(job);
    if (!this.#isWorking) this.#work();
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    for (let job; (job = this.#jobs.shift()) !== undefined;) {
      this.#active = job;
      let failure: unknown;
      try {
        const result = await this.raw.query(job.request);
        job.resolve(Array.isArray(result) ? result : [result]);
      } catch (error) {
        failure = error;
        // The server says so just before it hangs up; until then the connection
        // looks as good as any.
        if (isFatal(error)) this.#break(error);
        job.reject(error);
      }
      this.#active = undefined;
      if (this.#cancelling === undefined) continue;
      this.#cancelTimer?.clear();
      await this.#cancelling;
      this.#cancelling = undefined;
      // Whether it ended before the request came cannot be known, and so neither
      // whom the request will hit.
      if (sqlStateOf(failure) !== QUERY_CANCELED) {
        this.#condemn(new Error("A statement ended while it was cancelled"));
      }
    }
    this.#isWorking = false;
    const onRest = this.#onRest;
    this.#onRest = undefined;
    onRest?.();
  }

  /** Ends a statement for its caller at once, and on the server soon. */
  #stop(job: Job | undefined, reason: unknown): void {
    if (job === undefined) return;
    job.reject(reason);
    const index = this.#jobs.indexOf(job);
    if (index >= 0) this.#jobs.splice(index, 1);
    else if (this.#active === job) this.#cancel();
  }

  #cancel(): void {
    if (this.#cancelling !== undefined) return;
    const { clock, timeoutMs } = this.#origin;
    this.#cancelTimer = clock.setTimer(() => {
      const after = `${timeoutMs} ms after it was cancelled`;
      this.#condemn(new Error(`A statement was still at work ${after}`));
    }, timeoutMs);
    const { processID, secretKey } = this.raw;
    this.#cancelling = this.#origin.requestCancel(processID, secretKey)
      .catch((error) => this.#condemn(error));
  }

  /** Gives the connection up, although it may still work. */
  #condemn(error: unknown): void {
    this.#break(error);
    this.raw.connection.stream.destroy();
  }

  #break(error: unknown): void {
    if (this.#broken !== undefined) return;
    this.#broken = error;
    this.#origin.lost(error);
  }

  #describeBreak(): Error {
    return new Error(
      `The connection is closed: ${messageOf(this.#broken)}`,
      { cause: this.#broken },
    );
  }

  #checkLoan(loan: number): void {
    if (this.#loan === loan) return;
    throw new ReleaseError(
      "The connection was released while a statement was at work",
    );
  }
}

function isFatal(error: unknown): boolean {
  return /^(FATAL|PANIC)$/.test((error as PgError).severity ?? "") ||
    /^(57P0[123]|08)/.test(sqlStateOf(error) ?? "");
}

function one(sql: string, parameters: SqlParameters): PgQuery {
  const values = boundValues(parameters);
  return { text: sql, values, queryMode: "extended" };
}
