/**
 * The stored requests of one process: every change of them is one compare-and-set of the store with its ledger
 * entry, and then told to whom it concerns. What is held in memory (who waits, what is open) only saves
 * questions to the store; it decides nothing but limits.
 */
import { Fault, messageOf } from '../../shared/errors.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import type { ApprovalEntry, Entry } from '../ledger/entry.ts'
import type { Payload, StoredApproval, Transition } from '../store/store.ts'
import { mayBecome } from './states.ts'
import type { ApprovalListener, ApprovalsDeps } from './types.ts'
import { createWaiters } from './waiters.ts'

/** Undecided requests of one pod, or of one direct client, at most. */
export const MAX_PENDING_PER_POD = 100
/** Undecided requests of all at most: a bound on memory, and on what reviewers can be flooded with. */
export const MAX_PENDING = 5_000
/** How often overdue requests are looked for, and how soon a waiter looks again by itself, in milliseconds. */
export const LOOK_AGAIN_MS = 1_000
/** Requests whose last version that was told is remembered, at most. */
const MAX_TOLD = 20_000
/** Name under which the broker itself acts in the ledger. */
export const BROKER_ACTOR = 'nestgate-broker'

/** What a transition adds to the new state itself. */
export type Change = Omit<Transition, 'id' | 'version' | 'to' | 'nowMs' | 'entry'> & {
  readonly actor: string
  /** Reason of the ledger entry. */
  readonly why: string
  /** What a person says with it. */
  readonly says?: NonNullable<ApprovalEntry['review']>
}

/** What else is written in the same transaction, before the entry of the change. */
export interface Written {
  readonly entries: readonly Entry[]
  readonly payloads?: readonly Payload[] | undefined
}

/** A request that can still expire. */
interface Open {
  readonly from: string
  readonly pending: boolean
  readonly expiresAtMs: number
}

export class Records {
  readonly waiters = createWaiters()
  readonly #deps: ApprovalsDeps
  readonly #open = new Map<string, Open>()
  readonly #listeners = new Set<ApprovalListener>()
  /** What was told last of each, the longest ago first. */
  readonly #told = new Map<string, Pick<StoredApproval, 'version' | 'state'>>()

  constructor(deps: ApprovalsDeps) {
    this.#deps = deps
  }

  /** Why there is no room for another undecided request. */
  full(approval: Pick<StoredApproval, 'podUid' | 'callerKey'>): Refusal | undefined {
    const pending = [...this.#open.values()].filter((one) => one.pending)
    const own = pending.filter(({ from }) => from === placeOf(approval)).length
    return own >= MAX_PENDING_PER_POD || pending.length >= MAX_PENDING
      ? refuse('approvals_full', `${own} of this caller, ${pending.length} in all`)
      : undefined
  }

  /** Stores a new one. @returns false when another one of the same digest and caller is PENDING */
  async create(
    approval: StoredApproval,
    why: string,
    { entries, payloads = [] }: Written,
  ): Promise<boolean> {
    // Noted before it is stored, so that requests which arrive together are counted.
    this.note(approval)
    let stored = false
    try {
      const entry = entryOf(approval, 'RECEIVED', approval.state, approval.subject, why)
      stored = await this.#deps.store.hold(approval, [...entries, entry], payloads)
    } finally {
      if (!stored) this.#open.delete(approval.id)
    }
    if (stored) this.#tell('RECEIVED', approval)
    return stored
  }

  /** As it is now: EXPIRED if it is overdue. */
  async get(id: string): Promise<StoredApproval | Refusal> {
    for (;;) {
      const approval = await this.#deps.store.approval(id)
      if (approval === undefined) return refuse('request_unknown')
      const fresh = await this.expire(approval)
      if (fresh !== undefined) return fresh
    }
  }

  /** The request as it is now, EXPIRED if it is overdue; undefined when somebody else changed it meanwhile. */
  async expire(approval: StoredApproval): Promise<StoredApproval | undefined> {
    const overdue = Date.parse(approval.expiresAt) <= this.#deps.now()
    if (!overdue || !mayBecome(approval.state, 'EXPIRED')) return approval
    const why = approval.state === 'PENDING' ? 'nobody decided in time' : 'not used in time'
    return this.move(approval, 'EXPIRED', { actor: BROKER_ACTOR, why })
  }

  /** Like {@link expire} for several; what somebody else changed meanwhile is read again. */
  async expireAll(approvals: readonly StoredApproval[]): Promise<readonly StoredApproval[]> {
    const fresh = approvals.map(async (one) => (await this.expire(one)) ?? this.get(one.id))
    return (await Promise.all(fresh)).filter((one): one is StoredApproval => !isRefusal(one))
  }

  /** One compare-and-set with its entry, to another state or, as a remark, to the same; undefined when it missed. */
  async move(
    approval: StoredApproval,
    to: ApprovalState,
    { actor, why, says, ...change }: Change,
  ): Promise<StoredApproval | undefined> {
    const { id, version, state } = approval
    if (state !== to && !mayBecome(state, to)) {
      throw new Fault('store_failed', `no way from ${state} to ${to}`)
    }
    const entry = {
      ...entryOf(approval, state, to, actor, why),
      ...(says === undefined ? {} : { review: says }),
    }
    const moved = await this.#deps.store.transition({
      ...{ id, version, to, nowMs: this.#deps.now(), entry },
      ...change,
    })
    if (moved !== undefined) {
      this.note(moved)
      this.#tell(state, moved)
    }
    this.waiters.wake(id)
    return moved
  }

