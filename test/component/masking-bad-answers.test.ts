/**
 * Answers that lie, break off or are no JSON, from a real socket through a real broker: no value of a Secret comes out, what is not whole is
 * not passed on as good, and the ledger says why.
 */
import { gzipSync, deflateSync, brotliCompressSync } from 'node:zlib'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { MASKING_REASONS } from '../../shared/reasons-masking.ts'
import { leaks } from '../support/masking-leaks.ts'
import { readAnswers } from '../support/masking-corpus.ts'
import { MARK } from '../support/masking-objects.ts'
import { startLyingServer } from '../support/lying-api-server.ts'
import type { LyingServer, Reply } from '../support/lying-api-server.ts'

const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: all, match: {verbs: ["*"], resources: ["*"]}, effect: allow}
`
const N = '/api/v1/namespaces/agents'
const ENCODED = Buffer.from(MARK).toString('base64')
const TINY = `{"kind":"Secret","data":{"a":"${ENCODED}"}}`
const JSON_TYPE = 'Content-Type: application/json'

/** A head and a body whose length is as it says. */
function whole(body: Buffer | string, ...headers: readonly string[]): Buffer {
  const bytes = Buffer.from(body)
  return Buffer.concat([head(200, `Content-Length: ${bytes.length}`, ...headers), bytes])
}

function head(status: number, ...headers: readonly string[]): Buffer {
  return Buffer.from([`HTTP/1.1 ${status} X`, ...headers, '', ''].join('\r\n'))
}

const chunk = (bytes: Buffer | string): Buffer =>
  Buffer.concat([
    Buffer.from(`${Buffer.byteLength(bytes).toString(16)}\r\n`),
    Buffer.from(bytes),
    Buffer.from('\r\n'),
  ])
const CHUNKED = head(200, JSON_TYPE, 'Transfer-Encoding: chunked')
const LAST_CHUNK = '0\r\n\r\n'
const inChunks = (parts: readonly (Buffer | string)[]): (Buffer | string)[] => [
  CHUNKED,
  ...parts.map(chunk),
  LAST_CHUNK,
]

function expectNothing({ body, rawHeaders, trailers }: Reply, what: string): void {
  const all = Buffer.concat([
    body,
    Buffer.from(`\n${rawHeaders.join('\n')}\n${JSON.stringify(trailers)}`),
  ])
  expect(leaks(all, MARK), `${what}: ${all.toString().slice(0, 2000)}`).to.equal(false)
}

describe('bad answers', () => {
  let server: LyingServer

  before(async () => {
    server = await startLyingServer(POLICY)
  })

  after(async () => {
    await server.close()
  })

  const get = (path = `${N}/secrets/s`): Promise<Reply> => server.ask('GET', path)

  /** A clear refusal, and an outcome that says the same. */
  async function expectRefused(what: string, path?: string): Promise<void> {
    const reply = await get(path)
    expectNothing(reply, what)
    expect([reply.status, reply.broken], `${what}: ${reply.body.toString().slice(0, 300)}`).to.eql([
      502,
      false,
    ])
    const status = JSON.parse(reply.body.toString()) as { kind: string; message: string }
    expect(status.kind, what).to.equal('Status')
    expect(status.message, what).to.include(MASKING_REASONS.answer_unmaskable.sentence)
    const outcome = await server.outcome()
    expect(JSON.stringify(outcome), what).to.include('"reason":"answer_unmaskable"')
    expect(leaks(Buffer.from(JSON.stringify(outcome)), MARK), what).to.equal(false)
  }

  /** Either a clear refusal or a whole document in which nothing is left. */
  async function expectHarmless(what: string, path?: string): Promise<Reply> {
    const reply = await get(path)
    expectNothing(reply, what)
    if (reply.broken) return reply
    if (reply.body.length > 0) JSON.parse(reply.body.toString())
    return reply
  }

  it('masks what is good, for comparison', async () => {
    server.answer([whole(TINY, JSON_TYPE)])
    const reply = await get()
    expectNothing(reply, 'good')
    expect(reply.status).to.equal(200)
    expect(JSON.parse(reply.body.toString())).to.have.nested.property('data.a')
    expect(reply.headers.warning).to.include('masked 1 field: Secret data.a')
    expect(await server.outcome()).to.have.nested.property('masked.count', 1)
  })

  it('refuses a Secret that breaks off, at each byte', async () => {
    for (let at = 1; at < TINY.length; at++) {
      server.answer([whole(TINY.slice(0, at), JSON_TYPE)])
      await expectRefused(TINY.slice(0, at))
    }
  }).timeout(60_000)

  it('refuses a Secret with a byte that belongs nowhere, at each byte', async () => {
    for (let at = 0; at < TINY.length; at++) {
      const bytes = Buffer.from(TINY)
      bytes[at] = 0
      server.answer([whole(bytes, JSON_TYPE)])
      await expectRefused(bytes.toString())
    }
  }).timeout(60_000)

  it('masks a Secret in chunks of one byte, and each byte of it in a packet of its own', async () => {
    for (const { name, bytes, shape } of readAnswers()) {
      if (bytes.length > 500 || shape === 'watch') continue
      server.answer(inChunks(Array.from(bytes, (byte) => Buffer.of(byte))))
      const reply = await get()
      expectNothing(reply, name)
      expect(reply.status, name).to.equal(200)
      JSON.parse(reply.body.toString())
    }
  }).timeout(60_000)

  const secret = (inner: string): string => `{"kind":"Secret",${inner}}`
  const data = `"data":{"a":"${ENCODED}"}`
  const bodies: readonly (readonly [string, string | Buffer])[] = [
    ['a BOM', `\ufeff${TINY}`],
    ['a second document', `${TINY}${TINY}`],
    ['a second document on its own line', `${TINY}\n${TINY}`],
    ['bytes behind the end', `${TINY}x`],
    ['NUL behind the end', `${TINY}\0`],
    ['data twice', secret(`${data},${data}`)],
    ['data twice, spelled by escapes', secret(`${data},"d\\u0061ta":{"a":"${ENCODED}"}`)],
    ['kind twice', `{"kind":"Secret",${data},"kind":"Pod"}`],
    ['kind twice, the good one first', `{"kind":"Pod",${data},"kind":"Secret"}`],
    ['kind twice, spelled by escapes', `{"\\u006bind":"Pod",${data},"kind":"Secret"}`],
    ['a key of data twice', secret(`"data":{"a":"${ENCODED}","a":"${ENCODED}"}`)],
    [
      'no UTF-8',
      Buffer.concat([
        Buffer.from('{"kind":"Secret","x":"'),
        Buffer.of(0xff),
        Buffer.from(`",${data}}`),
      ]),
    ],
    [
      'UTF-8 that breaks off',
      Buffer.concat([
        Buffer.from('{"kind":"Secret","x":"'),
        Buffer.of(0xe2, 0x82),
        Buffer.from(`",${data}}`),
      ]),
    ],
    [
      'overlong UTF-8',
      Buffer.concat([
        Buffer.from('{"kind":"Secret","x":"'),
        Buffer.of(0xc0, 0xaf),
        Buffer.from(`",${data}}`),
      ]),
    ],
    [
      'a surrogate in UTF-8',
      Buffer.concat([
        Buffer.from('{"kind":"Secret","x":"'),
        Buffer.of(0xed, 0xa0, 0x80),
        Buffer.from(`",${data}}`),
      ]),
    ],
    ['depth', `${'{"a":'.repeat(200)}${TINY}${'}'.repeat(200)}`],
    ['great depth', '['.repeat(500_000)],
    ['single quotes', TINY.replaceAll('"', "'")],
    ['a comment', secret(`/* */${data}`)],
    ['a trailing comma', secret(`${data},`)],
    ['NaN', secret(`${data},"n":NaN`)],
    ['a number that is none', secret(`${data},"n":01`)],
    ['a plus', secret(`${data},"n":+1`)],
    ['a raw line end in a string', secret(`"data":{"a":"${ENCODED}\n"}`)],
    ['an escape that is none', secret(`"data":{"a":"\\x${ENCODED}"}`)],
    ['protobuf', Buffer.from(`k8s\0\n\x0c\n\x02v1\x12\x06Secret\x12${MARK}`)],
    [
      'CBOR',
      Buffer.concat([Buffer.of(0xd9, 0xd9, 0xf7, 0xa1, 0x64), Buffer.from(`kindfSecret${MARK}`)]),
    ],
    ['YAML', `kind: Secret\ndata:\n  a: ${ENCODED}\n`],
    ['UTF-16', Buffer.from(TINY, 'utf16le')],
  ]
  for (const [what, body] of bodies)
    it(`refuses ${what}`, async () => {
      server.answer([whole(body, JSON_TYPE)])
      await expectRefused(what)
      // The same in a part of two bytes and a rest.
      const bytes = Buffer.from(body)
      server.answer(
        inChunks([bytes.subarray(0, 2), bytes.subarray(2)].filter(({ length }) => length > 0)),
      )
      await expectRefused(`${what}, in chunks`)
    })

  const types = [
    'text/html',
    'text/plain',
    'application/yaml',
    'application/vnd.kubernetes.protobuf',
    'application/vnd.kubernetes.protobuf;type=watch',
    'application/cbor',
    'application/octet-stream',
    'application/json, text/plain',
    'application/json;charset=utf-16',
    'application/json;charset=utf-7',
    '',
    'x',
  ]
  for (const type of types)
    it(`refuses a Secret of type «${type}»`, async () => {
      server.answer([whole(TINY, `Content-Type: ${type}`)])
      await expectRefused(type)
    })

  it('refuses a Secret without a type, and with two', async () => {
    server.answer([whole(TINY)])
    await expectRefused('none')
    server.answer([whole(TINY, JSON_TYPE, 'Content-Type: text/plain')])
    await expectHarmless('two')
  })

  it('masks or refuses errors that are a Secret, whatever their type', async () => {
    for (const type of [JSON_TYPE, 'Content-Type: text/plain', 'Content-Type: text/html', 'X: y'])
      for (const status of [400, 404, 500]) {
        server.answer([
          Buffer.concat([head(status, `Content-Length: ${TINY.length}`, type), Buffer.from(TINY)]),
        ])
        expectNothing(await get(), `${status} ${type}`)
      }
  })

  it('hides what detectors find in texts of errors', async () => {
    const text = `no way: password=${MARK}1`
    server.answer([
      Buffer.concat([
        head(500, `Content-Length: ${text.length}`, 'Content-Type: text/plain'),
        Buffer.from(text),
      ]),
    ])
    const reply = await get()
    expectNothing(reply, text)
    expect(reply.status).to.equal(500)
    expect(reply.body.toString()).to.include('no way')
  })

  describe('compressed', () => {
    const gzip = gzipSync(TINY)
    const encoded = (bytes: Buffer, encoding: string): Buffer =>
      whole(bytes, JSON_TYPE, `Content-Encoding: ${encoding}`)

    it('masks true gzip', async () => {
      server.answer([encoded(gzip, 'gzip')])
      const reply = await get()
      expectNothing(reply, 'gzip')
      expect(reply.status).to.equal(200)
      expect(reply.headers['content-encoding']).to.equal(undefined)
      expect(JSON.parse(reply.body.toString())).to.have.nested.property('data.a')
    })

    const lies: readonly (readonly [string, Buffer, string])[] = [
      ['gzip that is plain', Buffer.from(TINY), 'gzip'],
      ['plain that is gzip', gzip, 'identity'],
      ['gzip in gzip, said twice', gzipSync(gzip), 'gzip, gzip'],
      ['gzip in gzip, said once', gzipSync(gzip), 'gzip'],
      ['deflate', deflateSync(TINY), 'deflate'],
      ['brotli', brotliCompressSync(TINY), 'br'],
      ['an encoding that nobody knows', Buffer.from(TINY), 'x'],
      ['gzip that breaks off', gzip.subarray(0, -6), 'gzip'],
      ['gzip with a wrong sum', Buffer.concat([gzip.subarray(0, -8), Buffer.alloc(8)]), 'gzip'],
      ['two documents in two members', Buffer.concat([gzip, gzip]), 'gzip'],
      ['a bomb of zeros', gzipSync(Buffer.alloc(200 * 1024 * 1024)), 'gzip'],
      [
        'a bomb of one string',
        gzipSync(secret(`"data":{"a":"${'A'.repeat(100 * 1024 * 1024)}"}`)),
        'gzip',
      ],
    ]
    for (const [what, bytes, encoding] of lies)
      it(`refuses ${what}`, async () => {
        server.answer([encoded(bytes, encoding)])
        await expectRefused(what)
      }).timeout(60_000)

    it('lets nothing out of gzip with bytes behind it, or of a bomb of blanks', async () => {
      server.answer([encoded(Buffer.concat([gzip, Buffer.from(TINY)]), 'gzip')])
      await expectHarmless('behind')
      server.answer([encoded(gzipSync(`${' '.repeat(50 * 1024 * 1024)}${TINY}`), 'gzip')])
      await expectHarmless('blanks')
    }).timeout(60_000)
  })

  describe('large', () => {
    it('refuses a string above the bound, also one that nothing waits for', async () => {
      const long = 'A'.repeat(20 * 1024 * 1024)
      server.answer([whole(secret(`"data":{"a":"${long}"}`), JSON_TYPE)])
      await expectRefused('in data')
      server.answer([whole(`{"kind":"ConfigMap","data":{"a":"${long}"}}`, JSON_TYPE)])
      await expectRefused('in a ConfigMap')
      server.answer([whole(`{"kind":"X","${long}":1}`, JSON_TYPE)])
      await expectRefused('a key')
    }).timeout(60_000)

    it('refuses more before the kind than it can hold', async () => {
      const many = Array.from({ length: 200_000 }, (_, at) => `"k${at}":"${'v'.repeat(60)}"`).join()
      server.answer([whole(`{"data":{${many}},"kind":"Secret"}`, JSON_TYPE)])
      const reply = await get()
      expect(reply.body.includes('vvvv'), reply.body.toString().slice(0, 200)).to.equal(false)
      expect([reply.status, reply.broken]).to.eql([502, false])
    }).timeout(60_000)

    it('masks many keys', async () => {
      const many = Array.from({ length: 100_000 }, (_, at) => `"k${at}":"${ENCODED}"`).join()
      server.answer([whole(secret(`"data":{${many}}`), JSON_TYPE)])
      const reply = await get()
      expect(reply.body.includes(ENCODED)).to.equal(false)
      expect([reply.status, reply.broken]).to.eql([200, false])
      const found = JSON.parse(reply.body.toString()) as { data: object }
      expect(Object.keys(found.data)).to.have.length(100_000)
    }).timeout(60_000)

    const item = `{"metadata":{"name":"${'n'.repeat(300)}"},${data}}`
    const list = (count: number, rest: string): string =>
      `{"kind":"SecretList","apiVersion":"v1","items":[${new Array(count).fill(item).join()}${rest}`

    it('refuses a list that goes wrong early', async () => {
      server.answer([whole(list(100, ',x]}'), JSON_TYPE)])
      await expectRefused('early')
    })

    it('breaks off a list that goes wrong late, and says so in the ledger', async () => {
      for (const rest of [
        ',x]}',
        ']',
        ']}x',
        `],"items":[${item}]}`,
        `,{${data},"d\\u0061ta":1}]}`,
      ]) {
        server.answer([whole(list(3000, rest), JSON_TYPE)])
        const reply = await get(`${N}/secrets`)
        expect(reply.body.includes(ENCODED), rest).to.equal(false)
        expect([reply.status, reply.broken], rest).to.eql([200, true])
        expect(await server.outcome(), rest).to.have.property('reason', 'answer_unmaskable')
      }
    }).timeout(60_000)
  })

  describe('framed badly', () => {
    it('passes on nothing of a body that is shorter than it says', async () => {
      server.answer([head(200, JSON_TYPE, `Content-Length: ${TINY.length + 10}`), TINY], true)
      const reply = await get()
      expectNothing(reply, 'shorter')
      expect(reply.status === 502 || reply.broken, `${reply.status}`).to.equal(true)
    })

    it('refuses a body that is longer than it says', async () => {
      server.answer([head(200, JSON_TYPE, `Content-Length: ${TINY.length - 5}`), TINY], true)
      const reply = await get()
      expectNothing(reply, 'longer')
      expect([reply.status, reply.broken]).to.eql([502, false])
    })

    const frames: readonly (readonly [string, readonly (Buffer | string)[]])[] = [
      [
        'both lengths',
        [
          head(200, JSON_TYPE, 'Content-Length: 5', 'Transfer-Encoding: chunked'),
          chunk(TINY),
          LAST_CHUNK,
        ],
      ],
      [
        'two lengths',
        [head(200, JSON_TYPE, 'Content-Length: 5', `Content-Length: ${TINY.length}`), TINY],
      ],
      ['a chunk that breaks off', [CHUNKED, chunk(TINY).subarray(0, -10)]],
      ['no last chunk', [CHUNKED, chunk(TINY)]],
      ['no length', [head(200, JSON_TYPE), TINY]],
      ['a bad chunk length', [CHUNKED, `zz\r\n${TINY}\r\n`, LAST_CHUNK]],
      ['a head that is none', [`HTTP/1.1 200 OK\r\n${TINY}\r\n\r\n`]],
      ['no head', [TINY]],
      ['nothing', ['']],
      [
        'transfer gzip',
        [
          head(200, JSON_TYPE, 'Transfer-Encoding: gzip, chunked'),
          chunk(gzipSync(TINY)),
          LAST_CHUNK,
        ],
      ],
    ]
    for (const [what, pieces] of frames)
      it(`lets nothing out of ${what}`, async () => {
        server.answer(pieces, true)
        await expectHarmless(what)
      })

    it('passes on neither trailers nor information that comes before', async () => {
      server.answer([
        `HTTP/1.1 103 Early Hints\r\nX-Secret: ${MARK}\r\n\r\n`,
        head(200, JSON_TYPE, 'Transfer-Encoding: chunked', 'Trailer: X-Secret'),
        chunk(TINY),
        `0\r\nX-Secret: ${MARK}\r\n\r\n`,
      ])
      expectNothing(await get(), 'trailers')
    })

    it('passes on no redirect with a Secret, and no body where there is none', async () => {
      for (const status of [301, 302, 307, 308, 304, 204, 205, 206, 300, 101]) {
        server.answer(
          [
            Buffer.concat([
              head(
                status,
                JSON_TYPE,
                `Content-Length: ${TINY.length}`,
                `Location: /x?${MARK}`,
                `ETag: "${MARK}"`,
              ),
              Buffer.from(TINY),
            ]),
          ],
          true,
        )
        const reply = await get().catch(() => undefined)
        if (reply !== undefined && reply.status !== 204 && reply.status !== 304)
          expectNothing({ ...reply, rawHeaders: [] }, `${status}`)
        if (reply !== undefined) expect(leaks(reply.body, MARK), `${status}`).to.equal(false)
      }
    }).timeout(30_000)

    it('passes on an empty answer as it is, or refuses it', async () => {
      server.answer([head(200, JSON_TYPE, 'Content-Length: 0')])
      const reply = await get()
      if (reply.status !== 502) expect([reply.status, reply.body.length]).to.eql([200, 0])
    })
  })

  describe('watches', () => {
    const event = (object: string, order = false): string =>
      order ? `{"object":${object},"type":"ADDED"}\n` : `{"type":"ADDED","object":${object}}\n`
    const pod = '{"kind":"Pod","spec":{}}'
    const late = `{${data},"kind":"Secret"}`
    const watch = (): Promise<Reply> => get(`${N}/secrets?watch=1`)

    it('masks events that switch kinds, and kinds that come late, in one chunk and byte by byte', async () => {
      const text = [
        event(pod),
        event(TINY),
        event(late),
        event(late, true),
        event(`{${data}}`),
      ].join('')
      for (const parts of [[text], Array.from(text)]) {
        server.answer(inChunks(parts))
        const reply = await watch()
        expectNothing(reply, 'switch')
        expect([reply.status, reply.broken]).to.eql([200, false])
        const lines = reply.body.toString().trim().split('\n')
        expect(lines).to.have.length(5)
        expect(lines[0]).to.equal(event(pod).trim())
        for (const line of lines) JSON.parse(line)
        expect(await server.outcome()).to.have.nested.property('masked.count', 4)
      }
    }).timeout(30_000)

    it('breaks off behind a bad event, and says so in the ledger', async () => {
      const bad = [
        'x',
        '{"type":"ADDED"',
        event(`{"kind":"Pod",${data},"kind":"Secret"}`),
        '\ufeff',
        'k8s\0',
        '{"a":1}}',
      ]
      for (const rest of bad) {
        server.answer(inChunks([event(TINY), rest]))
        const reply = await watch()
        expectNothing(reply, rest)
        expect([reply.status, reply.broken], rest).to.eql([200, true])
        expect(await server.outcome(), rest).to.have.property('reason', 'answer_unmaskable')
      }
    })

    it('ends as it should without events', async () => {
      server.answer(inChunks([]))
      const empty = await watch()
      expect([empty.status, empty.broken, empty.body.length]).to.eql([200, false, 0])
      server.answer(inChunks(['\n']))
      const blank = await watch()
      expect([blank.status, blank.broken]).to.eql([200, false])
    })

    it('refuses a watch of another type', async () => {
      for (const type of [
        'application/vnd.kubernetes.protobuf;stream=watch',
        'application/cbor-seq',
        'text/plain',
      ]) {
        server.answer([whole(event(TINY), `Content-Type: ${type}`)])
        const reply = await watch()
        expectNothing(reply, type)
        expect(reply.status, type).to.equal(502)
      }
    })
  })

  describe('of other forms', () => {
    it('hides by the kind of the answer, whatever was asked for', async () => {
      const paths = [
        `${N}/pods/p`,
        `${N}/configmaps`,
        `${N}/pods/p/status`,
        `${N}/pods/p?pretty=true`,
        `${N}//secrets/s`,
        `${N}/pods/p/ephemeralcontainers`,
        `${N}/serviceaccounts/s/token`,
        '/api/v1/secrets?limit=1&continue=x',
        '/apis/apps/v1/namespaces/agents/deployments/d/scale',
        '/api/v1/nodes/n/proxy/pods',
        '/api/v1/nodes/n:10250/proxy/runningpods/',
        '/api/v1/watch/namespaces/agents/pods/p',
        '/apis/example.com/v1/widgets/w',
        '/apis/example.com/v1/widgets/w/anything',
      ]
      server.answer([whole(TINY, JSON_TYPE)])
      for (const path of paths) expectNothing(await get(path), path)
      for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS', 'LIST'])
        for (const path of [`${N}/secrets/s`, `${N}/pods/p`, `${N}/secrets`])
          expectNothing(
            await server.ask(
              method,
              path,
              { 'content-type': 'application/json' },
              method === 'HEAD' ? undefined : '{}',
            ),
            `${method} ${path}`,
          )
    }).timeout(30_000)

    it('asks for nothing but JSON, however the client asks', async () => {
      const accepts = [
        'application/vnd.kubernetes.protobuf, application/json',
        'application/json;as=Table;v=v1;g=meta.k8s.io,application/json',
        '*/*',
        'application/*',
        'application/cbor;q=1, application/json;q=0.1',
        'application/yaml, application/json',
        'APPLICATION/JSON',
      ]
      for (const accept of accepts) {
        server.answer([whole(TINY, JSON_TYPE)])
        const reply = await server.ask('GET', `${N}/secrets/s`, {
          accept,
          'accept-encoding': 'gzip, br',
        })
        expectNothing(reply, accept)
        expect(reply.status, accept).to.equal(200)
        const seen = server.seen.find(({ url }) => url.includes('secrets'))
        expect(seen?.headers.accept, accept).to.match(/^application\/json/i)
        expect(seen?.headers.accept, accept).to.not.match(/protobuf|cbor|yaml|\*/i)
        expect(seen?.headers['accept-encoding'] ?? 'identity', accept).to.equal('identity')
      }
      for (const accept of [
        'application/vnd.kubernetes.protobuf',
        'application/yaml',
        'text/html',
        'application/json;q=0',
      ]) {
        server.answer([whole(TINY, JSON_TYPE)])
        const reply = await server.ask('GET', `${N}/secrets/s`, { accept })
        expectNothing(reply, accept)
        expect(reply.status, accept).to.equal(406)
        expect(
          server.seen.filter(({ url }) => url.includes('secrets')),
          accept,
        ).to.eql([])
      }
    })

    it('hides in lists in lists, and leaves what only looks like a Secret', async () => {
      const inner = `{"kind":"List","items":[{"kind":"List","items":[${TINY},{"kind":"SecretList","items":[{${data}}]}]}]}`
      server.answer([whole(inner, JSON_TYPE)])
      const reply = await get()
      expectNothing(reply, 'lists')
      expect(reply.headers.warning).to.include('masked 2 fields')
      const text =
        '{"kind":"Node","metadata":{"labels":{"a":"{\\"kind\\":\\"Secret\\",\\"data\\":{\\"a\\":\\"eA==\\"}}"}},"x":"\\u0000\\ud800"}'
      server.answer([whole(text, JSON_TYPE)])
      expect((await get()).body.toString()).to.equal(text)
    })

    it('hides in logs what is split over chunks', async () => {
      const log = `start\npassword=${MARK}1 end\ntoken: ${MARK}aB3dE5gH7\n`
      for (let at = 1; at < log.length; at += 3) {
        server.answer([
          head(200, 'Content-Type: text/plain', 'Transfer-Encoding: chunked'),
          chunk(log.slice(0, at)),
          chunk(log.slice(at)),
          LAST_CHUNK,
        ])
        const reply = await get(`${N}/pods/p/log`)
        expectNothing(reply, `${at}`)
        expect(reply.body.toString()).to.match(/^start\n/)
      }
    }).timeout(30_000)
  })
})
