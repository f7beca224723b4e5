/** The principals of a report: those that the ledger has, those that are registered, and those that the policy names. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type {
  Access,
  AccessReport,
  Principal,
  ReviewScope,
  Tally,
} from '../../shared/access-review-wire.ts'
import { BUILTIN_PREFIX } from '../../shared/policy/language.ts'
import type { PolicySet } from '../../shared/policy/policy-set.ts'
import type { Registration } from '../identity/registrations.ts'
import { MAX_ACCESS, MAX_PRINCIPALS } from './bounds.ts'
import { uncut } from './entries.ts'
import { isResource } from './requests.ts'
import type { Standing, StandingRule } from './standing.ts'
import { addCounts, noCounts } from './tally.ts'
import type { Cut, LedgerTally, PrincipalTally, RuleUse } from './tally.ts'

/** An agent of the configuration. */
export type Registered = Pick<Registration, 'name' | 'owners'>

/** What principals are described by. */
export interface Described {
  readonly tally: LedgerTally
  readonly policy: PolicySet
  readonly scope: ReviewScope
  readonly registrations: readonly Registered[]
  readonly standing: Standing
}

/** What comes of it. */
export interface Principals extends Pick<AccessReport, 'principals' | 'unusedRules'> {
  /** Pairs of principal and rule that were left out. */
  readonly accessCut: number
}

/** What bounds leave out, as a reader is told. */
const CUT_TEXTS: Readonly<Record<Cut, string>> = {
  uses: 'it made more kinds of requests than are listed; the totals have all of them',
  rules:
    'more rules decided on its requests than are told apart; what is shown as unused may have been used',
  words:
    'it used more different verbs or resources of a rule than are told apart; unused words of that rule are not listed',
  faces: 'it was seen in more forms than are told apart; rules that apply to it may be missing',
  held: 'more requests were held than are followed; the totals have all of them',
  reviews: 'one of its requests was reviewed by more people than are listed',
  approvers: 'more people approved its requests than are listed',
  tokens: 'it sent along tokens of more subjects than are listed',
}

/** Describes them, those with most requests first. Gives other work its turn between two of them. */
export async function describePrincipals(from: Described): Promise<Principals> {
  const { standing } = from
  const granting = standing.rules.filter(({ denies }) => !denies)
  const known = new Set(from.policy.rules.map(({ id }) => id))
  const seen = [...from.tally.principals.values()]
  const silent = silentPrincipals(from, seen)
  const appliesTo = new Map<StandingRule, number>()
  const used = new Set<string>()
  const owners = ownersOf(from.registrations)
  const principals: Principal[] = []
  let access = 0
  let accessCut = 0
  for (const tally of [...seen, ...silent]) {
    const rules = ruleUses(tally, known)
    for (const [id, { counts }] of rules) if (counts.done + counts.held > 0) used.add(id)
    const rows = accessOf(standing, granting, tally, rules)
    for (const { rule } of rows) appliesTo.set(rule, (appliesTo.get(rule) ?? 0) + 1)
    const kept = rows.slice(0, Math.max(0, MAX_ACCESS - access))
    access += kept.length
    accessCut += rows.length - kept.length
    principals.push(
      principalOf(from, tally, { owners, rules, known, access: kept.map((row) => row.access) }),
    )
    await nextTurn()
  }
  principals.sort((a, b) => requestsOf(b.requests) - requestsOf(a.requests) || byName(a, b))
  const unusedRules = granting
    .filter(({ rule }) => !used.has(rule.rule))
    .map((one) => ({ ...one.rule, principals: appliesTo.get(one) ?? 0 }))
  return { principals, unusedRules, accessCut }
}

function requestsOf({ done, held, denied }: Tally): number {
  return done + held + denied
}

function byName(a: Principal, b: Principal): number {
  const [one, other] = [a, b].map(({ kind, name, subject }) => [kind, name, subject].join('\n'))
  return (one ?? '') < (other ?? '') ? -1 : 1
}

function ownersOf(registrations: readonly Registered[]): ReadonlyMap<string, readonly string[]> {
  const owners = new Map<string, string[]>()
  for (const { name, owners: own = [] } of registrations)
    owners.set(name, [...new Set([...(owners.get(name) ?? []), ...own])])
  return owners
}

/** Principals by name of which the period has nothing: registered, or named by a rule without a star. */
function silentPrincipals(
  { policy, registrations, scope }: Described,
  seen: readonly PrincipalTally[],
): readonly PrincipalTally[] {
  const namesOf = (key: 'agents' | 'subjects'): string[] =>
    policy.rules.flatMap(({ match }) => match[key] ?? []).filter((word) => !word.includes('*'))
  const agents = new Set([...registrations.map(({ name }) => name), ...namesOf('agents')])
  const has = (kind: string, name: string): boolean =>
    seen.some((one) => one.kind === kind && one.name === name)
  const silent = [
    ...(scope.subject === undefined
      ? [...agents]
          .filter((name) => scope.agent === undefined || scope.agent === name)
          .filter((name) => !has('agent', name))
          .map((name) => silentPrincipal('agent', name, ''))
      : []),
    ...(scope.agent === undefined
      ? [...new Set(namesOf('subjects'))]
          .filter((name) => scope.subject === undefined || scope.subject === name)
          .filter((name) => !has('subject', name))
          .map((name) => silentPrincipal('subject', name, name))
      : []),
  ]
  return silent.slice(0, Math.max(0, MAX_PRINCIPALS - seen.length))
}

