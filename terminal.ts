/**
 * Text for a terminal of 80 columns: tables, wrapped lines, bars of blocks.
 *
 * @module
 */

/** Columns as wide as they must be, numbers to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, i) =>
    Math.max(...rows.map((row) => (row[i] ?? "").length))
  );
  return rows.map((row) =>
    row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)
    ).join("  ").trimEnd() + "\n"
  ).join("");
}

export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) {
    return "-";
  }
  const size = Math.abs(value);
  if (size >= 1000 || value === 0) return String(Math.round(value));
  return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

export function percent(part: number): string {
  return `${short(part * 100)}%`;
}

export function wrap(text: string, indent: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && (indent + line + word).length >= 79) {
      lines.push(line);
      line = "";
    }
    line += (line === "" ? "" : " ") + word;
  }
  return [...lines, line].map((one) => `${indent}${one}\n`).join("");
}

/** A number as a row of blocks. */
export function bar(value: number, most: number, width: number): string {
  const eighths = most > 0 ? Math.round(value / most * width * 8) : 0;
  const rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8] ?? "";
  return "█".repeat(Math.floor(eighths / 8)) + rest;
}

const LEVELS = "▁▂▃▄▅▆▇█";

/** A series as one line of blocks, each the mean of its part. */
export function sparkline(values: readonly number[], width = 60): string {
  const count = Math.min(width, values.length);
  const means = Array.from({ length: count }, (_, i) => {
    const from = Math.floor(i * values.length / count);
    const part = values.slice(
      from,
      Math.floor((i + 1) * values.length / count),
    );
    return part.reduce((sum, one) => sum + one, 0) / part.length;
  });
  const most = Math.max(...means, 0);
  return means.map((value) =>
    LEVELS[most > 0 ? Math.min(7, Math.floor(value / most * 8)) : 0]
  ).join("");
}

// A name comes from a file, and a terminal obeys control characters.
export function clean(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, " ");
}
