/**
 * The authorization webhook (mode `issuer`): an API server asks whether one of our names may do something, and hears yes for
 * the very request that is under way, once, if the cluster's own RBAC would let the actor do it; no for everything else.
 * For names that are not ours it has no opinion. docs/decisions/0006-credentials.md.
 */
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { isRequestId } from '../../shared/request-id.ts'
import type { AccessReviews } from './access.ts'
import { identityOf, tokenSubject } from './actor.ts'
import { callText, RESOURCE_FIELDS } from './api-call.ts'
import type { CallAttributes } from './api-call.ts'
import type { AskedConnection } from './cluster-json.ts'
import type { CredentialNeed } from './credential.ts'
import { EXTRA_KEYS } from './impersonation.ts'
import { OWN_SUBJECT } from './own-calls.ts'
import type { OwnCalls } from './own-calls.ts'
import type { Refused } from './refused-record.ts'
import { GROUP_MARK, PREFIX, REQUEST_MARK } from './tokens.ts'
import { MAX_SIDE_QUESTIONS } from './tickets.ts'
import type { Tickets } from './tickets.ts'

const text = z.string().max(4096).default('')
const list = z.array(z.string().max(4096)).max(1000).nullish()

const reviewSchema = z.object({
  apiVersion: z.literal('authorization.k8s.io/v1'),
  kind: z.literal('SubjectAccessReview'),
  spec: z.object({
    user: text,
    groups: list,
    extra: z.record(z.string(), list).nullish(),
    resourceAttributes: z
      .object({
        verb: text,
        group: text,
        version: text,
        resource: text,
        subresource: text,
        namespace: text,
        name: text,
      })
      .nullish(),
    nonResourceAttributes: z.object({ verb: text, path: text }).nullish(),
  }),
})

type Spec = z.infer<typeof reviewSchema>['spec']

/** What an API server is told. */
export type Opinion =
  | { readonly allowed: true; readonly reason: string }
  /** `denied` ends the matter; without it other authorizers are asked. */
  | { readonly allowed: false; readonly denied: boolean; readonly reason: string }

/** See the head of the file. */
export interface Authorizer {
  /** @param review - a SubjectAccessReview as it came; undefined for what is none. Never rejects. */
  opinion(connection: AskedConnection, review: unknown): Promise<Opinion | undefined>
}

/** What the authorizer needs. */
export interface AuthorizerDeps {
  readonly tickets: Tickets
  readonly access: AccessReviews
  readonly ownCalls: OwnCalls
  readonly onRefused: (refused: Refused) => void
}

const NO_OPINION: Opinion = { allowed: false, denied: false, reason: '' }

export function createAuthorizer(deps: AuthorizerDeps): Authorizer {
  return {
    async opinion(connection, review) {
      const parsed = reviewSchema.safeParse(review)
      if (!parsed.success) return undefined
      const { spec } = parsed.data
      if (!spec.user.startsWith(PREFIX)) return NO_OPINION
      const call = callOf(spec)
      const requestId = requestIdOf(spec)
      const no = (why: string): Opinion => {
        const asked = callText(call)
        deps.onRefused({ cluster: connection.name, requestId: requestId ?? '', why, asked })
        return { allowed: false, denied: true, reason: `nestgate: ${why}` }
      }
      if (requestId === undefined) return no('no request id')
      const why =
        spec.user === PREFIX + OWN_SUBJECT
          ? deps.ownCalls.refuses(connection.name, requestId, call)
          : await refuses(deps, connection, spec, requestId, call)
      return why === undefined
        ? { allowed: true, reason: `nestgate: request ${requestId}` }
        : no(why)
    },
  }
}

/** Why a call in a caller's name is not allowed; undefined where it is. */
async function refuses(
  { tickets, access }: AuthorizerDeps,
  connection: AskedConnection,
  spec: Spec,
  requestId: string,
  call: CallAttributes,
): Promise<string | undefined> {
  const ticket = tickets.find(connection.name, requestId)
  if (ticket === undefined) return 'no such request is under way'
  const { need } = ticket
  if (!isFor(spec, need)) return 'the credential is for somebody else'
  if (isDeepStrictEqual(call, need.call.attributes)) {
    // counted at once, and not after the question below: two that come together are still two
    ticket.uses += 1
    if (ticket.uses > usesOf(call)) return 'the credential was used already'
  } else {
    if (!isSideQuestion(call, need)) return 'the credential is for another request'
    ticket.sideQuestions += 1
    if (ticket.sideQuestions > MAX_SIDE_QUESTIONS) return 'too many questions about one request'
    // a creation could be a request as well: one more session, or one more POST to the object
    if (call.verb === 'create' && (ticket.creations += 1) > usesOf(call))
      return 'the credential was used already'
  }
  const said = await access.check(connection, identityOf(need.actor, need.grantGroups), call)
  if (said === 'unknown') return 'the cluster could not be asked about its roles'
  return said === 'refused' ? 'no role of the cluster allows it' : undefined
}

