/**
 * The real pool under virtual time: requests come, wait, are served or fail, and
 * what happened to them is counted.
 *
 * The pool is `PoolCore`, the class that `ConnectionPool` runs; only time, the
 * database and the clients are made up here.
 *
 * @module
 */

import { systemClock, type Timer } from "./clock.ts";
import { type Due, DueHeap } from "./deadlines.ts";
import type { Distribution, LoadNumbers } from "./distributions.ts";
import { AcquireTimeoutError, TooManyWaitersError } from "./errors.ts";
import { DurationHistogram, type DurationSummary } from "./histogram.ts";
import { PoolCore } from "./pool_core.ts";
import type { PoolStats } from "./pool_report.ts";
import { type Random, seededRandom } from "./random.ts";
import { backoffDelayMs, RetryBudget } from "./retry.ts";
import {
  type Plan,
  type Point,
  readScenario,
  type Scenario,
  ScenarioError,
} from "./scenario.ts";
import {
  type SimulatedConnection,
  SimulatedDatabase,
  type Work,
} from "./simulated_database.ts";
import type { Slot } from "./slot.ts";
import { type Estimate, estimate } from "./statistics.ts";
import { TimeLine, type TimeLineData } from "./time_line.ts";
import { VirtualClock } from "./virtual_clock.ts";
import { Waiter } from "./waiters.ts";

/** How a request ended. */
export type Outcome =
  | "served"
  | "timed_out"
  | "rejected"
  | "failed"
  | "abandoned";

/** Durations in milliseconds. */
export interface Durations extends Omit<DurationSummary, "count"> {
  /** 999 in 1000 are not longer. */
  readonly p999: number;
}

/**
 * Half the width of the 95 % confidence interval of each figure, from the spread
 * of the replications; null if there is one replication only.
 */
export interface Confidence {
  /** Requests served in a second. */
  readonly throughput_per_s: number | null;
  /** The part of all connections allowed that is held. */
  readonly utilization: number | null;
  /** The part of all attempts that wait. */
  readonly wait_probability: number | null;
  /** Of the waits. */
  readonly wait_ms: { readonly [figure: string]: number | null };
  /** Of the latencies. */
  readonly latency_ms: { readonly [figure: string]: number | null };
}

/** What was seen at one point of a sweep, over all replications. */
export interface PointResult {
  /** How many connections each pool keeps. */
  readonly pool_size: number;
  /** How many more connections a burst may open. */
  readonly max_overflow: number;
  /** The settings that the sweep varies, as they were written. */
  readonly settings: { readonly [field: string]: string };
  /** Requests that came after the warm-up. */
  readonly offered: number;
  /** Requests that got their answer. */
  readonly served: number;
  /** Requests that got no connection within the acquire timeout. */
  readonly timed_out: number;
  /** Requests that were turned away as too many waited. */
  readonly rejected: number;
  /** Requests whose query or connect failed. */
  readonly failed: number;
  /** Requests whose client gave up. */
  readonly abandoned: number;
  /** Requests served in a second. */
  readonly throughput_per_s: number;
  /** The time-weighted part of all connections allowed that was held. */
  readonly utilization: number;
  /** The part of all attempts that had to wait for a connection. */
  readonly wait_probability: number;
  /** The waits of those who got a connection. */
  readonly wait_ms: Durations;
  /** From the intended arrival to the answer, of what was served. */
  readonly latency_ms: Durations;
  /** The same until the failure, of what was not. */
  readonly failure_ms: Durations;
  /** The mean wait of all attempts, whether they got a connection or not. */
  readonly mean_wait_of_all_ms: number;
  /** The time-weighted number of requests that wait. */
  readonly mean_waiting: number;
  /** The most that ever waited at once. */
  readonly most_waiting: number;
  /** The part of all waiting during which a connection could still be opened. */
  readonly waiting_for_connect: number;
  /** The most connections that one pool had in use at once. */
  readonly peak: number;
  /** Connections that were opened. */
  readonly created: number;
  /** Connects that were tried. */
  readonly connect_attempts: number;
  /** Connects that failed. */
  readonly connect_failures: number;
  /** Connections that were never given back. */
  readonly leaked: number;
  /** Attempts after the first of each request. */
  readonly retries: number;
  /** Attempts for each request. */
  readonly amplification: number;
  /** What is asked of the system as a part of what it can do, if known. */
  readonly load: number | null;
  /** How far off the figures may be. */
  readonly confidence_95: Confidence;
  /** Of the first pool, at the end of the first replication. */
  readonly pool_stats: PoolStats;
  /** Of the first replication. */
  readonly time_line: TimeLineData;
  /** The counts of the latencies of what was served: [up to ms, count]. */
  readonly latency_histogram: readonly (readonly [number, number])[];
  /** The means of each replication, for comparisons. */
  readonly replications: readonly ReplicationFigures[];
}

