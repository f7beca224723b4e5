/**
 * What the broker needs of a database. Every write is durable when its promise settles, and what changes
 * changes with the ledger entries that say so, in one transaction. A rejected promise (`Fault`, `store_failed`)
 * leaves it open whether the write happened: callers must then refuse, never retry blindly.
 *
 * The database may serve several brokers (PostgreSQL). Whatever a call returns is what was committed by any of them.
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
  /** The broker that its client waits at, or that runs it. */
  readonly broker?: string
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

/** Conditions on ledger entries; all that are given must hold. Texts are compared whole. */
export interface EventFilter {
  /** Inclusive, milliseconds since the epoch. */
  readonly sinceMs?: number
  /** Exclusive. */
  readonly untilMs?: number
  readonly kind?: string
  /** Of a `system` entry: what happened. */
  readonly event?: string
  readonly cluster?: string
  readonly requestId?: string
  /** Service account, person, or the name of a token's subject. */
  readonly subject?: string
  /** Name of the process itself. */
  readonly agent?: string
  /** Name of any process above it. */
  readonly ancestor?: string
  /** Name of the process itself or of any above it. */
  readonly process?: string
  readonly podUid?: string
  readonly exe?: string
  /** The Kubernetes verb, as it was asked or as policy sees it: `connect`. */
  readonly verb?: string
  /** What the request comes to, as policy names it: `exec`. */
  readonly action?: string
  readonly resource?: string
  readonly namespace?: string
  readonly name?: string
  readonly effect?: string
  readonly reason?: string
  readonly rule?: string
  /** Who decided on a held request: approved, denied, revoked, reviewed. */
  readonly reviewer?: string
  readonly status?: number
}

/** Conditions that compare with a term (broker/ledger/terms.ts): all but the times. */
export type TermField = Exclude<keyof EventFilter, 'sinceMs' | 'untilMs'>

/** An entry as it is stored, byte by byte. */
export interface StoredLeaf {
  readonly seq: number
  /** Microseconds since the epoch. */
  readonly timeUs: number
  readonly bytes: Uint8Array
}

/** What is to be proved of the ledger: how many entries, and the root of the tree over them (RFC 6962, 2.1). */
export interface TreeHead {
  readonly size: number
  /** 32 bytes. */
  readonly root: Uint8Array
}

/** A signed statement of a tree head. */
export interface StoredCheckpoint extends TreeHead {
  readonly timeUs: number
  /** The signed note (C2SP tlog-checkpoint), whole. */
  readonly note: string
}

/** A body beside an entry; what is stored is what the hash is of. */
export interface Payload {
  /** SHA-256 of `content`, hex. */
  readonly sha256: string
  readonly content: Uint8Array
}

/** What kinds of small documents there are. */
export type RecordKind =
  'cluster' | 'sidecar_key' | 'campaign' | 'campaign_item' | 'broker' | 'session'

/** A small document; `body` is to be checked by whoever reads it. */
export interface StoredRecord {
  readonly id: string
  /** Counts changes, from 1. */
  readonly version: number
  readonly body: unknown
}

/** A change of a document. */
export interface RecordChange {
  readonly kind: RecordKind
  readonly id: string
  /** The version that it must have, 0 where it must not be there; left out, whatever is there is replaced. */
  readonly version?: number
  /** Undefined removes it. */
  readonly body: object | undefined
}

/** Which documents of a kind. */
export interface RecordFilter {
  /** Beginning of their ids. */
  readonly prefix?: string
  /** Ids after this one, in the order of their bytes. */
  readonly after?: string
  /** Ids before this one, and then the last first. */
  readonly before?: string
}

/** The database. */
export interface Store {
  /** Appends entries, in order, with their payloads; settles when all are durable. @returns sequence number of the first */
  append(entries: readonly Entry[], payloads?: readonly Payload[]): Promise<number>
  /**
   * Stores a new held request with its ledger entries. @returns false when another one of the same digest and
   * caller is PENDING, and then nothing was written
   */
  hold(
    approval: StoredApproval,
    entries: readonly Entry[],
    payloads?: readonly Payload[],
  ): Promise<boolean>
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
  /**
   * Changes documents together, with the entries that say so. @returns false when one had another version, and then
   * nothing was written
   */
  put(changes: readonly RecordChange[], entries: readonly Entry[]): Promise<boolean>
  record(kind: RecordKind, id: string): Promise<StoredRecord | undefined>
  /** In the order of their ids; with `before` in the reverse one. */
  records(kind: RecordKind, filter: RecordFilter, limit: number): Promise<readonly StoredRecord[]>
  /** Entries that match, newest first, with a sequence number below `before`. */
  events(filter: EventFilter, limit: number, before?: number): Promise<readonly AuditEvent[]>
  /** Entries from `from` on, oldest first, at most `limit`; pruned ones are left out. */
  leaves(from: number, limit: number): Promise<readonly StoredLeaf[]>
  /** The tree over all that is committed, and the first entry whose bytes are still there. */
  head(): Promise<TreeHead & { readonly firstSeq: number }>
  /**
   * Hashes of a tile (C2SP tlog-tiles), `width` times 32 bytes. @param width - 1 to 256
   * @returns undefined where the tree is not that large
   */
  tile(level: number, index: number, width: number): Promise<Uint8Array | undefined>
  /** Stores a checkpoint; one of the same size stays as it is. */
  putCheckpoint(checkpoint: StoredCheckpoint): Promise<void>
  /** The largest checkpoint of at most `size`, or the largest of all. */
  checkpoint(size?: number): Promise<StoredCheckpoint | undefined>
  /** Checkpoints larger than `above`, by size. */
  checkpoints(above: number, limit: number): Promise<readonly StoredCheckpoint[]>
  payload(sha256: string): Promise<Uint8Array | undefined>
  /**
   * Removes the bytes of entries below `seq`, which is rounded down to whole ranges of 65,536, and what only they
   * named; appends `entry`. @returns the first entry that is still there
   */
  prune(seq: number, entry: (range: { from: number; to: number }) => Entry): Promise<number>
  /** Forgets a person: no entry leads to the value any more. @returns how many pseudonyms it had */
  erase(value: string, entry: (pseudonyms: readonly string[]) => Entry): Promise<number>
  /**
   * Tells ids of held requests that another broker may have changed; may tell too much, or late, never too little for
   * good. @returns stops it
   */
  onChange(tell: (id: string) => void): () => void
  /** Waits for what was accepted, then closes. */
  close(): Promise<void>
}
