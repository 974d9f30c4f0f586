/**
 * The exercise: what a learner's pool is told about itself.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Check,
  checkPool,
  PoolModuleError,
  TEMPLATE,
  TESTS,
} from "./lab_check.ts";
import { FILES_AND_PROCESSES, temporaryFolder } from "./testing.ts";

const permissions: Deno.PermissionOptionsObject = {
  ...FILES_AND_PROCESSES,
  // A module of a learner may stand anywhere.
  read: true,
};

const METHODS = "acquire() {} release() {} " +
  "stats() { return { open: 0, idle: 0, inUse: 0 }; } close() {}";

async function check(
  file: string,
  folder: string,
  options: { tests?: typeof TESTS; longestTestMs?: number } = {},
): Promise<Check[]> {
  return await Array.fromAsync(checkPool(file, { folder, ...options }));
}

/** What a module comes to that has this text, in the test of this name. */
async function checkText(
  text: string,
  name: string,
  longestTestMs?: number,
): Promise<Check> {
  await using folder = await temporaryFolder();
  const file = folder.file("pool.ts");
  await Deno.writeTextFile(file, text);
  const [found] = await check(file, folder.path, {
    tests: TESTS.filter((test) => test.name === name),
    ...(longestTestMs === undefined ? {} : { longestTestMs }),
  });
  assertEquals([...Deno.readDirSync(folder.path)].length, 1);
  assert(found !== undefined);
  return found;
}

Deno.test(
  "the exercise can be done: a pool written from the template alone passes every check",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const checks = await check("lab_solution.ts", folder.path);
    for (const { test, isHeld, seen } of checks) {
      assert(isHeld, `${test.name}: ${seen}`);
    }
    assertEquals(checks.map(({ test }) => test.name), [
      ...["break-pool-size", "break-bad-path", "break-closed-connection"],
      ...["break-open-transaction", "break-leak", "break-nested-acquire"],
      ...["break-memory-database", "break-blocking-lock"],
      ...["break-thundering-herd", "break-double-release"],
      ...["limit", "stats", "order", "close"],
    ]);
  },
);

Deno.test(
  "the template compiles, works, and has nearly everything still to do",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const file = folder.file("my_pool.ts");
    await Deno.writeTextFile(file, TEMPLATE);
    for (
      const args of [["check", "--no-config"], ["fmt", "--check"], ["lint"]]
    ) {
      const { code, stderr } = await new Deno.Command(Deno.execPath(), {
        args: [...args, file],
      }).output();
      assertEquals(code, 0, new TextDecoder().decode(stderr));
    }
    const checks = await check(file, folder.path);
    const held = checks.filter(({ isHeld }) => isHeld);
    // By chance, as nothing is lent twice and nobody waits.
    assertEquals(held.map(({ test }) => test.name), [
      ...["break-open-transaction", "break-nested-acquire"],
      ...["break-double-release", "order"],
    ]);
    for (const { test, isHeld, seen } of checks) {
      assert(test.demand !== "" && (isHeld || seen !== ""), test.name);
      assert(!seen.startsWith("It threw"), `${test.name}: ${seen}`);
    }
  },
);

/**
 * The solution with one guard left out or botched, as one does it: the test that
 * must tell, what is changed, and a word of what is seen.
 */
