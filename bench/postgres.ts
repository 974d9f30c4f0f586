/**
 * What the pool gains on a server, and what the job takes there.
 *
 * @module
 */

import settings from "../deno.json" with { type: "json" };
import { inRounds } from "./measure.ts";
import { CONNECTIONS, POSTGRES_CONTENDERS } from "./postgres_contenders.ts";
import type { PostgresMeasure } from "./postgres_worker.ts";
import { TestServer } from "../postgres_testing.ts";
import { costOf, ROOT, runWorker, TemporaryFolder } from "./process.ts";
import {
  atLeast,
  atMost,
  ratio,
  type Report,
  type Row,
  type SuiteOptions,
} from "./report.ts";

const TASKS = [1, 10, 100, 1000];
const LABELS = 100_000;

const RUN_TASK = settings.tasks.run.command.split(" ").slice(1);

type Findings = Pick<Report, "tables" | "goals">;

/** Measures on a server that it starts itself. */
export async function benchPostgres(
  { isQuick }: SuiteOptions,
): Promise<Report> {
  Deno.chdir(ROOT);
  await using server = await TestServer.start();
  const rounds = isQuick ? 3 : 7;
  const parts = [await compareOpening(server.url(), rounds)];
  for (const tasks of TASKS) {
    parts.push(await comparePools(server.url(), tasks, rounds));
  }
  parts.push(await compareJobs(server.url(), rounds));
  return {
    suite: "postgres",
    tables: parts.flatMap(({ tables }) => tables),
    goals: parts.flatMap(({ goals }) => goals),
  };
}

function rowOf(name: string, samples: readonly number[] = []): Row {
  return { label: POSTGRES_CONTENDERS[name]?.label ?? name, samples };
}

async function compareOpening(url: string, rounds: number): Promise<Findings> {
  const samples = await inRounds(["pool", "opening"], rounds, async (name) => {
    const args = [name, url, "1"];
    const { usEach } = await runWorker<PostgresMeasure>(
      ...["postgres_worker.ts", args] as const,
    );
    return usEach;
  });
  const pool = rowOf("pool", samples.pool);
  const opening = rowOf("opening", samples.opening);
  return {
    tables: [{
      title: "A query, one task",
      unit: "µs",
      rows: [pool, opening],
      reference: pool,
    }],
    goals: [
      atLeast(
        30,
        "times as fast as a connection for each query",
        ratio(opening, pool),
      ),
    ],
  };
}

async function comparePools(
  url: string,
  tasks: number,
  rounds: number,
): Promise<Findings> {
  const tails: Record<string, number[]> = { pool: [], pgPool: [] };
  const samples = await inRounds(["pool", "pgPool"], rounds, async (name) => {
    const args = [name, url, String(tasks)];
    const { usEach, p99Ms } = await runWorker<PostgresMeasure>(
      ...["postgres_worker.ts", args] as const,
    );
    tails[name]?.push(p99Ms);
    return usEach;
  });
  const what = `${tasks.toLocaleString("en")} ${
    tasks === 1 ? "task" : "tasks"
  } on ${CONNECTIONS} connections`;
  const table = (
    title: string,
    unit: string,
    of: Record<string, readonly number[]>,
  ) => {
    const reference = rowOf("pgPool", of["pgPool"]);
    const rows = [rowOf("pool", of["pool"]), reference];
    return { title, unit, rows, reference };
  };
  const time = table(`${what}, time for each query`, "µs", samples);
  const tail = table(`${what}, 99th percentile`, "ms", tails);
  const [ours, ourTail] = [time.rows[0] as Row, tail.rows[0] as Row];
  return {
    tables: [time, tail],
    goals: [
      atMost(1, `of pg-pool's time, ${what}`, ratio(ours, time.reference)),
      atMost(1, `of pg-pool's tail, ${what}`, ratio(ourTail, tail.reference)),
    ],
  };
}

async function compareJobs(url: string, rounds: number): Promise<Findings> {
  await using folder = new TemporaryFolder();
  const input = folder.file("labels.txt");
  const labels = Array.from({ length: LABELS }, (_, i) => `user_login ${i}\n`);
  await Deno.writeTextFile(input, labels.join(""));
  const output = folder.file("summary.json");
  const commands: Record<"job" | "copy", string[]> = {
    job: [
      ...[...RUN_TASK, `--input=${input}`, `--output=${output}`, `--db=${url}`],
    ],
    copy: [
      ...["run", "--config", "bench/deno.json", "--frozen", "--no-prompt"],
      ...["-A", "bench/copy_job.ts", input, url],
    ],
  };
  const samples = await inRounds(
    ["job", "copy"],
    rounds,
    async (name) => (await costOf(commands[name])).seconds,
  );
  const job: Row = {
    label: "project.ts run: rows in, and all read back",
    samples: samples.job,
  };
  const copy: Row = { label: "COPY: rows in", samples: samples.copy };
  return {
    tables: [{
      title: `${LABELS.toLocaleString("en")} labels into the server`,
      unit: "s",
      rows: [job, copy],
      reference: copy,
    }],
    goals: [
      atMost(
        3,
        "times the time of COPY, which reads nothing back",
        ratio(job, copy),
      ),
    ],
  };
}
