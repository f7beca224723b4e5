/**
 * `GET /v1/sessions/ID/follow`: a session while it runs, as server-sent events. A follower is asked for before the next part is read, so that nothing
 * waits in memory for a slow one; who leaves a part unread for STALL_MS is cut.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Request, Response } from 'express'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Session } from '../../shared/recording/session-wire.ts'
import { createPlaces, hasLeft, sender } from './sending.ts'
import type { Send } from './sending.ts'
import type { Read, Reader } from './session-access.ts'
import { liveCast } from './session-cast.ts'
import { followed } from './session-following.ts'
import { followQuerySchema, readQuery } from './session-query.ts'
import type { RecordingReader } from '../sessions/recordings/reader.ts'

/** Followers at once. */
export const MAX_FOLLOWERS = 64
/** How often a sign of life is sent, in milliseconds: more often than what lies between gives up. */
const HEARTBEAT_MS = 15_000
/** How long an ended session may take to be told as ended, and how often is looked, in milliseconds. */
const END_MS = 10_000
const END_POLL_MS = 50
/** Longest time that Node can wait for, in milliseconds. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** What following needs. */
export interface FollowDeps {
  readonly sessions: RecordingReader
  /** Ends all. */
  readonly closed: AbortSignal
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Makes the handler. */
export function createFollow(deps: FollowDeps): Read {
  const places = createPlaces(MAX_FOLLOWERS)
  return async (reader, request, response) => {
    const query = readQuery(followQuerySchema, request)
    if (isRefusal(query)) return query
    const from = resumed(request) ?? query.from ?? 0
    if (typeof from !== 'number') return from
    const isCast = query.format === 'asciicast'
    if (isCast && from !== 0)
      return refuse('query_invalid', 'from: an asciicast begins at the beginning')
    if (!places.take(response))
      return refuse('broker_busy', `${MAX_FOLLOWERS} followers are there already`)
    return follow(deps, reader, response, from, isCast)
  }
}

async function follow(
  { sessions, closed, log, now }: FollowDeps,
  { person, id, note }: Reader,
  response: Response,
  from: number,
  isCast: boolean,
): Promise<Refusal | undefined> {
  const ending = endingOf(response, closed, (person.expiresAtMs ?? Infinity) - now())
  const events = await followed(sessions, id, from, ending)
  if (isRefusal(events)) return events
  await note({ from })
  if (hasLeft(response)) return undefined
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'X-Accel-Buffering': 'no' })
  response.flushHeaders()
  const alive = setInterval(() => {
    if (response.writableLength === 0 && !response.writableEnded) response.write(': alive\n\n')
  }, HEARTBEAT_MS)
  try {
    const texts = isCast ? castTexts(events) : eventTexts(events, from)
    if (!(await sendAll(sender(response), texts))) return undefined
    if (!ending.aborted) {
      const over = await ended(sessions, id)
      if (over !== undefined) response.write(eventText('end', over))
    }
    response.end()
  } catch (error) {
    log.error({ error: messageOf(error) }, 'a session could not be followed further')
    response.destroy()
  } finally {
    clearInterval(alive)
  }
  return undefined
}

/** Its last part comes before its document says so. */
async function ended(sessions: RecordingReader, id: string): Promise<Session | undefined> {
  let session = await sessions.session(id)
  for (let waited = 0; session?.state === 'running' && waited < END_MS; waited += END_POLL_MS) {
    await sleep(END_POLL_MS)
    session = await sessions.session(id)
  }
  return session
}

async function sendAll(send: Send, texts: AsyncIterable<string>): Promise<boolean> {
  for await (const text of texts) if (!(await send(text))) return false
  return true
}

async function* eventTexts(
  events: AsyncIterable<Uint8Array>,
  from: number,
): AsyncGenerator<string> {
  let offset = from
  for await (const piece of events) {
    offset += piece.length
    yield `id: ${offset}\nevent: events\ndata: ${Buffer.from(piece).toString('base64')}\n\n`
  }
}

/** `cast`: a line of the asciicast; `detail`: what is no output. */
async function* castTexts(events: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  for await (const part of liveCast(events))
    yield 'line' in part ? `event: cast\ndata: ${part.line}\n\n` : eventText('detail', part.detail)
}

/** Aborted when the follower leaves, the person's token ends or the broker does. */
function endingOf(response: Response, closed: AbortSignal, ms: number): AbortSignal {
  const left = new AbortController()
  const timer = setTimeout(
    () => {
      left.abort()
    },
    Math.min(ms, MAX_TIMER_MS),
  )
  response.once('close', () => {
    clearTimeout(timer)
    left.abort()
  })
  return AbortSignal.any([left.signal, closed])
}

/** What a client of server-sent events says when it comes again (HTML, 9.2.3) counts more than the address it was given. */
function resumed(request: Request): number | undefined | Refusal {
  const last = request.headers['last-event-id']
  if (last === undefined || last === '') return undefined
  return typeof last === 'string' && /^\d{1,15}$/.test(last)
    ? Number(last)
    : refuse('query_invalid', 'Last-Event-ID: not one of ours')
}

/** JSON has no raw line break, so the data is one line. */
function eventText(name: string, data: object): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`
}
