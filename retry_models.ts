/**
 * What a retry policy does to others: three small worlds in which many clients
 * fail at once, each run with `retry.ts` itself under virtual time.
 *
 * `contention` is the model of Marc Brooker's "Exponential Backoff And Jitter"
 * (AWS Architecture Blog, 2015): optimistic writers of one row. `reconnect` is
 * the storm after an outage. `overload` is the load that retries keep up after
 * its cause has gone, a metastable failure (Bronson et al., HotOS 2021).
 *
 * @module
 */

import { normal, parseDistribution } from "./distributions.ts";
import { type Random, seededRandom } from "./random.ts";
import { backoffDelayMs, RetryBudget, type RetryPolicy } from "./retry.ts";
import { type NamedPolicy, parsePolicy } from "./scenario.ts";
import { VirtualClock } from "./virtual_clock.ts";

/** The models by name. */
export const RETRY_MODELS = ["contention", "reconnect", "overload"] as const;

/** The name of a model. */
export type RetryModel = typeof RETRY_MODELS[number];

/** What one run of a model gives; NaN where the model has no such figure. */
interface Run {
  attempts: number;
  /** The most attempts in any 100 ms; after the outage, where there is one. */
  peakPer100ms: number;
  completionMs: number;
  drainMs: number;
  attemptsWhileDown: number;
}

/** What a policy does in a model: means over the replications. */
export interface PolicyResult {
  /** The policy, by its name or as its numbers. */
  readonly policy: string;
  /** Attempts of all clients. */
  readonly attempts: number;
  /** The same for each client. */
  readonly attempts_per_client: number;
  /** The most attempts in any 100 ms; after the outage, where there is one. */
  readonly peak_per_100ms: number;
  /** Until the last client is done; null if the model has no such end. */
  readonly completion_ms: number | null;
  /** From the end of the fault until it is felt no more; null if never. */
  readonly drain_ms: number | null;
  /** The part of the replications in which it came to an end. */
  readonly recovered: number;
  /** Attempts of each client while the database was down; null if it never was. */
  readonly attempts_while_down_per_client: number | null;
  /** Attempts in each 100 ms of the first replication. */
  readonly attempts_per_100ms: readonly number[];
}

/** What an experiment gives. */
export interface RetryResult {
  /** Which of the models. */
  readonly model: RetryModel;
  /** How many clients there are. */
  readonly clients: number;
  /** How many independent runs there are. */
  readonly replications: number;
  /** From which all chance comes. */
  readonly seed: number;
  /** What each policy does. */
  readonly policies: readonly PolicyResult[];
}

/** What an experiment may ask for. */
export interface RetryExperiment {
  /** Which of the models. */
  readonly model: RetryModel;
  /** As they are written, such as `exp:100ms..5s`. Default: the model's. */
  readonly policies?: readonly string[];
  /**
   * How many clients there are. Default: 100 for `contention`, 1000 for
   * `reconnect`; in `overload` requests come at their rate, and this is how many
   * come: 33,600, four minutes of them.
   */
  readonly clients?: number;
  /** Default: 100 for `contention`, 5 for the others. */
  readonly replications?: number;
  /** Default: 1. */
  readonly seed?: number;
  /**
   * Retries for each success that the budget of `overload` allows. Default: 0.1,
   * as everywhere.
   */
  readonly budget?: number;
}

interface Model {
  readonly clients: number;
  readonly replications: number;
  readonly policies: readonly string[];
  /** What a policy without numbers has. */
  readonly numbers: (name: string) => Partial<RetryPolicy>;
  readonly run: (setup: Setup) => Run;
}

interface Setup {
  readonly clients: number;
  /** Undefined: nobody tries again. */
  readonly policy: RetryPolicy | undefined;
  readonly budget: RetryBudget | undefined;
  readonly random: Random;
  readonly clock: VirtualClock;
  readonly counts: Counts;
}

