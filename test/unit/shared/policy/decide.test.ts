import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { RequestAttributes } from '../../../../shared/kubernetes/attributes.ts'
import { createDecider } from '../../../../shared/policy/decide.ts'
import type { DeciderOptions } from '../../../../shared/policy/decide.ts'
import type { Decider, Decision } from '../../../../shared/policy/decision.ts'
import { readCase } from '../../../../shared/policy/case.ts'
import type { Facts, ProcessFacts } from '../../../../shared/policy/facts.ts'
import { STANDARD_MASKING } from '../../../../shared/policy/masking.ts'
import { policyOf, processFacts, requestOf } from '../../../support/policies.ts'

type Change = Partial<ProcessFacts> & { cluster?: string }

function facts(method: string, url: string, { cluster = 'prod', ...process }: Change = {}): Facts {
  return {
    cluster,
    process: processFacts(process),
    subject: undefined,
    request: requestOf(method, url),
  }
}

function decider(rules: string, options: Partial<DeciderOptions> = {}): Decider {
  return createDecider(policyOf(rules), { acceptVerdicts: ['exclusive'], ...options })
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
  const known = decider(RULES)
  const N = '/api/v1/namespaces'
  const JOBS = '/apis/batch/v1/namespaces/agents/jobs'
  /** method, url, changed facts, effect, rules */
  const rows: readonly (readonly [string, string, Change, string, readonly string[]])[] = [
    ['GET', `${N}/agents/pods`, {}, 'allow', ['read']],
    ['GET', `${N}/agents/pods?watch=1`, {}, 'allow', ['read']],
    ['GET', `${N}/agents/pods/p/log?follow=true`, {}, 'allow', ['read']],
    ['GET', `${N}/agents/pods/p/status`, {}, 'deny', []],
    ['GET', `${N}/other/pods`, {}, 'deny', []],
    ['GET', '/api/v1/pods', {}, 'deny', []],
    ['DELETE', '/apis/apps/v1/namespaces/agents/deployments/d', {}, 'hold', ['delete']],
    ['DELETE', '/apis/apps/v1/namespaces/agents/deployments', {}, 'hold', ['delete']],
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
      const decision = known.decide(facts(method, url, changed))
      expect([decision.effect, decision.rules]).to.deep.equal([effect, rules])
    })
  }

  it('explains itself in one sentence and names the policy', () => {
    const decision = known.decide(facts('DELETE', '/apis/apps/v1/namespaces/agents/deployments/d'))
    expect(decision.explanation).to.equal(
      'rule "delete" holds delete deployments.apps d in agents: a person looks at deletions',
    )
    expect(decision.policyDigest).to.match(/^[0-9a-f]{64}$/)
    const denied = known.decide(facts('GET', '/api/v1/nodes'))
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
      const decision = known.decide(
        facts('GET', '/version', { verdict: verdict as ProcessFacts['verdict'] }),
      )
      expect(decision, verdict).to.include({ effect: 'deny', reason })
    }
    const lenient = decider(RULES, { acceptVerdicts: ['exclusive', 'shared'] })
    expect(lenient.decide(facts('GET', '/version', { verdict: 'shared' }))).to.include({
      effect: 'allow',
    })
  })

  it('denies everything but discovery where there are no rules', () => {
    const empty = decider(' []')
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
      const known = decider(any + rule(effect))
      for (const name of SPELLINGS)
        expect(known.decide(facts('GET', url(name))).effect, name).to.equal(effect)
      expect(known.decide(facts('GET', url('other:80'))).effect).to.equal('allow')
    }
    const only = decider(rule('allow'))
    const effects = SPELLINGS.map((name) => only.decide(facts('GET', url(name))).effect)
    expect(effects).to.deep.equal(['allow', 'deny', 'deny', 'deny'])
  })
})

const SHOP = '/api/v1/namespaces/shop'
const ALL = '- {id: all, match: {verbs: ["*"], resources: ["*"]}, effect: allow}\n'

