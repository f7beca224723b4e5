/** What a JSON patch (RFC 6902) touches, without applying it. */
import { textOf, valueAt } from './json-fields.ts'

/** How a patch meets a place in the object. */
export type Touch =
  /** Not at all. */
  | { readonly kind: 'none' }
  /** It sets the place to this value, or to nothing. */
  | { readonly kind: 'set'; readonly value: unknown }
  /** It touches the place, or something in it, in a way whose result is not in the patch. */
  | { readonly kind: 'unknown' }

const NONE: Touch = { kind: 'none' }
const UNKNOWN: Touch = { kind: 'unknown' }

/** What the operations of a patch do to the place at `path`; of several the last that is known, unless one is not. */
export function touches(patch: unknown, path: readonly string[]): Touch {
  if (!Array.isArray(patch)) return UNKNOWN
  let touch = NONE
  for (const operation of patch) {
    const one = touchOf(operation, path)
    if (one.kind === 'unknown') return UNKNOWN
    if (one.kind === 'set') touch = one
  }
  return touch
}

function touchOf(operation: unknown, path: readonly string[]): Touch {
  const op = textOf(operation, 'op')
  if (op === 'test') return NONE
  const from = pointer(textOf(operation, 'from'))
  // the server's library takes what stands before the first slash for nothing, whatever it is
  if (op === 'move' && (from === undefined || meet(from, path))) return UNKNOWN
  const place = pointer(textOf(operation, 'path'))
  if (place === undefined) return UNKNOWN
  if (!meet(place, path)) return NONE
  if (place.length > path.length) return UNKNOWN
  if (op === 'remove') return { kind: 'set', value: undefined }
  if (op !== 'add' && op !== 'replace') return UNKNOWN
  const inside = path.slice(place.length)
  return { kind: 'set', value: valueAt({ value: valueOf(operation) }, ['value', ...inside]) }
}

function valueOf(operation: unknown): unknown {
  return valueAt(operation, ['value'])
}

/** Whether one is a beginning of the other. */
function meet(a: readonly string[], b: readonly string[]): boolean {
  return (a.length < b.length ? a : b).every(
    (part, index) => part === (a.length < b.length ? b : a)[index],
  )
}

/** The parts of a JSON pointer (RFC 6901); undefined where it is none. */
function pointer(text: string): readonly string[] | undefined {
  if (text === '') return []
  if (!text.startsWith('/')) return undefined
  return text
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** Whether any operation of a patch names a key anywhere in its path or value. */
export function mentions(value: unknown, key: string): boolean {
  if (typeof value === 'string') return value === key
  if (Array.isArray(value)) return value.some((item) => mentions(item, key))
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(value).some(
    ([name, inner]: [string, unknown]) =>
      name === key ||
      (name === 'path' && typeof inner === 'string' && (pointer(inner)?.includes(key) ?? true)) ||
      mentions(inner, key),
  )
}
