/**
 * Connections to the broker over `node:https`: kept alive and shared by forwarding and the sidecar's own calls, new for
 * each upgrade (one that was idle may be half closed, and an upgrade is not repeated). HTTP/1.1, which upgrades need.
 * The broker's certificate must be signed by the pinned authority. A request on a connection that could not be made is
 * told apart from one that broke later, because after the first nothing can have been forwarded.
 */
import type { ClientRequest } from 'node:http'
import { Agent, request as httpsRequest } from 'node:https'
import type { RequestOptions } from 'node:https'
import { createSecureContext } from 'node:tls'
import { Fault, messageOf } from '../shared/errors.ts'
import type { Answered, UpgradeRequest, Upgraded } from '../shared/upgrade.ts'

/** How long a connection may take to be made, TLS included, in milliseconds. */
export const CONNECT_LIMIT_MS = 10_000
/** Idle time after which the kernel probes a connection in use, in milliseconds: a watch would not notice a dead broker otherwise. */
const PROBE_AFTER_MS = 30_000
/** Idle connections kept to the broker. */
const MAX_IDLE_CONNECTIONS = 64
const HTTPS_PORT = 443

/** A whole exchange. */
export interface BrokerCall {
  readonly method: string
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  /** How long the answer may take, whole, in milliseconds. */
  readonly limitMs: number
  /** Largest answer, in bytes. */
  readonly maxBytes: number
  readonly signal?: AbortSignal
}

/** See the head of the file. What fails before a request is sent fails with the Fault `broker_unreachable`. */
export interface BrokerConnections {
  /** For forwarding; requests made with it go through {@link superviseConnection}. */
  readonly agent: Agent
  /** Asks and reads the whole answer; throws the transport's error, or `broker_protocol` for one that is too large. */
  ask(call: BrokerCall): Promise<{ readonly status: number; readonly text: string }>
  /** Asks for other protocols; throws the transport's error when no answer came. */
  upgrade(request: UpgradeRequest): Promise<Upgraded | Answered>
  close(): void
}

/** Connections to the broker at `origin`. */
export function createBrokerConnections(options: {
  readonly origin: string
  readonly ca: string
}): BrokerConnections {
  const { origin, ca } = options
  // One for all connections: each would read the certificates again and keep them for itself.
  const secureContext = createSecureContext({ ca })
  const agent = new Agent({ secureContext, keepAlive: true, maxFreeSockets: MAX_IDLE_CONNECTIONS })
  const upgradeAgent = new Agent({ secureContext, keepAlive: false })
  return {
    agent,
    ask: (call) => ask(origin, agent, call),
    upgrade: (request) => upgrade(origin, upgradeAgent, request),
    close(): void {
      agent.destroy()
      upgradeAgent.destroy()
    },
  }
}

/** Gives a new connection a time to be made in, and tells when the request begins to be sent. */
export function superviseConnection(request: ClientRequest, onSent: () => void): void {
  const { socket } = request
  socket?.setKeepAlive(true, PROBE_AFTER_MS)
  if (request.reusedSocket || socket === null) {
    onSent()
    return
  }
  const timer = setTimeout(() => {
    request.destroy(new Fault('broker_unreachable', 'connecting took too long'))
  }, CONNECT_LIMIT_MS)
  socket.once('secureConnect', () => {
    onSent()
    clearTimeout(timer)
  })
  socket.once('close', () => {
    clearTimeout(timer)
  })
}

/** A request whose errors before it is sent are `broker_unreachable`. Its path goes out byte for byte. */
function open(
  origin: string,
  options: Pick<RequestOptions, 'agent' | 'method' | 'path' | 'headers'>,
  fail: (error: Error) => void,
): ClientRequest {
  const { hostname, port } = new URL(origin)
  const host = hostname.replace(/^\[|\]$/g, '')
  const request = httpsRequest({ ...options, host, port: port === '' ? HTTPS_PORT : port })
  let sent = false
  request.once('socket', () => {
    superviseConnection(request, () => (sent = true))
  })
  request.on('error', (cause) => {
    const away = !sent && !(cause instanceof Fault)
    fail(away ? new Fault('broker_unreachable', messageOf(cause), { cause }) : cause)
  })
  return request
}

/** Ends a request with its client. */
function endWith(request: ClientRequest, signal: AbortSignal | undefined): void {
  const abort = (): void => {
    request.destroy(new Fault('upgrade_failed', 'the client left'))
  }
  if (signal?.aborted === true) abort()
  signal?.addEventListener('abort', abort, { once: true })
  request.once('close', () => {
    signal?.removeEventListener('abort', abort)
  })
}

function ask(
  origin: string,
  agent: Agent,
  call: BrokerCall,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const { method, path, headers, body, limitMs, maxBytes, signal } = call
    const request = open(origin, { agent, method, path, headers }, reject)
    endWith(request, signal)
    const timer = setTimeout(() => {
      request.destroy(new Fault('broker_protocol', 'the answer took too long'))
    }, limitMs)
    request.once('close', () => {
      clearTimeout(timer)
    })
    request.once('response', (answer) => {
      const chunks: Buffer[] = []
      let size = 0
      answer.on('data', (chunk: Buffer) => {
        size += chunk.length
        chunks.push(chunk)
        if (size > maxBytes) answer.destroy(new Fault('broker_protocol', 'the answer is too large'))
      })
      answer.once('error', reject)
      answer.once('end', () => {
        resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') })
      })
    })
    request.end(body)
  })
}

function upgrade(
  origin: string,
  agent: Agent,
  { method, path, headers, protocol, signal }: UpgradeRequest,
): Promise<Upgraded | Answered> {
  return new Promise((resolve, reject) => {
    const asked = { ...headers, connection: 'Upgrade', upgrade: protocol }
    const request = open(origin, { agent, method, path, headers: asked }, reject)
    endWith(request, signal)
    request.once('upgrade', (answer, socket, head) => {
      if (answer.statusCode !== 101) {
        socket.destroy()
        reject(new Fault('upgrade_failed', 'the server switched protocols without a 101'))
        return
      }
      if (head.length > 0) socket.unshift(head)
      resolve({ kind: 'upgraded', headers: answer.headers, socket })
    })
    request.once('response', (answer) => {
      if (answer.statusCode === 101)
        request.destroy(new Fault('upgrade_failed', 'the server switched to no protocol'))
      else {
        const status = answer.statusCode ?? 0
        resolve({ kind: 'answered', status, headers: answer.headers, body: answer })
      }
    })
    request.end()
  })
}
