/** What must hold for whatever a SPDY peer sends: no exception, bounded memory, and an end. */
import fc from 'fast-check'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { duplexPair } from 'node:stream'
import { createSpdyConnection } from '../../broker/sessions/spdy/connection.ts'
import type { SpdyConnection } from '../../broker/sessions/spdy/connection.ts'
import {
  dataHead,
  goAway,
  ping,
  rstStream,
  synReply,
  synStream,
} from '../../broker/sessions/spdy/frames.ts'
import { HeaderDeflater } from '../../broker/sessions/spdy/header-block.ts'
import { Fault } from '../../shared/errors.ts'
import { recorder } from '../support/spdy.ts'

const RUNS = 600
/** More than the fuzzed peer sends, and what a connection may keep of it. */
const MEMORY_BYTES = 32 * 1024 * 1024

type Step =
  | readonly ['open' | 'reply' | 'headers', id: number, headers: Readonly<Record<string, string>>]
  | readonly ['data' | 'end', id: number, length: number]
  | readonly ['reset' | 'goaway', id: number, status: number]
  | readonly ['ping', id: number]
  | readonly ['settings' | 'unknown']

const id = fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 0, max: 0x7fffffff }))
const headers = fc.dictionary(
  fc.stringMatching(/^[a-z-]{1,10}$/),
  fc.string({ maxLength: 30 }).map((text) => text.replaceAll(/[^ -~]/g, '')),
  { maxKeys: 5 },
)
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(fc.constantFrom('open', 'reply', 'headers'), id, headers),
  fc.tuple(fc.constantFrom('data', 'end'), id, fc.integer({ min: 0, max: 70_000 })),
  fc.tuple(fc.constantFrom('reset', 'goaway'), id, fc.integer({ min: 0, max: 12 })),
  fc.tuple(fc.constant('ping' as const), id),
  fc.tuple(fc.constantFrom('settings', 'unknown')),
)

function frameOf(deflater: HeaderDeflater, [kind, ...rest]: Step): Buffer {
  const [number = 0, more = 0] = rest
  const length = typeof more === 'number' ? more : 0
  const block = (): Buffer => deflater.deflate(typeof more === 'number' ? {} : more)
  switch (kind) {
    case 'open':
      return synStream(number, block())
    case 'reply':
      return synReply(number, block())
    case 'headers': {
      const frame = synReply(number, block())
      frame.writeUInt16BE(8, 2)
      return frame
    }
    case 'data':
    case 'end':
      return Buffer.concat([dataHead(number, length, kind === 'end'), Buffer.alloc(length, 'x')])
    case 'reset':
      return rstStream(number, length)
    case 'goaway':
      return goAway(number, length)
    case 'ping':
      return ping(number)
    case 'settings':
      return Buffer.from('8003000400000004' + '00000000', 'hex')
    case 'unknown':
      return Buffer.from('8003007700000002' + 'abcd', 'hex')
  }
}

/** Takes every stream, and answers with what comes. */
function lively(connection: SpdyConnection): void {
  connection.onStream = (stream) => {
    if (stream.id % 5 === 0) stream.reset(5)
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
    stream.reply()
  }
}

/** Sends the bytes in pieces, leaves, and waits for the end. @returns how it ended, and what ours has sent */
async function peer(
  role: 'client' | 'server',
  bytes: Buffer,
  cuts: readonly number[],
): Promise<{ fault: Fault | undefined; sent: readonly string[]; valid: boolean }> {
  const [one, other] = duplexPair()
  const { events, parser } = recorder()
  one.on('data', (chunk: Buffer) => parser.push(chunk))
  one.on('error', () => undefined)
  const ours = createSpdyConnection(other, { role })
  lively(ours)
  const asked = [ours.open({ a: 'b' }), ours.open({})].map((stream) =>
    ours.replied(stream).catch((error: unknown) => {
      expect(error).to.be.instanceOf(Fault)
    }),
  )
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b)
  let at = 0
  for (const end of ends) {
    if (end > at) one.write(bytes.subarray(at, end))
    at = end
    if (end % 3 === 0) await new Promise(setImmediate)
  }
  one.end()
  const fault = await ours.closed
  await Promise.all(asked)
  return { fault, sent: events, valid: parser.invalid === undefined }
}

