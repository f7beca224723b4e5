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

/** Longest expression, in characters. */
export const MAX_EXPRESSION_LENGTH = 2_000
/** Deepest nesting of an expression. */
export const MAX_EXPRESSION_DEPTH = 48
/** Most loops (`exists`, `all`, `exists_one`, `map`, `filter`) of one expression. */
export const MAX_LOOPS = 8
/** Deepest nesting of loops. */
export const MAX_LOOP_DEPTH = 2
/** Longest pattern of `matches`, in characters. */
export const MAX_PATTERN_LENGTH = 250
/** Longest text that `matches` looks through, in characters. */
export const MAX_MATCHED_LENGTH = 65_536
/** Longest list that `map` and `filter` take. */
export const MAX_MAPPED = 1_000
/** What one evaluation may spend, in steps of about 100 ns. */
export const BUDGET = 500_000

/** What a condition is about beside the request: without these, a rule that asks for them does not match. */
export interface ConditionUses {
  readonly process: boolean
  readonly subject: boolean
  readonly object: boolean
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
  evaluate(input: ConditionInput): boolean | { readonly error: string }
}

/** Fields by variable; those of `object` are the cluster's own. */
const FIELDS: Readonly<Record<string, ReadonlySet<string> | undefined>> = {
  request: new Set(
    'verb actions apiGroup resource subresource namespace name path labels parameters'.split(' '),
  ),
  process: new Set(
    'agent ancestors exe sha256 uid container image namespace serviceAccount verdict'.split(' '),
  ),
  subject: new Set(['name', 'groups']),
}
const VARIABLES: ReadonlySet<string> = new Set([
  'request',
  'object',
  'process',
  'subject',
  'cluster',
  'now',
])
/** Operators that the library plans itself; and those that look no deeper into their operands. */
const PLANNED: ReadonlySet<string> = new Set([
  '_[_]',
  '_?_:_',
  '_&&_',
  '_||_',
  '!_',
  '@not_strictly_false',
])
/** Names of types, which CEL has as values. */
const TYPES: ReadonlySet<string> = new Set(
  'bool bytes double int list map null_type string type uint'.split(' '),
)

