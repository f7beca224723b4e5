/** Faults: what a process could not have expected. Thrown, caught at the HTTP edge or at `main`, never shown whole to a client. */

/** Codes of the faults that other code tells apart. */
export type FaultCode =
  | 'config_invalid'
  | 'store_failed'
  | 'store_closed'
  | 'ledger_rolled_back'
  | 'ledger_key_missing'
  | 'mirror_failed'
  | 'broker_protocol'
  | 'broker_unreachable'
  | 'upgrade_failed'
  | 'upstream_busy'
  | 'patch_invalid'
  | 'certificate_invalid'
  | 'file_not_private'
  | 'identity_empty'
  | 'credential_unavailable'
  | 'client_left'
  | 'revoked'
  | 'answer_stopped'
  | 'spdy_invalid'
  | 'stream_broken'
  | 'recording_failed'
  | 'recording_corrupt'
  | 'answer_unmaskable'

/** A fault with a code; `cause` keeps what was caught. Its message names no secret. */
export class Fault extends Error {
  readonly code: FaultCode

  constructor(code: FaultCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'Fault'
    this.code = code
  }
}

/** The message of whatever was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The system error code (`ECONNREFUSED`, …) of whatever was thrown, where it has one. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string'
    ? error.code
    : undefined
}
