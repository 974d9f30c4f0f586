/**
 * What the pool adds to a query on a database file.
 *
 * @module
 */

import { DatabaseSync } from "node:sqlite";
import { inRounds } from "./measure.ts";
import { runWorker, TemporaryFolder } from "./process.ts";
import {
  atLeast,
  atMost,
  ratio,
  type Report,
  type Row,
  type SuiteOptions,
} from "./report.ts";
import { QUERY_CONTENDERS, ROWS } from "./query_contenders.ts";

/** Measures a query by id. */
export async function benchQuery({ isQuick }: SuiteOptions): Promise<Report> {
  await using folder = new TemporaryFolder();
  const path = folder.file("query.db");
  // As in a program at work, somebody else has the file open too. The last to
  // close it would have to tidy up the write-ahead log, each time.
  using _companion = makeDatabase(path);
  const names = Object.keys(QUERY_CONTENDERS);
  const samples = await inRounds(
    names,
    isQuick ? 3 : 7,
    (name) => runWorker<number>("query_worker.ts", [name, path]),
  );
  const row = (name: keyof typeof QUERY_CONTENDERS): Row => ({
    label: QUERY_CONTENDERS[name].label,
    samples: samples[name] ?? [],
  });
  const bare = row("statement");
  return {
    suite: "query",
    tables: [{
      title: "A row by its id, from a file",
      unit: "µs",
      rows: names.map((name) => row(name as keyof typeof QUERY_CONTENDERS)),
      reference: bare,
    }],
    goals: [
      atMost(
        3,
        "times the bare statement of @db/sqlite",
        ratio(row("pool"), bare),
      ),
      atLeast(
        12,
        "times as fast as a connection for each query, with @db/sqlite",
        ratio(row("opening"), row("pool")),
      ),
      atLeast(
        12,
        "times as fast as a connection for each query, with node:sqlite",
        ratio(row("nativeOpening"), row("pool")),
      ),
    ],
  };
}

/** The mode is the one to which the pool turns every file. */
function makeDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  database.exec(`
    PRAGMA journal_mode = WAL;
    CREATE TABLE events (id INTEGER PRIMARY KEY, label TEXT NOT NULL);
    WITH RECURSIVE counter(id) AS
      (SELECT 1 UNION ALL SELECT id + 1 FROM counter WHERE id < ${ROWS})
    INSERT INTO events SELECT id, 'user_login from host ' || id FROM counter;
  `);
  return database;
}
