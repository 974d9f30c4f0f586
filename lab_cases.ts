/**
 * The cases of the lab in which something is altered or broken. Their steps are
 * the same for every pool: the specimen, the real one, and a learner's own.
 *
 * @module
 */

import { firstLineOf, messageOf } from "./errors.ts";
import {
  type Bench,
  type Borrowed,
  countIn,
  type Figures,
  type LabCase,
  lend,
  PATIENCE_MS,
  type Setting,
  type Watched,
} from "./lab_bench.ts";
import { holdLock } from "./lock_holder.ts";
import { short } from "./terminal.ts";

/** Lets a case speak of its own figures, and be one of many. */
export function define<F extends Figures>(one: LabCase<F>): LabCase {
  return one as unknown as LabCase;
}

/** A setting that is a count. */
export function count(standard: number, least: number, most: number): Setting {
  return { standard, least, most, isWhole: true };
}

/** A duration as a setting, in milliseconds. */
export function time(standard: number, most = 10_000): Setting {
  return { standard, least: 0, most, isWhole: false };
}

/** A number and what it counts. */
export function many(n: number, one: string, several = `${one}s`): string {
  return `${n.toLocaleString("en")} ${n === 1 ? one : several}`;
}

function ms(value: number): string {
  return `${short(value)} ms`;
}

/** Why a specimen has more connections than it may, where it has. */
function beyond(opened: number, limit: number): string {
  return opened > limit
    ? `, beyond its limit of ${limit}, as it counts a connection only once it is open`
    : "";
}

/** The first line of what was thrown, without a period of its own. */
function says(error: unknown): string {
  return firstLineOf(error).replace(/\.$/, "");
}

function errorOf(watched: Watched<unknown>): string | null {
  return watched.state === "failed" ? says(watched.error) : null;
}

/** How a promise fared, for the time line. */
function tell(watched: Watched<unknown>): string {
  if (watched.state === "failed") return `fails: ${errorOf(watched)}`;
  return watched.state === "done"
    ? "succeeds"
    : `still waits after ${short(watched.ms)} ms, and would for ever`;
}

// A process may be slow to say that it has let go.
const LOCK_PATIENCE_MS = 5000;

const alterTimeout = define({
  name: "alter-timeout",
  title: "How long to wait for a lock",
  assumption:
    "A write to a database that is locked waits by itself until the " +
    "lock is free.",
  question:
    "Another process holds the write lock for a moment. A task writes " +
    "meanwhile. What becomes of its row?",
  choices: [
    "It is written in both runs",
    "It is lost without a timeout, and written with one",
    "It is lost in both runs",
  ],
  settings: { timeoutMs: time(5000), holdMs: time(300, 3000) },
  startsProcess: true,
  guard: { file: "sqlite.ts", symbol: "SqliteConnection.#patiently" },
  experiment: {
    flag: "--timeout 0.001",
    look: "the error: it comes after the limit that you set, and names it",
  },
  async run(bench: Bench) {
    await bench.makeTable();
    const timeoutMs = bench.setting("timeoutMs");
    const forMs = bench.setting("holdMs");
    const pool = bench.pool({ poolSize: 1, timeoutMs });
    const connection = await pool.acquire();
    await using lock = await holdLock(bench.database, { forMs });
    bench.begin();
    bench.note("another process holds the write lock");
    let freedMs = 0;
    const freed = bench.beside(
      bench.watch(() => lock.freed, forMs + LOCK_PATIENCE_MS).then(() => {
        freedMs = bench.now();
        bench.note("the other process lets it go");
      }),
    );
    bench.note("a task writes a row");
    const writing = bench.watch(
      () =>
        connection.execute(`INSERT INTO ${bench.table} VALUES ('user_login')`),
      forMs + timeoutMs + PATIENCE_MS,
    ).then((watched) => {
      bench.note(`the write ${tell(watched)}`);
      return watched;
    });
    const [watched] = await Promise.all([writing, freed]);
    await pool.release(connection);
    return {
      written: watched.state === "done",
      answered_after_ms: watched.ms,
      lock_held_ms: freedMs,
      error: errorOf(watched),
      rows_in_the_database: await bench.countLabels(),
    };
  },
  holds: ({ written }) => written,
  outcome: ({ written, answered_after_ms, error }) =>
    written
      ? `The row was written after ${ms(answered_after_ms)}`
      : `The row was lost after ${ms(answered_after_ms)}: ${error}`,
  answer: ({ without, with: kept }) =>
    without.written ? 0 : kept.written ? 1 : 2,
  explain: ({ without, with: kept, setting }) =>
    `The lock was held for ${ms(without.lock_held_ms)} and ${
      ms(kept.lock_held_ms)
    }. ${
      without.written
        ? `The bare write came when it was free already, after ${
          ms(without.answered_after_ms)
        }`
        : `SQLite itself does not wait: the bare write gave up after ${
          ms(without.answered_after_ms)
        }`
    }. With timeoutMs at ${
      ms(setting("timeoutMs"))
    } the pool asks again until then, from a timer; ` +
    (kept.written
      ? `its write was done after ${ms(kept.answered_after_ms)}.`
      : `that limit was over before the lock was free, so the write failed too, after ${
        ms(kept.answered_after_ms)
      }, and the error says so.`),
});

const OVERFLOW = 10;

