/** What API servers read and ask of the broker, and what people do with its keys, over real HTTP. */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import { decodeProtectedHeader } from 'jose'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { Agent, request } from 'undici'
import { runCli } from '../../cli/program.ts'
import type { Actor } from '../../broker/credentials/actor.ts'
import { callOf } from '../../broker/credentials/api-call.ts'
import { isRefusal, REASONS } from '../../shared/reasons.ts'
import type { Reason } from '../../shared/reasons.ts'
import { newRequestId } from '../../shared/request-id.ts'
import { issuerKeysSchema, keyReplacedSchema } from '../../shared/wire.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiExtras, ApiServer } from '../support/api-server.ts'
import { startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'
import { startVault } from '../support/vault.ts'

const ISSUER = 'https://broker.example:8443/issuer'
const WORKER: Actor = { kind: 'serviceAccount', namespace: 'agents', serviceAccount: 'worker' }
const USER = 'nestgate:serviceaccount:agents:worker'
const ACCOUNT = 'system:serviceaccount:agents:worker'
const MIB = 1024 * 1024

interface Reply {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: unknown
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

describe('the broker as issuer, over HTTP', () => {
  let upstream: Upstream
  let api: ApiServer
  let dispatcher: Agent
  let stop: (() => Promise<void>)[]

  const clustersOf = (): NonNullable<ApiExtras['clusters']> => {
    const common = {
      ...{ server: upstream.url, caFile: upstream.caFile },
      serviceAccountTokens: { verify: 'tokenReview' as const },
    }
    const issuer = (token: string) => ({ issuer: { authorizerTokenSha256: sha256(token) } })
    return [
      { ...common, name: 'main', credential: issuer('authorizer-main') },
      { ...common, name: 'far', credential: issuer('authorizer-far') },
      { ...common, name: 'broken', credential: issuer('authorizer-broken'), caFile: '/none' },
      {
        ...{ ...common, name: 'old', credential: { tokenFile: upstream.tokenFile } },
        bound: { namespaces: ['agents'], users: ['ci:x'] },
      },
    ]
  }
  const start = async (extras: ApiExtras = { issuer: { url: ISSUER } }): Promise<void> => {
    const started = await startApi(undefined, undefined, { clusters: clustersOf(), ...extras })
    api = started
    stop.push(() => started.close())
  }
  beforeEach(async () => {
    stop = []
    dispatcher = new Agent()
    stop.push(() => dispatcher.close())
    upstream = await startUpstream()
    stop.push(() => upstream.close())
    await start()
  })
  afterEach(async () => {
    for (const one of stop.toReversed()) await one()
  })

  const call = async (
    method: 'GET' | 'POST',
    path: string,
    body?: unknown,
    headers: readonly string[] = [],
  ): Promise<Reply> => {
    const text = body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body)
    const answer = await request(api.url + path, {
      ...{ method, dispatcher, body: text },
      headers: [...(body === undefined ? [] : ['content-type', 'application/json']), ...headers],
    })
    const received = await answer.body.text()
    return {
      ...{ status: answer.statusCode, headers: answer.headers },
      body: received === '' ? undefined : (JSON.parse(received) as unknown),
    }
  }
  const as = (token: string): readonly string[] => ['authorization', `Bearer ${token}`]
  const expectRefusal = ({ status, headers, body }: Reply, reason: Reason): void => {
    expect(body).to.deep.include({ code: reason, status: REASONS[reason].status })
    expect(status).to.equal(REASONS[reason].status)
    expect(headers['content-type']).to.match(/^application\/problem\+json/)
  }
  const events = async (): Promise<readonly unknown[]> =>
    (await api.store.events({ kind: 'system' }, 20))
      .map(({ entry }) => entry)
      .filter(({ event }) => event !== 'login')

  describe('its documents', () => {
    it('are public, JSON, kept for half a minute, and say where the keys are', async () => {
      const found = await call('GET', '/issuer/.well-known/openid-configuration')
      expect(found.status).to.equal(200)
      expect(found.headers).to.include({ 'cache-control': 'max-age=30' })
      expect(found.headers['content-type']).to.match(/^application\/json/)
      expect(found.body).to.deep.equal({
        issuer: ISSUER,
        jwks_uri: `${ISSUER}/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256'],
      })
      const keys = await call('GET', '/issuer/jwks')
      expect(keys.headers).to.include({ 'cache-control': 'max-age=30' })
      expect(keys.headers['content-type']).to.match(/^application\/json/)
      const { keys: list } = keys.body as { keys: readonly object[] }
      expect(list).to.have.length(1)
      const parts = ['alg', 'crv', 'kid', 'kty', 'use', 'x', 'y']
      expect(Object.keys(list[0] ?? {}).toSorted(), 'nothing private').to.deep.equal(parts)
    })

    it('are at these two addresses, and nothing else is', async () => {
      for (const path of ['/issuer', '/issuer/', '/issuer/jwks/', '/issuer/JWKS', '/jwks'])
        expectRefusal(await call('GET', path), 'path_unknown')
      expectRefusal(await call('POST', '/issuer/jwks', {}), 'path_unknown')
      const { headers } = await call('GET', '/issuer/keys')
      expect(headers).to.include({ 'cache-control': 'no-store' })
    })

    it('are not there where the broker is no issuer', async () => {
      await start({})
      expectRefusal(await call('GET', '/issuer/jwks'), 'path_unknown')
      expectRefusal(await call('GET', '/v1/issuer', undefined, as('token-carol')), 'path_unknown')
    })

    it('have no empty key set while Vault has said nothing', async () => {
      const vault = await startVault(Date.now())
      stop.push(() => vault.close())
      vault.fault = (response) => response.writeHead(503).end()
      await start({ issuer: { url: ISSUER, signer: { vault: vault.settings } } })
      const reply = await call('GET', '/issuer/jwks')
      expectRefusal(reply, 'credential_unavailable')
      expect(reply.headers).to.include({ 'cache-control': 'no-store' })
      const shown = await call('GET', '/v1/issuer', undefined, as('token-carol'))
      expect(shown.body).to.deep.equal({ url: ISSUER, keys: [] })
    })
  })

  /** A request under way: what an API server is then asked about. */
  const underWay = (cluster: string): string => {
    const requestId = newRequestId(Date.now())
    const ticket = api.credentials.tickets.open(cluster, {
      ...{ requestId, actor: WORKER, grantGroups: [], process: 'planner', approvers: [] },
      call: callOf('DELETE', '/api/v1/namespaces/shop/pods/web'),
    })
    if (ticket === undefined) throw new Error('no room')
    return requestId
  }

  describe('the authorizer', () => {
    const review = (id: string, change: object = {}, version = 'v1'): object => ({
      ...{ apiVersion: `authorization.k8s.io/${version}`, kind: 'SubjectAccessReview' },
      spec: {
        ...{ user: USER, groups: [`nestgate:request:${id}`] },
        resourceAttributes: {
          ...{ verb: 'delete', version: 'v1', resource: 'pods', namespace: 'shop', name: 'web' },
        },
        ...change,
      },
    })
    const PATH = '/v1/clusters/main/authorize'
    beforeEach(() => {
      upstream.accessReviews.length = 0
    })

    it('allows what is under way, once, and asks the cluster’s roles in the broker’s own name', async () => {
      const body = review(underWay('main'))
      const first = await call('POST', PATH, body, as('authorizer-main'))
      expect(first.status).to.equal(200)
      expect(first.body).to.have.nested.property('status.allowed', true)
      expect(first.body).to.include({ apiVersion: 'authorization.k8s.io/v1' })
      expect(upstream.accessReviews).to.have.lengthOf(1)
      expect(upstream.accessReviews[0]).to.have.nested.property('spec.user')
      expect(upstream.seen).to.deep.equal([])
      const second = await call('POST', PATH, body, as('authorizer-main'))
      expect(second.body).to.have.deep.nested.property('status.denied', true)
      expect(api.refused.map(({ cluster, why }) => [cluster, why])).to.deep.equal([
        ['main', 'the credential was used already'],
      ])
    })

    it('refuses another cluster’s request, and one that nobody has', async () => {
      for (const id of [underWay('far'), newRequestId(Date.now())]) {
        const reply = await call('POST', PATH, review(id), as('authorizer-main'))
        expect(reply.body).to.have.deep.nested.property('status.denied', true)
      }
      expect(upstream.seen).to.deep.equal([])
    })

    const WRONG: Readonly<Record<string, readonly [string, readonly string[], Reason]>> = {
      'without a token': [PATH, [], 'credentials_missing'],
      'with an empty token': [PATH, ['authorization', 'Bearer '], 'credentials_missing'],
      'with another scheme': [PATH, ['authorization', 'Basic eDp5'], 'credentials_missing'],
      'with a wrong token': [PATH, as('authorizer-mai'), 'credentials_invalid'],
      'with the digest of the token': [PATH, as(sha256('authorizer-main')), 'credentials_invalid'],
      'with a person’s token': [PATH, as('token-root'), 'credentials_invalid'],
      'with the token of another cluster': [PATH, as('authorizer-far'), 'credentials_invalid'],
      'with two of them': [
        PATH,
        [...as('authorizer-main'), ...as('authorizer-main')],
        'credentials_missing',
      ],
      'for a cluster of the other mode': [
        '/v1/clusters/old/authorize',
        as('authorizer-main'),
        'credentials_invalid',
      ],
      'for a cluster that is unknown': [
        '/v1/clusters/none/authorize',
        as('authorizer-main'),
        'credentials_invalid',
      ],
      'for a cluster that cannot be opened': [
        '/v1/clusters/broken/authorize',
        as('authorizer-broken'),
        'cluster_unusable',
      ],
    }
    for (const [what, [path, headers, reason]] of Object.entries(WRONG))
      it(`is not asked ${what}`, async () => {
        const id = underWay('main')
        expectRefusal(await call('POST', path, review(id), headers), reason)
        const right = await call('POST', PATH, review(id), as('authorizer-main'))
        expect(right.body, 'nothing was spent').to.have.nested.property('status.allowed', true)
      })

    it('answers reviews of its own kind alone', async () => {
      const id = underWay('main')
      const bodies = [
        review(id, {}, 'v1beta1'),
        { ...review(id), kind: 'SelfSubjectAccessReview' },
        { kind: 'SubjectAccessReview', apiVersion: 'authorization.k8s.io/v1' },
        'not JSON',
        '"text"',
        '[]',
        {},
      ]
      for (const body of bodies)
        expectRefusal(await call('POST', PATH, body, as('authorizer-main')), 'body_invalid')
      const bare = await call('POST', PATH, undefined, as('authorizer-main'))
      expectRefusal(bare, 'body_invalid')
    })

    it('reads 64 KiB, and no more', async () => {
      const padded = (bytes: number): object => ({ ...review('x'), pad: 'x'.repeat(bytes) })
      const fits = await call('POST', PATH, padded(60 * 1024), as('authorizer-main'))
      expect(fits.status).to.equal(200)
      const large = await call('POST', PATH, padded(64 * 1024), as('authorizer-main'))
      expectRefusal(large, 'body_too_large')
      expect(large.body).to.have.property('detail', 'the limit here is 64 KiB')
    })

    it('is not there where the broker is no issuer', async () => {
      await start({})
      const reply = await call('POST', PATH, review(underWay('main')), as('authorizer-main'))
      expectRefusal(reply, 'credentials_invalid')
    })
  })

  describe('admission', () => {
    const PATH = '/v1/clusters/old/admit'
    const review = (id: string | undefined, change: object = {}): object => ({
      ...{ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' },
      request: {
        ...{ uid: 'review-1', operation: 'DELETE', namespace: 'shop', name: 'web' },
        resource: { group: '', version: 'v1', resource: 'pods' },
        userInfo: {
          username: ACCOUNT,
          extra: id === undefined ? {} : { 'nestgate.dev/request-id': [id] },
        },
        ...change,
      },
    })

    it('admits what is under way, and refuses everything else of a bound account', async () => {
      const id = underWay('old')
      const good = await call('POST', PATH, review(id))
      expect(good.status).to.equal(200)
      expect(good.body).to.deep.equal({
        ...{ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' },
        response: { uid: 'review-1', allowed: true },
      })
      for (const [body, message] of [
        [review(id, { name: 'api' }), 'nestgate: this is not what was approved'],
        [review(newRequestId(Date.now())), 'nestgate: no such request is under way'],
        [review(underWay('far')), 'nestgate: no such request is under way'],
        [review(undefined), 'nestgate: this user acts through the broker only'],
      ] as const) {
        const reply = await call('POST', PATH, body)
        expect(reply.body).to.have.deep.nested.property('response.allowed', false)
        expect(reply.body).to.have.nested.property('response.status.message', message)
      }
      expect(api.refused).to.have.length(4)
    })

    it('lets accounts alone that are not bound', async () => {
      const userInfo = { username: 'system:serviceaccount:other:worker', extra: {} }
      const reply = await call('POST', PATH, review(undefined, { userInfo }))
      expect(reply.body).to.have.nested.property('response.allowed', true)
    })

    it('reads objects of 4 MiB, and no more', async () => {
      const sized = (bytes: number): object =>
        review(underWay('old'), { object: { data: 'x'.repeat(bytes) } })
      const fits = await call('POST', PATH, sized(4 * MIB - 1024))
      expect(fits.body).to.have.nested.property('response.allowed', true)
      const large = await call('POST', PATH, sized(4 * MIB))
      expectRefusal(large, 'body_too_large')
      expect(large.body).to.have.property('detail', 'the limit here is 4096 KiB')
    })

    it('answers reviews of its own kind, of clusters that it knows', async () => {
      const id = underWay('old')
      for (const body of [
        { ...review(id), apiVersion: 'admission.k8s.io/v1beta1' },
        { ...review(id), kind: 'SubjectAccessReview' },
        review(id, { operation: 'GET' }),
        review(id, { uid: '' }),
        'not JSON',
        {},
      ])
        expectRefusal(await call('POST', PATH, body), 'body_invalid')
      expectRefusal(await call('POST', '/v1/clusters/none/admit', review(id)), 'cluster_unknown')
      expectRefusal(await call('GET', PATH), 'path_unknown')
    })
  })

  it('has a cluster checked for admins alone', async () => {
    const check = (headers: readonly string[]): Promise<Reply> =>
      call('POST', '/v1/clusters/main/check', {}, headers)
    expectRefusal(await check([]), 'credentials_missing')
    expectRefusal(await check(as('token-alice')), 'role_missing')
    expectRefusal(await check(as('token-carol')), 'role_missing')
    expectRefusal(await check(as('authorizer-main')), 'credentials_invalid')
    expect(upstream.seen).to.deep.equal([])
    const none = await call('POST', '/v1/clusters/none/check', {}, as('token-root'))
    expectRefusal(none, 'cluster_unknown')
  })

  describe('its keys', () => {
    const show = async (): Promise<ReturnType<typeof issuerKeysSchema.parse>> =>
      issuerKeysSchema.parse((await call('GET', '/v1/issuer', undefined, as('token-carol'))).body)
    const replace = (token: string): Promise<Reply> =>
      call('POST', '/v1/issuer/replace', {}, as(token))
    const published = async (): Promise<readonly unknown[]> => {
      const { body } = await call('GET', '/issuer/jwks')
      return (body as { keys: readonly { kid: string }[] }).keys.map(({ kid }) => kid)
    }
    const ownTokens = (): readonly (string | undefined)[] =>
      upstream.seen
        .filter(({ url }) => url === '/version')
        .map(({ headers }) => decodeProtectedHeader(String(headers.authorization).slice(7)).kid)

    it('are shown to anybody with a role', async () => {
      const { url, keys } = await show()
      expect(url).to.equal(ISSUER)
      expect(keys).to.have.length(1)
      expect(keys[0]).to.include({ state: 'signs', kid: (await published())[0] })
      expect(keys[0]?.since).to.equal(keys[0]?.created)
      expectRefusal(await call('GET', '/v1/issuer'), 'credentials_missing')
    })

    it('are replaced by admins alone', async () => {
      const before = await published()
      for (const token of ['token-alice', 'token-carol'])
        expectRefusal(await replace(token), 'role_missing')
      expectRefusal(await replace('authorizer-main'), 'credentials_invalid')
      expect(await published()).to.deep.equal(before)
      expect(await events()).to.deep.equal([])
    })

    it('are replaced at once, each API server is shown the new one, and the ledger says by whom', async () => {
      const [old] = await published()
      const main = api.clusters.get('main')
      if (main === undefined || isRefusal(main)) throw new Error('no cluster')
      const kidOf = async (): Promise<unknown> => {
        const { authorization } = await main.connection.credential.own()
        return decodeProtectedHeader(String(authorization).slice(7)).kid
      }
      expect(await kidOf()).to.equal(old)
      const { status, body } = await replace('token-root')
      expect(status).to.equal(200)
      const { kid, clusters, notice } = keyReplacedSchema.parse(body)
      expect(kid).to.not.equal(old)
      expect(await published()).to.deep.equal([kid])
      expect(await kidOf(), 'the broker’s own token is a new one').to.equal(kid)
      expect(clusters).to.deep.equal([
        { name: 'main', outcome: 'taken' },
        { name: 'far', outcome: 'taken' },
        { name: 'broken', outcome: 'unreachable', problem: 'the way to it cannot be opened' },
      ])
      expect(ownTokens(), 'not to the cluster of the other mode').to.deep.equal([kid, kid])
      expect(notice).to.contain('behind one address')
      const entries = (await events()).toReversed()
      expect(entries).to.have.length(2)
      const common = { kind: 'system', event: 'issuer_key_replaced', actor: 'root' }
      expect(entries[0]).to.deep.include({ ...common, detail: { stage: 'asked', kids: old } })
      expect(entries[1]).to.deep.include(common)
      expect(entries[1]).to.deep.nested.include({
        detail: { stage: 'replaced', kid, clusters: 3, taken: 2, refused: 0, unreachable: 1 },
      })
    })

    it('are not replaced where that cannot be written down', async () => {
      const before = await published()
      const full = await startApi(
        (store) => ({
          ...store,
          append: ([entry, ...more]) =>
            entry?.kind === 'system' && entry.event === 'login'
              ? store.append([entry, ...more])
              : Promise.reject(new Error('disk full')),
        }),
        undefined,
        { clusters: clustersOf(), issuer: { url: ISSUER } },
      )
      stop.push(() => full.close())
      api = full
      const now = await published()
      expect(now).to.not.deep.equal(before)
      expect((await replace('token-root')).status).to.equal(500)
      expect(await published()).to.deep.equal(now)
    })

    it('say which cluster did not take the new one', async () => {
      upstream.onRequest = (_request, response) => response.writeHead(401).end('{}')
      const { clusters } = keyReplacedSchema.parse((await replace('token-root')).body)
      expect(clusters[0]).to.deep.equal({ name: 'main', outcome: 'refused', problem: 'status 401' })
      upstream.onRequest = (_request, response) => response.destroy()
      const again = keyReplacedSchema.parse((await replace('token-root')).body)
      expect(again.clusters[0]).to.include({ name: 'main', outcome: 'unreachable' })
    })

    it('stay where Vault does not replace them, and the ledger has that too', async () => {
      const vault = await startVault(Date.now())
      stop.push(() => vault.close())
      await start({ issuer: { url: ISSUER, signer: { vault: vault.settings } } })
      const before = await published()
      vault.forbidden.add('rotate')
      const reply = await replace('token-root')
      expectRefusal(reply, 'issuer_key_kept')
      expect(reply.body).to.have.property('detail').that.contains('min_decryption_version')
      expect(await published()).to.deep.equal(before)
      expect(upstream.seen).to.deep.equal([])
      const [last] = await events()
      expect(last).to.have.nested.property('detail.stage', 'refused')
      vault.forbidden.clear()
      expect((await replace('token-root')).status).to.equal(200)
      expect(await published()).to.have.length(1)
      expect(ownTokens()).to.deep.equal([...(await published()), ...(await published())])
    })

    const cli = async (person: string, ...args: readonly string[]) => {
      let out = ''
      let err = ''
      const code = await runCli({
        ...{ args, now: Date.now, out: (text) => (out += text), err: (text) => (err += text) },
        env: { NESTGATE_BROKER_URL: api.url, NESTGATE_TOKEN: `token-${person}` },
      })
      return { code, out, err }
    }

    it('are shown and replaced by nestgate issuer', async () => {
      const [old] = await published()
      const shown = await cli('carol', 'issuer', 'show')
      expect([shown.code, shown.err]).to.deep.equal([0, ''])
      expect(shown.out)
        .to.contain(ISSUER)
        .and.to.match(new RegExp(`${String(old)} +signs +20`))
      const refused = await cli('carol', 'issuer', 'replace')
      expect(refused.code).to.equal(1)
      expect(refused.err).to.contain('role_missing')
      const replaced = await cli('root', 'issuer', 'replace')
      expect(replaced.code, 'one could not be reached').to.equal(1)
      const [fresh] = await published()
      expect(replaced.out)
        .to.contain(`${String(fresh)} signs from now on.`)
        .and.to.match(/main +taken/)
        .and.to.match(/broken +unreachable +the way/)
        .and.to.contain('behind one address')
      await api.clusters.remove('broken')
      const json = await cli('root', '--output', 'json', 'issuer', 'replace')
      expect(json.code).to.equal(0)
      const { kid, clusters } = keyReplacedSchema.parse(JSON.parse(json.out))
      expect(await published()).to.deep.equal([kid])
      expect(clusters).to.have.length(2)
    })
  })
})
