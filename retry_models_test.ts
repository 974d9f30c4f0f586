/**
 * The retry experiments against the figures of their sources.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import { type PolicyResult, retryExperiment } from "./retry_models.ts";

const NONE: Deno.PermissionOptions = "none";

function near(value: number | null, expected: number, part: number): void {
  assert(
    value !== null && Math.abs(value / expected - 1) < part,
    `${value} instead of ${expected}`,
  );
}

for (
  const [clients, figures] of [
    [10, [[51, 380], [51, 3470], [38, 435], [43, 732], [39, 462]]],
    [50, [[691, 1141], [624, 36400], [375, 2212], [347, 4239], [333, 2900]]],
    [100, [[2423, 2029], [1860, 63730], [1001, 4591], [812, 6626], [
      796,
      4920,
    ]]],
  ] as const
) {
  Deno.test(
    `contention of ${clients} writers costs what Amazon's model says, by policy`,
    { permissions: NONE },
    () => {
      const { policies } = retryExperiment({ model: "contention", clients });
      assertEquals(
        policies.map(({ policy }) => policy),
        ["none", "exp", "decorrelated", "equal", "full"],
      );
      for (const [i, [attempts, ms]] of figures.entries()) {
        near(policies[i]?.attempts ?? NaN, attempts, 0.03);
        near(policies[i]?.completion_ms ?? NaN, ms, 0.08);
      }
    },
  );
}

function byName(policies: readonly PolicyResult[], name: string): PolicyResult {
  return policies.find(({ policy }) => policy === name) as PolicyResult;
}

Deno.test(
  "after an outage jitter fixes the peak, and the exponent the traffic",
  {
    permissions: NONE,
  },
  () => {
    const { policies } = retryExperiment({ model: "reconnect" });
    for (
      const [name, drainS, peak] of [
        ["fixed:1s", 16.1, 1000],
        ["fixed:5s", 80, 1000],
        ["exp", 81, 1000],
        ["full", 4.95, 48],
        ["equal", 4.91, 37],
        ["decorrelated", 5, 44],
      ] as const
    ) {
      const row = byName(policies, name);
      near(row.drain_ms, drainS * 1000, 0.03);
      near(row.peak_per_100ms, peak, 0.15);
    }
    near(byName(policies, "full").attempts_while_down_per_client, 17, 0.05);
    const [eager] = retryExperiment({
      ...{ model: "reconnect", policies: ["fixed:100ms"], replications: 1 },
    }).policies;
    near(eager?.attempts_while_down_per_client ?? NaN, 297, 0.01);
  },
);

Deno.test("no backoff ends an overload that feeds itself, and a budget does", {
  permissions: NONE,
}, () => {
  const { policies } = retryExperiment({
    ...{ model: "overload", policies: ["exp", "full"], replications: 3 },
  });
  const drains = policies.map(({ policy, drain_ms, recovered }) => [
    policy,
    drain_ms === null ? null : Math.round(drain_ms / 1000),
    recovered,
  ]);
  assertEquals(drains.map(([policy]) => policy), [
    ...["no retries", "exp", "full", "exp, budget 10 %", "full, budget 10 %"],
  ]);
  near(policies[0]?.drain_ms ?? NaN, 22_000, 0.15);
  assertEquals([drains[1]?.[2], drains[2]?.[2]], [0, 0]);
  near(policies[4]?.drain_ms ?? NaN, 23_000, 0.15);
});

Deno.test("the same seed gives the same storm, another seed another", {
  permissions: NONE,
}, () => {
  const storm = (seed: number): string =>
    JSON.stringify(
      retryExperiment({ model: "contention", clients: 20, seed }).policies,
    );
  assertEquals(storm(3), storm(3));
  assert(storm(3) !== storm(4));
});

Deno.test("a policy that does not exist is refused with what was meant", {
  permissions: NONE,
}, () => {
  const error = assertThrows(
    () => retryExperiment({ model: "reconnect", policies: ["ful"] }),
    SyntaxError,
  );
  assert(error.message.includes("did you mean full?"), error.message);
});
