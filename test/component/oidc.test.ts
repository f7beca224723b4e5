import { expect } from 'chai'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingHttpHeaders } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'mocha'
import { request } from 'undici'
import { createDirectClients } from '../../broker/identity/direct.ts'
import type { DirectClients } from '../../broker/identity/direct.ts'
import { createOidc } from '../../broker/identity/oidc.ts'
import { oidcSchema } from '../../broker/identity/oidc-config.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { makeCertificates } from '../support/certificates.ts'
import { mintToken, startOidcProvider } from '../support/oidc-provider.ts'
import type { OidcProvider } from '../support/oidc-provider.ts'
import { SILENT } from '../support/sqlite-store.ts'

describe('people of a real OIDC provider', () => {
  let provider: OidcProvider
  let direct: DirectClients
  let api: ApiServer
  let folder: string
  before(async () => {
    const { ca, cert, key } = makeCertificates({ hosts: ['127.0.0.1'] })
    folder = mkdtempSync(join(tmpdir(), 'nestgate-oidc-'))
    const caFile = join(folder, 'ca.pem')
    writeFileSync(caFile, ca)
    provider = await startOidcProvider({ host: '127.0.0.1', cert, key })
    const issuers = oidcSchema.parse([
      {
        ...{ name: 'corp', issuer: provider.issuer, audiences: ['nestgate'], caFile },
        ...{ groupsClaim: 'groups', groupsPrefix: 'corp/' },
        roles: { reviewer: ['corp/reviewers'], auditor: ['corp/auditors'] },
      },
    ])
    direct = createDirectClients(createOidc(issuers, { log: SILENT, now: Date.now }))
    api = await startApi((store) => store, {}, { direct })
  })
  after(async () => {
    await api.close()
    await provider.close()
    rmSync(folder, { recursive: true })
  })

  const get = async (
    token: string,
    path = '/v1/me',
  ): Promise<{ status: number; body: object; headers: IncomingHttpHeaders }> => {
    const answer = await request(api.url + path, { headers: { authorization: `Bearer ${token}` } })
    const body = (await answer.body.json()) as object
    return { status: answer.statusCode, body, headers: answer.headers }
  }

  it('are who their token says, with the roles of their groups', async () => {
    const exp = Math.floor(Date.now() / 1000) + 60
    const token = await provider.mint({ sub: 'alice', groups: ['sre', 'reviewers'], exp })
    expect(await get(token)).to.deep.include({
      status: 200,
      body: {
        ...{ name: 'corp:alice', roles: ['reviewer'], groups: ['corp/sre', 'corp/reviewers'] },
        expiresAt: new Date(exp * 1000).toISOString(),
      },
    })
    expect((await get(token, '/v1/approvals')).status).to.equal(200)
    expect((await get(token, '/v1/audit/events')).body).to.include({ code: 'role_missing' })
  })

  it('may do nothing without a group that has a role', async () => {
    const { status, body } = await get(await provider.mint({ sub: 'ci', groups: ['pipelines'] }))
    expect({ status, ...body }).to.include({ status: 403, code: 'role_missing' })
  })

  it('are nobody with a token that is over, for others, or by a key of somebody else', async () => {
    const impostor = await startImpostor(provider)
    for (const token of [
      await provider.mint({ sub: 'alice', exp: Math.floor(Date.now() / 1000) - 60 }),
      await provider.mint({ sub: 'alice', aud: 'other' }),
      await provider.mint({ sub: 'alice', nbf: Math.floor(Date.now() / 1000) + 60 }),
      impostor,
    ]) {
      const { status, body, headers } = await get(token)
      expect({ status, ...body }).to.include({ status: 401, code: 'credentials_invalid' })
      expect(JSON.stringify(body)).to.not.contain(token.slice(0, 20))
      expect(headers['www-authenticate']).to.equal('Bearer')
    }
  })

  it('are subjects of what is sent along as Nestgate-Subject-Token, over a real socket', async () => {
    const server = createServer((message, response) => {
      void direct.subjectOf(message).then((subject) => response.end(JSON.stringify(subject)))
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const send = async (...tokens: string[]): Promise<unknown> => {
      const headers = { 'nestgate-subject-token': tokens }
      return (await request(`http://127.0.0.1:${port}/`, { headers })).body.json()
    }
    const token = await mintToken(
      // as another process has it
      JSON.parse(JSON.stringify(provider.signingJwk)) as OidcProvider['signingJwk'],
      provider.issuer,
      { sub: 'bob', groups: ['security'] },
    )
    expect(await send(token)).to.deep.include({ name: 'corp:bob', groups: ['corp/security'] })
    expect(await send(token, token)).to.include({ refused: 'header_invalid' })
    expect(await send(`${token}x`)).to.include({ refused: 'credentials_invalid' })
    server.closeAllConnections()
    server.close()
  })
})

/** A token that says everything right, and names the right key, but is by another provider's. */
async function startImpostor({ issuer, signingJwk }: OidcProvider): Promise<string> {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  const other = await startOidcProvider({ host: '127.0.0.1', ...certificates })
  await other.close()
  const kid = signingJwk.kid ?? ''
  return mintToken({ ...other.signingJwk, kid }, issuer, { sub: 'alice', groups: ['reviewers'] })
}
