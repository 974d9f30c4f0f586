/**
 * `simulate` as a person calls it.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { SCENARIO_FIELDS } from "./scenario.ts";
import { callProject, type ProjectRun } from "./testing.ts";

const RUN: Deno.PermissionOptions = {
  ...{ run: [Deno.execPath()], read: true, write: [".tmp"], env: false },
};

function call(
  args: readonly string[],
  permissions: readonly string[] = [],
): Promise<ProjectRun> {
  return callProject(["simulate", ...args], { permissions });
}

Deno.test("simulates without any permission, and fits into 80 columns", {
  permissions: RUN,
}, async () => {
  const { code, stdout: out, stderr: err } = await call([
    ...["--pool-size", "4..6", "--requests", "2000", "--slo", "p99<1s"],
  ]);
  assertEquals([code, err], [0, ""]);
  for (const word of ["M/M/c", "Diagnosis", "Recommendation", "pool size 5"]) {
    assert(out.includes(word), out);
  }
  for (const line of out.split("\n")) assert(line.length <= 80, line);
});

Deno.test(
  "the help of each command fits into 80 columns and names every setting",
  {
    permissions: RUN,
  },
  async () => {
    for (const command of [[], ["retry"]]) {
      const { code, stdout: out } = await call([...command, "--help"]);
      assertEquals(code, 0);
      for (const line of out.split("\n")) assert(line.length <= 80, line);
      const flags = command.length === 0
        ? SCENARIO_FIELDS.map(({ flag }) => flag)
        : ["model", "policy", "clients", "replications", "seed"];
      for (const flag of flags) assert(out.includes(`--${flag} `), flag);
    }
  },
);

const KEYS = [
  ...["pool_size", "max_overflow", "offered", "served", "timed_out"],
  ...["rejected", "failed", "throughput_per_s", "utilization"],
  ...["wait_probability", "wait_ms", "latency_ms", "peak", "created"],
  ...["connect_attempts", "pool_stats"],
];
const FIGURES = ["mean", "p50", "p90", "p95", "p99", "p999", "max"];

Deno.test("--json has its documented keys, the same for flags and a file", {
  permissions: RUN,
}, async () => {
  await Deno.mkdir(".tmp", { recursive: true });
  const file = join(".tmp", "scenario.json");
  const flags = ["--requests", "500", "--outage", "1s+1s", "--json"];
  const first = await call([...flags, "--save-scenario", file], [
    ...["--allow-read=.", "--allow-write=.tmp"],
  ]);
  const second = await call(["--scenario", file, "--json"], ["--allow-read=."]);
  await Deno.remove(file);
  assertEquals([first.code, second.code], [0, 0], first.stderr + second.stderr);
  const [one, two] = [first, second].map(({ stdout }) => JSON.parse(stdout));
  for (
    const key of ["scenario", "points", "theory", "diagnosis", "recommendation"]
  ) assert(key in one, key);
  assert(one.requests_per_wall_second > 0);
  for (const key of KEYS) assert(key in one.points[0], key);
  assertEquals(Object.keys(one.points[0].latency_ms), FIGURES);
  assertEquals(one.points, two.points);
});

for (
  const [args, expected] of [
    [["--arrivals", "poisson:0/s"], "--arrivals must have a rate > 0"],
    [["--pool-size", "1..1000000"], "--pool-size must make at most 1000"],
    [["--pool-sise", "3"], "did you mean --pool-size?"],
    [["--warmup", "1h", "--requests", "50"], "--warmup must end before"],
    [["--arrivals", "burst:5@9s", "--duration", "1s"], "must bring a request"],
    [["--retry", "exp:"], "--retry must have a base"],
    [["--slo", "p98<1s"], "--slo must be conditions"],
    [["--service", "gauss:1s"], "--service must be one of"],
    [["--pool-size", ""], "--pool-size needs a value"],
    [["retry", "--model", "storm"], "--model must be one of"],
    [["retry", "--policy", "ful"], "did you mean full?"],
    [["retry", "--clients", "0"], "--clients must be a whole number"],
    [["now"], "Cannot take 'now'"],
  ] as const
) {
  Deno.test(`exit 2 and one line for simulate ${args.join(" ")}`, {
    permissions: RUN,
  }, async () => {
    const { code, stdout: out, stderr: err } = await call(args);
    assertEquals([code, out], [2, ""]);
    assert(err.includes(expected), err);
    assertEquals(err.trimEnd().split("\n").length, 1, err);
  });
}

Deno.test("a file that is missing or wrong is named, and nothing is printed", {
  permissions: RUN,
}, async () => {
  const missing = await call(["--scenario", "no.json"], ["--allow-read=."]);
  assertEquals([missing.code, missing.stdout], [1, ""]);
  assert(missing.stderr.includes("Cannot read 'no.json'"), missing.stderr);
  const wrong = await call(["--scenario", "mod.ts"], ["--allow-read=."]);
  assertEquals(wrong.code, 2);
  assert(wrong.stderr.includes("must be JSON"), wrong.stderr);
});

Deno.test("simulate retry compares policies, as a table and as JSON", {
  permissions: RUN,
}, async () => {
  const args = ["retry", "--model", "reconnect", "--replications", "1"];
  const { code, stdout: out } = await call(args);
  assertEquals(code, 0);
  for (const line of out.split("\n")) assert(line.length <= 80, line);
  const { policies, model, clients } = JSON.parse(
    (await call([...args, "--json"])).stdout,
  );
  assertEquals([model, clients, policies.length], ["reconnect", 1000, 6]);
  for (
    const key of [
      ...["policy", "attempts", "attempts_per_client", "peak_per_100ms"],
      ...["completion_ms", "drain_ms"],
    ]
  ) assert(key in policies[0], key);
});

Deno.test(
  "the page stands alone: no script, nothing from elsewhere, hostile names escaped",
  {
    permissions: RUN,
  },
  async () => {
    await Deno.mkdir(".tmp", { recursive: true });
    const file = join(".tmp", "report.html");
    const hostile =
      `</title><script>alert(1)</script><img src=x onerror=alert(1)>`;
    const { code, stderr: err } = await call(
      [
        ...["--name", hostile, "--requests", "1000", "--pool-size", "4,5"],
        ...["--slo", "p99<1s", "--report", file],
      ],
      ["--allow-read=.", "--allow-write=.tmp"],
    );
    assertEquals(code, 0, err);
    const page = await Deno.readTextFile(file);
    await Deno.remove(file);
    assertEquals(
      page.match(/<(script|img|link)|<[a-z][^>]*\s(on\w+|src|href)=/g),
      null,
    );
    assert(page.includes("&lt;script&gt;"));
    assertEquals(page.match(/<svg/g)?.length, 3);
    for (const word of ["Diagnosis", "M/M/c", "deno task simulate --name"]) {
      assert(page.includes(word), word);
    }
  },
);
