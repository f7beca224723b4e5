import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { request } from 'undici'
import { createDirectClients } from '../../broker/identity/direct.ts'
import { createOidc } from '../../broker/identity/oidc.ts'
import { oidcSchema } from '../../broker/identity/oidc-config.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { openBrowser } from '../support/browser.ts'
import type { Browser } from '../support/browser.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startOidcProvider } from '../support/oidc-provider.ts'
import type { OidcProvider } from '../support/oidc-provider.ts'
import { SILENT } from '../support/sqlite-store.ts'

const MAIN = new URL('../../cli/main.ts', import.meta.url).pathname
const DEVICE_MS = 30_000

interface Run {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

interface Kept {
  readonly idToken: string
  readonly refreshToken: string
  readonly expiresAt: number
}

describe('nestgate login', () => {
  let provider: OidcProvider
  let api: ApiServer
  let folder: string
  let home: string
  let ca: string
  let browser: Browser
  before(async () => {
    const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
    ca = certificates.ca
    folder = mkdtempSync(join(tmpdir(), 'nestgate-login-'))
    const caFile = join(folder, 'ca.pem')
    writeFileSync(caFile, ca)
    provider = await startOidcProvider({ host: '127.0.0.1', ...certificates })
    const issuers = oidcSchema.parse([
      {
        ...{ name: 'corp', issuer: provider.issuer, audiences: ['nestgate'], caFile },
        groupsClaim: 'groups',
        roles: { reviewer: ['reviewers'] },
        login: { clientId: 'nestgate' },
      },
      { name: 'pipelines', issuer: 'https://ci.example', audiences: ['nestgate'] },
    ])
    const direct = createDirectClients(createOidc(issuers, { log: SILENT, now: Date.now }))
    api = await startApi((store) => store, {}, { direct, issuers })
  })
  after(async () => {
    await api.close()
    await provider.close()
    rmSync(folder, { recursive: true })
  })
  beforeEach(() => {
    home = mkdtempSync(join(folder, 'home-'))
    browser = openBrowser(ca)
  })
  afterEach(() => browser.close())

  const env = (more: Record<string, string> = {}): Record<string, string> => ({
    ...{ NESTGATE_BROKER_URL: api.url, XDG_CONFIG_HOME: home },
    ...{ NESTGATE_ISSUER_CA_FILE: join(folder, 'ca.pem'), ...more },
  })
  /** @param answer - is called with each line that the command prints for the person */
  const run = async (
    args: readonly string[],
    answer: (line: string) => void = () => undefined,
    more: Record<string, string> = {},
  ): Promise<Run> => {
    const child = spawn(process.execPath, [MAIN, ...args], { env: env(more) })
    let out = ''
    let err = ''
    let told = 0
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err += text
      const lines = err.split('\n')
      for (; told < lines.length - 1; told += 1) answer(lines[told] ?? '')
    })
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, out, err }
  }
  const urlOf = (line: string): URL | undefined =>
    URL.parse(/^Sign in with your browser: (\S+)$/.exec(line)?.[1] ?? '') ?? undefined
  /** Signs in as somebody. @param change - of the address that the browser goes to */
  const signIn = (account: string, change: (url: URL) => void = () => undefined): Promise<Run> =>
    run(['login', '--no-open'], (line) => {
      const url = urlOf(line)
      if (url === undefined) return
      url.searchParams.set('login_hint', account)
      change(url)
      void browser.visit(url.href)
    })
  const file = (): string => join(home, 'nestgate', 'credentials.json')
  const kept = (): Kept => {
    const all = JSON.parse(readFileSync(file(), 'utf8')) as { brokers: Record<string, Kept> }
    const own = all.brokers[api.url]
    if (own === undefined) throw new Error('nobody is signed in')
    return own
  }
  const keep = (change: Partial<Kept>): void => {
    const all = { version: 1, brokers: { [api.url]: { ...kept(), ...change } } }
    writeFileSync(file(), JSON.stringify(all))
  }

  it('asks the broker, without a token, whom to sign in with', async () => {
    const answer = await request(`${api.url}/v1/login`)
    expect(answer.statusCode).to.equal(200)
    expect(await answer.body.json()).to.deep.equal({
      issuers: [
        {
          ...{ name: 'corp', issuer: provider.issuer, clientId: 'nestgate' },
          scopes: ['openid', 'profile', 'offline_access'],
          flows: ['browser', 'device'],
        },
      ],
    })
  })

  it('signs in by browser, and every command is that person’s', async () => {
    let url: URL | undefined
    const { code, out } = await signIn('alice', (address) => (url = address))
    expect(code).to.equal(0)
    expect(out).to.match(/^Signed in\.\nname: +corp:alice\nroles: +reviewer\ngroups: +sre, rev/)
    expect(Object.fromEntries(url?.searchParams ?? [])).to.include({
      ...{ response_type: 'code', code_challenge_method: 'S256', client_id: 'nestgate' },
    })
    expect(url?.searchParams.get('redirect_uri')).to.match(/^http:\/\/127\.0\.0\.1:\d+\/callback$/)
    const me = JSON.parse((await run(['whoami', '--output', 'json'])).out) as object
    expect(me).to.deep.include({ name: 'corp:alice', roles: ['reviewer'] })
    expect(await run(['approvals', 'list'])).to.include({ code: 0, out: 'No held requests.\n' })
  })

  it('keeps its tokens where only their owner can read them', async () => {
    await signIn('alice')
    expect(statSync(file()).mode & 0o777).to.equal(0o600)
    expect(statSync(join(home, 'nestgate')).mode & 0o777).to.equal(0o700)
    expect(readdirSync(join(home, 'nestgate'))).to.have.members([
      'credentials.json',
      'credentials.json.lock',
    ])
    chmodSync(file(), 0o644)
    const { code, err } = await run(['whoami'])
    expect(code).to.equal(1)
    expect(err).to.contain('open to others')
  })

  it('prints nothing secret', async () => {
    const { out, err } = await signIn('alice')
    const { idToken, refreshToken } = kept()
    for (const secret of [idToken, refreshToken]) expect(out + err).to.not.contain(secret)
  })

  it('signs in by code, in a browser anywhere', async () => {
    const person = openBrowser(ca, { account: 'bob' })
    const lines: string[] = []
    const { code, out } = await run(['login', '--device'], (line) => {
      lines.push(line)
      const complete = /^or at (\S+)$/.exec(line)?.[1]
      if (complete !== undefined) void person.visit(complete)
    })
    expect(code).to.equal(0)
    expect(out).to.contain('corp:bob')
    expect(lines[0]).to.match(/^Sign in at https:\S+\/device with the code \w{4}-\w{4}$/)
    expect(kept()).to.have.property('refreshToken')
    await person.close()
  }).timeout(DEVICE_MS)

  it('fails where the person refuses', async () => {
    const { code, err } = await signIn('nobody')
    expect(code).to.equal(1)
    expect(err).to.contain('access_denied')
    expect(existsSync(file())).to.equal(false)
  })

  it('heeds no answer without the right state, and goes on waiting for the right one', async () => {
    const wrong: number[] = []
    const { code, out } = await run(['login', '--no-open'], (line) => {
      const url = urlOf(line)
      if (url === undefined) return
      const back = url.searchParams.get('redirect_uri') ?? ''
      const right = url.searchParams.get('state') ?? ''
      const visits = async (): Promise<void> => {
        const queries = [
          '?code=x&state=wrong',
          '?code=x',
          '?error=access_denied',
          `?code=x&state=${right}&state=${right}`,
        ]
        for (const query of queries) wrong.push((await request(back + query)).statusCode)
        const asOther = { headers: { host: 'evil.example' } }
        wrong.push((await request(`${back}?code=x&state=${right}`, asOther)).statusCode)
        wrong.push((await request(`${back}?state=${right}`, { method: 'POST' })).statusCode)
        await browser.visit(url.href)
      }
      void visits()
    })
    expect(wrong).to.deep.equal(Array(6).fill(400))
    expect({ code, out }).to.have.property('code', 0)
  })

  it('refuses the answer of another issuer', async () => {
    for (const iss of ['', '&iss=https%3A%2F%2Fevil.example']) {
      const { code, err } = await run(['login', '--no-open'], (line) => {
        const url = urlOf(line)
        if (url === undefined) return
        const back = url.searchParams.get('redirect_uri') ?? ''
        void request(`${back}?code=x&state=${url.searchParams.get('state') ?? ''}${iss}`)
      })
      expect(code).to.equal(1)
      expect(err).to.contain('by another issuer')
    }
  })

  it('refuses an ID token of another sign-in', async () => {
    const { code, err } = await signIn('alice', (url) => {
      url.searchParams.set('nonce', 'of-another')
    })
    expect(code).to.equal(1)
    expect(err).to.contain('nonce is wrong')
  })

  it('is of no use to who has the code but not the verifier', async () => {
    const { code, err } = await signIn('alice', (url) => {
      url.searchParams.set('code_challenge', 'A'.repeat(43))
    })
    expect(code).to.equal(1)
    expect(err).to.contain('invalid_grant')
  })

  it('says who may be signed in with, and when that is nobody', async () => {
    const { code, err } = await run(['login', '--issuer', 'pipelines'])
    expect(code).to.equal(2)
    expect(err).to.contain('there is corp')
  })

  it('signs in who has no role all the same', async () => {
    const { code, out } = await signIn('ci')
    expect({ code, out }).to.deep.equal({
      ...{ code: 0, out: 'Signed in, without any role in the broker’s own API.\n' },
    })
    expect(JSON.parse((await run(['credential'])).out)).to.have.property('kind', 'ExecCredential')
  })

  it('makes a token new that ends soon, once, whoever asks for it', async () => {
    await signIn('alice')
    const before = kept()
    keep({ expiresAt: Math.floor(Date.now() / 1000) + 5 })
    const requests = provider.tokenRequests
    // long enough for all of them to find that the token ends soon
    provider.tokenDelayMs = 1500
    const runs = await Promise.all(['whoami', 'whoami', 'credential'].map((name) => run([name])))
    expect(runs.map(({ code, err }) => ({ code, err }))).to.deep.equal(
      runs.map(() => ({ code: 0, err: '' })),
    )
    provider.tokenDelayMs = 0
    expect(provider.tokenRequests - requests).to.equal(1)
    expect(kept().refreshToken).to.not.equal(before.refreshToken)
    expect(kept().expiresAt).to.be.greaterThan(Date.now() / 1000 + 200)
    // a refresh token used twice would have ended them all
    keep({ expiresAt: 0 })
    expect(await run(['whoami'])).to.include({ code: 0 })
  }).timeout(DEVICE_MS)

  it('asks to sign in again when that is over', async () => {
    await signIn('alice')
    keep({ expiresAt: 0, refreshToken: 'none' })
    const { code, err } = await run(['whoami'])
    expect({ code, err }).to.deep.equal({
      ...{ code: 1, err: 'nestgate: your sign-in is over: nestgate login\n' },
    })
  })

  it('gives way to a token of file or environment', async () => {
    await signIn('alice')
    const { out } = await run(['whoami'], undefined, { NESTGATE_TOKEN: 'token-carol' })
    expect(out).to.contain('carol')
    const { status } = JSON.parse(
      (await run(['credential'], undefined, { NESTGATE_TOKEN: 'token-carol' })).out,
    ) as { status: object }
    expect(status).to.deep.equal({ token: 'token-carol' })
  })

  it('prints the token as kubectl wants it', async () => {
    await signIn('alice')
    const { idToken, expiresAt } = kept()
    expect(JSON.parse((await run(['credential'])).out)).to.deep.equal({
      ...{ apiVersion: 'client.authentication.k8s.io/v1', kind: 'ExecCredential' },
      status: { token: idToken, expirationTimestamp: new Date(expiresAt * 1000).toISOString() },
    })
  })

  it('signs out here and at the issuer', async () => {
    await signIn('alice')
    const { refreshToken } = kept()
    const before = readFileSync(file(), 'utf8')
    expect(await run(['logout'])).to.deep.equal({ code: 0, out: 'Signed out.\n', err: '' })
    expect(readFileSync(file(), 'utf8')).to.not.contain(refreshToken)
    const { code, err } = await run(['whoami'])
    expect(code).to.equal(2)
    expect(err).to.contain('nestgate login')
    expect(await run(['logout'])).to.include({ code: 0, out: 'Nobody was signed in.\n' })
    // who kept a copy of it has nothing
    writeFileSync(file(), before)
    keep({ expiresAt: 0 })
    expect((await run(['whoami'])).err).to.contain('your sign-in is over')
  })
})
