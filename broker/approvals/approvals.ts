/**
 * Held requests: asked, waited for, decided by as many people as policy wants, claimed once, revoked, reviewed.
 * Every change is one compare-and-set of the store with its ledger entry, so of two who race exactly one wins and
 * the ledger says who.
 *
 * Callers have authenticated whoever asks; here is checked that it is *their* request, and that nobody
 * decides on their own.
 */
import { messageOf } from '../../shared/errors.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import type { Entry } from '../ledger/entry.ts'
import type { ApprovalFilter, Payload, StoredApproval } from '../store/store.ts'
import { createClients } from './clients.ts'
import { createExecuting } from './executing.ts'
import { createOneByOne } from '../one-by-one.ts'
import { BROKER_ACTOR, entryOf, LOOK_AGAIN_MS, Records } from './records.ts'
import type { Written } from './records.ts'
import { answerOf, DENIED_AGAIN_MS, isReusable } from './repeats.ts'
import { isInvolved, judge, missingQuorums } from './reviewers.ts'
import type { Review } from './reviewers.ts'
import { claimRefusal, hasEnded, mayBecome } from './states.ts'
import type {
  ApprovalListener,
  Approvals,
  ApprovalsDeps,
  Asked,
  Claim,
  Claimed,
  Closing,
  Ending,
  HoldFacts,
  Owner,
  Revocation,
} from './types.ts'

export { MAX_PENDING_PER_POD } from './records.ts'
export type { Approvals, Asked, Claimed, HoldFacts } from './types.ts'

/** Rows of one page when the store is read through at start. */
const RECOVERY_PAGE = 10_000
/** Longest preview kept, in bytes of UTF-8. */
export const MAX_PREVIEW_BYTES = 64 * 1024

/** Makes the held requests of a store and starts looking for overdue and revoked ones. */
export function createApprovals(deps: ApprovalsDeps): Approvals {
  return new HeldRequests(deps)
}

class HeldRequests implements Approvals {
  readonly #deps: ApprovalsDeps
  readonly #records: Records
  readonly #clients = createClients()
  readonly #executing = createExecuting()
  readonly #oneByOne = createOneByOne()
  readonly #closing = new AbortController()
  readonly #timer: NodeJS.Timeout
  readonly #unsubscribe: () => void
  #looking = false

