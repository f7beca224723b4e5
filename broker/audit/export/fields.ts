/** What an entry has of each thing that one can ask by (shared/audit-filters.ts), as text; for exports to people and other systems. */
import { joined, partOf, textOf, textsOf } from '../../../shared/audit-text.ts'
import { isRecord } from '../../../shared/config.ts'
import { REASONS } from '../../../shared/reasons.ts'
import type { AuditEvent } from '../../../shared/wire.ts'

/** States that a person puts a held request into. */
const DECIDED: readonly string[] = ['APPROVED', 'DENIED', 'REVOKED']

type Mapping = Readonly<Record<string, unknown>>

/** Texts by column; empty where an entry has none. Lists are one text, parted by `; `. */
export function fieldsOf({
  kind,
  requestId = '',
  entry,
}: AuditEvent): Readonly<Record<string, string>> {
  const request = partOf(entry, 'request')
  const decision = partOf(entry, 'decision')
  const subject = partOf(entry, 'subject')
  const agent = textOf(entry['agent'])
  const reason = textOf(kind === 'intent' ? decision['reason'] : entry['reason'])
  return {
    ...{ requestId, agent, reason, event: textOf(entry['event']) },
    cluster: textOf(entry['cluster']),
    subject: textOf(subject['name']) || (kind === 'system' ? textOf(entry['actor']) : ''),
    ancestors: textsOf(entry['chain']).join('; '),
    podUid: textOf(subject['podUid']),
    exe: textOf(partOf(partOf(entry, 'tag'), 'verified')['exe']),
    verb: textOf(request['verb']),
    actions: actionsOf(request).join('; '),
    resource: resourceOf(request),
    namespace: textOf(request['namespace']),
    name: textOf(request['name']),
    effect: textOf(decision['effect']),
    rules: textsOf(decision['rules']).join('; '),
    reviewer: reviewerOf(kind, entry),
    status: textOf(entry['status']) || (kind === 'approval' ? '' : statusOf(reason)),
  }
}

/** In the form of RBAC rules: `pods/exec`. */
export function resourceOf(request: Mapping): string {
  return joined([textOf(request['resource']), textOf(request['subresource'])], '/')
}

/** What the request comes to, as policy names it. */
export function actionsOf(request: Mapping): readonly string[] {
  return textsOf(partOf(request, 'attributes')['actions'])
}

/** HTTP status of a reason code; empty for what is none. */
export function statusOf(reason: string): string {
  const found = Object.entries(REASONS).find(([code]) => code === reason)
  return found === undefined ? '' : String(found[1].status)
}

function reviewerOf(kind: string, entry: Mapping): string {
  const approval = partOf(entry, 'approval')
  if (kind === 'intent')
    return textsOf(approval['approvers']).join('; ') || textOf(approval['reviewer'])
  if (kind !== 'approval') return ''
  // what starts in a decided state repeats an earlier approval: nobody decided on it
  const isDecided = DECIDED.includes(textOf(entry['to'])) && entry['from'] !== 'RECEIVED'
  return isDecided || isRecord(entry['review']) ? textOf(entry['actor']) : ''
}
