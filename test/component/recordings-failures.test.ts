/** Recordings that cannot be written, and recordings that were changed. */
import { expect } from 'chai'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, it } from 'mocha'
import type { OpenSegment } from '../../broker/sessions/recordings/spool.ts'
import type { RecordingsDeps } from '../../broker/sessions/recordings/open.ts'
import { Fault } from '../../shared/errors.ts'
import { CHUNK_HEADER_BYTES, ChunkReader, followChain } from '../../shared/recording/chain.ts'
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
import { faultOf } from './store-suite.ts'

const MIB = 1024 * 1024

function errno(code: string): Error {
  return Object.assign(new Error(`${code}: as a disk says it`), { code })
}

/** Files that take so many bytes in all, as a disk that becomes full. */
function smallDisk(bytes: number): OpenSegment {
  let left = bytes
  return async (path) => {
    const handle = await open(path, 'wx', 0o600)
    return {
      async writev(parts, position) {
        if (left === 0) throw errno('ENOSPC')
        const whole = Buffer.concat(parts)
        const taken = Math.min(left, whole.length)
        left -= taken
        return handle.write(whole, 0, taken, position)
      },
      datasync: () => handle.datasync(),
      stat: () => handle.stat(),
      close: () => handle.close(),
    }
  }
}

describe('a recording that cannot be written', () => {
  let world: RecordingWorld
  afterEach(() => world.close())
  const start = async (change: Partial<RecordingsDeps> = {}, settings: object = {}) => {
    world = await recordingWorld(settings, { chunkAgeMs: 20, ...change })
    return world.recordings
  }
  /** Waits until it has failed. */
  const failureOf = async (signal: AbortSignal): Promise<Fault> => {
    await until(() => signal.aborted)
    expect(signal.reason).to.be.instanceOf(Fault)
    return signal.reason as Fault
  }

  it('has failed when the disk is full, is readable up to its last whole chunk, and says so', async () => {
    const recordings = await start({ openSegment: smallDisk(MIB) })
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    const events: Buffer[] = []
    while (!writer.failed.aborted) {
      const event = output(randomBytes(60_000))
      events.push(event)
      writer.write(event)
      await (writer.room() ?? new Promise((resolve) => setImmediate(resolve)))
    }
    expect(await failureOf(writer.failed)).to.have.property('code', 'recording_failed')
    const { bytes } = writer
    writer.write(output('too late'))
    expect(writer.bytes).to.equal(bytes)
    expect(writer.room()).to.equal(undefined)
    await writer.end({ ...ENDED, ending: 'recording_failed' })
    const known = await recordings.session(session.id)
    expect(known).to.include({ state: 'failed', ending: 'recording_failed' })
    const durable = await readAll(recordings, session.id)
    expect(durable.length)
      .to.be.greaterThan(MIB / 4)
      .and.lessThan(MIB)
    expect(durable.equals(Buffer.concat(events).subarray(0, durable.length))).to.equal(true)
    const sealed = await sealedOf(recordings, session.id)
    expect(await followChain(session.id, pieces(sealed))).to.deep.equal({
      isComplete: false,
      ...(({ chunks, runningSha256 }) => ({ chunks, bytes: durable.length, runningSha256 }))(
        known!.recording!,
      ),
    })
    expect((await entriesOf(world.store, session.id)).at(-1)).to.deep.include({ event: 'ended' })
    expect((await entriesOf(world.store, session.id)).at(-1)).to.have.nested.property(
      ...(['detail.state', 'failed'] as const),
    )
  })

  it('has failed on a disk that is full, a real one where it may be mounted, and leaves what it had', async () => {
    const disk = mkdtempSync(join(tmpdir(), 'nestgate-disk-'))
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk])
    try {
      const recordings = await start(
        status === 0 ? { dataDir: join(disk, 'data') } : { openSegment: smallDisk(2 * MIB) },
      )
      const session = facts()
      const writer = await recordings.begin(session, TERMS)
      while (!writer.failed.aborted) {
        writer.write(output(randomBytes(60_000)))
        await (writer.room() ?? new Promise((resolve) => setImmediate(resolve)))
      }
      expect((await failureOf(writer.failed)).cause).to.have.property('code', 'ENOSPC')
      await writer.end(ENDED)
      const durable = await readAll(recordings, session.id)
      expect(durable.length)
        .to.be.greaterThan(MIB)
        .and.lessThan(3 * MIB)
      await until(async () => (await recordings.session(session.id))?.state === 'failed')
      await recordings.close()
    } finally {
      if (status === 0) spawnSync('umount', ['-l', disk])
      rmSync(disk, { recursive: true, force: true })
    }
  })

  it('lets those wait no more who wait for room', async () => {
    const recordings = await start({ openSegment: smallDisk(0) })
    const writer = await recordings.begin(facts(), TERMS)
    while (writer.room() === undefined) writer.write(output(randomBytes(60_000)))
    await writer.room()
    expect(writer.failed.aborted).to.equal(true)
    await writer.end(ENDED)
  })

  it('has failed when a write fails', async () => {
    const broken: OpenSegment = async (path) => {
      const handle = await open(path, 'wx')
      return {
        writev: (parts, position) => handle.writev([...parts], position),
        datasync: () => Promise.reject(errno('EIO')),
        stat: () => handle.stat(),
        close: () => handle.close(),
      }
    }
    const recordings = await start({ openSegment: broken })
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    writer.write(output('hello'))
    const fault = await failureOf(writer.failed)
    expect(fault.cause).to.have.property('code', 'EIO')
    expect(fault.message).to.not.include('hello')
    await writer.end(ENDED)
    // what was written may be there: nobody knows
    expect((await recordings.session(session.id))?.recording).to.include({ chunks: 0, bytes: 0 })
  })

  it('has failed when its folder is removed', async () => {
    const recordings = await start()
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    writer.write(output('hello'))
    await until(async () => (await recordings.size(session.id)) !== 0)
    rmSync(join(world.dataDir, 'recordings', session.id), { recursive: true })
    writer.write(output('more'))
    await failureOf(writer.failed)
    await writer.end(ENDED)
    await until(async () => (await recordings.session(session.id))?.state === 'failed')
    expect(await faultOf(readAll(recordings, session.id))).to.have.property(
      ...(['code', 'recording_corrupt'] as const),
    )
  })

  it('has failed when the store fails, and its end is written down when that is back', async () => {
    let isAway = false
    world = await recordingWorld()
    const away = new Proxy(world.store, {
      get: (target, key) => {
        if (isAway && ['put', 'record'].includes(String(key)))
          return () => Promise.reject(new Fault('store_failed', 'away'))
        const value = Reflect.get(target, key) as unknown
        return typeof value === 'function' ? (value.bind(target) as unknown) : value
      },
    })
    const change: Partial<RecordingsDeps> = { store: away, chunkAgeMs: 5, progressMs: 20 }
    const recordings = await world.again({}, change)
    const session = facts()
    const writer = await recordings.begin(session, TERMS)
    isAway = true
    writer.write(output('hello'))
    await failureOf(writer.failed)
    expect(await faultOf(recordings.begin(facts(), TERMS))).to.have.property(
      ...(['code', 'recording_failed'] as const),
    )
    await writer.end(ENDED)
    isAway = false
    await until(async () => (await recordings.session(session.id))?.state === 'failed')
    expect(await readAll(recordings, session.id)).to.deep.equal(output('hello'))
  })

  it('does not begin where the spool, or its disk, is full, or the key is not there', async () => {
    let free = 1000 * MIB
    let clock = 0
    const recordings = await start(
      { freeBytes: () => Promise.resolve(free), now: () => (clock += 2000) },
      {
        spool: { maxBytes: 64 * MIB, minFreeBytes: 500 * MIB },
        archive: { directory: '/nowhere' },
      },
    )
    const refused = async () => {
      expect(await faultOf(recordings.begin(facts(), TERMS))).to.have.property(
        ...(['code', 'recording_failed'] as const),
      )
    }
    free = 499 * MIB
    await refused()
    free = 500 * MIB
    const writer = await recordings.begin(facts(), TERMS)
    for (let round = 0; round < 70; round += 1) {
      writer.write(output(randomBytes(60_000)))
      await writer.room()
    }
    // a running one goes on down to the half
    free = 250 * MIB
    while (writer.bytes < 66 * MIB) {
      writer.write(output(randomBytes(60_000)))
      await writer.room()
    }
    expect(writer.failed.aborted).to.equal(false)
    free = 1000 * MIB
    await refused()
    free = 249 * MIB
    while (!writer.failed.aborted) {
      writer.write(output(randomBytes(60_000)))
      await (writer.room() ?? new Promise((resolve) => setImmediate(resolve)))
    }
    expect(writer.bytes).to.be.lessThan(90 * MIB)
    await writer.end(ENDED)
  }).timeout(20_000)

  it('disturbs no other', async () => {
    const stuck = Promise.withResolvers<undefined>()
    let first = true
    const slowFirst: OpenSegment = async (path) => {
      const handle = await open(path, 'wx')
      const isSlow = first
      first = false
      return {
        writev: (parts, position) => handle.writev([...parts], position),
        datasync: async () => {
          if (isSlow) await stuck.promise
          await handle.datasync()
        },
        stat: () => handle.stat(),
        close: () => handle.close(),
      }
    }
    const recordings = await start({ openSegment: slowFirst })
    const slow = await recordings.begin(facts(), TERMS)
    while (slow.room() === undefined) slow.write(output(randomBytes(60_000)))
    const session = facts()
    const quick = await recordings.begin(session, TERMS)
    for (let round = 0; round < 100; round += 1) {
      quick.write(output(randomBytes(60_000)))
      await quick.room()
    }
    await quick.end(ENDED)
    expect(await recordings.session(session.id)).to.include({ state: 'ended' })
    stuck.resolve(undefined)
    await slow.end(ENDED)
  })
})

