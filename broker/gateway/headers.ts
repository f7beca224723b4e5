/** The headers of a request upstream. Identity is set last, after everything a client may not send is gone. */
import { forwardableHeaders } from '../../shared/headers.ts'
import type { Exchange } from './exchange.ts'
import { identityHeaders } from './requester.ts'

/** Headers to forward a request with: the client's own, what the broker is there, and as whom it acts. */
export async function upstreamHeaders(
  exchange: Exchange,
): Promise<Record<string, string | string[]>> {
  // the broker's sidecars have removed identities already, and here they are removed again
  const headers = forwardableHeaders(exchange.client.request.headers)
  delete headers['content-length']
  return { ...headers, ...(await actingHeaders(exchange, exchange.requestId)) }
}

/** Headers of a request that the broker itself makes in the caller's name: for a reviewer to see, or to check a target. */
export async function actingHeaders(
  { cluster, requester, decision }: Exchange,
  requestId: string,
): Promise<Record<string, string | string[]>> {
  const { grantGroups } = decision.obligations
  return {
    ...(await cluster.authenticate()),
    ...identityHeaders(requester, grantGroups, requestId),
  }
}
