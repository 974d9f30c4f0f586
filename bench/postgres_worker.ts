/**
 * Measures one way to ask a server, in a process of its own.
 *
 *     postgres_worker.ts CONTENDER URL TASKS
 *
 * Prints the microseconds of the clock that pass for each query, and the 99th
 * percentile of the milliseconds from the wish for a connection to the answer.
 *
 * @module
 */

import { POSTGRES_CONTENDERS } from "./postgres_contenders.ts";

/** What the worker prints. */
export interface PostgresMeasure {
  readonly usEach: number;
  readonly p99Ms: number;
}

const WARM_UP_MS = 500;
const MEASURED_MS = 1500;

const [name = "", url = "", tasks = "1"] = Deno.args;
const operation = POSTGRES_CONTENDERS[name]?.prepare(url);
if (operation === undefined) throw new TypeError(`No contender '${name}'`);

/** Lets all tasks ask one question after another for so long. */
async function load(forMs: number): Promise<PostgresMeasure> {
  const latencies: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + forMs;
  await Promise.all(Array.from({ length: Number(tasks) }, async (_, task) => {
    for (let fromMs = startMs; fromMs < endMs;) {
      fromMs = performance.now();
      const answer = await operation?.(task);
      if (answer !== task) throw new Error(`${name}: ${answer} is not ${task}`);
      latencies.push(performance.now() - fromMs);
    }
  }));
  const elapsedMs = performance.now() - startMs;
  latencies.sort((a, b) => a - b);
  return {
    usEach: elapsedMs * 1000 / latencies.length,
    p99Ms: latencies[Math.floor(latencies.length * 0.99)] ?? NaN,
  };
}

await load(WARM_UP_MS);
console.log(JSON.stringify(await load(MEASURED_MS)));
Deno.exit();
