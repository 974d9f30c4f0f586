import { assert, assertEquals, assertThrows } from "@std/assert";
import { type OpenArrivals, parseArrivals } from "./arrivals.ts";
import { seededRandom } from "./random.ts";

const permissions: Deno.PermissionOptions = "none";

function open(text: string, times: number[] = []): OpenArrivals {
  const arrivals = parseArrivals(text, () => times);
  assert(arrivals.kind === "open");
  return arrivals;
}

function timesOf(text: string, count: number, times: number[] = []): unknown[] {
  const next = open(text, times).start(seededRandom(1));
  return Array.from({ length: count }, () => next());
}

Deno.test({
  name: "arrivals that are not random come exactly when they were said to",
  permissions,
  fn() {
    assertEquals(timesOf("constant:2/s", 3), [500, 1000, 1500]);
    assertEquals(timesOf("constant:30/m", 1), [2000]);
    assertEquals(timesOf("constant:10/s", 1e5).at(-1), 1e7);
    assertEquals(timesOf("burst:2@10s", 3), [10_000, 10_000, undefined]);
    assertEquals(timesOf("trace:x", 3, [0, 0.5]), [0, 500, undefined]);
    const closed = parseArrivals("closed:50,exp:1s");
    assert(closed.kind === "closed");
    assertEquals([closed.clients, closed.think.meanMs], [50, 1000]);
  },
});

Deno.test({
  name:
    "poisson arrivals have the rate asked for, and counts that vary as much",
  permissions,
  fn() {
    const next = open("poisson:200/s").start(seededRandom(9));
    const counts = new Array<number>(2000).fill(0);
    for (let time = next() ?? 0; time < 200_000; time = next() ?? Infinity) {
      counts[Math.floor(time / 100)]! += 1;
    }
    const mean = counts.reduce((sum, n) => sum + n, 0) / counts.length;
    const variance = counts.reduce((sum, n) => sum + (n - mean) ** 2, 0) /
      counts.length;
    // Of 40,000 arrivals in 2000 intervals: spreads of 0.1 and of 3 %.
    assert(Math.abs(mean - 20) < 0.4, `mean ${mean}`);
    assert(Math.abs(variance / mean - 1) < 0.13, `variance ${variance}`);
  },
});

Deno.test({
  name:
    "arrivals that cannot be say in one line what is wrong, and how to write them",
  permissions,
  fn() {
    const cases: [string, RegExp][] = [
      ["", /one of poisson/],
      ["poison:200/s", /did you mean poisson\?/],
      ["poisson:0/s", /a rate > 0.*poisson:RATE/],
      ["poisson:-1/s", /a rate > 0/],
      ["poisson:200", /a rate > 0/],
      ["constant:1/d", /a rate > 0/],
      ["burst:50", /a count and a time/],
      ["burst:0@1s", /requests from 1/],
      ["burst:5@soon", /"soon"/],
      ["closed:0,exp:1s", /clients from 1/],
      ["closed:5", /think time/],
      ["closed:5,expo:1s", /did you mean exp\?/],
      ["trace:", /a file/],
    ];
    for (const [text, says] of cases) {
      const error = assertThrows(() => parseArrivals(text), SyntaxError);
      assert(says.test(error.message), `${text}: ${error.message}`);
      assert(!error.message.includes("\n"));
    }
    for (const times of [[], [2, 1], [-1], [NaN]]) {
      assertThrows(() => parseArrivals("trace:x", () => times), SyntaxError);
    }
    assertThrows(() => parseArrivals("trace:x"), SyntaxError, "cannot be read");
  },
});
