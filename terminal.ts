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

/** The rows of a table with a head that is no wider than it must be. */
export function foldHead(
  [head = [], ...rows]: readonly (readonly string[])[],
  width: number,
): string[][] {
  const cells = head.map((cell) => fold(cell, width));
  const height = Math.max(...cells.map(({ length }) => length));
  const lines = Array.from(
    { length: height },
    // What is short stands at the bottom, next to what it is the head of.
    (_, i) => cells.map((lines) => lines[i - height + lines.length] ?? ""),
  );
  return [...lines, ...rows.map((row) => [...row])];
}

/** A number with three digits that count; - for none. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) {
    return "-";
  }
  const size = Math.abs(value);
  if (size >= 1000 || value === 0) return String(Math.round(value));
  return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

/** A part of 1 as a percentage. */
export function percent(part: number): string {
  return `${short(part * 100)}%`;
}

/** A text in lines of at most `width`; what is longer than a line is cut. */
export function fold(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const whole of text.split(" ")) {
    let word = whole;
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = "";
    }
    while (word.length > width) {
      const room = width - line.length;
      lines.push(line + word.slice(0, room));
      word = word.slice(room);
      line = "";
    }
    line += (line === "" ? "" : " ") + word;
  }
  return [...lines, line];
}

/** A text in lines that with their indent fit into 80 columns. */
export function wrap(text: string, indent: string): string {
  return fold(text, 78 - indent.length).map((line) => `${indent}${line}\n`)
    .join("");
}

/** A number as a row of blocks. */
export function bar(value: number, most: number, width: number): string {
  const eighths = most > 0 ? Math.round(value / most * width * 8) : 0;
  const rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8] ?? "";
  return "█".repeat(Math.floor(eighths / 8)) + rest;
}

const LEVELS = "▁▂▃▄▅▆▇█";

/** A series in at most `width` parts, each by what `of` makes of it. */
function inParts(
  values: readonly number[],
  width: number,
  of: (part: readonly number[]) => number,
): number[] {
  const count = Math.min(width, values.length);
  return Array.from({ length: count }, (_, i) =>
    of(values.slice(
      Math.floor(i * values.length / count),
      Math.floor((i + 1) * values.length / count),
    )));
}

/** A series as one line of blocks, each the mean of its part. */
export function sparkline(values: readonly number[], width = 60): string {
  const means = inParts(
    values,
    width,
    (part) => part.reduce((sum, one) => sum + one, 0) / part.length,
  );
  const most = Math.max(...means, 0);
  return means.map((value) =>
    LEVELS[most > 0 ? Math.min(7, Math.floor(value / most * 8)) : 0]
  ).join("");
}

/**
 * A series as blocks on several lines, each the highest of its part, so that no
 * peak is lost; `most` is as high as they are.
 */
export function peaks(
  values: readonly number[],
  most: number,
  { width = 76, height = 4 }: { width?: number; height?: number } = {},
): string[] {
  const eighths = inParts(values, width, (part) => Math.max(...part))
    .map((value) => most > 0 ? Math.ceil(value / most * height * 8) : 0);
  return Array.from({ length: height }, (_, row) => {
    const below = (height - 1 - row) * 8;
    return eighths.map((level) =>
      level <= below ? " " : LEVELS[Math.min(8, level - below) - 1]
    ).join("").trimEnd();
  });
}

// A name comes from a file, and a terminal obeys control characters.
export function clean(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, " ");
}
