/**
 * What is asked for in place of what a client asks for: encodings in which secrets can be masked. What comes back is looked at all the same
 * (answer.ts); this is what lets usual clients work, which take JSON beside protobuf.
 */
import type { FieldMask, Masking } from '../../../shared/policy/masking.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import type { AnswerSort } from './sort.ts'

/** What an answer is to be masked by, and whose it is. */
export interface AcceptTerms {
  readonly sort: AnswerSort
  /** API group of the request; empty is the core group. */
  readonly group: string
  readonly masking: Masking
}

/** One media range (RFC 9110, 12.5.1); names in lower case. */
interface MediaRange {
  readonly type: string
  readonly parameters: readonly (readonly [name: string, value: string])[]
  /** 0: not acceptable. */
  readonly weight: number
}

const JSON_TYPE = 'application/json'
/** Ranges that JSON is one of, the more precise first. */
const JSON_RANGES: readonly string[] = [JSON_TYPE, 'application/*', '*/*']
/** Encodings in which nothing is masked. */
const BINARY = /protobuf|cbor/
/** RFC 9110, 5.6.2. Quoted texts are not passed on: API servers do not read them as the standard says. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const MEDIA_TYPE = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+\/[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/**
 * The header `Accept` for the API server.
 *
 * @param accept - all its lines, joined with commas; undefined where there is none
 * @returns `accept` is undefined for no header; `not_acceptable` where the client takes nothing that can be masked
 */
export function rewriteAccept(
  accept: string | undefined,
  { sort, group, masking }: AcceptTerms,
): { readonly accept: string | undefined } | Refusal {
  if (sort === 'passed' || masking.profiles.length === 0) return { accept }
  if (accept === undefined || accept.trim() === '')
    return { accept: sort === 'objects' ? JSON_TYPE : undefined }
  const ranges = readRanges(accept)
  const fields = masking.fields.filter((field) => field.group === group)
  const kept = sort === 'objects' ? jsonRanges(ranges, fields) : textRanges(ranges)
  if (kept.every(({ weight }) => weight === 0)) return refuse('not_acceptable')
  return { accept: [...new Set(kept.map(rangeText))].join(',') }
}

function jsonRanges(
  ranges: readonly MediaRange[],
  fields: readonly FieldMask[],
): readonly MediaRange[] {
  return ranges
    .filter((range) => mayBeJson(range, ranges) && !shapedAround(range, fields))
    .map((range) => ({ ...range, type: JSON_TYPE }))
}

/** Of several ranges that JSON falls under, the most precise one says whether it is acceptable. */
function mayBeJson(wanted: MediaRange, ranges: readonly MediaRange[]): boolean {
  const { type, weight } = wanted
  const rank = JSON_RANGES.indexOf(type)
  if (rank === -1 || weight === 0) return false
  const isPlain = !hasMediaParameters(wanted)
  const excluding = ranges.filter((range) => range.weight === 0 && !hasMediaParameters(range))
  return !excluding.some((range) => {
    const excluded = JSON_RANGES.indexOf(range.type)
    return excluded !== -1 && (excluded < rank || (excluded === rank && isPlain))
  })
}

function hasMediaParameters({ parameters }: MediaRange): boolean {
  return parameters.some(([name]) => name !== 'q')
}

/**
 * Whether a range asks for a shape in which these fields cannot be found: the cells of a table are what the server prints of any field, and
 * metadata alone says another kind than the field's.
 */
function shapedAround({ parameters }: MediaRange, fields: readonly FieldMask[]): boolean {
  if (fields.length === 0) return false
  const shape = parameters.find(([name]) => name === 'as')?.[1].toLowerCase() ?? ''
  if (shape === 'table') return true
  return shape.startsWith('partialobjectmetadata') && fields.some(isOfMetadata)
}

function isOfMetadata({ path: [first] }: FieldMask): boolean {
  return first === 'any' || first?.name === 'metadata'
}

function textRanges(ranges: readonly MediaRange[]): readonly MediaRange[] {
  return ranges.filter(({ type }) => !BINARY.test(type))
}

function rangeText({ type, parameters }: MediaRange): string {
  return [type, ...parameters.map(([name, value]) => `${name}=${value}`)].join(';')
}

/** The ranges of a header; what is none is left out. */
function readRanges(accept: string): readonly MediaRange[] {
  return split(accept, ',').flatMap((text) => {
    const [type = '', ...rest] = split(text, ';').map((part) => part.trim())
    if (!MEDIA_TYPE.test(type)) return []
    const parameters = rest.filter((part) => part !== '').map(readParameter)
    const read = parameters.filter((parameter) => parameter !== undefined)
    if (read.length < parameters.length) return []
    const weight = Number(read.find(([name]) => name === 'q')?.[1] ?? 1)
    return weight >= 0 && weight <= 1
      ? [{ type: type.toLowerCase(), parameters: read, weight }]
      : []
  })
}

function readParameter(text: string): readonly [string, string] | undefined {
  const at = text.indexOf('=')
  const name = text.slice(0, at).trim()
  const value = text.slice(at + 1).trim()
  return at > 0 && TOKEN.test(name) && TOKEN.test(value) ? [name.toLowerCase(), value] : undefined
}

/** Splits at a character outside quoted texts (RFC 9110, 5.6.4). */
function split(text: string, separator: string): readonly string[] {
  const parts: string[] = []
  let from = 0
  let quoted = false
  for (let at = 0; at < text.length; at++) {
    const character = text[at]
    if (character === '\\' && quoted) at += 1
    else if (character === '"') quoted = !quoted
    else if (character === separator && !quoted) {
      parts.push(text.slice(from, at))
      from = at + 1
    }
  }
  parts.push(text.slice(from))
  return parts
}
