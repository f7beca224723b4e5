/**
 * Campaigns: people decide on each item of a report, and sign. The population is the report's: a checkpoint and a policy
 * digest that nothing changes afterwards. Every step is an entry in the transaction that changes the state, and a
 * compare-and-set on the campaign and the item: of two who decide at once one does, and the other hears of it.
 */
import type {
  Campaign,
  CampaignItem,
  DecideItem,
  OpenCampaign,
  RemediateItem,
  ReviewScope,
  SignOff,
} from '../../shared/access-review-wire.ts'
import { MAX_CAMPAIGN_ITEMS } from '../../shared/access-review-wire.ts'
import { asOpened, itemsDigest } from '../../shared/access-review-digest.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Reviewer } from '../approvals/reviewers.ts'
import type { SystemEntry } from '../ledger/entry.ts'
import { PAGE } from './bounds.ts'
import { countItems, isAssigned, isOwn, makeItems } from './campaign-items.ts'
import {
  campaignChange,
  itemChange,
  readCampaign,
  readCampaigns,
  readItem,
  readItems,
} from './campaign-records.ts'
import type { CampaignStore, Versioned } from './campaign-records.ts'
import { checkRemediation } from './remediation.ts'
import { makeReport } from './report.ts'
import type { ReportDeps } from './report.ts'

/** Tries of a change while others change the same campaign. */
const MAX_TRIES = 50
/** Longest that an exception may last, in days. */
export const MAX_EXCEPTION_DAYS = 366
const DAY_MS = 24 * 3600 * 1000

/** What campaigns need. */
export type CampaignsDeps = ReportDeps & { readonly store: CampaignStore }

/** Which item. */
export interface ItemId {
  readonly campaign: string
  readonly item: string
}

/** Which items are listed. */
export interface ItemFilter {
  readonly state?: 'open' | 'decided' | undefined
  /** Only those that are given to this person. */
  readonly mine?: Reviewer | undefined
  readonly after?: string | undefined
  readonly limit: number
}

/** A step of a campaign; `detail` of its entry beside the campaign. */
interface Step {
  readonly campaign: Campaign
  readonly item?: Versioned<CampaignItem>
  readonly event: SystemEntry['event']
  readonly actor: string
  readonly detail: SystemEntry['detail']
}

/** See the head of the file. Every method rejects with a `Fault` when the store fails. */
export class Campaigns {
  readonly #deps: CampaignsDeps

  constructor(deps: CampaignsDeps) {
    this.#deps = deps
  }

