/**
 * Sessions of every kubectl there is, in each protocol that it has, from inside injected pods and by a direct client: they do what they do without
 * Nestgate, and their recordings are byte for byte what the client saw.
 */
import { createHash } from 'node:crypto'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import type { Session } from '../../shared/recording/session-wire.ts'
import type { Did, Exchange, Seen } from './agents/sessions.ts'
import {
  DIRECT_SUBJECT,
  endedSessions,
  prepareSessions,
  recordingOf,
  sessionClients,
  SESSIONS_NAMESPACE,
  straight,
  throughBroker,
  throughSidecar,
} from './sessions-support.ts'
import type { Done, SessionClient } from './sessions-support.ts'
import { audit, closeBroker, NAMESPACE, podFacts, RESTRICTED } from './support.ts'

/** What fails in a way that only the API server and the kubelet can say. */
const COMPARED = ['noContainer', 'noCommand', 'refused'] as const
const MIB = 2 ** 20

interface Batch {
  readonly marker: string
  readonly done: Done
  readonly compared: Done
  readonly sessions: readonly Session[]
}

let counter = 0

async function batch(
  client: SessionClient,
  run: typeof throughSidecar,
  subject: string,
  only?: readonly string[],
): Promise<Batch> {
  counter += 1
  const marker = `m${process.pid}x${counter}x`
  const since = new Date().toISOString()
  const [done, compared] = await Promise.all([
    run(client, { marker, ...(only === undefined ? {} : { only }) }),
    straight(client, { marker: `straight-${marker}`, only: COMPARED }),
  ])
  const sessions = await endedSessions({ namespace: SESSIONS_NAMESPACE, subject, since })
  return { marker, done, compared, sessions }
}

function did({ done }: Pick<Batch, 'done'>, name: string): Did {
  const one = done[name]
  if (one?.stdout === undefined) throw new Error(`${name}: ${JSON.stringify(one)}`)
  return { ...one, stderr: ofProgram(one.stderr) }
}

/** What kubectl 1.30 says where the empty message by which a server says that it is there comes before it has made the stream for it; what else it may lose is missed in stdout. */
const OF_CLIENT =
  /^(?:E\d{4} \S+ +\d+ websocket\.go:\d+\] Unknown stream id 1, discarding message\n)+/

function ofProgram(stderr: Seen): Seen {
  const own = OF_CLIENT.exec(stderr.head)?.[0]
  if (own === undefined || Buffer.byteLength(stderr.head) !== stderr.bytes) return stderr
  const head = stderr.head.slice(own.length)
  const sha256 = createHash('sha256').update(head).digest('hex')
  return { bytes: Buffer.byteLength(head), sha256, head }
}

/** The only session that satisfies a condition. */
function only({ sessions }: Batch, is: (session: Session) => boolean): Session {
  const found = sessions.filter(is)
  expect(found.map(({ id, kind, command }) => ({ id, kind, command }))).to.have.length(1)
  const [first] = found
  if (first === undefined) throw new Error('no session')
  return first
}

function named(all: Batch, name: string): Session {
  return only(all, ({ command }) => command?.at(-1) === `${all.marker}:${name}`)
}

const ofKind =
  (kind: Session['kind']) =>
  (session: Session): boolean =>
    session.kind === kind

/** What is different each time: ids, times, ports. */
const plain = (text: string): string => text.replace(/[\da-f-]{8,}|\d+/g, '#').replace(/ +/g, ' ')

/** What kubectl says of a code itself, behind what the program wrote. */
const SAID_OF_CODE = /command terminated with exit code \d+\n$/

const CODES = { exit0: 0, exit1: 1, exit7: 7, exit126: 126, exit127: 127, killed9: 137 } as const

