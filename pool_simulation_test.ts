/**
 * The simulation of the pool's core, and the proof that it finds bugs.
 *
 * `deno task fuzz --seeds 1000000` tries as many seeds as wanted.
 *
 * @module
 */

import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import {
  describeFailure,
  formatScript,
  loadCore,
  makeScript,
  parseScript,
  type Rule,
  runScript,
  search,
} from "./pool_simulation.ts";
import { temporaryFolder } from "./testing.ts";

const SEEDS = 20_000;
// A planted bug that hides for longer than this is as good as not found.
const SEEDS_FOR_A_BUG = 2000;
const LONGEST_SCRIPT = 10;

Deno.test(
  "every rule of the core holds for 20,000 seeds of callers and faults",
  { permissions: "none" },
  () => {
    const failure = search({ seeds: SEEDS });
    assert(failure === undefined, failure && describeFailure(failure));
  },
);

Deno.test(
  "a seed does the same each time, also when its script is written down and read again",
  { permissions: "none" },
  () => {
    for (let seed = 1; seed <= 300; seed++) {
      const script = makeScript(seed);
      const text = formatScript(script);
      const replayed = parseScript(text);
      assertEquals(formatScript(replayed), text);
      const traces = [script, script, replayed].map((script) => {
        const trace: string[] = [];
        runScript(script, { log: (line) => trace.push(line) });
        return trace.join("\n");
      });
      assertEquals(traces[1], traces[0], `seed ${seed}`);
      assertEquals(traces[2], traces[0], `seed ${seed}`);
    }
  },
);

/** What the simulation has found in the core, cut down; each was mended. */
const FOUND: Readonly<Record<string, string>> = {
  "a connection used up leaves its place to whoever waits": `
    options {"poolSize":1,"maxOverflow":0,"maxUses":1}
    acquire #1 timeout 1000; acquire #2 timeout 1000; release #1`,
  "a connection that is too old leaves its place to whoever waits": `
    options {"poolSize":1,"maxOverflow":0,"maxLifetimeMs":40}
    acquire #1 timeout 1000; acquire #2 timeout 1000; pass 60 ms; release #1`,
  "a driver that answers a connect twice does not get it closed under its holder":
    `next connect succeeds, answers twice; acquire #1 timeout 50`,
  "a connection that comes too late may throw when it is closed": `
    options {"timeoutMs":20}
    next connect hangs, cancel is ignored; next close throws
    acquire #1 timeout 1000; pass 30 ms; finish what hangs`,
  "giving up a connect may throw": `
    options {"timeoutMs":5}
    next connect hangs, cancel throws; acquire #1 timeout 1000; pass 10 ms`,
  "a slow reset keeps nobody from another idle connection": `
    options {"poolSize":2,"maxOverflow":0,"minIdle":1}; weather {"resetMs":30}
    acquire #1 timeout 1000; release #1; try #2`,
  "a failed ping leaves whoever waits for it to the next idle connection": `
    options {"poolSize":2,"maxOverflow":0,"validate":"borrow","validationBypassMs":0}
    acquire #1 timeout 1000; acquire #2 timeout 1000; release #2; release #1
    next ping fails after 3 ms; acquire #3 timeout 1000; pass 10 ms`,
  "a failed ping does not condemn a connection that is still being opened": `
    options {"poolSize":2,"maxOverflow":0,"validate":"borrow","validationBypassMs":0}
    acquire #1 timeout 1000; release #1; next ping fails after 3 ms
    next connect succeeds after 7 ms; acquire #2 timeout 1000
    acquire #3 timeout 1000; pass 5 ms; pass 10 ms`,
  "a failed ping condemns all older connections before one of them is handed out":
    `
    options {"poolSize":3,"maxOverflow":0,"minIdle":3,"keepaliveMs":15,"validate":"borrow","validationBypassMs":10}
    acquire #1 timeout 1000; pass 15 ms; break connection 4 silently
    acquire #2 timeout 1000`,
  "the report of a close counts what was forced though a close hangs": `
    options {"poolSize":2,"maxOverflow":0,"minIdle":1}
    next close hangs; acquire #1 timeout 1000; close within 0 ms; pass 2000 ms`,
  "a connection handed out in the midst of its ping comes back on top": `
    options {"poolSize":2,"maxOverflow":0,"keepaliveMs":20,"validate":"never"}
    acquire #1 timeout 50; acquire #2 timeout 50; release #1
    next ping succeeds after 7 ms; pass 21 ms; acquire #3 timeout 50
    pass 10 ms; release #2; release #3; acquire #4 timeout 50`,
  "pings of idle connections do not change their order": `
    options {"poolSize":2,"maxOverflow":0,"keepaliveMs":60}
    acquire #1 timeout 50; acquire #2 timeout 50; release #1; release #2
    pass 100 ms; acquire #3 timeout 50`,
  "a connect too many after a resize does not drive out what is open": `
    options {"poolSize":1,"maxOverflow":1}
    acquire #1 timeout 1000; next connect hangs; acquire #2 timeout 1000
    resize to 1+0; release #1`,
  "whoever asks again on hearing of a failure waits for the next attempt": `
    options {"poolSize":1,"maxOverflow":0,"retry":{"maxAttempts":1}}
    next connect fails after 1 ms
    acquire #1 timeout 1000, ask again if refused; pass 1 ms`,
  "whoever asks again on hearing of a permanent failure is tried for at once": `
    options {"poolSize":1,"maxOverflow":0}
    next connect fails for good; acquire #1 timeout 1000, ask again if refused`,
  "whoever asks again while the queue is told of a failure is not told of it": `
    options {"poolSize":1,"maxOverflow":0}
    next connect fails for good after 1 ms
    acquire #1 timeout 1000, ask again if refused; acquire #2 timeout 1000
    pass 1 ms`,
  "the upkeep of minIdle waits after a permanent failure": `
    options {"poolSize":2,"maxOverflow":0,"minIdle":1}
    break all connections visibly; next connect fails for good; acquire #1 timeout 1000`,
};

