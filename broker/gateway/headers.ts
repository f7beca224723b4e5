/** The headers of a request upstream. Identity is set last, after everything a client may not send is gone. */
import { forwardableHeaders } from '../../shared/headers.ts'
import type { CredentialHeaders } from '../credentials/credential.ts'
import type { Exchange } from './exchange.ts'

/** Headers to forward a request with: the client's own, and its credential. */
export function upstreamHeaders(
  exchange: Exchange,
  credential: CredentialHeaders,
): Record<string, string | string[]> {
  // the broker's sidecars have removed identities already, and here they are removed again
  const headers = forwardableHeaders(exchange.client.request.headers)
  delete headers['content-length']
  return { ...headers, ...credential }
}
