/** What a request must not carry, ask or accept, so that what is hidden stays hidden and is not written over (broker/masking/writes). */
import { mediaType } from '../../shared/kubernetes/body.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { findPlaceholders } from '../masking/writes/find.ts'
import { hiddenBy } from '../masking/writes/hidden.ts'
import { findOracle } from '../masking/writes/oracles.ts'
import type { Exchange } from './exchange.ts'
import { acceptRefusal } from './headers.ts'
import { maskingOf } from './masking.ts'

/** Why a request does not go ahead, whether or not people approve it: by policy, or for what it carries or asks. */
export function refusalOf(exchange: Exchange): Refusal | undefined {
  const { effect, reason = 'policy_denied', explanation } = exchange.decision
  return effect === 'deny' ? refuse(reason, explanation) : hiddenRefusal(exchange)
}

function hiddenRefusal(exchange: Exchange): Refusal | undefined {
  const { attributes, body } = exchange
  const masking = maskingOf(exchange)
  const written = findPlaceholders(attributes, body.bytes)
  if (written !== undefined && !isRestorable(exchange)) return written
  return findOracle(attributes, masking, hiddenBy(masking)) ?? acceptRefusal(exchange)
}

/** Subresources whose body is the whole object. */
const WHOLE_OBJECT: ReadonlySet<string> = new Set(['', 'status'])
const JSON_TYPES: ReadonlySet<string> = new Set(['', 'application/json'])

/** Whether policy wants placeholders put back, and the request is one in which they can be. */
export function isRestorable(exchange: Exchange): boolean {
  const { attributes, client } = exchange
  const { info, body } = attributes
  const { profiles, restore } = maskingOf(exchange)
  return (
    restore &&
    profiles.length > 0 &&
    info.verb === 'update' &&
    WHOLE_OBJECT.has(info.subresource) &&
    body.state === 'read' &&
    JSON_TYPES.has(mediaType(client.request.headers['content-type'] ?? ''))
  )
}
