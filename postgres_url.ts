/**
 * PostgreSQL connection URLs, and the `PG*` variables of the environment that
 * fill in what they leave out, with the meaning that libpq gives them: a URL
 * that works in `psql` leads to the same place here.
 *
 * Nothing is read or connected to, and no message holds a piece of a URL that
 * may be a password.
 *
 * @module
 */

/** How far a connection is encrypted, and the server's certificate checked. */
export type SslMode =
  | "disable"
  | "allow"
  | "prefer"
  | "require"
  | "verify-ca"
  | "verify-full";

/** Which servers out of several will do. */
export type SessionAttributes =
  | "any"
  | "read-write"
  | "read-only"
  | "primary"
  | "standby"
  | "prefer-standby";

/** One place to look for a server. */
export interface PostgresHost {
  /** A name, an address, or the folder of a Unix socket if it begins with `/`. */
  readonly host: string;
  /** The port; for a Unix socket the end of its file's name. */
  readonly port: number;
}

/** All that a connection URL and the environment say. */
export interface PostgresSettings {
  /** Where to connect, in the order to try; at least one. */
  readonly hosts: readonly PostgresHost[];
  /** Who connects; undefined if nobody said. */
  readonly user: string | undefined;
  /** The password, if there is one. */
  readonly password: string | undefined;
  /** The name of the database; undefined if it is that of the user. */
  readonly database: string | undefined;
  /**
   * Default: `prefer`, as in libpq, and `verify-full` where `sslRootCert` is
   * `system`. `require` with a root certificate is `verify-ca` already.
   */
  readonly sslMode: SslMode;
  /** The file of the root certificates, or `system` for those of the system. */
  readonly sslRootCert: string | undefined;
  /** The file of the client's certificate. */
  readonly sslCert: string | undefined;
  /** The file of the client's key. */
  readonly sslKey: string | undefined;
  /** Whether TLS is asked for first or begins at once. Default: `postgres`. */
  readonly sslNegotiation: "postgres" | "direct";
  /** Whether a login is bound to its TLS channel. Default: `prefer`. */
  readonly channelBinding: "disable" | "prefer" | "require";
  /** `application_name`, else `fallback_application_name`. */
  readonly applicationName: string | undefined;
  /** Command-line options for the server, such as `-c search_path=app`. */
  readonly options: string | undefined;
  /** How long to try each host, in milliseconds; undefined: without end. */
  readonly connectTimeoutMs: number | undefined;
  /** Default: `any`. */
  readonly targetSessionAttrs: SessionAttributes;
}

/**
 * A connection URL, or a variable that completes it, that cannot be understood.
 * The message is a rule such as `must not contain a NUL character`, which reads
 * on from the name of a setting.
 *
 * ```ts
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => parsePostgresUrl("mysql://h", () => undefined), PostgresUrlError, "must begin");
 * ```
 */
export class PostgresUrlError extends SyntaxError {
  /** The name of the class, for logs. */
  override readonly name: string = "PostgresUrlError";
}

// The parameters that are understood, each with the variable that stands in.
const VARIABLES = {
  host: "PGHOST",
  port: "PGPORT",
  user: "PGUSER",
  password: "PGPASSWORD",
  dbname: "PGDATABASE",
  sslmode: "PGSSLMODE",
  sslrootcert: "PGSSLROOTCERT",
  sslcert: "PGSSLCERT",
  sslkey: "PGSSLKEY",
  sslnegotiation: "PGSSLNEGOTIATION",
  channel_binding: "PGCHANNELBINDING",
  application_name: "PGAPPNAME",
  options: "PGOPTIONS",
  connect_timeout: "PGCONNECT_TIMEOUT",
  target_session_attrs: "PGTARGETSESSIONATTRS",
} as const;

type Parameter = keyof typeof VARIABLES;

/**
 * The variables of the environment that `parsePostgresUrl` may ask for, for
 * `--allow-env`.
 *
 * ```ts
 * import { assert } from "@std/assert";
 *
 * assert(POSTGRES_VARIABLES.includes("PGHOST"));
 * ```
 */
