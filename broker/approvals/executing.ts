/** What runs on an approval in this process, so that it can be cut when the approval is revoked. */

/** The running requests. */
export interface Executing {
  /** Aborts when the approval is revoked; only for `streaming` ones that can happen. */
  start(id: string, streaming: boolean): AbortSignal
  /** The request has ended. */
  end(id: string): void
  cut(id: string): void
  /** Ids that may be revoked, by another broker too. */
  revocable(): readonly string[]
}

/** Makes an empty set. */
export function createExecuting(): Executing {
  const running = new Map<
    string,
    { readonly cutter: AbortController; readonly streaming: boolean }
  >()
  return {
    start(id, streaming) {
      const cutter = new AbortController()
      running.set(id, { cutter, streaming })
      return cutter.signal
    },
    end(id) {
      running.delete(id)
    },
    cut(id) {
      running.get(id)?.cutter.abort()
      running.delete(id)
    },
    revocable: () => [...running].filter(([, { streaming }]) => streaming).map(([id]) => id),
  }
}
