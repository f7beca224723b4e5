/**
 * Checks an expression as it is parsed, and weaves into it the calls that count what an evaluation spends (condition.ts).
 * Both in one pass, because both have to see every part.
 */
import { parse } from '@bufbuild/cel'

/** Deepest nesting of an expression. */
export const MAX_EXPRESSION_DEPTH = 48
/** Most loops (`exists`, `all`, `exists_one`, `map`, `filter`) of one expression. */
export const MAX_LOOPS = 8
/** Deepest nesting of loops. */
export const MAX_LOOP_DEPTH = 2
/** Longest pattern of `matches`, in characters. */
export const MAX_PATTERN_LENGTH = 250
/** Longest list that `map` and `filter` take. */
export const MAX_MAPPED = 1_000

/** Fields by variable; those of `object` are the cluster's own. */
const FIELDS: Readonly<Record<string, ReadonlySet<string> | undefined>> = {
  request: new Set(
    'verb actions apiGroup resource subresource namespace name path labels parameters'.split(' '),
  ),
  process: new Set(
    'agent ancestors exe sha256 uid container image namespace serviceAccount verdict'.split(' '),
  ),
  subject: new Set(['name', 'groups', 'repository', 'ref', 'run']),
}
/** Parameters that come from the body. */
const BODY_PARAMETERS: ReadonlySet<string> = new Set([
  'generateName',
  'gracePeriodSeconds',
  'propagationPolicy',
  'replicas',
])
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

/** A part of a parsed expression. */
export type Expr = ReturnType<typeof parse>['expr']
type Select = Extract<Expr['exprKind'], { case: 'selectExpr' }>['value']
type Struct = Extract<Expr['exprKind'], { case: 'structExpr' }>['value']
type Call = Extract<Expr['exprKind'], { case: 'callExpr' }>['value']
type Loop = Extract<Expr['exprKind'], { case: 'comprehensionExpr' }>['value']

/** Names that no expression can spell. */
export const WOVEN = {
  range: '@range',
  step: '@step',
  fields: '@fields',
  text: '@text',
  deep: '@deep',
  search: '@search',
  pattern: '@pattern',
}

/** What the evaluator knows. */
export interface Environment {
  isFunction(name: string): boolean
  /** What is wrong with a regular expression. */
  patternProblem(pattern: string): string | undefined
}

/** What is used where a condition asks for something in `request` that comes from the body. */
export const OF_BODY = 'request.*'

/** What a pass found. */
export interface Woven {
  readonly problems: readonly string[]
  /** Variables that are asked for; `request.name`; and {@link OF_BODY}. */
  readonly used: ReadonlySet<string>
}

interface Pass {
  readonly environment: Environment
  readonly problems: string[]
  readonly used: Set<string>
  /** Parts of which a field is asked for, and not the whole. */
  readonly narrowed: WeakSet<Expr>
  loops: number
}

/** Where in the expression a part is. */
interface Place {
  readonly depth: number
  readonly loops: number
  readonly scope: ReadonlySet<string>
}

/** Checks an expression, and changes it where it stands. */
export function weave(expr: Expr, environment: Environment): Woven {
  const pass: Pass = {
    environment,
    problems: [],
    used: new Set(),
    narrowed: new WeakSet(),
    loops: 0,
  }
  visit(pass, expr, { depth: 0, loops: 0, scope: VARIABLES })
  return pass
}

/** @returns how many parts there are, this one included */
function visitAll(
  pass: Pass,
  parts: readonly (Expr | undefined)[],
  { depth, ...place }: Place,
): number {
  return parts.reduce((sum, part) => sum + visit(pass, part, { ...place, depth: depth + 1 }), 1)
}

function visit(pass: Pass, expr: Expr | undefined, place: Place): number {
  if (expr === undefined) return 0
  if (place.depth > MAX_EXPRESSION_DEPTH) {
    pass.problems.push('nested too deeply')
    return 1
  }
  const { exprKind: kind } = expr
  noteBody(pass, expr)
  switch (kind.case) {
    case 'identExpr':
      return visitName(pass, kind.value.name, place)
    case 'selectExpr':
      return visitSelect(pass, kind.value, place)
    case 'callExpr':
      return visitCall(pass, kind.value, place)
    case 'listExpr':
      return visitAll(pass, kind.value.elements, place)
    case 'structExpr':
      return visitStruct(pass, kind.value, place)
    case 'comprehensionExpr':
      return visitLoop(pass, kind.value, place)
    default:
      return 1
  }
}

function visitName({ problems, used }: Pass, name: string, { scope }: Place): number {
  used.add(name)
  if (!scope.has(name) && !TYPES.has(name)) problems.push(`unknown variable ${name}`)
  return 1
}

