/**
 * Calls that go together. While one batch is under way, further calls are collected; they go as the next one. So the
 * busier the disk, the larger the batch.
 */
import { Fault, messageOf } from '../../shared/errors.ts'
import type { CallResult } from './calls.ts'

/** Calls in one batch at most: larger ones raise the wait of each call more than they save (research: 256 was the best). */
export const MAX_BATCH = 256
/** Calls that may wait at most; a disk that hangs must not fill the memory. */
export const MAX_WAITING = 10_000

interface Waiting<Call> {
  readonly call: Call
  readonly resolve: (value: unknown) => void
  readonly reject: (fault: Fault) => void
}

/** Collects calls and has them run, one batch after the other. */
export class Batches<Call> {
  readonly #run: (calls: readonly Call[]) => Promise<readonly CallResult[]>
  readonly #empty = Promise.withResolvers<undefined>()
  #waiting: Waiting<Call>[] = []
  #underWay: readonly Waiting<Call>[] = []
  #scheduled = false
  #closing = false
  #failed: Fault | undefined

  /** @param run - answers each call, in order; where it rejects, every call of the batch does */
  constructor(run: (calls: readonly Call[]) => Promise<readonly CallResult[]>) {
    this.#run = run
  }

  /** Resolves to the undecoded value of the call; rejects with {@link Fault}, `store_closed` after {@link close}. */
  call(call: Call): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const refusal = this.#failed ?? unavailable(this.#closing, this.#waiting.length)
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

  /** Takes no further calls; settles when all that were accepted are answered. */
  async close(): Promise<void> {
    this.#closing = true
    this.#flush()
    await this.#empty.promise
  }

  /** Rejects all calls. @param later - what calls that come later are rejected with */
  fail(fault: Fault, later = fault): void {
    this.#failed ??= later
    const left = [...this.#underWay, ...this.#waiting]
    this.#underWay = []
    this.#waiting = []
    for (const { reject } of left) reject(fault)
    this.#empty.resolve(undefined)
  }

  #flush(): void {
    if (this.#failed !== undefined || this.#underWay.length > 0) return
    if (this.#waiting.length === 0) {
      if (this.#closing) this.#empty.resolve(undefined)
      return
    }
    const batch = this.#waiting.slice(0, MAX_BATCH)
    this.#waiting = this.#waiting.slice(MAX_BATCH)
    this.#underWay = batch
    void this.#answer(batch)
  }

  async #answer(batch: readonly Waiting<Call>[]): Promise<void> {
    try {
      const results = await this.#run(batch.map(({ call }) => call))
      for (const [index, waiting] of batch.entries()) settle(waiting, results[index])
    } catch (error) {
      const fault = error instanceof Fault ? error : new Fault('store_failed', messageOf(error))
      for (const { reject } of batch) reject(fault)
    }
    this.#underWay = []
    this.#flush()
  }
}

function unavailable(closed: boolean, waiting: number): Fault | undefined {
  if (closed) return new Fault('store_closed', 'the store is closed')
  if (waiting >= MAX_WAITING) return new Fault('store_failed', 'too many calls wait for the disk')
  return undefined
}

function settle<Call>(waiting: Waiting<Call>, result: CallResult | undefined): void {
  if (result?.ok === true) waiting.resolve(result.value)
  else waiting.reject(new Fault(result?.code ?? 'store_failed', result?.message ?? 'no result'))
}
