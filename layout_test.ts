/**
 * The rules of the layout: what a reader of one file may rely on without
 * reading the others.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import { PG_SPECIFIER } from "./postgres_client.ts";
import { CHARTS_SPECIFIER } from "./page.ts";
import { SERVER_VARIABLES } from "./testing.ts";

const READ: Deno.PermissionOptions = { read: ["."] };
const READ_AND_RUN: Deno.PermissionOptions = {
  read: ["."],
  run: [Deno.execPath()],
};

/** The floors of the design: a file imports from its own floor or from below. */
const FLOORS: readonly (readonly string[])[] = [
  [
    ...["arrivals.ts", "breaker.ts", "clock.ts", "config.ts", "deadlines.ts"],
    ...["distributions.ts", "driver.ts", "errors.ts"],
    ...[
      "histogram.ts",
      "labels.ts",
      "page.ts",
      "postgres_url.ts",
      "pool_report.ts",
      "random.ts",
      "retry.ts",
      "rules.ts",
      "slot.ts",
      "statistics.ts",
      "terminal.ts",
      "theory.ts",
      "time_line.ts",
      "waiters.ts",
      "whole_file.ts",
    ],
  ],
  [
    ...[
      "leaks.ts",
      "nesting.ts",
      "pool.ts",
      "pool_core.ts",
      "pooled_connection.ts",
      "postgres.ts",
      "postgres_client.ts",
      "postgres_connection.ts",
      "postgres_session.ts",
      "sqlite.ts",
    ],
    ...["scenario.ts", "simulated_database.ts", "virtual_clock.ts"],
  ],
  [
    ...["diagnosis.ts", "events_table.ts", "health.ts", "lab_bench.ts"],
    ...["lock_holder.ts", "retry_models.ts"],
    ...["simulate.ts", "workload.ts"],
  ],
  [
    ...["command_line.ts", "lab.ts", "lab_cases.ts", "lab_check.ts"],
    ...[
      "lab_explain.ts",
      "lab_report.ts",
      "lab_trial.ts",
      "lab_worker.ts",
      "notes.ts",
    ],
    "report.ts",
  ],
  ["mod.ts", "project.ts"],
];

interface Module {
  readonly specifier: string;
  readonly dependencies?: readonly {
    readonly code?: { readonly specifier: string };
    readonly type?: { readonly specifier: string };
  }[];
}

async function importsOf(root: string): Promise<Map<string, Set<string>>> {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", root],
  }).output();
  const { modules } = JSON.parse(new TextDecoder().decode(stdout)) as {
    modules: readonly Module[];
  };
  const name = (specifier: string): string => specifier.replace(/^.*\//, "");
  const ours = modules.filter(({ specifier }) =>
    specifier.startsWith("file:") &&
    specifier === new URL(name(specifier), import.meta.url).href
  );
  return new Map(ours.map(({ specifier, dependencies = [] }) => [
    name(specifier),
    new Set(
      dependencies.flatMap(({ code, type }) => [code, type])
        .flatMap((found) => found ? [name(found.specifier)] : [])
        .filter((file) =>
          ours.some((module) => name(module.specifier) === file)
        ),
    ),
  ]));
}

Deno.test("imports point down the floors, and never in a circle", {
  permissions: READ_AND_RUN,
}, async () => {
  const graphs = await Promise.all(
    ["mod.ts", "project.ts", "lab_worker.ts"].map(importsOf),
  );
  const imports = new Map(graphs.flatMap((graph) => [...graph]));
  imports.delete("deno.json");
  const floorOf = (file: string): number =>
    FLOORS.findIndex((floor) => floor.includes(file));
  const reached = new Map<string, Set<string>>();
  const reach = (file: string, path: readonly string[]): Set<string> => {
    assert(!path.includes(file), `a circle: ${[...path, file].join(" → ")}`);
    const known = reached.get(file);
    if (known !== undefined) return known;
    const all = new Set<string>();
    for (const other of imports.get(file) ?? []) {
      if (other === "deno.json") continue;
      assert(
        floorOf(other) <= floorOf(file),
        `${file} imports ${other}, which is above`,
      );
      all.add(other);
      for (const further of reach(other, [...path, file])) all.add(further);
    }
    reached.set(file, all);
    return all;
  };
  for (const file of imports.keys()) {
    assert(floorOf(file) >= 0, `${file} stands on no floor of the design`);
    reach(file, []);
  }
  // Every file of the design is part of the program, or it is no part of it.
  assertEquals([...imports.keys()].sort(), FLOORS.flat().toSorted());
});

