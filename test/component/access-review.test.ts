/** Access reviews over a real socket and on a real store. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import {
  campaignItemsSchema,
  campaignListSchema,
  campaignSchema,
  MAX_CAMPAIGN_ITEMS,
  reportSchema,
} from '../../shared/access-review-wire.ts'
import { REASONS } from '../../shared/reasons.ts'
import type { Reason } from '../../shared/reasons.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { directIntent, intent } from '../support/entries.ts'
import { policyOf } from '../support/policies.ts'

const RULES = `
  - id: scan
    match: { agents: [scanner], verbs: [get], resources: [secrets] }
    effect: allow
  - id: look-around
    match: { agents: ['*'], verbs: [get, list], resources: [pods] }
    effect: allow
`
const DAY = 24 * 3600 * 1000

interface Reply {
  readonly status: number
  readonly body: unknown
}

describe('access reviews over the API', () => {
  let api: ApiServer
  let dispatcher: Agent
  let policy = policyOf(RULES)
  const since = new Date(Date.now() - DAY).toISOString()
  const until = new Date(Date.now() + DAY).toISOString()
  before(async () => {
    dispatcher = new Agent()
    api = await startApi(
      undefined,
      {},
      {
        accessReview: {
          policy: () => policy,
          scopes: { get: () => undefined },
          acceptVerdicts: ['exclusive'],
          registrations: [{ name: 'scanner', owners: ['eve'] }],
        },
      },
    )
    await api.store.append([
      intent({ agent: 'scanner', chain: [], credential: { mode: 'issuer', user: 'x' } }),
      intent({ agent: 'scanner', chain: [], decision: { effect: 'deny', rules: [] } }),
      intent({ agent: 'janitor', chain: [], credential: { mode: 'issuer', user: 'x' } }),
    ])
  })
  after(async () => {
    await dispatcher.close()
    await api.close()
  })

  const call = async (
    who: string,
    method: 'GET' | 'POST',
    path: string,
    body?: unknown,
  ): Promise<Reply> => {
    const response = await request(api.url + path, {
      ...{ method, dispatcher, body: body === undefined ? null : JSON.stringify(body) },
      headers: { authorization: `Bearer token-${who}`, 'content-type': 'application/json' },
    })
    return { status: response.statusCode, body: await response.body.json() }
  }
  const expectRefusal = ({ status, body }: Reply, reason: Reason): void => {
    expect(body).to.include({ code: reason })
    expect(status).to.equal(REASONS[reason].status)
  }
  const period = new URLSearchParams({ since, until }).toString()
  const open = { title: 'autumn', since, until, reviewers: ['alice', 'group:sre'] }

  it('reports to auditors, and writes down that it did', async () => {
    const { status, body } = await call('carol', 'GET', `/v1/access-review?${period}`)
    expect(status).to.equal(200)
    const report = reportSchema.parse(body)
    expect(
      report.principals.map(({ name, requests }) => [name, requests.done, requests.denied]),
    ).to.deep.equal([
      ['scanner', 1, 1],
      ['janitor', 1, 0],
    ])
    const { size, root } = await api.store.head()
    expect(report.population.size).to.equal(size - 1)
    expect(report.population.root).to.not.equal(Buffer.from(root).toString('base64'))
    const [read] = await api.store.events({ event: 'audit_read' }, 1)
    expect(read?.entry).to.deep.include({ actor: 'carol' })
    expect(read?.entry).to.have.nested.property('detail.returned', 3)
  })

  it('can be counted again from an export that ends in the very same checkpoint', async () => {
    const report = reportSchema.parse(
      (await call('carol', 'GET', `/v1/access-review?${period}`)).body,
    )
    const { from, to, read, size, note } = report.population
    const response = await request(
      `${api.url}/v1/audit/export?format=jsonl&from=${from}&to=${size}`,
      { dispatcher, headers: { authorization: 'Bearer token-carol' } },
    )
    const lines = (await response.body.text())
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { seq?: number; leaf?: string; checkpoint?: string })
    expect(lines.at(-1)).to.include({ checkpoint: note, end: true })
    const leaves = lines.filter(({ seq = -1 }) => seq >= from && seq < to)
    expect(leaves).to.have.length(read)
    interface Counted {
      readonly kind: string
      readonly decision: { readonly effect: string }
      readonly credential?: object
    }
    const counts = { done: 0, held: 0, denied: 0 }
    for (const { leaf = '' } of leaves) {
      const entry = JSON.parse(Buffer.from(leaf, 'base64').toString()) as Counted
      if (entry.kind !== 'intent') continue
      if (entry.decision.effect === 'deny') counts.denied += 1
      else if (entry.credential === undefined) counts.held += 1
      else counts.done += 1
    }
    expect(report.summary.requests).to.deep.include(counts)
    expect(counts).to.deep.equal({ done: 2, held: 0, denied: 1 })
  })

  const refused: readonly [string, 'GET' | 'POST', string, unknown, Reason][] = [
    ['alice', 'GET', `/v1/access-review?${period}`, undefined, 'role_missing'],
    ['carol', 'GET', '/v1/access-review', undefined, 'query_invalid'],
    ['carol', 'GET', `/v1/access-review?since=${since}&until=${since}`, undefined, 'query_invalid'],
    ['carol', 'GET', `/v1/access-review?${period}&user=x`, undefined, 'query_invalid'],
    ['carol', 'GET', `/v1/access-review?${period}&agent=`, undefined, 'query_invalid'],
    ['alice', 'POST', '/v1/campaigns', open, 'role_missing'],
    ['carol', 'POST', '/v1/campaigns', { ...open, reviewers: [] }, 'body_invalid'],
    ['carol', 'POST', '/v1/campaigns', { ...open, until: since }, 'body_invalid'],
    ['carol', 'POST', '/v1/campaigns', { ...open, title: '' }, 'body_invalid'],
    [
      'carol',
      'POST',
      '/v1/campaigns',
      { ...open, scope: { namespace: 'x', agent: 'nobody' } },
      'campaign_unfit',
    ],
    ['carol', 'GET', '/v1/campaigns/none', undefined, 'campaign_unknown'],
    ['carol', 'GET', '/v1/campaigns/none/items', undefined, 'campaign_unknown'],
    ['carol', 'GET', '/v1/campaigns/none/items?mine=false', undefined, 'query_invalid'],
    ['alice', 'POST', '/v1/campaigns/none/sign-off', { reason: 'x' }, 'role_missing'],
    ['alice', 'POST', '/v1/campaigns/none/cancel', { reason: 'x' }, 'role_missing'],
    [
      'alice',
      'POST',
      '/v1/campaigns/none/items/1/remediated',
      { policyDigest: '0'.repeat(64) },
      'role_missing',
    ],
    [
      'alice',
      'POST',
      '/v1/campaigns/none/items/1/decide',
      { verdict: 'certify', reason: 'x' },
      'campaign_unknown',
    ],
    [
      'alice',
      'POST',
      '/v1/campaigns/none/items/1/decide',
      { verdict: 'certify', reason: ' ' },
      'body_invalid',
    ],
    [
      'alice',
      'POST',
      '/v1/campaigns/none/items/1/decide',
      { verdict: 'exception', reason: 'x' },
      'body_invalid',
    ],
    [
      'alice',
      'POST',
      '/v1/campaigns/none/items/1/decide',
      { verdict: 'certify', reason: 'x', expiresAt: until },
      'body_invalid',
    ],
  ]
  for (const [who, method, path, body, reason] of refused) {
    const what = `${method} ${path.replace(/\?.*/, '?…')} ${JSON.stringify(body ?? '').slice(0, 60)}`
    it(`refuses ${who} with ${reason}: ${what}`, async () => {
      expectRefusal(await call(who, method, path, body), reason)
    })
  }

  it('carries a campaign from its report to its signature', async () => {
    const opened = campaignSchema.parse((await call('carol', 'POST', '/v1/campaigns', open)).body)
    const path = `/v1/campaigns/${opened.id}`
    const items = campaignItemsSchema.parse(
      (await call('alice', 'GET', `${path}/items?mine=true`)).body,
    ).items
    expect(items.map(({ principal, access }) => [principal.name, access.rule])).to.deep.equal([
      ['scanner', 'scan'],
      ['scanner', 'look-around'],
      ['janitor', 'look-around'],
    ])
    const one = campaignItemsSchema.parse(
      (await call('alice', 'GET', `${path}/items?limit=1`)).body,
    )
    expect(one.next).to.equal('00001')
    const rest = campaignItemsSchema.parse(
      (await call('alice', 'GET', `${path}/items?limit=2&cursor=00001`)).body,
    )
    expect(rest.items.map(({ id }) => id)).to.deep.equal(['00002', '00003'])
    expect(rest).to.not.have.property('next')

    // of two at once one wins, on the real store
    const both = await Promise.all([
      call('alice', 'POST', `${path}/items/00001/decide`, { verdict: 'revoke', reason: 'unused' }),
      call('bob', 'POST', `${path}/items/00001/decide`, { verdict: 'revoke', reason: 'unused' }),
    ])
    expect(both.map(({ status }) => status).sort()).to.deep.equal([200, 409])
    for (const item of ['00002', '00003'])
      expect(
        (
          await call('alice', 'POST', `${path}/items/${item}/decide`, {
            verdict: 'certify',
            reason: 'ok',
          })
        ).status,
      ).to.equal(200)
    expectRefusal(
      await call('carol', 'POST', `${path}/sign-off`, { reason: 'done' }),
      'campaign_items_open',
    )

    const policyDigest = policyOf(RULES.replace(/^ {2}- id: scan[^]*?allow\n/m, '')).digest
    const body = { policyDigest }
    expectRefusal(
      await call('carol', 'POST', `${path}/items/00001/remediated`, body),
      'remediation_unproved',
    )
    policy = policyOf(RULES.replace(/^ {2}- id: scan[^]*?allow\n/m, ''))
    expect((await call('carol', 'POST', `${path}/items/00001/remediated`, body)).status).to.equal(
      200,
    )
    const signed = campaignSchema.parse(
      (await call('carol', 'POST', `${path}/sign-off`, { reason: 'done' })).body,
    )
    expect(signed).to.include({ state: 'SIGNED_OFF' })
    expectRefusal(
      await call('carol', 'POST', `${path}/cancel`, { reason: 'no' }),
      'campaign_closed',
    )
    const listed = campaignListSchema.parse((await call('bob', 'GET', '/v1/campaigns')).body).items
    expect(listed.map(({ id, state }) => [id, state])).to.deep.equal([[opened.id, 'SIGNED_OFF']])

    const events = [
      'campaign_opened',
      'campaign_item_decided',
      'campaign_item_remediated',
      'campaign_signed_off',
    ]
    const counts = await Promise.all(
      events.map(async (event) => (await api.store.events({ event }, 10)).length),
    )
    expect(counts).to.deep.equal([1, 3, 1, 1])
  })

  it('says no to an owner of the agent', async () => {
    const asked = { ...open, scope: { agent: 'scanner' }, reviewers: ['eve'] }
    const { id } = campaignSchema.parse((await call('root', 'POST', '/v1/campaigns', asked)).body)
    const decide = `/v1/campaigns/${id}/items/00001/decide`
    expectRefusal(
      await call('eve', 'POST', decide, { verdict: 'certify', reason: 'mine' }),
      'own_access',
    )
    expectRefusal(
      await call('root', 'POST', decide, { verdict: 'certify', reason: 'x' }),
      'reviewer_not_assigned',
    )
    expect(
      (await call('root', 'POST', `/v1/campaigns/${id}/cancel`, { reason: 'x' })).status,
    ).to.equal(200)
  })

  it('names people whom the ledger hides, and hides whom a report was about', async () => {
    const credential = { mode: 'issuer', user: 'x' } as const
    const { size } = await api.store.head()
    await api.store.append([directIntent('oidc:dave', { cluster: 'far', credential })])
    const [leaf] = await api.store.leaves(size, 1)
    expect(Buffer.from(leaf?.bytes ?? []).toString()).to.not.contain('dave')
    const path = `/v1/access-review?${period}&subject=oidc:dave`
    const { principals } = reportSchema.parse((await call('carol', 'GET', path)).body)
    expect(principals.map(({ kind, name }) => [kind, name])).to.deep.equal([
      ['subject', 'oidc:dave'],
    ])
    const [read] = await api.store.leaves(size + 1, 1)
    const text = Buffer.from(read?.bytes ?? []).toString()
    expect(text).to.contain('audit_read').and.not.contain('dave')
  })

  it('opens the largest campaign in one transaction', async () => {
    const before = policy
    const rules = Array.from(
      { length: MAX_CAMPAIGN_ITEMS / 2 },
      (_, at) => `
  - { id: r${at}, match: { verbs: [get], resources: [pods] }, effect: allow }`,
    )
    policy = policyOf(rules.join(''))
    const { size } = await api.store.head()
    const asked = { ...open, scope: { cluster: 'main' } }
    const reply = await call('carol', 'POST', '/v1/campaigns', asked)
    policy = before
    expect(campaignSchema.parse(reply.body).counts.items).to.equal(MAX_CAMPAIGN_ITEMS)
    expect((await api.store.head()).size).to.equal(size + 1)
  }).timeout(60_000)
})
