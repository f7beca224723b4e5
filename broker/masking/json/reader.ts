/**
 * Reads JSON text (RFC 8259) from bytes as they come, and calls a handler for each token. Strict: UTF-8, no byte order
 * mark, each key once in its object, nothing behind the value, depth and length bounded. What two readers could understand
 * differently is refused, because a masker that reads a text otherwise than its client does hides nothing.
 */
import { Fault } from '../../../shared/errors.ts'
import { DuplicateKeys } from './duplicates.ts'

/** Deepest nesting. */
export const MAX_DEPTH = 128
/** Longest token, in bytes: the API server itself stores no object of more than 3 MiB. */
export const MAX_TOKEN_BYTES = 8 * 1024 * 1024

/** Is told of each token. `bytes` are good during the call alone. */
export interface TokenHandler {
  /** A key, without its quotes. @param hash - FNV-1a of its bytes, escapes resolved */
  key(bytes: Buffer, start: number, end: number, isEscaped: boolean, hash: number): void
  /** A string, with its quotes. */
  text(bytes: Buffer, start: number, end: number, isEscaped: boolean): void
  /** A number, `true`, `false` or `null`. */
  plain(bytes: Buffer, start: number, end: number): void
  /** An object or an array begins at this position. */
  open(at: number, isArray: boolean): void
  /** The innermost one ends before this position. */
  close(end: number): void
}

/** There are not enough bytes to tell. */
const MORE = -1

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d
const LETTER_U = 0x75

/** What comes next. */
const VALUE = 0
const FIRST_VALUE = 1
const KEY = 2
const FIRST_KEY = 3
const AFTER_KEY = 4
const AFTER_VALUE = 5
const NOTHING = 6
type Expected = 0 | 1 | 2 | 3 | 4 | 5 | 6

/** Bytes that stand for themselves within a string: no control characters, quotes, backslashes (RFC 8259, section 7). */
const SELF = table((byte) => byte >= 0x20 && byte !== QUOTE && byte !== BACKSLASH)
const SPACE = table((byte) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09)
const ESCAPED = table((byte) => '"\\/bfnrt'.includes(String.fromCharCode(byte)))
const HEX = table((byte) => /[0-9a-fA-F]/.test(String.fromCharCode(byte)))
/** Bytes of numbers and literals: a token of these ends at the first other byte. */
const WORD = table((byte) => /[-+.0-9A-Za-z]/.test(String.fromCharCode(byte)))
const NUMBER = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/
/** No number that means something is longer. */
const MAX_WORD_BYTES = 512

function table(test: (byte: number) => boolean): Uint8Array {
  return Uint8Array.from({ length: 256 }, (_none, byte) => (test(byte) ? 1 : 0))
}

/** A fault of the text. @param why - without anything of the text */
export function unmaskable(why: string): Fault {
  return new Fault('answer_unmaskable', why)
}

/** See the head of the file. */
export class JsonReader {
  readonly #handler: TokenHandler
  /** Several values may follow one another, as in a watch. */
  readonly #many: boolean
  readonly #keys = new DuplicateKeys()
  /** Of each open container, whether it is an array. */
  readonly #arrays = new Uint8Array(MAX_DEPTH + 1)
  #depth = 0
  #expected: Expected = VALUE
  /** How far the string that begins the rest was looked at, counted from its begin; 0 where nothing is known. */
  #looked = 0
  #wasEscaped = false

  constructor(handler: TokenHandler, many: boolean) {
    this.#handler = handler
    this.#many = many
  }

  /** Whether what was read is complete: of several values there may be none. */
  get isWhole(): boolean {
    return this.#depth === 0 && (this.#many || this.#expected === NOTHING)
  }

  /** Open containers. */
  get depth(): number {
    return this.#depth
  }

  /**
   * Reads on.
   *
   * @param from - where the last call stopped
   * @param isEnd - nothing follows
   * @returns where it stopped: at the end, or at the begin of a token that is not complete
   * @throws Fault `answer_unmaskable`
   */
  read(bytes: Buffer, from: number, isEnd: boolean): number {
    const { length } = bytes
    let at = from
    while (at < length) {
      const byte = bytes[at] ?? 0
      if (SPACE[byte] === 1) {
        at++
        continue
      }
      const next = this.#token(bytes, at, byte, isEnd)
      if (next === MORE) {
        if (length - at > MAX_TOKEN_BYTES) throw unmaskable('a value is too long')
        break
      }
      at = next
    }
    if (isEnd && at < length) throw unmaskable('it ends within a value')
    return at
  }

