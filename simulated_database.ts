/**
 * A database that exists only in virtual time: it takes as long, refuses and
 * fails as a scenario says, and its speed follows the number of queries that it
 * works on. The pool meets it as it meets any other, as a `Driver`.
 *
 * @module
 */

import { type Due, DueHeap } from "./deadlines.ts";
import type { Distribution } from "./distributions.ts";
import type { Done, Driver, Resource } from "./driver.ts";
import type { Random } from "./random.ts";
import type { Usl } from "./theory.ts";
import type { VirtualClock } from "./virtual_clock.ts";

/** A span of virtual time. */
export interface Span {
  /** When it begins, in milliseconds. */
  readonly startMs: number;
  /** When it is over, in milliseconds. */
  readonly endMs: number;
}

/** What a simulated database is like. */
export interface DatabaseTraits {
  /** How long opening a connection takes. */
  readonly connect: Distribution;
  /** How long an answer to a ping takes. */
  readonly ping: Distribution;
  /** Queries share so many cores equally. If not set, each has its own. */
  readonly cores: number | undefined;
  /**
   * Queries slow one another down by the Universal Scalability Law. Its
   * `lambda` is in queries per millisecond. If not set, they do not.
   */
  readonly usl: Usl | undefined;
  /** More connections than that are refused, if it is set. */
  readonly maxConnections: number | undefined;
  /** When it is away: connections break, and new ones are refused. */
  readonly outages: readonly Span[];
  /** When it works `factor` times as slowly. */
  readonly slowdowns: readonly (Span & { readonly factor: number })[];
  /** The chance that a connect fails. */
  readonly connectFailure: number;
  /** How long a connection lives until it breaks, if it does. */
  readonly drop: Distribution | undefined;
}

/** A query that the database works on, and what happens when it is done. */
export interface Work extends Due {
  /** Where it runs. */
  connection: SimulatedConnection | undefined;
  /** Called once: it is done, or the connection broke under it. */
  ended(error: Error | undefined): void;
}

// How soon a server that is away, or full, refuses.
const REFUSAL_MS = 1;

/** A connection to a `SimulatedDatabase`. */
export class SimulatedConnection implements Resource {
  readonly #database: SimulatedDatabase;
  readonly #lost: (error: unknown) => void;
  /** The query that runs on it. */
  work: Work | undefined;
  isBroken = false;

  constructor(database: SimulatedDatabase, lost: (error: unknown) => void) {
    this.#database = database;
    this.#lost = lost;
  }

  ping(done: Done): void {
    this.#database.ping(this, done);
  }

  reset(done: Done): void {
    done();
  }

  close(done: Done): void {
    this.#database.forget(this);
    done();
  }

  /** Breaks it, as when the server went away. */
  breakDown(): void {
    if (this.isBroken) return;
    this.isBroken = true;
    this.#database.forget(this);
    const error = new Error("The connection was lost");
    const { work } = this;
    if (work !== undefined) this.#database.giveUp(work, error);
    this.#lost(error);
  }
}

/**
 * A database on a virtual clock.
 *
 * All queries under way progress at one rate, which depends on how many they
 * are. So it is enough to keep how far a query that began at time 0 would be by
 * now: one that begins now is done when that has grown by its own work. When the
 * rate changes, no query has to be touched.
 */
export class SimulatedDatabase implements Driver<SimulatedConnection> {
  readonly #clock: VirtualClock;
  readonly #random: Random;
  readonly #traits: DatabaseTraits;
  readonly #sharesCapacity: boolean;
  readonly #connections = new Set<SimulatedConnection>();
  /** The queries under way, by the progress at which they are done. */
  readonly #works = new DueHeap<Work>();
  /** The progress at `#sinceMs`, and how fast it has grown since then. */
  #progress = 0;
  #sinceMs = 0;
  #rate = 1;
  #slowness = 1;
  #outages = 0;
  #opening = 0;
  /** When the next query is done, unless something happens before. */
  dueMs = Infinity;
  /** How many connects were tried. */
  connectAttempts = 0;
  /** The most connections that were open at once. */
  mostConnections = 0;

