/** Questions about a policy: why a request is decided as it is, who may do something, what another policy would change. */
import { readCase } from './case.ts'
import type { CaseProblem } from './case.ts'
import { createDecider } from './decide.ts'
import type { DeciderOptions } from './decide.ts'
import type { Decision, Effect } from './decision.ts'
import type { Facts } from './facts.ts'
import type { Case, Match } from './language.ts'
import { compileRule, matchesWords, WHO } from './matching.ts'
import type { CompiledRule } from './matching.ts'
import type { PolicySet, Rule } from './policy-set.ts'
import { viewsOf } from './views.ts'
import type { View } from './views.ts'

/** The first condition of a rule that does not hold. */
export interface FailedCondition {
  /** Its name in the rule; `when` for the expression. */
  readonly condition: string
  readonly wanted: readonly string[]
  /** What the request has; empty where it is not known. */
  readonly found: readonly string[]
}

/** How a rule and a request are to each other. */
export interface RuleExplanation {
  readonly rule: Rule
  readonly matched: boolean
  /** Whether it is about this kind of request at all. */
  readonly near: boolean
  /** By an equivalent of the request rather than by itself. */
  readonly equivalent: boolean
  readonly failed?: FailedCondition
  /** What went wrong in its expression; can hold values of the body. */
  readonly error?: string
}

/** Explains a decision: what each rule has to do with it, the nearest first. */
export function explainDecision(
  policy: PolicySet,
  facts: Facts,
  options: DeciderOptions,
): { readonly decision: Decision; readonly rules: readonly RuleExplanation[] } {
  const decision = createDecider(policy, options).decide(facts)
  const nowMs = options.now?.() ?? Date.now()
  const allowed = options.scopes?.get(facts.cluster)
  const rules = policy.rules
    .filter((rule) => allowed?.includes(rule.policy) ?? true)
    .map((rule) => explainRule(compileRule(rule), facts, nowMs))
  const rank = ({ matched, near, error }: RuleExplanation): number =>
    matched ? 0 : error !== undefined ? 1 : near ? 2 : 3
  return { decision, rules: rules.sort((a, b) => rank(a) - rank(b)) }
}

function explainRule(compiled: CompiledRule, facts: Facts, nowMs: number): RuleExplanation {
  const views = viewsOf(facts.request).filter(({ literal }) => literal || compiled.restricting)
  const all = views.map((view) => explainView(compiled, view, facts, nowMs))
  const [first] = all
  const best =
    all.find(({ matched }) => matched) ??
    all.find(({ error }) => error !== undefined) ??
    all.find(({ near }) => near) ??
    first
  return best ?? { rule: compiled.rule, matched: false, near: false, equivalent: false }
}

function explainView(
  { rule, conditions, body }: CompiledRule,
  view: View,
  facts: Facts,
  nowMs: number,
): RuleExplanation {
  const about = { rule, equivalent: !view.literal }
  const failing = conditions.find((condition) => !condition.test(view, facts))
  if (failing !== undefined) {
    const { dimension, words } = failing
    const found = dimension
      .values(view, facts)
      .filter((value) => dimension.kind !== 'exact' || !value.includes('*'))
    const near = !['verbs', 'resources', 'actions', 'nonResourceURLs'].includes(dimension.key)
    return {
      ...about,
      matched: false,
      near,
      failed: { condition: dimension.key, wanted: words, found },
    }
  }
  const outcome = body?.(view, facts, nowMs) ?? 'yes'
  if (outcome === 'yes') return { ...about, matched: true, near: true }
  const missed = { ...about, matched: false, near: true }
  if (outcome === 'no') return { ...missed, failed: bodyFailure(rule, facts) }
  const error = outcome === 'opaque' ? 'the body is neither JSON nor YAML' : outcome.error
  return { ...missed, error }
}

function bodyFailure({ match: { labels }, when = '' }: Rule, { request }: Facts): FailedCondition {
  if (labels === undefined) return { condition: 'when', wanted: [when], found: [] }
  const found = Object.entries(request.labels ?? {}).map(([key, value]) => `${key}=${value}`)
  const wanted = Object.entries(labels).map(([key, words]) => `${key}=${words.join('|')}`)
  return { condition: when === '' ? 'labels' : 'labels or when', wanted, found }
}

/** What is asked about; what is left out may be anything. */
export type WhoCanQuery = Pick<
  Case,
  'verb' | 'resource' | 'apiGroup' | 'namespace' | 'objectName' | 'cluster'
