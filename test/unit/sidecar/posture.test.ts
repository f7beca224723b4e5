import { spawnSync } from 'node:child_process'
import { symlinkSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { SearchLimitError } from '../../../sidecar/caller/holders.ts'
import {
  describeRisk,
  findRiskyNeighbours,
  hasRawSockets,
  MAX_THREADS,
} from '../../../sidecar/posture.ts'
import { makeProcFixture, statLine } from '../../support/proc-fixture.ts'
import type { ProcFixture } from '../../support/proc-fixture.ts'

const OURS = 'user:[1]'
const OWN_GROUP = '0::/\n'
const OTHER_GROUP = '0::/../cri-containerd-x.scope\n'
/** Lines of a thread's status; a set as hex digits. */
interface Status {
  readonly uid: number
  readonly capPrm: string
  readonly capEff: string
  readonly capBnd: string
  /** Empty: there is no such line. */
  readonly noNewPrivs: string
}

const bit = (at: number): string => (1n << BigInt(at)).toString(16).padStart(16, '0')

describe('neighbours with risky capabilities', () => {
  let proc: ProcFixture

  beforeEach(() => {
    proc = makeProcFixture()
    add('self', bit(19), OURS, { cgroup: OWN_GROUP })
  })
  afterEach(() => {
    proc.delete()
  })

  function add(
    pid: string,
    capEff: string,
    namespace: string | undefined,
    { cgroup = OTHER_GROUP, ...more }: { cgroup?: string } & Partial<Status> = {},
  ): void {
    addThread(pid, pid, { capEff, ...more })
    proc.write(`${pid}/stat`, statLine({ pid: Number(pid) }))
    proc.write(`${pid}/cgroup`, cgroup)
    if (namespace === undefined) return
    mkdirSync(join(proc.root, pid, 'ns'), { recursive: true })
    symlinkSync(namespace, join(proc.root, pid, 'ns', 'user'))
  }

  function addThread(pid: string, tid: string, status: Partial<Status>): void {
    const { uid = 1000, capPrm = '0', capEff = '0', capBnd = '0', noNewPrivs = '1' } = status
    const ids = `Uid:\t${uid}\t${uid}\t${uid}\t${uid}`
    // The inheritable set gives nothing by itself.
    const sets = `CapInh:\t${bit(21)}\nCapPrm:\t${capPrm}\nCapEff:\t${capEff}\nCapBnd:\t${capBnd}`
    const last = noNewPrivs === '' ? '' : `NoNewPrivs:\t${noNewPrivs}\n`
    proc.write(`${pid}/task/${tid}/status`, `Name:\tx\n${ids}\n${sets}\n${last}`)
  }

  it('sees sockets for raw packets, with or without anybody’s capabilities', () => {
    expect(hasRawSockets(proc.root)).to.equal(false)
    for (const name of ['packet', 'raw', 'raw6'])
      proc.write(`net/${name}`, 'sk       RefCnt Type\n')
    expect(hasRawSockets(proc.root)).to.equal(false)
    proc.write('net/packet', 'sk       RefCnt Type\n0000000000000000 3      3    0003   0     1\n')
    expect(hasRawSockets(proc.root)).to.equal(true)
  })

  it('sees a real one', () => {
    const script = `import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
print(open('/proc/net/packet').read())`
    const { stdout } = spawnSync('python3', ['-c', script], { encoding: 'utf8' })
    proc.write('net/packet', stdout.trimEnd())
    expect(hasRawSockets(proc.root)).to.equal(true)
  })

  for (const [name, at] of [
    ['NET_ADMIN', 12],
    ['NET_RAW', 13],
    ['SYS_PTRACE', 19],
    ['SYS_ADMIN', 21],
    ['BPF', 39],
  ] as const)
    it(`finds ${name}`, () => {
      add('7', bit(at), OURS)
      const found = findRiskyNeighbours(proc.root)
      expect(found).to.deep.equal([{ pid: 7, key: '7 100', capabilities: [name] }])
      expect(describeRisk(found)).to.contain(name).and.to.contain('process 7')
    })

  for (const [name, setUp] of [
    [
      'other capabilities',
      () => {
        add('7', bit(10), OURS)
      },
    ],
    [
      'none',
      () => {
        add('7', '0'.repeat(16), OURS)
      },
    ],
    [
      'those of the sandbox’s own process',
      () => {
        add('1', bit(13), OURS)
      },
    ],
    [
      'those of a process of the sidecar’s own container',
      () => {
        add('7', bit(19), OURS, { cgroup: OWN_GROUP })
      },
    ],
    [
      'those in another user namespace',
      () => {
        add('7', bit(13), 'user:[2]')
      },
    ],
  ] as const)
    it(`overlooks ${name}`, () => {
      setUp()
      expect(findRiskyNeighbours(proc.root)).to.deep.equal([])
    })

  const reach: [string, Partial<Status>, boolean][] = [
    ['may have it, and does not use it', { capPrm: bit(13) }, true],
    ['can get it by executing another', { capBnd: bit(13), noNewPrivs: '0' }, true],
    ['can get it, for all that is known', { capBnd: bit(13), noNewPrivs: '' }, true],
    ['can get it, as root', { uid: 0, capBnd: bit(13), noNewPrivs: '0' }, true],
    ['has given up new privileges', { capBnd: bit(13), noNewPrivs: '1' }, false],
    ['can get others', { capBnd: bit(10), noNewPrivs: '0' }, false],
  ]
  for (const [name, status, expected] of reach)
    it(`${expected ? 'finds' : 'overlooks'} a program that ${name}`, () => {
      add('7', bit(10), OURS, status)
      expect(findRiskyNeighbours(proc.root)).to.have.length(expected ? 1 : 0)
    })

  it('finds a thread that has what the first of its process has given up', () => {
    add('7', '0', OURS)
    addThread('7', '8', { capEff: bit(13) })
    expect(findRiskyNeighbours(proc.root)).to.deep.equal([
      { pid: 7, key: '7 100', capabilities: ['NET_RAW'] },
    ])
  })

  it('gives up on more threads than it may look at, and overlooks none', () => {
    for (let tid = 1; tid <= MAX_THREADS; tid += 1)
      mkdirSync(join(proc.root, '7', 'task', String(tid)), { recursive: true })
    expect(findRiskyNeighbours(proc.root)).to.deep.equal([])
    mkdirSync(join(proc.root, '8', 'task', '8'), { recursive: true })
    expect(() => findRiskyNeighbours(proc.root)).to.throw(SearchLimitError)
  })

  it('counts a process whose user namespace it may not see', () => {
    add('7', bit(13), undefined)
    expect(findRiskyNeighbours(proc.root)).to.have.length(1)
  })
})
