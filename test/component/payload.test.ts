/** Captured bodies on the way of a request: stored with the intent, masked, and as its hash says. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { newRequestId } from '../../shared/request-id.ts'
import type { AuditEvent } from '../../shared/wire.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startGateway } from '../support/running-gateway.ts'
import type { RunningGateway } from '../support/running-gateway.ts'
import { makeSidecarKey, TAG } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get], resources: ['*']}, effect: allow, capture: {}}
- {id: secrets, match: {verbs: [create], resources: [secrets]}, effect: allow, capture: {}}
- {id: maps, match: {verbs: [create], resources: [configmaps]}, effect: allow, capture: {maxBytes: 20}}
- {id: pods, match: {verbs: [create], resources: [pods]}, effect: hold, capture: {}}
- {id: glass, match: {verbs: [create], resources: [services]}, effect: breakGlass, capture: {}}
- {id: plain, match: {verbs: [create], resources: [endpoints]}, effect: allow}
`
const N = '/api/v1/namespaces/agents'
const SECRET = { kind: 'Secret', metadata: { name: 's' }, data: { password: 'aHVudGVyMg==' } }
const POD = {
  ...{ kind: 'Pod', metadata: { name: 'p' } },
  spec: { containers: [{ name: 'c', env: [{ name: 'API_TOKEN', value: 'hunter2' }] }] },
}

interface Reply {
  readonly status: number
  readonly held: string
}

describe('captured bodies', () => {
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
    server = await startGateway({ upstream, certificates, key, token, policy: POLICY })
  })
  afterEach(() => server.close())

  async function send(
    resource: string,
    body: object | string,
    more: Record<string, string> = {},
  ): Promise<Reply> {
    const answer = await request(`https://127.0.0.1:${server.port}/clusters/test${N}/${resource}`, {
      method: 'POST',
      dispatcher: client,
      headers: {
        ...{ authorization: `Bearer ${token}`, 'nestgate-agent': await key.tag(TAG) },
        ...{ 'nestgate-hold': 'wait', 'content-type': 'application/json', ...more },
      },
      body: typeof body === 'string' ? body : JSON.stringify(body),
    })
    await answer.body.dump()
    return { status: answer.statusCode, held: String(answer.headers['nestgate-held']) }
  }
  const intents = async (): Promise<readonly AuditEvent['entry'][]> =>
    (await server.store.events({ kind: 'intent' }, 10)).map(({ entry }) => entry)
  const stored = async (entry: AuditEvent['entry'] | undefined): Promise<string> => {
    const { sha256, bytes } = entry?.['payload'] as { sha256: string; bytes: number }
    const content = Buffer.from((await server.store.payload(sha256)) ?? '')
    expect(createHash('sha256').update(content).digest('hex')).to.equal(sha256)
    expect(content).to.have.length(bytes)
    return content.toString()
  }

  it('are stored with the intent, without what a Secret holds', async () => {
    expect(await send('secrets', SECRET)).to.include({ status: 200 })
    const [entry, ...others] = await intents()
    expect(others).to.have.length(0)
    expect(JSON.parse(await stored(entry))).to.deep.equal({ ...SECRET, data: { password: '***' } })
    expect(entry).to.have.nested.include({ 'payload.truncated': false })
    // the API server got it whole
    expect(upstream.seen.at(-1)?.body).to.contain('aHVudGVyMg==')
  })

  it('of held requests are stored when they are held, and named again when they go ahead', async () => {
    const { status, held } = await send('pods', POD)
    expect(status).to.equal(202)
    const [waiting] = await intents()
    const text = await stored(waiting)
    expect(text).to.contain('"name":"API_TOKEN","value":"***"')
    await server.approvals.decide({ id: held, reviewer: 'alice', approve: true, reason: 'fine' })
    expect(await send('pods', POD, { 'nestgate-request': held })).to.include({ status: 200 })
    const [performed] = await intents()
    expect(performed).to.have.nested.include({ 'approval.reviewer': 'alice' })
    expect(performed?.['payload']).to.deep.equal(waiting?.['payload'])
    expect(await stored(performed)).to.equal(text)
  })

  it('are stored with what joins a held request, with break-glass, and with what is refused after all', async () => {
    server.usePolicy(POLICY.replace('hold, capture: {}', 'hold'))
    await send('pods', POD)
    server.usePolicy(POLICY)
    await send('pods', POD)
    expect(await send('services', { kind: 'Service' })).to.include({ status: 200 })
    // nobody can claim a request that was never held
    const never = { 'nestgate-request': newRequestId(Date.now()) }
    expect(await send('pods', { kind: 'Pod' }, never)).to.include({ status: 404 })
    const found = await intents()
    expect(found).to.have.length(4)
    expect(found.at(-1)).not.to.have.property('payload')
    for (const entry of found.slice(0, -1)) expect(await stored(entry)).not.to.equal('')
  })

  it('are cut to what the rule gives, and left out where they cannot be read', async () => {
    await send('configmaps', { kind: 'ConfigMap', data: { a: 'long enough to be cut' } })
    const [cut] = await intents()
    expect(await stored(cut)).to.match(/^\{"data":\{"a":"long e…\[cut: \d+ bytes\]$/)
    expect(cut).to.have.nested.include({ 'payload.truncated': true })
    await send('secrets', 'k8s\0hunter2', { 'content-type': 'application/vnd.kubernetes.protobuf' })
    const [opaque] = await intents()
    expect(opaque?.['payload']).to.deep.equal({ omitted: 'opaque' })
  })

  it('are stored for no rule that does not say so, and for no request without a body', async () => {
    await send('endpoints', { kind: 'Endpoints' })
    const address = `https://127.0.0.1:${server.port}/clusters/test${N}/pods/p`
    const headers = { authorization: `Bearer ${token}`, 'nestgate-agent': await key.tag(TAG) }
    const answer = await request(address, { dispatcher: client, headers })
    await answer.body.dump()
    const found = await intents()
    expect(found).to.have.length(2)
    for (const entry of found) expect(entry).not.to.have.property('payload')
  })

  it('are stored before the request goes ahead, or it does not', async () => {
    server.gate.fail = true
    expect(await send('secrets', SECRET)).to.include({ status: 503 })
    expect(upstream.seen.filter(({ method }) => method === 'POST')).to.have.length(0)
  })
})
