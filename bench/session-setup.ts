/** What the sessions benchmark runs on: a pod that really runs, and three ways into it: direct, and through sidecar and broker without and with recording. */
import { kubectl, minorVersion, tryKubectl } from '../scripts/cluster.ts'
import type { Cluster } from '../scripts/cluster.ts'
import { eventually } from '../scripts/run.ts'
import { among } from './processes.ts'
import type { Measured } from './processes.ts'
import {
  AGENTS_POD,
  cleanCluster,
  NAMESPACE,
  prepareCluster,
  readKubeconfig,
  startNestgate,
  tokenPod,
} from './setup.ts'

/** Where pods find what the script of {@link POD_SCRIPT} listens on. */
export const POD_PORT = 8080
/** Text in the pod, of printable characters that do not repeat: as output of programs is. */
export const TEXT = { path: '/tmp/text', mib: 8 } as const
/** A file in the pod for `kubectl cp`. */
export const FILE = { path: '/tmp/file', mib: 64 } as const
/** Length of what `GET /big` answers. */
export const BIG_MIB = 256

const POD_SCRIPT = `
const { createServer } = require('node:http'), { randomBytes } = require('node:crypto'), { writeFileSync } = require('node:fs')
const piece = Buffer.alloc(65536, 'x')
createServer((request, response) => {
  if (request.url !== '/big') return response.end('hello')
  let left = ${BIG_MIB} * 16
  response.setHeader('content-length', left * piece.length)
  const more = () => {
    while (left > 0) { left -= 1; if (!response.write(piece)) return response.once('drain', more) }
    response.end()
  }
  more()
}).listen(${POD_PORT})
const text = randomBytes(${TEXT.mib} * 786432).toString('base64').replace(/.{120}/g, '$&\\n').slice(0, ${TEXT.mib} << 20)
writeFileSync('${TEXT.path}', text)
writeFileSync('${FILE.path}', randomBytes(${FILE.mib} << 20))
console.log('ready')
`

/** Pods that are alike but for what policy says of recording them. */
const RECORDED = 'recorded'
const UNRECORDED = 'unrecorded'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
  - id: read
    match: { verbs: [get, list, watch], resources: ['*'] }
    effect: allow
  - id: recorded
    match: { verbs: [connect], resources: [pods/exec, pods/portforward], resourceNames: [${RECORDED}] }
    effect: allow
    record: required
  - id: unrecorded
    match: { verbs: [connect], resources: [pods/exec, pods/portforward], resourceNames: [${UNRECORDED}] }
    effect: allow
    record: off