/** The figures of one replication. */
export interface ReplicationFigures {
  /** Requests served in a second. */
  readonly throughput_per_s: number;
  /** The part of all connections allowed that is held. */
  readonly utilization: number;
  /** The part of all attempts that wait. */
  readonly wait_probability: number;
  /** The part of all requests that is not served. */
  readonly loss_probability: number;
  /** The mean wait, whether a connection came of it or not. */
  readonly mean_wait_of_all_ms: number;
  /** Of the waits. */
  readonly wait_ms: Durations;
  /** Of the latencies. */
  readonly latency_ms: Durations;
}

/** What a simulation gives. */
export interface SimulationResult {
  /** What was simulated. */
  readonly plan: Plan;
  /** The points of the sweep. */
  readonly points: readonly PointResult[];
  /** How many requests were simulated, over all points and replications. */
  readonly requests: number;
  /** The real time that it took, in milliseconds. */
  readonly wallMs: number;
}

/** What a simulation may ask for. */
export interface SimulationOptions {
  /** Reads the numbers of a file that the scenario names. */
  readonly load?: LoadNumbers;
}

/**
 * Simulates a scenario: each point of its sweep, each in several replications.
 *
 * ```ts
 * import { assert } from "@std/assert";
 *
 * const { points } = simulate({ poolSize: "4,8", requests: 2000 });
 * assert(points[0]!.wait_ms.mean > points[1]!.wait_ms.mean);
 * ```
 *
 * @throws {ScenarioError} if the scenario is impossible.
 */
