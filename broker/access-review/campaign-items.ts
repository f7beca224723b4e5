/** Items of a campaign: made of a report, given to reviewers, and whose access they are. */
import type {
  Access,
  AccessReport,
  CampaignItem,
  OpenCampaign,
  PrincipalId,
} from '../../shared/access-review-wire.ts'
import { namePattern } from '../../shared/policy/globs.ts'
import { wordTest } from '../../shared/policy/matching.ts'
import { isInvolved, namesOf, sameName } from '../approvals/reviewers.ts'
import type { Reviewer } from '../approvals/reviewers.ts'
import { noCounts } from './tally.ts'

/** Digits of an item's id: ids are in the order of their bytes. */
const ID_DIGITS = 5
/** How reviewers that are groups are written. */
const GROUP_PREFIX = 'group:'

/** Whose access by a rule that applies to no principal it is. */
const NOBODY: PrincipalId = { kind: 'nobody', name: '', subject: '', owners: [], tokens: [] }

type Asked = Pick<OpenCampaign, 'reviewers' | 'assign'>

/** How many items a campaign of a report has. */
export function countItems(report: AccessReport): number {
  return report.summary.access + unheldRules(report).length
}

/**
 * An item for each pair of principal and rule, and one for each rule that applies to no principal: together all that the
 * policy lets through in the scope.
 */
export function makeItems(report: AccessReport, campaign: string, asked: Asked): CampaignItem[] {
  const pairs: (readonly [PrincipalId, Access])[] = [
    ...report.principals.flatMap(({ access, kind, name, subject, owners, tokens }) =>
      access.map((one) => [{ kind, name, subject, owners, tokens }, one] as const),
    ),
    ...unheldRules(report).map((access) => [NOBODY, access] as const),
  ]
  return pairs.map(([principal, access], at) => ({
    id: String(at + 1).padStart(ID_DIGITS, '0'),
    ...{ campaign, principal, access },
    reviewers: [...reviewersOf(asked, principal, access)],
  }))
}

/** A report about one agent or subject says nothing of rules that apply to others. */
function unheldRules({ unusedRules, scope }: AccessReport): readonly Access[] {
  if (scope.agent !== undefined || scope.subject !== undefined) return []
  return unusedRules
    .filter(({ principals }) => principals === 0)
    .map(({ rule, policy, effect, match, when, groups, sha256 }) => ({
      ...{ rule, policy, effect, match, groups, sha256 },
      ...(when === undefined ? {} : { when }),
      ...{ applies: 'might', unseen: [], uses: noCounts(), approvers: [] },
      unused: { verbs: [], actions: [], resources: [] },
    }))
}

function reviewersOf(
  { reviewers, assign = [] }: Asked,
  { kind, name, subject }: PrincipalId,
  { rule }: Access,
): readonly string[] {
  const fits = (word: string | undefined, values: readonly string[]): boolean =>
    word === undefined || values.some((value) => namePattern(word).test(value))
  const found = assign.find(
    (one) =>
      fits(one.agent, kind === 'agent' ? [name] : []) &&
      fits(one.subject, kind === 'subject' ? [name, subject] : [subject]) &&
      fits(one.rule, [rule]),
  )
  return found?.reviewers ?? reviewers
}

/** Whether an item is given to a person. */
export function isAssigned(reviewer: Reviewer, { reviewers }: CampaignItem): boolean {
  const groups = (reviewer.groups ?? []).map((group) => GROUP_PREFIX + group)
  return reviewers.some((one) =>
    one.startsWith(GROUP_PREFIX)
      ? groups.includes(one)
      : namesOf(reviewer).some((own) => sameName(own, one)),
  )
}

/**
 * Whether an item is a person's own access: they are the principal, own it, or gave it a token; or, where nobody is seen to
 * have it, the rule would give it to them.
 */
export function isOwn(reviewer: Reviewer, { principal, access }: CampaignItem): boolean {
  const { kind, name, subject, owners, tokens } = principal
  if (kind !== 'nobody')
    return isInvolved(reviewer, { subject, requesters: [name, ...tokens], owners })
  const { subjects = [], groups = [] } = access.match
  const own = namesOf(reviewer)
  return (
    own.some((one) => subjects.some((word) => sameName(one, word))) ||
    own.some(wordTest('name', subjects)) ||
    (reviewer.groups ?? []).some(wordTest('name', groups))
  )
}