describe('a recording that was changed', () => {
  let world: RecordingWorld
  afterEach(() => world.close())

  /** One of three segments in the archive, or in the spool where the archive is away. */
  const recorded = async () => {
    world = await recordingWorld()
    const session = facts()
    const writer = await world.recordings.begin(session, TERMS)
    const events: Buffer[] = []
    for (let at = 0; at < 17 * MIB; at += 60_000) {
      const event = output(randomBytes(60_000))
      events.push(event)
      writer.write(event)
      await writer.room()
    }
    await writer.end(ENDED)
    await until(() => world.spooled(session.id).length === 0)
    const pathOf = (number: number): string =>
      join(world.dataDir, 'archive', session.id, `00000${number}.seg`)
    const change = (number: number, how: (bytes: Buffer) => Buffer): void => {
      writeFileSync(pathOf(number), how(readFileSync(pathOf(number))))
    }
    return { id: session.id, events: Buffer.concat(events), pathOf, change }
  }
  const corrupt = async (id: string): Promise<void> => {
    const { recordings, store } = world
    expect(await faultOf(readAll(recordings, id))).to.have.property('code', 'recording_corrupt')
    // whoever has no key finds it too: the chain breaks, or is not what the ledger has
    const [ended] = (await entriesOf(store, id)).slice(-1)
    const { runningSha256, chunks } = ended?.['detail'] as { runningSha256: string; chunks: number }
    const sealed = await sealedOf(recordings, id).catch(() => Buffer.alloc(0))
    const chain = await followChain(id, pieces(sealed))
    const isWhole =
      !('problem' in chain) &&
      chain.isComplete &&
      chain.runningSha256 === runningSha256 &&
      chain.chunks === chunks
    expect(isWhole).to.equal(false)
  }
  const chunksOf = (bytes: Buffer, first: number): Buffer[] =>
    [...new ChunkReader(first).take(bytes)].map(({ header, body }) => Buffer.concat([header, body]))
  const firstIndex = (bytes: Buffer): number => bytes.readUInt32BE(4)

  it('reads as it is where nothing was changed', async () => {
    const { id, events } = await recorded()
    expect((await readAll(world.recordings, id)).equals(events)).to.equal(true)
  })

  for (const [what, number, how] of [
    ['one bit of content', 1, (bytes: Buffer) => flip(bytes, MIB)],
    ['one bit of a tag', 0, (bytes: Buffer) => flip(bytes, bytes.length - 1)],
    ['the flag of the last chunk', 2, (bytes: Buffer) => unlast(bytes)],
    ['its end', 2, (bytes: Buffer) => bytes.subarray(0, -100)],
    ['an end of whole chunks', 2, (bytes: Buffer) => whole(bytes, -1)],
    ['a chunk in the middle', 1, (bytes: Buffer) => without(bytes, 5)],
    ['the order of two chunks', 1, (bytes: Buffer) => swapped(bytes)],
    ['bytes behind its end', 2, (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc(9)])],
  ] as const) {
    it(`is found: ${what}`, async () => {
      const { id, change } = await recorded()
      change(number, how)
      await corrupt(id)
    })
  }

  it('is found: an end that is missing in the store, too', async () => {
    const { id, change } = await recorded()
    let left = { chunks: 0, bytes: 0 }
    change(2, (bytes) => {
      const kept = whole(bytes, -1)
      const chunks = [...new ChunkReader(firstIndex(kept)).take(kept)]
      const sum = chunks.reduce((all, { eventBytes }) => all + eventBytes, 0)
      left = { chunks: chunks.length, bytes: sum }
      return kept
    })
    interface Body {
      readonly session: { readonly recording: { readonly bytes: number } }
      readonly kept: { readonly segments: readonly { readonly bytes: number }[] }
    }
    const { session, kept } = (await world.store.record('session', id))?.body as Body
    const segments = kept.segments.with(2, left)
    const bytes = segments.reduce((all, segment) => all + segment.bytes, 0)
    const recording = { ...session.recording, bytes }
    const body = { session: { ...session, recording }, kept: { ...kept, segments } }
    await world.store.put([{ kind: 'session', id, body }], [])
    await corrupt(id)
  })

  it('is found: a segment that is missing, or another’s', async () => {
    const { id, pathOf } = await recorded()
    const second = readFileSync(pathOf(1))
    rmSync(pathOf(1))
    await corrupt(id)
    writeFileSync(pathOf(1), readFileSync(pathOf(0)))
    await corrupt(id)
    writeFileSync(pathOf(1), second)
    await readAll(world.recordings, id)
  })

  it('is found: one put in another’s place', async () => {
    const one = facts()
    const other = facts()
    world = await recordingWorld()
    for (const session of [one, other]) {
      const writer = await world.recordings.begin(session, TERMS)
      writer.write(output('the same'))
      await writer.end(ENDED)
      await until(() => world.spooled(session.id).length === 0)
    }
    const pathOf = (id: string): string => join(world.dataDir, 'archive', id, '000000.seg')
    writeFileSync(pathOf(one.id), readFileSync(pathOf(other.id)))
    await corrupt(one.id)
    await readAll(world.recordings, other.id)
  })

  it('is not read by another master key', async () => {
    const { id } = await recorded()
    const file = join(world.dataDir, 'recording-keys', 'first.key')
    const key = readFileSync(file, 'utf8')
    writeFileSync(file, randomBytes(32).toString('base64'))
    const again = await world.again()
    expect(await faultOf(readAll(again, id))).to.have.property('code', 'recording_failed')
    writeFileSync(file, key)
    await readAll(await world.again(), id)
  })

  function flip(bytes: Buffer, at: number): Buffer {
    bytes[at]! ^= 1
    return bytes
  }
  function unlast(bytes: Buffer): Buffer {
    const last = chunksOf(bytes, firstIndex(bytes)).at(-1)!
    return flip(bytes, bytes.length - last.length + CHUNK_HEADER_BYTES - 1)
  }
  function whole(bytes: Buffer, end: number): Buffer {
    return Buffer.concat(chunksOf(bytes, firstIndex(bytes)).slice(0, end))
  }
  function without(bytes: Buffer, index: number): Buffer {
    return Buffer.concat(chunksOf(bytes, firstIndex(bytes)).toSpliced(index, 1))
  }
  function swapped(bytes: Buffer): Buffer {
    const [a, b, c, ...rest] = chunksOf(bytes, firstIndex(bytes))
    return Buffer.concat([a!, c!, b!, ...rest])
  }
})
