import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { inspect } from "node:util";
import {
  ConnectionConfig,
  type ConnectionOptions,
  hidePassword,
  nearest,
  parseDuration,
} from "./config.ts";
import { ConfigError } from "./errors.ts";

const permissions = "none";

/** What callers without types can write. */
function configure(options: unknown): ConnectionConfig {
  return new ConnectionConfig(options as ConnectionOptions);
}

function problemsOf(options: unknown, msg = ""): string[] {
  const error = assertThrows(() => configure(options), ConfigError, "", msg);
  for (const { field, rule, value } of error.problems) {
    assertStringIncludes(error.message, `'${field}' ${rule}`);
    assertStringIncludes(error.message, value);
  }
  return error.problems.map((problem) => problem.field);
}

Deno.test({
  name: "ConnectionConfig has the documented defaults, so that no options work",
  permissions,
  fn() {
    const { target, ...settings } = new ConnectionConfig();
    assertEquals<unknown>(settings, {
      database: ":memory:",
      timeoutMs: 5000,
      poolSize: 5,
      maxOverflow: 10,
      acquireTimeoutMs: 30_000,
      maxWaiting: 10_000,
      minIdle: 0,
      maxConnecting: 1,
      probeIntervalMs: 1000,
      idleTimeoutMs: 0,
      maxLifetimeMs: 0,
      maxUses: 0,
      keepaliveMs: 0,
      leakDetectionMs: 0,
      measureUse: false,
      detectNestedAcquire: false,
      validate: "release",
      validationBypassMs: 500,
      retry: {
        maxAttempts: 3,
        baseDelayMs: 10,
        factor: 2,
        maxDelayMs: 5000,
        jitter: "full",
      },
    });
    assertEquals<unknown>(target, { kind: "memory" });
  },
});

Deno.test({
  name: "ConnectionConfig validates on borrow for a server, where it is dear",
  permissions,
  fn() {
    const database = "postgres://u@h/x";
    assertEquals(new ConnectionConfig({ database }).validate, "borrow");
    const validate = "never";
    assertEquals(
      new ConnectionConfig({ database, validate }).validate,
      "never",
    );
  },
});

Deno.test({
  name: "ConnectionConfig keeps the values it is given, 0 included",
  permissions,
  fn() {
    const options = {
      database: "a.db",
      timeoutMs: 0,
      poolSize: 1,
      maxOverflow: 0,
      acquireTimeoutMs: 0,
      maxWaiting: 0,
      minIdle: 1,
      maxConnecting: 2,
      probeIntervalMs: 1,
      idleTimeoutMs: 0.5,
      maxLifetimeMs: 2 ** 31 - 1,
      maxUses: 7,
      keepaliveMs: 8,
      leakDetectionMs: 9,
      measureUse: true,
      detectNestedAcquire: true,
      validate: "both",
      validationBypassMs: 0,
      retry: {
        maxAttempts: 1,
        baseDelayMs: 0,
        factor: 1,
        maxDelayMs: 0,
        jitter: "none",
      },
    };
    const { target: _, ...settings } = configure(options);
    assertEquals<unknown>(settings, options);
  },
});

const NO_NUMBER = ["5", "", null, {}, []];
const NEVER_RIGHT = [-1, NaN, Infinity, -Infinity, ...NO_NUMBER, true];

