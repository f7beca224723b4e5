/** Port-forward: connections of a client joined with the pod's ports, each counted, hashed, and kept as far as policy says. */
import type { SessionRecorder } from './recorder.ts'
import type { Stop } from './stop.ts'
import type { ForwardClient, ForwardOpening, ForwardServer, ForwardStream } from './streams.ts'
import { throttle } from './throttle.ts'

/** Connections of one session at once: a browser opens some ten. */
const MAX_CONNECTIONS = 256
/** How much of an error that the API server tells of a connection is kept, in bytes. */
const MAX_ERROR_BYTES = 1024

/** How a port-forward went; undefined `stop` where its client ended it. */
export interface ForwardEnd {
  readonly stop?: Stop
  readonly bytesToClient: number
  readonly bytesToServer: number
}

/** Runs until one side is gone or `stop` settles. */
export async function joinForward(
  client: ForwardClient,
  server: ForwardServer,
  recorder: SessionRecorder,
  stop: Promise<Stop>,
): Promise<ForwardEnd> {
  const forward = new Forward(client, server, recorder)
  client.start((opening) => {
    forward.open(opening)
  })
  const stopped = await Promise.race([stop, client.closed, server.closed])
  const { bytesToClient, bytesToServer } = forward
  return { ...(stopped === undefined ? {} : { stop: stopped }), bytesToClient, bytesToServer }
}

/** A connection whose two streams are coming, or there. */
interface Connection {
  readonly port: number
  /** Of the recording. */
  readonly number: number
  readonly names: Set<ForwardOpening['name']>
  error: Buffer
}

class Forward {
  bytesToClient = 0
  bytesToServer = 0
  readonly #server: ForwardServer
  readonly #recorder: SessionRecorder
  readonly #connections = new Map<string, Connection>()
  readonly #fromClient: (bytes: number) => void
  readonly #fromServer: (bytes: number) => void

  constructor(client: ForwardClient, server: ForwardServer, recorder: SessionRecorder) {
    this.#server = server
    this.#recorder = recorder
    this.#fromClient = throttle(client, [() => server.room(), () => recorder.room()])
    this.#fromServer = throttle(server, [() => client.room(), () => recorder.room()])
  }

  open(opening: ForwardOpening): void {
    const connection = this.#connectionOf(opening)
    if (connection === undefined) {
      opening.stream.reset()
      return
    }
    connection.names.add(opening.name)
    const { name, port, requestId, stream } = opening
    const towards = this.#server.open({ name, port, requestId })
    if (name === 'data') this.#joinData(requestId, connection, stream, towards)
    else this.#joinError(connection, stream, towards)
  }

  /** The connection that a stream belongs to; undefined where it is there already, or there are too many. */
  #connectionOf({ name, port, requestId }: ForwardOpening): Connection | undefined {
    const known = this.#connections.get(requestId)
    if (known !== undefined)
      return known.port === port && !known.names.has(name) ? known : undefined
    if (this.#connections.size >= MAX_CONNECTIONS) return undefined
    const number = this.#recorder.opened(port)
    const made = { port, number, names: new Set<ForwardOpening['name']>(), error: Buffer.alloc(0) }
    this.#connections.set(requestId, made)
    return made
  }

  #joinData(
    requestId: string,
    connection: Connection,
    client: ForwardStream,
    server: ForwardStream,
  ): void {
    const { number } = connection
    let open = 2
    const over = (): void => {
      if (this.#connections.get(requestId) !== connection) return
      this.#connections.delete(requestId)
      const error = connection.error.toString('utf8')
      this.#recorder.closed(number, error === '' ? undefined : error)
    }
    client.onData = (bytes) => {
      if (!this.#recorder.fromClient(number, bytes)) return
      this.bytesToServer += bytes.length
      server.write(bytes)
      this.#fromClient(bytes.length)
    }
    server.onData = (bytes) => {
      if (!this.#recorder.toClient(number, bytes)) return
      this.bytesToClient += bytes.length
      client.write(bytes)
      this.#fromServer(bytes.length)
    }
    couple(
      client,
      server,
      () => {
        open -= 1
        if (open === 0) over()
      },
      over,
    )
  }

  #joinError(connection: Connection, client: ForwardStream, server: ForwardStream): void {
    client.onData = (bytes) => {
      server.write(bytes)
    }
    server.onData = (bytes) => {
      connection.error = Buffer.concat([connection.error, bytes]).subarray(0, MAX_ERROR_BYTES)
      client.write(bytes)
      this.#fromServer(bytes.length)
    }
    couple(
      client,
      server,
      () => undefined,
      () => undefined,
    )
  }
}

/** Ends and resets of one side go to the other. */
function couple(
  client: ForwardStream,
  server: ForwardStream,
  ended: () => void,
  reset: () => void,
): void {
  for (const [from, to] of [
    [client, server],
    [server, client],
  ] as const) {
    from.onEnd = () => {
      to.end()
      ended()
    }
    from.onReset = () => {
      to.reset()
      reset()
    }
  }
}
