/**
 * What one sidecar costs its pod: `npm run bench -- footprint [--rounds N]`. The compiled sidecar, started as the webhook
 * starts it, among the processes of a namespace of its own; the broker is a stand-in, so that the answers can be made as
 * long as wanted. Loopback only; all that it starts is ended.
 */
import { spawn } from 'node:child_process'
import { readFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ROOT } from '../scripts/image.ts'
import { eventually, run } from '../scripts/run.ts'
import { SIDECAR_NODE_FLAGS } from '../shared/sidecar-runtime.ts'
import { startFakeBroker } from '../test/support/fake-broker.ts'
import type { FakeBroker } from '../test/support/fake-broker.ts'
import { sidecarEnv } from '../test/support/running-sidecar.ts'
import type { FootprintPlan } from './footprint-client.ts'
import { among, podLike, start } from './processes.ts'
import type { Measured } from './processes.ts'
import { median, spread, table } from './report.ts'

const CONNECTIONS = 100
const MIB = 2 ** 20
const LIST_BYTES = 20 * MIB
const PIECE = Buffer.from(`${JSON.stringify({ kind: 'ConfigMap', text: 'x'.repeat(900) })}\n`)
/** Longer than the sidecar's own rhythm, in which it gives memory back. */
const REST_MS = 6000
const LIST_MS = 8000
const SAMPLE_EVERY_MS = 50
const IDLE_MS = 20_000
const WATCH_EVERY_MS = 1000
/** Clock ticks of /proc/PID/stat, in milliseconds (USER_HZ is 100 on all that Node runs on). */
const TICK_MS = 10

/** Node as it comes, but for what is needed to be safe; and as the webhook starts the sidecar. */
const STARTS = [
  { name: 'Node’s defaults', flags: ['--disable-sigusr1'] },
  { name: 'as injected', flags: SIDECAR_NODE_FLAGS },
] as const

interface Footprint {
  readonly readyMs: number
  readonly restMib: number
  readonly idleCpuMsPerS: number
  /** Resident memory while the list went through, in MiB: the middle and the highest of all samples. */
  readonly kept: Streamed
  readonly watching: Streamed
}

interface Streamed {
  readonly middle: number
  readonly highest: number
}

/** Measures all and gives the section of docs/benchmarks.md. */
export async function footprintSection(rounds: number): Promise<string> {
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  // Below the project, where the compiled files find its packages.
  const built = mkdtempSync(join(ROOT, 'build', 'footprint-'))
  const results = new Map<string, Footprint[]>(STARTS.map(({ name }) => [name, []]))
  try {
    await run('npm', ['run', 'build', '--', '--outDir', built], { cwd: ROOT })
    for (let round = 1; round <= rounds; round += 1)
      for (const { name, flags } of STARTS) {
        const footprint = await measure(join(built, 'sidecar', 'main.js'), flags)
        results.get(name)?.push(footprint)
        console.error(`round ${round}: ${name}: ${JSON.stringify(footprint)}`)
      }
  } finally {
    rmSync(built, { recursive: true, force: true })
  }
  return section(results, rounds)
}

async function measure(main: string, flags: readonly string[]): Promise<Footprint> {
  const broker = await startFakeBroker()
  answerAtLength(broker)
  const { env, remove } = await sidecarEnv(broker)
  const startedAt = performance.now()
  const [program, ...args] = [...podLike(), 'node', ...flags, main]
  const own = { ...env, NESTGATE_LOG_LEVEL: 'info', NODE_ENV: 'production' }
  const sidecar = await start('sidecar', program, args, /"port":(\d+).*"msg":"listening"/, own)
  try {
    const port = Number(sidecar.ready[1])
    await eventually('a ready sidecar', 30_000, async () => {
      const { status } = await fetch(`http://127.0.0.1:${port}/.nestgate/ready`)
      return status === 200 ? true : undefined
    })
    const readyMs = performance.now() - startedAt
    await sleep(REST_MS)
    const [restMib, cpuBefore] = [sidecar.rss(), cpuMs(sidecar.pid)]
    await sleep(IDLE_MS)
    const idleCpuMsPerS = (cpuMs(sidecar.pid) - cpuBefore) / (IDLE_MS / 1000)
    const kept = await stream(sidecar, port, '/api/kept')
    const watching = await stream(sidecar, port, '/api/watching')
    return { readyMs, restMib, idleCpuMsPerS, kept, watching }
  } finally {
    await sidecar.stop()
    await broker.stop()
    await remove()
  }
}

