/**
 * Which brokers share the store: each writes a sign of life into a record of its own. One whose record stays as it is
 * while others can read and write has ended, and what it left behind is taken care of. Turns are counted, not hours: no
 * clock of another machine matters, and a database that was away for all ends nobody.
 */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { messageOf } from '../shared/errors.ts'
import type { Logger } from '../shared/log.ts'
import type { Store } from './store/store.ts'

/** Time between two signs of life, in milliseconds. */
const BEAT_MS = 10_000
/** A broker that gave no sign in so many turns has ended: a minute. */
const GONE_AFTER_TURNS = 6
/** Beginning of the records' ids; others of the kind are not signs of life. */
const PREFIX = 'alive/'
/** Records that are read at most. */
const MAX_BROKERS = 1_000

/** See the head of the file. */
export interface Presence {
  /** Whether a broker may still be running; of one without a name it is known that it is not. */
  isThere(broker: string | undefined): boolean
  /** Removes the own record. */
  close(): Promise<void>
}

/** What it needs. */
export interface PresenceDeps {
  /** Name of this broker, see {@link brokerName}. */
  readonly id: string
  readonly store: Store
  readonly log: Logger
  readonly now: () => number
  /** Told of a broker that has ended; asked again after the next turn where it rejects. Every broker that is left is told. */
  readonly onGone: (broker: string) => Promise<void>
  readonly beatMs?: number
}

/** Says for the first time that this broker is there, and looks who else is. @throws Fault `store_failed` */
export async function openPresence(deps: PresenceDeps): Promise<Presence> {
  const presence = new Beating(deps)
  await presence.begin()
  return presence
}

/** The presence of a broker that has its store for itself: all others have ended. */
export function presentAlone(id: string): Presence {
  return { isThere: (broker) => broker === id, close: () => Promise.resolve() }
}

/** A name for this broker, a new one each time that it starts. */
export function brokerName(): string {
  return `${hostname()}-${randomBytes(6).toString('hex')}`
}

function recordOf(broker: string): { kind: 'broker'; id: string } {
  return { kind: 'broker', id: PREFIX + broker }
}

interface Seen {
  readonly version: number
  /** Turns in which the version was the same. */
  readonly turns: number
}

class Beating implements Presence {
  readonly #deps: PresenceDeps
  #others = new Map<string, Seen>()
  #timer: NodeJS.Timeout | undefined
  #turning: Promise<void> | undefined
  #failing = false

  constructor(deps: PresenceDeps) {
    this.#deps = deps
  }

  async begin(): Promise<void> {
    await this.#beat()
    this.#others = await this.#look()
    this.#timer = setInterval(() => {
      this.#turning ??= this.#turn().finally(() => {
        this.#turning = undefined
      })
    }, this.#deps.beatMs ?? BEAT_MS)
    this.#timer.unref()
  }

  isThere(broker: string | undefined): boolean {
    return broker !== undefined && (broker === this.#deps.id || this.#others.has(broker))
  }

  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#turning
    try {
      await this.#deps.store.put([{ ...recordOf(this.#deps.id), body: undefined }], [])
    } catch (error) {
      this.#deps.log.warn({ error: messageOf(error) }, 'other brokers could not be told of the end')
    }
  }

  async #beat(): Promise<void> {
    const { store, now } = this.#deps
    const body = { at: new Date(now()).toISOString() }
    await store.put([{ ...recordOf(this.#deps.id), body }], [])
  }

  async #look(): Promise<Map<string, Seen>> {
    const records = await this.#deps.store.records('broker', { prefix: PREFIX }, MAX_BROKERS)
    const others = new Map<string, Seen>()
    for (const { id: recordId, version } of records) {
      const id = recordId.slice(PREFIX.length)
      if (id === this.#deps.id) continue
      const before = this.#others.get(id)
      others.set(id, { version, turns: before?.version === version ? before.turns + 1 : 0 })
    }
    return others
  }

  /** Never rejects. */
  async #turn(): Promise<void> {
    const { log } = this.#deps
    try {
      await this.#beat()
      const before = this.#others
      const now = await this.#look()
      this.#others = now
      const left = [...before.keys()].filter((id) => !now.has(id))
      const silent = [...now].filter(([, { turns }]) => turns >= GONE_AFTER_TURNS)
      for (const id of [...left, ...silent.map(([name]) => name)]) await this.#gone(id)
      this.#failing = false
    } catch (error) {
      if (!this.#failing)
        log.error({ error: messageOf(error) }, 'no sign of life could be given to other brokers')
      this.#failing = true
    }
  }

  /** The record goes last: what fails before is done again. */
  async #gone(broker: string): Promise<void> {
    const { store, log, onGone } = this.#deps
    const seen = this.#others.get(broker)
    // remembered in any case, so that the next turn asks again where this one fails
    this.#others.set(broker, seen ?? { version: 0, turns: GONE_AFTER_TURNS })
    await onGone(broker)
    if (seen !== undefined) {
      const { version } = seen
      await store.put([{ ...recordOf(broker), version, body: undefined }], [])
    }
    this.#others.delete(broker)
    log.warn({ broker }, 'a broker has ended')
  }
}
