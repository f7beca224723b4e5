/** Campaigns and their items as the store has them. */
import { campaignItemSchema, campaignSchema } from '../../shared/access-review-wire.ts'
import type { Campaign, CampaignItem } from '../../shared/access-review-wire.ts'
import { Fault } from '../../shared/errors.ts'
import type { RecordChange, RecordKind, Store, StoredRecord } from '../store/store.ts'

/** A document with the version that a change of it must name. */
export interface Versioned<T> {
  readonly version: number
  readonly value: T
}

/** What of a store campaigns need. */
export type CampaignStore = Pick<Store, 'put' | 'record' | 'records' | 'events'>

/** @returns undefined where there is none. Rejects with a `Fault` where it cannot be read */
export async function readCampaign(
  store: CampaignStore,
  id: string,
): Promise<Versioned<Campaign> | undefined> {
  const record = await store.record('campaign', id)
  return record && { version: record.version, value: campaignOf(record) }
}

/** As {@link readCampaign}. */
export async function readItem(
  store: CampaignStore,
  campaign: string,
  id: string,
): Promise<Versioned<CampaignItem> | undefined> {
  const record = await store.record('campaign_item', itemKey(campaign, id))
  return record && { version: record.version, value: itemOf(record) }
}

/** Campaigns in the order of their opening. */
export async function readCampaigns(
  store: CampaignStore,
  after: string | undefined,
  limit: number,
): Promise<readonly Campaign[]> {
  const found = await store.records('campaign', after === undefined ? {} : { after }, limit)
  return found.map(campaignOf)
}

/** Items of a campaign, in the order of their ids. */
export async function readItems(
  store: CampaignStore,
  campaign: string,
  after: string | undefined,
  limit: number,
): Promise<readonly CampaignItem[]> {
  const from = after === undefined ? {} : { after: itemKey(campaign, after) }
  const found = await store.records('campaign_item', { prefix: `${campaign}/`, ...from }, limit)
  return found.map(itemOf)
}

/** A change of a campaign. @param version - 0 for a new one */
export function campaignChange(body: Campaign, version: number): RecordChange {
  return { kind: 'campaign', id: body.id, version, body }
}

/** A change of an item. @param version - 0 for a new one */
export function itemChange(body: CampaignItem, version: number): RecordChange {
  return { kind: 'campaign_item', id: itemKey(body.campaign, body.id), version, body }
}

function itemKey(campaign: string, id: string): string {
  return `${campaign}/${id}`
}

function campaignOf({ id, body }: StoredRecord): Campaign {
  const parsed = campaignSchema.safeParse(body)
  if (!parsed.success) throw unreadable('campaign', id)
  return parsed.data
}

function itemOf({ id, body }: StoredRecord): CampaignItem {
  const parsed = campaignItemSchema.safeParse(body)
  if (!parsed.success) throw unreadable('campaign_item', id)
  return parsed.data
}

function unreadable(kind: RecordKind, id: string): Fault {
  return new Fault('store_failed', `the ${kind} ${id} cannot be read`)
}