  constructor(deps: ApprovalsDeps) {
    this.#deps = deps
    this.#records = new Records(deps)
    this.#records.subscribe(({ approval: { id, state }, elsewhere }) => {
      if (state !== 'PENDING' && state !== 'APPROVED') this.#clients.forget(id)
      if (elsewhere === true && state === 'REVOKED') this.#executing.cut(id)
    })
    this.#unsubscribe = deps.store.onChange((id) => void this.#records.learn(id))
    this.#timer = setInterval(() => void this.#look(), LOOK_AGAIN_MS)
    this.#timer.unref()
  }

  get closed(): AbortSignal {
    return this.#closing.signal
  }

  ask(
    facts: HoldFacts,
    entries: readonly Entry[],
    payloads?: readonly Payload[],
  ): Promise<Asked | Refusal> {
    // Two of the same that come together must not ask people twice; the store's index guards against other brokers.
    return this.#oneByOne(`${facts.digest} ${facts.callerKey}`, async () => {
      for (;;) {
        const asked = await this.#tryAsk(facts, { entries, payloads })
        if (asked !== undefined) return asked
      }
    })
  }

  async open(facts: HoldFacts, entries: readonly Entry[]): Promise<Claimed> {
    const approval: StoredApproval = {
      ...this.#recordOf(facts, facts.terms.approvedSeconds),
      ...{ state: 'EXECUTING', breakGlass: true, review: 'open' },
    }
    await this.#records.create(approval, 'break-glass: goes ahead, to be reviewed', { entries })
    return this.#run(approval)
  }

  async waitFor(
    id: string,
    owner: Owner,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<StoredApproval | Refusal> {
    const endMs = performance.now() + waitMs
    for (;;) {
      const approval = await this.#own(id, owner)
      const leftMs = endMs - performance.now()
      if (isRefusal(approval) || approval.state !== 'PENDING') return approval
      if (leftMs <= 0 || signal.aborted || this.closed.aborted) return approval
      await this.#records.waiters.wait(id, Math.min(leftMs, LOOK_AGAIN_MS), signal)
    }
  }

  async claim(claim: Claim): Promise<Claimed | Refusal> {
    for (;;) {
      const approval = await this.#own(claim.id, claim)
      if (isRefusal(approval)) return approval
      const refusal = this.#mismatch(approval, claim) ?? claimRefusal(approval)
      if (refusal !== undefined) return refusal
      if (isTooFew(approval, claim)) {
        const why = 'policy asks for other people by now'
        await this.#records.move(approval, 'EXPIRED', { actor: BROKER_ACTOR, why })
        continue
      }
      const ended = await this.#endedReuse(approval)
      if (ended !== undefined) return ended
      const actor = approval.subject
      const progress = { ...approval.progress, ...this.#here() }
      const change = { actor, why: 'claimed', progress }
      const claimed = await this.#records.move(approval, 'EXECUTING', change)
      if (claimed !== undefined) return this.#run(claimed)
    }
  }

  async finish(id: string, outcome: Ending, neverBegan = false): Promise<void> {
    this.#executing.end(id)
    for (;;) {
      const approval = await this.#deps.store.approval(id)
      if (approval === undefined || !mayBecome(approval.state, outcome)) {
        const { log } = this.#deps
        const state = approval?.state
        if (state !== 'REVOKED')
          log.warn({ id, outcome, state }, 'an ended request was not running')
        return
      }
      const change = {
        ...{
          actor: BROKER_ACTOR,
          why: neverBegan ? 'the session was refused' : 'the request ended',
        },
        ...(neverBegan ? { progress: { ...approval.progress, neverBegan } } : {}),
      }
      if ((await this.#records.move(approval, outcome, change)) !== undefined) return
    }
  }

  async decide(review: Review): Promise<StoredApproval | Refusal> {
    const { id, reviewer, reason, approve, groups = [] } = review
    for (;;) {
      const approval = await this.get(id)
      if (isRefusal(approval)) return approval
      const { state } = approval
      if (state !== 'PENDING') return refuse('approval_not_pending', `it is ${state}`)
      const nowMs = this.#deps.now()
      const judged = judge(approval, review, new Date(nowMs).toISOString())
      if (isRefusal(judged)) return judged
      const { to, reviews } = judged
      const expiresAtMs = nowMs + approval.terms.approvedSeconds * 1000
      const decided = await this.#records.move(approval, to, {
        ...{ actor: reviewer, why: reason, progress: { ...approval.progress, reviews } },
        says: { verdict: approve ? 'approve' : 'deny', groups },
        ...(to === 'PENDING' ? {} : { reviewer, reason }),
        ...(to === 'APPROVED' ? { expiresAtMs, granted: true } : {}),
      })
      if (decided !== undefined) return decided
    }
  }

  async revoke({ id, ...by }: Revocation): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.get(id)
      if (isRefusal(approval)) return approval
      const { state } = approval
      const endsIt = endsByRevocation(approval)
      const runs = await this.#runningOn(id)
      if (!endsIt && runs.length === 0 && !isReusable(approval, this.#deps.now())) {
        return refuse('approval_not_revocable', `it is ${state}`)
      }
      const { reviewer, reason, groups = [] } = by
      const revocation = { reviewer, reason, at: new Date(this.#deps.now()).toISOString() }
      const revoked = await this.#records.move(approval, endsIt ? 'REVOKED' : state, {
        ...{ actor: reviewer, why: reason, says: { verdict: 'revoke', groups } },
        progress: { ...approval.progress, revocation, reuseEnded: true },
      })
      if (revoked === undefined) continue
      if (endsIt) this.#executing.cut(id)
      // what runs on it has an id of its own, which whoever approved has never seen
      for (const run of runs) await this.revoke({ ...by, id: run.id })
      return revoked
    }
  }

  /** Streams that run on an approval of another id: on its reuse, or as the second try of a refused session. */
  async #runningOn(id: string): Promise<readonly StoredApproval[]> {
    const running = await this.#deps.store.approvals({ states: ['EXECUTING'] }, RECOVERY_PAGE)
    return running.filter(({ reusedFrom, streaming }) => streaming && reusedFrom === id)
  }

  async closeReview({ id, verdict, ...by }: Closing): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.get(id)
      if (isRefusal(approval)) return approval
      if (isInvolved(by, approval)) return refuse('self_approval')
      if (approval.review !== 'open') return refuse('review_not_open')
      if (!hasEnded(approval.state)) return refuse('review_not_open', 'the request still runs')
      const { reviewer, reason, groups = [] } = by
      const closing = { reviewer, reason, verdict, at: new Date(this.#deps.now()).toISOString() }
      const closed = await this.#records.move(approval, approval.state, {
        ...{ actor: reviewer, why: reason, says: { verdict, groups }, review: 'closed' },
        progress: { ...approval.progress, closing },
      })
      if (closed !== undefined) return closed
    }
  }

  async leave(id: string, owner: Owner): Promise<StoredApproval | Refusal> {
    return this.#goes(id, owner, 'the client left')
  }

  async parked(id: string, owner: Owner): Promise<StoredApproval | Refusal> {
    return this.#goes(id, owner, 'the client was told to come back', 'keep')
  }

  get(id: string): Promise<StoredApproval | Refusal> {
    return this.#records.get(id)
  }

  async list(filter: ApprovalFilter, limit: number): Promise<readonly StoredApproval[]> {
    const { states = [] } = filter
    const rows = await this.#records.expireAll(await this.#deps.store.approvals(filter, limit))
    return rows.filter(({ state }) => states.length === 0 || states.includes(state))
  }

  subscribe(listener: ApprovalListener): () => void {
    return this.#records.subscribe(listener)
  }

  async recover(gone: (broker: string | undefined) => boolean = () => true): Promise<void> {
    const { store } = this.#deps
    const isLost = ({ progress: { broker } }: StoredApproval): boolean => gone(broker)
    for (;;) {
      const running = await store.approvals({ states: ['EXECUTING'] }, RECOVERY_PAGE)
      const lost = running.filter(isLost)
      for (const approval of lost) await this.#giveUp(approval)
      if (running.length < RECOVERY_PAGE || lost.length === 0) break
    }
    const open = await store.approvals({ states: ['PENDING', 'APPROVED'] }, RECOVERY_PAGE)
    for (const approval of open) {
      this.#records.note(approval)
      this.#records.known(approval)
      if (approval.podUid === undefined && isLost(approval)) await this.#lostClient(approval)
    }
  }

  close(): void {
    this.#unsubscribe()
    clearInterval(this.#timer)
    this.#closing.abort()
    this.#records.waiters.wakeAll()
  }

  /** Undefined when another broker was asked the same at the same time. */
  async #tryAsk(facts: HoldFacts, written: Written): Promise<Asked | Refusal | undefined> {
    const nowMs = this.#deps.now()
    const { digest, callerKey, terms } = facts
    const grantedSinceMs = nowMs - Math.max(terms.reuseSeconds, terms.approvedSeconds) * 1000
    const since = { grantedSinceMs, deniedSinceMs: nowMs - DENIED_AGAIN_MS }
    const same = await this.#deps.store.same({ digest, callerKey, ...since })
    const answer = answerOf(facts, await this.#records.expireAll(same), nowMs)
    if (answer.way === 'join') return this.#join(answer.approval, facts, written)
    if (answer.way === 'again') {
      // first, so that of two only one passes; a broker that ends in between has people asked again
      const progress = { ...answer.original.progress, neverBegan: false }
      const change = { actor: facts.subject, why: `is tried again by ${facts.id}`, progress }
      const { state } = answer.original
      if ((await this.#records.move(answer.original, state, change)) === undefined) return undefined
    }
    if (answer.way === 'reuse' || answer.way === 'again') {
      const { id, reviewer, reason } = answer.original
      const reused: StoredApproval = {
        ...this.#recordOf(facts, terms.approvedSeconds),
        ...{ state: 'APPROVED', reusedFrom: id, ...(reviewer === undefined ? {} : { reviewer }) },
        ...(reason === undefined ? {} : { reason }),
      }
      const stored = await this.#records.create(reused, `passes on the approval of ${id}`, written)
      return stored ? { approval: reused, folded: false } : undefined
    }
    const full = this.#records.full(facts)
    if (full !== undefined) return full
    const approval = this.#recordOf(facts, terms.pendingSeconds)
    const stored = await this.#records.create(approval, 'policy holds the request', written)
    if (!stored) return undefined
    if (facts.clientWaits) this.#clients.add(approval.id, false)
    return { approval, folded: false }
  }

  async #join(
    approval: StoredApproval,
    facts: HoldFacts,
    { entries, payloads }: Written,
  ): Promise<Asked> {
    const why = `joins ${approval.id}`
    const joins = entryOf(approval, 'RECEIVED', 'FOLDED', facts.subject, why)
    await this.#deps.store.append([...entries, { ...joins, requestId: facts.id }], payloads)
    const { state, progress, instanceId } = approval
    if (state === 'PENDING' && progress.clientWaits && facts.clientWaits) {
      this.#clients.add(approval.id, instanceId !== facts.instanceId)
    }
    return { approval, folded: true }
  }

  #recordOf(facts: HoldFacts, seconds: number): StoredApproval {
    const { clientWaits, preview, ...rest } = facts
    const nowMs = this.#deps.now()
    return {
      ...rest,
      ...(preview === undefined ? {} : { preview: bounded(preview) }),
      version: 1,
      state: 'PENDING',
      breakGlass: false,
      createdAt: new Date(nowMs).toISOString(),
      expiresAt: new Date(nowMs + seconds * 1000).toISOString(),
      progress: { reviews: [], clientWaits, ...this.#here() },
    }
  }

  /** This broker, as a request's progress names it. */
  #here(): { broker?: string } {
    const { broker } = this.#deps
    return broker === undefined ? {} : { broker }
  }

  /** Nobody can have revoked it before this: a revocation first reads that it runs. */
  #run(approval: StoredApproval): Claimed {
    return { approval, revoked: this.#executing.start(approval.id, approval.streaming) }
  }

  /** Whether what is claimed is not what was approved, or by whom it is claimed. */
  #mismatch(approval: StoredApproval, claim: Claim): Refusal | undefined {
    const anyProcess = !approval.progress.clientWaits || this.#clients.isShared(approval.id)
    const fits = anyProcess || approval.instanceId === claim.instanceId
    return fits && approval.digest === claim.digest ? undefined : refuse('approval_mismatch')
  }

  /** Whether it passes on an approval that was revoked meanwhile. */
  async #endedReuse({ reusedFrom }: StoredApproval): Promise<Refusal | undefined> {
    if (reusedFrom === undefined) return undefined
    const original = await this.#deps.store.approval(reusedFrom)
    return original === undefined || original.progress.reuseEnded === true
      ? refuse('approval_revoked', original?.progress.revocation?.reason)
      : undefined
  }

  /** One client less; when it was the last, the request goes on without, or ends. */
  async #goes(
    id: string,
    owner: Owner,
    why: string,
    onLeave?: 'keep',
  ): Promise<StoredApproval | Refusal> {
    let isLast: boolean | undefined
    for (;;) {
      const approval = await this.#own(id, owner)
      if (isRefusal(approval)) return approval
      const { state, progress, terms, subject: actor } = approval
      const to = afterLeaving(state, onLeave ?? terms.onLeave)
      if (to === undefined) return refuse('approval_not_pending', `it is ${state}`)
      isLast ??= !progress.clientWaits || this.#clients.remove(id)
      if (!progress.clientWaits || !isLast) return approval
      const change = to === state ? { progress: { ...progress, clientWaits: false } } : {}
      const moved = await this.#records.move(approval, to, { actor, why, ...change })
      if (moved !== undefined) return moved
    }
  }

  /** What a broker that ended left behind: nobody knows what became of the request, and it is never repeated. */
  async #giveUp(approval: StoredApproval): Promise<void> {
    await this.#records.move(approval, 'UNKNOWN', {
      actor: BROKER_ACTOR,
      why: 'broker_restarted',
      also: [
        {
          ...{ kind: 'outcome', requestId: approval.id, cluster: approval.cluster, status: 0 },
          ...{ bytesToClient: 0, bytesToServer: 0, durationMs: 0, reason: 'broker_restarted' },
        },
      ],
    })
  }

  /** Direct clients waited on connections to the broker that ended; sidecars go on asking this one. */
  async #lostClient(approval: StoredApproval): Promise<void> {
    const { state, progress } = approval
    if (!progress.clientWaits) return
    const change = { progress: { ...progress, clientWaits: false } }
    await this.#records.move(approval, state, {
      ...{ actor: BROKER_ACTOR, why: 'broker_restarted', ...change },
    })
  }

  /** An own request; another's looks as if it did not exist. */
  async #own(id: string, owner: Owner): Promise<StoredApproval | Refusal> {
    const approval = await this.get(id)
    if (isRefusal(approval)) return approval
    const isOwn =
      'callerKey' in owner
        ? approval.callerKey === owner.callerKey
        : approval.podUid === owner.podUid
    return isOwn ? approval : refuse('request_unknown')
  }

  /** Ends what is overdue, cuts what another broker revoked. */
  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      await this.#records.sweep()
      for (const id of this.#executing.revocable()) {
        const approval = await this.#deps.store.approval(id)
        if (approval?.state === 'REVOKED') this.#executing.cut(id)
      }
    } catch (error) {
      if (this.closed.aborted) return
      const message = 'overdue or revoked requests could not be looked for'
      this.#deps.log.error({ error: messageOf(error) }, message)
    } finally {
      this.#looking = false
    }
  }
}

