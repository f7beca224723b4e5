/**
 * Sessions, direct and through Nestgate, within one run: `npm run bench -- sessions`. On the cluster of KUBECONFIG, on the scripts' cluster that
 * runs in NESTGATE_CLUSTER_DIR, or on one with a node that is started and ended.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openCluster } from '../scripts/cluster.ts'
import { ROOT } from '../scripts/image.ts'
import { median, spread, table } from './report.ts'
import {
  copy,
  costing,
  forward,
  input,
  keysOverKubectl,
  keysOverWebSocket,
  many,
  MANY_SESSIONS,
  PROTOCOLS,
  short,
  TEXT_MIB,
  textOut,
  zerosOut,
} from './session-measures.ts'
import { openSessionWorld } from './session-setup.ts'
import type { SessionWay, SessionWorld } from './session-setup.ts'

/** One figure of one way. */
interface Figure {
  readonly what: string
  readonly unit: 'MB/s' | 'ms' | 'MiB' | 'ms/MiB'
  readonly protocol: string
  readonly way: SessionWay['name']
  readonly round: number
  readonly value: number
}

type Note = (what: string, unit: Figure['unit'], value: number) => void
type Measure = (
  way: SessionWay,
  note: (protocol: string) => Note,
  world: SessionWorld,
  work: string,
) => Promise<void>

const SUBPROTOCOLS = ['v4.channel.k8s.io', 'v5.channel.k8s.io'] as const

/** In this order within each round; each for every way in turn. */
const MEASURES: readonly { readonly name: string; readonly measure: Measure }[] = [
  {
    name: 'output',
    measure: async (way, note, { broker, sidecar }) => {
      for (const protocol of PROTOCOLS) {
        note(protocol.name)('output, zeros', 'MB/s', await zerosOut(way, protocol))
        const { result, costs } = await costing([broker, sidecar], TEXT_MIB, () =>
          textOut(way, protocol),
        )
        note(protocol.name)('output, text', 'MB/s', result)
        if (way.name === 'direct') continue
        note(protocol.name)('output, text: CPU of the broker', 'ms/MiB', costs[0] ?? Number.NaN)
        note(protocol.name)('output, text: CPU of the sidecar', 'ms/MiB', costs[1] ?? Number.NaN)
      }
    },
  },
  {
    name: 'input',
    measure: async (way, note) => {
      for (const protocol of PROTOCOLS)
        note(protocol.name)('input', 'MB/s', await input(way, protocol))
    },
  },
  {
    name: 'keys',
    measure: async (way, note, world) => {
      for (const name of SUBPROTOCOLS) {
        // an API server that does not know v5 has nothing to compare with
        if (way.name === 'direct' && name.startsWith('v5') && !world.speaksV5) continue
        const { p50, p99 } = await keysOverWebSocket(way, name)
        note(name)('keystroke, p50', 'ms', p50)
        note(name)('keystroke, p99', 'ms', p99)
      }
      const { p50, p99 } = await keysOverKubectl(way, PROTOCOLS[0])
      note('SPDY, kubectl')('keystroke, p50', 'ms', p50)
      note('SPDY, kubectl')('keystroke, p99', 'ms', p99)
    },
  },
  {
    name: 'short',
    measure: async (way, note) => {
      for (const protocol of PROTOCOLS)
        note(protocol.name)('exec true', 'ms', await short(way, protocol))
    },
  },
  {
    name: 'forward',
    measure: async (way, note) => {
      for (const protocol of PROTOCOLS) {
        const { mbPerSecond, p50, p99, newP50 } = await forward(way, protocol)
        note(protocol.name)('port-forward, 256 MiB', 'MB/s', mbPerSecond)
        note(protocol.name)('port-forward, GET, p50', 'ms', p50)
        note(protocol.name)('port-forward, GET, p99', 'ms', p99)
        note(protocol.name)('port-forward, GET on a new connection, p50', 'ms', newP50)
      }
    },
  },
  {
    name: 'cp',
    measure: async (way, note, _world, work) => {
      for (const protocol of PROTOCOLS) {
        const { from, to } = await copy(way, protocol, work)
        note(protocol.name)('cp from the pod, 64 MiB', 'MB/s', from)
        note(protocol.name)('cp to the pod, 64 MiB', 'MB/s', to)
      }
    },
  },
  {
    name: 'many',
    measure: async (way, note, world) => {
      const [protocol] = SUBPROTOCOLS
      const { p50, p99, openedMs, rss } = await many(world, way, protocol)
      const all = `${MANY_SESSIONS} sessions`
      note(protocol)(`${all}, keystroke, p50`, 'ms', p50)
      note(protocol)(`${all}, keystroke, p99`, 'ms', p99)
      note(protocol)(`${all}, all open after`, 'ms', openedMs)
      if (way.name === 'direct') return
      for (const [at, when] of ['before', 'most', 'after'].entries())
        note(protocol)(`${all}, broker’s memory, ${when}`, 'MiB', rss[at] ?? Number.NaN)
    },
  },
]