>

/** A rule that has something to say to a question, and to whom. */
export interface WhoCan {
  readonly rule: Rule
  readonly effect: Effect
  /** Conditions on the caller; none: everybody. */
  readonly who: Match
  /** Conditions on what the question leaves open. */
  readonly only: Match
  /** Its expression, which no analysis decides. */
  readonly when?: string
}

/** Who may do something, by the rules alone: the strongest effect first. */
export function whoCan(policy: PolicySet, query: WhoCanQuery): readonly WhoCan[] | CaseProblem {
  const facts = readCase(query)
  if ('problem' in facts) return facts
  const open = new Set<keyof Match>(WHO)
  const left = [
    query.namespace === undefined ? 'namespaces' : undefined,
    query.objectName === undefined ? 'resourceNames' : undefined,
    query.cluster === undefined ? 'clusters' : undefined,
    query.apiGroup === undefined ? 'apiGroups' : undefined,
  ] as const
  for (const key of left) if (key !== undefined) open.add(key)
  const views = viewsOf(facts.request)
  const answers = policy.rules.map(compileRule).flatMap((compiled): WhoCan[] => {
    const { rule, restricting } = compiled
    const conditions = compiled.conditions.filter(({ dimension }) => !open.has(dimension.key))
    const concerned = views.some(
      (view) =>
        (view.literal || restricting) &&
        conditions.every((condition) => condition.test(view, facts)),
    )
    if (!concerned) return []
    return [
      {
        rule,
        effect: rule.effect,
        who: pick(rule.match, WHO),
        only: pick(rule.match, [...left.filter((key) => key !== undefined), 'labels']),
        ...(rule.when === undefined ? {} : { when: rule.when }),
      },
    ]
  })
  const order = ['deny', 'breakGlass', 'hold', 'allow']
  return answers.sort((a, b) => order.indexOf(a.effect) - order.indexOf(b.effect))
}

function pick(match: Match, keys: readonly (keyof Match)[]): Match {
  return Object.fromEntries(
    Object.entries(match).filter(([key]) => keys.some((wanted) => wanted === key)),
  )
}

/** A request of the past. What its body was is not known. */
export interface PastRequest<T> {
  readonly facts: Facts
  readonly hadBody: boolean
  /** Given back with the change. */
  readonly about: T
}

/** A request that two policies decide differently, or may. */
export interface Change<T> {
  readonly about: T
  readonly facts: Facts
  /** A rule of either asks about the body: what follows is as if there had been none. */
  readonly dependsOnBody: boolean
  readonly old: Decision
  readonly new: Decision
}

/** Which requests a new policy would decide otherwise: another effect, other terms or obligations. */
export function diffPolicies<T>(
  old: PolicySet,
  fresh: PolicySet,
  requests: Iterable<PastRequest<T>>,
  options: DeciderOptions,
): readonly Change<T>[] {
  const deciders = [createDecider(old, options), createDecider(fresh, options)] as const
  // A rule that is in both asks both the same.
  const [known, expected] = [old.rules, fresh.rules].map((rules) => new Set(rules.map(textOf)))
  const asking = [...old.rules, ...fresh.rules]
    .filter((rule) => asksBody(rule) && !(known?.has(textOf(rule)) && expected?.has(textOf(rule))))
    .map(compileRule)
  const changes: Change<T>[] = []
  for (const { facts, hadBody, about } of requests) {
    const [before, after] = [deciders[0].decide(facts), deciders[1].decide(facts)]
    const dependsOnBody =
      hadBody &&
      asking.some(
        (rule) =>
          viewsOf(facts.request).some((view) => matchesWords(rule, view, facts)) &&
          !knows(rule, facts),
      )
    if (dependsOnBody || consequencesOf(before) !== consequencesOf(after))
      changes.push({ about, facts, dependsOnBody, old: before, new: after })
  }
  return changes
}

function textOf({ id, match, when, effect }: Rule): string {
  return JSON.stringify([id, match, when, effect])
}

function asksBody({ match, condition }: Rule): boolean {
  return match.labels !== undefined || condition?.uses.object === true
}

/** Labels may be known without the body. */
function knows({ rule }: CompiledRule, { request }: Facts): boolean {
  return rule.condition?.uses.object !== true && request.labels !== undefined
}

function consequencesOf({ effect, reason, approval, obligations }: Decision): string {
  return JSON.stringify([effect, reason, approval, obligations])
}
