/**
 * Entries as what happened: an intent and its outcome are one request. Each request comes out once where both entries are in the range; memory is
 * bounded however many are under way, at the price of a search for those that are under way for long.
 */
import { partOf } from '../../../shared/audit-text.ts'
import type { AuditEvent } from '../../../shared/wire.ts'
import type { EventFilter } from '../../store/store.ts'
import { ascending } from '../windows.ts'
import type { EventSource } from '../windows.ts'
import type { Range } from './range.ts'

/** Intents that wait for their outcome, at most; each has up to 64 KiB. */
export const MAX_WAITING = 1_024

/** What is exported as one event. */
export type Happening =
  { readonly intent: AuditEvent; readonly outcome?: AuditEvent } | { readonly other: AuditEvent }

/**
 * What happened in a range, in batches, about in the order of its ends. Without conditions an intent waits for its outcome; with conditions, which an outcome
 * seldom meets by itself, each is looked up.
 */
export async function* happenings(
  store: EventSource,
  filter: EventFilter,
  range: Range,
): AsyncGenerator<readonly Happening[]> {
  const pairs = new Pairs(store, range, Object.keys(filter).length > 0)
  for await (const batch of ascending(store, filter, range)) {
    for (const event of batch) await pairs.take(event)
    yield pairs.ready()
  }
  pairs.finish()
  yield pairs.ready()
}

class Pairs {
  readonly #store: EventSource
  readonly #range: Range
  readonly #looksUp: boolean
  readonly #waiting = new Map<string, AuditEvent>()
  /** Requests whose outcome was looked up ahead, with its number, until that has passed. */
  readonly #settled = new Map<string, number>()
  /** Number of the entry that was taken last. */
  #at = -1
  #ready: Happening[] = []

  constructor(store: EventSource, range: Range, looksUp: boolean) {
    this.#store = store
    this.#range = range
    this.#looksUp = looksUp
  }

  async take(event: AuditEvent): Promise<void> {
    if (event.kind === 'intent') await this.#takeIntent(event)
    else if (event.kind === 'outcome') await this.#takeOutcome(event)
    else this.#ready.push({ other: event })
    this.#at = event.seq
  }

  ready(): readonly Happening[] {
    // an outcome that does not meet the conditions never comes: without this all requests would be remembered
    for (const [requestId, seq] of this.#settled)
      if (seq <= this.#at) this.#settled.delete(requestId)
    const ready = this.#ready
    this.#ready = []
    return ready
  }

  /** Whatever still waits has no outcome in this range. */
  finish(): void {
    for (const intent of this.#waiting.values()) this.#ready.push({ intent })
    this.#waiting.clear()
  }

  async #takeIntent(intent: AuditEvent): Promise<void> {
    const { requestId } = intent
    // a refused request has no other trace
    if (requestId === undefined || isRefused(intent)) this.#ready.push({ intent })
    else if (this.#looksUp) await this.#settle(requestId, intent)
    else {
      const earlier = this.#waiting.get(requestId)
      if (earlier !== undefined) this.#ready.push({ intent: earlier })
      this.#waiting.delete(requestId)
      this.#waiting.set(requestId, intent)
      const [oldest] = this.#waiting
      if (this.#waiting.size <= MAX_WAITING || oldest === undefined) return
      this.#waiting.delete(oldest[0])
      await this.#settle(...oldest)
    }
  }

  async #settle(requestId: string, intent: AuditEvent): Promise<void> {
    const { to } = this.#range
    const [outcome] = await this.#store.events({ requestId, kind: 'outcome' }, 1, to)
    const before = outcome?.seq ?? 0
    // a request that was held has an intent for each time it was asked; the outcome is of the last
    const [own] =
      before < intent.seq ? [] : await this.#store.events({ requestId, kind: 'intent' }, 1, before)
    if (outcome === undefined || own?.seq !== intent.seq) {
      this.#ready.push({ intent })
      return
    }
    this.#settled.set(requestId, outcome.seq)
    this.#ready.push({ intent, outcome })
  }

  async #takeOutcome(outcome: AuditEvent): Promise<void> {
    const { requestId } = outcome
    if (requestId === undefined || this.#settled.has(requestId)) return
    const waiting = this.#waiting.get(requestId)
    this.#waiting.delete(requestId)
    const [intent] =
      waiting === undefined
        ? await this.#store.events({ requestId, kind: 'intent' }, 1, outcome.seq)
        : [waiting]
    this.#ready.push(intent === undefined ? { other: outcome } : { intent, outcome })
  }
}

/** Whether the decision alone refused it. */
export function isRefused({ entry }: AuditEvent): boolean {
  return partOf(entry, 'decision')['reason'] !== undefined
}
