/**
 * A deterministic simulation of the pool's core, after the idea of
 * FoundationDB's simulator and TigerBeetle's VOPR: one seed makes a
 * configuration, a script of what callers do and a script of what the database
 * does wrong; the real `PoolCore` runs it on virtual time, and after each step
 * every rule of the design is held against a plain model. What fails is cut
 * down to the shortest script that still fails.
 *
 * The model knows nothing of the pool's inside. It is kept by those who stand
 * around the pool: the database, which sees what is opened, checked and closed,
 * and the callers, who see what they are given.
 *
 *     deno task fuzz --seeds 1000000 --from 1
 *     deno task fuzz --script 'seed 1; acquire #1 timeout 50; …'
 *
 * @module
 */

import { resolve, toFileUrl } from "@std/path";
import type { Clock, Timer } from "./clock.ts";
import { ConnectionConfig, type ConnectionOptions } from "./config.ts";
import type { Done, Driver, Resource } from "./driver.ts";
import {
  AcquireTimeoutError,
  ConnectError,
  messageOf,
  PoolClosedError,
  TooManyWaitersError,
} from "./errors.ts";
import type { DurationSummary } from "./histogram.ts";
import { PoolCore } from "./pool_core.ts";
import { JITTERS, type RetryNotice } from "./retry.ts";
import type { Slot } from "./slot.ts";
import { VirtualClock } from "./virtual_clock.ts";
import { Waiter } from "./waiters.ts";

// Scripts: what happens, as data that can be printed, replayed and cut down.

/** What a driver is asked to do. */
export type Call = "connect" | "ping" | "reset" | "close";

/** How a call of the driver ends. */
export type Ending =
  | "succeeds"
  | "fails"
  | "fails for good"
  | "throws"
  | "hangs";

/** What happens when the pool gives up a connect. */
export type Cancel =
  | "stops it"
  | "is ignored"
  | "fails it"
  | "succeeds"
  | "throws"
  | "is missing";

/** What one call of the driver does instead of what it usually does. */
export interface Fault {
  readonly do: "fault";
  readonly call: Call;
  readonly ending: Ending;
  /** How long it takes; 0 answers before the call returns. */
  readonly afterMs: number;
  readonly cancel: Cancel;
  /** Whether it answers a second time right after the first. */
  readonly isDoubled: boolean;
}

/** What a caller does with the answer, before anything else happens. */
export type Manner =
  | "holds"
  | "returns it at once"
  | "asks again if refused"
  | "asks for another";

/**
 * What shows of a connection that breaks: nothing, so that a ping alone finds
 * out; that it is broken; or the driver tells the pool at once.
 */
export type Sign = "silently" | "visibly" | "with notice";

const SIGNS: readonly Sign[] = ["silently", "visibly", "with notice"];

/** One step of a script. */
export type Step =
  | Fault
  | {
    readonly do: "acquire";
    readonly id: number;
    readonly timeoutMs: number;
    readonly manner: Manner;
  }
  | { readonly do: "try" | "abandon" | "release"; readonly id: number }
  | { readonly do: "pass"; readonly ms: number }
  | { readonly do: "shrink"; readonly target: number }
  | {
    readonly do: "resize";
    readonly poolSize: number;
    readonly maxOverflow: number;
  }
  | { readonly do: "close"; readonly timeoutMs: number }
  | {
    readonly do: "break";
    readonly serial: number;
    readonly sign: Sign;
  }
  | { readonly do: "breakAll"; readonly sign: Sign }
  | { readonly do: "finish" };

/** What a sound database does. */
export interface Weather {
  readonly connectMs?: number;
  readonly pingMs?: number;
  readonly resetMs?: number;
  readonly closeMs?: number;
  readonly isSingleton?: boolean;
}

/** Everything that a run depends on. */
export interface Script {
  /** Where the pool's own chance comes from. */
  readonly seed: number;
  readonly options: ConnectionOptions;
  readonly weather: Weather;
  readonly steps: readonly Step[];
}

/** The rules, by the names under which they are reported. */
export type Rule =
  | "each connection is in one place"
  | "the limit holds"
  | "one holder at a time"
  | "only sound connections are handed out"
  | "first come, first served"
  | "each waiter is answered once"
  | "nobody waits beyond a deadline"
  | "nobody waits beside an idle connection"
  | "nobody waits beside a free place"
  | "nothing is closed without a reason"
  | "what is lost goes at once"
  | "each connection is closed once"
  | "one call at a time"
  | "idle connections are looked after"
  | "idle connections keep their order"
  | "the counters add up"
  | "the peak is the most in use"
  | "close ends everything"
  | "timers are few and end"
  | "nothing spins"
  | "nothing is thrown"
  | "all settles";

/** A rule that did not hold. */
export interface Violation {
  readonly rule: Rule;
  readonly message: string;
  /** The step, counted from 0, after which it showed. */
  readonly step: number;
}

/** A script that breaks a rule. */
export interface Failure {
  readonly script: Script;
  readonly violation: Violation;
}

/** The class under test: the real one, or one with a bug planted in it. */
export type CoreClass = typeof PoolCore<SimulatedConnection>;

// Chance. Each concern has a stream of its own, drawn from the one seed, so
// that one more draw in one of them does not shift the others.

type Random = () => number;

