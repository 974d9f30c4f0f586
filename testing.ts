/**
 * What several test files need: a folder to work in, a process that holds a
 * lock, and a database that fails on demand.
 *
 * @module
 */

import { join } from "@std/path";
import type { ConnectionOptions } from "./config.ts";
import type { Connection, Done, Driver, ExecuteResult, Row } from "./driver.ts";
import { ConnectionPool, type PoolDependencies } from "./pool.ts";
import { VirtualClock } from "./virtual_clock.ts";

/**
 * What a test may do that works with a database file. The published
 * `@db/sqlite` loads SQLite through FFI; with the stand-in nothing is there to
 * be inherited.
 */
export const FILES: Deno.PermissionOptionsObject = {
  read: ["."],
  write: [".tmp"],
  ffi: "inherit",
  env: "inherit",
};

/** The same, and to start Deno. */
export const FILES_AND_PROCESSES: Deno.PermissionOptionsObject = {
  ...FILES,
  run: [Deno.execPath()],
};

/** The same without files: for a database in memory. */
export const MEMORY: Deno.PermissionOptionsObject = {
  ffi: "inherit",
  env: "inherit",
};

/** How a run of the program ended. */
export interface ProjectRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The variables that the task `run` may read. */
export const SERVER_VARIABLES =
  "PG*,DATABASE_URL,USER,USERNAME,HOME,APPDATA,NODE_PG_FORCE_NATIVE";

/** What the task `run` grants. */
const RUN_PERMISSIONS = [
  ...["--allow-read", "--allow-write", "--allow-net"],
  `--allow-env=${SERVER_VARIABLES}`,
];

/** The program as a command, with the permissions of the task `run`. */
export function projectCommand(
  args: readonly string[],
  { permissions = RUN_PERMISSIONS, ...options }: Deno.CommandOptions & {
    permissions?: readonly string[];
  } = {},
): Deno.Command {
  // What the published packages need is given after `deno test … --`, and
  // belongs to no lock file. Of two flags for one thing the narrower counts.
  const isWider = (flag: string): boolean =>
    Deno.args.includes(flag.replace(/=.*/, ""));
  const further = Deno.args.length > 0
    ? Deno.args
    : ["--lock=deno.lock", "--frozen"];
  return new Deno.Command(Deno.execPath(), {
    ...options,
    // Whoever runs the tests may have a database, which is not theirs.
    env: { DATABASE_URL: "", ...options.env },
    args: [
      ...["run", "--no-prompt", "--quiet"],
      ...permissions.filter((flag) => !isWider(flag)),
      ...[...further, "project.ts", ...args],
    ],
  });
}

/** Runs the program to its end. */
export async function runProject(...args: string[]): Promise<ProjectRun> {
  return textOf(await projectCommand(args).output());
}

function textOf({ code, stdout, stderr }: Deno.CommandOutput): ProjectRun {
  const text = new TextDecoder();
  return { code, stdout: text.decode(stdout), stderr: text.decode(stderr) };
}

/** Runs the program to its end with no more permissions than are given. */
export async function callProject(
  args: readonly string[],
  { permissions = [], input = "", env = {} }: {
    permissions?: readonly string[];
    input?: string;
    env?: Record<string, string>;
  } = {},
): Promise<ProjectRun> {
  const child = projectCommand(args, {
    ...{ permissions, env },
    ...{ stdin: "piped", stdout: "piped", stderr: "piped" },
  }).spawn();
  const writer = child.stdin.getWriter();
  // It may end without having read all of it.
  const written = writer.write(new TextEncoder().encode(input))
    .then(() => writer.close()).catch(() => {});
  const output = await child.output();
  await written;
  return textOf(output);
}

/** An empty folder inside `.tmp`, removed at the end of the block. */
export interface TemporaryFolder extends AsyncDisposable {
  /** Where it is. */
  readonly path: string;
  /** A path inside it. */
  file(name: string): string;
}

/** Makes an empty folder. */
export async function temporaryFolder(): Promise<TemporaryFolder> {
  await Deno.mkdir(".tmp", { recursive: true });
  const path = await Deno.makeTempDir({ dir: ".tmp" });
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }),
  };
}

