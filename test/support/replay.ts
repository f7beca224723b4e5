/**
 * What a replay of a known fault needs: a gateway in one of the modes, two kinds of callers, requests as raw bytes that no client
 * tidies up, and an upstream as witness of whom each request acted as.
 */
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { connect as connectPlain } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { expect } from 'chai'
import { decodeJwt } from 'jose'
import type { JWTPayload } from 'jose'
import type { CredentialMode } from '../../broker/credentials/credential.ts'
import { makeCertificates } from './certificates.ts'
import { startGateway } from './running-gateway.ts'
import type { RunningGateway } from './running-gateway.ts'
import { mintRunnerToken, startRunnerIssuer } from './runner-issuer.ts'
import { makeSidecarKey } from './sidecar-keys.ts'
import { isBrokers, startUpstream } from './upstream.ts'
import type { Seen, Upstream } from './upstream.ts'

/** Who calls: a sidecar for a process of its pod, or a pipeline by itself. */
export const CALLERS = ['sidecar', 'pipeline'] as const
export type CallerKind = (typeof CALLERS)[number]
/** Each mode of credentials with each kind of caller. */
export const COMBINATIONS = (['impersonation', 'issuer'] as const).flatMap((mode) =>
  CALLERS.map((caller) => ({ mode, caller })),
)

const ACTORS = {
  sidecar: { user: 'system:serviceaccount:agents:worker', sub: 'serviceaccount:agents:worker' },
  pipeline: { user: 'ci:repo:shop', sub: 'subject:ci:repo:shop' },
} as const
const OWN_TOKEN = 'Bearer the-brokers-own-token'
/** How long a connection may take to end by itself, in milliseconds, before it is looked at as it is. */
const SETTLE_MS = 400

/** What came back on a raw connection. */
export interface RawAnswer {
  /** Status codes of the answers, in order. */
  readonly statuses: readonly number[]
  readonly text: string
  /** Whether the broker ended the connection. */
  readonly ended: boolean
}

/** See the head of the file. */
export interface Replay {
  readonly upstream: Upstream
  readonly server: RunningGateway
  /** Headers by which a caller authenticates, as lines. */
  headers(caller: CallerKind): Promise<readonly string[]>
  /** Sends a head with the caller's headers and more lines, and a body as it is. */
  send(
    caller: CallerKind,
    startLine: string,
    more?: readonly string[],
    body?: string,
  ): Promise<RawAnswer>
  /** Sends bytes as they are. */
  raw(bytes: string): Promise<RawAnswer>
  /** A connection that stays open; with `isStubborn`, also after the broker has ended its half. */
  open(
    bytes: string,
    isStubborn?: boolean,
  ): Promise<{ readonly socket: TLSSocket; readonly text: () => string }>
  pipelineToken(claims?: JWTPayload): Promise<string>
  readonly sidecarToken: string
  readonly key: Awaited<ReturnType<typeof makeSidecarKey>>
  /** What reached the upstream, the broker's own questions apart. */
  seen(): readonly Seen[]
  /** Fails unless all that was seen acted as the caller, and as nobody else: never as the broker. */
  expectActor(caller: CallerKind, least?: number): void
  expectNothing(): void
  close(): Promise<void>
}

