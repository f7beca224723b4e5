/** The line to a worker thread that answers calls in batches. */
import { Worker } from 'node:worker_threads'
import { Fault, messageOf } from '../../../shared/errors.ts'
import type { FaultCode } from '../../../shared/errors.ts'
import { Batches } from '../batches.ts'
import type { CallResult } from '../calls.ts'
import type { Order, Report, WorkerSettings } from './orders.ts'

/** A running worker. */
export interface WorkerLink<Call> {
  /** Resolves to the undecoded value of the call; rejects with {@link Fault} `store_failed`, or `store_closed` after {@link close}. */
  call(call: Call): Promise<unknown>
  /** Lets everything accepted finish, then ends the thread. Safe to call twice. */
  close(): Promise<void>
}

/**
 * Starts a worker and waits until it is ready.
 *
 * @param onDeath - told once if the thread ends without having been asked to; every call is rejected from then on
 * @throws {@link Fault} `store_failed`, or the worker's own code, with its reason
 */
export async function startWorker<Call>(
  url: URL,
  settings: WorkerSettings,
  onDeath: (why: string) => void,
): Promise<WorkerLink<Call>> {
  // node:sqlite warns once per thread that its interface may change; operators can do nothing about that.
  const execArgv = ['--disable-warning=ExperimentalWarning']
  const worker = new Worker(url, { workerData: settings, execArgv })
  await ready(worker)
  return new Link<Call>(worker, onDeath)
}

async function ready(worker: Worker): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<undefined>()
  const fail = (why: string, code: FaultCode = 'store_failed'): void => {
    reject(new Fault(code, why))
  }
  const onError = (error: unknown): void => {
    fail(messageOf(error))
  }
  const onExit = (): void => {
    fail('the store’s thread ended while starting')
  }
  const onMessage = (report: Report): void => {
    if (report.report === 'ready') resolve(undefined)
    else if (report.report === 'failed') fail(report.message, report.code)
    else fail('the store’s thread did not start')
  }
  worker.once('error', onError).once('exit', onExit).once('message', onMessage)
  try {
    await promise
  } catch (error) {
    await worker.terminate()
    throw error
  } finally {
    worker.off('error', onError).off('exit', onExit).off('message', onMessage)
  }
}

class Link<Call> implements WorkerLink<Call> {
  readonly #worker: Worker
  readonly #onDeath: (why: string) => void
  readonly #batches: Batches<Call>
  readonly #ended = Promise.withResolvers<undefined>()
  #answer: (results: readonly CallResult[]) => void = () => undefined
  #closing: Promise<void> | undefined
  #closeSent = false
  #dead = false

  constructor(worker: Worker, onDeath: (why: string) => void) {
    this.#worker = worker
    this.#onDeath = onDeath
    this.#batches = new Batches((calls) => {
      this.#send({ order: 'run', calls })
      return new Promise((resolve) => {
        this.#answer = resolve
      })
    })
    worker.on('message', (report: Report) => {
      if (report.report === 'done') this.#answer(report.results)
    })
    worker.on('error', (error) => {
      this.#die(messageOf(error))
    })
    worker.on('exit', () => {
      this.#die('the store’s thread ended')
    })
  }

  call(call: Call): Promise<unknown> {
    return this.#batches.call(call)
  }

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    await this.#batches.close()
    if (this.#dead) return
    this.#closeSent = true
    this.#send({ order: 'close' })
    await this.#ended.promise
  }

  #send(order: Order<Call>): void {
    this.#worker.postMessage(order)
  }

  #die(why: string): void {
    if (this.#dead) return
    this.#dead = true
    const fault = new Fault('store_failed', why)
    const closed = new Fault('store_closed', 'the store is closed')
    this.#batches.fail(fault, this.#closeSent ? closed : fault)
    this.#ended.resolve(undefined)
    if (!this.#closeSent) this.#onDeath(why)
  }
}
