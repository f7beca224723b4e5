/** Entry point of the store's threads: opens the database in the role it was started with and answers orders one by one. */
import { parentPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { messageOf } from '../../../shared/errors.ts'
import type { CallResult, QuickCall, ReadCall, WriteCall } from '../calls.ts'
import { readSlow } from '../logic/read.ts'
import { Tail } from '../logic/search.ts'
import { SQLITE } from '../steps.ts'
import { openForReading, openForWriting } from './database.ts'
import { createExecute } from './execute.ts'
import type { Order, Report, WorkerSettings } from './orders.ts'
import { acquireOwnership } from './ownership.ts'
import { attempt, createWriter } from './writer.ts'

/** One side of the database, open. */
interface Side<Call> {
  readonly run: (calls: readonly Call[]) => readonly CallResult[]
  readonly close: () => void
}

function serve<Call>(port: MessagePort, open: () => Side<Call>): void {
  const say = (report: Report): void => {
    port.postMessage(report)
  }
  try {
    const side: Side<Call> = open()
    port.on('message', (order: Order<Call>) => {
      if (order.order === 'run') {
        say({ report: 'done', results: side.run(order.calls) })
        return
      }
      side.close()
      say({ report: 'closed' })
      port.close()
    })
    say({ report: 'ready' })
  } catch (error) {
    say({ report: 'failed', message: messageOf(error) })
  }
}

function openWriter(file: string): Side<WriteCall | QuickCall> {
  const release = acquireOwnership(file)
  try {
    const db = openForWriting(file)
    try {
      const writer = createWriter(db)
      const close = (): void => {
        db.close()
        release()
      }
      return { run: (calls) => writer.run(calls), close }
    } catch (error) {
      db.close()
      throw error
    }
  } catch (error) {
    release()
    throw error
  }
}

function openReader(file: string): Side<ReadCall> {
  const db = openForReading(file)
  const execute = createExecute(db)
  const tail = new Tail()
  const close = (): void => {
    db.close()
  }
  const read = (call: ReadCall): CallResult => attempt(() => execute(readSlow(SQLITE, tail, call)))
  return { run: (calls) => calls.map(read), close }
}

function start(port: MessagePort, { role, file }: WorkerSettings): void {
  if (role === 'write') {
    serve(port, () => openWriter(file))
  } else {
    serve(port, () => openReader(file))
  }
}

/** Written out here: the shared type guards would load the YAML and schema libraries into each thread. */
function isSettings(value: unknown): value is WorkerSettings {
  if (typeof value !== 'object' || value === null) return false
  return 'role' in value && 'file' in value && typeof value.file === 'string'
}

const settings: unknown = workerData
if (parentPort !== null && isSettings(settings)) start(parentPort, settings)
