import { expect } from 'chai'
import { beforeEach, describe, it } from 'mocha'
import { CSV_COLUMNS, CSV_HEAD, csvRow } from '../../../broker/audit/export/csv.ts'
import { kubernetesEvent } from '../../../broker/audit/export/kubernetes.ts'
import { ocsfEvent } from '../../../broker/audit/export/ocsf.ts'
import { happenings, MAX_WAITING } from '../../../broker/audit/export/requests.ts'
import type { Happening } from '../../../broker/audit/export/requests.ts'
import { ascending, BATCH } from '../../../broker/audit/windows.ts'
import type { Entry, IntentEntry } from '../../../broker/ledger/entry.ts'
import type { EventFilter } from '../../../broker/store/store.ts'
import { intent, outcome } from '../../support/entries.ts'
import { MemoryLedger } from '../../support/memory-ledger.ts'

const ID = '01a00000-0000-7000-8000-000000000000'

let ledger: MemoryLedger
beforeEach(() => {
  ledger = new MemoryLedger()
})

const approved: IntentEntry = {
  ...intent({
    requestId: ID,
    agent: 'deployer',
    chain: ['planner'],
    approval: { id: 'a1', reviewer: 'bob', approvers: ['bob', 'eve'], reason: 'looks right' },
    oidc: { issuer: 'https://idp.example', sub: '1', name: 'corp:dora', groups: ['sre'] },
    credential: { mode: 'impersonation', user: 'nestgate:deployer', groups: ['writers'] },
    request: {
      ...{ verb: 'patch', method: 'PATCH', apiGroup: 'apps', resource: 'deployments' },
      ...{ subresource: 'scale', name: 'web', query: 'dryRun=All', bodyBytes: 9 },
      path: '/apis/apps/v1/namespaces/shop/deployments/web/scale',
      attributes: {
        ...{ policyVerb: 'patch', actions: ['scale', 'dry-run'] as const, equivalents: [] },
        ...{ parameters: { dryRun: true }, objectName: 'web' },
      },
    },
    decision: { effect: 'hold', rules: ['scaling'] },
  }),
}

async function all<T>(batches: AsyncIterable<readonly T[]>): Promise<T[]> {
  const found: T[] = []
  for await (const batch of batches) found.push(...batch)
  return found
}
const exported = async (
  entries: readonly Entry[],
  filter: EventFilter = {},
): Promise<Happening[]> => {
  await ledger.append(entries)
  return all(happenings(ledger, filter, { from: 0, to: ledger.rows.length }))
}
/** A happening in short: numbers of its entries. */
const short = (one: Happening): string =>
  'other' in one ? `other ${one.other.seq}` : `${one.intent.seq}+${one.outcome?.seq ?? ''}`

describe('entries oldest first', () => {
  const seqs = async (filter: EventFilter, from = 0, to = ledger.rows.length) =>
    (await all(ascending(ledger, filter, { from, to }))).map(({ seq }) => seq)

  for (const [what, every] of [
    ['all', 1],
    ['half', 2],
    ['few', 97],
    ['one', 4000],
  ] as const) {
    it(`are found each once where ${what} of them match`, async () => {
      const of = (i: number): string => (i % every === 0 ? 'x' : 'y')
      await ledger.append(Array.from({ length: 4000 }, (_, i) => intent({ agent: of(i) })))
      for (const [from, to] of [
        [0, 4000],
        [1, 3999],
        [BATCH, 2 * BATCH],
        [3998, 4000],
      ] as const) {
        const expected = Array.from({ length: to - from }, (_, i) => from + i)
        expect(await seqs({ agent: 'x' }, from, to)).to.deep.equal(
          expected.filter((seq) => seq % every === 0),
        )
      }
    })
  }

  it('are found where they lie close together behind a long gap', async () => {
    const of = (i: number): string => (i >= 3000 && i < 3900 ? 'x' : 'y')
    await ledger.append(Array.from({ length: 4000 }, (_, i) => intent({ agent: of(i) })))
    expect(await seqs({ agent: 'x' })).to.deep.equal(
      Array.from({ length: 900 }, (_, i) => 3000 + i),
    )
  })

  it('cost few searches where hardly any match', async () => {
    await ledger.append(Array.from({ length: 20_000 }, () => intent()))
    ledger.searches = 0
    expect(await seqs({ agent: 'nobody' })).to.deep.equal([])
    expect(ledger.searches).to.be.lessThan(8)
  })
})

