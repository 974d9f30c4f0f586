import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  erlangB,
  erlangC,
  md1,
  mg1MeanWait,
  mmc,
  mmcBounded,
  mmcWithTimeout,
  uslBest,
  uslThroughput,
} from "./theory.ts";

const permissions: Deno.PermissionOptions = "none";

/** Equal in all of six digits behind the point. */
function assertDigits(found: number, expected: number, what: string): void {
  assert(
    Math.abs(found - expected) < 6e-7,
    `${what}: ${found}, not ${expected}`,
  );
}

Deno.test({
  name: "M/M/c gives the published chances to wait, means and percentiles",
  permissions,
  fn() {
    const table = [
      [1, 0.5, 0.5, 1, 4.605170, 7.824046],
      [1, 0.9, 0.9, 9, 28.903718, 44.998097],
      [5, 2.5, 0.130371, 0.052149, 0.383345, 1.027121],
      [5, 4, 0.554113, 0.554113, 2.405345, 4.014783],
      [5, 4.5, 0.762493, 1.524986, 5.449141, 8.668017],
    ] as const;
    for (const [servers, arrivalRate, chance, mean, p95, p99] of table) {
      const queue = mmc({ servers, arrivalRate, serviceTime: 1 });
      const what = `c = ${servers}, a = ${arrivalRate}`;
      assertDigits(queue.waitProbability, chance, what);
      assertDigits(queue.meanWait, mean, what);
      assertDigits(queue.percentile(0.95), p95, what);
      assertDigits(queue.percentile(0.99), p99, what);
      assertEquals(queue.percentile(0), 0);
    }
  },
});

Deno.test({
  name: "queues that lose requests lose the published share of them",
  permissions,
  fn() {
    assertDigits(erlangB(5, 4), 0.199067, "B(5, 4)");
    assertDigits(erlangB(10, 8), 0.121661, "B(10, 8)");
    const queue = { servers: 5, arrivalRate: 4, serviceTime: 1 };
    const impatient = mmcWithTimeout({ ...queue, timeout: 1 });
    assertDigits(impatient.waitProbability, 0.467230, "P(wait)");
    assertDigits(impatient.lossProbability, 0.048713, "P(timeout)");
    assertDigits(impatient.meanWait, 0.223663, "mean wait of all");
    assertDigits(impatient.meanWaitServed, 0.183908, "mean wait of the served");
    const bounded = mmcBounded({ ...queue, capacity: 10 });
    assertDigits(bounded.lossProbability, 0.042486, "loss");
    assertDigits(bounded.meanWaitServed, 0.233337, "mean wait of the served");
  },
});

Deno.test({
  name: "M/D/1 and M/G/1 agree with the published figures and with each other",
  permissions,
  fn() {
    const queue = { arrivalRate: 0.5, serviceTime: 1 };
    assertDigits(md1(queue).meanWait, 0.5, "mean wait");
    assertDigits(md1(queue).percentile(0.95), 2.050638, "p95");
    assertDigits(mg1MeanWait({ ...queue, scv: 1 }), 1, "as M/M/1");
    // The mean is the area above the distribution function: found from the
    // percentiles, tail and all, it must be that of the other formula.
    for (const arrivalRate of [0.2, 0.5, 0.9]) {
      const { percentile, meanWait } = md1({ arrivalRate, serviceTime: 2 / 2 });
      const steps = 20_000;
      let sum = 0;
      for (let i = 0; i < steps; i++) sum += percentile((i + 0.5) / steps);
      assert(Math.abs(sum / steps / meanWait - 1) < 2e-3, `${arrivalRate}`);
    }
  },
});

Deno.test({
  name: "formulas agree where one model turns into another",
  permissions,
  fn() {
    const queue = { servers: 4, arrivalRate: 3, serviceTime: 1 };
    const patient = mmcWithTimeout({ ...queue, timeout: 1e6 });
    assertDigits(patient.meanWait, mmc(queue).meanWait, "never gives up");
    assertDigits(patient.waitProbability, erlangC(4, 3), "never gives up");
    const hasty = mmcWithTimeout({ ...queue, timeout: 0 });
    assertDigits(hasty.lossProbability, erlangB(4, 3), "gives up at once");
    const full = mmcBounded({ ...queue, capacity: 4 });
    assertDigits(full.lossProbability, erlangB(4, 3), "nobody may wait");
    const roomy = mmcBounded({ ...queue, capacity: 2000 });
    assertDigits(roomy.meanWait, mmc(queue).meanWait, "room for all");
    assertDigits(roomy.waitProbability, erlangC(4, 3), "room for all");
    const critical = mmcWithTimeout({ ...queue, arrivalRate: 4, timeout: 2 });
    const nearly = mmcWithTimeout({
      ...queue,
      arrivalRate: 4 - 1e-9,
      timeout: 2,
    });
    assert(Math.abs(critical.meanWait - nearly.meanWait) < 1e-6);
  },
});

Deno.test({
  name:
    "an unstable queue waits for ever, and a queue that cannot be is refused",
  permissions,
  fn() {
    const unstable = { servers: 2, arrivalRate: 2, serviceTime: 1 };
    assertEquals(mmc(unstable).meanWait, Infinity);
    assertEquals(mmc(unstable).waitProbability, 1);
    assertEquals(md1({ arrivalRate: 1, serviceTime: 1 }).meanWait, Infinity);
    assertThrows(() => mmc({ ...unstable, servers: 0 }), RangeError, "servers");
    assertThrows(
      () => mmc({ ...unstable, arrivalRate: 0 }),
      RangeError,
      "arrivalRate",
    );
    assertThrows(
      () => mmcBounded({ ...unstable, capacity: 1 }),
      RangeError,
      "capacity",
    );
  },
});

Deno.test({
  name: "the Universal Scalability Law gives the published best size and rates",
  permissions,
  fn() {
    const law = { lambda: 1000, alpha: 0.02, beta: 0.0005 };
    assertEquals(uslBest(law).toFixed(2), "44.27");
    assertEquals(uslThroughput(law, 44).toFixed(1), "15680.7");
    assertEquals(uslThroughput(law, 128).toFixed(1), "10970.2");
    assertEquals(uslThroughput(law, 1), 1000);
  },
});
