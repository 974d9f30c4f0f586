/**
 * Stands in for `@std/assert` on machines that cannot reach the registry: the
 * same signatures and verdicts, for the part of the package this project uses.
 * The messages of the failures are its own.
 *
 * Every function takes a last `msg`, which is added to the message, and throws
 * an {@linkcode AssertionError} when what its name says does not hold.
 *
 * @module
 */

import { AssertionError as NodeAssertionError } from "node:assert/strict";
import { equal } from "./equal.ts";

export { equal };

/** The class of a thrown value that a test expects. */
// The arguments of a constructor can be anything, which `unknown` does not say.
// deno-lint-ignore no-explicit-any
type ErrorClass<E extends Error> = abstract new (...args: any[]) => E;

/** What {@linkcode assertFalse} accepts. */
export type Falsy = false | 0 | 0n | "" | null | undefined;

/** An array, a typed array or another indexed object, but not a string. */
export type ArrayLikeArg<T> = ArrayLike<T> & object;

/** The failure of an assertion. */
export class AssertionError extends Error {
  override name = "AssertionError";
}

/** Checks that a value is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  if (!expr) throw new AssertionError(msg);
}

/** Checks that a value is falsy. */
export function assertFalse(expr: unknown, msg = ""): asserts expr is Falsy {
  if (expr) throw new AssertionError(msg);
}

/** Fails always. */
export function fail(msg?: string): never {
  throw failure("Failed", msg);
}

/** Checks that two values are {@linkcode equal}, whatever their identity. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  if (equal(actual, expected)) return;
  throw failure("Values are not equal", msg, difference(actual, expected));
}

/** Checks that two values are not {@linkcode equal}. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  if (!equal(actual, expected)) return;
  throw failure(`Expected a value other than ${show(expected)}`, msg);
}

/** Checks that two values are the same, in the sense of `Object.is`. */
export function assertStrictEquals<T>(
  actual: unknown,
  expected: T,
  msg?: string,
): asserts actual is T {
  if (Object.is(actual, expected)) return;
  const problem = equal(actual, expected)
    ? "Values are equal but not the same"
    : "Values are not the same";
  throw failure(problem, msg, difference(actual, expected));
}

/** Checks that two values are not the same, in the sense of `Object.is`. */
export function assertNotStrictEquals<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  if (!Object.is(actual, expected)) return;
  throw failure(`Expected a value other than ${show(expected)} itself`, msg);
}

/** Checks that a value is neither `null` nor `undefined`. */
export function assertExists<T>(
  actual: T,
  msg?: string,
): asserts actual is NonNullable<T> {
  if (actual !== null && actual !== undefined) return;
  throw failure(`Expected a value, got ${actual}`, msg);
}

/** Checks that a value is an instance of a class. */
export function assertInstanceOf<
  // deno-lint-ignore no-explicit-any
  T extends abstract new (...args: any[]) => any,
>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (actual instanceof expectedType) return;
  throw failure(
    `Expected an instance of ${expectedType.name}, got ${show(actual)}`,
    msg,
  );
}

/** Checks that `actual > expected`. */
export function assertGreater<T>(actual: T, expected: T, msg?: string): void {
  if (actual > expected) return;
  throw failure(`Expected ${show(actual)} > ${show(expected)}`, msg);
}

/** Checks that `actual >= expected`. */
export function assertGreaterOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  if (actual >= expected) return;
  throw failure(`Expected ${show(actual)} >= ${show(expected)}`, msg);
}

/** Checks that `actual < expected`. */
export function assertLess<T>(actual: T, expected: T, msg?: string): void {
  if (actual < expected) return;
  throw failure(`Expected ${show(actual)} < ${show(expected)}`, msg);
}

/** Checks that `actual <= expected`. */
export function assertLessOrEqual<T>(
  actual: T,
  expected: T,
  msg?: string,
): void {
  if (actual <= expected) return;
  throw failure(`Expected ${show(actual)} <= ${show(expected)}`, msg);
}

/**
 * Checks that two numbers differ by `tolerance` at most. By default it is 1e-7
 * times the expected number.
 */
export function assertAlmostEquals(
  actual: number,
  expected: number,
  tolerance: number = Number.isFinite(expected)
    ? Math.abs(expected) * 1e-7
    : 1e-7,
  msg?: string,
): void {
  if (Object.is(actual, expected)) return;
  if (Math.abs(expected - actual) <= tolerance) return;
  throw failure(`Expected ${actual} within ${tolerance} of ${expected}`, msg);
}

/** Checks that a pattern matches a text. */
export function assertMatch(
  actual: string,
  expected: RegExp,
  msg?: string,
): void {
  if (expected.test(actual)) return;
  throw failure(`Expected ${show(actual)} to match ${expected}`, msg);
}

/** Checks that a pattern does not match a text. */
export function assertNotMatch(
  actual: string,
  expected: RegExp,
  msg?: string,
): void {
  if (!expected.test(actual)) return;
  throw failure(`Expected ${show(actual)} not to match ${expected}`, msg);
}

