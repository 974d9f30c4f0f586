/** The deep equality behind `assertEquals`. */

/**
 * Tells whether two values are equal whatever their identity: primitives as by
 * `===`, except that `NaN` equals itself; objects if they are of the same kind
 * and have equal contents, which for an error include its stack. A prototype of
 * `null` counts as that of a literal.
 */
export function equal(a: unknown, b: unknown): boolean {
  return compare(a, b, new Map());
}

/**
 * `pending` maps the objects under comparison to their counterparts, so that a
 * cycle ends where it closes.
 */
function compare(
  a: unknown,
  b: unknown,
  pending: Map<object, object>,
): boolean {
  if (a === b || Object.is(a, b)) return true;
  if (!isObject(a) || !isObject(b)) return false;
  if (a instanceof Date && b instanceof Date) {
    return Object.is(a.getTime(), b.getTime());
  }
  if (prototypeOf(a) !== prototypeOf(b)) return false;
  if (a instanceof RegExp || a instanceof URL) return String(a) === String(b);
  if (a instanceof ArrayBuffer) {
    return sameBytes(new Uint8Array(a), new Uint8Array(b as ArrayBuffer));
  }
  if (pending.get(a) === b) return true;
  pending.set(a, b);
  if (a instanceof Set) return sameMembers(a, b as Set<unknown>, pending);
  if (a instanceof Map) {
    return sameMembers(a.entries(), (b as typeof a).entries(), pending);
  }
  const keys = Reflect.ownKeys(a);
  return keys.length === Reflect.ownKeys(b).length &&
    keys.every((key) =>
      Object.hasOwn(b, key) &&
      compare(Reflect.get(a, key), Reflect.get(b, key), pending)
    );
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

function prototypeOf(value: object): unknown {
  return Object.getPrototypeOf(value) ?? Object.prototype;
}

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Tells whether the members can be paired off, in any order. */
function sameMembers(
  a: Iterable<unknown>,
  b: Iterable<unknown>,
  pending: Map<object, object>,
): boolean {
  const unmatched = [...b];
  for (const member of a) {
    const at = unmatched.findIndex((other) => compare(member, other, pending));
    if (at === -1) return false;
    unmatched.splice(at, 1);
  }
  return unmatched.length === 0;
}
