/**
 * Placeholders in requests (docs/decisions/0010): whoever writes back what was read masked would put the placeholder in
 * place of the secret. Looked for whatever profile holds, in the body alone: in a name or a selector a placeholder means
 * nothing, and replaces nothing. What is proxied to a program, or sent outside the resource API, is no object.
 */
import type { RequestAttributes } from '../../../shared/kubernetes/attributes.ts'
import { textOf } from '../../../shared/kubernetes/json-fields.ts'
import { isConnect } from '../../../shared/kubernetes/request-info.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { hasPlaceholder, hasPlaceholderBytes } from './needles.ts'
import { fieldText, pointerText, printable } from './paths.ts'
import type { Path } from './paths.ts'

/** Most fields that one refusal names. */
export const MAX_FIELDS = 10
/** What is named where the body cannot be looked into. */
const WHOLE_BODY = '(body)'
/** What is named in place of a key that is a placeholder. */
const KEY = '(key)'

/**
 * Looks for placeholders in the body of a request.
 *
 * @param body - the bytes that `attributes` were read from
 * @returns `placeholder_written`, which names the first {@link MAX_FIELDS} fields; values never
 */
export function findPlaceholders(attributes: RequestAttributes, body: Buffer): Refusal | undefined {
  const { info } = attributes
  if (!info.isResourceRequest || isConnect(info)) return undefined
  const fields = fieldsOf(attributes, body)
  return fields.length === 0 ? undefined : placeholderRefusal(fields)
}

/** @param fields - at least one, as {@link fieldText} writes them */
export function placeholderRefusal(fields: readonly string[]): Refusal {
  const named = fields.slice(0, MAX_FIELDS)
  const more = fields.length > named.length ? ', …' : ''
  return { ...refuse('placeholder_written', `${named.join(', ')}${more}`), fields: named }
}

/** Where in an object placeholders stand, in values and in keys: the first {@link MAX_FIELDS}, and one more where there are more. */
export function placesOfPlaceholders(object: unknown): readonly string[] {
  return collect(object).map(fieldText)
}

function fieldsOf({ body, parameters }: RequestAttributes, bytes: Buffer): readonly string[] {
  if (body.state === 'none') return []
  if (body.state === 'opaque') return hasPlaceholderBytes(bytes) ? [WHOLE_BODY] : []
  const { value } = body
  if (parameters.patchType !== 'json' || !Array.isArray(value)) return placesOfPlaceholders(value)
  return value.flatMap((operation: unknown, index) => {
    const number = `operation ${index}`
    const at = `${number}: ${textOf(operation, 'op')} ${textOf(operation, 'path')}`
    return collect(operation).map(([member, ...inside]) =>
      member === 'value' ? printable(at + pointerText(inside)) : number,
    )
  })
}

/** Paths of the texts and keys that hold a placeholder; no more than one beyond {@link MAX_FIELDS}. */
function collect(root: unknown): readonly Path[] {
  const found: Path[] = []
  const path: (string | number)[] = []
  const within = (step: string | number, member: unknown): void => {
    path.push(step)
    walk(member)
    path.pop()
  }
  const walk = (value: unknown): void => {
    if (found.length > MAX_FIELDS) return
    if (typeof value === 'string') {
      if (hasPlaceholder(value)) found.push([...path])
    } else if (Array.isArray(value)) {
      value.forEach((item, index) => {
        within(index, item)
      })
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, member] of Object.entries(value)) {
        // the key is the placeholder: it is not repeated
        if (hasPlaceholder(key)) found.push([...path, KEY])
        else within(key, member)
      }
    }
  }
  walk(root)
  return found
}
