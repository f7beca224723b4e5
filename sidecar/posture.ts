/**
 * Capabilities with which a process of the pod could speak on another's connection, or read it, without any lookup
 * seeing it: raw packets on the loopback, tracing, the kernel's own tables. What /proc/PID/status says of them is
 * readable to everybody (capabilities(7)).
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { SPEAKING_FOR_OTHERS } from '../shared/capabilities.ts'
import { SearchLimitError } from './caller/holders.ts'
import { parseStat } from './caller/process.ts'

/** The first process of the pod is the sandbox's own, which the kubelet starts and no author can change. */
export const SANDBOX_PID = '1'
/** Most threads that are looked at, of all processes together. */
export const MAX_THREADS = 8192

/**
 * What such neighbours mean: no request is served; callers are told apart by container only; or no more than a line in
 * the log and a figure.
 */
export const POSTURES = ['refuse', 'degrade', 'report'] as const
/** See {@link POSTURES}. */
export type Posture = (typeof POSTURES)[number]

/** A process that could. */
export interface RiskyNeighbour {
  readonly pid: number
  /** Number and start time: the same process at two looks. */
  readonly key: string
  readonly capabilities: readonly string[]
}

/**
 * The risky processes of other containers as of now. One in a user namespace of its own is not counted: its capabilities
 * do not reach the pod's network. A process that cannot be placed counts.
 *
 * @param root - `/proc`, or a fixture
 * @throws SearchLimitError when there are more threads than may be looked at
 */
export function findRiskyNeighbours(root: string): readonly RiskyNeighbour[] {
  const own = { cgroup: read(`${root}/self/cgroup`), namespace: link(`${root}/self/ns/user`) }
  const risky: RiskyNeighbour[] = []
  let threads = 0
  for (const pid of readdirSync(root).filter(isNumber)) {
    const tids = list(`${root}/${pid}/task`)
    threads += tids.length
    if (threads > MAX_THREADS) throw new SearchLimitError(`more than ${MAX_THREADS} threads`)
    // Each thread has capabilities of its own: the first one's say nothing of the others.
    const sets = tids.map((tid) => withinReach(read(`${root}/${pid}/task/${tid}/status`) ?? ''))
    const capabilities = riskyIn(sets.reduce((all, set) => all | set, 0n))
    if (capabilities.length === 0 || pid === SANDBOX_PID) continue
    // The container's own processes have this sidecar's rights: it itself, and the probe that waits for it.
    if (own.cgroup !== undefined && read(`${root}/${pid}/cgroup`) === own.cgroup) continue
    const namespace = link(`${root}/${pid}/ns/user`)
    if (namespace !== undefined && namespace !== own.namespace) continue
    const startTicks = parseStat(read(`${root}/${pid}/stat`) ?? '')?.startTicks ?? ''
    risky.push({ pid: Number(pid), key: `${pid} ${startTicks}`, capabilities })
  }
  return risky
}

/**
 * Files of /proc/net that list sockets which hear and say what is others' (packet(7), raw(7)): they stay what they are when
 * the rights by which they were opened are given up.
 */
const RAW_SOCKETS = ['packet', 'raw', 'raw6'] as const

/** Whether such a socket is open in this network namespace; where it is not told, there is none. */
export function hasRawSockets(root: string): boolean {
  return RAW_SOCKETS.some((name) => {
    const [, ...rows] = (read(`${root}/net/${name}`) ?? '').trimEnd().split('\n')
    return rows.length > 0
  })
}

/** One sentence about them. */
export function describeRisk(neighbours: readonly RiskyNeighbour[]): string {
  const [first] = neighbours
  if (first === undefined) return 'no process of the pod has risky capabilities'
  const names = [...new Set(neighbours.flatMap(({ capabilities }) => capabilities))].join(', ')
  return `processes of this pod have capabilities by which they could speak for others: ${names} (process ${first.pid})`
}

function riskyIn(set: bigint): readonly string[] {
  return Object.entries(SPEAKING_FOR_OTHERS)
    .filter(([, bit]) => (set & (1n << BigInt(bit))) !== 0n)
    .map(([name]) => name)
}

/**
 * What a thread has or can take: what is permitted it can make effective by itself, and what its bounding set has it can
 * get by executing a file with capabilities or, as root, any, unless it gave up new privileges (prctl(2), PR_SET_NO_NEW_PRIVS).
 */
function withinReach(status: string): bigint {
  const has = capabilitySet(status, 'CapPrm') | capabilitySet(status, 'CapEff')
  return /^NoNewPrivs:\t1$/m.test(status) ? has : has | capabilitySet(status, 'CapBnd')
}

function capabilitySet(status: string, name: 'CapPrm' | 'CapEff' | 'CapBnd'): bigint {
  const hex = new RegExp(`^${name}:\\t([0-9a-f]{1,16})$`, 'm').exec(status)?.[1]
  return hex === undefined ? 0n : BigInt(`0x${hex}`)
}

function list(path: string): readonly string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined
  }
}

function link(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

function isNumber(text: string): boolean {
  return /^\d+$/.test(text)
}
