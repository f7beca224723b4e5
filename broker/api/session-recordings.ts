/** What is sent of a recording: its events, as they are or as an asciicast, its sealed chunks, and what in it is no terminal output. */
import type { Request, Response } from 'express'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { createPlaces } from './sending.ts'
import { sendParts } from './session-access.ts'
import type { Read, Reader } from './session-access.ts'
import { castOf } from './session-cast.ts'
import { readDetails } from './session-details.ts'
import { corruptOf } from './session-events.ts'
import { noQuery, rangeOf } from './session-query.ts'
import type { RecordingReader } from '../sessions/recordings/reader.ts'

/** Type of a stream of events (docs/decisions/0009). */
export const EVENTS_TYPE = 'application/vnd.nestgate.recording'
/** Type of sealed chunks. */
export const SEALED_TYPE = 'application/vnd.nestgate.recording.sealed'
/** Type of an asciicast. */
export const ASCIICAST_TYPE = 'application/x-asciicast'
/** Recordings that are read at once: each opens its segments. */
const MAX_READS = 32

/** What reading recordings needs. */
export interface RecordingReadsDeps {
  readonly sessions: RecordingReader
  readonly log: Logger
}

/** The handlers, by the last part of their path. */
export interface RecordingReads {
  readonly events: Read
  readonly asciicast: Read
  readonly sealed: Read
  readonly details: Read
}

/** Makes them; together they have {@link MAX_READS} places. */
export function createRecordingReads(deps: RecordingReadsDeps): RecordingReads {
  const places = createPlaces(MAX_READS)
  const placed =
    (read: Read): Read =>
    (reader, request, response) => {
      const refusal = noQuery(request)
      if (refusal !== undefined) return Promise.resolve(refusal)
      if (places.take(response)) return read(reader, request, response)
      return Promise.resolve(
        refuse('broker_busy', `${MAX_READS} recordings are being read already`),
      )
    }
  return {
    events: placed((reader, request, response) => sendEvents(deps, reader, request, response)),
    asciicast: placed((reader, _request, response) => sendCast(deps, reader, response)),
    sealed: placed((reader, _request, response) => sendSealed(deps, reader, response)),
    details: placed(async (reader) => {
      const events = await deps.sessions.events(reader.id)
      if (isRefusal(events)) return events
      await reader.note()
      try {
        return { ...(await readDetails(events)) }
      } catch (error) {
        const refusal = corruptOf(error)
        if (refusal !== undefined) return refusal
        throw error
      }
    }),
  }
}

async function sendEvents(
  { sessions, log }: RecordingReadsDeps,
  { id, note }: Reader,
  request: Request,
  response: Response,
): Promise<Refusal | undefined> {
  const size = await sessions.size(id)
  if (typeof size !== 'number') return size
  const range = rangeOf(request.headers, size)
  if (isRefusal(range)) {
    response.setHeader('Content-Range', `bytes */${size}`)
    return range
  }
  const { from, to } = range ?? { from: 0, to: size }
  const events = await sessions.events(id, { from, to })
  if (isRefusal(events)) return events
  await note(range === undefined ? {} : { from, to })
  response.writeHead(range === undefined ? 200 : 206, {
    ...{ 'Content-Type': EVENTS_TYPE, 'Content-Length': to - from, 'Accept-Ranges': 'bytes' },
    ...(range === undefined ? {} : { 'Content-Range': `bytes ${from}-${to - 1}/${size}` }),
  })
  await sendParts(log, response, events, to - from)
  return undefined
}

async function sendCast(
  { sessions, log }: RecordingReadsDeps,
  { id, note }: Reader,
  response: Response,
): Promise<Refusal | undefined> {
  const events = await sessions.events(id)
  if (isRefusal(events)) return events
  await note()
  response.writeHead(200, { 'Content-Type': ASCIICAST_TYPE })
  await sendParts(log, response, castOf(events))
  return undefined
}

async function sendSealed(
  { sessions, log }: RecordingReadsDeps,
  { id, note }: Reader,
  response: Response,
): Promise<Refusal | undefined> {
  const sealed = await sessions.sealed(id)
  if (isRefusal(sealed)) return sealed
  await note()
  response.writeHead(200, { 'Content-Type': SEALED_TYPE })
  await sendParts(log, response, sealed)
  return undefined
}
