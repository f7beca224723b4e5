/**
 * Search: the newest entries with all terms that are asked for. Blocks of 1,024 entries are visited from the newest to
 * the oldest; in each, the postings of the terms are intersected. What a question costs thus depends on how many blocks
 * its rarest leading term is in, not on how many entries there are. The block that is not full yet has no postings:
 * its entries are matched one by one, and remembered.
 */
import type { Term } from '../../ledger/terms.ts'
import type { EventFilter, TermField } from '../store.ts'
import { bytesOf, numberOf, query, queryOne, textOf } from '../steps.ts'
import type { Dialect, Row, Work } from '../steps.ts'
import { storedTerms } from './end.ts'
import {
  BLOCK_ENTRIES,
  decodePosting,
  intersect,
  offsetsDown,
  unite,
  wholeBlock,
} from './postings.ts'

/** Microseconds in a millisecond. */
const US_PER_MS = 1000
/** Blocks that are visited at once: few first, as most questions end soon. */
const FIRST_BLOCKS = 16
const MAX_BLOCKS = 1024
/** Entries that are read at once. */
const MAX_ROWS = 256

/** Most selective first: the first that is given, with one value, leads. */
const FIELDS: readonly TermField[] = [
  ...(['requestId', 'reviewer', 'podUid', 'name', 'event', 'reason', 'ancestor', 'agent'] as const),
  ...(['process', 'subject', 'exe', 'rule', 'action', 'effect', 'status', 'verb'] as const),
  ...(['resource', 'namespace', 'cluster', 'kind'] as const),
]

/** Terms of which an entry must have one. */
type AnyOf = readonly Term[]

/** Terms of the entries of the open block, as far as they were read; one for each reader. */
export class Tail {
  #first = 0
  #entries: { readonly timeUs: number; readonly keys: ReadonlySet<string> }[]

  constructor() {
    this.#entries = []
  }

  /** Reads what is new. */
  *read(db: Dialect['db'], size: number): Work<void> {
    const first = size - (size % BLOCK_ENTRIES)
    if (first !== this.#first) {
      this.#first = first
      this.#entries = []
    }
    const next = first + this.#entries.length
    if (next >= size) return
    const rows = yield* query(
      db
        .selectFrom('ledger')
        .select(['time_us', 'leaf'])
        .where('seq', '>=', next)
        .where('seq', '<', size)
        .orderBy('seq'),
    )
    for (const row of rows) {
      const keys = storedTerms(bytesOf(row, 'leaf')).map(keyOf)
      this.#entries.push({ timeUs: numberOf(row, 'time_us'), keys: new Set(keys) })
    }
  }

  /** Sequence numbers below `before` of what matches, the newest first. */
  *matches(groups: readonly AnyOf[], times: Times, before: number): Generator<number> {
    const wanted = groups.map((group) => group.map(keyOf))
    for (let index = this.#entries.length - 1; index >= 0; index -= 1) {
      const entry = this.#entries[index]
      if (entry === undefined || this.#first + index >= before) continue
      const isIn = times.holds(entry.timeUs)
      if (isIn && wanted.every((keys) => keys.some((key) => entry.keys.has(key))))
        yield this.#first + index
    }
  }
}

/** The times that are asked for. */
class Times {
  readonly fromUs: number
  readonly untilUs: number

  constructor({ sinceMs = -Infinity, untilMs = Infinity }: EventFilter) {
    this.fromUs = sinceMs * US_PER_MS
    this.untilUs = untilMs * US_PER_MS
  }

  get bounded(): boolean {
    return this.fromUs !== -Infinity || this.untilUs !== Infinity
  }

