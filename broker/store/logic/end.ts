/**
 * The end of the ledger: all that appending needs to know of what is there, so that an entry is hashed once and nothing
 * is written twice. One full tile is written when its last hash is there, one full block when its last entry is.
 */
import { Buffer } from 'node:buffer'
import { termsOf } from '../../ledger/terms.ts'
import type { Term } from '../../ledger/terms.ts'
import {
  appendHashes,
  decodeRange,
  EMPTY_RANGE,
  encodeRange,
  HASH_BYTES,
  leafHash,
  rangeRoot,
  sameHash,
  TILE_WIDTH,
} from '../../../shared/transparency/tree.ts'
import type { CompactRange } from '../../../shared/transparency/tree.ts'
import { fullTileRoot } from '../../../shared/transparency/tiles.ts'
import { Fault } from '../../../shared/errors.ts'
import type { Leaf } from '../calls.ts'
import { bytesOf, insert, numberOf, query, queryOne, tell } from '../steps.ts'
import type { Dialect, Value, Work } from '../steps.ts'
import { BLOCK_ENTRIES, encodePosting } from './postings.ts'

/** What is known of the end; changes as entries are added. */
export class LedgerEnd {
  #range: CompactRange
  /** Leaf hashes since the last full tile. */
  #tile: Uint8Array[]
  /** Terms and times of the entries since the last full block. */
  #block: BlockEntry[]

  constructor(range: CompactRange, tile: readonly Uint8Array[], block: readonly BlockEntry[]) {
    this.#range = range
    this.#tile = [...tile]
    this.#block = [...block]
  }

  get range(): CompactRange {
    return this.#range
  }

  get size(): number {
    return this.#range.size
  }

  /** Adds an entry. @returns what became full by it */
  add(hash: Uint8Array, entry: BlockEntry): { tile?: Uint8Array[]; block?: BlockEntry[] } {
    this.#range = appendHashes(this.#range, [hash])
    this.#tile.push(hash)
    this.#block.push(entry)
    const full: { tile?: Uint8Array[]; block?: BlockEntry[] } = {}
    if (this.#tile.length === TILE_WIDTH) {
      full.tile = this.#tile
      this.#tile = []
    }
    if (this.#block.length === BLOCK_ENTRIES) {
      full.block = this.#block
      this.#block = []
    }
    return full
  }
}

/** What of an entry a block's postings are made of. */
interface BlockEntry {
  readonly terms: readonly Term[]
  readonly timeUs: number
}

/** A full block. */
interface Block {
  readonly number: number
  readonly minUs: number
  readonly maxUs: number
}

/** What one transaction adds. Its end is of no use where the transaction fails. */
export class Growth {
  readonly end: LedgerEnd
  readonly #rows: Value[][] = []
  readonly #tiles: Value[][] = []
  readonly #blocks: Block[] = []
  readonly #postings: Value[][] = []

  constructor(end: LedgerEnd) {
    this.end = end
  }

  /** Adds entries. @returns sequence number of the first */
  add(leaves: readonly Leaf[]): number {
    const first = this.end.size
    for (const { timeUs, bytes, terms } of leaves) {
      const seq = this.end.size
      const hash = leafHash(bytes)
      this.#rows.push([seq, timeUs, hash, bytes])
      const { tile, block } = this.end.add(hash, { terms, timeUs })
      if (tile !== undefined) this.#tiles.push([0, Math.floor(seq / TILE_WIDTH), ...tileOf(tile)])
      if (block !== undefined) this.#closeBlock(Math.floor(seq / BLOCK_ENTRIES), block)
    }
    return first
  }

