/**
 * Access review: the report of who could do what and what was done, and campaigns in which people decide on it. Broker
 * and `nestgate review` decode what they get of each other with these schemas. Times are RFC 3339 in UTC.
 */
import { z } from 'zod'
import { EFFECTS } from './policy/decision.ts'

/** Version of the report's form. */
export const REPORT_VERSION = 1
/** Items of one campaign at most: they are opened in one transaction. */
export const MAX_CAMPAIGN_ITEMS = 10_000
/** Items of one page at most. */
export const MAX_ITEMS_PAGE = 1_000
/** Reviewers of one item at most. */
const MAX_REVIEWERS = 50
/** Assignments of one campaign at most. */
const MAX_ASSIGNMENTS = 200
/** Longest name, in characters: as long as the names that an audit query takes. */
const MAX_NAME = 512
/** Longest reason, in characters. */
const MAX_REASON = 500
/** Longest title of a campaign, in characters. */
const MAX_TITLE = 200

const name = z.string().min(1).max(MAX_NAME)
const reason = z.string().trim().min(1).max(MAX_REASON)
const time = z.iso.datetime({ offset: true })
const words = z.array(z.string())
const count = z.int().min(0)

/** What of the ledger and of the policy is looked at; all conditions that are given must hold. */
export const reviewScopeSchema = z.strictObject({
  cluster: name.optional(),
  /** Of the object; requests outside of namespaces are left out then. */
  namespace: name.optional(),
  /** Name of the process. */
  agent: name.optional(),
  /** Service account, or subject of a token. */
  subject: name.optional(),
})
/** See {@link reviewScopeSchema}. */
export type ReviewScope = z.infer<typeof reviewScopeSchema>

/** What kinds of principals there are. */
export const PRINCIPAL_KINDS = [
  /** A named process of a pod. */
  'agent',
  /** A direct client: person or pipeline. */
  'subject',
  /** A pod whose process is not known: its requests could not be read. */
  'serviceAccount',
  /** Nobody: of items about rules that apply to no principal of the report. */
  'nobody',
] as const

const principalIdSchema = z.object({
  kind: z.enum(PRINCIPAL_KINDS),
  /** Name of the process, or of the subject. */
  name: z.string(),
  /** Kubernetes user that it acted as; empty where it was not seen. */
  subject: z.string(),
  /** Who answers for the agent: people, or `group:NAME`. */
  owners: words,
  /** Subjects of tokens that it sent along. */
  tokens: words,
})
/** Who has access. */
export type PrincipalId = z.infer<typeof principalIdSchema>

const tallySchema = z.object({
  /** Went ahead. */
  done: count,
  /** Were held for people. */
  held: count,
  /** Were refused. */
  denied: count,
  /** Of those that went ahead: without approval. */
  breakGlass: count,
  first: z.string().optional(),
  last: z.string().optional(),
})
/** How many requests, and when. */
export type Tally = z.infer<typeof tallySchema>

/** What was done, by place and kind. */
export const useSchema = tallySchema.extend({
  cluster: z.string(),
  namespace: z.string(),
  verb: z.string(),
  /** With subresource and group, `deployments.apps/scale`; the path outside the resource API. */
  resource: z.string(),
  /** What the requests amounted to, whatever their verb. */
  actions: words,
})
/** See {@link useSchema}. */
export type Use = z.infer<typeof useSchema>

const ruleSchema = z.object({
  rule: z.string(),
  policy: z.string(),
  effect: z.enum(EFFECTS),
  /** Its conditions, as they are written: condition to words. */
  match: z.record(z.string(), words),
  when: z.string().optional(),
  /** Kubernetes groups that it grants. */
  groups: words,
  /** Of its consequences; tells whether it was changed. */
  sha256: z.string(),
})
/** A rule that lets something through. */
export type ReviewRule = z.infer<typeof ruleSchema>

/** Standing access: a rule that lets a principal do something, and what came of it. */
export const accessSchema = ruleSchema.extend({
  /** `might`: the rule names the principal, and asks for something else that was not seen of it. */
  applies: z.enum(['applies', 'might']),
  /** Conditions that were not seen to hold. */
  unseen: words,
  uses: tallySchema,
  approvers: words,
  /** Words of the rule that no request of the principal came under. */
  unused: z.object({ verbs: words, actions: words, resources: words }),
})
/** See {@link accessSchema}. */
export type Access = z.infer<typeof accessSchema>

