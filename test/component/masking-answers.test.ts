/**
 * Answers on their way through a real broker: what the API server was asked for, what the client got, and what the ledger says. Whatever the API
 * server answers, no byte of the secret reaches a client that may not see it.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { HELD_BACK_BYTES } from '../../broker/gateway/passage.ts'
import { PLACEHOLDER_PREFIX } from '../../broker/masking/placeholder.ts'
import { rawUpgrade, rest } from '../support/remote-clients.ts'
import { startSessionWorld } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000
const N = '/api/v1/namespaces/agents'
const PROTOBUF = 'application/vnd.kubernetes.protobuf'
const JSON_TYPE = { 'content-type': 'application/json' }
/** What must not be seen, and as it stands in the Secret. */
const PASSWORD = 'correct-horse-battery'
const ENCODED = Buffer.from(PASSWORD).toString('base64')
/** What detectors find in a text. */
const KEY = 'AKIAIOSFODNN7EXAMPLE'
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list, watch], resources: ['*']}, effect: allow}
- {id: paths, match: {verbs: ['*'], nonResourceURLs: ['/*']}, effect: allow}
- {id: write, match: {verbs: [create, update, patch, delete], resources: [secrets]}, effect: allow}
- {id: connect, match: {verbs: [connect], resources: [pods/exec, pods/proxy, services/proxy, nodes/proxy]}, effect: allow}
`
/** A profile of an operator's, and a rule that shows all. */
const OWN_POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
masks:
- {name: specs, fields: [{group: apps, kind: Deployment, paths: [spec.note]}]}
rules:
- {id: shown, match: {verbs: [get, list], resources: [secrets]}, effect: allow, mask: none}
- {id: own, match: {verbs: [get], resources: [deployments], apiGroups: [apps]}, effect: allow, mask: specs}
`
const SECRET = {
  ...{ kind: 'Secret', apiVersion: 'v1', metadata: { name: 's', uid: 'u-1' } },
  data: { password: ENCODED },
}

interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

