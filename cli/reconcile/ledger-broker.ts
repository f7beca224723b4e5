/** A ledger out of the broker, oldest entries first: its pages are newest first, so a period is asked for in slices. */
import { auditPageSchema } from '../../shared/wire.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import type { BrokerClient } from '../client.ts'
import { noteUnreadable } from './audit-files.ts'
import type { Reading } from './audit-files.ts'
import { readFact } from './ledger-entry.ts'
import type { Clusters, LedgerFact } from './ledger-entry.ts'

/** Entries of one page; the broker's limit. */
const PAGE = 1000
/** Entries of one slice that are held at once, unless they are all of {@link LEAST_MS}. */
const MAX_SLICE = 20_000
/** Shortest, first and longest slice, in milliseconds. */
const LEAST_MS = 1_000
const FIRST_MS = 10 * 60_000
const MOST_MS = 24 * 60 * 60_000

/** Which entries: not before the one, and before the other; milliseconds since the epoch. */
export interface AskedPeriod {
  readonly sinceMs: number
  readonly untilMs: number
}

/** The entries of a period. Rejects with a CallError. */
export async function* brokerFacts(
  client: Pick<BrokerClient, 'get'>,
  clusters: Clusters,
  { sinceMs, untilMs }: AskedPeriod,
  reading: Reading,
): AsyncGenerator<LedgerFact> {
  let [from, span] = [sinceMs, FIRST_MS]
  while (from < untilMs) {
    const to = Math.min(from + span, untilMs)
    const most = span <= LEAST_MS ? Infinity : MAX_SLICE
    const events = await slice(client, clusters, { sinceMs: from, untilMs: to }, most)
    if (events === undefined) {
      span = Math.max(LEAST_MS, span / 2)
      continue
    }
    for (const { seq, entry } of events.reverse()) {
      const fact = readFact(entry, seq, clusters)
      if (fact === undefined) noteUnreadable(reading, `entry ${seq}`)
      else yield fact
    }
    if (events.length < MAX_SLICE / 4) span = Math.min(MOST_MS, span * 2)
    from = to
  }
}

/** @returns undefined where there are more than `most` */
async function slice(
  client: Pick<BrokerClient, 'get'>,
  clusters: Clusters,
  { sinceMs, untilMs }: AskedPeriod,
  most: number,
): Promise<AuditEvent[] | undefined> {
  const query = new URLSearchParams({
    since: new Date(sinceMs).toISOString(),
    until: new Date(untilMs).toISOString(),
    limit: String(PAGE),
  })
  const [cluster = ''] = clusters
  if (clusters.size === 1) query.set('cluster', cluster)
  const events: AuditEvent[] = []
  for (;;) {
    const { items, next } = await client.get(auditPageSchema, 'v1/audit/events', query)
    events.push(...items)
    if (next === undefined) return events
    if (events.length > most) return undefined
    query.set('cursor', next)
  }
}
