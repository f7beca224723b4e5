/** Sessions of other clients than kubectl, many of them, and what people do with sessions: approve, revoke, end, verify. */
import { expect } from 'chai'
import { readdirSync, readFileSync } from 'node:fs'
import { after, before, describe, it } from 'mocha'
import { eventually, sleep } from '../../scripts/run.ts'
import type { Ran } from '../../scripts/run.ts'
import type { Session } from '../../shared/recording/session-wire.ts'
import type { Report } from './agents/run.ts'
import type { Did } from './agents/sessions.ts'
import {
  endedSessions,
  prepareSessions,
  recordingOf,
  sessionClients,
  sessions,
  SESSIONS_NAMESPACE,
  throughSidecar,
} from './sessions-support.ts'
import {
  agentRuns,
  audit,
  closeBroker,
  inPod,
  nestgate,
  podFacts,
  RESTRICTED,
  SYSTEM_NAMESPACE,
} from './support.ts'

const SIDECAR = 'nestgate-sidecar'
const SHORT = 1000
const SHORT_AT_ONCE = 4
const TOGETHER = 60
/** What 1,000 sessions may leave behind, in descriptors and in MiB. */
const LEFT_DESCRIPTORS = 8
const LEFT_MIB = 80

let counter = 0
function newMarker(): string {
  counter += 1
  return `o${process.pid}x${counter}x`
}

async function script<T>(container: string, command: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await inPod(RESTRICTED.name, container, command)
  expect(code, stdout + stderr).to.equal(0)
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T
}

const byMarker =
  (marker: string, name: string) =>
  ({ command }: Session): boolean =>
    command?.at(-1) === `${marker}:${name}`

async function onlySession(since: string, is: (session: Session) => boolean): Promise<Session> {
  const found = (await endedSessions({ namespace: SESSIONS_NAMESPACE, since })).filter(is)
  expect(found).to.have.length(1)
  const [first] = found
  if (first === undefined) throw new Error('no session')
  return first
}

/** What both libraries do, and how it is recorded. */
async function expectRecorded(since: string, marker: string, name: string): Promise<void> {
  const exec = await onlySession(since, byMarker(marker, name))
  const recording = await recordingOf(exec)
  expect(recording.bytes('stdout').toString()).to.equal(`got ${name}\n`)
  expect(recording.bytes('stderr').toString()).to.equal('careful\n')
  expect(exec.result).to.include({ status: 'Failure', exitCode: 7 })
  const attach = await onlySession(since, ({ kind }) => kind === 'attach')
  const echoed = (await recordingOf(attach)).bytes('stdout').toString()
  expect(echoed).to.include(`echo: hello ${marker}\n`)
  const forward = await onlySession(since, ({ kind }) => kind === 'portforward')
  expect(forward.totals).to.include({ connections: 1 })
}

describe('sessions of the libraries', () => {
  before(prepareSessions)
  after(closeBroker)

  it('of Python: exec, attach, port-forward', async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const command = ['python3', '/agents/stream.py', SESSIONS_NAMESPACE, 'target', marker]
    const said = await script<Record<string, unknown>>('scanner', command)
    expect(said['exec']).to.deep.equal({ stdout: 'got python\n', stderr: 'careful\n', code: 7 })
    expect(said['attach']).to.include(`echo: hello ${marker}\n`)
    expect(said['forward']).to.deep.equal({ answer: 'hello from /python', error: null })
    await expectRecorded(since, marker, 'python')
  })

  it('of JavaScript: exec, attach, port-forward, copies', async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const command = ['node', '/agents/stream.ts', SESSIONS_NAMESPACE, 'target', marker]
    const said = await script<{
      exec: { stdout: string; stderr: string; status: object }
      attach: string
      forward: string
      copy: { sent: string; back: string }
    }>('scanner', command)
    expect(said.exec).to.include({ stdout: 'got javascript\n', stderr: 'careful\n' })
    expect(said.exec.status).to.have.nested.property('details.causes[0].message', '7')
    expect(said.attach).to.include(`echo: hello ${marker}\n`)
    expect(said.forward).to.equal('hello from /javascript')
    expect(said.copy.back).to.equal(said.copy.sent)
    await expectRecorded(since, marker, 'javascript')
    const found = await endedSessions({ namespace: SESSIONS_NAMESPACE, since })
    const copies = found.filter(({ command: words }) => words?.[0] === 'tar')
    const names = await Promise.all(
      copies.map(async (one) => (await recordingOf(one)).json('file').map(({ name }) => name)),
    )
    expect(names.flat().filter((name) => String(name).includes(marker))).to.have.length(2)
  })
})

interface Costs {
  readonly descriptors: number
  readonly mib: number
}

