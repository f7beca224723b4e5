import { expect } from 'chai'
import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import type { JWK } from 'jose'
import { signInByDevice } from '../../../cli/login-device.ts'
import type { DeviceCode } from '../../../cli/login-device.ts'
import { connectIssuer } from '../../../cli/login-issuer.ts'
import type { IssuerConnection, Tokens } from '../../../cli/login-issuer.ts'
import { mintToken } from '../../support/oidc-provider.ts'
import type { TokenClaims } from '../../support/oidc-provider.ts'
import { DISCOVERY_PATH, newKey, startScriptedIssuer } from '../../support/scripted-issuer.ts'
import type { ScriptedIssuer } from '../../support/scripted-issuer.ts'

const CODE = {
  ...{ device_code: 'd', user_code: 'ABCD-EFGH', expires_in: 100, interval: 2 },
  verification_uri: 'https://idp.example/device',
}
const refusal =
  (error: string, status = 400) =>
  (response: ServerResponse): void => {
    response.writeHead(status).end(JSON.stringify({ error }))
  }

describe('signing in by code', () => {
  let issuer: ScriptedIssuer
  let key: JWK
  let connection: IssuerConnection
  let nowMs: number
  let pauses: number[]
  let told: DeviceCode[]
  before(async () => {
    issuer = await startScriptedIssuer()
    key = await newKey()
  })
  after(() => issuer.close())
  const publish = (more: object = {}): void => {
    issuer.answers.set(DISCOVERY_PATH, {
      ...issuer.discovery,
      token_endpoint: `${issuer.issuer}/token`,
      device_authorization_endpoint: `${issuer.issuer}/device`,
      ...more,
    })
  }
  const connect = (): Promise<IssuerConnection> =>
    connectIssuer(issuer.issuer, readFileSync(issuer.caFile, 'utf8'))
  beforeEach(async () => {
    nowMs = Date.now()
    pauses = []
    told = []
    publish()
    issuer.answers.set('/device', CODE)
    connection = await connect()
  })
  afterEach(() => connection.close())

  const mint = (claims: TokenClaims = {}): Promise<string> =>
    mintToken(key, issuer.issuer, { sub: 'alice', ...claims })
  type Answer = object | ((response: ServerResponse) => void)
  const answers = (...list: readonly Answer[]): void => {
    const left = [...list]
    issuer.answers.set('/token', (response) => {
      const next = left.shift() ?? refusal('invalid_request')
      if (typeof next === 'function') (next as (response: ServerResponse) => void)(response)
      else response.end(JSON.stringify(next))
    })
  }
  const signIn = (): Promise<Tokens> =>
    signInByDevice(
      connection,
      { issuer: issuer.issuer, clientId: 'nestgate', scopes: ['openid'] },
      {
        now: () => nowMs,
        sleep(ms) {
          pauses.push(ms / 1000)
          nowMs += ms
          return Promise.resolve()
        },
        tell: (code) => told.push(code),
      },
    )
  const failure = async (): Promise<string> => {
    try {
      await signIn()
    } catch (error) {
      return String(error)
    }
    return 'nothing went wrong'
  }

  it('tells the code, and asks until somebody confirmed it', async () => {
    const pending = refusal('authorization_pending')
    answers(pending, pending, { id_token: await mint(), refresh_token: 'r' })
    expect(await signIn()).to.include({ refreshToken: 'r' })
    expect(pauses).to.deep.equal([2, 2, 2])
    expect(told).to.deep.equal([
      {
        ...{ userCode: 'ABCD-EFGH', verificationUri: 'https://idp.example/device' },
        verificationUriComplete: undefined,
      },
    ])
  })

  it('asks five seconds slower each time it is told to', async () => {
    answers(refusal('slow_down'), refusal('authorization_pending'), refusal('slow_down'), {
      id_token: await mint(),
    })
    await signIn()
    expect(pauses).to.deep.equal([2, 7, 7, 12])
  })

  it('asks every five seconds where nobody says otherwise', async () => {
    issuer.answers.set('/device', { ...CODE, interval: undefined })
    answers({ id_token: await mint() })
    await signIn()
    expect(pauses).to.deep.equal([5])
  })

  it('asks half as often where there is no answer', async () => {
    answers(
      (response) => {
        response.destroy()
      },
      (response) => {
        response.writeHead(503).end()
      },
      { id_token: await mint() },
    )
    await signIn()
    expect(pauses).to.deep.equal([2, 4, 8])
  })

  it('ends when the code does, whatever the issuer says', async () => {
    answers(refusal('expired_token'))
    expect(await failure()).to.contain('nobody confirmed the code in time')
    issuer.answers.set('/token', refusal('authorization_pending'))
    pauses = []
    expect(await failure()).to.contain('nobody confirmed the code in time')
    expect(pauses).to.have.length(50)
  })

  it('ends when the person refuses, and on any other refusal', async () => {
    answers(refusal('access_denied'))
    expect(await failure()).to.contain('the sign-in was refused')
    answers(refusal('invalid_client', 401))
    expect(await failure()).to.contain('invalid_client')
    expect(pauses).to.deep.equal([2, 2])
  })

  it('refuses an ID token of others, for others, or of before', async () => {
    const bad: readonly [TokenClaims, string][] = [
      [{ iss: 'https://evil.example' }, 'by another issuer'],
      [{ aud: 'other' }, 'for another client'],
      [{ exp: Math.floor(nowMs / 1000) - 120 }, 'over already'],
      [{ exp: undefined }, 'not what was expected'],
    ]
    for (const [claims, text] of bad) {
      answers({ id_token: await mint(claims) })
      expect(await failure()).to.contain(text)
    }
    answers({ id_token: 'garbage' })
    expect(await failure()).to.contain('not what was expected')
    answers({ access_token: 'x' })
    expect(await failure()).to.contain('no ID token')
  })

  it('sends nobody to an address that is not https', async () => {
    issuer.answers.set('/device', { ...CODE, verification_uri: 'javascript:alert(1)' })
    expect(await failure()).to.contain('not what was expected')
    expect(told).to.deep.equal([])
  })

  it('needs an issuer that has it', async () => {
    publish({ device_authorization_endpoint: undefined })
    await connection.close()
    connection = await connect()
    expect(await failure()).to.contain('no sign-in by code')
  })

  const wrong: readonly [string, object | ((response: ServerResponse) => void)][] = [
    ['is another issuer’s', { issuer: 'https://evil.example', token_endpoint: 'https://x/token' }],
    ['has an endpoint without TLS', { token_endpoint: 'http://127.0.0.1/token' }],
    ['has none', { token_endpoint: undefined }],
  ]
  for (const [what, more] of wrong) {
    it(`is refused where the discovery document ${what}`, async () => {
      publish(more)
      let text = ''
      await connect().catch((error: unknown) => (text = String(error)))
      expect(text).to.contain('discovery document')
    })
  }

  it('follows no redirect', async () => {
    issuer.answers.set('/elsewhere', { id_token: await mint() })
    answers((response) => {
      response.writeHead(307, { location: `${issuer.issuer}/elsewhere` }).end()
    })
    issuer.asked.length = 0
    expect(await failure()).to.contain('status 307')
    expect(issuer.asked).to.not.include('/elsewhere')
  })
})
