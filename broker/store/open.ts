/** Opens the store that the configuration names. */
import { join } from 'node:path'
import type { Logger } from '../../shared/log.ts'
import { openPostgresStore } from './postgres/client.ts'
import { openSqliteStore } from './sqlite/client.ts'
import type { Store } from './store.ts'

/** Name of the embedded database in the broker's folder. */
const FILE = 'nestgate.db'

/** The settings that count. */
export interface StoreConfig {
  readonly dataDir: string
  readonly store: {
    readonly postgres?:
      { readonly url: string; readonly passwordFile?: string | undefined } | undefined
  }
}

/** @throws Fault as the databases' own clients do */
export function openStore(
  { dataDir, store: { postgres } }: StoreConfig,
  log: Logger,
  now: () => number,
): Promise<Store> {
  return postgres === undefined
    ? openSqliteStore({ file: join(dataDir, FILE), log, now })
    : openPostgresStore({ ...postgres, log, now })
}