const WRONG: Record<string, readonly unknown[]> = {
  database: [0, 5, null, {}, [], true, "", " "],
  timeoutMs: [...NEVER_RIGHT, 2 ** 31],
  poolSize: [...NEVER_RIGHT, 0, 1.5, 2 ** 53],
  maxOverflow: [...NEVER_RIGHT, 1.5],
  acquireTimeoutMs: [...NEVER_RIGHT, 2 ** 31],
  maxWaiting: [...NEVER_RIGHT, 1.5],
  minIdle: [...NEVER_RIGHT, 1.5],
  maxConnecting: [...NEVER_RIGHT, 0, 1.5],
  // 0 would try a database that is down again and again without a rest.
  probeIntervalMs: [...NEVER_RIGHT, 0, 0.5, 2 ** 31],
  idleTimeoutMs: [...NEVER_RIGHT, 2 ** 31],
  maxLifetimeMs: [...NEVER_RIGHT, 2 ** 31],
  maxUses: [...NEVER_RIGHT, 1.5],
  keepaliveMs: [...NEVER_RIGHT, 2 ** 31],
  leakDetectionMs: [...NEVER_RIGHT, 2 ** 31],
  measureUse: [...NO_NUMBER, 0, 1, "true"],
  detectNestedAcquire: [...NO_NUMBER, 0, 1, "true"],
  validate: [...NEVER_RIGHT, 0, 1.5, "Release", "always"],
  validationBypassMs: [...NEVER_RIGHT, 2 ** 31],
  retry: [0, -1, 1.5, NaN, "5", null, [], true],
};

const WRONG_IN_RETRY: Record<string, readonly unknown[]> = {
  maxAttempts: [...NEVER_RIGHT, 0, 1.5],
  baseDelayMs: [...NEVER_RIGHT, 2 ** 31],
  factor: [...NEVER_RIGHT, 0, 0.5],
  maxDelayMs: [...NEVER_RIGHT, 2 ** 31],
  jitter: [...NEVER_RIGHT, 0, "Full"],
};

Deno.test({
  name: "ConnectionConfig refuses every wrong value by the name of its field",
  permissions,
  fn() {
    const fields = Object.keys(new ConnectionConfig().toJSON());
    assertEquals(Object.keys(WRONG).sort(), fields.sort());
    for (const [field, values] of Object.entries(WRONG)) {
      for (const value of values) {
        const context = `${field}: ${Deno.inspect(value)}`;
        const problems = problemsOf({ [field]: value }, context);
        assertEquals(problems, [field], context);
      }
    }
  },
});

Deno.test({
  name: "ConnectionConfig refuses every wrong value inside retry",
  permissions,
  fn() {
    const fields = Object.keys(new ConnectionConfig().retry);
    assertEquals(Object.keys(WRONG_IN_RETRY).sort(), fields.sort());
    for (const [field, values] of Object.entries(WRONG_IN_RETRY)) {
      for (const value of values) {
        assertEquals(
          problemsOf({ retry: { [field]: value } }),
          [`retry.${field}`],
          Deno.inspect(value),
        );
      }
    }
  },
});

Deno.test({
  name: "ConnectionConfig reports all problems at once, to be mended at once",
  permissions,
  fn() {
    const problems = problemsOf({
      database: "",
      timeoutMs: -1,
      poolSize: 0,
      poolsize: 3,
      validate: "x",
      retry: { maxAttempts: 0, factor: 0.5, speed: 1 },
    });
    assertEquals(problems.sort(), [
      "database",
      "poolSize",
      "poolsize",
      "retry.factor",
      "retry.maxAttempts",
      "retry.speed",
      "timeoutMs",
      "validate",
    ]);
    const both = problemsOf({ poolSize: 2, minIdle: 3, timeoutMs: -1 });
    assertEquals(both.sort(), ["minIdle", "timeoutMs"]);
  },
});

Deno.test({
  name: "ConfigError names the field, the rule and the value",
  permissions,
  fn() {
    const error = assertThrows(() => configure({ poolSize: 0 }), ConfigError);
    assertInstanceOf(error, RangeError);
    assertEquals(error.name, "ConfigError");
    assertEquals(error.problems, [
      { field: "poolSize", rule: "must be an integer >= 1", value: "0" },
    ]);
    assertEquals(
      error.message,
      "Cannot create configuration as 'poolSize' must be an integer >= 1: " +
        "current value is 0",
    );
  },
});

