/**
 * Frames of SPDY/3.1 (draft-mbelshe-httpbis-spdy-00, section 2.2), read as they arrive and written. Every number is big-endian.
 *
 *   control   1 | version u15 | type u16 | flags u8 | length u24 | payload
 *   data      0 | stream u31 | flags u8 | length u24 | bytes
 *
 * What peers do that are made of moby/spdystream (kubectl, kubelet, containerd, CRI-O), read in its source: there are no flow
 * control windows. It never sends WINDOW_UPDATE or SETTINGS, and drops both when they come (`Serve`: "unhandled frame type"); only
 * the connection under it pushes back. Here they are accepted and ignored too. A type that it does not know ends its connection
 * (`newControlFrame`); the draft says that it must be ignored, and so it is here.
 */

/** The longest payload of a control frame, in bytes: the most that a connection buffers. */
export const MAX_CONTROL_BYTES = 16 * 1024
/** The longest payload of a DATA frame that is sent, in bytes; a longer one may come. */
export const MAX_DATA_BYTES = 64 * 1024
/** Bytes before every payload. */
export const HEAD_BYTES = 8

/** Types of control frames. */
export const FRAME = {
  SYN_STREAM: 1,
  SYN_REPLY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  GOAWAY: 7,
  HEADERS: 8,
  WINDOW_UPDATE: 9,
} as const

/** Statuses of RST_STREAM that are sent or told apart. */
export const RST = {
  PROTOCOL_ERROR: 1,
  INVALID_STREAM: 2,
  REFUSED_STREAM: 3,
  CANCEL: 5,
  INTERNAL_ERROR: 6,
  STREAM_ALREADY_CLOSED: 9,
} as const

/** Statuses of GOAWAY. */
export const GOAWAY = { OK: 0, PROTOCOL_ERROR: 1 } as const

/** The largest stream id. */
export const MAX_STREAM_ID = 0x7fffffff

const VERSION = 3
const CONTROL_BIT = 0x80000000
const FLAG_FIN = 1
/** Of SETTINGS: forget what was set before. */
const FLAG_CLEAR = 1
const MAX_LENGTH = 0xffffff

/** A control frame that was read. Header blocks are still compressed. */
export type ControlFrame =
  | {
      readonly type: 'syn_stream'
      readonly id: number
      readonly fin: boolean
      readonly block: Buffer
    }
  | {
      readonly type: 'syn_reply'
      readonly id: number
      readonly fin: boolean
      readonly block: Buffer
    }
  | { readonly type: 'headers'; readonly id: number; readonly fin: boolean; readonly block: Buffer }
  | { readonly type: 'rst_stream'; readonly id: number; readonly status: number }
  | { readonly type: 'ping'; readonly id: number }
  | { readonly type: 'goaway'; readonly status: number }

/** What a parser finds, in the order of the wire. */
export interface FrameHandler {
  /** A whole control frame; those that change nothing (SETTINGS, WINDOW_UPDATE, unknown types) are left out. */
  onControl(frame: ControlFrame): void
  /** The head of a DATA frame. */
  onDataStart(id: number): void
  /** Bytes of the DATA frame that has started: a view of what was pushed, at least one byte. */
  onData(bytes: Buffer): void
  /** The DATA frame is complete. */
  onDataEnd(fin: boolean): void
}

/** Reads frames from pieces of any size. Bytes of DATA are handed on at once; only a control frame that is cut in two is kept. */
export class FrameParser {
  /** Set by the handler, to stop behind what it was just given; {@link push} then returns early. */
  halted = false
  readonly #handler: FrameHandler
  readonly #head = Buffer.alloc(HEAD_BYTES)
  #headLength = 0
  #data = false
  #fin = false
  /** Of the payload, in bytes. */
  #left = 0
  #inPayload = false
  #control: Buffer | undefined
  #controlLength = 0
  #invalid: string | undefined

  constructor(handler: FrameHandler) {
    this.#handler = handler
  }

  /** Why what was pushed is no SPDY; nothing more is read once it is set. */
  get invalid(): string | undefined {
    return this.#invalid
  }

  /** Whether the last byte pushed was the last one of a frame. */
  get betweenFrames(): boolean {
    return !this.#inPayload && this.#headLength === 0
  }

