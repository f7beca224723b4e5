/**
 * A command's client over WebSocket: one channel byte, then the bytes (`v4.channel.k8s.io`, `v5.channel.k8s.io`), or one channel digit, then
 * base64 (`v4.base64.channel.k8s.io`). Version 5 has a message that ends a channel: 255 and the channel.
 *
 * Source: apiserver/pkg/util/proxy/streamtranslator.go, kubelet/pkg/cri/streaming/remotecommand/websocket.go.
 */
import type { CommandClient, CommandInput } from '../streams.ts'
import { readSize } from '../terminal-size.ts'
import type { CommandProtocol, CommandStreams } from '../ways.ts'
import type { OnMessage, WebSocketSide } from './websocket.ts'

const STDIN = 0
const STDOUT = 1
const STDERR = 2
const STATUS = 3
const RESIZE = 4
/** Version 5: the next byte says which channel ends. */
const CLOSE = 255
const DIGIT_0 = 0x30
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/

/** Makes the client's side. @param accepted - the WebSocket behind its handshake */
export function commandOverWebSocket(
  accepted: (onMessage: OnMessage) => WebSocketSide,
  protocol: CommandProtocol,
  streams: CommandStreams,
): CommandClient {
  const isBase64 = protocol === 'v4.base64.channel.k8s.io'
  const canClose = protocol === 'v5.channel.k8s.io'
  let reader: InputReader | undefined
  const side = accepted((message, isBinary) => {
    const framed = unframe(message, isBinary, isBase64)
    if (framed === undefined || reader?.take(framed.channel, framed.bytes) !== true) side.reject()
  })
  const send = (channel: number, bytes: Buffer): void => {
    sendOn(side, channel, bytes, isBase64)
  }
  const { closed, room, pause, resume, destroy, close } = side
  return {
    ...{ closed, room, pause, resume, destroy, close },
    start(input) {
      reader = new InputReader(input, streams, canClose)
      // tells the client that the session is there (kubelet, createWebSocketStreams)
      send(firstChannel(streams), Buffer.alloc(0))
      side.resume()
    },
    output(stream, bytes) {
      send(stream === 'stdout' ? STDOUT : STDERR, bytes)
    },
    // no version tells a client that one of its outputs has ended
    endOutput() {
      return
    },
    status(text) {
      send(STATUS, text)
    },
  }
}

/** What a client may send. */
class InputReader {
  readonly #to: CommandInput
  readonly #streams: CommandStreams
  readonly #canClose: boolean
  #ended = false

  constructor(to: CommandInput, streams: CommandStreams, canClose: boolean) {
    this.#to = to
    this.#streams = streams
    this.#canClose = canClose
  }

  /** @returns false for what is none of the protocol, or of no stream that the request announces */
  take(channel: number, bytes: Buffer): boolean {
    if (channel === STDIN) return this.#input(bytes)
    if (channel === RESIZE) return this.#resize(bytes)
    return channel === CLOSE && this.#close(bytes)
  }

  #input(bytes: Buffer): boolean {
    if (!this.#streams.stdin || this.#ended) return false
    this.#to.input(bytes)
    return true
  }

  #resize(bytes: Buffer): boolean {
    const size = this.#streams.tty ? readSize(bytes) : undefined
    if (size !== undefined) this.#to.resize(size)
    return size !== undefined
  }

  #close(bytes: Buffer): boolean {
    if (!this.#canClose || !this.#streams.stdin) return false
    if (bytes.length !== 1 || bytes[0] !== STDIN) return false
    if (!this.#ended) this.#to.endInput()
    this.#ended = true
    return true
  }
}

function firstChannel({ stdout, stderr }: CommandStreams): number {
  if (stdout) return STDOUT
  return stderr ? STDERR : STATUS
}

/** Sends a message of one channel. */
export function sendOn(
  side: WebSocketSide,
  channel: number,
  bytes: Buffer,
  isBase64: boolean,
): void {
  if (isBase64) side.send(String.fromCodePoint(DIGIT_0 + channel) + bytes.toString('base64'))
  else side.sendChannel(channel, bytes)
}

/** Reads a message; undefined where it is none of the protocol. */
export function unframe(
  message: Buffer,
  isBinary: boolean,
  isBase64: boolean,
): { readonly channel: number; readonly bytes: Buffer } | undefined {
  const first = message[0]
  // libraries send texts as text: Kubernetes takes the bytes of either (x/net/websocket, Message.Receive)
  if (first === undefined || (isBinary && isBase64)) return undefined
  const rest = message.subarray(1)
  if (!isBase64) return { channel: first, bytes: rest }
  const text = rest.toString('latin1')
  if (!BASE64.test(text)) return undefined
  return { channel: first - DIGIT_0, bytes: Buffer.from(text, 'base64') }
}
