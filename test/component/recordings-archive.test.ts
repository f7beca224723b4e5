/** Where recordings are kept for good: a bucket, a folder on another disk; and how they go when their time is over. */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { bucketArchive, folderArchive } from '../../broker/sessions/recordings/archive.ts'
import { createDocuments } from '../../broker/sessions/recordings/documents.ts'
import type { OpenRecordings, RecordingsDeps } from '../../broker/sessions/recordings/open.ts'
import { Retention } from '../../broker/sessions/recordings/retention.ts'
import { bucketSchema } from '../../broker/sessions/recordings/settings.ts'
import { startBucket } from '../support/bucket.ts'
import type { TestBucket } from '../support/bucket.ts'
import {
  ENDED,
  entriesOf,
  facts,
  output,
  readAll,
  recordingWorld,
  sealedOf,
  TERMS,
  until,
} from '../support/recordings.ts'
import type { RecordingWorld } from '../support/recordings.ts'
import { SILENT } from '../support/sqlite-store.ts'
import { faultOf } from './store-suite.ts'

const MIB = 1024 * 1024
const DAY_MS = 86_400_000
/** A file system of its own on Linux, so that nothing can be linked to it. */
const OTHER_DISK = '/dev/shm'

/** A session of so much output. */
async function record(
  recordings: OpenRecordings,
  bytes: number,
  terms = TERMS,
): Promise<{ id: string; events: Buffer }> {
  const session = facts()
  const writer = await recordings.begin(session, terms)
  const events: Buffer[] = []
  for (let at = 0; at < bytes; at += 60_000) {
    const event = output(randomBytes(60_000))
    events.push(event)
    writer.write(event)
    await writer.room()
  }
  await writer.end(ENDED)
  return { id: session.id, events: Buffer.concat(events) }
}

describe('an archive in a bucket', () => {
  let world: RecordingWorld
  let bucket: TestBucket
  beforeEach(async () => {
    bucket = await startBucket()
  })
  afterEach(async () => {
    await world.close()
    bucket.close()
  })
  const start = async (change: Partial<RecordingsDeps> = {}) => {
    world = await recordingWorld(
      { archive: { s3: bucket.settings } },
      { archiveWaitMs: 10, archiveMs: 300, ...change },
    )
    return world.recordings
  }

  it('takes the segments, signed, under the prefix, and gives them back', async () => {
    const recordings = await start()
    const { id, events } = await record(recordings, 9 * MIB)
    await until(() => world.spooled(id).length === 0)
    expect([...bucket.objects.keys()].sort()).to.deep.equal([
      `/evidence/sessions/${id}/000000.seg`,
      `/evidence/sessions/${id}/000001.seg`,
    ])
    expect(Math.max(...[...bucket.objects.values()].map(({ length }) => length))).to.be.at.most(
      8 * MIB,
    )
    expect((await readAll(recordings, id)).equals(events)).to.equal(true)
    const objects = [...bucket.objects]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, bytes]) => bytes)
    expect((await sealedOf(recordings, id)).equals(Buffer.concat(objects))).to.equal(true)
    // a broker with another spool reads them, too
    const other = mkdtempSync(join(tmpdir(), 'nestgate-recordings-'))
    const keys = { dir: join(world.dataDir, 'recording-keys') }
    const elsewhere = await world.again(
      { archive: { s3: bucket.settings }, keys },
      { dataDir: other },
    )
    await until(async () => (await elsewhere.size(id)) === events.length)
    expect((await readAll(elsewhere, id)).equals(events)).to.equal(true)
    rmSync(other, { recursive: true })
  })

  for (const [what, fault] of [
    ['says 500', (response: ServerResponse) => response.writeHead(500).end('InternalError')],
    ['does not answer', () => undefined],
    ['cuts the connection', (response: ServerResponse) => response.destroy()],
    ['answers without end', (response: ServerResponse) => response.writeHead(200).write('x')],
  ] as const) {
    it(`that ${what} leaves recordings in the spool, readable, until it is back`, async () => {
      const recordings = await start()
      bucket.fault = fault
      const { id, events } = await record(recordings, 9 * MIB)
      await sleep(400)
      expect(world.spooled(id)).to.deep.equal(['000000.seg', '000001.seg'])
      expect((await readAll(recordings, id)).equals(events)).to.equal(true)
      bucket.fault = undefined
      await until(() => world.spooled(id).length === 0)
      expect(bucket.objects.size).to.equal(2)
      expect((await readAll(recordings, id)).equals(events)).to.equal(true)
    })
  }

  it('that fails while it is read is not taken for one that has nothing', async () => {
    const recordings = await start()
    const { id } = await record(recordings, 1)
    await until(() => world.spooled(id).length === 0)
    bucket.fault = (response) => response.writeHead(503).end()
    expect(await faultOf(readAll(recordings, id))).to.have.property('code', 'recording_failed')
    bucket.fault = undefined
    bucket.objects.clear()
    expect(await faultOf(readAll(recordings, id))).to.have.property('code', 'recording_corrupt')
  })

  it('keeps what it has: the same again is good, something else is not', async () => {
    await start()
    const archive = bucketArchive(bucketSchema.parse(bucket.settings))
    const path = join(world.dataDir, 'segment')
    writeFileSync(path, 'one')
    await archive.put('a/0', path)
    await archive.put('a/0', path)
    writeFileSync(path, 'two')
    expect(await faultOf(archive.put('a/0', path))).to.have.property('code', 'recording_corrupt')
    expect(String(await archive.get('a/0'))).to.equal('one')
    expect(await archive.get('a/1')).to.equal(undefined)
    expect(bucket.answers.filter((answer) => answer.startsWith('PUT'))).to.deep.equal([
      'PUT 200',
      'PUT 412',
      'PUT 412',
    ])
    await archive.remove('a/0')
    await archive.remove('a/0')
    expect(bucket.objects.size).to.equal(0)
    await archive.close()
  })

  it('is not waited for by whoever records', async () => {
    const recordings = await start()
    bucket.fault = () => undefined
    for (let round = 0; round < 5; round += 1) {
      const { id, events } = await record(recordings, 100_000)
      expect((await readAll(recordings, id)).equals(events)).to.equal(true)
    }
  })
})

