import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  parsePostgresUrl,
  POSTGRES_VARIABLES,
  type PostgresSettings,
  PostgresUrlError,
} from "./postgres_url.ts";
import { nearest } from "./rules.ts";

const permissions = "none";

type Variables = Readonly<Record<string, string>>;

function parse(url: string, variables: Variables = {}): PostgresSettings {
  return parsePostgresUrl(url, (name) => {
    assert(POSTGRES_VARIABLES.includes(name), name);
    return variables[name];
  }, nearest);
}

function messageOf(url: string, variables: Variables = {}): string {
  const error = assertThrows(
    () => parse(url, variables),
    PostgresUrlError,
    "must ",
    JSON.stringify(url),
  );
  assert(/^must [^\n]*[^.\n]$/.test(error.message), error.message);
  return error.message;
}

/** In short: `a:1,b:2`. */
function hostsOf(url: string, variables: Variables = {}): string {
  return parse(url, variables).hosts
    .map(({ host, port }) => `${host}:${port}`).join();
}

const NOTHING_SAID: PostgresSettings = {
  hosts: [{ host: "localhost", port: 5432 }],
  user: undefined,
  password: undefined,
  database: undefined,
  sslMode: "prefer",
  sslRootCert: undefined,
  sslCert: undefined,
  sslKey: undefined,
  sslNegotiation: "postgres",
  channelBinding: "prefer",
  applicationName: undefined,
  options: undefined,
  connectTimeoutMs: undefined,
  targetSessionAttrs: "any",
};

Deno.test({
  name: "parsePostgresUrl() has libpq's defaults for what nobody says",
  permissions,
  fn() {
    const cases = [
      ...["postgres://", "postgresql://", "POSTGRES://", "PostgreSQL:///"],
      ...["postgres://?", "postgres://@", "postgres://:@/", "postgres://:/"],
      ...["postgres:///?&", "postgres://?host=&port=&user=&password=&dbname="],
    ];
    for (const url of cases) assertEquals(parse(url), NOTHING_SAID, url);
  },
});

Deno.test({
  name: "parsePostgresUrl() finds user, password, host, port and database",
  permissions,
  fn() {
    const url = "postgres://me:secret@db.example.com:6432/shop";
    const expected: PostgresSettings = {
      ...NOTHING_SAID,
      hosts: [{ host: "db.example.com", port: 6432 }],
      user: "me",
      password: "secret",
      database: "shop",
    };
    assertEquals(parse(url), expected);
    const inParameters = "postgresql://?host=db.example.com&port=6432&user=me" +
      "&password=secret&dbname=shop";
    assertEquals(parse(inParameters), expected);
    // Each part may be missing.
    const cases: [string, Partial<PostgresSettings>][] = [
      ["postgres://me@", { user: "me" }],
      ["postgres://me@/shop", { user: "me", database: "shop" }],
      ["postgres://me:@", { user: "me" }],
      ["postgres:///shop", { database: "shop" }],
      ["postgres:///a/b@c:d#e", { database: "a/b@c:d#e" }],
      ["postgres://@x", { hosts: [{ host: "x", port: 5432 }] }],
      ["postgres://:1/", { hosts: [{ host: "localhost", port: 1 }] }],
    ];
    for (const [url, parts] of cases) {
      assertEquals(parse(url), { ...NOTHING_SAID, ...parts }, url);
    }
  },
});

