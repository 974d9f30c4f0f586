/**
 * The benchmarks: `deno task bench [NAME…] [--json] [--quick]`.
 *
 * Everything that is compared is measured in one run, in turns. A goal that is
 * missed is information, not a failure.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { benchEventLoop } from "./event_loop.ts";
import { benchJob } from "./job.ts";
import { benchPool } from "./pool.ts";
import { benchPostgres } from "./postgres.ts";
import { benchQuery } from "./query.ts";
import {
  formatReport,
  type Report,
  type SuiteOptions,
  toJson,
} from "./report.ts";
import { benchSimulator } from "./simulator.ts";

const SUITES: Record<string, (options: SuiteOptions) => Promise<Report>> = {
  "job": benchJob,
  "query": benchQuery,
  "pool": benchPool,
  "event-loop": benchEventLoop,
  "postgres": benchPostgres,
  "simulator": benchSimulator,
};

const EXIT_USAGE = 2;

async function main(args: string[]): Promise<number> {
  const wrong: string[] = [];
  const flags = parseArgs(args, {
    boolean: ["json", "quick", "help"],
    unknown: (arg, key) => {
      if (key !== undefined) wrong.push(arg);
    },
  });
  const given = flags._.map(String);
  wrong.push(...given.filter((name) => !Object.hasOwn(SUITES, name)));
  const usage = `Usage: deno task bench [${
    Object.keys(SUITES).join("|")
  }]... [--json] [--quick]`;
  if (flags["help"]) {
    console.log(usage);
    return 0;
  }
  if (wrong.length > 0) {
    console.error(`Unknown argument '${wrong[0]}'\n${usage}`);
    return EXIT_USAGE;
  }
  const names = given.length > 0 ? given : Object.keys(SUITES);
  const reports: Report[] = [];
  for (const name of names) {
    if (Deno.stderr.isTerminal()) console.error(`Measuring ${name} ...`);
    const report = await SUITES[name]?.({ isQuick: Boolean(flags["quick"]) });
    if (report === undefined) continue;
    reports.push(report);
    if (!flags["json"]) console.log(formatReport(report));
  }
  if (flags["json"]) {
    const machine = {
      deno: Deno.version.deno,
      system: Deno.build.target,
      processors: navigator.hardwareConcurrency,
    };
    const suites = reports.map(toJson);
    console.log(JSON.stringify({ machine, suites }, null, 2));
  }
  return 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
