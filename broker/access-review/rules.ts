/** Rules of a policy as a review tells them, and what a later policy has left of one. */
import { createHash } from 'node:crypto'
import type { ReviewRule } from '../../shared/access-review-wire.ts'
import type { Effect } from '../../shared/policy/decision.ts'
import { DIMENSIONS } from '../../shared/policy/matching.ts'
import type { Rule } from '../../shared/policy/policy-set.ts'

/** What a rule with a condition on a label is told to have. */
const LABEL = 'label '

/** A rule as a review tells it. */
export function reviewRule(rule: Rule): ReviewRule {
  const { id, policy, effect, when, grant, approval, mask, record } = rule
  const match = matchOf(rule)
  const sorted = Object.entries(match).map(([key, words]) => [key, [...new Set(words)].sort()])
  const consequences = [sorted.sort(), when, effect, grant, approval, mask, record]
  return {
    ...{ rule: id, policy, effect, match },
    ...(when === undefined ? {} : { when }),
    groups: grant?.groups ?? [],
    sha256: createHash('sha256').update(JSON.stringify(consequences)).digest('hex'),
  }
}

function matchOf({ match }: Rule): Record<string, string[]> {
  const result: Record<string, string[]> = {}
  for (const { key } of DIMENSIONS) {
    const words = match[key]
    if (words !== undefined) result[key] = words.map(String)
  }
  for (const [key, words] of Object.entries(match.labels ?? {})) result[LABEL + key] = words
  return result
}

/** How far an effect lets through; none does more than those before it. */
const LENIENCE: readonly Effect[] = ['allow', 'breakGlass', 'hold']

/**
 * What a policy has left of a rule that was to be taken away.
 *
 * @returns `gone` or `changed`; or the rule that still lets through, as easily, all that the old one did, by what is
 * written: the same one, one with another name, a wider one
 */
export function leftOf(
  old: ReviewRule,
  rules: readonly ReviewRule[],
): 'gone' | 'changed' | { readonly still: string } {
  const still = rules.find((rule) => isAsLenient(rule.effect, old.effect) && covers(rule, old))
  if (still !== undefined) return { still: still.rule }
  return rules.some(({ rule }) => rule === old.rule) ? 'changed' : 'gone'
}

function isAsLenient(effect: Effect, than: Effect): boolean {
  return effect !== 'deny' && LENIENCE.indexOf(effect) <= LENIENCE.indexOf(than)
}

function covers(wide: ReviewRule, narrow: ReviewRule): boolean {
  if (wide.when !== undefined && wide.when !== narrow.when) return false
  return Object.entries(wide.match).every(([key, words]) => {
    const asked = narrow.match[key]
    return asked?.every((word) => words.includes(word) || words.includes('*')) ?? false
  })
}
