/** Puts the parts of a keeper together: the API server's client, the looks, and the answers to the kubelet and to Prometheus. */
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import { createInClusterApi } from '../../shared/in-cluster-api.ts'
import type { Logger } from '../../shared/log.ts'
import type { KeepConfig } from './config.ts'
import { KeepError } from './errors.ts'
import { keep } from './keeper.ts'
import { createKeepMetrics, METRICS_TYPE } from './metrics.ts'
import type { KeepMetrics } from './metrics.ts'
import { clusterObjects } from './objects.ts'

/** A look that takes longer than this beyond the time between two does not end by itself, in milliseconds. */
const STUCK_MS = 300_000
/** How long a request may take to arrive, in milliseconds. */
const REQUEST_LIMIT_MS = 5_000
const MAX_CONNECTIONS = 32

/** A running keeper. */
export interface Keeper {
  readonly port: number
  /** Ends it; a write under way is cut, and was done or was not. */
  readonly close: () => Promise<void>
}

/** Starts a keeper. Rejects where the address cannot be had. */
export async function startKeeper(
  config: KeepConfig,
  { log, now }: { readonly log: Logger; readonly now: () => number },
): Promise<Keeper> {
  const metrics = createKeepMetrics()
  const server = createServer({ requestTimeout: REQUEST_LIMIT_MS }, (request, response) => {
    const { status, type, text } = answer(request.url ?? '', metrics, now() - limitOf(config))
    response.writeHead(status, { 'content-type': type }).end(text)
  })
  server.maxConnections = MAX_CONNECTIONS
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(config.listen.port, config.listen.host, resolve)
  })
  const port = portOf(server)
  const ending = new AbortController()
  const { signal } = ending
  const api = createInClusterApi(config.kubernetes, { signal })
  const kept = keep({ config, objects: clusterObjects(api, config), metrics, log, now, signal })
  log.info({ port }, 'listening')
  return {
    port,
    async close() {
      ending.abort()
      await kept
      await api.close()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function limitOf({ checkSeconds }: KeepConfig): number {
  return checkSeconds * 1000 + STUCK_MS
}

/** @param oldest - since when there must have been a look, in milliseconds since the epoch */
function answer(
  url: string,
  metrics: KeepMetrics,
  oldest: number,
): { readonly status: number; readonly type: string; readonly text: string } {
  const plain = (good: boolean, not: string): ReturnType<typeof answer> => ({
    status: good ? 200 : 503,
    type: 'text/plain',
    text: good ? 'ok' : not,
  })
  switch (url) {
    case '/healthz':
      return plain((metrics.lastLook() ?? oldest) >= oldest, 'no look at the cluster for too long')
    case '/readyz':
      return plain(metrics.good(), 'certificates are not as they should be; the log has the reason')
    case '/metrics':
      return { status: 200, type: METRICS_TYPE, text: metrics.text() }
    default:
      return { status: 404, type: 'text/plain', text: 'not found' }
  }
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string')
    throw new KeepError('internal', 'the server listens on no port')
  return address.port
}
