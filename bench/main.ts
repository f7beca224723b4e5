/**
 * The benchmarks: `npm run bench [-- [ways|attribution|footprint|decision|transport|ledger|webhook|sessions|masking] --rounds N --seconds N --connections 1,16,64 --entries N]`. `ways`: on the cluster of
 * KUBECONFIG, or on a control plane that it starts (scripts/cluster.ts) and ends. Prints the table and writes
 * its section of docs/benchmarks.md; `transport` needs one too, the others do not. The load stays on the loopback and is bounded by rounds, seconds and connections.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { cpus, release, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { isRunning, kubectl, openCluster } from '../scripts/cluster.ts'
import { prepareIssuer } from '../scripts/issuer-setup.ts'
import { freePort } from '../test/support/free-port.ts'
import { among } from './processes.ts'
import type { Measured } from './processes.ts'
import type { Cluster } from '../scripts/cluster.ts'
import { ROOT } from '../scripts/image.ts'
import { run } from '../scripts/run.ts'
import type { LoadPlan, LoadResult } from './load.ts'
import { attributionSection } from './attribution.ts'
import { decisionSection } from './decision.ts'
import { footprintSection } from './footprint.ts'
import { ledgerSection } from './ledger.ts'
import { maskingSection } from './masking.ts'
import { waysSection } from './report.ts'
import type { Machine, MemorySample, Sample } from './report.ts'
import { writeSection } from './sections.ts'
import { sessionsSection } from './sessions.ts'
import { webhookSection } from './webhook.ts'
import { transportSection } from './transport.ts'
import { cleanCluster, ISSUED, openWays, OWN_PORTS, prepareCluster, WORKLOADS } from './setup.ts'
import type { BenchIssuer, Way } from './setup.ts'

const SECTIONS: readonly string[] = [
  'ways',
  'attribution',
  'footprint',
  'decision',
  'transport',
  'ledger',
  'webhook',
  'sessions',
  'masking',
]
const PAGE = join(ROOT, 'docs', 'benchmarks.md')
const WARMUP_MS = 1000
const MAX_ROUNDS = 20
const MAX_SECONDS = 60
const MAX_CONNECTIONS = 512
const MAX_ENTRIES = 20_000_000

function readArguments(): {
  which: string
  rounds: number
  seconds: number
  connections: readonly number[]
  entries: number
} {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      rounds: { type: 'string', default: '3' },
      seconds: { type: 'string', default: '5' },
      connections: { type: 'string', default: '1,16,64' },
      entries: { type: 'string', default: '5000000' },
    },
  })
  const whole = (name: string, text: string, max: number): number => {
    const value = Number(text)
    if (Number.isInteger(value) && value >= 1 && value <= max) return value
    throw new Error(`--${name}: expected a whole number from 1 to ${max}, not ${text}`)
  }
  const [which = 'ways', ...others] = positionals
  if (!SECTIONS.includes(which) || others.length > 0)
    throw new Error(`expected one of ${SECTIONS.join(', ')}`)
  return {
    which,
    rounds: whole('rounds', values.rounds, MAX_ROUNDS),
    seconds: whole('seconds', values.seconds, MAX_SECONDS),
    entries: whole('entries', values.entries, MAX_ENTRIES),
    connections: values.connections
      .split(',')
      .map((text) => whole('connections', text, MAX_CONNECTIONS)),
  }
}

async function measure(plan: LoadPlan, pod: number): Promise<LoadResult> {
  const file = join(import.meta.dirname, 'load.ts')
  const [program, ...args] = [...among(pod), 'node', file, JSON.stringify(plan)]
  const said = await run(program, args, {
    timeoutMs: plan.durationMs + plan.warmupMs + 60_000,
  })
  const result = JSON.parse(said) as LoadResult
  if (result.failures > 0 || result.requests === 0) {
    throw new Error(`${plan.origin}${plan.path}: ${JSON.stringify(result)}`)
  }
  return result
}

async function machineOf(cluster: Cluster): Promise<Machine> {
  const versions = JSON.parse(await kubectl(cluster, ['version', '-o', 'json'])) as {
    clientVersion: { gitVersion: string }
    serverVersion: { gitVersion: string }
  }
  const processors = cpus()
  return {
    cores: processors.length,
    model: processors[0]?.model ?? 'unknown',
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.versions.node,
    kubernetes: versions.serverVersion.gitVersion,
    kubectl: versions.clientVersion.gitVersion,
  }
}

async function measureAll(
  ways: readonly Way[],
  { rounds, seconds, connections }: ReturnType<typeof readArguments>,
): Promise<{ samples: readonly Sample[]; memory: readonly MemorySample[] }> {
  const samples: Sample[] = []
  const memory: MemorySample[] = []
  // every way is measured from where a sidecar can name the caller: its own, where it has one
  const anySidecar = ways.flatMap(({ processes }) => processes).find(isSidecar)
  for (let round = 1; round <= rounds; round += 1) {
    for (const workload of WORKLOADS) {
      for (const count of connections) {
        for (const way of ways) {
          const result = await measure(
            {
              ...way.target,
              path: workload.path,
              connections: count,
              warmupMs: WARMUP_MS,
              durationMs: seconds * 1000,
            },
            (way.processes.find(isSidecar) ?? anySidecar)?.pid ?? 0,
          )
          samples.push({
            workload: workload.name,
            connections: count,
            way: way.name,
            round,
            result,
          })
          const { p50, requestsPerSecond } = result
          const figures = `p50 ${p50.toFixed(2)} ms, ${requestsPerSecond.toFixed(0)}/s`
          console.error(
            `round ${round}: ${workload.name}, ${count} connections, ${way.name}: ${figures}`,
          )
        }
      }
    }
    for (const { processes } of ways) {
      for (const { name, rss } of processes) memory.push({ process: name, mib: rss() })
    }
  }
  return { samples, memory }
}

function isSidecar({ name }: Measured): boolean {
  return name === 'sidecar'
}

async function main(): Promise<void> {
  const wish = readArguments()
  if (wish.which === 'ways') {
    await measureWays(wish)
    return
  }
  const text = await sectionOf(wish)
  writeSection(PAGE, wish.which, text)
  console.log(text)
}

async function sectionOf(wish: ReturnType<typeof readArguments>): Promise<string> {
  const { which, rounds, seconds } = wish
  if (which === 'transport') return transportSection(wish)
  if (which === 'webhook') return webhookSection(rounds, seconds)
  if (which === 'sessions') return sessionsSection(rounds)
  if (which === 'masking') return maskingSection(rounds, seconds)
  if (which === 'ledger') return ledgerSection(wish)
  if (which === 'decision') return decisionSection(rounds)
  return which === 'attribution' ? attributionSection(rounds, seconds) : footprintSection(rounds)
}

/** Mode issuer is measured where the API server is started here, for it takes flags. */
async function issuerFor(dir: string): Promise<BenchIssuer | undefined> {
  if ((process.env['KUBECONFIG'] ?? '') !== '' || isRunning(dir)) return undefined
  const port = await freePort()
  return { ...(await prepareIssuer(dir, { cluster: ISSUED, host: '127.0.0.1', port })), port }
}

async function measureWays(wish: ReturnType<typeof readArguments>): Promise<void> {
  const dir = join(tmpdir(), 'nestgate-bench-cluster')
  const issued = await issuerFor(dir)
  const flags = issued === undefined ? {} : { CLUSTER_APISERVER_FLAGS: issued.flags }
  const cluster = await openCluster({ node: false, dir, env: { ...OWN_PORTS, ...flags } })
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  // Below the project, where the compiled files find its packages.
  const work = mkdtempSync(join(ROOT, 'build', 'bench-'))
  let ways: readonly Way[] = []
  try {
    await prepareCluster(cluster)
    ways = await openWays(cluster, work, issued)
    const { samples, memory } = await measureAll(ways, wish)
    const { rounds, seconds } = wish
    const text = waysSection(
      { machine: await machineOf(cluster), rounds, seconds },
      samples,
      memory,
    )
    writeSection(PAGE, 'ways', text)
    console.log(text)
  } finally {
    for (const { processes } of ways) for (const process of processes) await process.stop()
    if (cluster.owned) await cluster.stop()
    else await cleanCluster(cluster)
    rmSync(work, { recursive: true, force: true })
  }
}

await main()
