import { expect } from 'chai'
import { describe, it } from 'mocha'
import type { Containers, ContainerTable } from '../../../broker/identity/containers.ts'
import { createNaming } from '../../../broker/identity/naming.ts'
import type { Names, Naming } from '../../../broker/identity/naming.ts'
import { createMatcher } from '../../../broker/identity/registrations.ts'
import type { Registration } from '../../../broker/identity/registrations.ts'
import type { AgentTag } from '../../../shared/agent-tag.ts'
import { MAX_ANCESTORS } from '../../../shared/agent-tag.ts'
import { TAG } from '../../support/sidecar-keys.ts'

const ID = 'c'.repeat(64)
const POD = {
  cluster: 'prod',
  namespace: 'agents',
  serviceAccount: 'worker',
  podName: 'pod-1',
  podUid: 'uid-1',
}
const PLANNER = { name: 'planner', image: 'i@sha256:1', images: ['i@sha256:1'] }

const tagged = (change: object, more: Partial<AgentTag> = {}): AgentTag => ({
  ...TAG,
  verified: { ...TAG.verified!, ancestors: [], ...change },
  ...more,
})

/** Containers that are known at once. */
function table(entries: ContainerTable): Containers {
  return {
    known: () => entries,
    ask: () => Promise.resolve(entries),
    settle: () => Promise.resolve(entries),
  }
}

function naming(
  registrations: readonly Registration[],
  containers = table(
    new Map([
      [ID, PLANNER],
      ['user:1001', PLANNER],
    ]),
  ),
): Naming {
  return createNaming({ matcher: createMatcher(registrations), containers, now: Date.now })
}

const nameAtOnce = (which: Naming, tag: AgentTag): Names => {
  const names = which.name({ pod: POD, tag })
  if (names instanceof Promise) throw new Error('it had to wait')
  return names
}

describe('the name of a process', () => {
  const rows: readonly (readonly [string, AgentTag, string])[] = [
    ['container and executable', tagged({}), 'unregistered/planner/python3.11'],
    [
      'the id of a container that is not of the pod',
      tagged({ containerId: 'd'.repeat(64) }),
      'unregistered/ddddddddddddd/python3.11',
    ],
    [
      'that it has no container',
      tagged({ containerId: undefined }),
      'unregistered/no-container/python3.11',
    ],
    [
      'that its executable is not known',
      tagged({ exe: undefined }),
      'unregistered/planner/unknown',
    ],
    ['that nothing is known', { verdict: 'unidentified' }, 'unregistered/no-container/unknown'],
    [
      'no program where others may hold the connection',
      tagged({}, { verdict: 'container_only' }),
      'unregistered/planner/unknown',
    ],
    [
      'the container whose user made the socket',
      { verdict: 'container_only', socket: { uid: 1001 } },
      'unregistered/planner/unknown',
    ],
    [
      'nothing where the user may be that of several containers',
      { verdict: 'container_only', socket: { uid: 1002 } },
      'unregistered/no-container/unknown',
    ],
    [
      'nothing by a socket that nobody holds',
      { verdict: 'unidentified', socket: { uid: 1001 } },
      'unregistered/no-container/unknown',
    ],
    [
      'nothing where several hold the connection',
      tagged({}, { verdict: 'shared' }),
      'unregistered/no-container/unknown',
    ],
  ]
  for (const [what, tag, expected] of rows) {
    it(`without a registration tells ${what}`, () => {
      expect(nameAtOnce(naming([]), tag).agent).to.equal(expected)
    })
  }

  it('does not follow what the process says of itself', () => {
    const which = naming([{ name: 'deployer', match: { executables: ['/opt/deploy'] } }])
    const names = [
      undefined,
      { agentName: 'deployer' },
      { command: '/opt/deploy', agentName: 'unregistered/planner/x' },
    ].map(
      (declared) => nameAtOnce(which, tagged({}, declared === undefined ? {} : { declared })).agent,
    )
    expect(new Set(names)).to.deep.equal(new Set(['unregistered/planner/python3.11']))
  })

  it('is not a registration’s by program, where a program is not proved', () => {
    const which = naming([
      { name: 'by-program', match: { executables: ['/usr/bin/**'] } },
      { name: 'by-user', match: { uids: [1000] } },
      { name: 'by-container', match: { containers: ['planner'] } },
    ])
    expect(nameAtOnce(which, tagged({})).agent).to.equal('by-program')
    const contained = nameAtOnce(which, tagged({}, { verdict: 'container_only' }))
    expect([contained.agent, contained.chain]).to.deep.equal(['by-container', []])
    expect(nameAtOnce(which, tagged({}, { verdict: 'shared' })).agent).to.match(/^unregistered/)
  })

  it('follows the digest of the program, which only the process itself has', () => {
    const sha256 = 'a'.repeat(64)
    const which = naming([{ name: 'signed', match: { sha256: [sha256] } }])
    const names = [sha256, 'b'.repeat(64), undefined].map(
      (exeSha256) => nameAtOnce(which, tagged({ exeSha256 })).agent,
    )
    const other = 'unregistered/planner/python3.11'
    expect(names).to.deep.equal(['signed', other, other])
  })

  it('comes with those of its ancestors, nearest first, by the facts there are of them', () => {
    const ancestors = [
      { pid: 9, startTicks: '1', exe: '/bin/sh', containerId: ID },
      { pid: 8, startTicks: '1', exe: '/usr/bin/node', containerId: ID },
      { pid: 1, startTicks: '1' },
    ]
    const which = naming([
      { name: 'user', match: { uids: [1000] } },
      { name: 'orchestrator', match: { containers: ['planner'], executables: ['**/node'] } },
    ])
    const { agent, chain, container } = nameAtOnce(which, tagged({ ancestors }))
    expect(agent).to.equal('user')
    expect(chain).to.deep.equal([
      'unregistered/planner/sh',
      'orchestrator',
      'unregistered/no-container/unknown',
    ])
    expect(container).to.deep.equal(PLANNER)
  })

  it('has no longer a chain than a tag may', () => {
    const ancestors = Array.from({ length: 40 }, () => ({ pid: 9, startTicks: '1' }))
    expect(nameAtOnce(naming([]), tagged({ ancestors })).chain).to.have.length(MAX_ANCESTORS)
  })

  it('is found without waiting once its tag has it, and without asking about containers', async () => {
    let asked = 0
    const known = new Map([[ID, PLANNER]])
    const ask = (): Promise<ContainerTable> => {
      asked += 1
      return Promise.resolve(known)
    }
    const which = naming([], { known: () => undefined, ask, settle: ask })
    const tag = tagged({})
    const first = which.name({ pod: POD, tag })
    expect(first).to.be.instanceOf(Promise)
    const names = await first
    for (let i = 0; i < 3; i += 1) expect(which.name({ pod: POD, tag })).to.equal(names)
    expect(asked).to.equal(1)
  })

  it('is not taken from another pod that shows the same tag', async () => {
    const which = naming([{ name: 'one', match: { namespaces: ['agents'] } }])
    const tag = tagged({})
    expect((await which.name({ pod: POD, tag })).agent).to.equal('one')
    // one part of the pod's identity differs at a time, each after the first pod has asked again
    for (const change of [{ podUid: 'uid-2' }, { cluster: 'test' }]) {
      await which.name({ pod: POD, tag })
      const pod = { ...POD, namespace: 'x', ...change }
      expect((await which.name({ pod, tag })).agent).to.equal('unregistered/planner/python3.11')
    }
  })
})
