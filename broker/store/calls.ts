/**
 * What is asked of a database, whichever it is: plain data, so that it can go to a thread, or wait for the next
 * transaction. Nothing here is outside input.
 */
import type { FaultCode } from '../../shared/errors.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import type { Term } from '../ledger/terms.ts'
import type { ApprovalFilter, EventFilter, RecordFilter, RecordKind } from './store.ts'

/** A ledger entry, ready to be stored. */
export interface Leaf {
  readonly timeUs: number
  /** The serialised entry. */
  readonly bytes: Uint8Array
  readonly terms: readonly Term[]
}

/** A body beside an entry, see `Payload`. */
export interface LeafPayload {
  readonly sha256: string
  readonly content: Uint8Array
}

/** A pseudonym that an entry of the same transaction is the first to use. */
export interface Pseudonym {
  readonly pseudonym: string
  readonly value: string
  readonly salt: Uint8Array
}

/** Entries that belong together, and what stands beside them. */
export interface Evidence {
  readonly leaves: readonly Leaf[]
  readonly payloads: readonly LeafPayload[]
  readonly pseudonyms: readonly Pseudonym[]
}

/** A held request, ready to be stored: `facts` is JSON of all that never changes. */
export interface NewApproval {
  readonly id: string
  readonly version: number
  readonly state: ApprovalState
  readonly createdAt: string
  readonly expiresAt: string
  readonly cluster: string
  /** Equal for repeats of the same request by the same caller. */
  readonly foldKey: string
  readonly review: string | null
  readonly progress: string
  readonly facts: string
}

/** A compare-and-set; null leaves a column as it is. */
export interface Change {
  readonly id: string
  readonly version: number
  readonly to: ApprovalState
  readonly reviewer: string | null
  readonly reason: string | null
  readonly decidedAt: string | null
  readonly expiresAt: string | null
  readonly grantedAt: string | null
  readonly review: string | null
  readonly progress: string | null
}

/** See `SameRequest`; times are RFC 3339. */
export interface SameQuery {
  readonly foldKey: string
  readonly grantedSince: string
  readonly deniedSince: string
}

/** See `RecordChange`. */
export interface NewRecord {
  readonly kind: RecordKind
  readonly id: string
  readonly version: number | null
  /** JSON; null removes it. */
  readonly body: string | null
}

/** See `StoredCheckpoint`. */
export interface NewCheckpoint {
  readonly size: number
  readonly timeUs: number
  readonly root: Uint8Array
  readonly note: string
}

/** A call that changes something: part of a transaction with others. */
export type WriteCall =
  | { readonly op: 'append'; readonly evidence: Evidence }
  | { readonly op: 'hold'; readonly approval: NewApproval; readonly evidence: Evidence }
  | { readonly op: 'transition'; readonly change: Change; readonly evidence: Evidence }
  | { readonly op: 'put'; readonly changes: readonly NewRecord[]; readonly evidence: Evidence }
  | { readonly op: 'checkpoint'; readonly checkpoint: NewCheckpoint }
  /** Removes at most one range, see logic/prune.ts. */
  | {
      readonly op: 'prune'
      readonly from: number
      readonly below: number
      readonly evidence: Evidence
    }
  | { readonly op: 'erase'; readonly pseudonyms: readonly string[]; readonly evidence: Evidence }

/** A question that one access answers: never behind a long one, and it sees every write that was made before. */
export type QuickCall =
  | { readonly op: 'approval'; readonly id: string }
  | { readonly op: 'same'; readonly query: SameQuery }
  | { readonly op: 'record'; readonly kind: RecordKind; readonly id: string }
  | { readonly op: 'pseudonyms'; readonly value: string }

/** A question that may take its time. */
export type ReadCall =
  | { readonly op: 'approvals'; readonly filter: ApprovalFilter; readonly limit: number }
  | {
      readonly op: 'records'
      readonly kind: RecordKind
      readonly filter: RecordFilter
      readonly limit: number
    }
  | {
      readonly op: 'events'
      readonly filter: EventFilter
      readonly limit: number
      readonly before: number | undefined
    }
  | { readonly op: 'leaves'; readonly from: number; readonly limit: number }
  | { readonly op: 'head' }
  | {
      readonly op: 'tile'
      readonly level: number
      readonly index: number
      readonly width: number
    }
  | { readonly op: 'lastCheckpoint'; readonly size: number | undefined }
  | { readonly op: 'checkpoints'; readonly above: number; readonly limit: number }
  | { readonly op: 'payload'; readonly sha256: string }
  /** Values behind pseudonyms. */
  | { readonly op: 'personal'; readonly pseudonyms: readonly string[] }

/** Result of one call; `value` is still to be decoded by the client. */
export type CallResult =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly message: string; readonly code?: FaultCode }
