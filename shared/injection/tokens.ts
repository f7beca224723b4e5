/**
 * The tokens that a pod's volumes and variables would carry, found by content and never by name. What Kubernetes itself
 * mounted goes; what the author asked for by name is refused, because a pod that starts without it would fail oddly.
 */
import { BROKER_AUDIENCE } from '../agent-tag.ts'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import { allContainers } from './pod.ts'
import type { Pod, Volume } from './pod.ts'
import { containerPath, isWithin } from './reserved.ts'
import { SERVICE_ACCOUNT_PATH, TOKEN_VOLUME } from './sidecar-spec.ts'
import type { InjectionSettings } from './sidecar-spec.ts'

/**
 * Names of the Secrets that the token controller made for each service account up to 1.23: `NAME-token-`
 * and five letters of the alphabet of Kubernetes' `rand.String`, which has no vowels and no 0, 1 and 3.
 */
const TOKEN_SECRET = /-token-[bcdfghjklmnpqrstvwxz2456789]{5}$/

/** Such names are cut before the letters (SimpleNameGenerator: 63 characters in all), so of an account with a long name less of `-token-` is left. */
const CUT_TOKEN_SECRET = /-(t(o(k(en?)?)?)?)?[bcdfghjklmnpqrstvwxz2456789]{5}$/
const MAX_GENERATED_NAME = 63

/** Volumes that hold a token for the API server, or a Secret where one is looked for. */
export interface TokenVolumes {
  /** Indices of the volumes to remove. */
  readonly tokenVolumes: ReadonlySet<number>
  /** Names of the volumes to remove; their mounts go too. */
  readonly tokenVolumeNames: ReadonlySet<string>
}

/** Whether a mount path is where in-cluster clients look for a token; no mount of the author's stays there. */
export function isServiceAccountMount(mountPath: string): boolean {
  return isWithin(mountPath, SERVICE_ACCOUNT_PATH)
}

/** Finds the volumes to remove. What {@link checkTokens} then refuses is among them. */
export function findTokenVolumes(pod: Pod, apiAudiences: readonly string[]): TokenVolumes {
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
    if (!automounted && apiTokenOf(volume, apiAudiences) === -1) continue
    tokenVolumes.add(index)
    tokenVolumeNames.add(name)
  }
  return { tokenVolumes, tokenVolumeNames }
}

/** Refuses the tokens that the author asked for; undefined where there is none. */
export function checkTokens(
  pod: Pod,
  tokens: TokenVolumes,
  settings: InjectionSettings,
): Refusal | undefined {
  return (
    checkPlaces(pod, tokens, settings.apiAudiences) ??
    checkAudiences(pod, settings) ??
    checkSecretVolumes(pod, tokens.tokenVolumes) ??
    checkSecretVariables(pod)
  )
}

/** Index of the projected source with a token for the API server: without audience it is (ServiceAccountTokenProjection). */
function apiTokenOf(volume: Volume, apiAudiences: readonly string[]): number {
  return (volume.projected?.sources ?? []).findIndex(({ serviceAccountToken: token }) => {
    if (token === undefined || token === null) return false
    const audience = token.audience ?? ''
    return audience === '' || apiAudiences.includes(audience)
  })
}

/** A volume to be removed that is mounted outside the service account's path too was wanted. */
function checkPlaces(
  pod: Pod,
  { tokenVolumes }: TokenVolumes,
  apiAudiences: readonly string[],
): Refusal | undefined {
  const elsewhere = new Set<string>()
  for (const { container } of allContainers(pod)) {
    for (const { name, mountPath } of container.volumeMounts) {
      if (!isServiceAccountMount(mountPath ?? '')) elsewhere.add(name ?? '')
    }
  }
  for (const index of tokenVolumes) {
    const volume = pod.spec.volumes[index]
    if (volume === undefined || !elsewhere.has(volume.name ?? '')) continue
    const path = `spec.volumes[${index}]`
    const source = apiTokenOf(volume, apiAudiences)
    if (source === -1) return refuse('token_secret', `${path}.secret.secretName`)
    return refuse(
      'token_api_audience',
      `${path}.projected.sources[${source}].serviceAccountToken.audience`,
    )
  }
  return undefined
}

function checkAudiences(
  pod: Pod,
  { apiAudiences, allowedAudiences }: InjectionSettings,
): Refusal | undefined {
  for (const [index, volume] of pod.spec.volumes.entries()) {
    // A volume of this name has been found equal to ours by checkReserved.
    if (volume.name === TOKEN_VOLUME) continue
    for (const [place, source] of (volume.projected?.sources ?? []).entries()) {
      const audience = source.serviceAccountToken?.audience ?? ''
      if (audience === '' || apiAudiences.includes(audience)) continue
      const path = `spec.volumes[${index}].projected.sources[${place}].serviceAccountToken.audience`
      if (audience === BROKER_AUDIENCE) return refuse('token_audience', path)
      if (!allowedAudiences.includes(audience)) return refuse('token_audience_not_allowed', path)
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

/** Whether a Secret is by its name one that the token controller made. */
export function isTokenSecret(name: string | null | undefined): boolean {
  const text = name ?? ''
  const isCut = text.length === MAX_GENERATED_NAME && CUT_TOKEN_SECRET.test(text)
  return isCut || TOKEN_SECRET.test(text)
}
