/**
 * Requests that write a guess to a hidden place, and whose answer would tell whether it was right: an apply without force
 * conflicts only where the values differ; a dry run shows by `generation` and `managedFields` whether anything changed; what
 * cannot be changed can be written only as it is. A value that the profile would not hide at that place is no guess.
 */
import type { RequestAttributes } from '../../../shared/kubernetes/attributes.ts'
import { fieldOf, hasAt, textOf } from '../../../shared/kubernetes/json-fields.ts'
import { MAX_JSON_DEPTH } from '../../../shared/kubernetes/strict-json.ts'
import { kindKey } from '../../../shared/kubernetes/workloads.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { NAMED_PAIRS, SECRET_FIELDS } from '../objects/names.ts'
import { hasPlaceholder } from './needles.ts'
import { pointerSteps, printable } from './paths.ts'

/** The fields that a profile hides in an object, as `KIND path`; one or more where that cannot be told. */
export type HiddenIn = (object: unknown) => readonly string[]

/** Objects whose pods, or pod templates, cannot be changed. */
const UNCHANGEABLE: ReadonlySet<string> = new Set([
  '/pods',
  'apps/controllerrevisions',
  'batch/jobs',
])
/** Kinds that are masked by their name, of bodies that do not say it. */
const KINDS: ReadonlyMap<string, string> = new Map([
  ['/configmaps', 'ConfigMap'],
  ['/secrets', 'Secret'],
])
const WRITES: ReadonlySet<string> = new Set(['update', 'patch'])
const IN_METADATA = /^\S* ?metadata\b/

/** @returns what it does, and where: no value */
export function guessOracle(
  attributes: RequestAttributes,
  masking: Masking,
  hiddenIn: HiddenIn,
): string | undefined {
  const { info, body } = attributes
  if (!WRITES.has(info.verb) || body.state === 'none') return undefined
  const why = tellsBy(attributes)
  if (why === undefined) return undefined
  if (body.state === 'opaque') return `${why} of a body that cannot be looked into`
  const field = fieldOfGuess(body.value, attributes, masking, hiddenIn)
  return field === undefined ? undefined : printable(`${why} of ${field}`)
}

/**
 * Whether a request writes to a hidden place of an object that may be `immutable`: then it succeeds only where the value is the one that is
 * there, and the object has to be looked at first.
 */
export function isGuessWhereImmutable(
  attributes: RequestAttributes,
  masking: Masking,
  hiddenIn: HiddenIn,
): boolean {
  const { info, body } = attributes
  if (!WRITES.has(info.verb) || !KINDS.has(kindKey(info)) || body.state === 'none') return false
  if (masking.profiles.length === 0) return false
  return (
    body.state === 'opaque' || fieldOfGuess(body.value, attributes, masking, hiddenIn) !== undefined
  )
}

function fieldOfGuess(
  value: unknown,
  attributes: RequestAttributes,
  masking: Masking,
  hiddenIn: HiddenIn,
): string | undefined {
  return attributes.parameters.patchType === 'json'
    ? guessInOperations(value, attributes, masking, hiddenIn)
    : guessIn(value, attributes, masking, hiddenIn)
}

/** By what a request tells whether what it writes is there already; undefined where by nothing. */
function tellsBy({ info, parameters }: RequestAttributes): string | undefined {
  if (parameters.patchType === 'apply' && parameters.force !== true) return 'apply without force'
  // of a Secret the masked answer shows neither
  if (parameters.dryRun && info.resource !== 'secrets') return 'dry run'
  return UNCHANGEABLE.has(kindKey(info)) ? 'change' : undefined
}

function guessIn(
  value: unknown,
  attributes: RequestAttributes,
  masking: Masking,
  hiddenIn: HiddenIn,
): string | undefined {
  const { info, parameters } = attributes
  if (info.resource === 'secrets') {
    const field = [...SECRET_FIELDS].find((name) => hasAt(value, [name]))
    if (field !== undefined) return field
  }
  // annotations of what cannot be changed can be
  const counts = (field: string): boolean =>
    parameters.dryRun || parameters.patchType === 'apply' || !IN_METADATA.test(field)
  return objectsOf(value, attributes, masking)
    .flatMap((object) => hiddenIn(object))
    .find(counts)
}

/** The body as an object that says its kind; where it does not, as one of each kind that it may be. */
function objectsOf(
  value: unknown,
  { info }: RequestAttributes,
  { fields }: Masking,
): readonly unknown[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return []
  const { apiGroup, apiVersion } = info
  const version = apiGroup === '' ? apiVersion : `${apiGroup}/${apiVersion}`
  const said = textOf(value, 'kind')
  const own = said === '' ? (KINDS.get(kindKey(info)) ?? 'Unknown') : said
  const kinds = fields.filter(({ group }) => group === apiGroup).map(({ kind }) => kind)
  const body = withoutPlaceholders(value)
  return [...new Set([own, ...kinds])].map((kind) => {
    const type = { kind, apiVersion: version }
    // first, so that the masker need not wait for them
    return { ...type, ...body, ...type }
  })
}

/** A placeholder that is to be restored is no guess. */
function withoutPlaceholders(value: object): object {
  const rest = (member: unknown): unknown => {
    if (Array.isArray(member)) return member.map((item: unknown) => rest(item) ?? null)
    if (typeof member === 'object' && member !== null) return withoutPlaceholders(member)
    return typeof member === 'string' && hasPlaceholder(member) ? undefined : member
  }
  const members = Object.entries(value).map(([key, member]): [string, unknown] => [
    key,
    rest(member),
  ])
  return Object.fromEntries(members.filter(([, member]) => member !== undefined))
}

function guessInOperations(
  patch: unknown,
  attributes: RequestAttributes,
  masking: Masking,
  hiddenIn: HiddenIn,
): string | undefined {
  const operations: readonly unknown[] = Array.isArray(patch) ? patch : []
  for (const operation of operations) {
    const op = textOf(operation, 'op')
    const path = textOf(operation, 'path')
    const steps = pointerSteps(path)
    if (op !== 'add' && op !== 'replace') continue
    // the name of the variable, which may promise a secret, is in another place
    if (steps.at(-1) === 'value' && NAMED_PAIRS.has(steps.at(-3) ?? '')) return path
    // no object is so deep that the API server would take it
    if (steps.length > MAX_JSON_DEPTH) return path
    const object = nested(steps, fieldOf(operation, 'value'))
    if (guessIn(object, attributes, masking, hiddenIn) !== undefined) return path
  }
  return undefined
}

const INDEX = /^(?:[+-]?\d+|-)$/

/** An object that has nothing but this value at this place. */
function nested(steps: readonly string[], value: unknown): unknown {
  return steps.reduceRight<unknown>(
    (inner, step) => (INDEX.test(step) ? [inner] : { [step]: inner }),
    value,
  )
}
