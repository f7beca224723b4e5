/**
 * Keepers on a real API server: killed between each two of their writes, two at once through several authorities, and in front of
 * Secrets of somebody else. Meanwhile the API server calls a webhook, and pods of all times a broker, over real TLS.
 */
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually } from '../../scripts/run.ts'
import { pems } from '../support/kept-world.ts'
import { KINDS, startKeepers, SYSTEM } from './running.ts'
import type { KeeperProcess, RunningKeepers } from './running.ts'

/** Writes of a first start: the authority, two bundles, two certificates. */
const FIRST_WRITES = 5
/** Writes of a rotation: next, two bundles and Secrets, trusted, signs, two certificates, replaced, gone, two bundles and Secrets. */
const ROTATION_WRITES = 15
const DAY_S = 86_400

describe('keepers of certificates, on a real API server', function () {
  this.timeout(120_000)
  this.slow(30_000)
  let running: RunningKeepers
  const keepers: KeeperProcess[] = []
  before(async () => {
    running = await startKeepers()
    running.watch()
  })
  after(async () => {
    await running.close()
  })
  afterEach(async () => {
    for (const keeper of keepers.splice(0)) {
      keeper.kill('SIGKILL')
      await keeper.gone
      // Neither a key nor a token, in no form.
      expect(keeper.said()).not.to.match(/PRIVATE|LS0t|eyJ|MII/)
    }
  })

  const start = (settings: object, through?: 'server' | 'killing'): KeeperProcess => {
    const keeper = running.keeper({ settleSeconds: 1, checkSeconds: 1, ...settings }, through)
    keepers.push(keeper)
    return keeper
  }
  const state = async (): Promise<{ next?: object; retired: object[] }> =>
    JSON.parse((await running.secret('authority'))['state.json'] ?? '{"retired":[0]}') as {
      retired: object[]
    }
  const settled = async (days: number): Promise<true | undefined> => {
    const { next, retired } = await state()
    const [signer] = pems((await running.secret('authority'))['tls.crt'] ?? '')
    const left = ((signer?.ends ?? 0) - Date.now()) / 1000 / DAY_S
    if (next !== undefined || retired.length > 0 || Math.abs(left - days) > 0.1) return undefined
    const { 'ca.crt': bundle = '' } = await running.secret('authority')
    for (const role of ['webhook', 'broker'] as const) {
      const secret = await running.secret(role)
      const [leaf] = pems(secret['tls.crt'] ?? '')
      const signed = signer !== undefined && leaf?.x509.verify(signer.x509.publicKey)
      if (signed !== true || secret['ca.crt'] !== bundle) return undefined
    }
    for (const kind of KINDS) if ((await running.bundle(kind)) !== bundle) return undefined
    return true
  }

  /** Starts keepers until the authority is one of so many days; each is killed as soon as it has written once. */
  const killed = async (days: number): Promise<readonly string[]> => {
    const validity = { authorityDays: days, authorityRenewBeforeDays: days / 2 }
    const writes: string[] = []
    const limit = Date.now() + 60_000
    let keeper = start({ validity }, 'killing')
    running.onWritten = (path) => {
      writes.push(path)
      keeper.kill('SIGKILL')
    }
    while ((await settled(days)) === undefined) {
      const before = writes.length
      await Promise.race([keeper.gone, sleep(3_000)])
      await running.check()
      if (writes.length > before && (await settled(days)) === undefined)
        keeper = start({ validity }, 'killing')
      // One that says the same thing again and again does not get on.
      if (writes.length > 50 || Date.now() > limit)
        throw new Error(`not settled after ${writes.join('\n')}\n${keeper.said()}`)
    }
    running.onWritten = (): void => undefined
    return writes
  }

  it('go on where another was killed, after every write of a first start and of a rotation', async () => {
    expect(await killed(80)).to.have.length(FIRST_WRITES)
    await eventually('the webhook', 5_000, () => (running.good.webhook > 5 ? true : undefined))
    const [old = ''] = running.injected
    expect(await killed(160)).to.have.length(ROTATION_WRITES)
    expect(running.problems).to.deep.equal([])
    // The pod of the first days knows the old authority alone, and still reaches the broker.
    const now = await running.bundle('MutatingWebhookConfiguration')
    expect(pems(old).map(({ x509 }) => x509.subject)).not.to.include(pems(now)[0]?.x509.subject)
    expect(running.good.broker).to.be.greaterThan(20)
  })

  it('agree on one history: two at once, authorities of seconds, the first of them lost', async () => {
    const seconds = (count: number): number => count / DAY_S
    const validity = {
      ...{ authorityDays: seconds(30), authorityRenewBeforeDays: seconds(15) },
      ...{ leafDays: seconds(24), renewBeforeDays: seconds(12) },
    }
    // Pods that trust a lost authority alone have lost the broker, when its last certificate is replaced.
    for (const pod of [...running.injected, (await running.secret('webhook'))['ca.crt'] ?? ''])
      running.lost.add(pod)
    const lose = { metadata: { annotations: { 'nestgate.dev/kept-by': null } }, data: null }
    const patch = ['patch', 'secret', 'nestgate-ca', '--type=merge', '-p', JSON.stringify(lose)]
    await running.admin(['-n', SYSTEM, ...patch])
    const before = { ...running.good }
    const wish = { validity, settleSeconds: 2 }
    const pair = [start(wish), start(wish)]
    const signers: string[] = []
    // Until the second of them has signed, and a little longer.
    let end = Date.now() + 60_000
    while (Date.now() < end) {
      await sleep(100)
      const { 'tls.crt': signer = '' } = await running.secret('authority')
      if (signer === '' || signers.at(-1) === signer) continue
      if (signers.push(signer) === 2) end = Date.now() + 3_000
    }
    expect(running.problems).to.deep.equal([])
    // One after the other, and none comes back.
    expect(new Set(signers).size).to.equal(signers.length)
    expect(signers.length).to.be.within(2, 3)
    for (const what of ['webhook', 'broker'] as const)
      expect(running.good[what] - before[what]).to.be.greaterThan(50)
    for (const keeper of pair) {
      const at = `http://127.0.0.1:${await keeper.port()}`
      expect((await fetch(`${at}/healthz`)).status).to.equal(200)
      expect((await fetch(`${at}/readyz`)).status).to.equal(200)
      const figures = await (await fetch(`${at}/metrics`)).text()
      const ends = /expiry_timestamp_seconds\{certificate="broker"\} (\d+)/.exec(figures)?.[1]
      expect(Number(ends)).to.be.within(Date.now() / 1000, Date.now() / 1000 + 25)
      expect(figures).to.match(/last_success_timestamp_seconds \d+/)
      keeper.kill('SIGTERM')
      await keeper.gone
    }
  })

  it('find what they wrote after the manifests are applied again', async () => {
    const written = async (): Promise<unknown> =>
      Promise.all([
        ...(['authority', 'webhook', 'broker'] as const).map((role) => running.secret(role)),
        ...KINDS.map((kind) => running.bundle(kind)),
        running.admin([
          '-n',
          SYSTEM,
          'get',
          'secret',
          '-o',
          'jsonpath={.items[*].metadata.annotations.nestgate\\.dev/kept-by}',
        ]),
      ])
    const before = await written()
    for (const options of [[], ['--server-side', '--force-conflicts']]) {
      await running.apply(options)
      expect(await written()).to.deep.equal(before)
    }
    expect(JSON.stringify(before)).to.include('BEGIN CERTIFICATE')
    expect(JSON.stringify(before)).to.include('"nestgate-certificates nestgate-certificates')
  })

  it('leave alone what is not theirs, and say so', async () => {
    const annotate = (value: string): Promise<string> =>
      running.admin(['-n', SYSTEM, 'annotate', 'secret', 'nestgate-webhook-tls', value])
    await annotate('nestgate.dev/kept-by-')
    const held = await running.secret('webhook')
    const bundle = await running.bundle('MutatingWebhookConfiguration')
    const keeper = start({})
    const at = `http://127.0.0.1:${await keeper.port()}`
    await eventually('its saying so', 10_000, () =>
      keeper.said().includes('"reason":"foreign"') ? true : undefined,
    )
    expect(keeper.said()).to.include('holds ca.crt, tls.crt, tls.key of somebody else')
    expect((await fetch(`${at}/readyz`)).status).to.equal(503)
    expect(await (await fetch(`${at}/metrics`)).text()).to.match(
      /failures_total\{reason="foreign"\} [1-9]/,
    )
    expect(await running.secret('webhook')).to.deep.equal(held)
    expect(await running.bundle('MutatingWebhookConfiguration')).to.equal(bundle)
    await annotate('nestgate.dev/kept-by=nestgate-certificates')
    await eventually('its taking over', 15_000, async () =>
      (await fetch(`${at}/readyz`)).status === 200 ? true : undefined,
    )
  })
})