  /** Makes a campaign of a report that is made now. */
  async open(by: Reviewer, asked: OpenCampaign): Promise<Campaign | Refusal> {
    const { now, store } = this.#deps
    const { title, scope = {}, reviewers, assign } = asked
    const [sinceMs, untilMs] = [Date.parse(asked.since), Date.parse(asked.until)]
    const { reviewer } = by
    const report = await makeReport(this.#deps, { sinceMs, untilMs, scope, by: reviewer })
    const wanted = countItems(report)
    if (wanted === 0) return refuse('campaign_unfit', 'nobody has access in this scope')
    if (wanted > MAX_CAMPAIGN_ITEMS)
      return refuse(
        'campaign_unfit',
        `it would have ${wanted} items, and may have ${MAX_CAMPAIGN_ITEMS}: name a cluster, a namespace or an agent`,
      )
    const id = newRequestId(now())
    const items = makeItems(report, id, { reviewers, ...(assign === undefined ? {} : { assign }) })
    const campaign: Campaign = {
      ...{ id, title, state: 'OPEN', openedBy: reviewer, openedAt: report.madeAt },
      ...{ since: report.since, until: report.until, scope, population: report.population },
      ...{ policyDigest: report.policy.digest, itemsSha256: itemsDigest(items) },
      notes: report.notes,
      counts: { items: items.length, certify: 0, revoke: 0, exception: 0, remediated: 0 },
    }
    const { size, root, from, to } = report.population
    const entry = entryOf('campaign_opened', reviewer, id, {
      ...{ ...given(scope), title, since: report.since, until: report.until },
      ...{ size, root, from, to, policyDigest: campaign.policyDigest },
      ...{ items: items.length, itemsSha256: campaign.itemsSha256 },
    })
    const changes = [campaignChange(campaign, 0), ...items.map((item) => itemChange(item, 0))]
    return (await store.put(changes, [entry])) ? campaign : refuse('internal')
  }

  async get(id: string): Promise<Campaign | Refusal> {
    return (await readCampaign(this.#deps.store, id))?.value ?? refuse('campaign_unknown')
  }

  /** The oldest first. */
  list(after: string | undefined, limit: number): Promise<readonly Campaign[]> {
    return readCampaigns(this.#deps.store, after, limit)
  }

  /** Items that meet the filter, in the order of their ids. */
  async items(
    id: string,
    { state, mine, after, limit }: ItemFilter,
  ): Promise<readonly CampaignItem[] | Refusal> {
    if ((await readCampaign(this.#deps.store, id)) === undefined) return refuse('campaign_unknown')
    const found: CampaignItem[] = []
    let last = after
    for (;;) {
      const page = await readItems(this.#deps.store, id, last, PAGE)
      for (const item of page) {
        if (state !== undefined && (item.decision === undefined) !== (state === 'open')) continue
        if (mine !== undefined && !isAssigned(mine, item)) continue
        found.push(item)
        if (found.length >= limit) return found
      }
      last = page.at(-1)?.id
      if (page.length < PAGE) return found
    }
  }

  /** One person's decision on an item; it is the only one. */
  decide(by: Reviewer, id: ItemId, body: DecideItem): Promise<CampaignItem | Refusal> {
    return this.#step(id, (campaign, item) => {
      const { value } = item
      const refusal = this.#mayDecide(by, value, body)
      if (refusal !== undefined) return refusal
      const { verdict, reason, expiresAt } = body
      const { reviewer, groups = [] } = by
      const at = new Date(this.#deps.now()).toISOString()
      const until = expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt).toISOString() }
      const decision = { by: reviewer, at, reason, verdict, groups: [...groups], ...until }
      const counts = { ...campaign.counts, [verdict]: campaign.counts[verdict] + 1 }
      return {
        ...{ campaign: { ...campaign, counts }, event: 'campaign_item_decided', actor: reviewer },
        item: { ...item, value: { ...value, decision } },
        detail: { rule: value.access.rule, verdict, reason, ...until },
      }
    })
  }

  #mayDecide(by: Reviewer, item: CampaignItem, { expiresAt }: DecideItem): Refusal | undefined {
    const { decision } = item
    if (!isAssigned(by, item)) return refuse('reviewer_not_assigned', item.reviewers.join(', '))
    if (isOwn(by, item)) return refuse('own_access')
    if (decision !== undefined)
      return refuse('campaign_item_decided', `${decision.verdict} by ${decision.by}`)
    if (expiresAt === undefined) return undefined
    const left = Date.parse(expiresAt) - this.#deps.now()
    return left > 0 && left <= MAX_EXCEPTION_DAYS * DAY_MS
      ? undefined
      : refuse('body_invalid', `expiresAt: at most ${MAX_EXCEPTION_DAYS} days from now`)
  }

  /** A revocation was carried out: checked against the policy in force, and the ledger. */
  async remediated(
    { reviewer }: Reviewer,
    id: ItemId,
    body: RemediateItem,
  ): Promise<CampaignItem | Refusal> {
    return this.#step(id, async (campaign, item) => {
      const { value } = item
      if (value.decision?.verdict !== 'revoke')
        return refuse('remediation_unproved', 'the item was not revoked')
      if (value.remediation !== undefined)
        return refuse('campaign_item_decided', 'that it was carried out is recorded')
      const checked = await checkRemediation(
        { store: this.#deps.store, policy: this.#deps.policy() },
        ...([value, body, campaign.policyDigest] as const),
      )
      if (isRefusal(checked)) return checked
      const { policyDigest, requestId } = body
      const evidence = { policyDigest, ...(requestId === undefined ? {} : { requestId }) }
      const at = new Date(this.#deps.now()).toISOString()
      const remediation = { by: reviewer, at, ...evidence, rule: checked.rule }
      const remediatedCount = campaign.counts.remediated + 1
      return {
        campaign: { ...campaign, counts: { ...campaign.counts, remediated: remediatedCount } },
        ...{ event: 'campaign_item_remediated', actor: reviewer },
        item: { ...item, value: { ...value, remediation } },
        detail: { rule: value.access.rule, became: checked.rule, ...evidence },
      }
    })
  }

  /** Ends a campaign of which everything is decided. */
  signOff({ reviewer }: Reviewer, id: string, body: SignOff): Promise<Campaign | Refusal> {
    return this.#close(id, async (campaign) => {
      const { items, certify, revoke, exception, remediated } = campaign.counts
      const open = items - certify - revoke - exception
      if (open > 0) return refuse('campaign_items_open', `${open} of ${items} are not decided`)
      const outstanding = revoke - remediated
      if (outstanding > 0 && body.outstanding !== true)
        return refuse('campaign_items_open', `${outstanding} revocations are not carried out`)
      const all: CampaignItem[] = []
      for (let page = await this.#page(id); page.length > 0; page = await this.#page(id, page))
        all.push(...page)
      if (itemsDigest(asOpened(all)) !== campaign.itemsSha256)
        return refuse('campaign_unfit', 'its items are not those that it was opened with')
      const closing = this.#closing(reviewer, body.reason, outstanding)
      const { reason } = body
      return {
        campaign: { ...campaign, state: 'SIGNED_OFF', closing },
        ...{ event: 'campaign_signed_off', actor: reviewer },
        detail: {
          ...{ reason, items, certify, revoke, exception, remediated, outstanding },
          ...{ itemsSha256: campaign.itemsSha256, decisionsSha256: itemsDigest(all) },
        },
      }
    })
  }

  /** Ends a campaign without its being signed. */
  cancel({ reviewer }: Reviewer, id: string, reason: string): Promise<Campaign | Refusal> {
    return this.#close(id, (campaign) => {
      const { certify, revoke, exception, remediated, items } = campaign.counts
      const closing = this.#closing(reviewer, reason, revoke - remediated)
      return Promise.resolve({
        campaign: { ...campaign, state: 'CANCELLED', closing },
        ...{ event: 'campaign_cancelled', actor: reviewer },
        detail: { reason, items, decided: certify + revoke + exception },
      })
    })
  }

  #closing(by: string, reason: string, outstanding: number): NonNullable<Campaign['closing']> {
    return { by, at: new Date(this.#deps.now()).toISOString(), reason, outstanding }
  }

  #page(id: string, before?: readonly CampaignItem[]): Promise<readonly CampaignItem[]> {
    return readItems(this.#deps.store, id, before?.at(-1)?.id, PAGE)
  }

  /** A step on one item, again where others changed the campaign meanwhile. */
  async #step(
    { campaign: id, item: itemId }: ItemId,
    make: (
      campaign: Campaign,
      item: Versioned<CampaignItem>,
    ) =>
      | (Step & Required<Pick<Step, 'item'>>)
      | Refusal
      | Promise<(Step & Required<Pick<Step, 'item'>>) | Refusal>,
  ): Promise<CampaignItem | Refusal> {
    const { store } = this.#deps
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const campaign = await this.#openOne(id)
      if (isRefusal(campaign)) return campaign
      const item = await readItem(store, id, itemId)
      if (item === undefined) return refuse('campaign_unknown')
      const step = await make(campaign.value, item)
      if (isRefusal(step)) return step
      const detail = {
        item: itemId,
        itemSha256: itemsDigest(asOpened([item.value])),
        ...step.detail,
      }
      const changes = [
        campaignChange(step.campaign, campaign.version),
        itemChange(step.item.value, item.version),
      ]
      const entry = entryOf(step.event, step.actor, id, detail)
      if (await store.put(changes, [entry])) return step.item.value
    }
    return refuse('broker_busy', 'others change the same campaign')
  }

