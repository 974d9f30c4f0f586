/**
 * Labels from a file: one a line, read as a stream.
 *
 * @module
 */

/** A label file that cannot be used, and where it is wrong. */
export class LabelError extends Error {
  /** The name of the class, for logs. */
  override readonly name: string = "LabelError";
}

// No label of use is longer, and SQLite takes at most a thousand million bytes.
const LONGEST_LINE_BYTES = 64 * 1024 * 1024;

const NEWLINE = 0x0a;

/**
 * The labels in `bytes`, in batches: lines are trimmed, empty ones left out, and
 * a byte-order mark at the start is skipped.
 *
 * @param name what to call the source in errors.
 * @throws {LabelError} naming the line, if one is not UTF-8, holds a NUL byte or
 * is longer than 64 MiB.
 */
export async function* readLabels(
  bytes: AsyncIterable<Uint8Array>,
  name: string,
): AsyncIterableIterator<string[]> {
  let line = 1;
  let carried: Uint8Array[] = [];
  let carriedBytes = 0;
  for await (const chunk of bytes) {
    // No byte of a longer character has the value of a newline, so whole lines
    // can be cut off before they are decoded.
    const end = chunk.lastIndexOf(NEWLINE);
    carried.push(chunk.subarray(0, end + 1));
    if (end >= 0) {
      const text = decode(concat(carried), name, line);
      yield labelsIn(text, name, line);
      line += countNewlines(text);
      carried = [];
      carriedBytes = 0;
    }
    const rest = chunk.subarray(end + 1);
    carried.push(rest);
    carriedBytes += rest.length;
    if (carriedBytes > LONGEST_LINE_BYTES) {
      throw new LabelError(
        `Cannot read '${name}': line ${line} is longer than 64 MiB`,
      );
    }
  }
  yield labelsIn(decode(concat(carried), name, line), name, line);
}

function labelsIn(text: string, name: string, firstLine: number): string[] {
  const lines = text.split("\n");
  if (text.includes("\0")) {
    const line = firstLine + lines.findIndex((line) => line.includes("\0"));
    throw new LabelError(
      `Cannot read '${name}': line ${line} holds a NUL byte, at which SQLite ends ` +
        "a text; is the file UTF-16, or not a text?",
    );
  }
  // `trim` takes a byte-order mark for a space too.
  return lines.map((line) => line.trim()).filter((label) => label !== "");
}

function decode(bytes: Uint8Array, name: string, firstLine: number): string {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    return decoder.decode(bytes);
  } catch {
    let line = firstLine;
    for (let start = 0; start < bytes.length; line++) {
      const newline = bytes.indexOf(NEWLINE, start);
      const end = newline < 0 ? bytes.length : newline;
      try {
        decoder.decode(bytes.subarray(start, end));
      } catch {
        break;
      }
      start = end + 1;
    }
    throw new LabelError(
      `Cannot read '${name}': line ${line} is not valid UTF-8; convert the file first`,
    );
  }
}

function countNewlines(text: string): number {
  let count = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) {
    count++;
  }
  return count;
}

function concat(pieces: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(
    pieces.reduce((sum, piece) => sum + piece.length, 0),
  );
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
