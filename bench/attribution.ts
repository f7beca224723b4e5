/**
 * The benchmark of attribution alone: `npm run bench -- attribution [--rounds N] [--seconds N]`. The same bare server with
 * and without looking its callers up, in turn, among more and more processes and sockets. Loopback only; all it starts
 * lives in process namespaces of its own and ends with them.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { run } from '../scripts/run.ts'
import type { LoadPlan, LoadResult } from './load.ts'
import { among, podLike, start } from './processes.ts'
import type { Measured } from './processes.ts'
import { median, spread, table } from './report.ts'

const WARMUP_MS = 1000
const CONNECTIONS = 16
const READY = /"port":(\d+).*"msg":"listening"/

/** One measured surrounding. */
interface Surrounding {
  readonly processes: number
  readonly sockets: number
  readonly modes: readonly Mode[]
}

type Mode = 'off' | 'sock_diag' | 'proc'

const SURROUNDINGS: readonly Surrounding[] = [
  { processes: 20, sockets: 10, modes: ['off', 'sock_diag', 'proc'] },
  { processes: 200, sockets: 10, modes: ['off', 'sock_diag'] },
  { processes: 1000, sockets: 10, modes: ['off', 'sock_diag'] },
  { processes: 20, sockets: 10_000, modes: ['off', 'sock_diag', 'proc'] },
]

interface Cell {
  readonly surrounding: Surrounding
  readonly load: 'keep-alive' | 'new connections'
  readonly mode: Mode
  readonly results: LoadResult[]
}

/** Measures all and gives the section of docs/benchmarks.md. */
export async function attributionSection(rounds: number, seconds: number): Promise<string> {
  const cells: Cell[] = []
  for (const surrounding of SURROUNDINGS)
    cells.push(...(await measureIn(surrounding, rounds, seconds)))
  return section(cells, rounds, seconds)
}

async function measureIn(
  surrounding: Surrounding,
  rounds: number,
  seconds: number,
): Promise<readonly Cell[]> {
  const sockets = await openSockets(surrounding.sockets)
  const servers = new Map<Mode, Measured>()
  const crowds: ChildProcess[] = []
  try {
    for (const mode of surrounding.modes) {
      const file = join(import.meta.dirname, 'attribution-server.ts')
      const [program, ...args] = [...podLike(), 'node', file, mode]
      const server = await start(mode, program, args, READY)
      servers.set(mode, server)
      crowds.push(await crowd(server.pid, surrounding.processes))
    }
    const cells = (['keep-alive', 'new connections'] as const).flatMap((load) =>
      surrounding.modes.map((mode): Cell => ({ surrounding, load, mode, results: [] })),
    )
    for (let round = 1; round <= rounds; round += 1)
      for (const cell of cells) {
        const server = servers.get(cell.mode)
        if (server === undefined) continue
        const result = await measure(server, cell.load === 'new connections', seconds)
        cell.results.push(result)
        const where = `${surrounding.processes} processes, ${surrounding.sockets} sockets`
        console.error(
          `round ${round}: ${where}, ${cell.load}, ${cell.mode}: p50 ${result.p50.toFixed(3)} ms, ${result.requestsPerSecond.toFixed(0)}/s`,
        )
      }
    return cells
  } finally {
    for (const child of crowds) child.kill('SIGKILL')
    for (const server of servers.values()) await server.stop()
    for (const socket of sockets) socket.destroy()
  }
}

async function measure(
  server: Measured,
  newConnections: boolean,
  seconds: number,
): Promise<LoadResult> {
  const plan: LoadPlan = {
    origin: `http://127.0.0.1:${server.ready[1] ?? ''}`,
    path: '/',
    connections: CONNECTIONS,
    newConnections,
    warmupMs: WARMUP_MS,
    durationMs: seconds * 1000,
  }
  const file = join(import.meta.dirname, 'load.ts')
  const [program, ...args] = [...among(server.pid), 'node', file, JSON.stringify(plan)]
  const said = await run(program, args, { timeoutMs: plan.durationMs + 60_000 })
  const result = JSON.parse(said) as LoadResult
  if (result.failures > 0 || result.requests === 0) throw new Error(JSON.stringify(result))
  return result
}

/** Fills the process namespace of a server with processes that do nothing; they end with the one returned. */
async function crowd(pid: number, count: number): Promise<ChildProcess> {
  const script = `for i in $(seq ${count}); do sleep 3600 & done; echo ready; wait`
  const [program, ...args] = [...among(pid), 'bash', '-c', script]
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

/** Open connections on this machine that have nothing to do with the server: half as many, as each has two ends. */
async function openSockets(count: number): Promise<readonly Socket[]> {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    sockets.push(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  for (let opened = 0; opened < count / 2; opened += 1) {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => undefined)
    await once(socket, 'connect')
    sockets.push(socket)
  }
  server.close()
  return sockets
}

function section(cells: readonly Cell[], rounds: number, seconds: number): string {
  const rows = cells.map((cell) => {
    const { surrounding, load, mode, results } = cell
    const base = cells.find(
      (other) => other.surrounding === surrounding && other.load === load && other.mode === 'off',
    )
    const ratio = median(
      results.map(
        ({ requestsPerSecond }, round) =>
          requestsPerSecond / (base?.results[round]?.requestsPerSecond ?? Number.NaN),
      ),
    )
    return [
      String(surrounding.processes),
      String(surrounding.sockets),
      load,
      mode === 'off' ? 'none' : mode,
      spread(
        results.map(({ p50 }) => p50),
        3,
      ),
      spread(
        results.map(({ requestsPerSecond }) => requestsPerSecond),
        0,
      ),
      ratio.toFixed(2),
    ]
  })
  const headings = [
    'processes',
    'sockets',
    'load',
    'attribution',
    'p50 ms (min–max)',
    'requests/s (min–max)',
    'requests/s ÷ none',
  ]
  return `## Attribution alone

\`npm run bench -- attribution\`: a bare HTTP server that answers at once, with and without looking its callers up, in turn within each of ${rounds} rounds of ${seconds} s,
${CONNECTIONS} connections. *processes* are in the server's process namespace besides it, *sockets* elsewhere on the machine; *sock_diag* and *proc* are the two ways to the kernel's table
(docs/decisions/0003-finding-the-caller.md). In a sidecar a request costs several times what it costs this server, so that the share of the lookup is smaller there.

${table(headings, rows)}
`
}
