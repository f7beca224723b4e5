/**
 * One broker per database file. The owner holds an exclusive SQLite lock on `FILE.lock` for as long as it
 * lives; the operating system drops it with the process, however that ends, so nothing is ever stale. It is
 * not a lock on the database itself because that would shut out our own reading connection.
 */
import { closeSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { Fault, messageOf } from '../../../shared/errors.ts'

/** The ledger names processes, people and paths: its owner alone reads it. */
const FILE_MODE = 0o600

/**
 * Creates the files where they are missing, readable by their owner alone, and takes the lock.
 *
 * @param file - the database, by its real path: two names of one file would be two locks
 * @returns gives the lock back
 * @throws {@link Fault} `store_failed` when another broker owns the file, or it cannot be created
 */
export function acquireOwnership(file: string): () => void {
  const lockFile = `${file}.lock`
  let lock: DatabaseSync | undefined
  try {
    for (const path of [file, lockFile]) closeSync(openSync(path, 'a', FILE_MODE))
    lock = new DatabaseSync(lockFile, { timeout: 0 })
    lock.exec('BEGIN EXCLUSIVE')
  } catch (error) {
    lock?.close()
    const text = messageOf(error)
    const why = text.includes('locked') ? 'another broker owns it' : text
    throw new Fault('store_failed', `cannot open ${file}: ${why}`, { cause: error })
  }
  const held = lock
  return () => {
    held.close()
  }
}
