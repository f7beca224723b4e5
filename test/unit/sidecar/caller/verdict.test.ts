import { expect } from 'chai'
import { describe, it } from 'mocha'
import { agentTagSchema } from '../../../../shared/agent-tag.ts'
import { connectionProblem } from '../../../../sidecar/caller/accepted.ts'
import { TCP_STATE } from '../../../../sidecar/caller/socket-table.ts'
import type { ConnectionRows } from '../../../../sidecar/caller/socket-table.ts'
import { isRelay, judge } from '../../../../sidecar/caller/verdict.ts'
import type { Findings } from '../../../../sidecar/caller/verdict.ts'

const ONE: Extract<Findings, { kind: 'one' }> = {
  kind: 'one',
  process: {
    pid: 9,
    image: { startTicks: '100', exe: '/usr/bin/curl', execMark: 'secret-address' },
    uid: 1000,
    gid: 1000,
    exeIsWritable: false,
    containerId: undefined,
    ancestors: [],
  },
  exeHash: { sha256: 'ab'.repeat(32) },
  execOrdinal: 2,
  declared: { command: 'curl' },
  instanceId: 'i',
  bootId: 'b',
  unread: 0,
  relay: false,
}

describe('judge', () => {
  const cases: [string, Findings, string][] = [
    ['one holder', ONE, 'exclusive'],
    [
      'one holder among processes that may not be searched',
      { ...ONE, unread: 1 },
      'container_only',
    ],
    ['a relay', { ...ONE, relay: true }, 'relay'],
    [
      'a relay among processes that may not be searched',
      { ...ONE, relay: true, unread: 1 },
      'container_only',
    ],
    ['several holders', { kind: 'several', pids: [3, 4] }, 'shared'],
    [
      'a socket without its processes',
      { kind: 'container', why: 'profile C', socket: { uid: 7, cgroupId: '99' } },
      'container_only',
    ],
    ['no holder', { kind: 'none', why: 'gone' }, 'unidentified'],
    [
      'more holders than fit',
      { kind: 'several', pids: Array.from({ length: 500 }, (_, at) => at) },
      'shared',
    ],
  ]
  for (const [name, findings, verdict] of cases)
    it(`calls ${name} ${verdict}, with a reason unless exclusive`, () => {
      const tag = judge(findings)
      expect(tag.verdict).to.equal(verdict)
      expect(tag.reason === undefined).to.equal(verdict === 'exclusive')
      expect(agentTagSchema.safeParse(tag).success).to.equal(true)
    })

  it('names nobody where several or none hold the connection', () => {
    for (const findings of [cases[4]![1], cases[5]![1], cases[6]![1]])
      expect(judge(findings)).not.to.have.any.keys('verified', 'instanceId', 'declared')
  })

  for (const [exe, exeHash, expected] of [
    ['/usr/bin/curl', { sha256: 'ab'.repeat(32) }, undefined],
    ['/usr/bin/curl', { note: 'not hashed in time' }, 'not hashed in time'],
    ['/usr/bin/curl (deleted)', { sha256: 'ab'.repeat(32) }, 'the file is deleted'],
    ['/memfd:x (deleted)', { sha256: 'ab'.repeat(32) }, 'it never was a file'],
    ['/a (deleted)', { note: 'not hashed: EIO' }, 'not hashed: EIO; the file is deleted'],
  ] as const)
    it(`says of the executable ${exe}: ${expected ?? 'nothing'}`, () => {
      const process = { ...ONE.process, image: { ...ONE.process.image, exe } }
      const { verified } = judge({ ...ONE, process, exeHash })
      expect(verified?.exeNote).to.equal(expected)
      expect(verified?.exeSha256).to.equal('sha256' in exeHash ? exeHash.sha256 : undefined)
      expect(verified?.execOrdinal).to.equal(2)
    })

  it('does not let addresses of the process out', () => {
    expect(JSON.stringify(judge(ONE))).not.to.contain('secret-address')
  })
})

describe('isRelay', () => {
  for (const [exe, expected] of [
    ['/usr/local/bin/envoy', true],
    ['/usr/sbin/nginx (deleted)', true],
    ['/usr/bin/socat', true],
    ['/usr/bin/curl', false],
    ['/opt/envoy/agent', false],
    ['', false],
  ] as const)
    it(`says ${expected} of ${JSON.stringify(exe)}`, () => {
      expect(isRelay(exe)).to.equal(expected)
    })
})

describe('connectionProblem', () => {
  const client = { inode: 6, uid: 1000, state: TCP_STATE.established }
  const own = { inode: 5, uid: 0, state: TCP_STATE.established }
  const SYN_SENT = 2
  const CLOSE = 7
  const cases: [string, ConnectionRows, number | undefined, boolean][] = [
    ['both ends connected', { client, own }, 5, true],
    [
      'a client that has ended its side',
      {
        client: { ...client, state: TCP_STATE.finWait2 },
        own: { ...own, state: TCP_STATE.closeWait },
      },
      5,
      true,
    ],
    ['an end of ours that is another socket', { client, own }, 4, false],
    ['a socket that was closed here', { client, own }, undefined, false],
    ['no row of our end', { client }, 5, false],
    ['no row of the client’s', { own }, 5, false],
    [
      'a client that nobody holds, whose user id reads as root',
      { client: { inode: 0, uid: 0, state: TCP_STATE.finWait2 }, own },
      5,
      false,
    ],
    [
      'a new socket that reuses the port',
      { client: { ...client, state: SYN_SENT }, own },
      5,
      false,
    ],
    ['an end of ours that is closed', { client, own: { ...own, state: CLOSE } }, 5, false],
  ]
  for (const [name, rows, inode, fine] of cases)
    it(`${fine ? 'accepts' : 'rejects'} ${name}`, () => {
      expect(connectionProblem(rows, inode) === undefined).to.equal(fine)
    })
})
