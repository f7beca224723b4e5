/**
 * The events of a recording (docs/decisions/0009): `type u8 | microseconds since the start u48 | length u32 | payload`, big-endian.
 * The codec is lossless: bytes go in and come out as they are, whatever they are.
 */

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

/** Longest time that an event can have: u48. */
const MAX_TIME_US = 2 ** 48 - 1

/**
 * The bytes of one event.
 *
 * @param atUs - whole microseconds since the start; held within the 48 bits that there are
 * @throws RangeError where the payload is too long
 */
export function encodeEvent(type: EventType, atUs: number, payload: Uint8Array): Buffer {
  if (payload.length > MAX_EVENT_PAYLOAD_BYTES)
    throw new RangeError(`an event of ${payload.length} bytes`)
  const bytes = Buffer.allocUnsafe(EVENT_HEADER_BYTES + payload.length)
  bytes.writeUInt8(type, 0)
  bytes.writeUIntBE(Math.min(Math.max(Math.floor(atUs), 0), MAX_TIME_US), 1, 6)
  bytes.writeUInt32BE(payload.length, 7)
  bytes.set(payload, EVENT_HEADER_BYTES)
  return bytes
}
