/**
 * What a benchmark runs on: objects in a real cluster, and the three ways to them. Nestgate's way is the whole
 * of it, as installed: sidecar with caller identification, broker with token check, policy, durable ledger and
 * impersonation; both processes run the compiled files, as the image does.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { writeCertificates } from '../cli/certificates.ts'
import { kubectl } from '../scripts/cluster.ts'
import type { Cluster } from '../scripts/cluster.ts'
import { ROOT } from '../scripts/image.ts'
import type { IssuerSetup } from '../scripts/issuer-setup.ts'
import { eventually, run } from '../scripts/run.ts'
import { BROKER_AUDIENCE } from '../shared/agent-tag.ts'
import { SIDECAR_NODE_FLAGS } from '../shared/sidecar-runtime.ts'
import type { LoadPlan } from './load.ts'
import { podLike, start } from './processes.ts'
import type { Measured } from './processes.ts'

/** Where benchmarks have their objects. */
export const NAMESPACE = 'nestgate-bench'
const LISTED_OBJECTS = 100
/** Text in each object, in bytes: a list of them is about the size of a list of small pods. */
const OBJECT_BYTES = 800
const CERTIFICATE_DAYS = 2
const TOKEN_LIFE_S = 7200

/** Ports of a control plane of its own, away from a cluster that may run beside it. */
export const OWN_PORTS = { CLUSTER_PORT: '16443', CLUSTER_ETCD_PORT: '12379' }

/** One way to the API server. */
export interface Way {
  readonly name: 'direct' | 'kubectl proxy' | 'nestgate' | 'nestgate, issuer'
  readonly target: Pick<LoadPlan, 'origin' | 'tls'>
  /** Processes between the client and the API server. */
  readonly processes: readonly Measured[]
}

/** What is asked for. */
export const WORKLOADS = [
  {
    name: 'get one ConfigMap',
    path: `/api/v1/namespaces/${NAMESPACE}/configmaps/object-0`,
  },
  { name: `list ${LISTED_OBJECTS} ConfigMaps`, path: `/api/v1/namespaces/${NAMESPACE}/configmaps` },
] as const

/** The pod that the sidecar's token is of. */
export const AGENTS_POD = 'agents'

/** A pod that is never scheduled: it is there for a token to be bound to. */
export function tokenPod(name: string): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE },
    spec: {
      serviceAccountName: 'agent',
      schedulerName: 'none',
      containers: [{ name: 'agent', image: 'none' }],
    },
  }
}

/** Creates the objects that are read, the service accounts and their rights. */
export async function prepareCluster(cluster: Cluster): Promise<void> {
  const meta = (name: string): object => ({ name, namespace: NAMESPACE })
  const rbac = 'rbac.authorization.k8s.io'
  const subjects = (name: string): object[] => [
    { kind: 'ServiceAccount', name, namespace: NAMESPACE },
  ]
  const objects: object[] = [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } },
    ...['agent', 'broker'].map((name) => ({
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: meta(name),
    })),
    {
      apiVersion: `${rbac}/v1`,
      kind: 'RoleBinding',
      metadata: meta('agent-views'),
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'view' },
      subjects: subjects('agent'),
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'RoleBinding',
      metadata: meta('broker-impersonates'),
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'nestgate-impersonator' },
      subjects: subjects('broker'),
    },
    {
      apiVersion: `${rbac}/v1`,
      kind: 'ClusterRoleBinding',
      metadata: { name: NAMESPACE },
      roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: 'nestgate-broker' },
      subjects: subjects('broker'),
    },
    tokenPod(AGENTS_POD),
    ...Array.from({ length: LISTED_OBJECTS }, (_, index) => ({
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: meta(`object-${index}`),
      data: { text: 'x'.repeat(OBJECT_BYTES) },
    })),
  ]
  await kubectl(cluster, ['apply', '-f', join(ROOT, 'manifests', 'base', 'rbac.yaml')])
  await eventually('the objects', 60_000, async () => {
    const list = { apiVersion: 'v1', kind: 'List', items: objects }
    await kubectl(cluster, ['apply', '-f', '-'], { input: JSON.stringify(list) })
    return true
  })
}

