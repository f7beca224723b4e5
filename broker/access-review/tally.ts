/**
 * What one pass over the ledger remembers: counts for each principal, never the entries. Every collection is bounded
 * (bounds.ts), and knows when its bound cut something.
 */
import type { Facts } from '../../shared/policy/facts.ts'
import type { Held, PrincipalId, ReviewScope, Tally } from '../../shared/access-review-wire.ts'
import { PROCESS_LEVEL } from '../identity/naming.ts'
import {
  MAX_ALL_RULES_USED,
  MAX_APPROVERS,
  MAX_FACES,
  MAX_FACES_LENGTH,
  MAX_HELD,
  MAX_POLICIES,
  MAX_PRINCIPALS,
  MAX_REVIEWS,
  MAX_RULES_USED,
  MAX_TOKENS,
  MAX_USES,
  MAX_USES_LENGTH,
  MAX_WORDS_USED,
} from './bounds.ts'
import type { ReadApproval, ReadEntry, ReadIntent, ReadRefusal } from './entries.ts'
import { kindOf, rowOf, wordsOf } from './requests.ts'
import type { RequestRow, RequestWords } from './requests.ts'

/** A form in which a principal was seen: everything that rules ask about a caller. */
export type Face = Omit<Facts, 'request'>

type Mutable<T> = { -readonly [K in keyof T]: T[K] }
/** Counts that grow. */
export type Counts = Mutable<Tally>

/** What came of one rule for one principal. */
export interface RuleUse {
  readonly counts: Counts
  readonly words: Record<keyof RequestWords, Set<string>>
  readonly approvers: Set<string>
}

/** What bounds can cut of a principal. */
export type Cut = 'uses' | 'rules' | 'words' | 'faces' | 'held' | 'reviews' | 'approvers' | 'tokens'

/** One principal as the pass saw it. */
export interface PrincipalTally extends Omit<PrincipalId, 'owners' | 'tokens'> {
  readonly tokens: Set<string>
  readonly counts: Counts
  unread: number
  readonly uses: Map<string, { readonly row: RequestRow; readonly counts: Counts }>
  readonly rules: Map<string, RuleUse>
  readonly faces: Map<string, Face>
  readonly held: Held[]
  readonly cut: Set<Cut>
}

/** No request yet. */
export function noCounts(): Counts {
  return { done: 0, held: 0, denied: 0, breakGlass: 0 }
}

/** Adds counts to others. */
export function addCounts(sum: Counts, more: Tally): void {
  sum.done += more.done
  sum.held += more.held
  sum.denied += more.denied
  sum.breakGlass += more.breakGlass
  for (const at of [more.first, more.last]) if (at !== undefined) spread(sum, at)
}

/** See the head of the file. */
export class LedgerTally {
  readonly principals = new Map<string, PrincipalTally>()
  /** Requests by the policy that decided on them, in the order of their first. */
  readonly policies = new Map<string, number>()
  /** Entries in the scope. */
  matched = 0
  /** Entries of principals that were too many. */
  beyond = 0
  /** What people said of requests that the pass did not see being held. */
  strayReviews = 0
  readonly #scope: ReviewScope
  readonly #held = new Map<string, { readonly principal: PrincipalTally; readonly held: Held }>()
  #usesLength = 0
  #rules = 0
  #facesLength = 0

  constructor(scope: ReviewScope) {
    this.#scope = scope
  }

  /** Takes an entry. @param at - when it was written, RFC 3339 */
  add(entry: ReadEntry, at: string): void {
    if (entry.kind === 'intent') this.#intent(entry, at)
    else if (entry.kind === 'refusal') this.#refusal(entry, at)
    else if (entry.kind === 'approval') this.#approval(entry, at)
  }

