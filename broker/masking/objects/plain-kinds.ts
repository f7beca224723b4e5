/** Kinds of Kubernetes' own that have no place for a secret but annotations that hold a copy of an object. */

/** `GROUP/KIND`; the core group is empty. */
const PLAIN_KINDS: ReadonlySet<string> = new Set([
  '/Node',
  '/Service',
  '/Endpoints',
  '/Namespace',
  '/ServiceAccount',
  '/PersistentVolume',
  '/PersistentVolumeClaim',
  '/ResourceQuota',
  '/LimitRange',
  'discovery.k8s.io/EndpointSlice',
  'rbac.authorization.k8s.io/Role',
  'rbac.authorization.k8s.io/RoleBinding',
  'rbac.authorization.k8s.io/ClusterRole',
  'rbac.authorization.k8s.io/ClusterRoleBinding',
  'networking.k8s.io/Ingress',
  'networking.k8s.io/IngressClass',
  'networking.k8s.io/NetworkPolicy',
  'coordination.k8s.io/Lease',
  'policy/PodDisruptionBudget',
  'autoscaling/HorizontalPodAutoscaler',
  'storage.k8s.io/StorageClass',
  'storage.k8s.io/CSINode',
  'storage.k8s.io/CSIDriver',
  'storage.k8s.io/VolumeAttachment',
  'scheduling.k8s.io/PriorityClass',
  'node.k8s.io/RuntimeClass',
  'apiextensions.k8s.io/CustomResourceDefinition',
  'apiregistration.k8s.io/APIService',
  'meta.k8s.io/PartialObjectMetadata',
])

/** Whether nothing but embedded objects can be secret in objects of a kind. */
export function isPlainKind(group: string, kind: string): boolean {
  return PLAIN_KINDS.has(`${group}/${kind}`)
}
