/**
 * What happened as events of the Open Cybersecurity Schema Framework, class API Activity (schema.ocsf.io, 6003). Every entry is part of one;
 * what the class has no attribute for stands under `unmapped`, as the ledger has it.
 */
import { partOf, textOf, textsOf } from '../../../shared/audit-text.ts'
import { isRecord } from '../../../shared/config.ts'
import type { AuditEvent } from '../../../shared/wire.ts'
import { resourceOf, statusOf } from './fields.ts'
import { isRefused } from './requests.ts'
import type { Happening } from './requests.ts'

type Mapping = Readonly<Record<string, unknown>>

const SCHEMA_VERSION = '1.4.0'
const CATEGORY = { category_uid: 6, category_name: 'Application Activity' }
const CLASS = { class_uid: 6003, class_name: 'API Activity' }
const OTHER_ACTIVITY = 99
/** Activities by Kubernetes verb, or by the HTTP method of a request outside the resource API. */
const ACTIVITIES: ReadonlyMap<string, readonly [number, string]> = new Map([
  ['create', [1, 'Create']],
  ['post', [1, 'Create']],
  ['get', [2, 'Read']],
  ['list', [2, 'Read']],
  ['watch', [2, 'Read']],
  ['head', [2, 'Read']],
  ['update', [3, 'Update']],
  ['patch', [3, 'Update']],
  ['put', [3, 'Update']],
  ['delete', [4, 'Delete']],
  ['deletecollection', [4, 'Delete']],
])
const SEVERITY = {
  informational: { severity_id: 1, severity: 'Informational' },
  low: { severity_id: 2, severity: 'Low' },
  medium: { severity_id: 3, severity: 'Medium' },
}
const STATUS = {
  unknown: { status_id: 0, status: 'Unknown' },
  success: { status_id: 1, status: 'Success' },
  failure: { status_id: 2, status: 'Failure' },
}
/** `type_id` of a user: a person is a User, a service account a System one. */
const USER_TYPES: ReadonlyMap<string, number> = new Map([
  ['person', 1],
  ['oidc', 1],
  ['serviceAccount', 3],
])
const UNKNOWN_TYPE = 0
const REGULAR_FILE = 1

/** The event of what happened. */
export function ocsfEvent(happening: Happening): object {
  return 'intent' in happening
    ? requestEvent(happening.intent, happening.outcome)
    : otherEvent(happening.other)
}

function requestEvent(intent: AuditEvent, outcome: AuditEvent | undefined): object {
  const { entry } = intent
  const request = partOf(entry, 'request')
  const verb = textOf(request['verb'])
  const reason = textOf(outcome?.entry['reason'] ?? partOf(entry, 'decision')['reason'])
  const code = Number(outcome?.entry['status'] ?? statusOf(reason))
  const isKnown = outcome !== undefined || isRefused(intent)
  return {
    ...common(intent, verb),
    ...severityOf(intent),
    ...(isKnown ? statusFields(code, reason) : STATUS.unknown),
    ...endFields(intent, outcome),
    actor: actorOf(entry),
    api: apiOf(intent, request, verb),
    ...(request['isResourceRequest'] === true ? { resources: [resource(request)] } : {}),
    http_request: {
      uid: intent.requestId ?? '',
      http_method: textOf(request['method']),
      url: { path: textOf(request['path']), query_string: textOf(request['query']) },
      user_agent: textOf(request['userAgent']),
    },
    ...(isKnown && code > 0 ? { http_response: { code } } : {}),
    src_endpoint: sourceOf(partOf(entry, 'subject')),
    dst_endpoint: { svc_name: textOf(entry['cluster']) },
    unmapped: { intent: entry, ...(outcome === undefined ? {} : { outcome: outcome.entry }) },
  }
}

/** A refusal, a step of a held request, something about the broker, or an outcome whose intent is not in the ledger any more. */
function otherEvent(event: AuditEvent): object {
  const { kind, entry, requestId } = event
  const operation = kind === 'system' ? textOf(entry['event']) : kind
  const reason = kind === 'approval' ? '' : textOf(entry['reason'])
  const code = Number(entry['status'] ?? statusOf(reason))
  const subject = partOf(entry, 'subject')
  const name = textOf(subject['name']) || textOf(entry['actor']) || 'unknown'
  return {
    ...common(event, ''),
    activity_name: operation,
    ...SEVERITY.informational,
    ...(code > 0 ? statusFields(code, reason) : STATUS.unknown),
    actor: { user: { name, type_id: USER_TYPES.get(textOf(subject['type'])) ?? UNKNOWN_TYPE } },
    api: {
      operation,
      service: { name: 'nestgate' },
      ...(requestId === undefined ? {} : { request: { uid: requestId } }),
    },
    src_endpoint: sourceOf(subject),
    unmapped: { entry },
  }
}