  #intent(intent: ReadIntent, at: string): void {
    if (!intentInScope(this.#scope, intent)) return
    this.matched += 1
    const digest = intent.decision.policyDigest
    if (this.policies.has(digest) || this.policies.size < MAX_POLICIES)
      this.policies.set(digest, (this.policies.get(digest) ?? 0) + 1)
    const principal = this.#principal(principalOf(intent))
    if (principal === undefined) return
    const { oidc } = intent
    if (oidc !== undefined && intent.agent !== undefined)
      bounded(principal, 'tokens', principal.tokens, oidc.name, MAX_TOKENS)
    const kind = kindOf(intent)
    count(principal.counts, kind, at)
    this.#use(principal, intent, kind, at)
    this.#face(principal, intent)
    for (const rule of new Set(intent.decision.rules)) this.#rule(principal, rule, intent, at)
    if (kind === 'held' || kind === 'breakGlass') this.#hold(principal, intent, at)
  }

  #use(principal: PrincipalTally, intent: ReadIntent, kind: CountKind, at: string): void {
    const row = rowOf(intent)
    const key = JSON.stringify(row)
    let use = principal.uses.get(key)
    if (use === undefined) {
      if (principal.uses.size >= MAX_USES || this.#usesLength + key.length > MAX_USES_LENGTH) {
        principal.cut.add('uses')
        return
      }
      this.#usesLength += key.length
      use = { row, counts: noCounts() }
      principal.uses.set(key, use)
    }
    count(use.counts, kind, at)
  }

  #rule(principal: PrincipalTally, id: string, intent: ReadIntent, at: string): void {
    let use = principal.rules.get(id)
    if (use === undefined) {
      if (principal.rules.size >= MAX_RULES_USED || this.#rules >= MAX_ALL_RULES_USED) {
        principal.cut.add('rules')
        return
      }
      this.#rules += 1
      const words = { verbs: new Set<string>(), actions: new Set<string>() }
      use = {
        counts: noCounts(),
        words: { ...words, resources: new Set() },
        approvers: new Set(),
      }
      principal.rules.set(id, use)
    }
    count(use.counts, kindOf(intent), at)
    const { verbs, actions, resources } = wordsOf(intent)
    for (const word of verbs) bounded(principal, 'words', use.words.verbs, word, MAX_WORDS_USED)
    for (const word of actions) bounded(principal, 'words', use.words.actions, word, MAX_WORDS_USED)
    for (const word of resources)
      bounded(principal, 'words', use.words.resources, word, MAX_WORDS_USED)
    for (const approver of approversOf(intent))
      bounded(principal, 'approvers', use.approvers, approver, MAX_APPROVERS)
  }

  #face(principal: PrincipalTally, intent: ReadIntent): void {
    const face = faceOf(intent)
    const key = JSON.stringify(face)
    if (principal.faces.has(key)) return
    const isFull = this.#facesLength + key.length > MAX_FACES_LENGTH
    if (principal.faces.size >= MAX_FACES || isFull) {
      principal.cut.add('faces')
      return
    }
    this.#facesLength += key.length
    principal.faces.set(key, face)
  }

  #hold(principal: PrincipalTally, intent: ReadIntent, at: string): void {
    const { requestId, request, decision } = intent
    if (this.#held.has(requestId)) return
    if (this.#held.size >= MAX_HELD) {
      principal.cut.add('held')
      return
    }
    const breakGlass = kindOf(intent) === 'breakGlass'
    const { cluster, namespace, verb, resource } = rowOf(intent)
    const held: Held = {
      ...{ requestId, at, cluster, namespace, verb, resource },
      ...{ name: request.name, rules: [...decision.rules] },
      ...{ breakGlass, state: breakGlass ? 'EXECUTING' : 'PENDING', reviews: [] },
    }
    principal.held.push(held)
    this.#held.set(requestId, { principal, held })
  }

  #refusal({ cluster, subject }: ReadRefusal, at: string): void {
    const scope = this.#scope
    if (scope.namespace !== undefined || scope.agent !== undefined) return
    if (!isWanted(scope.cluster, cluster) || !isWanted(scope.subject, subject.name)) return
    this.matched += 1
    const principal = this.#principal(principalOf({ subject }))
    if (principal === undefined) return
    principal.unread += 1
    spread(principal.counts, at)
  }

  #approval({ requestId, to, actor, reason, review }: ReadApproval, at: string): void {
    const known = this.#held.get(requestId)
    if (known === undefined) {
      if (review !== undefined) this.strayReviews += 1
      return
    }
    this.matched += 1
    const { principal, held } = known
    held.state = to
    if (review === undefined) return
    const { verdict } = review
    if (held.reviews.length < MAX_REVIEWS)
      held.reviews.push({ reviewer: actor, verdict, reason, at })
    else principal.cut.add('reviews')
    if (verdict !== 'approve') return
    for (const rule of held.rules) {
      const use = principal.rules.get(rule)
      if (use !== undefined) bounded(principal, 'approvers', use.approvers, actor, MAX_APPROVERS)
    }
  }

  #principal(id: Pick<PrincipalTally, 'kind' | 'name' | 'subject'>): PrincipalTally | undefined {
    const key = JSON.stringify([id.kind, id.name, id.subject])
    const known = this.principals.get(key)
    if (known !== undefined) return known
    if (this.principals.size >= MAX_PRINCIPALS) {
      this.beyond += 1
      return undefined
    }
    const fresh: PrincipalTally = {
      ...{ ...id, tokens: new Set(), counts: noCounts(), unread: 0 },
      ...{ uses: new Map(), rules: new Map(), faces: new Map(), held: [], cut: new Set() },
    }
    this.principals.set(key, fresh)
    return fresh
  }
}

