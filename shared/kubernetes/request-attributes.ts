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
import { first, flag, isConnect, resourcePath } from './request-info.ts'
import type { RequestInfo } from './request-info.ts'
import type { RequestTarget } from './path.ts'
import { fieldOf, listOf, numberOf, textOf } from './json-fields.ts'
import { isInt64 } from './selectors.ts'
import { readUnmask } from './unmask.ts'
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
const PATCH_TYPES: ReadonlyMap<string, NonNullable<RequestParameters['patchType']>> = new Map([
  ['application/json-patch+json', 'json'],
  ['application/merge-patch+json', 'merge'],
  ['application/strategic-merge-patch+json', 'strategic'],
  ['application/apply-patch+yaml', 'apply'],
  ['application/apply-patch+cbor', 'apply'],
])
const SELECTOR_VERBS: ReadonlySet<string> = new Set(['list', 'watch', 'deletecollection'])

/**
 * Reads a request. @returns `body_ambiguous` where its body can be read in more than one way, `query_invalid` where it asks
 * to see what is hidden of anything but one object
 */
export function readAttributes(request: RawRequest): RequestAttributes | Refusal {
  const { info, target } = request
  const unmask = readUnmask(target, info)
  if (typeof unmask !== 'boolean') return unmask
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
    actions: actionsOf({ ...partial, unmask }),
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
      .filter((value) => /^\d+$/.test(value))
      .map(Number)
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
  const patchType = verb === 'patch' ? PATCH_TYPES.get(mediaType(contentType)) : undefined
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

function optional<K extends string, V>(
  key: K,
  value: V | undefined,
): Readonly<Partial<Record<K, V>>> {
  const made: Partial<Record<K, V>> = {}
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
  if (info.subresource === 'eviction' && body.state === 'read') {
    const options = optionsOf(fieldOf(body.value, 'deleteOptions'))
    return { ...options, dryRun: options.dryRun || dryRunInQuery(target) }
  }
  if (info.verb !== 'delete' && info.verb !== 'deletecollection')
    return { dryRun: dryRunInQuery(target) && !IGNORES_DRY_RUN.has(resourcePath(info)) }
  if (body.state === 'opaque') return { dryRun: false }
  return body.state === 'read' ? optionsOf(body.value) : queryOptions(target)
}

/** What does its work in a dry run, too (kubernetes, pkg/registry/core/serviceaccount/storage/token.go). */
const IGNORES_DRY_RUN: ReadonlySet<string> = new Set(['serviceaccounts/token'])

function optionsOf(options: unknown): DeleteOptions {
  const policy = textOf(options, 'propagationPolicy')
  return {
    dryRun: listOf(options, 'dryRun').includes(ALL),
    ...optional('gracePeriodSeconds', numberOf(options, 'gracePeriodSeconds')),
    ...optional(
      'propagationPolicy',
      policy === '' ? orphaned(fieldOf(options, 'orphanDependents') === true) : policy,
    ),
  }
}

function queryOptions(target: RequestTarget): DeleteOptions {
  const grace = first(target, 'gracePeriodSeconds') ?? ''
  return {
    dryRun: dryRunInQuery(target),
    ...optional('gracePeriodSeconds', isInt64(grace) ? Number(grace) : undefined),
    ...optional(
      'propagationPolicy',
      first(target, 'propagationPolicy') ?? orphaned(flag(target, 'orphanDependents')),
    ),
  }
}

/** The only value of `dryRun` that the API server takes. */
const ALL = 'All'

function dryRunInQuery(target: RequestTarget): boolean {
  return target.parameters.some(([name, value]) => name === 'dryRun' && value === ALL)
}

/** The older word for a propagation policy. */
function orphaned(orphanDependents: boolean): string | undefined {
  return orphanDependents ? 'Orphan' : undefined
}

function all({ parameters }: RequestTarget, key: string): readonly string[] {
  return parameters.filter(([name]) => name === key).map(([, value]) => value)
}
