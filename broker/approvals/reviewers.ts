/** Who may decide, and when enough have: pure rules over a held request and a person. */
import type { Quorum } from '../../shared/policy/decision.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { StoredApproval, StoredReview } from '../store/store.ts'

/** How owners that are groups are written. */
const GROUP_PREFIX = 'group:'

/** Who speaks: an authenticated person. */
export interface Reviewer {
  /** Name of the person, as the ledger has it. */
  readonly reviewer: string
  readonly groups?: readonly string[] | undefined
  /** All other names of the same person. */
  readonly names?: readonly string[] | undefined
}

/** A person's decision. */
export interface Review extends Reviewer {
  readonly id: string
  readonly approve: boolean
  readonly reason: string
}

/** Whether two names are one person's; sign-in systems do not agree on case. */
export function sameName(a: string, b: string): boolean {
  return folded(a) === folded(b)
}

/** Upper case first: it makes one of what lower case keeps apart (ß and SS, σ and ς). */
function folded(name: string): string {
  return name.normalize('NFC').toUpperCase().toLowerCase().normalize('NFC')
}

/** Every name of a person, the first being the one in use. */
export function namesOf({ reviewer, names = [] }: Reviewer): readonly string[] {
  return [reviewer, ...names]
}

/** Who approved, the last one first; where an earlier approval is reused, its last one. */
export function approversOf({
  progress,
  reviewer,
}: Pick<StoredApproval, 'progress' | 'reviewer'>): readonly string[] {
  const last = reviewer === undefined ? [] : [reviewer]
  return [...new Set([...last, ...progress.reviews.map((review) => review.reviewer)])]
}

/** Whether a person asks for this request, or answers for the agent that does. */
export function isInvolved(
  reviewer: Reviewer,
  { subject, requesters, owners }: Pick<StoredApproval, 'subject' | 'requesters' | 'owners'>,
): boolean {
  const own = namesOf(reviewer)
  const groups = (reviewer.groups ?? []).map((group) => GROUP_PREFIX + group)
  return (
    anyOf(own, [subject, ...requesters]) ||
    anyOf(own, owners) ||
    owners.some((owner) => groups.includes(owner))
  )
}

function anyOf(names: readonly string[], others: readonly string[]): boolean {
  return names.some((name) => others.some((other) => sameName(name, other)))
}

/**
 * What a person's review makes of a PENDING request: the reviews it then has, and the state it goes to. A denial
 * ends it, by whomever; an approval counts only where it brings the request nearer to its quorums.
 */
export function judge(
  approval: StoredApproval,
  review: Review,
  at: string,
):
  | { readonly to: 'PENDING' | 'APPROVED' | 'DENIED'; readonly reviews: readonly StoredReview[] }
  | Refusal {
  if (isInvolved(review, approval)) return refuse('self_approval')
  const { reviewer, groups = [], names = [], approve, reason } = review
  const { reviews } = approval.progress
  const given = { reviewer, groups: [...groups], names, approve, reason, at }
  if (!approve) return { to: 'DENIED', reviews: [...reviews, given] }
  if (reviews.some((earlier) => anyOf(namesOf(earlier), namesOf(review)))) {
    return refuse('already_reviewed')
  }
  const { quorums } = approval.terms
  const before = missingQuorums(quorums, reviews)
  const after = missingQuorums(quorums, [...reviews, given])
  if (quorums.length > 0 && places(after).length === places(before).length) {
    return refuse('reviewer_not_eligible', quorumText(before))
  }
  return { to: after.length === 0 ? 'APPROVED' : 'PENDING', reviews: [...reviews, given] }
}

/** Quorums as people read them. */
export function quorumText(quorums: readonly Quorum[]): string {
  return quorums.map(({ group, count }) => `${count} of ${group}`).join(', ')
}

/**
 * What of the quorums is still open after these reviews. Each person fills one place, and people are placed so
 * that as many places as possible are filled: who could fill two makes room for who can fill only one.
 */
export function missingQuorums(
  quorums: readonly Quorum[],
  reviews: readonly Pick<StoredReview, 'approve' | 'groups'>[],
): readonly Quorum[] {
  const groups = places(quorums)
  const people = reviews.filter(({ approve }) => approve).map((review) => review.groups)
  const placed = new Map<number, number>()
  /** Finds a place for a person, moving others where they can sit elsewhere (augmenting paths). */
  const seat = (person: number, tried: Set<number>): boolean =>
    groups.some((group, place) => {
      if (tried.has(place) || people[person]?.includes(group) !== true) return false
      tried.add(place)
      const sitting = placed.get(place)
      if (sitting !== undefined && !seat(sitting, tried)) return false
      placed.set(place, person)
      return true
    })
  people.forEach((_, person) => seat(person, new Set()))
  const open = groups.filter((_, place) => !placed.has(place))
  return [...new Set(open)].map((group) => ({
    group,
    count: open.filter((other) => other === group).length,
  }))
}

/** One group name for each person that is needed. */
function places(quorums: readonly Quorum[]): readonly string[] {
  return quorums.flatMap(({ group, count }) => Array.from({ length: count }, () => group))
}
