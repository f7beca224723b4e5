/**
 * One SPDY/3.1 connection over any duplex stream, in either role, as Kubernetes uses it. It knows of streams and nothing of what they
 * carry.
 *
 * Back-pressure is the connection's, as between all peers of this kind (frames.ts): while it is paused no stream of it goes on.
 */
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { Fault } from '../../../shared/errors.ts'
import {
  FrameParser,
  GOAWAY,
  goAway,
  MAX_STREAM_ID,
  ping,
  RST,
  rstStream,
  synReply,
  synStream,
} from './frames.ts'
import type { ControlFrame } from './frames.ts'
import { HeaderDeflater, HeaderInflater } from './header-block.ts'
import { FrameWriter } from './writer.ts'
import { Stream } from './stream.ts'
import type { SpdyStream, StreamPorts } from './stream.ts'

export type { SpdyStream } from './stream.ts'

/** The most streams that the peer may have open at once: kubectl port-forward opens two for each connection. */
export const MAX_OPEN_STREAMS = 1024
/** The most answers (to PING, or RST_STREAM) that may wait to be sent before reading stops. */
const MAX_WAITING_ANSWERS = 256
/** How long the peer may take to leave once everything was sent to it, in milliseconds. */
export const LINGER_MS = 10_000
/** How long a peer that broke the protocol may take to be told so, in milliseconds. */
const FAULT_LINGER_MS = 1_000

const NOTHING = Buffer.alloc(0)

/** See the head of the file. No method throws for anything that the peer does; all are ignored once the connection is over. */
export interface SpdyConnection {
  /** Called with each stream that the peer opens; the owner sets its handlers, then replies or resets. */
  onStream: (stream: SpdyStream) => void
  /**
   * Opens a stream; data may follow at once. Once the connection is over, or the peer has said GOAWAY, the stream is dead: what is
   * written is ignored, and {@link replied} rejects.
   *
   * @param headers - names in lower case, values of one byte for each character. @throws RangeError when they are too long
   */
  open(headers: Readonly<Record<string, string>>): SpdyStream
  /** Settles when the peer has replied; rejects with a Fault when the stream was reset, by either side, or the connection ended. */
  replied(stream: SpdyStream): Promise<void>
  /** Settles when more may be written; undefined: now. Settles too when the connection is over. */
  room(): Promise<void> | undefined
  /** Stops reading. What was read already is held back too, from inside a handler from its next call on. */
  pause(): void
  resume(): void
  /** Keeps the connection from being idle; the peer's pings are answered by themselves. */
  ping(): void
  /**
   * Sends what was written, GOAWAY behind it, and ends the socket; what still comes is dropped. The socket is destroyed when the peer
   * has left, at most {@link LINGER_MS} after the last byte was taken. A peer that takes nothing can hold it: see `destroy`.
   */
  close(): void
  /** Ends it now; what was written may be lost. */
  destroy(): void
  /**
   * Settles once, when nothing will come or be sent any more: undefined for an orderly end (our close or destroy, the peer's GOAWAY,
   * or its leaving when all streams had ended), else the Fault: `spdy_invalid` for what the peer did wrong, `stream_broken` for the
   * socket. Never rejects. Streams that are open then are told nothing.
   */
  readonly closed: Promise<Fault | undefined>
}

/**
 * Begins a connection.
 *
 * @param socket - it is owned from now on, and is read at once unless it is paused; bytes that were read from it before are put back
 *   by `unshift` first. One that is gone already gives a connection that is over
 * @param options - `role`: `client` opens odd streams, `server` even ones
 */
export function createSpdyConnection(
  socket: Duplex,
  options: { readonly role: 'client' | 'server' },
): SpdyConnection {
  return new Connection(socket, options.role === 'client')
}

type HeadersFrame = Extract<ControlFrame, { readonly block: Buffer }>