describe('an archive in a folder', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'nestgate-archive-'))
  })
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true })
  })

  for (const [what, root] of [
    ['the same disk', () => mkdtempSync(join(tmpdir(), 'nestgate-archive-'))],
    ['another disk', () => mkdtempSync(join(OTHER_DISK, 'nestgate-archive-'))],
  ] as const) {
    it(`on ${what} keeps what it has, and gives it back`, async () => {
      const target = root()
      const archive = folderArchive(target, false)
      const path = join(folder, 'segment')
      writeFileSync(path, 'one')
      await archive.put('a/0', path)
      await archive.put('a/0', path)
      rmSync(path)
      writeFileSync(path, 'two')
      expect(await faultOf(archive.put('a/0', path))).to.have.property('code', 'recording_corrupt')
      expect(String(await archive.get('a/0'))).to.equal('one')
      expect(await archive.get('a/1')).to.equal(undefined)
      expect(readdirSync(join(target, 'a'))).to.deep.equal(['0'])
      await archive.put('a/1', path)
      await archive.remove('a/0')
      await archive.remove('a/0')
      await archive.remove('a/1')
      expect(readdirSync(target)).to.deep.equal([])
      rmSync(target, { recursive: true })
    })
  }

  it('that is configured must be there, as a disk that is mounted is', async () => {
    const missing = join(folder, 'archive')
    const world = await recordingWorld({ archive: { directory: missing } }, { archiveWaitMs: 10 })
    const { id } = await record(world.recordings, 1)
    await sleep(100)
    expect(world.spooled(id)).to.have.length(1)
    mkdirSync(missing)
    await until(() => world.spooled(id).length === 0)
    expect(readdirSync(missing)).to.deep.equal([id])
    await world.close()
  })
})

