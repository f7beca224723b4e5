/** The differential test puts each case to a real API server, too (test/differential). */
import { expect } from 'chai'
import { describe, it } from 'mocha'
import {
  BROKEN_LABEL_SELECTORS,
  BROKEN_NUMBERS,
  FIELD_SELECTORS,
  LABEL_SELECTORS,
  NUMBERS,
} from '../../support/selector-cases.ts'
import { demandedField, isInt64, isLabelSelector } from '../../../shared/kubernetes/selectors.ts'

describe('field selectors', () => {
  for (const [selector, name] of FIELD_SELECTORS) {
    it(`${JSON.stringify(selector)} demands ${JSON.stringify(name)}`, () => {
      expect(demandedField(selector, 'metadata.name')).to.equal(name)
    })
  }
})

describe('label selectors', () => {
  for (const selector of LABEL_SELECTORS) {
    it(`takes ${JSON.stringify(selector)}`, () => {
      expect(isLabelSelector(selector)).to.equal(true)
    })
  }
  for (const selector of BROKEN_LABEL_SELECTORS) {
    it(`does not take ${JSON.stringify(selector)}`, () => {
      expect(isLabelSelector(selector)).to.equal(false)
    })
  }
})

describe('numbers of list options', () => {
  it('are an int64 in decimal digits', () => {
    for (const text of NUMBERS) expect(isInt64(text), text).to.equal(true)
    for (const text of BROKEN_NUMBERS) expect(isInt64(text), text).to.equal(false)
  })
})
