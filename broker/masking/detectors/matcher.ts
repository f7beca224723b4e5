/**
 * A matcher over bytes that is linear by construction: a sequence of parts, each of which takes as much as it can and never gives back.
 * There is no alternative to come back to. JavaScript's regular expressions would backtrack on input that the recorded process chooses.
 *
 * All it says of a beginning of a text holds for the whole text: what more bytes could change is `MORE`.
 */
import { CONTROL, DIGIT, anyOf, bytesOf, type ByteClass } from './classes.ts'
import { CHECK_BYTES, type Check } from './checks.ts'

/** Something that has to follow. */
export type Part =
  /** Exactly this text; with `fold` in any case (ASCII). */
  | { readonly literal: string; readonly fold?: true }
  /** The first of these texts that is there; list the longer of two that begin alike first. */
  | { readonly oneOf: readonly string[]; readonly fold?: true }
  /** As many bytes of the set as there are, at least `min`, at most `max`. */
  | { readonly run: ByteClass; readonly min: number; readonly max: number }
  /** These parts, or nothing. */
  | { readonly optional: readonly Part[] }
  /** Bytes of the set, at most `max`, up to and with the first occurrence of the text. */
  | { readonly seek: string; readonly within: ByteClass; readonly max: number }
  /** No byte of the set follows; the end of the text will do. Takes nothing. */
  | { readonly not: ByteClass }
  /** Colours and erasures of a terminal (`ESC [ … m`, `ESC [ … K`), as `grep --color` puts around what it finds. */
  | { readonly colours: true }

/** The bytes that are replaced. */
export interface Secret {
  readonly of: ByteClass
  readonly min: number
  /** At most so many; what is longer is masked this far, so that one word cannot hide the rest of a stream. */
  readonly max: number
  /** Looks at the first `CHECK_BYTES`: false where this is no secret after all. */
  readonly check?: Check
  /** A backslash takes the byte behind it along. */
  readonly escapes?: true
  /** Ends before two dashes. */
  readonly untilDashes?: true
}

/** One shape in which a secret comes. */
export interface Form {
  readonly parts?: readonly Part[]
  readonly secret: Secret
  /** What has to follow the secret. */
  readonly then?: readonly Part[]
  /** Whether what has begun is taken for a secret where what has to follow cannot be waited for; without it, it is not. */
  readonly guess?: Check
}

/** Bytes that are looked at; `final` where nothing will follow them. */
export interface Text {
  readonly bytes: Buffer
  readonly final: boolean
}

/** No match, whatever follows. */
export const FAIL = -1
/** Not to be said before more bytes are there. */
export const MORE = -2

/** Takes a part at a position. @returns where it ends, `FAIL` or `MORE` */
export type Step = (text: Text, at: number) => number

/** Longest escape sequence of colours, and how many stand behind each other. */
const MAX_COLOUR_BYTES = 24
const MAX_COLOURS = 4
const ESCAPE = 0x1b
const BACKSLASH = 0x5c
const DASH = 0x2d
const LOWER = 0x20

/** Whether two bytes are the same letter; `wanted` is given in lower case. */
function alike(byte: number | undefined, wanted: number | undefined, fold: boolean): boolean {
  if (byte === wanted) return true
  if (!fold || byte === undefined || byte < 0x41 || byte > 0x5a) return false
  return (byte | LOWER) === wanted
}

/** A step that takes exactly these bytes. */
export function literalStep(literal: string, fold = false): Step {
  const wanted = Buffer.from(fold ? literal.toLowerCase() : literal, 'latin1')
  return (text, at) => {
    const { bytes } = text
    for (let index = 0; index < wanted.length; index++) {
      if (at + index >= bytes.length) return text.final ? FAIL : MORE
      if (!alike(bytes[at + index], wanted[index], fold)) return FAIL
    }
    return at + wanted.length
  }
}

function oneOfStep(texts: readonly string[], fold = false): Step {
  const steps = texts.map((literal) => literalStep(literal, fold))
  return (text, at) => {
    for (const step of steps) {
      const end = step(text, at)
      if (end !== FAIL) return end
    }
    return FAIL
  }
}

function runStep(set: ByteClass, min: number, max: number): Step {
  return ({ bytes, final }, at) => {
    const stop = Math.min(bytes.length, at + max)
    let index = at
    while (index < stop && set[bytes[index] ?? 0] === 1) index++
    if (index === bytes.length && index < at + max && !final) return MORE
    return index - at < min ? FAIL : index
  }
}

function optionalStep(parts: readonly Part[]): Step {
  const step = sequence(parts)
  return (text, at) => {
    const end = step(text, at)
    return end === FAIL ? at : end
  }
}

