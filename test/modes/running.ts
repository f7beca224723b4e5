/**
 * Both modes on one real API server: it is started here with the broker as OIDC issuer and authorization webhook, and
 * registered with the broker twice, as `issued` (mode issuer) and as `acted` (mode impersonation, writes bound by a validating
 * webhook). All that the API server and the broker are given is what `nestgate connect` writes.
 */
import { createHash, randomBytes } from 'node:crypto'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Agent, request } from 'undici'
import { among, podLike, start } from '../../bench/processes.ts'
import type { Measured } from '../../bench/processes.ts'
import { connectFiles } from '../../cli/connect/files.ts'
import type { AuthorizerToken } from '../../cli/connect/files.ts'
import type { ConnectFile } from '../../cli/connect/file.ts'
import { BROKER_ACCOUNT, BROKER_NAMESPACE } from '../../cli/connect/impersonation.ts'
import { readInputs } from '../../cli/connect/inputs.ts'
import type { ConnectRequest } from '../../cli/connect/inputs.ts'
import { API_SERVER_FOLDER } from '../../cli/connect/issuer.ts'
import { kubectl, openCluster, webhookCapable } from '../../scripts/cluster.ts'
import type { Cluster } from '../../scripts/cluster.ts'
import { ROOT } from '../../scripts/image.ts'
import { eventually, run } from '../../scripts/run.ts'
import { BROKER_AUDIENCE } from '../../shared/agent-tag.ts'
import { SIDECAR_NODE_FLAGS } from '../../shared/sidecar-runtime.ts'
import { makeCertificates } from '../support/certificates.ts'
import { freePort } from '../support/free-port.ts'
import { AUDIENCE, mintRunnerToken, startRunnerIssuer } from '../support/runner-issuer.ts'
import { serverOf } from '../differential/raw-client.ts'
import type { Server } from '../differential/raw-client.ts'

/** Ports away from a cluster that may run beside this one. */
const OWN_PORTS = {
  CLUSTER_PORT: process.env['NESTGATE_MODES_PORT'] ?? '27443',
  CLUSTER_ETCD_PORT: process.env['NESTGATE_MODES_ETCD_PORT'] ?? '23379',
}
/** The cluster's names in the broker. */
export const MODES = ['issued', 'acted'] as const
export type ModeName = (typeof MODES)[number]
/** Namespace of agents, and of what they work on. */
export const AGENTS = 'modes-agents'
export const WORK = 'modes-work'
/** Subject of the pipeline's token, as it is and as the broker calls it. */
const PIPELINE_SUB = 'repo:shop'
export const PIPELINE = `ci:${PIPELINE_SUB}`

/** One record of the API server's own audit log. */
export interface AuditEvent {
  readonly auditID: string
  readonly verb: string
  readonly requestURI: string
  readonly user: { readonly username?: string; readonly groups?: readonly string[] }
  readonly impersonatedUser?: {
    readonly username: string
    readonly groups?: readonly string[]
    readonly extra?: Readonly<Record<string, readonly string[]>>
  }
  readonly responseStatus?: { readonly code?: number; readonly message?: string }
  readonly annotations?: Readonly<Record<string, string>>
}

/** An answer. */
export interface Answer {
  readonly status: number
  readonly text: string
  readonly requestId: string
}

/** What a request is made of. */
export interface Line {
  readonly method?: string
  readonly body?: unknown
  readonly contentType?: string
  readonly headers?: Readonly<Record<string, string>>
}

/** See the head of the file. */
export interface RunningModes {
  readonly cluster: Cluster
  readonly apiServer: Server
  readonly brokerUrl: string
  readonly brokerCa: string
  readonly dir: string
  /** The broker's configuration. */
  readonly configFile: string
  /** A token of the pipeline. */
  pipelineToken(): Promise<string>
  /** As the pipeline, through the broker. */
  call(mode: ModeName, path: string, line?: Line): Promise<Answer>
  /** As an agent, through a sidecar of its own for that cluster. */
  agent(mode: ModeName, path: string, line?: Line): Promise<Answer>
  /** At the API server itself. */
  direct(path: string, headers: Readonly<Record<string, string>>, line?: Line): Promise<Answer>
  /** The broker's own API. */
  api(person: keyof typeof PEOPLE, path: string, line?: Line): Promise<Answer>
  /** What the API server has written down of a request so far; waits for it. */
  audited(requestId: string): Promise<AuditEvent>
  auditLog(): readonly AuditEvent[]
  stopBroker(): Promise<void>
  startBroker(): Promise<void>
  kubectl(args: readonly string[], input?: string): Promise<string>
  close(): Promise<void>
}

