/**
 * Subjects that an OIDC issuer vouches for: people, and pipelines with the token of their runner. A token is good if its
 * issuer is configured, its signature is by one of that issuer's keys with an algorithm that the configuration allows, it is
 * for us and in time, and has the claims that are required. Nothing of it is kept but the digest under which the result is
 * remembered for a while, never past its expiry.
 */
import { createHash } from 'node:crypto'
import { decodeJwt, errors, jwtVerify } from 'jose'
import type { JWTPayload } from 'jose'
import type { Logger } from '../../shared/log.ts'
import type { CiFacts } from '../../shared/policy/facts.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { ciOf } from './ci-claims.ts'
import type { IssuerSettings } from './oidc-config.ts'
import { createIssuerKeys } from './oidc-keys.ts'
import type { IssuerKeys, KeySet } from './oidc-keys.ts'
import { ROLES } from './roles.ts'
import type { Role } from './roles.ts'
import { hasSignInForm } from './token-form.ts'

/** A subject, as its verified token says. */
export interface VerifiedSubject {
  readonly issuer: string
  /** `sub`: with the issuer, the one name that never moves to somebody else. */
  readonly sub: string
  /** Prefix and claim, as configured: the name in policy, in the ledger, and upstream. */
  readonly name: string
  /** All other names under which the same person may appear. */
  readonly names: readonly string[]
  readonly groups: readonly string[]
  readonly roles: readonly Role[]
  /** With issuers that are CI systems: always there, and nowhere else. */
  readonly ci?: CiFacts
  /** Milliseconds since the epoch. */
  readonly expiresAtMs: number
}

/** The configured issuers. */
export interface OidcIssuers {
  /** Whether a token says that it is by a configured issuer; that nothing of it is verified is the caller's to remember. */
  handles(token: string): boolean
  /** @returns `credentials_invalid` for any fault of the token, `issuer_unavailable` where its keys cannot be had */
  verify(token: string): Promise<VerifiedSubject | Refusal>
}

/** Longest token that is looked at, in characters. */
export const MAX_TOKEN_LENGTH = 8192
/** Verified tokens kept. */
const MAX_CACHED = 5_000
/** How long a verified token is not looked at again, in milliseconds: so long it outlives a key that its issuer withdrew. */
const CACHED_MS = 5 * 60_000
/** Groups of one token that are read. */
const MAX_GROUPS = 500
/** Names travel in a header of the request upstream, and to people's eyes: visible ASCII, and inner spaces. */
const NAME = /^[\x21-\x7e](?:[\x20-\x7e]{0,251}[\x21-\x7e])?$/
/** Names of the cluster's own; who has one is not anybody that an outside issuer may vouch for. */
const SYSTEM_PREFIX = 'system:'

interface Issuer {
  readonly settings: IssuerSettings
  readonly keys: IssuerKeys
}

/** @param deps - `now` in milliseconds since the epoch */
export function createOidc(
  issuers: readonly IssuerSettings[],
  deps: { readonly log: Logger; readonly now: () => number },
): OidcIssuers {
  const { now } = deps
  const byName = new Map<string, Issuer>(
    issuers.map((settings) => [
      settings.issuer,
      { settings, keys: createIssuerKeys(settings, deps) },
    ]),
  )
  const verified = new Map<
    string,
    { readonly subject: VerifiedSubject; readonly untilMs: number }
  >()
  return {
    handles: (token) => byName.has(claimedIssuer(token) ?? ''),
    async verify(token) {
      if (token.length > MAX_TOKEN_LENGTH) return refuse('credentials_invalid')
      const digest = createHash('sha256').update(token).digest('base64')
      const known = verified.get(digest)
      if (known !== undefined && known.untilMs > now()) return known.subject
      verified.delete(digest)
      const issuer = byName.get(claimedIssuer(token) ?? '')
      if (issuer === undefined) return refuse('credentials_invalid')
      const subject = await verifyBy(issuer, token, now())
      if (isRefusal(subject)) return subject
      const oldest = verified.size >= MAX_CACHED ? verified.keys().next() : undefined
      if (oldest?.done === false) verified.delete(oldest.value)
      const untilMs = Math.min(subject.expiresAtMs, now() + CACHED_MS)
      verified.set(digest, { subject, untilMs })
      return subject
    },
  }
}

function claimedIssuer(token: string): string | undefined {
  if (token.length > MAX_TOKEN_LENGTH) return undefined
  try {
    return decodeJwt(token).iss
  } catch {
    return undefined
  }
}

async function verifyBy(
  { settings, keys }: Issuer,
  token: string,
  nowMs: number,
): Promise<VerifiedSubject | Refusal> {
  if (!hasSignInForm(token)) return refuse('credentials_invalid')
  const current = await keys.current()
  if (current === undefined) return refuse('issuer_unavailable', settings.name)
  const first = await payloadOf(settings, current, token, nowMs)
  if (first !== 'unknown key') return isRefusal(first) ? first : subjectOf(settings, first)
  if (!(await keys.refresh())) return refuse('credentials_invalid')
  const fresh = await keys.current()
  if (fresh === undefined) return refuse('issuer_unavailable', settings.name)
  const second = await payloadOf(settings, fresh, token, nowMs)
  if (second === 'unknown key') return refuse('credentials_invalid')
  return isRefusal(second) ? second : subjectOf(settings, second)
}

