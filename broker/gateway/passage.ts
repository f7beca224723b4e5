/**
 * The last step of an answer's bytes: to the client as they come, or masked. Where an answer is masked as a whole, its head and first bytes
 * wait, so that one that cannot be masked is refused and not cut off, and its warning has the true count.
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { countPassed } from '../../shared/young-garbage.ts'
import type { MaskedRecord } from '../ledger/entry.ts'
import type { AnswerMasking, MaskedBody } from '../masking/answers/answer.ts'
import { passedOn } from './headers.ts'

/** Masked bytes that wait for the end of their answer, at most; what is longer goes on while it comes. */
export const HELD_BACK_BYTES = 256 * 1024
/** How long a reader of a text waits for what may become a secret, in milliseconds. */
export const TEXT_WAIT_MS = 200

/** What is known of the answer before it comes. */
export interface PassageTerms {
  readonly requestId: string
  readonly longRunning: boolean
  readonly warnings?: readonly string[]
  readonly mask?: AnswerMasking
}

/** See the head of the file. What `begin`, `push` and `finish` throw is Fault `answer_unmaskable`. */
export class Passage {
  readonly #response: ServerResponse
  readonly #terms: PassageTerms
  #status = 0
  #body: MaskedBody | undefined
  #held: Buffer[] | undefined
  #heldBytes = 0
  #timer: NodeJS.Timeout | undefined
  #bytesToClient = 0

  constructor(response: ServerResponse, terms: PassageTerms) {
    this.#response = response
    this.#terms = terms
  }

  get bytesToClient(): number {
    return this.#bytesToClient
  }

  /** What was hidden so far; undefined where nothing was. */
  get masked(): MaskedRecord | undefined {
    return this.#body?.record()
  }

  /** The head is there. */
  begin(status: number, headers: IncomingHttpHeaders): void {
    this.#status = status
    const { mask, longRunning } = this.#terms
    this.#body = mask?.begin(status, headers)
    if (this.#body?.atOnce === false) {
      this.#held = []
      return
    }
    this.#writeHead(this.#body?.headers ?? headers, this.#body?.warning(false))
    if (longRunning) this.#response.flushHeaders()
  }

  /** @returns false where the client has to read first */
  push(chunk: Buffer): boolean {
    countPassed(chunk.length)
    if (this.#body === undefined) return this.#write([chunk])
    const hasRoom = this.#give(this.#body.push(chunk))
    this.#watchHeld(this.#body)
    return hasRoom
  }

  /** All has come, and nothing of it is kept back any more but the end of the answer. */
  finish(): void {
    this.close()
    if (this.#body !== undefined) this.#give(this.#body.end())
  }

  /** The client hears of the end. */
  end(): void {
    const held = this.#held
    if (held === undefined || this.#body === undefined) {
      this.#response.end()
      return
    }
    const { headers, bodiless } = this.#body
    const length = bodiless ? {} : { 'content-length': String(this.#heldBytes) }
    this.#writeHead({ ...headers, ...length }, this.#body.warning(true))
    this.#bytesToClient += this.#heldBytes
    this.#response.end(held.length === 1 ? held[0] : Buffer.concat(held))
  }

  /** Nothing more is waited for. */
  close(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #writeHead(headers: IncomingHttpHeaders, warning: string | undefined): void {
    const { requestId, warnings = [] } = this.#terms
    const all = warning === undefined ? warnings : [...warnings, warning]
    this.#response.writeHead(this.#status, passedOn(headers, { requestId, warnings: all }))
  }

  /** Holds masked bytes back as long as that makes sense, and then gives them on. */
  #give(pieces: readonly Buffer[]): boolean {
    if (this.#held === undefined || this.#body === undefined) return this.#write(pieces)
    for (const piece of pieces) {
      this.#held.push(piece)
      this.#heldBytes += piece.length
    }
    if (this.#heldBytes <= HELD_BACK_BYTES) return true
    const held = this.#held
    this.#held = undefined
    this.#writeHead(this.#body.headers, this.#body.warning(false))
    return this.#write(held)
  }

  #write(pieces: readonly Buffer[]): boolean {
    let hasRoom = true
    for (const piece of pieces) {
      this.#bytesToClient += piece.length
      hasRoom = this.#response.write(piece)
    }
    return hasRoom
  }

  /** A program may print nothing for hours behind what looked like the beginning of a secret. */
  #watchHeld(body: MaskedBody): void {
    if (body.held === 0) this.close()
    else
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined
        this.#give(body.flush())
      }, TEXT_WAIT_MS)
  }
}
