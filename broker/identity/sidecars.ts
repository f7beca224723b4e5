/**
 * Sidecars: who is behind a request that comes out of a pod. The bearer token says which pod it is (verified
 * by service-account-tokens.ts), the key registered for that pod vouches for the agent tag, and the tag names
 * the process. A sidecar whose key is not known (sidecar-keys.ts) is told `sidecar_key_unknown` and registers again.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { EmbeddedJWK, errors, jwtVerify } from 'jose'
import type { JWTVerifyOptions } from 'jose'
import { z } from 'zod'
import {
  agentTagSchema,
  BROKER_AUDIENCE,
  PROOF_TYPE,
  TAG_MAX_AGE_S,
  TAG_TYPE,
} from '../../shared/agent-tag.ts'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { AGENT_HEADER, bearerToken, CLUSTER_HEADER, countHeader } from '../../shared/headers.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { PodIdentity, TokenVerifier } from './service-account-tokens.ts'
import { SidecarKeys, usableKey } from './sidecar-keys.ts'
import type { RegisteredKey, SidecarJwk } from './sidecar-keys.ts'

/** A request's origin: pod and process. */
export interface Caller {
  readonly pod: PodIdentity
  readonly tag: AgentTag
}

/** The headers of a message, as Node parsed them and as they came. */
export interface MessageHeaders {
  readonly headers: IncomingHttpHeaders
  readonly rawHeaders: readonly string[]
}

/** See the head of the file. */
export interface Sidecars {
  /** The pod behind a call to `/v1`, whose cluster the sidecar names in `Nestgate-Cluster`. */
  authenticate(message: MessageHeaders): Promise<PodIdentity | Refusal>
  /** Pod and process behind a request to `/clusters/NAME/`. */
  identify(cluster: string, message: MessageHeaders): Promise<Caller | Refusal>
  /** Makes the key of `proof` the pod's own, in place of any earlier one; the caller stores it. */
  register(message: MessageHeaders, proof: string): Promise<Registered | Refusal>
}

/** A registered key. */
export interface Registered {
  readonly podUid: string
  readonly keyId: string
  /** To be stored under `CLUSTER/POD_UID`. */
  readonly jwk: SidecarJwk
}

interface VerifiedTag {
  readonly tag: AgentTag
  readonly keyId: string
  readonly expiresAtMs: number
}

/** Verified tags kept; a tag lives a minute, so this bounds memory, not correctness. */
const MAX_TAGS = 5_000
const MAX_TAG_LENGTH = 8192
const CLOCK_TOLERANCE_S = 5
const ALGORITHMS = ['EdDSA', 'Ed25519']

const publicKeySchema = z.strictObject({
  kty: z.literal('OKP'),
  crv: z.literal('Ed25519'),
  x: z.string(),
  alg: z.enum(['EdDSA', 'Ed25519']).optional(),
  use: z.literal('sig').optional(),
  kid: z.string().optional(),
})

/** What identification of sidecars needs. */
export interface SidecarsDeps {
  /** One for each registered cluster, by name. */
  readonly verifiers: { get(name: string): TokenVerifier | undefined }
  /** Reads a stored key, see sidecar-keys.ts; without it keys are in memory alone. */
  readonly stored?: (name: string) => Promise<unknown>
  readonly now: () => number
}

