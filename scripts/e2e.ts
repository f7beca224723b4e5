/**
 * The end-to-end suite on a real Kubernetes: `npm run e2e`. Finds or starts a cluster (scripts/cluster.ts),
 * builds the images, installs Nestgate as docs/installation.md says, runs test/e2e with mocha, and takes away
 * what it brought. On failure the logs are in build/e2e-logs. Arguments go to mocha (`-- --grep exec`);
 * `--keep` first leaves everything up.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseDocument } from 'yaml'
import {
  allKubectls,
  collectLogs,
  kubectl,
  kubectls,
  loadImage,
  minorVersion,
  openCluster,
  tryKubectl,
  webhookCapable,
} from './cluster.ts'
import type { Cluster } from './cluster.ts'
import { prepareIssuer } from './issuer-setup.ts'
import type { IssuerSetup } from './issuer-setup.ts'
import { BOUND, BROKER_IP, BROKER_PORT, ISSUED } from '../test/e2e/issued.ts'
import { stageClients } from './agent-clients.ts'
import { makeCertificates } from '../test/support/certificates.ts'
import { AUDIENCE, startRunnerIssuer } from '../test/support/runner-issuer.ts'
import type { RunnerIssuer } from '../test/support/runner-issuer.ts'
import { buildImage, ROOT, stageImage } from './image.ts'
import { attempt, eventually, run } from './run.ts'

const WORK = join(ROOT, 'build', 'e2e')
const LOGS = join(ROOT, 'build', 'e2e-logs')
const SYSTEM = 'nestgate-system'
const VOLUME = 'nestgate-e2e-data'
export const IMAGE = 'nestgate:e2e'
export const AGENTS_IMAGE = 'nestgate-agents:e2e'
/** From here on policy/v1 has PodDisruptionBudget. */
const DISRUPTION_BUDGET_MINOR = 21

/** What the tests are told, as JSON in the file that NESTGATE_E2E names. */
export interface E2eFacts {
  readonly kubeconfig: string
  readonly kubectl: string
  readonly root: string
  readonly agentsImage: string
  readonly caFile: string
  /** Of people, by what they are. */
  /** The issuer of pipelines' tokens, and the key that it signs with. */
  readonly oidc: RunnerIssuer
  /** Whether the API server has the broker as issuer and authorization webhook. */
  readonly isIssuer: boolean
  readonly tokens: Readonly<Record<'admin' | 'reviewer' | 'auditor' | 'sre' | 'security', string>>
  /** The cluster's own audit log, where it can be read. */
  readonly clusterAuditLog?: string
  /** Where in that log this installation begins, in bytes: a cluster that is used again has older lines. */
  readonly clusterAuditFrom?: number
}

const newToken = (): string => randomBytes(32).toString('base64url')

const PEOPLE = {
  reviewer: { name: 'rita', roles: ['reviewer'], groups: [], token: newToken() },
  admin: { name: 'anna', roles: ['admin'], groups: [], token: newToken() },
  auditor: { name: 'otto', roles: ['auditor'], groups: [], token: newToken() },
  sre: { name: 'sara', roles: ['reviewer'], groups: ['sre'], token: newToken() },
  security: { name: 'sven', roles: ['reviewer'], groups: ['security'], token: newToken() },
} as const

/** Builds both images and brings them to the cluster. */
async function bringImages(cluster: Cluster): Promise<void> {
  const archive = join(WORK, 'nestgate.tar')
  await buildImage(IMAGE, join(ROOT, 'Dockerfile'), await stageImage(), archive)
  await loadImage(cluster, archive)
  const context = join(WORK, 'agents')
  mkdirSync(context, { recursive: true })
  const { oldest, newest } = kubectls()
  cpSync(oldest, join(context, 'kubectl-old'), { dereference: true })
  cpSync(newest, join(context, 'kubectl-new'), { dereference: true })
  // those between, by their version; none, where there is but one
  mkdirSync(join(context, 'kubectls'), { recursive: true })
  for (const { file, minor } of allKubectls().slice(1, -1))
    cpSync(file, join(context, 'kubectls', `kubectl-1.${minor}`), { dereference: true })
  // what an earlier run brought there may be called otherwise now
  rmSync(join(context, 'agents'), { recursive: true, force: true })
  cpSync(join(ROOT, 'test', 'e2e', 'agents'), join(context, 'agents'), { recursive: true })
  cpSync(
    join(ROOT, 'test', 'support', 'socket-agent.py'),
    join(context, 'agents', 'socket-agent.py'),
  )
  await stageClients(context, ROOT)
  const agents = join(WORK, 'agents.tar')
  await buildImage(AGENTS_IMAGE, join(ROOT, 'test', 'e2e', 'agents.Dockerfile'), context, agents)
  await loadImage(cluster, agents)
}

