import { expect } from 'chai'
import { describe, it } from 'mocha'
import { createDecider } from '../../../broker/policy/decide.ts'
import type { Facts } from '../../../broker/policy/decide.ts'
import { readPolicy } from '../../../broker/policy/language.ts'
import type { PolicyDocument } from '../../../broker/policy/language.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { readRequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../../shared/reasons.ts'

const HEAD = 'apiVersion: nestgate.dev/v1alpha1\nkind: Policy\nrules:\n'

function policy(rules: string): PolicyDocument {
  const read = readPolicy(HEAD + rules)
  if ('problems' in read) throw new Error(read.problems.join('\n'))
  return read
}

function problems(text: string): readonly string[] {
  const read = readPolicy(text)
  return 'problems' in read ? read.problems : []
}

function facts(method: string, url: string, more: Partial<Facts> = {}): Facts {
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error(target.refused)
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) throw new Error(info.refused)
  return {
    cluster: 'prod',
    namespace: 'agents',
    serviceAccount: 'worker',
    verdict: 'exclusive',
    exe: '/usr/bin/python3.11',
    agent: 'scanner',
    ancestors: ['unregistered/planner/bash', 'orchestrator'],
    info,
    path: target.path,
    ...more,
  }
}

const RULES = `
- {id: read, match: {verbs: [get, list, watch], apiGroups: ["", apps], resources: [pods, pods/log, deployments], namespaces: [agents]}, effect: allow}
- {id: delete, match: {verbs: [delete], resources: [deployments, pods]}, effect: hold, reason: a person looks at deletions}
- {id: no-secrets, match: {verbs: ["*"], resources: [secrets]}, effect: deny, reason: secrets stay where they are}
- {id: all-of-kube-system, match: {verbs: ["*"], resources: ["*"], namespaces: [kube-system]}, effect: allow}
- {id: kube-system-secrets, match: {verbs: [get], resources: [secrets], namespaces: [kube-system]}, effect: hold}
- {id: exec, match: {verbs: [connect], resources: [pods/exec], namespaces: [agents]}, effect: hold}
- {id: metrics, match: {verbs: [get], nonResourceURLs: [/metrics, /logs/*]}, effect: allow}
- {id: python-only, match: {verbs: [create], resources: [configmaps], executables: [/usr/bin/python3*, /opt/**/tool]}, effect: allow}
- {id: other-account, match: {verbs: [update], resources: [configmaps], serviceAccounts: ["agents/*"]}, effect: allow}
- {id: by-agent, match: {verbs: [create], resources: [jobs], apiGroups: [batch], agents: [scanner, "ci-*"]}, effect: allow}
- {id: by-ancestor, match: {verbs: [update], resources: [jobs], ancestors: [orchestrator]}, effect: allow}
- {id: no-strangers, match: {verbs: [patch], resources: [jobs], agents: ["unregistered/*"]}, effect: deny}
- {id: patch-jobs, match: {verbs: [patch], resources: [jobs]}, effect: allow}
- {id: by-both, match: {verbs: [delete], resources: [jobs], agents: [kubectl], ancestors: ["unregistered/planner/*"]}, effect: allow}
- {id: named, match: {verbs: [patch], resources: [configmaps], resourceNames: [mine]}, effect: allow}
- {id: cluster-b, match: {verbs: [deletecollection], resources: ["*/scale", events], clusters: [b]}, effect: allow}
- {id: hold-discovery, match: {verbs: [get], nonResourceURLs: [/api, /version]}, effect: hold}
- {id: no-openapi, match: {verbs: [get], nonResourceURLs: [/openapi/*]}, effect: deny}
`

