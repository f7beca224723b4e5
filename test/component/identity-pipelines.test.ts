/** Runs of pipelines through a real gateway, directly and behind a sidecar: policy, ledger, and what the upstream saw. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { makeCertificates } from '../support/certificates.ts'
import { HEAD } from '../support/policies.ts'
import { mintRunnerToken, startRunnerIssuer } from '../support/runner-issuer.ts'
import type { RunnerIssuer } from '../support/runner-issuer.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import { makeSidecarKey } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const POLICY = `${HEAD}
- {id: main, match: {verbs: [get], resources: [pods], repositories: ["our/*"], refs: [refs/heads/main]}, effect: allow}
- {id: no-tags, match: {verbs: ['*'], resources: ['*'], refs: ["refs/tags/*"]}, effect: deny}
- {id: services, match: {verbs: [get], resources: [services]}, effect: allow}
`
const CI = { repository: 'our/shop', ref: 'refs/heads/main', run: '7/2' }
const CLAIMS = { repository: CI.repository, ref: CI.ref, run_id: '7', run_attempt: '2' }
const N = '/api/v1/namespaces/agents'

describe('a run of a pipeline', function () {
  this.timeout(20_000)
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  let folder: string
  let upstream: Upstream
  let issuer: RunnerIssuer & { close(): Promise<void> }
  let server: RunningGateway
  let key: SidecarKey
  let token: string
  let client: Agent

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-pipelines-'))
    const caFile = join(folder, 'ca.pem')
    writeFileSync(caFile, certificates.ca)
    upstream = await startUpstream()
    issuer = await startRunnerIssuer({ host: '127.0.0.1', ...certificates })
    token = await upstream.token()
    key = await makeSidecarKey()
    client = new Agent({ connect: { ca: certificates.ca } })
    const github = { profile: 'github', audiences: ['nestgate'], caFile }
    server = await startGateway({
      ...{ upstream, certificates, key, token, policy: POLICY },
      oidc: [{ name: 'ci', issuer: issuer.issuer, ...github }],
    })
  })
  after(async () => {
    await server.close()
    await client.destroy()
    await upstream.close()
    await issuer.close()
    rmSync(folder, { recursive: true })
  })
  beforeEach(() => {
    upstream.seen.length = 0
  })

  const mint = (claims: object): Promise<string> =>
    mintRunnerToken(issuer, { sub: 'repo:our/shop', ...CLAIMS, ...claims })
  /** The two ways in which the token of a run comes. */
  const WAYS = {
    'as a direct client': (jwt: string) => ({ authorization: `Bearer ${jwt}` }),
    'behind a sidecar': async (jwt: string) => ({
      ...{ authorization: `Bearer ${token}`, 'nestgate-agent': await key.tag() },
      ...{ 'nestgate-hold': 'wait', 'nestgate-subject-token': jwt },
    }),
  } as const

  for (const [way, headersOf] of Object.entries(WAYS)) {
    const get = async (path: string, claims: object = {}): Promise<string> => {
      const answer = await request(`https://127.0.0.1:${server.port}/clusters/test${N}/${path}`, {
        dispatcher: client,
        headers: await headersOf(await mint(claims)),
      })
      return `${answer.statusCode} ${await answer.body.text()}`
    }

    it(`may do what its repository and ref may, and is in the ledger, ${way}`, async () => {
      expect(await get('pods/p')).to.match(/^200 /)
      expect(upstream.seen).to.have.length(1)
      const [{ headers }] = upstream.seen as [Upstream['seen'][number]]
      const user = headers['impersonate-user']
      expect(user).to.equal(
        way === 'behind a sidecar' ? 'system:serviceaccount:agents:worker' : 'ci:repo:our/shop',
      )
      expect(JSON.stringify(headers)).not.to.contain('eyJ')
      const [intent] = await server.store.events({ kind: 'intent' }, 1)
      expect(intent?.entry['oidc']).to.deep.equal({
        ...{ issuer: issuer.issuer, sub: 'repo:our/shop', name: 'ci:repo:our/shop', groups: [] },
        ci: CI,
      })
    })

    it(`may not do it from elsewhere, nor without saying from where, ${way}`, async () => {
      expect(await get('pods/p', { repository: 'their/shop' })).to.match(/^403 /)
      expect(await get('pods/p', { ref: 'refs/heads/other' })).to.match(/^403 /)
      expect(await get('services/s', { ref: 'refs/tags/v1' })).to.match(/^403 .*no-tags/s)
      for (const claims of [{ ref: undefined }, { repository: 7 }, { run_id: '' }])
        expect(await get('services/s', claims)).to.match(/^401 .*credentials_invalid/s)
      expect(upstream.seen).to.deep.equal([])
    })
  }
})
