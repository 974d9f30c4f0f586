/**
 * What the figures of a simulation mean: the closed formulas beside them, what
 * ails the pool, and the smallest pool that meets an objective.
 *
 * @module
 */

import { parseDuration } from "./config.ts";
import type { Plan } from "./scenario.ts";
import type {
  Durations,
  PointResult,
  ReplicationFigures,
  SimulationResult,
} from "./simulate.ts";
import { simulation } from "./simulate.ts";
import { estimate, studentT } from "./statistics.ts";
import {
  md1,
  mg1MeanWait,
  mmc,
  mmcBounded,
  mmcWithTimeout,
  uslBest,
  uslThroughput,
} from "./theory.ts";

/** A figure of a closed formula beside the simulated one. */
export interface TheoryRow {
  /** The point of the sweep that it is about. */
  readonly point: string;
  /** The model whose formula it is; the reason if none fits. */
  readonly model: string;
  /** What is compared; none if no formula fits. */
  readonly quantity?: string;
  /** What the formula says. */
  readonly theory?: number;
  /** The mean of the replications. */
  readonly simulated?: number;
  /** Simulated less theory, in standard errors of the replications. */
  readonly standard_errors?: number | null;
}

/** A point as a person would name it, such as `pool size 5`. */
export function nameOf(point: PointResult): string {
  const varied = Object.entries(point.settings);
  if (varied.length === 0) {
    const { pool_size, max_overflow } = point;
    return `pool size ${pool_size}${max_overflow ? `+${max_overflow}` : ""}`;
  }
  return varied.map(([field, text]) =>
    `${
      field.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
    } ${text}`
  ).join(", ");
}

type Figure = (one: ReplicationFigures) => number;

const FIGURES = {
  "P(wait)": (one) => one.wait_probability,
  "P(lost)": (one) => one.loss_probability,
  "mean wait, ms": (one) => one.wait_ms.mean,
  "mean wait of all, ms": (one) => one.mean_wait_of_all_ms,
  "p95 wait, ms": (one) => one.wait_ms.p95,
  "p99 wait, ms": (one) => one.wait_ms.p99,
  "throughput, 1/s": (one) => one.throughput_per_s,
} as const satisfies Record<string, Figure>;

type Expected = { readonly [quantity in keyof typeof FIGURES]?: number };

/** The closed formulas that fit, beside what was simulated. */
export function theoryBeside({ plan, points }: SimulationResult): TheoryRow[] {
  return points.flatMap((point, i): TheoryRow[] => {
    const found = formulaFor(plan, i);
    if (typeof found === "string") {
      return [{ point: nameOf(point), model: `no formula fits: ${found}` }];
    }
    const [model, expected] = found;
    return Object.entries(expected).map(([quantity, theory]): TheoryRow => {
      const figure: Figure = FIGURES[quantity as keyof typeof FIGURES];
      const values = point.replications.map(figure);
      const { mean, halfWidth } = estimate(values);
      const standardError = halfWidth / studentT(values.length - 1);
      const difference = (mean - theory) / standardError;
      return {
        point: nameOf(point),
        ...{ model, quantity, theory, simulated: mean },
        standard_errors: Number.isFinite(difference) ? difference : null,
      };
    });
  });
}

// So few that no run would show them.
const NEVER = 1e-7;

