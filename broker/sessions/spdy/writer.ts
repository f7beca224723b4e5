/** Writes frames to a socket: what is written in one turn of the event loop goes out together. */
import type { Duplex } from 'node:stream'
import { dataHead, MAX_DATA_BYTES, setDataLength } from './frames.ts'

/** How many bytes may wait in the socket before its writers are asked to wait. */
export const MAX_WAITING_BYTES = 256 * 1024

/** Bytes that are given to it are not copied: they may not change afterwards. */
export class FrameWriter {
  readonly #socket: Duplex
  readonly #flush = (): void => {
    this.#corked = false
    this.#head = undefined
    this.#socket.uncork()
  }
  #corked = false
  #ended = false
  /** Of the last frame of this turn, if that is DATA: it can still grow. */
  #head: Buffer | undefined
  #headId = 0
  #headLength = 0
  #room: PromiseWithResolvers<undefined> | undefined

  constructor(socket: Duplex) {
    this.#socket = socket
  }

  /** Writes a whole frame. */
  control(frame: Buffer): void {
    this.#head = undefined
    this.#put(frame)
  }

  /** Writes bytes as DATA frames. @returns false when the writer should wait for {@link room} */
  data(id: number, bytes: Uint8Array): boolean {
    for (let at = 0; at < bytes.length;) {
      if (this.#head === undefined || this.#headId !== id || this.#headLength === MAX_DATA_BYTES)
        this.#begin(id)
      const end = Math.min(bytes.length, at + MAX_DATA_BYTES - this.#headLength)
      this.#headLength += end - at
      if (this.#head !== undefined) setDataLength(this.#head, this.#headLength)
      this.#put(at === 0 && end === bytes.length ? bytes : bytes.subarray(at, end))
      at = end
    }
    return !this.full
  }

  /** Writes the end of a stream: an empty DATA frame, as spdystream does. */
  fin(id: number): void {
    this.control(dataHead(id, 0, true))
  }

  /** Writes a last frame and ends the socket. @param taken - called when the socket has taken everything, or broke */
  end(frame: Buffer, taken: () => void): void {
    this.control(frame)
    this.stop()
    this.#socket.end(taken)
  }

  /** Ignores everything from now on, and lets nobody wait. */
  stop(): void {
    this.#ended = true
    this.drained()
  }

  get full(): boolean {
    const socket = this.#socket
    // without writableNeedDrain no `drain` would come
    return socket.writableNeedDrain && socket.writableLength >= MAX_WAITING_BYTES
  }

  /** Settles when there is room; undefined: there is. */
  room(): Promise<void> | undefined {
    if (this.#ended || !this.full) return undefined
    this.#room ??= Promise.withResolvers<undefined>()
    return this.#room.promise
  }

  /** To be called when the socket says `drain`. */
  drained(): void {
    this.#room?.resolve(undefined)
    this.#room = undefined
  }

  #begin(id: number): void {
    const head = dataHead(id, 0, false)
    this.#put(head)
    this.#head = head
    this.#headId = id
    this.#headLength = 0
  }

  #put(bytes: Uint8Array): void {
    if (this.#ended) return
    if (!this.#corked) {
      this.#corked = true
      this.#socket.cork()
      process.nextTick(this.#flush)
    }
    this.#socket.write(bytes)
  }
}
