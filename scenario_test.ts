/**
 * Scenarios: what can be said, and what is refused with one clear line.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  parsePolicy,
  parseScenario,
  readScenario,
  ScenarioError,
  scenarioSchema,
} from "./scenario.ts";

const READ: Deno.PermissionOptions = { read: ["data"] };

Deno.test("a scenario without settings is one that says something", {
  permissions: "none",
}, () => {
  const { points, arrivals, service, requests } = readScenario({});
  assertEquals(points.length, 1);
  assertEquals(points[0]?.config.poolSize, 5);
  assertEquals(points[0]?.config.maxOverflow, 0);
  assertEquals(
    [arrivals[0]?.text, service.text, requests],
    ["poisson:200/s", "exp:20ms", 20_000],
  );
});

Deno.test("lists and ranges make every combination, the last one fastest", {
  permissions: "none",
}, () => {
  const { points } = readScenario({
    poolSize: "1..3,10..30:10",
    acquireTimeout: ["100ms", 1],
  });
  assertEquals(
    points.map(({ config }) => [config.poolSize, config.acquireTimeoutMs]),
    [1, 2, 3, 10, 20, 30].flatMap((size) => [[size, 100], [size, 1000]]),
  );
  assertEquals(points[1]?.varied, { poolSize: "1", acquireTimeout: "1" });
});

Deno.test("what a scenario says can be written down and read again", {
  permissions: "none",
}, () => {
  const { scenario } = readScenario({ poolSize: "4,8", outage: "10s+5s" });
  assertEquals(readScenario(scenario).scenario, scenario);
  assertEquals(
    readScenario(parseScenario(JSON.stringify(scenario))).scenario,
    scenario,
  );
});

for (
  const [what, scenario, expected] of [
    ["a rate of 0", { arrivals: "poisson:0/s" }, "rate > 0"],
    ["a negative time", { acquireTimeout: "-1s" }, "duration >= 0"],
    ["an empty sweep", { poolSize: [] }, "empty list"],
    ["a range that goes down", { poolSize: "9..3" }, "goes up"],
    ["a million points", { poolSize: "1..1000000" }, "at most 1000 points"],
    [
      "a million points together",
      { poolSize: "1..1000", maxOverflow: "0..999" },
      "makes 1000000",
    ],
    ["an unknown distribution", { service: "gauss:1s" }, "must be one of"],
    ["a typo in it", { service: "pareta:1s,2" }, "did you mean pareto?"],
    ["an unknown setting", { poolSzie: 3 }, "did you mean 'poolSize'?"],
    ["a chance over 1", { leak: 1.5 }, "from 0 to 1"],
    ["no number of requests", { requests: 0 }, "whole number from 1"],
    ["half a request", { requests: 1.5 }, "whole number from 1"],
    ["two ends", { requests: 5, duration: 1 }, "leave one out"],
    ["only warm-up", { duration: 5, warmup: 5 }, "shorter than 'duration'"],
    ["an outage of nothing", { outage: "5s" }, "10s+5s"],
    ["a slowdown without a factor", { slow: "5s+5s" }, "10s+5s,x10"],
    ["a policy that is none", { retry: "expo:1s" }, "did you mean exp?"],
    ["a list of seeds", { seed: [1, 2] }, "makes no sweep"],
    ["a pool that the pool refuses", { minIdle: 9, poolSize: 3 }, "minIdle"],
    ["a file without leave", { arrivals: "trace:a.txt" }, "cannot be read"],
    ["an object as a setting", { poolSize: {} }, "a text or a number"],
    ["USL that speeds up", { usl: "1000,-1,0" }, "contention"],
    [
      "infinitely many at once",
      {
        arrivals: "closed:1,constant:0",
        service: "constant:0",
        duration: 1,
      },
      "give 'requests'",
    ],
  ] as const
) {
  Deno.test(`refused with one line: ${what}`, { permissions: "none" }, () => {
    const error = assertThrows(() => readScenario(scenario), ScenarioError);
    assert(error.message.includes(expected), error.message);
    assert(!error.message.includes("\n"), error.message);
  });
}

Deno.test("a trace that goes backwards is refused, with the line", {
  permissions: "none",
}, () => {
  const error = assertThrows(
    () => readScenario({ arrivals: "trace:a.txt" }, () => [1, 3, 2]),
    ScenarioError,
  );
  assert(error.message.includes("never go back"), error.message);
  assert(error.message.includes("number 3 is 2"), error.message);
});

Deno.test("a policy may carry its own numbers", { permissions: "none" }, () => {
  assertEquals(
    ["exp:100ms..5s", "fixed:1s", "full", "none"].map((text) => {
      const { baseDelayMs, maxDelayMs, factor, jitter } =
        parsePolicy(text).policy;
      return [baseDelayMs, maxDelayMs, factor, jitter];
    }),
    [
      [100, 5000, 2, "none"],
      [1000, 5000, 1, "none"],
      [10, 5000, 2, "full"],
      [0, 5000, 2, "none"],
    ],
  );
  for (const text of ["exp:5s..1s", "exp:", "none:1s", "exp:1s..2s..3s"]) {
    assertThrows(() => parsePolicy(text), SyntaxError);
  }
});

Deno.test("the schema in data/ is the one of the settings", {
  permissions: READ,
}, async () => {
  assertEquals(
    JSON.parse(await Deno.readTextFile("data/scenario.schema.json")),
    scenarioSchema(),
  );
});