/** Attempts in intervals of 100 ms. */
class Counts {
  readonly per100ms: number[] = [];
  total = 0;

  add(atMs: number): void {
    this.total++;
    const i = Math.floor(atMs / 100);
    while (this.per100ms.length <= i) this.per100ms.push(0);
    this.per100ms[i] = (this.per100ms[i] ?? 0) + 1;
  }

  peak(fromMs: number): number {
    return this.per100ms.slice(Math.floor(fromMs / 100))
      .reduce((most, count) => Math.max(most, count), 0);
  }
}

const HOP_MEAN_MS = 10;
const HOP_SD_MS = 2;

function contention({ clients, policy, random, clock, counts }: Setup): Run {
  const hop = (): number => Math.abs(HOP_MEAN_MS + HOP_SD_MS * normal(random));
  let version = 0;
  let completionMs = 0;
  const read = (attempt: number, previousMs: number | undefined): void => {
    const seen = version;
    clock.setTimer(() => {
      clock.setTimer(() => write(seen, attempt, previousMs), hop());
    }, hop());
  };
  const write = (
    seen: number,
    attempt: number,
    previousMs: number | undefined,
  ): void => {
    counts.add(clock.now());
    const isDone = seen === version;
    if (isDone) version++;
    clock.setTimer(() => {
      if (isDone || policy === undefined) completionMs = clock.now();
      else {
        const delayMs = backoffDelayMs(policy, attempt, random, previousMs);
        clock.setTimer(() => read(attempt + 1, delayMs), hop() + delayMs);
      }
    }, hop());
  };
  for (let i = 0; i < clients; i++) {
    clock.setTimer(() => read(1, undefined), hop());
  }
  while (clock.step());
  return {
    attempts: counts.total,
    peakPer100ms: counts.peak(0),
    completionMs,
    drainMs: NaN,
    attemptsWhileDown: NaN,
  };
}

const DOWN_UNTIL_MS = 30_000;
const FIRST_TRIES_MS = 10;
const REFUSAL_MS = 1;
const HANDSHAKE_MS = 20;
const HANDSHAKES_AT_ONCE = 10;
const BACKLOG = 50;

function reconnect({ clients, policy, random, clock, counts }: Setup): Run {
  let busy = 0;
  const backlog: (() => void)[] = [];
  let completionMs = NaN;
  let connected = 0;
  let attemptsWhileDown = 0;
  const shake = (): void => {
    busy++;
    clock.setTimer(() => {
      busy--;
      if (++connected === clients) completionMs = clock.now();
      backlog.shift()?.();
    }, HANDSHAKE_MS);
  };
  const attempt = (number: number, previousMs: number | undefined): void => {
    const nowMs = clock.now();
    counts.add(nowMs);
    const isDown = nowMs < DOWN_UNTIL_MS;
    if (isDown) attemptsWhileDown++;
    else if (busy < HANDSHAKES_AT_ONCE) return shake();
    else if (backlog.length < BACKLOG) {
      backlog.push(shake);
      return;
    }
    if (policy === undefined) return;
    const delayMs = backoffDelayMs(policy, number, random, previousMs);
    clock.setTimer(
      () => attempt(number + 1, delayMs),
      REFUSAL_MS + delayMs,
    );
  };
  for (let i = 0; i < clients; i++) {
    clock.setTimer(() => attempt(1, undefined), random() * FIRST_TRIES_MS);
  }
  while (clock.step());
  return {
    attempts: counts.total,
    peakPer100ms: counts.peak(DOWN_UNTIL_MS),
    completionMs,
    drainMs: completionMs - DOWN_UNTIL_MS,
    attemptsWhileDown,
  };
}

const SERVERS = 10;
const SERVICE = parseDistribution("exp:50ms");
const LOAD = 0.7;
const RATE_PER_MS = LOAD * SERVERS / SERVICE.meanMs;
const ATTEMPT_TIMEOUT_MS = 500;
const RETRIES = 3;
const STALL = { startMs: 30_000, endMs: 40_000 };
const OVERLOAD_REQUESTS = 33_600;
// It has recovered when nearly all attempts of some seconds succeed: fewer would
// be chance, and one in twenty is within what a short burst does.
const CALM_SECONDS = 5;
const CALM_SHARE = 0.95;