function tests(of: () => Batch): void {
  for (const name of ['echo', 'both', 'binary', 'utf8'] as const)
    it(`gives and keeps every byte: ${name}`, async () => {
      const one = did(of(), name)
      expect(one.code, one.stderr.head).to.equal(0)
      if (one.stdin !== undefined) expect(one.stdout.sha256).to.equal(one.stdin.sha256)
      const session = named(of(), name)
      const recording = await recordingOf(session)
      expect(recording.has('stdout', one.stdout), 'stdout').to.equal(true)
      expect(recording.has('stderr', one.stderr), 'stderr').to.equal(true)
      expect(recording.bytes('stdin')).to.have.length(0)
      const omitted = recording.json('stdinOmitted')
      const sum = omitted.reduce((total, { bytes }) => total + Number(bytes), 0)
      expect(sum).to.equal(one.stdin?.bytes ?? 0)
      expect(session.totals?.stdoutBytes).to.equal(one.stdout.bytes)
      expect(session.totals?.stderrBytes).to.equal(one.stderr.bytes)
      expect(recording.events[0]?.name).to.equal('header')
      expect(recording.events.at(-1)?.name).to.equal('end')
    })

  it('gives the program’s exit code, and keeps it', async () => {
    for (const [name, code] of Object.entries(CODES)) {
      const one = did(of(), name)
      expect(one.code, name + one.stderr.head).to.equal(code)
      const { result, state } = named(of(), name)
      expect(state).to.equal('ended')
      expect(result?.status).to.equal(code === 0 ? 'Success' : 'Failure')
      expect(result?.exitCode ?? 0).to.equal(code)
      const recorded = (await recordingOf(named(of(), name))).bytes('stderr').toString()
      expect(one.stderr.head.replace(SAID_OF_CODE, '')).to.equal(recorded)
    }
  })

  it('goes well where the program ends before it has read its input', () => {
    const one = did(of(), 'unread')
    expect(one.code, one.stderr.head).to.equal(3)
    expect(named(of(), 'unread').result?.exitCode).to.equal(3)
  })

  it('is a terminal that changes its size', async () => {
    const one = did(of(), 'terminal')
    expect(one.code, one.stdout.head + one.stderr.head).to.equal(5)
    expect(one.stdout.head).to.match(/31 97[\s\S]*first-2[\s\S]*40 120[\s\S]*second-2/)
    const session = named(of(), 'terminal')
    expect(session.tty).to.equal(true)
    const recording = await recordingOf(session)
    expect(recording.has('stdout', one.stdout), recording.bytes('stdout').toString()).to.equal(true)
    const sizes = recording.events
      .filter(({ name }) => name === 'resize')
      .map(({ payload }) => `${payload.readUInt16BE(0)}x${payload.readUInt16BE(2)}`)
    expect(sizes[0]).to.equal('97x31')
    expect(sizes.at(-1)).to.equal('120x40')
  })

  it('ends with a client that is killed, and says so', async () => {
    const { stdout } = did(of(), 'killed')
    const session = named(of(), 'killed')
    expect(session.ending).to.equal('client_left')
    expect((await recordingOf(session)).beginsWith('stdout', stdout)).to.equal(true)
  })

  it('attaches with input', async () => {
    const { stdout } = did(of(), 'attach')
    const session = only(of(), ofKind('attach'))
    expect(session).to.include({ container: 'echo', ending: 'client_left', stdin: true })
    expect((await recordingOf(session)).beginsWith('stdout', stdout)).to.equal(true)
  })

  it('follows logs, which are recorded by rule', async () => {
    const { stdout } = did(of(), 'logs')
    const session = only(of(), ofKind('logs'))
    expect((await recordingOf(session)).beginsWith('stdout', stdout)).to.equal(true)
  })

  it('copies a folder there and back, and keeps names, sizes and hashes', async () => {
    const { code, stderr, said } = did(of(), 'copy')
    expect(code, stderr.head).to.equal(0)
    const { files, sent, one } = said as {
      files: object
      sent: Record<string, string>
      one: string
    }
    expect(files).to.deep.equal(sent)
    expect(one).to.equal(sent['big'])
    const copies = of().sessions.filter(({ command }) => command?.[0] === 'tar')
    const manifests = await Promise.all(copies.map((session) => fileHashes(session)))
    const whole = manifests.filter((names) => Object.keys(names).length === 3)
    expect(whole).to.deep.equal([sent, sent])
    expect(manifests.filter((names) => Object.keys(names).length === 1)).to.deep.equal([
      { big: sent['big'] },
    ])
    const bytes = await Promise.all(
      copies.map(async (one) => (await recordingOf(one)).bytes('stdout')),
    )
    expect(Buffer.concat(bytes).length, 'the content is left out').to.be.lessThan(MIB)
  })

  it('forwards connections, each known by port, lengths and hashes', async () => {
    const { said } = did(of(), 'forward')
    const { exchanges, sent } = said as { exchanges: readonly Exchange[]; sent: string }
    expect(exchanges.map(({ body }) => body.head.slice(0, 16)).slice(0, 3)).to.deep.equal([
      ...['hello from /one', 'hello from /two', 'hello from /say/'],
    ])
    expect(exchanges.at(-1)?.body.head).to.equal(sent)
    expect(exchanges.at(-2)?.body.bytes).to.equal(8 * MIB)
    const session = only(
      of(),
      ({ kind, totals }) => kind === 'portforward' && totals?.connections === exchanges.length,
    )
    const recording = await recordingOf(session)
    const ports = recording.json('connectionOpened').map(({ port }) => port)
    expect(ports).to.deep.equal(exchanges.map(() => 8080))
    const keys = ['bytesUp', 'bytesDown', 'sha256Up', 'sha256Down'] as const
    const closed = recording.json('connectionClosed')
    expect(closed.map((one) => keys.map((key) => one[key]))).to.have.deep.members(
      exchanges.map(({ up, down }) => [up.bytes, down.bytes, up.sha256, down.sha256]),
    )
  })

  it('says what the API server and the kubelet say, where they refuse', () => {
    for (const name of ['noContainer', 'noCommand'] as const) {
      const [ours, theirs] = [did(of(), name), did({ done: of().compared }, name)]
      expect(ours.code, name).to.equal(theirs.code)
      expect(plain(ours.stderr.head), name).to.equal(plain(theirs.stderr.head))
    }
    const [ours, theirs] = [did(of(), 'refused'), did({ done: of().compared }, 'refused')]
    expect(ours.said).to.deep.equal(theirs.said)
    expect(plain(ours.stderr.head)).to.equal(plain(theirs.stderr.head))
  })

  it('is in the ledger from intent to outcome, with the hash of its recording', async () => {
    const session = named(of(), 'both')
    const events = await audit({ requestId: session.id })
    const steps = events
      .toReversed()
      .map(({ entry }) => [entry['kind'], entry['event']].join(' ').trim())
    expect(steps.filter((step) => step !== 'session progress')).to.deep.equal([
      ...['intent', 'session started', 'session ended', 'outcome'],
    ])
    const ended = events.find(({ entry }) => entry['event'] === 'ended')?.entry['detail']
    const { chunks, bytes, runningSha256 } = session.recording ?? {}
    expect(ended).to.include({ chunks, bytes, runningSha256 })
  })
}

