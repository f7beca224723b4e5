/**
 * `GET /v1/audit/watch`: entries as they are committed, oldest first, as server-sent events whose ids are sequence numbers. Several brokers may write,
 * so it asks the store what is newer. Nothing is left out and nothing doubled: whoever comes again says the last number it has.
 */
import type { Response } from 'express'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import type { WatchQuery } from '../audit/query.ts'
import { BATCH } from '../audit/windows.ts'
import type { Person } from '../identity/people.ts'
import type { EventFilter, Store } from '../store/store.ts'
import { answer } from './answers.ts'
import { createPlaces, hasLeft, sender } from './sending.ts'
import type { Send } from './sending.ts'

/** Watchers at once: each asks the store once a second. */
export const MAX_AUDIT_WATCHERS = 16
/** How often is looked for new entries, in milliseconds. */
const POLL_MS = 1_000
/** How often a sign of life is sent, in milliseconds: more often than what lies between gives up. */
const HEARTBEAT_MS = 15_000

/** What watching needs. */
export interface AuditWatchDeps {
  readonly store: Store
  /** Ends all watches. */
  readonly closed: AbortSignal
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
  readonly pollMs?: number
}

/** Shows the entries that a question asks for, to a person who may read them, until one of both ends. */
export type AuditWatch = (person: Person, query: WatchQuery, response: Response) => Promise<void>

/** Makes the handler; the person has been authorised. It rejects only before the answer has begun. */
export function createAuditWatch(deps: AuditWatchDeps): AuditWatch {
  const places = createPlaces(MAX_AUDIT_WATCHERS)
  return async (person, query, response) => {
    if (hasLeft(response)) return
    if (!places.take(response)) {
      answer(response, refuse('broker_busy', `${MAX_AUDIT_WATCHERS} watchers are there already`))
      return
    }
    const next = await begin(deps.store, person, query)
    if (typeof next !== 'number') {
      answer(response, next)
      return
    }
    if (hasLeft(response)) return
    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'X-Accel-Buffering': 'no' })
    const send = sender(response)
    await send(eventText('start', next - 1, { after: next - 1 }))
    try {
      await follow(deps, person, query.filter, next, send)
      response.end()
    } catch (error) {
      deps.log.error({ error: messageOf(error) }, 'entries could not be shown to a watcher')
      response.destroy()
    }
  }
}

/** Writes down that somebody reads, and what. @returns the first number that is shown */
async function begin(
  store: Store,
  person: Person,
  { filter, after }: WatchQuery,
): Promise<number | Refusal> {
  const { size } = await store.head()
  if (after !== undefined && after >= size)
    return refuse('query_invalid', `after: the ledger has ${size} entries`)
  const next = after === undefined ? size : after + 1
  const query = JSON.stringify({ ...filter, watch: true })
  await store.append([
    {
      ...{ kind: 'system', event: 'audit_read', actor: person.name },
      detail: { query, after: next - 1 },
    },
  ])
  return next
}

async function follow(
  { store, closed, now, pollMs = POLL_MS }: AuditWatchDeps,
  { expiresAtMs = Infinity }: Person,
  filter: EventFilter,
  first: number,
  send: Send,
): Promise<void> {
  let next = first
  let heardMs = now()
  for (;;) {
    const { size } = await store.head()
    while (next < size) {
      const end = Math.min(size, next + BATCH)
      for (const event of await between(store, filter, next, end)) {
        if (!(await send(eventText('entry', event.seq, event)))) return
        heardMs = now()
      }
      next = end
    }
    if (now() - heardMs >= HEARTBEAT_MS) {
      if (!(await send(': alive\n\n'))) return
      heardMs = now()
    }
    if (!(await pause(pollMs, closed)) || now() >= expiresAtMs) return
  }
}

/**
 * Entries of `[from, to)` that match. The search would go on below `from` where too little matches: it is told the
 * earliest time among these entries, which may not be that of the first, so that it looks at no older block.
 */
async function between(
  store: Store,
  filter: EventFilter,
  from: number,
  to: number,
): Promise<readonly AuditEvent[]> {
  const leaves = await store.leaves(from, to - from)
  const times = leaves.filter(({ seq }) => seq < to).map(({ timeUs }) => timeUs)
  if (times.length === 0) return []
  const earliestMs = Math.floor(Math.min(...times) / 1000)
  const sinceMs = Math.max(filter.sinceMs ?? 0, earliestMs)
  const found = await store.events({ ...filter, sinceMs }, to - from, to)
  return found.filter(({ seq }) => seq >= from).toReversed()
}

/** @returns false where it ended early */
function pause(ms: number, closed: AbortSignal): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const end = (): void => {
    clearTimeout(timer)
    resolve(false)
  }
  const timer = setTimeout(() => {
    closed.removeEventListener('abort', end)
    resolve(true)
  }, ms)
  if (closed.aborted) end()
  else closed.addEventListener('abort', end, { once: true })
  return promise
}

/** JSON has no raw line break, so the data is one line. */
function eventText(name: string, id: number, data: object): string {
  return `id: ${id}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`
}
