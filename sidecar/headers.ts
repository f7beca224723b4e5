/** The header sets of both directions. Identity is set last, after everything a client may not send is gone. */
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http'
import {
  AGENT_HEADER,
  APPROVAL_HEADER,
  HOLD_HEADER,
  REQUEST_HEADER,
  connectionTokens,
  forwardableHeaders,
  isHopByHop,
} from '../shared/headers.ts'

/** What the sidecar says about a request. */
export interface Credentials {
  /** The sidecar's projected token. */
  readonly token: string
  /** The signed tag of the calling process. */
  readonly tag: string
  /** Id of the approval that this request claims. */
  readonly approved?: string | undefined
}

/** Headers of the request to the broker. `Authorization` of the client is dropped: no client's token travels on yet. */
export function requestHeaders(
  headers: IncomingHttpHeaders,
  host: string,
  { token, tag, approved }: Credentials,
): Record<string, string> {
  const kept = Object.entries(forwardableHeaders(headers)).filter(
    ([name]) => name !== 'content-length',
  )
  return {
    ...Object.fromEntries(kept),
    host,
    authorization: `Bearer ${token}`,
    [AGENT_HEADER]: tag,
    [HOLD_HEADER]: headers[APPROVAL_HEADER] === 'return' ? 'return' : 'wait',
    ...(approved === undefined ? {} : { [REQUEST_HEADER]: approved }),
  }
}

/** Headers of the answer to the client: the broker's without those that end at this hop. */
export function answerHeaders(headers: IncomingHttpHeaders): OutgoingHttpHeaders {
  const dropped = connectionTokens(headers)
  const kept = Object.entries(headers).filter(
    ([name, value]) => value !== undefined && !isHopByHop(name) && !dropped.has(name),
  )
  return Object.fromEntries(kept)
}