describe('requests of an export', () => {
  const deny = { effect: 'deny', reason: 'policy_denied' } as const

  it('are pairs of intent and outcome, once each; what has no pair stands alone', async () => {
    const found = await exported([
      intent({ requestId: 'a' }),
      intent({ requestId: 'b', decision: deny }),
      intent({ requestId: 'c' }),
      outcome('a'),
      outcome('lost'),
      { kind: 'system', event: 'audit_read', actor: 'carol', detail: {} },
    ])
    expect(found.map(short)).to.deep.equal(['1+', '0+3', 'other 4', 'other 5', '2+'])
  })

  it('have both intents of one that was held and asked again', async () => {
    const found = await exported([
      intent({ requestId: 'a' }),
      intent({ requestId: 'a' }),
      outcome('a'),
    ])
    expect(found.map(short)).to.deep.equal(['0+', '1+2'])
    const same = await all(happenings(ledger, { verb: 'get' }, { from: 0, to: 3 }))
    expect(same.map(short)).to.deep.equal(['0+', '1+2'])
  })

  it('have the intent of an outcome although it lies before the range', async () => {
    await ledger.append([intent({ requestId: 'a' }), outcome('a')])
    const found = await all(happenings(ledger, {}, { from: 1, to: 2 }))
    expect(found.map(short)).to.deep.equal(['0+1'])
  })

  it('have no outcome that lies behind the range', async () => {
    await ledger.append([intent({ requestId: 'a' }), outcome('a')])
    for (const filter of [{}, { verb: 'get' }])
      expect((await all(happenings(ledger, filter, { from: 0, to: 1 }))).map(short)).to.deep.equal([
        '0+',
      ])
  })

  it('have their outcome where the conditions are met by the intent only, or by the outcome only', async () => {
    const entries = [
      intent({ requestId: 'a', agent: 'x' }),
      outcome('a', 500),
      intent(),
      outcome('b'),
    ]
    expect((await exported(entries, { agent: 'x' })).map(short)).to.deep.equal(['0+1'])
    const range = { from: 0, to: 4 }
    expect((await all(happenings(ledger, { status: 500 }, range))).map(short)).to.deep.equal([
      '0+1',
    ])
    expect((await all(happenings(ledger, { requestId: 'a' }, range))).map(short)).to.deep.equal([
      '0+1',
    ])
  })

  it('come once each, also when more are under way than are kept', async () => {
    const ids = Array.from({ length: MAX_WAITING + 500 }, (_, i) => `r${i}`)
    const found = await exported([
      ...ids.map((requestId) => intent({ requestId })),
      ...ids.slice(100).map((requestId) => outcome(requestId)),
    ])
    expect(found).to.have.length(ids.length)
    const paired = found.filter((one) => 'intent' in one && one.outcome !== undefined)
    expect(paired).to.have.length(ids.length - 100)
    for (const one of paired)
      if ('intent' in one) expect(one.outcome?.requestId).to.equal(one.intent.requestId)
  })
})

