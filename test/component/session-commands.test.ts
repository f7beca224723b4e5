/**
 * Exec and attach by every protocol, through a real broker process: what the program sent, what the client got and what the recording holds must
 * be the same bytes. The recording is read by docs/decisions/0009 and none of the broker's code.
 */
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import { setTimeout as sleep } from 'node:timers/promises'
import { noise } from '../support/fake-kubelet.ts'
import type { ProgramIo } from '../support/fake-kubelet.ts'
import { CHANNEL, NotSwitched, openChannels, openSpdySession } from '../support/remote-clients.ts'
import type { ExecProtocol } from '../support/remote-clients.ts'
import { bytesOf, jsonOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 60_000
const ALL = 'stdin=true&stdout=true&stderr=true'
const WEBSOCKET: readonly ExecProtocol[] = [
  'v5.channel.k8s.io',
  'v4.channel.k8s.io',
  'v4.base64.channel.k8s.io',
]
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: read, match: {verbs: [get, list], resources: ['*']}, effect: allow}
- {id: typed, match: {verbs: [connect], resources: [pods/attach]}, effect: allow, record: {mode: required, stdin: true, mask: false}}
- {id: ran, match: {verbs: [connect], resources: [pods/exec]}, effect: allow, record: {mode: required, mask: false}}
`

/** What a client of any protocol does in these tests. */
interface Side {
  input(bytes: Uint8Array): Promise<void>
  endInput(): Promise<void>
  resize(columns: number, rows: number): Promise<void>
  /** Settles when the session is over. */
  readonly over: Promise<unknown>
  stdout(): Buffer
  stderr(): Buffer
  status(): object | undefined
  leave(): void
}

describe('commands through the broker', () => {
  let world: SessionWorld

  before(async function () {
    this.timeout(SLOW_MS)
    world = await startSessionWorld(POLICY)
  })
  after(async function () {
    this.timeout(SLOW_MS)
    await world.close()
  })
  beforeEach(() => {
    world.kubelet.closing = 'kubelet'
  })
  afterEach(() => {
    for (const { socket } of world.kubelet.sessions.splice(0)) socket.destroy()
  })

  async function open(protocol: string, sub: string, query: string): Promise<Side> {
    if (protocol !== 'SPDY/3.1') {
      const client = await openChannels(world.address(sub, query), protocol)
      return {
        input: (bytes) => client.send(CHANNEL.stdin, bytes),
        endInput: () => client.closeChannel(CHANNEL.stdin),
        resize: (columns, rows) => client.resize(columns, rows),
        over: client.closed,
        stdout: () => client.bytes(CHANNEL.stdout),
        stderr: () => client.bytes(CHANNEL.stderr),
        status: () => client.status,
        leave: () => {
          client.socket.terminate()
        },
      }
    }
    const has = (name: string): boolean => query.includes(`${name}=true`)
    const names = [
      ...['error', ...['stdin', 'stdout'].filter(has)],
      ...(has('stderr') && !has('tty') ? ['stderr'] : []),
      ...(has('tty') ? ['resize'] : []),
    ]
    const session = await openSpdySession(world.address(sub, query), names)
    const bytes = (name: string): Buffer => session.streams.get(name)?.bytes ?? Buffer.alloc(0)
    return {
      input: (given) => session.stream('stdin').write(given),
      endInput: () => session.stream('stdin').end(),
      resize: (Width, Height) =>
        session.stream('resize').write(Buffer.from(JSON.stringify({ Width, Height }))),
      over: session.peer.over.then(() => {
        expect(session.peer.violations).to.deep.equal([])
      }),
      stdout: () => bytes('stdout'),
      stderr: () => bytes('stderr'),
      status: () => {
        const text = bytes('error').toString()
        return text === '' ? undefined : (JSON.parse(text) as object)
      },
      leave: () => {
        session.peer.socket.destroy()
      },
    }
  }

  for (const protocol of [...WEBSOCKET, 'SPDY/3.1']) {
    describe(`by ${protocol}`, () => {
      it('have all that was printed, in the client and in the recording', async () => {
        world.kubelet.programs.set('both', async (io: ProgramIo) => {
          await io.stdout(noise(300_000, 3), 40_000)
          await io.stderr(noise(70_000, 4), 1_000)
          await io.stdout(Buffer.from([0, 255, 0xc3]))
          await io.stdout(Buffer.from([0xa4]))
          return 0
        })
        const client = await open(protocol, 'exec', `command=both&command=a%20b&${ALL}`)
        await client.over
        const { sent, peer, query } = world.kubelet.last()
        expect(client.stdout().equals(sent.stdout.all), 'stdout').to.equal(true)
        expect(client.stderr().equals(sent.stderr.all), 'stderr').to.equal(true)
        expect(client.status()).to.include({ status: 'Success' })
        expect(query.getAll('command')).to.deep.equal(['both', 'a b'])
        await peer?.over
        expect(peer?.violations).to.deep.equal([])
        const session = await world.settled()
        expect(session).to.deep.include({
          ...{ kind: 'exec', state: 'ended', command: ['both', 'a b'] },
          result: { status: 'Success', exitCode: 0 },
        })
        expect(session).not.to.have.property('ending')
        const recording = world.recording(session.id)
        expect(bytesOf(recording, TYPE.stdout).equals(sent.stdout.all)).to.equal(true)
        expect(bytesOf(recording, TYPE.stderr).equals(sent.stderr.all)).to.equal(true)
        expect(recording.isComplete).to.equal(true)
        expect(recording.events[0]?.type).to.equal(TYPE.header)
        expect(recording.events.at(-1)?.type).to.equal(TYPE.end)
        expect(recording.hashes.at(-1)).to.equal(session.recording?.runningSha256)
        const entries = world.entries(session.id)
        expect(entries.map(({ event }) => event)).to.deep.equal(['started', 'ended'])
        expect(entries.at(-1)?.detail).to.include({ runningSha256: recording.hashes.at(-1) })
      })

      it('have their exit code, and reasons', async () => {
        for (const [command, exitCode] of [
          ['exit', 7],
          ['exit', 137],
          ['exit', 255],
        ] as const) {
          const client = await open(protocol, 'exec', `command=exit&command=${exitCode}&${ALL}`)
          await client.over
          expect(client.status(), command).to.deep.include({
            status: 'Failure',
            details: { causes: [{ reason: 'ExitCode', message: String(exitCode) }] },
          })
          const { result } = await world.settled()
          expect(result).to.include({ status: 'Failure', exitCode, reason: 'NonZeroExitCode' })
        }
        const client = await open(protocol, 'exec', `command=nothere&${ALL}`)
        await client.over
        expect(client.status()).to.include({ reason: 'InternalError' })
        const session = await world.settled()
        expect(session.result?.exitCode).to.equal(undefined)
        expect(session.result?.reason).to.equal('InternalError')
      })

      it('take what is typed to the program, and keep only how much it was', async () => {
        const client = await open(protocol, 'exec', `command=cat&${ALL}`)
        const typed = noise(200_000, 9)
        await client.input(typed.subarray(0, 5))
        await client.input(typed.subarray(5, 100_000))
        await client.input(typed.subarray(100_000))
        await until('the echo', () => client.stdout().length === typed.length || undefined)
        if (protocol.startsWith('v4')) client.leave()
        else await client.endInput()
        await client.over
        expect(client.stdout().equals(typed)).to.equal(true)
        const { stdin, stdinEnded, peer } = world.kubelet.last()
        await peer?.over
        expect(stdin.all.equals(typed)).to.equal(true)
        if (!protocol.startsWith('v4')) expect(stdinEnded).to.equal(true)
        const session = await world.settled()
        expect(session.totals).to.include({ stdinBytes: typed.length, stdoutBytes: typed.length })
        const recording = world.recording(session.id)
        expect(bytesOf(recording, TYPE.stdin)).to.have.length(0)
        const omitted = jsonOf(recording, TYPE.stdinOmitted).map(({ bytes }) => bytes as number)
        expect(omitted.reduce((sum, bytes) => sum + bytes, 0)).to.equal(typed.length)
        expect(session.ending).to.equal(protocol.startsWith('v4') ? 'client_left' : undefined)
      })

      it('keep what is typed where the rule says so, and the terminal’s sizes', async () => {
        world.kubelet.attached = async (io) => {
          io.onStdin((bytes) => void io.stdout(bytes))
          await until('exit', () => io.session.stdin.all.includes('exit\r') || undefined)
          return 3
        }
        const client = await open(protocol, 'attach', 'stdin=true&stdout=true&stderr=true&tty=true')
        await client.resize(80, 24)
        await client.input(Buffer.from('ls -l\r'))
        await client.resize(65_535, 1)
        await client.input(Buffer.from('exit\r'))
        await client.over
        const { resizes, sent, peer } = world.kubelet.last()
        expect(resizes).to.deep.equal([
          { Width: 80, Height: 24 },
          { Width: 65_535, Height: 1 },
        ])
        await peer?.over
        expect(peer?.violations).to.deep.equal([])
        const session = await world.settled()
        expect(session).to.deep.include({ kind: 'attach', state: 'ended' })
        expect(session.result?.exitCode).to.equal(3)
        const recording = world.recording(session.id)
        expect(bytesOf(recording, TYPE.stdin).toString()).to.equal('ls -l\rexit\r')
        expect(bytesOf(recording, TYPE.stdout).equals(sent.stdout.all)).to.equal(true)
        expect(client.stdout().equals(sent.stdout.all)).to.equal(true)
        const sizes = recording.events.filter(({ type }) => type === TYPE.resize)
        expect(sizes.map(({ payload }) => payload.toString('hex'))).to.deep.equal([
          '00500018',
          'ffff0001',
        ])
      })

      it('end in any order that a kubelet may end them in', async () => {
        for (const closing of ['kubelet', 'fin', 'goaway', 'close'] as const) {
          world.kubelet.closing = closing
          const client = await open(protocol, 'exec', `command=bytes&command=100000&${ALL}`)
          await client.over
          expect(client.stdout().length, closing).to.equal(100_000)
          expect(client.status(), closing).to.include({ status: 'Success' })
          const session = await world.settled()
          expect(session.result?.status, closing).to.equal('Success')
          expect(bytesOf(world.recording(session.id), TYPE.stdout).length).to.equal(100_000)
        }
      }).timeout(SLOW_MS)
    })
  }

  it('are understood as Kubernetes understands their query', async () => {
    // [query, streams that the kubelet is asked for]
    const rows: readonly (readonly [string, readonly string[]])[] = [
      ['stdout=1', ['error', 'stdout']],
      ['stdout=TRUE', ['error', 'stdout']],
      ['stdout=t', ['error', 'stdout']],
      ['stdout=', ['error', 'stdout']],
      ['stdout=no&stderr=0', ['error', 'stdout']],
      ['stdout=true&stderr=FALSE', ['error', 'stdout']],
      ['stdout=true&stdout=false', ['error', 'stdout']],
      ['stdout=true&stdin=false&stdin=true', ['error', 'stdout']],
      ['stdout=true&STDIN=true', ['error', 'stdout']],
      ['stdout=true&stderr=true&tty=1', ['error', 'stdout', 'resize']],
      ['std%6fut=true&stderr=true', ['error', 'stdout', 'stderr']],
    ]
    for (const [query, streams] of rows) {
      const client = await openChannels(
        world.address('exec', `command=true&${query}`),
        'v4.channel.k8s.io',
      )
      await client.closed
      expect(client.status, query).to.include({ status: 'Success' })
      const names = [...(world.kubelet.last().peer?.streams.values() ?? [])].map(
        ({ headers }) => headers['streamtype'],
      )
      expect(names, query).to.have.members(streams)
    }
  })

  it('are refused where they announce no stream, or speak what nobody here does', async () => {
    const before_ = world.kubelet.sessions.length
    for (const [query, protocols] of [
      ['command=true', 'v4.channel.k8s.io'],
      ['command=true&stdout=0', 'v4.channel.k8s.io'],
      ['command=true&stdout=1', 'v1.channel.k8s.io'],
      ['command=true&stdout=1', 'channel.k8s.io'],
      ['command=true&stdout=1', 'V5.channel.k8s.io'],
      ['command=true&stdout=1', 'v4.channel.k8s.io.evil'],
    ] as const) {
      const opened = openChannels(world.address('exec', query), protocols)
      const error = await opened.then(
        () => undefined,
        (failed: unknown) => failed,
      )
      expect(error, `${query} ${protocols}`).to.be.instanceOf(NotSwitched)
      expect((error as NotSwitched).status).to.equal(400)
    }
    expect(world.kubelet.sessions).to.have.length(before_)
  })

  it('run by the client’s own method', async () => {
    const client = await openSpdySession(
      world.address('exec', 'command=true&stdout=true'),
      ['error', 'stdout'],
      'GET',
    )
    await client.peer.over
    expect(world.kubelet.last().method).to.equal('GET')
    const posted = await openSpdySession(world.address('exec', 'command=true&stdout=true'), [
      ...['error', 'stdout'],
    ])
    await posted.peer.over
    expect(world.kubelet.last().method).to.equal('POST')
    client.peer.socket.destroy()
    posted.peer.socket.destroy()
  })

  it('say what came before all streams were there, once they are', async () => {
    const session = await openSpdySession(world.address('exec', `command=cat&${ALL}`), ['stdin'])
    await session.stream('stdin').write(Buffer.from('early'))
    await session.stream('stdin').end()
    await sleep(100)
    const rest = ['error', 'stdout', 'stderr'].map((streamtype) =>
      session.peer.open({ streamtype }),
    )
    const [, stdout] = await Promise.all(rest)
    await session.peer.over
    expect(stdout?.bytes.toString()).to.equal('early')
    const { totals } = await world.settled()
    expect(totals).to.include({ stdinBytes: 5 })
    session.peer.socket.destroy()
  })
})