class Connection implements SpdyConnection {
  onStream: (stream: SpdyStream) => void = (stream) => {
    stream.reset(RST.REFUSED_STREAM)
  }
  readonly closed: Promise<Fault | undefined>
  readonly #socket: Duplex
  readonly #writer: FrameWriter
  readonly #parser: FrameParser
  readonly #inflater = new HeaderInflater()
  readonly #deflater = new HeaderDeflater()
  readonly #streams = new Map<number, Stream>()
  readonly #settle: (fault: Fault | undefined) => void
  /** 1 of what the client numbers, 0 of what the server does. */
  readonly #ownParity: number
  #nextId: number
  #lastPeerId = 0
  #peerStreams = 0
  #pingId: number
  /** Of the DATA frame that is being read; undefined when its bytes are dropped. */
  #receiver: Stream | undefined
  /** What was read and waits until reading goes on. */
  #rest: Buffer = NOTHING
  #paused: boolean
  #inflating = false
  #answers = 0
  #flooded = false
  #reading = false
  #peerLeft = false
  /** Set when the socket is closed, or broke. */
  #gone: { readonly fault: Fault | undefined } | undefined
  /** The status of its GOAWAY. */
  #peerGoesAway: number | undefined
  #closing = false
  #over = false
  #linger: NodeJS.Timeout | undefined
  readonly #ports: StreamPorts = {
    sendReply: (id) => {
      this.#writer.control(synReply(id, this.#deflater.deflate({})))
    },
    sendData: (id, bytes) => this.#writer.data(id, bytes),
    sendEnd: (id) => {
      this.#writer.fin(id)
    },
    sendReset: (id, status) => {
      this.#writer.control(rstStream(id, status))
    },
    isOver: ({ id }) => {
      if (this.#streams.delete(id) && !this.#isOwn(id)) this.#peerStreams--
    },
  }

