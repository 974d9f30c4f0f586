/**
 * A connection pool for SQL databases.
 *
 * @module
 */

export { type Clock, delay, systemClock, type Timer } from "./clock.ts";
export {
  ConnectionConfig,
  type ConnectionOptions,
  type DatabaseTarget,
  hidePassword,
  parseDuration,
  type Validation,
} from "./config.ts";
export type {
  Connection,
  Dialect,
  Done,
  Driver,
  ExecuteResult,
  QueryOptions,
  Resource,
  Row,
  SqlParameter,
  SqlParameters,
} from "./driver.ts";
export {
  AcquireTimeoutError,
  ConfigError,
  type ConfigProblem,
  ConnectError,
  type Holder,
  LockTimeoutError,
  NestedAcquireError,
  PoolClosedError,
  type PoolState,
  QueryTimeoutError,
  ReleaseError,
  RetryError,
  type RetryHistory,
  TooManyWaitersError,
} from "./errors.ts";
export type { LabelRow } from "./events_table.ts";
export { type Health, healthCheck } from "./health.ts";
export { LabelError } from "./labels.ts";
export type { DurationSummary } from "./histogram.ts";
export {
  type AcquireOptions,
  type CloseOptions,
  ConnectionPool,
  type PoolDependencies,
  type TransactionOptions,
} from "./pool.ts";
export type {
  CloseReport,
  PoolEvents,
  PoolStats,
  RetireReason,
} from "./pool_report.ts";
export { type Lender, PooledConnection } from "./pooled_connection.ts";
export {
  backoffDelayMs,
  DEFAULT_RETRY_POLICY,
  type Jitter,
  retry,
  RetryBudget,
  type RetryNotice,
  type RetryOptions,
  type RetryPolicy,
  retryPolicy,
  type RetryPolicyName,
} from "./retry.ts";
export {
  type NamedPolicy,
  parsePolicy,
  parseScenario,
  readScenario,
  type Scenario,
  ScenarioError,
  type ScenarioProblem,
} from "./scenario.ts";
export {
  type PointResult,
  simulate,
  simulation,
  type SimulationOptions,
  type SimulationResult,
} from "./simulate.ts";
export { settled, VirtualClock } from "./virtual_clock.ts";
export {
  type DemoResult,
  FileError,
  type PoolReport,
  run,
  runDemoQueries,
  type RunOptions,
  type RunSummary,
} from "./workload.ts";
