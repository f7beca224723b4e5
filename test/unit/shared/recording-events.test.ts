/** The events of a recording: what is written is read again, in pieces of any size, and what is no event is refused. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import {
  EVENT,
  EVENT_HEADER_BYTES,
  MAX_EVENT_PAYLOAD_BYTES,
  createEventReader,
  encodeEndOfStream,
  encodeEvent,
  encodeOutput,
  encodeResize,
  encodeTunnel,
} from '../../../shared/recording/events.ts'
import type { EventType, RecordedEvent } from '../../../shared/recording/events.ts'
import { encodeJsonEvent, viewEvent } from '../../../shared/recording/payloads.ts'

const HEADER = {
  version: 1,
  id: '01J',
  kind: 'exec',
  cluster: 'prod',
  namespace: 'shop',
  name: 'api-0',
  command: ['sh', '-c', 'echo ü'],
  tty: false,
  startedAt: '2026-11-26T12:00:00.000Z',
} as const

function readAll(bytes: Uint8Array, cuts: readonly number[]): RecordedEvent[] {
  const reader = createEventReader()
  const events: RecordedEvent[] = []
  const places = [...new Set(cuts.map((cut) => Math.min(cut, bytes.length)))].sort((a, b) => a - b)
  let from = 0
  for (const to of [...places, bytes.length]) {
    events.push(...reader.read(bytes.subarray(from, to)))
    from = to
  }
  expect(reader.end()).to.equal(undefined)
  expect(reader.offset).to.equal(bytes.length)
  return events
}

const anyEvent = fc.record({
  type: fc.constantFrom<EventType>(...Object.values(EVENT)),
  atUs: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
  payload: fc.uint8Array({ maxLength: 300 }),
})

describe('recorded events', () => {
  it('are read as they were written, whatever the pieces', () => {
    fc.assert(
      fc.property(fc.array(anyEvent), fc.array(fc.nat(3000)), (events, cuts) => {
        const bytes = Buffer.concat(
          events.map(({ type, atUs, payload }) => encodeEvent(type, atUs, payload)),
        )
        const read = readAll(bytes, cuts)
        expect(
          read.map(({ type, atUs, payload }) => ({ type, atUs, payload: [...payload] })),
        ).to.deep.equal(events.map((event) => ({ ...event, payload: [...event.payload] })))
      }),
    )
  })

  it('are read byte by byte, with the longest payload', () => {
    const payload = Buffer.alloc(MAX_EVENT_PAYLOAD_BYTES, 'x')
    const bytes = Buffer.concat([
      encodeEvent(EVENT.stdout, 7, payload),
      encodeEvent(EVENT.end, 8, Buffer.from('{}')),
    ])
    const reader = createEventReader()
    const events = [...bytes].flatMap((byte) => [...reader.read(Uint8Array.of(byte))])
    expect(events.map(({ type, atUs }) => [type, atUs])).to.deep.equal([
      [EVENT.stdout, 7],
      [EVENT.end, 8],
    ])
    expect(payload.equals(events[0]!.payload)).to.equal(true)
  })

  it('keep what came in pieces when the reader goes on', () => {
    const reader = createEventReader()
    const first = encodeEvent(EVENT.stdout, 1, Buffer.from('first'))
    reader.read(first.subarray(0, 4))
    const [event] = reader.read(first.subarray(4))
    const second = encodeEvent(EVENT.stdout, 2, Buffer.from('OTHER'))
    reader.read(second.subarray(0, 14))
    expect(Buffer.from(event!.payload).toString()).to.equal('first')
  })

  it('are refused from the first that is none, in whatever pieces', () => {
    const good = encodeEvent(EVENT.stdout, 1, Buffer.from('good'))
    const unknown = Buffer.from(good)
    unknown.writeUInt8(16, 0)
    const zero = Buffer.from(good)
    zero.writeUInt8(0, 0)
    const long = Buffer.from(good)
    long.writeUInt32BE(MAX_EVENT_PAYLOAD_BYTES + 1, 7)
    for (const bad of [unknown, zero, long]) {
      const bytes = Buffer.concat([good, bad, good])
      for (let cut = 0; cut <= bytes.length; cut += 1) {
        const reader = createEventReader()
        const events = [...reader.read(bytes.subarray(0, cut)), ...reader.read(bytes.subarray(cut))]
        expect(events).to.have.length(1)
        expect(reader.refused?.refused).to.equal('recording_corrupt')
        expect(reader.refused?.detail).to.contain(`at byte ${good.length}`)
        expect(reader.read(good)).to.deep.equal([])
        expect(reader.end()).to.equal(reader.refused)
      }
    }
  })

  it('that are cut off are refused at the end only', () => {
    const bytes = encodeEvent(EVENT.stdout, 1, Buffer.from('good'))
    const reader = createEventReader()
    expect(reader.read(bytes.subarray(0, bytes.length - 1))).to.deep.equal([])
    expect(reader.refused).to.equal(undefined)
    expect(reader.end()?.refused).to.equal('recording_corrupt')
  })

  it('are split where the bytes are too many for one', () => {
    const bytes = Buffer.alloc(MAX_EVENT_PAYLOAD_BYTES * 2 + 5, 'abc')
    const reader = createEventReader()
    const events = encodeOutput('stderr', 9, bytes).flatMap((event) => [...reader.read(event)])
    expect(events).to.have.length(3)
    expect(events.every(({ type, atUs }) => type === EVENT.stderr && atUs === 9)).to.equal(true)
    expect(Buffer.concat(events.map(({ payload }) => payload)).equals(bytes)).to.equal(true)
    const tunnel = encodeTunnel('toClient', 9, 4_000_000_000, bytes).flatMap((event) => [
      ...reader.read(event),
    ])
    const views = tunnel.map(viewEvent).map((view) => {
      if (!('name' in view) || view.name !== 'toClient') throw new Error('not read')
      expect(view.connection).to.equal(4_000_000_000)
      return view.bytes
    })
    expect(Buffer.concat(views).equals(bytes)).to.equal(true)
    expect(encodeOutput('stdout', 9, Buffer.alloc(0))).to.deep.equal([])
    expect(() => encodeEvent(EVENT.stdout, 0, bytes)).to.throw(RangeError)
  })
})

describe('the payloads of events', () => {
  function view(bytes: Buffer): ReturnType<typeof viewEvent> {
    const [event] = createEventReader().read(bytes)
    return viewEvent(event!)
  }

  it('are read again', () => {
    expect(view(encodeJsonEvent('header', 0, HEADER))).to.deep.equal({
      name: 'header',
      atUs: 0,
      value: HEADER,
    })
    const masked = { kind: 'masked', text: 'hidden', stream: 'stdout', detector: 'jwt', length: 9 }
    expect(
      view(encodeJsonEvent('marker', 5, { ...masked, stream: 'stdout', more: 1 })),
    ).to.deep.equal({ name: 'marker', atUs: 5, value: { ...masked, more: 1 } })
    expect(view(encodeResize(1, 132, 70_000))).to.deep.equal({
      name: 'resize',
      atUs: 1,
      columns: 132,
      rows: 65_535,
    })
    expect(view(encodeEndOfStream(1, 'stderr'))).to.deep.equal({
      name: 'endOfStream',
      atUs: 1,
      stream: 'stderr',
    })
    expect(
      view(encodeJsonEvent('result', 1, { status: 'Failure', exitCode: 3 })),
    ).to.have.deep.property('value', { status: 'Failure', exitCode: 3 })
  })

  it('are refused where they are not what the type has', () => {
    const bad: [EventType, Uint8Array][] = [
      [EVENT.header, Buffer.from('{}')],
      [EVENT.header, Buffer.from(JSON.stringify({ ...HEADER, version: 2 }))],
      [EVENT.header, Buffer.from('no JSON')],
      [EVENT.marker, Buffer.from(JSON.stringify({ kind: 'UPPER', text: '' }))],
      [EVENT.marker, Uint8Array.of(0x22, 0xff, 0x22)],
      [EVENT.stdinOmitted, Buffer.from('{"bytes":-1}')],
      [EVENT.resize, Uint8Array.of(0, 80, 0)],
      [EVENT.endOfStream, Uint8Array.of(5)],
      [EVENT.endOfStream, Uint8Array.of(2, 2)],
      [EVENT.toClient, Uint8Array.of(0, 0, 1)],
      [EVENT.end, Buffer.from('{}')],
    ]
    for (const [type, payload] of bad)
      expect(view(encodeEvent(type, 0, payload)), `type ${type}`).to.have.property(
        'refused',
        'recording_corrupt',
      )
    expect(EVENT_HEADER_BYTES).to.equal(11)
  })
})
