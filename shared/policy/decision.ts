/** What comes of a decision. */
import type { Reason } from '../reasons.ts'
import type { Facts } from './facts.ts'
import type { Masking } from './masking.ts'

/** Effects, the strongest first: a stronger one beats all that follow. What no rule matches is denied. */
export const EFFECTS = ['deny', 'breakGlass', 'hold', 'allow'] as const

/** See {@link EFFECTS}. `breakGlass` goes ahead without approval and always leaves a review item. */
export type Effect = (typeof EFFECTS)[number]

/** So many different people of one group. */
export interface Quorum {
  readonly group: string
  readonly count: number
}

/** How a held request is approved; of several rules that hold, the strictest of each (see decide.ts). */
export interface ApprovalTerms {
  /** All of them must be met, each by people of its own; empty: one reviewer. */
  readonly quorums: readonly Quorum[]
  /** How long the request waits for people, in seconds. */
  readonly pendingSeconds: number
  /** How long an approval waits to be used, in seconds. */
  readonly approvedSeconds: number
  /** How long the client is kept waiting before it is told to come back, in seconds. */
  readonly holdSeconds: number
  /** `once`, or for how many seconds after its approval the very same request passes again without a new one. */
  readonly reuseSeconds: number
  /** What becomes of the request when its client leaves. */
  readonly onLeave: 'cancel' | 'keep'
  /** `return`: the client is told at once to come back. */
  readonly mode: 'hold' | 'return'
}

/** How strictly, the strictest first: a session that must be recorded and cannot be does not run, or ends. */
export const RECORD_MODES = ['required', 'best_effort', 'off'] as const

/** See docs/decisions/0009. */
export interface Recording {
  readonly mode: (typeof RECORD_MODES)[number]
  /** Set where another rule that decided says nothing of recording: the default of the kind holds too, and the stricter counts. */
  readonly orDefault: boolean
  /** What the client sends is kept too; otherwise only how much it was. */
  readonly stdin: boolean
  /** Detectors hide what looks like a secret before anything is written. */
  readonly mask: boolean
  /** The content of files that are copied is kept too; otherwise their names, sizes and hashes. */
  readonly files: boolean
  /** How much of each forwarded connection is kept, each way, in bytes. */
  readonly tunnelBytes: number
  /** Bound of the whole recording, in bytes. */
  readonly maxBytes: number
  /** How long it is kept, in days; as the broker's configuration says where left out. */
  readonly retainDays?: number
}

/** What has to be done with a request that goes ahead. */
export interface Obligations {
  /** What of the answer is hidden; left out, STANDARD_MASKING (masking.ts). */
  readonly mask?: Masking
  /** How the session or the log stream is recorded; left out, as its kind is by default. */
  readonly record?: Recording
  /** The body is kept beside the ledger entry, masked, and no more of it than so many bytes. */
  readonly capture?: { readonly maxBytes: number }
  /** Kubernetes groups that the request gets upstream beside its own. */
  readonly grantGroups: readonly string[]
}

/** See the head of the file. */
export interface Decision {
  readonly effect: Effect
  /** Ids of the rules that decided. */
  readonly rules: readonly string[]
  /** SHA-256 over all policy files, hex. */
  readonly policyDigest: string
  /** One plain sentence. */
  readonly explanation: string
  /** Set when the request is denied. */
  readonly reason?: Reason
  /** Set with `hold`, and with `breakGlass` (for its review). */
  readonly approval?: ApprovalTerms
  readonly obligations: Obligations
}

/** Decides. Never throws: what cannot be evaluated is denied. */
export interface Decider {
  readonly policyDigest: string
  decide(facts: Facts): Decision
}
