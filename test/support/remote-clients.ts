/**
 * Clients of sessions as they are spoken outside: WebSocket (`ws`) by each subprotocol, SPDY/3.1 (remote-spdy.ts), and bytes as they are
 * for what no client would send. Each keeps what it was sent.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import { Duplex } from 'node:stream'
import { connect as connectTcp } from 'node:net'
import type { Socket } from 'node:net'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { WebSocket } from 'ws'
import { SpdyPeer } from './remote-spdy.ts'
import type { SpdyStream } from './remote-spdy.ts'

/** Where to, and as whom. */
export interface Address {
  readonly port: number
  readonly ca: string
  /** With `/clusters/…`, without a query. */
  readonly path: string
  readonly query?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** How long an answer may take, in milliseconds. */
const ANSWER_LIMIT_MS = 20_000

/** An answer that is not a switch. */
export class NotSwitched extends Error {
  readonly status: number
  readonly text: string

  constructor(status: number, text: string) {
    super(`status ${status}: ${text}`)
    this.status = status
    this.text = text
  }
}

/** Channels of exec and attach. */
export const CHANNEL = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 } as const

export type ExecProtocol =
  'v5.channel.k8s.io' | 'v4.channel.k8s.io' | 'v4.base64.channel.k8s.io' | (string & {})

/** A WebSocket session, channel by channel. */
export class ChannelClient {
  readonly socket: WebSocket
  /** Of the broker; there once it is open. */
  requestId = ''
  readonly #received = new Map<number, Buffer[]>()
  /** Channels that the server closed (v5). */
  readonly closedChannels: number[] = []
  /** Channel and length of each message, in order. */
  readonly seen: string[] = []
  pings = 0
  pongs = 0
  closeCode: number | undefined
  readonly closed: Promise<void>
  onMessage: ((channel: number, bytes: Buffer) => void) | undefined

  /** @param socket - not open yet */
  constructor(socket: WebSocket, keep = true) {
    this.socket = socket
    socket.once('upgrade', ({ headers: { 'nestgate-request-id': id } }) => {
      if (typeof id === 'string') this.requestId = id
    })
    this.closed = new Promise((resolve) => {
      socket.once('close', (code) => {
        this.closeCode = code
        resolve()
      })
    })
    socket.on('error', () => undefined)
    socket.on('ping', () => (this.pings += 1))
    socket.on('pong', () => (this.pongs += 1))
    socket.on('message', (data: Buffer, isBinary) => {
      this.#take(data, isBinary, keep)
    })
  }

  get #isBase64(): boolean {
    return this.socket.protocol.startsWith('v4.base64')
  }

  #take(data: Buffer, isBinary: boolean, keep: boolean): void {
    if (this.#isBase64 === isBinary) this.seen.push(`wrong opcode: binary ${String(isBinary)}`)
    const bytes = this.#isBase64
      ? Buffer.concat([
          Buffer.from([data[0]! - 0x30]),
          Buffer.from(data.subarray(1).toString(), 'base64'),
        ])
      : data
    const channel = bytes[0] ?? -1
    this.seen.push(`${channel} ${bytes.length - 1}`)
    if (channel === CHANNEL.close) this.closedChannels.push(bytes[1] ?? -1)
    else if (this.onMessage !== undefined) this.onMessage(channel, bytes.subarray(1))
    else if (keep) {
      const parts = this.#received.get(channel) ?? []
      this.#received.set(channel, parts)
      parts.push(bytes.subarray(1))
    }
  }

  /** All bytes of a channel so far. */
  bytes(channel: number): Buffer {
    return Buffer.concat(this.#received.get(channel) ?? [])
  }

  /** The Status of channel 3, or undefined where none came. */
  get status(): object | undefined {
    const text = this.bytes(CHANNEL.error).toString()
    return text === '' ? undefined : (JSON.parse(text) as object)
  }

  /** Sends a message. @returns settles when it was handed to the socket */
  send(channel: number, bytes: Uint8Array | string): Promise<void> {
    const payload = Buffer.from(bytes)
    const message = this.#isBase64
      ? `${channel}${payload.toString('base64')}`
      : Buffer.concat([Buffer.from([channel]), payload])
    return new Promise((resolve, reject) => {
      this.socket.send(message, (error) => {
        if (error instanceof Error) reject(error)
        else resolve()
      })
    })
  }

  resize(columns: number, rows: number): Promise<void> {
    return this.send(CHANNEL.resize, JSON.stringify({ Width: columns, Height: rows }))
  }

  /** Closes a channel as v5 can. */
  closeChannel(channel: number): Promise<void> {
    return this.send(CHANNEL.close, Buffer.from([channel]))
  }
}