describe('masked answers', function () {
  this.timeout(SLOW_MS)
  let world: SessionWorld
  let client: Agent
  let usual: SessionWorld['upstream']['onRequest']
  let identity: Readonly<Record<string, string>>

  before(async () => {
    world = await startSessionWorld(POLICY)
    world.upstream.serves = {
      ...world.upstream.serves,
      '/apis/example.com/v1': [{ name: 'widgets', namespaced: true, verbs: ['get'] }],
    }
    usual = world.upstream.onRequest
    client = new Agent({ connect: { ca: world.ca } })
    identity = await world.as('repo:shop')
  })
  after(async () => {
    await client.destroy()
    await world.close()
  })
  afterEach(() => {
    world.upstream.onRequest = usual
    world.upstream.seen.length = 0
    world.kubelet.answer = undefined
  })

  const answerWith = (handler: Handler): void => {
    world.upstream.onRequest = handler
  }
  const answer = (body: Buffer | string, headers: object = JSON_TYPE, status = 200): void => {
    answerWith((_request, response) => {
      response.writeHead(status, { ...headers }).end(body)
    })
  }
  const open = (
    path: string,
    headers: Readonly<Record<string, string>> = {},
    method: 'GET' | 'HEAD' | 'POST' = 'GET',
  ) =>
    request(`https://127.0.0.1:${world.port}/clusters/test${path}`, {
      ...{ dispatcher: client, method, headers: { ...identity, ...headers } },
      ...(method === 'POST' ? { body: '{}' } : {}),
    })
  const get = async (...asked: Parameters<typeof open>): Promise<Reply> => {
    const { statusCode, headers, body } = await open(...asked)
    return { status: statusCode, headers, text: await body.text() }
  }
  /** The outcome of a request in the ledger. */
  const outcomeOf = async (headers: IncomingHttpHeaders): Promise<Record<string, unknown>> => {
    const id = String(headers['nestgate-request-id'])
    for (;;) {
      const { text } = await world.api('auditor', `/v1/audit/events?kind=outcome&requestId=${id}`)
      const { items } = JSON.parse(text) as { items: { entry: Record<string, unknown> }[] }
      if (items[0] !== undefined) return items[0].entry
      await sleep(20)
    }
  }
  const expectHidden = (text: string): void => {
    for (const secret of [PASSWORD, ENCODED, KEY]) expect(text).to.not.contain(secret)
  }

  it('hide values, say so, and say nothing else about them', async () => {
    answer(JSON.stringify(SECRET), {
      ...{ ...JSON_TYPE, etag: '"abc"', 'content-md5': 'x', 'audit-id': 'a' },
      warning: `299 - "aws key ${KEY} is deprecated"`,
    })
    const { status, headers, text } = await get(`${N}/secrets/s`, {
      accept: `${PROTOBUF}, application/json;q=0.5`,
      'accept-encoding': 'gzip',
      ...{ range: 'bytes=1-2', 'if-none-match': '"abc"' },
    })
    expect(status).to.equal(200)
    expectHidden(text + JSON.stringify(headers))
    const { data, ...others } = JSON.parse(text) as typeof SECRET
    expect(Buffer.from(data.password, 'base64').toString()).to.contain(PLACEHOLDER_PREFIX)
    expect(others).to.deep.include({ kind: 'Secret', metadata: SECRET.metadata })
    expect(headers).to.include({ 'content-length': String(text.length), 'audit-id': 'a' })
    expect(headers).to.not.have.any.keys('etag', 'content-md5')
    expect(String(headers.warning))
      .to.include('299 nestgate "masked 1 field: Secret data.password"')
      .and.to.include('is deprecated')
    const [seen] = world.upstream.seen
    expect(seen?.headers).to.include({
      accept: 'application/json;q=0.5',
      'accept-encoding': 'identity',
    })
    expect(seen?.headers).to.not.have.any.keys('range', 'if-none-match')
    const outcome = await outcomeOf(headers)
    expect(outcome).to.deep.include({
      ...{ status: 200, bytesToClient: text.length },
      masked: { profiles: ['standard'], count: 1, fields: ['Secret data.password'] },
    })
    const shown = await world.api('auditor', '/v1/audit/events?limit=100')
    expectHidden(shown.text)
  })

  it('are not asked for where the client takes none that can be masked', async () => {
    const { status, headers } = await get(`${N}/secrets/s`, { accept: PROTOBUF })
    expect([status, headers['nestgate-refused']]).to.deep.equal([406, 'not_acceptable'])
    expect(await outcomeOf(headers)).to.include({ status: 406, reason: 'not_acceptable' })
    expect(world.upstream.seen).to.have.length(0)
  })

  it('are as they are where policy lets them, and nothing else is asked for', async () => {
    const bytes = gzipSync(JSON.stringify(SECRET))
    const encoded = { 'content-type': PROTOBUF, 'content-encoding': 'gzip', etag: '"abc"' }
    for (const path of [`${N}/pods/p/proxy/x`, `${N}/services/s/proxy/`, '/openapi/v2', '/apis']) {
      answer(bytes, encoded)
      const { statusCode, headers, body } = await open(path, {
        ...{ accept: PROTOBUF, 'accept-encoding': 'gzip', 'if-none-match': '"x"' },
      })
      expect(statusCode, path).to.equal(200)
      expect(bytes.equals(Buffer.from(await body.arrayBuffer())), path).to.equal(true)
      expect(headers, path).to.include(encoded)
      expect(world.upstream.seen.at(-1)?.headers, path).to.include({
        ...{ accept: PROTOBUF, 'accept-encoding': 'gzip', 'if-none-match': '"x"' },
      })
      expect(await outcomeOf(headers), path).to.not.have.property('masked')
    }
  })

  it('are unpacked where they came compressed, which was not asked for', async () => {
    for (const name of ['gzip', 'X-GZIP']) {
      answer(gzipSync(JSON.stringify(SECRET)), { ...JSON_TYPE, 'content-encoding': name })
      const { status, headers, text } = await get(`${N}/secrets/s`)
      expect(status).to.equal(200)
      expect(headers).to.not.have.property('content-encoding')
      expect(JSON.parse(text)).to.have.property('kind', 'Secret')
      expectHidden(text)
    }
    answerWith((_request, response) => {
      response.writeHead(200, { ...JSON_TYPE, 'content-encoding': 'gzip' }).end()
    })
    const { statusCode, body } = await open(`${N}/secrets/s`, {}, 'HEAD')
    expect([statusCode, await body.text()]).to.deep.equal([200, ''])
  })

  it('are unpacked piece by piece, whatever their length', async () => {
    const items = Array.from({ length: 20_000 }, (_, index) => ({
      ...SECRET,
      metadata: { name: `s-${index}`, uid: `u-${index * 7919}` },
    }))
    const whole = gzipSync(JSON.stringify({ kind: 'SecretList', apiVersion: 'v1', items }))
    answerWith((_request, response) => {
      response.writeHead(200, { ...JSON_TYPE, 'content-encoding': 'gzip' })
      for (let at = 0; at < whole.length; at += 1000) response.write(whole.subarray(at, at + 1000))
      response.end()
    })
    const { headers, text } = await get(`${N}/secrets`)
    expect((JSON.parse(text) as { items: object[] }).items).to.have.length(20_000)
    expectHidden(text)
    expect(headers.warning).to.match(
      /^299 nestgate "masked at least \d+ fields: Secret data\.password"$/,
    )
    expect(await outcomeOf(headers)).to.have.nested.property('masked.count', 20_000)
  })

  const text = JSON.stringify(SECRET)
  const UNMASKABLE: readonly (readonly [string, Buffer | string, object, number?])[] = [
    ['protobuf', 'k8s\0' + text, { 'content-type': PROTOBUF }],
    ['CBOR', text, { 'content-type': 'application/cbor' }],
    ['YAML', text, { 'content-type': 'application/yaml' }],
    ['no type', text, {}],
    ['text in place of an object', text, { 'content-type': 'text/plain' }],
    ['two types', text, { 'content-type': 'text/plain, application/json' }],
    [
      'another charset',
      Buffer.from(text, 'utf16le'),
      { 'content-type': 'application/json; charset=utf-16' },
    ],
    ['half a document', text.slice(0, -1), JSON_TYPE],
    ['a document and more', `${text}{}`, JSON_TYPE],
    [
      'a key twice',
      `{"kind":"ConfigMap","kind":"Secret","data":{"password":"${ENCODED}"}}`,
      JSON_TYPE,
    ],
    ['a part', text, { ...JSON_TYPE, 'content-range': 'bytes 0-9/10' }, 206],
    ['brotli', brotliCompressSync(text), { ...JSON_TYPE, 'content-encoding': 'br' }],
    ['gzip twice', gzipSync(gzipSync(text)), { ...JSON_TYPE, 'content-encoding': 'gzip, gzip' }],
    ['no gzip', text, { ...JSON_TYPE, 'content-encoding': 'gzip' }],
    ['half a gzip', gzipSync(text).subarray(0, -9), { ...JSON_TYPE, 'content-encoding': 'gzip' }],
    ['a gzip that nobody tells of', gzipSync(text), JSON_TYPE],
    [
      'a long text of an error',
      `${PASSWORD} `.repeat(10_000),
      { 'content-type': 'text/plain' },
      500,
    ],
    ['an error of no kind', PASSWORD, { 'content-type': 'application/octet-stream' }, 500],
  ]
  for (const [name, body, headers, status] of UNMASKABLE)
    it(`are refused where they are ${name}`, async () => {
      answer(body, headers, status)
      const refused = await get(`${N}/secrets/s`)
      expect(refused.status).to.equal(502)
      expect(refused.headers['nestgate-refused']).to.equal('answer_unmaskable')
      expect(JSON.parse(refused.text)).to.include({ kind: 'Status', code: 502 })
      expectHidden(refused.text + JSON.stringify(refused.headers))
      const outcome = await outcomeOf(refused.headers)
      expect(outcome).to.include({ reason: 'answer_unmaskable', bytesToClient: 0 })
    })

  it('tell that a write was done, where its answer cannot be shown', async () => {
    answer('k8s\0', { 'content-type': PROTOBUF }, 201)
    const refused = await get(`${N}/secrets`, JSON_TYPE, 'POST')
    expect([refused.status, refused.text.includes('answered 201')]).to.deep.equal([502, true])
  })

  it('pass without a body, and say nothing of its length', async () => {
    answer('', {}, 204)
    expect((await get(`${N}/secrets/s`)).status).to.equal(204)
    answer('', {})
    expect((await get(`${N}/secrets/s`)).headers['content-length']).to.equal('0')
    answer('', { ...JSON_TYPE, 'content-length': '4711' })
    const head = await get(`${N}/secrets/s`, {}, 'HEAD')
    expect([head.status, head.headers['content-length']]).to.deep.equal([200, undefined])
  })

  it('break off where they go wrong behind what has gone out', async () => {
    const long = `{"kind":"SecretList","apiVersion":"v1","items":[${`${text},`.repeat(5000)}`
    answer(`${long}{"kind":"Secret","data":{"password":"${ENCODED}"}}`)
    const { statusCode, headers, body } = await open(`${N}/secrets`)
    let got = ''
    const broken = await (async () => {
      for await (const chunk of body) got += String(chunk)
    })().then(
      () => false,
      () => true,
    )
    expect([statusCode, broken]).to.deep.equal([200, true])
    expect(got.length).to.be.greaterThan(HELD_BACK_BYTES)
    expectHidden(got)
    const outcome = await outcomeOf(headers)
    expect(outcome).to.include({ status: 200, reason: 'answer_unmaskable' })
    expect(outcome).to.have.nested.property('masked.count').above(4000)
  })

  it('break off where they unpack to far more than objects do', async () => {
    for (const [type, path] of [
      ['application/json', `${N}/secrets`],
      ['text/plain', `${N}/pods/p/log`],
    ] as const) {
      answer(gzipSync(Buffer.alloc(64 * 1024 * 1024, ' ')), {
        ...{ 'content-type': type, 'content-encoding': 'gzip' },
      })
      const { headers, body } = await open(path)
      const broken = await body.text().then(
        () => false,
        () => true,
      )
      expect(broken, type).to.equal(true)
      const { reason, bytesToClient } = await outcomeOf(headers)
      expect(reason).to.equal('answer_unmaskable')
      expect(bytesToClient).to.be.lessThan(16 * 1024 * 1024)
    }
  })

  it('of a watch begin at once, event by event', async () => {
    let finish = (): void => undefined
    answerWith((_request, response) => {
      response
        .writeHead(200, JSON_TYPE)
        .write(`${JSON.stringify({ type: 'ADDED', object: SECRET })}\n`)
      finish = () => response.end(`{"type":"BOOKMARK","object":{"kind":"Secret"}}\n`)
    })
    const { headers, body } = await open(`${N}/secrets?watch=true`, {
      accept: `${PROTOBUF};stream=watch, application/json;stream=watch`,
    })
    expect(world.upstream.seen[0]?.headers.accept).to.equal('application/json;stream=watch')
    expect(headers['warning']).to.equal(
      '299 nestgate "values of secrets are masked in what is watched"',
    )
    const events: string[] = []
    for await (const chunk of body) {
      events.push(String(chunk))
      finish()
    }
    expect(events).to.have.length(2)
    expectHidden(events.join(''))
    const masked = { profiles: ['standard'], count: 1, fields: ['Secret data.password'] }
    expect(await outcomeOf(headers)).to.deep.include({ masked })
  })

  it('of a watch that fails are refused as any other', async () => {
    answer(JSON.stringify({ kind: 'Status', code: 410, message: 'too old' }), JSON_TYPE, 410)
    const gone = await get(`${N}/secrets?watch=true`)
    expect([gone.status, gone.headers.warning]).to.deep.equal([410, undefined])
    answer('{"kind":', JSON_TYPE, 410)
    expect((await get(`${N}/secrets?watch=true`)).status).to.equal(502)
  })

  it('of a log come line by line, and wait for what may be a secret for a moment only', async () => {
    let more: (line: string) => void = () => undefined
    let end = (): void => undefined
    answerWith((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' }).flushHeaders()
      more = (line) => response.write(line)
      end = () => response.end()
    })
    const { headers, body } = await open(`${N}/pods/p/log?follow=true`, { accept: '*/*' })
    expect(world.upstream.seen[0]?.headers).to.include({
      accept: '*/*',
      'accept-encoding': 'identity',
    })
    let got = ''
    body.on('data', (chunk: Buffer) => (got += String(chunk)))
    const until = async (what: string): Promise<number> => {
      const startMs = performance.now()
      while (!got.includes(what)) {
        if (performance.now() - startMs > 2000) throw new Error(`${what} did not come`)
        await sleep(5)
      }
      return performance.now() - startMs
    }
    more('begun\n')
    await until('begun\n')
    more(`id ${KEY.slice(0, 8)}`)
    more(`${KEY.slice(8)} used\n`)
    await until('used\n')
    more('waiting for AKIA')
    expect(await until('waiting for AKIA')).to.be.lessThan(400)
    end()
    await new Promise((resolve) => body.once('end', resolve))
    expect(got).to.equal(`begun\nid AKIA${'*'.repeat(KEY.length - 4)} used\nwaiting for AKIA`)
    const outcome = await outcomeOf(headers)
    expect(outcome).to.have.nested.property('masked.count', 1)
    expect(outcome).to.have.nested.property('masked.fields[0]').match(/^log /)
  })

  it('of errors are masked, in JSON and in text', async () => {
    const message = `invalid value: key ${KEY} is not known`
    answer(JSON.stringify({ kind: 'Status', apiVersion: 'v1', message }), JSON_TYPE, 422)
    const status = await get(`${N}/secrets/s`)
    answer(message, { 'content-type': 'text/plain; charset=utf-8' }, 500)
    const plain = await get(`${N}/secrets/s`)
    answer(message, {}, 500)
    const untyped = await get(`${N}/secrets/s`)
    expect([status.status, plain.status, untyped.status]).to.deep.equal([422, 500, 500])
    for (const one of [status, plain, untyped]) {
      expectHidden(one.text)
      expect(one.text).to.contain('is not known')
    }
    expect(plain.headers.warning).to.match(/^299 nestgate "masked 1 field: text /)
  })

  it('of errors about Secrets say no value, whatever kind they name', async () => {
    const message = `data: Invalid value: "${PASSWORD}": must be something else`
    answer(JSON.stringify({ kind: 'Status', apiVersion: 'v1', message }), JSON_TYPE, 422)
    const { status, text } = await get(`${N}/secrets/s`)
    expect(status).to.equal(422)
    expectHidden(text)
    expect(text).to.contain('must be something else')
  })

  it('of a node are masked where they can be, and else refused', async () => {
    answer(JSON.stringify({ kind: 'SecretList', items: [SECRET] }))
    const pods = await get('/api/v1/nodes/n/proxy/pods')
    answer(`log ${KEY}\n`, { 'content-type': 'text/plain' })
    const log = await get('/api/v1/nodes/n/proxy/logs/x')
    answer(`log ${KEY}\n`, { 'content-type': 'application/octet-stream' })
    const bytes = await get('/api/v1/nodes/n/proxy/logs/y')
    expect([pods.status, log.status, bytes.status]).to.deep.equal([200, 200, 502])
    expectHidden(pods.text + log.text + bytes.text)
  })

  it('of paths of which nothing is known are masked where they can be, and else refused', async () => {
    answer(`goroutine ${KEY}\n`, { 'content-type': 'text/plain' })
    const goroutines = await get('/debug/pprof/goroutine?debug=2')
    answer(gzipSync('heap'), { 'content-type': 'application/octet-stream' })
    const heap = await get('/debug/pprof/heap')
    expect([goroutines.status, heap.status]).to.deep.equal([200, 502])
    expectHidden(goroutines.text)
  })

  it('of sessions that the API server refuses are masked', async () => {
    const message = `the key ${KEY} is not allowed`
    const bodies = [
      [JSON.stringify({ kind: 'Status', message }), 'application/json', '403'],
      [message, 'text/plain', '403'],
      [`\0${KEY}`, 'application/octet-stream', '502'],
      [`{"kind":"Status","message":"${KEY}`, 'application/json', '502'],
    ] as const
    for (const [body, type, expected] of bodies) {
      world.kubelet.answer = (_request, socket) => {
        socket.end(
          `HTTP/1.1 403 Forbidden\r\nContent-Type: ${type}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
        )
        return true
      }
      const address = world.address('exec', 'command=sh&stdout=true')
      const { status, headers, socket } = await rawUpgrade(address, 'POST', [
        'Connection: Upgrade',
        'Upgrade: SPDY/3.1',
        'X-Stream-Protocol-Version: v4.channel.k8s.io',
      ])
      const all = JSON.stringify(headers) + (await rest(socket)).toString()
      expect(String(status)).to.equal(expected)
      expectHidden(all)
      if (expected === '403')
        expect(all).to.contain('is not allowed').and.to.contain('masked 1 field')
    }
  })

  describe('under rules that say how', () => {
    let own: SessionWorld
    let caller: Agent
    let headers: Readonly<Record<string, string>>

    before(async () => {
      own = await startSessionWorld(OWN_POLICY)
      caller = new Agent({ connect: { ca: own.ca } })
      headers = await own.as('repo:shop')
    })
    after(async () => {
      await caller.destroy()
      await own.close()
    })
    const ask = (path: string, accept: string) =>
      request(`https://127.0.0.1:${own.port}/clusters/test${path}`, {
        ...{ dispatcher: caller, headers: { ...headers, accept, 'accept-encoding': 'gzip' } },
      })

    it('are shown as they are where they say mask: none', async () => {
      own.upstream.onRequest = (_request, response) => {
        response.writeHead(200, { 'content-type': PROTOBUF, etag: '"a"' }).end(`k8s\0${ENCODED}`)
      }
      const shown = await ask(`${N}/secrets/s`, PROTOBUF)
      expect(await shown.body.text()).to.equal(`k8s\0${ENCODED}`)
      expect(shown.headers).to.include({ 'content-type': PROTOBUF, etag: '"a"' })
      expect(own.upstream.seen.at(-1)?.headers).to.include({
        ...{ accept: PROTOBUF, 'accept-encoding': 'gzip' },
      })
    })

    it('are asked for as objects where fields of the group are hidden', async () => {
      const object = { apiVersion: 'apps/v1', kind: 'Deployment', spec: { note: PASSWORD } }
      own.upstream.onRequest = (_request, response) => {
        response.writeHead(200, JSON_TYPE).end(JSON.stringify(object))
      }
      const table = 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'
      const path = '/apis/apps/v1/namespaces/agents/deployments/d'
      const hidden = await ask(path, table)
      expect(await hidden.body.text())
        .to.contain('Deployment')
        .and.to.not.contain(PASSWORD)
      expect(hidden.headers['warning']).to.contain('Deployment spec.note')
      expect(own.upstream.seen.at(-1)?.headers.accept).to.equal('application/json')
      const message = `spec.note: Invalid value: "${PASSWORD}": is not good`
      own.upstream.onRequest = (_request, response) => {
        response.writeHead(422, JSON_TYPE).end(JSON.stringify({ kind: 'Status', message }))
      }
      const refused = await (await ask(path, table)).body.text()
      expect(refused).to.contain('is not good').and.to.not.contain(PASSWORD)
    })
  })
})