function decide(rules: string, request: RequestAttributes, change: Partial<Facts> = {}): Decision {
  return decider(rules).decide({
    cluster: 'prod',
    process: processFacts(),
    subject: undefined,
    request,
    ...change,
  })
}

describe('effects', () => {
  const rule = (effect: string): string =>
    `- {id: ${effect}, match: {verbs: [get], resources: [pods]}, effect: ${effect}}\n`
  const get = requestOf('GET', `${SHOP}/pods/p`)

  it('are the strongest of the rules that match', () => {
    const order = ['deny', 'breakGlass', 'hold', 'allow']
    for (const [at, effect] of order.entries()) {
      const rules = order.slice(at).toReversed().map(rule).join('')
      expect(decide(rules, get), effect).to.deep.include({ effect, rules: [effect] })
    }
  })

  it('carry terms where people have to do with it, and defaults for what no rule says', () => {
    expect(decide(rule('allow'), get).approval).to.equal(undefined)
    expect(decide(rule('breakGlass'), get).approval).to.deep.include({ quorums: [] })
    expect(decide(rule('hold'), get).approval).to.deep.equal({
      quorums: [],
      pendingSeconds: 900,
      approvedSeconds: 900,
      holdSeconds: 300,
      reuseSeconds: 0,
      onLeave: 'cancel',
      mode: 'hold',
    })
  })

  it('of several rules that hold, have the strictest of each term', () => {
    const hold = (id: string, approval: string): string =>
      `- {id: ${id}, match: {verbs: [get], resources: [pods]}, effect: hold, approval: ${approval}}\n`
    const both =
      hold(
        'a',
        '{quorums: [{group: sre, count: 1}, {group: sec, count: 1}], expires: 1h, approvedFor: 2m, hold: 30s, reuse: 10m, onLeave: keep}',
      ) +
      hold(
        'b',
        '{quorums: [{group: sre, count: 2}], expires: 20m, approvedFor: 1h, hold: 2m, reuse: 5m, onLeave: keep, mode: return}',
      )
    expect(decide(both, get).approval).to.deep.equal({
      quorums: [
        { group: 'sre', count: 2 },
        { group: 'sec', count: 1 },
      ],
      pendingSeconds: 1200,
      approvedSeconds: 120,
      holdSeconds: 30,
      reuseSeconds: 300,
      onLeave: 'keep',
      mode: 'return',
    })
    const strict = both + hold('c', '{reuse: once, onLeave: cancel, expires: 24h}')
    expect(decide(strict, get).approval).to.deep.include({ reuseSeconds: 0, onLeave: 'cancel' })
  })
})

const RECORDED = {
  ...{ mode: 'required', orDefault: false, stdin: false, mask: true, files: false },
  ...{ tunnelBytes: 0, maxBytes: 1024 ** 3 },
}

