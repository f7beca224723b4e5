/** Who may read a session, and that it is written down before the first byte of it goes out. */
import type { NextFunction, Request, RequestHandler, Response } from 'express'
import { bearerToken, countHeader } from '../../shared/headers.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { isRequestId } from '../../shared/request-id.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { Role } from '../identity/roles.ts'
import type { Store } from '../store/store.ts'
import { answer } from './answers.ts'
import type { Result } from './answers.ts'
import { hasLeft, sender } from './sending.ts'
import { isTicket } from './session-tickets.ts'
import type { SessionTickets } from './session-tickets.ts'
import { authorized } from './with-role.ts'

/** What reading is made of. */
export interface ReadingDeps {
  readonly people: PeopleAuthenticator
  readonly tickets: SessionTickets
  readonly store: Pick<Store, 'append'>
  readonly log: Logger
}

/** A person who reads. */
export interface Reader {
  readonly person: Person
  /** The session of the path. */
  readonly id: string
  /** Writes down what is read; durable when it settles. @param more - what else is to be known of it, never what was looked for */
  readonly note: (more?: Readonly<Record<string, string | number>>) => Promise<void>
}

/** Answers by itself and returns nothing, or says what to answer. */
export type Read = (
  reader: Reader,
  request: Request,
  response: Response,
) => Promise<Result | undefined>

/** Which people, by which way. */
export interface Access {
  /** Name of the route in the ledger. */
  readonly route: string
  readonly roles: readonly Role[]
  /** Whether a ticket of the session is good too. */
  readonly ticket?: boolean
}

/** Makes routes that read sessions. */
export function createReading(deps: ReadingDeps): (access: Access, read: Read) => RequestHandler {
  return (access, read) => (request: Request, response: Response, next: NextFunction) => {
    // express answers HEAD by GET: it would read all, and send nothing
    if (request.method === 'HEAD') {
      next()
      return
    }
    run(deps, access, read, request, response).catch((error: unknown) => {
      if (response.headersSent) response.destroy()
      next(error)
    })
  }
}

async function run(
  deps: ReadingDeps,
  access: Access,
  read: Read,
  request: Request,
  response: Response,
): Promise<void> {
  const id = request.params['id'] ?? ''
  const person = await whoReads(deps, access, request)
  if (isRefusal(person)) {
    answer(response, person)
    return
  }
  if (typeof id !== 'string' || (id !== '' && !isRequestId(id))) {
    answer(response, refuse('session_unknown'))
    return
  }
  const note: Reader['note'] = async (more = {}) => {
    const session = id === '' ? {} : { session: id }
    const detail = { ...session, route: access.route, ...more }
    await deps.store.append([{ kind: 'system', event: 'audit_read', actor: person.name, detail }])
  }
  const result = await read({ person, id, note }, request, response)
  if (result !== undefined) answer(response, result)
}

function whoReads(
  { people, tickets }: ReadingDeps,
  { roles, ticket = false }: Access,
  request: Request,
): Promise<Person | Refusal> {
  const token = bearerToken(request.headers)
  if (token === undefined || !isTicket(token)) return authorized(people, request, roles)
  if (countHeader(request.rawHeaders, 'authorization') > 1)
    return Promise.resolve(refuse('header_invalid', 'more than one Authorization header'))
  const person = ticket ? tickets.use(token, String(request.params['id'])) : undefined
  return Promise.resolve(person ?? refuse('credentials_invalid'))
}

/**
 * Sends parts at the client's pace and ends the answer; where a part cannot be read the connection is cut, so that no part passes for the whole.
 *
 * @param bytes - how many must have come; left out where nobody knows
 */
export async function sendParts(
  log: Logger,
  response: Response,
  parts: AsyncIterable<string | Uint8Array>,
  bytes?: number,
): Promise<void> {
  if (hasLeft(response)) return
  const send = sender(response)
  let sent = 0
  try {
    for await (const part of parts) {
      if (!(await send(part))) return
      sent += part.length
    }
    if (bytes === undefined || sent === bytes) {
      response.end()
      return
    }
    log.error({ sent, bytes }, 'a recording ended before its end')
  } catch (error) {
    log.error({ error: messageOf(error) }, 'a recording could not be sent')
  }
  response.destroy()
}