/** A held request, or one that broke glass. */
export const heldSchema = z.object({
  requestId: z.string(),
  at: z.string(),
  cluster: z.string(),
  namespace: z.string(),
  verb: z.string(),
  resource: z.string(),
  name: z.string(),
  rules: words,
  breakGlass: z.boolean(),
  /** The last state that the period has. */
  state: z.string(),
  /** What people said of it, in order. */
  reviews: z.array(
    z.object({ reviewer: z.string(), verdict: z.string(), reason: z.string(), at: z.string() }),
  ),
})
/** See {@link heldSchema}. */
export type Held = z.infer<typeof heldSchema>

/** Everything about one principal. */
export const principalSchema = principalIdSchema.extend({
  /** Whether the period has a request of it. */
  seen: z.boolean(),
  requests: tallySchema,
  /** Requests that could not be read, and were refused. */
  unread: count,
  access: z.array(accessSchema),
  /** Rules that deny, and apply to it. */
  limits: words,
  uses: z.array(useSchema),
  held: z.array(heldSchema),
  /** Rules that decided on its requests and that the policy does not have any more. */
  removed: z.array(z.object({ rule: z.string(), uses: tallySchema })),
  /** What was left out because of a bound, one sentence each. */
  cut: words,
})
/** See {@link principalSchema}. */
export type Principal = z.infer<typeof principalSchema>

/** What was read: the population. */
export const populationSchema = z.object({
  origin: z.string(),
  /** Of the checkpoint that everything was read under. */
  size: count,
  /** Base64. */
  root: z.string(),
  /** The signed note, whole. */
  note: z.string(),
  /** Entries `from` to `to` (not included) were read; from them follows everything in the report. */
  from: count,
  to: count,
  read: count,
  /** Of these, in the period and scope. */
  matched: count,
  /** Of these, of no form that is known. */
  unreadable: count,
  /** Of these, with texts that were cut to fit. */
  shortened: count,
})

/** The report. */
export const reportSchema = z.object({
  version: z.literal(REPORT_VERSION),
  madeAt: z.string(),
  madeBy: z.string(),
  since: z.string(),
  until: z.string(),
  scope: reviewScopeSchema,
  population: populationSchema,
  policy: z.object({
    /** Of the policy that standing access is told by. */
    digest: z.string(),
    rules: count,
    /** Policies by which requests of the period were decided: digest, and how many requests; in order of their first. */
    decided: z.array(z.object({ digest: z.string(), requests: count })),
  }),
  summary: z.object({
    principals: count,
    /** Principals of whom the period has no request. */
    silent: count,
    requests: tallySchema,
    unread: count,
    /** Pairs of principal and rule, and how many of them were not used. */
    access: count,
    unusedAccess: count,
    /** Break-glass requests whose review is not made. */
    openReviews: count,
  }),
  principals: z.array(principalSchema),
  /** Rules that let something through and that nobody used; `principals` is to how many they apply. */
  unusedRules: z.array(ruleSchema.extend({ principals: count })),
  /** What a reader has to know, one sentence each: bounds that cut something, another policy, pruned entries. */
  notes: words,
})
/** See {@link reportSchema}. */
export type AccessReport = z.infer<typeof reportSchema>

/** Whom items are given to: names of people, or `group:NAME`. */
const reviewersSchema = z.array(name).min(1).max(MAX_REVIEWERS)

/** Body of `POST /v1/campaigns`. */
export const openCampaignSchema = z.strictObject({
  title: z.string().trim().min(1).max(MAX_TITLE),
  since: time,
  until: time,
  scope: reviewScopeSchema.optional(),
  /** Of items that no assignment is about. */
  reviewers: reviewersSchema,
  /** The first that fits an item gives its reviewers; `*` is any text. */
  assign: z
    .array(
      z.strictObject({
        agent: name.optional(),
        subject: name.optional(),
        rule: name.optional(),
        reviewers: reviewersSchema,
      }),
    )
    .max(MAX_ASSIGNMENTS)
    .optional(),
})
/** See {@link openCampaignSchema}. */
export type OpenCampaign = z.infer<typeof openCampaignSchema>