/** The issuer of pipelines' tokens, and the authority of its certificate. */
type Issuer = Awaited<ReturnType<typeof startRunnerIssuer>> & { readonly ca: string }

/** Starts it on an address of this machine that pods reach: the one on which the cluster's own API server is found. */
async function startIssuer(cluster: Cluster): Promise<Issuer> {
  const given = process.env['NESTGATE_E2E_HOST']
  const path = ['-n', 'default', 'get', 'endpoints', 'kubernetes', '-o']
  const host =
    given ?? (await kubectl(cluster, [...path, 'jsonpath={.subsets[0].addresses[0].ip}'])).trim()
  const { ca, cert, key } = makeCertificates({ hosts: [host] })
  return { ...(await startRunnerIssuer({ host, cert, key })), ca }
}

/** Changes the copy of manifests/install as a user would: image, people, policy, and what an old cluster lacks. */
function adaptInstall(
  install: string,
  minor: number,
  oidc: Issuer,
  issued: IssuerSetup | undefined,
): void {
  const edit = (
    name: string,
    change: (document: ReturnType<typeof parseDocument>) => void,
  ): void => {
    const file = join(install, name)
    const document = parseDocument(readFileSync(file, 'utf8'))
    change(document)
    writeFileSync(file, String(document))
  }
  edit('kustomization.yaml', (document) => {
    document.setIn(['images', 0, 'newTag'], IMAGE.split(':')[1])
    if (minor < DISRUPTION_BUDGET_MINOR) document.delete('components')
    // the issuer's authority beside the broker's settings
    document.addIn(['configMapGenerator', 0, 'files'], 'ci-issuer-ca.pem')
  })
  writeFileSync(join(install, 'ci-issuer-ca.pem'), oidc.ca)
  edit('broker.yaml', (document) => {
    const people = Object.values(PEOPLE).map(({ name, roles, groups, token }) => ({
      name,
      roles,
      groups,
      tokenSha256: createHash('sha256').update(token).digest('hex'),
    }))
    document.set('people', people)
    const { issuer } = oidc
    const caFile = '/etc/nestgate/ci-issuer-ca.pem'
    document.set('oidc', [{ name: 'ci', issuer, audiences: [AUDIENCE], caFile }])
    if (issued !== undefined) {
      const local = (document.toJS() as { clusters: [object] }).clusters[0]
      const { credential } = issued
      document.set('issuer', issued.issuer)
      document.addIn(['clusters'], { ...local, name: ISSUED, credential })
      // whose writes the suite binds, for a while, by the webhook of mode impersonation
      document.setIn(['clusters', 0, 'bound'], BOUND)
    }
    // For the namespace whose callers are told apart by container.
    document.set('acceptVerdicts', ['exclusive', 'container_only'])
  })
  cpSync(join(ROOT, 'test', 'e2e', 'policy.yaml'), join(install, 'policy.yaml'))
}

/** The volume of the broker, on a cluster of the scripts' own, which has no storage class. */
async function offerVolume(cluster: Cluster): Promise<void> {
  if (cluster.dir === undefined) return
  const path = join(cluster.dir, 'e2e-data')
  rmSync(path, { recursive: true, force: true })
  mkdirSync(path)
  chmodSync(path, 0o777)
  const volume = {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: VOLUME },
    spec: {
      capacity: { storage: '10Gi' },
      accessModes: ['ReadWriteOnce'],
      storageClassName: '',
      claimRef: { namespace: SYSTEM, name: 'data-nestgate-broker-0' },
      hostPath: { path },
    },
  }
  await kubectl(cluster, ['apply', '-f', '-'], { input: JSON.stringify(volume) })
}

