/**
 * The pools of connections to one API server, one for each kind of traffic, so that none can take the connections of
 * another: requests that end by themselves, reads that do not, protocol upgrades, and the broker's own questions.
 * Every connection is pinned: to the address and name of the configuration, whatever a request's headers
 * say, and to its CA alone. No environment variable leads it elsewhere, and redirects are never followed. HTTP/1.1:
 * docs/benchmarks.md has the comparison with HTTP/2.
 */
import { once } from 'node:events'
import { isIP } from 'node:net'
import type { Socket } from 'node:net'
import { createSecureContext } from 'node:tls'
import { buildConnector, Pool } from 'undici'
import type { Dispatcher } from 'undici'
import { BoundedPool } from './bounded-pool.ts'
import type { PoolBounds, PoolLoad } from './bounded-pool.ts'

/** A silent connection is probed by the kernel after this time, in milliseconds: a watch may have nothing to say for hours, and its link be dead. */
const PROBE_AFTER_MS = 30_000
/** How long a connection may take, TLS handshake included, in milliseconds. */
const CONNECT_TIMEOUT_MS = 10_000
/** Longest wait for the head of an answer to an ordinary request, in milliseconds: above the API server's own limit of 60 s. */
const HEADERS_TIMEOUT_MS = 65_000
/** Longest pause within an ordinary answer, in milliseconds; a client that does not read does not count. */
const BODY_IDLE_MS = 60_000
/** Longest wait for the answer to an upgrade, in milliseconds: above the 30 s that an API server gives a node. */
const HANDSHAKE_TIMEOUT_MS = 35_000
/** Idle connections are kept this long, in milliseconds; below common load balancers' idle limits and the API server's 90 s. */
const KEEP_ALIVE_MS = 30_000

/** What one pool is like. */
interface PoolSettings extends PoolBounds {
  /** Longest wait for the head of an answer, in milliseconds; 0 is no limit. */
  readonly headersTimeout: number
  /** Longest pause within an answer, in milliseconds; 0 is no limit. */
  readonly bodyTimeout: number
}

const SETTINGS: Readonly<Record<PoolName, PoolSettings>> = {
  // they end, so one may wait for another; four times what one pod may have open (gateway/running.ts)
  requests: {
    ...{ open: 512, waitMs: 10_000 },
    ...{ headersTimeout: HEADERS_TIMEOUT_MS, bodyTimeout: BODY_IDLE_MS },
  },
  // they may never end, so there is no use in waiting for one; the head may come with the first event
  watches: { open: 2048, waitMs: 0, headersTimeout: 0, bodyTimeout: 0 },
  upgrades: {
    ...{ open: 1024, waitMs: 0 },
    ...{ headersTimeout: HANDSHAKE_TIMEOUT_MS, bodyTimeout: BODY_IDLE_MS },
  },
  // apart from all others because these may depend on it: an API server that has a request may ask the broker whether
  // it is allowed, and the broker asks here; behind that very request it would wait for itself
  own: {
    ...{ open: 64, waitMs: 5_000 },
    ...{ headersTimeout: HEADERS_TIMEOUT_MS, bodyTimeout: BODY_IDLE_MS },
  },
}

/** Kinds of traffic. */
export type PoolName = 'requests' | 'watches' | 'upgrades' | 'own'

/** What a connection is made with. */
export interface PinnedTls {
  /** PEM; at least one certificate. */
  readonly ca: string
  /** Certificate and key, where the broker is known by one. */
  readonly pair: { readonly cert: string; readonly key: string } | undefined
}

/** See the head of the file. */
export interface Pools extends Readonly<Record<PoolName, Dispatcher>> {
  /** What each holds now. */
  load(): Readonly<Record<PoolName, PoolLoad>>
  /** Takes nothing new; settles when all that is open has ended, upgraded connections too. */
  drain(): Promise<void>
  /** Cuts all that is open, upgraded connections too. */
  close(): Promise<void>
}

/** Other settings than the usual, for tests. */
export type PoolOverrides = Readonly<Partial<Record<PoolName, Partial<PoolSettings>>>> & {
  readonly connectTimeoutMs?: number
}

/** Makes them; no connection is made yet. @throws Error where the CA has no certificate, or certificate and key do not belong together */
export function openPools(server: string, tls: PinnedTls, overrides: PoolOverrides = {}): Pools {
  const sockets = new Set<Socket>()
  const { connectTimeoutMs = CONNECT_TIMEOUT_MS } = overrides
  const connect = connector(server, tls, sockets, connectTimeoutMs)
  const pool = (name: PoolName): BoundedPool => {
    const { open, waitMs, ...timeouts } = { ...SETTINGS[name], ...overrides[name] }
    const options = { connect, allowH2: false, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS }
    const made = new Pool(server, { ...options, ...timeouts, connections: open })
    return new BoundedPool(made, { open, waitMs })
  }
  const requests = pool('requests')
  const watches = pool('watches')
  const upgrades = pool('upgrades')
  const own = pool('own')
  const all = [requests, watches, upgrades, own]
  return {
    ...{ requests, watches, upgrades, own },
    load: () => ({
      requests: requests.load,
      watches: watches.load,
      upgrades: upgrades.load,
      own: own.load,
    }),
    async drain(): Promise<void> {
      await Promise.all(all.map((each) => each.drain()))
      // rejects for a socket that broke, which has then ended as well
      await Promise.allSettled([...sockets].map((socket) => once(socket, 'close')))
    },
    async close(): Promise<void> {
      await Promise.all(all.map((each) => each.cut()))
      // an upgraded connection is no pool's any more
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Makes TLS connections, which are in `sockets` for as long as they are open. @throws Error where the material cannot be used */
function connector(
  server: string,
  { ca, pair }: PinnedTls,
  sockets: Set<Socket>,
  timeout: number,
): buildConnector.connector {
  // without any, every authority that Node knows would do
  if (!ca.includes('-----BEGIN CERTIFICATE-----')) throw new Error('the CA has no certificate')
  // refuses certificate and key that do not belong together, as in the middle of their replacement
  createSecureContext({ ca, ...pair })
  const options = { ca, ...pair, timeout, keepAliveInitialDelay: PROBE_AFTER_MS, allowH2: false }
  const connect = buildConnector(options)
  const { hostname } = new URL(server)
  // undici would take the name from a request's Host header; an address has none to send
  const servername = isIP(hostname.replaceAll(/[[\]]/g, '')) === 0 ? hostname : ''
  return (wanted, callback) => {
    connect({ ...wanted, servername }, (...result) => {
      const [error, socket] = result
      if (error === null) {
        sockets.add(socket)
        socket.once('close', () => sockets.delete(socket))
      }
      callback(...result)
    })
  }
}
