/** A campaign as one page: what was decided, by whom, when and why, and of what. */
import type { Campaign, CampaignItem } from '../shared/access-review-wire.ts'
import { html, page, table } from './html.ts'
import type { Markup } from './html.ts'
import { notesHtml, populationHtml } from './review-html.ts'
import { decisionText, ruleText, scopeText, tallyText, whoText } from './review-texts.ts'

/** The page. @param problem - what is wrong with the items, if anything */
export function campaignHtml(
  campaign: Campaign,
  items: readonly CampaignItem[],
  problem: string | undefined,
): string {
  const { title, since, until, scope, state, openedBy, openedAt } = campaign
  const intro = html`<p>
    ${since} to ${until}. Scope: ${scopeText(scope)}. Opened ${openedAt} by ${openedBy}. ${state}.
  </p>`
  return page(`Access review: ${title}`, intro, [
    { id: 'summary', title: 'Summary', body: summary(campaign, problem) },
    { id: 'population', title: 'What it is of', body: populationHtml(campaign.population) },
    { id: 'items', title: 'Items', body: itemsHtml(items) },
    { id: 'revoked', title: 'Revocations', body: revocations(items) },
  ])
}

function summary(
  { id, counts, closing, policyDigest, itemsSha256, state, notes }: Campaign,
  problem: string | undefined,
): Markup {
  const { items, certify, revoke, exception, remediated } = counts
  const rows = [
    ['Campaign', id],
    ['Items', items],
    ['Certified', certify],
    ['Revoked', `${revoke}, of which ${remediated} are carried out`],
    ['Exceptions', exception],
    ['Open', items - certify - revoke - exception],
    ['Policy that the items are of', policyDigest],
    ['SHA-256 of the items, as in the ledger', itemsSha256],
    ...(closing === undefined
      ? []
      : [
          [
            state === 'SIGNED_OFF' ? 'Signed off' : 'Cancelled',
            `${closing.at} by ${closing.by}: ${closing.reason}`,
          ],
          ['Revocations outstanding then', closing.outstanding],
        ]),
  ]
  return html`${notesHtml(problem === undefined ? notes : [problem, ...notes])}${table('In short', ['What', 'Value'], rows)}`
}

function itemsHtml(items: readonly CampaignItem[]): Markup {
  return table(
    'All items',
    [
      ...['Item', 'Principal', 'Rule', 'Effect', 'Used', 'Last', 'Approved by', 'Given to'],
      ...['Decision', 'By', 'When', 'Why', 'About'],
    ],
    items.map((item) => {
      const { id, principal, access, reviewers, decision } = item
      return [
        ...[id, whoText(principal), access.rule, access.effect, tallyText(access.uses)],
        ...[access.uses.last ?? '', access.approvers.join(', '), reviewers.join(', ')],
        ...[decisionText(item), decision?.by ?? '', decision?.at ?? '', decision?.reason ?? ''],
        ruleText(access),
      ]
    }),
  )
}

function revocations(items: readonly CampaignItem[]): Markup {
  const revoked = items.filter(({ decision }) => decision?.verdict === 'revoke')
  if (revoked.length === 0) return html`<p>None.</p>`
  return table(
    'Revocations, and what shows that they were carried out',
    ['Item', 'Principal', 'Rule', 'Carried out', 'By', 'New policy', 'Refused request'],
    revoked.map(({ id, principal, access, remediation }) => [
      ...[id, whoText(principal), access.rule],
      ...[remediation === undefined ? 'no' : `${remediation.at}, rule ${remediation.rule}`],
      ...[remediation?.by ?? '', remediation?.policyDigest ?? '', remediation?.requestId ?? ''],
    ]),
  )
}
