/** The credential of a request on its way: made of who asks, what was decided, who approved, and the call itself. */
import { messageOf } from '../../shared/errors.ts'
import type { RequestAttributes } from '../../shared/kubernetes/attributes.ts'
import type { Logger } from '../../shared/log.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { ANY_NAME, apiCall, callOf } from '../credentials/api-call.ts'
import type { ApiCall } from '../credentials/api-call.ts'
import { credentialRefusal } from '../credentials/credential.ts'
import type { RequestCredential } from '../credentials/credential.ts'
import type { Exchange } from './exchange.ts'
import { actorOf } from './requester.ts'

/** The credential of the request itself. @param approvers - empty where nobody had to approve */
export function credentialOf(
  exchange: Exchange,
  approvers: readonly string[],
): Promise<RequestCredential> {
  const { requestId, client, parsed, attributes } = exchange
  const call = apiCall({
    info: parsed.info,
    segments: parsed.target.segments,
    contentType: client.request.headers['content-type'] ?? '',
    objectName: objectName(attributes),
  })
  return make(exchange, requestId, call, approvers)
}

/** Name of the object, as far as it is known before the API server has it. */
function objectName({ info, objectName: name, parameters, body }: RequestAttributes): string {
  if (info.verb !== 'create') return name
  // a star that is the name's own stands for itself: encoded it is equal to no name, and admission refuses the creation
  if (name !== '') return name.endsWith(ANY_NAME) ? encodeStar(name) : name
  const { generateName } = parameters
  if (generateName !== undefined) return generateName + ANY_NAME
  return body.state === 'opaque' ? ANY_NAME : name
}

function encodeStar(name: string): string {
  return `${name.slice(0, -ANY_NAME.length)}%2A`
}

/** The credential of a request that the broker makes in the caller's name: for a reviewer to see, or to check a target. @param target - path with query */
export function askingCredential(
  exchange: Exchange,
  requestId: string,
  method: string,
  target: string,
  contentType: string | undefined,
): Promise<RequestCredential> {
  // a creation that is tried is that of the same object: admission is asked about it as well
  const call = callOf(method, target, contentType, objectName(exchange.attributes))
  return make(exchange, requestId, call, [])
}

function make(
  { cluster, requester, decision }: Exchange,
  requestId: string,
  call: ApiCall,
  approvers: readonly string[],
): Promise<RequestCredential> {
  return cluster.credential.make({
    requestId,
    actor: actorOf(requester),
    grantGroups: decision.obligations.grantGroups,
    process: requester.agent?.names.agent,
    approvers,
    call,
  })
}

/** What is caught where a credential is made: one that cannot be made is a refusal, and the log says why; any other fault goes on. */
export function refusedCredential(
  { log }: { readonly log: Logger },
  { requestId }: Pick<Exchange, 'requestId'>,
): (error: unknown) => Refusal {
  return (error) => {
    const refusal = credentialRefusal(error)
    if (refusal === undefined) throw error
    log.error({ requestId, error: messageOf(error) }, 'a credential could not be made')
    return refusal
  }
}