function formulaFor(plan: Plan, index: number): [string, Expected] | string {
  const { config, clientTimeoutMs } = plan.points[index] ?? {};
  const [arrivals, ...others] = plan.arrivals;
  const { service, usl, cores, maxConnections } = plan;
  if (config === undefined || arrivals === undefined) return "nothing comes";
  const c = config.poolSize + config.maxOverflow;
  const isFaulty = plan.outages.length + plan.slowdowns.length +
          plan.connectFailure + plan.queryFailure + plan.leak > 0 ||
    plan.drop !== undefined || clientTimeoutMs !== undefined;
  if (isFaulty) return "the scenario has faults or clients that give up";
  if (others.length > 0) return "several processes of arrivals";
  if (plan.instances > 1) return "several pools";
  if (maxConnections !== undefined && maxConnections < c) {
    return "the database refuses connections";
  }
  if (plan.ping.meanMs > 0 && config.validate !== "never") {
    return "pings take time";
  }
  if (arrivals.kind === "closed") {
    if (usl === undefined || arrivals.think.meanMs > 0) {
      return "clients that wait for their answers";
    }
    const busy = Math.min(c, arrivals.clients);
    const expected = { "throughput, 1/s": uslThroughput(usl, busy) * 1000 };
    return ["Universal Scalability Law", expected];
  }
  if (!arrivals.isPoisson) return "the arrivals are not Poisson";
  if (usl !== undefined || (cores !== undefined && cores < c)) {
    return "queries slow one another down";
  }
  const queue = {
    servers: c,
    arrivalRate: arrivals.ratePerMs,
    serviceTime: service.meanMs,
  };
  const rho = queue.arrivalRate * queue.serviceTime / c;
  const { acquireTimeoutMs: timeout, maxWaiting } = config;
  if (service.kind === "exp") {
    // How many would have to wait for the bound to be felt.
    const isBoundFelt = rho >= 1 || rho ** maxWaiting > NEVER;
    const isTimeFelt = rho >= 1 ||
      Math.exp(-(c / queue.serviceTime - queue.arrivalRate) * timeout) > NEVER;
    if (isBoundFelt) {
      const { serviceTime } = queue;
      if (isTimeFelt && timeout < 20 * serviceTime * (maxWaiting + c) / c) {
        return "both a bounded queue and a timeout are felt";
      }
      const capacity = c + maxWaiting;
      const theory = mmcBounded({ ...queue, capacity });
      return [maxWaiting === 0 ? "Erlang B" : "M/M/c/K", {
        "P(lost)": theory.lossProbability,
        "mean wait, ms": theory.meanWaitServed,
      }];
    }
    if (isTimeFelt) {
      const theory = mmcWithTimeout({ ...queue, timeout });
      return ["M/M/c with a timeout", {
        "P(wait)": theory.waitProbability,
        "P(lost)": theory.lossProbability,
        "mean wait, ms": theory.meanWaitServed,
        "mean wait of all, ms": theory.meanWait,
      }];
    }
    const theory = mmc(queue);
    return ["M/M/c", {
      "P(wait)": theory.waitProbability,
      "mean wait, ms": theory.meanWait,
      "p95 wait, ms": theory.percentile(0.95),
      "p99 wait, ms": theory.percentile(0.99),
    }];
  }
  if (c > 1) return "more than one connection and a service that is not exp";
  if (rho >= 1) return "it is unstable";
  if (!Number.isFinite(service.scv)) return "the service has no variance";
  if (service.kind === "constant") {
    const theory = md1(queue);
    return ["M/D/1", {
      "mean wait, ms": theory.meanWait,
      "p95 wait, ms": theory.percentile(0.95),
    }];
  }
  const { arrivalRate, serviceTime } = queue;
  const meanWait = mg1MeanWait({ arrivalRate, serviceTime, scv: service.scv });
  return ["M/G/1", { "mean wait, ms": meanWait }];
}

/** What ails a pool, in one sentence with the figures that show it. */
export interface Finding {
  /** The point of the sweep that it is about. */
  readonly point: string;
  /** What it is. */
  readonly kind:
    | "unstable"
    | "saturated"
    | "bursty"
    | "connect-bound"
    | "retry-storm"
    | "leaking"
    | "oversized-for-database"
    | "failing"
    | "oversized"
    | "healthy";
  /** As it was written, or is to be read. */
  readonly text: string;
}

function percent(part: number): string {
  const value = part * 100;
  return `${
    value > 0 && value < 0.1 ? value.toPrecision(1) : value.toFixed(1)
  } %`;
}

function ms(value: number): string {
  return value >= 1000
    ? `${(value / 1000).toPrecision(3)} s`
    : `${Number(value.toPrecision(3))} ms`;
}

