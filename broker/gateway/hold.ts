/**
 * The hold: a request that policy holds becomes a ticket that people decide on, and exactly that request passes once it is
 * approved. Its client waits (at its sidecar, or here for a direct client) or is told to come back. What it acts on is
 * looked at when it is held, shown to the reviewer, and looked at again before it goes ahead.
 */
import { APPROVAL_HEADER, HOLD_HEADER, REQUEST_HEADER } from '../../shared/headers.ts'
import { isConnect, isSession, resourcePath } from '../../shared/kubernetes/request-info.ts'
import type { Decision } from '../../shared/policy/decision.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { isRequestId } from '../../shared/request-id.ts'
import type { Approvals, HoldFacts } from '../approvals/approvals.ts'
import { requestDigest } from '../approvals/digest.ts'
import type { Previews } from '../approvals/preview.ts'
import { approversOf } from '../approvals/reviewers.ts'
import { claimRefusal } from '../approvals/states.ts'
import type { Targets } from '../approvals/target.ts'
import type { Owners } from '../identity/registrations.ts'
import type { ApprovalRecord, SystemEntry } from '../ledger/entry.ts'
import type { StoredApproval } from '../store/store.ts'
import { askerOf, questionEntries } from './asking.ts'
import { answerHeld } from './client.ts'
import type { Exchange } from './exchange.ts'
import type { ForwardOutcome } from './forward.ts'
import { refusedCredential } from './credential.ts'
import { isReturnTarget } from './parse.ts'
import { evidenceOf } from './payload.ts'
import { fateOf, perform } from './perform.ts'
import type { Grant, PerformDeps } from './perform.ts'
import { recordOutcome, refuseHeld, refuseRecorded } from './record.ts'
import { digestIdentity, instanceOf, keyOf, requesterNames, userOf } from './requester.ts'
import { shownPath, shownQuery } from './shown-request.ts'
import { refusalOf } from './writes.ts'

/** What holding needs. */
export interface HoldDeps extends PerformDeps {
  readonly approvals: Pick<
    Approvals,
    'ask' | 'open' | 'claim' | 'finish' | 'waitFor' | 'leave' | 'parked'
  >
  readonly targets: Targets
  readonly previews: Previews
  readonly owners: Owners
}

/** A request that policy holds. @param decideAgain - what policy says of it by the time that people have decided */
export async function hold(
  deps: HoldDeps,
  exchange: Exchange,
  decideAgain: () => Promise<Decision>,
): Promise<void> {
  const claimed = exchange.client.request.headers[REQUEST_HEADER]
  if (typeof claimed === 'string' && isRequestId(claimed) && exchange.requester.agent) {
    await performClaimed(deps, exchange, claimed)
    return
  }
  const { agent } = exchange.requester
  if (agent !== undefined && agent.tag.instanceId === undefined) {
    const detail = 'a held request needs a process that can claim it'
    await refuseRecorded(deps, exchange, refuse('caller_unidentified', detail))
    return
  }
  const facts = await holdFacts(deps, exchange)
  if (isRefusal(facts)) {
    await refuseRecorded(deps, exchange, facts)
    return
  }
  const { intent, payloads } = evidenceOf(exchange)
  const asked = await deps.approvals.ask(facts.facts, [intent, ...facts.entries], payloads)
  if (isRefusal(asked)) {
    await refuseRecorded(deps, exchange, asked)
    return
  }
  const { approval } = asked
  if (approval.state === 'APPROVED') await performClaimed(deps, exchange, approval.id)
  else if (approval.state !== 'PENDING') await refuseHeld(deps, exchange, stateRefusal(approval))
  else await awaitDecision(deps, exchange, approval, decideAgain)
}

/** A request that goes ahead without approval, and that somebody must look at afterwards. */
export async function breakGlass(deps: HoldDeps, exchange: Exchange): Promise<void> {
  const held = await holdFacts(deps, exchange)
  if (isRefusal(held)) {
    await refuseRecorded(deps, exchange, held)
    return
  }
  const opened = await deps.approvals.open(held.facts, held.entries)
  const { requestId } = exchange
  const record: ApprovalRecord = { id: requestId, reviewer: '', reason: '', breakGlass: true }
  const warnings = [`nestgate: break-glass; request ${requestId} will be reviewed`]
  await performGranted(deps, exchange, { record, warnings, revoked: opened.revoked })
}

