/** A request as rules see it: itself, and what it amounts to. */
import type { Equivalent, RequestAttributes } from '../kubernetes/attributes.ts'
import { resourcePath } from '../kubernetes/request-info.ts'
import type { ConditionInput } from './condition.ts'
import type { Facts } from './facts.ts'

/** A request as rules see it: itself, or one of its equivalents. */
export interface View {
  /** The request itself. */
  readonly literal: boolean
  readonly verb: string
  readonly apiGroup: string
  /** With subresource; undefined outside the resource API. */
  readonly resource: string | undefined
  readonly namespace: string
  readonly name: string
  readonly path: string
  /** Rules that restrict take it for a request for every name. */
  readonly anyName: boolean
  /** Rules that restrict take it for a request for every namespace. */
  readonly anyNamespace: boolean
  /** Parts of a name that is spelled `[scheme:]NAME[:port]`; none where it cannot be. */
  readonly nameParts: readonly string[]
  /** Variables of conditions in CEL. */
  readonly input: (facts: Facts, now: number) => ConditionInput
}

/** Without a name these reach every one, and without a namespace all of them, unless the resource has none. */
const COLLECTION_VERBS: ReadonlySet<string> = new Set(['list', 'watch', 'deletecollection'])
/** Cluster-scoped resources of Kubernetes itself, with their groups. */
export const CLUSTER_SCOPED: ReadonlySet<string> = new Set([
  '/namespaces',
  '/nodes',
  '/persistentvolumes',
  '/componentstatuses',
  'admissionregistration.k8s.io/mutatingwebhookconfigurations',
  'admissionregistration.k8s.io/validatingwebhookconfigurations',
  'admissionregistration.k8s.io/validatingadmissionpolicies',
  'admissionregistration.k8s.io/validatingadmissionpolicybindings',
  'admissionregistration.k8s.io/mutatingadmissionpolicies',
  'admissionregistration.k8s.io/mutatingadmissionpolicybindings',
  'apiextensions.k8s.io/customresourcedefinitions',
  'apiregistration.k8s.io/apiservices',
  'certificates.k8s.io/certificatesigningrequests',
  'certificates.k8s.io/clustertrustbundles',
  'flowcontrol.apiserver.k8s.io/flowschemas',
  'flowcontrol.apiserver.k8s.io/prioritylevelconfigurations',
  'networking.k8s.io/ingressclasses',
  'node.k8s.io/runtimeclasses',
  'policy/podsecuritypolicies',
  'rbac.authorization.k8s.io/clusterroles',
  'rbac.authorization.k8s.io/clusterrolebindings',
  'resource.k8s.io/deviceclasses',
  'resource.k8s.io/resourceslices',
  'scheduling.k8s.io/priorityclasses',
  'storage.k8s.io/csidrivers',
  'storage.k8s.io/csinodes',
  'storage.k8s.io/storageclasses',
  'storage.k8s.io/volumeattachments',
])

/** Views of a request: itself first, then its equivalents. */
export function viewsOf(request: RequestAttributes): readonly [View, ...View[]] {
  const { info, path, policyVerb, objectName } = request
  const proxied = info.subresource === 'proxy' || info.verb === 'proxy'
  const name = info.name === '' ? objectName : info.name
  const literal = makeView(request, {
    literal: true,
    verb: policyVerb,
    apiGroup: info.apiGroup,
    resource: info.isResourceRequest ? resourcePath(info) : undefined,
    namespace: info.namespace,
    name,
    path,
    anyName: info.name === '' && (COLLECTION_VERBS.has(policyVerb) || isUnnamed(request)),
    nameParts: proxied && info.name.includes(':') ? info.name.split(':') : [],
  })
  return [literal, ...request.equivalents.map((equivalent) => equivalentView(request, equivalent))]
}

/** Whether something is created whose name is not known: the server makes it up, or the body is not read. */
function isUnnamed({ policyVerb, objectName, body, parameters }: RequestAttributes): boolean {
  if (policyVerb !== 'create' || objectName !== '') return false
  return body.state === 'opaque' || parameters.generateName !== undefined
}

function equivalentView(request: RequestAttributes, equivalent: Equivalent): View {
  return makeView(request, {
    ...equivalent,
    literal: false,
    path: request.path,
    anyName: equivalent.name === '',
    nameParts: equivalent.name.includes(':') ? equivalent.name.split(':') : [],
  })
}

function makeView(request: RequestAttributes, parts: Omit<View, 'anyNamespace' | 'input'>): View {
  const { verb, apiGroup, resource, namespace } = parts
  let made: ConditionInput | undefined
  return {
    ...parts,
    anyNamespace:
      namespace === '' &&
      COLLECTION_VERBS.has(verb) &&
      resource !== undefined &&
      !CLUSTER_SCOPED.has(`${apiGroup}/${resource}`),
    input(facts, now) {
      made ??= inputOf(request, parts, facts, now)
      return made
    },
  }
}

function inputOf(
  request: RequestAttributes,
  { verb, apiGroup, resource = '', namespace, name, path }: Omit<View, 'anyNamespace' | 'input'>,
  { process, subject, cluster }: Facts,
  now: number,
): ConditionInput {
  const [head = '', subresource = ''] = resource.split('/')
  return {
    request: {
      ...{ verb, apiGroup, resource: head, subresource, namespace, name, path },
      actions: request.actions,
      labels: request.labels ?? {},
      parameters: { ...request.parameters },
    },
    object: request.body.state === 'read' ? request.body.value : undefined,
    process: process && { ...process },
    subject: subject && { name: subject.name, groups: subject.groups, ...subject.ci },
    cluster,
    now,
  }
}
