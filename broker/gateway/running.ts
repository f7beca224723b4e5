/**
 * The requests that are under way: bounded for each pod or subject and for each cluster, so that no pod can keep the others
 * from a cluster, and ended in order when the broker ends, so that each still gets its outcome.
 */
import type { Duplex } from 'node:stream'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'

/** Requests of one pod, or of one direct client, at once, watches and sessions included. */
export const MAX_OPEN_PER_REQUESTER = 128
/** Requests to one cluster at once. */
export const MAX_OPEN_PER_CLUSTER = 4096
/** How long ending requests may take to write their outcomes, in milliseconds. */
const ENDING_MS = 5_000

/** See the head of the file. */
export interface Running {
  /**
   * Counts a request in, until `work` has settled.
   *
   * @param requester - the pod or subject that it is counted under
   * @returns `broker_busy` when there are too many
   */
  admit(requester: string, cluster: string, work: () => Promise<void>): Promise<Refusal | undefined>
  /** Tracks a request to its very end, outcome included. */
  track(work: Promise<void>): void
  /** Tracks the raw connection of a session, to be cut at the end. */
  hold(socket: Duplex): void
  /** Cuts the sessions and waits until everything tracked has ended, or the time is over. */
  close(): Promise<void>
}

/** Makes the count. */
export function createRunning(): Running {
  const open = new Map<string, number>()
  const works = new Set<Promise<void>>()
  const sockets = new Set<Duplex>()
  const add = (key: string, change: number): void => {
    const count = (open.get(key) ?? 0) + change
    if (count > 0) open.set(key, count)
    else open.delete(key)
  }
  return {
    async admit(requester, cluster, work) {
      const keys = [requester, `cluster ${cluster}`] as const
      const [ofRequester, ofCluster] = keys.map((key) => open.get(key) ?? 0)
      if ((ofRequester ?? 0) >= MAX_OPEN_PER_REQUESTER)
        return refuse('broker_busy', `${MAX_OPEN_PER_REQUESTER} requests of this caller are open`)
      if ((ofCluster ?? 0) >= MAX_OPEN_PER_CLUSTER)
        return refuse('broker_busy', 'too many requests to this cluster are open')
      for (const key of keys) add(key, 1)
      try {
        await work()
        return undefined
      } finally {
        for (const key of keys) add(key, -1)
      }
    },
    track(work): void {
      works.add(work)
      void work.finally(() => works.delete(work))
    },
    hold(socket): void {
      sockets.add(socket)
      socket.once('close', () => sockets.delete(socket))
    },
    async close(): Promise<void> {
      for (const socket of sockets) socket.destroy()
      let timer: NodeJS.Timeout | undefined
      const limit = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, ENDING_MS)
      })
      await Promise.race([Promise.allSettled(works), limit])
      clearTimeout(timer)
    },
  }
}
