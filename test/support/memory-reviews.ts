/** A store in memory with the few calls that an access review makes; names of people stand as pseudonyms in leaves. */
import { createHash } from 'node:crypto'
import { serializeEntry } from '../../broker/ledger/serialize.ts'
import type { Entry } from '../../broker/ledger/entry.ts'
import type {
  EventFilter,
  RecordChange,
  RecordKind,
  Store,
  StoredCheckpoint,
  StoredLeaf,
  StoredRecord,
} from '../../broker/store/store.ts'

/** What of a store is there. */
export type ReviewStore = Pick<
  Store,
  'append' | 'put' | 'record' | 'records' | 'events' | 'leaves' | 'head'
>

/** See the head of the file. */
export interface MemoryLedger extends ReviewStore {
  /** All entries, with names. */
  readonly entries: readonly Entry[]
  /** Writes an entry at a time, in milliseconds since the epoch. */
  write(entry: Entry, atMs: number): void
  /** Writes bytes that no broker of ours has written. */
  writeBytes(bytes: Uint8Array, atMs: number): void
  prune(seq: number): void
  readonly checkpoints: { readonly origin: string; current(): Promise<StoredCheckpoint> }
  /** Awaited before each put. */
  beforePut: (() => Promise<void>) | undefined
}

interface Row extends StoredLeaf {
  readonly entry: Entry | undefined
}

/** @param people - names that are pseudonyms in the leaves */
export function memoryLedger(
  people: readonly string[] = [],
  now: () => number = Date.now,
): MemoryLedger {
  const rows: Row[] = []
  const entries: Entry[] = []
  const records = new Map<string, StoredRecord>()
  let firstSeq = 0
  const add = (entry: Entry | undefined, bytes: Uint8Array, atMs: number): void => {
    if (entry !== undefined) entries.push(entry)
    rows.push({ seq: rows.length, timeUs: atMs * 1000, bytes, entry })
  }
  const write = (entry: Entry, atMs: number): void => {
    let text = Buffer.from(serializeEntry(entry, atMs * 1000)).toString('utf8')
    for (const name of people)
      text = text.replaceAll(JSON.stringify(name), JSON.stringify(pseudonym(name)))
    add(entry, Buffer.from(text), atMs)
  }
  const shown = ({ bytes }: Row): Record<string, unknown> => {
    let text = Buffer.from(bytes).toString('utf8')
    for (const name of people)
      text = text.replaceAll(JSON.stringify(pseudonym(name)), JSON.stringify(name))
    return JSON.parse(text) as Record<string, unknown>
  }
  const keyOf = (kind: RecordKind, id: string): string => `${kind} ${id}`
  const change = ({ kind, id, body }: RecordChange): void => {
    const key = keyOf(kind, id)
    const version = (records.get(key)?.version ?? 0) + 1
    if (body === undefined) records.delete(key)
    else records.set(key, { id, version, body: JSON.parse(JSON.stringify(body)) as unknown })
  }
  const ledger: MemoryLedger = {
    entries,
    write,
    writeBytes(bytes, atMs) {
      add(undefined, bytes, atMs)
    },
    prune(seq) {
      firstSeq = seq
    },
    beforePut: undefined,
    append(more) {
      const first = rows.length
      for (const entry of more) write(entry, now())
      return Promise.resolve(first)
    },
    async put(changes, more) {
      await ledger.beforePut?.()
      const fits = changes.every(
        ({ kind, id, version }) =>
          version === undefined || (records.get(keyOf(kind, id))?.version ?? 0) === version,
      )
      if (!fits) return false
      for (const one of changes) change(one)
      for (const entry of more) write(entry, now())
      return true
    },
    record: (kind, id) => Promise.resolve(records.get(keyOf(kind, id))),
    records: (kind, { prefix = '', after }, limit) =>
      Promise.resolve(
        [...records]
          .filter(([key, { id }]) => key === keyOf(kind, id) && id.startsWith(prefix))
          .map(([, record]) => record)
          .sort((a, b) => (a.id < b.id ? -1 : 1))
          .filter(({ id }) => after === undefined || id > after)
          .slice(0, limit),
      ),
    events: (filter, limit, before = Infinity) =>
      Promise.resolve(
        rows
          .filter((row) => row.seq >= firstSeq && row.seq < before && matches(row, filter))
          .reverse()
          .slice(0, limit)
          .map((row) => {
            const entry = shown(row)
            return {
              ...{ seq: row.seq, kind: String(entry['kind']), entry },
              time: new Date(row.timeUs / 1000).toISOString(),
            }
          }),
      ),
    leaves: (from, limit) =>
      Promise.resolve(rows.filter(({ seq }) => seq >= Math.max(from, firstSeq)).slice(0, limit)),
    head: () => Promise.resolve({ size: rows.length, root: rootOf(rows), firstSeq }),
    checkpoints: {
      origin: 'nestgate.test/ledger',
      current() {
        const [size, root] = [rows.length, rootOf(rows)]
        const note = `nestgate.test/ledger\n${size}\n${Buffer.from(root).toString('base64')}\n`
        return Promise.resolve({ size, root, note, timeUs: now() * 1000 })
      },
    },
  }
  return ledger
}

function pseudonym(name: string): string {
  return `personal:${createHash('sha256').update(name).digest('base64url')}`
}

function rootOf(rows: readonly Row[]): Uint8Array {
  const hash = createHash('sha256')
  for (const { bytes } of rows) hash.update(bytes)
  return hash.digest()
}

function matches({ timeUs, entry }: Row, filter: EventFilter): boolean {
  const { sinceMs = 0, untilMs = Infinity, kind, requestId, effect } = filter
  const own = entry !== undefined && 'requestId' in entry ? entry.requestId : undefined
  const decided = entry?.kind === 'intent' ? entry.decision.effect : undefined
  return (
    timeUs >= sinceMs * 1000 &&
    timeUs < untilMs * 1000 &&
    (kind === undefined || entry?.kind === kind) &&
    (requestId === undefined || own === requestId) &&
    (effect === undefined || decided === effect)
  )
}
