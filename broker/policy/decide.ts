/**
 * The decision on one request. `deny` beats `hold` beats `allow`; no rule means `deny`. Pure: what it is given
 * has been verified by the caller, and nothing in it that a process can set itself is looked at.
 *
 * | a deny rule matches | a hold rule matches | an allow rule matches | discovery | effect |
 * |---|---|---|---|---|
 * | yes | any | any | any | deny |
 * | no | any | any | yes | allow |
 * | no | yes | any | no | hold |
 * | no | no | yes | no | allow |
 * | no | no | no | no | deny |
 */
import type { Verdict } from '../../shared/agent-tag.ts'
import { isConnect, resourcePath } from '../../shared/kubernetes/request-info.ts'
import type { RequestInfo } from '../../shared/kubernetes/request-info.ts'
import type { Reason } from '../../shared/reasons.ts'
import type { DecisionRecord } from '../ledger/entry.ts'
import { namePattern, pathPattern } from './globs.ts'
import { BUILTIN_PREFIX } from './language.ts'
import type { PolicyDocument, Rule } from './language.ts'

/** What a decision is made on; all of it verified. */
export interface Facts {
  readonly cluster: string
  readonly namespace: string
  readonly serviceAccount: string
  readonly verdict: Verdict
  readonly exe: string | undefined
  /** Name of the process, and of those above it, from the parent outwards (identity/naming.ts). */
  readonly agent: string
  readonly ancestors: readonly string[]
  readonly info: RequestInfo
  /** Path without query, for requests outside the resource API. */
  readonly path: string
}

/** Decides on requests by one policy. */
export interface Decider {
  decide(facts: Facts): DecisionRecord
}

/** Rule id under which discovery, `/version`, `/openapi` and self-reviews are let through. */
const DISCOVERY_RULE = `${BUILTIN_PREFIX}discovery`
const DISCOVERY_PATHS = /^\/(?:api|apis|version|openapi|healthz|livez|readyz)(?:\/|$)|^\/$/
const SELF_REVIEWS: ReadonlySet<string> = new Set([
  'authorization.k8s.io/selfsubjectaccessreviews',
  'authorization.k8s.io/selfsubjectrulesreviews',
  'authentication.k8s.io/selfsubjectreviews',
])
/** Verb of exec, attach, port-forward and proxy in policy, whatever the HTTP method: a WebSocket exec is a GET. */
const CONNECT_VERB = 'connect'

type Test = (facts: Facts, verb: string) => boolean

interface CompiledRule {
  readonly rule: Rule
  readonly matches: Test
}

/** Compiles a policy. @param acceptVerdicts - verdicts that get as far as the rules */
export function createDecider(policy: PolicyDocument, acceptVerdicts: readonly Verdict[]): Decider {
  const compiled: readonly CompiledRule[] = policy.rules.map((rule) => ({
    rule,
    matches: compile(rule),
  }))
  const accepted = new Set<Verdict>(acceptVerdicts)
  return {
    decide(facts): DecisionRecord {
      if (!accepted.has(facts.verdict)) return refuseVerdict(facts.verdict, policy.digest)
      const verb = policyVerb(facts.info)
      const hits = compiled.filter(({ matches }) => matches(facts, verb)).map(({ rule }) => rule)
      return conclude(hits, facts, verb, policy.digest)
    },
  }
}

/** The verb that rules are matched against. */
export function policyVerb(info: RequestInfo): string {
  return isConnect(info) ? CONNECT_VERB : info.verb
}

function refuseVerdict(verdict: Verdict, policyDigest: string): DecisionRecord {
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
    policyDigest,
    explanation: `the caller was identified as ${verdict}, which the broker does not accept`,
    reason: reasons[verdict],
  }
}

function conclude(
  hits: readonly Rule[],
  facts: Facts,
  verb: string,
  policyDigest: string,
): DecisionRecord {
  const what = describe(facts, verb)
  const of = (effect: Rule['effect']): readonly Rule[] =>
    hits.filter((rule) => rule.effect === effect)
  const denying = of('deny')
  if (denying.length > 0) {
    return {
      effect: 'deny',
      ...because(denying, `denies ${what}`),
      policyDigest,
      reason: 'policy_denied',
    }
  }
  if (isDiscovery(facts.info, facts.path)) {
    return {
      effect: 'allow',
      rules: [DISCOVERY_RULE],
      policyDigest,
      explanation: `${what} is discovery`,
    }
  }
  const holding = of('hold')
  if (holding.length > 0)
    return { effect: 'hold', ...because(holding, `holds ${what}`), policyDigest }
  const allowing = of('allow')
  if (allowing.length > 0)
    return { effect: 'allow', ...because(allowing, `allows ${what}`), policyDigest }
  return {
    effect: 'deny',
    rules: [],
    policyDigest,
    explanation: `no rule allows ${what}`,
    reason: 'policy_no_match',
  }
}

