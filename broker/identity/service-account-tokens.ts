/**
 * Projected service-account tokens of a cluster's sidecars: audience `nestgate-broker`, bound to a pod that is still there.
 * Checked against the issuer's published keys (jose) and the pod itself, or by the cluster's TokenReview, which looks at
 * both. Attacker-controlled until verified; nothing of a token is logged or kept but its digest.
 */
import { createHash } from 'node:crypto'
import { createLocalJWKSet, decodeJwt, errors, jwtVerify } from 'jose'
import type { JWTPayload } from 'jose'
import { z } from 'zod'
import { BROKER_AUDIENCE } from '../../shared/agent-tag.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { clusterJson } from '../credentials/cluster-json.ts'
import type { ClusterConnection } from '../credentials/connection.ts'

/** The pod that a verified token belongs to. */
export interface PodIdentity {
  readonly cluster: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly podName: string
  readonly podUid: string
}

/** Verifies tokens of one cluster. */
export interface TokenVerifier {
  /** @returns `identity_unavailable` when the cluster could not be asked, `credentials_invalid` for any fault of the token */
  verify(token: string): Promise<PodIdentity | Refusal>
}

/** What a way of checking found. `expiresAtMs` bounds how long the finding may be kept. */
interface Finding {
  readonly identity: PodIdentity
  readonly expiresAtMs: number
}

type Check = (token: string) => Promise<Finding | Refusal>

/** Longest token that is looked at, in characters. */
const MAX_TOKEN_LENGTH = 8192
/** Verified tokens kept by digest. */
const MAX_CACHED_TOKENS = 10_000
/** A TokenReview's yes is kept this long, in milliseconds: kube-apiserver keeps its own for 10 s. */
const REVIEW_CACHE_MS = 10_000
/** A token verified by key is looked at again after this long, in milliseconds, so that a removed key or pod ends it. */
const KEY_CACHE_MS = 60_000
/** An unknown key id makes the key set be fetched again at most this often, in milliseconds. */
const JWKS_COOLDOWN_MS = 10_000
/** The key set is fetched again after this long, in milliseconds. */
const JWKS_MAX_AGE_MS = 300_000
/** A key set that cannot be fetched again is of no use after this long, in milliseconds: which keys were withdrawn meanwhile, nobody knows. */
const JWKS_STALE_MS = 3_600_000
/** A pod that is deleted is none this long after its grace period, in milliseconds, whatever still holds the object: as the API server's own check has it. */
const DELETED_LEEWAY_MS = 60_000
const JWKS_PATH = '/openid/v1/jwks'
const REVIEW_PATH = '/apis/authentication.k8s.io/v1/tokenreviews'
const CLOCK_TOLERANCE_S = 10
/** What Kubernetes signs service-account tokens with. */
const ALGORITHMS = ['RS256', 'RS384', 'RS512', 'ES256', 'ES384', 'ES512']

const POD_GONE = 'the token’s pod is gone'

const podClaims = z.object({
  exp: z.number(),
  'kubernetes.io': z.object({
    namespace: z.string().min(1),
    pod: z.object({ name: z.string().min(1), uid: z.string().min(1) }),
    serviceaccount: z.object({ name: z.string().min(1), uid: z.string().min(1) }),
  }),
})

const podSchema = z.object({
  metadata: z.object({ uid: z.string(), deletionTimestamp: z.iso.datetime().nullish() }),
})

const jwksSchema = z.object({ keys: z.array(z.looseObject({ kty: z.string() })) })

const reviewSchema = z.object({
  status: z.object({
    authenticated: z.boolean().optional(),
    audiences: z.array(z.string()).optional(),
    user: z.unknown().optional(),
  }),
})

