import { expect } from 'chai'
import { describe, it } from 'mocha'
import { Campaigns } from '../../../../broker/access-review/campaigns.ts'
import type { CampaignsDeps } from '../../../../broker/access-review/campaigns.ts'
import type { Reviewer } from '../../../../broker/approvals/reviewers.ts'
import type { SystemEntry } from '../../../../broker/ledger/entry.ts'
import { asOpened, itemsDigest } from '../../../../shared/access-review-digest.ts'
import { MAX_CAMPAIGN_ITEMS } from '../../../../shared/access-review-wire.ts'
import type { Campaign, CampaignItem, OpenCampaign } from '../../../../shared/access-review-wire.ts'
import { isRefusal } from '../../../../shared/reasons.ts'
import type { Reason, Refusal } from '../../../../shared/reasons.ts'
import { directIntent, intent } from '../../../support/entries.ts'
import { memoryLedger } from '../../../support/memory-reviews.ts'
import type { MemoryLedger } from '../../../support/memory-reviews.ts'
import { policyOf } from '../../../support/policies.ts'

const NOW = Date.UTC(2026, 3, 1)
const DAY = 24 * 3600 * 1000
const SCAN = `
  - id: scan
    match: { agents: [scanner], verbs: [get, list], resources: [secrets] }
    effect: allow
`
const DELETE = `
  - id: deletions
    match: { agents: [janitor], verbs: [delete], resources: [pods] }
    effect: hold
`
const EMERGENCY = `
  - id: emergency
    match: { groups: [sre], verbs: ['*'], resources: ['*'] }
    effect: breakGlass
`
const alice: Reviewer = { reviewer: 'alice', groups: [], names: ['oidc:Alice'] }
const bob: Reviewer = { reviewer: 'bob', groups: ['sre'], names: [] }
const carol: Reviewer = { reviewer: 'carol' }

const ASKED: OpenCampaign = {
  title: 'spring',
  since: new Date(NOW - 90 * DAY).toISOString(),
  until: new Date(NOW).toISOString(),
  reviewers: ['alice', 'group:sre'],
}

interface Setup {
  readonly ledger: MemoryLedger
  readonly campaigns: Campaigns
  usePolicy(rules: string): void
  /** What of the ledger is about campaigns. */
  steps(): readonly SystemEntry[]
}

function setUp(rules = SCAN + DELETE, change: Partial<CampaignsDeps> = {}): Setup {
  const ledger = memoryLedger([], () => NOW)
  let policy = policyOf(rules)
  const campaigns = new Campaigns({
    store: ledger,
    checkpoints: ledger.checkpoints,
    policy: () => policy,
    scopes: { get: () => undefined },
    acceptVerdicts: ['exclusive'],
    registrations: [{ name: 'scanner', owners: ['dave'] }],
    now: () => NOW,
    ...change,
  })
  return {
    ledger,
    campaigns,
    usePolicy(text) {
      policy = policyOf(text)
    },
    steps: () =>
      ledger.entries.filter(
        (entry): entry is SystemEntry =>
          entry.kind === 'system' && entry.event.startsWith('campaign_'),
      ),
  }
}

function good<T extends object>(value: T | Refusal): T {
  if (isRefusal(value)) throw new Error(`${value.refused}: ${value.detail ?? ''}`)
  return value
}

function expectRefusal(value: object, reason: Reason, detail = ''): void {
  expect(value).to.have.property('refused', reason)
  expect((value as Refusal).detail ?? '').to.contain(detail)
}

const open = async ({ campaigns }: Setup, change: Partial<OpenCampaign> = {}): Promise<Campaign> =>
  good(await campaigns.open(carol, { ...ASKED, ...change }))

const itemsOf = async ({ campaigns }: Setup, { id }: Campaign): Promise<readonly CampaignItem[]> =>
  good(await campaigns.items(id, { limit: 1000 }))

