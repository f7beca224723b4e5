/** What goes on of an answer: its bytes as they came, but for spans that are replaced. Spans that are not decided on hold up all that follows. */
import { unmaskable } from '../json/reader.ts'

/** Most bytes that wait for a decision. */
export const MAX_WAITING_BYTES = 8 * 1024 * 1024

/** What stands in place of a span. */
export type Instead = string | Buffer

/** A span of the answer, counted from its begin. */
export interface Span {
  readonly start: number
  end: number
  /** What goes out instead, of ASCII alone where it is a string; undefined: the bytes themselves. */
  instead: Instead | undefined
  /** Decisions that are still owed. */
  waits: number
}

/** See the head of the file. */
export class Output {
  /** In order, not overlapping; those before `#next` are out. */
  #spans: Span[] = []
  /** Bytes that are not out. */
  #held: Buffer = Buffer.alloc(0)
  /** What they are kept in, where they came in more than one piece. */
  #room: { readonly bytes: Buffer; used: number } | undefined
  /** Where they begin, counted from the begin of the answer. */
  #begin = 0

  /** Takes a piece. @returns all bytes that are not out; the first of them has the number `begin` */
  add(chunk: Buffer): Buffer {
    if (this.#held.length === 0) {
      this.#held = chunk
      this.#room = undefined
    } else if (chunk.length > 0) this.#append(chunk)
    return this.#held
  }

  /** Behind what is held, where there is room. What was given out is never written over. */
  #append(chunk: Buffer): void {
    const held = this.#held.length
    const needed = held + chunk.length
    let room = this.#room
    if (room === undefined || room.used + chunk.length > room.bytes.length) {
      // what waits long grows by doubling, so that no piece is copied often
      const size = held > chunk.length ? 2 * needed : needed
      room = { bytes: Buffer.allocUnsafe(size), used: held }
      room.bytes.set(this.#held)
      this.#room = room
    }
    room.bytes.set(chunk, room.used)
    room.used += chunk.length
    this.#held = room.bytes.subarray(room.used - needed, room.used)
  }

  get begin(): number {
    return this.#begin
  }

  /** Replaces a span; spans come in order. */
  replace(start: number, end: number, instead: Instead): void {
    this.#spans.push({ start, end, instead, waits: 0 })
  }

  /** A span that is decided on later. */
  defer(start: number, end: number, instead: Instead | undefined, waits: number): Span {
    const span: Span = { start, end, instead, waits }
    this.#spans.push(span)
    return span
  }

  /** Gives out what is decided, in one piece. @param upTo - bytes behind it are not read yet @throws Fault `answer_unmaskable` where too much waits */
  take(upTo: number): readonly Buffer[] {
    const spans = this.#spans
    let taken = 0
    let growth = 0
    for (const { start, end, instead, waits } of spans) {
      if (waits > 0) break
      taken++
      if (instead !== undefined) growth += instead.length - (end - start)
    }
    const limit = spans[taken]?.start ?? upTo
    const begin = this.#begin
    if (upTo - limit > MAX_WAITING_BYTES) throw unmaskable('a kind comes too late')
    const from = this.#held
    this.#held = from.subarray(limit - begin)
    this.#begin = limit
    if (limit === begin) return []
    if (taken === 0) return [from.subarray(0, limit - begin)]
    this.#spans = spans.slice(taken)
    return [spliced(from, begin, limit, growth, spans, taken)]
  }
}

/** The bytes from `begin` to `limit`, with what stands in place of the first spans. */
function spliced(
  from: Buffer,
  begin: number,
  limit: number,
  growth: number,
  spans: readonly Span[],
  taken: number,
): Buffer {
  const to = Buffer.allocUnsafe(limit - begin + growth)
  let read = begin
  let written = 0
  for (let index = 0; index < taken; index++) {
    const span = spans[index]
    if (span?.instead === undefined) continue
    const { start, end, instead } = span
    to.set(from.subarray(read - begin, start - begin), written)
    written += start - read
    if (typeof instead === 'string') to.write(instead, written, 'latin1')
    else to.set(instead, written)
    written += instead.length
    read = end
  }
  to.set(from.subarray(read - begin, limit - begin), written)
  return to
}
