/** Chunks sealed and opened: AES-256-GCM under the session's own key (docs/decisions/0009, Format). */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { Fault } from '../../../shared/errors.ts'
import {
  CHUNK_HEADER_BYTES,
  CHUNK_TAG_BYTES,
  encodeChunkHeader,
} from '../../../shared/recording/chain.ts'
import type { Chunk } from '../../../shared/recording/chain.ts'

const CIPHER = 'aes-256-gcm'
const NONCE_BYTES = 12

/** A chunk in the pieces that it is written from; their order is `header`, `ciphertext`, `tag`. */
export interface SealedChunk {
  readonly index: number
  readonly header: Buffer
  readonly ciphertext: Buffer
  readonly tag: Buffer
  /** Of the three together. */
  readonly sealedBytes: number
}

/**
 * Seals. Each index may be used once under a key: it is the nonce.
 *
 * @param id - of the session
 * @param events - may be reused afterwards
 */
export function sealChunk(
  key: Buffer,
  id: Buffer,
  { index, flags }: { readonly index: number; readonly flags: number },
  events: Uint8Array,
): SealedChunk {
  const header = encodeChunkHeader(events.length + CHUNK_TAG_BYTES, index, flags)
  const cipher = createCipheriv(CIPHER, key, nonceOf(index))
  cipher.setAAD(Buffer.concat([id, header]))
  const ciphertext = cipher.update(events)
  cipher.final()
  const sealedBytes = CHUNK_HEADER_BYTES + ciphertext.length + CHUNK_TAG_BYTES
  return { index, header, ciphertext, tag: cipher.getAuthTag(), sealedBytes }
}

/** The events of a chunk. @throws Fault `recording_corrupt` where the chunk is not as it was sealed */
export function openChunk(key: Buffer, id: Buffer, { index, header, body }: Chunk): Buffer {
  const options = { authTagLength: CHUNK_TAG_BYTES }
  const cipher = createDecipheriv(CIPHER, key, nonceOf(index), options)
  cipher.setAAD(Buffer.concat([id, header]))
  cipher.setAuthTag(body.subarray(-CHUNK_TAG_BYTES))
  const events = cipher.update(body.subarray(0, -CHUNK_TAG_BYTES))
  try {
    cipher.final()
  } catch {
    throw new Fault('recording_corrupt', `chunk ${index} of session ${id.toString()} was changed`)
  }
  return events
}

function nonceOf(index: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES)
  nonce.writeUInt32BE(index, NONCE_BYTES - 4)
  return nonce
}
