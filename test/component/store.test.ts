import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { BLOCK_ENTRIES } from '../../broker/store/logic/postings.ts'
import { sameStatement } from '../../broker/store/logic/read.ts'
import { legacyStatements } from '../../broker/store/sqlite/legacy.ts'
import { MAX_BATCH, MAX_WAITING } from '../../broker/store/batches.ts'
import { SQLITE } from '../../broker/store/steps.ts'
import { serializeEntry } from '../../broker/ledger/serialize.ts'
import { Fault, messageOf } from '../../shared/errors.ts'
import {
  appendHashes,
  EMPTY_RANGE,
  leafHash,
  rangeRoot,
  sameHash,
} from '../../shared/transparency/tree.ts'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { intent, outcome, pending, TAG } from '../support/entries.ts'
import { newFile, open } from '../support/sqlite-store.ts'
import { faultOf, storeSuite } from './store-suite.ts'

const FAULTY_WORKER = new URL('../support/faulty-store-worker.ts', import.meta.url)
const APPENDER = new URL('../support/append-until-killed.ts', import.meta.url)

/** Makes a file as brokers of an earlier version did. */
function legacyFile(file: string, version: number): DatabaseSync {
  const db = new DatabaseSync(file)
  for (const text of legacyStatements(0).slice(0, version)) db.exec(text)
  db.exec(`PRAGMA application_id = 0x4e535447; PRAGMA user_version = ${version}`)
  return db
}

storeSuite('SQLite', () => {
  const { file, remove } = newFile()
  return { open: (now = Date.now) => open(file, { now }), remove }
})

