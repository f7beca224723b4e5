/** SPDY under a client's session: on its own connection, or in the binary messages of a WebSocket (`SPDY/3.1+portforward.k8s.io`). */
import { Duplex } from 'node:stream'
import type { Fault } from '../../../shared/errors.ts'
import { stopOf } from '../stop.ts'
import type { Stop } from '../stop.ts'
import type { OnMessage, WebSocketSide } from './websocket.ts'

/** What the end of a client's connection means for its session. */
export function clientStop(fault: Fault | undefined): Stop | undefined {
  if (fault === undefined) return undefined
  return fault.code === 'spdy_invalid'
    ? stopOf('protocol_invalid', fault.message)
    : stopOf('client_left')
}

/** A WebSocket's binary messages as one stream of bytes each way. Another kind of message ends it. */
export function bytesOver(accepted: (onMessage: OnMessage) => WebSocketSide): Duplex {
  const side = accepted((message, isBinary) => {
    if (!isBinary) side.reject()
    else if (!duplex.push(message)) side.pause()
  })
  const send = (bytes: Buffer, done: () => void): void => {
    side.send(bytes)
    const room = side.room()
    if (room === undefined) done()
    else void room.then(done)
  }
  const duplex = new Duplex({
    read() {
      side.resume()
    },
    write(chunk: Buffer, _encoding, done) {
      send(chunk, done)
    },
    // a frame's head and its bytes come one after the other, and make one message
    writev(chunks: { readonly chunk: Buffer }[], done) {
      send(Buffer.concat(chunks.map(({ chunk }) => chunk)), done)
    },
    final(done) {
      side.close()
      done()
    },
    destroy(error, done) {
      side.destroy()
      done(error)
    },
  })
  void side.closed.then((why) => {
    if (why === undefined) duplex.push(null)
    else duplex.destroy(new Error(why.text))
  })
  return duplex
}
