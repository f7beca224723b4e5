/**
 * Operations of JSON patches (RFC 6902) that would tell a hidden value: by comparing with it, by taking it to another
 * place, or by taking away what it is known as a secret by. Sources: evanphx/json-patch v4, which kube-apiserver uses.
 */
import { fieldOf, textOf } from '../../../shared/kubernetes/json-fields.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { findSecrets } from '../detectors/masker.ts'
import { NAMED_PAIRS, secretMember, WORD_LISTS } from '../objects/names.ts'
import { plainNumbers } from './hidden.ts'
import { pointerSteps, printable } from './paths.ts'
import { DATA_FIELDS } from './places.ts'
import type { Places } from './places.ts'

/** Behind the last item of a list; every other index, however it is spelled, is one that is there. */
const END_OF_LIST = '-'
/** What the API server takes for the place of an item (Go's strconv.Atoi), or its end. */
const INDEX = /^(?:[+-]?\d+|-)$/
/** Members by which a masker knows what an object is. */
const KIND_MEMBERS: ReadonlySet<string> = new Set(['kind', 'apiVersion'])
/** A member that names another object, and is none itself. */
const REFERENCE = /(?:refs?|references?)$/i
/** Members in which hidden values stand, whatever object they are of. */
const TELLING: ReadonlySet<string> = new Set([
  ...NAMED_PAIRS,
  ...WORD_LISTS,
  ...DATA_FIELDS,
  'annotations',
])

/** One operation; undefined where it tells nothing. @returns what it does, and where: no value */
export function operationOracle(
  operation: unknown,
  places: Places,
  masking: Masking,
): string | undefined {
  const op = textOf(operation, 'op')
  const path = textOf(operation, 'path')
  const steps = pointerSteps(path)
  if (op === 'test') {
    return tellsByTest(steps, fieldOf(operation, 'value'), places, masking)
      ? printable(`test ${path}`)
      : undefined
  }
  if (op === 'copy' || op === 'move') {
    const from = textOf(operation, 'from')
    if (tellsByCopy(pointerSteps(from), places, masking)) return printable(`${op} from ${from}`)
    if (op === 'move' && shiftsMeaning('remove', pointerSteps(from), places))
      return printable(`move from ${from}`)
  }
  return shiftsMeaning(op, steps, places) ? printable(`${op} ${path}`) : undefined
}

function tellsByTest(
  steps: readonly string[],
  value: unknown,
  places: Places,
  masking: Masking,
): boolean {
  if (steps.length === 0 || places.standing(steps) !== 'clear') return true
  return hasTelling(value) || (masking.everywhere && isSecretText(steps, value))
}

/** Kinds that are not known may have such members anywhere: an object that has them may be equal to one that has them hidden. */
function hasTelling(value: unknown): boolean {
  if (Array.isArray(value)) return value.some(hasTelling)
  if (typeof value !== 'object' || value === null) return false
  return Object.entries(value).some(([key, member]) => TELLING.has(key) || hasTelling(member))
}

/** What the detectors find in a text at that place, and what the place's name promises. */
function isSecretText(steps: readonly string[], value: unknown): boolean {
  const name = steps.at(-1) ?? ''
  if (secretMember(name)) return true
  const text = JSON.stringify({ [name]: value }, plainNumbers)
  return findSecrets(Buffer.from(text)).length > 0
}

function tellsByCopy(steps: readonly string[], places: Places, masking: Masking): boolean {
  if (steps.length === 0 || places.standing(steps) !== 'clear') return true
  return masking.everywhere && secretMember(steps.at(-1) ?? '')
}

/**
 * Whether an operation takes away by what something else is known as secret: the name of a variable, the word `--password`
 * before the next one, the kind of an object inside an object.
 */
function shiftsMeaning(op: string, steps: readonly string[], places: Places): boolean {
  const last = steps.at(-1)
  if (last === 'name' && NAMED_PAIRS.has(steps.at(-3) ?? '')) return true
  if (WORD_LISTS.has(steps.at(-2) ?? '')) return !(op === 'add' && last === END_OF_LIST)
  return places.embedding && isKindMember(steps)
}

/** Whether a place says what kind an object inside an object is. What is in `metadata` is none. */
export function isKindMember(steps: readonly string[]): boolean {
  if (!KIND_MEMBERS.has(steps.at(-1) ?? '') || steps[0] === 'metadata') return false
  const holder = steps.slice(0, -1).findLast((step) => !INDEX.test(step))
  return holder !== undefined && !REFERENCE.test(holder)
}