describe('the SQLite file', () => {
  let file: string
  let remove: () => void
  beforeEach(() => {
    ;({ file, remove } = newFile())
  })
  afterEach(() => {
    remove()
  })

  it('is readable by its owner alone', async () => {
    const store = await open(file)
    await store.append([intent()])
    for (const name of [file, `${file}-wal`, `${file}.lock`]) {
      expect(statSync(name).mode & 0o777, name).to.equal(0o600)
    }
    await store.close()
  })

  it('has one owner: a second broker fails to start, also by another name of the file, and starts when the first is gone', async () => {
    const first = await open(file)
    symlinkSync(file, `${file}.link`)
    for (const name of [file, `${file}.link`]) {
      const fault = await faultOf(open(name))
      expect(fault).to.be.instanceOf(Fault).with.property('code', 'store_failed')
      expect(messageOf(fault)).to.contain('another broker owns it')
    }
    await first.append([intent()])
    await first.close()
    const second = await open(file)
    expect(await second.append([intent()])).to.equal(1)
    await second.close()
  })

  const foreign: readonly [string, (path: string) => void, string][] = [
    [
      'no database',
      (path) => {
        writeFileSync(path, 'hello, this is not a database at all\n')
      },
      'not a database',
    ],
    [
      'another program’s',
      (path) => {
        sql(path, 'CREATE TABLE notes (text TEXT)')
      },
      'another program',
    ],
    [
      'of a newer broker',
      (path) => {
        sql(
          path,
          'PRAGMA application_id = 1314083911; PRAGMA user_version = 99; CREATE TABLE x (y)',
        )
      },
      'version 99',
    ],
  ]
  for (const [what, make, message] of foreign) {
    it(`is refused and left alone when it is ${what}`, async () => {
      make(file)
      const before = statSync(file).size
      const fault = await faultOf(open(file))
      expect(fault).to.be.instanceOf(Fault).with.property('code', 'store_failed')
      expect(messageOf(fault)).to.contain(message)
      expect(statSync(file).size).to.equal(before)
    })
  }

  it('cannot be opened in a folder that is not there', async () => {
    const fault = await faultOf(open(`${file}/no/such/folder.db`))
    expect(fault).to.be.instanceOf(Fault).with.property('code', 'store_failed')
  })

  it('lets no ledger row be changed, deleted or replaced', async () => {
    const store = await open(file)
    await store.append([intent()])
    await store.close()
    for (const [statement, message] of [
      ["UPDATE ledger SET leaf = x'7b7d'", 'never changed'],
      ['DELETE FROM ledger', 'deleted in ranges'],
      [
        "INSERT OR REPLACE INTO ledger (seq, time_us, hash, leaf) VALUES (0, 1, x'00', x'7b7d')",
        'never replaced',
      ],
    ] as const) {
      expect(() => {
        sql(file, statement)
      }, statement).to.throw(message)
    }
  })

  it('tells of a row that was tampered with instead of inventing an entry', async () => {
    const store = await open(file)
    await store.append([intent()])
    await store.hold(pending({ id: 'broken' }), [])
    sql(
      file,
      "DROP TRIGGER ledger_no_update; UPDATE ledger SET leaf = x'ff'; UPDATE approvals SET facts = '{}'",
    )
    expect(await faultOf(store.events({}, 1))).to.have.property('code', 'store_failed')
    expect(await faultOf(store.approval('broken'))).to.have.property('code', 'store_failed')
    await store.close()
  })

  it('of an earlier broker is upgraded in place: its ancestors are found, its entries stay as they were', async () => {
    const tag = (ancestors: readonly object[]): AgentTag =>
      ({ ...TAG, verified: { ...TAG.verified, ancestors } }) as AgentTag
    const [shell, bare] = [
      { pid: 7, startTicks: '9', exe: '/usr/bin/usr/bin/sh', containerId: 'a'.repeat(64) },
      { pid: 1, startTicks: '1' },
    ]
    const entries = [
      intent({ tag: tag([shell, shell, bare]) }),
      intent({ tag: tag([]) }),
      intent({ tag: { verdict: 'unidentified' } }),
      outcome('x'),
      undefined,
      intent({ tag: tag(['…[cut: 3 items]' as unknown as object, { ...shell, exe: 'odd' }]) }),
      ...Array.from({ length: BLOCK_ENTRIES }, () => intent({ agent: 'many' })),
    ]
    const db = legacyFile(file, 1)
    const insert = db.prepare(
      'INSERT INTO ledger (seq, time_us, peak_us, kind, leaf) VALUES (?, ?, ?, ?, ?)',
    )
    const leaves = entries.map((entry, seq) =>
      entry === undefined ? Buffer.of(0xff) : serializeEntry(entry, 1_000_000 + seq),
    )
    for (const [seq, leaf] of leaves.entries()) insert.run(seq, 1_000_000 + seq, 0, 'intent', leaf)
    db.close()
    const upgraded = await open(file)
    const found = async (ancestor: string): Promise<readonly number[]> =>
      (await upgraded.events({ ancestor }, 10)).map(({ seq }) => seq)
    expect(await found(`unregistered/${'a'.repeat(13)}/sh`)).to.deep.equal([0])
    expect(await found('unregistered/no-container/unknown')).to.deep.equal([0])
    expect(await found(`unregistered/${'a'.repeat(13)}/odd`)).to.deep.equal([5])
    const stored = await upgraded.leaves(0, 9999)
    expect(stored.map(({ bytes }) => Buffer.from(bytes))).to.deep.equal(
      leaves.map((leaf) => Buffer.from(leaf)),
    )
    expect(stored.map(({ timeUs }) => timeUs)).to.deep.equal(leaves.map((_, i) => 1_000_000 + i))
    const { size, root } = await upgraded.head()
    expect(size).to.equal(leaves.length)
    expect(sameHash(root, rangeRoot(appendHashes(EMPTY_RANGE, leaves.map(leafHash))))).to.equal(
      true,
    )
    expect(await upgraded.append([intent({ chain: ['planner'] })])).to.equal(leaves.length)
    expect(await found('planner')).to.deep.equal([leaves.length])
    await upgraded.close()
    await (await open(file)).close()
  })

  it('of an earlier broker keeps its held requests: each readable, decided by one reviewer, joined by none', async () => {
    const { podUid = '', ...facts } = pending()
    const old = {
      ...{ podUid, instanceId: facts.instanceId, digest: facts.digest, cluster: 'main' },
      ...{ method: 'DELETE', path: '/x', query: '', verb: 'delete', resource: 'pods' },
      ...{ namespace: 'shop', name: '\u0000\ud83d\ude00', subject: 'system:sa', agent: 'a' },
      ...{ tag: { odd: ['\u0000'] }, rules: ['r'], bodySha256: '0', bodyBytes: 12 },
    }
    const db = legacyFile(file, 2)
    const insert = db.prepare(
      `INSERT INTO approvals (id, version, state, created_at, expires_at, facts)
       VALUES (?, 3, 'PENDING', '2026-01-01T00:00:00.000Z', '2126-01-01T00:00:00.000Z', ?)`,
    )
    for (const id of ['one', 'two']) insert.run(id, JSON.stringify(old))
    insert.run('broken', 'not JSON')
    db.close()
    const store = await open(file)
    for (const id of ['one', 'two']) {
      const found = await store.approval(id)
      expect(found).to.deep.include({
        ...{ ...old, id, state: 'PENDING', version: 3, callerKey: podUid },
        ...{ requesters: ['system:sa'], owners: [], ancestors: [], breakGlass: false },
        progress: { reviews: [], clientWaits: true },
      })
      expect(found?.terms).to.deep.include({ quorums: [], approvedSeconds: 900, mode: 'hold' })
    }
    expect(await faultOf(store.approval('broken'))).to.have.property('code', 'store_failed')
    const request = { digest: old.digest, callerKey: podUid, grantedSinceMs: 0, deniedSinceMs: 0 }
    expect(await store.same(request)).to.deep.equal([])
    const ofMain = { cluster: 'main', states: ['PENDING'] } as const
    sql(file, "DELETE FROM approvals WHERE id = 'broken'")
    expect(await store.approvals(ofMain, 10)).to.have.length(2)
    await store.close()
  })

  it('finds repeats of a request straight from an index', async () => {
    await (await open(file)).close()
    const asked = { foldKey: 'x', grantedSince: 'y', deniedSince: 'z' }
    const { sql: text, parameters } = sameStatement(SQLITE.db, asked).compile()
    const plan = planOf(file, text, parameters as readonly string[])
    expect(plan).to.contain('USING INDEX approvals_fold').and.not.contain('TEMP B-TREE')
  })

  it('commits callers that wait together in one transaction', async () => {
    const store = await open(file)
    const alone = await rate(1, () => store.append([intent()]))
    const together = await rate(64, () => store.append([intent()]))
    await store.close()
    // Measured 10 times and more; the bound only has to tell one sync a call from one a batch.
    expect(together).to.be.greaterThan(alone * 1.5)
  })

  it('refuses further calls when the disk does not keep up, rather than filling the memory', async () => {
    const store = await open(file)
    const entry = intent()
    const calls = Array.from({ length: MAX_WAITING + 2 * MAX_BATCH }, () =>
      faultOf(store.append([entry])),
    )
    const faults = (await Promise.all(calls)).filter((fault) => fault !== undefined)
    expect(faults.length).to.be.within(1, 2 * MAX_BATCH)
    expect(messageOf(faults[0])).to.contain('wait for the disk')
    expect(await store.append([entry])).to.equal(calls.length - faults.length)
    await store.close()
  }).timeout(30_000)
})

