/**
 * The chunks that a recording is kept in, and the running hash over them (docs/decisions/0009, Format): a header of length u32, index u32 and
 * flags u8, big-endian, then ciphertext and tag, which the length counts. The hash can be verified without the key; the ledger has it, so that
 * truncation, replacement and a wrong order show.
 */
import { createHash } from 'node:crypto'

/** Most bytes of events in a chunk. */
export const MAX_CHUNK_BYTES = 256 * 1024
/** Length, index and flags. */
export const CHUNK_HEADER_BYTES = 9
/** Of AES-256-GCM; behind the ciphertext. */
export const CHUNK_TAG_BYTES = 16
/** Flag of the last chunk. All others are 0. */
export const CHUNK_LAST = 1

/** What the running hash begins with, before a zero byte and the id. */
const DOMAIN = 'nestgate-recording-v1'
const INDEX_OFFSET = 4
const FLAGS_OFFSET = 8
const MAX_BODY_BYTES = MAX_CHUNK_BYTES + CHUNK_TAG_BYTES

/** The running hash before the first chunk. @param id - of the session */
export function firstHash(id: string): Buffer {
  return createHash('sha256').update(DOMAIN).update(Buffer.of(0)).update(id, 'utf8').digest()
}

/** The running hash behind one more chunk. @param parts - of the chunk as it is stored, header and tag included */
export function nextHash(hash: Uint8Array, ...parts: readonly Uint8Array[]): Buffer {
  const next = createHash('sha256').update(hash)
  for (const part of parts) next.update(part)
  return next.digest()
}

/** A chunk's header. @param bodyBytes - of ciphertext and tag */
export function encodeChunkHeader(bodyBytes: number, index: number, flags: number): Buffer {
  const header = Buffer.allocUnsafe(CHUNK_HEADER_BYTES)
  header.writeUInt32BE(bodyBytes, 0)
  header.writeUInt32BE(index, INDEX_OFFSET)
  header.writeUInt8(flags, FLAGS_OFFSET)
  return header
}

/** A chunk as it is stored. */
export interface Chunk {
  readonly index: number
  readonly isLast: boolean
  readonly header: Buffer
  /** Ciphertext and tag. */
  readonly body: Buffer
  /** Bytes of the events in it. */
  readonly eventBytes: number
}

/** What does not fit: the chunk's number, from 0, and one clause. `torn`: the bytes end within the chunk. */
export interface ChunkProblem {
  readonly problem: string
  readonly index: number
  readonly torn?: true
}

/** Takes stored bytes as they come, in pieces of any size, and gives whole chunks in their order. */
export class ChunkReader {
  #next: number
  #over = false
  #parts: Buffer[] = []
  #bytes = 0

  /** @param first - index that the first chunk must have */
  constructor(first = 0) {
    this.#next = first
  }

  /**
   * The chunks that are whole with these bytes; ends behind a problem, which it returns. The chunks' memory is that of `bytes`
   * where one lies whole in it.
   */
  *take(bytes: Uint8Array): Generator<Chunk, ChunkProblem | undefined> {
    const piece = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    if (this.#bytes === 0) this.#parts = [piece]
    else this.#parts.push(piece)
    this.#bytes += bytes.byteLength
    while (this.#bytes >= CHUNK_HEADER_BYTES) {
      const whole = this.#joined(CHUNK_HEADER_BYTES)
      const bodyBytes = whole.readUInt32BE(0)
      const problem = this.#problemOf(whole, bodyBytes)
      if (problem !== undefined) return { problem, index: this.#next }
      if (this.#bytes < CHUNK_HEADER_BYTES + bodyBytes) return undefined
      const chunk = this.#cut(CHUNK_HEADER_BYTES + bodyBytes)
      this.#next += 1
      this.#over = chunk.isLast
      yield chunk
    }
    return undefined
  }

  /** To be asked where no bytes follow. */
  end(): ChunkProblem | undefined {
    return this.#bytes === 0
      ? undefined
      : { problem: 'it ends within a chunk', index: this.#next, torn: true }
  }

  /** Index of the chunk that would come next. */
  get next(): number {
    return this.#next
  }

  /** Whether the last chunk was there. */
  get isOver(): boolean {
    return this.#over
  }

  #problemOf(header: Buffer, bodyBytes: number): string | undefined {
    if (this.#over) return 'a chunk follows the last one'
    if (bodyBytes < CHUNK_TAG_BYTES || bodyBytes > MAX_BODY_BYTES) return 'no chunk has this length'
    const index = header.readUInt32BE(INDEX_OFFSET)
    if (index !== this.#next) return `chunk ${index} stands where chunk ${this.#next} belongs`
    return header.readUInt8(FLAGS_OFFSET) > CHUNK_LAST ? 'no chunk has these flags' : undefined
  }

  /** The first bytes in one piece, at least so many. */
  #joined(bytes: number): Buffer {
    const [first] = this.#parts
    if (first !== undefined && first.length >= bytes) return first
    const all = Buffer.concat(this.#parts)
    this.#parts = [all]
    return all
  }

  #cut(bytes: number): Chunk {
    const whole = this.#joined(bytes)
    this.#parts[0] = whole.subarray(bytes)
    this.#bytes -= bytes
    return {
      index: whole.readUInt32BE(INDEX_OFFSET),
      isLast: whole.readUInt8(FLAGS_OFFSET) === CHUNK_LAST,
      header: whole.subarray(0, CHUNK_HEADER_BYTES),
      body: whole.subarray(CHUNK_HEADER_BYTES, bytes),
      eventBytes: bytes - CHUNK_HEADER_BYTES - CHUNK_TAG_BYTES,
    }
  }
}

/** So much of a recording, as the ledger's entries have it. */
export interface ChainState {
  readonly chunks: number
  /** Of events. */
  readonly bytes: number
  /** Hex. */
  readonly runningSha256: string
}

/**
 * Goes along a whole recording without its key.
 *
 * @param id - of the session
 * @param onChunk - told the state behind each chunk, to compare with the ledger's entries
 * @returns the state at the end, and whether the last chunk was there; or the first thing that does not fit
 */
export async function followChain(
  id: string,
  sealed: AsyncIterable<Uint8Array>,
  onChunk: (state: ChainState) => void = () => undefined,
): Promise<(ChainState & { readonly isComplete: boolean }) | ChunkProblem> {
  const reader = new ChunkReader()
  let hash = firstHash(id)
  let state: ChainState = { chunks: 0, bytes: 0, runningSha256: hash.toString('hex') }
  for await (const bytes of sealed) {
    const chunks = reader.take(bytes)
    for (;;) {
      const { value, done } = chunks.next()
      if (done === true) {
        if (value !== undefined) return value
        break
      }
      hash = nextHash(hash, value.header, value.body)
      const runningSha256 = hash.toString('hex')
      state = { chunks: state.chunks + 1, bytes: state.bytes + value.eventBytes, runningSha256 }
      onChunk(state)
    }
  }
  return reader.end() ?? { ...state, isComplete: reader.isOver }
}
