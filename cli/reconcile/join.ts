/**
 * The join: entries and events go in as they come, each side in its own order; requests that fit are forgotten at once, so that memory is
 * that of requests under way and of what is found. Ids of the last ones are remembered, to know what comes twice.
 */
import { isOwnQuestion } from './audit-event.ts'
import { differences, isHidden } from './facts.ts'
import type { Call, Difference, Intent, Outcome, People } from './facts.ts'
import type { LedgerFact } from './ledger-entry.ts'

/** Ids of requests that fitted, remembered to recognise what comes again. */
const MAX_RECENT = 65_536
/** A check of a cluster takes no longer than this before its entry, in microseconds. */
const CHECK_US = 120_000_000
/** Findings that are shown of each kind; all are counted. */
export const MAX_SHOWN = 10_000

/** What is found. Each one makes the command fail. */
export type FindingKind =
  /** The cluster saw a call of ours that the ledger does not know. */
  | 'missing_in_ledger'
  /** The ledger says that something was forwarded, and the cluster did not see it. */
  | 'missing_in_cluster'
  /** Both know it, and do not say the same. */
  | 'differs'
  /** A second call under an id that was used: only reads are sent twice, when a connection breaks. */
  | 'second_call'
  /** A call under an id of ours by somebody who is not ours. */
  | 'foreign_user'
  /** The broker's own account did what the broker never does. */
  | 'own_account'
  /** Two intents that say they forwarded one request. */
  | 'second_intent'

/** See {@link FindingKind}. */
export interface Finding {
  readonly kind: FindingKind
  readonly id: string
  readonly intent?: Intent
  readonly call?: Call
  readonly differences: readonly Difference[]
}

/** What is no fault: how often. */
export interface Counts {
  /** Requests that both know, and say the same of. */
  fits: number
  /** Requests whose user has a pseudonym in the ledger: one pseudonym was one user, and that is all that was compared. */
  hidden: number
  /** Of them those that had no end yet on one side. */
  unfinished: number
  /** Reads that were sent once more because a connection broke. */
  repeated: number
  /** Events that are there twice, word for word. */
  doubled: number
  /** Calls that the broker made for itself. */
  own: number
  /** Nothing reached the API server, as the outcome says. */
  notSent: number
  /** Intents that have no outcome: still under way, or the broker ended first. */
  running: number
  /** The cluster's audit policy writes nothing down of these. */
  notAudited: number
  /** Entries of a time that the log does not have. */
  outsideLog: number
  /** Events of a time that the ledger, as it was given, does not have. */
  outsideLedger: number
  /** Refused attempts of `nestgate doctor`. */
  probes: number
}

/** A period, microseconds since the epoch, both ends inclusive. */
export interface Period {
  readonly fromUs: number
  readonly toUs: number
}

/** What is known beside entries and events. */
export interface JoinOptions {
  /** How far the clocks of broker and cluster may differ, microseconds. */
  readonly skewUs: number
  /** Whether the cluster's audit policy writes the last stage of such a call down. */
  readonly isAudited: (intent: Intent) => boolean
}

/** What came of it. */
export interface Joined {
  readonly counts: Readonly<Counts>
  /** The first {@link MAX_SHOWN} of each kind. */
  readonly findings: readonly Finding[]
  readonly found: Readonly<Partial<Record<FindingKind, number>>>
  /** By how much the cluster's clock was after the broker's, between intent and arrival, microseconds; none where nothing fitted. */
  readonly clockUs: { readonly least: number; readonly most: number } | undefined
}

interface Open {
  intent?: Intent
  outcome?: Outcome
  call?: Call
}

/** Outcomes with a reason that the API server saw all the same; every other reason means that nothing was sent. */
const SENT: ReadonlySet<string> = new Set([
  ...['upstream_invalid', 'answer_unmaskable', 'stream_broken', 'broker_restarted'],
  ...['revoked', 'approval_revoked'],
])
const READS: ReadonlySet<string> = new Set(['get', 'list', 'watch'])
const CONNECTS: ReadonlySet<string> = new Set(['exec', 'attach', 'portforward', 'proxy'])

