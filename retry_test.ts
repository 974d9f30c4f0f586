import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
} from "@std/assert";
import { ConfigError, RetryError } from "./errors.ts";
import {
  backoffDelayMs,
  DEFAULT_RETRY_POLICY,
  describeRetry,
  type Jitter,
  JITTERS,
  retry,
  RetryBudget,
  type RetryNotice,
  type RetryPolicy,
  retryPolicy,
} from "./retry.ts";
import { settled, VirtualClock } from "./virtual_clock.ts";

const permissions = "none";

const STEADY: RetryPolicy = {
  maxAttempts: 4,
  baseDelayMs: 10,
  factor: 2,
  maxDelayMs: 1000,
  jitter: "none",
};

const ALMOST_1 = 1 - 2 ** -53;

function delays(policy: RetryPolicy, random: number, count: number): number[] {
  return Array.from(
    { length: count },
    (_, i) => backoffDelayMs(policy, i + 1, () => random),
  );
}

Deno.test({
  name: "backoffDelayMs() without jitter grows by the factor up to the cap",
  permissions,
  fn() {
    const policy = { ...STEADY, maxDelayMs: 100 };
    assertEquals(delays(policy, 0.5, 6), [10, 20, 40, 80, 100, 100]);
    assertEquals(delays({ ...policy, factor: 1 }, 0.5, 3), [10, 10, 10]);
    assertEquals(delays({ ...policy, baseDelayMs: 500 }, 0.5, 2), [100, 100]);
  },
});

Deno.test({
  name: "backoffDelayMs() with full jitter spreads from 0 to the capped wait",
  permissions,
  fn() {
    const policy: RetryPolicy = { ...STEADY, maxDelayMs: 100, jitter: "full" };
    assertEquals(delays(policy, 0, 6), [0, 0, 0, 0, 0, 0]);
    // With the cap after the jitter the last would be 100, for all clients.
    assertEquals(delays(policy, 0.5, 6), [5, 10, 20, 40, 50, 50]);
    assertAlmostEquals(delays(policy, ALMOST_1, 6)[5] ?? 0, 100);
  },
});

Deno.test({
  name: "backoffDelayMs() with equal jitter keeps half of the capped wait",
  permissions,
  fn() {
    const policy: RetryPolicy = { ...STEADY, maxDelayMs: 100, jitter: "equal" };
    assertEquals(delays(policy, 0, 6), [5, 10, 20, 40, 50, 50]);
    assertEquals(delays(policy, 0.5, 6), [7.5, 15, 30, 60, 75, 75]);
    assertAlmostEquals(delays(policy, ALMOST_1, 6)[5] ?? 0, 100);
  },
});

Deno.test({
  name: "backoffDelayMs() with decorrelated jitter grows from the last delay",
  permissions,
  fn() {
    const policy: RetryPolicy = { ...STEADY, jitter: "decorrelated" };
    const half = () => 0.5;
    assertEquals(backoffDelayMs(policy, 1, half), 20);
    assertEquals(backoffDelayMs(policy, 2, half, 20), 35);
    assertEquals(backoffDelayMs(policy, 9, half, 100), 155);
    assertEquals(backoffDelayMs(policy, 9, () => 0, 100), 10);
    assertEquals(backoffDelayMs(policy, 9, half, 1000), 1000);
    // A previous delay below the base does not turn the range around.
    assertEquals(backoffDelayMs(policy, 9, half, 0), 10);
  },
});

Deno.test({
  name: "backoffDelayMs() stays a number from 0 to the cap at any attempt",
  permissions,
  fn() {
    for (const jitter of JITTERS) {
      for (const baseDelayMs of [0, 0.001, 10, 2 ** 31 - 1]) {
        for (const factor of [1, 2, 1e300]) {
          for (
            const attempt of [1, 2, 50, 1100, 1e6, Number.MAX_SAFE_INTEGER]
          ) {
            for (const random of [0, 0.5, ALMOST_1]) {
              const policy = { ...STEADY, jitter, baseDelayMs, factor };
              const ms = backoffDelayMs(policy, attempt, () => random, 1000);
              const context = JSON.stringify({ policy, attempt, random, ms });
              assert(ms >= 0 && ms <= policy.maxDelayMs, context);
              if (baseDelayMs === 0 && jitter !== "decorrelated") {
                assertEquals(ms, 0, context);
              }
            }
          }
        }
      }
    }
  },
});

/** A function that fails `failures` times, and the times of its calls. */
function failing(
  clock: VirtualClock,
  failures: number,
): { fn: (attempt: number) => string; calls: [number, number][] } {
  const calls: [number, number][] = [];
  const fn = (attempt: number): string => {
    calls.push([attempt, clock.now()]);
    if (calls.length <= failures) throw new Error(`failure ${attempt}`);
    return "done";
  };
  return { fn, calls };
}

