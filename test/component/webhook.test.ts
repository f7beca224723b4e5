/** The webhook over real TLS on the loopback, started as `main.ts` starts it; and `main.ts` itself as a process. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { X509Certificate } from 'node:crypto'
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectPlainly } from 'node:net'
import type { Socket } from 'node:net'
import { connect } from 'node:tls'
import { gzipSync } from 'node:zlib'
import { expect } from 'chai'
import { afterEach, before, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import type { Dispatcher } from 'undici'
import { createLog } from '../../shared/log.ts'
import { readWebhookConfig } from '../../shared/injection/config.ts'
import { MAX_LARGE, SMALL_BYTES } from '../../webhook/large-bodies.ts'
import { MAX_CONNECTIONS, MAX_REVIEW_BYTES } from '../../webhook/server.ts'
import { startWebhook } from '../../webhook/start.ts'
import type { Webhook } from '../../webhook/start.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'
import type { Json } from '../support/pod-admission.ts'
import { reviewOf } from '../support/reviews.ts'

const INTERVAL_MS = 20
const POD = { metadata: { generateName: 'agents-' }, spec: { containers: [{ name: 'a' }] } }
const MAIN = new URL('../../webhook/main.ts', import.meta.url).pathname

describe('the webhook', () => {
  let folder: string
  let first: Certificates
  let second: Certificates
  let webhook: Webhook | undefined
  let apiServer: Server | undefined

  before(() => {
    first = makeCertificates({ hosts: ['localhost', '127.0.0.1'] })
    second = makeCertificates({ hosts: ['localhost', '127.0.0.1'] })
  })

  afterEach(async () => {
    await webhook?.close()
    webhook = undefined
    apiServer?.closeAllConnections()
    apiServer?.close()
    apiServer = undefined
    await rm(folder, { recursive: true, force: true })
  })

  const file = (name: string): string => join(folder, name)

  type Change = (config: Record<string, Json>) => void

  async function writeFiles(change: Change): Promise<string> {
    folder = await mkdtemp(join(tmpdir(), 'webhook-'))
    await writeFile(file('tls.crt'), first.cert)
    await writeFile(file('tls.key'), first.key, { mode: 0o600 })
    await writeFile(file('ca.crt'), first.ca)
    await writeFile(file('token'), 'sa-token\n', { mode: 0o600 })
    const config: Record<string, Json> = {
      listen: { host: '127.0.0.1', port: 0 },
      tls: { certFile: file('tls.crt'), keyFile: file('tls.key') },
      sidecar: {
        image: 'registry.example/nestgate:1',
        mode: 'native',
        brokerUrl: 'https://broker.example:8443',
        cluster: 'c1',
        brokerCaFile: file('ca.crt'),
      },
    }
    change(config)
    await writeFile(file('config.yaml'), JSON.stringify(config))
    return file('config.yaml')
  }

  async function start(change: Change = () => undefined): Promise<void> {
    const path = await writeFiles(change)
    webhook = await startWebhook(readWebhookConfig({ argv: ['--config', path], env: {} }), {
      log: createLog('test', 'silent'),
      fileCheckMs: INTERVAL_MS,
      retryMs: INTERVAL_MS,
    })
  }

  interface Answer {
    readonly status: number
    readonly type: string
    readonly json: Json
    readonly text: string
  }

  async function call(
    path: string,
    body?: string | Uint8Array,
    headers: Record<string, string> = { 'content-type': 'application/json' },
    options: Partial<Dispatcher.RequestOptions> = {},
  ): Promise<Answer> {
    const dispatcher = new Agent({ connect: { ca: first.ca + second.ca } })
    try {
      const answer = await request(`https://localhost:${webhook?.port ?? 0}${path}`, {
        dispatcher,
        method: body === undefined ? 'GET' : 'POST',
        headers,
        ...(body === undefined ? {} : { body }),
        ...options,
      })
      const text = await answer.body.text()
      const type = String(answer.headers['content-type'])
      const json = type.startsWith('application/json') ? (JSON.parse(text) as Json) : {}
      return { status: answer.statusCode, type, json, text }
    } finally {
      await dispatcher.close()
    }
  }

  function reasonOf(answer: Answer): string {
    expect(answer.json['kind']).to.equal('Status')
    expect(answer.json['code']).to.equal(answer.status)
    const { causes } = answer.json['details'] as { causes: { reason: string }[] }
    return causes[0]?.reason ?? ''
  }

  const mutate = (): Promise<Answer> => call('/mutate', JSON.stringify(reviewOf(POD)))

  function sidecarOf(answer: Answer): Json {
    const { patch } = answer.json['response'] as { patch: string }
    const operations = JSON.parse(Buffer.from(patch, 'base64').toString()) as Json[]
    const added = operations.find((it) => it['path'] === '/spec/initContainers')
    return (added?.['value'] as Json[])[0] ?? {}
  }

  it('reads large bodies a few at a time, and lets small ones pass them', async () => {
    await start()
    const review = JSON.stringify(reviewOf(POD))
    const large = `${review}${' '.repeat(SMALL_BYTES)}`
    const held = Array.from({ length: MAX_LARGE }, () => {
      const socket = connect({ port: webhook?.port ?? 0, host: '127.0.0.1', ca: first.ca })
      socket.on('error', () => undefined)
      socket.write(
        `POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: ${large.length}\r\n\r\n{`,
      )
      return socket
    })
    try {
      await Promise.all(held.map((socket) => once(socket, 'secureConnect')))
      await sleep(200)
      let isAnswered = false
      const waits = call('/mutate', large).then((answer) => {
        isAnswered = true
        return answer.status
      })
      expect((await call('/mutate', review)).status).to.equal(200)
      await sleep(300)
      expect(isAnswered).to.equal(false)
      held[0]?.destroy()
      expect(await waits).to.equal(200)
    } finally {
      for (const socket of held) socket.destroy()
    }
  })

  for (const [what, begin] of [
    ['say nothing', () => undefined],
    [
      'are kept after a request',
      (socket: Socket) => socket.write('GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n'),
    ],
  ] as const)
    it(`answers soon again when all its connections are of others, which ${what}`, async function () {
      this.timeout(20_000)
      await start()
      const to = { port: webhook?.port ?? 0, host: '127.0.0.1' }
      const plain = what === 'say nothing'
      const held = Array.from({ length: MAX_CONNECTIONS + 50 }, () => {
        const socket = plain ? connectPlainly(to) : connect({ ...to, ca: first.ca })
        socket.on('error', () => undefined).resume()
        socket.once('secureConnect', () => {
          begin(socket)
        })
        return socket
      })
      try {
        await sleep(1_000)
        const end = Date.now() + 15_000
        while ((await call('/healthz').catch(() => undefined))?.status !== 200) {
          expect(Date.now()).to.be.below(end)
          await sleep(100)
        }
      } finally {
        for (const socket of held) socket.destroy()
      }
    })

  it('answers a review with the patch, and says that it lives', async () => {
    await start()
    const answer = await mutate()
    expect(answer.status).to.equal(200)
    expect(answer.type).to.match(/^application\/json/)
    expect(answer.json['response']).to.include({ allowed: true, patchType: 'JSONPatch' })
    const ca = (sidecarOf(answer)['env'] as Json[]).find(
      (it) => it['name'] === 'NESTGATE_BROKER_CA_PEM',
    )
    expect(ca?.['value']).to.equal(first.ca.replaceAll('\r\n', '\n'))
    expect((await call('/healthz')).text).to.equal('ok')
    expect((await call('/readyz')).text).to.equal('ok')
  })

  for (const [path, profile] of [
    ['/mutate', 'P'],
    ['/mutate/process', 'P'],
    ['/mutate/container', 'C'],
  ] as const)
    it(`gives a pod profile ${profile} at ${path}`, async () => {
      await start()
      const answer = await call(path, JSON.stringify(reviewOf(POD)))
      expect(answer.text).to.contain(`"profile":"${profile}"`)
    })

  it('denies with HTTP 200: only the review’s own answer carries the denial', async () => {
    await start()
    const pod = { spec: { containers: [], hostPID: true } }
    const answer = await call('/mutate', JSON.stringify(reviewOf(pod)))
    expect(answer.status).to.equal(200)
    expect(answer.json['response']).to.include({ allowed: false })
  })

  it('refuses what is no review with a Status and a reason', async () => {
    await start()
    const json = { 'content-type': 'application/json' }
    const cases: [string, string | Uint8Array, Record<string, string>][] = [
      ['nothing', '', json],
      ['garbage', Buffer.from([0, 255, 1, 254]), json],
      ['another type', JSON.stringify(reviewOf(POD)), { 'content-type': 'text/plain' }],
      ['no type', JSON.stringify(reviewOf(POD)), {}],
      [
        'a packed body',
        gzipSync(JSON.stringify(reviewOf(POD))),
        { ...json, 'content-encoding': 'gzip' },
      ],
      ['half a review', JSON.stringify(reviewOf(POD)).slice(0, -5), json],
      ['a pod', JSON.stringify(POD), json],
    ]
    for (const [what, body, headers] of cases) {
      const answer = await call('/mutate', body, headers)
      expect(answer.status, what).to.equal(400)
      expect(reasonOf(answer), what).to.equal('nestgate.dev/review_invalid')
    }
    expect((await mutate()).status).to.equal(200)
  })

  it('refuses a body over the limit before it is read, and takes one just under it', async () => {
    await start()
    const large = await call('/mutate', Buffer.alloc(MAX_REVIEW_BYTES + 1, 0x20))
    expect(large.status).to.equal(413)
    expect(reasonOf(large)).to.equal('nestgate.dev/review_too_large')
    const review = Buffer.from(JSON.stringify(reviewOf(POD)))
    const padding = Buffer.alloc(MAX_REVIEW_BYTES - review.length, 0x20)
    expect((await call('/mutate', Buffer.concat([review, padding]))).status).to.equal(200)
  })

  it('only observes where it is asked to, and says what would become of the pod', async () => {
    await start()
    const answers: [Json, Json][] = [
      [POD, { allowed: true, auditAnnotations: { observed: 'patched', profile: 'P' } }],
      [
        { ...POD, spec: { ...POD.spec, hostNetwork: true } },
        { allowed: true, auditAnnotations: { observed: 'denied', reason: 'host_network' } },
      ],
    ]
    for (const [pod, expected] of answers) {
      const answer = await call('/observe', JSON.stringify(reviewOf(pod)))
      expect(answer.json['response']).to.deep.include(expected)
      expect(answer.json['response']).to.not.have.property('patch')
    }
    const atLevel = await call('/observe/container', JSON.stringify(reviewOf(POD)))
    expect(atLevel.json['response']).to.deep.include({
      auditAnnotations: { observed: 'patched', profile: 'C' },
    })
  })

  it('counts what it does, and says when its certificate ends', async () => {
    await start()
    await mutate()
    await call('/mutate', JSON.stringify(reviewOf({ spec: { hostPID: true, containers: [] } })))
    await call('/observe', JSON.stringify(reviewOf({ spec: { hostIPC: true, containers: [] } })))
    await call('/mutate', '{')
    const { text, type } = await call('/metrics')
    expect(type).to.equal('text/plain; version=0.0.4; charset=utf-8')
    const expires = new Date(new X509Certificate(first.cert).validTo).getTime() / 1000
    for (const line of [
      'reviews_total{outcome="patched"} 1',
      'reviews_total{outcome="denied"} 1',
      'reviews_total{outcome="observed"} 1',
      'refused_total{reason="host_pid"} 1',
      'observed_refusals_total{reason="host_ipc"} 1',
      'errors_total{reason="review_invalid"} 1',
      'review_seconds_count 3',
      `certificate_expiry_timestamp_seconds ${expires}`,
      'ready 1',
    ])
      expect(text).to.include(`\nnestgate_webhook_${line}\n`)
  })

  it('has nothing else to offer', async () => {
    await start()
    for (const path of ['/', '/mutate', '/%2e%2e/etc/passwd']) {
      const answer = await call(path)
      expect(answer.status, path).to.equal(404)
      expect(reasonOf(answer)).to.equal('nestgate.dev/path_unknown')
    }
  })

  it('lives on when clients talk nonsense or leave', async () => {
    await start()
    for (const bytes of [
      'GARBAGE\r\n\r\n',
      'POST /mutate HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"',
    ]) {
      const socket = connect({ port: webhook?.port ?? 0, host: '127.0.0.1', ca: first.ca })
      await once(socket, 'secureConnect')
      socket.write(bytes)
      await sleep(INTERVAL_MS)
      socket.destroy()
    }
    expect((await mutate()).status).to.equal(200)
  })

  it('answers what is under way before it ends, and keeps no connection for the next', async () => {
    await start()
    const review = Buffer.from(JSON.stringify(reviewOf(POD)))
    const socket = connect({ port: webhook?.port ?? 0, host: '127.0.0.1', ca: first.ca })
    let answer = ''
    socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
    const head = `POST /mutate HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ${review.length}\r\n\r\n`
    socket.write(head)
    socket.write(review.subarray(0, 100))
    await sleep(3 * INTERVAL_MS)
    const closed = webhook?.close()
    await sleep(3 * INTERVAL_MS)
    socket.write(review.subarray(100))
    await once(socket, 'close')
    await closed
    webhook = undefined
    expect(answer).to.match(/^HTTP\/1\.1 200 /)
    expect(answer).to.include('"patchType":"JSONPatch"')
  })

  it('speaks TLS 1.2 and later only, also with a reloaded certificate', async () => {
    await start()
    const old = async (): Promise<unknown> => {
      const socket = connect({
        port: webhook?.port ?? 0,
        host: '127.0.0.1',
        rejectUnauthorized: false,
        minVersion: 'TLSv1',
        maxVersion: 'TLSv1.1',
        ciphers: 'DEFAULT@SECLEVEL=0',
      })
      try {
        return await once(socket, 'secureConnect').catch((error: unknown) => error)
      } finally {
        socket.destroy()
      }
    }
    expect(await old()).to.be.instanceOf(Error)
    await renew(second)
    expect(await old()).to.be.instanceOf(Error)
  })

  async function servedCertificate(): Promise<string> {
    const socket = connect({
      port: webhook?.port ?? 0,
      host: '127.0.0.1',
      ca: [first.ca, second.ca],
    })
    await once(socket, 'secureConnect')
    const { serialNumber } = socket.getPeerCertificate()
    socket.destroy()
    return serialNumber
  }

  async function replace(name: string, text: string): Promise<void> {
    await writeFile(file(`${name}.new`), text, { mode: 0o600 })
    await rename(file(`${name}.new`), file(name))
  }

  async function renew(pair: Certificates): Promise<void> {
    const before = await servedCertificate()
    await replace('tls.crt', pair.cert)
    await sleep(3 * INTERVAL_MS)
    // Certificate and key do not match yet: the old pair is served on.
    expect(await servedCertificate()).to.equal(before)
    await replace('tls.key', pair.key)
    for (let i = 0; i < 100 && (await servedCertificate()) === before; i += 1)
      await sleep(INTERVAL_MS)
    expect(await servedCertificate()).not.to.equal(before)
  }

  it('serves a renewed certificate without a restart, and keeps the old one till the key matches', async () => {
    await start()
    await renew(second)
    expect((await mutate()).status).to.equal(200)
  })

  it('hands a renewed CA to pods, and never what is no CA', async () => {
    await start()
    const caNow = async (): Promise<unknown> =>
      (sidecarOf(await mutate())['env'] as Json[])[2]?.['value']
    const before = await caNow()
    await replace('ca.crt', second.ca + second.key)
    await sleep(5 * INTERVAL_MS)
    expect(await caNow()).to.equal(before)
    await replace('ca.crt', second.ca)
    for (let i = 0; i < 100 && (await caNow()) === before; i += 1) await sleep(INTERVAL_MS)
    expect(await caNow()).to.equal(second.ca.replaceAll('\r\n', '\n'))
  })

  /** A stand-in for the API server's /version. */
  async function serveVersion(answer: () => readonly [number, string]): Promise<string> {
    const { cert, key } = first
    const server = createServer({ cert, key }, (incoming, response) => {
      const known = incoming.headers.authorization === 'Bearer sa-token'
      const [status, body] =
        known && incoming.url === '/version' ? answer() : ([401, '{}'] as const)
      response.writeHead(status, { 'content-type': 'application/json' }).end(body)
    })
    apiServer = server
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return `https://localhost:${(server.address() as AddressInfo).port}`
  }

  const versions = [
    ['1', '20', 'container'],
    ['1', '31+', 'container'],
    ['1', '32', 'native'],
    ['1', '36+', 'native'],
    ['2', '0', 'native'],
  ] as const
  for (const [major, minor, mode] of versions)
    it(`learns that ${major}.${minor} takes the sidecar as ${mode}`, async () => {
      let known = false
      const server = await serveVersion(() =>
        known ? [200, JSON.stringify({ major, minor })] : [500, '{'],
      )
      await start((config) => {
        config['kubernetes'] = { server, caFile: file('ca.crt'), tokenFile: file('token') }
        config['sidecar'] = { ...config['sidecar'], mode: 'auto' }
      })
      expect((await call('/healthz')).status).to.equal(200)
      expect((await call('/readyz')).status).to.equal(503)
      const early = await mutate()
      expect([early.status, reasonOf(early)]).to.deep.equal([503, 'nestgate.dev/webhook_not_ready'])
      known = true
      for (let i = 0; i < 100 && (await call('/readyz')).status !== 200; i += 1)
        await sleep(INTERVAL_MS)
      const { auditAnnotations } = (await mutate()).json['response'] as Json
      expect(auditAnnotations).to.include({ mode })
    })

  /** Runs `main.ts`; it is killed when the test is over, whatever happens. */
  async function run(
    args: readonly string[],
    whenItSays: (line: string, kill: () => void) => void = () => undefined,
  ): Promise<{ code: number | null; out: string; err: string }> {
    const child = spawn(process.execPath, [MAIN, ...args], { env: { HOME: '/' } })
    const timer = setTimeout(() => child.kill('SIGKILL'), 8000)
    let out = ''
    let err = ''
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString()
      whenItSays(out, () => child.kill('SIGTERM'))
    })
    const [code] = (await once(child, 'close')) as [number | null]
    clearTimeout(timer)
    return { code, out, err }
  }

  it('as a process: starts from its file, says where it listens, ends on SIGTERM', async () => {
    const path = await writeFiles(() => undefined)
    let killed = false
    const { code, out, err } = await run(['--config', path], (said, kill) => {
      if (!said.includes('listening') || killed) return
      killed = true
      // The handler is set right after the line is written.
      setTimeout(kill, 100)
    })
    expect([code, err]).to.deep.equal([0, ''])
    expect(JSON.parse(out.split('\n')[0] ?? '')).to.include({ name: 'nestgate-webhook' })
  })

  it('as a process: tells every problem of its configuration and ends with 1', async () => {
    const path = await writeFiles((config) => {
      config['typo'] = {}
      config['sidecar'] = { ...config['sidecar'], brokerUrl: 'http://b', mode: 'x' }
    })
    const { code, out, err } = await run(['--config', path])
    expect([code, out]).to.deep.equal([1, ''])
    for (const word of ['typo', 'sidecar.brokerUrl', 'sidecar.mode']) expect(err).to.include(word)
  })

  const unusable = [
    ['no certificate', (): Promise<void> => rm(file('tls.crt')), 'tls.crt: ENOENT'],
    [
      'a key of another certificate',
      (): Promise<void> => replace('tls.key', second.key),
      'not that of',
    ],
    [
      'a key in the CA file',
      (): Promise<void> => replace('ca.crt', first.key),
      'other than certif',
    ],
  ] as const
  for (const [what, spoil, message] of unusable)
    it(`as a process: does not start with ${what}`, async () => {
      const path = await writeFiles(() => undefined)
      await spoil()
      const { code, err } = await run(['--config', path])
      expect(code).to.equal(1)
      expect(err).to.include(message)
      expect(err).not.to.include('PRIVATE')
    })
})
