/**
 * The baseline workload: labels in, rows and the numbers of the pool out.
 *
 * @module
 */

import { type ConnectionConfig, hidePassword } from "./config.ts";
import { messageOf } from "./errors.ts";
import { EventsTable, type IdRange, type LabelRow } from "./events_table.ts";
import { type Health, healthCheck } from "./health.ts";
import { LabelError, readLabels } from "./labels.ts";
import { ConnectionPool } from "./pool.ts";
import type { PoolEvents, PoolStats } from "./pool_report.ts";
import type { PooledConnection } from "./pooled_connection.ts";
import { WholeFile } from "./whole_file.ts";

/** What `runDemoQueries` did. */
export interface DemoResult {
  /** How many rows this run inserted. */
  readonly rows_inserted: number;
  /** The rows that this run inserted, in their order. */
  readonly rows: readonly LabelRow[];
}

/** What the job reports of its pool, after the pool has closed. */
export interface PoolReport {
  /** Connections that were opened. */
  readonly created: number;
  /** How often a connection was handed out that had been used before. */
  readonly reused: number;
  /** Connections ready to be handed out. */
  readonly idle: number;
  /** The setting. */
  readonly pool_size: number;
  /** The most ever in use at once. */
  readonly peak: number;
  /** The setting. */
  readonly max_overflow: number;
  /** Connections held by callers. */
  readonly in_use: number;
  /** Connections that exist. */
  readonly open: number;
  /** Callers in the queue. */
  readonly waiting: number;
  /** Connections closed since they were broken. */
  readonly discarded: number;
  /** Acquires that waited in vain. */
  readonly timeouts: number;
  /** Connects that failed, each attempt counted. */
  readonly connect_failures: number;
  /** How long acquires waited, in milliseconds. */
  readonly wait_ms: {
    readonly mean: number;
    readonly p50: number;
    readonly p95: number;
    readonly p99: number;
    readonly max: number;
  };
}

/** What the job did; the rows themselves are in the output file. */
export interface RunSummary {
  /** How many rows this run inserted. */
  readonly rows_inserted: number;
  /** What the health check found afterwards. */
  readonly health: Health;
  /** The numbers of the pool, read after it has closed. */
  readonly pool_stats: PoolReport;
}

/** What `run` is told. */
export interface RunOptions {
  /** The label file, or `-` for standard input. */
  readonly input: string;
  /** Where the summary goes, as JSON; `-` for `echo` alone. */
  readonly output: string;
  /** Where a copy of the summary goes once it is complete. */
  readonly echo?: WritableStream<Uint8Array>;
  /** Called just before the copy begins. */
  readonly onEcho?: () => void;
  /** The settings of the pool. */
  readonly config: ConnectionConfig;
  /** Ends the job: nothing stays in the database or on the disk. */
  readonly signal?: AbortSignal;
  /** Told now and then how far the job is. */
  readonly onProgress?: (phase: "inserted" | "written", rows: number) => void;
  /** What the pool tells about itself. */
  readonly events?: PoolEvents;
}

/** An input or output that cannot be used. */
export class FileError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "FileError";
}

// A batch is held in memory several times over while it is under way, and
// larger ones are no faster.
const BATCH_ROWS = 1000;
const BATCH_CHARACTERS = 256 * 1024;

/**
 * Inserts the labels in one transaction, all or none, and reads them back.
 *
 * For more rows than should be in memory at once use `run`, which streams.
 */
export function runDemoQueries(
  pool: ConnectionPool,
  labels: Iterable<string> | AsyncIterable<string>,
): Promise<DemoResult> {
  return pool.transaction(async (connection) => {
    const table = EventsTable.on(connection);
    const { rows, ranges } = await insertLabels(table, inBatches(labels));
    return { rows_inserted: rows, rows: await table.rows(ranges.flat()) };
  });
}

