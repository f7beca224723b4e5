/**
 * Placeholders and oracles on the way of a request, over real sockets and a real store: what is refused reaches neither the
 * API server nor a reviewer, and stands in the ledger.
 */
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import type { AuditEvent } from '../../shared/wire.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import { makeSidecarKey, TAG } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const RULES = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list], resources: [secrets]}, effect: allow}
- {id: create, match: {verbs: [create], resources: ['*']}, effect: allow, mask: none}
- {id: connect, match: {verbs: [connect], resources: ['*']}, effect: allow}
- {id: update, match: {verbs: [update], resources: [secrets]}, effect: allow, mask: {profile: standard, restore: true}, capture: {}}
- {id: patch, match: {verbs: [patch], resources: ['*']}, effect: hold}
- {id: maps, match: {verbs: [update], resources: [configmaps]}, effect: breakGlass}
`
const N = '/api/v1/namespaces/agents'
const PLACEHOLDER = 'nestgate-masked-1-0123456789abcdef01'
const ENCODED = Buffer.from(PLACEHOLDER).toString('base64')

interface Reply {
  readonly status: number
  readonly text: string
}

describe('what writes carry', () => {
  const certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  let upstream: Upstream
  let server: RunningGateway
  let key: SidecarKey
  let token: string
  let client: Agent

  before(async () => {
    upstream = await startUpstream()
    token = await upstream.token()
    key = await makeSidecarKey()
    client = new Agent({ connect: { ca: certificates.ca }, pipelining: 1 })
  })
  after(async () => {
    await client.destroy()
    await upstream.close()
  })
  beforeEach(async () => {
    upstream.seen.length = 0
    upstream.onRequest = (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
    }
    server = await startGateway({ upstream, certificates, key, token, policy: RULES })
  })
  afterEach(() => server.close())

  async function send(
    method: string,
    path: string,
    body?: object | string,
    type = 'application/json',
  ): Promise<Reply> {
    const answer = await request(`https://127.0.0.1:${server.port}/clusters/test${path}`, {
      method,
      dispatcher: client,
      headers: {
        ...{ authorization: `Bearer ${token}`, 'nestgate-agent': await key.tag(TAG) },
        ...{ 'nestgate-hold': 'wait' },
        ...(body === undefined ? {} : { 'content-type': type }),
      },
      body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
    })
    return { status: answer.statusCode, text: await answer.body.text() }
  }
  const events = async (
    kind: 'intent' | 'outcome',
  ): Promise<readonly AuditEvent['entry'][]> =>
    (await server.store.events({ kind }, 20)).map(({ entry }) => entry)

  it('is refused where it is a placeholder, even where nothing is masked, and stands in the ledger', async () => {
    const reply = await send('POST', `${N}/secrets`, { data: { password: ENCODED } })
    expect(reply.status).to.equal(422)
    expect(JSON.parse(reply.text)).to.deep.include({ reason: 'Invalid', code: 422 })
    expect(reply.text).to.contain('"field":"data.password"')
    expect(upstream.seen).to.deep.equal([])
    const [outcome] = await events('outcome')
    expect(outcome).to.include({ status: 422, reason: 'placeholder_written' })
    const [intent] = await events('intent')
    expect(intent).to.have.nested.include({
      'decision.effect': 'deny',
      'decision.reason': 'placeholder_written',
    })
  })

  it('is refused before anybody is asked, and in an emergency', async () => {
    const path = `${N}/configmaps/m`
    const patch = [{ op: 'replace', path: '/data/a', value: PLACEHOLDER }]
    const test = [{ op: 'test', path: '/data/a', value: 'guess' }]
    const json = 'application/json-patch+json'
    expect(await send('PATCH', path, patch, json)).to.include({ status: 422 })
    expect(await send('PATCH', path, test, json)).to.include({ status: 403 })
    expect(await send('PUT', path, { data: { a: PLACEHOLDER } })).to.include({ status: 422 })
    expect(upstream.seen).to.deep.equal([])
    const outcomes = await events('outcome')
    expect(outcomes.map((entry) => entry['reason'])).to.deep.equal([
      'placeholder_written',
      'mask_oracle',
      'placeholder_written',
    ])
    // one that tells nothing is held
    expect(await send('PATCH', path, [{ op: 'remove', path: '/data/a' }], json)).to.include({
      status: 202,
    })
  })

  it('is nobody’s concern where a program is spoken to', async () => {
    const reply = await send('POST', `${N}/services/web/proxy/x`, { password: PLACEHOLDER })
    expect(reply).to.include({ status: 200 })
    expect(upstream.seen.at(-1)?.body).to.contain(PLACEHOLDER)
  })

  it('is refused where a selector asks for what is hidden, and never names a value', async () => {
    const reply = await send('GET', `${N}/secrets?fieldSelector=data.password%3Dhunter2`)
    expect(reply.status).to.equal(403)
    expect(reply.text).to.contain('mask_oracle').and.not.to.contain('hunter2')
    expect(await send('GET', `${N}/secrets?fieldSelector=type%3DOpaque`)).to.include({
      status: 200,
    })
  })
})
