/**
 * Admission's side of mode `impersonation`, for clusters in which a webhook binds writes and sessions: an API server asks
 * whether an operation belongs to the request under whose id it is made. What it hears is yes only while that request is
 * under way, for an operation that the request may come to, by the actor of the request.
 */
import { z } from 'zod'
import { isRequestId } from '../../shared/request-id.ts'
import { identityOf } from './actor.ts'
import { isAmong, operationText } from './api-call.ts'
import { EXTRA_KEYS } from './impersonation.ts'
import type { Refused } from './refused-record.ts'
import type { Tickets } from './tickets.ts'

const text = z.string().max(4096).default('')

const reviewSchema = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.object({
    uid: z.string().min(1).max(512),
    operation: z.enum(['CREATE', 'UPDATE', 'DELETE', 'CONNECT']),
    resource: z.object({ group: text, resource: text }),
    requestResource: z.object({ group: text, resource: text }).nullish(),
    subResource: text,
    requestSubResource: text,
    namespace: text,
    name: text,
    userInfo: z.object({
      username: text,
      extra: z.record(z.string(), z.array(z.string()).nullish()).nullish(),
    }),
  }),
})

type Request = z.infer<typeof reviewSchema>['request']

/** The `response` of an AdmissionReview. */
export interface AdmissionResponse {
  readonly uid: string
  readonly allowed: boolean
  readonly status?: { readonly code: number; readonly message: string }
}

/** What answering needs. */
export interface AdmissionDeps {
  readonly tickets: Tickets
  /** Whether the broker alone may act as this user there: without an id of ours, nobody does. */
  readonly isOurs: (cluster: string, user: string) => boolean
  readonly onRefused: (refused: Refused) => void
}

/** Answers one review. @returns undefined for what is no AdmissionReview v1 */
export function admit(
  deps: AdmissionDeps,
  cluster: string,
  review: unknown,
): AdmissionResponse | undefined {
  const parsed = reviewSchema.safeParse(review)
  if (!parsed.success) return undefined
  const { request } = parsed.data
  const problem = problemOf(deps, cluster, request)
  const { uid } = request
  if (problem === undefined) return { uid, allowed: true }
  const [id = ''] = request.userInfo.extra?.[EXTRA_KEYS.requestId] ?? []
  // whoever reaches the broker may ask: what is no id, and of any length, does not get into the ledger
  const requestId = isRequestId(id) ? id : ''
  deps.onRefused({ cluster, requestId, why: problem, asked: askedText(request) })
  return { uid, allowed: false, status: { code: 403, message: `nestgate: ${problem}` } }
}

function problemOf(
  { tickets, isOurs }: AdmissionDeps,
  cluster: string,
  request: Request,
): string | undefined {
  const { username, extra } = request.userInfo
  const ids = extra?.[EXTRA_KEYS.requestId] ?? []
  const [id] = ids
  if (id === undefined)
    return isOurs(cluster, username) ? 'this user acts through the broker only' : undefined
  const ticket = ids.length === 1 ? tickets.find(cluster, id) : undefined
  if (ticket === undefined) return 'no such request is under way'
  const { need } = ticket
  if (identityOf(need.actor, need.grantGroups).user !== username)
    return 'the request is somebody else’s'
  return isAmong(askedText(request), need.call.operations)
    ? undefined
    : 'this is not what was approved'
}

/** What is asked about. Where a webhook matches equivalent resources, the request's own counts. */
function askedText(request: Request): string {
  const { operation, requestResource, namespace, name } = request
  const own = requestResource ?? undefined
  const { group, resource } = own ?? request.resource
  const subresource = own === undefined ? request.subResource : request.requestSubResource
  return operationText(operation, { apiGroup: group, resource, subresource, namespace, name })
}
