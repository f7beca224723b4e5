/**
 * The sockets on which the sidecar is called: both loopback addresses, because `localhost` means either, and an
 * address left free could be taken by another process of the pod. A taken address is an error, never skipped. In-cluster
 * clients get HTTPS on one more port. Whatever is on top, the caller is looked up by the TCP socket below. Clients
 * are untrusted, so their number, header sizes and time to send are bounded; how long an answer may take is not.
 */
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import type { AddressInfo, Server as TcpServer, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureContext, TLSSocket } from 'node:tls'
import type { SecureContext } from 'node:tls'
import { codeOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { refuse } from '../shared/reasons.ts'
import { statusAnswer } from '../shared/status.ts'
import { endSocket, responseHead, upgradeProtocol } from '../shared/upgrade.ts'
import type { Callers } from './caller/caller.ts'
import { createConnections } from './connections.ts'
import type { OpenConnections } from './connections.ts'

/** Largest request head, in bytes. The broker reads 64 KiB; token and tag are added here, at most 24 KiB. */
const MAX_HEAD_BYTES = 32 * 1024
const MAX_HEADERS = 100
/** Times that clients get, in milliseconds. */
export interface ClientTimes {
  /** For a TLS handshake, and for a request head. */
  readonly head: number
  /** For a whole request with its body. Does not bound the answer: watches run for hours. */
  readonly request: number
  /** Between two requests of a connection. */
  readonly idle: number
  /** How often heads and requests are looked at, which is how much later they may be ended. */
  readonly checkEvery: number
}

/** Go's clients keep idle connections for 90 s and retry. */
const CLIENT_TIMES: ClientTimes = {
  head: 30_000,
  request: 120_000,
  idle: 90_000,
  checkEvery: 5000,
}
/** How long answers under way may take to end once the sidecar is told to stop, in milliseconds. */
const DRAIN_LIMIT_MS = 10_000
/** How many clients for whom there is no room are told so at one time, and how long one may take to read it, in milliseconds. */
const MAX_TOLD_BUSY = 64
const TELL_BUSY_MS = 1000
/** When they may try again, in seconds. */
const RETRY_AFTER_S = '1'
/** How often a client that ended its side of the connection is looked for, in milliseconds. */
const HALF_CLOSED_CHECK_MS = 1000

/** Addresses that a machine without IPv6 cannot bind; nobody else on it can, either. */
const NO_SUCH_ADDRESS: ReadonlySet<string | undefined> = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT'])

/** A client that ended its side may still wait for its answer. */
const TCP_OPTIONS = { allowHalfOpen: true, noDelay: true }

/** What is listened for. */
export interface ListenerDeps {
  readonly callers: Callers
  readonly log: Log
  /** Others than the usual ones, for tests. */
  readonly times?: ClientTimes
  /** `connection` is the accepted TCP socket, which the callers know; a request's own socket may be one of TLS over it. */
  readonly onRequest: (
    request: IncomingMessage,
    response: ServerResponse,
    connection: Socket,
  ) => void
  readonly onUpgrade: (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    connection: Socket,
  ) => void
}

/** A listener with HTTPS. */
export interface TlsListener {
  readonly host: string
  readonly port: number
  /** PEM text. */
  readonly key: string
  readonly cert: string
}

/** Open listeners. */
export interface Listeners {
  readonly addresses: readonly AddressInfo[]
  /** How many connections are open. */
  connections(): number
  /** Stops listening, waits for answers under way up to a limit, then ends what is left. */
  close(): Promise<void>
}

/**
 * Listens on all of `hosts`.
 *
 * @param port - 0 takes a free port, which then is the same on all hosts
 * @throws the system's error when an address is taken
 */
export async function listen(
  deps: ListenerDeps,
  hosts: readonly string[],
  port: number,
  tls?: TlsListener,
): Promise<Listeners> {
  const servers: TcpServer[] = []
  const open = createConnections()
  const addresses: AddressInfo[] = []
  const { http, serve } = createHttpServer(deps, open)
  const tellBusy = createBusyAnswer()
  const plain = (socket: Socket): void => {
    if (accept(deps, open, socket, tellBusy)) serve(socket, socket)
  }
  let chosen = port
  try {
    for (const host of hosts) {
      const server = createTcpServer(TCP_OPTIONS, plain)
      const address = await bind(server, host, chosen, deps.log)
      if (address === undefined) continue
      servers.push(server)
      addresses.push(address)
      chosen = address.port
    }
    if (tls !== undefined) {
      const server = createTcpServer(TCP_OPTIONS, tlsOver(deps, open, tls, serve))
      const address = await bind(server, tls.host, tls.port, deps.log)
      servers.push(server)
      if (address !== undefined) addresses.push(address)
    }
  } catch (error) {
    for (const server of servers) server.close()
    http.close()
    throw error
  }
  return {
    addresses,
    connections: () => open.count(),
    close: () => closeAll(servers, http, open),
  }
}

/**
 * HTTPS over TCP sockets that are accepted here: Node's own HTTPS server has no public way from a connection to the
 * TCP socket under it, and guessing by port numbers could take one for another.
 */
function tlsOver(
  deps: ListenerDeps,
  open: OpenConnections,
  { key, cert }: TlsListener,
  serve: Serve,
): (socket: Socket) => void {
  const secureContext = createSecureContext({ key, cert, minVersion: 'TLSv1.2' })
  const { times = CLIENT_TIMES } = deps
  // To say so would cost the handshake.
  const leave = (socket: Socket): void => {
    socket.destroy()
  }
  return (socket) => {
    if (!accept(deps, open, socket, leave)) return
    const secure = secured(socket, secureContext, times.head)
    secure.once('secure', () => {
      serve(secure, socket)
    })
  }
}

/** The TLS side of a connection, ended when its handshake fails or takes too long. */
function secured(socket: Socket, secureContext: SecureContext, limitMs: number): TLSSocket {
  const secure = new TLSSocket(socket, {
    isServer: true,
    secureContext,
    ALPNProtocols: ['http/1.1'],
  })
  const late = setTimeout(() => socket.destroy(), limitMs)
  secure.once('secure', () => {
    clearTimeout(late)
  })
  secure.once('close', () => {
    clearTimeout(late)
    socket.destroy()
  })
  secure.on('error', () => {
    clearTimeout(late)
    socket.destroy()
  })
  return secure
}

/** Whether the connection may go on; `busy` ends one for which there is no room. */
function accept(
  { callers }: ListenerDeps,
  open: OpenConnections,
  socket: Socket,
  busy: (socket: Socket) => void,
): boolean {
  const client = callers.accept(socket)
  if (client === undefined) socket.destroy()
  else if (open.admit(socket, client.uid)) return true
  else busy(socket)
  return false
}

/** Answers and ends connections from which nothing is read. */
function createBusyAnswer(): (socket: Socket) => void {
  const { status, contentType, body } = statusAnswer(
    refuse('sidecar_busy', 'too many connections have a request under way'),
  )
  const head = responseHead(status, 'Service Unavailable', {
    'content-type': contentType,
    'content-length': String(Buffer.byteLength(body)),
    'retry-after': RETRY_AFTER_S,
    connection: 'close',
  })
  let told = 0
  return (socket) => {
    if (told >= MAX_TOLD_BUSY) {
      socket.destroy()
      return
    }
    told += 1
    // What was sent is thrown away: left unread, it would make the kernel reset the connection, answer and all.
    socket.resume()
    socket.on('error', () => socket.destroy())
    const late = setTimeout(() => socket.destroy(), TELL_BUSY_MS)
    socket.once('close', () => {
      clearTimeout(late)
      told -= 1
    })
    socket.end(head + body)
  }
}

/** Reads requests from `stream`, which is the accepted `connection` itself or TLS over it. */
type Serve = (stream: Socket, connection: Socket) => void

/** Serves the connections that it is given; it has no listening socket of its own. */
function createHttpServer(
  deps: ListenerDeps,
  open: OpenConnections,
): { http: Server; serve: Serve } {
  const { times = CLIENT_TIMES } = deps
  const below = new WeakMap<Socket, Socket>()
  const server = createServer({
    maxHeaderSize: MAX_HEAD_BYTES,
    headersTimeout: times.head,
    requestTimeout: times.request,
    keepAliveTimeout: times.idle,
    connectionsCheckingInterval: times.checkEvery,
    // Java's and other clients offer h2c on every request; they take an ordinary answer.
    shouldUpgradeCallback: (request) => upgradeProtocol(request.headers) !== undefined,
  })
  server.timeout = 0
  server.maxHeadersCount = MAX_HEADERS
  Object.assign(server, { httpAllowHalfOpen: true })
  server.on('request', (request, response) => {
    const connection = below.get(request.socket)
    if (connection === undefined) {
      response.destroy()
      return
    }
    open.begin(connection)
    response.once('close', () => {
      open.end(connection)
    })
    deps.onRequest(request, response, connection)
  })
  server.on('upgrade', (request, socket, head) => {
    const connection = below.get(request.socket)
    if (connection === undefined) {
      socket.destroy()
      return
    }
    open.begin(connection)
    // All is said: a client that leaves it at that has nothing under way.
    socket.once('finish', () => {
      open.end(connection)
    })
    deps.onUpgrade(request, socket, head, connection)
  })
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    // Node's own error listener is gone by now, and a reset would end the process
    socket.on('error', () => socket.destroy())
    endSocket(
      socket,
      'HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n',
    )
  })
  // Node keeps its list of connections, without which it enforces neither limit of time, from this event on.
  server.emit('listening')
  const serve: Serve = (stream, connection) => {
    below.set(stream, connection)
    // Of `stream`: what TLS reads, the connection itself never tells.
    stream.once('end', () => {
      endWithClient(deps.callers, connection)
    })
    server.emit('connection', stream)
  }
  return { http: server, serve }
}

