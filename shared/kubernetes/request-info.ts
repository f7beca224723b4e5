/**
 * A request's attributes as kube-apiserver reads them: verb, group, resource, namespace, name. Source of the
 * rules: kubernetes/apiserver, pkg/endpoints/request/requestinfo.go (RequestInfoFactory.NewRequestInfo),
 * with api/apis as prefixes and api as the groupless one.
 */
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { RequestTarget } from './path.ts'
import { demandedField, isInt64, isLabelSelector } from './selectors.ts'

/** What kube-apiserver calls RequestInfo; empty strings stand for "none", as there. */
export interface RequestInfo {
  readonly isResourceRequest: boolean
  /** Kubernetes verb, or the lower-case HTTP method of a non-resource request. */
  readonly verb: string
  readonly apiGroup: string
  readonly apiVersion: string
  readonly namespace: string
  readonly resource: string
  readonly subresource: string
  readonly name: string
}

const METHOD_VERBS: ReadonlyMap<string, string> = new Map([
  ['GET', 'get'],
  ['HEAD', 'get'],
  ['POST', 'create'],
  ['PUT', 'update'],
  ['PATCH', 'patch'],
  ['DELETE', 'delete'],
])
/** All but the verb of a request outside the resource API. */
export const NON_RESOURCE: Omit<RequestInfo, 'verb'> = {
  isResourceRequest: false,
  apiGroup: '',
  apiVersion: '',
  namespace: '',
  resource: '',
  subresource: '',
  name: '',
}
const NAMESPACE_SUBRESOURCES: ReadonlySet<string> = new Set(['status', 'finalize'])
/** List options that the API server reads as numbers (meta/v1 ListOptions). */
const NUMERIC_OPTIONS = ['limit', 'timeoutSeconds']
/** Verbs that older paths name in the path itself: `/api/v1/watch/pods`. */
const PATH_VERBS: ReadonlySet<string> = new Set(['proxy', 'watch'])
const LONG_RUNNING_SUBRESOURCES: ReadonlySet<string> = new Set([
  'attach',
  'exec',
  'proxy',
  'log',
  'portforward',
])
const CONNECT_SUBRESOURCES: ReadonlySet<string> = new Set([
  'attach',
  'exec',
  'proxy',
  'portforward',
])
/** apimachinery, pkg/api/validation/path: a name that may stand in a path. */
const PATH_NAME = /^(?!\.{1,2}$)[^/%]+$/

/**
 * Reads the attributes of a request.
 *
 * @param method - HTTP method as sent
 * @param target - the cluster's own path, as {@link parseTarget} read it
 * @returns a refusal where kube-apiserver's verb would be empty or its reading an error
 */
export function readRequestInfo(method: string, target: RequestTarget): RequestInfo | Refusal {
  const address = readAddress(target.segments)
  if (address === undefined) return { ...NON_RESOURCE, verb: method.toLowerCase() }
  const { apiGroup, apiVersion, rest } = address
  const pathVerb = PATH_VERBS.has(rest[0] ?? '') ? rest[0] : undefined
  if (pathVerb !== undefined && rest.length === 1) {
    return refuse('path_ambiguous', `nothing follows the verb ${pathVerb} in the path`)
  }
  const verb = pathVerb ?? METHOD_VERBS.get(method)
  if (verb === undefined) return refuse('method_unsupported')
  const place = readPlace(pathVerb === undefined ? rest : rest.slice(1), verb)
  const info = { isResourceRequest: true, verb, apiGroup, apiVersion, ...place }
  return pathVerb === undefined ? refineVerb(info, target) : info
}

/** Group, version and what follows them; undefined for a non-resource path. */
function readAddress(
  segments: readonly string[],
): { apiGroup: string; apiVersion: string; rest: readonly string[] } | undefined {
  const [prefix, second = '', third = ''] = segments
  if (prefix === 'api' && segments.length >= 3) {
    return { apiGroup: '', apiVersion: second, rest: segments.slice(2) }
  }
  if (prefix === 'apis' && segments.length >= 4) {
    return { apiGroup: second, apiVersion: third, rest: segments.slice(3) }
  }
  return undefined
}

