/**
 * The events of a recording (docs/decisions/0009): `type u8 | microseconds since the start u48 | length u32 | payload`, big-endian.
 * The codec is lossless: bytes go in and come out as they are, whatever they are.
 */

import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'

/** Types of events, by their number. */
export const EVENT = {
  header: 1,
  stdin: 2,
  stdout: 3,
  stderr: 4,
  resize: 5,
  stdinOmitted: 6,
  endOfStream: 7,
  result: 8,
  marker: 9,
  connectionOpened: 10,
  fromClient: 11,
  toClient: 12,
  connectionClosed: 13,
  file: 14,
  end: 15,
} as const

/** See {@link EVENT}. */
export type EventName = keyof typeof EVENT
/** Number of a type. */
export type EventType = (typeof EVENT)[EventName]

/** Longest payload, in bytes; longer data is written as several events of one time. */
export const MAX_EVENT_PAYLOAD_BYTES = 64 * 1024
/** Bytes before the payload. */
export const EVENT_HEADER_BYTES = 11

/** An event as it stands in the recording. */
export interface RecordedEvent {
  readonly type: EventType
  /** Microseconds since the start of the session. */
  readonly atUs: number
  readonly payload: Uint8Array
}

/** Payload of a resize: columns and rows. */
export const RESIZE_BYTES = 4
/** Before the bytes of a connection: its number. */
export const CONNECTION_BYTES = 4

const MAX_U16 = 0xffff
/** Longest time that an event can have: u48. */
const MAX_TIME_US = 2 ** 48 - 1

/**
 * The bytes of one event.
 *
 * @param atUs - whole microseconds since the start; held within the 48 bits that there are
 * @throws RangeError where the payload is too long
 */
export function encodeEvent(type: EventType, atUs: number, payload: Uint8Array): Buffer {
  return Buffer.concat([encodeHead(type, atUs, payload.length), payload])
}

/** What stands before the payload of an event. Parameters as above; `length` in bytes. */
export function encodeHead(type: EventType, atUs: number, length: number): Buffer {
  if (length > MAX_EVENT_PAYLOAD_BYTES) throw new RangeError(`an event of ${length} bytes`)
  const head = Buffer.allocUnsafe(EVENT_HEADER_BYTES)
  head.writeUInt8(type, 0)
  head.writeUIntBE(Math.min(Math.max(Math.floor(atUs), 0), MAX_TIME_US), 1, 6)
  head.writeUInt32BE(length, 7)
  return head
}

/** Bytes of a terminal's stream, in as many events as they need. Empty bytes are no event. */
export function encodeOutput(
  stream: 'stdin' | 'stdout' | 'stderr',
  atUs: number,
  bytes: Uint8Array,
): Buffer[] {
  return pieces(bytes, MAX_EVENT_PAYLOAD_BYTES).map((piece) =>
    encodeEvent(EVENT[stream], atUs, piece),
  )
}

/** Bytes of a forwarded connection, in as many events as they need. Empty bytes are no event. */
export function encodeTunnel(
  direction: 'fromClient' | 'toClient',
  atUs: number,
  connection: number,
  bytes: Uint8Array,
): Buffer[] {
  const number = Buffer.allocUnsafe(CONNECTION_BYTES)
  number.writeUInt32BE(connection)
  return pieces(bytes, MAX_EVENT_PAYLOAD_BYTES - CONNECTION_BYTES).map((piece) =>
    encodeEvent(EVENT[direction], atUs, Buffer.concat([number, piece])),
  )
}

/** A new size of the terminal; what does not fit in 16 bits is held within them. */
export function encodeResize(atUs: number, columns: number, rows: number): Buffer {
  const payload = Buffer.allocUnsafe(RESIZE_BYTES)
  payload.writeUInt16BE(Math.min(Math.max(columns, 0), MAX_U16), 0)
  payload.writeUInt16BE(Math.min(Math.max(rows, 0), MAX_U16), 2)
  return encodeEvent(EVENT.resize, atUs, payload)
}

