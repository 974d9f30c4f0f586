import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "./random.ts";

const permissions: Deno.PermissionOptions = "none";

Deno.test({
  name:
    "a seed gives the same numbers for ever, so that a report can be redone",
  permissions,
  fn() {
    const random = seededRandom(42, 7);
    const numbers = Array.from({ length: 4 }, () => random());
    const again = seededRandom(42, 7);
    assertEquals(numbers, Array.from({ length: 4 }, () => again()));
    for (const number of numbers) assert(number >= 0 && number < 1);
  },
});

Deno.test({
  name: "seeds and streams that are neighbours give numbers that are unrelated",
  permissions,
  fn() {
    const count = 20_000;
    // The correlation of independent numbers has a spread of 1 / √count.
    const limit = 4 / Math.sqrt(count);
    const pairs = [[1, 0, 2, 0], [1, 0, 1, 1], [0, 0, 2 ** 32, 0], [
      5,
      1,
      6,
      0,
    ]];
    for (const [seed = 0, stream, otherSeed = 0, otherStream] of pairs) {
      const one = seededRandom(seed, stream);
      const other = seededRandom(otherSeed, otherStream);
      let sum = 0;
      for (let i = 0; i < count; i++) sum += (one() - 0.5) * (other() - 0.5);
      const correlation = sum / count * 12;
      assert(
        Math.abs(correlation) < limit,
        `${seed}/${otherSeed}: ${correlation}`,
      );
    }
  },
});

Deno.test({
  name:
    "numbers are spread evenly, alone and in pairs (chi-squared, 100 cells)",
  permissions,
  fn() {
    const random = seededRandom(3);
    const count = 100_000;
    const alone = new Array<number>(100).fill(0);
    const pairs = new Array<number>(100).fill(0);
    for (let i = 0; i < count; i++) {
      const x = random();
      const y = random();
      alone[Math.floor(x * 100)]! += 1;
      pairs[Math.floor(x * 10) * 10 + Math.floor(y * 10)]! += 1;
    }
    for (const cells of [alone, pairs]) {
      const expected = count / cells.length;
      const chi = cells.reduce(
        (sum, n) => sum + (n - expected) ** 2 / expected,
        0,
      );
      // 99 degrees of freedom: a mean of 99 and a spread of 14.
      assert(chi > 99 - 56 && chi < 99 + 56, `chi-squared ${chi}`);
    }
  },
});
