/** What a profile would hide of an object that a request carries. */
import type { Masking } from '../../../shared/policy/masking.ts'
import { maskDocument } from '../objects/masker.ts'
import type { Placeholders } from '../types.ts'
import type { HiddenIn } from './guesses.ts'

/** Nobody sees what is put in place here. */
const NO_PLACEHOLDERS: Placeholders = { of: () => () => '' }
/** What is named where the masker cannot read the object. */
const UNREADABLE = '(body)'

/** Asks the masker of answers. What it cannot read counts as hidden. */
export function hiddenBy(masking: Masking): HiddenIn {
  return (object) => {
    try {
      const bytes = Buffer.from(JSON.stringify(object, plainNumbers))
      const how = { masking, placeholders: NO_PLACEHOLDERS, shape: 'object', write: false } as const
      return maskDocument(bytes, how).masked.fields
    } catch {
      return [UNREADABLE]
    }
  }
}

/** JSON has no word for what the strict reader made of long numbers; their digits hide nothing. */
export function plainNumbers(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? String(value) : value
}
