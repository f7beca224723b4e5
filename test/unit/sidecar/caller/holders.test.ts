import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import {
  createHolderIndex,
  MAX_PROCESSES,
  SearchLimitError,
} from '../../../../sidecar/caller/holders.ts'
import type { HolderIndex } from '../../../../sidecar/caller/holders.ts'
import { makeProcFixture } from '../../../support/proc-fixture.ts'
import type { ProcFixture } from '../../../support/proc-fixture.ts'

const SOCKET = 'socket:[77]'
const KERNEL_THREAD = 0x0020_0000

describe('holder index', () => {
  let proc: ProcFixture
  let index: HolderIndex

  beforeEach(() => {
    proc = makeProcFixture()
    index = createHolderIndex(proc.root)
  })
  afterEach(() => {
    index.close()
    proc.delete()
  })

  function pids(): number[] {
    return index.holdings(77).map(({ pid }) => pid)
  }

  it('finds every process that holds a socket, and does not stop at the first', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET } } })
    proc.add({ pid: 11, threads: { 11: { 3: 'socket:[78]', 4: '/dev/null' } } })
    proc.add({ pid: 12, threads: { 12: { 9: SOCKET } } })
    await index.search()
    expect(pids().toSorted()).to.deep.equal([10, 12])
  })

  it('finds a socket that only one thread holds', async () => {
    proc.add({ pid: 10, threads: { 10: {}, 15: { 3: SOCKET } } })
    await index.search()
    expect(index.holdings(77)).to.deep.equal([{ pid: 10, tid: 15, fd: '3' }])
  })

  it('counts a process once, however often it holds the socket', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET, 4: SOCKET }, 15: { 3: SOCKET } } })
    await index.search()
    expect(pids()).to.deep.equal([10])
  })

  it('does not take a number that only begins alike', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: 'socket:[777]', 4: 'socket:[7]' } } })
    await index.search()
    expect(pids()).to.deep.equal([])
  })

  it('drops a holder that has let go since', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET } } })
    await index.search()
    proc.remove('10/task/10/fd/3')
    expect(pids()).to.deep.equal([])
  })

  it('keeps a holder that has closed one of its descriptors and has another', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET, 4: SOCKET } } })
    await index.search()
    proc.remove('10/task/10/fd/3')
    expect(pids()).to.deep.equal([10])
    proc.remove('10/task/10/fd/4')
    expect(pids()).to.deep.equal([])
  })

  it('keeps a holder with more descriptors than can be watched, whatever it closes', async () => {
    const many = Object.fromEntries(Array.from({ length: 70 }, (_, fd) => [fd, SOCKET]))
    proc.add({ pid: 10, threads: { 10: many } })
    await index.search()
    for (let fd = 0; fd < 69; fd += 1) proc.remove(`10/task/10/fd/${fd}`)
    expect(pids()).to.deep.equal([10])
  })

  it('finds a process that was started since the search', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET } } })
    await index.search()
    proc.add({ pid: 20, threads: { 20: { 3: SOCKET } } })
    proc.lastPid(20)
    index.searchNew()
    expect(pids().toSorted()).to.deep.equal([10, 20])
  })

  it('answers from the search before until a new one is done', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET } } })
    await index.search()
    for (let pid = 100; pid < 400; pid += 1)
      proc.add({ pid, threads: { [pid]: { 3: `socket:[${pid}]` } } })
    const searching = index.search()
    expect(pids()).to.deep.equal([10])
    await searching
    expect(index.processes()).to.deep.equal({ seen: 301, sawFirst: false })
  })

  it('gives up on more processes than it may look at', async () => {
    for (let pid = 1; pid <= MAX_PROCESSES + 1; pid += 1) proc.write(`${pid}/stat`, 'gone')
    const failure = await index.search().then(
      () => undefined,
      (error: unknown) => error,
    )
    expect(failure).to.be.instanceOf(SearchLimitError)
  })

  it('forgets everything with a new full search', async () => {
    proc.add({ pid: 10, threads: { 10: { 3: SOCKET } } })
    await index.search()
    proc.remove('10')
    await index.search()
    expect([pids(), index.unread()]).to.deep.equal([[], 0])
  })

  it('does not count processes that end meanwhile', async () => {
    proc.write('30/stat', 'no task folder: it has just gone')
    await index.search()
    expect(index.unread()).to.equal(0)
  })

  it('counts processes that it may not search, but no kernel threads and none that have ended', async () => {
    // A file in the place of a folder fails with another error than absence does.
    proc.write('40/task/40/fd', '')
    proc.write('40/stat', '40 (agent) S 1 40 40 0 -1 4194304 0\n')
    proc.write('40/task/40/stat', '40 (agent) S 1 40 40 0 -1 4194304 0\n')
    proc.write('41/task', '')
    proc.write('41/stat', '41 (agent) S 1 41 41 0 -1 4194304 0\n')
    proc.write('42/task/42/fd', '')
    proc.write('42/stat', `42 (kworker/0:1) S 2 0 0 0 -1 ${KERNEL_THREAD} 0\n`)
    proc.write('42/task/42/stat', `42 (kworker/0:1) S 2 0 0 0 -1 ${KERNEL_THREAD} 0\n`)
    for (const [pid, state] of [
      [43, 'Z'],
      [44, 'R'],
    ] as const) {
      proc.write(`${pid}/task/${pid}/fd`, '')
      for (const path of [`${pid}/stat`, `${pid}/task/${pid}/stat`])
        proc.write(path, `${pid} (a) Z () ${state} 1 ${pid} ${pid} 0 -1 4194304 0\n`)
    }
    await index.search()
    expect(index.unread()).to.equal(3)
  })

  it('counts the processes of other users when it runs without rights', () => {
    const script = `import('${join(import.meta.dirname, '../../../../sidecar/caller/holders.ts')}').then(async m => {
      const index = m.createHolderIndex('/proc'); await index.search(); console.log(index.unread()) })`
    const other = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
    const { stdout } = spawnSync(process.execPath, ['-e', script], { encoding: 'utf8', ...other })
    expect(Number(stdout)).to.be.greaterThan(0)
  })
})
