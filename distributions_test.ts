import { assert, assertEquals, assertThrows } from "@std/assert";
import { parseDistribution } from "./distributions.ts";
import { seededRandom } from "./random.ts";

const permissions: Deno.PermissionOptions = "none";
const load = (): number[] => [1, 2, 3, 10];

Deno.test({
  name: "samples have the mean and the spread that the text promises",
  permissions,
  fn() {
    const texts = [
      ...["constant:20ms", "exp:20ms", "uniform:10ms,30ms", "gamma:20ms,4"],
      ...["gamma:20ms,0.5", "lognormal:20ms,0.5", "pareto:20ms,6"],
      "empirical:x",
    ];
    for (const text of texts) {
      const { meanMs, scv, sample } = parseDistribution(text, load);
      const random = seededRandom(11);
      const count = 200_000;
      let sum = 0;
      let squares = 0;
      for (let i = 0; i < count; i++) {
        const ms = sample(random);
        assert(ms >= 0);
        sum += ms;
        squares += ms * ms;
      }
      const mean = sum / count;
      const error = meanMs * Math.sqrt(scv / count);
      assert(Math.abs(mean - meanMs) <= 4 * error + 1e-9, `${text}: ${mean}`);
      const found = squares / count / mean ** 2 - 1;
      assert(Math.abs(found - scv) <= 0.05 * scv + 1e-9, `${text}: ${found}`);
    }
  },
});

Deno.test({
  name: "samples of exp follow its distribution function, not only its mean",
  permissions,
  fn() {
    const { sample } = parseDistribution("exp:1s");
    const random = seededRandom(5);
    const count = 100_000;
    for (const t of [0.1, 1, 3]) {
      let above = 0;
      for (let i = 0; i < count; i++) if (sample(random) > t * 1000) above++;
      const expected = Math.exp(-t);
      const error = Math.sqrt(expected * (1 - expected) / count);
      assert(Math.abs(above / count - expected) < 4 * error, `t = ${t}`);
    }
  },
});

Deno.test({
  name:
    "a distribution that is wrong says in one line what is, and how to write it",
  permissions,
  fn() {
    const cases: [string, RegExp][] = [
      ["", /one of constant, exp/],
      ["expo:20ms", /did you mean exp\?/],
      ["exp", /must have a mean.*exp:MEAN/],
      ["exp:-1ms", /duration/],
      ["exp:soon", /"soon"/],
      ["exp:20ms,3", /too many/],
      ["uniform:30ms,10ms", /most value below/],
      ["uniform:10ms", /a most value/],
      ["lognormal:20ms,0", /sigma.* > 0/],
      ["gamma:20ms,x", /a shape > 0: current value is x/],
      ["pareto:20ms,1", /a shape > 1/],
      ["empirical:", /a file/],
    ];
    for (const [text, says] of cases) {
      const error = assertThrows(
        () => parseDistribution(text, load),
        SyntaxError,
      );
      assert(says.test(error.message), `${text}: ${error.message}`);
      assert(!error.message.includes("\n"));
    }
    assertThrows(() => parseDistribution("empirical:x", () => []), SyntaxError);
    assertThrows(
      () => parseDistribution("empirical:x", () => [1, -1]),
      SyntaxError,
    );
    assertEquals(parseDistribution("empirical:a,b", load).meanMs, 4);
  },
});
