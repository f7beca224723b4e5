/**
 * Goes through the rest of a list whose kind holds no secrets, for the copies of other objects that annotations may hold.
 * A copy is a text with quotes in it, which stand there behind backslashes; so, where there is no backslash, there is no copy,
 * and the search for one costs next to nothing. Where a string begins is told by the quote before: what was
 * read so far is well-formed, and a list of Kubernetes' own is written by its own encoder.
 */
import { unmaskable } from '../json/reader.ts'
import type { Instead } from './output.ts'
import type { TextToken } from './texts.ts'

/** So much of a list is read in full before. */
export const PLAIN_FROM_BYTES = 64 * 1024

/** Longest string, in bytes as it is written: annotations of one object have 256 KiB (apimachinery, TotalAnnotationSizeLimitB). */
const MAX_STRING_BYTES = 2 * 1024 * 1024
const QUOTE = 0x22
const BACKSLASH = 0x5c
const NOTHING = Buffer.alloc(0)
/** How a list of Kubernetes' own ends, its items being the last member, from the last quote on. */
const END = /^[^]?[^"]*\]\s*\}\s*$/

/** See the head of the file. */
export class EmbeddedMasker {
  readonly #mask: (token: TextToken) => Instead | undefined
  /** From the last quote on: it may begin a string. */
  #rest: Buffer = NOTHING
  /** It is one, with an escape. */
  #isWithinString = false

  /** @param mask - what stands in place of a text; undefined where it may stay */
  constructor(mask: (token: TextToken) => Instead | undefined) {
    this.#mask = mask
  }

  /** Takes a piece, of which the first begins outside of any string. @throws Fault `answer_unmaskable` */
  push(chunk: Buffer): readonly Buffer[] {
    return this.#passOn(chunk) ?? this.#search(chunk)
  }

  /** Without a copy, where no string has an escape, and what was kept is no string that had one. */
  #passOn(chunk: Buffer): readonly Buffer[] | undefined {
    if (this.#isWithinString || chunk.includes(BACKSLASH)) return undefined
    const last = chunk.lastIndexOf(QUOTE)
    if (last === -1) return undefined
    const out = [this.#rest, chunk.subarray(0, last)]
    this.#rest = chunk.subarray(last)
    return out.filter(({ length }) => length > 0)
  }

  #search(chunk: Buffer): readonly Buffer[] {
    this.#isWithinString = false
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const out: Buffer[] = []
    let at = 0
    let found = bytes.indexOf(BACKSLASH)
    while (found !== -1) {
      const start = bytes.lastIndexOf(QUOTE, found)
      if (start < at) throw unmaskable('a backslash stands outside of a string')
      const end = stringEnd(bytes, found)
      if (end === -1) {
        this.#isWithinString = true
        return this.#keep(out, bytes, at, start)
      }
      const instead = this.#mask({ bytes, start, end, isEscaped: true })
      if (instead !== undefined) {
        out.push(bytes.subarray(at, start), Buffer.from(instead))
        at = end
      }
      found = bytes.indexOf(BACKSLASH, end)
    }
    return this.#keep(out, bytes, at, Math.max(at, bytes.lastIndexOf(QUOTE)))
  }

  /** The end. @throws Fault `answer_unmaskable` where the list is not closed */
  end(): readonly Buffer[] {
    if (!END.test(this.#rest.toString('latin1'))) throw unmaskable('it ends too early')
    return [this.#rest]
  }

  #keep(out: Buffer[], bytes: Buffer, from: number, keepFrom: number): readonly Buffer[] {
    if (keepFrom > from) out.push(bytes.subarray(from, keepFrom))
    this.#rest = bytes.subarray(keepFrom)
    if (this.#rest.length > MAX_STRING_BYTES) throw unmaskable('a value is too long')
    return out.length > 1 ? [Buffer.concat(out)] : out
  }
}

/** Behind the closing quote of a string with an escape at `at`; -1 where it is not there yet. */
function stringEnd(bytes: Buffer, at: number): number {
  let next = at
  while (next < bytes.length) {
    const byte = bytes[next]
    if (byte === QUOTE) return next + 1
    next += byte === BACKSLASH ? 2 : 1
  }
  return -1
}
