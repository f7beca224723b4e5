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
/** Entries from one checkpoint line to the next, at least. */
export const CHECKPOINT_DISTANCE = 1024

/** Whose export of what. */
export interface Manifest {
  readonly exporter: string
  /** RFC 3339. */
  readonly time: string
  /** The conditions as they were given; empty for all entries. */
  readonly asked: Readonly<Record<string, string>>
  readonly filter: EventFilter
}

/** Texts of whole lines, a batch each. */
export async function* jsonlLines(
  store: Store,
  source: CheckpointSource,
  range: ProvedRange,
  { exporter, time, asked, filter }: Manifest,
): AsyncGenerator<string> {
  const { from, to } = range
  const isFiltered = Object.keys(asked).length > 0
  yield line({
    ...{ nestgate: 'ledger-export', version: EXPORT_VERSION },
    ...{ origin: source.origin, vkeys: source.vkeys(), from, to },
    ...(isFiltered ? { filter: asked } : {}),
    ...{ exporter, time },
  })
  const leaves = leafReader(store)
  const matches = isFiltered ? matchReader(ascending(store, filter, range)) : undefined
  const checkpoints = checkpointReader(store, range)
  for (let start = from; start < to;) {
    const tile = Math.floor(start / TILE_WIDTH)
    const end = Math.min((tile + 1) * TILE_WIDTH, to)
    const hashes = await tileHashes(store, 0, tile, end - tile * TILE_WIDTH)
    const [shown, matching] = [await leaves(start, end), await matches?.(end)]
    let text = ''
    for (let seq = start; seq < end; seq += 1) {
      const leaf = matching?.has(seq) === false ? undefined : shown.get(seq)
      const hash = hashes[seq - tile * TILE_WIDTH]?.toString('base64')
      text += line(
        leaf === undefined ? { seq, hash } : { seq, hash, leaf: leaf.toString('base64') },
      )
      const checkpoint = await checkpoints(seq + 1)
      if (checkpoint !== undefined) text += line({ checkpoint: checkpoint.note })
    }
    yield text
    start = end
  }
  yield line(await lastLine(store, range))
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
  const after = async (size: number): Promise<StoredCheckpoint | undefined> => {
    const [next] = await store.checkpoints(size + CHECKPOINT_DISTANCE - 1, 1)
    return next
  }
  let next: Promise<StoredCheckpoint | undefined> | undefined
  return async (size) => {
    next ??= after(from)
    const checkpoint = await next
    if (checkpoint?.size !== size || size >= to) return undefined
    next = after(size)
    return checkpoint
  }
}
