/** The measurements of the sessions benchmark, each of one way and one protocol. Load is bounded by bytes, keystrokes and sessions. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { Agent, request } from 'undici'
import { run, sleep } from '../scripts/run.ts'
import { load } from './load.ts'
import type { Measured } from './processes.ts'
import type { SessionPlan, SessionResult } from './session-client.ts'
import { BIG_MIB, FILE, POD_PORT, TEXT } from './session-setup.ts'
import type { Door, SessionWay, SessionWorld } from './session-setup.ts'
import { NAMESPACE } from './setup.ts'

/** What kubectl speaks. */
export const PROTOCOLS = [
  {
    name: 'SPDY',
    env: { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'false', KUBECTL_PORT_FORWARD_WEBSOCKETS: 'false' },
  },
  {
    name: 'WebSocket',
    env: { KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'true', KUBECTL_PORT_FORWARD_WEBSOCKETS: 'true' },
  },
] as const

/** See {@link PROTOCOLS}. */
export type Protocol = (typeof PROTOCOLS)[number]

/** Of zeros. */
const OUT_MIB = 512
const TEXT_TIMES = 24
/** Of text. */
export const TEXT_MIB = TEXT_TIMES * TEXT.mib
const IN_MIB = 256
const SHORT = 10
const KEYSTROKES = { keystrokes: 1000, warmup: 100, restMs: 0, openMs: 0 } as const
const MANY = { sessions: 200, keystrokes: 10, warmup: 1, restMs: 1000, openMs: 2000 } as const
const GET_MS = 2000
const LIMIT_MS = 180_000

/** Runs kubectl with its output thrown away by the kernel. @returns seconds */
async function timed(
  way: SessionWay,
  protocol: Protocol,
  args: readonly string[],
  input?: number,
): Promise<number> {
  const [program = '', ...rest] = way.kubectl
  const began = performance.now()
  const child = spawn(program, [...rest, ...args], {
    env: { ...process.env, KUBECONFIG: '', ...protocol.env },
    stdio: [input === undefined ? 'ignore' : 'pipe', 'ignore', 'pipe'],
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  })
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (said += text))
  if (input !== undefined) await feed(child, input)
  const code: unknown = child.exitCode ?? (await once(child, 'close'))[0]
  if (code !== 0)
    throw new Error(`${way.name}, ${protocol.name}: ${args.join(' ')}: ${String(code)} ${said}`)
  return (performance.now() - began) / 1000
}

async function feed({ stdin }: ChildProcess, mib: number): Promise<void> {
  if (stdin === null) return
  const piece = Buffer.alloc(2 ** 20, 'y')
  const pieces = Readable.from(Array.from({ length: mib }, () => piece))
  // a program that ends early is seen by its exit code
  await pipeline(pieces, stdin).catch(() => undefined)
}

const script = (way: SessionWay, text: string, ...flags: string[]): readonly string[] => [
  ...['exec', ...flags, way.pod, '--', 'sh', '-c', text],
]

/** What a measurement costs processes, in milliseconds of CPU for each MiB. */
export async function costing<T>(
  processes: readonly Measured[],
  mib: number,
  work: () => Promise<T>,
): Promise<{ result: T; costs: readonly number[] }> {
  const before = processes.map(({ cpuMs }) => cpuMs())
  const result = await work()
  const costs = processes.map(({ cpuMs }, at) => (cpuMs() - (before[at] ?? 0)) / mib)
  return { result, costs }
}

/** MB/s of zeros that a program writes. */
export async function zerosOut(way: SessionWay, protocol: Protocol): Promise<number> {
  const seconds = await timed(way, protocol, script(way, `head -c ${OUT_MIB}M /dev/zero`))
  return (OUT_MIB * 1.048_576) / seconds
}

/** MB/s of text. */
export async function textOut(way: SessionWay, protocol: Protocol): Promise<number> {
  const text = `for i in $(seq ${TEXT_TIMES}); do cat ${TEXT.path}; done`
  const seconds = await timed(way, protocol, script(way, text))
  return (TEXT_MIB * 1.048_576) / seconds
}

/** MB/s that a program is given. */
export async function input(way: SessionWay, protocol: Protocol): Promise<number> {
  const seconds = await timed(way, protocol, script(way, 'cat >/dev/null', '-i'), IN_MIB)
  return (IN_MIB * 1.048_576) / seconds
}

/** Milliseconds of a whole `kubectl exec … true`. */
export async function short(way: SessionWay, protocol: Protocol): Promise<number> {
  let seconds = 0
  for (let count = 0; count < SHORT; count += 1)
    seconds += await timed(way, protocol, ['exec', way.pod, '--', 'true'])
  return (seconds * 1000) / SHORT
}

/** MB/s of `kubectl cp`, by direction. */
export async function copy(
  way: SessionWay,
  protocol: Protocol,
  work: string,
): Promise<{ from: number; to: number }> {
  const local = join(work, 'copied')
  const from = await timed(way, protocol, ['cp', `${way.pod}:${FILE.path}`, local])
  const to = await timed(way, protocol, ['cp', local, `${way.pod}:/tmp/copied`])
  const bytes = FILE.mib * 1.048_576
  return { from: bytes / from, to: bytes / to }
}

async function client(door: Door, plan: SessionPlan, protocol: Protocol): Promise<SessionResult> {
  const file = join(import.meta.dirname, 'session-client.ts')
  const [program, ...args] = [...door.client, 'node', file, JSON.stringify(plan)]
  const env = { ...protocol.env, KUBECONFIG: '' }
  const said = await run(program, args, { timeoutMs: LIMIT_MS, env })
  const result = JSON.parse(said) as SessionResult
  if (result.failures > 0) throw new Error(said)
  return result
}

