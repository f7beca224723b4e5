/** Access reviews: the report of who could do what and what was done, and campaigns in which people decide on it. */
import express from 'express'
import type { Request, RequestHandler, Response, Router } from 'express'
import { z } from 'zod'
import {
  cancelCampaignSchema,
  decideItemSchema,
  MAX_ITEMS_PAGE,
  openCampaignSchema,
  remediateItemSchema,
  signOffSchema,
} from '../../shared/access-review-wire.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { problemAnswer } from '../../shared/status.ts'
import { Campaigns } from '../access-review/campaigns.ts'
import type { CampaignsDeps } from '../access-review/campaigns.ts'
import { makeReport } from '../access-review/report.ts'
import type { ReportQuery } from '../access-review/report.ts'
import type { Reviewer } from '../approvals/reviewers.ts'
import { onceEach, problemsOf } from '../audit/query.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import { ROLES } from '../identity/roles.ts'
import type { Role } from '../identity/roles.ts'
import type { Store } from '../store/store.ts'
import { answer } from './answers.ts'
import type { Result } from './answers.ts'
import { queryOf } from './people-routes.ts'
import { authorized, createWithRole } from './with-role.ts'
import type { WithRole } from './with-role.ts'

/** Campaigns, or items, of one page when nothing else is asked for. */
const DEFAULT_PAGE = 100
/** Longest value of one condition, in characters. */
const MAX_VALUE_LENGTH = 512
/** When a client first hears of a report that takes long, and how often from then on, in milliseconds: more often than clients give up. */
const SIGN_OF_LIFE_MS = 10_000

/** What these routes need. */
export interface AccessReviewRoutesDeps {
  readonly people: PeopleAuthenticator
  readonly store: Pick<Store, 'append'>
  readonly accessReview: CampaignsDeps
  /** How often a report that takes long shows that it is being made, in milliseconds. */
  readonly signOfLifeMs?: number
}

const value = z.string().min(1).max(MAX_VALUE_LENGTH)
const time = z.iso.datetime({ offset: true }).transform((text) => Date.parse(text))

/** Query of `GET /v1/access-review`. */
export const reportQuerySchema = z.strictObject({
  since: time,
  until: time,
  cluster: value.optional(),
  namespace: value.optional(),
  agent: value.optional(),
  subject: value.optional(),
})

const pageSchema = {
  limit: z
    .string()
    .regex(/^\d{1,6}$/, 'expected a whole number')
    .transform(Number)
    .pipe(z.int().min(1).max(MAX_ITEMS_PAGE))
    .optional(),
  /** `next` of the page before: an id. */
  cursor: z
    .string()
    .regex(/^[0-9a-f-]{1,64}$/, 'not one of ours')
    .optional(),
}
/** Query of `GET /v1/campaigns`. */
export const campaignsQuerySchema = z.strictObject(pageSchema)
/** Query of `GET /v1/campaigns/{id}/items`. */
export const itemsQuerySchema = z.strictObject({
  ...pageSchema,
  state: z.enum(['open', 'decided']).optional(),
  mine: z.literal('true').optional(),
})

/** The routes `/v1/access-review` and under `/v1/campaigns`. @param json - reads a JSON body */
export function accessReviewRoutes(
  deps: AccessReviewRoutesDeps,
  json: express.RequestHandler,
): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const campaigns = new Campaigns(deps.accessReview)
  const withRole = createWithRole(deps.people)
  const slowly = createSlowly(deps)
  router.get(
    '/access-review',
    slowly(['auditor'], (person, request) => report(deps, person, request)),
  )
  router.post(
    '/campaigns',
    json,
    slowly(['auditor'], (person, request) => {
      const body = openCampaignSchema.safeParse(request.body)
      if (!body.success) return refuse('body_invalid', problemsOf(body.error))
      const { since, until } = body.data
      const refusal = periodRefusal('body_invalid', Date.parse(since), Date.parse(until))
      return refusal ?? (() => asResult(campaigns.open(reviewerOf(person), body.data)))
    }),
  )
  addReads(router, campaigns, withRole)
  addSteps(router, campaigns, withRole, json)
  return router
}

function addReads(router: Router, campaigns: Campaigns, withRole: WithRole): void {
  router.get(
    '/campaigns',
    withRole(ROLES, async (_person, request) => {
      const query = queryAs(campaignsQuerySchema, request)
      if (isRefusal(query)) return query
      const { limit = DEFAULT_PAGE, cursor } = query
      return paged(await campaigns.list(cursor, limit + 1), limit)
    }),
  )
  router.get(
    '/campaigns/:id',
    withRole(ROLES, (_person, request) => asResult(campaigns.get(param(request, 'id')))),
  )
  router.get(
    '/campaigns/:id/items',
    withRole(ROLES, async (person, request) => {
      const query = queryAs(itemsQuerySchema, request)
      if (isRefusal(query)) return query
      const { limit = DEFAULT_PAGE, cursor: after, state, mine } = query
      const filter = { state, after, mine: mine && reviewerOf(person), limit: limit + 1 }
      const items = await campaigns.items(param(request, 'id'), filter)
      return isRefusal(items) ? items : paged(items, limit)
    }),
  )
}

