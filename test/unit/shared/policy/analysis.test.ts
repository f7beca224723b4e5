import { expect } from 'chai'
import { describe, it } from 'mocha'
import { diffPolicies, explainDecision, whoCan } from '../../../../shared/policy/analysis.ts'
import type { Facts } from '../../../../shared/policy/facts.ts'
import { policyOf, processFacts, requestOf } from '../../../support/policies.ts'

const OPTIONS = { acceptVerdicts: ['exclusive'] } as const
const POLICY = policyOf(`
- {id: look, match: {verbs: [get, list], resources: [pods], agents: [scanner]}, effect: allow}
- {id: delete, match: {verbs: [delete], resources: [pods], namespaces: [shop]}, effect: hold}
- {id: other, match: {verbs: [delete], resources: [pods], agents: [ci], ancestors: [x]}, effect: allow}
- {id: nets, match: {verbs: [create], resources: [pods]}, when: object.spec.hostNetwork, effect: deny}
- {id: teams, match: {verbs: [create], resources: [pods], labels: {team: [a, b]}}, effect: allow}
- {id: nodes, match: {verbs: [get], resources: [nodes], groups: [sre]}, effect: allow}
`)

function facts(method: string, url: string, body?: unknown): Facts {
  return {
    cluster: 'prod',
    process: processFacts(),
    subject: undefined,
    request: requestOf(method, url, body),
  }
}

describe('explainDecision', () => {
  const explain = (given: Facts): Record<string, unknown> =>
    Object.fromEntries(
      explainDecision(POLICY, given, OPTIONS).rules.map(
        ({ rule, matched, near, equivalent, failed, error }) => [
          rule.id,
          matched
            ? equivalent
              ? 'matches by equivalent'
              : 'matches'
            : (error ?? [near, failed?.condition, failed?.wanted, failed?.found]),
        ],
      ),
    )

  it('names the first condition that fails, with what was wanted and what was found', () => {
    const found = explain(facts('DELETE', '/api/v1/namespaces/shop/pods/p'))
    expect(found).to.deep.include({
      delete: 'matches',
      other: [true, 'agents', ['ci'], ['scanner']],
      look: [false, 'verbs', ['get', 'list'], ['delete']],
      nodes: [false, 'verbs', ['get'], ['delete']],
    })
    expect(Object.keys(found).slice(0, 2)).to.deep.equal(['delete', 'other'])
  })

  it('tells an equivalent, a body that says no, and an expression that fails', () => {
    expect(explain(facts('POST', '/api/v1/namespaces/shop/pods/p/eviction'))).to.deep.include({
      delete: 'matches by equivalent',
    })
    const create = (body: unknown): Record<string, unknown> =>
      explain(facts('POST', '/api/v1/namespaces/shop/pods', body))
    expect(
      create({ spec: { hostNetwork: false }, metadata: { labels: { team: 'c' } } }),
    ).to.deep.include({
      nets: [true, 'when', ['object.spec.hostNetwork'], []],
      teams: [true, 'labels', ['team=a|b'], ['team=c']],
    })
    expect(create({ spec: {} })['nets']).to.contain('field not found')
  })
})

describe('whoCan', () => {
  const ask = (query: Parameters<typeof whoCan>[1]): unknown => {
    const answers = whoCan(POLICY, query)
    return 'problem' in answers
      ? answers.problem
      : answers.map(({ rule, effect, who, only, when }) => [rule.id, effect, who, only, when])
  }

  it('lists rules by effect, with whom they mean and what the question left open', () => {
    expect(ask({ verb: 'delete', resource: 'pods' })).to.deep.equal([
      ['delete', 'hold', {}, { namespaces: ['shop'] }, undefined],
      ['other', 'allow', { agents: ['ci'], ancestors: ['x'] }, {}, undefined],
    ])
    expect(ask({ verb: 'delete', resource: 'pods', namespace: 'till' })).to.deep.equal([
      ['other', 'allow', { agents: ['ci'], ancestors: ['x'] }, {}, undefined],
    ])
    expect(ask({ verb: 'create', resource: 'pods' })).to.deep.equal([
      ['nets', 'deny', {}, {}, 'object.spec.hostNetwork'],
      ['teams', 'allow', {}, { labels: { team: ['a', 'b'] } }, undefined],
    ])
  })

  it('counts rules that restrict what the request amounts to', () => {
    expect(ask({ verb: 'create', resource: 'pods/eviction', namespace: 'shop' })).to.deep.equal([
      ['delete', 'hold', {}, {}, undefined],
    ])
    expect(ask({ verb: 'fly', resource: 'pods' })).to.be.a('string')
  })
})

describe('diffPolicies', () => {
  const past = (
    given: Facts,
    hadBody = false,
  ): { facts: Facts; hadBody: boolean; about: string } => ({
    facts: given,
    hadBody,
    about: given.request.policyVerb,
  })
  const requests = [
    past(facts('GET', '/api/v1/namespaces/shop/pods/p')),
    past(facts('DELETE', '/api/v1/namespaces/shop/pods/p')),
    past(facts('POST', '/api/v1/namespaces/shop/pods'), true),
  ]
  const change = (rules: string): unknown =>
    diffPolicies(POLICY, policyOf(rules), requests, OPTIONS).map((one) => [
      one.about,
      one.old.effect,
      one.new.effect,
      one.dependsOnBody,
    ])

  it('tells nothing where nothing changes', () => {
    expect(diffPolicies(POLICY, POLICY, requests, OPTIONS)).to.deep.equal([])
  })

  it('tells other effects and other terms, and what depends on the body', () => {
    const [look, , , nets = ''] = `
- {id: look, match: {verbs: [get, list], resources: [pods], agents: [scanner]}, effect: allow}
-
-
- {id: nets, match: {verbs: [create], resources: [pods]}, when: object.spec.hostNetwork, effect: deny}`
      .trim()
      .split('\n')
    expect(change(`${look ?? ''}\n`)).to.deep.equal([
      ['delete', 'hold', 'deny', false],
      ['create', 'deny', 'deny', true],
    ])
    const bodiless = diffPolicies(
      POLICY,
      policyOf(`${look ?? ''}\n`),
      requests.map((request) => ({ ...request, hadBody: false })),
      OPTIONS,
    )
    expect(bodiless.map(({ about }) => about)).to.deep.equal(['delete'])
    const terms =
      '- {id: delete, match: {verbs: [delete], resources: [pods], namespaces: [shop]}, effect: hold, approval: {quorums: [{group: sre, count: 2}]}}'
    const teams =
      '- {id: teams, match: {verbs: [create], resources: [pods], labels: {team: [a, b]}}, effect: allow}'
    expect(change([look, terms, nets, teams, ''].join('\n'))).to.deep.equal([
      ['delete', 'hold', 'hold', false],
    ])
  })
})
