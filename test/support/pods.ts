/**
 * Pods of authors who want a credential, or a way around the loopback: one attack each, by the rows of the research on
 * injectors, and next to each the harmless thing that looks like it. The tables serve three tests: what the injector says to
 * each (test/unit/injection/rows.test.ts), whether the oracle sees each in a finished pod, and the generator of
 * hostile pods.
 */
import type { Json } from './pod-admission.ts'

/** Lists of a pod that hold containers. */
export const LISTS = ['initContainers', 'containers', 'ephemeralContainers'] as const

/** One thing that an author does to a pod. */
export interface Attack {
  /** Row of the research, such as `A9`. */
  readonly row: string
  readonly name: string
  /** Code that refuses it; undefined where the injector rewrites it. */
  readonly code?: string
  /** Does it to the pod and returns the path of the field that a refusal should name. */
  readonly apply: (pod: Json) => string
}

/** A pod that asks for nothing. */
export function plainPod(): Json {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'agent', namespace: 'team-a' },
    spec: { containers: [{ name: 'agent', image: 'agents.example/a:1' }] },
  }
}

/** The object under a key, made where there is none. */
export function objectIn(parent: Json, key: string): Json {
  const there = parent[key]
  if (typeof there === 'object' && there !== null && !Array.isArray(there)) return there as Json
  const made: Json = {}
  parent[key] = made
  return made
}

/** The list under a key, made where there is none. */
export function listIn(parent: Json, key: string): Json[] {
  const there = parent[key]
  if (Array.isArray(there)) return there as Json[]
  const made: Json[] = []
  parent[key] = made
  return made
}

/** The objects of a list, or none where there is no list. */
export function itemsOf(parent: unknown, key: string): readonly Json[] {
  const there = ((parent ?? {}) as Json)[key]
  return Array.isArray(there) ? (there as Json[]) : []
}

/** Every container of a pod, with its path. */
export function containersOf(pod: Json): readonly { path: string; list: string; it: Json }[] {
  return LISTS.flatMap((list) =>
    itemsOf(pod['spec'], list).map((it, index) => ({ path: `spec.${list}[${index}]`, list, it })),
  )
}

const specOf = (pod: Json): Json => objectIn(pod, 'spec')

/** Adds a volume and returns its path. */
export function addVolume(pod: Json, volume: Json): string {
  const volumes = listIn(specOf(pod), 'volumes')
  volumes.push(volume)
  return `spec.volumes[${volumes.length - 1}]`
}

/** Adds a container of the attacker's and returns its path. */
function addContainer(pod: Json, list: string, more: Json): string {
  const containers = listIn(specOf(pod), list)
  containers.push({ name: `evil-${containers.length}`, image: 'evil.example/x:1', ...more })
  return `spec.${list}[${containers.length - 1}]`
}

function podField(row: string, key: string, value: unknown, code?: string): Attack {
  return {
    row,
    name: `spec.${key}: ${JSON.stringify(value)}`,
    ...(code === undefined ? {} : { code }),
    apply: (pod) => {
      specOf(pod)[key] = structuredClone(value)
      return `spec.${key}`
    },
  }
}

function inEachList(row: string, name: string, code: string, more: Json, field: string): Attack[] {
  return LISTS.map((list) => ({
    row,
    code,
    name: `${name} in ${list}`,
    apply: (pod: Json): string => `${addContainer(pod, list, structuredClone(more))}.${field}`,
  }))
}

function volumeAttack(
  row: string,
  name: string,
  code: string,
  volume: Json,
  field: string,
  mount?: Json,
): Attack {
  return {
    row,
    name,
    code,
    apply: (pod) => {
      const path = addVolume(pod, { name: 'loot', ...structuredClone(volume) })
      if (mount !== undefined)
        addContainer(pod, 'containers', { volumeMounts: [{ name: 'loot', ...mount }] })
      return `${path}${field}`
    },
  }
}

const tokenOf = (audience?: string | null): Json => ({
  serviceAccountToken: audience === undefined ? { path: 't' } : { audience, path: 't' },
})
const projected = (...sources: Json[]): Json => ({ projected: { sources } })