/**
 * The baseline job: reads labels, inserts them in one transaction, and writes
 * the summary. Memory does not grow with the input. If anything fails, the
 * database and the output are as they were. After the commit nothing is undone
 * any more: an abort then only ends the echo.
 *
 * @throws {FileError} if the input or the output cannot be used.
 * @throws {LabelError} (of `labels.ts`) if the input is not a text in UTF-8.
 * @throws what the pool and the database throw.
 * @throws the reason of the signal when it is aborted.
 */
export async function run(options: RunOptions): Promise<RunSummary> {
  const { input, output, config, echo, events } = options;
  const bytes = await openInput(input);
  try {
    if (await isSameFile(input, output)) {
      throw new FileError(
        `Cannot write '${output}': it is the input, and would replace it`,
      );
    }
    await using file = await openOutput(output);
    await using pool = new ConnectionPool(config, events ? { events } : {});
    const summary = await insertAndWrite(pool, bytes, file, options);
    await file.finish().catch(cannotWrite(output, TOO_LATE));
    if (echo !== undefined) {
      options.onEcho?.();
      await file.copyTo(echo, options.signal).catch((error) => {
        // Whoever reads has seen enough; that is for the caller to judge.
        if (error instanceof Deno.errors.BrokenPipe) throw error;
        cannotWrite("standard output", TOO_LATE)(error);
      });
    }
    return summary;
  } finally {
    await bytes.cancel().catch(() => {});
  }
}

async function insertAndWrite(
  pool: ConnectionPool,
  bytes: ReadableStream<Uint8Array>,
  file: WholeFile,
  { input, output, signal, onProgress }: RunOptions,
): Promise<RunSummary> {
  const write = (text: string): Promise<void> =>
    file.write(text).catch(cannotWrite(output));
  const chunks = readable(bytes, input, signal);
  const labels = batched(readLabels(chunks, nameOf(input)));
  // The rows are written before the commit, so that a full disk undoes both.
  const rowsInserted = await abortable(pool, signal, async (connection) => {
    const table = EventsTable.on(connection);
    const { rows, ranges } = await insertLabels(table, labels, (rows) => {
      signal?.throwIfAborted();
      onProgress?.("inserted", rows);
    });
    await write(`{\n  "rows_inserted": ${rows},\n  "rows": [`);
    for (const [i, range] of ranges.entries()) {
      signal?.throwIfAborted();
      const lines = await table.asJson(range, ",\n    ");
      await write(`${i === 0 ? "" : ","}\n    ${lines}`);
      onProgress?.("written", Math.round(rows * (i + 1) / ranges.length));
    }
    await write(ranges.length > 0 ? "\n  ]," : "],");
    // From here to the commit nothing else can happen.
    signal?.throwIfAborted();
    return rows;
  });
  const health = await pool.use(healthCheck);
  await pool.close();
  const tail = { health, pool_stats: reportPool(pool.stats()) };
  await file.write(JSON.stringify(tail, null, 2).slice(1) + "\n")
    .catch(cannotWrite(output, TOO_LATE));
  return { rows_inserted: rowsInserted, ...tail };
}

