/** Which entries an export has: what can be proved begins and ends at checkpoints. */
import { Fault } from '../../../shared/errors.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { tileHashReader } from '../../../shared/transparency/tiles.ts'
import { HASH_BYTES, makeConsistencyProof, readRange } from '../../../shared/transparency/tree.ts'
import type { Checkpoints } from '../../ledger/checkpoints.ts'
import type { Store, StoredCheckpoint } from '../../store/store.ts'
import type { ExportQuery } from '../query.ts'

/** Who signs what the ledger has. */
export type CheckpointSource = Pick<Checkpoints, 'origin' | 'keys' | 'current'>

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

/** Hashes of a tile, one by one. @throws Fault `store_failed` where the tree is not that large */
export async function tileHashes(
  store: Pick<Store, 'tile'>,
  level: number,
  index: number,
  width: number,
): Promise<readonly Buffer[]> {
  const bytes = Buffer.from(await wholeTile(store, level, index, width))
  return Array.from({ length: width }, (_, i) =>
    bytes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES),
  )
}

/** What joins a range to the tree before it: the compact range at `from`, and the proof that the tree of `to` begins with that of `from`. */
export async function joint(
  store: Pick<Store, 'tile'>,
  { from, to }: Range,
): Promise<{ readonly edge: readonly Uint8Array[]; readonly consistency: readonly Uint8Array[] }> {
  const read = tileHashReader(to, (level, index, width) => wholeTile(store, level, index, width))
  const { hashes } = await readRange(from, read)
  return { edge: hashes, consistency: await makeConsistencyProof(from, to, read) }
}

async function wholeTile(
  store: Pick<Store, 'tile'>,
  level: number,
  index: number,
  width: number,
): Promise<Uint8Array> {
  const tile = await store.tile(level, index, width)
  if (tile?.length !== width * HASH_BYTES)
    throw new Fault('store_failed', `tile ${level}/${index} is not whole`)
  return tile
}
