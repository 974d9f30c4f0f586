/**
 * Deadlines on one timer, and the virtual time that the other tests live in.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { type Clock, delay, systemClock } from "./clock.ts";
import { Deadline, DeadlineQueue, type Due, DueHeap } from "./deadlines.ts";
import { VirtualClock } from "./virtual_clock.ts";

const NONE = "none" as const;

/** Numbers from 0 to 1 that a seed determines (mulberry32). */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

Deno.test(
  "the heap gives items by time, then by order of adding, whatever was removed between",
  {
    permissions: NONE,
  },
  () => {
    for (let seed = 1; seed <= 300; seed++) {
      const random = seeded(seed);
      const heap = new DueHeap<Due>();
      const model: Due[] = [];
      for (let step = 0; step < 200; step++) {
        if (random() < 0.6) {
          const item: Due = { dueMs: 0, sequence: 0, position: -1 };
          heap.add(item, Math.floor(random() * 20));
          model.push(item);
        } else if (model.length > 0) {
          const isFirst = random() < 0.5;
          model.sort((a, b) => a.dueMs - b.dueMs || a.sequence - b.sequence);
          const index = isFirst ? 0 : Math.floor(random() * model.length);
          const [item] = model.splice(index, 1) as [Due];
          if (isFirst) assertEquals(heap.first === item, true, `seed ${seed}`);
          assert(heap.remove(item) && !heap.remove(item), `seed ${seed}`);
        }
        assertEquals(heap.size, model.length, `seed ${seed}`);
      }
    }
  },
);

Deno.test(
  "a deadline queue keeps one timer for all deadlines, and none once they are cleared",
  {
    permissions: NONE,
  },
  () => {
    const clock = new VirtualClock();
    const queue = new DeadlineQueue(clock, { background: false });
    const met: number[] = [];
    const deadlines = Array.from(
      { length: 100 },
      (_, i) => new Deadline(() => met.push(i)),
    );
    deadlines.forEach((deadline, i) => queue.set(deadline, 1000 - i));
    assertEquals(clock.pending, 1);
    // The earliest is taken back, another is moved, the rest come in their order.
    queue.clear(deadlines[99] as Deadline);
    queue.set(deadlines[98] as Deadline, 2000);
    clock.advance(999);
    assertEquals([met.length, met[0], met.at(-1)], [97, 97, 1]);
    clock.advance(1001);
    assertEquals(met.slice(-2), [0, 98]);
    assertEquals(clock.pending, 0);
    queue.set(deadlines[0] as Deadline, 5000);
    queue.clearAll();
    assertEquals(clock.pending, 0);
  },
);

Deno.test("a deadline that sets another one when it is met is not met early", {
  permissions: NONE,
}, () => {
  const clock = new VirtualClock();
  const queue = new DeadlineQueue(clock, { background: true });
  const times: number[] = [];
  const again = new Deadline(() => {
    times.push(clock.now());
    if (times.length < 4) queue.set(again, clock.now() + 10);
  });
  queue.set(again, 5);
  clock.advance(100);
  assertEquals(times, [5, 15, 25, 35]);
});

Deno.test(
  "virtual time fires timers in order, at their times, and lets promises settle between",
  {
    permissions: NONE,
  },
  async () => {
    const clock = new VirtualClock();
    const log: string[] = [];
    const sleeper = async (name: string, ms: number): Promise<void> => {
      for (let i = 0; i < 2; i++) {
        await delay(ms, { clock });
        log.push(`${name} at ${clock.now()}`);
      }
    };
    const sleepers = [sleeper("a", 10), sleeper("b", 5)];
    clock.setTimer(() => log.push("never"), 1).clear();
    await clock.advanceAsync(20);
    await Promise.all(sleepers);
    assertEquals(log, ["b at 5", "a at 10", "b at 10", "a at 20"]);
    assertEquals(clock.now(), 20);
  },
);

Deno.test(
  "delay() ends at once when aborted, with the reason of the signal and no timer left",
  {
    permissions: NONE,
  },
  async () => {
    const clock: Clock = new VirtualClock();
    const abort = new AbortController();
    const waiting = delay(1000, { clock, signal: abort.signal }).catch((
      error,
    ) => error);
    abort.abort("enough");
    assertEquals(await waiting, "enough");
    assertEquals((clock as VirtualClock).pending, 0);
    const late = delay(1000, { clock, signal: abort.signal }).catch((error) =>
      error
    );
    assertEquals(await late, "enough");
  },
);

Deno.test(
  "the system clock never goes backwards, and its timers do not fire early",
  {
    permissions: NONE,
  },
  async () => {
    const startMs = systemClock.now();
    await delay(2.5);
    assert(systemClock.now() - startMs >= 2.5);
    const timer = systemClock.setTimer(() => {
      throw new Error("cleared");
    }, 0);
    timer.unref();
    timer.ref();
    timer.clear();
  },
);

Deno.test(
  "the coarse time of the system clock stands still within a turn, and no longer",
  { permissions: NONE },
  async () => {
    const busy = (ms: number): void => {
      const untilMs = systemClock.now() + ms;
      while (systemClock.now() < untilMs);
    };
    const firstMs = systemClock.coarseNow();
    busy(1);
    assertEquals(systemClock.coarseNow(), firstMs);
    const laterMs = systemClock.now();
    await Promise.resolve();
    assert(systemClock.coarseNow() >= laterMs);
  },
);
