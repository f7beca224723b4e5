/**
 * Ephemeral containers (`kubectl debug`): put into a running pod, past the rewriting. They may have what the author's containers
 * have: our kubeconfig and the in-cluster files, read-only and at their places; never the sidecar's token, its process namespace in
 * profile C (`targetContainerName`), or a privilege that reaches its memory.
 *
 * In profiles R and P the pod's processes share one namespace, and in R the sidecar's user as well: an ephemeral container sees the
 * sidecar's process there and can end it, as every container of the author's can; it cannot read it, because the sidecar is not
 * dumpable and tracing is refused. So it is allowed. Another user than the pod's in R is allowed too: the sidecar cannot look into such a
 * process, and the broker refuses callers that are not identified.
 */
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import { valueAt } from '../patch.ts'
import type { JsonObject } from '../patch.ts'
import { podSchema } from '../pod.ts'
import type { Container, Pod } from '../pod.ts'
import { checkPrivileges } from '../privileges.ts'
import { isWithin } from '../reserved.ts'
import { riskOf } from '../risks.ts'
import {
  KUBECONFIG_PATH,
  KUBECONFIG_VOLUME,
  SERVICE_ACCOUNT_PATH,
  SERVICE_ACCOUNT_VOLUME,
  SIDECAR_NAME,
  TOKEN_VOLUME,
  kubeconfigMount,
  serviceAccountMount,
} from '../sidecar-spec.ts'
import type { InjectionSettings } from '../sidecar-spec.ts'
import { checkTokens } from '../tokens.ts'
import { readBoth, readObject } from './request.ts'
import type { FinalRequest } from './request.ts'

/** What only ephemeral containers have, and how the sidecar is told its profile. */
const namesSchema = z.object({
  spec: z.object({
    ephemeralContainers: z.array(z.object({ targetContainerName: z.string().nullish() })).nullish(),
  }),
})
const nothing = { tokenVolumes: new Set<number>(), tokenVolumeNames: new Set<string>() }

/** Judges an `UPDATE pods/ephemeralcontainers`. @returns the first refusal of a container that was not there before, or undefined */
export function judgeEphemeral(
  request: FinalRequest,
  settings: InjectionSettings,
): Refusal | undefined {
  const pods = readBoth(podSchema, request)
  if (isRefusal(pods)) return pods
  const old = new Set(pods.before.spec.ephemeralContainers.map(({ name }) => name))
  const isOld = (index: number): boolean =>
    old.has(pods.after.spec.ephemeralContainers[index]?.name)
  const added = onlyAdded(pods.after, isOld)
  return (
    checkPlaces(request, added, isOld) ??
    checkPrivileges(added) ??
    checkTokens(added, nothing, settings) ??
    checkSpeaking(added, profileOf(pods.after), settings.posture)
  )
}

/** The pod with nothing but its new ephemeral containers, each where it stands. */
function onlyAdded(after: Pod, isOld: (index: number) => boolean): Pod {
  const ephemeralContainers = after.spec.ephemeralContainers.map((container, index) =>
    isOld(index) ? without(container) : container,
  )
  const none = { initContainers: [], containers: [], volumes: [], securityContext: undefined }
  return { metadata: after.metadata, spec: { ...after.spec, ...none, ephemeralContainers } }
}

/** A container that was judged when it came: nothing of it is looked at, and it loses what it would be found by. */
function without(container: Container): Container {
  const drop = ['ALL']
  return {
    ...container,
    ...{ env: [], envFrom: [], volumeMounts: [], ports: [] },
    securityContext: { capabilities: { add: [], drop } },
  }
}

/** As the sidecar is told; undefined in a pod of before the label. */
function profileOf({ spec }: Pod): string | undefined {
  const all = [...spec.initContainers, ...spec.containers]
  const sidecar = all.find(({ name }) => name === SIDECAR_NAME)
  const variable = sidecar?.env.find(({ name }) => name === 'NESTGATE_PROFILE')
  return variable?.value ?? undefined
}

function checkPlaces(
  request: FinalRequest,
  { spec }: Pod,
  isOld: (index: number) => boolean,
): Refusal | undefined {
  const names = readObject(namesSchema, request.object, 'object')
  if (isRefusal(names)) return names
  for (const [index, { name, env, volumeMounts }] of spec.ephemeralContainers.entries()) {
    if (isOld(index)) continue
    const target = names.spec.ephemeralContainers?.[index]?.targetContainerName
    const path = `spec.ephemeralContainers[${index}]`
    if (name === SIDECAR_NAME) return refuse('reserved_name', `${path}.name`)
    if (target === SIDECAR_NAME) return refuse('sidecar_entered', `${path}.targetContainerName`)
    const wrong = volumeMounts.findIndex((mount, place) => {
      const wanted = wantedMount(mount.name ?? '', mount.mountPath ?? '')
      const at = ['spec', 'ephemeralContainers', index, 'volumeMounts', place]
      return wanted !== 'any' && !isDeepStrictEqual(valueAt(request.object, at), wanted)
    })
    if (wrong !== -1) return refuse('sidecar_entered', `${path}.volumeMounts[${wrong}]`)
    const reader = env.findIndex(({ valueFrom }) => isOwn(valueFrom?.fileKeyRef?.volumeName))
    if (reader !== -1)
      return refuse('sidecar_entered', `${path}.env[${reader}].valueFrom.fileKeyRef`)
  }
  return undefined
}

function isOwn(volume: string | null | undefined): boolean {
  return [TOKEN_VOLUME, KUBECONFIG_VOLUME, SERVICE_ACCOUNT_VOLUME].includes(volume ?? '')
}

/** The one mount that a volume of ours, or a place of ours, may have; undefined where there is none. */
function wantedMount(volume: string, mountPath: string): JsonObject | 'any' | undefined {
  if (volume === TOKEN_VOLUME) return undefined
  if (volume === KUBECONFIG_VOLUME || isWithin(mountPath, KUBECONFIG_PATH)) return kubeconfigMount()
  if (volume === SERVICE_ACCOUNT_VOLUME || isWithin(mountPath, SERVICE_ACCOUNT_PATH))
    return serviceAccountMount()
  return 'any'
}

/**
 * Where processes are told apart, none may come that could speak for others: container runtimes give `NET_RAW` by default, and
 * nobody takes it from an ephemeral container for its author.
 */
function checkSpeaking(
  added: Pod,
  profile: string | undefined,
  posture: string,
): Refusal | undefined {
  const byProcess = profile === 'R' || profile === 'P'
  if (posture === 'report' || (!byProcess && posture !== 'refuse')) return undefined
  const risk = riskOf(added, false)
  return risk === undefined ? undefined : refuse('identity_level', risk)
}
