/** Wildcards of RBAC's words, spread over what a cluster serves. */
import type { ServedResource } from './judge.ts'
import { STORED_VERBS } from './well-known.ts'

/** One verb on one resource. */
export interface Cell {
  readonly verb: string
  readonly apiGroup: string
  /** With subresource. */
  readonly resource: string
}

/** What an RBAC rule, or a question in its words, reaches. */
export interface Reach {
  readonly verbs: readonly string[]
  readonly apiGroups: readonly string[]
  readonly resources: readonly string[]
}

/** Whether there is a wildcard anywhere. */
export function isWild({ verbs, apiGroups, resources }: Reach): boolean {
  return (
    verbs.includes('*') ||
    apiGroups.includes('*') ||
    resources.some((resource) => resource === '*' || resource.startsWith('*/'))
  )
}

/** Everything that is reached; wildcards reach what is served. Each cell comes once. */
export function cellsOf(reach: Reach, served: readonly ServedResource[]): readonly Cell[] {
  const cells = new Map<string, Cell>()
  const add = (cell: Cell): void => {
    cells.set(JSON.stringify(Object.values(cell)), cell)
  }
  for (const verb of reach.verbs) {
    for (const apiGroup of reach.apiGroups) {
      for (const resource of reach.resources) {
        for (const cell of spread({ verb, apiGroup, resource }, served)) add(cell)
      }
    }
  }
  return [...cells.values()]
}

function spread(cell: Cell, served: readonly ServedResource[]): readonly Cell[] {
  const { verb, apiGroup, resource } = cell
  if (!isWild({ verbs: [verb], apiGroups: [apiGroup], resources: [resource] })) return [cell]
  const reached = served.filter(
    (one) =>
      (apiGroup === '*' || one.apiGroup === apiGroup) && reachesResource(resource, one.resource),
  )
  // a resource that is not known may still be served
  const named = resource === '*' || resource.startsWith('*/') || apiGroup === '*'
  const all = reached.length > 0 || named ? reached : [{ apiGroup, resource, verbs: STORED_VERBS }]
  return all.flatMap((one) =>
    (verb === '*' ? one.verbs : [verb]).map((each) => ({
      verb: each,
      apiGroup: one.apiGroup,
      resource: one.resource,
    })),
  )
}

/** rbac/v1 evaluation helpers, ResourceMatches: `*` reaches subresources too. */
function reachesResource(pattern: string, resource: string): boolean {
  if (pattern === '*' || pattern === resource) return true
  const subresource = resource.split('/')[1]
  return pattern.startsWith('*/') && subresource === pattern.slice(2)
}