for (const [name, text] of Object.entries(FOUND)) {
  Deno.test(`found by simulation: ${name}`, { permissions: "none" }, () => {
    const script = parseScript(text);
    const violation = runScript(script);
    assert(
      violation === undefined,
      violation && describeFailure({ script, violation }),
    );
  });
}

/** A bug, as a change of one place in the text of the core. */
interface Bug {
  readonly name: string;
  readonly right: string;
  readonly wrong: string;
  /** The rule under which it must be reported. */
  readonly rule: Rule;
}

const BUGS: readonly Bug[] = [
  {
    name: "a lost waiter: a place that comes free is offered to nobody",
    right:
      "    this.#checkIdle();\n    this.#openWhatIsNeeded();\n  }\n\n  // Connecting.",
    wrong: "  }\n\n  // Connecting.",
    rule: "nobody waits beside a free place",
  },
  {
    name:
      "a connection handed out twice: a second release is taken for a first",
    right: 'if (slot.state !== "inUse") return;\n    this.#move(slot',
    wrong: 'if (slot.state === "closed") return;\n    this.#move(slot',
    rule: "each connection is in one place",
  },
  {
    name: "a connection handed out twice: it stays among the idle",
    right: "    idle.pop();\n    this.#hand(slot, 0);",
    wrong: "    this.#hand(slot, 0);",
    rule: "each connection is in one place",
  },
  {
    name: "a leaked slot: a reset that fails is not followed by anything",
    right: "if (error !== undefined) return this.#discard(slot, error);",
    wrong: "if (error !== undefined) return;",
    rule: "each connection is in one place",
  },
  {
    name: "a miscounted peak: idle connections count as well",
    right: "          this.#counters.peak = this.#inUse;",
    wrong: "          this.#counters.peak = this.#open;",
    rule: "the peak is the most in use",
  },
  {
    name: "a starved waiter: whoever comes later is served first",
    right:
      "    const waiter = this.#waiters.first;\n    if (waiter !== undefined) {",
    wrong:
      "    const waiter = this.#waiters.first?.next ?? this.#waiters.first;\n    if (waiter !== undefined) {",
    rule: "first come, first served",
  },
  {
    name: "a lost connection kept: the notice of the server is not heeded",
    right: 'if (slot.state === "idle") this.#discard(slot, error);\n  }',
    wrong: "void error;\n  }",
    rule: "what is lost goes at once",
  },
];

/** Writes a copy of the core with a bug in it, and gives its path. */
async function plant({ right, wrong }: Bug, folder: string): Promise<string> {
  const text = await Deno.readTextFile("pool_core.ts");
  assertEquals(
    text.split(right).length - 1,
    1,
    `pool_core.ts has changed, plant the bug anew: it should hold once: ${right}`,
  );
  const root = new URL(".", import.meta.url).href;
  const path = join(folder, "pool_core.ts");
  await Deno.writeTextFile(
    path,
    text.replace(right, () => wrong).replaceAll('from "./', `from "${root}`),
  );
  return path;
}

for (const bug of BUGS) {
  Deno.test(`the simulation finds ${bug.name}`, {
    permissions: { read: ["."], write: [".tmp"] },
  }, async () => {
    await using folder = await temporaryFolder();
    const core = await loadCore(await plant(bug, folder.path));
    const rules = [bug.rule];
    const failure = search({ seeds: SEEDS_FOR_A_BUG, core, rules });
    assert(failure !== undefined, "it was not found");
    const { script, violation } = failure;
    const report = describeFailure(failure);
    assertEquals(violation.rule, bug.rule, report);
    assert(script.steps.length <= LONGEST_SCRIPT, report);
    // The shortest script tells the bug from the right code.
    assertEquals(runScript(parseScript(formatScript(script)), { core }), {
      ...violation,
    });
    assertEquals(runScript(script), undefined);
  });
}

Deno.test(
  "a failure ends with exit code 1, the seed, the steps and the command that replays it",
  {
    permissions: {
      read: ["."],
      write: [".tmp"],
      run: [Deno.execPath()],
    },
  },
  async () => {
    await using folder = await temporaryFolder();
    const core = await plant(BUGS.at(-1) as Bug, folder.path);
    const run = async (...args: string[]): Promise<[number, string]> => {
      const { code, stdout } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-prompt", "--allow-read", "pool_simulation.ts"]
          .concat(args),
      }).output();
      return [code, new TextDecoder().decode(stdout)];
    };
    const [code, report] = await run("--core", core, "--seeds", "2000");
    assertEquals(code, 1);
    const [, seed] = report.match(/^Seed (\d+) breaks the rule that/) ?? [];
    assert(seed !== undefined, report);
    assertStringIncludes(report, "\n   1. ");
    const [, script] = report.match(/--script '(.*)'/) ?? [];
    assert(script !== undefined, report);
    assertEquals((await run("--core", core, "--script", script))[0], 1);
    assertEquals((await run("--script", script))[0], 0);
    assertEquals(
      (await run("--core", core, "--from", seed, "--seeds", "1"))[0],
      1,
    );
    assertEquals((await run("--seeds", "many"))[0], 2);
  },
);
