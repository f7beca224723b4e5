/**
 * The load generator, a process of its own so that it shares no event loop with what it measures:
 * `node bench/load.ts JSON`. Keeps a fixed number of connections busy, one request at a time each, for a fixed
 * time, and prints a LoadResult as JSON. Bounded in time and in requests.
 */
import { Client } from 'undici'

/** What to send, where, how hard. */
export interface LoadPlan {
  readonly origin: string
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  /** PEM, for https origins. */
  readonly tls?: { readonly ca: string; readonly cert?: string; readonly key?: string }
  readonly connections: number
  /** Whether each request opens a connection of its own. */
  readonly newConnections?: boolean
  readonly warmupMs: number
  readonly durationMs: number
}

/** What came back. */
export interface LoadResult {
  /** Requests answered with 200 in the measured time. */
  readonly requests: number
  /** Anything else: other statuses, broken connections. */
  readonly failures: number
  /** The first failure, to say what went wrong. */
  readonly firstFailure?: string
  readonly requestsPerSecond: number
  /** Milliseconds, from sending to the last byte. */
  readonly p50: number
  readonly p99: number
  /** Size of one answer's body, in bytes. */
  readonly bodyBytes: number
}

/** The most requests that one run keeps the latency of. */
const MAX_REQUESTS = 2_000_000
const ANSWER_LIMIT_MS = 20_000

/** Nearest-rank percentile of sorted values. */
export function percentile(sorted: Float64Array, share: number): number {
  const index = Math.min(sorted.length - 1, Math.max(0, Math.ceil(sorted.length * share) - 1))
  return sorted[index] ?? Number.NaN
}

/** Runs a plan. */
export async function load(plan: LoadPlan): Promise<LoadResult> {
  const latencies = new Float64Array(MAX_REQUESTS)
  const start = performance.now() + plan.warmupMs
  const end = start + plan.durationMs
  let requests = 0
  let failures = 0
  let firstFailure: string | undefined
  let bodyBytes = 0

  const fail = (what: string): void => {
    failures += 1
    firstFailure ??= what
  }
  const one = async (client: Client): Promise<void> => {
    const sent = performance.now()
    const { path, headers = {}, newConnections: reset = false } = plan
    const { statusCode, body } = await client.request({ method: 'GET', path, headers, reset })
    let bytes = 0
    for await (const chunk of body) bytes += (chunk as Buffer).length
    const done = performance.now()
    if (sent < start || done > end || requests === MAX_REQUESTS) return
    if (statusCode !== 200) {
      fail(`status ${statusCode}`)
      return
    }
    latencies[requests] = done - sent
    requests += 1
    bodyBytes = bytes
  }
  const worker = async (): Promise<void> => {
    const client = new Client(plan.origin, {
      pipelining: 1,
      headersTimeout: ANSWER_LIMIT_MS,
      bodyTimeout: ANSWER_LIMIT_MS,
      ...(plan.tls === undefined ? {} : { connect: plan.tls }),
    })
    while (performance.now() < end && failures < 1000) {
      await one(client).catch((error: unknown) => {
        fail(String(error))
      })
    }
    await client.destroy()
  }
  await Promise.all(Array.from({ length: plan.connections }, worker))

  const sorted = latencies.subarray(0, requests).sort()
  return {
    requests,
    failures,
    ...(firstFailure === undefined ? {} : { firstFailure }),
    requestsPerSecond: requests / (plan.durationMs / 1000),
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    bodyBytes,
  }
}

if (import.meta.main) {
  console.log(JSON.stringify(await load(JSON.parse(process.argv[2] ?? '{}') as LoadPlan)))
}
