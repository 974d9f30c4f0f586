/**
 * The lab: each case shows what its guard is there for, in words made of what
 * was measured.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import {
  choicesOf,
  LAB_CASES,
  type LabOptions,
  type LabRun,
  runCase,
} from "./lab.ts";
import type {
  Bench,
  Figure,
  FigureRow,
  Figures,
  LabEvent,
  SettingName,
} from "./lab_bench.ts";
import { alignEvents, casesJson, runText } from "./lab_report.ts";
import { FILES_AND_PROCESSES, temporaryFolder } from "./testing.ts";
import { PostgresDriver } from "./postgres.ts";
import { SERVER, TestServer } from "./postgres_testing.ts";
import { settled } from "./virtual_clock.ts";

const NONE = "none" as const;

function caseNamed(name: string) {
  const lab = LAB_CASES.find((lab) => lab.name === name);
  assert(lab !== undefined, name);
  return lab;
}

/** Runs a case in a folder of the tests, which is empty afterwards. */
async function run(
  name: string,
  settings: { [name in SettingName]?: number } = {},
  options: LabOptions = {},
): Promise<LabRun> {
  await using folder = await temporaryFolder();
  const ran = await runCase(caseNamed(name), {
    ...{ settings, folder: folder.path },
    ...options,
  });
  assertEquals([...Deno.readDirSync(folder.path)], [], "something is left");
  return ran;
}

/** A figure that is a number. */
function n(figures: Figures | FigureRow, name: string): number {
  const figure = figures[name];
  assert(typeof figure === "number", `${name} is ${figure}`);
  return figure;
}

/** The rows of a figure that is a table. */
function rowsOf(figure: Figure | undefined): readonly FigureRow[] {
  assert(Array.isArray(figure));
  return figure as readonly FigureRow[];
}

/** The row of a table that is about `name`. */
function rowOf(figure: Figure | undefined, name: string): FigureRow {
  const row = rowsOf(figure).find((row) => Object.values(row)[0] === name);
  assert(row !== undefined, name);
  return row;
}

type Difference = (without: Figures, with_: Figures) => void;

