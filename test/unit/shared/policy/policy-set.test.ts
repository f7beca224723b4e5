import { expect } from 'chai'
import { describe, it } from 'mocha'
import { readFileSync } from 'node:fs'
import { policyJsonSchema } from '../../../../shared/policy/language.ts'
import { readPolicySet } from '../../../../shared/policy/policy-set.ts'
import { HEAD, policyOf, problemsOf } from '../../../support/policies.ts'

const problems = (text: string): readonly string[] => problemsOf({ 'p.yaml': text })
const GOOD = '- {id: a, match: {verbs: [get], resources: [x]}, effect: allow}\n'

describe('readPolicySet', () => {
  it('tells every problem of a file with its line, schema and meaning in one go', () => {
    const found = problems(`${HEAD}- id: a
  match: {verbs: [get], resorces: [pods]}
  effect: allow
- id: b
  match: {verbs: [get], resources: [pods]}
  effect: permit
- id: "builtin:x"
  match: {verbs: [], resources: [pods]}
  effect: deny
- id: c
  match: {verbs: [get], resources: [pods]}
  when: request.verb ==
  effect: deny
- id: d
  match: {resources: [pods]}
  effect: deny
`)
    expect(found.map((line) => line.split(':')[1])).to.deep.equal([
      '5',
      '9',
      '10',
      '11',
      '15',
      '18',
    ])
    expect(found.join('\n'))
      .to.contain('resorces')
      .and.to.contain('effect')
      .and.to.contain('rules.3.when')
  })

  it('tells the problems of all files at once, several of broken YAML', () => {
    const found = problemsOf({
      'a.yaml': `${HEAD}- {id: a, id: b}\n- {id: c, id: d}\n`,
      'b.yaml': 'kind: ConfigMap\n',
      'c.yaml': HEAD + GOOD,
    })
    expect(found.slice(0, 2).map((line) => line.split(':').slice(0, 2))).to.deep.equal([
      ['a.yaml', '4'],
      ['a.yaml', '5'],
    ])
    expect(found.filter((line) => line.startsWith('b.yaml:'))).not.to.have.length(0)
    expect(found.filter((line) => line.startsWith('c.yaml:'))).to.have.length(0)
  })

  it('finds an id that is in two files', () => {
    expect(problemsOf({ 'a.yaml': HEAD + GOOD, 'b.yaml': HEAD + GOOD })).to.deep.equal([
      'b.yaml:4: the id a is there twice (a.yaml:4)',
    ])
  })

  it('keeps the order of the files, names the policies, and digests names and bytes', () => {
    const a = { file: 'dir/a.yaml', text: HEAD + GOOD }
    const b = {
      file: 'dir/b.yaml',
      text: `metadata: {name: own}\n${HEAD}${GOOD.replace('id: a', 'id: b')}`,
    }
    const read = readPolicySet([a, b])
    if ('problems' in read) throw new Error(read.problems.join('\n'))
    expect(read.rules.map(({ id, policy, line }) => [id, policy, line])).to.deep.equal([
      ['a', 'a', 4],
      ['b', 'own', 5],
    ])
    const digest = (...sources: Parameters<typeof readPolicySet>[0]): string => {
      const again = readPolicySet(sources)
      return 'problems' in again ? 'bad' : again.digest
    }
    expect(digest(a, b))
      .to.equal(read.digest)
      .and.to.match(/^[0-9a-f]{64}$/)
    // Where the folder lies is no part of the policy.
    expect(digest({ ...a, file: 'elsewhere/a.yaml' }, b)).to.equal(read.digest)
    expect(digest({ ...a, file: 'dir/c.yaml' }, b)).not.to.equal(read.digest)
    expect(digest({ ...a, text: `${a.text}# x\n` }, b)).not.to.equal(read.digest)
  })

  const rule = (match: string, more = ''): string =>
    `${HEAD}- {id: a, match: {${match}}, effect: allow${more}}\n`
  const M = 'verbs: [get], resources: [x]'
  const BAD: readonly (readonly [string, string, string])[] = [
    ['an id twice', HEAD + GOOD + GOOD, 'twice'],
    [
      'a rule about nothing',
      rule('verbs: [get]'),
      'neither resources nor nonResourceURLs nor actions',
    ],
    ['a rule about both', rule(`${M}, nonResourceURLs: [/]`), 'make two rules'],
    ['a rule without verbs', rule('resources: [x]'), 'no verbs'],
    ['broken YAML', `${HEAD}- {id: a`, ':4: '],
    ['a key twice', `${HEAD}- {id: a, id: b}\n`, 'unique'],
    ['another kind', 'apiVersion: v1\nkind: ConfigMap\n', 'kind'],
    ['nothing', '', 'a policy is a mapping'],
    ['an alias bomb', `${HEAD}- &a {id: a, match: {${M}}, effect: allow}\n- *a\n`, 'aliases'],
    ['an unknown action', rule('actions: [explode]'), 'actions'],
    ['a pattern among verbs', rule('verbs: ["g*"], resources: [x]'), 'stands alone'],
    [
      'a resource that is spelled wrongly',
      rule('verbs: [get], resources: ["*/*"]'),
      'expected RESOURCE',
    ],
    ['a star within a path', rule('verbs: [get], nonResourceURLs: ["/a/*/b"]'), 'only at its end'],
    [
      'terms of a rule that allows',
      rule(M, ', approval: {expires: 5m}'),
      'does not belong to a rule with the effect allow',
    ],
    [
      'terms of a rule that denies',
      rule(M, ', mask: x').replace('allow', 'deny'),
      'does not belong to a rule with the effect deny',
    ],
    [
      'a capture of what is denied',
      rule(M, ', capture: {}').replace('allow', 'deny'),
      'does not belong to a rule with the effect deny',
    ],
    ['a capture of too much', rule(M, ', capture: {maxBytes: 262145}'), 'capture.maxBytes'],
    ['a capture of nothing', rule(M, ', capture: {maxBytes: 0}'), 'capture.maxBytes'],
    [
      'a long reuse',
      rule(M, ', approval: {reuse: 16m}').replace('allow', 'hold'),
      'longer than 900 seconds',
    ],
    [
      'a duration of nothing',
      rule(M, ', approval: {hold: 0s}').replace('allow', 'hold'),
      'expected a duration',
    ],
    [
      'a long wait',
      rule(M, ', approval: {expires: 25h}').replace('allow', 'hold'),
      'longer than 86400',
    ],
    [
      'a quorum of nobody',
      rule(M, ', approval: {quorums: [{group: a, count: 0}]}').replace('allow', 'hold'),
      'count',
    ],
    ['a system group', rule(M, ', grant: {groups: ["system:masters"]}'), 'cannot be granted'],
    ['no labels', rule(`${M}, labels: {}`), 'names no label'],
    ['an unknown expectation', `${HEAD}${GOOD}examples: {must_work: []}\n`, 'must_work'],
    [
      'a request line that is none',
      `${HEAD}${GOOD}examples: {must_deny: [{request: "get pods"}]}\n`,
      'expected a request line',
    ],
  ]
  for (const [what, text, message] of BAD) {
    it(`refuses ${what}`, () => {
      expect(problems(text).join('\n')).to.contain(message)
    })
  }

  it('refuses no file at all, and one that is too large', () => {
    expect(problemsOf({})).to.deep.equal(['there is no policy file'])
    expect(problems(`${HEAD}${GOOD}#${'x'.repeat(5 * 1024 * 1024)}`).join()).to.contain(
      'larger than',
    )
  })

  it('takes a rule by actions alone, and all that a rule can have', () => {
    const { rules } = policyOf(`
- id: full
  match:
    actions: [exec]
    clusters: [prod]
    labels: {team: [a, '*']}
    uids: [0]
    sha256: ['${'0'.repeat(64)}']
  when: process.uid == 0
  effect: hold
  approval:
    quorums: [{group: sre, count: 2}]
    expires: 1h
    approvedFor: 90s
    hold: 5m
    reuse: 15m
    onLeave: keep
    mode: return
  mask: strict
  record: true
  grant: {groups: [viewers]}
  reason: because
`)
    expect(rules[0]?.condition?.uses).to.deep.include({
      process: true,
      subject: false,
      object: false,
    })
  })
})

describe('the schema for editors', () => {
  it('is the one that policies are read by (nestgate policy schema > docs/schemas/policy.schema.json)', () => {
    const file = new URL('../../../../docs/schemas/policy.schema.json', import.meta.url)
    expect(JSON.parse(readFileSync(file, 'utf8'))).to.deep.equal(
      JSON.parse(JSON.stringify(policyJsonSchema())),
    )
  })
})
