/** A ledger that is signed, with a key of the test's own. */
import { generateKeyPairSync } from 'node:crypto'
import { openCheckpoints } from '../../broker/ledger/checkpoints.ts'
import type { Checkpoints } from '../../broker/ledger/checkpoints.ts'
import type { LedgerIdentity } from '../../broker/ledger/keys.ts'
import type { Store } from '../../broker/store/store.ts'
import { keySigner } from '../../shared/transparency/note.ts'
import { SILENT } from './sqlite-store.ts'

export const ORIGIN = 'nestgate.test/ledger'

/** A key, and who it signs as. */
export function newIdentity(origin = ORIGIN): LedgerIdentity {
  const signer = keySigner(origin, generateKeyPairSync('ed25519').privateKey)
  return { origin, signers: [signer], keys: [{ vkey: signer.vkey, since: '2026-01-01T00:00:00Z' }] }
}

/** Signs when it is asked, not by itself. */
export function signed(store: Store, identity = newIdentity()): Promise<Checkpoints> {
  return openCheckpoints({ store, identity, everyMs: 3_600_000, log: SILENT, now: Date.now })
}
