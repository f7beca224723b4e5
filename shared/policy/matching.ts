/**
 * What a rule matches. One definition of every condition: the index (rule-index.ts) leaves out rules by the same values
 * and words, and explanations (analysis.ts) name the condition that failed.
 *
 * Rules that restrict (deny, hold) are held against the request and against each of its equivalents; rules that let
 * through (allow, breakGlass) against the request alone. A fact that is missing never matches.
 */
import type { RequestAttributes } from '../kubernetes/attributes.ts'
import type { Condition, ConditionUses } from './condition.ts'
import type { Effect } from './decision.ts'
import type { Facts } from './facts.ts'
import { namePattern, pathPattern } from './globs.ts'
import type { Match } from './language.ts'
import type { Rule } from './policy-set.ts'
import type { View } from './views.ts'

/** How a dimension's words are held against its values. */
type WordKind = 'exact' | 'name' | 'path'

/** A condition that looks at words. */
export interface Dimension {
  readonly key: Exclude<keyof Match, 'labels'>
  readonly kind: WordKind
  /** Whether it asks who calls and where, and so is the same for all equivalents of a request. */
  readonly shared: boolean
  /** Values of a request: any of them suffices; none where the fact is missing. */
  readonly values: (view: View, facts: Facts) => readonly string[]
}

const NONE: readonly string[] = []
const one = (value: string | undefined): readonly string[] => (value === undefined ? NONE : [value])

/** Every condition but `labels` and `when`. Words of `exact` ones are compared as they are: values bring their stars along. */
export const DIMENSIONS: readonly Dimension[] = [
  { key: 'verbs', kind: 'exact', shared: false, values: ({ verb }) => [verb, '*'] },
  {
    key: 'resources',
    kind: 'exact',
    shared: false,
    values: ({ resource }) => resourceWords(resource),
  },
  { key: 'actions', kind: 'exact', shared: true, values: (_view, { request }) => request.actions },
  { key: 'apiGroups', kind: 'exact', shared: false, values: ({ apiGroup }) => [apiGroup, '*'] },
  {
    key: 'nonResourceURLs',
    kind: 'name',
    shared: false,
    values: ({ resource, path }) => (resource === undefined ? [path] : NONE),
  },
  { key: 'namespaces', kind: 'name', shared: false, values: ({ namespace }) => [namespace] },
  {
    key: 'resourceNames',
    kind: 'name',
    shared: false,
    values: ({ name, nameParts }) => [name, ...nameParts],
  },
  { key: 'clusters', kind: 'name', shared: true, values: (_view, { cluster }) => [cluster] },
  {
    key: 'agents',
    kind: 'name',
    shared: true,
    values: (_view, { process }) => one(process?.agent),
  },
  {
    key: 'ancestors',
    kind: 'name',
    shared: true,
    values: (_view, { process }) => process?.ancestors ?? NONE,
  },
  {
    key: 'executables',
    kind: 'path',
    shared: true,
    values: (_view, { process }) => one(process?.exe),
  },
  {
    key: 'sha256',
    kind: 'exact',
    shared: true,
    values: (_view, { process }) => one(process?.sha256),
  },
  {
    key: 'containers',
    kind: 'name',
    shared: true,
    values: (_view, { process }) => one(process?.container),
  },
  {
    key: 'images',
    kind: 'path',
    shared: true,
    values: (_view, { process }) => one(process?.image),
  },
  {
    key: 'uids',
    kind: 'exact',
    shared: true,
    values: (_view, { process }) => one(process?.uid?.toString()),
  },
  {
    key: 'verdicts',
    kind: 'exact',
    shared: true,
    values: (_view, { process }) => one(process?.verdict),
  },
  {
    key: 'serviceAccounts',
    kind: 'exact',
    shared: true,
    values: (_view, { process }) => accountWords(process),
  },
  {
    key: 'subjects',
    kind: 'name',
    shared: true,
    values: (_view, { subject }) => one(subject?.name),
  },
  {
    key: 'groups',
    kind: 'name',
    shared: true,
    values: (_view, { subject }) => subject?.groups ?? NONE,
  },
  {
    key: 'repositories',
    kind: 'name',
    shared: true,
    values: (_view, { subject }) => one(subject?.ci?.repository),
  },
  {
    key: 'refs',
    kind: 'name',
    shared: true,
    values: (_view, { subject }) => one(subject?.ci?.ref),
  },
]

/** Conditions that ask who calls. */
export const WHO = [
  'agents',
  'ancestors',
  'executables',
  'sha256',
  'containers',
  'images',
  'uids',
  'verdicts',
  'serviceAccounts',
  'subjects',
  'groups',
  'repositories',
  'refs',
] as const satisfies readonly Dimension['key'][]

/** The words of a rule that would match a resource. */
function resourceWords(resource: string | undefined): readonly string[] {
  if (resource === undefined) return NONE
  const [head, sub] = resource.split('/')
  return sub === undefined ? [resource, '*'] : [resource, `${head ?? ''}/*`, `*/${sub}`, '*']
}

function accountWords(process: Facts['process']): readonly string[] {
  if (process === undefined) return NONE
  const { namespace, serviceAccount } = process
  return [`${namespace}/${serviceAccount}`, `${namespace}/*`, `*/${serviceAccount}`, '*/*']
}

