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
/** An AdmissionReview up to this many bytes finds a place always: whoever fills those of the large ones does not stop these. */
const SMALL_ADMISSION_BYTES = 64 * 1024
/** Larger ones at once: who asks needs no credential, and each may take {@link MAX_ADMISSION_BYTES}, several times over once it is read. */
export const MAX_LARGE_ADMISSIONS = 16

/** What these routes need. */
export interface ApiServerRoutesDeps {
  readonly clusters: Pick<Clusters, 'get' | 'settingsOf'>
  readonly credentials: Pick<CredentialParts, 'tickets' | 'issuer' | 'onRefused'>
}

/** The routes under `/v1/clusters/NAME`. @param json - reads a JSON body */
export function apiServerRoutes(deps: ApiServerRoutesDeps, json: express.RequestHandler): Router {
  const router = express.Router({ caseSensitive: true, strict: true })
  const large = express.json({ limit: MAX_ADMISSION_BYTES, strict: true, inflate: false })
  const small = express.json({ limit: SMALL_ADMISSION_BYTES, strict: true, inflate: false })
  router.post(
    '/clusters/:name/authorize',
    json,
    route((request) => authorize(deps, request)),
  )
  router.post(
    '/clusters/:name/admit',
    ofKnownCluster(deps),
    bySize(small, large),
    route((request) => Promise.resolve(review(deps, request))),
  )
  return router
}

/** Refuses without reading the body what is about no cluster of ours. */
function ofKnownCluster({ clusters }: ApiServerRoutesDeps): express.RequestHandler {
  return (request, response, next) => {
    if (clusters.settingsOf(String(request.params['name'])) === undefined)
      answer(response, refuse('cluster_unknown'))
    else next()
  }
}

/** Reads a body by one of two readers; of the second there are {@link MAX_LARGE_ADMISSIONS} at once, each until its answer. */
function bySize(
  small: express.RequestHandler,
  large: express.RequestHandler,
): express.RequestHandler {
  let open = 0
  return (request, response, next) => {
    // without a length it may be a large one; NaN is not less than anything
    if (Number(request.headers['content-length']) <= SMALL_ADMISSION_BYTES) {
      small(request, response, next)
      return
    }
    if (open >= MAX_LARGE_ADMISSIONS) {
      answer(response, refuse('broker_busy', 'too many large reviews at once'))
      return
    }
    open += 1
    response.once('close', () => {
      open -= 1
    })
    large(request, response, next)
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
