/**
 * Names of people in ledger entries. What is stored has a pseudonym in each one's place: a salted hash, whose salt and
 * value lie beside the ledger, so that erasing these erases the person while the entries' bytes, and all that was proved
 * of them, stay as they are (docs/decisions/0007, "Personal values"; docs/evidence-privacy.md says what is not hidden).
 *
 * Hidden are the fields that hold who somebody is. Groups and service accounts are not people, and texts that people
 * wrote (reasons), or that hold what was asked for (paths, explanations), are evidence as they stand.
 */
import { createHash } from 'node:crypto'
import { isRecord } from '../../shared/config-source.ts'
import { PREFIX } from '../credentials/tokens.ts'
import type {
  ApprovalRecord,
  Entry,
  IntentEntry,
  OidcRecord,
  SubjectRecord,
  SystemEntry,
} from './entry.ts'
import { shortenText } from './serialize.ts'

/** Longest value that is kept, in UTF-16 code units; what a token calls its subject may be longer, and is cut with a mark. */
export const MAX_PERSONAL_LENGTH = 1024
/** Values whose pseudonyms are remembered: some megabytes at most. */
const MAX_KNOWN = 10_000
const SALT_BYTES = 16

/** How every pseudonym begins. */
export const PSEUDONYM_PREFIX = 'personal:'
const PSEUDONYM = /^personal:[\w-]{43}$/

/** Names under which the broker itself acts. */
const BROKER_NAMES: ReadonlySet<string> = new Set(['broker', 'nestgate-broker', 'policy'])
/** Names of a cluster's own: service accounts. No issuer's subject has one (broker/credentials/actor.ts). */
const SYSTEM_PREFIX = 'system:'
/** How an API server calls a subject of a token of ours, before its name (broker/credentials/actor.ts, tokenSubject). */
const ISSUED_PREFIX = `${PREFIX}subject:`
/** Keys of a system entry's detail, and of the conditions of a search in it, whose values are people. */
const PERSON_KEYS: ReadonlySet<string> = new Set([
  'approver',
  'person',
  'reviewer',
  'subject',
  'user',
])
/** Key of a detail that holds the conditions of a search, as JSON. */
const QUERY_KEY = 'query'

type Replace = (value: string) => string
type Json = Readonly<Record<string, unknown>>

/** A pseudonym with what leads back to its value; stored beside the ledger, in the transaction of the entry that names it. */
export interface PersonalRow {
  readonly pseudonym: string
  readonly value: string
  /** Random bytes, own to this row. */
  readonly salt: Uint8Array
}

/** The pseudonym of a value. */
export function pseudonymFor(value: string, salt: Uint8Array): string {
  const hash = createHash('sha256').update(salt).update(value, 'utf8').digest('base64url')
  return PSEUDONYM_PREFIX + hash
}

/** The entry with people's values replaced; the given one is not changed. */
export function hidePersonal(entry: Entry, pseudonymOf: Replace): Entry {
  const hide: Replace = (value) => (isPerson(value) ? pseudonymOf(value) : value)
  switch (entry.kind) {
    case 'intent':
      return hideIntent(entry, hide)
    case 'outcome':
      return entry
    case 'refusal':
      return { ...entry, subject: hideSubject(entry.subject, hide) }
    case 'approval':
    case 'session':
      return { ...entry, actor: hide(entry.actor) }
    case 'system':
      return hideSystem(entry, hide)
  }
}

function hideIntent(entry: IntentEntry, hide: Replace): IntentEntry {
  const { subject, oidc, approval, credential } = entry
  return {
    ...entry,
    subject: hideSubject(subject, hide),
    ...(oidc === undefined ? {} : { oidc: hideOidc(oidc, hide) }),
    ...(approval === undefined ? {} : { approval: hideApproval(approval, hide) }),
    ...(credential === undefined
      ? {}
      : { credential: { ...credential, user: inUser(credential.mode, credential.user, hide) } }),
  }
}

