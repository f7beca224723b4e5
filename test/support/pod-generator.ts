/**
 * Generators of pods (fast-check). `oddPod`: whatever Kubernetes lets an author write that is no attack, however odd, so
 * the injector must take it. `hostilePod`: the same, with some of the attacks of pods.ts in it. `restrictedPod`: what
 * Pod Security `restricted` admits.
 */
import fc from 'fast-check'
import type { Json } from './pod-admission.ts'
import { HARMLESS, REFUSED, REWRITTEN, SA_PARENTS, SA_SPELLINGS, SIDECAR_USERS } from './pods.ts'
import type { Attack } from './pods.ts'

/** A pod, and which attacks are in it. */
export interface HostilePod {
  readonly pod: Json
  readonly attacks: readonly Attack[]
}

/** Maybe absent, now and then null, as Go writes lists without `omitempty`. */
function maybe<T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null | undefined> {
  return fc.oneof(
    { weight: 5, arbitrary },
    { weight: 4, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constant(null) },
  )
}

const pick = <T>(...values: readonly T[]): fc.Arbitrary<T> => fc.constantFrom(...values)

/** Keys that break patches and prototypes. */
const oddKey = pick(
  'a',
  'a/b',
  'a~b',
  'a~1b',
  '~0/~1',
  '',
  '0',
  '-',
  'constructor',
  '__proto__',
  'ü',
)
const unknown = fc.dictionary(oddKey, fc.jsonValue({ maxDepth: 2 }), {
  maxKeys: 3,
  noNullPrototype: true,
})
const volumeName = pick('v0', 'v1', 'v2', 'kube-api-access-abcde', 'default-token-aeiou', 'a/b')

const otherSource = pick<Json>(
  { configMap: { name: 'kube-root-ca.crt' } },
  { secret: { name: 'plain' } },
  { downwardAPI: { items: [{ path: 'p', fieldRef: { fieldPath: 'metadata.name' } }] } },
  { clusterTrustBundle: { name: 'b', path: 'ca' } },
  { serviceAccountToken: null },
  { serviceAccountToken: { audience: 'vault', path: 't', expirationSeconds: 600 } },
)
const volumeSource = fc.oneof(
  fc.array(otherSource, { maxLength: 3 }).map((sources): Json => ({ projected: { sources } })),
  pick<Json>(
    { emptyDir: {} },
    { emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } },
    { configMap: { name: 'c', defaultMode: 0o400 } },
    { persistentVolumeClaim: { claimName: 'data' } },
    { ephemeral: { volumeClaimTemplate: { spec: { resources: {} } } } },
    { image: { reference: 'r.example/i' } },
    { downwardAPI: { items: null } },
    { nfs: { server: 'n', path: '/x' } },
    { iscsi: { targetPortal: 't', lun: 2 ** 31 } },
    { projected: { sources: null } },
    { projected: {} },
  ),
)
const volumes = fc.uniqueArray(
  fc.tuple(volumeName, volumeSource).map(([name, source]): Json => ({ name, ...source })),
  { selector: (volume) => volume['name'], maxLength: 5 },
)

const mount = fc.record<Json>(
  {
    name: volumeName,
    mountPath: fc.oneof(pick(...SA_SPELLINGS), pick(...SA_PARENTS), pick('/x', '/data', 'rel', '')),
    readOnly: maybe(fc.boolean()),
    subPath: maybe(pick('', 'sub')),
    mountPropagation: maybe(pick('HostToContainer', 'None')),
  },
  { requiredKeys: ['name', 'mountPath'] },
)

const variableName = pick(
  'KUBECONFIG',
  'KUBERNETES_SERVICE_HOST',
  'KUBERNETES_SERVICE_PORT',
  'KUBERNETES_SERVICE_PORT_HTTPS',
  'KUBERNETES_PORT',
  'PATH',
  'kubeconfig',
  '',
  'ümlaut',
)
const variable = fc.record<Json>(
  {
    name: variableName,
    value: maybe(
      pick('', 'x', '$(KUBERNETES_SERVICE_HOST)', '/var/run/nestgate/config', '127.0.0.1'),
    ),
    valueFrom: maybe(
      pick<Json>(
        { fieldRef: { fieldPath: 'metadata.name' } },
        { secretKeyRef: { name: 'plain', key: 'k' } },
        { configMapKeyRef: null },
        { resourceFieldRef: { resource: 'limits.cpu' } },
      ),
    ),
  },
  { requiredKeys: ['name'] },
)
const envFrom = pick<Json>(
  { configMapRef: { name: 'c' } },
  { secretRef: { name: 'plain' }, prefix: 'KUBE' },
  { secretRef: null },
)

