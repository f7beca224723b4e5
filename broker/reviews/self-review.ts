/**
 * Truthful `kubectl auth can-i`: SelfSubjectAccessReview and SelfSubjectRulesReview are answered by the cluster,
 * as the caller, and then by policy, so that a client plans with what it will really meet. Policy only ever takes
 * away or explains: what the cluster refuses stays refused.
 */
import { z } from 'zod'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import { answerAccess } from './access-review.ts'
import type { ReviewPolicy } from './judge.ts'
import { readReviewBody } from './review-body.ts'
import { answerRules } from './rules-review.ts'

/** Which of the two reviews a request is. */
export type SelfReviewKind = 'access' | 'rules'

/** A review that was understood. */
export type SelfReview =
  | {
      readonly kind: 'access'
      readonly resource: ResourceQuestion | undefined
      readonly path: PathQuestion | undefined
    }
  | { readonly kind: 'rules'; readonly namespace: string }

const text = z.string().default('')
const resourceSchema = z.object({
  namespace: text,
  verb: text,
  group: text,
  version: text,
  resource: text,
  subresource: text,
  name: text,
})
const pathSchema = z.object({ path: text, verb: text })
const accessSchema = z.object({
  spec: z
    .object({
      resourceAttributes: resourceSchema.nullish(),
      nonResourceAttributes: pathSchema.nullish(),
    })
    .nullish(),
})
const rulesSchema = z.object({ spec: z.object({ namespace: text }).nullish() })

/** May this verb on this resource? */
export type ResourceQuestion = Readonly<z.infer<typeof resourceSchema>>
/** May this verb on this path? */
export type PathQuestion = Readonly<z.infer<typeof pathSchema>>

/** An answer to be passed on. */
export interface ReviewAnswer {
  readonly status: number
  readonly contentType: string
  readonly body: Buffer
  /** To be said in a `Warning` header: kubectl shows the reason of a yes nowhere else. */
  readonly warning?: string
}

const KINDS: Readonly<Record<string, SelfReviewKind>> = {
  selfsubjectaccessreviews: 'access',
  selfsubjectrulesreviews: 'rules',
}

/** Whether a request is a review of its own caller, and which. */
export function selfReviewKind(info: RequestInfo): SelfReviewKind | undefined {
  const { apiGroup, resource, subresource, verb } = info
  if (apiGroup !== 'authorization.k8s.io' || verb !== 'create' || subresource !== '') {
    return undefined
  }
  return KINDS[resource]
}

/**
 * Reads a review's body: JSON, YAML, or Kubernetes' protobuf, which kubectl sends from 1.33 on.
 *
 * @returns `body_opaque` for any other type, `body_invalid` for what is no review
 */
export function readSelfReview(
  kind: SelfReviewKind,
  contentType: string,
  body: Buffer,
): SelfReview | Refusal {
  const value = readReviewBody(kind, contentType, body)
  if (isRefusal(value)) return value
  if (kind === 'rules') {
    const read = rulesSchema.safeParse(value.review)
    if (!read.success) return refuse('body_invalid', 'not a SelfSubjectRulesReview')
    return { kind, namespace: read.data.spec?.namespace ?? '' }
  }
  const read = accessSchema.safeParse(value.review)
  if (!read.success) return refuse('body_invalid', 'not a SelfSubjectAccessReview')
  const { spec } = read.data
  return {
    kind,
    resource: spec?.resourceAttributes ?? undefined,
    path: spec?.nonResourceAttributes ?? undefined,
  }
}

/** Headers of the forwarded review: an answer that can be read. Set after the client's own. */
export const REVIEW_HEADERS: Readonly<Record<string, string>> = {
  accept: 'application/json',
  'accept-encoding': 'identity',
}

/**
 * What the client is answered.
 *
 * @param upstream - the API server's answer to the same review, asked as the caller with {@link REVIEW_HEADERS}
 * @returns the API server's own answer where it is an error; `upstream_invalid` where it cannot be read
 */
export function answerSelfReview(
  review: SelfReview,
  upstream: ReviewAnswer,
  policy: ReviewPolicy,
): ReviewAnswer | Refusal {
  if (upstream.status < 200 || upstream.status >= 300) return upstream
  const json = readObject(upstream.body)
  const joined =
    review.kind === 'access'
      ? answerAccess(review, json, policy)
      : answerRules(review.namespace, json, policy)
  if (joined === undefined) return refuse('upstream_invalid', 'a review that is none')
  return {
    status: upstream.status,
    contentType: 'application/json',
    body: Buffer.from(JSON.stringify(joined.answer)),
    ...(joined.warning === undefined ? {} : { warning: joined.warning }),
  }
}

function readObject(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString())
  } catch {
    return undefined
  }
}
