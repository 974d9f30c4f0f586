/**
 * The simulator against queueing theory, published figures and itself.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { readScenario, type Scenario } from "./scenario.ts";
import {
  type PointResult,
  type ReplicationFigures,
  simulate,
  simulation,
} from "./simulate.ts";
import { estimate, studentT } from "./statistics.ts";
import {
  erlangB,
  mmc,
  mmcBounded,
  mmcWithTimeout,
  uslThroughput,
} from "./theory.ts";
import { settled } from "./virtual_clock.ts";

const NONE: Deno.PermissionOptions = "none";

/** Nothing limits the queue, and connections cost nothing. */
const OPEN: Scenario = {
  service: "exp:1s",
  connect: "constant:0",
  acquireTimeout: "500h",
  maxWaiting: 1_000_000_000,
  requests: 100_000,
  replications: 8,
};

function only(scenario: Scenario): PointResult {
  const [point] = simulate(scenario).points;
  return point as PointResult;
}

/** How far the replications are from a value, in standard errors. */
function assertNear(
  point: PointResult,
  value: (one: ReplicationFigures) => number,
  expected: number,
  what: string,
): void {
  const { mean, halfWidth } = estimate(point.replications.map(value));
  const standardError = halfWidth / studentT(point.replications.length - 1);
  const distance = Math.abs(mean - expected) / standardError;
  // A chance of about one in a thousand with eight replications, and the seeds
  // are fixed. Percentiles are up to 0.4 % too high as well.
  assert(
    distance < 5 || Math.abs(mean / expected - 1) < 0.005,
    `${what}: ${mean} instead of ${expected}, ${distance} standard errors`,
  );
  // A spread that excuses everything would prove nothing.
  assert(standardError < 0.1 * expected, `${what}: spread ${standardError}`);
}

for (
  const { c, a, wait } of [
    { c: 1, a: 0.5, wait: 1 },
    { c: 1, a: 0.9, wait: 9 },
    { c: 5, a: 2.5, wait: 0.052149 },
    { c: 5, a: 4, wait: 0.554113 },
    { c: 5, a: 4.5, wait: 1.524986 },
  ]
) {
  Deno.test(
    `Erlang's figures come out of the real pool: M/M/${c} with ${a} Erlang`,
    { permissions: NONE },
    () => {
      const theory = mmc({ servers: c, arrivalRate: a, serviceTime: 1 });
      const point = only({ ...OPEN, poolSize: c, arrivals: `poisson:${a}/s` });
      assert(Math.abs(theory.meanWait - wait) < 1e-5);
      assertEquals(point.served, 800_000);
      assertNear(
        point,
        (one) => one.wait_probability,
        theory.waitProbability,
        "P",
      );
      assertNear(point, (one) => one.wait_ms.mean, wait * 1000, "Wq");
      for (const [figure, p] of [["p95", 0.95], ["p99", 0.99]] as const) {
        const expected = theory.percentile(p) * 1000;
        assertNear(point, (one) => one.wait_ms[figure], expected, figure);
      }
      assertNear(point, (one) => one.utilization, a / c, "utilization");
    },
  );
}

Deno.test(
  "constant service halves the wait, as Pollaczek and Khinchine have it",
  { permissions: NONE },
  () => {
    const point = only({
      ...OPEN,
      service: "constant:1s",
      poolSize: 1,
      arrivals: "poisson:0.5/s",
    });
    assertNear(point, (one) => one.wait_ms.mean, 500, "Wq");
    assertNear(point, (one) => one.wait_ms.p95, 2050.638, "p95");
  },
);

Deno.test(
  "a pool where nobody may wait loses what Erlang's B formula says",
  { permissions: NONE },
  () => {
    for (const [c, a, loss] of [[5, 4, 0.199067], [10, 8, 0.121661]] as const) {
      assert(Math.abs(erlangB(c, a) - loss) < 1e-6);
      const point = only({
        ...OPEN,
        maxWaiting: 0,
        poolSize: c,
        arrivals: `poisson:${a}/s`,
      });
      assertNear(point, (one) => one.loss_probability, loss, `B(${c}, ${a})`);
      assertEquals(point.rejected + point.served, point.offered);
    }
  },
);

Deno.test(
  "the acquire timeout sheds as many as the formula of M/M/c with a deadline says",
  { permissions: NONE },
  () => {
    const point = only({
      ...OPEN,
      poolSize: 5,
      arrivals: "poisson:4/s",
      acquireTimeout: "1s",
    });
    const theory = mmcWithTimeout({
      ...{ servers: 5, arrivalRate: 4, serviceTime: 1 },
      timeout: 1,
    });
    assert(Math.abs(theory.lossProbability - 0.048713) < 1e-6);
    assertNear(point, (one) => one.loss_probability, 0.048713, "P(timeout)");
    assertNear(point, (one) => one.wait_probability, 0.46723, "P(wait)");
    assertNear(point, (one) => one.mean_wait_of_all_ms, 223.663, "of all");
    assertNear(point, (one) => one.wait_ms.mean, 183.908, "of the served");
    assertEquals(point.timed_out, point.offered - point.served);
  },
);