/** Installs, with the very commands of docs/installation.md. @returns the folder of certificates */
async function install(
  cluster: Cluster,
  oidc: Issuer,
  issued: IssuerSetup | undefined,
): Promise<string> {
  const manifests = join(WORK, 'manifests')
  rmSync(manifests, { recursive: true, force: true })
  cpSync(join(ROOT, 'manifests'), manifests, { recursive: true })
  const folder = join(manifests, 'install')
  rmSync(join(folder, 'tls'), { recursive: true, force: true })
  if (issued === undefined)
    await run('node', [join(ROOT, 'cli', 'main.ts'), 'certificates', '--out', join(folder, 'tls')])
  else {
    cpSync(issued.tls, join(folder, 'tls'), { recursive: true })
    fixAddress(join(manifests, 'base', 'broker', 'service.yaml'))
  }
  adaptInstall(folder, await minorVersion(cluster), oidc, issued)
  await offerVolume(cluster)
  await kubectl(cluster, ['apply', '-k', folder])
  for (const what of ['statefulset/nestgate-broker', 'deployment/nestgate-webhook']) {
    await kubectl(cluster, ['-n', SYSTEM, 'rollout', 'status', what, '--timeout=120s'])
  }
  await webhookAnswers(cluster)
  return join(folder, 'tls')
}

/** Gives the broker's Service the address that the API server was told. */
function fixAddress(file: string): void {
  const document = parseDocument(readFileSync(file, 'utf8'))
  document.setIn(['spec', 'clusterIP'], BROKER_IP)
  writeFileSync(file, String(document))
}

/** Ready pods are reached only once kube-proxy has their addresses: a dry run asks the way that counts. */
async function webhookAnswers(cluster: Cluster): Promise<void> {
  const namespace = {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'nestgate-e2e-probe', labels: { 'nestgate.dev/inject': 'enabled' } },
  }
  await kubectl(cluster, ['apply', '-f', '-'], { input: JSON.stringify(namespace) })
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'probe', namespace: 'nestgate-e2e-probe' },
    spec: { containers: [{ name: 'probe', image: AGENTS_IMAGE }] },
  }
  await eventually('an injected pod', 60_000, async () => {
    const args = ['create', '--dry-run=server', '-o', 'json', '-f', '-']
    const said = await kubectl(cluster, args, { input: JSON.stringify(pod) })
    return said.includes('nestgate-sidecar') ? true : undefined
  })
  await kubectl(cluster, ['delete', 'namespace', 'nestgate-e2e-probe', '--wait=false'])
}

/** Removes from a cluster that goes on what was brought to it. */
async function uninstall(cluster: Cluster): Promise<void> {
  const quiet = ['--ignore-not-found', '--timeout=90s']
  const namespaces = [
    'e2e-agents',
    'e2e-plain',
    'e2e-other',
    'e2e-contained',
    'e2e-strict',
    'e2e-work',
    'e2e-workloads',
    'e2e-golden',
    'e2e-issued',
    'e2e-sessions',
    'e2e-masking',
    'e2e-masking-restore',
    'e2e-masking-shown',
    'nestgate-e2e-probe',
  ]
  await tryKubectl(cluster, ['delete', 'namespace', ...namespaces, ...quiet])
  await tryKubectl(cluster, ['delete', '-k', join(WORK, 'manifests', 'install'), ...quiet])
  await tryKubectl(cluster, ['delete', 'persistentvolume', VOLUME, ...quiet])
  await tryKubectl(cluster, ['delete', 'clusterrole,clusterrolebinding', 'e2e-masking', ...quiet])
}

