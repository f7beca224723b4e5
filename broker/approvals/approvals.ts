/**
 * Held requests: stored, waited for, decided, claimed once. Every change of state is one compare-and-set of
 * the store with its ledger entry, so of two who race exactly one wins and the ledger says who. What is held
 * in memory (who waits, what is open) only saves questions to the store; it decides nothing.
 *
 * Callers have authenticated whoever asks; here is checked that it is *their* request, and that nobody
 * decides on their own.
 */
import { Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Approval, ApprovalState } from '../../shared/wire.ts'
import type { ApprovalEntry, Entry } from '../ledger/entry.ts'
import type { StoredApproval, Store, Transition } from '../store/store.ts'
import { claimRefusal, mayBecome } from './states.ts'
import { createWaiters } from './waiters.ts'

/** How long a request waits for a decision by default, in milliseconds. */
export const DEFAULT_PENDING_MS = 15 * 60_000
/** How long an approval waits to be used, in milliseconds. */
export const APPROVED_MS = 15 * 60_000
/** Undecided requests of one pod at most. */
export const MAX_PENDING_PER_POD = 100
/** Undecided requests of all pods at most: a bound on memory, and on what reviewers can be flooded with. */
export const MAX_PENDING = 5_000
/** How often overdue requests are looked for, and how soon a waiter looks again by itself, in milliseconds. */
const LOOK_AGAIN_MS = 1_000
/** Name under which the broker itself acts in the ledger. */
const BROKER_ACTOR = 'nestgate-broker'
/** Rows of one page when the store is read through at start. */
const RECOVERY_PAGE = 10_000

/** A request to be held; `id` is its request id, the one its ledger entries carry. */
export type HoldFacts = Omit<
  Approval,
  'state' | 'createdAt' | 'expiresAt' | 'decidedAt' | 'reason' | 'reviewer'
> & {
  /** Instance id of the asking process: only it may claim. */
  readonly instanceId: string
  readonly podUid: string
}

/** Who claims what. */
export interface Claim {
  readonly id: string
  readonly digest: string
  readonly instanceId: string
  readonly podUid: string
}

/** A person's decision. */
export interface Review {
  readonly id: string
  /** Name of the authenticated person. */
  readonly reviewer: string
  readonly approve: boolean
  readonly reason: string
}

/** The held requests. Every method rejects with a {@link Fault} when the store fails. */
export interface Approvals {
  /** Stores a request with its entries and the one that it is now PENDING; refuses with `approvals_full`. */
  hold(facts: HoldFacts, entries: readonly Entry[]): Promise<StoredApproval | Refusal>
  /** A pod's own request: at once when it is not PENDING, else when that changes, `waitMs` have passed, or `signal` aborts. */
  waitFor(
    id: string,
    podUid: string,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<StoredApproval | Refusal>
  /** APPROVED → EXECUTING, for exactly one caller, who must then call {@link Approvals.finish}. */
  claim(claim: Claim): Promise<StoredApproval | Refusal>
  /** EXECUTING → the outcome; anything else is left as it is and logged. */
  finish(id: string, outcome: 'SUCCEEDED' | 'FAILED' | 'UNKNOWN'): Promise<void>
  decide(review: Review): Promise<StoredApproval | Refusal>
  /** PENDING → CANCELLED, by the pod that asked. */
  cancel(id: string, podUid: string): Promise<StoredApproval | Refusal>
  get(id: string): Promise<StoredApproval | Refusal>
  /** Newest first; all states when `states` is empty. */
  list(states: readonly ApprovalState[], limit: number): Promise<readonly StoredApproval[]>
  /** To be called once, before any other method: what was EXECUTING when the last broker ended becomes UNKNOWN, with an outcome entry. */
  recover(): Promise<void>
  /** Stops the timer and wakes all who wait. */
  close(): void
}

/** What held requests need. */
export interface ApprovalsDeps {
  readonly store: Store
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  /** See {@link DEFAULT_PENDING_MS}. */
  readonly pendingMs?: number
}

/** Makes the held requests of a store and starts looking for overdue ones. */
export function createApprovals(deps: ApprovalsDeps): Approvals {
  return new HeldRequests(deps)
}

/** What a transition adds to the new state itself. */
type Change = Pick<Transition, 'reviewer' | 'reason' | 'expiresAtMs' | 'also'> & {
  readonly actor: string
  /** Reason of the ledger entry. */
  readonly why: string
}

class HeldRequests implements Approvals {
  readonly #store: Store
  readonly #log: Logger
  readonly #now: () => number
  readonly #pendingMs: number
  readonly #waiters = createWaiters()
  /** Requests that can still expire: where they come from and when. */
  readonly #open = new Map<string, { podUid: string; pending: boolean; expiresAtMs: number }>()
  readonly #timer: NodeJS.Timeout
  #sweeping = false
  #closed = false

