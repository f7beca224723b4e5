/** The ledger as its witnesses see it: keys, checkpoints, what is served, and a store that was put back. */
import { expect } from 'chai'
import { generateKeyPairSync } from 'node:crypto'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { openCheckpoints } from '../../broker/ledger/checkpoints.ts'
import { openLedgerIdentity } from '../../broker/ledger/keys.ts'
import { removeOld } from '../../broker/ledger/retention.ts'
import { RANGE_ENTRIES } from '../../broker/store/logic/prune.ts'
import type { Store } from '../../broker/store/store.ts'
import { messageOf } from '../../shared/errors.ts'
import { decodeBundle } from '../../shared/transparency/bundle.ts'
import { verifyCheckpoint } from '../../shared/transparency/checkpoint.ts'
import { parseVkey } from '../../shared/transparency/note.ts'
import type { NoteKey } from '../../shared/transparency/note.ts'
import { verifyProof } from '../../shared/transparency/proof-file.ts'
import { tileHashReader, tilePath } from '../../shared/transparency/tiles.ts'
import {
  leafHash,
  rangeRoot,
  readRange,
  verifyConsistency,
} from '../../shared/transparency/tree.ts'
import { startApi } from '../support/api-server.ts'
import type { ApiServer } from '../support/api-server.ts'
import { intent } from '../support/entries.ts'
import { newIdentity, ORIGIN, signed } from '../support/ledger.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'
import { faultOf } from './store-suite.ts'

const US_PER_DAY = 86_400_000_000

function keysOf(vkeys: readonly string[]): readonly NoteKey[] {
  return vkeys.map((vkey) => {
    const parsed = parseVkey(vkey)
    if (parsed.problem !== undefined) throw new Error(parsed.problem)
    return parsed.value
  })
}

const some = (count: number) => Array.from({ length: count }, () => intent())

describe('the ledger that is served', () => {
  let api: ApiServer
  beforeEach(async () => {
    api = await startApi()
  })
  afterEach(() => api.close())

  const get = (path: string, token?: string): Promise<Response> =>
    fetch(`${api.url}/v1/ledger/${path}`, {
      headers: token === undefined ? {} : { Authorization: `Bearer token-${token}` },
    })

  it('has a signed checkpoint, from whose tiles its root is made again, without credentials', async () => {
    await api.store.append(some(300))
    await api.store.append(some(500))
    await api.checkpoints.current()
    const { origin, keys } = (await (await get('keys')).json()) as {
      origin: string
      keys: readonly { vkey: string }[]
    }
    const note = await (await get('checkpoint')).text()
    const verified = verifyCheckpoint(note, keysOf(keys.map(({ vkey }) => vkey)), origin)
    if (verified.problem !== undefined) throw new Error(verified.problem)
    const { size, root } = verified.value
    expect([origin, size]).to.deep.equal([ORIGIN, 800])
    const read = tileHashReader(size, async (level, index, width) => {
      const answer = await get(tilePath({ level, index, width }))
      expect(answer.headers.get('cache-control')?.includes('immutable')).to.equal(width === 256)
      return new Uint8Array(await answer.arrayBuffer())
    })
    expect(Buffer.from(rangeRoot(await readRange(size, read)))).to.deep.equal(Buffer.from(root))
  })

  it('serves no tile that no checkpoint covers, nor what is no tile', async () => {
    await api.checkpoints.current()
    await api.store.append(some(300))
    const paths = ['tile/0/000', 'tile/0/000.p/5', 'tile/1/000.p/1', 'tile/0/0', 'tile/00/000']
    for (const path of [...paths, 'tile/0/x001/000', 'tile/0/000.p/256', 'tile/0/000.p/0'])
      expect((await get(path)).status, path).to.equal(404)
    await api.checkpoints.current()
    expect((await get('tile/0/000')).status).to.equal(200)
    expect((await get('tile/0/001.p/44')).status).to.equal(200)
    expect((await get('tile/0/001.p/45')).status).to.equal(404)
  })

  it('gives entries and proofs to auditors alone, and writes down that it gave the entries', async () => {
    await api.store.append(some(3))
    await api.checkpoints.current()
    for (const path of ['tile/entries/000.p/3', 'proof/1']) {
      expect((await get(path)).status, path).to.equal(401)
      expect((await get(path, 'alice')).status, path).to.equal(403)
    }
    const bundle = await get('tile/entries/000.p/3', 'carol')
    const entries = decodeBundle(new Uint8Array(await bundle.arrayBuffer()), 3)
    const leaves = await api.store.leaves(0, 3)
    expect(entries?.map((bytes) => Buffer.from(bytes))).to.deep.equal(
      leaves.map(({ bytes }) => Buffer.from(bytes)),
    )
    const [read] = await api.store.events({ event: 'audit_read' }, 1)
    expect(read?.entry).to.deep.include({ actor: 'carol' })
    const text = await (await get('proof/1', 'carol')).text()
    const proven = verifyProof(text, leafHash(leaves[1]!.bytes), keysOf(api.checkpoints.vkeys()))
    expect(proven.problem).to.equal(undefined)
    expect(
      verifyProof(text, leafHash(leaves[0]!.bytes), keysOf(api.checkpoints.vkeys())).problem,
    ).to.be.a('string')
    expect((await get('proof/99999', 'carol')).status).to.equal(404)
    expect((await get('proof/01', 'carol')).status).to.equal(404)
  })

  it('proves an entry at once, before the next checkpoint was due', async () => {
    const seq = await api.store.append(some(1))
    expect(api.checkpoints.published().size).to.be.at.most(seq)
    expect((await get(`proof/${seq}`, 'carol')).status).to.equal(200)
    expect(api.checkpoints.published().size).to.be.greaterThan(seq)
  })

  it('tells a witness that it goes on from what the witness knows, and one that knows more that it does not', async () => {
    await api.store.append(some(5))
    const old = await api.checkpoints.current()
    await api.store.append(some(600))
    const now = await api.checkpoints.current()
    const text = await (await get(`consistency?from=${old.size}`)).text()
    const [head = '', note = ''] = text.split(/\n\n(.*)/s)
    const [first, ...hashes] = head.split('\n')
    expect(first).to.equal(`old ${old.size}`)
    expect(note).to.equal(now.note)
    const proof = hashes.map((hash) => Buffer.from(hash, 'base64'))
    expect(verifyConsistency(old.size, now.size, proof, old.root, now.root)).to.equal(true)
    expect(await (await get('consistency?from=0')).text()).to.equal(`old 0\n\n${now.note}`)
    const more = await get(`consistency?from=${now.size + 1}`)
    expect([more.status, (await more.json()) as object]).to.have.nested.property(
      '1.code',
      'ledger_smaller',
    )
    for (const from of ['', '-1', '1.5', '01', 'x'])
      expect((await get(`consistency?from=${from}`)).status, from).to.equal(400)
  })
})