const alterPeak = define({
  name: "alter-peak",
  title: "How many connections a burst needs",
  assumption: "To know how many connections are in use it is enough to look " +
    "now and then.",
  question: "A burst of tasks takes connections and gives them back within a " +
    "few milliseconds. What does a monitor see that looks from a timer?",
  choices: [
    "All of it, as does a counter in the pool",
    "Less than the counter in the pool",
    "More than the counter in the pool",
  ],
  settings: {
    poolSize: count(5, 1, 50),
    tasks: count(7, 1, 200),
  },
  guard: { file: "pool_core.ts", symbol: "PoolCore.#move" },
  experiment: {
    flag: "--tasks 40",
    look: "the peak: it stops at the limit, five connections and ten more",
  },
  async run(bench: Bench) {
    const pool = bench.pool({
      poolSize: bench.setting("poolSize"),
      maxOverflow: OVERFLOW,
      acquireTimeoutMs: 5000,
    });
    let looks = 0;
    let seen = 0;
    const look = (): void => {
      looks++;
      seen = Math.max(seen, pool.stats().inUse);
    };
    let isWatching = true;
    const monitor = (): void => {
      look();
      if (isWatching) bench.clock.setTimer(monitor, 1);
    };
    bench.begin();
    monitor();
    let most = 0;
    for (const tasks of [2, bench.setting("tasks"), 3]) {
      bench.note(`${many(tasks, "task")} at once`);
      const full = Math.min(tasks, bench.setting("poolSize") + OVERFLOW);
      let holding = 0;
      let allHold = (): void => {};
      const gate = new Promise<void>((resolve) => allHold = resolve);
      const task = async (connection: Borrowed): Promise<void> => {
        most = Math.max(most, ++holding);
        if (holding === full) allHold();
        await gate;
        await connection.query("SELECT 1");
        holding--;
      };
      await Promise.all(
        Array.from({ length: tasks }, () => lend(pool, task)),
      );
      look();
      await bench.pass(2);
    }
    isWatching = false;
    await bench.pass(2);
    const { peak } = pool.stats();
    bench.note(
      peak === undefined
        ? `the monitor has seen ${seen} at most`
        : `the pool has counted ${peak} at most`,
    );
    return {
      most_in_use_at_once: most,
      peak_reported: peak ?? seen,
      looks_of_the_monitor: looks,
      seen_by_the_monitor: seen,
      connections_opened: bench.connected,
    };
  },
  holds: ({ most_in_use_at_once, peak_reported }) =>
    most_in_use_at_once === peak_reported,
  outcome: ({ most_in_use_at_once, peak_reported }) =>
    `${peak_reported} reported of ${most_in_use_at_once} that were in use at once`,
  answer: ({ without, with: kept }) =>
    Math.sign(without.seen_by_the_monitor - kept.peak_reported) === 0
      ? 0
      : without.seen_by_the_monitor < kept.peak_reported
      ? 1
      : 2,
  explain: ({ without, with: kept, setting }) =>
    `The monitor looked ${without.looks_of_the_monitor} times and saw ${without.seen_by_the_monitor} in use, of ${without.most_in_use_at_once}: a burst is over before a timer has its turn. The pool counts at the transition itself, where nothing can happen in between, and so reports ${kept.peak_reported} of ${kept.most_in_use_at_once}. It opened ${kept.connections_opened}; the specimen opened ${without.connections_opened}${
      beyond(without.connections_opened, setting("poolSize") + OVERFLOW)
    }.`,
});

const alterShrink = define({
  name: "alter-shrink",
  title: "Making a pool smaller while it works",
  assumption: "To make a pool smaller one closes connections until few " +
    "enough are left.",
  question:
    "Some connections are idle, three are in use. The pool is shrunk. " +
    "Who notices?",
  choices: [
    "Nobody in either run",
    "The holders and those who come next, without the guard",
    "Only those who come next, without the guard",
  ],
  settings: { poolSize: count(8, 3, 50), target: count(1, 0, 50) },
  onServer: true,
  guard: { file: "pool_core.ts", symbol: "PoolCore.shrink" },
  experiment: {
    flag: "--target 8",
    look: "both columns: with nothing to close they are alike",
  },
  async run(bench: Bench) {
    const poolSize = bench.setting("poolSize");
    const target = bench.setting("target");
    const pool = bench.pool({ poolSize });
    bench.begin();
    const held: Borrowed[] = [];
    for (let i = 0; i < poolSize; i++) held.push(await pool.acquire());
    bench.note(`a burst has opened ${many(poolSize, "connection")}`);
    for (const connection of held.splice(0, poolSize - 3)) {
      await pool.release(connection);
    }
    bench.note(`3 stay in use, ${poolSize - 3} are idle`);
    await pool.shrink?.(target);
    const { idle } = pool.stats();
    bench.note(`the pool is shrunk to ${target}: it says ${idle} idle`);
    const works = async (connection: Borrowed): Promise<boolean> =>
      (await bench.watch(() => connection.query("SELECT 1"))).state === "done";
    let holdersFailed = 0;
    for (const connection of held) {
      if (!await works(connection)) holdersFailed++;
    }
    bench.note(`${holdersFailed} of 3 holders fail`);
    for (const connection of held) await pool.release(connection);
    const { open: left } = pool.stats();
    let newcomersFailed = 0;
    const newcomers: Borrowed[] = [];
    for (let i = 0; i < 3; i++) {
      const got = await bench.watch(() => pool.acquire());
      if (got.state === "done") newcomers.push(got.value);
      if (got.state !== "done" || !await works(got.value)) newcomersFailed++;
    }
    bench.note(`${newcomersFailed} of 3 who come next fail`);
    return {
      idle_before: poolSize - 3,
      idle_to_be_left: target,
      idle_left: idle,
      open_when_all_are_back: left,
      holders_that_failed: holdersFailed,
      newcomers_that_failed: newcomersFailed,
      connections_opened: bench.connected,
    };
  },
  holds: (figures) =>
    figures.holders_that_failed + figures.newcomers_that_failed === 0 &&
    figures.idle_left ===
      Math.min(figures.idle_before, figures.idle_to_be_left),
  outcome: ({ holders_that_failed, newcomers_that_failed, ...figures }) =>
    holders_that_failed + newcomers_that_failed === 0
      ? `Nobody noticed, and of ${figures.idle_before} idle connections ${
        figures.idle_left === 1 ? "1 is" : `${figures.idle_left} are`
      } left`
      : `${holders_that_failed} of 3 holders and ${newcomers_that_failed} of 3 newcomers had a dead connection`,
  answer: ({ without }) =>
    without.holders_that_failed > 0
      ? 1
      : without.newcomers_that_failed > 0
      ? 2
      : 0,
  explain: ({ without, with: kept, setting }) =>
    `The specimen closes whatever comes last until it has ${
      setting("target")
    }, in use or not, and keeps what it closed in its list: ${without.holders_that_failed} of 3 holders failed in the midst of their work, and ${without.newcomers_that_failed} of the next 3. The pool takes only idle ones, those used longest ago first: of ${kept.idle_before} it kept ${kept.idle_left}, and ${
      kept.holders_that_failed + kept.newcomers_that_failed
    } of all six failed. What is in use is left alone: when all were back, ${kept.open_when_all_are_back} were open.`,
});

type SizeFigures = {
  readonly size: number;
  readonly made: boolean;
  readonly served: boolean;
  readonly answered_after_ms: number;
  readonly error: string | null;
};

