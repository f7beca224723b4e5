/**
 * Cases of the final state, for both ways in which it is checked: the validating webhook over HTTPS (test/component/final-state.test.ts)
 * and the admission policies on Kubernetes' own code (test/modern/final-state.test.ts). What each adds is one change to a pod that is
 * right.
 */
import type { Reason } from '../../shared/reasons.ts'
import { SIDECAR_NAME } from '../../shared/injection/sidecar-spec.ts'
import type { InjectionSettings, WantedLevel } from '../../shared/injection/sidecar-spec.ts'
import { admit } from './pod-admission.ts'
import type { Json } from './pod-admission.ts'
import { SETTINGS, inject } from './reviews.ts'

/** Namespace of all cases. */
export const NAMESPACE = 'team-a'

/** What webhook and policies are told. */
export const FINAL_SETTINGS: InjectionSettings = {
  ...SETTINGS,
  allowedAudiences: ['vault'],
  allowedSigners: ['example.com/agents'],
  allowedCsiDrivers: ['secrets.example.com'],
}

/** Who asks, and what both ways know of them. */
export interface Who {
  readonly username: string
  readonly groups: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

const FORWARDED = { 'nestgate.dev/request-id': ['c0ffee00-0000-4000-8000-000000000001'] }

/** `author` may do everything in the namespace; `ops` has the verb `bypass` too, and is in `exempt.users`. */
export const USERS = {
  author: { username: 'author', groups: ['system:authenticated'] },
  ops: { username: 'ops', groups: ['system:authenticated'] },
  /** The broker, for the author and for ops. */
  broker: { username: 'author', groups: ['system:authenticated'], extra: FORWARDED },
  brokerForOps: { username: 'ops', groups: ['system:authenticated'], extra: FORWARDED },
  node: { username: 'system:node:n1', groups: ['system:nodes', 'system:authenticated'] },
  tokenController: {
    username: 'system:kube-controller-manager',
    groups: ['system:authenticated'],
  },
} as const satisfies Readonly<Record<string, Who>>

/** One case. */
export interface FinalCase {
  readonly name: string
  readonly operation: 'CREATE' | 'UPDATE' | 'CONNECT'
  /** With its subresource. */
  readonly resource: string
  /** For `CONNECT` the options. */
  readonly object: Json
  readonly oldObject?: Json
  readonly user?: keyof typeof USERS
  /** What the namespace wants. */
  readonly level?: WantedLevel
  /** Undefined where it is let through. */
  readonly code?: Reason
  /** Where the policies say another code: they find the same by another rule. */
  readonly policyCode?: Reason
}

type Change = (pod: Json) => void

const PLAIN = {
  metadata: { name: 'web' },
  spec: {
    containers: [
      { name: 'web', image: 'web' },
      { name: 'helper', image: 'helper' },
    ],
  },
}
const AS_ONE_USER = { securityContext: { runAsUser: 1000, runAsGroup: 1000 } }

/** What the author wrote, for each profile. */
const AUTHORS = {
  P: PLAIN,
  R: { ...PLAIN, spec: { ...PLAIN.spec, ...AS_ONE_USER } },
  C: PLAIN,
} as const

/** A pod as the API server would store it, injected. */
export function injected(
  profile: keyof typeof AUTHORS = 'P',
  settings: InjectionSettings = FINAL_SETTINGS,
  author: Json = AUTHORS[profile],
): Json {
  const level = profile === 'C' ? 'container' : 'any'
  const { pod } = inject(admit(author, '1.33'), settings, { namespace: NAMESPACE }, level)
  if (pod === undefined) throw new Error('the pod was refused')
  delete pod['status']
  return pod
}

function changed(pod: Json, change: Change): Json {
  const copy = structuredClone(pod)
  change(copy)
  return copy
}

/** The members of an object of a pod, by keys and indices; made where they are missing. */
export function at(root: Json, ...path: readonly (string | number)[]): Json {
  let value: Json = root
  for (const part of path) value = (value[part] ??= {}) as Json
  return value
}

const spec = (pod: Json): Json => at(pod, 'spec')
const web = (pod: Json): Json => at(pod, 'spec', 'containers', 0)
const sidecar = (pod: Json): Json => at(pod, 'spec', 'initContainers', 0)
const list = (of: Json, key: string): Json[] => (of[key] ??= []) as Json[]
const annotations = (pod: Json): Json => at(pod, 'metadata', 'annotations')
const addVolume = (pod: Json, volume: Json): void => {
  list(spec(pod), 'volumes').push({ name: 'extra', ...volume })
}
const projectToken = (pod: Json, audience: string | undefined, mountPath?: string): void => {
  const token = { path: 'token', expirationSeconds: 3600 }
  const serviceAccountToken = audience === undefined ? token : { ...token, audience }
  addVolume(pod, { projected: { sources: [{ serviceAccountToken }], defaultMode: 420 } })
  if (mountPath !== undefined) list(web(pod), 'volumeMounts').push({ name: 'extra', mountPath })
}
const security = (pod: Json, context: Json): void => {
  web(pod)['securityContext'] = { capabilities: { drop: ['NET_RAW'] }, ...context }
}

function created(
  name: string,
  code: Reason | undefined,
  change: Change,
  more: Partial<FinalCase> = {},
): FinalCase {
  const object = changed(injected(), change)
  return { name, operation: 'CREATE', resource: 'pods', object, ...(code && { code }), ...more }
}

const nothing: Change = () => undefined

/** A pod as it is stored. */
const CREATED: readonly FinalCase[] = [
  created('a pod as injected, profile P', undefined, nothing),
  created('a pod as injected, profile R', undefined, nothing, { object: injected('R') }),
  created('a pod as injected, profile C', undefined, nothing, {
    object: injected('C'),
    level: 'container',
  }),
  created('a pod with a plain-container sidecar', undefined, nothing, {
    object: injected('P', { ...FINAL_SETTINGS, mode: 'container' }),
  }),
  created('a pod with all that is allowed', undefined, (pod) => {
    projectToken(pod, 'vault', '/vault')
    list(spec(pod), 'volumes').push(
      { name: 'csi', csi: { driver: 'secrets.example.com' } },
      { name: 'own', secret: { secretName: 'own', defaultMode: 420 } },
    )
    list(web(pod), 'env').push({
      name: 'A',
      valueFrom: { secretKeyRef: { name: 'own', key: 'a' } },
    })
    web(pod)['ports'] = [
      { containerPort: 8080, protocol: 'TCP' },
      { containerPort: 8001, protocol: 'UDP' },
    ]
  }),
  created('the cluster’s own additions to the sidecar', undefined, (pod) => {
    sidecar(pod)['imagePullPolicy'] = 'Always'
    at(sidecar(pod), 'securityContext')['procMount'] = 'Default'
    at(sidecar(pod), 'resources', 'limits')['ephemeral-storage'] = '2Gi'
  }),
  created('a pod that was never injected', 'final_state', nothing, {
    object: admit(PLAIN, '1.33'),
  }),
  created('hostNetwork', 'host_network', (pod) => (spec(pod)['hostNetwork'] = true)),
  created('hostPID', 'host_pid', (pod) => (spec(pod)['hostPID'] = true)),
  created('hostIPC', 'host_ipc', (pod) => (spec(pod)['hostIPC'] = true)),
  created('a mirror pod of the author’s', 'mirror_pod', (pod) => {
    annotations(pod)['kubernetes.io/config.mirror'] = 'x'
  }),
  created('a mirror pod of a node', undefined, nothing, {
    object: {
      metadata: { name: 'static', annotations: { 'kubernetes.io/config.mirror': 'x' } },
      spec: { ...PLAIN.spec, hostNetwork: true },
    },
    user: 'node',
  }),
  created('Windows by its name', 'windows', (pod) => (spec(pod)['os'] = { name: 'windows' })),
  created('Windows by its node', 'windows', (pod) => {
    spec(pod)['nodeSelector'] = { 'kubernetes.io/os': 'windows' }
  }),
  created('Windows by its node’s old label', 'windows', (pod) => {
    spec(pod)['nodeSelector'] = { 'beta.kubernetes.io/os': 'windows' }
  }),
  created('Windows by affinity', 'windows', (pod) => {
    const matchExpressions = [{ key: 'kubernetes.io/os', operator: 'In', values: ['windows'] }]
    const requiredDuringSchedulingIgnoredDuringExecution = {
      nodeSelectorTerms: [{ matchExpressions }],
    }
    spec(pod)['affinity'] = { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution } }
  }),
  created('Windows by a pod’s options', 'windows', (pod) => {
    at(spec(pod), 'securityContext')['windowsOptions'] = { runAsUserName: 'a' }
  }),
  created('Windows by a container’s options', 'windows', (pod) => {
    security(pod, { windowsOptions: { runAsUserName: 'a' } })
  }),
  created('the sidecar’s group for the pod’s files', 'sidecar_user', (pod) => {
    at(spec(pod), 'securityContext')['fsGroup'] = 64_210
  }),
  created('the sidecar’s group beside others', 'sidecar_user', (pod) => {
    at(spec(pod), 'securityContext')['supplementalGroups'] = [1, 64_210]
  }),
  created('a container as the sidecar’s user', 'sidecar_user', (pod) => {
    security(pod, { runAsUser: 64_210 })
  }),
  created('a container of the sidecar’s group', 'sidecar_user', (pod) => {
    security(pod, { runAsGroup: 64_210 })
  }),
  created('a privileged container', 'container_privileges', (pod) => {
    security(pod, { privileged: true })
  }),
  created('an unmasked /proc', 'container_privileges', (pod) => {
    security(pod, { procMount: 'Unmasked' })
  }),
  created('a capability to trace, in another spelling', 'container_privileges', (pod) => {
    security(pod, { capabilities: { add: ['cap_sys_ptrace'], drop: ['NET_RAW'] } })
  }),
  created('a port of the sidecar’s', 'port_reserved', (pod) => {
    web(pod)['ports'] = [{ containerPort: 8001, protocol: 'TCP' }]
  }),
  created('a profile that the namespace does not want', 'final_state', nothing, {
    object: injected('C'),
    level: 'process',
    policyCode: 'identity_level',
  }),
  created('a profile better than the namespace wants', 'final_state', nothing, {
    level: 'container',
    policyCode: 'identity_level',
  }),
  created(
    'raw packets where processes are told apart',
    'identity_level',
    (pod) => {
      security(pod, { capabilities: { add: ['NET_RAW'] } })
    },
    { level: 'process' },
  ),
  created('a second sidecar', 'reserved_name', (pod) => {
    list(spec(pod), 'initContainers').push(structuredClone(sidecar(pod)))
  }),
  created(
    'another image of the sidecar',
    'reserved_name',
    (pod) => (sidecar(pod)['image'] = 'evil'),
  ),
  created(
    'another command of the sidecar',
    'reserved_name',
    (pod) => (sidecar(pod)['command'] = ['sh']),
  ),
  created(
    'arguments of the sidecar',
    'reserved_name',
    (pod) => (sidecar(pod)['args'] = ['--evil']),
  ),
  created('a hook of the sidecar', 'reserved_name', (pod) => {
    sidecar(pod)['lifecycle'] = { preStop: { exec: { command: ['sh'] } } }
  }),
  created('a liveness probe of the sidecar', 'reserved_name', (pod) => {
    sidecar(pod)['livenessProbe'] = { exec: { command: ['sh'] } }
  }),
  created('a sidecar that ends before the others begin', 'reserved_name', (pod) => {
    delete sidecar(pod)['restartPolicy']
  }),
  created('devices in the sidecar', 'reserved_name', (pod) => {
    spec(pod)['resourceClaims'] = [{ name: 'gpu', resourceClaimName: 'gpu' }]
    at(sidecar(pod), 'resources')['claims'] = [{ name: 'gpu' }]
  }),
  created('another broker', 'reserved_name', (pod) => {
    at(sidecar(pod), 'env', 0)['value'] = 'https://evil.example'
  }),
  created('a variable of the sidecar’s', 'reserved_name', (pod) => {
    list(sidecar(pod), 'env').push({ name: 'NODE_OPTIONS', value: '--require=/tmp/x.js' })
  }),
  created('no authority for the broker', 'reserved_name', (pod) => {
    const env = list(sidecar(pod), 'env')
    sidecar(pod)['env'] = env.filter(({ name }) => name !== 'NESTGATE_BROKER_CA_PEM')
  }),
  created('a mount of the sidecar’s', 'reserved_name', (pod) => {
    list(sidecar(pod), 'volumeMounts').push({ name: 'nestgate-kubeconfig', mountPath: '/app' })
  }),
  created('a sidecar with more rights', 'reserved_name', (pod) => {
    at(sidecar(pod), 'securityContext')['allowPrivilegeEscalation'] = true
  }),
  created(
    'a sidecar with another user',
    'reserved_name',
    (pod) => (at(sidecar(pod), 'securityContext')['runAsUser'] = 5),
  ),
  created('another user beside a sidecar of profile R', 'final_state', nothing, {
    object: changed(injected('R'), (pod) => {
      security(pod, { runAsUser: 7 })
    }),
    policyCode: 'reserved_name',
  }),
  created('another start of the sidecar', 'reserved_name', (pod) => {
    at(sidecar(pod), 'startupProbe')['exec'] = { command: ['sh'] }
  }),
  created('another readiness of the sidecar', 'reserved_name', (pod) => {
    sidecar(pod)['readinessProbe'] = { exec: { command: ['sh'] } }
  }),
  created('a port of the sidecar’s on the node', 'reserved_name', (pod) => {
    at(sidecar(pod), 'ports', 0)['hostPort'] = 8002
  }),
  created('an image of the sidecar’s that is never pulled', 'reserved_name', (pod) => {
    sidecar(pod)['imagePullPolicy'] = 'Never'
  }),
  created('other last words of the sidecar’s', 'reserved_name', (pod) => {
    sidecar(pod)['terminationMessagePath'] = '/var/run/secrets/nestgate.dev/token'
  }),
  created('a token of the sidecar’s for another audience', 'reserved_name', (pod) => {
    const volume = list(spec(pod), 'volumes').find(({ name }) => name === 'nestgate-token') ?? {}
    at(volume, 'projected', 'sources', 0, 'serviceAccountToken')['audience'] = 'vault'
  }),
  created('the sidecar’s token in another container', 'reserved_name', (pod) => {
    list(web(pod), 'volumeMounts').push({ name: 'nestgate-token', mountPath: '/token' })
  }),
  created('another volume in our place', 'reserved_name', (pod) => {
    addVolume(pod, { emptyDir: {} })
    list(web(pod), 'volumeMounts').push({ name: 'extra', mountPath: '/run//nestgate/x' })
  }),
  created('a writable kubeconfig', 'reserved_name', (pod) => {
    const mounts = list(web(pod), 'volumeMounts')
    delete mounts.find(({ name }) => name === 'nestgate-kubeconfig')?.['readOnly']
  }),
  created('a variable from a volume of ours', 'reserved_name', (pod) => {
    const fileKeyRef = { volumeName: 'nestgate-token', path: 'token', key: 'A' }
    list(web(pod), 'env').push({ name: 'A', valueFrom: { fileKeyRef } })
  }),
  created('an annotation for the sidecar', 'reserved_name', (pod) => {
    annotations(pod)[`container.apparmor.security.beta.kubernetes.io/${SIDECAR_NAME}`] =
      'unconfined'
  }),
  created('the node’s files', 'host_path', (pod) => {
    addVolume(pod, { hostPath: { path: '/', type: '' } })
  }),
  created('a driver that is not allowed', 'csi_driver', (pod) => {
    addVolume(pod, { csi: { driver: 'evil' } })
  }),
  created('a flexVolume', 'csi_driver', (pod) => {
    addVolume(pod, { flexVolume: { driver: 'secrets.example.com' } })
  }),
  created('a certificate of a signer that is not allowed', 'pod_certificate', (pod) => {
    const podCertificate = { signerName: 'kubernetes.io/kube-apiserver-client', keyType: 'ED25519' }
    addVolume(pod, { projected: { sources: [{ podCertificate }], defaultMode: 420 } })
  }),
  created('a certificate of an allowed signer', undefined, (pod) => {
    const podCertificate = { signerName: 'example.com/agents', keyType: 'ED25519' }
    addVolume(pod, { projected: { sources: [{ podCertificate }], defaultMode: 420 } })
  }),
  created('an API token elsewhere', 'token_api_audience', (pod) => {
    projectToken(pod, undefined, '/token')
  }),
  created('an API token by its audience', 'token_api_audience', (pod) => {
    projectToken(pod, 'https://kubernetes.default.svc', '/token')
  }),
  created('an API token at the usual place', 'final_state', (pod) => {
    projectToken(pod, undefined)
  }),
  created('a broker token', 'token_audience', (pod) => {
    projectToken(pod, 'nestgate-broker', '/token')
  }),
  created('a token for another audience', 'token_audience_not_allowed', (pod) => {
    projectToken(pod, 'sts.amazonaws.com', '/token')
  }),
  created('a token Secret as a volume', 'token_secret', (pod) => {
    addVolume(pod, { secret: { secretName: 'default-token-x8f2k', defaultMode: 420 } })
  }),
  created('a token Secret in a projection', 'token_secret', (pod) => {
    addVolume(pod, {
      projected: { sources: [{ secret: { name: 'default-token-x8f2k' } }], defaultMode: 420 },
    })
  }),
  created('a token Secret as a variable', 'token_secret', (pod) => {
    list(web(pod), 'env').push({
      name: 'A',
      valueFrom: { secretKeyRef: { name: 'default-token-x8f2k', key: 'token' } },
    })
  }),
  created('a token Secret as variables', 'token_secret', (pod) => {
    web(pod)['envFrom'] = [{ secretRef: { name: 'default-token-x8f2k' } }]
  }),
  created(
    'automounting on',
    'final_state',
    (pod) => (spec(pod)['automountServiceAccountToken'] = true),
  ),
  created('no sidecar any more', 'final_state', (pod) => (spec(pod)['initContainers'] = [])),
  created('a container before the sidecar', 'final_state', (pod) => {
    const early = { ...structuredClone(web(pod)), name: 'early', restartPolicy: 'Always' }
    list(spec(pod), 'initContainers').unshift(early)
  }),
  created('nobody beside the sidecar', 'final_state', nothing, {
    object: changed(injected('P', { ...FINAL_SETTINGS, mode: 'container' }), (pod) => {
      spec(pod)['containers'] = list(spec(pod), 'containers').slice(0, 1)
    }),
  }),
  created(
    'processes that are not shared',
    'final_state',
    (pod) => (spec(pod)['shareProcessNamespace'] = false),
  ),
  created('processes that are shared', 'final_state', nothing, {
    object: changed(injected('C'), (pod) => (spec(pod)['shareProcessNamespace'] = true)),
    level: 'container',
  }),
  created('no kubeconfig', 'final_state', (pod) => {
    web(pod)['volumeMounts'] = list(web(pod), 'volumeMounts').filter(
      ({ name }) => name !== 'nestgate-kubeconfig',
    )
  }),
  created('another place for clients in the cluster', 'final_state', (pod) => {
    const mounts = list(web(pod), 'volumeMounts')
    addVolume(pod, { emptyDir: {} })
    web(pod)['volumeMounts'] = [
      ...mounts.filter(({ name }) => name !== 'nestgate-serviceaccount'),
      { name: 'extra', mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' },
    ]
  }),
  created('something beside what clients in the cluster read', 'final_state', (pod) => {
    addVolume(pod, { emptyDir: {} })
    list(web(pod), 'volumeMounts').push({
      name: 'extra',
      mountPath: '/run/secrets/kubernetes.io//serviceaccount/x',
    })
  }),
  created('no volume for the kubeconfig', 'final_state', (pod) => {
    const volumes = list(spec(pod), 'volumes')
    spec(pod)['volumes'] = volumes.filter(({ name }) => name !== 'nestgate-kubeconfig')
  }),
  created('another API server', 'final_state', (pod) => {
    list(web(pod), 'env').push({ name: 'KUBERNETES_SERVICE_HOST', value: '10.0.0.1' })
  }),
  created('another kubeconfig', 'final_state', (pod) => {
    list(web(pod), 'env').push({ name: 'KUBECONFIG', value: '/x' })
  }),
  created('raw packets by default', 'final_state', (pod) => {
    delete web(pod)['securityContext']
  }),
  created('another kubeconfig in the annotation', 'final_state', (pod) => {
    annotations(pod)['nestgate.dev/kubeconfig'] = 'apiVersion: v1'
  }),
  created(
    'another status',
    'final_state',
    (pod) => (annotations(pod)['nestgate.dev/status'] = '{}'),
  ),
]

function updated(
  name: string,
  code: Reason | undefined,
  change: Change,
  before: Json = injected(),
): FinalCase {
  const object = changed(before, change)
  return {
    name,
    operation: 'UPDATE',
    resource: 'pods',
    object,
    oldObject: before,
    ...(code && { code }),
  }
}

/** A running pod that is changed. */
const UPDATED: readonly FinalCase[] = [
  updated('labels, images and tolerations of the author’s', undefined, (pod) => {
    at(pod, 'metadata', 'labels')['app'] = 'web'
    annotations(pod)['example.com/a'] = 'b'
    web(pod)['image'] = 'web:2'
    spec(pod)['tolerations'] = [{ operator: 'Exists' }]
  }),
  updated('the resources of the sidecar', undefined, (pod) => {
    at(sidecar(pod), 'resources', 'limits')['memory'] = '256Mi'
  }),
  updated('a pod from before the label', undefined, (pod) => (web(pod)['image'] = 'web:2'), PLAIN),
  updated('the sidecar’s image', 'sidecar_changed', (pod) => (sidecar(pod)['image'] = 'evil')),
  updated(
    'a plain-container sidecar’s image',
    'sidecar_changed',
    (pod) => (web(pod)['image'] = 'evil'),
    injected('P', { ...FINAL_SETTINGS, mode: 'container' }),
  ),
  updated(
    'a mark among the annotations',
    'sidecar_changed',
    (pod) => (annotations(pod)['nestgate.dev/status'] = '{}'),
  ),
  updated('a mark that goes', 'sidecar_changed', (pod) => {
    delete annotations(pod)['nestgate.dev/kubeconfig']
  }),
  updated(
    'a mark among the labels',
    'sidecar_changed',
    (pod) => (at(pod, 'metadata', 'labels')['nestgate.dev/a'] = 'b'),
  ),
  updated(
    'a mark on a pod from before the label',
    'sidecar_changed',
    (pod) => {
      annotations(pod)['nestgate.dev/status'] = '{"version":3,"mode":"native","profile":"P"}'
    },
    PLAIN,
  ),
]

const QUIET = { capabilities: { drop: ['ALL'] } }

function debugged(
  name: string,
  code: Reason | undefined,
  container: Json,
  more: Partial<FinalCase> & { before?: Json } = {},
): FinalCase {
  const { before = injected(), ...rest } = more
  const ephemeral = { name: 'debugger', image: 'busybox', securityContext: QUIET, ...container }
  const object = changed(before, (pod) => {
    list(spec(pod), 'ephemeralContainers').push(ephemeral)
  })
  return {
    name: `debugging: ${name}`,
    operation: 'UPDATE',
    resource: 'pods/ephemeralcontainers',
    object,
    oldObject: before,
    ...(code && { code }),
    ...rest,
  }
}

/** Ephemeral containers. */
const DEBUGGED: readonly FinalCase[] = [
  debugged('as kubectl debug --profile=restricted', undefined, { targetContainerName: 'web' }),
  debugged('with what the author’s containers have', undefined, {
    volumeMounts: [
      { name: 'nestgate-kubeconfig', mountPath: '/var/run/nestgate', readOnly: true },
      {
        name: 'nestgate-serviceaccount',
        mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
        readOnly: true,
      },
    ],
  }),
  debugged('as the pod’s user in profile R', undefined, {}, { before: injected('R') }),
  debugged(
    'raw packets where containers are told apart',
    undefined,
    { securityContext: { capabilities: { add: ['NET_RAW'] } } },
    { before: injected('C') },
  ),
  debugged('a pod from before the label', undefined, { securityContext: {} }, { before: PLAIN }),
  debugged('the sidecar’s name', 'reserved_name', { name: SIDECAR_NAME }, { before: PLAIN }),
  debugged('the sidecar’s processes', 'sidecar_entered', { targetContainerName: SIDECAR_NAME }),
  debugged('the sidecar’s token', 'sidecar_entered', {
    volumeMounts: [{ name: 'nestgate-token', mountPath: '/t', readOnly: true }],
  }),
  debugged('a writable kubeconfig', 'sidecar_entered', {
    volumeMounts: [{ name: 'nestgate-kubeconfig', mountPath: '/var/run/nestgate' }],
  }),
  debugged('what in-cluster clients read, writable', 'sidecar_entered', {
    volumeMounts: [{ name: 'nestgate-serviceaccount', mountPath: '/x' }],
  }),
  debugged('a variable from a volume of ours', 'sidecar_entered', {
    env: [
      {
        name: 'A',
        valueFrom: { fileKeyRef: { volumeName: 'nestgate-token', path: 'token', key: 'A' } },
      },
    ],
  }),
  debugged('privileged', 'container_privileges', { securityContext: { privileged: true } }),
  debugged('an unmasked /proc', 'container_privileges', {
    securityContext: { ...QUIET, procMount: 'Unmasked' },
  }),
  debugged('tracing, as kubectl debug --profile=general', 'container_privileges', {
    securityContext: { capabilities: { add: ['SYS_PTRACE'] } },
  }),
  debugged('the sidecar’s user', 'sidecar_user', {
    securityContext: { ...QUIET, runAsUser: 64_210 },
  }),
  debugged('the sidecar’s group', 'sidecar_user', {
    securityContext: { ...QUIET, runAsGroup: 64_210 },
  }),
  debugged('a token Secret as a variable', 'token_secret', {
    env: [
      { name: 'A', valueFrom: { secretKeyRef: { name: 'default-token-x8f2k', key: 'token' } } },
    ],
  }),
  debugged('a token Secret as variables', 'token_secret', {
    envFrom: [{ secretRef: { name: 'default-token-x8f2k' } }],
  }),
  debugged('raw packets where processes are told apart', 'identity_level', {
    securityContext: { capabilities: { add: ['NET_ADMIN'], drop: ['NET_RAW'] } },
  }),
  debugged(
    'raw packets by default where processes are told apart',
    'identity_level',
    { securityContext: {} },
    { before: injected('R') },
  ),
]

function session(
  name: string,
  resource: string,
  options: Json,
  code?: Reason,
  user?: keyof typeof USERS,
): FinalCase {
  const kind =
    { 'pods/exec': 'PodExecOptions', 'pods/attach': 'PodAttachOptions' }[resource] ??
    'PodPortForwardOptions'
  const object = { apiVersion: 'v1', kind, ...options }
  return {
    name,
    operation: 'CONNECT',
    resource,
    object,
    ...(code && { code }),
    ...(user && { user }),
  }
}

const INTO_SIDECAR = { container: SIDECAR_NAME, command: ['sh'] }

/** Sessions with a pod. */
const CONNECTED: readonly FinalCase[] = [
  session('exec in a container of the author’s', 'pods/exec', {
    container: 'web',
    command: ['sh'],
  }),
  session('exec without a name', 'pods/exec', { command: ['sh'] }),
  session('exec in the sidecar', 'pods/exec', INTO_SIDECAR, 'sidecar_entered'),
  session(
    'exec in the sidecar, through the broker',
    'pods/exec',
    INTO_SIDECAR,
    'sidecar_entered',
    'broker',
  ),
  session(
    'exec in the sidecar, of somebody exempt, through the broker',
    'pods/exec',
    INTO_SIDECAR,
    'sidecar_entered',
    'brokerForOps',
  ),
  session('exec in the sidecar, of somebody exempt', 'pods/exec', INTO_SIDECAR, undefined, 'ops'),
  session('attaching to a container of the author’s', 'pods/attach', { container: 'web' }),
  session(
    'attaching to the sidecar',
    'pods/attach',
    { container: SIDECAR_NAME },
    'sidecar_entered',
  ),
  session(
    'attaching to the sidecar, through the broker',
    'pods/attach',
    { container: SIDECAR_NAME },
    'sidecar_entered',
    'broker',
  ),
  session(
    'attaching to the sidecar, of somebody exempt',
    'pods/attach',
    { container: SIDECAR_NAME },
    undefined,
    'ops',
  ),
  session('forwarding a port', 'pods/portforward', {}, 'port_forward'),
  session('forwarding a port, through the broker', 'pods/portforward', {}, undefined, 'broker'),
  session('forwarding a port, of somebody exempt', 'pods/portforward', {}, undefined, 'ops'),
]

const TOKEN = {
  metadata: { name: 'made', annotations: { 'kubernetes.io/service-account.name': 'default' } },
  type: 'kubernetes.io/service-account-token',
}
const FILLED = { ...TOKEN, data: { token: 'dG9rZW4=' } }

function secret(
  name: string,
  object: Json,
  code?: Reason,
  more: Partial<FinalCase> = {},
): FinalCase {
  const operation = more.oldObject === undefined ? 'CREATE' : 'UPDATE'
  return { name, operation, resource: 'secrets', object, ...(code && { code }), ...more }
}

/** Secrets with tokens. */
const SECRETS: readonly FinalCase[] = [
  secret('a Secret of the author’s', {
    metadata: { name: 'made' },
    type: 'Opaque',
    data: { a: 'Yg==' },
  }),
  secret('a token Secret', TOKEN, 'token_secret_made'),
  secret('a token Secret through the broker', TOKEN, 'token_secret_made', { user: 'broker' }),
  secret('a token Secret of the token controller', TOKEN, undefined, { user: 'tokenController' }),
  secret('a token Secret of somebody exempt', TOKEN, undefined, { user: 'ops' }),
  secret('a token Secret that is filled', FILLED, undefined, {
    oldObject: TOKEN,
    user: 'tokenController',
  }),
  secret(
    'a token Secret that is labelled',
    { ...FILLED, metadata: { ...TOKEN.metadata, labels: { a: 'b' } } },
    undefined,
    { oldObject: FILLED },
  ),
  secret('a token Secret that is emptied', TOKEN, 'token_secret_made', { oldObject: FILLED }),
  secret(
    'a token Secret of another account',
    {
      ...FILLED,
      metadata: { name: 'made', annotations: { 'kubernetes.io/service-account.name': 'admin' } },
    },
    'token_secret_made',
    { oldObject: FILLED },
  ),
]

const BOUND = {
  kind: 'Pod',
  apiVersion: 'v1',
  name: 'web',
  uid: 'c0ffee00-0000-4000-8000-000000000002',
}

function requested(
  name: string,
  audiences: readonly string[] | undefined,
  code?: Reason,
  user?: keyof typeof USERS,
): FinalCase {
  return {
    name: `a token ${name}`,
    operation: 'CREATE',
    resource: 'serviceaccounts/token',
    object: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: { ...(audiences && { audiences }), boundObjectRef: BOUND },
    },
    ...(code && { code }),
    ...(user && { user }),
  }
}

