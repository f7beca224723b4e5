/** What the ledger says of a campaign's items: their digest, which whoever has the items can make again. */
import { createHash } from 'node:crypto'
import type { CampaignItem } from './access-review-wire.ts'
import { isRecord } from './config-source.ts'

/**
 * SHA-256, hex, over the items in their order: each as JSON without white space, its keys sorted at every level, and a line
 * feed.
 */
export function itemsDigest(items: Iterable<CampaignItem>): string {
  const hash = createHash('sha256')
  for (const item of items) hash.update(JSON.stringify(sorted(item))).update('\n')
  return hash.digest('hex')
}

/** Items as they were opened. */
export function asOpened(items: readonly CampaignItem[]): CampaignItem[] {
  return items.map(({ id, campaign, principal, access, reviewers }) => ({
    ...{ id, campaign, principal, access, reviewers },
  }))
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (!isRecord(value)) return value
  const result: Record<string, unknown> = {}
  for (const key of Object.keys(value).sort()) result[key] = sorted(value[key])
  return result
}
