/**
 * The way to one cluster's API server: pools pinned to its address and its CA, and what the broker itself is
 * there. Redirects are never followed. What the broker *does* there for others is in impersonation.ts: no
 * request goes out through a connection without an identity that was given for it.
 */
import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { Pool } from 'undici'
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
  /** Lets what is open end, and takes nothing new. */
  drain(): Promise<void>
  close(): Promise<void>
}

/** Opens the way to a cluster; no connection is made yet. Rejects when a file of the configuration cannot be read. */
export async function openConnection(
  config: ClusterSettings,
  now: () => number,
): Promise<ClusterConnection> {
  const { credential } = config
  const connect = {
    ca: await authorityOf(config),
    timeout: CONNECT_TIMEOUT_MS,
    ...('certFile' in credential
      ? {
          cert: await readFile(credential.certFile, 'utf8'),
          key: await readFile(credential.keyFile, 'utf8'),
        }
      : {}),
  }
  const options = {
    connect,
    allowH2: false,
    pipelining: 1,
    headersTimeout: HEADERS_TIMEOUT_MS,
    bodyTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE_MS,
  }
  // no bound of its own: what waits for a connection can be neither counted nor ended; the gateway bounds (running.ts)
  const requests = new Pool(config.server, options)
  const upgrades = new Pool(config.server, options)
  const token = 'tokenFile' in credential ? watchFile(credential.tokenFile, now) : undefined
  return {
    name: config.name,
    requests,
    upgrades,
    async authenticate(): Promise<Readonly<Record<string, string>>> {
      if (token === undefined) return {}
      return { authorization: `Bearer ${(await token.read()).trim()}` }
    },
    async drain(): Promise<void> {
      await Promise.all([requests.close(), upgrades.close()])
    },
    async close(): Promise<void> {
      await Promise.all([requests.destroy(), upgrades.destroy()])
    },
  }
}

/** The authority's certificates. @throws Error where there are none: without, every authority that Node knows would do */
async function authorityOf(config: ClusterSettings): Promise<string> {
  const pem = 'caPem' in config ? config.caPem : await readFile(config.caFile, 'utf8')
  if (!pem.includes('-----BEGIN CERTIFICATE-----')) throw new Error('the CA has no certificate')
  createSecureContext({ ca: pem })
  return pem
}
