/**
 * The pool as a state machine: who holds what, who comes next, what is opened
 * and closed and when. It knows no promise and no database, reads time only
 * from its clock and chance only from its `random`, and does everything at
 * once, so that the same code serves production and a simulation that lets an
 * hour pass in a second.
 *
 * @module
 */

import { ConnectBreaker } from "./breaker.ts";
import type { Clock } from "./clock.ts";
import type { ConnectionConfig } from "./config.ts";
import { Deadline, DeadlineQueue } from "./deadlines.ts";
import type { Done, Driver, Resource } from "./driver.ts";
import {
  AcquireTimeoutError,
  ConnectError,
  type Holder,
  PoolClosedError,
  type PoolState,
  TooManyWaitersError,
} from "./errors.ts";
import { DurationHistogram } from "./histogram.ts";
import type {
  CloseReport,
  PoolEvents,
  PoolStats,
  RetireReason,
} from "./pool_report.ts";
import { Slot, type SlotOwner, type SlotState } from "./slot.ts";
import { type Waiter, WaiterQueue, type WaiterQueueOwner } from "./waiters.ts";

/** The outside world of a core. */
export interface CoreDependencies<C extends Resource> {
  readonly driver: Driver<C>;
  readonly clock: Clock;
  /** Gives numbers from 0 up to, but not including, 1. */
  readonly random: () => number;
  /** Hooks, which must not throw (see `guarded`). */
  readonly events?: PoolEvents;
  /** Who holds the connections, as far as somebody knows. */
  readonly holders?: () => Holder[];
}

/** What is counted from the making of the pool on. */
type Counter =
  | "acquired"
  | "created"
  | "reused"
  | "discarded"
  | "retired"
  | "timeouts"
  | "rejected"
  | "aborted"
  | "connectFailures"
  | "peak";

// How long `close` waits for the closing of what it closed by force.
const CLOSE_GRACE_MS = 1000;

// Lifetimes are shortened by up to a tenth, never lengthened: what must be
// replaced by a certain age is.
const LIFETIME_JITTER = 0.1;

