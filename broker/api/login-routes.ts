/** How people sign in: what `nestgate login` needs to know of the issuers. Public, as it is asked for before anybody is anybody. */
import express from 'express'
import type { Router } from 'express'
import type { LoginIssuers } from '../../shared/wire.ts'
import type { IssuerSettings } from '../identity/oidc-config.ts'
import { route } from './answers.ts'

/** The route `/v1/login`. Only issuers that people may sign in with are told. */
export function loginRoutes(
  issuers: readonly Pick<IssuerSettings, 'name' | 'issuer' | 'login'>[],
): Router {
  const answer: LoginIssuers = {
    issuers: issuers.flatMap(({ name, issuer, login }) =>
      login === undefined ? [] : [{ name, issuer, ...login }],
    ),
  }
  const router = express.Router({ caseSensitive: true, strict: true })
  router.get(
    '/login',
    route(() => Promise.resolve({ ...answer })),
  )
  return router
}