describe('a broker that is killed', () => {
  it('has every acknowledged entry, in place and without a gap', async () => {
    const { file, remove } = newFile()
    const child = spawn(process.execPath, [APPENDER.pathname, file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const acknowledged = new Map<number, string>()
    for await (const line of createInterface({ input: child.stdout })) {
      const [seq, id] = line.split(' ')
      acknowledged.set(Number(seq), id ?? '')
      if (acknowledged.size === 300) child.kill('SIGKILL')
    }
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
    const store = await open(file)
    const stored = new Map(
      (await store.events({}, 100_000)).map(({ seq, requestId }) => [seq, requestId]),
    )
    expect(acknowledged.size).to.be.at.least(300)
    for (const [seq, id] of acknowledged) expect(stored.get(seq), `entry ${seq}`).to.equal(id)
    expect([...stored.keys()].sort((a, b) => a - b)).to.deep.equal(
      [...stored.keys()].map((_, i) => i),
    )
    expect(await store.append([intent()])).to.equal(stored.size)
    await store.close()
    remove()
  }).timeout(30_000)
})

describe('a store whose disk fails', () => {
  /** What is appended, and whether it is there afterwards. The thread lives on after the first three. */
  const faults: readonly { fault: string; kept: boolean; alive: boolean }[] = [
    { fault: 'full', kept: false, alive: true },
    { fault: 'commit-lost', kept: false, alive: true },
    { fault: 'commit-kept', kept: true, alive: true },
    { fault: 'die-before', kept: false, alive: false },
    { fault: 'die-after', kept: true, alive: false },
  ]
  for (const { fault, kept, alive } of faults) {
    it(`rejects every call of the batch, and ${kept ? 'all' : 'nothing'} of it is there later (${fault})`, async () => {
      const { file, remove } = newFile()
      let store = await open(file, { worker: FAULTY_WORKER })
      const held = pending()
      await store.hold(held, [])
      await store.append([intent({ requestId: 'before' })])
      const large = 'x'.repeat(30_000)
      const batch = [
        store.append([intent({ requestId: 'beside', agent: large })]),
        store.append([intent({ requestId: fault, agent: large })]),
        store.transition({
          ...{ id: held.id, version: 1, to: 'CANCELLED', nowMs: 0 },
          entry: {
            ...{ kind: 'approval', requestId: 'moved', cluster: 'main', from: 'PENDING' },
            ...{ to: 'CANCELLED', actor: 'a', reason: 'b' },
          },
        }),
        store.append(Array.from({ length: 8 }, () => intent({ requestId: 'many', agent: large }))),
      ]
      for (const outcome of await Promise.all(batch.map(faultOf))) {
        expect(outcome).to.be.instanceOf(Fault).with.property('code', 'store_failed')
      }
      if (alive) await store.append([intent({ requestId: 'after' })])
      else expect(await faultOf(store.append([intent()]))).to.have.property('code', 'store_failed')
      await store.close()

      store = await open(file)
      const found = async (requestId: string): Promise<number> =>
        (await store.events({ requestId }, 100)).length
      expect(await found('before')).to.equal(1)
      expect(await found('after')).to.equal(alive ? 1 : 0)
      expect(await found('beside')).to.equal(kept ? 1 : 0)
      expect(await found('moved')).to.equal(kept ? 1 : 0)
      expect(await found('many')).to.equal(kept ? 8 : 0)
      expect((await store.approval(held.id))?.state).to.equal(kept ? 'CANCELLED' : 'PENDING')
      const seqs = (await store.events({}, 100)).map(({ seq }) => seq)
      expect(seqs).to.deep.equal(seqs.map((_, i) => seqs.length - 1 - i))
      await store.close()
      remove()
    })
  }

  it('still answers what is held while nothing can be written', async () => {
    const { file, remove } = newFile()
    const store = await open(file, { worker: FAULTY_WORKER })
    const held = pending()
    await store.hold(held, [])
    const [write, read] = await Promise.all([
      faultOf(store.append([intent({ requestId: 'commit-lost' })])),
      store.approval(held.id),
    ])
    expect(write).to.have.property('code', 'store_failed')
    expect(read).to.deep.equal(held)
    await store.close()
    remove()
  })
})

function sql(file: string, text: string): void {
  const db = new DatabaseSync(file)
  try {
    db.exec(text)
  } finally {
    db.close()
  }
}

function planOf(file: string, text: string, values: readonly (string | number)[]): string {
  const db = new DatabaseSync(file, { readOnly: true })
  const rows = db.prepare(`EXPLAIN QUERY PLAN ${text}`).all(...values)
  db.close()
  return rows.map((row) => String(row['detail'])).join('\n')
}

/** Calls a second, with so many waiting at a time. */
async function rate(callers: number, call: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now()
  let done = 0
  const worker = async (): Promise<void> => {
    while (performance.now() - startMs < 400) {
      await call()
      done += 1
    }
  }
  await Promise.all(Array.from({ length: callers }, worker))
  return done / (performance.now() - startMs)
}
