/**
 * From conditions on ledger entries to SQL. Values are always bound, never spliced in; the text of the
 * statement depends only on which conditions are given.
 *
 * SQLite keeps no statistics of ours, so which index leads is decided here: the most selective condition
 * given, by the order of {@link CONDITIONS}. The others are kept from an index with unary `+`. Rows then
 * come newest first straight from that index, without sorting.
 */
import type { EventFilter } from '../store.ts'

/** A statement and what to bind to it. */
export interface Query {
  readonly sql: string
  readonly values: readonly (string | number)[]
}

interface Condition {
  readonly key: keyof EventFilter
  readonly column: string
  /** False where schema.ts has no index for the column. */
  readonly indexed?: false
  /** The condition of a partial index, and whether a value meets it; other values are frequent and go without index. */
  readonly partial?: { readonly sql: string; readonly holds: (value: string | number) => boolean }
}

const READ_VERBS: readonly (string | number)[] = ['get', 'list', 'watch']
const REQUEST_KINDS: readonly (string | number)[] = ['intent', 'outcome']

/** Most selective first. */
const CONDITIONS: readonly Condition[] = [
  { key: 'requestId', column: 'request_id' },
  { key: 'reviewer', column: 'reviewer' },
  { key: 'podUid', column: 'pod_uid' },
  { key: 'name', column: 'name' },
  { key: 'agent', column: 'agent' },
  { key: 'subject', column: 'subject', indexed: false },
  { key: 'exe', column: 'exe', indexed: false },
  {
    key: 'effect',
    column: 'effect',
    partial: { sql: "effect <> 'allow'", holds: (value) => value !== 'allow' },
  },
  {
    key: 'status',
    column: 'status',
    partial: {
      sql: 'status >= 400',
      holds: (value) => typeof value === 'number' && value >= 400,
    },
  },
  {
    key: 'kind',
    column: 'kind',
    partial: {
      sql: "kind NOT IN ('intent', 'outcome')",
      holds: (value) => !REQUEST_KINDS.includes(value),
    },
  },
  {
    key: 'verb',
    column: 'verb',
    partial: {
      sql: "verb NOT IN ('get', 'list', 'watch')",
      holds: (value) => !READ_VERBS.includes(value),
    },
  },
  { key: 'resource', column: 'resource', indexed: false },
  { key: 'namespace', column: 'namespace', indexed: false },
  { key: 'cluster', column: 'cluster', indexed: false },
]

/** Conditions on what an entry has several of, each in a table of its own; the first that is given leads. */
const LINKS = [
  { key: 'ancestor', table: 'ledger_ancestor', column: 'agent' },
  { key: 'rule', table: 'ledger_rule', column: 'rule' },
] as const

/** Microseconds in a millisecond. */
export const US_PER_MS = 1000

/**
 * The statement for the newest entries that match.
 *
 * @param bounds - `lowest`: no entry with a lower sequence number can match; `before`: only entries with a lower one
 */
export function eventsQuery(
  filter: EventFilter,
  limit: number,
  bounds: { readonly lowest?: number | undefined; readonly before?: number | undefined },
): Query {
  const terms: string[] = []
  const values: (string | number)[] = []
  const add = (term: string, value: string | number): void => {
    terms.push(term)
    values.push(value)
  }
  const leading = addLinks(filter, add)
  addConditions(filter, leading === undefined, terms, add)
  if (filter.sinceMs !== undefined) add('l.time_us >= ?', filter.sinceMs * US_PER_MS)
  if (filter.untilMs !== undefined) add('l.time_us < ?', filter.untilMs * US_PER_MS)
  const seq = leading === undefined ? 'l.seq' : 'r.seq'
  if (bounds.lowest !== undefined) add(`${seq} >= ?`, bounds.lowest)
  if (bounds.before !== undefined) add(`${seq} < ?`, bounds.before)
  const from =
    leading === undefined
      ? 'ledger AS l'
      : `${leading.table} AS r CROSS JOIN ledger AS l ON l.seq = r.seq`
  const where = terms.length === 0 ? '' : `WHERE ${terms.join(' AND ')}`
  return {
    sql: `SELECT l.seq, l.time_us, l.kind, l.request_id, l.leaf FROM ${from} ${where} ORDER BY ${seq} DESC LIMIT ?`,
    values: [...values, limit],
  }
}

/** The first of {@link LINKS} that is given leads, as `r`; the others are looked up for each row. */
function addLinks(
  filter: EventFilter,
  add: (term: string, value: string) => void,
): (typeof LINKS)[number] | undefined {
  let leading: (typeof LINKS)[number] | undefined
  for (const link of LINKS) {
    const value = filter[link.key]
    if (value === undefined) continue
    const own = `${link.column} = ?`
    if (leading === undefined) add(`r.${own}`, value)
    else add(`EXISTS (SELECT 1 FROM ${link.table} AS o WHERE o.${own} AND o.seq = l.seq)`, value)
    leading ??= link
  }
  return leading
}

function addConditions(
  filter: EventFilter,
  mayLead: boolean,
  terms: string[],
  add: (term: string, value: string | number) => void,
): void {
  let led = !mayLead
  for (const { key, column, indexed, partial } of CONDITIONS) {
    const value = filter[key]
    if (value === undefined) continue
    const leads = !led && indexed !== false && (partial?.holds(value) ?? true)
    add(leads ? `l.${column} = ?` : `+l.${column} = ?`, value)
    if (!leads) continue
    led = true
    if (partial !== undefined) terms.push(`l.${partial.sql}`)
  }
}