/**
 * A client that ended its side may still wait for its answer, or may be gone; the packets are the same, so the kernel
 * is asked whether any process still holds the other end.
 */
function endWithClient(callers: Callers, socket: Socket): void {
  const check = (): void => {
    if (socket.destroyed) return
    if (callers.isHeld(socket)) setTimeout(check, HALF_CLOSED_CHECK_MS).unref()
    else socket.destroy()
  }
  check()
}

function bind(
  server: TcpServer,
  host: string,
  port: number,
  log: Log,
): Promise<AddressInfo | undefined> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      if (host === '::1' && NO_SUCH_ADDRESS.has(codeOf(error))) {
        log.warn({ host }, 'this machine has no such address; going on without it')
        resolve(undefined)
      } else reject(error)
    })
    server.listen({ host, port, exclusive: true }, () => {
      const address = server.address()
      if (typeof address === 'object' && address !== null) resolve(address)
    })
  })
}

async function closeAll(
  servers: readonly TcpServer[],
  http: Server,
  open: OpenConnections,
): Promise<void> {
  const closed = Promise.all(
    servers.map(
      (server) =>
        new Promise<void>((resolve) => {
          server.close(() => {
            resolve()
          })
        }),
    ),
  )
  open.drain()
  const drained = new AbortController()
  const limit = sleep(DRAIN_LIMIT_MS, undefined, { signal: drained.signal }).catch(() => undefined)
  await Promise.race([closed, limit])
  drained.abort()
  open.destroy()
  await closed
  http.close()
}
