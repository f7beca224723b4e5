import { setTimeout as sleep } from 'node:timers/promises'
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { SharedSearch } from '../../../../sidecar/caller/shared-search.ts'

interface Trial {
  readonly searches: SharedSearch<string>
  /** Who was answered by each search, in order. */
  readonly answered: (readonly string[])[]
  readonly failures: unknown[]
  mostAtOnce: number
  begun: number
}

/** Searches that take `tookMs` each; the first `failing` of them fail. */
function trial(tookMs: number, failing = 0): Trial {
  let running = 0
  const state: Trial = {
    answered: [],
    failures: [],
    mostAtOnce: 0,
    begun: 0,
    searches: new SharedSearch<string>({
      async search(): Promise<void> {
        state.begun += 1
        running += 1
        state.mostAtOnce = Math.max(state.mostAtOnce, running)
        await sleep(tookMs)
        running -= 1
        if (state.begun <= failing) throw new Error('too much')
      },
      found: (waiting) => state.answered.push(waiting),
      failed: (_waiting, error) => state.failures.push(error),
      now: () => performance.now(),
    }),
  }
  return state
}

describe('full searches', () => {
  it('are shared by all that wait when one begins', async () => {
    const { searches, answered } = trial(5)
    for (const name of ['a', 'b', 'c']) searches.wait(name)
    await sleep(30)
    expect(answered).to.deep.equal([['a', 'b', 'c']])
  })

  it('answer nobody who came while they ran, and run one at a time', async () => {
    const state = trial(40)
    state.searches.wait('early')
    for (let turn = 0; turn < 20; turn += 1) {
      await sleep(2)
      if (state.begun === 1) state.searches.wait(`late-${turn}`)
    }
    while (state.answered.length < 2) await sleep(5)
    expect(state.mostAtOnce).to.equal(1)
    expect(state.answered[0]).to.deep.equal(['early'])
    expect(state.answered[1]?.every((name) => name.startsWith('late'))).to.equal(true)
    expect(state.begun).to.equal(2)
  })

  it('take at most half of the time', async () => {
    const state = trial(30)
    const startedAt = performance.now()
    while (performance.now() - startedAt < 400) {
      state.searches.wait('again')
      await sleep(5)
    }
    // Without pauses there would be more than ten.
    expect(state.begun).to.be.within(2, 8)
  })

  it('begin for nobody when they are asked to, and answer who comes meanwhile with the next', async () => {
    const state = trial(20)
    state.searches.refresh()
    state.searches.refresh()
    while (state.begun === 0) await sleep(1)
    state.searches.wait('late')
    while (state.answered.length < 2) await sleep(5)
    expect(state.answered).to.deep.equal([[], ['late']])
    expect(state.begun).to.equal(2)
  })

  it('go on after one that failed', async () => {
    const state = trial(1, 1)
    state.searches.wait('a')
    await sleep(20)
    state.searches.wait('b')
    await sleep(40)
    expect(state.failures).to.have.length(1)
    expect(state.answered).to.deep.equal([['b']])
  })
})
