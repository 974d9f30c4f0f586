/**
 * The thread in which one case runs against a learner's pool.
 *
 * @module
 */

import {
  type CheckAnswer,
  checkPoolClass,
  type CheckRequest,
  loadPool,
  outOfTurn,
} from "./lab_check.ts";

/** What a thread has, and the types of a page's script do not. */
interface Thread {
  onmessage: (event: MessageEvent<CheckRequest>) => void;
  postMessage(answer: CheckAnswer): void;
  close(): void;
  addEventListener(
    name: "error" | "unhandledrejection",
    listener: (event: Event & { error?: unknown; reason?: unknown }) => void,
  ): void;
}

const thread = globalThis as unknown as Thread;
const answer = thread.postMessage.bind(thread);

thread.onmessage = async ({ data }) => {
  const { answer: loaded, Pool } = await loadPool(data.url);
  answer(loaded);
  if (Pool !== undefined) answer(await checkPoolClass(Pool, data));
};

// What a pool throws where nobody waits for it is a finding too.
for (const name of ["error", "unhandledrejection"] as const) {
  thread.addEventListener(name, (event) => {
    event.preventDefault();
    answer(outOfTurn(event.error ?? event.reason));
  });
}

// Standard output is for results. What a learner prints is not one.
for (const name of ["log", "info", "debug"] as const) {
  console[name] = console.error;
}

/** Ends nothing but what the pool was about to do. */
function refuseToEnd(name: string): () => never {
  return () => {
    throw new Error(`A pool must not end the program: it called ${name}()`);
  };
}

// Node's process.exit comes to this one as well.
Deno.exit = refuseToEnd("Deno.exit");
thread.close = refuseToEnd("close");
// Answers are the lab's alone.
thread.postMessage = () => {};
