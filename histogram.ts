/**
 * Durations as a histogram of fixed size, from which percentiles are read.
 *
 * @module
 */

/** What a histogram of durations says, in milliseconds. */
export interface DurationSummary {
  /** How many durations were recorded. */
  readonly count: number;
  /** Their sum over their count. */
  readonly mean: number;
  /** Half of them are not longer. */
  readonly p50: number;
  /** Nine in ten are not longer. */
  readonly p90: number;
  /** 95 in 100 are not longer. */
  readonly p95: number;
  /** 99 in 100 are not longer. */
  readonly p99: number;
  /** The longest. */
  readonly max: number;
}

// Each power of two is cut into 32 parts, so a percentile is at most 1/32 too
// high. A tick is a microsecond; 2^40 of them are 12 days.
const PARTS = 32;
const PART_BITS = 5;
const TICKS_PER_MS = 1000;
const LONGEST_TICKS = 2 ** 40;

/**
 * Counts durations in buckets that grow with them, after the idea of Gil Tene's
 * HdrHistogram. Its size does not depend on how many it has recorded.
 */
export class DurationHistogram {
  // A duration of nothing is the most frequent one, and costs one addition.
  #zeros = 0;
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;
  #buckets: Float64Array | undefined;

  /** Records a wait that never happened. */
  recordZero(): void {
    this.#zeros++;
  }

  /** Records a duration of `ms` milliseconds. */
  record(ms: number): void {
    this.#buckets ??= new Float64Array(bucketOf(LONGEST_TICKS) + 1);
    const bucket = bucketOf(Math.min(ms * TICKS_PER_MS, LONGEST_TICKS));
    this.#buckets[bucket] = (this.#buckets[bucket] ?? 0) + 1;
    this.#count++;
    this.#sumMs += ms;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  /**
   * The duration that the fraction `quantile` of all durations does not exceed,
   * in milliseconds; 0 when there are none.
   */
  percentile(quantile: number): number {
    const total = this.#zeros + this.#count;
    let rank = Math.ceil(quantile * total) - this.#zeros;
    if (rank <= 0 || this.#buckets === undefined) return 0;
    for (const [bucket, count] of this.#buckets.entries()) {
      rank -= count;
      if (rank <= 0) {
        return Math.min(upperTicksOf(bucket) / TICKS_PER_MS, this.#maxMs);
      }
    }
    return this.#maxMs;
  }

  /** The usual percentiles. */
  summary(): DurationSummary {
    const count = this.#zeros + this.#count;
    return {
      count,
      mean: count === 0 ? 0 : this.#sumMs / count,
      p50: this.percentile(0.5),
      p90: this.percentile(0.9),
      p95: this.percentile(0.95),
      p99: this.percentile(0.99),
      max: this.#maxMs,
    };
  }
}

// Below 32 each tick has a bucket of its own; from there on, 32 for each power
// of two: the exponent chooses the run, the five bits after it the bucket.
function bucketOf(ticks: number): number {
  if (ticks < PARTS) return Math.floor(ticks);
  // The first is an instruction, the second a hundred.
  const exponent = ticks < 2 ** 31
    ? 31 - Math.clz32(ticks)
    : Math.floor(Math.log2(ticks));
  const part = Math.floor(ticks / 2 ** (exponent - PART_BITS)) - PARTS;
  return (exponent - PART_BITS + 1) * PARTS + part;
}

function upperTicksOf(bucket: number): number {
  if (bucket < PARTS) return bucket + 1;
  const exponent = Math.floor(bucket / PARTS) + PART_BITS - 1;
  return (PARTS + bucket % PARTS + 1) * 2 ** (exponent - PART_BITS);
}
