import { expect } from 'chai'
import { describe, it } from 'mocha'
import { makeReport } from '../../../../broker/access-review/report.ts'
import type { ReportDeps, ReportQuery } from '../../../../broker/access-review/report.ts'
import type { ApprovalEntry, IntentEntry } from '../../../../broker/ledger/entry.ts'
import type { AccessReport, Principal } from '../../../../shared/access-review-wire.ts'
import { reportSchema } from '../../../../shared/access-review-wire.ts'
import { directIntent, intent, TAG } from '../../../support/entries.ts'
import { memoryLedger } from '../../../support/memory-reviews.ts'
import type { MemoryLedger } from '../../../support/memory-reviews.ts'
import { policyOf } from '../../../support/policies.ts'

const DAY = 24 * 3600 * 1000
const SINCE = Date.UTC(2026, 0, 1)
const UNTIL = SINCE + 90 * DAY
const RULES = `
  - id: look-around
    match: { verbs: [get, list], apiGroups: ['', apps], resources: [pods, deployments] }
    effect: allow
  - id: scan
    match: { agents: [scanner], verbs: [get, list], resources: [secrets, 'pods/*'] }
    effect: allow
  - id: deletions
    match: { agents: ['janitor*'], verbs: [delete], resources: [deployments], apiGroups: [apps] }
    effect: hold
  - id: emergency
    match: { groups: [sre], verbs: ['*'], resources: ['*'] }
    effect: breakGlass
  - id: no-escalation
    match: { actions: [escalate] }
    effect: deny
`
const CREDENTIAL = { mode: 'impersonation', user: 'system:serviceaccount:shop:agents' } as const

type Change = Parameters<typeof intent>[0]

const did = (agent: string, change: Change = {}): IntentEntry =>
  intent({ agent, chain: [], credential: CREDENTIAL, ...change })

const approval = (requestId: string, change: Partial<ApprovalEntry>): ApprovalEntry => ({
  ...{ kind: 'approval', requestId, cluster: 'main', from: 'PENDING', to: 'APPROVED' },
  ...{ actor: 'alice', reason: 'looks right' },
  ...change,
})

const held: Change = {
  request: { verb: 'delete', resource: 'deployments', apiGroup: 'apps', name: 'old' },
  decision: { effect: 'hold', rules: ['deletions'] },
}

const deps = (
  ledger: MemoryLedger,
  rules = RULES,
  change: Partial<ReportDeps> = {},
): ReportDeps => ({
  store: ledger,
  checkpoints: ledger.checkpoints,
  policy: () => policyOf(rules),
  scopes: { get: () => undefined },
  acceptVerdicts: ['exclusive'],
  registrations: [],
  now: () => UNTIL + DAY,
  ...change,
})

const report = async (
  ledger: MemoryLedger,
  query: Partial<ReportQuery> = {},
  using: ReportDeps = deps(ledger),
): Promise<AccessReport> =>
  reportSchema.parse(
    await makeReport(using, { sinceMs: SINCE, untilMs: UNTIL, scope: {}, by: 'carol', ...query }),
  )

const of = ({ principals }: AccessReport, name: string): Principal => {
  const found = principals.find((one) => one.name === name)
  if (found === undefined) throw new Error(`no ${name}`)
  return found
}

