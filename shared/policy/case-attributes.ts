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
    return { state: 'read', value: JSON.parse(bytes.toString('utf8')) as unknown }
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
  if (!info.isResourceRequest) return []
  const { verb, resource, subresource } = info
  const actions: Action[] = []
  const session = SESSIONS[verb === 'proxy' ? 'proxy' : subresource]
  if (session !== undefined) actions.push(session)
  if (session === 'proxy' && resource === 'nodes' && NODE_COMMANDS.test(parameters.proxyPath ?? ''))
    actions.push('node-exec')
  if (WRITES.has(verb)) actions.push(...actionsOfWrite(info, parameters))
  if (verb === 'deletecollection') actions.push('delete-many')
  if (verb.startsWith('delete') && parameters.gracePeriodSeconds === 0) actions.push('force-delete')
  if (verb.startsWith('delete') && parameters.propagationPolicy === 'Orphan') actions.push('orphan')
  if (resource === 'secrets' && ['get', 'list', 'watch'].includes(verb))
    actions.push('read-secrets')
  if (parameters.dryRun) actions.push('dry-run')
  return actions
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
