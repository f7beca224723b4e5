/**
 * What the end-to-end tests share: the cluster, the two pods of agents, the broker as people reach it, and the
 * audit. Everything here is done with the tools that users have: kubectl and `nestgate`.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import { auditPageSchema } from '../../shared/wire.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import { kubectl, tryKubectl } from '../../scripts/cluster.ts'
import type { E2eFacts } from '../../scripts/e2e.ts'
import { attempt, eventually } from '../../scripts/run.ts'
import type { Ran } from '../../scripts/run.ts'
import { mintRunnerToken } from '../support/runner-issuer.ts'
import type { Report, Task } from './agents/run.ts'

export const NAMESPACE = 'e2e-agents'
export const PLAIN_NAMESPACE = 'e2e-plain'
export const OTHER_NAMESPACE = 'e2e-other'
/** Labelled for container level. */
export const CONTAINED_NAMESPACE = 'e2e-contained'
/** Labelled for process level. */
export const STRICT_NAMESPACE = 'e2e-strict'
/** Labelled, with a quota: what workloads.test.ts runs. */
export const WORKLOADS_NAMESPACE = 'e2e-workloads'
/** Not labelled: what the agents of {@link NAMESPACE} work on. */
export const WORK_NAMESPACE = 'e2e-work'
export const SYSTEM_NAMESPACE = 'nestgate-system'

const factsFile = process.env['NESTGATE_E2E']
if (factsFile === undefined) throw new Error('run this suite with npm run e2e')
/** What scripts/e2e.ts set up. */
export const facts = JSON.parse(readFileSync(factsFile, 'utf8')) as E2eFacts

/** kubectl as the cluster's administrator. */
export function admin(args: readonly string[], input?: string): Promise<string> {
  return kubectl(facts, args, input === undefined ? {} : { input })
}

/** Creates or changes objects as the administrator. */
export async function apply(...objects: object[]): Promise<void> {
  const list = { apiVersion: 'v1', kind: 'List', items: objects }
  await admin(['apply', '-f', '-'], JSON.stringify(list))
}

/** A pod of agents, by profile: its name, and its containers. */
export interface AgentPod {
  readonly name: string
  readonly namespace: string
  readonly profile: 'R' | 'P' | 'C'
  readonly containers: readonly string[]
}

/** All containers as one user that is not root. */
export const RESTRICTED: AgentPod = {
  name: 'agents-r',
  namespace: NAMESPACE,
  profile: 'R',
  containers: ['planner', 'scanner'],
}
/** Root beside another user. */
export const PRIVILEGED: AgentPod = {
  name: 'agents-p',
  namespace: NAMESPACE,
  profile: 'P',
  containers: ['planner', 'scanner'],
}
export const PODS = [RESTRICTED, PRIVILEGED] as const
/** Each container with a user of its own, in a namespace that wants container level. */
export const CONTAINED: AgentPod = {
  name: 'agents-c',
  namespace: CONTAINED_NAMESPACE,
  profile: 'C',
  containers: ['planner', 'scanner'],
}
/** A pod of each profile. */
export const ALL_PODS = [RESTRICTED, PRIVILEGED, CONTAINED] as const
/** One container may forge packets, and another may not. */
export const RAW_POD = { name: 'agents-raw', namespace: NAMESPACE } as const

/** A container with the agents' image, as its author writes it. */
export function agentContainer(name: string, runAsUser?: number, more?: object): object {
  const container = { name, image: facts.agentsImage, imagePullPolicy: 'IfNotPresent' }
  if (runAsUser === undefined) return container
  return { ...container, securityContext: { runAsUser, ...more } }
}

/** A namespace with labels. */
export function namespaceObject(name: string, labels: object): object {
  return { apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }
}

/** A pod of the service account `agent`, as its author writes it: nothing in it knows of Nestgate. */
export function podObject(namespace: string, name: string, spec: object): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { app: name } },
    spec: { serviceAccountName: 'agent', terminationGracePeriodSeconds: 1, ...spec },
  }
}

