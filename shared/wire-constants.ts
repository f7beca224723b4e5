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

/**
 * What the containers beside a sidecar do: some still run, or will again; all have ended for good; or whatever ends is
 * started again for as long as the pod is there.
 */
export const NEIGHBOUR_STATES = ['running', 'ended', 'permanent'] as const

/** See {@link NEIGHBOUR_STATES}. */
export type NeighbourState = (typeof NEIGHBOUR_STATES)[number]

/** State of a held request; see docs/architecture.md for the transitions. */
export type ApprovalState = (typeof APPROVAL_STATES)[number]