function hideSubject(subject: SubjectRecord, hide: Replace): SubjectRecord {
  return subject.type === 'serviceAccount' ? subject : { ...subject, name: hide(subject.name) }
}

function hideOidc(oidc: OidcRecord, hide: Replace): OidcRecord {
  return { ...oidc, sub: hide(oidc.sub), name: hide(oidc.name) }
}

function hideApproval(approval: ApprovalRecord, hide: Replace): ApprovalRecord {
  const { approvers } = approval
  return {
    ...approval,
    reviewer: hide(approval.reviewer),
    ...(approvers === undefined ? {} : { approvers: approvers.map(hide) }),
  }
}

function hideSystem(entry: SystemEntry, hide: Replace): SystemEntry {
  // a pod stands there, in a form of its own
  const actor = entry.event === 'sidecar_registered' ? entry.actor : hide(entry.actor)
  return { ...entry, actor, detail: mapTexts(entry.detail, hide) }
}

/** Everything but a closed set is taken for a person's name. */
function isPerson(name: string): boolean {
  return name !== '' && !BROKER_NAMES.has(name) && !name.startsWith(SYSTEM_PREFIX)
}

/** A user of the cluster's audit log: the name itself, or, in mode `issuer`, the name behind the prefixes of our own tokens. */
function inUser(mode: unknown, user: string, replace: Replace): string {
  if (mode !== 'issuer') return replace(user)
  if (!user.startsWith(ISSUED_PREFIX)) return user
  return ISSUED_PREFIX + replace(user.slice(ISSUED_PREFIX.length))
}

function inDetail(key: string, value: string, replace: Replace): string {
  if (PERSON_KEYS.has(key)) return replace(value)
  return key === QUERY_KEY ? inQuery(value, replace) : value
}

/** Conditions of a search. What is no JSON is left: an entry that had to be cut has none. */
function inQuery(query: string, replace: Replace): string {
  let conditions: unknown
  try {
    conditions = JSON.parse(query)
  } catch {
    return query
  }
  if (!isRecord(conditions)) return query
  const changed = Object.entries(conditions).map(([key, value]) => [
    key,
    PERSON_KEYS.has(key) ? inValue(value, replace) : value,
  ])
  return JSON.stringify(Object.fromEntries(changed))
}

function inValue(value: unknown, replace: Replace): unknown {
  if (typeof value === 'string') return replace(value)
  return Array.isArray(value) ? value.map((one: unknown) => inValue(one, replace)) : value
}

/**
 * A decoded entry with people's values back where {@link hidePersonal} hides them. What has no value any more keeps its
 * pseudonym. Entries may be cut, or of another version: whatever has another form than expected is left.
 */
export function showPersonal(
  entry: Json,
  valueOf: (pseudonym: string) => string | undefined,
): Json {
  const show: Replace = (text) => (PSEUDONYM.test(text) ? (valueOf(text) ?? text) : text)
  const value = (text: unknown): unknown => inValue(text, show)
  return changed(entry, {
    actor: value,
    subject: (subject) => within(subject, { name: value }),
    oidc: (oidc) => within(oidc, { sub: value, name: value }),
    approval: (approval) => within(approval, { reviewer: value, approvers: value }),
    credential: (credential) => {
      const mode = isRecord(credential) ? credential['mode'] : undefined
      const user = (text: unknown): unknown =>
        typeof text === 'string' ? inUser(mode, text, show) : text
      return within(credential, { user })
    },
    detail: (detail) => (isRecord(detail) ? mapTexts(detail, show) : detail),
  })
}

/** Every pseudonym at the places where {@link showPersonal} looks for one, each once: what has to be looked up. */
export function pseudonymsIn(entry: Json): readonly string[] {
  const found = new Set<string>()
  showPersonal(entry, (pseudonym) => {
    found.add(pseudonym)
    return undefined
  })
  return [...found]
}

