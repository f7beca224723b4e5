/**
 * The way to one cluster's API server: pools pinned to its address and its CA, and what the broker itself is
 * there. Redirects are never followed. What the broker *does* there for others is in impersonation.ts: no
 * request goes out through a connection without an identity that was given for it.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { createSecureContext } from 'node:tls'
import { buildConnector, Pool } from 'undici'
import type { Dispatcher } from 'undici'
import { watchFile } from '../../shared/watched-file.ts'
import type { ClusterSettings } from '../clusters/settings.ts'

/** Longest wait for the head of an answer to an ordinary request, in milliseconds: above the API server's own limit of 60 s. */
const HEADERS_TIMEOUT_MS = 65_000
const CONNECT_TIMEOUT_MS = 10_000
/** Idle connections are kept this long, in milliseconds; below common load balancers' idle limits. */
const KEEP_ALIVE_MS = 30_000

/** See the head of the file. */
export interface ClusterConnection {
  readonly name: string
  /** For ordinary requests and streams. */
  readonly requests: Dispatcher
  /** For protocol upgrades, whose connections are never used again. */
  readonly upgrades: Dispatcher
  /** Headers that authenticate the broker; none with a client certificate. Rejects when the token cannot be read. */
  authenticate(): Promise<Readonly<Record<string, string>>>
  /** Takes nothing new; settles when all that is open has ended, upgraded connections too. */
  drain(): Promise<void>
  /** Cuts all that is open, upgraded connections too. */
  close(): Promise<void>
}

/** Files of a cluster that are read when the way is opened, as they are now. */
export interface ConnectionMaterial {
  readonly ca: string
  /** Certificate and key, where the broker is known by one. */
  readonly pair: { readonly cert: string; readonly key: string } | undefined
  /** Of all that is above; tells that something has changed. */
  readonly digest: string
}

/** Reads them. Rejects when one cannot be read. */
export async function readMaterial(config: ClusterSettings): Promise<ConnectionMaterial> {
  const { credential } = config
  const ca = 'caPem' in config ? config.caPem : await readFile(config.caFile, 'utf8')
  const pair =
    'certFile' in credential
      ? {
          cert: await readFile(credential.certFile, 'utf8'),
          key: await readFile(credential.keyFile, 'utf8'),
        }
      : undefined
  const digest = createHash('sha256')
    .update(JSON.stringify([ca, pair]))
    .digest('hex')
  return { ca, pair, digest }
}

/** Opens the way to a cluster; no connection is made yet. Rejects when a file of the configuration cannot be read or used. */
export async function openConnection(
  config: ClusterSettings,
  now: () => number,
): Promise<ClusterConnection> {
  return connectionWith(config, await readMaterial(config), now)
}

/** As {@link openConnection}, with files that have been read. @throws Error when they cannot be used */
export function connectionWith(
  config: ClusterSettings,
  material: ConnectionMaterial,
  now: () => number,
): ClusterConnection {
  const { credential, name, server } = config
  const sockets = new Set<Socket>()
  const options = {
    connect: connector(material, sockets),
    allowH2: false,
    pipelining: 1,
    headersTimeout: HEADERS_TIMEOUT_MS,
    bodyTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
  }
  // no bound of its own: what waits for a connection can be neither counted nor ended; the gateway bounds (running.ts)
  const requests = new Pool(server, options)
  const upgrades = new Pool(server, options)
  const token = 'tokenFile' in credential ? watchFile(credential.tokenFile, now) : undefined
  return {
    name,
    requests,
    upgrades,
    async authenticate(): Promise<Readonly<Record<string, string>>> {
      if (token === undefined) return {}
      return { authorization: `Bearer ${(await token.read()).trim()}` }
    },
    async drain(): Promise<void> {
      await Promise.all([requests.close(), upgrades.close()])
      // rejects for a socket that broke, which has then ended as well
      await Promise.allSettled([...sockets].map((socket) => once(socket, 'close')))
    },
    async close(): Promise<void> {
      await Promise.all([requests.destroy(), upgrades.destroy()])
      // an upgraded connection is no pool's any more
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Makes TLS connections, which are in `sockets` for as long as they are open. @throws Error where the material cannot be used */
function connector(
  { ca, pair }: ConnectionMaterial,
  sockets: Set<Socket>,
): buildConnector.connector {
  // without any, every authority that Node knows would do
  if (!ca.includes('-----BEGIN CERTIFICATE-----')) throw new Error('the CA has no certificate')
  // refuses certificate and key that do not belong together, as in the middle of their replacement
  createSecureContext({ ca, ...pair })
  const connect = buildConnector({ ca, ...pair, timeout: CONNECT_TIMEOUT_MS, allowH2: false })
  return (options, callback) => {
    connect(options, (...result) => {
      const [error, socket] = result
      if (error === null) {
        sockets.add(socket)
        socket.once('close', () => sockets.delete(socket))
      }
      callback(...result)
    })
  }
}
