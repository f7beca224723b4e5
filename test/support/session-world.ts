/**
 * A real broker as a process of its own, with the fake kubelet behind it and a direct client's token for it: what can be seen of sessions from
 * outside, and what they leave on the broker's disk.
 */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { makeCertificates } from './certificates.ts'
import { startKubelet } from './fake-kubelet.ts'
import type { FakeKubelet } from './fake-kubelet.ts'
import { freePort } from './free-port.ts'
import type { Address } from './remote-clients.ts'
import { readRecording, readSessionEntries, readSessions } from './remote-recording.ts'
import type { ReadRecording, ReadSession } from './remote-recording.ts'
import { AUDIENCE, mintRunnerToken, startRunnerIssuer } from './runner-issuer.ts'
import { startUpstream } from './upstream.ts'
import type { Upstream } from './upstream.ts'

const BROKER = new URL('../../broker/main.ts', import.meta.url).pathname
const READY_LIMIT_MS = 30_000
const POLL_MS = 20
const UNTIL_LIMIT_MS = 10_000
export const NAMESPACE = 'agents'

/** Rules that a world has unless a test gives others; `ci:` is the client's subject. */
export const OPEN_POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list, watch], resources: ['*']}, effect: allow}
- {id: debug, match: {verbs: [update, patch], resources: [pods/ephemeralcontainers]}, effect: allow}
- {id: sessions, match: {verbs: [connect], resources: [pods/exec, pods/attach, pods/portforward, pods/proxy, services/proxy, nodes/proxy]}, effect: allow}
`

/** People of the broker's API, by role; each one's token is `token-ROLE`. */
const ROLES = ['reviewer', 'auditor', 'admin'] as const

/** See the head of the file. */
export interface SessionWorld {
  readonly upstream: Upstream
  readonly kubelet: FakeKubelet
  readonly dataDir: string
  readonly port: number
  readonly ca: string
  readonly pid: number
  /** What the broker has said. */
  readonly said: () => string
  /** Where a session of pod `p` is asked for. */
  address(sub: string, query?: string, more?: Readonly<Record<string, string>>): Address
  /** Header by which another client says who it is: one may have so many requests open. */
  as(name: string): Promise<Readonly<Record<string, string>>>
  /** A kubeconfig for the broker as the client. */
  readonly kubeconfig: string
  /** The broker's own API. */
  api(
    role: (typeof ROLES)[number],
    path: string,
    body?: object,
  ): Promise<{ readonly status: number; readonly text: string }>
  sessions(): readonly ReadSession[]
  /** The newest session, once it has one of these states; anything but `running` when left out. */
  settled(where?: (session: ReadSession) => boolean): Promise<ReadSession>
  recording(id: string): ReadRecording
  entries(id: string): ReturnType<typeof readSessionEntries>
  /** Resident memory of the broker, in bytes. */
  rss(): number
  kill(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>
  /** Starts it anew, on the same data. */
  start(): Promise<void>
  close(): Promise<void>
}

/** Starts one. @param policy - YAML; @param settings - more of the broker's configuration */
export async function startSessionWorld(
  policy = OPEN_POLICY,
  settings: object = {},
): Promise<SessionWorld> {
  const dir = mkdtempSync(join(tmpdir(), 'nestgate-sessions-'))
  const file = (name: string, text: string): string => {
    writeFileSync(join(dir, name), text, { mode: 0o600 })
    return join(dir, name)
  }
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  const caFile = file('ca.crt', certificates.ca)
  const upstream = await startUpstream()
  const kubelet = startKubelet(upstream)
  const issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
  const token = await mintRunnerToken(issuer, { sub: 'repo:shop' })
  const port = await freePort()
  const dataDir = join(dir, 'data')
  mkdirSync(dataDir, { mode: 0o700 })
  const config = {
    listen: { host: '127.0.0.1', port },
    tls: {
      certFile: file('tls.crt', certificates.cert),
      keyFile: file('tls.key', certificates.key),
    },
    ...{ dataDir, policyFile: file('policy.yaml', policy) },
    clusters: [
      {
        ...{ name: 'test', server: upstream.url, caFile: upstream.caFile },
        credential: { tokenFile: upstream.tokenFile },
        serviceAccountTokens: { verify: 'jwks', issuer: upstream.issuer },
      },
    ],
    oidc: [{ name: 'ci', issuer: issuer.issuer, audiences: [AUDIENCE], caFile }],
    people: ROLES.map((role) => ({
      ...{ name: role, roles: [role] },
      tokenSha256: createHash('sha256').update(`token-${role}`).digest('hex'),
    })),
    ...settings,
  }
  const configFile = file('broker.json', JSON.stringify(config))
  const origin = `https://127.0.0.1:${port}`
  const kubeconfig = file(
    'kubeconfig',
    JSON.stringify({
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
      clusters: [
        {
          name: 'c',
          cluster: { server: `${origin}/clusters/test`, 'certificate-authority': caFile },
        },
      ],
      users: [{ name: 'u', user: { token } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u', namespace: NAMESPACE } }],
    }),
  )
  const broker = new Broker(configFile, join(dir, 'cache'))
  const client = new Agent({ connect: { ca: certificates.ca } })
  try {
    await broker.start()
  } catch (error) {
    await Promise.all([issuer.close(), upstream.close(), client.destroy()])
    rmSync(dir, { recursive: true })
    throw error
  }
  const world: SessionWorld = {
    ...{ upstream, kubelet, dataDir, port, kubeconfig, ca: certificates.ca },
    get pid() {
      return broker.pid
    },
    said: () => broker.said,
    address: (sub, query = '', more = {}) => ({
      ...{ port, ca: certificates.ca, query },
      path: `/clusters/test/api/v1/namespaces/${NAMESPACE}/pods/p/${sub}`,
      headers: { authorization: `Bearer ${token}`, ...more },
    }),
    async as(name) {
      return { authorization: `Bearer ${await mintRunnerToken(issuer, { sub: name })}` }
    },
    async api(role, path, body) {
      const answer = await request(`${origin}${path}`, {
        ...{ dispatcher: client, method: body === undefined ? 'GET' : 'POST' },
        headers: {
          authorization: `Bearer token-${role}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      })
      return { status: answer.statusCode, text: await answer.body.text() }
    },
    sessions: () => readSessions(dataDir),
    settled: (where = ({ state }) => state !== 'running') =>
      until('a session', () => {
        const newest = readSessions(dataDir).at(-1)
        return newest !== undefined && where(newest) ? newest : undefined
      }),
    recording: (id) => readRecording(dataDir, id),
    entries: (id) => readSessionEntries(dataDir, id),
    rss: () => residentBytes(broker.pid),
    kill: (signal) => broker.end(signal),
    start: () => broker.start(),
    async close() {
      await broker.end('SIGTERM')
      for (const socket of kubelet.sockets) socket.destroy()
      await Promise.all([issuer.close(), upstream.close(), client.destroy()])
      rmSync(dir, { recursive: true })
    },
  }
  return world
}

class Broker {
  readonly #configFile: string
  readonly #cache: string
  #child: ChildProcess | undefined
  said = ''

  constructor(configFile: string, cache: string) {
    this.#configFile = configFile
    this.#cache = cache
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  async start(): Promise<void> {
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('NESTGATE_'))
    const child = spawn(process.execPath, [BROKER, '--config', this.#configFile], {
      env: { ...Object.fromEntries(inherited), NODE_COMPILE_CACHE: this.#cache },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child = child
    this.said = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (this.said += text))
    await until(
      'the broker',
      () => {
        if (child.exitCode !== null) throw new Error(`the broker ended: ${this.said}`)
        return this.said.includes('"msg":"listening"') ? true : undefined
      },
      READY_LIMIT_MS,
    )
  }

  async end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const child = this.#child
    if (child?.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'close')
    child.kill(signal)
    await gone
  }
}

/** Waits until something is there. @throws Error naming it, when it takes too long */
export async function until<T>(
  what: string,
  look: () => T | undefined,
  limitMs = UNTIL_LIMIT_MS,
): Promise<T> {
  const startMs = performance.now()
  for (;;) {
    const found = look()
    if (found !== undefined) return found
    if (performance.now() - startMs > limitMs) throw new Error(`${what} did not come`)
    await sleep(POLL_MS)
  }
}

function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(match?.[1] ?? 0) * 1024
}