Deno.test({
  name: "ConnectionConfig refuses an unknown option and suggests the right one",
  permissions,
  fn() {
    const cases: [unknown, string, string?][] = [
      [{ poolsize: 3 }, "'poolsize'", "'poolSize'"],
      [{ maxOverFlow: 3 }, "'maxOverFlow'", "'maxOverflow'"],
      [{ timoutMs: 3 }, "'timoutMs'", "'timeoutMs'"],
      [{ databse: "x" }, "'databse'", "'database'"],
      [{ retry: { maxAttempt: 3 } }, "'retry.maxAttempt'", "'maxAttempts'"],
      [{ banana: 3 }, "'banana'"],
      [{ banana: undefined }, "'banana'"],
    ];
    for (const [options, unknown, suggestion] of cases) {
      const { message } = assertThrows(() => configure(options), ConfigError);
      assertStringIncludes(message, unknown);
      if (suggestion) {
        assertStringIncludes(message, `did you mean ${suggestion}?`);
      } else assert(!message.includes("did you mean"), message);
    }
  },
});

Deno.test({
  name: "ConnectionConfig refuses options that are no object",
  permissions,
  fn() {
    for (const options of [null, 5, "a.db", [], true]) {
      assertEquals(problemsOf(options), ["options"]);
    }
  },
});

Deno.test({
  name: "ConnectionConfig takes undefined for left out",
  permissions,
  fn() {
    const { target: _, ...defaults } = new ConnectionConfig();
    const nothing = Object.fromEntries(
      Object.keys(defaults).map((field) => [field, undefined]),
    );
    assertEquals<unknown>(configure(nothing).toJSON(), defaults);
    const retry = Object.fromEntries(
      Object.keys(defaults.retry).map((field) => [field, undefined]),
    );
    assertEquals<unknown>(configure({ retry }).toJSON(), defaults);
    assertEquals(
      configure(undefined).toJSON(),
      new ConnectionConfig().toJSON(),
    );
  },
});

Deno.test({
  name: "ConnectionConfig is frozen, as pools rely on what was checked",
  permissions,
  fn() {
    const retry = { maxAttempts: 7 };
    const config = new ConnectionConfig({ database: "a.db", retry });
    for (const part of [config, config.retry, config.target]) {
      assert(Object.isFrozen(part));
    }
    assertThrows(() => Object.assign(config, { poolSize: 9 }), TypeError);
    assertThrows(() => Object.assign(config, { extra: 9 }), TypeError);
    assertThrows(
      () => Object.assign(config.retry, { maxAttempts: 9 }),
      TypeError,
    );
    assertThrows(() => Object.assign(config.target, { path: "b" }), TypeError);
    // Neither does it hang on to what it was given.
    retry.maxAttempts = 0;
    assertEquals(config.retry.maxAttempts, 7);
  },
});

Deno.test({
  name:
    "ConnectionConfig can be derived from another, with one setting changed",
  permissions,
  fn() {
    const config = new ConnectionConfig({ database: "a.db", maxOverflow: 3 });
    const derived = new ConnectionConfig({ ...config, poolSize: 2 });
    assertEquals(derived.toJSON(), { ...config.toJSON(), poolSize: 2 });
    assertEquals(derived.target, config.target);
  },
});

Deno.test({
  name: "ConnectionConfig refuses a minIdle that poolSize does not allow",
  permissions,
  fn() {
    assertEquals(problemsOf({ minIdle: 6 }), ["minIdle"]);
    assertEquals(problemsOf({ minIdle: 3, poolSize: 2 }), ["minIdle"]);
    assertEquals(configure({ minIdle: 2, poolSize: 2 }).minIdle, 2);
  },
});