function silentPrincipal(kind: 'agent' | 'subject', name: string, subject: string): PrincipalTally {
  return {
    ...{ kind, name, subject, tokens: new Set(), counts: noCounts(), unread: 0 },
    ...{ uses: new Map(), rules: new Map(), faces: new Map(), held: [], cut: new Set() },
  }
}

/** What came of rules, by their whole ids: entries that were cut to fit may have cut those, too. */
function ruleUses(
  { rules }: PrincipalTally,
  known: ReadonlySet<string>,
): ReadonlyMap<string, RuleUse> {
  const uses = new Map<string, RuleUse>()
  for (const [id, use] of rules) {
    if (id.startsWith(BUILTIN_PREFIX)) continue
    const whole = uncut(id, known)
    const other = uses.get(whole)
    uses.set(whole, other === undefined ? use : merged(other, use))
  }
  return uses
}

function merged(one: RuleUse, other: RuleUse): RuleUse {
  const counts = noCounts()
  addCounts(counts, one.counts)
  addCounts(counts, other.counts)
  const both = (key: keyof RuleUse['words']): Set<string> => one.words[key].union(other.words[key])
  return {
    counts,
    words: { verbs: both('verbs'), actions: both('actions'), resources: both('resources') },
    approvers: one.approvers.union(other.approvers),
  }
}

function accessOf(
  standing: Standing,
  granting: readonly StandingRule[],
  tally: PrincipalTally,
  uses: ReadonlyMap<string, RuleUse>,
): readonly { readonly rule: StandingRule; readonly access: Access }[] {
  const known = { kind: tally.kind, name: tally.name, faces: [...tally.faces.values()] }
  return granting.flatMap((rule) => {
    const use = uses.get(rule.rule.rule)
    // What a rule let through it applied to, whatever was not told apart or has changed since.
    const applies =
      standing.applies(rule, known) ??
      (use === undefined ? undefined : ({ applies: 'might', unseen: [] } as const))
    if (applies === undefined) return []
    const access: Access = {
      ...rule.rule,
      ...applies,
      uses: use?.counts ?? noCounts(),
      approvers: [...(use?.approvers ?? [])],
      unused: unusedWords(rule.rule, use, tally.cut.has('words')),
    }
    return [{ rule, access }]
  })
}

/** Words that a rule lists and that no request came under; stars are not told apart. */
function unusedWords(
  { match }: StandingRule['rule'],
  use: RuleUse | undefined,
  isCut: boolean,
): Access['unused'] {
  // a rule that was not used is unused as a whole
  if (use === undefined || isCut) return { verbs: [], actions: [], resources: [] }
  const { verbs, actions, resources } = use.words
  const left = (words: readonly string[] = [], isUsed: (word: string) => boolean): string[] =>
    words.filter((word) => word !== '*' && !isUsed(word))
  return {
    verbs: left(match['verbs'], (word) => verbs.has(word)),
    actions: left(match['actions'], (word) => actions.has(word)),
    resources: left(match['resources'], (word) =>
      [...resources].some((resource) => isResource(word, resource)),
    ),
  }
}

function principalOf(
  { standing }: Described,
  tally: PrincipalTally,
  {
    owners,
    rules,
    known,
    access,
  }: {
    readonly owners: ReadonlyMap<string, readonly string[]>
    readonly rules: ReadonlyMap<string, RuleUse>
    readonly known: ReadonlySet<string>
    readonly access: Access[]
  },
): Principal {
  const { kind, name, subject, tokens, counts, unread, uses, faces, held, cut } = tally
  const about = { kind, name, faces: [...faces.values()] }
  const limits = standing.rules
    .filter((rule) => rule.denies && standing.applies(rule, about)?.applies === 'applies')
    .map(({ rule }) => rule.rule)
  return {
    ...{ kind, name, subject, tokens: [...tokens], unread, access, limits },
    owners: kind === 'agent' ? [...(owners.get(name) ?? [])] : [],
    seen: counts.last !== undefined,
    requests: counts,
    uses: [...uses.values()]
      .map(({ row, counts: own }) => ({ ...row, ...own }))
      .sort((a, b) => requestsOf(b) - requestsOf(a)),
    held,
    removed: [...rules]
      .filter(([id]) => !known.has(id))
      .map(([rule, use]) => ({ rule, uses: use.counts })),
    cut: [...cut].map((one) => CUT_TEXTS[one]),
  }
}
