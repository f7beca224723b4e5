/** Figures of a benchmark as a table: medians over the rounds, the spread beside them, and the ratios that count. */
import type { LoadResult } from './load.ts'
import type { Way } from './setup.ts'

/** One measurement. */
export interface Sample {
  readonly workload: string
  readonly connections: number
  readonly way: Way['name']
  readonly round: number
  readonly result: LoadResult
}

/** Memory of a process after a round. */
export interface MemorySample {
  readonly process: string
  readonly mib: number
}

/** The machine, without a date or a name. */
export interface Machine {
  readonly cores: number
  readonly model: string
  readonly memoryGib: number
  readonly kernel: string
  readonly node: string
  readonly kubernetes: string
  readonly kubectl: string
}

/** How it was measured. */
export interface Conditions {
  readonly machine: Machine
  readonly rounds: number
  readonly seconds: number
}

/** Middle of the sorted values; the lower of the two middle ones for an even count. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.floor((sorted.length - 1) / 2)] ?? Number.NaN
}

const HEADINGS = [
  'workload',
  'connections',
  'way',
  'p50 ms (min–max)',
  'p99 ms',
  'requests/s (min–max)',
  'p50 ÷ direct',
  'p50 ÷ kubectl proxy',
  'requests/s ÷ direct',
  'requests/s ÷ kubectl proxy',
]

/** The rows of the main table, one for each cell. Ratios are taken within a round, then their median. */
export function figures(samples: readonly Sample[]): readonly (readonly string[])[] {
  const rows: string[][] = []
  const seen = new Set<string>()
  for (const { workload, connections, way } of samples) {
    const key = `${workload} ${connections} ${way}`
    if (seen.has(key)) continue
    seen.add(key)
    const of = (name: string): readonly Sample[] =>
      samples.filter(
        (sample) =>
          sample.workload === workload && sample.connections === connections && sample.way === name,
      )
    const own = of(way)
    const p50 = own.map(({ result }) => result.p50)
    const rate = own.map(({ result }) => result.requestsPerSecond)
    const ratio = (base: string, pick: (result: LoadResult) => number): string => {
      if (base === way) return '1.00'
      const values = own.flatMap(({ round, result }) => {
        const other = of(base).find((sample) => sample.round === round)
        return other === undefined ? [] : [pick(result) / pick(other.result)]
      })
      return median(values).toFixed(2)
    }
    rows.push([
      workload,
      String(connections),
      way,
      spread(p50, 2),
      median(own.map(({ result }) => result.p99)).toFixed(2),
      spread(rate, 0),
      ratio('direct', (result) => result.p50),
      ratio('kubectl proxy', (result) => result.p50),
      ratio('direct', (result) => result.requestsPerSecond),
      ratio('kubectl proxy', (result) => result.requestsPerSecond),
    ])
  }
  return rows
}

/** The median with the lowest and highest beside it. */
export function spread(values: readonly number[], digits: number): string {
  const low = Math.min(...values).toFixed(digits)
  const high = Math.max(...values).toFixed(digits)
  return `${median(values).toFixed(digits)} (${low}–${high})`
}

function memoryRows(memory: readonly MemorySample[]): readonly (readonly string[])[] {
  return [...new Set(memory.map(({ process }) => process))].map((process) => {
    const values = memory.filter((sample) => sample.process === process).map(({ mib }) => mib)
    const last = values.at(-1) ?? Number.NaN
    return [process, last.toFixed(0), Math.max(...values).toFixed(0)]
  })
}

/** A Markdown table. */
export function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = headings.map((heading, column) =>
    Math.max(heading.length, ...rows.map((row) => row[column]?.length ?? 0)),
  )
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`
  const rule = `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`
  return [line(headings), rule, ...rows.map(line)].join('\n')
}

/** The section of the whole way in docs/benchmarks.md. */
export function waysSection(
  conditions: Conditions,
  samples: readonly Sample[],
  memory: readonly MemorySample[],
): string {
  const { machine, rounds, seconds } = conditions
  return `## The ways to an API server

The ways to the same API server, in one run on one machine, over the loopback:

- **direct**: HTTPS with a client certificate.
- **kubectl proxy**: plain HTTP to \`kubectl proxy\`, which speaks HTTP/2 to the API server.
- **nestgate**: plain HTTP to the sidecar, which finds the calling process and signs its tag; HTTPS to the broker,
  which checks token and tag, decides by policy, writes intent and outcome durably, and impersonates; HTTPS to the API server.
- **nestgate, issuer**: the same in mode issuer (docs/decisions/0006-credentials.md): the broker signs a token for the request, which the
  API server checks, and then asks the broker about the request; that asks the API server about its roles, once in 10 s for the same request.

Each cell ran ${rounds} times for ${seconds} s after a warm-up, the ways in turn within every round. Figures are medians over
the rounds, with the lowest and highest beside them; ratios are taken within a round. Load generator, proxies, API
server and etcd share the machine, so a slower way also suffers from its own cost of CPU. Sidecar and load generator have a
process namespace of their own, as in a pod (where the user may make one).

Machine: ${machine.cores} cores (${machine.model}), ${machine.memoryGib} GiB, Linux ${machine.kernel}, Node ${machine.node}, Kubernetes ${machine.kubernetes}, kubectl ${machine.kubectl}.

${table(HEADINGS, figures(samples))}

Resident memory of the processes in between, in MiB:

${table(['process', 'at the end', 'highest after a round'], memoryRows(memory))}
`
}