/** Removes what {@link prepareCluster} made. */
export async function cleanCluster(cluster: Cluster): Promise<void> {
  await kubectl(cluster, ['delete', 'namespace', NAMESPACE, '--ignore-not-found', '--wait=false'])
  await kubectl(cluster, ['delete', 'clusterrolebinding', NAMESPACE, '--ignore-not-found'])
  await kubectl(cluster, [
    'delete',
    '--ignore-not-found',
    '-f',
    join(ROOT, 'manifests', 'base', 'rbac.yaml'),
  ])
}

async function token(cluster: Cluster, account: string, spec: object): Promise<string> {
  const request = {
    apiVersion: 'authentication.k8s.io/v1',
    kind: 'TokenRequest',
    spec: { expirationSeconds: TOKEN_LIFE_S, ...spec },
  }
  const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${account}/token`
  const said = await kubectl(cluster, ['create', '--raw', path, '-f', '-'], {
    input: JSON.stringify(request),
  })
  return (JSON.parse(said) as { status: { token: string } }).status.token
}

interface Kubeconfig {
  readonly clusters: readonly { readonly cluster: Readonly<Record<string, string>> }[]
  readonly users: readonly { readonly user: Readonly<Record<string, string>> }[]
}

/** Address, authority and client certificate of an administrator's kubeconfig. */
export function readKubeconfig(file: string): {
  origin: string
  tls: { ca: string; cert: string; key: string }
} {
  const config = parse(readFileSync(file, 'utf8')) as Kubeconfig
  const cluster = config.clusters[0]?.cluster ?? {}
  const user = config.users[0]?.user ?? {}
  const pem = (from: Readonly<Record<string, string>>, key: string): string => {
    const data = from[`${key}-data`]
    if (data !== undefined) return Buffer.from(data, 'base64').toString()
    const path = from[key]
    if (path === undefined)
      throw new Error(`${file} has no ${key}: the benchmark needs a client certificate`)
    return readFileSync(path, 'utf8')
  }
  return {
    origin: cluster['server'] ?? '',
    tls: {
      ca: pem(cluster, 'certificate-authority'),
      cert: pem(user, 'client-certificate'),
      key: pem(user, 'client-key'),
    },
  }
}

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
  - id: read
    match:
      verbs: [get, list, watch]
      resources: ['*']
    effect: allow
  - id: no-secrets
    match:
      verbs: ['*']
      resources: [secrets]
    effect: deny
  - id: changes-wait
    match:
      verbs: [create, update, patch, delete, deletecollection]
      resources: ['*']
    effect: hold
`

/** Starts `kubectl proxy`, the broker and the sidecar. */
export async function openWays(
  cluster: Cluster,
  work: string,
  issued: BenchIssuer | undefined,
): Promise<readonly Way[]> {
  const { origin, tls } = readKubeconfig(cluster.kubeconfig)
  const started: Measured[] = []
  try {
    const proxyArgs = ['--kubeconfig', cluster.kubeconfig, 'proxy', '--port=0']
    const proxy = await start('kubectl proxy', cluster.kubectl, proxyArgs, /127\.0\.0\.1:(\d+)/)
    started.push(proxy)
    const nestgate = await startNestgate({ cluster, work, origin, ca: tls.ca, issued }, started)
    return [
      { name: 'direct', target: { origin, tls }, processes: [] },
      {
        name: 'kubectl proxy',
        target: { origin: `http://127.0.0.1:${proxy.ready[1] ?? ''}` },
        processes: [proxy],
      },
      ...nestgate,
    ]
  } catch (error) {
    for (const process of started) await process.stop()
    throw error
  }
}

/** Mode issuer, where the API server was started for it, and where the broker must listen then. */
export interface BenchIssuer extends IssuerSetup {
  readonly port: number
}

/** The cluster's names in the broker, and the ways by them. */
const LOCAL = 'local'
export const ISSUED = 'issued'

/** What the broker and its sidecars are started for. */
export interface NestgatePlan {
  readonly cluster: Cluster
  /** Folder below the project, where the compiled files find its packages. */
  readonly work: string
  /** Of the API server. */
  readonly origin: string
  readonly ca: string
  readonly issued: BenchIssuer | undefined
  /** YAML; left out, one that lets reads through. */
  readonly policy?: string
  /** Pods that have a sidecar, each with a way of its own; left out, {@link AGENTS_POD}. */
  readonly pods?: readonly string[]
  /** More flags of the broker's Node. */
  readonly brokerFlags?: readonly string[]
}

/** Writes a file that only its owner may read. */
function secretFile(work: string, name: string, text: string): string {
  const path = join(work, name)
  writeFileSync(path, text, { mode: 0o600 })
  return path
}

/** Starts the broker, and a sidecar for each mode; what runs is in `started` also where it throws. */
export async function startNestgate(
  plan: NestgatePlan,
  started: Measured[],
): Promise<readonly Way[]> {
  const { cluster, work, issued } = plan
  const built = join(work, 'dist')
  await run('npm', ['run', 'build', '--', '--outDir', built], { cwd: ROOT })
  const tls = issued?.tls ?? ownCertificates(work)
  mkdirSync(join(work, 'data'))
  const flags = plan.brokerFlags ?? []
  const args = ['--disable-sigusr1', ...flags, join(built, 'broker', 'main.js'), '--config']
  const configFile = secretFile(work, 'broker.json', JSON.stringify(await configOf(plan, tls)))
  const broker = await start('broker', 'node', [...args, configFile], LISTENING)
  started.push(broker)
  const env = {
    NESTGATE_BROKER_URL: `https://127.0.0.1:${broker.ready[1] ?? ''}`,
    NESTGATE_BROKER_CA_FILE: join(tls, 'ca.crt'),
  }
  const way = async (name: Way['name'], clusterName: string, pod: string): Promise<Way> => {
    const sidecarToken = await token(cluster, 'agent', {
      audiences: [BROKER_AUDIENCE],
      boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: pod },
    })
    const NESTGATE_TOKEN_FILE = secretFile(work, `token-of-${pod}`, sidecarToken)
    const own = { NESTGATE_CLUSTER: clusterName, NESTGATE_TOKEN_FILE }
    const sidecar = await startSidecar(built, { ...env, ...own })
    started.push(sidecar)
    const origin = `http://127.0.0.1:${sidecar.ready[1] ?? ''}`
    await eventually('the sidecar’s registration', 30_000, async () => {
      return (await fetch(`${origin}/.nestgate/ready`)).status === 200 ? true : undefined
    })
    return { name, target: { origin }, processes: [sidecar, broker] }
  }
  const ways: Way[] = []
  for (const pod of plan.pods ?? [AGENTS_POD]) ways.push(await way('nestgate', LOCAL, pod))
  if (issued !== undefined) ways.push(await way('nestgate, issuer', ISSUED, AGENTS_POD))
  return ways
}

