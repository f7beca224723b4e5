/** Reads recordings from wherever their segments are, in whole segments, so that a reader takes the memory of one. */
import { Fault } from '../../../shared/errors.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import {
  CHUNK_HEADER_BYTES,
  CHUNK_TAG_BYTES,
  ChunkReader,
} from '../../../shared/recording/chain.ts'
import type { Chunk } from '../../../shared/recording/chain.ts'
import type { Archive } from './archive.ts'
import type { Documents } from './documents.ts'
import type { MasterKeys } from './keys.ts'
import type { EventRange } from './reader.ts'
import type { RunningRecording } from './recording.ts'
import { openChunk } from './seal.ts'
import { archiveName } from './segments.ts'
import type { Segment } from './segments.ts'
import { segmentName } from './spool.ts'
import type { Spool } from './spool.ts'

/** Stored bytes that a reader gets at a time. */
const PIECE_BYTES = 256 * 1024

/** What reading needs. */
export interface ReadingDeps {
  readonly spool: Pick<Spool, 'id' | 'read'>
  readonly archive: Pick<Archive, 'get'>
  readonly keys: Pick<MasterKeys, 'unwrap'>
  readonly documents: Pick<Documents, 'read'>
  /** Sessions of this broker that are not over, by id. */
  readonly running: ReadonlyMap<string, RunningRecording>
}

/** A recording that can be read here. */
export interface Found {
  readonly id: string
  /** What is durable. */
  readonly segments: readonly Segment[]
  readonly bytes: number
  /** Nothing is added any more, and its end is there: then no byte may be left over. */
  readonly isEnded: boolean
  /** The session's own key, or that wrapped. */
  readonly key: Buffer | string
}

/** @returns the recording as it is now; or why it cannot be read here */
export async function find(deps: ReadingDeps, id: string): Promise<Found | Refusal> {
  const own = deps.running.get(id)
  if (own !== undefined) return foundRunning(id, own)
  const document = await deps.documents.read(id)
  if (document === undefined) return refuse('session_unknown')
  const { session, kept } = document
  if (session.state === 'expired') return refuse('session_expired')
  if (session.recording === undefined || kept?.key === undefined)
    return refuse('session_unrecorded')
  // also one of this spool that is to be closed yet
  if (session.state === 'running') return refuse('session_elsewhere', 'it runs')
  if (!kept.archived && kept.spool !== deps.spool.id)
    return refuse('session_elsewhere', 'its recording is not in the archive yet')
  const { segments, key } = kept
  const { bytes } = session.recording
  return { id, segments, bytes, isEnded: session.state === 'ended', key }
}

/** What is durable of a running recording now. */
export function foundRunning(id: string, own: RunningRecording): Found {
  const { durable, key } = own
  return { id, segments: own.segments(), bytes: durable.bytes, isEnded: false, key }
}

/** Events of a range. @returns rejects with Fault `recording_failed` where the key cannot be unwrapped; throws Fault `recording_corrupt` */
export async function readEvents(
  deps: ReadingDeps,
  found: Found,
  { from, to = found.bytes }: EventRange,
): Promise<AsyncIterable<Buffer>> {
  const { id, key } = found
  const plainKey = typeof key === 'string' ? await deps.keys.unwrap(key, id) : key
  return eventsOf(deps, { ...found, key: plainKey }, from, Math.min(to, found.bytes))
}

async function* eventsOf(
  deps: ReadingDeps,
  found: Found & { readonly key: Buffer },
  from: number,
  to: number,
): AsyncIterable<Buffer> {
  const id = Buffer.from(found.id)
  let position = 0
  for await (const chunk of chunksOf(deps, found, from, to)) {
    if ('skippedBytes' in chunk) {
      position += chunk.skippedBytes
      continue
    }
    const begin = position
    position += chunk.eventBytes
    if (position <= from || begin >= to) continue
    const events = openChunk(found.key, id, chunk)
    const part = events.subarray(Math.max(from - begin, 0), Math.min(to - begin, events.length))
    if (part.length > 0) yield part
  }
}