/** See the head of the file. */
export function createSidecars({ verifiers, stored, now }: SidecarsDeps): Sidecars {
  const keys = new SidecarKeys(stored, now)
  const tags = new Map<string, VerifiedTag>()
  const podOf = (cluster: string, message: MessageHeaders): Promise<PodIdentity | Refusal> =>
    verifyBearer(verifiers.get(cluster), message)
  const claims = (typ: string): JWTVerifyOptions => ({
    typ,
    audience: BROKER_AUDIENCE,
    algorithms: ALGORITHMS,
    maxTokenAge: TAG_MAX_AGE_S,
    clockTolerance: CLOCK_TOLERANCE_S,
    currentDate: new Date(now()),
  })
  const verifyTag = async (jws: string, own: RegisteredKey): Promise<AgentTag | Refusal> => {
    const known = tags.get(jws)
    if (known?.keyId === own.keyId && known.expiresAtMs > now()) return known.tag
    tags.delete(jws)
    try {
      const { payload } = await jwtVerify(jws, own.key, claims(TAG_TYPE))
      const parsed = agentTagSchema.safeParse(payload['tag'])
      if (!parsed.success)
        return refuse('agent_tag_invalid', 'the tag does not have the expected form')
      const expiresAtMs = ((payload.iat ?? 0) + TAG_MAX_AGE_S) * 1000
      dropExpired(tags, now())
      keep(tags, jws, { tag: parsed.data, keyId: own.keyId, expiresAtMs }, MAX_TAGS)
      return parsed.data
    } catch (error) {
      return refuse('agent_tag_invalid', joseCode(error))
    }
  }
  return {
    authenticate: (message) => podOf(String(message.headers[CLUSTER_HEADER] ?? ''), message),
    async identify(cluster, message): Promise<Caller | Refusal> {
      const pod = await podOf(cluster, message)
      if (isRefusal(pod)) return pod
      const jws = message.headers[AGENT_HEADER]
      if (typeof jws !== 'string' || countHeader(message.rawHeaders, AGENT_HEADER) !== 1) {
        return refuse('agent_tag_invalid', 'there is not exactly one tag')
      }
      if (jws.length > MAX_TAG_LENGTH) return refuse('agent_tag_invalid', 'the tag is too long')
      const own = await keys.get(keyName(pod))
      if (own === undefined) return refuse('sidecar_key_unknown')
      const tag = await verifyTag(jws, own)
      if (!isRefusal(tag)) return { pod, tag }
      // the pod may have registered another key at another broker
      const other = await keys.other(keyName(pod), own)
      if (other === undefined) return tag
      const again = await verifyTag(jws, other)
      return isRefusal(again) ? again : { pod, tag: again }
    },
    async register(message, proof): Promise<Registered | Refusal> {
      const pod = await podOf(String(message.headers[CLUSTER_HEADER] ?? ''), message)
      if (isRefusal(pod)) return pod
      const own = await provenKey(proof, claims(PROOF_TYPE))
      if (isRefusal(own)) return own
      keys.put(keyName(pod), own)
      return { podUid: pod.podUid, keyId: own.keyId, jwk: own.jwk }
    },
  }
}

/** A pod's uid is unique in its cluster only. */
function keyName(pod: PodIdentity): string {
  return `${pod.cluster}/${pod.podUid}`
}

async function verifyBearer(
  verifier: TokenVerifier | undefined,
  message: MessageHeaders,
): Promise<PodIdentity | Refusal> {
  if (verifier === undefined) return refuse('cluster_unknown')
  const lines = countHeader(message.rawHeaders, 'authorization')
  if (lines === 0) return refuse('credentials_missing')
  if (lines > 1) return refuse('header_invalid', 'there is more than one Authorization header')
  const token = bearerToken(message.headers)
  return token === undefined ? refuse('credentials_missing') : verifier.verify(token)
}

/** The key in a proof of possession, once the proof's signature is that key's own. */
async function provenKey(
  proof: string,
  options: JWTVerifyOptions,
): Promise<RegisteredKey | Refusal> {
  try {
    const { protectedHeader } = await jwtVerify(proof, EmbeddedJWK, options)
    const jwk = publicKeySchema.safeParse(protectedHeader.jwk)
    if (!jwk.success)
      return refuse('body_invalid', 'the proof does not carry an Ed25519 public key')
    const own = await usableKey(jwk.data)
    return own ?? refuse('body_invalid', 'the proof does not carry a public key')
  } catch (error) {
    return refuse('body_invalid', `the proof of possession is not valid: ${joseCode(error)}`)
  }
}

function joseCode(error: unknown): string {
  return error instanceof errors.JOSEError ? error.code : 'not a signed token'
}

/** Drops tags that are over, oldest first; they were kept in the order in which they end, nearly. */
function dropExpired(tags: Map<string, VerifiedTag>, nowMs: number): void {
  for (const [jws, { expiresAtMs }] of tags) {
    if (expiresAtMs > nowMs) return
    tags.delete(jws)
  }
}

/** Sets an entry as the youngest, dropping the oldest where the map is full. */
function keep<T>(map: Map<string, T>, name: string, value: T, limit: number): void {
  map.delete(name)
  const oldest = map.size >= limit ? map.keys().next() : undefined
  if (oldest?.done === false) map.delete(oldest.value)
  map.set(name, value)
}
