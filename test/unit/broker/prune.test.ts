import { expect } from 'chai'
import { describe, it } from 'mocha'
import { pruneRange, RANGE_ENTRIES } from '../../../broker/store/logic/prune.ts'
import { POSTGRES } from '../../../broker/store/steps.ts'

describe('the removal of a range', () => {
  /** Runs it on a head. @returns what it came to, and how many statements it took */
  const run = (firstSeq: number, from: number): [number | undefined, number] => {
    const work = pruneRange(POSTGRES, { from, below: 10 * RANGE_ENTRIES })
    const head = { size: 10 * RANGE_ENTRIES, first_seq: firstSeq }
    let next = work.next()
    let steps = 0
    while (next.done !== true) {
      steps += 1
      next = work.next([head])
    }
    return [next.value, steps]
  }

  it('takes away the one that its entry names', () => {
    expect(run(RANGE_ENTRIES, RANGE_ENTRIES)).to.deep.equal([2 * RANGE_ENTRIES, 4])
  })

  it('takes nothing away where another broker took that one meanwhile', () => {
    expect(run(RANGE_ENTRIES, 0)).to.deep.equal([undefined, 1])
  })
})