const breakPoolSize = define<SizeFigures>({
  name: "break-pool-size",
  title: "A pool of no connections",
  assumption: "Nobody would make a pool of an impossible size, and who did " +
    "would see it at once.",
  question:
    "A pool is made with an impossible size, and a task asks it for a " +
    "connection. What happens without a check?",
  choices: [
    "Making the pool fails all the same",
    "The task waits, and nothing says why",
    "The task gets its connection",
  ],
  settings: {
    poolSize: { standard: 0, least: -1000, most: 1000, isWhole: false },
  },
  guard: { file: "config.ts", symbol: "ConnectionConfig" },
  demand: "Refuse, when the pool is made, a size that is no integer from 1 on.",
  experiment: {
    flag: "--pool-size 2",
    look: "both columns: a size that is possible works in both",
  },
  async run(bench: Bench): Promise<SizeFigures> {
    const size = bench.setting("poolSize");
    bench.begin();
    bench.note(`a pool of ${size} is made`);
    let pool;
    try {
      pool = bench.pool({ poolSize: size });
    } catch (error) {
      const answered_after_ms = bench.now();
      bench.note(`that fails: ${says(error)}`);
      return {
        ...{ size, made: false, served: false, answered_after_ms },
        error: says(error),
      };
    }
    bench.note("a task asks for a connection");
    const got = await bench.watch(() => pool.acquire());
    bench.note(`it ${tell(got)}`);
    if (got.state === "done") await pool.release(got.value);
    return {
      ...{ size, made: true, served: got.state === "done" },
      ...{ answered_after_ms: got.ms, error: errorOf(got) },
    };
  },
  holds: ({ size, made, served }) =>
    Number.isInteger(size) && size >= 1 ? served : !made,
  outcome: ({ made, served, answered_after_ms, error }) =>
    !made
      ? `Refused after ${ms(answered_after_ms)}: ${error}`
      : served
      ? "The task got its connection"
      : error !== null
      ? `The task failed after ${ms(answered_after_ms)}: ${error}`
      : `The task still had nothing after ${ms(answered_after_ms)}`,
  answer: ({ without }) => !without.made ? 0 : without.served ? 2 : 1,
  explain: ({ without, with: kept }) =>
    kept.made
      ? `A size of ${kept.size} is possible, and both pools work.`
      : `With a size of ${without.size} the specimen ${
        without.served
          ? "served the task all the same, as if another size had been asked for"
          : `let its caller wait, ${
            ms(without.answered_after_ms)
          } so far, for a connection that it will never open`
      }. The configuration is checked before anything is made: it was refused ${
        ms(kept.answered_after_ms)
      } after the start, in one line with the option, its rule and its value.`,
});

// Longer than the shortest waits of two attempts, shorter than those of five.
const LATE_MS = 60;

const breakBadPath = define({
  name: "break-bad-path",
  title: "A path that cannot be opened",
  assumption: "A database either can be opened or cannot, so one attempt " +
    "tells which.",
  question: "A folder is missing when a task asks for a connection, and is " +
    `there ${LATE_MS} ms later. Who gets the connection?`,
  choices: [
    "Both, as opening waits for it",
    "Only the pool that tries again",
    "Nobody",
  ],
  settings: { maxAttempts: count(5, 1, 10) },
  guard: { file: "pool_core.ts", symbol: "PoolCore.#connectFailed" },
  demand:
    "Try a connect that fails again, maxAttempts times in all, each wait twice the one before, then say what is wrong. A connect that failed costs no place.",
  experiment: {
    flag: "--max-attempts 1",
    look: "the path that comes late: one attempt is too few for it",
  },
  async run(bench: Bench) {
    const maxAttempts = bench.setting("maxAttempts");
    // Twice the sum of the longest waits.
    const patience = 20 * 2 ** maxAttempts * 2 + PATIENCE_MS;
    const request = { poolSize: 2, maxAttempts, acquireTimeoutMs: patience };
    bench.begin();
    bench.note("a task asks for a database in a folder that is not there");
    const bad = bench.pool({
      ...request,
      database: bench.file("no/events.db"),
    });
    const never = await bench.watch(() => bad.acquire(), patience);
    bench.note(`it ${tell(never)}`);
    const attempts = bench.connectsAtMs.length;
    const waits = bench.connectsAtMs.slice(1).map((atMs, i) =>
      atMs - (bench.connectsAtMs[i] ?? atMs)
    );
    bench.note("a task asks for one in a folder that is late");
    const pool = bench.pool({
      ...{ ...request, database: bench.file("late/events.db") },
    });
    const [late] = await Promise.all([
      bench.watch(() => pool.acquire(), patience).then((watched) => {
        bench.note(`the task ${tell(watched)}`);
        return watched;
      }),
      bench.pass(LATE_MS).then(async () => {
        await Deno.mkdir(bench.file("late"));
        bench.note("the folder is there");
      }),
    ]);
    if (late.state === "done") await pool.release(late.value);
    return {
      attempts_allowed: maxAttempts,
      attempts_on_the_missing_path: attempts,
      waits_between: waits.length === 0
        ? "none"
        : `${waits.map((wait) => Math.round(wait)).join(", ")} ms`,
      given_up_after_ms: never.ms,
      error: errorOf(never),
      names_the_path: never.state === "failed" &&
        says(never.error).includes("no/events.db"),
      attempts_on_the_late_path: bench.connectsAtMs.length - attempts,
      late_path_opened: late.state === "done",
    };
  },
  holds: ({ late_path_opened, error, ...figures }) =>
    late_path_opened && error !== null &&
    figures.attempts_on_the_missing_path === figures.attempts_allowed,
  outcome: (figures) =>
    `The missing path was given up after ${
      many(figures.attempts_on_the_missing_path, "attempt")
    } of ${figures.attempts_allowed}${
      figures.attempts_on_the_missing_path === 0 ? ` (${figures.error})` : ""
    }, the late one ${
      figures.late_path_opened
        ? `opened at attempt ${figures.attempts_on_the_late_path}`
        : `lost after ${many(figures.attempts_on_the_late_path, "attempt")}`
    }`,
  answer: ({ without, with: kept }) =>
    without.late_path_opened ? 0 : kept.late_path_opened ? 1 : 2,
  explain: ({ without, with: kept }) =>
    `The specimen made ${
      many(without.attempts_on_the_missing_path, "attempt")
    } and said: ${without.error}. The pool made ${kept.attempts_on_the_missing_path} within ${
      ms(kept.given_up_after_ms)
    }${
      kept.attempts_on_the_missing_path > 1
        ? `, with waits of ${kept.waits_between} in between`
        : ""
    }, then gave up and said: ${kept.error}. ` +
    (kept.late_path_opened
      ? `So it was still trying when the late folder came, and opened it at attempt ${kept.attempts_on_the_late_path}.`
      : "The late folder came too late for it as well."),
});

