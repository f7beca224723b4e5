/** What comes of a decision. */
import type { Reason } from '../reasons.ts'
import type { Facts } from './facts.ts'

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

/** What has to be done with a request that goes ahead. */
export interface Obligations {
  /** Name of a masking profile; `none` lets values through. */
  readonly mask?: string
  readonly record?: boolean
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