async function payloadOf(
  settings: IssuerSettings,
  keys: KeySet,
  token: string,
  nowMs: number,
): Promise<JWTPayload | Refusal | 'unknown key'> {
  const { issuer, audiences, algorithms, clockToleranceSeconds } = settings
  try {
    const { payload } = await jwtVerify(token, keys, {
      issuer,
      audience: audiences,
      algorithms,
      clockTolerance: clockToleranceSeconds,
      currentDate: new Date(nowMs),
      requiredClaims: ['sub', 'iat', 'exp'],
    })
    return hasGoodLife(settings, payload, nowMs) && isForUs(settings, payload)
      ? payload
      : refuse('credentials_invalid')
  } catch (error) {
    if (error instanceof errors.JWKSNoMatchingKey) return 'unknown key'
    return refuse('credentials_invalid')
  }
}

/** Not of the future: a clock is wrong, or a token was made for later. And not good for so long that a stolen one is worth keeping. */
function hasGoodLife(
  { clockToleranceSeconds, maxTokenLifeSeconds }: IssuerSettings,
  { iat, exp }: JWTPayload,
  nowMs: number,
): boolean {
  if (iat === undefined || exp === undefined) return false
  return iat * 1000 <= nowMs + clockToleranceSeconds * 1000 && exp - iat <= maxTokenLifeSeconds
}

/** Of a token for several, whoever it was issued to must be one of us (OpenID Connect Core, 3.1.3.7), where it says so. */
function isForUs({ audiences }: IssuerSettings, { aud, azp }: JWTPayload): boolean {
  if (azp === undefined || !Array.isArray(aud) || aud.length < 2) return true
  return typeof azp === 'string' && audiences.includes(azp)
}

function subjectOf(settings: IssuerSettings, payload: JWTPayload): VerifiedSubject | Refusal {
  const { sub, exp } = payload
  const claimed = claimedName(settings, payload)
  if (sub === undefined || exp === undefined || claimed === undefined)
    return refuse('credentials_invalid')
  if (!hasRequired(settings, payload)) return refuse('credentials_invalid')
  const name = `${settings.usernamePrefix ?? `${settings.name}:`}${claimed}`
  const groups = groupsOf(settings, payload)
  if (groups === undefined || ![name, ...groups].every(isUsableName))
    return refuse('credentials_invalid')
  const ci = ciOf(settings, payload)
  if (ci === 'invalid') return refuse('credentials_invalid')
  return {
    issuer: settings.issuer,
    sub,
    name,
    names: [`${settings.issuer}#${sub}`, ...verifiedEmail(payload)],
    groups,
    roles: ROLES.filter((role) => settings.roles[role]?.some((group) => groups.includes(group))),
    ...(ci === undefined ? {} : { ci }),
    expiresAtMs: exp * 1000,
  }
}

function claimedName({ usernameClaim }: IssuerSettings, payload: JWTPayload): string | undefined {
  const claimed = usernameClaim === 'email' ? ownEmail(payload) : payload[usernameClaim]
  return typeof claimed === 'string' && claimed !== '' ? claimed : undefined
}

function isUsableName(name: string): boolean {
  return NAME.test(name) && !name.toLowerCase().startsWith(SYSTEM_PREFIX)
}

function hasRequired({ requiredClaims }: IssuerSettings, payload: JWTPayload): boolean {
  return Object.entries(requiredClaims).every(([claim, wanted]) => {
    const value = payload[claim]
    const accepted = typeof wanted === 'string' ? [wanted] : wanted
    return typeof value === 'string' && accepted.includes(value)
  })
}

/** The groups of a token; undefined where the claim is not what a list of names looks like. */
function groupsOf(
  { groupsClaim, groupsPrefix }: IssuerSettings,
  payload: JWTPayload,
): readonly string[] | undefined {
  if (groupsClaim === undefined) return []
  const value = payload[groupsClaim]
  if (value === undefined) return []
  const list: unknown = typeof value === 'string' ? [value] : value
  if (!Array.isArray(list) || list.length > MAX_GROUPS) return undefined
  const names = list.filter((group) => typeof group === 'string')
  return names.length === list.length ? names.map((group) => groupsPrefix + group) : undefined
}

/** The address that names a subject: not one of which the issuer says that it has not verified it (as the API server has it). */
function ownEmail({ email, email_verified: isVerified }: JWTPayload): unknown {
  return isVerified === undefined || isVerified === true ? email : undefined
}

/** An address that the issuer has not verified is whatever its owner typed. */
function verifiedEmail({ email, email_verified: isVerified }: JWTPayload): readonly string[] {
  return typeof email === 'string' && isVerified === true ? [email] : []
}
