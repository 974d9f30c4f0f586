/**
 * Keeps the write lock of a database for a while.
 *
 *     lock_holder.ts DATABASE MILLISECONDS
 *
 * Prints a line as soon as it has it.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";

const [path = "", milliseconds = ""] = Deno.args;
using database = new DatabaseSync(path);
database.exec("BEGIN IMMEDIATE");
console.log("locked");
await new Promise((resolve) => setTimeout(resolve, Number(milliseconds)));
database.exec("COMMIT");
