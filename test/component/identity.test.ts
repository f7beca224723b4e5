import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { openConnection } from '../../broker/credentials/connection.ts'
import type { ClusterConnection } from '../../broker/credentials/connection.ts'
import {
  checkByKeys,
  checkByReview,
  createTokenVerifier,
} from '../../broker/identity/service-account-tokens.ts'
import { createContainers } from '../../broker/identity/containers.ts'
import { createNeighbours } from '../../broker/identity/neighbours.ts'
import { createSidecars } from '../../broker/identity/sidecars.ts'
import {
  KEY_FRESH_MS,
  KEY_MAX_AGE_MS,
  KEY_MISSING_MS,
  sweepSidecarKeys,
} from '../../broker/identity/sidecar-keys.ts'
import type { MessageHeaders, Sidecars } from '../../broker/identity/sidecars.ts'
import { connectionDeps } from '../support/connections.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'
import { makeSidecarKey, TAG } from '../support/sidecar-keys.ts'
import type { SidecarKey } from '../support/sidecar-keys.ts'
import { POD, podWith, startUpstream } from '../support/upstream.ts'
import type { Upstream } from '../support/upstream.ts'

function message(headers: Record<string, string>): MessageHeaders {
  return { headers, rawHeaders: Object.entries(headers).flat() }
}

const bearer = (token: string, more: Record<string, string> = {}): MessageHeaders =>
  message({ authorization: `Bearer ${token}`, 'nestgate-cluster': 'test', ...more })

