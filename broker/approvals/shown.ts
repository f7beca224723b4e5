/** A held request as people see it. */
import { approvalSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import type { StoredApproval } from '../store/store.ts'
import { missingQuorums } from './reviewers.ts'

/** One request, with all that a decision needs; without what only the store and the claim need. */
export function toWire(approval: StoredApproval): Approval {
  const { progress, terms, state } = approval
  const missing = state === 'PENDING' ? missingQuorums(terms.quorums, progress.reviews) : []
  // the schema drops all that is not of the wire
  return approvalSchema.parse({ ...approval, ...progress, missing })
}

/** One request among many: without its preview, of which a list could hold as much as fills the memory. */
export function toListed(approval: StoredApproval): Approval {
  const listed = toWire(approval)
  delete listed.preview
  return listed
}