function seekStep(literal: string, within: ByteClass, max: number): Step {
  const found = literalStep(literal)
  const first = literal.charCodeAt(0)
  return (text, at) => {
    const { bytes } = text
    for (let index = at; index <= at + max; index++) {
      const end = index >= bytes.length || bytes[index] === first ? found(text, index) : FAIL
      if (end !== FAIL) return end
      if (within[bytes[index] ?? 0] !== 1) return FAIL
    }
    return FAIL
  }
}

function notStep(set: ByteClass): Step {
  return ({ bytes, final }, at) => {
    if (at >= bytes.length) return final ? at : MORE
    return set[bytes[at] ?? 0] === 1 ? FAIL : at
  }
}

const COLOUR: readonly Part[] = [
  { literal: '\u001b[' },
  { run: anyOf(DIGIT, bytesOf(';')), min: 0, max: MAX_COLOUR_BYTES },
  { oneOf: ['m', 'K'] },
]

function coloursStep(): Step {
  const one = optionalStep(COLOUR)
  return (text, at) => {
    if (at < text.bytes.length && text.bytes[at] !== ESCAPE) return at
    let end = at
    for (let count = 0; count < MAX_COLOURS; count++) {
      const next = one(text, end)
      if (next === end || next === MORE) return next
      end = next
    }
    return end
  }
}

function stepOf(part: Part): Step {
  if ('literal' in part) return literalStep(part.literal, part.fold)
  if ('oneOf' in part) return oneOfStep(part.oneOf, part.fold)
  if ('run' in part) return runStep(part.run, part.min, part.max)
  if ('optional' in part) return optionalStep(part.optional)
  if ('seek' in part) return seekStep(part.seek, part.within, part.max)
  if ('not' in part) return notStep(part.not)
  return coloursStep()
}

/** A step that takes the parts one behind the other. */
export function sequence(parts: readonly Part[]): Step {
  const steps = parts.map(stepOf)
  return (text, start) => {
    let at = start
    for (const step of steps) {
      at = step(text, at)
      if (at < 0) return at
    }
    return at
  }
}

/** Which bytes a part can begin with, and whether it can take nothing. */
function firstOf(part: Part): { set: ByteClass; empty: boolean } {
  if ('literal' in part) return { set: firstBytes([part.literal]), empty: false }
  if ('oneOf' in part) return { set: firstBytes(part.oneOf), empty: false }
  if ('run' in part) return { set: part.run, empty: part.min === 0 }
  if ('optional' in part) return { set: firstOfAll(part.optional), empty: true }
  if ('seek' in part) return { set: anyOf(part.within, firstBytes([part.seek])), empty: false }
  if ('not' in part) return { set: new Uint8Array(256).fill(1), empty: true }
  return { set: firstBytes(['\u001b']), empty: true }
}

function firstBytes(texts: readonly string[]): ByteClass {
  const letters = texts.map((text) => text.slice(0, 1))
  return anyOf(
    ...letters.flatMap((one) => [bytesOf(one.toLowerCase()), bytesOf(one.toUpperCase())]),
  )
}

function firstOfAll(parts: readonly Part[]): ByteClass {
  const sets: ByteClass[] = []
  for (const part of parts) {
    const { set, empty } = firstOf(part)
    sets.push(set)
    if (!empty) break
  }
  return anyOf(...sets)
}

/** Bytes that can follow a keyword: for the prefilter, where a keyword is short. */
export function firstOfForm(lead: readonly Part[], form: Form): ByteClass {
  const sets: ByteClass[] = []
  for (const part of [...lead, ...(form.parts ?? [])]) {
    const { set, empty } = firstOf(part)
    sets.push(set)
    if (!empty) return anyOf(...sets)
  }
  return anyOf(...sets, form.secret.of)
}

/** Most bytes that a part looks at. */
function reachOf(part: Part): number {
  if ('literal' in part) return part.literal.length
  if ('oneOf' in part) return Math.max(...part.oneOf.map((text) => text.length))
  if ('run' in part) return part.max
  if ('optional' in part) return reachOfAll(part.optional)
  if ('seek' in part) return part.max + part.seek.length
  if ('not' in part) return 1
  return MAX_COLOURS * (MAX_COLOUR_BYTES + 3)
}

function reachOfAll(parts: readonly Part[]): number {
  return parts.reduce((sum, part) => sum + reachOf(part), 0)
}

/** Most bytes behind the keyword that a form needs to be decided on; an open secret needs no more than its least length. */
export function reachOfForm(lead: readonly Part[], { parts = [], secret, then }: Form): number {
  const least = Math.max(secret.min, secret.check === undefined ? 0 : CHECK_BYTES) + 1
  return (
    reachOfAll([...lead, ...parts]) + (then === undefined ? least : secret.max + reachOfAll(then))
  )
}