export function simulate(
  scenario: Scenario,
  { load }: SimulationOptions = {},
): SimulationResult {
  const steps = simulation(readScenario(scenario, load));
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

// Often enough for a person who waits, and too seldom to be felt.
const EVENTS_A_STEP = 50_000;

/**
 * The same in steps of some milliseconds, so that others have their turn: yields
 * the part that is done, from 0 to 1, and returns the result.
 *
 * @param loadFactor by how much more comes than the plan says.
 */
export function* simulation(
  plan: Plan,
  loadFactor = 1,
): Generator<number, SimulationResult> {
  const startMs = systemClock.now();
  const total = plan.points.length * plan.replications;
  let done = 0;
  let requests = 0;
  const points: PointResult[] = [];
  for (const point of plan.points) {
    const runs: Run[] = [];
    for (let i = 0; i < plan.replications; i++) {
      const run = new Run(plan, point, i, loadFactor);
      while (run.advance(EVENTS_A_STEP)) yield (done + run.progress) / total;
      run.finish();
      runs.push(run);
      done++;
      requests += run.started;
      yield done / total;
    }
    if (!runs.some(({ offered }) => offered > 0)) throw nothingCounted(plan);
    points.push(summarize(plan, point, runs, loadFactor));
  }
  return { plan, points, requests, wallMs: systemClock.now() - startMs };
}

/** Figures of no request would all be 0, and look like good ones. */
function nothingCounted({ warmupMs }: Plan): ScenarioError {
  const [field, text] = warmupMs > 0
    ? ["warmup", "must end before the last request comes"]
    : ["arrivals", "must bring a request before 'duration' is over"];
  return new ScenarioError([{ field, text: `${text}, or nothing is counted` }]);
}

// 256 parts for each power of two: a percentile is at most 0.4 % too high.
const PART_BITS = 8;

/** One try of a request: it waits, and then it is the query that runs. */
class Attempt extends Waiter<SimulatedConnection> implements Work {
  dueMs = 0;
  sequence = 0;
  position = -1;
  connection: SimulatedConnection | undefined;
  pool: PoolCore<SimulatedConnection> | undefined;
  slot: Slot<SimulatedConnection> | undefined;
  /** When the request was meant to come. */
  intendedMs = 0;
  /** When this try asked for a connection. */
  askedMs = 0;
  /** Counted from 1. */
  number = 1;
  previousDelayMs: number | undefined;
  isMeasured = true;
  isWaiting = false;
  /** Whether the client has gone, and only its query is left. */
  isAbandoned = false;
  /** Whose request it is, of those who wait for an answer before the next. */
  client: Client | undefined;
  patience: Timer | undefined;
  readonly #run: Run;

  constructor(run: Run) {
    super();
    this.#run = run;
  }

  served(slot: Slot<SimulatedConnection>): void {
    this.#run.begin(this, slot);
  }

  failed(error: Error): void {
    this.#run.refused(this, error);
  }

  ended(error: Error | undefined): void {
    this.#run.ended(this, error);
  }
}

/** A client that thinks between an answer and its next request. */
class Client implements Due {
  dueMs = 0;
  sequence = 0;
  position = -1;
  readonly think: Distribution;

  constructor(think: Distribution) {
    this.think = think;
  }
}

// Each use of chance has a stream of its own, so that two points of a sweep
// meet the same requests: what differs between them is the pool.
const STREAMS_A_RUN = 64;
const STREAM = { service: 0, database: 1, pool: 2, client: 3, route: 4 };
const FIRST_ARRIVAL_STREAM = 16;

/** One replication at one point. */
class Run {
  readonly #plan: Plan;
  readonly #point: Point;
  readonly #clock = new VirtualClock();
  readonly #database: SimulatedDatabase;
  readonly #pools: PoolCore<SimulatedConnection>[];
  readonly #serviceRandom: Random;
  readonly #clientRandom: Random;
  readonly #routeRandom: Random;
  readonly #sources: (() => number | undefined)[];
  readonly #nextMs: number[];
  #source = 0;
  #arrivalMs = Infinity;
  readonly #thinking = new DueHeap<Client>();
  readonly #spare: Attempt[] = [];
  readonly #budget: RetryBudget | undefined;
  readonly #loadFactor: number;
  readonly #limit: number;
  readonly #line: TimeLine | undefined;
  #lastMs = 0;
  #held = 0;
  #waiting = 0;
  #outstanding = 0;

  readonly waits = new DurationHistogram(PART_BITS);
  readonly latencies = new DurationHistogram(PART_BITS);
  readonly failures = new DurationHistogram(PART_BITS);
  readonly outcomes: Record<Outcome, number> = {
    served: 0,
    timed_out: 0,
    rejected: 0,
    failed: 0,
    abandoned: 0,
  };
  started = 0;
  offered = 0;
  attempts = 0;
  waited = 0;
  retries = 0;
  leaked = 0;
  mostWaiting = 0;
  lostWaitMs = 0;
  heldArea = 0;
  waitingArea = 0;
  connectingArea = 0;
  servedInTime = 0;
  endMs = 0;

  constructor(
    plan: Plan,
    point: Point,
    replication: number,
    loadFactor: number,
  ) {
    this.#plan = plan;
    this.#point = point;
    this.#loadFactor = loadFactor;
    const random = (stream: number): Random =>
      seededRandom(plan.seed, replication * STREAMS_A_RUN + stream);
    this.#serviceRandom = random(STREAM.service);
    this.#clientRandom = random(STREAM.client);
    this.#routeRandom = random(STREAM.route);
    this.#database = new SimulatedDatabase(
      plan,
      this.#clock,
      random(STREAM.database),
    );
    const poolRandom = random(STREAM.pool);
    this.#pools = Array.from({ length: plan.instances }, () => {
      const pool = new PoolCore<SimulatedConnection>(point.config, {
        driver: this.#database,
        clock: this.#clock,
        random: poolRandom,
      });
      pool.warm();
      return pool;
    });
    this.#limit = this.#pools.reduce((sum, { limit }) => sum + limit, 0);
    if (point.retryBudget !== undefined) {
      this.#budget = new RetryBudget({ ratio: point.retryBudget });
    }
    if (replication === 0) this.#line = new TimeLine();
    this.#sources = [];
    for (const [i, arrivals] of plan.arrivals.entries()) {
      const chance = random(FIRST_ARRIVAL_STREAM + i);
      if (arrivals.kind === "open") this.#sources.push(arrivals.start(chance));
      else {
        const clients = Math.max(1, Math.round(arrivals.clients * loadFactor));
        for (let k = 0; k < clients; k++) {
          this.#think(new Client(arrivals.think));
        }
      }
    }
    this.#nextMs = this.#sources.map((next) => this.#scaled(next()));
    this.#chooseSource();
  }

  /** How much of it is done, from 0 to 1. */
  get progress(): number {
    const { requests, durationMs } = this.#plan;
    return Math.min(
      1,
      Math.max(this.started / requests, this.#clock.now() / durationMs),
    );
  }

  get pools(): readonly PoolCore<SimulatedConnection>[] {
    return this.#pools;
  }

  get database(): SimulatedDatabase {
    return this.#database;
  }

  /** From the end of the warm-up to the end of what is counted. */
  get measuredMs(): number {
    return Math.max(0, this.endMs - this.#plan.warmupMs);
  }

  get timeLine(): TimeLine | undefined {
    return this.#line;
  }

  #scaled(timeMs: number | undefined): number {
    return timeMs === undefined ? Infinity : timeMs / this.#loadFactor;
  }

  #chooseSource(): void {
    const times = this.#nextMs;
    this.#source = 0;
    for (let i = 1; i < times.length; i++) {
      if ((times[i] as number) < (times[this.#source] as number)) {
        this.#source = i;
      }
    }
    this.#arrivalMs = times[this.#source] ?? Infinity;
  }

  /** Lets up to `events` things happen, and says whether more will. */
  advance(events: number): boolean {
    const clock = this.#clock;
    const database = this.#database;
    const { requests, durationMs } = this.#plan;
    for (let i = 0; i < events; i++) {
      const arrivalMs = this.started < requests && this.#arrivalMs < durationMs
        ? this.#arrivalMs
        : Infinity;
      const thinker = this.#thinking.first;
      const thinkMs = thinker !== undefined && this.started < requests &&
          thinker.dueMs < durationMs
        ? thinker.dueMs
        : Infinity;
      const askMs = Math.min(arrivalMs, thinkMs);
      if (this.#outstanding === 0 && askMs === Infinity) return false;
      const dueMs = Math.min(askMs, database.dueMs);
      // What the pool, the network and the clients have to do comes first.
      if (clock.step(dueMs)) continue;
      // Nobody is left who could answer those who are out.
      if (dueMs === Infinity) return false;
      if (database.dueMs === dueMs) database.endNext();
      else if (arrivalMs === dueMs) {
        this.#nextMs[this.#source] = this.#scaled(
          this.#sources[this.#source]?.(),
        );
        this.#chooseSource();
        this.#request(dueMs, undefined);
      } else if (thinker !== undefined) {
        this.#thinking.remove(thinker);
        this.#request(dueMs, thinker);
      }
    }
    return true;
  }

  /** Closes the books. */
  finish(): void {
    const { durationMs } = this.#plan;
    const nowMs = this.#clock.now();
    this.endMs = durationMs === Infinity ? nowMs : durationMs;
    this.#tick(Math.max(nowMs, this.endMs));
    this.#line?.end(this.#lastMs);
  }

  #think(client: Client): void {
    const ms = client.think.sample(this.#clientRandom);
    this.#thinking.add(client, this.#clock.now() + ms);
  }

  // Before anything changes, what was so far is added up.
  #tick(nowMs: number): void {
    if (nowMs === this.#lastMs) return;
    const { warmupMs, durationMs } = this.#plan;
    const spanMs = Math.min(nowMs, durationMs) -
      Math.max(this.#lastMs, warmupMs);
    if (spanMs > 0) {
      this.heldArea += this.#held * spanMs;
      if (this.#waiting > 0) {
        this.waitingArea += this.#waiting * spanMs;
        if (this.#held < this.#limit) {
          this.connectingArea += this.#waiting * spanMs;
        }
      }
    }
    this.#line?.pass(
      nowMs,
      this.#held,
      this.#waiting,
      this.#database.connectAttempts,
    );
    this.#lastMs = nowMs;
  }

  #request(intendedMs: number, client: Client | undefined): void {
    this.started++;
    this.#outstanding++;
    const attempt = this.#spare.pop() ?? new Attempt(this);
    attempt.intendedMs = intendedMs;
    attempt.client = client;
    attempt.number = 1;
    attempt.previousDelayMs = undefined;
    attempt.isMeasured = intendedMs >= this.#plan.warmupMs;
    if (attempt.isMeasured) this.offered++;
    this.#budget?.deposit();
    this.#launch(attempt);
  }

  #launch(attempt: Attempt): void {
    const nowMs = this.#clock.now();
    this.#tick(nowMs);
    if (this.#line !== undefined) {
      const { current } = this.#line;
      current.attempts++;
      if (attempt.number === 1) current.arrivals++;
    }
    if (attempt.isMeasured) this.attempts++;
    attempt.askedMs = nowMs;
    attempt.isAbandoned = false;
    const { clientTimeoutMs } = this.#point;
    if (clientTimeoutMs !== undefined) {
      attempt.patience = this.#clock.setTimer(
        () => this.#giveUp(attempt),
        clientTimeoutMs,
      );
    }
    const pools = this.#pools;
    const pool = pools.length === 1
      ? pools[0] as PoolCore<SimulatedConnection>
      : pools[Math.floor(this.#routeRandom() * pools.length)] as PoolCore<
        SimulatedConnection
      >;
    attempt.pool = pool;
    const slot = pool.take();
    if (slot !== undefined) return this.begin(attempt, slot);
    attempt.isWaiting = true;
    this.#waiting++;
    if (this.#waiting > this.mostWaiting) this.mostWaiting = this.#waiting;
    pool.enqueue(attempt, this.#point.config.acquireTimeoutMs);
  }

  begin(attempt: Attempt, slot: Slot<SimulatedConnection>): void {
    const nowMs = this.#clock.now();
    this.#tick(nowMs);
    this.#leaveQueue(attempt);
    this.#held++;
    const waitMs = nowMs - attempt.askedMs;
    if (attempt.isMeasured) {
      if (waitMs > 0) {
        this.waited++;
        this.waits.record(waitMs);
      } else this.waits.recordZero();
    }
    attempt.slot = slot;
    this.#database.start(
      attempt,
      slot.connection,
      this.#plan.service.sample(this.#serviceRandom),
    );
  }

  #leaveQueue(attempt: Attempt): void {
    if (!attempt.isWaiting) return;
    attempt.isWaiting = false;
    this.#waiting--;
  }

  // The pool has no connection for it.
  refused(attempt: Attempt, error: Error): void {
    this.#tick(this.#clock.now());
    this.#waitedInVain(attempt);
    attempt.patience?.clear();
    this.#settle(
      attempt,
      error instanceof AcquireTimeoutError
        ? "timed_out"
        : error instanceof TooManyWaitersError
        ? "rejected"
        : "failed",
    );
  }

  #waitedInVain(attempt: Attempt): void {
    this.#leaveQueue(attempt);
    const waitMs = this.#clock.now() - attempt.askedMs;
    if (!attempt.isMeasured || waitMs === 0) return;
    this.waited++;
    this.lostWaitMs += waitMs;
  }

  // The client's own patience is over.
  #giveUp(attempt: Attempt): void {
    this.#tick(this.#clock.now());
    if (attempt.pool?.abandon(attempt)) {
      this.#waitedInVain(attempt);
      return this.#settle(attempt, "abandoned");
    }
    // The query runs on, and so its connection is taken, as with any driver
    // that does not cancel; the client goes its way without it.
    attempt.isAbandoned = true;
    const next = this.#spare.pop() ?? new Attempt(this);
    next.intendedMs = attempt.intendedMs;
    next.client = attempt.client;
    next.number = attempt.number;
    next.previousDelayMs = attempt.previousDelayMs;
    next.isMeasured = attempt.isMeasured;
    this.#settle(next, "abandoned");
  }

  // The query has come to its end.
  ended(attempt: Attempt, error: Error | undefined): void {
    this.#tick(this.#clock.now());
    const { leak, queryFailure } = this.#plan;
    const fails = error !== undefined ||
      (queryFailure > 0 && this.#clientRandom() < queryFailure);
    if (leak > 0 && this.#clientRandom() < leak) this.leaked++;
    else {
      this.#held--;
      attempt.pool?.release(attempt.slot as Slot<SimulatedConnection>);
    }
    attempt.slot = undefined;
    if (attempt.isAbandoned) {
      this.#spare.push(attempt);
      return;
    }
    attempt.patience?.clear();
    this.#settle(attempt, fails ? "failed" : "served");
  }

  // The try has come to its end, and perhaps the request with it.
  #settle(attempt: Attempt, outcome: Outcome): void {
    attempt.patience = undefined;
    if (outcome !== "served" && this.#mayRetry(attempt)) {
      this.retries++;
      const delayMs = backoffDelayMs(
        this.#point.retry.policy,
        attempt.number,
        this.#clientRandom,
        attempt.previousDelayMs,
      );
      attempt.previousDelayMs = delayMs;
      attempt.number++;
      this.#clock.setTimer(() => this.#launch(attempt), delayMs);
      return;
    }
    this.#outstanding--;
    const nowMs = this.#clock.now();
    if (this.#line !== undefined) {
      const { current } = this.#line;
      if (outcome === "served") current.served++;
      else current.failures++;
    }
    const { warmupMs, durationMs } = this.#plan;
    if (outcome === "served" && nowMs >= warmupMs && nowMs <= durationMs) {
      this.servedInTime++;
    }
    if (attempt.isMeasured) {
      this.outcomes[outcome]++;
      const ms = nowMs - attempt.intendedMs;
      if (outcome === "served") {
        this.latencies.record(ms);
      } else this.failures.record(ms);
    }
    const { client } = attempt;
    attempt.client = undefined;
    this.#spare.push(attempt);
    if (client !== undefined) this.#think(client);
  }

  #mayRetry(attempt: Attempt): boolean {
    if (attempt.number > this.#point.clientRetries) return false;
    return this.#budget === undefined || this.#budget.withdraw();
  }
}

