/**
 * Our own tokens (mode `issuer`): an ES256 JWT for one request and one cluster, that ends after half a minute. RFC 7515, 7519.
 * docs/decisions/0006-credentials.md has the claims.
 */
import { TICKET_LIFE_MS } from './tickets.ts'
import type { SigningKey, SigningKeys } from './signing-keys.ts'

/** Put by the API server before every name and group of our tokens: nobody of that name has a right. */
export const PREFIX = 'nestgate:'
/** Marks of what a group of our tokens says. */
export const GROUP_MARK = 'group:'
export const REQUEST_MARK = 'request:'
const PROCESS_MARK = 'process:'
const APPROVER_MARK = 'approver:'
/** How far back a token begins, in seconds: an API server whose clock is behind by less takes it. */
const BACKDATE_S = 5

/** What a token says. */
export interface TokenFacts {
  readonly cluster: string
  readonly subject: string
  readonly requestId: string
  readonly grantGroups: readonly string[]
  readonly process: string | undefined
  readonly approvers: readonly string[]
}

/** Makes tokens. */
export interface TokenMaker {
  /** As in `iss`. */
  readonly issuer: string
  /** Rejects when the key cannot sign. */
  make(facts: TokenFacts): Promise<string>
}

/** The audience of a cluster's tokens: no other cluster takes them. */
export function audienceOf(cluster: string): string {
  return `nestgate/${cluster}`
}

/** @param now - milliseconds since the epoch */
export function createTokenMaker(issuer: string, keys: SigningKeys, now: () => number): TokenMaker {
  return {
    issuer,
    make: (facts) => compactToken(keys.current(), claimsOf(facts, issuer, now())),
  }
}

/** The claims of a token; exported for those that forge others on purpose (broker/doctor/). */
export function claimsOf(
  { cluster, subject, requestId, grantGroups, process, approvers }: TokenFacts,
  issuer: string,
  nowMs: number,
): Readonly<Record<string, unknown>> {
  const iat = Math.floor(nowMs / 1000) - BACKDATE_S
  const groups = grantGroups.map((group) => GROUP_MARK + group)
  return {
    iss: issuer,
    aud: audienceOf(cluster),
    sub: subject,
    jti: requestId,
    ...{ iat, nbf: iat, exp: iat + BACKDATE_S + TICKET_LIFE_MS / 1000 },
    groups,
    ...(process === undefined ? {} : { process }),
    ...(approvers.length === 0 ? {} : { approvers }),
    marked_groups: [
      ...groups,
      REQUEST_MARK + requestId,
      ...(process === undefined ? [] : [PROCESS_MARK + process]),
      ...approvers.map((approver) => APPROVER_MARK + approver),
    ],
  }
}

/** A compact JWS (RFC 7515, 7.1) over claims. Rejects when the key cannot sign. */
export async function compactToken(key: SigningKey, claims: object): Promise<string> {
  const input = `${encode({ alg: 'ES256', typ: 'JWT', kid: key.kid })}.${encode(claims)}`
  const signature = await key.sign(Buffer.from(input))
  return `${input}.${Buffer.from(signature).toString('base64url')}`
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
