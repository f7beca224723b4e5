/**
 * What a cluster's audit policy (audit.k8s.io/v1 Policy) writes down of a call. Source of the rules: kubernetes/apiserver,
 * pkg/audit/policy/checker.go. Where a rule depends on what is not known here (groups), a call counts as written down: it is then told as
 * missing rather than excused.
 */
import { parse } from 'yaml'
import { z } from 'zod'
import type { Intent } from './facts.ts'

const texts = z.array(z.string()).nullish()
const ruleSchema = z.object({
  level: z.enum(['None', 'Metadata', 'Request', 'RequestResponse']),
  users: texts,
  userGroups: texts,
  verbs: texts,
  resources: z
    .array(z.object({ group: z.string().nullish(), resources: texts, resourceNames: texts }))
    .nullish(),
  namespaces: texts,
  nonResourceURLs: texts,
})
const policySchema = z.object({ kind: z.literal('Policy'), rules: z.array(ruleSchema) })
type Rule = z.infer<typeof ruleSchema>
type ResourceRule = NonNullable<Rule['resources']>[number]

/** What of a call its rules look at. */
export type JudgedCall = Pick<Intent, 'facts' | 'auditUser' | 'isResource'>

/** Every authenticated user's group: the only one that is known. */
const EVERYBODY = 'system:authenticated'

/** @returns whether such a call is written down; undefined where the text is no audit policy */
export function readAuditPolicy(text: string): ((call: JudgedCall) => boolean) | undefined {
  const policy = policySchema.safeParse(parseYaml(text))
  if (!policy.success) return undefined
  const { rules } = policy.data
  return (call) => {
    // of a question for a reviewer too little is known
    if (call.facts.verb === undefined) return true
    for (const rule of rules) {
      const isNone = rule.level === 'None'
      const who = matchesUser(rule, call)
      const isMatch = who === 'unknown' ? !isNone : who === 'yes'
      if (isMatch && matchesCall(rule, call)) return !isNone
    }
    return false
  }
}

function parseYaml(text: string): unknown {
  try {
    return parse(text)
  } catch {
    return undefined
  }
}

function matchesUser(
  { users, userGroups }: Rule,
  { auditUser }: JudgedCall,
): 'yes' | 'no' | 'unknown' {
  if (given(users) && auditUser !== undefined && !users.includes(auditUser)) return 'no'
  const isUserKnown = !given(users) || auditUser !== undefined
  const isGroupKnown = !given(userGroups) || userGroups.includes(EVERYBODY)
  return isUserKnown && isGroupKnown ? 'yes' : 'unknown'
}

function matchesCall(rule: Rule, { facts, isResource }: JudgedCall): boolean {
  const { verbs, namespaces, resources, nonResourceURLs } = rule
  if (given(verbs) && !verbs.includes(facts.verb ?? '')) return false
  if (given(namespaces) || given(resources)) return isResource && matchesObject(rule, facts)
  if (!given(nonResourceURLs)) return true
  return !isResource && nonResourceURLs.some((pattern) => matchesPath(pattern, facts.path ?? ''))
}

function matchesObject({ namespaces, resources }: Rule, facts: JudgedCall['facts']): boolean {
  if (given(namespaces) && !namespaces.includes(facts.namespace ?? '')) return false
  return !given(resources) || resources.some((resource) => matchesResource(resource, facts))
}

function matchesResource(rule: ResourceRule, facts: JudgedCall['facts']): boolean {
  const { apiGroup = '', resource = '', subresource = '', name = '' } = facts
  if ((rule.group ?? '') !== apiGroup) return false
  if (!given(rule.resources)) return true
  if (given(rule.resourceNames) && !rule.resourceNames.includes(name)) return false
  const combined = subresource === '' ? resource : `${resource}/${subresource}`
  return rule.resources.some(
    (pattern) =>
      pattern === '*' ||
      pattern === combined ||
      (subresource !== '' && pattern === `*/${subresource}`) ||
      pattern === `${resource}/*`,
  )
}

function matchesPath(pattern: string, path: string): boolean {
  return pattern.endsWith('*') ? path.startsWith(pattern.slice(0, -1)) : pattern === path
}

function given<T>(list: readonly T[] | null | undefined): list is readonly T[] {
  return list !== null && list !== undefined && list.length > 0
}
