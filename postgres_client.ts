/**
 * The client for PostgreSQL, `npm:pg`: what is used of it, how it is loaded, and
 * how values go in and come out.
 *
 * @module
 */

import type { Row, SqlParameters } from "./driver.ts";
import { messageOf } from "./errors.ts";

// What is used of the package. Its own types would make it, and the types of
// Node.js, a part of every program that imports this one.

/** What a statement gave. */
export interface PgResult {
  readonly command: string | null;
  readonly rowCount: number | null;
  readonly rows: Row[];
}

/** An error that the server reported. */
export interface PgError extends Error {
  readonly code?: string;
  readonly severity?: string;
}

/** A connection. */
export interface PgClient {
  readonly processID: number | null;
  readonly secretKey: number | null;
  readonly connection: {
    on(event: "parameterStatus", fn: (message: ParameterStatus) => void): void;
    readonly stream: { destroy(): void };
  };
  connect(): Promise<unknown>;
  query(config: PgQuery): Promise<PgResult | PgResult[]>;
  end(): Promise<void>;
  getTransactionStatus(): "I" | "T" | "E" | null;
  on(event: "error" | "end", fn: (error?: unknown) => void): void;
}

interface ParameterStatus {
  readonly parameterName: string;
  readonly parameterValue: string;
}

/** A bare connection, for a request to cancel. */
export interface PgConnection {
  readonly stream: { destroy(): void };
  connect(port: number | string, host?: string): void;
  requestSsl(): void;
  cancel(processId: number, secretKey: number): void;
  on(
    event: "connect" | "sslconnect" | "error" | "end",
    fn: (error?: unknown) => void,
  ): void;
}

/** A request. */
export interface PgQuery {
  readonly text: string;
  readonly values?: unknown[];
  /** In the extended mode the server takes one statement, and refuses more. */
  readonly queryMode?: "extended";
}

/** The package. */
export interface PgModule {
  readonly Client: new (config: Record<string, unknown>) => PgClient;
  readonly Connection: new (config: Record<string, unknown>) => PgConnection;
  readonly types: {
    getTypeParser(oid: number, format?: string): (text: string) => unknown;
    readonly arrayParser: {
      create(text: string, parse: (text: string) => unknown): {
        parse(): unknown;
      };
    };
  };
}

/**
 * The package, as the lock file names it. It is not among the imports of
 * `deno.json`, as `deno task` would download it for every task.
 */
export const PG_SPECIFIER = "npm:pg@^8.23.0";

let loading: Promise<PgModule> | undefined;

/** Loads the package, once. */
export function loadPg(): Promise<PgModule> {
  // A literal name would make the package a part of every program.
  const name: string = PG_SPECIFIER;
  loading ??= import(name).then(
    (module: { default: PgModule }) => module.default,
    (error) => {
      loading = undefined;
      throw new Error(
        `Cannot load '${PG_SPECIFIER}', the client for PostgreSQL, which is ` +
          `downloaded when it is first used: ${messageOf(error)}`,
        { cause: error },
      );
    },
  );
  return loading;
}

const OID = {
  ...{ int8: 20, bytea: 17, date: 1082, timestamp: 1114, timestamptz: 1184 },
  ...{ numeric: 1700 },
};

const ARRAY_OID: Readonly<Record<number, number>> = {
  1016: OID.int8,
  1001: OID.bytea,
  1182: OID.date,
  1115: OID.timestamp,
  1185: OID.timestamptz,
  1231: OID.numeric,
};

/** How the text of a value becomes a value; see the README for the table. */
export function typeParsers(
  pg: PgModule,
): (oid: number, format?: string) => (text: string) => unknown {
  const standard = (oid: number): (text: string) => unknown =>
    pg.types.getTypeParser(oid, "text");
  const toDate = standard(OID.timestamptz);
  const toBytes = standard(OID.bytea);
  const parsers: Record<number, (text: string) => unknown> = {
    [OID.int8]: exactInteger,
    // Digits beyond those of a number are why somebody chose this type.
    [OID.numeric]: (text) => text,
    // A day is no moment.
    [OID.date]: (text) => text,
    // Without a zone, so in a zone that is the same on every machine.
    [OID.timestamp]: (text) =>
      toDate(/infinity$/.test(text) ? text : text.replace(/( BC)?$/, "+00$1")),
    [OID.bytea]: (text) => new Uint8Array(toBytes(text) as Uint8Array),
  };
  for (const [array, element] of Object.entries(ARRAY_OID)) {
    const parse = parsers[element] ?? toDate;
    parsers[Number(array)] = (text) =>
      pg.types.arrayParser.create(text, parse).parse();
  }
  return (oid, format) => parsers[oid] ?? pg.types.getTypeParser(oid, format);
}

function exactInteger(text: string): number | bigint {
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : BigInt(text);
}

/** The parameters of a statement as the package takes them. */
export function boundValues(parameters: SqlParameters): unknown[] {
  if (!Array.isArray(parameters)) {
    throw new TypeError(
      "Cannot bind parameters by name as PostgreSQL knows them by number: give a " +
        "list, for $1, $2 and so on",
    );
  }
  return parameters.map((value, index) => boundValue(value, index + 1));
}

function boundValue(value: unknown, position: number): unknown {
  const refuse = (why: string): never => {
    throw new RangeError(`Cannot bind parameter ${position} as ${why}`);
  };
  if (value === undefined) refuse("it is undefined; use null for NULL");
  if (typeof value === "string") {
    if (value.includes("\0")) {
      refuse("it holds a NUL character, which no text of PostgreSQL may");
    }
    if (!value.isWellFormed()) {
      refuse("it holds half of a surrogate pair, which is no character");
    }
  }
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) refuse("it is an invalid date");
    // Not in the zone of this machine, as the package would write it.
    const year = value.getUTCFullYear();
    if (year > 0 && year < 10_000) return value.toISOString();
  }
  return Array.isArray(value)
    ? value.map((element) => boundValue(element, position))
    : value;
}

/** The SQLSTATE of an error of the server, or the code of one of the system. */
export function sqlStateOf(error: unknown): string | undefined {
  const code = (error as Partial<PgError> | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}
