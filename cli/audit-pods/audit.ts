/** Which running pods of labelled namespaces are not as they would be made now, and what replaces them. Pure. */
import { z } from 'zod'
import type { InjectionSettings } from '../../shared/injection/sidecar-spec.ts'
import { injectOf, levelOf } from '../check/labels.ts'
import { storedPodSchema } from '../kube/objects.ts'
import type { Metadata } from '../kube/objects.ts'
import { reviewObject } from '../kube/pod-review.ts'
import { problemsOf } from '../kube/pod-state.ts'
import type { PodProblem, PodProblemCode } from '../kube/pod-state.ts'
import type { Labels } from '../kube/selector.ts'

/** Pods of a node's own manifests: the API server keeps tokens out of them, and nothing restarts them from here. */
const MIRROR_ANNOTATION = 'kubernetes.io/config.mirror'
/** Kinds that `kubectl rollout restart` knows. */
const RESTARTABLE = ['Deployment', 'StatefulSet', 'DaemonSet']
/** Labels by which a controller names the ReplicaSet of one version of its template. */
const HASH_LABELS = ['pod-template-hash', 'rollouts-pod-template-hash']

/** Beside what a pod has against it: what it would be refused for, and token Secrets of the namespace. */
export type AuditCode = PodProblemCode | 'would_be_refused' | 'token_secret'

/** One thing that was found. */
export interface AuditFinding {
  readonly namespace: string
  /** `Kind/name` of what makes the pod, or the pod itself. */
  readonly owner: string
  /** Empty where it is no pod. */
  readonly pod: string
  readonly code: AuditCode
  readonly said: string
  readonly remedy: string
}

/** A namespace that takes part. */
export interface AuditedNamespace {
  readonly name: string
  readonly labels: Labels
  /** How its pods are injected now; undefined where that is not known. */
  readonly settings: InjectionSettings | undefined
}

/** What is to be said of a namespace’s pods, as kubectl lists them. */
export function auditPods(
  namespace: AuditedNamespace,
  pods: readonly unknown[],
): readonly AuditFinding[] {
  return pods.flatMap((pod) => auditPod(namespace, pod))
}

function auditPod(
  { name, labels, settings }: AuditedNamespace,
  raw: unknown,
): readonly AuditFinding[] {
  const parsed = storedPodSchema.safeParse(raw)
  if (!parsed.success || settings === undefined) return []
  const { metadata, status } = parsed.data
  if (isOver(status?.phase) || MIRROR_ANNOTATION in metadata.annotations) return []
  const owner = ownerOf(metadata)
  const finding = (code: AuditCode, said: string, remedy: string): AuditFinding => ({
    ...{ namespace: name, owner: `${owner.kind}/${owner.name}`, pod: metadata.name },
    ...{ code, said, remedy },
  })
  const level = levelOf(labels)
  if (injectOf(labels) === 'observe') {
    const refusal = refusalOf(raw, name, settings, level)
    if (refusal === undefined) return []
    return [finding('would_be_refused', refusal, 'change it before the namespace is injected')]
  }
  const remedy = remedyFor(name, owner, metadata.name)
  return problemsOf(raw, { namespace: name, level, settings }).map(({ code, said }: PodProblem) =>
    finding(code, said, remedy),
  )
}

function isOver(phase: string | undefined): boolean {
  return phase === 'Succeeded' || phase === 'Failed'
}

const objectSchema = z.looseObject({})

function refusalOf(
  raw: unknown,
  namespace: string,
  settings: InjectionSettings,
  level: ReturnType<typeof levelOf>,
): string | undefined {
  return reviewObject(objectSchema.parse(raw), namespace, settings, level).refusal
}

interface Owner {
  readonly kind: string
  readonly name: string
}

/** The controller that somebody wrote: of a ReplicaSet the Deployment, by the hash that ends its name. */
function ownerOf({ name, labels, ownerReferences }: Metadata): Owner {
  const owner = ownerReferences.find(({ controller }) => controller === true)
  if (owner === undefined) return { kind: 'Pod', name }
  if (owner.kind !== 'ReplicaSet') return { kind: owner.kind, name: owner.name }
  for (const [at, label] of HASH_LABELS.entries()) {
    const hash = labels[label]
    if (hash !== undefined && owner.name.endsWith(`-${hash}`))
      return {
        kind: at === 0 ? 'Deployment' : 'Rollout',
        name: owner.name.slice(0, -hash.length - 1),
      }
  }
  return { kind: owner.kind, name: owner.name }
}

function remedyFor(namespace: string, { kind, name }: Owner, pod: string): string {
  if (RESTARTABLE.includes(kind))
    return `kubectl -n ${namespace} rollout restart ${kind.toLowerCase()}/${name}`
  if (kind === 'Job')
    return `let it end, or kubectl -n ${namespace} delete job ${name}; the next one is injected`
  if (kind === 'Pod') return `kubectl -n ${namespace} delete pod ${pod}, and create it again`
  return `kubectl -n ${namespace} delete pod ${pod}; its ${kind} makes another`
}

/** Token Secrets of a namespace as findings. */
export function secretFindings(
  namespace: string,
  secrets: readonly string[],
): readonly AuditFinding[] {
  return secrets.map((name) => ({
    namespace,
    owner: `Secret/${name}`,
    pod: '',
    code: 'token_secret',
    said: 'it holds a service account’s token, which never ends',
    remedy: `kubectl -n ${namespace} delete secret ${name} once nothing uses it`,
  }))
}