function randomStream(seed: number, concern: number): Random {
  // Mulberry32, by Tommy Ettinger, started from a scrambled pair.
  let state = Math.imul(seed ^ 0x9e3779b9, 0x85ebca6b) ^
    Math.imul(concern + 1, 0xc2b2ae35) ^ Math.floor(seed / 2 ** 32);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const OPERATIONS = 1;
const FAULTS = 2;
const CONFIGURATION = 3;
const POOL = 4;

function pick<T>(random: Random, values: readonly T[]): T {
  return values[Math.floor(random() * values.length)] as T;
}

// The second connection of acquire #3 is that of acquire #1003.
const ANOTHER = 1000;

// Making a script from a seed.

// No sum of two of these is one of `TIMEOUTS_MS`: whether an answer or the
// deadline comes first at the very same moment is nobody's promise.
const DURATIONS_MS = [0, 0, 0, 1, 3, 7, 30];
const TIMEOUTS_MS = [5, 20, 20, 100];
const ENDINGS: Record<Call, readonly Ending[]> = {
  connect: ["succeeds", "fails", "fails", "fails for good", "throws", "hangs"],
  ping: ["succeeds", "fails", "fails", "throws", "hangs"],
  reset: ["succeeds", "fails", "fails", "throws", "hangs"],
  close: ["succeeds", "fails", "throws", "hangs"],
};
const CALLS: readonly Call[] = [
  ...["connect", "connect", "ping", "ping", "reset", "close"] as const,
];
const CANCELS: readonly Cancel[] = [
  ...["stops it", "stops it", "is ignored", "is ignored"] as const,
  ...["fails it", "succeeds", "throws", "is missing"] as const,
];

function makeFault(random: Random): Fault {
  const call = pick(random, CALLS);
  const ending = pick(random, ENDINGS[call]);
  const afterMs = ending === "throws" || ending === "hangs"
    ? 0
    : pick(random, DURATIONS_MS);
  const cancel = call === "connect" ? pick(random, CANCELS) : "stops it";
  // A second answer to a ping or reset could pass for the answer to a later
  // one; no pool can tell, and the driver has promised not to.
  const isDoubled = (call === "connect" || call === "close") &&
    ending !== "throws" && random() < 0.1;
  return { do: "fault", call, ending, afterMs, cancel, isDoubled };
}

function makeOptions(random: Random): ConnectionOptions {
  const poolSize = 1 + Math.floor(random() * 4);
  return {
    database: "simulated.db",
    poolSize,
    maxOverflow: Math.floor(random() * 4),
    maxWaiting: pick(random, [0, 1, 3, 10_000, 10_000, 10_000]),
    minIdle: random() < 0.7 ? 0 : 1 + Math.floor(random() * poolSize),
    maxConnecting: pick(random, [1, 1, 2, 3]),
    timeoutMs: random() < 0.05 ? 0 : pick(random, TIMEOUTS_MS),
    probeIntervalMs: pick(random, [10, 100]),
    idleTimeoutMs: pick(random, [0, 0, 0, 20, 90]),
    maxLifetimeMs: pick(random, [0, 0, 0, 40, 200]),
    maxUses: pick(random, [0, 0, 0, 1, 3]),
    keepaliveMs: pick(random, [0, 0, 0, 15, 60]),
    validate: pick(random, ["release", "borrow", "both", "never"]),
    validationBypassMs: pick(random, [0, 10, 500]),
    measureUse: random() < 0.1,
    retry: {
      maxAttempts: pick(random, [1, 2, 3, 5]),
      baseDelayMs: pick(random, [0, 1, 10]),
      factor: pick(random, [1, 2]),
      maxDelayMs: pick(random, [5, 50]),
      jitter: pick(random, JITTERS),
    },
  };
}

function makeWeather(random: Random): Weather {
  const isSingleton = random() < 0.08;
  if (random() < 0.5) return { isSingleton };
  return {
    connectMs: pick(random, DURATIONS_MS),
    pingMs: pick(random, DURATIONS_MS),
    resetMs: pick(random, DURATIONS_MS),
    closeMs: pick(random, DURATIONS_MS),
    isSingleton,
  };
}

const MANNERS: readonly Manner[] = [
  ...["holds", "holds", "holds", "holds", "holds", "holds"] as const,
  ...["holds", "returns it at once", "asks again if refused"] as const,
  "asks for another",
];

/** What callers do, and how often. */
const ACTIONS = {
  acquire: 26,
  try: 6,
  release: 28,
  abandon: 4,
  pass: 18,
  shrink: 3,
  resize: 3,
  break: 4,
  breakAll: 2,
  finish: 4,
};

type Action = keyof typeof ACTIONS;

/**
 * Which of the actions a seed has, and how often. Each seed has its own
 * favourites and leaves some out (swarm testing, after Alex Groce), as what
 * happens only now and then hides behind what happens all the time.
 */
function makeActions(random: Random): Action[] {
  const actions: Action[] = [];
  for (const action of Object.keys(ACTIONS) as Action[]) {
    const factor = pick(random, [0.25, 1, 1, 2]);
    const isLeftOut = ACTIONS[action] < 10 && random() < 0.3;
    const count = isLeftOut ? 0 : Math.ceil(ACTIONS[action] * factor);
    for (let i = 0; i < count; i++) actions.push(action);
  }
  return actions;
}

/** The script that belongs to a seed. */
export function makeScript(seed: number): Script {
  const configuration = randomStream(seed, CONFIGURATION);
  const options = makeOptions(configuration);
  const weather = makeWeather(configuration);
  const faultRate = pick(configuration, [0, 0.1, 0.4]);
  const actions = makeActions(configuration);
  const length = 4 + Math.floor(configuration() ** 2 * 44);
  const closesAt = configuration() < 0.3
    ? Math.floor(length * (0.4 + 0.6 * configuration()))
    : -1;
  const faults = randomStream(seed, FAULTS);
  const random = randomStream(seed, OPERATIONS);
  const steps: Step[] = [];
  const ids: number[] = [];
  let acquires = 0;
  for (let i = 0; i < length; i++) {
    if (faults() < faultRate) steps.push(makeFault(faults));
    if (i === closesAt || (closesAt >= 0 && i > closesAt && random() < 0.1)) {
      steps.push({ do: "close", timeoutMs: pick(random, [0, 10, 50]) });
      continue;
    }
    const action = pick(random, actions);
    switch (action) {
      case "acquire": {
        ids.push(++acquires);
        const timeoutMs = pick(random, [0, 5, 50, 50, 1e6, 1e6, 1e6]);
        const manner = pick(random, MANNERS);
        steps.push({ do: "acquire", id: acquires, timeoutMs, manner });
        if (manner === "asks for another") ids.push(acquires + ANOTHER);
        break;
      }
      case "try":
        ids.push(++acquires);
        steps.push({ do: "try", id: acquires });
        break;
      case "release": {
        const index = Math.floor(random() * ids.length);
        const id = ids[index];
        if (id === undefined) break;
        steps.push({ do: "release", id });
        // One that stays on the list may be released twice.
        if (random() < 0.8) ids.splice(index, 1);
        break;
      }
      case "abandon":
        if (ids.length > 0) {
          steps.push({ do: "abandon", id: pick(random, ids) });
        }
        break;
      case "pass": {
        const ms = pick(random, [0, 1, 2, 5, 5, 10, 17, 17, 30, 60, 150, 2000]);
        steps.push({ do: "pass", ms });
        break;
      }
      case "shrink":
        steps.push({ do: "shrink", target: Math.floor(random() * 3) });
        break;
      case "resize":
        steps.push({
          do: "resize",
          poolSize: 1 + Math.floor(random() * 4),
          maxOverflow: Math.floor(random() * 4),
        });
        break;
      case "break": {
        const serial = 1 + Math.floor(random() * 5);
        steps.push({ do: "break", serial, sign: pick(random, SIGNS) });
        break;
      }
      case "breakAll":
        steps.push({ do: "breakAll", sign: pick(random, SIGNS) });
        break;
      case "finish":
        steps.push({ do: "finish" });
    }
  }
  return { seed, options, weather, steps };
}

// Scripts as text.

const MANNER_TEXT: Record<Manner, string> = {
  "holds": "",
  "returns it at once": ", return it at once",
  "asks again if refused": ", ask again if refused",
  "asks for another": ", ask for another",
};

/** One step in words. */
export function describeStep(step: Step): string {
  switch (step.do) {
    case "fault": {
      const { call, ending, afterMs, cancel, isDoubled } = step;
      return `next ${call} ${ending}` +
        (afterMs > 0 ? ` after ${afterMs} ms` : "") +
        (cancel !== "stops it" ? `, cancel ${cancel}` : "") +
        (isDoubled ? ", answers twice" : "");
    }
    case "acquire":
      return `acquire #${step.id} timeout ${step.timeoutMs}${
        MANNER_TEXT[step.manner]
      }`;
    case "try":
    case "abandon":
    case "release":
      return `${step.do} #${step.id}`;
    case "pass":
      return `pass ${step.ms} ms`;
    case "shrink":
      return `shrink to ${step.target}`;
    case "resize":
      return `resize to ${step.poolSize}+${step.maxOverflow}`;
    case "close":
      return `close within ${step.timeoutMs} ms`;
    case "break":
      return `break connection ${step.serial} ${step.sign}`;
    case "breakAll":
      return `break all connections ${step.sign}`;
    case "finish":
      return "finish what hangs";
  }
}

/** A script as one line, which `parseScript` reads. */
export function formatScript(
  { seed, options, weather, steps }: Script,
): string {
  return [
    `seed ${seed}`,
    `options ${JSON.stringify(options)}`,
    `weather ${JSON.stringify(weather)}`,
    ...steps.map(describeStep),
  ].join("; ");
}

const FAULT_PATTERN =
  /^next (connect|ping|reset|close) (succeeds|fails for good|fails|throws|hangs)(?: after ([\d.]+) ms)?(?:, cancel (stops it|is ignored|fails it|succeeds|throws|is missing))?(, answers twice)?$/;

const BREAK_PATTERN =
  /^break (?:connection (\d+)|all connections) (silently|visibly|with notice)$/;

function parseStep(text: string): Step {
  let match: RegExpMatchArray | null;
  const number = (group: number): number => Number(match?.[group] ?? 0);
  if ((match = text.match(FAULT_PATTERN))) {
    return {
      do: "fault",
      call: match[1] as Call,
      ending: match[2] as Ending,
      afterMs: number(3),
      cancel: (match[4] ?? "stops it") as Cancel,
      isDoubled: match[5] !== undefined,
    };
  }
  if ((match = text.match(/^acquire #(\d+) timeout ([\d.e+]+)(, .*)?$/))) {
    const manner = (Object.keys(MANNER_TEXT) as Manner[])
      .find((manner) => MANNER_TEXT[manner] === (match?.[3] ?? ""));
    if (manner !== undefined) {
      return { do: "acquire", id: number(1), timeoutMs: number(2), manner };
    }
  }
  if ((match = text.match(/^(try|abandon|release) #(\d+)$/))) {
    return { do: match[1] as "try" | "abandon" | "release", id: number(2) };
  }
  if ((match = text.match(/^pass ([\d.]+) ms$/))) {
    return { do: "pass", ms: number(1) };
  }
  if ((match = text.match(/^shrink to (\d+)$/))) {
    return { do: "shrink", target: number(1) };
  }
  if ((match = text.match(/^resize to (\d+)\+(\d+)$/))) {
    return { do: "resize", poolSize: number(1), maxOverflow: number(2) };
  }
  if ((match = text.match(/^close within ([\d.]+) ms$/))) {
    return { do: "close", timeoutMs: number(1) };
  }
  if ((match = text.match(BREAK_PATTERN))) {
    const sign = match[2] as Sign;
    return match[1] === undefined
      ? { do: "breakAll", sign }
      : { do: "break", serial: number(1), sign };
  }
  if (text === "finish what hangs") return { do: "finish" };
  throw new SyntaxError(`Cannot read this step of the script: ${text}`);
}

/**
 * Reads a script: parts that end with a semicolon or a line. The parts `seed`,
 * `options` and `weather` may be left out.
 *
 * @throws {SyntaxError} naming the part that it cannot read.
 */
export function parseScript(text: string): Script {
  let seed = 1;
  let options: ConnectionOptions = {};
  let weather: Weather = {};
  const steps: Step[] = [];
  for (const part of text.split(/[;\n]/).map((part) => part.trim())) {
    const [word = "", rest = ""] = part.split(/ (.*)/);
    if (part === "") continue;
    if (word === "seed") seed = Number(rest);
    else if (word === "options") options = JSON.parse(rest);
    else if (word === "weather") weather = JSON.parse(rest);
    else steps.push(parseStep(part));
  }
  return { seed, options, weather, steps };
}

// The world around the pool. What it keeps is the model.

/** The pool's clock, which counts the pool's timers and those that hold on. */
class PoolClock implements Clock {
  readonly #clock: VirtualClock;
  /** Timers that are set. */
  live = 0;
  /** Those of them that would keep the program alive. */
  referenced = 0;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  coarseNow(): number {
    return this.#clock.coarseNow();
  }

  setTimer(callback: () => void, delayMs: number): Timer {
    this.live++;
    this.referenced++;
    let isLive = true;
    let isReferenced = true;
    const refer = (value: boolean): void => {
      if (!isLive || isReferenced === value) return;
      isReferenced = value;
      this.referenced += value ? 1 : -1;
    };
    const end = (): void => {
      refer(false);
      if (isLive) this.live--;
      isLive = false;
    };
    const timer = this.#clock.setTimer(() => {
      end();
      callback();
    }, delayMs);
    return {
      clear: () => {
        end();
        timer.clear();
      },
      unref: () => refer(false),
      ref: () => refer(true),
    };
  }
}

class PermanentError extends Error {}

/** A call of the driver that has not ended. */
interface PendingCall {
  readonly hangs: boolean;
  isOver: boolean;
  end(): void;
}

/** A connect, as the database sees it. */
class Attempt {
  readonly beganMs: number;
  readonly dueMs: number;
  /** Whether the driver is told when the pool gives it up. */
  readonly canCancel: boolean;
  /** Whether the pool counts on it no more: it has ended, or was given up. */
  isOver = false;

  constructor(beganMs: number, dueMs: number, canCancel: boolean) {
    this.beganMs = beganMs;
    this.dueMs = dueMs;
    this.canCancel = canCancel;
  }
}

/** A connection, as the database sees it. */
export class SimulatedConnection implements Resource {
  readonly #world: World;
  readonly serial: number;
  isBroken = false;
  /** Whether pings fail although nothing shows. */
  isDead = false;
  /** Whether it has failed a check, or is older than one that failed a ping. */
  isCondemned = false;
  /** What the pool is having done to it. */
  call: "ping" | "reset" | undefined;
  /** When it came back or was taken for a check. */
  checkSinceMs = 0;
  closing: "no" | "under way" | "done" = "no";
  /** Whether it came after its connect was given up. */
  isLate = false;
  holder: Caller | undefined;
  uses = 0;
  openedMs = 0;
  heldSinceMs = 0;
  /** When it was opened or last came back. */
  usedMs = 0;
  /** When it was last known to work. */
  provenMs = 0;
  /** Whether it was reset since its last use. */
  isClean = true;
  /** Whether it answered a ping since its last reset. */
  isPinged = true;
  /** In which order it came to rest; 0 while that is not known. */
  restOrder = 0;

  /** @param lost tells the pool that it is gone. */
  constructor(
    world: World,
    serial: number,
    readonly lost: (error: unknown) => void,
  ) {
    this.#world = world;
    this.serial = serial;
  }

  ping(done: Done): void {
    this.#world.check(this, "ping", done);
  }

  reset(done: Done): void {
    this.#world.check(this, "reset", done);
  }

  close(done: Done): void {
    this.#world.close(this, done);
  }
}

type CallerStatus =
  | "waiting"
  | "holding"
  | "released"
  | "timed out"
  | "aborted"
  | "refused";

/** Somebody who wants a connection, or has one. */
class Caller extends Waiter<SimulatedConnection> {
  readonly #world: World;
  readonly id: number;
  readonly manner: Manner;
  readonly waitMs: number;
  readonly beganMs: number;
  status: CallerStatus = "waiting";
  slot: Slot<SimulatedConnection> | undefined;

  constructor(
    world: World,
    id: number,
    manner: Manner,
    waitMs: number,
    beganMs: number,
  ) {
    super();
    this.#world = world;
    this.id = id;
    this.manner = manner;
    this.waitMs = waitMs;
    this.beganMs = beganMs;
  }

  served(slot: Slot<SimulatedConnection>): void {
    this.#world.served(this, slot);
  }

  failed(error: Error): void {
    this.#world.failed(this, error);
  }
}

// Sums of fractions may be off by the last bits.
const EPSILON_MS = 1e-6;
const CLOSE_GRACE_MS = 1000;
const LIFETIME_JITTER = 0.1;
// Calls of the driver at one moment, and timers in one pass, beyond which the
// pool is taken to spin.
const MOST_CALLS = 300;
const MOST_TIMERS = 20_000;
// One timer for each of the core's two queues of deadlines.
const MOST_POOL_TIMERS = 2;

class World implements Driver<SimulatedConnection> {
  readonly isSingleton: boolean;
  readonly clock = new VirtualClock();
  readonly poolClock = new PoolClock(this.clock);
  readonly core: PoolCore<SimulatedConnection>;
  readonly config: ConnectionConfig;
  #weather: Weather;
  #faults: Record<Call, Fault[]> = {
    connect: [],
    ping: [],
    reset: [],
    close: [],
  };
  #pending: PendingCall[] = [];
  #attempts: Attempt[] = [];
  #serials = 0;
  #restOrders = 0;

  /** Connections that the pool has and has not begun to close. */
  readonly #open: SimulatedConnection[] = [];
  /** All that were ever opened. */
  readonly #all: SimulatedConnection[] = [];
  #inUse = 0;
  #closing = 0;
  readonly #queue: Caller[] = [];
  readonly #callers = new Map<number, Caller>();

  #limit: number;
  #poolSize: number;
  #maxOverflow: number;
  #lastTotal = 0;
  /** The last connection that was opened before a shrink, while it lasts. */
  #shrinksUpTo = 0;
  #hasShrunk = false;
  /** Whether a connect has failed since the last one that succeeded. */
  #hasFailed = false;
  /** Those of them that may be mended by another attempt. */
  #failuresInARow = 0;
  #failingSinceMs = 0;
  #lastFailureMs = -Infinity;
  /** Whether the last failure is one that no repetition mends. */
  #isPermanent = false;
  /** No connect may begin before, unless somebody asks after such a failure. */
  #nextConnectMs = -Infinity;
  /** Those who waited when the last hope of a connection went. */
  #hopeless: readonly Caller[] = [];
  #hopelessMs = -Infinity;
  /** When the failing had begun by then. */
  #hopelessSinceMs = 0;
  /** Whether the pool must have seen it so. */
  #isHopeless = false;
  /** Whether it went twice at the same moment, so that either may be told of. */
  #isHopelessAgain = false;
  /** Whether the one who waits only tries. */
  #isTrying = false;
  /** Whether somebody has asked since the last failure. */
  #hasBeenAsked = false;
  /**
   * Whether a connect may be given up without the driver being told. The model
   * then learns of it too late to follow each attempt.
   */
  #isBlind = false;
  #retries = 0;
  #callsNow = 0;
  #callsMs = 0;

  #isClosed = false;
  #closeDueMs = Infinity;
  #closeCalls = 0;
  #closeAnswers = 0;
  #forced = 0;
  #closeFailures = 0;
  #report: { forced: number; unfinished: number } | undefined;

  #created = 0;
  #acquired = 0;
  #reused = 0;
  #shut = 0;
  #released = 0;
  #waitedMs = 0;
  #heldMs = 0;
  #connectedMs = 0;
  #timeouts = 0;
  #rejected = 0;
  #aborted = 0;
  #connectFailures = 0;
  #peak = 0;
  /** What the pool's events have told. */
  readonly #told = {
    created: 0,
    connectFailures: 0,
    acquired: 0,
    released: 0,
    discarded: 0,
    retired: 0,
    closeFailures: 0,
    timeouts: 0,
    rejected: 0,
    aborted: 0,
    closed: 0,
    retries: 0,
  };

  #step = 0;
  violation: Violation | undefined;

  constructor(script: Script, core: CoreClass) {
    const { options, weather } = script;
    this.config = new ConnectionConfig({
      database: "simulated.db",
      ...options,
    });
    this.#weather = weather;
    this.isSingleton = weather.isSingleton ?? false;
    this.#poolSize = this.config.poolSize;
    this.#maxOverflow = this.config.maxOverflow;
    this.#limit = this.#limitNow();
    this.core = new core(this.config, {
      driver: this,
      clock: this.poolClock,
      random: randomStream(script.seed, POOL),
      events: {
        connect: () => this.#told.created++,
        connectRetry: (notice) => this.#retryTold(notice),
        connectFail: () => this.#told.connectFailures++,
        acquire: () => this.#told.acquired++,
        release: () => this.#told.released++,
        discard: () => this.#told.discarded++,
        retire: () => this.#told.retired++,
        closeFail: () => this.#told.closeFailures++,
        timeout: () => this.#told.timeouts++,
        reject: () => this.#told.rejected++,
        abort: () => this.#told.aborted++,
        close: () => this.#told.closed++,
      },
    });
  }

  #limitNow(): number {
    return this.isSingleton ? 1 : this.#poolSize + this.#maxOverflow;
  }

  #violate(rule: Rule, message: string): void {
    // The first one counts; what follows it may follow from it.
    this.violation ??= { rule, message, step: this.#step };
  }

  // As the database.

  connect(
    done: (error: unknown, connection?: SimulatedConnection) => void,
    lost: (error: unknown) => void,
  ): (() => void) | void {
    const nowMs = this.clock.now();
    const fault = this.#next("connect");
    const attempt = new Attempt(
      nowMs,
      nowMs + this.config.timeoutMs,
      fault.cancel !== "is missing",
    );
    if (this.#isClosed) {
      this.#violate("close ends everything", "connects although it is closed");
    }
    const isAskedFor = this.#isPermanent && this.#hasBeenAsked;
    if (
      !this.#isBlind && !isAskedFor && nowMs < this.#nextConnectMs - EPSILON_MS
    ) {
      this.#violate(
        "nothing spins",
        `connects ${this.#nextConnectMs - nowMs} ms before its time`,
      );
    }
    this.#expireAttempts();
    const total = this.#open.length + this.#countOpening();
    if (total >= this.#limit) {
      this.#violate(
        "the limit holds",
        `connects with ${total} of ${this.#limit} places taken`,
      );
    }
    this.#attempts.push(attempt);
    if (this.#failuresInARow === 0) this.#failingSinceMs = nowMs;
    // A database that fails is tried by one connect at a time.
    const most = this.#failuresInARow > 0 && !this.#isBlind
      ? 1
      : this.config.maxConnecting;
    if (this.#countOpening() > most) {
      this.#violate(
        "the limit holds",
        `more than ${most} connects under way`,
      );
    }
    if (fault.ending === "throws") {
      this.#connectFailed(attempt);
      throw new Error("thrown by connect");
    }
    const end = (isGivenUp: boolean): void => {
      const error = fault.ending === "fails for good"
        ? new PermanentError("connect failed for good")
        : new Error("connect failed");
      if (fault.ending.startsWith("fails")) {
        const isPermanent = error instanceof PermanentError;
        if (!isGivenUp) this.#connectFailed(attempt, isPermanent);
        for (let i = fault.isDoubled ? 2 : 1; i > 0; i--) {
          this.#guard(() => done(error));
        }
        return;
      }
      attempt.isOver = true;
      const connection = new SimulatedConnection(
        this,
        ++this.#serials,
        lost,
      );
      connection.openedMs = connection.usedMs = connection.provenMs = this
        .clock.now();
      connection.restOrder = ++this.#restOrders;
      this.#all.push(connection);
      connection.isLate = isGivenUp;
      if (!isGivenUp) {
        this.#created++;
        this.#connectedMs += this.clock.now() - attempt.beganMs;
        this.#hasFailed = false;
        this.#isPermanent = false;
        this.#failuresInARow = 0;
        this.#nextConnectMs = -Infinity;
        this.#open.push(connection);
      }
      for (let i = fault.isDoubled ? 2 : 1; i > 0; i--) {
        this.#guard(() => done(undefined, connection));
      }
      if (isGivenUp && connection.closing === "no") {
        this.#violate(
          "each connection is closed once",
          "a connection that came after its connect was given up stays open",
        );
      }
    };
    let hasReturned = false;
    const call = this.#begin(fault, () => {
      if (hasReturned) this.#expireAttempts();
      end(attempt.isOver);
    });
    hasReturned = true;
    if (fault.cancel === "is missing") {
      if (!attempt.isOver) this.#isBlind = true;
      return;
    }
    return () => {
      if (attempt.isOver) {
        this.#violate(
          "one call at a time",
          "gives up a connect that has ended",
        );
        return;
      }
      if (
        !this.#isClosed &&
        Math.abs(this.clock.now() - attempt.dueMs) > EPSILON_MS
      ) {
        this.#violate(
          "nobody waits beyond a deadline",
          `gave up a connect after ${this.clock.now() - attempt.beganMs} ms`,
        );
      }
      if (fault.cancel === "succeeds" || fault.cancel === "fails it") {
        call.isOver = true;
        if (fault.cancel === "succeeds" && !fault.ending.startsWith("fails")) {
          return end(false);
        }
        this.#connectFailed(attempt);
        return done(new Error("connect was cancelled"));
      }
      this.#giveUp(attempt, this.clock.now());
      if (fault.cancel === "stops it") call.isOver = true;
      if (fault.cancel === "throws") throw new Error("thrown by cancel");
    };
  }

  isTransient(error: unknown): boolean {
    return !(error instanceof PermanentError);
  }

  /** A ping or reset. */
  check(
    connection: SimulatedConnection,
    kind: "ping" | "reset",
    done: Done,
  ): void {
    const fault = this.#next(kind);
    if (connection.closing !== "no") {
      this.#violate("one call at a time", `${kind} after close`);
    }
    if (connection.call !== undefined) {
      this.#violate("one call at a time", `${kind} during ${connection.call}`);
    }
    if (connection.holder !== undefined) {
      this.#violate("one holder at a time", `${kind} while it is held`);
    }
    const isOfRelease = !connection.isClean || !connection.isPinged;
    // A ping of an idle connection is for somebody who waits, or for nobody.
    const isOfRest = !isOfRelease && this.#queue.length === 0;
    if (!isOfRelease) connection.checkSinceMs = this.clock.now();
    if (isOfRest) this.#checkRest(connection);
    const { keepaliveMs, idleTimeoutMs } = this.config;
    if (
      !isOfRelease && keepaliveMs + idleTimeoutMs === 0 &&
      (!this.#pingsOnBorrow || this.#isFresh(connection) ||
        this.#queue.length <= this.#countPinging())
    ) {
      this.#violate("one call at a time", `a ${kind} that nobody needs`);
    }
    if (fault.ending === "throws") {
      connection.isCondemned = true;
      if (kind === "ping") this.#condemnOlder(connection);
      throw new Error(`thrown by ${kind}`);
    }
    connection.call = kind;
    this.#begin(fault, () => {
      const hasFailed = fault.ending === "fails" || connection.isBroken ||
        (kind === "ping" && connection.isDead);
      connection.call = undefined;
      if (hasFailed && connection.closing === "no") {
        connection.isCondemned = true;
        if (kind === "ping") this.#condemnOlder(connection);
      } else {
        connection.provenMs = this.clock.now();
        if (kind === "reset") {
          connection.isClean = true;
          connection.isPinged = !this.#pingsOnRelease;
        } else connection.isPinged = true;
        // Who is pinged for nobody stays where it was.
        if (isOfRelease) connection.restOrder = ++this.#restOrders;
        else if (!isOfRest) connection.restOrder = 0;
      }
      const error = hasFailed ? new Error(`${kind} failed`) : undefined;
      this.#guard(() => done(error));
    });
  }

  #countPinging(): number {
    let count = 0;
    for (const { call } of this.#open) if (call === "ping") count++;
    return count;
  }

  /** What rests beyond its time is pinged only if it is needed. */
  #checkRest(connection: SimulatedConnection): void {
    const { idleTimeoutMs, minIdle } = this.config;
    const restedMs = this.clock.now() - connection.usedMs;
    if (idleTimeoutMs === 0 || restedMs < idleTimeoutMs - EPSILON_MS) return;
    let idle = 0;
    for (const other of this.#open) if (this.#isIdle(other)) idle++;
    if (idle > minIdle) {
      this.#violate(
        "idle connections are looked after",
        `connection ${connection.serial} is kept after ${restedMs} ms of rest, ` +
          `as one of ${idle}`,
      );
    }
  }

  close(connection: SimulatedConnection, done: Done): void {
    const fault = this.#next("close");
    const index = this.#open.indexOf(connection);
    if (connection.closing !== "no") {
      // A driver that gives the same connection twice, and too late, gets it
      // back twice: to close once more is harmless.
      if (!connection.isLate) {
        this.#violate(
          "each connection is closed once",
          `connection ${connection.serial} is closed again`,
        );
      }
      return done();
    }
    if (index >= 0) {
      this.#checkReasonToClose(connection);
      this.#open.splice(index, 1);
      this.#shut++;
      this.#closing++;
    }
    connection.closing = "under way";
    const end = (): void => {
      if (connection.closing === "under way" && index >= 0) this.#closing--;
      connection.closing = "done";
    };
    if (fault.ending === "throws") {
      if (index >= 0) this.#closeFailures++;
      end();
      throw new Error("thrown by close");
    }
    this.#begin(fault, () => {
      if (fault.ending === "fails" && index >= 0) this.#closeFailures++;
      end();
      for (let i = fault.isDoubled ? 2 : 1; i > 0; i--) {
        this.#guard(() =>
          done(fault.ending === "fails" ? new Error("close failed") : undefined)
        );
      }
    });
  }

  #next(call: Call): Fault {
    const nowMs = this.clock.now();
    if (nowMs !== this.#callsMs) this.#callsNow = 0;
    this.#callsMs = nowMs;
    const fault = this.#faults[call].shift();
    if (++this.#callsNow > MOST_CALLS) {
      this.#violate(
        "nothing spins",
        `${MOST_CALLS} calls of the driver at the same moment`,
      );
      // What never ends, ends the spinning.
      return { ...SOUND, call, ending: "hangs" };
    }
    if (fault !== undefined) return fault;
    const afterMs = call === "connect"
      ? this.#weather.connectMs
      : call === "ping"
      ? this.#weather.pingMs
      : call === "reset"
      ? this.#weather.resetMs
      : this.#weather.closeMs;
    return afterMs ? { ...SOUND, call, afterMs } : SOUND;
  }

  /** Lets a call end as its fault says: at once, later or, for now, never. */
  #begin(fault: Fault, end: () => void): PendingCall {
    const call: PendingCall = {
      hangs: fault.ending === "hangs",
      isOver: false,
      end: () => {
        if (call.isOver) return;
        call.isOver = true;
        end();
      },
    };
    if (call.hangs) this.#pending.push(call);
    else if (fault.afterMs === 0) call.end();
    else this.clock.setTimer(() => call.end(), fault.afterMs);
    return call;
  }

  #connectFailed(attempt: Attempt, isPermanent = false): void {
    if (attempt.isOver) return;
    this.#giveUp(attempt, this.clock.now(), isPermanent);
  }

  #giveUp(attempt: Attempt, atMs: number, isPermanent = false): void {
    attempt.isOver = true;
    if (this.#isClosed) return;
    this.#connectFailures++;
    this.#hasFailed = true;
    const failures = this.#failuresInARow + 1;
    // Whether to try again at once what will not work is up to the callers.
    this.#failuresInARow = isPermanent ? 0 : failures;
    // One that is found out late does not hide one that came after it.
    if (atMs < this.#lastFailureMs) return;
    this.#lastFailureMs = atMs;
    this.#isPermanent = isPermanent;
    this.#hasBeenAsked = false;
    const { retry, probeIntervalMs } = this.config;
    const isExhausted = isPermanent || failures >= retry.maxAttempts;
    const { jitter, factor, baseDelayMs, maxDelayMs } = retry;
    const delayMs = baseDelayMs === 0
      ? 0
      : Math.min(maxDelayMs, baseDelayMs * factor ** (failures - 1));
    this.#nextConnectMs = atMs +
      (isExhausted
        ? probeIntervalMs / 2
        : jitter === "none"
        ? delayMs
        : jitter === "equal"
        ? delayMs / 2
        : jitter === "decorrelated"
        ? Math.min(baseDelayMs, maxDelayMs)
        : 0);
    if (atMs !== this.clock.now()) return;
    if (!isExhausted) {
      // Whoever only tries may have been served by then.
      if (this.#queue.length > 0 && !this.#isTrying) this.#retries++;
      return;
    }
    // While others hold connections that may come back, the queue has hope.
    const hasHope = !isPermanent &&
      this.#open.some((connection) =>
        connection.holder !== undefined || connection.call !== undefined
      );
    if (hasHope) return;
    this.#isHopelessAgain = this.#hopelessMs === atMs;
    this.#hopelessMs = atMs;
    this.#hopelessSinceMs = this.#failingSinceMs;
    this.#hopeless = [...this.#queue];
    // The pool may count on what it is about to throw away.
    this.#isHopeless = isPermanent || this.#open.length === 0;
  }

  #retryTold({ attempt, maxAttempts }: RetryNotice): void {
    this.#expireAttempts();
    this.#told.retries++;
    if (this.#isBlind) return;
    if (
      attempt !== this.#failuresInARow || attempt >= maxAttempts ||
      maxAttempts !== this.config.retry.maxAttempts || this.#queue.length === 0
    ) {
      this.#violate(
        "the counters add up",
        `tells of failure ${attempt} of ${maxAttempts} instead of ` +
          `${this.#failuresInARow}, with ${this.#queue.length} waiting`,
      );
    }
  }

  /** Gives up connects that the pool could not tell the driver to give up. */
  #expireAttempts(): void {
    const nowMs = this.clock.now();
    for (const attempt of this.#attempts) {
      if (
        !attempt.isOver && !attempt.canCancel &&
        attempt.dueMs <= nowMs + EPSILON_MS
      ) this.#giveUp(attempt, attempt.dueMs);
    }
  }

  #countOpening(): number {
    let count = 0;
    for (const attempt of this.#attempts) if (!attempt.isOver) count++;
    return count;
  }

  #condemnOlder(connection: SimulatedConnection): void {
    // Whatever broke it, such as a restart of the server, broke the older ones.
    for (const other of this.#open) {
      if (other.serial < connection.serial) other.isCondemned = true;
    }
  }

  #checkReasonToClose(connection: SimulatedConnection): void {
    const nowMs = this.clock.now();
    const isForced = this.#isClosed && nowMs >= this.#closeDueMs - EPSILON_MS;
    const isOverdue = this.#isOverdue(connection);
    if (connection.holder !== undefined) {
      if (!isForced) {
        this.#violate(
          "one holder at a time",
          `closes connection ${connection.serial}, which #${connection.holder.id} holds`,
        );
      }
      connection.holder.status = "released";
      connection.holder = undefined;
      this.#inUse--;
      this.#forced++;
    } else if (connection.call !== undefined) {
      if (isForced) this.#forced++;
      else if (!isOverdue) {
        this.#violate(
          "one call at a time",
          `closes connection ${connection.serial} during ${connection.call}`,
        );
      }
    }
    if (this.#isClosed || isOverdue) return;
    const isIdle = connection.call === undefined;
    let idle = 0;
    let hasOverdueYounger = false;
    for (const other of this.#open) {
      if (other !== connection && this.#isIdle(other)) idle++;
      if (other.serial > connection.serial && this.#isOverdue(other)) {
        hasOverdueYounger = true;
      }
    }
    if (connection.serial <= this.#shrinksUpTo) {
      for (const other of this.#open) {
        if (
          isIdle && this.#isIdle(other) && other.restOrder > 0 &&
          other.restOrder < connection.restOrder
        ) {
          this.#violate(
            "idle connections keep their order",
            `closes connection ${connection.serial} before ${other.serial}, ` +
              "which came to rest earlier",
          );
        }
      }
      return;
    }
    const { maxUses, maxLifetimeMs, idleTimeoutMs, minIdle } = this.config;
    const ageMs = nowMs - connection.openedMs + EPSILON_MS;
    if (connection.isCondemned || connection.isBroken || hasOverdueYounger) {
      return;
    }
    if (!this.isSingleton) {
      if (maxUses > 0 && connection.uses >= maxUses) return;
      if (maxLifetimeMs > 0 && ageMs >= maxLifetimeMs * (1 - LIFETIME_JITTER)) {
        return;
      }
      if (
        idleTimeoutMs > 0 && idle >= minIdle &&
        nowMs - connection.usedMs >= idleTimeoutMs - EPSILON_MS
      ) return;
    }
    if (this.#open.length > this.#limit) return;
    if (idle >= (this.isSingleton ? 1 : this.#poolSize)) return;
    this.#violate(
      "nothing is closed without a reason",
      `closes connection ${connection.serial}, which is sound and has a place`,
    );
  }

  #isOverdue(connection: SimulatedConnection): boolean {
    return connection.call !== undefined &&
      this.clock.now() - connection.checkSinceMs >=
        this.config.timeoutMs - EPSILON_MS;
  }

  #isIdle(connection: SimulatedConnection): boolean {
    return connection.holder === undefined && connection.call === undefined;
  }

  get #pingsOnRelease(): boolean {
    const { validate } = this.config;
    return validate === "release" || validate === "both";
  }

  get #pingsOnBorrow(): boolean {
    const { validate } = this.config;
    return validate === "borrow" || validate === "both";
  }

  /** Whether a connection could be handed out without a check. */
  #isReady(connection: SimulatedConnection): boolean {
    return this.#isIdle(connection) && !connection.isBroken &&
      (!this.#pingsOnBorrow || this.#isFresh(connection));
  }

  #isFresh(connection: SimulatedConnection): boolean {
    return this.clock.now() - connection.provenMs <
      this.config.validationBypassMs;
  }

  /**
   * Whether a connection must be handed out to whoever waits. With pings on the
   * way out only the one that came to rest last counts: one further down that
   * was pinged in its rest need not be looked for.
   */
  #hasAtHand(): boolean {
    let last: SimulatedConnection | undefined;
    for (const connection of this.#open) {
      if (!this.#isIdle(connection) || connection.isBroken) continue;
      if (!this.#pingsOnBorrow) return true;
      if (connection.restOrder === 0) return false;
      if (connection.restOrder > (last?.restOrder ?? 0)) last = connection;
    }
    return last !== undefined && this.#isReady(last);
  }

  // As the callers.

  served(caller: Caller, slot: Slot<SimulatedConnection>): void {
    if (caller.status !== "waiting") {
      this.#violate(
        "each waiter is answered once",
        `#${caller.id}, which has ${caller.status}, is handed a connection`,
      );
    }
    if (this.#queue[0] !== caller) {
      this.#violate(
        "first come, first served",
        `#${caller.id} is served before #${this.#queue[0]?.id}`,
      );
    }
    const index = this.#queue.indexOf(caller);
    if (index >= 0) this.#queue.splice(index, 1);
    if (this.clock.now() > caller.beganMs + caller.waitMs + EPSILON_MS) {
      this.#violate(
        "nobody waits beyond a deadline",
        `#${caller.id} is served after its deadline`,
      );
    }
    this.#handOver(caller, slot);
    this.#goOn(caller);
  }

  /** What a caller does in the very call that hands it a connection. */
  #goOn(caller: Caller): void {
    if (caller.manner === "returns it at once") this.#release(caller);
    else if (caller.manner === "asks for another") {
      this.#acquire(caller.id + ANOTHER, caller.waitMs, "holds");
    }
  }

  failed(caller: Caller, error: Error): void {
    if (caller.status !== "waiting") {
      this.#violate(
        "each waiter is answered once",
        `#${caller.id}, which has ${caller.status}, is told: ${error.message}`,
      );
    }
    const index = this.#queue.indexOf(caller);
    if (index >= 0) this.#queue.splice(index, 1);
    caller.status = "refused";
    const nowMs = this.clock.now();
    if (error instanceof AcquireTimeoutError) {
      caller.status = "timed out";
      this.#timeouts++;
      const hasFailed = this.#failuresInARow > 0;
      if (
        error.timeoutMs !== caller.waitMs ||
        ((error.cause !== undefined) !== hasFailed && !this.#isBlind)
      ) {
        this.#violate("nobody waits beyond a deadline", error.message);
      }
      const dueMs = caller.beganMs + caller.waitMs;
      if (Math.abs(nowMs - dueMs) > EPSILON_MS) {
        this.#violate(
          "nobody waits beyond a deadline",
          `#${caller.id} times out after ${nowMs - caller.beganMs} ms ` +
            `instead of ${caller.waitMs}`,
        );
      }
      if (index === 0 && this.#hasAtHand()) {
        this.#violate(
          "nobody waits beside an idle connection",
          `#${caller.id} times out beside one`,
        );
      }
    } else if (error instanceof TooManyWaitersError) {
      this.#rejected++;
      const inVain = this.#countInVain();
      if (inVain < this.config.maxWaiting) {
        this.#violate(
          "each waiter is answered once",
          `#${caller.id} is turned away with ${inVain} waiting`,
        );
      }
    } else if (error instanceof PoolClosedError) {
      if (!this.#isClosed) {
        this.#violate(
          "each waiter is answered once",
          `#${caller.id} is told that the pool is closed`,
        );
      }
    } else if (error instanceof ConnectError) {
      this.#expireAttempts();
      const { retry } = this.config;
      const delays = Math.min(error.attempts, retry.maxAttempts) - 1;
      if (
        this.#isBlind
          ? this.#connectFailures === 0
          : this.#hopelessMs !== nowMs || !this.#hopeless.includes(caller)
      ) {
        this.#violate(
          "each waiter is answered once",
          `#${caller.id} is told to give up hope: ${error.message}`,
        );
      } else if (
        !this.#isBlind && !this.#isHopelessAgain &&
        (error.delaysMs.length !== delays ||
          Math.abs(error.elapsedMs - (nowMs - this.#hopelessSinceMs)) >
            EPSILON_MS)
      ) {
        this.#violate(
          "the counters add up",
          `tells of ${error.attempts} attempts in ${error.elapsedMs} ms and ` +
            `${error.delaysMs.length} delays instead of ` +
            `${nowMs - this.#hopelessSinceMs} ms and ${delays}`,
        );
      }
    } else {
      this.#violate("nothing is thrown", `#${caller.id} is told: ${error}`);
    }
    if (caller.manner === "asks again if refused") {
      this.#acquire(caller.id, caller.waitMs, "holds");
    }
  }

  /** How many wait; those whom connections that nobody holds will serve do not count. */
  #countInVain(): number {
    return this.#queue.length - (this.#limit - this.#inUse);
  }

  #handOver(caller: Caller, slot: Slot<SimulatedConnection>): void {
    const { connection } = slot;
    const { config } = this;
    const nowMs = this.clock.now();
    if (connection.holder !== undefined || slot.state !== "inUse") {
      this.#violate(
        "one holder at a time",
        `#${caller.id} is handed connection ${connection.serial}, ` +
          `which is ${slot.state} and held by #${connection.holder?.id}`,
      );
      return;
    }
    let flaw: string | undefined;
    if (connection.closing !== "no") flaw = "is closed";
    else if (connection.call) flaw = `has a ${connection.call} under way`;
    else if (connection.isBroken) flaw = "is known to be broken";
    else if (connection.isCondemned) flaw = "has failed a check";
    else if (!connection.isClean) flaw = "was not reset";
    else if (!connection.isPinged) flaw = "was not pinged on its return";
    else if (
      this.#pingsOnBorrow && connection.provenMs < nowMs &&
      !this.#isReady(connection)
    ) flaw = "was not pinged on its way out";
    else if (
      !this.isSingleton && config.maxUses > 0 &&
      connection.uses >= config.maxUses
    ) flaw = "is used up";
    else if (
      !this.isSingleton && config.maxLifetimeMs > 0 &&
      nowMs - connection.openedMs > config.maxLifetimeMs + EPSILON_MS
    ) flaw = "is too old";
    else if (this.#isClosed) flaw = "belongs to a closed pool";
    else if (this.#open.length > this.#limit) flaw = "is beyond the limit";
    if (flaw !== undefined) {
      this.#violate(
        "only sound connections are handed out",
        `#${caller.id} is handed connection ${connection.serial}, which ${flaw}`,
      );
    }
    caller.status = "holding";
    caller.slot = slot;
    connection.holder = caller;
    connection.isClean = false;
    this.#acquired++;
    this.#waitedMs += nowMs - caller.beganMs;
    connection.heldSinceMs = nowMs;
    if (connection.uses++ > 0) this.#reused++;
    if (++this.#inUse > this.#peak) this.#peak = this.#inUse;
  }

  #acquire(id: number, timeoutMs: number, manner: Manner): void {
    const caller = new Caller(this, id, manner, timeoutMs, this.clock.now());
    this.#callers.set(id, caller);
    let latest: SimulatedConnection | undefined;
    let hasUnknown = false;
    for (const other of this.#open) {
      if (!this.#isIdle(other)) continue;
      if (other.restOrder === 0) hasUnknown = true;
      if (other.restOrder > (latest?.restOrder ?? 0)) latest = other;
    }
    // The way of `ConnectionPool.acquire`.
    const slot = this.core.take();
    if (slot === undefined) {
      const inVain = this.#countInVain();
      this.#hasBeenAsked = true;
      this.#queue.push(caller);
      this.core.enqueue(caller, timeoutMs);
      if (caller.status === "waiting" && timeoutMs <= 0) {
        this.#violate("nobody waits beyond a deadline", `#${id} has to wait`);
      }
      if (caller.status === "waiting" && inVain >= this.config.maxWaiting) {
        this.#violate(
          "each waiter is answered once",
          `#${id} may wait although ${inVain} wait already`,
        );
      }
      return;
    }
    if (this.#queue.length > 0) {
      this.#violate(
        "first come, first served",
        `#${id} overtakes #${this.#queue[0]?.id}`,
      );
    }
    // The one used last goes out first, so that those beyond the need can rest.
    const { serial } = slot.connection;
    if (!hasUnknown && latest !== slot.connection) {
      this.#violate(
        "idle connections keep their order",
        `hands out connection ${serial} before ${latest?.serial}, ` +
          "which came to rest later",
      );
    }
    this.#handOver(caller, slot);
    this.#goOn(caller);
  }

  #tryTake(id: number): void {
    const caller = new Caller(this, id, "holds", 0, this.clock.now());
    this.#callers.set(id, caller);
    const isFirst = this.#queue.length === 0;
    this.#hasBeenAsked = true;
    const hadAtHand = isFirst && !this.#isClosed && this.#hasAtHand();
    this.#queue.push(caller);
    this.#isTrying = true;
    this.core.tryTake(caller);
    this.#isTrying = false;
    const { status } = caller;
    if (status === "waiting") {
      this.#queue.splice(this.#queue.indexOf(caller), 1);
      caller.status = "refused";
    }
    if (hadAtHand && status !== "holding") {
      this.#violate(
        "nobody waits beside an idle connection",
        `#${id} is refused beside one`,
      );
    }
  }

  #release(caller: Caller): void {
    const { slot } = caller;
    if (slot === undefined) return;
    const { connection } = slot;
    // Loans are told apart by `PooledConnection`: what somebody else holds by
    // now never reaches the core.
    if (connection.holder !== undefined && connection.holder !== caller) return;
    if (connection.holder === caller) {
      caller.status = "released";
      connection.holder = undefined;
      this.#inUse--;
      this.#released++;
      this.#heldMs += this.clock.now() - connection.heldSinceMs;
      connection.usedMs = connection.checkSinceMs = this.clock.now();
      connection.isPinged = !this.#pingsOnRelease;
      if (connection.isBroken) connection.isCondemned = true;
    }
    this.core.release(slot);
  }

  #abandon(caller: Caller): void {
    const isWaiting = caller.status === "waiting";
    if (isWaiting) {
      caller.status = "aborted";
      this.#aborted++;
      this.#queue.splice(this.#queue.indexOf(caller), 1);
    }
    if (this.core.abandon(caller) !== isWaiting) {
      this.#violate(
        "each waiter is answered once",
        `#${caller.id}, which ${isWaiting ? "waits" : "has its answer"}, ` +
          `is told ${isWaiting ? "that it has" : "that it waited"}`,
      );
    }
  }

  #shrink(target: number): void {
    let idle = 0;
    for (const other of this.#open) if (this.#isIdle(other)) idle++;
    const expected = this.isSingleton ? 0 : Math.max(0, idle - target);
    this.#shrinksUpTo = this.#serials;
    this.#hasShrunk = true;
    const before = this.#shut;
    const claimed = this.core.shrink(target);
    const closed = this.#shut - before;
    this.#shrinksUpTo = 0;
    if (closed < expected || claimed !== expected) {
      this.#violate(
        "the counters add up",
        `shrink(${target}) closes ${closed} of ${idle} idle connections ` +
          `and claims ${claimed}`,
      );
    }
  }

  #resize(poolSize: number, maxOverflow: number): void {
    // `ConnectionPool.resize` refuses less than `minIdle`.
    this.#poolSize = Math.max(poolSize, this.config.minIdle);
    this.#maxOverflow = maxOverflow;
    this.#limit = this.#limitNow();
    this.core.resize(this.#poolSize, maxOverflow);
  }

  #close(timeoutMs: number): void {
    if (!this.#isClosed) this.#closeDueMs = this.clock.now() + timeoutMs;
    this.#isClosed = true;
    this.#closeCalls++;
    let answers = 0;
    this.core.close(timeoutMs, ({ forced, unfinished }) => {
      this.#closeAnswers++;
      this.#report ??= { forced, unfinished };
      if (++answers > 1) {
        this.#violate("close ends everything", "close is answered twice");
      }
      if (
        forced !== this.#report.forced || unfinished !== this.#report.unfinished
      ) {
        this.#violate("close ends everything", "two reports differ");
      }
      const graceMs = this.#forced > 0 ? CLOSE_GRACE_MS : 0;
      if (
        unfinished > 0 &&
        this.clock.now() < this.#closeDueMs + graceMs - EPSILON_MS
      ) {
        this.#violate(
          "close ends everything",
          `gives up on ${unfinished} connections too early`,
        );
      }
      if (answers === 1 && this.#closeAnswers === 1) {
        if (forced !== this.#forced || unfinished !== this.#closing) {
          this.#violate(
            "close ends everything",
            `reports ${forced} forced and ${unfinished} unfinished ` +
              `instead of ${this.#forced} and ${this.#closing}`,
          );
        }
      }
    });
    for (const attempt of this.#attempts) attempt.isOver = true;
  }

  // Running.

  /** Runs what enters the pool, which must let nothing out that is thrown. */
  #guard(enter: () => void): void {
    try {
      enter();
    } catch (error) {
      this.#violate(
        "nothing is thrown",
        error instanceof Error ? error.stack ?? error.message : String(error),
      );
    }
  }

  #pass(ms: number): void {
    const untilMs = this.clock.now() + ms;
    for (let timers = 0; this.clock.step(untilMs); timers++) {
      if (this.violation !== undefined) return;
      if (timers > MOST_TIMERS) {
        return this.#violate("nothing spins", `${MOST_TIMERS} timers in a row`);
      }
    }
  }

  #do(step: Step): void {
    switch (step.do) {
      case "fault":
        this.#faults[step.call].push(step);
        break;
      case "acquire":
        this.#acquire(step.id, step.timeoutMs, step.manner);
        break;
      case "try":
        this.#tryTake(step.id);
        break;
      case "abandon": {
        const caller = this.#callers.get(step.id);
        if (caller !== undefined) this.#abandon(caller);
        break;
      }
      case "release": {
        const caller = this.#callers.get(step.id);
        if (caller !== undefined) this.#release(caller);
        break;
      }
      case "pass":
        this.#pass(step.ms);
        break;
      case "shrink":
        this.#shrink(step.target);
        break;
      case "resize":
        this.#resize(step.poolSize, step.maxOverflow);
        break;
      case "close":
        this.#close(step.timeoutMs);
        break;
      case "break":
      case "breakAll":
        // A notice takes some of them away.
        for (const connection of [...this.#open]) {
          if (step.do === "break" && connection.serial !== step.serial) {
            continue;
          }
          connection.isDead = true;
          if (step.sign !== "silently") connection.isBroken = true;
          if (step.sign === "with notice") this.#tell(connection);
        }
        break;
      case "finish":
        this.#finishPending();
        break;
    }
  }

  /** Tells the pool that a connection is gone. */
  #tell(connection: SimulatedConnection): void {
    const wasIdle = this.#isIdle(connection);
    connection.lost(new Error("the server closed it"));
    if (wasIdle && connection.closing === "no") {
      this.#violate(
        "what is lost goes at once",
        `connection ${connection.serial} stays although it is told to be lost`,
      );
    }
  }

  #finishPending(): void {
    for (const call of this.#pending.splice(0)) call.end();
  }

  /** Does something, lets what is due at this moment happen, and checks. */
  #act(act: () => void): boolean {
    this.#guard(() => {
      act();
      this.#pass(0);
    });
    if (this.violation === undefined) this.#guard(() => this.#check());
    return this.violation === undefined;
  }

  run(
    steps: readonly Step[],
    log?: (line: string) => void,
  ): void {
    const trace = (what: string): void => {
      if (log === undefined) return;
      const { opening, idle, inUse, waiting } = this.core.state();
      const { checking } = this.core.stats();
      log(
        `${this.clock.now().toFixed(1).padStart(8)} ms  ${what.padEnd(50)} ` +
          `opening ${opening} idle ${idle} in use ${inUse} ` +
          `checking ${checking} closing ${this.#closing} waiting ${waiting}`,
      );
    };
    if (!this.#act(() => this.core.warm())) return;
    for (this.#step = 0; this.#step < steps.length; this.#step++) {
      const step = steps[this.#step] as Step;
      const isSound = this.#act(() => this.#do(step));
      trace(describeStep(step));
      if (!isSound) return;
    }
    this.#settle(trace);
  }

  /**
   * The second phase: nothing fails any more, and everything must come to rest,
   * come back to full strength and end.
   */
  #settle(trace: (what: string) => void): void {
    this.#faults = { connect: [], ping: [], reset: [], close: [] };
    this.#weather = {};
    const { probeIntervalMs, retry, timeoutMs, minIdle } = this.config;
    const recoveryMs = 40 + probeIntervalMs + retry.maxDelayMs + timeoutMs;
    const act = (what: string, act: () => void): boolean => {
      const isSound = this.#act(act);
      trace(what);
      return isSound;
    };
    if (!act("finish what hangs", () => this.#finishPending())) return;
    const releaseAll = (): void => {
      for (const caller of [...this.#callers.values()]) {
        if (caller.status === "holding") this.#release(caller);
      }
    };
    for (let left = this.#queue.length + 2; left > 0; left--) {
      if (!act("release all", releaseAll)) return;
      if (!act("pass", () => this.#pass(recoveryMs))) return;
    }
    const firstWaiter = this.#queue[0];
    if (firstWaiter !== undefined) {
      return this.#violate(
        "all settles",
        `#${firstWaiter.id} waits although all is well`,
      );
    }
    if (!act("release all", releaseAll)) return;
    if (!this.#isClosed) {
      const limit = this.#limit;
      for (let id = 1; id <= limit; id++) {
        const acquire = (): void => this.#acquire(-id, recoveryMs, "holds");
        if (!act(`acquire #${-id} timeout ${recoveryMs}`, acquire)) return;
      }
      if (!act("pass", () => this.#pass(recoveryMs / 2))) return;
      if (this.#inUse !== limit) {
        return this.#violate(
          "all settles",
          `only ${this.#inUse} of ${limit} connections can be had`,
        );
      }
      if (!act("release all", releaseAll)) return;
      if (!act("pass", () => this.#pass(recoveryMs))) return;
      const { idle, open } = this.core.state();
      if (idle !== open || idle < Math.min(minIdle, limit)) {
        return this.#violate(
          "all settles",
          `${idle} of ${open} connections are idle, and ${minIdle} should be`,
        );
      }
    }
    if (!act("close within 50 ms", () => this.#close(50))) return;
    if (!act("pass", () => this.#pass(50 + CLOSE_GRACE_MS))) return;
    // Whatever still comes must find nobody.
    if (!act("pass", () => this.#pass(1e7))) return;
    if (this.#closeAnswers !== this.#closeCalls) {
      return this.#violate("close ends everything", "a close has no answer");
    }
    for (const { serial, closing } of this.#all) {
      if (closing !== "done") {
        return this.#violate(
          "close ends everything",
          `connection ${serial} is still open`,
        );
      }
    }
    for (const { id, status } of this.#callers.values()) {
      if (status === "waiting") {
        return this.#violate("all settles", `#${id} has no answer`);
      }
    }
  }

  // The rules that must hold between any two steps.

  #check(): void {
    const nowMs = this.clock.now();
    this.#expireAttempts();
    let left = 0;
    for (const attempt of this.#attempts) {
      if (attempt.isOver) continue;
      this.#attempts[left++] = attempt;
      if (attempt.dueMs < nowMs - EPSILON_MS) {
        this.#violate(
          "nobody waits beyond a deadline",
          `a connect takes longer than ${this.config.timeoutMs} ms`,
        );
      }
    }
    this.#attempts.length = left;
    const opening = left;
    const state = this.core.state();
    const { config } = this;
    let idle = 0;
    let checking = 0;
    let inUse = 0;
    for (const connection of this.#open) {
      if (connection.holder !== undefined) {
        inUse++;
        if (connection.holder.slot?.state !== "inUse") {
          this.#violate(
            "each connection is in one place",
            `connection ${connection.serial} is held and ${connection.holder.slot?.state}`,
          );
        }
      } else if (connection.call !== undefined) {
        checking++;
        if (
          !this.#isClosed &&
          nowMs - connection.checkSinceMs > config.timeoutMs + EPSILON_MS
        ) {
          this.#violate(
            "nobody waits beyond a deadline",
            `a ${connection.call} takes longer than ${config.timeoutMs} ms`,
          );
        }
      } else {
        idle++;
        if (!this.isSingleton) this.#checkIdle(connection, nowMs);
      }
    }
    const waiting = this.#queue.length;
    if (
      state.idle !== idle || state.inUse !== inUse || inUse !== this.#inUse ||
      state.opening !== opening || state.waiting !== waiting ||
      state.open !== this.#open.length || state.limit !== this.#limit
    ) {
      const actual = { opening, idle, inUse, checking, waiting };
      return this.#violate(
        "each connection is in one place",
        `the pool says ${JSON.stringify(state)}, ` +
          `but there are ${JSON.stringify(actual)}`,
      );
    }
    const total = this.#open.length + opening;
    if (total > this.#limit && total > this.#lastTotal) {
      return this.#violate(
        "the limit holds",
        `${total} connections with a limit of ${this.#limit}`,
      );
    }
    this.#lastTotal = total;
    if (idle > (this.isSingleton ? 1 : this.#poolSize)) {
      return this.#violate(
        "the limit holds",
        `${idle} idle connections with a pool size of ${this.#poolSize}`,
      );
    }
    if (waiting > 0) this.#checkWaiting(idle, checking, opening);
    if (!this.#isClosed) this.#checkUpkeep(idle + checking, opening);
    const { live, referenced } = this.poolClock;
    const needsTimer = waiting > 0 ||
      (this.#isClosed && this.#report === undefined);
    if (live > MOST_POOL_TIMERS || (referenced > 0) !== needsTimer) {
      return this.#violate(
        "timers are few and end",
        `${live} timers, of which ${referenced} keep the program alive, ` +
          `with ${waiting} waiting`,
      );
    }
    if (this.#isClosed) this.#checkClosed(waiting, total);
    this.#checkCounters(checking);
  }

  #checkIdle(connection: SimulatedConnection, nowMs: number): void {
    const { idleTimeoutMs, keepaliveMs, maxLifetimeMs } = this.config;
    if (this.#isClosed) return;
    const { usedMs, provenMs } = connection;
    // One that is over its time but kept for `minIdle` is looked at later.
    const isKept = usedMs + idleTimeoutMs <= provenMs + EPSILON_MS;
    const overMs = (isKept ? provenMs : usedMs) + idleTimeoutMs;
    if (
      (keepaliveMs > 0 && nowMs > provenMs + keepaliveMs + EPSILON_MS) ||
      (idleTimeoutMs > 0 && nowMs > overMs + EPSILON_MS)
    ) {
      this.#violate(
        "idle connections are looked after",
        `connection ${connection.serial} has rested for ${nowMs - usedMs} ms`,
      );
    }
    const ageMs = nowMs - connection.openedMs - EPSILON_MS;
    if (maxLifetimeMs > 0 && ageMs > maxLifetimeMs) {
      this.#violate(
        "idle connections are looked after",
        `connection ${connection.serial} is ${ageMs} ms old`,
      );
    }
  }

  #checkWaiting(
    idle: number,
    checking: number,
    opening: number,
  ): void {
    const nowMs = this.clock.now();
    const waiting = this.#queue.length;
    for (const { id, beganMs, waitMs } of this.#queue) {
      if (nowMs > beganMs + waitMs + EPSILON_MS) {
        return this.#violate(
          "nobody waits beyond a deadline",
          `#${id} has waited for ${nowMs - beganMs} ms instead of ${waitMs}`,
        );
      }
    }
    for (const { id, status } of this.#hopeless) {
      if (status === "waiting" && this.#isHopeless && !this.#isBlind) {
        return this.#violate(
          "each waiter is answered once",
          `#${id} is not told that the database cannot be reached`,
        );
      }
    }
    // A check under way may end in time to serve somebody; one that must be
    // checked itself is taken up only for those beyond.
    if ((idle > 0 && waiting > checking) || this.#hasAtHand()) {
      return this.#violate(
        "nobody waits beside an idle connection",
        `${waiting} waiting, ${idle} idle, ${checking} being checked`,
      );
    }
    if (this.#isFree(opening) && idle + checking + opening < waiting) {
      this.#violate(
        "nobody waits beside a free place",
        `${waiting} waiting, ${this.#open.length} open, ` +
          `${opening} opening, limit ${this.#limit}`,
      );
    }
  }

  /** Whether a connect could be begun now. */
  #isFree(opening: number): boolean {
    const { probeIntervalMs, retry, maxConnecting } = this.config;
    const restsMs = Math.max(probeIntervalMs, retry.maxDelayMs) + EPSILON_MS;
    // After a failure that no repetition mends, who asks is tried for at once.
    const isAskedFor = this.#isPermanent && this.#queue.length > 0 &&
      !this.#isBlind;
    return this.#open.length + opening < this.#limit &&
      opening < (this.#hasFailed ? 1 : maxConnecting) &&
      (isAskedFor || this.clock.now() > this.#lastFailureMs + restsMs);
  }

  #checkUpkeep(coming: number, opening: number): void {
    const { minIdle } = this.config;
    // Whoever shrinks the pool wants it small.
    if (minIdle === 0 || this.#hasShrunk || !this.#isFree(opening)) return;
    if (coming + opening < minIdle + this.#queue.length) {
      this.#violate(
        "idle connections are looked after",
        `${coming} idle and ${opening} opening, but ${minIdle} should be idle`,
      );
    }
  }

  #checkClosed(waiting: number, total: number): void {
    const isOver = this.#report !== undefined;
    if (waiting > 0) {
      this.#violate("close ends everything", `${waiting} still wait`);
    }
    if (isOver && (total > 0 || this.poolClock.live > 0)) {
      this.#violate(
        "close ends everything",
        `${total} connections and ${this.poolClock.live} timers are left`,
      );
    }
    if (isOver && this.#closeAnswers !== this.#closeCalls) {
      this.#violate("close ends everything", "a close has no answer");
    }
    if (!isOver && total + this.#closing === 0) {
      this.#violate("close ends everything", "it goes on with nothing left");
    }
    const latestMs = this.#closeDueMs + CLOSE_GRACE_MS + EPSILON_MS;
    if (!isOver && this.clock.now() > latestMs) {
      this.#violate("close ends everything", "it takes longer than it may");
    }
  }

  #checkCounters(checking: number): void {
    const stats = this.core.stats();
    if (stats.peak !== this.#peak) {
      this.#violate(
        "the peak is the most in use",
        `the pool says ${stats.peak}, but it was ${this.#peak}`,
      );
    }
    const told = this.#told;
    if (
      stats.checking !== checking || stats.created !== this.#created ||
      stats.created !== this.#open.length + this.#shut ||
      stats.retired + stats.discarded !== this.#shut ||
      stats.acquired !== this.#acquired || stats.reused !== this.#reused ||
      stats.timeouts !== this.#timeouts || stats.rejected !== this.#rejected ||
      stats.aborted !== this.#aborted ||
      stats.connectFailures !== this.#connectFailures ||
      !isSummary(stats.waitMs, this.#acquired, this.#waitedMs) ||
      !isSummary(stats.connectMs, this.#created, this.#connectedMs) ||
      !isSummary(
        stats.useMs,
        this.config.measureUse ? this.#released : 0,
        this.config.measureUse ? this.#heldMs : 0,
      ) ||
      stats.poolSize !== this.#poolSize ||
      stats.maxOverflow !== this.#maxOverflow ||
      told.created !== stats.created || told.acquired !== stats.acquired ||
      told.connectFailures !== stats.connectFailures ||
      told.released !== this.#released || told.discarded !== stats.discarded ||
      told.retired !== stats.retired || told.timeouts !== stats.timeouts ||
      told.rejected !== stats.rejected || told.aborted !== stats.aborted ||
      told.closeFailures !== this.#closeFailures ||
      (told.retries < this.#retries && !this.#isBlind) ||
      told.closed !== (this.#report === undefined ? 0 : 1)
    ) {
      const expected = {
        checking,
        created: this.#created,
        shut: this.#shut,
        acquired: this.#acquired,
        reused: this.#reused,
        timeouts: this.#timeouts,
        rejected: this.#rejected,
        aborted: this.#aborted,
        connectFailures: this.#connectFailures,
        closeFailures: this.#closeFailures,
        retries: this.#retries,
        poolSize: this.#poolSize,
        maxOverflow: this.#maxOverflow,
      };
      this.#violate(
        "the counters add up",
        `the pool says ${JSON.stringify(stats)}, ` +
          `but it was ${JSON.stringify(expected)}, ` +
          `and it has told of ${JSON.stringify(told)}`,
      );
    }
  }
}

/** Whether a summary speaks of so many durations and of their sum. */
function isSummary(
  { count, mean }: DurationSummary,
  expected: number,
  sumMs: number,
): boolean {
  return count === expected && Math.abs(mean * count - sumMs) < 1e-3;
}

const SOUND: Fault = {
  do: "fault",
  call: "connect",
  ending: "succeeds",
  afterMs: 0,
  cancel: "stops it",
  isDoubled: false,
};

/** What one run is told beside its script. */
export interface RunOptions {
  /** Default: the real one. */
  readonly core?: CoreClass;
  /** Is told of each step. */
  readonly log?: (line: string) => void;
}

/** Runs a script, and says which rule it broke, if any. */
export function runScript(
  script: Script,
  { core = PoolCore, log }: RunOptions = {},
): Violation | undefined {
  const world = new World(script, core);
  world.run(script.steps, log);
  return world.violation;
}

// Cutting down.

/** Simpler versions of a step that may do as well, the simplest first. */
function simplerSteps(step: Step): Step[] {
  switch (step.do) {
    case "fault":
      return [
        { ...step, afterMs: 0 },
        { ...step, cancel: "stops it" },
        { ...step, isDoubled: false },
      ];
    case "acquire":
      return [{ ...step, manner: "holds" }, { ...step, timeoutMs: 1e6 }];
    case "pass":
      return [1, 10, 100].filter((ms) => ms < step.ms)
        .map((ms) => ({ ...step, ms }));
    case "break":
    case "breakAll":
      return [{ ...step, sign: "visibly" }];
    default:
      return [];
  }
}

/**
 * The shortest script in reach that breaks the same rule: steps are taken out
 * in ever smaller pieces (delta debugging, after Andreas Zeller), then each
 * step and setting is made simpler, until nothing more can go.
 */
export function shrinkScript(
  script: Script,
  options: RunOptions = {},
): Failure {
  const { core } = options;
  const run = (script: Script): Violation | undefined =>
    runScript(script, core === undefined ? {} : { core });
  const found = run(script);
  if (found === undefined) {
    throw new RangeError("Cannot cut down a script that breaks no rule");
  }
  let best: Failure = { script, violation: found };
  const improve = (change: Partial<Script>): boolean => {
    const candidate: Script = { ...best.script, ...change };
    if (formatScript(candidate) === formatScript(best.script)) return false;
    let violation: Violation | undefined;
    try {
      violation = run(candidate);
    } catch {
      // Settings that do not go together are no candidate.
      return false;
    }
    if (violation?.rule !== found.rule) return false;
    best = { script: candidate, violation };
    return true;
  };
  improve({ steps: script.steps.slice(0, found.step + 1) });
  for (
    let hasImproved = true, rounds = 0;
    hasImproved && rounds < 20;
    rounds++
  ) {
    hasImproved = false;
    let size = Math.max(1, best.script.steps.length >> 1);
    for (; size >= 1; size >>= 1) {
      for (let from = 0; from < best.script.steps.length;) {
        const steps = best.script.steps.toSpliced(from, size);
        if (improve({ steps })) hasImproved = true;
        else from += size;
      }
    }
    for (const key of Object.keys(best.script.weather)) {
      const { [key as keyof Weather]: _, ...weather } = best.script.weather;
      if (improve({ weather })) hasImproved = true;
    }
    for (const key of Object.keys(best.script.options)) {
      const { [key as keyof ConnectionOptions]: _, ...options } =
        best.script.options;
      if (improve({ options })) hasImproved = true;
    }
    for (
      const change of [
        { poolSize: 1 },
        { poolSize: 2 },
        { maxOverflow: 0 },
        { minIdle: 1 },
        { retry: {} },
      ]
    ) {
      const options = { ...best.script.options, ...change };
      if (improve({ options })) hasImproved = true;
    }
    for (let i = 0; i < best.script.steps.length; i++) {
      for (const simpler of simplerSteps(best.script.steps[i] as Step)) {
        const steps = best.script.steps.with(i, simpler);
        if (improve({ steps })) {
          hasImproved = true;
          break;
        }
      }
    }
  }
  return best;
}

/** A failure in words: the rule, the seed, the steps, and how to replay it. */
export function describeFailure({ script, violation }: Failure): string {
  const { seed, options, weather, steps } = script;
  const lines = steps.map((step, i) =>
    `${String(i + 1).padStart(4)}. ${describeStep(step)}`
  );
  const where = violation.step < steps.length
    ? `after step ${violation.step + 1}`
    : "while everything settles";
  return [
    `Seed ${seed} breaks the rule that ${violation.rule}, ${where}:`,
    violation.message,
    `  options ${JSON.stringify(options)}`,
    `  weather ${JSON.stringify(weather)}`,
    ...lines,
    `Replay: deno task fuzz --script '${formatScript(script)}'`,
    `Or, at full length: deno task fuzz --from ${seed} --seeds 1`,
  ].join("\n");
}

/** What a search is told. */
export interface SearchOptions {
  /** The first seed. Default: 1. */
  readonly from?: number;
  /** How many seeds to try. */
  readonly seeds: number;
  /** Default: the real one. */
  readonly core?: CoreClass;
  /** The rules whose breach is looked for. Default: all. */
  readonly rules?: readonly Rule[];
  /** Is told how many seeds have been tried, every now and then. */
  readonly onProgress?: (tried: number) => void;
}

/** Tries one seed after the other, and cuts down the first failure. */
export function search(options: SearchOptions): Failure | undefined {
  const { from = 1, seeds, core = PoolCore, rules, onProgress } = options;
  for (let seed = from; seed < from + seeds; seed++) {
    const script = makeScript(seed);
    const violation = runScript(script, { core });
    if (violation !== undefined && (rules?.includes(violation.rule) ?? true)) {
      return shrinkScript(script, { core });
    }
    const tried = seed - from + 1;
    if (tried % 50_000 === 0) onProgress?.(tried);
  }
  return undefined;
}

/** The class `PoolCore` of another file, such as one with a planted bug. */
export async function loadCore(path: string): Promise<CoreClass> {
  const { PoolCore } = await import(toFileUrl(resolve(path)).href);
  return PoolCore;
}

const USAGE = "Usage: deno task fuzz [--seeds N] [--from N] [--core FILE] " +
  "[--script TEXT]";

async function main(args: readonly string[]): Promise<number> {
  const flags = new Map<string, string>();
  for (let i = 0; i < args.length; i += 2) {
    const [flag = "", value] = args.slice(i, i + 2);
    const isKnown = ["--seeds", "--from", "--core", "--script"].includes(flag);
    if (!isKnown || value === undefined) {
      console.error(`Error: cannot read '${flag}'\n${USAGE}`);
      return 2;
    }
    flags.set(flag, value);
  }
  const file = flags.get("--core");
  const core = file === undefined ? PoolCore : await loadCore(file);
  const text = flags.get("--script");
  if (text !== undefined) {
    const script = parseScript(text);
    const violation = runScript(script, {
      core,
      log: (line) => console.error(line),
    });
    if (violation === undefined) {
      console.log("Every rule holds");
      return 0;
    }
    console.log(describeFailure({ script, violation }));
    return 1;
  }
  const seeds = Number(flags.get("--seeds") ?? 100_000);
  const from = Number(flags.get("--from") ?? 1);
  if (!(Number.isSafeInteger(seeds) && Number.isSafeInteger(from))) {
    console.error(`Error: --seeds and --from must be integers\n${USAGE}`);
    return 2;
  }
  const failure = search({
    from,
    seeds,
    core,
    onProgress: (tried) => console.error(`${tried} of ${seeds} seeds`),
  });
  if (failure !== undefined) {
    console.log(describeFailure(failure));
    return 1;
  }
  console.log(`Every rule holds for the seeds ${from} to ${from + seeds - 1}`);
  return 0;
}

if (import.meta.main) {
  try {
    Deno.exitCode = await main(Deno.args);
  } catch (error) {
    console.error(`Error: ${messageOf(error)}`);
    Deno.exitCode = 2;
  }
}
