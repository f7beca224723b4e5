/**
 * The keys that sign the ledger's checkpoints: Ed25519, each in a file `*.pem` of a folder that only the broker has; all
 * of them sign. The ledger remembers which keys it has had: a broker whose folder has none of them would begin a second
 * history, and does not start. Keys change with an overlap: put the new one beside the old, restart, let auditors take
 * it, remove the old, restart. Both steps are entries.
 */
import { createPrivateKey, generateKeyPairSync, randomUUID } from 'node:crypto'
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { Fault } from '../../shared/errors.ts'
import { readOwnFile } from '../../shared/private-file.ts'
import { keySigner } from '../../shared/transparency/note.ts'
import type { NoteSigner } from '../../shared/transparency/note.ts'
import type { Store } from '../store/store.ts'
import type { SystemEntry } from './entry.ts'

/** Where the keys are, and what the ledger is called. */
export interface LedgerKeysOptions {
  readonly dir: string
  /** Name of the ledger in its checkpoints, a URL without scheme (C2SP tlog-checkpoint); made up at the first start when left out. */
  readonly origin?: string | undefined
}

/** A key that the ledger has had. */
export interface LedgerKey {
  readonly vkey: string
  /** RFC 3339. */
  readonly since: string
  /** When it was found to be gone. */
  readonly until?: string | undefined
}

/** What the ledger is signed by. */
export interface LedgerIdentity {
  readonly origin: string
  /** Never empty. */
  readonly signers: readonly NoteSigner[]
  /** All that ever signed, the oldest first. */
  readonly keys: readonly LedgerKey[]
}

const FOLDER_MODE = 0o700
const KEY_MODE = 0o600
const FIRST_KEY = 'first.pem'
/** Id of the record that says who the ledger is. */
const RECORD_ID = 'ledger'

const recordSchema = z.object({
  origin: z.string(),
  keys: z.array(z.object({ vkey: z.string(), since: z.string(), until: z.string().optional() })),
})

/**
 * Reads the keys, makes the first one, and writes down what changed of them.
 *
 * @param now - milliseconds since the epoch
 * @throws Fault `ledger_key_missing` where none of the folder's keys is one of the ledger's, or the ledger has another
 *   origin; `file_not_private` for a key that others can read
 */
export async function openLedgerIdentity(
  { dir, origin }: LedgerKeysOptions,
  store: Pick<Store, 'record' | 'put'>,
  now: () => number,
): Promise<LedgerIdentity> {
  const known = await readKnown(store)
  const name = known.origin ?? origin ?? `nestgate-ledger/${randomUUID()}`
  if (origin !== undefined && origin !== name)
    throw new Fault('ledger_key_missing', `the ledger is ${name}, the configuration says ${origin}`)
  await mkdir(dir, { recursive: true, mode: FOLDER_MODE })
  if (known.version === 0) await makeFirst(dir)
  const signers = await readSigners(dir, name)
  const here = signers.map(({ vkey }) => vkey)
  const changes = compare(known.keys, here, new Date(now()).toISOString())
  const isNew = changes.made.length === here.length
  if (here.length === 0 || (isNew && known.version > 0))
    throw new Fault('ledger_key_missing', `none of the keys in ${dir} signs ${name} now`)
  if (await writeChanges(store, known.version, name, changes))
    return { origin: name, signers, keys: changes.keys }
  // another broker on the same store was first
  return openLedgerIdentity({ dir, origin }, store, now)
}

/** What the ledger remembers of itself; version 0 where it is new. */
async function readKnown(store: Pick<Store, 'record'>): Promise<{
  readonly version: number
  readonly origin?: string
  readonly keys: readonly LedgerKey[]
}> {
  const record = await store.record('broker', RECORD_ID)
  if (record === undefined) return { version: 0, keys: [] }
  return { version: record.version, ...recordSchema.parse(record.body) }
}

interface Changes {
  readonly keys: readonly LedgerKey[]
  readonly made: readonly string[]
  readonly gone: readonly string[]
}

/** @returns false where the ledger has changed meanwhile */
async function writeChanges(
  store: Pick<Store, 'put'>,
  version: number,
  origin: string,
  { keys, made, gone }: Changes,
): Promise<boolean> {
  if (made.length + gone.length === 0) return true
  const entries = [
    ...made.map((vkey) => entryOf('ledger_key_made', origin, vkey)),
    ...gone.map((vkey) => entryOf('ledger_key_retired', origin, vkey)),
  ]
  const change = { kind: 'broker', id: RECORD_ID, version, body: { origin, keys } } as const
  return store.put([change], entries)
}

/** What changed between the keys that signed and those that are here. */
function compare(old: readonly LedgerKey[], here: readonly string[], time: string): Changes {
  const before = old.filter(({ until }) => until === undefined).map(({ vkey }) => vkey)
  const made = here.filter((vkey) => !before.includes(vkey))
  const gone = before.filter((vkey) => !here.includes(vkey))
  const keys = [
    ...old.map((key) =>
      key.until === undefined && gone.includes(key.vkey) ? { ...key, until: time } : key,
    ),
    ...made.map((vkey) => ({ vkey, since: time })),
  ]
  return { keys, made, gone }
}

function entryOf(
  event: 'ledger_key_made' | 'ledger_key_retired',
  origin: string,
  vkey: string,
): SystemEntry {
  return { kind: 'system', event, actor: 'broker', detail: { origin, vkey } }
}

async function makeFirst(dir: string): Promise<void> {
  const names = await readdir(dir)
  if (names.some((name) => name.endsWith('.pem'))) return
  const { privateKey } = generateKeyPairSync('ed25519')
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' })
  // whole or not at all
  await writeFile(join(dir, `${FIRST_KEY}.new`), pem, { mode: KEY_MODE })
  await rename(join(dir, `${FIRST_KEY}.new`), join(dir, FIRST_KEY))
}

async function readSigners(dir: string, name: string): Promise<readonly NoteSigner[]> {
  const files = (await readdir(dir)).filter((file) => file.endsWith('.pem')).sort()
  return Promise.all(
    files.map(async (file) => {
      const key = createPrivateKey(await readOwnFile(join(dir, file)))
      if (key.asymmetricKeyType !== 'ed25519')
        throw new Fault('ledger_key_missing', `${file} is no Ed25519 key`)
      return keySigner(name, key)
    }),
  )
}
