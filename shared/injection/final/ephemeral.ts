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
import { z } from 'zod'
import { isDeepStrictEqual } from 'node:util'
import { capabilityNames } from '../../capabilities.ts'
import { isRefusal, refuse } from '../../reasons.ts'
import type { Refusal } from '../../reasons.ts'
import type { JsonObject } from '../patch.ts'
import {
  KUBECONFIG_PATH,
  KUBECONFIG_VOLUME,
  SERVICE_ACCOUNT_PATH,
  SERVICE_ACCOUNT_VOLUME,
  SIDECAR_ID,
  SIDECAR_NAME,
  TOKEN_VOLUME,
  kubeconfigMount,
  serviceAccountMount,
} from '../sidecar-spec.ts'
import { isWithin } from '../reserved.ts'
import { readBoth } from './request.ts'
import type { FinalRequest } from './request.ts'

/** Capabilities that reach the node or the sidecar's memory (0008, A18). */
const REACHING = [
  'ALL',
  'SYS_ADMIN',
  'SYS_PTRACE',
  'SYS_MODULE',
  'SYS_RAWIO',
  'DAC_READ_SEARCH',
  'BPF',
  'PERFMON',
  'CHECKPOINT_RESTORE',
] as const
/** Capabilities by which a process can speak for others. */
const SPEAKING = ['NET_RAW', 'NET_ADMIN'] as const
/** As in ../inspect.ts: names that the token controller gave up to 1.23. */
const TOKEN_SECRET = /-token-[bcdfghjklmnpqrstvwxz2456789]{5}$/

const name = z.string().nullish()
const secret = z.object({ name }).nullish()
const capabilities = z.array(z.string()).nullish()
const contextSchema = z
  .object({
    runAsUser: z.number().nullish(),
    runAsGroup: z.number().nullish(),
    privileged: z.boolean().nullish(),
    procMount: z.string().nullish(),
    capabilities: z.object({ add: capabilities, drop: capabilities }).nullish(),
  })
  .nullish()
const ephemeralSchema = z.object({
  name,
  targetContainerName: name,
  env: z.array(z.object({ valueFrom: z.object({ secretKeyRef: secret }).nullish() })).nullish(),
  envFrom: z.array(z.object({ secretRef: secret })).nullish(),
  volumeMounts: z
    .array(
      z.record(z.string(), z.unknown()).and(z.object({ name, mountPath: z.string().nullish() })),
    )
    .nullish(),
  securityContext: contextSchema,
})
const sidecarsSchema = z
  .array(
    z.object({
      name,
      env: z.array(z.object({ name, value: z.string().nullish() })).nullish(),
    }),
  )
  .nullish()
const podSchema = z.object({
  spec: z.object({
    initContainers: sidecarsSchema,
    containers: sidecarsSchema,
    ephemeralContainers: z.array(ephemeralSchema).nullish(),
  }),
})

type Pod = z.infer<typeof podSchema>
type Ephemeral = z.infer<typeof ephemeralSchema>

/** @param posture - as in the settings @returns the first refusal of a container that was not there before, or undefined */
export function judgeEphemeral(request: FinalRequest, posture: string): Refusal | undefined {
  const pods = readBoth(podSchema, request)
  if (isRefusal(pods)) return pods
  const { before, after } = pods
  const old = new Set((before.spec.ephemeralContainers ?? []).map((container) => container.name))
  const profile = profileOf(after)
  for (const [index, container] of (after.spec.ephemeralContainers ?? []).entries()) {
    if (old.has(container.name)) continue
    const path = `spec.ephemeralContainers[${index}]`
    const refusal =
      checkPlace(container, path) ??
      checkMounts(container, path) ??
      checkSecrets(container, path) ??
      checkPrivileges(container, path) ??
      checkUser(container, path, profile) ??
      checkSpeaking(container, path, profile, posture)
    if (refusal !== undefined) return refusal
  }
  return undefined
}

/** As the sidecar is told; undefined in a pod of before the label. */
function profileOf({ spec }: Pod): string | undefined {
  const all = [...(spec.initContainers ?? []), ...(spec.containers ?? [])]
  const sidecar = all.find((container) => container.name === SIDECAR_NAME)
  const variable = sidecar?.env?.find((entry) => entry.name === 'NESTGATE_PROFILE')
  return variable?.value ?? undefined
}

