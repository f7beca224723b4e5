/**
 * The way to one cluster's API server: pools pinned to its address and its CA, and what goes there as credential
 * (credential.ts). Redirects are never followed.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Logger } from '../../shared/log.ts'
import { readPrivateFile } from '../../shared/private-file.ts'
import type { ClusterSettings } from '../clusters/settings.ts'
import type { AskedConnection } from './cluster-json.ts'
import type { ClusterCredential } from './credential.ts'
import { impersonationCredential } from './impersonation-credential.ts'
import { issuerCredential } from './issuer-credential.ts'
import type { IssuerParts } from './issuer-credential.ts'
import { fileToken, renewedToken } from './own-token.ts'
import type { OwnToken } from './own-token.ts'
import { openPools } from './pools.ts'
import type { Pools } from './pools.ts'
import type { Tickets } from './tickets.ts'

/** See the head of the file. */
export interface ClusterConnection extends Pools {
  readonly name: string
  readonly credential: ClusterCredential
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
          key: await readPrivateFile(credential.keyFile),
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
  const pools = openPools(server, material)
  // what is made of the connection asks it later, when it is complete
  const asked: AskedConnection = {
    name,
    own: pools.own,
    get credential() {
      return credential
    },
  }
  const token = ownToken(config, asked, deps)
  const credential = credentialOf(config, asked, token, deps)
  return {
    ...pools,
    ...{ name, credential },
    drain(): Promise<void> {
      token?.close()
      return pools.drain()
    },
    close(): Promise<void> {
      token?.close()
      return pools.close()
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
