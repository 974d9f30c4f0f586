/**
 * How fast the simulator is, next to a loop that has no pool in it; and how near
 * its predictions come to the real pool on a real SQLite file.
 *
 * @module
 */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { delay } from "../clock.ts";
import { DueHeap } from "../deadlines.ts";
import { ConnectionPool } from "../pool.ts";
import { type Random, seededRandom } from "../random.ts";
import { type PointResult, simulate } from "../simulate.ts";
import { inRounds } from "./measure.ts";
import {
  atLeast,
  atMost,
  ratio,
  type Report,
  type Row,
  type SuiteOptions,
} from "./report.ts";

const SERVERS = 5;
const LOAD = 0.8;
const BARE = "bare event heap, no pool";
const SIMJS = "simjs, no pool";
const POOL = "the real pool's core";

class Job {
  dueMs = 0;
  sequence = 0;
  position = -1;
  cameMs = 0;
}

function exponential(random: Random): (mean: number) => number {
  return (mean) => -Math.log(1 - random()) * mean;
}

/** M/M/5 with a heap and a list, and only the mean wait counted. */
function bareLoop(requests: number): number {
  const random = seededRandom(1);
  const exp = exponential(random);
  const heap = new DueHeap<Job>();
  const spare: Job[] = [];
  let queue: Job[] = [];
  let first = 0;
  let busy = 0;
  let arrivalMs = 0;
  let waitMs = 0;
  for (let come = 0; come < requests || heap.size > 0;) {
    const next = heap.first;
    if (come < requests && (next === undefined || arrivalMs < next.dueMs)) {
      const job = spare.pop() ?? new Job();
      job.cameMs = arrivalMs;
      if (busy < SERVERS) {
        busy++;
        heap.add(job, arrivalMs + exp(1));
      } else queue.push(job);
      come++;
      arrivalMs += exp(1 / (SERVERS * LOAD));
    } else if (next !== undefined) {
      heap.remove(next);
      spare.push(next);
      const waiting = queue[first];
      if (waiting === undefined) busy--;
      else {
        if (++first > 1000) queue = queue.slice(first), first = 0;
        waitMs += next.dueMs - waiting.cameMs;
        heap.add(waiting, next.dueMs + exp(1));
      }
    }
  }
  return waitMs / requests;
}

/** What is used of simjs, which has no types. */
interface SimJs {
  Sim: new () => {
    addEntity(entity: new () => unknown): void;
    simulate(until: number): void;
  };
  Entity: new () => {
    useFacility(facility: unknown, ms: number): { done(run: () => void): void };
    setTimer(ms: number): { done(run: () => void): void };
  };
  Facility: {
    new (name: string, discipline: unknown, servers: number): unknown;
    FCFS: unknown;
  };
}

/** The same queue with the facility of simjs. */
async function simjsLoop(requests: number): Promise<void> {
  // It is a script for a browser, and leaves its classes there.
  const world = globalThis as unknown as { window?: unknown; Sim: SimJs };
  world.window ??= globalThis;
  await import("simjs");
  const { Sim, Entity, Facility } = world.Sim;
  const random = seededRandom(1);
  const exp = exponential(random);
  const facility = new Facility("database", Facility.FCFS, SERVERS);
  let left = requests;
  class Source extends Entity {
    start(): void {
      this.next();
    }
    next(): void {
      if (left-- === 0) return;
      this.useFacility(facility, exp(1)).done(() => {});
      this.setTimer(exp(1 / (SERVERS * LOAD))).done(() => this.next());
    }
  }
  const sim = new Sim();
  sim.addEntity(Source);
  sim.simulate(1e12);
}

function simulated(requests: number): void {
  simulate({
    arrivals: `poisson:${SERVERS * LOAD}/s`,
    service: "exp:1s",
    poolSize: SERVERS,
    replications: 1,
    requests,
  });
}

/** Bytes in use after so many requests, when all that can go has gone. */
function heapAfter(requests: number): number {
  simulated(requests);
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc") as () => void;
  gc();
  gc();
  return Deno.memoryUsage().heapUsed;
}