function durations(histogram: DurationHistogram): Durations {
  const { count: _, ...summary } = histogram.summary();
  const { mean, p50, p90, p95, p99, max } = summary;
  return { mean, p50, p90, p95, p99, p999: histogram.percentile(0.999), max };
}

function ratio(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0;
}

function summarize(
  plan: Plan,
  point: Point,
  runs: readonly Run[],
  loadFactor: number,
): PointResult {
  const first = runs[0] as Run;
  const sum = (value: (run: Run) => number): number =>
    runs.reduce((total, run) => total + value(run), 0);
  const most = (value: (run: Run) => number): number =>
    runs.reduce((best, run) => Math.max(best, value(run)), 0);
  const merged = (
    value: (run: Run) => DurationHistogram,
  ): DurationHistogram => {
    const all = new DurationHistogram(PART_BITS);
    for (const run of runs) all.merge(value(run));
    return all;
  };
  const limit = sumOf(first.pools, ({ limit }) => limit);
  const figures = runs.map((run): ReplicationFigures => ({
    throughput_per_s: ratio(run.servedInTime, run.measuredMs) * 1000,
    utilization: ratio(run.heldArea, run.measuredMs * limit),
    wait_probability: ratio(run.waited, run.attempts),
    loss_probability: ratio(run.offered - run.outcomes.served, run.offered),
    mean_wait_of_all_ms: ratio(
      run.waits.sumMs + run.lostWaitMs,
      run.attempts,
    ),
    wait_ms: durations(run.waits),
    latency_ms: durations(run.latencies),
  }));
  const latencies = merged((run) => run.latencies);
  const pools = runs.flatMap((run) => run.pools.map((pool) => pool.stats()));
  const offered = sum((run) => run.offered);
  const measuredMs = sum((run) => run.measuredMs);
  return {
    pool_size: point.config.poolSize,
    max_overflow: point.config.maxOverflow,
    settings: point.varied,
    offered,
    served: sum((run) => run.outcomes.served),
    timed_out: sum((run) => run.outcomes.timed_out),
    rejected: sum((run) => run.outcomes.rejected),
    failed: sum((run) => run.outcomes.failed),
    abandoned: sum((run) => run.outcomes.abandoned),
    throughput_per_s: ratio(sum((run) => run.servedInTime), measuredMs) * 1000,
    utilization: ratio(sum((run) => run.heldArea), measuredMs * limit),
    wait_probability: ratio(
      sum((run) => run.waited),
      sum((run) => run.attempts),
    ),
    wait_ms: durations(merged((run) => run.waits)),
    latency_ms: durations(latencies),
    failure_ms: durations(merged((run) => run.failures)),
    mean_wait_of_all_ms: ratio(
      sum((run) => run.waits.sumMs + run.lostWaitMs),
      sum((run) => run.attempts),
    ),
    mean_waiting: ratio(sum((run) => run.waitingArea), measuredMs),
    most_waiting: most((run) => run.mostWaiting),
    waiting_for_connect: ratio(
      sum((run) => run.connectingArea),
      sum((run) => run.waitingArea),
    ),
    peak: pools.reduce((best, { peak }) => Math.max(best, peak), 0),
    created: sumOf(pools, ({ created }) => created),
    connect_attempts: sum((run) => run.database.connectAttempts),
    connect_failures: sumOf(pools, ({ connectFailures }) => connectFailures),
    leaked: sum((run) => run.leaked),
    retries: sum((run) => run.retries),
    amplification: ratio(sum((run) => run.attempts), offered),
    load: loadOf(plan, limit, loadFactor),
    confidence_95: {
      throughput_per_s: halfWidth(figures, (one) => one.throughput_per_s),
      utilization: halfWidth(figures, (one) => one.utilization),
      wait_probability: halfWidth(figures, (one) => one.wait_probability),
      wait_ms: halfWidths(figures, (one) => one.wait_ms),
      latency_ms: halfWidths(figures, (one) => one.latency_ms),
    },
    pool_stats: pools[0] as PoolStats,
    time_line: (first.timeLine as TimeLine).data(),
    latency_histogram: [...latencies.buckets()],
    replications: figures,
  };
}

