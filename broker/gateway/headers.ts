/** The headers of a request upstream, and of its answer. Identity is set last, after everything a client may not send is gone. */
import type { IncomingHttpHeaders } from 'node:http'
import { forwardableHeaders, isHopByHop, REQUEST_ID_HEADER } from '../../shared/headers.ts'
import { isRefusal } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { CredentialHeaders } from '../credentials/credential.ts'
import { rewriteAccept } from '../masking/answers/accept.ts'
import type { Exchange } from './exchange.ts'
import { isMasked, maskingTerms } from './masking.ts'

/** Headers of requests and answers. */
export type Headers = Record<string, string | string[]>

/** What is asked for in another way, and what asks for a part of an answer, or whether it has changed: of bytes that the client never sees. */
const REPLACED: ReadonlySet<string> = new Set([
  'accept',
  'accept-encoding',
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
])
const NOT_PASSED_ON: ReadonlySet<string> = new Set(['location', 'refresh', 'alt-svc'])

/** Headers to forward a request with: the client's own, and its credential. @returns `not_acceptable` where the answer could not be masked */
export function upstreamHeaders(
  exchange: Exchange,
  credential: CredentialHeaders,
): Headers | Refusal {
  // the broker's sidecars have removed identities already, and here they are removed again
  const headers = forwardableHeaders(exchange.client.request.headers)
  delete headers['content-length']
  const asked = askedFor(exchange, headers)
  return isRefusal(asked) ? asked : { ...asked.headers, ...credential }
}

/** Whether the client takes an answer that can be masked. */
export function acceptRefusal(exchange: Exchange): Refusal | undefined {
  const asked = askedFor(exchange, forwardableHeaders(exchange.client.request.headers))
  return isRefusal(asked) ? asked : undefined
}

/** In place of the client's wishes about the answer, those by which it can be masked. */
function askedFor(
  exchange: Exchange,
  headers: Readonly<Record<string, string>>,
): { readonly headers: Record<string, string> } | Refusal {
  if (!isMasked(exchange)) return { headers }
  const rewritten = rewriteAccept(headers['accept'], maskingTerms(exchange))
  if (isRefusal(rewritten)) return rewritten
  const { accept } = rewritten
  const kept = Object.entries(headers).filter(([name]) => !REPLACED.has(name))
  return {
    headers: {
      ...Object.fromEntries(kept),
      ...(accept === undefined ? {} : { accept }),
      'accept-encoding': 'identity',
    },
  }
}

/** What of an upstream answer goes to the client. @param warnings - texts for its user, header `Warning`, code 299 (RFC 7234, 5.5) */
export function passedOn(
  headers: IncomingHttpHeaders,
  {
    requestId,
    warnings = [],
  }: { readonly requestId: string; readonly warnings?: readonly string[] },
): Headers {
  const passed: Headers = {}
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

/** A redirect that a client might follow; 304 is an answer. */
export function isRedirect(status: number): boolean {
  return status >= 300 && status < 400 && status !== 304
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
