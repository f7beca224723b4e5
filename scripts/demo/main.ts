/**
 * `npm run demo`: the main job on one machine. A broker, a sidecar and a Kubernetes API (an embedded stand-in, or a
 * real one) start; two agents, each a process of its own, call `localhost`; a second person approves what is held;
 * then the account of who did what is read from the ledger. Linux only: naming a process takes /proc.
 *
 *   npm run demo                          with the embedded stand-in
 *   npm run demo -- --keep                leaves everything up for your own kubectl
 *   npm run demo -- --kubeconfig FILE     on a cluster of yours (an administrator's kubeconfig)
 *   KUBEBUILDER_ASSETS=DIR npm run demo   on a control plane started from DIR
 */
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Agent, request } from 'undici'
import { stringify } from 'yaml'
import { writeCertificates } from '../../cli/certificates.ts'
import { approvalListSchema, auditPageSchema } from '../../shared/wire.ts'
import type { Approval } from '../../shared/wire.ts'
import { printAccount } from './account.ts'
import { openAdmin } from './cluster.ts'
import type { DemoCluster } from './cluster.ts'
import { freePort, startScript, waitUntil } from './processes.ts'
import type { Child } from './processes.ts'
import { clusterOfKubeconfig, startControlPlane } from './real-cluster.ts'
import { cleanCluster, NAMESPACE, prepareCluster } from './setup.ts'
import type { DemoTokens } from './setup.ts'
import { startStandIn } from './stand-in.ts'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const START_LIMIT_MS = 20_000
const SIDECAR_PORT = 8001

/** Everything that was started, to be ended in reverse. */
type Ending = () => Promise<unknown>

interface Stage {
  readonly dir: string
  readonly endings: Ending[]
}

interface Broker {
  readonly url: string
  readonly ca: string
  readonly caFile: string
  readonly people: Readonly<Record<'alice' | 'audra', string>>
}

const say = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { keep: { type: 'boolean' }, kubeconfig: { type: 'string' } },
  })
  if (process.platform !== 'linux')
    throw new Error('the demo names processes by /proc and so needs Linux')
  const stage: Stage = { dir: await mkdtemp(join(tmpdir(), 'nestgate-demo-')), endings: [] }
  stage.endings.push(() => rm(stage.dir, { recursive: true, force: true }))
  const interrupted = new Promise<void>((resolve) => {
    process.once('SIGINT', resolve)
    process.once('SIGTERM', resolve)
  })
  try {
    await Promise.race([
      run(stage, values.keep === true, values.kubeconfig, interrupted),
      interrupted,
    ])
  } finally {
    for (const end of stage.endings.toReversed()) await end()
  }
}

async function run(
  stage: Stage,
  keep: boolean,
  kubeconfig: string | undefined,
  interrupted: Promise<void>,
): Promise<void> {
  const cluster = await startCluster(stage, kubeconfig)
  say(`cluster   ${cluster.description}, ${cluster.server}`)
  const admin = openAdmin(cluster)
  const tokens = await prepareCluster(admin)
  stage.endings.push(async () => {
    await cleanCluster(admin)
    await admin.close()
  })
  const broker = await startBroker(stage, cluster, tokens)
  say(`broker    ${broker.url}`)
  const proxy = await startSidecar(stage, broker, tokens)
  say(`sidecar   ${proxy}, where a pod's agents would find it\n`)

  const approver = approveAsAlice(broker)
  const agents = ['scanner', 'janitor'].map((name) => startAgent(name, proxy))
  stage.endings.push(async () => {
    for (const agent of agents) await agent.stop()
  })
  const codes = await Promise.all(agents.map(({ ended }) => ended))
  if (codes.some((code) => code !== 0)) throw new Error('an agent failed')
  await approver

  const page = auditPageSchema.parse(
    await ask(broker, broker.people.audra, 'GET', '/v1/audit/events?limit=200'),
  )
  printAccount(say, page.items, await cluster.audit?.())
  sayWhereToLook(broker, proxy, keep, stage.dir)
  if (keep) await interrupted
}