/** Opens a WebSocket. @throws NotSwitched where the answer is another one */
export async function openWebSocket(
  { port, ca, path, query = '', headers = {} }: Address,
  protocols: readonly string[],
  options: {
    readonly perMessageDeflate?: boolean
    /** Called before anything can come. */
    readonly onSocket?: (socket: WebSocket) => void
  } = {},
): Promise<WebSocket> {
  const url = `wss://127.0.0.1:${port}${path}${query === '' ? '' : `?${query}`}`
  const socket = new WebSocket(url, [...protocols], {
    ...{ ca, headers, perMessageDeflate: options.perMessageDeflate ?? false },
    handshakeTimeout: ANSWER_LIMIT_MS,
  })
  options.onSocket?.(socket)
  return new Promise((resolve, reject) => {
    socket.once('open', () => {
      resolve(socket)
    })
    socket.once('unexpected-response', (_request, answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      const done = (): void => {
        reject(new NotSwitched(answer.statusCode ?? 0, text))
      }
      answer.once('end', done)
      answer.once('error', done)
    })
    socket.once('error', reject)
  })
}

/** A session over WebSocket. */
export async function openChannels(
  address: Address,
  protocol: ExecProtocol,
  keep = true,
): Promise<ChannelClient> {
  let client: ChannelClient | undefined
  const socket = await openWebSocket(address, [protocol], {
    onSocket: (made) => {
      client = new ChannelClient(made, keep)
    },
  })
  return client ?? new ChannelClient(socket, keep)
}

/** What came of a request on a raw connection. */
export interface Switched {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Holds what came behind the head. */
  readonly socket: TLSSocket
  /** Below TLS. */
  readonly tcp: Socket
}

/** Sends a request head as it is. @returns when the head of the answer is there */
export async function rawUpgrade(
  { port, ca, path, query = '', headers = {} }: Address,
  method: string,
  more: readonly string[],
  behind: Buffer = Buffer.alloc(0),
): Promise<Switched> {
  const tcp = connectTcp({ port, host: '127.0.0.1' })
  const socket = connect({ socket: tcp, host: '127.0.0.1', ca })
  socket.on('error', () => undefined)
  await once(socket, 'secureConnect')
  const lines = [
    `${method} ${path}${query === '' ? '' : `?${query}`} HTTP/1.1`,
    'Host: broker',
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    ...more,
  ]
  socket.write(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), behind]))
  let kept = Buffer.alloc(0)
  const limit = AbortSignal.timeout(ANSWER_LIMIT_MS)
  for (;;) {
    const end = kept.indexOf('\r\n\r\n')
    if (end !== -1) {
      const [first = '', ...rest] = kept.subarray(0, end).toString('latin1').split('\r\n')
      const named = rest.map((line): [string, string] => {
        const [name = '', ...value] = line.split(':')
        return [name.toLowerCase(), value.join(':').trim()]
      })
      if (kept.length > end + 4) socket.unshift(kept.subarray(end + 4))
      return {
        ...{ status: Number(first.split(' ')[1]), socket, tcp },
        headers: Object.fromEntries(named),
      }
    }
    const chunk = socket.read() as Buffer | null
    if (chunk !== null) kept = Buffer.concat([kept, chunk])
    else if (socket.readableEnded || socket.destroyed)
      throw new Error(`no answer, but: ${kept.toString('latin1')}`)
    else await Promise.race([readable(socket, limit), ended(socket)])
  }
}

