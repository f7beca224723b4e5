/** The operations of access reviews. */
import * as review from '../../../shared/access-review-wire.ts'
import { ROLES } from '../../identity/roles.ts'
import {
  campaignsQuerySchema,
  itemsQuerySchema,
  reportQuerySchema,
} from '../access-review-routes.ts'
import type { Operation } from './operation.ts'

const TAG = { tag: 'access review' }

/** See operations.ts. */
export const ACCESS_REVIEW_OPERATIONS: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/access-review', id: 'reportAccess', ...TAG },
    ...{ summary: 'Who could do what, and what was done', caller: ['auditor'] },
    ...{ query: reportQuerySchema, answer: { json: review.reportSchema } },
  },
  {
    ...{ method: 'get', path: '/campaigns', id: 'listCampaigns', ...TAG },
    ...{ summary: 'Campaigns, the oldest first', caller: ROLES, query: campaignsQuerySchema },
    answer: { json: review.campaignListSchema },
  },
  {
    ...{ method: 'post', path: '/campaigns', id: 'openCampaign', ...TAG },
    ...{ summary: 'Open a campaign', caller: ['auditor'], body: review.openCampaignSchema },
    answer: { json: review.campaignSchema },
  },
  {
    ...{ method: 'get', path: '/campaigns/{id}', id: 'showCampaign', ...TAG },
    ...{ summary: 'One campaign', caller: ROLES, answer: { json: review.campaignSchema } },
  },
  {
    ...{ method: 'get', path: '/campaigns/{id}/items', id: 'listItems', ...TAG },
    ...{ summary: 'Items of a campaign', caller: ROLES, query: itemsQuerySchema },
    answer: { json: review.campaignItemsSchema },
  },
  {
    ...{ method: 'post', path: '/campaigns/{id}/items/{item}/decide', id: 'decideItem', ...TAG },
    ...{ summary: 'Decide on an item', caller: ROLES, body: review.decideItemSchema },
    answer: { json: review.campaignItemSchema },
  },
  {
    ...{ method: 'post', path: '/campaigns/{id}/items/{item}/remediated', id: 'remediateItem' },
    ...{ ...TAG, summary: 'Show that a revocation was carried out', caller: ['auditor'] },
    ...{ body: review.remediateItemSchema, answer: { json: review.campaignItemSchema } },
  },
  {
    ...{ method: 'post', path: '/campaigns/{id}/sign-off', id: 'signOffCampaign', ...TAG },
    ...{ summary: 'Sign a campaign off', caller: ['auditor'], body: review.signOffSchema },
    answer: { json: review.campaignSchema },
  },
  {
    ...{ method: 'post', path: '/campaigns/{id}/cancel', id: 'cancelCampaign', ...TAG },
    ...{ summary: 'Cancel a campaign', caller: ['auditor'], body: review.cancelCampaignSchema },
    answer: { json: review.campaignSchema },
  },
]
