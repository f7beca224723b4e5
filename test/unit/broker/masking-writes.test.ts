/** Placeholders in the bodies of requests: however they are spelled, and where they are said to be. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { createPlaceholders } from '../../../broker/masking/placeholder.ts'
import { findPlaceholders, MAX_FIELDS } from '../../../broker/masking/writes/find.ts'
import { hasPlaceholder, hasPlaceholderBytes } from '../../../broker/masking/writes/needles.ts'
import { parseTarget } from '../../../shared/kubernetes/path.ts'
import { readAttributes } from '../../../shared/kubernetes/request-attributes.ts'
import { readRequestInfo } from '../../../shared/kubernetes/request-info.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { Refusal } from '../../../shared/reasons.ts'
import { reasonInStatus, statusAnswer } from '../../../shared/status.ts'

const PLACEHOLDER = createPlaceholders(Buffer.alloc(32, 7), 'test').of('uid-1')('data.password')
const N = '/api/v1/namespaces/agents'

const base64 = (text: string): string => Buffer.from(text).toString('base64')

/** As `base64` prints it. */
const wrapped = (text: string, columns = 76): string =>
  base64(text).replaceAll(new RegExp(`.{${columns}}`, 'g'), '$&\n')

function found(
  method: string,
  url: string,
  body: string | Buffer | object,
  contentType = 'application/json',
): Refusal | undefined {
  const target = parseTarget(url)
  if (isRefusal(target)) throw new Error(target.refused)
  const info = readRequestInfo(method, target)
  if (isRefusal(info)) throw new Error(info.refused)
  const bytes = Buffer.isBuffer(body)
    ? body
    : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
  const attributes = readAttributes({ method, target, info, contentType, body: bytes })
  if (isRefusal(attributes)) throw new Error(`${attributes.refused} ${attributes.detail ?? ''}`)
  return findPlaceholders(attributes, bytes)
}

describe('placeholders in a text', () => {
  for (const before of ['', 'x', 'xy', 'xyz']) {
    for (const [name, encode] of [
      ['base64', 'base64'],
      ['the URL-safe alphabet', 'base64url'],
    ] as const) {
      it(`are found in ${name}, behind ${before.length} bytes, once and twice`, () => {
        const once = Buffer.from(`${before}${PLACEHOLDER}\xff`, 'latin1').toString(encode)
        const twice = Buffer.from(`${before}${once}`).toString(encode)
        expect(hasPlaceholder(once)).to.equal(true)
        expect(hasPlaceholder(`auth: "${once}"`)).to.equal(true)
        expect(hasPlaceholder(twice)).to.equal(true)
        expect(hasPlaceholder(`auth=${twice}&x`)).to.equal(true)
        expect(hasPlaceholderBytes(Buffer.from(`\0${twice}\0`))).to.equal(true)
      })
    }
  }

  it('are found where base64 was broken into lines, once and twice, and indented', () => {
    for (let pad = 40; pad < 80; pad++) {
      const once = wrapped('.'.repeat(pad) + PLACEHOLDER)
      expect(once).to.match(/\n/)
      expect(hasPlaceholder(once), `pad ${pad}`).to.equal(true)
      expect(hasPlaceholder(once.replaceAll('\n', '\r\n      '))).to.equal(true)
      expect(hasPlaceholder(base64(once)), `inner lines, pad ${pad}`).to.equal(true)
      expect(hasPlaceholder(wrapped(once)), `lines of both, pad ${pad}`).to.equal(true)
    }
  })

  it('are no other texts', () => {
    for (const text of ['', 'nestgate', 'nestgate-masked-', 'x'.repeat(10_000), base64('nestgate')])
      expect(hasPlaceholder(text), text).to.equal(false)
    expect(hasPlaceholder(PLACEHOLDER.toUpperCase())).to.equal(false)
  })

  it('cost no more than the body is long', () => {
    const body = Object.fromEntries(
      Array.from({ length: 60_000 }, (_, index) => [`k${index}`, `value of the key ${index}`]),
    )
    const began = performance.now()
    expect(found('POST', `${N}/configmaps`, { data: body })).to.equal(undefined)
    for (const text of ['bmVzdGdhdGU'.repeat(200_000), 'nestgate-'.repeat(200_000)])
      expect(hasPlaceholder(text)).to.equal(false)
    expect(performance.now() - began).to.be.below(3000)
  })
})

