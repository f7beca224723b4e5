/**
 * Which container of a pod a socket's user belongs to, where the sidecar sees no processes (profile C). A user says that
 * only if one container alone can have it: every container's user must be known from the pod's spec, and none of the
 * others may be able to become another one.
 */
import { z } from 'zod'
import { capabilityNames, SPEAKING_FOR_OTHERS } from '../../shared/capabilities.ts'

/** The part of a container, and of a pod, that decides about users (core/v1, SecurityContext and PodSecurityContext). */
const contextSchema = z
  .object({
    runAsUser: z.number().nullish(),
    allowPrivilegeEscalation: z.boolean().nullish(),
    privileged: z.boolean().nullish(),
    capabilities: z
      .object({
        add: z.array(z.string()).nullish(),
        drop: z.array(z.string()).nullish(),
      })
      .nullish(),
  })
  .nullish()
const containersSchema = z
  .array(z.object({ name: z.string(), securityContext: contextSchema }))
  .nullish()

/** The spec of a pod, as far as it is read here. */
export const podUsersSchema = z.object({
  securityContext: z.object({ runAsUser: z.number().nullish() }).nullish(),
  containers: containersSchema,
  initContainers: containersSchema,
  ephemeralContainers: containersSchema,
})

/**
 * Capabilities by which a process can pass for another user: become one, or give a socket to one (fchown(2) changes the
 * user that the kernel tells), or speak on another's connection.
 */
const PASSING = ['CHOWN', 'SETUID', ...Object.keys(SPEAKING_FOR_OTHERS)]
/** Those of them that runtimes give to root without being asked. */
const GIVEN_TO_ROOT = ['CHOWN', 'SETUID', 'NET_RAW']

type PodUsers = z.infer<typeof podUsersSchema>
type Context = z.infer<typeof contextSchema>

interface ContainerUser {
  readonly name: string
  readonly uid: number | undefined
  /** Whether its processes have that user and can pass for no other. */
  readonly fixed: boolean
}

/** How a user is written where container ids stand otherwise; no id looks like it. */
export function userKey(uid: number): string {
  return `user:${uid}`
}

/** Whether a key is of {@link userKey}. */
export function isUserKey(key: string): boolean {
  return key.startsWith('user:')
}

/** The users that name one container, with its name. */
export function containersByUser(spec: PodUsers): ReadonlyMap<number, string> {
  const users = [spec.containers, spec.initContainers, spec.ephemeralContainers].flatMap((list) =>
    (list ?? []).map(({ name, securityContext }) =>
      userOf(name, securityContext, spec.securityContext?.runAsUser),
    ),
  )
  const named = new Map<number, string>()
  for (const { name, uid } of users) {
    const others = users.filter((other) => other.name !== name)
    const alone = others.every((other) => other.fixed && other.uid !== uid)
    if (uid !== undefined && alone) named.set(uid, name)
  }
  return named
}

function userOf(name: string, context: Context, podUser: number | null | undefined): ContainerUser {
  const uid = context?.runAsUser ?? podUser ?? undefined
  // Without this, a set-user-ID program of the image could become anybody (no_new_privs, prctl(2)).
  const escalates = context?.allowPrivilegeEscalation !== false || context.privileged === true
  const pretends = (uid === 0 && !dropsAll(context)) || addsAny(context)
  return { name, uid, fixed: uid !== undefined && !escalates && !pretends }
}

function dropsAll(context: Context): boolean {
  const dropped = capabilityNames(context?.capabilities?.drop)
  return dropped.has('ALL') || GIVEN_TO_ROOT.every((name) => dropped.has(name))
}

function addsAny(context: Context): boolean {
  const added = capabilityNames(context?.capabilities?.add)
  return ['ALL', ...PASSING].some((name) => added.has(name))
}
