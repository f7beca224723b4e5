/** The sidecar's way of a request, over real sockets, against a broker that checks tokens, proofs and tags. */
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { Agent, request as httpRequest } from 'node:http'
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { REQUEST_ID_HEADER } from '../../shared/headers.ts'
import { reasonInStatus } from '../../shared/status.ts'
import type { ApprovalState } from '../../shared/wire.ts'
import { makeCertificates } from '../support/certificates.ts'
import { run } from '../support/client-processes.ts'
import { claimOf, POD_TOKEN, startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { FORGED_HEADERS, FORGED_LINES } from '../support/forged-headers.ts'
import { freePort } from '../support/free-port.ts'
import { sidecarEnv, startTestSidecar } from '../support/running-sidecar.ts'
import type { RunningSidecar } from '../support/running-sidecar.ts'

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

interface Call {
  readonly method?: string
  readonly headers?: Record<string, string | string[]>
  readonly body?: Buffer | string
  readonly signal?: AbortSignal
}

const MIB = 1024 * 1024

/** Of curl(1), EXIT CODES. */
const CURL_COULD_NOT_CONNECT = 7

describe('sidecar', function () {
  this.timeout(20_000)
  let broker: FakeBroker
  let sidecar: RunningSidecar
  let agent: Agent

  beforeEach(async () => {
    broker = await startFakeBroker()
    sidecar = await startTestSidecar(broker)
    agent = new Agent({ keepAlive: true })
  })
  afterEach(async () => {
    agent.destroy()
    await broker.stop()
    await sidecar.close()
  })

  function open(path: string, call: Call = {}): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const { method = 'GET', body, signal } = call
      const length = body === undefined ? {} : { 'content-length': String(body.length) }
      const headers = { ...length, ...call.headers }
      const request = httpRequest(
        { port: sidecar.port, host: '127.0.0.1', path, method, headers, agent, signal },
        resolve,
      )
      request.on('error', reject)
      request.end(body)
    })
  }

  async function ask(path: string, call: Call = {}): Promise<Answer> {
    const response = await open(path, call)
    let body = ''
    for await (const chunk of response) body += (chunk as Buffer).toString('latin1')
    return { status: response.statusCode ?? 0, headers: response.headers, body }
  }

  /** Sends bytes and returns everything that comes back until the end. */
  function raw(text: string): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect(sidecar.port, '127.0.0.1')
      let answer = ''
      socket.on('data', (chunk) => (answer += chunk.toString('latin1')))
      socket.on('error', () => undefined)
      socket.on('close', () => {
        resolve(answer)
      })
      socket.write(text, 'latin1')
    })
  }

  function reasonOf({ body }: { body: string }): string | undefined {
    return reasonInStatus(body)
  }

  describe('forwarding', () => {
    for (const path of [
      '/',
      '/api/v1/pods?limit=1',
      '/a//b',
      '/a/%2e%2e/b%2fc?x=a;b',
      '/a/../b',
      '/a%00\\b',
    ])
      it(`sends ${path} on byte for byte`, async () => {
        await ask(path)
        expect(broker.seen[0]?.url).to.equal(`/clusters/test${path}`)
      })

    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])
      it(`sends the body of a ${method} unchanged`, async () => {
        const body = Buffer.from(Array.from({ length: 70_000 }, (_, at) => at % 256))
        await ask('/x', { method, body, headers: { 'content-type': 'application/json' } })
        const seen = broker.seen[0]
        expect(seen?.method).to.equal(method)
        expect(seen?.body.equals(body)).to.equal(true)
        expect(seen?.headers['content-type']).to.equal('application/json')
        expect(seen?.headers['transfer-encoding']).to.equal(undefined)
      })

    it('collects a chunked body and sends it with its length', async () => {
      await raw(
        'POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n',
      )
      expect(broker.seen[0]?.body.toString()).to.equal('abcde')
      expect(broker.seen[0]?.headers['content-length']).to.equal('5')
    })

    it('passes status and headers on, but none that end at a hop', async () => {
      broker.onRequest = (_seen, response) => {
        response.writeHead(409, {
          connection: 'keep-alive, x-hop',
          'x-hop': '1',
          'x-kept': '2',
          'set-cookie': ['a=1', 'b=2'],
          'proxy-authenticate': 'Basic',
          [REQUEST_ID_HEADER]: 'id',
        })
        response.end('conflict')
      }
      const { status, headers, body } = await ask('/x')
      expect([status, body]).to.deep.equal([409, 'conflict'])
      expect(headers['x-kept']).to.equal('2')
      expect(headers['set-cookie']).to.deep.equal(['a=1', 'b=2'])
      expect(headers[REQUEST_ID_HEADER]).to.equal('id')
      expect(headers).not.to.have.any.keys('x-hop', 'proxy-authenticate')
    })

    it('follows no redirect', async () => {
      broker.onRequest = (_seen, response) => {
        response.writeHead(302, { location: '/elsewhere' }).end()
      }
      expect((await ask('/x')).status).to.equal(302)
      expect(broker.seen).to.have.length(1)
    })

    it('answers HEAD without a body', async () => {
      broker.onRequest = (_seen, response) => {
        response.writeHead(200, { 'content-length': '1000' }).end()
      }
      const { status, headers, body } = await ask('/x', { method: 'HEAD' })
      expect([status, headers['content-length'], body]).to.deep.equal([200, '1000', ''])
    })

    it('hands each piece of a stream on as it comes', async () => {
      let next: (() => void) | undefined
      broker.onRequest = (_seen, response) => {
        let sent = 0
        next = (): void => {
          sent += 1
          if (sent > 3) response.end()
          else response.write(`event ${sent}\n`)
        }
        response.writeHead(200, { 'content-type': 'application/json' })
        response.flushHeaders()
      }
      const response = await open('/watch')
      const got: string[] = []
      response.on('data', (chunk: Buffer) => got.push(chunk.toString()))
      for (let at = 1; at <= 3; at += 1) {
        next?.()
        const before = Date.now()
        while (got.length < at && Date.now() - before < 2000) await sleep(5)
        expect(got).to.have.length(at)
        expect(Date.now() - before).to.be.lessThan(500)
      }
      next?.()
      await new Promise((resolve) => response.on('end', resolve))
    })

    it('does not read an answer faster than the client does', async () => {
      let written = 0
      broker.onRequest = (_seen, response) => {
        const piece = Buffer.alloc(64 * 1024)
        const more = (): void => {
          while (written < 200 * MIB) {
            written += piece.length
            if (!response.write(piece)) {
              response.once('drain', more)
              return
            }
          }
        }
        response.writeHead(200)
        more()
      }
      const response = await open('/logs')
      await sleep(500)
      expect(written).to.be.lessThan(60 * MIB)
      response.destroy()
    })

    it('cuts the client off when the broker breaks off in the middle of an answer', async () => {
      broker.onRequest = (_seen, response) => {
        response.writeHead(200, { 'content-length': '100' })
        response.write('half')
        setTimeout(() => response.destroy(), 50)
      }
      const { code } = await run('curl', ['-sS', `${sidecar.url}/x`])
      expect(code).to.equal(18)
    })

    it('ends the request at the broker when the client leaves', async () => {
      const closed = new Promise((resolve) => {
        broker.onRequest = (_seen, response) => response.on('close', resolve)
      })
      const leaving = new AbortController()
      const gone = open('/x', { signal: leaving.signal }).catch(() => 'gone')
      while (broker.seen.length === 0) await sleep(5)
      leaving.abort()
      expect(await gone).to.equal('gone')
      await closed
    })

    it('answers an offer of h2c as an ordinary request', async () => {
      const { status } = await ask('/x', {
        headers: { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAM' },
      })
      expect(status).to.equal(200)
      expect(broker.seen[0]?.headers).not.to.have.any.keys('upgrade', 'http2-settings')
    })
  })

  describe('what a client may not send', () => {
    for (const name of FORGED_HEADERS)
      it(`removes ${name}, also when it is sent twice`, async () => {
        await raw(
          `GET /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${name}: evil\r\n${name}: evil2\r\n\r\n`,
        )
        expect(broker.seen).to.have.length(1)
        expect(JSON.stringify(broker.seen[0]?.rawHeaders)).not.to.contain('evil')
      })

    it('replaces Authorization by the sidecar’s own', async () => {
      await ask('/x', { headers: { authorization: 'Bearer agents-own' } })
      expect(broker.seen[0]?.headers.authorization).to.equal(`Bearer ${POD_TOKEN}`)
    })

    it('lets Connection name none of the sidecar’s own headers', async () => {
      await raw(
        'GET /x HTTP/1.1\r\nHost: localhost\r\nImpersonate-User: root\r\nX-Mine: 1\r\nConnection: close, Impersonate-User, Nestgate-Agent, Authorization, X-Mine\r\n\r\n',
      )
      const headers = broker.seen[0]?.headers ?? {}
      expect(headers).to.include.keys('nestgate-agent', 'authorization', 'nestgate-hold')
      expect(headers).not.to.have.any.keys('impersonate-user', 'x-mine')
      expect(headers.connection).to.equal('keep-alive')
    })

    const refused: [string, string, number, string][] = [
      [
        'an absolute target',
        'GET http://localhost/x HTTP/1.1\r\nHost: localhost\r\n',
        400,
        'path_ambiguous',
      ],
      ['another host', 'GET /x HTTP/1.1\r\nHost: evil.example\r\n', 403, 'host_not_local'],
      [
        'a host that only begins like ours',
        'GET /x HTTP/1.1\r\nHost: localhost.evil.example\r\n',
        403,
        'host_not_local',
      ],
      [
        'a host that only begins like the API server',
        'GET /x HTTP/1.1\r\nHost: kubernetes.default.evil.example\r\n',
        403,
        'host_not_local',
      ],
      [
        'a name of the API server that the certificate has not',
        'GET /x HTTP/1.1\r\nHost: kubernetes.other.svc\r\n',
        403,
        'host_not_local',
      ],
      [
        'a page of the API server’s name',
        'GET /x HTTP/1.1\r\nHost: kubernetes\r\nOrigin: http://kubernetes\r\n',
        403,
        'host_not_local',
      ],
      [
        'two hosts',
        'GET /x HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n',
        400,
        'header_invalid',
      ],
      [
        'another site’s page',
        'POST /x HTTP/1.1\r\nHost: localhost\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n',
        403,
        'host_not_local',
      ],
      [
        'a page without a site',
        'GET /x HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n',
        403,
        'host_not_local',
      ],
      [
        'an unknown address of our own',
        'GET /.nestgate/other HTTP/1.1\r\nHost: localhost\r\n',
        404,
        'path_unknown',
      ],
    ]
    for (const [what, head, status, reason] of refused)
      it(`refuses ${what} and forwards nothing`, async () => {
        const answer = await raw(`${head}Connection: close\r\n\r\n`)
        expect(answer).to.match(new RegExp(`^HTTP/1.1 ${status} `))
        expect(reasonOf({ body: answer })).to.equal(reason)
        expect(broker.seen).to.have.length(0)
      })

    for (const host of [
      'localhost',
      'LOCALHOST:8001',
      '127.0.0.1:1',
      '[::1]',
      '[::1]:8001',
      'kubernetes',
      'kubernetes.default:443',
      'Kubernetes.default.svc',
      'kubernetes.default.svc.cluster.local:8443',
    ])
      it(`takes ${host} for its own name`, async () => {
        expect((await ask('/x', { headers: { host } })).status).to.equal(200)
      })

    it('outlives a client that asks for CONNECT and resets the connection', async () => {
      for (let i = 0; i < 20; i += 1) {
        const socket = connect(sidecar.port, '127.0.0.1')
        await new Promise((resolve) => socket.once('connect', resolve))
        socket.write('CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n')
        socket.resetAndDestroy()
      }
      expect((await ask('/x')).status).to.equal(200)
    })

    it('refuses CONNECT', async () => {
      const answer = await raw('CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n')
      expect(answer).to.match(/^HTTP\/1\.1 405 /)
    })

    const smuggled: [string, string][] = [
      [
        'length and chunks together',
        'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
      ],
      ['two lengths', 'Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd'],
      ['an encoding that is not chunked', 'Transfer-Encoding: gzip\r\n\r\n'],
      ['a space before the colon', 'Impersonate-User : root\r\n\r\n'],
      ['a folded header', 'X-A: 1\r\n Impersonate-User: root\r\n\r\n'],
    ]
    for (const [what, rest] of smuggled)
      it(`does not forward ${what}`, async () => {
        const answer = await raw(
          `POST /x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n${rest}`,
        )
        expect(answer).to.match(/^HTTP\/1\.1 400 /)
        expect(broker.seen).to.have.length(0)
      })
  })

  describe('bodies', () => {
    it('takes 3 MiB and refuses one byte more', async () => {
      const most = await ask('/x', { method: 'POST', body: Buffer.alloc(3 * MIB) })
      expect(most.status).to.equal(200)
      const more = await ask('/x', { method: 'POST', body: Buffer.alloc(3 * MIB + 1) })
      expect([more.status, reasonOf(more)]).to.deep.equal([413, 'body_too_large'])
      expect(broker.seen).to.have.length(1)
    })

    it('holds at most 24 MiB of bodies together, and gives the memory back', async () => {
      const waiting: (() => void)[] = []
      broker.onRequest = (_seen, response) => waiting.push(() => response.end())
      const body = Buffer.alloc(3 * MIB)
      const eight = Array.from({ length: 8 }, () => ask('/x', { method: 'POST', body }))
      while (waiting.length < 8) await sleep(10)
      const ninth = await ask('/x', { method: 'POST', body })
      expect([ninth.status, reasonOf(ninth)]).to.deep.equal([503, 'sidecar_busy'])
      for (const end of waiting.splice(0)) end()
      expect((await Promise.all(eight)).map(({ status }) => status)).to.deep.equal(
        Array(8).fill(200),
      )
      const after = ask('/x', { method: 'POST', body })
      while (waiting.length < 1) await sleep(10)
      waiting[0]?.()
      expect((await after).status).to.equal(200)
    })

    it('forwards nothing when the client leaves in the middle of its body', async () => {
      const socket = connect(sidecar.port, '127.0.0.1')
      socket.write('POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf')
      await sleep(150)
      socket.destroy()
      await sleep(100)
      expect(broker.seen).to.have.length(0)
      expect((await ask('/y')).status).to.equal(200)
    })
  })

  describe('held requests', () => {
    function holdOnce(): void {
      const echo = broker.onRequest
      broker.onRequest = (seen, response, request) => {
        if (claimOf(seen) === undefined) broker.hold(response)
        else echo(seen, response, request)
      }
    }

    async function pending(): Promise<void> {
      while (broker.polls === 0) await sleep(5)
    }

    it('sends the very same request again once it is approved', async () => {
      holdOnce()
      const answer = ask('/x?a=1', {
        method: 'DELETE',
        body: '{"a":1}',
        headers: { 'x-mine': '1' },
      })
      await pending()
      broker.decide(broker.holds[0]!, 'APPROVED')
      expect((await answer).status).to.equal(200)
      const [first, second] = broker.seen
      expect(second && claimOf(second)).to.equal(broker.holds[0]?.id)
      expect(broker.seen).to.have.length(2)
      expect(second?.tag).to.deep.equal(first?.tag)
      for (const key of ['method', 'url', 'body'] as const)
        expect(second?.[key]).to.deep.equal(first?.[key])
      expect(second?.headers['x-mine']).to.equal('1')
    })

    const refusals: [ApprovalState, string][] = [
      ['DENIED', 'approval_denied'],
      ['EXPIRED', 'approval_expired'],
      ['CANCELLED', 'approval_cancelled'],
      ['REVOKED', 'approval_revoked'],
      ['EXECUTING', 'approval_spent'],
      ['SUCCEEDED', 'approval_spent'],
      ['UNKNOWN', 'approval_spent'],
    ]
    for (const [state, reason] of refusals)
      it(`answers ${state} with ${reason} and sends nothing again`, async () => {
        holdOnce()
        const answer = ask('/x', { method: 'DELETE' })
        await pending()
        broker.decide(broker.holds[0]!, state)
        expect(reasonOf(await answer)).to.equal(reason)
        expect(broker.seen).to.have.length(1)
      })

    it('tells who denied and why', async () => {
      holdOnce()
      const answer = ask('/x', { method: 'DELETE' })
      await pending()
      broker.decide(broker.holds[0]!, 'DENIED', 'not on a Friday')
      expect((await answer).body).to.contain('bob: not on a Friday')
    })

    it('withdraws the request when the client leaves', async () => {
      holdOnce()
      const leaving = new AbortController()
      const gone = open('/x', { signal: leaving.signal }).catch(() => 'gone')
      await pending()
      leaving.abort()
      await gone
      await until(() => broker.cancelled.length > 0)
      expect(broker.cancelled).to.deep.equal([broker.holds[0]?.id])
      expect(broker.seen).to.have.length(1)
    })

    it('withdraws the request of a client that is killed', async () => {
      holdOnce()
      const client = spawn('curl', ['-sS', '-X', 'DELETE', `${sidecar.url}/x`])
      await pending()
      client.kill('SIGKILL')
      await until(() => broker.cancelled.length > 0)
      expect(broker.cancelled).to.have.length(1)
    })

    it('outlives a broker that restarts and has forgotten the key', async () => {
      holdOnce()
      const answer = ask('/x', { method: 'DELETE' })
      await pending()
      await broker.stop()
      await sleep(200)
      broker.forgetKeys()
      await broker.start()
      broker.holds[0]!.state = 'APPROVED'
      expect((await answer).status).to.equal(200)
      expect(broker.registrations).to.equal(2)
      expect(broker.seen).to.have.length(2)
    })

    it('keeps trying to claim an approval while the broker is away', async () => {
      holdOnce()
      const answer = ask('/x', { method: 'DELETE' })
      await pending()
      broker.decide(broker.holds[0]!, 'APPROVED')
      await broker.stop()
      await sleep(700)
      await broker.start()
      expect((await answer).status).to.equal(200)
      expect(broker.seen).to.have.length(2)
    })

    it('tells its client to come back once the time of the rule is over, and the request goes on waiting', async () => {
      broker.onRequest = (_seen, response) => broker.hold(response, 1)
      const answer = await ask('/x', { method: 'DELETE' })
      expect(reasonOf(answer)).to.equal('approval_pending')
      expect(answer.body).to.contain(broker.holds[0]?.id)
      expect(answer.headers['retry-after']).to.equal('30')
      expect(broker.parked).to.deep.equal([broker.holds[0]?.id])
      expect(broker.cancelled).to.deep.equal([])
    })

    it('says how its client wants to be held', async () => {
      for (const mode of ['return', 'hold', undefined])
        await ask('/x', { headers: mode === undefined ? {} : { 'nestgate-approval': mode } })
      expect(broker.seen.map(({ headers }) => headers['nestgate-hold'])).to.deep.equal([
        'return',
        'wait',
        'wait',
      ])
      expect(broker.seen[0]?.headers).not.to.have.property('nestgate-approval')
    })

    it('gives up at its own limit and leaves the request to its reviewers', async () => {
      const own = await startFakeBroker()
      const hasty = await startTestSidecar(own, { extra: { NESTGATE_HOLD_LIMIT_SECONDS: '1' } })
      own.onRequest = (_seen, response) => own.hold(response)
      const { stdout } = await run('curl', ['-sS', '-X', 'DELETE', `${hasty.url}/x`])
      expect(reasonInStatus(stdout)).to.equal('approval_pending')
      expect(own.parked).to.have.length(1)
      await own.stop()
      await hasty.close()
    })

    it('withdraws held requests when it is told to stop', async () => {
      const own = await startFakeBroker()
      const stopping = await startTestSidecar(own)
      own.onRequest = (_seen, response) => own.hold(response)
      const client = run('curl', ['-sS', '-X', 'DELETE', `${stopping.url}/x`])
      while (own.polls === 0) await sleep(5)
      await stopping.close()
      expect(reasonInStatus((await client).stdout)).to.equal('shutting_down')
      expect(own.cancelled).to.have.length(1)
      await own.stop()
    })

    it('does not believe a hold without a request id', async () => {
      broker.onRequest = (_seen, response) => {
        response.writeHead(202, { 'nestgate-held': '../../etc' }).end('{}')
      }
      expect(reasonOf(await ask('/x'))).to.equal('internal')
      expect(broker.polls).to.equal(0)
    })
  })

  describe('a broker that is away', () => {
    it('registers again when the broker has forgotten the key, once for many requests', async () => {
      await ask('/warm')
      broker.forgetKeys()
      const answers = await Promise.all(
        Array.from({ length: 10 }, () => ask('/x', { method: 'POST', body: 'b' })),
      )
      expect(answers.map(({ status }) => status)).to.deep.equal(Array(10).fill(200))
      expect(broker.registrations).to.equal(2)
      expect(broker.seen.filter(({ url }) => url.endsWith('/x'))).to.have.length(10)
    })

    it('passes on the refusal of an API server that imitates the broker’s', async () => {
      broker.onRequest = (_seen, response) => {
        response
          .writeHead(401, { 'nestgate-request-id': 'x' })
          .end('{"reason":"nestgate.dev/sidecar_key_unknown"}')
      }
      expect((await ask('/x')).status).to.equal(401)
      expect(broker.registrations).to.equal(1)
      expect(broker.seen).to.have.length(1)
    })

    it('repeats a read, but nothing that leads into a pod, for a GET may do anything there', async () => {
      const paths = ['/api/v1/namespaces/n/pods', '/api/v1/namespaces/n/pods/p/proxy/launch']
      broker.onRequest = (_seen, response) => response.destroy()
      for (const path of paths) expect((await ask(path)).status).to.equal(503)
      const counts = paths.map((path) => broker.seen.filter(({ url }) => url.endsWith(path)).length)
      expect(counts).to.deep.equal([2, 1])
    })

    it('answers 503 and says that nothing was forwarded, at once to those that come later', async () => {
      await broker.stop()
      await ask('/first')
      const startedAt = performance.now()
      for (const method of ['GET', 'DELETE']) {
        const answer = await ask('/x', { method })
        expect([answer.status, reasonOf(answer)]).to.deep.equal([503, 'broker_unavailable'])
      }
      expect(performance.now() - startedAt).to.be.lessThan(500)
    })

    it('never repeats a write that the broker may have got', async () => {
      broker.onRequest = (_seen, response) => response.destroy()
      const answer = await ask('/x', { method: 'POST', body: 'b' })
      expect([answer.status, reasonOf(answer)]).to.deep.equal([503, 'broker_lost'])
      expect(broker.seen).to.have.length(1)
    })

    it('repeats a read once', async () => {
      const echo = broker.onRequest
      broker.onRequest = (seen, response, request) => {
        if (broker.seen.length === 1) response.destroy()
        else echo(seen, response, request)
      }
      expect((await ask('/x')).status).to.equal(200)
      broker.onRequest = (_seen, response) => response.destroy()
      broker.seen.length = 0
      expect(reasonOf(await ask('/y'))).to.equal('broker_lost')
      expect(broker.seen).to.have.length(2)
    })

    it('survives a restart of the broker with what was not answered: a read it had got, a write that was not sent', async () => {
      const own = await startFakeBroker()
      const patient = await startTestSidecar(own, { extra: { NESTGATE_BROKER_WAIT_SECONDS: '10' } })
      const echo = own.onRequest
      own.onRequest = () => undefined
      const read = run('curl', ['-sS', `${patient.url}/read`])
      await until(() => own.seen.length === 1)
      await own.stop()
      own.forgetKeys()
      const write = run('curl', ['-sS', '-X', 'POST', '-d', 'b', `${patient.url}/write`])
      await sleep(1200)
      own.onRequest = echo
      await own.start()
      for (const { stdout } of [await read, await write])
        expect(stdout).to.contain('/clusters/test/')
      const paths = own.seen.map(({ url }) => url.slice('/clusters/test'.length))
      expect(paths.toSorted()).to.deep.equal(['/read', '/read', '/write'])
      await patient.close()
      await own.stop()
    })

    it('tries no longer for a client that has left', async () => {
      const own = await startFakeBroker()
      const patient = await startTestSidecar(own, { extra: { NESTGATE_BROKER_WAIT_SECONDS: '10' } })
      await own.stop()
      await run('curl', ['-sS', '-m', '1', '-X', 'POST', `${patient.url}/left`])
      await own.start()
      await sleep(1200)
      expect(own.seen).to.have.length(0)
      await patient.close()
      await own.stop()
    })

    it('trusts no certificate but the pinned authority’s', async () => {
      const other = await startFakeBroker()
      const { ca } = makeCertificates({ hosts: ['127.0.0.1'] })
      const wary = await startTestSidecar(other, {
        wait: false,
        extra: { NESTGATE_BROKER_CA_PEM: ca },
      })
      const { stdout } = await run('curl', ['-sS', `${wary.url}/x`])
      const upgrade = await run('curl', [
        '-sS',
        '-H',
        'Connection: Upgrade',
        '-H',
        'Upgrade: websocket',
        `${wary.url}/x`,
      ])
      expect(reasonInStatus(stdout)).to.equal('broker_unavailable')
      expect(reasonInStatus(upgrade.stdout)).to.equal('broker_unavailable')
      expect(other.registrations).to.equal(0)
      await wary.close()
      await other.stop()
    })

    it('answers 503 while it has no token, and takes the next one', async () => {
      await rm(sidecar.tokenFile)
      expect(reasonOf(await ask('/x'))).to.equal('token_unavailable')
      await writeFile(`${sidecar.tokenFile}.new`, POD_TOKEN)
      await rename(`${sidecar.tokenFile}.new`, sidecar.tokenFile)
      expect((await ask('/x')).status).to.equal(200)
    })
  })

  describe('upgrades', () => {
    interface Session {
      readonly head: string
      readonly socket: Socket
      readonly read: (text: string) => Promise<string>
    }

    function upgrade(head: string): Promise<Session> {
      return new Promise((resolve, reject) => {
        const socket = connect(sidecar.port, '127.0.0.1')
        let text = ''
        socket.on('error', reject)
        const read = async (wanted: string): Promise<string> => {
          await until(() => text.includes(wanted) || socket.destroyed)
          return text
        }
        socket.on('data', (chunk) => {
          text += chunk.toString('latin1')
          const at = text.indexOf('\r\n\r\n')
          if (at !== -1) resolve({ head: text.slice(0, at), socket, read })
        })
        socket.write(`${head}Host: localhost\r\nConnection: Upgrade\r\n\r\n`)
      })
    }

    const kinds: [string, string][] = [
      [
        'a WebSocket',
        'GET /exec?command=sh HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\n',
      ],
      [
        'SPDY by POST',
        'POST /exec?command=sh HTTP/1.1\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n',
      ],
      ['SPDY by POST without a length', 'POST /exec?command=sh HTTP/1.1\r\nUpgrade: SPDY/3.1\r\n'],
      ['SPDY by GET', 'GET /exec?command=sh HTTP/1.1\r\nUpgrade: SPDY/3.1\r\n'],
    ]
    for (const [name, head] of kinds)
      it(`carries ${name} both ways, tagged`, async () => {
        const { head: answer, socket, read } = await upgrade(head)
        expect(answer).to.match(/^HTTP\/1\.1 101 /)
        socket.write('ping\0\xff')
        expect(await read('ping')).to.contain('ping')
        const [seen] = broker.seen
        expect(seen?.url).to.equal('/clusters/test/exec?command=sh')
        expect(seen?.method).to.equal(head.split(' ')[0])
        expect(seen?.tag.verified?.pid).to.equal(process.pid)
        expect(seen?.headers.connection?.toLowerCase()).to.equal('upgrade')
        socket.destroy()
      })

    it('carries a megabyte that comes right behind the end of the head', async () => {
      const { socket, read } = await upgrade(kinds[0]![1])
      socket.end(Buffer.concat([Buffer.alloc(MIB, 'a'), Buffer.from('last')]))
      expect((await read('last')).length).to.be.greaterThan(MIB)
      socket.destroy()
    })

    it('removes a bearer token from the subprotocols and nothing else', async () => {
      const { socket } = await upgrade(
        'GET /exec HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c2VjcmV0\r\n',
      )
      expect(broker.seen[0]?.headers['sec-websocket-protocol']).to.equal('v5.channel.k8s.io')
      expect(JSON.stringify(broker.seen[0]?.rawHeaders)).not.to.contain('c2VjcmV0')
      socket.destroy()
    })

    it('passes on an answer that does not switch, and closes', async () => {
      broker.onUpgrade = (_seen, socket) => {
        socket.end(
          'HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno',
        )
      }
      const { head, socket, read } = await upgrade(kinds[1]![1])
      expect(head).to.match(/^HTTP\/1\.1 403 /)
      expect(await read('\r\n\r\nno')).to.contain('\r\n\r\nno')
      await new Promise((resolve) => socket.once('close', resolve))
    })

    it('holds before it switches, and claims the approval', async () => {
      const echo = broker.onUpgrade
      broker.onUpgrade = (seen, socket, head) => {
        if (claimOf(seen) !== undefined) {
          echo(seen, socket, head)
          return
        }
        const id = '01900000-0000-7000-8000-000000000001'
        broker.holds.push({ id, state: 'PENDING' })
        const body = '{}'
        socket.end(
          `HTTP/1.1 202 Accepted\r\nNestgate-Held: ${id}\r\nContent-Length: 2\r\n\r\n${body}`,
        )
      }
      const session = upgrade(kinds[0]![1])
      while (broker.polls === 0) await sleep(5)
      broker.decide(broker.holds[0]!, 'APPROVED')
      const { head, socket } = await session
      expect(head).to.match(/^HTTP\/1\.1 101 /)
      expect(broker.seen.map(claimOf)).to.deep.equal([undefined, broker.holds[0]?.id])
      socket.destroy()
    })

    it('withdraws a held upgrade whose client leaves', async () => {
      broker.onUpgrade = (_seen, socket) => {
        const id = '01900000-0000-7000-8000-000000000002'
        broker.holds.push({ id, state: 'PENDING' })
        socket.end(`HTTP/1.1 202 Accepted\r\nNestgate-Held: ${id}\r\nContent-Length: 2\r\n\r\n{}`)
      }
      const socket = connect(sidecar.port, '127.0.0.1')
      socket.write(`${kinds[0]![1]}Host: localhost\r\nConnection: Upgrade\r\n\r\n`)
      while (broker.polls === 0) await sleep(5)
      socket.destroy()
      await until(() => broker.cancelled.length > 0)
      expect(broker.cancelled).to.have.length(1)
    })

    it('holds over a restart of the broker', async () => {
      const echo = broker.onUpgrade
      const id = '01900000-0000-7000-8000-000000000003'
      broker.onUpgrade = (seen, socket, head) => {
        if (claimOf(seen) !== undefined) {
          echo(seen, socket, head)
          return
        }
        broker.holds.push({ id, state: 'PENDING' })
        socket.end(`HTTP/1.1 202 Accepted\r\nNestgate-Held: ${id}\r\nContent-Length: 2\r\n\r\n{}`)
      }
      const session = upgrade(kinds[1]![1])
      while (broker.polls === 0) await sleep(5)
      await broker.stop()
      broker.forgetKeys()
      await sleep(300)
      broker.holds[0]!.state = 'APPROVED'
      await broker.start()
      const { head, socket } = await session
      expect(head).to.match(/^HTTP\/1\.1 101 /)
      expect(broker.seen.map(claimOf)).to.deep.equal([undefined, id])
      socket.destroy()
    })

    it('registers again for an upgrade, too', async () => {
      broker.forgetKeys()
      const { head, socket } = await upgrade(kinds[1]![1])
      expect(head).to.match(/^HTTP\/1\.1 101 /)
      expect(broker.registrations).to.equal(2)
      socket.destroy()
    })

    it('ends the broker’s side when the client leaves', async () => {
      const closed = new Promise((resolve) => {
        const echo = broker.onUpgrade
        broker.onUpgrade = (seen, socket, head) => {
          socket.once('close', resolve)
          echo(seen, socket, head)
        }
      })
      const { socket } = await upgrade(kinds[0]![1])
      socket.destroy()
      await closed
    })

    it('removes from an upgrade what a client may not send', async () => {
      const { head, socket } = await upgrade(
        `GET /exec HTTP/1.1\r\nUpgrade: websocket\r\n${FORGED_LINES}`,
      )
      expect(head).to.match(/^HTTP\/1\.1 101 /)
      expect(broker.seen).to.have.length(1)
      expect(JSON.stringify(broker.seen[0]?.rawHeaders)).not.to.contain('evil')
      expect(broker.seen[0]?.tag.verified?.pid).to.equal(process.pid)
      socket.destroy()
    })

    const refused: [string, string, string][] = [
      [
        'a page of another site',
        'GET /exec HTTP/1.1\r\nUpgrade: websocket\r\nOrigin: https://evil.example\r\n',
        'host_not_local',
      ],
      [
        'a body',
        'POST /exec HTTP/1.1\r\nUpgrade: SPDY/3.1\r\nContent-Length: 3\r\n',
        'header_invalid',
      ],
    ]
    for (const [what, head, reason] of refused)
      it(`refuses an upgrade with ${what}`, async () => {
        const answer = await raw(`${head}Host: localhost\r\nConnection: Upgrade\r\n\r\n`)
        expect(reasonOf({ body: answer })).to.equal(reason)
        expect(broker.seen).to.have.length(0)
      })

    it('answers 503 when the broker is gone', async () => {
      await broker.stop()
      const answer = await raw(`${kinds[0]![1]}Host: localhost\r\nConnection: Upgrade\r\n\r\n`)
      expect(answer).to.match(/^HTTP\/1\.1 503 /)
      expect(reasonOf({ body: answer })).to.equal('broker_unavailable')
    })
  })

  describe('the process', () => {
    const MAIN = join(import.meta.dirname, '..', '..', 'sidecar', 'main.ts')
    const WAIT_READY = join(import.meta.dirname, '..', '..', 'sidecar', 'wait-ready.ts')

    it('serves, reports readiness, and ends cleanly on SIGTERM', async () => {
      const { env, remove } = await sidecarEnv(broker)
      const port = await freePort()
      const own = { ...env, NESTGATE_LISTEN_PORT: String(port) }
      const child = spawn(process.execPath, [MAIN], { env: own, stdio: 'inherit' })
      const waited = await run(process.execPath, [WAIT_READY], { env: own })
      expect([waited.code, waited.stderr]).to.deep.equal([0, ''])
      const { stdout } = await run('curl', ['-sS', `http://localhost:${port}/api`])
      expect(stdout).to.contain('/clusters/test/api')
      const ended = new Promise((resolve) => child.on('exit', resolve))
      child.kill('SIGTERM')
      expect(await ended).to.equal(0)
      await remove()
    })

    interface Process {
      readonly port: number
      readonly child: ChildProcess
      /** Its exit code. */
      readonly ended: Promise<unknown>
      remove: () => Promise<void>
    }

    async function startProcess(extra: Record<string, string>): Promise<Process> {
      const { env, remove } = await sidecarEnv(broker)
      const port = await freePort()
      const own = { ...env, NESTGATE_LISTEN_PORT: String(port), ...extra }
      const child = spawn(process.execPath, [MAIN], { env: own, stdio: 'inherit' })
      await run(process.execPath, [WAIT_READY], { env: own })
      const ended = new Promise((resolve) => child.on('exit', resolve))
      return { port, child, ended, remove }
    }

    it('ends what is under way once it is told to stop, and takes nothing new', async () => {
      const { port, child, ended, remove } = await startProcess({})
      broker.onRequest = (_seen, response) => {
        response.writeHead(200).write('first ')
        setTimeout(() => response.end('last'), 1000)
      }
      const slow = run('curl', ['-sS', `http://localhost:${port}/slow`])
      await until(() => broker.seen.length > 0)
      child.kill('SIGTERM')
      await sleep(300)
      const late = await run('curl', ['-sS', `http://localhost:${port}/late`])
      expect(late.code).to.equal(CURL_COULD_NOT_CONNECT)
      expect((await slow).stdout).to.equal('first last')
      expect(await ended).to.equal(0)
      await remove()
    })

    it('serves on where others are told to stop at the same time, until their connections are gone', async () => {
      const outlive = { NESTGATE_OUTLIVE_NEIGHBOURS: 'true', NESTGATE_PROFILE: 'C' }
      const { port, child, ended, remove } = await startProcess(outlive)
      const busy = connect(port, '127.0.0.1')
      busy.on('error', () => undefined)
      child.kill('SIGTERM')
      await sleep(6000)
      const late = await run('curl', ['-sS', `http://localhost:${port}/late`])
      expect(late.stdout).to.contain('/clusters/test/late')
      busy.destroy()
      expect(await ended).to.equal(0)
      await remove()
    })

    it('ends by itself, without a signal, once the broker says that the others are through', async () => {
      broker.neighbours = 'running'
      const outlive = { NESTGATE_OUTLIVE_NEIGHBOURS: 'true', NESTGATE_PROFILE: 'C' }
      const { port, child, ended, remove } = await startProcess(outlive)
      const busy = connect(port, '127.0.0.1')
      busy.on('error', () => undefined)
      await sleep(300)
      const asked = broker.neighbourQuestions
      broker.neighbours = 'ended'
      await sleep(2500)
      expect(
        [child.exitCode, broker.neighbourQuestions],
        'while a connection is open',
      ).to.deep.equal([null, asked])
      busy.destroy()
      expect(await ended).to.equal(0)
      await remove()
    })

    it('asks nothing where it is not an ordinary container', async () => {
      broker.neighbours = 'ended'
      const { child, ended, remove } = await startProcess({ NESTGATE_PROFILE: 'C' })
      await sleep(2500)
      expect([child.exitCode, broker.neighbourQuestions]).to.deep.equal([null, 0])
      child.kill('SIGTERM')
      await ended
      await remove()
    })

    it('is not ready before the broker knows it', async () => {
      await broker.stop()
      const early = await startTestSidecar(broker, { wait: false })
      const before = await run('curl', [
        '-s',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        `${early.url}/.nestgate/ready`,
      ])
      expect(before.stdout).to.equal('503')
      await broker.start()
      await until(() => broker.registrations > 1)
      await sleep(50)
      const after = await run('curl', [
        '-s',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        `${early.url}/.nestgate/ready`,
      ])
      expect(after.stdout).to.equal('200')
      await early.close()
    })

    for (const taken of ['127.0.0.1', '::1'])
      it(`does not start when another process has ${taken} already`, async () => {
        const squatter = createServer()
        await new Promise<void>((resolve) => squatter.listen(0, taken, resolve))
        const address = squatter.address()
        const port = typeof address === 'object' && address !== null ? address.port : 0
        const { env, remove } = await sidecarEnv(broker)
        const ended = await run(process.execPath, [MAIN], {
          env: { ...env, NESTGATE_LISTEN_PORT: String(port) },
        })
        expect(ended.code).to.equal(1)
        expect(ended.stderr).to.contain('EADDRINUSE')
        squatter.close()
        await remove()
      })

    it('tells all problems of a broken configuration and exits 1', async () => {
      const dir = await mkdtemp(join(tmpdir(), 'nestgate-config-'))
      const file = join(dir, 'sidecar.yaml')
      await writeFile(file, 'brokerUrl: http://broker\ncluster: UPPER\nunknown: 1\n')
      const { code, stderr } = await run(process.execPath, [MAIN, '--config', file])
      await rm(dir, { recursive: true })
      expect(code).to.equal(1)
      for (const word of ['brokerUrl', 'cluster', 'unknown', 'tokenFile'])
        expect(stderr).to.contain(word)
    })
  })
})

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 500 && !condition(); tries += 1) await sleep(10)
}