/** A secret that goes on behind the bytes that are there. */
export interface Open {
  readonly detector: string
  readonly secret: Secret
  /** Bytes that it may still have. */
  left: number
  /** The last byte was a backslash that takes the next along. */
  escaped: boolean
}

/** Takes what belongs to an open secret. @returns where that ends, or `bytes.length` while it goes on */
export function takeOpen(open: Open, bytes: Buffer, at: number): number {
  const { of, escapes, untilDashes } = open.secret
  const stop = Math.min(bytes.length, at + open.left)
  let index = at
  if (escapes === undefined && untilDashes === undefined)
    while (index < stop && of[bytes[index] ?? 0] === 1) index++
  else while (index < stop && takesByte(open, bytes, index)) index++
  open.left -= index - at
  return index
}

function takesByte(open: Open, bytes: Buffer, index: number): boolean {
  const byte = bytes[index] ?? 0
  if (open.escaped) {
    open.escaped = false
    return CONTROL[byte] === 0
  }
  if (open.secret.of[byte] === 0) return false
  if (open.secret.escapes === true && byte === BACKSLASH) open.escaped = true
  // A dash at the end is not decided on before the byte behind it is there.
  return !(open.secret.untilDashes === true && byte === DASH && (bytes[index + 1] ?? DASH) === DASH)
}

/** Whether an open secret that was taken up to `at` may go on. */
export function goesOn(open: Open, bytes: Buffer, at: number): boolean {
  if (open.left === 0) return false
  if (at === bytes.length) return true
  return open.secret.untilDashes === true && at === bytes.length - 1 && bytes[at] === DASH
}

/** A form made ready. */
export interface Compiled {
  readonly id: string
  readonly head: Step
  readonly secret: Secret
  /** What has to follow the secret; takes nothing where nothing has to. */
  readonly then: Step
  readonly closes: boolean
  /** Whether a secret that has begun is one, as far as can be told. */
  readonly guess: Check
}

/** Makes a form ready. */
export function compile(id: string, form: Form): Compiled {
  const { parts = [], secret, then = [], guess } = form
  // An edge is most likely to follow.
  const sure = then.every((part) => 'not' in part)
  return {
    id,
    head: sequence(parts),
    secret,
    then: sequence(then),
    closes: form.then !== undefined,
    guess: guess ?? (() => sure),
  }
}

/** What a form says of a position. */
export type Verdict =
  | { readonly is: 'no' }
  /** More bytes decide. */
  | { readonly is: 'more' }
  /** More bytes decide, but the secret, if it is one, has begun. */
  | { readonly is: 'begun'; readonly detector: string; readonly from: number }
  | Match

/** A secret. */
export interface Match {
  readonly is: 'match'
  readonly detector: string
  readonly from: number
  /** As far as it goes in the bytes that are there. */
  readonly to: number
  /** Set where it may go on. */
  readonly open: Open | undefined
}

const NO: Verdict = { is: 'no' }
const NOT_YET: Verdict = { is: 'more' }

/** Tries a form behind its keyword and what its detector has there in common. */
export function tryForm(form: Compiled, text: Text, leadEnd: number): Verdict {
  const from = form.head(text, leadEnd)
  if (from < 0) return from === MORE ? NOT_YET : NO
  const { id: detector, secret } = form
  const open: Open = { detector, secret, left: secret.max, escaped: false }
  const to = takeOpen(open, text.bytes, from)
  const on = goesOn(open, text.bytes, to)
  if (on && !text.final && !decided(form, to - from)) return notYet(form, text.bytes, from, to)
  if (!isSecret(secret, text.bytes, from, to)) return NO
  const end = form.then(text, to)
  if (end < 0) return end === MORE ? notYet(form, text.bytes, from, to) : NO
  return { is: 'match', detector, from, to, open: on && !form.closes ? open : undefined }
}

function isSecret({ min, check }: Secret, bytes: Buffer, from: number, to: number): boolean {
  return to - from >= min && check?.(bytes, from, to) !== false
}

/** Whether so many bytes of a secret that goes on show that it is one. */
function decided({ secret, closes }: Compiled, length: number): boolean {
  if (closes || length < secret.min) return false
  return secret.check === undefined || length >= CHECK_BYTES
}

function notYet(form: Compiled, bytes: Buffer, from: number, to: number): Verdict {
  const begun = to > from && form.guess(bytes, from, to)
  return begun ? { is: 'begun', detector: form.id, from } : NOT_YET
}
