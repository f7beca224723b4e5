/** `nestgate clusters` over the real API: registered, changed, removed by admins, and the ledger says by whom. */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { runCli } from '../../cli/program.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

describe('nestgate clusters', () => {
  let upstream: Upstream
  let api: ApiServer
  let secrets: string

  before(async () => {
    upstream = await startUpstream()
  })
  after(() => upstream.close())

  beforeEach(async () => {
    secrets = mkdtempSync(join(tmpdir(), 'nestgate-secrets-'))
    copyFileSync(upstream.tokenFile, join(secrets, 'token'))
    api = await startApi(undefined, undefined, {
      clusterSecretsDir: secrets,
      clusters: [
        {
          name: 'fixed',
          server: upstream.url,
          caFile: upstream.caFile,
          credential: { tokenFile: upstream.tokenFile },
          serviceAccountTokens: { verify: 'tokenReview' },
        },
      ],
    })
  })
  afterEach(async () => {
    await api.close()
    rmSync(secrets, { recursive: true })
  })

  async function cli(person: string, ...args: readonly string[]): Promise<Ran> {
    let out = ''
    let err = ''
    const code = await runCli({
      args: ['clusters', ...args],
      env: { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: `token-${person}` },
      now: Date.now,
      out: (text) => (out += text),
      err: (text) => (err += text),
    })
    return { code, out, err }
  }

  const given = (): string[] => [
    '--server',
    upstream.url,
    '--ca',
    upstream.caFile,
    '--token-name',
    'token',
  ]

  /** What the ledger has of clusters, the newest first. */
  const changes = async () =>
    (await api.store.events({ kind: 'system' }, 10)).filter(({ entry }) =>
      String(entry['event']).startsWith('cluster_'),
    )

  it('registers, changes, lists and removes, each an entry of the ledger', async () => {
    const added = await cli('root', 'add', 'far', ...given(), '--policies', 'a', 'b')
    expect([added.code, added.err]).to.deep.equal([0, ''])
    expect((await cli('root', 'update', 'far', ...given())).code).to.equal(0)
    const { out } = await cli('carol', 'list')
    expect(out)
      .to.match(/far +open +api/)
      .and.to.match(/fixed +open +file/)
    expect((await cli('root', 'remove', 'far')).code).to.equal(0)
    expect((await cli('carol', 'list')).out).not.to.include('far')
    const events = (await changes()).map(({ entry }) => entry)
    expect(events.map(({ event }) => event).toReversed()).to.deep.equal([
      'cluster_registered',
      'cluster_changed',
      'cluster_removed',
    ])
    expect(events.at(-1)).to.include({ actor: 'root' })
    expect(events.at(-1)).to.have.nested.property('detail.policies', 'a,b')
    expect(JSON.stringify(events)).not.to.include('the-brokers-own-token')
    expect(await api.store.records('cluster', {}, 9)).to.deep.equal([])
  })

  it('keeps what was registered, without any secret', async () => {
    await cli('root', 'add', 'far', ...given())
    const [stored] = (await api.store.records('cluster', {}, 9)).map(({ body }) => body)
    expect(stored).to.deep.include({ name: 'far', credential: { tokenFile: 'token' } })
    expect(JSON.stringify(stored)).not.to.include('the-brokers-own-token')
  })

  it('registers a cluster of either mode, as nestgate connect says', async () => {
    const [server = '', url = '', ca = '', file = ''] = given()
    const place = [server, url, ca, file]
    const hash = 'ab'.repeat(32)
    const issuer = await cli('root', 'add', 'new', ...place, '--authorizer-sha256', hash)
    expect([issuer.code, issuer.err]).to.deep.equal([0, ''])
    const renewed = ['--refresh', 'nestgate-system/nestgate-broker', '--bound-namespaces', 'a', 'b']
    const old = await cli('root', 'add', 'old', ...given(), ...renewed, '--bound-users', 'ci:x')
    expect([old.code, old.err]).to.deep.equal([0, ''])
    const records = await api.store.records('cluster', {}, 9)
    const clusters = records.map(({ body }) => body as { readonly name: string })
    const stored = new Map(clusters.map((cluster) => [cluster.name, cluster]))
    expect(stored.get('new')).to.deep.include({
      credential: { issuer: { authorizerTokenSha256: hash } },
    })
    expect(stored.get('old')).to.deep.include({
      credential: {
        tokenFile: 'token',
        refresh: { namespace: 'nestgate-system', serviceAccount: 'nestgate-broker' },
      },
      bound: { namespaces: ['a', 'b'], users: ['ci:x'] },
    })
    for (const wrong of [
      ['--refresh', 'nestgate-broker', '--token-name', 'token'],
      ['--refresh', 'a/b/c', '--token-name', 'token'],
      ['--refresh', 'a/b'],
      ['--cert-name', 'c'],
      ['--authorizer-sha256', hash, '--token-name', 'token'],
      [],
    ])
      expect(await cli('root', 'add', 'far', ...place, ...wrong)).to.include({ code: 2, out: '' })
    expect((await cli('root', 'list')).out).to.match(/new +\w+ +api/)
    const short = await cli('root', 'add', 'far', ...place, '--authorizer-sha256', 'ab')
    expect(short.err).to.include('body_invalid')
  })

  it('is for admins', async () => {
    for (const person of ['alice', 'carol']) {
      const { code, err } = await cli(person, 'add', 'far', ...given())
      expect([code, err.includes('role_missing')]).to.deep.equal([1, true])
    }
    expect((await cli('alice', 'remove', 'fixed')).err).to.include('role_missing')
  })

  it('does not touch what the configuration says, nor register twice', async () => {
    expect((await cli('root', 'remove', 'fixed')).err).to.include('cluster_conflict')
    expect((await cli('root', 'update', 'fixed', ...given())).err).to.include('cluster_conflict')
    expect((await cli('root', 'add', 'fixed', ...given())).err).to.include('cluster_conflict')
    await cli('root', 'add', 'far', ...given())
    expect((await cli('root', 'add', 'far', ...given())).err).to.include('cluster_conflict')
    expect((await cli('root', 'update', 'none', ...given())).err).to.include('cluster_unknown')
  })

  it('registers a name once, of many who do so at the same time', async () => {
    const all = await Promise.all(
      Array.from({ length: 5 }, (_, at) =>
        cli('root', 'add', 'far', ...given(), '--policies', `p${at}`),
      ),
    )
    expect(all.filter(({ code }) => code === 0)).to.have.length(1)
    const events = await changes()
    expect(events.map(({ entry }) => entry['event'])).to.deep.equal(['cluster_registered'])
  })

  it('registers a cluster that cannot be opened yet, and says why', async () => {
    const args = ['--server', upstream.url, '--ca', upstream.caFile, '--token-name', 'none']
    await cli('root', 'add', 'later', ...args.slice(0, 4), '--cert-name', 'c', '--key-name', 'k')
    const { out } = await cli('root', 'list')
    expect(out).to.match(/later +broken +api.*ENOENT/)
  })

  it('is used rightly, or nothing is sent', async () => {
    expect(
      (await cli('root', 'add', 'far', '--server', upstream.url, '--ca', '/nowhere')).code,
    ).to.equal(2)
    const both = [...given(), '--cert-name', 'c', '--key-name', 'k']
    expect((await cli('root', 'add', 'far', ...both)).code).to.equal(2)
    const path = ['--server', upstream.url, '--ca', upstream.caFile, '--token-name', '../token']
    expect((await cli('root', 'add', 'far', ...path)).err).to.include('body_invalid')
  })
})