/** Where in-cluster clients look for a token. */
export const SA_PATH = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Ways to write that path, and places in it. */
export const SA_SPELLINGS: readonly string[] = [
  SA_PATH,
  `${SA_PATH}/`,
  `${SA_PATH}//`,
  `/${SA_PATH}`,
  SA_PATH.slice(1),
  SA_PATH.replace('/var/run', '/run'),
  SA_PATH.replace('/var/run', 'run'),
  SA_PATH.replace('/var/run', '/var/./run'),
  SA_PATH.replace('/var/run', '/var/x/../run'),
  SA_PATH.replace('/secrets/', '//secrets/'),
  `/../..${SA_PATH}`,
  `${SA_PATH}/x/..`,
  `${SA_PATH}/token`,
  `${SA_PATH}/..data`,
]

/** Folders above it; a mount there hides nothing of ours, because runtimes mount the shorter path first. */
export const SA_PARENTS: readonly string[] = [
  '/',
  '/var',
  '/var/run',
  '/run',
  '/run/secrets',
  '/var/run/secrets',
  '/var/run/secrets/',
  '/var/run/secrets/kubernetes.io',
]

/** A name that the token controller gives. */
export const TOKEN_SECRET = 'default-token-x8f2k'

const API_AUDIENCES = [undefined, null, '', 'https://kubernetes.default.svc']

/** What the injector changes by itself: the pod goes through, and the way is closed in it. */
export const REWRITTEN: readonly Attack[] = [
  {
    row: 'A1',
    name: 'a token volume that nobody mounts',
    apply: (pod) => addVolume(pod, { name: 'loot', ...projected(tokenOf()) }),
  },
  {
    row: 'A1',
    name: 'a token volume without a name',
    apply: (pod) => addVolume(pod, projected(tokenOf())),
  },
  ...SA_SPELLINGS.flatMap((mountPath) =>
    LISTS.map((list) => ({
      row: 'A1',
      name: `a token volume at ${mountPath} in ${list}`,
      apply: (pod: Json): string => {
        const path = addVolume(pod, { name: 'loot', ...projected({ configMap: {} }, tokenOf('')) })
        addContainer(pod, list, { volumeMounts: [{ name: 'loot', mountPath }] })
        return path
      },
    })),
  ),
  {
    row: 'A1',
    name: 'a name that the ServiceAccount plugin adopts, with something else in it',
    apply: (pod) => addVolume(pod, { name: 'kube-api-access-x', emptyDir: {} }),
  },
  {
    row: 'A5',
    name: 'a Secret of an unknown name where the token belongs',
    apply: (pod) => {
      const path = addVolume(pod, { name: 'loot', secret: { secretName: 'mine' } })
      addContainer(pod, 'containers', { volumeMounts: [{ name: 'loot', mountPath: SA_PATH }] })
      return path
    },
  },
  podField('A1', 'automountServiceAccountToken', true),
  ...[
    [{ name: 'KUBECONFIG', value: '/tmp/mine' }],
    [
      { name: 'KUBECONFIG', value: '/var/run/nestgate/config' },
      { name: 'KUBECONFIG', value: '/tmp/mine' },
    ],
    [{ name: 'KUBECONFIG', valueFrom: { configMapKeyRef: { name: 'c', key: 'k' } } }],
    [{ name: 'KUBERNETES_SERVICE_HOST', value: '10.0.0.1' }],
    [
      { name: 'KUBERNETES_SERVICE_PORT', value: '443' },
      { name: 'X' },
      { name: 'KUBERNETES_SERVICE_PORT', value: '6443' },
    ],
    [{ name: 'KUBERNETES_SERVICE_PORT_HTTPS', value: null, valueFrom: null }],
    [
      // As ours stand, and once more behind them: the last one wins.
      { name: 'KUBERNETES_SERVICE_HOST', value: '127.0.0.1' },
      { name: 'KUBERNETES_SERVICE_PORT', value: '8443' },
      { name: 'KUBERNETES_SERVICE_PORT_HTTPS', value: '8443' },
      { name: 'KUBERNETES_SERVICE_HOST', value: '10.0.0.1' },
    ],
  ].flatMap((env) =>
    LISTS.map((list) => ({
      row: 'A13',
      name: `${env.map((entry) => entry.name).join(', ')} in ${list}`,
      apply: (pod: Json): string => `${addContainer(pod, list, { env: structuredClone(env) })}.env`,
    })),
  ),
  podField('A17', 'shareProcessNamespace', true),
  podField('A17', 'shareProcessNamespace', false),
]

