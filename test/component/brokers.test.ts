/** Several brokers on one PostgreSQL database: what one does reaches the others, and what one leaves behind is taken over. */
import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, before, beforeEach, describe, it } from 'mocha'
import { createApprovals } from '../../broker/approvals/approvals.ts'
import type { ApprovalEvent, Approvals } from '../../broker/approvals/types.ts'
import { openPresence } from '../../broker/presence.ts'
import type { Presence } from '../../broker/presence.ts'
import type { Store } from '../../broker/store/store.ts'
import { isRefusal } from '../../shared/reasons.ts'
import { facts } from '../support/entries.ts'
import { newDatabase, openPostgres, sharedServer } from '../support/postgres.ts'
import { SILENT } from '../support/sqlite-store.ts'

const CHILD = new URL('../support/execute-until-killed.ts', import.meta.url)
const NEVER = new AbortController().signal
/** Between two signs of life in these tests, in milliseconds. */
const BEAT_MS = 100
/** Sooner than anybody looks by himself, in milliseconds. */
const AT_ONCE_MS = 600

interface Broker {
  readonly store: Store
  readonly approvals: Approvals
  readonly presence: Presence
  readonly events: ApprovalEvent[]
  readonly gone: string[]
}

before(async function () {
  this.timeout(60_000)
  await sharedServer()
})

