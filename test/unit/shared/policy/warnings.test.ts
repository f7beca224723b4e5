import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { policyWarnings } from '../../../../shared/policy/warnings.ts'
import { policyOf } from '../../../support/policies.ts'

const warnings = (rules: string): readonly string[] => policyWarnings(policyOf(rules))
const rule = (id: string, match: string, effect: string, more = ''): string =>
  `- {id: ${id}, match: {${match}}, effect: ${effect}${more}}\n`

describe('policyWarnings', () => {
  const single: readonly (readonly [string, string, string])[] = [
    [
      'verbs that no request has',
      'verbs: [read], resources: [pods]',
      'no request has the verb read',
    ],
    [
      'sessions under another verb',
      'verbs: [get, create], resources: [pods/exec]',
      'have the verb connect',
    ],
    [
      'a namespace of what has none',
      'verbs: [get], resources: [nodes], namespaces: [x]',
      'have no namespace',
    ],
    [
      'a namespace of a path',
      'verbs: [get], nonResourceURLs: [/x], namespaces: [x]',
      'paths outside the resource API',
    ],
    [
      'Kubernetes verbs on a path',
      'verbs: [list], nonResourceURLs: [/x]',
      'no request has the verb list',
    ],
    [
      'discovery that is held',
      'verbs: [get], nonResourceURLs: ["/api*", /version]',
      'discovery is allowed or denied',
    ],
  ]
  for (const [what, match, message] of single) {
    it(`tells of ${what}`, () => {
      const found = warnings(rule('r', match, 'hold'))
      expect(found).to.have.length(1)
      expect(found[0])
        .to.match(/^policy\.yaml:4: rule r: /)
        .and.to.contain(message)
    })
  }

  it('says nothing about what is meant', () => {
    const fine = [
      'verbs: [connect], resources: [pods/exec]',
      'verbs: ["*"], resources: [pods/exec]',
      'verbs: [delete], resources: [namespaces], namespaces: [x]',
      'verbs: [get], resources: [nodes], namespaces: [""]',
      'verbs: [get, head], nonResourceURLs: [/metrics]',
      'actions: [exec]',
    ]
    for (const match of fine) expect(warnings(rule('r', match, 'hold')), match).to.deep.equal([])
  })

  it('tells of masks that are probably not meant', () => {
    const secrets = 'verbs: [get], resources: [secrets]'
    const shows = 'shows the values of Secrets to every caller'
    const none = ', mask: none'
    const rows: readonly (readonly [rule: string, ...warnings: string[]])[] = [
      [rule('r', secrets, 'allow', none), shows],
      [rule('r', 'verbs: ["*"], resources: ["*"]', 'allow', none), shows],
      [rule('r', 'actions: [read-secrets]', 'allow', none), shows],
      [rule('r', 'actions: [unmask]', 'allow', none), shows],
      [rule('r', secrets, 'hold', none)],
      [rule('r', secrets, 'allow')],
      [rule('r', `${secrets}, agents: [a]`, 'allow', none)],
      [rule('r', `${secrets}, serviceAccounts: [a/b]`, 'allow', none)],
      [rule('r', secrets, 'allow', `${none}, when: "subject.name == 'x'"`)],
      [rule('r', 'verbs: [create], resources: [secrets]', 'allow', none)],
      [rule('r', 'verbs: [get], resources: [pods]', 'allow', none)],
      [rule('r', 'verbs: [get], apiGroups: [apps], resources: ["*"]', 'allow', none)],
      [rule('r', 'verbs: [get], nonResourceURLs: [/x]', 'allow', none)],
      [rule('r', secrets, 'allow', ', mask: {restore: true}'), 'restore does nothing'],
      [rule('r', 'verbs: [update], resources: [secrets]', 'allow', ', mask: {restore: true}')],
      [rule('r', 'actions: [unmask]', 'hold'), 'denies what asks for unmask'],
      [rule('r', 'actions: [unmask]', 'hold', ', mask: strict'), 'denies what asks for unmask'],
      [rule('r', 'actions: [unmask]', 'deny')],
      [rule('r', 'actions: [unmask]', 'hold', none)],
      [rule('r', 'actions: [unmask], verbs: [list]', 'hold', none), 'never matches unmask'],
      [rule('r', 'actions: [unmask], verbs: [get]', 'hold', none)],
      [
        rule('r', 'actions: [unmask]', 'hold', `${none}, approval: {reuse: 5m}`),
        'reuse does not count for unmask',
      ],
      [rule('r', 'actions: [unmask]', 'hold', `${none}, approval: {reuse: once}`)],
      [
        rule('r', `${secrets}, agents: [a]`, 'allow', none) + rule('all', secrets, 'allow'),
        'mask: none never counts: the same is let through and masked by rule all (policy.yaml:5)',
      ],
      [rule('r', `${secrets}, agents: [a]`, 'hold', none) + rule('all', secrets, 'allow')],
      [
        rule('r', secrets, 'hold', ', mask: one') +
          'masks:\n- {name: one, everywhere: true}\n- {name: two, everywhere: true}\n',
        'policy.yaml:7: mask two: no rule names it',
      ],
    ]
    for (const [rules, ...expected] of rows) {
      const found = warnings(rules)
      expect(found, rules).to.have.length(expected.length)
      for (const [at, text] of expected.entries()) expect(found[at]).to.include(text)
    }
  })

  const PODS = 'verbs: [get, delete], resources: [pods]'
  it('tells of rules that a stronger one covers', () => {
    const wide = 'verbs: ["*"], resources: ["*"], agents: ["ci-*"]'
    const narrow =
      'verbs: [delete], resources: [pods/log], agents: ["ci-a*", ci-b], namespaces: [x]'
    for (const [strong, weak] of [
      ['deny', 'allow'],
      ['deny', 'hold'],
      ['hold', 'allow'],
      ['breakGlass', 'allow'],
    ] as const) {
      const found = warnings(rule('weak', narrow, weak) + rule('strong', wide, strong))
      expect(found.join(), `${strong} ${weak}`).to.contain(
        `rule weak: never decides: it is covered by the ${strong} of rule strong`,
      )
      expect(
        warnings(rule('weak', narrow, strong) + rule('strong', wide, weak)).join(),
      ).not.to.contain('never decides')
    }
    // One that captures decides on that, unless nothing goes ahead.
    const capturing = rule('weak', narrow, 'allow').replace('effect:', 'capture: {}, effect:')
    expect(capturing).to.contain('capture')
    expect(warnings(capturing + rule('strong', wide, 'hold'))).to.deep.equal([])
    expect(warnings(capturing + rule('strong', wide, 'deny')).join()).to.contain('never decides')
    // A rule that holds meets more spellings than one that breaks glass.
    expect(
      warnings(rule('weak', narrow, 'hold') + rule('strong', wide, 'breakGlass')),
    ).to.deep.equal([])
  })

  it('tells once of rules that are the same, and not of those with other terms', () => {
    expect(warnings(rule('a', PODS, 'hold') + rule('b', PODS, 'hold'))).to.deep.equal([
      'policy.yaml:5: rule b: adds nothing to rule a (policy.yaml:4)',
    ])
    const terms = ', approval: {quorums: [{group: x, count: 1}]}'
    expect(warnings(rule('a', PODS, 'hold') + rule('b', PODS, 'hold', terms))).to.deep.equal([])
  })

  it('does not take a condition for wider than it is', () => {
    const deny = (match: string, more = ''): readonly string[] =>
      warnings(
        rule('allow', `${PODS}, executables: ["/usr/**"]`, 'allow') +
          rule('deny', match, 'deny', more),
      )
    expect(deny(`${PODS}, executables: ["/usr/*"]`)).to.deep.equal([])
    expect(deny(`${PODS}, executables: ["/usr/**"]`)).to.have.length(1)
    expect(deny(`${PODS}, executables: ["**"]`)).to.have.length(1)
    expect(deny('verbs: [get], resources: [pods]')).to.deep.equal([])
    expect(deny('verbs: ["*"], resources: ["pods/*"]')).to.deep.equal([])
    expect(deny('verbs: ["*"], resources: [pods], agents: ["*"]')).to.deep.equal([])
    expect(deny(PODS, ', when: "cluster == \'x\'"')).to.deep.equal([])
    expect(deny('actions: [exec]')).to.deep.equal([])
  })

  it('compares patterns as they match', () => {
    const word = fc.string({
      unit: fc.constantFrom('a', 'b', '-', '*'),
      minLength: 1,
      maxLength: 5,
    })
    fc.assert(
      fc.property(
        word,
        word,
        fc.string({ unit: fc.constantFrom('a', 'b', '-'), maxLength: 6 }),
        (wide, narrow, name) => {
          const found = warnings(
            rule('allow', `${PODS}, agents: ["${narrow}"]`, 'allow') +
              rule('deny', `${PODS}, agents: ["${wide}"]`, 'deny'),
          )
          const matches = (pattern: string): boolean =>
            new RegExp(`^${pattern.replaceAll(/\*+/g, '.*')}$`).test(name)
          if (found.length > 0 && matches(narrow)) expect(matches(wide)).to.equal(true)
        },
      ),
      { numRuns: 500 },
    )
  })
})
