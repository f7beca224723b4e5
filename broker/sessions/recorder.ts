/**
 * What a session leaves in its recording: masked output, files instead of tar, sums instead of what is left out. It decides when a session
 * that must be recorded cannot go on. Everything is taken synchronously; `room` says when to wait.
 */
import { createHash } from 'node:crypto'
import type { Hash } from 'node:crypto'
import { EVENT, encodeHead, MAX_EVENT_PAYLOAD_BYTES } from '../../shared/recording/events.ts'
import type { EventType } from '../../shared/recording/events.ts'
import type {
  SessionEnding,
  SessionFacts,
  SessionResult,
  SessionTotals,
} from '../../shared/recording/session-wire.ts'
import type { Recording } from '../../shared/policy/decision.ts'
import { maskText } from '../masking/detectors/masker.ts'
import { tarStream } from './files/tar-command.ts'
import { watchTar } from './files/tar.ts'
import type { FileWatch, TarFile } from './files/tar.ts'
import { OrderedEvents } from './ordered-events.ts'
import { createMaskedStream } from './masked-stream.ts'
import type { MaskedStream } from './masked-stream.ts'
import type { RecordingWriter } from './recordings/types.ts'
import { killedStop, RECORDING_FAILED } from './stop.ts'
import type { Stop } from './stop.ts'
import type { Output, TerminalSize } from './streams.ts'

/** How long input that is left out is counted together, in milliseconds: when each key was pressed says something of what was typed. */
const OMITTED_MS = 1_000
/** Bytes that each event needs beside its data: its header, and what masking may say of it. */
const EVENT_ROOM_BYTES = 256
/** Longest text of an error or a marker, in characters. */
const MAX_TEXT_LENGTH = 1024
/** Bytes of a connection's number before its data. */
const CONNECTION_BYTES = 4

/** See the head of the file. What takes bytes says whether they may go on: false where they are in no recording, and must be. */
export interface SessionRecorder {
  input(bytes: Buffer): boolean
  endInput(): void
  output(stream: Output, bytes: Buffer): boolean
  endOutput(stream: Output): void
  resize(size: TerminalSize): void
  result(result: SessionResult): void
  /** @returns the connection's number */
  opened(port: number): number
  fromClient(connection: number, bytes: Buffer): boolean
  toClient(connection: number, bytes: Buffer): boolean
  closed(connection: number, error?: string): void
  marker(kind: string, text: string): void
  /** Undefined while there is room for more. */
  room(): Promise<void> | undefined
  /** Settles when the session has to end. */
  readonly stopped: Promise<Stop>
  /**
   * Closes the recording.
   *
   * @returns false where it had to be recorded and is not whole
   */
  end(ending?: SessionEnding): Promise<boolean>
}

/** Of a session that no rule wants recorded. */
export const NO_RECORDER: SessionRecorder = {
  input: () => true,
  endInput: () => undefined,
  output: () => true,
  endOutput: () => undefined,
  resize: () => undefined,
  result: () => undefined,
  opened: () => 0,
  fromClient: () => true,
  toClient: () => true,
  closed: () => undefined,
  marker: () => undefined,
  room: () => undefined,
  stopped: new Promise(() => undefined),
  end: () => Promise.resolve(true),
}

/** Makes one, and writes the recording's header. @param facts - by the command of which is looked for copied files; the stream says whether there are any */
export function createRecorder(
  writer: RecordingWriter,
  terms: Recording,
  facts: SessionFacts,
): SessionRecorder {
  return new Recorder(writer, terms, facts)
}

/** What a recording says of itself. No name of a person is in it: it could not be erased. */
function headerOf(facts: SessionFacts): object {
  const { id, kind, cluster, namespace, name, container, command, tty, startedAt } = facts
  return {
    version: VERSION,
    id,
    kind,
    cluster,
    namespace,
    name,
    container,
    command,
    tty,
    startedAt,
  }
}

/** Of the format. */
const VERSION = 1

interface Connection {
  readonly port: number
  readonly up: Way
  readonly down: Way
}

interface Way {
  readonly hash: Hash
  readonly kept: MaskedStream
  bytes: number
}

const STREAM_EVENTS = { stdin: EVENT.stdin, stdout: EVENT.stdout, stderr: EVENT.stderr } as const

