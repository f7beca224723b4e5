/**
 * Keepers of certificates on a real API server, with the rights of docs/certificates.md and no other. A webhook that the API server
 * really calls and a broker's listener serve what the Secrets hold, a little later, as with a kubelet between them; pods
 * are what their environment holds: the bundle of the moment of their injection.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { Server as HttpsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { Agent, request } from 'undici'
import { kubectl, openCluster, webhookCapable } from '../../scripts/cluster.ts'
import { ROOT } from '../../scripts/image.ts'
import { eventually } from '../../scripts/run.ts'
import { serverOf } from '../differential/raw-client.ts'
import { makeCertificates } from '../support/certificates.ts'
import { pems } from '../support/kept-world.ts'

/** Ports away from clusters that may run beside this one. */
const OWN_PORTS = {
  CLUSTER_PORT: process.env['NESTGATE_KEEPER_PORT'] ?? '28443',
  CLUSTER_ETCD_PORT: process.env['NESTGATE_KEEPER_ETCD_PORT'] ?? '24379',
}
export const SYSTEM = 'nestgate-system'
/** Namespace whose ConfigMaps the webhooks are asked about. */
const ASKED = 'keeper-asked'
const SECRETS = {
  authority: 'nestgate-ca',
  webhook: 'nestgate-webhook-tls',
  broker: 'nestgate-broker-tls',
} as const
/** Kinds of the configurations, both called `nestgate-kept`. */
export const KINDS = ['MutatingWebhookConfiguration', 'ValidatingWebhookConfiguration'] as const
/** How late servers take a changed Secret, in milliseconds. */
const LAG_MS = 300
const POLL_MS = 50

/** A keeper's process. */
export interface KeeperProcess {
  /** Settles when it is gone. */
  readonly gone: Promise<void>
  readonly kill: (signal: NodeJS.Signals) => void
  readonly said: () => string
  /** Port of its figures, once it listens. */
  port(): Promise<number>
}

export interface RunningKeepers {
  /** Starts a keeper. @param through - of the API server itself, or of {@link RunningKeepers.killing} */
  keeper(settings: object, through?: 'server' | 'killing'): KeeperProcess
  /** Called with each write that the API server has done through `killing`, before the keeper is told. */
  onWritten: (path: string) => void
  secret(role: keyof typeof SECRETS): Promise<Record<string, string>>
  /** As the API server has it in a configuration now. */
  bundle(kind: (typeof KINDS)[number]): Promise<string>
  admin(args: readonly string[], input?: string): Promise<string>
  /** Applies what is installed, once more. */
  apply(options: readonly string[]): Promise<string>
  /** Problems so far of the webhook, as the API server calls it, and of the broker, as pods do. */
  readonly problems: string[]
  /** How often each was called with success. */
  readonly good: { webhook: number; broker: number }
  /** Bundles that pods were injected with. */
  readonly injected: string[]
  /** Those of them that can no more reach the broker. */
  readonly lost: Set<string>
  /** Begins to call both again and again. */
  watch(): void
  /** Calls both once. */
  check(): Promise<void>
  close(): Promise<void>
}

/** Starts the cluster and what is installed in it. Rejects when a part does not come up. */
export async function startKeepers(): Promise<RunningKeepers> {
  const work = mkdtempSync(join(tmpdir(), 'nestgate-keeper-'))
  const stops: (() => Promise<void> | void)[] = [
    (): void => {
      rmSync(work, { recursive: true, force: true })
    },
  ]
  try {
    return await startIn(work, stops)
  } catch (error) {
    for (const stop of stops.toReversed()) await stop()
    throw error
  }
}