describe('identity of sidecars', () => {
  let upstream: Upstream
  let connection: ClusterConnection
  let nowMs: number
  const now = (): number => nowMs

  beforeEach(async () => {
    nowMs = Date.now()
    upstream = await startUpstream()
    connection = await openConnection(
      {
        name: 'test',
        server: upstream.url,
        caFile: upstream.caFile,
        credential: { tokenFile: upstream.tokenFile },
        serviceAccountTokens: { verify: 'tokenReview' },
      },
      connectionDeps(now),
    )
  })

  afterEach(async () => {
    await connection.close()
    await upstream.close()
  })

  const checks = {
    keys: () => checkByKeys(connection, upstream.issuer, now),
    review: () => checkByReview(connection, now),
  }
  const EXPECTED = { cluster: 'test', ...POD }

  for (const [way, makeCheck] of Object.entries(checks)) {
    describe(`by ${way}`, () => {
      it('names the pod of a good token', async () => {
        const verifier = createTokenVerifier(makeCheck(), now)
        expect(await verifier.verify(await upstream.token())).to.deep.equal(EXPECTED)
      })

      const BAD: readonly (readonly [string, Record<string, unknown>])[] = [
        ['for another audience', { aud: ['https://kubernetes.default.svc'] }],
        ['without an audience', { aud: undefined }],
        ['that is over', { exp: 1000 }],
        [
          'that is not bound to a pod',
          {
            'kubernetes.io': { namespace: 'agents', serviceaccount: { name: 'worker', uid: 'u' } },
          },
        ],
      ]
      for (const [what, claims] of BAD) {
        it(`refuses a token ${what}`, async () => {
          const verifier = createTokenVerifier(makeCheck(), now)
          expect(await verifier.verify(await upstream.token(claims))).to.have.property(
            'refused',
            'credentials_invalid',
          )
        })
      }

      it('refuses garbage, oversize and alg none', async () => {
        const verifier = createTokenVerifier(makeCheck(), now)
        const [, payload = ''] = (await upstream.token()).split('.')
        const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`
        for (const token of ['x', 'a.b.c', none, 'x'.repeat(10_000)]) {
          expect(await verifier.verify(token), token.slice(0, 20)).to.have.property(
            'refused',
            'credentials_invalid',
          )
        }
      })

      it('says that the cluster cannot be asked, rather than that the token is bad', async () => {
        upstream.identityUp = false
        const verifier = createTokenVerifier(makeCheck(), now)
        expect(await verifier.verify(await upstream.token())).to.have.property(
          'refused',
          'identity_unavailable',
        )
      })
    })
  }

  it('ends a token within six minutes of its key’s withdrawal', async () => {
    const verifier = createTokenVerifier(checks.keys(), now)
    const token = await upstream.token({ exp: Math.floor(nowMs / 1000) + 3600 })
    expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
    await upstream.rotateKey()
    upstream.withdrawKeys()
    nowMs += 300_000
    // once more by the old keys, a moment before they are asked for again
    expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
    nowMs += 59_999
    expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
    nowMs += 1
    expect(await verifier.verify(token)).to.have.property('refused', 'credentials_invalid')
  })

  it('goes by the keys that it has for an hour while there are no others to be had, and no longer', async () => {
    const verifier = createTokenVerifier(checks.keys(), now)
    const startS = Math.floor(nowMs / 1000)
    const long = (n: number): Promise<string> => upstream.token({ exp: startS + 7200, n })
    expect(await verifier.verify(await long(1))).to.deep.equal(EXPECTED)
    upstream.identityUp = false
    nowMs += 3_599_999
    expect(await verifier.verify(await long(2))).to.deep.equal(EXPECTED)
    nowMs += 1
    expect(await verifier.verify(await long(3))).to.have.property('refused', 'identity_unavailable')
    upstream.identityUp = true
    expect(await verifier.verify(await long(3))).to.deep.equal(EXPECTED)
  })

  it('refuses a token when the clock is ten minutes off, either way', async () => {
    const verifier = createTokenVerifier(checks.keys(), now)
    const madeS = Math.floor(nowMs / 1000)
    const token = await upstream.token({ iat: madeS, nbf: madeS, exp: madeS + 590 })
    const right = nowMs
    for (const offMs of [-600_000, 600_000 + 10_000]) {
      nowMs = right + offMs
      expect(await verifier.verify(token)).to.have.property('refused', 'credentials_invalid')
    }
    expect(upstream.podFetches).to.equal(0)
  })

  describe('by keys, when the pod', () => {
    const verifyNew = async (): Promise<object> =>
      createTokenVerifier(checks.keys(), now).verify(await upstream.token())
    const deleted = (agoMs: number): object => ({
      metadata: { uid: POD.podUid, deletionTimestamp: new Date(nowMs - agoMs).toISOString() },
    })

    it('is gone, refuses its token', async () => {
      for (const pod of [undefined, podWith([], 'uid-2'), deleted(61_000)]) {
        upstream.pod = pod
        expect(await verifyNew()).to.deep.equal({
          refused: 'credentials_invalid',
          detail: 'the token’s pod is gone',
        })
      }
    })

    it('is on its way out, still takes its token', async () => {
      for (const agoMs of [-30_000, 0, 59_000]) {
        upstream.pod = deleted(agoMs)
        expect(await verifyNew()).to.deep.equal(EXPECTED)
      }
    })

    it('cannot be asked for, says so, and which right is missing', async () => {
      upstream.podsRefused = 403
      expect(await verifyNew()).to.deep.equal({
        refused: 'identity_unavailable',
        detail: 'the broker may not get pods in the namespace agents',
      })
      upstream.podsRefused = 503
      expect(await verifyNew()).to.have.property('refused', 'identity_unavailable')
      upstream.podsRefused = undefined
      for (const pod of [{}, { metadata: {} }, { metadata: { uid: 7 } }]) {
        upstream.pod = pod
        expect(await verifyNew()).to.have.property('refused', 'identity_unavailable')
      }
    })

    it('goes, refuses a token that was good within a minute', async () => {
      const verifier = createTokenVerifier(checks.keys(), now)
      const token = await upstream.token()
      expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
      upstream.pod = undefined
      nowMs += 59_000
      expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
      nowMs += 1_001
      expect(await verifier.verify(token)).to.have.property('refused', 'credentials_invalid')
    })

    it('is asked for once by many requests, and never for a token that is no good', async () => {
      const verifier = createTokenVerifier(checks.keys(), now)
      const token = await upstream.token()
      await Promise.all(Array.from({ length: 20 }, () => verifier.verify(token)))
      expect(upstream.podFetches).to.equal(1)
      await verifier.verify(`${token.slice(0, -4)}AAAA`)
      await verifier.verify(await upstream.token({ exp: 1000 }))
      expect(upstream.podFetches).to.equal(1)
    })

    it('has a name that is no name, is asked for by nothing else', async () => {
      const verifier = createTokenVerifier(checks.keys(), now)
      const odd = { ...{ namespace: '../..' }, pod: { name: '../secrets/x?', uid: 'u' } }
      const token = await upstream.token({
        'kubernetes.io': { ...odd, serviceaccount: { name: 'w', uid: 's' } },
      })
      expect(await verifier.verify(token)).to.have.property('refused', 'credentials_invalid')
      expect(upstream.seen.map(({ url }) => url)).to.deep.equal([])
    })
  })

  it('refuses a token of another issuer, and one that does not say until when', async () => {
    const verifier = createTokenVerifier(checks.keys(), now)
    for (const claims of [{ iss: 'https://evil' }, { exp: undefined }, { sub: undefined }]) {
      expect(await verifier.verify(await upstream.token(claims))).to.have.property(
        'refused',
        'credentials_invalid',
      )
    }
  })

  it('learns a new key at once, and asks for unknown ones only once in a while', async () => {
    const verifier = createTokenVerifier(checks.keys(), now)
    await verifier.verify(await upstream.token())
    await upstream.rotateKey()
    nowMs += 11_000
    expect(await verifier.verify(await upstream.token())).to.deep.equal(EXPECTED)
    const fetches = upstream.jwksFetches
    const stranger = await startUpstream()
    try {
      for (let i = 0; i < 5; i += 1) {
        await stranger.rotateKey()
        await stranger.rotateKey()
        await stranger.rotateKey()
        expect(await verifier.verify(await stranger.token())).to.have.property(
          'refused',
          'credentials_invalid',
        )
      }
    } finally {
      await stranger.close()
    }
    expect(upstream.jwksFetches).to.equal(fetches)
  })

  it('remembers a good token, but never past its end', async () => {
    const verifier = createTokenVerifier(checks.review(), now)
    const exp = Math.floor(nowMs / 1000) + 3
    const token = await upstream.token({ exp })
    expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
    upstream.identityUp = false
    expect(await verifier.verify(token)).to.deep.equal(EXPECTED)
    nowMs = exp * 1000 + 1
    expect(await verifier.verify(token)).to.have.property('refused', 'identity_unavailable')
  })

  describe('containers of a pod', () => {
    const [ours, sandbox] = ['c'.repeat(64), 'f'.repeat(64)]
    const pod = EXPECTED
    const make = (): ReturnType<typeof createContainers> =>
      createContainers({ connections: new Map([['test', connection]]), log: SILENT, now })

    it('are asked for once, and a sandbox among the ancestors ever more rarely', async () => {
      const containers = make()
      const ids = [ours, sandbox]
      expect(containers.known(pod, ids)).to.equal(undefined)
      for (let second = 0; second < 120; second += 1) {
        expect((await containers.ask(pod, ids)).get(ours)).to.include({ name: 'planner' })
        nowMs += 1000
      }
      // after 1, 2, 4, … 64 seconds
      expect(upstream.podFetches).to.be.within(2, 8)
      await containers.ask(pod, [ours])
      expect(upstream.podFetches).to.be.within(2, 8)
    })

    it('are asked for once where many requests come at the same time', async () => {
      const containers = make()
      await Promise.all(Array.from({ length: 20 }, () => containers.ask(pod, [ours])))
      expect(upstream.podFetches).to.equal(1)
    })

    it('are known again under a new id after a restart', async () => {
      const containers = make()
      await containers.ask(pod, [ours])
      upstream.pod = podWith([{ name: 'planner', id: 'd'.repeat(64) }])
      nowMs += 1000
      const found = await containers.ask(pod, ['d'.repeat(64)])
      expect(found.get('d'.repeat(64))).to.include({ name: 'planner' })
    })

    it('stay known while the API server is away, and nothing is made up or waited for', async () => {
      const containers = make()
      await containers.ask(pod, [ours])
      upstream.pod = undefined
      nowMs += 60_000
      const startMs = performance.now()
      const found = await containers.settle(pod, sandbox)
      expect([...found.keys()]).to.deep.equal([ours])
      expect(performance.now() - startMs).to.be.lessThan(900)
    })

    it('are not asked for at a cluster that is not registered', async () => {
      const found = await make().ask({ ...pod, cluster: 'other' }, [ours])
      expect([found.size, upstream.podFetches]).to.deep.equal([0, 0])
    })
  })

  describe('the containers beside a sidecar', () => {
    const job = (exitCode: number | undefined, uid: string = POD.podUid): object => ({
      metadata: { uid },
      spec: { restartPolicy: 'OnFailure', containers: [{ name: 'planner' }] },
      status: {
        containerStatuses: [
          { name: 'planner', state: exitCode === undefined ? {} : { terminated: { exitCode } } },
        ],
      },
    })
    const make = (): ReturnType<typeof createNeighbours> =>
      createNeighbours(new Map([['test', connection]]))

    it('are what the API server says, asked once for all that ask at the same time', async () => {
      const neighbours = make()
      upstream.pod = job(undefined)
      expect(await neighbours.stateOf(EXPECTED)).to.equal('running')
      upstream.pod = job(0)
      const states = await Promise.all([1, 2, 3].map(() => neighbours.stateOf(EXPECTED)))
      expect([states, upstream.podFetches]).to.deep.equal([['ended', 'ended', 'ended'], 2])
    })

    it('are not known where the cluster does not answer, has another pod, none, or nonsense', async () => {
      const neighbours = make()
      const refused = async (pod: object | undefined): Promise<unknown> => {
        upstream.pod = pod
        return neighbours.stateOf(EXPECTED)
      }
      const [gone, unknown] = ['credentials_invalid', 'identity_unavailable']
      expect(await refused(job(0, 'another'))).to.have.property('refused', gone)
      expect(await refused(undefined)).to.have.property('refused', gone)
      expect(await refused({ metadata: {} })).to.have.property('refused', unknown)
      upstream.podsRefused = 503
      expect(await refused(job(0))).to.have.property('refused', unknown)
      expect(await neighbours.stateOf({ ...EXPECTED, cluster: 'other' })).to.have.property(
        'refused',
        'cluster_unknown',
      )
    })
  })

  describe('keys and tags', () => {
    let sidecars: Sidecars

    beforeEach(() => {
      const verifier = createTokenVerifier(checks.keys(), now)
      sidecars = createSidecars({ verifiers: new Map([['test', verifier]]), now })
    })

    it('names pod and process of a tag signed with the registered key', async () => {
      const key = await makeSidecarKey()
      const token = await upstream.token()
      expect(await sidecars.register(bearer(token), await key.proof())).to.include({
        podUid: POD.podUid,
      })
      const tagged = bearer(token, { 'nestgate-agent': await key.tag() })
      expect(await sidecars.identify('test', tagged)).to.deep.equal({ pod: EXPECTED, tag: TAG })
    })

    it('does not know a key before it is registered', async () => {
      const key = await makeSidecarKey()
      const tagged = bearer(await upstream.token(), { 'nestgate-agent': await key.tag() })
      expect(await sidecars.identify('test', tagged)).to.deep.equal({
        refused: 'sidecar_key_unknown',
      })
    })

    describe('of several brokers, or of one that starts again', () => {
      let records: Map<string, unknown>
      let looks: number

      beforeEach(() => {
        records = new Map()
        looks = 0
      })
      const start = (): Sidecars =>
        createSidecars({
          verifiers: new Map([['test', createTokenVerifier(checks.keys(), now)]]),
          stored: (name) => {
            looks += 1
            return Promise.resolve(records.get(name))
          },
          now,
        })
      const register = async (broker: Sidecars, key: SidecarKey): Promise<void> => {
        const registered = await broker.register(bearer(await upstream.token()), await key.proof())
        if ('refused' in registered) throw new Error(registered.refused)
        records.set(`test/${registered.podUid}`, { ...registered.jwk, at: 'x' })
      }
      const identify = async (broker: Sidecars, key: SidecarKey): Promise<unknown> => {
        const tagged = bearer(await upstream.token(), { 'nestgate-agent': await key.tag() })
        const found = await broker.identify('test', tagged)
        return 'refused' in found ? found.refused : found.pod.podUid
      }

      it('is known to all once it is registered', async () => {
        const [here, there] = [start(), start()]
        const key = await makeSidecarKey()
        expect(await identify(there, key)).to.equal('sidecar_key_unknown')
        await register(here, key)
        nowMs += KEY_MISSING_MS + 1
        expect(await identify(there, key)).to.equal(POD.podUid)
        expect(await identify(start(), key)).to.equal(POD.podUid)
      })

      it('is the new one at once where the pod registers elsewhere again, and the old one is not long', async () => {
        const [here, there] = [start(), start()]
        const [first, second] = [await makeSidecarKey(), await makeSidecarKey()]
        await register(here, first)
        nowMs += KEY_MISSING_MS + 1
        await register(there, second)
        expect(await identify(here, second)).to.equal(POD.podUid)
        expect(await identify(here, first)).to.equal('agent_tag_invalid')
        expect(await identify(there, first)).to.equal('agent_tag_invalid')
      })

      it('is not asked for with each request, known or not', async () => {
        const here = start()
        const key = await makeSidecarKey()
        for (let i = 0; i < 5; i += 1) await identify(here, key)
        expect(looks).to.equal(1)
        await register(here, key)
        for (let i = 0; i < 5; i += 1) await identify(here, key)
        expect(looks).to.equal(1)
        nowMs += KEY_FRESH_MS + 1
        for (let i = 0; i < 5; i += 1) await identify(here, key)
        expect(looks).to.equal(2)
      })

      it('is no key where the stored one is not', async () => {
        const [here, key] = [start(), await makeSidecarKey()]
        records.set(`test/${POD.podUid}`, { kty: 'RSA', n: 'x' })
        expect(await identify(here, key)).to.equal('sidecar_key_unknown')
      })

      it('goes some day, and not before', async () => {
        const { file, remove } = newFile()
        const store = await open(file)
        const old = new Date(nowMs - KEY_MAX_AGE_MS - 1).toISOString()
        const ids = Array.from({ length: 1200 }, (_, i) => `test/${i}`)
        const changes = ids.map((id, i) => {
          const at = i % 2 === 0 ? old : new Date(nowMs).toISOString()
          return {
            kind: 'sidecar_key',
            id,
            body: { kty: 'OKP', crv: 'Ed25519', x: 'x', at },
          } as const
        })
        await store.put(changes, [])
        expect(await sweepSidecarKeys(store, nowMs)).to.equal(600)
        expect(await store.records('sidecar_key', {}, 2000)).to.have.length(600)
        expect(await store.record('sidecar_key', 'test/1')).to.not.equal(undefined)
        await store.close()
        remove()
      })
    })

    it('refuses a tag of another pod’s sidecar', async () => {
      const [mine, theirs] = [await makeSidecarKey(), await makeSidecarKey()]
      const other = {
        namespace: 'agents',
        pod: { name: 'p2', uid: 'uid-2' },
        serviceaccount: { name: 'worker', uid: 's' },
      }
      upstream.otherPods.set('agents/p2', podWith([], 'uid-2'))
      await sidecars.register(bearer(await upstream.token()), await mine.proof())
      await sidecars.register(
        bearer(await upstream.token({ 'kubernetes.io': other })),
        await theirs.proof(),
      )
      const tagged = bearer(await upstream.token(), { 'nestgate-agent': await theirs.tag() })
      expect(await sidecars.identify('test', tagged)).to.have.property(
        'refused',
        'agent_tag_invalid',
      )
    })

    it('refuses a tag of a key that was replaced, although it had been believed', async () => {
      const [first, second] = [await makeSidecarKey(), await makeSidecarKey()]
      const token = await upstream.token()
      await sidecars.register(bearer(token), await first.proof())
      const tagged = bearer(token, { 'nestgate-agent': await first.tag() })
      expect(await sidecars.identify('test', tagged)).to.have.property('tag')
      await sidecars.register(bearer(token), await second.proof())
      expect(await sidecars.identify('test', tagged)).to.have.property(
        'refused',
        'agent_tag_invalid',
      )
    })

    it('refuses a tag that is a minute old, although it had been believed', async () => {
      const key = await makeSidecarKey()
      const token = await upstream.token()
      await sidecars.register(bearer(token), await key.proof())
      const tagged = bearer(token, { 'nestgate-agent': await key.tag() })
      expect(await sidecars.identify('test', tagged)).to.have.property('tag')
      // the tag was signed by the real clock, which has gone on since the test's own was set
      nowMs = Date.now() + 66_000
      expect(await sidecars.identify('test', tagged)).to.have.property(
        'refused',
        'agent_tag_invalid',
      )
    })

    it('refuses tags of another audience, type, form or age', async () => {
      const key = await makeSidecarKey()
      const token = await upstream.token()
      await sidecars.register(bearer(token), await key.proof())
      const nowS = Math.floor(nowMs / 1000)
      const bad = [
        await key.tag(TAG, {}, { aud: 'other' }),
        await key.tag(TAG, { typ: 'JWT' }),
        await key.proof(),
        await key.tag({ ...TAG, verdict: 'certain' }),
        await key.tag({ ...TAG, admin: true }),
        await key.tag(TAG, {}, { iat: nowS - 300 }),
        await key.tag(TAG, {}, { iat: nowS + 300 }),
        await key.tag(TAG, {}, { iat: undefined }),
        'x',
      ]
      for (const [index, tag] of bad.entries()) {
        const found = await sidecars.identify('test', bearer(token, { 'nestgate-agent': tag }))
        expect(found, String(index)).to.have.property('refused', 'agent_tag_invalid')
      }
    })

    it('refuses headers that are there twice or not at all', async () => {
      const token = await upstream.token()
      const twice = {
        headers: { authorization: `Bearer ${token}` },
        rawHeaders: ['Authorization', 'a', 'authorization', 'b'],
      }
      expect(await sidecars.identify('test', twice)).to.have.property('refused', 'header_invalid')
      expect(await sidecars.identify('test', message({}))).to.have.property(
        'refused',
        'credentials_missing',
      )
      expect(await sidecars.identify('test', bearer(token))).to.have.property(
        'refused',
        'agent_tag_invalid',
      )
      expect(await sidecars.identify('other', bearer(token))).to.have.property(
        'refused',
        'cluster_unknown',
      )
    })

    it('registers only a key whose possession is proved', async () => {
      const [mine, other] = [await makeSidecarKey(), await makeSidecarKey()]
      const token = await upstream.token()
      const bad = [
        await mine.proof({ jwk: other.jwk }),
        await mine.proof({}, { aud: 'other' }),
        await mine.proof({}, { iat: Math.floor(nowMs / 1000) - 300 }),
        await mine.tag(),
        await mine.proof({ jwk: undefined }),
        'x',
      ]
      for (const [index, proof] of bad.entries()) {
        expect(await sidecars.register(bearer(token), proof), String(index)).to.have.property(
          'refused',
          'body_invalid',
        )
      }
    })
  })
})
