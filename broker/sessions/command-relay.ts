/** Exec and attach: a client's side joined with the command's, each piece recorded before it goes on. */
import type { SessionRecorder } from './recorder.ts'
import { stopOf } from './stop.ts'
import type { Stop } from './stop.ts'
import type { CommandClient, CommandServer, Output } from './streams.ts'
import { throttle } from './throttle.ts'
import type { CommandStreams } from './ways.ts'

/** How long output may still come behind the command's status, in milliseconds. */
const TAIL_MS = 5_000

/** How a command's session went. */
export interface CommandEnd {
  /** The command's `Status`; undefined where none came. */
  readonly status?: Buffer
  /** Why it ended, where not by itself. */
  readonly stop?: Stop
  readonly bytesToClient: number
  readonly bytesToServer: number
}

/**
 * Runs until the command is over, one side is gone, or `stop` settles. The command's status is not told to the client: the caller does, when
 * the recording is closed.
 */
export async function joinCommand(
  client: CommandClient,
  server: CommandServer,
  streams: CommandStreams,
  recorder: SessionRecorder,
  stop: Promise<Stop>,
): Promise<CommandEnd> {
  const over = Promise.withResolvers<Stop | undefined>()
  const output = new OutputRelay(client, recorder, streams, () => {
    over.resolve(undefined)
  })
  const sent = throttle(server, [() => client.room(), () => recorder.room()])
  void stop.then(over.resolve)
  void client.closed.then((why) => {
    over.resolve(why ?? stopOf('client_left'))
  })
  void server.closed.then((why) => {
    over.resolve(output.status === undefined ? (why ?? stopOf('stream_broken')) : undefined)
  })
  server.start({
    output(stream, bytes) {
      output.output(stream, bytes)
      sent(bytes.length)
    },
    endOutput(stream) {
      output.endOutput(stream)
    },
    status(text) {
      output.tell(text)
    },
  })
  let bytesToServer = 0
  const received = throttle(client, [() => server.room(), () => recorder.room()])
  client.start({
    input(bytes) {
      if (!recorder.input(bytes)) return
      bytesToServer += bytes.length
      server.input(bytes)
      received(bytes.length)
    },
    endInput() {
      recorder.endInput()
      server.endInput()
    },
    resize(size) {
      recorder.resize(size)
      server.resize(size)
      received(0)
    },
  })
  const stopped = await over.promise
  output.end()
  server.destroy()
  const { status, bytes } = output
  return {
    ...(status === undefined ? {} : { status }),
    ...(stopped === undefined ? {} : { stop: stopped }),
    ...{ bytesToClient: bytes, bytesToServer },
  }
}

/** What the command says, on its way to recording and client. */
class OutputRelay {
  bytes = 0
  status: Buffer | undefined
  readonly #client: CommandClient
  readonly #recorder: SessionRecorder
  readonly #open: Set<Output>
  readonly #over: () => void
  #tail: NodeJS.Timeout | undefined

  constructor(
    client: CommandClient,
    recorder: SessionRecorder,
    streams: CommandStreams,
    over: () => void,
  ) {
    this.#client = client
    this.#recorder = recorder
    this.#open = new Set(OUTPUTS.filter((name) => streams[name]))
    this.#over = over
  }

  output(stream: Output, bytes: Buffer): void {
    if (!this.#recorder.output(stream, bytes)) return
    this.bytes += bytes.length
    this.#client.output(stream, bytes)
  }

  endOutput(stream: Output): void {
    this.#recorder.endOutput(stream)
    this.#client.endOutput(stream)
    this.#open.delete(stream)
    this.#check()
  }

  tell(status: Buffer): void {
    if (status.length > 0) this.status = status
    this.#check()
  }

  end(): void {
    clearTimeout(this.#tail)
  }

  #check(): void {
    if (this.status === undefined) return
    if (this.#open.size === 0) this.#over()
    else this.#tail ??= setTimeout(this.#over, TAIL_MS)
  }
}

const OUTPUTS: readonly Output[] = ['stdout', 'stderr']