const token = (): string => randomBytes(32).toString('base64url')
export const PEOPLE = {
  sara: { roles: ['reviewer'], token: token() },
  otto: { roles: ['auditor'], token: token() },
  root: { roles: ['admin'], token: token() },
} as const

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
  - { id: look, match: { verbs: [get, list, watch], resources: ['*'] }, effect: allow }
  - { id: write, match: { verbs: [create, update, patch, delete], resources: [configmaps, namespaces, deployments] }, effect: allow }
  - { id: deploy, match: { subjects: ['ci:*'], verbs: [patch], resources: [configmaps], resourceNames: [granted] }, effect: allow, grant: { groups: [deployers] } }
  - { id: ask, match: { verbs: [delete], resources: [configmaps], resourceNames: ['held-*'] }, effect: hold }
`

/** Starts everything. Rejects when a part does not come up. @param policy - YAML, instead of the one above */
export async function startModes(policy = POLICY): Promise<RunningModes> {
  const work = mkdtempSync(join(tmpdir(), 'nestgate-modes-'))
  chmodSync(work, 0o700)
  const stops: (() => Promise<void>)[] = []
  try {
    return await startIn(work, stops, policy)
  } catch (error) {
    for (const stop of stops.toReversed()) await stop()
    rmSync(work, { recursive: true, force: true })
    throw error
  }
}

async function startIn(
  work: string,
  stops: (() => Promise<void>)[],
  policy: string,
): Promise<RunningModes> {
  const file = (name: string, text: string): string => {
    const path = join(work, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1'] })
  const caFile = file('ca.crt', ca)
  const port = await freePort()
  const brokerUrl = `https://127.0.0.1:${port}`
  const authorizerToken = token()
  const tokenSha256 = sha256(authorizerToken)
  const authorizer = { token: authorizerToken, tokenSha256 }
  const asked = { brokerUrl, brokerCa: ca, kubernetesVersion: '1.20' }
  const none = { namespaces: [], users: [], groups: [] }
  const issued = connect({ cluster: 'issued', mode: 'issuer', ...asked, ...none }, authorizer)
  const named = { namespaces: [AGENTS], users: [PIPELINE], groups: ['deployers'] }
  const acted = connect({ cluster: 'acted', mode: 'impersonation', ...asked, ...named }, authorizer)
  for (const name of ['broker-ca.crt', 'authorizer.kubeconfig']) file(name, fileOf(issued, name))
  const flags = fileOf(issued, 'kube-apiserver-flags.txt')
    .trim()
    .replaceAll(API_SERVER_FOLDER, work)
    // the cluster scripts say Node,RBAC, and the API server adds what is said again
    .replace('--authorization-mode=Node,RBAC,Webhook', '--authorization-mode=Webhook')
    .split('\n')
  const dir = join(work, 'cluster')
  const env = {
    ...(await webhookCapable()),
    ...OWN_PORTS,
    CLUSTER_APISERVER_FLAGS: flags.join(' '),
  }
  const cluster = await openCluster({ node: false, dir, env })
  stops.push(() => cluster.stop())
  const apiServer = serverOf(cluster.kubeconfig)
  const issuer = await startRunnerIssuer({ host: '127.0.0.1', cert, key })
  stops.push(() => issuer.close())

  const admin = (args: readonly string[], input?: string): Promise<string> =>
    kubectl(cluster, args, input === undefined ? {} : { input })
  await prepare(admin, [fileOf(acted, 'rbac.yaml'), fileOf(acted, 'admission-webhook.yaml')])
  const server = `https://${apiServer.host}:${apiServer.port}`
  const clusterCa = file('cluster-ca.crt', apiServer.ca.toString())
  const brokerToken = await accountToken(admin, BROKER_NAMESPACE, BROKER_ACCOUNT, {
    expirationSeconds: 3600,
  })
  mkdirSync(join(work, 'data'), { mode: 0o700 })
  const common = { server, caFile: clusterCa, serviceAccountTokens: { verify: 'tokenReview' } }
  const config = {
    listen: { host: '127.0.0.1', port },
    tls: { certFile: file('broker.crt', cert), keyFile: file('broker.key', key) },
    dataDir: join(work, 'data'),
    policyFile: file('policy.yaml', policy),
    issuer: { url: `${brokerUrl}/issuer` },
    clusters: [
      {
        ...{ name: 'issued', ...common },
        credential: { issuer: { authorizerTokenSha256: tokenSha256 } },
      },
      {
        ...{ name: 'acted', ...common },
        credential: {
          tokenFile: file('broker-token', brokerToken),
          refresh: { namespace: BROKER_NAMESPACE, serviceAccount: BROKER_ACCOUNT },
        },
        bound: { namespaces: [AGENTS], users: [PIPELINE] },
      },
    ],
    oidc: [{ name: 'ci', issuer: issuer.issuer, audiences: [AUDIENCE], caFile }],
    people: Object.entries(PEOPLE).map(([name, { roles, token: secret }]) => ({
      ...{ name, roles, tokenSha256: sha256(secret) },
    })),
  }
  const configFile = file('broker.json', JSON.stringify(config))
  let broker: Measured | undefined
  const startBroker = async (): Promise<void> => {
    const args = [join(ROOT, 'broker', 'main.ts'), '--config', configFile]
    broker = await start('broker', process.execPath, args, /"msg":"listening"/)
  }
  const stopBroker = async (): Promise<void> => {
    await broker?.stop()
    broker = undefined
  }
  await startBroker()
  stops.push(stopBroker)
  const sidecars = await startSidecars(admin, brokerUrl, caFile, file, stops)

  const agent = new Agent({ connect: { ca } })
  const toServer = new Agent({ connect: { ca: apiServer.ca.toString() } })
  stops.push(async () => {
    await agent.destroy()
    await toServer.destroy()
  })
  const send = async (
    dispatcher: Agent,
    url: string,
    headers: Readonly<Record<string, string>>,
    { method = 'GET', body, contentType = 'application/json', headers: more = {} }: Line = {},
  ): Promise<Answer> => {
    const text = typeof body === 'string' || body === undefined ? body : JSON.stringify(body)
    const answer = await request(url, {
      dispatcher,
      method,
      headers: {
        ...headers,
        ...(text === undefined ? {} : { 'content-type': contentType }),
        ...more,
      },
      ...(text === undefined ? {} : { body: text }),
    })
    const id = answer.headers['nestgate-request-id'] ?? answer.headers['audit-id']
    return {
      status: answer.statusCode,
      text: await answer.body.text(),
      requestId: typeof id === 'string' ? id : '',
    }
  }
  const bearer = (secret: string): Record<string, string> => ({ authorization: `Bearer ${secret}` })
  const pipelineToken = (): Promise<string> => mintRunnerToken(issuer, { sub: PIPELINE_SUB })
  const auditLog = (): AuditEvent[] =>
    readFileSync(join(dir, 'logs', 'audit.jsonl'), 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as AuditEvent)
  return {
    ...{
      cluster,
      apiServer,
      brokerUrl,
      brokerCa: ca,
      dir: work,
      auditLog,
      configFile,
      startBroker,
      stopBroker,
    },
    pipelineToken,
    call: async (mode, path, line) => {
      const own = await pipelineToken()
      return send(agent, `${brokerUrl}/clusters/${mode}${path}`, bearer(own), line)
    },
    agent: (mode, path, line) => curl(sidecars[mode], path, line),
    direct: (path, headers, line) => send(toServer, server + path, headers, line),
    api: (person, path, line) =>
      send(agent, `${brokerUrl}${path}`, bearer(PEOPLE[person].token), line),
    audited: (requestId) =>
      eventually('the audit record', 10_000, () =>
        Promise.resolve(auditLog().find(({ auditID }) => auditID === requestId)),
      ),
    kubectl: admin,
    async close() {
      for (const stop of stops.toReversed()) await stop()
      rmSync(work, { recursive: true, force: true })
    },
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

type Admin = (args: readonly string[], input?: string) => Promise<string>

async function accountToken(
  admin: Admin,
  namespace: string,
  account: string,
  spec: object,
): Promise<string> {
  const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest', spec }
  const path = `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`
  const said = await admin(['create', '--raw', path, '-f', '-'], JSON.stringify(review))
  return (JSON.parse(said) as { status: { token: string } }).status.token
}

const RBAC = 'rbac.authorization.k8s.io'

/** The cluster's objects: accounts and their rights. @param generated - what the broker may be there, and what binds writes */
async function prepare(admin: Admin, generated: readonly string[]): Promise<void> {
  const worker = [{ kind: 'ServiceAccount', name: 'worker', namespace: AGENTS }]
  const pipeline = [{ kind: 'User', name: PIPELINE, apiGroup: RBAC }]
  const group = [{ kind: 'Group', name: 'deployers', apiGroup: RBAC }]
  const rights = [{ apiGroups: [''], resources: ['configmaps'], verbs: ['patch', 'get'] }]
  const labels = { 'nestgate.dev/inject': 'enabled' }
  const objects = [
    ...[AGENTS, WORK].map((name) => ({
      ...{ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } },
    })),
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { name: 'worker', namespace: AGENTS },
    },
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'agents', namespace: AGENTS },
      spec: {
        serviceAccountName: 'worker',
        schedulerName: 'none',
        containers: [{ name: 'agent', image: 'none' }],
      },
    },
    binding('edit', ['ClusterRole', 'edit'], [...worker, ...pipeline], WORK),
    {
      ...{
        apiVersion: `${RBAC}/v1`,
        kind: 'Role',
        metadata: { name: 'granted', namespace: AGENTS },
      },
      rules: rights,
    },
    binding('granted', ['Role', 'granted'], group, AGENTS),
    binding('edit', ['ClusterRole', 'edit'], [{ ...worker[0], name: 'default' }], AGENTS),
  ]
  await eventually('the objects', 60_000, async () => {
    const list = { apiVersion: 'v1', kind: 'List', items: objects }
    await admin(['apply', '-f', '-'], JSON.stringify(list))
    for (const text of generated) await admin(['apply', '-f', '-'], text)
    return true
  })
}

