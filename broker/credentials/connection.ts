/**
 * The way to one cluster's API server: pools pinned to its address and its CA, and what goes there as credential
 * (credential.ts). Redirects are never followed.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { Socket } from 'node:net'
import { createSecureContext } from 'node:tls'
import { buildConnector, Pool } from 'undici'
import type { Dispatcher } from 'undici'
import type { Logger } from '../../shared/log.ts'
import type { ClusterSettings } from '../clusters/settings.ts'
import type { AskedConnection } from './cluster-json.ts'
import type { ClusterCredential } from './credential.ts'
import { impersonationCredential } from './impersonation-credential.ts'
import { issuerCredential } from './issuer-credential.ts'
import type { IssuerParts } from './issuer-credential.ts'
import { fileToken, renewedToken } from './own-token.ts'
import type { OwnToken } from './own-token.ts'
import type { Tickets } from './tickets.ts'

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
  readonly credential: ClusterCredential
  /** Takes nothing new; settles when all that is open has ended, upgraded connections too. */
  drain(): Promise<void>
  /** Cuts all that is open, upgraded connections too. */
  close(): Promise<void>
}

/** What the ways to all clusters share. */
export interface ConnectionDeps {
  readonly tickets: Tickets
  /** Absent where the broker is no issuer. */
  readonly issuer?: IssuerParts
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
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
  deps: ConnectionDeps,
): Promise<ClusterConnection> {
  return connectionWith(config, await readMaterial(config), deps)
}

/** As {@link openConnection}, with files that have been read. @throws Error when they cannot be used */
export function connectionWith(
  config: ClusterSettings,
  material: ConnectionMaterial,
  deps: ConnectionDeps,
): ClusterConnection {
  const { name, server } = config
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
  // what is made of the connection asks it later, when it is complete
  const asked: AskedConnection = {
    name,
    requests,
    get credential() {
      return credential
    },
  }
  const token = ownToken(config, asked, deps)
  const credential = credentialOf(config, asked, token, deps)
  return {
    name,
    requests,
    upgrades,
    credential,
    async drain(): Promise<void> {
      token?.close()
      await Promise.all([requests.close(), upgrades.close()])
      // rejects for a socket that broke, which has then ended as well
      await Promise.allSettled([...sockets].map((socket) => once(socket, 'close')))
    },
    async close(): Promise<void> {
      token?.close()
      await Promise.all([requests.destroy(), upgrades.destroy()])
      // an upgraded connection is no pool's any more
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** The token that the broker itself has there; none with a client certificate, or where it is the issuer. */
function ownToken(
  { credential }: ClusterSettings,
  asked: AskedConnection,
  deps: ConnectionDeps,
): OwnToken | undefined {
  if (!('tokenFile' in credential)) return undefined
  const { tokenFile, refresh } = credential
  return refresh === undefined
    ? fileToken(tokenFile, deps.now)
    : renewedToken(tokenFile, refresh, asked, deps)
}

function credentialOf(
  { credential }: ClusterSettings,
  asked: AskedConnection,
  token: OwnToken | undefined,
  { tickets, issuer }: ConnectionDeps,
): ClusterCredential {
  if (!('issuer' in credential))
    return impersonationCredential(tickets, asked.name, async () =>
      token === undefined ? {} : { authorization: `Bearer ${await token.read()}` },
    )
  if (issuer === undefined) throw new Error('this broker is no issuer: its configuration has none')
  return issuerCredential(issuer, asked)
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