describe('placeholders in a request', () => {
  const fields = (refusal: Refusal | undefined): readonly string[] => refusal?.fields ?? []

  it('are refused by the field, in JSON and in YAML, whatever escapes spell them', () => {
    const escaped = PLACEHOLDER.replaceAll('-', '\\u002d').replaceAll('n', '\\u006e')
    const cases: readonly (readonly [string, string, string])[] = [
      [`{"data":{"password":"${base64(PLACEHOLDER)}"}}`, 'application/json', 'data.password'],
      [`{"stringData":{"tls.key":"${escaped}"}}`, '', 'stringData["tls.key"]'],
      [`stringData:\n  password: ${PLACEHOLDER}\n`, 'application/yaml', 'stringData.password'],
      [`data:\n  a: |\n    ${PLACEHOLDER}\n`, 'application/apply-patch+yaml', 'data.a'],
    ]
    for (const [body, type, field] of cases) {
      const refusal = found(type.includes('apply') ? 'PATCH' : 'PUT', `${N}/secrets/s`, body, type)
      expect(refusal?.refused, body).to.equal('placeholder_written')
      expect(fields(refusal), body).to.deep.equal([field])
    }
  })

  it('are refused in lists, in annotations, in registry files and in keys', () => {
    const pod = {
      spec: { containers: [{ env: [{ name: 'A' }, { name: 'B', value: PLACEHOLDER }] }] },
      metadata: { annotations: { copy: JSON.stringify({ data: { a: PLACEHOLDER } }) } },
    }
    expect(fields(found('PUT', `${N}/pods/p`, pod))).to.deep.equal([
      'spec.containers[0].env[1].value',
      'metadata.annotations.copy',
    ])
    const file = JSON.stringify({ auths: { [PLACEHOLDER]: {} } })
    expect(
      fields(found('POST', `${N}/secrets`, { data: { '.dockerconfigjson': base64(file) } })),
    ).to.deep.equal(['data[".dockerconfigjson"]'])
    expect(
      fields(found('POST', `${N}/secrets`, { data: { [PLACEHOLDER]: 'eA==' } })),
    ).to.deep.equal(['data.(key)'])
  })

  it('of a JSON patch are named by the operation', () => {
    const patch = [
      { op: 'add', path: '/metadata/labels/a', value: 'b' },
      { op: 'replace', path: '/data', value: { 'a/b': base64(PLACEHOLDER) } },
    ]
    const refusal = found('PATCH', `${N}/secrets/s`, patch, 'application/json-patch+json')
    expect(fields(refusal)).to.deep.equal(['operation 1: replace /data/a~1b'])
  })

  it('are found in bodies that are not looked into', () => {
    for (const type of ['application/vnd.kubernetes.protobuf', 'application/cbor']) {
      const body = Buffer.from(`k8s\0\x12\x24${PLACEHOLDER}\xff`, 'latin1')
      expect(fields(found('PUT', `${N}/secrets/s`, body, type))).to.deep.equal(['(body)'])
      const lines = Buffer.from(`k8s\0${wrapped('.'.repeat(50) + PLACEHOLDER)}\xff`, 'latin1')
      expect(fields(found('PUT', `${N}/secrets/s`, lines, type))).to.deep.equal(['(body)'])
    }
  })

  it('name no more fields than fit', () => {
    const data = Object.fromEntries(
      Array.from({ length: 50 }, (_, index) => [`k${index}`, base64(PLACEHOLDER)]),
    )
    const refusal = found('PUT', `${N}/secrets/s`, { data })
    expect(fields(refusal)).to.have.length(MAX_FIELDS)
    expect(refusal?.detail).to.match(/, …$/)
  })

  it('are nobody’s where a program is spoken to, or in a name', () => {
    expect(found('POST', `${N}/services/web/proxy/x`, `{"a":"${PLACEHOLDER}"}`)).to.equal(undefined)
    expect(found('POST', '/healthz', `{"a":"${PLACEHOLDER}"}`)).to.equal(undefined)
    expect(found('DELETE', `${N}/secrets/${PLACEHOLDER}`, '')).to.equal(undefined)
  })

  it('are told as kubectl shows them best', () => {
    const refusal = found('PUT', `${N}/secrets/s`, {
      data: { a: base64(PLACEHOLDER), b: base64(PLACEHOLDER) },
    })
    if (refusal === undefined) throw new Error('not found')
    const { status, body } = statusAnswer(refusal, 'r-1')
    expect(status).to.equal(422)
    expect(body).not.to.contain(PLACEHOLDER)
    expect(reasonInStatus(body)).to.equal('placeholder_written')
    const { reason, details } = JSON.parse(body) as {
      reason: string
      details: { causes: { field: string }[] }
    }
    expect(reason).to.equal('Invalid')
    expect(details.causes.map(({ field }) => field)).to.deep.equal([
      'data.a',
      'data.b',
      'nestgate.dev/request-id',
    ])
  })
})
