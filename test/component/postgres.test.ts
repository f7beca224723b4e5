/** What fails under a broker that has PostgreSQL, and what is there afterwards. */
import { expect } from 'chai'
import { cpSync, rmSync, writeFileSync, chmodSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, before, beforeEach, describe, it } from 'mocha'
import { BLOCK_ENTRIES } from '../../broker/store/logic/postings.ts'
import { LOCK_TIMEOUT_MS, POLL_MS } from '../../broker/store/postgres/limits.ts'
import { SCHEMA_VERSION } from '../../broker/store/schema.ts'
import type { Store } from '../../broker/store/store.ts'
import { Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/log.ts'
import {
  appendHashes,
  EMPTY_RANGE,
  leafHash,
  rangeRoot,
  sameHash,
} from '../../shared/transparency/tree.ts'
import { intent, pending } from '../support/entries.ts'
import {
  makeServer,
  newDatabase,
  openPostgres,
  ownFolder,
  sharedServer,
  sql,
  WITH_PASSWORD,
} from '../support/postgres.ts'
import type { Server } from '../support/postgres.ts'
import { startProxy } from '../support/postgres-proxy.ts'
import type { Proxy } from '../support/postgres-proxy.ts'
import { newFile, SILENT } from '../support/sqlite-store.ts'
import { faultOf } from './store-suite.ts'

/** All entries, once it was proved that the head is the root over them. */
async function checkedLeaves(store: Store): Promise<readonly string[]> {
  const { size, root } = await store.head()
  let range = EMPTY_RANGE
  const ids: string[] = []
  for (let next = 0; next < size;) {
    const leaves = await store.leaves(next, 5_000)
    expect(leaves.map(({ seq }) => seq)).to.deep.equal(leaves.map((_, i) => next + i))
    range = appendHashes(
      range,
      leaves.map(({ bytes }) => leafHash(bytes)),
    )
    for (const { bytes } of leaves) {
      const entry = JSON.parse(Buffer.from(bytes).toString()) as { requestId?: string }
      ids.push(entry.requestId ?? '')
    }
    next += leaves.length
  }
  expect(ids.length).to.equal(size)
  expect(sameHash(rangeRoot(range), root), 'the head is the root over all entries').to.equal(true)
  return ids
}

function transitionOf(id: string, to: 'CANCELLED' | 'DENIED'): Parameters<Store['transition']>[0] {
  const entry = { kind: 'approval', requestId: id, cluster: 'main', from: 'PENDING' } as const
  return {
    ...{ id, version: 1, to, nowMs: 0 },
    entry: { ...entry, ...{ to, actor: 'a', reason: 'b' } },
  }
}

/** Collects what is said aloud. */
function listeningLog(): { log: Logger; fatal: string[] } {
  const fatal: string[] = []
  const log = Object.assign(Object.create(SILENT) as Logger, {
    fatal: (_: unknown, message: string) => fatal.push(message),
  })
  return { log, fatal }
}

before(async function () {
  this.timeout(60_000)
  await sharedServer()
})

describe('a PostgreSQL database', () => {
  it('is made once by brokers that start together', async () => {
    const url = await newDatabase()
    const stores = await Promise.all(Array.from({ length: 3 }, () => openPostgres(url)))
    const firsts = await Promise.all(stores.map((store) => store.append([intent()])))
    expect(firsts.sort()).to.deep.equal([0, 1, 2])
    await checkedLeaves(stores[0]!)
    for (const store of stores) await store.close()
  })

  it('of a newer broker is refused', async () => {
    const url = await newDatabase()
    await (await openPostgres(url)).close()
    await sql(url, `update nestgate_schema set version = ${SCHEMA_VERSION + 1}`)
    expect(messageOf(await faultOf(openPostgres(url)))).to.contain(`version ${SCHEMA_VERSION + 1}`)
  })

  it('of another program is left as it is', async () => {
    const url = await newDatabase()
    await sql(url, 'create table ledger (text text)')
    expect(await faultOf(openPostgres(url))).to.have.property('code', 'store_failed')
    const tables = await sql(url, `select tablename from pg_tables where schemaname = 'public'`)
    expect(tables).to.have.length(1)
  })

  it('is not opened where acknowledged commits could be lost', async () => {
    const url = await newDatabase()
    await sql(url, `alter database ${new URL(url).pathname.slice(1)} set synchronous_commit = off`)
    expect(messageOf(await faultOf(openPostgres(url)))).to.contain('synchronous_commit is off')
  })

  it('lets no ledger row be changed or deleted', async () => {
    const url = await newDatabase()
    const store = await openPostgres(url)
    await store.append([intent()])
    for (const [statement, message] of [
      [`update ledger set leaf = ''`, 'never changed'],
      ['delete from ledger', 'deleted in ranges'],
    ] as const) {
      expect(messageOf(await faultOf(sql(url, statement)))).to.contain(message)
    }
    await store.close()
  })

  it('takes texts that PostgreSQL has no characters for, and finds them', async () => {
    const store = await openPostgres(await newDatabase())
    // two that a database makes one of, in one block
    const names = ['a\ud800', 'a\ud801', 'nul\u0000']
    const entries = Array.from({ length: BLOCK_ENTRIES - 1 }, (_, i) =>
      intent({ request: { name: names[i % 3]! } }),
    )
    await store.append(entries)
    const found = async (): Promise<number> =>
      (await store.events({ name: 'a\ufffd' }, 2000)).length
    expect(await found(), 'in the open block').to.equal(682)
    await store.append([intent()])
    expect(await found(), 'in the full block').to.equal(682)
    const held = pending()
    await store.hold(held, [intent()])
    const moved = await store.transition({
      ...{ ...transitionOf(held.id, 'DENIED'), reviewer: 'alice', reason: 'no\u0000thing' },
    })
    expect(moved?.reason).to.equal('no\u2400thing')
    await checkedLeaves(store)
    await store.close()
  })

  it('is opened with the password of a private file only, and never without TLS where the URL wants it', async () => {
    const url = await newDatabase()
    const { file, remove } = newFile()
    await sql(url, `create role ${WITH_PASSWORD} login superuser password 'p%40/ä:'`)
    const withPassword = url.replace('nestgate@', `${WITH_PASSWORD}@`)
    writeFileSync(file, 'p%40/ä:\n', { mode: 0o600 })
    const store = await openPostgres(withPassword, { passwordFile: file })
    await store.append([intent()])
    await store.close()
    writeFileSync(file, 'other')
    const wrong = messageOf(await faultOf(openPostgres(withPassword, { passwordFile: file })))
    expect(wrong).to.contain('password authentication failed').and.not.contain('other')
    chmodSync(file, 0o644)
    const open = await faultOf(openPostgres(withPassword, { passwordFile: file }))
    expect(open).to.have.property('code', 'file_not_private')
    const tls = await faultOf(openPostgres(`${url}?sslmode=verify-full`))
    expect(messageOf(tls)).to.contain('SSL')
    remove()
  })
})

describe('brokers that share a PostgreSQL database', () => {
  it('append at full speed to one tree: no gap, no fork, and each sees all', async () => {
    const url = await newDatabase()
    const stores = [await openPostgres(url), await openPostgres(url)]
    const writers = stores.flatMap((store, broker) =>
      Array.from({ length: 48 }, async (_, writer) => {
        const firsts: [number, string][] = []
        for (let i = 0; i < 40; i += 1) {
          const requestId = `${broker}-${writer}-${i}`
          firsts.push([await store.append([intent({ requestId })]), requestId])
        }
        return firsts
      }),
    )
    const acknowledged = (await Promise.all(writers)).flat()
    expect(acknowledged.length).to.be.greaterThan(3 * BLOCK_ENTRIES)
    const ids = await checkedLeaves(stores[0]!)
    expect(await checkedLeaves(stores[1]!)).to.deep.equal(ids)
    expect(ids.length).to.equal(acknowledged.length)
    for (const [seq, id] of acknowledged) expect(ids[seq]).to.equal(id)
    for (const store of stores) {
      for (const requestId of ['0-3-7', '1-40-39'])
        expect(await store.events({ requestId }, 2)).to.have.length(1)
      await store.close()
    }
    const again = await openPostgres(url)
    await checkedLeaves(again)
    await again.close()
  }).timeout(60_000)

  it('let exactly one of them decide', async () => {
    const url = await newDatabase()
    const stores = [await openPostgres(url), await openPostgres(url)]
    const held = pending()
    await stores[0]!.hold(held, [])
    const moves = await Promise.all(
      stores.map((store) => store.transition(transitionOf(held.id, 'DENIED'))),
    )
    expect(moves.filter((moved) => moved !== undefined)).to.have.length(1)
    expect((await checkedLeaves(stores[1]!)).length).to.equal(1)
    for (const store of stores) await store.close()
  })

  const tellings = [
    { how: 'at once, by notification', cut: false, atLeastMs: 0, atMostMs: 1_000 },
    { how: 'by looking, while nobody can listen', cut: true, atLeastMs: 0, atMostMs: 2 * POLL_MS },
  ]
  for (const { how, cut, atMostMs } of tellings) {
    it(`tell each other of held requests ${how}`, async () => {
      const url = await newDatabase()
      const server = await sharedServer()
      const proxy = await startProxy(server.port)
      const listening = await openPostgres(url.replace(String(server.port), String(proxy.port)))
      const other = await openPostgres(url)
      if (cut) proxy.refuse('nestgate listener')
      const told: string[] = []
      listening.onChange((id) => told.push(id))
      const held = pending()
      await other.append([intent()])
      await other.hold(held, [transitionOf(held.id, 'DENIED').entry])
      const startMs = performance.now()
      while (!told.includes(held.id) && performance.now() - startMs < atMostMs) await sleep(5)
      expect(told).to.include(held.id)
      await listening.close()
      await other.close()
      await proxy.close()
    })
  }
})

describe('a PostgreSQL store whose database fails', () => {
  /** What happens to a batch, and whether it is there afterwards. */
  const faults: readonly {
    what: string
    kept: boolean
    arrange: (url: string, proxy: Proxy) => unknown
    limitMs?: number
  }[] = [
    {
      what: 'the connection is cut before COMMIT is sent',
      kept: false,
      arrange: (_, proxy) => {
        proxy.cutCommit('before')
      },
    },
    {
      what: 'the connection is cut after COMMIT was sent, before its answer',
      kept: true,
      arrange: (_, proxy) => {
        proxy.cutCommit('after')
      },
    },
    {
      what: 'the server refuses a row',
      kept: false,
      arrange: (url) =>
        sql(url, 'alter table ledger add check (octet_length(leaf) < 20000) not valid'),
    },
    {
      what: 'the commit itself fails',
      kept: false,
      arrange: (url) =>
        sql(
          url,
          `create function fail() returns trigger language plpgsql as $$
             begin if octet_length(new.leaf) > 20000 then raise 'disk I/O error'; end if; return new; end $$;
           create constraint trigger fail after insert on ledger deferrable initially deferred
             for each row execute function fail()`,
        ),
    },
    {
      what: 'the session ends within the transaction',
      kept: false,
      arrange: (url) =>
        sql(
          url,
          `create function fail() returns trigger language plpgsql security definer as $$
             begin if octet_length(new.leaf) > 20000 then perform pg_terminate_backend(pg_backend_pid()); end if;
             return new; end $$;
           create trigger fail before insert on ledger for each row execute function fail()`,
        ),
    },
    {
      what: 'another session keeps the head',
      kept: false,
      limitMs: LOCK_TIMEOUT_MS + 2_000,
      arrange: (url) => {
        void sql(url, 'begin; select * from ledger_head for update; select pg_sleep(7); rollback')
        return sleep(200)
      },
    },
  ]
  for (const { what, kept, arrange, limitMs = 3_000 } of faults) {
    it(`rejects every call of the batch, and ${kept ? 'all' : 'nothing'} of it is there later: ${what}`, async () => {
      const url = await newDatabase()
      const server = await sharedServer()
      const proxy = await startProxy(server.port)
      let store = await openPostgres(url.replace(String(server.port), String(proxy.port)))
      const held = pending()
      await store.hold(held, [])
      await store.append([intent({ requestId: 'before' })])
      const large = 'x'.repeat(30_000)
      await arrange(url, proxy)
      const startMs = performance.now()
      const batch = [
        store.append([intent({ requestId: 'beside', agent: large })]),
        store.transition(transitionOf(held.id, 'CANCELLED')),
        store.append(Array.from({ length: 8 }, () => intent({ requestId: 'many', agent: large }))),
      ]
      const quick = store.approval(held.id)
      for (const outcome of await Promise.all(batch.map(faultOf)))
        expect(outcome).to.be.instanceOf(Fault).with.property('code', 'store_failed')
      expect(performance.now() - startMs).to.be.lessThan(limitMs)
      expect((await quick)?.id, 'questions are answered meanwhile').to.equal(held.id)
      await sleep(limitMs > 5_000 ? 2_500 : 0)
      await store.append([intent({ requestId: 'after' })])
      await store.close()

      store = await openPostgres(url)
      const ids = await checkedLeaves(store)
      const found = (id: string): number => ids.filter((one) => one === id).length
      expect(found('before')).to.equal(1)
      expect(found('after')).to.equal(1)
      expect(found('beside')).to.equal(kept ? 1 : 0)
      expect(found(held.id)).to.equal(kept ? 1 : 0)
      expect(found('many')).to.equal(kept ? 8 : 0)
      expect((await store.approval(held.id))?.state).to.equal(kept ? 'CANCELLED' : 'PENDING')
      await store.close()
      await proxy.close()
    }).timeout(30_000)
  }
})

describe('a PostgreSQL server', () => {
  let server: Server
  beforeEach(async function () {
    this.timeout(60_000)
    server = await makeServer()
  })
  afterEach(async () => {
    await server.remove()
  })

  it('that is killed under load has every acknowledged entry once, and the broker goes on by itself', async () => {
    await server.start()
    const url = await newDatabase(server)
    const stores = [await openPostgres(url), await openPostgres(url)]
    const acknowledged = new Map<number, string>()
    let failed = 0
    let stopped = false
    const writers = stores.flatMap((store, broker) =>
      Array.from({ length: 16 }, async (_, writer) => {
        for (let i = 0; !stopped; i += 1) {
          const requestId = `${broker}-${writer}-${i}`
          try {
            const seq = await store.append([intent({ requestId })])
            expect(acknowledged.has(seq), `entry ${seq} was acknowledged twice`).to.equal(false)
            acknowledged.set(seq, requestId)
          } catch (error) {
            if (!(error instanceof Fault)) throw error
            failed += 1
            await sleep(5)
          }
        }
      }),
    )
    for (let round = 0; round < 3; round += 1) {
      const before = acknowledged.size
      while (acknowledged.size < before + 300) await sleep(5)
      await server.kill()
      await server.start()
    }
    const then = acknowledged.size
    while (acknowledged.size < then + 100) await sleep(5)
    stopped = true
    await Promise.all(writers)
    expect(failed).to.be.greaterThan(0)
    const ids = await checkedLeaves(stores[0]!)
    for (const [seq, id] of acknowledged) expect(ids[seq], `entry ${seq}`).to.equal(id)
    expect(new Set(ids).size, 'nothing is there twice').to.equal(ids.length)
    for (const store of stores) await store.close()
  }).timeout(90_000)

  it('that is away is waited for a moment, and then refused at once', async () => {
    await server.start()
    const store = await openPostgres(await newDatabase(server))
    await store.append([intent()])
    await server.stop()
    const startMs = performance.now()
    const calls = [store.append([intent()]), store.approval('x'), store.events({}, 1)]
    for (const fault of await Promise.all(calls.map(faultOf)))
      expect(fault).to.have.property('code', 'store_failed')
    expect(performance.now() - startMs).to.be.lessThan(12_000)
    const lateMs = performance.now()
    expect(await faultOf(store.append([intent()]))).to.have.property('code', 'store_failed')
    expect(performance.now() - lateMs).to.be.lessThan(200)
    await server.start()
    let seq: number | undefined
    while (seq === undefined) seq = await store.append([intent()]).catch(() => sleep(50, undefined))
    expect(seq).to.equal(1)
    await checkedLeaves(store)
    await store.close()
  }).timeout(40_000)

  it('without fsync or full_page_writes is refused', async () => {
    for (const setting of ['fsync', 'full_page_writes']) {
      await server.start({ [setting]: 'off' })
      const fault = await faultOf(openPostgres(await newDatabase(server)))
      expect(messageOf(fault)).to.contain(`${setting} is off`)
      await server.stop()
    }
  }).timeout(60_000)

  for (const others of [false, true]) {
    it(`that is an old copy${others ? ', and has grown past what was acknowledged,' : ''} takes nothing more of a broker that knows better`, async () => {
      await server.start()
      const url = await newDatabase(server)
      const { log, fatal } = listeningLog()
      const store = await openPostgres(url, { log })
      await store.append([intent(), intent()])
      await server.stop()
      const copy = join(server.folder, '..', 'copy')
      cpSync(server.folder, copy, { recursive: true })
      ownFolder(copy)
      await server.start()
      let seq: number | undefined
      while (seq === undefined)
        seq = await store.append([intent({ requestId: 'later' })]).catch(() => sleep(20, undefined))
      await store.append([intent({ requestId: 'acknowledged' })])
      await server.stop()
      rmSync(server.folder, { recursive: true })
      cpSync(copy, server.folder, { recursive: true })
      ownFolder(server.folder)
      await server.start()
      let size = 2
      if (others) {
        const young = await openPostgres(url)
        await young.append(Array.from({ length: 20 }, () => intent()))
        await young.close()
        size = 22
      }
      const codes: unknown[] = []
      while (!codes.includes('ledger_rolled_back') && codes.length < 100) {
        const fault = await faultOf(store.append([intent()]))
        codes.push(fault instanceof Fault ? fault.code : 'it was written')
        await sleep(20)
      }
      expect(codes).to.include('ledger_rolled_back').and.not.include('it was written')
      if (!others) {
        const head = await faultOf(store.head())
        expect(head).to.have.property('code', 'ledger_rolled_back')
      }
      await store.putCheckpoint({ size: 1, timeUs: 0, root: new Uint8Array(32), note: 'x' }).then(
        () => expect.fail('a checkpoint was stored'),
        (error: unknown) => {
          expect(error).to.have.property('code', 'ledger_rolled_back')
        },
      )
      expect(fatal).to.deep.equal(['the ledger was rolled back, every write is refused'])
      const [row] = await sql(url, 'select size::int from ledger_head')
      expect(row).to.deep.equal({ size })
      expect(await sql(url, 'select 1 from ledger_checkpoint')).to.have.length(0)
      await store.close()
    }).timeout(60_000)
  }
})
