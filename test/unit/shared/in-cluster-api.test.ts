/** The client of the in-cluster API server, against a real HTTPS server. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { ApiError, createInClusterApi } from '../../../shared/in-cluster-api.ts'
import type { InClusterApi, InClusterOptions } from '../../../shared/in-cluster-api.ts'
import { makeCertificates } from '../../support/certificates.ts'

interface Seen {
  readonly method: string | undefined
  readonly url: string | undefined
  readonly authorization: string | undefined
  readonly type: string | undefined
  readonly body: string
}

describe('in-cluster API server', () => {
  const dir = mkdtempSync(join(tmpdir(), 'nestgate-in-cluster-'))
  const files = { caFile: join(dir, 'ca.crt'), tokenFile: join(dir, 'token') }
  const pair = makeCertificates({ hosts: ['127.0.0.1'] })
  const seen: Seen[] = []
  const opened: InClusterApi[] = []
  let answer: (request: IncomingMessage, response: ServerResponse) => void
  let server: Server
  let url: string

  before(async () => {
    server = createServer({ cert: pair.cert, key: pair.key }, (request, response) => {
      let body = ''
      request.on('data', (chunk: Buffer) => (body += chunk.toString()))
      request.on('end', () => {
        const { authorization, 'content-type': type } = request.headers
        seen.push({ method: request.method, url: request.url, authorization, type, body })
        answer(request, response)
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  })
  beforeEach(() => {
    seen.length = 0
    writeFileSync(files.caFile, pair.ca)
    writeFileSync(files.tokenFile, 'first\n', { mode: 0o600 })
    answer = (_request, response) => response.end('{"kind":"Thing"}')
  })
  afterEach(async () => {
    for (const api of opened.splice(0)) await api.close()
  })
  after(() => {
    server.closeAllConnections()
    server.close()
    rmSync(dir, { recursive: true })
  })

  const open = (options?: InClusterOptions): InClusterApi => {
    const api = createInClusterApi({ server: url, ...files }, options)
    opened.push(api)
    return api
  }
  const failure = async (work: Promise<unknown>): Promise<ApiError> => {
    try {
      await work
    } catch (error) {
      expect(error).to.be.instanceOf(ApiError)
      return error as ApiError
    }
    throw new Error('it was done')
  }

  it('sends what it is told, as its service account', async () => {
    const api = open()
    expect(await api.get('/version?x=1')).to.deep.equal({ kind: 'Thing' })
    await api.create('/api/v1/things', { a: 1 })
    await api.update('/api/v1/things/a', { a: 2 })
    await api.patch('/api/v1/things/a', 'json', [])
    await api.patch('/api/v1/things/a', 'merge', {})
    expect(seen.map(({ method, url: at, type, body }) => [method, at, type, body])).to.deep.equal([
      ['GET', '/version?x=1', undefined, ''],
      ['POST', '/api/v1/things', 'application/json', '{"a":1}'],
      ['PUT', '/api/v1/things/a', 'application/json', '{"a":2}'],
      ['PATCH', '/api/v1/things/a', 'application/json-patch+json', '[]'],
      ['PATCH', '/api/v1/things/a', 'application/merge-patch+json', '{}'],
    ])
    expect(new Set(seen.map(({ authorization }) => authorization))).to.deep.equal(
      new Set(['Bearer first']),
    )
  })

  it('takes a new token and a new CA without being made again', async () => {
    const api = open()
    await api.get('/')
    const other = makeCertificates({ hosts: ['127.0.0.1'] })
    writeFileSync(files.tokenFile, 'second', { mode: 0o600 })
    writeFileSync(files.caFile, other.ca)
    await new Promise((resolve) => setTimeout(resolve, 1_100))
    expect((await failure(api.get('/'))).code).to.equal('unreachable')
    server.setSecureContext({ cert: other.cert, key: other.key })
    await api.get('/')
    server.setSecureContext({ cert: pair.cert, key: pair.key })
    expect(seen.map(({ authorization }) => authorization)).to.deep.equal([
      'Bearer first',
      'Bearer second',
    ])
  })

  for (const [status, reason, code] of [
    [404, 'NotFound', 'not_found'],
    [409, 'Conflict', 'conflict'],
    [409, 'AlreadyExists', 'exists'],
    [403, 'Forbidden', 'forbidden'],
    [401, 'Unauthorized', 'unauthorized'],
    [422, 'Invalid', 'rejected'],
    [302, 'Found', 'rejected'],
    [503, '<b>', 'rejected'],
  ] as const) {
    it(`says ${code} for ${status} ${reason}, and nothing of the bodies`, async () => {
      answer = (_request, response) => {
        response.writeHead(status).end(JSON.stringify({ reason, message: 'it was hunter2' }))
      }
      const error = await failure(open().update('/api/v1/x?y=z', { data: 'hunter2' }))
      expect(error.code).to.equal(code)
      expect(error.status).to.equal(status)
      expect(error.message).to.equal(
        `PUT /api/v1/x: ${status}${reason === '<b>' ? '' : ` ${reason}`}`,
      )
    })
  }

  it('reads a refusal that is not JSON by its status', async () => {
    answer = (_request, response) => response.writeHead(403).end('<html>')
    expect((await failure(open().get('/'))).code).to.equal('forbidden')
  })

  it('refuses an answer that is not JSON, too large, or too late', async () => {
    answer = (_request, response) => response.end('<html>')
    expect((await failure(open().get('/'))).code).to.equal('unreachable')
    answer = (_request, response) => response.end(`"${'x'.repeat(2_000)}"`)
    expect((await failure(open({ maxAnswerBytes: 1_000 }).get('/'))).message).to.match(/EXCEEDED/)
    answer = () => undefined
    expect((await failure(open({ requestLimitMs: 50 }).get('/'))).code).to.equal('unreachable')
  })

  it('needs its files, and a private token', async () => {
    writeFileSync(files.tokenFile, 'first', { mode: 0o600 })
    rmSync(files.caFile)
    expect((await failure(open().get('/'))).message).to.equal('GET /: ENOENT')
    expect(seen).to.deep.equal([])
  })

  it('ends with its signal, by the reason of that', async () => {
    const ending = new AbortController()
    answer = () => {
      ending.abort(new Error('over'))
    }
    const error = await open({ signal: ending.signal })
      .get('/')
      .catch((reason: unknown) => reason)
    expect(error).to.be.an('error').with.property('message', 'over')
  })
})
