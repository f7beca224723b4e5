/** A held request as people see it. */
import { approvalSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import type { StoredApproval } from '../store/store.ts'
import { missingQuorums } from './reviewers.ts'

/** Without what only the store and the claim need: the schema drops all that is not of the wire. */
export function toWire(approval: StoredApproval): Approval {
  const { progress, terms, state } = approval
  const missing = state === 'PENDING' ? missingQuorums(terms.quorums, progress.reviews) : []
  return approvalSchema.parse({ ...approval, ...progress, missing })
}
