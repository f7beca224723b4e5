/**
 * The rewriting of one pod, in order: the API token goes, the loopback kubeconfig and the broker token come,
 * the sidecar comes last (it shifts the indices of its list). Only paths that Nestgate owns are touched, so
 * whatever else the author or another webhook wrote stays as it is. Doing it again changes nothing.
 */
import { isDeepStrictEqual } from 'node:util'
import { isServiceAccountMount } from './inspect.ts'
import type { Inspection } from './inspect.ts'
import type { Draft, JsonObject } from './patch.ts'
import { valueAt } from './patch.ts'
import { allContainers } from './pod.ts'
import type { PlacedContainer, Pod } from './pod.ts'
import { isSidecar } from './reserved.ts'
import {
  DEFAULT_CONTAINER_ANNOTATION,
  KUBECONFIG_ANNOTATION,
  KUBECONFIG_VOLUME,
  SIDECAR_NAME,
  STATUS_ANNOTATION,
  TOKEN_VOLUME,
  kubeconfigMount,
  kubeconfigText,
  kubeconfigVariable,
  kubeconfigVolume,
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
  for (const placed of authors) pointAtSidecar(draft, placed)
  addVolume(draft, TOKEN_VOLUME, tokenVolume(rewriting.settings))
  addVolume(draft, KUBECONFIG_VOLUME, kubeconfigVolume())
  annotate(draft, rewriting)
  if (authors.length === allContainers(rewriting.pod).length) addSidecar(draft, rewriting)
}

function rewritePodLevel(draft: Draft, { inspection }: Rewriting): void {
  // Without this the ServiceAccount plugin, which the API server runs again after us, would mount the token anew.
  draft.set(['spec', 'automountServiceAccountToken'], false)
  draft.set(['spec', 'shareProcessNamespace'], true)
  const { profile } = inspection
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
    return inspection.tokenVolumeNames.has(name ?? '') || isServiceAccountMount(mountPath ?? '')
  })
}

/** `KUBECONFIG` once, and ours; the last of several would win, and an author's could name a file of their own. */
function pointAtSidecar(draft: Draft, placed: PlacedContainer): void {
  const path = pathOf(placed)
  const variable = kubeconfigVariable()
  const theirs = placed.container.env.filter((entry) => entry.name === variable['name'])
  const index = placed.container.env.findIndex((entry) => entry.name === variable['name'])
  const settled =
    theirs.length === 1 && isDeepStrictEqual(draft.valueAt([...path, 'env', index]), variable)
  if (!settled) {
    draft.removeWhere(
      [...path, 'env'],
      (_entry, place) => placed.container.env[place]?.name === variable['name'],
    )
    draft.append([...path, 'env'], variable)
  }
  // A mount of this volume has been found equal to ours by checkReserved.
  const mounted = placed.container.volumeMounts.some((mount) => mount.name === KUBECONFIG_VOLUME)
  if (!mounted) draft.append([...path, 'volumeMounts'], kubeconfigMount())
}

function addVolume(draft: Draft, name: string, volume: JsonObject): void {
  const volumes = draft.valueAt(['spec', 'volumes'])
  const there = Array.isArray(volumes) && volumes.some((entry) => valueAt(entry, ['name']) === name)
  if (!there) draft.append(['spec', 'volumes'], volume)
}

function annotate(draft: Draft, { pod, inspection, settings, namespace }: Rewriting): void {
  const path = ['metadata', 'annotations']
  draft.set([...path, KUBECONFIG_ANNOTATION], kubeconfigText(namespace))
  draft.set([...path, STATUS_ANNOTATION], statusText(settings.mode, inspection.profile))
  const author = pod.spec.containers.find((container) => container.name !== SIDECAR_NAME)
  if (settings.mode === 'native' || author?.name === undefined || author.name === null) return
  // The sidecar comes first in the list, and kubectl takes the first.
  if (draft.valueAt([...path, DEFAULT_CONTAINER_ANNOTATION]) === undefined)
    draft.set([...path, DEFAULT_CONTAINER_ANNOTATION], author.name)
}

function addSidecar(draft: Draft, { inspection, settings }: Rewriting): void {
  const list = settings.mode === 'native' ? 'initContainers' : 'containers'
  draft.insert(['spec', list], 0, sidecarContainer(settings, inspection.profile))
}

function pathOf(placed: PlacedContainer): readonly (string | number)[] {
  return ['spec', placed.list, placed.index]
}
