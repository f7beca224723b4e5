/** The connections to an API server, over real sockets: how many, for whom, whereto, and what happens when they break. */
import { execFile } from 'node:child_process'
import { createServer as createHttp } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import { createServer as createTcp } from 'node:net'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { expect } from 'chai'
import { afterEach, before, beforeEach, describe, it } from 'mocha'
import { openPools } from '../../broker/credentials/pools.ts'
import type { PoolOverrides, Pools } from '../../broker/credentials/pools.ts'
import { forwardRequest } from '../../broker/gateway/forward.ts'
import type { ForwardOutcome, NotAnswered, Outgoing } from '../../broker/gateway/forward.ts'
import { codeOf } from '../../shared/errors.ts'
import { refuse } from '../../shared/reasons.ts'
import { requestUpgrade } from '../../shared/upgrade.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'

interface Got {
  readonly status: number
  readonly text: string
}

describe('the pools of a cluster', () => {
  let certificates: Certificates
  let server: Server
  let url: string
  let pools: Pools
  /** Requests that reached the server, and the connection of each. */
  let seen: { readonly method: string; readonly url: string; readonly socket: object }[]
  let sockets: Set<TLSSocket>
  let answer: (request: IncomingMessage, response: ServerResponse) => void

  before(() => {
    certificates = makeCertificates({ hosts: ['127.0.0.1'] })
  })

  beforeEach(async () => {
    seen = []
    sockets = new Set()
    answer = (_request, response) => response.end('{}')
    const { cert, key } = certificates
    server = createServer({ cert, key }, (request, response) => {
      const { method = '', url: path = '', socket } = request
      seen.push({ method, url: path, socket })
      answer(request, response)
    })
    server.on('secureConnection', (socket) => {
      sockets.add(socket)
      socket.on('error', () => undefined)
      socket.once('close', () => sockets.delete(socket))
    })
    server.listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
    open()
  })
  afterEach(async () => {
    await pools.close()
    server.closeAllConnections()
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })

  function open(overrides?: PoolOverrides): void {
    pools = openPools(url, { ca: certificates.ca, pair: undefined }, overrides)
  }

  async function ask(
    path: string,
    more: {
      readonly method?: string
      readonly signal?: AbortSignal
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: string
    } = {},
    pool: 'requests' | 'watches' | 'own' = 'requests',
  ): Promise<Got> {
    const { statusCode, body } = await pools[pool].request({ method: 'GET', path, ...more })
    return { status: statusCode, text: await body.text() }
  }
  const outcome = (promise: Promise<Got>): Promise<number | string> =>
    promise.then(
      ({ status }) => status,
      (error: unknown) => codeOf(error) ?? String(error),
    )
  async function until(holds: () => boolean): Promise<void> {
    const end = performance.now() + 5000
    while (!holds() && performance.now() < end) await sleep(5)
    expect(holds()).to.equal(true)
  }
  /** Lets no request end until told to. */
  function stall(): () => void {
    const held: ServerResponse[] = []
    let isOpen = false
    answer = (_request, response) => {
      if (isOpen) response.end('{}')
      else held.push(response)
    }
    return () => {
      isOpen = true
      for (const response of held.splice(0)) response.end('{}')
    }
  }

  describe('with a bound', () => {
    it('lets no more through at once, counts what waits, and then serves it in order', async () => {
      await pools.close()
      open({ requests: { open: 2 } })
      const go = stall()
      const all = [1, 2, 3, 4, 5].map((n) => outcome(ask(`/${n}`)))
      await until(() => seen.length === 2)
      await sleep(50)
      expect(pools.load().requests).to.deep.equal({ open: 2, waiting: 3 })
      expect(sockets.size).to.equal(2)
      go()
      expect(await Promise.all(all)).to.deep.equal([200, 200, 200, 200, 200])
      expect(seen.map(({ url: path }) => path).slice(2)).to.deep.equal(['/3', '/4', '/5'])
      expect(pools.load().requests).to.deep.equal({ open: 0, waiting: 0 })
    })

    it('lets who leaves go at once, and never sends it', async () => {
      await pools.close()
      open({ requests: { open: 1 } })
      const go = stall()
      const first = outcome(ask('/first'))
      await until(() => seen.length === 1)
      const leaving = new AbortController()
      const second = outcome(ask('/second', { signal: leaving.signal }))
      const third = outcome(ask('/third'))
      expect(pools.load().requests.waiting).to.equal(2)
      const start = performance.now()
      leaving.abort()
      await second
      expect(performance.now() - start).to.be.lessThan(500)
      expect(pools.load().requests).to.deep.equal({ open: 1, waiting: 1 })
      go()
      expect([await first, await third]).to.deep.equal([200, 200])
      expect(seen.map(({ url: path }) => path)).to.deep.equal(['/first', '/third'])
    })

    it('tells who waits too long to give up, and goes on serving', async () => {
      await pools.close()
      open({ requests: { open: 1, waitMs: 50 } })
      const go = stall()
      const first = outcome(ask('/first'))
      expect(await outcome(ask('/second'))).to.equal('upstream_busy')
      go()
      expect(await first).to.equal(200)
      expect(await outcome(ask('/third'))).to.equal(200)
      expect(seen.map(({ url: path }) => path)).not.to.include('/second')
    })

    it('keeps no place for what has failed, been aborted, or been cut', async () => {
      await pools.close()
      open({ requests: { open: 1 } })
      answer = (request) => request.socket.destroy()
      expect(await outcome(ask('/', { method: 'POST', body: 'x' }))).to.equal('UND_ERR_SOCKET')
      stall()
      expect(await outcome(ask('/', { signal: AbortSignal.timeout(50) }))).not.to.equal(200)
      answer = (_request, response) => {
        response.write('begun')
        setTimeout(() => response.destroy(), 20)
      }
      expect(await outcome(ask('/'))).to.equal('UND_ERR_SOCKET')
      answer = (_request, response) => response.end('{}')
      expect(await outcome(ask('/'))).to.equal(200)
      expect(pools.load().requests).to.deep.equal({ open: 0, waiting: 0 })
    })

    it('is free again when connections cannot be made at all', async () => {
      await pools.close()
      open({ requests: { open: 2 } })
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      const all = await Promise.all([1, 2, 3, 4].map(() => outcome(ask('/'))))
      expect(all).to.deep.equal(Array(4).fill('ECONNREFUSED'))
      expect(pools.load().requests).to.deep.equal({ open: 0, waiting: 0 })
    })

    it('serves what waits before it is drained, and refuses what comes later', async () => {
      await pools.close()
      open({ requests: { open: 1 } })
      const go = stall()
      const all = [outcome(ask('/first')), outcome(ask('/second'))]
      await until(() => seen.length === 1)
      const drained = pools.drain()
      expect(await outcome(ask('/late'))).to.equal('upstream_busy')
      go()
      expect(await Promise.all(all)).to.deep.equal([200, 200])
      await drained
    })

    it('ends what waits when it is closed', async () => {
      await pools.close()
      open({ requests: { open: 1 } })
      stall()
      const all = [outcome(ask('/first')), outcome(ask('/second'))]
      await until(() => seen.length === 1)
      await pools.close()
      const [first, second] = await Promise.all(all)
      expect(first).not.to.equal(200)
      expect(second).to.equal('upstream_busy')
    })
  })

  describe('behind the gateway', () => {
    const outgoing: Outgoing = {
      ...{ requestId: 'id-1', method: 'POST', path: '/write', headers: {}, longRunning: false },
      body: Buffer.from('x'),
    }

    /** A gateway of one line, asked once by a client that may leave; settles with how it ended. */
    async function forwardOnce(leave?: AbortSignal): Promise<ForwardOutcome | NotAnswered> {
      const front = createHttp()
      front.listen(0, '127.0.0.1')
      await new Promise((resolve) => front.once('listening', resolve))
      const { port } = front.address() as AddressInfo
      const ended = new Promise<ForwardOutcome | NotAnswered>((resolve) => {
        front.on('request', (_request, response) => {
          void forwardRequest(pools.requests, outgoing, response, Promise.resolve()).then(
            (result) => {
              response.end()
              resolve(result)
            },
          )
        })
      })
      const asked = fetch(`http://127.0.0.1:${port}/`, leave === undefined ? {} : { signal: leave })
      asked.catch(() => undefined)
      try {
        return await ended
      } finally {
        front.closeAllConnections()
        front.close()
      }
    }

    it('a full pool is a refusal that says so, and nothing was sent', async () => {
      await pools.close()
      open({ requests: { open: 1, waitMs: 50 } })
      const go = stall()
      const first = outcome(ask('/first'))
      await until(() => seen.length === 1)
      const result = await forwardOnce()
      expect(result).to.deep.equal({
        notAnswered: refuse('broker_busy', 'no connection to the API server became free'),
        bytesToServer: 1,
      })
      go()
      expect(await first).to.equal(200)
      expect(seen).to.have.length(1)
    })

    it('a client that leaves while it waits is gone at once, and nothing was sent', async () => {
      await pools.close()
      open({ requests: { open: 1 } })
      stall()
      void outcome(ask('/first'))
      await until(() => seen.length === 1)
      const leaving = new AbortController()
      const result = forwardOnce(leaving.signal)
      await until(() => pools.load().requests.waiting === 1)
      leaving.abort()
      expect(await result).to.include({ status: 0, reason: 'client_left' })
      expect(pools.load().requests.waiting).to.equal(0)
      expect(seen).to.have.length(1)
    })
  })

  describe('for each kind', () => {
    it('cannot be starved by another: full watches leave requests and own questions alone', async () => {
      await pools.close()
      open({ watches: { open: 3 }, requests: { open: 1 } })
      answer = (request, response) => {
        if (request.url?.includes('watch') === true) response.write('{}')
        else response.end('{}')
      }
      const watches = await Promise.all(
        [1, 2, 3].map((n) => pools.watches.request({ method: 'GET', path: `/${n}?watch=1` })),
      )
      // a watch may never end: nobody waits for it to
      const start = performance.now()
      expect(await outcome(ask('/4?watch=1', {}, 'watches'))).to.equal('upstream_busy')
      expect(performance.now() - start).to.be.lessThan(500)
      expect(await outcome(ask('/plain'))).to.equal(200)
      expect(await outcome(ask('/own', {}, 'own'))).to.equal(200)
      expect(pools.load().watches).to.deep.equal({ open: 3, waiting: 0 })
      for (const { body } of watches) body.on('error', () => undefined).destroy()
      await until(() => pools.load().watches.open === 0)
    })

    it('answers the broker itself while every ordinary request waits for what it asks', async () => {
      await pools.close()
      open({ requests: { open: 2 } })
      // as an API server that asks the broker, which asks back, before it answers
      answer = (request, response) => {
        if (request.url === '/review') response.end('{}')
        else
          void outcome(ask('/review', {}, 'own')).then((status) => {
            response.writeHead(Number(status)).end()
          })
      }
      const all = await Promise.all(Array.from({ length: 20 }, () => outcome(ask('/write'))))
      expect(all).to.deep.equal(Array(20).fill(200))
    })

    it('keeps a place for a session until its connection has ended', async () => {
      await pools.close()
      open({ upgrades: { open: 1 } })
      server.on('upgrade', (_request, socket) => {
        socket.on('error', () => undefined)
        socket.on('end', () => socket.end())
        socket.write(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
        )
      })
      const upgrade = (): ReturnType<typeof requestUpgrade> =>
        requestUpgrade(pools.upgrades, { method: 'GET', path: '/', headers: {}, protocol: 'x' })
      const first = await upgrade()
      if (first.kind !== 'upgraded') return expect.fail('no upgrade')
      const second = await upgrade().then(
        () => 'upgraded',
        (error: unknown) => codeOf(error),
      )
      expect(second).to.equal('upstream_busy')
      first.socket.destroy()
      await until(() => pools.load().upgrades.open === 0)
      expect(await upgrade()).to.include({ kind: 'upgraded' })
    })
  })

  describe('given up', () => {
    const LIMIT = { headersTimeout: 150, bodyTimeout: 150 }
    const LONGER_MS = 1500

    it('are an ordinary request whose answer does not begin, and one whose answer stops', async () => {
      await pools.close()
      open({ requests: LIMIT })
      answer = (request, response) => {
        if (request.url === '/stops') response.write('begun')
      }
      expect(await outcome(ask('/silent'))).to.equal('UND_ERR_HEADERS_TIMEOUT')
      expect(await outcome(ask('/stops'))).to.equal('UND_ERR_BODY_TIMEOUT')
      // what the server may have got is not sent again for being slow
      expect(seen).to.have.length(2)
      expect(pools.load().requests).to.deep.equal({ open: 0, waiting: 0 })
    })

    it('is not an answer that the client reads slowly', async () => {
      await pools.close()
      open({ requests: LIMIT })
      const large = 'x'.repeat(8 * 1024 * 1024)
      answer = (_request, response) => response.end(large)
      const { body } = await pools.requests.request({ method: 'GET', path: '/' })
      await sleep(LONGER_MS)
      expect((await body.text()).length).to.equal(large.length)
    })

    it('is not a watch, however silent', async () => {
      await pools.close()
      open({ requests: LIMIT })
      answer = (request, response) => {
        if (request.url?.startsWith('/begun') === true) response.write('{}')
        setTimeout(() => response.end('{}'), LONGER_MS)
      }
      const watches = ['/silent', '/begun'].map((path) => outcome(ask(path, {}, 'watches')))
      expect(await Promise.all(watches)).to.deep.equal([200, 200])
    })

    it('is an upgrade that is not answered, and not a session that is silent', async () => {
      await pools.close()
      open({ upgrades: LIMIT })
      server.on('upgrade', (request, socket) => {
        socket.on('error', () => undefined)
        if (request.url === '/silent') return
        socket.write(
          'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n',
        )
        setTimeout(() => socket.end('late'), LONGER_MS)
      })
      const upgrade = (path: string): ReturnType<typeof requestUpgrade> =>
        requestUpgrade(pools.upgrades, { method: 'GET', path, headers: {}, protocol: 'x' })
      const silent = await upgrade('/silent').then(
        () => 'upgraded',
        (error: unknown) => codeOf(error),
      )
      expect(silent).to.equal('UND_ERR_HEADERS_TIMEOUT')
      const session = await upgrade('/session')
      if (session.kind !== 'upgraded') return expect.fail('no upgrade')
      const said: Buffer[] = []
      for await (const chunk of session.socket) said.push(chunk as Buffer)
      expect(Buffer.concat(said).toString()).to.equal('late')
    })

    it('is a server that takes the connection and says nothing', async () => {
      const mute = createTcp()
      mute.listen(0, '127.0.0.1')
      await new Promise((resolve) => mute.once('listening', resolve))
      const { port } = mute.address() as AddressInfo
      await pools.close()
      pools = openPools(
        `https://127.0.0.1:${port}`,
        { ca: certificates.ca, pair: undefined },
        { connectTimeoutMs: 150 },
      )
      try {
        expect(await outcome(ask('/'))).to.equal('UND_ERR_CONNECT_TIMEOUT')
        expect(pools.load().requests).to.deep.equal({ open: 0, waiting: 0 })
      } finally {
        mute.close()
      }
    })
  })

  describe('pinned', () => {
    it('follows no redirect', async () => {
      answer = (_request, response) => response.writeHead(302, { location: '/elsewhere' }).end()
      expect(await outcome(ask('/here'))).to.equal(302)
      expect(seen.map(({ url: path }) => path)).to.deep.equal(['/here'])
    })

    it('takes the name that is checked from the configuration, not from a Host header', async () => {
      const other = makeCertificates({ hosts: ['other.example'] })
      server.setSecureContext(other)
      await pools.close()
      pools = openPools(url, { ca: other.ca, pair: undefined })
      const got = await outcome(ask('/', { headers: { host: 'other.example' } }))
      expect(got).to.equal('ERR_TLS_CERT_ALTNAME_INVALID')
      expect(seen).to.deep.equal([])
    })

    it('trusts no other authority', async () => {
      server.setSecureContext(makeCertificates({ hosts: ['127.0.0.1'] }))
      expect(await outcome(ask('/'))).to.match(/CERT|VERIFY|SIGNATURE/)
      expect(seen).to.deep.equal([])
    })

    it('goes through no proxy that the environment names', async () => {
      const asked: string[] = []
      const proxy = createHttp()
      // a proxy that hangs up instead is asked for ever by Node's own fetch
      proxy.on('connect', (request, socket) => {
        asked.push(request.url ?? '')
        socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n')
      })
      proxy.listen(0, '127.0.0.1')
      await new Promise((resolve) => proxy.once('listening', resolve))
      const address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
      const pools = new URL('../../broker/credentials/pools.ts', import.meta.url).href
      const script = `
        import { openPools } from ${JSON.stringify(pools)}
        const { url, ca } = JSON.parse(process.env.WHERE)
        const opened = openPools(url, { ca, pair: undefined })
        const { statusCode, body } = await opened.requests.request({ method: 'GET', path: '/direct' })
        await body.dump()
        await opened.close()
        const fetched = await fetch('http://proxied.example/').then(() => 'fetched', () => 'failed')
        console.log(statusCode, fetched)`
      try {
        const { stdout } = await promisify(execFile)(
          process.execPath,
          ['--input-type=module', '--eval', script],
          {
            env: {
              PATH: process.env['PATH'],
              ...{ HTTP_PROXY: address, HTTPS_PROXY: address, ALL_PROXY: address },
              ...{ http_proxy: address, https_proxy: address, NODE_USE_ENV_PROXY: '1' },
              WHERE: JSON.stringify({ url, ca: certificates.ca }),
            },
          },
        )
        // the process does use the proxy where it is asked to: fetch went there
        expect(stdout.trim()).to.equal('200 failed')
        expect(asked).to.deep.equal(['proxied.example:80'])
        expect(seen.map(({ url: path }) => path)).to.deep.equal(['/direct'])
      } finally {
        proxy.closeAllConnections()
        proxy.close()
      }
    })
  })

  describe('when a kept connection breaks', () => {
    /** Closes each connection at its second request, unanswered, as a server does whose idle time has just ended. */
    function breakAtReuse(): void {
      const used = new Set<object>()
      answer = (request, response) => {
        if (used.has(request.socket)) request.socket.destroy()
        else response.end('{}')
        used.add(request.socket)
      }
    }

    it('sends a read once more, on another connection', async () => {
      breakAtReuse()
      await ask('/first')
      // undici looks at a connection for one turn before it counts as idle
      await sleep(20)
      expect(await outcome(ask('/second'))).to.equal(200)
      const [, second, third] = seen
      expect(seen.map(({ url: path }) => path)).to.deep.equal(['/first', '/second', '/second'])
      expect(third?.socket).not.to.equal(second?.socket)
      expect(pools.load().requests).to.deep.equal({ open: 0, waiting: 0 })
    })

    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'])
      it(`never sends a ${method} again`, async () => {
        breakAtReuse()
        await ask('/first')
        // undici looks at a connection for one turn before it counts as idle
        await sleep(20)
        const body = method === 'DELETE' ? {} : { body: 'x' }
        expect(await outcome(ask('/second', { method, ...body }))).to.equal('UND_ERR_SOCKET')
        expect(seen.map(({ url: path }) => path)).to.deep.equal(['/first', '/second'])
      })

    it('gives up a read after the second time', async () => {
      answer = (request) => request.socket.destroy()
      expect(await outcome(ask('/'))).to.equal('UND_ERR_SOCKET')
      expect(seen).to.have.length(2)
    })

    it('does not repeat an answer that has begun', async () => {
      answer = (request, response) => {
        response.writeHead(200, { 'content-length': 100 }).write('half')
        setTimeout(() => request.socket.destroy(), 20)
      }
      expect(await outcome(ask('/'))).to.equal('UND_ERR_SOCKET')
      expect(seen).to.have.length(1)
    })

    it('uses another for what comes after the server has closed its idle ones', async () => {
      server.keepAliveTimeout = 30
      server.keepAliveTimeoutBuffer = 0
      for (let n = 0; n < 20; n += 1) {
        const body = { method: 'POST', body: 'x' }
        expect(await outcome(ask(`/${n}`, body))).to.equal(200)
        await until(() => sockets.size === 0)
      }
      expect(seen).to.have.length(20)
    })
  })
})
