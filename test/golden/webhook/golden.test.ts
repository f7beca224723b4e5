/** Every golden case of this folder; see test/support/webhook-golden.ts for its files, `node scripts/update-golden.ts` to rewrite them. */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import { filesOf, goldenCases, readGolden, runGolden } from '../../support/webhook-golden.ts'

describe('golden pods', () => {
  it('are all there', () => {
    expect(goldenCases().length).to.be.at.least(15)
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

      if (result.file === 'expected.json')
        it('is left alone when it is injected again', () => {
          expect(result.again).to.equal('unchanged')
        })
    })
  }
})
