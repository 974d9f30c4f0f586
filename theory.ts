/**
 * What queueing theory says, where it has a closed formula: to hold a
 * simulation against. Rates are per millisecond and times in milliseconds, or
 * both in any other unit; `load` is the arrival rate times the mean service
 * time, in erlangs.
 *
 * @module
 */

/**
 * The share of requests that find all of `servers` busy and no place to wait,
 * with Poisson arrivals and any service time: Erlang's B formula ("Solution of
 * some Problems in the Theory of Probabilities of Significance in Automatic
 * Telephone Exchanges", 1917), by its recursion.
 *
 * @throws {RangeError} if `servers` is not an integer >= 0 or the load is wrong.
 */
export function erlangB(servers: number, load: number): number {
  checkServers(servers, 0);
  checkPositive("load", load);
  let blocked = 1;
  for (let k = 1; k <= servers; k++) {
    blocked = load * blocked / (k + load * blocked);
  }
  return blocked;
}

/**
 * The share of requests that have to wait in M/M/c: Erlang's C formula, from B.
 * At a load that the servers cannot bear, all of them.
 */
export function erlangC(servers: number, load: number): number {
  checkServers(servers, 1);
  if (load >= servers) return 1;
  const blocked = erlangB(servers, load);
  return blocked / (1 - load / servers * (1 - blocked));
}

/** What theory says of the waiting in a queue. */
export interface WaitTheory {
  /** The share of requests that have to wait. */
  readonly waitProbability: number;
  /** The mean wait of all, in the unit of the service time. */
  readonly meanWait: number;
  /** The wait that a share `p` (0 to 1) of all do not exceed. */
  percentile(p: number): number;
}

/** A queue with one rate of arrivals and one mean time of service. */
export interface Queue {
  /** How many are served at once. */
  readonly servers: number;
  /** Arrivals per unit of time. */
  readonly arrivalRate: number;
  /** The mean time of service, in that unit. */
  readonly serviceTime: number;
}

/**
 * M/M/c: Poisson arrivals, exponential service, any number may wait, first come
 * first served. The wait is 0 or exponential with rate c/s − λ (Kleinrock,
 * "Queueing Systems", volume 1, section 3.5).
 *
 * An unstable queue has infinite waits.
 */
export function mmc({ servers, arrivalRate, serviceTime }: Queue): WaitTheory {
  checkPositive("arrivalRate", arrivalRate);
  checkPositive("serviceTime", serviceTime);
  const waitProbability = erlangC(servers, arrivalRate * serviceTime);
  const spareRate = servers / serviceTime - arrivalRate;
  if (spareRate <= 0) {
    return { waitProbability, meanWait: Infinity, percentile: () => Infinity };
  }
  return {
    waitProbability,
    meanWait: waitProbability / spareRate,
    percentile: (p) =>
      p <= 1 - waitProbability
        ? 0
        : Math.log(waitProbability / (1 - p)) / spareRate,
  };
}

/**
 * The mean wait in M/G/1: Poisson arrivals, one server, service with the squared
 * coefficient of variation `scv`; the formula of Pollaczek and Khinchine.
 */
export function mg1MeanWait(
  { arrivalRate, serviceTime, scv }: Omit<Queue, "servers"> & { scv: number },
): number {
  const utilization = arrivalRate * serviceTime;
  if (utilization >= 1) return Infinity;
  return utilization * (1 + scv) / (2 * (1 - utilization)) * serviceTime;
}

/**
 * M/D/1: Poisson arrivals, one server, always the same time of service. The
 * distribution of the wait is Erlang's: with x = t/s and load a,
 * P(W ≤ t) = (1 − a) Σ (a(k − x))^k e^(−a(k − x)) / k!, k from 0 to ⌊x⌋. Its
 * terms alternate, which costs digits as x grows, so beyond `EXACT_TERMS` its
 * exponential tail is used; that one is exact in the limit.
 */
export function md1(
  { arrivalRate, serviceTime }: Omit<Queue, "servers">,
): WaitTheory {
  const load = arrivalRate * serviceTime;
  const meanWait = mg1MeanWait({ arrivalRate, serviceTime, scv: 0 });
  if (load >= 1) {
    return { waitProbability: 1, meanWait, percentile: () => Infinity };
  }
  const atMost = (x: number): number => {
    if (x <= EXACT_TERMS) return md1AtMost(x, load);
    const rate = md1TailRate(load);
    const above = 1 - md1AtMost(EXACT_TERMS, load);
    return 1 - above * Math.exp(-rate * (x - EXACT_TERMS));
  };
  return {
    waitProbability: load,
    meanWait,
    percentile: (p) => bisect(atMost, p) * serviceTime,
  };
}

const EXACT_TERMS = 12;

function md1AtMost(x: number, load: number): number {
  let sum = 0;
  let factorial = 1;
  for (let k = 0; k <= Math.floor(x); k++) {
    if (k > 0) factorial *= k;
    const y = load * (k - x);
    sum += y ** k * Math.exp(-y) / factorial;
  }
  return (1 - load) * sum;
}

