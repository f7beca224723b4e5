/**
 * Unpacks an answer that came compressed although it was not asked for: in front of whoever looks at the answer, who sees it plain. Memory is
 * one piece, whatever the answer unpacks to; what unpacks to far more than objects do is broken off.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { createGunzip } from 'node:zlib'
import type { Gunzip } from 'node:zlib'
import type { Dispatcher } from 'undici'
import { Fault } from '../../../shared/errors.ts'

/** How many times larger than packed an answer may be; lists of like objects reach some 60. */
export const MAX_UNPACK_RATIO = 200
/** Below so many bytes the ratio is not looked at. */
export const UNPACK_FREE_BYTES = 1024 * 1024
/** Largest answer that is unpacked, in bytes. */
const MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
/** RFC 9110, 8.4.1.3: the two names are the same. */
const GZIP = /^\s*(?:x-)?gzip\s*$/i

type Handler = Dispatcher.DispatchHandler
type Controller = Dispatcher.DispatchController

/** Whether a header `content-encoding` says that one gzip is to be unpacked. */
export function isGzip(encoding: string | undefined): boolean {
  return encoding !== undefined && GZIP.test(encoding)
}

/** Whether so much came of so little that it is no answer but an attack. @param packed - bytes that came @param unpacked - bytes made of them */
export function isBomb(packed: number, unpacked: number): boolean {
  if (unpacked > MAX_UNPACKED_BYTES) return true
  return unpacked > UNPACK_FREE_BYTES && unpacked > packed * MAX_UNPACK_RATIO
}

/** See the head of the file. Ends with Fault `answer_unmaskable` where the answer is not what it says it is. */
export class Unpacking implements Handler {
  readonly #inner: Handler
  #control: Control | undefined
  #gunzip: Gunzip | undefined
  #packed = 0
  #unpacked = 0

  /** @param inner - sees the plain answer */
  constructor(inner: Handler) {
    this.#inner = inner
  }

  onRequestStart(controller: Controller, context: unknown): void {
    this.#control = new Control(controller, (reason) => {
      this.#inner.onResponseError?.(this.#controlOf(controller), reason)
    })
    this.#inner.onRequestStart?.(this.#control, context)
  }

  onResponseStart(
    controller: Controller,
    status: number,
    headers: IncomingHttpHeaders,
    message?: string,
  ): void {
    const control = this.#controlOf(controller)
    if (status < 200 || !isGzip(headers['content-encoding'])) {
      this.#inner.onResponseStart?.(control, status, headers, message)
      return
    }
    this.#gunzip = this.#unpackInto(control, controller)
    const plain = { ...headers }
    delete plain['content-encoding']
    delete plain['content-length']
    this.#inner.onResponseStart?.(control, status, plain, message)
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    if (this.#gunzip === undefined) {
      this.#inner.onResponseData?.(this.#controlOf(controller), chunk)
      return
    }
    this.#packed += chunk.length
    if (!this.#gunzip.write(chunk)) controller.pause()
  }

  onResponseEnd(controller: Controller, trailers: IncomingHttpHeaders): void {
    const control = this.#controlOf(controller)
    // an answer to HEAD says that it is compressed, and has nothing to unpack
    if (this.#gunzip === undefined || this.#packed === 0) {
      this.#inner.onResponseEnd?.(control, trailers)
      return
    }
    control.answered = true
    this.#gunzip.end()
  }

  onResponseError(controller: Controller, error: Error): void {
    this.#gunzip?.destroy()
    this.#inner.onResponseError?.(this.#controlOf(controller), error)
  }

  #unpackInto(control: Control, controller: Controller): Gunzip {
    const gunzip = createGunzip()
    control.unpacker = gunzip
    gunzip.on('data', (bytes: Buffer) => {
      this.#unpacked += bytes.length
      if (isBomb(this.#packed, this.#unpacked)) control.abort(unmaskable('unpacks to too much'))
      else this.#inner.onResponseData?.(control, bytes)
    })
    gunzip.on('drain', () => {
      controller.resume()
    })
    gunzip.once('end', () => {
      this.#inner.onResponseEnd?.(control, {})
    })
    gunzip.once('error', () => {
      control.abort(unmaskable('is not compressed as it says'))
    })
    return gunzip
  }

  /** Where there was no start, an answer is controlled as it is. */
  #controlOf(controller: Controller): Control {
    this.#control ??= new Control(controller, () => undefined)
    return this.#control
  }
}

function unmaskable(problem: string): Fault {
  return new Fault('answer_unmaskable', `the answer ${problem}`)
}

/** What the inner handler holds: it slows down the unpacking, which slows down the connection. */
class Control implements Controller {
  readonly #real: Controller
  readonly #broken: (reason: Error) => void
  #aborted: Error | null = null
  #paused = false
  unpacker: Gunzip | undefined
  /** All of the answer has come, so that the connection cannot be broken off any more. */
  answered = false

  constructor(real: Controller, broken: (reason: Error) => void) {
    this.#real = real
    this.#broken = broken
  }

  get aborted(): boolean {
    return this.#aborted !== null || this.#real.aborted
  }

  get reason(): Error | null {
    return this.#aborted ?? this.#real.reason
  }

  get paused(): boolean {
    return this.unpacker === undefined ? this.#real.paused : this.#paused
  }

  pause(): void {
    this.#paused = true
    if (this.unpacker === undefined) this.#real.pause()
    else this.unpacker.pause()
  }

  resume(): void {
    this.#paused = false
    if (this.unpacker === undefined) this.#real.resume()
    else this.unpacker.resume()
  }

  abort(reason: Error): void {
    if (this.unpacker === undefined) {
      this.#real.abort(reason)
      return
    }
    if (this.#aborted !== null || this.unpacker.readableEnded) return
    this.#aborted = reason
    this.unpacker.destroy()
    if (this.answered) this.#broken(reason)
    else this.#real.abort(reason)
  }
}
