/** Ways to clusters for tests: what all of them share, with a clock of the test's own. */
import type { ConnectionDeps } from '../../broker/credentials/connection.ts'
import { createTickets } from '../../broker/credentials/tickets.ts'
import { createLog } from '../../shared/log.ts'

/** What opening a way needs where the broker is no issuer. */
export function connectionDeps(now: () => number = Date.now): ConnectionDeps {
  return { tickets: createTickets(now), log: createLog('test', 'silent'), now }
}
