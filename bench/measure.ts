/**
 * Measuring on a machine that does other things as well: contenders take turns,
 * and what counts is the median of the rounds.
 *
 * @module
 */

/** What a series of samples comes to. */
export interface Summary {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

/** The middle and the ends of `samples`. */
export function summarize(samples: readonly number[]): Summary {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? NaN;
  const middle = (sorted.length - 1) / 2;
  return {
    median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2,
    min: at(0),
    max: at(sorted.length - 1),
  };
}

/**
 * How many times `reference` each of `samples` is, round by round: what slows
 * the machine down for a while slows down both sides of a round.
 */
export function ratios(
  samples: readonly number[],
  reference: readonly number[],
): number[] {
  return samples.map((sample, round) => sample / (reference[round] ?? NaN));
}

/**
 * Measures each of `names` once a round. The order is turned around each time,
 * so that nobody always runs in the wake of the same neighbour.
 */
export async function inRounds<Name extends string>(
  names: readonly Name[],
  rounds: number,
  measure: (name: Name) => Promise<number>,
): Promise<Record<Name, number[]>> {
  const samples = Object.fromEntries(
    names.map((name) => [name, [] as number[]]),
  ) as Record<Name, number[]>;
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      samples[name].push(await measure(name));
    }
  }
  return samples;
}

const WARM_UP_MS = 200;
const MEASURED_MS = 300;

/**
 * The time that one operation takes, in microseconds, once the code is hot. It
 * is a mean, not the best case: the garbage that an operation leaves behind is
 * part of its price.
 *
 * @param run does `operations` of them.
 */
export async function microsecondsEach(
  operations: number,
  run: () => void | Promise<void>,
): Promise<number> {
  const repeat = async (leastMs: number): Promise<number> => {
    const startMs = performance.now();
    let runs = 0;
    let elapsedMs = 0;
    do {
      await run();
      runs++;
      elapsedMs = performance.now() - startMs;
    } while (elapsedMs < leastMs);
    return elapsedMs * 1000 / (runs * operations);
  };
  await repeat(WARM_UP_MS);
  return await repeat(MEASURED_MS);
}
