/** Refusals of access reviews: a part of REASONS (reasons.ts), which says what the fields are. */

export const REVIEW_REASONS = {
  campaign_unknown: {
    status: 404,
    sentence: 'there is no such campaign, or it has no such item',
    remedy: 'check the ids: nestgate review campaign list',
  },
  campaign_closed: {
    status: 409,
    sentence: 'the campaign was signed off or cancelled, and changes no more',
    remedy: 'open another campaign',
  },
  campaign_unfit: {
    status: 400,
    sentence: 'a campaign cannot be made of this',
    remedy: 'change the scope or the period, as the message says',
  },
  campaign_item_decided: {
    status: 409,
    sentence: 'the item was decided before; the first decision stands',
    remedy: 'look at the item; another campaign can decide otherwise',
  },
  campaign_items_open: {
    status: 409,
    sentence: 'the campaign has items that are not settled',
    remedy: 'decide on all items, and record that revocations were carried out',
  },
  reviewer_not_assigned: {
    status: 403,
    sentence: 'the item is not given to this reviewer',
    remedy: 'ask one of the reviewers that the item names',
  },
  own_access: {
    status: 403,
    sentence: 'nobody decides on their own access',
    remedy: 'ask another of the item’s reviewers',
  },
  remediation_unproved: {
    status: 409,
    sentence: 'the revocation is not carried out in the policy that is in force',
    remedy: 'change the policy as the message says, wait until it is in force, and record it then',
  },
} as const