const windowsOptions = { hostProcess: true, runAsUserName: 'NT AUTHORITY\\SYSTEM' }

/** Capabilities that reach the node or the sidecar's memory, in spellings that runtimes take. */
export const NODE_CAPABILITIES: readonly string[] = [
  'SYS_ADMIN',
  'SYS_PTRACE',
  'SYS_MODULE',
  'SYS_RAWIO',
  'DAC_READ_SEARCH',
  'BPF',
  'PERFMON',
  'CHECKPOINT_RESTORE',
  'ALL',
  'CAP_SYS_ADMIN',
  'sys_ptrace',
  'cap_Sys_Module',
  'all',
  'CAP_ALL',
]

/** Ports of the sidecar. */
export const SIDECAR_PORTS: readonly number[] = [8001, 8002, 8443]

const secretRef = { name: TOKEN_SECRET }
const mountOf = (name: string, mountPath = '/x'): Json => ({ volumeMounts: [{ name, mountPath }] })

/** What the injector refuses, with the code; a container of the attacker's is appended to its list. */
export const REFUSED: readonly Attack[] = [
  ...API_AUDIENCES.flatMap((audience) => [
    volumeAttack(
      'A2',
      `an API token (audience ${JSON.stringify(audience)}) elsewhere`,
      'token_api_audience',
      projected({ configMap: { name: 'c' } }, tokenOf(audience)),
      '.projected.sources[1].serviceAccountToken',
      { mountPath: '/secrets' },
    ),
  ]),
  ...SA_PARENTS.map((mountPath) =>
    volumeAttack(
      'A2',
      `an API token at ${mountPath}`,
      'token_api_audience',
      projected({ serviceAccountToken: { path: 'serviceaccount/token' } }),
      '.projected.sources[0].serviceAccountToken',
      { mountPath },
    ),
  ),
  ...LISTS.map((list): Attack => ({
    row: 'A2',
    name: `an API token at its place and elsewhere in ${list}`,
    code: 'token_api_audience',
    apply: (pod) => {
      const path = addVolume(pod, { name: 'loot', ...projected(tokenOf()) })
      const volumeMounts = [
        { name: 'loot', mountPath: SA_PATH },
        { name: 'loot', mountPath: '/loot', subPath: 't' },
      ]
      addContainer(pod, list, { volumeMounts })
      return `${path}.projected.sources[0].serviceAccountToken`
    },
  })),
  volumeAttack(
    'A3',
    'a token for the broker',
    'token_audience',
    projected({ secret: { name: 's' } }, tokenOf('nestgate-broker')),
    '.projected.sources[1].serviceAccountToken',
    { mountPath: '/x' },
  ),
  volumeAttack(
    'A3',
    'a token for the broker that nobody mounts yet',
    'token_audience',
    projected(tokenOf('nestgate-broker')),
    '.projected.sources[0].serviceAccountToken',
  ),
  ...[
    'sts.amazonaws.com',
    'api://AzureADTokenExchange',
    'istio-ca',
    'vault.example',
    'nestgate-broker ',
  ].map((audience) =>
    volumeAttack(
      'A4',
      `a token for ${JSON.stringify(audience)}`,
      'token_audience_not_allowed',
      projected(tokenOf(audience)),
      '.projected.sources[0].serviceAccountToken',
      { mountPath: '/x' },
    ),
  ),
  volumeAttack(
    'A5',
    'a token Secret as a volume',
    'token_secret',
    { secret: { secretName: TOKEN_SECRET } },
    '.secret.secretName',
    { mountPath: '/x' },
  ),
  volumeAttack(
    'A5',
    'a token Secret in a projection',
    'token_secret',
    projected({ configMap: {} }, { secret: { name: TOKEN_SECRET } }),
    '.projected.sources[1].secret.name',
    { mountPath: '/x' },
  ),
  ...inEachList(
    'A5',
    'a token Secret in a variable',
    'token_secret',
    {
      env: [
        { name: 'A' },
        { name: 'B', valueFrom: { secretKeyRef: { ...secretRef, key: 'token' } } },
      ],
    },
    'env[1].valueFrom.secretKeyRef',
  ),
  ...inEachList(
    'A5',
    'a token Secret as variables',
    'token_secret',
    { envFrom: [{ configMapRef: {} }, { prefix: 'X_', secretRef }] },
    'envFrom[1].secretRef',
  ),
  volumeAttack(
    'A7',
    'a pod certificate',
    'pod_certificate',
    projected({ podCertificate: { signerName: 'signer.example/x', keyType: 'ED25519' } }),
    '.projected.sources[0].podCertificate',
  ),
  volumeAttack(
    'A7',
    'a pod certificate of the API server’s own signer',
    'pod_certificate',
    projected({ podCertificate: { signerName: 'kubernetes.io/kube-apiserver-client-pod' } }),
    '.projected.sources[0].podCertificate',
  ),
  volumeAttack('A8', 'a CSI volume', 'csi_driver', { csi: { driver: 'csi.spiffe.io' } }, '.csi'),
  volumeAttack('A8', 'a CSI volume without a driver', 'csi_driver', { csi: {} }, '.csi'),
  volumeAttack(
    'A8',
    'a flexVolume',
    'csi_driver',
    { flexVolume: { driver: 'x/y' } },
    '.flexVolume',
  ),
  volumeAttack(
    'A9',
    'a hostPath',
    'host_path',
    { hostPath: { path: '/var/lib/kubelet' } },
    '.hostPath',
  ),
  volumeAttack('A9', 'an empty hostPath', 'host_path', { hostPath: {} }, '.hostPath'),
  volumeAttack(
    'A9',
    'a git repository',
    'csi_driver',
    { gitRepo: { repository: 'r' } },
    '.gitRepo',
  ),
  ...LISTS.map((list): Attack => ({
    row: 'A10',
    name: `a sidecar of the author’s in ${list}`,
    code: 'reserved_name',
    apply: (pod) => addContainer(pod, list, { name: 'nestgate-sidecar' }),
  })),
  ...['nestgate-token', 'nestgate-kubeconfig', 'nestgate-serviceaccount'].flatMap((name) =>
    [
      { emptyDir: {} },
      { secret: { secretName: 'mine' } },
      projected(tokenOf('nestgate-broker')),
    ].map((source): Attack => ({
      row: 'A10',
      name: `a volume ${name}: ${JSON.stringify(source)}`,
      code: 'reserved_name',
      apply: (pod) => addVolume(pod, { name, ...structuredClone(source) }),
    })),
  ),
  ...inEachList(
    'A11',
    'a mount of our token',
    'reserved_name',
    mountOf('nestgate-token'),
    'volumeMounts[0]',
  ),
  ...inEachList(
    'A11',
    'a writable mount of what in-cluster clients read',
    'reserved_name',
    mountOf('nestgate-serviceaccount', SA_PATH),
    'volumeMounts[0]',
  ),
  ...inEachList(
    'A11',
    'a mount over our kubeconfig',
    'reserved_name',
    mountOf('w', '/run/nestgate/config'),
    'volumeMounts[0]',
  ),
  ...inEachList(
    'A11',
    'a variable from a file of our volume',
    'reserved_name',
    {
      env: [
        { name: 'A', valueFrom: { fileKeyRef: { volumeName: 'nestgate-token', path: 'token' } } },
      ],
    },
    'env[0].valueFrom.fileKeyRef',
  ),
  ...[
    'container.apparmor.security.beta.kubernetes.io/nestgate-sidecar',
    'container.seccomp.security.alpha.kubernetes.io/nestgate-sidecar',
  ].map((key): Attack => ({
    row: 'A12',
    name: `an annotation ${key}`,
    code: 'reserved_name',
    apply: (pod) => {
      objectIn(objectIn(pod, 'metadata'), 'annotations')[key] = 'unconfined'
      return 'metadata.annotations'
    },
  })),
  podField('A15', 'hostNetwork', true, 'host_network'),
  podField('A16', 'hostPID', true, 'host_pid'),
  podField('A16', 'hostIPC', true, 'host_ipc'),
  ...inEachList(
    'A18',
    'a privileged container',
    'container_privileges',
    { securityContext: { privileged: true } },
    'securityContext.privileged',
  ),
  ...inEachList(
    'A18',
    'an unmasked /proc',
    'container_privileges',
    { securityContext: { procMount: 'Unmasked' } },
    'securityContext.procMount',
  ),
  ...NODE_CAPABILITIES.flatMap((name) =>
    inEachList(
      'A18',
      `the capability ${name}`,
      'container_privileges',
      { securityContext: { capabilities: { add: ['CHOWN', name], drop: ['ALL'] } } },
      'securityContext.capabilities',
    ),
  ),
  podField('A19', 'os', { name: 'windows' }, 'windows'),
  ...['kubernetes.io/os', 'beta.kubernetes.io/os'].map((label): Attack => ({
    row: 'A19',
    name: `the node selector ${label}`,
    code: 'windows',
    apply: (pod) => {
      objectIn(specOf(pod), 'nodeSelector')[label] = 'windows'
      return 'spec.nodeSelector'
    },
  })),
  podField('A19', 'securityContext', { windowsOptions }, 'windows'),
  {
    row: 'A19',
    name: 'a node affinity',
    code: 'windows',
    apply: (pod) => {
      const matchExpressions = [
        { key: 'disk', operator: 'Exists' },
        { key: 'kubernetes.io/os', operator: 'In', values: ['linux', 'windows'] },
      ]
      objectIn(objectIn(specOf(pod), 'affinity'), 'nodeAffinity')[
        'requiredDuringSchedulingIgnoredDuringExecution'
      ] = { nodeSelectorTerms: [{}, { matchExpressions }] }
      return 'spec.affinity.nodeAffinity'
    },
  },
  ...inEachList(
    'A19',
    'Windows options',
    'windows',
    { securityContext: { windowsOptions } },
    'securityContext.windowsOptions',
  ),
  ...SIDECAR_PORTS.flatMap((containerPort) =>
    [{ containerPort }, { containerPort, protocol: 'TCP' }, { containerPort, hostPort: 1 }].flatMap(
      (port) =>
        inEachList(
          'A20',
          JSON.stringify(port),
          'port_reserved',
          { ports: [{ containerPort: 80 }, port] },
          'ports[1].containerPort',
        ),
    ),
  ),
  {
    row: 'A21',
    name: 'a mirror annotation',
    code: 'mirror_pod',
    apply: (pod) => {
      objectIn(objectIn(pod, 'metadata'), 'annotations')['kubernetes.io/config.mirror'] = 'x'
      return 'metadata.annotations'
    },
  },
]

