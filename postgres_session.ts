/**
 * What the holder of a connection to PostgreSQL may leave in its session, and
 * how it is removed.
 *
 * @module
 */

/**
 * Closes cursors, takes back roles, settings and advisory locks, and drops
 * temporary tables; in one message, so one round trip. Prepared statements stay,
 * as they are worth keeping. After `Clean` of the pool deadpool.
 */
export const CLEAN_SESSION = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; " +
  "RESET ALL; UNLISTEN *; SELECT pg_advisory_unlock_all(); DISCARD TEMP; " +
  "DISCARD SEQUENCES";

const NAME = /"(?:[^"]|"")*"/.source;
// The tag of a dollar quote is the second group, after the one of a name.
const TEXT = "'(?:[^']|'')*'|\\$(\\w*)\\$.*?\\$\\2\\$";
const COMMENT = /--[^\n]*|\/\*.*?\*\//.source;
const NOT_CODE = new RegExp(`(${NAME})|${TEXT}|${COMMENT}`, "gs");

// Where a text or a comment ends depends on settings or takes counting.
const HARD_TO_READ = /\\|\/\*.*\/\*/s;

// Statements that change rows, or the transaction, and nothing that outlasts it.
const HARMLESS_STATEMENTS: ReadonlySet<string> = new Set([
  ...["select", "values", "table", "with", "insert", "update", "delete"],
  ...["merge", "begin", "start", "commit", "end", "rollback", "abort"],
  ...["savepoint", "release", "show", "truncate", "analyze", "vacuum"],
]);

// What may stand before an opening bracket and is no function, or one that does
// nothing to the session. Whatever is missing here costs a round trip.
const HARMLESS_CALLS: ReadonlySet<string> = new Set([
  ...["all", "and", "any", "array", "as", "between", "by", "case", "conflict"],
  ...["distinct", "else", "except", "exists", "filter", "from", "group", "in"],
  ...["intersect", "join", "key", "lateral", "limit", "materialized", "not"],
  ...["offset", "on", "or", "over", "returning", "select", "set", "sets"],
  ...["some", "then", "union", "using", "values", "when", "where", "within"],
  ...["abs", "age", "array_agg", "array_length", "avg", "bool_and", "bool_or"],
  ...["cast", "ceil", "char_length", "coalesce", "concat", "concat_ws"],
  ...["count", "date_part", "date_trunc", "decode", "dense_rank", "encode"],
  ...["extract", "first_value", "floor", "format", "gen_random_uuid"],
  ...["generate_series", "greatest", "json_agg", "json_array_elements"],
  ...["json_array_elements_text", "json_build_array", "json_build_object"],
  ...["json_object_agg", "jsonb_agg", "jsonb_array_elements"],
  ...["jsonb_array_elements_text", "jsonb_build_array", "jsonb_build_object"],
  ...["jsonb_object_agg", "jsonb_set", "lag", "last_value", "lead", "least"],
  ...["left", "length", "lower", "ltrim", "make_interval", "max", "md5", "min"],
  ...["mod", "now", "ntile", "nullif", "octet_length", "percentile_cont"],
  ...[
    "percentile_disc",
    "pg_sleep",
    "pg_typeof",
    "position",
    "power",
    "random",
  ],
  ...["rank", "regexp_matches", "regexp_replace", "replace", "right", "round"],
  ...["row", "row_number", "row_to_json", "rtrim", "sign", "split_part"],
  ...["sqrt", "string_agg", "strpos", "substr", "substring", "sum", "to_char"],
  ...["to_date", "to_json", "to_jsonb", "to_number", "to_regclass"],
  ...["to_timestamp", "trim", "trunc", "unnest", "upper", "version"],
  ...["width_bucket", "bigint", "char", "decimal", "numeric", "timestamp"],
  ...["timestamptz", "time", "varchar", "interval"],
]);

// A program runs the same few texts over and over, and to read one takes longer
// than all that the pool does.
const MOST_VERDICTS = 500;
const verdicts = new Map<string, boolean>();

/**
 * Whether running `sql` may leave something in the session that the next holder
 * of the connection would find: a setting, a temporary table, a lock. Only what
 * is known to be harmless counts as such, since a session cleaned for nothing
 * costs a round trip, and one left as it was may cost somebody's data. What no
 * text can tell are functions that triggers, views or operators call; a database
 * where those change the session needs a `SET` in the same loan.
 */
export function leavesTraces(sql: string): boolean {
  let verdict = verdicts.get(sql);
  if (verdict === undefined) {
    verdict = mayLeaveTraces(sql);
    if (verdicts.size >= MOST_VERDICTS) verdicts.clear();
    verdicts.set(sql, verdict);
  }
  return verdict;
}

function mayLeaveTraces(sql: string): boolean {
  if (HARD_TO_READ.test(sql)) return true;
  const code = sql.replace(NOT_CODE, (_, name) => name ? "quoted_name" : " ");
  for (const statement of code.split(";")) {
    const [first] = /[a-z]+/i.exec(statement) ?? [];
    if (first === undefined) continue;
    if (!HARMLESS_STATEMENTS.has(first.toLowerCase())) return true;
    if (/\b(temp|temporary|pg_temp\w*)\b/i.test(statement)) return true;
    // In `INSERT INTO t (a)` the bracket is no call.
    const calls = statement.replace(/\binto\s+[\w.$]+\s*\(/gi, " ");
    for (const [, name = ""] of calls.matchAll(/([\w.$]+)\s*\(/g)) {
      if (!HARMLESS_CALLS.has(name.toLowerCase())) return true;
    }
  }
  return false;
}