function common({ seq, time, requestId }: AuditEvent, verb: string): object {
  const [activity, name] = ACTIVITIES.get(verb) ?? [OTHER_ACTIVITY, verb]
  return {
    metadata: {
      version: SCHEMA_VERSION,
      product: { name: 'Nestgate', vendor_name: 'Nestgate' },
      log_name: 'ledger',
      sequence: seq,
      uid: String(seq),
      original_time: time,
      ...(requestId === undefined ? {} : { correlation_uid: requestId }),
    },
    ...CATEGORY,
    ...CLASS,
    ...{ activity_id: activity, activity_name: name },
    type_uid: CLASS.class_uid * 100 + activity,
    time: Date.parse(time),
  }
}

function severityOf({ entry }: AuditEvent): object {
  if (partOf(entry, 'approval')['breakGlass'] === true) return SEVERITY.medium
  return partOf(entry, 'decision')['effect'] === 'deny' ? SEVERITY.low : SEVERITY.informational
}

/** A request that broke off is a failure, whatever its head said. */
function statusFields(code: number, reason: string): object {
  const failed = code === 0 || code >= 400 || reason !== ''
  return {
    ...(failed ? STATUS.failure : STATUS.success),
    status_code: String(code),
    ...(reason === '' ? {} : { status_detail: reason }),
  }
}

function endFields(intent: AuditEvent, outcome: AuditEvent | undefined): object {
  if (outcome === undefined) return {}
  const { durationMs } = outcome.entry
  return {
    start_time: Date.parse(intent.time),
    end_time: Date.parse(outcome.time),
    ...(typeof durationMs === 'number' ? { duration: durationMs } : {}),
  }
}

function actorOf(entry: Mapping): object {
  const subject = partOf(entry, 'subject')
  const groups = textsOf(partOf(entry, 'oidc')['groups'])
  const verified = partOf(partOf(entry, 'tag'), 'verified')
  const agent = textOf(entry['agent'])
  return {
    user: {
      name: textOf(subject['name']),
      type_id: USER_TYPES.get(textOf(subject['type'])) ?? UNKNOWN_TYPE,
      ...(groups.length === 0 ? {} : { groups: groups.map((name) => ({ name })) }),
    },
    ...(agent === '' ? {} : { app_name: agent }),
    ...(Object.keys(verified).length === 0 ? {} : { process: processOf(verified) }),
  }
}

/** The process, with those above it one inside the other. */
function processOf(verified: Mapping): object {
  const above = Array.isArray(verified['ancestors']) ? verified['ancestors'].filter(isRecord) : []
  const chain = [verified, ...above].reverse()
  let result: object = {}
  for (const [depth, one] of chain.entries()) {
    result = {
      ...(typeof one['pid'] === 'number' ? { pid: one['pid'] } : {}),
      ...fileOf(textOf(one['exe']), textOf(one['exeSha256'])),
      ...(depth === 0 ? {} : { parent_process: result }),
    }
  }
  return result
}

function fileOf(path: string, sha256: string): object {
  if (path === '') return {}
  const name = path.slice(path.lastIndexOf('/') + 1)
  const hashes = sha256 === '' ? {} : { hashes: [{ algorithm_id: 3, value: sha256 }] }
  return { name, file: { name, path, type_id: REGULAR_FILE, ...hashes } }
}

function apiOf({ requestId = '', entry }: AuditEvent, request: Mapping, verb: string): object {
  const group = textOf(request['apiGroup'])
  const version = textOf(request['apiVersion'])
  return {
    operation: verb,
    service: { name: textOf(entry['cluster']) },
    request: { uid: requestId },
    ...(group === '' ? {} : { group: { name: group } }),
    ...(version === '' ? {} : { version }),
  }
}

function resource(request: Mapping): object {
  const name = textOf(request['name'])
  const namespace = textOf(request['namespace'])
  return {
    type: resourceOf(request),
    ...(name === '' ? {} : { name }),
    ...(namespace === '' ? {} : { namespace }),
  }
}

/** The pod; where there is none, all that is known is that a client called. */
function sourceOf(subject: Mapping): object {
  const uid = textOf(subject['podUid'])
  const name = textOf(subject['podName'])
  return uid === ''
    ? { svc_name: subject['name'] === undefined ? 'nestgate-broker' : 'direct-client' }
    : { uid, ...(name === '' ? {} : { name }) }
}
