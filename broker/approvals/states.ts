/** The states of a held request and the ways between them: the table of docs/architecture.md, "Held requests", as data. */
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import type { StoredApproval } from '../store/store.ts'

/** Where each state may go; only what streams may go from EXECUTING to REVOKED. */
export const TRANSITIONS: Readonly<Record<ApprovalState, readonly ApprovalState[]>> = {
  PENDING: ['APPROVED', 'DENIED', 'EXPIRED', 'CANCELLED'],
  APPROVED: ['EXECUTING', 'EXPIRED', 'REVOKED'],
  EXECUTING: ['SUCCEEDED', 'FAILED', 'UNKNOWN', 'REVOKED'],
  SUCCEEDED: [],
  FAILED: [],
  UNKNOWN: [],
  DENIED: [],
  EXPIRED: [],
  CANCELLED: [],
  REVOKED: [],
}

/** Whether a held request in state `from` may go to `to`. */
export function mayBecome(from: ApprovalState, to: ApprovalState): boolean {
  return TRANSITIONS[from].includes(to)
}

/** Whether a held request in this state is over. */
export function hasEnded(state: ApprovalState): boolean {
  return TRANSITIONS[state].length === 0
}

/** Why a held request cannot be claimed; undefined for one that is APPROVED, which can. */
export function claimRefusal({ state, reason, progress }: StoredApproval): Refusal | undefined {
  switch (state) {
    case 'APPROVED':
      return undefined
    case 'PENDING':
      return refuse('approval_required', 'nobody has decided yet')
    case 'DENIED':
      return refuse('approval_denied', reason)
    case 'REVOKED':
      return refuse('approval_revoked', progress.revocation?.reason)
    case 'EXPIRED':
      return refuse('approval_expired')
    case 'CANCELLED':
      return refuse('approval_cancelled')
    case 'EXECUTING':
    case 'SUCCEEDED':
    case 'FAILED':
    case 'UNKNOWN':
      return refuse('approval_spent')
  }
}