/** See the head of the file. */
export class Join {
  readonly #options: JoinOptions
  readonly #open = new Map<string, Open>()
  readonly #recent = new Map<string, Call>()
  readonly #people: People = new Map()
  readonly #checks: number[] = []
  /** Calls of the broker's own account that it does not make, unless it was checking the cluster. */
  readonly #suspects: Call[] = []
  readonly #findings: Finding[] = []
  readonly #found = new Map<FindingKind, number>()
  #clockUs: Joined['clockUs']
  readonly #counts: Counts = {
    ...{
      fits: 0,
      hidden: 0,
      unfinished: 0,
      repeated: 0,
      doubled: 0,
      own: 0,
      notSent: 0,
      running: 0,
    },
    ...{ notAudited: 0, outsideLog: 0, outsideLedger: 0, probes: 0 },
  }

  constructor(options: JoinOptions) {
    this.#options = options
  }

  /** Requests that one side has not told the end of. */
  get open(): number {
    return this.#open.size
  }

  /** Takes an entry of the ledger. */
  entry(fact: LedgerFact): void {
    if (fact.is === 'checked') this.#checks.push(fact.atUs)
    if (fact.is === 'intent') this.#intent(fact.intent, fact.outcome)
    if (fact.is === 'outcome') {
      const open = this.#open.get(fact.id)
      if (open?.intent === undefined) return
      open.outcome = fact.outcome
      this.#settle(fact.id, open)
    }
  }

  /** Takes an event of the cluster's audit log. */
  call(call: Call): void {
    const { who, id } = call
    if (who === 'own') this.#ownCall(call)
    else if (who === 'other') this.#foreignCall(call)
    else {
      const open = this.#open.get(id)
      const before = open?.call ?? this.#recent.get(id)
      if (before !== undefined && before.receivedUs !== call.receivedUs)
        this.#secondCall(call, before)
      else if (before !== undefined) this.#further(call, before, open)
      else {
        const next: Open = { ...open, call }
        this.#open.set(id, next)
        this.#settle(id, next)
      }
    }
  }

  /** Ends it: what is open now stays without its other half. To be called once. */
  finish(ledger: Period, log: Period): Joined {
    for (const [id, open] of this.#open) this.#conclude(id, open, ledger, log)
    this.#open.clear()
    for (const call of this.#suspects) {
      if (this.#isProbe(call)) this.#counts.probes += 1
      else this.#find({ kind: 'own_account', id: call.id, call, differences: [] })
    }
    return {
      counts: this.#counts,
      findings: this.#findings,
      found: Object.fromEntries(this.#found),
      clockUs: this.#clockUs,
    }
  }

  #intent(intent: Intent, outcome: Outcome | undefined): void {
    const { id } = intent
    const open = this.#open.get(id)
    if (open?.intent !== undefined || this.#recent.has(id)) {
      this.#find({ kind: 'second_intent', id, intent, differences: [] })
      return
    }
    const next: Open = { ...open, intent, ...(outcome === undefined ? {} : { outcome }) }
    this.#open.set(id, next)
    this.#settle(id, next)
  }

  #ownCall(call: Call): void {
    if (!call.isLast) return
    if (isOwnQuestion(call)) this.#counts.own += 1
    else this.#suspects.push(call)
  }

  /** Whoever asks may choose the Audit-ID. It does not stand for the call that has it. */
  #foreignCall(call: Call): void {
    const { id, isLast } = call
    const isKnown = this.#open.get(id)?.intent !== undefined || this.#recent.has(id)
    if (isLast && isKnown) this.#find({ kind: 'foreign_user', id, call, differences: [] })
  }

  /** Another event of the same request. */
  #further(call: Call, before: Call, open: Open | undefined): void {
    const changed = sameFacts(call, before)
    if (changed.length > 0) {
      this.#find({ kind: 'differs', id: call.id, call, differences: changed })
      return
    }
    if (call.stage === before.stage || before.isLast) this.#counts.doubled += 1
    else if (open !== undefined) {
      open.call = call
      this.#settle(call.id, open)
    }
  }

  #secondCall(call: Call, before: Call): void {
    if (!call.isLast) return
    if (isRead(call) && sameFacts(call, before).length === 0) this.#counts.repeated += 1
    else this.#find({ kind: 'second_call', id: call.id, call, differences: [] })
  }

  /** Compares what both sides have told the end of. */
  #settle(id: string, { intent, outcome, call }: Open): void {
    if (intent === undefined || outcome === undefined || call?.isLast !== true) return
    this.#compare(intent, outcome, call)
    this.#open.delete(id)
  }

  #compare(intent: Intent, outcome: Outcome | undefined, call: Call): void {
    const found = differences(intent, outcome, call, this.#people)
    if (isHidden(intent.facts.user)) this.#counts.hidden += 1
    if (found.length === 0) this.#counts.fits += 1
    else this.#find({ kind: 'differs', id: intent.id, intent, call, differences: found })
    this.#remember(call)
    if (intent.kind === 'preview') return
    const clockUs = call.receivedUs - intent.atUs
    const { least, most } = this.#clockUs ?? { least: clockUs, most: clockUs }
    this.#clockUs = { least: Math.min(least, clockUs), most: Math.max(most, clockUs) }
  }

  #remember(call: Call): void {
    this.#recent.set(call.id, call)
    if (this.#recent.size <= MAX_RECENT) return
    const [oldest] = this.#recent.keys()
    if (oldest !== undefined) this.#recent.delete(oldest)
  }

  #conclude(id: string, open: Open, ledger: Period, log: Period): void {
    const { intent, outcome, call } = open
    if (intent !== undefined && call !== undefined) {
      this.#counts.unfinished += 1
      this.#compare(intent, outcome, call)
    } else if (intent !== undefined) this.#unseen(intent, outcome, log)
    else if (call !== undefined) this.#unknown(id, call, ledger)
  }

  #unseen(intent: Intent, outcome: Outcome | undefined, log: Period): void {
    const excuse = this.#excuse(intent, outcome, log)
    if (excuse !== undefined) this.#counts[excuse] += 1
    else this.#find({ kind: 'missing_in_cluster', id: intent.id, intent, differences: [] })
  }

  #excuse(intent: Intent, outcome: Outcome | undefined, log: Period): keyof Counts | undefined {
    if (outcome === undefined) return 'running'
    if (outcome.status === 0) return 'notSent'
    const { reason } = outcome
    // the client left after the head of the answer, where there is a status
    if (reason !== undefined && reason !== 'client_left' && !SENT.has(reason)) return 'notSent'
    // the log is written when a request ends
    if (!isWithin(outcome.atUs, log, this.#options.skewUs)) return 'outsideLog'
    return this.#options.isAudited(intent) ? undefined : 'notAudited'
  }

  #unknown(id: string, call: Call, ledger: Period): void {
    if (!isWithin(call.receivedUs, ledger, this.#options.skewUs)) this.#counts.outsideLedger += 1
    else if (this.#isProbe(call)) this.#counts.probes += 1
    else this.#find({ kind: 'missing_in_ledger', id, call, differences: [] })
  }

  /** Only what was refused: whoever hides among probes has no effect. */
  #isProbe({ status, receivedUs }: Call): boolean {
    const { skewUs } = this.#options
    if (status !== 401 && status !== 403) return false
    return this.#checks.some(
      (atUs) => receivedUs >= atUs - CHECK_US - skewUs && receivedUs <= atUs + skewUs,
    )
  }

  #find(finding: Finding): void {
    const count = (this.#found.get(finding.kind) ?? 0) + 1
    this.#found.set(finding.kind, count)
    if (count <= MAX_SHOWN) this.#findings.push(finding)
  }
}

function isRead({ facts }: Call): boolean {
  return READS.has(facts.verb) && !CONNECTS.has(facts.subresource)
}

/** Facts that are the same in each event of a request; the name may come later, out of the body. */
function sameFacts(call: Call, before: Call): readonly Difference[] {
  const fields = ['verb', 'apiGroup', 'resource', 'subresource', 'namespace', 'user'] as const
  return fields.flatMap((field) =>
    call.facts[field] === before.facts[field]
      ? []
      : [{ field, ledger: before.facts[field], cluster: call.facts[field] }],
  )
}

/** Whether a time is within a period by either clock. */
function isWithin(atUs: number, { fromUs, toUs }: Period, skewUs: number): boolean {
  return atUs >= fromUs + skewUs && atUs <= toUs - skewUs
}
