/**
 * Which entries of a block have a term: up to 63 as a list of 16-bit numbers, more as a bit map of 128 bytes. The length
 * tells which it is.
 */
import { Fault } from '../../../shared/errors.ts'

/** Entries of a block; the ranges that retention removes are whole blocks. */
export const BLOCK_ENTRIES = 1024
const MAP_BYTES = BLOCK_ENTRIES / 8
const MAX_LISTED = MAP_BYTES / 2 - 1

/** @param offsets - within the block, ascending, each once */
export function encodePosting(offsets: readonly number[]): Uint8Array {
  if (offsets.length <= MAX_LISTED) {
    const bytes = new Uint8Array(offsets.length * 2)
    for (const [index, offset] of offsets.entries()) {
      bytes[index * 2] = offset >> 8
      bytes[index * 2 + 1] = offset & 0xff
    }
    return bytes
  }
  const bytes = new Uint8Array(MAP_BYTES)
  for (const offset of offsets) bytes[offset >> 3] = (bytes[offset >> 3] ?? 0) | (1 << (offset & 7))
  return bytes
}

/** As a bit map. @throws {@link Fault} `store_failed` for bytes that no posting has */
export function decodePosting(bytes: Uint8Array): Uint8Array {
  if (bytes.length === MAP_BYTES) return bytes
  if (bytes.length > MAP_BYTES || bytes.length % 2 !== 0)
    throw new Fault('store_failed', 'a posting is not as expected')
  const map = new Uint8Array(MAP_BYTES)
  for (let index = 0; index < bytes.length; index += 2) {
    const offset = ((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0)
    if (offset >= BLOCK_ENTRIES) throw new Fault('store_failed', 'a posting leaves its block')
    map[offset >> 3] = (map[offset >> 3] ?? 0) | (1 << (offset & 7))
  }
  return map
}

/** What is in both. */
export function intersect(one: Uint8Array, other: Uint8Array): Uint8Array {
  return one.map((byte, index) => byte & (other[index] ?? 0))
}

/** What is in any of both. */
export function unite(one: Uint8Array, other: Uint8Array): Uint8Array {
  return one.map((byte, index) => byte | (other[index] ?? 0))
}

/** Every entry of a block. */
export function wholeBlock(): Uint8Array {
  return new Uint8Array(MAP_BYTES).fill(0xff)
}

/** Offsets in a map, the highest first. */
export function* offsetsDown(map: Uint8Array): Generator<number> {
  for (let byte = MAP_BYTES - 1; byte >= 0; byte -= 1) {
    const bits = map[byte] ?? 0
    if (bits === 0) continue
    for (let bit = 7; bit >= 0; bit -= 1) if ((bits & (1 << bit)) !== 0) yield byte * 8 + bit
  }
}