type StreamName = keyof typeof STREAM_EVENTS

/** A stream that may be a tar archive. */
interface Archive {
  readonly stream: 'stdin' | 'stdout'
  readonly watch: FileWatch
  /** Over all of it: headers and padding have room for more than the manifest says. */
  readonly hash: Hash
  bytes: number
  /** Of them, those that are recorded as they are. */
  plain: number
  isOver: boolean
}

class Recorder implements SessionRecorder {
  readonly stopped: Promise<Stop>
  readonly #writer: RecordingWriter
  readonly #terms: Recording
  readonly #startMs = performance.now()
  readonly #streams: Readonly<Record<StreamName, MaskedStream>>
  readonly #tar: Archive | undefined
  readonly #connections = new Map<number, Connection>()
  readonly #stop = Promise.withResolvers<Stop>()
  readonly #totals = {
    ...{ stdinBytes: 0, stdoutBytes: 0, stderrBytes: 0, connections: 0 },
    ...{ bytesUp: 0, bytesDown: 0, files: 0, masked: 0, truncated: false },
  }
  readonly #ordered: OrderedEvents
  #omitted = 0
  #omittedTimer: NodeJS.Timeout | undefined
  #result: SessionResult | undefined

  constructor(writer: RecordingWriter, terms: Recording, facts: SessionFacts) {
    this.#writer = writer
    this.#terms = terms
    this.stopped = this.#stop.promise
    this.#streams = {
      stdin: this.#stream('stdin'),
      stdout: this.#stream('stdout'),
      stderr: this.#stream('stderr'),
    }
    const { stdin, stdout, stderr } = this.#streams
    this.#ordered = new OrderedEvents(writer, () =>
      Math.min(stdin.heldSinceUs, stdout.heldSinceUs, stderr.heldSinceUs),
    )
    const stream = tarStream(facts.command ?? [])
    this.#tar = stream && {
      stream,
      watch: watchTar((file) => {
        this.#file(stream, file)
      }),
      ...{ hash: createHash('sha256'), bytes: 0, plain: 0, isOver: false },
    }
    this.#writeJson(EVENT.header, headerOf(facts), true, 0)
    const fail = (): void => {
      if (terms.mode === 'required') this.#stop.resolve(RECORDING_FAILED)
    }
    if (writer.failed.aborted) fail()
    else writer.failed.addEventListener('abort', fail, { once: true })
    writer.killed.addEventListener('abort', () => {
      this.#stop.resolve(killedStop(writer.killed.reason))
    })
  }

  input(bytes: Buffer): boolean {
    const plain = this.#plainOf('stdin', bytes)
    const kept = this.#terms.stdin ? sizeOf(plain) : 0
    if (!this.#mayGoOn(kept)) return false
    this.#totals.stdinBytes += bytes.length
    if (kept > 0) for (const piece of plain) this.#streams.stdin.push(piece, this.#now())
    this.#omit(bytes.length - kept)
    return true
  }

  endInput(): void {
    this.#endTar('stdin')
    this.#streams.stdin.flush()
    this.#writeOmitted()
    this.#write(EVENT.endOfStream, Buffer.of(EVENT.stdin))
  }

  output(stream: Output, bytes: Buffer): boolean {
    const plain = stream === 'stdout' ? this.#plainOf('stdout', bytes) : [bytes]
    if (!this.#mayGoOn(sizeOf(plain))) return false
    this.#totals[stream === 'stdout' ? 'stdoutBytes' : 'stderrBytes'] += bytes.length
    const atUs = this.#now()
    for (const piece of plain) this.#streams[stream].push(piece, atUs)
    return true
  }

  endOutput(stream: Output): void {
    if (stream === 'stdout') this.#endTar('stdout')
    this.#streams[stream].flush()
    this.#write(EVENT.endOfStream, Buffer.of(STREAM_EVENTS[stream]))
  }

  resize({ columns, rows }: TerminalSize): void {
    const payload = Buffer.alloc(4)
    payload.writeUInt16BE(columns, 0)
    payload.writeUInt16BE(rows, 2)
    this.#write(EVENT.resize, payload)
  }

  result(result: SessionResult): void {
    this.#result = result
  }

  opened(port: number): number {
    this.#totals.connections += 1
    const connection = this.#totals.connections
    this.#connections.set(connection, {
      port,
      up: this.#way(connection, EVENT.fromClient),
      down: this.#way(connection, EVENT.toClient),
    })
    this.#writeJson(EVENT.connectionOpened, { connection, port })
    return connection
  }

  fromClient(connection: number, bytes: Buffer): boolean {
    if (!this.#carry(this.#connections.get(connection)?.up, bytes)) return false
    this.#totals.bytesUp += bytes.length
    return true
  }

  toClient(connection: number, bytes: Buffer): boolean {
    if (!this.#carry(this.#connections.get(connection)?.down, bytes)) return false
    this.#totals.bytesDown += bytes.length
    return true
  }

  closed(connection: number, error?: string): void {
    const known = this.#connections.get(connection)
    if (known === undefined) return
    this.#connections.delete(connection)
    known.up.kept.flush()
    known.down.kept.flush()
    this.#writeJson(EVENT.connectionClosed, {
      connection,
      port: known.port,
      bytesUp: known.up.bytes,
      bytesDown: known.down.bytes,
      sha256Up: known.up.hash.digest('hex'),
      sha256Down: known.down.hash.digest('hex'),
      ...(error === undefined ? {} : { error: maskText(error).text.slice(0, MAX_TEXT_LENGTH) }),
    })
  }

  marker(kind: string, text: string): void {
    this.#writeJson(EVENT.marker, { kind, text: text.slice(0, MAX_TEXT_LENGTH) })
  }

  room(): Promise<void> | undefined {
    return this.#writer.room()
  }

  async end(ending?: SessionEnding): Promise<boolean> {
    for (const connection of [...this.#connections.keys()]) this.closed(connection)
    this.#endTar('stdin')
    this.#endTar('stdout')
    for (const stream of Object.values(this.#streams)) stream.flush()
    this.#writeOmitted()
    if (this.#result !== undefined) this.#writeJson(EVENT.result, this.#result, true)
    const totals: SessionTotals = { ...this.#totals }
    this.#writeJson(EVENT.end, totals, true)
    await this.#writer.end({
      totals,
      ...(this.#result === undefined ? {} : { result: this.#result }),
      ...(ending === undefined ? {} : { ending }),
    })
    return this.#terms.mode !== 'required' || !this.#writer.failed.aborted
  }

  #now(): number {
    return (performance.now() - this.#startMs) * 1000
  }

  #stream(name: StreamName): MaskedStream {
    return createMaskedStream(this.#terms.mask, {
      write: (bytes, atUs) => {
        this.#writeData(STREAM_EVENTS[name], bytes, atUs)
      },
      masked: ({ detector, length }, atUs) => {
        this.#totals.masked += 1
        this.#writeJson(
          EVENT.marker,
          { kind: 'masked', text: detector, stream: name, length },
          false,
          atUs,
        )
      },
    })
  }

  #way(connection: number, type: EventType): Way {
    const number = Buffer.alloc(CONNECTION_BYTES)
    number.writeUInt32BE(connection)
    const kept = createMaskedStream(this.#terms.mask, {
      write: (bytes, atUs) => {
        this.#writeData(type, bytes, atUs, number)
      },
      masked: ({ detector, length }, atUs) => {
        this.#totals.masked += 1
        this.#writeJson(
          EVENT.marker,
          { kind: 'masked', text: detector, connection, length },
          false,
          atUs,
        )
      },
    })
    return { hash: createHash('sha256'), kept, bytes: 0 }
  }

  #carry(way: Way | undefined, bytes: Buffer): boolean {
    if (way === undefined) return this.#mayGoOn(0)
    const left = Math.min(Math.max(this.#terms.tunnelBytes - way.bytes, 0), bytes.length)
    if (!this.#mayGoOn(left)) return false
    way.hash.update(bytes)
    way.bytes += bytes.length
    if (left > 0) way.kept.push(bytes.subarray(0, left), this.#now())
    return true
  }

  /** Whether so many bytes more still fit, and the recording is sound; where they must be recorded, none goes on without. */
  #mayGoOn(bytes: number): boolean {
    const isRequired = this.#terms.mode === 'required'
    if (isRequired && this.#writer.failed.aborted) return false
    const events = Math.ceil(bytes / MAX_EVENT_PAYLOAD_BYTES) * EVENT_ROOM_BYTES
    const total = this.#writer.bytes + this.#held + bytes + events
    if (!this.#totals.truncated && total > this.#terms.maxBytes) this.#truncate()
    return !(isRequired && this.#totals.truncated)
  }

  /** What maskers keep back. */
  get #held(): number {
    const { stdin, stdout, stderr } = this.#streams
    return stdin.held + stdout.held + stderr.held
  }

  /** What of a stream is recorded as it is. */
  #plainOf(stream: 'stdin' | 'stdout', bytes: Buffer): readonly Buffer[] {
    if (this.#tar?.stream !== stream) return [bytes]
    const plain = this.#tar.watch.push(bytes)
    this.#tar.bytes += bytes.length
    this.#tar.plain += sizeOf(plain)
    if (!this.#tar.isOver) this.#tar.hash.update(bytes)
    return this.#terms.files ? [bytes] : plain
  }

  #endTar(stream: 'stdin' | 'stdout'): void {
    if (this.#tar?.stream !== stream) return
    const plain = this.#tar.watch.end()
    this.#tar.plain += sizeOf(plain)
    this.#archive(this.#tar)
    if (this.#terms.files || (stream === 'stdin' && !this.#terms.stdin)) return
    // they have gone on already
    for (const piece of plain) this.#streams[stream].push(piece, this.#now())
  }

  /** Binds every byte of an archive, once: also what no member's hash has. */
  #archive(tar: Archive): void {
    if (tar.isOver) return
    tar.isOver = true
    const { stream, bytes, plain, hash } = tar
    if (bytes === plain) return
    const text = `an archive of ${bytes} bytes, with the SHA-256 of them all`
    const sha256 = hash.digest('hex')
    this.#writeJson(EVENT.marker, { kind: 'archive', text, stream, bytes, sha256 })
  }

  #file(stream: 'stdin' | 'stdout', file: TarFile): void {
    this.#totals.files += 1
    const direction = stream === 'stdin' ? 'toPod' : 'fromPod'
    // names are bounded there, so that this fits into an event
    this.#writeJson(EVENT.file, { direction, ...file })
  }

  #omit(bytes: number): void {
    if (bytes === 0) return
    this.#omitted += bytes
    this.#omittedTimer ??= setTimeout(() => {
      this.#writeOmitted()
    }, OMITTED_MS)
  }

  #writeOmitted(): void {
    clearTimeout(this.#omittedTimer)
    this.#omittedTimer = undefined
    if (this.#omitted === 0) return
    this.#writeJson(EVENT.stdinOmitted, { bytes: this.#omitted })
    this.#omitted = 0
  }

  #writeData(type: EventType, bytes: Buffer, atUs: number, prefix?: Buffer): void {
    const most = MAX_EVENT_PAYLOAD_BYTES - (prefix?.length ?? 0)
    for (let from = 0; from < bytes.length; from += most) {
      const piece = bytes.subarray(from, from + most)
      this.#write(type, prefix === undefined ? piece : Buffer.concat([prefix, piece]), atUs)
    }
  }

  #writeJson(type: EventType, value: object, always = false, atUs = this.#now()): void {
    const text = Buffer.from(JSON.stringify(value))
    if (text.length <= MAX_EVENT_PAYLOAD_BYTES) this.#write(type, text, atUs, always)
  }

  /** @param always - also where the bound is reached: how it ended is told in any case */
  #write(type: EventType, payload: Uint8Array, atUs = this.#now(), always = false): void {
    if (this.#totals.truncated && !always) return
    const head = encodeHead(type, atUs, payload.length)
    const bytes = head.length + payload.length
    if (!always && this.#writer.bytes + bytes > this.#terms.maxBytes) {
      this.#truncate()
      return
    }
    this.#ordered.write({ head, payload, atUs })
  }

  #truncate(): void {
    this.#totals.truncated = true
    const text = `the bound of ${this.#terms.maxBytes} bytes is reached: what follows is not kept`
    this.#writeJson(EVENT.marker, { kind: 'truncated', text }, true)
    if (this.#terms.mode === 'required') this.#stop.resolve({ ending: 'recording_full', text })
  }
}

function sizeOf(pieces: readonly Buffer[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0)
}
