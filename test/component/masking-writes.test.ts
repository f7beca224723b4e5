/**
 * Placeholders and oracles on the way of a request, over real sockets and a real store: what is refused reaches neither the
 * API server nor a reviewer, and stands in the ledger.
 */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { maskDocument } from '../../broker/masking/objects/masker.ts'
import { STANDARD_MASKING } from '../../shared/policy/masking.ts'
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
  const events = async (kind: 'intent' | 'outcome'): Promise<readonly AuditEvent['entry'][]> =>
    (await server.store.events({ kind }, 20)).map(({ entry }) => entry)

  /** Of requests that were sent on, outcomes are written after the answer. */
  const outcomes = async (count: number): Promise<readonly AuditEvent['entry'][]> => {
    for (;;) {
      const found = await events('outcome')
      if (found.length >= count) return found
      await sleep(10)
    }
  }

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
    const refused = await events('outcome')
    expect(refused.map((entry) => entry['reason'])).to.deep.equal([
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

  describe('of an update with restore', () => {
    const VALUE = Buffer.from('hunter2 is the value').toString('base64')
    const secret = (version: string, labels: object = {}): object => ({
      ...{ kind: 'Secret', apiVersion: 'v1' },
      metadata: { name: 's', uid: 'uid-1', resourceVersion: version, labels },
      data: { password: VALUE, user: 'cm9vdA==' },
    })
    const path = `${N}/secrets/s`
    /** What the API server says to a read; it answers updates with what it was sent. */
    let current: readonly [number, object]
    let masked: string

    beforeEach(() => {
      current = [200, secret('7')]
      upstream.onRequest = (request, response, body) => {
        const [status, object] =
          request.method === 'GET' ? current : [200, JSON.parse(body) as object]
        response
          .writeHead(status, { 'content-type': 'application/json' })
          .end(JSON.stringify(object))
      }
      const how = { masking: STANDARD_MASKING, shape: 'object', write: false } as const
      const placeholders = server.masking.placeholders('test')
      masked = maskDocument(Buffer.from(JSON.stringify(secret('7'))), {
        ...how,
        placeholders,
      }).bytes.toString()
    })

    it('goes upstream with the true values, and they are nowhere else', async () => {
      const body = masked.replace('"labels":{}', '"labels":{"a":"b"}')
      expect(body).not.to.contain(VALUE)
      expect(await send('PUT', path, body)).to.include({ status: 200 })
      const [read, write] = upstream.seen.map(({ method, url, headers, body: sent }) => ({
        method,
        url,
        headers,
        sent,
      }))
      expect(read).to.include({ method: 'GET', url: path })
      expect(read?.headers['impersonate-user']).to.equal(write?.headers['impersonate-user'])
      expect(read?.headers['audit-id']).not.to.equal(write?.headers['audit-id'])
      expect(JSON.parse(write?.sent ?? '')).to.deep.equal(secret('7', { a: 'b' }))

      const [outcome] = await outcomes(1)
      expect(outcome).to.deep.include({
        status: 200,
        restored: ['data.password', 'data.user'],
        bytesToServer: body.length,
      })
      const [intent] = await events('intent')
      const { request: told, payload } = intent as unknown as {
        request: { bodySha256: string }
        payload: { sha256: string }
      }
      expect(told.bodySha256).to.equal(createHash('sha256').update(body).digest('hex'))
      const all = await server.store.events({}, 100)
      const kept = `${JSON.stringify(all)} ${Buffer.from((await server.store.payload(payload.sha256)) ?? '').toString()}`
      for (const secretText of [VALUE, 'hunter2']) expect(kept).not.to.contain(secretText)
      const question = all.find(({ entry }) => entry['kind'] === 'system')?.entry
      expect(question).to.have.nested.include({ 'detail.purpose': 'restore', 'detail.status': 200 })
    })

    it('is refused where the object is another one by now, or cannot be read', async () => {
      let count = 0
      for (const [answer, status, reason] of [
        [[200, secret('8')], 409, 'placeholder_stale'],
        [[404, {}], 422, 'placeholder_written'],
        [[403, {}], 422, 'placeholder_written'],
        [[500, {}], 502, 'upstream_invalid'],
      ] as const) {
        current = [...answer]
        const reply = await send('PUT', path, masked)
        expect(reply).to.include({ status })
        expect(reply.text).to.contain(`nestgate.dev/${reason}`)
        const [outcome] = await outcomes(++count)
        expect(outcome).to.include({ status, reason, bytesToServer: 0 })
      }
      expect(upstream.seen.filter(({ method }) => method === 'PUT')).to.deep.equal([])
    })

    it('is refused where a placeholder is left, and in any other form than JSON', async () => {
      const moved = masked.replace('"user"', '"other"')
      expect(await send('PUT', path, moved)).to.include({ status: 422 })
      expect(await send('PUT', path, masked, 'application/yaml')).to.include({ status: 422 })
      expect(upstream.seen.filter(({ method }) => method === 'PUT')).to.deep.equal([])
    })

    it('looks first whether what is written could be a guess at what is immutable', async () => {
      expect(await send('PUT', path, secret('7'))).to.include({ status: 200 })
      expect(upstream.seen.map(({ method }) => method)).to.deep.equal(['GET', 'PUT'])
      for (const [answer, status] of [
        [[200, { ...secret('7'), immutable: true }], 403],
        [[200, { ...secret('7'), immutable: 'yes' }], 403],
        [[403, {}], 403],
        [[500, {}], 502],
      ] as const) {
        current = [...answer]
        expect(await send('PUT', path, secret('7'))).to.include({ status })
      }
      expect(upstream.seen.filter(({ method }) => method !== 'GET')).to.have.length(1)
    })

    it('looks at nothing where no hidden value is written', async () => {
      const plain = { kind: 'Secret', apiVersion: 'v1', metadata: { name: 's' } }
      expect(await send('PUT', path, plain)).to.include({ status: 200 })
      expect(upstream.seen.map(({ method }) => method)).to.deep.equal(['PUT'])
    })
  })
})