/** What can be said of each point. */
export function diagnose({ plan, points }: SimulationResult): Finding[] {
  return points.flatMap((point) => {
    const findings = diagnosePoint(plan, point);
    const name = nameOf(point);
    return findings.map(([kind, text]): Finding => ({
      point: name,
      kind,
      text,
    }));
  });
}

function diagnosePoint(
  plan: Plan,
  point: PointResult,
): [Finding["kind"], string][] {
  const found: [Finding["kind"], string][] = [];
  const { load, offered, served, utilization, wait_ms, latency_ms } = point;
  const limit = point.pool_size + point.max_overflow;
  const lost = offered - served;
  const lostShare = offered > 0 ? lost / offered : 0;
  if (load !== null && load >= 1) {
    found.push([
      "unstable",
      `The load is ${
        load.toFixed(2)
      }: more is asked than it can ever do, so the queue grows as long as requests come (${point.most_waiting} waited at most) and the figures tell of the length of the run`,
    ]);
  } else if (utilization > 0.9) {
    found.push([
      "saturated",
      `Connections are in use ${percent(utilization)} of the time and ${
        percent(point.wait_probability)
      } of the requests wait, ${ms(wait_ms.mean)} on average`,
    ]);
  }
  if (point.leaked > 0) {
    found.push([
      "leaking",
      `${point.leaked} connections were never given back in ${point.replications.length} replications, of ${
        limit * plan.instances
      } that each may have; ${point.timed_out} requests timed out`,
    ]);
  }
  if (
    point.retries > 0 && point.amplification > 1.5 && lostShare > 0.01
  ) {
    found.push([
      "retry-storm",
      `Each request became ${point.amplification.toFixed(2)} attempts, and ${
        percent(lostShare)
      } failed all the same: the retries are load, not help`,
    ]);
  }
  const { usl, cores } = plan;
  const all = limit * plan.instances;
  if (usl !== undefined && all > 1.2 * uslBest(usl)) {
    const best = Math.max(1, Math.round(uslBest(usl)));
    found.push([
      "oversized-for-database",
      `The database does most with ${best} busy connections, ${
        Math.round(uslThroughput(usl, best) * 1000)
      }/s; with all ${all} it does ${
        Math.round(uslThroughput(usl, all) * 1000)
      }/s, so a burst that fills the pool makes it slower`,
    ]);
  }
  if (cores !== undefined && all > 4 * cores && utilization > 0.5) {
    found.push([
      "oversized-for-database",
      `${all} connections share ${cores} cores: more of them add no work done, only longer queries`,
    ]);
  }
  if (plan.maxConnections !== undefined && all > plan.maxConnections) {
    found.push([
      "oversized-for-database",
      `The pools may open ${all} connections and the database takes ${plan.maxConnections}: ${point.connect_failures} connects failed`,
    ]);
  }
  const waitsMuch = wait_ms.p99 > plan.service.meanMs;
  // No pool size and no warm connection helps against a database that is away.
  const isAway = point.connect_failures > point.created / 2;
  if (isAway) {
    found.push([
      "failing",
      `${point.connect_failures} of ${point.connect_attempts} connects failed, and with them ${
        percent(lostShare)
      } of the requests (${point.timed_out} timed out, ${point.failed} failed); up to ${point.most_waiting} waited for the database to come back`,
    ]);
  } else if (waitsMuch && point.waiting_for_connect > 0.3) {
    found.push([
      "connect-bound",
      `${
        percent(point.waiting_for_connect)
      } of all waiting was for connections that were still to be opened (${point.created} opened, ${
        ms(plan.connect.meanMs)
      } each): keep some warm with --min-idle, or open more at once with --max-connecting`,
    ]);
  } else if (waitsMuch && utilization < 0.6) {
    found.push([
      "bursty",
      `Connections are in use only ${
        percent(utilization)
      } of the time, yet p99 of the wait is ${
        ms(wait_ms.p99)
      } and up to ${point.most_waiting} waited at once: the load comes in bursts, or stalls`,
    ]);
  }
  if (lostShare > 0.001 && found.length === 0) {
    found.push([
      "failing",
      `${
        percent(lostShare)
      } of the requests failed: ${point.timed_out} timed out, ${point.rejected} were turned away, ${point.failed} failed, ${point.abandoned} were given up`,
    ]);
  }
  if (found.length === 0 && point.peak * 2 < limit) {
    found.push([
      "oversized",
      `Never more than ${point.peak} of ${limit} connections were in use at once`,
    ]);
  }
  if (found.length === 0) {
    found.push([
      "healthy",
      `In use ${percent(utilization)} of the time; p99 of the latency is ${
        ms(latency_ms.p99)
      }, of which the wait is at most ${ms(wait_ms.p99)}`,
    ]);
  }
  return found;
}

