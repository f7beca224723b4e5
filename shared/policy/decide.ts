/**
 * The decision on one request. Pure: what it is given has been verified by the caller, and nothing in it that a process
 * can set itself is looked at. What no rule matches is denied; what cannot be evaluated is denied too.
 *
 * | deny | cannot be evaluated | discovery | breakGlass | hold | allow | effect |
 * |---|---|---|---|---|---|---|
 * | yes | any | any | any | any | any | deny |
 * | no | yes | no | any | any | any | deny |
 * | no | of no deny rule | yes | any | any | any | allow |
 * | no | no | no | yes | any | any | breakGlass |
 * | no | no | no | no | yes | any | hold |
 * | no | no | no | no | no | yes | allow |
 * | no | no | no | no | no | no | deny |
 *
 * Where the request asks to see what is hidden (action `unmask`), a rule among those that decide which does not say
 * `mask: none` turns any other effect into deny.
 */
import type { Verdict } from '../agent-tag.ts'
import type { RequestAttributes } from '../kubernetes/attributes.ts'
import type { Reason } from '../reasons.ts'
import type { ApprovalTerms, Decider, Decision, Effect } from './decision.ts'
import type { Facts } from './facts.ts'
import { BUILTIN_PREFIX } from './language.ts'
import { showsAll } from './mask-profiles.ts'
import { compileRule } from './matching.ts'
import type { CompiledRule } from './matching.ts'
import type { PolicySet, Rule } from './policy-set.ts'
import { createRuleIndex, emptyBits, forEachBit, setBit } from './rule-index.ts'
import type { Bits } from './rule-index.ts'
import { approvalTerms, captureOf, DEFAULT_TERMS, NO_OBLIGATIONS, obligationsOf } from './terms.ts'
import { viewsOf } from './views.ts'
import type { View } from './views.ts'

/** Which policies hold for a cluster; a Map is one. */
export interface PolicyScopes {
  get(cluster: string): readonly string[] | undefined
}

/** How a decider is set up. */
export interface DeciderOptions {
  /** Verdicts that get as far as the rules. */
  readonly acceptVerdicts: readonly Verdict[]
  /** Names of the policies that hold for a cluster; all of them for one that is not in it. Asked at each decision. */
  readonly scopes?: PolicyScopes
  /** Terms of rules that give none. */
  readonly terms?: ApprovalTerms
  /** Milliseconds since the epoch, for conditions that ask for the time. */
  readonly now?: () => number
}

/** Rule id under which discovery, `/version`, `/openapi` and self-reviews are let through. */
export const DISCOVERY_RULE = `${BUILTIN_PREFIX}discovery`
const DISCOVERY_PATHS = /^\/(?:api|apis|version|openapi|healthz|livez|readyz)(?:\/|$)|^\/$/
const SELF_REVIEWS: ReadonlySet<string> = new Set([
  'authorization.k8s.io/selfsubjectaccessreviews',
  'authorization.k8s.io/selfsubjectrulesreviews',
  'authentication.k8s.io/selfsubjectreviews',
])

/** A rule that matched, with the view by which it did. */
interface Hit {
  /** Its place in the policy. */
  readonly at: number
  readonly rule: Rule
  readonly view: View
}

/** A rule that could not be evaluated. */
interface Failure extends Hit {
  readonly reason: 'body_opaque' | 'policy_error'
}

interface Found {
  readonly hits: readonly Hit[]
  readonly failures: readonly Failure[]
}

/** Compiles a policy. The decider never throws. */
export function createDecider(policy: PolicySet, options: DeciderOptions): Decider {
  const { acceptVerdicts, scopes, terms = DEFAULT_TERMS, now = Date.now } = options
  const accepted = new Set<Verdict>(acceptVerdicts)
  const search = createSearch(policy.rules.map(compileRule), scopes)
  return {
    policyDigest: policy.digest,
    decide(facts): Decision {
      const verdict = facts.process?.verdict
      const made =
        verdict !== undefined && !accepted.has(verdict)
          ? refuseVerdict(verdict)
          : conclude(search(facts, now()), facts.request, terms)
      return { ...made, policyDigest: policy.digest }
    },
  }
}

