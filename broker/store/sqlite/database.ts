/**
 * The SQLite file: how a connection to it is opened, made and brought up to date. Versions go forward only; a file of
 * a newer program or of another one is refused rather than guessed at.
 */
import { DatabaseSync } from 'node:sqlite'
import { Fault, messageOf } from '../../../shared/errors.ts'
import { createStatements, SCHEMA_VERSION } from '../schema.ts'
import { numberOf, SQLITE } from '../steps.ts'
import { convertLegacy } from './legacy.ts'

/** `application_id` of our files: "NSTG". */
const APPLICATION_ID = 0x4e535447
/** WAL size at which the writer itself copies it into the database file, in pages of 4 KiB: only where checkpoint-worker.ts does not. */
const CHECKPOINT_PAGES = 262_144
/** How long a commit waits for the end of a checkpoint, in milliseconds. */
const BUSY_MS = 10_000
/** Memory for pages, in KiB; the newest postings of frequent terms stay in it. */
const CACHE_KIB = 32_768

/**
 * Opens the file for writing, creating and migrating it as needed. The caller must own the file (see
 * `acquireOwnership`). Every commit is synced to disk before it returns.
 *
 * @throws {@link Fault} `store_failed` for a file that is not ours, newer than this program, or unusable
 */
export function openForWriting(file: string): DatabaseSync {
  return opened(file, () => new DatabaseSync(file, { timeout: BUSY_MS }), prepareForWriting)
}

/** Opens the file for reading; {@link openForWriting} must have succeeded before. */
export function openForReading(file: string): DatabaseSync {
  return opened(
    file,
    () => new DatabaseSync(file, { readOnly: true, timeout: 0 }),
    (db) => {
      db.exec(`PRAGMA cache_size = -${CACHE_KIB}`)
    },
  )
}

function opened(
  file: string,
  open: () => DatabaseSync,
  prepare: (db: DatabaseSync) => void,
): DatabaseSync {
  let db: DatabaseSync | undefined
  try {
    db = open()
    prepare(db)
    return db
  } catch (error) {
    db?.close()
    if (error instanceof Fault) throw error
    throw new Fault('store_failed', `cannot open ${file}: ${messageOf(error)}`, { cause: error })
  }
}

function prepareForWriting(db: DatabaseSync): void {
  // Looked at before anything is written, so that somebody else's file stays as it is.
  const version = versionOf(db)
  const mode = db.prepare('PRAGMA journal_mode = WAL').get()?.['journal_mode']
  if (mode !== 'wal')
    throw new Fault('store_failed', 'the file system cannot hold a write-ahead log')
  db.exec(`PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
    PRAGMA cache_size = -${CACHE_KIB}; PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`)
  if (version < SCHEMA_VERSION) migrate(db, version)
}

function migrate(db: DatabaseSync, version: number): void {
  db.exec('BEGIN IMMEDIATE')
  if (version === 0) for (const statement of createStatements(SQLITE)) db.exec(statement)
  else convertLegacy(db, version)
  db.exec(
    `PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`,
  )
}

function versionOf(db: DatabaseSync): number {
  const owner = numberOf(db.prepare('PRAGMA application_id').get(), 'application_id')
  const version = numberOf(db.prepare('PRAGMA user_version').get(), 'user_version')
  const objects = numberOf(db.prepare('SELECT count(*) AS n FROM sqlite_schema').get(), 'n')
  if (objects === 0 && owner === 0) return 0
  if (owner !== APPLICATION_ID)
    throw new Fault('store_failed', 'the file is another program’s database')
  if (version > SCHEMA_VERSION || version < 1) {
    throw new Fault(
      'store_failed',
      `the database has version ${version}, this program knows up to ${SCHEMA_VERSION}`,
    )
  }
  return version
}
