/** The hold: storing a request that waits for a person, and letting exactly that request through once it is approved. */
import { isConnect, resourcePath } from '../../shared/kubernetes/request-info.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { HeldRequest } from '../../shared/wire.ts'
import type { Approvals } from '../approvals/approvals.ts'
import { requestDigest } from '../approvals/digest.ts'
import { userName } from '../credentials/impersonation.ts'
import type { ApprovalRecord, IntentEntry } from '../ledger/entry.ts'
import { policyVerb } from '../policy/decide.ts'
import type { ApprovalTerms } from '../../shared/policy/decision.ts'
import type { Exchange } from './serve.ts'

/** What the gateway asks of approvals. */
export type GatewayApprovals = Pick<Approvals, 'ask' | 'claim' | 'finish'>

/** Terms of what policy holds without saying how. */
export const DEFAULT_TERMS: ApprovalTerms = {
  quorums: [],
  pendingSeconds: 900,
  approvedSeconds: 900,
  holdSeconds: 300,
  reuseSeconds: 0,
  onLeave: 'cancel',
  mode: 'hold',
}

/** Stores a request that policy holds. Its intent goes to the ledger in the same transaction. */
export async function holdRequest(
  approvals: GatewayApprovals,
  exchange: Exchange,
  intent: IntentEntry,
  pendingSeconds: number,
): Promise<HeldRequest | Refusal> {
  const { requestId, connection, caller, names, parsed, body, decision } = exchange
  const { instanceId } = caller.tag
  if (instanceId === undefined)
    return refuse('caller_unidentified', 'a held request needs a process that can claim it')
  const { method, path, query, info } = parsed
  const subject = userName(caller.pod)
  const asked = await approvals.ask(
    {
      id: requestId,
      digest: digestOf(exchange),
      cluster: connection.name,
      method,
      path,
      query,
      verb: policyVerb(info),
      resource:
        info.apiGroup === '' ? resourcePath(info) : `${resourcePath(info)}.${info.apiGroup}`,
      namespace: info.namespace,
      name: info.name,
      subject,
      requesters: [subject],
      owners: [],
      agent: names.agent,
      ancestors: [...names.chain],
      tag: caller.tag,
      rules: [...decision.rules],
      explanation: decision.explanation,
      terms: { ...DEFAULT_TERMS, quorums: [], pendingSeconds },
      streaming: parsed.longRunning,
      clientWaits: true,
      bodySha256: body.sha256,
      bodyBytes: body.bytes.length,
      instanceId,
      podUid: caller.pod.podUid,
      callerKey: caller.pod.podUid,
    },
    [intent],
  )
  if (isRefusal(asked)) return asked
  const { id, state, expiresAt } = asked.approval
  return { id, state, expiresAt }
}

/** Claims the approval of a request that is sent again: same digest, same process, once. */
export async function claimApproval(
  approvals: GatewayApprovals,
  exchange: Exchange,
  id: string,
): Promise<ApprovalRecord | Refusal> {
  const { instanceId } = exchange.caller.tag
  const { podUid: callerKey } = exchange.caller.pod
  if (instanceId === undefined)
    return refuse('caller_unidentified', 'only the process that asked may claim')
  const claimed = await approvals.claim({ id, digest: digestOf(exchange), instanceId, callerKey })
  if (isRefusal(claimed)) return claimed
  return { id, reviewer: claimed.approval.reviewer ?? '', reason: claimed.approval.reason ?? '' }
}

function digestOf({ client, connection, caller, parsed, body }: Exchange): string {
  const { verified } = caller.tag
  return requestDigest({
    cluster: connection.name,
    method: parsed.method,
    path: parsed.path,
    query: parsed.parameters,
    connect: isConnect(parsed.info),
    contentType: client.request.headers['content-type'] ?? '',
    bodySha256: body.sha256,
    identity: {
      podUid: caller.pod.podUid,
      containerId: verified?.containerId ?? '',
      uid: verified?.uid ?? -1,
      exe: verified?.exe ?? '',
    },
  })
}
