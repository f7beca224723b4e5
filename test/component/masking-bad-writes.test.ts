/**
 * Writes that would put a placeholder where a value was, or that would tell a value: in spellings that somebody might think of, through a
 * real broker. What matters is that nothing reaches the API server.
 */
import { gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { after, before, beforeEach, describe, it } from 'mocha'
import { startLyingServer } from '../support/lying-api-server.ts'
import type { LyingServer, Reply } from '../support/lying-api-server.ts'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: all, match: {verbs: ["*"], resources: ["*"]}, effect: allow}
`
const N = '/api/v1/namespaces/agents'
const SECRET = `${N}/secrets/s`
const JSON_PATCH = 'application/json-patch+json'
const MERGE = 'application/merge-patch+json'
const STRATEGIC = 'application/strategic-merge-patch+json'
const APPLY = 'application/apply-patch+yaml'
const JSON_TYPE = 'application/json'
const YAML = 'application/yaml'

const base64 = (text: string | Buffer): string => Buffer.from(text).toString('base64')
const wrapped = (text: string, columns: number): string =>
  text.replaceAll(new RegExp(`.{${columns}}`, 'g'), '$&\n')

describe('bad writes', () => {
  let server: LyingServer
  /** As it was shown to the client, and what is left of it without base64. */
  let encoded: string
  let placeholder: string

  const answer = (): void => {
    const body = JSON.stringify({
      kind: 'Secret',
      apiVersion: 'v1',
      metadata: { name: 's', uid: 'u', resourceVersion: '1' },
      data: { a: 'eA==' },
    })
    server.answer([
      `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    ])
  }

  before(async () => {
    server = await startLyingServer(POLICY)
    const { upstream } = server
    const names = (...all: readonly string[]): object[] =>
      all.map((name) => ({ name, namespaced: true, verbs: ['get'] }))
    upstream.serves = {
      ...upstream.serves,
      '/apis/example.com/v1': names('widgets', 'widgets/status'),
    }
    answer()
    const { body } = await server.ask('GET', SECRET)
    encoded = (JSON.parse(body.toString()) as { data: { a: string } }).data.a
    placeholder = Buffer.from(encoded, 'base64').toString()
    expect(placeholder).to.match(/^nestgate-masked-1-[0-9a-f]{18}$/)
  })

  beforeEach(() => {
    answer()
  })

  after(async () => {
    await server.close()
  })

  const written = (): readonly string[] =>
    server.seen
      .filter(({ method }) => method !== 'GET')
      .map(({ method, url, body }) => `${method} ${url} ${body}`)

  async function send(
    method: string,
    path: string,
    type: string,
    body: string | Buffer,
  ): Promise<Reply> {
    answer()
    return server.ask(method, path, type === '' ? {} : { 'content-type': type }, body)
  }

  async function expectRefused(
    what: string,
    status: number,
    method: string,
    path: string,
    type: string,
    body: string | Buffer,
  ): Promise<void> {
    const reply = await send(method, path, type, body)
    expect(written(), what).to.eql([])
    expect(reply.status, `${what}: ${reply.body.toString().slice(0, 300)}`).to.be.oneOf([
      status,
      // it can be read in two ways
      400,
    ])
    expect(reply.body.toString(), what).to.not.include('xxGUESSxx')
  }

  it('refuses a placeholder in each spelling of a body', async () => {
    const units = Array.from({ length: placeholder.length }, (_, at) => placeholder.charCodeAt(at))
    const escaped = units.map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`).join('')
    const upper = units
      .map((unit) => `\\u${unit.toString(16).toUpperCase().padStart(4, '0')}`)
      .join('')
    const hex = units.map((unit) => `\\x${unit.toString(16)}`).join('')
    const half = placeholder.length / 2
    const registries = base64(JSON.stringify({ auths: {}, [placeholder]: {} }))
    const applied = JSON.stringify({ kind: 'Secret', data: { a: encoded } })
    const rows: readonly (readonly [string, string, string | Buffer])[] = [
      ['base64', JSON_TYPE, `{"data":{"a":"${encoded}"}}`],
      ['plain', JSON_TYPE, `{"stringData":{"a":"${placeholder}"}}`],
      ['in a sentence', JSON_TYPE, `{"stringData":{"a":"x ${placeholder} y"}}`],
      ['the prefix alone', JSON_TYPE, `{"stringData":{"a":"${placeholder.slice(0, 18)}"}}`],
      ['escapes', JSON_TYPE, `{"stringData":{"a":"${escaped}"}}`],
      ['escapes in capitals', JSON_TYPE, `{"stringData":{"a":"${upper}"}}`],
      [
        'escaped base64',
        JSON_TYPE,
        `{"data":{"a":"\\u${encoded.charCodeAt(0).toString(16).padStart(4, '0')}${encoded.slice(1)}"}}`,
      ],
      ['base64 behind one byte', JSON_TYPE, `{"data":{"a":"${base64(`x${placeholder}`)}"}}`],
      ['base64 behind two bytes', JSON_TYPE, `{"data":{"a":"${base64(`xy${placeholder}z`)}"}}`],
      ['base64 twice', JSON_TYPE, `{"data":{"a":"${base64(encoded)}"}}`],
      [
        'base64 twice behind a byte',
        JSON_TYPE,
        `{"data":{"a":"${base64(`x${base64(`y${placeholder}`)}`)}"}}`,
      ],
      [
        'base64 with line ends',
        JSON_TYPE,
        `{"data":{"a":"${wrapped(encoded, 4).replaceAll('\n', '\\n')}"}}`,
      ],
      [
        'base64 with carriage returns',
        JSON_TYPE,
        `{"data":{"a":"${wrapped(encoded, 5).replaceAll('\n', '\\r\\n')}"}}`,
      ],
      ['base64 twice with line ends', JSON_TYPE, `{"data":{"a":"${base64(wrapped(encoded, 7))}"}}`],
      ['a registry file', JSON_TYPE, `{"data":{".dockerconfigjson":"${registries}"}}`],
      ['a key', JSON_TYPE, `{"stringData":{"${placeholder}":"x"}}`],
      [
        'a last-applied annotation',
        JSON_TYPE,
        JSON.stringify({
          metadata: {
            annotations: { 'kubectl.kubernetes.io/last-applied-configuration': applied },
          },
        }),
      ],
      ['an array in an array', JSON_TYPE, `[[["${placeholder}"]]]`],
      ['a member that is sent twice', JSON_TYPE, `{"data":{"a":"${encoded}"},"data":{"b":"eA=="}}`],
      [
        'a member that is sent twice, last',
        JSON_TYPE,
        `{"data":{"b":"eA=="},"data":{"a":"${encoded}"}}`,
      ],
      ['a BOM', JSON_TYPE, `\ufeff{"data":{"a":"${encoded}"}}`],
      ['another type', 'text/plain', `{"data":{"a":"${encoded}"}}`],
      ['no type', '', `{"data":{"a":"${encoded}"}}`],
      ['YAML', YAML, `data:\n  a: ${encoded}\n`],
      ['a literal block', YAML, `stringData:\n  a: |\n    ${placeholder}\n`],
      ['a folded block', YAML, `stringData:\n  a: >-\n    x\n    ${placeholder}\n`],
      [
        'base64 in a literal block',
        YAML,
        `data:\n  a: |\n    ${wrapped(encoded, 8).split('\n').join('\n    ')}\n`,
      ],
      [
        'base64 in a folded block',
        YAML,
        `data:\n  a: >\n    ${wrapped(encoded, 8).split('\n').join('\n\n    ')}\n`,
      ],
      ['escapes of YAML', YAML, `stringData:\n  a: "${hex}"\n`],
      [
        'a line that goes on',
        YAML,
        `stringData:\n  a: "${placeholder.slice(0, 10)}\\\n    ${placeholder.slice(10)}"\n`,
      ],
      ['an anchor', YAML, `x: &p "${placeholder}"\nstringData:\n  a: *p\n`],
      ['a binary tag', YAML, `stringData:\n  a: !!binary ${encoded}\n`],
      ['a second document', YAML, `a: b\n---\nstringData:\n  a: ${placeholder}\n`],
      [
        'protobuf',
        'application/vnd.kubernetes.protobuf',
        Buffer.concat([Buffer.from('k8s\0\n\x01'), Buffer.from(placeholder)]),
      ],
      [
        'CBOR',
        'application/cbor',
        Buffer.concat([Buffer.of(0xa1, 0x61, 0x61, 0x58, half), Buffer.from(placeholder)]),
      ],
    ]
    for (const [what, type, body] of rows)
      for (const [method, path] of [
        ['PUT', SECRET],
        ['POST', `${N}/secrets`],
      ] as const)
        await expectRefused(`${method} ${what}`, 422, method, path, type, body)
    for (const [what, type, body] of rows)
      if (type === JSON_TYPE)
        for (const patch of [MERGE, STRATEGIC])
          await expectRefused(`${patch} ${what}`, 422, 'PATCH', SECRET, patch, body)
      else if (type === YAML)
        await expectRefused(
          `apply ${what}`,
          422,
          'PATCH',
          `${SECRET}?force=true&fieldManager=x`,
          APPLY,
          body,
        )
  }).timeout(30_000)

  it('refuses a placeholder in operations, in other objects, and below them', async () => {
    const operations = [
      [{ op: 'add', path: '/data/a', value: encoded }],
      [{ op: 'replace', path: '/data', value: { a: encoded } }],
      [{ op: 'add', path: '/stringData', value: { a: [placeholder] } }],
      [
        { op: 'remove', path: '/x' },
        { op: 'add', path: '/stringData/b', value: `x${placeholder}` },
      ],
    ]
    for (const body of operations)
      await expectRefused(
        JSON.stringify(body),
        422,
        'PATCH',
        SECRET,
        JSON_PATCH,
        JSON.stringify(body),
      )
    const pod = JSON.stringify({
      spec: { containers: [{ env: [{ name: 'A', value: placeholder }] }] },
    })
    const paths = [
      '/apis/apps/v1/namespaces/agents/deployments/d',
      `${N}/pods/p`,
      `${N}/pods/p/status`,
      `${N}/pods/p/ephemeralcontainers`,
      '/apis/example.com/v1/namespaces/agents/widgets/w',
      '/apis/apps/v1/namespaces/agents/deployments/d/scale',
      `${N}/configmaps/c`,
    ]
    for (const path of paths) {
      await expectRefused(path, 422, 'PUT', path, JSON_TYPE, pod)
      await expectRefused(path, 422, 'PATCH', path, MERGE, pod)
    }
    await expectRefused(
      'delete',
      422,
      'DELETE',
      SECRET,
      JSON_TYPE,
      `{"preconditions":{"uid":"${placeholder}"}}`,
    )
    await expectRefused(
      'binaryData',
      422,
      'PUT',
      `${N}/configmaps/c`,
      JSON_TYPE,
      `{"binaryData":{"a":"${encoded}"}}`,
    )
  }).timeout(30_000)

  it('lets through what holds none, also in two parts that are none', async () => {
    for (const body of [
      `{"stringData":{"a":"nestgate-masked","b":"-1-00"}}`,
      `{"data":{"a":"${base64(gzipSync('x'))}"}}`,
    ]) {
      const reply = await send('PUT', SECRET, JSON_TYPE, body)
      expect(reply.status, body).to.equal(200)
      expect(written(), body).to.have.length(1)
    }
  })

  it('refuses operations that compare, copy or move what is hidden', async () => {
    const guess = base64('xxGUESSxx')
    const rows: readonly (readonly [string, object])[] = [
      [SECRET, { op: 'test', path: '/data/a', value: guess }],
      [SECRET, { op: 'test', path: '/data', value: { a: guess } }],
      [SECRET, { op: 'test', path: '', value: {} }],
      [SECRET, { op: 'test', path: '/data/tls.key', value: null }],
      [SECRET, { op: 'test', path: '/data/a~1b', value: guess }],
      [SECRET, { op: 'test', path: '/stringData/a', value: guess }],
      [
        SECRET,
        {
          op: 'test',
          path: '/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration',
          value: guess,
        },
      ],
      [SECRET, { op: 'test', path: '/metadata/annotations', value: {} }],
      [SECRET, { op: 'test', path: '/metadata', value: {} }],
      [SECRET, { op: 'copy', from: '/data/a', path: '/metadata/labels/a' }],
      [SECRET, { op: 'copy', from: '/data', path: '/metadata/labels' }],
      [SECRET, { op: 'copy', from: '', path: '/metadata/annotations/x' }],
      [SECRET, { op: 'move', from: '/data/a', path: '/metadata/annotations/a' }],
      [SECRET, { op: 'move', from: '/data', path: '/metadata/annotations' }],
      [SECRET, { from: '/data/a', path: '/metadata/labels/a', op: 'copy', value: 1 }],
      [
        '/apis/apps/v1/namespaces/agents/deployments/d',
        { op: 'test', path: '/spec/template/spec/containers/0/env/0/value', value: guess },
      ],
      [
        '/apis/apps/v1/namespaces/agents/deployments/d',
        { op: 'test', path: '/spec/template/spec/containers/0', value: {} },
      ],
      [
        '/apis/apps/v1/namespaces/agents/deployments/d',
        { op: 'test', path: '/spec/template/spec/containers/0/args/1', value: guess },
      ],
      [
        '/apis/apps/v1/namespaces/agents/deployments/d',
        {
          op: 'copy',
          from: '/spec/template/spec/containers/0/env/0/value',
          path: '/metadata/labels/x',
        },
      ],
      [
        `${N}/pods/p`,
        { op: 'copy', from: '/spec/containers/0/env/0/value', path: '/metadata/labels/x' },
      ],
      [`${N}/configmaps/c`, { op: 'copy', from: '/data/a', path: '/metadata/labels/x' }],
    ]
    for (const [path, operation] of rows) {
      const what = `${path} ${JSON.stringify(operation)}`
      const list = JSON.stringify([
        { op: 'add', path: '/metadata/labels/y', value: 'z' },
        operation,
      ])
      await expectRefused(what, 403, 'PATCH', path, JSON_PATCH, list)
      await expectRefused(`${what}, dry run`, 403, 'PATCH', `${path}?dryRun=All`, JSON_PATCH, list)
    }
  }).timeout(30_000)

  it('sends no operation that is spelled so that readers differ on it', async () => {
    const bodies = [
      '[{"op":"add","op":"test","path":"/data/a","value":"eA=="}]',
      '[{"op":"test","op":"add","path":"/metadata/labels/a","path":"/data/a","value":"eA=="}]',
      '[{"\\u006fp":"t\\u0065st","path":"/d\\u0061ta/a","value":"eA=="}]',
    ]
    for (const body of bodies) {
      const reply = await send('PATCH', SECRET, JSON_PATCH, body)
      expect(reply.status, body).to.be.greaterThan(399)
      expect(written(), body).to.eql([])
    }
  })

  it('refuses guesses by apply, by dry run and by selectors', async () => {
    const guess = JSON.stringify({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 's' },
      data: { a: base64('xxGUESSxx') },
    })
    // Everything but these and `0` is true to an API server, and of several the first counts.
    const applies = [
      '',
      '&force=false',
      '&force=FALSE',
      '&force=0',
      '&dryRun=All',
      '&force=false&force=true',
    ]
    for (const query of applies)
      await expectRefused(
        `apply ${query}`,
        403,
        'PATCH',
        `${SECRET}?fieldManager=x${query}`,
        APPLY,
        guess,
      )
    const selectors = [
      'fieldSelector=data.a%3DeA%3D%3D',
      'fieldSelector=metadata.name%3Ds%2Cdata.a%3Dx',
      'fieldSelector=stringData.a!%3Dx',
      'fieldSelector=%64ata.a%3Dx',
      'fieldSelector=data.a%3Dx&fieldSelector=metadata.name%3Ds',
    ]
    for (const query of selectors)
      for (const [method, path] of [
        ['GET', `${N}/secrets`],
        ['GET', `/api/v1/secrets`],
        ['GET', `${N}/secrets?watch=1`],
        ['DELETE', `${N}/secrets`],
      ] as const) {
        const url = `${path}${path.includes('?') ? '&' : '?'}${query}`
        const reply = await server.ask(method, url)
        expect(
          server.seen.filter((seen) => seen.url.includes('Selector')),
          url,
        ).to.eql([])
        expect(reply.status, url).to.be.oneOf([400, 403])
      }
    const good = await server.ask(
      'GET',
      `${N}/secrets?fieldSelector=metadata.name%3Ds,type%3DOpaque`,
    )
    expect(good.status).to.equal(200)
  }).timeout(30_000)

  it('shows nothing to who asks for it in other ways', async () => {
    const paths = [
      'nestgate.dev/unmask=true',
      'nestgate.dev%2Funmask=true',
      'nestgate.dev/unmask=1',
      'nestgate.dev/unmask=',
      'nestgate.dev/unmask',
      'NESTGATE.DEV/unmask=true',
      'nestgate.dev/unmask=true&nestgate.dev/unmask=false',
      'nestgate.dev/unmask=false',
    ]
    for (const query of paths) {
      answer()
      const reply = await server.ask('GET', `${SECRET}?${query}`)
      expect(reply.body.includes('eA=='), query).to.equal(false)
    }
    for (const headers of [
      { 'impersonate-user': 'admin' },
      { 'impersonate-group': 'system:masters' },
      { 'x-remote-user': 'admin' },
      { 'x-http-method-override': 'GET' },
      { range: 'bytes=0-10' },
      { 'if-none-match': '"x"' },
      { te: 'gzip' },
    ]) {
      answer()
      const reply = await server.ask('GET', SECRET, headers)
      expect(reply.body.includes('eA=='), JSON.stringify(headers)).to.equal(false)
      for (const seen of server.seen)
        expect(seen.headers['impersonate-user'], JSON.stringify(headers)).to.not.equal('admin')
    }
  })
})