async function readable(socket: Duplex, signal: AbortSignal): Promise<void> {
  await once(socket, 'readable', { signal }).catch((error: unknown) => {
    if (signal.aborted) throw error
  })
}

function ended(socket: Duplex): Promise<void> {
  return new Promise((resolve) => socket.once('close', resolve).once('end', resolve))
}

/** All that still comes on a connection, until it ends. */
export async function rest(socket: Duplex): Promise<Buffer> {
  const parts: Buffer[] = []
  try {
    for await (const chunk of socket) parts.push(chunk as Buffer)
  } catch {
    // a reset is an end too
  }
  return Buffer.concat(parts)
}

/** All that still comes on a raw WebSocket; a closing is answered, as clients do. */
export async function restOfWebSocket(socket: Duplex): Promise<Buffer> {
  let bytes = Buffer.alloc(0)
  let at = 0
  try {
    for await (const chunk of socket) {
      bytes = Buffer.concat([bytes, chunk as Buffer])
      for (;;) {
        const frame = readFrame(bytes.subarray(at))
        if (frame === undefined) break
        at += frame.length
        if (frame.opcode === 8) socket.end(rawFrame({ opcode: 8, payload: frame.payload }))
      }
    }
  } catch {
    // a reset is an end too
  }
  return bytes
}

/** Streams of an exec or attach over SPDY, opened in client-go's order: error, stdin, stdout, stderr, resize. */
export interface SpdySession {
  readonly peer: SpdyPeer
  readonly headers: IncomingHttpHeaders
  readonly streams: ReadonlyMap<string, SpdyStream>
  stream(name: string): SpdyStream
  /** The Status of the error stream, once it has ended. */
  status(): Promise<object | undefined>
}

/** Upgrades to SPDY. @throws NotSwitched where the answer is another one */
export async function openSpdy(
  address: Address,
  protocol: string,
  method = 'POST',
): Promise<{ readonly peer: SpdyPeer; readonly headers: IncomingHttpHeaders }> {
  const { status, headers, socket } = await rawUpgrade(address, method, [
    ...['Connection: Upgrade', 'Upgrade: SPDY/3.1', 'Content-Length: 0'],
    `X-Stream-Protocol-Version: ${protocol}`,
  ])
  if (status !== 101) throw new NotSwitched(status, (await rest(socket)).toString())
  return { peer: new SpdyPeer(socket, 'client'), headers }
}

/** An exec or attach over SPDY with these streams. */
export async function openSpdySession(
  address: Address,
  names: readonly string[],
  method = 'POST',
): Promise<SpdySession> {
  const { peer, headers } = await openSpdy(address, 'v4.channel.k8s.io', method)
  const streams = new Map<string, SpdyStream>()
  for (const name of names) streams.set(name, await peer.open({ streamtype: name }))
  const stream = (name: string): SpdyStream => {
    const found = streams.get(name)
    if (found === undefined) throw new Error(`no stream ${name}`)
    return found
  }
  return {
    ...{ peer, headers, streams, stream },
    async status() {
      const { ended: end } = stream('error')
      await Promise.race([end, peer.over])
      const text = stream('error').bytes.toString()
      return text === '' ? undefined : (JSON.parse(text) as object)
    },
  }
}

/** SPDY within WebSocket: `SPDY/3.1+portforward.k8s.io`, which is no token, so that `ws` would not offer it. */
export async function openTunnel(address: Address): Promise<SpdyPeer> {
  return new SpdyPeer(
    overWebSocket(await openRawWebSocket(address, 'SPDY/3.1+portforward.k8s.io')),
    'client',
  )
}

