/** Who waits for which held request in this process. A wake-up says "look again", nothing more. */

/** Waiting by held request. */
export interface Waiters {
  /** Settles when `id` is woken, `ms` milliseconds have passed or `signal` aborts, whichever is first. Never rejects. */
  wait(id: string, ms: number, signal: AbortSignal): Promise<void>
  /** Wakes all who wait for `id`. */
  wake(id: string): void
  /** Wakes everybody. */
  wakeAll(): void
}

/** Makes an empty set of waiters. */
export function createWaiters(): Waiters {
  const waiting = new Map<string, Set<() => void>>()
  const wake = (id: string): void => {
    for (const done of [...(waiting.get(id) ?? [])]) done()
  }
  return {
    wait(id, ms, signal) {
      if (signal.aborted) return Promise.resolve()
      const { promise, resolve } = Promise.withResolvers<undefined>()
      const others = waiting.get(id) ?? new Set()
      waiting.set(id, others)
      const done = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        others.delete(done)
        if (others.size === 0 && waiting.get(id) === others) waiting.delete(id)
        resolve(undefined)
      }
      const timer = setTimeout(done, ms)
      signal.addEventListener('abort', done)
      others.add(done)
      return promise
    },
    wake,
    wakeAll() {
      for (const id of [...waiting.keys()]) wake(id)
    },
  }
}
