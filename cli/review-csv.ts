/** Access reports and campaigns as CSV: one table, whose first column says what a record is. */
import type {
  AccessReport,
  Campaign,
  CampaignItem,
  Principal,
  Tally,
} from '../shared/access-review-wire.ts'
import { toCsv } from './csv.ts'
import { ruleText, unusedText, scopeText, appliesText } from './review-texts.ts'

const HEADINGS = [
  ...['record', 'kind', 'principal', 'subject', 'owners', 'cluster', 'namespace', 'verb'],
  ...['resource', 'actions', 'rule', 'effect', 'applies', 'about', 'done', 'held', 'denied'],
  ...[
    'breakGlass',
    'first',
    'last',
    'approvers',
    'unused',
    'requestId',
    'state',
    'reviews',
    'text',
  ],
] as const

type Column = (typeof HEADINGS)[number]
type Row = Partial<Record<Column, string | number>>

/** The report: records `population`, `note`, `principal`, `access`, `use`, `held`, `cut` and `unusedRule`. */
export function reportCsv(report: AccessReport): string {
  const { population, policy, since, until, scope } = report
  const facts: Row[] = [
    ...Object.entries({ since, until, scope: scopeText(scope), policy: policy.digest }),
    ...Object.entries(population),
  ].map(([name, value]) => ({ record: 'population', kind: name, text: value }))
  const notes: Row[] = report.notes.map((note) => ({ record: 'note', text: note }))
  const rules: Row[] = report.unusedRules.map((rule) => ({
    ...{ record: 'unusedRule', rule: rule.rule, effect: rule.effect, about: ruleText(rule) },
    text: `applies to ${rule.principals} principals`,
  }))
  const rows = [...facts, ...notes, ...rules, ...report.principals.flatMap(principalRows)]
  return toCsv(
    HEADINGS,
    rows.map((row) => HEADINGS.map((column) => row[column] ?? '')),
  )
}

function principalRows(one: Principal): Row[] {
  const who = { kind: one.kind, principal: one.name, subject: one.subject }
  return [
    {
      ...{ record: 'principal', ...who, owners: one.owners.join('; '), ...tally(one.requests) },
      text: `${one.unread} could not be read`,
    },
    ...one.access.map((row) => ({
      ...{ record: 'access', ...who, rule: row.rule, effect: row.effect },
      ...{ applies: appliesText(row), about: ruleText(row), ...tally(row.uses) },
      ...{ approvers: row.approvers.join('; '), unused: unusedText(row) },
    })),
    ...one.uses.map(({ cluster, namespace, verb, resource, actions, ...use }) => ({
      ...{ record: 'use', ...who, cluster, namespace, verb, resource },
      ...{ actions: actions.join('; '), ...tally(use) },
    })),
    ...one.held.map(({ requestId, at, cluster, namespace, verb, resource, name, ...held }) => ({
      ...{ record: 'held', ...who, cluster, namespace, verb, resource, requestId },
      ...{ first: at, text: name, rule: held.rules.join('; '), state: held.state },
      effect: held.breakGlass ? 'breakGlass' : 'hold',
      reviews: held.reviews
        .map(
          ({ at: when, reviewer, verdict, reason }) => `${when} ${reviewer} ${verdict}: ${reason}`,
        )
        .join('; '),
    })),
    ...one.cut.map((text) => ({ record: 'cut', ...who, text })),
  ]
}

function tally({ done, held, denied, breakGlass, first = '', last = '' }: Tally): Row {
  return { done, held, denied, breakGlass, first, last }
}

const ITEM_HEADINGS = [
  ...['campaign', 'item', 'kind', 'principal', 'subject', 'owners', 'rule', 'effect', 'about'],
  ...['done', 'held', 'denied', 'last', 'approvers', 'reviewers', 'verdict', 'by', 'at', 'reason'],
  ...['expiresAt', 'remediatedBy', 'remediatedAt', 'remediatedPolicy', 'remediatedRequest'],
  ...['checkpointSize', 'checkpointRoot', 'policyDigest', 'campaignState'],
]

/** A campaign: one record for each item, each with the snapshot that it is of. */
export function campaignCsv(campaign: Campaign, items: readonly CampaignItem[]): string {
  const { population, policyDigest, state } = campaign
  return toCsv(
    ITEM_HEADINGS,
    items.map((item) => [
      ...itemCells(item),
      ...[population.size, population.root, policyDigest, state],
    ]),
  )
}

function itemCells({
  id,
  campaign,
  principal,
  access,
  reviewers,
  decision,
  remediation,
}: CampaignItem): (string | number)[] {
  const { kind, name, subject, owners } = principal
  const { done, held, denied, last = '' } = access.uses
  return [
    ...[campaign, id, kind, name, subject, owners.join('; ')],
    ...[access.rule, access.effect, ruleText(access), done, held, denied, last],
    ...[access.approvers.join('; '), reviewers.join('; ')],
    ...(decision === undefined
      ? ['', '', '', '', '']
      : [decision.verdict, decision.by, decision.at, decision.reason, decision.expiresAt ?? '']),
    ...(remediation === undefined
      ? ['', '', '', '']
      : [remediation.by, remediation.at, remediation.policyDigest, remediation.requestId ?? '']),
  ]
}
