/** Sets of bytes, as tables of 256 entries: 1 where the byte belongs to the set. */
export type ByteClass = Uint8Array

const BYTES = 256

/**
 * A set written as in a bracket expression, without escapes: `a-z` is a range, a dash at either end is itself.
 *
 * @throws RangeError on characters above 0x7f, which are more than one byte
 */
export function bytesOf(text: string): ByteClass {
  const set = new Uint8Array(BYTES)
  const codes = [...Buffer.from(text, 'latin1')]
  if (Buffer.from(text, 'utf8').length !== codes.length) throw new RangeError('a class is ASCII')
  for (let at = 0; at < codes.length; at++) {
    const first = codes[at] ?? 0
    const last = text[at + 1] === '-' ? codes[at + 2] : undefined
    set.fill(1, first, (last ?? first) + 1)
    if (last !== undefined) at += 2
  }
  return set
}

/** What is in any of the sets. */
export function anyOf(...sets: readonly ByteClass[]): ByteClass {
  return new Uint8Array(BYTES).map((_, byte) => Number(sets.some((set) => set[byte] === 1)))
}

/** What is in none of the sets. */
export function noneOf(...sets: readonly ByteClass[]): ByteClass {
  return anyOf(...sets).map((member) => 1 - member)
}

/** 0x00 to 0x1f and 0x7f: among them line ends, tabs and the escape of terminal sequences. */
export const CONTROL = new Uint8Array(BYTES).fill(1, 0, 0x20).fill(1, 0x7f, 0x80)
export const DIGIT = bytesOf('0-9')
export const HEX = bytesOf('0-9a-fA-F')
export const ALNUM = bytesOf('A-Za-z0-9')
/** Letters, digits and underscore. */
export const WORD = bytesOf('A-Za-z0-9_')
/** base64url without padding. */
export const URL64 = bytesOf('A-Za-z0-9_-')
/** base64 with padding. */
export const BASE64 = bytesOf('A-Za-z0-9+/=')
/** Blanks within a line. */
export const BLANK = bytesOf(' \t')
export const SPACE = bytesOf(' \t\r\n')
