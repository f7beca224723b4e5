/**
 * People and pipelines that call the broker's own API, by a token each. The configuration holds only the
 * token's SHA-256; tokens are made by `nestgate token new` with 256 random bits, so a plain hash is enough.
 * Sign-in through OIDC comes behind the same interface.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { bearerToken, countHeader } from '../../shared/headers.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'

/** What a person may do: `reviewer` decides on held requests, `auditor` reads the ledger, `admin` both. */
export const ROLES = ['reviewer', 'auditor', 'admin'] as const

/** See {@link ROLES}. */
export type Role = (typeof ROLES)[number]

/** An authenticated person. */
export interface Person {
  readonly name: string
  readonly roles: readonly Role[]
  readonly groups?: readonly string[]
  /** All names of this person, by whatever way they sign in; `name` counts without being listed. */
  readonly names?: readonly string[]
  /** When the token ends, milliseconds since the epoch. */
  readonly expiresAtMs?: number
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
 * People as the configuration lists them. Every listed hash is compared, in constant time each, so the
 * time of an answer says nothing about the list.
 */
export function createPeople(people: readonly PersonSettings[]): PeopleAuthenticator {
  const known = people.map(({ tokenSha256, ...person }) => ({
    person,
    hash: Buffer.from(tokenSha256, 'hex'),
  }))
  return {
    authenticate({ headers, rawHeaders }) {
      if (countHeader(rawHeaders, 'authorization') > 1) {
        return Promise.resolve(refuse('header_invalid', 'more than one Authorization header'))
      }
      if (headers.authorization === undefined) {
        return Promise.resolve(refuse('credentials_missing'))
      }
      const token = bearerToken(headers)
      const given = createHash('sha256')
        .update(token ?? '')
        .digest()
      let found: Person | undefined
      for (const { person, hash } of known) {
        if (hash.length === given.length && timingSafeEqual(hash, given)) found = person
      }
      const accepted = token === undefined ? undefined : found
      return Promise.resolve(accepted ?? refuse('credentials_invalid'))
    },
  }
}

/** Whether a person has one of `roles`; `admin` has them all. */
export function hasRole(person: Person, roles: readonly Role[]): boolean {
  return person.roles.some((role) => role === 'admin' || roles.includes(role))
}