Deno.test({
  name: "parsePostgresUrl() takes several hosts, and folders of Unix sockets",
  permissions,
  fn() {
    const cases: [string, string, Variables?][] = [
      ["postgres://a,b", "a:5432,b:5432"],
      ["postgres://a:1,b:65535/x", "a:1,b:65535"],
      ["postgres://a,b:2,c?user=u", "a:5432,b:2,c:5432"],
      ["postgres://u:p@,a", "localhost:5432,a:5432"],
      ["postgres://[::1]", "::1:5432"],
      [
        "postgres://[::1]:7,[fe80::1%25eth0],c",
        "::1:7,fe80::1%eth0:5432,c:5432",
      ],
      ["postgres://%2Fvar%2Frun%2Fpostgresql/x", "/var/run/postgresql:5432"],
      ["postgres://%2Fmy%20folder:7,b", "/my folder:7,b:5432"],
      ["postgres:///x?host=/tmp", "/tmp:5432"],
      ["postgres://?host=::1,b", "::1:5432,b:5432"],
      ["postgres://?host=a,b&port=1,2", "a:1,b:2"],
      ["postgres://?host=a,b,c&port=1", "a:1,b:1,c:1"],
      ["postgres://a,b?port=1", "a:1,b:1"],
      ["postgres://a:3,b:4?port=1,", "a:1,b:5432"],
      ["postgres://a:3/x?host=b", "b:3"],
      ["postgres://a?host=", "localhost:5432"],
      ["postgres://", "a:1,b:2", { PGHOST: "a,b", PGPORT: "1,2" }],
      ["postgres://", "/tmp:6", { PGHOST: "/tmp", PGPORT: "6" }],
      ["postgres://a", "a:6", { PGHOST: "b", PGPORT: "6" }],
      ["postgres://:7", "b:7", { PGHOST: "b", PGPORT: "6" }],
      // As libpq has it, the ports of a list are said even where left out.
      ["postgres://a,b", "a:5432,b:5432", { PGPORT: "6" }],
      ["postgres://?host=a,b", "a:6,b:6", { PGPORT: "6" }],
    ];
    for (const [url, hosts, variables] of cases) {
      assertEquals(hostsOf(url, variables), hosts, url);
    }
  },
});

Deno.test({
  name: "parsePostgresUrl() decodes percent-encoding in every part",
  permissions,
  fn() {
    const settings = parse(
      "postgres://%C3%BCser%40x:p%3Aw%2Fd%3f@%68ost:54%332/d%20b%2Fc" +
        "?o%70tions=-c%20a%3Db%26c&application_name=a+b%2B",
    );
    assertEquals(settings.user, "üser@x");
    assertEquals(settings.password, "p:w/d?");
    assertEquals(settings.hosts, [{ host: "host", port: 5432 }]);
    assertEquals(settings.database, "d b/c");
    assertEquals(settings.options, "-c a=b&c");
    assertEquals(settings.applicationName, "a+b+");
  },
});

Deno.test({
  name: "parsePostgresUrl() takes an unescaped password where it is clear",
  permissions,
  fn() {
    const cases: [string, string, string, string][] = [
      ["postgres://u:a:b@h/d", "u", "a:b", "h"],
      ["postgres://u:a@b@h/d", "u", "a@b", "h"],
      ["postgres://u:@@h:5432/d@e", "u", "@", "h"],
      ["postgres://u:a b#[]!$&'()*+,;=@h", "u", "a b#[]!$&'()*+,;=", "h"],
      ["postgres://u:a,b@h1", "u", "a,b", "h1"],
      ["postgres://u:p@h?user=me@tenant", "me@tenant", "p", "h"],
      ["postgres://u:p@h/d?password=a@b=", "u", "a@b=", "h"],
      ["postgres://u:p@h/?password=a%26b?c/d", "u", "a&b?c/d", "h"],
    ];
    for (const [url, user, password, host] of cases) {
      const settings = parse(url);
      assertEquals([settings.user, settings.password], [user, password], url);
      assertEquals(settings.hosts, [{ host, port: 5432 }], url);
    }
  },
});

Deno.test({
  name: "parsePostgresUrl() lets parameters override, and the last one count",
  permissions,
  fn() {
    const settings = parse(
      "postgres://a:b@c:1/d?user=u&password=p&host=h&port=2&dbname=x" +
        "&sslmode=disable&sslmode=allow&password=q",
    );
    assertEquals(settings, {
      ...NOTHING_SAID,
      hosts: [{ host: "h", port: 2 }],
      user: "u",
      password: "q",
      database: "x",
      sslMode: "allow",
    });
    const emptied = parse("postgres://a:b@c/d?dbname=&password=");
    assertEquals([emptied.database, emptied.password], [undefined, undefined]);
  },
});

Deno.test({
  name: "parsePostgresUrl() understands all parameters of a hosted database",
  permissions,
  fn() {
    const url = "postgresql://u:p@ep-x.eu.neon.tech/db?sslmode=verify-full" +
      "&channel_binding=require&application_name=app&options=-c%20a%3Db" +
      "&connect_timeout=10&target_session_attrs=read-write&sslrootcert=/r.pem" +
      "&sslcert=/c.pem&sslkey=/k.pem&sslnegotiation=direct";
    assertEquals(parse(url), {
      hosts: [{ host: "ep-x.eu.neon.tech", port: 5432 }],
      user: "u",
      password: "p",
      database: "db",
      sslMode: "verify-full",
      sslRootCert: "/r.pem",
      sslCert: "/c.pem",
      sslKey: "/k.pem",
      sslNegotiation: "direct",
      channelBinding: "require",
      applicationName: "app",
      options: "-c a=b",
      connectTimeoutMs: 10_000,
      targetSessionAttrs: "read-write",
    });
  },
});

