/**
 * The PostgreSQL driver, on a real server that the tests start themselves.
 *
 * @module
 */

import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import type { Done } from "./driver.ts";
import { QueryTimeoutError } from "./errors.ts";
import { PostgresDriver } from "./postgres.ts";
import type { PostgresConnection } from "./postgres_connection.ts";
import { SERVER, TestServer } from "./postgres_testing.ts";
import { temporaryFolder } from "./testing.ts";
import { VirtualClock } from "./virtual_clock.ts";

let server: TestServer;

Deno.test.beforeAll(async () => {
  server = await TestServer.start();
});

Deno.test.afterAll(() => server[Symbol.asyncDispose]());

function url(parameters?: string): string {
  return server.url(parameters);
}

function driverFor(target: string): PostgresDriver {
  const env = (): undefined => undefined;
  return new PostgresDriver({ url: target, timeoutMs: 5000, env });
}

function connect(
  target: string,
  onLost: (error: unknown) => void = () => {},
): Promise<PostgresConnection> {
  return new Promise((resolve, reject) => {
    const driver = driverFor(target);
    driver.connect((error, connection) => {
      if (connection === undefined) reject(error);
      else resolve(connection);
    }, onLost);
  });
}

function settled(call: (done: Done) => void): Promise<void> {
  return new Promise((resolve, reject) =>
    call((error) => error === undefined ? resolve() : reject(error))
  );
}

async function withConnection(
  use: (connection: PostgresConnection) => Promise<void>,
): Promise<void> {
  const connection = await connect(url());
  try {
    await use(connection);
  } finally {
    await settled((done) => connection.close(done));
  }
}

function serverTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, permissions: SERVER, fn });
}

serverTest(
  "values of PostgreSQL come back exact, and the same on every machine",
  () =>
    withConnection(async (connection) => {
      const [row] = await connection.query(
        "SELECT 1::int8 AS small, 9007199254740993::int8 AS large, " +
          "1.10::numeric AS exact, timestamp '2026-01-02 03:04:05.678' AS t, " +
          "timestamptz '2026-01-02 03:04:05+02' AS tz, date '2026-01-02' AS day, " +
          `'{"x":1}'::jsonb AS json, '\\x01ff'::bytea AS bytes, ` +
          "ARRAY[1,2]::int8[] AS list, NULL AS nothing",
      );
      assertEquals(row, {
        small: 1,
        large: 9007199254740993n,
        exact: "1.10",
        t: new Date("2026-01-02T03:04:05.678Z"),
        tz: new Date("2026-01-02T01:04:05Z"),
        day: "2026-01-02",
        json: { x: 1 },
        bytes: new Uint8Array([1, 255]),
        list: [1, 2],
        nothing: null,
      });
      const values = [5n, "é", new Date(0), new Uint8Array([1, 2]), [1, 2]];
      const [echo] = await connection.query(
        "SELECT $1::int8 a, $2::text b, $3::timestamp c, $4::bytea d, $5::int[] e",
        values as never,
      );
      assertEquals(Object.values(echo ?? {}), [5, ...values.slice(1)]);
    }),
);

serverTest(
  "temporary tables, settings, roles and locks never reach the next holder",
  () =>
    withConnection(async (connection) => {
      const { changes } = await connection.execute(
        "CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (1), (2); " +
          "SET work_mem = '1MB'; SET ROLE pg_monitor; SELECT pg_advisory_lock(7)",
      );
      assertEquals(changes, 2);
      await settled((done) => connection.reset(done));
      const [row] = await connection.query(
        "SELECT to_regclass('mine') AS mine, current_user::text AS who, " +
          "current_setting('work_mem') AS memory, (SELECT count(*) FROM pg_locks " +
          "WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks",
      );
      assertEquals(row, {
        ...{ mine: null, who: "postgres", memory: "4MB", locks: 0 },
      });
    }),
);

serverTest(
  "an open transaction is rolled back before the next holder",
  () =>
    withConnection(async (connection) => {
      await connection.begin();
      await connection.execute("CREATE TABLE left_open (a int)");
      await settled((done) => connection.reset(done));
      assertEquals(connection.inTransaction, false);
      assertEquals(
        await connection.query("SELECT to_regclass('left_open') AS found"),
        [{ found: null }],
      );
    }),
);

serverTest(
  "a query that takes too long, or is aborted, is cancelled on the server",
  () =>
    withConnection(async (connection) => {
      const endless = "SELECT pg_sleep(60) /* endless */";
      await assertRejects(
        () => connection.query(endless, [], { timeoutMs: 50 }),
        QueryTimeoutError,
      );
      assertEquals(await connection.query("SELECT 1 AS one"), [{ one: 1 }]);
      const abort = new AbortController();
      const aborted = connection.query(endless, [], { signal: abort.signal });
      abort.abort(new Error("enough"));
      await assertRejects(() => aborted, Error, "enough");
      const [row] = await connection.query(
        "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%endless%' " +
          "AND pid <> pg_backend_pid()",
      );
      assertEquals([row?.["n"], connection.isBroken], [0, false]);
    }),
);