type Made = Omit<Decision, 'policyDigest'>

/** @returns what finds the rules that match, in the order of the policy */
function createSearch(
  rules: readonly CompiledRule[],
  scopes: DeciderOptions['scopes'],
): (facts: Facts, nowMs: number) => Found {
  const index = createRuleIndex(rules)
  const bitsOf = (wanted: (rule: CompiledRule) => boolean): Bits => {
    const bits = emptyBits(rules.length)
    for (const [at, rule] of rules.entries()) if (wanted(rule)) setBit(bits, at)
    return bits
  }
  const all = bitsOf(() => true)
  const restricting = bitsOf((rule) => rule.restricting)
  // by the list itself: clusters come and go, and a changed one has another list
  const scoped = new WeakMap<readonly string[], Bits>()
  const scopeOf = (cluster: string): Bits => {
    const policies = scopes?.get(cluster)
    if (policies === undefined) return all
    const known = scoped.get(policies) ?? bitsOf(({ rule }) => policies.includes(rule.policy))
    scoped.set(policies, known)
    return known
  }
  return (facts, nowMs) => {
    const [literal, ...equivalents] = viewsOf(facts.request)
    const callers = scopeOf(facts.cluster).slice()
    index.narrowByCaller(callers, literal, facts)
    const hits = new Map<CompiledRule, Hit>()
    const failures: Failure[] = []
    const look = (view: View): void => {
      const bits = callers.slice()
      if (!view.literal)
        for (const [at, word] of restricting.entries()) bits[at] = (bits[at] ?? 0) & word
      index.narrowByRequest(bits, view, facts)
      forEachBit(bits, (at) => {
        const compiled = rules[at]
        if (compiled === undefined || hits.has(compiled)) return
        if (!compiled.residual.every((condition) => condition.test(view, facts))) return
        const { rule } = compiled
        const outcome = compiled.body?.(view, facts, nowMs) ?? 'yes'
        if (outcome === 'yes') hits.set(compiled, { at, rule, view })
        else if (outcome !== 'no')
          failures.push({
            at,
            rule,
            view,
            reason: outcome === 'opaque' ? 'body_opaque' : 'policy_error',
          })
      })
    }
    look(literal)
    if (equivalents.length === 0) return { hits: [...hits.values()], failures }
    for (const view of equivalents) look(view)
    const inOrder = (a: Hit, b: Hit): number => a.at - b.at
    return { hits: [...hits.values()].sort(inOrder), failures: failures.sort(inOrder) }
  }
}

function refuseVerdict(verdict: Verdict): Made {
  const reasons: Readonly<Record<Verdict, Reason>> = {
    exclusive: 'caller_not_accepted',
    relay: 'caller_not_accepted',
    container_only: 'caller_not_accepted',
    shared: 'caller_shared',
    unidentified: 'caller_unidentified',
  }
  return {
    effect: 'deny',
    rules: [],
    explanation: `the caller was identified as ${verdict}, which the broker does not accept`,
    reason: reasons[verdict],
    obligations: NO_OBLIGATIONS,
  }
}

const VERBS_OF_EFFECT: Readonly<Record<Effect, string>> = {
  deny: 'denies',
  breakGlass: 'breaks glass for',
  hold: 'holds',
  allow: 'allows',
}

