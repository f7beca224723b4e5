import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { ACTIONS } from '../../shared/kubernetes/attributes.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import { createDecider, isDiscovery } from '../../shared/policy/decide.ts'
import { EFFECTS } from '../../shared/policy/decision.ts'
import type { Facts } from '../../shared/policy/facts.ts'
import { compileRule, matchesWords } from '../../shared/policy/matching.ts'
import { STANDARD_MASKING } from '../../shared/policy/masking.ts'
import type { PolicySet, Rule } from '../../shared/policy/policy-set.ts'
import { viewsOf } from '../../shared/policy/views.ts'

const RUNS = 1500

const VERBS = ['get', 'list', 'delete', 'deletecollection', 'create', 'connect']
const RESOURCES = ['pods', 'pods/log', 'pods/exec', 'services/proxy', 'secrets', 'nodes']
const NAMES = ['', 'a', 'ab', 'b', 'http:a:80']
const SPACES = ['', 'x', 'xy', 'y']
const AGENTS = ['scanner', 'ci-1', 'ci-2', 'unregistered/c/sh']
const PATHS = ['/usr/bin/node', '/usr/bin/python3', '/opt/a/b']

const some = (words: readonly string[]): fc.Arbitrary<string[]> =>
  fc.uniqueArray(fc.constantFrom(...words), { minLength: 1, maxLength: 3 })

const match = fc
  .record(
    {
      clusters: some(['prod', 'test', '*', 'p*']),
      agents: some([...AGENTS, '*', 'ci-*']),
      ancestors: some([...AGENTS, 'ci-*']),
      executables: some([...PATHS, '/usr/bin/*', '/opt/**']),
      sha256: some(['a', 'b']),
      containers: some(['c', 'd', '*']),
      images: some(['r/i', 'r/*']),
      serviceAccounts: some(['x/a', '*/a', 'x/*', '*/*', 'y/b']),
      subjects: some(['s', 't*', '*']),
      groups: some(['g', 'h', '*']),
      repositories: some(['o/r', 'o/*', '*']),
      refs: some(['refs/heads/main', 'refs/tags/*', '*']),
      verbs: some([...VERBS, '*']),
      actions: fc.uniqueArray(fc.constantFrom(...ACTIONS.slice(0, 4)), { minLength: 1 }),
      apiGroups: some(['', 'apps', '*']),
      resources: some([...RESOURCES, '*', 'pods/*', '*/exec', '*/proxy']),
      resourceNames: some(['a', 'b', 'a*', '*']),
      namespaces: fc.uniqueArray(fc.constantFrom('', 'x', 'y', 'x*', '*'), {
        minLength: 1,
        maxLength: 3,
      }),
      nonResourceURLs: some(['/api', '/metrics', '/m*', '*']),
      uids: fc.uniqueArray(fc.constantFrom(0, 1000), { minLength: 1 }),
      labels: fc.constant({ team: ['t'] }),
    },
    { requiredKeys: [] },
  )
  // Rules with all conditions at once match nothing; a few of them are what policies have.
  .chain((full) =>
    fc
      .subarray(Object.entries(full), { maxLength: 4 })
      .map((entries) => Object.fromEntries(entries)),
  )

const rules: fc.Arbitrary<readonly Rule[]> = fc
  .array(fc.record({ match, effect: fc.constantFrom(...EFFECTS) }), { maxLength: 80 })
  .map((all) =>
    all.map((rule, index): Rule => ({
      ...rule,
      id: `r${index}`,
      policy: 'p',
      file: 'p.yaml',
      line: index,
      condition: undefined,
      masking: STANDARD_MASKING,
    })),
  )

const place = fc.record({
  verb: fc.constantFrom(...VERBS),
  apiGroup: fc.constantFrom('', 'apps', 'batch'),
  resource: fc.constantFrom(...RESOURCES),
  namespace: fc.constantFrom(...SPACES),
  name: fc.constantFrom(...NAMES),
})