describe('obligations', () => {
  const rule = (id: string, more: string, effect = 'allow'): string =>
    `- {id: ${id}, match: {verbs: [get], resources: [pods]}, effect: ${effect}${more}}\n`
  const get = requestOf('GET', `${SHOP}/pods/p`)
  const of = (rules: string): unknown => decide(rules, get).obligations
  const STRICT = { profiles: ['strict'], fields: [], everywhere: true, restore: false }
  const NOTHING = { profiles: [], fields: [], everywhere: false, restore: false }
  const standard = { mask: STANDARD_MASKING, grantGroups: [] }

  it('are those of the rules that decided', () => {
    const allow = rule('a', ', mask: strict, record: true, grant: {groups: [viewers, auditors]}')
    expect(of(allow)).to.deep.equal({
      mask: STRICT,
      record: RECORDED,
      grantGroups: ['auditors', 'viewers'],
    })
    expect(of(allow + rule('b', ', grant: {groups: [auditors, others]}'))).to.deep.equal({
      mask: { ...STRICT, profiles: ['standard', 'strict'] },
      record: { ...RECORDED, orDefault: true },
      grantGroups: ['auditors', 'others', 'viewers'],
    })
    expect(of(allow + rule('h', '', 'hold'))).to.deep.equal(standard)
    expect(of(allow + rule('d', '', 'deny'))).to.deep.equal({ grantGroups: [] })
  })

  it('are weakened only where every rule wants it so', () => {
    const weak = rule('a', ', mask: none, record: false')
    const off = { ...RECORDED, mode: 'off' }
    expect(of(weak)).to.deep.equal({ mask: NOTHING, record: off, grantGroups: [] })
    expect(of(weak + rule('b', ''))).to.deep.equal({
      ...standard,
      record: { ...off, orDefault: true },
    })
    expect(of(weak + rule('b', ', mask: strict, record: true'))).to.deep.equal({
      mask: STRICT,
      record: RECORDED,
      grantGroups: [],
    })
  })

  it('record as the strictest rule says, and keep what any of them keeps', () => {
    const rules =
      rule('a', ', record: {mode: best_effort, stdin: true, tunnelBytes: 10, mask: false}') +
      rule('b', ', record: {mode: off, files: true, maxBytes: 65536, retainDays: 9, mask: false}')
    expect(of(rules)).to.deep.equal({
      ...standard,
      record: {
        ...{ mode: 'best_effort', orDefault: false, stdin: true, mask: false, files: true },
        ...{ tunnelBytes: 10, maxBytes: 1024 ** 3, retainDays: 9 },
      },
    })
    expect(of(rules + rule('c', ', record: required'))).to.have.nested.include({
      'record.mode': 'required',
      'record.mask': true,
    })
  })

  it('capture the body where any rule that matched wants it, and as much as any wants', () => {
    const some = rule('a', ', capture: {}')
    const more = rule('b', ', capture: {maxBytes: 20000}')
    expect(of(some)).to.deep.equal({ ...standard, capture: { maxBytes: 16_384 } })
    expect(of(some + more + rule('c', ', capture: {maxBytes: 1}'))).to.deep.equal({
      ...{ ...standard, capture: { maxBytes: 20_000 } },
    })
    for (const effect of ['hold', 'breakGlass'])
      expect(of(more + rule('s', '', effect)), effect).to.deep.equal({
        ...{ ...standard, capture: { maxBytes: 20_000 } },
      })
    expect(of(rule('h', ', capture: {}', 'hold') + rule('a', ''))).to.have.property('capture')
    expect(of(some + rule('d', '', 'deny'))).to.deep.equal({ grantGroups: [] })
    expect(of(rule('a', ''))).to.deep.equal(standard)
  })
})

