/**
 * How many clients of this process wait for a held request. After a restart each request counts as waited for by
 * one, the client that asked.
 */

/** The waiting clients, by request. */
export interface Clients {
  /** One more waits for `id`. @param shared - whether it is another process than the one that asked */
  add(id: string, shared: boolean): void
  /** One less waits. @returns whether that was the last one */
  remove(id: string): boolean
  /** Whether several processes waited for it. */
  isShared(id: string): boolean
  /** Nobody waits for this any more. */
  forget(id: string): void
}

/** Makes an empty set. */
export function createClients(): Clients {
  const waiting = new Map<string, { count: number; shared: boolean }>()
  return {
    add(id, shared) {
      const known = waiting.get(id)
      if (known === undefined) waiting.set(id, { count: shared ? 2 : 1, shared })
      else {
        known.count += 1
        known.shared ||= shared
      }
    },
    remove(id) {
      const known = waiting.get(id)
      if (known === undefined) return true
      known.count -= 1
      return known.count <= 0
    },
    isShared: (id) => waiting.get(id)?.shared === true,
    forget(id) {
      waiting.delete(id)
    },
  }
}