const ENVIRONMENT: Variables = {
  PGHOST: "eh",
  PGPORT: "7",
  PGUSER: "eu",
  PGPASSWORD: "ep",
  PGDATABASE: "ed",
  PGSSLMODE: "verify-ca",
  PGSSLROOTCERT: "er",
  PGSSLCERT: "ec",
  PGSSLKEY: "ek",
  PGSSLNEGOTIATION: "direct",
  PGCHANNELBINDING: "disable",
  PGAPPNAME: "ea",
  PGOPTIONS: "eo",
  PGCONNECT_TIMEOUT: "2",
  PGTARGETSESSIONATTRS: "standby",
};

Deno.test({
  name: "parsePostgresUrl() takes from the environment what the URL leaves out",
  permissions,
  fn() {
    assertEquals(
      Object.keys(ENVIRONMENT).sort(),
      [...POSTGRES_VARIABLES].sort(),
    );
    assertEquals(parse("postgres://", ENVIRONMENT), {
      hosts: [{ host: "eh", port: 7 }],
      user: "eu",
      password: "ep",
      database: "ed",
      sslMode: "verify-ca",
      sslRootCert: "er",
      sslCert: "ec",
      sslKey: "ek",
      sslNegotiation: "direct",
      channelBinding: "disable",
      applicationName: "ea",
      options: "eo",
      connectTimeoutMs: 2000,
      targetSessionAttrs: "standby",
    });
    assertEquals(parse("postgres://:p@h", { PGUSER: "u" }).password, "p");
  },
});

Deno.test({
  name: "parsePostgresUrl() asks the environment for nothing that the URL says",
  permissions,
  fn() {
    const url = "postgres://u:p@h:1/d?sslmode=disable&sslrootcert=&sslcert=" +
      "&sslkey=&sslnegotiation=postgres&channel_binding=prefer" +
      "&application_name=&options=&connect_timeout=0&target_session_attrs=any";
    const settings = parsePostgresUrl(url, (name) => {
      throw new Deno.errors.NotCapable(name);
    });
    assertEquals(settings, {
      ...NOTHING_SAID,
      hosts: [{ host: "h", port: 1 }],
      user: "u",
      password: "p",
      database: "d",
      sslMode: "disable",
    });
  },
});

Deno.test({
  name: "parsePostgresUrl() never checks certificates less than libpq does",
  permissions,
  fn() {
    const cases: [string, string][] = [
      ["", "prefer"],
      ["ssl=true", "require"],
      ["application_name=true", "prefer"],
      ["sslmode=require", "require"],
      ["sslmode=require&sslrootcert=", "require"],
      ["sslmode=require&sslrootcert=a", "verify-ca"],
      ["sslmode=prefer&sslrootcert=a", "prefer"],
      ["sslmode=verify-full&sslrootcert=a", "verify-full"],
      ["sslrootcert=system", "verify-full"],
      ["sslmode=require&sslnegotiation=direct", "require"],
    ];
    for (const [query, mode] of cases) {
      assertEquals(parse(`postgres://h?${query}`).sslMode, mode, query);
    }
    const url = "postgres://h?sslmode=require";
    assertEquals(parse(url, { PGSSLROOTCERT: "a" }).sslMode, "verify-ca");
    assertEquals(
      messageOf(`${url}&sslrootcert=system`),
      "must have sslmode verify-full or stronger with sslrootcert=system: " +
        "'require' is weaker",
    );
    assertEquals(
      messageOf("postgres://h?sslnegotiation=direct"),
      "must have sslmode require or stronger with sslnegotiation=direct: " +
        "'prefer' is weaker",
    );
  },
});

Deno.test({
  name: "parsePostgresUrl() names the application as libpq does",
  permissions,
  fn() {
    const cases: [string, Variables, string | undefined][] = [
      ["fallback_application_name=f", {}, "f"],
      ["fallback_application_name=f", { PGAPPNAME: "e" }, "e"],
      ["fallback_application_name=f&application_name=a", {}, "a"],
      ["fallback_application_name=f&application_name=", {}, undefined],
    ];
    for (const [query, variables, name] of cases) {
      const { applicationName } = parse(`postgres://h?${query}`, variables);
      assertEquals(applicationName, name, query);
    }
  },
});

