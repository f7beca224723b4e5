/**
 * Makes what policy sees of a request (attributes.ts) out of its RequestInfo, its query and its body. This is the one place
 * where a request is looked into; docs/request-attributes.md is its description for those who write policies.
 *
 * Sources: kubernetes/apiserver, pkg/endpoints/handlers (create.go, delete.go, patch.go: where options come from);
 * kubernetes/api, core/v1 (PodExecOptions, PodPortForwardOptions); kubernetes, pkg/registry/core/pod (eviction.go).
 */
import { isRefusal, refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import { actionsOf } from './actions.ts'
import type { BodyView, RequestAttributes, RequestParameters } from './attributes.ts'
import { mediaType, readBody } from './body.ts'
import { equivalentsOf } from './equivalents.ts'
import { first, flag, isConnect } from './request-info.ts'
import type { RequestInfo } from './request-info.ts'
import type { RequestTarget } from './path.ts'
import { fieldOf, listOf, numberOf, textOf } from './json-fields.ts'
import { replicasTouch } from './workloads.ts'

/** Verb of exec, attach, port-forward and proxy in policy, whatever the HTTP method: a WebSocket exec is a GET. */
export const CONNECT_VERB = 'connect'

/** A request as it was read so far. */
export interface RawRequest {
  readonly method: string
  readonly target: RequestTarget
  readonly info: RequestInfo
  /** Value of `Content-Type`, empty where there is none. */
  readonly contentType: string
  readonly body: Buffer
}

const NO_BODY: BodyView = { state: 'none' }
const PLAIN: RequestParameters = { dryRun: false }
/** Verbs whose body the API server decodes. */
const BODY_VERBS: ReadonlySet<string> = new Set([
  'create',
  'update',
  'patch',
  'delete',
  'deletecollection',
])
const PATCH_TYPES: Readonly<Record<string, NonNullable<RequestParameters['patchType']>>> = {
  'application/json-patch+json': 'json',
  'application/merge-patch+json': 'merge',
  'application/strategic-merge-patch+json': 'strategic',
  'application/apply-patch+yaml': 'apply',
  'application/apply-patch+cbor': 'apply',
}
const SELECTOR_VERBS: ReadonlySet<string> = new Set(['list', 'watch', 'deletecollection'])

/** Reads a request. @returns `body_ambiguous` where its body can be read in more than one way */
export function readAttributes(request: RawRequest): RequestAttributes | Refusal {
  const { info, target } = request
  const connect = isConnect(info)
  const body = bodyOf(request, connect)
  if (isRefusal(body)) return body
  const contradiction = contradictionOf(info, body)
  if (contradiction !== undefined) return refuse('body_ambiguous', contradiction)
  const parameters = connect ? connectParameters(request) : parametersOf(request, body)
  const labels = labelsOf(info, parameters, body)
  const partial = {
    info,
    path: target.path,
    policyVerb: connect ? CONNECT_VERB : info.verb,
    parameters,
    objectName: info.name === '' ? createdName(info, body) : info.name,
    body,
    ...(labels === undefined ? {} : { labels }),
  }
  return {
    ...partial,
    actions: actionsOf(partial),
    equivalents: equivalentsOf(info, parameters),
  }
}

/** What is proxied to programs, or sent outside the resource API, is no object, whatever it looks like. */
function bodyOf({ info, contentType, body }: RawRequest, connect: boolean): BodyView | Refusal {
  if (body.length === 0) return NO_BODY
  if (!info.isResourceRequest || connect || !BODY_VERBS.has(info.verb))
    return { state: 'opaque', contentType: mediaType(contentType) }
  return readBody(body, contentType)
}

/** Where path and body name different objects, the API server refuses too; here nothing is decided on either. */
function contradictionOf(info: RequestInfo, body: BodyView): string | undefined {
  if (body.state !== 'read') return undefined
  const metadata = fieldOf(body.value, 'metadata')
  const namespace = textOf(metadata, 'namespace')
  const name = textOf(metadata, 'name')
  const creates = info.verb === 'create' || info.verb === 'update'
  if (!creates) return undefined
  if (namespace !== '' && info.namespace !== '' && namespace !== info.namespace)
    return 'path and body name different namespaces'
  if (info.name !== '' && name !== '' && name !== info.name && info.subresource !== 'token')
    return 'path and body name different objects'
  return undefined
}

function createdName(info: RequestInfo, body: BodyView): string {
  if (info.verb !== 'create' || body.state !== 'read') return ''
  return textOf(fieldOf(body.value, 'metadata'), 'name')
}

/** Of bodies that are the whole object; a patch says only what it changes. */
function labelsOf(
  info: RequestInfo,
  { patchType }: RequestParameters,
  body: BodyView,
): Readonly<Record<string, string>> | undefined {
  const whole = info.verb === 'create' || info.verb === 'update' || patchType === 'apply'
  if (!whole || body.state !== 'read' || info.subresource !== '') return undefined
  const labels = fieldOf(fieldOf(body.value, 'metadata'), 'labels')
  if (typeof labels !== 'object' || labels === null) return {}
  return Object.fromEntries(
    Object.entries(labels).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  )
}

function connectParameters({ target, info }: RawRequest): RequestParameters {
  const { subresource } = info
  if (subresource === 'exec' || subresource === 'attach') {
    const container = first(target, 'container')
    return {
      dryRun: false,
      ...(subresource === 'exec' ? { command: all(target, 'command') } : {}),
      ...(container === undefined ? {} : { container }),
      tty: flag(target, 'tty'),
      stdin: flag(target, 'stdin'),
    }
  }
  if (subresource === 'portforward') {
    const ports = all(target, 'ports')
      .flatMap((value) => value.split(','))
      .map(Number)
      .filter((port) => Number.isInteger(port))
    return { dryRun: false, ...(ports.length === 0 ? {} : { ports }) }
  }
  return { dryRun: false, proxyPath: proxyPath(target, info) }
}

/** What follows `/proxy`; for the old form, where `proxy` stands before the resource, what follows the name. */
function proxyPath({ segments }: RequestTarget, info: RequestInfo): string {
  const fixed = segments[0] === 'api' ? 2 : 3
  const isPathVerb = info.verb === 'proxy'
  const start = fixed + (isPathVerb ? 1 : 0)
  const named = segments[start] === 'namespaces' && segments.length > start + 2 ? 2 : 0
  const after = start + named + (isPathVerb ? 2 : 3)
  return `/${segments.slice(after).join('/')}`
}

function parametersOf(
  { target, info, contentType }: RawRequest,
  body: BodyView,
): RequestParameters {
  if (!info.isResourceRequest) return PLAIN
  if (target.parameters.length === 0 && body.state === 'none') return PLAIN
  const { verb } = info
  const patchType = verb === 'patch' ? PATCH_TYPES[mediaType(contentType)] : undefined
  const touch = replicasTouch(info, patchType, body)
  const replicas = touch.kind === 'set' && typeof touch.value === 'number' ? touch.value : undefined
  return {
    ...optional(
      'labelSelector',
      SELECTOR_VERBS.has(verb) ? first(target, 'labelSelector') : undefined,
    ),
    ...optional(
      'fieldSelector',
      SELECTOR_VERBS.has(verb) ? first(target, 'fieldSelector') : undefined,
    ),
    ...optional('fieldManager', first(target, 'fieldManager')),
    ...optional('patchType', patchType),
    ...optional('force', verb === 'patch' ? flag(target, 'force') : undefined),
    ...optional('generateName', generateName(info, body)),
    ...optional('replicas', replicas),
    ...deleteOptions(target, info, body),
  }
}

/** An object with one field, or none where there is no value. */
function optional<K extends keyof RequestParameters>(
  key: K,
  value: RequestParameters[K] | undefined,
): Partial<Pick<RequestParameters, K>> {
  const made: Partial<Pick<RequestParameters, K>> = {}
  if (value !== undefined) made[key] = value
  return made
}

function generateName(info: RequestInfo, body: BodyView): string | undefined {
  if (info.verb !== 'create' || body.state !== 'read') return undefined
  const text = textOf(fieldOf(body.value, 'metadata'), 'generateName')
  return text === '' ? undefined : text
}

type DeleteOptions = Pick<RequestParameters, 'dryRun' | 'propagationPolicy' | 'gracePeriodSeconds'>

/** A deletion's options are its body where it has one, and else its query; an eviction's are in its body (delete.go, eviction.go). */
function deleteOptions(target: RequestTarget, info: RequestInfo, body: BodyView): DeleteOptions {
  const deletes = info.verb === 'delete' || info.verb === 'deletecollection'
  const evicts = info.subresource === 'eviction'
  if (body.state === 'none' || !(deletes || evicts)) return optionsOfQuery(target, deletes)
  if (body.state === 'opaque') return { dryRun: false }
  const options = evicts ? fieldOf(body.value, 'deleteOptions') : body.value
  const dryRun = listOf(options, 'dryRun').includes(ALL) || (evicts && dryRunInQuery(target))
  const policy = textOf(options, 'propagationPolicy')
  return {
    dryRun,
    ...optional('gracePeriodSeconds', numberOf(options, 'gracePeriodSeconds')),
    ...optional(
      'propagationPolicy',
      policy === '' ? orphaned(fieldOf(options, 'orphanDependents')) : policy,
    ),
  }
}

function optionsOfQuery(target: RequestTarget, deletes: boolean): DeleteOptions {
  const dryRun = dryRunInQuery(target)
  if (!deletes) return { dryRun }
  const grace = first(target, 'gracePeriodSeconds') ?? ''
  const orphans =
    first(target, 'orphanDependents') !== undefined && flag(target, 'orphanDependents')
  return {
    dryRun,
    ...optional('gracePeriodSeconds', grace === '' ? undefined : Number(grace)),
    ...optional('propagationPolicy', first(target, 'propagationPolicy') ?? orphaned(orphans)),
  }
}

/** The only value of `dryRun` that the API server takes. */
const ALL = 'All'

function dryRunInQuery(target: RequestTarget): boolean {
  return target.parameters.some(([name, value]) => name === 'dryRun' && value === ALL)
}

/** The older word for a propagation policy. */
function orphaned(orphanDependents: unknown): string | undefined {
  return orphanDependents === true ? 'Orphan' : undefined
}

function all({ parameters }: RequestTarget, key: string): readonly string[] {
  return parameters.filter(([name]) => name === key).map(([, value]) => value)
}
