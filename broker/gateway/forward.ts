/**
 * The last step of a request: to the API server and back, streaming, with back-pressure. Everything has been
 * decided and identified before; nothing here changes who acts. No byte of the answer goes out before
 * `evidence` (the intent) is durable. Redirects are not passed on (CVE-2022-3172, CVE-2020-8559), nor anything
 * under our own header names.
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Dispatcher } from 'undici'
import { Fault } from '../../shared/errors.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { SessionEnding } from '../../shared/recording/session-wire.ts'
import type { OutcomeEntry } from '../ledger/entry.ts'
import type { AnswerMasking } from '../masking/answers/answer.ts'
import { Unpacking } from '../masking/answers/unpack.ts'
import { isRedirect } from './headers.ts'
import type { Headers } from './headers.ts'
import { Passage } from './passage.ts'

/** What is sent upstream. */
export interface Outgoing {
  readonly requestId: string
  readonly method: string
  /** Canonical path with query. */
  readonly path: string
  readonly headers: Headers
  readonly body: Buffer
  readonly longRunning: boolean
  /** Called when the head of the answer is there: what follows needs no credential. */
  readonly answered?: () => void
  /** Hides what the client may not see; left out, the answer goes on as it is. */
  readonly mask?: AnswerMasking
  /** Texts that the client's user is to see: header `Warning` (kubectl prints them). */
  readonly warnings?: readonly string[]
  /** Cuts the answer, or the session, short. */
  readonly revoked?: AbortSignal
  readonly tap?: Tap
}

/** Sees an answer as it goes by, before anything is masked (broker/gateway/session.ts). */
export interface Tap {
  /** @returns false where it must not go on */
  data(chunk: Buffer): boolean
  /** Undefined while there is room for more. */
  room(): Promise<void> | undefined
  /** Settles when the answer must not go on. */
  readonly stopped: Promise<{ readonly ending: SessionEnding }>
  /** @returns false where it had to be seen whole and was not */
  end(ending?: SessionEnding): Promise<boolean>
}

/** How it ended: for the ledger's outcome. */
export type ForwardOutcome = Pick<
  OutcomeEntry,
  'status' | 'bytesToClient' | 'bytesToServer' | 'reason' | 'masked' | 'restored'
>

/** The answer could not begin: the caller refuses instead, and nothing was written to the client. */
export interface NotAnswered {
  readonly notAnswered: Refusal
  readonly bytesToServer: number
}

/** Sends an ordinary request and streams its answer. Settles when the answer has ended or broken off; never rejects. */
export function forwardRequest(
  dispatcher: Dispatcher,
  outgoing: Outgoing,
  response: ServerResponse,
  evidence: Promise<unknown>,
): Promise<ForwardOutcome | NotAnswered> {
  return new Promise((resolve) => {
    const relay = new Relay(outgoing, response, evidence, resolve)
    const { method, path, headers, body } = outgoing
    const handler = outgoing.mask === undefined ? relay : new Unpacking(relay)
    try {
      dispatcher.dispatch({ method, path, headers, body: body.length > 0 ? body : null }, handler)
    } catch (error) {
      relay.fail(error)
    }
  })
}

/** Carries one answer from undici to the client. */
class Relay implements Dispatcher.DispatchHandler {
  readonly #outgoing: Outgoing
  readonly #response: ServerResponse
  readonly #evidence: Promise<unknown>
  readonly #resolve: (outcome: ForwardOutcome | NotAnswered) => void
  readonly #passage: Passage
  #status = 0
  #settled = false
  #refusal: Refusal | undefined
  #tapEnded = false
  #stopped: SessionEnding | undefined

