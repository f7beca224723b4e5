/**
 * THE WAY OF ONE REQUEST, top to bottom, in the order in which it happens:
 *
 *   parse → authenticate → name → decide → hold → credential → intent → forward → respond → outcome
 *
 * Each step returns a value or a refusal; the first refusal ends the way. Everything is settled before a byte
 * goes upstream, and no step acts in the broker's own name. A fault anywhere denies.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { messageOf } from '../../shared/errors.ts'
import { forwardableHeaders, HOLD_HEADER, REQUEST_HEADER } from '../../shared/headers.ts'
import type { Logger } from '../../shared/log.ts'
import { isRefusal, REASONS, refusalText, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { isRequestId, newRequestId } from '../../shared/request-id.ts'
import { takeSocket } from '../../shared/upgrade.ts'
import type { ClusterConnection } from '../credentials/connection.ts'
import { impersonationHeaders, userName } from '../credentials/impersonation.ts'
import type { Names, Naming } from '../identity/naming.ts'
import type { Caller, Sidecars } from '../identity/sidecars.ts'
import type { ApprovalRecord, DecisionRecord, IntentEntry } from '../ledger/entry.ts'
import type { Decider } from '../policy/decide.ts'
import type { Store } from '../store/store.ts'
import type { Bodies, CollectedBody } from './body.ts'
import { answerHeld, answerRefusal } from './client.ts'
import type { Client } from './client.ts'
import { forwardRequest, forwardUpgrade } from './forward.ts'
import type { ForwardOutcome, NotAnswered, Outgoing } from './forward.ts'
import { claimApproval, DEFAULT_TERMS, holdRequest } from './hold.ts'
import type { GatewayApprovals } from './hold.ts'
import { intentOf, subjectOf } from './intent.ts'
import { parseRequest, splitTarget } from './parse.ts'
import type { ParsedRequest } from './parse.ts'
import type { Running } from './running.ts'

/** What the gateway works with. */
export interface GatewayDeps {
  readonly connections: ReadonlyMap<string, ClusterConnection>
  readonly sidecars: Sidecars
  readonly naming: Naming
  readonly decider: Decider
  readonly approvals: GatewayApprovals
  /** How long held requests wait for people, in seconds. */
  readonly pendingSeconds?: number
  readonly store: Store
  readonly bodies: Bodies
  readonly running: Running
  readonly log: Logger
  readonly now: () => number
}

/** Serves `/clusters/…`. */
export interface Gateway {
  request(request: IncomingMessage, response: ServerResponse): void
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
}

/** A request on its way: what is known of it so far. */
export interface Exchange {
  readonly requestId: string
  readonly startedMs: number
  readonly client: Client
  readonly connection: ClusterConnection
  readonly caller: Caller
  readonly names: Names
  readonly parsed: ParsedRequest
  readonly body: CollectedBody
  readonly decision: DecisionRecord
}

/** Makes the gateway. */
export function createGateway(deps: GatewayDeps): Gateway {
  const run = (client: Client): void => {
    const requestId = newRequestId(deps.now())
    const work = serve(deps, client, requestId).catch((error: unknown) => {
      deps.log.error({ requestId, error: messageOf(error) }, 'a request ended in a fault')
      endInFault(client, requestId)
    })
    deps.running.track(work)
  }
  return {
    request(request, response): void {
      run({ request, channel: { kind: 'response', response } })
    },
    upgrade(request, socket, head): void {
      const taken = takeSocket(request, socket, head)
      deps.running.hold(taken)
      run({ request, channel: { kind: 'socket', socket: taken } })
    },
  }
}

async function serve(deps: GatewayDeps, client: Client, requestId: string): Promise<void> {
  const startedMs = deps.now()
  const { request } = client

  const target = splitTarget(request.url ?? '')
  const connection = target === undefined ? undefined : deps.connections.get(target.cluster)
  if (target === undefined || connection === undefined) {
    answerRefusal(client, refuse('cluster_unknown'), requestId)
    return
  }
  const parsed = parseRequest(request, target.rest, client.channel.kind === 'socket')

  const caller = await deps.sidecars.identify(target.cluster, request)
  if (isRefusal(caller)) {
    answerRefusal(client, caller, requestId)
    return
  }
  if (isRefusal(parsed)) {
    await refuseUnread(deps, client, caller, parsed, requestId)
    return
  }
  const admitted = await deps.running.admit(caller.pod, () =>
    deps.bodies.with(request, (body) =>
      conclude(deps, { requestId, startedMs, client, connection, caller, parsed }, body),
    ),
  )
  if (admitted !== undefined) answerRefusal(client, admitted, requestId)
}

