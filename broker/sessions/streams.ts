/**
 * What every protocol of a session is turned into. The relay joins a client's side with the API server's and knows of no protocol: exec and
 * attach are a command with input and output, a port-forward is connections of two streams each.
 */
import type { Stop } from './stop.ts'

/** Reading from one side can be stopped: what it sends then stays with it. */
export interface Pausable {
  readonly pause: () => void
  readonly resume: () => void
}

/** One side of a session. */
export interface Side extends Pausable {
  /** Undefined while this side takes more; else settles when it does again, or when it is over. */
  readonly room: () => Promise<void> | undefined
  /** Cuts the connection. */
  readonly destroy: () => void
  /** Settles once, when this side's connection is over: why, or undefined where it ended in order. Never rejects. */
  readonly closed: Promise<Stop | undefined>
}

/** Names of a command's output streams. */
export type Output = 'stdout' | 'stderr'

/** Size of a terminal, in characters. */
export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

/** What a command's client says. */
export interface CommandInput {
  input(bytes: Buffer): void
  /** No more input follows. */
  endInput(): void
  resize(size: TerminalSize): void
}

/** What a command says. */
export interface CommandOutput {
  output(stream: Output, bytes: Buffer): void
  endOutput(stream: Output): void
  /** The command is over: a `Status` as JSON, as the API server sent it. */
  status(text: Buffer): void
}

/** Towards whoever runs the command. Nothing comes before `start`. */
export interface CommandClient extends Side, CommandOutput {
  start(to: CommandInput): void
  /** Ends the session in order, behind all that was written. */
  readonly close: () => void
}

/** Towards the command. Nothing comes before `start`. */
export interface CommandServer extends Side, CommandInput {
  start(to: CommandOutput): void
}

/** One of the two streams of a forwarded connection; `error` carries one text from the API server, and nothing the other way. */
export type ForwardStreamName = 'data' | 'error'

/** A stream of a forwarded connection, towards one side. */
export interface ForwardStream {
  onData: (bytes: Buffer) => void
  onEnd: () => void
  onReset: () => void
  write(bytes: Buffer): void
  end(): void
  reset(): void
}

/** A connection as its client opens it: its two streams come one after the other, in either order. */
export interface ForwardOpening {
  readonly name: ForwardStreamName
  readonly port: number
  /** The same of both streams of a connection. */
  readonly requestId: string
  readonly stream: ForwardStream
}

/** Towards whoever forwards a port. */
export interface ForwardClient extends Side {
  start(opened: (opening: ForwardOpening) => void): void
  readonly close: () => void
}

/** Towards the pod. */
export interface ForwardServer extends Side {
  open(opening: Omit<ForwardOpening, 'stream'>): ForwardStream
  close(): void
}