/** The rows of the rig: predicted and measured, of one load. */
async function predict(load: number, seconds: number): Promise<Row[]> {
  const folder = await Deno.makeTempDir();
  const connections = 4;
  const meanMs = 25;
  const random = seededRandom(7);
  const exp = exponential(random);
  const arrivals: number[] = [];
  const gapMs = meanMs / (connections * load);
  for (let at = exp(gapMs); at < seconds * 1000; at += exp(gapMs)) {
    arrivals.push(at);
  }
  const services: number[] = [];
  const latencies: number[] = [];
  try {
    await using pool = new ConnectionPool({
      database: `${folder}/rig.db`,
      poolSize: connections,
      maxOverflow: 0,
    });
    const startMs = performance.now();
    await Promise.all(arrivals.map(async (at) => {
      const holdMs = exp(meanMs);
      await delay(Math.max(0, startMs + at - performance.now()));
      await pool.use(async (connection) => {
        const beganMs = performance.now();
        await connection.query("SELECT 1");
        await delay(holdMs);
        services.push(performance.now() - beganMs);
      });
      // From the intended arrival, as the simulator counts.
      latencies.push(performance.now() - startMs - at);
    }));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  const { points: [point] } = simulate({
    arrivals: "trace:arrivals",
    service: "empirical:services",
    connect: "constant:1ms",
    poolSize: connections,
    requests: arrivals.length,
    replications: 20,
  }, {
    load: (path) =>
      path === "arrivals" ? arrivals.map((ms) => ms / 1000) : services,
  });
  const { latency_ms } = point as PointResult;
  const sorted = latencies.toSorted((a, b) => a - b);
  return ([["p50", 0.5], ["p95", 0.95], ["p99", 0.99]] as const).flatMap((
    [name, p],
  ) => [
    {
      label: `${name} measured`,
      samples: [sorted[Math.ceil(p * sorted.length) - 1] ?? NaN],
    },
    { label: `${name} predicted`, samples: [latency_ms[name]] },
  ]);
}

/** Measures the simulator. */
export async function benchSimulator(
  { isQuick }: SuiteOptions,
): Promise<Report> {
  const requests = isQuick ? 500_000 : 2_000_000;
  const names = [BARE, SIMJS, POOL] as const;
  const samples = await inRounds(names, isQuick ? 3 : 7, async (name) => {
    const startMs = performance.now();
    if (name === BARE) bareLoop(requests);
    else if (name === SIMJS) await simjsLoop(requests);
    else simulated(requests);
    return (performance.now() - startMs) * 1000 / requests;
  });
  const bare: Row = { label: BARE, samples: samples[BARE] };
  const simjs: Row = { label: SIMJS, samples: samples[SIMJS] };
  const pool: Row = { label: POOL, samples: samples[POOL] };
  const startMs = performance.now();
  simulate({ poolSize: "4..23", requests: 100_000, replications: 1 });
  const sweepS = (performance.now() - startMs) / 1000;
  const small = heapAfter(100_000);
  const large = heapAfter(2_000_000);
  const seconds = isQuick ? 5 : 60;
  const tables = [];
  const goals = [];
  for (const load of [0.5, 0.8]) {
    const rows = await predict(load, seconds);
    tables.push({
      title: `Latency of the real pool at load ${load}, ${seconds} s`,
      unit: "ms",
      rows,
    });
    for (let i = 0; i < rows.length; i += 2) {
      const [measured, predicted] = rows.slice(i, i + 2) as [Row, Row];
      const off = Math.abs(ratio(predicted, measured) - 1) * 100;
      goals.push(
        atMost(20, `${predicted.label} at load ${load} is off by, in %`, off),
      );
    }
  }
  return {
    suite: "simulator",
    tables: [
      {
        title: `A request through M/M/${SERVERS} at load ${LOAD}`,
        ...{ unit: "µs", rows: [bare, simjs, pool], reference: bare },
      },
      ...tables,
    ],
    goals: [
      atLeast(
        2,
        "million requests a second",
        1 / Math.min(...pool.samples),
      ),
      atMost(3, "20 points of 100,000 requests, s", sweepS),
      atMost(
        1.5,
        "heap after 2 million requests, of that after 100,000",
        large / small,
      ),
      ...goals,
    ],
  };
}
