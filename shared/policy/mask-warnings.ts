/** What of masking is probably not meant. Part of warnings.ts. */
import type { Match } from './language.ts'
import { WHO } from './matching.ts'
import { profileOf, showsAll } from './mask-profiles.ts'
import type { MaskProfile } from './mask-profiles.ts'
import type { Rule } from './policy-set.ts'

/** Verbs whose answers hold nothing of Secrets that the caller did not send. */
const TELLS_NOTHING: ReadonlySet<string> = new Set(['create', 'connect'])

/** What can be said of one rule by itself. */
export function* maskWarnings(rule: Rule): Generator<string> {
  const { match, effect, masking } = rule
  if (effect === 'deny') return
  if (effect === 'allow' && showsAll(masking) && isForAll(rule) && coversSecrets(rule))
    yield 'shows the values of Secrets to every caller: say to which agents, service accounts or subjects'
  if (masking.restore && !hasVerb(match, 'update'))
    yield 'restore does nothing: only updates are restored'
  if (match.actions?.includes('unmask') === true) yield* unmaskWarnings(rule)
}

function* unmaskWarnings({ match, masking, approval }: Rule): Generator<string> {
  if (!hasVerb(match, 'get')) yield 'never matches unmask: what asks for it is a get'
  if (!showsAll(masking)) yield 'denies what asks for unmask: it does not say mask: none'
  if (approval?.reuse !== undefined && approval.reuse !== 'once')
    yield 'reuse does not count for unmask: each request of it is approved by itself'
}

function hasVerb({ verbs = ['*'] }: Match, verb: string): boolean {
  return verbs.includes(verb) || verbs.includes('*')
}

function isForAll({ match, when }: Rule): boolean {
  return when === undefined && WHO.every((key) => match[key] === undefined)
}

function coversSecrets({ match }: Rule): boolean {
  const { verbs, apiGroups = [''], resources, nonResourceURLs, actions } = match
  if (nonResourceURLs !== undefined || verbs?.every((verb) => TELLS_NOTHING.has(verb)) === true)
    return false
  if (actions?.some((action) => action === 'read-secrets' || action === 'unmask') === false)
    return false
  if (!apiGroups.some((group) => group === '' || group === '*')) return false
  return resources === undefined || resources.some((one) => one === '*' || one === 'secrets')
}

/** Profiles that no rule names, whole lines. */
export function unusedProfiles(
  profiles: readonly MaskProfile[],
  rules: readonly Rule[],
): readonly string[] {
  const used = new Set(rules.flatMap(({ mask }) => (mask === undefined ? [] : [profileOf(mask)])))
  return profiles
    .filter(({ name }) => !used.has(name))
    .map(({ file, line, name }) => `${file}:${line}: mask ${name}: no rule names it`)
}
