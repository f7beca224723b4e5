import { expect } from 'chai'
import { describe, it } from 'mocha'
import { MAX_PROFILE_PATHS, MAX_PROFILES } from '../../../../shared/policy/mask-profiles.ts'
import { readPolicySet } from '../../../../shared/policy/policy-set.ts'
import { HEAD, policyOf, problemsOf } from '../../../support/policies.ts'

const RULE = '- {id: a, match: {verbs: [get], resources: [x]}, effect: allow'
const FIELD = '{group: g.example, kind: Database, paths: [spec.token]}'

const masks = (...profiles: string[]): string =>
  `masks:\n${profiles.map((profile) => `- ${profile}\n`).join('')}`
const problems = (text: string): readonly string[] => problemsOf({ 'p.yaml': HEAD + text })

describe('masking profiles of a policy', () => {
  it('are read, with the place where they are written', () => {
    const { profiles, rules } = policyOf(
      `${RULE}, mask: one}\n${masks(`{name: one, fields: [${FIELD}, ${FIELD}]}`, '{name: all, everywhere: true}')}`,
    )
    const field = {
      group: 'g.example',
      kind: 'Database',
      path: [{ name: 'spec' }, { name: 'token' }],
    }
    const where = { file: 'policy.yaml' }
    expect(profiles).to.deep.equal([
      { name: 'one', fields: [field], everywhere: false, ...where, line: 6 },
      { name: 'all', fields: [], everywhere: true, ...where, line: 7 },
    ])
    expect(rules[0]?.masking).to.deep.equal({
      ...{ profiles: ['one'], fields: [field], everywhere: false, restore: false },
    })
  })

  it('count for rules of all files', () => {
    const rules = `${HEAD}${RULE}, mask: one}\n`
    const profiles = `${HEAD.replace('rules:', 'rules: []')}${masks('{name: one, everywhere: true}')}`
    expect(problemsOf({ 'a.yaml': rules, 'b.yaml': profiles })).to.deep.equal([])
    expect(problemsOf({ 'a.yaml': rules, 'b.yaml': profiles, 'c.yaml': profiles })).to.deep.equal([
      'c.yaml:5: the masking profile one is there twice (b.yaml:5)',
    ])
    expect(problemsOf({ 'a.yaml': rules })).to.deep.equal([
      'a.yaml:4: rules.0.mask: there is no masking profile one',
    ])
  })

  const bad: readonly (readonly [what: string, text: string, problem: string])[] = [
    [
      'an unknown name in an object',
      `${RULE},\n mask: {profile: two}}\n`,
      ':5: rules.0.mask: there is no masking profile two',
    ],
    ['a name that is none', `${RULE}, mask: A_b}\n`, ':4: rules.0.mask: '],
    ['another key', `${RULE}, mask: {profil: strict}}\n`, ':4: rules.0.mask'],
    ['no restore', `${RULE}, mask: {restore: false}}\n`, ':4: rules.0.mask'],
    [
      'nothing to restore',
      `${RULE}, mask: {profile: none, restore: true}}\n`,
      'none hides nothing that could be restored',
    ],
    [
      'a mask of what is denied',
      `${RULE.replace('allow', 'deny')}, mask: {restore: true}}\n`,
      'rules.0.mask: does not belong',
    ],
    ...['standard', 'strict', 'none'].map(
      (name) =>
        [
          `a profile ${name}`,
          `${RULE}}\n${masks(`{name: ${name}, everywhere: true}`)}`,
          `:6: masks.0.name: ${name} is a profile of Nestgate's own`,
        ] as const,
    ),
    [
      'a profile of nothing',
      `${RULE}}\n${masks('{name: one}')}`,
      ':6: masks.0: hides nothing beside the standard profile',
    ],
    [
      'a profile that is off',
      `${RULE}}\n${masks('{name: one, everywhere: false}')}`,
      ':6: masks.0: hides nothing',
    ],
    ['no fields', `${RULE}}\n${masks('{name: one, fields: []}')}`, ':6: masks.0.fields: '],
    [
      'a path that is none',
      `${RULE}}\n${masks(`{name: one, fields: [\n ${FIELD.replace('spec.token', 'a, spec..x')}]}`)}`,
      ':7: masks.0.fields.0.paths.1: "spec..x" has no name between its dots (character 5)',
    ],
    [
      'what clients need',
      `${RULE}}\n${masks(`{name: one, fields: [${FIELD.replace('spec.token', 'metadata.name')}]}`)}`,
      '"metadata.name" hides metadata.name, which clients need',
    ],
    [
      'a pattern of kinds',
      `${RULE}}\n${masks(`{name: one, fields: [${FIELD.replace('Database', '"*"')}]}`)}`,
      ':6: masks.0.fields.0.kind: expected a kind',
    ],
    [
      'a group that is none',
      `${RULE}}\n${masks(`{name: one, fields: [${FIELD.replace('g.example', 'g/v1')}]}`)}`,
      ':6: masks.0.fields.0.group: expected an API group',
    ],
  ]
  for (const [what, text, problem] of bad)
    it(`refuse ${what}`, () => {
      const found = problems(text)
      expect(found).to.have.length(1)
      expect(found[0]).to.include(problem)
    })

  it('have bounds', () => {
    const many = (count: number): string =>
      `${RULE}}\n${masks(...Array.from({ length: count }, (_, at) => `{name: p${at}, everywhere: true}`))}`
    expect(problems(many(MAX_PROFILES))).to.deep.equal([])
    expect(problems(many(MAX_PROFILES + 1))).to.deep.equal(['more than 100 masking profiles'])
    const paths = (count: number): string =>
      FIELD.replace(
        'spec.token',
        Array.from({ length: count }, (_, at) => `spec.f${at}`).join(', '),
      )
    const two = (more: number): string =>
      `${RULE}}\n${masks(`{name: one, fields: [${paths(MAX_PROFILE_PATHS - 1)}, ${paths(more)}]}`)}`
    expect(problems(two(1))).to.deep.equal([])
    expect(problems(two(2))).to.deep.equal(['p.yaml:6: masks.0.fields: more than 500 paths'])
  })

  it('tell their problems together with those of the rest of the file', () => {
    const text = `${RULE}, mask: {profile: one}, effekt: x}\n${masks('{name: one, fields: [{group: "", kind: Secret, paths: ["*"]}]}', '{name: 1}')}`
    expect(problems(text).map((line) => line.replace(/: .*/, ''))).to.deep.equal([
      ...['p.yaml:4', 'p.yaml:7', 'p.yaml:6'],
    ])
  })

  it('are part of the digest', () => {
    const digest = (path: string): string => {
      const text = `${HEAD}${RULE}}\n${masks(`{name: one, fields: [${FIELD.replace('spec.token', path)}]}`)}`
      const read = readPolicySet([{ file: 'p.yaml', text }])
      return 'digest' in read ? read.digest : ''
    }
    expect(digest('spec.a')).to.have.length(64).and.not.equal(digest('spec.b'))
  })
})
