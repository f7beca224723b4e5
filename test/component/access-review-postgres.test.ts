/** Campaigns on PostgreSQL, with two brokers: of two who decide at once, each at a broker of their own, one wins. */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { Campaigns } from '../../broker/access-review/campaigns.ts'
import type { Store } from '../../broker/store/store.ts'
import { MAX_CAMPAIGN_ITEMS } from '../../shared/access-review-wire.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { signed } from '../support/ledger.ts'
import { policyOf } from '../support/policies.ts'
import { newDatabase, openPostgres } from '../support/postgres.ts'

describe('campaigns on PostgreSQL', () => {
  const stores: Store[] = []
  const brokers: Campaigns[] = []
  before(async function () {
    this.timeout(60_000)
    const url = await newDatabase()
    const rules = Array.from(
      { length: MAX_CAMPAIGN_ITEMS },
      (_, at) => `
  - { id: r${at}, match: { agents: [scanner], verbs: [get], resources: [pods] }, effect: allow }`,
    )
    const policy = policyOf(rules.join(''))
    for (let broker = 0; broker < 2; broker += 1) {
      const store = await openPostgres(url)
      stores.push(store)
      const checkpoints = await signed(store)
      brokers.push(
        new Campaigns({
          ...{ store, checkpoints, policy: () => policy, acceptVerdicts: ['exclusive'] },
          ...{ registrations: [], now: Date.now },
        }),
      )
    }
  })
  after(async () => {
    for (const store of stores) await store.close()
  })

  it('are opened whole, and decided on once', async () => {
    const [one, other] = brokers
    if (one === undefined || other === undefined) throw new Error('no brokers')
    const opened = await one.open(
      { reviewer: 'carol' },
      {
        ...{ title: 'large', since: '2020-01-01T00:00:00Z', until: '2040-01-01T00:00:00Z' },
        reviewers: ['alice', 'bob'],
      },
    )
    if (isRefusal(opened)) throw new Error(opened.detail)
    expect(opened.counts.items).to.equal(MAX_CAMPAIGN_ITEMS)
    const last = { campaign: opened.id, item: String(MAX_CAMPAIGN_ITEMS).padStart(5, '0') }
    const decisions = await Promise.all([
      one.decide({ reviewer: 'alice' }, last, { verdict: 'certify', reason: 'needed' }),
      other.decide({ reviewer: 'bob' }, last, { verdict: 'revoke', reason: 'not needed' }),
    ])
    const refused = decisions.filter((decision) => isRefusal(decision))
    expect(refused).to.have.length(1)
    expect(refused[0]).to.include({ refused: 'campaign_item_decided' })
    // different items at both, each of which changes the campaign's counts
    const many = Array.from({ length: 10 }, (_, at) => String(at + 1).padStart(5, '0'))
    const all = await Promise.all(
      many.map((item, at) =>
        (at % 2 === 0 ? one : other).decide(
          { reviewer: 'alice' },
          { campaign: opened.id, item },
          { verdict: 'certify', reason: 'needed' },
        ),
      ),
    )
    expect(all.filter((decision) => isRefusal(decision))).to.deep.equal([])
    const now = await other.get(opened.id)
    if (isRefusal(now)) throw new Error(now.detail)
    expect(now.counts.certify + now.counts.revoke).to.equal(11)
    const events = await stores[0]?.events({ event: 'campaign_item_decided' }, 100)
    expect(events).to.have.length(11)
  }).timeout(60_000)
})
