/**
 * The whole way of one review: decode, inspect, rewrite, respond. Pure: bytes and settings in, an answer out.
 * The bytes come from whoever reaches the port (the API server does not authenticate itself by default), so
 * nothing in them is believed, and the answer says nothing about the webhook's own secrets: it has none to say.
 */
import { z } from 'zod'
import { isRecord } from '../config.ts'
import { REASONS, isRefusal, refusalText, refuse } from '../reasons.ts'
import type { Reason, Refusal } from '../reasons.ts'
import { isMirrorOfNode } from './host.ts'
import type { Creator } from './host.ts'
import { inspectPod } from './inspect.ts'
import { Draft, finishPatch } from './patch.ts'
import type { JsonObject } from './patch.ts'
import { podSchema } from './pod.ts'
import type { Pod } from './pod.ts'
import { readReview } from './read-review.ts'
import { rewritePod } from './rewrite.ts'
import { warningsFor } from './risks.ts'
import { checkSize } from './size.ts'
import type { InjectionSettings, Profile, WantedLevel } from './sidecar-spec.ts'

/** Longest request uid that is echoed; the API server sends UUIDs. */
const MAX_UID_LENGTH = 128
/** Longest text about what is wrong with a review: keys of the author's are part of it. */
const MAX_ISSUE_LENGTH = 256
/** Longest name of a pod that is repeated: a DNS subdomain (RFC 1123), which admission has not checked yet. */
const MAX_NAME_LENGTH = 253
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
    userInfo: z
      .object({
        username: z.string().nullish(),
        groups: z.array(z.string()).nullish(),
      })
      .nullish(),
    dryRun: z.boolean().nullish(),
    object: z.custom<JsonObject>(isRecord, 'expected an object'),
  }),
})

interface Review {
  readonly uid: string
  readonly namespace: string
  readonly raw: JsonObject
  /** Without its spec where it is too large. */
  readonly pod: Pod
  readonly tooLarge: Refusal | undefined
  readonly creator: Creator
  readonly isDryRun: boolean
}

/** What is done with what a review finds: `observe` changes and refuses nothing, and says what it would have done. */
export type Purpose = 'enforce' | 'observe'

/** The controller that made a pod. */
export interface Owner {
  readonly apiVersion: string
  readonly kind: string
  readonly name: string
  readonly uid: string
}

/** A review that was answered. */
export interface Reviewed {
  /** The AdmissionReview to answer with, as JSON; the HTTP status is 200, also for a denial. */
  readonly body: string
  readonly outcome: 'patched' | 'unchanged' | 'denied' | 'observed'
  /** Why, where it was denied, or would have been. */
  readonly reason?: Reason
  readonly uid: string
  readonly namespace: string
  /** The pod's name, or what its name will begin with; empty where it has neither. */
  readonly pod: string
  /** What the pod's author was told. A controller tells nobody: see webhook/events.ts. */
  readonly warnings: readonly string[]
  /** Whose pod it is, where a controller made it. */
  readonly owner?: Owner
  /** Whether the pod is only tried. */
  readonly isDryRun: boolean
}

/** What a review comes to, before it is said in the terms of admission. */
interface Finding {
  readonly patch: readonly object[]
  readonly profile?: Profile
  readonly warnings: readonly string[]
}

/**
 * Reviews the creation of one pod.
 *
 * @param body - an AdmissionReview as UTF-8 JSON
 * @param level - what the namespace wants, as the path of the review says
 * @param purpose - as the path says, too
 * @returns the answer, or a refusal where `body` is no review of a pod's creation
 * @throws Fault `patch_invalid` where the patch would not have been right; nothing was answered then
 */
export function reviewPod(
  body: Uint8Array,
  settings: InjectionSettings,
  level: WantedLevel,
  purpose: Purpose = 'enforce',
): Reviewed | Refusal {
  const review = decode(body)
  if (isRefusal(review)) return review
  const finding = find(review, settings, level)
  if (purpose === 'observe') return observed(review, finding)
  if (isRefusal(finding)) return denied(review, finding)
  return allowed(review, finding, settings)
}

/** The whole of what is decided about a pod. */
function find(review: Review, settings: InjectionSettings, level: WantedLevel): Finding | Refusal {
  const { raw, pod, namespace, creator, tooLarge } = review
  if (tooLarge !== undefined) return tooLarge
  if (isMirrorOfNode(pod, creator)) return { patch: [], warnings: [] }
  const inspection = inspectPod(raw, pod, settings, level)
  if (isRefusal(inspection)) return inspection
  const draft = new Draft(raw)
  rewritePod(draft, { pod, inspection, settings, namespace })
  const patch = finishPatch(raw, draft)
  const warnings = warningsFor(pod, settings, inspection.tokenVolumeNames)
  return { patch, profile: inspection.profile, warnings }
}

