/**
 * SPDY/3.1 as a strict peer, for both roles. Written from the draft (draft-mbelshe-httpbis-spdy-00) and from what kubelets and client-go
 * do, and from nothing of the broker's: a mistake that both had would show nothing. Whatever the other side does against the rules is
 * kept in `violations`.
 */
import { once } from 'node:events'
import type { Duplex } from 'node:stream'
import { constants, createDeflate, createInflate } from 'node:zlib'
import type { Deflate, Inflate } from 'node:zlib'

const WORDS =
  'options,head,post,put,delete,trace,accept,accept-charset,accept-encoding,accept-language,accept-ranges,age,allow,authorization,cache-control,' +
  'connection,content-base,content-encoding,content-language,content-length,content-location,content-md5,content-range,content-type,date,etag,' +
  'expect,expires,from,host,if-match,if-modified-since,if-none-match,if-range,if-unmodified-since,last-modified,location,max-forwards,pragma,' +
  'proxy-authenticate,proxy-authorization,range,referer,retry-after,server,te,trailer,transfer-encoding,upgrade,user-agent,vary,via,warning,' +
  'www-authenticate,method,get,status,200 OK,version,HTTP/1.1,url,public,set-cookie,keep-alive,origin'
const TAIL =
  '100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Information204 No Content' +
  '301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented' +
  '503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT' +
  'chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,public' +
  'privatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.'

/** The dictionary of the draft's section 2.6.10.1. */
export const DICTIONARY = Buffer.concat([
  ...WORDS.split(',').map((word) => sized(word)),
  Buffer.from(TAIL),
])

/** Control frames, by their type. */
export const FRAME = {
  synStream: 1,
  synReply: 2,
  rstStream: 3,
  settings: 4,
  ping: 6,
  goAway: 7,
  headers: 8,
  windowUpdate: 9,
} as const

/** A frame as it arrived; `type` 0 is data. */
export interface SpdyFrame {
  readonly type: number
  readonly flags: number
  readonly body: Buffer
  /** Of data. */
  readonly streamId: number
}

/** Names and values of a header block. */
export type SpdyHeaders = Readonly<Record<string, string>>

const CONTROL = 0x80
const VERSION = 3
const FIN = 1
/** As Go's `io.Copy` sends it. */
const PIECE_BYTES = 32 * 1024

function sized(text: string | Buffer): Buffer {
  const bytes = Buffer.from(text)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** A header block before compression. */
export function headerBlock(pairs: readonly (readonly [string, string])[]): Buffer {
  const count = Buffer.alloc(4)
  count.writeUInt32BE(pairs.length)
  return Buffer.concat([count, ...pairs.flat().map((text) => sized(text))])
}

/** The bytes of a control frame. */
export function controlFrame(type: number, flags: number, body: Buffer, version = VERSION): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt16BE(0x8000 | version, 0)
  head.writeUInt16BE(type, 2)
  head.writeUInt8(flags, 4)
  head.writeUIntBE(body.length, 5, 3)
  return Buffer.concat([head, body])
}

/** The bytes of a data frame. */
export function dataFrame(streamId: number, bytes: Uint8Array, flags = 0): Buffer {
  const head = Buffer.alloc(8)
  head.writeUInt32BE(streamId, 0)
  head.writeUInt8(flags, 4)
  head.writeUIntBE(bytes.length, 5, 3)
  return Buffer.concat([head, bytes])
}

/** Numbers as consecutive u32. */
export function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length)
  values.forEach((value, index) => bytes.writeUInt32BE(value >>> 0, 4 * index))
  return bytes
}

/** One stream, as this peer sees it. */
export class SpdyStream {
  readonly #peer: SpdyPeer
  readonly id: number
  readonly headers: SpdyHeaders
  /** What the other side sent, unless `onData` took it. */
  readonly received: Buffer[] = []
  receivedBytes = 0
  /** The other side has ended its direction. */
  remoteEnded = false
  localEnded = false
  /** Status of the other side's RST_STREAM. */
  reset: number | undefined
  replied = false
  onData: ((bytes: Buffer) => void) | undefined
  /** Settles when the other side has ended or reset the stream, or is gone. */
  readonly ended: Promise<void>
  /** Called by the peer. */
  settle: () => void = () => undefined

