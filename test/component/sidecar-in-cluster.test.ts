/** What in-cluster clients, the kubelet and Prometheus meet: HTTPS on the loopback, the files beside it, health. */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { createLog } from '../../shared/log.ts'
import { listen } from '../../sidecar/listeners.ts'
import type { ListenerDeps, Listeners } from '../../sidecar/listeners.ts'
import { createLoopbackCertificate } from '../../sidecar/loopback-certificate.ts'
import { PLACEHOLDER_TOKEN } from '../../sidecar/service-account-files.ts'
import { run } from '../support/client-processes.ts'
import { startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { FORGED_LINES } from '../support/forged-headers.ts'
import { startTestSidecar } from '../support/running-sidecar.ts'
import type { RunningSidecar } from '../support/running-sidecar.ts'

describe('sidecar: in-cluster clients', () => {
  let broker: FakeBroker
  let sidecar: RunningSidecar
  let dir = ''
  let base = ''
  let health = ''
  let ca = ''

  before(async () => {
    broker = await startFakeBroker()
    dir = await mkdtemp(join(tmpdir(), 'nestgate-sa-'))
    const extra = {
      NESTGATE_CALLER_UNREADABLE: 'ignore',
      NESTGATE_SERVICE_ACCOUNT_DIR: dir,
      NESTGATE_NAMESPACE: 'agents',
      NESTGATE_LISTEN_TLS_PORT: '0',
      NESTGATE_HEALTH_HOST: '127.0.0.1',
    }
    sidecar = await startTestSidecar(broker, { extra })
    base = `https://127.0.0.1:${sidecar.sidecar.addresses.at(-1)?.port ?? 0}`
    health = `http://127.0.0.1:${sidecar.sidecar.health?.port ?? 0}`
    ca = join(dir, 'ca.crt')
  })
  after(async () => {
    await sidecar.close()
    await broker.stop()
    await rm(dir, { recursive: true })
  })

  function lastTag(): AgentTag | undefined {
    return broker.seen.at(-1)?.tag
  }

  it('writes what they read, for every user of the pod, and nothing else', () => {
    expect(readdirSync(dir).toSorted()).to.deep.equal(['ca.crt', 'namespace', 'token'])
    for (const name of readdirSync(dir))
      expect(statSync(join(dir, name)).mode & 0o777).to.equal(0o644)
    expect(readFileSync(join(dir, 'namespace'), 'utf8')).to.equal('agents')
    expect(readFileSync(join(dir, 'token'), 'utf8')).to.equal(PLACEHOLDER_TOKEN)
    expect(readFileSync(ca, 'utf8')).not.to.contain('PRIVATE')
  })

  const python = `
import ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[2])
context.verify_flags |= ssl.VERIFY_X509_STRICT
request = urllib.request.Request(sys.argv[1] + '/api/python', headers={'Authorization': 'Bearer ' + sys.argv[3]})
print(urllib.request.urlopen(request, context=context).status)`
  const javascript = `
import { readFileSync } from 'node:fs'
import { get } from 'node:https'
const [url, ca, token] = process.argv.slice(1)
get(url + '/api/javascript', { ca: readFileSync(ca), headers: { authorization: 'Bearer ' + token } }, (r) => { console.log(r.statusCode); r.resume() })`
  const clients: [string, string, (url: string) => string[]][] = [
    [
      'curl',
      'curl',
      (url) => [
        '-sS',
        '--cacert',
        ca,
        '-H',
        `Authorization: Bearer ${PLACEHOLDER_TOKEN}`,
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        `${url}/api/curl`,
      ],
    ],
    [
      'python, strict about certificates',
      'python3',
      (url) => ['-c', python, url, ca, PLACEHOLDER_TOKEN],
    ],
    [
      'node',
      process.execPath,
      (url) => ['--input-type=module', '-e', javascript, url, ca, PLACEHOLDER_TOKEN],
    ],
  ]
  for (const [name, command, args] of clients)
    it(`serves ${name}, names it, and drops its placeholder`, async () => {
      const { stdout, stderr } = await run(command, args(base))
      expect([stdout.trim(), stderr]).to.deep.equal(['200', ''])
      expect(lastTag()?.verdict).to.equal('exclusive')
      expect(lastTag()?.verified?.exe).to.match(/curl$|python3[.\d]*$|node$/)
      expect(JSON.stringify(broker.seen.at(-1))).not.to.contain(PLACEHOLDER_TOKEN)
    })

  it('withdraws the held request of one that is killed', async () => {
    const answer = broker.onRequest
    broker.onRequest = (_seen, response) => broker.hold(response)
    const args = ['-sS', '--cacert', ca, '-X', 'DELETE', `${base}/held`]
    const client = spawn('curl', args, { stdio: 'ignore' })
    await waitFor(() => broker.polls > 0)
    client.kill('SIGKILL')
    await waitFor(() => broker.cancelled.length > 0)
    broker.onRequest = answer
    expect(broker.cancelled).to.deep.equal(broker.holds.map(({ id }) => id))
  })

  it('is trusted and serves under the names of the API server, and under no other', async () => {
    const port = new URL(base).port
    for (const [host, expected] of [
      ['localhost', [0, 'exclusive']],
      ['kubernetes', [0, 'exclusive']],
      ['kubernetes.default', [0, 'exclusive']],
      ['kubernetes.default.svc', [0, 'exclusive']],
      ['kubernetes.default.svc.cluster.local', [0, 'exclusive']],
      ['example.com', [60, undefined]],
    ] as const) {
      const args = ['-sS', '--cacert', ca, '--resolve', `${host}:${port}:127.0.0.1`]
      const { code, stdout } = await run('curl', [...args, `https://${host}:${port}/api`])
      expect([code, /exclusive/.exec(stdout)?.[0]]).to.deep.equal(expected)
    }
  })

  const forgeries: [string, string, RegExp][] = [
    ['a request', 'Connection: close\r\n', /^HTTP\/1\.1 200 /],
    ['an upgrade', 'Connection: Upgrade\r\nUpgrade: websocket\r\n', /^HTTP\/1\.1 101 /],
  ]
  for (const [what, connection, answered] of forgeries)
    it(`removes from ${what} what a client may not send`, async () => {
      const trusted = { ca: readFileSync(ca), host: '127.0.0.1', port: Number(new URL(base).port) }
      const socket = connectTls(trusted)
      const forged = `Authorization: Bearer ${PLACEHOLDER_TOKEN}\r\n${FORGED_LINES}`
      const before = broker.seen.length
      const answer = exchange(
        socket,
        `GET /forged HTTP/1.1\r\nHost: kubernetes.default.svc\r\n${connection}${forged}\r\n`,
      )
      socket.once('data', () => socket.end())
      expect(await answer).to.match(answered)
      expect(broker.seen).to.have.length(before + 1)
      expect(JSON.stringify(broker.seen.at(-1)?.rawHeaders)).not.to.contain('evil')
      expect(lastTag()?.verified?.pid).to.equal(process.pid)
    })

  it('passes openssl’s strict verification as a server certificate', async () => {
    const certificate = createLoopbackCertificate(Date.now())
    const files = await mkdtemp(join(tmpdir(), 'nestgate-cert-'))
    await writeFile(join(files, 'ca'), certificate.ca)
    await writeFile(join(files, 'cert'), certificate.cert)
    const args = ['verify', '-x509_strict', '-purpose', 'sslserver', '-CAfile', join(files, 'ca')]
    const { stdout, code } = await run('openssl', [...args, join(files, 'cert')])
    expect([code, stdout]).to.deep.equal([0, `${join(files, 'cert')}: OK\n`])
    await rm(files, { recursive: true })
  })

  it('survives what is no TLS', async () => {
    const socket = connect(Number(new URL(base).port), '127.0.0.1')
    socket.on('error', () => undefined)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    socket.end('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    socket.resume()
    await closed
    const { stdout } = await run('curl', ['-sS', '--cacert', ca, `${base}/api`])
    expect(stdout).to.contain('exclusive')
  })

  it('tells a process what is said of it', async () => {
    const { stdout, pid } = await run('curl', ['-sS', `${sidecar.url}/.nestgate/whoami`])
    const tag = JSON.parse(stdout) as AgentTag
    expect([tag.verdict, tag.verified?.pid]).to.deep.equal(['exclusive', pid])
    expect(broker.seen.some(({ url }) => url.includes('whoami'))).to.equal(false)
  })

  it('tells the kubelet that it lives and is ready', async () => {
    for (const path of ['/healthz', '/readyz']) {
      const answer = await fetch(health + path)
      expect([answer.status, await answer.text()]).to.deep.equal([200, 'ok\n'])
    }
    expect((await fetch(`${health}/debug`)).status).to.equal(404)
    expect((await fetch(`${health}/healthz`, { method: 'POST' })).status).to.equal(405)
  })

  it('counts for Prometheus, without secrets', async () => {
    await run('curl', ['-sS', `${sidecar.url}/api`])
    await run('curl', ['-sS', '-H', 'Host: evil.example', `${sidecar.url}/api`])
    const text = await (await fetch(`${health}/metrics`)).text()
    expect(text).to.match(/^nestgate_sidecar_lookups_total\{result="exclusive"\} \d+$/m)
    expect(text).to.match(/^nestgate_sidecar_requests_total\{result="answered"\} \d+$/m)
    expect(text).to.match(/^nestgate_sidecar_requests_total\{result="host_not_local"\} 1$/m)
    expect(text).to.match(/^nestgate_sidecar_lookup_seconds_bucket\{le="\+Inf"\} \d+$/m)
    for (const gauge of ['registered', 'self_test_passed', 'process_level'])
      expect(text).to.contain(`nestgate_sidecar_${gauge} 1\n`)
    expect(text).not.to.contain(readFileSync(sidecar.tokenFile, 'utf8').trim())
    for (const line of text.trim().split('\n'))
      expect(line).to.match(
        /^(# (HELP|TYPE) nestgate_sidecar_|nestgate_sidecar_[a-z_]+(\{[a-z]+="[^"]+"\})? [\d.e+-]+$)/,
      )
  })

  it('is not ready without a broker, and says so', async () => {
    const away = await startFakeBroker()
    await away.stop()
    const lonely = await startTestSidecar(away, {
      wait: false,
      extra: { NESTGATE_HEALTH_HOST: '127.0.0.1', NESTGATE_CALLER_UNREADABLE: 'ignore' },
    })
    const answer = await fetch(`http://127.0.0.1:${lonely.sidecar.health?.port ?? 0}/readyz`)
    expect([answer.status, await answer.text()]).to.deep.equal([
      503,
      'not registered with the broker\n',
    ])
    expect(existsSync(join(dir, '.token.next'))).to.equal(false)
    await lonely.close()
  })
})

describe('sidecar: clients that take their time', () => {
  let listeners: Listeners
  const { key, cert, ca } = createLoopbackCertificate(Date.now())
  const callers = {
    accept: () => ({ uid: 0 }),
    isHeld: () => true,
  } as unknown as ListenerDeps['callers']
  const times = { head: 300, request: 600, idle: 60_000, checkEvery: 20 }
  const SLOW_MS = 2 * times.request
  let slow = 0
  const ways: [string, () => Socket][] = [
    ['HTTP', () => connect(listeners.addresses[0]?.port ?? 0, '127.0.0.1')],
    ['HTTPS', () => connectTls({ port: listeners.addresses[1]?.port ?? 0, host: '127.0.0.1', ca })],
  ]

  beforeEach(async () => {
    slow = 0
    const deps: ListenerDeps = {
      callers,
      log: createLog('test', 'silent'),
      times,
      onRequest: (request, response) => {
        request.resume()
        request.on('error', () => undefined)
        if (request.url === '/slow') {
          slow += 1
          setTimeout(() => response.end('slow'), SLOW_MS)
        } else if (request.method === 'GET') response.end('quick')
      },
      onUpgrade: () => undefined,
    }
    const tls = { host: '127.0.0.1', port: 0, key, cert }
    listeners = await listen(deps, ['127.0.0.1'], 0, tls)
  })
  afterEach(() => listeners.close())

  for (const [name, open] of ways) {
    it(`are ended over ${name} when half a head is all that comes`, async () => {
      expect(await exchange(open(), 'GET / HTTP/1.1\r\nHost: ')).to.match(/^HTTP\/1\.1 408 /)
    })

    it(`are ended over ${name} when nothing comes`, async () => {
      expect(await exchange(open(), '')).to.match(/^HTTP\/1\.1 408 /)
    })

    it(`are ended over ${name} when half a body is all that comes`, async () => {
      const head = 'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n'
      expect(await exchange(open(), `${head}half`)).to.match(/^HTTP\/1\.1 408 /)
    })

    it(`get an answer over ${name} that takes longer than a request may`, async () => {
      const request = 'GET /slow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
      expect(await exchange(open(), request)).to.match(/slow$/)
    })

    it(`get the answer under way over ${name} when the sidecar stops, which then ends at once`, async () => {
      const socket = open()
      const ended = exchange(socket, 'GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n')
      await waitFor(() => slow > 0)
      const before = performance.now()
      await listeners.close()
      expect(performance.now() - before).to.be.lessThan(SLOW_MS + 1000)
      expect(await ended).to.match(/slow$/)
    })

    it(`hold nothing up over ${name} when the sidecar stops while they are idle`, async () => {
      const socket = open()
      const ended = exchange(socket, 'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
      await new Promise((resolve) => socket.once('data', resolve))
      const before = performance.now()
      await listeners.close()
      expect(performance.now() - before).to.be.lessThan(1000)
      expect(await ended).to.match(/quick$/)
    })
  }
})

/** Sends `text`, goes on listening, and gives what came until the other side closed. */
function exchange(socket: Socket, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = ''
    socket.on('data', (chunk) => (answer += chunk.toString('latin1')))
    socket.on('error', () => undefined)
    socket.on('close', () => {
      resolve(answer)
    })
    if (text !== '') socket.write(text)
  })
}

async function waitFor(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 300 && !condition(); tries += 1) await sleep(10)
}
