/** Certificates that are replaced on disk under the traffic of clients, at the broker and at the webhook, over real sockets. */
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, copyFileSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import type { TLSSocket } from 'node:tls'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { startServer } from '../../broker/server.ts'
import { renewCertificates } from '../../cli/certificates-renew.ts'
import { writeCertificates } from '../../cli/certificates.ts'
import type { Logger } from '../../shared/log.ts'
import { FILE_CHECK_INTERVAL_MS } from '../../shared/watched-files.ts'
import { configSchema } from '../../shared/injection/config.ts'
import { startWebhook } from '../../webhook/start.ts'

const FILE_CHECK_MS = 20
const CLIENTS = 8

interface Logged {
  readonly level: 'info' | 'warn' | 'error'
  readonly fields: unknown
  readonly text: unknown
}

interface Running {
  readonly port: number
  close(): Promise<void>
}

const unused = (): never => {
  throw new Error('not for the gateway')
}

/** What is started from a folder of certificates, and a path of it that answers 200. */
const SERVERS = [
  {
    name: 'broker',
    path: '/hello',
    start: (dir: string, log: Logger): Promise<Running> =>
      startServer({
        config: {
          listen: { host: '127.0.0.1', port: 0 },
          tls: {
            certFile: join(dir, 'broker.crt'),
            keyFile: join(dir, 'broker.key'),
            waitSeconds: 20,
          },
        },
        gateway: { request: unused, upgrade: unused },
        api: (_request: IncomingMessage, response: ServerResponse) => {
          // long enough that some are under way at every moment
          setTimeout(() => response.end('hello'), 5)
        },
        log,
        fileCheckMs: FILE_CHECK_MS,
      }),
  },
  {
    name: 'webhook',
    path: '/healthz',
    start: (dir: string, log: Logger): Promise<Running> =>
      startWebhook(
        configSchema.parse({
          listen: { host: '127.0.0.1', port: 0 },
          tls: {
            certFile: join(dir, 'webhook.crt'),
            keyFile: join(dir, 'webhook.key'),
            waitSeconds: 20,
          },
          sidecar: {
            mode: 'native',
            image: 'nestgate:test',
            brokerUrl: 'https://broker.example',
            brokerCaFile: join(dir, 'ca.crt'),
            cluster: 'test',
          },
        }),
        { log, fileCheckMs: FILE_CHECK_MS },
      ),
  },
] as const

