/** Where the pods are in what people write: pods themselves, templates of controllers, and lists of both. Pure. */
import { isRecord } from '../../shared/config.ts'
import { valueAt } from '../../shared/injection/patch.ts'
import type { Path } from '../../shared/injection/patch.ts'

/** Deepest list in a list that is read; kubectl writes none in another. */
const MAX_LISTS = 4

/** Where each kind has its pod's metadata and spec, by group and kind. Versions have never moved them. */
const PLACES: Readonly<Record<string, Path>> = {
  '/Pod': [],
  '/PodTemplate': ['template'],
  '/ReplicationController': ['spec', 'template'],
  'apps/DaemonSet': ['spec', 'template'],
  'apps/Deployment': ['spec', 'template'],
  'apps/ReplicaSet': ['spec', 'template'],
  'apps/StatefulSet': ['spec', 'template'],
  'batch/CronJob': ['spec', 'jobTemplate', 'spec', 'template'],
  'batch/Job': ['spec', 'template'],
}

/** A pod, or a template of pods, in a document. */
export interface Target {
  /** Where its metadata and spec are, from the root of the document. */
  readonly path: Path
  /** Kind and name of the object, for messages. */
  readonly title: string
  /** The object's own namespace, where it names one. */
  readonly namespace: string | undefined
}

/** What a document has. */
export interface Targets {
  readonly targets: readonly Target[]
  /** Objects of kinds that are not known and yet have a template of pods. */
  readonly unknown: readonly string[]
}

/** The pods and templates of an object. */
export function targetsOf(object: unknown): Targets {
  const targets: Target[] = []
  const unknown: string[] = []
  collect(object, [], { targets, unknown }, MAX_LISTS)
  return { targets, unknown }
}

function collect(
  object: unknown,
  path: Path,
  found: { readonly targets: Target[]; readonly unknown: string[] },
  lists: number,
): void {
  if (!isRecord(object)) return
  const kind = textAt(object, ['kind']) ?? ''
  const { items } = object
  if (kind.endsWith('List') && Array.isArray(items) && lists > 0) {
    for (const [index, item] of items.entries())
      collect(item, [...path, 'items', index], found, lists - 1)
    return
  }
  const name = textAt(object, ['metadata', 'name']) ?? textAt(object, ['metadata', 'generateName'])
  const title = `${kind} ${name ?? 'without a name'}`
  const place = PLACES[`${groupOf(object)}/${kind}`]
  if (place === undefined) {
    if (isRecord(valueAt(object, ['spec', 'template', 'spec']))) found.unknown.push(title)
    return
  }
  const namespace = textAt(object, ['metadata', 'namespace'])
  found.targets.push({ path: [...path, ...place], title, namespace })
}

/** The API group; that of Deployments and DaemonSets was `extensions` once. */
function groupOf(object: unknown): string {
  const parts = (textAt(object, ['apiVersion']) ?? '').split('/')
  const group = parts.length > 1 ? (parts[0] ?? '') : ''
  return group === 'extensions' ? 'apps' : group
}

function textAt(object: unknown, path: Path): string | undefined {
  const value = valueAt(object, path)
  return typeof value === 'string' && value !== '' ? value : undefined
}
