/** Kubernetes objects of the manifests and of the chart's golden cases, as far as tests look at them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseAllDocuments } from 'yaml'

const ROOT = join(import.meta.dirname, '..', '..')
export const MANIFESTS = join(ROOT, 'manifests')
export const CHART_GOLDEN = join(ROOT, 'test', 'golden', 'chart')

export interface Mount {
  readonly name: string
  readonly mountPath: string
}
export interface Container {
  readonly name: string
  readonly image: string
  readonly command: readonly string[]
  readonly securityContext: object
  readonly env?: readonly { readonly name: string; readonly value: string }[]
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[]
  readonly volumeMounts?: readonly Mount[]
}
export interface VolumeSource {
  readonly defaultMode?: number
  readonly secretName?: string
  readonly name?: string
}
export interface Volume {
  readonly name: string
  readonly configMap?: VolumeSource
  readonly secret?: VolumeSource
  readonly projected?: VolumeSource & {
    readonly sources: readonly { readonly configMap?: { readonly name: string } }[]
  }
}
export interface PodSpec {
  readonly automountServiceAccountToken: boolean
  readonly enableServiceLinks: boolean
  readonly hostNetwork?: boolean
  readonly serviceAccountName: string
  readonly securityContext: object
  readonly containers: readonly Container[]
  readonly volumes?: readonly Volume[]
}
export interface Selector {
  readonly matchLabels?: Readonly<Record<string, string>>
  readonly matchExpressions?: readonly {
    readonly key: string
    readonly operator: string
    readonly values?: readonly string[]
  }[]
}
export interface Webhook {
  readonly name: string
  readonly clientConfig: {
    readonly caBundle?: string
    readonly service: { readonly name: string; readonly namespace: string; readonly path: string }
  }
  readonly namespaceSelector?: Selector
  readonly objectSelector?: Selector
  readonly rules: readonly {
    readonly operations: readonly string[]
    readonly resources: readonly string[]
  }[]
  readonly failurePolicy: string
  readonly sideEffects: string
  readonly timeoutSeconds: number
}
export interface KubernetesObject {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels?: Readonly<Record<string, string>>
    readonly annotations?: Readonly<Record<string, string>>
  }
  readonly rules?: readonly Readonly<Record<string, readonly string[]>>[]
  readonly webhooks?: readonly Webhook[]
  readonly data?: Readonly<Record<string, string>>
  readonly roleRef?: { readonly kind: string; readonly name: string }
  readonly subjects?: readonly { readonly name: string; readonly namespace: string }[]
  readonly spec?: {
    readonly replicas?: number
    readonly secretName?: string
    readonly policyName?: string
    readonly matchConstraints?: { readonly resourceRules: Webhook['rules'] }
    readonly selector?: Selector & Readonly<Record<string, unknown>>
    readonly podSelector?: Selector
    readonly ingress?: readonly { readonly ports: readonly { readonly port: number }[] }[]
    readonly ports?: readonly { readonly targetPort: string }[]
    readonly template?: {
      readonly metadata: { readonly labels: Readonly<Record<string, string>> }
      readonly spec: PodSpec
    }
  }
}

/** Octal numbers as kubectl reads them. */
const OF_KUBECTL = { version: '1.1' } as const

/** The objects of a file. */
export function objectsIn(path: string): readonly KubernetesObject[] {
  return parseAllDocuments(readFileSync(path, 'utf8'), OF_KUBECTL)
    .map((document) => document.toJS() as KubernetesObject | null)
    .filter((object) => object !== null)
}

/** The objects of a folder of a kustomization, without the settings that go into ConfigMaps. */
export function objectsBelow(folder: string): readonly KubernetesObject[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(
      (name) => name.endsWith('.yaml') && !name.includes('config/') && !name.startsWith('tls'),
    )
    .filter((name) => !name.endsWith('kustomization.yaml'))
    .flatMap((name) => objectsIn(join(folder, name)))
}

/** The chart's golden cases that are rendered, and those that are refused. */
export function chartCases(which: 'expected.yaml' | 'refused.txt'): readonly string[] {
  return readdirSync(CHART_GOLDEN).filter((name) => existsSync(join(CHART_GOLDEN, name, which)))
}