/** The sidecar's user and group in profile C, which nobody else may have. */
export const SIDECAR_ID = 64_210

/** Users and groups that are the sidecar's. */
export const SIDECAR_USERS: readonly Attack[] = [
  ...[
    ['runAsUser', SIDECAR_ID],
    ['runAsGroup', SIDECAR_ID],
    ['fsGroup', SIDECAR_ID],
    ['supplementalGroups', [1, SIDECAR_ID]],
  ].map(([key, value]) => ({
    row: 'A18',
    name: `${String(key)} of the sidecar for the pod`,
    code: 'sidecar_user',
    apply: (pod: Json): string => {
      objectIn(specOf(pod), 'securityContext')[String(key)] = value
      return `spec.securityContext.${String(key)}`
    },
  })),
  ...['runAsUser', 'runAsGroup'].flatMap((key) =>
    inEachList(
      'A18',
      `${key} of the sidecar`,
      'sidecar_user',
      { securityContext: { [key]: SIDECAR_ID } },
      `securityContext.${key}`,
    ),
  ),
]

/** What looks like an attack and is none: nobody may be refused for it, and nothing of it may change. */
export const HARMLESS: readonly Attack[] = [
  ...['default-token-aeiou', 'default-token-x8f2', 'x-token-x8f2kk', 'token-x8f2k-x', ''].map(
    (secretName): Attack => ({
      row: 'A5',
      name: `a Secret named ${JSON.stringify(secretName)}`,
      apply: (pod) => {
        addVolume(pod, { name: 's', secret: { secretName } })
        return addContainer(pod, 'containers', mountOf('s'))
      },
    }),
  ),
  {
    row: 'A7',
    name: 'a cluster trust bundle',
    apply: (pod) =>
      addVolume(pod, {
        name: 'b',
        ...projected({ clusterTrustBundle: { name: 'x', path: 'ca' } }),
      }),
  },
  ...(
    [
      { persistentVolumeClaim: { claimName: 'data' } },
      { ephemeral: { volumeClaimTemplate: { spec: {} } } },
      { image: { reference: 'r.example/x' } },
      { downwardAPI: { items: [] } },
      { configMap: { name: 'c' } },
      { nfs: { server: 's', path: '/' } },
      { hostPath: null, csi: null, secret: null, projected: null, emptyDir: {} },
    ] as Json[]
  ).map((source): Attack => ({
    row: 'A9',
    name: `a volume ${JSON.stringify(source)}`,
    apply: (pod) => addVolume(pod, { name: 'v', ...structuredClone(source) }),
  })),
  ...SA_PARENTS.filter((path) => path !== '/').map((mountPath): Attack => ({
    row: 'A1',
    name: `an emptyDir at ${mountPath}`,
    apply: (pod) => {
      addVolume(pod, { name: 'e', emptyDir: {} })
      return addContainer(pod, 'containers', mountOf('e', mountPath))
    },
  })),
  ...[`${SA_PATH}s`, '/var/run/secrets/nestgate', '/var/run/nestgate2'].map(
    (mountPath): Attack => ({
      row: 'A1',
      name: `an emptyDir at ${mountPath}`,
      apply: (pod) => {
        addVolume(pod, { name: 'e', emptyDir: {} })
        return addContainer(pod, 'containers', mountOf('e', mountPath))
      },
    }),
  ),
  podField('A15', 'hostNetwork', false),
  podField('A16', 'hostPID', null),
  podField('A19', 'os', { name: 'linux' }),
  podField('A19', 'nodeSelector', { 'kubernetes.io/os': 'linux', disk: 'windows' }),
  podField('A19', 'tolerations', [{ key: 'os', value: 'windows', tolerationSeconds: 2 ** 40 }]),
  ...(
    [
      ...[80, 8000, 8003, 8080, 9443].map((containerPort) => ({ containerPort })),
      { containerPort: 8443, protocol: 'UDP' },
      { containerPort: 80, hostPort: 8001 },
    ] as Json[]
  ).map((port): Attack => ({
    row: 'A20',
    name: `port ${JSON.stringify(port)}`,
    apply: (pod) => addContainer(pod, 'containers', { ports: [{ ...port }] }),
  })),
  {
    row: 'A18',
    name: 'capabilities that are taken, and one that reaches nobody',
    apply: (pod) =>
      addContainer(pod, 'containers', {
        securityContext: {
          privileged: false,
          procMount: 'Default',
          capabilities: { add: ['NET_BIND_SERVICE', 'CHOWN'], drop: ['SYS_ADMIN', 'NET_RAW'] },
        },
      }),
  },
  {
    row: 'A21',
    name: 'an annotation beside that of mirror pods',
    apply: (pod) => {
      objectIn(objectIn(pod, 'metadata'), 'annotations')['kubernetes.io/config.source'] = 'api'
      return 'metadata.annotations'
    },
  },
]