function overload(
  { clients, policy, budget, random, clock, counts }: Setup,
): Run {
  const waiting: (() => void)[] = [];
  let first = 0;
  let busy = 0;
  const tries: number[] = [];
  const successes: number[] = [];
  const note = (list: number[]): void => {
    const second = Math.floor(clock.now() / 1000);
    list[second] = (list[second] ?? 0) + 1;
  };
  // Work stands still during the stall, and what timed out is done all the same.
  const serve = (done: () => void): void => {
    busy++;
    const workMs = SERVICE.sample(random);
    const nowMs = clock.now();
    const isStalled = nowMs >= STALL.startMs && nowMs < STALL.endMs;
    const crosses = nowMs < STALL.startMs && nowMs + workMs > STALL.startMs;
    const pauseMs = isStalled
      ? STALL.endMs - nowMs
      : crosses
      ? STALL.endMs - STALL.startMs
      : 0;
    clock.setTimer(() => {
      busy--;
      done();
      const next = waiting[first];
      if (next === undefined) return;
      first++;
      if (first > 10_000) waiting.splice(0, first), first = 0;
      next();
    }, workMs + pauseMs);
  };
  const attempt = (number: number, previousMs: number | undefined): void => {
    counts.add(clock.now());
    let isOver = false;
    const timer = clock.setTimer(() => {
      isOver = true;
      note(tries);
      if (policy === undefined || number > RETRIES) return;
      if (budget !== undefined && !budget.withdraw()) return;
      const delayMs = backoffDelayMs(policy, number, random, previousMs);
      clock.setTimer(() => attempt(number + 1, delayMs), delayMs);
    }, ATTEMPT_TIMEOUT_MS);
    const done = (): void => {
      if (isOver) return;
      timer.clear();
      note(tries);
      note(successes);
      // What fails earns nothing, as in gRPC's retry throttling: in a backlog
      // where all time out, a token for each call would keep up a tenth more
      // load, and with it half as long a recovery again.
      budget?.deposit();
    };
    if (busy < SERVERS) serve(done);
    else waiting.push(() => serve(done));
  };
  let come = 0;
  const arrive = (): void => {
    if (come++ === clients) return;
    attempt(1, undefined);
    clock.setTimer(arrive, -Math.log(1 - random()) / RATE_PER_MS);
  };
  arrive();
  while (come <= clients && clock.step());
  const endMs = clock.now();
  let calm = 0;
  let drainMs = NaN;
  for (let s = STALL.endMs / 1000; s < Math.floor(endMs / 1000); s++) {
    const isCalm = (successes[s] ?? 0) >= CALM_SHARE * (tries[s] ?? 0) &&
      (tries[s] ?? 0) > 0;
    calm = isCalm ? calm + 1 : 0;
    if (calm === CALM_SECONDS) {
      drainMs = (s + 1 - CALM_SECONDS) * 1000 - STALL.endMs;
      break;
    }
  }
  return {
    attempts: counts.total,
    peakPer100ms: counts.peak(STALL.endMs),
    completionMs: NaN,
    drainMs,
    attemptsWhileDown: NaN,
  };
}

const STORM_POLICIES = ["fixed:1s", "fixed:5s", "exp", "full", "equal"];

