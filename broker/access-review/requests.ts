/** One request as a report counts it. */
import { DISCOVERY_RULE } from '../../shared/policy/decide.ts'
import type { Tally, Use } from '../../shared/access-review-wire.ts'
import type { ReadIntent } from './entries.ts'

/** Under what requests are counted together. */
export type RequestRow = Omit<Use, keyof Tally>

/** The words of rules that a request came under. */
export interface RequestWords {
  readonly verbs: readonly string[]
  readonly actions: readonly string[]
  readonly resources: readonly string[]
}

/** What discovery is counted as: its paths say nothing about access. */
const DISCOVERY = { namespace: '', verb: 'get', resource: '(discovery)', actions: [] }

/**
 * What became of a request. A held one has two intents: one when it is held, and one with a credential when it goes ahead;
 * each counts.
 */
export function kindOf({
  decision,
  approval,
  credential,
}: ReadIntent): 'done' | 'held' | 'denied' | 'breakGlass' {
  if (decision.effect === 'deny') return 'denied'
  if (credential === undefined) return 'held'
  return approval?.breakGlass === true ? 'breakGlass' : 'done'
}

/** See {@link RequestRow}. */
export function rowOf({ cluster, decision, request }: ReadIntent): RequestRow {
  if (decision.rules.includes(DISCOVERY_RULE)) return { cluster, ...DISCOVERY }
  const { namespace, attributes } = request
  const verb = attributes?.policyVerb ?? request.verb
  const actions = [...(attributes?.actions ?? [])].sort()
  return { cluster, namespace, verb, resource: resourceOf(request), actions }
}

/** `deployments.apps/scale`; the path outside the resource API. */
function resourceOf({
  isResourceRequest,
  resource,
  apiGroup,
  subresource,
  path,
}: ReadIntent['request']): string {
  if (!isResourceRequest || resource === '') return path
  const group = apiGroup === '' ? '' : `.${apiGroup}`
  const sub = subresource === '' ? '' : `/${subresource}`
  return `${resource}${group}${sub}`
}

/** What rules may have matched: the request, and what it amounts to. */
export function wordsOf({ request }: ReadIntent): RequestWords {
  const { verb, resource, subresource, attributes } = request
  const equivalents = attributes?.equivalents ?? []
  const path = subresource === '' ? resource : `${resource}/${subresource}`
  return {
    verbs: [attributes?.policyVerb ?? verb, ...equivalents.map((one) => one.verb)],
    actions: attributes?.actions ?? [],
    resources: [path, ...equivalents.map((one) => one.resource)],
  }
}

/** Whether a word of a rule is about a resource; as in RBAC, `pods/*` and `*` before a slash. A star alone is not told apart. */
export function isResource(word: string, resource: string): boolean {
  const [head, sub] = word.split('/')
  const [name, subresource] = resource.split('/')
  return (
    (head === '*' || head === name) &&
    (sub === '*' ? subresource !== undefined : sub === subresource)
  )
}