/** A transaction that the signal can end up to its commit, and not later. */
async function abortable<T>(
  pool: ConnectionPool,
  signal: AbortSignal | undefined,
  fn: (connection: PooledConnection) => Promise<T>,
): Promise<T> {
  // Closing the pool by force also ends the waiting for a lock.
  const abort = (): void => void pool.close({ timeoutMs: 0 });
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return await pool.transaction(fn, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/**
 * Inserts batches of labels.
 *
 * @returns how many, and where the rows of each batch are.
 */
async function insertLabels(
  table: EventsTable,
  batches: AsyncIterable<string[]>,
  onProgress?: (rows: number) => void,
): Promise<{ rows: number; ranges: IdRange[][] }> {
  await table.create();
  const ranges: IdRange[][] = [];
  let rows = 0;
  for await (const batch of batches) {
    ranges.push(await table.insert(batch));
    rows += batch.length;
    onProgress?.(rows);
  }
  return { rows, ranges };
}

async function* inBatches(
  labels: Iterable<string> | AsyncIterable<string>,
): AsyncIterableIterator<string[]> {
  yield* batched((async function* () {
    for await (const label of labels) {
      if (
        typeof label !== "string" || !label.isWellFormed() ||
        label.includes("\0")
      ) {
        throw new LabelError(
          `Cannot insert ${
            JSON.stringify(label)
          } as a label: it must be a text ` +
            "without NUL characters and lone surrogates",
        );
      }
      yield [label];
    }
  })());
}

/** The same labels in batches of a size that suits the database. */
async function* batched(
  pieces: AsyncIterable<string[]>,
): AsyncIterableIterator<string[]> {
  let batch: string[] = [];
  let characters = 0;
  for await (const labels of pieces) {
    for (const label of labels) {
      batch.push(label);
      characters += label.length;
      if (batch.length < BATCH_ROWS && characters < BATCH_CHARACTERS) continue;
      yield batch;
      batch = [];
      characters = 0;
    }
  }
  if (batch.length > 0) yield batch;
}

/** The numbers of a pool under the names of the summary. */
export function reportPool(stats: PoolStats): PoolReport {
  const { mean, p50, p95, p99, max } = stats.waitMs;
  const round = (ms: number): number => Math.round(ms * 1000) / 1000;
  return {
    created: stats.created,
    reused: stats.reused,
    idle: stats.idle,
    pool_size: stats.poolSize,
    peak: stats.peak,
    max_overflow: stats.maxOverflow,
    in_use: stats.inUse,
    open: stats.open,
    waiting: stats.waiting,
    discarded: stats.discarded,
    timeouts: stats.timeouts,
    connect_failures: stats.connectFailures,
    wait_ms: {
      mean: round(mean),
      p50: round(p50),
      p95: round(p95),
      p99: round(p99),
      max: round(max),
    },
  };
}

function nameOf(input: string): string {
  return input === "-" ? "standard input" : input;
}

async function openInput(input: string): Promise<ReadableStream<Uint8Array>> {
  if (input === "-") return Deno.stdin.readable;
  const file = await Deno.open(input).catch((error) => {
    throw new FileError(`Cannot read '${input}': ${reasonOf(error)}`);
  });
  if ((await file.stat()).isDirectory) {
    file.close();
    throw new FileError(`Cannot read '${input}': it is a folder; name a file`);
  }
  return file.readable;
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  if (one === "-" || other === "-") return false;
  try {
    const [a, b] = await Promise.all([Deno.stat(one), Deno.stat(other)]);
    return a.isFile && a.ino !== null && a.dev === b.dev && a.ino === b.ino;
  } catch {
    // What is not there cannot be the same; what is wrong shows when it is used.
    return false;
  }
}

async function openOutput(output: string): Promise<WholeFile> {
  const path = output === "-" ? undefined : output;
  return await WholeFile.create(path).catch(cannotWrite(output));
}

// The summary cannot be part of the transaction that it reports.
const TOO_LATE = "; the rows are in the database all the same";

function cannotWrite(output: string, note = ""): (error: unknown) => never {
  return (error) => {
    throw new FileError(`Cannot write '${output}': ${reasonOf(error)}${note}`);
  };
}

async function* readable(
  bytes: ReadableStream<Uint8Array>,
  input: string,
  signal: AbortSignal | undefined,
): AsyncIterableIterator<Uint8Array> {
  const reader = bytes.getReader();
  // Somebody may be typing; what is under way must not wait for the next line.
  const cancel = (): void => void reader.cancel().catch(() => {});
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    for (let read; !(read = await reader.read()).done;) yield read.value;
  } catch (error) {
    throw new FileError(`Cannot read '${nameOf(input)}': ${reasonOf(error)}`);
  } finally {
    signal?.removeEventListener("abort", cancel);
    reader.releaseLock();
  }
  // What was cancelled looks as if it had come to its end.
  signal?.throwIfAborted();
}

function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file or folder";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  if (error instanceof Deno.errors.NotCapable) {
    return `${messageOf(error)} (Deno was started without that permission)`;
  }
  return hidePassword(messageOf(error));
}
