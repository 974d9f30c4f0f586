/**
 * Chance that a seed determines, so that a simulation can be run again.
 *
 * @module
 */

/** Gives numbers from 0 up to, but not including, 1. */
export type Random = () => number;

/**
 * Numbers that `seed` and `stream` determine: the same ones each time, on every
 * machine. Streams of one seed are independent, so that what draws more numbers
 * in one place changes nothing in another.
 *
 * The generator is sfc32 of PractRand (Chris Doty-Humphrey), with 128 bits of
 * state and a counter that keeps its shortest cycle at 2^32 numbers or more; a
 * number has the 32 bits that it gives in a step.
 *
 * ```ts
 * import { assertEquals, assertNotEquals } from "@std/assert";
 *
 * assertEquals(seededRandom(1)(), seededRandom(1)());
 * assertNotEquals(seededRandom(1)(), seededRandom(1, 1)());
 * ```
 *
 * @param seed an integer; its lower 53 bits count.
 * @param stream an integer from 0 up to 2^32. Default: 0.
 */
export function seededRandom(seed: number, stream = 0): Random {
  let a = seed | 0;
  let b = Math.floor(seed / 2 ** 32) | 0;
  let c = stream | 0;
  let counter = 1;
  const random = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + sum) | 0;
    return (sum >>> 0) / 4294967296;
  };
  // Seeds that differ in one bit look alike until the state is well mixed.
  for (let i = 0; i < 20; i++) random();
  return random;
}