/** Starts one for the cluster `test`. */
export async function startReplay(mode: CredentialMode, policy: string): Promise<Replay> {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  const caFile = join(tmpdir(), `nestgate-replay-${randomUUID()}.pem`)
  writeFileSync(caFile, certificates.ca)
  const upstream = await startUpstream()
  const issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
  const sidecarToken = await upstream.token()
  const key = await makeSidecarKey()
  const server = await startGateway({
    ...{ upstream, certificates, key, token: sidecarToken, policy, mode },
    oidc: [{ name: 'ci', issuer: issuer.issuer, audiences: ['nestgate'], caFile }],
  })
  const pipelineToken = (claims: JWTPayload = {}): Promise<string> =>
    mintRunnerToken(issuer, { sub: 'repo:shop', ...claims })
  const open = async (
    bytes: string,
    isStubborn = false,
  ): Promise<{ socket: TLSSocket; text: () => string }> => {
    const plain = connectPlain({ port: server.port, host: '127.0.0.1', allowHalfOpen: isStubborn })
    const options = { socket: plain, host: '127.0.0.1', ca: certificates.ca }
    const socket = connect({ ...options, ...{ allowHalfOpen: isStubborn } })
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    socket.on('error', () => undefined)
    await new Promise((resolve) => socket.once('secureConnect', resolve))
    socket.write(bytes, 'latin1')
    return { socket, text: () => text }
  }
  const raw = async (bytes: string): Promise<RawAnswer> => {
    const { socket, text } = await open(bytes)
    const ended = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => {
        resolve(false)
      }, SETTLE_MS)
      socket.once('close', () => {
        clearTimeout(timer)
        resolve(true)
      })
    })
    socket.destroy()
    const statuses = [...text().matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, status]) =>
      Number(status),
    )
    return { statuses, text: text(), ended }
  }
  const headers = async (caller: CallerKind): Promise<readonly string[]> =>
    caller === 'sidecar'
      ? [
          `Authorization: Bearer ${sidecarToken}`,
          `Nestgate-Agent: ${await key.tag()}`,
          'Nestgate-Hold: wait',
        ]
      : [`Authorization: Bearer ${await pipelineToken()}`]
  const seen = (): readonly Seen[] => upstream.seen.filter((one) => !isBrokers(one.headers))
  return {
    ...{ upstream, server, headers, raw, open, pipelineToken, sidecarToken, key, seen },
    async send(caller, startLine, more = [], body = '') {
      const lines = [startLine, 'Host: broker', ...(await headers(caller)), ...more]
      return raw(`${lines.join('\r\n')}\r\n\r\n${body}`)
    },
    expectActor(caller, least = 1) {
      expect(upstream.seen.length, 'requests that reached the upstream').to.be.at.least(least)
      for (const one of upstream.seen) expectActed(one, mode, caller)
    },
    expectNothing() {
      expect(upstream.seen.map(({ method, url }) => `${method} ${url}`)).to.deep.equal([])
    },
    async close() {
      await server.close()
      await issuer.close()
      await upstream.close()
      await rm(caFile)
    },
  }
}

function expectActed({ rawHeaders }: Seen, mode: CredentialMode, caller: CallerKind): void {
  const values = (name: string): readonly string[] =>
    rawHeaders.filter((_, at) => at % 2 === 1 && rawHeaders[at - 1]?.toLowerCase() === name)
  const named = (prefix: string): readonly string[] =>
    rawHeaders.filter(
      (name, at) =>
        at % 2 === 0 && name.toLowerCase().replaceAll('_', '-').startsWith(prefix) && name !== '',
    )
  const [authorization = '', ...others] = values('authorization')
  expect(others, 'more than one Authorization').to.deep.equal([])
  expect(named('x-remote-')).to.deep.equal([])
  expect(named('x-forwarded-')).to.deep.equal([])
  expect(named('nestgate-')).to.deep.equal([])
  expect(values('audit-id')).to.have.lengthOf(1)
  expect(rawHeaders.join('\n')).to.not.contain('evil')
  if (mode === 'impersonation') {
    expect(authorization).to.equal(OWN_TOKEN)
    expect(values('impersonate-user')).to.deep.equal([ACTORS[caller].user])
    expect(values('impersonate-group')).to.deep.equal([])
    const extras = named('impersonate-').map((name) => name.toLowerCase())
    const ours = /^impersonate-(user|extra-nestgate\.dev%2f(request-id|process|approver|bind))$/
    expect(extras.filter((name) => !ours.test(name))).to.deep.equal([])
    return
  }
  expect(named('impersonate-')).to.deep.equal([])
  const claims = decodeJwt(authorization.replace('Bearer ', ''))
  expect([claims.sub, claims.aud]).to.deep.equal([ACTORS[caller].sub, 'nestgate/test'])
  expect([claims.jti]).to.deep.equal(values('audit-id'))
}
