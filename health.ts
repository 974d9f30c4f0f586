/**
 * The health check: does this connection answer, and who answers?
 *
 * @module
 */

import { messageOf } from "./errors.ts";
import type { PooledConnection } from "./pooled_connection.ts";

/** What a health check found. */
export type Health =
  | { readonly status: "healthy"; readonly sqlite_version: string }
  | { readonly status: "unhealthy"; readonly error: string };

/**
 * Asks the database for its version. A connection that does not answer is a
 * finding, not an exception: this never throws.
 */
export async function healthCheck(
  connection: PooledConnection,
): Promise<Health> {
  try {
    const rows = await connection.query("SELECT sqlite_version() AS version");
    return { status: "healthy", sqlite_version: String(rows[0]?.["version"]) };
  } catch (error) {
    return { status: "unhealthy", error: messageOf(error) };
  }
}
