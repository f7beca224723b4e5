/**
 * Where in the objects of a request hidden values may stand, by its group and resource alone: the object itself is not at
 * hand. What is not known counts as hidden (docs/decisions/0010, the table of the standard profile).
 */
import { BUILT_IN_GROUPS } from '../../../shared/kubernetes/built-in-groups.ts'
import type { RequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { kindKey } from '../../../shared/kubernetes/workloads.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { NAMED_PAIRS, SECRET_FIELDS, WORD_LISTS } from '../objects/names.ts'

/** How a place stands to hidden ones: in one, above one, or clear of all. */
export type Standing = 'hidden' | 'above' | 'clear'

/** One step of a pattern: one of these members, or any member or item. */
type Matcher = ReadonlySet<string> | 'any'
type Pattern = readonly Matcher[]

/** See the head of the file. */
export interface Places {
  /** Of a place by its steps from the root, indexes as they are spelled. */
  standing(steps: readonly string[]): Standing
  /** Objects in it may hold other objects, and those may be Secrets. */
  readonly embedding: boolean
}

/** Fields of Secrets and ConfigMaps. */
export const DATA_FIELDS: ReadonlySet<string> = new Set([...SECRET_FIELDS, 'binaryData'])
/** Lists that are hidden in part, at any depth of any kind. */
const LISTS: ReadonlySet<string> = new Set([...NAMED_PAIRS, ...WORD_LISTS])

const CONTAINERS = one('containers', 'initContainers', 'ephemeralContainers')
const HANDLER_LISTS = one('command', 'httpHeaders')
/** From the spec of a pod. */
const IN_POD: readonly Pattern[] = [
  [CONTAINERS, 'any', one('env', 'args', 'command')],
  [CONTAINERS, 'any', one('lifecycle'), 'any', 'any', HANDLER_LISTS],
  [CONTAINERS, 'any', one('livenessProbe', 'readinessProbe', 'startupProbe'), 'any', HANDLER_LISTS],
]
/** By `group/resource`: where the spec of a pod stands. */
const POD_SPECS: ReadonlyMap<string, readonly string[]> = new Map([
  ['/pods', ['spec']],
  ['/podtemplates', ['template', 'spec']],
  ['apps/controllerrevisions', ['data', 'spec', 'template', 'spec']],
  ['batch/cronjobs', ['spec', 'jobTemplate', 'spec', 'template', 'spec']],
  ...[
    '/replicationcontrollers',
    'apps/daemonsets',
    'apps/deployments',
    'apps/replicasets',
    'apps/statefulsets',
    'batch/jobs',
    'extensions/daemonsets',
    'extensions/deployments',
    'extensions/replicasets',
  ].map((key): [string, readonly string[]] => [key, ['spec', 'template', 'spec']]),
])

/** Hidden places of what a request is about. */
export function placesOf(info: RequestInfo, masking: Masking): Places {
  const patterns = patternsOf(info, masking)
  const embedding = !BUILT_IN_GROUPS.has(info.apiGroup)
  return {
    embedding,
    standing(steps) {
      if (inAnnotation(steps) || inList(steps)) return 'hidden'
      if (embedding && steps.some((step) => DATA_FIELDS.has(step))) return 'hidden'
      return strongest(patterns, steps)
    },
  }
}

/** Whether an operator wants a place hidden. */
export function isOperatorField(
  { apiGroup }: RequestInfo,
  { fields }: Masking,
  steps: readonly string[],
): boolean {
  return strongest(operatorPatterns(apiGroup, fields), steps) !== 'clear'
}

function patternsOf(info: RequestInfo, { fields }: Masking): readonly Pattern[] {
  const podSpec = POD_SPECS.get(kindKey(info))
  return [
    [one('metadata'), one('annotations')],
    ...inPods(podSpec),
    ...ofResource(info),
    ...operatorPatterns(info.apiGroup, fields),
  ]
}

function inPods(podSpec: readonly string[] | undefined): readonly Pattern[] {
  if (podSpec === undefined) return []
  const base = podSpec.map((name) => one(name))
  return IN_POD.map((pattern) => [...base, ...pattern])
}

/** Secrets of any group; of the core group's events the texts that are searched. */
function ofResource({ resource, apiGroup }: RequestInfo): readonly Pattern[] {
  if (resource === 'secrets' || (resource === 'configmaps' && apiGroup === ''))
    return [[DATA_FIELDS]]
  return resource === 'events' ? [[one('message', 'note')]] : []
}

/** Kinds are not known from the request's resource: fields of all kinds of the group count. */
function operatorPatterns(group: string, fields: Masking['fields']): readonly Pattern[] {
  return fields
    .filter((field) => field.group === group)
    .map(({ path }) => path.map((step): Matcher => (step === 'any' ? 'any' : one(step.name))))
}

function strongest(patterns: readonly Pattern[], steps: readonly string[]): Standing {
  let found: Standing = 'clear'
  for (const pattern of patterns) {
    const common = Math.min(pattern.length, steps.length)
    const meets = pattern.slice(0, common).every((matcher, index) => {
      return matcher === 'any' || matcher.has(steps[index] ?? '')
    })
    if (meets && steps.length >= pattern.length) return 'hidden'
    if (meets) found = 'above'
  }
  return found
}

/** An annotation may hold a copy of the whole object, or of others. */
function inAnnotation(steps: readonly string[]): boolean {
  return steps.some((step, at) => step === 'annotations' && steps[at - 1] === 'metadata')
}

/** A label of the name of such a list is none. */
function inList(steps: readonly string[]): boolean {
  return steps.some((step, at) => LISTS.has(step) && !isLabel(steps, at))
}

function isLabel(steps: readonly string[], at: number): boolean {
  return steps[at - 1] === 'labels' && steps[at - 2] === 'metadata'
}

function one(...names: readonly string[]): ReadonlySet<string> {
  return new Set(names)
}
