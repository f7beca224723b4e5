/** Which entries an export has: what can be proved begins and ends at checkpoints. */
import { createHash } from 'node:crypto'
import { Fault } from '../../../shared/errors.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import type { Store, StoredCheckpoint } from '../../store/store.ts'
import type { ExportQuery } from '../query.ts'

/** Who signs what the ledger has. */
export interface CheckpointSource {
  /** Name of the log, first line of its checkpoints. */
  readonly origin: string
  /** Keys that its checkpoints are verified with (C2SP signed-note). */
  vkeys(): readonly string[]
  /** A checkpoint of all that is committed; makes one where there is none. */
  current(): Promise<StoredCheckpoint>
}

/** Entries from `from` up to, and not with, `to`. */
export interface Range {
  readonly from: number
  readonly to: number
}

/** A range between checkpoints. */
export interface ProvedRange extends Range {
  /** Of size `to`. */
  readonly end: StoredCheckpoint
  /** Of size `from`; absent where that is 0. */
  readonly before?: StoredCheckpoint
}

/** The range that is asked for, as it is. */
export async function plainRange(
  store: Pick<Store, 'head'>,
  { from = 0, to }: Pick<ExportQuery, 'from' | 'to'>,
): Promise<Range | Refusal> {
  const { size } = await store.head()
  if (to !== undefined && to > size) return tooFar('to', size)
  const end = to ?? size
  return from < end ? { from, to: end } : tooFar('from', end)
}

/** The range that is asked for, widened to the checkpoints around it. */
export async function provedRange(
  store: Pick<Store, 'checkpoint' | 'checkpoints'>,
  source: CheckpointSource,
  { from = 0, to }: Pick<ExportQuery, 'from' | 'to'>,
): Promise<ProvedRange | Refusal> {
  const newest = await source.current()
  if (to !== undefined && to > newest.size) return tooFar('to', newest.size)
  const [first] = to === undefined ? [] : await store.checkpoints(to - 1, 1)
  const end = first ?? newest
  if (from >= end.size) return tooFar('from', end.size)
  const before = from === 0 ? undefined : await store.checkpoint(from)
  return before === undefined || before.size === 0
    ? { from: 0, to: end.size, end }
    : { from: before.size, to: end.size, end, before }
}

function tooFar(name: string, size: number): Refusal {
  return refuse('query_invalid', `${name}: the ledger ends at ${size}`)
}

/** Bytes of a hash. */
const HASH_BYTES = 32
/** Hashes of a full tile (C2SP tlog-tiles), and how many levels of the tree one is high. */
export const TILE_WIDTH = 256
const TILE_HEIGHT = 8

/** Hashes of a tile, one by one. @throws Fault `store_failed` where the tree is not that large */
export async function tileHashes(
  store: Pick<Store, 'tile'>,
  level: number,
  index: number,
  width: number,
): Promise<readonly Buffer[]> {
  const tile = await store.tile(level, index, width)
  if (tile?.length !== width * HASH_BYTES)
    throw new Fault('store_failed', `tile ${level}/${index} is not whole`)
  const bytes = Buffer.from(tile)
  return Array.from({ length: width }, (_, i) =>
    bytes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES),
  )
}

/** The compact range of a tree of `size` entries: root of each perfect subtree, largest first. */
export async function compactRange(
  store: Pick<Store, 'tile'>,
  size: number,
): Promise<readonly Buffer[]> {
  const roots: Buffer[] = []
  let start = 0
  for (let height = Math.floor(Math.log2(size)); height >= 0; height -= 1) {
    const width = 2 ** height
    if (size - start < width) continue
    roots.push(await subtreeRoot(store, height, start / width))
    start += width
  }
  return roots
}

/** Root of the perfect subtree over `2 ** height` entries from `index * 2 ** height` on. */
async function subtreeRoot(
  store: Pick<Store, 'tile'>,
  height: number,
  index: number,
): Promise<Buffer> {
  const level = Math.floor(height / TILE_HEIGHT)
  const width = 2 ** (height % TILE_HEIGHT)
  const first = index * width
  const offset = first % TILE_WIDTH
  const hashes = await tileHashes(store, level, Math.floor(first / TILE_WIDTH), offset + width)
  let row = hashes.slice(offset)
  while (row.length > 1) {
    row = row.flatMap((left, i) => {
      const right = row[i + 1]
      return i % 2 === 0 && right !== undefined ? [nodeHash(left, right)] : []
    })
  }
  const [root] = row
  if (root === undefined) throw new Fault('store_failed', 'a subtree without hashes')
  return root
}

/** RFC 6962, 2.1. */
function nodeHash(left: Uint8Array, right: Uint8Array): Buffer {
  return createHash('sha256').update(Buffer.of(1)).update(left).update(right).digest()
}
