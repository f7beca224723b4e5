/**
 * THE WAY OF ONE REQUEST through the sidecar, top to bottom, in the order in which it happens:
 *
 *   screen → caller → body → tag → forward → hold → answer
 *
 * Each step returns a value or a refusal; the first refusal ends the way. An upgrade goes the same way without a body.
 * Trust boundary: everything a client sends is untrusted; what identifies it is read from the kernel and signed here.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { messageOf } from '../shared/errors.ts'
import { parseTarget } from '../shared/kubernetes/path.ts'
import { isRead, readRequestInfo } from '../shared/kubernetes/request-info.ts'
import { isRefusal, refuse } from '../shared/reasons.ts'
import type { Reason, Refusal } from '../shared/reasons.ts'
import { statusAnswer } from '../shared/status.ts'
import { endSocket, responseHead, takeSocket, upgradeProtocol } from '../shared/upgrade.ts'
import type { Bodies, Body } from './body.ts'
import type { BrokerConnections } from './broker-connections.ts'
import { deliver, identifyCaller } from './deliver.ts'
import type { DeliverDeps, Delivered } from './deliver.ts'
import type { Forwarder } from './forward.ts'
import { answerHeaders, requestHeaders } from './headers.ts'
import type { Credentials } from './headers.ts'
import type { Outcome, Word } from './outcome.ts'
import type { Guard } from './guard.ts'
import type { Ended, Metrics } from './metrics.ts'
import { OWN_PREFIX, READY_PATH, WHOAMI_PATH } from './own-paths.ts'
import type { Running } from './running.ts'
import { watchCaller } from './watch-caller.ts'
import { screen, screenUpgrade } from './screen.ts'
import { sendUpgrade, watchClient } from './upgrade.ts'
import type { UpgradeClient } from './upgrade.ts'

/** Methods that change nothing (RFC 9110, section 9.2.1). */
const REPEATABLE: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/** When a client may try again, in seconds: after too many lookups, and when its request waits for a person. */
const RETRY_AFTER_S: Partial<Record<Reason, string>> = {
  attribution_busy: '1',
  approval_pending: '30',
}

/** What serving needs. */
export interface RequestDeps extends DeliverDeps {
  readonly bodies: Bodies
  readonly running: Running
  readonly guard: Pick<Guard, 'gate' | 'gauges'>
  readonly metrics: Metrics
  readonly forwarder: Forwarder
  /** Connections to the broker for upgrades. */
  readonly upgrades: Pick<BrokerConnections, 'upgrade'>
  /** Host header of the broker. */
  readonly brokerHost: string
  /** What stands before each path: `/clusters/NAME`. */
  readonly prefix: string
}

/** Serves one ordinary request. Never rejects; whatever goes wrong ends in an answer or a closed connection. */
export async function serveRequest(
  deps: RequestDeps,
  request: IncomingMessage,
  response: ServerResponse,
  connection: Socket,
): Promise<void> {
  try {
    const ended = await requestWay(deps, request, response, connection)
    if (ended !== undefined) deps.metrics.request(ended)
  } catch (error) {
    if (!response.destroyed)
      deps.log.error({ error: messageOf(error) }, 'a request ended in a fault')
    if (response.headersSent) response.destroy()
    else answerRefusal(response, refuse('internal'))
    deps.metrics.request('internal')
  }
}

/** How it ended; undefined for a request to the sidecar itself. */
async function requestWay(
  deps: RequestDeps,
  request: IncomingMessage,
  response: ServerResponse,
  connection: Socket,
): Promise<Ended | undefined> {
  const { url = '' } = request
  const screened = screen(request)
  if (screened === undefined && url.startsWith(OWN_PREFIX)) {
    await answerOwn(deps, url, response, connection)
    return undefined
  }
  const refusal = screened ?? deps.guard.gate()
  if (refusal !== undefined) return answerRefusal(response, refusal)
  const end = deps.running.begin(connection)
  if (isRefusal(end)) return answerRefusal(response, end)
  try {
    return await callerWay(deps, request, response, connection)
  } finally {
    end()
  }
}

/** The way of a request that may be served, from the caller on. */
async function callerWay(
  deps: RequestDeps,
  request: IncomingMessage,
  response: ServerResponse,
  connection: Socket,
): Promise<Ended> {
  const { method = '', url = '' } = request
  // Looked up before the body is read: a client that is quick to leave is still there now.
  const first = await identifyCaller(deps, connection)
  if (isRefusal(first)) return answerRefusal(response, first)
  const body = await collect(deps, request, response)
  if (body === undefined) return 'left'
  if (isRefusal(body)) return answerRefusal(response, body)
  // And after it: a body that came later than its head may come from other hands.
  const caller = body.bytes.length === 0 ? first : await identifyCaller(deps, connection)
  if (isRefusal(caller)) {
    body.release()
    return answerRefusal(response, caller)
  }
  const gone = leavingOf(response)
  const send = (credentials: Credentials): Promise<Outcome> =>
    deps.forwarder.send(request, response, {
      method,
      target: deps.prefix + url,
      headers: requestHeaders(request.headers, deps.brokerHost, credentials),
      body: body.bytes,
    })
  const repeatable = isRepeatable(method, url)
  try {
    const end = await deliver(deps, { socket: connection, caller, repeatable, left: gone, send })
    return answerEnd(response, end)
  } finally {
    body.release()
  }
}