  /** Writes all that was added. */
  *flush({ db }: Dialect): Work<void> {
    if (this.#rows.length === 0) return
    yield* insert('ledger', ['seq', 'time_us', 'hash', 'leaf'], this.#rows)
    yield* insertBlocks(db, this.#blocks)
    yield* insert('ledger_posting', ['field', 'value', 'block', 'entries'], this.#postings)
    yield* insert('ledger_tile', ['level', 'idx', 'hashes', 'root'], this.#tiles)
    for (const [, index] of this.#tiles) yield* addAbove(db, Number(index))
    const { size, range } = this.end
    yield* tell(
      db
        .updateTable('ledger_head')
        .set({ size, edge: encodeRange(range) })
        .where('id', '=', 1),
    )
  }

  #closeBlock(number: number, block: readonly BlockEntry[]): void {
    const times = block.map(({ timeUs }) => timeUs)
    this.#blocks.push({ number, minUs: Math.min(...times), maxUs: Math.max(...times) })
    const byTerm = new Map<string, { term: Term; offsets: number[] }>()
    for (const [offset, { terms }] of block.entries()) {
      for (const term of terms) {
        // as databases store it: two values that become one must be one posting
        const [field, value] = [term[0], term[1].toWellFormed()]
        const key = `${field} ${value}`
        const known = byTerm.get(key)
        if (known === undefined) byTerm.set(key, { term: [field, value], offsets: [offset] })
        else if (known.offsets.at(-1) !== offset) known.offsets.push(offset)
      }
    }
    // in the order of the key: neighbours of the tree are written together
    const sorted = [...byTerm].sort(([one], [other]) => (one < other ? -1 : 1))
    for (const [, { term, offsets }] of sorted)
      this.#postings.push([...term, number, encodePosting(offsets)])
  }
}

function* insertBlocks(db: Dialect['db'], blocks: readonly Block[]): Work<void> {
  if (blocks.length === 0) return
  const last = yield* queryOne(
    db.selectFrom('ledger_block').select('peak_us').orderBy('block', 'desc').limit(1),
  )
  let peakUs = last === undefined ? -Infinity : numberOf(last, 'peak_us')
  const rows = blocks.map(({ number, minUs, maxUs }) => {
    peakUs = Math.max(peakUs, maxUs)
    return [number, minUs, maxUs, peakUs]
  })
  yield* insert('ledger_block', ['block', 'min_us', 'max_us', 'peak_us'], rows)
}

/** A tile higher up is full when the last of its 256 below is. */
function* addAbove(db: Dialect['db'], index: number): Work<void> {
  let below = index
  for (let level = 1; (below + 1) % TILE_WIDTH === 0; level += 1) {
    const hashes = yield* rootsOf(db, level - 1, below + 1 - TILE_WIDTH, below + 1)
    below = Math.floor(below / TILE_WIDTH)
    const tile = [level, below, ...tileOf(hashes)]
    yield* insert('ledger_tile', ['level', 'idx', 'hashes', 'root'], [tile])
  }
}

/** Hashes of a full tile as they are stored, and the root over them. */
function tileOf(hashes: readonly Uint8Array[]): [Uint8Array, Uint8Array] {
  const bytes = Buffer.concat(hashes)
  return [bytes, fullTileRoot(bytes)]
}

/** Roots of the full tiles `from` to `to` (exclusive) of a level. */
export function* rootsOf(
  db: Dialect['db'],
  level: number,
  from: number,
  to: number,
): Work<readonly Uint8Array[]> {
  const rows = yield* query(
    db
      .selectFrom('ledger_tile')
      .select('root')
      .where('level', '=', level)
      .where('idx', '>=', from)
      .where('idx', '<', to)
      .orderBy('idx'),
  )
  if (rows.length !== to - from)
    throw new Fault('store_failed', `tiles of level ${level} are missing between ${from} and ${to}`)
  return rows.map((row) => bytesOf(row, 'root'))
}

/** The largest end that this program saw committed. */
export interface SeenEnd {
  readonly size: number
  /** The compact range, encoded. */
  readonly edge: Uint8Array
}

/** An end as it is remembered. */
export function seenOf({ size, range }: LedgerEnd): SeenEnd {
  return { size, edge: encodeRange(range) }
}

/** Entries of others that are read one by one to go on from what is known; more are read anew. */
const MAX_CATCH_UP = 4 * BLOCK_ENTRIES

/**
 * Locks the end for this transaction (PostgreSQL; SQLite has one writer) and reads what is not known yet. That the
 * ledger still begins with what was seen is checked each time.
 *
 * @param known - the end after the last transaction, where that was committed; it is changed
 * @param seen - the largest end that was ever seen
 * @throws Fault `ledger_rolled_back` where the database has less than was seen, or something else
 */
export function* lockEnd(
  dialect: Dialect,
  known: LedgerEnd | undefined,
  seen: SeenEnd | undefined,
): Work<LedgerEnd> {
  const { db, name } = dialect
  const statement = db.selectFrom('ledger_head').select(['size', 'edge']).where('id', '=', 1)
  const row = yield* queryOne(name === 'postgres' ? statement.forUpdate() : statement)
  const size = numberOf(row, 'size')
  const edge = bytesOf(row, 'edge')
  if (seen !== undefined && size < seen.size) throw rolledBack(size, seen)
  const end =
    known !== undefined && size - known.size <= MAX_CATCH_UP
      ? yield* catchUp(db, known, size)
      : yield* readEnd(db, size)
  if (Buffer.compare(encodeRange(end.range), edge) !== 0)
    throw new Fault('store_failed', 'the entries are not those that the head of the ledger is of')
  // what was read anew need not begin with what was seen
  if (end !== known && seen !== undefined && seen.size > 0) {
    const then = yield* rangeAt(db, seen.size)
    if (!sameHash(rangeRoot(then), rangeRoot(rangeOf(seen.size, seen.edge))))
      throw rolledBack(size, seen)
  }
  return end
}

function rangeOf(size: number, edge: Uint8Array): CompactRange {
  const range = decodeRange(size, edge)
  if (range === undefined)
    throw new Fault('store_failed', 'the range in the head of the ledger does not fit its size')
  return range
}

function rolledBack(size: number, seen: SeenEnd): Fault {
  return new Fault(
    'ledger_rolled_back',
    `the database has ${size} entries, ${seen.size} were acknowledged: it is an old copy, or another ledger`,
  )
}

/** Goes on from what is known by what others added. */
function* catchUp(db: Dialect['db'], known: LedgerEnd, size: number): Work<LedgerEnd> {
  if (size === known.size) return known
  for (const { hash, entry } of yield* readEntries(db, known.size, size)) known.add(hash, entry)
  return known
}

/** Reads the end of a ledger of so many entries. */
function* readEnd(db: Dialect['db'], size: number): Work<LedgerEnd> {
  const first = size - (size % BLOCK_ENTRIES)
  const read = yield* readEntries(db, first, size)
  const hashes = read.map(({ hash }) => hash)
  // made again from the bytes, for the caller to compare: a tile must not be made of what was put in their place
  const computed = appendHashes(yield* rangeAt(db, first), hashes)
  return new LedgerEnd(
    computed,
    hashes.slice(size - (size % TILE_WIDTH) - first),
    read.map(({ entry }) => entry),
  )
}

function* readEntries(
  db: Dialect['db'],
  from: number,
  to: number,
): Work<readonly { hash: Uint8Array; entry: BlockEntry }[]> {
  if (from === to) return []
  const rows = yield* query(
    db
      .selectFrom('ledger')
      .select(['time_us', 'leaf'])
      .where('seq', '>=', from)
      .where('seq', '<', to)
      .orderBy('seq'),
  )
  if (rows.length !== to - from)
    throw new Fault('store_failed', `entries are missing between ${from} and ${to}`)
  return rows.map((row) => {
    const leaf = bytesOf(row, 'leaf')
    // hashed again: the row's own hash proves nothing of its bytes
    return {
      hash: leafHash(leaf),
      entry: { terms: storedTerms(leaf), timeUs: numberOf(row, 'time_us') },
    }
  })
}

/**
 * The compact range over the first `size` entries, out of tiles and leaf hashes.
 *
 * @param size - at most what the ledger has
 */
export function* rangeAt(db: Dialect['db'], size: number): Work<CompactRange> {
  // from the leaves up: how many hashes of each level of tiles a tree of this size has
  const counts: number[] = []
  for (let count = size; count > 0; count = Math.floor(count / TILE_WIDTH)) counts.push(count)
  const hashes: Uint8Array[] = []
  for (let level = counts.length - 1; level >= 0; level -= 1) {
    const count = counts[level] ?? 0
    const width = count % TILE_WIDTH
    if (width === 0) continue
    const tile = yield* tileHashes(db, level, Math.floor(count / TILE_WIDTH), width)
    hashes.push(...appendHashes(EMPTY_RANGE, tile).hashes)
  }
  return { size, hashes }
}

/** The first `width` hashes of a tile; it need not be full. */
export function* tileHashes(
  db: Dialect['db'],
  level: number,
  index: number,
  width: number,
): Work<readonly Uint8Array[]> {
  const full = yield* queryOne(
    db
      .selectFrom('ledger_tile')
      .select('hashes')
      .where('level', '=', level)
      .where('idx', '=', index),
  )
  if (full !== undefined) return split(bytesOf(full, 'hashes').subarray(0, width * HASH_BYTES))
  const from = index * TILE_WIDTH
  if (level > 0) return yield* rootsOf(db, level - 1, from, from + width)
  const rows = yield* query(
    db
      .selectFrom('ledger')
      .select('hash')
      .where('seq', '>=', from)
      .where('seq', '<', from + width)
      .orderBy('seq'),
  )
  if (rows.length !== width) throw new Fault('store_failed', `entries are missing from ${from} on`)
  return rows.map((row) => bytesOf(row, 'hash'))
}

function split(bytes: Uint8Array): readonly Uint8Array[] {
  const hashes: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += HASH_BYTES)
    hashes.push(bytes.subarray(at, at + HASH_BYTES))
  return hashes
}

/** Terms of a stored entry; one that is not JSON has none, and is still evidence. */
export function storedTerms(leaf: Uint8Array): readonly Term[] {
  try {
    const entry: unknown = JSON.parse(Buffer.from(leaf).toString('utf8'))
    return isRecord(entry) ? termsOf(entry) : []
  } catch {
    return []
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
