/**
 * Events on the controllers that make pods (core/v1, Event). kubectl prints an admission's warnings to whoever creates a pod;
 * a controller drops them, so its owner would learn nothing of what is risky, replaced, or would be refused. What is refused
 * the controllers report themselves (FailedCreate).
 *
 * Never on the way of a review: events wait in a bounded queue, are sent one by one, and are lost where the API server does not take
 * them. The same is said of an owner once in ten minutes.
 */
import { randomUUID } from 'node:crypto'
import { messageOf } from '../shared/errors.ts'
import type { InClusterApi } from '../shared/in-cluster-api.ts'
import type { Owner, Reviewed } from '../shared/injection/review.ts'
import type { Logger } from '../shared/log.ts'

/** Most events that wait. */
const MAX_WAITING = 256
/** Most things that are remembered as said. */
const MAX_REMEMBERED = 2048
/** How long the same is not said again, in milliseconds. */
const QUIET_MS = 10 * 60_000
/** Longest message that the API server takes, in bytes (events.k8s.io, NoteLengthLimit). */
const MAX_MESSAGE = 1024
const COMPONENT = 'nestgate-webhook'

/** Tells owners. */
export interface EventSink {
  /** Says what came of a review, where a controller made the pod; returns at once. */
  tell(result: Reviewed): void
  /** Settles when nothing waits any more. */
  idle(): Promise<void>
  /** Drops what waits. */
  close(): void
}

interface Said {
  readonly namespace: string
  readonly owner: Owner
  readonly type: 'Normal' | 'Warning'
  readonly reason: string
  readonly message: string
}

/** @param deps - `now` in milliseconds, monotonic; `date` is the wall clock, for the events' times */
export function createEventSink(deps: {
  readonly api: Pick<InClusterApi, 'create'>
  readonly log: Logger
  readonly now: () => number
  readonly date: () => Date
}): EventSink {
  return new Events(deps)
}

class Events implements EventSink {
  readonly #deps: Parameters<typeof createEventSink>[0]
  /** When each thing was said, the longest ago first. */
  readonly #said = new Map<string, number>()
  readonly #waiting: Said[] = []
  #sending: Promise<void> | undefined

  constructor(deps: Parameters<typeof createEventSink>[0]) {
    this.#deps = deps
  }

  tell(result: Reviewed): void {
    for (const said of eventsOf(result)) this.#offer(said)
  }

  async idle(): Promise<void> {
    await this.#sending
  }

  close(): void {
    this.#waiting.length = 0
  }

  #offer(said: Said): void {
    const key = `${said.owner.uid} ${said.reason} ${said.message}`
    const now = this.#deps.now()
    const before = this.#said.get(key)
    if (before !== undefined && now - before < QUIET_MS) return
    if (this.#waiting.length >= MAX_WAITING) return
    this.#said.delete(key)
    this.#said.set(key, now)
    const [oldest] = this.#said.keys()
    if (this.#said.size > MAX_REMEMBERED && oldest !== undefined) this.#said.delete(oldest)
    this.#waiting.push(said)
    this.#sending ??= this.#sendAll()
  }

  async #sendAll(): Promise<void> {
    for (let said = this.#waiting.shift(); said !== undefined; said = this.#waiting.shift())
      await this.#send(said)
    this.#sending = undefined
  }

  async #send(said: Said): Promise<void> {
    const { namespace, reason } = said
    try {
      await this.#deps.api.create(
        `/api/v1/namespaces/${namespace}/events`,
        eventObject(said, this.#deps.date()),
      )
    } catch (error) {
      this.#deps.log.warn(
        { namespace, reason, error: messageOf(error) },
        'an event was not written',
      )
    }
  }
}

/** What there is to say of a review; nothing of a pod that is only tried, or that no controller made. */
function eventsOf({ owner, isDryRun, namespace, outcome, warnings }: Reviewed): readonly Said[] {
  if (owner === undefined || isDryRun) return []
  const event = (type: Said['type'], reason: string, message: string): Said => ({
    namespace,
    owner,
    type,
    reason,
    message: message.slice(0, MAX_MESSAGE),
  })
  const said = warnings.map((warning) =>
    event('Warning', outcome === 'observed' ? 'NestgateObserved' : 'NestgateWarning', warning),
  )
  if (outcome === 'patched')
    said.push(event('Normal', 'NestgateInjected', 'pods get the sidecar, and no API token'))
  return said
}

/** An event as the API server takes it in the namespace of what it is about. */
function eventObject({ namespace, owner, type, reason, message }: Said, date: Date): object {
  const at = date.toISOString().replace(/\.\d+Z$/, 'Z')
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { namespace, name: `nestgate.${randomUUID()}` },
    involvedObject: { ...owner, namespace },
    type,
    reason,
    message,
    source: { component: COMPONENT },
    firstTimestamp: at,
    lastTimestamp: at,
    count: 1,
  }
}
