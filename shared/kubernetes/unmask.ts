/**
 * The query parameter by which people and agents ask to see what is hidden of one object (docs/decisions/0010, "Showing
 * values"). It is Nestgate's own: digest, approval and ledger have it, the API server never sees it.
 */
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { RequestTarget } from './path.ts'
import type { RequestInfo } from './request-info.ts'

/** See the head of the file; its value is {@link UNMASK_VALUE}. */
export const UNMASK_PARAMETER = 'nestgate.dev/unmask'
/** The one value of {@link UNMASK_PARAMETER}. */
export const UNMASK_VALUE = 'true'

/** Whether a request asks for it. @returns `query_invalid` where it does so in any other way than the one that counts */
export function readUnmask({ parameters }: RequestTarget, info: RequestInfo): boolean | Refusal {
  let times = 0
  let isTrue = true
  for (const [name, value] of parameters) {
    if (name !== UNMASK_PARAMETER) continue
    times += 1
    isTrue &&= value === UNMASK_VALUE
  }
  if (times === 0) return false
  if (times > 1 || !isTrue)
    return refuse('query_invalid', `${UNMASK_PARAMETER} is given once, and is ${UNMASK_VALUE}`)
  // without a name the verb is list or watch (request-info.ts)
  const isOne = info.isResourceRequest && info.verb === 'get' && info.subresource === ''
  return isOne
    ? true
    : refuse('query_invalid', `${UNMASK_PARAMETER} belongs to a get of one object`)
}

/** The raw query that goes to the API server: all but {@link UNMASK_PARAMETER}, as it was sent. */
export function upstreamQuery({ query, parameters }: RequestTarget): string {
  if (!parameters.some(([name]) => name === UNMASK_PARAMETER)) return query
  // parseTarget passes over empty pairs only, so that the others are its pairs, in its order
  const pairs = query.split('&').filter((pair) => pair !== '')
  return pairs.filter((_, at) => parameters[at]?.[0] !== UNMASK_PARAMETER).join('&')
}