const breakClosedConnection = define({
  name: "break-closed-connection",
  title: "A connection that somebody closed",
  assumption: "What comes back to the pool is as good as when it left.",
  question: "One task closes its connection by hand and gives it back. How " +
    "many of the next tasks fail?",
  choices: ["None", "One, and then the pool has learned it", "All of them"],
  settings: { tasks: count(5, 1, 100) },
  onServer: true,
  guard: { file: "pool_core.ts", symbol: "PoolCore.release" },
  demand:
    "Look at what comes back: throw away what is closed or does not answer its ping, serve whoever waits with another, and lend the rest again instead of opening one for each task.",
  experiment: {
    flag: "--tasks 50",
    look: "how many fail: a dead connection in the list is not used up",
  },
  async run(bench: Bench) {
    const tasks = bench.setting("tasks");
    const poolSize = 2;
    const pool = bench.pool({ poolSize });
    bench.begin();
    const broken = await pool.acquire();
    bench.note("a task takes a connection");
    await broken.close();
    bench.note("it closes the connection itself");
    bench.note("and gives it back");
    // To refuse what is dead is as good as to take it and throw it away.
    await bench.watch(async () => await pool.release(broken));
    let failed = 0;
    let error: string | null = null;
    for (let i = 0; i < tasks; i++) {
      const watched = await bench.watch(
        () => lend(pool, (connection) => connection.query("SELECT 1")),
      );
      if (watched.state !== "done") {
        failed++;
        error ??= errorOf(watched);
      }
    }
    bench.note(
      `of the next ${many(tasks, "task")} ${
        failed === 1 ? "1 fails" : `${failed} fail`
      }${error === null ? "" : `: ${error}`}`,
    );
    return {
      pool_size: poolSize,
      tasks_after_it: tasks,
      failed,
      error,
      connections_opened: bench.connected,
    };
  },
  // One to replace it; a pool may have opened as many as it may beforehand.
  holds: ({ failed, connections_opened, pool_size }) =>
    failed === 0 && connections_opened <= pool_size + 1,
  outcome: ({ failed, tasks_after_it, error, connections_opened }) =>
    failed === 0
      ? `No task after it failed, of ${tasks_after_it}; ${
        many(connections_opened, "connection")
      } in all`
      : `${failed} of ${tasks_after_it} tasks after it failed: ${error}`,
  answer: ({ without: { failed, tasks_after_it } }) =>
    failed === 0 ? 0 : failed === tasks_after_it ? 2 : 1,
  explain: ({ without, with: kept }) =>
    `In the specimen the dead connection lay on top of the list, was taken, failed, and was put back: ${without.failed} of ${without.tasks_after_it} tasks failed, and so would every one to come. The pool looks at what comes back: it threw the dead one away and opened another, ${kept.connections_opened} in all, and ${kept.failed} failed.`,
});

const breakOpenTransaction = define({
  name: "break-open-transaction",
  title: "A transaction that nobody ended",
  assumption: "Who gives a connection back has finished with it.",
  question: "Ada inserts inside a transaction, forgets the commit, and gives " +
    "the connection back. Bob gets it, inserts a row and is told that it " +
    "worked. What is in the database in the end, without the guard?",
  choices: ["Bob's row only", "Ada's rows and Bob's", "Neither"],
  settings: { rows: count(1, 1, 1000) },
  onServer: true,
  guard: { file: "sqlite.ts", symbol: "SqliteConnection.reset" },
  guardOnServer: {
    file: "postgres_connection.ts",
    symbol: "PostgresConnection.reset",
  },
  demand:
    "Roll back what comes back inside a transaction; throw it away if that fails.",
  experiment: {
    flag: "--rows 100",
    look: "how many rows of somebody else's unfinished work Bob sees",
  },
  async run(bench: Bench) {
    await bench.makeTable();
    const rows = bench.setting("rows");
    const pool = bench.pool({ poolSize: 1 });
    bench.begin();
    const ada = await pool.acquire();
    await ada.execute("BEGIN");
    bench.note("Ada begins a transaction");
    for (let i = 0; i < rows; i++) {
      await ada.execute(`INSERT INTO ${bench.table} VALUES ('by Ada')`);
    }
    bench.note(`Ada inserts ${many(rows, "row")}`);
    await bench.watch(async () => await pool.release(ada));
    bench.note("Ada gives back, without a commit");
    const got = await bench.watch(() => pool.acquire());
    if (got.state !== "done") throw new Error("Bob was given no connection");
    const bob = got.value;
    const seen = await countIn(bob, bench.table);
    bench.note(`Bob gets a connection and sees ${many(seen, "row")}`);
    const insert = await bench.watch(
      () => bob.execute(`INSERT INTO ${bench.table} VALUES ('by Bob')`),
    );
    bench.note(`Bob inserts a row: it ${tell(insert)}`);
    const others = await bench.countLabels();
    bench.note(`the rest of the world sees ${many(others, "row")}`);
    await pool.release(bob);
    await pool.close();
    const left = await bench.countLabels();
    bench.note(
      `the program ends; ${many(left, "row")} ${left === 1 ? "stays" : "stay"}`,
    );
    return {
      rows_seen_by_bob: seen,
      told_that_it_worked: insert.state === "done",
      rows_seen_by_others: others,
      rows_that_stay: left,
    };
  },
  holds: ({ rows_seen_by_bob, rows_that_stay }) =>
    rows_seen_by_bob === 0 && rows_that_stay === 1,
  outcome: ({ rows_seen_by_bob, rows_that_stay, told_that_it_worked }) =>
    rows_seen_by_bob === 0 && rows_that_stay === 1
      ? "Bob saw nothing of Ada's, and his row stays"
      : `Bob saw ${many(rows_seen_by_bob, "row")} of Ada's, and ${
        rows_that_stay === 0 && told_that_it_worked
          ? "the row that he was told of is lost"
          : `${many(rows_that_stay, "row")} stay`
      }`,
  answer: ({ without: { rows_that_stay } }) =>
    rows_that_stay === 0 ? 2 : rows_that_stay === 1 ? 0 : 1,
  explain: ({ without, with: kept }) =>
    `Without a rollback Bob worked inside Ada's transaction: he saw ${
      many(without.rows_seen_by_bob, "row")
    } that nobody had committed, his insert ${
      without.told_that_it_worked ? "was reported as done" : "failed"
    }, others saw ${without.rows_seen_by_others}, and when the connection closed ${without.rows_that_stay} stayed. The pool rolls back what comes home open, before anybody else gets it: Bob saw ${kept.rows_seen_by_bob}, and ${kept.rows_that_stay} stayed, his own.`,
});

