/**
 * The API server's ServiceAccount plugin (kubernetes, plugin/pkg/admission/serviceaccount), as far as pods show it: it
 * runs before the webhook, and again after it. Up to 1.20 tokens are Secret volumes, from 1.21 on projected ones.
 */
import type { Json } from './pod-admission.ts'
import { itemsOf, listIn, objectIn } from './pods.ts'

/** Which API server is imitated. */
export type Era = '1.20' | '1.33'

/** What the cluster has. */
export interface PluginOptions {
  readonly era: Era
  /** Letters that a generated volume name ends in. */
  readonly suffix?: string
  /** The service account's own `automountServiceAccountToken`. */
  readonly automount?: boolean
}

/** What the plugin refuses a pod with. */
export class PluginRefusal extends Error {}

const TOKEN_PATH = '/var/run/secrets/kubernetes.io/serviceaccount'
const PREFIX = 'kube-api-access-'
const TOKEN_SECRET = 'default-token-x8f2k'

/** Runs the plugin on a pod, in place. */
export function runServiceAccountPlugin(pod: Json, options: PluginOptions): void {
  const spec = objectIn(pod, 'spec')
  const annotations = (pod['metadata'] as Json | null | undefined)?.['annotations'] as Json | null
  if (annotations?.['kubernetes.io/config.mirror'] !== undefined) {
    checkMirrorPod(spec)
    return
  }
  if ((spec['serviceAccountName'] ?? '') === '') spec['serviceAccountName'] = 'default'
  // Kept for clients of v1 by its conversion; not the plugin's work.
  spec['serviceAccount'] = spec['serviceAccountName']
  const wanted = spec['automountServiceAccountToken'] ?? options.automount ?? true
  if (wanted === true) mountToken(spec, options)
}

/** A pod of a node's own files may name no account, no Secret and no token. */
function checkMirrorPod(spec: Json): void {
  const text = JSON.stringify([spec['volumes'], spec['containers'], spec['initContainers']])
  if ((spec['serviceAccountName'] ?? '') !== '')
    throw new PluginRefusal('a mirror pod may not reference service accounts')
  if (/"(secret|secretRef|secretKeyRef)":\{/.test(text))
    throw new PluginRefusal('a mirror pod may not reference secrets')
  if (/"(serviceAccountToken|podCertificate|clusterTrustBundle)":\{/.test(text))
    throw new PluginRefusal('a mirror pod may not use such projections')
}

function mountToken(spec: Json, { era, suffix = '7hq2d' }: PluginOptions): void {
  const volumes = itemsOf(spec, 'volumes')
  // Whoever made it: a volume is adopted by the beginning of its name, by its Secret in former times.
  const there = volumes.find((volume) =>
    era === '1.20'
      ? (volume['secret'] as Json | null | undefined)?.['secretName'] === TOKEN_SECRET
      : String(volume['name']).startsWith(PREFIX),
  )
  const taken = volumes.some((volume) => volume['name'] === TOKEN_SECRET)
  const secretVolume = taken ? `${TOKEN_SECRET}-${suffix}` : TOKEN_SECRET
  const made = era === '1.20' ? secretVolume : `${PREFIX}${suffix}`
  const name = there?.['name'] ?? made
  let needed = false
  for (const list of ['initContainers', 'containers'])
    for (const container of itemsOf(spec, list)) {
      // Compared as text: another spelling of the path gets the token as well.
      const mounted = itemsOf(container, 'volumeMounts').some(
        (mount) => mount['mountPath'] === TOKEN_PATH,
      )
      if (mounted) continue
      listIn(container, 'volumeMounts').push({ name, readOnly: true, mountPath: TOKEN_PATH })
      needed = true
    }
  if (needed && there === undefined) listIn(spec, 'volumes').push(tokenVolume(made, era))
}

function tokenVolume(name: string, era: Era): Json {
  if (era === '1.20') return { name, secret: { secretName: TOKEN_SECRET } }
  const fieldRef = { apiVersion: 'v1', fieldPath: 'metadata.namespace' }
  const sources = [
    { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    { downwardAPI: { items: [{ path: 'namespace', fieldRef }] } },
  ]
  return { name, projected: { sources } }
}