/** What each case must show, and the reason in its name. */
const DIFFERENCES: Readonly<Record<string, readonly [string, Difference]>> = {
  "alter-timeout": [
    "a write fails at once beside a lock, and with a timeout waits for it",
    (without, kept) => {
      assertEquals([without["written"], kept["written"]], [false, true]);
      assertEquals(without["rows_in_the_database"], 0);
      assertEquals(kept["rows_in_the_database"], 1);
      assert(n(kept, "answered_after_ms") >= 290);
    },
  ],
  "alter-peak": [
    "a monitor on a timer misses a burst that the pool's own count has",
    (without, kept) => {
      assertEquals(kept["peak_reported"], 7);
      assertEquals(kept["most_in_use_at_once"], 7);
      assert(n(without, "peak_reported") < n(without, "most_in_use_at_once"));
    },
  ],
  "alter-shrink": [
    "shrinking kills connections in use, or only those that nobody has",
    (without, kept) => {
      assertEquals(kept["holders_that_failed"], 0);
      assertEquals(kept["newcomers_that_failed"], 0);
      assertEquals([kept["idle_before"], kept["idle_left"]], [5, 1]);
      assert(n(without, "holders_that_failed") > 0);
      assert(n(without, "newcomers_that_failed") > 0);
    },
  ],
  "break-pool-size": [
    "a pool of size 0 lets its caller wait for ever, or is never made",
    (without, kept) => {
      assertEquals([without["made"], without["served"]], [true, false]);
      assertEquals(kept["made"], false);
    },
  ],
  "break-bad-path": [
    "one attempt misses a path that comes late, several find it and name it",
    (without, kept) => {
      assertEquals(without["attempts_on_the_missing_path"], 1);
      assertEquals(without["late_path_opened"], false);
      assertEquals(kept["attempts_on_the_missing_path"], 5);
      assertEquals(kept["late_path_opened"], true);
      assertEquals(kept["names_the_path"], true);
    },
  ],
  "break-closed-connection": [
    "a dead connection fails every task after it, or is thrown away",
    (without, kept) => {
      assertEquals([without["failed"], kept["failed"]], [5, 0]);
      assertEquals(kept["connections_opened"], 2);
    },
  ],
  "explain-context-managers": [
    "tasks that throw exhaust a pool in a minute, and with using never",
    (without, kept) => {
      assertEquals(without["connections_lost"], without["limit"]);
      assert(n(without, "exhausted_after_ms") < 30_000);
      assert(n(without, "refused_after_30_s") > 100);
      assertEquals(kept["connections_lost"], 0);
      assertEquals(kept["exhausted_after_ms"], null);
      assert(n(kept, "threw_by_themselves") > 30);
      const all = n(kept, "served") + n(kept, "threw_by_themselves");
      assertEquals(all, kept["requests"]);
    },
  ],
  "explain-pooling": [
    "each query opens a connection of its own, or all share one",
    (without, kept) => {
      assertEquals(without["connections_opened"], 1000);
      assertEquals(kept["connections_opened"], 1);
      // What a benchmark says with care must not be decided here.
      assert(
        n(without, "sqlite_us_per_query") > n(kept, "sqlite_us_per_query"),
      );
    },
  ],
  "explain-backoff": [
    "the exponent bounds traffic, jitter breaks the crowd, a budget ends the overload",
    (without, kept) => {
      assertEquals(without["most_per_100_ms_after_it"], 1000);
      assert(n(kept, "most_per_100_ms_after_it") < 100);
      const fixed = rowOf(without["policies"], "fixed delay");
      const exponential = rowOf(without["policies"], "exponent alone");
      assertEquals(n(exponential, "most_per_100_ms_after_it"), 1000);
      const each = "attempts_while_down";
      assert(n(exponential, each) < n(fixed, each) / 2);
      // Retries keep up an overload that ends without them, jitter or not.
      const ends = "overload_ends_after_ms";
      const jittered = rowOf(kept["policies"], "exponent, jitter");
      const none = rowOf(kept["policies"], "no retries at all");
      assertEquals([without[ends], jittered[ends]], [null, null]);
      assert(n(none, ends) < 40_000);
      assert(n(kept, ends) < 40_000);
    },
  ],
  "explain-sizing": [
    "a burst never drains from a pool that is too large, and does from a smaller one",
    (without, kept) => {
      assert(n(without, "waiting_at_the_end") > 1000);
      assertEquals(Math.round(n(kept, "waiting_at_the_end")), 0);
      assert(n(without, "served_per_s") < n(kept, "served_per_s"));
      // Too small is not right either: it waits, and the queries are no slower.
      const [small, , , sweet, , , large] = rowsOf(kept["sweep"]);
      assert(small !== undefined && sweet !== undefined && large !== undefined);
      assert(n(small, "served_per_s") < n(sweet, "served_per_s") / 1.5);
      assert(n(small, "mean_wait_ms") > 10 * n(sweet, "mean_wait_ms"));
      assert(n(large, "mean_query_ms") > 5 * n(sweet, "mean_query_ms"));
    },
  ],
  "break-open-transaction": [
    "a transaction left open swallows the next holder's row, or is rolled back",
    (without, kept) => {
      assertEquals(without["rows_seen_by_bob"], 1);
      assertEquals(without["told_that_it_worked"], true);
      assertEquals(without["rows_that_stay"], 0);
      assertEquals(kept["rows_seen_by_bob"], 0);
      assertEquals(kept["rows_that_stay"], 1);
    },
  ],
  "break-leak": [
    "whoever comes after three leaks waits for ever, or is told who has them",
    (without, kept) => {
      assertEquals(without["answered"], false);
      assertEquals(kept["answered"], true);
      assertEquals(
        kept["holders_named"],
        "exportReport, sendMail, chargeCard",
      );
    },
  ],
  "break-nested-acquire": [
    "tasks that want two connections each are stuck, or one is told and the rest go on",
    (without, kept) => {
      assertEquals([without["stuck_for_ever"], without["finished"]], [3, 0]);
      assertEquals([kept["stuck_for_ever"], kept["finished"]], [0, 2]);
      // Not by opening more than it may.
      assert(n(kept, "connections_opened") <= n(kept, "pool_size"));
      // By detection, long before the timeout of 300 ms.
      assert(n(kept, "told_after_ms") < 300);
    },
  ],
  "break-memory-database": [
    "each connection to :memory: sees a database of its own, or all see one",
    (without, kept) => {
      assertEquals(without["readers_that_found_it"], 0);
      assertEquals([kept["readers_that_found_it"], kept["databases"]], [4, 1]);
    },
  ],
  "break-blocking-lock": [
    "waiting inside SQLite stops the program, waiting outside does not",
    (without, kept) => {
      assert(n(without, "longest_pause_ms") > 200);
      assert(n(kept, "longest_pause_ms") < 200);
      assertEquals(kept["written"], true);
      assert(n(kept, "heart_beats") > n(without, "heart_beats"));
    },
  ],
  "break-thundering-herd": [
    "a hundred tasks storm a database that is down, or one connect stands for all",
    (without, kept) => {
      assert(n(without, "connects_while_down") >= 200);
      assert(n(kept, "connects_while_down") <= 10);
      assertEquals([without["served"], kept["served"]], [100, 100]);
    },
  ],
  "break-double-release": [
    "one connection has two borrowers and a row is lost, or the release is refused",
    (without, kept) => {
      assertEquals(without["connections_for_two_borrowers"], 1);
      assertEquals(without["rows_that_stay"], 0);
      assertEquals(kept["second_release_refused"], true);
      assertEquals(kept["connections_for_two_borrowers"], 2);
      assertEquals(kept["rows_that_stay"], 1);
    },
  ],
};