describe('an entry as a row of CSV', () => {
  const cells = async (entry: Entry): Promise<Record<string, string>> => {
    await ledger.append([entry])
    const event = ledger.rows.at(-1)!.event
    const line = csvRow(event)
    expect(line).to.match(/\r\n$/)
    const found = [...line.slice(0, -2).matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^,]*))/g)]
    return Object.fromEntries(
      found.map(([, quoted, bare], i) => [CSV_COLUMNS[i], quoted?.replaceAll('""', '"') ?? bare]),
    ) as Record<string, string>
  }

  it('has a cell for each condition', async () => {
    expect(CSV_HEAD).to.equal(`${CSV_COLUMNS.join(',')}\r\n`)
    expect(await cells(approved)).to.deep.equal({
      ...{ seq: '0', time: '2026-01-01T00:00:00.001000Z', kind: 'intent', requestId: ID },
      who: 'deployer',
      what: 'patch deployments/scale shop/web',
      result: 'hold approved by bob',
      ...{ event: '', cluster: 'main', subject: 'system:serviceaccount:shop:agents' },
      ...{ agent: 'deployer', ancestors: 'planner', podUid: 'pod-1', exe: '/usr/bin/kubectl' },
      ...{ verb: 'patch', actions: 'scale; dry-run', resource: 'deployments/scale' },
      ...{ namespace: 'shop', name: 'web', effect: 'hold', reason: '', rules: 'scaling' },
      ...{ reviewer: 'bob; eve', status: '' },
    })
  })

  it('has status and reason of an outcome, and who decided', async () => {
    const ended = { ...outcome(ID, 200), reason: 'stream_broken' as const }
    expect(await cells(ended)).to.include({ status: '200', reason: 'stream_broken', agent: '' })
    const step = { kind: 'approval', requestId: ID, cluster: 'main', reason: '404' } as const
    const denied = { ...step, from: 'PENDING', to: 'DENIED', actor: 'eve' }
    expect(await cells(denied)).to.include({ reviewer: 'eve', status: '', reason: '404' })
    const reused = { ...step, from: 'RECEIVED', to: 'APPROVED', actor: 'agent' }
    expect(await cells(reused)).to.include({ reviewer: '' })
    const refused = { effect: 'deny', reason: 'policy_denied' } as const
    expect(await cells(intent({ decision: refused }))).to.include({ status: '403' })
  })

  for (const text of [
    '=HYPERLINK("http://evil.example")',
    '+1',
    '-1',
    '@SUM(A1)',
    '\t=1',
    '\r=1',
    ' =1',
    '"=1',
    "'=1",
    '＝1',
    '\n=1',
  ]) {
    it(`is text to a spreadsheet: ${JSON.stringify(text)}`, async () => {
      const { agent = '', who } = await cells(intent({ agent: text }))
      expect(agent).to.match(/^'/)
      expect(agent).to.not.match(/[\t\r\n]/)
      expect(who).to.equal(agent)
    })
  }

  it('is one line, whatever somebody called it', async () => {
    await ledger.append([intent({ agent: 'a\r\nb,"c"\u202e' })])
    const line = csvRow(ledger.rows.at(-1)!.event)
    expect(line).to.contain('"a\\u{d}\\u{a}b,""c""\\u{202e}"')
    expect(line.slice(0, -2)).to.not.match(/[\r\n]/)
  })
})