/** Groups that the API server serves itself: whatever else may be an aggregated API, which asks the API server once more (k8s.io/apiserver, DelegatingAuthorizationOptions). */
const BUILT_IN_GROUPS: ReadonlySet<string> = new Set([
  ...['', 'apps', 'autoscaling', 'batch', 'extensions', 'policy'],
  ...[
    'admissionregistration',
    'apiextensions',
    'apiregistration',
    'authentication',
    'authorization',
    'certificates',
    'coordination',
    'discovery',
    'events',
    'flowcontrol.apiserver',
    'internal.apiserver',
    'networking',
    'node',
    'rbac.authorization',
    'resource',
    'scheduling',
    'storage',
    'storagemigration',
  ].map((group) => `${group}.k8s.io`),
])

/** Where an API tells what it serves. */
const DISCOVERY_PATH = /^\/apis\/([^/]+)(?:\/|$)/

/** How often an API server asks about the request itself. */
function usesOf({ group, nonResourcePath }: CallAttributes): number {
  const [, described = group] = DISCOVERY_PATH.exec(nonResourcePath) ?? []
  return BUILT_IN_GROUPS.has(described) ? 1 : 2
}

/** User and granted groups are those of the request, and there are no others but what every authenticated user has. */
function isFor({ user, groups }: Spec, { actor, grantGroups }: CredentialNeed): boolean {
  if (user !== PREFIX + tokenSubject(actor)) return false
  const own = (groups ?? []).filter((group) => group !== 'system:authenticated')
  if (!own.every((group) => group.startsWith(PREFIX))) return false
  const granted = own.filter((group) => group.startsWith(PREFIX + GROUP_MARK))
  const expected = grantGroups.map((group) => PREFIX + GROUP_MARK + group)
  return isDeepStrictEqual(new Set(granted), new Set(expected))
}

/** The request id of a token: an extra, or where the API server knows none, a group. Two different ones are none. */
function requestIdOf({ extra, groups }: Spec): string | undefined {
  const marked = (groups ?? [])
    .filter((group) => group.startsWith(PREFIX + REQUEST_MARK))
    .map((group) => group.slice((PREFIX + REQUEST_MARK).length))
  const found = new Set([...(extra?.[EXTRA_KEYS.requestId] ?? []), ...marked])
  const [id] = found
  return found.size === 1 && id !== undefined && isRequestId(id) ? id : undefined
}

function callOf({ resourceAttributes, nonResourceAttributes }: Spec): CallAttributes {
  const { verb = '' } = resourceAttributes ?? nonResourceAttributes ?? {}
  const none = { group: '', version: '', resource: '', subresource: '', namespace: '', name: '' }
  const { path = '' } = nonResourceAttributes ?? {}
  return { ...none, ...resourceAttributes, verb, nonResourcePath: path }
}

/** Verbs that are no request of their own: what admission and the registries ask beside it. */
const NEVER_A_REQUEST: ReadonlySet<string> = new Set([
  'bind',
  'escalate',
  'use',
  'approve',
  'sign',
  'attest',
])

/** Sessions that 1.35 asks about as `create` too (KEP-4006); what is proxied is none of them. */
const CREATED_SESSIONS: ReadonlySet<string> = new Set(['exec', 'attach', 'portforward'])

function isWebSocketSession({ verb, group, resource, subresource }: CallAttributes): boolean {
  return verb === 'get' && group === '' && resource === 'pods' && CREATED_SESSIONS.has(subresource)
}

/** Whether an API server asks this while it serves that request (docs/decisions/0006-credentials.md). */
function isSideQuestion(call: CallAttributes, { call: own }: CredentialNeed): boolean {
  if (call.nonResourcePath !== '') return false
  if (NEVER_A_REQUEST.has(call.verb)) return true
  // by its name: without one it would be a POST, of whatever name
  const same = RESOURCE_FIELDS.every((field) => call[field] === own.attributes[field])
  if (call.verb === 'create') return same && (own.mayCreate || isWebSocketSession(own.attributes))
  // an owner's finalizers are changed by whoever makes its dependents (OwnerReferencesPermissionEnforcement)
  return call.verb === 'update' && call.subresource === 'finalizers' && own.operations.length > 0
}
