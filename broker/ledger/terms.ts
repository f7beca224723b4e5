/**
 * What of an entry can be searched for: pairs of a field and a value, made from the entry's JSON as it is stored,
 * so that they can be made again at any time. Entries of all versions are read; what is missing, cut or of another
 * form has no term.
 */
import { REASONS, isReason } from '../../shared/reasons.ts'
import type { TermField } from '../store/store.ts'

/** A field and a value of it. */
export type Term = readonly [field: TermField, value: string]

/** Longest value that can be searched for, in characters; paths of programs are the longest things to ask for. */
export const MAX_TERM_LENGTH = 512
/** Terms of one entry at most; a chain of processes and a list of rules are as long as their owner likes. */
const MAX_TERMS = 256

type Json = Readonly<Record<string, unknown>>

/** States that a person puts a held request into. */
const DECIDED_BY_A_PERSON: ReadonlySet<string> = new Set(['APPROVED', 'DENIED', 'REVOKED'])

/** The terms of an entry, each once. @param entry - decoded */
export function termsOf(entry: Json): readonly Term[] {
  const terms = new Terms()
  terms.add('kind', entry['kind'])
  terms.add('cluster', entry['cluster'])
  terms.add('requestId', entry['requestId'])
  switch (entry['kind']) {
    case 'intent':
      addIntent(terms, entry)
      break
    case 'outcome':
      terms.add('status', entry['status'])
      terms.add('reason', entry['reason'])
      break
    case 'refusal':
      addSubject(terms, entry)
      addReason(terms, entry['reason'])
      break
    case 'approval':
      addApproval(terms, entry)
      break
    default:
      terms.add('subject', entry['actor'])
      terms.add('event', entry['event'])
      terms.add('cluster', part(entry, 'detail')['cluster'])
  }
  return terms.list
}

function addIntent(terms: Terms, entry: Json): void {
  const request = part(entry, 'request')
  const decision = part(entry, 'decision')
  addSubject(terms, entry)
  terms.add('subject', part(entry, 'oidc')['name'])
  terms.add('agent', entry['agent'])
  for (const ancestor of list(entry['chain'] ?? oldChain(entry))) terms.add('ancestor', ancestor)
  terms.add('exe', part(part(entry, 'tag'), 'verified')['exe'])
  terms.add('verb', request['verb'])
  terms.add('resource', resourceOf(request))
  terms.add('namespace', request['namespace'])
  terms.add('name', request['name'])
  const attributes = part(request, 'attributes')
  terms.add('verb', attributes['policyVerb'])
  for (const action of list(attributes['actions'])) terms.add('action', action)
  terms.add('effect', decision['effect'])
  for (const rule of list(decision['rules'])) terms.add('rule', rule)
  addReason(terms, decision['reason'])
  const approval = part(entry, 'approval')
  terms.add('reviewer', approval['reviewer'])
  for (const reviewer of list(approval['approvers'])) terms.add('reviewer', reviewer)
}

function addSubject(terms: Terms, entry: Json): void {
  const subject = part(entry, 'subject')
  terms.add('subject', subject['name'])
  terms.add('podUid', subject['podUid'])
}

/** A refusal has the status that it was told with. */
function addReason(terms: Terms, reason: unknown): void {
  terms.add('reason', reason)
  if (isReason(reason)) terms.add('status', REASONS[reason].status)
}

function addApproval(terms: Terms, entry: Json): void {
  // what starts in a decided state repeats an earlier approval: nobody decided on it
  const { from, to, review, actor } = entry
  const decided = typeof to === 'string' && DECIDED_BY_A_PERSON.has(to) && from !== 'RECEIVED'
  if (decided || review !== undefined) terms.add('reviewer', actor)
}

/** In the form of RBAC rules: `pods`, `pods/exec`. */
function resourceOf(request: Json): string {
  const { resource, subresource } = request
  if (typeof resource !== 'string') return ''
  return typeof subresource === 'string' && subresource !== ''
    ? `${resource}/${subresource}`
    : resource
}

/**
 * Entries before version 0.2 have no `chain`; their ancestors get the names that the broker of their time would have
 * given them, `unregistered/CONTAINER/EXECUTABLE`, so that a question about a link finds them too.
 */
function oldChain(entry: Json): readonly string[] {
  const ancestors = list(part(part(entry, 'tag'), 'verified')['ancestors'])
  return ancestors.flatMap((ancestor) => {
    if (typeof ancestor !== 'object' || ancestor === null) return []
    const { containerId, exe } = record(ancestor)
    const container = typeof containerId === 'string' ? containerId.slice(0, 13) : 'no-container'
    const program = typeof exe === 'string' ? exe.slice(exe.lastIndexOf('/') + 1) : 'unknown'
    return [`unregistered/${container}/${program}`]
  })
}

class Terms {
  readonly list: Term[] = []
  readonly #seen = new Set<string>()

  /** Kubernetes attributes say "none" with an empty string, which is nothing to search for. */
  add(field: TermField, value: unknown): void {
    if (typeof value !== 'string' && typeof value !== 'number') return
    const text = String(value)
    if (text === '' || text.length > MAX_TERM_LENGTH || text.includes('\u0000')) return
    const key = `${field} ${text}`
    if (this.#seen.has(key) || this.list.length >= MAX_TERMS) return
    this.#seen.add(key)
    this.list.push([field, text])
  }
}

function part(entry: Json, key: string): Json {
  return record(entry[key])
}

/** Written out here: the store's threads need no library of schemas. */
function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function record(value: unknown): Json {
  return isRecord(value) ? value : {}
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}