Deno.test({
  name: "parsePostgresUrl() takes whole seconds to connect, and 0 for no limit",
  permissions,
  fn() {
    const cases: [string, number | undefined][] = [
      ["1", 1000],
      ["2147483", 2_147_483_000],
      ["0", undefined],
      ["-1", undefined],
    ];
    for (const [seconds, ms] of cases) {
      const url = `postgres://h?connect_timeout=${seconds}`;
      assertEquals(parse(url).connectTimeoutMs, ms, seconds);
    }
    for (const seconds of ["", "1.5", "2s", "2147484", "1e3", "0x10", " 1"]) {
      const url = `postgres://h?connect_timeout=${seconds}`;
      assertStringIncludes(messageOf(url + "&user=u"), "seconds up to 2147483");
    }
  },
});

Deno.test({
  name: "parsePostgresUrl() accepts parameters of libpq that change nothing",
  permissions,
  fn() {
    const accepted = [
      ...["gssencmode=disable", "gssencmode=prefer"],
      ...["client_encoding=UTF8", "client_encoding=utf-8"],
      ...["client_encoding=auto", "keepalives=0", "keepalives_idle=3"],
      ...["keepalives_interval=3", "keepalives_count=3", "sslsni=1"],
      ...["load_balance_hosts=disable", "sslcompression=0"],
    ];
    for (const query of accepted) {
      assertEquals(parse(`postgres://?${query}`), NOTHING_SAID, query);
    }
    const refused = [
      ...["gssencmode=require", "client_encoding=LATIN1", "client_encoding="],
      ...["load_balance_hosts=random", "sslcompression=1"],
    ];
    for (const query of refused) {
      assertEquals(
        messageOf(`postgres://h?${query}`),
        `must not have ${query}, which is not supported`,
      );
    }
  },
});

