import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import { normal } from "./distributions.ts";
import { seededRandom } from "./random.ts";
import { estimate, studentT } from "./statistics.ts";

const permissions: Deno.PermissionOptions = "none";

Deno.test({
  name: "a confidence interval holds the true mean in 95 of 100 cases",
  permissions,
  fn() {
    const random = seededRandom(8);
    const trials = 4000;
    for (const count of [2, 5, 40]) {
      let hits = 0;
      for (let i = 0; i < trials; i++) {
        const values = Array.from({ length: count }, () => 7 + normal(random));
        const { mean, halfWidth } = estimate(values);
        if (Math.abs(mean - 7) <= halfWidth) hits++;
      }
      // The spread of such a share is 0.34 %.
      assert(Math.abs(hits / trials - 0.95) < 0.014, `${count}: ${hits}`);
    }
  },
});

Deno.test({
  name: "one run tells nothing of the spread, and says so",
  permissions,
  fn() {
    assertEquals(estimate([3]), { mean: 3, halfWidth: NaN });
    assertEquals(estimate([NaN, 1, 1]), { mean: 1, halfWidth: 0 });
    assertAlmostEquals(studentT(31), 2.0395, 1e-3);
    assertAlmostEquals(studentT(1e9), 1.96, 1e-3);
  },
});
