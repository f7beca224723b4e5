/** Keys that mean something, told by the hash that the reader makes of each key. */
import { stringOf } from '../json/reader.ts'

/** A key that means nothing. */
export const OTHER = 0
const WORDS = [
  '',
  'kind',
  'apiVersion',
  'metadata',
  'data',
  'stringData',
  'binaryData',
  'items',
  'rows',
  'object',
  'env',
  'httpHeaders',
  'args',
  'command',
  'annotations',
  'uid',
  'managedFields',
  'name',
  'value',
  'message',
  'note',
] as const

export const KIND = 1
export const API_VERSION = 2
export const METADATA = 3
export const DATA = 4
export const STRING_DATA = 5
export const BINARY_DATA = 6
export const ITEMS = 7
export const ROWS = 8
export const OBJECT = 9
export const ENV = 10
export const HTTP_HEADERS = 11
export const ARGS = 12
export const COMMAND = 13
export const ANNOTATIONS = 14
export const UID = 15
export const MANAGED_FIELDS = 16
export const NAME = 17
export const VALUE = 18
export const MESSAGE = 19
export const NOTE = 20

const SLOTS = 256
const ids = new Uint8Array(SLOTS)
const hashes = new Int32Array(SLOTS)
const byText = new Map<string, number>()

for (const [id, word] of WORDS.entries()) {
  if (id === OTHER) continue
  byText.set(word, id)
  const hash = fnv1a(Buffer.from(word))
  let slot = hash & (SLOTS - 1)
  while (ids[slot] !== 0) slot = (slot + 1) & (SLOTS - 1)
  ids[slot] = id
  hashes[slot] = hash
}

function fnv1a(bytes: Buffer): number {
  let hash = 0x811c9dc5 | 0
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash
}

/** Which key it is. @param hash - as the reader made it */
export function keyId(
  bytes: Buffer,
  start: number,
  end: number,
  isEscaped: boolean,
  hash: number,
): number {
  let slot = hash & (SLOTS - 1)
  for (;;) {
    const id = ids[slot] ?? OTHER
    if (id === OTHER) return OTHER
    if (hashes[slot] === hash) {
      if (isEscaped) return byText.get(keyText(bytes, start, end, true)) ?? OTHER
      return isWord(WORDS[id] ?? '', bytes, start, end) ? id : OTHER
    }
    slot = (slot + 1) & (SLOTS - 1)
  }
}

function isWord(word: string, bytes: Buffer, start: number, end: number): boolean {
  if (word.length !== end - start) return false
  for (let at = 0; at < word.length; at++)
    if (bytes[start + at] !== word.charCodeAt(at)) return false
  return true
}

/** What a key says. */
export function keyText(bytes: Buffer, start: number, end: number, isEscaped: boolean): string {
  return isEscaped ? stringOf(bytes, start - 1, end + 1) : bytes.toString('utf8', start, end)
}