/** Kept so that no collector of garbage gives back what was forgotten. */
type Forgotten = Borrowed[];

async function exportReport(pool: { acquire(): Promise<Borrowed> }) {
  return await pool.acquire();
}

async function sendMail(pool: { acquire(): Promise<Borrowed> }) {
  return await pool.acquire();
}

async function chargeCard(pool: { acquire(): Promise<Borrowed> }) {
  return await pool.acquire();
}

const FORGETFUL = [exportReport, sendMail, chargeCard];

const breakLeak = define({
  name: "break-leak",
  title: "Connections that never come back",
  assumption: "Who asks for a connection gets one sooner or later.",
  question: "Three tasks take the three connections of a pool and forget to " +
    "give them back. What does the next one learn, without the guard?",
  choices: [
    "An error that says the pool is exhausted",
    "Nothing: it waits for ever",
    "Who has the connections",
  ],
  settings: { acquireTimeoutMs: time(300, 5000) },
  onServer: true,
  guard: { file: "pool_core.ts", symbol: "PoolCore.timeOut" },
  demand:
    "Let a wait end with an error after acquireTimeoutMs. Who has given up takes no connection away from the next.",
  experiment: {
    flag: "--acquire-timeout 1s",
    look: "when the caller is told, and by which names the holders are known",
  },
  async run(bench: Bench) {
    const acquireTimeoutMs = bench.setting("acquireTimeoutMs");
    const pool = bench.pool({
      ...{ poolSize: FORGETFUL.length, acquireTimeoutMs, leakDetectionMs: 100 },
    });
    bench.begin();
    const forgotten: Forgotten = [];
    for (const task of FORGETFUL) {
      forgotten.push(await task(pool));
      bench.note(`${task.name} takes a connection, and forgets it`);
    }
    bench.note("a fourth task asks for one");
    const got = await bench.watch(
      () => pool.acquire(),
      acquireTimeoutMs + PATIENCE_MS,
    );
    bench.note(`it ${tell(got)}`);
    const message = got.state === "failed" ? messageOf(got.error) : "";
    const named = FORGETFUL.filter(({ name }) => message.includes(name));
    return {
      answered: got.state !== "pending",
      answered_after_ms: got.ms,
      error: errorOf(got),
      holders_named: named.map(({ name }) => name).join(", ") || null,
      forgotten: forgotten.length,
      connections_opened: bench.connected,
    };
  },
  holds: ({ answered, error, connections_opened, forgotten }) =>
    answered && error !== null && connections_opened <= forgotten,
  outcome: ({ error, answered_after_ms, holders_named, answered }) =>
    !answered
      ? `Still waiting after ${ms(answered_after_ms)}, and nothing says why`
      : error === null
      ? "The fourth task got a connection beyond the limit"
      : `Told after ${ms(answered_after_ms)}${
        holders_named === null ? "" : `, with the holders: ${holders_named}`
      }`,
  answer: ({ without }) =>
    !without.answered ? 1 : without.holders_named === null ? 0 : 2,
  explain: ({ without, with: kept }) =>
    `The specimen has ${without.forgotten} connections, all of them forgotten: its caller was still waiting after ${
      ms(without.answered_after_ms)
    } and would be tomorrow. In the pool the wait has an end: after ${
      ms(kept.answered_after_ms)
    } the caller was told: ${kept.error}. With leakDetectionMs set (LeakDetector in leaks.ts) it also learned who had taken them: ${
      kept.holders_named ?? "nobody"
    }.`,
});

