/**
 * Puts back what a masked object stands for, in an update that would otherwise write its placeholders
 * (docs/decisions/0010). Only where the very object was read that is written, and only at the place at which the
 * placeholder stood: an update that has it anywhere else, or beside a name by which the value would not be hidden any
 * more, is refused. Everything else of the body stays byte for byte.
 */
import { readStrictJson } from '../../../shared/kubernetes/strict-json.ts'
import { fieldOf, textOf } from '../../../shared/kubernetes/json-fields.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { maskDocument } from '../objects/masker.ts'
import type { Placeholders } from '../types.ts'
import { placeholderRefusal, placesOfPlaceholders } from './find.ts'
import { hasPlaceholder } from './needles.ts'
import { fieldText } from './paths.ts'
import { eachScalar, scalarsOf } from './scalars.ts'
import type { Scalar } from './scalars.ts'

/** An update that has placeholders, and what it is about. */
export interface Update {
  /** Body of the request: JSON. */
  readonly body: Buffer
  /** The object as the caller may read it now, not masked: JSON. */
  readonly current: Buffer
  readonly masking: Masking
  readonly placeholders: Placeholders
}

/** An update with the true values. Secret: it goes upstream, and nowhere else. */
export interface Restored {
  readonly body: Buffer
  /** Where values were put back; at least one. */
  readonly fields: readonly string[]
}

/**
 * See the head of the file.
 *
 * @returns `placeholder_stale` where the body is of another object or version; `placeholder_written` for what cannot be put
 *   back
 * @throws Fault `answer_unmaskable` where the current object cannot be masked
 */
export function restoreBody(update: Update): Restored | Refusal {
  const before = masked(update.current, update)
  const stale = staleness(update)
  if (stale !== undefined) return stale
  const text = update.body.toString()
  const current = update.current.toString()
  const masks = scalarsOf(before)
  const values = scalarsOf(current)
  const pieces: string[] = []
  const put: Scalar[] = []
  const left: string[] = []
  let done = 0
  eachScalar(text, (scalar) => {
    if (!isPlaceholder(text, scalar)) return
    const value = values.get(scalar.pointer)
    if (value === undefined || !isSame(text, scalar, before, masks.get(scalar.pointer))) {
      left.push(fieldText(scalar.path))
      return
    }
    pieces.push(text.slice(done, scalar.from), current.slice(value.from, value.to))
    done = scalar.to
    put.push(scalar)
  })
  if (left.length > 0) return placeholderRefusal(left)
  const body = Buffer.from(pieces.join('') + text.slice(done))
  const kept = placesOfPlaceholders(valueOf(body))
  if (kept.length > 0) return placeholderRefusal(kept)
  return (
    stillHidden(body, text, put, update) ?? { body, fields: put.map(({ path }) => fieldText(path)) }
  )
}

/** Both are what the API server itself compares of an update; here neither may be missing, but for the uid of the body. */
function staleness({ body, current }: Update): Refusal | undefined {
  const written = fieldOf(valueOf(body), 'metadata')
  const read = fieldOf(valueOf(current), 'metadata')
  const version = textOf(written, 'resourceVersion')
  const uid = textOf(written, 'uid')
  if (version === '') return refuse('placeholder_stale', 'the body has no metadata.resourceVersion')
  if (uid !== '' && uid !== textOf(read, 'uid'))
    return refuse('placeholder_stale', 'metadata.uid is that of another object')
  return version === textOf(read, 'resourceVersion')
    ? undefined
    : refuse('placeholder_stale', 'metadata.resourceVersion is not that of the object now')
}

function valueOf(bytes: Buffer): unknown {
  const result = readStrictJson(bytes)
  return 'value' in result ? result.value : undefined
}

/**
 * A value whose variable got another name, or that moved away from behind `--password`, is where the masked one was and would
 * be shown: masked as an answer, the restored body must have the same placeholders in the same places.
 */
function stillHidden(
  body: Buffer,
  asked: string,
  put: readonly Scalar[],
  update: Update,
): Refusal | undefined {
  const again = masked(body, update)
  const masks = scalarsOf(again)
  const shown = put.filter((scalar) => !isSame(asked, scalar, again, masks.get(scalar.pointer)))
  return shown.length === 0
    ? undefined
    : placeholderRefusal(shown.map(({ path }) => fieldText(path)))
}

/** An object of which the body does not say the uid is the one that was read. */
function masked(bytes: Buffer, { current, masking, placeholders }: Update): string {
  const own = textOf(fieldOf(valueOf(current), 'metadata'), 'uid')
  const of: Placeholders['of'] = (uid) => placeholders.of(uid ?? (own === '' ? undefined : own))
  const how = { masking, placeholders: { of }, shape: 'object', write: false } as const
  return maskDocument(bytes, how).bytes.toString()
}

function isPlaceholder(text: string, scalar: Scalar): boolean {
  const value = stringOf(text, scalar)
  return value !== undefined && hasPlaceholder(value)
}

function isSame(text: string, scalar: Scalar, other: string, found: Scalar | undefined): boolean {
  return found !== undefined && stringOf(text, scalar) === stringOf(other, found)
}

/** The text of a string; undefined for any other scalar. */
function stringOf(text: string, { from, to }: Scalar): string | undefined {
  const value: unknown = text[from] === '"' ? JSON.parse(text.slice(from, to)) : undefined
  return typeof value === 'string' ? value : undefined
}