/** See the table at the head of the file. */
function conclude(
  { hits, failures }: Found,
  request: RequestAttributes,
  terms: ApprovalTerms,
): Made {
  const of = (effect: Effect): readonly Hit[] => hits.filter(({ rule }) => rule.effect === effect)
  const denying = of('deny')
  if (denying.length > 0) {
    const because = explain(denying, 'deny', request)
    return { effect: 'deny', ...because, reason: 'policy_denied', obligations: NO_OBLIGATIONS }
  }
  const discovery = isDiscovery(request)
  const [failure] = discovery ? failures.filter(({ rule }) => rule.effect === 'deny') : failures
  if (failure !== undefined) return fail(failure, request)
  if (discovery) {
    const explanation = `${describeRequest(request)} is discovery`
    return { effect: 'allow', rules: [DISCOVERY_RULE], explanation, obligations: NO_OBLIGATIONS }
  }
  for (const effect of ['breakGlass', 'hold', 'allow'] as const) {
    const deciding = of(effect)
    if (deciding.length === 0) continue
    const unmask = request.actions.includes('unmask')
    const masked = unmask ? deciding.find(({ rule }) => !showsAll(rule.masking)) : undefined
    if (masked !== undefined) return refuseUnmask(masked.rule, request)
    const rules = deciding.map(({ rule }) => rule)
    const owed = obligationsOf(rules)
    const obligations = { ...owed, ...captureOf(hits.map(({ rule }) => rule)) }
    return {
      effect,
      ...explain(deciding, effect, request),
      ...(effect === 'allow' ? {} : { approval: approvalFor(rules, terms, unmask) }),
      obligations,
    }
  }
  return {
    effect: 'deny',
    rules: [],
    explanation: `no rule allows ${describeRequest(request)}`,
    reason: 'policy_no_match',
    obligations: NO_OBLIGATIONS,
  }
}

/** Whoever is shown a value is shown it once: an approval of it is never used again. */
function approvalFor(
  rules: readonly Rule[],
  defaults: ApprovalTerms,
  unmask: boolean,
): ApprovalTerms {
  const terms = approvalTerms(rules, defaults)
  return unmask ? { ...terms, reuseSeconds: 0 } : terms
}

function refuseUnmask(rule: Rule, request: RequestAttributes): Made {
  return {
    effect: 'deny',
    rules: [rule.id],
    explanation: `rule "${rule.id}" hides values in the answer to ${describeRequest(request)}: it does not say mask: none`,
    reason: 'unmask_denied',
    obligations: NO_OBLIGATIONS,
  }
}

/** Says nothing of why it failed: the library's messages can hold values of the body. */
function fail({ rule, reason }: Failure, request: RequestAttributes): Made {
  const why =
    reason === 'body_opaque'
      ? 'asks about the body, which is neither JSON nor YAML'
      : 'has a condition that cannot be evaluated'
  const explanation = `rule "${rule.id}" ${why}, for ${describeRequest(request)}`
  return { effect: 'deny', rules: [rule.id], explanation, reason, obligations: NO_OBLIGATIONS }
}

function explain(
  hits: readonly Hit[],
  effect: Effect,
  request: RequestAttributes,
): { rules: readonly string[]; explanation: string } {
  const [first] = hits
  const why = first?.rule.reason === undefined ? '' : `: ${first.rule.reason}`
  const what =
    first === undefined || first.view.literal
      ? describeRequest(request)
      : `${describeRequest(request)}, which amounts to ${describeView(first.view)}`
  return {
    rules: hits.map(({ rule }) => rule.id),
    explanation: `rule "${first?.rule.id ?? ''}" ${VERBS_OF_EFFECT[effect]} ${what}${why}`,
  }
}

/** `delete deployments.apps web in shop` */
export function describeRequest(request: RequestAttributes): string {
  return describeView(viewsOf({ ...request, equivalents: [] })[0])
}

function describeView({ verb, apiGroup, resource, namespace, name, path }: View): string {
  if (resource === undefined) return `${verb} ${path}`
  const group = apiGroup === '' ? '' : `.${apiGroup}`
  const object = name === '' ? '' : ` ${name}`
  const place = namespace === '' ? '' : ` in ${namespace}`
  return `${verb} ${resource}${group}${object}${place}`
}

/** Requests that every client sends before its own, under short deadlines: never held. */
export function isDiscovery({ info, path }: RequestAttributes): boolean {
  if (!info.isResourceRequest)
    return (info.verb === 'get' || info.verb === 'head') && isDiscoveryPath(path)
  return (
    info.verb === 'create' &&
    info.subresource === '' &&
    SELF_REVIEWS.has(`${info.apiGroup}/${info.resource}`)
  )
}

/** Whether everything at a path outside the resource API is discovery. */
export function isDiscoveryPath(path: string): boolean {
  return DISCOVERY_PATHS.test(path)
}
