/**
 * Tokens that are no good, at a real gateway: sent by a direct client, and along with an agent's request. Each time the
 * upstream is the witness that nothing came through. What is wrong with a token in detail: test/unit/broker/oidc.test.ts.
 */
import { createPublicKey } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { connect } from 'node:tls'
import { expect } from 'chai'
import { SignJWT, UnsecuredJWT } from 'jose'
import type { JWK } from 'jose'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { MAX_TOKEN_LENGTH } from '../../broker/identity/oidc.ts'
import { reasonInStatus } from '../../shared/status.ts'
import { makeCertificates } from '../support/certificates.ts'
import { mintToken } from '../support/oidc-provider.ts'
import type { TokenClaims } from '../support/oidc-provider.ts'
import { HEAD } from '../support/policies.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import {
  DISCOVERY_PATH,
  KEYS_PATH,
  newKey,
  publicHalf,
  startScriptedIssuer,
} from '../support/scripted-issuer.ts'
import type { ScriptedIssuer } from '../support/scripted-issuer.ts'
import { makeSidecarKey } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const POLICY = `${HEAD}- {id: all, match: {verbs: ['*'], resources: ['*'], apiGroups: ['*']}, effect: allow}\n`
const TEN_MINUTES_S = 600
const LIFE_S = 300

type Lines = readonly string[]

