/**
 * The thread in which one case runs against a learner's pool.
 *
 * @module
 */

import {
  type CheckAnswer,
  checkCase,
  type CheckRequest,
  outOfTurn,
} from "./lab_check.ts";

/** What a thread has, and the types of a page's script do not. */
interface Thread {
  onmessage: (event: MessageEvent<CheckRequest>) => void;
  postMessage(answer: CheckAnswer): void;
  addEventListener(
    name: "error" | "unhandledrejection",
    listener: (event: Event & { error?: unknown; reason?: unknown }) => void,
  ): void;
}

const thread = globalThis as unknown as Thread;

thread.onmessage = async ({ data }) => {
  thread.postMessage(await checkCase(data));
};

// What a pool throws where nobody waits for it is a finding too.
for (const name of ["error", "unhandledrejection"] as const) {
  thread.addEventListener(name, (event) => {
    event.preventDefault();
    thread.postMessage(outOfTurn(event.error ?? event.reason));
  });
}
