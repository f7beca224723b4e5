/**
 * Paths of fields that a masking profile hides, as people write them: `spec.auth.*.token`, `spec.users[*].password`,
 * `data["tls.key"]`. Names of letters, digits, `_` and `-` stand as they are, all others in brackets and quotes, as a JSON
 * string; `*` is any member or item, and so is `[*]`.
 */
import type { FieldStep } from './masking.ts'

/** Most steps of a path: deeper objects than this are no objects of Kubernetes. */
export const MAX_PATH_STEPS = 32
/** Longest path, in characters. */
export const MAX_PATH_LENGTH = 512

/** Why a text is no path of a field that may be hidden. */
export interface PathProblem {
  readonly problem: string
}

const NAME = /[A-Za-z0-9_-]+/y
const QUOTED = /\["(?:[^"\\]|\\.)*"\]/y
const ANY_ITEM = '[*]'

/** What clients cannot do without: they find, compare and store objects by it. */
const NEEDED: readonly (readonly string[])[] = [
  ['apiVersion'],
  ['kind'],
  ['metadata', 'name'],
  ['metadata', 'namespace'],
  ['metadata', 'uid'],
  ['metadata', 'resourceVersion'],
]

/** Reads a path. @returns its steps, at least one, or what is wrong with it and where */
export function readMaskPath(text: string): readonly FieldStep[] | PathProblem {
  if (text === '') return { problem: 'is empty: the whole object cannot be hidden' }
  if (text.length > MAX_PATH_LENGTH)
    return { problem: `is longer than ${MAX_PATH_LENGTH} characters` }
  const steps: FieldStep[] = []
  for (let at = 0; at < text.length;) {
    const step = readStep(text, at, steps.length === 0)
    if ('problem' in step) return { problem: `${step.problem} (character ${at + 1})` }
    steps.push(step.step)
    at = step.end
  }
  if (steps.length > MAX_PATH_STEPS) return { problem: `has more than ${MAX_PATH_STEPS} steps` }
  const needed = NEEDED.find((names) => hides(steps, names))
  if (needed !== undefined) return { problem: `hides ${needed.join('.')}, which clients need` }
  return steps
}

type ReadStep = { readonly step: FieldStep; readonly end: number } | PathProblem

function readStep(text: string, at: number, isFirst: boolean): ReadStep {
  if (text[at] === '[') return readBracket(text, at)
  if (!isFirst && text[at] !== '.') return strange(text, at)
  const start = isFirst ? at : at + 1
  if (text[start] === '*') return { step: 'any', end: start + 1 }
  const name = matchAt(NAME, text, start)
  if (name !== undefined) return { step: { name }, end: start + name.length }
  const next = text[start]
  if (next === undefined || next === '.' || next === '[')
    return { problem: 'has no name between its dots' }
  return strange(text, start)
}

function strange(text: string, at: number): PathProblem {
  const found = JSON.stringify(String.fromCodePoint(text.codePointAt(at) ?? 0))
  return { problem: `has ${found} outside of ["…"]` }
}

function readBracket(text: string, at: number): ReadStep {
  if (text.startsWith(ANY_ITEM, at)) return { step: 'any', end: at + ANY_ITEM.length }
  const quoted = matchAt(QUOTED, text, at)
  if (quoted !== undefined) {
    const name = readText(quoted.slice(1, -1))
    if (name === undefined) return { problem: 'has a name in quotes that is no JSON string' }
    if (name === '') return { problem: 'has an empty name' }
    return { step: { name }, end: at + quoted.length }
  }
  if (/^\[\d+\]/.test(text.slice(at)))
    return { problem: 'names an item by its number: only [*], any item, can be hidden' }
  return { problem: 'has a bracket that is neither [*] nor ["NAME"]' }
}

function readText(json: string): string | undefined {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

function matchAt(pattern: RegExp, text: string, at: number): string | undefined {
  pattern.lastIndex = at
  return pattern.exec(text)?.[0]
}

/** Whether what is at `names` is hidden where all below `steps` is. */
function hides(steps: readonly FieldStep[], names: readonly string[]): boolean {
  return (
    steps.length <= names.length &&
    steps.every((step, index) => step === 'any' || step.name === names[index])
  )
}
