/** Lines of a session's streams, and a literal text in them, in linear time: whoever made the output may have made it to be slow. */
import type { GrepMatch } from '../../shared/recording/session-wire.ts'
import type { EventView, StreamName } from '../../shared/recording/payloads.ts'

/** Longest part of a line that is looked at as one, in UTF-16 code units; a longer line is looked at in parts that overlap. */
export const MAX_LINE_LENGTH = 64 * 1024
/** What of a line is shown before and behind the match, in code units. */
const SHOWN_BEFORE = 120
const SHOWN_LENGTH = 400

/**
 * Escape sequences (ECMA-48) as far as they go within a line, controls, and what is written without being seen: a text is found also where they are
 * between its letters. A control string that nobody ends goes to the end of its line, so that it hides no more than that. The classes
 * of each alternative are disjoint and none has the escape that begins the next one: linear.
 */
const UNSEEN =
  // eslint-disable-next-line no-control-regex -- these are what is looked for
  /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]?|(?:\u001b[PX^_\]]|[\u0090\u0098\u009d-\u009f])[^\u0007\u001b\u009c]*(?:\u0007|\u001b\\|\u009c)?|\u001b[ -/]*[0-~]?|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]|[\p{Cf}\p{Co}\p{Cs}]/gu

/** A line as a person would read it: no escape sequence, no control, nothing that changes its direction. */
export function plainLine(line: string): string {
  return line.replace(UNSEEN, '')
}

/** Finds a text. @returns where it is first, or -1 */
export type Find = (line: string) => number

/** Makes it (Knuth, Morris, Pratt): each code unit of a line is looked at twice at most. @param text - not empty */
export function finder(text: string): Find {
  const fallback = [0]
  for (let i = 1, k = 0; i < text.length; i += 1) {
    while (k > 0 && text[i] !== text[k]) k = fallback[k - 1] ?? 0
    if (text[i] === text[k]) k += 1
    fallback[i] = k
  }
  return (line) => {
    let k = 0
    for (let i = 0; i < line.length; i += 1) {
      while (k > 0 && line[i] !== text[k]) k = fallback[k - 1] ?? 0
      if (line[i] === text[k]) k += 1
      if (k === text.length) return i - k + 1
    }
    return -1
  }
}

/** What was found of a line. */
export type Found = Pick<GrepMatch, 'atUs' | 'stream' | 'line' | 'text'>

interface Stream {
  readonly decoder: InstanceType<typeof TextDecoder>
  /** The line that has begun. */
  held: string
  /** When it began. */
  atUs: number
  /** Its number. */
  line: number
  /** Whether it was found in already. */
  found: boolean
}

/** Searches the streams of one session. */
export class LineSearch {
  readonly #find: Find
  readonly #ignoreCase: boolean
  readonly #overlap: number
  readonly #streams = new Map<StreamName, Stream>()

  /** @param text - not empty, without line breaks */
  constructor(text: string, ignoreCase: boolean) {
    this.#ignoreCase = ignoreCase
    this.#find = finder(ignoreCase ? text.toLowerCase() : text)
    this.#overlap = text.length - 1
  }

  /** Takes the next event. @returns what was found in the lines that end in it */
  take(view: EventView): Found[] {
    if (view.name !== 'stdin' && view.name !== 'stdout' && view.name !== 'stderr') return []
    const stream = this.#streamOf(view.name)
    const text = stream.decoder.decode(view.bytes, { stream: true })
    return this.#lines(view.name, stream, text, view.atUs)
  }

  /** Says that nothing more comes. */
  end(): Found[] {
    return [...this.#streams].flatMap(([name, stream]) => {
      stream.held += stream.decoder.decode()
      return this.#search(name, stream)
    })
  }

  #streamOf(name: StreamName): Stream {
    const known = this.#streams.get(name)
    if (known !== undefined) return known
    const made = { decoder: new TextDecoder(), held: '', atUs: 0, line: 1, found: false }
    this.#streams.set(name, made)
    return made
  }

  #lines(name: StreamName, stream: Stream, text: string, atUs: number): Found[] {
    const found: Found[] = []
    let from = 0
    while (from < text.length) {
      const end = text.indexOf('\n', from)
      const to = end === -1 ? text.length : end
      if (stream.held === '') stream.atUs = atUs
      stream.held += text.slice(from, to)
      if (end !== -1) {
        found.push(...this.#search(name, stream))
        stream.line += 1
        stream.held = ''
        stream.found = false
      } else if (stream.held.length > MAX_LINE_LENGTH) {
        found.push(...this.#search(name, stream))
        stream.held = this.#overlap === 0 ? '' : stream.held.slice(-this.#overlap)
      }
      from = to + 1
    }
    return found
  }

  #search(name: StreamName, stream: Stream): Found[] {
    if (stream.found || stream.held === '') return []
    const plain = plainLine(stream.held)
    const searched = this.#ignoreCase ? plain.toLowerCase() : plain
    const at = this.#find(searched)
    if (at === -1) return []
    stream.found = true
    const from = Math.max(at - SHOWN_BEFORE, 0)
    const text = plain.slice(from, from + SHOWN_LENGTH).toWellFormed()
    return [{ atUs: stream.atUs, stream: name, line: stream.line, text }]
  }
}
