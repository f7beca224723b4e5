/**
 * What the broker needs of a database. Every write is durable when its promise settles, and a held request
 * changes state and tells the ledger so in one transaction. A rejected promise (`Fault`, `store_failed`)
 * leaves it open whether the write happened: callers must then refuse, never retry blindly.
 */
import type { Approval, ApprovalState, AuditEvent } from '../../shared/wire.ts'
import type { Entry } from '../ledger/entry.ts'

/** A held request as stored. */
export interface StoredApproval extends Approval {
  /** Counts transitions; a compare-and-set names the version it read. */
  readonly version: number
  /** Instance id of the asking process: only it may claim. */
  readonly instanceId: string
  readonly podUid: string
}

/** A change of state, applied only if the row still has `version`. */
export interface Transition {
  readonly id: string
  readonly version: number
  readonly to: ApprovalState
  readonly reviewer?: string
  readonly reason?: string
  /** Milliseconds since the epoch. */
  readonly nowMs: number
  /** New deadline of the new state, milliseconds since the epoch. */
  readonly expiresAtMs?: number
  readonly entry: Entry
  /** Further entries of the same transaction, after `entry`. */
  readonly also?: readonly Entry[]
}

/** Conditions on ledger entries; all that are given must hold. */
export interface EventFilter {
  /** Inclusive, milliseconds since the epoch. */
  readonly sinceMs?: number
  /** Exclusive. */
  readonly untilMs?: number
  readonly kind?: string
  readonly cluster?: string
  readonly requestId?: string
  readonly subject?: string
  /** Name of the process itself. */
  readonly agent?: string
  /** Name of any process above it. */
  readonly ancestor?: string
  readonly podUid?: string
  readonly exe?: string
  readonly verb?: string
  readonly resource?: string
  readonly namespace?: string
  readonly name?: string
  readonly effect?: string
  readonly rule?: string
  readonly reviewer?: string
  readonly status?: number
}

/** The database. */
export interface Store {
  /** Appends entries, in order; settles when all are durable. @returns sequence number of the first */
  append(entries: readonly Entry[]): Promise<number>
  /** Stores a new held request with its ledger entries. */
  hold(approval: StoredApproval, entries: readonly Entry[]): Promise<void>
  /** Applies a transition; resolves to undefined when the row is gone or has another version, and then nothing was written. */
  transition(change: Transition): Promise<StoredApproval | undefined>
  approval(id: string): Promise<StoredApproval | undefined>
  /** Held requests in one of `states` (all when empty), newest first. */
  approvals(states: readonly ApprovalState[], limit: number): Promise<readonly StoredApproval[]>
  /** Entries that match, newest first, with a sequence number below `before`. */
  events(filter: EventFilter, limit: number, before?: number): Promise<readonly AuditEvent[]>
  /** Waits for what was accepted, then closes. */
  close(): Promise<void>
}