const restrictedSpec = {
  securityContext: { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true },
  containers: [agentContainer('planner'), agentContainer('scanner')],
}
const privilegedSpec = {
  containers: [agentContainer('planner'), agentContainer('scanner', 1001)],
}

const containedSpec = {
  containers: ['planner', 'scanner'].map((name, at) =>
    agentContainer(name, 1001 + at, { runAsGroup: 1001 + at, allowPrivilegeEscalation: false }),
  ),
}
const rawSpec = {
  containers: [
    agentContainer('honest', 1001),
    agentContainer('raw', 0, { capabilities: { add: ['NET_RAW'] } }),
  ],
}

/** Lets the broker act as the service accounts of a namespace, as manifests/namespace does. */
function impersonatorBinding(namespace: string): object {
  return {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    metadata: { name: 'nestgate-impersonator', namespace },
    roleRef: {
      apiGroup: 'rbac.authorization.k8s.io',
      kind: 'ClusterRole',
      name: 'nestgate-impersonator',
    },
    subjects: [{ kind: 'ServiceAccount', name: 'nestgate-broker', namespace: SYSTEM_NAMESPACE }],
  }
}

/** A quota that refuses pods with a container without limits. */
function limitsQuota(namespace: string): object {
  const hard = {
    ...{ pods: '40', 'requests.cpu': '8', 'requests.memory': '16Gi' },
    ...{ 'limits.cpu': '80', 'limits.memory': '64Gi' },
  }
  return {
    apiVersion: 'v1',
    kind: 'ResourceQuota',
    metadata: { name: 'limits', namespace },
    spec: { hard },
  }
}

/** Defaults for containers without limits, and bounds for all. */
function limitRange(namespace: string): object {
  const range = {
    type: 'Container',
    default: { cpu: '300m', memory: '256Mi' },
    defaultRequest: { cpu: '10m', memory: '16Mi' },
    max: { cpu: '1', memory: '1Gi' },
    min: { cpu: '1m', memory: '4Mi' },
  }
  return {
    apiVersion: 'v1',
    kind: 'LimitRange',
    metadata: { name: 'range', namespace },
    spec: { limits: [range] },
  }
}

/** What lets `agent` do in a namespace what the default role `edit` does. */
function accountObjects(namespace: string): readonly object[] {
  return [
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'agent', namespace },
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata: { name: 'agent-edits', namespace },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'edit' },
      subjects: [{ kind: 'ServiceAccount', name: 'agent', namespace }],
    },
  ]
}

/** What agents, and a pipeline in the group `deployers`, may do in the namespace that they work on. */
function workObjects(): readonly object[] {
  const rbac = 'rbac.authorization.k8s.io'
  const agent = { kind: 'ServiceAccount', name: 'agent', namespace: NAMESPACE }
  const deployers = { apiGroup: rbac, kind: 'Group', name: 'deployers' }
  const clusterRole = (name: string, rules: readonly object[]): object => ({
    apiVersion: `${rbac}/v1`,
    kind: 'ClusterRole',
    metadata: { name },
    rules,
  })
  const binding = (role: string, subject: object, namespace?: string): object => ({
    apiVersion: `${rbac}/v1`,
    kind: namespace === undefined ? 'ClusterRoleBinding' : 'RoleBinding',
    metadata: {
      name: `${role}-${'name' in subject ? String(subject.name) : ''}`,
      ...(namespace === undefined ? {} : { namespace }),
    },
    roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: role },
    subjects: [subject],
  })
  const labels = { app: 'web' }
  return [
    namespaceObject(WORK_NAMESPACE, {}),
    clusterRole('e2e-work', [
      { apiGroups: [''], resources: ['pods/eviction', 'resourcequotas'], verbs: ['create'] },
    ]),
    clusterRole('e2e-nodes', [
      { apiGroups: [''], resources: ['nodes'], verbs: ['get', 'patch'] },
      { apiGroups: [''], resources: ['pods'], verbs: ['list'] },
      {
        apiGroups: ['scheduling.k8s.io'],
        resources: ['priorityclasses'],
        verbs: ['create', 'get'],
      },
    ]),
    // as a platform team lets the broker act as a pipeline's subject, with the groups that policy grants
    clusterRole('e2e-direct', [
      { apiGroups: [''], resources: ['users'], verbs: ['impersonate'], resourceNames: CI_USERS },
      {
        apiGroups: [''],
        resources: ['groups'],
        verbs: ['impersonate'],
        resourceNames: ['deployers'],
      },
    ]),
    binding('edit', agent, WORK_NAMESPACE),
    binding('e2e-work', agent, WORK_NAMESPACE),
    binding('edit', deployers, WORK_NAMESPACE),
    binding('e2e-nodes', agent),
    binding('e2e-direct', {
      kind: 'ServiceAccount',
      name: 'nestgate-broker',
      namespace: SYSTEM_NAMESPACE,
    }),
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'web', namespace: WORK_NAMESPACE },
      spec: {
        replicas: 1,
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            terminationGracePeriodSeconds: 1,
            containers: [{ ...agentContainer('web'), command: ['sleep', '86400'] }],
          },
        },
      },
    },
  ]
}