async function startCluster(stage: Stage, kubeconfig: string | undefined): Promise<DemoCluster> {
  const assets = process.env['KUBEBUILDER_ASSETS']
  const dir = join(stage.dir, 'cluster')
  await mkdir(dir)
  let cluster: DemoCluster
  if (kubeconfig !== undefined) cluster = clusterOfKubeconfig(kubeconfig)
  else if (assets !== undefined) cluster = await startControlPlane(assets, dir)
  else cluster = await startStandIn(dir)
  stage.endings.push(() => cluster.close())
  return cluster
}

async function startBroker(
  stage: Stage,
  cluster: DemoCluster,
  tokens: DemoTokens,
): Promise<Broker> {
  const dir = join(stage.dir, 'broker')
  const hosts = ['127.0.0.1', 'localhost']
  const made = writeCertificates({ dir, brokerHosts: hosts, webhookHosts: hosts, days: 2 })
  if ('problems' in made) throw new Error(made.problems.join('\n'))
  const people = {
    alice: randomBytes(32).toString('base64url'),
    audra: randomBytes(32).toString('base64url'),
  }
  const port = await freePort()
  const file = (name: string): string => join(dir, name)
  await writeFile(file('cluster-ca.crt'), cluster.ca)
  await writeFile(file('cluster-token'), tokens.broker, { mode: 0o600 })
  const config = {
    listen: { host: '127.0.0.1', port },
    tls: { certFile: file('broker.crt'), keyFile: file('broker.key') },
    dataDir: dir,
    policyFile: join(ROOT, 'scripts/demo/policy.yaml'),
    clusters: [
      {
        name: 'demo',
        server: cluster.server,
        caFile: file('cluster-ca.crt'),
        credential: { tokenFile: file('cluster-token') },
        serviceAccountTokens: { verify: 'jwks', issuer: issuerOf(tokens.sidecar) },
      },
    ],
    people: [
      { name: 'alice', roles: ['reviewer'], tokenSha256: digestOf(people.alice) },
      { name: 'audra', roles: ['auditor'], tokenSha256: digestOf(people.audra) },
    ],
    log: { level: 'warn' },
  }
  await writeFile(file('broker.yaml'), stringify(config))
  const child = startScript(
    join(ROOT, 'broker/main.ts'),
    ['--config', file('broker.yaml')],
    {},
    (line) => {
      say(`broker    ${line}`)
    },
  )
  stage.endings.push(() => child.stop())
  const broker = {
    url: `https://127.0.0.1:${port}`,
    ca: await readFile(file('ca.crt'), 'utf8'),
    caFile: file('ca.crt'),
    people,
  }
  await waitUntil('the broker', START_LIMIT_MS, async () => (await get(broker, '/readyz')) === 200)
  return broker
}

async function startSidecar(stage: Stage, broker: Broker, tokens: DemoTokens): Promise<string> {
  const port = await freePort(SIDECAR_PORT).catch(() => freePort())
  const tokenFile = join(stage.dir, 'sidecar-token')
  await writeFile(tokenFile, tokens.sidecar, { mode: 0o600 })
  const env = {
    NESTGATE_BROKER_URL: broker.url,
    NESTGATE_BROKER_CA_FILE: broker.caFile,
    NESTGATE_CLUSTER: 'demo',
    NESTGATE_TOKEN_FILE: tokenFile,
    NESTGATE_LISTEN_PORT: String(port),
    NESTGATE_LOG_LEVEL: 'warn',
    // on a workstation there are processes that may not be looked into; in a pod such a caller is refused
    NESTGATE_CALLER_UNREADABLE: 'ignore',
    NESTGATE_POSTURE: 'report',
  }
  const child = startScript(join(ROOT, 'sidecar/main.ts'), [], env, (line) => {
    say(`sidecar   ${line}`)
  })
  stage.endings.push(() => child.stop())
  const url = `http://localhost:${port}`
  await waitUntil(
    'the sidecar',
    START_LIMIT_MS,
    async () => (await request(`${url}/.nestgate/ready`)).statusCode === 200,
  )
  return url
}

