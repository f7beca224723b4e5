/** What a repeated request comes to: pure rules over the held requests of the same digest and caller. */
import type { StoredApproval } from '../store/store.ts'
import { isInvolved, missingQuorums } from './reviewers.ts'

/**
 * How long a denial answers the same process again, in milliseconds: kubectl asks a second time over SPDY at
 * once after a refused WebSocket, and nobody shall be asked twice for that.
 */
export const DENIED_AGAIN_MS = 30_000

/** What a repeat is compared with. */
type Asking = Pick<
  StoredApproval,
  'digest' | 'callerKey' | 'instanceId' | 'terms' | 'subject' | 'requesters' | 'owners'
>

/** What becomes of a request that is asked. */
export type Answer =
  /** It joins this held request. */
  | { readonly way: 'join'; readonly approval: StoredApproval }
  /** It passes on this earlier approval. */
  | { readonly way: 'reuse'; readonly original: StoredApproval }
  /** It passes on this earlier approval, whose session never began; that is used up by it. */
  | { readonly way: 'again'; readonly original: StoredApproval }
  /** People are asked. */
  | { readonly way: 'new' }

/** @param same - held requests of the same digest and caller, newest first, none of them overdue */
export function answerOf(asking: Asking, same: readonly StoredApproval[], nowMs: number): Answer {
  const joined =
    same.find(({ state }) => state === 'PENDING') ??
    same.find(({ state, progress }) => state === 'APPROVED' && !progress.clientWaits) ??
    same.find((one) => isFreshDenial(asking, one, nowMs))
  if (joined !== undefined) return { way: 'join', approval: joined }
  const unused = same.find((one) => mayTryAgain(asking, one, nowMs))
  if (unused !== undefined) return { way: 'again', original: unused }
  const original = same.find((one) => mayReuse(asking, one, nowMs))
  return original === undefined ? { way: 'new' } : { way: 'reuse', original }
}

/** Whether reviewers have approved this for repeats, and the time for them is not over. */
export function isReusable(approval: StoredApproval, nowMs: number): boolean {
  const { grantedAt, terms, progress, state } = approval
  if (grantedAt === undefined || progress.reuseEnded === true || state === 'REVOKED') return false
  return nowMs < Date.parse(grantedAt) + terms.reuseSeconds * 1000
}

function isFreshDenial(asking: Asking, one: StoredApproval, nowMs: number): boolean {
  if (one.state !== 'DENIED' || one.instanceId !== asking.instanceId) return false
  return one.decidedAt !== undefined && nowMs < Date.parse(one.decidedAt) + DENIED_AGAIN_MS
}

/**
 * Policy may have changed since: the stricter of both times counts, and the people who approved must be ones
 * that could approve this one. What ended UNKNOWN is never repeated without a person.
 */
function mayReuse(asking: Asking, one: StoredApproval, nowMs: number): boolean {
  if (!isReusable(one, nowMs) || one.grantedAt === undefined) return false
  if (nowMs >= Date.parse(one.grantedAt) + asking.terms.reuseSeconds * 1000) return false
  if (one.state === 'UNKNOWN' || one.state === 'EXPIRED') return false
  return stillStands(asking, one)
}

/**
 * A session that the API server refused to begin has used up nothing: kubectl asks for it a second time over SPDY, and
 * that is what was approved. Once, by the same process, while the approval would have waited.
 */
function mayTryAgain(asking: Asking, one: StoredApproval, nowMs: number): boolean {
  const { grantedAt, progress, state, instanceId } = one
  if (progress.neverBegan !== true || state !== 'FAILED' || grantedAt === undefined) return false
  if (progress.reuseEnded === true || instanceId !== asking.instanceId) return false
  if (nowMs >= Date.parse(grantedAt) + asking.terms.approvedSeconds * 1000) return false
  return stillStands(asking, one)
}

function stillStands(asking: Asking, { progress: { reviews } }: StoredApproval): boolean {
  return (
    !reviews.some((review) => isInvolved(review, asking)) &&
    missingQuorums(asking.terms.quorums, reviews).length === 0
  )
}