  async #close(
    id: string,
    make: (campaign: Campaign) => Promise<Step | Refusal>,
  ): Promise<Campaign | Refusal> {
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const campaign = await this.#openOne(id)
      if (isRefusal(campaign)) return campaign
      const step = await make(campaign.value)
      if (isRefusal(step)) return step
      const entry = entryOf(step.event, step.actor, id, step.detail)
      const changes = [campaignChange(step.campaign, campaign.version)]
      if (await this.#deps.store.put(changes, [entry])) return step.campaign
    }
    return refuse('broker_busy', 'others change the same campaign')
  }

  async #openOne(id: string): Promise<Versioned<Campaign> | Refusal> {
    const campaign = await readCampaign(this.#deps.store, id)
    if (campaign === undefined) return refuse('campaign_unknown')
    const { state } = campaign.value
    return state === 'OPEN' ? campaign : refuse('campaign_closed', `it is ${state}`)
  }
}

/** Conditions of a scope, each under its own name: a person's is hidden by it. */
function given(scope: ReviewScope): SystemEntry['detail'] {
  return Object.fromEntries(
    Object.entries(scope).filter((pair): pair is [string, string] => pair[1] !== undefined),
  )
}

function entryOf(
  event: SystemEntry['event'],
  actor: string,
  campaign: string,
  detail: SystemEntry['detail'],
): SystemEntry {
  return { kind: 'system', event, actor, detail: { campaign, ...detail } }
}
