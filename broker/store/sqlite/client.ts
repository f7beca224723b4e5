/**
 * The embedded database: SQLite, one file, owned by one broker. Writing happens in one thread, long reads in
 * another, so that the event loop never waits for the disk. A write settles after its transaction is synced;
 * calls that arrive while one runs share the next (group commit).
 *
 * Quick questions are answered by the writing thread: they cost one access, are never stuck behind a question about the
 * audit, and see every write made before them.
 */
import { existsSync, realpathSync } from 'node:fs'
import { extname } from 'node:path'
import type { Logger } from '../../../shared/log.ts'
import type { QuickCall, ReadCall, WriteCall } from '../calls.ts'
import { createStore } from '../client.ts'
import type { Store } from '../store.ts'
import type { WorkerSettings } from './orders.ts'
import { startWorker } from './worker-link.ts'
import type { WorkerLink } from './worker-link.ts'

/** What the store needs. */
export interface SqliteStoreDeps {
  /** Path of the database file; it is created if missing, its folder is not. `FILE.lock` and SQLite's own files lie beside it. */
  readonly file: string
  readonly log: Logger
  /** Milliseconds since the epoch; fractions become the entries' microseconds. */
  readonly now: () => number
  /** The worker's program; tests put one that fails in its place. */
  readonly worker?: URL
}

/** The worker beside this file, in source and in the build alike. */
const WORKER_URL = new URL(`./worker${extname(import.meta.url)}`, import.meta.url)
const CHECKPOINTER_URL = new URL(`./checkpoint-worker${extname(import.meta.url)}`, import.meta.url)

/** What the end of a thread means. */
const DEATHS: Readonly<Record<WorkerSettings['role'], string>> = {
  write: 'the store is gone, every write to it fails from now on',
  read: 'the store is gone, every search of it fails from now on',
  checkpoint: 'the write-ahead log of the store grows to 1 GiB and slows writes down from now on',
}

/**
 * Opens the store, creating or migrating its file.
 *
 * @throws Fault `store_failed` when another broker owns the file, when it is newer than this program
 * or not ours, or when it cannot be opened; also when its end is not what the last checkpoint says
 */
export async function openSqliteStore(deps: SqliteStoreDeps): Promise<Store> {
  const { log, worker = WORKER_URL } = deps
  const file = existsSync(deps.file) ? realpathSync(deps.file) : deps.file
  const opened: Pick<WorkerLink<never>, 'close'>[] = []
  const start = async <Call>(role: WorkerSettings['role']): Promise<WorkerLink<Call>> => {
    const url = role === 'checkpoint' ? CHECKPOINTER_URL : worker
    const link = await startWorker<Call>(url, { role, file }, (why) => {
      log.fatal({ role, why }, DEATHS[role])
    })
    opened.unshift(link)
    return link
  }
  // The last connection to close copies the write-ahead log into the file: it must be the writing one.
  const close = async (): Promise<void> => {
    for (const link of opened) await link.close()
  }
  try {
    const writer = await start<WriteCall | QuickCall>('write')
    const [reader] = await Promise.all([start<ReadCall>('read'), start<never>('checkpoint')])
    return createStore(
      {
        write: (call) => writer.call(call),
        quick: (call) => writer.call(call),
        read: (call) => reader.call(call),
        // nobody else changes anything
        onChange: () => (): void => undefined,
        close,
      },
      deps.now,
    )
  } catch (error) {
    await close()
    throw error
  }
}
