/**
 * Placeholders: what stands for a hidden value. Made of who the object is and where in it the value stood, never of the
 * value: whoever may write could otherwise try values by dry run, and compare. What cannot be a true value by accident is
 * the prefix, by which writes are told that carry one (writes.ts).
 */
import { hash } from 'node:crypto'
import type { Placeholders } from './types.ts'

/** Begins every placeholder. With the tag, 36 bytes: its base64 has no padding. */
export const PLACEHOLDER_PREFIX = 'nestgate-masked-1-'
/** The whole of one. */
export const PLACEHOLDER = /nestgate-masked-1-[0-9a-f]{18}/
/** Hex digits of the tag that name the object, and those that name the field in it. */
const OBJECT_DIGITS = 10
const FIELD_DIGITS = 8

/**
 * Placeholders under a key.
 *
 * The object's part is the begin of SHA-256 over key and name: one call for each object of a list, which HMAC would take three times as long
 * for. What HMAC is for, to withstand that a text is made longer, needs the whole hash.
 *
 * @param key - secret, at least 32 bytes; placeholders of another key are known as such, and cannot be restored
 * @param cluster - name of the connection: uids are unique within a cluster only
 */
export function createPlaceholders(key: Buffer, cluster: string): Placeholders {
  const begin = `${key.toString('hex')}\0${cluster}\0`
  return {
    of(uid = '') {
      const tag = hash('sha256', begin + uid, 'hex')
      const head = PLACEHOLDER_PREFIX + tag.slice(0, OBJECT_DIGITS)
      const mixed = Number.parseInt(tag.slice(OBJECT_DIGITS, OBJECT_DIGITS + FIELD_DIGITS), 16)
      return (path) => head + hexDigits((fnv1a(path) ^ mixed) >>> 0)
    },
  }
}

/** Of each byte, its two hex digits. */
const HEX = Array.from({ length: 256 }, (_none, byte) => byte.toString(16).padStart(2, '0'))

/** Eight hex digits of a number of 32 bits. */
function hexDigits(value: number): string {
  const [high = '', second = ''] = [HEX[value >>> 24], HEX[(value >>> 16) & 0xff]]
  const [third = '', low = ''] = [HEX[(value >>> 8) & 0xff], HEX[value & 0xff]]
  return high + second + third + low
}

/** FNV-1a, 32 bits: tells fields of one object apart. Nothing is proved by it, so it need not be hard to invert. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  }
  return hash >>> 0
}