describe('a request as an event of Kubernetes’ audit log', () => {
  it('has what that has a field for, and annotations', async () => {
    const [happening] = await exported([approved, outcome(ID, 404)])
    expect(kubernetesEvent(happening!)).to.deep.equal({
      ...{ kind: 'Event', apiVersion: 'audit.k8s.io/v1', level: 'Metadata' },
      ...{ auditID: ID, stage: 'ResponseComplete', verb: 'patch' },
      requestURI: '/apis/apps/v1/namespaces/shop/deployments/web/scale?dryRun=All',
      user: { username: 'system:serviceaccount:shop:agents', groups: ['sre'] },
      impersonatedUser: { username: 'nestgate:deployer', groups: ['writers'] },
      userAgent: 'kubectl/v1.33',
      objectRef: {
        ...{ resource: 'deployments', namespace: 'shop', name: 'web' },
        ...{ apiGroup: 'apps', apiVersion: 'v1', subresource: 'scale' },
      },
      responseStatus: { metadata: {}, status: 'Failure', code: 404 },
      requestReceivedTimestamp: '2026-01-01T00:00:00.001000Z',
      stageTimestamp: '2026-01-01T00:00:00.002000Z',
      annotations: {
        'nestgate.dev/seq': '0',
        'nestgate.dev/outcome-seq': '1',
        'nestgate.dev/duration-ms': '3',
        'nestgate.dev/cluster': 'main',
        'nestgate.dev/decision': 'hold',
        'nestgate.dev/rules': 'scaling',
        'nestgate.dev/policy-digest': 'd'.repeat(64),
        'nestgate.dev/actions': 'scale, dry-run',
        'nestgate.dev/body-sha256': '0'.repeat(64),
        'nestgate.dev/agent': 'deployer',
        'nestgate.dev/ancestors': 'planner',
        'nestgate.dev/pod': 'shop/agents-0',
        'nestgate.dev/pod-uid': 'pod-1',
        'nestgate.dev/verdict': 'exclusive',
        'nestgate.dev/exe': '/usr/bin/kubectl',
        'nestgate.dev/approval-id': 'a1',
        'nestgate.dev/approved-by': 'bob, eve',
        'nestgate.dev/approval-reason': 'looks right',
        'nestgate.dev/credential-mode': 'impersonation',
        'nestgate.dev/credential-user': 'nestgate:deployer',
      },
    })
  })

  it('is refused with its status, and without an outcome only received', async () => {
    const deny = { effect: 'deny', reason: 'policy_no_match' } as const
    const request = { isResourceRequest: false, resource: '', path: '/version' }
    const [refused, open] = await exported([intent({ decision: deny }), intent({ request })])
    expect(kubernetesEvent(refused!)).to.deep.include({
      stage: 'ResponseComplete',
      responseStatus: {
        metadata: {},
        status: 'Failure',
        message: 'nestgate: policy_no_match',
        code: 403,
      },
    })
    const received = kubernetesEvent(open!)
    expect(received).to.deep.include({ stage: 'RequestReceived', requestURI: '/version' })
    for (const absent of ['responseStatus', 'objectRef', 'impersonatedUser'])
      expect(received).to.not.have.property(absent)
  })

  it('has no status where there was no answer, and is a failure where it broke off', async () => {
    const [none, broken] = await exported([
      ...[intent({ requestId: 'a' }), outcome('a', 0)],
      ...[intent({ requestId: 'b' }), { ...outcome('b', 200), reason: 'client_left' as const }],
    ])
    expect(kubernetesEvent(none!)).to.not.have.property('responseStatus')
    expect(kubernetesEvent(none!)).to.have.property('stage', 'ResponseComplete')
    expect(kubernetesEvent(broken!)).to.have.nested.property('responseStatus.status', 'Failure')
  })

  it('says what of the answer was hidden', async () => {
    const masked = { profiles: ['standard'], count: 3, fields: ['Secret data.a', 'Secret data.b'] }
    const [one] = await exported([intent({ requestId: 'a' }), { ...outcome('a', 200), masked }])
    expect(kubernetesEvent(one!)).to.have.property('annotations').that.deep.includes({
      'nestgate.dev/masked-count': '3',
      'nestgate.dev/masked-fields': 'Secret data.a, Secret data.b',
    })
  })

  it('is made of a request that could not be read, and of nothing else', async () => {
    const subject = { type: 'serviceAccount', name: 'sa' } as const
    const [refusal, other] = await exported([
      {
        ...{ kind: 'refusal', requestId: ID, cluster: 'main', subject },
        ...{ reason: 'path_ambiguous', detail: 'two slashes' },
      },
      { kind: 'system', event: 'login', actor: 'x', detail: {} },
    ])
    expect(kubernetesEvent(refusal!)).to.deep.include({
      ...{ auditID: ID, user: { username: 'sa' }, verb: '', requestURI: '' },
    })
    expect(kubernetesEvent(other!)).to.equal(undefined)
  })
})

