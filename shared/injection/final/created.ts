/**
 * A pod as it would be stored: right when injecting it again changes nothing. There is no second list of rules: whatever
 * another webhook changed after ours, the review finds by what it would do about it.
 */
import { z } from 'zod'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import { podSchema } from '../pod.ts'
import { reviewPod } from '../review.ts'
import type { Reviewed } from '../review.ts'
import { SIDECAR_NAME } from '../sidecar-spec.ts'
import type { InjectionSettings, WantedLevel } from '../sidecar-spec.ts'
import { readObject } from './request.ts'
import type { FinalRequest } from './request.ts'

/** The levels that a namespace can want, the usual one first. */
const LEVELS: readonly WantedLevel[] = ['any', 'process', 'container']
/** Most paths that a refusal names; a pod that was never injected would change everywhere. */
const MAX_PATHS = 4

const patchSchema = z.array(z.object({ path: z.string() }))
const answerSchema = z.object({ response: z.object({ patch: z.string() }) })

/**
 * Judges the pod of a `CREATE pods`.
 *
 * @param body - the review as received
 * @param level - what the namespace wants; undefined where the review's path does not say it: then the pod must be right for
 *   one of the levels, and its author could have had a sidecar that tells callers apart by container where the namespace wants it by
 *   process, if the rewriting webhook was not asked at all
 * @returns undefined where the pod is right; the review's own denial; or a refusal: `final_state` with what would change
 * @throws Fault `patch_invalid` as `reviewPod` does
 */
export function judgeCreated(
  request: FinalRequest,
  body: Uint8Array,
  settings: InjectionSettings,
  level: WantedLevel | undefined,
): Reviewed | Refusal | undefined {
  const pod = readObject(podSchema, request.object, 'object')
  if (isRefusal(pod)) return pod
  // With nothing beside it, a plain-container sidecar is what a session without a container's name enters.
  const isAlone = pod.spec.containers.every(({ name }) => name === SIDECAR_NAME)
  if (isAlone) return refuse('final_state', 'spec.containers holds no container of the author’s')
  let worst: Reviewed | Refusal | undefined
  for (const one of level === undefined ? LEVELS : [level]) {
    const reviewed = reviewPod(body, settings, one)
    if (isRefusal(reviewed)) return reviewed
    if (reviewed.outcome === 'unchanged') return undefined
    // What would change says more than what a level of another namespace would refuse.
    if (reviewed.outcome === 'patched') worst = wouldChange(reviewed)
    else worst ??= reviewed
  }
  return worst
}

/** Field paths only: a value could be a secret of the author's. */
function wouldChange({ body }: Reviewed): Refusal {
  const { patch } = answerSchema.parse(JSON.parse(body)).response
  const operations = patchSchema.parse(JSON.parse(Buffer.from(patch, 'base64').toString()))
  const paths = [...new Set(operations.map(({ path }) => fieldPath(path)))]
  const more = paths.length - MAX_PATHS
  const named = paths.slice(0, MAX_PATHS).join(', ')
  return refuse('final_state', more > 0 ? `${named} and ${more} more` : named)
}

/** A JSON pointer in the way error messages of the API server name a field. */
function fieldPath(pointer: string): string {
  const parts = pointer.split('/').slice(1)
  const plain = parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
  return plain
    .map((part, index) => {
      if (/^\d+$/.test(part)) return `[${part}]`
      if (/[./]/.test(part)) return `['${part}']`
      return index === 0 ? part : `.${part}`
    })
    .join('')
}
