/**
 * The broker's own API: everything but `/clusters/`. All input is outside input; each route authenticates
 * before it reads anything but the body, and the ledger records decisions and reads of the audit.
 */
import type { RequestListener } from 'node:http'
import express from 'express'
import { REQUEST_ID_HEADER } from '../../shared/headers.ts'
import type { Logger } from '../../shared/log.ts'
import { refuse } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import type { Approvals } from '../approvals/types.ts'
import type { IssuerSettings } from '../identity/oidc-config.ts'
import type { PeopleAuthenticator } from '../identity/people.ts'
import type { Store } from '../store/store.ts'
import { withLogins } from '../audit/logins.ts'
import { answer, faultHandler } from './answers.ts'
import { auditRoutes } from './audit-routes.ts'
import type { CampaignsDeps } from '../access-review/campaigns.ts'
import type { Clusters } from '../clusters/registry.ts'
import type { CredentialParts } from '../credentials/parts.ts'
import { clusterRoutes } from './cluster-routes.ts'
import { accessReviewRoutes } from './access-review-routes.ts'
import { apiServerRoutes } from './api-server-routes.ts'
import { erasureRoutes } from './erasure-routes.ts'
import { liveness, readiness } from './health.ts'
import { issuerKeyRoutes } from './issuer-key-routes.ts'
import { issuerRoutes } from './issuer-routes.ts'
import type { Checkpoints } from '../ledger/checkpoints.ts'
import type { Mirrors } from '../ledger/mirrors.ts'
import { ledgerRoutes } from './ledger-routes.ts'
import { loginRoutes } from './login-routes.ts'
import { openApiRoutes } from './openapi/routes.ts'
import { payloadRoutes } from './payload-routes.ts'
import { peopleRoutes } from './people-routes.ts'
import { policyRoutes } from './policy-routes.ts'
import type { PolicySource } from './policy-routes.ts'
import { pageRoutes } from '../pages/pages.ts'
import type { RecordingReader } from '../sessions/recordings/reader.ts'
import { sessionRoutes } from './session-routes.ts'
import { sidecarRoutes } from './sidecar-routes.ts'
import type { PodStates, SidecarAuthenticator } from './sidecar-routes.ts'

/** Longest body, in bytes: a registration or a reason. */
const MAX_BODY_BYTES = 64 * 1024

/** What the API needs. */
export interface ApiDeps {
  readonly approvals: Approvals
  readonly store: Store
  readonly people: PeopleAuthenticator
  readonly sidecars: SidecarAuthenticator
  readonly neighbours: PodStates
  /** Whom people may sign in with. */
  readonly issuers: readonly Pick<IssuerSettings, 'name' | 'issuer' | 'login'>[]
  /** What policy is in force; see broker/policy/source.ts. */
  readonly policy: PolicySource
  readonly clusters: Clusters
  readonly clusterSecretsDir: string | undefined
  readonly credentials: CredentialParts
  /** What access reviews are made of; without it there are none. */
  readonly accessReview?: Omit<CampaignsDeps, 'store' | 'checkpoints' | 'now'>
  /** Sessions and their recordings; without it there are no routes of them, and no pages. */
  readonly sessions?: RecordingReader
  /** Signs what the ledger is. */
  readonly checkpoints: Checkpoints
  readonly mirrors?: Pick<Mirrors, 'cosigned'>
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Makes the listener. It answers every request, also those to unknown addresses. */
export function createApi(deps: ApiDeps): RequestListener {
  const app = createApp(deps)
  return (request, response) => {
    app(request, response)
  }
}

/** The routes behind {@link createApi}; a test compares them with what is documented. */
export function createApp(deps: ApiDeps): express.Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.set('query parser', false)
  app.enable('case sensitive routing')
  app.enable('strict routing')
  app.use((_request, response, next) => {
    response.setHeader(REQUEST_ID_HEADER, newRequestId(deps.now()))
    response.setHeader('Cache-Control', 'no-store')
    response.setHeader('X-Content-Type-Options', 'nosniff')
    next()
  })
  const json = express.json({ limit: MAX_BODY_BYTES, strict: true, inflate: false })
  const { issuer } = deps.credentials
  if (issuer !== undefined) app.use(issuerRoutes(issuer))
  // before the others: its bodies may be longer
  app.use('/v1', apiServerRoutes(deps, json))
  app.get('/healthz', liveness(deps.store))
  app.get('/readyz', readiness(deps.store))
  app.use('/v1', loginRoutes(deps.issuers), openApiRoutes())
  const known = { ...deps, people: withLogins(deps.people, deps.store) }
  app.use('/v1', sidecarRoutes(deps, json), peopleRoutes(known, json), policyRoutes(known))
  app.use('/v1', clusterRoutes({ ...known, issuer }, json), issuerKeyRoutes({ ...known, issuer }))
  app.use('/v1', auditRoutes(known), ledgerRoutes(known))
  app.use('/v1', payloadRoutes(known), erasureRoutes(known, json))
  if (deps.accessReview !== undefined) {
    const accessReview = { ...deps, ...deps.accessReview }
    app.use('/v1', accessReviewRoutes({ ...known, accessReview }, json))
  }
  const { sessions } = deps
  if (sessions !== undefined) {
    app.use('/v1', sessionRoutes({ ...known, sessions }, json))
    app.use(pageRoutes())
  }
  app.use((_request, response) => {
    answer(response, refuse('path_unknown'))
  })
  app.use(faultHandler(deps.log))
  return app
}
