/**
 * What a pod holds, by content and never by name: the tokens that its volumes would carry, its hold on the
 * node's namespaces, the users that it runs as. Decides what goes and what is refused; changes nothing. The
 * pod is the author's: every field is untrusted.
 */
import { BROKER_AUDIENCE } from '../agent-tag.ts'
import { isRefusal, refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { JsonObject } from './patch.ts'
import { allContainers } from './pod.ts'
import type { Pod, Volume } from './pod.ts'
import { checkReserved, containerPath, isSidecar, isWithin } from './reserved.ts'
import { riskOf } from './risks.ts'
import { SERVICE_ACCOUNT_PATH, TOKEN_VOLUME } from './sidecar-spec.ts'
import type { InjectionSettings, Profile, WantedLevel } from './sidecar-spec.ts'

/**
 * Names of the Secrets that the token controller made for each service account up to 1.23: `NAME-token-`
 * and five letters of the alphabet of Kubernetes' `rand.String`, which has no vowels and no 0, 1 and 3.
 */
const TOKEN_SECRET = /-token-[bcdfghjklmnpqrstvwxz2456789]{5}$/

/** What the rewriting needs to know of a pod that is not refused. */
export interface Inspection {
  readonly profile: Profile
  /** Indices of the volumes to remove. */
  readonly tokenVolumes: ReadonlySet<number>
  /** Names of the volumes to remove; their mounts go too. */
  readonly tokenVolumeNames: ReadonlySet<string>
}

/** Whether a mount path is where in-cluster clients look for a token; no mount of the author's stays there. */
export function isServiceAccountMount(mountPath: string): boolean {
  return isWithin(mountPath, SERVICE_ACCOUNT_PATH)
}

/**
 * Inspects a pod.
 *
 * @param raw - the pod as received
 * @param pod - the same pod, decoded
 * @returns what to remove and how the sidecar runs, or the first refusal
 */
export function inspectPod(
  raw: JsonObject,
  pod: Pod,
  settings: InjectionSettings,
  level: WantedLevel,
): Inspection | Refusal {
  const profile = chooseProfile(pod, settings, level)
  if (isRefusal(profile)) return profile
  const { tokenVolumes, tokenVolumeNames } = findTokenVolumes(pod, settings.apiAudiences)
  const refusal =
    checkHost(pod) ??
    checkReserved(raw, pod, settings, profile) ??
    checkAudiences(pod) ??
    checkSecretVolumes(pod, tokenVolumes) ??
    checkSecretVariables(pod)
  return refusal ?? { profile, tokenVolumes, tokenVolumeNames }
}

function checkHost(pod: Pod): Refusal | undefined {
  const { hostNetwork, hostPID, hostIPC } = pod.spec
  if (hostNetwork === true) return refuse('host_network', 'spec.hostNetwork')
  if (hostPID === true) return refuse('host_pid', 'spec.hostPID')
  if (hostIPC === true) return refuse('host_ipc', 'spec.hostIPC')
  return undefined
}

/**
 * The first of the pod's possible profiles, best first, that is allowed and of the level that the namespace wants. A
 * container that may speak for others has none by process: the sidecar's looks at run time could be dodged.
 */
function chooseProfile(
  pod: Pod,
  { allowedProfiles: allowed, posture, dropNetRaw }: InjectionSettings,
  level: WantedLevel,
): Profile | Refusal {
  const risk = posture === 'report' ? undefined : riskOf(pod, dropNetRaw)
  if (risk !== undefined && (posture === 'refuse' || level === 'process'))
    return refuse('identity_level', risk)
  const byProcess = risk === undefined ? processProfiles(pod) : []
  const candidates: readonly Profile[] = {
    process: byProcess,
    container: [{ kind: 'C' } as const],
    any: [...byProcess, { kind: 'C' } as const],
  }[level]
  const profile = candidates.find(({ kind }) => allowed.includes(kind))
  if (profile !== undefined) return profile
  const kinds = candidates.map(({ kind }) => kind).join(' or ')
  return refuse('identity_level', `profile ${kinds} is needed, and ${allowed.join(', ')} allowed`)
}

/**
 * As whom the sidecar could run to see processes. Profile R needs one known non-root user and group for every process of the pod,
 * the sandbox's own included: its first process runs as the pod's user, so a pod-level id that the containers
 * override stands in the way as well.
 */
function processProfiles(pod: Pod): readonly Profile[] {
  const outer = pod.spec.securityContext
  const inner = allContainers(pod)
    .filter((placed) => !isSidecar(placed))
    .map((placed) => placed.container.securityContext)
  const uid = commonId(
    outer?.runAsUser,
    inner.map((context) => context?.runAsUser),
  )
  const gid = commonId(
    outer?.runAsGroup,
    inner.map((context) => context?.runAsGroup),
  )
  const own = uid !== undefined && uid > 0 && gid !== undefined
  return own ? [{ kind: 'R', uid, gid }, { kind: 'P' }] : [{ kind: 'P' }]
}

type OptionalId = number | null | undefined

/** The one id that a pod and all its containers run with, or undefined where it is not one or not known. */
function commonId(outer: OptionalId, inner: readonly OptionalId[]): number | undefined {
  const ids = new Set(inner.map((id) => id ?? outer ?? undefined))
  if (typeof outer === 'number') ids.add(outer)
  const [id] = ids
  return ids.size === 1 ? id : undefined
}

function findTokenVolumes(
  pod: Pod,
  apiAudiences: readonly string[],
): { tokenVolumes: ReadonlySet<number>; tokenVolumeNames: ReadonlySet<string> } {
  const atServiceAccountPath = new Set<string>()
  for (const { container } of allContainers(pod)) {
    for (const mount of container.volumeMounts) {
      if (isServiceAccountMount(mount.mountPath ?? '')) atServiceAccountPath.add(mount.name ?? '')
    }
  }
  const tokenVolumes = new Set<number>()
  const tokenVolumeNames = new Set<string>()
  for (const [index, volume] of pod.spec.volumes.entries()) {
    const name = volume.name ?? ''
    const automounted = (volume.secret ?? null) !== null && atServiceAccountPath.has(name)
    if (!automounted && !hasApiToken(volume, apiAudiences)) continue
    tokenVolumes.add(index)
    tokenVolumeNames.add(name)
  }
  return { tokenVolumes, tokenVolumeNames }
}

/** A token without audience is good for the API server (core/v1, ServiceAccountTokenProjection). */
function hasApiToken(volume: Volume, apiAudiences: readonly string[]): boolean {
  return (volume.projected?.sources ?? []).some(({ serviceAccountToken: token }) => {
    if (token === undefined || token === null) return false
    const audience = token.audience ?? ''
    return audience === '' || apiAudiences.includes(audience)
  })
}

function checkAudiences(pod: Pod): Refusal | undefined {
  for (const [index, volume] of pod.spec.volumes.entries()) {
    // A volume of this name has been found equal to ours by checkReserved.
    if (volume.name === TOKEN_VOLUME) continue
    for (const [place, source] of (volume.projected?.sources ?? []).entries()) {
      if (source.serviceAccountToken?.audience === BROKER_AUDIENCE) {
        const path = `spec.volumes[${index}].projected.sources[${place}].serviceAccountToken`
        return refuse('token_audience', path)
      }
    }
  }
  return undefined
}

function checkSecretVolumes(pod: Pod, removed: ReadonlySet<number>): Refusal | undefined {
  for (const [index, volume] of pod.spec.volumes.entries()) {
    if (removed.has(index)) continue
    const path = `spec.volumes[${index}]`
    if (isTokenSecret(volume.secret?.secretName))
      return refuse('token_secret', `${path}.secret.secretName`)
    const place = (volume.projected?.sources ?? []).findIndex((source) =>
      isTokenSecret(source.secret?.name),
    )
    if (place !== -1)
      return refuse('token_secret', `${path}.projected.sources[${place}].secret.name`)
  }
  return undefined
}

function checkSecretVariables(pod: Pod): Refusal | undefined {
  for (const placed of allContainers(pod)) {
    const { env, envFrom } = placed.container
    const variable = env.findIndex((entry) => isTokenSecret(entry.valueFrom?.secretKeyRef?.name))
    if (variable !== -1)
      return refuse(
        'token_secret',
        `${containerPath(placed)}.env[${variable}].valueFrom.secretKeyRef`,
      )
    const source = envFrom.findIndex((entry) => isTokenSecret(entry.secretRef?.name))
    if (source !== -1)
      return refuse('token_secret', `${containerPath(placed)}.envFrom[${source}].secretRef`)
  }
  return undefined
}

function isTokenSecret(name: string | null | undefined): boolean {
  return TOKEN_SECRET.test(name ?? '')
}
