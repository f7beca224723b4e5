/**
 * JSON that can be read one way only (RFC 8259, strictly): UTF-8, no byte order mark, nothing behind the value, each key
 * once, depth and size bounded. Where decoders disagree (duplicate keys, lone surrogates) the text is refused; where
 * `JSON.parse` would round (integers beyond 2^53), the number comes back as a bigint. Objects have no prototype.
 */

/** Deepest nesting that is read; no built-in kind comes near it. */
export const MAX_JSON_DEPTH = 128
/** Most values of one document, keys not counted: what reading costs is bounded by the size, and by this. */
export const MAX_JSON_VALUES = 500_000

/** A value that was read. */
export type JsonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue }

/** What was read, or why it cannot be read one way only; the text itself is never repeated. */
export type JsonResult = { readonly value: JsonValue } | { readonly problem: string }

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Reads bytes. */
export function readStrictJson(bytes: Uint8Array): JsonResult {
  let text: string
  try {
    text = utf8.decode(bytes)
  } catch {
    return { problem: 'it is not UTF-8' }
  }
  return readStrictJsonText(text)
}

/** Reads text. */
export function readStrictJsonText(text: string): JsonResult {
  try {
    return { value: new Reader(text).document() }
  } catch (error) {
    if (error instanceof Unreadable) return { problem: error.message }
    throw error
  }
}

class Unreadable extends Error {}

const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const INTEGER = /^-?\d+$/
/** Characters of a string that stand for themselves (RFC 8259, section 7). */
// eslint-disable-next-line no-control-regex -- control characters are what must not be there
const PLAIN = /[^"\\\u0000-\u001f]*/y
const SPACE = /[ \t\n\r]*/y
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
}
const LITERALS: readonly (readonly [string, JsonValue])[] = [
  ['true', true],
  ['false', false],
  ['null', null],
]

class Reader {
  readonly #text: string
  #at = 0
  #values = 0

  constructor(text: string) {
    this.#text = text
  }

  document(): JsonValue {
    const value = this.#value(0)
    this.#space()
    if (this.#at < this.#text.length) throw new Unreadable('something follows the JSON value')
    return value
  }

  #value(depth: number): JsonValue {
    if (depth > MAX_JSON_DEPTH) throw new Unreadable(`it is nested deeper than ${MAX_JSON_DEPTH}`)
    this.#values += 1
    if (this.#values > MAX_JSON_VALUES)
      throw new Unreadable(`it has more than ${MAX_JSON_VALUES} values`)
    this.#space()
    switch (this.#text[this.#at]) {
      case '{':
        return this.#object(depth)
      case '[':
        return this.#array(depth)
      case '"':
        return this.#string()
      default:
        return this.#scalar()
    }
  }

  #object(depth: number): JsonValue {
    const object: Record<string, JsonValue> = {}
    Object.setPrototypeOf(object, null)
    this.#at += 1
    if (this.#ends('}')) return object
    for (;;) {
      this.#space()
      if (this.#text[this.#at] !== '"') throw new Unreadable('a key is no string')
      const key = this.#string()
      if (key in object) throw new Unreadable('a key is there twice')
      this.#space()
      this.#expect(':')
      object[key] = this.#value(depth + 1)
      if (this.#ends('}')) return object
      this.#expect(',')
    }
  }

  #array(depth: number): JsonValue {
    const items: JsonValue[] = []
    this.#at += 1
    if (this.#ends(']')) return items
    for (;;) {
      items.push(this.#value(depth + 1))
      if (this.#ends(']')) return items
      this.#expect(',')
    }
  }

  #string(): string {
    this.#at += 1
    let value = this.#match(PLAIN)
    while (this.#text[this.#at] !== '"') {
      if (this.#text[this.#at] !== '\\')
        throw new Unreadable('a string does not end, or has a control character')
      value += this.#escape()
      value += this.#match(PLAIN)
    }
    this.#at += 1
    if (!value.isWellFormed()) throw new Unreadable('a string has half of a surrogate pair')
    return value
  }

  #escape(): string {
    const letter = this.#text[this.#at + 1] ?? ''
    const simple = ESCAPES[letter]
    if (simple !== undefined) {
      this.#at += 2
      return simple
    }
    const digits = this.#text.slice(this.#at + 2, this.#at + 6)
    if (letter !== 'u' || !/^[0-9a-fA-F]{4}$/.test(digits))
      throw new Unreadable('an escape is broken')
    this.#at += 6
    return String.fromCharCode(Number.parseInt(digits, 16))
  }

  #scalar(): JsonValue {
    for (const [word, value] of LITERALS) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length
        return value
      }
    }
    const digits = this.#match(NUMBER)
    if (digits === '') throw new Unreadable('it is no JSON')
    const number = Number(digits)
    if (!Number.isFinite(number)) throw new Unreadable('a number is out of range')
    return INTEGER.test(digits) && !Number.isSafeInteger(number) ? BigInt(digits) : number
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0] ?? ''
    this.#at += found.length
    return found
  }

  #space(): void {
    const code = this.#text.charCodeAt(this.#at)
    if (code === 32 || (code >= 9 && code <= 13)) this.#match(SPACE)
  }

  #ends(mark: string): boolean {
    this.#space()
    if (this.#text[this.#at] !== mark) return false
    this.#at += 1
    return true
  }

  #expect(mark: string): void {
    this.#space()
    if (this.#text[this.#at] !== mark) throw new Unreadable(`a "${mark}" is missing`)
    this.#at += 1
  }
}