export const POSTGRES_VARIABLES: readonly string[] = Object.values(VARIABLES);

// Parameters that change nothing here, with the values for which that is true;
// null where it is true of all.
const WITHOUT_EFFECT: Readonly<Record<string, RegExp | null>> = {
  client_encoding: /^(utf-?8|auto)$/i,
  gssencmode: /^(disable|prefer)$/,
  keepalives: null,
  keepalives_count: null,
  keepalives_idle: null,
  keepalives_interval: null,
  load_balance_hosts: /^disable$/,
  sslcompression: /^0$/,
  sslsni: null,
};

const KNOWN: readonly string[] = [
  ...Object.keys(VARIABLES),
  "fallback_application_name",
  ...Object.keys(WITHOUT_EFFECT),
];

// From the weakest to the strongest.
const SSL_MODES: readonly SslMode[] = [
  "disable",
  "allow",
  "prefer",
  "require",
  "verify-ca",
  "verify-full",
];

const SESSION_ATTRIBUTES: readonly SessionAttributes[] = [
  "any",
  "read-write",
  "read-only",
  "primary",
  "standby",
  "prefer-standby",
];

// The longest delay that a timer of the platform can take: 24.8 days.
const LONGEST_TIMEOUT_S = Math.floor((2 ** 31 - 1) / 1000);

/**
 * The settings that `url` asks for, completed by `env`, which is asked only for
 * what the URL leaves out.
 *
 * As in libpq, a parameter overrides what stands before the path, the last of
 * two equal parameters counts, an empty parameter asks for the default whatever
 * the environment says, and the ports of several hosts are 5432 where they are
 * left out. Unlike in libpq, the default host is `localhost`.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const url = "postgres://me:s%40fe@a,b:5433/shop?connect_timeout=3";
 * const settings = parsePostgresUrl(url, (name) => name === "PGSSLMODE" ? "require" : undefined);
 * assertEquals(settings.hosts, [{ host: "a", port: 5432 }, { host: "b", port: 5433 }]);
 * assertEquals([settings.user, settings.password], ["me", "s@fe"]);
 * assertEquals([settings.database, settings.sslMode], ["shop", "require"]);
 * assertEquals(settings.connectTimeoutMs, 3000);
 * ```
 *
 * @param suggest says which known word an unknown one was meant to be.
 * @throws {PostgresUrlError} if the URL or a variable cannot be understood.
 */
