/**
 * The HTTPS edge: the only file that knows express. `POST /mutate` and `/observe` hand the body to the review and writes its
 * answer; a refusal or fault becomes a `Status` with its 4xx or 5xx, and the API server, told to fail closed,
 * creates no pod. Bodies are bounded before they are read.
 */
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import express from 'express'
import type { ErrorRequestHandler, Express, Request, Response } from 'express'
import { isRecord } from '../shared/config.ts'
import { Fault, messageOf } from '../shared/errors.ts'
import type { KeyPair } from '../shared/key-pair.ts'
import type { Logger } from '../shared/log.ts'
import { isRefusal, refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import { METRICS_TYPE } from '../shared/prometheus.ts'
import { statusAnswer } from '../shared/status.ts'
import { reviewPod } from '../shared/injection/review.ts'
import type { Purpose, Reviewed } from '../shared/injection/review.ts'
import type { InjectionSettings, WantedLevel } from '../shared/injection/sidecar-spec.ts'
import type { EventSink } from './events.ts'
import { limitLargeBodies } from './large-bodies.ts'
import type { WebhookMetrics } from './metrics.ts'
import { VALIDATE_PATHS, validate } from './validate.ts'
import type { Exempt } from './validate.ts'

/** Largest AdmissionReview, in bytes: a pod of the API server's 3 MiB, with the rest of the request and escapes. */
export const MAX_REVIEW_BYTES = 8 * 1024 * 1024
/** How long one request may take to arrive, in milliseconds; the API server itself waits 30 s at most. */
const REQUEST_LIMIT_MS = 30_000
/** How long the handshake may take, and then headers, in milliseconds. */
const HEADERS_LIMIT_MS = 5_000
/** How often both limits are looked at, in milliseconds; Node's own half a minute would be the limit. */
const LIMITS_CHECK_MS = 1_000
/** How long an idle connection is kept, in milliseconds; longer than the 90 s after which the API server drops it. */
const KEEP_ALIVE_MS = 120_000
/** Most connections at once; an API server opens a few, each may hold one review in memory. */
export const MAX_CONNECTIONS = 256
/** How long a request under way may hold up the end, in milliseconds; then its connection is cut. */
const CLOSE_LIMIT_MS = 10_000
/** How often idle connections are closed while the server ends, in milliseconds. */
const CLOSE_CHECK_MS = 50
/** Oldest TLS version that is spoken. */
const MIN_TLS = 'TLSv1.2'

/** What the namespace wants, by the end of the path: the webhook configuration sends each labelled namespace to its own. */
const LEVELS: readonly (readonly [string, WantedLevel])[] = [
  ['', 'any'],
  ['/process', 'process'],
  ['/container', 'container'],
]
/** What is done with a pod, by the beginning of the path. */
const PURPOSES: readonly (readonly [string, Purpose])[] = [
  ['/mutate', 'enforce'],
  ['/observe', 'observe'],
]

/** What the server works with. */
export interface ServerDeps {
  readonly log: Logger
  /** The settings of a review now, or undefined while the webhook is not ready. */
  readonly settings: () => InjectionSettings | undefined
  readonly keyPair: KeyPair
  /** Whom the final state exempts. */
  readonly exempt: Exempt
  readonly metrics: WebhookMetrics
  /** What only the process knows of its figures. */
  readonly state: () => Parameters<WebhookMetrics['text']>[0]
  /** Tells the owners of pods, where that is wanted. */
  readonly events?: EventSink
  /** Milliseconds on a monotonic clock. */
  readonly clock: () => number
}

/** A running server. */
export interface WebhookServer {
  /** The port it listens on. */
  readonly port: number
  /** Serves new connections with another certificate; open ones keep theirs. */
  readonly useKeyPair: (keyPair: KeyPair) => void
  /** Stops listening and settles when the reviews under way are answered, after ten seconds at most. */
  readonly close: () => Promise<void>
}

/** Starts the server. Rejects where the address cannot be had. */
export async function startServer(
  deps: ServerDeps,
  listen: { readonly host: string; readonly port: number },
): Promise<WebhookServer> {
  const { keyPair } = deps
  const server = createServer(
    {
      ...{ ...keyPair, minVersion: MIN_TLS },
      handshakeTimeout: HEADERS_LIMIT_MS,
      connectionsCheckingInterval: LIMITS_CHECK_MS,
    },
    createApp(deps),
  )
  server.requestTimeout = REQUEST_LIMIT_MS
  server.headersTimeout = HEADERS_LIMIT_MS
  server.keepAliveTimeout = KEEP_ALIVE_MS
  server.maxConnections = MAX_CONNECTIONS
  // Whoever reaches the port could hold all connections; an API server whose idle one goes opens another.
  server.on('drop', () => {
    server.closeIdleConnections()
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(listen.port, listen.host, resolve)
  })
  server.on('error', (error) => {
    deps.log.error({ error: messageOf(error) }, 'the server failed')
  })
  return {
    port: portOf(server),
    useKeyPair: (pair) => {
      server.setSecureContext({ ...pair, minVersion: MIN_TLS })
    },
    close: () => closeServer(server),
  }
}

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string')
    throw new Fault('config_invalid', 'the server listens on no port')
  return address.port
}

