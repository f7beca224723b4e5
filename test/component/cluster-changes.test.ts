/** Clusters whose files change, that come back, and that go: what is used from then on, and what is cut. */
import { chmodSync, copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { TLSSocket } from 'node:tls'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import type { Dispatcher } from 'undici'
import { createClusters, usable } from '../../broker/clusters/registry.ts'
import type { Clusters, ClusterStatus } from '../../broker/clusters/registry.ts'
import type { ClusterSettings } from '../../broker/clusters/settings.ts'
import { clusterJson } from '../../broker/credentials/cluster-json.ts'
import type { ClusterAnswer } from '../../broker/credentials/cluster-json.ts'
import { requestUpgrade } from '../../shared/upgrade.ts'
import { connectionDeps } from '../support/connections.ts'
import { makeCertificates } from '../support/certificates.ts'
import type { Certificates } from '../support/certificates.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

const LOOK_AGAIN_MS = 20

describe('a cluster that changes', () => {
  let upstream: Upstream
  let other: Upstream
  let dir: string
  let clusters: Clusters

  before(async () => {
    upstream = await startUpstream()
    other = await startUpstream()
  })
  after(async () => {
    await upstream.close()
    await other.close()
  })

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-changes-'))
    copyFileSync(upstream.caFile, join(dir, 'ca.crt'))
    clusters = createClusters({ ...connectionDeps(), lookAgainMs: LOOK_AGAIN_MS })
  })
  afterEach(async () => {
    await clusters.close()
    rmSync(dir, { recursive: true })
  })

  const settings = (more: object = {}): ClusterSettings => ({
    name: 'one',
    server: upstream.url,
    caFile: join(dir, 'ca.crt'),
    credential: { tokenFile: upstream.tokenFile },
    serviceAccountTokens: { verify: 'tokenReview' },
    ...more,
  })

  async function ask(path = '/version'): Promise<ClusterAnswer> {
    const cluster = usable(clusters, 'one')
    if (cluster === undefined) return { problem: 'unusable' }
    return clusterJson(cluster.connection, 'GET', path)
  }

  async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
    const end = performance.now() + 5000
    while (!(await holds()) && performance.now() < end) await sleep(10)
    expect(await holds()).to.equal(true)
  }

  const status = (): ClusterStatus | undefined => clusters.list()[0]
  const place = (name: string, text: string): void => {
    writeFileSync(join(dir, `${name}.new`), text, { mode: 0o600 })
    renameSync(join(dir, `${name}.new`), join(dir, name))
  }

  /** A stream that the API server has begun to answer; settles with whether it was cut. */
  async function openStream(): Promise<{ readonly cut: Promise<boolean> }> {
    upstream.onRequest = (_request, response) => response.writeHead(200).write('begun')
    const { connection } = usable(clusters, 'one') ?? expect.fail('there is no way')
    const answer: Dispatcher.ResponseData = await connection.requests.request({
      method: 'GET',
      path: '/watch',
    })
    const cut = answer.body.text().then(
      () => false,
      () => true,
    )
    return { cut }
  }

  /** As {@link openStream}, for an upgraded connection. */
  async function openSession(): Promise<{ readonly cut: Promise<boolean> }> {
    upstream.onUpgrade = (_request, socket) => {
      socket.on('error', () => undefined)
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
    }
    const { connection } = usable(clusters, 'one') ?? expect.fail('there is no way')
    const got = await requestUpgrade(connection.upgrades, {
      ...{ method: 'GET', path: '/exec', headers: {}, protocol: 'x' },
    })
    if (got.kind !== 'upgraded') return expect.fail('no upgrade')
    const { socket } = got
    socket.on('error', () => undefined)
    return {
      cut: new Promise((resolve) =>
        socket.once('close', () => {
          resolve(true)
        }),
      ),
    }
  }

  const isCut = ({ cut }: { readonly cut: Promise<boolean> }): Promise<boolean> =>
    Promise.race([cut, sleep(500).then(() => false)])

  afterEach(() => {
    upstream.onRequest = (_request, response) => response.writeHead(200).end('{}')
    upstream.onUpgrade = (_request, socket) => socket.destroy()
  })

  it('is served as soon as its missing files are there', async () => {
    rmSync(join(dir, 'ca.crt'))
    await clusters.put(settings(), 'file')
    expect(status()).to.include({ state: 'broken' })
    copyFileSync(upstream.caFile, join(dir, 'ca.crt'))
    await until(() => status()?.state === 'open')
    expect(status()).not.to.have.property('problem')
    expect(await ask()).to.have.property('json')
  })

  it('is trusted by its new authority alone once that is replaced', async () => {
    copyFileSync(other.caFile, join(dir, 'ca.crt'))
    await clusters.put(settings(), 'file')
    expect(await ask()).to.have.property('problem')
    copyFileSync(upstream.caFile, join(dir, 'ca.crt'))
    await until(async () => 'json' in (await ask()))
    copyFileSync(other.caFile, join(dir, 'ca.crt'))
    await until(async () => 'problem' in (await ask()))
  })

  it('keeps its way while its new authority is none, says so, and forgets it when that is mended', async () => {
    await clusters.put(settings(), 'file')
    place('ca.crt', 'half a fi')
    await until(() => status()?.problem !== undefined)
    expect(status()).to.include({ state: 'open' })
    expect(await ask()).to.have.property('json')
    copyFileSync(upstream.caFile, join(dir, 'ca.crt'))
    await until(() => status()?.problem === undefined)
  })

  it('lets streams go on when its authority is replaced', async () => {
    await clusters.put(settings(), 'file')
    const [stream, session] = [await openStream(), await openSession()]
    const first = usable(clusters, 'one')
    place('ca.crt', `\n${makeCertificates({ hosts: ['a'] }).ca}`)
    await until(() => usable(clusters, 'one') !== first)
    expect(await Promise.all([isCut(stream), isCut(session)])).to.deep.equal([false, false])
  })

  for (const rotated of [false, true])
    for (const how of ['removed', 'put in the place of another', 'closed'])
      it(`cuts its streams when it is ${how}${rotated ? ', those of before a rotation too' : ''}`, async () => {
        await clusters.put(settings(), 'api')
        const [stream, session] = [await openStream(), await openSession()]
        if (rotated) {
          const first = usable(clusters, 'one')
          place('ca.crt', `\n${makeCertificates({ hosts: ['a'] }).ca}`)
          await until(() => usable(clusters, 'one') !== first)
        }
        if (how === 'removed') await clusters.remove('one')
        else if (how === 'closed') await clusters.close()
        else await clusters.put(settings({ server: other.url, caFile: other.caFile }), 'api')
        expect(await Promise.all([isCut(stream), isCut(session)])).to.deep.equal([true, true])
      })

  describe('whose API server knows the broker by a certificate', () => {
    let server: Server
    let own: Certificates
    /** Fingerprints of the certificates that the broker showed. */
    let shown: string[]

    beforeEach(async () => {
      own = makeCertificates({ hosts: ['127.0.0.1'] })
      shown = []
      server = createServer(
        { cert: own.cert, key: own.key, requestCert: true, rejectUnauthorized: false },
        (request, response) => {
          if (request.socket instanceof TLSSocket)
            shown.push(request.socket.getPeerCertificate().fingerprint256)
          response.writeHead(200, { 'content-type': 'application/json' }).end('{}')
        },
      )
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    })
    afterEach(async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    })

    it('is shown the new one once that is replaced, and never half of a pair', async () => {
      const pairs = [makeCertificates({ hosts: ['b1'] }), makeCertificates({ hosts: ['b2'] })]
      const [old, fresh] = pairs as [Certificates, Certificates]
      writeFileSync(join(dir, 'ca.crt'), own.ca)
      writeFileSync(join(dir, 'tls.crt'), old.cert)
      writeFileSync(join(dir, 'tls.key'), old.key, { mode: 0o600 })
      const { port } = server.address() as AddressInfo
      const credential = { certFile: join(dir, 'tls.crt'), keyFile: join(dir, 'tls.key') }
      await clusters.put(settings({ server: `https://127.0.0.1:${port}`, credential }), 'file')
      expect(await ask()).to.have.property('json')
      const first = usable(clusters, 'one')
      place('tls.crt', fresh.cert)
      await until(() => status()?.problem !== undefined)
      expect(usable(clusters, 'one')).to.equal(first)
      place('tls.key', fresh.key)
      await until(() => usable(clusters, 'one') !== first)
      expect(await ask()).to.have.property('json')
      expect(new Set(shown).size).to.equal(2)
      expect(JSON.stringify(status())).not.to.include('PRIVATE')
    })

    it('is not used with a key that others can read, and is once they cannot', async () => {
      const { cert, key } = makeCertificates({ hosts: ['b1'] })
      writeFileSync(join(dir, 'ca.crt'), own.ca)
      writeFileSync(join(dir, 'tls.crt'), cert)
      writeFileSync(join(dir, 'tls.key'), key, { mode: 0o644 })
      const { port } = server.address() as AddressInfo
      const credential = { certFile: join(dir, 'tls.crt'), keyFile: join(dir, 'tls.key') }
      await clusters.put(settings({ server: `https://127.0.0.1:${port}`, credential }), 'file')
      expect(status()).to.include({ state: 'broken' })
      expect(status()?.problem).to.include('has mode 0644')
      expect(await ask()).to.have.property('problem')
      chmodSync(join(dir, 'tls.key'), 0o600)
      await until(() => status()?.state === 'open')
      expect(await ask()).to.have.property('json')
    })
  })
})
