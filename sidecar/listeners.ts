/**
 * The sockets on which the sidecar is called: both loopback addresses, because `localhost` means either, and an
 * address left free could be taken by another process of the pod. A taken address is an error, never skipped. Clients
 * are untrusted, so their number, header sizes and time to send are bounded; how long an answer may take is not.
 */
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { codeOf } from '../shared/errors.ts'
import type { Log } from '../shared/json-log.ts'
import { upgradeProtocol } from '../shared/upgrade.ts'
import type { Callers } from './caller/caller.ts'

/** Largest request head, in bytes. The broker reads 64 KiB; token and tag are added here, at most 24 KiB. */
const MAX_HEAD_BYTES = 32 * 1024
const MAX_HEADERS = 100
/** Most connections at one time, for each address. */
const MAX_CONNECTIONS = 1024
/** Time to send a request head, and a whole request with its body, in milliseconds. Neither bounds the answer: watches run for hours. */
const HEAD_LIMIT_MS = 30_000
const REQUEST_LIMIT_MS = 120_000
/** Idle time after which a connection is closed, in milliseconds; Go's clients keep theirs for 90 s and retry. */
const IDLE_LIMIT_MS = 90_000
/** How long answers under way may take to end once the sidecar is told to stop, in milliseconds. */
const DRAIN_LIMIT_MS = 10_000
/** How often a client that ended its side of the connection is looked for, in milliseconds. */
const HALF_CLOSED_CHECK_MS = 1000

/** Addresses that a machine without IPv6 cannot bind; nobody else on it can, either. */
const NO_SUCH_ADDRESS: ReadonlySet<string | undefined> = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT'])

/** What is listened for. */
export interface ListenerDeps {
  readonly callers: Callers
  readonly log: Log
  readonly onRequest: (request: IncomingMessage, response: ServerResponse) => void
  readonly onUpgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
}

/** Open listeners. */
export interface Listeners {
  readonly addresses: readonly AddressInfo[]
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
): Promise<Listeners> {
  const servers: Server[] = []
  const sockets = new Set<Socket>()
  const addresses: AddressInfo[] = []
  let chosen = port
  try {
    for (const host of hosts) {
      const server = createLoopbackServer(deps, sockets)
      const address = await bind(server, host, chosen, deps.log)
      if (address === undefined) continue
      servers.push(server)
      addresses.push(address)
      chosen = address.port
    }
  } catch (error) {
    for (const server of servers) server.close()
    throw error
  }
  return { addresses, close: () => closeAll(servers, sockets) }
}

function createLoopbackServer(deps: ListenerDeps, sockets: Set<Socket>): Server {
  const server = createServer({
    maxHeaderSize: MAX_HEAD_BYTES,
    headersTimeout: HEAD_LIMIT_MS,
    requestTimeout: REQUEST_LIMIT_MS,
    keepAliveTimeout: IDLE_LIMIT_MS,
    // Java's and other clients offer h2c on every request; they take an ordinary answer.
    shouldUpgradeCallback: (request) => upgradeProtocol(request.headers) !== undefined,
  })
  server.timeout = 0
  server.maxHeadersCount = MAX_HEADERS
  server.maxConnections = MAX_CONNECTIONS
  Object.assign(server, { httpAllowHalfOpen: true })
  server.on('connection', (socket) => {
    if (!deps.callers.accept(socket)) {
      socket.destroy()
      return
    }
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    socket.once('end', () => {
      endWithClient(deps.callers, socket)
    })
  })
  server.on('request', deps.onRequest)
  server.on('upgrade', deps.onUpgrade)
  server.on('connect', (_request: IncomingMessage, socket: Duplex) => {
    // Node's own error listener is gone by now, and a reset would end the process
    socket.on('error', () => socket.destroy())
    socket.end('HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-length: 0\r\n\r\n')
  })
  return server
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
  server: Server,
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

async function closeAll(servers: readonly Server[], sockets: ReadonlySet<Socket>): Promise<void> {
  const closed = Promise.all(
    servers.map((server) => {
      const done = new Promise<void>((resolve) => {
        server.close(() => {
          resolve()
        })
      })
      server.closeIdleConnections()
      return done
    }),
  )
  const drained = new AbortController()
  const limit = sleep(DRAIN_LIMIT_MS, undefined, { signal: drained.signal }).catch(() => undefined)
  await Promise.race([closed, limit])
  drained.abort()
  for (const socket of sockets) socket.destroy()
  await closed
}