/** What a reviewer can make of an item. */
export const VERDICTS_OF_ITEMS = ['certify', 'revoke', 'exception'] as const

/** Body of `POST /v1/campaigns/ID/items/ID/decide`. */
export const decideItemSchema = z
  .strictObject({ verdict: z.enum(VERDICTS_OF_ITEMS), reason, expiresAt: time.optional() })
  .refine(
    ({ verdict, expiresAt }) => (verdict === 'exception') === (expiresAt !== undefined),
    'an exception has an expiresAt, and nothing else has',
  )
/** See {@link decideItemSchema}. */
export type DecideItem = z.infer<typeof decideItemSchema>

/** Body of `POST /v1/campaigns/ID/items/ID/remediated`. */
export const remediateItemSchema = z.strictObject({
  /** Of the policy that is in force. */
  policyDigest: z.string().regex(/^[0-9a-f]{64}$/, 'expected 64 lower-case hex digits'),
  /** A request that was refused under it. */
  requestId: z.string().max(64).optional(),
})
/** See {@link remediateItemSchema}. */
export type RemediateItem = z.infer<typeof remediateItemSchema>

/** Body of `POST /v1/campaigns/ID/sign-off`. */
export const signOffSchema = z.strictObject({
  reason,
  /** Signs although revocations are not carried out yet; the ledger says how many. */
  outstanding: z.literal(true).optional(),
})
/** See {@link signOffSchema}. */
export type SignOff = z.infer<typeof signOffSchema>

/** Body of `POST /v1/campaigns/ID/cancel`. */
export const cancelCampaignSchema = z.strictObject({ reason })

const byPersonSchema = z.object({ by: z.string(), at: z.string(), reason: z.string() })

/** One item of a campaign: one principal's access by one rule. */
export const campaignItemSchema = z.object({
  /** In its campaign. */
  id: z.string(),
  campaign: z.string(),
  principal: principalIdSchema,
  access: accessSchema,
  reviewers: words,
  decision: byPersonSchema
    .extend({
      verdict: z.enum(VERDICTS_OF_ITEMS),
      /** The reviewer's groups at that time. */
      groups: words,
      expiresAt: z.string().optional(),
    })
    .optional(),
  remediation: z
    .object({
      by: z.string(),
      at: z.string(),
      policyDigest: z.string(),
      requestId: z.string().optional(),
      /** What became of the rule. */
      rule: z.enum(['gone', 'changed']),
    })
    .optional(),
})
/** See {@link campaignItemSchema}. */
export type CampaignItem = z.infer<typeof campaignItemSchema>

/** A campaign without its items. */
export const campaignSchema = z.object({
  id: z.string(),
  title: z.string(),
  state: z.enum(['OPEN', 'SIGNED_OFF', 'CANCELLED']),
  openedBy: z.string(),
  openedAt: z.string(),
  since: z.string(),
  until: z.string(),
  scope: reviewScopeSchema,
  population: populationSchema,
  policyDigest: z.string(),
  /** Of all items as they were opened, in their order. */
  itemsSha256: z.string(),
  /** What the report says of itself. */
  notes: words,
  counts: z.object({
    items: count,
    certify: count,
    revoke: count,
    exception: count,
    /** Of the revocations: carried out. */
    remediated: count,
  }),
  /** Who signed it off or cancelled it. */
  closing: byPersonSchema.extend({ outstanding: count }).optional(),
})
/** See {@link campaignSchema}. */
export type Campaign = z.infer<typeof campaignSchema>

/** Answer of `GET /v1/campaigns`, the oldest first; `next` continues where it ended. */
export const campaignListSchema = z.object({
  items: z.array(campaignSchema),
  next: z.string().optional(),
})

/** Answer of `GET /v1/campaigns/ID/items`. */
export const campaignItemsSchema = z.object({
  items: z.array(campaignItemSchema),
  next: z.string().optional(),
})
