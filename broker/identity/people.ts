/**
 * People and pipelines that call the broker's own API, by a token each. The configuration holds only the
 * token's SHA-256; tokens are made by `nestgate token new` with 256 random bits, so a plain hash is enough. Or by the
 * token of an OIDC issuer, whose groups give the roles.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { bearerToken, countHeader } from '../../shared/headers.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { DirectClients } from './direct.ts'
import type { Role } from './roles.ts'

/** An authenticated person. */
export interface Person {
  readonly name: string
  readonly roles: readonly Role[]
  readonly groups?: readonly string[]
  /** All names of this person, by whatever way they sign in; `name` counts without being listed. */
  readonly names?: readonly string[]
  /** When the token ends, milliseconds since the epoch. */
  readonly expiresAtMs?: number
  /** Who vouches for the person; absent for a token of the configuration. */
  readonly issuer?: string
}

/** Finds out which person sent a message. */
export interface PeopleAuthenticator {
  /** @returns `credentials_missing` or `credentials_invalid` where it is nobody known; never says which part was wrong */
  authenticate(message: {
    readonly headers: IncomingHttpHeaders
    readonly rawHeaders: readonly string[]
  }): Promise<Person | Refusal>
}

/** A person of the configuration. */
export interface PersonSettings extends Person {
  /** Lower-case hex. */
  readonly tokenSha256: string
}

/**
 * People as the configuration lists them, and those that an issuer vouches for. Every listed hash is compared, in constant
 * time each, so the time of an answer says nothing about the list.
 *
 * @param direct - of the configured issuers
 */
export function createPeople(
  people: readonly PersonSettings[],
  direct?: DirectClients,
): PeopleAuthenticator {
  const known = people.map(({ tokenSha256, ...person }) => ({
    person,
    hash: Buffer.from(tokenSha256, 'hex'),
  }))
  const byToken = (token: string): Person | undefined => {
    const given = createHash('sha256').update(token).digest()
    let found: Person | undefined
    for (const { person, hash } of known) {
      if (hash.length === given.length && timingSafeEqual(hash, given)) found = person
    }
    return found
  }
  return {
    async authenticate(message) {
      const { headers, rawHeaders } = message
      if (countHeader(rawHeaders, 'authorization') > 1)
        return refuse('header_invalid', 'more than one Authorization header')
      if (headers.authorization === undefined) return refuse('credentials_missing')
      const token = bearerToken(headers)
      const person = token === undefined ? undefined : byToken(token)
      if (person !== undefined) return person
      if (direct?.handles(message) !== true) return refuse('credentials_invalid')
      const subject = await direct.authenticate(message)
      if (isRefusal(subject)) return subject
      const { name, names, groups, roles, expiresAtMs, issuer } = subject
      return { name, names, groups, roles, expiresAtMs, issuer }
    },
  }
}

/** Whether a person has one of `roles`; `admin` has them all. */
export function hasRole(person: Person, roles: readonly Role[]): boolean {
  return person.roles.some((role) => role === 'admin' || roles.includes(role))
}
