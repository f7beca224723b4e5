/**
 * Conditions of rules in CEL (https://cel.dev), compiled when the policy is read. The only file that knows which library
 * evaluates them. Regular expressions are RE2's: linear in the text, whatever the pattern.
 *
 * CEL has no unbounded loops, but a body of 3 MiB and two loops are enough to stop a broker. So every evaluation has a
 * budget, counted and not timed, that an expression spends by what it does: steps of loops, characters and values
 * that are compared. The counting is woven into the expression when it is compiled.
 */
import {
  celEnv,
  celFunc,
  CelScalar,
  isCelError,
  isCelList,
  isCelMap,
  parse,
  plan,
} from '@bufbuild/cel'
import type { CelInput, CelValue } from '@bufbuild/cel'
import { messageOf } from '../errors.ts'
import { toCelInput } from './condition-values.ts'
import { OF_BODY, weave, WOVEN } from './condition-weave.ts'
import type { Expr } from './condition-weave.ts'

/** Longest expression, in characters. */
export const MAX_EXPRESSION_LENGTH = 2_000
/** Longest text that `matches` looks through, in characters. */
export const MAX_MATCHED_LENGTH = 65_536
/** What one evaluation may spend, in steps of about 100 ns. */
export const BUDGET = 500_000

/** What a condition is about beside the request: without these, a rule that asks for them does not match. */
export interface ConditionUses {
  readonly process: boolean
  readonly subject: boolean
  readonly object: boolean
  /** Labels and parameters that come from the body. */
  readonly ofBody: boolean
  /** The object's name, which is in the body when it is created. */
  readonly name: boolean
}

/** Variables of an evaluation, as plain values. */
export interface ConditionInput {
  readonly request: Readonly<Record<string, unknown>>
  /** The body; undefined where there is none. */
  readonly object: unknown
  readonly process: Readonly<Record<string, unknown>> | undefined
  readonly subject: Readonly<Record<string, unknown>> | undefined
  readonly cluster: string
  /** Milliseconds since the epoch. */
  readonly now: number
}

/** A compiled condition. */
export interface Condition {
  readonly uses: ConditionUses
  /** Never throws: an expression that fails, or whose value is not a boolean, is an error. */
  readonly evaluate: (input: ConditionInput) => boolean | { readonly error: string }
}

/** Compiles an expression. @returns the condition, or what is wrong with it */
export function compileCondition(
  text: string,
): Condition | { readonly problems: readonly string[] } {
  if (text.length > MAX_EXPRESSION_LENGTH) {
    return { problems: [`longer than ${MAX_EXPRESSION_LENGTH} characters`] }
  }
  let expr: Expr
  try {
    expr = parse(text).expr
  } catch (error) {
    const what = error instanceof RangeError ? 'nested too deeply' : messageOf(error)
    return { problems: [what.replaceAll(/\s+/g, ' ')] }
  }
  const { problems, used } = weave(expr, {
    isFunction: (name) => environment.funcs.find(name) !== undefined,
    patternProblem,
  })
  if (problems.length > 0) return { problems: [...new Set(problems)] }
  const run = plan(environment, expr)
  return {
    uses: {
      process: used.has('process'),
      subject: used.has('subject'),
      object: used.has('object'),
      ofBody: used.has(OF_BODY),
      name: used.has('request.name'),
    },
    evaluate(input) {
      budget = BUDGET
      const value = run(bindings(input))
      // CEL's loops pass over the errors of their steps.
      if (budget < 0) return { error: OVERSPENT }
      if (isCelError(value)) return { error: value.message.slice(0, MAX_ERROR_LENGTH) }
      return typeof value === 'boolean' ? value : { error: 'the result is not a boolean' }
    },
  }
}

/** Longest error that is told, in characters; the library repeats what it could not evaluate, but no values. */
const MAX_ERROR_LENGTH = 200
const OVERSPENT = 'the condition costs more than it may for this request'

/** What is left of the evaluation that is going on; evaluations never wait, so there is one at a time. */
let budget = 0

function spend(cost: number): void {
  budget -= cost
  if (budget < 0) throw new RangeError(OVERSPENT)
}

const DYN = CelScalar.DYN

const environment = celEnv({
  funcs: [
    celFunc(WOVEN.range, [DYN, DYN, DYN], DYN, (value, nodes, most) => {
      const size = isCelMap(value) || isCelList(value) ? value.size : 0
      if (size > Number(most)) throw new RangeError(OVERSPENT)
      spend(1 + size * Number(nodes))
      return value
    }),
    celFunc(WOVEN.step, [DYN], DYN, (goesOn) => budget >= 0 && goesOn),
    // CEL's has() is an error on what has no fields; the library's is false, and `!has(…)` would hold of a JSON patch.
    celFunc(WOVEN.fields, [DYN], DYN, (value) => {
      if (!isCelMap(value)) throw new TypeError('has() is asked of what has no fields')
      return value
    }),
    celFunc(WOVEN.text, [DYN], DYN, (value) => {
      spend(textLength(value) / 16)
      return value
    }),
    celFunc(WOVEN.deep, [DYN], DYN, (value) => {
      spendDeep(value)
      return value
    }),
    celFunc(WOVEN.search, [DYN, DYN], DYN, (value, sought) => {
      spend(textLength(value) / 16 + (textLength(value) * textLength(sought)) / 128)
      return value
    }),
    celFunc(WOVEN.pattern, [DYN, DYN], DYN, (value, pattern) => {
      if (textLength(value) > MAX_MATCHED_LENGTH) throw new RangeError(OVERSPENT)
      spend(100 + textLength(value) * (2 + textLength(pattern) / 8))
      return value
    }),
  ],
})

const tryPattern = plan(celEnv({}), parse('"".matches(pattern)').expr)

function patternProblem(pattern: string): string | undefined {
  const tried = tryPattern({ pattern })
  return isCelError(tried) ? tried.message : undefined
}

const toTimestamp = plan(celEnv({}), parse('timestamp(text)').expr)

function textLength(value: CelValue): number {
  return typeof value === 'string' || value instanceof Uint8Array ? value.length : 0
}

function spendDeep(value: CelValue): void {
  spend(1 + textLength(value) / 16)
  if (isCelList(value)) for (const item of value) spendDeep(item)
  else if (isCelMap(value)) for (const item of value.values()) spendDeep(item)
}

/** Values are made only for the variables that an expression asks for. */
function bindings(input: ConditionInput): Record<string, CelInput> {
  return {
    get request() {
      return toCelInput(input.request)
    },
    get object() {
      return toCelInput(input.object)
    },
    get process() {
      return toCelInput(input.process)
    },
    get subject() {
      return toCelInput(input.subject)
    },
    cluster: input.cluster,
    get now() {
      const value = toTimestamp({ text: new Date(input.now).toISOString() })
      if (isCelError(value)) throw value
      return value
    },
  }
}
