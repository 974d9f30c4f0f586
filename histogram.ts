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

// A tick is a microsecond; 2^40 of them are 12 days.
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
  readonly #partBits: number;

  /**
   * @param partBits into how many parts each power of two is cut, as a power of
   * two itself. Default: 5, so that a percentile is at most 1/32 too high and
   * all of it fits into 10 kB.
   */
  constructor(partBits = 5) {
    this.#partBits = partBits;
  }

  /** How many durations were recorded. */
  get count(): number {
    return this.#zeros + this.#count;
  }

  /** The sum of all durations, in milliseconds. */
  get sumMs(): number {
    return this.#sumMs;
  }

  /** Records a wait that never happened. */
  recordZero(): void {
    this.#zeros++;
  }

  /** Records a duration of `ms` milliseconds. */
  record(ms: number): void {
    const bits = this.#partBits;
    this.#buckets ??= new Float64Array(bucketOf(LONGEST_TICKS, bits) + 1);
    const bucket = bucketOf(Math.min(ms * TICKS_PER_MS, LONGEST_TICKS), bits);
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
    let rank = Math.ceil(quantile * this.count) - this.#zeros;
    if (rank <= 0 || this.#buckets === undefined) return 0;
    for (const [bucket, count] of this.#buckets.entries()) {
      rank -= count;
      if (rank <= 0) {
        const upperMs = upperTicksOf(bucket, this.#partBits) / TICKS_PER_MS;
        return Math.min(upperMs, this.#maxMs);
      }
    }
    return this.#maxMs;
  }

  /** Adds all that another histogram with parts of the same size has. */
  merge(other: DurationHistogram): void {
    this.#zeros += other.#zeros;
    this.#count += other.#count;
    this.#sumMs += other.#sumMs;
    this.#maxMs = Math.max(this.#maxMs, other.#maxMs);
    if (other.#buckets === undefined) return;
    const buckets = this.#buckets ??= new Float64Array(other.#buckets.length);
    for (const [bucket, count] of other.#buckets.entries()) {
      if (count > 0) buckets[bucket] = (buckets[bucket] ?? 0) + count;
    }
  }

  /** The counts that are not 0: [no longer than ms, how many]. */
  *buckets(): Generator<readonly [number, number]> {
    if (this.#zeros > 0) yield [0, this.#zeros];
    for (const [bucket, count] of this.#buckets?.entries() ?? []) {
      if (count === 0) continue;
      yield [upperTicksOf(bucket, this.#partBits) / TICKS_PER_MS, count];
    }
  }

  /** The usual percentiles. */
  summary(): DurationSummary {
    const { count } = this;
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

// With 32 parts: below 32 each tick has a bucket of its own; from there on, 32
// for each power of two: the exponent chooses the run, the five bits after it
// the bucket.
function bucketOf(ticks: number, partBits: number): number {
  const parts = 1 << partBits;
  if (ticks < parts) return Math.floor(ticks);
  // The first is an instruction, the second a hundred.
  const exponent = ticks < 2 ** 31
    ? 31 - Math.clz32(ticks)
    : Math.floor(Math.log2(ticks));
  const part = Math.floor(ticks / 2 ** (exponent - partBits)) - parts;
  return (exponent - partBits + 1) * parts + part;
}

function upperTicksOf(bucket: number, partBits: number): number {
  const parts = 1 << partBits;
  if (bucket < parts) return bucket + 1;
  const exponent = Math.floor(bucket / parts) + partBits - 1;
  return (parts + bucket % parts + 1) * 2 ** (exponent - partBits);
}
