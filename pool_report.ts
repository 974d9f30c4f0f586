/**
 * What a pool tells about itself: its numbers, its events and its end.
 *
 * @module
 */

import type { Holder, PoolState } from "./errors.ts";
import type { DurationSummary } from "./histogram.ts";
import type { RetryNotice } from "./retry.ts";

/** The numbers of a pool, at one moment. */
export interface PoolStats extends PoolState {
  /** The most ever in use at once. */
  readonly peak: number;
  /** How often a connection was handed out. */
  readonly acquired: number;
  /** Connections that were opened. */
  readonly created: number;
  /** How often a connection was handed out that had been used before. */
  readonly reused: number;
  /** Connections closed since they were broken, or failed a check. */
  readonly discarded: number;
  /** Connections closed in good health: surplus, too old, idle too long. */
  readonly retired: number;
  /** Acquires that waited in vain. */
  readonly timeouts: number;
  /** Acquires turned away since too many waited. */
  readonly rejected: number;
  /** Acquires taken back by their callers. */
  readonly aborted: number;
  /** Connects that failed, each attempt counted. */
  readonly connectFailures: number;
  /** Connections that are being reset or pinged. */
  readonly checking: number;
  /** The setting, as last changed by `resize`. */
  readonly poolSize: number;
  /** The setting, as last changed by `resize`. */
  readonly maxOverflow: number;
  /** How long acquires waited; one that did not wait counts as 0. */
  readonly waitMs: DurationSummary;
  /** How long connections were held; empty unless `measureUse` is set. */
  readonly useMs: DurationSummary;
  /** How long the connects took that succeeded. */
  readonly connectMs: DurationSummary;
}

/** What `close` had to do. */
export interface CloseReport {
  /** Connections that were still in use at the deadline and closed by force. */
  readonly forced: number;
  /** Connections whose closing had not ended when `close` gave up on them. */
  readonly unfinished: number;
  /** Who held what was closed by force; empty while leak detection is off. */
  readonly holders: readonly Holder[];
}

/** Why a connection in good health was closed. */
export type RetireReason =
  | "surplus"
  | "idle"
  | "lifetime"
  | "uses"
  | "shrink"
  | "stale"
  | "close";

/**
 * What a pool tells about itself while it works. Each connection is named by
 * the order in which it was opened, from 1. What a hook throws is reported as
 * an uncaught error and does not disturb the pool.
 */
export interface PoolEvents {
  /** A connection was opened, in `connectMs` milliseconds. */
  connect?(event: { id: number; connectMs: number }): void;
  /** A connect failed; so many have failed since the last one that succeeded. */
  connectFail?(event: { attempt: number; error: unknown }): void;
  /** A connect failed that somebody waits for, and will be tried again. */
  connectRetry?(notice: RetryNotice): void;
  /** A connection was handed out after `waitMs` milliseconds. */
  acquire?(event: { id: number; waitMs: number }): void;
  /** A connection came back. */
  release?(event: { id: number }): void;
  /** A connection was thrown away: it was broken, or failed a check. */
  discard?(event: { id: number; reason: unknown }): void;
  /** A connection in good health was closed. */
  retire?(event: { id: number; reason: RetireReason }): void;
  /** A connection could not be closed properly; it is given up all the same. */
  closeFail?(event: { id: number; error: unknown }): void;
  /** An acquire waited in vain. */
  timeout?(event: { timeoutMs: number }): void;
  /** An acquire was turned away since too many waited. */
  reject?(): void;
  /** An acquire was taken back by its caller. */
  abort?(): void;
  /** A connection has been held for longer than `leakDetectionMs`. */
  leak?(holder: Holder): void;
  /** A connection that was reported as leaked has come back after all. */
  leakEnd?(holder: Holder): void;
  /** A connection was forgotten, and has been taken back from nobody. */
  leakReclaim?(holder: Holder): void;
  /** The pool has closed. */
  close?(report: CloseReport): void;
}

// A record, so that a hook without its name here does not compile.
const EVENTS: Record<keyof PoolEvents, true> = {
  connect: true,
  connectFail: true,
  connectRetry: true,
  acquire: true,
  release: true,
  discard: true,
  retire: true,
  closeFail: true,
  timeout: true,
  reject: true,
  abort: true,
  leak: true,
  leakEnd: true,
  leakReclaim: true,
  close: true,
};

/**
 * The same hooks, made harmless: one that throws in the midst of a transition
 * must not leave it half done.
 */
export function guarded(events: PoolEvents): PoolEvents {
  const names = Object.keys(EVENTS) as (keyof PoolEvents)[];
  return Object.fromEntries(
    names.filter((name) => events[name] !== undefined).map((name) => [
      name,
      (event: never) => {
        try {
          events[name]?.(event);
        } catch (error) {
          reportError(error);
        }
      },
    ]),
  );
}
