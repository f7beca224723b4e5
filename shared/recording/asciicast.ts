/**
 * Events as asciicast v3 (docs.asciinema.org/manual/asciicast/v3): a header line, then `[interval, code, data]` a line. It is a view: text
 * instead of bytes, milliseconds instead of microseconds, no content of tunnels.
 */
import { createNeutraliser, visible } from './neutralise.ts'
import type {
  ConnectionClosed,
  CopiedFile,
  EventView,
  Marker,
  RecordingHeader,
} from './payloads.ts'
import type { SessionResult } from './session-wire.ts'
import { createDecoder, createTerminalText } from './terminal-text.ts'
import type { OutputStream, TerminalText } from './terminal-text.ts'

/** A terminal's first size that comes within this time is the one it begins with, in microseconds. */
const FIRST_SIZE_US = 500_000
/** Most lines that wait for it. */
const MAX_WAITING = 100
/** Size of a terminal that says nothing. */
const DEFAULT_SIZE = { columns: 80, rows: 24 } as const
/** Longest label of a marker, in characters. */
const MAX_LABEL = 300
/** Microseconds in a millisecond; seconds in the file have three decimals. */
const US_PER_MS = 1000
const MS_PER_S = 1000

/** How it is made. */
export interface AsciicastOptions {
  /** Longest pause that a player should make, in seconds; said in the header, times stay what they are. */
  readonly idleTimeLimit?: number
  /** Leaves control sequences as they are; only for a file that its reader treats as hostile. */
  readonly raw?: boolean
}

/** Makes the file of one recording, line by line. */
export interface Asciicast {
  /** @returns lines, each with its line feed; the first of all is the header */
  event(view: EventView): readonly string[]
  /** Nothing waits any more for the size of the terminal; for who follows a session. */
  flush(): readonly string[]
  /** The recording is over, whole or not. */
  end(): readonly string[]
}

/** Makes it; the first event must be the recording's header, else nothing comes. Its methods never throw. */
export function createAsciicast(options: AsciicastOptions = {}): Asciicast {
  return new Cast(options)
}

class Cast implements Asciicast {
  readonly #options: AsciicastOptions
  #header: RecordingHeader | undefined
  #text: TerminalText
  readonly #input = createDecoder()
  readonly #typed = createNeutraliser()
  /** Lines behind the header, while the size is waited for. */
  #waiting: string[] | undefined
  #size: { readonly columns: number; readonly rows: number } = DEFAULT_SIZE
  /** Of the last line, in milliseconds since the start: intervals are differences of rounded times, so that errors do not add up. */
  #lastMs = 0

  constructor(options: AsciicastOptions) {
    this.#options = options
    this.#text = createTerminalText(true, options.raw)
  }

