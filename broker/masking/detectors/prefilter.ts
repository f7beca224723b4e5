/**
 * Says of most bytes that no keyword begins there, at the price of one table look-up for every second byte: of the first four bytes of a
 * keyword, one of the two triples is met by whoever looks at every second position.
 */
import type { ByteClass } from './classes.ts'
import { literalStep, type Step } from './matcher.ts'

/** A text at which something is looked for. */
export interface Keyword<T> {
  readonly text: string
  /** In any case (ASCII). */
  readonly fold: boolean
  /** Bytes that may follow it: counts where it has three bytes only. */
  readonly next: ByteClass
  /** What is looked for there, in order. */
  readonly finds: T
}

/** A keyword that may stand `offset` bytes before a position. */
export interface Candidate<T> {
  readonly offset: number
  /** Of the keyword's first four bytes, the one that the triple does not tell: where it stands from the position, and what it may be. */
  readonly fourthAt: -1 | 3
  readonly fourth: ByteClass
  /** Takes the keyword itself. */
  readonly matches: Step
  readonly finds: T
}

/** Fewest bytes of a keyword. */
const MIN_KEYWORD_BYTES = 3
const TRIPLE = 3
const TABLE = 0x1_0000

function hash(first: number, second: number, third: number): number {
  return (first ^ (second << 4) ^ (third << 9)) & (TABLE - 1)
}

/** The bytes that stand for a byte of a keyword. */
function cases(byte: number, fold: boolean): readonly number[] {
  const letter = String.fromCharCode(byte)
  if (!fold) return [byte]
  return [...new Set([letter.toLowerCase(), letter.toUpperCase()])].map((one) => one.charCodeAt(0))
}

/** Built once; see the top of this file. */
export class Prefilter<T> {
  readonly #hit = new Uint8Array(TABLE)
  /** Index into the lists, by hash. */
  readonly #list = new Uint16Array(TABLE)
  readonly #lists: Candidate<T>[][] = [[]]
  /** Beginnings of keywords, one to three bytes, as numbers. */
  readonly #beginnings = new Set<number>()

  /** @throws RangeError where a keyword is shorter than three bytes */
  constructor(keywords: readonly Keyword<T>[]) {
    // Of two that stand at one position, the one that begins earlier comes first, and else the one that is listed first.
    for (const offset of [1, 0])
      for (const keyword of keywords) {
        const lead = this.#lead(keyword)
        const fourth = new Uint8Array(256)
        for (const byte of lead[offset === 1 ? 0 : TRIPLE] ?? []) fourth[byte] = 1
        const matches = literalStep(keyword.text, keyword.fold)
        const fourthAt = offset === 1 ? -1 : TRIPLE
        this.#add({ offset, fourthAt, fourth, matches, finds: keyword.finds }, lead)
      }
  }

  /** The first four bytes, each with all that may stand there. */
  #lead({ text, fold, next }: Keyword<T>): readonly (readonly number[])[] {
    const bytes = Buffer.from(text, 'latin1')
    if (bytes.length < MIN_KEYWORD_BYTES) throw new RangeError(`keyword ${text} is too short`)
    const lead = [...bytes.subarray(0, TRIPLE + 1)].map((byte) => cases(byte, fold))
    this.#begin(lead.slice(0, TRIPLE), 0)
    if (lead.length === TRIPLE) lead.push([...next.keys()].filter((byte) => next[byte] === 1))
    return lead
  }

  #begin([here, ...rest]: readonly (readonly number[])[], before: number): void {
    for (const byte of here ?? []) {
      const beginning = before * 256 + byte + 1
      this.#beginnings.add(beginning)
      this.#begin(rest, beginning)
    }
  }

  #add(candidate: Candidate<T>, lead: readonly (readonly number[])[]): void {
    const [first = [], second = [], third = []] = lead.slice(candidate.offset)
    const places = new Set<number>()
    for (const a of first) for (const b of second) for (const c of third) places.add(hash(a, b, c))
    for (const place of places) {
      this.#hit[place] = 1
      if (this.#list[place] === 0) this.#list[place] = this.#lists.push([]) - 1
      this.#lists[this.#list[place] ?? 0]?.push(candidate)
    }
  }

  /** The next position, `from` or an even distance behind it, at which something may be; -1 where there is none. */
  next(bytes: Buffer, from: number): number {
    const hit = this.#hit
    const last = bytes.length - TRIPLE
    let first = bytes[from] ?? 0
    for (let at = from; at <= last; at += 2) {
      const third = bytes[at + 2] ?? 0
      if (hit[(first ^ ((bytes[at + 1] ?? 0) << 4) ^ (third << 9)) & (TABLE - 1)] === 1) return at
      first = third
    }
    return -1
  }

  /** What may be at a position that `next` gave. */
  at(bytes: Buffer, at: number): readonly Candidate<T>[] {
    const place = hash(bytes[at] ?? 0, bytes[at + 1] ?? 0, bytes[at + 2] ?? 0)
    return this.#lists[this.#list[place] ?? 0] ?? []
  }

  /** Where the last bytes begin that may become a keyword; the length where they cannot. */
  unfinished(bytes: Buffer, from: number): number {
    for (let at = Math.max(from, bytes.length - TRIPLE); at < bytes.length; at++) {
      let beginning = 0
      for (const byte of bytes.subarray(at)) beginning = beginning * 256 + byte + 1
      if (this.#beginnings.has(beginning)) return at
    }
    return bytes.length
  }
}
