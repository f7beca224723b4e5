/**
 * Starts the API server of this folder (main.go): Kubernetes' own library code of the newest release that Debian has. The binary
 * is NESTGATE_MODERN_APISERVER, or is built by scripts/modern-apiserver.sh into NESTGATE_MODERN_FOLDER (build/modern).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { attempt } from '../../scripts/run.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'

/** Exit code of the script where packages are missing. */
const NO_PACKAGES = 69
/** How long the server may take to start, in milliseconds: it waits 20 s for an issuer that does not answer. */
const START_LIMIT_MS = 30_000
/** How long an audit record may take to be in the file, in milliseconds. */
const AUDIT_LIMIT_MS = 5_000
const POLL_MS = 20
/** How much of what the server says an error repeats. */
const SAID_LINES = 14
const AUDIT_POLICY = 'apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n'

/** The token of somebody who may do everything. */
export const ADMIN = 'admin-token'

/** What was answered. */
export interface Answer {
  readonly status: number
  readonly text: string
}

/** A record of the audit log; what is read of it. */
export interface AuditEvent {
  readonly auditID: string
  readonly stage: string
  readonly verb: string
  readonly requestURI: string
  readonly user: AuditUser
  readonly impersonatedUser?: AuditUser
  readonly authenticationMetadata?: { readonly impersonationConstraint?: string }
  readonly responseStatus?: { readonly code: number }
}

interface AuditUser {
  readonly username: string
  readonly uid?: string
  readonly groups?: readonly string[]
  readonly extra?: Readonly<Record<string, readonly string[]>>
}

/** What is sent. */
export interface Sent {
  readonly headers?: Readonly<Record<string, string | string[]>>
  /** As JSON. */
  readonly body?: object
  readonly contentType?: string
}

/** By user: the token, and the user's groups. */
export type Tokens = Readonly<Record<string, readonly [token: string, ...groups: string[]]>>

/** See the head of the file. */
export interface ApiServer {
  readonly url: string
  readonly caFile: string
  send(method: string, path: string, sent?: Sent): Promise<Answer>
  /** As the administrator, who must succeed. */
  admin(method: string, path: string, body?: object): Promise<void>
  /** The last record of a request, once its answer is complete. */
  audit(auditId: string): Promise<AuditEvent>
  close(): Promise<void>
}

/** Where the binary is; builds it where it is missing. */
export async function modernBinary(): Promise<string> {
  const given = process.env['NESTGATE_MODERN_APISERVER']
  if (given !== undefined) return given
  const script = join(import.meta.dirname, '../../scripts/modern-apiserver.sh')
  const folder =
    process.env['NESTGATE_MODERN_FOLDER'] ?? join(import.meta.dirname, '../../build/modern')
  const { code, stdout, stderr } = await attempt(script, [folder])
  if (code === NO_PACKAGES) throw new Error(`this machine cannot build it: ${stderr.trim()}`)
  if (code !== 0) throw new Error(`${script} failed with code ${code}: ${stderr.slice(-2000)}`)
  return stdout.trim()
}

/**
 * Starts one.
 *
 * @param binary - as {@link modernBinary} says
 * @param options - `args` beside those of serving, audit and tokens; `tokens` beside the administrator's;
 *   `certificates` where others must know them before
 * @returns rejects with what the server said, when it does not start
 */
export async function startApiServer(
  binary: string,
  options: {
    readonly args?: readonly string[]
    readonly tokens?: Tokens
    readonly certificates?: Certificates
  } = {},
): Promise<ApiServer> {
  const dir = await mkdtemp(join(tmpdir(), 'nestgate-modern-'))
  const file = async (name: string, text: string): Promise<string> => {
    await writeFile(join(dir, name), text, { mode: 0o600 })
    return join(dir, name)
  }
  const { certificates = makeCertificates({ hosts: ['127.0.0.1'] }) } = options
  const { ca, cert, key } = certificates
  const users = { admin: [ADMIN, 'system:masters'], ...options.tokens }
  const lines = Object.entries(users).map(
    ([user, [token, ...groups]]) => `${token},${user},${user},"${groups.join(',')}"\n`,
  )
  const log = join(dir, 'audit.log')
  const child = spawn(
    binary,
    [
      '--secure-port=0',
      `--tls-cert-file=${await file('tls.crt', cert)}`,
      `--tls-private-key-file=${await file('tls.key', key)}`,
      `--token-auth-file=${await file('tokens.csv', lines.join(''))}`,
      `--audit-policy-file=${await file('audit.yaml', AUDIT_POLICY)}`,
      `--audit-log-path=${log}`,
      ...(options.args ?? []),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, GOMAXPROCS: '1' } },
  )
  const ended = once(child, 'exit')
  const url = await addressOf(child, ended)
  const caFile = await file('ca.crt', ca)
  const send: ApiServer['send'] = (method, path, sent = {}) => exchange(ca, url, method, path, sent)
  return {
    ...{ url, caFile, send },
    async admin(method, path, body) {
      const headers = { authorization: `Bearer ${ADMIN}` }
      const answer = await send(method, path, { headers, ...(body === undefined ? {} : { body }) })
      if (answer.status >= 300) throw new Error(`${method} ${path}: ${answer.text}`)
    },
    async audit(auditId) {
      const end = Date.now() + AUDIT_LIMIT_MS
      for (;;) {
        const events = (await readFile(log, 'utf8'))
          .split('\n')
          .filter((line) => line.includes(auditId))
          .map((line) => JSON.parse(line) as AuditEvent)
        const found = events.findLast((event) => event.stage === 'ResponseComplete')
        if (found !== undefined) return found
        if (Date.now() > end) throw new Error(`no record of ${auditId}`)
        await setTimeout(POLL_MS)
      }
    },
    async close() {
      child.kill('SIGKILL')
      await ended
      await rm(dir, { recursive: true })
    },
  }
}

async function addressOf(
  child: ReturnType<typeof spawn>,
  ended: Promise<unknown>,
): Promise<string> {
  let said = ''
  let errors = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-4000)
  })
  const started = new Promise<string>((resolve) => {
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      said += text
      const url = /serving (https:\/\/\S+)\n/.exec(said)?.[1]
      if (url !== undefined) resolve(url)
    })
  })
  const failed = (why: string) => (): never => {
    child.kill('SIGKILL')
    throw new Error(`the API server ${why}: ${errors.split('\n').slice(-SAID_LINES).join('\n')}`)
  }
  const limit = new AbortController()
  try {
    return await Promise.race([
      started,
      ended.then(failed('ended')),
      setTimeout(START_LIMIT_MS, undefined, { signal: limit.signal }).then(failed('did not start')),
    ])
  } finally {
    limit.abort()
  }
}

function exchange(
  ca: string,
  url: string,
  method: string,
  path: string,
  { headers = {}, body, contentType = 'application/json' }: Sent,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const type = body === undefined ? {} : { 'content-type': contentType }
    // a connection of its own: what one test leaves behind is not the next one's
    const sent = request(url + path, { method, ca, agent: false, headers: { ...type, ...headers } })
    sent.on('error', reject)
    sent.on('upgrade', (_response, socket) => {
      socket.destroy()
      resolve({ status: 101, text: '' })
    })
    sent.on('response', (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, text })
      })
      response.on('error', reject)
    })
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

/** Headers that open a WebSocket as kubectl does. */
export const WEBSOCKET = {
  connection: 'Upgrade',
  upgrade: 'websocket',
  'sec-websocket-version': '13',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'sec-websocket-protocol': 'v5.channel.k8s.io',
} as const
