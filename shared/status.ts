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
  406: 'NotAcceptable',
  409: 'Conflict',
  413: 'RequestEntityTooLarge',
  415: 'UnsupportedMediaType',
  422: 'Invalid',
  500: 'InternalError',
  502: 'InternalError',
  503: 'ServiceUnavailable',
}

/** Unprocessable Content (RFC 9110, 15.5.21). */
const INVALID = 422

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
  const causes = causesOf(refusal, requestId)
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

/** A cause in `details` (meta/v1, StatusCause). */
interface Cause {
  readonly reason: string
  readonly message: string
  readonly field?: string
}

/** Kubernetes' CauseType of a field that is not what it may be (apimachinery, meta/v1 types.go). */
const FIELD_INVALID = 'FieldValueInvalid'

/** The code first. Of reason `Invalid` kubectl prints `field: message` of each cause, and not the message of the Status. */
function causesOf(refusal: Refusal, requestId: string | undefined): readonly Cause[] {
  const { status, sentence } = REASONS[refusal.refused]
  const invalid = status === INVALID
  const [first = 'nestgate', ...others] = refusal.fields ?? []
  const causes: Cause[] = [
    {
      reason: CAUSE_PREFIX + refusal.refused,
      ...(invalid
        ? { message: `nestgate: ${refusalText(refusal)}`, field: first }
        : { message: refusalText(refusal) }),
    },
  ]
  for (const field of others) causes.push({ reason: FIELD_INVALID, message: sentence, field })
  if (requestId !== undefined) {
    const reason = `${CAUSE_PREFIX}request-id`
    causes.push({ reason, message: requestId, ...(invalid ? { field: reason } : {}) })
  }
  return causes
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