/** A connection to no database, which does what a test tells it to. */
export class FakeConnection implements Connection {
  readonly dialect = "sqlite";
  /** The order in which it was opened, from 1. */
  readonly id: number;
  /** How often each of its methods was called. */
  readonly calls = { reset: 0, ping: 0, close: 0 };
  /** Whether it is closed, or broken in a way that shows. */
  isBroken = false;
  /** What `ping`, `reset` and `close` do instead of succeeding at once. */
  onPing: ((done: Done) => void) | undefined;
  onReset: ((done: Done) => void) | undefined;
  onClose: ((done: Done) => void) | undefined;
  inTransaction = false;

  constructor(id: number) {
    this.id = id;
  }

  get raw(): this {
    return this;
  }

  ping(done: Done): void {
    this.calls.ping++;
    if (this.onPing) this.onPing(done);
    else done();
  }

  reset(done: Done): void {
    this.calls.reset++;
    if (this.onReset) this.onReset(done);
    else done();
  }

  close(done: Done): void {
    this.calls.close++;
    this.isBroken = true;
    if (this.onClose) this.onClose(done);
    else done();
  }

  query(): Promise<Row[]> {
    return Promise.resolve([]);
  }

  execute(): Promise<ExecuteResult> {
    return Promise.resolve({ changes: 0 });
  }

  async *iterate(): AsyncIterableIterator<Row> {}

  begin(): Promise<void> {
    this.inTransaction = true;
    return Promise.resolve();
  }

  commit(): Promise<void> {
    this.inTransaction = false;
    return Promise.resolve();
  }

  rollback(): Promise<void> {
    this.inTransaction = false;
    return Promise.resolve();
  }
}

/** A connect under way that a test brings to its end. */
export interface PendingConnect {
  /** Whether the pool has given up on it. */
  isCancelled: boolean;
  /** Lets it succeed. */
  succeed(): FakeConnection;
  /** Lets it fail. */
  fail(error: Error): void;
}

/** An error that the fake driver takes for permanent. */
export class PermanentError extends Error {}

/** Opens fake connections: at once, or when a test says so. */
export class FakeDriver implements Driver<FakeConnection> {
  isSingleton = false;
  /** Whether connects wait for the test. */
  isManual = false;
  /** What the next connects fail with; undefined lets them succeed. */
  failure: Error | undefined;
  /** How often the pool has tried to connect. */
  attempts = 0;
  /** Every connection that was opened. */
  readonly connections: FakeConnection[] = [];
  /** Connects that wait for the test. */
  readonly pending: PendingConnect[] = [];

  connect(
    done: (error: unknown, connection?: FakeConnection) => void,
  ): (() => void) | void {
    this.attempts++;
    const succeed = (): FakeConnection => {
      const connection = new FakeConnection(this.connections.length + 1);
      this.connections.push(connection);
      done(undefined, connection);
      return connection;
    };
    if (!this.isManual) {
      if (this.failure !== undefined) done(this.failure);
      else succeed();
      return;
    }
    const connect: PendingConnect = {
      isCancelled: false,
      succeed,
      fail: (error) => done(error),
    };
    this.pending.push(connect);
    return () => {
      connect.isCancelled = true;
    };
  }

  isTransient(error: unknown): boolean {
    return !(error instanceof PermanentError);
  }
}

/** A pool of two connections on a fake database and virtual time. */
export function fakePool(
  options: ConnectionOptions = {},
  dependencies: PoolDependencies & { driver?: FakeDriver } = {},
): { pool: ConnectionPool; driver: FakeDriver; clock: VirtualClock } {
  const clock = new VirtualClock();
  const driver = dependencies.driver ?? new FakeDriver();
  const pool = new ConnectionPool({
    // A path, as `:memory:` would be one connection for all.
    ...{ database: "fake.db", poolSize: 2, maxOverflow: 0 },
    ...options,
  }, { clock, random: () => 0.5, ...dependencies, driver });
  return { pool, driver, clock };
}
