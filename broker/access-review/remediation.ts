/** What shows that a revocation was carried out: the policy in force, and a request that it refused. */
import type { CampaignItem, RemediateItem } from '../../shared/access-review-wire.ts'
import type { PolicySet } from '../../shared/policy/policy-set.ts'
import { isRefusal, refuse } from '../../shared/reasons.ts'
import type { Refusal } from '../../shared/reasons.ts'
import type { Store } from '../store/store.ts'
import { readEntry } from './entries.ts'
import type { ReadIntent } from './entries.ts'
import { isResource, wordsOf } from './requests.ts'
import { leftOf, reviewRule } from './rules.ts'

/** Intents of one request that are looked at. */
const MAX_INTENTS = 10

/**
 * Checks what a person says of a revocation.
 *
 * @param before - digest of the policy that the campaign was opened under
 * @returns what became of the rule
 */
export async function checkRemediation(
  { store, policy }: { readonly store: Pick<Store, 'events'>; readonly policy: PolicySet },
  item: CampaignItem,
  { policyDigest, requestId }: RemediateItem,
  before: string,
): Promise<{ readonly rule: 'gone' | 'changed' } | Refusal> {
  if (policyDigest !== policy.digest)
    return unproved(`the policy in force has the digest ${policy.digest}`)
  if (policyDigest === before) return unproved('the policy is still the one of the campaign')
  const left = leftOf(item.access, policy.rules.map(reviewRule))
  if (typeof left !== 'string')
    return unproved(`rule "${left.still}" still lets through all that was to be revoked`)
  const shown =
    requestId === undefined ? undefined : await refused(store, item, policyDigest, requestId)
  return shown !== undefined && isRefusal(shown) ? shown : { rule: left }
}

/** Whether a request that was refused under the policy shows something about the item. */
async function refused(
  store: Pick<Store, 'events'>,
  item: CampaignItem,
  policyDigest: string,
  requestId: string,
): Promise<Refusal | undefined> {
  const events = await store.events({ requestId, kind: 'intent', effect: 'deny' }, MAX_INTENTS)
  const intents = events
    .map(({ entry }) => readEntry(entry))
    .filter((entry): entry is ReadIntent => entry?.kind === 'intent')
  if (!intents.some(({ decision }) => decision.policyDigest === policyDigest))
    return unproved('the ledger has no such request that was refused under this policy')
  return intents.some((intent) => isOf(item, intent) && isAbout(item, intent))
    ? undefined
    : unproved('the refused request is another principal’s, or about something else')
}

function isOf({ principal }: CampaignItem, { agent, subject }: ReadIntent): boolean {
  const { kind, name, subject: user } = principal
  if (kind === 'nobody') return true
  if (kind !== 'agent') return agent === undefined && subject.name === name
  return agent === name && (user === '' || subject.name === user)
}

function isAbout({ access }: CampaignItem, intent: ReadIntent): boolean {
  const { verbs, resources, actions } = access.match
  const words = wordsOf(intent)
  const any = (asked: readonly string[] | undefined, test: (word: string) => boolean): boolean =>
    asked?.some((word) => word === '*' || test(word)) ?? true
  return (
    any(verbs, (word) => words.verbs.includes(word)) &&
    any(actions, (word) => words.actions.includes(word)) &&
    any(resources, (word) => words.resources.some((resource) => isResource(word, resource)))
  )
}

function unproved(detail: string): Refusal {
  return refuse('remediation_unproved', detail)
}