function binding(
  name: string,
  [kind, roleName]: readonly [string, string],
  subjects: readonly object[],
  namespace: string,
): object {
  return {
    apiVersion: `${RBAC}/v1`,
    kind: 'RoleBinding',
    metadata: { name, namespace },
    roleRef: { apiGroup: RBAC, kind, name: roleName },
    subjects,
  }
}

/** The files that `nestgate connect` writes. */
function connect(asked: ConnectRequest, authorizer: AuthorizerToken): readonly ConnectFile[] {
  const inputs = readInputs(asked)
  if ('problems' in inputs) throw new Error(inputs.problems.join())
  return connectFiles(inputs, authorizer)
}

function fileOf(files: readonly ConnectFile[], name: string): string {
  const found = files.find((file) => file.name === name)
  if (found === undefined) throw new Error(`connect makes no ${name}`)
  return found.text
}

/** A sidecar for each mode, both of the same pod of the cluster. */
async function startSidecars(
  admin: Admin,
  brokerUrl: string,
  caFile: string,
  file: (name: string, text: string) => string,
  stops: (() => Promise<void>)[],
): Promise<Readonly<Record<ModeName, Sidecar>>> {
  const secret = await accountToken(admin, AGENTS, 'worker', {
    expirationSeconds: 3600,
    audiences: [BROKER_AUDIENCE],
    boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: 'agents' },
  })
  const tokenFile = file('sidecar-token', secret)
  const started = MODES.map(async (mode) => {
    const [program, ...args] = [
      ...podLike(),
      ...[process.execPath, ...SIDECAR_NODE_FLAGS, join(ROOT, 'sidecar', 'main.ts')],
    ]
    const sidecar = await start('sidecar', program ?? '', args, /"port":(\d+).*"msg":"listening"/, {
      NESTGATE_BROKER_URL: brokerUrl,
      NESTGATE_CLUSTER: mode,
      NESTGATE_BROKER_CA_FILE: caFile,
      NESTGATE_TOKEN_FILE: tokenFile,
      NESTGATE_LISTEN_PORT: '0',
      NESTGATE_CALLER_UNREADABLE: 'ignore',
      NESTGATE_POSTURE: 'report',
    })
    stops.push(() => sidecar.stop())
    const address = `http://127.0.0.1:${sidecar.ready[1] ?? ''}`
    try {
      await eventually('the sidecar’s registration', 30_000, async () => {
        return (await fetch(`${address}/.nestgate/ready`)).status === 200 ? true : undefined
      })
    } catch (error) {
      throw new Error(sidecar.said(), { cause: error })
    }
    return [mode, { address, pid: sidecar.pid }] as const
  })
  return Object.fromEntries(await Promise.all(started)) as Record<ModeName, Sidecar>
}

interface Sidecar {
  readonly address: string
  readonly pid: number
}

/** A request by a process of the sidecar's pod. */
async function curl({ address, pid }: Sidecar, path: string, line: Line = {}): Promise<Answer> {
  const { method = 'GET', body, contentType = 'application/json', headers = {} } = line
  const options = [
    ...['--silent', '--globoff', '--dump-header', '-', '--request', method],
    ...Object.entries(headers).flatMap(([name, value]) => ['--header', `${name}: ${value}`]),
    ...(body === undefined
      ? []
      : ['--header', `content-type: ${contentType}`, '--data-binary', JSON.stringify(body)]),
  ]
  const [program, ...args] = [...among(pid), 'curl', ...options, address + path]
  const said = await run(program, args)
  const [head = '', ...rest] = said.split('\r\n\r\n')
  return {
    status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]),
    text: rest.join('\r\n\r\n'),
    requestId: /^nestgate-request-id: (.*)$/im.exec(head)?.[1]?.trim() ?? '',
  }
}