  #token(bytes: Buffer, at: number, byte: number, isEnd: boolean): number {
    switch (this.#expected) {
      case VALUE:
        return this.#value(bytes, at, byte, isEnd)
      case FIRST_VALUE:
        return byte === CLOSE_ARRAY ? this.#close(at) : this.#value(bytes, at, byte, isEnd)
      case KEY:
        return this.#key(bytes, at, byte)
      case FIRST_KEY:
        return byte === CLOSE_OBJECT ? this.#close(at) : this.#key(bytes, at, byte)
      case AFTER_KEY:
        if (byte !== COLON) throw unmaskable('a colon is missing')
        this.#expected = VALUE
        return at + 1
      case AFTER_VALUE:
        return this.#after(at, byte)
      case NOTHING:
        throw unmaskable('something follows the value')
    }
  }

  #value(bytes: Buffer, at: number, byte: number, isEnd: boolean): number {
    if (byte === QUOTE) {
      const end = this.#string(bytes, at)
      if (end === MORE) return MORE
      this.#valueEnds()
      this.#handler.text(bytes, at, end, this.#wasEscaped)
      return end
    }
    if (byte === OPEN_OBJECT) return this.#open(at, false)
    if (byte === OPEN_ARRAY) return this.#open(at, true)
    return this.#word(bytes, at, isEnd)
  }

  #word(bytes: Buffer, at: number, isEnd: boolean): number {
    let end = at
    while (end < bytes.length && WORD[bytes[end] ?? 0] === 1) end++
    if (end - at > MAX_WORD_BYTES) throw unmaskable('a number is too long')
    if (end === bytes.length && !isEnd) return MORE
    const word = bytes.toString('latin1', at, end)
    if (word !== 'true' && word !== 'false' && word !== 'null' && !NUMBER.test(word))
      throw unmaskable('there is no value where one should be')
    this.#valueEnds()
    this.#handler.plain(bytes, at, end)
    return end
  }

  #open(at: number, isArray: boolean): number {
    if (this.#depth === MAX_DEPTH) throw unmaskable('it is nested too deeply')
    this.#depth++
    this.#arrays[this.#depth] = isArray ? 1 : 0
    this.#expected = isArray ? FIRST_VALUE : FIRST_KEY
    this.#keys.open(this.#depth)
    this.#handler.open(at, isArray)
    return at + 1
  }

  #close(at: number): number {
    this.#depth--
    this.#valueEnds()
    this.#handler.close(at + 1)
    return at + 1
  }

  #valueEnds(): void {
    if (this.#depth > 0) this.#expected = AFTER_VALUE
    else this.#expected = this.#many ? VALUE : NOTHING
  }

  #after(at: number, byte: number): number {
    const isArray = this.#arrays[this.#depth] === 1
    if (byte === COMMA) {
      this.#expected = isArray ? VALUE : KEY
      return at + 1
    }
    if (byte === (isArray ? CLOSE_ARRAY : CLOSE_OBJECT)) return this.#close(at)
    throw unmaskable('a comma is missing')
  }

  #key(bytes: Buffer, at: number, byte: number): number {
    if (byte !== QUOTE) throw unmaskable('a key is missing')
    const end = this.#string(bytes, at)
    if (end === MORE) return MORE
    const isEscaped = this.#wasEscaped
    const hash = isEscaped ? this.#escapedKey(bytes, at, end) : this.#plainKey(bytes, at, end)
    this.#expected = AFTER_KEY
    this.#handler.key(bytes, at + 1, end - 1, isEscaped, hash)
    return end
  }

  #plainKey(bytes: Buffer, at: number, end: number): number {
    return this.#keys.add(this.#depth, bytes, at + 1, end - 1)
  }

  #escapedKey(bytes: Buffer, at: number, end: number): number {
    const text = stringOf(bytes, at, end)
    // decoders make different things of half a character
    if (!text.isWellFormed()) throw unmaskable('a key has half a character')
    const key = Buffer.from(text)
    return this.#keys.add(this.#depth, key, 0, key.length)
  }

  /** @returns the end of the string that begins at a quote */
  #string(bytes: Buffer, at: number): number {
    const { length } = bytes
    let next = at + 1
    if (this.#looked > 0) next = at + this.#looked
    else this.#wasEscaped = false
    for (;;) {
      while (next < length && SELF[bytes[next] ?? 0] === 1) next++
      if (next === length) return this.#unfinished(next - at)
      const byte = bytes[next] ?? 0
      if (byte === QUOTE) {
        this.#looked = 0
        return next + 1
      }
      if (byte !== BACKSLASH) throw unmaskable('a string has a control character')
      this.#wasEscaped = true
      const end = escapeEnd(bytes, next)
      if (end === MORE) return this.#unfinished(next - at)
      next = end
    }
  }

  #unfinished(looked: number): number {
    this.#looked = looked
    return MORE
  }
}

/** The end of an escape sequence that begins at a backslash. */
function escapeEnd(bytes: Buffer, at: number): number {
  if (at + 1 >= bytes.length) return MORE
  const letter = bytes[at + 1] ?? 0
  if (ESCAPED[letter] === 1) return at + 2
  if (letter !== LETTER_U) throw unmaskable('a string has an escape that there is not')
  for (let digit = at + 2; digit < at + 6; digit++) {
    if (digit >= bytes.length) return MORE
    if (HEX[bytes[digit] ?? 0] !== 1) throw unmaskable('a string has an escape that there is not')
  }
  return at + 6
}

/** What a string says that was read already. @param start - of its opening quote @param end - behind its closing one */
export function stringOf(bytes: Buffer, start: number, end: number): string {
  const value: unknown = JSON.parse(bytes.toString('utf8', start, end))
  if (typeof value !== 'string') throw new TypeError('no string')
  return value
}
