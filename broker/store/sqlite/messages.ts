/** What the store's client and its workers say to each other. Both are this process; nothing here is outside input. */
import type { ApprovalState } from '../../../shared/wire.ts'
import type { IndexColumns } from '../../ledger/index-columns.ts'
import type { ApprovalFilter, EventFilter } from '../store.ts'

/** What a worker is started with. */
export interface WorkerSettings {
  readonly role: 'write' | 'read'
  readonly file: string
}

/** A ledger entry, ready to be stored. */
export interface Leaf {
  readonly timeUs: number
  readonly kind: string
  readonly columns: IndexColumns
  /** The serialised entry. */
  readonly bytes: Uint8Array
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

/** A call that the writing worker answers. */
export type WriteCall =
  | { readonly op: 'append'; readonly leaves: readonly Leaf[] }
  | { readonly op: 'hold'; readonly approval: NewApproval; readonly leaves: readonly Leaf[] }
  | { readonly op: 'transition'; readonly change: Change; readonly leaves: readonly Leaf[] }
  | { readonly op: 'approval'; readonly id: string }
  | { readonly op: 'same'; readonly query: SameQuery }
  | {
      readonly op: 'cluster'
      readonly name: string
      /** JSON; null removes it. */
      readonly settings: string | null
      readonly leaves: readonly Leaf[]
    }

/** A call that the reading worker answers. */
export type ReadCall =
  | { readonly op: 'clusters' }
  | { readonly op: 'approvals'; readonly filter: ApprovalFilter; readonly limit: number }
  | {
      readonly op: 'events'
      readonly filter: EventFilter
      readonly limit: number
      readonly before: number | undefined
    }

/** Result of one call; `value` is still to be decoded by the client. */
export type CallResult =
  { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly message: string }

/** From client to worker. */
export type Order<Call> =
  { readonly order: 'run'; readonly calls: readonly Call[] } | { readonly order: 'close' }

/** From worker to client; `results` answers the calls of one order, in their order. */
export type Report =
  | { readonly report: 'ready' }
  | { readonly report: 'failed'; readonly message: string }
  | { readonly report: 'done'; readonly results: readonly CallResult[] }
  | { readonly report: 'closed' }