function decode(body: Uint8Array): Review | Refusal {
  const read = readReview(body)
  if ('problem' in read) return refuse('review_invalid', read.problem)
  const review = reviewSchema.safeParse(read.value)
  if (!review.success) return refuse('review_invalid', issueText(review.error, []))
  const { uid, namespace, object, userInfo, dryRun } = review.data.request
  const tooLarge = checkSize(object)
  const pod = podSchema.safeParse(tooLarge === undefined ? object : { spec: {} })
  if (!pod.success) return refuse('review_invalid', issueText(pod.error, ['request', 'object']))
  const creator = { username: userInfo?.username ?? '', groups: userInfo?.groups ?? [] }
  const isDryRun = dryRun === true
  return { uid, namespace, raw: object, pod: pod.data, tooLarge, creator, isDryRun }
}

/** The first problem: where, and what was expected; never the value. */
function issueText(error: z.ZodError, prefix: readonly string[]): string {
  const [issue] = error.issues
  const path = [...prefix, ...(issue?.path ?? [])].map(String).join('.')
  return `${path}: ${issue?.message ?? 'invalid'}`.slice(0, MAX_ISSUE_LENGTH)
}

function allowed(review: Review, finding: Finding, settings: InjectionSettings): Reviewed {
  const { patch, profile, warnings } = finding
  const outcome = patch.length === 0 ? 'unchanged' : 'patched'
  const encoded = Buffer.from(JSON.stringify(patch)).toString('base64')
  return answer(review, outcome, {
    allowed: true,
    ...(patch.length === 0 ? {} : { patchType: 'JSONPatch', patch: encoded }),
    ...(warnings.length === 0 ? {} : { warnings }),
    auditAnnotations:
      profile === undefined
        ? { mirror: 'left alone' }
        : { profile: profile.kind, mode: settings.mode },
  })
}

function denied(review: Review, refusal: Refusal): Reviewed {
  const code = refusal.refused
  const status = { status: 'Failure', code: 403, reason: 'Forbidden', message: textOf(refusal) }
  const response = { allowed: false, status, auditAnnotations: { reason: code } }
  return { ...answer(review, 'denied', response), reason: code }
}

/** Lets the pod through as it is, and says what would have become of it. */
function observed(review: Review, finding: Finding | Refusal): Reviewed {
  if (isRefusal(finding)) {
    const warnings = [`would be refused: ${textOf(finding)}`]
    const auditAnnotations = { observed: 'denied', reason: finding.refused }
    const response = { allowed: true, warnings, auditAnnotations }
    return { ...answer(review, 'observed', response), reason: finding.refused }
  }
  const { patch, profile, warnings } = finding
  const observed = patch.length === 0 ? 'unchanged' : 'patched'
  return answer(review, 'observed', {
    allowed: true,
    ...(warnings.length === 0 ? {} : { warnings }),
    auditAnnotations: {
      observed,
      ...(profile === undefined ? {} : { profile: profile.kind }),
    },
  })
}

/** A refusal as people read it in what `kubectl apply` prints: code, field, remedy. */
function textOf(refusal: Refusal): string {
  const { remedy } = REASONS[refusal.refused]
  return `nestgate: ${refusal.refused}: ${refusalText(refusal)}; ${remedy}`
}

interface Response {
  readonly allowed: boolean
  readonly warnings?: readonly string[]
  readonly auditAnnotations: Readonly<Record<string, string>>
  readonly [member: string]: unknown
}

function answer(review: Review, outcome: Reviewed['outcome'], response: Response): Reviewed {
  const { uid, namespace, isDryRun } = review
  const { name, generateName } = review.pod.metadata ?? {}
  const pod = [name, generateName].find((text) => (text ?? '') !== '') ?? ''
  const owner = ownerOf(review.pod)
  const body = JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: { uid, ...response },
  })
  const { warnings = [] } = response
  const facts = { body, outcome, uid, namespace, warnings, isDryRun }
  const named = { ...facts, pod: pod.slice(0, MAX_NAME_LENGTH) }
  return owner === undefined ? named : { ...named, owner }
}

/** Undefined where one of its texts is longer than any name: it is the author's, and is kept and sent on with events. */
function ownerOf(pod: Pod): Owner | undefined {
  const found = pod.metadata?.ownerReferences.find(({ controller }) => controller === true)
  const { apiVersion, kind, name, uid } = found ?? {}
  return isText(apiVersion) && isText(kind) && isText(name) && isText(uid)
    ? { apiVersion, kind, name, uid }
    : undefined
}

function isText(value: string | null | undefined): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_NAME_LENGTH
}