Deno.test({
  name: "ConnectionConfig tells databases apart by what their text says",
  permissions,
  fn() {
    const cases: [string, unknown][] = [
      [":memory:", { kind: "memory" }],
      ["sqlite::memory:", { kind: "memory" }],
      ["a.db", { kind: "sqlite", path: "a.db" }],
      ["./a:b.db", { kind: "sqlite", path: "./a:b.db" }],
      ["/x/ä b.db", { kind: "sqlite", path: "/x/ä b.db" }],
      ["C:\\x.db", { kind: "sqlite", path: "C:\\x.db" }],
      ["c:/x.db", { kind: "sqlite", path: "c:/x.db" }],
      ["sqlite:a.db", { kind: "sqlite", path: "a.db" }],
      ["sqlite:C:\\x.db", { kind: "sqlite", path: "C:\\x.db" }],
      ["sqlite:/x/a.db", { kind: "sqlite", path: "/x/a.db" }],
    ];
    for (const [database, target] of cases) {
      const config = new ConnectionConfig({ database });
      assertEquals<unknown>(config.target, target);
      assertEquals(config.database, database);
    }
    const servers = [
      "postgres://u:p@h/x",
      "postgresql://h",
      "POSTGRES://h?sslmode=require",
    ];
    for (const database of servers) {
      const { target } = new ConnectionConfig({ database });
      assert(target.kind === "postgres");
      assertEquals(target.url, database);
    }
  },
});

Deno.test({
  name: "ConnectionConfig refuses databases that it would misunderstand",
  permissions,
  fn() {
    const cases = [
      "",
      " \t",
      "a\0.db",
      "postgres://h\0/x",
      "file:a.db",
      "file:///a.db",
      "FILE:a.db?mode=memory",
      "sqlite:",
      "sqlite:file:a.db",
      "sqlite://a.db",
      "mysql://h/x",
      "https://h/x",
      "jdbc:sqlite:a.db",
      "postgres://h:99999/x",
      "postgres://[h/x",
    ];
    for (const database of cases) {
      assertEquals(problemsOf({ database }, database), ["database"]);
    }
  },
});

// Each part would give the password away.
const ODD_PASSWORDS = [
  "hunter2",
  "hunter2@hunter2",
  "hunter2:hunter2",
  "hunter2/hunter2",
  "hunter2 hunter2",
  "hunter2?hunter2",
  "hunter2#hunter2",
  "hunter2%40hunter2%",
  "hunter2&hunter2=hunter2",
  "hunter2'hunter2\"hunter2",
  "hunter2\nhunter2",
  "@hunter2/:?#[]hunter2",
  "\\hunter2ü😀hunter2",
];

const SECRET_URLS = ODD_PASSWORDS.flatMap((password) => [
  `postgres://u:${password}@h:5432/x`,
  `postgres://:${password}@h`,
  `postgres://my user:${password}@h`,
  `postgres://u@example.com:${password}@h/x`,
  `postgres://u:${password}@h:99999/x`,
  `mysql://u:${password}@h/x`,
]).concat([
  "postgres://u@h/x?password=hunter2",
  "postgres://u@h/x?a=b&Password=hunter2 hunter2&c=d",
  "postgres://u@h/x?password=hunter2#hunter2",
  "postgres://u@h/x?sslpassword=hunter2%26hunter2",
  "postgres://u:hunter2@h/x?password=hunter2",
  "mysql://u@h/x?password=hunter2",
  // The host forgotten.
  "postgres://u:hunter2",
  "postgres://u:hunter2:5432/x",
  // The slashes forgotten.
  "postgres:u:hunter2@h/x",
  "postgresql:u:hunter2@hunter2@h",
  "Postgres:/u:hunter2@h:5432",
  "postgres:u:hunter2",
  "mysql:u:hunter2@h/x",
  "postgres://h/d?password=a&hunter2",
  "postgres://h/d?sslmode=require;password=hunter2",
]);

Deno.test({
  name: "ConnectionConfig never shows a password, whatever is in it",
  permissions,
  fn() {
    for (const database of SECRET_URLS) {
      const shown: string[] = [hidePassword(database)];
      try {
        const config = new ConnectionConfig({ database });
        shown.push(JSON.stringify(config), JSON.stringify({ config }));
        shown.push(Deno.inspect(config), Deno.inspect({ a: [config] }));
        shown.push(String(config), JSON.stringify(config.target));
        for (const value of [config, config.target]) {
          const all = { showHidden: true, getters: true };
          shown.push(Deno.inspect(value), Deno.inspect(value, all));
          shown.push(inspect(value), inspect(value, all));
        }
        assertEquals(config.database, database);
      } catch (error) {
        assertInstanceOf(error, ConfigError);
        shown.push(error.message, Deno.inspect(error), JSON.stringify(error));
      }
      // As an option that does not exist.
      const wrong = assertThrows(
        () => configure({ url: database }),
        ConfigError,
      );
      shown.push(wrong.message, JSON.stringify(wrong.problems));
      for (const text of shown) {
        assert(
          !text.includes("hunter2"),
          `${JSON.stringify(database)}: ${text}`,
        );
      }
    }
  },
});