function because(
  rules: readonly Rule[],
  act: string,
): { rules: readonly string[]; explanation: string } {
  const [first] = rules
  const why = first?.reason === undefined ? '' : `: ${first.reason}`
  return { rules: rules.map(({ id }) => id), explanation: `rule "${first?.id ?? ''}" ${act}${why}` }
}

function describe({ info, path }: Facts, verb: string): string {
  if (!info.isResourceRequest) return `${verb} ${path}`
  const group = info.apiGroup === '' ? '' : `.${info.apiGroup}`
  const name = info.name === '' ? '' : ` ${info.name}`
  const place = info.namespace === '' ? '' : ` in ${info.namespace}`
  return `${verb} ${resourcePath(info)}${group}${name}${place}`
}

/** Requests that every client sends before its own, under short deadlines: never held. */
function isDiscovery(info: RequestInfo, path: string): boolean {
  if (!info.isResourceRequest)
    return (info.verb === 'get' || info.verb === 'head') && DISCOVERY_PATHS.test(path)
  return (
    info.verb === 'create' &&
    info.subresource === '' &&
    SELF_REVIEWS.has(`${info.apiGroup}/${info.resource}`)
  )
}

function compile({ match, effect }: Rule): Test {
  const tests: Test[] = []
  const add = (
    words: readonly string[] | undefined,
    make: (words: readonly string[]) => Test,
  ): void => {
    if (words !== undefined) tests.push(make(words))
  }
  add(match.verbs, (words) => oneOf(words, (_facts, verb) => verb))
  add(match.clusters, (words) => oneOf(words, ({ cluster }) => cluster))
  add(match.apiGroups, (words) => oneOf(words, ({ info }) => info.apiGroup))
  add(match.namespaces, (words) => oneOf(words, ({ info }) => info.namespace))
  add(match.resourceNames, (words) => nameTest(words, effect))
  add(match.serviceAccounts, serviceAccountTest)
  add(match.executables, executableTest)
  add(match.agents, agentTest)
  add(match.ancestors, ancestorTest)
  add(match.resources, resourceTest)
  add(match.nonResourceURLs, nonResourceTest)
  return (facts, verb) => tests.every((test) => test(facts, verb))
}

function oneOf(words: readonly string[], value: (facts: Facts, verb: string) => string): Test {
  if (words.includes('*')) return () => true
  const set = new Set(words)
  return (facts, verb) => set.has(value(facts, verb))
}

/**
 * `[scheme:]NAME[:port]` is how a proxied pod, service or node is named (apimachinery, util/net SplitSchemeNamePort). A rule
 * that restricts covers every spelling of a name it lists; a rule that allows covers the spelling it lists.
 */
function nameTest(words: readonly string[], effect: Rule['effect']): Test {
  const asSent = oneOf(words, ({ info }) => info.name)
  if (effect === 'allow') return asSent
  if (words.includes('*')) return asSent
  const listed = new Set(words)
  return (facts, verb) => {
    const { name, subresource, verb: own } = facts.info
    if (asSent(facts, verb)) return true
    const proxied = subresource === 'proxy' || own === 'proxy'
    return proxied && name.split(':').some((part) => listed.has(part))
  }
}

function serviceAccountTest(words: readonly string[]): Test {
  const pairs = words.map((word) => word.split('/'))
  return ({ namespace, serviceAccount }) =>
    pairs.some(
      ([wantedNamespace, wantedName]) =>
        (wantedNamespace === '*' || wantedNamespace === namespace) &&
        (wantedName === '*' || wantedName === serviceAccount),
    )
}

function executableTest(words: readonly string[]): Test {
  const patterns = words.map(pathPattern)
  return ({ exe }) => exe !== undefined && patterns.some((pattern) => pattern.test(exe))
}

function agentTest(words: readonly string[]): Test {
  const patterns = words.map(namePattern)
  return ({ agent }) => patterns.some((pattern) => pattern.test(agent))
}

function ancestorTest(words: readonly string[]): Test {
  const patterns = words.map(namePattern)
  return ({ ancestors }) => ancestors.some((name) => patterns.some((pattern) => pattern.test(name)))
}

function resourceTest(words: readonly string[]): Test {
  const all = words.includes('*')
  const exact = new Set(words)
  const prefixes = words.filter((word) => word.endsWith('/*')).map((word) => word.slice(0, -1))
  const suffixes = words.filter((word) => word.startsWith('*/')).map((word) => word.slice(1))
  return ({ info }) => {
    if (!info.isResourceRequest) return false
    const resource = resourcePath(info)
    return (
      all ||
      exact.has(resource) ||
      prefixes.some((prefix) => resource.startsWith(prefix)) ||
      suffixes.some((suffix) => resource.endsWith(suffix))
    )
  }
}

function nonResourceTest(words: readonly string[]): Test {
  const exact = new Set(words)
  const prefixes = words.filter((word) => word.endsWith('*')).map((word) => word.slice(0, -1))
  return ({ info, path }) =>
    !info.isResourceRequest &&
    (exact.has(path) || prefixes.some((prefix) => path.startsWith(prefix)))
}
