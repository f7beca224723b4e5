/** What a broker finds in its spool when it starts: recordings that were cut off, and what was not archived yet. */
import { expect } from 'chai'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { openRecordings } from '../../broker/sessions/recordings/open.ts'
import type { OpenRecordings } from '../../broker/sessions/recordings/open.ts'
import { sessionsSchema } from '../../broker/sessions/recordings/settings.ts'
import type { Store } from '../../broker/store/store.ts'
import { followChain } from '../../shared/recording/chain.ts'
import { EVENT_HEADER_BYTES } from '../../shared/recording/events.ts'
import {
  ENDED,
  entriesOf,
  facts,
  output,
  pieces,
  readAll,
  sealedOf,
  TERMS,
  until,
} from '../support/recordings.ts'
import { newFile, open, SILENT } from '../support/sqlite-store.ts'

const CHILD = fileURLToPath(new URL('../support/record-until-killed.ts', import.meta.url))

describe('recordings of a broker that ended', () => {
  let dataDir: string
  let database: ReturnType<typeof newFile>
  let store: Store
  const opened: OpenRecordings[] = []
  beforeEach(() => {
    dataDir = mkdtempSync(join(tmpdir(), 'nestgate-recovery-'))
    database = newFile()
  })
  afterEach(async () => {
    for (const one of opened.splice(0)) await one.close()
    await store.close()
    database.remove()
    rmSync(dataDir, { recursive: true, force: true })
  })
  /** As a broker does when it starts. */
  const start = async (settings: object = {}, folder = dataDir): Promise<OpenRecordings> => {
    const deps = { store, dataDir: folder, log: SILENT, now: Date.now, chunkAgeMs: 5 }
    const recordings = await openRecordings(sessionsSchema.parse(settings), {
      ...deps,
      everyMs: { look: 50 },
    })
    opened.push(recordings)
    return recordings
  }
  const segment = (id: string): string => join(dataDir, 'recordings', id, '000000.seg')
  /** A session that runs, with something durable; its broker then says nothing any more. */
  const leftBehind = async (texts: readonly string[] = ['one', 'two', 'three']) => {
    store = await open(database.file)
    const recordings = await openRecordings(sessionsSchema.parse({}), {
      ...{ store, dataDir, log: SILENT, now: Date.now, chunkAgeMs: 1 },
      everyMs: { look: 1e6 },
    })
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    const events: Buffer[] = []
    for (const text of texts) {
      events.push(output(text))
      writer.write(output(text))
      await until(async () => (await recordings.size(session.id)) === writer.bytes)
    }
    await recordings.close()
    return { id: session.id, events, all: Buffer.concat(events) }
  }
  const isCut = async (recordings: OpenRecordings, id: string): Promise<void> => {
    await until(async () => (await recordings.session(id))?.state === 'cut')
  }

  it('are closed by the next one, when it was killed, with all that was durable', async () => {
    const child = spawn(process.execPath, [CHILD, dataDir, database.file], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const durable = new Map<string, number>()
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    await until(() => said.split('\n').length > 60)
    await sleep(Math.random() * 50)
    child.kill('SIGKILL')
    await once(child, 'close')
    for (const line of said.split('\n').slice(0, -1)) {
      const [id = '', bytes] = line.split(' ')
      durable.set(id, Number(bytes))
    }
    expect(durable.size).to.equal(3)
    store = await open(database.file)
    const recordings = await start()
    for (const [id, bytes] of durable) {
      await isCut(recordings, id)
      const known = await recordings.session(id)
      expect(known).to.include({ state: 'cut', ending: 'broker_ended' })
      const events = await readAll(recordings, id)
      expect(events.length).to.be.at.least(bytes)
      let at = 0
      for (let number = 0; at < events.length; number += 1) {
        const expected = output(`${id} ${number} `.repeat(400), number)
        expect(
          events.subarray(at, at + expected.length).equals(expected),
          `event ${number}`,
        ).to.equal(true)
        at += expected.length
      }
      const [cut] = (await entriesOf(store, id)).slice(-1)
      expect(cut).to.have.property('event', 'cut')
      const chain = await followChain(id, pieces(await sealedOf(recordings, id)))
      const { runningSha256, chunks } = known!.recording!
      expect(chain).to.deep.equal({
        runningSha256,
        chunks,
        bytes: events.length,
        isComplete: false,
      })
      expect(cut)
        .to.have.property('detail')
        .that.includes({ runningSha256, chunks, bytes: events.length })
      await until(() => {
        try {
          return readFileSync(join(dataDir, 'archive', id, '000000.seg')).length > 0
        } catch {
          return false
        }
      })
      expect((await readAll(recordings, id)).equals(events)).to.equal(true)
    }
  }).timeout(30_000)

  for (const [what, torn] of [
    ['half a header', Buffer.of(0, 0)],
    ['half a chunk', Buffer.of(0, 0, 0, 40, 0, 0, 0, 3, 0, 1, 2, 3)],
    ['zeros, as after a loss of power', Buffer.alloc(4096)],
    [
      'a chunk’s frame without its content',
      Buffer.concat([Buffer.of(0, 0, 0, 40, 0, 0, 0, 3, 0), Buffer.alloc(40)]),
    ],
  ] as const) {
    it(`are closed before ${what}`, async () => {
      const { id, all } = await leftBehind()
      const before = readFileSync(segment(id))
      appendFileSync(segment(id), torn)
      const recordings = await start()
      await isCut(recordings, id)
      expect(await readAll(recordings, id)).to.deep.equal(all)
      await until(async () => (await sealedOf(recordings, id)).equals(before))
      const [cut] = (await entriesOf(store, id)).slice(-1)
      expect(cut).to.have.deep.nested.property('detail.chunks', 3)
      expect(cut).to.not.have.nested.property('detail.isLess')
    })
  }

  it('are told to be less than the ledger knows, and kept as they are found', async () => {
    const { id, events } = await leftBehind()
    const record = await store.record('session', id)
    const body = record?.body as { session: { recording: object } }
    const recording = {
      ...body.session.recording,
      chunks: 3,
      bytes: 11,
      runningSha256: 'ab'.repeat(32),
    }
    await store.put(
      [{ kind: 'session', id, body: { ...body, session: { ...body.session, recording } } }],
      [],
    )
    const bytes = readFileSync(segment(id))
    // the second chunk
    const first = 9 + bytes.readUInt32BE(0)
    bytes[first + 9 + EVENT_HEADER_BYTES]! ^= 1
    writeFileSync(segment(id), bytes)
    const recordings = await start({ archive: { directory: join(dataDir, 'missing') } })
    await isCut(recordings, id)
    const [cut] = (await entriesOf(store, id)).slice(-1)
    expect(cut).to.have.property('detail').that.includes({ chunks: 1, isLess: true })
    expect(await readAll(recordings, id)).to.deep.equal(events[0])
    expect(readFileSync(segment(id)).equals(bytes)).to.equal(true)
  })

  it('are closed without their master key, too', async () => {
    const { id, all } = await leftBehind()
    const path = join(dataDir, 'recording-keys', 'first.key')
    const key = readFileSync(path)
    rmSync(path)
    const recordings = await start()
    await isCut(recordings, id)
    await opened.pop()?.close()
    writeFileSync(path, key)
    expect(await readAll(await start(), id)).to.deep.equal(all)
  })

  it('that had come to their end but for the ledger say so', async () => {
    store = await open(database.file)
    let isAway = false
    const failing = new Proxy(store, {
      get: (target, key) => {
        const value = Reflect.get(target, key) as unknown
        if (key === 'put' && isAway) return () => Promise.reject(new Error('away'))
        return typeof value === 'function' ? (value.bind(target) as unknown) : value
      },
    })
    const recordings = await openRecordings(sessionsSchema.parse({}), {
      ...{ store: failing, dataDir, log: SILENT, now: Date.now },
    })
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    writer.write(output('all'))
    isAway = true
    await writer.end(ENDED)
    await recordings.close()
    isAway = false
    const again = await start()
    await isCut(again, session.id)
    const [cut] = (await entriesOf(store, session.id)).slice(-1)
    expect(cut).to.have.nested.property('detail.isComplete', true)
    expect(await readAll(again, session.id)).to.deep.equal(output('all'))
  })

  it('are left alone by a broker with another spool, and by one whose session runs', async () => {
    const { id } = await leftBehind()
    const other = mkdtempSync(join(tmpdir(), 'nestgate-recovery-'))
    const elsewhere = await start({}, other)
    const session = facts()
    const writer = await elsewhere.begin(session, TERMS)
    await sleep(200)
    expect(await elsewhere.session(id)).to.include({ state: 'running' })
    expect(await elsewhere.session(session.id)).to.include({ state: 'running' })
    expect(await elsewhere.kill(id, { actor: 'grace', reason: 'x' })).to.equal(undefined)
    await writer.end(ENDED)
    const recordings = await start()
    await isCut(recordings, id)
    // of a session that ended meanwhile
    const late = { kind: 'session', id: `kill/${session.id}` } as const
    await store.put([{ ...late, body: { actor: 'grace', reason: 'late' } }], [])
    await until(async () => (await store.record('session', late.id)) === undefined)
    expect(await store.records('session', { prefix: 'kill/' }, 9)).to.deep.equal([])
    rmSync(other, { recursive: true })
  })

  it('that never got into the store are removed where nothing was written, and kept where something was', async () => {
    store = await open(database.file)
    const [empty, full] = [facts().id, facts().id]
    for (const id of [empty, full]) {
      mkdirSync(join(dataDir, 'recordings', id), { recursive: true })
      writeFileSync(segment(id), id === empty ? '' : 'something')
    }
    await start()
    await until(() => {
      try {
        readFileSync(segment(empty))
        return false
      } catch {
        return true
      }
    })
    expect(readFileSync(segment(full), 'utf8')).to.equal('something')
  })
})
