/** A credential that cannot be made is a refusal of that request, in its own format and in the ledger, and nothing goes upstream; it is not the broker's fault, and never its own identity. */
import { chmodSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { REQUEST_HEADER } from '../../shared/headers.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import { makeSidecarKey, TAG } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'
import { startVault } from '../support/vault.ts'
import type { Vault } from '../support/vault.ts'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list], resources: [configmaps]}, effect: allow}
- {id: write, match: {verbs: [create], resources: [configmaps]}, effect: allow}
- {id: delete, match: {verbs: [delete], resources: [pods]}, effect: hold}
`
const N = '/api/v1/namespaces/agents'
/** Above the time for which a look at a file is trusted. */
const LOOK_MS = 1_100

describe('a credential that cannot be made', () => {
  let upstream: Upstream
  let certificates: Certificates
  let key: SidecarKey
  let token: string
  let client: Agent
  let vault: Vault
  let server: RunningGateway

  before(async () => {
    certificates = makeCertificates({ hosts: ['127.0.0.1'] })
    upstream = await startUpstream()
    token = await upstream.token()
    key = await makeSidecarKey()
    client = new Agent({ connect: { ca: certificates.ca } })
  })
  after(async () => {
    await client.destroy()
    await upstream.close()
  })
  beforeEach(async () => {
    upstream.seen.length = 0
    vault = await startVault(Date.now())
  })
  afterEach(async () => {
    await server.close()
    await vault.close()
  })

  const start = async (more: object = {}): Promise<void> => {
    server = await startGateway({ upstream, certificates, key, token, policy: POLICY, ...more })
  }
  const call = async (
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    more: Record<string, string> = {},
  ): Promise<{ status: number; type: string; text: string }> => {
    const answer = await request(`https://127.0.0.1:${server.port}/clusters/test${path}`, {
      ...{ method, dispatcher: client, body: method === 'POST' ? '{"kind":"ConfigMap"}' : null },
      headers: {
        ...{ authorization: `Bearer ${token}`, 'nestgate-agent': await key.tag(TAG), ...more },
        ...(method === 'POST' ? { 'content-type': 'application/json' } : {}),
      },
    })
    const type = String(answer.headers['content-type'])
    return { status: answer.statusCode, type, text: await answer.body.text() }
  }
  const expectUnavailable = (reply: Awaited<ReturnType<typeof call>>): void => {
    expect(reply.status, reply.text).to.equal(503)
    expect(reply.type).to.contain('application/json')
    const status = JSON.parse(reply.text) as { kind: string; message: string }
    expect(status.kind).to.equal('Status')
    expect(reply.text).to.contain('nestgate.dev/credential_unavailable')
    expect(reply.text).not.to.match(/vault|token-file|hvs\./i)
  }
  const recorded = async (): Promise<readonly unknown[]> => {
    const found = (await server.store.events({}, 2)).map(({ entry }) => entry)
    return found.toReversed()
  }
  const expectRecorded = async (): Promise<void> => {
    const [intent, outcome] = await recorded()
    expect(intent).to.include({ kind: 'intent' })
    expect(intent).to.not.have.property('credential')
    expect(intent).to.deep.nested.include({ 'decision.effect': 'deny' })
    expect(outcome).to.include({
      ...{ kind: 'outcome', status: 503, reason: 'credential_unavailable', bytesToServer: 0 },
    })
  }

  const FAULTS: Readonly<Record<string, (of: Vault) => void>> = {
    'is sealed': (of) => {
      of.fault = (response) => response.writeHead(503).end('{"errors":["Vault is sealed"]}')
    },
    'forbids it': (of) => of.forbidden.add('sign'),
    'signs with another key': (of) => {
      of.signature = () => Buffer.alloc(64, 1).toString('base64url')
    },
  }
  for (const [what, fault] of Object.entries(FAULTS))
    it(`refuses a read and a write where Vault ${what}, and goes on when that is over`, async () => {
      await start({ mode: 'issuer', vault: vault.settings })
      expect((await call('GET', `${N}/configmaps/x`)).status).to.equal(200)
      expect((await call('POST', `${N}/configmaps`)).status).to.equal(200)
      const passed = upstream.seen.length
      const { signature } = vault
      fault(vault)
      for (const [method, path] of [
        ['GET', `${N}/configmaps/x`],
        ['POST', `${N}/configmaps`],
      ] as const) {
        expectUnavailable(await call(method, path))
        await expectRecorded()
      }
      const later = upstream.seen.slice(passed)
      // a question of the broker's own token from before may still be on its way
      expect(later.filter(({ url }) => url.startsWith(N))).to.deep.equal([])
      vault.fault = undefined
      vault.forbidden.clear()
      vault.signature = signature
      expect((await call('GET', `${N}/configmaps/x`)).status).to.equal(200)
    })

  it('spends no approval that it did not claim, and leaves a claimed one failed, not forever under way', async () => {
    await start({ mode: 'issuer', vault: vault.settings })
    const away = (): ReturnType<typeof call> => call('DELETE', `${N}/pods/web`)
    expect((await away()).text).to.contain('approval_pending')
    const [held] = await server.approvals.list({ states: ['PENDING'] }, 1)
    const id = held?.id ?? ''
    await server.approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'fine' })
    vault.forbidden.add('sign')
    expectUnavailable(await away())
    await expectRecorded()
    expect(await server.store.approval(id)).to.include({ state: 'APPROVED' })
    expectUnavailable(await call('DELETE', `${N}/pods/web`, { [REQUEST_HEADER]: id }))
    await expectRecorded()
    expect(await server.store.approval(id)).to.include({ state: 'FAILED' })
    expect(upstream.seen.filter(({ method }) => method === 'DELETE')).to.deep.equal([])
  })

  it('is one of a token file that is not there, or that others may use', async () => {
    await start()
    expect((await call('GET', `${N}/configmaps/x`)).status).to.equal(200)
    const passed = upstream.seen.length
    renameSync(upstream.tokenFile, `${upstream.tokenFile}.away`)
    await sleep(LOOK_MS)
    expectUnavailable(await call('GET', `${N}/configmaps/x`))
    await expectRecorded()
    renameSync(`${upstream.tokenFile}.away`, upstream.tokenFile)
    expect((await call('GET', `${N}/configmaps/x`)).status, 'when it is there again').to.equal(200)
    const good = readFileSync(upstream.tokenFile)
    // another file in its place: a change of mode alone is not looked for
    writeFileSync(`${upstream.tokenFile}.open`, good, { mode: 0o644 })
    renameSync(`${upstream.tokenFile}.open`, upstream.tokenFile)
    await sleep(LOOK_MS)
    expectUnavailable(await call('POST', `${N}/configmaps`))
    expect(upstream.seen).to.have.length(passed + 1)
    chmodSync(upstream.tokenFile, 0o600)
    expect((await call('GET', `${N}/configmaps/x`)).status, 'when it is private').to.equal(200)
  })
})
