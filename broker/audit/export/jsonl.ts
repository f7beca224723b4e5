/**
 * The export that is evidence (docs/evidence.md): a manifest, one line for each entry of the range with the bytes as they are stored, the
 * checkpoints between, and a last line without which it is not whole. An entry that the filter leaves out, or whose bytes are gone,
 * stands by its hash, so that the whole range can be proved.
 */
import { TILE_WIDTH } from '../../../shared/transparency/tree.ts'
import type { AuditEvent } from '../../../shared/wire.ts'
import type { EventFilter, Store, StoredCheckpoint } from '../../store/store.ts'
import { ascending } from '../windows.ts'
import { joint, tileHashes } from './range.ts'
import type { CheckpointSource, ProvedRange, Range } from './range.ts'

/** Version of the format. */
export const EXPORT_VERSION = 1
/** Of each so many entries the first checkpoint is shown. */
export const CHECKPOINT_BLOCK = 1024

/** Whose export of what. */
export interface Manifest {
  readonly exporter: string
  /** RFC 3339. */
  readonly time: string
  /** The conditions as they were given; empty for all entries. */
  readonly asked: Readonly<Record<string, string>>
  readonly filter: EventFilter
  /** What is behind this entry only, without the first line: of an export that broke off. */
  readonly after?: number | undefined
}

/** Texts of whole lines, a batch each. The same range has the same lines behind the first one, whenever it is asked for, until retention removes bytes. */
export async function* jsonlLines(
  store: Store,
  source: CheckpointSource,
  range: ProvedRange,
  manifest: Manifest,
): AsyncGenerator<string> {
  const { asked, filter, after } = manifest
  if (after === undefined) yield firstLine(source, range, manifest)
  yield* bodyLines(store, range, after, Object.keys(asked).length > 0 ? filter : undefined)
  yield line(await lastLine(store, range))
}

function firstLine(
  { origin, keys }: CheckpointSource,
  { from, to }: Range,
  { exporter, time, asked }: Manifest,
): string {
  return line({
    ...{ nestgate: 'ledger-export', version: EXPORT_VERSION },
    ...{ origin, vkeys: keys.map(({ vkey }) => vkey), from, to },
    ...(Object.keys(asked).length > 0 ? { filter: asked } : {}),
    ...{ exporter, time },
  })
}

/** The lines of entries and checkpoints, behind `after` only where that is given. */
async function* bodyLines(
  store: Store,
  range: ProvedRange,
  after: number | undefined,
  filter: EventFilter | undefined,
): AsyncGenerator<string> {
  const { from, to } = range
  const first = after === undefined ? from : after + 1
  const leaves = leafReader(store)
  const matches =
    filter === undefined ? undefined : matchReader(ascending(store, filter, { from: first, to }))
  const checkpoints = checkpointReader(store, range)
  const behind = first === from ? undefined : await checkpoints(first)
  if (behind !== undefined) yield line({ checkpoint: behind.note })
  for (let start = first; start < to;) {
    const tile = Math.floor(start / TILE_WIDTH)
    const end = Math.min((tile + 1) * TILE_WIDTH, to)
    const hashes = await tileHashes(store, 0, tile, end - tile * TILE_WIDTH)
    const [shown, matching] = [await leaves(start, end), await matches?.(end)]
    let text = ''
    for (let seq = start; seq < end; seq += 1) {
      const leaf = matching?.has(seq) === false ? undefined : shown.get(seq)
      text += entryLine(seq, hashes[seq - tile * TILE_WIDTH], leaf)
      const checkpoint = await checkpoints(seq + 1)
      if (checkpoint !== undefined) text += line({ checkpoint: checkpoint.note })
    }
    yield text
    start = end
  }
}

function entryLine(seq: number, hash: Buffer | undefined, leaf: Buffer | undefined): string {
  const proved = { seq, hash: hash?.toString('base64') }
  return line(leaf === undefined ? proved : { ...proved, leaf: leaf.toString('base64') })
}

async function lastLine(store: Store, { from, to, end, before }: ProvedRange): Promise<object> {
  const whole = { end: true, count: to - from, checkpoint: end.note }
  if (before === undefined) return whole
  const { edge, consistency } = await joint(store, { from, to })
  return {
    ...whole,
    before: { checkpoint: before.note, consistency: consistency.map(toBase64) },
    edge: edge.map(toBase64),
  }
}

function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64')
}

function line(value: object): string {
  return `${JSON.stringify(value)}\n`
}

/** Reads the bytes that are there; does not ask again for what it knows to be gone. */
function leafReader(
  store: Pick<Store, 'leaves'>,
): (start: number, end: number) => Promise<ReadonlyMap<number, Buffer>> {
  let nextThere = 0
  return async (start, end) => {
    const shown = new Map<number, Buffer>()
    let next = Math.max(start, nextThere)
    while (next < end) {
      const found = await store.leaves(next, end - next)
      const last = found.at(-1)
      if (last === undefined) break
      for (const { seq, bytes } of found) if (seq < end) shown.set(seq, Buffer.from(bytes))
      const [first] = found
      if (first !== undefined && first.seq >= end) nextThere = first.seq
      next = last.seq + 1
    }
    return shown
  }
}

/** Gives the numbers that match below `end`; to be asked for ever higher ones. */
function matchReader(
  batches: AsyncGenerator<readonly AuditEvent[]>,
): (end: number) => Promise<ReadonlySet<number>> {
  let ahead: readonly number[] = []
  let isOver = false
  return async (end) => {
    const below = new Set<number>()
    for (;;) {
      for (const seq of ahead) if (seq < end) below.add(seq)
      ahead = ahead.filter((seq) => seq >= end)
      if (ahead.length > 0 || isOver) return below
      const batch = await batches.next()
      if (batch.done === true) isOver = true
      else ahead = batch.value.map(({ seq }) => seq)
    }
  }
}

/** Gives the checkpoint of exactly that size, where it is one that is shown; to be asked for ever larger ones. */
function checkpointReader(
  store: Pick<Store, 'checkpoints'>,
  { from, to }: Range,
): (size: number) => Promise<StoredCheckpoint | undefined> {
  const firstAbove = async (size: number): Promise<StoredCheckpoint | undefined> => {
    const [found] = await store.checkpoints(size, 1)
    return found !== undefined && found.size < to ? found : undefined
  }
  let hasBegun = false
  let next: StoredCheckpoint | undefined
  return async (size) => {
    if (!hasBegun) next = await firstAbove(Math.max(from, blockEnd(size) - CHECKPOINT_BLOCK))
    hasBegun = true
    while (next !== undefined && next.size < size) next = await firstAbove(blockEnd(next.size))
    return next?.size === size ? next : undefined
  }
}

/** Largest size that belongs to the same block. */
function blockEnd(size: number): number {
  return Math.ceil(size / CHECKPOINT_BLOCK) * CHECKPOINT_BLOCK
}