/** A raw WebSocket's binary messages as one stream of bytes, as gorilla's net.Conn of client-go has them. */
export function overWebSocket(socket: Duplex): Duplex {
  const duplex = new Duplex({
    read: () => {
      socket.resume()
    },
    write: (chunk: Buffer, _encoding, done) => {
      socket.write(rawFrame({ payload: chunk }), done)
    },
    final: (done) => {
      socket.write(rawFrame({ opcode: 8, payload: Buffer.from([0x03, 0xe8]) }))
      done()
    },
    destroy: (error, done) => {
      socket.destroy()
      done(error)
    },
  })
  let kept = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    kept = Buffer.concat([kept, chunk])
    for (;;) {
      const frame = readFrame(kept)
      if (frame === undefined) break
      kept = kept.subarray(frame.length)
      if (frame.opcode === 9) socket.write(rawFrame({ opcode: 10, payload: frame.payload }))
      if (frame.opcode === 8) socket.end()
      if (frame.opcode <= 2 && !duplex.push(Buffer.from(frame.payload))) socket.pause()
    }
  })
  socket.once('close', () => duplex.push(null))
  socket.on('error', () => undefined)
  return duplex
}

/** A server's frame at the beginning of some bytes; undefined where it is not all there. */
export function readFrame(bytes: Buffer):
  | {
      readonly opcode: number
      readonly fin: boolean
      readonly payload: Buffer
      readonly length: number
    }
  | undefined {
  if (bytes.length < 2) return undefined
  const short = bytes.readUInt8(1) & 0x7f
  const head = short === 126 ? 4 : short === 127 ? 10 : 2
  if (bytes.length < head) return undefined
  const size =
    short === 126 ? bytes.readUInt16BE(2) : short === 127 ? Number(bytes.readBigUInt64BE(2)) : short
  if (bytes.length < head + size) return undefined
  return {
    opcode: bytes.readUInt8(0) & 0x0f,
    fin: (bytes.readUInt8(0) & 0x80) !== 0,
    payload: bytes.subarray(head, head + size),
    length: head + size,
  }
}

/** One forwarded connection over SPDY, in client-go's order: error stream, then data stream. */
export async function forwardOver(
  peer: SpdyPeer,
  port: number,
  requestId: string,
): Promise<{ readonly error: SpdyStream; readonly data: SpdyStream }> {
  const common = { port: String(port), requestid: requestId }
  const error = await peer.open({ streamtype: 'error', ...common })
  await error.end()
  const data = await peer.open({ streamtype: 'data', ...common })
  return { error, data }
}

/** A WebSocket frame, also one that no client may send. */
export interface RawFrame {
  readonly fin?: boolean
  /** Bits 0x70 of the first byte. */
  readonly reserved?: number
  /** 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong. */
  readonly opcode?: number
  readonly payload?: Uint8Array | string
  readonly masked?: boolean
  /** What its head says; the payload's own length otherwise. */
  readonly length?: number | bigint
  /** Always uses this form, also where a shorter one would do. */
  readonly lengthForm?: 7 | 16 | 64
}

/** The bytes of a frame. */
export function rawFrame(frame: RawFrame): Buffer {
  const { fin = true, reserved = 0, opcode = 2, masked = true } = frame
  const payload = Buffer.from(frame.payload ?? '')
  const length = frame.length ?? payload.length
  const form = frame.lengthForm ?? (length < 126 ? 7 : length < 65_536 ? 16 : 64)
  const head = Buffer.from([(fin ? 0x80 : 0) | reserved | opcode, 0])
  const extended = Buffer.alloc(form === 7 ? 0 : form / 8)
  if (form === 16) extended.writeUInt16BE(Number(length))
  if (form === 64) extended.writeBigUInt64BE(BigInt(length))
  head[1] = (masked ? 0x80 : 0) | (form === 7 ? Number(length) : form === 16 ? 126 : 127)
  if (!masked) return Buffer.concat([head, extended, payload])
  const mask = randomBytes(4)
  for (let at = 0; at < payload.length; at += 1) payload[at]! ^= mask[at % 4]!
  return Buffer.concat([head, extended, mask, payload])
}

/** A WebSocket session on which frames are sent as they are. @throws NotSwitched */
export async function openRawWebSocket(
  address: Address,
  protocol: string,
  behind: Buffer = Buffer.alloc(0),
): Promise<TLSSocket> {
  const { status, socket } = await rawUpgrade(
    address,
    'GET',
    [
      ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
      `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
      `Sec-WebSocket-Protocol: ${protocol}`,
    ],
    behind,
  )
  if (status !== 101) throw new NotSwitched(status, (await rest(socket)).toString())
  return socket
}