/** What a rule's questions about the body and its expression come to. */
export type BodyOutcome = 'yes' | 'no' | 'opaque' | { readonly error: string }

/** One condition of a rule. */
export interface CompiledCondition {
  readonly dimension: Dimension
  readonly words: readonly string[]
  /** Whether the index knows less than this. */
  readonly residual: boolean
  test(view: View, facts: Facts): boolean
}

/** A rule, compiled. */
export interface CompiledRule {
  readonly rule: Rule
  readonly restricting: boolean
  readonly conditions: readonly CompiledCondition[]
  /** Conditions that the index leaves to be tested. */
  readonly residual: readonly CompiledCondition[]
  /** `labels` and `when`; undefined where the rule has neither. */
  readonly body: ((view: View, facts: Facts, now: number) => BodyOutcome) | undefined
}

/** Whether a rule with this effect restricts. */
export function isRestricting(effect: Effect): boolean {
  return effect === 'deny' || effect === 'hold'
}

/** Compiles a rule. */
export function compileRule(rule: Rule): CompiledRule {
  const restricting = isRestricting(rule.effect)
  const conditions = DIMENSIONS.flatMap((dimension) => {
    const words = rule.match[dimension.key]?.map(String)
    return words === undefined ? [] : [compileCondition(dimension, words, restricting)]
  })
  return {
    rule,
    restricting,
    conditions,
    residual: conditions.filter(({ residual }) => residual),
    body: compileBody(rule),
  }
}

/** Whether all conditions but those on the body hold. The plain way, rule by rule; the index must come to the same. */
export function matchesWords(compiled: CompiledRule, view: View, facts: Facts): boolean {
  if (!view.literal && !compiled.restricting) return false
  return compiled.conditions.every((condition) => condition.test(view, facts))
}

function compileCondition(
  dimension: Dimension,
  words: readonly string[],
  restricting: boolean,
): CompiledCondition {
  const { key, kind, values } = dimension
  const suffices = wordTest(kind, words)
  const test = (view: View, facts: Facts): boolean => values(view, facts).some(suffices)
  if (key === 'resourceNames') {
    // A rule that lets through covers the spelling it lists, one that restricts every spelling of the name.
    return {
      ...{ dimension, words, residual: true },
      test: restricting
        ? (view, facts) => view.anyName || test(view, facts)
        : ({ name }) => suffices(name),
    }
  }
  if (key === 'namespaces') {
    // Residual for every rule: the index does not narrow a view of all namespaces by them.
    return {
      ...{ dimension, words, residual: true },
      test: restricting ? (view, facts) => view.anyNamespace || test(view, facts) : test,
    }
  }
  const patterned = kind !== 'exact' && words.some((word) => word.includes('*'))
  return { dimension, words, residual: patterned, test }
}

/** Whether a value is one of the words. */
export function wordTest(kind: WordKind, words: readonly string[]): (value: string) => boolean {
  const exact = new Set(words)
  if (kind === 'exact') return (value) => exact.has(value)
  const patterns = words
    .filter((word) => word.includes('*'))
    .map((word) => (kind === 'path' ? pathPattern(word) : namePattern(word)))
  return (value) => exact.has(value) || patterns.some((pattern) => pattern.test(value))
}

function compileBody(rule: Rule): CompiledRule['body'] {
  const { condition } = rule
  const { labels } = rule.match
  if (condition === undefined && labels === undefined) return undefined
  const labelOutcome = labels === undefined ? undefined : compileLabels(labels)
  return (view, facts, now) => {
    const outcome = labelOutcome?.(facts.request) ?? 'yes'
    if (outcome !== 'yes' || condition === undefined) return outcome
    return conditionOutcome(condition, view, facts, now)
  }
}

function compileLabels(
  labels: Readonly<Record<string, readonly string[]>>,
): (request: RequestAttributes) => BodyOutcome {
  const tests = Object.entries(labels).map(
    ([key, words]) => [key, wordTest('name', words)] as const,
  )
  return ({ body, labels: found }) => {
    if (body.state === 'opaque') return 'opaque'
    const holds = tests.every(([key, suffices]) => {
      const value = found !== undefined && Object.hasOwn(found, key) ? found[key] : undefined
      return value !== undefined && suffices(value)
    })
    return holds ? 'yes' : 'no'
  }
}

/** Whether the name is in a body that is not read. */
function isUnnamed({ info, objectName }: RequestAttributes): boolean {
  return info.verb === 'create' && objectName === ''
}

/** What comes of a condition that asks for what is not known because the body is not there, or not read. */
function unreadOutcome(
  { object, ofBody, name }: ConditionUses,
  request: RequestAttributes,
): BodyOutcome | undefined {
  const { state } = request.body
  if (state === 'opaque')
    return object || ofBody || (name && isUnnamed(request)) ? 'opaque' : undefined
  return object && state === 'none' ? 'no' : undefined
}

function conditionOutcome(
  { uses, evaluate }: Condition,
  view: View,
  facts: Facts,
  now: number,
): BodyOutcome {
  const { process, subject, request } = facts
  if ((uses.process && process === undefined) || (uses.subject && subject === undefined))
    return 'no'
  const unread = unreadOutcome(uses, request)
  if (unread !== undefined) return unread
  const value = evaluate(view.input(facts, now))
  if (typeof value !== 'boolean') return value
  return value ? 'yes' : 'no'
}
