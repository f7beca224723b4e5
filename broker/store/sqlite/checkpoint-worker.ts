/**
 * Entry point of the thread that copies the write-ahead log into the database file. In the writing thread it would hold
 * up every commit behind it for as long as the disk needs (measured: half of the appends, and four times their p99).
 */
import { DatabaseSync } from 'node:sqlite'
import { serve, startThread } from './serve.ts'

/** How often it is looked whether there is something to copy, in milliseconds. */
const LOOK_MS = 500
/** Pages (4 KiB) of the log from which the writer is made to wait for the rest, so that the log begins anew. */
const MAX_LOG_PAGES = 65_536
/** How long the writer is waited for, in milliseconds. */
const BUSY_MS = 10_000

startThread((port, { file }) => {
  serve<never>(port, () => {
    const db = new DatabaseSync(file, { timeout: BUSY_MS })
    db.exec('PRAGMA wal_autocheckpoint = 0')
    const end = startCheckpoints(db)
    const close = (): void => {
      end()
      db.close()
    }
    return { run: () => [], close }
  })
})

/** Without load the log is copied whole, and begins anew by itself. */
function startCheckpoints(db: DatabaseSync): () => void {
  const passive = db.prepare('PRAGMA wal_checkpoint(PASSIVE)')
  const restart = db.prepare('PRAGMA wal_checkpoint(RESTART)')
  const timer = setInterval(() => {
    try {
      const pages = passive.get()?.['log']
      if (typeof pages === 'number' && pages > MAX_LOG_PAGES) restart.get()
    } catch {
      // a disk without room: the next commit tells its callers, and the next look tries again
    }
  }, LOOK_MS)
  return () => {
    clearInterval(timer)
  }
}