/** Keeps findings by the token's digest, never longer than they hold. */
export function createTokenVerifier(check: Check, now: () => number): TokenVerifier {
  const found = new Map<string, Finding>()
  const pending = new Map<string, Promise<Finding | Refusal>>()
  return {
    async verify(token): Promise<PodIdentity | Refusal> {
      if (token.length > MAX_TOKEN_LENGTH)
        return refuse('credentials_invalid', 'the token is too long')
      const digest = createHash('sha256').update(token).digest('base64')
      const cached = found.get(digest)
      if (cached !== undefined && cached.expiresAtMs > now()) return cached.identity
      found.delete(digest)
      // one question for all requests that come meanwhile
      const asked = pending.get(digest) ?? check(token).finally(() => pending.delete(digest))
      pending.set(digest, asked)
      const finding = await asked
      if ('refused' in finding) return finding
      if (found.size >= MAX_CACHED_TOKENS) dropOldest(found)
      found.set(digest, finding)
      return finding.identity
    },
  }
}

/**
 * Checks tokens against the keys that the cluster publishes at `/openid/v1/jwks`, and that their pod is still there: a
 * signature outlives it. The broker must be allowed to get pods in the namespaces that it serves.
 */
export function checkByKeys(
  connection: ClusterConnection,
  issuer: string,
  now: () => number,
): Check {
  const keySource = createKeySource(connection, now)
  const check = async (token: string, refresh: boolean): Promise<Finding | Refusal> => {
    const keys = await keySource.get(refresh)
    if (typeof keys === 'string')
      return refuse('identity_unavailable', `the issuer's keys: ${keys}`)
    try {
      const { payload } = await jwtVerify(token, keys, {
        issuer,
        audience: BROKER_AUDIENCE,
        algorithms: ALGORITHMS,
        clockTolerance: CLOCK_TOLERANCE_S,
        requiredClaims: ['exp', 'iat', 'sub'],
        currentDate: new Date(now()),
      })
      return findingOf(payload, connection.name, now)
    } catch (error) {
      if (error instanceof errors.JWKSNoMatchingKey && !refresh) return check(token, true)
      return refuse(
        'credentials_invalid',
        error instanceof errors.JOSEError ? error.code : 'not a token',
      )
    }
  }
  return async (token) => {
    const finding = await check(token, false)
    if ('refused' in finding) return finding
    return (await missingPod(connection, finding.identity, now)) ?? finding
  }
}

