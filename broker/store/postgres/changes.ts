/**
 * Which held requests other brokers changed: told by the database at once (`LISTEN`), and looked for in the ledger
 * behind it, as each change has its entry there. So nothing is missed while the listening connection is cut.
 */
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { ReadCall } from '../calls.ts'
import { fromHeadRow, fromLeafRow, fromRows, toEvent } from '../rows.ts'
import { Connection } from './connection.ts'
import type { ConnectionDeps } from './connection.ts'
import { POLL_MS } from './limits.ts'
import { CHANNEL } from './writer.ts'

/** Entries of one look. */
const PAGE = 256

/** What it needs. */
export interface ChangesDeps extends Omit<ConnectionDeps, 'role' | 'prepare'> {
  /** Whether the session of this number is the own writer's: its changes are known. */
  readonly isOwn: (processId: number) => boolean
  readonly read: (call: ReadCall) => Promise<unknown>
}

/** See the head of the file. */
export class Changes {
  readonly #read: ChangesDeps['read']
  readonly #log: Logger
  readonly #listeners = new Set<(id: string) => void>()
  readonly #timer: NodeJS.Timeout
  #connection: Connection | undefined
  /** Entries below this one were looked at. */
  #next: number
  #polling: Promise<void> | undefined
  #failing = false

  private constructor({ read, log }: ChangesDeps, next: number) {
    this.#read = read
    this.#log = log
    this.#next = next
    this.#timer = setInterval(() => {
      this.#polling ??= this.#poll().finally(() => {
        this.#polling = undefined
      })
    }, POLL_MS)
    this.#timer.unref()
  }

  /** @throws Fault `store_failed` */
  static async open(deps: ChangesDeps): Promise<Changes> {
    const { size } = fromHeadRow(await deps.read({ op: 'head' }))
    const changes = new Changes(deps, size)
    try {
      changes.#connection = await Connection.open({
        ...deps,
        role: 'listener',
        prepare: async (session, client) => {
          client.on('notification', ({ channel, payload, processId }) => {
            if (channel === CHANNEL && payload !== undefined && !deps.isOwn(processId))
              changes.#tell(payload)
          })
          await session.command(`listen ${CHANNEL}`)
        },
      })
      return changes
    } catch (error) {
      await changes.close()
      throw error
    }
  }

  /** @returns stops it */
  subscribe(tell: (id: string) => void): () => void {
    this.#listeners.add(tell)
    return () => {
      this.#listeners.delete(tell)
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    this.#listeners.clear()
    await this.#polling
    await this.#connection?.close()
  }

  #tell(id: string): void {
    for (const tell of [...this.#listeners]) tell(id)
  }

  /** Never rejects. */
  async #poll(): Promise<void> {
    if (this.#listeners.size === 0) return
    try {
      const { size } = fromHeadRow(await this.#read({ op: 'head' }))
      if (size > this.#next) await this.#look()
      this.#next = size
      this.#failing = false
    } catch (error) {
      if (!this.#failing)
        this.#log.warn({ error: messageOf(error) }, 'changes of other brokers cannot be looked for')
      this.#failing = true
    }
  }

  async #look(): Promise<void> {
    const told = new Set<string>()
    let before: number | undefined
    for (;;) {
      const call = { op: 'events', filter: { kind: 'approval' }, limit: PAGE, before } as const
      const events = fromRows(await this.#read(call), fromLeafRow).map(toEvent)
      for (const { seq, requestId } of events) {
        if (seq < this.#next) return
        if (requestId === undefined || told.has(requestId)) continue
        told.add(requestId)
        this.#tell(requestId)
      }
      if (events.length < PAGE) return
      before = events.at(-1)?.seq
    }
  }
}
