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
export type { Arrivals, ClosedArrivals, OpenArrivals } from "./arrivals.ts";
export {
  type Clause,
  diagnose,
  type Finding,
  parseSlo,
  recommend,
  type Recommendation,
  theoryBeside,
  type TheoryRow,
} from "./diagnosis.ts";
export type {
  Distribution,
  DistributionKind,
  LoadNumbers,
} from "./distributions.ts";
export type { Random } from "./random.ts";
export {
  type PolicyResult,
  RETRY_MODELS,
  type RetryExperiment,
  retryExperiment,
  type RetryModel,
  type RetryResult,
} from "./retry_models.ts";
export {
  type FieldName,
  type NamedPolicy,
  parsePolicy,
  parseScenario,
  type Plan,
  type Point,
  readScenario,
  type Scenario,
  ScenarioError,
  type ScenarioProblem,
  type ScenarioValue,
} from "./scenario.ts";
export {
  type Confidence,
  type Durations,
  type PointResult,
  type ReplicationFigures,
  simulate,
  simulation,
  type SimulationOptions,
  type SimulationResult,
} from "./simulate.ts";
export type { DatabaseTraits, Span } from "./simulated_database.ts";
export type { Usl } from "./theory.ts";
export type { Happening, TimeLineData } from "./time_line.ts";
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
