/** Master keys: files and their rotation, and Vault's Transit engine. */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { openKeyFiles, vaultKeys } from '../../broker/sessions/recordings/keys.ts'
import { ENDED, facts, output, readAll, recordingWorld, TERMS } from '../support/recordings.ts'
import { startVault } from '../support/vault.ts'
import type { Vault } from '../support/vault.ts'
import { faultOf } from './store-suite.ts'

const KEY = randomBytes(32)

async function isRefused(what: Promise<unknown>): Promise<void> {
  expect(await faultOf(what)).to.have.property('code', 'recording_failed')
}

describe('master keys in files', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'nestgate-keys-'))
  })
  afterEach(() => {
    rmSync(dir, { recursive: true })
  })

  it('are made once, private, and wrap for one session each', async () => {
    const folder = join(dir, 'recording-keys')
    const keys = await openKeyFiles(folder)
    const wrapped = await keys.wrap(KEY, 'one')
    expect(wrapped).to.not.equal(await keys.wrap(KEY, 'one'))
    expect(await keys.unwrap(wrapped, 'one')).to.deep.equal(KEY)
    await isRefused(keys.unwrap(wrapped, 'two'))
    expect(readdirSync(folder)).to.deep.equal(['first.key'])
    expect([
      statSync(folder).mode & 0o777,
      statSync(join(folder, 'first.key')).mode & 0o777,
    ]).to.deep.equal([0o700, 0o600])
    const again = await openKeyFiles(folder)
    expect(await again.unwrap(wrapped, 'one')).to.deep.equal(KEY)
  })

  it('are the same for brokers that start together', async () => {
    const folder = join(dir, 'recording-keys')
    const all = await Promise.all(Array.from({ length: 8 }, () => openKeyFiles(folder)))
    const wrapped = await all[0]!.wrap(KEY, 'one')
    for (const keys of all) expect(await keys.unwrap(wrapped, 'one')).to.deep.equal(KEY)
    expect(readdirSync(folder)).to.deep.equal(['first.key'])
  })

  it('are rotated: the last wraps, all unwrap, one that is gone does not', async () => {
    const old = await (await openKeyFiles(dir)).wrap(KEY, 'one')
    writeFileSync(join(dir, 'second.key'), randomBytes(32).toString('base64'), { mode: 0o600 })
    const both = await openKeyFiles(dir)
    const fresh = await both.wrap(KEY, 'one')
    expect([old, fresh].map((text) => text.split(':')[1])).to.deep.equal(['first', 'second'])
    expect(await both.unwrap(old, 'one')).to.deep.equal(KEY)
    rmSync(join(dir, 'first.key'))
    const later = await openKeyFiles(dir)
    expect(await later.unwrap(fresh, 'one')).to.deep.equal(KEY)
    await isRefused(later.unwrap(old, 'one'))
  })

  it('are refused where they are none, or others can read them', async () => {
    const file = join(dir, 'first.key')
    for (const content of ['', 'short', randomBytes(33).toString('base64')]) {
      writeFileSync(file, content, { mode: 0o600 })
      await isRefused(openKeyFiles(dir))
    }
    writeFileSync(file, randomBytes(32).toString('base64'))
    chmodSync(file, 0o644)
    expect(await faultOf(openKeyFiles(dir))).to.have.property('code', 'file_not_private')
  })

  it('do not unwrap what was changed', async () => {
    const keys = await openKeyFiles(dir)
    const wrapped = await keys.wrap(KEY, 'one')
    const bytes = Buffer.from(wrapped.split(':')[2]!, 'base64')
    for (const at of [0, 20, bytes.length - 1]) {
      const changed = Buffer.from(bytes)
      changed[at]! ^= 1
      await isRefused(keys.unwrap(`file:first:${changed.toString('base64')}`, 'one'))
    }
    for (const text of ['', 'file', 'file:first', 'file:first:AAAA', 'transit:vault:v1:AAAA'])
      await isRefused(keys.unwrap(text, 'one'))
  })
})

describe('a master key in Vault', () => {
  let vault: Vault
  beforeEach(async () => {
    vault = await startVault(Date.now())
  })
  afterEach(() => vault.close())

  it('wraps for one session each, and is not told to anybody', async () => {
    const keys = vaultKeys(vault.settings, Date.now)
    const wrapped = await keys.wrap(KEY, 'one')
    expect(wrapped).to.match(/^transit:vault:v1:/)
    expect(await keys.unwrap(wrapped, 'one')).to.deep.equal(KEY)
    await isRefused(keys.unwrap(wrapped, 'two'))
    await isRefused(keys.unwrap('file:first:AAAA', 'one'))
    const [encrypt] = vault.calls
    expect(encrypt?.path).to.equal('/v1/transit/encrypt/issuer')
    expect(encrypt?.body['context']).to.equal(encrypt?.body['associated_data'])
    expect(Buffer.from(String(encrypt?.body['context']), 'base64').toString()).to.match(/one$/)
    keys.close()
  })

  it('is asked once to record, and once to read; without it nothing begins, and what runs goes on', async () => {
    const world = await recordingWorld({ keys: { vault: vault.settings } })
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    vault.forbidden.add('encrypt')
    const fault = await faultOf(world.recordings.begin(facts(), TERMS))
    expect(fault).to.have.property('code', 'recording_failed')
    expect(String(fault)).to.include('status 403')
    writer.write(output('hello'))
    await writer.end(ENDED)
    expect(await readAll(world.recordings, session.id)).to.deep.equal(output('hello'))
    expect(vault.calls.map(({ path }) => path.split('/')[3])).to.deep.equal([
      'encrypt',
      'encrypt',
      'decrypt',
    ])
    vault.forbidden.add('decrypt')
    await isRefused(readAll(world.recordings, session.id))
    expect(readdirSync(world.dataDir).sort()).to.deep.equal(['archive', 'recordings'])
    const body = (await world.store.record('session', session.id))?.body
    expect(JSON.stringify(body)).to.include('transit:vault:v1:')
    await world.close()
  })

  it('fails as a fault where Vault says nonsense, or nothing', async () => {
    const keys = vaultKeys(vault.settings, Date.now, 200)
    const wrapped = await keys.wrap(KEY, 'one')
    vault.fault = (response) => response.end('{"data":{"ciphertext":"x","plaintext":"AAAA"}}')
    await isRefused(keys.wrap(KEY, 'one'))
    await isRefused(keys.unwrap(wrapped, 'one'))
    vault.fault = () => undefined
    await isRefused(keys.wrap(KEY, 'one'))
    keys.close()
  })
})
