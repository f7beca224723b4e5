/**
 * A port-forward's client over WebSocket channels, as Python's and JavaScript's libraries speak it: of the n-th port in the query channel 2n is
 * data and 2n + 1 errors, open from the start. The first message on each says the port, two bytes, little-endian.
 *
 * Source: kubelet/pkg/cri/streaming/portforward/websocket.go.
 */
import type { ForwardClient, ForwardOpening, ForwardStream } from '../streams.ts'
import type { Way } from '../ways.ts'
import { sendOn, unframe } from './command-websocket.ts'
import type { OnMessage, WebSocketSide } from './websocket.ts'

/** Makes the client's side. */
export function forwardOverChannels(
  accepted: (onMessage: OnMessage) => WebSocketSide,
  { protocol, ports }: Extract<Way, { readonly transport: 'channels' }>,
): ForwardClient {
  const isBase64 = protocol === 'v4.base64.channel.k8s.io'
  const data: ForwardStream[] = []
  let open = ports.length
  const side = accepted((message, isBinary) => {
    const framed = unframe(message, isBinary, isBase64)
    const stream =
      framed === undefined || framed.channel % 2 === 1 ? undefined : data[framed.channel / 2]
    if (framed === undefined || stream === undefined) side.reject()
    else stream.onData(framed.bytes)
  })
  const channel = (number: number, onEnd: () => void): ForwardStream => ({
    onData: () => undefined,
    onEnd: () => undefined,
    onReset: () => undefined,
    write(bytes) {
      sendOn(side, number, bytes, isBase64)
    },
    end: onEnd,
    reset: onEnd,
  })
  const { closed, room, pause, resume, destroy, close } = side
  return {
    ...{ closed, room, pause, resume, destroy, close },
    start(opened) {
      for (const [index, port] of ports.entries()) {
        let ended = false
        // a channel cannot end by itself: the connection ends with its last port
        const endData = (): void => {
          if (ended) return
          ended = true
          open -= 1
          if (open === 0) side.close()
        }
        const opening = (name: ForwardOpening['name'], number: number): void => {
          const stream = channel(number, name === 'data' ? endData : () => undefined)
          stream.write(portBytes(port))
          if (name === 'data') data[index] = stream
          opened({ name, port, requestId: String(index), stream })
        }
        opening('error', 2 * index + 1)
        opening('data', 2 * index)
      }
      side.resume()
    },
  }
}

function portBytes(port: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(port)
  return bytes
}
