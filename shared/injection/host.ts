/** What a pod wants of its node, and nodes that the sidecar does not run on. The pod is the author's: every field is untrusted. */
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import { allContainers } from './pod.ts'
import type { Pod } from './pod.ts'
import { containerPath } from './reserved.ts'

/** Annotation of the kubelet's on a pod that stands for one of its own manifests (core/v1, MirrorPodAnnotationKey). */
const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror'
/** Who a kubelet is (kubernetes/plugin/pkg/auth/nodeidentifier). */
const NODE_GROUP = 'system:nodes'
const NODE_USER = 'system:node:'
/** Labels by which nodes say their operating system; the second one is from before 1.14. */
const OS_LABELS = ['kubernetes.io/os', 'beta.kubernetes.io/os'] as const

const WINDOWS = 'windows'

/** Who creates a pod, as the API server says. */
export interface Creator {
  readonly username: string
  readonly groups: readonly string[]
}

/** Whether a pod claims to mirror one of a node's own. */
function isMirror(pod: Pod): boolean {
  return Object.hasOwn(pod.metadata?.annotations ?? {}, MIRROR_ANNOTATION)
}

/**
 * Whether a node itself creates the pod to mirror one of its own. It is left alone: what runs is the node's manifest, whatever
 * stands here, and the ServiceAccount plugin refuses tokens and Secrets in it.
 */
export function isMirrorOfNode(pod: Pod, creator: Creator): boolean {
  return (
    isMirror(pod) && creator.username.startsWith(NODE_USER) && creator.groups.includes(NODE_GROUP)
  )
}

/** Refuses the node's namespaces, its files by name of a mirror, and nodes of Windows; undefined where all is well. */
export function checkHost(pod: Pod): Refusal | undefined {
  const { hostNetwork, hostPID, hostIPC } = pod.spec
  if (hostNetwork === true) return refuse('host_network', 'spec.hostNetwork')
  if (hostPID === true) return refuse('host_pid', 'spec.hostPID')
  if (hostIPC === true) return refuse('host_ipc', 'spec.hostIPC')
  if (isMirror(pod)) return refuse('mirror_pod', `metadata.annotations[${MIRROR_ANNOTATION}]`)
  const windows = windowsPath(pod)
  return windows === undefined ? undefined : refuse('windows', windows)
}

/** The field by which a pod is for Windows. A toleration is none: it lets a pod onto a node, and sends it nowhere. */
function windowsPath({ spec }: Pod): string | undefined {
  if (spec.os?.name === WINDOWS) return 'spec.os.name'
  const label = OS_LABELS.find((name) => spec.nodeSelector?.[name] === WINDOWS)
  if (label !== undefined) return `spec.nodeSelector[${label}]`
  if (wantsWindowsNode(spec)) return 'spec.affinity.nodeAffinity'
  if (isSet(spec.securityContext?.windowsOptions)) return 'spec.securityContext.windowsOptions'
  const placed = allContainers({ spec }).find(({ container }) =>
    isSet(container.securityContext?.windowsOptions),
  )
  return placed && `${containerPath(placed)}.securityContext.windowsOptions`
}

function wantsWindowsNode({ affinity }: Pod['spec']): boolean {
  const required = affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution
  return (required?.nodeSelectorTerms ?? []).some(({ matchExpressions }) =>
    matchExpressions.some(
      ({ key, operator, values }) =>
        OS_LABELS.some((label) => label === key) && operator === 'In' && values.includes(WINDOWS),
    ),
  )
}

function isSet(value: object | null | undefined): boolean {
  return value !== undefined && value !== null
}
