/** SPDY connections over real sockets: ours against ours, and ours against what no decent peer sends. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { pbkdf2 } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout } from 'node:timers/promises'
import { duplexPair } from 'node:stream'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { deflateSync } from 'node:zlib'
import { createSpdyConnection, MAX_OPEN_STREAMS } from '../../../broker/sessions/spdy/connection.ts'
import type { SpdyConnection, SpdyStream } from '../../../broker/sessions/spdy/connection.ts'
import {
  dataHead,
  goAway,
  MAX_DATA_BYTES,
  ping,
  RST,
  rstStream,
  synReply,
  synStream,
} from '../../../broker/sessions/spdy/frames.ts'
import { DICTIONARY, HeaderDeflater } from '../../../broker/sessions/spdy/header-block.ts'
import { MAX_WAITING_BYTES } from '../../../broker/sessions/spdy/writer.ts'
import { Fault } from '../../../shared/errors.ts'
import { socketPair, spdyAgainstBytes, spdyPair } from '../../support/spdy.ts'

const data = (id: number, text: string, fin = false): Buffer =>
  Buffer.concat([dataHead(id, text.length, fin), Buffer.from(text, 'latin1')])

/** What a stream has told its owner. */
function watched(stream: SpdyStream): string[] {
  const events: string[] = []
  stream.onData = (bytes) => events.push(bytes.toString('latin1'))
  stream.onEnd = () => events.push('end')
  stream.onReset = (status) => events.push(`reset ${status}`)
  return events
}

async function until(what: () => boolean): Promise<void> {
  const end = Date.now() + 5000
  while (!what()) {
    if (Date.now() > end) throw new Error(`not within 5 s: ${what.toString()}`)
    await setTimeout(2)
  }
}

/** Takes every stream and keeps it. */
function taken(connection: SpdyConnection): { stream: SpdyStream; events: string[] }[] {
  const all: { stream: SpdyStream; events: string[] }[] = []
  connection.onStream = (stream) => {
    all.push({ stream, events: watched(stream) })
    stream.reply()
  }
  return all
}

const codeOf = (fault: Fault | undefined): string => fault?.code ?? 'orderly'