/** Serves one request to switch protocols. Never rejects. */
export async function serveUpgrade(
  deps: RequestDeps,
  request: IncomingMessage,
  rawSocket: Duplex,
  head: Buffer,
  connection: Socket,
): Promise<void> {
  const socket = takeSocket(request, rawSocket, head)
  const client = watchClient(socket)
  try {
    deps.metrics.request(await upgradeWay(deps, request, socket, client, connection))
  } catch (error) {
    deps.log.error({ error: messageOf(error) }, 'an upgrade ended in a fault')
    socket.destroy()
  }
}

/** How it ended: for one that was switched, when the session is over. */
async function upgradeWay(
  deps: RequestDeps,
  request: IncomingMessage,
  socket: Duplex,
  client: UpgradeClient,
  connection: Socket,
): Promise<Ended> {
  const { method = '', url = '', headers } = request
  const protocol = upgradeProtocol(headers)
  const refusal = screen(request) ?? screenUpgrade(request) ?? deps.guard.gate()
  if (refusal !== undefined || protocol === undefined)
    return writeRefusal(socket, refusal ?? refuse('upgrade_unsupported'))
  const end = deps.running.begin(connection)
  if (isRefusal(end)) return writeRefusal(socket, end)
  try {
    const caller = await identifyCaller(deps, connection)
    if (isRefusal(caller)) return writeRefusal(socket, caller)
    const send = (credentials: Credentials): Promise<Outcome> =>
      sendUpgrade(deps.upgrades, client, {
        method,
        target: deps.prefix + url,
        headers: requestHeaders(headers, deps.brokerHost, credentials),
        protocol,
      })
    const { left } = client
    const delivery = { socket: connection, caller, repeatable: false, left, send }
    const unwatch = watchCaller(deps, connection, caller, () => socket.destroy())
    try {
      return writeEnd(socket, await deliver(deps, delivery))
    } finally {
      unwatch()
    }
  } finally {
    end()
  }
}

/** Whether a request may be sent twice: a read, also by its path; what `/proxy` leads to may do anything on a GET. */
function isRepeatable(method: string, url: string): boolean {
  if (!REPEATABLE.has(method)) return false
  const target = parseTarget(url)
  if (isRefusal(target)) return false
  const info = readRequestInfo(method, target)
  return !isRefusal(info) && isRead(info)
}

/** The body, or undefined when the client left in the middle of it. */
async function collect(
  { bodies }: RequestDeps,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Body | Refusal | undefined> {
  try {
    return await bodies.collect(request)
  } catch {
    response.destroy()
    return undefined
  }
}

function leavingOf(response: ServerResponse): AbortSignal {
  const gone = new AbortController()
  if (response.destroyed) gone.abort()
  response.once('close', () => {
    if (!response.writableFinished) gone.abort()
  })
  return gone.signal
}

async function answerOwn(
  deps: RequestDeps,
  url: string,
  response: ServerResponse,
  connection: Socket,
): Promise<void> {
  if (url === WHOAMI_PATH) {
    const caller = await identifyCaller(deps, connection)
    if (isRefusal(caller)) answerRefusal(response, caller)
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(caller))
    return
  }
  const gate = deps.guard.gate()
  if (url !== READY_PATH) answerRefusal(response, refuse('path_unknown'))
  else if (gate !== undefined) answerRefusal(response, gate)
  else if (deps.registration.isReady()) response.writeHead(200).end('ready\n')
  else answerRefusal(response, refuse('broker_unavailable', 'not registered yet'))
}

function answerEnd(response: ServerResponse, end: Delivered): Ended {
  if (isRefusal(end)) return answerRefusal(response, end)
  if (end.kind === 'word') answerWord(response, end)
  return end.kind === 'left' ? 'left' : 'answered'
}

function answerRefusal(response: ServerResponse, refusal: Refusal): Ended {
  if (response.destroyed) return 'left'
  const { status, contentType, body } = statusAnswer(refusal)
  response
    .writeHead(status, {
      'content-type': contentType,
      'content-length': Buffer.byteLength(body),
      'cache-control': 'no-store',
      ...refusalHeaders(refusal),
    })
    .end(body)
  return refusal.refused
}

/** A connection that changed hands must not be used again; a busy sidecar says when to come back (RFC 9110, 10.2.3). */
function refusalHeaders({ refused }: Refusal): Record<string, string> {
  if (refused === 'connection_identity_changed') return { connection: 'close' }
  const retryAfter = RETRY_AFTER_S[refused]
  return retryAfter === undefined ? {} : { 'retry-after': retryAfter }
}

/** The broker's answer that turned out to be for the client. */
function answerWord(response: ServerResponse, { status, headers, body }: Word): void {
  if (response.destroyed) return
  response.writeHead(status, { ...answerHeaders(headers), 'content-length': body.length }).end(body)
}

function writeEnd(socket: Duplex, end: Delivered): Ended {
  if (isRefusal(end)) return writeRefusal(socket, end)
  if (end.kind === 'word') writeClosing(socket, end.status, contentTypeOf(end), end.body)
  else if (end.kind === 'left') socket.destroy()
  return end.kind === 'left' ? 'left' : 'answered'
}

function writeRefusal(socket: Duplex, refusal: Refusal): Ended {
  const { status, contentType, body } = statusAnswer(refusal)
  writeClosing(socket, status, contentType, Buffer.from(body), refusalHeaders(refusal))
  return refusal.refused
}

function contentTypeOf({ headers }: Word): string {
  return headers['content-type'] ?? 'application/json'
}

function writeClosing(
  socket: Duplex,
  status: number,
  type: string,
  body: Buffer,
  extra: Record<string, string> = {},
): void {
  if (socket.destroyed) return
  const headers = {
    ...extra,
    'content-type': type,
    'content-length': String(body.length),
    connection: 'close',
  }
  socket.write(responseHead(status, 'Refused', headers), 'latin1')
  endSocket(socket, body)
}
