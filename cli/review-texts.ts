/** Words for what access reviews have, the same in every form of their reports. */
import type {
  Access,
  CampaignItem,
  Held,
  PrincipalId,
  ReviewRule,
  ReviewScope,
  Tally,
} from '../shared/access-review-wire.ts'

/** Whether nothing went ahead or was held by it. */
export function isUnused({ uses }: Pick<Access, 'uses'>): boolean {
  return uses.done + uses.held === 0
}

/** `agent scanner (system:serviceaccount:shop:agents)` */
export function whoText({ kind, name, subject }: PrincipalId): string {
  if (kind === 'nobody') return 'nobody that was seen'
  const shown = kind === 'serviceAccount' ? 'unnamed process of' : kind
  return subject === '' || subject === name ? `${shown} ${name}` : `${shown} ${name} (${subject})`
}

/** What a rule is about, without who: `verbs: get, list; resources: pods`. */
export function ruleText({ match, when, groups }: ReviewRule): string {
  const conditions = Object.entries(match).map(([key, words]) => `${key}: ${wordsText(words)}`)
  return [
    ...conditions,
    ...(when === undefined ? [] : [`when: ${when}`]),
    ...(groups.length === 0 ? [] : [`grants: ${groups.join(', ')}`]),
  ].join('; ')
}

function wordsText(words: readonly string[]): string {
  return words.map((word) => (word === '' ? '""' : word)).join(', ')
}

/** What of a rule was not used. */
export function unusedText(access: Access): string {
  if (isUnused(access)) return 'all of it'
  const parts = Object.entries(access.unused).filter(([, words]) => words.length > 0)
  return parts.map(([key, words]) => `${key}: ${words.join(', ')}`).join('; ')
}

/** Whether a rule applies. */
export function appliesText({ applies, unseen }: Access): string {
  if (applies === 'applies') return 'yes'
  return unseen.length === 0 ? 'by what it did' : `not seen: ${unseen.join(', ')}`
}

/** `3 done, 1 held` */
export function tallyText({ done, held, denied, breakGlass }: Tally): string {
  const parts = [
    [done, 'done'],
    [held, 'held'],
    [denied, 'denied'],
    [breakGlass, 'broke glass'],
  ] as const
  const shown = parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`)
  return shown.length === 0 ? 'none' : shown.join(', ')
}

/** What a held request was. */
export function heldText({ verb, resource, namespace, name, cluster }: Held): string {
  const place = [namespace, name].filter((part) => part !== '').join('/')
  return `${verb} ${resource}${place === '' ? '' : ` ${place}`} in ${cluster}`
}

/** What people said of it. */
export function reviewsText({ reviews, breakGlass }: Held): string {
  const said = reviews.map(({ reviewer, verdict, reason }) => `${verdict}, ${reviewer}: ${reason}`)
  if (said.length > 0) return said.join('; ')
  return breakGlass ? 'not reviewed' : ''
}

/** `cluster: main, agent: scanner`; `everything` without a condition. */
export function scopeText(scope: ReviewScope): string {
  const parts = Object.entries(scope).map(([key, value]) => `${key}: ${value}`)
  return parts.length === 0 ? 'everything' : parts.join(', ')
}

/** What became of an item. */
export function decisionText({ decision, remediation }: CampaignItem): string {
  if (decision === undefined) return 'open'
  const { verdict, expiresAt } = decision
  if (verdict === 'exception') return `exception until ${expiresAt ?? ''}`
  if (verdict === 'certify') return 'certified'
  return remediation === undefined
    ? 'revoked, to be carried out'
    : `revoked, rule ${remediation.rule}`
}
