/** What of an exchange is to be masked: what policy says, joined with what was asked for (docs/decisions/0010). */
import { STANDARD_MASKING } from '../../shared/policy/masking.ts'
import type { Masking } from '../../shared/policy/masking.ts'
import type { AcceptTerms } from '../masking/answers/accept.ts'
import { createAnswerMasking } from '../masking/answers/answer.ts'
import type { AnswerMasking } from '../masking/answers/answer.ts'
import { answerSort } from '../masking/answers/sort.ts'
import type { MaskingKey } from '../masking/key.ts'
import type { Exchange } from './exchange.ts'

/** What of the answer is hidden. */
export function maskingOf({ decision }: Pick<Exchange, 'decision'>): Masking {
  return decision.obligations.mask ?? STANDARD_MASKING
}

/** How the answer is masked, and what it is asked for as. */
export function maskingTerms(exchange: Exchange): AcceptTerms {
  const { parsed } = exchange
  return {
    sort: answerSort(parsed.info, parsed.target.segments),
    group: parsed.info.apiGroup,
    masking: maskingOf(exchange),
  }
}

/** Whether anything of the answer may have to be hidden. */
export function isMasked(exchange: Exchange): boolean {
  const { sort, masking } = maskingTerms(exchange)
  return sort !== 'passed' && masking.profiles.length > 0
}

/** Masks the answer; undefined where it is passed on as it is. */
export function answerMasking(exchange: Exchange, key: MaskingKey): AnswerMasking | undefined {
  if (!isMasked(exchange)) return undefined
  const { method, info, read, longRunning } = exchange.parsed
  const terms = maskingTerms(exchange)
  return createAnswerMasking({
    ...terms,
    placeholders: key.placeholders(exchange.cluster.name),
    isPart: info.subresource !== '',
    ...{ method, longRunning, write: !read },
    isWatch: info.isResourceRequest && info.verb === 'watch',
    ofSecrets:
      info.resource === 'secrets' ||
      terms.masking.fields.some(({ group }) => group === terms.group),
  })
}
