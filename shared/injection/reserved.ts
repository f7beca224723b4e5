/**
 * Names that Nestgate reserves in a pod. What carries one is either what the webhook would write itself, as a
 * pod has it that was injected before, or it is refused: an injector that skips what is "already there"
 * lets the author bring a sidecar of their own. Nothing of the author's is ever merged into ours.
 */
import { isDeepStrictEqual } from 'node:util'
import { posix } from 'node:path'
import { isRecord } from '../config.ts'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { JsonObject } from './patch.ts'
import { valueAt } from './patch.ts'
import { allContainers, isBounded } from './pod.ts'
import type { PlacedContainer, Pod } from './pod.ts'
import { sameQuantity } from './quantity.ts'
import {
  KUBECONFIG_PATH,
  KUBECONFIG_VOLUME,
  SERVICE_ACCOUNT_VOLUME,
  SIDECAR_NAME,
  TOKEN_VOLUME,
  kubeconfigMount,
  kubeconfigVolume,
  serviceAccountMount,
  serviceAccountVolume,
  sidecarContainer,
  tokenVolume,
} from './sidecar-spec.ts'
import type { InjectionSettings, Profile } from './sidecar-spec.ts'

/** Longest part of an annotation's key that is repeated. */
const MAX_SHOWN_KEY = 128
const OWN_VOLUMES: readonly string[] = [TOKEN_VOLUME, KUBECONFIG_VOLUME, SERVICE_ACCOUNT_VOLUME]

/** A mount path without repeated slashes, dots and the `/run` alias, so that one place has one spelling. */
export function plainPath(path: string): string {
  const plain = posix.normalize(`/${path}`).replace(/^\/+/, '/').replace(/\/$/, '')
  return plain.startsWith('/run/') ? `/var${plain}` : plain
}

/** Whether a mount path is `folder` or lies in it. */
export function isWithin(path: string, folder: string): boolean {
  // Whatever is left out of a path to make it plain, its last folder's name stands in it: most paths need no more than this.
  if (!path.includes(folder.slice(folder.lastIndexOf('/') + 1))) return false
  const plain = plainPath(path)
  return plain === folder || plain.startsWith(`${folder}/`)
}

/** Refuses reserved names that hold anything but our own; undefined where all is well. */
export function checkReserved(
  raw: JsonObject,
  pod: Pod,
  settings: InjectionSettings,
  profile: Profile,
): Refusal | undefined {
  return (
    checkSidecars(raw, pod, settings, profile) ??
    checkVolume(raw, pod, TOKEN_VOLUME, tokenVolume(settings)) ??
    checkVolume(raw, pod, KUBECONFIG_VOLUME, kubeconfigVolume()) ??
    checkVolume(raw, pod, SERVICE_ACCOUNT_VOLUME, serviceAccountVolume()) ??
    checkMounts(raw, pod) ??
    checkReferences(pod)
  )
}

function reserved(path: string, what: string): Refusal {
  return refuse('reserved_name', `${path} ${what}`)
}

function checkSidecars(
  raw: JsonObject,
  pod: Pod,
  settings: InjectionSettings,
  profile: Profile,
): Refusal | undefined {
  const home = settings.mode === 'native' ? 'initContainers' : 'containers'
  const [first, second] = allContainers(pod).filter(isSidecar)
  if (first === undefined) return undefined
  if (second !== undefined) return reserved(containerPath(second), `is a second ${SIDECAR_NAME}`)
  if (first.list !== home)
    return reserved(containerPath(first), `is named ${SIDECAR_NAME}, which belongs in ${home}`)
  const theirs = valueAt(raw, ['spec', first.list, first.index])
  if (isOursUnderAny(theirs, pod, settings)) return undefined
  const ours = sidecarContainer(settings, profile, isBounded(pod))
  const difference = sidecarDifference(theirs, ours) ?? 'name'
  return reserved(`${containerPath(first)}.${difference}`, 'is not what Nestgate injects')
}

/**
 * Whether a sidecar is what we would write into this pod under any of the profiles. Another webhook that sets the pod's
 * users after us changes which one is right: then ours of before is replaced, of which nothing is the author's.
 */
function isOursUnderAny(theirs: unknown, pod: Pod, settings: InjectionSettings): boolean {
  const uid = valueAt(theirs, ['securityContext', 'runAsUser'])
  const gid = valueAt(theirs, ['securityContext', 'runAsGroup'])
  const profiles: Profile[] = [{ kind: 'P' }, { kind: 'C' }]
  if (typeof uid === 'number' && typeof gid === 'number') profiles.push({ kind: 'R', uid, gid })
  return profiles.some((profile) => isOurs(theirs, pod, settings, profile))
}

/** Whether a sidecar is what we would write into this pod. */
export function isOurs(
  theirs: unknown,
  pod: Pod,
  settings: InjectionSettings,
  profile: Profile,
): boolean {
  return (
    sidecarDifference(theirs, sidecarContainer(settings, profile, isBounded(pod))) === undefined
  )
}

/** Whether a container carries the sidecar's name. */
export function isSidecar(placed: PlacedContainer): boolean {
  return placed.container.name === SIDECAR_NAME
}

/** A container's place in the way error messages of the API server name it. */
export function containerPath(placed: PlacedContainer): string {
  return `spec.${placed.list}[${placed.index}]`
}

