/**
 * The command line parser of `@std/cli`, for the options this project uses.
 * Left out: `negatable`, `boolean: true`, and dots in names, which here are
 * part of the name.
 *
 * @module
 */

/** What {@linkcode parseArgs} knows about the command line. */
export interface ParseOptions<
  TBooleans extends string = string,
  TStrings extends string = string,
  TCollectable extends string = string,
  TDefaults extends object = Record<string, unknown>,
> {
  /** Put what follows `--` under the key `--` rather than `_`. Default `false`. */
  "--"?: boolean;
  /** Other names of a flag: the result has the value under each name. */
  alias?: Readonly<Record<string, string | readonly string[]>>;
  /** Flags that take no value; `false` when absent. */
  boolean?: TBooleans | readonly TBooleans[];
  /** Flags that may be repeated: their value is an array. */
  collect?: TCollectable | readonly TCollectable[];
  /** Values of the flags that are absent. */
  default?: TDefaults;
  /** Treat all that follows the first positional argument as positional. */
  stopEarly?: boolean;
  /** Flags whose value stays text; any other that looks like a number becomes one. */
  string?: TStrings | readonly TStrings[];
  /**
   * Called for each positional argument, with `arg` alone, and for each flag
   * that no option names; returning `false` leaves it out of the result.
   */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** What {@linkcode parseArgs} returns: the positional arguments, and a key per flag. */
export type Args<
  TBooleans extends string = string,
  TStrings extends string = string,
  TCollectable extends string = string,
  TDefaults extends object = Record<string, unknown>,
> =
  & Record<string, unknown>
  & {
    /** The positional arguments; those that look like numbers are numbers. */
    _: Array<string | number>;
    /** What follows `--`, if asked for. */
    "--"?: string[];
  }
  & { [K in Exclude<TBooleans, TCollectable>]: boolean }
  & { [K in TBooleans & TCollectable]: boolean[] }
  & {
    [K in Exclude<TStrings, TCollectable>]?: K extends keyof TDefaults
      ? string | TDefaults[K]
      : string;
  }
  & { [K in TStrings & TCollectable]: string[] };

/** A value as it comes out of the command line. */
type Value = string | number | boolean;

/** `--name`, `--no-name` or `--name=value`; the name is never empty. */
const LONG_FLAG = /^--(?<negated>no-)?(?<name>.+?)(?:=(?<value>.*))?$/s;

/** What follows a letter of `-abc` as its value: `-n5`, `-n-1.5`, `-n2e3`. */
const ENDS_IN_NUMBER = /\d\.?(e-?\d+)?$/;

/**
 * Parses a command line such as {@linkcode Deno.args}.
 *
 * A flag takes the next argument as its value unless that argument is empty,
 * looks like a flag (`-1` does), or the flag is boolean. A flag without a value
 * is `true`, or `""` if it is a string. The last one wins if it is repeated
 * but not collected.
 *
 * @param args The arguments.
 * @param options The flags to expect. By default none, and any is accepted.
 */
export function parseArgs<
  const TBooleans extends string = never,
  const TStrings extends string = never,
  const TCollectable extends string = never,
  TDefaults extends object = Record<never, never>,
>(
  args: readonly string[],
  options: ParseOptions<TBooleans, TStrings, TCollectable, TDefaults> = {},
): Args<TBooleans, TStrings, TCollectable, TDefaults> {
  const aliases = aliasesByName(options.alias ?? {});
  const withAliases = (names: string | readonly string[] = []): Set<string> =>
    new Set([names].flat().flatMap((name) => [name, ...namesakes(name)]));
  const namesakes = (name: string): readonly string[] =>
    aliases.get(name) ?? [];

  const booleans = withAliases(options.boolean);
  const strings = withAliases(options.string);
  const collected = withAliases(options.collect);
  const isBoolean = (name: string): boolean =>
    booleans.has(name) || namesakes(name).some((other) => booleans.has(other));

  const positional: Array<string | number> = [];
  const parsed: Record<string, unknown> = { _: positional };

  function store(name: string, value: unknown): void {
    for (const key of [name, ...namesakes(name)]) {
      if (key !== "__proto__" && key !== "constructor") parsed[key] = value;
    }
  }

  function setFlag(name: string, raw: Value, arg: string): void {
    const known = booleans.has(name) || strings.has(name) ||
      collected.has(name) || aliases.has(name);
    if (!known && options.unknown?.(arg, name, raw) === false) return;
    const value = strings.has(name) ? raw : toNumber(raw);
    if (!collected.has(name)) return store(name, value);
    for (const key of [name, ...namesakes(name)]) {
      const values = parsed[key] as Value[] | undefined;
      parsed[key] = values === undefined ? [value] : [...values, value];
    }
  }

  /** Sets a flag that has no value attached; tells whether it took `next`. */
  function setBareFlag(
    name: string,
    next: string | undefined,
    looksLikeFlag: (arg: string) => boolean,
    arg: string,
  ): boolean {
    if (next && !isBoolean(name) && !looksLikeFlag(next)) {
      setFlag(name, next, arg);
      return true;
    }
    if (next === "true" || next === "false") {
      setFlag(name, next === "true", arg);
      return true;
    }
    setFlag(name, strings.has(name) ? "" : true, arg);
    return false;
  }

  const end = args.indexOf("--");
  const flags = end === -1 ? args : args.slice(0, end);
  const rest = end === -1 ? [] : args.slice(end + 1);

  for (let i = 0; i < flags.length; i++) {
    const arg = flags[i]!;
    const next = flags[i + 1];
    const long = LONG_FLAG.exec(arg)?.groups;
    if (long !== undefined) {
      const name = long.name!;
      if (long.value !== undefined) {
        // A "no-" before a name with a value is dropped, as published.
        const value = booleans.has(name) ? long.value !== "false" : long.value;
        setFlag(name, value, arg);
        continue;
      }
      const key = long.negated ? `no-${name}` : name;
      if (setBareFlag(key, next, (text) => text.startsWith("-"), arg)) i++;
    } else if (/^-./s.test(arg)) {
      const last = setLetters(arg);
      const isFlag = (text: string): boolean => /^--?[^-]/.test(text);
      if (last !== undefined && setBareFlag(last, next, isFlag, arg)) i++;
    } else {
      if (options.unknown?.(arg) !== false) {
        positional.push(strings.has("_") ? arg : toNumber(arg));
      }
      if (options.stopEarly) {
        positional.push(...flags.slice(i + 1));
        break;
      }
    }
  }

  /**
   * Sets the flags of `-abc`. Returns the last letter, which may take the next
   * argument as its value, unless a value was attached: `-n5`, `-abc=value`.
   */
  function setLetters(arg: string): string | undefined {
    const letters = arg.slice(1, -1);
    for (let j = 0; j < letters.length; j++) {
      const letter = letters[j]!;
      const tail = arg.slice(j + 2);
      if (tail === "-") {
        setFlag(letter, tail, arg);
        continue;
      }
      const value = attachedValue(letter, tail, letters[j + 1]);
      if (value !== undefined) {
        setFlag(letter, value, arg);
        return undefined;
      }
      setFlag(letter, strings.has(letter) ? "" : true, arg);
    }
    return arg.endsWith("-") ? undefined : arg.slice(-1);
  }

  for (const [name, value] of Object.entries(options.default ?? {})) {
    if (!Object.hasOwn(parsed, name)) store(name, value);
  }
  for (const name of booleans) {
    if (Object.hasOwn(parsed, name)) continue;
    parsed[name] = collected.has(name) ? [] : false;
  }
  for (const name of strings) {
    if (!Object.hasOwn(parsed, name) && collected.has(name)) parsed[name] = [];
  }
  if (options["--"]) parsed["--"] = rest;
  else positional.push(...rest);
  return parsed as Args<TBooleans, TStrings, TCollectable, TDefaults>;
}

/** Maps each name that has aliases to all its other names. */
function aliasesByName(
  alias: Readonly<Record<string, string | readonly string[]>>,
): Map<string, readonly string[]> {
  const byName = new Map<string, readonly string[]>();
  for (const [name, others] of Object.entries(alias)) {
    const names = [name, ...[others].flat()];
    for (const each of names) {
      byName.set(each, names.filter((other) => other !== each));
    }
  }
  return byName;
}

/** The value attached to a letter of `-abc`, given what follows the letter. */
function attachedValue(
  letter: string,
  tail: string,
  following: string | undefined,
): string | undefined {
  if (tail === "=") return "";
  if (/[A-Za-z]/.test(letter)) {
    const assigned = /=(.+)/.exec(tail)?.[1];
    if (assigned !== undefined) return assigned;
    if (ENDS_IN_NUMBER.test(tail)) return tail;
  }
  return following !== undefined && /\W/.test(following) ? tail : undefined;
}

/** Turns text that is a finite number into one; any other value stays as it is. */
function toNumber<T extends Value>(value: T): T | number {
  if (typeof value !== "string" || value.trim() === "") return value;
  const number = Number(value);
  return Number.isFinite(number) ? number : value;
}