describe('a mask', () => {
  const PROFILES = `masks:
- {name: database, fields: [{group: db.example, kind: Database, paths: [spec.auth.*.token, spec.url]}]}
- {name: other, everywhere: true, fields: [{group: db.example, kind: Database, paths: [spec.url, spec.ca]}]}
`
  const rule = (id: string, mask: string): string =>
    `- {id: ${id}, match: {verbs: [get], resources: [pods]}, effect: allow, mask: ${mask}}\n`
  const of = (...masks: string[]): unknown =>
    decide(
      masks.map((mask, at) => rule(`r${at}`, mask)).join('') + PROFILES,
      requestOf('GET', `${SHOP}/pods/p`),
    ).obligations.mask
  const field = (...names: string[]): unknown => ({
    ...{ group: 'db.example', kind: 'Database' },
    path: names.map((name) => (name === '*' ? 'any' : { name })),
  })
  const token = field('spec', 'auth', '*', 'token')
  const [url, ca] = [field('spec', 'url'), field('spec', 'ca')]

  it('hides what the profile of its name does', () => {
    const database = { profiles: ['database'], fields: [token, url], everywhere: false }
    expect(of('database')).to.deep.equal({ ...database, restore: false })
    expect(of('{profile: database, restore: true}')).to.deep.equal({ ...database, restore: true })
    expect(of('standard')).to.deep.equal(STANDARD_MASKING)
    expect(of('{restore: true}')).to.deep.equal({ ...STANDARD_MASKING, restore: true })
  })

  it('hides with others what any of them hides, and each field once', () => {
    expect(of('other', 'database')).to.deep.equal({
      profiles: ['database', 'other'],
      fields: [url, ca, token],
      everywhere: true,
      restore: false,
    })
    expect(of('database', 'none', 'database')).to.deep.include({
      profiles: ['database'],
      fields: [token, url],
      everywhere: false,
    })
    expect(of('none', 'none')).to.deep.include({ profiles: [], fields: [] })
  })

  it('restores only where all that hide say so', () => {
    const restored = (...masks: string[]): unknown => {
      const mask = of(...masks)
      return typeof mask === 'object' && mask !== null && 'restore' in mask && mask.restore
    }
    const restoring = '{profile: strict, restore: true}'
    expect(restored(restoring, '{restore: true}')).to.equal(true)
    expect(restored(restoring, 'none')).to.equal(true)
    expect(restored(restoring, 'standard')).to.equal(false)
    expect(restored(restoring, 'strict')).to.equal(false)
  })

  it('is the same object at every decision, where all rules say the same', () => {
    const policy = decider(rule('a', 'database') + rule('b', 'database') + PROFILES)
    const [one, two] = [1, 2].map(() => policy.decide(facts('GET', `${SHOP}/pods/p`)))
    expect(one?.obligations.mask).to.equal(two?.obligations.mask)
    expect(one?.obligations.mask).to.have.property('profiles').deep.equal(['database'])
  })
})

describe('a request to see what is hidden', () => {
  const GET = 'verbs: [get], resources: [secrets]'
  const rule = (id: string, match: string, more: string): string =>
    `- {id: ${id}, match: {${match}}, effect: ${more}}\n`
  const url = `${SHOP}/secrets/db`
  const plain = requestOf('GET', url)
  const unmask = requestOf('GET', `${url}?nestgate.dev/unmask=true`)
  const get = rule('get', GET, 'allow')
  const ask = rule('ask', 'actions: [unmask]', 'hold, mask: none')

  it('is held by a rule for it, while the same get without it goes ahead masked', () => {
    const decision = decide(get + ask, unmask)
    expect(decision).to.deep.include({ effect: 'hold', rules: ['ask'] })
    expect(decision.obligations.mask?.profiles).to.deep.equal([])
    const masked = decide(get + ask, plain)
    expect(masked).to.deep.include({ effect: 'allow', rules: ['get'] })
    expect(masked.obligations.mask).to.deep.equal(STANDARD_MASKING)
  })

  for (const [what, rules, deciding] of [
    ['nobody allows it', get, ['get']],
    ['a rule that decides hides', get + rule('b', GET, 'allow, mask: none'), ['get']],
    ['the rule for it hides', rule('ask', 'actions: [unmask]', 'hold') + get, ['ask']],
    ['another hold hides', rule('wait', GET, 'hold') + ask, ['wait']],
    ['glass is broken for a rule that hides', rule('g', GET, 'breakGlass') + ask, ['g']],
  ] as const)
    it(`is denied where ${what}`, () => {
      const decision = decide(rules, unmask)
      expect(decision).to.deep.include({ effect: 'deny', reason: 'unmask_denied', rules: deciding })
      expect(decision.explanation).to.include(`rule "${deciding[0]}" hides values`)
      expect(decide(rules, plain).reason).to.equal(undefined)
    })

  it('goes ahead where all rules that decide show values', () => {
    for (const effect of ['allow', 'breakGlass', 'hold'])
      expect(decide(rule('a', GET, `${effect}, mask: none`), unmask).effect).to.equal(effect)
  })

  it('is denied by what denies it, and where no rule is about it', () => {
    const deny = rule('d', 'actions: [unmask]', 'deny')
    expect(decide(get + ask + deny, unmask)).to.deep.include({ effect: 'deny', rules: ['d'] })
    expect(decide(get + ask + deny, plain).effect).to.equal('allow')
    expect(decide(rule('a', 'verbs: [get], resources: [pods]', 'allow'), unmask)).to.deep.include({
      ...{ effect: 'deny', reason: 'policy_no_match', rules: [] },
    })
  })

  it('is approved for one request, whatever the rule or the broker says of reuse', () => {
    const hold = rule('a', GET, 'hold, mask: none, approval: {reuse: 10m}')
    expect(decide(hold, plain).approval?.reuseSeconds).to.equal(600)
    expect(decide(hold, unmask).approval?.reuseSeconds).to.equal(0)
  })
})

