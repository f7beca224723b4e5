/**
 * Containers that could speak on the connections of others, or read them: what is taken from them, and what authors
 * are told of what is risky or replaced (AdmissionResponse.warnings, admission/v1; kubectl prints them). The sidecar looks at the running
 * processes for itself; see sidecar/posture.ts.
 */
import { capabilityNames, SPEAKING_FOR_OTHERS } from '../capabilities.ts'
import { allContainers } from './pod.ts'
import type { Container, PlacedContainer, Pod } from './pod.ts'
import { containerPath, isSidecar } from './reserved.ts'
import { SERVICE_ACCOUNT_PATH, SERVICE_ACCOUNT_VOLUME, kubeconfigVariable } from './sidecar-spec.ts'
import type { InjectionSettings } from './sidecar-spec.ts'
import { isServiceAccountMount } from './tokens.ts'

/** Audiences of the large clouds: AWS, Azure, Google's workload identity in both of its forms. */
const CLOUDS = [
  /^sts\.amazonaws\.com(\.cn)?$/,
  /^api:\/\/AzureADTokenExchange/,
  /\.svc\.id\.goog$/,
  /^(https:)?\/\/iam\.googleapis\.com\//,
] as const
/** The API server cuts warnings of more than 256 characters, and all of them after 4096 (apiserver, warning handler). */
const MAX_WARNINGS = 8
/** Longest part of a volume's name that is repeated: a DNS label (RFC 1123), which admission has not checked yet. */
const MAX_SHOWN_NAME = 63

/** Whether `NET_RAW` is to be added to what a container drops: it could have it by default, and nobody asked for it. */
export function dropsNetRaw({ securityContext }: Container): boolean {
  if (securityContext?.privileged === true) return false
  const { add = [], drop = [] } = securityContext?.capabilities ?? {}
  return !hasOneOf(add, ['NET_RAW', 'ALL']) && !hasOneOf(drop, ['NET_RAW', 'ALL'])
}

/** Why the processes of a pod cannot be told apart, whatever the sidecar sees of them; undefined where they can. */
export function riskOf(pod: Pod, dropNetRaw: boolean): string | undefined {
  for (const placed of allContainers(pod)) {
    const [risky] = isSidecar(placed) ? [] : riskyOf(placed.container, dropNetRaw)
    if (risky !== undefined)
      return `${containerPath(placed)} has ${risky}, by which it could speak for other processes`
  }
  return undefined
}

/**
 * One line for each thing that is allowed and risky, or replaced: capabilities that stay, identities of a cloud, a kubeconfig
 * and mounts of the author's that give way.
 *
 * @param removed - names of the volumes that go: Kubernetes mounted them, and nobody misses them
 */
export function warningsFor(
  pod: Pod,
  settings: InjectionSettings,
  removed: ReadonlySet<string>,
): readonly string[] {
  return allContainers(pod)
    .filter((placed) => !isSidecar(placed))
    .flatMap((placed) => [
      ...capabilityWarnings(placed, settings.dropNetRaw),
      ...replacementWarnings(placed, removed),
    ])
    .concat(cloudWarnings(pod))
    .slice(0, MAX_WARNINGS)
}

/** An identity of a cloud may be one of the cluster, too: `aws eks get-token` makes such a one from it. */
function cloudWarnings(pod: Pod): readonly string[] {
  return pod.spec.volumes.flatMap((volume, index) => {
    const audiences = (volume.projected?.sources ?? []).map(
      ({ serviceAccountToken }) => serviceAccountToken?.audience ?? '',
    )
    const cloud = audiences.find((audience) => CLOUDS.some((pattern) => pattern.test(audience)))
    return cloud === undefined
      ? []
      : [
          `nestgate: spec.volumes[${index}] has a token for a cloud, which may be good for the cluster’s API as well`,
        ]
  })
}

function replacementWarnings(
  placed: PlacedContainer,
  removed: ReadonlySet<string>,
): readonly string[] {
  const where = containerPath(placed)
  const ours = kubeconfigVariable()
  const variable = placed.container.env.find(({ name }) => name === ours['name'])
  const isTheirs = variable !== undefined && variable.value !== ours['value']
  const mounts = placed.container.volumeMounts.filter(
    ({ name, mountPath }) =>
      name !== SERVICE_ACCOUNT_VOLUME &&
      isServiceAccountMount(mountPath ?? '') &&
      !removed.has(name ?? ''),
  )
  return [
    ...(isTheirs ? [`nestgate: ${where} sets KUBECONFIG, which is replaced`] : []),
    ...mounts.map(
      ({ name }) =>
        `nestgate: ${where} mounts ${(name ?? '').slice(0, MAX_SHOWN_NAME)} at ${SERVICE_ACCOUNT_PATH}, which is replaced`,
    ),
  ]
}

function capabilityWarnings(placed: PlacedContainer, dropNetRaw: boolean): readonly string[] {
  const risky = riskyOf(placed.container, dropNetRaw)
  if (risky.length === 0) return []
  const where = containerPath(placed)
  return [
    `nestgate: ${where} has ${risky.join(', ')}: it could speak for other processes of this pod, so they are told apart by container at best`,
  ]
}

function riskyOf(container: Container, dropNetRaw: boolean): readonly string[] {
  const { privileged, capabilities } = container.securityContext ?? {}
  if (privileged === true) return ['all capabilities (privileged)']
  const added = capabilities?.add ?? []
  const risky = Object.keys(SPEAKING_FOR_OTHERS).filter((name) => hasOneOf(added, [name, 'ALL']))
  if (!dropNetRaw && dropsNetRaw(container)) risky.push('NET_RAW (by default)')
  return risky
}

function hasOneOf(list: readonly string[], names: readonly string[]): boolean {
  const listed = capabilityNames(list)
  return names.some((name) => listed.has(name))
}
