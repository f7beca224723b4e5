/**
 * The requests that are under way: bounded for each pod or subject and for each cluster, so that no pod can keep the others
 * from a cluster, and ended in order when the broker ends, so that each still gets its outcome.
 */
import { setMaxListeners } from 'node:events'
import type { Duplex } from 'node:stream'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'

/** Requests of one pod, or of one direct client, at once, watches and sessions included. */
export const MAX_OPEN_PER_REQUESTER = 128
/** Requests to one cluster at once. */
export const MAX_OPEN_PER_CLUSTER = 4096
/** How long ending sessions may take to close their recordings and tell their clients, in milliseconds; they are cut then. */
const SESSIONS_MS = 3_000
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
  /** Aborted when the end begins. */
  readonly ending: AbortSignal
  /** Ends the sessions, cuts those that do not, and waits until everything tracked has ended, or the time is over. */
  close(): Promise<void>
}

/** Makes the count. */
export function createRunning(): Running {
  const open = new Map<string, number>()
  const works = new Set<Promise<void>>()
  const sockets = new Set<Duplex>()
  const ending = new AbortController()
  // one for each session
  setMaxListeners(0, ending.signal)
  const add = (key: string, change: number): void => {
    const count = (open.get(key) ?? 0) + change
    if (count > 0) open.set(key, count)
    else open.delete(key)
  }
  return {
    ending: ending.signal,
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
      ending.abort()
      if (sockets.size > 0) await settled([...sockets].map(closed), SESSIONS_MS)
      for (const socket of sockets) socket.destroy()
      await settled([...works], ENDING_MS)
    },
  }
}

function closed(socket: Duplex): Promise<void> {
  return new Promise((resolve) => {
    socket.once('close', () => {
      resolve()
    })
  })
}

/** Waits for all of them, or until the time is over. */
async function settled(works: readonly Promise<void>[], ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  await Promise.race([Promise.allSettled(works), limit])
  clearTimeout(timer)
}