for (const [name, [reason, differ]] of Object.entries(DIFFERENCES)) {
  Deno.test(`lab ${name}: ${reason}`, {
    permissions: FILES_AND_PROCESSES,
  }, async () => {
    const ran = await run(name);
    const { result } = ran;
    differ(result.without_guard.figures, result.with_guard.figures);
    assert(ran.isShown, "it must show a difference as it stands");
    // The contract with machines, and no key more.
    assertEquals(Object.keys(result), [
      ...["case", "title", "assumption", "without_guard", "with_guard"],
      ...["explanation", "guard"],
    ]);
    for (const side of [result.without_guard, result.with_guard]) {
      assertEquals(Object.keys(side), ["events", "outcome", "figures"]);
      assert(side.events.length > 0);
      for (const { at_ms } of side.events) assert(at_ms >= 0);
    }
    assertNotEquals(result.without_guard.outcome, result.with_guard.outcome);
    for (const line of runText(ran).split("\n")) {
      assert(line.length <= 80, line);
    }
    // The words are made of figures, and say none that was not measured.
    const words = `${result.explanation} ${result.with_guard.outcome}`;
    assert(/\d/.test(words) && !/NaN|undefined|null/.test(words), words);
  });
}

Deno.test("the lab has every case that was promised, each with a test", {
  permissions: NONE,
}, () => {
  assertEquals(
    LAB_CASES.map(({ name }) => name).toSorted(),
    Object.keys(DIFFERENCES).toSorted(),
  );
});

Deno.test(
  "what the lab says comes from what it measured: other settings, other words",
  { permissions: FILES_AND_PROCESSES },
  async () => {
    const few = await run("break-closed-connection", { tasks: 2 });
    assert(few.result.explanation.includes("2 of 2 tasks failed"));
    const many = await run("break-closed-connection", { tasks: 31 });
    assert(many.result.explanation.includes("31 of 31 tasks failed"));
    // Where nothing goes wrong it claims no difference, and another answer.
    const once = await run("break-double-release", { releases: 1 });
    assertEquals(once.isShown, false);
    assert(runText(once).includes("all goes well without the guard"));
    const twice = await run("break-double-release", { releases: 2 });
    assertNotEquals(once.answer, twice.answer);
    const possible = await run("break-pool-size", { poolSize: 2 });
    assertEquals(possible.isShown, false);
    const hasty = await run("alter-timeout", { timeoutMs: 1 });
    assertEquals(hasty.isShown, false);
    const { figures, outcome } = hasty.result.with_guard;
    assertEquals(figures["written"], false);
    assert(outcome.includes("longer than 1 ms"), outcome);
    const steady = await run("explain-sizing", { burst: 0 });
    assertEquals(steady.isShown, false);
    // The question is about what is run, and what was altered is not proposed.
    assert(runText(steady).includes("After three seconds 0 come at once"));
    assert(runText(steady).includes("Before: deno task lab explain-sizing\n"));
  },
);

