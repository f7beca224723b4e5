/** Base 64 as the transparency formats write it (RFC 4648, section 4), read strictly: one text for one value. */
import { HASH_BYTES } from './tree.ts'

/** The bytes; undefined for anything but what an encoder would have written, padding and last bits included. */
export function decodeBase64(text: string): Uint8Array | undefined {
  const bytes = Buffer.from(text, 'base64')
  return bytes.toString('base64') === text ? bytes : undefined
}

/** The hash; undefined when the text is not exactly 32 bytes. */
export function decodeHash(text: string): Uint8Array | undefined {
  const bytes = decodeBase64(text)
  return bytes?.length === HASH_BYTES ? bytes : undefined
}

/** A hash, or any bytes, as text. */
export function encodeBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
}