const breakNestedAcquire = define({
  name: "break-nested-acquire",
  title: "Holding one connection, and wanting another",
  assumption: "A task that holds a connection may well ask for another one.",
  question:
    "Each task holds a connection, as many as there are, and asks for " +
    "a second one before it gives the first back. How many finish, without " +
    "the guard?",
  choices: ["All", "All but one", "None"],
  settings: { tasks: count(3, 2, 50), poolSize: count(3, 2, 100) },
  onServer: true,
  guard: { file: "pool.ts", symbol: "ConnectionPool.#failIfHopeless" },
  demand:
    "Let no task wait for ever: to end the wait after acquireTimeoutMs will do.",
  experiment: {
    flag: "--pool-size 4",
    look: "how many finish: one connection more than tasks dissolves it",
  },
  async run(bench: Bench) {
    const tasks = bench.setting("tasks");
    const poolSize = bench.setting("poolSize");
    const pool = bench.pool({
      ...{ poolSize, detectNestedAcquire: true, acquireTimeoutMs: 300 },
    });
    bench.begin();
    const all: Promise<Watched<void>>[] = [];
    let askedMs = 0;
    let toldMs: number | null = null;
    let begin = (): void => {};
    const everybodyHolds = new Promise<void>((resolve) => begin = resolve);
    // As many as there can be; more would wait before they hold anything.
    const holders = Math.min(tasks, poolSize);
    for (let i = 0; i < tasks; i++) {
      let hold = (): void => {};
      const holds = new Promise<void>((resolve) => hold = resolve);
      const work = lend(pool, async () => {
        hold();
        await everybodyHolds;
        await lend(pool, async (second) => {
          await second.query("SELECT 1");
        });
      });
      all.push(bench.beside(
        bench.watch(() => work, PATIENCE_MS * 2).then((watched) => {
          if (watched.state !== "failed" || toldMs !== null) return watched;
          toldMs = bench.now() - askedMs;
          bench.note(`one is told: ${says(watched.error)}`);
          return watched;
        }),
      ));
      // A pool may fail to serve even this one.
      if (i < holders) await Promise.race([holds, work.catch(() => {})]);
    }
    bench.note(`${holders} tasks hold a connection each`);
    bench.note("each asks for a second one");
    askedMs = bench.now();
    begin();
    const ends = await Promise.all(all);
    const finished = ends.filter(({ state }) => state === "done").length;
    const failed = ends.filter(({ state }) => state === "failed").length;
    bench.note(`${finished} of ${tasks} have finished`);
    return {
      tasks,
      pool_size: poolSize,
      finished,
      told_that_it_cannot_be: failed,
      stuck_for_ever: ends.filter(({ state }) => state === "pending").length,
      told_after_ms: toldMs as number | null,
      connections_opened: bench.connected,
    };
  },
  holds: ({ stuck_for_ever }) => stuck_for_ever === 0,
  outcome: (figures) =>
    figures.stuck_for_ever > 0
      ? `${figures.stuck_for_ever} of ${figures.tasks} tasks are stuck for ever`
      : `${figures.finished} of ${figures.tasks} tasks finished, ${figures.told_that_it_cannot_be} told that it cannot be, with ${
        many(figures.connections_opened, "connection")
      } for a pool of ${figures.pool_size}`,
  answer: ({ without: { finished, tasks } }) =>
    finished === tasks ? 0 : finished === 0 ? 2 : 1,
  explain: ({ without, with: kept }) =>
    without.stuck_for_ever === 0
      ? `With a connection to spare, or more, the tasks could finish: ${kept.finished} of ${kept.tasks} with the guard, on ${
        many(kept.connections_opened, "connection")
      }, and ${without.finished} without it, on ${without.connections_opened}${
        beyond(without.connections_opened, without.pool_size)
      }. With as many tasks as connections nobody finishes.`
      : `Every holder waited for another holder: ${without.stuck_for_ever} of ${without.tasks} were stuck, and no timeout of a query would have helped, as there was no query. The pool knows which task holds what; when the last of them asked, it saw that nobody was left to give anything back, and told it so after ${
        ms(kept.told_after_ms ?? NaN)
      }. Its first connection came back: ${kept.finished} of ${kept.tasks} finished, and ${kept.told_that_it_cannot_be} ${
        kept.told_that_it_cannot_be === 1 ? "was" : "were"
      } told.`,
});

const breakMemoryDatabase = define({
  name: "break-memory-database",
  title: "Several connections to :memory:",
  assumption: "All connections to ':memory:' see the same database.",
  question:
    "One task makes a table in ':memory:' and keeps its connection for " +
    "a moment. Others read the table meanwhile. How many find it?",
  choices: ["All, in both runs", "None, without the guard", "Nobody ever"],
  settings: { tasks: count(4, 1, 50), poolSize: count(3, 1, 50) },
  guard: { file: "sqlite.ts", symbol: "SqliteDriver.isSingleton" },
  demand:
    "Open one connection to ':memory:', whatever the size, and let everybody wait for it.",
  experiment: {
    flag: "--pool-size 1",
    look: "both columns: with one connection the specimen is right, by chance",
  },
  async run(bench: Bench) {
    const tasks = bench.setting("tasks");
    const pool = bench.pool({
      database: ":memory:",
      poolSize: bench.setting("poolSize"),
      acquireTimeoutMs: 5000,
    });
    bench.begin();
    const maker = await pool.acquire();
    await maker.execute("CREATE TABLE events (label TEXT)");
    await maker.execute("INSERT INTO events VALUES ('user_login')");
    bench.note("a task makes a table with 1 row, and keeps its connection");
    const reading = bench.beside(Promise.all(
      Array.from({ length: tasks }, () =>
        bench.watch(
          () => lend(pool, (connection) => countIn(connection, "events")),
          PATIENCE_MS * 2,
        )),
    ));
    bench.note(`${many(tasks, "task")} ask for it`);
    await bench.pass(10);
    bench.note("the first task gives its connection back");
    await pool.release(maker);
    const read = await reading;
    const failed = read.filter(({ state }) => state !== "done");
    const error = failed[0] === undefined ? null : errorOf(failed[0]);
    bench.note(
      `${tasks - failed.length} of ${tasks} found the row${
        error === null ? "" : `; ${error}`
      }`,
    );
    return {
      readers: tasks,
      readers_that_found_it: tasks - failed.length,
      error,
      databases: bench.connected,
    };
  },
  holds: ({ readers, readers_that_found_it }) =>
    readers === readers_that_found_it,
  outcome: ({ readers, readers_that_found_it, error, databases }) =>
    `${readers_that_found_it} of ${readers} found the row, in ${
      many(databases, "database")
    }${error === null ? "" : `: ${error}`}`,
  answer: ({ without, with: kept }) =>
    without.readers_that_found_it === without.readers
      ? 0
      : kept.readers_that_found_it > 0
      ? 1
      : 2,
  explain: ({ without, with: kept, setting }) =>
    `Each connection to ':memory:' is a database of its own. The specimen opened ${
      many(without.databases, "connection")
    }${beyond(without.databases, setting("poolSize"))}, and ${
      without.error === null
        ? "so nobody could miss the table, by chance"
        : `${
          without.readers - without.readers_that_found_it
        } of ${without.readers} tasks looked in one without the table (${without.error})`
    }. The pool opened ${kept.databases} whatever its size, and lets the others wait for it: ${kept.readers_that_found_it} of ${kept.readers} found the row. Nor does it ever close that one, as the data would go with it.`,
});

const BEAT_MS = 10;

