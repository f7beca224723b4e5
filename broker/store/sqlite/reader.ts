/** The reading side of the database: its own connection in its own thread, so that a long question about the audit delays no append. */
import type { DatabaseSync } from 'node:sqlite'
import { messageOf } from '../../../shared/errors.ts'
import type { CallResult, ReadCall } from './messages.ts'
import { US_PER_MS, eventsQuery } from './events-query.ts'
import { numberIn } from './schema.ts'

/** Runs batches of calls. */
export interface Reader {
  /** One result per call, in order. Never throws. */
  run(calls: readonly ReadCall[]): readonly CallResult[]
}

/**
 * Prepares to read. Each call sees all that was committed before it.
 *
 * @param db - from `openForReading`
 */
export function createReader(db: DatabaseSync): Reader {
  const read = (call: ReadCall): unknown => {
    if (call.op === 'events') return readEvents(db, call)
    if (call.op === 'clusters') return db.prepare('SELECT settings FROM clusters').all()
    return readApprovals(db, call)
  }
  return {
    run: (calls) =>
      calls.map((call) => {
        try {
          return { ok: true, value: read(call) }
        } catch (error) {
          return { ok: false, message: messageOf(error) }
        }
      }),
  }
}

function readApprovals(db: DatabaseSync, call: ReadCall & { op: 'approvals' }): unknown {
  const { states = [], review, cluster } = call.filter
  const terms: string[] = []
  const values: string[] = []
  if (states.length > 0) terms.push(`state IN (${states.map(() => '?').join(', ')})`)
  values.push(...states)
  for (const [column, value] of [
    ['review', review],
    ['cluster', cluster],
  ] as const) {
    if (value === undefined) continue
    terms.push(`${column} = ?`)
    values.push(value)
  }
  const where = terms.length === 0 ? '' : `WHERE ${terms.join(' AND ')}`
  return db
    .prepare(`SELECT * FROM approvals ${where} ORDER BY created_at DESC, id DESC LIMIT ?`)
    .all(...values, call.limit)
}

function readEvents(db: DatabaseSync, call: ReadCall & { op: 'events' }): unknown {
  const { filter, limit, before } = call
  const lowest = filter.sinceMs === undefined ? undefined : firstSince(db, filter.sinceMs)
  const { sql, values } = eventsQuery(filter, limit, { lowest, before })
  return db.prepare(sql).all(...values)
}

/** The first entry that can be of `sinceMs` or later. `peak_us` never falls along the ledger, so halving finds it without an index. */
function firstSince(db: DatabaseSync, sinceMs: number): number {
  const end = db.prepare('SELECT coalesce(max(seq), -1) + 1 AS n FROM ledger').get()
  const peak = db.prepare('SELECT peak_us FROM ledger WHERE seq = ?')
  let low = 0
  let high = numberIn(end, 'n')
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (numberIn(peak.get(middle), 'peak_us') < sinceMs * US_PER_MS) low = middle + 1
    else high = middle
  }
  return low
}