/** Tokens that are asked for by name. */
const REQUESTED: readonly FinalCase[] = [
  requested('for whom pods may have one', ['vault']),
  requested('for the API server', undefined, 'token_requested'),
  requested('for the API server by name', ['https://issuer.example'], 'token_requested'),
  requested('for the broker, as the sidecar has one', ['nestgate-broker'], 'token_requested'),
  requested('for the broker among others', ['vault', 'nestgate-broker'], 'token_requested'),
  requested('for anybody else', ['sts.amazonaws.com'], 'token_requested'),
  requested('for nobody', [''], 'token_requested'),
  requested('through the broker', undefined, 'token_requested', 'broker'),
  requested('that a kubelet asks for', ['nestgate-broker'], undefined, 'node'),
  requested('of somebody exempt', undefined, undefined, 'ops'),
]

function labelled(
  name: string,
  before: Json,
  after: Json,
  code?: Reason,
  more: Partial<FinalCase> = {},
): FinalCase {
  const of = (labels: Json): Json => ({ metadata: { name: NAMESPACE, labels } })
  return {
    name: `a namespace ${name}`,
    operation: 'UPDATE',
    resource: 'namespaces',
    object: of(after),
    oldObject: of(before),
    ...(code && { code }),
    ...more,
  }
}

const ON = { 'nestgate.dev/inject': 'enabled' }
const STRICT = { ...ON, 'nestgate.dev/identity': 'process' }