  subscribe(listener: ApprovalListener): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  /** Another broker may have changed it: then that is told like a change of one's own, once. Never rejects. */
  async learn(id: string): Promise<void> {
    this.waiters.wake(id)
    try {
      const approval = await this.#deps.store.approval(id)
      const before = this.#told.get(id)
      if (approval === undefined || (before?.version ?? 0) >= approval.version) return
      this.note(approval)
      const first = approval.version === 1 ? 'RECEIVED' : approval.state
      this.#tell(before?.state ?? first, approval, true)
    } catch (error) {
      // whoever waits looks again by himself
      const message = 'a change by another broker could not be read'
      this.#deps.log.warn({ id, error: messageOf(error) }, message)
    }
  }

  /** Remembers what need not be told. */
  known({ id, version, state }: StoredApproval): void {
    this.#told.delete(id)
    this.#told.set(id, { version, state })
    if (this.#told.size <= MAX_TOLD) return
    const oldest = this.#told.keys().next()
    if (oldest.done === false) this.#told.delete(oldest.value)
  }

  /** Keeps the memory of open requests in step. */
  note(approval: StoredApproval): void {
    const { id, state } = approval
    if (mayBecome(state, 'EXPIRED')) {
      const expiresAtMs = Date.parse(approval.expiresAt)
      this.#open.set(id, { from: placeOf(approval), pending: state === 'PENDING', expiresAtMs })
    } else this.#open.delete(id)
  }

  /** Ends what is overdue. */
  async sweep(): Promise<void> {
    const nowMs = this.#deps.now()
    const overdue = [...this.#open].filter(([, { expiresAtMs }]) => expiresAtMs <= nowMs)
    for (const [id] of overdue) {
      const approval = await this.get(id)
      if (isRefusal(approval)) this.#open.delete(id)
      // another broker may have moved it, and then no transition of ours noted it
      else this.note(approval)
    }
  }

  #tell(from: string, approval: StoredApproval, elsewhere = false): void {
    this.known(approval)
    for (const listener of [...this.#listeners]) {
      try {
        listener({ from, approval, elsewhere })
      } catch (error) {
        const { id } = approval
        this.#deps.log.error({ id, error: messageOf(error) }, 'a listener to approvals failed')
      }
    }
  }
}

/** The entry of a change. */
export function entryOf(
  approval: StoredApproval,
  from: string,
  to: string,
  actor: string,
  reason: string,
): ApprovalEntry {
  const { id: requestId, cluster } = approval
  return { kind: 'approval', requestId, cluster, from, to, actor, reason }
}

/** Limits are for pods, whatever tokens their processes send along. */
function placeOf({ podUid, callerKey }: Pick<StoredApproval, 'podUid' | 'callerKey'>): string {
  return podUid === undefined ? `caller ${callerKey}` : `pod ${podUid}`
}
