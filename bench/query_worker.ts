/**
 * Measures one way to get a row, in a process of its own.
 *
 *     query_worker.ts CONTENDER DATABASE
 *
 * Prints the microseconds that it takes.
 *
 * @module
 */

import { microsecondsEach } from "./measure.ts";
import {
  QUERY_CONTENDERS,
  type QueryContender,
  ROWS,
} from "./query_contenders.ts";

const QUERIES = 1000;

const [name = "", path = ""] = Deno.args;
const contenders: Record<string, QueryContender> = QUERY_CONTENDERS;
const operation = contenders[name]?.prepare(path);
if (operation === undefined) throw new TypeError(`No contender '${name}'`);

// Whoever answers at once is not made to wait for a promise.
const isAsynchronous = operation(1) instanceof Promise;
// A prime, so that the ids follow one another in no order.
const STRIDE = 7919;
let id = 1;

console.log(
  await microsecondsEach(
    QUERIES,
    isAsynchronous
      ? async () => {
        for (let i = 0; i < QUERIES; i++) {
          id = (id + STRIDE) % ROWS + 1;
          await operation(id);
        }
      }
      : () => {
        for (let i = 0; i < QUERIES; i++) {
          id = (id + STRIDE) % ROWS + 1;
          operation(id);
        }
      },
  ),
);
Deno.exit();
