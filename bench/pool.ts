/**
 * Acquire and release, side by side with the pools of npm and with the least
 * that can be called a pool.
 *
 * @module
 */

import { inRounds } from "./measure.ts";
import { type ContenderName, POOL_CONTENDERS } from "./pool_contenders.ts";
import { runWorker } from "./process.ts";
import {
  atLeast,
  atMost,
  type Goal,
  ratio,
  type Report,
  type Row,
  type SuiteOptions,
  type Table,
} from "./report.ts";

const NAMES = Object.keys(POOL_CONTENDERS) as ContenderName[];
const OURS = "this pool";
const BARE = "bare array";
const PEERS = NAMES.filter((name) => name !== OURS && name !== BARE);

interface Situation {
  readonly title: string;
  /** What the worker is told. */
  readonly name: "tasks" | "waiters" | "connection-memory" | "waiter-memory";
  readonly count: number;
}

const SITUATIONS = {
  oneTask: { title: "One task", name: "tasks", count: 1 },
  manyTasks: {
    title: "100 tasks on 10 connections",
    name: "tasks",
    count: 100,
  },
  hundred: { title: "100 waiters", name: "waiters", count: 100 },
  thousand: { title: "1,000 waiters", name: "waiters", count: 1000 },
  tenThousand: { title: "10,000 waiters", name: "waiters", count: 10_000 },
  connectionMemory: {
    title: "Memory of a connection (1,000 idle)",
    name: "connection-memory",
    count: 1000,
  },
  waiterMemory: {
    title: "Memory of a waiter (10,000)",
    name: "waiter-memory",
    count: 10_000,
  },
} as const satisfies Record<string, Situation>;

/** Measures the pool. */
export async function benchPool({ isQuick }: SuiteOptions): Promise<Report> {
  const rounds = isQuick ? 3 : 5;
  const measured: Partial<Record<keyof typeof SITUATIONS, Rows>> = {};
  const tables: Table[] = [];
  for (const [key, situation] of Object.entries(SITUATIONS)) {
    const rows = await measure(situation, rounds);
    measured[key as keyof typeof SITUATIONS] = rows;
    tables.push({
      title: situation.title,
      unit: situation.name.endsWith("memory") ? "bytes" : "µs",
      rows: Object.values(rows),
      reference: rows[BARE],
    });
  }
  const { oneTask, manyTasks, hundred, tenThousand, waiterMemory } =
    measured as Required<typeof measured>;
  return {
    suite: "pool",
    tables,
    goals: [
      ...speedGoals("one task", oneTask),
      ...speedGoals("100 tasks", manyTasks),
      // The collector's work grows with what is alive, in any program; what the
      // pool adds to that must not grow.
      atMost(
        1.5,
        "cost with 10,000 waiters over that with 100, by the bare array's growth",
        ratio(tenThousand[OURS], hundred[OURS]) /
          ratio(tenThousand[BARE], hundred[BARE]),
      ),
      ...memoryGoals("a waiter", waiterMemory),
    ],
  };
}

type Rows = Record<ContenderName, Row>;

async function measure(
  { name: situation, count }: Situation,
  rounds: number,
): Promise<Rows> {
  const flags = situation.endsWith("memory") ? ["--v8-flags=--expose-gc"] : [];
  // A process for each measurement: in one process, the second pool would find
  // shared code, such as that of promises, tuned to the first.
  const samples = await inRounds(
    NAMES,
    rounds,
    (name) =>
      runWorker<number>(
        "pool_worker.ts",
        [name, situation, String(count)],
        flags,
      ),
  );
  return Object.fromEntries(
    NAMES.map((name) => [name, { label: name, samples: samples[name] }]),
  ) as unknown as Rows;
}

function memoryGoals(of: string, rows: Rows): Goal[] {
  const shares = PEERS.map((peer) => ratio(rows[OURS], rows[peer]));
  return [
    atMost(
      1,
      `memory of ${of}, times the leanest pool of npm`,
      Math.max(...shares),
    ),
  ];
}

function speedGoals(when: string, rows: Rows): Goal[] {
  const advantages = PEERS.map((peer) => ratio(rows[peer], rows[OURS]));
  return [
    atMost(2, `${when}, times the bare array`, ratio(rows[OURS], rows[BARE])),
    atLeast(
      3,
      `${when}, times as fast as the fastest pool of npm`,
      Math.min(...advantages),
    ),
  ];
}
