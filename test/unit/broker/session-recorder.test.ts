import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { createRecorder } from '../../../broker/sessions/recorder.ts'
import type { SessionRecorder } from '../../../broker/sessions/recorder.ts'
import type { Ended, RecordingWriter } from '../../../broker/sessions/recordings/types.ts'
import type { Recording } from '../../../shared/policy/decision.ts'
import { RECORD_REQUIRED } from '../../../shared/policy/terms.ts'
import { createEventReader } from '../../../shared/recording/events.ts'
import { viewEvent } from '../../../shared/recording/payloads.ts'
import type { EventView } from '../../../shared/recording/payloads.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { SessionFacts } from '../../../shared/recording/session-wire.ts'

const FACTS: SessionFacts = {
  ...{ id: '01a20a06-af7f-7b7b-a775-ed1b1dee08e4', kind: 'exec', cluster: 'test' },
  ...{ namespace: 'agents', name: 'p', tty: false, stdin: true, subject: 'alice' },
  ...{ rules: ['r'], policyDigest: 'd', protocol: 'SPDY/3.1' },
  startedAt: '2026-11-26T12:00:00.000Z',
}

interface Taken {
  readonly recorder: SessionRecorder
  readonly failed: AbortController
  readonly killed: AbortController
  readonly ended: Ended[]
  events(): readonly EventView[]
  /** All bytes of one stream, in order. */
  text(name: 'stdin' | 'stdout' | 'stderr'): string
  of<Name extends EventView['name']>(name: Name): readonly Extract<EventView, { name: Name }>[]
}

function take(terms: Partial<Recording> = {}, command?: string[]): Taken {
  const parts: Buffer[] = []
  const failed = new AbortController()
  const killed = new AbortController()
  const ended: Ended[] = []
  const writer: RecordingWriter = {
    write: (event, payload) => {
      parts.push(Buffer.from(event), Buffer.from(payload ?? []))
    },
    room: () => undefined,
    get bytes() {
      return parts.reduce((sum, { length }) => sum + length, 0)
    },
    ...{ failed: failed.signal, killed: killed.signal },
    follow: () => () => undefined,
    end: (how) => {
      ended.push(how)
      return Promise.resolve()
    },
  }
  const facts = { ...FACTS, ...(command === undefined ? {} : { command }) }
  const recorder = createRecorder(writer, { ...RECORD_REQUIRED, ...terms }, facts)
  const events = (): readonly EventView[] => {
    const reader = createEventReader()
    const read = reader.read(Buffer.concat(parts))
    expect(reader.end()).to.equal(undefined)
    return read.map((event) => {
      const view = viewEvent(event)
      if (isRefusal(view)) throw new Error(`unreadable: ${event.type}`)
      return view
    })
  }
  const of = <Name extends EventView['name']>(
    name: Name,
  ): readonly Extract<EventView, { name: Name }>[] =>
    events().filter((event): event is Extract<EventView, { name: Name }> => event.name === name)
  const text = (name: 'stdin' | 'stdout' | 'stderr'): string =>
    Buffer.concat(
      events().flatMap((event) => (event.name === name && 'bytes' in event ? [event.bytes] : [])),
    ).toString('latin1')
  return { recorder, failed, killed, ended, events, of, text }
}

// made of pieces, so that no scanner takes this file for a leak
const TOKEN = ['ghp', '_', 'a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8'].join('')