async function startIn(
  work: string,
  stops: (() => Promise<void> | void)[],
): Promise<RunningKeepers> {
  const file = (name: string, text: string): string => {
    const path = join(work, name)
    writeFileSync(path, text, { mode: 0o600 })
    return path
  }
  const env = { ...OWN_PORTS, ...(await webhookCapable()) }
  const cluster = await openCluster({ node: false, dir: join(work, 'cluster'), env })
  stops.push(() => cluster.stop())
  const admin = (args: readonly string[], input?: string): Promise<string> =>
    kubectl(cluster, args, input === undefined ? {} : { input })
  const { ca, cert, key, host, port } = serverOf(cluster.kubeconfig)
  const server = `https://${host}:${port}`
  const agent = new Agent({
    connect: { ca: ca.toString(), cert: cert.toString(), key: key.toString() },
  })
  stops.push(() => agent.destroy())
  const ask = async (path: string, method = 'GET', body?: object): Promise<Asked> => {
    const answer = await request(server + path, {
      ...{ method, dispatcher: agent, headers: { 'content-type': 'application/json' } },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: answer.statusCode, text: await answer.body.text() }
  }
  const secret = async (role: keyof typeof SECRETS): Promise<Record<string, string>> => {
    const { text } = await ask(`/api/v1/namespaces/${SYSTEM}/secrets/${SECRETS[role]}`)
    const { data = {} } = JSON.parse(text) as { data?: Record<string, string> }
    return Object.fromEntries(Object.entries(data).map(([name, value]) => [name, plain(value)]))
  }
  const webhook = await serve('webhook', secret, stops)
  const broker = await serve('broker', secret, stops)
  const installed = JSON.stringify(objects(webhook.port))
  await eventually('the objects', 60_000, async () => {
    await admin(['apply', '-f', '-'], installed)
    return true
  })
  const account = `/api/v1/namespaces/${SYSTEM}/serviceaccounts/nestgate-certificates/token`
  const { text } = await ask(account, 'POST', {
    ...{ apiVersion: 'authentication.k8s.io/v1', kind: 'TokenRequest' },
    spec: { expirationSeconds: 3600 },
  })
  const { status } = JSON.parse(text) as { status: { token: string } }
  const tokenFile = file('token', status.token)
  const killing = await killingProxy(server, ca.toString(), stops)
  const ways = {
    server: { server, caFile: file('cluster.crt', ca.toString()), tokenFile },
    killing: { server: killing.url, caFile: file('killing.crt', killing.ca), tokenFile },
  }
  let made = 0
  let ended = false
  const running: RunningKeepers = {
    keeper(settings, through = 'server') {
      made += 1
      const config = {
        ...{ namespace: SYSTEM, listen: { host: '127.0.0.1', port: 0 } },
        webhookConfigurations: KINDS.map((kind) => ({ kind, name: 'nestgate-kept' })),
        dnsNames: { webhook: ['127.0.0.1'], broker: ['127.0.0.1', 'nestgate-broker.svc'] },
        ...{ kubernetes: ways[through], ...settings },
      }
      const keeper = startProcess(file(`keeper-${made}.json`, JSON.stringify(config)))
      stops.push(() => {
        keeper.kill('SIGKILL')
        return keeper.gone
      })
      return keeper
    },
    onWritten: () => undefined,
    secret,
    async bundle(kind) {
      const group = '/apis/admissionregistration.k8s.io/v1'
      const { text: said } = await ask(`${group}/${kind.toLowerCase()}s/nestgate-kept`)
      const { webhooks } = JSON.parse(said) as {
        webhooks: { clientConfig: { caBundle?: string } }[]
      }
      return plain(webhooks.at(-1)?.clientConfig.caBundle ?? '')
    },
    admin,
    apply: (options) => admin(['apply', ...options, '-f', '-'], installed),
    ...{ problems: [], good: { webhook: 0, broker: 0 }, injected: [], lost: new Set() },
    watch() {
      const again = async (): Promise<void> => {
        while (!ended) {
          await running.check()
          await new Promise((resolve) => setTimeout(resolve, POLL_MS))
        }
      }
      const watching = again()
      stops.push(() => {
        ended = true
        return watching
      })
    },
    async check() {
      // A pod is injected with what the webhook has in its own Secret.
      const bundle = webhook.bundle()
      if (bundle !== '' && !running.injected.includes(bundle)) running.injected.push(bundle)
      if (webhook.serves()) {
        const path = `/api/v1/namespaces/${ASKED}/configmaps?dryRun=All`
        const answer = await ask(path, 'POST', { metadata: { generateName: 'x-' } })
        if (answer.status === 201) running.good.webhook += 1
        else running.problems.push(`webhook: ${answer.text}`)
      }
      if (!broker.serves()) return
      for (const pod of running.injected) {
        if (running.lost.has(pod)) continue
        if (Math.min(...pems(pod).map(({ ends }) => ends)) < Date.now() + 2_000) continue
        const problem = await shakeHands(broker.port, pod)
        if (problem === undefined) running.good.broker += 1
        else running.problems.push(`broker: ${problem}`)
      }
    },
    async close() {
      for (const stop of stops.toReversed()) await stop()
    },
  }
  killing.written((path) => {
    running.onWritten(path)
  })
  return running
}

interface Asked {
  readonly status: number
  readonly text: string
}

function plain(base64: string): string {
  return Buffer.from(base64, 'base64').toString()
}

function startProcess(config: string): KeeperProcess {
  const args = ['--disable-sigusr1', join(ROOT, 'cli', 'main.ts'), 'certificates', 'keep']
  const child: ChildProcess = spawn(process.execPath, [...args, '--config', config], {
    stdio: ['ignore', 'pipe', 'pipe'],
    // It is configured by its file alone; settings of the tests are none of its.
    env: Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !name.startsWith('NESTGATE_')),
    ),
  })
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding('utf8').on('data', (text: string) => (said += text))
  return {
    gone: new Promise((resolve) => {
      child.once('close', () => {
        resolve()
      })
    }),
    kill: (signal) => child.kill(signal),
    said: () => said,
    port: () =>
      eventually('the keeper’s port', 20_000, () => {
        const found = /"port":(\d+),"msg":"listening"/.exec(said)?.[1]
        return found === undefined ? undefined : Number(found)
      }),
  }
}

