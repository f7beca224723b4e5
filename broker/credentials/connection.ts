/**
 * The way to one cluster's API server: pools pinned to its address and its CA, and what the broker itself is
 * there. Redirects are never followed. What the broker *does* there for others is in impersonation.ts: no
 * request goes out through a connection without an identity that was given for it.
 */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { readPrivateFile } from '../../shared/private-file.ts'
import { watchFile } from '../../shared/watched-file.ts'
import type { ClusterSettings } from '../clusters/settings.ts'
import { openPools } from './pools.ts'
import type { Pools } from './pools.ts'

/** See the head of the file. */
export interface ClusterConnection extends Pools {
  readonly name: string
  /** Headers that authenticate the broker; none with a client certificate. Rejects when the token cannot be read. */
  authenticate(): Promise<Readonly<Record<string, string>>>
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
  const pools = openPools(server, material)
  const token =
    'tokenFile' in credential ? watchFile(credential.tokenFile, now, readPrivateFile) : undefined
  return {
    name,
    ...pools,
    async authenticate(): Promise<Readonly<Record<string, string>>> {
      if (token === undefined) return {}
      return { authorization: `Bearer ${(await token.read()).trim()}` }
    },
  }
}