async function fileHashes(session: Session): Promise<Readonly<Record<string, string>>> {
  const files = (await recordingOf(session)).json('file')
  return Object.fromEntries(
    files
      .filter(({ sha256 }) => sha256 !== undefined)
      .map(({ name, sha256 }) => [String(name).split('/').at(-1) ?? '', String(sha256)] as const)
      .sort(([a], [b]) => a.localeCompare(b)),
  )
}

const CLIENTS = sessionClients()
const NEWEST = CLIENTS.slice(-2)
/** All but the large output, which the newest alone has. */
const USUAL = [
  ...['echo', 'both', 'binary', 'utf8', ...Object.keys(CODES), 'unread', 'terminal', 'killed'],
  ...['attach', 'logs', 'copy', 'forward', ...COMPARED],
]

for (const client of CLIENTS)
  describe(`sessions from an injected pod with ${client.label}`, () => {
    let all: Batch
    before(async () => {
      await prepareSessions()
      const subject = `system:serviceaccount:${NAMESPACE}:agent`
      all = await batch(client, throughSidecar, subject, USUAL)
    })
    after(closeBroker)
    tests(() => all)

    it('are its process’s, by what the kernel says', async () => {
      const { pid } = did(all, 'both')
      const { uid } = await podFacts(RESTRICTED.name)
      const [intent] = await audit({
        requestId: named(all, 'both').id,
        kind: 'intent',
        podUid: uid,
      })
      expect(intent?.entry).to.have.nested.property('tag.verified.pid', pid)
    })
  })

const DIRECT = [...new Set([CLIENTS[0], ...NEWEST])].filter((client) => client !== undefined)

for (const client of DIRECT)
  describe(`sessions of a direct client with ${client.label}`, () => {
    let all: Batch
    before(async () => {
      await prepareSessions()
      all = await batch(client, throughBroker, DIRECT_SUBJECT, USUAL)
    })
    after(closeBroker)
    tests(() => all)
  })

describe('a large output', () => {
  before(prepareSessions)
  after(closeBroker)

  for (const client of NEWEST)
    it(`comes whole with ${client.label}, and is recorded whole`, async () => {
      const subject = `system:serviceaccount:${NAMESPACE}:agent`
      const all = await batch(client, throughSidecar, subject, ['large'])
      const one = did(all, 'large')
      expect(one.stdout.bytes, one.stderr.head).to.equal(64 * MIB)
      expect((await recordingOf(named(all, 'large'))).has('stdout', one.stdout)).to.equal(true)
    })
})
