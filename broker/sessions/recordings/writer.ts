/**
 * Chunks of a recording that is being written: collected, sealed in their order, and handed to the disk one write at a time; what came meanwhile
 * goes with the next. Copies each byte once, into the chunk, so that a chunk is one call of the cipher.
 */
import { codeOf, Fault, messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import {
  CHUNK_LAST,
  firstHash,
  MAX_CHUNK_BYTES,
  nextHash,
} from '../../../shared/recording/chain.ts'
import type { ChainState } from '../../../shared/recording/chain.ts'
import { openChunk, sealChunk } from './seal.ts'
import type { SealedChunk } from './seal.ts'
import type { SpoolFile } from './spool.ts'

/** A chunk is closed so long after its first event, in milliseconds. */
const CHUNK_AGE_MS = 1_000
/** With so many bytes not durable there is no room. */
export const MAX_PENDING_BYTES = 1024 * 1024
/** Chunks are gathered to so many bytes, or for so long, in milliseconds, before they are written. */
const BATCH_BYTES = 512 * 1024
const BATCH_MS = 10
/** A chunk's memory to begin with; most sessions say little at a time. */
const FIRST_CHUNK_BYTES = 4 * 1024

/** What it needs. */
export interface ChunkWriterDeps {
  /** Of the session. */
  readonly id: string
  readonly key: Buffer
  readonly file: SpoolFile
  readonly log: Logger
  readonly chunkAgeMs?: number
}

interface Queued {
  readonly chunk: SealedChunk
  /** With this chunk. */
  readonly hash: Buffer
}

type Listener = (events: Uint8Array) => void

/** See the head of the file; the members are those of `RecordingWriter` (types.ts). */
export class ChunkWriter {
  bytes = 0
  readonly #deps: ChunkWriterDeps
  readonly #id: Buffer
  readonly #failed = new AbortController()
  readonly #listeners = new Set<Listener>()
  #events = Buffer.alloc(0)
  #filled = 0
  #timer: NodeJS.Timeout | undefined
  #closed = false
  #index = 0
  #hash: Buffer
  #queue: Queued[] = []
  /** Sealed, and not durable. */
  #pending = 0
  #writing: Promise<void> | undefined
  #room: ReturnType<typeof Promise.withResolvers<undefined>> | undefined
  #durable: ChainState
  #gatheredNow: (() => void) | undefined

  constructor(deps: ChunkWriterDeps) {
    this.#deps = deps
    this.#id = Buffer.from(deps.id)
    this.#hash = firstHash(deps.id)
    this.#durable = { chunks: 0, bytes: 0, runningSha256: this.#hash.toString('hex') }
  }

  get failed(): AbortSignal {
    return this.#failed.signal
  }

  /** What is durable. */
  get durable(): ChainState {
    return this.#durable
  }

  write(event: Uint8Array, payload?: Uint8Array): void {
    if (this.#closed || this.failed.aborted) return
    const length = event.length + (payload?.length ?? 0)
    if (length > MAX_CHUNK_BYTES) {
      this.fail(new RangeError(`an event of ${length} bytes`))
      return
    }
    if (this.#filled + length > MAX_CHUNK_BYTES) this.#seal(0)
    this.#take(event)
    if (payload !== undefined) this.#take(payload)
    this.bytes += length
    if (this.#filled === MAX_CHUNK_BYTES) this.#seal(0)
    else
      this.#timer ??= setTimeout(() => {
        this.#seal(0)
      }, this.#deps.chunkAgeMs ?? CHUNK_AGE_MS)
  }

  room(): Promise<void> | undefined {
    if (this.failed.aborted || this.#filled + this.#pending < MAX_PENDING_BYTES) return undefined
    this.#room ??= Promise.withResolvers<undefined>()
    return this.#room.promise
  }

  follow(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
    }
  }

  /** Ends the recording for this reason; what is sealed is not written any more. */
  fail(error: unknown): void {
    if (this.failed.aborted) return
    const { log, id } = this.#deps
    log.error(
      { requestId: id, code: codeOf(error), error: messageOf(error) },
      'a session cannot be recorded any more',
    )
    clearTimeout(this.#timer)
    this.#queue = []
    this.#events = Buffer.alloc(0)
    const message = 'the recording cannot be written'
    const reason =
      error instanceof Fault && error.code === 'recording_failed'
        ? error
        : new Fault('recording_failed', message, { cause: error })
    this.#settleRoom()
    this.#failed.abort(reason)
  }

  /** Seals the last chunk, and waits until all is durable or the recording has failed. Never rejects. */
  async close(): Promise<void> {
    const isOpen = !this.#closed && !this.failed.aborted
    this.#closed = true
    if (isOpen) this.#seal(CHUNK_LAST)
    clearTimeout(this.#timer)
    await this.#writing
    await this.#deps.file.close()
    this.#listeners.clear()
    this.#events = Buffer.alloc(0)
  }

  #take(part: Uint8Array): void {
    const needed = this.#filled + part.length
    if (needed > this.#events.length) {
      const doubled = Math.max(this.#events.length * 2, needed, FIRST_CHUNK_BYTES)
      const larger = Buffer.allocUnsafeSlow(Math.min(doubled, MAX_CHUNK_BYTES))
      this.#events.copy(larger, 0, 0, this.#filled)
      this.#events = larger
    }
    this.#events.set(part, this.#filled)
    this.#filled = needed
  }

  #seal(flags: number): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const events = this.#events.subarray(0, this.#filled)
    const chunk = sealChunk(this.#deps.key, this.#id, { index: this.#index, flags }, events)
    this.#hash = nextHash(this.#hash, chunk.header, chunk.ciphertext, chunk.tag)
    this.#index += 1
    this.#filled = 0
    this.#queue.push({ chunk, hash: this.#hash })
    this.#pending += chunk.ciphertext.length
    if (this.#closed || this.#pending >= BATCH_BYTES) this.#gatheredNow?.()
    this.#writing ??= this.#write()
  }

  /** Never rejects. */
  async #write(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        if (!this.#closed && this.#pending < BATCH_BYTES) await this.#gathered()
        const batch = this.#queue
        this.#queue = []
        await this.#deps.file.append(batch.map(({ chunk }) => chunk))
        this.#keep(batch)
      }
    } catch (error) {
      this.fail(error)
    }
    // in this very turn: what is sealed in the next one has to begin another
    this.#writing = undefined
  }

  /** Waits for more to write at once: a session that says much would make the disk sync for each chunk. */
  #gathered(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, BATCH_MS)
      this.#gatheredNow = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  #keep(batch: readonly Queued[]): void {
    for (const { chunk, hash } of batch) {
      const { chunks, bytes } = this.#durable
      const eventBytes = chunk.ciphertext.length
      this.#pending -= eventBytes
      this.#durable = {
        ...{ chunks: chunks + 1, bytes: bytes + eventBytes },
        runningSha256: hash.toString('hex'),
      }
      if (this.#listeners.size > 0) this.#tell(chunk)
    }
    if (this.#filled + this.#pending < MAX_PENDING_BYTES) this.#settleRoom()
  }

  /** The events are gone when their chunk is durable; nobody follows most sessions, so they are not kept for it. */
  #tell({ index, header, ciphertext, tag }: SealedChunk): void {
    const body = Buffer.concat([ciphertext, tag])
    const eventBytes = ciphertext.length
    const chunk = { index, isLast: false, header, body, eventBytes }
    const events = openChunk(this.#deps.key, this.#id, chunk)
    for (const listener of this.#listeners) {
      try {
        listener(events)
      } catch (error) {
        this.#deps.log.error({ error: messageOf(error) }, 'somebody could not follow a session')
        this.#listeners.delete(listener)
      }
    }
  }

  #settleRoom(): void {
    this.#room?.resolve(undefined)
    this.#room = undefined
  }
}