  constructor(peer: SpdyPeer, id: number, headers: SpdyHeaders) {
    this.#peer = peer
    this.id = id
    this.headers = headers
    this.ended = new Promise((resolve) => (this.settle = resolve))
  }

  get bytes(): Buffer {
    return Buffer.concat(this.received)
  }

  /** Sends bytes, in frames of at most `pieceBytes`. @returns settles when the socket takes more */
  async write(bytes: Uint8Array, pieceBytes = PIECE_BYTES): Promise<void> {
    for (let at = 0; at < bytes.length; at += pieceBytes)
      await this.#peer.send(dataFrame(this.id, bytes.subarray(at, at + pieceBytes)))
  }

  /** Ends this direction by an empty last frame, as spdystream does. */
  async end(): Promise<void> {
    if (this.localEnded) return
    this.localEnded = true
    await this.#peer.send(dataFrame(this.id, Buffer.alloc(0), FIN))
  }

  /** @param status - 5 is CANCEL, which spdystream uses */
  async rst(status = 5): Promise<void> {
    await this.#peer.send(controlFrame(FRAME.rstStream, 0, words(this.id, status)))
  }
}

/** One end of a connection. */
export class SpdyPeer {
  readonly #socket: Duplex
  readonly #isServer: boolean
  readonly #deflate: Deflate
  readonly #inflate: Inflate
  readonly #inflated: Buffer[] = []
  #lastRemoteId = 0
  #nextId: number
  #tail: Promise<void> = Promise.resolve()
  readonly streams = new Map<number, SpdyStream>()
  readonly violations: string[] = []
  /** Frames in the order of their arrival: `syn 1 error`, `data 3 17`, `fin 3`, … */
  readonly seen: string[] = []
  goneAway = false
  pongs = 0
  /** While it is set, nothing is read: the other side meets a peer that is slow. */
  gate: Promise<void> | undefined
  onStream: (stream: SpdyStream) => void = () => undefined
  /** Settles when the connection is over. */
  readonly over: Promise<void>