  constructor(traits: DatabaseTraits, clock: VirtualClock, random: Random) {
    this.#traits = traits;
    this.#clock = clock;
    this.#random = random;
    this.#sharesCapacity = traits.cores !== undefined ||
      traits.usl !== undefined;
    for (const { startMs, endMs } of traits.outages) {
      clock.setTimer(() => this.#goAway(), startMs);
      clock.setTimer(() => this.#outages--, endMs);
    }
    for (const { startMs, endMs, factor } of traits.slowdowns) {
      clock.setTimer(() => this.#slow(factor), startMs);
      clock.setTimer(() => this.#slow(1 / factor), endMs);
    }
  }

  /** How many queries are under way. */
  get busy(): number {
    return this.#works.size;
  }

  connect(
    done: (error: unknown, connection?: SimulatedConnection) => void,
    lost: (error: unknown) => void,
  ): void {
    this.connectAttempts++;
    const { connect, connectFailure, maxConnections = Infinity } = this.#traits;
    const refuse = (why: string): void => {
      this.#clock.setTimer(() => done(new Error(why)), REFUSAL_MS);
    };
    if (this.#outages > 0) return refuse("The database is away");
    if (this.#connections.size + this.#opening >= maxConnections) {
      return refuse("The database has too many connections");
    }
    this.#opening++;
    const fails = connectFailure > 0 && this.#random() < connectFailure;
    this.#clock.setTimer(() => {
      this.#opening--;
      if (this.#outages > 0) return done(new Error("The database went away"));
      if (fails) return done(new Error("The connect failed"));
      done(undefined, this.#open(lost));
    }, connect.sample(this.#random));
  }

  isTransient(): boolean {
    return true;
  }

  #open(lost: (error: unknown) => void): SimulatedConnection {
    const connection = new SimulatedConnection(this, lost);
    this.#connections.add(connection);
    this.mostConnections = Math.max(
      this.mostConnections,
      this.#connections.size,
    );
    const { drop } = this.#traits;
    if (drop !== undefined) {
      this.#clock.setTimer(
        () => connection.breakDown(),
        drop.sample(this.#random),
      );
    }
    return connection;
  }

  /** Notes that a connection is closed. */
  forget(connection: SimulatedConnection): void {
    this.#connections.delete(connection);
  }

  /** Answers a ping, in its time. */
  ping(connection: SimulatedConnection, done: Done): void {
    const answer = (): void =>
      done(connection.isBroken ? new Error("The ping failed") : undefined);
    const ms = this.#traits.ping.sample(this.#random);
    if (ms > 0) this.#clock.setTimer(answer, ms);
    else answer();
  }

  /** Begins a query that takes `ms` milliseconds when it is alone. */
  start(work: Work, connection: SimulatedConnection, ms: number): void {
    const nowMs = this.#clock.now();
    work.connection = connection;
    connection.work = work;
    this.#works.add(work, this.#progressAt(nowMs) + ms);
    this.#countChanged(nowMs);
  }

  /** Ends the query that is due, now. */
  endNext(): void {
    const work = this.#works.first;
    if (work !== undefined) this.giveUp(work, undefined);
  }

  /** Ends a query before its time, or in its time without an error. */
  giveUp(work: Work, error: Error | undefined): void {
    this.#works.remove(work);
    this.#countChanged(this.#clock.now());
    if (work.connection !== undefined) work.connection.work = undefined;
    work.connection = undefined;
    work.ended(error);
  }

  #progressAt(nowMs: number): number {
    return this.#progress + (nowMs - this.#sinceMs) * this.#rate;
  }

  #countChanged(nowMs: number): void {
    if (this.#sharesCapacity) this.#setRate(nowMs);
    const first = this.#works.first;
    // Progress and time differ by rounding, and time must not go back.
    this.dueMs = first === undefined ? Infinity : Math.max(
      nowMs,
      this.#sinceMs + (first.dueMs - this.#progress) / this.#rate,
    );
  }

  #setRate(nowMs: number): void {
    this.#progress = this.#progressAt(nowMs);
    this.#sinceMs = nowMs;
    this.#rate = this.#speed(this.#works.size) / this.#slowness;
  }

  /** How fast each of `n` queries progresses, next to one that is alone. */
  #speed(n: number): number {
    const { cores = Infinity, usl } = this.#traits;
    let speed = n > cores ? cores / n : 1;
    if (usl !== undefined && n > 1) {
      // X(n) / n next to X(1), by Gunther's law.
      speed /= 1 + usl.alpha * (n - 1) + usl.beta * n * (n - 1);
    }
    return speed;
  }

  #slow(factor: number): void {
    const nowMs = this.#clock.now();
    this.#slowness *= factor;
    this.#setRate(nowMs);
    this.#countChanged(nowMs);
  }

  #goAway(): void {
    this.#outages++;
    for (const connection of [...this.#connections]) connection.breakDown();
  }
}