describe('what happened as OCSF', () => {
  it('has the attributes of API Activity, and the rest unmapped', async () => {
    const [happening] = await exported([approved, outcome(ID, 200)])
    const [first, second] = ledger.rows
    expect(ocsfEvent(happening!)).to.deep.equal({
      metadata: {
        ...{ version: '1.4.0', log_name: 'ledger', sequence: 0, uid: '0', correlation_uid: ID },
        product: { name: 'Nestgate', vendor_name: 'Nestgate' },
        original_time: '2026-01-01T00:00:00.001000Z',
      },
      ...{ category_uid: 6, category_name: 'Application Activity' },
      ...{ class_uid: 6003, class_name: 'API Activity' },
      ...{ activity_id: 3, activity_name: 'Update', type_uid: 600303 },
      ...{ time: Date.UTC(2026, 0, 1) + 1, start_time: Date.UTC(2026, 0, 1) + 1 },
      ...{ end_time: Date.UTC(2026, 0, 1) + 2, duration: 3 },
      ...{ severity_id: 1, severity: 'Informational' },
      ...{ status_id: 1, status: 'Success', status_code: '200' },
      actor: {
        user: { name: 'system:serviceaccount:shop:agents', type_id: 3, groups: [{ name: 'sre' }] },
        app_name: 'deployer',
        process: {
          ...{ pid: 42, name: 'kubectl' },
          file: { name: 'kubectl', path: '/usr/bin/kubectl', type_id: 1 },
          parent_process: { pid: 7, name: 'sh', file: { name: 'sh', path: '/bin/sh', type_id: 1 } },
        },
      },
      api: {
        ...{ operation: 'patch', service: { name: 'main' }, request: { uid: ID } },
        ...{ group: { name: 'apps' }, version: 'v1' },
      },
      resources: [{ type: 'deployments/scale', name: 'web', namespace: 'shop' }],
      http_request: {
        ...{ uid: ID, http_method: 'PATCH', user_agent: 'kubectl/v1.33' },
        url: {
          path: '/apis/apps/v1/namespaces/shop/deployments/web/scale',
          query_string: 'dryRun=All',
        },
      },
      http_response: { code: 200 },
      src_endpoint: { uid: 'pod-1', name: 'agents-0' },
      dst_endpoint: { svc_name: 'main' },
      unmapped: { intent: first?.event.entry, outcome: second?.event.entry },
    })
  })

  const verbs: readonly [string, number][] = [
    ['create', 1],
    ['get', 2],
    ['list', 2],
    ['watch', 2],
    ['update', 3],
    ['patch', 3],
    ['delete', 4],
    ['deletecollection', 4],
    ['proxy', 99],
    ['toString', 99],
  ]
  for (const [verb, activity] of verbs) {
    it(`has activity ${activity} for ${verb}`, async () => {
      const [happening] = await exported([intent({ request: { verb } })])
      expect(ocsfEvent(happening!)).to.include({
        ...{ activity_id: activity, type_uid: 600300 + activity, status_id: 0 },
      })
    })
  }

  it('leaves no entry out', async () => {
    const events = (
      await exported([
        { kind: 'system', event: 'login', actor: 'carol', detail: { issuer: 'token' } },
        {
          ...{ kind: 'approval', requestId: ID, cluster: 'main', from: 'PENDING', to: 'DENIED' },
          ...{ actor: 'eve', reason: 'no' },
        },
        outcome('lost', 500),
      ])
    ).map(ocsfEvent)
    expect(
      events.map((event) => (event as { api: { operation: string } }).api.operation),
    ).to.deep.equal(['login', 'approval', 'outcome'])
    expect(events[0]).to.deep.include({ actor: { user: { name: 'carol', type_id: 0 } } })
    expect(events[2]).to.include({ status: 'Failure', status_code: '500' })
    for (const event of events) {
      expect(event).to.have.nested.property('unmapped.entry')
      expect(event).to.include({ class_uid: 6003, activity_id: 99, type_uid: 600399 })
      expect(event).to.have.property('src_endpoint')
    }
  })
})