/** Subjects that the pipeline's issuer vouches for. */
const CI_USERS = ['ci:repo:shop', 'ci:repo:other', 'ci:repo:issued', 'ci:repo:masking']

let prepared: Promise<void> | undefined

/** Brings up the labelled namespace with both pods of agents and their target; once for the whole suite. */
export function prepare(): Promise<void> {
  prepared ??= bringUp()
  return prepared
}

/** How long the labelled namespace may take, in milliseconds. */
const NAMESPACE_LIMIT_MS = 30_000

/** Makes the namespace by an overlay of manifests/namespace, as docs/installation.md says; the suite's pods run as root too. */
async function labelByKit(): Promise<void> {
  const overlay = join(facts.root, 'build', 'e2e', 'team')
  mkdirSync(overlay, { recursive: true })
  writeFileSync(
    join(overlay, 'kustomization.yaml'),
    `namespace: ${NAMESPACE}\nresources: [../manifests/namespace]\ncomponents: [../manifests/components/any-user]\n`,
  )
  // A new namespace gets its service account `default` from the cluster, too: kubectl may find it missing, and then there.
  await eventually('the namespace', NAMESPACE_LIMIT_MS, () => admin(['apply', '-k', overlay]))
}

async function bringUp(): Promise<void> {
  await labelByKit()
  await apply(
    namespaceObject(PLAIN_NAMESPACE, {}),
    namespaceObject(WORKLOADS_NAMESPACE, { 'nestgate.dev/inject': 'enabled' }),
    namespaceObject(OTHER_NAMESPACE, { 'nestgate.dev/inject': 'enabled' }),
    namespaceObject(CONTAINED_NAMESPACE, {
      'nestgate.dev/inject': 'enabled',
      'nestgate.dev/identity': 'container',
    }),
    namespaceObject(STRICT_NAMESPACE, {
      'nestgate.dev/inject': 'enabled',
      'nestgate.dev/identity': 'process',
    }),
  )
  await apply(
    impersonatorBinding(CONTAINED_NAMESPACE),
    impersonatorBinding(WORKLOADS_NAMESPACE),
    limitsQuota(WORKLOADS_NAMESPACE),
    limitRange(CONTAINED_NAMESPACE),
    ...accountObjects(NAMESPACE),
    ...accountObjects(CONTAINED_NAMESPACE),
    ...accountObjects(WORKLOADS_NAMESPACE),
    ...accountObjects(PLAIN_NAMESPACE),
    ...accountObjects(OTHER_NAMESPACE),
    ...accountObjects(STRICT_NAMESPACE),
  )
  const target = { ...agentContainer('web'), command: ['node', '/agents/target.ts'] }
  await apply(
    podObject(NAMESPACE, 'target', { ...restrictedSpec, containers: [target] }),
    podObject(NAMESPACE, RESTRICTED.name, restrictedSpec),
    podObject(NAMESPACE, PRIVILEGED.name, privilegedSpec),
    podObject(NAMESPACE, RAW_POD.name, rawSpec),
    podObject(CONTAINED_NAMESPACE, CONTAINED.name, containedSpec),
    podObject(PLAIN_NAMESPACE, 'plain', restrictedSpec),
    podObject(OTHER_NAMESPACE, 'stranger', restrictedSpec),
    {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'password', namespace: NAMESPACE },
      stringData: { password: 'hunter2' },
    },
  )
  await apply(...workObjects())
  await admin(['-n', WORK_NAMESPACE, 'rollout', 'status', 'deployment/web', '--timeout=120s'])
  const wait = ['wait', '--for=condition=Ready', 'pod', '--all', '--timeout=120s']
  for (const namespace of [NAMESPACE, PLAIN_NAMESPACE, OTHER_NAMESPACE, CONTAINED_NAMESPACE]) {
    await admin(['-n', namespace, ...wait])
  }
}