  /**
   * Reads a piece.
   *
   * @returns how many bytes were read: fewer than given when the parser was halted, or found something invalid
   */
  push(chunk: Buffer): number {
    let at = 0
    while (!this.halted && this.#invalid === undefined) {
      if (!this.#inPayload) {
        if (at >= chunk.length) break
        at = this.#readHead(chunk, at)
      } else if (this.#left > 0 && at >= chunk.length) break
      else at = this.#data ? this.#readData(chunk, at) : this.#readControl(chunk, at)
    }
    return at
  }

  #readHead(chunk: Buffer, at: number): number {
    if (this.#headLength === 0 && chunk.length - at >= HEAD_BYTES) {
      this.#begin(chunk, at)
      return at + HEAD_BYTES
    }
    const taken = Math.min(HEAD_BYTES - this.#headLength, chunk.length - at)
    chunk.copy(this.#head, this.#headLength, at, at + taken)
    this.#headLength += taken
    if (this.#headLength === HEAD_BYTES) this.#begin(this.#head, 0)
    return at + taken
  }

  #begin(bytes: Buffer, at: number): void {
    const first = bytes.readUInt32BE(at)
    const second = bytes.readUInt32BE(at + 4)
    this.#left = second & MAX_LENGTH
    this.#inPayload = true
    this.#data = first < CONTROL_BIT
    if (this.#data) this.#beginData(first, second >>> 24)
    else {
      if (bytes !== this.#head) bytes.copy(this.#head, 0, at, at + HEAD_BYTES)
      this.#beginControl((first >>> 16) & 0x7fff)
    }
    this.#headLength = 0
  }

  #beginData(id: number, flags: number): void {
    if (id === 0) this.#invalid = 'data for stream 0'
    else if (flags > FLAG_FIN) this.#invalid = 'unknown flags of a DATA frame'
    else {
      this.#fin = flags === FLAG_FIN
      this.#handler.onDataStart(id)
    }
  }

  #beginControl(version: number): void {
    if (version !== VERSION) this.#invalid = `version ${version}`
    else if (this.#left > MAX_CONTROL_BYTES)
      this.#invalid = `a control frame of ${this.#left} bytes`
    this.#control = undefined
    this.#controlLength = 0
  }

  #readData(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#left)
    if (end > at) {
      this.#left -= end - at
      this.#handler.onData(chunk.subarray(at, end))
      // what the frame ends with waits until the handler goes on
      if (this.halted) return end
    }
    if (this.#left === 0) {
      this.#inPayload = false
      this.#handler.onDataEnd(this.#fin)
    }
    return end
  }

  #readControl(chunk: Buffer, at: number): number {
    const end = Math.min(chunk.length, at + this.#left)
    const whole = this.#control === undefined && end - at === this.#left
    let payload = chunk.subarray(at, end)
    if (!whole) {
      this.#control ??= Buffer.allocUnsafe(this.#left)
      payload.copy(this.#control, this.#controlLength)
      this.#controlLength += end - at
      payload = this.#control
    }
    this.#left -= end - at
    if (this.#left > 0) return end
    this.#inPayload = false
    this.#control = undefined
    const frame = decodeControl(this.#head.readUInt16BE(2), this.#head.readUInt8(4), payload)
    if (typeof frame === 'string') this.#invalid = frame
    else if (frame !== undefined) this.#handler.onControl(frame)
    return end
  }
}

/** @returns undefined for a frame that changes nothing; a text: why it is invalid */
function decodeControl(
  type: number,
  flags: number,
  payload: Buffer,
): ControlFrame | string | undefined {
  switch (type) {
    case FRAME.SYN_STREAM:
      return withBlock('syn_stream', flags, payload, 10)
    case FRAME.SYN_REPLY:
      return withBlock('syn_reply', flags, payload, 4)
    case FRAME.HEADERS:
      return withBlock('headers', flags, payload, 4)
    case FRAME.RST_STREAM:
      return decodeReset(flags, payload)
    case FRAME.PING:
      return decodePing(flags, payload)
    case FRAME.GOAWAY:
      return decodeGoAway(flags, payload)
    case FRAME.SETTINGS:
      return settingsFault(flags, payload)
    case FRAME.WINDOW_UPDATE:
      return windowFault(flags, payload)
    default:
      return undefined
  }
}

function withBlock(
  type: 'syn_stream' | 'syn_reply' | 'headers',
  flags: number,
  payload: Buffer,
  blockAt: number,
): ControlFrame | string {
  // FLAG_UNIDIRECTIONAL of a SYN_STREAM too: nobody sends it
  if (flags > FLAG_FIN) return `unknown flags of a frame with headers`
  if (payload.length <= blockAt) return 'a frame with headers that has none'
  const id = payload.readUInt32BE(0)
  if (!isStreamId(id)) return `stream id ${id}`
  return { type, id, fin: flags === FLAG_FIN, block: payload.subarray(blockAt) }
}

function decodeReset(flags: number, payload: Buffer): ControlFrame | string {
  if (flags !== 0 || payload.length !== 8) return 'a malformed RST_STREAM'
  const id = payload.readUInt32BE(0)
  const status = payload.readUInt32BE(4)
  if (!isStreamId(id) || status === 0) return 'a malformed RST_STREAM'
  return { type: 'rst_stream', id, status }
}

function decodePing(flags: number, payload: Buffer): ControlFrame | string {
  if (flags !== 0 || payload.length !== 4) return 'a malformed PING'
  const id = payload.readUInt32BE(0)
  return id === 0 ? 'a malformed PING' : { type: 'ping', id }
}

function decodeGoAway(flags: number, payload: Buffer): ControlFrame | string {
  if (flags !== 0 || payload.length !== 8) return 'a malformed GOAWAY'
  return { type: 'goaway', status: payload.readUInt32BE(4) }
}

function windowFault(flags: number, payload: Buffer): string | undefined {
  return flags !== 0 || payload.length !== 8 ? 'a malformed WINDOW_UPDATE' : undefined
}

function settingsFault(flags: number, payload: Buffer): string | undefined {
  const whole = payload.length >= 4 && payload.length === 4 + 8 * payload.readUInt32BE(0)
  return flags > FLAG_CLEAR || !whole ? 'a malformed SETTINGS' : undefined
}

function isStreamId(id: number): boolean {
  return id > 0 && id <= MAX_STREAM_ID
}

/** The head of a DATA frame, which its bytes follow. @param length - at most {@link MAX_DATA_BYTES} */
export function dataHead(id: number, length: number, fin: boolean): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES)
  head.writeUInt32BE(id, 0)
  setDataLength(head, length, fin)
  return head
}

/** Changes a head of {@link dataHead} that has not been sent. */
export function setDataLength(head: Buffer, length: number, fin = false): void {
  head.writeUInt32BE(((fin ? FLAG_FIN : 0) << 24) | length, 4)
}

/** SYN_STREAM of the highest priority, as spdystream sends it. @param block - its compressed headers */
export function synStream(id: number, block: Buffer): Buffer {
  const fixed = Buffer.alloc(10)
  fixed.writeUInt32BE(id, 0)
  return control(FRAME.SYN_STREAM, fixed, block)
}

/** SYN_REPLY. @param block - its compressed headers */
export function synReply(id: number, block: Buffer): Buffer {
  return control(FRAME.SYN_REPLY, words(id), block)
}

/** RST_STREAM with a status of {@link RST}. */
export function rstStream(id: number, status: number): Buffer {
  return control(FRAME.RST_STREAM, words(id, status))
}

/** PING: odd ids are the client's. */
export function ping(id: number): Buffer {
  return control(FRAME.PING, words(id))
}

/** GOAWAY with a status of {@link GOAWAY}. @param lastGood - the last stream of the peer that was taken, or 0 */
export function goAway(lastGood: number, status: number): Buffer {
  return control(FRAME.GOAWAY, words(lastGood, status))
}

function words(...values: readonly number[]): Buffer {
  const bytes = Buffer.allocUnsafe(4 * values.length)
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value, 4 * index)
  return bytes
}

function control(type: number, fixed: Buffer, block?: Buffer): Buffer {
  const length = fixed.length + (block?.length ?? 0)
  const head = words(CONTROL_BIT + VERSION * 0x10000 + type, length)
  return Buffer.concat(block === undefined ? [head, fixed] : [head, fixed, block])
}