/** Checks that a text contains another. */
export function assertStringIncludes(
  actual: string,
  expected: string,
  msg?: string,
): void {
  if (actual.includes(expected)) return;
  throw failure(`Expected ${show(actual)} to include ${show(expected)}`, msg);
}

/** Checks that each expected element is {@linkcode equal} to one of the actual ones. */
export function assertArrayIncludes<T>(
  actual: ArrayLikeArg<T>,
  expected: ArrayLikeArg<T>,
  msg?: string,
): void {
  const elements = Array.from(actual);
  const missing = Array.from(expected)
    .filter((wanted) => !elements.some((element) => equal(element, wanted)));
  if (missing.length === 0) return;
  throw failure(`Expected ${show(actual)} to include ${show(missing)}`, msg);
}

/**
 * Checks that an object has the expected properties, at any depth. It may have
 * more; an array may go on after the expected elements.
 */
export function assertObjectMatch(
  // The published signature: a value of a declared interface is no
  // `Record<PropertyKey, unknown>`.
  // deno-lint-ignore no-explicit-any
  actual: Record<PropertyKey, any>,
  expected: Record<PropertyKey, unknown>,
  msg?: string,
): void {
  if (includes(actual, expected)) return;
  throw failure("Object does not match", msg, difference(actual, expected));
}

/** Checks that a function throws. Returns what it threw. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/**
 * Checks that a function throws an instance of a class, with a message that
 * includes a text. Returns the error.
 */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  classOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): unknown {
  try {
    fn();
  } catch (error) {
    checkThrown(error, classOrMsg, msgIncludes, msg);
    return error;
  }
  throw failure(
    "Expected the function to throw",
    typeof classOrMsg === "string" ? classOrMsg : msg,
  );
}

/** Checks that a function returns a promise that rejects. Resolves to the reason. */
export function assertRejects(
  fn: () => PromiseLike<unknown>,
  msg?: string,
): Promise<unknown>;
/**
 * Checks that a function returns a promise that rejects with an instance of a
 * class, with a message that includes a text. Resolves to the error.
 */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorClass<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  classOrMsg?: ErrorClass<Error> | string,
  msgIncludes?: string,
  msg?: string,
): Promise<unknown> {
  const explanation = typeof classOrMsg === "string" ? classOrMsg : msg;
  let promise: PromiseLike<unknown> | undefined;
  try {
    promise = fn();
  } catch (error) {
    throw failure(
      `Expected a promise, but the function threw ${show(error)}`,
      explanation,
    );
  }
  if (typeof promise?.then !== "function") {
    throw failure(`Expected a promise, got ${show(promise)}`, explanation);
  }
  try {
    await promise;
  } catch (error) {
    checkThrown(error, classOrMsg, msgIncludes, msg);
    return error;
  }
  throw failure("Expected the promise to reject", explanation);
}

function checkThrown(
  error: unknown,
  classOrMsg: ErrorClass<Error> | string | undefined,
  msgIncludes: string | undefined,
  msg: string | undefined,
): void {
  if (classOrMsg === undefined || typeof classOrMsg === "string") return;
  assertInstanceOf(error, classOrMsg, msg);
  assertStringIncludes(error.message, msgIncludes ?? "", msg);
}

/** Tells whether `actual` is `expected`, or contains it where both are collections. */
function includes(actual: unknown, expected: unknown): boolean {
  if (!isCollection(actual) || !isCollection(expected)) {
    return equal(actual, expected);
  }
  if (expected instanceof Map) {
    return actual instanceof Map &&
      [...expected].every(([key, value]) =>
        actual.has(key) && includes(actual.get(key), value)
      );
  }
  if (expected instanceof Set) {
    return actual instanceof Set && expected.isSubsetOf(actual);
  }
  if (Array.isArray(expected)) {
    return Array.isArray(actual) && expected.length <= actual.length &&
      expected.every((element, i) => includes(actual[i], element));
  }
  return Reflect.ownKeys(expected).every((key) =>
    Object.hasOwn(actual, key) &&
    includes(Reflect.get(actual, key), Reflect.get(expected, key))
  );
}

function isCollection(value: unknown): value is object {
  return typeof value === "object" && value !== null &&
    !(value instanceof Date) && !(value instanceof RegExp) &&
    !ArrayBuffer.isView(value);
}

function show(value: unknown): string {
  return Deno.inspect(value, {
    depth: 10,
    sorted: true,
    strAbbreviateSize: 1e4,
  });
}

/** Lists the differing lines of two values, as `node:assert` lays them out. */
function difference(actual: unknown, expected: unknown): string {
  const operator = "deepStrictEqual";
  const { message } = new NodeAssertionError({ actual, expected, operator });
  // The first line only says that they differ.
  return message.slice(message.indexOf("\n") + 1).trim();
}

function failure(
  problem: string,
  msg: string | undefined,
  details = "",
): AssertionError {
  const explained = msg ? `${problem}: ${msg}` : problem;
  return new AssertionError(details ? `${explained}\n${details}` : explained);
}
