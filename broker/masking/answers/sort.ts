/** What a request asks for, as far as masking its answer needs it. */
import type { RequestInfo } from '../../../shared/kubernetes/request-info.ts'

/**
 * `objects`: Kubernetes objects, in JSON. `log`: what a program printed. `kubelet`: what a node's agent says, in JSON or text.
 * `other`: paths of which nothing is known, and sessions. `passed`: what has no objects of the cluster in it, and is passed on as it is.
 */
export type AnswerSort = 'objects' | 'log' | 'kubelet' | 'other' | 'passed'

/** First segments of paths under which an API server serves no objects: discovery, descriptions, health, metrics, keys. */
const WITHOUT_OBJECTS: ReadonlySet<string> = new Set([
  'version',
  'openapi',
  'healthz',
  'livez',
  'readyz',
  'metrics',
  '.well-known',
  'openid',
])
/** What stands behind these is an application, whose answers are its own. */
const APPLICATIONS: ReadonlySet<string> = new Set(['pods', 'services'])
/** What is answered with a connection. API servers know of no type that such an answer has, and say 406 to who asks for JSON. */
const SESSIONS: ReadonlySet<string> = new Set(['exec', 'attach', 'portforward'])
/** Methods that discovery has. */
const READING: ReadonlySet<string> = new Set(['get', 'head'])

/** Tells requests apart. @param segments - of the cluster's own path */
export function answerSort(info: RequestInfo, segments: readonly string[]): AnswerSort {
  if (!info.isResourceRequest) return hasNoObjects(info, segments) ? 'passed' : 'other'
  const { apiGroup, resource, subresource, verb } = info
  if (apiGroup !== '') return 'objects'
  if (verb === 'proxy' || subresource === 'proxy') {
    if (APPLICATIONS.has(resource)) return 'passed'
    return resource === 'nodes' ? 'kubelet' : 'objects'
  }
  if (resource !== 'pods') return 'objects'
  if (SESSIONS.has(subresource)) return 'other'
  return subresource === 'log' ? 'log' : 'objects'
}

/** Discovery is `/api`, `/api/v1`, `/apis`, `/apis/GROUP` and `/apis/GROUP/VERSION`: whatever is longer is a resource. */
function hasNoObjects({ verb }: RequestInfo, [first = '']: readonly string[]): boolean {
  if (first === 'api' || first === 'apis') return READING.has(verb)
  return WITHOUT_OBJECTS.has(first)
}
