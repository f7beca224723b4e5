/** C2SP tlog-tiles entry bundles: for each entry its length as a big-endian uint16, then its bytes. */
import { TILE_WIDTH } from './tree.ts'

/** Longest entry that a bundle can hold, bytes. */
export const MAX_ENTRY_BYTES = 65_535

const LENGTH_BYTES = 2

/** The bundle of 1 to 256 entries; RangeError for another number, or an entry that is too long. */
export function encodeBundle(entries: readonly Uint8Array[]): Uint8Array {
  if (entries.length === 0 || entries.length > TILE_WIDTH) {
    throw new RangeError(`a bundle of ${String(entries.length)} entries`)
  }
  const parts: Uint8Array[] = []
  for (const entry of entries) {
    if (entry.length > MAX_ENTRY_BYTES)
      throw new RangeError(`an entry of ${String(entry.length)} bytes`)
    const length = Buffer.alloc(LENGTH_BYTES)
    length.writeUInt16BE(entry.length)
    parts.push(length, entry)
  }
  return Buffer.concat(parts)
}

/** The entries of a bundle of exactly `width`; undefined when the bytes hold more, fewer, or end within an entry. */
export function decodeBundle(bytes: Uint8Array, width: number): Uint8Array[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const entries: Uint8Array[] = []
  let at = 0
  while (entries.length < width) {
    if (at + LENGTH_BYTES > bytes.length) return undefined
    const start = at + LENGTH_BYTES
    at = start + view.getUint16(at)
    if (at > bytes.length) return undefined
    entries.push(bytes.slice(start, at))
  }
  return at === bytes.length ? entries : undefined
}