const request: fc.Arbitrary<RequestAttributes> = fc
  .record({
    place,
    isResourceRequest: fc.boolean(),
    path: fc.constantFrom('/api', '/metrics', '/mx', '/logs'),
    actions: fc.subarray([...ACTIONS.slice(0, 5)], { maxLength: 2 }),
    equivalents: fc.array(place, { maxLength: 2 }),
    labels: fc.option(fc.constantFrom<Record<string, string>>({}, { team: 't' }, { team: 'u' })),
    opaque: fc.boolean(),
  })
  .map(({ place: at, isResourceRequest, path, actions, equivalents, labels, opaque }) => {
    const [resource = '', subresource = ''] = isResourceRequest ? at.resource.split('/') : []
    return {
      info: {
        isResourceRequest,
        verb: at.verb === 'connect' ? 'create' : at.verb,
        apiGroup: isResourceRequest ? at.apiGroup : '',
        apiVersion: 'v1',
        namespace: isResourceRequest ? at.namespace : '',
        resource,
        subresource,
        name: isResourceRequest ? at.name : '',
      },
      path,
      policyVerb: at.verb,
      actions,
      equivalents: isResourceRequest ? equivalents : [],
      parameters: { dryRun: false },
      objectName: isResourceRequest ? at.name : '',
      ...(labels === null ? {} : { labels }),
      body: opaque
        ? { state: 'opaque' as const, contentType: 'x' }
        : labels === null
          ? { state: 'none' as const }
          : { state: 'read' as const, value: {} },
    }
  })

const unknown = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(value, { nil: undefined })

const facts: fc.Arbitrary<Facts> = fc.record({
  cluster: fc.constantFrom('prod', 'test', 'other'),
  process: unknown(
    fc.record({
      verdict: fc.constant('exclusive' as const),
      namespace: fc.constantFrom('x', 'y'),
      serviceAccount: fc.constantFrom('a', 'b'),
      agent: fc.constantFrom(...AGENTS),
      ancestors: fc.array(fc.constantFrom(...AGENTS), { maxLength: 3 }),
      exe: unknown(fc.constantFrom(...PATHS)),
      sha256: unknown(fc.constantFrom('a', 'b', 'c')),
      uid: unknown(fc.constantFrom(0, 1000, 2000)),
      container: unknown(fc.constantFrom('c', 'e')),
      image: unknown(fc.constantFrom('r/i', 'r/j', 'r/i/j')),
    }),
  ),
  subject: unknown(
    fc.record({
      name: fc.constantFrom('s', 'tt'),
      groups: fc.subarray(['g', 'h', 'i']),
      ci: unknown(
        fc.record({
          repository: fc.constantFrom('o/r', 'o/s', 'p/r'),
          ref: fc.constantFrom('refs/heads/main', 'refs/tags/v1'),
          run: fc.constant('1'),
        }),
      ),
    }),
  ),
  request,
})

/** Ids of the rules that decide, and the effect: rule by rule, without an index. */
function plainly(policy: PolicySet, given: Facts): unknown {
  const matched: Rule[] = []
  const failed: Rule[] = []
  for (const compiled of policy.rules.map(compileRule)) {
    const outcomes = viewsOf(given.request)
      .filter((view) => matchesWords(compiled, view, given))
      .map((view) => compiled.body?.(view, given, 0) ?? 'yes')
    if (outcomes.includes('yes')) matched.push(compiled.rule)
    if (outcomes.includes('opaque')) failed.push(compiled.rule)
  }
  const of = (effect: string): readonly string[] =>
    matched.filter((rule) => rule.effect === effect).map(({ id }) => id)
  if (of('deny').length > 0) return { effect: 'deny', reason: 'policy_denied', rules: of('deny') }
  const discovery = isDiscovery(given.request)
  const [failure] = failed.filter(({ effect }) => effect === 'deny' || !discovery)
  if (failure !== undefined) return { effect: 'deny', reason: 'body_opaque', rules: [failure.id] }
  if (discovery) return { effect: 'allow', reason: undefined, rules: ['builtin:discovery'] }
  for (const effect of ['breakGlass', 'hold', 'allow'])
    if (of(effect).length > 0) return { effect, reason: undefined, rules: of(effect) }
  return { effect: 'deny', reason: 'policy_no_match', rules: [] }
}

describe('the rule index', () => {
  it('comes to what every rule by itself comes to', () => {
    const effects = new Set<string>()
    fc.assert(
      fc.property(rules, fc.array(facts, { minLength: 1, maxLength: 10 }), (all, requests) => {
        const policy = { rules: all, profiles: [], examples: [], digest: '' }
        const decider = createDecider(policy, { acceptVerdicts: ['exclusive'] })
        for (const given of requests) {
          const { effect, reason, rules: ids } = decider.decide(given)
          effects.add(`${effect} ${reason ?? ''}`)
          expect({ effect, reason, rules: ids }).to.deep.equal(plainly(policy, given))
        }
      }),
      { numRuns: RUNS },
    )
    // The generators reach every way a decision can end.
    expect(effects.size).to.equal(6)
  }).timeout(60_000)
})
