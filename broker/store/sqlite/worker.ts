/** Entry point of the store's threads: opens the database in the role it was started with and answers orders one by one. */
import { parentPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { messageOf } from '../../../shared/errors.ts'
import type { CallResult, Order, ReadCall, Report, WorkerSettings, WriteCall } from './messages.ts'
import { acquireOwnership } from './ownership.ts'
import { createReader } from './reader.ts'
import { openForReading, openForWriting } from './schema.ts'
import { createWriter } from './writer.ts'

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

function openWriter(file: string): Side<WriteCall> {
  const release = acquireOwnership(file)
  try {
    const db = openForWriting(file)
    const writer = createWriter(db)
    const close = (): void => {
      db.close()
      release()
    }
    return { run: (calls) => writer.run(calls), close }
  } catch (error) {
    release()
    throw error
  }
}

function openReader(file: string): Side<ReadCall> {
  const db = openForReading(file)
  const reader = createReader(db)
  const close = (): void => {
    db.close()
  }
  return { run: (calls) => reader.run(calls), close }
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
