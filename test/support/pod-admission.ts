/**
 * What an API server does to a pod around the webhook, as far as it meets what the webhook writes: the
 * ServiceAccount plugin (service-account-plugin.ts), which runs again after it, LimitRanger and AlwaysPullImages, and
 * the defaults of core/v1.
 */
import { runServiceAccountPlugin } from './service-account-plugin.ts'
import type { Era, PluginOptions } from './service-account-plugin.ts'

export type { Era }

/** A pod, or a part of one, as tests write it. */
export type Json = Record<string, unknown>

/** What a cluster may do beside what all do. */
export interface ClusterOptions extends Omit<PluginOptions, 'era'> {
  /** Whether AlwaysPullImages is on. */
  readonly alwaysPull?: boolean
}

/**
 * One pass of the admission chain before the webhook, on a decoded and defaulted pod. Returns a new pod.
 *
 * @throws PluginRefusal where the ServiceAccount plugin refuses it
 */
export function admit(pod: Json, era: Era, options: ClusterOptions = {}): Json {
  const admitted = structuredClone(pod)
  setDefaults(admitted, era)
  runServiceAccountPlugin(admitted, { ...options, era })
  setDefaults(admitted, era)
  if (options.alwaysPull === true)
    for (const container of containersOf(admitted['spec'] as Json))
      container['imagePullPolicy'] = 'Always'
  return withoutEmpty(admitted) as Json
}

function containersOf(spec: Json): Json[] {
  return [...((spec['initContainers'] ?? []) as Json[]), ...((spec['containers'] ?? []) as Json[])]
}

function setDefaults(pod: Json, era: Era): void {
  const spec = pod['spec'] as Json
  for (const container of containersOf(spec)) {
    container['imagePullPolicy'] ??= 'IfNotPresent'
    container['terminationMessagePath'] ??= '/dev/termination-log'
    container['terminationMessagePolicy'] ??= 'File'
    container['resources'] ??= {}
    // LimitRanger fills in what a container does not say.
    const resources = container['resources'] as Record<string, Json>
    resources['limits'] = { 'ephemeral-storage': '1Gi', ...resources['limits'] }
    resources['requests'] = { 'ephemeral-storage': '1Gi', ...resources['requests'] }
    if (era === '1.33')
      container['resizePolicy'] ??= ['cpu', 'memory'].map((resourceName) => ({
        resourceName,
        restartPolicy: 'NotRequired',
      }))
    if (era === '1.20') delete container['restartPolicy']
  }
  for (const volume of (spec['volumes'] ?? []) as Json[]) {
    for (const kind of ['secret', 'projected', 'configMap', 'downwardAPI']) {
      const source = volume[kind] as Json | null | undefined
      if (source !== undefined && source !== null) source['defaultMode'] ??= 420
    }
  }
  const defaults = { restartPolicy: 'Always', dnsPolicy: 'ClusterFirst', enableServiceLinks: true }
  pod['spec'] = { terminationGracePeriodSeconds: 30, securityContext: {}, ...defaults, ...spec }
  pod['status'] ??= {}
}

/** Go leaves out empty lists and null members (`omitempty`) when it encodes a pod again. */
function withoutEmpty(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutEmpty)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, inner]) => inner !== null && !(Array.isArray(inner) && inner.length === 0))
      .map(([key, inner]) => [key, withoutEmpty(inner)]),
  )
}