describe('rules on actions and equivalents', () => {
  it('meet what a request amounts to', () => {
    const rules = `${ALL}- {id: no-shell, match: {actions: [exec, node-exec]}, effect: deny}\n`
    for (const url of [`${SHOP}/pods/p/exec?command=sh`, '/api/v1/nodes/n/proxy/run/a/b/c']) {
      const decision = decide(rules, requestOf('GET', url))
      expect(decision, url).to.deep.include({ effect: 'deny', rules: ['no-shell'] })
    }
    expect(decide(rules, requestOf('GET', '/api/v1/nodes/n/proxy/metrics')).effect).to.equal(
      'allow',
    )
  })

  it('restrict a request that is spelled otherwise', () => {
    const rules = `${ALL}- {id: keep, match: {verbs: [delete], resources: [pods], resourceNames: [db]}, effect: deny}\n`
    const evict = requestOf('POST', `${SHOP}/pods/db/eviction`)
    expect(decide(rules, evict)).to.deep.include({
      effect: 'deny',
      rules: ['keep'],
      explanation:
        'rule "keep" denies create pods/eviction db in shop, which amounts to delete pods db in shop',
    })
    expect(decide(rules, requestOf('POST', `${SHOP}/pods/web/eviction`)).effect).to.equal('allow')
    // Everything is deleted, so that one too.
    expect(decide(rules, requestOf('DELETE', `${SHOP}/pods`)).effect).to.equal('deny')
    expect(decide(rules, requestOf('DELETE', `${SHOP}/configmaps`)).effect).to.equal('allow')
  })

  it('allow nothing by what a request amounts to', () => {
    const rules = '- {id: d, match: {verbs: [delete], resources: [pods]}, effect: allow}\n'
    expect(decide(rules, requestOf('POST', `${SHOP}/pods/p/eviction`)).effect).to.equal('deny')
    const glass = rules.replace('effect: allow', 'effect: breakGlass')
    expect(decide(glass, requestOf('DELETE', `${SHOP}/pods`)).effect).to.equal('deny')
  })

  it('of a name restrict lists and watches that have no other', () => {
    const rules = (effect: string): string =>
      `- {id: x, match: {verbs: ["*"], resources: [secrets], resourceNames: [root]}, effect: ${effect}}\n`
    const list = (query: string): RequestAttributes => requestOf('GET', `${SHOP}/secrets${query}`)
    for (const query of ['', '?watch=1', '?fieldSelector=metadata.name%3Droot']) {
      expect(decide(ALL + rules('deny'), list(query)).effect, query).to.equal('deny')
      const allowed = query.startsWith('?field') ? 'allow' : 'deny'
      expect(decide(rules('allow'), list(query)).effect, query).to.equal(allowed)
    }
    const other = list('?fieldSelector=metadata.name%3Dother')
    expect(decide(ALL + rules('deny'), other).effect).to.equal('allow')
    expect(decide(ALL + rules('deny'), requestOf('POST', `${SHOP}/secrets`)).effect).to.equal(
      'allow',
    )
  })

  it('of a name restrict creations whose name cannot be read, or is generated', () => {
    const rules = (effect: string): string =>
      `- {id: x, match: {verbs: [create], resources: [configmaps], resourceNames: [root, "prod-*"]}, effect: ${effect}}\n`
    const maps = `${SHOP}/configmaps`
    const hidden = requestOf('POST', maps, 'k8s', 'application/vnd.kubernetes.protobuf')
    const generated = (generateName: string): RequestAttributes =>
      requestOf('POST', maps, { metadata: { generateName } })
    for (const request of [hidden, generated('prod-'), generated('test-')]) {
      expect(decide(ALL + rules('deny'), request).effect).to.equal('deny')
      expect(decide(rules('allow'), request).effect).to.equal('deny')
    }
    const named = requestOf('POST', maps, { metadata: { name: 'web', generateName: 'prod-' } })
    expect(decide(ALL + rules('deny'), named).effect).to.equal('allow')
  })

  it('of a namespace restrict lists of all namespaces, and allow none', () => {
    const rules = (effect: string): string =>
      `- {id: x, match: {verbs: [list, watch], resources: ["*"], namespaces: [shop]}, effect: ${effect}}\n`
    const everywhere = requestOf('GET', '/api/v1/secrets')
    expect(decide(ALL + rules('deny'), everywhere).effect).to.equal('deny')
    expect(decide(ALL + rules('hold'), everywhere).effect).to.equal('hold')
    expect(decide(rules('allow'), everywhere).effect).to.equal('deny')
    expect(decide(ALL + rules('deny'), requestOf('GET', '/api/v1/nodes')).effect).to.equal('allow')
    expect(
      decide(ALL + rules('deny'), requestOf('GET', '/api/v1/namespaces/till/secrets')).effect,
    ).to.equal('allow')
  })
})

