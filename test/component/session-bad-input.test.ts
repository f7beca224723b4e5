/**
 * What no client and no API server should send, sent: the session ends, or goes on where it may, the broker lives, and what ran before is in the
 * recording. Frames are made by hand; the fake kubelet and the SPDY peer share no code with the broker.
 */
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { setTimeout as sleep } from 'node:timers/promises'
import { once } from 'node:events'
import { connect } from 'node:tls'
import { deflateSync } from 'node:zlib'
import type { Duplex } from 'node:stream'
import { noise } from '../support/fake-kubelet.ts'
import {
  CHANNEL,
  NotSwitched,
  openChannels,
  openRawWebSocket,
  openSpdy,
  openSpdySession,
  rawFrame,
  rawUpgrade,
  readFrame,
  rest,
  restOfWebSocket,
} from '../support/remote-clients.ts'
import type { RawFrame } from '../support/remote-clients.ts'
import { bytesOf, jsonOf, TYPE } from '../support/remote-recording.ts'
import {
  SpdyStream,
  controlFrame,
  dataFrame,
  DICTIONARY,
  FRAME,
  headerBlock,
  synStreamHead,
  words,
} from '../support/remote-spdy.ts'
import type { SpdyPeer } from '../support/remote-spdy.ts'
import { startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000
const CAT = 'command=cat&stdin=true&stdout=true&stderr=true'
const V4 = 'v4.channel.k8s.io'
const V5 = 'v5.channel.k8s.io'
const MIB = 1024 * 1024

const message = (channel: number, text: string): Buffer =>
  Buffer.concat([Buffer.of(channel), Buffer.from(text)])

/** Channel messages among raw bytes of a server, until they end. */
function channelOf(bytes: Buffer, channel: number): string {
  let text = ''
  for (let at = 0; ;) {
    const frame = readFrame(bytes.subarray(at))
    if (frame === undefined) return text
    at += frame.length
    if (frame.opcode === 2 && frame.payload[0] === channel)
      text += frame.payload.toString('utf8', 1)
  }
}

/** Code of a server's close frame among raw bytes. */
function closeCode(bytes: Buffer): number | undefined {
  for (let at = 0; ;) {
    const frame = readFrame(bytes.subarray(at))
    if (frame === undefined) return undefined
    at += frame.length
    if (frame.opcode === 8) return frame.payload.length < 2 ? 0 : frame.payload.readUInt16BE(0)
  }
}

/** A stream that was opened by hand. @param out - where what comes on stdout (5) goes */
function streamFor(peer: SpdyPeer, id: number, out: Buffer[]): SpdyStream {
  const stream = new SpdyStream(peer, id, {})
  stream.onData = (bytes) => {
    if (id === 5) out.push(Buffer.from(bytes))
  }
  return stream
}

describe('bad input in sessions', () => {
  let world: SessionWorld

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld()
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
  })
  beforeEach(() => {
    world.kubelet.closing = 'kubelet'
    world.kubelet.answer = undefined
  })
  afterEach(async () => {
    for (const { socket } of world.kubelet.sessions.splice(0)) socket.destroy()
    // whatever was sent, the broker serves the next one
    const client = await openChannels(world.address('exec', 'command=echo&command=ok&stdout=1'), V4)
    await client.closed
    expect(client.bytes(CHANNEL.stdout).toString()).to.equal('ok\n')
    expect(world.said(), 'what the broker says').not.to.match(/"level":(?:60|"fatal")/)
    world.kubelet.sessions.length = 0
  })

  describe('of a client over WebSocket', () => {
    const rows: Readonly<Record<string, readonly RawFrame[]>> = {
      'an unknown channel': [{ payload: message(9, 'x') }],
      'a channel of output': [{ payload: message(CHANNEL.stdout, 'x') }],
      'the status channel': [{ payload: message(CHANNEL.error, '{}') }],
      'a message without a channel': [{ payload: '' }],
      'a resize without a terminal': [
        { payload: message(CHANNEL.resize, '{"Width":1,"Height":1}') },
      ],
      'the end of a channel that has none': [{ payload: Buffer.of(255, 1) }],
      'the end of nothing': [{ payload: Buffer.of(255) }],
      'input behind its end': [
        { payload: Buffer.of(255, 0) },
        { payload: message(CHANNEL.stdin, 'late') },
      ],
      'a reserved bit': [{ reserved: 0x40, payload: message(0, 'x') }],
      'a reserved opcode': [{ opcode: 3, payload: message(0, 'x') }],
      'a reserved control opcode': [{ opcode: 11, payload: '' }],
      'a continuation of nothing': [{ opcode: 0, payload: message(0, 'x') }],
      'a message within a message': [
        { fin: false, payload: message(0, 'x') },
        { opcode: 2, payload: message(0, 'y') },
      ],
      'an unmasked frame': [{ masked: false, payload: message(0, 'x') }],
      'a fragmented ping': [{ fin: false, opcode: 9, payload: 'x' }],
      'a long ping': [{ opcode: 9, payload: 'x'.repeat(126) }],
      'a frame that would be too long': [{ length: 2n ** 40n, lengthForm: 64, payload: 'x' }],
      'a frame of a negative length': [{ length: 2n ** 63n, lengthForm: 64, payload: 'x' }],
      'bad UTF-8 in a text frame': [{ opcode: 1, payload: Buffer.of(0x30, 0xff, 0xfe) }],
      'a close of one byte': [{ opcode: 8, payload: 'x' }],
      'a close with a code of nobody': [{ opcode: 8, payload: Buffer.of(0x03, 0xed) }],
    }
    for (const [what, frames] of Object.entries(rows))
      it(`${what} ends the session`, async () => {
        const socket = await openRawWebSocket(world.address('exec', CAT), V5)
        socket.write(Buffer.concat([{ payload: message(0, 'before') }, ...frames].map(rawFrame)))
        const bytes = await restOfWebSocket(socket)
        expect(closeCode(bytes), 'close code').to.be.oneOf([1002, 1007, 1009, 1003])
        const session = await world.settled()
        expect(session.ending).to.equal('protocol_invalid')
        const { stdin, peer } = world.kubelet.last()
        await peer?.over
        expect(stdin.all.toString()).to.be.oneOf(['before', ''])
        expect(session.totals?.['stdinBytes']).to.be.at.least(stdin.bytes)
        expect(world.recording(session.id).isComplete).to.equal(true)
      })

    it('split at every byte is what it was in one piece', async () => {
      const sent = [
        rawFrame({ payload: message(0, 'first ') }),
        rawFrame({ fin: false, payload: message(0, 'sec') }),
        rawFrame({ opcode: 9, payload: 'ping' }),
        rawFrame({ opcode: 0, payload: 'ond ' }),
        rawFrame({ payload: message(0, `${'x'.repeat(130)} `), lengthForm: 16 }),
        rawFrame({ payload: message(0, 'last'), lengthForm: 64 }),
        rawFrame({ payload: Buffer.of(255, 0) }),
      ]
      const all = Buffer.concat(sent)
      const expected = `first second ${'x'.repeat(130)} last`
      for (let at = 1; at < all.length; at += 3) {
        const socket = await openRawWebSocket(world.address('exec', CAT), V5)
        socket.setNoDelay(true)
        socket.write(all.subarray(0, at))
        await sleep(1)
        socket.write(all.subarray(at))
        const bytes = await restOfWebSocket(socket)
        expect(channelOf(bytes, CHANNEL.stdout), `split at ${at}`).to.equal(expected)
        expect(closeCode(bytes)).to.equal(1000)
      }
      const byByte = await openRawWebSocket(world.address('exec', CAT), V5)
      for (const byte of all) byByte.write(Buffer.of(byte))
      expect(channelOf(await restOfWebSocket(byByte), CHANNEL.stdout)).to.equal(expected)
      const atOnce = await openRawWebSocket(world.address('exec', CAT), V5, all)
      expect(channelOf(await restOfWebSocket(atOnce), CHANNEL.stdout), 'behind the head').to.equal(
        expected,
      )
    }).timeout(SLOW_MS)

    it('text is taken where Kubernetes takes it: Python sends what is typed as text', async () => {
      const socket = await openRawWebSocket(world.address('exec', CAT), V4)
      socket.write(rawFrame({ opcode: 1, payload: message(0, 'echo käse\n') }))
      await until('the text', () => world.kubelet.last().stdin.all.includes('\n') || undefined)
      expect(world.kubelet.last().stdin.all.toString()).to.equal('echo käse\n')
      socket.destroy()
    })

    it('binary is not taken where base64 is due, nor what is none', async () => {
      for (const frame of [
        { opcode: 2, payload: '0YWJj' },
        { opcode: 1, payload: '0YW=' },
        { opcode: 1, payload: '0Y W J' },
        { opcode: 1, payload: '9YWJj' },
        { opcode: 1, payload: 'xYWJj' },
      ]) {
        const socket = await openRawWebSocket(
          world.address('exec', CAT),
          'v4.base64.channel.k8s.io',
        )
        socket.write(rawFrame(frame))
        expect(closeCode(await restOfWebSocket(socket)), frame.payload).to.equal(1002)
        expect((await world.settled()).ending).to.equal('protocol_invalid')
      }
    })

    it('sizes that are none end the session', async () => {
      for (const size of [
        '{"Width":-1,"Height":1}',
        '{"Width":65536,"Height":1}',
        '{"Width":1.5,"Height":1}',
        '{"Width":"80","Height":24}',
        '{"Width":80}',
        '[80,24]',
        '{"Width":80,"Height":24',
        `{"Width":80,"Height":24,"x":"${'x'.repeat(1000)}"}`,
        '',
      ]) {
        const socket = await openRawWebSocket(world.address('exec', `${CAT}&tty=true`), V5)
        socket.write(rawFrame({ payload: message(CHANNEL.resize, size) }))
        expect(closeCode(await restOfWebSocket(socket)), size).to.equal(1002)
        const { peer, resizes } = world.kubelet.last()
        await peer?.over
        expect(resizes).to.deep.equal([])
      }
    })

    it('compression is not agreed on', async () => {
      const { headers, socket } = await rawUpgrade(world.address('exec', CAT), 'GET', [
        ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        `Sec-WebSocket-Protocol: ${V5}`,
        'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits',
      ])
      expect(headers).not.to.have.property('sec-websocket-extensions')
      expect(headers['sec-websocket-accept']).to.equal('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
      socket.destroy()
    })
  })

  describe('of a client over SPDY', () => {
    const address = () => world.address('exec', CAT)
    const NAMES = ['error', 'stdin', 'stdout', 'stderr']
    type Session = Awaited<ReturnType<typeof openSpdySession>>
    const bomb = (size: number): Buffer =>
      deflateSync(
        Buffer.concat([
          words(1),
          words(10),
          Buffer.from('streamtype'),
          words(size),
          Buffer.alloc(size),
        ]),
        { dictionary: DICTIONARY, level: 9 },
      )

    const refused = async (
      what: string,
      send: (session: Session) => Promise<void> | void,
      names = NAMES,
    ): Promise<void> => {
      world.kubelet.programs.set('stay', async (io) => {
        io.onStdin((bytes) => void io.stdout(bytes))
        await io.session.over
        return undefined
      })
      const query = 'command=stay&stdin=true&stdout=true&stderr=true'
      const session = await openSpdySession(world.address('exec', query), names)
      const { peer } = session
      if (names.length === NAMES.length) {
        await session.stream('stdin').write(Buffer.from('before'))
        await until('it', () => session.stream('stdout').receivedBytes >= 6 || undefined)
      }
      await send(session)
      await Promise.race([peer.over, sleep(5_000)])
      expect(peer.socket.destroyed || peer.socket.readableEnded, `${what}: still open`).to.equal(
        true,
      )
      expect((await world.settled()).ending, what).to.equal('protocol_invalid')
      peer.socket.destroy()
    }

    it('what is no frame ends the session', async () => {
      await refused('text', ({ peer }) => peer.send(Buffer.from('GET / HTTP/1.1\r\n\r\n')))
      await refused('version 2', ({ peer }) => peer.send(controlFrame(6, 0, words(1), 2)))
      await refused('a short ping', ({ peer }) => peer.send(controlFrame(6, 0, Buffer.of(1))))
      await refused('a long GOAWAY', ({ peer }) => peer.send(controlFrame(7, 0, words(1, 2, 3))))
      await refused('a short RST', ({ peer }) => peer.send(controlFrame(3, 0, words(1))))
      await refused('a long frame', ({ peer }) =>
        peer.send(
          Buffer.concat([Buffer.of(0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff), Buffer.alloc(17 * MIB)]),
        ),
      )
    }).timeout(SLOW_MS)

    it('streams that are none end the session', async () => {
      await refused('data on stream 0', ({ peer }) => peer.send(dataFrame(0, Buffer.from('x'))))
      await refused('a second stdin', async ({ peer }) => {
        await peer.open({ streamtype: 'stdin' })
      })
      await refused('resize without a terminal', async ({ peer }) => {
        await peer.open({ streamtype: 'resize' })
      })
      await refused('a type of nobody', async ({ peer }) => {
        await peer.open({ streamtype: 'evil' })
      })
      await refused('no type', async ({ peer }) => {
        await peer.open({ other: 'x' })
      })
      await refused('an even id', async ({ peer }) => {
        await peer.openAs(100, [['streamtype', 'stdin']])
      })
      await refused('an id again', async ({ peer }) => {
        await peer.openAs(1, [['streamtype', 'stdin']])
      })
      await refused('input on an output', (session) =>
        session.peer.send(dataFrame(session.stream('stdout').id, Buffer.from('x'))),
      )
      await refused('input behind its end', async (session) => {
        const stdin = session.stream('stdin')
        await stdin.end()
        await session.peer.send(dataFrame(stdin.id, Buffer.from('x')))
      })
    }).timeout(SLOW_MS)

    it('what is for nobody reaches nobody, and ends nothing', async () => {
      const session = await openSpdySession(address(), NAMES)
      const { peer } = session
      await peer.send(controlFrame(77, 0, words(1)))
      await peer.send(dataFrame(99, Buffer.from('for nobody')))
      await peer.send(controlFrame(FRAME.rstStream, 0, words(99, 5)))
      await session.stream('stdin').write(Buffer.from('heard'))
      await session.stream('stdin').end()
      await peer.over
      expect(session.stream('stdout').bytes.toString()).to.equal('heard')
      const { stdin, peer: upstream } = world.kubelet.last()
      expect(stdin.all.toString()).to.equal('heard')
      expect(upstream?.seen.some((frame) => frame.includes('99'))).to.equal(false)
      peer.socket.destroy()
    })

    it('headers that are none end the session', async () => {
      const open = (pairs: readonly (readonly [string, string])[]) =>
        refused(
          JSON.stringify(pairs).slice(0, 60),
          async ({ peer }) => {
            await peer.openAs(101, pairs)
          },
          ['error'],
        )
      await open([['streamType', 'stdin']])
      await open([
        ['streamtype', 'stdin'],
        ['streamtype', 'stdout'],
      ])
      await open([['', 'x']])
      await open(Array.from({ length: 1000 }, (_, index) => [`h${index}`, 'x'] as const))
      await open([['streamtype', 'x'.repeat(100_000)]])
      const raw = (what: string, block: Buffer) =>
        refused(
          what,
          ({ peer }) => peer.sendHeaders(FRAME.synStream, 0, synStreamHead(101), block),
          ['error'],
        )
      await raw(
        'bytes behind',
        Buffer.concat([headerBlock([['streamtype', 'stdin']]), Buffer.of(0)]),
      )
      await raw('cut', headerBlock([['streamtype', 'stdin']]).subarray(0, -1))
      await raw('a count of 2³²', Buffer.concat([words(0xffff_ffff), Buffer.alloc(100)]))
    }).timeout(SLOW_MS)

    it('a bomb in the headers costs nothing', async () => {
      const compressed = bomb(64 * MIB)
      expect(compressed.length).to.be.lessThan(100_000)
      const before_ = world.rss()
      for (let round = 0; round < 5; round += 1) {
        const { peer } = await openSpdy(address(), V4)
        const body = Buffer.concat([synStreamHead(1), compressed])
        await peer.send(controlFrame(FRAME.synStream, 0, body))
        await Promise.race([peer.over, sleep(5_000)])
        expect(peer.socket.destroyed || peer.socket.readableEnded).to.equal(true)
        expect((await world.settled()).ending).to.equal('protocol_invalid')
        peer.socket.destroy()
      }
      expect(world.rss() - before_).to.be.lessThan(64 * MIB)
    }).timeout(SLOW_MS)

    it('split at every byte is what it was in one piece', async () => {
      const part = (type: string, id: number, at: number): Buffer => {
        // one context, so all blocks in one go: stored blocks of deflate
        const block = headerBlock([['streamtype', type]])
        const head = Buffer.alloc(5)
        head.writeUInt16LE(block.length, 1)
        head.writeUInt16LE(0xffff - block.length, 3)
        const zlibHead = Buffer.from('7820e3c6a7c2', 'hex')
        const parts = [head, block, Buffer.from('000000ffff', 'hex')]
        const compressed = Buffer.concat(at === 0 ? [zlibHead, ...parts] : parts)
        return controlFrame(FRAME.synStream, 0, Buffer.concat([synStreamHead(id), compressed]))
      }
      const all = Buffer.concat([
        ...NAMES.map((name, at) => part(name, 2 * at + 1, at)),
        dataFrame(3, Buffer.from('one ')),
        controlFrame(FRAME.ping, 0, words(1)),
        dataFrame(3, Buffer.from('two')),
        dataFrame(3, Buffer.alloc(0), 1),
      ])
      for (let at = 1; at < all.length; at += 4) {
        const { peer } = await openSpdy(address(), V4)
        const out: Buffer[] = []
        for (const id of [1, 3, 5, 7]) peer.streams.set(id, streamFor(peer, id, out))
        await peer.send(all.subarray(0, at))
        await sleep(1)
        await peer.send(all.subarray(at))
        await peer.over
        expect(Buffer.concat(out).toString(), `split at ${at}`).to.equal('one two')
        expect(peer.pongs, `split at ${at}`).to.equal(1)
        peer.socket.destroy()
      }
    }).timeout(SLOW_MS)

    it('a client that opens nothing, or not all, does not start anything', async () => {
      for (const names of [[], ['error'], ['error', 'stdin', 'stdout']]) {
        const session = await openSpdySession(address(), names)
        await sleep(200)
        expect([...(world.kubelet.last().peer?.streams ?? [])], names.join()).to.have.length(0)
        session.peer.socket.destroy()
        expect((await world.settled()).ending).to.equal('client_left')
      }
    })
  })

  describe('of an API server', () => {
    const run = async (program: string): Promise<{ out: string; status: object | undefined }> => {
      const client = await openChannels(
        world.address('exec', `command=${program}&stdout=true&stderr=true`),
        V5,
      )
      await client.closed
      return { out: client.bytes(CHANNEL.stdout).toString(), status: client.status }
    }

    for (const [program, before_] of [
      ['torn', 'before the end'],
      ['garbage', 'before the garbage'],
    ] as const)
      it(`${program}: is told to the client, and what came before is recorded`, async () => {
        const { out, status } = await run(program)
        expect(out.startsWith(before_), out).to.equal(true)
        expect(status).to.include({ status: 'Failure' })
        const session = await world.settled()
        expect(session.ending).to.equal('stream_broken')
        const recording = world.recording(session.id)
        expect(bytesOf(recording, TYPE.stdout).toString()).to.equal(out)
        expect(recording.isComplete).to.equal(true)
      })

    it('streams of its own are refused, and end nothing', async () => {
      world.kubelet.programs.set('opener', async (io) => {
        await io.session.peer?.openAs(2, [['streamtype', 'stdout']])
        await io.session.peer?.send(dataFrame(2, Buffer.from('unheard')))
        await io.stdout('heard')
        return 0
      })
      const { out } = await run('opener')
      expect(out).to.equal('heard')
      expect(bytesOf(world.recording((await world.settled()).id), TYPE.stdout).toString()).to.equal(
        'heard',
      )
    })

    it('data behind the end of a stream, or on one of nobody, reaches nobody', async () => {
      for (const [name, id] of [
        ['after-fin', undefined],
        ['nobody', 98],
      ] as const) {
        world.kubelet.programs.set(name, async (io) => {
          await io.stdout('heard')
          await io.stream('stdout')?.end()
          const { peer } = io.session
          await peer?.send(dataFrame(id ?? io.stream('stdout')?.id ?? 0, Buffer.from('unheard')))
          return 0
        })
        const { out } = await run(name)
        expect(out, name).to.equal('heard')
        const session = await world.settled()
        expect(bytesOf(world.recording(session.id), TYPE.stdout).toString()).to.equal('heard')
      }
    })

    it('a status that is none is a failure', async () => {
      for (const text of [
        '{',
        '[]',
        'plain text',
        '{"status":"Success"',
        '{"status":7}',
        '\u0000',
      ]) {
        world.kubelet.programs.set('odd', async (io) => {
          await io.stream('error')?.write(Buffer.from(text))
          for (const name of ['error', 'stdout', 'stderr']) await io.stream(name)?.end()
          return undefined
        })
        const client = await openChannels(
          world.address('exec', 'command=odd&stdout=true&stderr=true'),
          V5,
        )
        await client.closed
        expect((await world.settled()).result?.status, text).to.equal('Failure')
      }
    })

    it('a status of a megabyte is cut', async () => {
      world.kubelet.programs.set('wordy', () => ({
        ...{ metadata: {}, status: 'Failure', reason: 'InternalError' },
        message: 'x'.repeat(MIB),
      }))
      const client = await openChannels(world.address('exec', 'command=wordy&stdout=true'), V5)
      await client.closed
      const session = await world.settled()
      expect(session.result?.status).to.equal('Failure')
      expect(JSON.stringify(session).length).to.be.lessThan(20_000)
    })

    const answers: Readonly<Record<string, readonly [string, number]>> = {
      'a switch to another protocol': [
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n',
        502,
      ],
      'a switch to other streams': [
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v2.channel.k8s.io\r\n\r\n',
        502,
      ],
      'a switch that says nothing of streams': [
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n',
        502,
      ],
      'a switch to WebSocket that speaks of our streams': [
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n',
        502,
      ],
      'a redirect': [
        'HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n',
        502,
      ],
      'a plain 200': [
        'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello',
        200,
      ],
      'a 200 of no kind': ['HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello', 502],
      'a 403': ['HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno', 403],
      'a huge header': [`HTTP/1.1 101 Switching\r\nX-A: ${'a'.repeat(MIB)}\r\n\r\n`, 502],
      'no HTTP': ['hello there\r\n\r\n', 502],
      'nothing but an end': ['', 502],
    }
    for (const [what, [text, status]] of Object.entries(answers))
      it(`${what}: nothing runs, and the client is told`, async () => {
        world.kubelet.answer = (_request, socket: Duplex) => {
          socket.end(text)
          return true
        }
        const opened = await openChannels(
          world.address('exec', 'command=true&stdout=true'),
          V5,
        ).then(
          () => undefined,
          (error: unknown) => error,
        )
        world.kubelet.answer = undefined
        expect(opened).to.be.instanceOf(NotSwitched)
        expect((opened as NotSwitched).status).to.equal(status)
        expect((opened as NotSwitched).text).not.to.contain('evil')
        const session = await world.settled()
        expect(session.ending).to.equal('refused')
        expect(world.recording(session.id).isComplete).to.equal(true)
      })

    it('its silence ends when the client leaves', async () => {
      const held: Duplex[] = []
      world.kubelet.answer = (_request, socket) => {
        held.push(socket)
        return true
      }
      const { port, ca, path, query, headers = {} } = world.address('exec', 'command=true&stdout=1')
      const socket = connect({ port, host: '127.0.0.1', ca })
      socket.on('error', () => undefined)
      const lines = [
        `POST ${path}?${query} HTTP/1.1`,
        ...['Host: b', 'Connection: Upgrade', 'Upgrade: SPDY/3.1'],
        `X-Stream-Protocol-Version: ${V4}`,
        `Authorization: ${headers['authorization']}`,
      ]
      socket.write(`${lines.join('\r\n')}\r\n\r\n`)
      const dialled = await until('the dialling', () => held[0])
      expect(world.sessions().at(-1)?.state).to.equal('running')
      const closed = once(dialled, 'close')
      dialled.resume()
      socket.destroy()
      await closed
      world.kubelet.answer = undefined
      expect((await world.settled()).state).to.equal('ended')
    }).timeout(SLOW_MS)
  })

  describe('a flood', () => {
    it('of sizes is recorded as far as the bound, and costs no memory', async () => {
      const client = await openChannels(world.address('exec', `${CAT}&tty=true`), V5)
      const before_ = world.rss()
      for (let index = 0; index < 50_000; index += 1) void client.resize(index % 500, 24)
      await client.send(CHANNEL.stdin, 'done')
      await until(
        'the last',
        () => world.kubelet.last().stdin.all.includes('done') || undefined,
        30_000,
      )
      expect(world.kubelet.last().resizes).to.have.length(50_000)
      expect(world.rss() - before_).to.be.lessThan(128 * MIB)
      await client.closeChannel(CHANNEL.stdin)
      await client.closed
      const session = await world.settled()
      const sizes = world.recording(session.id).events.filter(({ type }) => type === TYPE.resize)
      expect(sizes).to.have.length(50_000)
    }).timeout(SLOW_MS)

    it('of pings ends the session; as many as a client sends are answered', async () => {
      const client = await openChannels(world.address('exec', CAT), V5)
      for (let index = 0; index < 40; index += 1) client.socket.ping()
      await until('the pongs', () => client.pongs === 40 || undefined)
      for (let index = 0; index < 5_000; index += 1) client.socket.ping()
      await client.closed
      expect((await world.settled()).ending).to.equal('client_left')
    }).timeout(SLOW_MS)

    it('of SPDY pings whose answers nobody reads costs no memory', async () => {
      const session = await openSpdySession(world.address('exec', CAT), [
        ...['error', 'stdin', 'stdout', 'stderr'],
      ])
      let release = (): void => undefined
      session.peer.gate = new Promise((resolve) => (release = resolve))
      const before_ = world.rss()
      const pings = Buffer.concat(
        Array.from({ length: 10_000 }, () => controlFrame(FRAME.ping, 0, words(1))),
      )
      for (let round = 0; round < 300; round += 1) {
        if (session.peer.socket.destroyed) break
        session.peer.socket.write(pings)
        if (round % 20 === 0) await sleep(20)
      }
      await sleep(1_000)
      expect(world.rss() - before_).to.be.lessThan(128 * MIB)
      release()
      session.peer.socket.destroy()
    }).timeout(SLOW_MS)
  })

  it('clients that vanish leave a whole recording, and the command is told', async () => {
    for (const leave of ['fin', 'reset', 'close'] as const) {
      const { socket, tcp } = await rawUpgrade(world.address('exec', CAT), 'GET', [
        ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
        ...['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', `Sec-WebSocket-Protocol: ${V5}`],
      ])
      socket.resume()
      socket.write(rawFrame({ payload: message(0, 'so far') }))
      await until('it', () => world.kubelet.last().sent.stdout.bytes === 6 || undefined)
      await sleep(50)
      if (leave === 'reset') tcp.resetAndDestroy()
      else if (leave === 'fin') socket.end()
      else socket.write(rawFrame({ opcode: 8, payload: Buffer.of(0x03, 0xe8) }))
      const session = await world.settled()
      expect(session.ending, leave).to.equal('client_left')
      const recording = world.recording(session.id)
      expect(bytesOf(recording, TYPE.stdout).toString()).to.equal('so far')
      expect(jsonOf(recording, TYPE.marker).map(({ kind }) => kind)).to.include('client_left')
      await world.kubelet.last().over
      socket.destroy()
    }
  })

  it('noise instead of a session ends it', async () => {
    for (let seed = 1; seed < 40; seed += 1) {
      const { socket } = await rawUpgrade(world.address('exec', CAT), 'POST', [
        ...['Connection: Upgrade', 'Upgrade: SPDY/3.1', `X-Stream-Protocol-Version: ${V4}`],
      ])
      socket.write(noise(2_000, seed))
      socket.end()
      await rest(socket)
      socket.destroy()
      const session = await world.settled()
      expect(session.ending, `seed ${seed}`).to.be.oneOf(['protocol_invalid', 'client_left'])
    }
  }).timeout(SLOW_MS)
})
