/**
 * What the cluster's own RBAC says of an identity: asked by SubjectAccessReview (authorization.k8s.io/v1), in the broker's
 * own name. In mode `issuer` this is the ceiling of every request: names of our own have no rights, so the rights are those
 * that impersonation would have had.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import type { ClusterIdentity } from './actor.ts'
import { RESOURCE_FIELDS } from './api-call.ts'
import type { CallAttributes } from './api-call.ts'
import { clusterJson } from './cluster-json.ts'
import type { AskedConnection } from './cluster-json.ts'

const REVIEW_PATH = '/apis/authorization.k8s.io/v1/subjectaccessreviews'
/** How long a yes is used again, in milliseconds; a no is asked again each time. The API server's own default is 5 minutes. */
export const YES_LIFE_MS = 10_000
/** Answers that are kept. */
const MAX_KEPT = 10_000
/** Every authenticated request has it (apiserver, authentication/group). */
const AUTHENTICATED = 'system:authenticated'

const reviewSchema = z.object({
  status: z.object({ allowed: z.boolean(), denied: z.boolean().optional() }),
})

/** What RBAC says; `unknown` where it could not be asked. */
export type Access = 'allowed' | 'refused' | 'unknown'

/** See the head of the file. */
export interface AccessReviews {
  /** Never rejects. Asked twice at the same time, the cluster is asked once. */
  check(
    connection: AskedConnection,
    identity: ClusterIdentity,
    call: CallAttributes,
  ): Promise<Access>
}

/** @param now - milliseconds since the epoch */
export function createAccessReviews(now: () => number): AccessReviews {
  const kept = new Map<string, number>()
  const ways = new WeakMap<AskedConnection['own'], number>()
  let wayCount = 0
  /** A cluster that was changed is reached another way, and what the one before it said does not hold there. */
  const wayOf = ({ own }: AskedConnection): number => {
    const way = ways.get(own) ?? (wayCount += 1)
    ways.set(own, way)
    return way
  }
  const asking = new Map<string, Promise<Access>>()
  const ask = async (
    key: string,
    ...question: Parameters<AccessReviews['check']>
  ): Promise<Access> => {
    const access = await reviewAccess(...question)
    if (access === 'allowed') {
      const oldest = kept.size >= MAX_KEPT ? kept.keys().next() : undefined
      if (oldest?.done === false) kept.delete(oldest.value)
      kept.set(key, now() + YES_LIFE_MS)
    }
    return access
  }
  return {
    check(connection, identity, call) {
      // a digest: a path is as long as a client likes
      const key = createHash('sha256')
        .update(JSON.stringify([wayOf(connection), identity, call]))
        .digest('base64')
      const untilMs = kept.get(key)
      // no more than its life either: with a clock that was set back it would last for as long as that
      const leftMs = (untilMs ?? 0) - now()
      if (leftMs > 0 && leftMs <= YES_LIFE_MS) return Promise.resolve('allowed')
      kept.delete(key)
      const pending =
        asking.get(key) ??
        ask(key, connection, identity, call).finally(() => {
          asking.delete(key)
        })
      asking.set(key, pending)
      return pending
    },
  }
}

/** Asks the cluster, once and now. Never rejects. */
export async function reviewAccess(
  connection: AskedConnection,
  { user, groups }: ClusterIdentity,
  call: CallAttributes,
): Promise<Access> {
  const { verb, nonResourcePath } = call
  const attributes =
    nonResourcePath === ''
      ? {
          resourceAttributes: {
            verb,
            ...Object.fromEntries(RESOURCE_FIELDS.map((field) => [field, call[field]])),
          },
        }
      : { nonResourceAttributes: { verb, path: nonResourcePath } }
  const body = {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SubjectAccessReview',
    spec: { user, groups: [...groups, AUTHENTICATED], ...attributes },
  }
  const answer = await clusterJson(connection, 'POST', REVIEW_PATH, body)
  if ('problem' in answer) return 'unknown'
  const parsed = reviewSchema.safeParse(answer.json)
  if (!parsed.success) return 'unknown'
  const { allowed, denied = false } = parsed.data.status
  return allowed && !denied ? 'allowed' : 'refused'
}
