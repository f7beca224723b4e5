/** Who may call a route: a person whom the broker knows, with one of the roles that the route names. */
import type { Request, RequestHandler } from 'express'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { hasRole } from '../identity/people.ts'
import type { PeopleAuthenticator, Person } from '../identity/people.ts'
import type { Role } from '../identity/roles.ts'
import { route } from './answers.ts'
import type { Result } from './answers.ts'

/** Makes a route of a handler that is called for people with one of `roles` only; nothing of the request is read before. */
export type WithRole = (
  roles: readonly Role[],
  handle: (person: Person, request: Request) => Promise<Result>,
) => RequestHandler

/** See {@link WithRole}. */
export function createWithRole(people: PeopleAuthenticator): WithRole {
  return (roles, handle) =>
    route(async (request) => {
      const person = await authorized(people, request, roles)
      return isRefusal(person) ? person : handle(person, request)
    })
}

/** The person behind a request, if one of `roles` is theirs. */
export async function authorized(
  people: PeopleAuthenticator,
  request: Request,
  roles: readonly Role[],
): Promise<Person | Refusal> {
  const person = await people.authenticate(request)
  if (isRefusal(person)) return person
  return hasRole(person, roles) ? person : refuse('role_missing', `needs ${roles.join(' or ')}`)
}
