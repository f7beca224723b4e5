/** Real clients through the broker: kubectls of this machine, with and without WebSocket, and the JavaScript library of Kubernetes. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { PassThrough, Writable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { Attach, Exec, KubeConfig } from '@kubernetes/client-node'
import type { V1Status } from '@kubernetes/client-node'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import { freePort } from '../support/free-port.ts'
import { kubectls, run } from '../support/kubectl.ts'
import type { Run } from '../support/kubectl.ts'
import { bytesOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000

describe('real clients through the broker', () => {
  let world: SessionWorld
  let web: Server

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld()
    web = createServer((request, response) => response.end(`you asked for ${request.url ?? ''}`))
    web.listen(0, '127.0.0.1')
    await once(web, 'listening')
    world.kubelet.ports.set(8080, (web.address() as AddressInfo).port)
  })
  after(async function () {
    this.timeout(SLOW_MS)
    web.closeAllConnections()
    web.close()
    await world.close()
  })
  afterEach(() => {
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  for (const kubectl of kubectls())
    for (const websockets of ['true', 'false']) {
      const env = (): Record<string, string> => ({
        HOME: world.dataDir,
        KUBECONFIG: world.kubeconfig,
        KUBECTL_REMOTE_COMMAND_WEBSOCKETS: websockets,
        KUBECTL_PORT_FORWARD_WEBSOCKETS: websockets,
      })
      const exec = (...args: readonly string[]): Promise<Run> =>
        run(kubectl, ['exec', ...args], env())

      describe(`${kubectl.split('/').at(-1) ?? ''}, WebSocket ${websockets}`, () => {
        it('prints, fails with the code of the command, and is recorded', async () => {
          expect(await exec('p', '--', 'echo', 'hello', 'there')).to.include({
            ...{ code: 0, out: 'hello there\n' },
          })
          const session = await world.settled()
          expect(session).to.deep.include({ state: 'ended', command: ['echo', 'hello', 'there'] })
          expect(bytesOf(world.recording(session.id), TYPE.stdout).toString()).to.equal(
            'hello there\n',
          )
          expect((await exec('p', '--', 'exit', '7')).code).to.equal(7)
          expect((await world.settled()).result?.exitCode).to.equal(7)
          const warned = await exec('p', '--', 'warn', 'beware')
          expect([warned.code, warned.err.split('\n')[0]]).to.deep.equal([1, 'beware'])
        }).timeout(SLOW_MS)

        it('carries a megabyte both ways, and ends with its input', async () => {
          const bytes = noise(1_000_000, 7)
          const child = spawn(kubectl, ['exec', '-i', 'p', '--', 'cat'], { env: env() })
          const parts: Buffer[] = []
          child.stdout.on('data', (chunk: Buffer) => parts.push(chunk))
          child.stdin.on('error', () => undefined)
          child.stdin.end(bytes)
          const [code] = (await once(child, 'close')) as [number]
          expect(code).to.equal(0)
          expect(Buffer.concat(parts).equals(bytes)).to.equal(true)
          const { totals } = await world.settled()
          expect(totals).to.include({ stdinBytes: bytes.length, stdoutBytes: bytes.length })
        }).timeout(SLOW_MS)

        it('forwards a port, and says where nobody listens', async () => {
          const [good, bad] = [await freePort(), await freePort()]
          const args = ['port-forward', 'p', `${good}:8080`, `${bad}:81`]
          const child = spawn(kubectl, args, { env: env() })
          let said = ''
          for (const stream of [child.stdout, child.stderr])
            stream.setEncoding('utf8').on('data', (text: string) => (said += text))
          while (!said.includes(`127.0.0.1:${bad} `) && child.exitCode === null) await sleep(20)
          const answers = await Promise.all(
            ['a', 'b', 'c', 'd'].map(async (name) =>
              (await fetch(`http://127.0.0.1:${good}/${name}`)).text(),
            ),
          )
          expect(answers, said).to.deep.equal(
            ['a', 'b', 'c', 'd'].map((name) => `you asked for /${name}`),
          )
          expect(await fetch(`http://127.0.0.1:${bad}/`).catch(() => 'refused')).to.equal('refused')
          child.kill('SIGINT')
          await once(child, 'close')
          const { totals, kind } = await world.settled()
          expect(kind).to.equal('portforward')
          expect(totals?.['connections']).to.be.at.least(2)
        }).timeout(SLOW_MS)
      })
    }

  describe('the JavaScript library', () => {
    const config = (): KubeConfig => {
      const made = new KubeConfig()
      made.loadFromFile(world.kubeconfig)
      return made
    }
    const sink = (parts: Buffer[]): Writable =>
      new Writable({
        write(chunk: Buffer, _encoding, done) {
          parts.push(chunk)
          done()
        },
      })

    it('runs a command, with its status', async () => {
      const [out, err]: [Buffer[], Buffer[]] = [[], []]
      const status = await new Promise<V1Status>((resolve, reject) => {
        new Exec(config())
          .exec('agents', 'p', 'main', ['exit', '9'], sink(out), sink(err), null, false, resolve)
          .catch(reject)
      })
      expect(status.details?.causes?.[0]?.message).to.equal('9')
    }).timeout(SLOW_MS)

    it('attaches, and types', async () => {
      world.kubelet.attached = async (io) => {
        io.onStdin((bytes) => void io.stdout(bytes))
        await io.stdinEnd
        return 0
      }
      const out: Buffer[] = []
      const stdin = new PassThrough()
      const socket = await new Attach(config()).attach(
        ...(['agents', 'p', 'main', sink(out), null, stdin, false] as const),
      )
      stdin.write('typed')
      while (Buffer.concat(out).toString() !== 'typed') await sleep(20)
      socket.close()
      expect((await world.settled()).kind).to.equal('attach')
    }).timeout(SLOW_MS)
  })

  const python = spawnSync('python3', ['-c', 'import kubernetes'], { encoding: 'utf8' })
  if (python.status === 0)
    it('Python’s library types text', async () => {
      const script = [
        'from kubernetes import client, config',
        'from kubernetes.stream import stream',
        `config.load_kube_config("${world.kubeconfig}")`,
        's = stream(client.CoreV1Api().connect_get_namespaced_pod_exec, "p", "agents", command=["cat"], stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False)',
        's.write_stdin("käse\\n")',
        'print(s.readline_stdout(timeout=10))',
        's.close()',
      ]
      const { out, err } = await run('python3', ['-c', script.join('\n')], {
        PATH: '/usr/bin:/usr/local/bin:/bin',
      })
      expect(out, err).to.equal('käse\n')
    }).timeout(SLOW_MS)
})
