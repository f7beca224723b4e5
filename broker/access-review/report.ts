/**
 * The access report: one pass over the entries of a period under one checkpoint, and one walk of the policy that is in
 * force. It tells who could do what, what was done, what was held and by whom decided, and what was never used.
 */
import type { AccessReport, Principal, ReviewScope } from '../../shared/access-review-wire.ts'
import { REPORT_VERSION } from '../../shared/access-review-wire.ts'
import type { Verdict } from '../../shared/agent-tag.ts'
import type { PolicyScopes } from '../../shared/policy/decide.ts'
import type { PolicySet } from '../../shared/policy/policy-set.ts'
import type { StoredCheckpoint, Store } from '../store/store.ts'
import { readEntry } from './entries.ts'
import type { ReadEntry } from './entries.ts'
import { notesOf } from './notes.ts'
import { describePrincipals } from './principals.ts'
import type { Registered } from './principals.ts'
import { findRange, readRange } from './range.ts'
import type { Period, Range } from './range.ts'
import { createStanding } from './standing.ts'
import { addCounts, LedgerTally, noCounts } from './tally.ts'

/** Checkpoints of the ledger. */
export interface Checkpoints {
  /** Name of the log. */
  readonly origin: string
  /** A checkpoint over everything that was written before the call. */
  current(): Promise<StoredCheckpoint>
}

/** What a report needs. */
export interface ReportDeps {
  readonly store: Pick<Store, 'events' | 'leaves' | 'head'>
  readonly checkpoints: Checkpoints
  /** The policy in force. */
  readonly policy: () => PolicySet
  /** Which policies hold for a cluster; all for one that is not in it. */
  readonly scopes?: PolicyScopes | undefined
  readonly acceptVerdicts: readonly Verdict[]
  /** Agents of the configuration, with those who answer for them. */
  readonly registrations: readonly Registered[]
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** What a report is asked about. */
export interface ReportQuery extends Period {
  readonly scope: ReviewScope
  /** Who asks. */
  readonly by: string
}

/** What reading came to. */
interface Reading {
  readonly tally: LedgerTally
  readonly read: number
  readonly unreadable: number
  readonly shortened: number
}

/** Makes a report. Rejects with a `Fault` when the store fails. */
export async function makeReport(deps: ReportDeps, query: ReportQuery): Promise<AccessReport> {
  const { store, checkpoints, now } = deps
  const checkpoint = await checkpoints.current()
  const range = await findRange(store, checkpoint.size, query)
  const reading = await readAll(store, range, query)
  const { firstSeq } = await store.head()
  const policy = deps.policy()
  const { tally, ...counts } = reading
  const described = await describePrincipals({
    ...{ tally, policy, scope: query.scope, registrations: deps.registrations },
    standing: createStanding(policy, { ...deps, scope: query.scope }),
  })
  const decided = [...tally.policies].map(([digest, requests]) => ({ digest, requests }))
  const report: Omit<AccessReport, 'notes'> = {
    version: REPORT_VERSION,
    madeAt: new Date(now()).toISOString(),
    madeBy: query.by,
    since: new Date(query.sinceMs).toISOString(),
    until: new Date(query.untilMs).toISOString(),
    scope: query.scope,
    population: {
      origin: checkpoints.origin,
      size: checkpoint.size,
      root: Buffer.from(checkpoint.root).toString('base64'),
      note: checkpoint.note,
      ...range,
      ...counts,
      matched: tally.matched,
    },
    policy: { digest: policy.digest, rules: policy.rules.length, decided },
    summary: summaryOf(described.principals),
    principals: described.principals,
    unusedRules: described.unusedRules,
  }
  const facts = { tally, firstSeq, accessCut: described.accessCut, nowMs: now() }
  return { ...report, notes: notesOf(report, facts) }
}

async function readAll(
  store: ReportDeps['store'],
  range: Range,
  { sinceMs, untilMs, scope }: ReportQuery,
): Promise<Reading> {
  const tally = new LedgerTally(scope)
  let read = 0
  let unreadable = 0
  let shortened = 0
  for await (const page of readRange(store, range)) {
    read += page.length
    for (const { timeUs, value, shortened: isShort } of page) {
      if (timeUs < sinceMs * 1000 || timeUs >= untilMs * 1000) continue
      const entry: ReadEntry | undefined = readEntry(value)
      if (entry === undefined) unreadable += 1
      else tally.add(entry, new Date(Math.floor(timeUs / 1000)).toISOString())
      if (isShort) shortened += 1
    }
  }
  return { tally, read, unreadable, shortened }
}

function summaryOf(principals: readonly Principal[]): AccessReport['summary'] {
  const requests = noCounts()
  let [unread, access, unusedAccess, openReviews] = [0, 0, 0, 0]
  for (const one of principals) {
    addCounts(requests, one.requests)
    unread += one.unread
    access += one.access.length
    unusedAccess += one.access.filter(({ uses }) => uses.done + uses.held === 0).length
    openReviews += one.held.filter(
      ({ breakGlass, reviews }) =>
        breakGlass && !reviews.some(({ verdict }) => CLOSING.has(verdict)),
    ).length
  }
  return {
    principals: principals.length,
    silent: principals.filter(({ seen }) => !seen).length,
    ...{ requests, unread, access, unusedAccess, openReviews },
  }
}

/** What people say of a request that broke glass. */
const CLOSING: ReadonlySet<string> = new Set(['justified', 'unjustified'])
