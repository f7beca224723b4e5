/** Compares what a masker made of an answer with what the oracle (masking-oracle.ts) expects of it. */
import { NotJson, readSpans } from './json-spans.ts'
import { expectMasking } from './masking-oracle.ts'
import type { Asked, Edit, Form } from './masking-oracle.ts'
import { createJsonMasker } from '../../broker/masking/objects/masker.ts'
import { PLACEHOLDER, PLACEHOLDER_PREFIX } from '../../broker/masking/placeholder.ts'
import type { JsonMasker, MaskedFields, Placeholders } from '../../broker/masking/types.ts'
import { Fault } from '../../shared/errors.ts'

/** What a masker made of an answer. */
export type Made =
  | { readonly outcome: 'masked'; readonly bytes: Buffer; readonly masked: MaskedFields }
  /** `bytes` had gone on before it refused. */
  | { readonly outcome: 'refused'; readonly bytes: Buffer; readonly why: string }

/** Placeholders that depend on nothing but object and path, known uid or not: so that two runs can be compared. */
export const FIXED_PLACEHOLDERS: Placeholders = {
  of: (uid) => (path) => {
    let hash = 17
    for (const letter of `${uid ?? ''}\0${path}`)
      hash = (Math.imul(hash, 31) + (letter.codePointAt(0) ?? 0)) >>> 0
    return `${PLACEHOLDER_PREFIX}${hash.toString(16).padStart(18, '0')}`
  },
}

/** Masks pieces. Faults other than `answer_unmaskable` are thrown. */
export function runMasker(pieces: readonly Buffer[], asked: Asked): Made {
  const out: Buffer[] = []
  const masker: JsonMasker = createJsonMasker({ ...asked, placeholders: FIXED_PLACEHOLDERS })
  try {
    for (const piece of pieces) {
      // What has gone on is not looked at again; what was given stays as it is, as chunks of Node's streams do.
      for (const part of masker.push(Buffer.from(piece))) out.push(Buffer.from(part))
    }
    for (const part of masker.end()) out.push(Buffer.from(part))
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== 'answer_unmaskable') throw error
    return { outcome: 'refused', bytes: Buffer.concat(out), why: error.message }
  }
  return { outcome: 'masked', bytes: Buffer.concat(out), masked: masker.masked }
}

/** Masks with both, and compares. @returns what differs; undefined where nothing does */
export function disagreement(input: Buffer, made: Made, asked: Asked): string | undefined {
  const expected = expectMasking(input, asked)
  if (expected.outcome === 'masked' && expected.ambiguous && made.outcome === 'refused')
    return undefined
  if (expected.outcome !== made.outcome)
    return `expected ${expected.outcome}, was ${made.outcome}: ${'why' in expected ? expected.why : 'why' in made ? made.why : ''}`
  if (expected.outcome === 'refused' || made.outcome === 'refused') return undefined
  const differs = differenceOf(input, made.bytes, expected.edits)
  if (differs !== undefined) return differs
  return made.masked.count > 0 || !hides(expected.edits) ? undefined : 'nothing told of'
}

/** Whether values have to be hidden; managed fields are none. */
function hides(edits: readonly Edit[]): boolean {
  return edits.some(({ optional, forms }) => !optional && !forms.has('empty'))
}

/** What is in the output that should not be, or is not that should. */
export function differenceOf(
  input: Buffer,
  output: Buffer,
  edits: readonly Edit[],
): string | undefined {
  let at = 0
  let from = 0
  for (const edit of [...edits, undefined]) {
    const kept = input.subarray(from, edit?.from)
    if (!output.subarray(at, at + kept.length).equals(kept))
      return `bytes before ${edit?.path ?? 'the end'} differ: ${excerpt(kept, output.subarray(at, at + kept.length))}`
    at += kept.length
    if (edit === undefined) break
    const to = endOfValue(output, at)
    const found = output.subarray(at, to)
    const original = input.subarray(edit.from, edit.to)
    if (!isAllowed(edit, original, found))
      return `${edit.path}: ${innerDifference(edit, found)}${original.toString().slice(0, 300)} became ${found.toString().slice(0, 300)}, allowed: ${[...edit.forms].join()}`
    at = to
    from = edit.to
  }
  return at === output.length ? undefined : 'more follows'
}

function innerDifference(edit: Edit, found: Buffer): string {
  const value = edit.forms.has('embedded') ? stringOf(found) : undefined
  if (value === undefined) return ''
  return `(${differenceOf(Buffer.from(edit.text), Buffer.from(value), edit.inner) ?? 'nothing'}) `
}

function excerpt(one: Buffer, other: Buffer): string {
  let at = 0
  while (at < one.length && one[at] === other[at]) at += 1
  const show = (bytes: Buffer): string => bytes.toString('utf8', Math.max(0, at - 30), at + 60)
  return `«${show(one)}» is «${show(other)}»`
}

/** Where a value that begins here ends: a string, `[]`, or a word. */
function endOfValue(bytes: Buffer, from: number): number {
  let at = from
  if (bytes[at] === 0x22) {
    at += 1
    while (at < bytes.length && bytes[at] !== 0x22) at += bytes[at] === 0x5c ? 2 : 1
    return Math.min(at + 1, bytes.length)
  }
  if (bytes[at] === 0x5b || bytes[at] === 0x7b) return endOfContainer(bytes, at)
  while (at < bytes.length && /[^\s,}\]]/.test(String.fromCharCode(bytes[at] ?? 0))) at += 1
  return at
}

