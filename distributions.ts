/**
 * How long things take: distributions of durations, and their text form.
 *
 * @module
 */

import { parseDuration } from "./config.ts";
import { messageOf } from "./errors.ts";
import type { Random } from "./random.ts";
import { nearest } from "./rules.ts";

/** A distribution of durations. */
export interface Distribution {
  /** As it was written, such as `exp:20ms`. */
  readonly text: string;
  /** What it is, such as `exp`. */
  readonly kind: DistributionKind;
  /** Its mean, in milliseconds. */
  readonly meanMs: number;
  /** Its squared coefficient of variation: its variance over the mean squared. */
  readonly scv: number;
  /** Draws a duration, in milliseconds. */
  sample(random: Random): number;
}

/** The kinds that `parseDistribution` knows. */
export type DistributionKind =
  | "constant"
  | "exp"
  | "uniform"
  | "lognormal"
  | "gamma"
  | "pareto"
  | "empirical";

/** Reads the numbers of a file, one a line. */
export type LoadNumbers = (path: string) => readonly number[];

interface Shape {
  /** What its values are, for messages and the help. */
  readonly form: string;
  readonly example: string;
  make(values: Values): Omit<Distribution, "text" | "kind">;
}

/** The values behind the colon. */
class Values {
  readonly #parts: readonly string[];
  readonly load: LoadNumbers | undefined;
  #next = 0;

  constructor(text: string, load: LoadNumbers | undefined) {
    this.#parts = text === "" ? [] : text.split(",");
    this.load = load;
  }

  get isAtEnd(): boolean {
    return this.#next === this.#parts.length;
  }

  #take(what: string): string {
    const part = this.#parts[this.#next++];
    if (part === undefined || part.trim() === "") {
      throw new SyntaxError(`must have ${what}`);
    }
    return part.trim();
  }

  /** A duration in milliseconds; a bare number is one of seconds. */
  durationMs(what: string): number {
    const text = this.#take(what);
    try {
      return parseDuration(text);
    } catch (error) {
      throw new SyntaxError(`has ${what} that ${messageOf(error)}`);
    }
  }

  number(what: string, { above }: { above: number }): number {
    const text = this.#take(what);
    const value = Number(text);
    if (Number.isFinite(value) && value > above) return value;
    throw new SyntaxError(
      `must have ${what} > ${above}: current value is ${text}`,
    );
  }

  /** All that is left, as it is: a path may hold commas. */
  rest(what: string): string {
    const text = this.#parts.slice(this.#next).join(",");
    this.#next = this.#parts.length;
    if (text === "") throw new SyntaxError(`must have ${what}`);
    return text;
  }
}

const SHAPES: Readonly<Record<DistributionKind, Shape>> = {
  constant: {
    form: "constant:DURATION",
    example: "constant:20ms",
    make(values) {
      const meanMs = values.durationMs("a duration");
      return { meanMs, scv: 0, sample: () => meanMs };
    },
  },
  exp: {
    form: "exp:MEAN",
    example: "exp:20ms",
    make(values) {
      const meanMs = values.durationMs("a mean");
      // By the inverse of the distribution function.
      return {
        meanMs,
        scv: meanMs > 0 ? 1 : 0,
        sample: (random) => -Math.log(1 - random()) * meanMs,
      };
    },
  },
  uniform: {
    form: "uniform:LEAST,MOST",
    example: "uniform:10ms,30ms",
    make(values) {
      const leastMs = values.durationMs("a least value");
      const mostMs = values.durationMs("a most value");
      if (mostMs < leastMs) {
        throw new SyntaxError("must not have its most value below its least");
      }
      const meanMs = (leastMs + mostMs) / 2;
      const widthMs = mostMs - leastMs;
      return {
        meanMs,
        scv: meanMs > 0 ? widthMs ** 2 / 12 / meanMs ** 2 : 0,
        sample: (random) => leastMs + random() * widthMs,
      };
    },
  },
  lognormal: {
    form: "lognormal:MEAN,SIGMA",
    example: "lognormal:20ms,1",
    make(values) {
      const meanMs = values.durationMs("a mean");
      const sigma = values.number("a sigma of the logarithm", { above: 0 });
      // The mean of exp(mu + sigma·Z) is exp(mu + sigma²/2).
      const mu = Math.log(meanMs) - sigma ** 2 / 2;
      return {
        meanMs,
        scv: Math.exp(sigma ** 2) - 1,
        sample: (random) => Math.exp(mu + sigma * normal(random)),
      };
    },
  },
  gamma: {
    form: "gamma:MEAN,SHAPE",
    example: "gamma:20ms,4",
    make(values) {
      const meanMs = values.durationMs("a mean");
      const shape = values.number("a shape", { above: 0 });
      return {
        meanMs,
        scv: 1 / shape,
        sample: (random) => gamma(shape, random) * meanMs / shape,
      };
    },
  },
  pareto: {
    form: "pareto:MEAN,SHAPE",
    example: "pareto:20ms,2.5",
    make(values) {
      const meanMs = values.durationMs("a mean");
      // With a shape of 1 or less it has no mean.
      const shape = values.number("a shape", { above: 1 });
      const leastMs = meanMs * (shape - 1) / shape;
      return {
        meanMs,
        scv: shape > 2 ? 1 / (shape * (shape - 2)) : Infinity,
        sample: (random) => leastMs * (1 - random()) ** (-1 / shape),
      };
    },
  },
  empirical: {
    form: "empirical:FILE",
    example: "empirical:times.txt",
    make(values) {
      const path = values.rest("a file of milliseconds, one a line");
      if (values.load === undefined) {
        throw new SyntaxError("names a file, and files cannot be read here");
      }
      const times = values.load(path);
      if (times.length === 0) {
        throw new SyntaxError(`has no times in '${path}'`);
      }
      const wrong = times.findIndex((ms) => !(Number.isFinite(ms) && ms >= 0));
      if (wrong >= 0) {
        throw new SyntaxError(
          `must have times >= 0 in milliseconds in '${path}': number ` +
            `${wrong + 1} is ${times[wrong]}`,
        );
      }
      const meanMs = times.reduce((sum, ms) => sum + ms, 0) / times.length;
      const variance = times.reduce((sum, ms) => sum + (ms - meanMs) ** 2, 0) /
        times.length;
      return {
        meanMs,
        scv: meanMs > 0 ? variance / meanMs ** 2 : 0,
        sample: (random) => times[Math.floor(random() * times.length)] ?? 0,
      };
    },
  },
};