/** A detail with the people in it replaced. */
function mapTexts<T>(
  detail: Readonly<Record<string, T>>,
  replace: Replace,
): Record<string, T | string> {
  const changed: Record<string, T | string> = {}
  for (const [key, value] of Object.entries(detail))
    changed[key] = typeof value === 'string' ? inDetail(key, value, replace) : value
  return changed
}

type Changes = Readonly<Record<string, (value: unknown) => unknown>>

function within(json: unknown, changes: Changes): unknown {
  return isRecord(json) ? changed(json, changes) : json
}

function changed(json: Json, changes: Changes): Json {
  const result: Record<string, unknown> = { ...json }
  for (const [key, change] of Object.entries(changes))
    if (Object.hasOwn(json, key)) result[key] = change(json[key])
  return result
}

/** Gives values their pseudonyms. Synchronous, and to be asked inside the transaction that stores the entry. */
export interface Pseudonyms {
  /**
   * A value's pseudonym. `row` is there while it is not known to be stored: it must be stored with the entry, where it
   * is not there already, and then told by {@link Pseudonyms.settle}. A value may come to have several pseudonyms, of several
   * brokers or of writes that failed: a search must look for all that are stored.
   */
  of(value: string): { readonly pseudonym: string; readonly row?: PersonalRow }
  /** A transaction ended. @param ok - whether the rows are stored; of those that may not be, nothing is remembered */
  settle(rows: readonly PersonalRow[], ok: boolean): void
  /** The value was erased: it gets another pseudonym from now on. Without a value all are forgotten, where another broker may have erased some. */
  forget(value?: string): void
}

/** What pseudonyms are made of. */
export interface PseudonymsDeps {
  /** A pseudonym that is stored for a value, where the store can tell at once. */
  readonly lookup?: (value: string) => string | undefined
  /** Random bytes for a salt. */
  readonly random: (bytes: number) => Uint8Array
  /** Values remembered at most. */
  readonly maxKnown?: number
}

/** See {@link Pseudonyms}. */
export function createPseudonyms({
  lookup,
  random,
  maxKnown = MAX_KNOWN,
}: PseudonymsDeps): Pseudonyms {
  /** In the order of use, the latest last. */
  const known = new Map<string, string>()
  const pending = new Map<string, PersonalRow>()
  const remember = (value: string, pseudonym: string): void => {
    known.delete(value)
    known.set(value, pseudonym)
    const [oldest] = known.keys()
    if (known.size > maxKnown && oldest !== undefined) known.delete(oldest)
  }
  const fresh = (value: string): PersonalRow => {
    const salt = random(SALT_BYTES)
    const row = { pseudonym: pseudonymFor(value, salt), value, salt }
    pending.set(value, row)
    return row
  }
  return {
    of(given) {
      const value = personalValue(given)
      const stored = known.get(value) ?? lookup?.(value)
      if (stored !== undefined) {
        remember(value, stored)
        return { pseudonym: stored }
      }
      const row = pending.get(value) ?? fresh(value)
      return { pseudonym: row.pseudonym, row }
    },
    settle(rows, ok) {
      for (const { value, pseudonym } of rows) {
        // one that is not waited for any more was forgotten meanwhile, or failed with another transaction
        if (pending.get(value)?.pseudonym !== pseudonym) continue
        pending.delete(value)
        if (ok) remember(value, pseudonym)
      }
    },
    forget(value) {
      if (value === undefined) {
        known.clear()
        pending.clear()
        return
      }
      known.delete(personalValue(value))
      pending.delete(personalValue(value))
    },
  }
}

/** A value in the form in which it is stored, and looked for: whole characters (RFC 8785, 3.2.2.2), and not too long. */
export function personalValue(value: string): string {
  return shortenText(value.toWellFormed(), MAX_PERSONAL_LENGTH)
}