/** Creates a ConfigMap as the administrator. */
export function configMap(name: string, data: Record<string, string> = {}): Promise<void> {
  return apply({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace: NAMESPACE },
    data,
  })
}

/** Whether a ConfigMap is there. */
export async function configMapExists(name: string): Promise<boolean> {
  const args = ['-n', NAMESPACE, 'get', 'configmap', name, '-o', 'name', '--ignore-not-found']
  return (await admin(args)).trim() !== ''
}

/** Runs a program in a container, as a process that the container's own kubelet starts. */
export function inPod(
  pod: string,
  container: string,
  command: readonly string[],
  namespace = NAMESPACE,
): Promise<Ran> {
  return tryKubectl(facts, ['-n', namespace, 'exec', pod, '-c', container, '--', ...command], {
    timeoutMs: 170_000,
  })
}

/** Runs one of test/e2e/agents in a container and reads the JSON that it prints. */
export async function runAgent<T>(
  pod: string,
  container: string,
  script: string,
  args: readonly string[],
  namespace = NAMESPACE,
): Promise<T> {
  const ran = await inPod(pod, container, ['node', `/agents/${script}`, ...args], namespace)
  const line = ran.stdout.trim().split('\n').at(-1) ?? ''
  try {
    return JSON.parse(line) as T
  } catch {
    throw new Error(
      `${script} in ${pod}/${container} ended with ${ran.code}: ${ran.stdout}${ran.stderr}`,
    )
  }
}

/** An agent in a container runs a command, as a child of its own. */
export function agentRuns(
  pod: string,
  container: string,
  task: Task,
  namespace = NAMESPACE,
): Promise<Report> {
  return runAgent<Report>(pod, container, 'run.ts', [JSON.stringify(task)], namespace)
}

/** A container of a pod, as the cluster knows it. */
export interface PodFacts {
  readonly uid: string
  /** Container id without its runtime's prefix, by container name. */
  readonly containerIds: Readonly<Record<string, string>>
  readonly spec: {
    readonly containers: readonly {
      readonly name: string
      readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string }[]
    }[]
  }
}

