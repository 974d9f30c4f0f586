/**
 * The driver for servers that speak PostgreSQL's protocol, on `npm:pg`.
 *
 * The client is loaded when the first connection is opened, so that a program
 * on SQLite never downloads it.
 *
 * @module
 */

import { type Clock, systemClock } from "./clock.ts";
import type { Driver } from "./driver.ts";
import { messageOf } from "./errors.ts";
import {
  loadPg,
  type PgClient,
  type PgError,
  type PgModule,
  sqlStateOf,
  typeParsers,
} from "./postgres_client.ts";
import { PostgresConnection } from "./postgres_connection.ts";
import {
  parsePostgresUrl,
  type PostgresHost,
  type PostgresSettings,
} from "./postgres_url.ts";

/** What a `PostgresDriver` is told. */
export interface PostgresOptions {
  /** A `postgres://` URL, with the parameters that libpq knows. */
  readonly url: string;
  /**
   * How long a connect may take, all hosts together, and the cancelling of a
   * query, in milliseconds.
   */
  readonly timeoutMs: number;
  /** Default: real time. */
  readonly clock?: Clock;
  /**
   * Reads an environment variable, for what the URL leaves open. Default: those
   * that the program has permission to read.
   */
  readonly env?: (name: string) => string | undefined;
}

function readEnvironment(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}

// What passes without anybody doing something: the server starts or stops, or
// has no room; the network fails. By SQLSTATE, then as the system names it.
const TRANSIENT_STATES = /^(08|57P0[123]|53300)/;
const TRANSIENT_CODES: ReadonlySet<string> = new Set([
  ...["ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ETIMEDOUT"],
  ...["EHOSTUNREACH", "EHOSTDOWN", "ENETUNREACH", "ENETDOWN"],
  // A name that is not known yet is one that a container is about to get.
  ...["ENOTFOUND", "EAI_AGAIN"],
]);

const SERIALIZATION_FAILURE = "40001";
const DEADLOCK_DETECTED = "40P01";
/** Marks an error that the network caused, where the client gives no code. */
class UnreachableError extends Error {
  override readonly name: string = "UnreachableError";
  readonly code = "ECONNRESET";
}

/** Opens connections to one server, or to the first that suits of several. */
export class PostgresDriver implements Driver<PostgresConnection> {
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly #settings: PostgresSettings;
  readonly #env: (name: string) => string | undefined;
  /** Hosts that have said that they do not speak TLS. */
  readonly #plainHosts = new Set<string>();

  /** @throws {PostgresUrlError} (of `postgres_url.ts`) if the URL is wrong. */
  constructor(options: PostgresOptions) {
    this.timeoutMs = options.timeoutMs;
    this.clock = options.clock ?? systemClock;
    this.#env = options.env ?? readEnvironment;
    this.#settings = parsePostgresUrl(options.url, this.#env);
  }

