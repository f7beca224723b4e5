/** How each of the store's threads begins, answers and ends. Imports next to nothing, as each thread loads it anew. */
import { parentPort, workerData } from 'node:worker_threads'
import type { MessagePort } from 'node:worker_threads'
import { Fault, messageOf } from '../../../shared/errors.ts'
import type { CallResult } from '../calls.ts'
import type { Order, Report, WorkerSettings } from './orders.ts'

/** One side of the database, open. */
export interface Side<Call> {
  readonly run: (calls: readonly Call[]) => readonly CallResult[]
  readonly close: () => void
}

/** Opens a side and answers its orders one by one. */
export function serve<Call>(port: MessagePort, open: () => Side<Call>): void {
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
    const message = messageOf(error)
    const code = error instanceof Fault ? { code: error.code } : {}
    say({ report: 'failed', message, ...code })
  }
}

/** Begins the thread with the settings that it was started with. */
export function startThread(start: (port: MessagePort, settings: WorkerSettings) => void): void {
  const settings: unknown = workerData
  if (parentPort !== null && isSettings(settings)) start(parentPort, settings)
}

/** Written out here: the shared type guards would load the YAML and schema libraries into each thread. */
function isSettings(value: unknown): value is WorkerSettings {
  if (typeof value !== 'object' || value === null) return false
  return 'role' in value && 'file' in value && typeof value.file === 'string'
}