  holds(timeUs: number): boolean {
    return timeUs >= this.fromUs && timeUs < this.untilUs
  }
}

/**
 * The newest entries that match.
 *
 * @param before - only entries with a lower sequence number
 * @returns rows with `seq`, `time_us` and `leaf`
 */
export function* search(
  dialect: Dialect,
  tail: Tail,
  { filter, limit, before }: { filter: EventFilter; limit: number; before: number | undefined },
): Work<readonly Row[]> {
  const { db } = dialect
  const head = yield* queryOne(
    db.selectFrom('ledger_head').select(['size', 'first_seq']).where('id', '=', 1),
  )
  const size = numberOf(head, 'size')
  const upper = Math.min(before ?? size, size)
  const groups = yield* groupsOf(db, filter)
  const times = new Times(filter)
  const found = new Found(db, times, limit)

  yield* tail.read(db, size)
  for (const seq of tail.matches(groups, times, upper)) {
    if (yield* found.add(seq)) return found.rows
  }
  const first = Math.floor(numberOf(head, 'first_seq') / BLOCK_ENTRIES)
  const full = Math.ceil(Math.min(upper, size - (size % BLOCK_ENTRIES)) / BLOCK_ENTRIES)
  const lowest = Math.max(first, yield* lowestBlock(db, times, full))
  let above = Math.min(full, (yield* highestBlock(db, times, full)) + 1)
  for (let count = FIRST_BLOCKS; above > lowest; count = Math.min(count * 4, MAX_BLOCKS)) {
    const visited = yield* visit(db, groups, times, { lowest, above, count })
    for (const [block, map] of visited.maps) {
      for (const offset of offsetsDown(map)) {
        const seq = block * BLOCK_ENTRIES + offset
        if (seq < upper && (yield* found.add(seq))) return found.rows
      }
    }
    above = visited.next
  }
  yield* found.flush()
  return found.rows
}

/** The first block that can have something of the times asked for: the highest time so far never falls, whatever the clock does. */
function* lowestBlock(db: Dialect['db'], { fromUs }: Times, full: number): Work<number> {
  if (fromUs === -Infinity) return 0
  const row = yield* queryOne(
    db
      .selectFrom('ledger_block')
      .select('block')
      .where('peak_us', '>=', fromUs)
      .orderBy('peak_us')
      .orderBy('block')
      .limit(1),
  )
  return row === undefined ? full : numberOf(row, 'block')
}

/** The last one. */
function* highestBlock(db: Dialect['db'], { untilUs }: Times, full: number): Work<number> {
  if (untilUs === Infinity) return full
  const row = yield* queryOne(
    db
      .selectFrom('ledger_block')
      .select('block')
      .where('min_us', '<', untilUs)
      .orderBy('block', 'desc')
      .limit(1),
  )
  return row === undefined ? -1 : numberOf(row, 'block')
}

/** Collects rows until there are enough. */
class Found {
  readonly rows: Row[] = []
  readonly #db: Dialect['db']
  readonly #times: Times
  readonly #limit: number
  #waiting: number[]

  constructor(db: Dialect['db'], times: Times, limit: number) {
    this.#db = db
    this.#times = times
    this.#limit = limit
    this.#waiting = []
  }