describe('SPDY connections', () => {
  it('open streams either way, with odd and even ids', async () => {
    const { client, server } = await spdyPair()
    const toServer = taken(server)
    const toClient = taken(client)
    const first = client.open({ streamtype: 'stdin', port: '80' })
    const second = client.open({})
    const third = server.open({ a: 'b' })
    await Promise.all([client.replied(first), client.replied(second), server.replied(third)])
    expect([first.id, second.id, third.id]).to.deep.equal([1, 3, 2])
    expect(
      toServer.map(({ stream }) => [stream.id, Object.fromEntries(stream.headers)]),
    ).to.deep.equal([
      [1, { streamtype: 'stdin', port: '80' }],
      [3, {}],
    ])
    expect(toClient[0]?.stream.headers.get('a')).to.equal('b')
    client.close()
    expect(await client.closed).to.equal(undefined)
    expect(await server.closed).to.equal(undefined)
  })

  it('end each half of a stream by itself, and keep nothing of it', async () => {
    const { client, server } = await spdyPair()
    const streams = taken(server)
    const stream = client.open({})
    const back = watched(stream)
    stream.write(Buffer.from('one'))
    stream.end()
    stream.write(Buffer.from('ignored'))
    await until(() => streams[0]?.events.includes('end') ?? false)
    streams[0]?.stream.write(Buffer.from('two'))
    await until(() => back.includes('two'))
    streams[0]?.stream.end()
    streams[0]?.stream.reset(RST.CANCEL)
    await until(() => back.includes('end'))
    expect(streams[0]?.events).to.deep.equal(['one', 'end'])
    expect(back).to.deep.equal(['two', 'end'])
    client.destroy()
    server.destroy()
  })

  it('reply by themselves before the first byte that is written', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('server')
    ours.onStream = (stream) => {
      stream.write(Buffer.from('hello'))
      stream.end()
      stream.reply()
    }
    socket.write(synStream(1, new HeaderDeflater().deflate({})))
    await until(() => sent.length === 3)
    expect(sent[0]).to.match(/^syn_reply 1 /)
    expect(sent.slice(1)).to.deep.equal(['data 1 "hello"', 'data 1 "" fin'])
    ours.destroy()
  })

  it('reset streams', async () => {
    const { client, server } = await spdyPair()
    const streams = taken(server)
    const [first, second] = [client.open({}), client.open({})]
    await client.replied(second)
    first.reset(RST.CANCEL)
    first.write(Buffer.from('ignored'))
    await until(() => streams[0]?.events.length === 1)
    expect(streams[0]?.events).to.deep.equal(['reset 5'])
    const back = watched(second)
    streams[1]?.stream.reset(RST.INTERNAL_ERROR)
    await until(() => back.length === 1)
    expect(back).to.deep.equal(['reset 6'])
    expect(second.write(Buffer.from('ignored'))).to.equal(true)
    // it was replied to before
    await client.replied(first)
    client.destroy()
    server.destroy()
  })

  it('say when a stream is refused, before or after it is asked for', async () => {
    const { client, server } = await spdyPair()
    const messages = async (stream: SpdyStream): Promise<string> =>
      client.replied(stream).then(
        () => 'replied',
        (caught: unknown) => (caught instanceof Fault ? caught.message : 'another error'),
      )
    // nobody takes streams
    const stream = client.open({})
    expect(await messages(stream)).to.equal('the peer reset the stream with status 3')
    expect(await messages(stream)).to.equal('the peer reset the stream with status 3')
    server.onStream = () => undefined
    const open = client.open({})
    const waiting = messages(open)
    client.destroy()
    expect(await waiting).to.equal('the connection has ended')
    const late = client.open({})
    expect(await messages(late)).to.equal('the connection takes no new streams')
    expect(late.write(Buffer.from('ignored'))).to.equal(true)
    server.destroy()
  })

  it('put what is written in one turn into few frames, none longer than they may be', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('client')
    const [first, second] = [ours.open({}), ours.open({})]
    await until(() => sent.length === 2)
    first.write(Buffer.from('a'))
    first.write(Buffer.from('b'))
    second.write(Buffer.from('c'))
    first.write(Buffer.alloc(MAX_DATA_BYTES + 1, 'd'))
    first.write(Buffer.alloc(0))
    first.write(Buffer.from('e'))
    await until(() => sent.length === 6)
    expect(sent.slice(2)).to.deep.equal([
      'data 1 "ab"',
      'data 3 "c"',
      `data 1 "${'d'.repeat(MAX_DATA_BYTES)}"`,
      'data 1 "de"',
    ])
    first.write(Buffer.from('later'))
    await until(() => sent.length === 7)
    expect(sent[6]).to.equal('data 1 "later"')
    ours.destroy()
    socket.destroy()
  })

  it('answer pings, and no answers', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('server')
    ours.ping()
    socket.write(Buffer.concat([ping(1), ping(2), ping(0x7fffffff)]))
    await until(() => sent.length === 3)
    await setTimeout(20)
    expect(sent).to.deep.equal(['ping 2', 'ping 1', 'ping 2147483647'])
    ours.destroy()
  })

  it('go on with their streams behind GOAWAY, and open none', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('client')
    const stream = ours.open({})
    const events = watched(stream)
    const block = new HeaderDeflater().deflate({})
    socket.write(Buffer.concat([goAway(0, 0), synReply(1, block), data(1, 'still')]))
    await until(() => events.length === 1)
    stream.write(Buffer.from('here'))
    await until(() => sent.includes('data 1 "here"'))
    const late = ours.open({})
    const error = await ours.replied(late).catch((caught: unknown) => caught)
    expect(error).to.have.property('code', 'stream_broken')
    socket.end()
    expect(await ours.closed).to.equal(undefined)
  })

  it('close behind what was written, and wait for the peer to leave', async () => {
    const { client, server, sockets } = await spdyPair()
    const streams = taken(server)
    server.pause()
    const stream = client.open({})
    const bytes = Buffer.alloc(4 * 1024 * 1024, 'x')
    stream.write(bytes)
    stream.end()
    client.close()
    client.close()
    stream.write(Buffer.from('ignored'))
    expect(client.room()).to.equal(undefined)
    await setTimeout(20)
    expect(sockets[0].destroyed).to.equal(false)
    server.resume()
    expect(await client.closed).to.equal(undefined)
    expect(await server.closed).to.equal(undefined)
    expect(streams[0]?.events.join('').length).to.equal(bytes.length + 'end'.length)
    await until(() => sockets.every((socket) => socket.destroyed))
  })

  it('settle everything when the socket breaks', async () => {
    const { client, server, sockets } = await spdyPair()
    const stream = client.open({})
    const replied = client.replied(stream).catch((caught: unknown) => caught)
    while (stream.write(Buffer.alloc(64 * 1024)));
    server.pause()
    const room = client.room()
    expect(room).to.be.a('promise')
    sockets[1].resetAndDestroy()
    expect(codeOf(await client.closed)).to.equal('stream_broken')
    expect(codeOf(await server.closed)).to.equal('stream_broken')
    expect(await replied).to.be.instanceOf(Fault)
    await room
  })

  it('take all that came before the peer left, also while headers are still being inflated', async () => {
    // headers are inflated by the same few threads
    const busy = Array.from({ length: 16 }, () =>
      promisify(pbkdf2)('x', 'y', 200_000, 32, 'sha512'),
    )
    const { ours: connection, socket: peer } = await spdyAgainstBytes('client')
    const stream = connection.open({ streamtype: 'error' })
    const events = watched(stream)
    const block = new HeaderDeflater().deflate({})
    peer.end(
      Buffer.concat([
        synReply(stream.id, block),
        data(stream.id, 'status'),
        rstStream(stream.id, RST.CANCEL),
        goAway(0, 0),
      ]),
    )
    expect(codeOf(await connection.closed)).to.equal('orderly')
    expect(events).to.deep.equal(['status', `reset ${RST.CANCEL}`])
    await Promise.all(busy)
  })

  it('are over at once when the socket is gone, or its peer has left', async () => {
    const [first, second] = await socketPair()
    second.destroy()
    await once(second, 'close')
    const gone = createSpdyConnection(second, { role: 'server' })
    expect(codeOf(await gone.closed)).to.equal('stream_broken')
    first.resume()
    await once(first, 'end')
    const left = createSpdyConnection(first, { role: 'client' })
    const stream = left.open({})
    expect(await left.replied(stream).catch(() => 'rejected')).to.equal('rejected')
    expect(codeOf(await left.closed)).to.equal('orderly')
    await once(first, 'close')
  })

  it('stay paused when the socket was, until they are resumed', async () => {
    const [first, second] = await socketPair()
    second.pause()
    const ours = createSpdyConnection(second, { role: 'server' })
    const streams = taken(ours)
    first.write(synStream(1, new HeaderDeflater().deflate({})))
    await setTimeout(20)
    expect(streams).to.have.length(0)
    ours.resume()
    await until(() => streams.length === 1)
    ours.destroy()
    first.destroy()
  })

  it('tell a peer that leaves with open streams from one whose streams have ended', async () => {
    const end = data(1, '', true)
    for (const [last, ours, code] of [
      [end, 'ended', 'orderly'],
      [end, 'open', 'stream_broken'],
      [data(1, ''), 'ended', 'stream_broken'],
      [Buffer.concat([end, Buffer.of(0x80, 3)]), 'ended', 'stream_broken'],
      [Buffer.concat([end, ping(1).subarray(0, 10)]), 'ended', 'stream_broken'],
      [Buffer.concat([goAway(0, 0), dataHead(1, 5, false)]), 'ended', 'stream_broken'],
      [Buffer.concat([end, dataHead(1, 5, false)]), 'open', 'spdy_invalid'],
      [rstStream(1, 5), 'open', 'orderly'],
      [goAway(0, 0), 'open', 'orderly'],
      [goAway(0, 1), 'ended', 'stream_broken'],
    ] as const) {
      const { ours: connection, socket } = await spdyAgainstBytes('server')
      connection.onStream = (stream) => {
        stream.reply()
        if (ours === 'ended') stream.end()
      }
      socket.end(Buffer.concat([synStream(1, new HeaderDeflater().deflate({})), last]))
      expect(codeOf(await connection.closed), `${ours} ${last.toString('hex')}`).to.equal(code)
    }
  })

  it('stay until the peer has left, so that it loses nothing of the end', async () => {
    const { ours, socket, oursSocket, sent } = await spdyAgainstBytes('server')
    const errors: unknown[] = []
    socket.on('error', (error) => errors.push(error))
    ours.close()
    await until(() => sent.includes('goaway 0'))
    socket.write(synStream(1, new HeaderDeflater().deflate({})))
    await setTimeout(30)
    socket.write(Buffer.alloc(1024 * 1024, 'dropped'))
    await setTimeout(30)
    expect(oursSocket.destroyed).to.equal(false)
    expect(errors).to.deep.equal([])
    socket.end()
    expect(await ours.closed).to.equal(undefined)
    expect(oursSocket.destroyed).to.equal(true)
  })

  it('hand on nothing of a stream that was reset here, not the rest of a frame either', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('server')
    const events: string[] = []
    ours.onStream = (stream) => {
      stream.onData = (bytes) => {
        events.push(bytes.toString())
        stream.reset(RST.CANCEL)
      }
      stream.onEnd = () => events.push('end')
      stream.onReset = () => events.push('reset')
    }
    socket.write(
      Buffer.concat([synStream(1, new HeaderDeflater().deflate({})), dataHead(1, 2, true)]),
    )
    socket.write('a')
    await until(() => sent.length === 1)
    socket.write('b')
    socket.write(Buffer.concat([rstStream(1, 5), ping(1)]))
    await until(() => sent.includes('ping 1'))
    expect(events).to.deep.equal(['a'])
    ours.destroy()
  })

  it('keep the order of what comes while a handler runs', async () => {
    const [socket, other] = duplexPair()
    const ours = createSpdyConnection(other, { role: 'server' })
    let text = ''
    ours.onStream = (stream) => {
      stream.onData = (bytes) => {
        text += bytes.toString()
        if (text !== 'a') return
        ours.pause()
        socket.write(data(1, 'c'))
      }
    }
    socket.write(synStream(1, new HeaderDeflater().deflate({})))
    await setTimeout(20)
    socket.write(Buffer.concat([data(1, 'a'), data(1, 'b')]))
    await until(() => text === 'a')
    ours.resume()
    await until(() => text.length === 3)
    expect(text).to.equal('abc')
    ours.destroy()
  })

  it('work over any duplex, also one that delivers at once', async () => {
    const [one, other] = duplexPair()
    const client = createSpdyConnection(one, { role: 'client' })
    const server = createSpdyConnection(other, { role: 'server' })
    server.onStream = (stream) => {
      stream.onData = (bytes) => stream.write(bytes)
      stream.onEnd = () => {
        stream.end()
      }
    }
    const stream = client.open({})
    const events = watched(stream)
    for (let n = 0; n < 100; n++) {
      stream.write(Buffer.from(`${n} `))
      if (n % 7 === 0) await setTimeout()
    }
    stream.end()
    await until(() => events.at(-1) === 'end')
    expect(events.slice(0, -1).join('')).to.equal(
      Array.from({ length: 100 }, (_, n) => `${n} `).join(''),
    )
    client.close()
    expect(await client.closed).to.equal(undefined)
    expect(await server.closed).to.equal(undefined)
  })

  it('keep nothing of 10000 streams', async () => {
    const { client, server } = await spdyPair()
    server.onStream = (stream) => {
      stream.onEnd = () => {
        stream.end()
      }
    }
    const some: WeakRef<SpdyStream>[] = []
    for (let round = 0; round < 100; round++)
      await Promise.all(
        Array.from({ length: 100 }, () => {
          const stream = client.open({})
          some.push(new WeakRef(stream))
          stream.write(Buffer.from('x'))
          stream.end()
          return new Promise<void>((resolve) => {
            stream.onEnd = resolve
          })
        }),
      )
    // more than may be open at once have passed; all are gone
    expect(10_000).to.be.above(MAX_OPEN_STREAMS)
    setFlagsFromString('--expose-gc')
    await setTimeout()
    ;(runInNewContext('gc') as () => void)()
    expect(some.filter((one) => one.deref() !== undefined)).to.have.length(0)
    client.close()
    expect(await server.closed).to.equal(undefined)
  })
})

