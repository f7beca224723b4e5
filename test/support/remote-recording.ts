/**
 * Reads recordings from a broker's files by docs/decisions/0009 alone, without the broker's code: its database, its spool or archive folder, and
 * the master key's file. What the broker says of a recording can so be compared with what is there.
 */
import { createDecipheriv, createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { codeOf } from '../../shared/errors.ts'

/** Types of events, by 0009. */
export const TYPE = {
  header: 1,
  stdin: 2,
  stdout: 3,
  stderr: 4,
  resize: 5,
  stdinOmitted: 6,
  endOfStream: 7,
  result: 8,
  marker: 9,
  connectionOpened: 10,
  fromClient: 11,
  toClient: 12,
  connectionClosed: 13,
  file: 14,
  end: 15,
} as const

/** An event as it stands. */
export interface ReadEvent {
  readonly type: number
  readonly atUs: number
  readonly payload: Buffer
}

/** A session's document, as far as tests look at it. */
export interface ReadSession {
  readonly id: string
  readonly kind: string
  readonly state: string
  readonly ending?: string
  readonly command?: readonly string[]
  readonly result?: {
    readonly status: string
    readonly exitCode?: number
    readonly reason?: string
  }
  readonly totals?: Readonly<Record<string, number | boolean>>
  readonly recording?: {
    readonly chunks: number
    readonly bytes: number
    readonly runningSha256: string
  }
}

/** A whole recording, read. */
export interface ReadRecording {
  readonly events: readonly ReadEvent[]
  /** The last chunk says that it is. */
  readonly isComplete: boolean
  /** Running hash behind each chunk, hex. */
  readonly hashes: readonly string[]
  /** Bytes of a chunk that is not whole. */
  readonly torn: number
}

const CHUNK_HEAD = 9
const TAG = 16
const EVENT_HEAD = 11

function query(
  dataDir: string,
  sql: string,
  ...values: readonly string[]
): Record<string, unknown>[] {
  const db = new DatabaseSync(join(dataDir, 'nestgate.db'), { readOnly: true })
  try {
    return db.prepare(sql).all(...values)
  } finally {
    db.close()
  }
}

interface Document {
  readonly session: ReadSession
  readonly kept?: { readonly key?: string }
}

function documents(dataDir: string): readonly Document[] {
  const rows = query(dataDir, "SELECT body FROM records WHERE kind = 'session' ORDER BY id")
  return rows
    .map(({ body }) => JSON.parse(String(body)) as Partial<Document>)
    .filter((one): one is Document => one.session !== undefined)
}

/** All sessions of a broker, the oldest first. */
export function readSessions(dataDir: string): readonly ReadSession[] {
  return documents(dataDir).map(({ session }) => session)
}

/** Of an entry what is looked at. */
export interface LedgerEntry {
  readonly kind: string
  readonly requestId?: string
  readonly event: string
  readonly detail: Readonly<Record<string, unknown>>
}

/** Ledger entries about a session, in order. */
export function readSessionEntries(dataDir: string, id: string): readonly LedgerEntry[] {
  return query(dataDir, 'SELECT leaf FROM ledger ORDER BY seq')
    .map(({ leaf }) => JSON.parse(Buffer.from(leaf as Uint8Array).toString()) as LedgerEntry)
    .filter(({ kind, requestId }) => kind === 'session' && requestId === id)
}

/** @throws Error where a chunk cannot be opened, or anything is not as 0009 says */
export function readRecording(dataDir: string, id: string): ReadRecording {
  const document = documents(dataDir).find(({ session }) => session.id === id)
  if (document === undefined) throw new Error(`no session ${id}`)
  const key = unwrap(dataDir, id, document.kept?.key ?? '')
  const stored = sealedOf(dataDir, id)
  const events: Buffer[] = []
  const hashes: string[] = []
  let hash = sha256(Buffer.from('nestgate-recording-v1'), Buffer.of(0), Buffer.from(id))
  let at = 0
  let isComplete = false
  for (let index = 0; at < stored.length; index += 1) {
    const length = at + CHUNK_HEAD > stored.length ? Infinity : stored.readUInt32BE(at)
    if (at + CHUNK_HEAD + length > stored.length)
      return { events: decode(Buffer.concat(events)), isComplete, hashes, torn: stored.length - at }
    if (isComplete) throw new Error('a chunk behind the last one')
    const head = stored.subarray(at, at + CHUNK_HEAD)
    const body = stored.subarray(at + CHUNK_HEAD, at + CHUNK_HEAD + length)
    if (head.readUInt32BE(4) !== index) throw new Error(`chunk ${head.readUInt32BE(4)} at ${index}`)
    isComplete = head.readUInt8(8) === 1
    events.push(open(key, Buffer.concat([Buffer.from(id), head]), index, body))
    hash = sha256(hash, head, body)
    hashes.push(hash.toString('hex'))
    at += CHUNK_HEAD + length
  }
  return { events: decode(Buffer.concat(events)), isComplete, hashes, torn: 0 }
}

function sha256(...parts: readonly Buffer[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

function open(key: Buffer, aad: Buffer, index: number, body: Buffer): Buffer {
  const nonce = Buffer.alloc(12)
  nonce.writeUInt32BE(index, 8)
  const cipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG })
  cipher.setAAD(aad).setAuthTag(body.subarray(-TAG))
  return Buffer.concat([cipher.update(body.subarray(0, -TAG)), cipher.final()])
}

function unwrap(dataDir: string, id: string, wrapped: string): Buffer {
  const [, name = '', sealed = ''] = wrapped.split(':')
  const file = readFileSync(join(dataDir, 'recording-keys', `${name}.key`), 'utf8')
  const bytes = Buffer.from(sealed, 'base64')
  const options = { authTagLength: TAG }
  const master = Buffer.from(file.trim(), 'base64')
  const cipher = createDecipheriv('aes-256-gcm', master, bytes.subarray(0, 12), options)
  cipher.setAAD(Buffer.from(`nestgate-session-key-v1\0${id}`)).setAuthTag(bytes.subarray(-TAG))
  return Buffer.concat([cipher.update(bytes.subarray(12, -TAG)), cipher.final()])
}

/** A segment may be moved to the archive while it is looked for. */
function readSegment(dataDir: string, id: string, name: string): Buffer {
  try {
    return readFileSync(join(dataDir, 'recordings', id, name))
  } catch {
    return readFileSync(join(dataDir, 'archive', id, name))
  }
}

/** Segments by number, wherever each of them is. */
function sealedOf(dataDir: string, id: string): Buffer {
  const segments = new Map<string, Buffer>()
  // in the direction in which they move: none is missed between two looks
  for (const folder of ['recordings', 'archive']) {
    for (const name of segmentsIn(join(dataDir, folder, id)))
      segments.set(name, readSegment(dataDir, id, name))
  }
  const names = [...segments.keys()].sort()
  return Buffer.concat(names.map((name) => segments.get(name)!))
}

/** The folder goes when its last segment has moved, at any time. */
function segmentsIn(path: string): readonly string[] {
  try {
    return readdirSync(path).filter((file) => file.endsWith('.seg'))
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  }
}

function decode(bytes: Buffer): readonly ReadEvent[] {
  const events: ReadEvent[] = []
  for (let at = 0; at < bytes.length;) {
    const length = bytes.readUInt32BE(at + 7)
    if (at + EVENT_HEAD + length > bytes.length) throw new Error('an event across chunks’ end')
    events.push({
      type: bytes.readUInt8(at),
      atUs: bytes.readUIntBE(at + 1, 6),
      payload: bytes.subarray(at + EVENT_HEAD, at + EVENT_HEAD + length),
    })
    at += EVENT_HEAD + length
  }
  return events
}

/** All bytes of events of one type. */
export function bytesOf({ events }: ReadRecording, type: number): Buffer {
  return Buffer.concat(events.filter((event) => event.type === type).map(({ payload }) => payload))
}

/** Events whose payload is JSON. */
export function jsonOf(
  { events }: ReadRecording,
  type: number,
): readonly Record<string, unknown>[] {
  return events
    .filter((event) => event.type === type)
    .map(({ payload }) => JSON.parse(payload.toString()) as Record<string, unknown>)
}
