/** Which policy is in force, and what keeps a newer one from it. */
import express from 'express'
import type { Router } from 'express'
import type { PeopleAuthenticator } from '../identity/people.ts'
import { ROLES } from '../identity/roles.ts'
import type { PolicyStatus } from '../policy/source.ts'
import { createWithRole } from './with-role.ts'

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
    createWithRole(deps.people)(ROLES, () => {
      const { loadedAt, ...status } = deps.policy.status()
      return Promise.resolve({ ...status, loadedAt: new Date(loadedAt).toISOString() })
    }),
  )
  return router
}
