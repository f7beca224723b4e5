/** Evaluates CEL expressions of generated Kubernetes objects, with maps where the API server has typed objects: `has` is the same for both. */
import { celEnv, isCelError, parse, plan } from '@bufbuild/cel'
import type { CelInput } from '@bufbuild/cel'
import { strings } from '@bufbuild/cel/ext'

const environment = celEnv({ funcs: strings })

/** @param bindings - variables by name @returns the value, or the error's text under `error` */
export function evaluate(expression: string, bindings: Readonly<Record<string, unknown>>): unknown {
  const input = Object.fromEntries(
    Object.entries(bindings).map(([name, value]) => [name, toInput(value)]),
  )
  const result = plan(environment, parse(expression))(input)
  return isCelError(result) ? { error: result.message } : toPlain(result)
}

/** Whole numbers are integers, as in a token's claims. */
function toInput(value: unknown): CelInput {
  if (typeof value === 'number') return BigInt(value)
  if (Array.isArray(value)) return value.map(toInput)
  if (typeof value === 'object' && value !== null)
    return new Map(Object.entries(value).map(([key, item]) => [key, toInput(item)]))
  return value as CelInput
}

function toPlain(value: unknown): unknown {
  if (typeof value === 'object' && value !== null && Symbol.iterator in value)
    return [...(value as Iterable<unknown>)]
  return value
}
