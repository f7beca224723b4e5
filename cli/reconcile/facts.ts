/**
 * What ledger and cluster say of one request, in the same words, and where the two differ. Both sides are outside input: whoever wrote the
 * files may have wanted to be overlooked.
 */

/** What was called. Empty texts stand for "none", as in the API server's own reading of a request. */
export interface CalledFacts {
  readonly verb: string
  readonly apiGroup: string
  readonly resource: string
  readonly subresource: string
  readonly namespace: string
  readonly name: string
  /** Path without query; compared for calls outside the resource API only, where it is all there is. */
  readonly path: string
  /** Who acted, in the cluster's eyes. */
  readonly user: string
}

/** An event of the cluster's audit log. */
export interface Call {
  /** `ours`: a request that the broker forwarded, by its credential; `own`: the broker's own questions; `other`: everybody else's. */
  readonly who: 'ours' | 'own' | 'other'
  /** Request id: as the credential says it, else the Audit-ID. */
  readonly id: string
  readonly auditId: string
  /** Microseconds since the epoch, by the cluster's clock: when the request came, and when this event was made. */
  readonly receivedUs: number
  readonly atUs: number
  /** Whether it is the last event of its request (ResponseComplete, Panic). */
  readonly isLast: boolean
  readonly stage: string
  readonly facts: CalledFacts
  /** HTTP status, where the event knows it. */
  readonly status: number | undefined
  /** Path with query, for people. */
  readonly uri: string
}

/** A request that the ledger says was forwarded, or a question in the caller's name for a reviewer. */
export interface Intent {
  readonly kind: 'intent' | 'preview'
  readonly id: string
  readonly seq: number
  /** Microseconds since the epoch, by the broker's clock. */
  readonly atUs: number
  /** Of a preview only the path is known; what is undefined is not compared. */
  readonly facts: Partial<CalledFacts>
  /** Name of the object by path or body; ends with `*` where the API server makes the rest. */
  readonly objectName: string
  readonly isResource: boolean
  /** Whose call the cluster's audit policy sees; in mode `impersonation` it is the broker's own account, which no entry names. */
  readonly auditUser: string | undefined
  /** Path with query, for people. */
  readonly uri: string
}

/** How a request ended, by the ledger. */
export interface Outcome {
  readonly atUs: number
  readonly status: number
  /** Why the answer is not the API server's, or not complete. */
  readonly reason: string | undefined
}

/** A fact that differs. */
export interface Difference {
  readonly field: keyof CalledFacts | 'status' | 'auditId'
  readonly ledger: string
  readonly cluster: string
}

/** What stands in an entry where a too long text was cut (broker/ledger/serialize.ts). */
const CUT = '…[cut: '
const ANY = '*'
const COMPARED = ['verb', 'apiGroup', 'resource', 'subresource', 'namespace'] as const
/** A person's name in the bytes of an entry (broker/ledger/personal.ts), alone or behind the prefix of mode `issuer`. */
const PSEUDONYM = /^((?:nestgate:subject:)?)personal:[\w-]{43}$/
/** Service accounts, and whatever else is the cluster's own, have no pseudonym. */
const SYSTEM = 'system:'
/** Pseudonyms that are remembered. */
const MAX_PEOPLE = 100_000

/** Who was seen behind a pseudonym: it is of one person alone, and a person may have several. */
export type People = Map<string, string>

/** Where the two differ. @param outcome - compared by its status, where it is the API server's own. @param people - is added to */
export function differences(
  intent: Intent,
  outcome: Outcome | undefined,
  call: Call,
  people: People,
): readonly Difference[] {
  const found: Difference[] = []
  const compare = (
    field: Difference['field'],
    ledger: string | undefined,
    cluster: string,
    isSame = sameText,
  ): void => {
    if (ledger !== undefined && !isSame(ledger, cluster)) found.push({ field, ledger, cluster })
  }
  for (const field of COMPARED) compare(field, intent.facts[field], call.facts[field])
  compare('user', intent.facts.user, call.facts.user, (ledger, cluster) =>
    sameUser(ledger, cluster, people),
  )
  compare('name', intent.facts.name, call.facts.name, (ledger, cluster) =>
    sameName(ledger, cluster, intent),
  )
  if (!intent.isResource) compare('path', intent.facts.path, call.facts.path, samePath)
  if (call.auditId !== call.id) compare('auditId', call.id, call.auditId)
  if (outcome !== undefined && isOwnAnswer(outcome) && call.isLast && call.status !== undefined)
    compare('status', String(outcome.status), String(call.status))
  return found
}

function isOwnAnswer({ status, reason }: Outcome): boolean {
  return status !== 0 && reason === undefined
}

function sameText(ledger: string, cluster: string): boolean {
  const cut = ledger.lastIndexOf(CUT)
  return cut < 0 ? ledger === cluster : cluster.startsWith(ledger.slice(0, cut))
}

/** Whether the ledger hides who it was: then the name can be compared with others behind the same pseudonym alone. */
export function isHidden(user: string | undefined): boolean {
  return user !== undefined && PSEUDONYM.test(user)
}

function sameUser(ledger: string, cluster: string, people: People): boolean {
  const prefix = PSEUDONYM.exec(ledger)?.[1]
  if (prefix === undefined) return sameText(ledger, cluster)
  if (!cluster.startsWith(prefix) || cluster.startsWith(SYSTEM)) return false
  const known = people.get(ledger)
  if (known === undefined && people.size < MAX_PEOPLE) people.set(ledger, cluster)
  return known === undefined || known === cluster
}

/** On creation the API server's log has the name of the body, where it read it; it may have refused before that. */
function sameName(ledger: string, cluster: string, { facts, objectName }: Intent): boolean {
  if (sameText(ledger, cluster)) return true
  if (facts.verb !== 'create' || ledger !== '') return false
  return objectName.endsWith(ANY)
    ? cluster.startsWith(objectName.slice(0, -ANY.length))
    : sameText(objectName, cluster)
}

function samePath(ledger: string, cluster: string): boolean {
  return sameText(ledger, cluster) || sameText(decoded(ledger), decoded(cluster))
}

function decoded(path: string): string {
  try {
    return decodeURIComponent(path)
  } catch {
    return path
  }
}

/** Path of a path with query. */
export function pathOf(uri: string): string {
  const query = uri.indexOf('?')
  return query < 0 ? uri : uri.slice(0, query)
}

const US_PER_MS = 1000

/** RFC 3339 to microseconds since the epoch; undefined for anything else. */
export function microsOf(time: string): number | undefined {
  const ms = Date.parse(time)
  if (Number.isNaN(ms)) return undefined
  const fraction = /\.\d{3}(\d{1,3})/.exec(time)?.[1] ?? ''
  return ms * US_PER_MS + Number(fraction.padEnd(3, '0'))
}

/** Microseconds since the epoch as RFC 3339. */
export function timeText(atUs: number): string {
  return Number.isFinite(atUs) ? new Date(atUs / US_PER_MS).toISOString() : ''
}
