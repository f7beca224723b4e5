/**
 * Requests that would tell something about a hidden value, or have the API server show it under another name
 * (docs/decisions/0010). Judged by the request alone, so that what may be hidden counts as hidden. The refusal names the
 * operation and the field, never a value.
 */
import type { RequestAttributes } from '../../../shared/kubernetes/attributes.ts'
import { selectedFields, selectorWords } from '../../../shared/kubernetes/selectors.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { refuse } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { guessOracle } from './guesses.ts'
import type { HiddenIn } from './guesses.ts'
import { mergeOracle } from './merge-oracles.ts'
import { operationOracle } from './patch-oracles.ts'
import { printable } from './paths.ts'
import { isOperatorField, placesOf } from './places.ts'

/** Fields of Secrets by which may be selected: the others that the API server knows are none of their values. */
const PLAIN_SECRET_FIELDS: ReadonlySet<string> = new Set([
  'metadata.name',
  'metadata.namespace',
  'type',
])

/**
 * See the head of the file.
 *
 * @param hiddenIn - what the profile would hide in an object
 * @returns `mask_oracle`, or undefined where nothing is told
 */
export function findOracle(
  attributes: RequestAttributes,
  masking: Masking,
  hiddenIn: HiddenIn,
): Refusal | undefined {
  if (masking.profiles.length === 0 || !attributes.info.isResourceRequest) return undefined
  const told =
    selectorOracle(attributes, masking) ??
    patchOracle(attributes, masking) ??
    guessOracle(attributes, masking, hiddenIn)
  return told === undefined ? undefined : refuse('mask_oracle', told)
}

function selectorOracle(
  { info, parameters }: RequestAttributes,
  masking: Masking,
): string | undefined {
  const { fieldSelector = '', labelSelector = '' } = parameters
  const places = placesOf(info, masking)
  const field = selectedFields(fieldSelector).find((name) => {
    if (name === 'metadata.name' || name === 'metadata.namespace' || name === '') return false
    if (info.resource === 'secrets' && !PLAIN_SECRET_FIELDS.has(name)) return true
    return places.standing(name.split('.')) !== 'clear' || (masking.everywhere && places.embedding)
  })
  if (field !== undefined) return printable(`field selector on ${field}`)
  const label = selectorWords(labelSelector).find((word) =>
    isOperatorField(info, masking, ['metadata', 'labels', word]),
  )
  return label === undefined ? undefined : printable(`label selector on ${label}`)
}

function patchOracle(attributes: RequestAttributes, masking: Masking): string | undefined {
  const { info, parameters, body } = attributes
  const { patchType } = parameters
  if (info.verb !== 'patch' || body.state === 'none') return undefined
  const places = placesOf(info, masking)
  if (body.state === 'opaque') return opaqueOracle(attributes, places.embedding)
  if (patchType !== 'json') return mergeOracle(body.value, places, parameters, masking)
  // what is no list the API server refuses
  const operations: readonly unknown[] = Array.isArray(body.value) ? body.value : []
  for (const operation of operations) {
    const told = operationOracle(operation, places, masking)
    if (told !== undefined) return told
  }
  return undefined
}

/** An apply in CBOR, which is not looked into. */
function opaqueOracle({ parameters }: RequestAttributes, embedding: boolean): string | undefined {
  return parameters.force === true && !embedding ? undefined : 'a patch that cannot be looked into'
}
