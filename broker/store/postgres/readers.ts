/** The reading side: a few connections, each answering one question at a time; the next goes to the first that is free. */
import { Fault } from '../../../shared/errors.ts'
import { MAX_WAITING } from '../batches.ts'
import { Tail } from '../logic/search.ts'
import type { Work } from '../steps.ts'
import { Connection } from './connection.ts'
import type { ConnectionDeps } from './connection.ts'
import { QUEUE_TIMEOUT_MS } from './limits.ts'

interface Lane {
  readonly connection: Connection
  /** Terms of the open block as this connection read them. */
  readonly tail: Tail
}

interface Question<Call> {
  readonly call: Call
  readonly sinceMs: number
  readonly resolve: (value: unknown) => void
  readonly reject: (error: unknown) => void
}

/** See the head of the file. */
export class Readers<Call> {
  readonly #lanes: readonly Lane[]
  readonly #idle: Lane[]
  readonly #work: (tail: Tail, call: Call) => Work<unknown>
  readonly #empty = Promise.withResolvers<undefined>()
  #waiting: Question<Call>[] = []
  #closing = false

  private constructor(
    connections: readonly Connection[],
    work: (tail: Tail, call: Call) => Work<unknown>,
  ) {
    this.#lanes = connections.map((connection) => ({ connection, tail: new Tail() }))
    this.#idle = [...this.#lanes]
    this.#work = work
  }

  /** @throws Fault `store_failed` */
  static async open<Call>(
    count: number,
    deps: ConnectionDeps,
    work: (tail: Tail, call: Call) => Work<unknown>,
  ): Promise<Readers<Call>> {
    const opened: Connection[] = []
    try {
      while (opened.length < count) opened.push(await Connection.open(deps))
      return new Readers(opened, work)
    } catch (error) {
      await Promise.all(opened.map((connection) => connection.close()))
      throw error
    }
  }

  /** Rejects with {@link Fault}. */
  ask(call: Call): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closing) reject(new Fault('store_closed', 'the store is closed'))
      else if (this.#waiting.length >= MAX_WAITING)
        reject(new Fault('store_failed', 'too many questions wait for the database'))
      else {
        this.#waiting.push({ call, sinceMs: performance.now(), resolve, reject })
        const lane = this.#idle.pop()
        if (lane !== undefined) void this.#serve(lane)
      }
    })
  }

  /** Lets what was accepted finish. */
  async close(): Promise<void> {
    this.#closing = true
    this.#end()
    await this.#empty.promise
    await Promise.all(this.#lanes.map(({ connection }) => connection.close()))
  }

  async #serve(lane: Lane): Promise<void> {
    for (;;) {
      const question = this.#waiting.shift()
      if (question === undefined) break
      await this.#answer(lane, question)
    }
    this.#idle.push(lane)
    this.#end()
  }

  async #answer({ connection, tail }: Lane, question: Question<Call>): Promise<void> {
    const { call, sinceMs, resolve, reject } = question
    try {
      if (performance.now() - sinceMs > QUEUE_TIMEOUT_MS)
        throw new Fault('store_failed', 'no connection to the database was free in time')
      resolve(await connection.ask((session) => session.run(this.#work(tail, call))))
    } catch (error) {
      reject(error)
    }
  }

  #end(): void {
    if (this.#closing && this.#idle.length === this.#lanes.length) this.#empty.resolve(undefined)
  }
}
