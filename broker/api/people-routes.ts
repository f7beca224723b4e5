/** What people ask for: held requests, decisions, the audit. Each route names the roles it needs. */
import express from 'express'
import type { Request, Router } from 'express'
import { z } from 'zod'
import { isRequestId } from '../../shared/request-id.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { APPROVAL_STATES, approvalSchema, reviewSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import type { Approvals } from '../approvals/approvals.ts'
import { makeCursor, onceEach, problemsOf, readEventsQuery } from '../audit/query.ts'
import type { EventsQuery } from '../audit/query.ts'
import { hasRole } from '../identity/people.ts'
import type { PeopleAuthenticator, Person, Role } from '../identity/people.ts'
import type { StoredApproval, Store } from '../store/store.ts'
import { route } from './answers.ts'
import type { Result } from './answers.ts'

/** Held requests in one list at most. */
const MAX_APPROVALS = 1000
/** Held requests in one list when nothing else is asked for. */
const DEFAULT_APPROVALS = 100

const stateList = z
  .string()
  .transform((value) => value.split(','))
  .pipe(z.array(z.enum(APPROVAL_STATES)))

const listSchema = z.strictObject({
  state: stateList.optional(),
  limit: z
    .string()
    .regex(/^\d{1,6}$/, 'expected a whole number')
    .transform(Number)
    .pipe(z.int().min(1).max(MAX_APPROVALS))
    .optional(),
})

/** What these routes need. */
export interface PeopleRoutesDeps {
  readonly approvals: Approvals
  readonly store: Store
  readonly people: PeopleAuthenticator
}

/** The routes under `/v1/approvals` and `/v1/audit`. @param json - reads a JSON body */
export function peopleRoutes(deps: PeopleRoutesDeps, json: express.RequestHandler): Router {
  const { approvals, people } = deps
  const router = express.Router({ caseSensitive: true, strict: true })
  const withRole = (
    roles: readonly Role[],
    handle: (person: Person, request: Request) => Promise<Result>,
  ): express.RequestHandler =>
    route(async (request) => {
      const person = await people.authenticate(request)
      if (isRefusal(person)) return person
      if (!hasRole(person, roles)) return refuse('role_missing', `needs ${roles.join(' or ')}`)
      return handle(person, request)
    })

  router.get(
    '/approvals',
    withRole(['reviewer', 'auditor'], (_person, request) => list(approvals, request)),
  )
  router.get(
    '/approvals/:id',
    withRole(['reviewer', 'auditor'], async (_person, request) =>
      shown(await ofId(request, (id) => approvals.get(id))),
    ),
  )
  for (const [verb, approve] of [
    ['approve', true],
    ['deny', false],
  ] as const) {
    const decide = withRole(['reviewer'], async ({ name: reviewer }, request) => {
      const review = reviewSchema.safeParse(request.body)
      if (!review.success) return refuse('body_invalid', problemsOf(review.error))
      const { reason } = review.data
      return shown(await ofId(request, (id) => approvals.decide({ id, reviewer, approve, reason })))
    })
    router.post(`/approvals/:id/${verb}`, json, decide)
  }
  router.get(
    '/audit/events',
    withRole(['auditor'], (person, request) => audit(deps.store, person, request)),
  )
  return router
}

async function list(approvals: Approvals, request: Request): Promise<Result> {
  const raw = onceEach(queryOf(request))
  if (isRefusal(raw)) return raw
  const parsed = listSchema.safeParse(raw.values)
  if (!parsed.success) return refuse('query_invalid', problemsOf(parsed.error))
  const { state = [], limit = DEFAULT_APPROVALS } = parsed.data
  return { items: (await approvals.list(state, limit)).map(toWire) }
}

/** Reading the audit is itself evidence (PCI DSS 10.2.1.3), written before the answer. */
async function audit(store: Store, person: Person, request: Request): Promise<Result> {
  const query = readEventsQuery(queryOf(request))
  if (isRefusal(query)) return query
  const { filter, limit, before } = query
  // One more than asked for tells whether there is a next page.
  const found = await store.events(filter, limit + 1, before)
  const items = found.slice(0, limit)
  await store.append([
    {
      kind: 'system',
      event: 'audit_read',
      actor: person.name,
      detail: { query: describe(query), returned: items.length },
    },
  ])
  const last = items.at(-1)
  return found.length > limit && last !== undefined
    ? { items, next: makeCursor(last.seq) }
    : { items }
}

function describe({ filter, limit, before }: EventsQuery): string {
  return JSON.stringify({ ...filter, limit, before })
}

/** The decoded pairs of a request's query string. */
export function queryOf(request: Request): URLSearchParams {
  const mark = request.url.indexOf('?')
  return new URLSearchParams(mark === -1 ? '' : request.url.slice(mark))
}

/** Calls with the id of the path, if it has the form of one. */
export function ofId<T>(
  request: Request,
  call: (id: string) => Promise<T | Refusal>,
): Promise<T | Refusal> {
  const id = request.params['id']
  if (typeof id !== 'string' || !isRequestId(id)) return Promise.resolve(refuse('request_unknown'))
  return call(id)
}

function shown(found: StoredApproval | Refusal): Result {
  return isRefusal(found) ? found : toWire(found)
}

/** Without what only the store and the claim need: the schema drops all that is not of the wire. */
function toWire(approval: StoredApproval): Approval {
  return approvalSchema.parse(approval)
}