Deno.test(
  "only clock.ts touches real time, and nothing draws ambient chance unasked",
  {
    permissions: READ,
  },
  async () => {
    for (const file of FLOORS.flat()) {
      const text = await Deno.readTextFile(file);
      const code = text.replaceAll(/\/\*\*.*?\*\/|\/\/.*/gs, "");
      if (file !== "clock.ts") {
        assertEquals(
          code.match(
            /\b(setTimeout|setInterval|Date\.now|performance\.now)\b/g,
          ),
          null,
          file,
        );
      }
      assertEquals(code.match(/\bMath\.random\(\)/g), null, file);
      if (file !== "project.ts") {
        assertEquals(
          code.match(/\b(console\.|Deno\.exit|Deno\.stdout)/g),
          null,
          file,
        );
      }
    }
  },
);

async function settings(file: string): Promise<Record<string, unknown>> {
  return JSON.parse(await Deno.readTextFile(file));
}

Deno.test(
  "deno.jsr.json has the imports of deno.json and no links, so both run one program",
  {
    permissions: READ,
  },
  async () => {
    const linked = await settings("deno.json");
    const published = await settings("deno.jsr.json");
    assertEquals(published["imports"], linked["imports"]);
    assertEquals("links" in published, false);
    assertEquals(published["compilerOptions"], linked["compilerOptions"]);
    assertEquals(published["test"], linked["test"]);
  },
);

Deno.test(
  "each stand-in bears the name and a version of the package that deno.json imports",
  {
    permissions: READ,
  },
  async () => {
    const { imports, links } = await settings("deno.json") as {
      imports: Record<string, string>;
      links: string[];
    };
    const standIns = await Promise.all(links.map(async (link) => {
      const { name, version } = await settings(`${link}/deno.json`);
      return [name, `jsr:${name}@^${version}`];
    }));
    assertEquals(Object.fromEntries(standIns), imports);
  },
);

Deno.test(
  "the task that runs the job grants files, and for a server the network and named variables",
  {
    permissions: READ,
  },
  async () => {
    const { tasks } = await settings("deno.json") as {
      tasks: Record<string, { command: string; description: string }>;
    };
    const granted = tasks["run"]?.command.match(/--allow-\S+|\s-A\b/g);
    assertEquals(granted, [
      ...["--allow-read", "--allow-write", "--allow-net"],
      `--allow-env=${SERVER_VARIABLES}`,
    ]);
    for (const [name, { description }] of Object.entries(tasks)) {
      assert(description.length > 10, `the task ${name} has no description`);
    }
  },
);

Deno.test(
  "the job downloads nothing: no module imports from npm, and only the client for PostgreSQL and the charts are locked",
  {
    permissions: READ,
  },
  async () => {
    const { specifiers } = await settings("deno.lock") as {
      specifiers: Record<string, string>;
    };
    assertEquals(Object.keys(specifiers), [CHARTS_SPECIFIER, PG_SPECIFIER]);
    // `deno task` would download whatever stands among the imports.
    const { imports } = await settings("deno.json") as {
      imports: Record<string, string>;
    };
    for (const specifier of Object.values(imports)) {
      assert(specifier.startsWith("jsr:"), specifier);
    }
    for await (const { name } of Deno.readDir(".")) {
      if (!name.endsWith(".ts")) continue;
      const text = await Deno.readTextFile(name);
      assertEquals(/from "(npm:|pg"|echarts)/.test(text), false, name);
    }
  },
);

Deno.test(
  "every test that the README names for a complaint exists under that name",
  {
    permissions: READ,
  },
  async () => {
    const readme = await Deno.readTextFile("README.md");
    const table = readme.split("| the complaint ")[1]?.split("\n\n")[0] ?? "";
    const names = table.split("\n").slice(2).map((row) =>
      row.split("|")[2]?.trim() ?? ""
    );
    assert(names.length >= 17, `${names.length} complaints`);
    let tests = "";
    for await (const { name } of Deno.readDir(".")) {
      if (name.endsWith("_test.ts")) tests += await Deno.readTextFile(name);
    }
    for (const name of names) {
      assert(
        tests.includes(JSON.stringify(name)),
        `no test is named '${name}'`,
      );
    }
  },
);