  constructor(socket: Duplex, client: boolean) {
    const { promise, resolve } = Promise.withResolvers<Fault | undefined>()
    this.closed = promise
    this.#settle = resolve
    this.#socket = socket
    this.#ownParity = client ? 1 : 0
    this.#nextId = client ? 1 : 2
    this.#pingId = this.#nextId
    this.#paused = socket.isPaused()
    this.#writer = new FrameWriter(socket)
    this.#parser = new FrameParser({
      onControl: (frame) => {
        this.#onControl(frame)
      },
      onDataStart: (id) => {
        this.#onDataStart(id)
      },
      onData: (bytes) => {
        this.#receiver?.receive(bytes)
      },
      onDataEnd: (fin) => {
        if (fin) this.#receiver?.receiveEnd()
        this.#receiver = undefined
      },
    })
    // a stream's first frames are small and wait for answers: Nagle's algorithm would add 40 ms to each
    if (socket instanceof Socket) socket.setNoDelay(true)
    this.#listen()
  }

  open(headers: Readonly<Record<string, string>>): SpdyStream {
    const id = this.#nextId
    const stream = new Stream(id, new Map(Object.entries(headers)), true, this.#ports)
    if (this.#isDeaf || this.#peerGoesAway !== undefined || id > MAX_STREAM_ID) {
      stream.abandon(new Fault('stream_broken', 'the connection takes no new streams'))
      return stream
    }
    const block = this.#deflater.deflate(headers)
    this.#nextId += 2
    this.#streams.set(id, stream)
    this.#writer.control(synStream(id, block))
    return stream
  }

  async replied(stream: SpdyStream): Promise<void> {
    if (stream instanceof Stream) await stream.replied()
  }

  room(): Promise<void> | undefined {
    return this.#writer.room()
  }

  pause(): void {
    this.#paused = true
    this.#flow()
  }

  resume(): void {
    this.#paused = false
    this.#flow()
  }

  ping(): void {
    this.#writer.control(ping(this.#pingId))
    this.#pingId = this.#pingId + 2 > MAX_STREAM_ID ? 2 - this.#ownParity : this.#pingId + 2
  }

  close(): void {
    if (this.#isDeaf) return
    this.#closing = true
    this.#writer.end(goAway(this.#lastPeerId, GOAWAY.OK), () => {
      this.#lingerFor(LINGER_MS)
      this.#flow()
    })
    this.#abandonStreams(new Fault('stream_broken', 'the connection was closed'))
    this.#flow()
  }

  destroy(): void {
    this.#end(undefined)
    this.#socket.destroy()
  }

  #listen(): void {
    this.#socket
      .on('data', (chunk: Buffer) => {
        this.#rest = joined(this.#rest, chunk)
        this.#flow()
      })
      .on('end', () => {
        this.#peerLeft = true
        this.#flow()
      })
      .on('error', (cause: unknown) => {
        this.#onGone(new Fault('stream_broken', 'the connection broke', { cause }))
        this.#socket.destroy()
      })
      .on('close', () => {
        clearTimeout(this.#linger)
        this.#onGone(this.#closing ? undefined : new Fault('stream_broken', 'the connection broke'))
      })
      .on('drain', () => {
        this.#writer.drained()
        this.#flooded = false
        this.#flow()
      })
    // one that is gone already says nothing any more
    if (this.#socket.destroyed) this.#end(new Fault('stream_broken', 'the connection broke'))
    this.#peerLeft = this.#socket.readableEnded
    if (this.#peerLeft) this.#flow()
  }

  /** The socket is gone; what was read from it before still counts (short commands end while their headers are inflated). */
  #onGone(fault: Fault | undefined): void {
    this.#gone ??= { fault }
    this.#flow()
  }

  /** Ends what has no socket, once all that was read is taken. A socket that broke does not wait for an owner that takes nothing. */
  #endGone({ fault }: { readonly fault: Fault | undefined }): void {
    if (this.#over || this.#inflating) return
    if (!this.#peerLeft || this.#isDeaf) this.#end(fault)
    else if (this.#rest.length === 0) this.#leave()
  }

  /** Reads as far as it may, and lets the socket do so. Called whenever one of the reasons to wait has changed. */
  #flow(): void {
    if (this.#reading) {
      this.#parser.halted = this.#waits || this.#isDeaf
      return
    }
    this.#read()
    if (this.#gone !== undefined) this.#endGone(this.#gone)
    else if (this.#isDeaf) {
      this.#rest = NOTHING
      if (this.#peerLeft && this.#socket.writableFinished) this.#socket.destroy()
      else this.#socket.resume()
    } else if (this.#waits) this.#socket.pause()
    else if (this.#peerLeft) this.#leave()
    else this.#socket.resume()
  }

  #read(): void {
    this.#reading = true
    try {
      while (!this.#waits && !this.#isDeaf) {
        const chunk = this.#rest
        this.#rest = NOTHING
        this.#parser.halted = false
        const length = this.#parser.push(chunk)
        if (this.#parser.invalid !== undefined) this.#invalid(this.#parser.invalid)
        if (length < chunk.length) this.#rest = joined(chunk.subarray(length), this.#rest)
        if (this.#rest.length === 0) break
      }
    } finally {
      this.#reading = false
    }
  }

  get #waits(): boolean {
    return this.#paused || this.#inflating || this.#flooded
  }

  /** Whether nothing of what still comes matters. */
  get #isDeaf(): boolean {
    return this.#over || this.#closing
  }

  #onControl(frame: ControlFrame): void {
    switch (frame.type) {
      case 'syn_stream':
      case 'syn_reply':
      case 'headers':
        this.#onHeaders(frame)
        break
      case 'rst_stream':
        this.#streams.get(frame.id)?.receiveReset(frame.status)
        break
      case 'ping':
        if (!this.#isOwn(frame.id)) this.#answer(ping(frame.id))
        break
      case 'goaway':
        this.#peerGoesAway = frame.status
    }
  }

  /** A frame with headers: everything behind it waits until they are inflated, whatever becomes of them. */
  #onHeaders(frame: HeadersFrame): void {
    const fault = this.#faultOf(frame)
    if (fault !== undefined) {
      this.#invalid(fault)
      return
    }
    if (frame.type === 'syn_stream') this.#lastPeerId = frame.id
    this.#inflating = true
    this.#flow()
    this.#inflater.inflate(frame.block, (headers) => {
      this.#inflating = false
      if (typeof headers === 'string') this.#invalid(headers)
      else this.#onInflated(frame, headers)
      this.#flow()
    })
  }

  #faultOf({ type, id }: HeadersFrame): string | undefined {
    if (type === 'syn_stream')
      return this.#isOwn(id) || id <= this.#lastPeerId ? `a stream with id ${id}` : undefined
    if (type === 'syn_reply' && (!this.#isOwn(id) || !this.#wasOpened(id)))
      return 'a reply to no stream of ours'
    return this.#streams.get(id)?.faultOf(type === 'syn_reply')
  }

  #onInflated({ type, id, fin }: HeadersFrame, headers: ReadonlyMap<string, string>): void {
    if (type === 'syn_stream') this.#onSynStream(id, headers)
    else if (!this.#wasOpened(id)) this.#answer(rstStream(id, RST.INVALID_STREAM))
    const stream = this.#streams.get(id)
    if (type === 'syn_reply') stream?.receiveReply()
    if (fin) stream?.receiveEnd()
  }

  #onSynStream(id: number, headers: ReadonlyMap<string, string>): void {
    if (this.#peerStreams >= MAX_OPEN_STREAMS) {
      this.#answer(rstStream(id, RST.REFUSED_STREAM))
      return
    }
    const stream = new Stream(id, headers, false, this.#ports)
    this.#streams.set(id, stream)
    this.#peerStreams++
    this.onStream(stream)
  }

  #onDataStart(id: number): void {
    this.#receiver = this.#streams.get(id)
    const fault = this.#receiver?.faultOf(false)
    if (fault !== undefined) this.#invalid(fault)
    // what comes for a stream that was reset here was on its way
    else if (!this.#wasOpened(id)) this.#answer(rstStream(id, RST.INVALID_STREAM))
  }

  #isOwn(id: number): boolean {
    return (id & 1) === this.#ownParity
  }

  #wasOpened(id: number): boolean {
    return this.#isOwn(id) ? id < this.#nextId : id <= this.#lastPeerId
  }

  /** A frame that the peer can make us send; reading stops while too many of them wait. */
  #answer(frame: Buffer): void {
    this.#writer.control(frame)
    // as long as it is not told to wait, the socket takes them
    this.#answers = this.#socket.writableNeedDrain ? this.#answers + 1 : 0
    if (this.#answers < MAX_WAITING_ANSWERS) return
    this.#answers = 0
    this.#flooded = true
    this.#flow()
  }

  #invalid(why: string): void {
    if (this.#isDeaf) return
    this.#writer.end(goAway(this.#lastPeerId, GOAWAY.PROTOCOL_ERROR), () => {
      this.#flow()
    })
    this.#end(new Fault('spdy_invalid', `the peer sent ${why}`))
    this.#lingerFor(FAULT_LINGER_MS)
  }

  /** The peer has left, and everything of it was read. */
  #leave(): void {
    const cut = !this.#parser.betweenFrames
    const early = this.#streams.size > 0 && this.#peerGoesAway === undefined
    const blamed = this.#peerGoesAway !== undefined && this.#peerGoesAway !== GOAWAY.OK
    this.#end(
      cut || early || blamed
        ? new Fault(
            'stream_broken',
            `the peer left${blamed ? ': it was sent what is invalid' : ''}`,
          )
        : undefined,
    )
    this.#lingerFor(FAULT_LINGER_MS)
    this.#socket.end(() => this.#socket.destroy())
  }

  #lingerFor(ms: number): void {
    if (this.#socket.closed) return
    this.#linger = setTimeout(() => this.#socket.destroy(), ms).unref()
  }

  #abandonStreams(why: Fault): void {
    for (const stream of this.#streams.values()) stream.abandon(why)
  }

  #end(fault: Fault | undefined): void {
    if (this.#over) return
    this.#over = true
    this.#parser.halted = true
    this.#writer.stop()
    this.#inflater.destroy()
    this.#abandonStreams(fault ?? new Fault('stream_broken', 'the connection has ended'))
    this.#settle(fault)
  }
}

function joined(first: Buffer, second: Buffer): Buffer {
  if (first.length === 0) return second
  return second.length === 0 ? first : Buffer.concat([first, second])
}
