/**
 * A port-forward's client over SPDY: for each connection a stream `error` and a stream `data`, which their headers `port` and `requestID` join.
 *
 * Source: kubelet/pkg/cri/streaming/portforward/httpstream.go.
 */
import type { SpdyConnection, SpdyStream } from '../spdy/connection.ts'
import type { ForwardClient, ForwardStream, ForwardStreamName } from '../streams.ts'
import { stopOf } from '../stop.ts'
import type { Stop } from '../stop.ts'
import { clientStop } from './spdy.ts'

/** RST_STREAM statuses (SPDY/3.1, 2.4.2). */
const PROTOCOL_ERROR = 1
const CANCEL = 5
const PORT = /^[1-9]\d{0,4}$/
const MAX_PORT = 65_535
/** Longest `requestID`, in characters; kubectl counts. */
const MAX_REQUEST_ID_LENGTH = 64

/** Makes the client's side. */
export function forwardOverSpdy(connection: SpdyConnection): ForwardClient {
  const invalid = Promise.withResolvers<Stop>()
  return {
    closed: Promise.race([invalid.promise, connection.closed.then(clientStop)]),
    room: () => connection.room(),
    pause() {
      connection.pause()
    },
    resume() {
      connection.resume()
    },
    destroy() {
      connection.destroy()
    },
    close() {
      connection.close()
    },
    start(opened) {
      connection.onStream = (stream) => {
        const name = nameOf(stream)
        const port = portOf(stream)
        if (name === undefined || port === undefined) {
          stream.reset(PROTOCOL_ERROR)
          invalid.resolve(stopOf('protocol_invalid'))
          connection.destroy()
          return
        }
        stream.reply()
        opened({ name, port, requestId: requestIdOf(stream, name), stream: streamOf(stream) })
      }
      connection.resume()
    },
  }
}

function nameOf({ headers }: SpdyStream): ForwardStreamName | undefined {
  const type = headers.get('streamtype')
  return type === 'data' || type === 'error' ? type : undefined
}

function portOf({ headers }: SpdyStream): number | undefined {
  const text = headers.get('port') ?? ''
  return PORT.test(text) && Number(text) <= MAX_PORT ? Number(text) : undefined
}

/** Clients before `requestID` open `error` first and `data` next, whose ids differ by two. */
function requestIdOf({ headers, id }: SpdyStream, name: ForwardStreamName): string {
  const given = headers.get('requestid')
  if (given !== undefined && given !== '') return given.slice(0, MAX_REQUEST_ID_LENGTH)
  return `stream ${name === 'error' ? id : id - 2}`
}

/** A stream as the relay sees it; its listeners are set before anything can come. */
export function streamOf(stream: SpdyStream): ForwardStream {
  const made: ForwardStream = {
    onData: () => undefined,
    onEnd: () => undefined,
    onReset: () => undefined,
    write(bytes) {
      stream.write(bytes)
    },
    end() {
      stream.end()
    },
    reset() {
      stream.reset(CANCEL)
    },
  }
  stream.onData = (bytes) => {
    made.onData(bytes)
  }
  stream.onEnd = () => {
    made.onEnd()
  }
  stream.onReset = () => {
    made.onReset()
  }
  return made
}
