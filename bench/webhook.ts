/**
 * The webhook over HTTPS with keep-alive: `npm run bench -- webhook`. The real process, as `main.ts` starts it, reviews pods as a
 * ReplicaSet makes them, of 1 to 20 containers, beside a server of Node alone that answers the same requests with a fixed review. The
 * processor time of the server's process says how many reviews one core makes, whatever else the machine does.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { Pool } from 'undici'
import { ROOT } from '../scripts/image.ts'
import { eventually, run } from '../scripts/run.ts'
import { makeCertificates } from '../test/support/certificates.ts'
import { freePort } from '../test/support/free-port.ts'
import { admit } from '../test/support/pod-admission.ts'
import type { Json } from '../test/support/pod-admission.ts'
import { reviewOf } from '../test/support/reviews.ts'

const SIZES = [1, 5, 20] as const
const CONNECTIONS = [1, 16] as const
const WARMUP_REVIEWS = 3000
const START_LIMIT_MS = 20_000
/** Kernel ticks of /proc/PID/stat in a second (sysconf(_SC_CLK_TCK), 100 on every Linux that Node runs on). */
const TICKS = 100

/** A pod as the API server sends it to the webhook, of so many containers. */
function podOf(containers: number): Json {
  const probe = { path: '/healthz', port: 8080, scheme: 'HTTP' }
  return admit(
    {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        generateName: 'agents-6d4b9c7f5d-',
        labels: { app: 'agents', 'pod-template-hash': '6d4b9c7f5d' },
        ownerReferences: [
          {
            apiVersion: 'apps/v1',
            kind: 'ReplicaSet',
            name: 'agents-6d4b9c7f5d',
            uid: '5c1d1b56-3f0f-4f5e-9c45-0b3a1f6f4c55',
            controller: true,
            blockOwnerDeletion: true,
          },
        ],
      },
      spec: {
        securityContext: { runAsUser: 1000, runAsGroup: 1000, runAsNonRoot: true },
        volumes: [
          { name: 'data', emptyDir: {} },
          { name: 'settings', configMap: { name: 'agents' } },
        ],
        containers: Array.from({ length: containers }, (_, index) => ({
          name: `agent-${index}`,
          image: 'registry.example/team/agent:1.27.3',
          env: Array.from({ length: 8 }, (_value, place) => ({
            name: `SETTING_${place}`,
            value: `the value of setting ${place}`,
          })),
          ports: [{ name: `http-${index}`, containerPort: 9000 + index, protocol: 'TCP' }],
          resources: {
            requests: { cpu: '100m', memory: '128Mi' },
            limits: { cpu: '1', memory: '512Mi' },
          },
          volumeMounts: [
            { name: 'data', mountPath: '/data' },
            { name: 'settings', mountPath: '/etc/agent', readOnly: true },
          ],
          livenessProbe: { httpGet: probe, periodSeconds: 10, timeoutSeconds: 1 },
          readinessProbe: { httpGet: probe, periodSeconds: 5, timeoutSeconds: 1 },
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
        })),
      },
    },
    '1.33',
  )
}

interface Server {
  readonly name: string
  readonly child: ChildProcess
  readonly port: number
  readonly path: string
}

interface Figures {
  readonly p50: number
  readonly p99: number
  readonly perSecond: number
  /** Processor time of the server for one review, in microseconds. */
  readonly cpu: number
}

/** As the chart starts it (manifests/chart/templates/webhook/deployment.yaml). */
const WEBHOOK_NODE_FLAGS = [
  '--disable-sigusr1',
  '--max-old-space-size=128',
  '--max-semi-space-size=16',
]

/** @param built - the compiled files, which the image has */
async function startServers(folder: string, built: string, ca: string): Promise<readonly Server[]> {
  const cert = join(folder, 'tls.crt')
  const key = join(folder, 'tls.key')
  const config = {
    tls: { certFile: cert, keyFile: key },
    sidecar: {
      image: 'registry.example/nestgate:1',
      mode: 'native',
      brokerUrl: 'https://nestgate-broker.nestgate-system.svc:8443',
      cluster: 'local',
      brokerCaFile: join(folder, 'ca.crt'),
    },
  }
  const servers = [
    {
      name: 'Node alone',
      args: (port: number) => [join(ROOT, 'bench', 'webhook-floor.ts'), cert, key, String(port)],
    },
    {
      name: 'webhook',
      args: (port: number) => {
        const file = join(folder, 'webhook.yaml')
        writeFileSync(file, JSON.stringify({ ...config, listen: { host: '127.0.0.1', port } }))
        return [...WEBHOOK_NODE_FLAGS, join(built, 'webhook', 'main.js'), '--config', file]
      },
    },
  ]
  return Promise.all(
    servers.map(async ({ name, args }) => {
      const port = await freePort()
      // Its log goes to a file, as a container's does.
      const log = openSync(join(folder, `${port}.log`), 'w')
      const child = spawn('node', args(port), { stdio: ['ignore', log, 'inherit'] })
      const pool = new Pool(`https://localhost:${port}`, { connect: { ca } })
      await eventually(`the start of ${name}`, START_LIMIT_MS, async () => {
        const { body } = await pool.request({ method: 'GET', path: '/healthz' })
        await body.dump()
        return true
      })
      await pool.close()
      return { name, child, port, path: '/mutate' }
    }),
  )
}

