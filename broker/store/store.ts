/**
 * What the broker needs of a database. Every write is durable when its promise settles, and a held request
 * changes state and tells the ledger so in one transaction. A rejected promise (`Fault`, `store_failed`)
 * leaves it open whether the write happened: callers must then refuse, never retry blindly.
 */
import type { Approval, ApprovalState, AuditEvent } from '../../shared/wire.ts'
import type { Entry } from '../ledger/entry.ts'

/** A person's review as stored: with all names of the person, so that no other session of theirs counts again. */
export type StoredReview = Approval['reviews'][number] & { readonly names: readonly string[] }

/** What of a held request changes beside its state; written whole with every transition that names it. */
export interface Progress {
  readonly reviews: readonly StoredReview[]
  readonly clientWaits: boolean
  readonly closing?: Approval['closing']
  readonly revocation?: Approval['revocation']
  readonly reuseEnded?: true
  /** A session that was approved, and that the API server refused to begin. */
  readonly neverBegan?: boolean
}

/** A held request as stored. */
export interface StoredApproval extends Omit<
  Approval,
  'missing' | 'reviews' | 'clientWaits' | 'closing' | 'revocation' | 'reuseEnded'
> {
  /** Counts transitions; a compare-and-set names the version it read. */
  readonly version: number
  /** Instance id of the asking process, empty where there is none: while its client waits, only it may claim. */
  readonly instanceId: string
  /** Pod of the asking process; absent for a direct client. */
  readonly podUid?: string | undefined
  /** Who may repeat the request and claim it. */
  readonly callerKey: string
  /** When people approved it, RFC 3339; never set where an earlier approval is reused. */
  readonly grantedAt?: string
  readonly progress: Progress
}

/** A change of state, or of what a state carries, applied only if the row still has `version`. */
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
  /** People have approved it now. */
  readonly granted?: true
  readonly review?: 'closed'
  readonly progress?: Progress
  readonly entry: Entry
  /** Further entries of the same transaction, after `entry`. */
  readonly also?: readonly Entry[]
}

/** Which held requests; all conditions that are given must hold. */
export interface ApprovalFilter {
  /** One of these; all when empty or left out. */
  readonly states?: readonly ApprovalState[]
  readonly review?: 'open' | 'closed'
  readonly cluster?: string
}

/** Asks for held requests that may answer a repeat of the same request by the same caller. */
export interface SameRequest {
  readonly digest: string
  readonly callerKey: string
  /** How far back an approval, or a denial, still counts; milliseconds since the epoch. */
  readonly grantedSinceMs: number
  readonly deniedSinceMs: number
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
  /**
   * Stores a new held request with its ledger entries. @returns false when another one of the same digest and
   * caller is PENDING, and then nothing was written
   */
  hold(approval: StoredApproval, entries: readonly Entry[]): Promise<boolean>
  /** Applies a transition; resolves to undefined when the row is gone or has another version, and then nothing was written. */
  transition(change: Transition): Promise<StoredApproval | undefined>
  approval(id: string): Promise<StoredApproval | undefined>
  /** Held requests that match, newest first. */
  approvals(filter: ApprovalFilter, limit: number): Promise<readonly StoredApproval[]>
  /**
   * Held requests of the same digest and caller, newest first, at most 100: those PENDING or APPROVED, those that
   * people approved or denied since the given times. Sees every write that was made before.
   */
  same(request: SameRequest): Promise<readonly StoredApproval[]>
  /** Settings of the clusters that were registered by the API, in no order; to be checked by whoever reads them. */
  clusters(): Promise<readonly unknown[]>
  /** Stores a cluster's settings, or removes them where they are undefined, with the entry that says so. */
  putCluster(name: string, settings: object | undefined, entry: Entry): Promise<void>
  /** Entries that match, newest first, with a sequence number below `before`. */
  events(filter: EventFilter, limit: number, before?: number): Promise<readonly AuditEvent[]>
  /** Waits for what was accepted, then closes. */
  close(): Promise<void>
}
