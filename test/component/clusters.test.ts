/** Many clusters, one broker: each by itself. Registered, changed and removed through the API; none disturbs another. */
import { mkdtempSync, rmSync, writeFileSync, readFileSync, copyFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { createClusters, usable } from '../../broker/clusters/registry.ts'
import type { Clusters } from '../../broker/clusters/registry.ts'
import { placed, registeredSchema } from '../../broker/clusters/settings.ts'
import type { ClusterSettings } from '../../broker/clusters/settings.ts'
import { clusterJson } from '../../broker/credentials/cluster-json.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { connectionDeps } from '../support/connections.ts'
import { makeCertificates } from '../support/certificates.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

describe('the registered clusters', () => {
  let good: Upstream
  let other: Upstream
  /** Takes connections and never says a word. */
  let hanging: Server
  let dir: string
  let clusters: Clusters

  before(async () => {
    good = await startUpstream()
    other = await startUpstream()
    // read on, or its sockets outlive the clients that leave
    hanging = createServer((socket) => socket.resume())
    await new Promise<void>((resolve) => hanging.listen(0, '127.0.0.1', resolve))
  })

  after(async () => {
    await good.close()
    await other.close()
    hanging.close()
  })

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-clusters-'))
    clusters = createClusters({ ...connectionDeps() })
  })

  afterEach(async () => {
    await clusters.close()
    rmSync(dir, { recursive: true })
  })

  const settings = (name: string, upstream: Upstream, more: object = {}): ClusterSettings => ({
    name,
    server: upstream.url,
    caFile: upstream.caFile,
    credential: { tokenFile: upstream.tokenFile },
    serviceAccountTokens: { verify: 'jwks', issuer: upstream.issuer },
    ...more,
  })

  async function answers(name: string): Promise<boolean> {
    const cluster = usable(clusters, name)
    if (cluster === undefined) return false
    return 'json' in (await clusterJson(cluster.connection, 'GET', '/version'))
  }

  it('has nothing under a name that nobody registered', () => {
    expect(clusters.get('none')).to.equal(undefined)
  })

  const broken: readonly (readonly [string, object])[] = [
    ['has no file of its authority', { caFile: '/nowhere/ca.crt' }],
    ['has an authority that is no certificate', { caFile: import.meta.filename }],
    [
      'has no certificate of its own',
      { credential: { certFile: '/nowhere', keyFile: '/nowhere' } },
    ],
  ]
  for (const [what, more] of broken)
    it(`refuses a cluster that ${what}, and serves the others`, async () => {
      const [status] = await Promise.all([
        clusters.put(settings('broken', other, more), 'file'),
        clusters.put(settings('good', good), 'file'),
      ])
      expect(status.state).to.equal('broken')
      expect(status.problem).to.be.a('string')
      const found = clusters.get('broken')
      expect(found !== undefined && isRefusal(found) && found.refused).to.equal('cluster_unusable')
      expect(await answers('good')).to.equal(true)
    })

  it('trusts no certificate of another authority', async () => {
    await clusters.put(settings('strange', other, { caFile: good.caFile }), 'file')
    expect(await answers('strange')).to.equal(false)
  })

  it('serves a cluster as ever while another one hangs', async () => {
    const address = hanging.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    await clusters.put(settings('hanging', other, { server: `https://127.0.0.1:${port}` }), 'file')
    await clusters.put(settings('good', good), 'file')
    const stuck = Array.from({ length: 50 }, () => answers('hanging'))
    const started = performance.now()
    for (let at = 0; at < 20; at += 1) expect(await answers('good')).to.equal(true)
    expect(performance.now() - started).to.be.below(2000)
    await clusters.remove('hanging')
    expect(await Promise.all(stuck)).not.to.include(true)
  })

  it('refuses the sidecars of a cluster whose keys are garbage, and of no other', async () => {
    other.identityUp = false
    await clusters.put(settings('garbage', other), 'file')
    await clusters.put(settings('good', good), 'file')
    const verify = async (name: string, token: string): Promise<object> =>
      (await usable(clusters, name)?.verifier.verify(token)) ?? {}
    expect(await verify('garbage', await other.token())).to.include({
      refused: 'identity_unavailable',
    })
    expect(await verify('good', await good.token())).to.include({ cluster: 'good' })
    expect(await verify('good', await other.token())).to.have.property('refused')
    other.identityUp = true
  })

  it('puts one cluster in the place of another, and forgets one', async () => {
    await clusters.put(settings('one', good, { policies: ['a'] }), 'api')
    const first = usable(clusters, 'one')
    expect(clusters.policiesOf('one')).to.deep.equal(['a'])
    await clusters.put(settings('one', other), 'api')
    expect(usable(clusters, 'one')).not.to.equal(first)
    expect(clusters.policiesOf('one')).to.equal(undefined)
    expect(clusters.list()).to.have.length(1)
    await clusters.remove('one')
    expect(clusters.get('one')).to.equal(undefined)
  })

  it('takes certificates as they are renewed, its own among them', async () => {
    const files = {
      caFile: join(dir, 'ca.crt'),
      certFile: join(dir, 'c.crt'),
      keyFile: join(dir, 'c.key'),
    }
    const put = (made: ReturnType<typeof makeCertificates>): void => {
      writeFileSync(files.certFile, made.cert)
      writeFileSync(files.keyFile, made.key, { mode: 0o600 })
    }
    copyFileSync(other.caFile, files.caFile)
    put(makeCertificates({ hosts: ['one'] }))
    const quick = createClusters({ ...connectionDeps(), lookAgainMs: 20 })
    const { caFile, certFile, keyFile } = files
    await quick.put(settings('one', good, { caFile, credential: { certFile, keyFile } }), 'file')
    const seen = new Set([usable(quick, 'one')])
    const changed = async (): Promise<void> => {
      const end = performance.now() + 3000
      while (seen.has(usable(quick, 'one')) && performance.now() < end) await sleep(10)
      expect(seen.has(usable(quick, 'one'))).to.equal(false)
      seen.add(usable(quick, 'one'))
    }
    put(makeCertificates({ hosts: ['two'] }))
    await changed()
    copyFileSync(good.caFile, files.caFile)
    await changed()
    const cluster = usable(quick, 'one')
    expect(
      cluster && 'json' in (await clusterJson(cluster.connection, 'GET', '/version')),
    ).to.equal(true)
    await quick.close()
  })

  it('tells nothing of a credential but its kind', async () => {
    writeFileSync(join(dir, 'token'), 'the-secret-token', { mode: 0o600 })
    const tokenFile = join(dir, 'token')
    await clusters.put(settings('one', good, { credential: { tokenFile } }), 'api')
    const text = JSON.stringify(clusters.list())
    expect(text)
      .to.include('"credential":"token"')
      .and.not.to.include('secret')
      .and.not.to.include(dir)
  })

  describe('as the API takes them', () => {
    const body = (more: object): object => ({
      name: 'one',
      server: 'https://10.0.0.5:6443',
      ca: readFileSync(good.caFile, 'utf8'),
      credential: { tokenFile: 'token' },
      serviceAccountTokens: { verify: 'tokenReview' },
      ...more,
    })

    it('name credentials by files of the operator’s folder', async () => {
      copyFileSync(good.tokenFile, join(dir, 'token'))
      const given = registeredSchema.parse(body({ server: good.url }))
      expect(await clusters.put(placed(given, dir), 'api')).to.include({
        state: 'open',
        source: 'api',
      })
      expect(await answers('one')).to.equal(true)
    })

    const bad: readonly (readonly [string, object])[] = [
      ['a path to a credential', { credential: { tokenFile: '../token' } }],
      ['an absolute path', { credential: { tokenFile: '/etc/shadow' } }],
      ['plain http', { server: 'http://10.0.0.5' }],
      ['a user in the address', { server: 'https://user:pass@10.0.0.5' }],
      ['a path in the address', { server: 'https://10.0.0.5/api' }],
      ['a query in the address', { server: 'https://10.0.0.5?x' }],
      ['no authority', { ca: '' }],
      ['a token in clear', { credential: { token: 'abc' } }],
      ['a name that is no label', { name: 'a/b' }],
    ]
    for (const [what, more] of bad)
      it(`are refused with ${what}`, () => {
        expect(registeredSchema.safeParse(body(more)).success).to.equal(false)
      })
  })
})
