/** The demo on the real thing: a cluster that a kubeconfig names, or a control plane started from KUBEBUILDER_ASSETS. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parse } from 'yaml'
import { z } from 'zod'
import { openAdmin } from './cluster.ts'
import type { AdminCredential, AuditLine, DemoCluster } from './cluster.ts'
import { freePort, waitUntil } from './processes.ts'

/** A control plane needs this long to come up on a slow machine, in milliseconds. */
const START_LIMIT_MS = 60_000

const kubeconfigSchema = z.object({
  'current-context': z.string(),
  contexts: z.array(
    z.object({ name: z.string(), context: z.object({ cluster: z.string(), user: z.string() }) }),
  ),
  clusters: z.array(
    z.object({
      name: z.string(),
      cluster: z.object({ server: z.string(), 'certificate-authority-data': z.string() }),
    }),
  ),
  users: z.array(
    z.object({
      name: z.string(),
      user: z.object({
        token: z.string().optional(),
        'client-certificate-data': z.string().optional(),
        'client-key-data': z.string().optional(),
      }),
    }),
  ),
})

/** The cluster of a kubeconfig's current context; its user must be an administrator by token or certificate. */
export function clusterOfKubeconfig(file: string): DemoCluster {
  const config = kubeconfigSchema.parse(parse(readFileSync(file, 'utf8')))
  const context = config.contexts.find(({ name }) => name === config['current-context'])?.context
  const cluster = config.clusters.find(({ name }) => name === context?.cluster)?.cluster
  const user = config.users.find(({ name }) => name === context?.user)?.user
  if (cluster === undefined || user === undefined)
    throw new Error(`${file}: the current context is incomplete`)
  return {
    description: `the cluster of ${file}`,
    server: cluster.server,
    ca: decode(cluster['certificate-authority-data']),
    admin: adminOf(user, file),
    close: () => Promise.resolve(),
  }
}

function adminOf(
  user: z.infer<typeof kubeconfigSchema>['users'][number]['user'],
  file: string,
): AdminCredential {
  const { token, 'client-certificate-data': cert, 'client-key-data': key } = user
  if (token !== undefined) return { token }
  if (cert !== undefined && key !== undefined) return { cert: decode(cert), key: decode(key) }
  throw new Error(`${file}: the user has neither a token nor an embedded client certificate`)
}

function decode(text: string): string {
  return Buffer.from(text, 'base64').toString()
}

/** Starts etcd and kube-apiserver from a folder of binaries, as Kubernetes' own test kits do. */
export async function startControlPlane(assets: string, dir: string): Promise<DemoCluster> {
  const [etcdPort, peerPort, port] = [await freePort(), await freePort(), await freePort()]
  const token = randomUUID()
  const auditFile = join(dir, 'audit.jsonl')
  mkdirSync(join(dir, 'pki'), { recursive: true })
  writeFileSync(join(dir, 'tokens.csv'), `${token},admin,admin,system:masters\n`, { mode: 0o600 })
  writeFileSync(join(dir, 'audit.yaml'), AUDIT_POLICY)
  const etcd = start(dir, join(assets, 'etcd'), [
    `--data-dir=${join(dir, 'etcd')}`,
    `--listen-client-urls=http://127.0.0.1:${etcdPort}`,
    `--advertise-client-urls=http://127.0.0.1:${etcdPort}`,
    `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
    '--unsafe-no-fsync',
  ])
  const key = join(dir, 'service-accounts.key')
  writeFileSync(key, await privateKeyPem(), { mode: 0o600 })
  const apiserver = start(dir, join(assets, 'kube-apiserver'), [
    `--etcd-servers=http://127.0.0.1:${etcdPort}`,
    `--secure-port=${port}`,
    '--bind-address=127.0.0.1',
    `--cert-dir=${join(dir, 'pki')}`,
    `--token-auth-file=${join(dir, 'tokens.csv')}`,
    '--authorization-mode=RBAC',
    '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
    `--service-account-key-file=${key}`,
    `--service-account-signing-key-file=${key}`,
    '--disable-admission-plugins=ServiceAccount',
    '--service-cluster-ip-range=10.96.0.0/16',
    `--audit-policy-file=${join(dir, 'audit.yaml')}`,
    `--audit-log-path=${auditFile}`,
  ])
  const caFile = join(dir, 'pki', 'apiserver.crt')
  const cluster: DemoCluster = {
    description: `a real control plane from ${assets}`,
    server: `https://127.0.0.1:${port}`,
    get ca() {
      return readFileSync(caFile, 'utf8')
    },
    admin: { token },
    audit: () => Promise.resolve(readAudit(auditFile)),
    close: () => stopAll([apiserver, etcd]),
  }
  try {
    await waitUntil('the API server', START_LIMIT_MS, () => isReady(cluster))
  } catch (error) {
    await cluster.close()
    throw error
  }
  return cluster
}

const AUDIT_POLICY = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
`

async function isReady(cluster: DemoCluster): Promise<boolean> {
  const admin = openAdmin(cluster)
  try {
    const { status } = await admin.send('GET', '/api/v1/namespaces/default')
    return status === 200
  } finally {
    await admin.close()
  }
}

async function privateKeyPem(): Promise<string> {
  const { exportPKCS8, generateKeyPair } = await import('jose')
  const { privateKey } = await generateKeyPair('RS256', { extractable: true })
  return exportPKCS8(privateKey)
}

function start(dir: string, command: string, args: readonly string[]): ChildProcess {
  const name = command.split('/').at(-1) ?? 'process'
  const log = openSync(join(dir, `${name}.log`), 'a')
  return spawn(command, args, { stdio: ['ignore', log, log] })
}

async function stopAll(children: readonly ChildProcess[]): Promise<void> {
  for (const child of children) {
    if (child.exitCode !== null) continue
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGTERM')
    await ended
  }
}

const auditSchema = z.object({
  auditID: z.string(),
  user: z.object({ username: z.string() }),
  impersonatedUser: z.object({ username: z.string() }).optional(),
})

function readAudit(file: string): readonly AuditLine[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  return lines.flatMap((line) => {
    if (line === '') return []
    const { auditID, user, impersonatedUser } = auditSchema.parse(JSON.parse(line))
    if (impersonatedUser === undefined) return []
    return [{ auditId: auditID, user: user.username, impersonatedUser: impersonatedUser.username }]
  })
}
