/**
 * One protocol to one server, as a process of its own: `node bench/transport-client.ts JSON`. Keeps requests in
 * flight for a fixed time, beside watches that stay open, and prints a TransportResult as JSON.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Pool } from 'undici'
import type { Dispatcher } from 'undici'
import { percentile } from './load.ts'

/** What to send. */
export interface TransportPlan {
  readonly origin: string
  readonly tls: { readonly ca: string; readonly cert?: string; readonly key?: string }
  readonly http2: boolean
  readonly path: string
  /** Requests in flight. */
  readonly inFlight: number
  /** Opened before, and open until the end. */
  readonly watches: { readonly count: number; readonly path: string }
  readonly warmupMs: number
  readonly durationMs: number
}

/** What came of it. */
export interface TransportResult {
  readonly requests: number
  readonly failures: number
  readonly firstFailure?: string
  readonly requestsPerSecond: number
  /** Milliseconds, from sending to the last byte. */
  readonly p50: number
  readonly p99: number
  /** CPU of this process for one request, in microseconds. */
  readonly cpuUs: number
  /** Connections that were made. */
  readonly connections: number
  /** Resident memory in MiB once the watches are open, and at the end. */
  readonly rssAtRest: number
  readonly rss: number
}

const MAX_REQUESTS = 1_000_000
const MAX_FAILURES = 1000
const REST_MS = 500

const rss = (): number =>
  Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024

async function openWatches(
  pool: Dispatcher,
  { count, path }: TransportPlan['watches'],
): Promise<readonly Dispatcher.ResponseData[]> {
  const open = Array.from({ length: count }, async () => {
    const answer = await pool.request({ method: 'GET', path, headersTimeout: 0, bodyTimeout: 0 })
    if (answer.statusCode !== 200) throw new Error(`watch: status ${answer.statusCode}`)
    answer.body.on('error', () => undefined)
    answer.body.resume()
    return answer
  })
  return Promise.all(open)
}

async function runPlan(plan: TransportPlan): Promise<TransportResult> {
  let connections = 0
  const pool = new Pool(plan.origin, {
    allowH2: plan.http2,
    connect: plan.tls,
    ...(plan.http2 ? {} : { pipelining: 1 }),
  })
  pool.on('connect', () => (connections += 1))
  const watches = await openWatches(pool, plan.watches)
  await sleep(REST_MS)
  const rssAtRest = rss()
  const latencies = new Float64Array(MAX_REQUESTS)
  const start = performance.now() + plan.warmupMs
  const end = start + plan.durationMs
  let requests = 0
  let failures = 0
  let firstFailure: string | undefined
  const one = async (): Promise<void> => {
    const sent = performance.now()
    const { statusCode, body } = await pool.request({ method: 'GET', path: plan.path })
    await body.dump({ limit: 2 ** 30 })
    const done = performance.now()
    if (statusCode !== 200) throw new Error(`status ${statusCode}`)
    if (sent < start || done > end || requests === MAX_REQUESTS) return
    latencies[requests] = done - sent
    requests += 1
  }
  const worker = async (): Promise<void> => {
    while (performance.now() < end && failures < MAX_FAILURES)
      await one().catch((error: unknown) => {
        failures += 1
        firstFailure ??= String(error)
      })
  }
  const workers = Promise.all(Array.from({ length: plan.inFlight }, worker))
  await sleep(plan.warmupMs)
  const cpuBefore = process.cpuUsage()
  await workers
  const cpu = process.cpuUsage(cpuBefore)
  const atEnd = rss()
  const broken = watches.filter(({ body }) => body.destroyed).length
  await pool.destroy()
  const sorted = latencies.subarray(0, requests).sort()
  return {
    requests,
    failures: failures + broken,
    ...(firstFailure === undefined ? {} : { firstFailure }),
    requestsPerSecond: requests / (plan.durationMs / 1000),
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    cpuUs: (cpu.user + cpu.system) / requests,
    connections,
    rssAtRest,
    rss: atEnd,
  }
}

console.log(JSON.stringify(await runPlan(JSON.parse(process.argv[2] ?? '{}') as TransportPlan)))
