/**
 * What the broker does in a cluster in its own name (mode `issuer`): a closed list, by a token of its own that the authorizer
 * knows. It reads what a cluster serves and who somebody is; it can neither change anything nor read what people store,
 * the description of pods apart.
 */
import { newRequestId } from '../../shared/request-id.ts'
import type { CallAttributes } from './api-call.ts'
import { TICKET_LIFE_MS } from './tickets.ts'

/** `sub` of the broker's own tokens. */
export const OWN_SUBJECT = 'broker'
/** How long one token is used, in milliseconds: well within its life, and the API server's cache of it. */
const USED_FOR_MS = TICKET_LIFE_MS / 2

const READABLE_PATH =
  /^\/(api|apis)(\/[^/]+){0,2}$|^\/openid\/v1\/jwks$|^\/\.well-known\/openid-configuration$|^\/version$/
const REVIEWS: ReadonlySet<string> = new Set([
  'authentication.k8s.io/tokenreviews',
  'authorization.k8s.io/subjectaccessreviews',
])

/** See the head of the file. */
export interface OwnCalls {
  /** The id of the token that is in use at this cluster; a new one before the old one ends. */
  idFor(cluster: string): string
  /** From here on each cluster's id, and so its token, is a new one; what is under way by the old ones goes on. */
  renew(): void
  /** Why a call under that id is not the broker's; undefined where it is. */
  refuses(cluster: string, requestId: string, call: CallAttributes): string | undefined
}

interface InUse {
  readonly id: string
  readonly sinceMs: number
  readonly generation: number
}

/** @param now - milliseconds since the epoch */
export function createOwnCalls(now: () => number): OwnCalls {
  const inUse = new Map<string, readonly InUse[]>()
  let generation = 0
  /** One of a time to come is of before the clock was set back: its token has another end than we would think. */
  const live = (cluster: string): readonly InUse[] =>
    (inUse.get(cluster) ?? []).filter(
      ({ sinceMs }) => sinceMs <= now() && sinceMs + TICKET_LIFE_MS > now(),
    )
  return {
    idFor(cluster) {
      const known = live(cluster)
      const [newest] = known
      if (newest?.generation === generation && newest.sinceMs + USED_FOR_MS > now())
        return newest.id
      const id = newRequestId(now())
      inUse.set(cluster, [{ id, sinceMs: now(), generation }, ...known])
      return id
    },
    renew() {
      generation += 1
    },
    refuses(cluster, requestId, call) {
      if (!live(cluster).some(({ id }) => id === requestId)) return 'no such request is under way'
      return isOwn(call) ? undefined : 'the broker has no such right of its own'
    },
  }
}

function isOwn({
  verb,
  group,
  resource,
  subresource,
  name,
  nonResourcePath,
}: CallAttributes): boolean {
  if (nonResourcePath !== '') return verb === 'get' && READABLE_PATH.test(nonResourcePath)
  if (subresource !== '') return false
  if (verb === 'create') return REVIEWS.has(`${group}/${resource}`)
  return verb === 'get' && group === '' && resource === 'pods' && name !== ''
}
