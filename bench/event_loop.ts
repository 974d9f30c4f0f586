/**
 * Whether the program goes on while the pool waits for a lock of another
 * process.
 *
 * @module
 */

import { inRounds } from "./measure.ts";
import { runWorker, TemporaryFolder } from "./process.ts";
import { atMost, type Report, type Row, type SuiteOptions } from "./report.ts";

const LABELS = {
  nothing: "nobody waits",
  pool: "the pool waits (timeoutMs 5000)",
  native: "node:sqlite waits (busy timeout 5000)",
} as const;

/** Measures how late a timer is. */
export async function benchEventLoop(
  { isQuick }: SuiteOptions,
): Promise<Report> {
  await using folder = new TemporaryFolder();
  const names = Object.keys(LABELS) as (keyof typeof LABELS)[];
  const samples = await inRounds(
    names,
    isQuick ? 1 : 5,
    (name) =>
      runWorker<number>("event_loop_worker.ts", [
        name,
        folder.file("locked.db"),
      ]),
  );
  const rows = names.map((name): Row => ({
    label: LABELS[name],
    samples: samples[name],
  }));
  return {
    suite: "event-loop",
    tables: [{
      title: "Worst lateness of a 5 ms timer beside a lock of 2 s",
      unit: "ms",
      rows,
    }],
    goals: [
      atMost(
        20,
        "ms late, in the worst round of the pool",
        Math.max(...samples.pool),
      ),
    ],
  };
}
