/**
 * What a program can do with a connection so that another is taken for its caller: each case with the verdict or the
 * refusal that it must end in. Real processes against a sidecar in this process.
 */
import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, writeFileSync } from 'node:fs'
import { chmod, chown, copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { after, afterEach, before, beforeEach, describe, it } from 'mocha'
import type { AgentTag } from '../../shared/agent-tag.ts'
import { reasonInStatus } from '../../shared/status.ts'
import { targetIn } from '../../sidecar/caller/holders.ts'
import { createPins } from '../../sidecar/caller/pins.ts'
import { RECHECK_MS } from '../../sidecar/watch-caller.ts'
import { dialog, run } from '../support/client-processes.ts'
import type { Dialog } from '../support/client-processes.ts'
import { startFakeBroker } from '../support/fake-broker.ts'
import type { FakeBroker } from '../support/fake-broker.ts'
import { startTestSidecar } from '../support/running-sidecar.ts'
import type { RunningSidecar } from '../support/running-sidecar.ts'

const SOCKET_AGENT = join(import.meta.dirname, '..', 'support', 'socket-agent.py')
const CHANGED = 'connection_identity_changed'
/** How long a copy of a connection lies before it is used, in seconds: longer than the answer of one search counts. */
const COPY_WAITS_S = 1.2
/** Longest that the event loop may stand still while there is much to search, in milliseconds; generous for shared machines. */
const MAX_STALL_MS = 250
/** Time for a thousand TLS handshakes with the broker, both ends in this process, in milliseconds; they take five seconds. */
const MANY_HANDSHAKES_MS = 60_000

/** The tag that the broker was sent, by the path of the request. */
function tagFor(broker: FakeBroker, path: string): AgentTag | undefined {
  return broker.seen.findLast(({ url }) => url.endsWith(path))?.tag
}

function childOf(answer: string): { pid: number; body: string } {
  return JSON.parse(answer) as { pid: number; body: string }
}

describe('sidecar: attacks on who is calling', () => {
  let broker: FakeBroker
  let sidecar: RunningSidecar
  let python = ''
  let agent: Dialog
  let answer: FakeBroker['onRequest']

  before(async () => {
    broker = await startFakeBroker()
    answer = broker.onRequest
    sidecar = await startTestSidecar(broker, { extra: { NESTGATE_CALLER_UNREADABLE: 'ignore' } })
    python = (await run('python3', ['-c', 'import sys; print(sys.executable)'])).stdout.trim()
  })
  after(async () => {
    await sidecar.close()
    await broker.stop()
  })
  beforeEach(async () => {
    agent = dialog(python, [SOCKET_AGENT, String(sidecar.port)])
    await agent.ask('connect')
  })
  afterEach(async () => {
    broker.onRequest = answer
    await agent.end()
  })

  describe('a connection in other hands than at its last request', () => {
    const handOvers: [string, string][] = [
      ['a child that the parent left it to', 'hand-over /second'],
      ['a process that got it in a message', 'pass /second'],
      ['a child while the parent keeps it', 'fork-get /second'],
      ['a process with the same table of files', 'share-table /second'],
      ['a child that copied it out of the parent', 'take /second'],
    ]
    for (const [name, command] of handOvers)
      it(`is refused to ${name}, and closed`, async () => {
        await agent.ask('get /first')
        const { body } = childOf(await agent.ask(command))
        expect(reasonInStatus(body)).to.equal(CHANGED)
        expect(tagFor(broker, '/second')).to.equal(undefined)
      })

    it('is refused to an old process with a copy, by the full search of every second', async () => {
      // Nothing new is started after the first request, so nothing but a full search can see it.
      const helper = await agent.ask('helper')
      await agent.ask('connect')
      await agent.ask('get /first')
      expect(tagFor(broker, '/first')?.verdict).to.equal('exclusive')
      const { pid, body } = childOf(await agent.ask(`copy /second ${COPY_WAITS_S}`))
      expect([String(pid), reasonInStatus(body)]).to.deep.equal([helper, CHANGED])
      expect(tagFor(broker, '/second')).to.equal(undefined)
      expect(await agent.ask('wait-for-close')).to.equal('closed')
    })

    it('is shared where an old process got a copy before the first request', async () => {
      await agent.ask('helper')
      await agent.ask('connect')
      await agent.ask('copy /copied 0')
      expect(tagFor(broker, '/copied')?.verdict).to.equal('shared')
    })

    it('is refused to the process itself while a child could send as well', async () => {
      await agent.ask('get /first')
      await agent.ask('fork-hold')
      expect(reasonInStatus(await agent.ask('get /second'))).to.equal(CHANGED)
      expect(await agent.ask('wait-for-close')).to.equal('closed')
    })

    it('is refused to whoever sends while another program was seen to hold it as well, if only for moments', async () => {
      await agent.ask('get /first')
      // As often as the moments may be missed between two looks, which is a limit known.
      let refused = 0
      for (let tries = 0; tries < 6; tries += 1) {
        const { body } = childOf(await agent.ask(`spawn-get /spawned-${tries}`))
        if (reasonInStatus(body) === CHANGED) refused += 1
        await agent.ask('connect')
        await agent.ask('get /first')
      }
      expect(refused).to.be.greaterThan(3)
    })

    it('is refused where the body comes from other hands than the head', async () => {
      const { body } = childOf(await agent.ask('body-hand-over /upload'))
      expect(reasonInStatus(body)).to.equal(CHANGED)
      expect(tagFor(broker, '/upload')).to.equal(undefined)
    })

    it('is refused to the same program executed again, which then is a new instance', async () => {
      await agent.ask('get /before')
      agent.child.stdin?.write(`exec ${python} ${SOCKET_AGENT}\n`)
      // The program that comes reads what this one has left.
      expect(reasonInStatus(await agent.ask('get /again'))).to.equal(CHANGED)
      await agent.ask('connect')
      await agent.ask('get /anew')
      const [first, second] = [tagFor(broker, '/before'), tagFor(broker, '/anew')]
      expect(second?.verdict).to.equal('exclusive')
      expect(second?.verified?.pid).to.equal(agent.pid)
      expect(second?.verified?.startTicks).to.equal(first?.verified?.startTicks)
      expect(second?.instanceId).not.to.equal(first?.instanceId)
      expect([first?.verified?.execOrdinal, second?.verified?.execOrdinal]).to.deep.equal([0, 1])
    })

    it('is refused to another program in the same process', async () => {
      await agent.ask('get /before')
      const dir = await mkdtemp(join(tmpdir(), 'nestgate-exec-'))
      const file = join(dir, 'go.sh')
      await writeFile(
        file,
        `printf 'GET /other HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n' >&$2; read -r -u $2 line; echo "$line"; sleep 5`,
      )
      const answer = await agent.ask(`exec /usr/bin/bash ${file}`)
      expect(answer).to.match(/^HTTP\/1\.1 421 /)
      expect(tagFor(broker, '/other')).to.equal(undefined)
      await rm(dir, { recursive: true })
    })

    it('never gives a pipelined request to whoever got it meanwhile', async () => {
      await agent.ask('get /warm')
      broker.onRequest = slowly(answer, 400)
      const { pid } = childOf(await agent.ask('slow-hand-over /slow /fast'))
      expect(tagFor(broker, '/slow')?.verified?.pid).to.equal(agent.pid)
      for (const { tag, url } of broker.seen)
        if (url.endsWith('/fast')) expect(tag.verified?.pid).not.to.equal(pid)
    })
  })

  describe('a session', () => {
    let other: Dialog

    beforeEach(async () => {
      other = dialog(python, [SOCKET_AGENT, String(sidecar.port)])
      await other.ask('connect')
    })
    afterEach(async () => {
      await other.end()
    })

    it('ends when its connection is in other hands, and goes on when it is not', async function () {
      this.timeout(RECHECK_MS * 4)
      for (const one of [agent, other]) expect(await one.ask('upgrade /exec')).to.equal('101')
      const startedAt = performance.now()
      expect(childOf(await agent.ask('leave-to-child')).body).to.equal('closed')
      expect(performance.now() - startedAt).to.be.lessThan(RECHECK_MS * 1.5)
      await sleep(RECHECK_MS * 1.5 - (performance.now() - startedAt))
      expect(await other.ask('echo hello')).to.equal('hello')
    })
  })

  describe('a connection that nobody can be named for', () => {
    it('is that of nobody while it lies in an unread message', async () => {
      await agent.ask('in-flight /flying')
      await waitFor(() => tagFor(broker, '/flying') !== undefined)
      expect(tagFor(broker, '/flying')?.verdict).to.equal('unidentified')
    })

    it('is that of nobody while a ring of the kernel’s has it', async () => {
      const sent = await agent.ask('ring /ring')
      // Where rings are forbidden, as by the usual seccomp profile, there is nothing to find out.
      if (sent !== 'sent') expect(sent).to.equal('the kernel gives no ring')
      await waitFor(() => tagFor(broker, '/ring') !== undefined)
      const expected = sent === 'sent' ? 'unidentified' : 'exclusive'
      expect(tagFor(broker, '/ring')?.verdict).to.equal(expected)
    })

    it('is that of a process whose first thread has ended, where another one has it', async () => {
      const body = await agent.ask('leaderless /leaderless')
      const tag = tagFor(broker, '/leaderless')
      expect([tag?.verdict, tag?.verified?.pid], body).to.deep.equal(['exclusive', agent.pid])
      expect(tag?.verified?.exe).to.match(/python3[.\d]*$/)
    })

    it('is shared where two processes have one table of files', async () => {
      const { pid, body } = childOf(await agent.ask('share-table /table'))
      expect(body).to.contain('shared').and.to.contain(String(pid))
    })

    it('is shared where a child copied it out of its parent', async () => {
      await agent.ask('take /taken')
      expect(tagFor(broker, '/taken')?.verdict).to.equal('shared')
    })
  })

  it('says of a program that its own user may write it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'nestgate-own-'))
    const program = join(dir, 'perl')
    await copyFile('/usr/bin/perl', program)
    await chown(dir, 65534, 65534)
    await chown(program, 65534, 65534)
    const script = `use Socket; socket(S, PF_INET, SOCK_STREAM, 0);
      connect(S, sockaddr_in(${sidecar.port}, inet_aton('127.0.0.1')));
      syswrite(S, "GET /own HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n"); sysread(S, $answer, 9)`
    const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
    await run('setpriv', [...user, program, '-e', script])
    await rm(dir, { recursive: true })
    const verified = tagFor(broker, '/own')?.verified
    expect([verified?.exe, verified?.exeNote]).to.deep.equal([
      program,
      'its user may write the file',
    ])
  })

  it('names nobody for what was written before a set-user-ID program took over', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'nestgate-suid-'))
    const program = join(dir, 'sleep')
    await copyFile('/bin/sleep', program)
    await chmod(program, 0o4755)
    await chmod(dir, 0o755)
    const script = `use Fcntl; use Socket; socket(S, PF_INET, SOCK_STREAM, 0);
      connect(S, sockaddr_in(${sidecar.port}, inet_aton('127.0.0.1'))); fcntl(S, F_SETFD, 0);
      syswrite(S, "DELETE /elevated HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n"); exec '${program}', '1'`
    const user = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
    await run('setpriv', [...user, 'perl', '-e', script])
    await rm(dir, { recursive: true })
    const tag = tagFor(broker, '/elevated')
    expect([tag?.verdict, tag?.verified]).to.deep.equal(['unidentified', undefined])
  })

  it('refuses a connection whose user changes, where users are all that is told apart', async () => {
    const own = await startFakeBroker()
    const contained = await startTestSidecar(own, { extra: { NESTGATE_PROFILE: 'C' } })
    const giver = dialog(python, [SOCKET_AGENT, String(contained.port)])
    await giver.ask('connect')
    await giver.ask('get /first')
    await giver.ask('chown 12345')
    expect(reasonInStatus(await giver.ask('get /second'))).to.equal(CHANGED)
    expect(own.seen.map(({ tag }) => [tag.verdict, tag.socket?.uid])).to.deep.equal([
      ['container_only', process.getuid?.()],
    ])
    await giver.end()
    await contained.close()
    await own.stop()
  })

  it('names nobody for a connection that its maker gave to another user', async () => {
    await agent.ask('chown 12345')
    await agent.ask('get /given')
    expect(tagFor(broker, '/given')?.verdict).to.equal('unidentified')
  })

  it('cuts off a client that sends and sends without waiting for answers, and serves others', async () => {
    let open = 0
    broker.onRequest = (_seen, response) => {
      open += 1
      response.on('close', () => (open -= 1))
    }
    const greedy = connect(sidecar.port, '127.0.0.1')
    greedy.on('error', () => undefined)
    const closed = once(greedy, 'close')
    const before = broker.seen.length
    greedy.write('GET /greedy HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(200))
    await closed
    await waitFor(() => open === 0)
    expect([open, broker.seen.length - before <= 16]).to.deep.equal([0, true])
    broker.onRequest = answer
    await agent.ask('get /modest')
    expect(tagFor(broker, '/modest')?.verdict).to.equal('exclusive')
  })

  describe('programs that hide what they are', () => {
    it('names a process in namespaces of its own by its number here', async () => {
      const args = ['-Ur', '-pf', '--mount-proc', 'curl', '-sS', `${sidecar.url}/nested`]
      await run('unshare', args)
      const tag = tagFor(broker, '/nested')
      expect(tag?.verdict).to.equal('exclusive')
      expect(tag?.verified?.pid).to.be.greaterThan(1)
      expect(tag?.verified?.exe).to.match(/\/curl$/)
    })

    it('says of a program that never was a file that it was none', async () => {
      const script = `
import os, shutil
source = open(shutil.which('curl'), 'rb').read()
memory = os.memfd_create('x', 0)
os.write(memory, source)
os.execv(f'/proc/self/fd/{memory}', ['curl', '-sS', '${sidecar.url}/memory'])`
      await run(python, ['-c', script])
      const verified = tagFor(broker, '/memory')?.verified
      expect(verified?.exeNote).to.equal('it never was a file')
      expect(verified?.exeSha256).to.match(/^[0-9a-f]{64}$/)
    })
  })

  describe('much to search', () => {
    const children: ChildProcess[] = []

    afterEach(() => {
      for (const child of children.splice(0)) if (child.pid !== undefined) killGroup(child.pid)
    })

    it('finds one among 20,000 files of its process, or as many as the machine allows', async () => {
      expect(Number(await agent.ask('open 20000'))).to.be.greaterThan(900)
      await agent.ask('get /files')
      expect(tagFor(broker, '/files')?.verdict).to.equal('exclusive')
    })

    it('names the caller among 2,000 processes, or is busy, and goes on serving', async () => {
      // One folder's worth of them ends with its group, as the test's children do.
      const script = 'for i in $(seq 2000); do sleep 60 & done; echo ready; wait'
      const crowd = spawn('bash', ['-c', script], {
        detached: true,
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      children.push(crowd)
      await once(crowd.stdout, 'data')
      const stall = monitorEventLoopDelay({ resolution: 5 })
      stall.enable()
      const body = await agent.ask('get /crowd')
      stall.disable()
      const named = tagFor(broker, '/crowd')?.verdict === 'exclusive'
      expect(named || reasonInStatus(body) === 'attribution_busy').to.equal(true)
      expect(stall.max / 1e6).to.be.lessThan(MAX_STALL_MS)
    })

    it('goes on serving while a process makes processes without end', async () => {
      // Bounded: one at a time, for two seconds.
      const bomb = spawn('timeout', ['2', 'bash', '-c', 'while :; do /bin/true; done'], {
        detached: true,
        stdio: 'ignore',
      })
      children.push(bomb)
      for (let count = 0; count < 20; count += 1) {
        await agent.ask(`get /bomb-${count}`)
        expect(tagFor(broker, `/bomb-${count}`)?.verdict).to.equal('exclusive')
      }
    })

    it('serves others of its user while one opens connections and sends nothing', async () => {
      const flooder = dialog(python, [SOCKET_AGENT, String(sidecar.port)])
      expect(await flooder.ask('flood 1100')).to.equal('1100')
      await agent.ask('connect')
      await agent.ask('get /flood')
      expect(tagFor(broker, '/flood')?.verdict).to.equal('exclusive')
      await flooder.end()
    })

    it('has nothing left open after a thousand connections', async function () {
      this.timeout(MANY_HANDSHAKES_MS)
      // Connections to the broker are kept, as many as were needed at one time: here, none is.
      await broker.stop()
      await broker.start()
      broker.onRequest = (seen, response, request) => {
        response.setHeader('connection', 'close')
        answer(seen, response, request)
      }
      const hundred = (): Promise<unknown> =>
        Promise.all(Array.from({ length: 100 }, () => get(sidecar.port)))
      await hundred()
      const before = await settled(openFiles)
      for (let round = 0; round < 10; round += 1) await hundred()
      expect(await settled(openFiles)).to.be.at.most(before)
    })
  })

  it('takes a process that gets the number of an ended one for another', async () => {
    const pins = createPins('/proc')
    const first = spawn('sleep', ['60'])
    const pid = first.pid ?? 0
    const pin = pins.pin(pid, pid)
    first.kill('SIGKILL')
    await once(first, 'exit')
    const again = await startWithNumber(pid)
    expect(pin?.isUnchanged()).to.equal(false)
    expect(targetIn(pin?.path ?? '', { tid: pid, fd: '0' })).to.equal(undefined)
    const other = pins.pin(pid, pid)
    expect([other?.isUnchanged(), other?.execOrdinal]).to.deep.equal([true, 0])
    again.kill('SIGKILL')
    pins.close()
  })
})

/** Starts a process whose number is `pid`; the kernel gives numbers out in order, from the one written there. */
async function startWithNumber(pid: number): Promise<ChildProcess> {
  for (let tries = 0; tries < 200; tries += 1) {
    writeFileSync('/proc/sys/kernel/ns_last_pid', String(pid - 1))
    const child = spawn('sleep', ['60'])
    if (child.pid === pid) return child
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  throw new Error('the number was not given out again')
}

function openFiles(): number {
  return readdirSync('/proc/self/fd').length
}

/** What it counts once that is the same for a while. */
async function settled(count: () => number): Promise<number> {
  let last = count()
  for (let same = 0; same < 25; same += 1) {
    await sleep(20)
    const next = count()
    if (next !== last) same = 0
    last = next
  }
  return last
}

/** One connection, one request, from this process. */
async function get(port: number): Promise<void> {
  const socket = connect(port, '127.0.0.1')
  socket.write('GET /api HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
  socket.resume()
  await once(socket, 'close')
}

function killGroup(pid: number): void {
  spawnSync('kill', ['-KILL', '--', `-${pid}`])
}

/** Answers later, so that what happens to the connection meanwhile matters. */
function slowly(answer: FakeBroker['onRequest'], delayMs: number): FakeBroker['onRequest'] {
  return (seen, response, request) => {
    setTimeout(() => {
      answer(seen, response, request)
    }, delayMs)
  }
}

async function waitFor(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 300 && !condition(); tries += 1) await sleep(10)
}
