/** Operations of access reviews: a part of OPERATIONS (operations.ts). */
import * as review from '../../../shared/access-review-wire.ts'
import { ROLES } from '../../identity/roles.ts'
import { itemsSchema, listSchema, reportQuerySchema } from '../access-review-routes.ts'
import type { Operation } from './operations.ts'

/** Schemas that the document names. */
export const NAMED_REVIEWS = {
  AccessReport: review.reportSchema,
  Campaign: review.campaignSchema,
  CampaignItem: review.campaignItemSchema,
  CampaignItemList: review.campaignItemsSchema,
  CampaignList: review.campaignListSchema,
} as const

const AUDITORS = ['auditor'] as const
const ITEM = '/campaigns/{id}/items/{item}'

/** See the head of the file. */
export const ACCESS_REVIEWS: readonly Operation[] = [
  {
    ...{ method: 'get', path: '/access-review', id: 'makeAccessReport', tag: 'access reviews' },
    ...{ summary: 'Who could do what, and what was done', caller: AUDITORS },
    ...{ query: reportQuerySchema, answer: { json: review.reportSchema } },
  },
  {
    ...{ method: 'post', path: '/campaigns', id: 'openCampaign', tag: 'access reviews' },
    ...{ summary: 'Open a campaign', caller: AUDITORS, body: review.openCampaignSchema },
    answer: { json: review.campaignSchema },
  },
  {
    ...{ method: 'get', path: '/campaigns', id: 'listCampaigns', tag: 'access reviews' },
    ...{ summary: 'Campaigns, the oldest first', caller: ROLES, query: listSchema },
    answer: { json: review.campaignListSchema },
  },
  {
    ...{ method: 'get', path: '/campaigns/{id}', id: 'showCampaign', tag: 'access reviews' },
    ...{ summary: 'One campaign', caller: ROLES, answer: { json: review.campaignSchema } },
  },
  {
    ...{ method: 'get', path: '/campaigns/{id}/items', id: 'listCampaignItems' },
    ...{ tag: 'access reviews', summary: 'Items of a campaign', caller: ROLES },
    ...{ query: itemsSchema, answer: { json: review.campaignItemsSchema } },
  },
  {
    ...{ method: 'post', path: `${ITEM}/decide`, id: 'decideCampaignItem' },
    ...{ tag: 'access reviews', summary: 'Decide on an item', caller: ROLES },
    ...{ body: review.decideItemSchema, answer: { json: review.campaignItemSchema } },
  },
  {
    ...{ method: 'post', path: `${ITEM}/remediated`, id: 'remediateCampaignItem' },
    ...{ tag: 'access reviews', summary: 'Record that a revocation is carried out' },
    ...{ caller: AUDITORS, body: review.remediateItemSchema },
    answer: { json: review.campaignItemSchema },
  },
  {
    ...{ method: 'post', path: '/campaigns/{id}/sign-off', id: 'signOffCampaign' },
    ...{ tag: 'access reviews', summary: 'Sign a campaign', caller: AUDITORS },
    ...{ body: review.signOffSchema, answer: { json: review.campaignSchema } },
  },
  {
    ...{ method: 'post', path: '/campaigns/{id}/cancel', id: 'cancelCampaign' },
    ...{ tag: 'access reviews', summary: 'End a campaign without signing it', caller: AUDITORS },
    ...{ body: review.cancelCampaignSchema, answer: { json: review.campaignSchema } },
  },
]