const MODELS: Readonly<Record<RetryModel, Model>> = {
  contention: {
    ...{ clients: 100, replications: 100, run: contention },
    policies: ["none", "exp", "decorrelated", "equal", "full"],
    // The article counts from 5 ms * 2^1, and decorrelated jitter from 5 ms.
    numbers: (name) => ({
      baseDelayMs: name === "decorrelated" ? 5 : 10,
      maxDelayMs: 2000,
    }),
  },
  reconnect: {
    ...{ clients: 1000, replications: 5, run: reconnect },
    policies: [...STORM_POLICIES, "decorrelated"],
    numbers: () => ({ baseDelayMs: 100, maxDelayMs: 5000 }),
  },
  overload: {
    ...{ clients: OVERLOAD_REQUESTS, replications: 5, run: overload },
    policies: ["fixed:1s", "exp", "full", "equal", "decorrelated"],
    numbers: () => ({ baseDelayMs: 100, maxDelayMs: 5000 }),
  },
};

/**
 * Runs an experiment with each policy.
 *
 * ```ts
 * import { assert } from "@std/assert";
 *
 * const { policies: [fixed, full] } = retryExperiment({
 *   model: "reconnect",
 *   policies: ["fixed:1s", "full"],
 *   clients: 200,
 *   replications: 1,
 * });
 * assert(fixed!.peak_per_100ms > full!.peak_per_100ms);
 * ```
 *
 * @throws {SyntaxError} if a policy is none.
 */
export function retryExperiment(experiment: RetryExperiment): RetryResult {
  const steps = retrySteps(experiment);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** The same in steps: yields the part that is done, and returns the result. */
export function* retrySteps(
  experiment: RetryExperiment,
): Generator<number, RetryResult> {
  const model = MODELS[experiment.model];
  const {
    clients = model.clients,
    replications = model.replications,
    seed = 1,
    policies = model.policies,
    budget = 0.1,
  } = experiment;
  const named = policies.map((text) =>
    parsePolicy(text, model.numbers(text.trim()))
  );
  const isOverload = experiment.model === "overload";
  const rows: { text: string; policy?: NamedPolicy; budget?: number }[] = [
    ...(isOverload ? [{ text: "no retries" }] : []),
    ...named.map((policy) => ({ text: policy.text, policy })),
    ...(isOverload
      ? named.map((policy) => ({
        text: `${policy.text}, budget ${budget * 100} %`,
        ...{ policy, budget },
      }))
      : []),
  ];
  const results: PolicyResult[] = [];
  for (const [i, { text, policy, budget: ratio }] of rows.entries()) {
    const runs: Run[] = [];
    let line: readonly number[] = [];
    for (let k = 0; k < replications; k++) {
      const counts = new Counts();
      runs.push(model.run({
        ...{ clients, counts, policy: policy?.policy },
        clock: new VirtualClock(),
        random: seededRandom(seed, k),
        budget: ratio === undefined ? undefined : new RetryBudget({ ratio }),
      }));
      if (k === 0) line = counts.per100ms;
      yield (i + (k + 1) / replications) / rows.length;
    }
    results.push(resultOf(text, runs, clients, line));
  }
  return {
    model: experiment.model,
    ...{ clients, replications, seed, policies: results },
  };
}

function resultOf(
  policy: string,
  runs: readonly Run[],
  clients: number,
  line: readonly number[],
): PolicyResult {
  const mean = (value: (run: Run) => number): number => {
    const finite = runs.map(value).filter(Number.isFinite);
    return finite.reduce((sum, one) => sum + one, 0) / finite.length;
  };
  const orNull = (value: number): number | null =>
    Number.isFinite(value) ? value : null;
  const attempts = mean((run) => run.attempts);
  const whileDown = mean((run) => run.attemptsWhileDown) / clients;
  const ended = runs.filter((run) =>
    Number.isFinite(run.completionMs) || Number.isFinite(run.drainMs)
  );
  return {
    policy,
    attempts,
    attempts_per_client: attempts / clients,
    peak_per_100ms: mean((run) => run.peakPer100ms),
    completion_ms: orNull(mean((run) => run.completionMs)),
    drain_ms: orNull(mean((run) => run.drainMs)),
    recovered: ended.length / runs.length,
    attempts_while_down_per_client: orNull(whileDown),
    attempts_per_100ms: line,
  };
}
