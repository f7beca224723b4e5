/**
 * What the kubelet and Prometheus may ask, on the pod's own address: alive, ready, and figures. Nobody is authenticated
 * here, so nothing is told that is not meant for all, and nothing but GET is understood.
 */
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { METRICS_TYPE } from '../shared/prometheus.ts'

/** Largest request head, in bytes. */
const MAX_HEAD_BYTES = 4096
/** Most connections at one time. */
const MAX_CONNECTIONS = 32
/** Time for a request, in milliseconds. */
const REQUEST_LIMIT_MS = 5000

/** What is told. */
export interface HealthDeps {
  /** Why no request can be served now, in words; undefined when they can. */
  readonly problem: () => string | undefined
  readonly metrics: () => string
}

/** A listening health server. */
export interface Health {
  readonly address: AddressInfo
  close(): Promise<void>
}

/**
 * Listens for `/healthz`, `/readyz` and `/metrics`.
 *
 * @throws the system's error when the address is taken
 */
export function listenForHealth(deps: HealthDeps, host: string, port: number): Promise<Health> {
  const server = createServer(
    {
      maxHeaderSize: MAX_HEAD_BYTES,
      requestTimeout: REQUEST_LIMIT_MS,
      headersTimeout: REQUEST_LIMIT_MS,
    },
    (request, response) => {
      answer(deps, request, response)
    },
  )
  server.maxConnections = MAX_CONNECTIONS
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address()
      if (typeof address !== 'object' || address === null) return
      resolve({
        address,
        close: () =>
          new Promise((done) => {
            server.close(() => {
              done()
            })
            server.closeAllConnections()
          }),
      })
    })
  })
}

function answer(deps: HealthDeps, request: IncomingMessage, response: ServerResponse): void {
  const { method, url } = request
  if (method !== 'GET' && method !== 'HEAD') {
    send(response, 405, 'only GET is understood\n')
    return
  }
  switch (url) {
    case '/healthz':
      send(response, 200, 'ok\n')
      return
    case '/readyz': {
      const problem = deps.problem()
      if (problem === undefined) send(response, 200, 'ok\n')
      else send(response, 503, `${problem}\n`)
      return
    }
    case '/metrics':
      send(response, 200, deps.metrics(), METRICS_TYPE)
      return
    default:
      send(response, 404, 'no such page\n')
  }
}

function send(
  response: ServerResponse,
  status: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  const headers = { 'content-type': type, 'content-length': Buffer.byteLength(body) }
  response.writeHead(status, headers).end(body)
}
