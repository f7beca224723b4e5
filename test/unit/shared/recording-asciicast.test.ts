/** Recordings as asciicast v3: what a player is told, and when. */
import { expect } from 'chai'
import fc from 'fast-check'
import { describe, it } from 'mocha'
import { createAsciicast } from '../../../shared/recording/asciicast.ts'
import type { AsciicastOptions } from '../../../shared/recording/asciicast.ts'
import type { EventView, RecordingHeader } from '../../../shared/recording/payloads.ts'

const HEADER: RecordingHeader = {
  version: 1,
  id: '01J',
  kind: 'exec',
  cluster: 'prod',
  namespace: 'shop',
  name: 'api-0',
  container: 'app',
  command: ['sh', '-c', 'id'],
  tty: true,
  startedAt: '2026-11-26T12:00:00.500Z',
}

function header(change: Partial<RecordingHeader> = {}): EventView {
  return { name: 'header', atUs: 0, value: { ...HEADER, ...change } }
}

function output(
  atUs: number,
  text: string | Uint8Array,
  name: 'stdout' | 'stderr' = 'stdout',
): EventView {
  return { name, atUs, bytes: typeof text === 'string' ? Buffer.from(text) : text }
}

function cast(views: readonly EventView[], options: AsciicastOptions = {}): unknown[] {
  const made = createAsciicast(options)
  const lines = [...views.flatMap((view) => [...made.event(view)]), ...made.end()]
  return lines.map((line) => {
    expect(line).to.match(/^[^\n]+\n$/)
    return JSON.parse(line) as unknown
  })
}