function checkPlace(container: Ephemeral, path: string): Refusal | undefined {
  if (container.name === SIDECAR_NAME) return refuse('reserved_name', `${path}.name`)
  if (container.targetContainerName !== SIDECAR_NAME) return undefined
  return refuse('sidecar_entered', `${path}.targetContainerName`)
}

function checkMounts(container: Ephemeral, path: string): Refusal | undefined {
  for (const [index, mount] of (container.volumeMounts ?? []).entries()) {
    const wanted = wantedMount(mount.name ?? '', mount.mountPath ?? '')
    if (wanted === 'any' || isDeepStrictEqual(mount, wanted)) continue
    return refuse('sidecar_entered', `${path}.volumeMounts[${index}]`)
  }
  return undefined
}

/** The one mount that a volume of ours, or a place of ours, may have; undefined where there is none. */
function wantedMount(volume: string, mountPath: string): JsonObject | 'any' | undefined {
  if (volume === TOKEN_VOLUME) return undefined
  if (volume === KUBECONFIG_VOLUME || isWithin(mountPath, KUBECONFIG_PATH)) return kubeconfigMount()
  if (volume === SERVICE_ACCOUNT_VOLUME || isWithin(mountPath, SERVICE_ACCOUNT_PATH))
    return serviceAccountMount()
  return 'any'
}

function checkSecrets({ env, envFrom }: Ephemeral, path: string): Refusal | undefined {
  const variable = (env ?? []).findIndex(({ valueFrom }) => isTokenSecret(valueFrom?.secretKeyRef))
  if (variable !== -1)
    return refuse('token_secret', `${path}.env[${variable}].valueFrom.secretKeyRef`)
  const source = (envFrom ?? []).findIndex(({ secretRef }) => isTokenSecret(secretRef))
  return source === -1 ? undefined : refuse('token_secret', `${path}.envFrom[${source}].secretRef`)
}

function isTokenSecret(reference: z.infer<typeof secret>): boolean {
  return TOKEN_SECRET.test(reference?.name ?? '')
}

function checkPrivileges({ securityContext }: Ephemeral, path: string): Refusal | undefined {
  const at = `${path}.securityContext`
  if (securityContext?.privileged === true)
    return refuse('container_privileges', `${at}.privileged`)
  if ((securityContext?.procMount ?? 'Default') !== 'Default')
    return refuse('container_privileges', `${at}.procMount`)
  const added = capabilityNames(securityContext?.capabilities?.add)
  const reaching = REACHING.find((one) => added.has(one))
  if (reaching === undefined) return undefined
  return refuse('container_privileges', `${at}.capabilities.add has ${reaching}`)
}

/** In R the sidecar's user is the pod's; see the head of the file. */
function checkUser(
  { securityContext }: Ephemeral,
  path: string,
  profile: string | undefined,
): Refusal | undefined {
  if (profile === 'R') return undefined
  const { runAsUser, runAsGroup } = securityContext ?? {}
  if (runAsUser === SIDECAR_ID) return refuse('sidecar_user', `${path}.securityContext.runAsUser`)
  if (runAsGroup === SIDECAR_ID) return refuse('sidecar_user', `${path}.securityContext.runAsGroup`)
  return undefined
}

/**
 * Where processes are told apart, none may come that could speak for others: container runtimes give `NET_RAW` by default, and
 * nobody takes it from an ephemeral container for its author.
 */
function checkSpeaking(
  { securityContext }: Ephemeral,
  path: string,
  profile: string | undefined,
  posture: string,
): Refusal | undefined {
  const byProcess = profile === 'R' || profile === 'P'
  if (posture === 'report' || (!byProcess && posture !== 'refuse')) return undefined
  const { add, drop } = securityContext?.capabilities ?? {}
  const at = `${path}.securityContext.capabilities`
  const [added, dropped] = [capabilityNames(add), capabilityNames(drop)]
  const speaking = SPEAKING.find((one) => added.has(one))
  if (speaking !== undefined) return refuse('identity_level', `${at}.add has ${speaking}`)
  if (dropped.has('NET_RAW') || dropped.has('ALL')) return undefined
  return refuse(
    'identity_level',
    `${at}.drop needs NET_RAW or ALL (kubectl debug --profile=restricted)`,
  )
}