function startAgent(name: string, proxy: string): Child {
  const script = join(ROOT, `scripts/demo/agents/${name}.ts`)
  const child = startScript(
    script,
    [NAMESPACE],
    { KUBERNETES_PROXY: proxy, AGENT_NAME: name },
    (line) => {
      say(`${name.padEnd(9)} ${line}`)
    },
  )
  say(`${name.padEnd(9)} started as process ${child.pid}`)
  return child
}

/** The second person: waits until something is held, looks at it, approves it with the command people use. */
async function approveAsAlice(broker: Broker): Promise<void> {
  let held: Approval | undefined
  await waitUntil('a held request', START_LIMIT_MS, async () => {
    const list = approvalListSchema.parse(
      await ask(broker, broker.people.alice, 'GET', '/v1/approvals?state=PENDING'),
    )
    held = list.items[0]
    return held !== undefined
  })
  if (held === undefined) return
  say(
    `alice     sees ${held.verb} ${held.resource} ${held.name}, asked by ${held.subject}, held by rule ${held.rules.join(', ')}`,
  )
  const args = ['approvals', 'approve', held.id, '--reason', 'the report was replaced last week']
  const env = {
    NESTGATE_BROKER_URL: broker.url,
    NESTGATE_CA_FILE: broker.caFile,
    NESTGATE_TOKEN: broker.people.alice,
  }
  const child = startScript(join(ROOT, 'cli/main.ts'), args, env, (line) => {
    say(`alice     ${line}`)
  })
  if ((await child.ended) !== 0) throw new Error('the approval failed')
}

async function ask(broker: Broker, token: string, method: 'GET', path: string): Promise<unknown> {
  const dispatcher = new Agent({ connect: { ca: broker.ca } })
  try {
    const answer = await request(broker.url + path, {
      method,
      dispatcher,
      headers: { authorization: `Bearer ${token}` },
    })
    if (answer.statusCode !== 200)
      throw new Error(`${path}: ${answer.statusCode} ${await answer.body.text()}`)
    return await answer.body.json()
  } finally {
    await dispatcher.close()
  }
}

async function get(broker: Broker, path: string): Promise<number> {
  const dispatcher = new Agent({ connect: { ca: broker.ca } })
  try {
    const answer = await request(broker.url + path, { dispatcher })
    await answer.body.dump()
    return answer.statusCode
  } finally {
    await dispatcher.close()
  }
}

function sayWhereToLook(broker: Broker, proxy: string, keep: boolean, dir: string): void {
  if (!keep) {
    say(
      '\nnext: npm run demo -- --keep leaves all this up for your own kubectl; docs/architecture.md has the way of a request',
    )
    return
  }
  const set = `NESTGATE_BROKER_URL=${broker.url} NESTGATE_CA_FILE=${broker.caFile}`
  say(`\nstill up, until Ctrl-C (everything lies in ${dir}):
  kubectl --server ${proxy} -n ${NAMESPACE} get pods
  kubectl --server ${proxy} -n ${NAMESPACE} delete deployment NAME      waits for an approval
  ${set} NESTGATE_TOKEN=${broker.people.alice} npm run -s nestgate -- approvals list
  ${set} NESTGATE_TOKEN=${broker.people.audra} npm run -s nestgate -- audit`)
}

function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex')
}

function issuerOf(token: string): string {
  const [, payload = ''] = token.split('.')
  const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString())
  return typeof claims === 'object' && claims !== null && 'iss' in claims ? String(claims.iss) : ''
}

main().then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exit(1)
  },
)