/** Who waits where: a sidecar by polling, a direct client here, and a client that wants to come back nowhere. */
async function awaitDecision(
  deps: HoldDeps,
  exchange: Exchange,
  approval: StoredApproval,
  decideAgain: () => Promise<Decision>,
): Promise<void> {
  const { id } = approval
  if (!clientWaits(exchange)) {
    await refuseHeld(deps, exchange, pendingRefusal(approval))
    return
  }
  const { holdSeconds } = approval.terms
  if (exchange.requester.agent !== undefined) {
    const { state, expiresAt } = approval
    answerHeld(exchange.client, { id, state, expiresAt, holdSeconds })
    return
  }
  const left = leavingOf(exchange)
  const owner = { callerKey: keyOf(exchange.requester) }
  const now = await deps.approvals.waitFor(id, owner, holdSeconds * MS_PER_S, left)
  if (left.aborted) {
    await deps.approvals.leave(id, owner)
    await recordOutcome(deps, exchange, CLIENT_LEFT)
  } else if (isRefusal(now)) await refuseHeld(deps, exchange, now)
  else if (now.state === 'APPROVED') {
    // a sidecar asks again, and so is decided on again; who waited here must be, too
    const decided = { ...exchange, decision: await decideAgain() }
    const refused = refusalOf(decided)
    if (refused !== undefined) await refuseRecorded(deps, decided, refused)
    else await performClaimed(deps, decided, id)
  } else if (now.state === 'PENDING') {
    await deps.approvals.parked(id, owner)
    await refuseHeld(deps, exchange, pendingRefusal(approval))
  } else await refuseHeld(deps, exchange, stateRefusal(now))
}

const MS_PER_S = 1000
/** Largest body of a direct client that is kept waiting, in bytes. */
export const MAX_WAITING_BODY_BYTES = 64 * 1024
const CLIENT_LEFT: ForwardOutcome = {
  status: 0,
  bytesToClient: 0,
  bytesToServer: 0,
  reason: 'client_left',
}

/** Claims an approval and, if its target is still what was approved, performs the request under the approval's id. */
async function performClaimed(deps: HoldDeps, asked: Exchange, id: string): Promise<void> {
  const claimed = await deps.approvals.claim({
    id,
    digest: digestOf(asked),
    callerKey: keyOf(asked.requester),
    instanceId: instanceOf(asked.requester),
    quorums: asked.decision.approval?.quorums ?? [],
  })
  if (isRefusal(claimed)) {
    await refuseRecorded(deps, asked, claimed)
    return
  }
  const exchange = { ...asked, requestId: id }
  const { approval, revoked } = claimed
  const checked = checkTarget(deps, exchange, approval).catch(refusedCredential(deps, exchange))
  const changed = await checked.catch(async (error: unknown) => {
    // nothing was sent: without this it would count as running until a restart made it UNKNOWN
    await deps.approvals.finish(id, 'FAILED')
    throw error
  })
  if (changed !== undefined) {
    await deps.approvals.finish(id, 'FAILED')
    await refuseRecorded(deps, exchange, changed)
    return
  }
  const reviewer = approval.reviewer ?? ''
  const approvers = approversOf(approval)
  const record = { id, reviewer, approvers, reason: approval.reason ?? '' }
  const warnings = [`nestgate: approved by ${reviewer}, request ${id}`]
  await performGranted(deps, exchange, { record, warnings, revoked })
}

async function performGranted(deps: HoldDeps, exchange: Exchange, grant: Grant): Promise<void> {
  let outcome: ForwardOutcome | undefined
  try {
    outcome = await perform(deps, exchange, grant)
  } finally {
    const fate = outcome === undefined ? 'UNKNOWN' : fateOf(outcome)
    await deps.approvals.finish(exchange.requestId, fate, isRefusedSession(exchange, outcome))
  }
}

/** A session that the API server itself refused: no byte reached the program. */
function isRefusedSession({ client }: Exchange, outcome: ForwardOutcome | undefined): boolean {
  if (client.channel.kind !== 'socket' || outcome === undefined) return false
  return outcome.status >= 400 && outcome.status < 500 && outcome.reason === undefined
}

/** Whether the target is still what was approved; what cannot be checked stays undone. */
async function checkTarget(
  deps: HoldDeps,
  exchange: Exchange,
  { target }: StoredApproval,
): Promise<Refusal | undefined> {
  const { refusal, asked } = await deps.targets.check(askerOf(exchange), target)
  if (asked.length > 0) await deps.store.append(questionEntries(exchange, asked))
  return refusal
}

