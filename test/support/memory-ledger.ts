/** A ledger in memory, with all that a search, a watch and an export ask of a store; and checkpoints that nobody signed. For tests of what is made of entries. */
import { createHash } from 'node:crypto'
import type { CheckpointSource } from '../../broker/audit/export/range.ts'
import type { Entry } from '../../broker/ledger/entry.ts'
import { formatMicros, serializeEntry } from '../../broker/ledger/serialize.ts'
import { termsOf } from '../../broker/ledger/terms.ts'
import type { EventFilter, Store, StoredCheckpoint } from '../../broker/store/store.ts'
import type { AuditEvent } from '../../shared/wire.ts'

interface Row {
  readonly event: AuditEvent
  readonly timeUs: number
  readonly bytes: Uint8Array
  readonly entry: Entry
  /** `FIELD VALUE` of each of its terms. */
  readonly terms: ReadonlySet<string>
}

export const sha256 = (...parts: readonly Uint8Array[]): Buffer => {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}
export const leafHash = (bytes: Uint8Array): Buffer => sha256(Buffer.of(0), bytes)
export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer =>
  sha256(Buffer.of(1), left, right)

/** RFC 6962, 2.1, as it is written there: slow, and made from nothing of ours. */
export function treeHash(hashes: readonly Uint8Array[]): Uint8Array {
  if (hashes.length === 0) return sha256()
  const [first] = hashes
  if (hashes.length === 1 && first !== undefined) return first
  let split = 1
  while (split * 2 < hashes.length) split *= 2
  return nodeHash(treeHash(hashes.slice(0, split)), treeHash(hashes.slice(split)))
}

export class MemoryLedger {
  readonly rows: Row[] = []
  readonly made: StoredCheckpoint[] = []
  /** Entries below it have no bytes any more. */
  firstSeq = 0
  /** How often was searched. */
  searches = 0
  nowUs = Date.UTC(2026, 0, 1) * 1000

  /** As a store, with all that the rest asks of a real one. */
  over(rest: Store): Store {
    const own = ['append', 'events', 'leaves', 'head', 'tile', 'checkpoint', 'checkpoints']
    return new Proxy(rest, {
      get: (target, key) => {
        const of = (typeof key === 'string' && own.includes(key) ? this : target) as object
        const value = Reflect.get(of, key) as unknown
        return typeof value === 'function' ? (value.bind(of) as unknown) : value
      },
    })
  }

  get hashes(): Buffer[] {
    return this.rows.map(({ bytes }) => leafHash(bytes))
  }

  append(entries: readonly Entry[]): Promise<number> {
    const first = this.rows.length
    for (const entry of entries) {
      this.nowUs += 1000
      const bytes = serializeEntry(entry, this.nowUs)
      const requestId = 'requestId' in entry ? { requestId: entry.requestId } : {}
      const event: AuditEvent = {
        ...{ seq: this.rows.length, time: formatMicros(this.nowUs), kind: entry.kind },
        ...requestId,
        entry: JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>,
      }
      const terms = new Set(termsOf(event.entry).map(([field, value]) => `${field} ${value}`))
      this.rows.push({ event, timeUs: this.nowUs, bytes, entry, terms })
    }
    return Promise.resolve(first)
  }

  events(filter: EventFilter, limit: number, before = Infinity): Promise<readonly AuditEvent[]> {
    this.searches += 1
    const found: AuditEvent[] = []
    for (let seq = Math.min(before, this.rows.length) - 1; seq >= this.firstSeq; seq -= 1) {
      const row = this.rows[seq]
      if (found.length >= limit) break
      if (row !== undefined && matches(row, filter)) found.push(row.event)
    }
    return Promise.resolve(found)
  }

  leaves(from: number, limit: number) {
    const start = Math.max(from, this.firstSeq)
    const rows = this.rows.slice(start, start + limit)
    return Promise.resolve(rows.map(({ timeUs, bytes }, i) => ({ seq: start + i, timeUs, bytes })))
  }

  head() {
    const root = treeHash(this.rows.length > 5000 ? [] : this.hashes)
    return Promise.resolve({ size: this.rows.length, root, firstSeq: this.firstSeq })
  }

  tile(level: number, index: number, width: number): Promise<Uint8Array | undefined> {
    const span = 256 ** level
    const parts: Uint8Array[] = []
    for (let i = 0; i < width; i += 1) {
      const start = (index * 256 + i) * span
      const rows = this.rows.slice(start, start + span)
      if (rows.length < span) return Promise.resolve(undefined)
      parts.push(treeHash(rows.map(({ bytes }) => leafHash(bytes))))
    }
    return Promise.resolve(Buffer.concat(parts))
  }

  checkpoint(size = Infinity) {
    return Promise.resolve(this.made.findLast((one) => one.size <= size))
  }

  checkpoints(above: number, limit: number) {
    return Promise.resolve(this.made.filter(({ size }) => size > above).slice(0, limit))
  }

  /** Makes a checkpoint of the first so many entries. */
  mark(size = this.rows.length): StoredCheckpoint {
    const root = treeHash(this.hashes.slice(0, size))
    const note = `test\n${size}\n${Buffer.from(root).toString('base64')}\n\n— test AAAA\n`
    const checkpoint = { size, root, timeUs: this.nowUs, note }
    if (!this.made.some((one) => one.size === size)) this.made.push(checkpoint)
    this.made.sort((a, b) => a.size - b.size)
    return checkpoint
  }

  get source(): CheckpointSource {
    return {
      origin: 'test',
      keys: [{ vkey: 'test+00000000+AAAA', since: '2026-01-01T00:00:00Z' }],
      current: () => Promise.resolve(this.mark()),
    }
  }
}

function matches({ timeUs, terms }: Row, filter: EventFilter): boolean {
  const has = (field: string, value: unknown): boolean => terms.has(`${field} ${String(value)}`)
  return Object.entries(filter).every(([key, value]) => {
    if (key === 'sinceMs') return timeUs >= (value as number) * 1000
    if (key === 'untilMs') return timeUs < (value as number) * 1000
    if (key === 'process') return has('agent', value) || has('ancestor', value)
    return has(key, value)
  })
}
