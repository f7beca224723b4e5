/**
 * What of an entry can be searched for: copies of single fields that the store indexes. The entry itself
 * stays the evidence; these columns can be made again from it at any time.
 */
import { REASONS } from '../../shared/reasons.ts'
import { resourcePath } from '../../shared/kubernetes/request-info.ts'
import type { ApprovalEntry, Entry, IntentEntry, RefusalEntry } from './entry.ts'

/** Searchable fields; null where an entry has none. Each is what the {@link EventFilter} of that name compares with. */
export interface IndexColumns {
  readonly requestId: string | null
  readonly cluster: string | null
  readonly subject: string | null
  readonly agent: string | null
  readonly podUid: string | null
  readonly exe: string | null
  readonly verb: string | null
  /** In the form of RBAC rules: `pods`, `pods/exec`. */
  readonly resource: string | null
  readonly namespace: string | null
  readonly name: string | null
  readonly effect: string | null
  readonly reviewer: string | null
  /** HTTP status of the answer: of the outcome, or of the refusal that took its place. */
  readonly status: number | null
  readonly rules: readonly string[]
  /** Names of all ancestors of the process, each once. */
  readonly ancestors: readonly string[]
}

const NONE: IndexColumns = {
  requestId: null,
  cluster: null,
  subject: null,
  agent: null,
  podUid: null,
  exe: null,
  verb: null,
  resource: null,
  namespace: null,
  name: null,
  effect: null,
  reviewer: null,
  status: null,
  rules: [],
  ancestors: [],
}

/** States that a person puts a held request into. */
const DECIDED_BY_A_PERSON: ReadonlySet<string> = new Set(['APPROVED', 'DENIED', 'REVOKED'])

/** The searchable fields of an entry. */
export function indexColumns(entry: Entry): IndexColumns {
  switch (entry.kind) {
    case 'intent':
      return ofIntent(entry)
    case 'outcome':
      return { ...NONE, ...ofRequest(entry), status: entry.status }
    case 'refusal':
      return ofRefusal(entry)
    case 'approval':
      return ofApproval(entry)
    case 'system':
      return { ...NONE, subject: entry.actor }
  }
}

function ofIntent(entry: IntentEntry): IndexColumns {
  const { request, decision, subject } = entry
  return {
    ...ofRequest(entry),
    subject: subject.name,
    agent: entry.agent ?? null,
    podUid: subject.podUid ?? null,
    exe: entry.tag?.verified?.exe ?? null,
    verb: request.verb,
    resource: textOrNull(resourcePath(request)),
    namespace: textOrNull(request.namespace),
    name: textOrNull(request.name),
    effect: decision.effect,
    reviewer: entry.approval?.reviewer ?? null,
    status: decision.reason === undefined ? null : REASONS[decision.reason].status,
    rules: [...new Set(decision.rules)],
    ancestors: [...new Set(entry.chain)],
  }
}

function ofRefusal(entry: RefusalEntry): IndexColumns {
  return {
    ...NONE,
    ...ofRequest(entry),
    subject: entry.subject.name,
    podUid: entry.subject.podUid ?? null,
    status: REASONS[entry.reason].status,
  }
}

function ofApproval(entry: ApprovalEntry): IndexColumns {
  // what starts in a decided state repeats an earlier approval: nobody decided on it
  const decided = DECIDED_BY_A_PERSON.has(entry.to) && entry.from !== 'RECEIVED'
  const reviewer = decided || entry.review !== undefined ? entry.actor : null
  return { ...NONE, ...ofRequest(entry), reviewer }
}

function ofRequest(entry: { readonly requestId: string; readonly cluster: string }): {
  requestId: string
  cluster: string
} {
  return { requestId: entry.requestId, cluster: entry.cluster }
}

/** Kubernetes attributes say "none" with an empty string, which is nothing to search for. */
function textOrNull(text: string): string | null {
  return text === '' ? null : text
}
