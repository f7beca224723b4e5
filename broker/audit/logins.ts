/**
 * Sign-ins as ledger entries. There are no sessions: a token is the sign-in, and what is seen of it first is the first call.
 * Its entry is durable before the call goes on: no ledger, no login.
 */
import { createHash } from 'node:crypto'
import { bearerToken } from '../../shared/headers.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { Store } from '../store/store.ts'

/** Tokens remembered; one that is forgotten is a sign-in again. */
export const MAX_REMEMBERED_TOKENS = 10_000

/**
 * The same people, with an entry `login` for each token that this process sees first. Tokens are remembered by their SHA-256, in memory.
 * Rejects where the entry cannot be written, and writes it at the next call then.
 */
export function withLogins(
  people: PeopleAuthenticator,
  store: Pick<Store, 'append'>,
): PeopleAuthenticator {
  /** In the order of their last use; what is still being written is waited for. */
  const seen = new Map<string, Promise<unknown>>()
  const remember = (key: string, person: Person): Promise<unknown> => {
    const known = seen.get(key)
    const written = known ?? store.append([loginEntry(person)])
    seen.delete(key)
    seen.set(key, written)
    if (known !== undefined) return known
    const [oldest] = seen.keys()
    if (seen.size > MAX_REMEMBERED_TOKENS && oldest !== undefined) seen.delete(oldest)
    return written.catch((error: unknown) => {
      if (seen.get(key) === written) seen.delete(key)
      throw error
    })
  }
  return {
    async authenticate(message) {
      const person = await people.authenticate(message)
      const token = bearerToken(message.headers)
      if (isRefusal(person) || token === undefined) return person
      await remember(createHash('sha256').update(token).digest('base64'), person)
      return person
    },
  }
}

function loginEntry({ name, roles, issuer = 'token' }: Person): Parameters<Store['append']>[0][0] {
  return {
    ...{ kind: 'system', event: 'login', actor: name },
    detail: { issuer, roles: roles.join(',') },
  }
}
