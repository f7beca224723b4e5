/**
 * HTTP/1.1 beside HTTP/2, with the broker's own client library: `npm run bench -- transport` (rounds, seconds, connections as
 * for the others). To a real API server (the one of KUBECONFIG, or one that is started and ended), and to a bare Node
 * server, for the hop between sidecar and broker. Loopback only, bounded by rounds and seconds.
 */
import { createSecureServer } from 'node:http2'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openCluster } from '../scripts/cluster.ts'
import { run } from '../scripts/run.ts'
import { makeCertificates } from '../test/support/certificates.ts'
import { median, spread, table } from './report.ts'
import { cleanCluster, OWN_PORTS, prepareCluster, readKubeconfig, WORKLOADS } from './setup.ts'
import type { TransportPlan, TransportResult } from './transport-client.ts'

const WARMUP_MS = 1000
const WATCHES = 100
const PROTOCOLS = [
  { name: 'HTTP/1.1', http2: false },
  { name: 'HTTP/2', http2: true },
] as const
/** Bytes of the bare server's answer, as a small object. */
const SMALL_BYTES = 1200

interface Cell {
  readonly name: string
  readonly target: Pick<TransportPlan, 'origin' | 'tls'>
  readonly path: string
  readonly inFlight: number
  readonly watches: number
}

interface Wish {
  readonly rounds: number
  readonly seconds: number
  readonly connections: readonly number[]
}

/** Measures all and gives the section of docs/benchmarks.md. */
export async function transportSection(wish: Wish): Promise<string> {
  const dir = join(tmpdir(), 'nestgate-bench-cluster')
  const cluster = await openCluster({ node: false, dir, env: OWN_PORTS })
  const bare = await startBare()
  try {
    await prepareCluster(cluster)
    const target = readKubeconfig(cluster.kubeconfig)
    const cells: Cell[] = []
    for (const { name, path } of WORKLOADS)
      for (const inFlight of wish.connections)
        cells.push({ name, target, path, inFlight, watches: 0 })
    const [{ path }] = WORKLOADS
    cells.push({
      name: `the same beside ${WATCHES} watches`,
      target,
      path,
      inFlight: 16,
      watches: WATCHES,
    })
    for (const inFlight of wish.connections)
      cells.push({ name: 'bare Node server', target: bare.target, path: '/', inFlight, watches: 0 })
    return section(await measureAll(cells, wish), wish)
  } finally {
    await bare.close()
    if (cluster.owned) await cluster.stop()
    else await cleanCluster(cluster)
  }
}

async function startBare(): Promise<{ target: Cell['target']; close: () => Promise<void> }> {
  const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1'] })
  const body = 'x'.repeat(SMALL_BYTES)
  const server = createSecureServer({ cert, key, allowHTTP1: true }, (_request, response) => {
    response.writeHead(200, { 'content-length': SMALL_BYTES })
    response.end(body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    target: { origin: `https://127.0.0.1:${port}`, tls: { ca } },
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve()
        })
      }),
  }
}

async function measureAll(
  cells: readonly Cell[],
  { rounds, seconds }: Wish,
): Promise<ReadonlyMap<string, readonly TransportResult[]>> {
  const results = new Map<string, TransportResult[]>()
  for (let round = 1; round <= rounds; round += 1)
    for (const cell of cells)
      for (const protocol of PROTOCOLS) {
        const result = await measure(cell, protocol.http2, seconds)
        const key = JSON.stringify([cell.name, cell.inFlight, protocol.name])
        results.set(key, [...(results.get(key) ?? []), result])
        console.error(`round ${round}: ${key}: ${JSON.stringify(result)}`)
      }
  return results
}

async function measure(cell: Cell, http2: boolean, seconds: number): Promise<TransportResult> {
  const { target, path, inFlight, watches: count } = cell
  const plan: TransportPlan = {
    ...{ origin: target.origin, tls: target.tls, http2, path, inFlight },
    watches: { count, path: `${path.replace(/\/[^/]*$/, '')}?watch=1` },
    warmupMs: WARMUP_MS,
    durationMs: seconds * 1000,
  }
  const file = join(import.meta.dirname, 'transport-client.ts')
  const said = await run('node', [file, JSON.stringify(plan)], {
    timeoutMs: plan.durationMs + plan.warmupMs + 60_000,
  })
  const result = JSON.parse(said) as TransportResult
  if (result.failures > 0 || result.requests === 0)
    throw new Error(`${cell.name}, HTTP/${http2 ? 2 : 1.1}: ${said}`)
  return result
}

const HEADINGS = [
  ...['what', 'in flight', 'protocol', 'connections', 'p50 ms (min–max)', 'p99 ms'],
  ...[
    'requests/s (min–max)',
    'client CPU, µs a request',
    'client memory, MiB: at rest',
    'at the end',
  ],
]

function section(
  results: ReadonlyMap<string, readonly TransportResult[]>,
  { rounds, seconds }: Wish,
): string {
  const rows = [...results].map(([key, all]) => {
    const [name, inFlight, protocol] = JSON.parse(key) as [string, number, string]
    const values = (of: (result: TransportResult) => number): readonly number[] => all.map(of)
    return [
      ...[name, String(inFlight), protocol],
      String(median(values(({ connections }) => connections))),
      spread(
        values(({ p50 }) => p50),
        2,
      ),
      median(values(({ p99 }) => p99)).toFixed(2),
      spread(
        values(({ requestsPerSecond }) => requestsPerSecond),
        0,
      ),
      spread(
        values(({ cpuUs }) => cpuUs),
        0,
      ),
      spread(
        values(({ rssAtRest }) => rssAtRest),
        0,
      ),
      spread(
        values(({ rss }) => rss),
        0,
      ),
    ]
  })
  return `## HTTP/1.1 and HTTP/2

\`npm run bench -- transport\`: undici, the broker's client library, to the API server, in a process of its own, both protocols in turn within each of ${rounds} rounds of
${seconds} s. *connections*: how many it made. *beside ${WATCHES} watches*: through the same pool. *bare Node server*: small answers from
\`node:http2\`, which speaks both; for the hop from sidecar to broker.

${table(HEADINGS, rows)}

`
}
