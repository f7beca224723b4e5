/**
 * What API servers quote in their errors. A patch that cannot be applied is answered with pieces of the object as it is
 * stored, or with all of it: a merge patch of one unknown field, with `fieldValidation=Strict`, has the whole patched
 * Secret in the error's text (apiserver, endpoints/handlers/patch.go, `field.Invalid(…, string(patchedObjJS), …)`), and
 * a changed pod is answered with a difference to the stored one (validation.go, `specDiff`). So quoted objects are
 * hidden whatever they are of, and quoted values where they are of what is secret. Verified in Kubernetes 1.20 and in
 * the versions of apimachinery since; every step is linear in the text.
 */
import { maskText } from '../detectors/masker.ts'
import { secretMember, secretName } from './names.ts'

/** Stands for what was quoted. */
const NOT_QUOTED = '…'

/** Hides what an error's text quotes. */
type Step = (text: string, secret: boolean) => string

/**
 * Masks a message of a Status, or of one of its causes.
 *
 * @param aboutSecrets - the request is about Secrets, or about a kind of which fields are hidden. Not to be taken from
 *   `details.kind`: that is empty in errors about patches
 * @param field - `field` of a cause: the value of a field whose name promises a secret is hidden too
 */
export function maskStatusText(text: string, aboutSecrets: boolean, field = ''): string {
  const secret = aboutSecrets || isSecretField(field)
  let clean = text
  for (const step of STEPS) clean = step(clean, secret)
  return clean
    .split(ERROR_WORDS)
    .map((part, index) => (index % 2 === 0 ? maskText(part).text : part))
    .join('')
}

/** What validation says of a field: behind `token:` it would itself look like a secret. */
const ERROR_WORDS =
  /(: (?:Invalid value|Required value|Unsupported value|Duplicate value|Not found|Forbidden|Too long|Too many|Internal error)\b)/

const SEGMENT = /[^.[\]"']+/g
/** Longest field that is looked at, in UTF-16 code units. */
const MAX_FIELD_LENGTH = 512

/** Whether a field, as errors name it, holds a secret: `data[password]`, `spec.auth.token`, `spec.containers[0].env[1].value`. */
function isSecretField(field: string): boolean {
  if (field.length > MAX_FIELD_LENGTH) return true
  const segments = field.match(SEGMENT) ?? []
  const last = segments.at(-1) ?? ''
  if (secretMember(last) || secretName(last)) return true
  return last === 'value' && /(?:^|[.\]])(?:env|httpHeaders)\[/.test(field)
}

/** Replaces all from behind the first `head` to before the last of `tails`, or to the end where none follows. */
function between(head: RegExp, ...tails: readonly string[]): Step {
  return (text) => {
    const found = head.exec(text)
    if (found === null) return text
    const from = found.index + found[0].length
    const to = Math.max(...tails.map((tail) => text.lastIndexOf(tail)))
    const kept = to >= from ? text.slice(to) : ''
    return `${text.slice(0, from)}${NOT_QUOTED}${kept}`
  }
}

/** json-iterator, of API servers before 1.23: `found in #10 byte of ...|…|..., bigger context ...|…|...`; the pieces may hold the marks themselves. */
const decoderContext = between(/\.\.\.\|/, '|...')
/** apimachinery, runtime/error.go: the whole object. */
const missingKind = between(/Object '(?:Kind|apiVersion)' is missing in '/, "'")
/** apimachinery, util/mergepatch/errors.go: maps as Go prints them, of the patch or of the stored object. */
const mergeMap = between(/\bmap: (?=map\[)/, ' does not contain declared merge key')
const patchType = between(/\bunknown patch type: /)
const precondition = between(/\bprecondition failed for: /)
const mergeConflict = between(/\bpatch:\n/)
/** Validation that answers with a difference to the stored object, in lines of its own. */
const forbiddenDiff = between(/\bForbidden: [^\n]*\n/)

/** Behind these words of apimachinery's util/validation/field/errors.go stands a value. */
const VALUE_HEAD = /\b(?:Invalid|Unsupported|Duplicate) value: |\bNot found: /g
/** structured-merge-diff, typed/validate.go and helpers.go: `expected string, got &value.valueUnstructured{Value:…}`. */
const TYPED_HEAD = /\bexpected (?:string|map|list|boolean|numeric)[^\n,]{0,32}, got /g
/** encoding/json, strconv, time: the text that could not be read stands in quotes. */
const PARSED_HEAD =
  /\b(?:parsing(?: time)?|trying to unmarshal|invalid duration|cannot parse|cannot unmarshal number|decoding) (?=["`\d-])/g
/** yaml, decode.go: `cannot unmarshal !!str …`, the value between backticks, of a long one the beginning. */
const YAML_HEAD = /\bcannot unmarshal !!\w{1,16} (?=`)/g

/** How a value is printed: quoted (`%q`), a plain word (`%v` of numbers, quantities, times), or a dump of Go (`%#v`). */
const QUOTED = /"(?:[^"\\]|\\[^])*"/y
const TICKED = /`[^`]*`/y
const PLAIN = /[\w.+:/-]*[\w+/-]/y
const PLAIN_END = /^(?:: |, |[\])]|\s|$)/
/** A quoted value that long is an object or a file. */
const MAX_SHOWN_QUOTE = 256

/** Replaces the value behind each of the heads. */
function valuesBehind(heads: RegExp): Step {
  return (text, secret) => {
    let out = ''
    let done = 0
    for (const { 0: head, index } of text.matchAll(heads)) {
      const from = index + head.length
      if (index < done) continue
      const end = endOfHidden(text, from, secret || isSecretField(fieldBefore(text, index)))
      if (end === from) continue
      out += text.slice(done, from) + NOT_QUOTED
      done = end
    }
    return out + text.slice(done)
  }
}

/** Where the hidden value that begins at `from` ends; `from` itself where it may be shown. */
function endOfHidden(text: string, from: number, secret: boolean): number {
  if (text[from] === '"') return endOfQuote(text, from, secret)
  if (text[from] === '`') return secret ? (endOf(TICKED, text, from) ?? text.length) : from
  const plain = endOf(PLAIN, text, from)
  if (plain !== undefined && PLAIN_END.test(text.slice(plain, plain + 2))) {
    return secret ? plain : from
  }
  // a dump may hold what looks like its end: all up to the last brace goes
  const last = text.lastIndexOf('}')
  return last >= from ? last + 1 : text.length
}

function endOfQuote(text: string, from: number, secret: boolean): number {
  const end = endOf(QUOTED, text, from)
  if (end === undefined) return text.length
  const isObject = text[from + 1] === '{' || text[from + 1] === '['
  return secret || isObject || end - from > MAX_SHOWN_QUOTE ? end : from
}

function endOf(pattern: RegExp, text: string, from: number): number | undefined {
  pattern.lastIndex = from
  return pattern.test(text) ? pattern.lastIndex : undefined
}

/** The field that stands before `: Invalid value`. */
function fieldBefore(text: string, index: number): string {
  if (!text.startsWith(': ', index - 2)) return ''
  const before = text.slice(Math.max(0, index - MAX_FIELD_LENGTH), index - 2)
  return before.slice(Math.max(...[' ', ',', '\n'].map((end) => before.lastIndexOf(end))) + 1)
}

const STEPS: readonly Step[] = [
  decoderContext,
  missingKind,
  mergeMap,
  patchType,
  precondition,
  mergeConflict,
  forbiddenDiff,
  valuesBehind(VALUE_HEAD),
  valuesBehind(TYPED_HEAD),
  valuesBehind(PARSED_HEAD),
  valuesBehind(YAML_HEAD),
]