for (const { name, path, start } of SERVERS)
  describe(`the certificate of the ${name}`, () => {
    let dir: string
    let ca: string
    let logged: Logged[]
    let running: Running
    let hearing: Logger
    let agent: Agent
    let others: string

    const hosts = { brokerHosts: ['127.0.0.1'], webhookHosts: ['127.0.0.1'], days: 2 }
    beforeEach(async function () {
      this.timeout(30_000)
      dir = mkdtempSync(join(tmpdir(), 'nestgate-rotation-'))
      others = mkdtempSync(join(tmpdir(), 'nestgate-rotation-'))
      expect(writeCertificates({ dir, ...hosts })).to.have.property('written')
      ca = read('ca.crt')
      logged = []
      const log = (level: Logged['level']) => (fields: unknown, text?: unknown) => {
        logged.push(
          typeof fields === 'string'
            ? { level, fields: {}, text: fields }
            : { level, fields, text },
        )
      }
      hearing = {
        ...{ info: log('info'), warn: log('warn'), error: log('error') },
      } as unknown as Logger
      running = await start(dir, hearing)
      agent = new Agent({ keepAlive: true, maxSockets: CLIENTS, ca })
    })
    afterEach(async () => {
      agent.destroy()
      await running.close()
      rmSync(dir, { recursive: true })
      rmSync(others, { recursive: true })
    })

    function read(name: string): string {
      return readFileSync(join(dir, name), 'utf8')
    }
    const own = (folder: string, kind: 'crt' | 'key'): string => join(folder, `${name}.${kind}`)
    const serialIn = (folder: string): string =>
      new X509Certificate(readFileSync(own(folder, 'crt'), 'utf8')).serialNumber

    /** Moves a copy of the other installation's file into place, whole at every moment. */
    function place(kind: 'crt' | 'key'): void {
      copyFileSync(own(others, kind), `${own(dir, kind)}.new`)
      renameSync(`${own(dir, kind)}.new`, own(dir, kind))
    }

    /** The serial number of what a new connection is shown, checked against the authority. */
    async function served(): Promise<string> {
      const socket = connect({ host: '127.0.0.1', port: running.port, ca })
      await once(socket, 'secureConnect')
      const { serialNumber } = socket.getPeerCertificate()
      socket.destroy()
      return serialNumber.toUpperCase()
    }

    function ask(): Promise<{ readonly status: number; readonly socket: unknown }> {
      return new Promise((resolve, reject) => {
        const sent = request({ host: '127.0.0.1', port: running.port, path, agent }, (answer) => {
          const { statusCode: status = 0, socket } = answer
          answer.on('error', reject)
          answer.on('end', () => {
            resolve({ status, socket })
          })
          answer.resume()
        })
        sent.on('error', reject)
        sent.end()
      })
    }

    /** Clients that go on until told to stop; settles with what was not answered well. */
    function keepAsking(): { stop(): Promise<{ count: number; bad: readonly unknown[] }> } {
      let isOver = false
      let count = 0
      const bad: unknown[] = []
      const one = async (): Promise<void> => {
        while (!isOver) {
          const status = await ask().then(
            (answer) => answer.status,
            (error: unknown) => error,
          )
          count += 1
          if (status !== 200) bad.push(status)
        }
      }
      const all = Promise.all(Array.from({ length: CLIENTS }, one))
      return {
        async stop() {
          isOver = true
          await all
          return { count, bad }
        },
      }
    }

    async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
      const end = performance.now() + 5000
      while (!(await holds()) && performance.now() < end) await sleep(5)
      expect(await holds()).to.equal(true)
    }

    it('is waited for at start, where the Secret is filled later than the pod', async () => {
      await running.close()
      const folder = mkdtempSync(join(tmpdir(), 'nestgate-later-'))
      try {
        const starting = start(folder, hearing)
        await sleep(200)
        for (const file of ['ca.crt', `${name}.crt`, `${name}.key`])
          copyFileSync(join(dir, file), join(folder, file))
        running = await starting
        expect(await served()).to.equal(serialIn(dir).toUpperCase())
        const warned = logged.filter(({ level }) => level === 'warn')
        expect(warned.map(({ text }) => text)).to.deep.equal(['waiting for files'])
      } finally {
        rmSync(folder, { recursive: true })
      }
    })

    it('is looked at often enough for the 10 s that are promised', () => {
      expect(2 * FILE_CHECK_INTERVAL_MS).to.be.at.most(10_000)
    })

    it('is renewed under way: no request fails, and new connections are shown the new one', async () => {
      const before = serialIn(dir)
      const clients = keepAsking()
      const { socket: kept } = await ask()
      for (let n = 0; n < 2; n += 1) {
        const old = serialIn(dir)
        expect(renewCertificates({ dir, days: 2 })).to.have.property('written')
        expect(serialIn(dir)).not.to.equal(old)
        await until(async () => (await served()) === serialIn(dir))
      }
      expect((kept as TLSSocket).destroyed).to.equal(false)
      const { count, bad } = await clients.stop()
      expect(bad).to.deep.equal([])
      expect(count).to.be.greaterThan(CLIENTS)
      expect(serialIn(dir)).not.to.equal(before)
      expect(logged.filter(({ text }) => text === 'took a new certificate')).to.have.length(2)
    }).timeout(30_000)

    it('stays the old one while its key is not there yet, and says so once', async () => {
      expect(writeCertificates({ dir: others, ...hosts })).to.have.property('written')
      const before = serialIn(dir)
      const clients = keepAsking()
      place('crt')
      await until(() => logged.some(({ level }) => level === 'error'))
      await sleep(5 * FILE_CHECK_MS)
      expect(await served()).to.equal(before)
      place('key')
      ca = readFileSync(join(others, 'ca.crt'), 'utf8')
      await until(async () => (await served().catch(() => '')) === serialIn(others))
      expect((await clients.stop()).bad).to.deep.equal([])
      const errors = logged.filter(({ level }) => level === 'error')
      expect(errors).to.have.length(1)
      expect(errors[0]?.text).to.equal('files cannot be used; the ones before stay')
      expect(JSON.stringify(errors)).to.include('the key is not that of the certificate')
      expect(JSON.stringify(logged)).not.to.include('PRIVATE')
    }).timeout(30_000)

    it('stays the old one while others could read the new key', async () => {
      expect(writeCertificates({ dir: others, ...hosts })).to.have.property('written')
      const before = serialIn(dir)
      chmodSync(own(others, 'key'), 0o644)
      renameSync(own(others, 'key'), own(dir, 'key'))
      renameSync(own(others, 'crt'), own(dir, 'crt'))
      await until(() => logged.some(({ level }) => level === 'error'))
      expect(JSON.stringify(logged)).to.include('has mode 0644')
      expect(await served()).to.equal(before)
    }).timeout(30_000)
  })
