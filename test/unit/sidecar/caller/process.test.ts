import { expect } from 'chai'
import { afterEach, beforeEach, describe, it } from 'mocha'
import { MAX_ANCESTORS, agentTagSchema } from '../../../../shared/agent-tag.ts'
import {
  describeProcess,
  parseContainerId,
  parseStat,
  readImage,
} from '../../../../sidecar/caller/process.ts'
import { judge } from '../../../../sidecar/caller/verdict.ts'
import { makeProcFixture, statLine } from '../../../support/proc-fixture.ts'
import type { ProcFixture } from '../../../support/proc-fixture.ts'

const ID = 'a'.repeat(64)
const OTHER = 'b'.repeat(64)

describe('parseStat', () => {
  for (const name of ['agent', 'a b', ') R 1 (', '(sd-pam)', 'x) S 99 99 99', ''])
    it(`reads parent and start past the name ${JSON.stringify(name)}`, () => {
      const stat = parseStat(statLine({ pid: 5, parent: 3, startTicks: '4711', name }))
      expect([stat?.parent, stat?.startTicks]).to.deep.equal([3, '4711'])
    })
  for (const text of ['', '5', '5 (x)', '5 (x) S', '5 (x) S -1 2'])
    it(`has no answer for ${JSON.stringify(text)}`, () => {
      expect(parseStat(text)).to.equal(undefined)
    })
})

describe('parseContainerId', () => {
  const cases: [string, string, string | undefined][] = [
    ['cgroup v2, systemd driver', `0::/../cri-containerd-${ID}.scope\n`, ID],
    ['cgroup v2, cgroupfs driver', `0::/kubepods/burstable/pod1-2/${ID}\n`, ID],
    ['cgroup v1', `9:name=systemd:/kubepods/pod1/${ID}\n8:pids:/kubepods/pod1/${ID}\n`, ID],
    ['CRI-O', `0::/kubepods.slice/crio-${ID}.scope\n`, ID],
    ['Docker', `0::/docker/${ID}\n`, ID],
    ['a container in a container', `0::/docker/${OTHER}/kubelet/${ID}\n`, ID],
    [
      'old containerd names',
      `0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:${ID}\n`,
      undefined,
    ],
    ['the own container, seen from inside', '0::/\n', undefined],
    ['no container', '0::/user.slice/user-1000.slice\n', undefined],
    ['63 digits', `0::/${'a'.repeat(63)}\n`, undefined],
    ['capital digits', `0::/${'A'.repeat(64)}\n`, undefined],
    ['nothing', '', undefined],
  ]
  for (const [name, text, expected] of cases)
    it(`reads ${name}`, () => {
      expect(parseContainerId(text)).to.equal(expected)
    })
})

describe('describeProcess', () => {
  let proc: ProcFixture

  beforeEach(() => {
    proc = makeProcFixture()
    proc.add({ pid: 1, parent: 0, exe: '/pause', startTicks: '1' })
  })
  afterEach(() => {
    proc.delete()
  })

  it('reports effective ids, container and the chain to the first process', () => {
    proc.add({ pid: 5, parent: 1, exe: '/bin/sh', cgroup: `0::/${OTHER}\n` })
    proc.add({ pid: 9, parent: 5, exe: '/usr/bin/kubectl', uid: 2000, cgroup: `0::/${ID}\n` })
    const facts = describeProcess(proc.root, 9, 9)
    expect([facts?.uid, facts?.gid, facts?.containerId]).to.deep.equal([2001, 8, ID])
    expect(facts?.image.exe).to.equal('/usr/bin/kubectl')
    expect(facts?.ancestors).to.deep.equal([
      { pid: 5, startTicks: '100', exe: '/bin/sh', containerId: OTHER },
      { pid: 1, startTicks: '1', exe: '/pause' },
    ])
  })

  it('reads the program of a living thread when the first thread has ended', () => {
    proc.add({ pid: 9, exe: '/bin/agent', threads: { 12: {} } })
    proc.remove('9/exe')
    expect(describeProcess(proc.root, 9, 12)?.image.exe).to.equal('/bin/agent')
  })

  it('has no answer for a process that has gone', () => {
    expect(describeProcess(proc.root, 99, 99)).to.equal(undefined)
    expect(readImage(`${proc.root}/99`, 99, 99)).to.equal(undefined)
  })

  it('has no answer where the executable cannot be read', () => {
    proc.add({ pid: 9 })
    proc.remove('9/task/9/exe')
    expect(describeProcess(proc.root, 9, 9)).to.equal(undefined)
  })

  it('keeps the tag within what the broker reads, however long the chain and its paths are', () => {
    const long = `/${'x'.repeat(3000)}`
    for (let pid = 2; pid < 40; pid += 1) proc.add({ pid, parent: pid - 1, exe: long })
    const facts = describeProcess(proc.root, 39, 39)!
    expect(facts.ancestors.length).to.be.greaterThan(0).and.at.most(MAX_ANCESTORS)
    const tag = judge({
      kind: 'one',
      process: facts,
      exeHash: { note: 'n'.repeat(600) },
      execOrdinal: 3,
      declared: {},
      instanceId: 'i',
      bootId: 'b',
      unread: 0,
      relay: false,
    })
    expect(agentTagSchema.safeParse(tag).success).to.equal(true)
    expect((JSON.stringify(tag).length * 4) / 3).to.be.lessThan(8192)
  })

  it('carries at most the ancestors that a tag may have', () => {
    for (let pid = 2; pid < 60; pid += 1) proc.add({ pid, parent: pid - 1, exe: '/a' })
    expect(describeProcess(proc.root, 59, 59)?.ancestors).to.have.length(MAX_ANCESTORS)
  })
})