function endOfContainer(bytes: Buffer, from: number): number {
  let depth = 0
  for (let at = from; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0
    if (byte === 0x22) at = endOfValue(bytes, at) - 1
    if (byte === 0x5b || byte === 0x7b) depth += 1
    if (byte === 0x5d || byte === 0x7d) depth -= 1
    if (depth === 0) return at + 1
  }
  return bytes.length
}

const WHOLE = new RegExp(`^${PLACEHOLDER.source}$`)
/** In UTF-8, read as Latin-1. */
const ELLIPSIS = '\\xe2\\x80\\xa6'
const HOLE = `(?:[*\\r\\n]|${ELLIPSIS}|${PLACEHOLDER.source})+`

function isAllowed(edit: Edit, original: Buffer, found: Buffer): boolean {
  if (edit.optional && original.equals(found)) return true
  const value = stringOf(found)
  const isForm: Record<Form, () => boolean> = {
    empty: () => /^\[\s*\]$/.test(found.toString()),
    placeholder: () => WHOLE.test(value ?? ''),
    base64: () => isBase64Of(value, (text) => WHOLE.test(text)),
    registries: () => isBase64Of(value, isRegistries) || isRegistries(value ?? ''),
    spans: () => value !== undefined && hasSpans(edit, value),
    gone: () => value !== undefined && value !== edit.text && isGone(edit, value),
    embedded: () =>
      value !== undefined &&
      differenceOf(Buffer.from(edit.text), Buffer.from(value), edit.inner) === undefined,
  }
  return [...edit.forms].some((form) => isForm[form]())
}

function stringOf(bytes: Buffer): string | undefined {
  try {
    const node = readSpans(bytes)
    return node.type === 'string' ? node.text : undefined
  } catch (error) {
    if (error instanceof NotJson) return undefined
    throw error
  }
}

function isBase64Of(value: string | undefined, test: (text: string) => boolean): boolean {
  if (value === undefined) return false
  const bytes = Buffer.from(value, 'base64')
  return bytes.toString('base64') === value && test(bytes.toString())
}

/** An empty registry file with the placeholder as a key. */
function isRegistries(text: string): boolean {
  try {
    const root = readSpans(Buffer.from(text))
    const inner = root.type === 'object' ? [...root.members] : []
    const keys = inner.flatMap(([key, value]) =>
      value.type === 'object' ? [key, ...value.members.keys()] : [key],
    )
    return keys.some((key) => WHOLE.test(key)) && text.length < 200
  } catch (error) {
    if (error instanceof NotJson) return false
    throw error
  }
}

/** Shorter ones stand in any text. */
const MIN_GONE_BYTES = 6

/** What had to go is there less often, whatever else may be missing. */
function isGone({ text, spans }: Edit, value: string): boolean {
  const bytes = Buffer.from(text)
  const must = spans.filter(({ from, to, optional }) => !optional && to - from >= MIN_GONE_BYTES)
  const places = new Map(must.map((span) => [`${span.from} ${span.to}`, span]))
  const parts = [...places.values()].map(({ from, to }) => bytes.toString('utf8', from, to))
  return parts.every((part) => {
    const gone = parts.filter((other) => other === part).length
    return count(value, part) <= count(text.toWellFormed(), part) - gone
  })
}

function count(text: string, part: string): number {
  return text.split(part).length - 1
}

/** Of the text only what is in the spans was replaced, and all that had to be. */
function hasSpans({ text, spans }: Edit, value: string): boolean {
  const bytes = Buffer.from(text)
  // 0: stays, 1: may go, 2: has to go
  const fate = new Uint8Array(bytes.length)
  for (const { from, to, optional } of spans)
    for (let at = from; at < to; at++) fate[at] = Math.max(fate[at] ?? 0, optional ? 1 : 2)
  let pattern = ''
  for (let at = 0; at < bytes.length;) {
    let end = at
    while (end < bytes.length && fate[end] === fate[at]) end += 1
    const part = bytes.toString('latin1', at, end).replaceAll(/[.*+?^${}()|[\]\\/-]/g, '\\$&')
    if (fate[at] === 0) pattern += part
    else if (fate[at] === 2) pattern += HOLE
    // Any part of what may go.
    else pattern += '[^]*?'
    at = end
  }
  return new RegExp(`^${pattern}$`, 's').test(Buffer.from(value).toString('latin1'))
}

/** Does what the oracle asks for: for tests of the oracle itself. @param all - also what may stay */
export function replacedByOracle(input: Buffer, edits: readonly Edit[], all: boolean): Buffer {
  const parts: Buffer[] = []
  let from = 0
  for (const edit of edits) {
    if (edit.optional && !all) continue
    parts.push(input.subarray(from, edit.from), Buffer.from(replacement(edit, all)))
    from = edit.to
  }
  return Buffer.concat([...parts, input.subarray(from)])
}

function replacement({ forms, text, spans, inner }: Edit, all: boolean): string {
  const placeholder = FIXED_PLACEHOLDERS.of(undefined)('')
  const base64 = (of: string): string => Buffer.from(of).toString('base64')
  const bytes = Buffer.from(text)
  if (forms.has('empty')) return '[]'
  if (forms.has('embedded')) return JSON.stringify(replacedByOracle(bytes, inner, all).toString())
  if (forms.has('placeholder')) return JSON.stringify(placeholder)
  if (forms.has('base64')) return JSON.stringify(base64(placeholder))
  if (forms.has('registries'))
    return JSON.stringify(base64(JSON.stringify({ auths: { [placeholder]: {} } })))
  for (const { from, to, optional } of spans) if (all || !optional) bytes.fill('*', from, to)
  return JSON.stringify(bytes.toString())
}
