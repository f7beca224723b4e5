/** What placeholders look like in a text, plain or in base64: pieces of which each placeholder has at least one. */
import { PLACEHOLDER_PREFIX } from '../placeholder.ts'

/** Base64 takes three bytes at a time: a text stands in it in one of so many ways. */
const ALIGNMENTS = [0, 1, 2]
/** Bits of a byte, and of a character of base64. */
const BYTE_BITS = 8
const CHAR_BITS = 6
/** Shortest text that can hold a placeholder: the prefix itself. */
const MIN_LENGTH = PLACEHOLDER_PREFIX.length
/** Shortest base64 of base64 that can hold one. */
const MIN_TWICE = Math.floor((MIN_LENGTH * BYTE_BITS * BYTE_BITS) / (CHAR_BITS * CHAR_BITS))
/** What stands between the characters of base64 that was broken into lines: line ends, and the indent of the text around it. */
const BREAKS = /[\r\n\t ]+/g
/** A text that is base64 as a whole, in either alphabet. */
const BASE64 = /^[A-Za-z0-9+/_-]+={0,2}$/

const ENCODED = everyAlignment([PLACEHOLDER_PREFIX])
const TWICE = everyAlignment(ENCODED)
const NEEDLES: readonly string[] = [PLACEHOLDER_PREFIX, ...ENCODED, ...TWICE]
/** One pass for all of them; none of their characters means anything in a pattern. */
const NEEDLE = new RegExp(NEEDLES.join('|'))

/** Whether a text has a placeholder in it: plain, or in base64 once or twice, at any place, in either alphabet, broken into lines or not. */
export function hasPlaceholder(text: string): boolean {
  if (text.length < MIN_LENGTH) return false
  if (NEEDLE.test(text)) return true
  const whole = text.replaceAll(BREAKS, '')
  if (whole.length < text.length && NEEDLE.test(whole)) return true
  // base64 of base64 that was broken into lines: the inner line ends are in no needle
  return whole.length >= MIN_TWICE && BASE64.test(whole) && hasBrokenInside(whole)
}

/** The same of bytes that are not looked into: protobuf and CBOR have texts and bytes as they are. */
export function hasPlaceholderBytes(bytes: Buffer): boolean {
  return hasPlaceholder(bytes.toString('latin1'))
}

function hasBrokenInside(encoded: string): boolean {
  const inner = Buffer.from(encoded, 'base64').toString('latin1')
  const whole = inner.replaceAll(BREAKS, '')
  return whole.length < inner.length && NEEDLE.test(whole)
}

/**
 * Of each text the part of its base64 that depends on nothing around it, in every alignment. Letters, digits and `-` never make the two
 * characters in which the alphabets differ (RFC 4648, section 5).
 */
function everyAlignment(texts: readonly string[]): readonly string[] {
  return texts.flatMap((text) =>
    ALIGNMENTS.map((before) => {
      const bytes = Buffer.concat([Buffer.alloc(before), Buffer.from(text)])
      const first = Math.ceil((before * BYTE_BITS) / CHAR_BITS)
      const end = Math.floor((bytes.length * BYTE_BITS) / CHAR_BITS)
      return bytes.toString('base64').slice(first, end)
    }),
  )
}
