/** What of a request's body is stored beside its intent, and what is not. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { captureBody } from '../../../broker/gateway/payload.ts'
import { readSentRequest } from '../../../shared/policy/case.ts'

const N = '/api/v1/namespaces/shop'

interface Sent {
  readonly method?: string
  readonly target?: string
  readonly contentType?: string
  readonly maxBytes?: number
}

function capture(
  given: string | object,
  { method = 'POST', target = `${N}/pods`, contentType = '', maxBytes = 1e6 }: Sent = {},
): { readonly record: object; readonly text: string | undefined } {
  const body = Buffer.from(typeof given === 'string' ? given : JSON.stringify(given))
  const attributes = readSentRequest({ method, target, contentType, body })
  if ('problem' in attributes) throw new Error(attributes.problem)
  const { record, payloads } = captureBody(attributes, body, maxBytes)
  const [payload] = payloads
  if (payload === undefined) return { record, text: undefined }
  const { content, sha256 } = payload
  expect(createHash('sha256').update(content).digest('hex')).to.equal(sha256)
  expect(record).to.include({ sha256, bytes: content.length })
  return { record, text: Buffer.from(content).toString() }
}
const read = (...given: Parameters<typeof capture>): unknown =>
  JSON.parse(capture(...given).text ?? 'null')

describe('a captured body', () => {
  it('is the object whole, its bookkeeping too, in one form', () => {
    const text =
      '{"metadata":{"uid":"u","resourceVersion":"7","name":"p"},"kind":"Pod","spec":{"x":12345678901234567890.0},"status":{}}'
    expect(capture(text).text).to.equal(
      '{"kind":"Pod","metadata":{"name":"p","resourceVersion":"7","uid":"u"},"spec":{"x":12345678901234567890.0},"status":{}}',
    )
    expect(capture(text).record).to.include({ truncated: false })
    const yaml = 'kind: Pod\nmetadata:\n  name: "p"\n'
    expect(capture(yaml, { contentType: 'application/yaml' }).text).to.equal(
      '{"kind":"Pod","metadata":{"name":"p"}}',
    )
  })

  it('has no value of a Secret, whatever way it comes', () => {
    const data = { a: 'aHVudGVyMg==', b: null }
    const hidden = { data: { a: '***', b: null } }
    const at = { target: `${N}/secrets` }
    const one = { method: 'PATCH', target: `${N}/secrets/s` }
    expect(read({ kind: 'Secret', data }, at)).to.deep.equal({ kind: 'Secret', ...hidden })
    expect(read({ data }, one)).to.deep.equal(hidden)
    // a list does not say of its items what they are
    expect(read({ kind: 'SecretList', items: [{ data }] }, at)).to.deep.equal({
      ...{ kind: 'SecretList', items: [hidden] },
    })
    expect(read({ kind: 'X', spec: { kind: 'Secret', stringData: data } })).to.deep.equal({
      ...{ kind: 'X', spec: { kind: 'Secret', stringData: { a: '***', b: null } } },
    })
    const contentType = 'application/json-patch+json'
    const patch = [{ op: 'add', path: '/data/a', value: 'aHVudGVyMg==' }]
    expect(read(patch, { ...one, contentType })).to.deep.equal([{ ...patch[0], value: '***' }])
  })

  it('has no variable whose name promises a secret, by whatever path a patch gives', () => {
    const env = [
      { name: 'DB_PASSWORD', value: 'hunter2' },
      { name: 'DB_PASS', value: 'hunter2' },
      { name: 'PORT', value: '80' },
    ]
    expect(read({ spec: { containers: [{ env }] } })).to.deep.equal({
      spec: {
        containers: [
          {
            env: [{ name: 'DB_PASSWORD', value: '***' }, { name: 'DB_PASS', value: '***' }, env[2]],
          },
        ],
      },
    })
    const contentType = 'application/json-patch+json'
    for (const path of [
      '/spec/containers/0/env/0/value',
      '/spec/containers/0/env/-1/value',
      '/spec/containers/0/env/+0/value',
      '/data/PASSWORD',
      '/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration',
    ]) {
      const sent = { method: 'PATCH', target: `${N}/pods/p`, contentType }
      const { text } = capture([{ op: 'replace', path, value: 'hunter2' }], sent)
      expect(text, path).to.contain('***').and.not.to.contain('hunter2')
    }
  })

  it('has no value whose key or form promises a secret, in any kind', () => {
    const jwt = 'eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln'
    const secret = {
      ...{ password: 'a', apiKey: 'b', client_secret: 'c', 'tls.key': 'd', token: jwt },
      ...{ accessToken: 7, passwords: ['e', 8], nested: { auth: 'f' }, note: `Bearer ${jwt}` },
      pem: 'x\n-----BEGIN EC PRIVATE KEY-----\nMHc=',
      url: 'postgres://app:hunter2@db/shop',
    }
    const { text } = capture({ kind: 'Custom', spec: secret })
    expect(JSON.parse(text ?? '')).to.deep.equal({
      kind: 'Custom',
      spec: {
        ...{ password: '***', apiKey: '***', client_secret: '***', 'tls.key': '***' },
        ...{ token: '***', accessToken: '***', passwords: ['***', '***'] },
        ...{ nested: { auth: '***' }, note: '***', pem: '***', url: '***' },
      },
    })
  })

  it('has no value below a key that promises a secret, nor within a text that is JSON', () => {
    const note = JSON.stringify({ a: [{ clientSecret: 'hunter2', b: 'kept' }] })
    const spec = {
      password: { value: 'hunter2', other: 'kept' },
      apiKey: { plain: 7, secretKeyRef: { name: 'n' } },
      note,
    }
    expect(read({ kind: 'Custom', spec })).to.deep.equal({
      kind: 'Custom',
      spec: {
        password: { value: '***', other: 'kept' },
        apiKey: { plain: '***', secretKeyRef: { name: 'n' } },
        note: '{"a":[{"b":"kept","clientSecret":"***"}]}',
      },
    })
  })

  it('has nothing that detectors find, in commands, configuration and behind base64', () => {
    const encoded = Buffer.from('password=hunter2-planted').toString('base64')
    const { text = '' } = capture({
      kind: 'Pod',
      spec: { containers: [{ args: ['--password', 'hunter2-planted'], x: encoded }] },
      data: 'a\nAPI_TOKEN: hunter2-planted\n',
    })
    expect(text).not.to.contain('hunter2').and.not.to.contain(encoded)
    expect(text).to.contain('API_TOKEN: ***')
  })

  it('keeps what only says where a secret is, and what is none', () => {
    const spec = {
      ...{ secretName: 's', secretKeyRef: { name: 's', key: 'k' }, tokenPath: '/t' },
      ...{ expirationSeconds: 60, automountServiceAccountToken: false, topologyKey: 'zone' },
      ...{ image: 'registry:5000/a@sha256:00', url: 'https://db/a:b@c', tokenExpirationSeconds: 9 },
    }
    expect(read({ spec })).to.deep.equal({ spec })
  })

  it('is cut between characters, with a mark, after what is secret is gone', () => {
    const { record, text } = capture('{"a":"éé","token":"hunter2"}', { maxBytes: 8 })
    expect(text).to.equal('{"a":"é…[cut: 18 bytes]')
    expect(record).to.deep.include({ truncated: true })
    const exact = capture('{"a":"b"}', { maxBytes: 9 })
    expect([exact.text, exact.record]).to.deep.include('{"a":"b"}')
    expect(exact.record).to.include({ truncated: false })
  })

  it('is left out where it cannot be read, or is not for the API server', () => {
    const opaque = { record: { omitted: 'opaque' }, text: undefined }
    const proxied = { record: { omitted: 'proxied' }, text: undefined }
    const protobuf = 'application/vnd.kubernetes.protobuf'
    expect(capture('k8s\0{"a":1}', { contentType: protobuf })).to.deep.equal(opaque)
    // whatever it looks like
    expect(capture('{"a":1}', { contentType: protobuf })).to.deep.equal(opaque)
    expect(capture('{"a":1}', { target: `${N}/services/web:80/proxy/login` })).to.deep.equal(
      proxied,
    )
    expect(capture('{"a":1}', { target: '/custom' })).to.deep.equal(proxied)
  })
})