Deno.test({
  name: "retry() waits longer and longer, then gives what the function returns",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const { fn, calls } = failing(clock, 3);
    const result = retry(fn, STEADY, { clock });
    await clock.advanceAsync(1000);
    assertEquals(await result, "done");
    assertEquals(calls, [[1, 0], [2, 10], [3, 30], [4, 70]]);
    assertEquals(clock.pending, 0);
  },
});

Deno.test({
  name: "retry() draws its waits from the random numbers it is given",
  permissions,
  async fn() {
    const expected: Record<Jitter, number[]> = {
      none: [0, 10, 30, 70],
      full: [0, 5, 15, 35],
      equal: [0, 7.5, 22.5, 52.5],
      // 10 + 0.5 * 20, then 10 + 0.5 * 50, then 10 + 0.5 * 95.
      decorrelated: [0, 20, 55, 112.5],
    };
    for (const jitter of JITTERS) {
      const clock = new VirtualClock();
      const { fn, calls } = failing(clock, 3);
      const random = () => 0.5;
      const result = retry(fn, { ...STEADY, jitter }, { clock, random });
      await clock.advanceAsync(1000);
      assertEquals(await result, "done");
      assertEquals(calls.map(([, ms]) => ms), expected[jitter], jitter);
    }
  },
});

Deno.test({
  name: "retry() gives up after the last failure at once, and says what it did",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const { fn, calls } = failing(clock, Infinity);
    const outcome = assertRejects(
      () => retry(fn, STEADY, { clock }),
      RetryError,
      "Failed after 4 attempts: failure 4",
    );
    await clock.advanceAsync(70);
    // No time passes any more, so a wait after the last failure would hang.
    const error = await outcome;
    assertEquals(calls.length, 4);
    assertEquals(clock.pending, 0);
    assertEquals(error.name, "RetryError");
    assertEquals(error.attempts, 4);
    assertEquals(error.delaysMs, [10, 20, 40]);
    assertEquals(error.elapsedMs, 70);
    assertInstanceOf(error.cause, Error);
    assertEquals(error.cause.message, "failure 4");
  },
});

Deno.test({
  name: "retry() with one attempt does not retry",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const { fn, calls } = failing(clock, 1);
    await assertRejects(
      () => retry(fn, { maxAttempts: 1 }, { clock }),
      RetryError,
      "Failed after 1 attempt: failure 1",
    );
    assertEquals(calls.length, 1);
  },
});

Deno.test({
  name:
    "retry() takes what the policy leaves out from the default, to be bounded",
  permissions,
  async fn() {
    const policies: unknown[] = [
      undefined,
      {},
      { jitter: "full" },
      { maxAttempts: undefined, baseDelayMs: undefined },
    ];
    for (const policy of policies) {
      const clock = new VirtualClock();
      let calls = 0;
      const outcome = retry(
        () => {
          // Not retried, and so the way out of a loop without end.
          if (++calls > 10) throw new RangeError("no bound");
          throw new Error("no");
        },
        policy as RetryPolicy,
        {
          clock,
          isTransient: (error) => !(error instanceof RangeError),
        },
      ).catch((error) => error);
      await clock.advanceAsync(1e6);
      assertInstanceOf(await outcome, RetryError);
      assertEquals(calls, DEFAULT_RETRY_POLICY.maxAttempts);
    }
  },
});

Deno.test({
  name: "retry() throws a permanent error as it is, without another attempt",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const transient = new Error("busy");
    const permanent = new TypeError("no such table");
    const asked: unknown[] = [];
    let calls = 0;
    const outcome = assertRejects(() =>
      retry(
        () => {
          throw ++calls === 1 ? transient : permanent;
        },
        STEADY,
        {
          clock,
          isTransient(error) {
            asked.push(error);
            return error === transient;
          },
        },
      )
    );
    await clock.advanceAsync(1000);
    assertStrictEquals(await outcome, permanent);
    assertEquals(calls, 2);
    assertEquals(asked, [transient, permanent]);
  },
});

Deno.test({
  name: "retry() ends its wait at once when aborted, and calls no more",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const controller = new AbortController();
    const { fn, calls } = failing(clock, Infinity);
    const reason = new Error("enough");
    const { signal } = controller;
    const outcome = assertRejects(() => retry(fn, STEADY, { clock, signal }));
    await clock.advanceAsync(15);
    controller.abort(reason);
    assertStrictEquals(await outcome, reason);
    assertEquals(clock.now(), 15);
    assertEquals(clock.pending, 0);
    await clock.advanceAsync(1000);
    assertEquals(calls.length, 2);
  },
});