  /** @returns true when there are enough */
  *add(seq: number): Work<boolean> {
    this.#waiting.push(seq)
    const missing = this.#limit - this.rows.length
    if (this.#waiting.length >= Math.min(missing, MAX_ROWS)) yield* this.flush()
    return this.rows.length >= this.#limit
  }

  *flush(): Work<void> {
    if (this.#waiting.length === 0) return
    const rows = yield* query(
      this.#db
        .selectFrom('ledger')
        .select(['seq', 'time_us', 'leaf'])
        .where('seq', 'in', this.#waiting)
        .orderBy('seq', 'desc'),
    )
    this.#waiting = []
    for (const row of rows) if (this.#times.holds(numberOf(row, 'time_us'))) this.rows.push(row)
  }
}

interface Blocks {
  readonly lowest: number
  /** Blocks below this one. */
  readonly above: number
  readonly count: number
}

interface Visited {
  /** Blocks, the newest first, with the entries that can match. */
  readonly maps: readonly (readonly [number, Uint8Array])[]
  /** Where to go on: blocks below this one are not visited yet. */
  readonly next: number
}

/** The next blocks that can have something: those of the leading term, or just the next ones. */
function* visit(
  db: Dialect['db'],
  groups: readonly AnyOf[],
  times: Times,
  { lowest, above, count }: Blocks,
): Work<Visited> {
  const leading = groups.findIndex((group) => group.length === 1)
  const [leader] = groups[leading] ?? []
  let maps = new Map<number, Uint8Array>()
  let next = Math.max(lowest, above - count)
  if (leader === undefined) {
    for (let block = above - 1; block >= next; block -= 1) maps.set(block, wholeBlock())
  } else {
    maps = yield* postings(db, leader, { from: lowest, above }, count)
    next = maps.size < count ? lowest : Math.min(...maps.keys())
  }
  for (const [index, group] of groups.entries()) {
    if (index === leading || maps.size === 0) continue
    maps = yield* narrow(db, group, maps)
  }
  if (times.bounded && maps.size > 0) yield* dropOtherTimes(db, times, maps)
  return { maps: [...maps].sort(([one], [other]) => other - one), next }
}

/** What of the maps also has one of the terms. */
function* narrow(
  db: Dialect['db'],
  group: AnyOf,
  maps: ReadonlyMap<number, Uint8Array>,
): Work<Map<number, Uint8Array>> {
  const range = { from: Math.min(...maps.keys()), above: Math.max(...maps.keys()) + 1 }
  const all = new Map<number, Uint8Array>()
  for (const term of group) {
    for (const [block, map] of yield* postings(db, term, range, undefined)) {
      const known = all.get(block)
      all.set(block, known === undefined ? map : unite(known, map))
    }
  }
  const narrowed = new Map<number, Uint8Array>()
  for (const [block, map] of maps) {
    const other = all.get(block)
    if (other !== undefined) narrowed.set(block, intersect(map, other))
  }
  return narrowed
}

/** Postings of a term in a range of blocks, the newest first. */
function* postings(
  db: Dialect['db'],
  [field, value]: Term,
  { from, above }: { from: number; above: number },
  limit: number | undefined,
): Work<Map<number, Uint8Array>> {
  const statement = db
    .selectFrom('ledger_posting')
    .select(['block', 'entries'])
    .where('field', '=', field)
    .where('value', '=', value)
    .where('block', '>=', from)
    .where('block', '<', above)
    .orderBy('block', 'desc')
  const rows = yield* query(limit === undefined ? statement : statement.limit(limit))
  return new Map(
    rows.map((row) => [numberOf(row, 'block'), decodePosting(bytesOf(row, 'entries'))]),
  )
}

/** Takes blocks away none of whose entries are of the times that are asked for. */
function* dropOtherTimes(
  db: Dialect['db'],
  { fromUs, untilUs }: Times,
  maps: Map<number, Uint8Array>,
): Work<void> {
  const rows = yield* query(
    db
      .selectFrom('ledger_block')
      .select(['block', 'min_us', 'max_us'])
      .where('block', '>=', Math.min(...maps.keys()))
      .where('block', '<=', Math.max(...maps.keys())),
  )
  for (const row of rows) {
    if (numberOf(row, 'max_us') < fromUs || numberOf(row, 'min_us') >= untilUs)
      maps.delete(numberOf(row, 'block'))
  }
}

/** What must be there of an entry; names of people are searched by their pseudonyms too. */
function* groupsOf(db: Dialect['db'], filter: EventFilter): Work<readonly AnyOf[]> {
  const groups: AnyOf[] = []
  for (const field of FIELDS) {
    const given = filter[field]
    if (given === undefined) continue
    const value = String(given)
    if (field === 'process') {
      groups.push([
        ['agent', value],
        ['ancestor', value],
      ])
    } else if (field === 'subject' || field === 'reviewer') {
      const names = [value, ...(yield* pseudonymsOf(db, value.toWellFormed()))]
      groups.push(names.map((name): Term => [field, name]))
    } else groups.push([[field, value]])
  }
  return groups
}

/** The pseudonyms that a person's name has in entries. */
export function* pseudonymsOf(db: Dialect['db'], value: string): Work<readonly string[]> {
  const rows = yield* query(
    db.selectFrom('ledger_personal').select('pseudonym').where('value', '=', value),
  )
  return rows.map((row) => textOf(row, 'pseudonym'))
}

function keyOf(term: Term): string {
  return term.join(' ').toWellFormed()
}
