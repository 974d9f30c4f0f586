/**
 * The table `events` of the baseline workload, in the SQL of each database:
 * making it, adding labels a batch at a time, and finding them again.
 *
 * A statement for each row would cost a round trip for each, or with SQLite two
 * crossings between JavaScript and SQLite; a list of labels as JSON costs one
 * for a thousand.
 *
 * @module
 */

import type { PooledConnection } from "./pooled_connection.ts";

/** A row of the table `events`. */
export interface LabelRow {
  /** Given by the database, rising. */
  readonly id: number | bigint;
  /** The text of the line, trimmed. */
  readonly label: string;
}

/** Rows with ids from `after`, which is not one of them, up to `last`. */
export interface IdRange {
  readonly after: number | bigint;
  readonly last: number | bigint;
}

interface Added extends IdRange {
  readonly rows: number;
}

/** The table as one connection sees it, inside a transaction. */
export abstract class EventsTable {
  /** The table in the SQL that `connection` speaks. */
  static on(connection: PooledConnection): EventsTable {
    return connection.dialect === "postgres"
      ? new PostgresTable(connection)
      : new SqliteTable(connection);
  }

  protected readonly connection: PooledConnection;
  protected abstract readonly select: string;
  protected abstract readonly selectAsJson: string;

  protected constructor(connection: PooledConnection) {
    this.connection = connection;
  }

  /** Makes the table unless it is there. */
  abstract create(): Promise<void>;

  /** Adds labels, and says where their rows are, in the order of the labels. */
  async insert(labels: readonly string[]): Promise<IdRange[]> {
    const added = await this.add(JSON.stringify(labels));
    const rows = added.reduce((sum, { rows }) => sum + rows, 0);
    if (rows === labels.length) return added;
    throw new Error(
      "Cannot tell the new rows of the table 'events' from others: its column " +
        "'id' must be an INTEGER PRIMARY KEY with room for more",
    );
  }

  protected abstract add(labels: string): Promise<Added[]>;

  /** The rows of `ranges`. */
  async rows(ranges: readonly IdRange[]): Promise<LabelRow[]> {
    const rows: LabelRow[] = [];
    for (const { after, last } of ranges) {
      const found = await this.connection.query(this.select, [after, last]);
      for (const row of found) rows.push(row as unknown as LabelRow);
    }
    return rows;
  }

  /** The rows of `ranges` as JSON, with `separator` in between. */
  async asJson(
    ranges: readonly IdRange[],
    separator: string,
  ): Promise<string> {
    const pieces: string[] = [];
    for (const { after, last } of ranges) {
      const parameters = [separator, after, last];
      const [row] = await this.connection.query(this.selectAsJson, parameters);
      const lines = row?.["lines"];
      if (typeof lines !== "string") {
        throw new Error(
          "Cannot read back the rows that were just added to the table 'events'",
        );
      }
      pieces.push(lines);
    }
    return pieces.join(separator);
  }
}

class SqliteTable extends EventsTable {
  protected readonly select =
    "SELECT id, label FROM events WHERE id > ? AND id <= ? ORDER BY id";
  protected readonly selectAsJson =
    "SELECT group_concat(line, ?) AS lines FROM (SELECT " +
    "json_object('id', id, 'label', label) AS line FROM events " +
    "WHERE id > ? AND id <= ? ORDER BY id)";
  /** There is one writer at a time, so what comes after it is its own. */
  #last: number | bigint = 0;

  constructor(connection: PooledConnection) {
    super(connection);
  }

  async create(): Promise<void> {
    await this.connection.execute(
      "CREATE TABLE IF NOT EXISTS events " +
        "(id INTEGER PRIMARY KEY, label TEXT NOT NULL)",
    );
    const [row] = await this.connection.query<{ id: number | bigint }>(
      "SELECT coalesce(max(id), 0) AS id FROM events",
    );
    this.#last = row?.id ?? 0;
  }

  protected async add(labels: string): Promise<Added[]> {
    await this.connection.execute(
      "INSERT INTO events (label) SELECT value FROM json_each(?)",
      [labels],
    );
    const after = this.#last;
    const [added] = await this.connection.query<
      { rows: number; last: number | bigint | null }
    >(
      "SELECT count(*) AS rows, max(id) AS last FROM events WHERE id > ?",
      [after],
    );
    this.#last = added?.last ?? after;
    return [{ after, last: this.#last, rows: added?.rows ?? 0 }];
  }
}

// Any number will do that others are unlikely to lock.
const CREATION_LOCK = 7_301_584_926;

class PostgresTable extends EventsTable {
  protected readonly select =
    "SELECT id, label FROM events WHERE id > $1 AND id <= $2 ORDER BY id";
  protected readonly selectAsJson =
    "SELECT string_agg(row_to_json(line)::text, $1::text ORDER BY id) AS lines " +
    "FROM (SELECT id, label FROM events WHERE id > $2 AND id <= $3) AS line";

  constructor(connection: PooledConnection) {
    super(connection);
  }

  async create(): Promise<void> {
    const [row] = await this.connection.query(
      "SELECT to_regclass('events') IS NOT NULL AS found",
    );
    // Where it is there, to be allowed to write to it is enough.
    if (row?.["found"] === true) return;
    // Two that make it at once would collide, IF NOT EXISTS or not.
    await this.connection.query("SELECT pg_advisory_xact_lock($1)", [
      CREATION_LOCK,
    ]);
    await this.connection.execute(
      "CREATE TABLE IF NOT EXISTS events (id BIGINT GENERATED BY DEFAULT " +
        "AS IDENTITY PRIMARY KEY, label TEXT NOT NULL)",
    );
  }

  protected async add(labels: string): Promise<Added[]> {
    // Others may write beside this one and take ids in between, so each run of
    // consecutive ids is a range of its own.
    return await this.connection.query<Added & Record<string, unknown>>(
      "WITH added AS (INSERT INTO events (label) SELECT value FROM " +
        "json_array_elements_text($1::json) WITH ORDINALITY ORDER BY ordinality " +
        "RETURNING id), runs AS (SELECT id, id - row_number() OVER (ORDER BY id) " +
        "AS run FROM added) SELECT min(id) - 1 AS after, max(id) AS last, " +
        "count(*) AS rows FROM runs GROUP BY run ORDER BY min(id)",
      [labels],
    );
  }
}
