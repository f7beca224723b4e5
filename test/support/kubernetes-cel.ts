/** Evaluates CEL expressions of generated Kubernetes objects, with maps where the API server has typed objects: `has` is the same for both. */
import { celEnv, isCelError, parse, plan } from '@bufbuild/cel'
import type { CelInput } from '@bufbuild/cel'
import { strings } from '@bufbuild/cel/ext'

type Plan = ReturnType<typeof plan>

const environment = celEnv({ funcs: strings })
const plans = new Map<string, Plan>()

/** @param bindings - variables by name @returns the value, or the error's text under `error` */
export function evaluate(expression: string, bindings: Readonly<Record<string, unknown>>): unknown {
  return evaluator(bindings).value(expression)
}

/** Evaluates several expressions with the same bindings; {@link Evaluator.define} adds a variable, as policies have them. */
export interface Evaluator {
  value(expression: string): unknown
  define(name: string, expression: string): void
}

/** See {@link Evaluator}. */
export function evaluator(bindings: Readonly<Record<string, unknown>>): Evaluator {
  const variables = new Map<string, CelInput>()
  const input = Object.fromEntries(
    Object.entries(bindings).map(([name, value]) => [name, toInput(value)]),
  )
  const compute = (expression: string): ReturnType<Plan> => {
    const planned = plans.get(expression) ?? plan(environment, parse(expression))
    plans.set(expression, planned)
    return planned({ variables, ...input })
  }
  return {
    value(expression) {
      const result = compute(expression)
      return isCelError(result) ? { error: result.message } : toPlain(result)
    },
    define(name, expression) {
      const result = compute(expression)
      // as the API server has it: an error is one where the variable is used
      if (!isCelError(result)) variables.set(name, result)
    },
  }
}

/** Whole numbers are integers, as in a token's claims. */
function toInput(value: unknown): CelInput {
  if (Number.isSafeInteger(value)) return BigInt(Number(value))
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