const id = maybe(pick(0, 1000, 1001, 65_534, 2 ** 31 - 1))
const capability = pick(
  'CHOWN',
  'NET_BIND_SERVICE',
  'net_admin',
  'CAP_NET_RAW',
  'NET_RAW',
  'KILL',
  '',
)
const dropped = pick('ALL', 'all', 'NET_RAW', 'cap_net_raw', 'SYS_ADMIN', 'MKNOD')
const containerContext = fc.record<Json>(
  {
    runAsUser: id,
    runAsGroup: id,
    runAsNonRoot: maybe(fc.boolean()),
    privileged: pick(false, null, undefined),
    procMount: pick(undefined, null, 'Default'),
    allowPrivilegeEscalation: maybe(fc.boolean()),
    readOnlyRootFilesystem: maybe(fc.boolean()),
    capabilities: maybe(
      fc.record<Json>(
        {
          add: maybe(fc.array(capability, { maxLength: 2 })),
          drop: maybe(fc.array(dropped, { maxLength: 2 })),
        },
        { requiredKeys: [] },
      ),
    ),
    seccompProfile: maybe(pick<Json>({ type: 'RuntimeDefault' }, { type: 'Unconfined' })),
    unknown,
  },
  { requiredKeys: [] },
)
const handler = pick<Json>(
  { exec: { command: ['true'] } },
  { httpGet: { path: '/', port: 8080 } },
  { tcpSocket: { port: 'named' } },
  { grpc: { port: 9000 } },
)
const container = fc.record<Json>(
  {
    name: pick('agent', 'tool', 'istio-proxy', 'a/b~c', ''),
    image: pick('agents.example/a:1', 'a@sha256:0', ''),
    command: maybe(fc.array(pick('sh', '-c', '')) as fc.Arbitrary<unknown>),
    env: maybe(fc.array(variable, { maxLength: 6 })),
    envFrom: maybe(fc.array(envFrom, { maxLength: 2 })),
    volumeMounts: maybe(fc.array(mount, { maxLength: 5 })),
    securityContext: maybe(containerContext),
    ports: maybe(
      fc.array(pick<Json>({ containerPort: 80 }, { containerPort: 8443, protocol: 'UDP' }, {}), {
        maxLength: 2,
      }),
    ),
    livenessProbe: maybe(handler),
    readinessProbe: maybe(handler),
    startupProbe: maybe(handler),
    lifecycle: maybe(handler.map((it): Json => ({ preStop: it, postStart: null }))),
    resources: maybe(
      pick<Json>(
        {},
        { requests: { cpu: '1', 'example.com/gpu': '1' }, limits: null },
        { limits: { memory: '1e3' }, claims: [{ name: 'gpu' }] },
      ),
    ),
    restartPolicyRules: maybe(
      pick<Json[]>([{ action: 'Restart', exitCodes: { operator: 'In', values: [42] } }]),
    ),
    stdin: maybe(fc.boolean()),
    volumeDevices: maybe(pick<Json[]>([{ name: 'v0', devicePath: '/dev/x' }], [])),
    unknown,
  },
  { requiredKeys: ['name'] },
)
const initContainer = fc
  .tuple(container, pick(undefined, 'Always', null))
  .map(([it, restartPolicy]): Json => ({ ...it, restartPolicy }))

/** What other injectors leave behind. */
const otherInjector = pick<Json>(
  {
    name: 'istio-init',
    securityContext: {
      runAsUser: 0,
      capabilities: { add: ['NET_ADMIN', 'NET_RAW'], drop: ['ALL'] },
    },
  },
  {
    name: 'istio-proxy',
    restartPolicy: 'Always',
    securityContext: { runAsUser: 1337, runAsGroup: 1337 },
    ports: [{ containerPort: 15_090, name: 'http-envoy-prom' }],
    startupProbe: { httpGet: { path: '/healthz/ready', port: 15_021 } },
  },
  {
    name: 'vault-agent-init',
    volumeMounts: [{ name: 'v0', mountPath: SA_SPELLINGS[0], readOnly: true }],
  },
)

const annotationKey = fc.oneof(
  oddKey,
  pick(
    'nestgate.dev/status',
    'nestgate.dev/kubeconfig',
    'sidecar.istio.io/status',
    'kubectl.kubernetes.io/default-container',
    'kubernetes.io/config.source',
  ),
)
const metadata = fc.record<Json>(
  {
    name: maybe(pick('agent', '', 'a~1b')),
    generateName: maybe(pick('agents-', '')),
    namespace: maybe(pick('', 'team-a')),
    labels: maybe(fc.dictionary(oddKey, pick('', 'x'), { maxKeys: 2, noNullPrototype: true })),
    annotations: maybe(
      fc.dictionary(annotationKey, pick('', '{"version":3}', 'forged'), {
        maxKeys: 4,
        noNullPrototype: true,
      }),
    ),
    ownerReferences: maybe(
      pick<Json[]>(
        [{ apiVersion: 'batch/v1', kind: 'Job', name: 'j', uid: 'u', controller: true }],
        [],
      ),
    ),
    finalizers: maybe(pick<string[]>(['x/y'])),
    unknown,
  },
  { requiredKeys: [] },
)

/** Two or three hundred containers, rarely. */
const containers = fc.oneof(
  { weight: 60, arbitrary: fc.array(container, { minLength: 1, maxLength: 4 }) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(container, pick(200, 300))
      .map(([it, count]) =>
        Array.from({ length: count }, (_, index) => ({ ...it, name: `c${index}` })),
      ),
  },
)