type Place = Pick<RequestInfo, 'namespace' | 'resource' | 'subresource' | 'name'>

/** Namespace, resource, name and subresource of what follows the version (and the path's verb). */
function readPlace(parts: readonly string[], verb: string): Place {
  let rest = parts
  let namespace = ''
  if (rest[0] === 'namespaces' && rest.length > 1) {
    namespace = rest[1] ?? ''
    if (rest.length > 2 && !NAMESPACE_SUBRESOURCES.has(rest[2] ?? '')) rest = rest.slice(2)
  }
  return {
    namespace,
    resource: rest[0] ?? '',
    name: rest[1] ?? '',
    subresource: verb === 'proxy' ? '' : (rest[2] ?? ''),
  }
}

/** Verbs that depend on whether a name was given: list, watch, deletecollection. */
function refineVerb(info: RequestInfo, target: RequestTarget): RequestInfo {
  if (info.name !== '') return info
  if (info.verb === 'delete') return { ...info, verb: 'deletecollection' }
  if (info.verb !== 'get') return info
  const name = nameFromOptions(target)
  const watches = name === undefined ? isWatchAsText(target) : flag(target, 'watch')
  return {
    ...info,
    verb: watches ? 'watch' : 'list',
    name: name !== undefined && PATH_NAME.test(name) ? name : '',
  }
}

/** What the API server makes of `watch` where it could not parse the options: other than in {@link flag}, case is that of ASCII. */
function isWatchAsText(target: RequestTarget): boolean {
  const value = first(target, 'watch')
  return value !== undefined && value !== '0' && value.toLowerCase() !== 'false'
}

/**
 * apimachinery Convert_Slice_string_To_bool: absent, `0` and `false` in any case (of Unicode: `fal\u017fe`) are false; all else,
 * also empty, is true; the first value counts.
 */
export function flag(target: RequestTarget, key: string): boolean {
  const value = first(target, key)
  return value !== undefined && value !== '0' && !/^false$/iu.test(value)
}

/** The first value of a parameter. */
export function first(target: RequestTarget, key: string): string | undefined {
  return target.parameters.find(([name]) => name === key)?.[1]
}

/** The name that an exact `metadata.name` field selector pins a list or watch to; undefined where the server cannot parse the list options. */
function nameFromOptions(target: RequestTarget): string | undefined {
  const numbers = NUMERIC_OPTIONS.map((key) => first(target, key))
  if (!numbers.every((text) => text === undefined || isInt64(text))) return undefined
  if (!isLabelSelector(first(target, 'labelSelector') ?? '')) return undefined
  return demandedField(first(target, 'fieldSelector') ?? '', 'metadata.name')
}

/** Whether the API server treats the request as long-running (controlplane/apiserver/config.go): no deadline applies. */
export function isLongRunning(info: RequestInfo): boolean {
  return (
    info.isResourceRequest &&
    (info.verb === 'watch' ||
      info.verb === 'proxy' ||
      LONG_RUNNING_SUBRESOURCES.has(info.subresource))
  )
}

/** Whether the request opens a session into a workload, whatever its HTTP method says. */
export function isConnect(info: RequestInfo): boolean {
  return (
    info.isResourceRequest && (info.verb === 'proxy' || CONNECT_SUBRESOURCES.has(info.subresource))
  )
}

/** Whether GET and POST ask for the same session. What is proxied is none: there the program heeds the method. */
export function isSession(info: RequestInfo): boolean {
  return isConnect(info) && info.verb !== 'proxy' && info.subresource !== 'proxy'
}

/** Whether the request can only read: nothing changes and no session opens. */
export function isRead(info: RequestInfo): boolean {
  if (isConnect(info)) return false
  return info.isResourceRequest
    ? ['get', 'list', 'watch'].includes(info.verb)
    : ['get', 'head'].includes(info.verb)
}

/** `resource/subresource`, or the resource alone: the form of RBAC rules. */
export function resourcePath(info: RequestInfo): string {
  return info.subresource === '' ? info.resource : `${info.resource}/${info.subresource}`
}
