/**
 * The ways to get a row by its id.
 *
 * @module
 */

import { Database } from "@db/sqlite";
import { DatabaseSync } from "node:sqlite";
import { ConnectionPool } from "../pool.ts";
import { SqliteDriver } from "../sqlite.ts";

/** How many rows the table has; their ids begin with 1. */
export const ROWS = 10_000;

const SQL = "SELECT id, label FROM events WHERE id = ?";

/** A way to get a row. */
export interface QueryContender {
  readonly label: string;
  /** Opens what it needs and gives the operation to be measured. */
  prepare(path: string): (id: number) => unknown;
}

/** All of them, by the names that the worker takes. */
export const QUERY_CONTENDERS = {
  pool: {
    label: "pool: acquire, query, release with a ping",
    prepare(path) {
      const pool = new ConnectionPool({ database: path });
      return async (id) => {
        const connection = await pool.acquire();
        const [row] = await connection.query(SQL, [id]);
        pool.release(connection);
        return row;
      };
    },
  },
  pingless: {
    label: 'the same with validate: "never"',
    prepare(path) {
      const pool = new ConnectionPool({ database: path, validate: "never" });
      return async (id) => {
        const connection = await pool.acquire();
        const [row] = await connection.query(SQL, [id]);
        pool.release(connection);
        return row;
      };
    },
  },
  empty: {
    label: "pool: acquire, release with a ping",
    prepare(path) {
      const pool = new ConnectionPool({ database: path });
      return async () => pool.release(await pool.acquire());
    },
  },
  ping: {
    label: "the ping alone",
    prepare(path) {
      let operation: () => void = () => {};
      new SqliteDriver({ path, timeoutMs: 0 }).connect((error, connection) => {
        if (connection === undefined) throw error;
        const done = (error?: unknown): void => {
          if (error !== undefined) throw error;
        };
        operation = () => connection.ping(done);
      });
      return operation;
    },
  },
  statement: {
    label: "@db/sqlite, bare statement",
    prepare(path) {
      // The option that the driver of the pool uses.
      const statement = new Database(path, { int64: true }).prepare(SQL);
      return (id) => statement.get(id);
    },
  },
  nativeStatement: {
    label: "node:sqlite, bare statement",
    prepare(path) {
      const statement = new DatabaseSync(path).prepare(SQL);
      return (id) => statement.get(id);
    },
  },
  opening: {
    label: "@db/sqlite, a connection for each query",
    prepare: (path) => (id) => {
      const database = new Database(path, { int64: true });
      const row = database.prepare(SQL).get(id);
      database.close();
      return row;
    },
  },
  nativeOpening: {
    label: "node:sqlite, a connection for each query",
    prepare: (path) => (id) => {
      const database = new DatabaseSync(path);
      const row = database.prepare(SQL).get(id);
      database.close();
      return row;
    },
  },
} as const satisfies Record<string, QueryContender>;
