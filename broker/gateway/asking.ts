/** Questions to the API server about a request on its way, in its caller's name, and what the ledger says of them. */
import type { Asked as Question, CallerRequest } from '../approvals/as-caller.ts'
import type { SystemEntry } from '../ledger/entry.ts'
import { askingCredential } from './credential.ts'
import type { Exchange } from './exchange.ts'
import { userOf } from './requester.ts'
import { shownTarget } from './shown-request.ts'

/** The request in the form in which its target and its effect are looked at, always as its caller. */
export function askerOf(exchange: Exchange): CallerRequest {
  const { cluster, client, parsed, attributes, body, decision } = exchange
  return {
    connection: cluster,
    masking: decision.obligations.mask,
    credential: (requestId, { method, path, contentType }) =>
      askingCredential(exchange, requestId, method, path, contentType),
    attributes,
    method: parsed.method,
    query: parsed.query,
    contentType: client.request.headers['content-type'] ?? '',
    body: body.bytes,
  }
}

/** What the broker asked in a caller's name is evidence too: each under the id that the cluster's own audit log has. */
export function questionEntries(
  { requester, cluster, requestId }: Exchange,
  questions: readonly Question[],
): readonly SystemEntry[] {
  return questions.map(({ requestId: auditId, purpose, method, path, status }) => ({
    kind: 'system',
    event: 'approval_preview',
    actor: userOf(requester),
    detail: {
      ...{ requestId, cluster: cluster.name, auditId, purpose, method },
      ...{ path: shownTarget(path), status },
    },
  }))
}
