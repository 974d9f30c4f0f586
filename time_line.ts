/**
 * What happened when: counts and means in intervals of virtual time, in a memory
 * that does not grow with the time that passes.
 *
 * @module
 */

/** What is counted in each interval. */
export type Happening = "arrivals" | "attempts" | "served" | "failures";

/** A time line: the n-th value of each list belongs to the n-th interval. */
export interface TimeLineData {
  /** The length of an interval, in milliseconds. */
  readonly interval_ms: number;
  /** How requests come. */
  readonly arrivals: readonly number[];
  /** Arrivals and the retries after them. */
  readonly attempts: readonly number[];
  /** Requests that got their answer. */
  readonly served: readonly number[];
  /** Requests that ended otherwise. */
  readonly failures: readonly number[];
  /** Connects that were tried. */
  readonly connects: readonly number[];
  /** The mean number of connections in use. */
  readonly busy: readonly number[];
  /** The mean number of requests that wait. */
  readonly waiting: readonly number[];
}

const FIRST_INTERVAL_MS = 100;
// As many as a chart has points to show them.
const MOST_INTERVALS = 600;

/** What happens in an interval. */
export interface Interval extends Record<Happening, number> {
  connects: number;
  busyArea: number;
  waitingArea: number;
}

function blank(): Interval {
  return {
    ...{ arrivals: 0, attempts: 0, served: 0, failures: 0 },
    ...{ connects: 0, busyArea: 0, waitingArea: 0 },
  };
}

/** Intervals that grow to twice their length whenever there are too many. */
export class TimeLine {
  #intervals: Interval[] = [];
  /** The interval that is under way, for its happenings to be counted in. */
  current: Interval = blank();
  #intervalMs = FIRST_INTERVAL_MS;
  #endMs = FIRST_INTERVAL_MS;
  #lastMs = 0;
  #connects = 0;

  /** Lets time pass, during which `busy` and `waiting` did not change. */
  pass(nowMs: number, busy: number, waiting: number, connects: number): void {
    if (nowMs < this.#endMs && connects === this.#connects) {
      return this.#add(nowMs, busy, waiting);
    }
    this.current.connects += connects - this.#connects;
    this.#connects = connects;
    while (nowMs >= this.#endMs) {
      this.#add(this.#endMs, busy, waiting);
      this.#next();
    }
    this.#add(nowMs, busy, waiting);
  }

  /** Ends the line; what is left makes a last interval. */
  end(nowMs: number): void {
    if (
      nowMs > this.#endMs - this.#intervalMs || this.#intervals.length === 0
    ) {
      this.#next();
    }
  }

  #add(untilMs: number, busy: number, waiting: number): void {
    const spanMs = untilMs - this.#lastMs;
    const { current } = this;
    current.busyArea += busy * spanMs;
    current.waitingArea += waiting * spanMs;
    this.#lastMs = untilMs;
  }

  #next(): void {
    this.#intervals.push(this.current);
    this.current = blank();
    if (this.#intervals.length === MOST_INTERVALS) {
      this.#intervals = this.#intervals.flatMap((interval, i, all) => {
        const after = all[i + 1];
        if (i % 2 === 1 || after === undefined) return [];
        for (const key of Object.keys(interval) as (keyof Interval)[]) {
          interval[key] += after[key];
        }
        return [interval];
      });
      this.#intervalMs *= 2;
    }
    this.#endMs = (this.#intervals.length + 1) * this.#intervalMs;
  }

  /** The line as lists. */
  data(): TimeLineData {
    const list = (key: keyof Interval): number[] =>
      this.#intervals.map((interval) => interval[key]);
    const mean = (key: keyof Interval): number[] =>
      list(key).map((area) => area / this.#intervalMs);
    return {
      interval_ms: this.#intervalMs,
      arrivals: list("arrivals"),
      attempts: list("attempts"),
      served: list("served"),
      failures: list("failures"),
      connects: list("connects"),
      busy: mean("busyArea"),
      waiting: mean("waitingArea"),
    };
  }
}