describe('who calls', () => {
  const get = requestOf('GET', `${SHOP}/pods/p`)
  const rule = (match: string, effect = 'allow'): string =>
    `- {id: who, match: {verbs: [get], resources: [pods], ${match}}, effect: ${effect}}\n`
  const person = { name: 'oidc:ci/shop/deploy', groups: ['team-shop'] }

  const KNOWN: Partial<ProcessFacts> = {
    sha256: 'a'.repeat(64),
    uid: 1000,
    container: 'planner',
    image: 'registry.example/agents/scanner@sha256:00',
  }
  const matching = [
    `sha256: [${'a'.repeat(64)}]`,
    'uids: [0, 1000]',
    'containers: ["plan*"]',
    'images: ["registry.example/agents/*"]',
    'verdicts: [exclusive]',
    'serviceAccounts: ["*/worker"]',
    'agents: ["*"]',
    'executables: ["/usr/**"]',
  ]
  for (const match of matching) {
    it(`matches by ${match}, and not where the fact is missing`, () => {
      expect(decide(rule(match), get, { process: processFacts(KNOWN) }).effect).to.equal('allow')
      const missing: readonly Partial<Facts>[] = [
        { process: undefined, subject: person },
        ...(/sha|uid|cont|imag/.test(match) ? [{ process: processFacts() }] : []),
        ...(match.startsWith('exec') ? [{ process: processFacts({ exe: undefined }) }] : []),
      ]
      for (const change of missing) expect(decide(rule(match), get, change).effect).to.equal('deny')
    })
  }

  it('can be a person or a pipeline, with or without a process', () => {
    for (const match of ['subjects: ["oidc:ci/shop/*"]', 'groups: [team-x, team-shop]']) {
      expect(decide(rule(match), get, { process: undefined, subject: person }).effect).to.equal(
        'allow',
      )
      expect(decide(rule(match), get, { subject: person }).effect).to.equal('allow')
      expect(decide(rule(match), get).effect, match).to.equal('deny')
      const other = { name: 'oidc:ci/x', groups: ['team-y'] }
      expect(decide(rule(match), get, { subject: other }).effect).to.equal('deny')
    }
  })

  it('can be a run of a pipeline; who is none matches nothing that asks for one', () => {
    const ci = { repository: 'our/shop', ref: 'refs/heads/main', run: '7/1' }
    const words = ['repositories: ["our/*"]', 'refs: [refs/heads/main]', 'refs: ["*"]']
    const others = [undefined, { ...ci, repository: 'their/shop', ref: 'refs/tags/main' }]
    for (const match of words)
      for (const process of [undefined, processFacts()]) {
        const by = (run?: typeof ci): Partial<Facts> => ({
          process,
          subject: { name: 'x', groups: [], ci: run },
        })
        expect(decide(rule(match), get, by(ci)).effect, match).to.equal('allow')
        expect(decide(ALL + rule(match, 'deny'), get, by(ci)).effect, match).to.equal('deny')
        for (const other of match.includes('*"]') && match.startsWith('refs')
          ? [undefined]
          : others) {
          expect(decide(rule(match), get, by(other)).effect, match).to.equal('deny')
          expect(decide(ALL + rule(match, 'deny'), get, by(other)).effect, match).to.equal('allow')
        }
        expect(decide(rule(match), get, { process: processFacts() }).effect).to.equal('deny')
      }
  })

  it('is a run to conditions too, where it has that', () => {
    const ci = { repository: 'our/shop', ref: 'refs/heads/main', run: '7/1' }
    const when = ALL.replace(
      'effect',
      'when: "has(subject.ref) && subject.repository + subject.ref + subject.run == \'our/shoprefs/heads/main7/1\'", effect',
    )
    const decided = (run?: typeof ci): string =>
      decide(when, get, { process: undefined, subject: { name: 'x', groups: [], ci: run } }).effect
    expect([decided(ci), decided({ ...ci, run: '8/1' }), decided()]).to.deep.equal([
      'allow',
      'deny',
      'deny',
    ])
  })

  it('is a run in an example that says something of one', () => {
    const example = { verb: 'get', resource: 'pods', namespace: 'shop', repository: 'our/shop' }
    expect(readCase(example)).to.deep.include({
      process: undefined,
      subject: {
        ...{ name: 'example', groups: [] },
        ci: { repository: 'our/shop', ref: 'example', run: 'example' },
      },
    })
    expect(readCase({ ...example, repository: undefined, subject: 'ann' })).to.deep.include({
      subject: { name: 'ann', groups: [] },
    })
  })

  it('is not asked by a rule that says nothing of it', () => {
    expect(decide(ALL, get, { process: undefined, subject: person }).effect).to.equal('allow')
    const when = ALL.replace('effect', 'when: process.uid == 0, effect')
    expect(decide(when, get, { process: undefined, subject: person }).effect).to.equal('deny')
  })
})

