/** Evidence of what our names tried and were refused: a stolen token shows itself here. Bounded, since its thief may try often. */
import type { Logger } from '../../shared/log.ts'
import type { Entry } from '../ledger/entry.ts'
import type { Refused } from './authorizer.ts'

/** Entries of a minute; the number of what follows stands in the next minute's first. */
export const MAX_A_MINUTE = 60
const MINUTE_MS = 60_000

/** @param record - writes an entry that nothing waits for @param now - milliseconds since the epoch */
export function refusedRecorder(
  record: (entry: Entry) => void,
  log: Logger,
  now: () => number,
): (refused: Refused) => void {
  let minute = 0
  let written = 0
  let leftOut = 0
  return ({ cluster, requestId, why, call }) => {
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
    log.warn({ cluster, requestId, why, call }, 'a credential was refused')
    const { verb, group, resource, subresource, namespace, name, nonResourcePath } = call
    const asked = { verb, group, resource, subresource, namespace, name, path: nonResourcePath }
    record({
      kind: 'system',
      event: 'credential_refused',
      actor: 'broker',
      detail: { cluster, requestId, why, ...asked, ...(leftOut === 0 ? {} : { leftOut }) },
    })
    leftOut = 0
  }
}