/** Chunks of the segments that the range touches, and how much lies in those that it does not. */
async function* chunksOf(
  deps: ReadingDeps,
  found: Found,
  from: number,
  to: number,
): AsyncIterable<Chunk | { readonly skippedBytes: number }> {
  let [position, index] = [0, 0]
  for (const [number, segment] of found.segments.entries()) {
    // where all is read, the end is looked at too: an empty last chunk says that nothing is missing
    const isWanted = position + segment.bytes > from && (position < to || to === found.bytes)
    const isEnd = number === found.segments.length - 1 && to === found.bytes
    if (isWanted || isEnd) yield* segmentChunks(deps, found, number, index)
    else yield { skippedBytes: segment.bytes }
    position += segment.bytes
    index += segment.chunks
  }
}

async function* segmentChunks(
  deps: ReadingDeps,
  found: Found,
  number: number,
  first: number,
): AsyncIterable<Chunk> {
  const { id, segments, isEnded } = found
  const segment = segments[number]
  if (segment === undefined || (segment.chunks === 0 && !isEnded)) return
  const bytes = await segmentBytes(deps, id, number)
  const expected = sealedBytes(segment)
  if (bytes.length < expected || (isEnded && bytes.length > expected))
    throw corrupt(id, `segment ${number} has ${bytes.length} bytes, not ${expected}`)
  const reader = new ChunkReader(first)
  const chunks = reader.take(bytes.subarray(0, expected))
  let next = chunks.next()
  for (; next.done !== true; next = chunks.next()) yield next.value
  const isLast = isEnded && number === segments.length - 1
  const problem = next.value?.problem ?? missing(reader, first + segment.chunks, isLast)
  if (problem !== undefined) throw corrupt(id, `segment ${number}: ${problem}`)
}

function missing(reader: ChunkReader, chunks: number, isLast: boolean): string | undefined {
  const torn = reader.end()?.problem
  if (torn !== undefined) return torn
  if (reader.next !== chunks) return `it has chunks up to ${reader.next}, not ${chunks}`
  return isLast && !reader.isOver ? 'the last chunk is missing' : undefined
}

/** The stored chunks, also where they do not fit: whoever verifies them finds that. @returns throws Fault `recording_corrupt` for a missing segment */
export async function* readSealed(deps: ReadingDeps, found: Found): AsyncIterable<Buffer> {
  for (const [number, segment] of found.segments.entries()) {
    if (segment.chunks === 0) continue
    const bytes = await segmentBytes(deps, found.id, number)
    const end = found.isEnded ? bytes.length : Math.min(bytes.length, sealedBytes(segment))
    for (let at = 0; at < end; at += PIECE_BYTES)
      yield bytes.subarray(at, Math.min(at + PIECE_BYTES, end))
  }
}

/** A segment from the spool, else from the archive; undefined where neither has it. */
export async function lookUp(
  { spool, archive }: Pick<ReadingDeps, 'spool' | 'archive'>,
  id: string,
  number: number,
): Promise<Buffer | undefined> {
  // in this order: it is in the archive before it leaves the spool
  return (await spool.read(id, number)) ?? (await archive.get(archiveName(id, segmentName(number))))
}

async function segmentBytes(deps: ReadingDeps, id: string, number: number): Promise<Buffer> {
  const bytes = await lookUp(deps, id, number)
  if (bytes === undefined) throw corrupt(id, `segment ${number} is missing`)
  return bytes
}

function sealedBytes({ chunks, bytes }: Segment): number {
  return bytes + chunks * (CHUNK_HEADER_BYTES + CHUNK_TAG_BYTES)
}

function corrupt(id: string, what: string): Fault {
  return new Fault('recording_corrupt', `the recording of session ${id}: ${what}`)
}
