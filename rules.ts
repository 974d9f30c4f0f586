/**
 * What an option must be: rules, the check of an object of options against
 * them, and how a wrong value is shown.
 *
 * @module
 */

import type { ConfigProblem } from "./errors.ts";

/** What one option must be. */
export interface Rule {
  /** As it stands in an error, such as `must be an integer >= 1`. */
  readonly text: string;
  /** Whether a value keeps it. */
  readonly holds: (value: unknown) => boolean;
}

// The longest delay that a timer of the platform can take: 24.8 days.
const LONGEST_MS = 2 ** 31 - 1;

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

/** An integer not below `least`. */
export function integerFrom(least: number): Rule {
  return {
    text: `must be an integer >= ${least}`,
    holds: (value) => Number.isSafeInteger(value) && (value as number) >= least,
  };
}

/** A finite number not below `least`. */
export function numberFrom(least: number): Rule {
  return {
    text: `must be a finite number >= ${least}`,
    holds: (value) => isNumber(value) && value >= least,
  };
}

/** A duration in milliseconds, not below `leastMs`. */
export function durationFrom(leastMs: number): Rule {
  return {
    text: `must be a number of milliseconds from ${leastMs} to ${LONGEST_MS}`,
    holds: (value) =>
      isNumber(value) && value >= leastMs && value <= LONGEST_MS,
  };
}

/** One of these words. */
export function oneOf(values: readonly string[]): Rule {
  return {
    text: `must be one of ${values.join(", ")}`,
    holds: (value) => values.includes(value as string),
  };
}

/** True or false. */
export const BOOLEAN: Rule = {
  text: "must be true or false",
  holds: (value) => typeof value === "boolean",
};

/** Whether a value is an object of options, and not a list. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Adds what is wrong with `record` to `problems`: options that break their rules,
 * and options that do not exist. Those in `unchecked` exist and have no rule.
 */
export function checkRecord(
  name: string,
  record: unknown,
  unchecked: readonly string[],
  rules: Record<string, Rule>,
  problems: ConfigProblem[],
): void {
  if (!isRecord(record)) {
    const rule = "must be an object of options";
    problems.push({ field: name, rule, value: show(record) });
    return;
  }
  const known = [...unchecked, ...Object.keys(rules)];
  const prefix = name === "options" ? "" : `${name}.`;
  for (const [key, value] of Object.entries(record)) {
    const field = `${prefix}${key}`;
    if (!known.includes(key)) {
      const near = nearest(key, known);
      const rule = "is not an option" +
        (near ? ` (did you mean '${near}'?)` : "");
      problems.push({ field, rule, value: show(value) });
    } else if (value !== undefined && rules[key]?.holds(value) === false) {
      problems.push({ field, rule: rules[key].text, value: show(value) });
    }
  }
}

/** A value as it stands in an error: in short, and with passwords hidden. */
export function show(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(hidePassword(value));
  if (typeof value === "object" && value !== null) {
    return Array.isArray(value) ? "an array" : "an object";
  }
  return typeof value === "bigint" ? `${value}n` : String(value);
}

/**
 * Any text with the passwords of the URLs in it replaced by `***`: the one
 * between user name and host, and the one given as a parameter.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(hidePassword("postgres://me:secret@host/db"), "postgres://me:***@host/db");
 * ```
 */
export function hidePassword(text: string): string {
  // Up to the last @, since an unescaped password may hold anything, as may the
  // user name; and what stands for a port but is none, as in a URL whose host
  // was forgotten. A URL may also lack its slashes. Hiding too much is harmless.
  return text
    .replace(/(:\/\/[^/:]*|\b[a-z][\w+.-]+:\/?[^/:@\s]*):.*@/gis, "$1:***@")
    .replace(
      /((?::\/\/|\bpostgres(?:ql)?:\/?)[^/:@[]*):(?!\d+(?:[/?#\s]|$)|\*\*\*)[^/?#\s]*/gi,
      "$1:***",
    )
    .replace(
      // What follows an unescaped & may belong to it, unless it is a parameter.
      /([?&;](?:password|sslpassword|passfile)=)(?!\*\*\*)[^&]*(?:&(?![a-z_]+=)[^&]*)*/gi,
      "$1***",
    );
}

/**
 * The word of `words` that `word` most likely was meant to be, if one is near
 * enough: at most a third of its letters wrong, swapped, left out or too many.
 */
export function nearest(
  word: string,
  words: readonly string[],
): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of words) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  return best;
}

// Levenshtein's distance, with the swap of two neighbours as one more mistake
// that counts once (optimal string alignment), a row at a time.
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const isSame = a[i - 1] === b[j - 1];
      const isSwap = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row[j] = Math.min(
        (last[j - 1] ?? 0) + (isSame ? 0 : 1),
        (last[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        isSwap ? (beforeLast[j - 2] ?? Infinity) + 1 : Infinity,
      );
    }
    [beforeLast, last] = [last, row];
  }
  return last[b.length] ?? 0;
}