/** The end of a stream: nothing comes in it any more. */
export function encodeEndOfStream(atUs: number, stream: 'stdin' | 'stdout' | 'stderr'): Buffer {
  return encodeEvent(EVENT.endOfStream, atUs, Uint8Array.of(EVENT[stream]))
}

/** Decodes a stream of events that comes in pieces of any size. It holds one event at most. */
export interface EventReader {
  /**
   * Takes the next bytes. A payload may be a view of them: who keeps an event beyond them copies it.
   *
   * @returns the events that end in them, in order; none any more once it has refused
   */
  read(bytes: Uint8Array): readonly RecordedEvent[]
  /** Set from an event on that is none: an unknown type, a payload that is too long. */
  readonly refused: Refusal | undefined
  /** Bytes of all whole events so far: where to go on reading from. */
  readonly offset: number
  /** Says that nothing more comes. @returns the refusal, also of an event that is cut off */
  end(): Refusal | undefined
}

/** Makes a reader that begins at the first byte of an event, not necessarily the first one. Its methods never throw. */
export function createEventReader(): EventReader {
  return new Reader()
}

class Reader implements EventReader {
  refused: Refusal | undefined
  offset = 0
  /** The event that has begun; made when one first comes in pieces. */
  #held: Buffer | undefined
  #heldBytes = 0

  read(bytes: Uint8Array): readonly RecordedEvent[] {
    const events: RecordedEvent[] = []
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    while (rest.length > 0 && this.refused === undefined) {
      const length = this.#heldBytes === 0 ? this.#lengthOf(rest, rest.length) : undefined
      if (length !== undefined && length <= rest.length) {
        events.push(this.#whole(rest.subarray(0, length)))
        rest = rest.subarray(length)
      } else {
        rest = rest.subarray(this.#hold(rest, events))
      }
    }
    return events
  }

  end(): Refusal | undefined {
    if (this.#heldBytes > 0) this.#refuse('it ends within an event')
    return this.refused
  }

  /** Adds to the event that has begun what belongs to it. @returns how many bytes those are */
  #hold(bytes: Buffer, events: RecordedEvent[]): number {
    const held = (this.#held ??= Buffer.allocUnsafe(EVENT_HEADER_BYTES + MAX_EVENT_PAYLOAD_BYTES))
    const wanted = this.#lengthOf(held, this.#heldBytes) ?? EVENT_HEADER_BYTES
    const taken = bytes.copy(held, this.#heldBytes, 0, wanted - this.#heldBytes)
    this.#heldBytes += taken
    if (this.#heldBytes === this.#lengthOf(held, this.#heldBytes)) {
      events.push(this.#whole(Buffer.from(held.subarray(0, this.#heldBytes))))
      this.#heldBytes = 0
    }
    return taken
  }

  /** Bytes of the event that `bytes` begins with; undefined where its header is not whole, or is refused. */
  #lengthOf(bytes: Buffer, available: number): number | undefined {
    if (available < EVENT_HEADER_BYTES) return undefined
    const type = bytes.readUInt8(0)
    const length = bytes.readUInt32BE(7)
    if (isEventType(type) && length <= MAX_EVENT_PAYLOAD_BYTES) return EVENT_HEADER_BYTES + length
    this.#refuse(`an event of type ${type} and ${length} bytes`)
    return undefined
  }

  #whole(bytes: Buffer): RecordedEvent {
    this.offset += bytes.length
    const type = bytes.readUInt8(0)
    if (!isEventType(type)) throw new RangeError('the type was checked before')
    return { type, atUs: bytes.readUIntBE(1, 6), payload: bytes.subarray(EVENT_HEADER_BYTES) }
  }

  #refuse(what: string): void {
    this.refused ??= refuse('recording_corrupt', `${what}, at byte ${this.offset}`)
  }
}

const TYPES: ReadonlySet<number> = new Set(Object.values(EVENT))

function isEventType(type: number): type is EventType {
  return TYPES.has(type)
}

function pieces(bytes: Uint8Array, most: number): Uint8Array[] {
  const found: Uint8Array[] = []
  for (let from = 0; from < bytes.length; from += most)
    found.push(bytes.subarray(from, from + most))
  return found
}