/** Everything from the decision on. */
async function conclude(
  deps: GatewayDeps,
  known: Omit<Exchange, 'body' | 'decision' | 'names'>,
  body: CollectedBody | Refusal,
): Promise<void> {
  const { client, caller, parsed, requestId } = known
  if (isRefusal(body)) {
    await refuseUnread(deps, client, caller, body, requestId)
    return
  }
  const named = deps.naming.name(caller)
  const names = named instanceof Promise ? await named : named
  const decision = decide(deps, caller, names, parsed)
  const exchange: Exchange = { ...known, names, body, decision }
  if (decision.effect === 'deny') await deny(deps, exchange)
  else if (decision.effect === 'allow') await perform(deps, exchange)
  else await hold(deps, exchange)
}

function decide(
  deps: GatewayDeps,
  { pod, tag }: Caller,
  { agent, chain }: Names,
  { info, path }: ParsedRequest,
): DecisionRecord {
  const { cluster, namespace, serviceAccount } = pod
  return deps.decider.decide({
    cluster,
    namespace,
    serviceAccount,
    verdict: tag.verdict,
    exe: tag.verified?.exe,
    agent,
    ancestors: chain,
    info,
    path,
  })
}

async function deny(deps: GatewayDeps, exchange: Exchange): Promise<void> {
  const { decision } = exchange
  const refusal = refuse(decision.reason ?? 'policy_denied', decision.explanation)
  await refuseRecorded(deps, exchange, refusal)
}

async function hold(deps: GatewayDeps, exchange: Exchange): Promise<void> {
  const { headers } = exchange.client.request
  const claimed = headers[REQUEST_HEADER]
  if (typeof claimed === 'string' && isRequestId(claimed)) {
    const approval = await claimApproval(deps.approvals, exchange, claimed)
    if (isRefusal(approval)) await refuseRecorded(deps, exchange, approval)
    else await performApproved(deps, { ...exchange, requestId: claimed }, approval)
    return
  }
  if (headers[HOLD_HEADER] !== 'wait') {
    await refuseRecorded(deps, exchange, refuse('approval_required', exchange.decision.explanation))
    return
  }
  const { approvals, pendingSeconds = DEFAULT_TERMS.pendingSeconds } = deps
  const held = await holdRequest(approvals, exchange, intentOf(exchange), pendingSeconds)
  if (isRefusal(held)) await refuseRecorded(deps, exchange, held)
  else answerHeld(exchange.client, held)
}

async function performApproved(
  deps: GatewayDeps,
  exchange: Exchange,
  approval: ApprovalRecord,
): Promise<void> {
  let fate: Fate = 'UNKNOWN'
  try {
    fate = fateOf(await perform(deps, exchange, approval))
  } finally {
    await deps.approvals.finish(exchange.requestId, fate)
  }
}

type Fate = 'SUCCEEDED' | 'FAILED' | 'UNKNOWN'

/** What became of an approved request; unknown when it was sent and no answer came. */
function fateOf({ status, reason }: ForwardOutcome): Fate {
  if (status === 0 || reason === 'upstream_unavailable') return 'UNKNOWN'
  return status < 400 ? 'SUCCEEDED' : 'FAILED'
}

