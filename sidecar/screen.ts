/**
 * The first look at a request, before anything is looked up: what is malformed, and what did not come from a program
 * of this pod that meant to call here. A web page that rebinds its name to the loopback address, or opens a WebSocket
 * to it, is known by its Host and Origin. The path itself is judged by the broker.
 */
import type { IncomingMessage } from 'node:http'
import { bearerToken, countHeader } from '../shared/headers.ts'
import { refuse } from '../shared/reasons.ts'
import type { Refusal } from '../shared/reasons.ts'
import { DNS_NAMES } from './loopback-certificate.ts'

/**
 * The loopback addresses and the names of the certificate. Those of the API server are no way in for a page either:
 * only who may change the cluster's services can have one served under them.
 */
const LOCAL_NAMES: ReadonlySet<string> = new Set([...DNS_NAMES, '127.0.0.1', '[::1]'])
const PORT = /:\d{1,5}$/
const LOCAL_ORIGIN = /^https?:\/\/(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/i

/** Why a request goes no further, or undefined when it may. */
export function screen(request: IncomingMessage): Refusal | undefined {
  const { url = '', method = '', rawHeaders, headers } = request
  if (method === 'CONNECT') return refuse('method_unsupported', 'CONNECT')
  if (!url.startsWith('/'))
    return refuse('path_ambiguous', 'the target does not begin with a slash')
  if (countHeader(rawHeaders, 'host') !== 1)
    return refuse('header_invalid', 'the Host header must be there exactly once')
  if (!isLocal(headers.host ?? '')) return refuse('host_not_local')
  if (countHeader(rawHeaders, 'origin') > 1) return refuse('header_invalid', 'Origin is repeated')
  if (headers.origin !== undefined && !LOCAL_ORIGIN.test(headers.origin))
    return refuse('host_not_local', 'the Origin is another site')
  return screenAuthorization(request)
}

/** Which of two tokens, or of what text, would speak for the request is nobody's to guess. The detail repeats nothing of it. */
function screenAuthorization({ rawHeaders, headers }: IncomingMessage): Refusal | undefined {
  const lines = countHeader(rawHeaders, 'authorization')
  if (lines > 1) return refuse('header_invalid', 'there is more than one Authorization header')
  if (lines === 1 && bearerToken(headers) === undefined)
    return refuse('header_invalid', 'the Authorization header is no Bearer token')
  return undefined
}

/** One of our names, with or without a port. */
function isLocal(host: string): boolean {
  return LOCAL_NAMES.has(host.replace(PORT, '').toLowerCase())
}

/** Why an upgrade goes no further, beyond what {@link screen} says. */
export function screenUpgrade(request: IncomingMessage): Refusal | undefined {
  const { headers } = request
  const length = headers['content-length']
  if (headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0'))
    return refuse('header_invalid', 'an upgrade has no body')
  return undefined
}
