/**
 * THE WAY OF ONE REQUEST, top to bottom, in the order in which it happens:
 *
 *   parse → identify → attributes → kind → decide → hidden → hold → credential → intent → restore → forward → respond → outcome
 *
 * `hidden`: a placeholder that would be written, or a question that would tell a hidden value, ends the way before anybody approves it.
 * Each step returns a value or a refusal; the first refusal ends the way. Everything is settled before a byte
 * goes upstream, and no step acts in the broker's own name. A fault anywhere denies.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { Fault, messageOf } from '../../shared/errors.ts'
import { readAttributes } from '../../shared/kubernetes/request-attributes.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { Decider, Decision } from '../../shared/policy/decision.ts'
import { isRefusal, refusalText, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { takeSocket } from '../../shared/upgrade.ts'
import type { ClusterConnection } from '../credentials/connection.ts'
import { credentialRefusal } from '../credentials/credential.ts'
import type { Kinds } from '../discovery/kinds.ts'
import type { Bodies, CollectedBody } from './body.ts'
import { answerRefusal } from './client.ts'
import type { Client } from './client.ts'
import type { Exchange, Identified } from './exchange.ts'
import { breakGlass, hold } from './hold.ts'
import type { HoldDeps } from './hold.ts'
import { parseRequest, splitTarget } from './parse.ts'
import { perform } from './perform.ts'
import { refuseRecorded, refuseUnread } from './record.ts'
import { factsOf, identifyRequester, keyOf } from './requester.ts'
import type { IdentityDeps } from './requester.ts'
import type { Running } from './running.ts'
import { refusalOf } from './writes.ts'

/** The registered clusters; a refusal for one to which there is no way now. */
export interface GatewayClusters {
  get(name: string): { readonly connection: ClusterConnection } | Refusal | undefined
}

/** What the gateway works with. */
export interface GatewayDeps extends HoldDeps, IdentityDeps {
  readonly clusters: GatewayClusters
  readonly kinds: Kinds
  readonly bodies: Bodies
  readonly running: Running
}

/** Serves `/clusters/…`. */
export interface Gateway {
  request(request: IncomingMessage, response: ServerResponse): void
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
}

/** Makes the gateway. */
export function createGateway(deps: GatewayDeps): Gateway {
  const run = (client: Client): void => {
    const requestId = newRequestId(deps.now())
    const work = serve(deps, client, requestId).catch((error: unknown) => {
      deps.log.error({ requestId, error: messageOf(error) }, 'a request ended in a fault')
      endInFault(client, requestId, error)
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
  const cluster = target === undefined ? undefined : deps.clusters.get(target.cluster)
  if (target === undefined || cluster === undefined) {
    answerRefusal(client, refuse('cluster_unknown'), requestId)
    return
  }
  if (isRefusal(cluster)) {
    answerRefusal(client, cluster, requestId)
    return
  }
  const parsed = parseRequest(request, target.rest, client.channel.kind === 'socket')

  const requester = await identifyRequester(deps, target.cluster, request)
  if (isRefusal(requester)) {
    answerRefusal(client, requester, requestId)
    return
  }
  const { connection } = cluster
  const known = { requestId, startedMs, client, cluster: connection, requester }
  if (isRefusal(parsed)) {
    await refuseUnread(deps, known, parsed)
    return
  }
  const key = keyOf(requester)
  const admitted = await deps.running.admit(key, connection.name, () =>
    deps.bodies.with(request, (body) => conclude(deps, { ...known, parsed }, body)),
  )
  if (admitted !== undefined) answerRefusal(client, admitted, requestId)
}

/** Everything from the body on. */
async function conclude(
  deps: GatewayDeps,
  known: Identified,
  body: CollectedBody | Refusal,
): Promise<void> {
  if (isRefusal(body)) {
    await refuseUnread(deps, known, body)
    return
  }
  const attributes = attributesOf(known, body)
  if (isRefusal(attributes)) {
    await refuseUnread(deps, known, attributes)
    return
  }
  const decision = await decide(deps, known, attributes)
  const exchange: Exchange = { ...known, body, attributes, decision }
  const refused = refusalOf(exchange)
  if (refused !== undefined) {
    // before anybody is asked for an approval
    await refuseRecorded(deps, exchange, refused)
    return
  }
  switch (decision.effect) {
    case 'deny':
      return
    case 'hold':
      await hold(deps, exchange, () => decide(deps, known, attributes))
      return
    case 'breakGlass':
      await breakGlass(deps, exchange)
      return
    case 'allow':
      await perform(deps, exchange)
  }
}

function attributesOf(
  { client, parsed }: Identified,
  { bytes }: CollectedBody,
): RequestAttributes | Refusal {
  const { method, target, info } = parsed
  const contentType = client.request.headers['content-type'] ?? ''
  return readAttributes({ method, target, info, contentType, body: bytes })
}

/** What the cluster serves, and what policy says. */
async function decide(
  { kinds, decider }: GatewayDeps,
  { cluster, requester }: Identified,
  attributes: RequestAttributes,
): Promise<Decision> {
  const unknown = await kinds.check(cluster, attributes.info)
  if (unknown !== undefined) return denial(decider, unknown)
  return decider.decide(factsOf(requester, cluster.name, attributes))
}

function denial({ policyDigest }: Decider, refusal: Refusal): Decision {
  return {
    effect: 'deny',
    rules: [],
    policyDigest,
    explanation: refusalText(refusal),
    reason: refusal.refused,
    obligations: { grantGroups: [] },
  }
}

/** Who sent it may be known by the store alone. */
function faultRefusal(error: unknown): Refusal {
  const isStore = error instanceof Fault && error.code === 'store_failed'
  return refuse(isStore ? 'ledger_unavailable' : 'internal')
}

function endInFault(client: Client, requestId: string, error: unknown): void {
  const { channel } = client
  if (channel.kind === 'socket') channel.socket.destroy()
  else if (channel.response.headersSent) channel.response.destroy()
  else answerRefusal(client, credentialRefusal(error) ?? faultRefusal(error), requestId)
}