describe('a decision', () => {
  const decider = createDecider(policy(RULES), ['exclusive'])
  const N = '/api/v1/namespaces'
  const JOBS = '/apis/batch/v1/namespaces/agents/jobs'
  /** method, url, changed facts, effect, rules */
  const rows: readonly (readonly [string, string, Partial<Facts>, string, readonly string[]])[] = [
    ['GET', `${N}/agents/pods`, {}, 'allow', ['read']],
    ['GET', `${N}/agents/pods?watch=1`, {}, 'allow', ['read']],
    ['GET', `${N}/agents/pods/p/log?follow=true`, {}, 'allow', ['read']],
    ['GET', `${N}/agents/pods/p/status`, {}, 'deny', []],
    ['GET', `${N}/other/pods`, {}, 'deny', []],
    ['GET', '/api/v1/pods', {}, 'deny', []],
    ['DELETE', '/apis/apps/v1/namespaces/agents/deployments/d', {}, 'hold', ['delete']],
    ['DELETE', '/apis/apps/v1/namespaces/agents/deployments', {}, 'deny', []],
    ['DELETE', `${N}/kube-system/pods/p`, {}, 'hold', ['delete']],
    ['GET', `${N}/kube-system/secrets/s`, {}, 'deny', ['no-secrets']],
    ['GET', `${N}/agents/pods/p/exec?command=sh`, {}, 'hold', ['exec']],
    ['POST', `${N}/agents/pods/p/exec?command=sh`, {}, 'hold', ['exec']],
    ['POST', `${N}/agents/pods/p/portforward`, {}, 'deny', []],
    ['GET', `${N}/kube-system/pods/p/attach`, {}, 'allow', ['all-of-kube-system']],
    ['GET', '/metrics', {}, 'allow', ['metrics']],
    ['GET', '/logs/a', {}, 'allow', ['metrics']],
    ['GET', '/logsx', {}, 'deny', []],
    ['POST', `${N}/agents/configmaps`, {}, 'allow', ['python-only']],
    ['POST', `${N}/agents/configmaps`, { exe: '/usr/bin/node' }, 'deny', []],
    ['POST', `${N}/agents/configmaps`, { exe: '/usr/bin/python3/x' }, 'deny', []],
    ['POST', `${N}/agents/configmaps`, { exe: '/opt/a/b/tool' }, 'allow', ['python-only']],
    ['POST', `${N}/agents/configmaps`, { exe: undefined }, 'deny', []],
    ['PUT', `${N}/agents/configmaps/c`, {}, 'allow', ['other-account']],
    ['PUT', `${N}/agents/configmaps/c`, { namespace: 'x' }, 'deny', []],
    ['PATCH', `${N}/agents/configmaps/mine`, {}, 'allow', ['named']],
    ['PATCH', `${N}/agents/configmaps/other`, {}, 'deny', []],
    ['POST', JOBS, {}, 'allow', ['by-agent']],
    ['POST', JOBS, { agent: 'ci-nightly' }, 'allow', ['by-agent']],
    ['POST', JOBS, { agent: 'Scanner' }, 'deny', []],
    ['POST', JOBS, { agent: 'scanner2' }, 'deny', []],
    ['POST', JOBS, { agent: 'x', ancestors: ['scanner'] }, 'deny', []],
    ['PUT', `${JOBS}/j`, {}, 'allow', ['by-ancestor']],
    ['PUT', `${JOBS}/j`, { ancestors: ['orchestrator', 'x', 'y'] }, 'allow', ['by-ancestor']],
    ['PUT', `${JOBS}/j`, { agent: 'orchestrator', ancestors: [] }, 'deny', []],
    ['PUT', `${JOBS}/j`, { ancestors: ['unregistered/c/orchestrator'] }, 'deny', []],
    ['PATCH', `${JOBS}/j`, {}, 'allow', ['patch-jobs']],
    ['PATCH', `${JOBS}/j`, { agent: 'unregistered/a/b' }, 'deny', ['no-strangers']],
    ['PATCH', `${JOBS}/j`, { agent: 'unregistered/a/b\nscanner' }, 'deny', ['no-strangers']],
    ['DELETE', `${JOBS}/j`, { agent: 'kubectl' }, 'allow', ['by-both']],
    ['DELETE', `${JOBS}/j`, { agent: 'kubectl', ancestors: ['orchestrator'] }, 'deny', []],
    ['DELETE', `${JOBS}/j`, {}, 'deny', []],
    ['POST', `${N}/agents/configmaps`, { exe: '/opt/a\nb/tool' }, 'allow', ['python-only']],
    ['DELETE', `${N}/agents/events`, { cluster: 'b' }, 'allow', ['cluster-b']],
    ['DELETE', `${N}/agents/events`, {}, 'deny', []],
    ['GET', '/api', {}, 'allow', ['builtin:discovery']],
    ['GET', '/version', {}, 'allow', ['builtin:discovery']],
    ['GET', '/apis/apps/v1', {}, 'allow', ['builtin:discovery']],
    ['POST', '/api', {}, 'deny', []],
    ['GET', '/openapi/v2', {}, 'deny', ['no-openapi']],
    [
      'POST',
      '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
      {},
      'allow',
      ['builtin:discovery'],
    ],
    ['POST', '/apis/authorization.k8s.io/v1/subjectaccessreviews', {}, 'deny', []],
  ]
  for (const [method, url, changed, effect, rules] of rows) {
    it(`on ${method} ${url} ${JSON.stringify(changed)} is ${effect}`, () => {
      const decision = decider.decide(facts(method, url, changed))
      expect([decision.effect, decision.rules]).to.deep.equal([effect, rules])
    })
  }

  it('explains itself in one sentence and names the policy', () => {
    const decision = decider.decide(
      facts('DELETE', '/apis/apps/v1/namespaces/agents/deployments/d'),
    )
    expect(decision.explanation).to.equal(
      'rule "delete" holds delete deployments.apps d in agents: a person looks at deletions',
    )
    expect(decision.policyDigest).to.match(/^[0-9a-f]{64}$/)
    const denied = decider.decide(facts('GET', '/api/v1/nodes'))
    expect(denied).to.include({
      explanation: 'no rule allows list nodes',
      reason: 'policy_no_match',
    })
  })

  it('denies every verdict that is not accepted, before any rule', () => {
    const expected = {
      shared: 'caller_shared',
      relay: 'caller_not_accepted',
      container_only: 'caller_not_accepted',
      unidentified: 'caller_unidentified',
    } as const
    for (const [verdict, reason] of Object.entries(expected)) {
      const decision = decider.decide(
        facts('GET', '/version', { verdict: verdict as Facts['verdict'] }),
      )
      expect(decision, verdict).to.include({ effect: 'deny', reason })
    }
    const lenient = createDecider(policy(RULES), ['exclusive', 'shared'])
    expect(lenient.decide(facts('GET', '/version', { verdict: 'shared' }))).to.include({
      effect: 'allow',
    })
  })

  it('denies everything but discovery where there are no rules', () => {
    const empty = createDecider(policy(' []'), ['exclusive'])
    expect(empty.decide(facts('GET', '/api/v1/pods')).effect).to.equal('deny')
  })
})

