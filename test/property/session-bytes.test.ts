/** Whatever a program prints, in whatever pieces, and whatever is typed: client, pod and recording have the same bytes. Seeds are told on failure. */
import { expect } from 'chai'
import fc from 'fast-check'
import { after, afterEach, before, describe, it } from 'mocha'
import { noise } from '../support/fake-kubelet.ts'
import { CHANNEL, openChannels, openSpdySession } from '../support/remote-clients.ts'
import { bytesOf, TYPE } from '../support/remote-recording.ts'
import { startSessionWorld, until } from '../support/session-world.ts'
import type { SessionWorld } from '../support/session-world.ts'

const SLOW_MS = 120_000
const RUNS = 60
const POLICY = `apiVersion: nestgate.dev/v1alpha1
kind: Policy
rules:
- {id: sessions, match: {verbs: [connect], resources: [pods/exec]}, effect: allow, record: {mode: required, mask: false, stdin: true}}
`

const size = fc.oneof(
  fc.integer({ min: 1, max: 300 }),
  fc.constantFrom(65_535, 65_536, 65_537, 16_384, 32_768, 262_144),
  fc.integer({ min: 1, max: 200_000 }),
)
const script = fc.record({
  protocol: fc.constantFrom('v5.channel.k8s.io', 'v4.base64.channel.k8s.io', 'SPDY/3.1'),
  closing: fc.constantFrom('kubelet' as const, 'fin' as const, 'goaway' as const),
  code: fc.integer({ min: 0, max: 255 }),
  typed: fc.array(size, { maxLength: 4 }),
  printed: fc.array(
    fc.record({ to: fc.constantFrom('stdout' as const, 'stderr' as const), size, piece: size }),
    { maxLength: 12 },
  ),
})

describe('bytes of sessions', () => {
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

  it('are the same in client, pod and recording', async () => {
    await fc.assert(
      fc.asyncProperty(script, async ({ protocol, closing, code, typed, printed }) => {
        world.kubelet.closing = closing
        const input = typed.map((length, index) => noise(length, index + 1))
        const total = typed.reduce((sum, length) => sum + length, 0)
        world.kubelet.programs.set('script', async (io) => {
          for (const [index, { to, size: length, piece }] of printed.entries())
            await io[to](noise(length, index + 100), piece)
          await until('the input', () => io.session.stdin.bytes === total || undefined)
          return code
        })
        const query = 'command=script&stdin=1&stdout=1&stderr=1'
        let seen: { readonly stdout: Buffer; readonly stderr: Buffer }
        if (protocol === 'SPDY/3.1') {
          const names = ['error', 'stdin', 'stdout', 'stderr']
          const session = await openSpdySession(world.address('exec', query), names)
          for (const bytes of input) await session.stream('stdin').write(bytes)
          await session.peer.over
          expect(session.peer.violations).to.deep.equal([])
          seen = { stdout: session.stream('stdout').bytes, stderr: session.stream('stderr').bytes }
          session.peer.socket.destroy()
        } else {
          const client = await openChannels(world.address('exec', query), protocol)
          for (const bytes of input) await client.send(CHANNEL.stdin, bytes)
          await client.closed
          seen = { stdout: client.bytes(CHANNEL.stdout), stderr: client.bytes(CHANNEL.stderr) }
        }
        const { sent, stdin, peer } = world.kubelet.last()
        expect(seen.stdout.equals(sent.stdout.all), 'stdout').to.equal(true)
        expect(seen.stderr.equals(sent.stderr.all), 'stderr').to.equal(true)
        expect(stdin.all.equals(Buffer.concat(input)), 'stdin').to.equal(true)
        expect(peer?.violations).to.deep.equal([])
        const session = await world.settled()
        expect(session.result?.exitCode).to.equal(code)
        const recording = world.recording(session.id)
        expect(bytesOf(recording, TYPE.stdout).equals(sent.stdout.all)).to.equal(true)
        expect(bytesOf(recording, TYPE.stderr).equals(sent.stderr.all)).to.equal(true)
        expect(bytesOf(recording, TYPE.stdin).equals(stdin.all)).to.equal(true)
        const times = recording.events.map(({ atUs }) => atUs)
        expect(times, 'times').to.deep.equal(times.toSorted((a, b) => a - b))
        expect(recording.events.filter(({ type }) => type === TYPE.end)).to.have.length(1)
        expect(recording.events.at(-1)?.type).to.equal(TYPE.end)
      }),
      { numRuns: RUNS },
    )
  }).timeout(SLOW_MS)
})
