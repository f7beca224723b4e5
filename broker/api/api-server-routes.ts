/**
 * What API servers ask the broker: whether one of our names may do something (mode `issuer`), and whether an operation belongs
 * to the request under whose id it is made (mode `impersonation`). docs/decisions/0006-credentials.md.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import express from 'express'
import type { Request, Router } from 'express'
import { bearerToken, countHeader } from '../../shared/headers.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Clusters } from '../clusters/registry.ts'
import { admit } from '../credentials/admission.ts'
import type { CredentialParts } from '../credentials/parts.ts'
import { answer, route } from './answers.ts'
import type { Result } from './answers.ts'

/** Longest AdmissionReview, in bytes: it has the object twice, of which etcd stores 1.5 MiB by default. */
const MAX_ADMISSION_BYTES = 4 * 1024 * 1024

/** Admission reviews that are read at once: anybody who reaches the broker may send one, and each may be large. */
const MAX_ADMISSIONS = 32

/** What these routes need. */
export interface ApiServerRoutesDeps {
  readonly clusters: Pick<Clusters, 'get' | 'settingsOf'>
  readonly credentials: Pick<CredentialParts, 'tickets' | 'issuer' | 'onRefused'>
}

/** The routes under `/v1/clusters/NAME`. @param json - reads a JSON body */
export function apiServerRoutes(deps: ApiServerRoutesDeps, json: express.RequestHandler): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const large = express.json({ limit: MAX_ADMISSION_BYTES, strict: true, inflate: false })
  router.post(
    '/clusters/:name/authorize',
    json,
    route((request) => authorize(deps, request)),
  )
  router.post(
    '/clusters/:name/admit',
    atMost(MAX_ADMISSIONS),
    large,
    route((request) => Promise.resolve(review(deps, request))),
  )
  return router
}

/** Refuses what comes while so many are being answered, before their bodies are read. */
function atMost(bound: number): express.RequestHandler {
  let running = 0
  return (_request, response, next) => {
    if (running >= bound) {
      answer(response, refuse('broker_busy'))
      return
    }
    running += 1
    response.once('close', () => {
      running -= 1
    })
    next()
  }
}

/** Answers a SubjectAccessReview. Who asks must have the token that this cluster's API server was given. */
async function authorize(
  { clusters, credentials }: ApiServerRoutesDeps,
  request: Request,
): Promise<Result> {
  const name = String(request.params['name'])
  const settings = clusters.settingsOf(name)
  const { issuer } = credentials
  const credential = settings?.credential
  // a cluster that is not of this mode is told like a token that is wrong
  if (issuer === undefined || credential === undefined || !('issuer' in credential))
    return refuse('credentials_invalid')
  const refusal = checkToken(request, credential.issuer.authorizerTokenSha256)
  if (refusal !== undefined) return refusal
  const cluster = clusters.get(name)
  if (cluster === undefined || isRefusal(cluster)) return refuse('cluster_unusable', name)
  const opinion = await issuer.authorizer.opinion(cluster.connection, request.body)
  if (opinion === undefined) return refuse('body_invalid', 'not a SubjectAccessReview v1')
  return {
    apiVersion: 'authorization.k8s.io/v1',
    kind: 'SubjectAccessReview',
    status: opinion,
  }
}

function checkToken(request: Request, expectedSha256: string): Refusal | undefined {
  const token = bearerToken(request.headers)
  if (token === undefined || countHeader(request.rawHeaders, 'authorization') !== 1)
    return refuse('credentials_missing')
  const given = createHash('sha256').update(token).digest()
  return timingSafeEqual(given, Buffer.from(expectedSha256, 'hex'))
    ? undefined
    : refuse('credentials_invalid')
}

/** Answers an AdmissionReview. Who asks learns only whether what it says is so, so that it needs no credential. */
function review({ clusters, credentials }: ApiServerRoutesDeps, request: Request): Result {
  const name = String(request.params['name'])
  const settings = clusters.settingsOf(name)
  if (settings === undefined) return refuse('cluster_unknown')
  const { bound } = settings
  const isOurs = (_cluster: string, user: string): boolean =>
    bound !== undefined &&
    (bound.users.includes(user) ||
      bound.namespaces.some((namespace) => user.startsWith(`system:serviceaccount:${namespace}:`)))
  const { tickets, onRefused } = credentials
  const response = admit({ tickets, isOurs, onRefused }, name, request.body)
  if (response === undefined) return refuse('body_invalid', 'not an AdmissionReview v1')
  return { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response }
}
