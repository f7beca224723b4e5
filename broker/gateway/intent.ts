/** What the ledger says of a request before it has any effect: made of what was verified, and of what the client declared, by name. */
import { userName } from '../credentials/impersonation.ts'
import type { Caller } from '../identity/sidecars.ts'
import type { IntentEntry, SubjectRecord } from '../ledger/entry.ts'
import type { Exchange } from './serve.ts'

/** `version-traceid-parentid-flags` (W3C Trace Context, 3.2.2): 55 characters, so that nothing else can be told by it. */
const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

/** The caller's pod as it stands in the ledger. */
export function subjectOf({ pod }: Caller): SubjectRecord {
  const { namespace, podName, podUid } = pod
  return { type: 'serviceAccount', name: userName(pod), namespace, podName, podUid }
}

/** The intent of a request that was decided on; whoever forwards it adds the credential. */
export function intentOf({
  requestId,
  client,
  connection,
  caller,
  names: { agent, chain, container },
  parsed,
  body,
  decision,
}: Exchange): IntentEntry {
  const { traceparent } = client.request.headers
  return {
    kind: 'intent',
    requestId,
    cluster: connection.name,
    subject: subjectOf(caller),
    agent,
    chain,
    ...(container === undefined
      ? {}
      : { container: { name: container.name, image: container.image } }),
    tag: caller.tag,
    request: {
      ...parsed.info,
      method: parsed.method,
      path: parsed.path,
      query: parsed.query,
      contentType: client.request.headers['content-type'] ?? '',
      bodySha256: body.sha256,
      bodyBytes: body.bytes.length,
      userAgent: client.request.headers['user-agent'] ?? '',
      ...(isTraceparent(traceparent) ? { traceparent } : {}),
    },
    decision,
  }
}

function isTraceparent(value: unknown): value is string {
  return typeof value === 'string' && TRACEPARENT.test(value)
}
