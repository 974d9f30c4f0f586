/**
 * The health check: does this connection answer, and who answers?
 *
 * @module
 */

import type { Dialect } from "./driver.ts";
import { messageOf } from "./errors.ts";
import type { PooledConnection } from "./pooled_connection.ts";

/** What a health check found. */
export type Health =
  | { readonly status: "healthy"; readonly sqlite_version: string }
  | { readonly status: "healthy"; readonly postgres_version: string }
  | { readonly status: "unhealthy"; readonly error: string };

const VERSION: Readonly<Record<Dialect, string>> = {
  sqlite: "SELECT sqlite_version() AS version",
  // Servers that only speak the protocol have an answer to this as well.
  postgres: "SELECT current_setting('server_version') AS version",
};

/**
 * Asks the database for its version. A connection that does not answer is a
 * finding, not an exception: this never throws.
 */
export async function healthCheck(
  connection: PooledConnection,
): Promise<Health> {
  try {
    const { dialect } = connection;
    const [row] = await connection.query(VERSION[dialect]);
    const version = String(row?.["version"]);
    return dialect === "postgres"
      ? { status: "healthy", postgres_version: version }
      : { status: "healthy", sqlite_version: version };
  } catch (error) {
    return { status: "unhealthy", error: messageOf(error) };
  }
}
