/** Keeping certificates, on a cluster in memory and with a clock that is moved: what must hold after every single write. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { settle } from '../../../cli/keep/keeper.ts'
import { ApiError } from '../../../shared/in-cluster-api.ts'
import type { Asked } from '../../support/fake-cluster.ts'
import {
  AUTHORITY,
  BROKER,
  CONFIGURATION,
  keptWorld,
  pems,
  verifies,
  WEBHOOK,
} from '../../support/kept-world.ts'
import type { World } from '../../support/kept-world.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
/** Objects that a keeper reads at one look. */
const READS = 4

describe('keeping certificates', function () {
  this.timeout(180_000)
  this.slow(10_000)

  const bundleOf = ({ cluster }: World): string =>
    Buffer.from(
      cluster.objects.get(CONFIGURATION)?.webhooks?.[1]?.clientConfig.caBundle ?? '',
      'base64',
    ).toString()
  const authorities = ({ history }: World): string[] => [
    ...new Set(history.filter(({ path }) => path === AUTHORITY).map(({ leaf }) => leaf)),
  ]

  it('makes all that a new installation needs, and then nothing more', async () => {
    const world = keptWorld()
    expect(await settle(world.keeper())).to.deep.equal([])
    const ca = world.cluster.data(AUTHORITY)['ca.crt'] ?? ''
    for (const path of [WEBHOOK, BROKER]) {
      const data = world.cluster.data(path)
      expect(data['ca.crt']).to.equal(ca)
      expect(verifies(data['tls.crt'] ?? '', ca, world.now)).to.equal(true)
      expect(data['tls.key']).to.include('PRIVATE KEY')
      expect(Object.keys(data)).to.have.members(['ca.crt', 'tls.crt', 'tls.key'])
    }
    expect(bundleOf(world)).to.equal(ca)
    const [leaf] = pems(world.cluster.data(BROKER)['tls.crt'] ?? '')
    expect(leaf?.x509.subjectAltName).to.equal(
      'DNS:nestgate-broker.svc, IP Address:0:0:0:0:0:0:0:1',
    )
    const versions = JSON.stringify([...world.cluster.objects])
    await world.pass(12 * HOUR, HOUR, [world.keeper()])
    expect(JSON.stringify([...world.cluster.objects])).to.equal(versions)
  })

  it('creates Secrets that are not there, where it may', async () => {
    const world = keptWorld()
    for (const path of [AUTHORITY, WEBHOOK, BROKER]) world.cluster.objects.delete(path)
    expect(await settle(world.keeper())).to.deep.equal([])
    expect(world.cluster.objects.get(WEBHOOK)?.type).to.equal('Opaque')
  })

  it('goes through several authorities, with two keepers that get in each other’s way', async () => {
    const world = keptWorld()
    let seed = 7
    const pause = async (): Promise<void> => {
      seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
      for (let turns = seed % 5; turns > 0; turns -= 1) await new Promise(setImmediate)
    }
    const keepers = [
      world.keeper(world.cluster.client(pause)),
      world.keeper(world.cluster.client(pause, pause)),
    ]
    await world.pass(11 * DAY, 30 * MINUTE, keepers)
    expect(world.broken).to.deep.equal([])
    // One history: each authority follows the one before, none comes twice.
    const signers = world.history.filter(({ path }) => path === AUTHORITY)
    expect(signers.length).to.equal(authorities(world).length)
    expect(authorities(world).length).to.be.within(4, 5)
    const leaves = world.history.filter(({ path }) => path === BROKER)
    expect(leaves.length).to.be.within(14, 22)
    // The bundle is small again between two rotations, and no key of an old authority is kept.
    expect(pems(bundleOf(world)).length).to.be.at.most(3)
  })

  for (const when of ['before', 'after'] as const)
    it(`goes on where it ended ${when} any of its writes`, async () => {
      const world = keptWorld()
      let ended = 0
      const endedAt = new Set<string>()
      const end = (asked: Asked): void => {
        if (asked.method === 'GET') return
        // Each write at each state of the clock is broken once, and passes when it is tried again.
        const name = `${asked.method} ${asked.path} ${JSON.stringify(world.cluster.objects.get(asked.path))}`
        if (when === 'before' && endedAt.has(name)) return
        endedAt.add(name)
        ended += 1
        throw new ApiError('unreachable', 'killed')
      }
      const client = (): ReturnType<typeof world.keeper> =>
        world.keeper(
          when === 'before'
            ? world.cluster.client(end)
            : world.cluster.client(() => undefined, end),
        )
      for (const until = world.now + 7 * DAY; world.now < until;) {
        world.now += HOUR / 2
        for (let tries = 0; tries < 60; tries += 1) {
          const before = ended
          await settle(client()).catch(() => undefined)
          world.check()
          if (ended === before) break
        }
      }
      expect(world.broken).to.deep.equal([])
      expect(ended).to.be.greaterThan(40)
      expect(authorities(world).length).to.be.within(2, 4)
    })

  it('writes nothing that is out of date, however long it was held up', async () => {
    const world = keptWorld()
    const held: { readonly until: number; readonly release: () => void }[] = []
    // At each moment one keeper is stopped before one of its requests: a reading, or the first write. It goes on two days later.
    const hold = async (at: number): Promise<void> => {
      let requests = 0
      let writing = (): void => undefined
      const reached = new Promise<void>((resolve) => {
        writing = resolve
      })
      const before = async ({ method }: Asked): Promise<void> => {
        requests += 1
        if (requests !== at && (at <= READS || method === 'GET')) return
        await new Promise<void>((release) => {
          held.push({ until: world.now + 2 * DAY, release })
          writing()
        })
      }
      const slow = settle(world.keeper(world.cluster.client(before)))
      await Promise.race([reached, slow])
    }
    const until = world.now + 5.5 * DAY
    for (let turn = 0; world.now < until;) {
      world.now += HOUR
      turn += 1
      for (const at of [READS + 1, 1 + (turn % READS)]) await hold(at)
      await settle(world.keeper())
      const stored = JSON.stringify([...world.cluster.objects])
      const due = held.filter((one) => one.until <= world.now)
      for (const one of due) {
        held.splice(held.indexOf(one), 1)
        one.release()
        for (let turns = 0; turns < 30; turns += 1) await new Promise(setImmediate)
        expect(JSON.stringify([...world.cluster.objects])).to.equal(stored)
      }
      world.check()
    }
    for (const { release } of held) release()
    expect(world.broken).to.deep.equal([])
    expect(held.length).to.be.greaterThan(2)
  })

  it('makes certificates that OpenSSL verifies: old pods, new pods, pods of the time between', async () => {
    const world = keptWorld()
    await world.pass(4 * DAY - 2 * HOUR, HOUR, [world.keeper()])
    expect(authorities(world).length).to.equal(2)
    const [old = '', fresh = ''] = authorities(world)
    const chain = world.cluster.data(BROKER)['tls.crt'] ?? ''
    const dir = mkdtempSync(join(tmpdir(), 'nestgate-keep-'))
    try {
      writeFileSync(join(dir, 'chain'), chain)
      const openssl = (trusted: string, more: readonly string[] = []): void => {
        writeFileSync(join(dir, 'trusted'), trusted)
        const at = ['-attime', String(Math.floor(world.now / 1000)), '-x509_strict', '-no-CApath']
        const files = ['-CAfile', join(dir, 'trusted'), ...more, join(dir, 'chain')]
        execFileSync('openssl', ['verify', ...at, ...files], { stdio: 'pipe' })
      }
      const sent = ['-untrusted', join(dir, 'chain')]
      for (const trusted of [old, fresh, old + fresh]) openssl(trusted, sent)
      openssl(fresh)
      // Without the certificate that is sent along an old pod would have lost the broker.
      expect(() => {
        openssl(old)
      }).to.throw()
    } finally {
      rmSync(dir, { recursive: true })
    }
  })

  it('trusts first, and signs after the time of settling', async () => {
    const world = keptWorld()
    const keeper = world.keeper()
    await settle(keeper)
    const before = world.cluster.data(WEBHOOK)['tls.crt']
    world.now += 2.6 * DAY
    await settle(keeper)
    const renewed = world.cluster.data(WEBHOOK)['tls.crt'] ?? ''
    expect(renewed).not.to.equal(before)
    expect(pems(bundleOf(world)).length).to.equal(2)
    const [old] = authorities(world)
    expect(verifies(renewed, old ?? '', world.now)).to.equal(true)
    world.now += 59 * MINUTE
    await settle(keeper)
    expect(world.cluster.data(WEBHOOK)['tls.crt']).to.equal(renewed)
    world.now += MINUTE
    await settle(keeper)
    expect(world.cluster.data(WEBHOOK)['tls.crt']).not.to.equal(renewed)
    expect(world.cluster.data(AUTHORITY)).to.not.have.property('next.key')
    expect(pems(bundleOf(world)).length).to.equal(2)
    world.now += HOUR
    await settle(keeper)
    expect(pems(bundleOf(world)).length).to.equal(1)
  })

  it('waits with a new authority until a configuration that cannot be written is back', async () => {
    const world = keptWorld()
    const keeper = world.keeper()
    await settle(keeper)
    const kept = world.cluster.objects.get(CONFIGURATION) ?? {}
    world.cluster.objects.delete(CONFIGURATION)
    await world.pass(DAY * 2.6, HOUR * 6, [keeper])
    world.now += 2 * HOUR
    expect((await settle(keeper)).map(({ message }) => message)).to.deep.equal([
      `${CONFIGURATION}: 404`,
    ])
    expect(new Set(authorities(world)).size).to.equal(1)
    // Its certificates are renewed meanwhile.
    expect(pems(world.cluster.data(BROKER)['tls.crt'] ?? '')[0]?.ends).to.be.above(world.now)
    world.cluster.put(CONFIGURATION, kept)
    await world.pass(2 * HOUR, HOUR / 2, [keeper])
    expect(new Set(authorities(world)).size).to.equal(2)
    expect(world.broken).to.deep.equal([])
  })

  it('puts a bundle back that somebody has taken away, and renews for more names', async () => {
    const world = keptWorld()
    await settle(world.keeper())
    const { metadata } = world.cluster.objects.get(CONFIGURATION) ?? { metadata: {} }
    world.cluster.put(CONFIGURATION, {
      metadata,
      webhooks: [
        { name: 'three', clientConfig: {} },
        { name: 'two', clientConfig: {} },
      ],
    })
    await settle(world.keeper())
    expect(pems(bundleOf(world)).length).to.equal(1)
    const keeper = world.keeper()
    const config = {
      ...world.config,
      dnsNames: { ...world.config.dnsNames, broker: ['new.svc', 'nestgate-broker.svc'] },
    }
    await settle({ ...keeper, config })
    const [leaf] = pems(world.cluster.data(BROKER)['tls.crt'] ?? '')
    expect(leaf?.x509.subjectAltName).to.equal('DNS:new.svc, DNS:nestgate-broker.svc')
    // A keeper that knows fewer names lets it be.
    const fewer = { ...config, dnsNames: { ...config.dnsNames, broker: ['new.svc'] } }
    await settle({ ...keeper, config: fewer })
    const [same] = pems(world.cluster.data(BROKER)['tls.crt'] ?? '')
    expect(same?.x509.fingerprint256).to.equal(leaf?.x509.fingerprint256)
  })

  it('loses its authority without losing a request', async () => {
    const world = keptWorld()
    const keeper = world.keeper()
    await world.pass(12 * HOUR, 6 * HOUR, [keeper])
    world.cluster.put(AUTHORITY, { metadata: { name: 'nestgate-ca' }, type: 'Opaque' })
    const pods = world.injected.splice(0)
    await settle(keeper)
    expect(pems(bundleOf(world)).length).to.equal(2)
    await world.pass(3 * HOUR, 10 * MINUTE, [keeper])
    expect(pems(bundleOf(world)).length).to.equal(1)
    expect(pods[0]).not.to.equal(bundleOf(world))
    expect(world.broken).to.deep.equal([])
  })

  it('starts anew when everything is over, as after months of standstill', async () => {
    const world = keptWorld()
    await settle(world.keeper())
    world.now += 400 * DAY
    expect(await settle(world.keeper())).to.deep.equal([])
    expect(
      verifies(world.cluster.data(WEBHOOK)['tls.crt'] ?? '', bundleOf(world), world.now),
    ).to.equal(true)
    expect(pems(bundleOf(world)).length).to.equal(1)
  })
})