const role = fc.constantFrom('client' as const, 'server' as const)
const cuts = fc.array(fc.nat(200_000), { maxLength: 8 })

describe('a SPDY connection, for any peer', () => {
  const ends = async (
    which: 'client' | 'server',
    bytes: Buffer,
    where: readonly number[],
  ): Promise<void> => {
    const before = process.memoryUsage().arrayBuffers
    const { fault, sent, valid } = await peer(which, bytes, where)
    expect(process.memoryUsage().arrayBuffers - before).to.be.below(MEMORY_BYTES)
    expect(valid).to.equal(true)
    if (fault === undefined) expect(sent).not.to.include('goaway 1')
    else expect(fault.code).to.be.oneOf(['spdy_invalid', 'stream_broken'])
  }

  it('ends in order or with a fault, whatever bytes come', async () => {
    await fc.assert(
      fc.asyncProperty(role, fc.uint8Array({ maxLength: 4000 }), cuts, (which, bytes, where) =>
        ends(which, Buffer.from(bytes), where),
      ),
      { numRuns: RUNS },
    )
  })

  it('ends in order or with a fault, whatever frames come', async () => {
    await fc.assert(
      fc.asyncProperty(role, fc.array(step, { maxLength: 30 }), cuts, (which, steps, where) => {
        const deflater = new HeaderDeflater()
        return ends(which, Buffer.concat(steps.map((one) => frameOf(deflater, one))), where)
      }),
      { numRuns: RUNS },
    )
  })

  /** A conversation that is valid: streams are opened, used and ended in order. */
  const conversation = fc
    .array(fc.tuple(headers, fc.array(fc.nat(40_000), { maxLength: 3 })), { maxLength: 6 })
    .map((streams) => {
      const deflater = new HeaderDeflater()
      const frames = streams.flatMap(([of, lengths], index): Buffer[] => {
        const number = 2 * index + 1
        return [
          synStream(number, deflater.deflate(of)),
          ...lengths.map((length) => frameOf(deflater, ['data', number, length])),
          frameOf(deflater, ['ping', number]),
          frameOf(deflater, ['settings']),
          frameOf(deflater, ['end', number, 0]),
        ]
      })
      return { streams, bytes: Buffer.concat([...frames, goAway(0, 0)]) }
    })

  it('reads the same however the bytes are cut', async () => {
    await fc.assert(
      fc.asyncProperty(conversation, cuts, async ({ streams, bytes }, where) => {
        const { fault, sent, valid } = await peer('server', bytes, where)
        expect(fault).to.equal(undefined)
        expect(valid).to.equal(true)
        const echoed = (number: number): number =>
          sent
            .map((event) => new RegExp(`^data ${number} "(x*)"`).exec(event)?.[1]?.length ?? 0)
            .reduce((sum, length) => sum + length, 0)
        for (const [index, [, lengths]] of streams.entries())
          if ((2 * index + 1) % 5 !== 0)
            expect(echoed(2 * index + 1)).to.equal(lengths.reduce((sum, one) => sum + one, 0))
        expect(sent.filter((event) => event.startsWith('ping'))).to.have.length(streams.length)
      }),
      { numRuns: RUNS / 3 },
    )
  })

  it('ends in order or with a fault, however a valid conversation is changed', async () => {
    const change = fc.tuple(fc.nat(), fc.nat(255), fc.constantFrom('set', 'cut', 'add'))
    await fc.assert(
      fc.asyncProperty(
        conversation,
        fc.array(change, { minLength: 1, maxLength: 4 }),
        cuts,
        async ({ bytes }, changes, where) => {
          let changed = Buffer.from(bytes)
          for (const [place, byte, how] of changes) {
            const at = place % (changed.length + 1)
            const behind = changed.subarray(how === 'add' ? at : at + 1)
            const middle = how === 'cut' ? [] : [Buffer.of(byte)]
            changed = Buffer.concat([changed.subarray(0, at), ...middle, behind])
          }
          await ends('server', changed, where)
        },
      ),
      { numRuns: RUNS },
    )
  })
}).timeout(60_000)
