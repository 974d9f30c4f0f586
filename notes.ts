/**
 * The notes: the four questions of the exercise, answered from what the cases of
 * the lab have measured.
 *
 * @module
 */

import type { LabRun } from "./lab.ts";
import { EXPLAIN_CASES } from "./lab_explain.ts";
import {
  drawings,
  experimentOf,
  figureRows,
  figureTables,
} from "./lab_report.ts";
import { fold } from "./terminal.ts";

/** The cases that answer the questions, in their order. */
export const NOTE_CASES = EXPLAIN_CASES;

const QUESTIONS: Readonly<Record<string, string>> = {
  "explain-context-managers":
    "Why does `using` matter for connections, as `with` does in Python?",
  "explain-pooling": "Pooled, or a new connection for each query?",
  "explain-backoff": "Why exponential backoff, and not a fixed delay?",
  "explain-sizing": "A pool too small, a pool too large?",
};

/** Where and when something was measured. */
export interface Circumstances {
  /** The day, as 2026-11-24. */
  readonly date: string;
  /** The kind of processor. */
  readonly processor: string;
  /** The version of Deno. */
  readonly deno: string;
  /** Whether a server was measured too. */
  readonly hasServer: boolean;
}

/** A paragraph as `deno fmt` would have it. */
function paragraph(text: string): string {
  return fold(text, 80).join("\n") + "\n";
}

/** A table as `deno fmt` would have it. */
function markdownTable(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(3, ...rows.map((row) => (row[i] ?? "").length))
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(" | ")} |\n`;
  const [head = [], ...body] = rows;
  return line(head) + line(widths.map((width) => "-".repeat(width))) +
    body.map(line).join("");
}

function section(run: LabRun, { hasServer }: Circumstances): string {
  const { lab, result } = run;
  const drawn = drawings(run);
  const usesServer = hasServer && lab.onServer;
  const command = `deno task lab ${lab.name}${
    usesServer ? " --db postgres://me@localhost/shop" : ""
  }`;
  const again = command === experimentOf(lab)
    ? `    ${command}\n`
    : `    ${command}\n    ${experimentOf(lab)}\n`;
  return `## ${QUESTIONS[lab.name] ?? result.title}

${paragraph(result.explanation)}
${
    [figureRows(run), ...figureTables(run)].map((rows) =>
      `${markdownTable(rows)}\n`
    ).join("")
  }${drawn === "" ? "" : `\`\`\`text\n${drawn}\`\`\`\n\n`}${
    paragraph(
      `The guard is \`${result.guard.symbol}\` in \`${result.guard.file}\`. ` +
        `Run it again, then with one thing changed, and look at ${lab.experiment.look}.`,
    )
  }
${again}`;
}

/** The notes as Markdown. */
export function notesText(
  runs: readonly LabRun[],
  circumstances: Circumstances,
): string {
  const { date, processor, deno } = circumstances;
  const intro = paragraph(
    `\`deno task notes\` wrote this from what it measured on ${date}, on ` +
      `${processor}, with Deno ${deno}. Figures in virtual time are the same ` +
      "on every machine; microseconds are not.",
  );
  return `# Four questions, answered by experiment

${intro}
${runs.map((run) => section(run, circumstances)).join("\n")}`;
}
