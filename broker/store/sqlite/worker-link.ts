/**
 * The line to a worker thread that answers calls in batches. While one batch is under way, further calls
 * are collected; they go together as the next one. So the busier the disk, the larger the batch.
 */
import { Worker } from 'node:worker_threads'
import { Fault, messageOf } from '../../../shared/errors.ts'
import type { CallResult } from '../calls.ts'
import type { Order, Report, WorkerSettings } from './orders.ts'

/** Calls in one batch at most: larger ones raise the wait of each call more than they save (research: 256 was the best). */
export const MAX_BATCH = 256
/** Calls that may wait at most; a disk that hangs must not fill the memory. */
export const MAX_WAITING = 10_000

interface Waiting<Call> {
  readonly call: Call
  readonly resolve: (value: unknown) => void
  readonly reject: (fault: Fault) => void
}

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
 * @throws {@link Fault} `store_failed` with the worker's own reason
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
  const fail = (why: string): void => {
    reject(new Fault('store_failed', why))
  }
  const onError = (error: unknown): void => {
    fail(messageOf(error))
  }
  const onExit = (): void => {
    fail('the store’s thread ended while starting')
  }
  const onMessage = (report: Report): void => {
    if (report.report === 'ready') resolve(undefined)
    else fail(report.report === 'failed' ? report.message : 'the store’s thread did not start')
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
  readonly #ended = Promise.withResolvers<undefined>()
  #waiting: Waiting<Call>[] = []
  #underWay: readonly Waiting<Call>[] = []
  #scheduled = false
  #closing = false
  #closeSent = false
  #dead: Fault | undefined

  constructor(worker: Worker, onDeath: (why: string) => void) {
    this.#worker = worker
    this.#onDeath = onDeath
    worker.on('message', (report: Report) => {
      this.#receive(report)
    })
    worker.on('error', (error) => {
      this.#die(messageOf(error))
    })
    worker.on('exit', () => {
      this.#die('the store’s thread ended')
    })
  }

  call(call: Call): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const refusal = this.#dead ?? unavailable(this.#closing, this.#waiting.length)
      if (refusal !== undefined) {
        reject(refusal)
        return
      }
      this.#waiting.push({ call, resolve, reject })
      if (this.#scheduled) return
      this.#scheduled = true
      // Calls of the same turn of the event loop travel together.
      queueMicrotask(() => {
        this.#scheduled = false
        this.#flush()
      })
    })
  }

  async close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true
      this.#flush()
    }
    if (this.#dead === undefined) await this.#ended.promise
  }

  #flush(): void {
    if (this.#dead !== undefined || this.#underWay.length > 0) return
    if (this.#waiting.length > 0) {
      this.#underWay = this.#waiting.slice(0, MAX_BATCH)
      this.#waiting = this.#waiting.slice(MAX_BATCH)
      this.#send({ order: 'run', calls: this.#underWay.map(({ call }) => call) })
    } else if (this.#closing && !this.#closeSent) {
      this.#closeSent = true
      this.#send({ order: 'close' })
    }
  }

  #send(order: Order<Call>): void {
    this.#worker.postMessage(order)
  }

  #receive(report: Report): void {
    if (report.report !== 'done') return
    const answered = this.#underWay
    this.#underWay = []
    answered.forEach((entry, index) => {
      settle(entry, report.results[index])
    })
    this.#flush()
  }

  #die(why: string): void {
    if (this.#dead !== undefined) return
    const fault = new Fault('store_failed', why)
    this.#dead = this.#closeSent ? new Fault('store_closed', 'the store is closed') : fault
    const left = [...this.#underWay, ...this.#waiting]
    this.#underWay = []
    this.#waiting = []
    for (const { reject } of left) reject(fault)
    this.#ended.resolve(undefined)
    if (!this.#closeSent) this.#onDeath(why)
  }
}

function unavailable(closed: boolean, waiting: number): Fault | undefined {
  if (closed) return new Fault('store_closed', 'the store is closed')
  if (waiting >= MAX_WAITING) return new Fault('store_failed', 'too many calls wait for the disk')
  return undefined
}

function settle<Call>(entry: Waiting<Call>, result: CallResult | undefined): void {
  if (result?.ok === true) entry.resolve(result.value)
  else entry.reject(new Fault('store_failed', result?.message ?? 'no result'))
}
