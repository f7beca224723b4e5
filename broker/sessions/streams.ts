/**
 * What every protocol of a session is turned into: byte streams that end each way by themselves, with back-pressure. The relay joins a
 * client's with the API server's and knows of no protocol.
 */

/** One direction of one stream, towards its peer. */
export interface Sink {
  /** Sends bytes. @returns false when the sender should wait for `drained` */
  write(bytes: Uint8Array): boolean
  /** Ends this direction; nothing is written after it. */
  end(): void
}

/** The other direction: what the peer sends. */
export interface Source {
  /** Called with each piece, in order; the bytes may not be kept beyond the call. */
  onData: (bytes: Buffer) => void
  /** Called once, when the peer has ended this direction. */
  onEnd: () => void
}