function addSteps(
  router: Router,
  campaigns: Campaigns,
  withRole: WithRole,
  json: express.RequestHandler,
): void {
  const add = <T>(
    path: string,
    roles: readonly Role[],
    schema: z.ZodType<T>,
    act: (by: Reviewer, request: Request, body: T) => Promise<object>,
  ): void => {
    const handle = withRole(roles, async (person, request) => {
      const body = schema.safeParse(request.body)
      if (!body.success) return refuse('body_invalid', problemsOf(body.error))
      return asResult(act(reviewerOf(person), request, body.data))
    })
    router.post(`/campaigns/:id/${path}`, json, handle)
  }
  const itemOf = (request: Request): { campaign: string; item: string } => ({
    campaign: param(request, 'id'),
    item: param(request, 'item'),
  })
  add('items/:item/decide', ROLES, decideItemSchema, (by, request, body) =>
    campaigns.decide(by, itemOf(request), body),
  )
  add('items/:item/remediated', ['auditor'], remediateItemSchema, (by, request, body) =>
    campaigns.remediated(by, itemOf(request), body),
  )
  add('sign-off', ['auditor'], signOffSchema, (by, request, body) =>
    campaigns.signOff(by, param(request, 'id'), body),
  )
  add('cancel', ['auditor'], cancelCampaignSchema, (by, request, { reason }) =>
    campaigns.cancel(by, param(request, 'id'), reason),
  )
}

/** Reading the ledger is itself evidence (PCI DSS 10.2.1.3), written before the answer. */
function report(
  { accessReview, store }: AccessReviewRoutesDeps,
  person: Person,
  request: Request,
): Work | Refusal {
  const query = queryAs(reportQuerySchema, request)
  if (isRefusal(query)) return query
  const { since: sinceMs, until: untilMs, ...conditions } = query
  const refusal = periodRefusal('query_invalid', sinceMs, untilMs)
  if (refusal !== undefined) return refusal
  const asked: ReportQuery = { sinceMs, untilMs, scope: conditions, by: person.name }
  return async () => {
    const made = await makeReport(accessReview, asked)
    const question = { of: 'access-review', since: made.since, until: made.until, ...conditions }
    const detail = { query: JSON.stringify(question), returned: made.population.matched }
    await store.append([{ kind: 'system', event: 'audit_read', actor: person.name, detail }])
    return { ...made }
  }
}

function periodRefusal(
  reason: 'body_invalid' | 'query_invalid',
  sinceMs: number,
  untilMs: number,
): Refusal | undefined {
  return sinceMs < untilMs ? undefined : refuse(reason, 'until: is not after since')
}

function queryAs<T>(schema: z.ZodType<T>, request: Request): T | Refusal {
  const raw = onceEach(queryOf(request))
  if (isRefusal(raw)) return raw
  const parsed = schema.safeParse(raw.values)
  return parsed.success ? parsed.data : refuse('query_invalid', problemsOf(parsed.error))
}

/** One more than the page was asked for, which tells whether there is another. */
function paged(found: readonly { readonly id: string }[], limit: number): Result {
  const items = found.slice(0, limit)
  const last = items.at(-1)
  return found.length > limit && last !== undefined ? { items, next: last.id } : { items }
}

function reviewerOf({ name: reviewer, groups, names }: Person): Reviewer {
  return { reviewer, groups, names }
}

function param(request: Request, name: string): string {
  const found = request.params[name]
  return typeof found === 'string' ? found : ''
}

async function asResult(made: Promise<object>): Promise<Result> {
  return { ...(await made) }
}

/** What takes long; begun only when it may be. */
type Work = () => Promise<Result>

/**
 * Makes a route of what may read the whole ledger: one at a time, and with a sign of life (white space, which JSON may
 * begin with) where it takes long. A refusal that comes after the first of them has its problem document under status 200.
 */
function createSlowly({
  people,
  signOfLifeMs = SIGN_OF_LIFE_MS,
}: AccessReviewRoutesDeps): (
  roles: readonly Role[],
  prepare: (person: Person, request: Request) => Work | Refusal,
) => RequestHandler {
  let busy = false
  const handle = async (work: Work, response: Response): Promise<void> => {
    if (busy) {
      answer(response, refuse('broker_busy', 'another access report is being made'))
      return
    }
    busy = true
    const alive = setInterval(() => {
      if (response.destroyed) return
      if (!response.headersSent) response.writeHead(200, { 'Content-Type': 'application/json' })
      response.write(' ')
    }, signOfLifeMs)
    try {
      const result = await work()
      if (!response.headersSent) answer(response, result)
      else if (!response.destroyed)
        response.end(isRefusal(result) ? problemAnswer(result).body : JSON.stringify(result))
    } finally {
      busy = false
      clearInterval(alive)
    }
  }
  return (roles, prepare) => (request, response, next) => {
    authorized(people, request, roles)
      .then((person) => {
        const work = isRefusal(person) ? person : prepare(person, request)
        if (typeof work === 'function') return handle(work, response)
        answer(response, work)
        return undefined
      })
      .catch((error: unknown) => {
        // whoever hears nothing more knows that it is not whole
        if (response.headersSent) response.destroy()
        next(error)
      })
  }
}
