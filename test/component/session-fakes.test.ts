/**
 * The fake kubelet and the clients of session tests, tried without a broker: real kubectls must take the one for a kubelet, and the other
 * must see what kubectl does. What they agree on is then no habit of ours.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { noise, startKubelet } from '../support/fake-kubelet.ts'
import type { FakeKubelet } from '../support/fake-kubelet.ts'
import { freePort } from '../support/free-port.ts'
import { kubectls, run } from '../support/kubectl.ts'
import type { Run } from '../support/kubectl.ts'
import { forwardOver, openSpdy, openSpdySession } from '../support/remote-clients.ts'
import type { Address } from '../support/remote-clients.ts'
import { DICTIONARY } from '../support/remote-spdy.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const SLOW_MS = 60_000
const N = '/api/v1/namespaces/agents/pods/p'

describe('the fakes of session tests', () => {
  let upstream: Upstream
  let kubelet: FakeKubelet
  let folder: string
  let web: Server
  let webPort: number

  before(async () => {
    upstream = await startUpstream()
    folder = mkdtempSync(join(tmpdir(), 'nestgate-fakes-'))
    const config = {
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'c' },
      clusters: [
        { name: 'c', cluster: { server: upstream.url, 'certificate-authority': upstream.caFile } },
      ],
      users: [{ name: 'u', user: { token: 't', as: 'somebody' } }],
      contexts: [{ name: 'c', context: { cluster: 'c', user: 'u', namespace: 'agents' } }],
    }
    writeFileSync(join(folder, 'config'), JSON.stringify(config))
    web = createServer((request, response) => response.end(`you asked for ${request.url ?? ''}`))
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    webPort = (web.address() as AddressInfo).port
  })
  after(async () => {
    web.closeAllConnections()
    web.close()
    await upstream.close()
    rmSync(folder, { recursive: true })
  })
  beforeEach(() => {
    kubelet = startKubelet(upstream)
  })
  afterEach(() => {
    for (const { socket } of kubelet.sessions) socket.destroy()
  })

  const env = (): Record<string, string> => ({
    HOME: folder,
    KUBECONFIG: join(folder, 'config'),
    KUBECTL_REMOTE_COMMAND_WEBSOCKETS: 'false',
    KUBECTL_PORT_FORWARD_WEBSOCKETS: 'false',
  })
  const address = (path: string, query = ''): Address => ({
    port: Number(new URL(upstream.url).port),
    ca: readFileSync(upstream.caFile, 'utf8'),
    path: `${N}/${path}`,
    query,
  })

  it('have the dictionary that everybody has', () => {
    expect(createHash('sha256').update(DICTIONARY).digest('hex')).to.equal(
      '51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02',
    )
  })

  for (const kubectl of kubectls()) {
    const version = kubectl.split('/').at(-1) ?? ''
    const exec = (...args: readonly string[]): Promise<Run> =>
      run(kubectl, ['exec', ...args], env())

    describe(`with ${version}`, () => {
      it('say what a program prints, and its exit code', async () => {
        expect(await exec('p', '--', 'echo', 'hello', 'there')).to.include({
          ...{ code: 0, out: 'hello there\n' },
        })
        const { code, err } = await exec('p', '--', 'exit', '7')
        expect(code).to.equal(7)
        expect(err).to.contain('exit code 7')
        expect((await exec('p', '--', 'warn', 'beware')).err).to.contain('beware\n')
        for (const { peer } of kubelet.sessions) expect(peer?.violations).to.deep.equal([])
      }).timeout(SLOW_MS)

      it('pass a megabyte through, both ways', async () => {
        const bytes = noise(1_000_000, 7)
        const child = spawn(kubectl, ['exec', '-i', 'p', '--', 'cat'], { env: env() })
        const parts: Buffer[] = []
        child.stdout.on('data', (chunk: Buffer) => parts.push(chunk))
        child.stdin.on('error', () => undefined)
        child.stdin.end(bytes)
        const [code] = (await once(child, 'close')) as [number]
        expect(code).to.equal(0)
        expect(Buffer.concat(parts).equals(bytes)).to.equal(true)
        const { stdin, stdinEnded, peer } = kubelet.last()
        expect([stdin.all.equals(bytes), stdinEnded, peer?.violations]).to.deep.equal([
          true,
          true,
          [],
        ])
      }).timeout(SLOW_MS)

      it('forward a port to a real server, and say where there is none', async () => {
        kubelet.ports.set(8080, webPort)
        const [good, bad] = [await freePort(), await freePort()]
        const args = ['port-forward', 'p', `${good}:8080`, `${bad}:81`]
        const child = spawn(kubectl, args, { env: env() })
        let said = ''
        for (const stream of [child.stdout, child.stderr])
          stream.setEncoding('utf8').on('data', (text: string) => (said += text))
        while (!said.includes(`127.0.0.1:${bad} `)) await sleep(20)
        const texts = await Promise.all(
          ['a', 'b', 'c'].map(async (name) => {
            const answer = await fetch(`http://127.0.0.1:${good}/${name}`)
            return answer.text()
          }),
        )
        expect(texts).to.deep.equal(['a', 'b', 'c'].map((name) => `you asked for /${name}`))
        const refused = await fetch(`http://127.0.0.1:${bad}/`).catch(() => 'refused')
        expect(refused).to.equal('refused')
        while (!said.includes('connection refused')) await sleep(20)
        child.kill('SIGINT')
        await once(child, 'close')
        expect(kubelet.last().peer?.violations).to.deep.equal([])
      }).timeout(SLOW_MS)
    })
  }

  it('are each other’s peers too', async () => {
    const query = 'command=cat&stdin=true&stdout=true&stderr=true'
    const session = await openSpdySession(address('exec', query), [
      ...['error', 'stdin', 'stdout', 'stderr'],
    ])
    await session.stream('stdin').write(Buffer.from('to and fro'))
    await session.stream('stdin').end()
    expect(await session.status()).to.include({ status: 'Success' })
    expect(session.stream('stdout').bytes.toString()).to.equal('to and fro')
    await session.peer.over
    expect(session.peer.violations).to.deep.equal([])
    expect(kubelet.last().peer?.violations).to.deep.equal([])
    session.peer.socket.destroy()
  })

  it('forward between each other', async () => {
    kubelet.ports.set(8080, webPort)
    const { peer } = await openSpdy(address('portforward'), 'portforward.k8s.io')
    const { data, error } = await forwardOver(peer, 8080, '0')
    await data.write(Buffer.from('GET /x HTTP/1.0\r\n\r\n'))
    await data.ended
    expect(data.bytes.toString()).to.match(/you asked for \/x$/)
    await error.ended
    expect(error.bytes.toString()).to.equal('')
    peer.socket.destroy()
  })

  it('see when a frame is cut', async () => {
    const session = await openSpdySession(address('exec', 'command=torn&stdout=true'), [
      ...['error', 'stdout'],
    ])
    await session.peer.over
    expect(session.stream('stdout').bytes.toString()).to.equal('before the end')
    expect(session.peer.violations.join()).to.contain('ended inside a frame')
    session.peer.socket.destroy()
  })
})
