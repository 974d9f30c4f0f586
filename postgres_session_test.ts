/**
 * When the session of a connection to PostgreSQL has to be cleaned.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { leavesTraces } from "./postgres_session.ts";

const permissions: Deno.PermissionOptions = "none";

Deno.test({
  name:
    "what can leave something behind for the next holder is seen, however it is written",
  permissions,
  fn() {
    const statements = [
      "SET work_mem = '1MB'",
      "set role admin",
      "SELECT 1; SET search_path = x",
      "/* harmless */ SET a.b = 1",
      "-- harmless\nSET a.b = 1",
      "SELECT set_config('a.b', '1', false)",
      "select pg_advisory_lock(1)",
      "SELECT pg_catalog.set_config('a', 'b', false)",
      "SELECT \"set_config\"('a', 'b', false)",
      "CREATE TEMP TABLE t (a int)",
      "SELECT a INTO TEMP t FROM u",
      "SELECT * INTO TEMPORARY TABLE t FROM u",
      "CREATE TABLE t (a int)",
      "LISTEN news",
      "PREPARE x AS SELECT 1",
      "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
      "DO $$ BEGIN PERFORM set_config('a', 'b', false); END $$",
      "CALL something()",
      "LOAD 'auto_explain'",
      "WITH x AS (SELECT my_own_function()) SELECT * FROM x",
      "SELECT $$;$$; SET a.b = 1",
      "SELECT 'it''s'; SET a.b = 1",
      "SELECT /* a /* b */ c */ 1",
      "SELECT E'\\'; SET a.b = 1; --'",
      "INSERT INTO pg_temp.t VALUES (1)",
      "SELECT nextval('s')",
    ];
    assertEquals(statements.filter((sql) => !leavesTraces(sql)), []);
  },
});

Deno.test({
  name: "everyday statements do not cost the round trip of a cleaning",
  permissions,
  fn() {
    const statements = [
      "",
      "SELECT 1",
      "select a, count(*) from t where b in (1, 2) group by a",
      "SELECT 'SET work_mem' AS text",
      "SELECT $$ SET a $$, $tag$ SET b $tag$",
      'SELECT "set" FROM t -- SET x',
      "INSERT INTO t (a, b) VALUES ($1, $2) ON CONFLICT (a) DO NOTHING",
      "INSERT INTO shop.t (a) SELECT value FROM json_array_elements_text($1)",
      "UPDATE t SET a = coalesce(a, 0) + 1 WHERE id = $1 RETURNING id",
      "DELETE FROM t USING u WHERE t.id = u.id",
      "WITH x AS (SELECT 1) SELECT max(a) OVER (PARTITION BY b) FROM x",
      "BEGIN",
      "START TRANSACTION ISOLATION LEVEL SERIALIZABLE",
      "COMMIT; BEGIN",
      "SAVEPOINT a",
      "ROLLBACK TO SAVEPOINT a; RELEASE SAVEPOINT a",
      "SHOW server_version",
      "SELECT CAST(a AS numeric(10, 2)) FROM t",
      "SELECT template FROM temps",
    ];
    assertEquals(statements.filter(leavesTraces), []);
  },
});
