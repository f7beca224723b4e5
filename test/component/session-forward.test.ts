/**
 * Port-forward by every protocol, through a real broker process, to real local servers: bytes, ends and errors as without it, and each connection in
 * the recording with its sums. Upgrades behind `proxy` are one tunnel.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import {
  forwardOver,
  NotSwitched,
  openRawWebSocket,
  openSpdy,
  openTunnel,
  openWebSocket,
  rawFrame,
  rawUpgrade,
  restOfWebSocket,
} from '../support/remote-clients.ts'
import { jsonOf, TYPE } from '../support/remote-recording.ts'
import type { SpdyPeer } from '../support/remote-spdy.ts'
import { startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list], resources: ['*']}, effect: allow}
- {id: some, match: {verbs: [connect], resources: [pods/portforward, pods/proxy]}, effect: allow, record: {mode: required, tunnelBytes: 1000, mask: false}}
`
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const FORWARD = 'portforward.k8s.io'

describe('port-forward through the broker', () => {
  let world: SessionWorld
  let echo: Server
  let greeter: Server
  const sockets = new Set<Socket>()

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
    // echoes what it has read when it is told that there is no more
    echo = createServer({ allowHalfOpen: true }, (socket) => {
      const parts: Buffer[] = []
      socket.on('data', (bytes: Buffer) => parts.push(bytes))
      socket.once('end', () => socket.end(Buffer.concat(parts)))
      socket.on('error', () => undefined)
      sockets.add(socket)
    })
    greeter = createServer((socket) => {
      socket.on('error', () => undefined)
      socket.end('hello')
      sockets.add(socket)
    })
    for (const [server, port] of [
      [echo, 7],
      [greeter, 8],
    ] as const) {
      server.listen(0, '127.0.0.1')
      await once(server, 'listening')
      world.kubelet.ports.set(port, (server.address() as AddressInfo).port)
    }
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
    for (const socket of sockets) socket.destroy()
    for (const server of [echo, greeter]) server.close()
  })
  afterEach(() => {
    for (const socket of world.kubelet.sockets) socket.destroy()
  })

  const address = (query = '') => world.address('portforward', query)
  const ways: Readonly<Record<string, () => Promise<SpdyPeer>>> = {
    'SPDY/3.1': async () => (await openSpdy(address(), FORWARD)).peer,
    'SPDY/3.1 by GET': async () => (await openSpdy(address(), FORWARD, 'GET')).peer,
    'SPDY in WebSocket': () => openTunnel(address()),
  }

  for (const [name, open] of Object.entries(ways))
    describe(`by ${name}`, () => {
      it('have all bytes both ways, and their sums', async () => {
        const peer = await open()
        const sent = noise(1_000_000, 21)
        const { data, error } = await forwardOver(peer, 7, '0')
        await data.write(sent)
        await data.end()
        await data.ended
        await error.ended
        expect(data.bytes.equals(sent)).to.equal(true)
        expect(error.bytes).to.have.length(0)
        const second = await forwardOver(peer, 8, '1')
        await second.data.ended
        expect(second.data.bytes.toString()).to.equal('hello')
        await second.data.end()
        await sleep(100)
        peer.socket.end()
        await peer.over
        expect(peer.violations).to.deep.equal([])
        peer.socket.destroy()
        const session = await world.settled()
        expect(session).to.include({ kind: 'portforward', state: 'ended' })
        expect(session).not.to.have.property('ending')
        expect(session.totals).to.include({
          ...{ connections: 2, bytesUp: sent.length, bytesDown: sent.length + 5 },
        })
        const recording = world.recording(session.id)
        const closed = jsonOf(recording, TYPE.connectionClosed)
        expect(closed).to.have.length(2)
        expect(closed[0]).to.include({
          ...{ connection: 1, bytesUp: sent.length, bytesDown: sent.length },
          ...{ sha256Up: sha256(sent), sha256Down: sha256(sent) },
        })
        expect(closed[1]).to.include({ connection: 2, sha256Down: sha256(Buffer.from('hello')) })
        expect(jsonOf(recording, TYPE.connectionOpened).map(({ port }) => port)).to.eql([7, 8])
        for (const type of [TYPE.fromClient, TYPE.toClient]) {
          const first = recording.events
            .filter((event) => event.type === type && event.payload.readUInt32BE(0) === 1)
            .map(({ payload }) => payload.subarray(4))
          expect(Buffer.concat(first).equals(sent.subarray(0, 1000)), 'capture').to.equal(true)
        }
        const { peer: upstream } = world.kubelet.last()
        await upstream?.over
        expect(upstream?.violations).to.deep.equal([])
      })

      it('tell of a port that is closed', async () => {
        const peer = await open()
        const { data, error } = await forwardOver(peer, 81, '0')
        await Promise.all([data.ended, error.ended])
        expect(error.bytes.toString()).to.contain('connection refused')
        await data.end()
        await sleep(100)
        peer.socket.end()
        peer.socket.destroy()
        const session = await world.settled()
        const [closed] = jsonOf(world.recording(session.id), TYPE.connectionClosed)
        expect(closed?.['error']).to.contain('connection refused')
      })

      it('carry many connections at once', async () => {
        const peer = await open()
        const all = await Promise.all(
          Array.from({ length: 100 }, async (_, index) => {
            const sent = noise(5_000 + index, index + 1)
            const { data } = await forwardOver(peer, 7, String(index))
            await data.write(sent, 700)
            await data.end()
            await data.ended
            return data.bytes.equals(sent)
          }),
        )
        expect(all.every(Boolean)).to.equal(true)
        await sleep(100)
        peer.socket.end()
        peer.socket.destroy()
        const session = await world.settled()
        expect(session.totals).to.include({ connections: 100 })
        expect(jsonOf(world.recording(session.id), TYPE.connectionClosed)).to.have.length(100)
      }).timeout(SLOW_MS)

      it('refuse streams that are none', async () => {
        const rows: readonly Readonly<Record<string, string>>[] = [
          { streamtype: 'data', port: '0', requestid: '0' },
          { streamtype: 'data', port: '65536', requestid: '0' },
          { streamtype: 'data', port: '+7', requestid: '0' },
          { streamtype: 'data', port: '7 ', requestid: '0' },
          { streamtype: 'data', port: '007', requestid: '0' },
          { streamtype: 'data', requestid: '0' },
          { streamtype: 'stdin', port: '7', requestid: '0' },
          { port: '7', requestid: '0' },
        ]
        for (const headers of rows) {
          const peer = await open()
          await peer.open(headers)
          await Promise.race([peer.over, sleep(6_000)])
          const session = await world.settled()
          expect(session.ending, JSON.stringify(headers)).to.equal('protocol_invalid')
          expect(session.totals).to.include({ connections: 0 })
          peer.socket.destroy()
        }
      }).timeout(SLOW_MS)

      it('keep connections apart that say the same of themselves', async () => {
        const peer = await open()
        const first = await forwardOver(peer, 7, '0')
        const again = await forwardOver(peer, 7, '0')
        await again.data.write(Buffer.from('again'))
        await first.data.write(Buffer.from('first'))
        await first.data.end()
        await first.data.ended
        expect(first.data.bytes.toString()).to.equal('first')
        await sleep(100)
        peer.socket.destroy()
        const session = await world.settled()
        const [closed, ...others] = jsonOf(world.recording(session.id), TYPE.connectionClosed)
        expect(closed).to.include({ bytesUp: 5, sha256Up: sha256(Buffer.from('first')) })
        expect(others).to.have.length(0)
      })

      it('bound how many there are at once', async () => {
        const peer = await open()
        const before_ = world.rss()
        let resets = 0
        for (let index = 0; index < 2_000; index += 1) {
          if (peer.socket.destroyed) break
          const { data } = await forwardOver(peer, 7, `many-${index}`)
          void data.ended.then(() => {
            if (data.reset !== undefined) resets += 1
          })
        }
        await sleep(1_000)
        expect(resets).to.be.at.least(1_500)
        expect(world.rss() - before_).to.be.lessThan(128 * 1024 * 1024)
        peer.socket.destroy()
        const session = await world.settled()
        expect(session.totals?.['connections']).to.be.lessThan(500)
      }).timeout(SLOW_MS)
    })

  describe('by WebSocket channels', () => {
    for (const protocol of ['v4.channel.k8s.io', 'v4.base64.channel.k8s.io'] as const)
      it(`${protocol}: ports, bytes and sums`, async () => {
        const received = new Map<number, Buffer[]>()
        const isBase64 = protocol !== 'v4.channel.k8s.io'
        const socket = await openWebSocket(address('ports=8&ports=7'), [protocol], {
          onSocket: (made) => {
            made.on('message', (message: Buffer) => {
              const channel = isBase64 ? message[0]! - 0x30 : message[0]!
              const bytes = isBase64
                ? Buffer.from(message.subarray(1).toString(), 'base64')
                : Buffer.from(message.subarray(1))
              received.set(channel, [...(received.get(channel) ?? []), bytes])
            })
          },
        })
        const of = (channel: number): Buffer => Buffer.concat(received.get(channel) ?? [])
        await until('the greeting', () => of(0).length === 7 || undefined)
        expect(of(0).toString('latin1')).to.equal('\x08\x00hello')
        expect(of(1).toString('latin1')).to.equal('\x08\x00')
        expect(of(3).toString('latin1')).to.equal('\x07\x00')
        socket.send(
          isBase64 ? `2${Buffer.from('up').toString('base64')}` : Buffer.from('\x02up', 'latin1'),
        )
        await sleep(200)
        socket.close()
        const session = await world.settled()
        expect(session.totals).to.include({ connections: 2, bytesUp: 2, bytesDown: 5 })
        const closed = jsonOf(world.recording(session.id), TYPE.connectionClosed)
        expect(closed.map(({ port }) => port)).to.have.members([7, 8])
      })

    it('refuse ports that are none, before anything is dialled', async () => {
      const count = world.kubelet.sessions.length
      for (const query of [
        '',
        'ports=',
        'ports=0',
        'ports=65536',
        'ports=x',
        'ports=-1',
        'ports=7,',
        'ports=7&ports=08',
        `ports=${Array.from({ length: 65 }, (_, index) => index + 1).join(',')}`,
      ]) {
        const opened = await openWebSocket(address(query), ['v4.channel.k8s.io']).then(
          () => undefined,
          (error: unknown) => error,
        )
        expect(opened, query).to.be.instanceOf(NotSwitched)
        expect((opened as NotSwitched).status).to.equal(400)
      }
      expect(world.kubelet.sessions).to.have.length(count)
    })

    it('end with what is sent on a channel of nobody', async () => {
      for (const message of [Buffer.of(1, 0x78), Buffer.of(2, 0x78), Buffer.of(255), Buffer.of()]) {
        const socket = await openRawWebSocket(address('ports=7'), 'v4.channel.k8s.io')
        socket.write(rawFrame({ payload: message }))
        await restOfWebSocket(socket)
        expect((await world.settled()).ending).to.equal('protocol_invalid')
      }
    }).timeout(SLOW_MS)
  })

  it('an upgrade behind proxy is one tunnel, whole both ways', async () => {
    const { status, socket, headers } = await rawUpgrade(world.address('proxy/socket'), 'GET', [
      ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ])
    expect([status, headers.upgrade]).to.deep.equal([101, 'websocket'])
    const sent = noise(500_000, 5)
    socket.write(sent)
    const parts: Buffer[] = []
    socket.on('data', (bytes: Buffer) => parts.push(bytes))
    await until(
      'the echo',
      () => parts.reduce((sum, { length }) => sum + length, 0) === sent.length || undefined,
    )
    expect(Buffer.concat(parts).equals(sent)).to.equal(true)
    socket.end()
    const session = await world.settled()
    expect(session.kind).to.equal('proxy')
    const [closed] = jsonOf(world.recording(session.id), TYPE.connectionClosed)
    expect(closed).to.include({
      ...{ bytesUp: sent.length, bytesDown: sent.length },
      ...{ sha256Up: sha256(sent), sha256Down: sha256(sent) },
    })
    socket.destroy()
  })
})
