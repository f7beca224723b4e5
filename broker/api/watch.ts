/**
 * `GET /v1/approvals/watch`: held requests as server-sent events. First a snapshot of all that is pending, then
 * every change this broker makes. There is nothing to catch up on: whoever comes again gets a new snapshot. A
 * watcher who does not read is dropped, so that none holds more than a bounded part of memory.
 */
import type { Response } from 'express'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import { refuse } from '../../shared/reasons.ts'
import { toListed } from '../approvals/shown.ts'
import type { ApprovalEvent, Approvals } from '../approvals/types.ts'
import type { Person } from '../identity/people.ts'
import { answer } from './answers.ts'

/** Watchers at once. */
export const MAX_WATCHERS = 64
/** Requests of a snapshot at most. */
const MAX_SNAPSHOT = 1000
/** Bytes that may wait for a watcher after the snapshot. */
export const MAX_UNREAD_BYTES = 1024 * 1024
/** How often a sign of life is sent, in milliseconds: more often than what lies between gives up. */
const HEARTBEAT_MS = 15_000
/** Longest time that Node can wait for, in milliseconds. */
const MAX_TIMER_MS = 2 ** 31 - 1

/** What watching needs. */
export interface WatchDeps {
  readonly approvals: Approvals
  readonly log: Logger
  /** Milliseconds since the epoch. */
  readonly now: () => number
}

/** Makes the handler; the person has been authorised. */
export function createWatch(deps: WatchDeps): (person: Person, response: Response) => void {
  let watchers = 0
  return (person, response) => {
    if (response.destroyed) return
    if (watchers >= MAX_WATCHERS) {
      answer(response, refuse('broker_busy', `${MAX_WATCHERS} watchers are there already`))
      return
    }
    watchers += 1
    const watcher = new Watcher(deps, person, response)
    response.once('close', () => {
      watchers -= 1
      watcher.end()
    })
    void watcher.run()
  }
}

class Watcher {
  readonly #deps: WatchDeps
  readonly #response: Response
  /** What happened while the snapshot was being made; undefined once it is out. */
  #early: ApprovalEvent[] | undefined = []
  readonly #stops: (() => void)[] = []
  /** Bytes that may be unread: the snapshot is sent whole, whatever its size. */
  #allowedBytes = MAX_UNREAD_BYTES
  #count = 0

  constructor(deps: WatchDeps, { expiresAtMs }: Person, response: Response) {
    this.#deps = deps
    this.#response = response
    const { approvals, now } = deps
    this.#stops.push(
      approvals.subscribe((event) => {
        this.#receive(event)
      }),
    )
    const finish = (): void => {
      response.end()
      this.end()
    }
    const heartbeat = setInterval(() => {
      this.#write(': alive\n\n')
    }, HEARTBEAT_MS)
    this.#stops.push(() => {
      clearInterval(heartbeat)
    })
    approvals.closed.addEventListener('abort', finish)
    this.#stops.push(() => {
      approvals.closed.removeEventListener('abort', finish)
    })
    if (expiresAtMs === undefined) return
    const expiry = setTimeout(finish, Math.min(expiresAtMs - now(), MAX_TIMER_MS))
    this.#stops.push(() => {
      clearTimeout(expiry)
    })
  }

  /** Sends the snapshot, and lets changes follow. Never rejects. */
  async run(): Promise<void> {
    const { approvals, log } = this.#deps
    try {
      const pending = await approvals.list({ states: ['PENDING'] }, MAX_SNAPSHOT)
      if (this.#response.destroyed || this.#response.writableEnded) return
      this.#response.writeHead(200, {
        'Content-Type': 'text/event-stream',
        'X-Accel-Buffering': 'no',
      })
      const text = this.#event('snapshot', { items: pending.map(toListed) })
      this.#allowedBytes = MAX_UNREAD_BYTES + Buffer.byteLength(text)
      this.#write(text)
      const early = this.#early ?? []
      this.#early = undefined
      for (const event of early) this.#receive(event)
    } catch (error) {
      log.error({ error: messageOf(error) }, 'held requests could not be shown to a watcher')
      if (this.#response.headersSent) this.#response.destroy()
      else answer(this.#response, refuse('ledger_unavailable'))
      this.end()
    }
  }

  /** Stops everything that this watcher has started. */
  end(): void {
    for (const stop of this.#stops.splice(0)) stop()
  }

  #receive(event: ApprovalEvent): void {
    if (this.#early !== undefined) this.#early.push(event)
    else {
      const { from, approval } = event
      this.#write(this.#event('change', { from, approval: toListed(approval) }))
    }
  }

  #event(name: string, data: object): string {
    this.#count += 1
    // JSON has no raw line break, so the data is one line
    return `id: ${this.#count}\nevent: ${name}\ndata: ${JSON.stringify(data)}\n\n`
  }

  #write(text: string): void {
    const response = this.#response
    if (response.destroyed || response.writableEnded || !response.headersSent) return
    response.write(text)
    if (response.writableLength <= this.#allowedBytes) return
    this.#deps.log.warn({}, 'a watcher did not read and was dropped')
    response.destroy()
  }
}
