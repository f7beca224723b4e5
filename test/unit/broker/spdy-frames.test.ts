/** Frames of SPDY/3.1, written and read in pieces of any size. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  dataHead,
  FrameParser,
  goAway,
  MAX_CONTROL_BYTES,
  ping,
  rstStream,
  synReply,
  synStream,
} from '../../../broker/sessions/spdy/frames.ts'
import { recorder } from '../../support/spdy.ts'

const BLOCK = Buffer.from('block')
const data = (id: number, text: string, fin = false): Buffer =>
  Buffer.concat([dataHead(id, text.length, fin), Buffer.from(text, 'latin1')])
const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/[ |]/g, ''), 'hex')
const SETTINGS = hex('8003 0004 00 000014 | 00000002 | 00000004 00000064 | 00000007 00010000')
const WINDOW_UPDATE = hex('8003 0009 00 000008 | 00000000 00010000')
const UNKNOWN = hex('8003 000b 00 000003 | aabbcc')
const HEADERS_FIN = hex('8003 0008 01 000006 | 00000001 6162')

const CONVERSATION: readonly (readonly [Buffer, string?])[] = [
  [SETTINGS],
  [synStream(1, BLOCK), 'syn_stream 1 626c6f636b'],
  [data(1, 'hello'), 'data 1 "hello"'],
  [WINDOW_UPDATE],
  [synReply(1, BLOCK), 'syn_reply 1 626c6f636b'],
  [ping(1), 'ping 1'],
  [data(1, ''), 'data 1 ""'],
  [UNKNOWN],
  [hex('8003 000c 00 000000')],
  [HEADERS_FIN, 'headers 1 6162 fin'],
  [
    data(0x7fffffff, '\x80\x03\x00\x01\x00\x00', true),
    'data 2147483647 "\x80\x03\x00\x01\x00\x00" fin',
  ],
  [data(1, '', true), 'data 1 "" fin'],
  [rstStream(3, 5), 'rst_stream 3 5'],
  [goAway(3, 0), 'goaway 0'],
]
const BYTES = Buffer.concat(CONVERSATION.map(([bytes]) => bytes))
const EVENTS = CONVERSATION.flatMap(([, event]) => (event === undefined ? [] : [event]))

function read(...pieces: readonly Buffer[]): { events: string[]; parser: FrameParser } {
  const { events, parser } = recorder()
  for (const piece of pieces) parser.push(piece)
  return { events, parser }
}

describe('frames of SPDY', () => {
  it('are written as the draft says', () => {
    expect(synStream(1, BLOCK).toString('hex')).to.equal(
      '800300010000000f' + '00000001' + '00000000' + '0000' + '626c6f636b',
    )
    expect(synReply(2, BLOCK).toString('hex')).to.equal(
      '8003000200000009' + '00000002' + '626c6f636b',
    )
    expect(rstStream(3, 5).toString('hex')).to.equal('8003000300000008' + '00000003' + '00000005')
    expect(ping(7).toString('hex')).to.equal('8003000600000004' + '00000007')
    expect(goAway(9, 1).toString('hex')).to.equal('8003000700000008' + '00000009' + '00000001')
    expect(dataHead(5, 0x10000, true).toString('hex')).to.equal('00000005' + '01' + '010000')
  })

  it('are read from one piece', () => {
    const { events, parser } = read(BYTES)
    expect(events).to.deep.equal(EVENTS)
    expect(parser.betweenFrames).to.equal(true)
    expect(parser.invalid).to.equal(undefined)
  })

  it('are read from single bytes', () => {
    expect(read(...[...BYTES].map((byte) => Buffer.of(byte))).events).to.deep.equal(EVENTS)
  })

  it('are read when cut anywhere, once and twice', () => {
    for (let at = 0; at <= BYTES.length; at++)
      for (let end = at; end <= BYTES.length; end += 7) {
        const { events, parser } = read(
          BYTES.subarray(0, at),
          BYTES.subarray(at, end),
          BYTES.subarray(end),
        )
        expect(events, `cut at ${at} and ${end}`).to.deep.equal(EVENTS)
        expect(parser.betweenFrames).to.equal(true)
      }
  })

  it('know whether a frame is cut', () => {
    const ends = new Set<number>([0])
    let length = 0
    for (const [bytes] of CONVERSATION) ends.add((length += bytes.length))
    for (let at = 0; at <= BYTES.length; at++)
      expect(read(BYTES.subarray(0, at)).parser.betweenFrames, String(at)).to.equal(ends.has(at))
  })

  it('hand bytes of DATA on as they come, without a copy', () => {
    const chunk = Buffer.concat([dataHead(1, 0xffffff, false), Buffer.alloc(100, 'x')])
    const seen: Buffer[] = []
    const parser = new FrameParser({
      onControl: () => undefined,
      onDataStart: () => undefined,
      onData: (bytes) => seen.push(bytes),
      onDataEnd: () => expect.fail('not complete'),
    })
    parser.push(chunk)
    expect(seen).to.have.length(1)
    chunk[8] = 0x79
    expect(seen[0]?.[0]).to.equal(0x79)
  })

  it('stop behind whatever the handler stops at, and go on from there', () => {
    for (let stop = 1; stop < 60; stop++) {
      const seen: string[] = []
      let calls = 0
      let stops = 0
      const note = (event: string): void => {
        seen.push(event)
        if (++calls % stop !== 0) return
        parser.halted = true
        stops++
      }
      const parser = new FrameParser({
        onControl: ({ type }) => {
          note(type)
        },
        onDataStart: (id) => {
          note(`start ${id}`)
        },
        onData: (bytes) => {
          note(bytes.toString('latin1'))
        },
        onDataEnd: (fin) => {
          note(fin ? 'fin' : 'end')
        },
      })
      let rest: Buffer = BYTES
      let turns = 0
      do {
        parser.halted = false
        rest = rest.subarray(parser.push(rest))
        turns++
      } while (stops === turns)
      expect(seen.join(), `every ${stop}`).to.equal(
        'syn_stream,start 1,hello,end,syn_reply,ping,start 1,end,headers,' +
          'start 2147483647,\x80\x03\x00\x01\x00\x00,fin,start 1,fin,rst_stream,goaway',
      )
      expect(turns).to.equal(Math.floor(16 / stop) + 1)
    }
  })

  const invalid: Readonly<Record<string, string>> = {
    'another version': '8002 0006 00 000004 | 00000001',
    'data for stream 0': '00000000 00 000001 61',
    'unknown flags of data': '00000001 02 000001 61',
    'a control frame that is too long': `8003 0001 00 ${(MAX_CONTROL_BYTES + 1).toString(16).padStart(6, '0')}`,
    'an unknown control frame that is too long': '8003 00ff 00 ffffff',
    'SYN_STREAM for stream 0': '8003 0001 00 00000b | 00000000 00000000 0000 61',
    'SYN_STREAM for an impossible id': '8003 0001 00 00000b | 80000001 00000000 0000 61',
    'a SYN_STREAM that is too short': '8003 0001 00 000009 | 00000001 00000000 00',
    'a SYN_STREAM without headers': '8003 0001 00 00000a | 00000001 00000000 0000',
    'a unidirectional SYN_STREAM': '8003 0001 02 00000b | 00000001 00000000 0000 61',
    'a SYN_REPLY without an id': '8003 0002 00 000002 | 0000',
    'an empty SYN_REPLY': '8003 0002 00 000000',
    'HEADERS with unknown flags': '8003 0008 80 000005 | 00000001 61',
    'a RST_STREAM that is too short': '8003 0003 00 000004 | 00000001',
    'a RST_STREAM with flags': '8003 0003 01 000008 | 00000001 00000001',
    'a RST_STREAM without a status': '8003 0003 00 000008 | 00000001 00000000',
    'a RST_STREAM for stream 0': '8003 0003 00 000008 | 00000000 00000001',
    'a PING of 8 bytes': '8003 0006 00 000008 | 00000001 00000001',
    'a PING with id 0': '8003 0006 00 000004 | 00000000',
    'a PING with flags': '8003 0006 01 000004 | 00000001',
    'a GOAWAY of SPDY/2': '8003 0007 00 000004 | 00000000',
    'a GOAWAY with flags': '8003 0007 01 000008 | 00000000 00000000',
    'SETTINGS of another length': '8003 0004 00 00000c | 00000002 00000004 00000064',
    'SETTINGS with unknown flags': '8003 0004 02 000004 | 00000000',
    'empty SETTINGS': '8003 0004 00 000000',
    'a WINDOW_UPDATE of 4 bytes': '8003 0009 00 000004 | 00000001',
    'a WINDOW_UPDATE with flags': '8003 0009 01 000008 | 00000001 00000001',
  }
  for (const [name, bytes] of Object.entries(invalid))
    it(`are refused: ${name}`, () => {
      for (const pieces of [[hex(bytes)], [...hex(bytes)].map((byte) => Buffer.of(byte))]) {
        const { events, parser } = read(ping(1), ...pieces, ping(3))
        expect(parser.invalid).to.be.a('string')
        expect(events).to.deep.equal(['ping 1'])
      }
    })

  it('are bounded inclusively', () => {
    const { events, parser } = read(
      hex(`8003 00ff 00 ${MAX_CONTROL_BYTES.toString(16).padStart(6, '0')}`),
      Buffer.alloc(MAX_CONTROL_BYTES),
      ping(5),
    )
    expect(parser.invalid).to.equal(undefined)
    expect(events).to.deep.equal(['ping 5'])
  })
})
