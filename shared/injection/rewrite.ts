/**
 * The rewriting of one pod, in order: the API token goes, the loopback kubeconfig and the broker token come,
 * the sidecar comes last (it shifts the indices of its list). Only paths that Nestgate owns are touched, so
 * whatever else the author or another webhook wrote stays as it is. Doing it again changes nothing.
 */
import { isDeepStrictEqual } from 'node:util'
import { isServiceAccountMount } from './tokens.ts'
import type { Inspection } from './inspect.ts'
import type { Draft, JsonObject } from './patch.ts'
import { valueAt } from './patch.ts'
import { allContainers, isBounded } from './pod.ts'
import type { PlacedContainer, Pod } from './pod.ts'
import { isOurs, isSidecar } from './reserved.ts'
import { dropsNetRaw } from './risks.ts'
import {
  DEFAULT_CONTAINER_ANNOTATION,
  KUBECONFIG_ANNOTATION,
  KUBECONFIG_VOLUME,
  SERVICE_ACCOUNT_VOLUME,
  SIDECAR_NAME,
  STATUS_ANNOTATION,
  TOKEN_VOLUME,
  inClusterVariables,
  kubeconfigMount,
  kubeconfigText,
  kubeconfigVariable,
  kubeconfigVolume,
  serviceAccountMount,
  serviceAccountVolume,
  sidecarContainer,
  statusText,
  tokenVolume,
} from './sidecar-spec.ts'
import type { InjectionSettings } from './sidecar-spec.ts'

/** What the rewriting of one pod starts from. */
export interface Rewriting {
  readonly pod: Pod
  readonly inspection: Inspection
  readonly settings: InjectionSettings
  /** The review's namespace; the pod's own may be empty. */
  readonly namespace: string
}

/** Rewrites the pod in the draft. `rewriting.pod` is the draft's pod before any operation. */
export function rewritePod(draft: Draft, rewriting: Rewriting): void {
  const authors = allContainers(rewriting.pod).filter((placed) => !isSidecar(placed))
  rewritePodLevel(draft, rewriting)
  for (const placed of authors) removeTokenMounts(draft, placed, rewriting.inspection)
  const { tokenVolumes } = rewriting.inspection
  draft.removeWhere(['spec', 'volumes'], (_volume, index) => tokenVolumes.has(index))
  for (const placed of authors) {
    pointAtSidecar(draft, placed)
    if (rewriting.settings.dropNetRaw && dropsNetRaw(placed.container))
      draft.append([...pathOf(placed), 'securityContext', 'capabilities', 'drop'], 'NET_RAW')
  }
  addVolume(draft, TOKEN_VOLUME, tokenVolume(rewriting.settings))
  addVolume(draft, KUBECONFIG_VOLUME, kubeconfigVolume())
  addVolume(draft, SERVICE_ACCOUNT_VOLUME, serviceAccountVolume())
  annotate(draft, rewriting)
  placeSidecar(draft, rewriting)
}

function rewritePodLevel(draft: Draft, { inspection }: Rewriting): void {
  // Without this the ServiceAccount plugin, which the API server runs again after us, would mount the token anew.
  draft.set(['spec', 'automountServiceAccountToken'], false)
  const { profile } = inspection
  draft.set(['spec', 'shareProcessNamespace'], profile.kind !== 'C')
  if (profile.kind !== 'R') return
  // For the sandbox's own process, which must be as readable to the sidecar as all others. Where the author
  // has set them they are equal already: that is what makes it profile R.
  draft.set(['spec', 'securityContext', 'runAsUser'], profile.uid)
  draft.set(['spec', 'securityContext', 'runAsGroup'], profile.gid)
}

function removeTokenMounts(draft: Draft, placed: PlacedContainer, inspection: Inspection): void {
  const mounts = placed.container.volumeMounts
  draft.removeWhere([...pathOf(placed), 'volumeMounts'], (_mount, index) => {
    const { name, mountPath } = mounts[index] ?? {}
    // A mount of this volume has been found equal to ours by checkReserved.
    if (name === SERVICE_ACCOUNT_VOLUME) return false
    return inspection.tokenVolumeNames.has(name ?? '') || isServiceAccountMount(mountPath ?? '')
  })
}

