/**
 * Placeholders: what stands for a hidden value. Made of who the object is and where in it the value stood, never of the
 * value: whoever may write could otherwise try values by dry run, and compare. What cannot be a true value by accident is
 * the prefix, by which writes are told that carry one (writes.ts).
 */
import { createHmac, createSecretKey } from 'node:crypto'
import type { Placeholders } from './types.ts'

/** Begins every placeholder. With the tag, 36 bytes: its base64 has no padding. */
export const PLACEHOLDER_PREFIX = 'nestgate-masked-1-'
/** The whole of one. */
export const PLACEHOLDER = /nestgate-masked-1-[0-9a-f]{18}/
/** Bytes of the tag that name the object, and the field in it. */
const OBJECT_BYTES = 5
const FIELD_BYTES = 4

/**
 * Placeholders under a key.
 *
 * @param key - secret, at least 32 bytes; placeholders of another key are known as such, and cannot be restored
 * @param cluster - name of the connection: uids are unique within a cluster only
 */
export function createPlaceholders(key: Buffer, cluster: string): Placeholders {
  // made once: it costs more than the rest
  const secret = createSecretKey(key)
  return {
    of(uid) {
      const tag = createHmac('sha256', secret)
        .update(`${cluster}\0${uid ?? ''}`)
        .digest()
      const object = tag.toString('hex', 0, OBJECT_BYTES)
      const mixed = tag.readUInt32BE(OBJECT_BYTES)
      return (path) => {
        const field = (fnv1a(path) ^ mixed) >>> 0
        return `${PLACEHOLDER_PREFIX}${object}${field.toString(16).padStart(2 * FIELD_BYTES, '0')}`
      }
    },
  }
}

/** FNV-1a, 32 bits: tells fields of one object apart. Nothing is proved by it, so it need not be hard to invert. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  }
  return hash >>> 0
}
