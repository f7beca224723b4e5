/** What people ask for: held requests, decisions. Each route names the roles it needs. */
import express from 'express'
import type { Request, Router } from 'express'
import { z } from 'zod'
import type { Logger } from '../../shared/log.ts'
import { isRequestId } from '../../shared/request-id.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { APPROVAL_STATES, closingSchema, reviewSchema } from '../../shared/wire.ts'
import type { Reviewer } from '../approvals/reviewers.ts'
import { toListed, toWire } from '../approvals/shown.ts'
import type { Approvals } from '../approvals/types.ts'
import { onceEach, problemsOf } from '../audit/query.ts'
import { ROLES } from '../identity/roles.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { StoredApproval, Store } from '../store/store.ts'
import { answer } from './answers.ts'
import type { Result } from './answers.ts'
import { readContext } from './context.ts'
import { createWatch } from './watch.ts'
import { authorized, createWithRole } from './with-role.ts'
import type { WithRole } from './with-role.ts'

/** Held requests in one list at most. */
const MAX_APPROVALS = 1000
/** Held requests in one list when nothing else is asked for. */
const DEFAULT_APPROVALS = 100

const stateList = z
  .string()
  .transform((value) => value.split(','))
  .pipe(z.array(z.enum(APPROVAL_STATES)))

/** Query of `GET /v1/approvals`. */
export const listSchema = z.strictObject({
  state: stateList.optional(),
  review: z.enum(['open', 'closed']).optional(),
  cluster: z.string().min(1).max(63).optional(),
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
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** The routes under `/v1/approvals` and `/v1/me`. @param json - reads a JSON body */
export function peopleRoutes(deps: PeopleRoutesDeps, json: express.RequestHandler): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const withRole = createWithRole(deps.people)

  addApprovals(router, deps, withRole)
  addDecisions(router, deps.approvals, withRole, json)
  router.get(
    '/me',
    withRole(ROLES, (person) => Promise.resolve(describePerson(person))),
  )
  return router
}

function addApprovals(router: Router, deps: PeopleRoutesDeps, withRole: WithRole): void {
  const { approvals, people, store } = deps
  const readers = ['reviewer', 'auditor'] as const
  router.get(
    '/approvals',
    withRole(readers, (_person, request) => list(approvals, request)),
  )
  const watch = createWatch(deps)
  // before `/approvals/:id`, which would take it
  router.get('/approvals/watch', (request, response, next) => {
    authorized(people, request, readers)
      .then((person) => {
        if (isRefusal(person)) answer(response, person)
        else if (queryOf(request).size > 0) answer(response, refuse('query_invalid'))
        else watch(person, response)
      })
      .catch(next)
  })
  router.get(
    '/approvals/:id',
    withRole(readers, async (_person, request) =>
      shown(await ofId(request, (id) => approvals.get(id))),
    ),
  )
  router.get(
    '/approvals/:id/context',
    withRole(readers, async (person, request) => {
      const approval = await ofId(request, (id) => approvals.get(id))
      return isRefusal(approval) ? approval : readContext(store, approval, person.name)
    }),
  )
}

function addDecisions(
  router: Router,
  approvals: Approvals,
  withRole: WithRole,
  json: express.RequestHandler,
): void {
  const add = <T>(
    verb: string,
    schema: z.ZodType<T>,
    act: (id: string, by: Reviewer, body: T) => Promise<StoredApproval | Refusal>,
  ): void => {
    const handle = withRole(['reviewer'], async (person, request) => {
      const body = schema.safeParse(request.body)
      if (!body.success) return refuse('body_invalid', problemsOf(body.error))
      const { name: reviewer, groups, names } = person
      return shown(await ofId(request, (id) => act(id, { reviewer, groups, names }, body.data)))
    })
    router.post(`/approvals/:id/${verb}`, json, handle)
  }
  add('approve', reviewSchema, (id, by, { reason }) =>
    approvals.decide({ id, ...by, approve: true, reason }),
  )
  add('deny', reviewSchema, (id, by, { reason }) =>
    approvals.decide({ id, ...by, approve: false, reason }),
  )
  add('revoke', reviewSchema, (id, by, { reason }) => approvals.revoke({ id, ...by, reason }))
  add('review', closingSchema, (id, by, { reason, verdict }) =>
    approvals.closeReview({ id, ...by, reason, verdict }),
  )
}

async function list(approvals: Approvals, request: Request): Promise<Result> {
  const raw = onceEach(queryOf(request))
  if (isRefusal(raw)) return raw
  const parsed = listSchema.safeParse(raw.values)
  if (!parsed.success) return refuse('query_invalid', problemsOf(parsed.error))
  const { state: states = [], review, cluster, limit = DEFAULT_APPROVALS } = parsed.data
  const filter = {
    states,
    ...(review === undefined ? {} : { review }),
    ...(cluster === undefined ? {} : { cluster }),
  }
  return { items: (await approvals.list(filter, limit)).map(toListed) }
}

function describePerson({ name, roles, groups = [], expiresAtMs }: Person): Result {
  const expiresAt = expiresAtMs === undefined ? undefined : new Date(expiresAtMs).toISOString()
  return { name, roles, groups, ...(expiresAt === undefined ? {} : { expiresAt }) }
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
