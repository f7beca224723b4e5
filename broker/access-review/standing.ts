/**
 * Standing access: which rules let a principal do something, by the policy alone and by what was seen of the principal.
 * A rule applies where one form in which it was seen meets every condition on the caller. Where a rule names it (by
 * `agents`, or by `subjects` for a direct client) and asks for something more that was not seen, it might.
 */
import type {
  Access,
  PrincipalId,
  ReviewRule,
  ReviewScope,
} from '../../shared/access-review-wire.ts'
import type { Verdict } from '../../shared/agent-tag.ts'
import type { PolicyScopes } from '../../shared/policy/decide.ts'
import type { Facts } from '../../shared/policy/facts.ts'
import { compileRule, WHO, wordTest } from '../../shared/policy/matching.ts'
import type { CompiledCondition } from '../../shared/policy/matching.ts'
import type { PolicySet } from '../../shared/policy/policy-set.ts'
import { viewsOf } from '../../shared/policy/views.ts'
import { NON_RESOURCE } from '../../shared/kubernetes/request-info.ts'
import { reviewRule } from './rules.ts'
import type { Face } from './tally.ts'

/** Conditions that only a process can meet. */
const OF_PROCESSES: ReadonlySet<string> = new Set(
  WHO.filter((key) => !['subjects', 'groups', 'repositories', 'refs'].includes(key)),
)
const OF_CALLERS: ReadonlySet<string> = new Set(WHO)

/** Conditions on the caller look at nothing of the request. */
const NO_REQUEST: Facts['request'] = {
  info: { ...NON_RESOURCE, verb: '' },
  ...{ path: '', policyVerb: '', actions: [], equivalents: [], objectName: '' },
  ...{ parameters: { dryRun: false }, body: { state: 'none' } },
}
const [NO_VIEW] = viewsOf(NO_REQUEST)

/** A rule, ready to be held against principals. */
export interface StandingRule {
  readonly rule: ReviewRule
  readonly denies: boolean
  readonly clusters: CompiledCondition | undefined
  readonly callers: readonly CompiledCondition[]
}

/** What is known of a principal. */
export interface Known extends Pick<PrincipalId, 'kind' | 'name'> {
  /** None where the period has no request of it that was decided on. */
  readonly faces: readonly Face[]
}

/** How far a rule is a principal's. */
export type Applies = Pick<Access, 'applies' | 'unseen'>

/** Rules of a policy against principals. */
export interface Standing {
  /** In the order of the policy; what has nothing to do with the scope is left out. */
  readonly rules: readonly StandingRule[]
  applies(rule: StandingRule, principal: Known): Applies | undefined
}

/** @param acceptVerdicts - processes that are identified otherwise get nothing */
export function createStanding(
  policy: PolicySet,
  {
    scope,
    scopes,
    acceptVerdicts,
  }: {
    readonly scope: ReviewScope
    readonly scopes?: PolicyScopes | undefined
    readonly acceptVerdicts: readonly Verdict[]
  },
): Standing {
  const holds = (cluster: string, { rule }: StandingRule): boolean =>
    scopes?.get(cluster)?.includes(rule.policy) ?? true
  const rules = policy.rules
    .map((rule): StandingRule => {
      const { conditions } = compileRule(rule)
      return {
        rule: reviewRule(rule),
        denies: rule.effect === 'deny',
        clusters: conditions.find(({ dimension }) => dimension.key === 'clusters'),
        callers: conditions.filter(({ dimension }) => OF_CALLERS.has(dimension.key)),
      }
    })
    .filter((rule) => isInScope(rule, scope))
    .filter((rule) => scope.cluster === undefined || holds(scope.cluster, rule))
  return {
    rules,
    applies(rule, principal) {
      const faces = principal.faces.filter(
        ({ cluster, process }) =>
          holds(cluster, rule) &&
          (process === undefined || acceptVerdicts.includes(process.verdict)),
      )
      return faces.some((face) => meets(rule, face))
        ? { applies: 'applies', unseen: [] }
        : byName(rule, principal, faces)
    },
  }
}

function isInScope({ rule, clusters }: StandingRule, { cluster, namespace }: ReviewScope): boolean {
  const { namespaces } = rule.match
  if (namespace !== undefined && namespaces !== undefined) {
    if (!wordTest('name', namespaces)(namespace)) return false
  }
  if (cluster === undefined || clusters === undefined) return true
  return clusters.test(NO_VIEW, { ...NOBODY, cluster })
}

const NOBODY: Facts = { cluster: '', process: undefined, subject: undefined, request: NO_REQUEST }

function meets({ clusters, callers }: StandingRule, face: Face): boolean {
  const facts = { ...face, request: NO_REQUEST }
  return [...(clusters === undefined ? [] : [clusters]), ...callers].every((condition) =>
    condition.test(NO_VIEW, facts),
  )
}

/** Whether a rule is about a principal by its name, and what else it asks for. */
function byName(
  { callers }: StandingRule,
  { kind, name, faces: all }: Known,
  faces: readonly Face[],
): Applies | undefined {
  if (kind === 'serviceAccount') return undefined
  const key = kind === 'agent' ? 'agents' : 'subjects'
  const others = callers.filter(({ dimension }) => dimension.key !== key)
  const naming = callers.find(({ dimension }) => dimension.key === key)
  if (naming !== undefined && !wordTest('name', naming.words)(name)) return undefined
  // A direct client has no process.
  if (kind === 'subject' && others.some(({ dimension }) => OF_PROCESSES.has(dimension.key)))
    return undefined
  if (naming === undefined) {
    // Who was seen is known by that; of the others only a rule for everybody is known to apply.
    return all.length === 0 && others.length === 0 ? { applies: 'applies', unseen: [] } : undefined
  }
  const unseen = others
    .filter((one) => !faces.some((face) => one.test(NO_VIEW, { ...face, request: NO_REQUEST })))
    .map(({ dimension }) => dimension.key)
  const isWhole = all.length === 0 && others.length === 0
  return { applies: isWhole ? 'applies' : 'might', unseen }
}
