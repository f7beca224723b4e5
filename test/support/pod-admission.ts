/**
 * What an API server does to a pod around the webhook, as far as it meets what the webhook writes: the
 * ServiceAccount plugin (kubernetes/plugin/pkg/admission/serviceaccount), which runs again after it, and the
 * defaults of core/v1. Two eras: up to 1.20 tokens are Secret volumes, from 1.21 on projected ones.
 */
import { SERVICE_ACCOUNT_PATH } from '../../shared/injection/sidecar-spec.ts'

/** A pod, or a part of one, as tests write it. */
export type Json = Record<string, unknown>

/** Which API server is imitated. */
export type Era = '1.20' | '1.33'

const TOKEN_SECRET = 'default-token-x8f2k'
const PROJECTED_PREFIX = 'kube-api-access-'

/** One pass of the admission chain before the webhook, on a decoded and defaulted pod. Returns a new pod. */
export function admit(pod: Json, era: Era): Json {
  const admitted = structuredClone(pod)
  setDefaults(admitted, era)
  mountServiceAccount(admitted['spec'] as Json, era)
  setDefaults(admitted, era)
  return withoutEmpty(admitted) as Json
}

function mountServiceAccount(spec: Json, era: Era): void {
  spec['serviceAccountName'] ??= 'default'
  spec['serviceAccount'] ??= 'default'
  if (spec['automountServiceAccountToken'] === false) return
  const volumes = (spec['volumes'] ??= []) as Json[]
  const there = volumes.find((volume) =>
    era === '1.20'
      ? (volume['secret'] as Json | undefined)?.['secretName'] === TOKEN_SECRET
      : String(volume['name']).startsWith(PROJECTED_PREFIX),
  )
  const volume = there ?? automountVolume(era)
  let needed = false
  for (const container of containersOf(spec)) {
    const mounts = (container['volumeMounts'] ??= []) as Json[]
    if (mounts.some((mount) => mount['mountPath'] === SERVICE_ACCOUNT_PATH)) continue
    mounts.push({ name: volume['name'], readOnly: true, mountPath: SERVICE_ACCOUNT_PATH })
    needed = true
  }
  if (needed && there === undefined) volumes.push(volume)
}

function automountVolume(era: Era): Json {
  if (era === '1.20') return { name: TOKEN_SECRET, secret: { secretName: TOKEN_SECRET } }
  const fieldRef = { apiVersion: 'v1', fieldPath: 'metadata.namespace' }
  const sources = [
    { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    { downwardAPI: { items: [{ path: 'namespace', fieldRef }] } },
  ]
  return { name: `${PROJECTED_PREFIX}7hq2d`, projected: { sources } }
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
      const source = volume[kind] as Json | undefined
      if (source !== undefined) source['defaultMode'] ??= 420
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
