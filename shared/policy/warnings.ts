/** What is probably not meant, though it can be read: rules that never match or never decide, and unknown words. */
import { EFFECTS } from './decision.ts'
import { isDiscoveryPath } from './decide.ts'
import { maskWarnings, unusedProfiles } from './mask-warnings.ts'
import { showsAll } from './mask-profiles.ts'
import { DIMENSIONS, isRestricting } from './matching.ts'
import type { Dimension } from './matching.ts'
import { namePattern, pathPattern } from './globs.ts'
import type { PolicySet, Rule } from './policy-set.ts'
import { CLUSTER_SCOPED } from './views.ts'

/** Above this many rules they are not compared with each other: the work grows with its square. */
const MAX_COMPARED = 1_000

const VERBS: ReadonlySet<string> = new Set(
  '* get list watch create update patch delete deletecollection connect'.split(' '),
)
/** Methods of requests outside the resource API. */
const METHODS: ReadonlySet<string> = new Set('* get head post put patch delete options'.split(' '))
const CONNECT_ONLY = /\/(?:exec|attach|portforward|proxy)$/

/** Warnings, one line each: `FILE:LINE: rule ID: what`, of masking profiles `FILE:LINE: mask NAME: what`. */
export function policyWarnings({ rules, profiles }: PolicySet): readonly string[] {
  const warnings = rules.flatMap((rule) =>
    [...ruleWarnings(rule)].map((what) => [rule, what] as const),
  )
  if (rules.length <= MAX_COMPARED) {
    for (const [rule, other, what] of [...shadowedRules(rules), ...outmaskedRules(rules)])
      warnings.push([rule, `${what} rule ${other.id} (${other.file}:${other.line})`])
  }
  return [
    ...warnings.map(([{ file, line, id }, what]) => `${file}:${line}: rule ${id}: ${what}`),
    ...unusedProfiles(profiles, rules),
  ]
}

/** What can be said of one rule by itself. */
function* ruleWarnings(rule: Rule): Generator<string> {
  const { verbs = [], nonResourceURLs } = rule.match
  const known = nonResourceURLs === undefined ? VERBS : METHODS
  const unknown = verbs.filter((verb) => !known.has(verb))
  if (unknown.length > 0) yield `no request has the verb ${unknown.join(', ')}`
  if (nonResourceURLs === undefined) yield* resourceWarnings(rule)
  else yield* pathWarnings(rule, nonResourceURLs)
  yield* maskWarnings(rule)
}

function* resourceWarnings({ match }: Rule): Generator<string> {
  const { verbs, resources = [], namespaces, apiGroups = [''] } = match
  if (resources.length === 0) return
  const sessions = resources.every((resource) => CONNECT_ONLY.test(resource))
  if (sessions && verbs?.some((verb) => verb === 'connect' || verb === '*') === false)
    yield 'never matches: exec, attach, port-forward and proxy have the verb connect'
  // A request for a namespace itself has that namespace.
  const scoped = resources.every(
    (resource) =>
      resource !== 'namespaces' &&
      apiGroups.every((group) => CLUSTER_SCOPED.has(`${group}/${resource}`)),
  )
  if (scoped && namespaces?.some((one) => one === '' || one === '*') === false)
    yield 'never matches: these resources have no namespace'
}

function* pathWarnings({ match, effect }: Rule, paths: readonly string[]): Generator<string> {
  const { namespaces, apiGroups, resourceNames, labels } = match
  if ((namespaces ?? apiGroups ?? resourceNames ?? labels) !== undefined)
    yield 'paths outside the resource API have no namespace, group, name or labels'
  const waits = effect === 'hold' || effect === 'breakGlass'
  if (waits && paths.every((path) => isDiscoveryPath(path.replace(/\*$/, ''))))
    yield 'never decides: discovery is allowed or denied, and not held'
}

type Shadow = readonly [rule: Rule, by: Rule, what: string]

/** Rules that never decide because another one always matches with them. */
export function* shadowedRules(rules: readonly Rule[]): Generator<Shadow> {
  for (const [at, rule] of rules.entries()) {
    const by = rules.find((other, otherAt) => other !== rule && shadows(other, rule, otherAt < at))
    if (by === undefined) continue
    yield [
      rule,
      by,
      by.effect === rule.effect
        ? 'adds nothing to'
        : `never decides: it is covered by the ${by.effect} of`,
    ]
  }
}

/** Rules whose `mask: none` never counts, because another one always decides with them and hides. */
function* outmaskedRules(rules: readonly Rule[]): Generator<Shadow> {
  for (const rule of rules) {
    if (!showsAll(rule.masking)) continue
    const by = rules.find(
      (other) => other.effect === rule.effect && !showsAll(other.masking) && covers(other, rule),
    )
    if (by !== undefined)
      yield [rule, by, 'mask: none never counts: the same is let through and masked by']
  }
}

function shadows(other: Rule, rule: Rule, earlier: boolean): boolean {
  const strength = EFFECTS.indexOf(rule.effect) - EFFECTS.indexOf(other.effect)
  if (strength < 0) return false
  // What a rule restricts it restricts in every spelling; one that lets through covers only the literal one.
  if (isRestricting(rule.effect) && !isRestricting(other.effect)) return false
  if (!covers(other, rule)) return false
  // a body is captured for a weaker rule too, wherever the request goes ahead
  if (strength > 0) return other.effect === 'deny' || rule.capture === undefined
  return termsOf(other) === termsOf(rule) && (earlier || !covers(rule, other))
}

function termsOf({ approval, masking, record, capture, grant }: Rule): string {
  return JSON.stringify([approval, masking.profiles, masking.restore, record, capture, grant])
}

/** Whether whatever `rule` matches `other` matches too, by what is written alone. */
export function covers(other: Rule, rule: Rule): boolean {
  if (other.when !== undefined && other.when !== rule.when) return false
  if (
    other.match.labels !== undefined &&
    JSON.stringify(other.match.labels) !== JSON.stringify(rule.match.labels)
  )
    return false
  return DIMENSIONS.every((dimension) => {
    const wide = other.match[dimension.key]?.map(String)
    if (wide === undefined) return true
    const narrow = rule.match[dimension.key]?.map(String)
    return narrow?.every((word) => wide.some((one) => wordCovers(dimension, one, word))) ?? false
  })
}

/** Whether a word matches all that another one does. */
function wordCovers({ key, kind }: Dimension, wide: string, narrow: string): boolean {
  if (wide === narrow) return true
  if (key === 'resources' && wide === '*') return true
  if (key === 'resources' || key === 'serviceAccounts') {
    const parts = wide.split('/')
    const others = narrow.split('/')
    return (
      parts.length === others.length &&
      parts.every((part, at) => part === '*' || part === others[at])
    )
  }
  if (kind === 'exact') return wide === '*'
  if (!wide.includes('*')) return false
  // Stars of the narrow word are taken by stars of the wide one; only one that crosses slashes needs its like.
  if (kind === 'path')
    return wide === '**' || (!narrow.includes('**') && pathPattern(wide).test(narrow))
  return namePattern(wide).test(narrow)
}
