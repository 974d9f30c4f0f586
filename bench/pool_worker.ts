/**
 * Measures one pool in one situation, in a process of its own.
 *
 *     pool_worker.ts CONTENDER tasks N        microseconds for each round trip
 *     pool_worker.ts CONTENDER waiters N      the same, N waiting at first
 *     pool_worker.ts CONTENDER connection-memory N    bytes for each
 *     pool_worker.ts CONTENDER waiter-memory N        bytes for each
 *
 * A round trip is an acquire and a release. The pool has ten connections, but
 * for `connection-memory`. Memory needs --v8-flags=--expose-gc.
 *
 * @module
 */

import { microsecondsEach } from "./measure.ts";
import {
  type Contender,
  type ContenderName,
  POOL_CONTENDERS,
} from "./pool_contenders.ts";

const CONNECTIONS = 10;

// Enough that setting up the tasks of a run does not show.
const LEAST_OPERATIONS = 10_000;

type Situation = (name: ContenderName, count: number) => Promise<number>;

const SITUATIONS: Record<string, Situation> = {
  /** Each task takes a connection and gives it back, over and over. */
  async tasks(name, count) {
    const pool = await makePool(name, CONNECTIONS);
    const each = Math.ceil(LEAST_OPERATIONS / count);
    const task = async (): Promise<void> => {
      for (let i = 0; i < each; i++) pool.release(await pool.acquire());
    };
    if (count === 1) return await microsecondsEach(each, task);
    return await microsecondsEach(each * count, async () => {
      await Promise.all(Array.from({ length: count }, task));
    });
  },

  /** So many ask while every connection is taken; then these come back. */
  async waiters(name, count) {
    const pool = await makePool(name, CONNECTIONS);
    const bursts = Math.ceil(LEAST_OPERATIONS / count);
    const passOn = async (): Promise<void> => {
      pool.release(await pool.acquire());
    };
    return await microsecondsEach(bursts * count, async () => {
      for (let i = 0; i < bursts; i++) {
        const held = await acquireMany(pool, CONNECTIONS);
        const waiting = Array.from({ length: count }, passOn);
        for (const loan of held) pool.release(loan);
        await Promise.all(waiting);
      }
    });
  },

  async "connection-memory"(name, count) {
    await rehearse(name);
    const before = usedBytes();
    const pool = await makePool(name, count);
    for (const loan of await acquireMany(pool, count)) pool.release(loan);
    // Some pools do part of the work in a later turn.
    await turn();
    return (usedBytes() - before) / count;
  },

  /** The promise that the caller holds is part of it, with every pool. */
  async "waiter-memory"(name, count) {
    await rehearse(name);
    const pool = await makePool(name, CONNECTIONS);
    const held = await acquireMany(pool, CONNECTIONS);
    const waiting: Promise<unknown>[] = new Array(count);
    const before = usedBytes();
    for (let i = 0; i < count; i++) waiting[i] = pool.acquire();
    await turn();
    const bytes = (usedBytes() - before) / count;
    // Without a use later on the collector might take them before.
    if (held.length + waiting.length === 0) throw new Error("Unreachable");
    return bytes;
  },
};

async function makePool(
  name: ContenderName,
  max: number,
): Promise<Contender> {
  return await POOL_CONTENDERS[name](max) as Contender;
}

function acquireMany(pool: Contender, count: number): Promise<unknown[]> {
  return Promise.all(Array.from({ length: count }, () => pool.acquire()));
}

/** Lets the code be compiled, which takes memory once. */
async function rehearse(name: ContenderName): Promise<void> {
  const pool = await makePool(name, CONNECTIONS);
  for (let i = 0; i < 100; i++) {
    const held = await acquireMany(pool, CONNECTIONS);
    const late = acquireMany(pool, CONNECTIONS);
    for (const loan of held) pool.release(loan);
    for (const loan of await late) pool.release(loan);
  }
  await turn();
}

function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

function usedBytes(): number {
  const { gc } = globalThis as unknown as { gc: () => void };
  // What has a finalizer goes in the second pass.
  gc();
  gc();
  return Deno.memoryUsage().heapUsed;
}

const [name = "", situation = "", count = ""] = Deno.args;
const measure = SITUATIONS[situation];
if (!(name in POOL_CONTENDERS) || measure === undefined) {
  throw new TypeError(`No measurement of '${name}' with '${situation}'`);
}
console.log(await measure(name as ContenderName, Number(count)));
// Some pools keep timers that would keep the process.
Deno.exit();
