/**
 * Full searches that are shared: whoever waits when one begins is answered by it, at most one runs at a time, and
 * together they take at most half of the time.
 */

/** Longest pause between two full searches, in milliseconds. */
const LONGEST_PAUSE_MS = 250

/** What a search is for. */
export interface SearchDeps<T> {
  readonly search: () => Promise<void>
  /** The search that all these waited for has ended. */
  readonly found: (waiting: readonly T[]) => void
  /** It failed. */
  readonly failed: (waiting: readonly T[], error: unknown) => void
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/** See the head of the file. */
export class SharedSearch<T> {
  readonly #deps: SearchDeps<T>
  #waiting: T[] = []
  #state: 'idle' | 'scheduled' | 'searching' = 'idle'
  #nextAt = -Infinity

  constructor(deps: SearchDeps<T>) {
    this.#deps = deps
  }

  /** Waits for a search that begins after this. */
  wait(item: T): void {
    this.#waiting.push(item)
    if (this.#state === 'idle') this.#schedule()
  }

  /** Begins one that nobody waits for, so that nobody has to. */
  refresh(): void {
    if (this.#state === 'idle') this.#schedule()
  }

  #schedule(): void {
    this.#state = 'scheduled'
    const pauseMs = this.#nextAt - this.#deps.now()
    const begin = (): void => {
      void this.#search()
    }
    if (pauseMs <= 0) setImmediate(begin)
    else setTimeout(begin, pauseMs)
  }

  /** Never rejects. */
  async #search(): Promise<void> {
    const { search, found, failed, now } = this.#deps
    this.#state = 'searching'
    const waiting = this.#waiting
    this.#waiting = []
    const startedAt = now()
    try {
      await search()
      found(waiting)
    } catch (error) {
      failed(waiting, error)
    }
    this.#nextAt = now() + Math.min(now() - startedAt, LONGEST_PAUSE_MS)
    this.#state = 'idle'
    if (this.#waiting.length > 0) this.#schedule()
  }
}