describe('a broker that is behind another one of the same database', () => {
  it('signs what a witness knows of already', async () => {
    const api = await startApi()
    const size = (await api.store.append(some(3))) + 3
    expect(api.checkpoints.published().size).to.be.lessThan(size)
    const answer = await fetch(`${api.url}/v1/ledger/consistency?from=${size}`)
    expect(await answer.text()).to.equal(`old ${size}\n\n${api.checkpoints.published().note}`)
    await api.close()
  })

  it('does not call the ledger smaller while it cannot read it', async () => {
    const api = await startApi()
    const { size } = await api.checkpoints.current()
    await api.store.close()
    const answer = await fetch(`${api.url}/v1/ledger/consistency?from=${size + 1}`)
    expect(answer.status).to.be.at.least(500)
    await api.close()
  })
})

describe('checkpoints', () => {
  let file: string
  let remove: () => void
  let store: Store
  beforeEach(async () => {
    ;({ file, remove } = newFile())
    store = await open(file)
  })
  afterEach(async () => {
    await store.close()
    remove()
  })

  it('come by themselves where entries came, and only there', async () => {
    const identity = newIdentity()
    const deps = { store, identity, everyMs: 20, log: SILENT, now: Date.now }
    const checkpoints = await openCheckpoints(deps)
    const sizes: number[] = []
    checkpoints.subscribe(({ size }) => {
      sizes.push(size)
    })
    await store.append(some(2))
    while (sizes.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    await new Promise((resolve) => setTimeout(resolve, 100))
    expect(sizes).to.deep.equal([2])
    checkpoints.close()
    expect((await store.checkpoints(-1, 9)).map(({ size }) => size)).to.deep.equal([0, 2])
  })

  it('are one for all who ask at once', async () => {
    const checkpoints = await signed(store)
    await store.append(some(1))
    const all = await Promise.all(Array.from({ length: 20 }, () => checkpoints.current()))
    expect(new Set(all.map(({ note }) => note)).size).to.equal(1)
    expect(await store.checkpoints(0, 9)).to.have.length(1)
  })

  it('are never signed of a ledger that was put back: not while the broker runs, nor at its start', async () => {
    await store.append(some(10))
    await store.close()
    copyFileSync(file, `${file}.old`)
    store = await open(file)
    const identity = newIdentity()
    const checkpoints = await signed(store, identity)
    await store.append(some(10))
    const last = await checkpoints.current()
    await store.close()
    copyFileSync(`${file}.old`, file)
    const old = await open(file)
    await old.append(some(15))
    const swapped = { ...old, checkpoint: () => Promise.resolve(last) } as Store
    const fault = await faultOf(signed(swapped, identity))
    expect(fault).to.have.property('code', 'ledger_rolled_back')
    expect(await old.checkpoint()).to.equal(undefined)
    store = old
  })

  it('of more entries than there are keep the store from opening, as do others than those signed', async () => {
    await store.append(some(300))
    const { size, root } = await store.head()
    await store.putCheckpoint({ size, root: Buffer.alloc(32, 7), timeUs: 1, note: 'not of these' })
    await store.close()
    const fault = await faultOf(open(file))
    expect(fault).to.have.property('code', 'ledger_rolled_back')
    expect(messageOf(fault)).to.contain('the first 300 entries are not those')
    expect(root).to.have.length(32)
    rmSync(file)
    store = await open(file)
  })
})

describe('the keys of the ledger', () => {
  let dir: string
  let store: Store
  let removeStore: () => void
  beforeEach(async () => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-ledger-keys-'))
    const file = newFile()
    removeStore = file.remove
    store = await open(file.file)
  })
  afterEach(async () => {
    await store.close()
    removeStore()
    rmSync(dir, { recursive: true, force: true })
  })
  const newKey = (name: string, mode = 0o600): void => {
    const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
    writeFileSync(join(dir, name), pem, { mode })
  }
  const begin = (origin?: string) => openLedgerIdentity({ dir, origin }, store, Date.now)
  const events = async () =>
    (await store.events({ kind: 'system' }, 9)).map(({ entry }) => entry['event'])

  it('are made once, and the ledger keeps its name', async () => {
    const first = await begin()
    expect(first.origin).to.match(/^nestgate-ledger\/[0-9a-f-]{36}$/)
    expect(first.signers).to.have.length(1)
    const second = await begin()
    expect([second.origin, second.keys]).to.deep.equal([first.origin, first.keys])
    expect(await events()).to.deep.equal(['ledger_key_made'])
    expect(await faultOf(begin('another.example/ledger'))).to.have.property(
      'code',
      'ledger_key_missing',
    )
  })

  it('change with an overlap, in which both sign', async () => {
    const {
      keys: [old],
    } = await begin('ledger.example')
    newKey('second.pem')
    const both = await begin('ledger.example')
    expect(both.signers).to.have.length(2)
    const { note } = await (await signed(store, both)).current()
    expect(note.match(/^— ledger\.example /gm)).to.have.length(2)
    for (const { vkey } of both.keys)
      expect(verifyCheckpoint(note, keysOf([vkey]), 'ledger.example').problem).to.equal(undefined)
    rmSync(join(dir, 'first.pem'))
    const fresh = await begin('ledger.example')
    expect(fresh.signers).to.have.length(1)
    expect(fresh.keys[0]).to.deep.include({ vkey: old?.vkey }).and.have.property('until')
    expect(await events()).to.deep.equal([
      'ledger_key_retired',
      'ledger_key_made',
      'ledger_key_made',
    ])
  })

  it('are all gone: the broker does not begin a second history', async () => {
    await begin()
    rmSync(join(dir, 'first.pem'))
    expect(await faultOf(begin())).to.have.property('code', 'ledger_key_missing')
    newKey('other.pem')
    expect(await faultOf(begin())).to.have.property('code', 'ledger_key_missing')
    expect(await events()).to.deep.equal(['ledger_key_made'])
  })

  it('are refused where others can read them', async () => {
    newKey('first.pem', 0o644)
    expect(await faultOf(begin())).to.have.property('code', 'file_not_private')
  })
})

describe('retention', () => {
  it('removes whole ranges that are too old, whatever the clock did in between', async () => {
    const { file, remove } = newFile()
    let nowMs = Date.parse('2026-01-01T00:00:00Z')
    const store = await open(file, { now: () => nowMs })
    const fill = async (count: number): Promise<void> => {
      const entry = {
        kind: 'system',
        event: 'broker_started',
        actor: 'broker',
        detail: {},
      } as const
      for (let left = count; left > 0; left -= 256)
        await store.append(Array.from({ length: Math.min(left, 256) }, () => entry))
    }
    await fill(RANGE_ENTRIES + 10)
    nowMs += (40 * US_PER_DAY) / 1000
    await fill(RANGE_ENTRIES)
    const deps = { store, retainDays: 30, log: SILENT, now: () => nowMs }
    expect(await removeOld(deps)).to.equal(RANGE_ENTRIES)
    expect(await removeOld(deps)).to.equal(RANGE_ENTRIES)
    expect((await store.events({ event: 'ledger_pruned' }, 9)).length).to.equal(1)
    await store.close()
    remove()
  }).timeout(60_000)
})
