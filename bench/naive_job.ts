/**
 * The baseline job done the obvious way: everything in memory at once.
 *
 *     naive_job.ts INPUT OUTPUT DATABASE
 *
 * @module
 */

import { readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import process from "node:process";

const [input = "", output = "", path = ":memory:"] = process.argv.slice(2);

const labels = readFileSync(input, "utf8")
  .split("\n")
  .map((line) => line.trim())
  .filter((line) => line !== "");

const database = new DatabaseSync(path);
database.exec(
  "CREATE TABLE IF NOT EXISTS events " +
    "(id INTEGER PRIMARY KEY, label TEXT NOT NULL)",
);
database.exec("BEGIN");
const insert = database.prepare("INSERT INTO events (label) VALUES (?)");
for (const label of labels) insert.run(label);
database.exec("COMMIT");

const rows = database.prepare("SELECT id, label FROM events ORDER BY id").all();
database.close();

const summary = JSON.stringify({ rows_inserted: labels.length, rows });
writeFileSync(output, summary);
process.stdout.write(summary);