async function runTests(
  cluster: Cluster,
  tls: string,
  records: ReturnType<typeof clusterAudit>,
  { issuer, signingJwk, issued }: Issuer & { readonly issued: IssuerSetup | undefined },
  mochaArgs: readonly string[],
): Promise<number> {
  const facts: E2eFacts = {
    kubeconfig: cluster.kubeconfig,
    kubectl: cluster.kubectl,
    root: ROOT,
    agentsImage: AGENTS_IMAGE,
    caFile: join(tls, 'ca.crt'),
    tokens: {
      admin: PEOPLE.admin.token,
      reviewer: PEOPLE.reviewer.token,
      auditor: PEOPLE.auditor.token,
      sre: PEOPLE.sre.token,
      security: PEOPLE.security.token,
    },
    oidc: { issuer, signingJwk },
    isIssuer: issued !== undefined,
    ...records,
  }
  const file = join(WORK, 'facts.json')
  writeFileSync(file, JSON.stringify(facts), { mode: 0o600 })
  const args = ['test/e2e/**/*.test.ts', '--timeout', '180000', '--slow', '60000', ...mochaArgs]
  const { code } = await attempt('mocha', args, {
    cwd: ROOT,
    env: { NESTGATE_E2E: file, PATH: `${ROOT}/node_modules/.bin:${process.env['PATH'] ?? ''}` },
    show: true,
  })
  return code
}

/** The cluster's own audit log and its length now, before anything of this run is in it. */
function clusterAudit(cluster: Cluster): Pick<E2eFacts, 'clusterAuditLog' | 'clusterAuditFrom'> {
  const own = cluster.dir === undefined ? undefined : join(cluster.dir, 'logs', 'audit.jsonl')
  const clusterAuditLog = process.env['NESTGATE_CLUSTER_AUDIT_LOG'] ?? own
  if (clusterAuditLog !== undefined) {
    return { clusterAuditLog, clusterAuditFrom: statSync(clusterAuditLog).size }
  }
  console.error('e2e: NESTGATE_CLUSTER_AUDIT_LOG is not set: the tests that read it will fail')
  return {}
}

/** What mode issuer takes; undefined for a cluster of somebody else, whose API server has its own configuration. */
async function issuerOf(dir: string): Promise<IssuerSetup | undefined> {
  if ((process.env['KUBECONFIG'] ?? '') === '')
    return prepareIssuer(dir, { cluster: ISSUED, host: BROKER_IP, port: BROKER_PORT })
  console.error(
    'e2e: NOT RUN: mode issuer (test/e2e/issuer.test.ts): the API server of KUBECONFIG is not ours',
  )
  return undefined
}

async function main(): Promise<number> {
  const keep = process.argv[2] === '--keep'
  const mochaArgs = process.argv.slice(keep ? 3 : 2)
  rmSync(LOGS, { recursive: true, force: true })
  mkdirSync(WORK, { recursive: true })
  const dir = process.env['NESTGATE_CLUSTER_DIR'] ?? join(tmpdir(), 'nestgate-cluster')
  const step = (what: string): void => {
    console.log(`e2e: ${what}`)
  }
  step('finding or starting a cluster')
  const issued = await issuerOf(dir)
  const env = {
    ...(await webhookCapable()),
    ...(issued === undefined ? {} : { CLUSTER_APISERVER_FLAGS: issued.flags }),
  }
  const cluster = await openCluster({ node: true, dir, env })
  let code = 1
  try {
    await uninstall(cluster)
    const records = clusterAudit(cluster)
    step('building and loading the images')
    await bringImages(cluster)
    step('installing')
    const oidc = await startIssuer(cluster)
    try {
      const tls = await install(cluster, oidc, issued)
      step('running the suite')
      code = await runTests(cluster, tls, records, { ...oidc, issued }, mochaArgs)
    } finally {
      await oidc.close()
    }
  } finally {
    if (code !== 0) await collectLogs(cluster, [SYSTEM, 'e2e-agents'], LOGS)
    if (!keep) {
      step('taking away what was brought')
      if (cluster.owned) await cluster.stop()
      else await uninstall(cluster)
    }
  }
  if (code !== 0) console.error(`e2e: failed; logs are in ${LOGS}`)
  return code
}

if (import.meta.main) process.exitCode = await main()
