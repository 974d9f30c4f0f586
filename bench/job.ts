/**
 * The baseline job against the same job done the obvious way, and its memory
 * as the input grows.
 *
 * @module
 */

import settings from "../deno.json" with { type: "json" };
import { inRounds } from "./measure.ts";
import { type Cost, costOf, TemporaryFolder } from "./process.ts";
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

// The arguments of `deno` in the task, so that the permissions are its own.
const RUN_TASK = settings.tasks.run.command.split(" ").slice(1);

/** Measures the job. */
export async function benchJob({ isQuick }: SuiteOptions): Promise<Report> {
  await using folder = new TemporaryFolder();
  const bench = new JobBench(folder);
  const sizes = isQuick
    ? [100_000, 1_000_000]
    : [100_000, 1_000_000, 4_000_000];
  // The first run of a program also compiles it.
  await bench.run("project", 1, ":memory:");
  await bench.run("naive", 1, ":memory:");
  const comparison = await bench.compare(1_000_000, isQuick ? 3 : 7);
  const growth = await bench.grow(sizes, isQuick ? 1 : 3);
  return {
    suite: "job",
    tables: [...comparison.tables, ...growth.tables],
    goals: [...comparison.goals, ...growth.goals],
  };
}

type Findings = Pick<Report, "tables" | "goals">;

class JobBench {
  readonly #folder: TemporaryFolder;
  #databases = 0;

  constructor(folder: TemporaryFolder) {
    this.#folder = folder;
  }

  async compare(labels: number, rounds: number): Promise<Findings> {
    const memory: Record<string, number[]> = { project: [], naive: [] };
    const seconds = await inRounds(
      ["project", "naive"],
      rounds,
      async (who) => {
        const cost = await this.run(who, labels, ":memory:");
        memory[who]?.push(cost.peakMiB ?? NaN);
        return cost.seconds;
      },
    );
    const what = `${labels.toLocaleString("en")} labels into :memory:`;
    const time = pair(`${what}, time`, "s", seconds);
    const goals: Goal[] = [
      atLeast(1.5, "times as fast as the obvious way", 1 / time.ratio),
    ];
    if (memory["project"]?.every(Number.isNaN)) {
      return { tables: [time.table], goals };
    }
    const peak = pair(`${what}, peak memory`, "MiB", memory);
    goals.push(atMost(0.25, "of the memory of the obvious way", peak.ratio));
    return { tables: [time.table, peak.table], goals };
  }

  /** The memory of the job with a database file, as the input grows. */
  async grow(sizes: readonly number[], rounds: number): Promise<Findings> {
    const names = sizes.map(String);
    const memory = await inRounds(names, rounds, async (name) => {
      const database = this.#folder.file(`${++this.#databases}.db`);
      const cost = await this.run("project", Number(name), database);
      for (const suffix of ["", "-wal", "-shm"]) {
        await Deno.remove(database + suffix).catch(() => {});
      }
      return cost.peakMiB ?? NaN;
    });
    const rows = names.map((name): Row => ({
      label: `${Number(name).toLocaleString("en")} labels`,
      samples: memory[name] ?? [],
    }));
    const [least, most] = [rows[0] as Row, rows.at(-1) as Row];
    if (least.samples.every(Number.isNaN)) return { tables: [], goals: [] };
    return {
      tables: [{
        title: "The job with a database file, peak memory",
        unit: "MiB",
        rows,
        reference: least,
      }],
      goals: [
        atMost(
          1.25,
          `memory for ${most.label} over that for ${least.label}`,
          ratio(most, least),
        ),
      ],
    };
  }

  async run(
    who: "project" | "naive",
    labels: number,
    database: string,
  ): Promise<Cost> {
    const input = await this.#labelFile(labels);
    const output = this.#folder.file("summary.json");
    const args = who === "project"
      ? [...RUN_TASK, "run", `--input=${input}`, `--output=${output}`]
        .concat(`--db=${database}`)
      : ["run", "--no-config", "-A", "bench/naive_job.ts"]
        .concat(input, output, database);
    const cost = await costOf(args);
    await checkSummary(output, labels);
    return cost;
  }

  async #labelFile(labels: number): Promise<string> {
    const path = this.#folder.file(`${labels}.txt`);
    try {
      using file = await Deno.open(path, { write: true, createNew: true });
      const encoder = new TextEncoder();
      for (let from = 0; from < labels; from += 10_000) {
        const to = Math.min(labels, from + 10_000);
        let text = "";
        for (let i = from; i < to; i++) text += `user_login from host ${i}\n`;
        const bytes = encoder.encode(text);
        for (let at = 0; at < bytes.length;) {
          at += await file.write(bytes.subarray(at));
        }
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
    return path;
  }
}

/** A fast job that does something else is no win. */
async function checkSummary(path: string, labels: number): Promise<void> {
  using file = await Deno.open(path);
  const head = new Uint8Array(200);
  await file.read(head);
  const found = /"rows_inserted":\s*(\d+)/.exec(new TextDecoder().decode(head));
  if (Number(found?.[1]) !== labels) {
    throw new Error(`The summary does not say ${labels} rows`);
  }
}

function pair(
  title: string,
  unit: string,
  samples: Record<string, readonly number[]>,
): { table: Table; ratio: number } {
  const reference: Row = {
    label: "the obvious way",
    samples: samples["naive"] ?? [],
  };
  const row: Row = {
    label: "project.ts run",
    samples: samples["project"] ?? [],
  };
  const table = { title, unit, rows: [row, reference], reference };
  return { table, ratio: ratio(row, reference) };
}