const breakBlockingLock = define({
  name: "break-blocking-lock",
  title: "Waiting for a lock without standing still",
  assumption: "While one task waits for a lock, the others go on.",
  question: "A task waits for a lock of another process. A heart beats every " +
    `${BEAT_MS} ms in the same program. Does it go on beating if SQLite itself ` +
    "does the waiting?",
  choices: [
    "Yes, a wait is a wait",
    "It stops until the wait is over",
    "It misses a beat or two",
  ],
  settings: { timeoutMs: time(5000), holdMs: time(400, 3000) },
  startsProcess: true,
  guard: { file: "sqlite.ts", symbol: "SqliteConnection.#patiently" },
  demand:
    "Lend connections whose statements, when the database is locked, are tried again from a timer until timeoutMs is over.",
  experiment: {
    flag: "--hold 1s",
    look: "the longest pause: without the guard it is as long as the lock",
  },
  async run(bench: Bench) {
    await bench.makeTable();
    const timeoutMs = bench.setting("timeoutMs");
    const forMs = bench.setting("holdMs");
    const pool = bench.pool({ poolSize: 1, timeoutMs, waitsInSqlite: true });
    const connection = await pool.acquire();
    await using lock = await holdLock(bench.database, { forMs });
    bench.begin();
    bench.note("another process holds the write lock");
    let lastMs = bench.now();
    let longest = 0;
    let beats = 0;
    let isAlive = true;
    const beat = (): void => {
      longest = Math.max(longest, bench.now() - lastMs);
      lastMs = bench.now();
      beats++;
      if (isAlive) bench.clock.setTimer(beat, BEAT_MS);
    };
    bench.clock.setTimer(beat, BEAT_MS);
    await bench.pass(BEAT_MS * 3);
    bench.note("a task writes a row");
    const freed = bench.beside(
      bench.watch(() => lock.freed, forMs + LOCK_PATIENCE_MS).then(() =>
        bench.note("the program hears that the lock is free")
      ),
    );
    const written = await bench.watch(
      () =>
        connection.execute(`INSERT INTO ${bench.table} VALUES ('user_login')`),
      forMs + timeoutMs + PATIENCE_MS,
    );
    bench.note(`the write ${tell(written)}`);
    await bench.pass(BEAT_MS * 3);
    isAlive = false;
    await bench.pass(BEAT_MS * 2);
    bench.note(`the heart has stood still for ${short(longest)} ms at most`);
    await freed;
    await pool.release(connection);
    return {
      written: written.state === "done",
      error: errorOf(written),
      timeout_ms: timeoutMs,
      longest_pause_ms: longest,
      heart_beats: beats,
      answered_after_ms: written.ms,
    };
  },
  // A wait as short as a beat or two is felt by nobody.
  holds: ({ written, longest_pause_ms, answered_after_ms, timeout_ms }) =>
    (written || answered_after_ms >= timeout_ms) &&
    longest_pause_ms < Math.max(3 * BEAT_MS, answered_after_ms / 2),
  outcome: ({ written, longest_pause_ms, heart_beats, error }) =>
    `${
      written ? "Written" : `Not written (${error})`
    }; the program stood still for ${
      ms(longest_pause_ms)
    } at most, with ${heart_beats} beats`,
  answer: ({ without: { longest_pause_ms, answered_after_ms } }) =>
    longest_pause_ms <= 2 * BEAT_MS
      ? 0
      : longest_pause_ms >= answered_after_ms / 2
      ? 1
      : 2,
  explain: ({ without, with: kept }) =>
    without.longest_pause_ms < 3 * BEAT_MS
      ? `The wait was too short to be felt: ${
        ms(without.longest_pause_ms)
      } without a beat inside SQLite, ${ms(kept.longest_pause_ms)} outside.`
      : `SQLite's busy timeout waits inside the one thread that the program has: nothing else ran for ${
        ms(without.longest_pause_ms)
      }, no timer, no request, nor the task that might have ended the wait. The pool keeps SQLite's own timeout at 0, and asks again from a timer: the longest pause was ${
        ms(kept.longest_pause_ms)
      }, the heart beat ${
        many(kept.heart_beats, "time")
      } and not ${without.heart_beats}, and the write ${
        kept.written ? "was done" : "was given up"
      } after ${ms(kept.answered_after_ms)}.`,
});

const HERD_PAUSE_MS = 20;

const breakThunderingHerd = define({
  name: "break-thundering-herd",
  title: "Everybody at the door at once",
  assumption: "A database that is down is not harmed by tasks that try again " +
    "until it is back.",
  question: "Many tasks want a connection while the database is down for a " +
    `moment; each tries again ${HERD_PAUSE_MS} ms after a failure. How many ` +
    "connects does a database get that cannot answer?",
  choices: [
    "As many as there are connections in the pool",
    "As many as there are tasks",
    "Several times as many as there are tasks",
  ],
  settings: { tasks: count(100, 1, 1000), outageMs: time(400, 3000) },
  guard: { file: "breaker.ts", symbol: "ConnectBreaker" },
  demand:
    "While the database is down let one connect at a time stand for all who wait, and wait between two.",
  experiment: {
    flag: "--tasks 400",
    look: "connects while it is down: the guard's do not grow with the tasks",
  },
  async run(bench: Bench) {
    const tasks = bench.setting("tasks");
    const outageMs = bench.setting("outageMs");
    const pool = bench.pool({
      database: bench.file("away/events.db"),
      poolSize: 5,
      acquireTimeoutMs: outageMs + 5000,
    });
    bench.begin();
    bench.note(`the database is down; ${many(tasks, "task")} want it`);
    const giveUpMs = outageMs + 3000;
    let served = 0;
    let lastMs = 0;
    let error: string | null = null;
    const client = async (): Promise<void> => {
      while (bench.now() < giveUpMs) {
        try {
          await lend(pool, (connection) => connection.query("SELECT 1"));
          served++;
          lastMs = bench.now();
          return;
        } catch (failure) {
          // Down; that is what this is about.
          error = says(failure);
        }
        await bench.pass(HERD_PAUSE_MS);
      }
    };
    const work = bench.beside(
      Promise.all(Array.from({ length: tasks }, client)),
    );
    await bench.pass(outageMs);
    const whileDown = bench.connectsAtMs.length;
    const backMs = bench.now();
    await Deno.mkdir(bench.file("away"));
    bench.note(`the database is back, after ${many(whileDown, "connect")}`);
    await bench.watch(() => work, giveUpMs - bench.now() + PATIENCE_MS);
    const back = bench.connectsAtMs.length - whileDown;
    const downAtMs = bench.connectsAtMs.slice(0, whileDown);
    if (served > 0) {
      bench.note(
        `${served} served, after ${many(back, "more connect")}`,
        lastMs,
      );
    }
    return {
      tasks,
      outage_ms: outageMs,
      connects_while_down: whileDown,
      most_connects_in_10_ms_while_down: mostWithin(downAtMs, 10),
      connects_afterwards: back,
      served,
      all_served_after_ms: served === tasks ? lastMs - backMs : null,
      last_error: served === tasks ? null : error as string | null,
    };
  },
  // One at a time that waits a little after a failure makes one in 10 ms at most.
  holds: ({ tasks, served, outage_ms, connects_while_down }) =>
    served === tasks && connects_while_down > 0 &&
    connects_while_down <= Math.max(5, outage_ms / 10),
  outcome: (figures) =>
    `${
      many(figures.connects_while_down, "connect")
    } at a database that was down, up to ${figures.most_connects_in_10_ms_while_down} within 10 ms; ${figures.served} of ${figures.tasks} tasks served${
      figures.last_error === null ? "" : ` (${figures.last_error})`
    }`,
  answer: ({ without: { connects_while_down: n, tasks } }) =>
    n <= 5 ? 0 : n <= tasks * 1.5 ? 1 : 2,
  explain: ({ without, with: kept }) =>
    `With every task at the door by itself there were ${
      many(without.connects_while_down, "connect")
    } while nobody could answer, ${
      short(without.connects_while_down / without.tasks)
    } for each task and up to ${without.most_connects_in_10_ms_while_down} within 10 ms: work that a server does for nobody, while it tries to get up. In the pool one connect at a time stands for all: ${kept.connects_while_down} while it was down, and ${kept.connects_afterwards} afterwards. ${
      kept.all_served_after_ms === null || without.all_served_after_ms === null
        ? `${kept.served} of its tasks were served, and ${without.served} of the herd.`
        : `${
          kept.all_served_after_ms > without.all_served_after_ms
            ? "The price is patience: its"
            : "Its"
        } tasks were served within ${
          ms(kept.all_served_after_ms)
        } of the return, those of the herd within ${
          ms(without.all_served_after_ms)
        }.`
    }`,
});