Deno.test({
  name: "parsePostgresUrl() says in one line what is wrong",
  permissions,
  fn() {
    const port = "must have a port from 1 to 65535";
    const cases: [string, string, Variables?][] = [
      ["", "must begin with 'postgres://'"],
      ["mysql://h", "must begin with 'postgres://'"],
      ["postgres:/h", "must begin with 'postgres://'"],
      [" postgres://h", "must not have white space around it"],
      ["postgres://h\n", "must not have white space around it"],
      ["postgres://h\0", "must not contain a NUL character"],
      ["postgres://a%00b", "must not contain a NUL character"],
      ["postgres://h?user=%00", "must not contain a NUL character"],
      ["postgres://%", "must have each '%' followed by two hexadecimal digits"],
      ["postgres://u:%zz@h", "must have each '%' followed by two"],
      ["postgres://h/%1", "must have each '%' followed by two"],
      ["postgres://h?%F=1", "must have each '%' followed by two"],
      ["postgres://h?user=%FF", "must have each '%' followed by two"],
      ["postgres://:p@h", "must have a user where it has a password"],
      ["postgres://h?password=p", "must have a user where it has a password"],
      ["postgres://h:0", `${port} after the ':' of a host`],
      ["postgres://h:65536", `${port} after the ':' of a host`],
      ["postgres://h:70000", `${port} after the ':' of a host`],
      ["postgres://h:-1", `${port} after the ':' of a host`],
      ["postgres://h:1.5", `${port} after the ':' of a host`],
      ["postgres://a:1,b:x", `${port} after the ':' of a host`],
      ["postgres://::1", `${port} after the ':' of a host`],
      ["postgres://h?port=abc", `${port}: 'abc' is none`],
      ["postgres://h?port=0", `${port}: '0' is none`],
      ["postgres://h", `${port} in PGPORT: 'abc' is none`, { PGPORT: "abc" }],
      ["postgres://[::1", "must have brackets only around an IPv6 address"],
      ["postgres://[]", "must have brackets only around an IPv6 address"],
      ["postgres://[::1]x", "must have brackets only around an IPv6 address"],
      ["postgres://a]", "must have brackets only around an IPv6 address"],
      ["postgres://[[::1]]", "must have brackets only around an IPv6 address"],
      ["postgres://a b", "must have a host that is a name, an address without"],
      ["postgres://a%40b", "must have a host that is a name"],
      ["postgres://h?host=[::1]", "must have a host that is a name"],
      ["postgres://", "must have a host in PGHOST that is", { PGHOST: "a/b" }],
      [
        "postgres://a,b,c?port=1,2",
        "must have as many ports as hosts, or one for all of them: " +
        "2 ports for 3 hosts",
      ],
      [
        "postgres://a:1,b:2?host=c",
        "must have as many ports as hosts, or one for all of them: " +
        "2 ports for 1 hosts",
      ],
      [
        "postgres://?host=a",
        "must have as many ports in PGPORT as hosts",
        { PGPORT: "1,2" },
      ],
      ["postgres://u:a?b@h", "must have '?' written as %3F in a password"],
      ["postgres://h?user=a@b", "must have '?' written as %3F in a password"],
      ["postgres://u:p@a,u:p@b", "must have one user for all hosts"],
      ["postgres://h?zzz", "must have each parameter as 'name=value'"],
      [
        "postgres://h?sslmod=require",
        "must not have the parameter 'sslmod' (did you mean 'sslmode'?)",
      ],
      ["postgres://h?banana=1", "must not have the parameter 'banana'"],
      ["postgres://h?__proto__=1", "must not have the parameter '__proto__'"],
      ["postgres://h?SSLMODE=allow", "must not have the parameter 'SSLMODE'"],
      ["postgres://h?ssl=1", "must not have the parameter 'ssl'"],
      ["postgres://h?a%0Ab=1", "must not have an unknown parameter"],
      [
        "postgres://h?sslmode=yes",
        "must have sslmode one of disable, allow, prefer, require, verify-ca, " +
        "verify-full: 'yes' is none",
      ],
      ["postgres://h?sslmode=", "verify-full: '' is none"],
      ["postgres://h?sslmode=a%0Ab", "verify-ca, verify-full"],
      [
        "postgres://h",
        "must have PGSSLMODE one of disable, allow, prefer, require, " +
        "verify-ca, verify-full: 'yes' is none",
        { PGSSLMODE: "yes" },
      ],
      [
        "postgres://h?channel_binding=yes",
        "must have channel_binding one of disable, prefer, require: 'yes' is",
      ],
      [
        "postgres://h?sslnegotiation=tls",
        "must have sslnegotiation one of postgres, direct: 'tls' is none",
      ],
      [
        "postgres://h?target_session_attrs=rw",
        "must have target_session_attrs one of any, read-write, read-only, " +
        "primary, standby, prefer-standby: 'rw' is none",
      ],
      [
        "postgres://h",
        "must have PGCONNECT_TIMEOUT a whole number of seconds up to 2147483: " +
        "'soon' is none",
        { PGCONNECT_TIMEOUT: "soon" },
      ],
    ];
    for (const [url, message, variables] of cases) {
      assertStringIncludes(messageOf(url, variables), message, url);
    }
  },
});

Deno.test({
  name: "PostgresUrlError is a SyntaxError that names its class",
  permissions,
  fn() {
    const error = assertThrows(() => parse("x"), PostgresUrlError);
    assertInstanceOf(error, SyntaxError);
    assertEquals(error.name, "PostgresUrlError");
    const url = "postgres://h?sslmod=require";
    const message = "must not have the parameter 'sslmod'";
    const unsuggested = assertThrows(
      () => parsePostgresUrl(url, () => undefined),
      PostgresUrlError,
    );
    assertEquals(unsuggested.message, message);
  },
});

// Each part would give the password away.
const ODD_PASSWORDS = [
  "hunter2",
  "hunter2@hunter2",
  "hunter2:hunter2",
  "hunter2/hunter2",
  "hunter2?hunter2",
  "hunter2?hunter2=hunter2",
  "hunter2,hunter2",
  "@hunter2,hunter2",
  "hunter2[hunter2",
  "hunter2%hunter2",
  "hunter2%00hunter2",
  "hunter2&hunter2=hunter2",
  "@hunter2/:?#[]hunter2",
  "hunter2 \nhunter2",
];