/** Opens the connections, streams the list, and samples the memory meanwhile. */
async function stream(sidecar: Measured, port: number, path: string): Promise<Streamed> {
  const plan: FootprintPlan = {
    port,
    path,
    connections: CONNECTIONS,
    listPath: '/api/list',
    listBytes: LIST_BYTES,
    restMs: REST_MS,
    listMs: LIST_MS,
  }
  const file = join(import.meta.dirname, 'footprint-client.ts')
  const [program, ...args] = [...among(sidecar.pid), 'node', file, JSON.stringify(plan)]
  const client = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const samples: number[] = []
  let said = ''
  client.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()))
  const ended = new Promise<number | null>((resolve) => client.once('close', resolve))
  const timer = setInterval(() => {
    if (said.includes('reading')) samples.push(sidecar.rss())
  }, SAMPLE_EVERY_MS)
  const code = await ended
  clearInterval(timer)
  if (code !== 0 || !said.includes('done'))
    throw new Error(`the clients ended with ${code}: ${said}`)
  return { middle: median(samples), highest: Math.max(...samples) }
}

/** A watch that goes on, a list of the size wanted, and short answers else. */
function answerAtLength(broker: FakeBroker): void {
  const echo = broker.onRequest
  broker.onRequest = (seen, response, request) => {
    if (seen.url.endsWith('/watching')) watch(response)
    else if (seen.url.endsWith('/list')) void sendList(response)
    else echo(seen, response, request)
  }
}

function watch(response: ServerResponse): void {
  response.writeHead(200, { 'content-type': 'application/json' }).write(PIECE)
  const timer = setInterval(() => response.write(PIECE), WATCH_EVERY_MS)
  response.once('close', () => {
    clearInterval(timer)
  })
}

async function sendList(response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/json' })
  const closed = new Promise((resolve) => response.once('close', resolve))
  for (let sent = 0; sent < LIST_BYTES && !response.destroyed; sent += PIECE.length)
    if (!response.write(PIECE))
      await Promise.race([closed, new Promise((resolve) => response.once('drain', resolve))])
  response.end()
}

function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const [user, system] = stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 13)
  return (Number(user) + Number(system)) * TICK_MS
}

function section(results: ReadonlyMap<string, readonly Footprint[]>, rounds: number): string {
  const rows = [...results].map(([name, measured]) => {
    const of = (pick: (one: Footprint) => number, digits: number): string =>
      spread(measured.map(pick), digits)
    return [
      name,
      of(({ readyMs }) => readyMs, 0),
      of(({ idleCpuMsPerS }) => idleCpuMsPerS, 1),
      of(({ restMib }) => restMib, 0),
      of(({ kept }) => kept.middle, 0),
      of(({ kept }) => kept.highest, 0),
      of(({ watching }) => watching.middle, 0),
      of(({ watching }) => watching.highest, 0),
    ]
  })
  const headings = [
    'start',
    'start to ready, ms',
    'CPU at rest, ms/s',
    'at rest',
    `${CONNECTIONS} kept, middle`,
    'highest',
    `${CONNECTIONS} watches, middle`,
    'highest',
  ]
  return `## One sidecar

\`npm run bench -- footprint\`: the compiled sidecar in a process namespace of its own, started anew in each of ${rounds} rounds. Memory is resident memory in MiB, Node's own program
included (of which \`node -e 0\` alone has about 42). *kept*: ${CONNECTIONS} open connections, each with a request that was answered, while a list of ${LIST_BYTES / MIB} MiB is read over one more within
${LIST_MS / 1000} s. *watches*: the same, each of the ${CONNECTIONS} with a watch going on, so that there are as many connections to the broker. Middle and highest of samples every ${SAMPLE_EVERY_MS} ms while the list
goes through; of the rounds the median, lowest and highest. How it got small: docs/decisions/0004-a-small-sidecar.md.

${table(headings, rows)}
`
}