/** One condition of an objective. */
export interface Clause {
  /** As it was written, or is to be read. */
  readonly text: string;
  /** What it bounds. */
  readonly figure: string;
  /** Whether it bounds from above. */
  readonly isUpper: boolean;
  /** The bound: milliseconds for times, parts of 1 for shares. */
  readonly bound: number;
  /** What is bounded, of a point. */
  readonly value: (point: PointResult) => number;
}

const LATENCIES: readonly (keyof Durations)[] = [
  ...["mean", "p50", "p90", "p95", "p99", "p999", "max"] as const,
];

/**
 * An objective such as `p99<50ms,errors<0.1%`. Bounded can be the latencies mean,
 * p50, p90, p95, p99, p999 and max, the same of the wait as wait-p99,
 * `errors`, `utilization` and, from below, `throughput`.
 *
 * @throws {SyntaxError} if the text is none.
 */
export function parseSlo(text: string): Clause[] {
  return text.split(",").map((part) => parseClause(part.trim()));
}

function parseClause(text: string): Clause {
  const [, figure = "", sign, written = ""] =
    /^([a-z0-9.-]+)\s*(<|>)=?\s*(.+)$/i.exec(text) ?? [];
  const [, wait, quantile] =
    /^(wait-)?(.+)$/.exec(figure.replace("p99.9", "p999")) ??
      [];
  const name = LATENCIES.find((name) => name === quantile);
  const wrong = (): SyntaxError =>
    new SyntaxError(
      "must be conditions such as p99<50ms,errors<0.1% on mean, p50, p90, p95, p99, p999, max, " +
        `wait-p99, errors, utilization or throughput>: current value is ${
          JSON.stringify(text)
        }`,
    );
  const base = { text, figure, isUpper: sign === "<" };
  if (name !== undefined && sign === "<") {
    try {
      return {
        ...{ ...base, bound: parseDuration(written) },
        value: (point) => (wait ? point.wait_ms : point.latency_ms)[name],
      };
    } catch {
      throw wrong();
    }
  }
  const match = /^(\d+\.?\d*|\.\d+)(%|\/s)?$/.exec(written);
  if (match === null) throw wrong();
  const bound = Number(match[1]) / (match[2] === "%" ? 100 : 1);
  if (figure === "errors" && sign === "<") {
    return {
      ...{ ...base, bound },
      value: ({ offered, served }) =>
        offered > 0 ? (offered - served) / offered : 0,
    };
  }
  if (figure === "utilization" && sign === "<") {
    return { ...base, bound, value: (point) => point.utilization };
  }
  if (figure === "throughput" && sign === ">") {
    return { ...base, bound, value: (point) => point.throughput_per_s };
  }
  throw wrong();
}

/** Whether a point meets a condition. */
function holds(clause: Clause, point: PointResult): boolean {
  const value = clause.value(point);
  // Nothing served has no latency, and meets no objective.
  if (point.served === 0) return false;
  return clause.isUpper ? value < clause.bound : value > clause.bound;
}

/** What an objective asks for, and what is to be chosen. */
export interface Recommendation {
  /** The objective, as it was written. */
  readonly slo: string;
  /** The point that is recommended; null if none meets the objective. */
  readonly pool_size: number | null;
  /** How many more connections a burst may open. */
  readonly max_overflow: number | null;
  /** What the sweep varies, at that point. */
  readonly settings: { readonly [field: string]: string } | null;
  /** For each condition: its value there, and how much of the bound is left. */
  readonly margins: readonly {
    readonly condition: string;
    readonly value: number;
    readonly margin: number;
  }[];
  /** The first load, in multiples of the scenario's, at which it breaks. */
  readonly breaks_at_load_factor: number | null;
  /** The conditions that break there. */
  readonly breaks_first: readonly string[];
  /** As it was written, or is to be read. */
  readonly text: string;
}

