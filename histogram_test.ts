/**
 * The histogram, against sorting.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { DurationHistogram } from "./histogram.ts";

const NONE = "none" as const;

Deno.test(
  "percentiles are never too low, and at most a thirty-second part too high",
  {
    permissions: NONE,
  },
  () => {
    const histogram = new DurationHistogram();
    // From a microsecond to a quarter of an hour.
    const durations = Array.from(
      { length: 5000 },
      (_, i) => 0.001 * 1.0042 ** i,
    );
    for (const ms of durations) histogram.record(ms);
    for (const quantile of [0.01, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1]) {
      const exact =
        durations[Math.ceil(quantile * durations.length) - 1] as number;
      const measured = histogram.percentile(quantile);
      // Below 32 microseconds a bucket is a microsecond wide.
      const most = Math.max(exact * (1 + 1 / 32), exact + 0.001) + 1e-9;
      assert(
        measured >= exact - 1e-9 && measured <= most,
        `${quantile}: ${measured}, ${exact}`,
      );
    }
  },
);

Deno.test(
  "waits that never happened count, as zeros",
  { permissions: NONE },
  () => {
    const histogram = new DurationHistogram();
    for (let i = 0; i < 99; i++) histogram.recordZero();
    assertEquals(histogram.summary(), {
      ...{ count: 99, mean: 0, p50: 0, p90: 0, p95: 0, p99: 0, max: 0 },
    });
    histogram.record(200);
    assertEquals(histogram.summary(), {
      ...{ count: 100, mean: 2, p50: 0, p90: 0, p95: 0, p99: 0, max: 200 },
    });
    assertEquals(histogram.percentile(1), 200);
  },
);

Deno.test(
  "an empty histogram says zero, and one of absurd durations does not break",
  {
    permissions: NONE,
  },
  () => {
    const histogram = new DurationHistogram();
    assertEquals([histogram.percentile(0.99), histogram.summary().mean], [
      0,
      0,
    ]);
    histogram.record(1e15);
    histogram.record(0);
    assertEquals(histogram.summary().count, 2);
    assertEquals(histogram.percentile(0.5), 0.001);
  },
);
