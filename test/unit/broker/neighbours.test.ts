/** Whether the containers beside a sidecar are through, by what a pod's object says of them. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { neighbourState, readPod } from '../../../broker/identity/neighbours.ts'
import { isRefusal } from '../../../shared/reasons.ts'
import type { NeighbourState } from '../../../shared/wire.ts'

type Policy = 'Always' | 'OnFailure' | 'Never'
/** Exit code, or another state. */
type Ended = number | 'running' | 'waiting' | 'missing'

interface Case {
  readonly policy: Policy
  /** Of the containers `a`, `b`, … */
  readonly ends: readonly Ended[]
  readonly init?: readonly Ended[]
  readonly more?: { readonly metadata?: object; readonly phase?: string; readonly native?: boolean }
}

const GOING = { metadata: { deletionTimestamp: '2026-01-01T00:00:00Z' } }

const CASES: readonly (readonly [string, Case, NeighbourState])[] = [
  ['all ended well, Never', { policy: 'Never', ends: [0, 0] }, 'ended'],
  ['one failed, Never', { policy: 'Never', ends: [0, 3] }, 'ended'],
  ['one runs, Never', { policy: 'Never', ends: [0, 'running'] }, 'running'],
  ['one waits, Never', { policy: 'Never', ends: [0, 'waiting'] }, 'running'],
  ['one is not reported, Never', { policy: 'Never', ends: [0, 'missing'] }, 'running'],
  ['all ended well, OnFailure', { policy: 'OnFailure', ends: [0, 0] }, 'ended'],
  ['one failed, OnFailure', { policy: 'OnFailure', ends: [0, 1] }, 'running'],
  ['all ended, Always', { policy: 'Always', ends: [0, 0] }, 'permanent'],
  ['some run, Always', { policy: 'Always', ends: ['running'] }, 'permanent'],
  [
    'all ended in a pod that goes, Always',
    { policy: 'Always', ends: [0, 1], more: GOING },
    'ended',
  ],
  [
    'one failed in a pod that goes, OnFailure',
    { policy: 'OnFailure', ends: [1], more: GOING },
    'ended',
  ],
  [
    'one runs in a pod that goes',
    { policy: 'Always', ends: [0, 'running'], more: GOING },
    'running',
  ],
  ['init container runs', { policy: 'Never', ends: [0], init: ['running'] }, 'running'],
  ['init container failed, OnFailure', { policy: 'OnFailure', ends: [0], init: [1] }, 'running'],
  ['init containers ended', { policy: 'OnFailure', ends: [0], init: [0, 0] }, 'ended'],
  [
    'init container that keeps running',
    { policy: 'Never', ends: [0], init: ['running'], more: { native: true } },
    'ended',
  ],
  [
    'the pod failed, whatever else',
    { policy: 'OnFailure', ends: [1], more: { phase: 'Failed' } },
    'ended',
  ],
  [
    'the pod is through',
    { policy: 'Always', ends: ['missing'], more: { phase: 'Succeeded' } },
    'ended',
  ],
  ['no other container', { policy: 'Never', ends: [] }, 'ended'],
]

function podOf({ policy, ends, init = [], more = {} }: Case): object {
  const nameOf = (prefix: string, at: number): string => `${prefix}${at}`
  const statuses = (list: readonly Ended[], prefix: string): object[] =>
    list.flatMap((end, at) => {
      if (end === 'missing') return []
      const state = typeof end === 'number' ? { terminated: { exitCode: end } } : { [end]: {} }
      return [{ name: nameOf(prefix, at), state, lastState: { terminated: { exitCode: 0 } } }]
    })
  const sidecar = { name: 'nestgate-sidecar' }
  return {
    metadata: { uid: 'uid', ...more.metadata },
    spec: {
      restartPolicy: policy,
      containers: [sidecar, ...ends.map((_end, at) => ({ name: nameOf('c', at) }))],
      initContainers: init.map((_end, at) => ({
        name: nameOf('i', at),
        ...(more.native === true ? { restartPolicy: 'Always' } : {}),
      })),
    },
    status: {
      phase: more.phase ?? 'Running',
      containerStatuses: [{ ...sidecar, state: { running: {} } }, ...statuses(ends, 'c')],
      initContainerStatuses: statuses(init, 'i'),
    },
  }
}

describe('the containers beside a sidecar', () => {
  for (const [what, one, expected] of CASES)
    it(`are ${expected}: ${what}`, () => {
      const pod = readPod(podOf(one))
      if (isRefusal(pod)) throw new Error(pod.detail)
      expect(neighbourState(pod)).to.equal(expected)
    })

  it('are not told of what is no pod', () => {
    for (const odd of [undefined, {}, { ...podOf({ policy: 'Never', ends: [0] }), spec: {} }])
      expect(readPod(odd)).to.have.property('refused', 'identity_unavailable')
  })

  it('of a pod just stored, which has no statuses yet, run', () => {
    const pod = readPod({
      metadata: { uid: 'uid' },
      spec: { restartPolicy: 'Never', containers: [{ name: 'a' }] },
      status: {},
    })
    if (isRefusal(pod)) throw new Error(pod.detail)
    expect(neighbourState(pod)).to.equal('running')
  })
})
