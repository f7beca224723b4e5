/**
 * A command's client over SPDY/3.1: it opens a stream for each of `error`, `stdin`, `stdout`, `stderr`, `resize` that its request announces, and
 * the command may begin when all are there.
 *
 * Source: kubelet/pkg/cri/streaming/remotecommand/httpstream.go.
 */
import type { SpdyConnection, SpdyStream } from '../spdy/connection.ts'
import { stopOf } from '../stop.ts'
import type { Stop } from '../stop.ts'
import type { CommandClient, CommandInput, Output } from '../streams.ts'
import { createSizeReader } from '../terminal-size.ts'
import type { CommandStreams } from '../ways.ts'
import { clientStop } from './spdy.ts'

/** How long the client may take to open its streams, in milliseconds (kubelet, DefaultStreamCreationTimeout). */
const STREAMS_MS = 30_000

/** What the client may send before it has opened all of its streams, in bytes. */
const MAX_EARLY_BYTES = 256 * 1024

/** Types of streams, in the header `streamType`. */
type StreamType = 'error' | 'stdin' | Output | 'resize'

/** RST_STREAM status (SPDY/3.1, 2.4.2). */
const PROTOCOL_ERROR = 1

/** The streams that a request announces; `error` is always one of them. */
export function streamTypes({ stdin, stdout, stderr, tty }: CommandStreams): readonly StreamType[] {
  return [
    'error',
    ...(stdin ? (['stdin'] as const) : []),
    ...(stdout ? (['stdout'] as const) : []),
    ...(stderr ? (['stderr'] as const) : []),
    ...(tty ? (['resize'] as const) : []),
  ]
}

/**
 * Waits for the client's streams.
 *
 * @returns its side, or why there is none: it left, was too slow, or opened others than it announced; the connection is cut then
 */
export function commandOverSpdy(
  connection: SpdyConnection,
  streams: CommandStreams,
): Promise<CommandClient | Stop> {
  const expected = new Set(streamTypes(streams))
  const opened = new Map<StreamType, SpdyStream>()
  const { promise, resolve } = Promise.withResolvers<CommandClient | Stop>()
  const fail = (why: Stop): void => {
    clearTimeout(timer)
    resolve(why)
    connection.destroy()
  }
  const timer = setTimeout(() => {
    fail(stopOf('protocol_invalid'))
  }, STREAMS_MS)
  const invalid = Promise.withResolvers<Stop>()
  const early = new Early()
  connection.onStream = (stream) => {
    const type = [...expected].find((name) => name === stream.headers.get('streamtype'))
    if (type === undefined || opened.has(type)) {
      stream.reset(PROTOCOL_ERROR)
      invalid.resolve(stopOf('protocol_invalid'))
      fail(stopOf('protocol_invalid'))
      return
    }
    opened.set(type, stream)
    stream.reply()
    early.hold(type, stream, () => {
      fail(stopOf('protocol_invalid'))
    })
    if (opened.size < expected.size) return
    clearTimeout(timer)
    // what the client sends waits with it until somebody listens
    connection.pause()
    resolve(clientOf(connection, opened, early, invalid))
  }
  void connection.closed.then((fault) => {
    fail(clientStop(fault) ?? stopOf('client_left'))
  })
  connection.resume()
  return promise
}

/** What comes before all streams are there: kept for when somebody listens. */
class Early {
  readonly #events: { readonly type: StreamType; readonly bytes: Buffer | undefined }[] = []
  #bytes = 0

  hold(type: StreamType, stream: SpdyStream, tooMuch: () => void): void {
    stream.onData = (bytes) => {
      this.#bytes += bytes.length
      if (this.#bytes > MAX_EARLY_BYTES) tooMuch()
      else this.#events.push({ type, bytes })
    }
    const end = (): void => {
      this.#events.push({ type, bytes: undefined })
    }
    stream.onEnd = end
    stream.onReset = end
  }

  replay(opened: ReadonlyMap<StreamType, SpdyStream>): void {
    for (const { type, bytes } of this.#events) {
      const stream = opened.get(type)
      if (bytes === undefined) stream?.onEnd()
      else stream?.onData(bytes)
    }
  }
}

function clientOf(
  connection: SpdyConnection,
  opened: ReadonlyMap<StreamType, SpdyStream>,
  early: Early,
  invalid: PromiseWithResolvers<Stop>,
): CommandClient {
  const reject = (): void => {
    invalid.resolve(stopOf('protocol_invalid'))
    connection.destroy()
  }
  const closed = Promise.race([invalid.promise, connection.closed.then(clientStop)])
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
    close() {
      for (const stream of opened.values()) stream.end()
      connection.close()
    },
    start(to) {
      listen(opened, to, reject)
      early.replay(opened)
      connection.resume()
    },
    output(stream, bytes) {
      opened.get(stream)?.write(bytes)
    },
    endOutput(stream) {
      opened.get(stream)?.end()
    },
    status(text) {
      const stream = opened.get('error')
      stream?.write(text)
      stream?.end()
    },
  }
}

function listen(
  opened: ReadonlyMap<StreamType, SpdyStream>,
  to: CommandInput,
  reject: () => void,
): void {
  const sizes = createSizeReader()
  for (const [type, stream] of opened) {
    stream.onData = (bytes) => {
      if (type === 'stdin') to.input(bytes)
      else if (type === 'resize') {
        const read = sizes.push(bytes)
        if (read === undefined) reject()
        else for (const size of read) to.resize(size)
      } else reject()
    }
    const end = (): void => {
      if (type === 'stdin') to.endInput()
    }
    // clients end and reset streams of output as they like
    stream.onEnd = end
    stream.onReset = end
  }
}
