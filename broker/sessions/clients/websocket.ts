/** The WebSocket under a client's session: handshake, frames and limits are the ws package's, back-pressure and ends are here. */
import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import type { WebSocket } from 'ws'
import { Fault } from '../../../shared/errors.ts'
import { stopOf } from '../stop.ts'
import type { Stop } from '../stop.ts'
import { corkForTurn } from '../../../shared/upgrade.ts'
import type { Side } from '../streams.ts'

/** Longest message that is taken, in bytes: kubectl sends 32 KiB, libraries whole inputs. */
const MAX_MESSAGE_BYTES = 4 * 1024 * 1024
/** Codes of RFC 6455, 7.4.1. */
const NORMAL = 1000
const PROTOCOL_ERROR = 1002
/** How long a client may take to answer the closing, in milliseconds; what was written reaches it before. */
const CLOSING_MS = 5_000

/** A WebSocket as a side of a session. */
export interface WebSocketSide extends Side {
  readonly send: (message: Buffer | string) => void
  /** Sends one binary message of a byte and what follows it, without copying. */
  readonly sendChannel: (channel: number, bytes: Buffer) => void
  /** Ends it in order, behind what was sent. */
  readonly close: () => void
  /** Ends it because of what the client sent. */
  readonly reject: () => void
}

/** Headers with their lines. */
export type HeaderLines = Readonly<Record<string, string | string[]>>

/** What is made of the messages that come. */
export type OnMessage = (message: Buffer, isBinary: boolean) => void

/**
 * Completes the handshake, which the caller has checked (ways.ts).
 *
 * @param socket - raw, with unread bytes put back
 * @param subprotocol - that was agreed on
 * @param headers - lines of ours for the 101
 * @returns rejects with Fault `client_left` where the client does not go along
 */
export function acceptWebSocket(
  request: IncomingMessage,
  socket: Duplex,
  subprotocol: string,
  headers: HeaderLines,
): Promise<(onMessage: OnMessage) => WebSocketSide> {
  const server = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_MESSAGE_BYTES,
    clientTracking: false,
  })
  // names of Kubernetes are no tokens (RFC 6455, 4.1), so that ws would refuse them; this one was chosen from them
  delete request.headers['sec-websocket-protocol']
  server.on('headers', (lines) => {
    lines.push(`Sec-WebSocket-Protocol: ${subprotocol}`)
    for (const [name, value] of Object.entries(headers))
      for (const line of typeof value === 'string' ? [value] : value) lines.push(`${name}: ${line}`)
  })
  return new Promise((resolve, reject) => {
    const fail = (): void => {
      reject(new Fault('client_left', 'the handshake did not succeed'))
    }
    socket.once('close', fail)
    server.once('wsClientError', fail)
    server.handleUpgrade(request, socket, Buffer.alloc(0), (webSocket) => {
      // nothing is read until somebody listens
      webSocket.pause()
      resolve((onMessage) => sideOf(webSocket, socket, onMessage))
    })
  })
}

function sideOf(webSocket: WebSocket, socket: Duplex, onMessage: OnMessage): WebSocketSide {
  const { promise: closed, resolve } = Promise.withResolvers<Stop | undefined>()
  let isClosing = false
  webSocket.on('message', (data, isBinary) => {
    if (!isClosing && Buffer.isBuffer(data)) onMessage(data, isBinary)
  })
  // ws has sent the closing frame with the code of what was wrong
  webSocket.on('error', () => {
    resolve(stopOf('protocol_invalid'))
  })
  webSocket.on('close', (code) => {
    resolve(isClosing || code === NORMAL ? undefined : stopOf('client_left'))
  })
  const close = (code: number): void => {
    if (isClosing) return
    isClosing = true
    // the answer to the closing is still to be read
    webSocket.resume()
    webSocket.close(code)
    const timer = setTimeout(() => {
      webSocket.terminate()
    }, CLOSING_MS)
    webSocket.once('close', () => {
      clearTimeout(timer)
    })
  }
  return {
    closed,
    send(message) {
      if (!isClosing) webSocket.send(message)
    },
    sendChannel(channel, bytes) {
      if (isClosing || socket.destroyed) return
      corkForTurn(socket)
      socket.write(binaryHead(channel, bytes.length))
      socket.write(bytes)
    },
    room: () => roomOf(socket),
    pause() {
      webSocket.pause()
    },
    resume() {
      webSocket.resume()
    },
    close() {
      close(NORMAL)
    },
    reject() {
      resolve(stopOf('protocol_invalid'))
      close(PROTOCOL_ERROR)
    },
    destroy() {
      webSocket.terminate()
    },
  }
}

/** FIN and opcode 2 (RFC 6455, 5.2). */
const BINARY = 0x82
/** Lengths from here on take two bytes, or eight. */
const LENGTH_16 = 126
const LENGTH_64 = 127
const MAX_LENGTH_16 = 65_535

/** The head of a server's binary message, unmasked, with its first byte. */
function binaryHead(first: number, following: number): Buffer {
  const length = following + 1
  if (length < LENGTH_16) return Buffer.of(BINARY, length, first)
  if (length <= MAX_LENGTH_16)
    return Buffer.of(BINARY, LENGTH_16, length >> 8, length & 0xff, first)
  const head = Buffer.alloc(11)
  head[0] = BINARY
  head[1] = LENGTH_64
  head.writeBigUInt64BE(BigInt(length), 2)
  head[10] = first
  return head
}

/** Undefined while a socket takes more; else settles when it has drained, or closed. */
export function roomOf(socket: Duplex): Promise<void> | undefined {
  if (!socket.writableNeedDrain || socket.destroyed) return undefined
  return new Promise((resolve) => {
    const done = (): void => {
      socket.off('drain', done)
      socket.off('close', done)
      resolve()
    }
    socket.on('drain', done)
    socket.on('close', done)
  })
}
