/**
 * The last step of a request: to the API server and back, streaming, with back-pressure. Everything has been
 * decided and identified before; nothing here changes who acts. No byte of the answer goes out before
 * `evidence` (the intent) is durable. Redirects are not passed on (CVE-2022-3172, CVE-2020-8559), nor anything
 * under our own header names.
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import type { Duplex, Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { Fault } from '../../shared/errors.ts'
import { isHopByHop, REQUEST_ID_HEADER } from '../../shared/headers.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { SessionEnding } from '../../shared/recording/session-wire.ts'
import { endSocket, responseHead } from '../../shared/upgrade.ts'
import type { Answered } from '../../shared/upgrade.ts'
import type { OutcomeEntry } from '../ledger/entry.ts'

/** What is sent upstream. */
export interface Outgoing {
  readonly requestId: string
  readonly method: string
  /** Canonical path with query. */
  readonly path: string
  readonly headers: Record<string, string | string[]>
  readonly body: Buffer
  readonly longRunning: boolean
  /** Called when the head of the answer is there: what follows needs no credential. */
  readonly answered?: () => void
  /** Texts that the client's user is to see: header `Warning`, code 299 (RFC 7234, 5.5; kubectl prints them). */
  readonly warnings?: readonly string[]
  /** Cuts the answer, or the session, short. */
  readonly revoked?: AbortSignal
  readonly tap?: Tap
}

/** Sees an answer as it goes by (broker/gateway/session.ts). */
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
  'status' | 'bytesToClient' | 'bytesToServer' | 'reason' | 'restored'
>

/** The answer could not begin: the caller refuses instead, and nothing was written to the client. */
export interface NotAnswered {
  readonly notAnswered: Refusal
  readonly bytesToServer: number
}

const NOT_PASSED_ON: ReadonlySet<string> = new Set(['location', 'refresh', 'alt-svc'])

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
    try {
      dispatcher.dispatch({ method, path, headers, body: body.length > 0 ? body : null }, relay)
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
  #status = 0
  #bytesToClient = 0
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
        this.#response.writeHead(status, passedOn(headers, this.#outgoing))
        if (this.#outgoing.longRunning) this.#response.flushHeaders()
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
    this.#bytesToClient += chunk.length
    const room = seen?.room()
    const isFull = !this.#response.write(chunk)
    if (isFull || room !== undefined) controller.pause()
    if (room === undefined) return
    void room.then(() => {
      // a client that is full says so itself when it is not any more
      if (!this.#response.writableNeedDrain) controller.resume()
    })
  }

  onResponseEnd(): void {
    // an answer without a body may end before its evidence is there
    void this.#evidence.then(
      async () => {
        // the client hears of the end when what it saw is recorded
        if (await this.#endTap(this.#status === 200 ? undefined : 'refused')) {
          this.#response.end()
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
    if (this.#refusal !== undefined) this.#settle(this.#notAnswered(this.#refusal))
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
    return {
      status: this.#status,
      bytesToClient: this.#bytesToClient,
      bytesToServer: body.length,
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
    return isRevocation(error) ? 'revoked' : 'stream_broken'
  }

  #settle(outcome: ForwardOutcome | NotAnswered): void {
    if (this.#settled) return
    this.#settled = true
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

/** An answer to an upgrade that is not a switch: passed on as it is, and the connection is closed after it. */
export async function passAnswer(
  outgoing: Outgoing,
  client: Duplex,
  { status, headers, body }: Answered,
): Promise<ForwardOutcome | NotAnswered> {
  if (status < 200 || isRedirect(status)) {
    body.destroy()
    return {
      notAnswered: refuse('upstream_invalid', `status ${status} to an upgrade`),
      bytesToServer: 0,
    }
  }
  const passed = passedOn(headers, outgoing)
  // its end is the end of the connection, whatever the API server announced
  delete passed['content-length']
  client.write(responseHead(status, '', { ...passed, connection: 'close' }))
  let bytesToClient = 0
  body.on('data', (chunk: Buffer) => (bytesToClient += chunk.length))
  const reason = await passBody(body, client)
  endSocket(client)
  return { status, bytesToClient, bytesToServer: 0, ...(reason === undefined ? {} : { reason }) }
}

/** Why the body did not reach the client whole, or undefined when it did. */
function passBody(body: Readable, client: Duplex): Promise<OutcomeEntry['reason'] | undefined> {
  return new Promise((resolve) => {
    // the first to break is the cause: the pipeline destroys the other one only afterwards
    body.once('error', () => {
      resolve('stream_broken')
    })
    pipeline(body, client).then(
      () => {
        resolve(undefined)
      },
      () => {
        resolve('client_left')
      },
    )
  })
}

/** A redirect that a client might follow; 304 is an answer. */
function isRedirect(status: number): boolean {
  return status >= 300 && status < 400 && status !== 304
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

/** What of an upstream answer goes to the client. */
export function passedOn(
  headers: IncomingHttpHeaders,
  { requestId, warnings = [] }: Pick<Outgoing, 'requestId' | 'warnings'>,
): Record<string, string | string[]> {
  const passed: Record<string, string | string[]> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (
      value === undefined ||
      isHopByHop(name) ||
      name.startsWith('nestgate-') ||
      NOT_PASSED_ON.has(name)
    )
      continue
    passed[name] = value
  }
  passed[REQUEST_ID_HEADER] = requestId
  if (warnings.length > 0)
    passed['warning'] = [...lines(passed['warning']), ...warnings.map(warningOf)]
  return passed
}

function lines(value: string | string[] | undefined): readonly string[] {
  if (value === undefined) return []
  return typeof value === 'string' ? [value] : value
}

/** Longest text of one warning; client-go cuts at 1,024 characters in all. */
const MAX_WARNING_LENGTH = 256

/** A warning as header value. The text may come from a reviewer: what is not plain is left out, quotes are escaped (RFC 9110, 5.6.4). */
function warningOf(text: string): string {
  const plain = text.replaceAll(/[^\x20-\x7e]+/g, ' ').slice(0, MAX_WARNING_LENGTH)
  return `299 nestgate "${plain.replaceAll(/["\\]/g, '\\$&')}"`
}