/** Notes what an expression asks of the body by way of `request`. Whoever takes more of it than a field may ask for anything. */
function noteBody({ used, narrowed }: Pass, expr: Expr): void {
  const { exprKind: kind } = expr
  if (kind.case === 'selectExpr' && kind.value.operand !== undefined)
    narrowed.add(kind.value.operand)
  const [variable, ...path] = namesOf(expr) ?? []
  if (variable !== 'request') return
  const whole = !narrowed.has(expr)
  if (isOfBody(path, whole)) used.add(OF_BODY)
  if (path[0] === 'name' || (whole && path.length === 0)) used.add('request.name')
}

/** Whether a part of `request` comes from the body. */
function isOfBody([field, parameter]: readonly string[], whole: boolean): boolean {
  if (field === undefined) return whole
  if (field === 'labels') return true
  if (field !== 'parameters') return false
  return parameter === undefined ? whole : BODY_PARAMETERS.has(parameter)
}

/** `a.b.c` as its names; undefined where it is something else. */
function namesOf({ exprKind: kind }: Expr): readonly string[] | undefined {
  if (kind.case === 'identExpr') return [kind.value.name]
  if (kind.case !== 'selectExpr' || kind.value.operand === undefined) return undefined
  const names = namesOf(kind.value.operand)
  return names === undefined ? undefined : [...names, kind.value.field]
}

function visitSelect(pass: Pass, select: Select, place: Place): number {
  const unknown = unknownField(select.operand, select.field, place.scope)
  if (unknown !== undefined) pass.problems.push(unknown)
  const parts = visitAll(pass, [select.operand], place)
  if (select.testOnly && select.operand !== undefined)
    select.operand = callOf(WOVEN.fields, select.operand)
  return parts
}

function visitStruct(pass: Pass, { entries, messageName }: Struct, place: Place): number {
  if (messageName !== '') pass.problems.push('messages cannot be made here')
  const parts = entries.flatMap(({ keyKind, value }) =>
    keyKind.case === 'mapKey' ? [keyKind.value, value] : [value],
  )
  return visitAll(pass, parts, place)
}

function visitCall(pass: Pass, call: Call, place: Place): number {
  const { problems, environment } = pass
  const name = call.function
  const planned = PLANNED.has(name)
  if (!planned && !environment.isFunction(name)) problems.push(`unknown function ${name}`)
  if (name === 'matches') problems.push(...patternProblems(call, environment))
  const parts = visitAll(pass, [call.target, ...call.args], place)
  if (!planned) weaveCall(call)
  return parts
}

function visitLoop(pass: Pass, loop: Loop, place: Place): number {
  const { problems } = pass
  pass.loops += 1
  if (pass.loops === MAX_LOOPS + 1) problems.push(`more than ${MAX_LOOPS} loops`)
  if (place.loops === MAX_LOOP_DEPTH)
    problems.push(`more than ${MAX_LOOP_DEPTH} loops in one another`)
  // What a condition asks for is known by its variables' names, so they name one thing only.
  if (place.scope.has(loop.iterVar)) problems.push(`the variable ${loop.iterVar} is there already`)
  const range = visitAll(pass, [loop.iterRange], place)
  const makesList = loop.accuInit?.exprKind.case === 'listExpr'
  const body = visitAll(pass, [loop.accuInit, loop.loopCondition, loop.loopStep, loop.result], {
    depth: place.depth,
    loops: place.loops + 1,
    scope: new Set([...place.scope, loop.iterVar, loop.accuVar]),
  })
  if (loop.iterRange !== undefined) {
    const most = makesList ? MAX_MAPPED : Number.MAX_SAFE_INTEGER
    loop.iterRange = callOf(WOVEN.range, loop.iterRange, numberExpr(body), numberExpr(most))
  }
  if (loop.loopCondition !== undefined) loop.loopCondition = callOf(WOVEN.step, loop.loopCondition)
  return range + body
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
function patternProblems({ target, args }: Call, environment: Environment): string[] {
  const [pattern, ...more] = target === undefined ? args.slice(1) : args
  const constant =
    pattern?.exprKind.case === 'constExpr' ? pattern.exprKind.value.constantKind : undefined
  if (constant?.case !== 'stringValue' || more.length > 0)
    return ['matches: the pattern must be written out']
  if (constant.value.length > MAX_PATTERN_LENGTH)
    return [`matches: the pattern is longer than ${MAX_PATTERN_LENGTH} characters`]
  const problem = environment.patternProblem(constant.value)
  return problem === undefined ? [] : [`matches: ${problem}`]
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

/** The library's parser makes the parts of expressions; it has no constructors for them that come without generated code. */
const SOME_CALL = parse('f(x)').expr

function callOf(name: string, ...args: Expr[]): Expr {
  const { exprKind: kind } = SOME_CALL
  if (kind.case !== 'callExpr') return SOME_CALL
  const value = { ...kind.value, function: name, args }
  return { ...SOME_CALL, exprKind: { case: 'callExpr', value } }
}

function numberExpr(value: number): Expr {
  return parse(String(value)).expr
}
