/**
 * The whole way of one review: decode, inspect, rewrite, respond. Pure: bytes and settings in, an answer out.
 * The bytes come from whoever reaches the port (the API server does not authenticate itself by default), so
 * nothing in them is believed, and the answer says nothing about the webhook's own secrets: it has none to say.
 */
import { z } from 'zod'
import { isRecord } from '../config.ts'
import { REASONS, isRefusal, refusalText, refuse } from '../reasons.ts'
import type { Reason, Refusal } from '../reasons.ts'
import { inspectPod } from './inspect.ts'
import { Draft, finishPatch } from './patch.ts'
import type { JsonObject } from './patch.ts'
import { podSchema } from './pod.ts'
import type { Pod } from './pod.ts'
import { rewritePod } from './rewrite.ts'
import { warningsFor } from './risks.ts'
import type { InjectionSettings, Profile, WantedLevel } from './sidecar-spec.ts'

/** Longest request uid that is echoed; the API server sends UUIDs. */
const MAX_UID_LENGTH = 128
/** Deepest nesting that is read; a pod has some 15 levels, and what is deeper could exhaust the stack. */
const MAX_DEPTH = 100
/** A namespace's name: a DNS label (RFC 1123). */
const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/

const reviewSchema = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.object({
    uid: z.string().min(1).max(MAX_UID_LENGTH),
    kind: z.object({ group: z.literal(''), version: z.literal('v1'), kind: z.literal('Pod') }),
    resource: z.object({
      group: z.literal(''),
      version: z.literal('v1'),
      resource: z.literal('pods'),
    }),
    subResource: z.literal('').nullish(),
    operation: z.literal('CREATE'),
    namespace: z.string().regex(NAMESPACE, 'expected a DNS label'),
    object: z.custom<JsonObject>(isRecord, 'expected an object'),
  }),
})

interface Review {
  readonly uid: string
  readonly namespace: string
  readonly raw: JsonObject
  readonly pod: Pod
}

/** A review that was answered. */
export interface Reviewed {
  /** The AdmissionReview to answer with, as JSON; the HTTP status is 200, also for a denial. */
  readonly body: string
  readonly outcome: 'patched' | 'unchanged' | 'denied'
  /** Why, where it was denied. */
  readonly reason?: Reason
  readonly uid: string
  readonly namespace: string
  /** The pod's name, or what its name will begin with; empty where it has neither. */
  readonly pod: string
}

/**
 * Reviews the creation of one pod.
 *
 * @param body - an AdmissionReview as UTF-8 JSON
 * @param level - what the namespace wants, as the path of the review says
 * @returns the answer, or a refusal where `body` is no review of a pod's creation
 * @throws Fault `patch_invalid` where the patch would not have been right; nothing was answered then
 */
export function reviewPod(
  body: Uint8Array,
  settings: InjectionSettings,
  level: WantedLevel,
): Reviewed | Refusal {
  const review = decode(body)
  if (isRefusal(review)) return review
  const inspection = inspectPod(review.raw, review.pod, settings, level)
  if (isRefusal(inspection)) return denied(review, inspection)
  const draft = new Draft(review.raw)
  const { pod, namespace } = review
  rewritePod(draft, { pod, inspection, settings, namespace })
  const patch = finishPatch(review.raw, draft)
  return allowed(review, patch, settings, inspection.profile)
}

function decode(body: Uint8Array): Review | Refusal {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    // The parser's own message would quote the body.
    return refuse('review_invalid', 'not JSON in UTF-8')
  }
  if (isDeeperThan(value, MAX_DEPTH)) return refuse('review_invalid', 'nested too deeply')
  const review = reviewSchema.safeParse(value)
  if (!review.success) return refuse('review_invalid', issueText(review.error, []))
  const { uid, namespace, object } = review.data.request
  const pod = podSchema.safeParse(object)
  if (!pod.success) return refuse('review_invalid', issueText(pod.error, ['request', 'object']))
  return { uid, namespace, raw: object, pod: pod.data }
}

function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  if (levels === 0) return true
  for (const inner of Object.values(value)) {
    if (isDeeperThan(inner, levels - 1)) return true
  }
  return false
}

/** The first problem: where, and what was expected; never the value. */
function issueText(error: z.ZodError, prefix: readonly string[]): string {
  const [issue] = error.issues
  const path = [...prefix, ...(issue?.path ?? [])].map(String).join('.')
  return `${path}: ${issue?.message ?? 'invalid'}`
}

function allowed(
  review: Review,
  patch: readonly object[],
  settings: InjectionSettings,
  profile: Profile,
): Reviewed {
  const outcome = patch.length === 0 ? 'unchanged' : 'patched'
  const encoded = Buffer.from(JSON.stringify(patch)).toString('base64')
  const warnings = warningsFor(review.pod, settings.dropNetRaw)
  return answer(review, outcome, {
    allowed: true,
    ...(patch.length === 0 ? {} : { patchType: 'JSONPatch', patch: encoded }),
    ...(warnings.length === 0 ? {} : { warnings }),
    auditAnnotations: { profile: profile.kind, mode: settings.mode },
  })
}

function denied(review: Review, refusal: Refusal): Reviewed {
  const code = refusal.refused
  const { remedy } = REASONS[code]
  const message = `nestgate: ${code}: ${refusalText(refusal)}; ${remedy}`
  const status = { status: 'Failure', code: 403, reason: 'Forbidden', message }
  const response = { allowed: false, status, auditAnnotations: { reason: code } }
  return { ...answer(review, 'denied', response), reason: code }
}

function answer(review: Review, outcome: Reviewed['outcome'], response: object): Reviewed {
  const { uid, namespace } = review
  const { name, generateName } = review.pod.metadata ?? {}
  const pod = [name, generateName].find((text) => (text ?? '') !== '') ?? ''
  const body = JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: { uid, ...response },
  })
  return { body, outcome, uid, namespace, pod }
}
