/** How much an upgraded session may pile up: a reader that stops must stop the writer, through the sidecar. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { RECHECK_MS } from '../../sidecar/watch-caller.ts'
import { claimOf, startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { startTestSidecar } from '../support/running-sidecar.ts'
import type { RunningSidecar } from '../support/running-sidecar.ts'

const MIB = 1024 * 1024
const CHUNK_BYTES = 65_536
/** What is written, if nothing stops it, in bytes. */
const TOTAL_BYTES = 128 * MIB
/** Most that the kernel's buffers of one connection on the loopback take, in bytes: 4 MiB to send, 6 MiB received, by default. */
const KERNEL_BYTES = 12 * MIB
/** After so long without a byte a writer counts as stopped, in milliseconds. */
const STILL_MS = 500
const HOLD_ID = '01900000-0000-7000-8000-000000000003'
const HEAD =
  'GET /exec HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'
const SWITCHING =
  'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'

/** Writes one chunk after another, each when the kernel has taken the one before. */
class Writer {
  /** What the kernel has taken, in bytes. */
  taken = 0
  readonly hash = createHash('sha256')
  readonly #to: Duplex
  #isStopping = false

  constructor(to: Duplex) {
    this.#to = to
    this.#write()
  }

  #write(): void {
    if (this.taken >= TOTAL_BYTES || this.#isStopping) return
    const chunk = Buffer.alloc(CHUNK_BYTES, String(this.taken))
    this.hash.update(chunk)
    this.#to.write(chunk, (error) => {
      if (error instanceof Error) return
      this.taken += CHUNK_BYTES
      this.#write()
    })
  }

  /** Waits until nothing more is taken. */
  async still(): Promise<number> {
    for (let before = -1; before !== this.taken;) {
      before = this.taken
      await sleep(STILL_MS)
    }
    return this.taken
  }

  /** Writes no further chunk. */
  stop(): void {
    this.#isStopping = true
  }
}

describe('sidecar: flow of upgraded sessions', function () {
  this.timeout(30_000)
  let broker: FakeBroker
  let sidecar: RunningSidecar
  let client: Socket

  beforeEach(async () => {
    broker = await startFakeBroker()
    sidecar = await startTestSidecar(broker)
    client = connect(sidecar.port, '127.0.0.1')
    client.on('error', () => undefined)
    client.write(HEAD)
  })
  afterEach(async () => {
    client.destroy()
    await broker.stop()
    await sidecar.close()
  })

  /** Holds the first attempt; the second, with the approval, is for `switched`. */
  function hold(switched: (socket: Duplex) => void): void {
    broker.onUpgrade = (seen, socket): void => {
      if (claimOf(seen) !== undefined) {
        switched(socket)
        return
      }
      broker.holds.push({ id: HOLD_ID, state: 'PENDING' })
      socket.end(
        `HTTP/1.1 202 Accepted\r\nNestgate-Held: ${HOLD_ID}\r\nContent-Length: 2\r\n\r\n{}`,
      )
    }
  }

  it('stops a client whose broker does not read', async () => {
    broker.onUpgrade = (_seen, socket) => {
      socket.pause()
      socket.write(SWITCHING)
    }
    await once(client, 'data')
    const taken = await new Writer(client).still()
    expect(taken)
      .to.be.greaterThan(0)
      .and.lessThan(2 * KERNEL_BYTES)
  })

  it('stops a broker whose client does not read', async () => {
    const switched = Promise.withResolvers<Writer>()
    client.pause()
    broker.onUpgrade = (_seen, socket) => {
      socket.write(SWITCHING)
      switched.resolve(new Writer(socket))
    }
    const taken = await (await switched.promise).still()
    expect(taken)
      .to.be.greaterThan(0)
      .and.lessThan(2 * KERNEL_BYTES)
  })

  it('stops a client that sends before it may, and loses nothing of it', async () => {
    const received = createHash('sha256')
    let size = 0
    hold((socket) => {
      socket.on('data', (chunk: Buffer) => {
        received.update(chunk)
        size += chunk.length
      })
      socket.write(SWITCHING)
    })
    const writer = new Writer(client)
    while (broker.polls === 0) await sleep(5)
    const taken = await writer.still()
    expect(taken).to.be.greaterThan(0).and.lessThan(KERNEL_BYTES)
    writer.stop()
    broker.decide(broker.holds[0]!, 'APPROVED')
    while (writer.taken === taken || size < writer.taken) await sleep(5)
    expect(received.digest('hex')).to.equal(writer.hash.digest('hex'))
  })

  it('notices that a client leaves that it has stopped', async () => {
    hold(() => expect.fail('switched'))
    const writer = new Writer(client)
    while (broker.polls === 0) await sleep(5)
    await writer.still()
    client.destroy()
    const until = performance.now() + RECHECK_MS * 1.5
    while (broker.cancelled.length === 0 && performance.now() < until) await sleep(20)
    expect(broker.cancelled).to.deep.equal([HOLD_ID])
  })
})
