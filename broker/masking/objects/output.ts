/** What goes on of an answer: its bytes as they came, but for spans that are replaced. Spans that are not decided on hold up all that follows. */
import { unmaskable } from '../json/reader.ts'

/** Most bytes that wait for a decision. */
export const MAX_WAITING_BYTES = 8 * 1024 * 1024

/** A span of the answer, counted from its begin. */
export interface Span {
  readonly start: number
  end: number
  /** What goes out instead; undefined: the bytes themselves. */
  instead: Buffer | undefined
  /** Decisions that are still owed. */
  waits: number
}

/** See the head of the file. */
export class Output {
  /** In order, not overlapping; those before `#next` are out. */
  #spans: Span[] = []
  /** Bytes that are not out. */
  #held: Buffer = Buffer.alloc(0)
  /** Where they begin, counted from the begin of the answer. */
  #begin = 0

  /** Takes a piece. @returns all bytes that are not out; the first of them has the number `begin` */
  add(chunk: Buffer): Buffer {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    return this.#held
  }

  get begin(): number {
    return this.#begin
  }

  /** Replaces a span; spans come in order. */
  replace(start: number, end: number, instead: Buffer): void {
    this.#spans.push({ start, end, instead, waits: 0 })
  }

  /** A span that is decided on later. */
  defer(start: number, end: number, instead: Buffer | undefined, waits: number): Span {
    const span: Span = { start, end, instead, waits }
    this.#spans.push(span)
    return span
  }

  /** Gives out what is decided. @param upTo - bytes behind it are not read yet @throws Fault `answer_unmaskable` where too much waits */
  take(upTo: number): readonly Buffer[] {
    const out: Buffer[] = []
    let at = this.#begin
    let taken = 0
    let limit = upTo
    for (const span of this.#spans) {
      if (span.waits > 0) {
        limit = span.start
        break
      }
      this.#copy(out, at, span.start)
      if (span.instead === undefined) this.#copy(out, span.start, span.end)
      else if (span.instead.length > 0) out.push(span.instead)
      at = span.end
      taken++
    }
    if (taken > 0) this.#spans = this.#spans.slice(taken)
    if (limit > at) {
      this.#copy(out, at, limit)
      at = limit
    }
    this.#held = this.#held.subarray(at - this.#begin)
    this.#begin = at
    if (upTo - at > MAX_WAITING_BYTES) throw unmaskable('a kind comes too late')
    // one write to a socket each would cost far more than the copy
    return out.length > 1 ? [Buffer.concat(out)] : out
  }

  #copy(out: Buffer[], start: number, end: number): void {
    if (end > start) out.push(this.#held.subarray(start - this.#begin, end - this.#begin))
  }
}