Deno.test(
  "a bounded queue turns away what the formula of M/M/c/K says",
  { permissions: NONE },
  () => {
    const point = only({
      ...OPEN,
      poolSize: 5,
      arrivals: "poisson:4/s",
      maxWaiting: 5,
    });
    const theory = mmcBounded({
      ...{ servers: 5, arrivalRate: 4, serviceTime: 1 },
      capacity: 10,
    });
    assert(Math.abs(theory.lossProbability - 0.042486) < 1e-6);
    assertNear(point, (one) => one.loss_probability, 0.042486, "loss");
    assertNear(point, (one) => one.wait_ms.mean, 233.337, "of the served");
  },
);

Deno.test(
  "the throughput follows the Universal Scalability Law in the number of busy connections",
  { permissions: NONE },
  () => {
    const { points } = simulate({
      arrivals: "closed:128,constant:0",
      usl: "1000,0.02,0.0005",
      connect: "constant:0",
      maxConnecting: 128,
      poolSize: "44,128",
      duration: "6s",
      warmup: "1s",
      replications: 4,
    });
    const law = { lambda: 1000, alpha: 0.02, beta: 0.0005 };
    for (const [i, x] of [15680.7, 10970.2].entries()) {
      const point = points[i] as PointResult;
      assert(Math.abs(uslThroughput(law, point.pool_size) - x) < 0.1);
      assertNear(point, (one) => one.throughput_per_s, x, `X(${i})`);
    }
  },
);

const BURST_ON_USL: Scenario = {
  arrivals: ["poisson:12500/s", "burst:2000@2s"],
  usl: "1000,0.02,0.0005",
  connect: "constant:0",
  maxConnecting: 200,
  duration: "12s",
  replications: 1,
};

Deno.test(
  "a pool that is too large never drains a burst that the right size drains",
  { permissions: NONE },
  () => {
    const { points } = simulate({ ...BURST_ON_USL, poolSize: "44,200" });
    const [right, large] = points.map(({ time_line }) =>
      time_line.waiting.at(Math.floor(11_900 / time_line.interval_ms)) ?? NaN
    );
    assert(right !== undefined && right < 100, `${right} wait at 44`);
    assert(large !== undefined && large > 5000, `${large} wait at 200`);
    // Without the burst both carry the load.
    const steady = simulate({
      ...BURST_ON_USL,
      arrivals: "poisson:12500/s",
      poolSize: "44,200",
    });
    for (const point of steady.points) {
      assert(point.latency_ms.p99 < 100, `${point.latency_ms.p99}`);
    }
  },
);

Deno.test(
  "a spike of 50 on 5 idle connections ends as HikariCP's: 5 open, a sixth on the way, 11 ms",
  { permissions: NONE },
  () => {
    const point = only({
      arrivals: "burst:50@1s",
      service: "constant:2ms",
      connect: "constant:150ms",
      minIdle: 5,
      poolSize: 50,
      replications: 1,
    });
    const { open, opening, created } = point.pool_stats;
    assertEquals([point.served, open, opening, created], [50, 5, 1, 5]);
    assert(Math.abs(point.latency_ms.mean - 11) < 1e-9);
    assert(Math.abs(point.latency_ms.max - 20) < 1e-9);
  },
);

const EVERYTHING: Scenario = {
  arrivals: ["poisson:150/s", "burst:40@2s", "closed:10,exp:100ms"],
  service: "lognormal:20ms,0.8",
  connect: "exp:30ms",
  ping: "constant:1ms",
  duration: "20s",
  replications: 2,
  instances: 2,
  poolSize: 3,
  maxOverflow: 2,
  acquireTimeout: "300ms",
  maxLifetime: "5s",
  idleTimeout: "1s",
  clientTimeout: "500ms",
  clientRetries: 2,
  retryBudget: 0.2,
  cores: 6,
  maxConnections: 9,
  outage: "6s+1s",
  slow: "12s+2s,x4",
  connectFailure: 0.05,
  queryFailure: 0.01,
  drop: "exp:8s",
  leak: 0.0005,
};

function bytes(scenario: Scenario): string {
  return JSON.stringify(simulate(scenario).points);
}

Deno.test("the same seed gives the same bytes, another seed others", {
  permissions: NONE,
}, () => {
  assertEquals(bytes(EVERYTHING), bytes(EVERYTHING));
  assert(bytes(EVERYTHING) !== bytes({ ...EVERYTHING, seed: 2 }));
});

