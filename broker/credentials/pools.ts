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

/** Ordinary requests end, so one may wait for another; four times what one pod may have open (gateway/running.ts). */
const REQUESTS: PoolBounds = { open: 512, waitMs: 10_000 }
/** Watches may never end, so there is no use in waiting for one; the gateway's own bound of a cluster is reached first or here. */
const WATCHES: PoolBounds = { open: 2048, waitMs: 0 }
/** As for watches. */
const UPGRADES: PoolBounds = { open: 1024, waitMs: 0 }
/**
 * What the broker asks for itself. Apart from all others because they may depend on it: an API server that has a
 * request may ask the broker whether it is allowed, which asks here; behind that very request it would wait for itself.
 */
const OWN: PoolBounds = { open: 64, waitMs: 5_000 }

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

/** Other bounds than the usual, for tests. */
export type PoolOverrides = Readonly<Partial<Record<PoolName, Partial<PoolBounds>>>>

/** Makes them; no connection is made yet. @throws Error where the CA has no certificate, or certificate and key do not belong together */
export function openPools(server: string, tls: PinnedTls, overrides: PoolOverrides = {}): Pools {
  const sockets = new Set<Socket>()
  const connect = connector(server, tls, sockets)
  const pool = (
    name: PoolName,
    usual: PoolBounds,
    timeouts: { readonly headersTimeout: number; readonly bodyTimeout: number },
  ): BoundedPool => {
    const options = { connect, allowH2: false, pipelining: 1, keepAliveTimeout: KEEP_ALIVE_MS }
    const bounds = { ...usual, ...overrides[name] }
    const bounded = { ...options, ...timeouts, connections: bounds.open }
    return new BoundedPool(new Pool(server, bounded), bounds)
  }
  const ordinary = { headersTimeout: HEADERS_TIMEOUT_MS, bodyTimeout: BODY_IDLE_MS }
  const requests = pool('requests', REQUESTS, ordinary)
  // the head of a watch or a log may come with its first event
  const watches = pool('watches', WATCHES, { headersTimeout: 0, bodyTimeout: 0 })
  const upgrades = pool('upgrades', UPGRADES, {
    headersTimeout: HANDSHAKE_TIMEOUT_MS,
    bodyTimeout: BODY_IDLE_MS,
  })
  const own = pool('own', OWN, ordinary)
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
): buildConnector.connector {
  // without any, every authority that Node knows would do
  if (!ca.includes('-----BEGIN CERTIFICATE-----')) throw new Error('the CA has no certificate')
  // refuses certificate and key that do not belong together, as in the middle of their replacement
  createSecureContext({ ca, ...pair })
  const connect = buildConnector({ ca, ...pair, timeout: CONNECT_TIMEOUT_MS, allowH2: false })
  const { hostname } = new URL(server)
  // undici would take the name from a request's Host header; an address has none to send
  const servername = isIP(hostname.replaceAll(/[[\]]/g, '')) === 0 ? hostname : ''
  return (options, callback) => {
    connect({ ...options, servername }, (...result) => {
      const [error, socket] = result
      if (error === null) {
        sockets.add(socket)
        socket.once('close', () => sockets.delete(socket))
      }
      callback(...result)
    })
  }
}
