import {
  assert,
  assertEquals,
  assertLessOrEqual,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { LabelError, readLabels } from "./labels.ts";

const permissions = "none";

const MIB = 1024 * 1024;
const encoder = new TextEncoder();

async function* chunks(
  pieces: Iterable<Uint8Array>,
): AsyncIterableIterator<Uint8Array> {
  yield* pieces;
}

/** The labels in some bytes that come in pieces. */
async function labelsOf(pieces: Iterable<Uint8Array>): Promise<string[]> {
  const labels: string[] = [];
  for await (const batch of readLabels(chunks(pieces), "x.txt")) {
    labels.push(...batch);
  }
  return labels;
}

function inText(text: string): Promise<string[]> {
  return labelsOf([encoder.encode(text)]);
}

/** What `readLabels` should give, without its streaming. */
function obvious(bytes: Uint8Array): string[] {
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

function bytesOf(...pieces: (string | number[])[]): Uint8Array {
  return Uint8Array.from(
    pieces.flatMap((piece) =>
      typeof piece === "string" ? [...encoder.encode(piece)] : piece
    ),
  );
}

/** Whole numbers from 0 up to a limit: the same for the same seed. */
function dice(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    // The generator of Park and Miller, "minimal standard".
    state = state * 48271 % 2147483647;
    return state % limit;
  };
}

function freshSeed(): number {
  return 1 + Math.floor(Math.random() * 2 ** 30);
}

function cutAtRandom(
  bytes: Uint8Array,
  roll: (limit: number) => number,
): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  const longest = 1 + roll(12);
  for (let start = 0; start < bytes.length;) {
    // Sometimes nothing, as a stream may well give.
    const end = start + roll(longest + 1);
    pieces.push(bytes.subarray(start, end));
    start = end;
  }
  return pieces;
}

// Of one to four bytes each, whole and combining, and all that is cut off.
const LETTERS = [
  "a",
  "é",
  "e\u0301",
  "日",
  "😀",
  "👩\u200d👩\u200d👧",
  "\n",
  "\n",
  "\r\n",
  "\r",
  " ",
  "\t",
  "\u00a0",
  "\u2028",
  "\ufeff",
  '"',
  "\\",
  "\u0001",
];

Deno.test({
  name: "readLabels() gives one label a line, trimmed, without the blank ones",
  permissions,
  async fn() {
    assertEquals(await inText("a\n\n  b c \n\t\n \u00a0d\u3000\n"), [
      "a",
      "b c",
      "d",
    ]);
  },
});

Deno.test({
  name: "readLabels() gives the last line also when no newline ends it",
  permissions,
  async fn() {
    assertEquals(await inText("a\nb"), ["a", "b"]);
    assertEquals(await inText("a"), ["a"]);
    assertEquals(await inText("a\nb\n"), ["a", "b"]);
  },
});

Deno.test({
  name: "readLabels() gives nothing for nothing",
  permissions,
  async fn() {
    assertEquals(await labelsOf([]), []);
    assertEquals(await labelsOf([new Uint8Array()]), []);
    assertEquals(await inText("\n\r\n  \n"), []);
    assertEquals(await inText("\ufeff"), []);
  },
});

Deno.test({
  name: "readLabels() takes files from Windows, with their mark and line ends",
  permissions,
  async fn() {
    assertEquals(await inText("\ufeffa\r\nb\r\n\r\nc"), ["a", "b", "c"]);
    const mark = bytesOf([0xef, 0xbb, 0xbf], "a\r\n");
    assertEquals(await labelsOf([mark]), ["a"]);
    const cut = [mark.subarray(0, 1), mark.subarray(1, 2), mark.subarray(2, 5)];
    assertEquals(await labelsOf([...cut, mark.subarray(5)]), ["a"]);
  },
});

Deno.test({
  name: "readLabels() keeps Unicode as it is, without normalizing it",
  permissions,
  async fn() {
    const labels = [
      "e\u0301 and \u00e9",
      "👩‍👩‍👧 family",
      "שלום",
      "ﬁ",
      "\u{10ffff}",
      "a\u2028b",
      "a\rb",
      "\u0001\u007f",
    ];
    assertEquals(await inText(labels.join("\n")), labels);
  },
});

Deno.test({
  name: "readLabels() gives the same wherever its input is cut",
  permissions,
  async fn() {
    const seed = freshSeed();
    const roll = dice(seed);
    for (let round = 0; round < 1000; round++) {
      const text = Array.from(
        { length: roll(40) },
        () => LETTERS[roll(LETTERS.length)],
      ).join("");
      const bytes = encoder.encode(text);
      const pieces = cutAtRandom(bytes, roll);
      const context = `seed ${seed}, round ${round}: ${JSON.stringify(text)}`;
      assertEquals(await labelsOf(pieces), obvious(bytes), context);
    }
  },
});