/** How each kind is written, with an example, for a help text. */
export const DISTRIBUTION_FORMS: readonly {
  readonly form: string;
  readonly example: string;
}[] = Object.values(SHAPES).map(({ form, example }) => ({ form, example }));

/**
 * The distribution that a text such as `exp:20ms` names.
 *
 * ```ts
 * import { assertEquals } from "@std/assert";
 *
 * const { meanMs, scv } = parseDistribution("uniform:10ms,30ms");
 * assertEquals([meanMs, Math.round(scv * 1000)], [20, 83]);
 * ```
 *
 * @param load reads the file of `empirical:FILE`; without it that is refused.
 * @throws {SyntaxError} if the text names none, saying what is wrong with it.
 */
export function parseDistribution(
  text: string,
  load?: LoadNumbers,
): Distribution {
  const [, kind = "", rest = ""] = /^([^:]*):?(.*)$/s.exec(text.trim()) ?? [];
  if (!Object.hasOwn(SHAPES, kind)) {
    const kinds = Object.keys(SHAPES);
    const near = nearest(kind, kinds);
    throw new SyntaxError(
      `must be one of ${kinds.join(", ")} with its values, such as exp:20ms: ` +
        `current value is ${JSON.stringify(text)}${
          near ? ` (did you mean ${near}?)` : ""
        }`,
    );
  }
  const { form, make } = SHAPES[kind as DistributionKind];
  const values = new Values(rest, load);
  try {
    const made = make(values);
    if (!values.isAtEnd) throw new SyntaxError("has a value too many");
    return { text: text.trim(), kind: kind as DistributionKind, ...made };
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new SyntaxError(
      `${error.message}, in ${JSON.stringify(text)}; it is written ${form}`,
    );
  }
}

/**
 * A number of the standard normal distribution, by Box and Muller's method
 * ("A Note on the Generation of Random Normal Deviates", 1958), of which one of
 * the two numbers is used, so that nothing is kept between two calls.
 */
export function normal(random: Random): number {
  return Math.sqrt(-2 * Math.log(1 - random())) *
    Math.cos(2 * Math.PI * random());
}

/**
 * A number of the gamma distribution with scale 1, by the method of Marsaglia
 * and Tsang ("A Simple Method for Generating Gamma Variables", 2000).
 */
function gamma(shape: number, random: Random): number {
  if (shape < 1) {
    return gamma(shape + 1, random) * (1 - random()) ** (1 / shape);
  }
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal(random);
    const v = (1 + c * x) ** 3;
    if (v <= 0) continue;
    if (Math.log(1 - random()) < x * x / 2 + d * (1 - v + Math.log(v))) {
      return d * v;
    }
  }
}