describe('rules on the body', () => {
  const LABELS =
    '- {id: l, match: {verbs: [create], resources: [pods], labels: {team: [shop, "till-*"], owner: ["*"]}}, effect: allow}\n'
  const pods = (labels: object): RequestAttributes =>
    requestOf('POST', `${SHOP}/pods`, { metadata: { labels } })

  it('look at labels', () => {
    expect(decide(LABELS, pods({ team: 'shop', owner: 'x' })).effect).to.equal('allow')
    expect(decide(LABELS, pods({ team: 'till-2', owner: '' })).effect).to.equal('allow')
    for (const labels of [{ team: 'shop' }, { team: 'x', owner: 'x' }, {}])
      expect(decide(LABELS, pods(labels)).effect).to.equal('deny')
    expect(decide(LABELS, requestOf('POST', `${SHOP}/pods`)).reason).to.equal('policy_no_match')
  })

  const WHEN = (effect: string): string =>
    `- {id: w, match: {verbs: [create], resources: [pods]}, when: "object.spec.hostNetwork == true", effect: ${effect}}\n`

  it('look at fields', () => {
    const pod = (spec: object): RequestAttributes => requestOf('POST', `${SHOP}/pods`, { spec })
    expect(decide(ALL + WHEN('deny'), pod({ hostNetwork: true })).effect).to.equal('deny')
    expect(decide(ALL + WHEN('deny'), pod({ hostNetwork: false })).effect).to.equal('allow')
    const failed = decide(ALL + WHEN('hold'), pod({}))
    expect(failed).to.deep.include({ effect: 'deny', reason: 'policy_error', rules: ['w'] })
    expect(failed.explanation).to.contain('rule "w" has a condition that cannot be evaluated')
    // Without a body there is nothing that the rule could be about.
    expect(decide(ALL + WHEN('deny'), requestOf('POST', `${SHOP}/pods`)).effect).to.equal('allow')
  })

  it('deny what cannot be looked into, and only what they are about', () => {
    const opaque = requestOf(
      'POST',
      `${SHOP}/pods`,
      'k8s\0...',
      'application/vnd.kubernetes.protobuf',
    )
    for (const rules of [LABELS, WHEN('allow'), WHEN('deny')]) {
      const decision = decide(ALL + rules, opaque)
      expect(decision).to.deep.include({ effect: 'deny', reason: 'body_opaque' })
    }
    const elsewhere = requestOf(
      'POST',
      `${SHOP}/services`,
      'k8s',
      'application/vnd.kubernetes.protobuf',
    )
    expect(decide(ALL + WHEN('deny'), elsewhere).effect).to.equal('allow')
    // A rule that asks about the body only behind another question is not asked when that fails.
    const guarded = WHEN('deny').replace('object.spec', "request.namespace == 'x' && object.spec")
    expect(decide(ALL + guarded, opaque).reason).to.equal('body_opaque')
  })

  it('are not passed by a body that is not read, nor by a name that the server makes up', () => {
    const protobuf = 'application/vnd.kubernetes.protobuf'
    const opaque = requestOf('POST', `${SHOP}/pods`, 'k8s', protobuf)
    const rule = (match: string, when: string): string =>
      `- {id: w, match: {verbs: [create], resources: [pods]${match}}, ${when} effect: deny}\n`
    for (const when of ['has(request.labels.a)', "request.name == 'db'"]) {
      expect(decide(ALL + rule('', `when: "${when}",`), opaque).reason).to.equal('body_opaque')
      const known = requestOf('POST', `${SHOP}/pods`, { metadata: { name: 'web' } })
      expect(decide(ALL + rule('', `when: "${when}",`), known).effect).to.equal('allow')
    }
    const named = ALL + rule(', resourceNames: [db-*]', '')
    expect(decide(named, opaque).effect).to.equal('deny')
    const made = requestOf('POST', `${SHOP}/pods`, { metadata: { generateName: 'db-' } })
    expect(decide(named, made).effect).to.equal('deny')
    const other = requestOf('POST', `${SHOP}/pods`, { metadata: { name: 'web' } })
    expect(decide(named, other).effect).to.equal('allow')
  })

  it('tell nothing of the body when they fail', () => {
    const rule =
      '- {id: w, match: {verbs: [create], resources: [pods]}, when: "int(object.password) == 1", effect: deny}\n'
    const decision = decide(rule, requestOf('POST', `${SHOP}/pods`, { password: 'hunter2' }))
    expect(decision.reason).to.equal('policy_error')
    expect(JSON.stringify(decision)).not.to.contain('hunter2')
  })

  it('do not keep discovery from going through, unless they deny', () => {
    const rule = (effect: string): string =>
      `- {id: w, match: {verbs: [get], nonResourceURLs: ["/api*"]}, when: "request.parameters.fieldManager == 'x'", effect: ${effect}}\n`
    expect(decide(rule('hold'), requestOf('GET', '/api')).rules).to.deep.equal([
      'builtin:discovery',
    ])
    expect(decide(rule('deny'), requestOf('GET', '/api')).reason).to.equal('policy_error')
  })
})

describe('scopes', () => {
  it('limit a cluster to some policies', () => {
    const policy = policyOf(ALL, 'folder/ci.yaml')
    const known = createDecider(policy, {
      acceptVerdicts: ['exclusive'],
      scopes: new Map([
        ['a', ['ci']],
        ['b', ['other']],
      ]),
    })
    const effects = ['a', 'b', 'c'].map(
      (cluster) => known.decide(facts('GET', '/api/v1/pods', { cluster })).effect,
    )
    expect(effects).to.deep.equal(['allow', 'deny', 'allow'])
  })
})
