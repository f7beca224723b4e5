/**
 * Containers that could speak on the connections of others, or read them: what is taken from them, and what their
 * authors are told (AdmissionResponse.warnings, admission/v1; kubectl prints them). The sidecar looks at the running
 * processes for itself; see sidecar/posture.ts.
 */
import { capabilityNames, SPEAKING_FOR_OTHERS } from '../capabilities.ts'
import { allContainers } from './pod.ts'
import type { Container, PlacedContainer, Pod } from './pod.ts'
import { containerPath, isSidecar } from './reserved.ts'
import { HEALTH_PORT, HTTP_PORT, TLS_PORT } from './sidecar-spec.ts'

const OWN_PORTS: readonly number[] = [HTTP_PORT, TLS_PORT, HEALTH_PORT]
/** The API server cuts warnings of more than 256 characters, and all of them after 4096 (apiserver, warning handler). */
const MAX_WARNINGS = 8

/** Whether `NET_RAW` is to be added to what a container drops: it could have it by default, and nobody asked for it. */
export function dropsNetRaw({ securityContext }: Container): boolean {
  if (securityContext?.privileged === true) return false
  const { add = [], drop = [] } = securityContext?.capabilities ?? {}
  return !hasOneOf(add, ['NET_RAW', 'ALL']) && !hasOneOf(drop, ['NET_RAW', 'ALL'])
}

/** Why the processes of a pod cannot be told apart, whatever the sidecar sees of them; undefined where they can. */
export function riskOf(pod: Pod, dropNetRaw: boolean): string | undefined {
  for (const placed of allContainers(pod)) {
    const [risky] = isSidecar(placed) ? [] : riskyOf(placed.container, dropNetRaw)
    if (risky !== undefined)
      return `${containerPath(placed)} has ${risky}, by which it could speak for other processes`
  }
  return undefined
}

/** One line for each container that keeps a risky capability or wants one of the sidecar's ports. */
export function warningsFor(pod: Pod, dropNetRaw: boolean): readonly string[] {
  return allContainers(pod)
    .filter((placed) => !isSidecar(placed))
    .flatMap((placed) => [...capabilityWarnings(placed, dropNetRaw), ...portWarnings(placed)])
    .slice(0, MAX_WARNINGS)
}

function capabilityWarnings(placed: PlacedContainer, dropNetRaw: boolean): readonly string[] {
  const risky = riskyOf(placed.container, dropNetRaw)
  if (risky.length === 0) return []
  const where = containerPath(placed)
  return [
    `nestgate: ${where} has ${risky.join(', ')}: it could speak for other processes of this pod, so they are told apart by container at best`,
  ]
}

function riskyOf(container: Container, dropNetRaw: boolean): readonly string[] {
  const { privileged, capabilities } = container.securityContext ?? {}
  if (privileged === true) return ['all capabilities (privileged)']
  const added = capabilities?.add ?? []
  const risky = Object.keys(SPEAKING_FOR_OTHERS).filter((name) => hasOneOf(added, [name, 'ALL']))
  if (!dropNetRaw && dropsNetRaw(container)) risky.push('NET_RAW (by default)')
  return risky
}

function portWarnings(placed: PlacedContainer): readonly string[] {
  const ports = placed.container.ports.map(({ containerPort }) => containerPort ?? 0)
  return ports
    .filter((port) => OWN_PORTS.includes(port))
    .map((port) => `nestgate: ${containerPath(placed)} wants port ${port}, which the sidecar has`)
}

function hasOneOf(list: readonly string[], names: readonly string[]): boolean {
  const listed = capabilityNames(list)
  return names.some((name) => listed.has(name))
}
