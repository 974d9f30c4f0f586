/**
 * The ways to ask a PostgreSQL server something.
 *
 * @module
 */

import pg from "pg";
import PgPool from "pg-pool";
import { ConnectionPool } from "../pool.ts";

/** How many connections a pool has. */
export const CONNECTIONS = 10;

// With a parameter, as nearly every query of a program has one.
const SQL = "SELECT $1::int AS answer";

/** A way to ask. */
export interface PostgresContender {
  readonly label: string;
  /** Opens what it needs and gives the operation to be measured. */
  prepare(url: string): (value: number) => Promise<unknown>;
}

/** All of them, by the names that the worker takes. */
export const POSTGRES_CONTENDERS: Readonly<Record<string, PostgresContender>> =
  {
    pool: {
      label: "this pool",
      prepare(database) {
        const pool = new ConnectionPool({
          ...{ database, poolSize: CONNECTIONS, maxOverflow: 0 },
          acquireTimeoutMs: 60_000,
        });
        return async (value) => {
          using connection = await pool.acquire();
          const [row] = await connection.query(SQL, [value]);
          return row?.["answer"];
        };
      },
    },
    pgPool: {
      label: "pg-pool",
      prepare(url) {
        const pool = new PgPool({
          ...{ connectionString: url, max: CONNECTIONS },
          connectionTimeoutMillis: 60_000,
        });
        return async (value) => {
          const client = await pool.connect();
          try {
            const { rows } = await client.query(SQL, [value]);
            return rows[0]?.answer;
          } finally {
            client.release();
          }
        };
      },
    },
    opening: {
      label: "a connection for each query",
      prepare: (url) => async (value) => {
        const client = new pg.Client({ connectionString: url });
        await client.connect();
        const { rows } = await client.query(SQL, [value]);
        await client.end();
        return rows[0]?.answer;
      },
    },
  };
