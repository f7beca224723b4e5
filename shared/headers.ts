/**
 * Header names of our own, and the rule for everybody else's: whatever could be read as an identity, a
 * forwarding claim or a hop-by-hop instruction is removed by prefix and by `Connection` token *before*
 * ours are set (CVE-2021-31999, CVE-2022-23652: identity is set last).
 */
import type { IncomingHttpHeaders } from 'node:http'

/** Tag of the calling process, a compact JWS made by the sidecar. */
export const AGENT_HEADER = 'nestgate-agent'
/** Sent by a sidecar: `wait` says that it can wait out a hold, `return` that its client wants to come back instead. */
export const HOLD_HEADER = 'nestgate-hold'
/** Sent by any client: `return` asks to be told at once when a request is held, and to come back; `hold` to wait. */
export const APPROVAL_HEADER = 'nestgate-approval'
/** Sent by a sidecar: the token that the agent itself sent, an OIDC issuer's. */
export const SUBJECT_TOKEN_HEADER = 'nestgate-subject-token'
/** Sent by a sidecar with the repeat of a held request: the id under which it was approved. */
export const REQUEST_HEADER = 'nestgate-request'
/** Sent by a sidecar with calls to `/v1`: the cluster its token belongs to. */
export const CLUSTER_HEADER = 'nestgate-cluster'
/** Answered by the broker when a request is held: its id. The body is a `HeldRequest` (see wire.ts). */
export const HELD_HEADER = 'nestgate-held'
/** Answered by the broker with its own refusals: the reason code. No answer of an API server has it. */
export const REFUSED_HEADER = 'nestgate-refused'
/** Answered by the broker on everything: the request's id. */
export const REQUEST_ID_HEADER = 'nestgate-request-id'

const IDENTITY_PREFIXES = ['impersonate-', 'x-remote-', 'x-forwarded-', 'nestgate-'] as const
const IDENTITY_NAMES: ReadonlySet<string> = new Set([
  'authorization',
  'proxy-authorization',
  'forwarded',
  'x-real-ip',
  'audit-id',
  'cookie',
])

/** By these some programs behind a proxy take a request for another than its line says: not the one that was decided on. */
const REINTERPRETING: ReadonlySet<string> = new Set([
  'x-http-method',
  'x-http-method-override',
  'x-method-override',
  'x-original-url',
  'x-rewrite-url',
])

/** RFC 9110, section 7.6.1, with the older names that proxies still meet. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'proxy-connection',
  'keep-alive',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'proxy-authenticate',
])

/** Subprotocol by which browsers send a bearer token to the API server: a credential, never forwarded. */
const BEARER_SUBPROTOCOL = 'base64url.bearer.authorization.k8s.io.'

/** Whether a client's header of this name must not travel on. `name` in lower case; `_` counts as `-`, as some servers fold the two. */
export function isIdentityHeader(name: string): boolean {
  const folded = name.replaceAll('_', '-')
  return IDENTITY_NAMES.has(folded) || IDENTITY_PREFIXES.some((prefix) => folded.startsWith(prefix))
}

function reinterprets(name: string): boolean {
  return REINTERPRETING.has(name.replaceAll('_', '-'))
}

/** Whether a header ends at each hop. `name` in lower case. */
export function isHopByHop(name: string): boolean {
  return HOP_BY_HOP.has(name)
}

/** The names that a `Connection` header declares hop-by-hop, in lower case. */
export function connectionTokens(headers: IncomingHttpHeaders): ReadonlySet<string> {
  const text = headers.connection
  if (text === undefined) return new Set()
  return new Set(text.split(',').map((token) => token.trim().toLowerCase()))
}

/**
 * What of a client's headers may travel on: all but hop-by-hop headers, those that `Connection` names,
 * identity headers, other methods and paths, `Host`, `Expect`, and a bearer token among the WebSocket subprotocols. Names come back in
 * lower case; a name that the client sent several times keeps Node's joined form.
 */
export function forwardableHeaders(headers: IncomingHttpHeaders): Record<string, string> {
  const dropped = connectionTokens(headers)
  const kept: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name === 'host' || name === 'expect') continue
    if (isHopByHop(name) || dropped.has(name)) continue
    if (isIdentityHeader(name) || reinterprets(name)) continue
    const text = typeof value === 'string' ? value : value.join(', ')
    if (name !== 'sec-websocket-protocol') kept[name] = text
    else {
      const safe = withoutBearerSubprotocol(text)
      if (safe !== '') kept[name] = safe
    }
  }
  return kept
}

function withoutBearerSubprotocol(text: string): string {
  const protocols = text.split(',').map((entry) => entry.trim())
  return protocols.filter((entry) => !entry.toLowerCase().startsWith(BEARER_SUBPROTOCOL)).join(', ')
}

/** How often a header line of this name (lower case) stands in a message's raw headers. */
export function countHeader(rawHeaders: readonly string[], name: string): number {
  let count = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() === name) count += 1
  }
  return count
}

/** The bearer token of an `Authorization` header (RFC 6750, section 2.1), or undefined. */
export function bearerToken(headers: IncomingHttpHeaders): string | undefined {
  const match = /^Bearer ([A-Za-z0-9\-._~+/]+=*)$/i.exec(headers.authorization ?? '')
  return match?.[1]
}
