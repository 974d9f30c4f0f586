/**
 * What can be said of a mean from a few independent runs.
 *
 * @module
 */

/** A mean, and how far off it may be. */
export interface Estimate {
  /** The mean of the values. */
  readonly mean: number;
  /**
   * Half the width of its 95 % confidence interval; NaN of a single value,
   * which tells nothing of the spread.
   */
  readonly halfWidth: number;
}

// Quantiles of Student's t distribution at 97.5 % for 1 to 30 degrees of
// freedom, as in any table of it.
const T_975 = [
  ...[12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228],
  ...[2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086],
  ...[2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042],
];

/**
 * The quantile of Student's t distribution that bounds 95 % on both sides.
 *
 * Beyond the table by the first terms of the expansion of Cornish and Fisher,
 * which is right to a thousandth there.
 *
 * @param degrees of freedom, at least 1.
 */
export function studentT(degrees: number): number {
  const known = T_975[degrees - 1];
  if (known !== undefined) return known;
  const z = 1.959964;
  return z + (z ** 3 + z) / (4 * degrees) +
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / (96 * degrees ** 2);
}

/**
 * The mean of values from independent runs, with its 95 % confidence interval
 * (Student's t). Values that are not finite, such as a percentile of nothing,
 * are left out.
 */
export function estimate(values: readonly number[]): Estimate {
  const finite = values.filter(Number.isFinite);
  const count = finite.length;
  const mean = finite.reduce((sum, value) => sum + value, 0) / count;
  if (count < 2) return { mean, halfWidth: NaN };
  const squares = finite.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const standardError = Math.sqrt(squares / (count - 1) / count);
  return { mean, halfWidth: studentT(count - 1) * standardError };
}
