/** What must be true of ledger, clients' records and the cluster's audit log after a broker was killed again and again. */
import { BROKER_ACCOUNT, BROKER_NAMESPACE } from '../../cli/connect/impersonation.ts'
import type { Store } from '../../broker/store/store.ts'
import { wholeLedger } from '../support/whole-ledger.ts'
import type { AuditEvent } from '../modes/running.ts'
import type { Seen } from './clients.ts'

/** Verbs that change something, as the audit log has them. */
const WRITES: ReadonlySet<string> = new Set([
  ...['create', 'update', 'patch', 'delete', 'deletecollection'],
])
const CONNECTS: ReadonlySet<string> = new Set(['exec', 'attach', 'portforward', 'proxy'])
const LEAVES_AT_ONCE = 4096
const BROKER_USER = `system:serviceaccount:${BROKER_NAMESPACE}:${BROKER_ACCOUNT}`

/** An event of the cluster's audit log, as far as it is needed here. */
export interface ClusterEvent extends AuditEvent {
  readonly requestReceivedTimestamp: string
  readonly objectRef?: { readonly subresource?: string }
}

/** Of an entry what is looked at. */
interface Entry {
  readonly kind: string
  readonly time: string
  readonly requestId?: string
  readonly credential?: { readonly user: string }
  readonly detail?: { readonly auditId?: string }
}

/** A ledger, read whole. */
export interface ReadLedger {
  readonly size: number
  readonly intents: ReadonlyMap<string, Entry>
  /** Ids of all that says something of a request. */
  readonly told: ReadonlySet<string>
  /** The entries as the broker shows them, with the names of people, by sequence number. */
  readonly shown: ReadonlyMap<number, object>
  readonly problems: readonly string[]
}

/** Reads all leaves, and compares sequence and tree with what the store says of itself. */
export async function readLedger(store: Store): Promise<ReadLedger> {
  const { leaves, problems } = await wholeLedger(store)
  const [intents, outcomes] = [new Map<string, Entry>(), new Set<string>()]
  const told = new Set<string>()
  for (const { bytes } of leaves) {
    const entry = JSON.parse(Buffer.from(bytes).toString()) as Entry
    const { kind, requestId = entry.detail?.auditId, credential } = entry
    if (requestId === undefined) continue
    told.add(requestId)
    if (kind === 'intent' && credential !== undefined) {
      if (intents.has(requestId)) problems.push(`two intents of ${requestId}`)
      intents.set(requestId, entry)
    }
    if (kind === 'outcome') {
      if (outcomes.has(requestId)) problems.push(`two outcomes of ${requestId}`)
      outcomes.add(requestId)
    }
  }
  return { size: leaves.length, intents, told, shown: await shownEntries(store), problems }
}

async function shownEntries(store: Store): Promise<ReadonlyMap<number, object>> {
  const shown = new Map<number, object>()
  for (let before: number | undefined; ;) {
    const events = await store.events({}, LEAVES_AT_ONCE, before)
    for (const { seq, entry } of events) shown.set(seq, entry)
    before = events.at(-1)?.seq
    if (before === undefined) return shown
  }
}

/** Each effect that the cluster saw has its intent, written before it. @returns problems, and how many calls of ours there were */
export function checkCluster(
  { intents, told }: ReadLedger,
  events: readonly ClusterEvent[],
): { readonly problems: readonly string[]; readonly calls: number; readonly effects: number } {
  const problems: string[] = []
  let [calls, effects] = [0, 0]
  for (const event of events) {
    if (!isOurs(event)) continue
    calls += 1
    if (!hasEffect(event)) continue
    effects += 1
    const { auditID, verb, requestURI, requestReceivedTimestamp } = event
    const intent = intents.get(auditID)
    // what a reviewer is shown is tried out first, and written down with the approval
    const isTrial = requestURI.includes('dryRun=All')
    if (intent === undefined) {
      if (!isTrial) problems.push(`${verb} ${requestURI} ${auditID} has no intent`)
      else if (told.has(auditID)) effects -= 1
    } else if (intent.time > requestReceivedTimestamp)
      problems.push(`the intent of ${auditID} is of ${intent.time}: ${requestReceivedTimestamp}`)
  }
  return { problems, calls, effects }
}

/** What clients were answered, and what the auditor was shown, is there. */
export function checkSeen(
  { intents, told, shown: kept }: ReadLedger,
  { answered, shown }: Seen,
): readonly string[] {
  const problems: string[] = []
  const ids = new Set<string>()
  for (const answer of answered) {
    const { deed, status, requestId, reason } = answer
    const what = `${deed} ${status} ${reason ?? ''} ${requestId}`
    if (reason === 'ledger_unavailable') continue
    if (requestId === '') problems.push(`an answer without an id: ${what}`)
    else if (ids.has(requestId)) problems.push(`two answers of one id: ${what}`)
    else if (reason === undefined ? !intents.has(requestId) : !told.has(requestId))
      problems.push(`an answer that the ledger does not know: ${what}`)
    ids.add(requestId)
  }
  for (const [seq, text] of shown) {
    if (canonical(kept.get(seq)) !== canonical(JSON.parse(text)))
      problems.push(`entry ${seq} was shown as ${text}`)
  }
  return problems
}

function canonical(value: unknown): string {
  return JSON.stringify([sorted(value)])
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, part]) => [key, sorted(part)]),
  )
}

function isOurs({ user, impersonatedUser }: ClusterEvent): boolean {
  const name = user.username ?? ''
  if (name === BROKER_USER) return impersonatedUser !== undefined
  return name.startsWith('nestgate:') && name !== 'nestgate:broker'
}

function hasEffect({ verb, objectRef }: ClusterEvent): boolean {
  return WRITES.has(verb) || CONNECTS.has(objectRef?.subresource ?? '')
}