Deno.test({
  name:
    "hidePassword() leaves what is no password, so that messages make sense",
  permissions,
  fn() {
    const cases = [
      ["postgres://me:secret@host:5432/db", "postgres://me:***@host:5432/db"],
      ["postgres://u@h/x?password=a&b=c", "postgres://u@h/x?password=***&b=c"],
      ["postgres://u@h:5432/x", "postgres://u@h:5432/x"],
      ["postgres://h:5432/x", "postgres://h:5432/x"],
      ["postgres://[::1]:5432/x", "postgres://[::1]:5432/x"],
      ["postgres:u:secret@h", "postgres:u:***@h"],
      ["postgres:h:5432/x", "postgres:h:5432/x"],
      ["sqlite::memory:", "sqlite::memory:"],
      ["Cannot open it: SQLite: no", "Cannot open it: SQLite: no"],
      ["C:\\data\\a.db", "C:\\data\\a.db"],
      ["me@example.com: no", "me@example.com: no"],
      ["", ""],
    ] as const;
    for (const [text, hidden] of cases) {
      assertEquals(hidePassword(text), hidden);
      assertEquals(hidePassword(hidden), hidden);
    }
    const message = "Cannot open postgres://u:s@h?password=s: ";
    assertEquals(
      hidePassword(hidePassword(message) + "no such host"),
      hidePassword(message) + "no such host",
    );
  },
});

Deno.test({
  name: "parseDuration() takes numbers with and without a unit",
  permissions,
  fn() {
    const cases: [string, number][] = [
      ["0", 0],
      ["5", 5000],
      ["0.001", 1],
      [".5", 500],
      ["5.", 5000],
      ["250ms", 250],
      ["2s", 2000],
      ["1m", 60_000],
      ["1.5h", 5_400_000],
      ["500us", 0.5],
      [" 2 s ", 2000],
      ["0.0000001", 0.0001],
      ["1.001", 1001],
      ["4.35", 4350],
    ];
    for (const [text, ms] of cases) assertEquals(parseDuration(text), ms, text);
    assertEquals(parseDuration("250", "ms"), 250);
    assertEquals(parseDuration("2s", "ms"), 2000);
  },
});

Deno.test({
  name: "parseDuration() refuses what is no duration and shows it",
  permissions,
  fn() {
    const cases = [
      "",
      " ",
      ".",
      "-1",
      "+1",
      "s",
      "abc",
      "1e3",
      "0x10",
      "1,5",
      "1d",
      "5S",
      "1 m 2 s",
      "1m2s",
      "Infinity",
      "NaN",
      "١",
    ];
    for (const text of cases) {
      const error = assertThrows(() => parseDuration(text), SyntaxError);
      assertStringIncludes(error.message, JSON.stringify(text));
    }
  },
});

Deno.test({
  name: "nearest() suggests a word with a slip or two, and no far-fetched one",
  permissions,
  fn() {
    const words = ["input", "output", "pool-size", "max-overflow", "db"];
    const cases: [string, string | undefined][] = [
      ["input", "input"],
      ["INPUT", "input"],
      ["inptu", "input"],
      ["imput", "input"],
      ["nput", "input"],
      ["inputs", "input"],
      ["ouput", "output"],
      ["poolsize", "pool-size"],
      ["pool_size", "pool-size"],
      ["maxoverflow", "max-overflow"],
      ["bd", "db"],
      ["banana", undefined],
      ["x", undefined],
      ["", undefined],
    ];
    for (const [word, expected] of cases) {
      assertEquals(nearest(word, words), expected, word);
    }
    assertEquals(nearest("a", []), undefined);
  },
});