/** The process of a container whose node is this machine, by its cgroup. */
function processOf(containerId: string): string | undefined {
  return readdirSync('/proc').find((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cgroup`, 'utf8').includes(containerId)
    } catch {
      return false
    }
  })
}

function costsOf(pid: string): Costs {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return { descriptors: readdirSync(`/proc/${pid}/fd`).length, mib: Number(kib) / 1024 }
}

describe('many sessions', () => {
  before(prepareSessions)
  after(closeBroker)

  it(`${TOGETHER} at once each get what is theirs`, async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const base = ['node', '/agents/stream.ts', SESSIONS_NAMESPACE, 'target', marker]
    const said = await script<{ good: number }>('scanner', [...base, 'open', `${TOGETHER}`])
    expect(said.good).to.equal(TOGETHER)
    const found = (await endedSessions({ namespace: SESSIONS_NAMESPACE, since })).filter(
      byMarker(marker, 'together'),
    )
    expect(found).to.have.length(TOGETHER)
    const outputs: string[] = []
    for (const one of found) outputs.push((await recordingOf(one)).bytes('stdout').toString())
    expect(new Set(outputs).size).to.equal(TOGETHER)
  })

  it(`${SHORT} short ones leave nothing open in broker and sidecar`, async () => {
    const broker = await podFacts('nestgate-broker-0', SYSTEM_NAMESPACE)
    const agents = await podFacts(RESTRICTED.name)
    const ids = [broker.containerIds['broker'], agents.containerIds[SIDECAR]]
    // on a cluster of other machines their descriptors cannot be counted, and the sessions alone are
    const pids = ids.map((id) => (id === undefined ? undefined : processOf(id)))
    const costs = (): readonly Costs[] =>
      pids.filter((pid) => pid !== undefined).map((pid) => costsOf(pid))
    const marker = newMarker()
    const base = ['node', '/agents/stream.ts', SESSIONS_NAMESPACE, 'target', marker]
    await script('scanner', [...base, '50', `${SHORT_AT_ONCE}`])
    await sleep(2000)
    const start = costs()
    const since = new Date().toISOString()
    const all = [...base, `${SHORT}`, `${SHORT_AT_ONCE}`]
    const said = await script<{ good: number; bad: object[] }>('scanner', all)
    expect(said).to.deep.equal({ good: SHORT, bad: [] })
    await eventually('descriptors as before', 20_000, () => {
      const more = costs().map(({ descriptors }, at) => descriptors - (start[at]?.descriptors ?? 0))
      return more.every((count) => count <= LEFT_DESCRIPTORS) ? true : undefined
    })
    for (const [at, { mib }] of costs().entries())
      expect(mib - (start[at]?.mib ?? 0), at === 0 ? 'broker' : 'sidecar').to.be.lessThan(LEFT_MIB)
    const found = await endedSessions({ namespace: SESSIONS_NAMESPACE, since })
    expect(found.filter(byMarker(marker, 'short'))).to.have.length(SHORT)
  })
})

interface Pending {
  readonly id: string
  readonly query: string
}

const waiting = 'echo started; sleep 100'

function execHeld(marker: string, script: string): Promise<Report> {
  const command = ['kubectl-new', '-n', SESSIONS_NAMESPACE, 'exec', 'held', '-c', 'web', '--']
  const task = { command: [...command, 'sh', '-c', script, `${marker}:held`], limitMs: 60_000 }
  return agentRuns(RESTRICTED.name, 'planner', task)
}

async function approve(marker: string): Promise<string> {
  const id: string = await eventually('the held exec', 30_000, async () => {
    const { stdout } = await nestgate('reviewer', ['--output', 'json', 'approvals', 'list'])
    const { items } = JSON.parse(stdout) as { items: Pending[] }
    return items.find(({ query }) => query.includes(marker))?.id
  })
  const said = await nestgate('reviewer', ['approvals', 'approve', id, '--reason', 'ticket 8'])
  expect(said.code, said.stderr).to.equal(0)
  return id
}

function running(since: string, is: (session: Session) => boolean): Promise<Session> {
  return eventually('a running session', 20_000, async () => {
    const found = await sessions({ namespace: SESSIONS_NAMESPACE, since, state: 'running' })
    const one = found.find(is)
    if (one === undefined) return undefined
    return (await recordingOf(one)).bytes('stdout').length > 0 ? one : undefined
  })
}

async function markers(session: Session): Promise<readonly unknown[]> {
  return (await recordingOf(session)).json('marker').map(({ kind }) => kind)
}

describe('what people do with sessions', () => {
  before(prepareSessions)
  after(closeBroker)

  it('a held one shows who approved it', async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const report = execHeld(marker, 'echo allowed')
    const id = await approve(marker)
    const { code, stdout, stderr } = await report
    expect(code, stderr).to.equal(0)
    expect(stdout).to.equal('allowed\n')
    const session = await onlySession(since, byMarker(marker, 'held'))
    expect(session.approval).to.deep.equal({ id, approvers: ['rita'], reason: 'ticket 8' })
    const shown = await nestgate('auditor', ['sessions', 'show', session.id])
    expect(shown.stdout, shown.stderr).to.include('rita')
  })

  it('is cut when its approval is revoked, and says so', async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const report = execHeld(marker, waiting)
    const id = await approve(marker)
    const one = await running(since, byMarker(marker, 'held'))
    const args = ['approvals', 'revoke', id, '--reason', 'enough']
    const revoked = await nestgate('reviewer', args)
    expect(revoked.code, revoked.stderr).to.equal(0)
    expect((await report).stdout).to.equal('started\n')
    const session = await onlySession(since, byMarker(marker, 'held'))
    expect(session.id).to.equal(one.id)
    expect(session.ending).to.equal('revoked')
    expect(await markers(session)).to.include('revoked')
  })

  it('is ended by nestgate sessions kill, and tells the client and the ledger', async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const command = ['kubectl-new', '-n', SESSIONS_NAMESPACE, 'exec', 'target', '-c', 'web', '--']
    const words = ['sh', '-c', waiting, `${marker}:killed`]
    const report = agentRuns(RESTRICTED.name, 'planner', { command: [...command, ...words] })
    const { id } = await running(since, byMarker(marker, 'killed'))
    const said = await nestgate('reviewer', ['sessions', 'kill', id, '--reason', 'not today'])
    expect(said.code, said.stderr).to.equal(0)
    const { code, stdout } = await report
    expect(code).not.to.equal(0)
    expect(stdout).to.equal('started\n')
    const session = await onlySession(since, byMarker(marker, 'killed'))
    expect(session.ending).to.equal('killed')
    const events = await audit({ requestId: id })
    const killed = events.find(({ entry }) => entry['event'] === 'killed')
    expect(killed?.entry['actor']).to.equal('rita')
    const outcome = events.find(({ entry }) => entry['kind'] === 'outcome')
    expect(outcome?.entry['reason']).to.equal('killed')
  })

  it('is verified, exported, searched and played', async () => {
    const [marker, since] = [newMarker(), new Date().toISOString()]
    const command = ['kubectl-new', '-n', SESSIONS_NAMESPACE, 'exec', 'target', '-c', 'web', '--']
    const words = ['sh', '-c', `echo needle-${marker}`, `${marker}:found`]
    await agentRuns(RESTRICTED.name, 'planner', { command: [...command, ...words] })
    const { id } = await onlySession(since, byMarker(marker, 'found'))
    const tool = (...args: string[]): Promise<Ran> => nestgate('auditor', ['sessions', ...args])
    const verified = await tool('verify', id)
    expect(verified.code, verified.stdout + verified.stderr).to.equal(0)
    expect((await tool('list', '--namespace', SESSIONS_NAMESPACE)).stdout).to.include(id)
    expect((await tool('grep', `needle-${marker}`)).stdout).to.include(id)
    expect((await tool('play', id)).stdout).to.include(`needle-${marker}`)
    expect((await tool('export', id, '--format', 'stdout')).stdout).to.equal(`needle-${marker}\n`)
  })
})

describe('what a rule says of recording', () => {
  const client = sessionClients().at(-1)
  before(prepareSessions)
  after(closeBroker)

  const run = async (pod: 'whole' | 'unrecorded'): Promise<Readonly<Record<string, Did>>> => {
    if (client === undefined) throw new Error('no kubectl')
    return throughSidecar(client, { pod, marker: newMarker(), only: ['echo', 'copy', 'forward'] })
  }

  it('keeps input, files and the beginning of connections where it asks for them', async () => {
    const since = new Date().toISOString()
    const done = await run('whole')
    const found = await endedSessions({ namespace: SESSIONS_NAMESPACE, since, name: 'whole' })
    const echo = found.find(({ command }) => command?.at(-1)?.endsWith(':echo'))
    const stdin = done['echo']?.stdin
    if (echo === undefined || stdin === undefined) throw new Error(JSON.stringify(done))
    expect((await recordingOf(echo)).has('stdin', stdin)).to.equal(true)
    const copies = found.filter(({ command }) => command?.[0] === 'tar')
    const kept = await Promise.all(copies.map(async (one) => (await recordingOf(one)).events))
    for (const events of kept) {
      const bytes = events.reduce((sum, { payload }) => sum + payload.length, 0)
      expect(bytes).to.be.greaterThan(8 * 2 ** 20)
    }
    const forward = found.find(({ kind }) => kind === 'portforward')
    if (forward === undefined) throw new Error('no port-forward')
    const recording = await recordingOf(forward)
    expect(recording.bytes('fromClient').toString()).to.include('GET /one HTTP/1.0')
    expect(recording.bytes('toClient').toString()).to.include('hello from /two')
    expect(recording.bytes('toClient').length).to.be.lessThan(20 * 1004)
  })

  it('keeps nothing where it says off, and the session works all the same', async () => {
    const since = new Date().toISOString()
    const done = await run('unrecorded')
    expect(done['echo']?.stdout.sha256).to.equal(done['echo']?.stdin?.sha256)
    expect(done['copy']?.code, done['copy']?.stderr.head).to.equal(0)
    const filter = { namespace: SESSIONS_NAMESPACE, since, name: 'unrecorded' }
    const found = await endedSessions(filter)
    expect(found.filter(({ recording }) => recording !== undefined)).to.deep.equal([])
    const { uid } = await podFacts(RESTRICTED.name)
    const asked = await audit({ podUid: uid, kind: 'intent' })
    expect(asked.some(({ entry }) => JSON.stringify(entry).includes('/unrecorded/exec'))).to.equal(
      true,
    )
  })
})