  constructor({ store, log, now, pendingMs = DEFAULT_PENDING_MS }: ApprovalsDeps) {
    this.#store = store
    this.#log = log
    this.#now = now
    this.#pendingMs = pendingMs
    this.#timer = setInterval(() => void this.#sweep(), LOOK_AGAIN_MS)
    this.#timer.unref()
  }

  async hold(facts: HoldFacts, entries: readonly Entry[]): Promise<StoredApproval | Refusal> {
    const pending = [...this.#open.values()].filter((one) => one.pending)
    const ofPod = pending.filter(({ podUid }) => podUid === facts.podUid).length
    if (ofPod >= MAX_PENDING_PER_POD || pending.length >= MAX_PENDING) {
      return refuse('approvals_full', `${ofPod} of this pod, ${pending.length} in all`)
    }
    const nowMs = this.#now()
    const approval: StoredApproval = {
      ...facts,
      version: 1,
      state: 'PENDING',
      createdAt: new Date(nowMs).toISOString(),
      expiresAt: new Date(nowMs + this.#pendingMs).toISOString(),
    }
    // Noted before it is stored, so that requests which arrive together are counted.
    this.#note(approval)
    try {
      const held = entryOf(
        approval,
        'RECEIVED',
        'PENDING',
        facts.subject,
        'policy holds the request',
      )
      await this.#store.hold(approval, [...entries, held])
    } catch (error) {
      this.#open.delete(approval.id)
      throw error
    }
    return approval
  }

  async waitFor(
    id: string,
    podUid: string,
    waitMs: number,
    signal: AbortSignal,
  ): Promise<StoredApproval | Refusal> {
    const endMs = performance.now() + waitMs
    for (;;) {
      const approval = await this.#own(id, podUid)
      const leftMs = endMs - performance.now()
      if (isRefusal(approval) || approval.state !== 'PENDING') return approval
      if (leftMs <= 0 || signal.aborted || this.#closed) return approval
      await this.#waiters.wait(id, Math.min(leftMs, LOOK_AGAIN_MS), signal)
    }
  }

  async claim(claim: Claim): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.#own(claim.id, claim.podUid)
      if (isRefusal(approval)) return approval
      if (approval.digest !== claim.digest || approval.instanceId !== claim.instanceId) {
        return refuse('approval_mismatch')
      }
      const refusal = claimRefusal(approval.state, approval.reason)
      if (refusal !== undefined) return refusal
      const actor = approval.subject
      const claimed = await this.#move(approval, 'EXECUTING', { actor, why: 'claimed' })
      if (claimed !== undefined) return claimed
    }
  }

  async finish(id: string, outcome: 'SUCCEEDED' | 'FAILED' | 'UNKNOWN'): Promise<void> {
    const approval = await this.#store.approval(id)
    const change = { actor: BROKER_ACTOR, why: 'the request ended' }
    if (approval !== undefined && mayBecome(approval.state, outcome)) {
      if ((await this.#move(approval, outcome, change)) !== undefined) return
    }
    this.#log.warn(
      { id, outcome, state: approval?.state },
      'a request ended that was not executing',
    )
  }

  async decide({ id, reviewer, approve, reason }: Review): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.get(id)
      if (isRefusal(approval)) return approval
      if (sameName(reviewer, approval.subject)) return refuse('self_approval')
      if (approval.state !== 'PENDING') {
        return refuse('approval_not_pending', `it is ${approval.state}`)
      }
      const decided = await this.#move(approval, approve ? 'APPROVED' : 'DENIED', {
        ...{ actor: reviewer, why: reason, reviewer, reason },
        ...(approve ? { expiresAtMs: this.#now() + APPROVED_MS } : {}),
      })
      if (decided !== undefined) return decided
    }
  }

