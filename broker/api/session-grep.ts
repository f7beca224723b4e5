/** `GET /v1/sessions/grep`: a literal text in the lines of many sessions, the newest session first. Every recording is read for it, so few at once, and each call is bounded. */
import { z } from 'zod'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { GrepEnd, Session } from '../../shared/recording/session-wire.ts'
import { createPlaces } from './sending.ts'
import { sendParts } from './session-access.ts'
import type { Read } from './session-access.ts'
import { viewsOf } from './session-events.ts'
import { LineSearch } from './session-lines.ts'
import { filterOf, grepQuerySchema, readQuery } from './session-query.ts'
import type { RecordingReader, SessionFilter } from '../sessions/recordings/reader.ts'

/** Searches at once. */
const MAX_GREPS = 2
/** Sessions that one call reads; together with the bounds below, which are looked at between two sessions. */
const MAX_GREP_SESSIONS = 200
/** Bytes of events that one call reads. */
const MAX_GREP_BYTES = 256 * 1024 * 1024
/** How long one call reads, in milliseconds. */
const MAX_GREP_MS = 20_000
/** Lines that are told of one session. */
export const MAX_MATCHES_OF_SESSION = 100
/** Sessions that are asked for at once. */
const PAGE = 50

/** What searching needs. */
export interface GrepDeps {
  readonly sessions: RecordingReader
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Where a search goes on: in which page, and after which session. */
const placeSchema = z.strictObject({ page: z.string().optional(), after: z.string() })
type Place = z.infer<typeof placeSchema>

/** A search, as it goes. */
interface Search {
  readonly filter: SessionFilter
  readonly text: string
  readonly ignoreCase: boolean
  readonly place: Place | undefined
}

/** Makes the handler. */
export function createGrep(deps: GrepDeps): Read {
  const places = createPlaces(MAX_GREPS)
  return async ({ note }, request, response) => {
    const query = readQuery(grepQuerySchema, request)
    if (isRefusal(query)) return query
    const filter = filterOf(query)
    if (isRefusal(filter)) return filter
    const place = query.cursor === undefined ? undefined : placeOf(query.cursor)
    if (isRefusal(place)) return place
    if (!places.take(response))
      return refuse('broker_busy', `${MAX_GREPS} searches are under way already`)
    const ignoreCase = query.ignoreCase === 'true'
    // the text itself may be a secret that somebody looks for
    const search = { filter, text: query.text, ignoreCase, place }
    await note({ query: JSON.stringify({ ...filter, ignoreCase, textLength: query.text.length }) })
    response.writeHead(200, { 'Content-Type': 'application/x-ndjson', 'X-Accel-Buffering': 'no' })
    response.flushHeaders()
    await sendParts(deps.log, response, lines(deps, search))
    return undefined
  }
}

async function* lines(deps: GrepDeps, search: Search): AsyncGenerator<string> {
  const report: Report = { searched: 0, bytes: 0, cut: [], unread: [] }
  const untilMs = deps.now() + MAX_GREP_MS
  let place = search.place
  let more: string | undefined
  let count = 0
  for await (const { session, page } of sessionsOf(deps.sessions, search)) {
    const isFull = report.bytes >= MAX_GREP_BYTES || deps.now() >= untilMs
    if (count > 0 && place !== undefined && (count >= MAX_GREP_SESSIONS || isFull)) {
      more = cursorOf(place)
      break
    }
    count += 1
    place = { ...(page === undefined ? {} : { page }), after: session.id }
    if (session.recording !== undefined && session.state !== 'expired')
      yield* ofSession(deps, search, session, report)
  }
  yield `${JSON.stringify(endOf(report, more))}\n`
}

function endOf({ searched, cut, unread }: Report, more: string | undefined): GrepEnd {
  return {
    searched,
    ...(more === undefined ? {} : { more }),
    ...(cut.length === 0 ? {} : { cut }),
    ...(unread.length === 0 ? {} : { unread }),
  }
}

/** What a search has come to so far. */
interface Report {
  searched: number
  bytes: number
  readonly cut: string[]
  readonly unread: string[]
}

/** One recording that cannot be read does not end the search: the report says so. */
async function* ofSession(
  { sessions, log }: GrepDeps,
  search: Search,
  session: Session,
  report: Report,
): AsyncGenerator<string> {
  const { id } = session
  try {
    const events = await sessions.events(id)
    if (isRefusal(events)) {
      report.unread.push(id)
      return
    }
    const counted = counting(events, (bytes) => (report.bytes += bytes))
    if (yield* matches(session, counted, search)) report.cut.push(id)
    report.searched += 1
  } catch (error) {
    log.error({ session: id, error: messageOf(error) }, 'a recording could not be searched')
    report.unread.push(id)
  }
}

/** @returns whether matches were left out */
async function* matches(
  { id, startedAt }: Session,
  events: AsyncIterable<Uint8Array>,
  { text, ignoreCase }: Search,
): AsyncGenerator<string, boolean> {
  const search = new LineSearch(text, ignoreCase)
  let told = 0
  const tell = function* (found: ReturnType<LineSearch['take']>): Generator<string> {
    for (const one of found.slice(0, MAX_MATCHES_OF_SESSION - told))
      yield `${JSON.stringify({ id, startedAt, ...one })}\n`
    told += found.length
  }
  for await (const view of viewsOf(events)) {
    yield* tell(search.take(view))
    if (told > MAX_MATCHES_OF_SESSION) return true
  }
  yield* tell(search.end())
  return told > MAX_MATCHES_OF_SESSION
}

async function* counting(
  parts: AsyncIterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array> {
  for await (const part of parts) {
    count(part.length)
    yield part
  }
}

/** Sessions that match, from the place on. Ids are in the order of time, so that new sessions move nothing. */
async function* sessionsOf(
  reader: RecordingReader,
  { filter, place }: Search,
): AsyncGenerator<{ readonly session: Session; readonly page: string | undefined }> {
  let page = place?.page
  for (;;) {
    const found = await reader.list(filter, PAGE, page)
    for (const session of found.sessions)
      if (place === undefined || session.id < place.after) yield { session, page }
    if (found.next === undefined) return
    page = found.next
  }
}

function cursorOf(place: Place): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url')
}

function placeOf(cursor: string): Place | Refusal {
  const unknown = refuse('query_invalid', 'cursor: not one of ours')
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, 'base64url').toString())
    return placeSchema.safeParse(value).data ?? unknown
  } catch {
    return unknown
  }
}
