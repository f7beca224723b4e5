/** Why certificates could not be kept. Each is one line for the log and a value of the metric `failures_total`. */
import { ApiError } from '../../shared/in-cluster-api.ts'
import type { ApiErrorCode } from '../../shared/in-cluster-api.ts'

/**
 * `foreign`: a Secret holds what this program has not put there; `broken`: what it has put there cannot be used, and is nothing to
 * be thrown away; `unsettled`: a look at the cluster found something to do after many writes still.
 */
export type KeepReason = 'foreign' | 'broken' | 'unsettled' | 'internal' | ApiErrorCode

/** Something that stands in the way of keeping certificates. Its message has no secret in it. */
export class KeepError extends Error {
  readonly reason: KeepReason

  constructor(reason: KeepReason, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'KeepError'
    this.reason = reason
  }
}

/** The reason of whatever was thrown. */
export function reasonOf(error: unknown): KeepReason {
  if (error instanceof KeepError) return error.reason
  return error instanceof ApiError ? error.code : 'internal'
}
