/**
 * Answers, not only numbers: what is said of a pool, and what is recommended.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  diagnose,
  type Finding,
  parseSlo,
  recommend,
  type Recommendation,
  theoryBeside,
} from "./diagnosis.ts";
import type { Scenario } from "./scenario.ts";
import { simulate } from "./simulate.ts";

const NONE: Deno.PermissionOptions = "none";

for (
  const [kind, scenario] of [
    ["healthy", {}],
    ["unstable", { poolSize: 3, requests: 2000 }],
    ["saturated", { arrivals: "poisson:235/s" }],
    ["leaking", { leak: 0.01, acquireTimeout: "1s", requests: 1000 }],
    ["retry-storm", { queryFailure: 0.9, clientRetries: 3, poolSize: 20 }],
    ["oversized-for-database", { usl: "1000,0.02,0.0005", poolSize: 128 }],
    [
      "oversized-for-database",
      { instances: 4, maxConnections: 10, requests: 2000 },
    ],
    [
      "bursty",
      { arrivals: ["poisson:20/s", "burst:200@20s"], requests: 2000 },
    ],
    [
      "connect-bound",
      {
        arrivals: "burst:200@1s",
        connect: "constant:500ms",
        service: "constant:100ms",
        poolSize: 50,
      },
    ],
    ["oversized", { poolSize: 50 }],
    ["failing", { queryFailure: 0.05 }],
    ["failing", { outage: "10s+5s", duration: "40s" }],
  ] as readonly (readonly [Finding["kind"], Scenario])[]
) {
  Deno.test(
    `says '${kind}' of ${JSON.stringify(scenario)}, with figures`,
    { permissions: NONE },
    () => {
      const findings = diagnose(simulate(scenario));
      const found = findings.find((finding) => finding.kind === kind);
      assert(found, JSON.stringify(findings));
      assert(/\d/.test(found.text), found.text);
    },
  );
}

function recommended(scenario: Scenario, slo: string): Recommendation {
  const steps = recommend(simulate(scenario), parseSlo(slo));
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

Deno.test(
  "recommends the smallest pool that meets the objective, and says what breaks first",
  { permissions: NONE },
  () => {
    const sweep = { poolSize: "4..12" };
    const found = recommended(sweep, "p99<105ms,errors<0.1%");
    assertEquals(found.pool_size, 6);
    assertEquals(found.breaks_first, ["p99<105ms"]);
    assert((found.breaks_at_load_factor ?? 0) > 1);
    assert(found.margins.every(({ margin }) => margin > 0));
    const burst = recommended({ arrivals: "burst:5@1s" }, "p99<10s");
    assertEquals(burst.breaks_at_load_factor, null);
    assert(burst.text.includes("no greater load was tried"), burst.text);
    const none = recommended(sweep, "p99<20ms");
    assertEquals(none.pool_size, null);
    assert(none.text.includes("No point of the sweep"), none.text);
  },
);

Deno.test("an objective that cannot be read is refused", {
  permissions: NONE,
}, () => {
  for (const text of ["", "p98<1s", "p99>1s", "errors<x", "p99<50ms;p95<1s"]) {
    assertThrows(() => parseSlo(text), SyntaxError, "p99<50ms,errors<0.1%");
  }
});

Deno.test("names the formula that fits, and says why if none does", {
  permissions: NONE,
}, () => {
  const model = (scenario: Scenario): string | undefined =>
    theoryBeside(simulate({ requests: 500, ...scenario }))[0]?.model;
  assertEquals(model({}), "M/M/c");
  assertEquals(model({ maxWaiting: 0 }), "Erlang B");
  assertEquals(model({ maxWaiting: 5 }), "M/M/c/K");
  assertEquals(model({ acquireTimeout: "50ms" }), "M/M/c with a timeout");
  const one = { poolSize: 1, arrivals: "poisson:20/s" };
  assertEquals(model({ ...one, service: "constant:20ms" }), "M/D/1");
  assertEquals(model({ ...one, service: "uniform:10ms,30ms" }), "M/G/1");
  assertEquals(
    model({ arrivals: "closed:9,constant:0", usl: "1000,0.02,0.0005" }),
    "Universal Scalability Law",
  );
  for (
    const odd of [
      { arrivals: "constant:9/s" },
      { leak: 0.1, acquireTimeout: 1 },
      { instances: 2 },
      { service: "gamma:20ms,2" },
    ]
  ) {
    const text = model(odd);
    assert(text?.startsWith("no formula fits: "), `${text}`);
  }
});
