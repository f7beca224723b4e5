/**
 * A running pod that is changed. Kubernetes itself keeps most of a pod as it is; of what may change, the sidecar's image and our
 * marks are ours. Resources may change (`pods/resize`, and `pods` where in-place resizing is young): who starves the sidecar takes
 * the cluster's API from the own pod, and gets nothing.
 */
import { z } from 'zod'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import { SIDECAR_NAME } from '../sidecar-spec.ts'
import { readBoth } from './request.ts'
import type { FinalRequest } from './request.ts'

/** Labels and annotations that begin with it are ours; those that end with the sidecar's name tell a runtime about it. */
const MARK = 'nestgate.dev/'
/** Lists that can hold the sidecar. */
const HOMES = ['initContainers', 'containers'] as const

const texts = z.record(z.string(), z.string()).nullish()
const containers = z
  .array(z.object({ name: z.string().nullish(), image: z.string().nullish() }))
  .nullish()
const podSchema = z.object({
  metadata: z.object({ labels: texts, annotations: texts }),
  spec: z.object({ initContainers: containers, containers }),
})

type Pod = z.infer<typeof podSchema>

/** Judges the old and the new pod of an `UPDATE pods`: `sidecar_changed`, or undefined. */
export function judgeUpdated(request: FinalRequest): Refusal | undefined {
  const pods = readBoth(podSchema, request)
  if (isRefusal(pods)) return pods
  const { before, after } = pods
  const path =
    changedImage(before, after) ??
    changedMark('labels', before.metadata.labels, after.metadata.labels) ??
    changedMark('annotations', before.metadata.annotations, after.metadata.annotations)
  return path === undefined ? undefined : refuse('sidecar_changed', path)
}

/** A pod of before the label has no sidecar, and gets none. */
function changedImage({ spec: before }: Pod, { spec: after }: Pod): string | undefined {
  for (const home of HOMES) {
    const now = imagesOf(after[home])
    if (now === imagesOf(before[home])) continue
    const index = (after[home] ?? []).findIndex(({ name }) => name === SIDECAR_NAME)
    return index === -1 ? `spec.${home}` : `spec.${home}[${index}].image`
  }
  return undefined
}

function imagesOf(list: Pod['spec']['containers']): string {
  const sidecars = (list ?? []).filter(({ name }) => name === SIDECAR_NAME)
  return JSON.stringify(sidecars.map(({ image }) => image ?? ''))
}

type Texts = Pod['metadata']['labels']

function changedMark(
  kind: 'labels' | 'annotations',
  before: Texts,
  after: Texts,
): string | undefined {
  const [old, now] = [new Map(Object.entries(before ?? {})), new Map(Object.entries(after ?? {}))]
  const changed = [...old.keys(), ...now.keys()].find(
    (key) => isMark(key) && old.get(key) !== now.get(key),
  )
  return changed === undefined ? undefined : `metadata.${kind}['${changed}']`
}

function isMark(key: string): boolean {
  return key.startsWith(MARK) || key.endsWith(`/${SIDECAR_NAME}`)
}
