/**
 * What a suite has found, as tables for people and as JSON for machines.
 *
 * @module
 */

import { ratios, summarize, type Summary } from "./measure.ts";

/** One line of a table: a contender and what was measured in each round. */
export interface Row {
  readonly label: string;
  readonly samples: readonly number[];
}

/** Contenders side by side. */
export interface Table {
  readonly title: string;
  /** Of the samples. */
  readonly unit: string;
  readonly rows: readonly Row[];
  /** The row that the others are compared with. */
  readonly reference?: Row;
}

/** A value that the project aims at. It informs; no exit code depends on it. */
export interface Goal {
  readonly text: string;
  readonly value: number;
  readonly isMet: boolean;
}

/** All that a suite has found. */
export interface Report {
  readonly suite: string;
  readonly tables: readonly Table[];
  readonly goals: readonly Goal[];
}

/** How to run a suite. */
export interface SuiteOptions {
  /** Fewer rounds and smaller jobs: a look, not a measurement. */
  readonly isQuick: boolean;
}

/** How many times `reference` a row is: the median over the rounds. */
export function ratio(row: Row, reference: Row): number {
  return summarize(ratios(row.samples, reference.samples)).median;
}

/** A goal that is met by a value of `limit` or less. */
export function atMost(limit: number, text: string, value: number): Goal {
  return { text: `${text}: at most ${limit}`, value, isMet: value <= limit };
}

/** A goal that is met by a value of `limit` or more. */
export function atLeast(limit: number, text: string, value: number): Goal {
  return { text: `${text}: at least ${limit}`, value, isMet: value >= limit };
}

/** A report for a terminal. */
export function formatReport({ suite, tables, goals }: Report): string {
  const lines = goals.map(({ text, value, isMet }) =>
    `  ${isMet ? "met   " : "missed"}  ${text}; measured ${format(value)}`
  );
  return [
    `== ${suite} ==`,
    ...tables.map(formatTable),
    ["Goals", ...lines].join("\n"),
  ].join("\n\n") + "\n";
}

function formatTable({ title, unit, rows, reference }: Table): string {
  const cells = rows.map((row) => {
    const { median, min, max } = summarize(row.samples);
    const spread = `${format(min)}–${format(max)}`;
    if (reference === undefined) return [row.label, format(median), spread];
    const times = `${format(ratio(row, reference))}×`;
    return [row.label, format(median), spread, times];
  });
  const header = [title, `median ${unit}`, "min–max"];
  if (reference !== undefined) header.push(`of ${reference.label}`);
  const table = [header, ...cells];
  const widths = header.map((_, column) =>
    Math.max(...table.map((line) => line[column]?.length ?? 0))
  );
  return table.map((line) =>
    line.map((cell, column) => {
      const width = widths[column] ?? 0;
      return column === 0 ? cell.padEnd(width) : cell.padStart(width);
    }).join("  ")
  ).join("\n");
}

/** Three digits that count, however large or small the value. */
function format(value: number): string {
  if (!Number.isFinite(value)) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: Math.abs(value) < 0.1 ? 3 : digits,
  });
}

/** The same with all samples, for `JSON.stringify`. */
export function toJson({ suite, tables, goals }: Report): unknown {
  return {
    suite,
    tables: tables.map(({ title, unit, rows, reference }) => ({
      title,
      unit,
      reference: reference?.label,
      rows: rows.map((row) => ({
        label: row.label,
        ...summarize(row.samples) satisfies Summary,
        ratio: reference && ratio(row, reference),
        samples: row.samples,
      })),
    })),
    goals,
  };
}