/** Reads a pod's uid and container ids. */
export async function podFacts(name: string, namespace = NAMESPACE): Promise<PodFacts> {
  const pod = JSON.parse(await admin(['-n', namespace, 'get', 'pod', name, '-o', 'json'])) as {
    metadata: { uid: string }
    spec: PodFacts['spec']
    status: { containerStatuses: { name: string; containerID: string }[] }
  }
  const ids = pod.status.containerStatuses.map(({ name: container, containerID }) => [
    container,
    containerID.replace(/^.*:\/\//, ''),
  ])
  return {
    uid: pod.metadata.uid,
    containerIds: Object.fromEntries(ids) as Record<string, string>,
    spec: pod.spec,
  }
}

/** A way from this machine to the broker's Service. */
let forward: { child: ChildProcess; port: number } | undefined

/** The broker's address as people reach it: through `kubectl port-forward`. */
export async function brokerUrl(): Promise<string> {
  if (forward?.child.exitCode === null) {
    const { port } = forward
    if (await answers(port)) return `https://localhost:${port}`
  }
  closeBroker()
  return eventually('a way to the broker', 90_000, openForward)
}

async function openForward(): Promise<string | undefined> {
  const args = ['--kubeconfig', facts.kubeconfig, '-n', SYSTEM_NAMESPACE, 'port-forward']
  const child = spawn(facts.kubectl, [...args, 'service/nestgate-broker', ':8443'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const port = await new Promise<number>((resolve, reject) => {
    let text = ''
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      text += part
      const match = /127\.0\.0\.1:(\d+)/.exec(text)
      if (match?.[1] !== undefined) resolve(Number(match[1]))
    })
    child.on('close', () => {
      reject(new Error('kubectl port-forward ended'))
    })
  })
  if (!(await answers(port))) {
    child.kill()
    return undefined
  }
  forward = { child, port }
  return `https://localhost:${port}`
}

const dispatcher = new Agent({ connect: { ca: readFileSync(facts.caFile) }, pipelining: 0 })

async function answers(port: number): Promise<boolean> {
  try {
    const url = `https://localhost:${port}/readyz`
    const { statusCode, body } = await request(url, { dispatcher, headersTimeout: 5000 })
    await body.dump()
    return statusCode === 200
  } catch {
    return false
  }
}

/** Ends the way to the broker. */
export function closeBroker(): void {
  forward?.child.kill()
  forward = undefined
}

/** Who calls the broker: `reviewer` is in no group, the two others are in the group of that name. */
export type Person = 'admin' | 'reviewer' | 'auditor' | 'sre' | 'security'

/** Runs `nestgate` as a person. */
export async function nestgate(person: Person, args: readonly string[]): Promise<Ran> {
  const token = facts.tokens[person]
  return attempt('node', [join(facts.root, 'cli', 'main.ts'), ...args], {
    env: {
      NESTGATE_BROKER_URL: await brokerUrl(),
      NESTGATE_CA_FILE: facts.caFile,
      NESTGATE_TOKEN: token,
    },
    timeoutMs: 60_000,
  })
}

/** kubectl as a pipeline, straight to the broker, with a token of its runner; `kubectl` is the newest where none is named. */
export async function asPipeline(args: readonly string[], pipeline: Pipeline): Promise<Ran> {
  const file = await pipelineKubeconfig(pipeline, await brokerUrl())
  const { program = facts.kubectl } = pipeline
  try {
    return await attempt(program, ['--kubeconfig', file, ...args], { timeoutMs: 100_000 })
  } finally {
    rmSync(file)
  }
}

/** Writes a pipeline's kubeconfig. @returns the file, which the caller removes */
export async function pipelineKubeconfig(
  { sub, cluster, namespace }: Pipeline,
  broker: string,
): Promise<string> {
  const token = await mintRunnerToken(facts.oidc, { sub })
  const certificate = readFileSync(facts.caFile).toString('base64')
  const server = `${broker}/clusters/${cluster}`
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: 'nestgate', cluster: { server, 'certificate-authority-data': certificate } },
    ],
    users: [{ name: 'ci', user: { token } }],
    contexts: [{ name: 'ci', context: { cluster: 'nestgate', user: 'ci', namespace } }],
    'current-context': 'ci',
  }
  const file = join(facts.root, 'build', 'e2e', `ci-${randomUUID()}.kubeconfig`)
  writeFileSync(file, JSON.stringify(config), { mode: 0o600 })
  return file
}

/** Who a pipeline is, and where it works. */
export interface Pipeline {
  /** Of its token. */
  readonly sub: string
  /** Name of the cluster in the broker. */
  readonly cluster: string
  readonly namespace: string
  readonly program?: string
}