function sumOf<T>(values: readonly T[], value: (one: T) => number): number {
  return values.reduce((total, one) => total + value(one), 0);
}

function halfWidth(
  figures: readonly ReplicationFigures[],
  value: (one: ReplicationFigures) => number,
): number | null {
  const { halfWidth }: Estimate = estimate(figures.map(value));
  return Number.isFinite(halfWidth) ? halfWidth : null;
}

function halfWidths(
  figures: readonly ReplicationFigures[],
  value: (one: ReplicationFigures) => Durations,
): { [figure: string]: number | null } {
  const names = Object.keys(value(figures[0] as ReplicationFigures));
  return Object.fromEntries(
    names.map((name) => [
      name,
      halfWidth(figures, (one) => value(one)[name as keyof Durations]),
    ]),
  );
}

/** What the plan asks of `limit` connections, as a part of what they can do. */
function loadOf(plan: Plan, limit: number, loadFactor: number): number | null {
  const { arrivals, service, cores, usl, maxConnections } = plan;
  let ratePerMs = 0;
  for (const source of arrivals) {
    if (source.kind === "closed") return null;
    ratePerMs += source.ratePerMs * loadFactor;
  }
  if (!Number.isFinite(service.meanMs)) return null;
  if (ratePerMs === 0) return null;
  const connections = Math.min(limit, maxConnections ?? Infinity);
  const lone = service.meanMs;
  const best = usl === undefined
    ? Math.min(connections, cores ?? Infinity)
    // All of them busy: that is where a queue would stay.
    : connections /
      (1 + usl.alpha * (connections - 1) +
        usl.beta * connections * (connections - 1));
  return ratePerMs * lone / best;
}
