/** Sessions: found, read, followed, searched, ended, and opened in a browser. Reading is itself in the ledger, before the first byte. */
import express from 'express'
import type { Request, Router } from 'express'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import { killSchema } from '../../shared/recording/session-wire.ts'
import type { Session, SessionView } from '../../shared/recording/session-wire.ts'
import type { Approvals } from '../approvals/types.ts'
import { problemsOf } from '../audit/query.ts'
import type { PeopleAuthenticator } from '../identity/people.ts'
import type { Store } from '../store/store.ts'
import type { Result } from './answers.ts'
import { sessionPagePath } from '../pages/paths.ts'
import { createReading } from './session-access.ts'
import type { Reader } from './session-access.ts'
import { createFollow } from './session-follow.ts'
import { createGrep } from './session-grep.ts'
import {
  DEFAULT_SESSIONS,
  filterOf,
  noQuery,
  readQuery,
  sessionsQuerySchema,
} from './session-query.ts'
import type { RecordingReader } from '../sessions/recordings/reader.ts'
import { createRecordingReads } from './session-recordings.ts'
import { SessionTickets } from './session-tickets.ts'

/** What these routes need. */
export interface SessionRoutesDeps {
  readonly sessions: RecordingReader
  readonly people: PeopleAuthenticator
  readonly approvals: Pick<Approvals, 'closed'>
  readonly store: Pick<Store, 'append'>
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

const LISTERS = ['auditor', 'reviewer'] as const
const READERS = ['auditor'] as const

/** The routes under `/v1/sessions`. @param json - reads a JSON body */
export function sessionRoutes(deps: SessionRoutesDeps, json: express.RequestHandler): Router {
  const { sessions, approvals } = deps
  const router = express.Router({ caseSensitive: true, strict: true })
  const tickets = new SessionTickets(deps.now)
  const reading = createReading({ ...deps, tickets })
  const ticket = true
  router.get(
    '/sessions',
    reading({ route: 'list', roles: LISTERS }, (_reader, request) => list(sessions, request)),
  )
  // before `/sessions/:id`, which would take it
  router.get('/sessions/grep', reading({ route: 'grep', roles: READERS }, createGrep(deps)))
  router.get(
    '/sessions/:id',
    reading({ route: 'session', roles: LISTERS, ticket }, async ({ id }, request) => {
      return noQuery(request) ?? shown(await sessions.session(id))
    }),
  )
  const reads = createRecordingReads(deps)
  router.get('/sessions/:id/events', reading({ route: 'events', roles: READERS }, reads.events))
  router.get('/sessions/:id/sealed', reading({ route: 'sealed', roles: READERS }, reads.sealed))
  for (const route of ['asciicast', 'details'] as const)
    router.get(`/sessions/:id/${route}`, reading({ route, roles: READERS, ticket }, reads[route]))
  const follow = createFollow({ ...deps, closed: approvals.closed })
  router.get('/sessions/:id/follow', reading({ route: 'follow', roles: LISTERS, ticket }, follow))
  router.post(
    '/sessions/:id/kill',
    json,
    reading({ route: 'kill', roles: ['reviewer'] }, (reader, request) =>
      kill(sessions, reader, request),
    ),
  )
  router.post(
    '/sessions/:id/view',
    reading({ route: 'view', roles: READERS }, (reader, request) =>
      view(deps, tickets, reader, request),
    ),
  )
  return router
}

async function list(sessions: RecordingReader, request: Request): Promise<Result> {
  const query = readQuery(sessionsQuerySchema, request)
  if (isRefusal(query)) return query
  const filter = filterOf(query)
  if (isRefusal(filter)) return filter
  return { ...(await sessions.list(filter, query.limit ?? DEFAULT_SESSIONS, query.cursor)) }
}

function shown(session: Session | undefined): Result {
  return session === undefined ? refuse('session_unknown') : { ...session }
}

/** The ledger's entry is written by what ends the session. */
async function kill(
  sessions: RecordingReader,
  { person, id }: Reader,
  request: Request,
): Promise<Result> {
  const body = killSchema.safeParse(request.body)
  if (!body.success) return refuse('body_invalid', problemsOf(body.error))
  const refusal = await sessions.kill(id, { actor: person.name, reason: body.data.reason })
  return refusal ?? shown(await sessions.session(id))
}

/** A host name, an address in brackets, or one of version 4, with a port. */
const HOST = /^(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?$/i

/** The page is asked of the broker as its caller calls it: it has no name of its own that a browser is sure to reach. */
async function view(
  { sessions }: SessionRoutesDeps,
  tickets: SessionTickets,
  { person, id, note }: Reader,
  request: Request,
): Promise<Result> {
  const host = request.headers.host ?? ''
  if (!HOST.test(host)) return refuse('header_invalid', 'Host: not a host and port')
  if ((await sessions.session(id)) === undefined) return refuse('session_unknown')
  await note()
  const issued = tickets.issue(person, id)
  if (isRefusal(issued)) return issued
  const url = `https://${host}${sessionPagePath(id)}#ticket=${issued.ticket}`
  const answer: SessionView = { url, expiresAt: new Date(issued.expiresAtMs).toISOString() }
  return { ...answer }
}