async function measure(
  { child, port, path }: Server,
  ca: string,
  body: Buffer,
  { connections, seconds }: { readonly connections: number; readonly seconds: number },
): Promise<Figures> {
  const pool = new Pool(`https://localhost:${port}`, {
    connect: { ca },
    connections,
    pipelining: 1,
  })
  const times: number[] = []
  const review = async (): Promise<void> => {
    const from = performance.now()
    const answer = await pool.request({
      method: 'POST',
      path,
      headers: { 'content-type': 'application/json' },
      body,
    })
    await answer.body.dump()
    if (answer.statusCode !== 200) throw new Error(`answered ${answer.statusCode}`)
    times.push(performance.now() - from)
  }
  const lanes = async (goOn: () => boolean): Promise<void> => {
    await Promise.all(
      Array.from({ length: connections }, async () => {
        while (goOn()) await review()
      }),
    )
  }
  await lanes(() => times.length < WARMUP_REVIEWS)
  times.length = 0
  const cpuBefore = cpuSeconds(child)
  const from = performance.now()
  await lanes(() => performance.now() - from < seconds * 1000)
  const took = (performance.now() - from) / 1000
  const cpu = ((cpuSeconds(child) - cpuBefore) / times.length) * 1e6
  await pool.close()
  const perSecond = times.length / took
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.floor(times.length * share)] ?? Number.NaN
  return { p50: at(0.5), p99: at(0.99), perSecond, cpu }
}

/** Processor time that a process has used, in seconds: utime and stime of /proc/PID/stat (proc(5)). */
function cpuSeconds({ pid }: ChildProcess): number {
  const fields =
    readFileSync(`/proc/${pid ?? 0}/stat`, 'utf8')
      .split(') ')
      .at(-1)
      ?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / TICKS
}

function residentMib({ pid }: ChildProcess): number {
  const status = readFileSync(`/proc/${pid ?? 0}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024
}

/** Measures and describes. @param rounds - of each server in turn */
export async function webhookSection(rounds: number, seconds: number): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'nestgate-bench-'))
  const { ca, cert, key } = makeCertificates({ hosts: ['localhost'] })
  writeFileSync(join(folder, 'tls.crt'), cert)
  writeFileSync(join(folder, 'tls.key'), key, { mode: 0o600 })
  writeFileSync(join(folder, 'ca.crt'), ca)
  // Below the project, where the compiled files find its packages.
  mkdirSync(join(ROOT, 'build'), { recursive: true })
  const built = mkdtempSync(join(ROOT, 'build', 'bench-'))
  await run('npm', ['run', 'build', '--', '--outDir', built], { cwd: ROOT })
  const servers = await startServers(folder, built, ca)
  const rows: string[] = []
  const memory: number[] = []
  const webhook = servers.find(({ name }) => name === 'webhook')
  try {
    for (const size of SIZES) {
      const body = Buffer.from(JSON.stringify(reviewOf(podOf(size))))
      for (const connections of CONNECTIONS) {
        const figures = new Map<Server, Figures[]>(servers.map((server) => [server, []]))
        for (let round = 0; round < rounds; round += 1) {
          for (const server of servers)
            figures.get(server)?.push(await measure(server, ca, body, { connections, seconds }))
          if (webhook !== undefined) memory.push(residentMib(webhook.child))
        }
        for (const [{ name }, all] of figures)
          rows.push(
            `| ${size} (${(body.length / 1024).toFixed(1)}) | ${connections} | ${name} | ${cells(all)} |`,
          )
      }
    }
  } finally {
    for (const { child } of servers) {
      child.kill('SIGTERM')
      if (child.exitCode === null) await once(child, 'close')
    }
    for (const path of [folder, built]) rmSync(path, { recursive: true, force: true })
  }
  return `## The webhook

\`npm run bench -- webhook\`: pods as a ReplicaSet makes them, reviewed over HTTPS with keep-alive by the process of \`webhook/main.ts\`, which writes its log line for each; ${rounds} rounds of ${seconds} s, median
(lowest–highest), on ${cpus().length} cores (${cpus()[0]?.model.trim() ?? 'unknown'}) that the client shares, Node ${process.versions.node}. *Node alone* reads and parses the same requests and answers a fixed review.
*on a core* is 1 s divided by the processor time that the server's process used for one review, all its threads counted: with 16 connections it is what a core can do.

| containers (KiB of review) | connections | server | p50 ms | p99 ms | reviews/s | on a core |
|---|---|---|---|---|---|---|
${rows.join('\n')}

Resident memory of the webhook after each of these rounds, in MiB: ${memory.map((mib) => mib.toFixed(0)).join(', ')}.
`
}

function cells(all: readonly Figures[]): string {
  const spread = (values: readonly number[], digits: number): string => {
    const sorted = [...values].sort((a, b) => a - b)
    const middle = sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
    const [low, high] = [sorted[0] ?? Number.NaN, sorted.at(-1) ?? Number.NaN]
    return `${middle.toFixed(digits)} (${low.toFixed(digits)}–${high.toFixed(digits)})`
  }
  return [
    spread(
      all.map(({ p50 }) => p50),
      2,
    ),
    spread(
      all.map(({ p99 }) => p99),
      2,
    ),
    spread(
      all.map(({ perSecond }) => perSecond),
      0,
    ),
    spread(
      all.map(({ cpu }) => 1e6 / cpu),
      0,
    ),
  ].join(' | ')
}
