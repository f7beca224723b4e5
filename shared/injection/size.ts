/**
 * How much of a pod is looked at. A review is one piece of work on the one thread of the webhook: what one author's pod takes, every
 * other namespace waits for. The API server bounds bytes alone, and 3 MiB hold a hundred thousand variables.
 */
import { isRecord } from '../config.ts'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { JsonObject } from './patch.ts'
import { valueAt } from './patch.ts'
import { CONTAINER_LISTS } from './pod.ts'

/** Most containers of a pod: each gets a part of the patch, and a kubelet's own limits are far below. */
export const MAX_CONTAINERS = 500
/** Most entries of all lists and annotations that are searched and rewritten; the largest pods of practice have some thousand. */
export const MAX_ENTRIES = 15_000

const LISTS_OF_CONTAINERS = ['env', 'envFrom', 'volumeMounts', 'ports'] as const

/** Refuses pods that are larger; undefined where all is well. Counts before anything is decoded, and never throws. */
export function checkSize(raw: JsonObject): Refusal | undefined {
  const containers = CONTAINER_LISTS.flatMap((name) => listAt(raw, ['spec', name]))
  if (containers.length > MAX_CONTAINERS)
    return refuse('pod_too_large', `${containers.length} containers, more than ${MAX_CONTAINERS}`)
  const volumes = listAt(raw, ['spec', 'volumes'])
  const lists = [
    volumes,
    Object.keys(recordAt(raw, ['metadata', 'annotations'])),
    ...volumes.map((volume) => listAt(volume, ['projected', 'sources'])),
    ...containers.flatMap((container) => [
      ...LISTS_OF_CONTAINERS.map((name) => listAt(container, [name])),
      ...['add', 'drop'].map((name) =>
        listAt(container, ['securityContext', 'capabilities', name]),
      ),
    ]),
  ]
  const entries = lists.reduce((sum, { length }) => sum + length, 0)
  if (entries <= MAX_ENTRIES) return undefined
  return refuse(
    'pod_too_large',
    `${entries} variables, mounts, volumes and the like, more than ${MAX_ENTRIES}`,
  )
}

function listAt(root: unknown, path: readonly string[]): readonly unknown[] {
  const value = valueAt(root, path)
  return Array.isArray(value) ? value : []
}

function recordAt(root: unknown, path: readonly string[]): JsonObject {
  const value = valueAt(root, path)
  return isRecord(value) ? value : {}
}