Deno.test({
  name: "retry() makes no call when it was aborted before it began",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const { fn, calls } = failing(clock, 0);
    const reason = new Error("too late");
    const signal = AbortSignal.abort(reason);
    const error = await assertRejects(() =>
      retry(fn, STEADY, { clock, signal })
    );
    assertStrictEquals(error, reason);
    assertEquals(calls, []);
  },
});

Deno.test({
  name:
    "retry() aborted during a call gives the reason, not the call's failure",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const controller = new AbortController();
    const { signal } = controller;
    const reason = new Error("enough");
    const call = Promise.withResolvers<string>();
    const outcome = assertRejects(() =>
      retry(() => call.promise, STEADY, { clock, signal })
    );
    await settled();
    controller.abort(reason);
    call.reject(new Error("cut off"));
    assertStrictEquals(await outcome, reason);
    assertEquals(clock.pending, 0);
  },
});

Deno.test({
  name: "retry() tells of each failure that is retried, before it waits",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const { fn } = failing(clock, Infinity);
    const notices: (RetryNotice & { atMs: number })[] = [];
    const outcome = assertRejects(() =>
      retry(fn, STEADY, {
        clock,
        onRetry: (notice) => {
          assertEquals(clock.pending, 0);
          notices.push({ ...notice, atMs: clock.now() });
        },
      })
    );
    await clock.advanceAsync(1000);
    await outcome;
    // The fourth failure is the last, and is thrown instead.
    assertEquals(
      notices.map(({ attempt, maxAttempts, delayMs, atMs }) => [
        attempt,
        maxAttempts,
        delayMs,
        atMs,
      ]),
      [[1, 4, 10, 0], [2, 4, 20, 10], [3, 4, 40, 30]],
    );
    assertEquals((notices[1]?.error as Error).message, "failure 2");
  },
});

Deno.test({
  name: "retry() takes a promise that rejects for a failure, like a throw",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    let calls = 0;
    const result = retry(
      () => ++calls < 3 ? Promise.reject(new Error("no")) : Promise.resolve(5),
      STEADY,
      { clock },
    );
    await clock.advanceAsync(1000);
    assertEquals(await result, 5);
  },
});

Deno.test({
  name:
    "RetryError carries a cause that is no Error, as anything can be thrown",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const error = await assertRejects(
      () => retry(() => Promise.reject("text"), { maxAttempts: 1 }, { clock }),
      RetryError,
      "Failed after 1 attempt: text",
    );
    assertEquals(error.cause, "text");
  },
});

Deno.test({
  name: "describeRetry() says what failed, why, and when it is tried again",
  permissions,
  fn() {
    const error = new Error("no answer");
    const notice = { attempt: 2, maxAttempts: 3, delayMs: 19.2, error };
    assertEquals(
      describeRetry("Cannot open x", notice),
      "Cannot open x: attempt 2 of 3 failed (no answer), trying again in 20 ms",
    );
  },
});

Deno.test({
  name: "retryPolicy() gives the usual policies by name, each a complete one",
  permissions,
  fn() {
    const half = (policy: RetryPolicy): number[] => delays(policy, 0.5, 3);
    assertEquals(half(retryPolicy("none")), [0, 0, 0]);
    assertEquals(half(retryPolicy("fixed")), [10, 10, 10]);
    assertEquals(half(retryPolicy("exponential")), [10, 20, 40]);
    assertEquals(half(retryPolicy("full")), [5, 10, 20]);
    assertEquals(half(retryPolicy("equal")), [7.5, 15, 30]);
    assertEquals(retryPolicy("decorrelated").jitter, "decorrelated");
    assertEquals(
      retryPolicy("fixed", { baseDelayMs: 7, maxAttempts: 9 }),
      {
        maxAttempts: 9,
        baseDelayMs: 7,
        factor: 1,
        maxDelayMs: 5000,
        jitter: "none",
      },
    );
  },
});

Deno.test({
  name: "retry() begins no wait that would end after timeoutMs",
  permissions,
  async fn() {
    // The waits are 10, 20 and 40 ms, and the third would end at 70.
    for (const [timeoutMs, attempts] of [[70, 4], [69, 3], [10, 2], [0, 1]]) {
      const clock = new VirtualClock();
      const { fn } = failing(clock, Infinity);
      const outcome = retry(fn, STEADY, { clock, timeoutMs: timeoutMs ?? 0 })
        .catch((error) => error);
      await clock.advanceAsync(1000);
      const error = await outcome;
      assertInstanceOf(error, RetryError);
      assertEquals(error.attempts, attempts);
      assert(error.elapsedMs <= (timeoutMs ?? 0));
    }
  },
});

