/** What the ledger says of a request before it has any effect: made of what was verified, and of what the client declared, by name. */
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { Decision } from '../../shared/policy/decision.ts'
import type { AttributesRecord, DecisionRecord, IntentEntry } from '../ledger/entry.ts'
import { maskText } from '../masking/detectors/masker.ts'
import { oidcOf, subjectOf } from './requester.ts'
import type { Exchange } from './exchange.ts'
import { shownLabels, shownParameters, shownPath, shownQuery } from './shown-request.ts'

/** `version-traceid-parentid-flags` (W3C Trace Context, 3.2.2): 55 characters, so that nothing else can be told by it. */
const TRACEPARENT = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/

/** The intent of a request that was decided on; whoever forwards it adds the credential. */
export function intentOf(exchange: Exchange): IntentEntry {
  const { requestId, client, cluster, requester, parsed, body, attributes, decision } = exchange
  const { traceparent } = client.request.headers
  const oidc = oidcOf(requester)
  return {
    kind: 'intent',
    requestId,
    cluster: cluster.name,
    subject: subjectOf(requester),
    ...agentFields(exchange),
    ...(oidc === undefined ? {} : { oidc }),
    request: {
      ...parsed.info,
      method: parsed.method,
      path: shownPath(parsed),
      query: shownQuery(parsed.query),
      contentType: maskText(client.request.headers['content-type'] ?? '').text,
      bodySha256: body.sha256,
      bodyBytes: body.bytes.length,
      userAgent: maskText(client.request.headers['user-agent'] ?? '').text,
      ...(isTraceparent(traceparent) ? { traceparent } : {}),
      attributes: attributesRecord(attributes),
    },
    decision: decisionRecord(decision),
  }
}

function agentFields({
  requester: { agent },
}: Exchange): Pick<IntentEntry, 'agent' | 'chain' | 'container' | 'tag'> {
  if (agent === undefined) return {}
  const { names, tag } = agent
  const { container } = names
  return {
    agent: names.agent,
    chain: names.chain,
    ...(container === undefined
      ? {}
      : { container: { name: container.name, image: container.image } }),
    tag,
  }
}

function attributesRecord(attributes: RequestAttributes): AttributesRecord {
  const { policyVerb, actions, equivalents, objectName, labels } = attributes
  const parameters = shownParameters(attributes.parameters)
  const record = { policyVerb, actions, equivalents, parameters, objectName }
  return labels === undefined ? record : { ...record, labels: shownLabels(labels) }
}

/** Of a decision what says why. */
export function decisionRecord(decision: Decision): DecisionRecord {
  const { effect, rules, policyDigest, explanation, reason } = decision
  const record = { effect, rules, policyDigest, explanation }
  return reason === undefined ? record : { ...record, reason }
}

function isTraceparent(value: unknown): value is string {
  return typeof value === 'string' && TRACEPARENT.test(value)
}