type Expr = ReturnType<typeof parse>['expr']
type Call = Extract<Expr['exprKind'], { case: 'callExpr' }>['value']
type Loop = Extract<Expr['exprKind'], { case: 'comprehensionExpr' }>['value']

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
  const weaver = createWeaver()
  weaver.visit(expr, 0, 0, VARIABLES)
  const { problems, used } = weaver
  if (problems.length > 0) return { problems: [...new Set(problems)] }
  const run = plan(environment, expr)
  return {
    uses: {
      process: used.has('process'),
      subject: used.has('subject'),
      object: used.has('object'),
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
/** Names that no expression can spell. */
const WOVEN = {
  range: '@range',
  step: '@step',
  fields: '@fields',
  text: '@text',
  deep: '@deep',
  search: '@search',
  pattern: '@pattern',
}

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

interface Weaver {
  readonly problems: string[]
  readonly used: Set<string>
  /** Checks a part of an expression and weaves the counting into it. @returns how many nodes it had */
  visit(expr: Expr | undefined, depth: number, loops: number, scope: ReadonlySet<string>): number
}

function createWeaver(): Weaver {
  const problems: string[] = []
  const used = new Set<string>()
  let loopCount = 0
  const all = (
    parts: readonly (Expr | undefined)[],
    depth: number,
    loops: number,
    scope: ReadonlySet<string>,
  ): number => parts.reduce((sum, part) => sum + visit(part, depth, loops, scope), 1)

  function visit(
    expr: Expr | undefined,
    depth: number,
    loops: number,
    scope: ReadonlySet<string>,
  ): number {
    if (expr === undefined) return 0
    if (depth > MAX_EXPRESSION_DEPTH) {
      problems.push('nested too deeply')
      return 1
    }
    const { exprKind: kind } = expr
    switch (kind.case) {
      case 'identExpr':
        used.add(kind.value.name)
        if (!scope.has(kind.value.name) && !TYPES.has(kind.value.name))
          problems.push(`unknown variable ${kind.value.name}`)
        return 1
      case 'selectExpr': {
        const unknown = unknownField(kind.value.operand, kind.value.field, scope)
        if (unknown !== undefined) problems.push(unknown)
        const nodes = all([kind.value.operand], depth + 1, loops, scope)
        if (kind.value.testOnly && kind.value.operand !== undefined)
          kind.value.operand = callOf(WOVEN.fields, kind.value.operand)
        return nodes
      }
      case 'callExpr':
        return visitCall(kind.value, depth, loops, scope)
      case 'listExpr':
        return all(kind.value.elements, depth + 1, loops, scope)
      case 'structExpr': {
        const entries = kind.value.entries.flatMap(({ keyKind, value }) =>
          keyKind.case === 'mapKey' ? [keyKind.value, value] : [value],
        )
        if (kind.value.messageName !== '') problems.push('messages cannot be made here')
        return all(entries, depth + 1, loops, scope)
      }
      case 'comprehensionExpr':
        return visitLoop(kind.value, depth, loops, scope)
      default:
        return 1
    }
  }

  function visitCall(call: Call, depth: number, loops: number, scope: ReadonlySet<string>): number {
    const name = call.function
    if (!PLANNED.has(name) && environment.funcs.find(name) === undefined)
      problems.push(`unknown function ${name}`)
    if (name === 'matches') problems.push(...patternProblems(call))
    const nodes = all([call.target, ...call.args], depth + 1, loops, scope)
    if (!PLANNED.has(name)) weaveCall(call)
    return nodes
  }

  function visitLoop(loop: Loop, depth: number, loops: number, scope: ReadonlySet<string>): number {
    loopCount += 1
    if (loopCount === MAX_LOOPS + 1) problems.push(`more than ${MAX_LOOPS} loops`)
    if (loops === MAX_LOOP_DEPTH) problems.push(`more than ${MAX_LOOP_DEPTH} loops in one another`)
    if (scope.has(loop.iterVar)) problems.push(`the variable ${loop.iterVar} is there already`)
    // Other conditions must not be taken for one about the process because a loop's variable is called so.
    const inner = new Set([...scope, loop.iterVar, loop.accuVar])
    const range = visit(loop.iterRange, depth + 1, loops, scope)
    const makesList = loop.accuInit?.exprKind.case === 'listExpr'
    const body = all(
      [loop.accuInit, loop.loopCondition, loop.loopStep, loop.result],
      depth + 1,
      loops + 1,
      inner,
    )
    if (loop.iterRange !== undefined) {
      const most = makesList ? MAX_MAPPED : Number.MAX_SAFE_INTEGER
      loop.iterRange = callOf(WOVEN.range, loop.iterRange, numberExpr(body), numberExpr(most))
    }
    if (loop.loopCondition !== undefined)
      loop.loopCondition = callOf(WOVEN.step, loop.loopCondition)
    return range + body
  }
  return { problems, used, visit }
}

function unknownField(
  operand: Expr | undefined,
  field: string,
  scope: ReadonlySet<string>,
): string | undefined {
  if (operand?.exprKind.case !== 'identExpr') return undefined
  const { name } = operand.exprKind.value
  const fields = FIELDS[name]
  if (fields === undefined || fields.has(field) || !scope.has(name)) return undefined
  return `${name} has no field ${field}`
}

/** Patterns are part of the policy: one that the request brings could not be checked before it counts. */
function patternProblems({ target, args }: Call): string[] {
  const [pattern, ...more] = target === undefined ? args.slice(1) : args
  const constant =
    pattern?.exprKind.case === 'constExpr' ? pattern.exprKind.value.constantKind : undefined
  if (constant?.case !== 'stringValue' || more.length > 0)
    return ['matches: the pattern must be written out']
  if (constant.value.length > MAX_PATTERN_LENGTH)
    return [`matches: the pattern is longer than ${MAX_PATTERN_LENGTH} characters`]
  const tried = plan(celEnv({}), parse('"".matches(p)').expr)({ p: constant.value })
  return isCelError(tried) ? [`matches: ${tried.message}`] : []
}

function weaveCall(call: Call): void {
  const [first, second] = call.target === undefined ? call.args : [call.target, ...call.args]
  const replace = (make: (value: Expr) => Expr): void => {
    if (call.target !== undefined) call.target = make(call.target)
    else if (call.args[0] !== undefined) call.args[0] = make(call.args[0])
  }
  if (first === undefined) return
  if (second !== undefined && ['matches', 'contains'].includes(call.function)) {
    const cost = call.function === 'matches' ? WOVEN.pattern : WOVEN.search
    replace((value) => callOf(cost, value, second))
    return
  }
  const cost = ['_==_', '_!=_', '@in'].includes(call.function) ? WOVEN.deep : WOVEN.text
  if (call.target !== undefined) call.target = costed(cost, call.target)
  call.args = call.args.map((arg) => costed(cost, arg))
}

function costed(cost: string, value: Expr): Expr {
  return value.exprKind.case === 'constExpr' ? value : callOf(cost, value)
}

/** The library has no constructor for calls that does not need its generated code; its parser makes them. */
function callOf(name: string, ...args: Expr[]): Expr {
  const made = parse('f(x)').expr
  if (made.exprKind.case === 'callExpr') {
    made.exprKind.value.function = name
    made.exprKind.value.args = args
  }
  return made
}

function numberExpr(value: number): Expr {
  return parse(String(value)).expr
}