export function parsePostgresUrl(
  url: string,
  env: (name: string) => string | undefined,
  suggest?: (word: string, words: readonly string[]) => string | undefined,
): PostgresSettings {
  const given = parseParts(url, suggest);

  function valueOf(name: Parameter): string | undefined {
    return given.get(name) ?? env(VARIABLES[name]);
  }

  // For messages: the parameter, or the variable, whose value it is.
  function sourceOf(name: Parameter): string {
    return given.has(name) ? name : VARIABLES[name];
  }

  function wordOf<T extends string>(
    name: Parameter,
    words: readonly T[],
    byDefault: T,
  ): T {
    const value = valueOf(name) ?? byDefault;
    const word = words.find((word) => word === value);
    if (word !== undefined) return word;
    fail(
      `must have ${sourceOf(name)} one of ${words.join(", ")}${isNone(value)}`,
    );
  }

  function timeoutOf(name: Parameter): number | undefined {
    const value = valueOf(name) ?? "0";
    const seconds = /^-?\d+$/.test(value) ? Number(value) : NaN;
    if (seconds <= LONGEST_TIMEOUT_S) {
      return seconds > 0 ? seconds * 1000 : undefined;
    }
    fail(
      `must have ${sourceOf(name)} a whole number of seconds up to ` +
        `${LONGEST_TIMEOUT_S}${isNone(value)}`,
    );
  }

  function listOf(name: "host" | "port"): List {
    const text = valueOf(name);
    const isGiven = given.has(name) || text === undefined;
    const where = isGiven ? "" : ` in ${VARIABLES[name]}`;
    return { items: (text ?? "").split(","), where };
  }

  const hosts = pairHosts(listOf("host"), listOf("port"));
  const user = valueOf("user") || undefined;
  if (user === undefined && given.get("password")) {
    fail("must have a user where it has a password");
  }
  const sslRootCert = valueOf("sslrootcert") || undefined;
  const isSystem = sslRootCert === "system";
  const sslMode = wordOf(
    "sslmode",
    SSL_MODES,
    isSystem ? "verify-full" : "prefer",
  );
  const sslNegotiation = wordOf(
    "sslnegotiation",
    ["postgres", "direct"],
    "postgres",
  );
  // Both promise a safety that a weaker mode would not keep.
  if (isSystem) demandMode(sslMode, "verify-full", "sslrootcert=system");
  if (sslNegotiation === "direct") {
    demandMode(sslMode, "require", "sslnegotiation=direct");
  }
  return {
    hosts,
    user,
    password: valueOf("password") || undefined,
    database: valueOf("dbname") || undefined,
    sslMode: sslMode === "require" && sslRootCert ? "verify-ca" : sslMode,
    sslRootCert,
    sslCert: valueOf("sslcert") || undefined,
    sslKey: valueOf("sslkey") || undefined,
    sslNegotiation,
    channelBinding: wordOf(
      "channel_binding",
      ["disable", "prefer", "require"],
      "prefer",
    ),
    applicationName: (valueOf("application_name") ??
      given.get("fallback_application_name")) || undefined,
    options: valueOf("options") || undefined,
    connectTimeoutMs: timeoutOf("connect_timeout"),
    targetSessionAttrs: wordOf(
      "target_session_attrs",
      SESSION_ATTRIBUTES,
      "any",
    ),
  };
}

function demandMode(mode: SslMode, least: SslMode, reason: string): void {
  if (SSL_MODES.indexOf(mode) >= SSL_MODES.indexOf(least)) return;
  fail(
    `must have sslmode ${least} or stronger with ${reason}: '${mode}' is weaker`,
  );
}