  connect(
    done: (error: unknown, connection?: PostgresConnection) => void,
    lost: (error: unknown) => void = () => {},
  ): () => void {
    const attempt = new Attempt();
    this.#open(attempt, lost).then(
      (connection) => {
        if (attempt.isGivenUp) connection.close(() => {});
        else done(undefined, connection);
      },
      (error) => {
        if (!attempt.isGivenUp) done(error);
      },
    );
    return () => {
      if (attempt.isGivenUp) return;
      attempt.giveUp();
      const where = attempt.host ? describeHost(attempt.host) : "The database";
      done(
        new UnreachableError(
          `${where} did not answer within ${this.timeoutMs} ms`,
        ),
      );
    };
  }

  /** See `TRANSIENT_STATES`; not a wrong password, database or certificate. */
  isTransient(error: unknown): boolean {
    const code = sqlStateOf(error);
    if (code === undefined) {
      return /^Connection terminated/.test(messageOf(error));
    }
    return TRANSIENT_CODES.has(code) || TRANSIENT_STATES.test(code);
  }

  isConflict(error: unknown): boolean {
    const code = sqlStateOf(error);
    return code === SERIALIZATION_FAILURE || code === DEADLOCK_DETECTED;
  }

  /** Tries the hosts in their order, as libpq does. */
  async #open(
    attempt: Attempt,
    lost: (error: unknown) => void,
  ): Promise<PostgresConnection> {
    const pg = await loadPg();
    const { hosts, targetSessionAttrs } = this.#settings;
    const failures: unknown[] = [];
    // One that is preferred may be missing, and then any will do.
    const wishes = targetSessionAttrs === "prefer-standby"
      ? ["standby", "any"]
      : [targetSessionAttrs];
    for (const wish of wishes) {
      for (const host of hosts) {
        attempt.host = host;
        try {
          const connection = await this.#reach(pg, host, attempt, lost);
          const flaw = await connection.whyNot(wish);
          if (flaw === undefined) return connection;
          connection.close(() => {});
          failures.push(new UnreachableError(`${describeHost(host)} ${flaw}`));
        } catch (error) {
          // Who was answered, and refused, is refused everywhere.
          if (attempt.isGivenUp || !this.isTransient(error)) throw error;
          failures.push(error);
        }
      }
    }
    if (failures.length === 1) throw failures[0];
    throw new UnreachableError(
      `None of ${hosts.length} hosts will do: ${
        failures.map(messageOf).join("; ")
      }`,
      { cause: failures.at(-1) },
    );
  }

  /** Connects to one host, with TLS or without as `sslmode` says. */
  async #reach(
    pg: PgModule,
    host: PostgresHost,
    attempt: Attempt,
    lost: (error: unknown) => void,
  ): Promise<PostgresConnection> {
    const { sslMode } = this.#settings;
    const name = describeHost(host);
    const ways: boolean[] = host.host.startsWith("/") || sslMode === "disable"
      ? [false]
      : sslMode === "allow" ||
          (sslMode === "prefer" && this.#plainHosts.has(name))
      ? [false, true]
      : sslMode === "prefer"
      ? [true, false]
      : [true];
    for (const [index, usesTls] of ways.entries()) {
      try {
        return await this.#dial(pg, host, usesTls, attempt, lost);
      } catch (error) {
        if (/does not support SSL/.test(messageOf(error))) {
          this.#plainHosts.add(name);
        }
        const isLast = index === ways.length - 1;
        if (isLast || attempt.isGivenUp || this.isTransient(error)) {
          throw withHost(error, host);
        }
      }
    }
    throw new Error("Unreachable");
  }

  async #dial(
    pg: PgModule,
    host: PostgresHost,
    usesTls: boolean,
    attempt: Attempt,
    lost: (error: unknown) => void,
  ): Promise<PostgresConnection> {
    const settings = this.#settings;
    const user = settings.user ?? this.#env("USER") ?? this.#env("USERNAME");
    if (user === undefined) {
      throw new Error(
        "Cannot connect as nobody: name a user, as in 'postgres://user@host/name'",
      );
    }
    const ssl = usesTls && await tlsOptions(settings);
    const client = new pg.Client({
      ...{ host: host.host, port: host.port, user },
      database: settings.database ?? user,
      password: settings.password,
      application_name: settings.applicationName,
      options: settings.options,
      ssl,
      ...(usesTls && { sslnegotiation: settings.sslNegotiation }),
      enableChannelBinding: usesTls && settings.channelBinding !== "disable",
      // A peer that has vanished is noticed by the system, sooner or later.
      keepAlive: true,
      types: { getTypeParser: typeParsers(pg) },
    });
    const connection = new PostgresConnection(client, {
      ...{ clock: this.clock, timeoutMs: this.timeoutMs, lost },
      requestCancel: (processId, secretKey) =>
        this.#requestCancel(pg, host, ssl, processId ?? 0, secretKey ?? 0),
    });
    const limitMs = settings.connectTimeoutMs ??
      this.timeoutMs / settings.hosts.length;
    let isLate = false;
    const timer = this.clock.setTimer(() => {
      isLate = true;
      client.connection.stream.destroy();
    }, limitMs);
    attempt.client = client;
    if (attempt.isGivenUp) attempt.giveUp();
    try {
      await connection.open();
    } catch (error) {
      client.connection.stream.destroy();
      if (!isLate) throw error;
      throw new UnreachableError(
        `${describeHost(host)} did not answer within ${limitMs} ms`,
      );
    } finally {
      timer.clear();
      attempt.client = undefined;
    }
    return connection;
  }

  /**
   * Cancels what a connection is doing, over a connection of its own as the
   * protocol asks. The server closes that when it has passed the request on.
   */
  #requestCancel(
    pg: PgModule,
    { host, port }: PostgresHost,
    ssl: false | Record<string, unknown>,
    processId: number,
    secretKey: number,
  ): Promise<void> {
    const { sslNegotiation } = this.#settings;
    const isDirect = ssl !== false && sslNegotiation === "direct";
    return new Promise((resolve, reject) => {
      const connection = new pg.Connection({ ssl, sslNegotiation });
      const timer = this.clock.setTimer(() => {
        connection.stream.destroy();
        reject(new UnreachableError("The request to cancel was not answered"));
      }, this.timeoutMs);
      let isSent = false;
      const send = (): void => {
        isSent = true;
        connection.cancel(processId, secretKey);
      };
      const end = (error?: unknown): void => {
        timer.clear();
        // Some servers end this connection with less than good manners.
        if (isSent) resolve();
        else reject(error ?? new UnreachableError("The server hung up"));
      };
      connection.on("connect", () => {
        if (ssl === false) send();
        else if (!isDirect) connection.requestSsl();
      });
      connection.on("sslconnect", send);
      connection.on("error", end);
      connection.on("end", end);
      if (host.startsWith("/")) connection.connect(`${host}/.s.PGSQL.${port}`);
      else connection.connect(port, host);
    });
  }
}

/** A connect under way. */
class Attempt {
  isGivenUp = false;
  host: PostgresHost | undefined;
  client: PgClient | undefined;

  giveUp(): void {
    this.isGivenUp = true;
    this.client?.connection.stream.destroy();
  }
}

function describeHost({ host, port }: PostgresHost): string {
  if (host.startsWith("/")) return `${host}/.s.PGSQL.${port}`;
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** The same error, with the host in a message that the system wrote. */
function withHost(error: unknown, host: PostgresHost): unknown {
  if (/password must be a string/.test(messageOf(error))) {
    return new Error(
      `${describeHost(host)} asks for a password: give it in the URL, in ` +
        "PGPASSWORD or in the file ~/.pgpass",
      { cause: error },
    );
  }
  const text = messageOf(error);
  if (!(error instanceof Error) || text.includes(host.host)) return error;
  // What the server says is about more than the way to it.
  if ((error as PgError).severity !== undefined) return error;
  error.message = `${describeHost(host)}: ${text || sqlStateOf(error)}`;
  return error;
}

async function tlsOptions(
  { sslMode, sslRootCert, sslCert, sslKey }: PostgresSettings,
): Promise<Record<string, unknown>> {
  const read = (path: string | undefined): Promise<string> | undefined =>
    path === undefined || path === "system"
      ? undefined
      : Deno.readTextFile(path);
  const [ca, cert, key] = await Promise.all([
    read(sslRootCert),
    read(sslCert),
    read(sslKey),
  ]);
  return {
    rejectUnauthorized: sslMode.startsWith("verify"),
    ...(sslMode === "verify-ca" && { checkServerIdentity: () => undefined }),
    ...(ca !== undefined && { ca }),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
  };
}
