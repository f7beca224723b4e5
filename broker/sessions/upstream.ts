/**
 * The API server's side of a session: SPDY/3.1, by the client's own HTTP method (docs/decisions/0009). A command begins when all its streams are
 * open, so that nothing runs before `start`.
 */
import type { Duplex } from 'node:stream'
import type { Fault } from '../../shared/errors.ts'
import { codeOf } from '../../shared/errors.ts'
import { streamTypes } from './clients/command-spdy.ts'
import { streamOf } from './clients/forward-spdy.ts'
import { createSpdyConnection } from './spdy/connection.ts'
import type { SpdyConnection, SpdyStream } from './spdy/connection.ts'
import { stopOf } from './stop.ts'
import type { CommandServer, ForwardServer, Output, Side } from './streams.ts'
import { writeSize } from './terminal-size.ts'
import type { CommandStreams } from './ways.ts'

/** How often a sign of life is sent, in milliseconds: below what balancers between here and there take for dead. */
const PING_MS = 20_000
/** Longest `Status` of a command, in bytes. */
const MAX_STATUS_BYTES = 64 * 1024

/** The command behind a connection that the API server has switched. */
export function commandBehind(socket: Duplex, streams: CommandStreams): CommandServer {
  const connection = createSpdyConnection(socket, { role: 'client' })
  const opened = new Map<string, SpdyStream>()
  return {
    ...sideOf(connection),
    start(to) {
      for (const type of streamTypes(streams)) {
        const stream = connection.open({ streamtype: type })
        opened.set(type, stream)
        if (type === 'error')
          collect(connection, stream, (text) => {
            to.status(text)
          })
        else if (type === 'stdout' || type === 'stderr') pass(stream, type, to)
        else ignore(stream)
      }
      connection.resume()
    },
    input(bytes) {
      opened.get('stdin')?.write(bytes)
    },
    endInput() {
      opened.get('stdin')?.end()
    },
    resize(size) {
      opened.get('resize')?.write(writeSize(size))
    },
  }
}

function pass(
  stream: SpdyStream,
  name: Output,
  to: { output(name: Output, bytes: Buffer): void; endOutput(name: Output): void },
): void {
  stream.onData = (bytes) => {
    to.output(name, bytes)
  }
  const end = once(() => {
    to.endOutput(name)
  })
  // the kubelet resets what is still open when the command is over (httpstream/spdy, Close)
  stream.onEnd = end
  stream.onReset = end
}

/** The command's status is one text; it is told when it has ended, and also where the connection ends behind it. */
function collect(
  connection: SpdyConnection,
  stream: SpdyStream,
  tell: (text: Buffer) => void,
): void {
  let text = Buffer.alloc(0)
  stream.onData = (bytes) => {
    if (text.length < MAX_STATUS_BYTES) text = Buffer.concat([text, bytes])
  }
  const end = once(() => {
    tell(text)
  })
  stream.onEnd = end
  stream.onReset = end
  void connection.closed.then(() => {
    if (isWhole(text)) end()
  })
}

function ignore(stream: SpdyStream): void {
  stream.onData = () => undefined
  stream.onEnd = () => undefined
  stream.onReset = () => undefined
}

function isWhole(text: Buffer): boolean {
  try {
    JSON.parse(text.toString('utf8'))
    return true
  } catch {
    return false
  }
}

function once(call: () => void): () => void {
  let called = false
  return () => {
    if (called) return
    called = true
    call()
  }
}

/** The pod's ports behind a connection that the API server has switched. */
export function portsBehind(socket: Duplex): ForwardServer {
  const connection = createSpdyConnection(socket, { role: 'client' })
  connection.resume()
  return {
    ...sideOf(connection),
    open({ name, port, requestId }) {
      const headers = { streamtype: name, port: String(port), requestid: requestId }
      return streamOf(connection.open(headers))
    },
    close() {
      connection.close()
    },
  }
}

function sideOf(connection: SpdyConnection): Side {
  // the API server opens no streams
  connection.onStream = (stream) => {
    stream.reset(REFUSED_STREAM)
  }
  const ping = setInterval(() => {
    connection.ping()
  }, PING_MS)
  ping.unref()
  const closed = connection.closed.then((fault) => {
    clearInterval(ping)
    return fault && stopOf('stream_broken', reasonOf(fault))
  })
  return {
    closed,
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
  }
}

/** What the connection says of its end, and the system's code where there is one. */
function reasonOf(fault: Fault): string {
  const code = codeOf(fault.cause)
  return code === undefined ? fault.message : `${fault.message} (${code})`
}

/** RST_STREAM status (SPDY/3.1, 2.4.2). */
const REFUSED_STREAM = 3
