/** Other requests that a request amounts to: rules that restrict those restrict it too. */
import type { Equivalent, RequestParameters } from './attributes.ts'
import type { RequestInfo } from './request-info.ts'
import { resourcePath } from './request-info.ts'

const NONE: readonly Equivalent[] = []
/** Kubelet paths of the form `/WHAT/NAMESPACE/POD/…` (kubernetes, pkg/kubelet/server/server.go), and what each opens or reads. */
const KUBELET: ReadonlyMap<string, readonly [string, string]> = new Map([
  ['exec', ['connect', 'pods/exec']],
  ['run', ['connect', 'pods/exec']],
  ['attach', ['connect', 'pods/attach']],
  ['portForward', ['connect', 'pods/portforward']],
  ['containerLogs', ['get', 'pods/log']],
  ['pods', ['list', 'pods']],
  ['runningpods', ['list', 'pods']],
])
/** What `extensions` served of other groups' objects, before 1.16 or 1.22, and the group that rules are written for. */
const MOVED: ReadonlyMap<string, string> = new Map([
  ['deployments', 'apps'],
  ['daemonsets', 'apps'],
  ['replicasets', 'apps'],
  ['ingresses', 'networking.k8s.io'],
  ['networkpolicies', 'networking.k8s.io'],
  ['podsecuritypolicies', 'policy'],
])
/** Built-in kinds that an update makes where they are not there (AllowCreateOnUpdate of their strategies). */
const CREATED_BY_UPDATE: ReadonlySet<string> = new Set([
  '/endpoints',
  '/events',
  '/limitranges',
  '/services',
  'coordination.k8s.io/leases',
  'events.k8s.io/events',
  'node.k8s.io/runtimeclasses',
  'rbac.authorization.k8s.io/clusterrolebindings',
  'rbac.authorization.k8s.io/clusterroles',
  'rbac.authorization.k8s.io/rolebindings',
  'rbac.authorization.k8s.io/roles',
])

/** See the head of the file. Empty for nearly all requests. */
export function equivalentsOf(
  info: RequestInfo,
  parameters: RequestParameters,
): readonly Equivalent[] {
  const found = inItsGroup(info, parameters)
  const group = otherGroup(info)
  if (group === undefined) return found
  const { verb, namespace, name } = info
  const itself = { verb, apiGroup: info.apiGroup, resource: resourcePath(info), namespace, name }
  return [...found, ...[itself, ...found].map((one) => ({ ...one, apiGroup: group }))]
}

function inItsGroup(info: RequestInfo, parameters: RequestParameters): readonly Equivalent[] {
  const { apiGroup, namespace, name, resource, subresource, verb } = info
  if (verb === 'deletecollection') {
    return [{ verb: 'delete', apiGroup, resource, namespace, name: '' }]
  }
  if (creates(info, parameters)) return [{ verb: 'create', apiGroup, resource, namespace, name }]
  if (apiGroup !== '') return NONE
  if (resource === 'pods') return ofPod(info)
  const throughNode = resource === 'nodes' && (subresource === 'proxy' || verb === 'proxy')
  const { proxyPath } = parameters
  return throughNode && proxyPath !== undefined ? ofKubelet(proxyPath) : NONE
}

function ofPod({
  apiGroup,
  namespace,
  name,
  subresource,
  verb,
}: RequestInfo): readonly Equivalent[] {
  if (subresource === 'eviction')
    return [{ verb: 'delete', apiGroup, resource: 'pods', namespace, name }]
  // what an added container may do in the pod, exec may do
  if (subresource === 'ephemeralcontainers' && verb !== 'get')
    return [{ verb: 'connect', apiGroup, resource: 'pods/exec', namespace, name }]
  return NONE
}

/** Whether a write that is no creation makes the object where it is not there. */
function creates(
  { apiGroup, resource, subresource, verb }: RequestInfo,
  { patchType }: RequestParameters,
): boolean {
  if (subresource !== '') return false
  if (verb === 'patch') return patchType === 'apply'
  return verb === 'update' && CREATED_BY_UPDATE.has(`${apiGroup}/${resource}`)
}

/** Another group under which the same objects are served. */
function otherGroup({ apiGroup, resource }: RequestInfo): string | undefined {
  if (apiGroup === 'extensions') return MOVED.get(resource)
  if (resource !== 'events') return undefined
  if (apiGroup === '') return 'events.k8s.io'
  return apiGroup === 'events.k8s.io' ? '' : undefined
}

function ofKubelet(path: string): readonly Equivalent[] {
  const [, what = '', namespace = '', name = ''] = path.split('/')
  const [verb, resource] = KUBELET.get(what) ?? []
  return verb === undefined || resource === undefined
    ? NONE
    : [{ verb, apiGroup: '', resource, namespace, name }]
}
