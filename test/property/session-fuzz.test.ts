/**
 * Sessions whose bytes are changed at random places, from the client's side and from the API server's: the broker lives, the session ends, what
 * reached the pod is what the recording counted, and what the client got is what the recording has. Seeds are told on failure.
 */
import { expect } from 'chai'
import fc from 'fast-check'
import { after, afterEach, before, describe, it } from 'mocha'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Duplex } from 'node:stream'
import {
  CHANNEL,
  openChannels,
  openRawWebSocket,
  rawFrame,
  rawUpgrade,
} from '../support/remote-clients.ts'
import { bytesOf, TYPE } from '../support/remote-recording.ts'
import {
  controlFrame,
  dataFrame,
  FRAME,
  headerBlock,
  synStreamHead,
  words,
} from '../support/remote-spdy.ts'
import { startSessionWorld } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 180_000
const RUNS = 150
const V5 = 'v5.channel.k8s.io'
const CAT = 'command=cat&stdin=1&stdout=1&stderr=1'
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: sessions, match: {verbs: [connect], resources: [pods/exec]}, effect: allow, record: {mode: required, mask: false, stdin: true}}
`

/** Header blocks as stored blocks of one zlib stream, which begins with the dictionary's checksum. */
function opened(names: readonly string[]): readonly Buffer[] {
  return names.map((name, at) => {
    const block = headerBlock([['streamtype', name]])
    const head = Buffer.alloc(5)
    head.writeUInt16LE(block.length, 1)
    head.writeUInt16LE(0xffff - block.length, 3)
    const parts = [head, block, Buffer.from('000000ffff', 'hex')]
    if (at === 0) parts.unshift(Buffer.from('7820e3c6a7c2', 'hex'))
    return controlFrame(FRAME.synStream, 0, Buffer.concat([synStreamHead(2 * at + 1), ...parts]))
  })
}

const SPDY = Buffer.concat([
  ...opened(['error', 'stdin', 'stdout', 'stderr']),
  dataFrame(3, Buffer.from('first ')),
  controlFrame(FRAME.ping, 0, words(1)),
  dataFrame(3, Buffer.from('second')),
  controlFrame(FRAME.goAway, 0, words(0, 0)),
  dataFrame(3, Buffer.alloc(0), 1),
])
/** Without masks, so that a change is one of what is read. */
const frames = (): Buffer =>
  Buffer.concat([
    rawFrame({ payload: '\x00first ' }),
    rawFrame({ opcode: 9, payload: 'ping' }),
    rawFrame({ fin: false, payload: '\x00sec' }),
    rawFrame({ opcode: 0, payload: 'ond' }),
    rawFrame({ payload: Buffer.of(255, 0) }),
  ])

const changes = fc.array(
  fc.record({
    at: fc.nat(),
    to: fc.integer({ min: 0, max: 255 }),
    kind: fc.constantFrom('set', 'cut', 'double'),
  }),
  { minLength: 1, maxLength: 4 },
)
type Changes = typeof changes extends fc.Arbitrary<infer T> ? T : never

function changed(bytes: Buffer, how: Changes): Buffer {
  let made = Buffer.from(bytes)
  for (const { at, to, kind } of how) {
    const place = at % made.length
    if (kind === 'set') made[place] = to
    else if (kind === 'cut')
      made = Buffer.concat([made.subarray(0, place), made.subarray(place + 1 + (to % 8))])
    else
      made = Buffer.concat([
        made.subarray(0, place),
        made.subarray(Math.max(0, place - to), place),
        made.subarray(place),
      ])
  }
  return made
}

/** What a text says of success, where it is a Status. */
function statusOf(text: string): string | undefined {
  try {
    return (JSON.parse(text) as { status?: string } | null)?.status
  } catch {
    return undefined
  }
}

describe('sessions of changed bytes', () => {
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

  /** Sends, leaves when nothing more comes, and compares. */
  const compare = async (socket: Duplex, bytes: Buffer): Promise<void> => {
    socket.write(bytes)
    socket.resume()
    const gone = new Promise((resolve) => socket.once('close', resolve))
    await Promise.race([gone, sleep(60)])
    socket.destroy()
    const session = await world.settled()
    const kubelet = world.kubelet.last()
    await kubelet.over
    expect(kubelet.peer?.violations, 'what the API server sees').to.deep.equal([])
    const recording = world.recording(session.id)
    expect(recording.isComplete).to.equal(true)
    const typed = bytesOf(recording, TYPE.stdin)
    // what was on its way when the session ended may not have arrived
    expect(typed.subarray(0, kubelet.stdin.bytes).equals(kubelet.stdin.all), 'stdin').to.equal(true)
    expect(session.totals).to.include({ stdinBytes: typed.length })
    const printed = bytesOf(recording, TYPE.stdout)
    expect(kubelet.sent.stdout.all.subarray(0, printed.length).equals(printed)).to.equal(true)
  }

  it('from a client over SPDY', async () => {
    await fc.assert(
      fc.asyncProperty(changes, async (how) => {
        const { socket } = await rawUpgrade(world.address('exec', CAT), 'POST', [
          ...['Connection: Upgrade', 'Upgrade: SPDY/3.1'],
          'X-Stream-Protocol-Version: v4.channel.k8s.io',
        ])
        await compare(socket, changed(SPDY, how))
      }),
      { numRuns: RUNS },
    )
  }).timeout(SLOW_MS)

  it('from a client over WebSocket', async () => {
    await fc.assert(
      fc.asyncProperty(changes, async (how) => {
        const socket = await openRawWebSocket(world.address('exec', CAT), V5)
        await compare(socket, changed(frames(), how))
      }),
      { numRuns: RUNS },
    )
  }).timeout(SLOW_MS)

  it('from an API server', async () => {
    const reply = (id: number): Buffer => {
      const head = Buffer.from('000400fbff00000000000000ffff', 'hex')
      const zlib = id === 1 ? [Buffer.from('7820e3c6a7c2', 'hex')] : []
      return controlFrame(FRAME.synReply, 0, Buffer.concat([words(id), ...zlib, head]))
    }
    const status = Buffer.from('{"metadata":{},"status":"Success"}')
    const all = Buffer.concat([
      ...[1, 3, 5, 7].map(reply),
      dataFrame(5, Buffer.from('hello ')),
      controlFrame(FRAME.ping, 0, words(2)),
      dataFrame(7, Buffer.from('oh')),
      dataFrame(5, Buffer.from('there')),
      dataFrame(5, Buffer.alloc(0), 1),
      dataFrame(7, Buffer.alloc(0), 1),
      dataFrame(1, status, 1),
    ])
    await fc.assert(
      fc.asyncProperty(changes, fc.boolean(), async (how, isWhole) => {
        world.kubelet.answer = (_request, socket) => {
          socket.write(
            'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n',
          )
          socket.resume()
          // after the streams were opened, as an API server would
          socket.once('data', () => socket.end(isWhole ? all : changed(all, how)))
          return true
        }
        const client = await openChannels(world.address('exec', CAT), V5)
        await client.closed
        world.kubelet.answer = undefined
        if (isWhole) expect(client.status).to.include({ status: 'Success' })
        const session = await world.settled()
        const recording = world.recording(session.id)
        expect(recording.isComplete).to.equal(true)
        for (const [channel, type] of [
          [CHANNEL.stdout, TYPE.stdout],
          [CHANNEL.stderr, TYPE.stderr],
        ] as const)
          expect(
            bytesOf(recording, type).equals(client.bytes(channel)),
            `channel ${channel}`,
          ).to.equal(true)
        const isSuccess = statusOf(client.bytes(CHANNEL.error).toString()) === 'Success'
        expect(isSuccess).to.equal(session.result?.status === 'Success')
      }),
      { numRuns: RUNS },
    )
  }).timeout(SLOW_MS)
})
