/** What keeps the ledger beside its store: who signs it, when, and how long its text is kept. Only wiring. */
import { join } from 'node:path'
import type { Logger } from '../../shared/log.ts'
import type { Store } from '../store/store.ts'
import { openCheckpoints } from './checkpoints.ts'
import type { Checkpoints } from './checkpoints.ts'
import { openLedgerIdentity } from './keys.ts'
import { startMirrors } from './mirrors.ts'
import type { Mirrors, MirrorsSettings } from './mirrors.ts'
import { startRetention } from './retention.ts'

/** See broker/config.ts. */
export interface LedgerSettings {
  readonly origin?: string | undefined
  readonly keysDir?: string | undefined
  readonly checkpointSeconds: number
  readonly retainDays?: number | undefined
  readonly mirrors: MirrorsSettings
}

/** Where keys are unless the configuration says otherwise. */
const KEYS_DIR = 'ledger-keys'

/**
 * Begins to sign, and to remove what is too old.
 *
 * @param deps - `dataDir` is the broker's own folder; `now` in milliseconds since the epoch
 * @returns rejects as `openLedgerIdentity` and `openCheckpoints` do
 */
export async function openLedger(
  { origin, keysDir, checkpointSeconds, retainDays, mirrors: copies }: LedgerSettings,
  deps: {
    readonly store: Store
    readonly dataDir: string
    readonly log: Logger
    readonly now: () => number
  },
): Promise<{
  readonly checkpoints: Checkpoints
  readonly mirrors: Mirrors
  readonly close: () => Promise<void>
}> {
  const { store, dataDir, log, now } = deps
  const options = { dir: keysDir ?? join(dataDir, KEYS_DIR), origin }
  const identity = await openLedgerIdentity(options, store, now)
  const everyMs = checkpointSeconds * 1000
  const checkpoints = await openCheckpoints({ store, identity, everyMs, log, now })
  const endRetention =
    retainDays === undefined ? undefined : startRetention({ store, retainDays, log, now })
  const mirrors = startMirrors(copies, checkpoints, log)
  return {
    checkpoints,
    mirrors,
    close: () => {
      endRetention?.()
      checkpoints.close()
      return mirrors.close()
    },
  }
}