/** What becomes of a request, as it is counted. */
type CountKind = ReturnType<typeof kindOf>

function count(counts: Counts, kind: CountKind, at: string): void {
  if (kind === 'breakGlass') counts.done += 1
  counts[kind] += 1
  spread(counts, at)
}

/** Clocks may go back, and sums are made in any order. */
function spread(counts: Counts, at: string): void {
  if (counts.first === undefined || at < counts.first) counts.first = at
  if (counts.last === undefined || at > counts.last) counts.last = at
}

function bounded(
  { cut }: PrincipalTally,
  name: Cut,
  set: Set<string>,
  value: string,
  most: number,
): void {
  if (set.has(value)) return
  if (set.size < most) set.add(value)
  else cut.add(name)
}

function approversOf({ approval }: ReadIntent): readonly string[] {
  if (approval === undefined) return []
  const all = approval.approvers.length > 0 ? approval.approvers : [approval.reviewer]
  return all.filter((one) => one !== '')
}

function isWanted(wanted: string | undefined, value: string): boolean {
  return wanted === undefined || wanted === value
}

function intentInScope(
  scope: ReviewScope,
  { cluster, request, agent, subject, oidc }: ReadIntent,
): boolean {
  return (
    isWanted(scope.cluster, cluster) &&
    isWanted(scope.namespace, request.namespace) &&
    isWanted(scope.agent, agent ?? '') &&
    (isWanted(scope.subject, subject.name) || scope.subject === oidc?.name)
  )
}

function principalOf({
  agent,
  subject,
}: Pick<ReadIntent, 'subject'> & { readonly agent?: string | undefined }): Pick<
  PrincipalTally,
  'kind' | 'name' | 'subject'
> {
  const { type, name } = subject
  if (agent !== undefined) return { kind: 'agent', name: agent, subject: name }
  return { kind: type === 'serviceAccount' ? 'serviceAccount' : 'subject', name, subject: name }
}

/** What rules saw of the caller. */
function faceOf(intent: ReadIntent): Face {
  const { cluster, oidc } = intent
  return {
    cluster,
    process: processOf(intent),
    subject: oidc && { name: oidc.name, groups: oidc.groups, ci: oidc.ci },
  }
}

/** Of the executable only what was proved (as in broker/gateway/requester.ts). */
function processOf({ subject, agent, chain, container, tag }: ReadIntent): Face['process'] {
  if (agent === undefined || tag === undefined) return undefined
  const [, , namespace = '', serviceAccount = ''] = subject.name.split(':')
  const proved = PROCESS_LEVEL.has(tag.verdict) ? tag.verified : undefined
  return {
    ...{ verdict: tag.verdict, namespace, serviceAccount, agent, ancestors: chain },
    ...{ exe: proved?.exe, sha256: proved?.exeSha256, uid: proved?.uid },
    ...{ container: container?.name, image: container?.image },
  }
}
