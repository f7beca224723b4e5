import { symlinkSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { describeRisk, findRiskyNeighbours } from '../../../sidecar/posture.ts'
import { makeProcFixture, statLine } from '../../support/proc-fixture.ts'
import type { ProcFixture } from '../../support/proc-fixture.ts'

const OURS = 'user:[1]'
const OWN_GROUP = '0::/\n'
const OTHER_GROUP = '0::/../cri-containerd-x.scope\n'
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
    { cgroup = OTHER_GROUP, uid = 1000, capBnd = '0' } = {},
  ): void {
    const ids = `Uid:\t${uid}\t${uid}\t${uid}\t${uid}`
    const sets = `CapPrm:\t${bit(21)}\nCapEff:\t${capEff}\nCapBnd:\t${capBnd}`
    proc.write(`${pid}/status`, `Name:\tx\n${ids}\n${sets}\n`)
    proc.write(`${pid}/stat`, statLine({ pid: Number(pid) }))
    proc.write(`${pid}/cgroup`, cgroup)
    if (namespace === undefined) return
    mkdirSync(join(proc.root, pid, 'ns'), { recursive: true })
    symlinkSync(namespace, join(proc.root, pid, 'ns', 'user'))
  }

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

  it('finds root that could have it again', () => {
    add('7', bit(10), OURS, { uid: 0, capBnd: bit(13) })
    expect(findRiskyNeighbours(proc.root)).to.have.length(1)
  })

  it('overlooks others for whom it is out of reach', () => {
    add('7', bit(10), OURS, { capBnd: bit(13) })
    expect(findRiskyNeighbours(proc.root)).to.deep.equal([])
  })

  it('counts a process whose user namespace it may not see', () => {
    add('7', bit(13), undefined)
    expect(findRiskyNeighbours(proc.root)).to.have.length(1)
  })
})