/** The labels of a namespace. */
const LABELLED: readonly FinalCase[] = [
  labelled('with other labels', ON, { ...ON, a: 'b' }),
  labelled('that becomes stricter', ON, STRICT),
  labelled('that was not injected', { a: 'b' }, {}),
  labelled('that was observed', { 'nestgate.dev/inject': 'observe' }, {}),
  labelled('without the label any more', ON, {}, 'namespace_unlabelled'),
  labelled(
    'that is only observed',
    ON,
    { 'nestgate.dev/inject': 'observe' },
    'namespace_unlabelled',
  ),
  labelled('that asks for less', STRICT, ON, 'namespace_unlabelled'),
  labelled(
    'that asks for containers',
    ON,
    { ...ON, 'nestgate.dev/identity': 'container' },
    'namespace_unlabelled',
  ),
  labelled(
    'of a revision that nobody has',
    ON,
    { ...ON, 'nestgate.dev/rev': 'x' },
    'namespace_unlabelled',
  ),
  labelled('by its status', ON, {}, 'namespace_unlabelled', { resource: 'namespaces/status' }),
  labelled('by its end', ON, {}, 'namespace_unlabelled', { resource: 'namespaces/finalize' }),
  labelled('through the broker', ON, {}, 'namespace_unlabelled', { user: 'broker' }),
  labelled('of somebody exempt', ON, {}, undefined, { user: 'ops' }),
]

/** All of them. */
export const FINAL_CASES: readonly FinalCase[] = [
  ...CREATED,
  ...UPDATED,
  ...DEBUGGED,
  ...CONNECTED,
  ...SECRETS,
  ...REQUESTED,
  ...LABELLED,
]