describe('a name that is proxied', () => {
  const url = (name: string): string => `/api/v1/namespaces/agents/services/${name}/proxy`
  const rule = (effect: string): string =>
    `- {id: one, match: {verbs: [connect], resources: [services/proxy], resourceNames: [internal]}, effect: ${effect}}\n`
  const SPELLINGS = ['internal', 'internal:80', 'http:internal:80', 'https:internal:']

  it('is restricted in every spelling, and allowed in the one that is listed', () => {
    const any =
      '- {id: any, match: {verbs: [connect], resources: [services/proxy]}, effect: allow}\n'
    for (const effect of ['deny', 'hold'] as const) {
      const decider = createDecider(policy(any + rule(effect)), ['exclusive'])
      for (const name of SPELLINGS)
        expect(decider.decide(facts('GET', url(name))).effect, name).to.equal(effect)
      expect(decider.decide(facts('GET', url('other:80'))).effect).to.equal('allow')
    }
    const only = createDecider(policy(rule('allow')), ['exclusive'])
    const effects = SPELLINGS.map((name) => only.decide(facts('GET', url(name))).effect)
    expect(effects).to.deep.equal(['allow', 'deny', 'deny', 'deny'])
  })
})

describe('readPolicy', () => {
  it('tells every problem with its line', () => {
    const found = problems(`${HEAD}- id: a
  match: {verbs: [get], resorces: [pods]}
  effect: allow
- id: b
  match: {verbs: [get], resources: [pods]}
  effect: permit
- id: "builtin:x"
  match: {verbs: [], resources: [pods]}
  effect: deny
`)
    expect(found.map((line) => line.split(':')[0])).to.deep.equal(['5', '9', '10', '11'])
    expect(found.join('\n')).to.contain('resorces').and.to.contain('effect')
  })

  const BAD: readonly (readonly [string, string, string])[] = [
    [
      'an id twice',
      `${HEAD}- {id: a, match: {verbs: [get], resources: [x]}, effect: deny}\n- {id: a, match: {verbs: [get], resources: [x]}, effect: deny}\n`,
      'twice',
    ],
    [
      'a rule about nothing',
      `${HEAD}- {id: a, match: {verbs: [get]}, effect: allow}\n`,
      'neither resources nor',
    ],
    [
      'a rule about both',
      `${HEAD}- {id: a, match: {verbs: [get], resources: [x], nonResourceURLs: [/]}, effect: allow}\n`,
      'make two rules',
    ],
    [
      'a rule without verbs',
      `${HEAD}- {id: a, match: {resources: [x]}, effect: allow}\n`,
      'no verbs',
    ],
    ['broken YAML', `${HEAD}- {id: a`, ''],
    [
      'a key twice',
      `${HEAD}- {id: a, id: b, match: {verbs: [get], resources: [x]}, effect: allow}\n`,
      '',
    ],
    ['another kind', 'apiVersion: v1\nkind: ConfigMap\n', 'kind'],
    ['nothing', '', ''],
    [
      'an alias bomb',
      HEAD + '- &a {id: a, match: {verbs: [get], resources: [x]}, effect: allow}\n- *a\n',
      '',
    ],
  ]
  for (const [what, text, message] of BAD) {
    it(`refuses ${what}`, () => {
      expect(problems(text).join('\n')).to.contain(message)
      expect(problems(text)).not.to.have.length(0)
    })
  }
})