  async cancel(id: string, podUid: string): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.#own(id, podUid)
      if (isRefusal(approval)) return approval
      if (approval.state !== 'PENDING') {
        return refuse('approval_not_pending', `it is ${approval.state}`)
      }
      const change = { actor: approval.subject, why: 'the client left' }
      const cancelled = await this.#move(approval, 'CANCELLED', change)
      if (cancelled !== undefined) return cancelled
    }
  }

  async get(id: string): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.#store.approval(id)
      if (approval === undefined) return refuse('request_unknown')
      const fresh = await this.#expire(approval)
      if (fresh !== undefined) return fresh
    }
  }

  async list(states: readonly ApprovalState[], limit: number): Promise<readonly StoredApproval[]> {
    const rows = await this.#store.approvals(states, limit)
    const fresh = await Promise.all(rows.map(async (row) => (await this.#expire(row)) ?? row))
    return fresh.filter(({ state }) => states.length === 0 || states.includes(state))
  }

  async recover(): Promise<void> {
    for (;;) {
      const left = await this.#store.approvals(['EXECUTING'], RECOVERY_PAGE)
      for (const approval of left) await this.#giveUp(approval)
      if (left.length < RECOVERY_PAGE) break
    }
    const open = await this.#store.approvals(['PENDING', 'APPROVED'], RECOVERY_PAGE)
    for (const approval of open) this.#note(approval)
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#timer)
    this.#waiters.wakeAll()
  }

  /** What a broker that ended left behind: nobody knows what became of the request, and it is never repeated. */
  async #giveUp(approval: StoredApproval): Promise<void> {
    await this.#move(approval, 'UNKNOWN', {
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

  /** A pod's own request; another pod's looks as if it did not exist. */
  async #own(id: string, podUid: string): Promise<StoredApproval | Refusal> {
    const approval = await this.get(id)
    if (isRefusal(approval) || approval.podUid === podUid) return approval
    return refuse('request_unknown')
  }

  /** The request as it is now, EXPIRED if it is overdue; undefined when somebody else changed it meanwhile. */
  async #expire(approval: StoredApproval): Promise<StoredApproval | undefined> {
    const overdue = Date.parse(approval.expiresAt) <= this.#now()
    if (!overdue || !mayBecome(approval.state, 'EXPIRED')) return approval
    const why = approval.state === 'PENDING' ? 'nobody decided in time' : 'not used in time'
    return this.#move(approval, 'EXPIRED', { actor: BROKER_ACTOR, why })
  }

  /** One compare-and-set with its entry; undefined when it missed. */
  async #move(
    approval: StoredApproval,
    to: ApprovalState,
    { actor, why, ...change }: Change,
  ): Promise<StoredApproval | undefined> {
    const { id, version, state } = approval
    if (!mayBecome(state, to)) throw new Fault('store_failed', `no way from ${state} to ${to}`)
    const entry = entryOf(approval, state, to, actor, why)
    const moved = await this.#store.transition({
      ...{ id, version, to, nowMs: this.#now(), entry },
      ...change,
    })
    if (moved !== undefined) this.#note(moved)
    this.#waiters.wake(id)
    return moved
  }

  /** Keeps the memory of open requests in step. */
  #note(approval: StoredApproval): void {
    const { id, podUid, state } = approval
    if (!mayBecome(state, 'EXPIRED')) this.#open.delete(id)
    else {
      const expiresAtMs = Date.parse(approval.expiresAt)
      this.#open.set(id, { podUid, pending: state === 'PENDING', expiresAtMs })
    }
  }

  async #sweep(): Promise<void> {
    if (this.#sweeping || this.#closed) return
    this.#sweeping = true
    try {
      const nowMs = this.#now()
      const overdue = [...this.#open].filter(([, { expiresAtMs }]) => expiresAtMs <= nowMs)
      for (const [id] of overdue) {
        if (isRefusal(await this.get(id))) this.#open.delete(id)
      }
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'overdue requests could not be expired')
    } finally {
      this.#sweeping = false
    }
  }
}

function entryOf(
  approval: StoredApproval,
  from: string,
  to: ApprovalState,
  actor: string,
  reason: string,
): ApprovalEntry {
  const { id: requestId, cluster } = approval
  return { kind: 'approval', requestId, cluster, from, to, actor, reason }
}

/** Whether two names are one person's; sign-in systems do not agree on case. */
function sameName(a: string, b: string): boolean {
  return a.normalize('NFC').toLowerCase() === b.normalize('NFC').toLowerCase()
}