/** What clients read, whether they look for a kubeconfig or for what the kubelet gives to in-cluster clients. */
function pointAtSidecar(draft: Draft, placed: PlacedContainer): void {
  setInClusterVariables(draft, placed)
  setKubeconfig(draft, placed)
  const mounted = new Set(placed.container.volumeMounts.map((mount) => mount.name))
  // Mounts of these volumes have been found equal to ours by checkReserved.
  const path = [...pathOf(placed), 'volumeMounts']
  if (!mounted.has(KUBECONFIG_VOLUME)) draft.append(path, kubeconfigMount())
  if (!mounted.has(SERVICE_ACCOUNT_VOLUME)) draft.append(path, serviceAccountMount())
}

/** In front, so that `$(KUBERNETES_SERVICE_HOST)` in a later variable of the author's means ours too; theirs go. */
function setInClusterVariables(draft: Draft, placed: PlacedContainer): void {
  const path = [...pathOf(placed), 'env']
  const ours = inClusterVariables()
  const names = new Set(ours.map((variable) => variable['name']))
  const { env } = placed.container
  const settled =
    env.filter((entry) => names.has(entry.name)).length === ours.length &&
    ours.every((variable, index) => isDeepStrictEqual(draft.valueAt([...path, index]), variable))
  if (settled) return
  draft.removeWhere(path, (_entry, place) => names.has(env[place]?.name))
  for (const [index, variable] of ours.entries()) draft.insert(path, index, variable)
}

/** `KUBECONFIG` once, and ours; the last of several would win, and an author's could name a file of their own. */
function setKubeconfig(draft: Draft, placed: PlacedContainer): void {
  const path = [...pathOf(placed), 'env']
  const variable = kubeconfigVariable()
  const isIt = (entry: unknown): boolean => valueAt(entry, ['name']) === variable['name']
  const env = draft.valueAt(path)
  const theirs = Array.isArray(env) ? env.filter(isIt) : []
  if (theirs.length === 1 && isDeepStrictEqual(theirs[0], variable)) return
  draft.removeWhere(path, isIt)
  draft.append(path, variable)
}

function addVolume(draft: Draft, name: string, volume: JsonObject): void {
  const volumes = draft.valueAt(['spec', 'volumes'])
  const there = Array.isArray(volumes) && volumes.some((entry) => valueAt(entry, ['name']) === name)
  if (!there) draft.append(['spec', 'volumes'], volume)
}

function annotate(draft: Draft, { pod, inspection, settings, namespace }: Rewriting): void {
  const path = ['metadata', 'annotations']
  draft.set([...path, KUBECONFIG_ANNOTATION], kubeconfigText(namespace))
  draft.set([...path, STATUS_ANNOTATION], statusText(settings, inspection.profile))
  const author = pod.spec.containers.find((container) => container.name !== SIDECAR_NAME)
  if (settings.mode === 'native' || author?.name === undefined || author.name === null) return
  // The sidecar comes first in the list, and kubectl takes the first.
  if (draft.valueAt([...path, DEFAULT_CONTAINER_ANNOTATION]) === undefined)
    draft.set([...path, DEFAULT_CONTAINER_ANNOTATION], author.name)
}

/**
 * First in its list: what starts before it could take its ports. One that is there has been found to be ours, of this profile or
 * of one that was right before another webhook changed the pod's users.
 */
function placeSidecar(draft: Draft, { pod, inspection, settings }: Rewriting): void {
  const path = ['spec', settings.mode === 'native' ? 'initContainers' : 'containers']
  const there = allContainers(pod).find(isSidecar)
  const theirs = there && draft.valueAt([...path, there.index])
  const isRight = isOurs(theirs, pod, settings, inspection.profile)
  if (there?.index === 0 && isRight) return
  draft.removeWhere(path, (_container, index) => index === there?.index)
  draft.insert(
    path,
    0,
    isRight ? theirs : sidecarContainer(settings, inspection.profile, isBounded(pod)),
  )
}

function pathOf(placed: PlacedContainer): readonly (string | number)[] {
  return ['spec', placed.list, placed.index]
}