const LISTENING = /"port":(\d+).*"msg":"listening"/

function ownCertificates(work: string): string {
  const tls = join(work, 'tls')
  const hosts = ['127.0.0.1']
  writeCertificates({ dir: tls, brokerHosts: hosts, webhookHosts: hosts, days: CERTIFICATE_DAYS })
  return tls
}

async function configOf(
  { cluster, work, origin, ca, issued, policy = POLICY }: NestgatePlan,
  tls: string,
): Promise<object> {
  const common = {
    server: origin,
    caFile: secretFile(work, 'cluster-ca.crt', ca),
    serviceAccountTokens: { verify: 'tokenReview' },
  }
  const tokenFile = secretFile(work, 'broker-token', await token(cluster, 'broker', {}))
  const own = { name: LOCAL, ...common, credential: { tokenFile } }
  return {
    listen: { host: '127.0.0.1', port: issued?.port ?? 0 },
    tls: { certFile: join(tls, 'broker.crt'), keyFile: join(tls, 'broker.key') },
    dataDir: join(work, 'data'),
    policyFile: secretFile(work, 'policy.yaml', policy),
    ...(issued === undefined ? {} : { issuer: issued.issuer }),
    clusters:
      issued === undefined
        ? [own]
        : [own, { name: ISSUED, ...common, credential: issued.credential }],
    people: [],
  }
}

function startSidecar(built: string, env: Readonly<Record<string, string>>): Promise<Measured> {
  const [program, ...args] = [
    ...podLike(),
    'node',
    ...SIDECAR_NODE_FLAGS,
    join(built, 'sidecar', 'main.js'),
  ]
  return start('sidecar', program, args, LISTENING, {
    ...env,
    NESTGATE_LISTEN_PORT: '0',
    // This machine has processes that are not the benchmark's, some perhaps not readable.
    NESTGATE_CALLER_UNREADABLE: 'ignore',
    NESTGATE_POSTURE: 'report',
    NODE_ENV: 'production',
  })
}