serverTest(
  "a commit after a failed statement throws instead of losing the rows silently",
  () =>
    withConnection(async (connection) => {
      await connection.begin();
      await assertRejects(() => connection.query("SELECT 1 / 0"));
      const error = await assertRejects(() => connection.commit(), Error);
      assertStringIncludes(error.message, "rolled back, not committed");
      await connection.begin();
      await connection.begin();
      await assertRejects(() => connection.query("SELECT 1 / 0"));
      await connection.rollback();
      assertEquals(await connection.query("SELECT 2 AS two"), [{ two: 2 }]);
      await connection.commit();
      assertEquals(connection.inTransaction, false);
    }),
);

serverTest(
  "iterate() gives rows of any number piece by piece, in a transaction and outside",
  () =>
    withConnection(async (connection) => {
      let sum = 0;
      const sql = "SELECT generate_series(1, $1::int) AS n";
      for await (const { n } of connection.iterate(sql, [1234])) {
        sum += Number(n);
      }
      assertEquals(sum, 1234 * 1235 / 2);
      await connection.begin();
      for await (const { n } of connection.iterate(sql, [1234])) {
        if (n === 3) break;
      }
      await connection.commit();
      assertEquals(
        await connection.query("SELECT name FROM pg_cursors WHERE name <> ''"),
        [],
      );
    }),
);

serverTest(
  "a connection that the server ends while it is idle says so when it happens",
  () =>
    withConnection(async (connection) => {
      const lost = Promise.withResolvers<unknown>();
      const victim = await connect(url(), lost.resolve);
      await connection.query("SELECT pg_terminate_backend($1)", [
        victim.raw.processID,
      ]);
      assertStringIncludes(String(await lost.promise), "administrator command");
      assert(victim.isBroken);
      await settled((done) => victim.close(done));
    }),
);

serverTest(
  "what may pass is transient, and what somebody has to mend is not",
  async () => {
    const wrongs: [string, string, boolean][] = [
      [url().replace(server.password, "wrong"), "28P01", false],
      [url("x?sslmode=disable"), "3D000", false],
      ["postgres://me@127.0.0.1:1/db", "ECONNREFUSED", true],
    ];
    for (const [target, code, isTransient] of wrongs) {
      const error = await assertRejects(() => connect(target), Error);
      assertEquals((error as { code?: string }).code, code);
      const driver = driverFor(target);
      assertEquals(driver.isTransient(error), isTransient, code);
      assert(!error.message.includes(server.password), error.message);
    }
  },
);

serverTest(
  "a server that accepts and says nothing is given up after the time to connect",
  async () => {
    using silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = silent.addr as Deno.NetAddr;
    const accepted = silent.accept();
    const clock = new VirtualClock();
    const driver = new PostgresDriver({
      url: `postgres://me@127.0.0.1:${port}/db`,
      ...{ timeoutMs: 5000, clock, env: () => undefined },
    });
    const failure = new Promise<unknown>((resolve) => {
      driver.connect(resolve);
    });
    const peer = await accepted;
    await clock.advanceAsync(5000);
    const error = await failure;
    assertInstanceOf(error, Error);
    assertStringIncludes(error.message, `127.0.0.1:${port} did not answer`);
    assert(driver.isTransient(error));
    peer.close();
  },
);

Deno.test({
  name: "verify-ca checks who signed, and verify-full also who answers",
  permissions: { ...SERVER, read: ["."], write: [".tmp"] },
  async fn() {
    await using folder = await temporaryFolder();
    const path = folder.file("server.crt");
    await Deno.writeTextFile(path, server.certificate);
    const tls = async (mode: string, host: string): Promise<void> => {
      const parameters = `?sslmode=${mode}&sslrootcert=${
        encodeURIComponent(path)
      }`;
      const connection = await connect(server.url(parameters, { host }));
      await settled((done) => connection.close(done));
    };
    await tls("verify-full", "localhost");
    await tls("verify-ca", "127.0.0.1");
    const error = await assertRejects(
      () => tls("verify-full", "127.0.0.1"),
      Error,
    );
    assert(!driverFor(url()).isTransient(error), error.message);
  },
});

serverTest(
  "sslmode decides on TLS as with libpq, and several hosts are tried in order",
  async () => {
    const modes = { disable: false, allow: false, prefer: true, require: true };
    for (const [mode, usesTls] of Object.entries(modes)) {
      const target = url(`?sslmode=${mode}`)
        .replace("127.0.0.1", "127.0.0.1:1,127.0.0.1");
      const connection = await connect(target);
      assertEquals(
        await connection.query(
          "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        ),
        [{ ssl: usesTls }],
        mode,
      );
      await settled((done) => connection.close(done));
    }
    await assertRejects(() => connect(url("?sslmode=verify-full")));
  },
);
