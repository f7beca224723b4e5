/** What tells a value that somebody wrote down from a name, a path or a placeholder. */
import { bytesOf } from './classes.ts'

/** Bytes of a value that a check looks at. */
export const CHECK_BYTES = 64

/**
 * Whether the bytes may be a secret.
 *
 * @param from - where the value begins
 * @param to - where it ends, or ends for now; no check may look further than `CHECK_BYTES`
 */
export type Check = (bytes: Buffer, from: number, to: number) => boolean

const LETTER = bytesOf('A-Za-z')
const DIGIT = bytesOf('0-9')
const NAME_START = bytesOf('A-Za-z_{(')

/** Words that stand where a value is missing, hidden or said to be there. */
const PLACEHOLDERS: ReadonlySet<string> = new Set([
  'true',
  'false',
  'null',
  'none',
  'undefined',
  '(null)',
  'redacted',
  '[redacted]',
  'required',
  'optional',
  'string',
  'changeme',
])

function shown(bytes: Buffer, from: number, to: number): string {
  return bytes.toString('latin1', from, Math.min(to, from + CHECK_BYTES))
}

/** `$NAME`, `${NAME}`, `$(NAME)`, `{{ name }}`, `%(name)s`, `%NAME%`. */
function isReference(value: string): boolean {
  const [first = '', second = ''] = value
  if (first === '$') return NAME_START[second.charCodeAt(0)] === 1
  return value.startsWith('{{') || (first === '%' && NAME_START[second.charCodeAt(0)] === 1)
}

/** `/name`, `/name/…`, `./…`, `../…`, `~/…`: a lower-case first name, so that base64 that begins with a slash is none. */
function isPath(value: string): boolean {
  if (value.startsWith('./') || value.startsWith('../') || value.startsWith('~/')) return true
  if (!value.startsWith('/')) return false
  const next = value.indexOf('/', 1)
  const name = next === -1 ? value.slice(1) : value.slice(1, next)
  return /^[a-z-]*$/.test(name)
}

/** A value: no reference to one, no path, no placeholder, not masked already. */
export const assigned: Check = (bytes, from, to) => {
  const value = shown(bytes, from, to)
  if (isReference(value) || isPath(value)) return false
  if (PLACEHOLDERS.has(value.replace(/[,;)}\]]$/, '').toLowerCase())) return false
  return !/^(?:\*+|x+|\.+)$/i.test(value)
}

/** {@link assigned}, and more than a word of prose: a byte other than a lower-case letter. */
export const assignedNoWord: Check = (bytes, from, to) => {
  const value = shown(bytes, from, to).replace(/[.,;:!?)]$/, '')
  return /[^a-z]/.test(value) && assigned(bytes, from, to)
}

/** Letters and digits both: a word, a number or a rule of dashes is none. */
export const mixed: Check = (bytes, from, to) => {
  let letters = 0
  let digits = 0
  for (let at = from; at < Math.min(to, from + CHECK_BYTES); at++) {
    letters += LETTER[bytes[at] ?? 0] ?? 0
    digits += DIGIT[bytes[at] ?? 0] ?? 0
  }
  return letters > 0 && digits > 0
}
