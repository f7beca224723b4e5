import { expect } from 'chai'
import { describe, it } from 'mocha'
import { quantityAmount, sameQuantity } from '../../../shared/injection/quantity.ts'

describe('sameQuantity', () => {
  const same = [
    ['1000m', '1'],
    ['1024Mi', '1Gi'],
    ['0.5', '500m'],
    ['1e3', '1k'],
    ['100n', '.1u'],
    ['0', '0Mi'],
    ['3.', '3'],
  ] as const
  for (const [a, b] of same)
    it(`takes ${a} for ${b}`, () => {
      expect(sameQuantity(a, b)).to.equal(true)
    })

  const different = [
    ['1M', '1Mi'],
    ['500m', '501m'],
    ['', ''],
    ['64MB', '64MB'],
    [undefined, undefined],
    [1, 1],
    ['-1', '-1'],
  ] as const
  for (const [a, b] of different)
    it(`does not take ${JSON.stringify(a)} for ${JSON.stringify(b)}`, () => {
      expect(sameQuantity(a, b)).to.equal(false)
    })

  it('reads suffixes as Kubernetes does: m is a thousandth, M a million, E a suffix and an exponent', () => {
    expect(quantityAmount('2E')).to.equal(2e18)
    expect(quantityAmount('2E2')).to.equal(200)
    expect(quantityAmount('2M')).to.equal(2e6)
    expect(quantityAmount('2m')).to.equal(0.002)
  })
})