/**
 * Name of a field in which a sidecar differs from ours, or undefined. Tolerated is only what the API server
 * and its admission plugins write: resources beside ours (LimitRanger), `resizePolicy` (defaulted from 1.27
 * on), the pull policy `Always` (AlwaysPullImages), the default `procMount`.
 */
function sidecarDifference(theirs: unknown, ours: JsonObject): string | undefined {
  if (!isRecord(theirs)) return 'name'
  const names = new Set([...Object.keys(ours), ...Object.keys(theirs)])
  return [...names].find((name) => !sameField(name, theirs[name] ?? undefined, ours[name]))
}

function sameField(name: string, theirs: unknown, ours: unknown): boolean {
  if (name === 'resizePolicy') return true
  if (name === 'resources') return sameResources(theirs, ours)
  if (name === 'imagePullPolicy' && theirs === 'Always') return true
  if (name === 'securityContext' && isRecord(theirs) && isRecord(ours))
    return isDeepStrictEqual({ procMount: 'Default', ...theirs }, { procMount: 'Default', ...ours })
  return isDeepStrictEqual(theirs, ours)
}

/** Members of a container's resources that are amounts; `claims` would bring devices, with their mounts and variables, into the container. */
const AMOUNTS: readonly string[] = ['requests', 'limits']

/** Whether each amount of ours is there; what is beside them, and all of it where ours has none, is the cluster's business. */
function sameResources(theirs: unknown, ours: unknown): boolean {
  if (!isRecord(theirs) || !isRecord(ours)) return false
  if (Object.keys(theirs).some((kind) => !AMOUNTS.includes(kind))) return false
  return Object.entries(ours).every(([kind, amounts]) =>
    Object.entries(isRecord(amounts) ? amounts : {}).every(([name, amount]) =>
      sameQuantity(valueAt(theirs, [kind, name]), amount),
    ),
  )
}

/**
 * API servers of 1.19 to 1.26 write the profile of each container down as an annotation, too, before the final state is looked
 * at (kubernetes 1.20, pkg/registry/core/pod/strategy.go, applySeccompVersionSkew): ours is no word of the author's.
 */
const SECCOMP = `container.seccomp.security.alpha.kubernetes.io/${SIDECAR_NAME}`
const OWN_SECCOMP = 'runtime/default'

/** Ways to our volumes and container that are no mounts: variables read from a volume's file, annotations for one container. */
function checkReferences(pod: Pod): Refusal | undefined {
  const annotation = Object.entries(pod.metadata?.annotations ?? {}).find(
    ([key, value]) =>
      key.endsWith(`/${SIDECAR_NAME}`) && !(key === SECCOMP && value === OWN_SECCOMP),
  )?.[0]
  if (annotation !== undefined)
    return reserved(
      `metadata.annotations[${annotation.slice(0, MAX_SHOWN_KEY)}]`,
      `is about ${SIDECAR_NAME}`,
    )
  for (const placed of allContainers(pod)) {
    const index = placed.container.env.findIndex(({ valueFrom }) =>
      OWN_VOLUMES.includes(valueFrom?.fileKeyRef?.volumeName ?? ''),
    )
    if (index !== -1)
      return reserved(
        `${containerPath(placed)}.env[${index}].valueFrom.fileKeyRef`,
        'reads a volume of Nestgate’s',
      )
  }
  return undefined
}

function checkVolume(
  raw: JsonObject,
  pod: Pod,
  name: string,
  ours: JsonObject,
): Refusal | undefined {
  const places = pod.spec.volumes.flatMap((volume, index) => (volume.name === name ? [index] : []))
  const [first, second] = places
  if (first === undefined) return undefined
  const path = `spec.volumes[${second ?? first}]`
  if (second !== undefined) return reserved(path, `is a second ${name}`)
  if (isDeepStrictEqual(valueAt(raw, ['spec', 'volumes', first]), ours)) return undefined
  return reserved(path, `is named ${name} and is not what Nestgate injects`)
}

function checkMounts(raw: JsonObject, pod: Pod): Refusal | undefined {
  for (const placed of allContainers(pod)) {
    if (isSidecar(placed)) continue
    for (const [index, mount] of placed.container.volumeMounts.entries()) {
      const path = `${containerPath(placed)}.volumeMounts[${index}]`
      if (mount.name === TOKEN_VOLUME)
        return reserved(path, `mounts ${TOKEN_VOLUME}, which only the sidecar may`)
      const theirs = valueAt(raw, ['spec', placed.list, placed.index, 'volumeMounts', index])
      if (mount.name === SERVICE_ACCOUNT_VOLUME) {
        if (isDeepStrictEqual(theirs, serviceAccountMount())) continue
        return reserved(path, `uses ${SERVICE_ACCOUNT_VOLUME}`)
      }
      const ours = mount.name === KUBECONFIG_VOLUME
      if (!ours && !isWithin(mount.mountPath ?? '', KUBECONFIG_PATH)) continue
      if (!isDeepStrictEqual(theirs, kubeconfigMount()))
        return reserved(path, `uses ${ours ? KUBECONFIG_VOLUME : KUBECONFIG_PATH}`)
    }
  }
  return undefined
}
