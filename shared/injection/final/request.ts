/**
 * An AdmissionReview of the final state: what is asked, by whom. The bytes come from whoever reaches the port, as in
 * `../review.ts`, so every field is checked before it is believed; what a rule reads of an object is checked by the rule.
 */
import { z } from 'zod'
import { isRecord } from '../../config.ts'
import { isRefusal, REASONS, refusalText, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import type { JsonObject } from '../patch.ts'
import { readReview } from '../read-review.ts'
import type { Reviewed } from '../review.ts'

/** Longest request uid that is echoed; the API server sends UUIDs. */
const MAX_UID_LENGTH = 128
/** Longest name that is read: a DNS subdomain (RFC 1123), which objects have. */
const MAX_NAME_LENGTH = 253
/** Longest text about what is wrong with a review: keys of the author's are part of it. */
const MAX_ISSUE_LENGTH = 256

/** A member that the API server leaves out, or writes as null, where it is empty. */
function optional<T extends z.ZodType>(schema: T, empty: z.output<T>): z.ZodType<z.output<T>> {
  return schema.nullish().transform((value) => value ?? empty)
}

const name = optional(z.string().max(MAX_NAME_LENGTH), '')
const object = z.custom<JsonObject>(isRecord, 'expected an object')
const extra = z.record(z.string(), optional(z.array(z.string()), []))
const caller = z.object({
  username: optional(z.string(), ''),
  groups: optional(z.array(z.string()), []),
  extra: optional(extra, {}),
})

const reviewSchema = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.object({
    uid: z.string().min(1).max(MAX_UID_LENGTH),
    resource: z.object({ group: z.literal(''), version: z.literal('v1'), resource: z.string() }),
    subResource: optional(z.string(), ''),
    operation: z.enum(['CREATE', 'UPDATE', 'CONNECT']),
    namespace: name,
    name,
    userInfo: optional(caller, { username: '', groups: [], extra: {} }),
    object: optional(object, {}),
    oldObject: optional(object, {}),
    dryRun: optional(z.boolean(), false),
  }),
})

/** Who asks (authentication.k8s.io/v1, UserInfo). */
export interface Caller {
  readonly username: string
  readonly groups: readonly string[]
  readonly extra: Readonly<Record<string, readonly string[]>>
}

/** What is asked. */
export interface FinalRequest {
  readonly uid: string
  /** Operation, resource and subresource, such as `CONNECT pods/exec`. */
  readonly what: string
  readonly namespace: string
  /** Empty where the API server will make the name. */
  readonly name: string
  readonly caller: Caller
  /** The object as it would be; for `CONNECT` the options. */
  readonly object: JsonObject
  /** The object as it is; empty but for `UPDATE`. */
  readonly oldObject: JsonObject
  /** Whether it is only tried. */
  readonly isDryRun: boolean
}

/** Decodes a review, or refuses it with `review_invalid`; the detail never repeats a value. */
export function decodeRequest(body: Uint8Array): FinalRequest | Refusal {
  const read = readReview(body)
  if ('problem' in read) return refuse('review_invalid', read.problem)
  const review = reviewSchema.safeParse(read.value)
  if (!review.success) return invalid(review.error, [])
  const { uid, resource, subResource, operation, namespace, name, ...rest } = review.data.request
  const path = subResource === '' ? resource.resource : `${resource.resource}/${subResource}`
  return {
    uid,
    what: `${operation} ${path}`,
    namespace,
    name,
    caller: rest.userInfo,
    object: rest.object,
    oldObject: rest.oldObject,
    isDryRun: rest.dryRun,
  }
}

/**
 * An object as a rule reads it.
 *
 * @param place - member of the request that holds it, for the detail
 * @returns `review_invalid` where it does not have the form
 */
export function readObject<T extends object>(
  schema: z.ZodType<T>,
  value: JsonObject,
  place: 'object' | 'oldObject',
): T | Refusal {
  const read = schema.safeParse(value)
  return read.success ? read.data : invalid(read.error, ['request', place])
}

/** The old and the new object as a rule reads them. */
export function readBoth<T extends object>(
  schema: z.ZodType<T>,
  request: FinalRequest,
): { readonly before: T; readonly after: T } | Refusal {
  const before = readObject(schema, request.oldObject, 'oldObject')
  if (isRefusal(before)) return before
  const after = readObject(schema, request.object, 'object')
  return isRefusal(after) ? after : { before, after }
}

function invalid(error: z.ZodError, prefix: readonly string[]): Refusal {
  const [issue] = error.issues
  const path = [...prefix, ...(issue?.path ?? [])].map(String).join('.')
  const text = `${path}: ${issue?.message ?? 'invalid'}`
  return refuse('review_invalid', text.slice(0, MAX_ISSUE_LENGTH))
}

/** The answer to a request that nothing speaks against. */
export function allow(request: FinalRequest): Reviewed {
  return answer(request, 'unchanged', { allowed: true })
}

/** The answer to a request that is refused: code, place and remedy, as users read them in kubectl. */
export function deny(request: FinalRequest, refusal: Refusal): Reviewed {
  const code = refusal.refused
  const message = `nestgate: ${code}: ${refusalText(refusal)}; ${REASONS[code].remedy}`
  const status = { status: 'Failure', code: 403, reason: 'Forbidden', message }
  const response = { allowed: false, status, auditAnnotations: { reason: code } }
  return { ...answer(request, 'denied', response), reason: code }
}

function answer(
  { uid, namespace, name: pod, isDryRun }: FinalRequest,
  outcome: Reviewed['outcome'],
  response: object,
): Reviewed {
  const body = JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    response: { uid, ...response },
  })
  return { body, outcome, uid, namespace, pod, warnings: [], isDryRun }
}
