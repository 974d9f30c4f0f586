/**
 * What a pool says when something is wrong: leaks, nested acquires, events.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { delay } from "./clock.ts";
import {
  AcquireTimeoutError,
  ConfigError,
  type Holder,
  LockTimeoutError,
  NestedAcquireError,
  RetryError,
} from "./errors.ts";
import type { PoolEvents } from "./pool_report.ts";
import { RetryBudget } from "./retry.ts";
import { FakeDriver, fakePool, PermanentError } from "./testing.ts";
import { settled, VirtualClock } from "./virtual_clock.ts";

const NONE = "none" as const;

// Leaks.

Deno.test(
  "a connection held too long is reported once, with its acquire, and again when it comes back",
  {
    permissions: NONE,
  },
  async () => {
    const leaks: Holder[] = [];
    const ends: Holder[] = [];
    const { pool, clock } = fakePool({ leakDetectionMs: 1000 }, {
      events: {
        leak: (holder) => leaks.push(holder),
        leakEnd: (holder) => ends.push(holder),
      },
    });
    async function forgetfulRequest(): Promise<{ release(): void }> {
      return await pool.acquire();
    }
    const prompt = await pool.acquire();
    const forgotten = await forgetfulRequest();
    await clock.advanceAsync(999);
    prompt.release();
    await clock.advanceAsync(10_000);
    assertEquals(leaks.map(({ heldMs }) => heldMs), [1000]);
    assertMatch(
      leaks[0]?.stack ?? "",
      /^at forgetfulRequest .*pool_diagnosis_test\.ts/,
    );
    assertEquals(ends, []);
    forgotten.release();
    assertEquals(ends.map(({ heldMs }) => heldMs), [10_999]);
    await pool.close();
    assertEquals(clock.pending, 0);
  },
);

Deno.test(
  "with leak detection on, a timeout says who holds the connections, since when and from where",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool({
      ...{ poolSize: 1, acquireTimeoutMs: 100, leakDetectionMs: 60_000 },
    });
    async function theCulprit(): Promise<{ release(): void }> {
      return await pool.acquire();
    }
    const held = await theCulprit();
    await clock.advanceAsync(50);
    const failed = pool.acquire().catch((error) => error);
    await clock.advanceAsync(100);
    const error = await failed;
    assertInstanceOf(error, AcquireTimeoutError);
    assertEquals(error.holders.map(({ heldMs }) => heldMs), [150]);
    assertStringIncludes(
      error.message,
      "1 in use, 0 idle, 0 connecting, 1 waiting",
    );
    assertMatch(error.message, /Held for 150 ms by at theCulprit/);
    held.release();
    const stubborn = await theCulprit();
    const closing = pool.close({ timeoutMs: 10 });
    await clock.advanceAsync(10);
    const { forced, holders } = await closing;
    assertEquals([forced, holders.length], [1, 1]);
    assertMatch(holders[0]?.stack ?? "", /^at theCulprit/);
    stubborn.release();
  },
);

Deno.test(
  "a timeout while the database is down carries the last connect failure as its cause",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, driver, clock } = fakePool({ acquireTimeoutMs: 100 });
    const held = await pool.acquire();
    driver.failure = new Error("connection refused");
    const failed = pool.acquire().catch((error) => error);
    await clock.advanceAsync(100);
    const error = await failed;
    assertInstanceOf(error, AcquireTimeoutError);
    assertEquals(error.cause, driver.failure);
    assertStringIncludes(
      error.message,
      "the last connect failed: connection refused",
    );
    held.release();
    await pool.close();
  },
);

const COLLECTED = `
import { ConnectionPool } from MODULE;
const events = [];
const pool = new ConnectionPool({ leakDetectionMs: 60_000, acquireTimeoutMs: 0 }, {
  events: { leakReclaim: ({ stack }) => events.push(stack) },
});
async function forget() { await pool.acquire(); }
await forget();
for (let i = 0; i < 100 && events.length === 0; i++) {
  gc();
  await new Promise((resolve) => setTimeout(resolve, 1));
}
using connection = await pool.acquire();
await connection.query("SELECT 1");
console.log(JSON.stringify({ events, stats: pool.stats() }));
`;

Deno.test(
  "with leak detection on, a connection whose holder was garbage-collected is taken back and reported",
  {
    permissions: {
      read: ["."],
      run: [Deno.execPath()],
      ffi: "inherit",
      env: "inherit",
    },
  },
  async () => {
    const module = JSON.stringify(new URL("./mod.ts", import.meta.url).href);
    const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        "eval",
        "--v8-flags=--expose-gc",
        COLLECTED.replace("MODULE", module),
      ],
    }).output();
    const text = new TextDecoder();
    assertEquals(text.decode(stderr), "");
    const { events, stats } = JSON.parse(text.decode(stdout));
    assertEquals(events.length, 1);
    assertMatch(events[0], /^at forget /);
    assertEquals([stats.created, stats.inUse], [1, 1]);
  },
);

// Nested acquires.

Deno.test(
  "a nested acquire that can never be served fails at once and explains itself",
  {
    permissions: NONE,
  },
  async () => {
    const { pool, clock } = fakePool({
      poolSize: 2,
      detectNestedAcquire: true,
    });
    const task = (): Promise<string> =>
      pool.use(async () => {
        await settled();
        return await pool.use(() => "both");
      });
    const outcomes = Promise.allSettled([task(), task()]);
    for (let turn = 0; turn < 10; turn++) await settled();
    const [first, second] = await outcomes;
    // The last one to close the circle is told; the first is served by what it
    // then gives back.
    assertEquals(first, { status: "fulfilled", value: "both" });
    assertEquals(second?.status, "rejected");
    const error = (second as PromiseRejectedResult).reason;
    assertInstanceOf(error, NestedAcquireError);
    assertStringIncludes(
      error.message,
      "held by tasks that wait for another one",
    );
    assertEquals(clock.now(), 0);
    assertEquals(pool.stats().inUse, 0);
    await pool.close();
  },
);

Deno.test(
  "a nested acquire is found through calls in between, and in transactions",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool({ poolSize: 1, detectNestedAcquire: true });
    const helper = async (): Promise<void> => {
      await settled();
      using _inner = await pool.acquire();
    };
    await pool.transaction(async () => {
      await assertRejects(() => helper(), NestedAcquireError);
      await assertRejects(() => pool.transaction(() => {}), NestedAcquireError);
    });
    await helper();
    await pool.close();
  },
);

Deno.test("tasks that start together are not taken for nested in one another", {
  permissions: NONE,
}, async () => {
  const { pool, clock } = fakePool({ poolSize: 2, detectNestedAcquire: true });
  const worker = async (): Promise<void> => {
    using _connection = await pool.acquire();
    await delay(10, { clock });
  };
  const workers = Promise.all(Array.from({ length: 20 }, worker));
  const users = Promise.all(
    Array.from({ length: 20 }, () => pool.use(() => delay(10, { clock }))),
  );
  await clock.advanceAsync(1000);
  await Promise.all([workers, users]);
  await pool.close();
});

Deno.test("a nested acquire that somebody else will serve waits for it", {
  permissions: NONE,
}, async () => {
  const { pool, clock } = fakePool({ poolSize: 2, detectNestedAcquire: true });
  const slow = pool.use(() => delay(100, { clock }));
  const nested = pool.use(() => pool.use(() => clock.now()));
  await clock.advanceAsync(100);
  assertEquals(await nested, 100);
  await slow;
  // And so does one that waits although it holds nothing.
  const held = pool.use(() => delay(100, { clock }));
  const others = Promise.all(
    Array.from({ length: 5 }, () => pool.use(() => clock.now())),
  );
  await clock.advanceAsync(100);
  await Promise.all([held, others]);
  await pool.close();
});

// Events and measures.

Deno.test(
  "each transition has its event, and the events tell the whole story",
  {
    permissions: NONE,
  },
  async () => {
    const story: string[] = [];
    const names: (keyof PoolEvents)[] = [
      ...[
        "connect",
        "connectFail",
        "connectRetry",
        "acquire",
        "release",
      ] as const,
      ...["discard", "retire", "timeout", "reject", "abort", "close"] as const,
    ];
    const events = Object.fromEntries(names.map((name) => [
      name,
      (event?: { id?: number; reason?: unknown }) => {
        story.push([name, event?.id, event?.reason].filter(Boolean).join(" "));
      },
    ]));
    const { pool, driver, clock } = fakePool({
      ...{ poolSize: 1, maxOverflow: 1, maxWaiting: 1, acquireTimeoutMs: 10 },
    }, { events });
    const [a, b] = [await pool.acquire(), await pool.acquire()];
    const late = pool.acquire().catch(() => {});
    await assertRejects(() => pool.acquire());
    await clock.advanceAsync(10);
    await late;
    const abort = new AbortController();
    const aborted = pool.acquire({ signal: abort.signal }).catch(() => {});
    abort.abort();
    await aborted;
    a.release();
    b.release();
    const c = await pool.acquire();
    await c.close();
    c.release();
    driver.failure = new PermanentError("no");
    await assertRejects(() => pool.acquire());
    await pool.close();
    assertEquals(story, [
      ...["connect 1", "acquire 1", "connect 2", "acquire 2"],
      ...["reject", "timeout", "abort"],
      ...["release 1", "release 2", "retire 2 surplus"],
      ...[
        "acquire 1",
        "release 1",
        "discard 1 Error: The connection was closed or lost",
      ],
      ...["connectFail", "close"],
    ]);
  },
);

Deno.test("a hook that throws is reported as uncaught, and the pool goes on", {
  permissions: NONE,
}, async () => {
  const uncaught: unknown[] = [];
  const listener = (event: ErrorEvent): void => {
    event.preventDefault();
    uncaught.push(event.error);
  };
  globalThis.addEventListener("error", listener);
  const failure = new Error("in the hook");
  const { pool } = fakePool({}, {
    events: {
      release: () => {
        throw failure;
      },
    },
  });
  await pool.use(() => {});
  globalThis.removeEventListener("error", listener);
  assertEquals(uncaught, [failure]);
  assertEquals([pool.stats().idle, pool.stats().inUse], [1, 0]);
  await pool.close();
});

Deno.test(
  "stats() gives wait and connect times as percentiles, and use times if asked",
  {
    permissions: NONE,
  },
  async () => {
    for (const measureUse of [false, true]) {
      const { pool, clock } = fakePool({ poolSize: 1, measureUse });
      const tasks = Promise.all(
        Array.from({ length: 4 }, () => pool.use(() => delay(10, { clock }))),
      );
      await clock.advanceAsync(40);
      await tasks;
      const { waitMs, useMs, connectMs } = pool.stats();
      assertEquals([waitMs.count, waitMs.mean, waitMs.max], [4, 15, 30]);
      assert(waitMs.p50 >= 10 && waitMs.p50 < 10.4);
      assertEquals([useMs.count, useMs.mean], measureUse ? [4, 10] : [0, 0]);
      assertEquals(connectMs.count, 1);
      await pool.close();
    }
  },
);

Deno.test("the uncontended way reads no clock and sets no timer", {
  permissions: NONE,
}, async () => {
  const clock = new VirtualClock();
  let readings = 0;
  const read = (): number => {
    readings++;
    return clock.now();
  };
  const counting = {
    now: read,
    coarseNow: read,
    setTimer: clock.setTimer.bind(clock),
  };
  const { pool } = fakePool({}, { clock: counting });
  await pool.use(() => {});
  readings = 0;
  for (let i = 0; i < 100; i++) await pool.use(() => {});
  assertEquals([readings, clock.pending], [0, 0]);
  await pool.close();
});

// Transactions that run again.

class ConflictDriver extends FakeDriver {
  isConflict(error: unknown): boolean {
    return error instanceof LockTimeoutError;
  }
}

Deno.test(
  "transaction() runs again only if asked, only after a conflict, and holds nothing while it waits",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new ConflictDriver();
    const { pool, clock } = fakePool({}, { driver });
    let runs = 0;
    const conflict = (): never => {
      runs++;
      throw new LockTimeoutError("a.db", 1);
    };
    await assertRejects(() => pool.transaction(conflict), LockTimeoutError);
    assertEquals(runs, 1);
    const retry = { maxAttempts: 3, baseDelayMs: 100, jitter: "none" } as const;
    const failed = pool.transaction(conflict, { retry }).catch((error) =>
      error
    );
    await clock.advanceAsync(50);
    assertEquals([runs, pool.stats().inUse], [2, 0]);
    await clock.advanceAsync(1000);
    const error = await failed;
    assertInstanceOf(error, RetryError);
    assertEquals([runs, error.attempts, error.delaysMs], [4, 3, [100, 200]]);
    // Anything else may have happened after the commit.
    runs = 0;
    await assertRejects(
      () =>
        pool.transaction(() => {
          runs++;
          throw new Error("the reply was lost");
        }, { retry }),
      Error,
      "the reply was lost",
    );
    assertEquals(runs, 1);
    await pool.close();
  },
);

Deno.test(
  "transaction() refuses a retry policy that breaks a rule, and runs nothing",
  {
    permissions: NONE,
  },
  async () => {
    const { pool } = fakePool();
    const retry = { maxAttempts: 0, baseDelayMs: -1 };
    const failed = await assertRejects(
      () => pool.transaction(() => assert(false, "was run"), { retry }),
      ConfigError,
    );
    const fields = failed.problems.map(({ field }) => field);
    assertEquals(fields, ["retry.maxAttempts", "retry.baseDelayMs"]);
    assertEquals(pool.stats().acquired, 0);
    await pool.close();
  },
);

Deno.test(
  "all transactions of a pool share one retry budget, so that retries cannot feed an overload",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new ConflictDriver();
    const budget = new RetryBudget({ ratio: 0.1, capacity: 10 });
    const { pool, clock } = fakePool({ poolSize: 5 }, { driver, budget });
    let runs = 0;
    const all = Promise.allSettled(
      Array.from({ length: 1000 }, () =>
        pool.transaction(() => {
          runs++;
          throw new LockTimeoutError("a.db", 1);
        }, { retry: { maxAttempts: 4, baseDelayMs: 1 } })),
    );
    await clock.advanceAsync(60_000);
    await all;
    // Three retries each would have been 4000 runs.
    assert(runs >= 1000 && runs <= 1000 + 10 + 100, `${runs} runs`);
    await pool.close();
  },
);

// A check that hangs.

Deno.test(
  "a check that never ends costs the connection after timeoutMs, not its place",
  {
    permissions: NONE,
  },
  async () => {
    for (const method of ["onReset", "onPing"] as const) {
      const { pool, clock } = fakePool({ poolSize: 1, timeoutMs: 100 });
      const connection = await pool.acquire();
      (connection.raw as { [key: string]: unknown })[method] = () => {};
      connection.release();
      const waiting = pool.acquire();
      await clock.advanceAsync(99);
      assertEquals(pool.stats().checking, 1);
      await clock.advanceAsync(1);
      (await waiting).release();
      assertEquals([pool.stats().discarded, pool.stats().created], [1, 2]);
      await pool.close();
    }
  },
);
