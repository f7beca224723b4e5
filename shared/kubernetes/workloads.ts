/** The built-in kinds whose objects make pods run, and where in them replicas and pod templates stand. */
import { hasAt, valueAt } from './json-fields.ts'
import { touches } from './json-patch.ts'
import type { Touch } from './json-patch.ts'
import type { BodyView, RequestParameters } from './attributes.ts'
import type { RequestInfo } from './request-info.ts'

const REPLICAS = ['spec', 'replicas'] as const

/** `group/resource` of what has replicas. */
const SCALED: ReadonlySet<string> = new Set([
  '/replicationcontrollers',
  'apps/deployments',
  'apps/replicasets',
  'apps/statefulsets',
  'extensions/deployments',
  'extensions/replicasets',
])

/** By `group/resource`: where what runs is described. */
const CODE: Readonly<Record<string, readonly string[]>> = {
  '/pods': ['spec'],
  '/podtemplates': ['template'],
  '/replicationcontrollers': ['spec', 'template'],
  'apps/deployments': ['spec', 'template'],
  'apps/daemonsets': ['spec', 'template'],
  'apps/statefulsets': ['spec', 'template'],
  'apps/replicasets': ['spec', 'template'],
  'extensions/deployments': ['spec', 'template'],
  'extensions/daemonsets': ['spec', 'template'],
  'extensions/replicasets': ['spec', 'template'],
  // a StatefulSet's pods are made from its revision
  'apps/controllerrevisions': ['data'],
  'batch/jobs': ['spec', 'template'],
  'batch/cronjobs': ['spec', 'jobTemplate'],
}

/** `group/resource` of a request. */
export function kindKey({ apiGroup, resource }: RequestInfo): string {
  return `${apiGroup}/${resource}`
}

/** What a write does to the place at `path` of its object; what cannot be read may do anything. */
export function touchOf(
  path: readonly string[],
  patchType: RequestParameters['patchType'],
  body: BodyView,
): Touch {
  if (body.state === 'none') return { kind: 'none' }
  if (body.state === 'opaque') return { kind: 'unknown' }
  if (patchType === 'json') return touches(body.value, path)
  if (hasAt(body.value, path)) return { kind: 'set', value: valueAt(body.value, path) }
  // a whole object takes away what it leaves out; so does an apply of what its manager, whose name the client chooses, has set
  if (patchType === undefined || patchType === 'apply') return { kind: 'set', value: undefined }
  // of a patch that removes or replaces a whole branch, what becomes of the place is not in the patch
  return replacesBranch(body.value, path) ? { kind: 'unknown' } : { kind: 'none' }
}

/** Whether a merge patch sets a parent of the place to null, or a strategic one replaces, deletes or empties it (`$patch`, `$retainKeys`). */
function replacesBranch(value: unknown, path: readonly string[]): boolean {
  return path.some((_part, length) => {
    const parent = path.slice(0, length)
    if (length > 0 && hasAt(value, parent) && valueAt(value, parent) === null) return true
    return hasAt(value, [...parent, '$patch']) || hasAt(value, [...parent, '$retainKeys'])
  })
}

/** How a request changes the number of replicas: not at all, to a number, or to one that it does not say. */
export function replicasTouch(
  info: RequestInfo,
  patchType: RequestParameters['patchType'],
  body: BodyView,
): Touch {
  const scaled =
    info.subresource === 'scale' || (info.subresource === '' && SCALED.has(kindKey(info)))
  if (!scaled || !['create', 'update', 'patch'].includes(info.verb)) return { kind: 'none' }
  const touch = touchOf(REPLICAS, patchType, body)
  const byDefault = info.verb === 'create' && touch.kind === 'set' && touch.value === undefined
  return byDefault ? { kind: 'none' } : touch
}

/** Whether a write may change what runs. */
export function mayRunCode(
  info: RequestInfo,
  patchType: RequestParameters['patchType'],
  body: BodyView,
): boolean {
  const place = CODE[kindKey(info)]
  if (place === undefined || info.subresource !== '') return false
  if (info.verb === 'create' || info.verb === 'update') return true
  return info.verb === 'patch' && touchOf(place, patchType, body).kind !== 'none'
}
