/** AdmissionReviews for tests of the webhook: made from pods, answered by the review itself, and decoded again. */
import jsonPatch from 'fast-json-patch'
import type { Operation } from 'fast-json-patch'
import { isRefusal } from '../../shared/reasons.ts'
import { reviewPod } from '../../shared/injection/review.ts'
import type { Reviewed } from '../../shared/injection/review.ts'
import type { InjectionSettings, WantedLevel } from '../../shared/injection/sidecar-spec.ts'
import type { Json } from './pod-admission.ts'

/** Settings that say nothing special. */
export const SETTINGS: InjectionSettings = {
  mode: 'native',
  image: 'registry.example/nestgate:1',
  imagePullPolicy: 'IfNotPresent',
  brokerUrl: 'https://broker.example:8443',
  cluster: 'c1',
  brokerCaPem: '-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n',
  resources: {
    requests: { cpu: '10m', memory: '64Mi' },
    limits: { cpu: '500m', memory: '192Mi' },
  },
  allowedProfiles: ['R', 'P', 'C'],
  posture: 'degrade',
  dropNetRaw: true,
  tokenExpirationSeconds: 3600,
  apiAudiences: ['https://kubernetes.default.svc', 'https://issuer.example'],
  allowedAudiences: ['vault', 'sts.example'],
  allowedSigners: [],
  allowedCsiDrivers: [],
  ledgerKeys: [],
  revision: '',
}

/** An AdmissionReview for the creation of a pod. `request` replaces members of the request. */
export function reviewOf(pod: unknown, request: Json = {}): Json {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'c0ffee00-0000-4000-8000-000000000001',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      operation: 'CREATE',
      namespace: 'team-a',
      object: pod,
      ...request,
    },
  }
}

/** What a review came to. */
export interface Outcome {
  readonly reviewed: Reviewed
  readonly response: Json
  readonly patch: readonly Operation[]
  /** The pod after the patch; undefined where the pod was denied. */
  readonly pod: Json | undefined
}

/** Reviews a pod and applies the patch to it, as the API server would. Throws where the review is refused as such. */
export function inject(
  pod: Json,
  settings = SETTINGS,
  request: Json = {},
  level: WantedLevel = 'any',
): Outcome {
  const body = Buffer.from(JSON.stringify(reviewOf(pod, request)))
  const reviewed = reviewPod(body, settings, level)
  if (isRefusal(reviewed)) throw new Error(`${reviewed.refused}: ${reviewed.detail ?? ''}`)
  const response = (JSON.parse(reviewed.body) as { response: Json }).response
  const encoded = response['patch'] as string | undefined
  const patch =
    encoded === undefined
      ? []
      : (JSON.parse(Buffer.from(encoded, 'base64').toString()) as Operation[])
  const applied = jsonPatch.applyPatch(pod, structuredClone(patch), true, false).newDocument
  return { reviewed, response, patch, pod: response['allowed'] === true ? applied : undefined }
}
