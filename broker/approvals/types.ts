/** What the rest of the broker knows of held requests. */
import type { Quorum } from '../../shared/policy/decision.ts'
import type { Logger } from '../../shared/log.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { ReviewVerdict } from '../../shared/wire.ts'
import type { Entry } from '../ledger/entry.ts'
import type { ApprovalFilter, Payload, StoredApproval, Store } from '../store/store.ts'
import type { Review, Reviewer } from './reviewers.ts'

/** A request to be held; `id` is its request id, the one its ledger entries carry. */
export type HoldFacts = Omit<
  StoredApproval,
  | ('version' | 'state' | 'createdAt' | 'expiresAt' | 'decidedAt' | 'grantedAt' | 'reason')
  | ('reviewer' | 'progress' | 'review' | 'reusedFrom' | 'breakGlass')
> & {
  /** Whether the client waits for the decision; false where it is told at once to come back. */
  readonly clientWaits: boolean
}

/** What came of asking. */
export interface Asked {
  readonly approval: StoredApproval
  /** Whether it is an earlier request of the same digest and caller, and not one of its own. */
  readonly folded: boolean
}

/** A request that runs on its approval; {@link Approvals.finish} must follow. */
export interface Claimed {
  readonly approval: StoredApproval
  /** Aborts when the approval is revoked while the request runs. */
  readonly revoked: AbortSignal
}

/** How a request that ran on its approval ended. */
export type Ending = 'SUCCEEDED' | 'FAILED' | 'UNKNOWN'

/** Who claims what. */
export interface Claim {
  readonly id: string
  readonly digest: string
  readonly callerKey: string
  /** Empty for a direct client. */
  readonly instanceId: string
  /** Whom policy asks for by now; approvals that lack one of these are void. */
  readonly quorums?: readonly Quorum[]
}

/** Whose request it is: a sidecar knows its pod, the gateway knows the caller. */
export type Owner = { readonly podUid: string } | { readonly callerKey: string }

/** A person revokes an approval. */
export interface Revocation extends Reviewer {
  readonly id: string
  readonly reason: string
}

/** A person closes the review of a break-glass request. */
export interface Closing extends Revocation {
  readonly verdict: ReviewVerdict
}

/** A held request changed. */
export interface ApprovalEvent {
  /** State before; `RECEIVED` for a new one, and the same as now where only a review or the client's waiting changed. */
  readonly from: string
  readonly approval: StoredApproval
  /** Another broker made the change: it is that one's to tell people of it. */
  readonly elsewhere?: boolean
}

/** Told of changes that any broker made; whatever it throws is logged and goes no further. */
export type ApprovalListener = (event: ApprovalEvent) => void

/** The held requests. Every method rejects with a `Fault` when the store fails. */
export interface Approvals {
  /**
   * Asks for a request. `entries`, its intent, are written in any case but a refusal, with their payloads. In this order: it joins one
   * that is PENDING, or APPROVED and left by its client, or DENIED to the same process a moment ago; it passes as
   * APPROVED on an approval that may be reused; it is stored as PENDING, or refused with `approvals_full`.
   */
  ask(
    facts: HoldFacts,
    entries: readonly Entry[],
    payloads?: readonly Payload[],
  ): Promise<Asked | Refusal>
  /** Break-glass: EXECUTING at once, with a review to be made afterwards. Call {@link Approvals.finish} at its end. */
  open(facts: HoldFacts, entries: readonly Entry[]): Promise<Claimed>
  /** An own request: at once when it is not PENDING, else when that changes, `waitMs` have passed, or `signal` aborts. */
  waitFor(
    id: string,
    owner: Owner,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<StoredApproval | Refusal>
  /**
   * APPROVED → EXECUTING, for exactly one caller. While the client that asked waits, only its own process may
   * claim, or one that joined it; afterwards any with the same digest.
   */
  claim(claim: Claim): Promise<Claimed | Refusal>
  /**
   * EXECUTING → the outcome. A revoked one stays revoked; anything else is left as it is and logged.
   *
   * @param neverBegan - of a session that the API server refused: its approval is good for the second try
   */
  finish(id: string, outcome: Ending, neverBegan?: boolean): Promise<void>
  /** One person's word; see reviewers.ts. */
  decide(review: Review): Promise<StoredApproval | Refusal>
  /** APPROVED → REVOKED, for streams also EXECUTING → REVOKED, which cuts them; of a used approval it ends the reuse, and the streams that run on it. */
  revoke(revocation: Revocation): Promise<StoredApproval | Refusal>
  /** Closes the review of a break-glass request that has ended. */
  closeReview(closing: Closing): Promise<StoredApproval | Refusal>
  /** A client that waited is gone: the request is CANCELLED or kept, by its terms, when no other client waits for it. */
  leave(id: string, owner: Owner): Promise<StoredApproval | Refusal>
  /** A client that waited was told to come back: the request stays. */
  parked(id: string, owner: Owner): Promise<StoredApproval | Refusal>
  get(id: string): Promise<StoredApproval | Refusal>
  /** Newest first. */
  list(filter: ApprovalFilter, limit: number): Promise<readonly StoredApproval[]>
  /** Tells of every change from now on. @returns ends it */
  subscribe(listener: ApprovalListener): () => void
  /**
   * To be called before any other method, and when a broker has ended: what was EXECUTING there becomes UNKNOWN, with an
   * outcome entry, and no direct client waits there any more.
   *
   * @param gone - whether this broker, or one before there were names, has ended; each has when left out
   */
  recover(gone?: (broker: string | undefined) => boolean): Promise<void>
  /** Aborted by {@link Approvals.close}. */
  readonly closed: AbortSignal
  /** Stops the timer and wakes all who wait. */
  close(): void
}

/** What held requests need. */
export interface ApprovalsDeps {
  readonly store: Store
  /** Name of this broker, where there may be others. */
  readonly broker?: string
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}