describe('at the gateway, a token that is no good', function () {
  this.timeout(30_000)
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  let upstream: Upstream
  let issuer: ScriptedIssuer
  let server: RunningGateway
  let sidecarKey: SidecarKey
  let podToken: string
  let key: JWK
  let rsa: JWK
  let stranger: JWK

  before(async () => {
    upstream = await startUpstream()
    issuer = await startScriptedIssuer()
    ;[key, rsa, stranger] = await Promise.all([newKey(), newKey('RS256'), newKey()])
    sidecarKey = await makeSidecarKey()
    podToken = await upstream.token()
  })
  after(async () => {
    await upstream.close()
    await issuer.close()
  })
  beforeEach(async () => {
    upstream.seen.length = 0
    issuer.answers.clear()
    issuer.answers.set(DISCOVERY_PATH, issuer.discovery)
    issuer.publish(key, rsa)
    const { caFile } = issuer
    server = await startGateway({
      ...{ upstream, certificates, key: sidecarKey, token: podToken, policy: POLICY },
      oidc: [{ name: 'corp', issuer: issuer.issuer, audiences: ['nestgate'], caFile }],
    })
  })
  afterEach(() => server.close())

  const mint = (claims: TokenClaims = {}, by = key): Promise<string> =>
    mintToken(by, issuer.issuer, { sub: 'alice', ...claims })
  const nowS = (): number => Math.floor(Date.now() / 1000)
  /** As a machine makes it whose clock is off. */
  const madeAt = (offS: number): Promise<string> =>
    mint({ iat: nowS() + offS, nbf: nowS() + offS, exp: nowS() + offS + LIFE_S })

  /** Sends a request with these lines of its head. @returns status and reason of the answer, and all of it */
  async function send(lines: Lines): Promise<{ outcome: string; text: string }> {
    const socket = connect({ port: server.port, host: '127.0.0.1', ca: certificates.ca })
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    socket.on('error', () => undefined)
    const ended = new Promise((resolve) => socket.once('close', resolve))
    const first = 'DELETE /clusters/test/api/v1/namespaces/agents/pods/p HTTP/1.1'
    socket.write(`${[first, 'Host: broker', 'Connection: close', ...lines].join('\r\n')}\r\n\r\n`)
    await ended
    const [, status = ''] = /^HTTP\/1\.1 (\d+) /.exec(text) ?? []
    return { outcome: `${status} ${reasonInStatus(text.slice(text.indexOf('{'))) ?? ''}`, text }
  }
  const direct = (token: string): Lines => [`Authorization: Bearer ${token}`]
  const tagged = async (): Promise<Lines> => [
    ...direct(podToken),
    `Nestgate-Agent: ${await sidecarKey.tag()}`,
    'Nestgate-Hold: wait',
  ]
  const along = async (token: string): Promise<Lines> => [
    ...(await tagged()),
    `Nestgate-Subject-Token: ${token}`,
  ]

  async function expectBoth(token: string, outcome: string): Promise<void> {
    for (const lines of [direct(token), await along(token)]) {
      const answer = await send(lines)
      expect(answer.outcome).to.equal(outcome)
      if (lines.length > 1 && outcome.startsWith('401'))
        expect(answer.text).to.contain('sent along')
      for (const part of token.split('.').filter((text) => text.length > 20))
        expect(answer.text).not.to.contain(part.slice(0, 20))
    }
    expect(upstream.seen).to.deep.equal([])
  }

  it('is told from one that is good', async () => {
    for (const lines of [direct(await mint()), await along(await mint()), await tagged()])
      expect((await send(lines)).outcome).to.equal('200 ')
    expect(upstream.seen.map(({ headers }) => headers['impersonate-user'])).to.deep.equal([
      'corp:alice',
      'system:serviceaccount:agents:worker',
      'system:serviceaccount:agents:worker',
    ])
    expect(JSON.stringify(upstream.seen)).not.to.match(/eyJ|nestgate-subject|nestgate-agent/i)
  })

  const unsigned = (): string =>
    new UnsecuredJWT({ sub: 'alice', aud: 'nestgate' })
      .setIssuer(issuer.issuer)
      .setIssuedAt()
      .setExpirationTime('5m')
      .encode()
  const confused = (): Promise<string> => {
    const pem = createPublicKey({ key: publicHalf(rsa), format: 'jwk' })
      .export({ type: 'spki', format: 'pem' })
      .toString()
    return new SignJWT({ sub: 'alice', aud: 'nestgate' })
      .setProtectedHeader({ alg: 'HS256', kid: rsa.kid ?? '' })
      .setIssuer(issuer.issuer)
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(new TextEncoder().encode(pem))
  }
  const bad: Readonly<Record<string, () => Promise<string> | string>> = {
    'is over': () => mint({ exp: nowS() - 60 }),
    'is not good yet': () => mint({ nbf: nowS() + 60 }),
    'is made by a clock ten minutes ahead': () => madeAt(TEN_MINUTES_S),
    'is made by a clock ten minutes behind': () => madeAt(-TEN_MINUTES_S),
    'is signed by nobody': unsigned,
    'is signed with a public key as a secret': confused,
    'is for somebody else': () => mint({ aud: 'other' }),
    'names a key that nobody has': () => mint({}, stranger),
    'is too long': () => mint({ padding: 'x'.repeat(MAX_TOKEN_LENGTH) }),
    'is by an issuer that nobody configured': () => mint({ iss: 'https://elsewhere.example' }),
    'is the broker’s other kind': () => upstream.token({ aud: ['https://kubernetes.default.svc'] }),
    'is none': () => 'garbage',
  }
  for (const [what, make] of Object.entries(bad))
    it(`and ${what} is refused, and nothing is forwarded`, async () => {
      await expectBoth(await make(), '401 credentials_invalid')
    })

  const drip = (response: ServerResponse): void => {
    const timer = setInterval(() => response.write(' '), 500)
    response.once('close', () => {
      clearInterval(timer)
    })
  }
  const garbage: Readonly<Record<string, () => void>> = {
    'does not answer': () => {
      issuer.answers.clear()
    },
    'answers with a page': () =>
      issuer.answers.set(DISCOVERY_PATH, '<!doctype html><title>Sign in'),
    'answers without end': () => issuer.answers.set(KEYS_PATH, drip),
    'has more to say than is read': () =>
      issuer.answers.set(KEYS_PATH, { keys: [publicHalf(key)], more: 'x'.repeat(300_000) }),
    'has another’s discovery document': () =>
      issuer.answers.set(DISCOVERY_PATH, { ...issuer.discovery, issuer: 'https://other.example' }),
    'sends us elsewhere': () => {
      issuer.answers.set('/elsewhere', { keys: [publicHalf(key)] })
      issuer.answers.set(KEYS_PATH, (response) => {
        response.writeHead(302, { location: `${issuer.issuer}/elsewhere` }).end()
      })
    },
  }
  for (const [what, breakIt] of Object.entries(garbage))
    it(`or cannot be checked, as its issuer ${what}, is refused, and nothing is forwarded`, async () => {
      breakIt()
      await expectBoth(await mint(), '503 issuer_unavailable')
    })

  it('beside a good one in another line is refused, whichever comes first', async () => {
    const [good, other] = [await mint(), await mint({ sub: 'bob' })]
    const lines: readonly Lines[] = [
      [...direct(good), ...direct(other)],
      [...direct(good), ...direct(good)],
      [...direct('garbage'), ...direct(good)],
      [...direct(good), ...(await tagged())],
      [...(await along(good)), `nestgate-subject-token: ${other}`],
      [...(await along(good)), `Nestgate-Subject-Token: ${good}`],
    ]
    for (const [at, head] of lines.entries())
      expect((await send(head)).outcome, String(at)).to.equal('400 header_invalid')
    expect(upstream.seen).to.deep.equal([])
  })

  it('alone as the subject’s makes nobody a direct client', async () => {
    const token = await mint()
    for (const lines of [
      [`Nestgate-Subject-Token: ${token}`],
      [`Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.${btoa(token)}`],
    ])
      expect((await send(lines)).outcome).to.equal('401 credentials_missing')
    expect(upstream.seen).to.deep.equal([])
  })
})
