/** Every golden case of this folder; see test/support/webhook-golden.ts for its files, `node scripts/update-golden.ts` to rewrite them. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { openWays } from '../../support/invariants.ts'
import {
  filesOf,
  goldenCases,
  injectGolden,
  readGolden,
  runGolden,
} from '../../support/webhook-golden.ts'

/** Left alone: what runs is the node's own manifest. */
const LEFT_ALONE = ['mirror-pod-of-a-node']

describe('golden pods', () => {
  it('are all there', () => {
    expect(goldenCases().length).to.be.at.least(75)
  })

  for (const name of goldenCases()) {
    describe(name, () => {
      const result = runGolden(name)

      it('comes out as written down', () => {
        expect(result.content).to.deep.equal(readGolden(name, result.file))
      })

      it('has no stale file', () => {
        const allowed = ['options.json', 'pod.json', result.file]
        expect(filesOf(name).filter((file) => !allowed.includes(file))).to.deep.equal([])
      })

      it('has no way left open, in either mode', () => {
        if (LEFT_ALONE.includes(name)) return
        for (const mode of ['native', 'container'] as const) {
          const { first, settings, again } = injectGolden(name, mode)
          if (first.pod === undefined) continue
          expect(openWays(first.pod, settings)).to.deep.equal([])
          expect(again).to.equal('unchanged')
        }
      })

      if (result.file === 'expected.json')
        it('is left alone when it is injected again', () => {
          expect(result.again).to.equal('unchanged')
        })
    })
  }
})
