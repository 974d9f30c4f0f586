/**
 * The pools that are compared, each around connections to nothing.
 *
 * None of them checks a connection, and all have room for the same number. This
 * project's pool keeps everything else as it is by default, the timeout of each
 * acquire included. Tarn and sequelize-pool have such a timeout in any case and
 * get the same one; generic-pool and lightning-pool can do without, which is
 * much faster, so they run both ways.
 *
 * @module
 */

import type { Connection, Done, Driver } from "../driver.ts";
import { ConnectionPool } from "../pool.ts";

/** What every pool can do. It is called on the pool itself, with no wrapper. */
export interface Contender<Loan = unknown> {
  acquire(): Promise<Loan>;
  release(loan: Loan): unknown;
}

/** Makes a pool for `max` connections. */
type Maker = (max: number) => Contender | Promise<Contender>;

const ACQUIRE_TIMEOUT_MS = 30_000;

/** Answers everything at once. */
class NullConnection {
  readonly isBroken = false;

  ping(done: Done): void {
    done();
  }

  reset(done: Done): void {
    done();
  }

  close(done: Done): void {
    done();
  }
}

const nullDriver = {
  connect: (done) =>
    // The pool never calls what a holder would call.
    done(undefined, new NullConnection() as unknown as Connection),
  isTransient: () => false,
} satisfies Driver<Connection>;

interface BareWaiter {
  readonly resolve: (connection: NullConnection) => void;
  next: BareWaiter | undefined;
}

/**
 * The least that can be called a pool: an array, and a queue of those for whom
 * nothing is left. It checks nothing, counts nothing and never gives up.
 */
class BareArray implements Contender<NullConnection> {
  readonly #idle: NullConnection[];
  // A list, as taking the first from a long array moves all others.
  #first: BareWaiter | undefined;
  #last: BareWaiter | undefined;

  constructor(max: number) {
    this.#idle = Array.from({ length: max }, () => new NullConnection());
  }

  acquire(): Promise<NullConnection> {
    const connection = this.#idle.pop();
    if (connection !== undefined) return Promise.resolve(connection);
    return new Promise((resolve) => {
      const waiter: BareWaiter = { resolve, next: undefined };
      if (this.#last === undefined) this.#first = waiter;
      else this.#last.next = waiter;
      this.#last = waiter;
    });
  }

  release(connection: NullConnection): void {
    const waiter = this.#first;
    if (waiter === undefined) {
      this.#idle.push(connection);
      return;
    }
    this.#first = waiter.next;
    if (this.#first === undefined) this.#last = undefined;
    waiter.resolve(connection);
  }
}

const create = (): Promise<NullConnection> =>
  Promise.resolve(new NullConnection());
const destroy = (): Promise<void> => Promise.resolve();

// The little of each package that is used here. An import by a literal name
// would give its real types, but the project's own `deno check` and `deno test`
// look at this folder too, and neither know these packages nor should.
type Resource = NullConnection;

interface TarnModule {
  readonly Pool: new (options: {
    create: () => Promise<Resource>;
    destroy: () => Promise<void>;
    min: number;
    max: number;
    acquireTimeoutMillis: number;
  }) => {
    acquire(): { readonly promise: Promise<Resource> };
    release(resource: Resource): boolean;
  };
}

interface SequelizePoolModule {
  readonly Pool: new (options: {
    create: () => Promise<Resource>;
    destroy: () => Promise<void>;
    validate: () => boolean;
    min: number;
    max: number;
    acquireTimeoutMillis: number;
  }) => Contender<Resource>;
}

interface GenericPoolModule {
  readonly createPool: (
    factory: { create: typeof create; destroy: typeof destroy },
    options: {
      min: number;
      max: number;
      testOnBorrow: boolean;
      testOnReturn: boolean;
      acquireTimeoutMillis?: number;
    },
  ) => Contender<Resource>;
}

interface LightningPoolModule {
  readonly Pool: new (
    factory: { create: typeof create; destroy: typeof destroy },
    options: {
      min: number;
      max: number;
      maxQueue: number;
      validation: boolean;
      acquireTimeoutMillis: number;
    },
  ) => Contender<Resource>;
}

async function load<Module>(name: string): Promise<Module> {
  return await import(name) as Module;
}

const genericPool =
  (timeout: { acquireTimeoutMillis?: number }): Maker => async (max) => {
    const { createPool } = await load<GenericPoolModule>("generic-pool");
    return createPool({ create, destroy }, {
      min: 0,
      max,
      testOnBorrow: false,
      testOnReturn: false,
      ...timeout,
    });
  };

const lightningPool = (acquireTimeoutMillis: number): Maker => async (max) => {
  const { Pool } = await load<LightningPoolModule>("lightning-pool");
  return new Pool({ create, destroy }, {
    min: 0,
    max,
    // The default is too few for one of the situations; 0 would mean 1.
    maxQueue: 1_000_000,
    validation: false,
    acquireTimeoutMillis,
  });
};

/** All contenders, under the names that the tables show. */
export const POOL_CONTENDERS = {
  "this pool": (max) =>
    new ConnectionPool({
      poolSize: max,
      maxOverflow: 0,
      validate: "never",
      acquireTimeoutMs: ACQUIRE_TIMEOUT_MS,
    }, { driver: nullDriver }),
  "bare array": (max) => new BareArray(max),
  "tarn": async (max) => {
    const { Pool } = await load<TarnModule>("tarn");
    const pool = new Pool({
      create,
      destroy,
      min: 0,
      max,
      acquireTimeoutMillis: ACQUIRE_TIMEOUT_MS,
    });
    return {
      acquire: () => pool.acquire().promise,
      release: (resource: Resource) => pool.release(resource),
    };
  },
  "generic-pool": genericPool({}),
  "generic-pool, with a timeout": genericPool({
    acquireTimeoutMillis: ACQUIRE_TIMEOUT_MS,
  }),
  "sequelize-pool": async (max) => {
    const { Pool } = await load<SequelizePoolModule>("sequelize-pool");
    return new Pool({
      create,
      destroy,
      validate: () => true,
      min: 0,
      max,
      acquireTimeoutMillis: ACQUIRE_TIMEOUT_MS,
    });
  },
  "lightning-pool": lightningPool(0),
  "lightning-pool, with a timeout": lightningPool(ACQUIRE_TIMEOUT_MS),
} as const satisfies Record<string, Maker>;

/** The name of a contender. */
export type ContenderName = keyof typeof POOL_CONTENDERS;