Deno.test(
  "every guard of the lab stands in the file that it names, under its name",
  { permissions: { read: ["."] } },
  async () => {
    const guards = LAB_CASES.flatMap(({ guard, guardOnServer: other }) => [
      ...[guard, ...(other === undefined ? [] : [other])],
    ]);
    for (const { file, symbol } of guards) {
      const text = await Deno.readTextFile(file);
      const [, owner = "", member] = /^(\w+)(?:\.|(?=\[))?(.*)$/.exec(symbol) ??
        [];
      assert(new RegExp(`(class|function) ${owner}\\b`).test(text), symbol);
      assert(member === undefined || text.includes(member), symbol);
    }
  },
);

Deno.test(
  "the flag that a case proposes is one that it takes, with another value",
  { permissions: NONE },
  () => {
    const { cases } = casesJson() as {
      cases: { case: string; settings: object; on_server: boolean }[];
    };
    for (const lab of LAB_CASES) {
      const [flag = "", value = ""] = lab.experiment.flag.split(" ");
      const field = flag.replace(/^--/, "").replaceAll(
        /-(\w)/g,
        (_, letter) => letter.toUpperCase(),
      );
      const known = [field, `${field}Ms`].find((name) => name in lab.settings);
      assert(known !== undefined || flag === "--db", `${lab.name} ${flag}`);
      const listed = cases.find((one) => one.case === lab.name);
      if (flag === "--db") assertEquals(listed?.on_server, true);
      else {assert(
          value !== String(lab.settings[known as SettingName]?.standard),
        );}
    }
  },
);

Deno.test(
  "the right answer does not stand in the same place in every case",
  { permissions: NONE },
  () => {
    const turned = LAB_CASES.map((lab) =>
      choicesOf(lab).indexOf(lab.choices[0])
    );
    assertEquals(new Set(turned).size, 3);
    for (const lab of LAB_CASES) {
      assertEquals(choicesOf(lab).toSorted(), lab.choices.toSorted());
    }
  },
);

Deno.test(
  "a case that is interrupted ends at once, with its process, and leaves nothing",
  { permissions: FILES_AND_PROCESSES },
  async () => {
    for (const name of ["alter-timeout", "break-thundering-herd"]) {
      await using folder = await temporaryFolder();
      const controller = new AbortController();
      const reason = new Error("enough");
      const lab = caseNamed(name);
      let bench: Bench | undefined;
      const running = runCase({
        ...lab,
        run: (given) => lab.run(bench = given),
      }, {
        folder: folder.path,
        signal: controller.signal,
        settings: name === "alter-timeout"
          ? { holdMs: 3000, timeoutMs: 5000 }
          : { outageMs: 3000 },
      });
      // In the midst of it: the other process has the lock and the write waits,
      // or a few rounds of attempts have failed.
      const isUnderWay = (): boolean =>
        name === "alter-timeout"
          ? (bench?.events.length ?? 0) >= 3
          : (bench?.connectsAtMs.length ?? 0) >= 300;
      while (!isUnderWay()) await settled();
      controller.abort(reason);
      await assertRejects(() => running, Error, "enough");
      assertEquals([...Deno.readDirSync(folder.path)], []);
    }
  },
);

Deno.test(
  "on a real server the cases that can show the same, and leave no table behind",
  {
    permissions: {
      ...FILES_AND_PROCESSES,
      ...SERVER,
      write: [".tmp"],
      run: true,
    },
  },
  async () => {
    await using server = await TestServer.start();
    const url = server.url();
    for (const { name, onServer } of LAB_CASES) {
      if (!onServer) continue;
      const ran = await run(name, {}, { server: url });
      assert(ran.isShown, `${name}: ${JSON.stringify(ran.result, null, 2)}`);
      if (name === "explain-pooling") {
        const { without_guard: a, with_guard: b } = ran.result;
        const key = "server_us_per_query";
        assert(n(a.figures, key) > n(b.figures, key));
      }
    }
    const driver = new PostgresDriver({ url, timeoutMs: 5000 });
    const tables = await new Promise((resolve, reject) =>
      driver.connect((error, connection) => {
        if (connection === undefined) return reject(error);
        connection.query(
          "SELECT count(*) AS n FROM pg_tables WHERE tablename LIKE 'lab_%'",
        ).then((rows) => connection.close(() => resolve(rows)), reject);
      }, () => {})
    );
    assertEquals(tables, [{ n: 0 }]);
  },
);

function events(...texts: string[]): LabEvent[] {
  return texts.map((event, at_ms) => ({ at_ms, event }));
}

Deno.test(
  "time lines side by side: what happened in both stands in one row, in order",
  { permissions: NONE },
  () => {
    const pairs = alignEvents(
      events("begin", "lost", "end"),
      events("begin", "kept", "waited", "end", "after"),
    );
    assertEquals(
      pairs.map(([a, b]) => [a?.event, b?.event]),
      [
        ["begin", "begin"],
        ["lost", "kept"],
        [undefined, "waited"],
        ["end", "end"],
        [undefined, "after"],
      ],
    );
    // One step with two outcomes is one row as well.
    const [first, second] = alignEvents(
      events("2 of 3 fail: lost", "a minute is over: 5 wait"),
      events("0 of 3 fail", "a minute is over: 0 wait"),
    );
    assertEquals(
      [first, second].map((pair) => pair?.map((one) => one?.event[0])),
      [["2", "0"], ["a", "a"]],
    );
    assertEquals(alignEvents([], events("one")).length, 1);
    assertEquals(alignEvents([], []), []);
  },
);
