/**
 * When requests come: processes of arrivals, and their text form.
 *
 * @module
 */

import { parseDuration } from "./config.ts";
import {
  type Distribution,
  type LoadNumbers,
  parseDistribution,
} from "./distributions.ts";
import { messageOf } from "./errors.ts";
import type { Random } from "./random.ts";
import { nearest } from "./rules.ts";

/** Requests that come whether or not those before them were served. */
export interface OpenArrivals {
  /** What it is. */
  readonly kind: "open";
  /** As it was written, such as `poisson:200/s`. */
  readonly text: string;
  /** How many come, per millisecond; 0 if there is an end to them. */
  readonly ratePerMs: number;
  /** Whether they come independently of one another. */
  readonly isPoisson: boolean;
  /**
   * Begins at time 0.
   *
   * @returns a function that gives the time of the next arrival in
   * milliseconds, never less than the one before, or undefined after the last.
   */
  start(random: Random): () => number | undefined;
}

/** Clients that each wait for their answer, think, and ask again. */
export interface ClosedArrivals {
  /** What it is. */
  readonly kind: "closed";
  /** As it was written, such as `closed:50,exp:1s`. */
  readonly text: string;
  /** How many clients there are. */
  readonly clients: number;
  /** How long a client waits between an answer and its next request. */
  readonly think: Distribution;
}

/** A process of arrivals. */
export type Arrivals = OpenArrivals | ClosedArrivals;

/** How each kind is written, with an example, for a help text. */
export const ARRIVAL_FORMS: readonly {
  readonly form: string;
  readonly example: string;
}[] = [
  { form: "poisson:RATE", example: "poisson:200/s" },
  { form: "constant:RATE", example: "constant:200/s" },
  { form: "burst:COUNT@TIME", example: "burst:50@10s" },
  { form: "closed:CLIENTS,THINK", example: "closed:50,exp:1s" },
  { form: "trace:FILE", example: "trace:arrivals.txt" },
];

type Kind = "poisson" | "constant" | "burst" | "closed" | "trace";

const KINDS: readonly Kind[] = [
  ...["poisson", "constant", "burst", "closed", "trace"] as const,
];

// More at once than any database has, and no more than memory holds.
const MOST_CLIENTS = 1_000_000;

/**
 * The process that a text such as `poisson:200/s` names.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const arrivals = parseArrivals("constant:2/s");
 * assertEquals(arrivals.kind === "open" && arrivals.ratePerMs, 0.002);
 * ```
 *
 * @param load reads the file of `trace:FILE`, times in seconds, and of
 * `empirical:FILE`; without it those are refused.
 * @throws {SyntaxError} if the text names none, saying what is wrong with it.
 */
export function parseArrivals(text: string, load?: LoadNumbers): Arrivals {
  const written = text.trim();
  const [, kind = "", rest = ""] = /^([^:]*):?(.*)$/s.exec(written) ?? [];
  if (!KINDS.includes(kind as Kind)) {
    const near = nearest(kind, KINDS);
    throw new SyntaxError(
      `must be one of ${KINDS.join(", ")} with its values, such as ` +
        `poisson:200/s: current value is ${JSON.stringify(text)}${
          near ? ` (did you mean ${near}?)` : ""
        }`,
    );
  }
  try {
    switch (kind as Kind) {
      case "poisson":
        return poisson(written, rateOf(rest));
      case "constant":
        return constant(written, rateOf(rest));
      case "burst":
        return burst(written, rest);
      case "closed":
        return closed(written, rest, load);
      case "trace":
        return trace(written, rest, load);
    }
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    const form = ARRIVAL_FORMS.find(({ form }) => form.startsWith(kind))?.form;
    throw new SyntaxError(
      `${error.message}, in ${JSON.stringify(text)}; it is written ${form}`,
    );
  }
}

const UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

function rateOf(text: string): number {
  const match = /^(\d+\.?\d*|\.\d+)\/(ms|s|m|h)$/.exec(text.trim());
  const rate = Number(match?.[1]) / (UNITS_MS[match?.[2] ?? ""] ?? NaN);
  if (rate > 0 && Number.isFinite(rate)) return rate;
  throw new SyntaxError("must have a rate > 0 such as 200/s, 12/m or 0.5/ms");
}

function countOf(text: string, what: string): number {
  const count = /^\d+$/.test(text.trim()) ? Number(text) : 0;
  if (count >= 1 && count <= MOST_CLIENTS) return count;
  throw new SyntaxError(
    `must have a number of ${what} from 1 to ${MOST_CLIENTS}`,
  );
}

function poisson(text: string, ratePerMs: number): OpenArrivals {
  return {
    ...{ kind: "open", text, ratePerMs, isPoisson: true },
    start: (random) => {
      let timeMs = 0;
      return () => timeMs -= Math.log(1 - random()) / ratePerMs;
    },
  };
}

function constant(text: string, ratePerMs: number): OpenArrivals {
  return {
    ...{ kind: "open", text, ratePerMs, isPoisson: false },
    start: () => {
      let count = 0;
      // Not by adding up, which would add up the errors too.
      return () => ++count / ratePerMs;
    },
  };
}

function burst(text: string, rest: string): OpenArrivals {
  const [count = "", time = "", ...more] = rest.split("@");
  if (more.length > 0 || time === "") {
    throw new SyntaxError("must have a count and a time");
  }
  const size = countOf(count, "requests");
  const atMs = durationOf(time);
  return listed(text, Array.from({ length: size }, () => atMs));
}

function durationOf(text: string): number {
  try {
    return parseDuration(text);
  } catch (error) {
    throw new SyntaxError(`has a time that ${messageOf(error)}`);
  }
}

function closed(
  text: string,
  rest: string,
  load: LoadNumbers | undefined,
): ClosedArrivals {
  const [, count = "", think = ""] = /^([^,]*),?(.*)$/s.exec(rest) ?? [];
  const clients = countOf(count, "clients");
  if (think === "") throw new SyntaxError("must have a think time");
  return {
    kind: "closed",
    text,
    clients,
    think: parseDistribution(think, load),
  };
}

function trace(
  text: string,
  path: string,
  load: LoadNumbers | undefined,
): OpenArrivals {
  if (path === "") throw new SyntaxError("must have a file of times");
  if (load === undefined) {
    throw new SyntaxError("names a file, and files cannot be read here");
  }
  const seconds = load(path);
  if (seconds.length === 0) throw new SyntaxError(`has no times in '${path}'`);
  for (const [i, time] of seconds.entries()) {
    const line = `number ${i + 1} is ${time}`;
    if (!Number.isFinite(time) || time < 0) {
      throw new SyntaxError(
        `must have times >= 0 in seconds in '${path}': ${line}`,
      );
    }
    const before = seconds[i - 1] ?? 0;
    if (time < before) {
      throw new SyntaxError(
        `must have times that never go back in '${path}': ${line}, after ${before}`,
      );
    }
  }
  return listed(text, seconds.map((time) => time * 1000));
}

function listed(text: string, timesMs: readonly number[]): OpenArrivals {
  return {
    ...{ kind: "open", text, ratePerMs: 0, isPoisson: false },
    start: () => {
      let next = 0;
      return () => timesMs[next++];
    },
  };
}
