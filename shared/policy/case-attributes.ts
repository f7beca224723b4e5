/**
 * Stands in for shared/kubernetes/request-attributes.ts until that is there, and goes then: it knows the plain cases that
 * examples of policies are about, and reads JSON only.
 */
import { isRecord } from '../config-source.ts'
import type {
  Action,
  Equivalent,
  RequestAttributes,
  RequestParameters,
} from '../kubernetes/attributes.ts'
import type { RequestTarget } from '../kubernetes/path.ts'
import { isConnect } from '../kubernetes/request-info.ts'
import type { RequestInfo } from '../kubernetes/request-info.ts'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'

/** A request as `readAttributes` takes it. */
export interface AttributeInput {
  readonly method: string
  readonly target: RequestTarget
  readonly info: RequestInfo
  readonly contentType: string
  readonly body: Buffer
}

const READS: ReadonlySet<string> = new Set(['get', 'list', 'watch'])
const WRITES: ReadonlySet<string> = new Set(['create', 'update', 'patch'])
const WORKLOADS: ReadonlySet<string> = new Set([
  '/pods',
  '/replicationcontrollers',
  '/podtemplates',
  'apps/deployments',
  'apps/daemonsets',
  'apps/replicasets',
  'apps/statefulsets',
  'batch/jobs',
  'batch/cronjobs',
])
const MINTING: ReadonlySet<string> = new Set([
  '/serviceaccounts/token',
  'certificates.k8s.io/certificatesigningrequests',
  'certificates.k8s.io/certificatesigningrequests/approval',
])
const EXTENDING: ReadonlySet<string> = new Set([
  'admissionregistration.k8s.io',
  'apiextensions.k8s.io',
  'apiregistration.k8s.io',
])
const SESSIONS: Readonly<Record<string, Action>> = {
  exec: 'exec',
  attach: 'attach',
  portforward: 'port-forward',
  proxy: 'proxy',
}
const DRY_RUN = ['dry-run'] as const
const NODE_COMMANDS = /^\/(?:exec|run|attach|portForward|cri)(?:\/|$)/

/** Reads the attributes of a request. */
export function readCaseAttributes(input: AttributeInput): RequestAttributes | Refusal {
  const { info, target, contentType, body: bytes } = input
  const body = readBody(contentType, bytes)
  if ('refused' in body) return body
  const object = body.state === 'read' && isRecord(body.value) ? body.value : undefined
  const metadata = isRecord(object?.['metadata']) ? object['metadata'] : {}
  const parameters = parametersOf(target, object)
  const named = typeof metadata['name'] === 'string' ? metadata['name'] : ''
  return {
    info,
    path: target.path,
    policyVerb: isConnect(info) ? 'connect' : info.verb,
    actions: actionsOf(info, parameters),
    equivalents: equivalentsOf(info),
    parameters,
    objectName: info.name === '' && info.verb === 'create' ? named : info.name,
    ...(object === undefined ? {} : { labels: textsOf(metadata['labels']) }),
    body,
  }
}

function readBody(contentType: string, bytes: Buffer): RequestAttributes['body'] | Refusal {
  if (bytes.length === 0) return { state: 'none' }
  if (!/json|yaml/.test(contentType)) return { state: 'opaque', contentType }
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'))
    return { state: 'read', value }
  } catch {
    return refuse('body_invalid')
  }
}

function parametersOf(
  { parameters, segments }: RequestTarget,
  object: Readonly<Record<string, unknown>> | undefined,
): RequestParameters {
  const first = (key: string): string | undefined => parameters.find(([name]) => name === key)?.[1]
  const command = parameters.filter(([name]) => name === 'command').map(([, value]) => value)
  const spec = isRecord(object?.['spec']) ? object['spec'] : {}
  const at = segments.indexOf('proxy')
  return {
    dryRun: first('dryRun') === 'All',
    ...(command.length === 0 ? {} : { command }),
    ...(first('propagationPolicy') === undefined
      ? {}
      : { propagationPolicy: first('propagationPolicy') ?? '' }),
    ...(first('gracePeriodSeconds') === undefined
      ? {}
      : { gracePeriodSeconds: Number(first('gracePeriodSeconds')) }),
    ...(typeof spec['replicas'] === 'number' ? { replicas: spec['replicas'] } : {}),
    ...(at === -1 ? {} : { proxyPath: `/${segments.slice(at + 1).join('/')}` }),
  }
}

function* actionsOfWrite(info: RequestInfo, parameters: RequestParameters): Generator<Action> {
  const { apiGroup, resource, subresource } = info
  const full = `${apiGroup}/${resource}${subresource === '' ? '' : `/${subresource}`}`
  if (WORKLOADS.has(full)) yield 'run-code'
  if (full === '/pods/ephemeralcontainers') {
    yield 'debug'
    yield 'run-code'
  }
  if (full === '/pods/eviction') yield 'evict'
  if (subresource === 'scale') yield parameters.replicas === 0 ? 'scale-to-zero' : 'scale'
  if (MINTING.has(full)) yield 'mint-credential'
  if (apiGroup === 'rbac.authorization.k8s.io') yield 'escalate'
  if (EXTENDING.has(apiGroup)) yield 'extend-cluster'
}

function actionsOf(info: RequestInfo, parameters: RequestParameters): readonly Action[] {
  const { isResourceRequest, verb, resource, subresource } = info
  if (!isResourceRequest) return []
  const session = SESSIONS[verb === 'proxy' ? 'proxy' : subresource]
  const path = session === 'proxy' && resource === 'nodes' ? parameters.proxyPath : undefined
  const reads = resource === 'secrets' && READS.has(verb)
  return [
    ...(session === undefined ? [] : [session]),
    ...(NODE_COMMANDS.test(path ?? '') ? (['node-exec'] as const) : []),
    ...(WRITES.has(verb) ? actionsOfWrite(info, parameters) : []),
    ...(verb.startsWith('delete') ? actionsOfDeletion(verb, parameters) : []),
    ...(reads ? (['read-secrets'] as const) : []),
    ...DRY_RUN.filter(() => parameters.dryRun),
  ]
}

function* actionsOfDeletion(
  verb: string,
  { gracePeriodSeconds, propagationPolicy }: RequestParameters,
): Generator<Action> {
  if (verb === 'deletecollection') yield 'delete-many'
  if (gracePeriodSeconds === 0) yield 'force-delete'
  if (propagationPolicy === 'Orphan') yield 'orphan'
}

function equivalentsOf(info: RequestInfo): readonly Equivalent[] {
  const { verb, apiGroup, resource, subresource, namespace, name } = info
  if (verb === 'create' && resource === 'pods' && subresource === 'eviction')
    return [{ verb: 'delete', apiGroup, resource, namespace, name }]
  if (verb === 'deletecollection')
    return [{ verb: 'delete', apiGroup, resource, namespace, name: '' }]
  return []
}

function textsOf(value: unknown): Readonly<Record<string, string>> {
  const texts: Record<string, string> = {}
  if (!isRecord(value)) return texts
  for (const [key, text] of Object.entries(value)) if (typeof text === 'string') texts[key] = text
  return texts
}
