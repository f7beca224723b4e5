/** Evidence of what our names tried and were refused: a stolen token shows itself here. Bounded, since its thief may try often. */
import type { Logger } from '../../shared/log.ts'
import type { Entry } from '../ledger/entry.ts'

/** What a credential of ours was used for and may not. */
export interface Refused {
  readonly cluster: string
  /** Empty where none was told. */
  readonly requestId: string
  readonly why: string
  /** In words; of outside input, bounded. */
  readonly asked: string
}

/** Longest text of a question that is kept, in characters. */
const MAX_ASKED_LENGTH = 500
/** Entries of a minute; the number of what follows stands in the next minute's first. */
export const MAX_A_MINUTE = 60
const MINUTE_MS = 60_000

/**
 * One for each kind of asker: what anybody may ask must not use up the entries of what an API server asks.
 *
 * @param record - writes an entry that nothing waits for
 * @param now - milliseconds since the epoch
 */
export function refusedRecorder(
  record: (entry: Entry) => void,
  log: Logger,
  now: () => number,
): (refused: Refused) => void {
  let minute = 0
  let written = 0
  let leftOut = 0
  return ({ cluster, requestId, why, asked: text }) => {
    const current = Math.floor(now() / MINUTE_MS)
    if (current !== minute) {
      minute = current
      written = 0
    }
    if (written >= MAX_A_MINUTE) {
      leftOut += 1
      return
    }
    written += 1
    const asked = text.slice(0, MAX_ASKED_LENGTH)
    log.warn({ cluster, requestId, why, asked }, 'a credential was refused')
    record({
      kind: 'system',
      event: 'credential_refused',
      actor: 'broker',
      detail: { cluster, requestId, why, asked, ...(leftOut === 0 ? {} : { leftOut }) },
    })
    leftOut = 0
  }
}
