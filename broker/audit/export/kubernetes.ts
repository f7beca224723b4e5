/**
 * Requests as events of the Kubernetes audit log (audit.k8s.io/v1), for tools that read that. `auditID` is the request id, which the cluster's own
 * log has, too. What those events have no field for are annotations under `nestgate.dev/`; held requests' decisions and the broker's own entries are left out.
 */
import { joined, partOf, textOf, textsOf } from '../../../shared/audit-text.ts'
import type { AuditEvent } from '../../../shared/wire.ts'
import { actionsOf, statusOf } from './fields.ts'
import { isRefused } from './requests.ts'
import type { Happening } from './requests.ts'

type Mapping = Readonly<Record<string, unknown>>

const ANNOTATION_PREFIX = 'nestgate.dev/'

/** The event of a request, or undefined for what is none. */
export function kubernetesEvent(happening: Happening): object | undefined {
  if ('intent' in happening) return requestEvent(happening.intent, happening.outcome)
  return happening.other.kind === 'refusal' ? refusalEvent(happening.other) : undefined
}

function requestEvent(intent: AuditEvent, outcome: AuditEvent | undefined): object {
  const { entry } = intent
  const request = partOf(entry, 'request')
  const isOver = outcome !== undefined || isRefused(intent)
  return {
    ...head(intent, isOver ? 'ResponseComplete' : 'RequestReceived'),
    requestURI: joined([textOf(request['path']), textOf(request['query'])], '?'),
    verb: textOf(request['verb']),
    ...users(entry),
    userAgent: textOf(request['userAgent']),
    ...(request['isResourceRequest'] === true ? { objectRef: objectRef(request) } : {}),
    ...endOf(intent, outcome),
    requestReceivedTimestamp: intent.time,
    stageTimestamp: outcome?.time ?? intent.time,
    annotations: annotations({
      seq: textOf(intent.seq),
      ...requestAnnotations(entry, request),
      ...(outcome === undefined ? {} : outcomeAnnotations(outcome)),
    }),
  }
}

/** The status of the answer, where there was one. */
function endOf(intent: AuditEvent, outcome: AuditEvent | undefined): object {
  const reason = textOf((outcome?.entry ?? partOf(intent.entry, 'decision'))['reason'])
  const code = Number(outcome?.entry['status'] ?? statusOf(reason))
  return code > 0 ? { responseStatus: responseStatus(code, reason) } : {}
}

function outcomeAnnotations({ seq, entry }: AuditEvent): Readonly<Record<string, string>> {
  const masked = partOf(entry, 'masked')
  return {
    'outcome-seq': textOf(seq),
    'outcome-reason': textOf(entry['reason']),
    'duration-ms': textOf(entry['durationMs']),
    'masked-count': textOf(masked['count']),
    'masked-fields': textsOf(masked['fields']).join(', '),
  }
}

function requestAnnotations(entry: Mapping, request: Mapping): Readonly<Record<string, string>> {
  const decision = partOf(entry, 'decision')
  const approval = partOf(entry, 'approval')
  const credential = partOf(entry, 'credential')
  const subject = partOf(entry, 'subject')
  const tag = partOf(entry, 'tag')
  const verified = partOf(tag, 'verified')
  const approvers = textsOf(approval['approvers']).join(', ')
  return {
    cluster: textOf(entry['cluster']),
    decision: textOf(decision['effect']),
    reason: textOf(decision['reason']),
    rules: textsOf(decision['rules']).join(', '),
    'policy-digest': textOf(decision['policyDigest']),
    actions: actionsOf(request).join(', '),
    'body-sha256': textOf(request['bodySha256']),
    agent: textOf(entry['agent']),
    ancestors: textsOf(entry['chain']).join(', '),
    pod: joined([textOf(subject['namespace']), textOf(subject['podName'])], '/'),
    'pod-uid': textOf(subject['podUid']),
    verdict: textOf(tag['verdict']),
    exe: textOf(verified['exe']),
    'exe-sha256': textOf(verified['exeSha256']),
    'approval-id': textOf(approval['id']),
    'approved-by': approvers === '' ? textOf(approval['reviewer']) : approvers,
    'approval-reason': textOf(approval['reason']),
    'break-glass': approval['breakGlass'] === true ? 'true' : '',
    'credential-mode': textOf(credential['mode']),
    'credential-user': textOf(credential['user']),
  }
}

/** A request that could not be read. */
function refusalEvent(event: AuditEvent): object {
  const { entry, time } = event
  const reason = textOf(entry['reason'])
  return {
    ...head(event, 'ResponseComplete'),
    ...{ requestURI: '', verb: '' },
    user: { username: textOf(partOf(entry, 'subject')['name']) },
    responseStatus: responseStatus(Number(statusOf(reason)), reason),
    ...{ requestReceivedTimestamp: time, stageTimestamp: time },
    annotations: annotations({
      ...{ seq: textOf(event.seq), cluster: textOf(entry['cluster']), reason },
      detail: textOf(entry['detail']),
    }),
  }
}

function head({ requestId = '' }: AuditEvent, stage: string): object {
  return {
    ...{ kind: 'Event', apiVersion: 'audit.k8s.io/v1', level: 'Metadata' },
    ...{ auditID: requestId, stage },
  }
}

/** Who asked, and, where the broker says so to the cluster, in whose name. */
function users(entry: Mapping): object {
  const credential = partOf(entry, 'credential')
  const groups = textsOf(partOf(entry, 'oidc')['groups'])
  const granted = textsOf(credential['groups'])
  const user = {
    username: textOf(partOf(entry, 'subject')['name']),
    ...(groups.length === 0 ? {} : { groups }),
  }
  if (credential['mode'] !== 'impersonation') return { user }
  const impersonatedUser = {
    username: textOf(credential['user']),
    ...(granted.length === 0 ? {} : { groups: granted }),
  }
  return { user, impersonatedUser }
}

function objectRef(request: Mapping): object {
  const names = ['resource', 'namespace', 'name', 'apiGroup', 'apiVersion', 'subresource']
  return pairs(names.map((name) => [name, textOf(request[name])]))
}

function responseStatus(code: number, reason: string): object {
  const failed = code >= 400 || reason !== ''
  return {
    metadata: {},
    ...(failed ? { status: 'Failure' } : {}),
    ...(reason === '' ? {} : { message: `nestgate: ${reason}` }),
    code,
  }
}

function annotations(values: Readonly<Record<string, string>>): object {
  return pairs(Object.entries(values).map(([name, text]) => [ANNOTATION_PREFIX + name, text]))
}

/** Empty texts stand for "none", and are left out. */
function pairs(all: readonly (readonly [string, string])[]): object {
  return Object.fromEntries(all.filter(([, text]) => text !== ''))
}
