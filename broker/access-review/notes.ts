/** What a reader of a report has to know about it. */
import type { AccessReport } from '../../shared/access-review-wire.ts'
import { MAX_ACCESS, MAX_POLICIES, MAX_PRINCIPALS } from './bounds.ts'
import type { LedgerTally } from './tally.ts'

/** What notes are made of beside the report itself. */
export interface NoteFacts {
  readonly tally: LedgerTally
  /** The first entry that is still there. */
  readonly firstSeq: number
  readonly accessCut: number
  readonly nowMs: number
}

/** One sentence each. */
export function notesOf(report: Omit<AccessReport, 'notes'>, facts: NoteFacts): string[] {
  return [...periodNotes(report, facts), ...policyNotes(report), ...boundNotes(report, facts)]
}

function* periodNotes(
  { until, population, principals }: Omit<AccessReport, 'notes'>,
  { firstSeq, nowMs, tally }: NoteFacts,
): Generator<string> {
  const { from, to, read, unreadable, shortened } = population
  if (Date.parse(until) > nowMs)
    yield 'The period has not ended: what is written after the checkpoint is not in this report.'
  if (firstSeq > 0 && from <= firstSeq)
    yield `Entries below ${firstSeq} are not kept any more; if the period began before them, a part of it is missing.`
  if (read < to - from)
    yield `${to - from - read} entries of the range were pruned while it was read.`
  if (unreadable > 0)
    yield `${unreadable} entries of the period have no form that is known; they count nowhere.`
  if (shortened > 0)
    yield `${shortened} entries of the period have texts that were cut to fit; names in them may be cut.`
  if (tally.strayReviews > 0)
    yield `${tally.strayReviews} decisions of people were on requests that were held before the period, are out of the scope, or were not followed.`
  if (principals.length === 0)
    yield 'Nobody in this scope made a request, is registered, or is named by a rule.'
}

function* policyNotes({ policy }: Omit<AccessReport, 'notes'>): Generator<string> {
  const { digest, decided } = policy
  const last = decided.at(-1)
  if (decided.length > 1)
    yield `${decided.length} policies decided in the period; standing access is told by the one in force when the report was made.`
  else if (last !== undefined && last.digest !== digest)
    yield 'Another policy decided in the period than the one in force when the report was made, by which standing access is told.'
  if (decided.length >= MAX_POLICIES) yield `Only the first ${MAX_POLICIES} policies are listed.`
}

function* boundNotes(
  { principals }: Omit<AccessReport, 'notes'>,
  { tally, accessCut }: NoteFacts,
): Generator<string> {
  if (tally.beyond > 0)
    yield `There are more than ${MAX_PRINCIPALS} principals; ${tally.beyond} entries are of others, which are not in this report.`
  else if (principals.length >= MAX_PRINCIPALS)
    yield `There are ${MAX_PRINCIPALS} principals or more; some without any request may be missing.`
  if (accessCut > 0)
    yield `There are more than ${MAX_ACCESS} pairs of principal and rule; ${accessCut} of them are left out.`
  const cut = principals.filter((one) => one.cut.length > 0).length
  if (cut > 0) yield `Of ${cut} principals something is left out, as said there.`
}
