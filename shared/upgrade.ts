/**
 * Protocol upgrades (exec, attach, port-forward: WebSocket and SPDY/3.1) over undici. Bytes flow between two
 * peers only after the server's own 101; any other answer is handed back as an ordinary response
 * (CVE-2018-1002105: a failed upgrade must not leave a raw authenticated connection behind).
 */
import { PassThrough } from 'node:stream'
import type { Duplex, Readable } from 'node:stream'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Dispatcher } from 'undici'
import { Fault } from './errors.ts'
import { countPassed } from './young-garbage.ts'

/** Protocols that are forwarded; Kubernetes uses no others. */
const PROTOCOLS: ReadonlySet<string> = new Set(['websocket', 'spdy/3.1'])

/** The server switched protocols: `socket` is raw from here on. */
export interface Upgraded {
  readonly kind: 'upgraded'
  readonly headers: IncomingHttpHeaders
  readonly socket: Duplex
}

/** The server answered without switching. */
export interface Answered {
  readonly kind: 'answered'
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: Readable
}

/** What to ask for. */
export interface UpgradeRequest {
  readonly method: string
  /** Path and query. */
  readonly path: string
  readonly headers: Record<string, string | string[]>
  /** Value of the `Upgrade` header. */
  readonly protocol: string
  /** Ends the attempt. */
  readonly signal?: AbortSignal
}

/** The protocol a request asks to switch to, when it is one that is forwarded; undefined for any other. */
export function upgradeProtocol(headers: IncomingHttpHeaders): string | undefined {
  const protocol = headers.upgrade
  return protocol !== undefined && PROTOCOLS.has(protocol.toLowerCase()) ? protocol : undefined
}

/**
 * Sends an upgrade request.
 *
 * @returns what the server did; the caller owns `socket` or `body`
 * @throws the transport's error when no answer came
 */
export function requestUpgrade(
  dispatcher: Dispatcher,
  request: UpgradeRequest,
): Promise<Upgraded | Answered> {
  return new Promise((resolve, reject) => {
    let body: PassThrough | undefined
    const { method, path, headers, protocol, signal } = request
    if (signal?.aborted === true) {
      reject(new Fault('upgrade_failed', 'the client left'))
      return
    }
    dispatcher.dispatch(
      { method, path, headers, upgrade: protocol, bodyTimeout: 0 },
      {
        onRequestStart(controller): void {
          signal?.addEventListener('abort', () => {
            controller.abort(new Fault('upgrade_failed', 'the client left'))
          })
        },
        onRequestUpgrade(_controller, status, upgradeHeaders, socket): void {
          if (status === 101) resolve({ kind: 'upgraded', headers: upgradeHeaders, socket })
          else {
            socket.destroy()
            reject(
              new Fault('upgrade_failed', `the server switched protocols with status ${status}`),
            )
          }
        },
        onResponseStart(controller, status, answerHeaders): void {
          body = new PassThrough()
          body.on('drain', () => {
            controller.resume()
          })
          body.on('close', () => {
            if (body?.readableEnded !== true)
              controller.abort(new Fault('upgrade_failed', 'the answer was not read'))
          })
          resolve({ kind: 'answered', status, headers: answerHeaders, body })
        },
        onResponseData(controller, chunk): void {
          if (body?.write(chunk) === false) controller.pause()
        },
        onResponseEnd(): void {
          body?.end()
        },
        onResponseError(_controller, error): void {
          body?.destroy(error)
          reject(error)
        },
      },
    )
  })
}

/** Counts of what {@link splice} moved. */
export interface Spliced {
  readonly bytesToServer: number
  readonly bytesToClient: number
}

/** How long a side may take to read what is left for it after the other has ended, in milliseconds. */
const FLUSH_LIMIT_MS = 30_000

/**
 * Joins two raw connections until both are closed, with back-pressure both ways. What one side sent before it
 * ended still reaches the other; when either breaks, both are destroyed. Settles when all is over; never rejects.
 */
export function splice(client: Duplex, server: Duplex): Promise<Spliced> {
  return new Promise((resolve) => {
    let bytesToServer = 0
    let bytesToClient = 0
    let open = 2
    const closed = (): void => {
      open -= 1
      if (open === 0) resolve({ bytesToServer, bytesToClient })
    }
    client.on('data', (chunk: Buffer) => {
      bytesToServer += chunk.length
      countPassed(chunk.length)
      corkForTurn(server)
    })
    server.on('data', (chunk: Buffer) => {
      bytesToClient += chunk.length
      countPassed(chunk.length)
      corkForTurn(client)
    })
    couple(client, server, closed)
    couple(server, client, closed)
  })
}

/** What is written to `to` in this turn goes out together: one read of a TLS connection comes in up to four pieces. */
export function corkForTurn(to: Duplex): void {
  if (to.writableCorked > 0) return
  to.cork()
  process.nextTick(() => {
    to.uncork()
  })
}

/** Ends `to` after `from`, once it has taken what `from` sent. */
function couple(from: Duplex, to: Duplex, closed: () => void): void {
  from.on('error', () => to.destroy())
  from.once('close', () => {
    if (!from.readableEnded || to.writableFinished || to.destroyed) to.destroy()
    else {
      const timer = setTimeout(() => to.destroy(), FLUSH_LIMIT_MS)
      to.once('finish', () => to.destroy())
      to.once('close', () => {
        clearTimeout(timer)
      })
    }
    closed()
  })
  if (from.destroyed) from.emit('close')
  else from.pipe(to)
}

/** The head of a 101 answer, ready to be written to the client's socket. */
export function switchingHead(headers: IncomingHttpHeaders): string {
  return responseHead(101, 'Switching Protocols', headers)
}

/** A response head on a raw socket. Header values come from a parsed response or from us, so they hold no line breaks. */
export function responseHead(status: number, text: string, headers: IncomingHttpHeaders): string {
  let head = `HTTP/1.1 ${status} ${text}\r\n`
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue
    for (const entry of Array.isArray(value) ? value : [value]) head += `${name}: ${entry}\r\n`
  }
  return `${head}\r\n`
}

/** How long a connection that is over is still read from, in milliseconds, so that its client can read the answer before it ends. */
const LINGER_MS = 1_000

/**
 * Ends a raw connection behind its last bytes. What its client still sends is read and thrown away, for a while: unread, it would keep
 * the connection open for as long as its client likes, or make the kernel throw the answer away (RFC 9112, 9.6).
 */
export function endSocket(socket: Duplex, last?: Buffer | string): void {
  if (socket.destroyed) return
  if (last === undefined) socket.end()
  else socket.end(last)
  socket.resume()
  const timer = setTimeout(() => socket.destroy(), LINGER_MS)
  timer.unref()
  socket.once('close', () => {
    clearTimeout(timer)
  })
}

/** What Node's `upgrade` event hands over, made safe: unread bytes go back, no idle timeout, small packets at once. */
export function takeSocket(request: IncomingMessage, socket: Duplex, head: Buffer): Duplex {
  // Node has taken its own error listener away; whoever uses the socket looks at `destroyed`
  socket.on('error', () => socket.destroy())
  if (head.length > 0) socket.unshift(head)
  request.socket.setTimeout(0)
  request.socket.setNoDelay(true)
  request.socket.setKeepAlive(true, 30_000)
  return socket
}