function mostWithin(timesMs: readonly number[], windowMs: number): number {
  let most = 0;
  let from = 0;
  for (const [i, atMs] of timesMs.entries()) {
    while ((timesMs[from] ?? atMs) < atMs - windowMs) from++;
    most = Math.max(most, i - from + 1);
  }
  return most;
}

const breakDoubleRelease = define({
  name: "break-double-release",
  title: "A connection that is given back twice",
  assumption: "To give a connection back once more does no harm.",
  question: "Ada gives her connection back, Bob takes it, and Ada gives it " +
    "back once more. Cleo takes one too. Bob inserts a row in a transaction. " +
    "Is it there in the end, without the guard?",
  choices: [
    "Yes",
    "No: Cleo's rollback takes it along",
    "Yes, and Cleo waits until he is done",
  ],
  settings: { releases: count(2, 1, 5) },
  guard: { file: "pooled_connection.ts", symbol: "PooledConnection.surrender" },
  demand:
    "Give each borrower an object of its own that ends with its release, so that a second one, however late, changes nothing.",
  experiment: {
    flag: "--releases 1",
    look: "both columns: given back once, nothing is wrong",
  },
  async run(bench: Bench) {
    await bench.makeTable();
    const releases = bench.setting("releases");
    const pool = bench.pool({ poolSize: 3 });
    bench.begin();
    const ada = await pool.acquire();
    await pool.release(ada);
    bench.note("Ada gives a connection back");
    const bob = await pool.acquire();
    bench.note("Bob takes one");
    let refused: string | null = null;
    for (let i = 1; i < releases; i++) {
      const again = await bench.watch(async () => await pool.release(ada));
      refused ??= errorOf(again);
      bench.note(
        again.state === "done"
          ? "Ada gives hers back once more"
          : `Ada gives hers back once more: it ${tell(again)}`,
      );
    }
    const cleo = await pool.acquire();
    bench.note(
      `Cleo takes one: ${many(bench.connected, "connection")} for the two`,
    );
    await bob.execute("BEGIN");
    await bob.execute(`INSERT INTO ${bench.table} VALUES ('by Bob')`);
    bench.note("Bob begins a transaction and inserts a row");
    const began = await bench.watch(() => cleo.execute("BEGIN"));
    bench.note(`Cleo begins one too: it ${tell(began)}`);
    await bench.watch(() => cleo.execute("ROLLBACK"));
    bench.note("Cleo rolls hers back");
    const commit = await bench.watch(() => bob.execute("COMMIT"));
    bench.note(`Bob commits: it ${tell(commit)}`);
    await pool.release(bob);
    if (cleo !== bob) await pool.release(cleo);
    const rows = await bench.countLabels();
    bench.note(`the database has ${many(rows, "row")}`);
    return {
      second_release_refused: refused !== null,
      connections_for_two_borrowers: bench.connected,
      error_of_cleo: errorOf(began),
      error_of_bob: errorOf(commit),
      rows_that_stay: rows,
    };
  },
  holds: ({ rows_that_stay, error_of_bob }) =>
    rows_that_stay === 1 && error_of_bob === null,
  outcome: ({ rows_that_stay, error_of_bob, second_release_refused }) =>
    rows_that_stay === 1
      ? `Bob's row is there${
        second_release_refused ? "; the second release was refused" : ""
      }`
      : `Bob's row is lost: ${error_of_bob}`,
  answer: ({ without }) => without.rows_that_stay === 1 ? 0 : 1,
  explain: ({ without, with: kept }) =>
    without.rows_that_stay === 1
      ? "Given back once, a connection has one borrower in both pools, and Bob's row stays."
      : `In the specimen the connection was free again while Bob had it, and so ${without.connections_for_two_borrowers} connection had two borrowers: Cleo could not begin (${without.error_of_cleo}), cleaned up with a rollback, and took Bob's row along (${without.error_of_bob}). In the pool each loan has a handle of its own that ends with its release: the second release ${
        kept.second_release_refused ? "was refused" : "passed"
      }, ${kept.connections_for_two_borrowers} connections served two borrowers, and ${kept.rows_that_stay} row stayed.`,
});

/** The cases of the exercise in which something is altered or broken. */
export const EXERCISE_CASES: readonly LabCase[] = [
  ...[alterTimeout, alterPeak, alterShrink],
  ...[breakPoolSize, breakBadPath, breakClosedConnection],
];

/** What else breaks a pool. */
export const FURTHER_CASES: readonly LabCase[] = [
  ...[breakOpenTransaction, breakLeak, breakNestedAcquire],
  ...[breakMemoryDatabase, breakBlockingLock, breakThunderingHerd],
  breakDoubleRelease,
];