Deno.test({
  name: "PostgresUrlError never shows a password, whatever is in it",
  permissions,
  fn() {
    const urls = ODD_PASSWORDS.flatMap((password) => [
      `postgres://u:${password}@h/x`,
      `postgres://u:${password}@h:99999/x`,
      `postgres://u:${password}@h/x?sslmode=yes`,
      `postgres://u:${password}@h/x?sslmod=require`,
      `postgres://:${password}@h`,
      `postgres://u:${password}`,
      `postgres://u:${password}:5432/x`,
      `postgres://u@h:${password}`,
      `postgres://u@h/x?password=${password}`,
      `postgres://u@h/x?sslmod=require&password=${password}`,
      `postgres://u@h/x?passwort=${password}`,
      `postgres://u@h/x?sslmode=require;password=${password}`,
      `postgres://u@h/x?sslmode=require?password=${password}`,
      `postgres://u@h/x?gssencmode=require?password=${password}`,
      `postgres://u@h/x?port=5432?password=${password}`,
      `mysql://u:${password}@h`,
    ]).concat([
      // Which look like a port, a database and a parameter.
      "postgres://u:1/hunter2?hunter2=hunter2@h/x",
      "postgres://u:1/hunter2?sslmode=hunter2@h/x",
    ]);
    let failures = 0;
    for (const url of urls) {
      try {
        parse(url);
      } catch (error) {
        assertInstanceOf(error, PostgresUrlError);
        const shown = Deno.inspect(error) + Deno.inspect(error.cause);
        assert(!/hunter2/.test(shown), `${JSON.stringify(url)}: ${shown}`);
        failures++;
      }
    }
    assert(failures > urls.length / 2, `${failures}`);
  },
});

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
function randomFrom(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function checkRoundTrip(seed: number): void {
  const random = randomFrom(seed);
  const upTo = (n: number): number => Math.floor(random() * n);
  const oneOf = <T>(values: readonly T[]): T =>
    values[upTo(values.length)] as T;
  // Never empty, and full of what a URL is cut at.
  const text = (): string =>
    Array.from(
      { length: 1 + upTo(8) },
      () => oneOf([..."ab1@:/?#[]&=%+ ,;.-_'\"\\\tüß😀\u{10ffff}"]),
    ).join("");
  const maybe = <T>(make: () => T): T | undefined =>
    random() < 0.5 ? make() : undefined;
  const encode = encodeURIComponent;

  const places = Array.from({ length: 1 + upTo(3) }, () => ({
    host: oneOf(["", "a", "b.example", "10.0.0.1", "::1", "/run/x y", "/a:@?"]),
    port: maybe(() => 1 + upTo(65_535)),
  }));
  const expected: PostgresSettings = {
    ...NOTHING_SAID,
    hosts: places.map(({ host, port }) => ({
      host: host || "localhost",
      port: port ?? 5432,
    })),
    user: text(),
    password: maybe(text),
    database: maybe(text),
    sslMode: oneOf(["disable", "allow", "prefer", "require", "verify-full"]),
    channelBinding: oneOf(["disable", "prefer", "require"]),
    applicationName: maybe(text),
    options: maybe(text),
    connectTimeoutMs: maybe(() => 1000 + 1000 * upTo(100)),
  };
  const ports = places.map(({ port }) => port ?? "");
  const isInQuery = random() < 0.5;
  const parameters: [string, string | number | undefined][] = [
    ["sslmode", expected.sslMode],
    ["channel_binding", expected.channelBinding],
    ["application_name", expected.applicationName],
    ["options", expected.options],
    [
      "connect_timeout",
      expected.connectTimeoutMs && expected.connectTimeoutMs / 1000,
    ],
  ];
  if (isInQuery) {
    parameters.push(
      ["host", places.map(({ host }) => host).join()],
      ["port", ports.join()],
      ["user", expected.user],
      ["password", expected.password],
      ["dbname", expected.database],
    );
  }
  parameters.sort(() => random() - 0.5);
  const query = parameters.filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${encode(value ?? "")}`).join("&");
  const password = expected.password === undefined
    ? ""
    : `:${encode(expected.password)}`;
  const authority = places.map(({ host, port }) =>
    (host.includes("::") ? `[${host}]` : encode(host)) +
    (port === undefined ? "" : `:${port}`)
  ).join();
  const before = isInQuery
    ? oneOf(["", "/"])
    : `${encode(expected.user ?? "")}${password}@${authority}` +
      (expected.database === undefined ? "" : `/${encode(expected.database)}`);
  const url = `${oneOf(["postgres", "postgresql"])}://${before}?${query}`;
  assertEquals(parse(url), expected, url);
}

Deno.test({
  name: "parsePostgresUrl() gets back whatever encodeURIComponent() wrote",
  permissions,
  fn() {
    const first = Math.floor(Math.random() * 2 ** 32);
    for (let seed = first; seed < first + 2000; seed++) {
      try {
        checkRoundTrip(seed);
      } catch (cause) {
        throw new Error(`Failed with the seed ${seed}`, { cause });
      }
    }
  },
});