interface Serving {
  readonly port: number
  /** Whether it has a certificate yet. */
  readonly serves: () => boolean
  /** What it has to trust, as its Secret had it LAG_MS ago. */
  readonly bundle: () => string
}

/** A server that allows every review, with the certificate of a Secret. */
async function serve(
  role: 'webhook' | 'broker',
  secret: RunningKeepers['secret'],
  stops: (() => Promise<void> | void)[],
): Promise<Serving> {
  const first = makeCertificates({ hosts: ['127.0.0.1'] })
  const server: HttpsServer = createServer(
    { cert: first.cert, key: first.key },
    (asked, response) => {
      let body = ''
      asked.on('data', (chunk: Buffer) => (body += chunk.toString()))
      asked.on('end', () => {
        // The next review needs a new handshake.
        response.setHeader('connection', 'close')
        const { request: review } = JSON.parse(body) as { request: { uid: string } }
        const answer = { uid: review.uid, allowed: true }
        response.end(
          JSON.stringify({
            ...{ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' },
            response: answer,
          }),
        )
      })
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  let current: Record<string, string> = {}
  let taken = ''
  let ended = false
  const follow = async (): Promise<void> => {
    const seen: Record<string, string> = await secret(role).catch(() => ({}))
    setTimeout(() => {
      const { 'tls.crt': cert = '', 'tls.key': key = '' } = seen
      current = seen
      if (cert !== '' && cert + key !== taken) {
        server.setSecureContext({ cert, key })
        taken = cert + key
      }
    }, LAG_MS)
    if (!ended)
      setTimeout(() => {
        void follow()
      }, POLL_MS)
  }
  stops.push(() => {
    ended = true
    server.closeAllConnections()
    server.close()
  })
  void follow()
  return {
    port: (server.address() as AddressInfo).port,
    serves: () => taken !== '',
    bundle: () => current['ca.crt'] ?? '',
  }
}

function shakeHands(port: number, ca: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect(
      { host: '127.0.0.1', port, ca, servername: 'nestgate-broker.svc' },
      () => {
        socket.destroy()
        resolve(undefined)
      },
    )
    socket.on('error', (error: Error) => {
      resolve(error.message)
    })
  })
}

/** A way to the API server on which each write is told of when it is done and not yet answered. */
async function killingProxy(
  server: string,
  ca: string,
  stops: (() => Promise<void> | void)[],
): Promise<{ url: string; ca: string; written: (tell: (path: string) => void) => void }> {
  const own = makeCertificates({ hosts: ['127.0.0.1'] })
  const agent = new Agent({ connect: { ca } })
  let tell: (path: string) => void = () => undefined
  const proxy = createServer({ cert: own.cert, key: own.key }, (asked, response) => {
    const chunks: Buffer[] = []
    asked.on('data', (chunk: Buffer) => chunks.push(chunk))
    asked.on('end', () => {
      const { method = 'GET', url = '/' } = asked
      const { authorization = '', 'content-type': type } = asked.headers
      const work = async (): Promise<void> => {
        const answer = await request(server + url, {
          ...{ method, dispatcher: agent },
          headers: { authorization, ...(type === undefined ? {} : { 'content-type': type }) },
          ...(chunks.length === 0 ? {} : { body: Buffer.concat(chunks) }),
        })
        const text = await answer.body.text()
        if (method !== 'GET' && answer.statusCode < 300) tell(url)
        response.writeHead(answer.statusCode, { 'content-type': 'application/json' }).end(text)
      }
      work().catch(() => response.destroy())
    })
  })
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
  stops.push(async () => {
    proxy.closeAllConnections()
    proxy.close()
    await agent.destroy()
  })
  const written = (to: (path: string) => void): void => {
    tell = to
  }
  return { url: `https://127.0.0.1:${(proxy.address() as AddressInfo).port}`, ca: own.ca, written }
}

/** What the manifests install, with the rights of docs/certificates.md, and webhooks for another namespace's ConfigMaps. */
function objects(webhookPort: number): object {
  const rbac = 'rbac.authorization.k8s.io'
  const name = 'nestgate-certificates'
  const bound = (kind: 'Role' | 'ClusterRole'): object => ({
    roleRef: { apiGroup: rbac, kind, name },
    subjects: [{ kind: 'ServiceAccount', name, namespace: SYSTEM }],
  })
  const namespace = SYSTEM
  const items = [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: SYSTEM } },
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: ASKED, labels: { asked: 'yes' } } },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace } },
    ...Object.values(SECRETS).map((secret) => ({
      ...{ apiVersion: 'v1', kind: 'Secret', type: 'Opaque' },
      metadata: { name: secret, namespace },
    })),
    {
      ...{ apiVersion: `${rbac}/v1`, kind: 'Role', metadata: { name, namespace } },
      rules: [
        {
          ...{ apiGroups: [''], resources: ['secrets'], verbs: ['get', 'update'] },
          resourceNames: Object.values(SECRETS),
        },
      ],
    },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: 'RoleBinding', metadata: { name, namespace } },
      ...bound('Role'),
    },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name } },
      rules: [
        {
          apiGroups: ['admissionregistration.k8s.io'],
          resources: KINDS.map((kind) => `${kind.toLowerCase()}s`),
          ...{ verbs: ['get', 'patch'], resourceNames: ['nestgate-kept'] },
        },
      ],
    },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: 'ClusterRoleBinding', metadata: { name } },
      ...bound('ClusterRole'),
    },
    ...KINDS.map((kind) => ({
      ...{ apiVersion: 'admissionregistration.k8s.io/v1', kind },
      metadata: { name: 'nestgate-kept' },
      webhooks: ['one', 'two'].map((one) => ({
        name: `${one}.nestgate.dev`,
        clientConfig: { url: `https://127.0.0.1:${webhookPort}/review` },
        rules: [
          {
            ...{ apiGroups: [''], apiVersions: ['v1'], resources: ['configmaps'] },
            operations: ['CREATE'],
          },
        ],
        namespaceSelector: { matchLabels: { asked: 'yes' } },
        ...{ failurePolicy: 'Fail', sideEffects: 'None', admissionReviewVersions: ['v1'] },
      })),
    })),
  ]
  return { apiVersion: 'v1', kind: 'List', items }
}
