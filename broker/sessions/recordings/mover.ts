/** Moves segments from the spool to the archive in the background: a few at a time, again and again while the archive is away. */
import { stat } from 'node:fs/promises'
import { codeOf, messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/log.ts'
import type { Archive } from './archive.ts'
import { archiveName } from './segments.ts'
import { segmentName } from './spool.ts'
import type { Spool } from './spool.ts'

/** Segments that are moved at a time; each may be in memory once. */
const MOVERS = 2
/** Waits after a failure, in milliseconds: doubled up to the second. */
const FIRST_WAIT_MS = 1_000
const MAX_WAIT_MS = 60_000

/** What it needs. */
export interface MoverDeps {
  readonly spool: Pick<Spool, 'pathOf' | 'remove'>
  readonly archive: Pick<Archive, 'name' | 'put'>
  readonly log: Logger
  /** Told of each segment that is in the archive, and not in the spool any more. */
  readonly onMoved: (id: string) => Promise<void>
  readonly firstWaitMs?: number
}

/** See the head of the file. */
export interface Mover {
  /** One that waits already is not added again. */
  add(id: string, segment: number): void
  /** Ends; what is under way is waited for. */
  close(): Promise<void>
}

interface Job {
  readonly id: string
  readonly segment: number
}

/** Begins. */
export function createMover(deps: MoverDeps): Mover {
  return new QueueMover(deps)
}

class QueueMover implements Mover {
  readonly #deps: MoverDeps
  readonly #jobs = new Map<string, Job>()
  readonly #waiting: string[] = []
  readonly #ended = new AbortController()
  readonly #busy = new Set<Promise<void>>()
  #isAway = false

  constructor(deps: MoverDeps) {
    this.#deps = deps
  }

  add(id: string, segment: number): void {
    const name = archiveName(id, segmentName(segment))
    if (this.#jobs.has(name) || this.#ended.signal.aborted) return
    this.#jobs.set(name, { id, segment })
    this.#waiting.push(name)
    if (this.#busy.size >= MOVERS) return
    const work = this.#work().finally(() => this.#busy.delete(work))
    this.#busy.add(work)
  }

  async close(): Promise<void> {
    this.#ended.abort()
    await Promise.all(this.#busy)
  }

  /** Never rejects. */
  async #work(): Promise<void> {
    let waitMs = this.#deps.firstWaitMs ?? FIRST_WAIT_MS
    const { signal } = this.#ended
    for (;;) {
      const name = signal.aborted ? undefined : this.#waiting.shift()
      const job = name === undefined ? undefined : this.#jobs.get(name)
      if (name === undefined || job === undefined) return
      if (await this.#move(name, job)) {
        this.#jobs.delete(name)
        waitMs = this.#deps.firstWaitMs ?? FIRST_WAIT_MS
        continue
      }
      this.#waiting.push(name)
      await pause(waitMs, signal)
      waitMs = Math.min(waitMs * 2, MAX_WAIT_MS)
    }
  }

  /** @returns whether nothing is left to do */
  async #move(name: string, { id, segment }: Job): Promise<boolean> {
    const { spool, archive, log, onMoved } = this.#deps
    const path = spool.pathOf(id, segment)
    try {
      const size = await sizeOf(path)
      // what is gone was moved in an attempt before this one, or by hand: reading will tell
      if (size !== undefined) {
        await archive.put(name, path)
        await spool.remove(id, segment, size)
      }
      await onMoved(id)
      if (this.#isAway) log.info({ archive: archive.name }, 'recordings are archived again')
      this.#isAway = false
      return true
    } catch (error) {
      if (!this.#isAway)
        log.error(
          { archive: archive.name, segment: name, error: messageOf(error) },
          'a recording could not be archived; it stays in the spool until it can',
        )
      this.#isAway = true
      return false
    }
  }
}

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    const stop = (): void => {
      clearTimeout(timer)
      resolve()
    }
    signal.addEventListener('abort', stop, { once: true })
    if (signal.aborted) stop()
  })
}