describe('the access report', () => {
  it('tells of each agent what it could do, what it did, and what it never used', async () => {
    const ledger = memoryLedger()
    ledger.write(did('scanner', { decision: { rules: ['look-around'] } }), SINCE + DAY)
    ledger.write(did('scanner', { decision: { rules: ['look-around'] } }), SINCE + 2 * DAY)
    ledger.write(
      did('scanner', {
        request: { resource: 'secrets', verb: 'get' },
        decision: { rules: ['scan'] },
      }),
      SINCE + 3 * DAY,
    )
    const { requests, access, uses, limits } = of(await report(ledger), 'scanner')
    expect(requests).to.deep.equal({
      ...{ done: 3, held: 0, denied: 0, breakGlass: 0 },
      ...{
        first: new Date(SINCE + DAY).toISOString(),
        last: new Date(SINCE + 3 * DAY).toISOString(),
      },
    })
    expect(
      uses.map(({ cluster, namespace, verb, resource, done }) => [
        cluster,
        namespace,
        verb,
        resource,
        done,
      ]),
    ).to.deep.equal([
      ['main', 'shop', 'get', 'pods', 2],
      ['main', 'shop', 'get', 'secrets', 1],
    ])
    expect(
      access.map(({ rule, effect, applies, uses: used }) => [rule, effect, applies, used.done]),
    ).to.deep.equal([
      ['look-around', 'allow', 'applies', 2],
      ['scan', 'allow', 'applies', 1],
    ])
    expect(access.map(({ unused }) => unused)).to.deep.equal([
      { verbs: ['list'], actions: [], resources: ['deployments'] },
      { verbs: ['list'], actions: [], resources: ['pods/*'] },
    ])
    expect(limits).to.deep.equal(['no-escalation'])
  })

  it('pins the population to a checkpoint, and counts what it read', async () => {
    const ledger = memoryLedger()
    for (const day of [-2, -1, 1, 2, 91]) ledger.write(did('scanner'), SINCE + day * DAY)
    const { population, since, until, policy } = await report(ledger)
    const { note, root, size } = await ledger.checkpoints.current()
    expect(population).to.deep.include({
      ...{ origin: 'nestgate.test/ledger', size, note, from: 2, to: 4, read: 2, matched: 2 },
      root: Buffer.from(root).toString('base64'),
    })
    expect([since, until]).to.deep.equal([SINCE, UNTIL].map((at) => new Date(at).toISOString()))
    expect(policy.digest).to.equal(policyOf(RULES).digest)
  })

  it('reads nothing that was written after its checkpoint', async () => {
    const ledger = memoryLedger()
    ledger.write(did('scanner'), SINCE + DAY)
    const checkpoint = await ledger.checkpoints.current()
    ledger.write(did('late'), SINCE + 2 * DAY)
    const using = deps(ledger, RULES, {
      checkpoints: { origin: 'x', current: () => Promise.resolve(checkpoint) },
    })
    const { principals, population } = await report(ledger, {}, using)
    expect(principals.map(({ name }) => name))
      .to.include('scanner')
      .and.not.include('late')
    expect(population).to.include({ size: 1, from: 0, to: 1, read: 1 })
  })

  it('finds entries of the period whose clock was set back', async () => {
    const ledger = memoryLedger()
    // the search by halves looks at the middle, which is before the period
    for (const day of [-9, 1, 2, -5, -4, 3]) ledger.write(did('scanner'), SINCE + day * DAY)
    const { population } = await report(ledger)
    expect(population).to.include({ from: 1, to: 6, read: 5, matched: 3 })
  })

  it('tells what was held, who approved it and why, and whose access that was', async () => {
    const ledger = memoryLedger()
    const asked = did('janitor', { ...held, requestId: 'r1' })
    delete (asked as { credential?: unknown }).credential
    ledger.write(asked, SINCE + DAY)
    ledger.write(approval('r1', { from: 'RECEIVED', to: 'PENDING', actor: 'x' }), SINCE + DAY)
    ledger.write(approval('r1', { review: { verdict: 'approve', groups: [] } }), SINCE + DAY + 1)
    ledger.write(
      did('janitor', {
        ...held,
        requestId: 'r1',
        approval: { id: 'r1', reviewer: 'alice', approvers: ['alice', 'bob'], reason: 'y' },
      }),
      SINCE + DAY + 2,
    )
    ledger.write(
      approval('r1', { from: 'EXECUTING', to: 'SUCCEEDED', actor: 'nestgate-broker' }),
      SINCE + DAY + 3,
    )
    const janitor = of(await report(ledger), 'janitor')
    expect(janitor.requests).to.include({ done: 1, held: 1, denied: 0 })
    expect(janitor.held).to.deep.equal([
      {
        ...{ requestId: 'r1', at: new Date(SINCE + DAY).toISOString(), cluster: 'main' },
        ...{ namespace: 'shop', verb: 'delete', resource: 'deployments.apps', name: 'old' },
        ...{ rules: ['deletions'], breakGlass: false, state: 'SUCCEEDED' },
        reviews: [
          {
            reviewer: 'alice',
            verdict: 'approve',
            reason: 'looks right',
            at: new Date(SINCE + DAY + 1).toISOString(),
          },
        ],
      },
    ])
    const row = janitor.access.find(({ rule }) => rule === 'deletions')
    expect(row?.approvers).to.deep.equal(['alice', 'bob'])
  })

  it('counts break-glass and its open review', async () => {
    const ledger = memoryLedger()
    const oidc = { issuer: 'i', sub: 's', name: 'oidc:dave', groups: ['sre'] }
    const glass = (requestId: string): IntentEntry => {
      return directIntent('oidc:dave', {
        ...{ requestId, oidc, credential: CREDENTIAL },
        decision: { effect: 'breakGlass', rules: ['emergency'] },
        approval: { id: requestId, reviewer: '', reason: '', breakGlass: true },
      })
    }
    ledger.write(glass('g1'), SINCE + DAY)
    ledger.write(glass('g2'), SINCE + DAY)
    ledger.write(
      approval('g1', {
        from: 'SUCCEEDED',
        to: 'SUCCEEDED',
        review: { verdict: 'justified', groups: [] },
      }),
      SINCE + 2 * DAY,
    )
    const made = await report(ledger)
    const dave = of(made, 'oidc:dave')
    expect(dave).to.include({ kind: 'subject', seen: true })
    expect(dave.requests).to.include({ done: 2, breakGlass: 2 })
    expect(dave.held.map(({ reviews }) => reviews.map(({ verdict }) => verdict))).to.deep.equal([
      ['justified'],
      [],
    ])
    expect(made.summary.openReviews).to.equal(1)
    expect(dave.access.map(({ rule }) => rule)).to.deep.equal(['look-around', 'emergency'])
  })

  it('names an agent that appears only in denied entries, and what it could do nevertheless', async () => {
    const ledger = memoryLedger()
    ledger.write(
      intent({
        agent: 'intruder',
        decision: { effect: 'deny', rules: [], reason: 'policy_no_match' },
      }),
      SINCE + DAY,
    )
    const intruder = of(await report(ledger), 'intruder')
    expect(intruder.requests).to.include({ done: 0, denied: 1 })
    expect(intruder.uses).to.have.length(1)
    expect(intruder.access.map(({ rule, uses }) => [rule, uses.done])).to.deep.equal([
      ['look-around', 0],
    ])
  })

  it('counts what could not be read, for the pod', async () => {
    const ledger = memoryLedger()
    const subject = { type: 'serviceAccount', name: 'system:serviceaccount:shop:agents' } as const
    ledger.write(
      {
        kind: 'refusal',
        requestId: 'x',
        cluster: 'main',
        subject,
        reason: 'path_ambiguous',
        detail: '',
      },
      SINCE + DAY,
    )
    const made = await report(ledger)
    const pod = of(made, subject.name)
    expect(pod).to.include({ kind: 'serviceAccount', unread: 1, seen: true })
    expect(pod.access).to.deep.equal([])
  })

  it('lists registered agents and those that rules name, though they did nothing', async () => {
    const ledger = memoryLedger()
    const using = deps(ledger, RULES, {
      registrations: [{ name: 'janitor-night', owners: ['bob', 'group:night'] }, { name: 'idle' }],
    })
    const made = await report(ledger, {}, using)
    expect(made.principals.map(({ name, seen }) => [name, seen])).to.deep.equal([
      ['idle', false],
      ['janitor-night', false],
      ['scanner', false],
    ])
    const night = of(made, 'janitor-night')
    expect(night.owners).to.deep.equal(['bob', 'group:night'])
    expect(night.access.map(({ rule }) => rule)).to.deep.equal(['look-around', 'deletions'])
    expect(made.summary).to.include({ silent: 3, access: 5, unusedAccess: 5 })
  })

  it('lists rules that nobody used, and to how many they apply', async () => {
    const ledger = memoryLedger()
    ledger.write(did('scanner'), SINCE + DAY)
    const { unusedRules } = await report(ledger)
    expect(unusedRules.map(({ rule, principals }) => [rule, principals])).to.deep.equal([
      ['scan', 1],
      ['deletions', 0],
      ['emergency', 0],
    ])
  })

  it('tells what a rule asks for that was not seen', async () => {
    const ledger = memoryLedger()
    ledger.write(did('scanner'), SINCE + DAY)
    const rules = `
  - id: other-program
    match: { agents: [scanner], executables: [/opt/scan], verbs: [get], resources: [pods] }
    effect: allow
  - id: other-account
    match: { serviceAccounts: [shop/other], verbs: [get], resources: [pods] }
    effect: allow
  - id: same-program
    match: { executables: [/usr/bin/kubectl], verbs: [get], resources: [pods] }
    effect: allow
`
    const { access } = of(await report(ledger, {}, deps(ledger, rules)), 'scanner')
    expect(access.map(({ rule, applies, unseen }) => [rule, applies, unseen])).to.deep.equal([
      ['other-program', 'might', ['executables']],
      ['same-program', 'applies', []],
    ])
  })

  it('gives a direct client no rule that asks for a process', async () => {
    const ledger = memoryLedger()
    ledger.write(directIntent('oidc:dave', { decision: { rules: [] } }), SINCE + DAY)
    const rules = `
  - id: program
    match: { subjects: ['oidc:*'], executables: [/opt/scan], verbs: [get], resources: [pods] }
    effect: allow
  - id: group
    match: { subjects: ['oidc:*'], groups: [sre], verbs: [get], resources: [pods] }
    effect: allow
`
    const { access } = of(await report(ledger, {}, deps(ledger, rules)), 'oidc:dave')
    expect(access.map(({ rule, applies, unseen }) => [rule, applies, unseen])).to.deep.equal([
      ['group', 'might', ['groups']],
    ])
  })

  it('gives nothing to processes whose identification the broker does not accept', async () => {
    const ledger = memoryLedger()
    ledger.write(did('relayed', { tag: { ...TAG, verdict: 'relay' } }), SINCE + DAY)
    expect(of(await report(ledger), 'relayed').access.map(({ rule }) => rule)).to.deep.equal([
      'look-around',
    ])
    const strict = `
  - id: anybody
    match: { verbs: [get], resources: [pods] }
    effect: allow
`
    expect(of(await report(ledger, {}, deps(ledger, strict)), 'relayed').access).to.deep.equal([])
  })

  it('leaves out policies that do not hold for a cluster', async () => {
    const ledger = memoryLedger()
    ledger.write(did('other', { decision: { rules: [] } }), SINCE + DAY)
    const using = deps(ledger, RULES, { scopes: { get: () => ['another-policy'] } })
    expect(of(await report(ledger, {}, using), 'other').access).to.deep.equal([])
  })

  it('tells of rules that decided in the period and that are gone, and that policy changed', async () => {
    const ledger = memoryLedger()
    ledger.write(
      did('scanner', { decision: { rules: ['old-rule'], policyDigest: 'e'.repeat(64) } }),
      SINCE + DAY,
    )
    ledger.write(did('scanner', { decision: { rules: ['look-around'] } }), SINCE + 2 * DAY)
    const made = await report(ledger)
    const scanner = of(made, 'scanner')
    expect(scanner.removed.map(({ rule, uses }) => [rule, uses.done])).to.deep.equal([
      ['old-rule', 1],
    ])
    expect(scanner.access.map(({ rule }) => rule)).to.not.include('old-rule')
    expect(made.policy.decided.map(({ requests }) => requests)).to.deep.equal([1, 1])
    expect(made.notes.join()).to.contain('2 policies decided in the period')
  })

  it('reads entries that were cut to fit, finds their rules, and says so', async () => {
    const ledger = memoryLedger()
    const long = 'r'.repeat(90)
    const rules = `
  - id: ${long}
    match: { verbs: [get], resources: [pods] }
    effect: allow
`
    const many = (count: number): string[] =>
      Array.from({ length: count }, (_, at) => `${at}`.padEnd(400, 'x'))
    const attributes = {
      ...{ policyVerb: 'get', actions: [], equivalents: [], objectName: 'web-0' },
      parameters: { dryRun: false, command: many(200) },
      labels: Object.fromEntries(many(200).map((key) => [key, key])),
    }
    const huge = did('scanner', {
      ...{ chain: many(900), decision: { rules: [long] }, request: { attributes } },
      oidc: { issuer: 'i', sub: 's', name: 'n', groups: many(500) },
    })
    ledger.write(huge, SINCE + DAY)
    // the last cut, which spares nothing
    const [leaf] = await ledger.leaves(0, 1)
    expect(Buffer.from(leaf?.bytes ?? []).toString()).to.contain(`${'r'.repeat(64)}…[cut: 26`)
    const made = await report(ledger, {}, deps(ledger, rules))
    expect(made.population).to.include({ shortened: 1, unreadable: 0, matched: 1 })
    const scanner = of(made, 'scanner')
    expect(scanner.removed).to.deep.equal([])
    expect(scanner.access.map(({ rule, uses }) => [rule, uses.done])).to.deep.equal([[long, 1]])
    expect(made.notes.join()).to.contain('1 entries of the period have texts that were cut')
  })

  it('counts what it cannot read, and goes on', async () => {
    const ledger = memoryLedger()
    ledger.writeBytes(Buffer.from('{"kind":"intent"}'), SINCE + DAY)
    ledger.writeBytes(Buffer.from('no json'), SINCE + DAY)
    ledger.writeBytes(Buffer.from('{"kind":"from_the_future"}'), SINCE + DAY)
    ledger.write(did('scanner'), SINCE + 2 * DAY)
    const made = await report(ledger)
    expect(made.population).to.include({ read: 4, unreadable: 3, matched: 1 })
    expect(of(made, 'scanner').requests.done).to.equal(1)
  })

  it('says that a part of the period is not kept any more', async () => {
    const ledger = memoryLedger()
    for (const day of [1, 2, 3]) ledger.write(did('scanner'), SINCE + day * DAY)
    ledger.prune(2)
    const { population, notes } = await report(ledger)
    expect(population).to.include({ from: 2, to: 3, read: 1 })
    expect(notes.join()).to.contain('Entries below 2 are not kept any more')
  })

  it('puts names of people in place of their pseudonyms', async () => {
    const ledger = memoryLedger(['oidc:dave', 'alice'])
    ledger.write(directIntent('oidc:dave', { credential: CREDENTIAL }), SINCE + DAY)
    const [leaf] = await ledger.leaves(0, 1)
    expect(Buffer.from(leaf?.bytes ?? []).toString()).to.not.contain('dave')
    expect(of(await report(ledger), 'oidc:dave').requests.done).to.equal(1)
  })

  it('reads a page again only where it has somebody new', async () => {
    const ledger = memoryLedger(['oidc:dave', 'oidc:erin'])
    const writes = (name: string, from: number): void => {
      for (let at = 0; at < 1_000; at += 1)
        ledger.write(directIntent(name, { credential: CREDENTIAL }), SINCE + (from + at) * 1000)
    }
    writes('oidc:dave', 0)
    writes('oidc:erin', 1_000)
    let pages = 0
    const store = {
      ...ledger,
      events: (...args: Parameters<typeof ledger.events>) => {
        if (Object.keys(args[0]).length === 0) pages += 1
        return ledger.events(...args)
      },
    }
    const made = await report(ledger, {}, deps(ledger, RULES, { store }))
    for (const name of ['oidc:dave', 'oidc:erin'])
      expect(of(made, name).requests.done).to.equal(1_000)
    expect(pages).to.equal(2)
  })

  it('keeps to its scope', async () => {
    const ledger = memoryLedger()
    ledger.write(did('scanner'), SINCE + DAY)
    ledger.write(did('janitor', { cluster: 'far' }), SINCE + DAY)
    ledger.write(did('walker', { request: { namespace: 'other' } }), SINCE + DAY)
    const rules = `
  - id: here
    match: { verbs: [get], resources: [pods], namespaces: [shop] }
    effect: allow
  - id: there
    match: { clusters: [far], verbs: [get], resources: [pods] }
    effect: allow
`
    const names = async (scope: ReportQuery['scope']): Promise<[string[], string[]]> => {
      const made = await report(ledger, { scope }, deps(ledger, rules))
      return [made.principals.map(({ name }) => name), made.unusedRules.map(({ rule }) => rule)]
    }
    expect(await names({ cluster: 'far' })).to.deep.equal([['janitor'], ['here', 'there']])
    expect(await names({ cluster: 'main' })).to.deep.equal([['scanner', 'walker'], ['here']])
    expect(await names({ namespace: 'other' })).to.deep.equal([['walker'], ['there']])
    expect((await names({ agent: 'scanner' }))[0]).to.deep.equal(['scanner'])
    expect(
      (await names({ subject: 'system:serviceaccount:shop:agents', cluster: 'far' }))[0],
    ).to.deep.equal(['janitor'])
  })

  it('says that a scope has nobody', async () => {
    const ledger = memoryLedger()
    ledger.write(did('scanner'), SINCE + DAY)
    const made = await report(ledger, { scope: { agent: 'nobody' } })
    expect(made.principals).to.deep.equal([])
    expect(made.notes).to.include(
      'Nobody in this scope made a request, is registered, or is named by a rule.',
    )
  })

  it('keeps no text that is as long as its caller likes, and not too many of them', async () => {
    const ledger = memoryLedger()
    for (let at = 0; at < 12_000; at += 1) {
      const [namespace, path] = [`${at}`.padEnd(550, 'n'), `/${at}`.padEnd(550, 'p')]
      const request = { isResourceRequest: false, resource: '', namespace, path, verb: path }
      ledger.write(did(`agent-${at % 40}`, { request, chain: [path] }), SINCE + DAY + at)
    }
    const made = await report(ledger)
    const text = JSON.stringify(made)
    expect(text.length)
      .to.be.greaterThan(10 * 1024 * 1024)
      .and.lessThan(24 * 1024 * 1024)
    for (const letter of ['n', 'p']) expect(text.includes(letter.repeat(520))).to.equal(false)
    expect(made.summary.requests.done).to.equal(12_000)
    expect(
      made.principals.some(({ cut }) => cut.join().includes('more kinds of requests')),
    ).to.equal(true)
  }).timeout(20_000)

  it('says what its bounds cut', async () => {
    const ledger = memoryLedger()
    for (let at = 0; at < 600; at += 1)
      ledger.write(
        did('scanner', { request: { resource: `kind-${at}` }, agent: 'scanner' }),
        SINCE + DAY + at,
      )
    for (let at = 0; at < 5_000; at += 1) ledger.write(did(`agent-${at}`), SINCE + 2 * DAY)
    const made = await report(ledger)
    const scanner = of(made, 'scanner')
    expect(scanner.uses).to.have.length(500)
    expect(scanner.requests.done).to.equal(600)
    expect(scanner.cut.join()).to.contain('more kinds of requests than are listed')
    expect(made.principals).to.have.length(5_000)
    expect(made.notes.join()).to.contain('more than 5000 principals; 1 entries are of others')
  }).timeout(20_000)
})
