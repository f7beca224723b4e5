/**
 * The embedded database: SQLite, one file, owned by one broker. Writing happens in one thread, long reads in
 * another, so that the event loop never waits for the disk. A write settles after its transaction is synced;
 * calls that arrive while one runs share the next (group commit).
 *
 * Looking a held request up by its id is answered by the writing thread: it costs one primary-key access, is
 * never stuck behind a question about the audit, and sees every transition made before it.
 */
import { existsSync, realpathSync } from 'node:fs'
import { extname } from 'node:path'
import type { Logger } from '../../../shared/log.ts'
import type { Entry } from '../../ledger/entry.ts'
import { Fault } from '../../../shared/errors.ts'
import type { Store } from '../store.ts'
import type { Leaf, ReadCall, WriteCall } from './messages.ts'
import { fromApprovalRow, fromClusterRow, fromEventRow, fromRows } from './rows.ts'
import { toChange, toLeaf, toNewApproval, toSameQuery } from './rows.ts'
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
/** Microseconds in a millisecond. */
const US_PER_MS = 1000

/**
 * Opens the store, creating or migrating its file.
 *
 * @throws {@link Fault} `store_failed` when another broker owns the file, when it is newer than this program
 * or not ours, or when it cannot be opened
 */
export async function openSqliteStore(deps: SqliteStoreDeps): Promise<Store> {
  const { log, worker = WORKER_URL } = deps
  const file = existsSync(deps.file) ? realpathSync(deps.file) : deps.file
  const onDeath = (why: string): void => {
    log.fatal({ why }, 'the store is gone, every call to it fails from now on')
  }
  const writer = await startWorker<WriteCall>(worker, { role: 'write', file }, onDeath)
  try {
    const reader = await startWorker<ReadCall>(worker, { role: 'read', file }, onDeath)
    return createStore(writer, reader, deps.now)
  } catch (error) {
    await writer.close()
    throw error
  }
}

function createStore(
  writer: WorkerLink<WriteCall>,
  reader: WorkerLink<ReadCall>,
  now: () => number,
): Store {
  let closing: Promise<void> | undefined
  const write = (call: WriteCall): Promise<unknown> =>
    closing === undefined
      ? writer.call(call)
      : Promise.reject(new Fault('store_closed', 'the store is closed'))
  const toLeaves = (entries: readonly Entry[]): Leaf[] => {
    const timeUs = Math.floor(now() * US_PER_MS)
    return entries.map((entry) => toLeaf(entry, timeUs))
  }
  return {
    async append(entries) {
      const first = await write({ op: 'append', leaves: toLeaves(entries) })
      if (typeof first !== 'number') throw new Fault('store_failed', 'expected a sequence number')
      return first
    },
    async hold(approval, entries) {
      const leaves = toLeaves(entries)
      return (await write({ op: 'hold', approval: toNewApproval(approval), leaves })) === true
    },
    async transition(change) {
      const leaves = toLeaves([change.entry, ...(change.also ?? [])])
      const row = await write({ op: 'transition', change: toChange(change), leaves })
      return row === undefined ? undefined : fromApprovalRow(row)
    },
    async approval(id) {
      const row = await write({ op: 'approval', id })
      return row === undefined ? undefined : fromApprovalRow(row)
    },
    async approvals(filter, limit) {
      return fromRows(await reader.call({ op: 'approvals', filter, limit }), fromApprovalRow)
    },
    async same(request) {
      const rows = await write({ op: 'same', query: toSameQuery(request) })
      return fromRows(rows, fromApprovalRow)
    },
    async clusters() {
      return fromRows(await reader.call({ op: 'clusters' }), fromClusterRow)
    },
    async putCluster(name, settings, entry) {
      const text = settings === undefined ? null : JSON.stringify(settings)
      await write({ op: 'cluster', name, settings: text, leaves: toLeaves([entry]) })
    },
    async events(filter, limit, before) {
      return fromRows(await reader.call({ op: 'events', filter, limit, before }), fromEventRow)
    },
    close() {
      // The last connection to close copies the write-ahead log into the file: it must be the writing one.
      closing ??= reader.close().then(() => writer.close())
      return closing
    },
  }
}
