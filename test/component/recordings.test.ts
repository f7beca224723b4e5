/** Recordings: written, sealed, kept in ledger and store, read, followed, ended by somebody. */
import { expect } from 'chai'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, it } from 'mocha'
import type { RecordingWriter } from '../../broker/sessions/recordings/types.ts'
import { MAX_PENDING_BYTES } from '../../broker/sessions/recordings/writer.ts'
import { followChain } from '../../shared/recording/chain.ts'
import {
  ENDED,
  entriesOf,
  facts,
  output,
  pieces,
  readAll,
  recordingWorld,
  sealedOf,
  TERMS,
  until,
} from '../support/recordings.ts'
import type { RecordingWorld } from '../support/recordings.ts'

const MIB = 1024 * 1024

describe('recordings', () => {
  let world: RecordingWorld
  beforeEach(async () => {
    world = await recordingWorld({}, { chunkAgeMs: 50, everyMs: { poll: 20 } })
  })
  afterEach(() => world.close())

  /** Writes so much output, of blocks of this size; returns all events. */
  const fill = async (writer: RecordingWriter, bytes: number, block = 60_000): Promise<Buffer> => {
    const events: Buffer[] = []
    for (let at = 0; at < bytes; at += block) {
      const event = output(randomBytes(block), at)
      events.push(event)
      writer.write(event)
      await writer.room()
    }
    return Buffer.concat(events)
  }

  it('stand in the ledger before anything is written, and with their running hash at the end', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    expect(await entriesOf(world.store, session.id)).to.have.nested.property('[0].event', 'started')
    writer.write(output('hello'))
    writer.write(output('x'.repeat(60_000)))
    await writer.end(ENDED)
    const sealed = await sealedOf(world.recordings, session.id)
    const [, ended] = await entriesOf(world.store, session.id)
    const chain = await followChain(session.id, pieces(sealed))
    if ('problem' in chain) throw new Error(chain.problem)
    expect(chain).to.include({ chunks: 1, bytes: writer.bytes, isComplete: true })
    expect(ended).to.have.property('event', 'ended')
    expect(ended)
      .to.have.property('detail')
      .that.includes({
        ...{ state: 'ended', exitCode: 0, runningSha256: chain.runningSha256, chunks: 1 },
      })
    expect(sealed.includes('hello')).to.equal(false)
    const known = await world.recordings.session(session.id)
    expect(known).to.deep.include({ ...session, state: 'ended', ...ENDED })
    expect(known?.recording).to.include({ runningSha256: chain.runningSha256, mode: 'required' })
  })

  it('come back byte by byte, from any offset, out of the spool and out of the archive', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const events = await fill(writer, 20 * MIB)
    await writer.end(ENDED)
    await until(() => world.spooled(session.id).length === 0)
    const { recordings } = world
    expect(await recordings.size(session.id)).to.equal(events.length)
    expect((await readAll(recordings, session.id)).equals(events)).to.equal(true)
    for (const [from, to] of [
      ...[
        [0, 1],
        [1, events.length - 1],
        [events.length - 1, events.length],
      ],
      ...[
        [9 * MIB, 9 * MIB + 5],
        [8 * MIB - 70_000, 8 * MIB + 70_000],
        [events.length, undefined],
      ],
    ] as [number, number | undefined][]) {
      const range = { from, ...(to === undefined ? {} : { to }) }
      const part = await readAll(recordings, session.id, range)
      expect(part.equals(events.subarray(from, to)), `${from} to ${to}`).to.equal(true)
    }
    const chain = await followChain(session.id, pieces(await sealedOf(recordings, session.id)))
    expect(chain).to.include({ isComplete: true, bytes: events.length })
    const known = (await recordings.session(session.id))?.recording
    expect(chain).to.have.property('runningSha256', known?.runningSha256)
  })

  it('are durable a moment after they were written, without anything more', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const event = output('prompt$ ')
    writer.write(event)
    expect(await world.recordings.size(session.id)).to.equal(0)
    await until(async () => (await world.recordings.size(session.id)) === event.length)
    expect(await readAll(world.recordings, session.id)).to.deep.equal(event)
    await writer.end(ENDED)
  })

  it('tell the ledger now and then how far they are, where something came', async () => {
    await world.close()
    world = await recordingWorld({}, { chunkAgeMs: 5, progressMs: 30 })
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    writer.write(output('one'))
    const events = async () => (await entriesOf(world.store, session.id)).map(({ event }) => event)
    await until(async () => (await events()).length === 2)
    await sleep(100)
    expect(await events()).to.deep.equal(['started', 'progress'])
    writer.write(output('two'))
    await until(async () => (await events()).length === 3)
    const [, , progress] = await entriesOf(world.store, session.id)
    expect(progress).to.have.property('detail').that.includes({ chunks: 2, bytes: writer.bytes })
    expect(progress).to.have.nested.property(
      'detail.runningSha256',
      (await world.recordings.session(session.id))?.recording?.runningSha256,
    )
    await writer.end(ENDED)
  })

  it('are followed without a gap, wherever one begins', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const followed: { from: number; parts: Buffer[]; isOver: boolean }[] = []
    const all: Buffer[] = []
    for (let round = 0; round < 20; round += 1) {
      all.push(await fill(writer, 300_000, 30_000 + round))
      const one = { from: round * 200_000, parts: [] as Buffer[], isOver: false }
      followed.push(one)
      const take = (events: Buffer): void => {
        one.parts.push(Buffer.from(events))
      }
      const stop = await world.recordings.follow(session.id, one.from, take, () => {
        one.isOver = true
      })
      if (typeof stop !== 'function') throw new Error(stop.refused)
    }
    await writer.end(ENDED)
    await until(() => followed.every(({ isOver }) => isOver))
    const events = Buffer.concat(all)
    for (const { from, parts } of followed)
      expect(Buffer.concat(parts).equals(events.subarray(from)), `from ${from}`).to.equal(true)
    const late = await world.recordings.follow(session.id, 0, () => undefined)
    expect(late).to.have.property('refused', 'session_over')
  })

  it('stop being followed when asked to', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const parts: Buffer[] = []
    const stop = await world.recordings.follow(session.id, 0, (events) => parts.push(events))
    writer.write(output('seen'))
    await until(() => parts.length > 0)
    if (typeof stop === 'function') stop()
    writer.write(output('not seen'))
    await writer.end(ENDED)
    expect(parts).to.have.length(1)
  })

  it('hold up the session while too much is not durable', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    let written = 0
    while (writer.room() === undefined) {
      writer.write(output(randomBytes(50_000)))
      written += 50_000
      expect(written).to.be.lessThan(2 * MAX_PENDING_BYTES)
    }
    expect(written).to.be.at.least(MAX_PENDING_BYTES - 50_000)
    await writer.room()
    expect(writer.room()).to.equal(undefined)
    await writer.end(ENDED)
    expect(await world.recordings.size(session.id)).to.equal(writer.bytes)
  })

  it('run side by side, two hundred at once, each its own, in little memory', async () => {
    const before = process.memoryUsage().rss
    let most = 0
    const sessions = await Promise.all(
      Array.from({ length: 200 }, async (_, number) => {
        const session = facts()
        const writer = await world.recordings.begin(session, TERMS)
        const block = Buffer.alloc(20_000, String(number))
        for (let round = 0; round < 30; round += 1) {
          writer.write(output(block, round))
          await writer.room()
          most = Math.max(most, process.memoryUsage().rss)
          await sleep(1)
        }
        await writer.end(ENDED)
        return { session, block }
      }),
    )
    expect((most - before) / MIB, 'MiB').to.be.lessThan(400)
    for (const { session, block } of sessions.filter((_, index) => index % 20 === 0)) {
      const expected = Array.from({ length: 30 }, (_, round) => output(block, round))
      const events = await readAll(world.recordings, session.id)
      expect(events.equals(Buffer.concat(expected))).to.equal(true)
    }
  }).timeout(60_000)

  it('are ended by somebody, with the name in the ledger', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const by = { actor: 'grace', reason: 'not on a Friday' }
    expect(await world.recordings.kill(session.id, by)).to.equal(undefined)
    expect(writer.killed.aborted).to.equal(true)
    expect(writer.killed.reason).to.deep.equal(by)
    expect((await entriesOf(world.store, session.id)).at(-1)).to.deep.include({
      ...{ event: 'killed', actor: 'grace', detail: { reason: 'not on a Friday' } },
    })
    await writer.end({ ...ENDED, ending: 'killed' })
    expect(await world.recordings.kill(session.id, by)).to.have.property('refused', 'session_over')
    expect(await world.recordings.kill(facts().id, by)).to.have.property(
      'refused',
      'session_unknown',
    )
    expect(await world.store.records('session', { prefix: 'kill/' }, 9)).to.deep.equal([])
  })

  it('are ended at another broker, which alone can read them until they are archived', async () => {
    const other = mkdtempSync(join(tmpdir(), 'nestgate-recordings-'))
    const elsewhere = await world.again({}, { dataDir: other })
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    writer.write(output('hello'))
    for (const answer of [
      await elsewhere.events(session.id),
      await elsewhere.sealed(session.id),
      await elsewhere.size(session.id),
      await elsewhere.follow(session.id, 0, () => undefined),
    ])
      expect(answer).to.have.property('refused', 'session_elsewhere')
    const by = { actor: 'grace', reason: 'no' }
    expect(await elsewhere.kill(session.id, by)).to.equal(undefined)
    expect(writer.killed.aborted).to.equal(false)
    await until(() => writer.killed.aborted)
    expect(writer.killed.reason).to.deep.equal(by)
    await writer.end({ ...ENDED, ending: 'killed' })
    const killed = (await entriesOf(world.store, session.id)).filter(
      ({ event }) => event === 'killed',
    )
    expect(killed).to.have.length(1)
    expect(await elsewhere.session(session.id)).to.include({ state: 'ended', ending: 'killed' })
    rmSync(other, { recursive: true })
  })

  it('are kept without streams, too', async () => {
    const session = facts({ kind: 'debug' })
    await world.recordings.note(session)
    expect(await world.recordings.session(session.id)).to.include({ state: 'ended', kind: 'debug' })
    expect(await world.recordings.events(session.id)).to.have.property(
      'refused',
      'session_unrecorded',
    )
    expect(await world.recordings.events(facts().id)).to.have.property('refused', 'session_unknown')
    expect(await entriesOf(world.store, session.id)).to.have.length(1)
  })

  it('are listed the newest first, page by page, as far as they match', async () => {
    const made = []
    for (let number = 0; number < 30; number += 1) {
      const kind = number % 3 === 0 ? ('attach' as const) : ('exec' as const)
      const startedAt = new Date(1_700_000_000_000 + number * 1000).toISOString()
      const id = `018bcfe5-68${String(number).padStart(2, '0')}-7000-8000-000000000000`
      const session = facts({ id, kind, startedAt, name: `pod-${number}`, agent: 'crawler' })
      await world.recordings.note(session)
      made.unshift(session)
    }
    const { recordings } = world
    const first = await recordings.list({ kind: 'exec' }, 7)
    const second = await recordings.list({ kind: 'exec' }, 100, first.next)
    const ids = [...first.sessions, ...second.sessions].map(({ id }) => id)
    expect(ids).to.deep.equal(made.filter(({ kind }) => kind === 'exec').map(({ id }) => id))
    expect([first.sessions.length, second.next]).to.deep.equal([7, undefined])
    const named = async (filter: Parameters<typeof recordings.list>[0]) =>
      (await recordings.list(filter, 100)).sessions.map(({ name }) => name)
    const [from, to] = [1_700_000_005_000, 1_700_000_008_000]
    expect(await named({ sinceMs: from, untilMs: to })).to.deep.equal(['pod-7', 'pod-6', 'pod-5'])
    expect(await named({ prefix: '018bcfe5-682' })).to.have.length(10)
    expect(await named({ name: 'pod-4', agent: 'crawler', cluster: 'dev' })).to.deep.equal([
      'pod-4',
    ])
    expect(await named({ subject: 'nobody' })).to.deep.equal([])
    expect(await named({ state: 'running' })).to.deep.equal([])
  })

  it('leave out a document that nobody can read', async () => {
    const session = facts()
    await world.recordings.note(session)
    const { id } = facts()
    await world.store.put([{ kind: 'session', id, body: { version: 9 } }], [])
    expect(await world.recordings.session(id)).to.equal(undefined)
    const { sessions } = await world.recordings.list({}, 10)
    expect(sessions.map((one) => one.id)).to.deep.equal([session.id])
  })

  it('have a key that stands nowhere but wrapped', async () => {
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    writer.write(output('hello'))
    await writer.end(ENDED)
    const record = await world.store.record('session', session.id)
    const { kept } = record?.body as { kept: { key: string } }
    expect(kept.key).to.match(/^file:first:[A-Za-z0-9+/]+=*$/)
    const master = readFileSync(join(world.dataDir, 'recording-keys', 'first.key'), 'utf8').trim()
    expect(Buffer.from(master, 'base64')).to.have.length(32)
    expect(kept.key).to.not.include(master.slice(0, 20))
    expect(JSON.stringify(await world.recordings.session(session.id))).to.not.include('file:')
  })
})
