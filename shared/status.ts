/**
 * Refusals as Kubernetes clients read them: a `Status` object (meta/v1), which kubectl and the client
 * libraries print as an error of the API server. To clients of our own API the same refusal is an
 * `application/problem+json` document (RFC 9457).
 */
import { REASONS, refusalText } from './reasons.ts'
import type { Refusal } from './reasons.ts'

/** Kubernetes' StatusReason by HTTP status (apimachinery, meta/v1 types.go); kubectl prints it in brackets. */
const STATUS_REASONS: Readonly<Record<number, string>> = {
  400: 'BadRequest',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'NotFound',
  405: 'MethodNotAllowed',
  409: 'Conflict',
  413: 'RequestEntityTooLarge',
  415: 'UnsupportedMediaType',
  500: 'InternalError',
  502: 'InternalError',
  503: 'ServiceUnavailable',
}

/** Prefix of the cause that carries the reason code, so that a program can tell our refusals from the API server's. */
const CAUSE_PREFIX = 'nestgate.dev/'

/** An answer ready to be written. */
export interface Answer {
  readonly status: number
  readonly contentType: string
  readonly body: string
}

/**
 * The `Status` object of a refusal. The reason code and, where there is one, the request id are causes in
 * `details`; the message begins with `nestgate:` so that a reader sees who refused.
 */
export function statusAnswer(refusal: Refusal, requestId?: string): Answer {
  const { status } = REASONS[refusal.refused]
  const text = refusalText(refusal)
  const causes = [{ reason: CAUSE_PREFIX + refusal.refused, message: text }]
  if (requestId !== undefined)
    causes.push({ reason: `${CAUSE_PREFIX}request-id`, message: requestId })
  const body = {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    message:
      requestId === undefined ? `nestgate: ${text}` : `nestgate: ${text} (request ${requestId})`,
    reason: STATUS_REASONS[status] ?? 'Unknown',
    details: { causes },
    code: status,
  }
  return { status, contentType: 'application/json', body: JSON.stringify(body) }
}

/** The problem document of a refusal, for clients of `/v1`. */
export function problemAnswer(refusal: Refusal, requestId?: string): Answer {
  const { status, sentence } = REASONS[refusal.refused]
  const body = {
    type: `https://nestgate.dev/errors#${refusal.refused}`,
    title: sentence,
    status,
    code: refusal.refused,
    ...(refusal.detail === undefined ? {} : { detail: refusal.detail }),
    ...(requestId === undefined ? {} : { requestId }),
  }
  return { status, contentType: 'application/problem+json', body: JSON.stringify(body) }
}

/** The reason code in a `Status` body made by {@link statusAnswer}, or undefined for anybody else's answer. */
export function reasonInStatus(body: string): string | undefined {
  const match = /"reason":"nestgate\.dev\/([a-z_]+)"/.exec(body)
  return match?.[1]
}