/** The positive root of a(e^r − 1) = r, the rate at which the tail falls. */
function md1TailRate(load: number): number {
  let low = 1e-12;
  let high = 1;
  const excess = (r: number): number => load * Math.expm1(r) - r;
  while (excess(high) < 0) high *= 2;
  for (let i = 0; i < 200; i++) {
    const middle = (low + high) / 2;
    if (excess(middle) < 0) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Where a rising function that is 0 to the left of 0 reaches `value`. */
function bisect(rising: (x: number) => number, value: number): number {
  if (rising(0) >= value) return 0;
  let low = 0;
  let high = 1;
  while (rising(high) < value) high *= 2;
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2;
    if (rising(middle) < value) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** What theory says of a queue whose requests do not wait for ever. */
export interface LossTheory {
  /** The share of requests that wait, those included that give up. */
  readonly waitProbability: number;
  /** The share of requests that are not served. */
  readonly lossProbability: number;
  /** The mean wait of all requests. */
  readonly meanWait: number;
  /** The mean wait of those that were served. */
  readonly meanWaitServed: number;
}

/**
 * M/M/c+D: as M/M/c, but who has waited for `timeout` gives up.
 *
 * The time that a new arrival would have to wait has a density proportional to
 * e^(−(c/s − λ)t) up to `timeout`, after states 0 to c − 1 as in Erlang's model
 * (Barrer, "Queuing with Impatient Customers and Ordered Service", 1957): whoever
 * would have to wait longer than `timeout` is lost, after waiting so long.
 */
export function mmcWithTimeout(
  { servers, arrivalRate, serviceTime, timeout }: Queue & { timeout: number },
): LossTheory {
  checkServers(servers, 1);
  const load = arrivalRate * serviceTime;
  const rate = servers / serviceTime - arrivalRate;
  // The density of the offered wait v at t is f·e^(−rate·t) for t < timeout; with
  // all servers busy and nobody waiting its value at 0 is λ·P(c − 1 busy).
  // Beyond `timeout` nobody joins, so it falls with c/s: in all e^(−rate·timeout)
  // ·s/c. Everything here is in units of P(c − 1 busy)·λ.
  const decay = Math.exp(-rate * timeout);
  const x = rate * timeout;
  const within = x === 0 ? timeout : -Math.expm1(-x) / rate;
  const beyond = decay * serviceTime / servers;
  // P(at most c − 1 busy) = P(c − 1 busy) / B(c − 1).
  const free = 1 / erlangB(servers - 1, load);
  const scale = 1 / (free + arrivalRate * (within + beyond));
  const waitProbability = scale * arrivalRate * (within + beyond);
  const lossProbability = scale * arrivalRate * beyond;
  // ∫ t·e^(−rate·t) dt from 0 to timeout.
  // Its first terms where the formula would be a difference of equals.
  const moment = Math.abs(x) < 1e-3
    ? timeout ** 2 * (1 / 2 - x / 3 + x ** 2 / 8 - x ** 3 / 30)
    : (1 - decay * (1 + x)) / rate ** 2;
  const served = scale * arrivalRate * moment;
  return {
    waitProbability,
    lossProbability,
    meanWait: served + lossProbability * timeout,
    meanWaitServed: served / (1 - lossProbability),
  };
}

/**
 * M/M/c/K: as M/M/c, but with at most `capacity` requests in the system, waiting
 * or served; further ones are turned away (Kleinrock, section 3.6). The mean wait
 * is that of those who were let in.
 */
export function mmcBounded(
  { servers, arrivalRate, serviceTime, capacity }: Queue & {
    /** At least `servers`. */
    capacity: number;
  },
): LossTheory {
  checkServers(servers, 1);
  if (!Number.isSafeInteger(capacity) || capacity < servers) {
    throw new RangeError(
      `Cannot compute M/M/c/K as 'capacity' must be an integer >= ${servers}: ` +
        `current value is ${capacity}`,
    );
  }
  const load = arrivalRate * serviceTime;
  // The weights of the states, each from the one before, over the largest so far
  // lest they overflow.
  let weight = 1;
  let sum = 1;
  let waiting = 0;
  let busy = 0;
  for (let n = 1; n <= capacity; n++) {
    weight *= load / Math.min(n, servers);
    sum += weight;
    if (n > servers) waiting += weight * (n - servers);
    if (n >= servers && n < capacity) busy += weight;
    if (weight > 1e200) {
      const over = weight;
      [weight, sum, waiting, busy] = [
        1,
        sum / over,
        waiting / over,
        busy / over,
      ];
    }
  }
  const lossProbability = weight / sum;
  const admitted = arrivalRate * (1 - lossProbability);
  const meanWaitServed = waiting / sum / admitted;
  return {
    waitProbability: busy / sum,
    lossProbability,
    meanWait: meanWaitServed * (1 - lossProbability),
    meanWaitServed,
  };
}

/** The parameters of the Universal Scalability Law. */
export interface Usl {
  /** What one does alone, per unit of time. */
  readonly lambda: number;
  /** Contention: the share of the work that cannot be done side by side. */
  readonly alpha: number;
  /** Coherency: what each pair of workers costs one another. */
  readonly beta: number;
}

/**
 * The throughput of `n` at work at once: Gunther's Universal Scalability Law
 * ("Guerrilla Capacity Planning", 2007).
 */
export function uslThroughput({ lambda, alpha, beta }: Usl, n: number): number {
  return lambda * n / (1 + alpha * (n - 1) + beta * n * (n - 1));
}

/** How many at work at once do the most; infinitely many if `beta` is 0. */
export function uslBest({ alpha, beta }: Usl): number {
  return Math.sqrt((1 - alpha) / beta);
}

function checkServers(servers: number, least: number): void {
  if (Number.isSafeInteger(servers) && servers >= least) return;
  throw new RangeError(
    `Cannot compute a queue as 'servers' must be an integer >= ${least}: ` +
      `current value is ${servers}`,
  );
}

function checkPositive(name: string, value: number): void {
  if (value > 0 && Number.isFinite(value)) return;
  throw new RangeError(
    `Cannot compute a queue as '${name}' must be > 0: current value is ${value}`,
  );
}
