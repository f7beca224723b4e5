/**
 * Merge patches (RFC 7386), strategic ones and applies that would tell a hidden value. They have no operation that compares,
 * but strategic ones take items out of a list by value and order it by value, whatever the list
 * (apimachinery, pkg/util/strategicpatch), and any of them can give an object inside an object another kind.
 */
import type { RequestParameters } from '../../../shared/kubernetes/attributes.ts'
import type { Masking } from '../../../shared/policy/masking.ts'
import { WORD_LISTS } from '../objects/names.ts'
import { isKindMember } from './patch-oracles.ts'
import { fieldText } from './paths.ts'
import type { Path } from './paths.ts'
import type { Places } from './places.ts'

/** `$deleteFromPrimitiveList/args`, `$setElementOrder/args`. */
const BY_VALUE = /^\$(?:deleteFromPrimitiveList|setElementOrder)\/(.*)$/s

/** @returns the member that does it, and where: no value */
export function mergeOracle(
  patch: unknown,
  places: Places,
  { patchType, force = false }: RequestParameters,
  { fields }: Masking,
): string | undefined {
  const lists = new Set([...WORD_LISTS, ...fields.flatMap(({ path }) => namesOf(path))])
  const strategic = patchType === 'strategic'
  // without force an apply cannot change a kind that another manager has set
  const reshapes = places.embedding && (patchType !== 'apply' || force)
  return memberOf(patch, [], (path) => {
    const key = String(path.at(-1))
    if (strategic && lists.has(BY_VALUE.exec(key)?.[1] ?? '')) return true
    return reshapes && isKindMember(path.map(String))
  })
}

function namesOf(path: Masking['fields'][number]['path']): readonly string[] {
  return path.flatMap((step) => (step === 'any' ? [] : [step.name]))
}

/** The first member that `tells`, as text. Items of lists are looked into as well. */
function memberOf(value: unknown, path: Path, tells: (path: Path) => boolean): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const isList = Array.isArray(value)
  for (const [key, member] of Object.entries(value)) {
    const at = [...path, isList ? Number(key) : key]
    if (!isList && tells(at)) return fieldText(at)
    const inside = memberOf(member, at, tells)
    if (inside !== undefined) return inside
  }
  return undefined
}
