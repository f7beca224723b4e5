/** Resources of Kubernetes itself, for wildcards where discovery is not at hand. */
import type { ServedResource } from './judge.ts'

/** Verbs of resources that are stored. */
export const STORED_VERBS = [
  'get',
  'list',
  'watch',
  'create',
  'update',
  'patch',
  'delete',
  'deletecollection',
] as const

const SCALE = ['get', 'update', 'patch'] as const
const CREATE = ['create'] as const
const CONNECT = ['get', 'create'] as const

type Row = readonly [apiGroup: string, resource: string, verbs?: readonly string[]]

const NAMESPACED: readonly Row[] = [
  ['', 'configmaps'],
  ['', 'endpoints'],
  ['', 'events'],
  ['', 'limitranges'],
  ['', 'persistentvolumeclaims'],
  ['', 'pods'],
  ['', 'pods/attach', CONNECT],
  ['', 'pods/ephemeralcontainers', SCALE],
  ['', 'pods/eviction', CREATE],
  ['', 'pods/exec', CONNECT],
  ['', 'pods/log', ['get']],
  ['', 'pods/portforward', CONNECT],
  ['', 'pods/proxy', STORED_VERBS],
  ['', 'podtemplates'],
  ['', 'replicationcontrollers'],
  ['', 'replicationcontrollers/scale', SCALE],
  ['', 'resourcequotas'],
  ['', 'secrets'],
  ['', 'serviceaccounts'],
  ['', 'serviceaccounts/token', CREATE],
  ['', 'services'],
  ['', 'services/proxy', STORED_VERBS],
  ['apps', 'controllerrevisions'],
  ['apps', 'daemonsets'],
  ['apps', 'deployments'],
  ['apps', 'deployments/scale', SCALE],
  ['apps', 'replicasets'],
  ['apps', 'replicasets/scale', SCALE],
  ['apps', 'statefulsets'],
  ['apps', 'statefulsets/scale', SCALE],
  ['autoscaling', 'horizontalpodautoscalers'],
  ['batch', 'cronjobs'],
  ['batch', 'jobs'],
  ['coordination.k8s.io', 'leases'],
  ['discovery.k8s.io', 'endpointslices'],
  ['networking.k8s.io', 'ingresses'],
  ['networking.k8s.io', 'networkpolicies'],
  ['policy', 'poddisruptionbudgets'],
  ['rbac.authorization.k8s.io', 'rolebindings'],
  ['rbac.authorization.k8s.io', 'roles'],
]

const CLUSTER: readonly Row[] = [
  ['', 'namespaces'],
  ['', 'nodes'],
  ['', 'nodes/proxy', STORED_VERBS],
  ['', 'persistentvolumes'],
  ['admissionregistration.k8s.io', 'mutatingwebhookconfigurations'],
  ['admissionregistration.k8s.io', 'validatingwebhookconfigurations'],
  ['apiextensions.k8s.io', 'customresourcedefinitions'],
  ['apiregistration.k8s.io', 'apiservices'],
  ['certificates.k8s.io', 'certificatesigningrequests'],
  ['certificates.k8s.io', 'certificatesigningrequests/approval', ['update', 'patch']],
  ['networking.k8s.io', 'ingressclasses'],
  ['rbac.authorization.k8s.io', 'clusterrolebindings'],
  ['rbac.authorization.k8s.io', 'clusterroles'],
  ['scheduling.k8s.io', 'priorityclasses'],
  ['storage.k8s.io', 'storageclasses'],
]

/** See the head of the file. */
export const WELL_KNOWN: readonly ServedResource[] = [
  ...NAMESPACED.map((row) => served(row, true)),
  ...CLUSTER.map((row) => served(row, false)),
]

function served([apiGroup, resource, verbs]: Row, namespaced: boolean): ServedResource {
  return { apiGroup, resource, namespaced, verbs: verbs ?? STORED_VERBS }
}
