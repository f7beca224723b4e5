/**
 * The store's own writing thread, made to fail at the worst moments. The request id of an entry says how:
 *   full          the disk has no room left while the batch is written (SQLite's own page limit)
 *   commit-lost   the commit fails and nothing reached the disk
 *   commit-kept   the commit is on disk, and reported as failed all the same
 *   die-before    the thread ends before it writes
 *   die-after     the thread ends after the commit, before it answers
 */
import type { DatabaseSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import type { QuickCall, WriteCall } from '../../broker/store/calls.ts'
import { openForWriting } from '../../broker/store/sqlite/database.ts'
import type { Order, WorkerSettings } from '../../broker/store/sqlite/orders.ts'
import { acquireOwnership } from '../../broker/store/sqlite/ownership.ts'
import { createWriter } from '../../broker/store/sqlite/writer.ts'

const { role, file } = workerData as WorkerSettings
let fault = ''

function faulty(db: DatabaseSync): DatabaseSync {
  return new Proxy(db, {
    get(target, key) {
      if (key === 'exec')
        return (sql: string) => {
          if (sql === 'COMMIT' && fault === 'commit-lost') throw new Error('disk I/O error')
          target.exec(sql)
          if (sql === 'COMMIT' && fault === 'commit-kept') throw new Error('disk I/O error')
        }
      const value: unknown = Reflect.get(target, key, target)
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
}

const port = parentPort!
if (role !== 'write') {
  await import('../../broker/store/sqlite/worker.ts')
} else {
  const release = acquireOwnership(file)
  const db = openForWriting(file)
  const writer = createWriter(faulty(db))
  port.on('message', (order: Order<WriteCall | QuickCall>) => {
    if (order.order === 'close') {
      db.close()
      release()
      port.close()
      return
    }
    fault = order.calls.map(faultOf).find((name) => name !== '') ?? ''
    if (fault === 'die-before') process.exit(1)
    if (fault === 'full') db.exec(`PRAGMA max_page_count = ${pages(db) + 1}`)
    const results = writer.run(order.calls)
    if (fault === 'full') db.exec('PRAGMA max_page_count = 1000000')
    if (fault === 'die-after') process.exit(1)
    port.postMessage({ report: 'done', results })
  })
  port.postMessage({ report: 'ready' })
}

function faultOf(call: WriteCall | QuickCall): string {
  if (!('evidence' in call)) return ''
  const ids = call.evidence.leaves.flatMap(({ terms }) =>
    terms.filter(([field]) => field === 'requestId').map(([, id]) => id),
  )
  const names = ['full', 'commit-lost', 'commit-kept', 'die-before', 'die-after']
  return names.find((name) => ids.includes(name)) ?? ''
}

function pages(db: DatabaseSync): number {
  return Number(db.prepare('PRAGMA page_count').get()?.['page_count'])
}
