/** Many sessions, slow sides and floods: nothing is lost, and memory has a bound that does not grow with what is sent. */
import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import { CHANNEL, openChannels, openSpdySession } from '../support/remote-clients.ts'
import { bytesOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 120_000
const V5 = 'v5.channel.k8s.io'
const MIB = 1024 * 1024
const SESSIONS = 200
const FLOOD = 96 * MIB
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: sessions, match: {verbs: [connect], resources: [pods/exec]}, effect: allow, record: {mode: required, mask: false, maxBytes: ${1024 * MIB}}}
`

describe('many sessions and slow sides', () => {
  let world: SessionWorld

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
    world.kubelet.programs.set('flood', async (io) => {
      const piece = noise(64 * 1024, 3)
      for (let sent = 0; sent < FLOOD; sent += piece.length) await io.stdout(piece)
      return 0
    })
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
  })
  afterEach(() => {
    world.kubelet.keep = true
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  it(`${SESSIONS} at once have each their own bytes`, async () => {
    const clients = await Promise.all(['a', 'b', 'c', 'd'].map((name) => world.as(name)))
    const all = await Promise.all(
      Array.from({ length: SESSIONS }, async (_, index) => {
        const query = `command=bytes&command=${10_000 + index}&command=999&command=${index + 1}&stdout=1`
        const client = await openChannels(world.address('exec', query, clients[index % 4]), V5)
        await client.closed
        const whole = client.bytes(CHANNEL.stdout).equals(noise(10_000 + index, index + 1))
        return { whole, id: client.requestId, index, status: client.status }
      }),
    )
    expect(all.filter(({ whole }) => !whole)).to.deep.equal([])
    for (const { id, index } of all) {
      const recorded = bytesOf(world.recording(id), TYPE.stdout)
      expect(recorded.equals(noise(10_000 + index, index + 1)), id).to.equal(true)
    }
    const states = world.sessions().map(({ state }) => state)
    expect(states.filter((state) => state !== 'ended')).to.deep.equal([])
  }).timeout(SLOW_MS)

  it('a client that does not read holds up its program, not memory; and has it all in the end', async () => {
    world.kubelet.keep = false
    const before_ = world.rss()
    const client = await openChannels(world.address('exec', 'command=flood&stdout=1'), V5, false)
    const hash = createHash('sha256')
    let seen = 0
    client.onMessage = (channel, bytes) => {
      if (channel !== CHANNEL.stdout) return
      hash.update(bytes)
      seen += bytes.length
    }
    client.socket.pause()
    await sleep(3_000)
    const held = world.kubelet.last().sent.stdout.bytes
    expect(held, 'taken from the program').to.be.lessThan(32 * MIB)
    expect(world.rss() - before_).to.be.lessThan(128 * MIB)
    client.socket.resume()
    await client.closed
    expect(seen).to.equal(FLOOD)
    expect(hash.digest('hex')).to.equal(world.kubelet.last().sent.stdout.sha256)
    expect(world.rss() - before_).to.be.lessThan(192 * MIB)
    const { totals, state } = await world.settled()
    expect([totals?.['stdoutBytes'], state]).to.deep.equal([FLOOD, 'ended'])
  }).timeout(SLOW_MS)

  it('what waits for a slow client arrives whole, also when the API server is gone', async () => {
    for (const closing of ['kubelet', 'fin', 'close'] as const)
      for (const size of [300_000, 3_000_000]) {
        world.kubelet.closing = closing
        const query = `command=bytes&command=${size}&command=9999&command=7&stdout=1`
        const client = await openChannels(world.address('exec', query), V5)
        client.socket.pause()
        await sleep(700)
        client.socket.resume()
        await client.closed
        const whole = client.bytes(CHANNEL.stdout).equals(noise(size, 7))
        expect(whole, `${closing}, ${size}`).to.equal(true)
        expect(client.status).to.include({ status: 'Success' })
        const recorded = bytesOf(world.recording(client.requestId), TYPE.stdout)
        expect(recorded.equals(noise(size, 7))).to.equal(true)
      }
    world.kubelet.closing = 'kubelet'
  }).timeout(SLOW_MS)

  it('a program that does not read holds up its client, not memory', async () => {
    world.kubelet.keep = false
    let release = (): void => undefined
    world.kubelet.programs.set('deaf', async (io) => {
      const { peer } = io.session
      if (peer !== undefined) peer.gate = new Promise((resolve) => (release = resolve))
      await io.stdinEnd
      return 0
    })
    const before_ = world.rss()
    const session = await openSpdySession(world.address('exec', 'command=deaf&stdin=1&stdout=1'), [
      'error',
      'stdin',
      'stdout',
    ])
    const piece = noise(64 * 1024, 4)
    let sent = 0
    const sending = (async (): Promise<void> => {
      while (sent < 64 * MIB) {
        await session.stream('stdin').write(piece)
        sent += piece.length
      }
      await session.stream('stdin').end()
    })()
    await sleep(3_000)
    expect(sent, 'taken from the client').to.be.lessThan(32 * MIB)
    expect(world.rss() - before_).to.be.lessThan(128 * MIB)
    release()
    await sending
    await session.peer.over
    expect(world.kubelet.last().stdin.bytes).to.equal(64 * MIB)
    session.peer.socket.destroy()
  }).timeout(SLOW_MS)

  it('a thousand short ones leave nothing open', async () => {
    const before_ = world.kubelet.sockets.size
    for (let round = 0; round < 50; round += 1)
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const client = await openChannels(world.address('exec', 'command=true&stdout=1'), V5)
          await client.closed
          expect(client.status).to.include({ status: 'Success' })
        }),
      )
    await until('the ends', () => world.kubelet.sockets.size <= before_ || undefined)
    expect(world.sessions().filter(({ state }) => state !== 'ended')).to.have.length(0)
  }).timeout(SLOW_MS)
})