describe('the recorder of a session', () => {
  it('begins with the header, ends with the sums, and keeps output byte for byte', async () => {
    const taken = take({}, ['ls', '-l'])
    const { recorder } = taken
    const bytes = Buffer.from([0, 255, 10, 128, 27, 91, 195])
    expect(recorder.output('stdout', bytes)).to.equal(true)
    expect(recorder.output('stderr', Buffer.from('oh\n'))).to.equal(true)
    recorder.endOutput('stdout')
    recorder.endOutput('stderr')
    recorder.result({ status: 'Failure', exitCode: 7 })
    expect(await recorder.end()).to.equal(true)
    const names = taken.events().map(({ name }) => name)
    expect(names[0]).to.equal('header')
    expect(names.slice(-2)).to.deep.equal(['result', 'end'])
    expect(taken.of('header')[0]?.value).to.deep.include({ kind: 'exec', command: ['ls', '-l'] })
    expect(JSON.stringify(taken.events())).to.not.include('alice')
    expect(taken.text('stdout')).to.equal(bytes.toString('latin1'))
    expect(taken.text('stderr')).to.equal('oh\n')
    expect(taken.ended[0]).to.deep.include({ result: { status: 'Failure', exitCode: 7 } })
    expect(taken.ended[0]?.totals).to.include({ stdoutBytes: 7, stderrBytes: 3, truncated: false })
  })

  it('counts input that is left out, together, and keeps it where a rule says so', async () => {
    const without = take()
    for (const key of 'secret') without.recorder.input(Buffer.from(key))
    without.recorder.endInput()
    await without.recorder.end()
    expect(without.of('stdinOmitted').map(({ value }) => value.bytes)).to.deep.equal([6])
    expect(JSON.stringify(without.events())).to.not.include('secret')
    const kept = take({ stdin: true })
    kept.recorder.input(Buffer.from('ls\n'))
    await kept.recorder.end()
    expect(kept.text('stdin')).to.equal('ls\n')
    expect(kept.of('stdinOmitted')).to.deep.equal([])
  })

  it('masks what looks like a secret, also in two pieces, and says so', async () => {
    const taken = take()
    const line = `token is ${TOKEN} indeed\n`
    taken.recorder.output('stdout', Buffer.from(line.slice(0, 20)))
    taken.recorder.output('stdout', Buffer.from(line.slice(20)))
    await taken.recorder.end()
    expect(taken.text('stdout'))
      .to.have.length(line.length)
      .and.to.include('indeed')
      .and.to.not.include(TOKEN.slice(8))
    expect(taken.of('marker')[0]?.value).to.include({ kind: 'masked', stream: 'stdout' })
    const open = take({ mask: false })
    open.recorder.output('stdout', Buffer.from(line))
    await open.recorder.end()
    expect(open.text('stdout')).to.equal(line)
  })

  it('keeps events in the order of their times, also while output is kept back', async () => {
    const taken = take()
    taken.recorder.output('stdout', Buffer.from('Password'))
    await sleep(5)
    taken.recorder.output('stderr', Buffer.from('a warning\n'))
    taken.recorder.resize({ columns: 80, rows: 24 })
    await sleep(5)
    taken.recorder.output('stdout', Buffer.from(': done\n'))
    await taken.recorder.end()
    const times = taken.events().map(({ atUs }) => atUs)
    expect(times).to.deep.equal([...times].sort((one, other) => one - other))
    const order = taken.events().map(({ name }) => name)
    expect(order.indexOf('stdout')).to.be.lessThan(order.indexOf('stderr'))
    expect(taken.text('stdout')).to.equal('Password: done\n')
  })

  it('stops a session that must be recorded at its bound, and says so in the recording', async () => {
    const taken = take({ maxBytes: 4096 })
    const piece = Buffer.alloc(1000, 'x\n')
    let went = 0
    while (went < 10 && taken.recorder.output('stdout', piece)) went += 1
    expect(went).to.be.within(1, 3)
    expect((await taken.recorder.stopped).ending).to.equal('recording_full')
    expect(taken.recorder.input(Buffer.from('x'))).to.equal(false)
    await taken.recorder.end('recording_full')
    expect(taken.of('marker').map(({ value }) => value.kind)).to.deep.equal(['truncated'])
    expect(taken.text('stdout')).to.have.length(went * 1000)
    expect(taken.of('end')[0]?.value).to.include({ truncated: true, stdoutBytes: went * 1000 })
    const loose = take({ maxBytes: 4096, mode: 'best_effort' })
    for (let i = 0; i < 10; i += 1) expect(loose.recorder.output('stdout', piece)).to.equal(true)
    await loose.recorder.end()
    expect(loose.of('end')[0]?.value).to.include({ truncated: true, stdoutBytes: 10_000 })
    expect(loose.text('stdout').length).to.be.lessThan(4096)
  })

  it('lets nothing go on once it cannot be written, where it must be', async () => {
    const taken = take()
    taken.failed.abort()
    expect(taken.recorder.output('stdout', Buffer.from('x'))).to.equal(false)
    expect(taken.recorder.fromClient(taken.recorder.opened(80), Buffer.from('x'))).to.equal(false)
    expect((await taken.recorder.stopped).ending).to.equal('recording_failed')
    expect(await taken.recorder.end()).to.equal(false)
    const loose = take({ mode: 'best_effort' })
    loose.failed.abort()
    expect(loose.recorder.output('stdout', Buffer.from('x'))).to.equal(true)
    expect(await loose.recorder.end()).to.equal(true)
  })

  it('tells who ended it, and why', async () => {
    const taken = take()
    taken.killed.abort({ actor: 'bob', reason: 'enough' })
    expect(await taken.recorder.stopped).to.deep.equal({
      ...{ ending: 'killed', text: 'ended by bob: enough', kept: 'enough' },
    })
  })

  it('keeps of copied files the names, sizes and hashes, and their content where a rule says so', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'nestgate-recorder-'))
    writeFileSync(join(dir, 'a.txt'), 'content of a\n')
    const archive = execFileSync('tar', ['cf', '-', '-C', dir, 'a.txt'])
    rmSync(dir, { recursive: true })
    const taken = take({}, ['tar', 'cf', '-', 'a.txt'])
    for (let at = 0; at < archive.length; at += 100)
      taken.recorder.output('stdout', archive.subarray(at, at + 100))
    taken.recorder.endOutput('stdout')
    await taken.recorder.end()
    expect(taken.of('file').map(({ value }) => value)).to.have.length(1)
    expect(taken.of('file')[0]?.value).to.deep.include({
      ...{ direction: 'fromPod', name: 'a.txt', size: 13 },
      sha256: createHash('sha256').update('content of a\n').digest('hex'),
    })
    expect(taken.text('stdout')).to.not.include('content of a')
    const whole = take({ files: true, mask: false }, ['tar', 'cf', '-', 'a.txt'])
    whole.recorder.output('stdout', archive)
    await whole.recorder.end()
    expect(whole.text('stdout')).to.equal(archive.toString('latin1'))
    const liar = take({}, ['tar', 'cf', '-', 'a.txt'])
    liar.recorder.output('stdout', Buffer.from('no archive at all\n'.repeat(50)))
    liar.recorder.endOutput('stdout')
    await liar.recorder.end()
    expect(liar.text('stdout')).to.equal('no archive at all\n'.repeat(50))
  })

  it('counts and hashes forwarded connections, and keeps their beginning where a rule says so', async () => {
    const taken = take({ tunnelBytes: 4 })
    const connection = taken.recorder.opened(8080)
    taken.recorder.fromClient(connection, Buffer.from('GET /'))
    taken.recorder.toClient(connection, Buffer.from('200'))
    taken.recorder.closed(connection, 'it broke: token=hunter2-x')
    await taken.recorder.end()
    const hash = (text: string): string => createHash('sha256').update(text).digest('hex')
    expect(taken.of('connectionClosed')[0]?.value).to.deep.include({
      ...{ connection, bytesUp: 5, bytesDown: 3, error: 'it broke: token=*********' },
      ...{ sha256Up: hash('GET /'), sha256Down: hash('200') },
    })
    const kept = taken.events().flatMap((event) => ('connection' in event ? [event] : []))
    expect(kept.map(({ bytes }) => Buffer.from(bytes).toString())).to.deep.equal(['GET ', '200'])
    expect(taken.of('end')[0]?.value).to.include({ connections: 1, bytesUp: 5, bytesDown: 3 })
  })

  it('has each file or its content, whatever its name', async () => {
    for (const [length, isListed] of [
      [2_000, true],
      [9_000, false],
    ] as const) {
      const taken = take({}, ['tar', 'cf', '-', 'x'])
      const dir = mkdtempSync(join(tmpdir(), 'nestgate-recorder-'))
      writeFileSync(join(dir, 'a'), 'what is in it')
      const long = 'd\u0001'.repeat(length)
      const archive = execFileSync('tar', [
        ...['--format=pax', `--transform=s,a,${long},`, '-cf', '-', '-C', dir, 'a'],
      ])
      rmSync(dir, { recursive: true })
      taken.recorder.output('stdout', archive)
      taken.recorder.endOutput('stdout')
      await taken.recorder.end()
      expect(taken.of('file').map(({ value }) => value.name)).to.deep.equal(isListed ? [long] : [])
      expect(taken.text('stdout').includes('what is in it')).to.equal(!isListed)
    }
  })
})