Deno.test({
  name: "readLabels() names the line of bad UTF-8, wherever its input is cut",
  permissions,
  async fn() {
    const wrong = [
      [0xff],
      [0x80],
      [0xc3],
      [0xc0, 0xaf],
      [0xe2, 0x82],
      [0xed, 0xa0, 0x80],
      [0xf0, 0x9f, 0x98],
      [0xf4, 0x90, 0x80, 0x80],
    ];
    const seed = freshSeed();
    const roll = dice(seed);
    for (let round = 0; round < 500; round++) {
      const lines = Array.from(
        { length: 1 + roll(10) },
        () => ["", "abc", "日本", "\r", "😀"][roll(5)] ?? "",
      );
      const line = roll(lines.length);
      const bad = wrong[roll(wrong.length)] ?? [];
      const bytes = bytesOf(
        lines.slice(0, line + 1).join("\n"),
        bad,
        line + 1 < lines.length ? "\n" : "",
        lines.slice(line + 1).join("\n"),
      );
      const pieces = cutAtRandom(bytes, roll);
      await assertRejects(
        () => labelsOf(pieces),
        LabelError,
        `line ${line + 1} is not valid UTF-8`,
        `seed ${seed}, round ${round}: ${bytes}`,
      );
    }
  },
});

Deno.test({
  name: "readLabels() names the file and the first of several bad lines",
  permissions,
  async fn() {
    const bytes = bytesOf("a\n", [0xff], "\nb\n", [0xff], "\n");
    const error = await assertRejects(() => labelsOf([bytes]), LabelError);
    assertStringIncludes(error.message, "'x.txt'");
    assertStringIncludes(error.message, "line 2 ");
  },
});

Deno.test({
  name: "readLabels() refuses UTF-16 rather than read nonsense",
  permissions,
  async fn() {
    const littleEndian = bytesOf([0xff, 0xfe, 0x61, 0, 0x0a, 0]);
    await assertRejects(() => labelsOf([littleEndian]), LabelError, "line 1 ");
    const unmarked = bytesOf([0x61, 0, 0x0a, 0]);
    await assertRejects(() => labelsOf([unmarked]), LabelError, "line 1 ");
  },
});

Deno.test({
  name:
    "readLabels() refuses NUL by line number, as SQLite would cut the label",
  permissions,
  async fn() {
    const cases: [string, number][] = [
      ["\0", 1],
      ["a\0b\nc", 1],
      ["a\n\nb\0\nc\0\n", 3],
      ["a\nb\n\0", 3],
    ];
    for (const [text, line] of cases) {
      const bytes = encoder.encode(text);
      const bytewise = [...bytes].map((_, i) => bytes.subarray(i, i + 1));
      for (const pieces of [[bytes], bytewise]) {
        await assertRejects(
          () => labelsOf(pieces),
          LabelError,
          `line ${line} holds a NUL`,
        );
      }
    }
  },
});

Deno.test({
  name: "readLabels() gives what comes before a bad line in other batches",
  permissions,
  async fn() {
    const batches: string[][] = [];
    const pieces = [bytesOf("a\nb\n"), bytesOf("c\n", [0xff])];
    await assertRejects(async () => {
      for await (const batch of readLabels(chunks(pieces), "x.txt")) {
        batches.push(batch);
      }
    }, LabelError);
    assertEquals(batches, [["a", "b"], ["c"]]);
  },
});

Deno.test({
  name: "readLabels() takes a line of 10 MB",
  permissions,
  async fn() {
    const piece = encoder.encode("日".repeat(1000));
    const pieces = Array<Uint8Array>(3334).fill(piece);
    const labels = await labelsOf([
      bytesOf("a\n"),
      ...pieces,
      bytesOf("\nb\n"),
    ]);
    assertEquals(labels.map((label) => label.length), [1, 3_334_000, 1]);
    assert(labels[1] === "日".repeat(3_334_000));
  },
});

Deno.test({
  name: "readLabels() refuses a line over 64 MiB before it fills the memory",
  permissions,
  async fn() {
    const piece = new Uint8Array(MIB).fill(0x61);
    let given = 0;
    async function* endless(): AsyncIterableIterator<Uint8Array> {
      yield bytesOf("a\nb\n");
      for (; given < 1000; given++) yield piece;
    }
    const error = await assertRejects(async () => {
      for await (const _ of readLabels(endless(), "x.txt"));
    }, LabelError);
    assertStringIncludes(error.message, "line 3 ");
    assertStringIncludes(error.message, "64 MiB");
    assertLessOrEqual(given, 64);
  },
});
