/** When a sidecar asks whether the others are through, how often, and what it makes of the answers. */
import { expect } from 'chai'
import { beforeEach, describe, it } from 'mocha'
import { createLog } from '../../../shared/log.ts'
import type { NeighbourState } from '../../../shared/wire-constants.ts'
import { LONGEST_PAUSE_MS, neighboursEnd } from '../../../sidecar/neighbours.ts'
import type { NeighboursDeps } from '../../../sidecar/neighbours.ts'

type Answer = NeighbourState | 'refused' | 'away'

describe('a sidecar that may outlive its pod’s other containers', () => {
  let nowMs: number
  /** When it asked, in seconds. */
  let asked: number[]
  let ending: AbortController
  let closing: AbortController
  let token: string | undefined

  beforeEach(() => {
    nowMs = 0
    asked = []
    token = 'token'
    ending = new AbortController()
    closing = new AbortController()
  })

  /** Answers by the time; what happens at a time is done before. */
  function look(
    seemGone: (atS: number) => boolean,
    answer: (atS: number) => Answer,
    happens: (atS: number) => void = () => undefined,
  ): Promise<boolean> {
    const deps: NeighboursDeps = {
      broker: {
        neighbours() {
          asked.push(nowMs / 1000)
          const said = answer(nowMs / 1000)
          if (said === 'away') return Promise.reject(new Error('no broker'))
          return Promise.resolve(
            said === 'refused' ? { ok: false, status: 503 } : { ok: true, value: said },
          )
        },
      },
      token: { read: () => token },
      log: createLog('test', 'silent'),
      seemGone: () => seemGone(nowMs / 1000),
      ending: ending.signal,
      closing: closing.signal,
      pause(ms) {
        nowMs += ms
        happens(nowMs / 1000)
        if (nowMs > 200_000) closing.abort()
        return Promise.resolve()
      },
    }
    return neighboursEnd(deps)
  }

  it('asks when none is left, and is told', async () => {
    expect(
      await look(
        (at) => at > 10,
        (at) => (at > 12 ? 'ended' : 'running'),
      ),
    ).to.equal(true)
    expect(asked).to.deep.equal([11, 13])
  })

  it('asks ever more rarely, up to a bound, and anew once one was there again', async () => {
    expect(
      await look(
        (at) => at !== 100,
        (at) => (at > 101 ? 'ended' : 'running'),
      ),
    ).to.equal(true)
    const pauses = asked.map((at, index) => at - (asked[index - 1] ?? 0))
    expect(pauses).to.deep.equal([1, 2, 4, 8, 16, 30, 30, 10, 2])
    expect(LONGEST_PAUSE_MS).to.equal(30_000)
  })

  it('does not ask while one is there', async () => {
    expect(
      await look(
        () => false,
        () => 'ended',
      ),
    ).to.equal(false)
    expect(asked).to.deep.equal([])
  })

  for (const answer of ['refused', 'away', 'running'] as const)
    it(`goes on where the answer is ${answer}`, async () => {
      expect(
        await look(
          () => true,
          () => answer,
        ),
      ).to.equal(false)
      expect(asked.length).to.be.within(8, 12)
    })

  it('goes on without a token, and asks nothing', async () => {
    token = undefined
    expect(
      await look(
        () => true,
        () => 'ended',
      ),
    ).to.equal(false)
    expect(asked).to.deep.equal([])
  })

  it('asks once where whatever ends is started again, until the pod is told to end', async () => {
    setTimeout(() => {
      ending.abort()
    }, 20)
    expect(
      await look(
        () => true,
        () => (ending.signal.aborted ? 'ended' : 'permanent'),
      ),
    ).to.equal(true)
    expect(asked).to.have.length(2)
  })

  it('stops with the sidecar, also where it does not ask any more', async () => {
    setTimeout(() => {
      closing.abort()
    }, 20)
    expect(
      await look(
        () => true,
        () => 'permanent',
      ),
    ).to.equal(false)
    expect(asked).to.have.length(1)
  })
})