// What the URL itself says, under the names of its parameters. What is left
// empty before the query is not said; hosts and ports are lists with commas.
function parseParts(
  url: string,
  suggest: Parameters<typeof parsePostgresUrl>[2],
): Map<string, string> {
  if (url !== url.trim()) fail("must not have white space around it");
  const scheme = /^postgres(?:ql)?:\/\//i.exec(url)?.[0];
  if (scheme === undefined) fail("must begin with 'postgres://'");
  const { credentials, rest } = splitCredentials(url.slice(scheme.length));
  // Every text matches: all groups may be empty, and the last takes all.
  const [, places = "", path = "", query = ""] =
    /^([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(rest) ?? [];
  const [, user = "", password = ""] = /^([^:]*):?(.*)$/s.exec(credentials) ??
    [];
  const list = places.split(",").map(splitPlace);
  const parts = {
    host: list.map(({ host }) => host).join(),
    port: list.map(({ port }) => port).join(),
    user,
    password,
    dbname: path,
  };
  const given = new Map<string, string>();
  for (const [name, text] of Object.entries(parts)) {
    if (text !== "") given.set(name, decode(text));
  }
  parseParameters(query, given, suggest);
  return given;
}

// User and password end at an @ before the first slash. Where there are more, a
// host cannot hold any, so that it is the last before the path or the query,
// and the others belong to the password. A question mark further ahead begins
// either the query, which then holds the @, or is a part of the password, which
// libpq believes; to guess wrong would send the password to another host.
function splitCredentials(text: string): { credentials: string; rest: string } {
  const slash = text.indexOf("/");
  const before = slash < 0 ? text : text.slice(0, slash);
  const first = before.indexOf("@");
  if (first < 0) return { credentials: "", rest: text };
  const question = before.indexOf("?");
  if (question >= 0 && question < first) {
    fail(
      "must have '?' written as %3F in a password, and '@' as %40 in a parameter",
    );
  }
  const places = question < 0 ? before : before.slice(0, question);
  const at = places.lastIndexOf("@");
  if (places.slice(first, at).includes(",")) {
    fail(
      "must have one user for all hosts (in a password, '@' is written as %40)",
    );
  }
  return { credentials: text.slice(0, at), rest: text.slice(at + 1) };
}

// The port is not shown, as it may be a password after which the host is missing
// or which holds a slash.
function splitPlace(place: string): { host: string; port: string } {
  const match = /^(?:\[([^[\]]+)\]|([^[\]:]*))(?::(.*))?$/s.exec(place);
  if (match === null) {
    fail(
      "must have brackets only around an IPv6 address, as in [::1]:5432",
    );
  }
  const [, address, host = "", port = ""] = match;
  if (port !== "" && !isPort(decode(port))) {
    fail(
      "must have a port from 1 to 65535 after the ':' of a host (in a " +
        "password, '/' is written as %2F)",
    );
  }
  return { host: address ?? host, port };
}

function parseParameters(
  query: string,
  given: Map<string, string>,
  suggest: Parameters<typeof parsePostgresUrl>[2],
): void {
  // An unknown name may be what follows an unescaped & or ? in a password.
  const mayBeSecret = /@|pass/i.test(query);
  for (const pair of query.split("&")) {
    if (pair === "") continue;
    const [, key = "", text] = /^([^=]*)(?:=(.*))?$/s.exec(pair) ?? [];
    if (text === undefined) fail("must have each parameter as 'name=value'");
    let [name, value] = [decode(key), decode(text)];
    // From JDBC, by way of libpq.
    if (name === "ssl" && value === "true") {
      [name, value] = ["sslmode", "require"];
    }
    if (!KNOWN.includes(name)) {
      if (mayBeSecret || !isWord(name)) {
        fail(
          "must not have an unknown parameter (in a password, '&' is " +
            "written as %26)",
        );
      }
      const near = suggest?.(name, KNOWN);
      fail(
        `must not have the parameter '${name}'` +
          (near === undefined ? "" : ` (did you mean '${near}'?)`),
      );
    }
    if (WITHOUT_EFFECT[name]?.test(value) === false) {
      fail(
        `must not have ${name}` + (isWord(value) ? `=${value}` : "") +
          ", which is not supported",
      );
    }
    given.set(name, value);
  }
}

interface List {
  readonly items: readonly string[];
  /** Where it stands if not in the URL, for messages. */
  readonly where: string;
}

function pairHosts(hosts: List, ports: List): PostgresHost[] {
  const [hostCount, portCount] = [hosts.items.length, ports.items.length];
  if (portCount !== 1 && portCount !== hostCount) {
    fail(
      `must have as many ports${ports.where} as hosts${hosts.where}, or one ` +
        `for all of them: ${portCount} ports for ${hostCount} hosts`,
    );
  }
  return hosts.items.map((host, i) => {
    const port = ports.items[portCount === 1 ? 0 : i] || "5432";
    if (!isPort(port)) {
      fail(`must have a port from 1 to 65535${ports.where}${isNone(port)}`);
    }
    if (!host.startsWith("/") && /[\s/?#@\\[\]]/.test(host)) {
      fail(
        `must have a host${hosts.where} that is a name, an address without ` +
          "brackets, or a folder from '/' on",
      );
    }
    return { host: host || "localhost", port: Number(port) };
  });
}

function isPort(text: string): boolean {
  return /^\d+$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535;
}

function decode(text: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(text);
  } catch {
    // Not as the cause, which might show the text one day.
    fail(
      "must have each '%' followed by two hexadecimal digits, in UTF-8 " +
        "('%' itself is written as %25)",
    );
  }
  if (decoded.includes("\0")) fail("must not contain a NUL character");
  return decoded;
}

// Anything longer or odder than a word may hold more than it should, as in
// sslmode=require;password=secret.
function isWord(text: string): boolean {
  return /^[\w.,+-]{0,32}$/.test(text);
}

function isNone(value: string): string {
  return isWord(value) ? `: '${value}' is none` : "";
}

function fail(rule: string): never {
  throw new PostgresUrlError(rule);
}