const certify = { verdict: 'certify', reason: 'needed' } as const
const revoke = { verdict: 'revoke', reason: 'not needed' } as const

describe('campaigns', () => {
  it('are made of a report: its population, its policy, and an item for each access', async () => {
    const setup = setUp(SCAN + DELETE + EMERGENCY)
    setup.ledger.write(
      intent({
        agent: 'scanner',
        chain: [],
        request: { resource: 'secrets' },
        decision: { rules: ['scan'] },
        credential: { mode: 'issuer', user: 'x' },
      }),
      NOW - DAY,
    )
    const campaign = await open(setup)
    const { size } = await setup.ledger.checkpoints.current()
    expect(campaign).to.deep.include({
      ...{ title: 'spring', state: 'OPEN', openedBy: 'carol' },
      policyDigest: policyOf(SCAN + DELETE + EMERGENCY).digest,
      counts: { items: 3, certify: 0, revoke: 0, exception: 0, remediated: 0 },
    })
    // the entry of its opening is not in it
    expect(campaign.population.size).to.equal(size - 1)
    const items = await itemsOf(setup, campaign)
    expect(
      items.map(({ id, principal, access }) => [
        id,
        principal.kind,
        principal.name,
        access.rule,
        access.uses.done,
      ]),
    ).to.deep.equal([
      ['00001', 'agent', 'scanner', 'scan', 1],
      ['00002', 'agent', 'janitor', 'deletions', 0],
      ['00003', 'nobody', '', 'emergency', 0],
    ])
    expect(items[0]).to.deep.include({ reviewers: ['alice', 'group:sre'] })
    expect(campaign.itemsSha256).to.equal(itemsDigest(items))
    expect(setup.steps()).to.have.length(1)
    expect(setup.steps()[0]).to.deep.include({ event: 'campaign_opened', actor: 'carol' })
    expect(setup.steps()[0]?.detail).to.include({
      ...{ campaign: campaign.id, items: 3, itemsSha256: campaign.itemsSha256, size: size - 1 },
      ...{ root: campaign.population.root, policyDigest: campaign.policyDigest },
    })
  })

  it('give items to the reviewers of the first assignment that fits', async () => {
    const setup = setUp(SCAN + DELETE)
    const campaign = await open(setup, {
      reviewers: ['rest'],
      assign: [
        { agent: 'jan*', rule: 'del*', reviewers: ['alice'] },
        { agent: '*', rule: 'deletions', reviewers: ['too late'] },
      ],
    })
    const items = await itemsOf(setup, campaign)
    expect(items.map(({ reviewers }) => reviewers)).to.deep.equal([['alice'], ['rest']])
  })

  it('are decided on by the reviewers of each item, by any of their names or groups', async () => {
    const setup = setUp()
    const campaign = await open(setup, { reviewers: ['oidc:alice', 'group:sre'] })
    const item = { campaign: campaign.id, item: '00001' }
    expectRefusal(await setup.campaigns.decide(carol, item, certify), 'reviewer_not_assigned')
    expectRefusal(
      await setup.campaigns.decide({ reviewer: 'sre' }, item, certify),
      'reviewer_not_assigned',
    )
    const decided = good(await setup.campaigns.decide(alice, item, certify))
    expect(decided.decision).to.deep.include({ by: 'alice', verdict: 'certify', reason: 'needed' })
    good(await setup.campaigns.decide(bob, { ...item, item: '00002' }, revoke))
    expect(good(await setup.campaigns.get(campaign.id)).counts).to.include({
      certify: 1,
      revoke: 1,
    })
    const step = setup.steps()[1]
    expect(step).to.include({ event: 'campaign_item_decided', actor: 'alice' })
    const [first] = asOpened(await itemsOf(setup, campaign))
    expect(step?.detail).to.deep.equal({
      ...{
        campaign: campaign.id,
        item: '00001',
        rule: 'deletions',
        verdict: 'certify',
        reason: 'needed',
      },
      itemSha256: itemsDigest(first === undefined ? [] : [first]),
    })
  })

  it('let one of two who decide at once win, and tell the other', async () => {
    const setup = setUp()
    const campaign = await open(setup)
    const item = { campaign: campaign.id, item: '00001' }
    // both have read the item before either writes
    let waiting = 0
    let release: () => void = () => undefined
    const both = new Promise<void>((resolve) => (release = resolve))
    setup.ledger.beforePut = async () => {
      waiting += 1
      if (waiting === 2) release()
      await both
    }
    const results = await Promise.all([
      setup.campaigns.decide(alice, item, certify),
      setup.campaigns.decide(bob, item, revoke),
    ])
    const refused = results.filter((one) => isRefusal(one))
    expect(refused).to.have.length(1)
    expectRefusal(refused[0] ?? {}, 'campaign_item_decided')
    expect(setup.steps().filter(({ event }) => event === 'campaign_item_decided')).to.have.length(1)
    expect(good(await setup.campaigns.get(campaign.id)).counts).to.deep.include({ items: 2 })
    const { certify: certified, revoke: revoked } = good(
      await setup.campaigns.get(campaign.id),
    ).counts
    expect(certified + revoked).to.equal(1)
  })

  it('take decisions on different items at once', async () => {
    const setup = setUp()
    const campaign = await open(setup)
    let waiting = 0
    let release: () => void = () => undefined
    const both = new Promise<void>((resolve) => (release = resolve))
    setup.ledger.beforePut = async () => {
      waiting += 1
      if (waiting === 2) release()
      await both
    }
    const results = await Promise.all(
      ['00001', '00002'].map((item) =>
        setup.campaigns.decide(alice, { campaign: campaign.id, item }, certify),
      ),
    )
    results.map(good)
    expect(good(await setup.campaigns.get(campaign.id)).counts.certify).to.equal(2)
  })

  it('take no second decision', async () => {
    const setup = setUp()
    const campaign = await open(setup)
    const item = { campaign: campaign.id, item: '00001' }
    good(await setup.campaigns.decide(alice, item, revoke))
    expectRefusal(
      await setup.campaigns.decide(alice, item, certify),
      'campaign_item_decided',
      'revoke by alice',
    )
    expectRefusal(await setup.campaigns.decide(bob, item, certify), 'campaign_item_decided')
    expect((await itemsOf(setup, campaign))[0]?.decision?.verdict).to.equal('revoke')
  })

  const own: readonly [string, Reviewer, string][] = [
    ['an owner of the agent', { reviewer: 'DAVE' }, '00001'],
    ['an owner by another name', { reviewer: 'd', names: ['dave'] }, '00001'],
    ['whose token the agent sent along', { reviewer: 'Erin' }, '00001'],
    ['whose group the rule is for', { reviewer: 'frank', groups: ['sre'] }, '00003'],
  ]
  for (const [who, reviewer, item] of own) {
    it(`do not let anybody decide on their own access: ${who}`, async () => {
      const setup = setUp(SCAN + DELETE + EMERGENCY)
      setup.ledger.write(
        intent({
          agent: 'scanner',
          chain: [],
          oidc: { issuer: 'i', sub: 's', name: 'erin', groups: [] },
        }),
        NOW - DAY,
      )
      const campaign = await open(setup, { reviewers: [reviewer.reviewer, 'alice'] })
      const which = { campaign: campaign.id, item }
      expectRefusal(await setup.campaigns.decide(reviewer, which, certify), 'own_access')
      expect(setup.steps()).to.have.length(1)
      good(await setup.campaigns.decide(alice, which, certify))
    })
  }

  it('do not let a person decide on what they do as a direct client', async () => {
    const setup = setUp(`
  - id: people
    match: { subjects: ['oidc:*'], verbs: [get], resources: [pods] }
    effect: allow
`)
    setup.ledger.write(
      directIntent('oidc:alice', {
        oidc: { issuer: 'i', sub: 's', name: 'oidc:alice', groups: [] },
      }),
      NOW - DAY,
    )
    const campaign = await open(setup)
    const items = await itemsOf(setup, campaign)
    const item = items.find(({ principal }) => principal.name === 'oidc:alice')?.id ?? ''
    expectRefusal(
      await setup.campaigns.decide(alice, { campaign: campaign.id, item }, certify),
      'own_access',
    )
    good(await setup.campaigns.decide(bob, { campaign: campaign.id, item }, certify))
  })

  it('give an exception an end', async () => {
    const setup = setUp()
    const campaign = await open(setup)
    const item = { campaign: campaign.id, item: '00001' }
    const exception = (days: number): Promise<object> =>
      setup.campaigns.decide(alice, item, {
        ...{ verdict: 'exception', reason: 'until the move' },
        expiresAt: new Date(NOW + days * DAY).toISOString(),
      })
    expectRefusal(await exception(-1), 'body_invalid')
    expectRefusal(await exception(400), 'body_invalid')
    expect(good(await exception(30))).to.have.nested.property(
      'decision.expiresAt',
      new Date(NOW + 30 * DAY).toISOString(),
    )
  })

  it('are signed only when all items are decided, and then change no more', async () => {
    const setup = setUp()
    const campaign = await open(setup)
    const { id } = campaign
    const sign = { reason: 'all looked at' }
    expectRefusal(await setup.campaigns.signOff(carol, id, sign), 'campaign_items_open', '2 of 2')
    good(await setup.campaigns.decide(alice, { campaign: id, item: '00001' }, certify))
    expectRefusal(await setup.campaigns.signOff(carol, id, sign), 'campaign_items_open', '1 of 2')
    good(await setup.campaigns.decide(alice, { campaign: id, item: '00002' }, certify))
    const signed = good(await setup.campaigns.signOff(carol, id, sign))
    expect(signed).to.deep.include({ state: 'SIGNED_OFF' })
    expect(signed.closing).to.deep.include({ by: 'carol', reason: 'all looked at', outstanding: 0 })
    const step = setup.steps().at(-1)
    expect(step).to.include({ event: 'campaign_signed_off', actor: 'carol' })
    expect(step?.detail).to.include({
      ...{ items: 2, certify: 2, itemsSha256: campaign.itemsSha256 },
      decisionsSha256: itemsDigest(await itemsOf(setup, campaign)),
    })
    expectRefusal(await setup.campaigns.signOff(carol, id, sign), 'campaign_closed')
    expectRefusal(await setup.campaigns.cancel(carol, id, 'no'), 'campaign_closed')
    expectRefusal(
      await setup.campaigns.decide(bob, { campaign: id, item: '00001' }, revoke),
      'campaign_closed',
    )
    expect(setup.steps()).to.have.length(4)
  })

  it('are not signed where an item is not what it was', async () => {
    const setup = setUp(SCAN)
    const campaign = await open(setup)
    good(await setup.campaigns.decide(alice, { campaign: campaign.id, item: '00001' }, certify))
    const key = `${campaign.id}/00001`
    const record = await setup.ledger.record('campaign_item', key)
    const body = record?.body as CampaignItem
    await setup.ledger.put(
      [
        {
          kind: 'campaign_item',
          id: key,
          body: { ...body, principal: { ...body.principal, name: 'other' } },
        },
      ],
      [],
    )
    expectRefusal(
      await setup.campaigns.signOff(carol, campaign.id, { reason: 'r' }),
      'campaign_unfit',
    )
  })

  it('can be cancelled', async () => {
    const setup = setUp()
    const { id } = await open(setup)
    expect(good(await setup.campaigns.cancel(carol, id, 'wrong scope'))).to.include({
      state: 'CANCELLED',
    })
    expectRefusal(
      await setup.campaigns.decide(alice, { campaign: id, item: '00001' }, certify),
      'campaign_closed',
    )
    expect(setup.steps().at(-1)?.detail).to.include({ reason: 'wrong scope', decided: 0 })
  })

  it('are refused where the scope has nobody', async () => {
    const setup = setUp()
    expectRefusal(
      await setup.campaigns.open(carol, { ...ASKED, scope: { agent: 'nobody' } }),
      'campaign_unfit',
      'nobody has access',
    )
    expect(setup.steps()).to.deep.equal([])
  })

  it('are refused where they would be too large', async () => {
    const rules = Array.from(
      { length: 101 },
      (_, at) => `
  - { id: r${at}, match: { verbs: [get], resources: [pods] }, effect: allow }`,
    ).join('')
    const names = Array.from({ length: 100 }, (_, at) => ({ name: `a${at}` }))
    const setup = setUp(rules, { registrations: names })
    expectRefusal(
      await setup.campaigns.open(carol, ASKED),
      'campaign_unfit',
      `10100 items, and may have ${MAX_CAMPAIGN_ITEMS}`,
    )
    const fewer = setUp(rules, { registrations: names.slice(0, 99) })
    expect((await open(fewer)).counts.items).to.equal(9_999)
    expect(
      good(
        await fewer.campaigns.items((await fewer.campaigns.list(undefined, 1))[0]?.id ?? '', {
          limit: 1000,
          after: '09000',
        }),
      ),
    ).to.have.length(999)
  }).timeout(20_000)

  it('list items by their state and by whom they are given to', async () => {
    const setup = setUp()
    const { id } = await open(setup, {
      reviewers: ['bob'],
      assign: [{ agent: 'janitor', reviewers: ['alice'] }],
    })
    const ids = async (filter: object): Promise<string[]> =>
      good(await setup.campaigns.items(id, { limit: 10, ...filter })).map((item) => item.id)
    good(await setup.campaigns.decide(alice, { campaign: id, item: '00001' }, certify))
    expect(await ids({ state: 'open' })).to.deep.equal(['00002'])
    expect(await ids({ state: 'decided' })).to.deep.equal(['00001'])
    expect(await ids({ mine: { reviewer: 'bob' } })).to.deep.equal(['00002'])
    expect(await ids({ after: '00001' })).to.deep.equal(['00002'])
    expectRefusal(await setup.campaigns.items('none', { limit: 1 }), 'campaign_unknown')
  })

  describe('revocations', () => {
    const revoked = async (rules = SCAN): Promise<Setup & { id: string }> => {
      const setup = setUp(rules)
      const { id } = await open(setup)
      good(await setup.campaigns.decide(alice, { campaign: id, item: '00001' }, revoke))
      return { ...setup, id }
    }
    const remediated = (
      { campaigns, id }: Setup & { id: string },
      rules: string,
      requestId?: string,
    ): Promise<object> =>
      campaigns.remediated(
        carol,
        { campaign: id, item: '00001' },
        {
          policyDigest: policyOf(rules).digest,
          ...(requestId === undefined ? {} : { requestId }),
        },
      )

    it('are carried out when the rule is gone from the policy in force', async () => {
      const setup = await revoked()
      setup.usePolicy(DELETE)
      const item = good(await remediated(setup, DELETE))
      expect(item).to.have.nested.property('remediation.rule', 'gone')
      expect(good(await setup.campaigns.get(setup.id)).counts.remediated).to.equal(1)
      expect(setup.steps().at(-1)).to.deep.include({
        event: 'campaign_item_remediated',
        actor: 'carol',
      })
      expect(setup.steps().at(-1)?.detail).to.include({
        became: 'gone',
        policyDigest: policyOf(DELETE).digest,
      })
      expectRefusal(await remediated(setup, DELETE), 'campaign_item_decided')
    })

    it('are carried out when the rule lets less through', async () => {
      const setup = await revoked()
      const narrow = SCAN.replace('[get, list]', '[get]')
      setup.usePolicy(narrow)
      expect(good(await remediated(setup, narrow))).to.have.nested.property(
        'remediation.rule',
        'changed',
      )
    })

    it('are carried out when the rule holds what it allowed', async () => {
      const setup = await revoked()
      const held = SCAN.replace('allow', 'hold')
      setup.usePolicy(held)
      expect(good(await remediated(setup, held))).to.have.nested.property(
        'remediation.rule',
        'changed',
      )
    })

    const shams: readonly [string, string][] = [
      ['only its reason is another', SCAN + '    reason: for the scanner\n'],
      ['it has another name', SCAN.replace('id: scan', 'id: scan-2')],
      ['it is wider', SCAN.replace('[get, list]', "['*']")],
      ['its words are in another order', SCAN.replace('[get, list]', '[list, get]')],
      [
        'another rule lets the same through',
        DELETE + SCAN.replace('id: scan', 'id: all').replace('agents: [scanner], ', ''),
      ],
    ]
    for (const [what, rules] of shams) {
      it(`are not carried out where ${what}`, async () => {
        const setup = await revoked()
        setup.usePolicy(rules)
        expectRefusal(await remediated(setup, rules), 'remediation_unproved', 'still lets through')
        expect(good(await setup.campaigns.get(setup.id)).counts.remediated).to.equal(0)
      })
    }

    it('are not carried out under the same policy, or one that is not in force', async () => {
      const setup = await revoked()
      expectRefusal(
        await remediated(setup, SCAN),
        'remediation_unproved',
        'still the one of the campaign',
      )
      expectRefusal(await remediated(setup, DELETE), 'remediation_unproved', 'the policy in force')
    })

    it('are not carried out where the item was certified', async () => {
      const setup = setUp(SCAN)
      const { id } = await open(setup)
      setup.usePolicy(DELETE)
      expectRefusal(
        await remediated({ ...setup, id }, DELETE),
        'remediation_unproved',
        'was not revoked',
      )
    })

    it('take a refused request as evidence only where it shows something', async () => {
      const setup = await revoked()
      setup.usePolicy(DELETE)
      const denied = (requestId: string, change: Parameters<typeof intent>[0] = {}): void => {
        setup.ledger.write(
          intent({
            ...{ requestId, agent: 'scanner', chain: [], ...change },
            request: { resource: 'secrets', ...change.request },
            decision: {
              effect: 'deny',
              rules: [],
              policyDigest: policyOf(DELETE).digest,
              ...change.decision,
            },
          }),
          NOW,
        )
      }
      denied('other-agent', { agent: 'janitor' })
      denied('other-kind', { request: { resource: 'nodes' } })
      denied('old-policy', { decision: { policyDigest: policyOf(SCAN).digest } })
      denied('allowed', { decision: { effect: 'allow' } })
      denied('good')
      for (const id of ['unknown', 'other-agent', 'other-kind', 'old-policy', 'allowed'])
        expectRefusal(await remediated(setup, DELETE, id), 'remediation_unproved')
      expect(good(await remediated(setup, DELETE, 'good'))).to.have.nested.property(
        'remediation.requestId',
        'good',
      )
    })

    it('keep a campaign from being signed, unless it is said that they are open', async () => {
      const setup = await revoked()
      const sign = { reason: 'done' }
      expectRefusal(
        await setup.campaigns.signOff(carol, setup.id, sign),
        'campaign_items_open',
        '1 revocations',
      )
      const signed = good(
        await setup.campaigns.signOff(carol, setup.id, { ...sign, outstanding: true }),
      )
      expect(signed.closing?.outstanding).to.equal(1)
      expect(setup.steps().at(-1)?.detail).to.include({ outstanding: 1 })
    })
  })
})
