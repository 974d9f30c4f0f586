/**
 * The exercise: what a learner's pool is told about itself.
 *
 * @module
 */

import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Check,
  CHECKED_CASES,
  checkPool,
  PoolModuleError,
  TEMPLATE,
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
  options: { cases?: typeof CHECKED_CASES; longestCaseMs?: number } = {},
): Promise<Check[]> {
  return await Array.fromAsync(checkPool(file, { folder, ...options }));
}

/** What a module comes to that has this text, in the case of this name. */
async function checkText(
  text: string,
  name: string,
  longestCaseMs?: number,
): Promise<Check> {
  await using folder = await temporaryFolder();
  const file = folder.file("pool.ts");
  await Deno.writeTextFile(file, text);
  const [found] = await check(file, folder.path, {
    cases: CHECKED_CASES.filter((lab) => lab.name === name),
    ...(longestCaseMs === undefined ? {} : { longestCaseMs }),
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
    for (const { lab, isHeld, seen } of checks) {
      assert(isHeld, `${lab.name}: ${seen}`);
    }
    assertEquals(checks.map(({ lab }) => lab.name), [
      ...["break-pool-size", "break-bad-path", "break-closed-connection"],
      ...["break-open-transaction", "break-leak", "break-nested-acquire"],
      ...["break-memory-database", "break-blocking-lock"],
      ...["break-thundering-herd", "break-double-release"],
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
    assert(held.length < 4, held.map(({ lab }) => lab.name).join());
    for (const { lab, seen } of checks) {
      assert((lab.demand ?? "") !== "" && seen !== "", lab.name);
      assert(!seen.startsWith("It threw"), `${lab.name}: ${seen}`);
    }
  },
);

Deno.test(
  "each guard that is taken out of the solution is missed by the check for it",
  { permissions },
  async () => {
    const solution = (await Deno.readTextFile("lab_solution.ts"))
      .replace("./clock.ts", import.meta.resolve("./clock.ts"));
    const broken: Record<string, readonly [string, string]> = {
      "break-pool-size": ["poolSize >= 1", "poolSize >= -1"],
      "break-bad-path": ["++failures >= this.#options.maxAttempts", "true"],
      "break-closed-connection": ["await connection.ping();", ""],
      "break-open-transaction": ["if (connection.inTransaction)", "if (false)"],
      "break-leak": ["}, ms);", "}, 1e6);"],
      "break-nested-acquire": ["}, ms);", "}, 1e6);"],
      "break-memory-database": ['database === ":memory:"', "false"],
      "break-blocking-lock": ["!isLocked ||", "true ||"],
      "break-thundering-herd": ["if (this.#isConnecting) return;", ""],
      "break-double-release": ["loan.connection = undefined;", ""],
    };
    assertEquals(Object.keys(broken), CHECKED_CASES.map(({ name }) => name));
    for (const [name, [guard, nothing]] of Object.entries(broken)) {
      assert(solution.includes(guard), guard);
      const { isHeld, seen } = await checkText(
        solution.replace(guard, nothing),
        name,
      );
      assert(!isHeld, `${name}: ${seen}`);
    }
  },
);

Deno.test(
  "numbers that do not add up, and connections that close() forgets, are told",
  { permissions },
  async () => {
    const solution = (await Deno.readTextFile("lab_solution.ts"))
      .replace("./clock.ts", import.meta.resolve("./clock.ts"));
    const name = "break-closed-connection";
    const wrong = await checkText(
      solution.replace("const open = this.#all.size", "const open = 0"),
      name,
    );
    assertEquals(
      [wrong.isHeld, /stats\(\)/.test(wrong.seen)],
      [false, true],
      wrong.seen,
    );
    const forgetful = await checkText(
      solution.replace(
        "for (const connection of this.#all) {",
        "for (;;) { break;",
      ),
      name,
    );
    assert(forgetful.seen.includes("close() left 1 of 2"), forgetful.seen);
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
    ["export class P { acquire() {} release() {} }", "has no stats, close"],
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