describe('SPDY back-pressure', () => {
  it('asks writers to wait while the peer does not read', async () => {
    const { client, server, sockets } = await spdyPair()
    let read = 0
    server.onStream = (stream) => {
      stream.onData = (bytes) => {
        read += bytes.length
      }
    }
    server.pause()
    const stream = client.open({})
    let written = 0
    const block = Buffer.alloc(32 * 1024)
    for (;;) {
      written += block.length
      if (stream.write(block)) continue
      const moved = await Promise.race([client.room()?.then(() => true), setTimeout(100, false)])
      if (!moved) break
    }
    expect(sockets[0].writableLength).to.be.below(MAX_WAITING_BYTES + 2 * block.length)
    expect(sockets[1].readableLength).to.be.below(1024 * 1024)
    expect(read).to.equal(0)
    server.resume()
    await client.room()
    await until(() => read === written)
    expect(client.room()).to.equal(undefined)
    client.destroy()
    server.destroy()
  })

  it('holds back what was read already, from the next call of a handler on', async () => {
    const { ours, socket } = await spdyAgainstBytes('server')
    const events: string[] = []
    ours.onStream = (stream) => {
      stream.onData = (bytes) => {
        events.push(bytes.toString())
        ours.pause()
      }
      stream.onEnd = () => events.push('end')
    }
    socket.end(
      Buffer.concat([
        synStream(1, new HeaderDeflater().deflate({})),
        ...['a', 'b', 'c'].map((text) => data(1, text)),
        data(1, '', true),
        goAway(0, 0),
      ]),
    )
    for (const expected of ['a', 'b', 'c']) {
      await until(() => events.length > 0)
      await setTimeout(5)
      expect(events.splice(0)).to.deep.equal([expected])
      ours.resume()
    }
    // the peer had left long before
    expect(await ours.closed).to.equal(undefined)
    expect(events).to.deep.equal(['end'])
  })

  it('may be paused and resumed by a handler', async () => {
    const { client, server } = await spdyPair()
    let text = ''
    server.onStream = (stream) => {
      stream.onData = (bytes) => {
        server.pause()
        text += bytes.toString()
        server.resume()
      }
      stream.onEnd = () => {
        stream.end()
      }
    }
    const stream = client.open({})
    const events = watched(stream)
    for (let n = 0; n < 1000; n++) {
      stream.write(Buffer.from('x'))
      if (n % 10 === 0) client.ping()
    }
    stream.end()
    await until(() => events.includes('end'))
    expect(text).to.have.length(1000)
    client.destroy()
    server.destroy()
  })
})

