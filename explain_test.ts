/**
 * The figures that notes.md quotes, each measured on the pool itself under
 * virtual time. `deno task test explain_test.ts` shows that they hold.
 *
 * @module
 */

import { assert, assertEquals, assertInstanceOf } from "@std/assert";
import { delay } from "./clock.ts";
import { AcquireTimeoutError } from "./errors.ts";
import { ConnectionPool } from "./pool.ts";
import { type Jitter, retry } from "./retry.ts";
import { FakeDriver } from "./testing.ts";
import { VirtualClock } from "./virtual_clock.ts";

const NONE = "none" as const;

Deno.test(
  "explain using: fifteen forgotten releases exhaust the default pool, and each later acquire waits 30 s for nothing",
  {
    permissions: NONE,
  },
  async () => {
    const clock = new VirtualClock();
    const pool = new ConnectionPool({ database: "a.db" }, {
      driver: new FakeDriver(),
      clock,
    });
    for (let i = 0; i < 15; i++) await pool.acquire();
    const sixteenth = pool.acquire().catch((error) => error);
    await clock.advanceAsync(29_999);
    assertEquals(pool.stats().timeouts, 0);
    await clock.advanceAsync(1);
    assertInstanceOf(await sixteenth, AcquireTimeoutError);
    const closing = pool.close({ timeoutMs: 0 });
    await clock.advanceAsync(0);
    assertEquals(await closing, { forced: 15, unfinished: 0, holders: [] });
  },
);

Deno.test(
  "explain using: with using, a thousand tasks that all throw leave one idle connection",
  {
    permissions: NONE,
  },
  async () => {
    const driver = new FakeDriver();
    await using pool = new ConnectionPool({ database: "a.db" }, {
      driver,
      clock: new VirtualClock(),
    });
    for (let i = 0; i < 1000; i++) {
      await (async () => {
        using _connection = await pool.acquire();
        throw new Error("in the task");
      })().catch(() => {});
    }
    const { inUse, idle, created } = pool.stats();
    assertEquals({ inUse, idle, created }, { inUse: 0, idle: 1, created: 1 });
  },
);

/** How a client fares that retries through an outage of 10 s. */
async function outlast(
  clients: number,
  policy: { baseDelayMs: number; factor: number; jitter: Jitter },
): Promise<{ tries: number; peak: number; lateMs: number }> {
  const clock = new VirtualClock();
  const outageMs = 10_000;
  const perMs = new Map<number, number>();
  let tries = 0;
  let state = 1;
  // A linear congruential generator (Numerical Recipes), for the same numbers
  // each time.
  const random = (): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  let doneMs = 0;
  const all = Promise.all(Array.from({ length: clients }, () =>
    retry(
      () => {
        tries++;
        const ms = Math.floor(clock.now());
        // In the first second all tries are close together in any case.
        if (ms >= 1000) perMs.set(ms, (perMs.get(ms) ?? 0) + 1);
        doneMs = clock.now();
        if (clock.now() < outageMs) throw new Error("down");
      },
      { ...policy, maxAttempts: 10_000, maxDelayMs: 5000 },
      { clock, random },
    )));
  await clock.advanceAsync(60_000);
  await all;
  return {
    tries,
    peak: Math.max(...perMs.values()),
    lateMs: doneMs - outageMs,
  };
}

Deno.test(
  "explain backoff: in an outage of 10 s a fixed delay of 10 ms tries 1001 times, an exponential one 11 times",
  {
    permissions: NONE,
  },
  async () => {
    const fixed = await outlast(1, {
      baseDelayMs: 10,
      factor: 1,
      jitter: "none",
    });
    assertEquals([fixed.tries, fixed.lateMs], [1001, 0]);
    const exponential = await outlast(1, {
      baseDelayMs: 10,
      factor: 2,
      jitter: "none",
    });
    // The price of patience: it notices the end a moment later.
    assertEquals([exponential.tries, exponential.lateMs], [11, 110]);
  },
);

Deno.test(
  "explain backoff: without jitter 1000 clients come back in the same millisecond, with full jitter never more than 10",
  {
    permissions: NONE,
  },
  async () => {
    const without = await outlast(1000, {
      baseDelayMs: 10,
      factor: 2,
      jitter: "none",
    });
    assertEquals(without.peak, 1000);
    const full = await outlast(1000, {
      baseDelayMs: 10,
      factor: 2,
      jitter: "full",
    });
    assert(full.peak <= 10, `${full.peak} in one millisecond`);
  },
);

Deno.test(
  "explain sizing: ten tasks of 10 ms on one connection wait 45 ms on average, on five 5 ms, on ten not at all",
  {
    permissions: NONE,
  },
  async () => {
    for (
      const [poolSize, meanMs, maxMs] of [[1, 45, 90], [5, 5, 10], [
        10,
        0,
        0,
      ]] as const
    ) {
      const clock = new VirtualClock();
      const pool = new ConnectionPool({
        database: "a.db",
        poolSize,
        maxOverflow: 0,
      }, {
        driver: new FakeDriver(),
        clock,
      });
      const tasks = Promise.all(
        Array.from({ length: 10 }, () => pool.use(() => delay(10, { clock }))),
      );
      await clock.advanceAsync(1000);
      await tasks;
      const { mean, max } = pool.stats().waitMs;
      assertEquals([mean, max], [meanMs, maxMs]);
      await pool.close();
    }
  },
);