Deno.test(
  "giving others their turn in the midst of a run changes nothing",
  { permissions: NONE },
  async () => {
    const steps = simulation(readScenario(EVERYTHING));
    for (;;) {
      const step = steps.next();
      if (step.done) {
        return assertEquals(
          JSON.stringify(step.value.points),
          bytes(EVERYTHING),
        );
      }
      await settled();
    }
  },
);

Deno.test(
  "every request is accounted for, whatever goes wrong, and Little's law holds",
  { permissions: NONE },
  () => {
    for (let seed = 1; seed <= 10; seed++) {
      const { duration: _, ...faults } = EVERYTHING;
      const point = only({ ...faults, requests: 4000, seed, replications: 1 });
      assertEquals(
        point.served + point.timed_out + point.rejected + point.failed +
          point.abandoned,
        point.offered,
        `seed ${seed}`,
      );
      assert(point.timed_out + point.failed + point.abandoned > 0);
      // L = λW over the whole run: who waits, times how long.
      const [one] = point.replications;
      const { offered, amplification, throughput_per_s, served } = point;
      const measuredMs = served / throughput_per_s * 1000;
      const waited = (one?.mean_wait_of_all_ms ?? NaN) * offered *
        amplification;
      const area = point.mean_waiting * measuredMs;
      assert(
        Math.abs(area / waited - 1) < 1e-9,
        `seed ${seed}: ${area} ${waited}`,
      );
    }
  },
);

Deno.test(
  "splitting a run in replications changes nothing but the spread",
  { permissions: NONE },
  () => {
    const base = { ...OPEN, poolSize: 5, arrivals: "poisson:4/s" };
    const few = only({ ...base, requests: 100_000, replications: 4 });
    const many = only({ ...base, requests: 20_000, replications: 20 });
    const ratio = few.wait_ms.mean / many.wait_ms.mean;
    assert(Math.abs(ratio - 1) < 0.1, `${ratio}`);
    assertEquals(few.offered, many.offered);
    assert(
      only({ ...base, replications: 1 }).confidence_95.wait_ms["mean"] === null,
    );
  },
);

Deno.test(
  "latency counts from the intended arrival, so a stall is not left out",
  { permissions: NONE },
  () => {
    // A request each 10 ms that takes 1 ms; for a second nothing moves. Who
    // measured from the moment the query began would see one slow query.
    const point = only({
      arrivals: "constant:100/s",
      service: "constant:1ms",
      connect: "constant:0",
      slow: "5s+1s,x1000",
      poolSize: 1,
      duration: "10s",
      replications: 1,
    });
    const fromArrival = point.latency_ms.p95;
    assert(fromArrival > 400, `p95 ${fromArrival}`);
  },
);

Deno.test(
  "a leak takes the connections one by one, until nobody gets any",
  { permissions: NONE },
  () => {
    const point = only({ leak: 0.01, acquireTimeout: "1s", requests: 2000 });
    assertEquals(point.leaked, 5 * 5);
    assert(point.timed_out > point.offered / 2);
  },
);

Deno.test(
  "an outage breaks what was open, and the pool is back when the database is",
  { permissions: NONE },
  () => {
    const { time_line, failed } = only({
      arrivals: "constant:100/s",
      outage: "4s+2s",
      acquireTimeout: "500ms",
      duration: "12s",
      replications: 1,
    });
    assert(failed > 0);
    const served = (fromMs: number, toMs: number): number =>
      time_line.served.slice(
        fromMs / time_line.interval_ms,
        toMs / time_line.interval_ms,
      ).reduce((sum, count) => sum + count, 0);
    assertEquals(served(4200, 5900), 0);
    assert(served(8000, 11_000) > 280, `${served(8000, 11_000)}`);
  },
);

Deno.test(
  "retries add load, and a budget bounds what they add",
  { permissions: NONE },
  () => {
    const scenario: Scenario = {
      queryFailure: 0.5,
      clientRetries: 3,
      requests: 5000,
      poolSize: 20,
    };
    const unbound = only(scenario);
    const bound = only({ ...scenario, retryBudget: 0.1 });
    assert(Math.abs(unbound.amplification - 1.875) < 0.05);
    assert(bound.amplification < 1.11, `${bound.amplification}`);
    assert(unbound.failed < bound.failed);
  },
);

Deno.test(
  "a client that gives up leaves its query running, and the connection taken",
  { permissions: NONE },
  () => {
    const point = only({
      arrivals: "constant:10/s",
      service: "constant:1s",
      connect: "constant:0",
      clientTimeout: "100ms",
      poolSize: 20,
      requests: 500,
    });
    assertEquals(point.abandoned, point.offered);
    assert(point.utilization > 0.45, `${point.utilization}`);
  },
);

Deno.test("several pools share the load and what the database allows", {
  permissions: NONE,
}, () => {
  const point = only({ instances: 4, poolSize: 5, maxConnections: 10 });
  assert(point.connect_failures > 0);
  assertEquals(only({ instances: 4, poolSize: 5 }).connect_failures, 0);
});
