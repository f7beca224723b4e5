/**
 * The time between SIGTERM and the end where the sidecar is an ordinary container: the kubelet then stops all containers
 * of the pod at once, and agents may have something left to say. So it goes on serving until they are gone. What bounds
 * this is the pod's own grace period, after which the kubelet ends everybody. A native sidecar is told to stop
 * after the others (Kubernetes documentation, "Sidecar containers", termination) and does not wait.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { SANDBOX_PID } from './posture.ts'

/** How often it is looked whether they are gone, in milliseconds. */
const LOOK_EVERY_MS = 500
/** How long others are waited for whose processes cannot be seen and that have no connection open, in milliseconds. */
const UNSEEN_WAIT_MS = 5000

/** What is waited for. */
export interface Neighbours {
  /** Whether their processes can be seen. */
  readonly visible: boolean
  /** `/proc`, or a fixture */
  readonly procRoot: string
  /** How many connections are open. */
  readonly connections: () => number
  /** Milliseconds, monotonic. */
  readonly now: () => number
}

/** Settles when the processes of the pod's other containers are gone, or seem to be; never rejects. */
export async function outlive(neighbours: Neighbours): Promise<void> {
  const { visible, procRoot, connections, now } = neighbours
  const since = now()
  const left = (): boolean =>
    visible ? hasNeighbours(procRoot) : connections() > 0 || now() - since < UNSEEN_WAIT_MS
  while (left()) await sleep(LOOK_EVERY_MS)
}

/** Whether a process runs in another container. Which one it is in, everybody may read. */
export function hasNeighbours(procRoot: string): boolean {
  const own = cgroupOf(procRoot, 'self')
  return readdirSync(procRoot).some((pid) => {
    if (!/^\d+$/.test(pid) || pid === SANDBOX_PID) return false
    const theirs = cgroupOf(procRoot, pid)
    return theirs !== undefined && theirs !== own
  })
}

/** Undefined for a process that has ended meanwhile, or is only waiting to be noticed by its parent. */
function cgroupOf(procRoot: string, pid: string): string | undefined {
  try {
    const cgroup = readFileSync(`${procRoot}/${pid}/cgroup`, 'latin1')
    const isZombie = readFileSync(`${procRoot}/${pid}/stat`, 'latin1').includes(') Z ')
    return isZombie ? undefined : cgroup
  } catch {
    return undefined
  }
}