  constructor(socket: Duplex, role: 'server' | 'client') {
    this.#socket = socket
    this.#isServer = role === 'server'
    this.#nextId = this.#isServer ? 2 : 1
    this.#deflate = createDeflate({ level: 9, dictionary: DICTIONARY })
    this.#inflate = createInflate({ dictionary: DICTIONARY, finishFlush: constants.Z_SYNC_FLUSH })
    this.#inflate.on('data', (bytes: Buffer) => this.#inflated.push(bytes))
    this.#inflate.on('error', () => undefined)
    socket.on('error', () => undefined)
    this.over = this.#read().finally(() => {
      for (const stream of this.streams.values()) stream.settle()
      this.#inflate.destroy()
      this.#deflate.destroy()
    })
  }

  get socket(): Duplex {
    return this.#socket
  }

  /** Sends bytes as they are, after all that was sent before. @returns settles when the socket takes more */
  send(bytes: Buffer | (() => Promise<Buffer>)): Promise<void> {
    this.#tail = this.#tail.then(async () => {
      const made = typeof bytes === 'function' ? await bytes() : bytes
      const socket = this.#socket
      if (socket.destroyed || socket.writableEnded || socket.write(made)) return
      const given = new AbortController()
      const { signal } = given
      try {
        await Promise.race([once(socket, 'drain', { signal }), once(socket, 'close', { signal })])
      } catch {
        // it broke: what is sent goes nowhere
      }
      given.abort()
    })
    return this.#tail
  }

  /** Opens a stream; whether it is replied to shows later. */
  async open(headers: SpdyHeaders, flags = 0): Promise<SpdyStream> {
    const id = this.#nextId
    this.#nextId += 2
    return this.openAs(id, Object.entries(headers), flags)
  }

  /** Opens a stream by any id and with any header lines, also ones that no peer should send. */
  async openAs(
    id: number,
    pairs: readonly (readonly [string, string])[],
    flags = 0,
  ): Promise<SpdyStream> {
    const stream = new SpdyStream(this, id, Object.fromEntries(pairs))
    if (!this.streams.has(id)) this.streams.set(id, stream)
    await this.sendHeaders(FRAME.synStream, flags, synStreamHead(id), headerBlock(pairs))
    return stream
  }

  /** Sends a frame with a header block, compressed in this direction's context. */
  sendHeaders(type: number, flags: number, head: Buffer, block: Buffer): Promise<void> {
    return this.send(async () =>
      controlFrame(type, flags, Buffer.concat([head, await this.#compress(block)])),
    )
  }

  async ping(id = this.#isServer ? 2 : 1): Promise<void> {
    await this.send(controlFrame(FRAME.ping, 0, words(id)))
  }

  async goAway(): Promise<void> {
    await this.send(controlFrame(FRAME.goAway, 0, words(this.#lastRemoteId, 0)))
  }

  /** Ends the connection behind what was sent. */
  async end(): Promise<void> {
    await this.send(Buffer.alloc(0))
    this.#socket.end()
  }

  async #compress(block: Buffer): Promise<Buffer> {
    const parts: Buffer[] = []
    const take = (bytes: Buffer): void => void parts.push(bytes)
    this.#deflate.on('data', take)
    await new Promise<void>((resolve) => {
      this.#deflate.write(block)
      this.#deflate.flush(constants.Z_SYNC_FLUSH, resolve)
    })
    this.#deflate.off('data', take)
    return Buffer.concat(parts)
  }

  async #decompress(bytes: Buffer): Promise<Buffer> {
    await new Promise<void>((resolve, reject) => {
      this.#inflate.write(bytes, (error) => {
        if (error instanceof Error) reject(error)
        else resolve()
      })
    })
    return Buffer.concat(this.#inflated.splice(0))
  }

  async #read(): Promise<void> {
    let kept = Buffer.alloc(0)
    try {
      for await (const chunk of this.#socket) {
        kept = Buffer.concat([kept, chunk as Buffer])
        let at = 0
        for (;;) {
          const frame = frameAt(kept, at)
          if (frame === undefined) break
          await this.gate
          at += 8 + frame.body.length
          await this.#take(frame)
        }
        kept = kept.subarray(at)
      }
      if (kept.length > 0) this.#violation(`ended inside a frame (${kept.length} bytes of it)`)
    } catch (error) {
      if (!this.#socket.destroyed) this.#violation(String(error))
    }
  }

  #violation(text: string): void {
    this.violations.push(text)
  }

  async #take(frame: SpdyFrame): Promise<void> {
    if (frame.type === 0) {
      this.#takeData(frame)
      return
    }
    const { type, body, flags } = frame
    if (type < 0) this.#violation(`a control frame of version ${-type}`)
    else if (type === FRAME.synStream) await this.#takeSynStream(body, flags)
    else if (type === FRAME.synReply) await this.#takeSynReply(body)
    else if (type === FRAME.rstStream) this.#takeReset(body)
    else if (type === FRAME.ping) await this.#takePing(body)
    else if (type === FRAME.goAway) {
      this.goneAway = true
      this.seen.push('goaway')
      if (body.length !== 8) this.#violation('a GOAWAY of another length than 8')
    } else if (type === FRAME.headers) await this.#headersOf(body, 4)
    else if (type === FRAME.windowUpdate || type === FRAME.settings) this.seen.push(`type ${type}`)
    else this.#violation(`a control frame of type ${type}`)
  }

  #takeData({ streamId, flags, body }: SpdyFrame): void {
    const stream = this.streams.get(streamId)
    if (stream === undefined) {
      this.#violation(`data on stream ${streamId}, which nobody opened`)
      return
    }
    if (stream.remoteEnded) this.#violation(`data on stream ${streamId} after its end`)
    if ((flags & ~FIN) !== 0) this.#violation(`flags ${flags} on data`)
    if (body.length > 0) {
      this.seen.push(`data ${streamId} ${body.length}`)
      stream.receivedBytes += body.length
      if (stream.onData === undefined) stream.received.push(Buffer.from(body))
      else stream.onData(body)
    }
    if ((flags & FIN) !== 0) this.#endRemote(stream)
  }

  #endRemote(stream: SpdyStream): void {
    this.seen.push(`fin ${stream.id}`)
    stream.remoteEnded = true
    stream.settle()
  }

  async #takeSynStream(body: Buffer, flags: number): Promise<void> {
    const id = body.readUInt32BE(0) & 0x7fff_ffff
    if (body.readUInt32BE(4) !== 0) this.#violation('an associated stream')
    if ((flags & ~3) !== 0) this.#violation(`flags ${flags} on SYN_STREAM`)
    if (id % 2 !== (this.#isServer ? 1 : 0) || id <= this.#lastRemoteId)
      this.#violation(`a stream with id ${id} after ${this.#lastRemoteId}`)
    this.#lastRemoteId = id
    const headers = await this.#headersOf(body, 10)
    const stream = new SpdyStream(this, id, headers)
    this.streams.set(id, stream)
    this.seen.push(`syn ${id} ${headers['streamtype'] ?? ''}`)
    if ((flags & FIN) !== 0) this.#endRemote(stream)
    this.onStream(stream)
  }

  async #takeSynReply(body: Buffer): Promise<void> {
    const id = body.readUInt32BE(0) & 0x7fff_ffff
    await this.#headersOf(body, 4)
    const stream = this.streams.get(id)
    if (stream === undefined || stream.replied) this.#violation(`a reply to stream ${id}`)
    else stream.replied = true
    this.seen.push(`reply ${id}`)
  }

  #takeReset(body: Buffer): void {
    const [id, status] = [body.readUInt32BE(0) & 0x7fff_ffff, body.readUInt32BE(4)]
    if (body.length !== 8 || status === 0) this.#violation('a RST_STREAM that is not one')
    this.seen.push(`rst ${id} ${status}`)
    const stream = this.streams.get(id)
    if (stream === undefined) return
    stream.reset = status
    stream.settle()
  }

  async #takePing(body: Buffer): Promise<void> {
    const id = body.readUInt32BE(0)
    if (id % 2 === (this.#isServer ? 0 : 1)) this.pongs += 1
    else await this.send(controlFrame(FRAME.ping, 0, body))
    this.seen.push(`ping ${id}`)
  }

  async #headersOf(body: Buffer, at: number): Promise<SpdyHeaders> {
    const block = await this.#decompress(body.subarray(at))
    const headers: Record<string, string> = {}
    let place = 4
    const text = (): string => {
      const length = block.readUInt32BE(place)
      if (place + 4 + length > block.length) this.#violation('a header longer than its block')
      const value = block.toString('latin1', place + 4, place + 4 + length)
      place += 4 + length
      return value
    }
    for (let left = block.readUInt32BE(0); left > 0; left -= 1) {
      const name = text()
      if (name === '' || name !== name.toLowerCase() || name in headers)
        this.#violation(`a header named "${name}"`)
      headers[name] = text()
    }
    if (place !== block.length) this.#violation('bytes behind the headers of a block')
    return headers
  }
}

/** What of SYN_STREAM is before its headers. */
export function synStreamHead(id: number): Buffer {
  return Buffer.concat([words(id, 0), Buffer.alloc(2)])
}

/** The whole frame at a place; undefined where there is only a part. A control frame of another version has that, negative, as its type. */
function frameAt(bytes: Buffer, at: number): SpdyFrame | undefined {
  if (bytes.length < at + 8) return undefined
  const length = bytes.readUIntBE(at + 5, 3)
  if (bytes.length < at + 8 + length) return undefined
  const body = bytes.subarray(at + 8, at + 8 + length)
  const flags = bytes.readUInt8(at + 4)
  if ((bytes.readUInt8(at) & CONTROL) === 0)
    return { type: 0, flags, body, streamId: bytes.readUInt32BE(at) }
  const version = bytes.readUInt16BE(at) & 0x7fff
  const type = version === VERSION ? bytes.readUInt16BE(at + 2) : -version
  return { type, flags, body, streamId: 0 }
}