describe('SPDY peers that misbehave', () => {
  const blocks = new HeaderDeflater()
  const first = blocks.deflate({})
  const next = blocks.deflate({})
  const bomb = deflateSync(Buffer.alloc(10 * 1024 * 1024), { dictionary: DICTIONARY })
  const open = synStream(1, first)
  const faults: Readonly<Record<string, readonly Buffer[]>> = {
    'that speak no SPDY': [Buffer.from('GET / HTTP/1.1\r\n\r\n')],
    'whose stream id is not theirs': [synStream(2, first)],
    'that open a stream twice': [open, synStream(1, next)],
    'whose stream ids fall': [synStream(5, first), synStream(3, next)],
    'that reply to a stream of their own': [open, synReply(1, next)],
    'that reply to a stream that was never opened': [synReply(4, first)],
    'that reply twice': [synReply(2, first), synReply(2, next)],
    'that send data before they reply': [data(2, 'x')],
    'that send data behind their end': [open, data(1, '', true), data(1, 'x')],
    'that end twice': [open, data(1, '', true), data(1, '', true)],
    'whose headers are a bomb': [synStream(1, bomb)],
    'whose headers are rubbish': [synStream(1, Buffer.from('rubbish'))],
    'whose reply is rubbish': [synReply(2, Buffer.from('rubbish'))],
  }
  for (const [name, frames] of Object.entries(faults))
    it(`are told so and left: ${name}`, async () => {
      const { ours, socket, oursSocket, sent } = await spdyAgainstBytes('server')
      ours.onStream = (stream) => {
        stream.reply()
      }
      ours.open({})
      const before = process.memoryUsage().arrayBuffers
      for (const frame of frames) socket.write(frame)
      // nothing behind it is answered
      socket.write(ping(7))
      const fault = await ours.closed
      expect(fault).to.have.property('code', 'spdy_invalid')
      await until(() => sent.includes('goaway 1'))
      expect(sent).not.to.include('ping 7')
      socket.end()
      await until(() => oursSocket.destroyed)
      expect(process.memoryUsage().arrayBuffers - before).to.be.below(4 * 1024 * 1024)
    })

  it('are left after a while when they stay', async () => {
    const { ours, socket, oursSocket } = await spdyAgainstBytes('server')
    socket.write(Buffer.alloc(100, 0xff))
    expect(codeOf(await ours.closed)).to.equal('spdy_invalid')
    await once(oursSocket, 'close')
  })

  it('get INVALID_STREAM for data of a stream that was never opened, silence for one that has ended', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('server')
    ours.onStream = (stream) => {
      stream.reset(RST.CANCEL)
    }
    const deflater = new HeaderDeflater()
    socket.write(
      Buffer.concat([
        synStream(1, deflater.deflate({})),
        data(1, 'x'),
        data(1, '', true),
        data(3, 'y'),
        data(4, 'z'),
        rstStream(9, 5),
        rstStream(1, 5),
        synStream(3, deflater.deflate({})),
        ping(1),
      ]),
    )
    await until(() => sent.includes('ping 1'))
    expect(sent).to.deep.equal([
      'rst_stream 1 5',
      'rst_stream 3 2',
      'rst_stream 4 2',
      'rst_stream 3 5',
      'ping 1',
    ])
    ours.destroy()
  })

  it('may have so many streams open, and no more', async () => {
    const { ours, socket, sent } = await spdyAgainstBytes('server')
    const streams = taken(ours)
    const deflater = new HeaderDeflater()
    const id = (n: number): number => 2 * n + 1
    for (let n = 0; n <= MAX_OPEN_STREAMS; n++)
      socket.write(synStream(id(n), deflater.deflate({ n: String(n) })))
    socket.write(ping(1))
    await until(() => sent.includes('ping 1'))
    expect(streams).to.have.length(MAX_OPEN_STREAMS)
    expect(sent).to.include(`rst_stream ${id(MAX_OPEN_STREAMS)} ${RST.REFUSED_STREAM}`)
    // one that ends makes room for another, whose headers are still understood
    streams[7]?.stream.end()
    socket.write(data(id(7), '', true))
    socket.write(synStream(id(MAX_OPEN_STREAMS + 1), deflater.deflate({ n: 'again' })))
    await until(() => streams.length === MAX_OPEN_STREAMS + 1)
    expect(streams.at(-1)?.stream.headers.get('n')).to.equal('again')
    ours.destroy()
  })

  it('that flood with pings are read only as fast as they take the answers', async () => {
    const { ours, socket, oursSocket, sent } = await spdyAgainstBytes('server')
    socket.pause()
    const flood = Buffer.concat(Array.from({ length: 5000 }, (_, n) => ping(2 * n + 1)))
    let given = 0
    let most = 0
    // until nothing moves any more
    for (let moves = true; moves && given < 64 * 1024 * 1024;) {
      given += flood.length
      const taken = socket.write(flood)
      moves =
        taken ||
        (await Promise.race([once(socket, 'drain').then(() => true), setTimeout(300, false)]))
      most = Math.max(most, oursSocket.writableLength)
    }
    // what the kernel takes of a socket that is not read is not ours to bound
    expect(most).to.be.below(256 * 1024)
    expect(socket.writableLength).to.be.above(0)
    socket.resume()
    await until(() => socket.writableLength === 0)
    await until(() => sent.length === given / 12)
    expect(codeOf(await Promise.race([ours.closed, setTimeout(10, undefined)]))).to.equal('orderly')
    ours.destroy()
  }).timeout(20_000)
})
