/** What the store's client and its workers say to each other. Both are this process; nothing here is outside input. */
import type { FaultCode } from '../../../shared/errors.ts'
import type { CallResult } from '../calls.ts'

/** What a worker is started with. */
export interface WorkerSettings {
  readonly role: 'write' | 'read' | 'checkpoint'
  readonly file: string
}

/** From client to worker. */
export type Order<Call> =
  { readonly order: 'run'; readonly calls: readonly Call[] } | { readonly order: 'close' }

/** From worker to client; `results` answers the calls of one order, in their order. */
export type Report =
  | { readonly report: 'ready' }
  | { readonly report: 'failed'; readonly message: string; readonly code?: FaultCode }
  | { readonly report: 'done'; readonly results: readonly CallResult[] }
  | { readonly report: 'closed' }
