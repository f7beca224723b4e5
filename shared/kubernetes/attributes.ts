/**
 * What a request asks a cluster to do: kube-apiserver's RequestInfo, and beside it what that leaves out and policy needs
 * (research: gateways.md, 2a.14 and 2c). Made from raw bytes by request-attributes.ts; everything in it is read one way only.
 */
import type { RequestInfo } from './request-info.ts'

/**
 * What a request amounts to, whatever its verb says. A request has any number of them.
 *
 * `exec`, `attach`, `port-forward`, `proxy`: a way to a program. `node-exec`: commands through a node's kubelet.
 * `debug`: ephemeral containers. `evict`: a deletion that is spelled as a creation. `scale`, `scale-to-zero`: replicas.
 * `delete-many`, `force-delete` (no grace period), `orphan` (dependents stay). `remove-finalizers`: any update or apply, since they take away what they leave out.
 * `mint-credential`: token requests, token Secrets, certificate requests and their approval.
 * `escalate`: writing roles and bindings, `bind`, `escalate`, `impersonate`.
 * `run-code`: what makes pods run: pods, workload templates, CronJobs.
 * `extend-cluster`: webhook configurations, APIServices, CRDs, admission policies.
 * `read-secrets`: a request whose answer can be Secrets: reads, and patches and deletions, which answer with what was stored. `dry-run`: nothing is stored.
 * `unmask`: asks to see what is hidden of one object (unmask.ts).
 */
export const ACTIONS = [
  'exec',
  'attach',
  'port-forward',
  'proxy',
  'node-exec',
  'debug',
  'evict',
  'scale',
  'scale-to-zero',
  'restart',
  'delete-many',
  'force-delete',
  'orphan',
  'remove-finalizers',
  'mint-credential',
  'escalate',
  'run-code',
  'extend-cluster',
  'read-secrets',
  'dry-run',
  'unmask',
] as const

/** See {@link ACTIONS}. */
export type Action = (typeof ACTIONS)[number]

/** Another request that this one amounts to: rules that restrict that one restrict this one too. */
export interface Equivalent {
  readonly verb: string
  readonly apiGroup: string
  /** With subresource, as in RBAC rules. */
  readonly resource: string
  readonly namespace: string
  /** Empty where any name is reached. */
  readonly name: string
}

/** Parameters of a request; each is there only where the request gives it or the API server would assume it. */
export interface RequestParameters {
  readonly dryRun: boolean
  /** `force` of a server-side apply. */
  readonly force?: boolean
  readonly fieldManager?: string
  readonly propagationPolicy?: string
  readonly gracePeriodSeconds?: number
  readonly patchType?: 'json' | 'merge' | 'strategic' | 'apply'
  /** Of a creation whose name the API server makes up. */
  readonly generateName?: string
  readonly labelSelector?: string
  readonly fieldSelector?: string
  /** Of exec and attach. */
  readonly command?: readonly string[]
  readonly container?: string
  readonly tty?: boolean
  readonly stdin?: boolean
  /** Of a port-forward whose URL names them; SPDY names them only later, inside the session. */
  readonly ports?: readonly number[]
  /** What follows `/proxy`, decoded, with a leading slash. */
  readonly proxyPath?: string
  /** Replicas that the request sets. */
  readonly replicas?: number
}

/** How far a body was looked into. */
export type BodyView =
  /** There is none. */
  | { readonly state: 'none' }
  /** Read in full: JSON or YAML with one meaning. */
  | { readonly state: 'read'; readonly value: unknown }
  /** Not looked into: protobuf, CBOR, anything else. Rules that ask about the body refuse such a request. */
  | { readonly state: 'opaque'; readonly contentType: string }

/** See the head of the file. */
export interface RequestAttributes {
  readonly info: RequestInfo
  /** Canonical path without query. */
  readonly path: string
  /** `connect` for whatever opens a session, whatever the HTTP method; else the verb of RequestInfo. */
  readonly policyVerb: string
  readonly actions: readonly Action[]
  readonly equivalents: readonly Equivalent[]
  readonly parameters: RequestParameters
  /** Name of the object: of the path, or on creation of the body. Empty where there is none. */
  readonly objectName: string
  /** Labels of the object in the body; absent where no object was read. */
  readonly labels?: Readonly<Record<string, string>>
  readonly body: BodyView
}
