/** Which policy is in force, and what keeps a newer one from it. */
import express from 'express'
import type { Router } from 'express'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import { hasRole } from '../identity/people.ts'
import type { PeopleAuthenticator } from '../identity/people.ts'
import { ROLES } from '../identity/roles.ts'
import type { PolicyStatus } from '../policy/source.ts'
import { route } from './answers.ts'

/** What these routes ask of the policy. */
export interface PolicySource {
  status(): PolicyStatus
}

/** The route `/v1/policy`, for everybody who has a role. */
export function policyRoutes(deps: {
  readonly people: PeopleAuthenticator
  readonly policy: PolicySource
}): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  router.get(
    '/policy',
    route(async (request) => {
      const person = await deps.people.authenticate(request)
      if (isRefusal(person)) return person
      if (!hasRole(person, ROLES)) return refuse('role_missing', `needs ${ROLES.join(' or ')}`)
      const { loadedAt, ...status } = deps.policy.status()
      return { ...status, loadedAt: new Date(loadedAt).toISOString() }
    }),
  )
  return router
}