/** The state machine. Its methods never throw what a driver throws. */
export class PoolCore<C extends Resource>
  implements SlotOwner<C>, WaiterQueueOwner<C> {
  readonly #config: ConnectionConfig;
  readonly #driver: Driver<C>;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #events: PoolEvents;
  readonly #holders: () => Holder[];

  #poolSize = 0;
  #maxOverflow = 0;
  #limit = 0;
  #idleLimit = 0;
  readonly #checksOnRelease: boolean;
  readonly #checksOnBorrow: boolean;
  readonly #watchesIdle: boolean;
  readonly #measuresUse: boolean;

  /** Idle connections; the one used last is at the end and goes out first. */
  readonly #idle: Slot<C>[] = [];
  readonly #slots = new Set<Slot<C>>();
  #rests = 0;
  #opening = 0;
  #inUse = 0;
  #checking = 0;
  #pinging = 0;
  #closing = 0;

  readonly #waiters: WaiterQueue<C>;

  readonly #breaker: ConnectBreaker;
  readonly #nextConnect = new Deadline(() => this.#openWhatIsNeeded());
  #isOpeningNow = false;

  readonly #foreground: DeadlineQueue;
  readonly #background: DeadlineQueue;
  readonly #waits = new DurationHistogram();
  readonly #uses = new DurationHistogram();
  readonly #connects = new DurationHistogram();
  readonly #counters: Record<Counter, number> = {
    acquired: 0,
    created: 0,
    reused: 0,
    discarded: 0,
    retired: 0,
    timeouts: 0,
    rejected: 0,
    aborted: 0,
    connectFailures: 0,
    peak: 0,
  };

  #isClosed = false;
  #closed: ((report: CloseReport) => void)[] = [];
  #report: CloseReport | undefined;
  #forced: readonly Holder[] = [];
  #forcedCount = 0;
  readonly #closeDeadline = new Deadline(() => this.#force());

  constructor(config: ConnectionConfig, dependencies: CoreDependencies<C>) {
    this.#config = config;
    this.#driver = dependencies.driver;
    this.#clock = dependencies.clock;
    this.#random = dependencies.random;
    this.#events = dependencies.events ?? {};
    this.#holders = dependencies.holders ?? (() => []);
    this.#setLimits(config.poolSize, config.maxOverflow);
    const { validate } = config;
    this.#checksOnRelease = validate === "release" || validate === "both";
    this.#checksOnBorrow = validate === "borrow" || validate === "both";
    this.#watchesIdle = !this.#driver.isSingleton &&
      (config.idleTimeoutMs > 0 || config.keepaliveMs > 0);
    this.#measuresUse = config.measureUse;
    this.#foreground = new DeadlineQueue(this.#clock, { background: false });
    this.#background = new DeadlineQueue(this.#clock, { background: true });
    const { acquireTimeoutMs, retry, probeIntervalMs } = config;
    this.#breaker = new ConnectBreaker(retry, probeIntervalMs, this.#random);
    this.#waiters = new WaiterQueue(
      this,
      this.#clock,
      this.#foreground,
      acquireTimeoutMs,
    );
  }

  /** The most connections that may be open at once. */
  get limit(): number {
    return this.#limit;
  }

  get #open(): number {
    return this.#idle.length + this.#inUse + this.#checking;
  }

  /** Whether the pool serves nobody any more. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Opens the connections that `minIdle` asks for. */
  warm(): void {
    this.#openWhatIsNeeded();
  }

  /**
   * Takes an idle connection if one can be had without waiting, checking or
   * overtaking somebody: the way that nearly every acquire goes.
   */
  take(): Slot<C> | undefined {
    if (this.#waiters.size > 0) return undefined;
    const idle = this.#idle;
    const slot = idle[idle.length - 1];
    if (slot === undefined || isBroken(slot.connection)) return undefined;
    if (this.#checksOnBorrow && !this.#isProven(slot)) return undefined;
    idle.pop();
    this.#hand(slot, 0);
    if (idle.length < this.#config.minIdle) this.#openWhatIsNeeded();
    return slot;
  }

  /**
   * Puts a request in the queue. The waiter is answered exactly once, perhaps
   * before this returns: served, timed out, turned away or told that the pool
   * is closed; unless it is taken back with `abandon`.
   */
  enqueue(waiter: Waiter<C>, timeoutMs: number): void {
    if (this.#isClosed) return waiter.failed(new PoolClosedError());
    // Connections that nobody holds will go to those who wait already, so only
    // waiters beyond those count.
    const { maxWaiting } = this.#config;
    if (this.#waiters.size - (this.#limit - this.#inUse) >= maxWaiting) {
      this.#counters.rejected++;
      this.#events.reject?.();
      return waiter.failed(new TooManyWaitersError(maxWaiting, this.state()));
    }
    this.#waiters.add(waiter);
    this.#serve();
    if (waiter.isQueued) this.#waiters.bound(waiter, timeoutMs);
  }

  /** Takes a request back, and says whether it was still unanswered. */
  abandon(waiter: Waiter<C>): boolean {
    if (!waiter.isQueued) return false;
    this.#waiters.remove(waiter);
    this.#counters.aborted++;
    this.#events.abort?.();
    return true;
  }

  /**
   * Takes a connection if one can be had at once, be it idle or opened at once.
   * A check or connect that has to be begun for it goes on for whoever is next.
   */
  tryTake(waiter: Waiter<C>): void {
    const slot = this.take();
    if (slot !== undefined) return waiter.served(slot);
    if (this.#isClosed || this.#waiters.size > 0) return;
    this.#waiters.add(waiter);
    this.#serve();
    if (waiter.isQueued) this.#waiters.remove(waiter);
  }

  /** Takes a connection back from its holder. */
  release(slot: Slot<C>): void {
    if (slot.state !== "inUse") return;
    this.#move(slot, "checking");
    this.#events.release?.({ id: slot.serial });
    if (this.#measuresUse) {
      this.#uses.record(this.#clock.now() - slot.heldSinceMs);
    }
    const unwanted = this.#whyUnwanted(slot);
    if (unwanted !== undefined) return this.#retire(slot, unwanted);
    if (this.#watchesIdle) slot.idleSinceMs = this.#clock.now();
    if (isBroken(slot.connection)) return this.#discard(slot, brokenError());
    try {
      slot.connection.reset(slot.afterReset);
    } catch (error) {
      this.resetDone(slot, error);
    }
    this.#boundCheck(slot);
  }

  /** Closes idle connections until `target` are left, and counts them. */
  shrink(target: number): number {
    if (this.#driver.isSingleton) return 0;
    const surplus = Math.max(0, this.#idle.length - target);
    // Those used longest ago; what `minIdle` opens anew comes after them.
    for (const slot of this.#idle.slice(0, surplus)) {
      this.#retire(slot, "shrink");
    }
    return surplus;
  }

  #setLimits(poolSize: number, maxOverflow: number): void {
    this.#poolSize = poolSize;
    this.#maxOverflow = maxOverflow;
    const { isSingleton } = this.#driver;
    this.#limit = isSingleton ? 1 : poolSize + maxOverflow;
    this.#idleLimit = isSingleton ? 1 : poolSize;
  }

  /** Changes the limits; what is too many goes at once or on its return. */
  resize(poolSize: number, maxOverflow: number): void {
    this.#setLimits(poolSize, maxOverflow);
    while (
      this.#idle.length > 0 &&
      (this.#idle.length > this.#idleLimit || this.#open > this.#limit)
    ) this.#retire(this.#idle[0] as Slot<C>, "surplus");
    this.#openWhatIsNeeded();
  }

  /**
   * Ends the pool: nobody is served any more, the queue is answered, idle
   * connections are closed at once and the others on their return; what is
   * still in use after `timeoutMs` is closed by force.
   */
  close(timeoutMs: number, done: (report: CloseReport) => void): void {
    if (this.#report !== undefined) return done(this.#report);
    this.#closed.push(done);
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#background.clearAll();
    this.#failAll(() => new PoolClosedError());
    this.#foreground.set(this.#closeDeadline, this.#clock.now() + timeoutMs);
    for (const slot of [...this.#slots]) {
      if (slot.state === "idle") this.#retire(slot, "close");
      else if (slot.state === "opening") this.#giveUpConnect(slot);
    }
    this.#finishClose();
  }

  /** What the pool is doing at this moment. */
  state(): PoolState {
    return {
      open: this.#open,
      inUse: this.#inUse,
      idle: this.#idle.length,
      waiting: this.#waiters.size,
      opening: this.#opening,
      limit: this.#limit,
    };
  }

  /** All numbers. */
  stats(): PoolStats {
    return {
      ...this.#counters,
      ...this.state(),
      checking: this.#checking,
      poolSize: this.#poolSize,
      maxOverflow: this.#maxOverflow,
      waitMs: this.#waits.summary(),
      useMs: this.#uses.summary(),
      connectMs: this.#connects.summary(),
    };
  }

  // What follows is called by deadlines and by the driver.

  timeOut(waiter: Waiter<C>): void {
    const state = this.state();
    this.#waiters.remove(waiter);
    this.#counters.timeouts++;
    const { timeoutMs } = waiter;
    this.#events.timeout?.({ timeoutMs });
    const { isFailing, lastError } = this.#breaker;
    const cause = isFailing ? { cause: lastError } : {};
    const holders = this.#holders();
    waiter.failed(new AcquireTimeoutError(timeoutMs, state, holders, cause));
  }

  stateExpired(slot: Slot<C>): void {
    switch (slot.state) {
      case "opening":
        return this.#connectExpired(slot);
      case "idle":
        return this.#idleExpired(slot);
      case "checking":
        return this.#checkExpired(slot);
    }
  }

  #connectExpired(slot: Slot<C>): void {
    this.#giveUpConnect(slot);
    // A driver that knows better has said why by now.
    if (slot.state !== "opening") return;
    this.#connectFailed(
      slot,
      new Error(
        `The database did not answer within ${this.#config.timeoutMs} ms`,
      ),
      true,
    );
  }

  #checkExpired(slot: Slot<C>): void {
    const { timeoutMs } = this.#config;
    this.#discard(slot, new Error(`A check took longer than ${timeoutMs} ms`));
  }

  #lifeExpired(slot: Slot<C>): void {
    slot.retirement = "lifetime";
    if (slot.state === "idle") this.#retire(slot, "lifetime");
  }

  #idleExpired(slot: Slot<C>): void {
    const { idleTimeoutMs, minIdle } = this.#config;
    // The same sum as the deadline's: a difference may be a rounding short.
    const isOver = idleTimeoutMs > 0 &&
      this.#clock.now() >= slot.idleSinceMs + idleTimeoutMs;
    if (isOver && this.#idle.length > minIdle) {
      return this.#retire(slot, "idle");
    }
    this.#leaveIdle(slot);
    this.#move(slot, "checking");
    slot.wasResting = true;
    this.#ping(slot);
  }

  resetDone(slot: Slot<C>, error: unknown): void {
    if (slot.state !== "checking") return;
    if (error !== undefined) return this.#discard(slot, error);
    if (this.#checksOnRelease) this.#ping(slot);
    else this.#offer(slot);
  }

  pingDone(slot: Slot<C>, error: unknown): void {
    if (slot.state !== "checking") return;
    if (error === undefined) return this.#offer(slot);
    // Whatever broke it, such as a restart of the server, broke those that
    // were opened before it as well.
    const older: Slot<C>[] = [];
    for (const other of this.#slots) {
      // One that is being opened has no number yet, and is newer than any.
      if (other.serial === 0 || other.serial >= slot.serial) continue;
      other.retirement = "stale";
      if (other.state !== "idle") continue;
      // Out of reach before the first of them is closed: whoever waits for that
      // one's place must not be given the next.
      this.#leaveIdle(other);
      this.#move(other, "checking");
      older.push(other);
    }
    for (const other of older) this.#discard(other, error);
    this.#discard(slot, error);
  }

  // The one place where a connection changes its state.
  #move(slot: Slot<C>, state: SlotState): void {
    if (slot.position >= 0) this.#background.clear(slot);
    switch (slot.state) {
      case "opening":
        this.#opening--;
        break;
      case "inUse":
        this.#inUse--;
        break;
      case "checking":
        this.#checking--;
        if (slot.isPinging) this.#pinging--;
        slot.isPinging = false;
        break;
      case "closing":
        this.#closing--;
        break;
    }
    slot.state = state;
    switch (state) {
      case "inUse":
        this.#inUse++;
        if (this.#inUse > this.#counters.peak) {
          this.#counters.peak = this.#inUse;
        }
        break;
      case "checking":
        this.#checking++;
        break;
      case "closing":
        this.#closing++;
        break;
      case "closed":
        this.#slots.delete(slot);
        break;
    }
  }

  #hand(slot: Slot<C>, waitMs: number): void {
    this.#move(slot, "inUse");
    slot.wasResting = false;
    this.#counters.acquired++;
    if (slot.uses++ > 0) this.#counters.reused++;
    if (waitMs === 0) this.#waits.recordZero();
    else this.#waits.record(waitMs);
    if (this.#measuresUse) slot.heldSinceMs = this.#clock.now();
    this.#events.acquire?.({ id: slot.serial, waitMs });
  }

  /** A sound connection goes to whoever waits longest, or to rest. */
  #offer(slot: Slot<C>): void {
    const unwanted = this.#whyUnwanted(slot);
    if (unwanted !== undefined) return this.#retire(slot, unwanted);
    const waiter = this.#waiters.first;
    if (waiter !== undefined) {
      this.#waiters.remove(waiter);
      this.#hand(slot, this.#clock.coarseNow() - waiter.sinceMs);
      return waiter.served(slot);
    }
    if (this.#idle.length >= this.#idleLimit) {
      return this.#retire(slot, "surplus");
    }
    this.#move(slot, "idle");
    if (slot.wasResting) {
      // It was only pinged, and goes back to where it was.
      const { restOrder } = slot;
      const above = this.#idle.findIndex((one) => one.restOrder > restOrder);
      this.#idle.splice(above < 0 ? this.#idle.length : above, 0, slot);
      slot.wasResting = false;
    } else {
      slot.restOrder = ++this.#rests;
      this.#idle.push(slot);
    }
    if (this.#checksOnBorrow) slot.provenMs = this.#clock.now();
    if (this.#watchesIdle) this.#watchIdle(slot);
  }

  #watchIdle(slot: Slot<C>): void {
    const { idleTimeoutMs, keepaliveMs } = this.#config;
    const nowMs = this.#clock.now();
    let dueMs = keepaliveMs > 0 ? nowMs + keepaliveMs : Infinity;
    if (idleTimeoutMs > 0) {
      const overMs = slot.idleSinceMs + idleTimeoutMs;
      // One that is over its time but kept for `minIdle` is looked at later.
      dueMs = Math.min(dueMs, overMs > nowMs ? overMs : nowMs + idleTimeoutMs);
    }
    this.#background.set(slot, dueMs);
  }

  /** Why a connection in good health is not to be kept, if it is not. */
  #whyUnwanted(slot: Slot<C>): RetireReason | undefined {
    if (slot.retirement !== undefined) return slot.retirement;
    if (this.#isClosed) return "close";
    // A connect too many, after a resize, is closed when it is there; until then
    // it does not drive out what is open already.
    if (this.#open > this.#limit) return "surplus";
    const { maxUses } = this.#config;
    if (maxUses > 0 && slot.uses >= maxUses && !this.#driver.isSingleton) {
      return "uses";
    }
    return undefined;
  }

  #isProven(slot: Slot<C>): boolean {
    const { validationBypassMs } = this.#config;
    return this.#clock.now() - slot.provenMs < validationBypassMs;
  }

  /** Does what can be done for somebody who has just joined the queue. */
  #serve(): void {
    this.#checkIdle();
    // After a permanent error only the upkeep of `minIdle` has to wait; for a
    // caller it is tried at once, as somebody may have mended the cause.
    if (!this.#breaker.isFailing && this.#waiters.size > 0) {
      this.#background.clear(this.#nextConnect);
    }
    this.#openWhatIsNeeded();
  }

  /** Serves the queue from idle connections, after a check if one is due. */
  #checkIdle(): void {
    while (this.#waiters.size > 0) {
      const slot = this.#idle.at(-1);
      if (slot === undefined) return;
      const needsPing = this.#checksOnBorrow && !this.#isProven(slot);
      // What is being pinged already will serve as many.
      if (needsPing && this.#waiters.size <= this.#pinging) return;
      this.#idle.pop();
      this.#move(slot, "checking");
      if (isBroken(slot.connection)) this.#discard(slot, brokenError());
      else if (needsPing) this.#ping(slot);
      else this.#offer(slot);
    }
  }

  #ping(slot: Slot<C>): void {
    slot.isPinging = true;
    this.#pinging++;
    try {
      slot.connection.ping(slot.afterPing);
    } catch (error) {
      this.pingDone(slot, error);
    }
    this.#boundCheck(slot);
  }

  /** A check that goes on beyond this turn must end in time. */
  #boundCheck(slot: Slot<C>): void {
    if (slot.state !== "checking" || slot.position >= 0) return;
    const dueMs = this.#clock.now() + this.#config.timeoutMs;
    this.#background.set(slot, dueMs);
  }

  #leaveIdle(slot: Slot<C>): void {
    const index = this.#idle.indexOf(slot);
    if (index >= 0) this.#idle.splice(index, 1);
  }

  /** Closes a connection in good health that is not wanted any more. */
  #retire(slot: Slot<C>, reason: RetireReason): void {
    this.#counters.retired++;
    this.#events.retire?.({ id: slot.serial, reason });
    this.#shut(slot);
  }

  /** Closes a connection that cannot be trusted. */
  #discard(slot: Slot<C>, reason: unknown): void {
    this.#counters.discarded++;
    this.#events.discard?.({ id: slot.serial, reason });
    this.#shut(slot);
  }

  #shut(slot: Slot<C>): void {
    if (slot.state === "idle") this.#leaveIdle(slot);
    if (slot.lifeDeadline?.isSet) this.#background.clear(slot.lifeDeadline);
    this.#move(slot, "closing");
    closeWhatever(slot.connection, (error) => {
      if (slot.state !== "closing") return;
      // A connection that cannot even be closed is gone all the same.
      if (error !== undefined) {
        this.#events.closeFail?.({ id: slot.serial, error });
      }
      this.#move(slot, "closed");
      this.#finishClose();
    });
    // Whoever had counted on it needs another one, or its place.
    this.#checkIdle();
    this.#openWhatIsNeeded();
  }

  // Connecting. Connects belong to the pool, not to the waiters for whom they
  // were begun: one that nobody wants any more ends among the idle.

  #isNeeded(): boolean {
    if (this.#isClosed || this.#nextConnect.isSet) return false;
    if (this.#open + this.#opening >= this.#limit) return false;
    // A database that fails is tried by one connect at a time.
    const most = this.#breaker.isFailing ? 1 : this.#config.maxConnecting;
    if (this.#opening >= most) return false;
    const coming = this.#idle.length + this.#checking + this.#opening;
    return coming < this.#waiters.size + this.#config.minIdle;
  }

  #openWhatIsNeeded(): void {
    // A connect that succeeds at once comes back here; the loop goes on anyway.
    if (this.#isOpeningNow) return;
    this.#isOpeningNow = true;
    while (this.#isNeeded()) this.#connect();
    this.#isOpeningNow = false;
  }

  #connect(): void {
    const slot = new Slot<C>(this);
    this.#slots.add(slot);
    this.#opening++;
    slot.connectSinceMs = this.#clock.now();
    this.#breaker.begin(slot.connectSinceMs);
    const done = (error: unknown, connection?: C): void => {
      if (slot.state === "opening" && connection !== undefined) {
        this.#connected(slot, connection);
      } else if (slot.state === "opening") {
        this.#connectFailed(slot, error, this.#isTransient(error));
      } else if (connection !== slot.connection) {
        // It comes after its deadline, and its place may be taken.
        if (connection !== undefined) closeWhatever(connection, () => {});
      }
    };
    try {
      const lost = (error: unknown): void => this.#lost(slot, error);
      slot.cancelConnect = this.#driver.connect(done, lost) ?? undefined;
    } catch (error) {
      done(error);
    }
    if (slot.state !== "opening") return;
    const dueMs = slot.connectSinceMs + this.#config.timeoutMs;
    this.#background.set(slot, dueMs);
  }

  /** The server has closed a connection, or the network has lost it. */
  #lost(slot: Slot<C>, error: unknown): void {
    // A check fails by itself, and a holder finds out and gives it back.
    if (slot.state === "idle") this.#discard(slot, error);
  }

  #isTransient(error: unknown): boolean {
    try {
      return this.#driver.isTransient(error);
    } catch {
      // A driver that cannot tell: the error of the connect is what matters.
      return false;
    }
  }

  #connected(slot: Slot<C>, connection: C): void {
    slot.connection = connection;
    slot.serial = ++this.#counters.created;
    this.#breaker.succeed();
    this.#move(slot, "checking");
    const nowMs = this.#clock.now();
    const connectMs = nowMs - slot.connectSinceMs;
    this.#connects.record(connectMs);
    this.#events.connect?.({ id: slot.serial, connectMs });
    slot.idleSinceMs = nowMs;
    const { maxLifetimeMs } = this.#config;
    if (maxLifetimeMs > 0 && !this.#driver.isSingleton) {
      const lifeMs = maxLifetimeMs * (1 - LIFETIME_JITTER * this.#random());
      slot.lifeDeadline = new Deadline(() => this.#lifeExpired(slot));
      this.#background.set(slot.lifeDeadline, nowMs + lifeMs);
    }
    this.#offer(slot);
    this.#openWhatIsNeeded();
  }

  #connectFailed(slot: Slot<C>, error: unknown, isTransient: boolean): void {
    if (slot.state === "opening") this.#move(slot, "closed");
    if (this.#isClosed) return this.#finishClose();
    this.#counters.connectFailures++;
    const nowMs = this.#clock.now();
    const verdict = this.#breaker.fail(error, isTransient, nowMs);
    const { attempts: attempt, delayMs, isExhausted } = verdict;
    this.#events.connectFail?.({ attempt, error });
    this.#background.set(this.#nextConnect, nowMs + delayMs);
    if (!isExhausted && this.#waiters.size > 0) {
      const { maxAttempts } = this.#config.retry;
      this.#events.connectRetry?.({ attempt, maxAttempts, delayMs, error });
    }
    // While others hold connections that may come back, the queue has hope. It
    // is answered last, as whoever asks again at once must wait for the delay.
    if (isExhausted && (!isTransient || this.#inUse + this.#checking === 0)) {
      this.#failAll(() => new ConnectError(error, verdict));
    }
  }

  #giveUpConnect(slot: Slot<C>): void {
    const cancel = slot.cancelConnect;
    slot.cancelConnect = undefined;
    try {
      cancel?.();
    } catch {
      // Given up all the same; a connect that ends later is closed then.
    }
    if (slot.state === "opening" && this.#isClosed) this.#move(slot, "closed");
  }

  #failAll(error: () => Error): void {
    for (const waiter of this.#waiters.drain()) waiter.failed(error());
  }

  #force(): void {
    const held = [...this.#slots].filter((slot) =>
      slot.state === "inUse" || slot.state === "checking"
    );
    this.#forcedCount += held.length;
    if (held.length > 0) this.#forced = this.#holders();
    for (const slot of held) this.#retire(slot, "close");
    if (this.#report !== undefined) return;
    if (held.length > 0) {
      const dueMs = this.#clock.now() + CLOSE_GRACE_MS;
      this.#foreground.set(this.#closeDeadline, dueMs);
    } else this.#reportClose();
  }

  #finishClose(): void {
    const isDone = this.#open + this.#opening + this.#closing === 0;
    if (this.#isClosed && this.#report === undefined && isDone) {
      this.#reportClose();
    }
  }

  #reportClose(): void {
    this.#report = {
      forced: this.#forcedCount,
      unfinished: this.#closing,
      holders: this.#forced,
    };
    this.#foreground.clearAll();
    this.#background.clearAll();
    this.#events.close?.(this.#report);
    for (const done of this.#closed.splice(0)) done(this.#report);
  }
}

function brokenError(): Error {
  return new Error("The connection was closed or lost");
}

/** A driver that cannot tell has nothing to lend. */
function isBroken(resource: Resource): boolean {
  try {
    return resource.isBroken;
  } catch {
    return true;
  }
}

function closeWhatever(resource: Resource, done: Done): void {
  try {
    resource.close(done);
  } catch (error) {
    done(error);
  }
}
