/**
 * What a pod holds, by content and never by name: the tokens that its volumes would carry, its hold on the
 * node's namespaces, the users that it runs as. Decides what goes and what is refused; changes nothing. The
 * pod is the author's: every field is untrusted.
 */
import { isRefusal, refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import type { JsonObject } from './patch.ts'
import { allContainers } from './pod.ts'
import type { Pod } from './pod.ts'
import { checkHost } from './host.ts'
import { checkPrivileges } from './privileges.ts'
import { checkReserved, isSidecar } from './reserved.ts'
import { riskOf } from './risks.ts'
import { checkTokens, findTokenVolumes } from './tokens.ts'
import type { TokenVolumes } from './tokens.ts'
import { checkVolumes } from './volumes.ts'
import type { InjectionSettings, Profile, WantedLevel } from './sidecar-spec.ts'

/** What the rewriting needs to know of a pod that is not refused. */
export interface Inspection extends TokenVolumes {
  readonly profile: Profile
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
  const unfit = checkHost(pod) ?? checkPrivileges(pod)
  if (unfit !== undefined) return unfit
  const profile = chooseProfile(pod, settings, level)
  if (isRefusal(profile)) return profile
  const tokens = findTokenVolumes(pod, settings.apiAudiences)
  const refusal =
    checkReserved(raw, pod, settings, profile) ??
    checkVolumes(pod, settings) ??
    checkTokens(pod, tokens, settings)
  return refusal ?? { profile, ...tokens }
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
