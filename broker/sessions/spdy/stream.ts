/** One stream of a SPDY connection. */
import { Fault } from '../../../shared/errors.ts'

/** What the owner of a connection sees of a stream. Handlers are called in the order of the wire, never after `reset`. */
export interface SpdyStream {
  readonly id: number
  /** Of its SYN_STREAM: names in lower case, one character for each byte, several values joined by NUL. */
  readonly headers: ReadonlyMap<string, string>
  /** The peer's bytes; set at once by the owner: what comes before is lost. */
  onData: (bytes: Buffer) => void
  /** The peer sends no more. */
  onEnd: () => void
  /** The peer gave the stream up: nothing follows, and what is written is ignored. */
  onReset: (status: number) => void
  /** Accepts a stream that the peer opened; before anything is written to it, which does so too. */
  reply(): void
  /** Sends bytes, which may not change afterwards. @returns false: wait for the connection's `room()` */
  write(bytes: Uint8Array): boolean
  /** Sends no more; the peer still may. What is written then is ignored. */
  end(): void
  /** Gives the stream up; no handler is called any more. */
  reset(status: number): void
}

/** What a stream needs of its connection. */
export interface StreamPorts {
  sendReply(id: number): void
  sendData(id: number, bytes: Uint8Array): boolean
  sendEnd(id: number): void
  sendReset(id: number, status: number): void
  /** The stream has ended both ways, or was reset. */
  isOver(stream: Stream): void
}

const ignore = (): void => undefined

/** The state of a stream. */
export class Stream implements SpdyStream {
  readonly id: number
  readonly headers: ReadonlyMap<string, string>
  onData: (bytes: Buffer) => void = ignore
  onEnd: () => void = ignore
  onReset: (status: number) => void = ignore
  readonly #own: boolean
  readonly #ports: StreamPorts
  #replied = false
  #ended = false
  #peerEnded = false
  #over = false
  #why: Fault | undefined
  #reply: PromiseWithResolvers<undefined> | undefined

  /** @param own - whether our side opened it */
  constructor(id: number, headers: ReadonlyMap<string, string>, own: boolean, ports: StreamPorts) {
    this.id = id
    this.headers = headers
    this.#own = own
    this.#ports = ports
  }

  reply(): void {
    if (this.#own || this.#replied || this.#over) return
    this.#replied = true
    this.#ports.sendReply(this.id)
  }

  write(bytes: Uint8Array): boolean {
    if (this.#ended || this.#over) return true
    this.reply()
    return this.#ports.sendData(this.id, bytes)
  }

  end(): void {
    if (this.#ended || this.#over) return
    this.reply()
    this.#ended = true
    this.#ports.sendEnd(this.id)
    this.#endIfBoth()
  }

  reset(status: number): void {
    if (this.#over) return
    this.#ports.sendReset(this.id, status)
    this.abandon(new Fault('stream_broken', 'the stream was reset'))
  }

  /** Settles as the connection's `replied` does. */
  replied(): Promise<void> {
    if (this.#replied || !this.#own) return Promise.resolve()
    if (this.#why !== undefined) return Promise.reject(this.#why)
    this.#reply ??= Promise.withResolvers<undefined>()
    return this.#reply.promise
  }

  /** Bytes of a DATA frame. */
  receive(bytes: Buffer): void {
    if (!this.#over) this.onData(bytes)
  }

  /** FIN on any frame. */
  receiveEnd(): void {
    if (this.#over) return
    this.#peerEnded = true
    this.#endIfBoth()
    this.onEnd()
  }

  /** SYN_REPLY. */
  receiveReply(): void {
    this.#replied = true
    this.#reply?.resolve(undefined)
    this.#reply = undefined
  }

  /** RST_STREAM. */
  receiveReset(status: number): void {
    if (this.#over) return
    this.abandon(new Fault('stream_broken', `the peer reset the stream with status ${status}`))
    this.onReset(status)
  }

  /** Why a frame for the stream may not come now. @param reply - the frame is its SYN_REPLY */
  faultOf(reply: boolean): string | undefined {
    if (reply) return this.#replied ? 'a second reply' : undefined
    if (this.#peerEnded) return 'a frame behind the end of its stream'
    return this.#own && !this.#replied ? 'a frame before the reply to its stream' : undefined
  }

  /** Ends it without a word. */
  abandon(why: Fault): void {
    if (this.#over) return
    this.#over = true
    this.#why = why
    this.#reply?.reject(why)
    this.#reply = undefined
    this.#ports.isOver(this)
  }

  #endIfBoth(): void {
    if (!this.#ended || !this.#peerEnded) return
    this.#over = true
    this.#ports.isOver(this)
  }
}