/** What the broker answers a person: its body, whatever it is. @throws an error with what it said where it refuses */
export async function fromBroker(person: Person, path: string): Promise<Buffer> {
  const { statusCode, body } = await request(`${await brokerUrl()}${path}`, {
    dispatcher,
    headers: { authorization: `Bearer ${facts.tokens[person]}` },
  })
  const bytes = Buffer.from(await body.arrayBuffer())
  if (statusCode !== 200) throw new Error(`${path} answered ${statusCode}: ${bytes.toString()}`)
  return bytes
}

/** All ledger entries that match, newest first. */
export async function audit(filter: Record<string, string>): Promise<readonly AuditEvent[]> {
  const items: AuditEvent[] = []
  let cursor: string | undefined
  do {
    const query = new URLSearchParams({ ...filter, limit: '1000' })
    if (cursor !== undefined) query.set('cursor', cursor)
    const { statusCode, body } = await request(
      `${await brokerUrl()}/v1/audit/events?${query.toString()}`,
      {
        dispatcher,
        headers: { authorization: `Bearer ${facts.tokens.auditor}` },
      },
    )
    const text = await body.text()
    if (statusCode !== 200) throw new Error(`audit answered ${statusCode}: ${text}`)
    const page = auditPageSchema.parse(JSON.parse(text))
    items.push(...page.items)
    cursor = page.next
  } while (cursor !== undefined)
  return items
}

/** An intent of the ledger, as far as the tests look. */
export interface Intent {
  readonly requestId: string
  readonly cluster: string
  readonly subject: { readonly name: string; readonly namespace: string; readonly podUid: string }
  readonly agent: string
  /** Absent for a moment in a new pod, until kubelet has reported its containers. */
  readonly container?: { readonly name: string }
  readonly request: {
    readonly verb: string
    readonly resource: string
    readonly subresource: string
    readonly name: string
    readonly namespace: string
    readonly path: string
    readonly query: string
  }
  readonly decision: {
    readonly effect: string
    readonly rules: readonly string[]
    readonly reason?: string
  }
  readonly approval?: { readonly reviewer: string; readonly reason: string }
  readonly credential?: { readonly user: string }
  readonly tag: {
    readonly verdict: string
    readonly verified?: {
      readonly pid: number
      readonly uid: number
      readonly exe?: string
      readonly containerId?: string
      readonly ancestors: readonly { readonly pid: number }[]
    }
    readonly socket?: { readonly uid: number }
    readonly declared?: { readonly agentName?: string }
  }
}

/** The intents of a pod, newest first. */
export async function intents(podUid: string): Promise<readonly Intent[]> {
  const events = await audit({ podUid, kind: 'intent' })
  return events.map(({ entry }) => entry as unknown as Intent)
}

/** One line of the cluster's own audit log (audit.k8s.io/v1, level Metadata). */
export interface ClusterAuditEvent {
  readonly auditID: string
  readonly stage: string
  readonly verb: string
  readonly requestURI: string
  readonly user: { readonly username: string; readonly groups?: readonly string[] }
  readonly responseStatus?: { readonly code?: number }
  readonly impersonatedUser?: {
    readonly username: string
    readonly extra?: Readonly<Record<string, readonly string[]>>
  }
}

/** What the cluster's audit log says of the broker's service account so far. */
export function clusterAuditOfBroker(): readonly ClusterAuditEvent[] {
  const own = 'system:serviceaccount:nestgate-system:nestgate-broker'
  return clusterAudit(own).filter(({ user }) => user.username === own)
}

/** What the cluster's own audit log says, as far as a line has a text in it. */
export function clusterAudit(text: string): readonly ClusterAuditEvent[] {
  if (facts.clusterAuditLog === undefined) throw new Error('set NESTGATE_CLUSTER_AUDIT_LOG')
  return readFileSync(facts.clusterAuditLog)
    .subarray(facts.clusterAuditFrom ?? 0)
    .toString()
    .split('\n')
    .filter((line) => line.includes(text))
    .map((line) => JSON.parse(line) as ClusterAuditEvent)
}
