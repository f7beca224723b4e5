/**
 * Sessions when something breaks: the broker is killed, the spool is gone or full, the bound is reached, somebody ends the session. What must be
 * recorded does not go on unrecorded, and what was durable stays readable.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import {
  CHANNEL,
  forwardOver,
  NotSwitched,
  openChannels,
  openSpdy,
  openSpdySession,
} from '../support/remote-clients.ts'
import { bytesOf, jsonOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 90_000
const V5 = 'v5.channel.k8s.io'
const MIB = 1024 * 1024
const BOUND = 200_000
const ALL = 'stdin=true&stdout=true&stderr=true'
/** The namespace is one for all, the container says which rule. */
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list], resources: ['*']}, effect: allow}
- {id: must, match: {verbs: [connect], resources: [pods/exec]}, effect: allow, record: {mode: required, mask: false, maxBytes: ${64 * MIB}}}
- {id: bound, match: {verbs: [connect], resources: [pods/attach]}, effect: allow, record: {mode: required, mask: false, maxBytes: ${BOUND}}}
- {id: may, match: {verbs: [connect], resources: [pods/portforward]}, effect: allow, record: {mode: best_effort, tunnelBytes: 1000000, mask: false}}
`

describe('sessions when something breaks', () => {
  let world: SessionWorld

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
  })
  afterEach(() => {
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  const spool = (): string => join(world.dataDir, 'recordings')

  it('a broker that is killed leaves what was durable, and the next one says that it was cut', async () => {
    const texts: string[] = []
    world.kubelet.programs.set('count', async (io) => {
      for (let index = 0; ; index += 1) {
        if (io.session.socket.destroyed) return undefined
        await io.stdout(`line ${index}\n`)
        await sleep(10)
      }
    })
    const client = await openChannels(world.address('exec', `command=count&${ALL}`), V5)
    client.onMessage = (channel, bytes) => {
      if (channel === CHANNEL.stdout) texts.push(bytes.toString())
    }
    await sleep(4_000)
    await world.kill('SIGKILL')
    const seen = texts.join('')
    const [running] = world.sessions().slice(-1)
    expect(running?.state).to.equal('running')
    const id = running?.id ?? ''
    const durable = bytesOf(world.recording(id), TYPE.stdout).toString()
    expect(durable.length).to.be.greaterThan(1_000)
    expect(seen.startsWith(durable) || durable.startsWith(seen)).to.equal(true)
    // at most two seconds of what the client saw: a chunk's age, and what was on its way to the disk
    const lost = seen.length - durable.length
    expect(lost, 'bytes seen and not durable').to.be.lessThan((seen.length / 4) * 2)
    // a torn write at the end
    const folder = join(spool(), id)
    const last = readdirSync(folder).sort().at(-1) ?? ''
    writeFileSync(join(folder, last), Buffer.from('half a chunk'), { flag: 'a' })
    await world.start()
    const session = await world.settled(({ state }) => state === 'cut')
    expect(session.id).to.equal(id)
    const recording = world.recording(id)
    expect(bytesOf(recording, TYPE.stdout).toString()).to.equal(durable)
    expect(recording.torn).to.equal(0)
    expect(session.recording).to.include({
      ...{ chunks: recording.hashes.length, runningSha256: recording.hashes.at(-1) },
    })
    const entries = world.entries(id)
    expect(entries.at(-1)).to.include({ event: 'cut' })
    expect(entries.at(-1)?.detail).to.include({ runningSha256: recording.hashes.at(-1) })
  }).timeout(SLOW_MS)

  it('what must be recorded and cannot be is refused, and nothing is dialled', async () => {
    const aside = `${spool()}.aside`
    renameSync(spool(), aside)
    writeFileSync(spool(), 'no folder')
    const dialled = world.kubelet.sessions.length
    try {
      for (const query of ['command=true&stdout=true', `command=cat&${ALL}`]) {
        const error = await openChannels(world.address('exec', query), V5).then(
          () => undefined,
          (failed: unknown) => failed,
        )
        expect(error).to.be.instanceOf(NotSwitched)
        expect((error as NotSwitched).status).to.equal(503)
        expect((error as NotSwitched).text).to.contain('recording_unavailable')
        const spdy = await openSpdySession(world.address('exec', query), ['error']).then(
          () => undefined,
          (failed: unknown) => failed,
        )
        expect((spdy as NotSwitched).status).to.equal(503)
      }
      await sleep(200)
      expect(world.kubelet.sessions).to.have.length(dialled)
      expect(world.kubelet.sockets.size).to.equal(0)
      // best_effort goes ahead
      world.kubelet.ports.set(7, 1)
      const { peer } = await openSpdy(world.address('portforward'), 'portforward.k8s.io')
      const { error } = await forwardOver(peer, 81, '0')
      await error.ended
      expect(error.bytes.toString()).to.contain('refused')
      peer.socket.destroy()
    } finally {
      rmSync(spool(), { recursive: true, force: true })
      renameSync(aside, spool())
    }
  }).timeout(SLOW_MS)

  it('a recording that breaks ends its session, and no more than the bound has been seen', async () => {
    world.kubelet.programs.set('flood', async (io) => {
      const piece = noise(64 * 1024, 3)
      while (!io.session.socket.destroyed) await io.stdout(piece)
      return undefined
    })
    world.kubelet.keep = false
    const client = await openChannels(world.address('exec', `command=flood&${ALL}`), V5, false)
    let seen = 0
    client.onMessage = (channel, bytes) => {
      if (channel === CHANNEL.stdout) seen += bytes.length
    }
    await until('some output', () => seen > 2 * MIB || undefined)
    const { id } = world.sessions().at(-1) ?? { id: '' }
    rmSync(join(spool(), id), { recursive: true })
    await Promise.race([client.closed, sleep(10_000)])
    expect(client.closeCode, 'the session goes on').not.to.equal(undefined)
    world.kubelet.keep = true
    const session = await world.settled()
    expect(session.state).to.equal('failed')
    expect(session.ending).to.equal('recording_failed')
    const durable = session.recording?.bytes ?? 0
    expect(seen - durable, 'bytes seen beyond what is durable').to.be.lessThan(3 * MIB)
    expect(world.entries(id).at(-1)?.detail).to.include({ state: 'failed' })
  }).timeout(SLOW_MS)

  it('nothing beyond the bound of a recording reaches the client, by any protocol', async () => {
    const secret = Buffer.from('THE-LAST-WORD')
    world.kubelet.attached = async (io) => {
      // in pieces whose last one crosses the bound
      await io.stdout(noise(BOUND - 5_000, 5), 1_000)
      await io.stdout(Buffer.concat([noise(30_000, 6), secret]))
      await io.stdout(secret)
      await io.session.over
      return undefined
    }
    for (const protocol of [V5, 'v4.base64.channel.k8s.io', 'SPDY/3.1']) {
      let bytes: Buffer
      if (protocol === 'SPDY/3.1') {
        const session = await openSpdySession(world.address('attach', ALL), [
          ...['error', 'stdin', 'stdout', 'stderr'],
        ])
        await session.peer.over
        bytes = session.stream('stdout').bytes
        session.peer.socket.destroy()
      } else {
        const client = await openChannels(world.address('attach', ALL), protocol)
        await client.closed
        expect(client.status).to.include({ status: 'Failure' })
        bytes = client.bytes(CHANNEL.stdout)
      }
      const session = await world.settled()
      expect(session.ending, protocol).to.equal('recording_full')
      expect(session.totals).to.include({ truncated: true })
      const recording = world.recording(session.id)
      expect(jsonOf(recording, TYPE.marker).map(({ kind }) => kind)).to.include('truncated')
      const recorded = bytesOf(recording, TYPE.stdout)
      expect(bytes.length, `${protocol}: seen, of ${recorded.length} recorded`).to.be.at.most(
        recorded.length,
      )
      expect(recorded.subarray(0, bytes.length).equals(bytes)).to.equal(true)
      expect(bytes.includes(secret)).to.equal(false)
    }
  }).timeout(SLOW_MS)

  it('somebody ends a session, also one whose client has not opened its streams', async () => {
    for (const names of [['error', 'stdin', 'stdout', 'stderr'], ['error']]) {
      const before_ = world.kubelet.sessions.length
      const session = await openSpdySession(world.address('exec', `command=cat&${ALL}`), names)
      await until('the dialling', () => world.kubelet.sessions.length > before_ || undefined)
      await sleep(100)
      const { id } = world.sessions().at(-1) ?? { id: '' }
      const { status } = await world.api('reviewer', `/v1/sessions/${id}/kill`, {
        reason: 'enough',
      })
      expect(status).to.be.oneOf([200, 202, 204])
      await Promise.race([session.peer.over, sleep(5_000)])
      expect(session.peer.socket.destroyed || session.peer.socket.readableEnded).to.equal(true)
      const ended = await world.settled()
      expect(ended.ending).to.equal('killed')
      if (names.length === 1)
        expect([...(world.kubelet.last().peer?.streams ?? [])], 'nothing ran').to.have.length(0)
      expect(world.entries(id).map(({ event }) => event)).to.include('killed')
      session.peer.socket.destroy()
    }
  }).timeout(SLOW_MS)

  it('a broker that is asked to end ends its sessions, and closes their recordings', async () => {
    const client = await openChannels(world.address('exec', `command=cat&${ALL}`), V5)
    await client.send(CHANNEL.stdin, 'so far')
    await until('it', () => client.bytes(CHANNEL.stdout).length === 6 || undefined)
    await world.kill('SIGTERM')
    const { id } = world.sessions().at(-1) ?? { id: '' }
    expect(world.sessions().at(-1)).to.include({ state: 'ended', ending: 'broker_ended' })
    const recording = world.recording(id)
    expect(recording.isComplete).to.equal(true)
    expect(bytesOf(recording, TYPE.stdout).toString()).to.equal('so far')
    await world.start()
  }).timeout(SLOW_MS)

  it('what lies on the disk cannot be read without a key', () => {
    const { id } = world.sessions().at(-1) ?? { id: '' }
    const stored = readdirSync(world.dataDir, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.parentPath.includes(id))
      .map((entry) => readFileSync(join(entry.parentPath, entry.name)))
    expect(stored).not.to.have.length(0)
    for (const bytes of stored) expect(bytes.includes('so far')).to.equal(false)
  })
})
