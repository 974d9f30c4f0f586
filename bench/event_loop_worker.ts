/**
 * Writes to a database that another process has locked, and measures how late
 * a timer fires meanwhile.
 *
 *     event_loop_worker.ts nothing|pool|native DATABASE
 *
 * Prints the worst lateness in milliseconds.
 *
 * @module
 */

import { fromFileUrl } from "@std/path";
import { DatabaseSync } from "node:sqlite";
import { ConnectionPool } from "../pool.ts";

const TICK_MS = 5;
const LOCK_MS = 2000;
const TIMEOUT_MS = 5000;
const INSERT = "INSERT INTO events (label) VALUES ('user_login')";

type Writer = () => Promise<void>;

// What a writer needs is made beforehand: only its waiting is measured.
const WRITERS: Record<string, (path: string) => Promise<Writer>> = {
  nothing: () =>
    Promise.resolve(() =>
      new Promise((resolve) => setTimeout(resolve, LOCK_MS))
    ),
  async pool(path) {
    const pool = new ConnectionPool({ database: path, timeoutMs: TIMEOUT_MS });
    await pool.use((connection) => connection.ping());
    return () =>
      pool.transaction(async (connection) => {
        await connection.execute(INSERT);
      });
  },
  native(path) {
    const database = new DatabaseSync(path, { timeout: TIMEOUT_MS });
    return Promise.resolve(() => Promise.resolve(void database.exec(INSERT)));
  },
};

/** Has another process lock the database; it ends when it lets go. */
async function lockElsewhere(path: string): Promise<Deno.ChildProcess> {
  const holder = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-config",
      "-A",
      fromFileUrl(new URL("lock_holder.ts", import.meta.url)),
      path,
      String(LOCK_MS),
    ],
    stdout: "piped",
  }).spawn();
  const reader = holder.stdout.getReader();
  if ((await reader.read()).done) throw new Error("Cannot lock the database");
  reader.releaseLock();
  return holder;
}

/** How late the timer fires, at worst, while `work` is under way. */
async function worstLatenessMs(work: () => Promise<void>): Promise<number> {
  let dueMs = performance.now() + TICK_MS;
  let worstMs = 0;
  const look = (): void => {
    const nowMs = performance.now();
    worstMs = Math.max(worstMs, nowMs - dueMs);
    dueMs = nowMs + TICK_MS;
  };
  const timer = setInterval(look, TICK_MS);
  await work();
  clearInterval(timer);
  // A timer that could not fire at all is late as well.
  look();
  return worstMs;
}

const [name = "", path = ""] = Deno.args;
const makeWriter = WRITERS[name];
if (makeWriter === undefined) throw new TypeError(`No writer '${name}'`);
{
  using database = new DatabaseSync(path);
  database.exec(
    "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS events (label TEXT)",
  );
}
const write = await makeWriter(path);
const holder = await lockElsewhere(path);
console.log(await worstLatenessMs(write));
await holder.status;
Deno.exit();