/** Why a pod is not there, or not known to be; undefined where it is. */
async function missingPod(
  connection: ClusterConnection,
  { namespace, podName, podUid }: PodIdentity,
  now: () => number,
): Promise<Refusal | undefined> {
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/pods/${encodeURIComponent(podName)}`
  const answer = await clusterJson(connection, 'GET', path)
  if ('problem' in answer) {
    if (answer.status === 404) return refuse('credentials_invalid', POD_GONE)
    return refuse(
      'identity_unavailable',
      answer.status === 403
        ? `the broker may not get pods in the namespace ${namespace}`
        : `the token’s pod: ${answer.problem}`,
    )
  }
  const pod = podSchema.safeParse(answer.json)
  if (!pod.success)
    return refuse('identity_unavailable', 'the token’s pod: not the expected answer')
  const { uid, deletionTimestamp } = pod.data.metadata
  const endMs = typeof deletionTimestamp === 'string' ? Date.parse(deletionTimestamp) : Infinity
  const gone = uid !== podUid || endMs + DELETED_LEEWAY_MS < now()
  return gone ? refuse('credentials_invalid', POD_GONE) : undefined
}

function findingOf(payload: JWTPayload, cluster: string, now: () => number): Finding | Refusal {
  const claims = podClaims.safeParse(payload)
  if (!claims.success) return refuse('credentials_invalid', 'the token is not bound to a pod')
  const { namespace, pod, serviceaccount } = claims.data['kubernetes.io']
  return {
    identity: {
      cluster,
      namespace,
      serviceAccount: serviceaccount.name,
      podName: pod.name,
      podUid: pod.uid,
    },
    expiresAtMs: Math.min(claims.data.exp * 1000, now() + KEY_CACHE_MS),
  }
}

type LocalKeys = ReturnType<typeof createLocalJWKSet>

/** The issuer's keys, or why there are none: one fetch in flight, kept for minutes, fetched anew for an unknown key id but not more often than the cooldown. */
function createKeySource(
  connection: ClusterConnection,
  now: () => number,
): { get(refresh: boolean): Promise<LocalKeys | string> } {
  let keys: LocalKeys | undefined
  let problem = 'not fetched yet'
  let fetchedAt = Number.NEGATIVE_INFINITY
  let pending: Promise<void> | undefined
  const fetchKeys = async (): Promise<void> => {
    const answer = await clusterJson(connection, 'GET', JWKS_PATH)
    if ('problem' in answer) {
      problem = answer.problem
      return
    }
    const parsed = jwksSchema.safeParse(answer.json)
    if (!parsed.success) {
      problem = 'not a key set'
      return
    }
    keys = createLocalJWKSet({ keys: parsed.data.keys })
    fetchedAt = now()
  }
  return {
    async get(refresh): Promise<LocalKeys | string> {
      const age = now() - fetchedAt
      if (age > JWKS_MAX_AGE_MS || (refresh && age > JWKS_COOLDOWN_MS)) {
        pending ??= fetchKeys().finally(() => {
          pending = undefined
        })
        await pending
      }
      return keys === undefined || now() - fetchedAt >= JWKS_STALE_MS ? problem : keys
    },
  }
}

/** Checks tokens by asking the API server (authentication.k8s.io/v1 TokenReview). */
export function checkByReview(connection: ClusterConnection, now: () => number): Check {
  return async (token) => {
    const review = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenReview',
      spec: { token, audiences: [BROKER_AUDIENCE] },
    }
    const answer = await clusterJson(connection, 'POST', REVIEW_PATH, review)
    if ('problem' in answer) return refuse('identity_unavailable', `TokenReview: ${answer.problem}`)
    const parsed = reviewSchema.safeParse(answer.json)
    if (!parsed.success)
      return refuse('identity_unavailable', 'TokenReview: not the expected answer')
    const { status } = parsed.data
    if (status.authenticated !== true || status.audiences?.includes(BROKER_AUDIENCE) !== true) {
      return refuse('credentials_invalid', 'the cluster does not accept the token')
    }
    const identity = reviewedPod(connection.name, status.user)
    if (identity === undefined)
      return refuse('credentials_invalid', 'the token is not bound to a pod')
    return { identity, expiresAtMs: Math.min(expiryOf(token), now() + REVIEW_CACHE_MS) }
  }
}

const EXTRA_PREFIX = 'authentication.kubernetes.io'
const userSchema = z.object({
  username: z.templateLiteral([z.literal('system:serviceaccount:'), z.string()]),
  extra: z.object({
    [`${EXTRA_PREFIX}/pod-name`]: z.array(z.string().min(1)).length(1),
    [`${EXTRA_PREFIX}/pod-uid`]: z.array(z.string().min(1)).length(1),
  }),
})

function reviewedPod(cluster: string, user: unknown): PodIdentity | undefined {
  const parsed = userSchema.safeParse(user)
  if (!parsed.success) return undefined
  const [, , namespace, serviceAccount] = parsed.data.username.split(':')
  const [podName] = parsed.data.extra[`${EXTRA_PREFIX}/pod-name`]
  const [podUid] = parsed.data.extra[`${EXTRA_PREFIX}/pod-uid`]
  if (namespace === undefined || serviceAccount === undefined) return undefined
  return podName === undefined || podUid === undefined
    ? undefined
    : { cluster, namespace, serviceAccount, podName, podUid }
}

/** When a token says that it ends; the cluster has verified that it is not over yet. */
function expiryOf(token: string): number {
  try {
    return (decodeJwt(token).exp ?? 0) * 1000
  } catch {
    return 0
  }
}

function dropOldest(map: Map<string, Finding>): void {
  const oldest = map.keys().next()
  if (oldest.done !== true) map.delete(oldest.value)
}
