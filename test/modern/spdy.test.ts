/**
 * Our SPDY against the code that every real peer of it is made of: moby/spdystream under Kubernetes' httpstream, in Go
 * (spdystream.go), as the client of ours (kubectl) and as its server (kubelet).
 */
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { createSpdyConnection } from '../../broker/sessions/spdy/connection.ts'
import type { SpdyConnection, SpdyStream } from '../../broker/sessions/spdy/connection.ts'
import { eventually } from '../../scripts/run.ts'
import { modernBinary } from './api-server.ts'

const BULK = 64 * 1024 * 1024
const STREAMS = 1000
const CONCURRENT = 50
const BLOCK = 32 * 1024

interface Go {
  readonly child: ChildProcess
  /** What it has printed. */
  readonly lines: string[]
  readonly ended: Promise<number | null>
}

let binary: string

function go(...args: readonly string[]): Go {
  const child = spawn(binary, ['spdystream', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  const lines: string[] = []
  for (const output of [child.stdout, child.stderr])
    createInterface(output).on('line', (line) => lines.push(line))
  const ended = once(child, 'close').then(([code]) => code as number | null)
  return { child, lines, ended }
}

/** Everything of a stream, once the peer has ended it. */
function read(stream: SpdyStream): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = []
    stream.onData = (bytes) => parts.push(Buffer.from(bytes))
    stream.onEnd = () => {
      resolve(Buffer.concat(parts))
    }
    stream.onReset = (status) => {
      reject(new Error(`reset with ${status}`))
    }
  })
}

const soon = <T>(probe: () => T | undefined): Promise<T> =>
  eventually('what the peer does', 5_000, probe, 10)

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Random bytes, then their sum. */
async function send(connection: SpdyConnection, stream: SpdyStream, size: number): Promise<void> {
  const hash = createHash('sha256')
  for (let left = size; left > 0; left -= BLOCK) {
    const block = randomBytes(Math.min(left, BLOCK))
    hash.update(block)
    if (!stream.write(block)) await connection.room()
  }
  stream.write(Buffer.from(hash.digest('hex')))
}

/** What spdystream.go does for a stream that is opened. */
function take(connection: SpdyConnection, sums: string[]): (stream: SpdyStream) => void {
  return (stream) => {
    const what = stream.headers.get('do')
    if (what === 'reject') {
      stream.reset(5)
      return
    }
    if (what === 'echo') {
      stream.onData = (bytes) => {
        if (stream.write(bytes)) return
        connection.pause()
        void connection.room()?.then(() => {
          connection.resume()
        })
      }
      stream.onEnd = () => {
        stream.end()
      }
    } else if (what === 'source')
      void send(connection, stream, Number(stream.headers.get('size'))).then(() => {
        stream.end()
      })
    else {
      if (what === 'early')
        process.nextTick(() => {
          stream.end()
        })
      const hash = createHash('sha256')
      stream.onData = (bytes) => hash.update(bytes)
      stream.onEnd = () => {
        const sum = hash.digest('hex')
        sums.push(sum)
        stream.write(Buffer.from(sum))
        stream.end()
      }
    }
    stream.reply()
  }
}

describe('SPDY with the real peers', function () {
  this.timeout(60_000)

  before(async function () {
    this.timeout(600_000)
    binary = await modernBinary()
  })

  it('serves a client of client-go', async () => {
    const listener = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const closed: Promise<unknown>[] = []
    const sums: string[] = []
    listener.on('connection', (socket) => {
      const connection = createSpdyConnection(socket, { role: 'server' })
      connection.onStream = take(connection, sums)
      closed.push(connection.closed)
    })
    const client = go('call', String((listener.address() as AddressInfo).port))
    expect(await client.ended, client.lines.join('\n')).to.equal(0)
    expect(client.lines).to.deep.equal(['done'])
    expect(await Promise.all(closed)).to.deep.equal([undefined, undefined])
    // half-closed twice (the second after our end), and the bulk
    expect(sums).to.have.length(3)
    expect(sums[1]).to.equal(sums[0])
    listener.close()
  })

  describe('as the client of a kubelet', () => {
    let server: Go
    let socket: Socket
    let connection: SpdyConnection

    before(async () => {
      server = go('serve')
      const port = await soon(() => /^listening (\d+)$/.exec(server.lines[0] ?? '')?.[1])
      socket = connect({ port: Number(port), host: '127.0.0.1', allowHalfOpen: true })
      await once(socket, 'connect')
      connection = createSpdyConnection(socket, { role: 'client' })
    })

    after(async () => {
      connection.destroy()
      server.child.kill('SIGKILL')
      await server.ended
    })

    const echo = async (text: string): Promise<string> => {
      const stream = connection.open({ do: 'echo', 'x-of': text })
      const answer = read(stream)
      // not waited for the reply
      stream.write(Buffer.from(text))
      stream.end()
      return (await answer).toString()
    }

    it('opens, writes, ends and reads', async () => {
      const stream = connection.open({ do: 'echo' })
      await connection.replied(stream)
      stream.end()
      expect(await read(stream)).to.have.length(0)
      expect(await echo('hello')).to.equal('hello')
    })

    it('is told of a stream that is not taken', async () => {
      const stream = connection.open({ do: 'reject' })
      const error = await connection.replied(stream).catch((caught: unknown) => caught)
      expect(String(error)).to.contain('reset the stream with status 5')
    })

    it('closes each half by itself', async () => {
      const block = randomBytes(1024 * 1024)
      const stream = connection.open({ do: 'sum' })
      const sum = read(stream)
      stream.write(block)
      stream.end()
      expect((await sum).toString()).to.equal(sha256(block))
      const early = connection.open({ do: 'early' })
      expect(await read(early)).to.have.length(0)
      early.write(block)
      early.end()
      await soon(() => server.lines.includes(`sum ${sha256(block)}`) || undefined)
    })

    it('opens 1000 streams, 50 at a time', async () => {
      const worker = async (first: number): Promise<void> => {
        for (let n = first; n < STREAMS; n += CONCURRENT)
          expect(await echo(`stream ${n}`)).to.equal(`stream ${n}`)
      }
      await Promise.all(Array.from({ length: CONCURRENT }, (_, first) => worker(first)))
    })

    it('carries 64 MiB each way at once, unchanged', async () => {
      const down = read(connection.open({ do: 'source', size: String(BULK) }))
      const up = connection.open({ do: 'sum' })
      const sum = read(up)
      const hash = createHash('sha256')
      for (let sent = 0; sent < BULK; sent += BLOCK) {
        const block = randomBytes(BLOCK)
        hash.update(block)
        if (!up.write(block)) await connection.room()
      }
      up.end()
      expect((await sum).toString()).to.equal(hash.digest('hex'))
      const all = await down
      expect(all).to.have.length(BULK + 64)
      expect(all.subarray(BULK).toString()).to.equal(sha256(all.subarray(0, BULK)))
    })

    it('pings and is answered', async () => {
      // of the peer's own pings there are some too, each of 12 bytes
      const before = socket.bytesRead
      for (let n = 0; n < 1000; n++) connection.ping()
      await soon(() => socket.bytesRead - before >= 12_000 || undefined)
      await setTimeout(100)
      expect(socket.bytesRead - before).to.be.below(12_600)
    })

    it('leaves in order', async () => {
      connection.close()
      expect(await connection.closed).to.equal(undefined)
      await soon(() => server.lines.includes('closed') || undefined)
      expect(server.lines.filter((line) => line.startsWith('failed'))).to.deep.equal([])
    })
  })
})