describe('recordings whose time is over', () => {
  let world: RecordingWorld
  let nowMs: number
  beforeEach(async () => {
    nowMs = Date.now()
    world = await recordingWorld({ retainDays: 30 }, { now: () => nowMs, everyMs: { retain: 20 } })
  })
  afterEach(() => world.close())
  const stateOf = async (id: string) => (await world.recordings.session(id))?.state
  const archived = (id: string): boolean => {
    try {
      return readdirSync(join(world.dataDir, 'archive', id)).length > 0
    } catch {
      return false
    }
  }

  it('go, with their key; what is known of them and the ledger’s hash stay', async () => {
    const { recordings, store } = world
    const old = await record(recordings, 9 * MIB)
    const longer = await record(recordings, 1, { ...TERMS, retainDays: 60 })
    await until(() => archived(old.id) && archived(longer.id) && world.spooled(old.id).length === 0)
    nowMs += 29 * DAY_MS
    await sleep(100)
    expect(await stateOf(old.id)).to.equal('ended')
    nowMs += 2 * DAY_MS
    await until(async () => (await stateOf(old.id)) === 'expired')
    expect([archived(old.id), archived(longer.id)]).to.deep.equal([false, true])
    expect(await recordings.events(old.id)).to.have.property('refused', 'session_expired')
    expect(await recordings.sealed(old.id)).to.have.property('refused', 'session_expired')
    const last = (await entriesOf(store, old.id)).slice(-2)
    expect(last.map(({ event }) => event)).to.deep.equal(['ended', 'expired'])
    const [before, after] = last.map(
      ({ detail }) => (detail as { runningSha256: string }).runningSha256,
    )
    expect(before)
      .to.match(/^[0-9a-f]{64}$/)
      .and.equal(after)
    expect(await recordings.session(old.id)).to.include({ subject: 'ada' })
    const record_ = await store.record('session', old.id)
    expect(JSON.stringify(record_?.body)).to.not.include('file:first')
    expect((await readAll(recordings, longer.id)).equals(longer.events)).to.equal(true)
    nowMs += 30 * DAY_MS
    await until(async () => (await stateOf(longer.id)) === 'expired')
  })

  it('stay while they run, and where nothing says for how long', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, { ...TERMS, retainDays: 1 })
    writer.write(output('hello'))
    nowMs += 1000 * DAY_MS
    await sleep(100)
    expect(await stateOf(session.id)).to.equal('running')
    await writer.end(ENDED)
    const forEver = await world.again({})
    const { id } = await record(forEver, 1)
    nowMs += 10_000 * DAY_MS
    await until(async () => (await stateOf(session.id)) === 'expired')
    expect(await stateOf(id)).to.equal('ended')
  })

  it('go once, where several brokers look at the same time', async () => {
    const { id } = await record(world.recordings, 1)
    await until(() => archived(id) && world.spooled(id).length === 0)
    await world.recordings.close()
    nowMs += 31 * DAY_MS
    const archive = folderArchive(join(world.dataDir, 'archive'), true)
    const documents = createDocuments(world.store, SILENT)
    const deps = { documents, archive, log: SILENT, now: () => nowMs }
    await until(async () => (await world.store.record('session', id)) !== undefined)
    await Promise.all([1, 2, 3].map(() => new Retention(deps).look()))
    const events = (await entriesOf(world.store, id)).map(({ event }) => event)
    expect(events).to.deep.equal(['started', 'ended', 'expired'])
  })

  it('go again where the archive failed half-way', async () => {
    const { id } = await record(world.recordings, 1)
    await until(() => archived(id) && world.spooled(id).length === 0)
    await world.recordings.close()
    nowMs += 31 * DAY_MS
    let fails = true
    const removed: string[] = []
    const retention = new Retention({
      ...{ documents: createDocuments(world.store, SILENT), log: SILENT, now: () => nowMs },
      archive: {
        remove: (name) => {
          if (fails) return Promise.reject(new Error('away'))
          removed.push(name)
          return Promise.resolve()
        },
      },
    })
    expect(await retention.look()).to.equal(0)
    expect(await stateOf(id)).to.equal('ended')
    fails = false
    expect(await retention.look()).to.equal(1)
    expect(removed).to.deep.equal([`${id}/000000.seg`])
    expect(await retention.look()).to.equal(0)
    expect(readFileSync(join(world.dataDir, 'archive', id, '000000.seg')).length).to.be.greaterThan(
      0,
    )
  })
})
