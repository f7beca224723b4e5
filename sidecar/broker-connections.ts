/**
 * Connections to the broker over undici: for the sidecar's own calls and for upgrades. HTTP/1.1 only, since upgrades
 * need it; the broker's certificate must be signed by the pinned authority. A connection that could not be made is
 * told apart from one that broke later, because after the first nothing can have been forwarded.
 */
import { Pool, buildConnector } from 'undici'
import type { Dispatcher } from 'undici'
import { Fault, messageOf } from '../shared/errors.ts'

/** How long a connection may take to be made, TLS included, in milliseconds. */
export const CONNECT_LIMIT_MS = 10_000

/** A pool for the broker at `origin`. What fails before a request is sent fails with the Fault `broker_unreachable`. */
export function createBrokerConnections(options: {
  readonly origin: string
  readonly ca: string
}): Dispatcher {
  const connector = buildConnector({
    ca: options.ca,
    allowH2: false,
    timeout: CONNECT_LIMIT_MS,
  })
  return new Pool(options.origin, {
    allowH2: false,
    connect: (target, callback) => {
      connector(target, (error, socket) => {
        if (error === null) callback(null, socket)
        else callback(unreachable(error), null)
      })
    },
  })
}

function unreachable(cause: Error): Fault {
  return new Fault('broker_unreachable', messageOf(cause), { cause })
}