/** Whether those who approved would not do any more; of a repeat that was found out when it was asked. */
function isTooFew({ reusedFrom, progress }: StoredApproval, { quorums = [] }: Claim): boolean {
  return reusedFrom === undefined && missingQuorums(quorums, progress.reviews).length > 0
}

/** What becomes of a request whose client is gone; undefined where that changes nothing any more. */
function afterLeaving(state: ApprovalState, onLeave: 'cancel' | 'keep'): ApprovalState | undefined {
  if (onLeave === 'keep') return state === 'PENDING' || state === 'APPROVED' ? state : undefined
  return state === 'PENDING' ? 'CANCELLED' : undefined
}

function bounded(preview: NonNullable<HoldFacts['preview']>): NonNullable<HoldFacts['preview']> {
  const bytes = Buffer.from(preview.text)
  if (bytes.length <= MAX_PREVIEW_BYTES) return preview
  const note = [preview.note, `cut after ${MAX_PREVIEW_BYTES} bytes`].filter(Boolean).join('; ')
  // as if more were to come: so a character that was cut in two is left out
  const text = new TextDecoder().decode(bytes.subarray(0, MAX_PREVIEW_BYTES), { stream: true })
  return { ...preview, text, note }
}

/** A write that is under way is not cut: nobody would know what became of it. */
function endsByRevocation({ state, streaming }: StoredApproval): boolean {
  return state === 'APPROVED' || (state === 'EXECUTING' && streaming)
}
