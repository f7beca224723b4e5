/** The constants of wire.ts, apart from its schemas, for a process that keeps decoders out of its memory. */

/** Longest wait of one poll on a held request, in seconds. */
export const MAX_WAIT_S = 25

export const APPROVAL_STATES = [
  'PENDING',
  'APPROVED',
  'DENIED',
  'EXPIRED',
  'CANCELLED',
  'EXECUTING',
  'SUCCEEDED',
  'FAILED',
  'UNKNOWN',
  'REVOKED',
] as const

/** State of a held request; see docs/architecture.md for the transitions. */
export type ApprovalState = (typeof APPROVAL_STATES)[number]