Deno.test({
  name:
    "retry() gives each attempt its time, then a signal and another attempt",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const signals: AbortSignal[] = [];
    const result = retry(
      (attempt, signal) => {
        signals.push(signal);
        // The first two never answer.
        return attempt < 3 ? new Promise<string>(() => {}) : "done";
      },
      STEADY,
      { clock, attemptTimeoutMs: 100 },
    );
    await clock.advanceAsync(229);
    assertEquals(signals.map((signal) => signal.aborted), [true, true]);
    assertEquals(signals[0]?.reason.name, "TimeoutError");
    await clock.advanceAsync(1);
    assertEquals(await result, "done");
    assertEquals(signals[2]?.aborted, false);
    assertEquals(clock.pending, 0);
  },
});

Deno.test({
  name: "retry() aborts the signal of the attempt under way when it is aborted",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const controller = new AbortController();
    const reason = new Error("enough");
    let given: AbortSignal | undefined;
    const outcome = assertRejects(() =>
      retry(
        (_, signal) => {
          given = signal;
          return new Promise<void>(() => {});
        },
        STEADY,
        { clock, signal: controller.signal, attemptTimeoutMs: 1000 },
      )
    );
    await settled();
    controller.abort(reason);
    assertStrictEquals(await outcome, reason);
    assertStrictEquals(given?.reason, reason);
    assertEquals(clock.pending, 0);
  },
});

Deno.test({
  name: "RetryBudget lets through a burst, then a fraction of the calls",
  permissions,
  async fn() {
    const clock = new VirtualClock();
    const budget = new RetryBudget({ ratio: 0.5, capacity: 3 });
    const attempts: number[] = [];
    for (let call = 0; call < 20; call++) {
      const outcome = retry(() => Promise.reject(new Error("down")), STEADY, {
        clock,
        budget,
      }).catch((error) => error);
      await clock.advanceAsync(1000);
      const error = await outcome;
      assertInstanceOf(error, RetryError);
      assertEquals(error.cause instanceof Error && error.cause.message, "down");
      attempts.push(error.attempts);
    }
    const retries = attempts.map((count) => count - 1);
    assertEquals(retries.slice(0, 2), [3, 0]);
    assertEquals(retries.reduce((sum, count) => sum + count), 3 + 9);
    // While all is well it fills up again, to its brim and no further.
    for (let call = 0; call < 20; call++) await retry(() => 1, {}, { budget });
    assertEquals(budget.available, 3);
  },
});

Deno.test({
  name: "retry() refuses a policy that breaks a rule, before it calls anything",
  permissions,
  async fn() {
    const wrong: Record<keyof RetryPolicy, readonly unknown[]> = {
      maxAttempts: [0, -1, 1.5, NaN, Infinity, "3", null],
      baseDelayMs: [-1, NaN, Infinity, 2 ** 31, "1"],
      factor: [0, 0.5, NaN, Infinity],
      maxDelayMs: [-1, NaN, Infinity, 2 ** 31],
      jitter: ["Full", "", null, 0],
    };
    const fn = () => assert(false, "was called");
    for (const [field, values] of Object.entries(wrong)) {
      for (const value of values) {
        const policy = { [field]: value };
        const error = await assertRejects(() => retry(fn, policy), ConfigError);
        const fields = error.problems.map((problem) => problem.field);
        assertEquals(fields, [`retry.${field}`], Deno.inspect(value));
        assertThrows(() => retryPolicy("full", policy), ConfigError);
      }
    }
    const policy = { maxAttempts: 0, factor: NaN, jiter: "none" };
    await assertRejects(
      () => retry(fn, policy),
      ConfigError,
      "Cannot create configuration as 'retry.maxAttempts' must be an integer " +
        ">= 1: current value is 0; 'retry.factor' must be a finite number >= 1: " +
        "current value is NaN; 'retry.jiter' is not an option (did you mean " +
        "'jitter'?): current value is \"none\"",
    );
    await assertRejects(
      () => retry(fn, null as unknown as RetryPolicy),
      ConfigError,
      "'retry' must be an object of options",
    );
  },
});

Deno.test({
  name: "retryPolicy() refuses a name that it does not know",
  permissions,
  fn() {
    for (const name of ["Full", "", "toString", undefined]) {
      assertThrows(
        () => retryPolicy(name as "full"),
        ConfigError,
        "'name' must be one of none, fixed, exponential, full, equal, decorrelated",
      );
    }
  },
});

Deno.test({
  name: "a limit that is no number does not lift itself",
  permissions,
  async fn() {
    let calls = 0;
    const outcome = await retry(
      () => {
        calls++;
        throw new Error("no");
      },
      { baseDelayMs: 0 },
      { timeoutMs: NaN },
    ).catch((error) => error);
    assertInstanceOf(outcome, RetryError);
    assertEquals(calls, 1);
    for (const options of [{ ratio: NaN }, { ratio: -1 }, { capacity: NaN }]) {
      assertThrows(
        () => new RetryBudget(options),
        RangeError,
        "must be numbers",
      );
    }
  },
});
