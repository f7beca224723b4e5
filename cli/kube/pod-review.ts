/** The webhook's review of a pod that nobody is creating: for what would come of it. Pure. */
import { z } from 'zod'
import type { InjectionSettings, WantedLevel } from '../../shared/injection/sidecar-spec.ts'
import { reviewPod } from '../../shared/injection/review.ts'
import { isRefusal, refusalText } from '../../shared/reasons.ts'

/** The uid of reviews that nobody asked for; it is echoed in an answer that is not shown. */
const UID = 'nestgate-cli'

const answerSchema = z.object({
  response: z.object({
    allowed: z.boolean(),
    patch: z.base64().optional(),
    warnings: z.array(z.string()).default([]),
    status: z.object({ message: z.string() }).optional(),
  }),
})

/** What the webhook would say. */
export interface PodReview {
  /** The JSON patch as the webhook encodes it; empty where nothing changes. */
  readonly patch: string
  readonly warnings: readonly string[]
  /** Code, path and remedy, where the pod is refused. */
  readonly refusal?: string
}

/** Reviews a pod by these settings. */
export function reviewObject(
  pod: object,
  namespace: string,
  settings: InjectionSettings,
  level: WantedLevel,
): PodReview {
  const body = Buffer.from(JSON.stringify(reviewOf(pod, namespace)))
  const reviewed = reviewPod(body, settings, level)
  if (isRefusal(reviewed))
    return { patch: '', warnings: [], refusal: `${reviewed.refused}: ${refusalText(reviewed)}` }
  const { allowed, patch, warnings, status } = answerSchema.parse(
    JSON.parse(reviewed.body),
  ).response
  return {
    patch: patch === undefined ? '' : Buffer.from(patch, 'base64').toString(),
    warnings: warnings.map(withoutName),
    ...(allowed ? {} : { refusal: withoutName(status?.message ?? 'denied') }),
  }
}

function reviewOf(object: object, namespace: string): object {
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: UID,
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      operation: 'CREATE',
      namespace,
      object,
    },
  }
}

/** The command's own name is printed before each line. */
function withoutName(text: string): string {
  return text.replace(/^nestgate: /, '')
}