describe('asciicast v3', () => {
  it('begins with the header, in the size the terminal begins with', () => {
    const lines = cast(
      [
        header(),
        output(1000, 'a'),
        { name: 'resize', atUs: 2000, columns: 132, rows: 43 },
        { name: 'resize', atUs: 900_000, columns: 90, rows: 30 },
      ],
      { idleTimeLimit: 2 },
    )
    expect(lines).to.deep.equal([
      {
        version: 3,
        term: { cols: 132, rows: 43 },
        timestamp: 1_795_694_400,
        idle_time_limit: 2,
        command: 'sh -c id',
        title: 'exec shop/api-0, container app, prod',
      },
      [0.001, 'o', 'a'],
      [0.899, 'r', '90x30'],
    ])
  })

  it('does not wait for a size for ever, nor where there is no terminal', () => {
    const late = cast([
      header(),
      output(1000, 'a'),
      { name: 'resize', atUs: 500_001, columns: 132, rows: 43 },
    ])
    expect(late[0]).to.have.deep.property('term', { cols: 80, rows: 24 })
    expect(late.slice(1)).to.deep.equal([
      [0.001, 'o', 'a'],
      [0.499, 'r', '132x43'],
    ])
    const many = createAsciicast()
    many.event(header())
    const come = Array.from({ length: 101 }, () => many.event(output(1, 'x')).length)
    expect(come.slice(0, 100).every((count) => count === 0)).to.equal(true)
    expect(come[100]).to.equal(102)
    const followed = createAsciicast()
    followed.event(header())
    followed.event(output(1, 'x'))
    expect(followed.flush()).to.have.length(2)
    expect(createAsciicast().event(header({ tty: false }))).to.have.length(1)
    expect(cast([header()])).to.have.length(1)
    expect(cast([output(1, 'no header')])).to.deep.equal([])
  })

  it('has times whose rounding does not add up, and that never go back', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(3000), { minLength: 1, maxLength: 300 }), (steps) => {
        let at = 0
        const views = steps.map((step) => output((at += step), 'x'))
        const lines = cast([header({ tty: false }), ...views]).slice(1) as [number][]
        const sum = lines.reduce((total, [interval]) => total + interval, 0)
        expect(sum).to.be.closeTo(at / 1e6, 0.000_501)
        expect(lines.every(([interval]) => interval >= 0)).to.equal(true)
      }),
    )
    const back = cast([header({ tty: false }), output(5000, 'a'), output(1000, 'b')])
    expect(back.slice(1)).to.deep.equal([
      [0.005, 'o', 'a'],
      [0, 'o', 'b'],
    ])
  })

  it('carries unfinished characters across events, stream by stream', () => {
    const bytes = Buffer.from('ü漢😀')
    const cut = [...bytes].flatMap((byte, i) => [
      output(i, Uint8Array.of(byte)),
      output(i, Uint8Array.of(bytes[i]!), 'stderr'),
    ])
    const lines = cast([header({ tty: false }), ...cut]).slice(1) as [number, string, string][]
    expect(lines.map(([, , text]) => text)).to.deep.equal(['ü', 'ü', '漢', '漢', '😀', '😀'])
    const broken = cast([
      header({ tty: false }),
      output(0, Uint8Array.of(0x61, 0xff, 0x62, 0xe6)),
      { name: 'endOfStream', atUs: 0, stream: 'stdout' },
      output(0, Uint8Array.of(0xe6), 'stderr'),
    ])
    const marked = cast([header({ tty: false }), output(0, '\ufeffa')], { raw: true })
    expect(marked[1]).to.deep.equal([0, 'o', '\ufeffa'])
    expect(broken.slice(1)).to.deep.equal([
      [0, 'o', 'a\ufffdb'],
      [0, 'o', '\ufffd'],
      [0, 'o', '\ufffd'],
    ])
  })

  it('begins new lines where no terminal did it, wherever the output is cut', () => {
    const text = 'a\nb\r\nc\n\r\n\nd'
    for (let cut = 0; cut <= text.length; cut += 1) {
      const lines = cast([
        header({ tty: false }),
        output(0, text.slice(0, cut)),
        output(0, text.slice(cut)),
      ]).slice(1) as [number, string, string][]
      expect(lines.map(([, , data]) => data).join('')).to.equal('a\r\nb\r\nc\r\n\r\n\r\nd')
    }
    expect(cast([header(), output(0, 'a\nb')])[1]).to.deep.equal([0, 'o', 'a\nb'])
  })

  it('is safe to show, unless asked for as it is', () => {
    const hostile = '\u001b]52;c;AA==\u0007x\u001b[6n\u202e'
    const views: EventView[] = [
      header({ tty: false, name: 'evil\u001b[2J\u202e', command: ['\n'] }),
      output(0, hostile),
      { name: 'stdin', atUs: 0, bytes: Buffer.from('y\u001b[6n') },
      { name: 'marker', atUs: 0, value: { kind: 'note', text: 'z\u001b]0;t\u0007' } },
    ]
    const [first, ...lines] = cast(views)
    expect(first).to.include({
      command: '\\u{a}',
      title: 'exec shop/evil\\u{1b}[2J\\u{202e}, container app, prod',
    })
    expect(lines).to.deep.equal([
      [0, 'o', 'x\\u{202e}'],
      [0, 'i', 'y'],
      [0, 'm', 'note: z\\u{1b}]0;t\\u{7}'],
    ])
    expect(cast(views, { raw: true })[1]).to.deep.equal([0, 'o', hostile])
  })

  it('marks what is no output, and ends with the exit status', () => {
    const hash = 'a'.repeat(64)
    const lines = cast([
      header({ tty: false }),
      { name: 'marker', atUs: 0, value: { kind: 'approved', text: 'by bob' } },
      {
        name: 'marker',
        atUs: 0,
        value: { kind: 'masked', text: 'hidden', stream: 'stdout', detector: 'jwt', length: 9 },
      },
      { name: 'stdinOmitted', atUs: 0, value: { bytes: 4 } },
      { name: 'connectionOpened', atUs: 0, value: { connection: 1, port: 8080 } },
      { name: 'toClient', atUs: 0, connection: 1, bytes: Buffer.from('secret') },
      {
        name: 'connectionClosed',
        atUs: 0,
        value: { connection: 1, bytesUp: 2, bytesDown: 3, sha256Up: hash, sha256Down: hash },
      },
      {
        name: 'file',
        atUs: 0,
        value: { direction: 'fromPod', name: 'etc/x', type: 'file', size: 7, sha256: hash },
      },
      { name: 'result', atUs: 1_000_000, value: { status: 'Failure', exitCode: 7 } },
    ])
    expect(lines.slice(1)).to.deep.equal([
      [0, 'm', 'approved: by bob'],
      [0, 'm', 'masked: hidden: jwt, stdout, 9 bytes'],
      [0, 'm', 'connection 1 to port 8080 opened'],
      [0, 'm', 'connection 1 closed, 2 bytes up, 3 down'],
      [0, 'm', `file from the pod, 7 bytes, SHA-256 ${hash}: etc/x`],
      [1, 'x', '7'],
    ])
    const failed: EventView = { name: 'result', atUs: 0, value: { status: 'Failure' } }
    expect(cast([header({ tty: false }), failed])[1]).to.deep.equal([0, 'x', '1'])
  })
})
