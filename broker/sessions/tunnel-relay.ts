/** An application's own protocol behind `proxy`: opaque, recorded as one connection. */
import type { Duplex } from 'node:stream'
import type { SessionRecorder } from './recorder.ts'
import type { Stop } from './stop.ts'
import type { ForwardEnd } from './forward-relay.ts'
import { roomOf } from './clients/websocket.ts'
import { throttle } from './throttle.ts'

/** How long a side may take to read what is left for it after the other has ended, in milliseconds. */
const FLUSH_LIMIT_MS = 30_000

/** Runs until both sides have ended, one breaks, or `stop` settles; both are closed then. */
export async function joinTunnel(
  client: Duplex,
  server: Duplex,
  recorder: SessionRecorder,
  stop: Promise<Stop>,
): Promise<ForwardEnd> {
  const connection = recorder.opened(0)
  let bytesToClient = 0
  let bytesToServer = 0
  const toServer = pump(client, server, recorder, (bytes) => {
    if (!recorder.fromClient(connection, bytes)) return false
    bytesToServer += bytes.length
    return true
  })
  const toClient = pump(server, client, recorder, (bytes) => {
    if (!recorder.toClient(connection, bytes)) return false
    bytesToClient += bytes.length
    return true
  })
  const stopped = await Promise.race([stop, Promise.all([toServer, toClient])])
  client.destroy()
  server.destroy()
  recorder.closed(connection)
  return {
    ...('ending' in stopped ? { stop: stopped } : {}),
    ...{ bytesToClient, bytesToServer },
  }
}

/** Carries one direction; settles when it has ended, or either side is gone. */
function pump(
  from: Duplex,
  to: Duplex,
  recorder: SessionRecorder,
  mayGoOn: (bytes: Buffer) => boolean,
): Promise<void> {
  return new Promise((resolve) => {
    const check = throttle(from, [() => roomOf(to), () => recorder.room()])
    const gone = (): void => {
      // what a side sent before it ended still reaches the other, for a while
      if (from.readableEnded && !to.destroyed) return
      to.destroy()
      resolve()
    }
    from.on('data', (bytes: Buffer) => {
      if (!mayGoOn(bytes)) return
      to.write(bytes)
      check(bytes.length)
    })
    from.once('end', () => {
      to.end(() => {
        resolve()
      })
      const timer = setTimeout(() => to.destroy(), FLUSH_LIMIT_MS)
      to.once('close', () => {
        clearTimeout(timer)
        resolve()
      })
    })
    from.on('error', gone)
    from.once('close', gone)
    if (from.destroyed) gone()
    else from.resume()
  })
}
