/** What the payloads of events say (docs/decisions/0009): a recording is outside input, so that nothing of it is believed unread. */
import { z } from 'zod'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import { CONNECTION_BYTES, EVENT, RESIZE_BYTES, encodeEvent } from './events.ts'
import type { EventName, EventType, RecordedEvent } from './events.ts'
import { SESSION_KINDS, sessionResultSchema, sessionTotalsSchema } from './session-wire.ts'

const STREAMS = ['stdin', 'stdout', 'stderr'] as const

const text = z.string()
const count = z.int().min(0)
const sha256 = z.string().regex(/^[0-9a-f]{64}$/)

/** What the recording is of: always its first event. */
const headerSchema = z.object({
  version: z.literal(1),
  id: text,
  kind: z.enum(SESSION_KINDS),
  cluster: text,
  namespace: text,
  name: text,
  container: text.optional(),
  /** Word by word. */
  command: z.array(text).readonly().optional(),
  tty: z.boolean(),
  /** ISO 8601, UTC; the times of all events count from here. */
  startedAt: text,
})

/**
 * Something that is no byte of the session. `masked` (a region of so many bytes was hidden: `stream`, `detector`, `length`), `truncated`,
 * `approved`, `killed`, `revoked`, `client_left`, `protocol`, `files` (their content was left out), …: what reads them lets unknown ones stand.
 */
export const markerSchema = z.looseObject({
  kind: z.string().regex(/^[a-z_]{1,40}$/),
  /** One plain sentence. */
  text,
  /** Of `masked`. */
  stream: z.enum(STREAMS).optional(),
  detector: text.optional(),
  length: count.optional(),
})

/** How much was typed, or sent, that was not kept. */
const stdinOmittedSchema = z.object({ bytes: count })
const connectionOpenedSchema = z.object({ connection: count, port: count })
export const connectionClosedSchema = z.object({
  connection: count,
  port: count.optional(),
  bytesUp: count,
  bytesDown: count,
  sha256Up: sha256,
  sha256Down: sha256,
  error: text.optional(),
})

/** A file that was copied, as the tar stream names it. */
export const fileSchema = z.looseObject({
  /** `fromPod` or `toPod`. */
  direction: text,
  name: text,
  type: text,
  /** Bytes of content; where `truncated`, those that came. */
  size: count,
  /** Of a link. */
  linkName: text.optional(),
  truncated: z.boolean().optional(),
  sha256: sha256.optional(),
})

/** Events whose payload is JSON, by their name. */
const viewSchema = z.discriminatedUnion('name', [
  z.object({ name: z.literal('header'), value: headerSchema }),
  z.object({ name: z.literal('stdinOmitted'), value: stdinOmittedSchema }),
  z.object({ name: z.literal('result'), value: sessionResultSchema }),
  z.object({ name: z.literal('marker'), value: markerSchema }),
  z.object({ name: z.literal('connectionOpened'), value: connectionOpenedSchema }),
  z.object({ name: z.literal('connectionClosed'), value: connectionClosedSchema }),
  z.object({ name: z.literal('file'), value: fileSchema }),
  z.object({ name: z.literal('end'), value: sessionTotalsSchema }),
])

type JsonView = z.infer<typeof viewSchema>
type JsonName = JsonView['name']
type JsonPayload<Name extends JsonName> = Extract<JsonView, { readonly name: Name }>['value']

export type RecordingHeader = z.infer<typeof headerSchema>
export type Marker = z.infer<typeof markerSchema>
export type CopiedFile = z.infer<typeof fileSchema>
export type ConnectionClosed = z.infer<typeof connectionClosedSchema>

/** Names of the streams of a terminal. */
export type StreamName = (typeof STREAMS)[number]

/** An event, read. Bytes are views of the event's payload. */
export type EventView = { readonly atUs: number } & (
  | { readonly name: StreamName; readonly bytes: Uint8Array }
  | {
      readonly name: 'fromClient' | 'toClient'
      readonly connection: number
      readonly bytes: Uint8Array
    }
  | { readonly name: 'resize'; readonly columns: number; readonly rows: number }
  | { readonly name: 'endOfStream'; readonly stream: StreamName }
  | JsonView
)

/**
 * The bytes of an event whose payload is JSON.
 *
 * @throws RangeError where it is longer than an event may be: the caller bounds its texts
 */
export function encodeJsonEvent<Name extends JsonName>(
  name: Name,
  atUs: number,
  value: JsonPayload<Name>,
): Buffer {
  return encodeEvent(EVENT[name], atUs, Buffer.from(JSON.stringify(value)))
}

/** Reads an event's payload. @returns a refusal where it is not what its type has */
export function viewEvent(event: RecordedEvent): EventView | Refusal {
  const name = eventName(event.type)
  const view = viewPayload(name, event.payload)
  return view === undefined
    ? refuse('recording_corrupt', `an event ${name} that is not readable`)
    : { atUs: event.atUs, ...view }
}

/** The name of a type. */
function eventName(type: EventType): EventName {
  return NAMES[type]
}

type Payload = EventView extends infer View
  ? View extends EventView
    ? Omit<View, 'atUs'>
    : never
  : never

function viewPayload(name: EventName, payload: Uint8Array): Payload | undefined {
  switch (name) {
    case 'stdin':
    case 'stdout':
    case 'stderr':
      return { name, bytes: payload }
    case 'fromClient':
    case 'toClient':
      return viewTunnel(name, payload)
    case 'resize':
      return viewResize(payload)
    case 'endOfStream':
      return viewEnd(payload)
    default:
      return viewJson(name, payload)
  }
}

function viewTunnel(name: 'fromClient' | 'toClient', payload: Uint8Array): Payload | undefined {
  if (payload.length < CONNECTION_BYTES) return undefined
  const connection = numbers(payload).getUint32(0)
  return { name, connection, bytes: payload.subarray(CONNECTION_BYTES) }
}

function viewResize(payload: Uint8Array): Payload | undefined {
  if (payload.length !== RESIZE_BYTES) return undefined
  const view = numbers(payload)
  return { name: 'resize', columns: view.getUint16(0), rows: view.getUint16(2) }
}

function viewEnd(payload: Uint8Array): Payload | undefined {
  const [type] = payload
  const stream = STREAMS.find((name) => EVENT[name] === type)
  return stream === undefined || payload.length !== 1 ? undefined : { name: 'endOfStream', stream }
}

function viewJson(name: JsonName, payload: Uint8Array): Payload | undefined {
  const value = parseJson(payload)
  const view = viewSchema.safeParse({ name, value })
  return view.data
}

function parseJson(payload: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload))
  } catch {
    return undefined
  }
}

function numbers(payload: Uint8Array): DataView {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength)
}

const NAMES: Readonly<Record<EventType, EventName>> = {
  1: 'header',
  2: 'stdin',
  3: 'stdout',
  4: 'stderr',
  5: 'resize',
  6: 'stdinOmitted',
  7: 'endOfStream',
  8: 'result',
  9: 'marker',
  10: 'connectionOpened',
  11: 'fromClient',
  12: 'toClient',
  13: 'connectionClosed',
  14: 'file',
  15: 'end',
}