/**
 * Measures all and gives the section of docs/benchmarks.md.
 *
 * Environment: `NESTGATE_BENCH_ONLY` names measurements (commas), `NESTGATE_BENCH_BROKER_FLAGS` flags of the broker's Node (spaces), such as `--cpu-prof`.
 */
export async function sessionsSection(rounds: number): Promise<string> {
  const dir = process.env['NESTGATE_CLUSTER_DIR'] ?? join(tmpdir(), 'nestgate-bench-cluster')
  const cluster = await openCluster({ node: true, dir })
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  const work = mkdtempSync(join(ROOT, 'build', 'bench-'))
  const flags = (process.env['NESTGATE_BENCH_BROKER_FLAGS'] ?? '').split(' ').filter(Boolean)
  let world: SessionWorld | undefined
  try {
    world = await openSessionWorld(cluster, work, flags)
    return section(await measureAll(world, work, rounds), rounds, world)
  } finally {
    await world?.stop()
    if (cluster.owned) await cluster.stop()
    rmSync(work, { recursive: true, force: true })
  }
}

async function measureAll(
  world: SessionWorld,
  work: string,
  rounds: number,
): Promise<readonly Figure[]> {
  const figures: Figure[] = []
  const only = process.env['NESTGATE_BENCH_ONLY']?.split(',')
  for (let round = 1; round <= rounds; round += 1)
    for (const { measure } of MEASURES.filter(({ name }) => only?.includes(name) ?? true))
      for (const way of world.ways) {
        const note =
          (protocol: string): Note =>
          (what, unit, value) => {
            figures.push({ what, unit, protocol, way: way.name, round, value })
            console.error(
              `round ${round}: ${what}, ${protocol}, ${way.name}: ${value.toFixed(2)} ${unit}`,
            )
          }
        await measure(way, note, world, work)
      }
  return figures
}

const WAYS: readonly SessionWay['name'][] = ['direct', 'through, unrecorded', 'through, recorded']

function rows(figures: readonly Figure[]): readonly (readonly string[])[] {
  const keys = new Map(figures.map((figure) => [`${figure.what} ${figure.protocol}`, figure]))
  return [...keys.values()].map(({ what, protocol, unit }) => {
    const of = (way: string): readonly Figure[] =>
      figures.filter((one) => one.what === what && one.protocol === protocol && one.way === way)
    const shown = WAYS.map((way) => {
      const values = of(way).map(({ value }) => value)
      return values.length === 0 ? '' : spread(values, unit === 'MiB' || unit === 'MB/s' ? 0 : 2)
    })
    return [what, protocol, unit, ...shown, compared(unit, of(WAYS[2] ?? ''), of(WAYS[0] ?? ''))]
  })
}

/** Of rates the ratio, of times the difference, taken within each round. */
function compared(
  unit: Figure['unit'],
  ours: readonly Figure[],
  direct: readonly Figure[],
): string {
  const values = ours.flatMap(({ round, value }) => {
    const other = direct.find((one) => one.round === round)
    if (other === undefined) return []
    return [unit === 'MB/s' ? value / other.value : value - other.value]
  })
  if (values.length === 0) return ''
  const middle = median(values)
  return unit === 'MB/s'
    ? `× ${middle.toFixed(2)}`
    : `${middle < 0 ? '−' : '+'} ${Math.abs(middle).toFixed(2)}`
}

function section(figures: readonly Figure[], rounds: number, world: SessionWorld): string {
  const headings = ['what', 'protocol', 'unit', ...WAYS, 'recorded to direct']
  return `## Sessions

\`npm run bench -- sessions\`: sessions with a pod on a real node (Kubernetes ${world.version}, kubectl ${world.kubectlVersion}), ways in turn within each of ${rounds} rounds; medians, lowest and highest beside them. Client, sidecar,
broker, API server, kubelet and the pod share one machine, so that each copy of the bytes costs the others. *unrecorded*: a rule with \`record: off\`; the session is terminated on both sides all the same. *SPDY* and *WebSocket*
are what kubectl was told to speak; an API server that does not know the latter is asked over SPDY. *keystroke*: a byte to \`cat\` and back, over a bare WebSocket or through kubectl's pipes. *recorded to direct*: of rates the
ratio, of times the difference.

${table(headings, rows(figures))}
`
}