const BOTCHED: readonly (readonly [string, string, string, RegExp])[] = [
  ["break-pool-size", "poolSize >= 1", "poolSize !== 0", /pool of -1/],
  ["break-pool-size", "Number.isInteger(poolSize) && ", "", /pool of 1\.5/],
  [
    "break-bad-path",
    "++failures >= this.#options.maxAttempts",
    "true",
    /1 attempt of 5/,
  ],
  [
    "break-bad-path",
    "++failures >= this.#options.maxAttempts",
    "++failures > this.#options.maxAttempts",
    /6 attempts of 5/,
  ],
  ["break-bad-path", "20 * 2 ** (failures - 1)", "20", /did not grow: 2\d/],
  [
    "break-closed-connection",
    "await connection.ping();",
    "",
    /5 of 5 tasks/,
  ],
  [
    "break-closed-connection",
    "await connection.ping();",
    'if (connection.isClosed) throw new Error("closed");',
    /do not answer/,
  ],
  [
    "break-closed-connection",
    "      await this.#open();\n",
    "",
    /task was still waiting/,
  ],
  [
    "break-open-transaction",
    "if (connection.inTransaction)",
    "if (false)",
    /Bob saw 1 row/,
  ],
  [
    "break-open-transaction",
    'await connection.execute("ROLLBACK")',
    'await connection.execute("ROLLBACK").catch(() => {})',
    /rollback that failed/,
  ],
  ["break-leak", "}, ms);", "}, 1e6);", /Still waiting/],
  ["break-leak", "}, ms);", "}, 3 * ms);", /Still waiting/],
  ["break-leak", "}, ms);", "}, 2 * ms);", /acquireTimeoutMs of 200/],
  [
    "break-leak",
    "this.#waiters.splice(this.#waiters.indexOf(waiter), 1);",
    "",
    /after a waiter had given up/,
  ],
  ["break-nested-acquire", "}, ms);", "}, 1e6);", /stuck for ever/],
  ["break-memory-database", 'database === ":memory:"', "false", /0 of 4/],
  ["break-blocking-lock", "!isLocked ||", "true ||", /Not written/],
  ["break-blocking-lock", "!isLocked ||", "", /no SQL/],
  ["break-blocking-lock", "systemClock.now() > endMs", "false", /a lock that/],
  ["break-blocking-lock", "await delay(10)", "await null", /without a wait/],
  [
    "break-thundering-herd",
    "if (this.#isConnecting) return;",
    "",
    /connects at a database/,
  ],
  ["break-double-release", "loan.connection = undefined;", "", /Bob's row/],
  [
    "break-double-release",
    "loan.connection = undefined;",
    "const { connection: used } = loan; loan.release = () => used;",
    /It threw|Bob's row/,
  ],
  ["limit", "this.#all.size < this.#limit", "this.#all.size < 3", /3 conn/],
  ["stats", "const open = this.#all.size", "const open = 0", /in use when/],
  ["order", "this.#waiters.shift()", "this.#waiters.pop()", /3, 2, 1/],
  [
    "close",
    "for (const connection of this.#all) {",
    "for (;;) { const connection = undefined as never; break;",
    /close\(\) left 1 connection/,
  ],
  ["close", "this.#isClosed = true;", "", /Who came after/],
  [
    "close",
    'waiter.fail(new Error("The pool is closed"))',
    "break",
    /Who waited/,
  ],
];

Deno.test(
  "a guard that is left out of the solution, or botched, is told by the test for it",
  { permissions },
  async () => {
    const solution = (await Deno.readTextFile("lab_solution.ts"))
      .replace("./clock.ts", import.meta.resolve("./clock.ts"));
    for (const [name, guard, botched, what] of BOTCHED) {
      assert(solution.includes(guard), guard);
      const { isHeld, seen } = await checkText(
        solution.replace(guard, botched),
        name,
      );
      assert(!isHeld && what.test(seen), `${name}, ${botched}: ${seen}`);
    }
    const names = new Set(BOTCHED.map(([name]) => name));
    assertEquals([...names], TESTS.map(({ name }) => name));
  },
);

Deno.test(
  "a rule that is broken in a case is told as the rule, and the case holds",
  { permissions },
  async () => {
    await using folder = await temporaryFolder();
    const file = folder.file("pool.ts");
    const solution = (await Deno.readTextFile("lab_solution.ts"))
      .replace("./clock.ts", import.meta.resolve("./clock.ts"));
    await Deno.writeTextFile(
      file,
      solution.replace("const open = this.#all.size", "const open = 0"),
    );
    const checks = await check(file, folder.path, {
      tests: TESTS.filter(({ name }) => /stats|double/.test(name)),
    });
    assertEquals(checks.map(({ test, isHeld }) => [test.name, isHeld]), [
      ["break-double-release", true],
      ["stats", false],
    ]);
    assert(checks[1]?.seen.startsWith("In break-double-release stats() said"));
  },
);

Deno.test(
  "a pool that would end the program, or never loads, is told so within seconds",
  { permissions },
  async () => {
    const pool = (step: string): string =>
      `export class P { ${
        METHODS.replace("acquire() {}", `acquire() { ${step} }`)
      } }`;
    for (const step of ["Deno.exit(0)", "process.exit(0)", "self.close()"]) {
      const { isHeld, seen } = await checkText(pool(step), "break-leak");
      assert(!isHeld && seen.includes("must not end the program"), seen);
    }
    for (const top of ["for (;;);", "await new Promise(() => {});"]) {
      await assertRejects(
        () => checkText(`${top} ${pool("")}`, "break-leak", 500),
        PoolModuleError,
        "has not loaded within 0.5 s",
      );
    }
    await using folder = await temporaryFolder();
    const file = folder.file("pool.ts");
    await Deno.writeTextFile(file, pool("for (;;);"));
    // The first has no need of a connection.
    const tests = TESTS.filter(({ name }) => name !== "break-pool-size");
    const checks: Check[] = [];
    const steps = checkPool(file, {
      ...{ folder: folder.path, tests, longestTestMs: 500 },
    });
    let step = await steps.next();
    while (!step.done) {
      checks.push(step.value);
      step = await steps.next();
    }
    assertEquals(checks.length, tests.length);
    assertEquals(step.value.checks.length, tests.length);
    assertEquals(
      checks.filter(({ seen }) => seen.startsWith("Not tried")).length,
      tests.length - 2,
    );
    assert(step.value.checks.at(-1)?.seen.startsWith("Not tried"));
  },
);

Deno.test(
  "a pool that loops without end, or throws where nobody waits, is a finding and no crash",
  { permissions },
  async () => {
    const endless = `export class P { ${
      METHODS.replace(
        "acquire() {}",
        "acquire() { for (;;); }",
      )
    } }`;
    const loops = await checkText(endless, "break-leak", 500);
    assert(loops.seen.includes("no end within 0.5 s"), loops.seen);
    for (
      const how of [
        "queueMicrotask(() => { throw new Error('boo'); })",
        "Promise.reject(new Error('boo'))",
      ]
    ) {
      const thrower = `export class P { ${
        METHODS.replace(
          "acquire() {}",
          `acquire() { ${how}; return new Promise(() => {}); }`,
        )
      } }`;
      const { isHeld, seen } = await checkText(thrower, "break-leak");
      assertEquals(isHeld, false);
      assert(/pool\.ts:1: boo/.test(seen), seen);
    }
  },
);

for (
  const [text, problem] of [
    ["export const one = 1;", "it exports no class"],
    [
      "export class P { acquire() {} release() {} }",
      "has no method stats, close",
    ],
    ["export function createPool() {}", "no class; export one with acquire"],
    [
      `export class A { ${METHODS} } export class B { ${METHODS} }`,
      "several classes",
    ],
    ["export class P {", "SyntaxError"],
    ["throw new Error('at once');", "at once"],
  ] as const
) {
  Deno.test(`a module without a pool is refused, and told why: ${problem}`, {
    permissions,
  }, async () => {
    await assertRejects(
      () => checkText(text, "break-leak"),
      PoolModuleError,
      problem,
    );
  });
}