describe('brokers that share a store', () => {
  let url: string
  let brokers: Broker[]

  const start = async (id: string): Promise<Broker> => {
    const store = await openPostgres(url)
    const shared = { store, log: SILENT, now: Date.now }
    const approvals = createApprovals({ ...shared, broker: id })
    const events: ApprovalEvent[] = []
    approvals.subscribe((event) => events.push(event))
    const gone: string[] = []
    const presence = await openPresence({
      ...{ ...shared, id, beatMs: BEAT_MS },
      async onGone(broker) {
        await approvals.recover((name) => name === broker)
        gone.push(broker)
      },
    })
    await approvals.recover((name) => !presence.isThere(name))
    const broker = { store, approvals, presence, events, gone }
    brokers.push(broker)
    return broker
  }
  const stop = async (broker: Broker): Promise<void> => {
    brokers = brokers.filter((other) => other !== broker)
    broker.approvals.close()
    await broker.presence.close()
    await broker.store.close()
  }
  const until = async (isTrue: () => boolean | Promise<boolean>, limitMs: number) => {
    const startMs = performance.now()
    while (!(await isTrue())) {
      if (performance.now() - startMs > limitMs) expect.fail(`it took more than ${limitMs} ms`)
      await sleep(10)
    }
  }

  beforeEach(async () => {
    brokers = []
    url = await newDatabase()
  })
  afterEach(async () => {
    for (const broker of brokers) await stop(broker)
  })

  it('wake whoever waits at another one, at once', async () => {
    const [here, there] = [await start('here'), await start('there')]
    const held = facts()
    await here.approvals.ask(held, [])
    const owner = { podUid: 'pod-1' }
    const waiting = here.approvals.waitFor(held.id, owner, 10_000, NEVER)
    // not at the moment at which the waiter looks by itself
    await sleep(200)
    const startMs = performance.now()
    await there.approvals.decide({ id: held.id, reviewer: 'alice', approve: true, reason: 'x' })
    expect(await waiting).to.include({ state: 'APPROVED', reviewer: 'alice' })
    expect(performance.now() - startMs).to.be.lessThan(AT_ONCE_MS)
    // and it may be claimed at either
    expect(await there.approvals.claim(held)).to.have.property('approval')
  })

  it('show each change to watchers of all, once, and tell people of it at one', async () => {
    const [here, there] = [await start('here'), await start('there')]
    const held = facts()
    await here.approvals.ask(held, [])
    await until(() => there.events.length === 1, 1_000)
    await there.approvals.decide({ id: held.id, reviewer: 'alice', approve: false, reason: 'x' })
    // longer than the poll that looks for the same changes again
    await sleep(2_500)
    const shown = ({ events }: Broker) =>
      events.map(({ from, approval, elsewhere = false }) => [from, approval.state, elsewhere])
    expect(shown(here)).to.deep.equal([
      ['RECEIVED', 'PENDING', false],
      ['PENDING', 'DENIED', true],
    ])
    expect(shown(there)).to.deep.equal([
      ['RECEIVED', 'PENDING', true],
      ['PENDING', 'DENIED', false],
    ])
  })

  it('cut a session that another one revokes, at once', async () => {
    const [here, there] = [await start('here'), await start('there')]
    const held = facts({ streaming: true })
    await here.approvals.ask(held, [])
    const { id } = held
    await there.approvals.decide({ id, reviewer: 'alice', approve: true, reason: 'x' })
    const claimed = await here.approvals.claim(held)
    if (isRefusal(claimed)) expect.fail(claimed.refused)
    // not at the moment at which every broker looks by itself
    await sleep(200)
    const startMs = performance.now()
    await there.approvals.revoke({ id, reviewer: 'alice', reason: 'y' })
    if (!claimed.revoked.aborted) await once(claimed.revoked, 'abort')
    expect(performance.now() - startMs).to.be.lessThan(AT_ONCE_MS)
  })

  it('count what waits at all of them', async () => {
    const [here, there] = [await start('here'), await start('there')]
    for (let i = 0; i < 100; i += 1) await here.approvals.ask(facts(), [])
    await until(() => there.events.length === 100, 3_000)
    expect(await there.approvals.ask(facts(), [])).to.have.property('refused', 'approvals_full')
  })

  it('take over from one that is killed, and leave those alone that live', async () => {
    const child = spawn(process.execPath, [CHILD.pathname, url, String(BEAT_MS)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string]
    const [ran = '', waited = ''] = line.split(' ')
    const living = await start('living')
    const own = facts()
    await living.approvals.open(own, [])
    // what else is kept of brokers is no sign of life
    await living.store.put([{ kind: 'broker', id: 'other', body: {} }], [])
    // started while both live
    const young = await start('young')
    await sleep(10 * BEAT_MS)
    const state = async (id: string): Promise<unknown> => (await young.store.approval(id))?.state
    expect([await state(ran), await state(own.id)]).to.deep.equal(['EXECUTING', 'EXECUTING'])
    child.kill('SIGKILL')
    await once(child, 'exit')
    await until(async () => (await state(ran)) === 'UNKNOWN', 5_000)
    await until(() => young.gone.length + living.gone.length > 0, 2_000)
    const kinds = (await young.store.events({ requestId: ran }, 10)).map(({ kind }) => kind)
    expect(kinds.filter((kind) => kind === 'outcome')).to.have.length(1)
    const left = await young.store.approval(waited)
    expect(left).to.include({ state: 'PENDING' })
    expect(left?.progress).to.include({ clientWaits: false })
    expect(await state(own.id)).to.equal('EXECUTING')
    await young.approvals.finish(own.id, 'SUCCEEDED')
    const ids = async () => (await young.store.records('broker', {}, 9)).map(({ id }) => id)
    await until(async () => (await ids()).length === 3, 2_000)
    expect(await ids()).to.deep.equal(['alive/living', 'alive/young', 'other'])
  }).timeout(20_000)

  it('take over from one that ended in order, and left something running', async () => {
    const [living, leaving] = [await start('living'), await start('leaving')]
    const held = facts()
    await leaving.approvals.open(held, [])
    await sleep(2 * BEAT_MS)
    await stop(leaving)
    const state = async (): Promise<unknown> => (await living.store.approval(held.id))?.state
    await until(async () => (await state()) === 'UNKNOWN', 3_000)
    await until(() => living.gone.length > 0, 1_000)
    expect(living.gone).to.deep.equal(['leaving'])
  })

  it('end nobody because the database was away for all', async () => {
    const [here, there] = [await start('here'), await start('there')]
    const held = facts()
    await there.approvals.open(held, [])
    const put = here.store.put.bind(here.store)
    const records = here.store.records.bind(here.store)
    // neither signs of life nor looks
    Object.assign(here.store, { put: refuse, records: refuse })
    await sleep(10 * BEAT_MS)
    Object.assign(here.store, { put, records })
    await sleep(5 * BEAT_MS)
    expect([here.gone, (await here.store.approval(held.id))?.state]).to.deep.equal([
      [],
      'EXECUTING',
    ])
  })
})

function refuse(): Promise<never> {
  return Promise.reject(new Error('the database is away'))
}