  event(view: EventView): readonly string[] {
    if (view.name === 'header') return this.#begin(view.value)
    if (this.#header === undefined) return []
    const late = this.#waiting !== undefined && view.atUs > FIRST_SIZE_US ? this.flush() : []
    if (view.name === 'resize' && this.#waiting !== undefined) {
      this.#size = view
      return this.flush()
    }
    const lines = this.#lines(view)
    if (this.#waiting === undefined) return [...late, ...lines]
    this.#waiting.push(...lines)
    return this.#waiting.length > MAX_WAITING ? this.flush() : []
  }

  flush(): readonly string[] {
    if (this.#waiting === undefined || this.#header === undefined) return []
    const waiting = this.#waiting
    this.#waiting = undefined
    return [this.#headerLine(this.#header), ...waiting]
  }

  end(): readonly string[] {
    if (this.#header === undefined) return []
    return [...this.flush(), ...this.#endOutput(this.#lastMs * US_PER_MS)]
  }

  #begin(header: RecordingHeader): readonly string[] {
    if (this.#header !== undefined) return []
    this.#header = header
    this.#text = createTerminalText(header.tty, this.#options.raw)
    this.#waiting = []
    return header.tty ? [] : this.flush()
  }

  #headerLine({
    kind,
    cluster,
    namespace,
    name,
    container,
    command,
    startedAt,
  }: RecordingHeader): string {
    const { columns, rows } = this.#size
    const timestamp = Math.floor(Date.parse(startedAt) / MS_PER_S)
    const { idleTimeLimit } = this.#options
    const where = container === undefined ? '' : `, container ${container}`
    return `${JSON.stringify({
      version: 3,
      term: { cols: columns, rows },
      ...(Number.isNaN(timestamp) ? {} : { timestamp }),
      ...(idleTimeLimit === undefined ? {} : { idle_time_limit: idleTimeLimit }),
      ...(command === undefined ? {} : { command: visible(command.join(' ')) }),
      title: visible(`${kind} ${namespace}/${name}${where}, ${cluster}`),
    })}\n`
  }

  #lines(view: EventView): readonly string[] {
    const { atUs } = view
    switch (view.name) {
      case 'stdout':
      case 'stderr':
        return this.#line(atUs, 'o', this.#text.write(view.name, view.bytes))
      case 'stdin':
        return this.#line(atUs, 'i', this.#typedText(view.bytes))
      case 'endOfStream':
        return view.stream === 'stdin' ? [] : this.#endOutput(atUs, view.stream)
      case 'resize':
        return this.#line(atUs, 'r', `${view.columns}x${view.rows}`)
      case 'result':
        return [...this.#endOutput(atUs), ...this.#line(atUs, 'x', String(statusOf(view.value)))]
      default: {
        const label = labelOf(view)
        return label === undefined ? [] : this.#line(atUs, 'm', label)
      }
    }
  }

  #typedText(bytes: Uint8Array): string {
    const text = this.#input(bytes)
    return this.#options.raw === true ? text : this.#typed.text(text)
  }

  #endOutput(atUs: number, ...streams: readonly OutputStream[]): readonly string[] {
    const ended: readonly OutputStream[] = streams.length === 0 ? ['stdout', 'stderr'] : streams
    return ended.flatMap((stream) => this.#line(atUs, 'o', this.#text.end(stream)))
  }

  #line(atUs: number, code: string, data: string): readonly string[] {
    if (data === '') return []
    const atMs = Math.max(Math.round(atUs / US_PER_MS), this.#lastMs)
    const interval = (atMs - this.#lastMs) / MS_PER_S
    this.#lastMs = atMs
    return [`${JSON.stringify([interval, code, data])}\n`]
  }
}

/** The exit status of a session: the program's, or 1 where the session failed without one. */
export function statusOf({ status, exitCode }: SessionResult): number {
  return exitCode ?? (status === 'Success' ? 0 : 1)
}

/** One line about an event that no terminal shows; undefined where there is nothing to say. It is safe to show. */
export function labelOf(view: EventView): string | undefined {
  const label = labelText(view)
  return label === undefined ? undefined : visible(label).slice(0, MAX_LABEL).toWellFormed()
}

function labelText(view: EventView): string | undefined {
  switch (view.name) {
    case 'marker':
      return markerText(view.value)
    case 'file':
      return fileText(view.value)
    case 'connectionOpened':
      return `connection ${view.value.connection} to port ${view.value.port} opened`
    case 'connectionClosed':
      return closedText(view.value)
    default:
      return undefined
  }
}

function markerText({ kind, text, stream, detector, length }: Marker): string {
  const what = [detector, stream, length === undefined ? undefined : `${length} bytes`]
  const known = what.filter((part) => part !== undefined).join(', ')
  return [kind, text, known].filter((part) => part !== '').join(': ')
}

function fileText({
  direction,
  name,
  type,
  size,
  sha256,
  linkName,
  truncated,
}: CopiedFile): string {
  const way = directionText(direction)
  const link = linkName === undefined ? '' : ` -> ${linkName}`
  const cut = truncated === true ? ', cut off' : ''
  const hash = sha256 === undefined ? '' : `, SHA-256 ${sha256}`
  // its name last: labels are cut
  return `${type} ${way}, ${size} bytes${cut}${hash}: ${name}${link}`
}

/** Which way a file went, in words. */
export function directionText(direction: string): string {
  if (direction === 'toPod') return 'to the pod'
  return direction === 'fromPod' ? 'from the pod' : direction
}

function closedText({ connection, bytesUp, bytesDown, error }: ConnectionClosed): string {
  const how = error === undefined ? '' : `: ${error}`
  return `connection ${connection} closed, ${bytesUp} bytes up, ${bytesDown} down${how}`
}
