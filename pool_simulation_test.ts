/**
 * The simulation of the pool's core, and the proof that it finds bugs.
 *
 * `deno task fuzz --seeds 1000000` tries as many seeds as wanted.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { describeFailure, loadCore, search } from "./pool_simulation.ts";
import { temporaryFolder } from "./testing.ts";

const SEEDS = 20_000;

Deno.test(
  "every rule of the core holds for 20,000 seeds of callers and faults",
  {
    permissions: "none",
  },
  () => {
    const failure = search({ seeds: SEEDS });
    assert(failure === undefined, failure && describeFailure(failure));
  },
);

/** A bug, as a change of one place in the text of the core. */
interface Bug {
  readonly name: string;
  readonly right: string;
  readonly wrong: string;
}

const BUGS: readonly Bug[] = [
  {
    name: "a lost waiter: a place that comes free is offered to nobody",
    right:
      "    this.#checkIdle();\n    this.#openWhatIsNeeded();\n  }\n\n  // Connecting.",
    wrong: "  }\n\n  // Connecting.",
  },
  {
    name: "a connection handed out twice: it stays among the idle",
    right: "    idle.pop();\n    this.#hand(slot, 0);",
    wrong: "    this.#hand(slot, 0);",
  },
  {
    name: "a leaked slot: a reset that fails is not followed by anything",
    right: "if (error !== undefined) return this.#discard(slot, error);",
    wrong: "if (error !== undefined) return;",
  },
  {
    name: "a miscounted peak: connections being opened count as well",
    right: "        if (this.#inUse > this.#counters.peak) {\n" +
      "          this.#counters.peak = this.#inUse;",
    wrong: "        if (this.#inUse > this.#counters.peak) {\n" +
      "          this.#counters.peak = this.#inUse + this.#opening;",
  },
  {
    name: "a starved waiter: whoever comes later is served first",
    right:
      "    const waiter = this.#firstWaiter;\n    if (waiter !== undefined) {",
    wrong:
      "    const waiter = this.#lastWaiter;\n    if (waiter !== undefined) {",
  },
];

for (const { name, right, wrong } of BUGS) {
  Deno.test(`the simulation finds ${name}`, {
    permissions: { read: ["."], write: [".tmp"] },
  }, async () => {
    const text = await Deno.readTextFile("pool_core.ts");
    assertEquals(
      text.split(right).length,
      2,
      "the core has changed: plant anew",
    );
    await using folder = await temporaryFolder();
    const path = folder.file("pool_core.ts");
    const root = new URL(".", import.meta.url).href;
    const planted = text.replace(right, wrong).replaceAll(
      'from "./',
      `from "${root}`,
    );
    await Deno.writeTextFile(path, planted);
    const failure = search({ seeds: SEEDS, core: await loadCore(path) });
    assert(failure !== undefined, "it was not found");
    const { length } = failure.script.steps;
    assert(length <= 10, `the shortest script has ${length} steps`);
  });
}
