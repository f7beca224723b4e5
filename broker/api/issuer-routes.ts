/**
 * The broker as OIDC issuer of its own tokens: the discovery document and the keys, for API servers (OpenID Connect
 * Discovery 1.0, 3 and 4). Public, as everything here is.
 */
import express from 'express'
import type { Router } from 'express'
import { refuse } from '../../shared/reasons.ts'
import type { Issuer } from '../credentials/parts.ts'
import { answer } from './answers.ts'

/**
 * How long the documents may be kept, in seconds. An API server refuses a key that it does not know until 30 s before their end, without asking
 * (coreos/go-oidc v2, jwks.go keysExpiryDelta): with no more than that it asks at once, and a replaced key is good at once.
 */
const MAX_AGE_S = 30

/** The routes below the issuer's path. */
export function issuerRoutes({ url, keys }: Pick<Issuer, 'url' | 'keys'>): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const { pathname } = new URL(url)
  const discovery = {
    issuer: url,
    jwks_uri: `${url}/jwks`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
  }
  const document = (path: string, body: () => object | undefined): void => {
    router.get(pathname + path, (_request, response) => {
      const found = body()
      if (found === undefined) {
        answer(response, refuse('credential_unavailable'))
        return
      }
      response.setHeader('Cache-Control', `max-age=${MAX_AGE_S}`)
      response.status(200).json(found)
    })
  }
  document('/.well-known/openid-configuration', () => discovery)
  document('/jwks', () => {
    const published = keys.published()
    // an empty set would take the place of what an API server knows
    return published.keys.length === 0 ? undefined : published
  })
  return router
}