  constructor(
    outgoing: Outgoing,
    response: ServerResponse,
    evidence: Promise<unknown>,
    resolve: (outcome: ForwardOutcome | NotAnswered) => void,
  ) {
    this.#outgoing = outgoing
    this.#response = response
    this.#evidence = evidence
    this.#resolve = resolve
    this.#passage = new Passage(response, outgoing)
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    const response = this.#response
    if (response.destroyed) {
      controller.abort(new Fault('client_left', 'the client left'))
      return
    }
    response.once('close', () => {
      if (!response.writableFinished) controller.abort(new Fault('client_left', 'the client left'))
    })
    const { revoked } = this.#outgoing
    const cut = (): void => {
      controller.abort(new Fault('revoked', 'the approval was revoked'))
    }
    if (revoked?.aborted === true) cut()
    else revoked?.addEventListener('abort', cut, { once: true })
    void this.#outgoing.tap?.stopped.then(({ ending }) => {
      this.#stopped = ending
      controller.abort(new Fault('answer_stopped', 'the answer must not go on'))
    })
    response.on('drain', () => {
      controller.resume()
    })
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
  ): void {
    if (status < 200) return
    this.#outgoing.answered?.()
    this.#status = status
    if (isRedirect(status)) {
      this.#abort(controller, refuse('upstream_invalid', `a redirect (${status})`))
      return
    }
    controller.pause()
    this.#evidence.then(
      () => {
        if (this.#settled) return
        try {
          this.#passage.begin(status, headers)
        } catch (error) {
          this.#abort(controller, unmaskable(error, status))
          return
        }
        controller.resume()
      },
      () => {
        this.#abort(controller, refuse('ledger_unavailable'))
      },
    )
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    const { tap } = this.#outgoing
    // what is recorded is the answer, not a refusal of the API server
    const seen = this.#status === 200 ? tap : undefined
    if (seen?.data(chunk) === false) return
    const room = seen?.room()
    if (!this.#push(controller, chunk) || room !== undefined) controller.pause()
    if (room === undefined) return
    void room.then(() => {
      // a client that is full says so itself when it is not any more
      if (!this.#response.writableNeedDrain) controller.resume()
    })
  }

  /** @returns false where the client has to read first, or there is nothing to go on */
  #push(controller: Dispatcher.DispatchController, chunk: Buffer): boolean {
    if (this.#refusal !== undefined) return false
    try {
      return this.#passage.push(chunk)
    } catch (error) {
      this.#abort(controller, unmaskable(error, this.#status))
      return false
    }
  }

  onResponseEnd(): void {
    // an answer without a body may end before its evidence is there
    void this.#evidence.then(
      async () => {
        if (this.#settled) return
        try {
          this.#passage.finish()
        } catch (error) {
          this.#refusal ??= unmaskable(error, this.#status)
          this.fail(error)
          return
        }
        // the client hears of the end when what it saw is recorded
        if (await this.#endTap(this.#status === 200 ? undefined : 'refused')) {
          this.#passage.end()
          this.#settle(this.#outcome())
        } else {
          this.#response.destroy()
          this.#settle(this.#outcome('recording_failed'))
        }
      },
      () => {
        this.#settle(this.#notAnswered(refuse('ledger_unavailable')))
      },
    )
  }

  async #endTap(ending?: SessionEnding): Promise<boolean> {
    const { tap } = this.#outgoing
    if (tap === undefined || this.#tapEnded) return true
    this.#tapEnded = true
    return tap.end(ending)
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.fail(error)
  }

  /** The transport broke, or we broke it off. */
  fail(error: unknown): void {
    if (error instanceof Fault && error.code === 'answer_unmaskable')
      this.#refusal ??= unmaskable(error, this.#status)
    if (this.#refusal !== undefined && !this.#response.headersSent)
      this.#settle(this.#notAnswered(this.#refusal))
    else if (error instanceof Fault && error.code === 'client_left')
      this.#settle(this.#outcome('client_left'))
    else if (this.#response.headersSent) {
      this.#response.destroy()
      this.#settle(this.#outcome(this.#cause(error)))
    } else if (isRevocation(error)) this.#settle(this.#notAnswered(refuse('approval_revoked')))
    else this.#settle(this.#notAnswered(transportRefusal(error)))
  }

  #abort(controller: Dispatcher.DispatchController, refusal: Refusal): void {
    this.#refusal = refusal
    controller.abort(new Fault('upgrade_failed', refusal.refused))
  }

  #outcome(reason?: OutcomeEntry['reason']): ForwardOutcome {
    const { body } = this.#outgoing
    const { bytesToClient, masked } = this.#passage
    return {
      ...{ status: this.#status, bytesToClient, bytesToServer: body.length },
      ...(masked === undefined ? {} : { masked }),
      ...(reason === undefined ? {} : { reason }),
    }
  }

  #notAnswered(refusal: Refusal): NotAnswered {
    return { notAnswered: refusal, bytesToServer: this.#outgoing.body.length }
  }

  /** Why an answer that had begun broke off. */
  #cause(error: unknown): OutcomeEntry['reason'] {
    if (this.#stopped === 'killed') return 'killed'
    if (this.#stopped !== undefined) return 'recording_failed'
    if (this.#refusal !== undefined) return this.#refusal.refused
    return isRevocation(error) ? 'revoked' : 'stream_broken'
  }

  #settle(outcome: ForwardOutcome | NotAnswered): void {
    if (this.#settled) return
    this.#settled = true
    this.#passage.close()
    void this.#endTap(this.#stopped ?? endingOf(outcome)).then(() => {
      this.#resolve(outcome)
    })
  }
}

/** What the end of an answer means for its recording. */
function endingOf(outcome: ForwardOutcome | NotAnswered): SessionEnding | undefined {
  if ('notAnswered' in outcome) return 'refused'
  switch (outcome.reason) {
    case 'client_left':
    case 'revoked':
    case 'killed':
      return outcome.reason
    case undefined:
      return undefined
    default:
      return 'stream_broken'
  }
}

/** The client has left before anything was sent. */
export const NOBODY_THERE: ForwardOutcome = {
  status: 0,
  bytesToClient: 0,
  bytesToServer: 0,
  reason: 'client_left',
}

/** Why an answer is not passed on: by then the API server has done what was asked. @param status - of its answer */
export function unmaskable(error: unknown, status: number): Refusal {
  const problem = error instanceof Fault ? error.message : 'a fault of the masker'
  return refuse('answer_unmaskable', `${problem} (the API server answered ${status})`)
}

/** Why no answer came: nothing was sent when there was no connection to be had. */
export function transportRefusal(error: unknown): Refusal {
  return error instanceof Fault && error.code === 'upstream_busy'
    ? refuse('broker_busy', error.message)
    : refuse('upstream_unavailable')
}

function isRevocation(error: unknown): boolean {
  return error instanceof Fault && error.code === 'revoked'
}