function echoOver(way: SessionWay, { origin }: Door, protocol: string): SessionPlan['echo'] {
  const query = new URLSearchParams({
    ...{ command: 'cat', container: 'target' },
    ...{ stdin: 'true', stdout: 'true' },
  })
  const path = `/api/v1/namespaces/${NAMESPACE}/pods/${way.pod}/exec`
  const url = `${origin.replace(/^http/, 'ws')}${path}?${query.toString()}`
  return { by: 'websocket', url, protocol, ...(way.tls && { tls: way.tls }) }
}

function firstDoor({ doors: [door] }: SessionWay): Door {
  if (door === undefined) throw new Error('a way without a door')
  return door
}

/** Keystrokes over a bare WebSocket. @param subprotocol - `v4.channel.k8s.io` or v5 */
export function keysOverWebSocket(way: SessionWay, subprotocol: string): Promise<SessionResult> {
  const door = firstDoor(way)
  const echo = echoOver(way, door, subprotocol)
  return client(door, { echo, sessions: 1, ...KEYSTROKES }, PROTOCOLS[1])
}

/** Keystrokes through kubectl, whose own share is in both. */
export function keysOverKubectl(way: SessionWay, protocol: Protocol): Promise<SessionResult> {
  const door = firstDoor(way)
  const own = way.kubectl.slice(door.client.length)
  const echo = { by: 'program' as const, command: [...own, 'exec', '-i', way.pod, '--', 'cat'] }
  return client(door, { echo, sessions: 1, ...KEYSTROKES }, protocol)
}

/** What {@link many} finds. */
export interface Many {
  /** Milliseconds; the greater one of the clients'. */
  readonly p50: number
  readonly p99: number
  readonly openedMs: number
  /** The broker's memory in MiB: before, the most while all were open, five seconds after. */
  readonly rss: readonly [number, number, number]
}

const REST_MS = 5000
const SAMPLE_MS = 100

/** Many sessions at once, by a client at each door, each of which types now and then. */
export async function many(
  { broker }: SessionWorld,
  way: SessionWay,
  subprotocol: string,
): Promise<Many> {
  const before = broker.rss()
  let most = before
  const sampling = setInterval(() => {
    most = Math.max(most, broker.rss())
  }, SAMPLE_MS)
  try {
    const sessions = MANY.sessions / way.doors.length
    const results = await Promise.all(
      way.doors.map((door) => {
        const echo = echoOver(way, door, subprotocol)
        return client(door, { ...MANY, echo, sessions }, PROTOCOLS[1])
      }),
    )
    await sleep(REST_MS)
    const worst = (of: (result: SessionResult) => number): number => Math.max(...results.map(of))
    return {
      p50: worst(({ p50 }) => p50),
      p99: worst(({ p99 }) => p99),
      openedMs: worst(({ openedMs }) => openedMs),
      rss: [before, most, broker.rss()],
    }
  } finally {
    clearInterval(sampling)
  }
}

/** How many {@link many} opens. */
export const MANY_SESSIONS = MANY.sessions

/** What {@link forward} finds. */
export interface Forwarded {
  /** Of a long answer. */
  readonly mbPerSecond: number
  /** Milliseconds of a small request on a connection that is kept. */
  readonly p50: number
  readonly p99: number
  /** Milliseconds of a small request with a connection of its own. */
  readonly newP50: number
}

async function whole(origin: string): Promise<number> {
  const dispatcher = new Agent()
  const began = performance.now()
  const { body } = await request(`${origin}/big`, { dispatcher })
  let bytes = 0
  for await (const piece of body) bytes += (piece as Buffer).length
  await dispatcher.destroy()
  if (bytes !== BIG_MIB * 2 ** 20) throw new Error(`${bytes} bytes of a long answer`)
  return bytes / 1e6 / ((performance.now() - began) / 1000)
}

/** HTTP through `kubectl port-forward`. */
export async function forward(way: SessionWay, protocol: Protocol): Promise<Forwarded> {
  const [program = '', ...rest] = way.kubectl
  const child = spawn(program, [...rest, 'port-forward', way.pod, `:${POD_PORT}`], {
    env: { ...process.env, KUBECONFIG: '', ...protocol.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  try {
    const origin = await forwardedOrigin(child)
    const plan = { origin, path: '/', connections: 1, warmupMs: 300, durationMs: GET_MS }
    const kept = await load(plan)
    const opened = await load({ ...plan, newConnections: true })
    const failure = kept.firstFailure ?? opened.firstFailure
    if (failure !== undefined) throw new Error(`${way.name}, port-forward: ${failure}`)
    return { mbPerSecond: await whole(origin), p50: kept.p50, p99: kept.p99, newP50: opened.p50 }
  } finally {
    child.kill('SIGTERM')
  }
}

function forwardedOrigin({ stdout, stderr, ...child }: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = ''
    const hear = (text: string): void => {
      said += text
      const port = /127\.0\.0\.1:(\d+)/.exec(said)?.[1]
      if (port !== undefined) resolve(`http://127.0.0.1:${port}`)
    }
    stdout?.setEncoding('utf8').on('data', hear)
    stderr?.setEncoding('utf8').on('data', hear)
    stdout?.on('close', () => {
      reject(new Error(`port-forward ended: ${said} ${String(child.exitCode ?? '')}`))
    })
  })
}
