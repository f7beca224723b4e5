/** The header sets of both directions. Identity is set last, after everything a client may not send is gone. */
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http'
import {
  AGENT_HEADER,
  APPROVAL_HEADER,
  HOLD_HEADER,
  REQUEST_HEADER,
  SUBJECT_TOKEN_HEADER,
  bearerToken,
  connectionTokens,
  forwardableHeaders,
  isHopByHop,
} from '../shared/headers.ts'
import { PLACEHOLDER_TOKEN } from './service-account-files.ts'

/** What the sidecar says about a request. */
export interface Credentials {
  /** The sidecar's projected token. */
  readonly token: string
  /** The signed tag of the calling process. */
  readonly tag: string
  /** Id of the approval that this request claims. */
  readonly approved?: string | undefined
}

/**
 * Headers of the request to the broker. The client's own `Authorization` was meant for this hop and ends here; its bearer
 * token goes on as the subject's, for the broker to verify. A request that `screen` let through has at most one.
 */
export function requestHeaders(
  headers: IncomingHttpHeaders,
  host: string,
  { token, tag, approved }: Credentials,
): Record<string, string> {
  const kept = Object.entries(forwardableHeaders(headers)).filter(
    ([name]) => name !== 'content-length',
  )
  const subjectToken = subjectTokenOf(headers)
  return {
    ...Object.fromEntries(kept),
    host,
    authorization: `Bearer ${token}`,
    [AGENT_HEADER]: tag,
    ...(subjectToken === undefined ? {} : { [SUBJECT_TOKEN_HEADER]: subjectToken }),
    [HOLD_HEADER]: headers[APPROVAL_HEADER] === 'return' ? 'return' : 'wait',
    ...(approved === undefined ? {} : { [REQUEST_HEADER]: approved }),
  }
}

/** The token that an agent sent for itself. Not the placeholder: in-cluster clients send it because it lies in their pod. */
function subjectTokenOf(headers: IncomingHttpHeaders): string | undefined {
  const token = bearerToken(headers)
  return token === PLACEHOLDER_TOKEN ? undefined : token
}

/** Headers of the answer to the client: the broker's without those that end at this hop. */
export function answerHeaders(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const dropped = connectionTokens(headers)
  const kept = Object.entries(headers).filter(
    ([name, value]) => value !== undefined && !isHopByHop(name) && !dropped.has(name),
  )
  return Object.fromEntries(kept)
}