function closeServer(server: Server): Promise<void> {
  // A connection that was busy at first turns idle when its answer is out, and would be kept open from then on.
  const idle = setInterval(() => {
    server.closeIdleConnections()
  }, CLOSE_CHECK_MS)
  const limit = setTimeout(() => {
    server.closeAllConnections()
  }, CLOSE_LIMIT_MS)
  return new Promise((resolve, reject) => {
    server.close((error) => {
      clearInterval(idle)
      clearTimeout(limit)
      if (error === undefined) resolve()
      else reject(error)
    })
  })
}

function createApp(deps: ServerDeps): Express {
  const app = express()
  app.disable('x-powered-by')
  app.disable('etag')
  app.get('/healthz', (_request, response) => {
    response.type('text/plain').send('ok')
  })
  app.get('/readyz', (_request, response) => {
    if (deps.settings() === undefined) sendRefusal(response, notReady())
    else response.type('text/plain').send('ok')
  })
  app.get('/metrics', (_request, response) => {
    response.type(METRICS_TYPE).send(deps.metrics.text(deps.state()))
  })
  // Parsed by us, so that every body but a good one gets the same kind of answer.
  const few = limitLargeBodies()
  const body = express.raw({ type: 'application/json', limit: MAX_REVIEW_BYTES, inflate: false })
  for (const [start, purpose] of PURPOSES)
    for (const [end, level] of LEVELS)
      app.post(`${start}${end}`, few, body, (request, response) => {
        answerReview(deps, request, response, (bytes, settings) =>
          reviewPod(bytes, settings, level, purpose),
        )
      })
  for (const [path, level] of VALIDATE_PATHS)
    app.post(path, few, body, (request, response) => {
      answerReview(deps, request, response, (bytes, settings) =>
        validate(bytes, settings, deps.exempt, level),
      )
    })
  app.use((_request, response) => {
    const paths = '/mutate, /observe and /validate'
    sendRefusal(response, refuse('path_unknown', `the webhook answers POST ${paths}`))
  })
  app.use(onError(deps))
  return app
}

/** One review: its answer and its figures; a refusal is the API server's no, as the configuration fails closed. */
function answerReview(
  deps: ServerDeps,
  request: Request,
  response: Response,
  review: (body: Uint8Array, settings: InjectionSettings) => Reviewed | Refusal,
): void {
  const start = deps.clock()
  const settings = deps.settings()
  const body: unknown = request.body
  let result
  if (settings === undefined) result = notReady()
  else if (!(body instanceof Uint8Array))
    result = refuse('review_invalid', 'no body of type application/json')
  else result = review(body, settings)
  if (isRefusal(result)) {
    deps.log.warn({ reason: result.refused, detail: result.detail }, 'refused a request')
    deps.metrics.failed(result.refused)
    sendRefusal(response, result)
    return
  }
  const { body: answer, outcome, reason, uid, namespace, pod } = result
  response.type('application/json').send(answer)
  const ms = Math.round((deps.clock() - start) * 1000) / 1000
  deps.metrics.reviewed(result, ms / 1000)
  deps.log.info({ outcome, reason, uid, namespace, pod, ms }, 'reviewed a pod')
  deps.events?.tell(result)
}

function notReady(): Refusal {
  return refuse('webhook_not_ready')
}

function sendRefusal(response: Response, refusal: Refusal): void {
  const { status, contentType, body } = statusAnswer(refusal)
  response.status(status).type(contentType).send(body)
}

/** Errors of the body reader carry a 4xx; everything else is a fault, and its message stays in the log. */
function onError({ log, metrics }: ServerDeps): ErrorRequestHandler {
  return (error: unknown, _request, response, next) => {
    const status = isRecord(error) ? error['status'] : undefined
    let refusal = refuse('internal')
    if (status === 413) {
      refusal = refuse('review_too_large', `more than ${MAX_REVIEW_BYTES} bytes`)
      // The rest of the body is not waited for.
      response.set('connection', 'close')
    } else if (typeof status === 'number' && status >= 400 && status < 500) {
      refusal = refuse('review_invalid', 'the body could not be read')
    }
    metrics.failed(refusal.refused)
    log.warn({ reason: refusal.refused, error: messageOf(error) }, 'a request failed')
    if (response.headersSent) next(error)
    else sendRefusal(response, refusal)
  }
}
