/**
 * Containers that could take what is not theirs: by a privilege, by the sidecar's own user, or by its ports. Weaker
 * ones, which only speak for their neighbours, are a matter of posture; see risks.ts.
 */
import { REACHING_BEYOND, capabilityNames } from '../capabilities.ts'
import { refuse } from '../reasons.ts'
import type { Refusal } from '../reasons.ts'
import { allContainers } from './pod.ts'
import type { Container, PlacedContainer, Pod } from './pod.ts'
import { containerPath, isSidecar } from './reserved.ts'
import { HEALTH_PORT, HTTP_PORT, SIDECAR_ID, TLS_PORT } from './sidecar-spec.ts'

const OWN_PORTS: readonly number[] = [HTTP_PORT, TLS_PORT, HEALTH_PORT]

/** Refuses such containers, in all three lists; undefined where all is well. */
export function checkPrivileges(pod: Pod): Refusal | undefined {
  const podId = ownIdOf(pod)
  if (podId !== undefined) return refuse('sidecar_user', `spec.securityContext.${podId}`)
  for (const placed of allContainers(pod)) {
    if (isSidecar(placed)) continue
    const refusal = checkContainer(placed)
    if (refusal !== undefined) return refusal
  }
  return undefined
}

function checkContainer(placed: PlacedContainer): Refusal | undefined {
  const path = containerPath(placed)
  const { securityContext: context, ports } = placed.container
  const privilege = privilegeOf(context)
  if (privilege !== undefined)
    return refuse('container_privileges', `${path}.securityContext.${privilege}`)
  const id = (['runAsUser', 'runAsGroup'] as const).find((field) => context?.[field] === SIDECAR_ID)
  if (id !== undefined) return refuse('sidecar_user', `${path}.securityContext.${id}`)
  const port = ports.findIndex(
    ({ containerPort, protocol }) =>
      OWN_PORTS.includes(containerPort ?? 0) && ['', 'TCP'].includes(protocol ?? ''),
  )
  return port === -1 ? undefined : refuse('port_reserved', `${path}.ports[${port}].containerPort`)
}

/** The field that gives a container more than it may have here, or undefined. */
function privilegeOf(context: Container['securityContext']): string | undefined {
  if (context?.privileged === true) return 'privileged'
  if ((context?.procMount ?? 'Default') !== 'Default') return 'procMount'
  const added = capabilityNames(context?.capabilities?.add)
  const beyond = ['ALL', ...REACHING_BEYOND].find((name) => added.has(name))
  return beyond && `capabilities.add: ${beyond}`
}

/** The field of the pod's security context that holds the sidecar's own id, or undefined. */
function ownIdOf(pod: Pod): string | undefined {
  const context = pod.spec.securityContext
  if (context?.supplementalGroups.includes(SIDECAR_ID) === true) return 'supplementalGroups'
  return (['runAsUser', 'runAsGroup', 'fsGroup'] as const).find(
    (field) => context?.[field] === SIDECAR_ID,
  )
}