/** Credential, intent, forward, respond, outcome. */
async function perform(
  deps: GatewayDeps,
  exchange: Exchange,
  approval?: ApprovalRecord,
): Promise<ForwardOutcome> {
  const { requestId, client, connection, caller, parsed } = exchange
  const headers = {
    ...requestHeaders(client.request),
    ...(await connection.authenticate()),
    ...impersonationHeaders(caller.pod, requestId),
  }
  const intent: IntentEntry = {
    ...intentOf(exchange),
    ...(approval === undefined ? {} : { approval }),
    credential: { mode: 'impersonation', user: userName(caller.pod) },
  }
  const evidence = deps.store.append([intent])
  // whoever needs the intent awaits it below; until then its failure must not count as nobody's
  evidence.catch(() => undefined)
  if (!parsed.read) {
    try {
      await evidence
    } catch {
      return answerInstead(exchange, {
        notAnswered: refuse('ledger_unavailable'),
        bytesToServer: 0,
      })
    }
  }
  const outgoing: Outgoing = {
    requestId,
    method: parsed.method,
    path: parsed.query === '' ? parsed.path : `${parsed.path}?${parsed.query}`,
    headers,
    body: exchange.body.bytes,
    longRunning: parsed.longRunning,
  }
  const result = await forward(exchange, outgoing, evidence)
  const outcome = 'notAnswered' in result ? answerInstead(exchange, result) : result
  await recordOutcome(deps, exchange, outcome)
  return outcome
}

function forward(
  { client, connection, parsed }: Exchange,
  outgoing: Outgoing,
  evidence: Promise<unknown>,
): Promise<ForwardOutcome | NotAnswered> {
  const { channel } = client
  if (channel.kind === 'response') {
    return forwardRequest(connection.requests, outgoing, channel.response, evidence)
  }
  return forwardUpgrade(connection.upgrades, outgoing, parsed.protocol ?? '', channel.socket)
}

/** What of the client's headers goes upstream: the broker's sidecars have removed identities already, and here they are removed again. */
function requestHeaders(request: IncomingMessage): Record<string, string> {
  const headers = forwardableHeaders(request.headers)
  delete headers['content-length']
  return headers
}

function answerInstead(
  { client, requestId }: Exchange,
  { notAnswered, bytesToServer }: NotAnswered,
): ForwardOutcome {
  const status = answerRefusal(client, notAnswered, requestId)
  return { status, bytesToClient: 0, bytesToServer, reason: notAnswered.refused }
}

/** The intent of a refusal is its only trace upstream never sees; both entries go in one commit. */
async function refuseRecorded(
  deps: GatewayDeps,
  exchange: Exchange,
  refusal: Refusal,
): Promise<void> {
  const { client, requestId, startedMs, decision, connection } = exchange
  const intent = {
    ...intentOf(exchange),
    decision: { ...decision, effect: 'deny' as const, reason: refusal.refused },
  }
  const { status } = REASONS[refusal.refused]
  try {
    await deps.store.append([
      intent,
      {
        kind: 'outcome',
        requestId,
        cluster: connection.name,
        status,
        bytesToClient: 0,
        bytesToServer: 0,
        durationMs: deps.now() - startedMs,
        reason: refusal.refused,
      },
    ])
  } catch {
    answerRefusal(client, refuse('ledger_unavailable'), requestId)
    return
  }
  answerRefusal(client, refusal, requestId)
}

/** A request whose caller is known but which could not be read. */
async function refuseUnread(
  deps: GatewayDeps,
  client: Client,
  caller: Caller,
  refusal: Refusal,
  requestId: string,
): Promise<void> {
  const { cluster } = caller.pod
  try {
    await deps.store.append([
      {
        kind: 'refusal',
        requestId,
        cluster,
        subject: subjectOf(caller),
        reason: refusal.refused,
        detail: refusalText(refusal),
      },
    ])
  } catch {
    answerRefusal(client, refuse('ledger_unavailable'), requestId)
    return
  }
  answerRefusal(client, refusal, requestId)
}

async function recordOutcome(
  deps: GatewayDeps,
  exchange: Exchange,
  outcome: ForwardOutcome,
): Promise<void> {
  const { requestId, connection, startedMs } = exchange
  try {
    await deps.store.append([
      {
        kind: 'outcome',
        requestId,
        cluster: connection.name,
        durationMs: deps.now() - startedMs,
        ...outcome,
      },
    ])
  } catch (error) {
    // the answer is out already; the missing outcome stays visible in the ledger
    deps.log.error({ requestId, error: messageOf(error) }, 'an outcome could not be written')
  }
}

function endInFault(client: Client, requestId: string): void {
  const { channel } = client
  if (channel.kind === 'socket') channel.socket.destroy()
  else if (channel.response.headersSent) channel.response.destroy()
  else answerRefusal(client, refuse('internal'), requestId)
}
