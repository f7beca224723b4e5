/** Other requests that a request amounts to: rules that restrict those restrict it too. */
import type { Equivalent, RequestParameters } from './attributes.ts'
import type { RequestInfo } from './request-info.ts'

const NONE: readonly Equivalent[] = []
/** Kubelet paths of the form `/WHAT/NAMESPACE/POD/…` (kubernetes, pkg/kubelet/server/server.go), and what each opens. */
const KUBELET: Readonly<Record<string, string>> = {
  exec: 'pods/exec',
  run: 'pods/exec',
  attach: 'pods/attach',
  portForward: 'pods/portforward',
}

/** See the head of the file. Empty for nearly all requests. */
export function equivalentsOf(
  info: RequestInfo,
  { proxyPath }: RequestParameters,
): readonly Equivalent[] {
  const { apiGroup, namespace, name, resource, subresource, verb } = info
  if (verb === 'deletecollection') {
    return [{ verb: 'delete', apiGroup, resource, namespace, name: '' }]
  }
  if (apiGroup !== '') return NONE
  if (resource === 'pods' && subresource === 'eviction')
    return [{ verb: 'delete', apiGroup, resource, namespace, name }]
  // what an added container may do in the pod, exec may do
  if (resource === 'pods' && subresource === 'ephemeralcontainers' && verb !== 'get')
    return [{ verb: 'connect', apiGroup, resource: 'pods/exec', namespace, name }]
  const throughNode = resource === 'nodes' && (subresource === 'proxy' || verb === 'proxy')
  return throughNode && proxyPath !== undefined ? ofKubelet(proxyPath) : NONE
}

function ofKubelet(path: string): readonly Equivalent[] {
  const [, what = '', namespace = '', name = ''] = path.split('/')
  const resource = KUBELET[what]
  return resource === undefined
    ? NONE
    : [{ verb: 'connect', apiGroup: '', resource, namespace, name }]
}
