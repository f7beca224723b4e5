/** What a request must not carry, ask or accept, so that what is hidden stays hidden and is not written over (broker/masking/writes). */
import { STANDARD_MASKING } from '../../shared/policy/masking.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import { refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import { findPlaceholders } from '../masking/writes/find.ts'
import { hiddenBy } from '../masking/writes/hidden.ts'
import { findOracle } from '../masking/writes/oracles.ts'
import type { Exchange } from './exchange.ts'
import { acceptRefusal } from './headers.ts'

/** What of the answer is hidden. */
export function maskingOf({ decision }: Pick<Exchange, 'decision'>): Masking {
  return decision.obligations.mask ?? STANDARD_MASKING
}

/** Why a request does not go ahead, whether or not people approve it: by policy, or for what it carries or asks. */
export function refusalOf(exchange: Exchange): Refusal | undefined {
  const { effect, reason = 'policy_denied', explanation } = exchange.decision
  return effect === 'deny' ? refuse(reason, explanation) : hiddenRefusal(exchange)
}

function hiddenRefusal(exchange: Exchange): Refusal | undefined {
  const { attributes, body } = exchange
  const masking = maskingOf(exchange)
  return (
    findPlaceholders(attributes, body.bytes) ??
    findOracle(attributes, masking, hiddenBy(masking)) ??
    acceptRefusal(exchange)
  )
}
