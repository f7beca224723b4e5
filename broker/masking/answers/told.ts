/** What is said of what was hidden: to the client's user in a header `Warning`, to the ledger in the outcome. */
import type { MaskedRecord } from '../../ledger/entry.ts'
import type { MaskedFields } from '../types.ts'

/** Most fields that are named to the client. */
const MAX_TOLD_FIELDS = 3
/** Longest name of a field, in UTF-16 code units: keys of objects are as long as their owner likes. */
const MAX_FIELD_LENGTH = 160
/** … and to the client, who reads three of them in one line. */
const MAX_TOLD_LENGTH = 64

/** Of a watch nothing is known when it begins. */
export const WATCH_WARNING = 'values of secrets are masked in what is watched'

/**
 * One line about an answer; undefined where nothing was hidden.
 *
 * @param isWhole - the answer has ended: without this there may be more
 */
export function maskedWarning(
  { count, fields, more }: MaskedFields,
  isWhole: boolean,
): string | undefined {
  if (count === 0) return undefined
  const number = `${isWhole ? '' : 'at least '}${count} ${count === 1 ? 'field' : 'fields'}`
  const names = fields.slice(0, MAX_TOLD_FIELDS).map((name) => shortened(name, MAX_TOLD_LENGTH))
  const left = fields.length - names.length
  const rest = left === 0 ? '' : ` and ${left}${more ? ' or more' : ''} more`
  return `masked ${number}: ${names.join(', ')}${rest}`
}

/** As the ledger keeps it; undefined where nothing was hidden. */
export function maskedRecord(
  profiles: readonly string[],
  { count, fields, more }: MaskedFields,
): MaskedRecord | undefined {
  if (count === 0) return undefined
  return {
    ...{ profiles, count },
    fields: fields.map((name) => shortened(name, MAX_FIELD_LENGTH)),
    ...(more ? { more: true } : {}),
  }
}

function shortened(text: string, maxLength: number): string {
  return text.length <= maxLength ? text : `${text.slice(0, maxLength)}...`
}
