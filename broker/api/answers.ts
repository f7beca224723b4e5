/** How the API answers: JSON for what was asked, a problem document for everything else. Nothing of it may be cached. */
import type { ErrorRequestHandler, NextFunction, Request, RequestHandler, Response } from 'express'
import { Fault, messageOf } from '../../shared/errors.ts'
import type { FaultCode } from '../../shared/errors.ts'
import { REQUEST_ID_HEADER } from '../../shared/headers.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Reason, Refusal } from '../../shared/reasons.ts'
import { problemAnswer } from '../../shared/status.ts'
import { credentialRefusal } from '../credentials/credential.ts'

/** Refusals behind which is something that failed. */
const LOGGED: ReadonlySet<Reason> = new Set([
  'internal',
  'ledger_unavailable',
  'credential_unavailable',
])

/** What a handler comes to: a body, sent with status 200, or a refusal. */
export type Result = Readonly<Record<string, unknown>> | Refusal

/** Makes a route of a function from request to result; whatever it throws goes to {@link faultHandler}. */
export function route(
  handle: (request: Request, signal: AbortSignal) => Promise<Result>,
): RequestHandler {
  return (request: Request, response: Response, next: NextFunction): void => {
    const leaving = new AbortController()
    response.once('close', () => {
      leaving.abort()
    })
    handle(request, leaving.signal).then((result) => {
      answer(response, result)
    }, next)
  }
}

/** Writes a result, unless the client has left. */
export function answer(response: Response, result: Result): void {
  if (response.destroyed || response.headersSent) return
  if (!isRefusal(result)) {
    response.status(200).json(result)
    return
  }
  const id = response.getHeader(REQUEST_ID_HEADER)
  const { status, contentType, body } = problemAnswer(
    result,
    typeof id === 'string' ? id : undefined,
  )
  if (status === 401) response.setHeader('WWW-Authenticate', 'Bearer')
  response.status(status).setHeader('Content-Type', contentType)
  response.end(body)
}

/** Turns faults into answers and log lines; the client learns the kind of fault, never its message. */
export function faultHandler(log: Logger): ErrorRequestHandler {
  return (error: unknown, request: Request, response: Response, next: NextFunction): void => {
    if (response.headersSent) {
      next(error)
      return
    }
    const refusal = bodyRefusal(error) ?? faultRefusal(error)
    if (LOGGED.has(refusal.refused)) {
      const requestId = response.getHeader(REQUEST_ID_HEADER)
      log.error({ requestId, route: request.path, error: messageOf(error) }, 'request failed')
    }
    answer(response, refusal)
  }
}

const STORE_FAULTS: ReadonlySet<string> = new Set<FaultCode>([
  'store_failed',
  'store_closed',
  'ledger_rolled_back',
])

function faultRefusal(error: unknown): Refusal {
  const refusal = credentialRefusal(error)
  if (refusal !== undefined) return refusal
  const isStore = error instanceof Fault && STORE_FAULTS.has(error.code)
  return refuse(isStore ? 'ledger_unavailable' : 'internal')
}

/** What express's body and path readers throw, told by the `type` and `status` they set. */
function bodyRefusal(error: unknown): Refusal | undefined {
  if (error instanceof URIError) return refuse('path_ambiguous')
  if (!(error instanceof Error) || !('type' in error)) return undefined
  if (error.type !== 'entity.too.large') return refuse('body_invalid')
  const limit = 'limit' in error ? Number(error.limit) / 1024 : NaN
  return refuse('body_too_large', `the limit here is ${limit} KiB`)
}
