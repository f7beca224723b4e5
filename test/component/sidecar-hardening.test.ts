/**
 * What a program with the sidecar's own user id can do to it: nothing, but make it slow. The sidecar is a process of its
 * own here, started as the webhook starts it, in a process namespace like a pod's. Needs root, to be other users.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chown, readdir, readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, before, describe, it } from 'mocha'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { SIDECAR_NODE_FLAGS } from '../../shared/sidecar-runtime.ts'
import { run } from '../support/client-processes.ts'
import type { Finished } from '../support/client-processes.ts'
import { startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { freePort } from '../support/free-port.ts'
import { POD_UID, startPod } from '../support/pod-processes.ts'
import type { Pod } from '../support/pod-processes.ts'
import { sidecarEnv } from '../support/running-sidecar.ts'

/** As attack.py prints it. */
interface Attack {
  readonly sidecars: number
  readonly succeeded: readonly string[]
  readonly denied: number
}

/** How long a process that a signal stopped is left so, in milliseconds. */
const STOPPED_MS = 1000

describe('sidecar: a neighbour with its user id', function () {
  this.timeout(60_000)
  let broker: FakeBroker
  let pod: Pod
  let env: Record<string, string>
  let removeEnv: () => Promise<void>
  let pid = 0
  let port = 0
  let tlsPort = 0

  before(async () => {
    broker = await startFakeBroker()
    pod = await startPod()
    const made = await sidecarEnv(broker)
    removeEnv = made.remove
    for (const path of [made.tokenFile, join(made.tokenFile, '..')])
      await chown(path, POD_UID, POD_UID)
    port = await freePort()
    tlsPort = await freePort()
    env = {
      ...made.env,
      NESTGATE_LISTEN_PORT: String(port),
      NESTGATE_LISTEN_TLS_PORT: String(tlsPort),
      NESTGATE_SERVICE_ACCOUNT_DIR: pod.dir,
      NESTGATE_NAMESPACE: 'agents',
      NESTGATE_POSTURE: 'degrade',
      NESTGATE_LOG_LEVEL: 'warn',
    }
    pid = await pod.pidOf(start('main', env))
    const ready = `http://127.0.0.1:${port}/.nestgate/ready`
    while ((await run('curl', ['-sf', ready])).code !== 0) await sleep(50)
  })
  after(async () => {
    await pod.stop()
    await removeEnv()
    await broker.stop()
  })

  function start(program: string, settings: Record<string, string>): ChildProcess {
    const file = join(pod.app, 'sidecar', `${program}.ts`)
    return pod.start([pod.node, ...SIDECAR_NODE_FLAGS, file], settings)
  }

  /** A command of the neighbour's. */
  function neighbour(...command: string[]): Promise<Finished> {
    const [program = '', ...args] = [...pod.enter, ...command]
    return run(program, args)
  }

  async function attack(program: string): Promise<Attack> {
    const file = join(pod.app, 'test', 'e2e', 'agents', 'attack.py')
    const ports = ['--port', String(port), '--tls-port', String(tlsPort)]
    const { stdout, stderr } = await neighbour(pod.python, file, '--program', program, ...ports)
    expect(stderr).to.equal('')
    return JSON.parse(stdout) as Attack
  }

  /** What the broker is told of a neighbour. */
  async function named(): Promise<AgentTag> {
    const { stdout } = await neighbour('curl', '-sS', `http://127.0.0.1:${port}/api`)
    return (JSON.parse(stdout) as { tag: AgentTag }).tag
  }

  it('is named, in a namespace where the sidecar sees no others', async () => {
    const tag = await named()
    expect([tag.verdict, tag.verified?.uid]).to.deep.equal(['exclusive', POD_UID])
    expect(tag.verified?.exe).to.match(/\/curl$/)
  })

  it('is named although a process that has ended waits for its parent', async () => {
    const script = 'sleep 0 & exec sleep 60'
    const parent = await pod.pidOf(pod.start(['sh', '-c', script], {}))
    const children = `/proc/${parent}/task/${parent}/children`
    while ((await readFile(children, 'latin1')) === '') await sleep(10)
    await sleep(200)
    const child = (await readFile(children, 'latin1')).trim()
    expect(await readFile(`/proc/${child}/stat`, 'latin1')).to.contain(') Z ')
    expect((await named()).verdict).to.equal('exclusive')
  })

  it('opens no inspector in it by SIGUSR1', async () => {
    const before = await sockets(pid)
    const { code } = await neighbour('kill', '-USR1', await insideNumber(pid))
    expect(code).to.equal(0)
    await sleep(500)
    expect(await sockets(pid)).to.deep.equal(before)
    expect((await named()).verdict).to.equal('exclusive')
  })

  it('gets nothing of it, nor its place', async () => {
    const { sidecars, succeeded, denied } = await attack('main')
    expect(succeeded).to.deep.equal([])
    expect(sidecars).to.equal(1)
    expect(denied).to.be.greaterThan(30)
    expect((await named()).verdict).to.equal('exclusive')
  })

  it('gets nothing of the process that waits for it', async () => {
    // Nothing listens there, so it goes on waiting.
    const waiting = start('wait-ready', { ...env, NESTGATE_LISTEN_PORT: String(await freePort()) })
    const waitingPid = await pod.pidOf(waiting)
    const closed = once(waiting, 'close')
    try {
      const { sidecars, succeeded } = await attack('wait-ready')
      expect(succeeded).to.deep.equal([])
      expect(sidecars).to.equal(1)
      // The sidecar may not look into it, either: what it holds nobody knows, so nobody is vouched for.
      const tag = await named()
      expect([tag.verdict, tag.reason]).to.deep.equal([
        'container_only',
        'processes that may not be searched: 1; any of them could hold the connection too',
      ])
    } finally {
      process.kill(waitingPid, 'SIGKILL')
      waiting.kill('SIGCONT')
      await closed
    }
  })

  it('only delays it by stopping it, and callers are named as before', async () => {
    const number = await insideNumber(pid)
    await neighbour('kill', '-STOP', number)
    let isAnswered = false
    const answer = named().finally(() => (isAnswered = true))
    await sleep(STOPPED_MS)
    expect(isAnswered).to.equal(false)
    await neighbour('kill', '-CONT', number)
    expect((await answer).verdict).to.equal('exclusive')
    expect((await named()).verdict).to.equal('exclusive')
  })
})

/** The number that the processes of its namespace have for a process. */
async function insideNumber(pid: number): Promise<string> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1')
  return /^NSpid:.*\t(\d+)$/m.exec(status)?.[1] ?? ''
}

/** All sockets on which a process listens. */
async function sockets(pid: number): Promise<readonly string[]> {
  const folder = `/proc/${pid}/fd`
  const links = await Promise.all(
    (await readdir(folder)).map((fd) => readlink(join(folder, fd)).catch(() => '')),
  )
  const tables = ['tcp', 'tcp6'].map((name) => readFile(`/proc/${pid}/net/${name}`, 'latin1'))
  const lines = (await Promise.all(tables)).join('').split('\n')
  const listening = lines.map((line) => line.trim().split(/\s+/)).filter((row) => row[3] === '0A')
  return listening
    .filter((row) => links.includes(`socket:[${row[9] ?? ''}]`))
    .map((row) => row[1] ?? '')
    .sort()
}