interface Held {
  readonly facts: HoldFacts
  /** Entries about what was read for the reviewer. */
  readonly entries: readonly SystemEntry[]
}

/** All that a reviewer decides on, or why it cannot be had. */
function holdFacts(deps: HoldDeps, exchange: Exchange): Promise<Held | Refusal> {
  return readFacts(deps, exchange).catch(refusedCredential(deps, exchange))
}

/** Reads the target, and tries the request out, in the caller's own name. */
async function readFacts(deps: HoldDeps, exchange: Exchange): Promise<Held | Refusal> {
  const { requestId, cluster, requester, parsed, body, attributes, decision } = exchange
  const { agent } = requester
  if (decision.approval === undefined) return refuse('policy_error', 'the rule gives no terms')
  const asker = askerOf(exchange)
  const { seen, asked } = await deps.targets.snapshot(asker)
  if (isRefusal(seen)) return seen
  const shown = await deps.previews.preview(asker, seen)
  const { method, query, info } = parsed
  const facts: HoldFacts = {
    id: requestId,
    digest: digestOf(exchange),
    callerKey: keyOf(exchange.requester),
    cluster: cluster.name,
    method,
    // nobody performs it from here: the client sends it again, and the digest is of what it sends
    path: shownPath(parsed),
    query: shownQuery(query),
    verb: attributes.policyVerb,
    resource: info.apiGroup === '' ? resourcePath(info) : `${resourcePath(info)}.${info.apiGroup}`,
    namespace: info.namespace,
    name: attributes.objectName,
    subject: userOf(requester),
    requesters: [...requesterNames(requester)],
    owners: agent === undefined ? [] : [...deps.owners([agent.names.agent, ...agent.names.chain])],
    agent: agent?.names.agent ?? '',
    ancestors: [...(agent?.names.chain ?? [])],
    tag: agent?.tag,
    podUid: agent?.pod.podUid,
    instanceId: instanceOf(requester),
    rules: [...decision.rules],
    explanation: decision.explanation,
    terms: decision.approval,
    bodySha256: body.sha256,
    bodyBytes: body.bytes.length,
    target: seen.target,
    preview: shown.preview,
    streaming: parsed.longRunning,
    clientWaits: clientWaits(exchange),
  }
  return { facts, entries: questionEntries(exchange, [...asked, ...shown.asked]) }
}

/**
 * Whether the client is kept waiting; a rule that lets it come back is not overruled by the client. A direct client waits
 * here with its body in memory, so that one with a large body is told to come back.
 */
function clientWaits({ client, requester, decision, body }: Exchange): boolean {
  if (decision.approval?.mode === 'return' || isReturnTarget(client.request.url)) return false
  const { headers } = client.request
  if (requester.agent !== undefined) return headers[HOLD_HEADER] === 'wait'
  return headers[APPROVAL_HEADER] !== 'return' && body.bytes.length <= MAX_WAITING_BODY_BYTES
}

function pendingRefusal({ id }: StoredApproval): Refusal {
  return refuse('approval_pending', `request ${id}: nestgate approvals show ${id}`)
}

/** Why a request in a state other than PENDING does not go ahead; one that could is claimed instead. */
function stateRefusal(approval: StoredApproval): Refusal {
  const words = [approval.reviewer, approval.reason].filter((text) => text !== undefined)
  const reason = words.length === 0 ? {} : { reason: words.join(': ') }
  return claimRefusal({ ...approval, ...reason }) ?? refuse('approval_spent')
}

function leavingOf({ client: { channel } }: Exchange): AbortSignal {
  const left = new AbortController()
  const gone = channel.kind === 'response' ? channel.response : channel.socket
  if (gone.destroyed) left.abort()
  gone.once('close', () => {
    left.abort()
  })
  return left.signal
}

function digestOf({ client, cluster, requester, parsed, body, decision }: Exchange): string {
  return requestDigest({
    cluster: cluster.name,
    method: parsed.method,
    path: parsed.path,
    query: parsed.parameters,
    connect: isConnect(parsed.info),
    session: isSession(parsed.info),
    grantGroups: decision.obligations.grantGroups,
    contentType: client.request.headers['content-type'] ?? '',
    bodySha256: body.sha256,
    identity: digestIdentity(requester),
  })
}