`

/** A requester may have so many sessions open at once that 200 take two of them. */
const SECOND_POD = 'agents-too'

/** A way into a pod. */
export interface SessionWay {
  readonly name: 'direct' | 'through, unrecorded' | 'through, recorded'
  readonly pod: string
  /** kubectl with what it takes to go this way, among the sidecar's processes. */
  readonly kubectl: readonly string[]
  /** For a WebSocket: where clients connect to, and what they are started with, so that the sidecar there can name them. */
  readonly doors: readonly Door[]
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
}

/** See {@link SessionWay.doors}. */
export interface Door {
  readonly origin: string
  readonly client: readonly string[]
}

/** All that runs. */
export interface SessionWorld {
  readonly ways: readonly SessionWay[]
  readonly broker: Measured
  readonly sidecar: Measured
  /** Of Kubernetes, and of kubectl. */
  readonly version: string
  readonly kubectlVersion: string
  /** Whether the API server knows v5.channel.k8s.io itself. */
  readonly speaksV5: boolean
  stop(): Promise<void>
}

function podObject(name: string): object {
  const container = {
    ...{ name: 'target', image: 'node:24-bookworm-slim', imagePullPolicy: 'IfNotPresent' },
    command: ['node', '-e', POD_SCRIPT],
    readinessProbe: { httpGet: { path: '/', port: POD_PORT }, periodSeconds: 1 },
  }
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: NAMESPACE },
    spec: { terminationGracePeriodSeconds: 0, containers: [container] },
  }
}

const editBinding = {
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'RoleBinding',
  metadata: { name: 'agent-edits', namespace: NAMESPACE },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'edit' },
  subjects: [{ kind: 'ServiceAccount', name: 'agent', namespace: NAMESPACE }],
}

async function preparePods(cluster: Cluster): Promise<void> {
  await eventually('a namespace that is not ending', 60_000, async () => {
    const args = ['get', 'namespace', NAMESPACE, '-o', 'jsonpath={.status.phase}']
    const { stdout } = await tryKubectl(cluster, args)
    return stdout === 'Terminating' ? undefined : true
  })
  await prepareCluster(cluster)
  const items = [editBinding, podObject(RECORDED), podObject(UNRECORDED), tokenPod(SECOND_POD)]
  const list = { apiVersion: 'v1', kind: 'List', items }
  await kubectl(cluster, ['apply', '-f', '-'], { input: JSON.stringify(list) })
  for (const name of [RECORDED, UNRECORDED]) {
    const wait = ['wait', '--for=condition=Ready', `pod/${name}`, '--timeout=90s']
    await kubectl(cluster, ['-n', NAMESPACE, ...wait])
  }
}

/** Brings up pods, broker and sidecar. @param brokerFlags - more flags of the broker's Node */
export async function openSessionWorld(
  cluster: Cluster,
  work: string,
  brokerFlags: readonly string[],
): Promise<SessionWorld> {
  const { origin, tls } = readKubeconfig(cluster.kubeconfig)
  const started: Measured[] = []
  const stop = async (): Promise<void> => {
    for (const one of started.toReversed()) await one.stop()
    await cleanSessions(cluster)
  }
  try {
    await preparePods(cluster)
    const plan = {
      cluster,
      work,
      origin,
      ca: tls.ca,
      issued: undefined,
      policy: POLICY,
      brokerFlags,
      pods: [AGENTS_POD, SECOND_POD],
    }
    const ways = await startNestgate(plan, started)
    const doors = ways.map(({ target, processes }) => ({
      origin: target.origin,
      client: among(processes[0]?.pid ?? 0),
    }))
    const [door] = doors
    const [sidecar, broker] = ways[0]?.processes ?? []
    if (door === undefined || sidecar === undefined || broker === undefined)
      throw new Error('no way through')
    const namespace = ['-n', NAMESPACE]
    const own = [...door.client, cluster.kubectl]
    const through = { kubectl: [...own, '--server', door.origin, ...namespace], doors }
    const direct = {
      kubectl: [...own, '--kubeconfig', cluster.kubeconfig, ...namespace],
      doors: doors.map(({ client }) => ({ origin, client })),
    }
    return {
      ways: [
        { name: 'direct', pod: RECORDED, ...direct, tls },
        { name: 'through, unrecorded', pod: UNRECORDED, ...through },
        { name: 'through, recorded', pod: RECORDED, ...through },
      ],
      ...{ broker, sidecar, stop },
      ...(await versionsOf(cluster)),
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** From this minor version on v5.channel.k8s.io is on by default. */
const V5_MINOR = 30

async function versionsOf(
  cluster: Cluster,
): Promise<Pick<SessionWorld, 'version' | 'kubectlVersion' | 'speaksV5'>> {
  const said = JSON.parse(await kubectl(cluster, ['version', '-o', 'json'])) as {
    clientVersion: { gitVersion: string }
    serverVersion: { gitVersion: string }
  }
  return {
    version: said.serverVersion.gitVersion,
    kubectlVersion: said.clientVersion.gitVersion,
    speaksV5: (await minorVersion(cluster)) >= V5_MINOR,
  }
}

/** Removes what was made; the roles of an installation that is there stay. */
async function cleanSessions(cluster: Cluster): Promise<void> {
  if (cluster.owned) return
  const installed = await tryKubectl(cluster, ['get', 'namespace', 'nestgate-system', '-o', 'name'])
  if (installed.stdout.trim() === '') {
    await cleanCluster(cluster)
    return
  }
  const quiet = ['--ignore-not-found', '--wait=false']
  await kubectl(cluster, ['delete', 'namespace', NAMESPACE, ...quiet])
  await kubectl(cluster, ['delete', 'clusterrolebinding', NAMESPACE, ...quiet])
}
