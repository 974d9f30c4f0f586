/**
 * A place in the pool.
 *
 * @module
 */

import type { Deadline, DeadlineItem } from "./deadlines.ts";
import type { Resource } from "./driver.ts";
import type { RetireReason } from "./pool_report.ts";

/**
 * Where a connection is: in exactly one place at a time.
 *
 * opening → idle ⇄ in use, with checking between any two of the latter, and
 * from everywhere → closing → closed.
 */
export type SlotState =
  | "opening"
  | "idle"
  | "inUse"
  | "checking"
  | "closing"
  | "closed";

/**
 * A place in the pool, and the connection that stands there. It is the deadline
 * of its own state too: a connect, a check and a rest each end in time, and none
 * of them overlaps another.
 */
export class Slot<C extends Resource> implements DeadlineItem {
  dueMs = 0;
  sequence = 0;
  position = -1;
  state: SlotState = "opening";
  /** The connection, from the moment it is open. */
  connection!: C;
  /** How often it was handed out. */
  uses = 0;
  /** Why it is to be closed as soon as it comes back, if it is. */
  retirement: RetireReason | undefined;
  /** The order in which connections were opened. */
  serial = 0;
  /** When it last came back; kept only where a setting needs it. */
  idleSinceMs = 0;
  /** When it was handed out; kept only where a setting needs it. */
  heldSinceMs = 0;
  /** In which order it came to rest. */
  restOrder = 0;
  /** Whether it is checked in the midst of its rest, for nobody. */
  wasResting = false;
  /** Whether its check has come to the ping. */
  isPinging = false;
  /** When it was last known to work; kept only where a setting needs it. */
  provenMs = 0;
  /** When it began to connect, in the milliseconds of the clock. */
  connectSinceMs = 0;
  /** Ends its life, if a setting bounds that. */
  lifeDeadline: Deadline | undefined;
  /** Made once for each slot, as a release must not allocate. */
  readonly afterReset: (error?: unknown) => void;
  readonly afterPing: (error?: unknown) => void;
  /** Gives up the connect under way. */
  cancelConnect: (() => void) | undefined;
  readonly #owner: SlotOwner<C>;

  constructor(owner: SlotOwner<C>) {
    this.#owner = owner;
    this.afterReset = (error) => owner.resetDone(this, error);
    this.afterPing = (error) => owner.pingDone(this, error);
  }

  onDue(): void {
    this.#owner.stateExpired(this);
  }
}

/** Who decides what becomes of a slot. */
export interface SlotOwner<C extends Resource> {
  stateExpired(slot: Slot<C>): void;
  resetDone(slot: Slot<C>, error: unknown): void;
  pingDone(slot: Slot<C>, error: unknown): void;
}