// As fine as a person plans, up to where nobody does.
const LOAD_FACTORS = [1.05, 1.1, 1.2, 1.3, 1.5, 1.75, 2, 3, 5, 10];

/**
 * The smallest pool that meets an objective, how much of it is left, and which
 * condition breaks first when more comes than the scenario says. For the latter
 * it simulates that point again under growing load, in steps as `simulation`.
 */
export function* recommend(
  { plan, points }: SimulationResult,
  clauses: readonly Clause[],
): Generator<number, Recommendation> {
  const slo = clauses.map(({ text }) => text).join(",");
  const size = (point: PointResult): number =>
    point.pool_size + point.max_overflow;
  const order = points.map((_, i) => i).sort((a, b) =>
    size(points[a] as PointResult) - size(points[b] as PointResult)
  );
  const chosen = order.find((i) =>
    clauses.every((clause) => holds(clause, points[i] as PointResult))
  );
  const margins = (point: PointResult): Recommendation["margins"] =>
    clauses.map((clause) => {
      const value = clause.value(point);
      const margin = (clause.bound - value) / (clause.bound || 1);
      return {
        condition: clause.text,
        value,
        margin: clause.isUpper ? margin : -margin,
      };
    });
  if (chosen === undefined) {
    const met = (i: number): number =>
      clauses.filter((clause) => holds(clause, points[i] as PointResult))
        .length;
    const worst = (i: number): number =>
      Math.min(
        ...margins(points[i] as PointResult).map(({ margin }) => margin),
      );
    const nearest = order.toSorted((a, b) =>
      met(b) - met(a) || worst(b) - worst(a)
    )[0] ?? 0;
    const point = points[nearest] as PointResult;
    const broken = clauses.filter((clause) => !holds(clause, point));
    return {
      slo,
      ...{ pool_size: null, max_overflow: null, settings: null },
      margins: margins(point),
      breaks_at_load_factor: null,
      breaks_first: broken.map(({ text }) => text),
      text: `No point of the sweep meets ${slo}; nearest comes ${
        nameOf(point)
      }, which misses ${broken.map(({ text }) => text).join(" and ")}`,
    };
  }
  const point = points[chosen] as PointResult;
  const alone = { ...plan, points: [plan.points[chosen] as Plan["points"][0]] };
  let factor: number | null = null;
  let broken: readonly Clause[] = [];
  // A burst or a trace has no rate of which there could be more.
  const hasRate = plan.arrivals.some((source) =>
    source.kind === "closed" || source.ratePerMs > 0
  );
  for (const tried of hasRate ? LOAD_FACTORS : []) {
    const { points: [more] } = yield* simulation(alone, tried);
    broken = clauses.filter((clause) => !holds(clause, more as PointResult));
    factor = tried;
    if (broken.length > 0) break;
  }
  const first = broken.map(({ text }) => text);
  return {
    slo,
    pool_size: point.pool_size,
    max_overflow: point.max_overflow,
    settings: point.settings,
    margins: margins(point),
    breaks_at_load_factor: first.length > 0 ? factor : null,
    breaks_first: first,
    text: `The smallest that meets ${slo} is ${nameOf(point)}${
      nameOf(point).includes("pool size")
        ? ""
        : ` (pool size ${point.pool_size})`
    }, with ${
      margins(point).map(({ condition, margin }) =>
        `${percent(margin)} to spare on ${condition}`
      ).join(" and ")
    }; ${
      first.length > 0
        ? `at ${factor} times the load ${first.join(" and ")} breaks first`
        : hasRate
        ? `it holds at ${factor} times the load too`
        : "bursts and traces have no rate to raise, so no greater load was tried"
    }`,
  };
}