const podContext = fc.record<Json>(
  {
    runAsUser: id,
    runAsGroup: id,
    runAsNonRoot: maybe(fc.boolean()),
    fsGroup: maybe(pick(0, 2000)),
    supplementalGroups: maybe(fc.array(pick(1, 2000), { maxLength: 2 })),
    seccompProfile: maybe(pick<Json>({ type: 'RuntimeDefault' })),
    sysctls: maybe(pick<Json[]>([{ name: 'net.ipv4.ip_unprivileged_port_start', value: '0' }])),
    unknown,
  },
  { requiredKeys: [] },
)

const spec = fc.record<Json>(
  {
    containers,
    initContainers: maybe(fc.array(fc.oneof(initContainer, otherInjector), { maxLength: 3 })),
    ephemeralContainers: maybe(pick<Json[]>([])),
    volumes: maybe(volumes),
    securityContext: maybe(podContext),
    automountServiceAccountToken: maybe(fc.boolean()),
    shareProcessNamespace: maybe(fc.boolean()),
    hostNetwork: pick(undefined, null, false),
    hostPID: pick(undefined, false),
    hostIPC: pick(undefined, false),
    hostUsers: maybe(fc.boolean()),
    os: maybe(pick<Json>({ name: 'linux' })),
    nodeSelector: maybe(pick<Json>({ 'kubernetes.io/os': 'linux', 'a/b': 'windows' }, {})),
    serviceAccountName: maybe(pick('', 'default', 'robot')),
    tolerations: maybe(pick<Json[]>([{ operator: 'Exists', tolerationSeconds: 2 ** 50 }])),
    resources: maybe(
      pick<Json>({}, { limits: { cpu: '2' } }, { requests: { memory: '1Gi' }, limits: null }),
    ),
    restartPolicy: maybe(pick('Never', 'OnFailure', 'Always')),
    hostAliases: maybe(pick<Json[]>([{ ip: '10.0.0.1', hostnames: ['localhost'] }])),
    schedulingGates: maybe(pick<Json[]>([{ name: 'g' }])),
    unknown,
  },
  { requiredKeys: ['containers'] },
)

/** Through JSON, as every pod comes: absent members are gone. */
function asSent(value: unknown): Json {
  return JSON.parse(JSON.stringify(value)) as Json
}

/** Odd, and harmless. */
export const oddPod: fc.Arbitrary<Json> = fc.record({ metadata, spec }).map(asSent)

const attack = fc.oneof(
  pick(...REFUSED),
  pick(...REWRITTEN),
  pick(...HARMLESS),
  pick(...SIDECAR_USERS),
)

/** Odd, with none to three attacks in it. */
export const hostilePod: fc.Arbitrary<HostilePod> = fc
  .tuple(oddPod, fc.array(attack, { maxLength: 3 }))
  .map(([odd, attacks]) => {
    const pod = asSent(odd)
    // What is harmless first: it may replace what an attack has set.
    for (const { apply, code } of attacks) if (code === undefined) apply(pod)
    for (const { apply, code } of attacks) if (code !== undefined) apply(pod)
    return { pod: asSent(pod), attacks }
  })

const closed: Json = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ['ALL'] },
}
const restrictedContainer = fc
  .tuple(
    fc.record<Json>(
      {
        name: pick('a', 'b', 'c'),
        image: fc.constant('i'),
        env: maybe(fc.array(variable, { maxLength: 3 })),
        volumeMounts: maybe(fc.array(mount, { maxLength: 3 })),
        livenessProbe: maybe(handler),
      },
      { requiredKeys: ['name', 'image'] },
    ),
    fc.boolean(),
    pick<Json>({}, { runAsUser: 1000, runAsGroup: 3000 }, { readOnlyRootFilesystem: true }),
  )
  .map(([it, binds, more]): Json => ({
    ...it,
    securityContext: {
      ...closed,
      ...(binds ? { capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] } } : {}),
      ...more,
    },
  }))

/** What `restricted` admits; with `ids`, one that runs as one user and group. */
export function restrictedPod(ids: Json): fc.Arbitrary<Json> {
  return fc
    .record({
      containers: fc.array(restrictedContainer, { minLength: 1, maxLength: 3 }),
      initContainers: maybe(fc.array(restrictedContainer, { maxLength: 2 })),
      volumes: maybe(
        volumes.map((list) =>
          list.filter((it) => it['nfs'] === undefined && it['iscsi'] === undefined),
        ),
      ),
      atPod: fc.boolean(),
    })
    .map(({ atPod, ...rest }) => {
      const context = { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } }
      const changed = asSent({
        metadata: { name: 'restricted' },
        spec: { ...rest, securityContext: atPod ? { ...context, ...ids } : { ...ids } },
      })
      const lists = changed['spec'] as Record<string, Json[] | null | undefined>
      for (const list of ['containers', 'initContainers'])
        for (const it of lists[list] ?? []) {
          const own = it['securityContext'] as Json
          if (!atPod) Object.assign(own, context)
          for (const key of Object.keys(ids)) Reflect.deleteProperty(own, key)
        }
      return changed
    })
}
